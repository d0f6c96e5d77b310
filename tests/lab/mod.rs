//! A network lab for end-to-end tests: namespaces with real TCP stacks, veths whose near ends a `haechi run` takes,
//! raw frames, captures, links cut and restored, and a node that is checked when the test ends.
//!
//! Everything a lab makes has a name of its own process, and goes when its value is dropped, also when the test
//! panics. What a killed test process left is removed by the next one ([`netns::sweep`]).
//!
//! Needs root, iproute2, ethtool, tcpdump and util-linux; no test may be skipped, so a missing one is a failure.
//!
//! ```ignore
//! let mut lab = Lab::new();
//! let (client, server) = lab.pair("lan", "wan");
//! let node = lab.start(Config::new("[[rule]]\nname = \"all\"\naction = \"allow\"\n"));
//! client.ping(server.v4);
//! // dropped: the node's counters are balanced against each other, exactly, and it is stopped
//! ```
#![allow(dead_code, reason = "every test binary uses its own part of the lab")]
#![allow(unused_imports, reason = "likewise")]
#![allow(unreachable_pub, reason = "a module shared by test binaries has no outside")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's way to fail"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests wait for real programs"
)]

pub mod api;
pub mod capture;
pub mod config;
pub mod duo;
pub mod fragments;
pub mod frames;
pub mod host;
pub mod impair;
pub mod netns;
pub mod node;
pub mod process;
pub mod stall;
pub mod stream;
pub mod traffic;
pub mod web;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use capture::Capture;
pub use config::Config;
pub use host::Host;
pub use impair::Stage;
pub use netns::Netns;
pub use node::{Node, Running};
pub use process::Process;
pub use stream::Stream;
pub use web::Site;

/// How long a condition may take on a busy machine before the test fails. Long: it costs only failing tests.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Polls `condition` until it gives a value; panics with `what` and the last complaint when [`PATIENCE`] is over.
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
    wait_for_within(PATIENCE, what, condition)
}

/// [`wait_for`] with a deadline of its own.
pub fn wait_for_within<T>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        match condition() {
            Ok(value) => return value,
            Err(complaint) if Instant::now() >= deadline => {
                panic!("not within {patience:?}: {what}: {complaint}")
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// One test's namespaces, ports and files.
pub struct Lab {
    /// Where the node runs: it holds the near ends of all veths.
    pub firewall: Netns,
    /// Configured ports, in the order in which they were added.
    pub ports: Vec<config::Port>,
    /// `NAME=VALUE` for the node's environment.
    pub environment: Vec<std::ffi::OsString>,
    dir: tempfile::TempDir,
    hosts: u8,
    name: String,
    _turn: netns::Turn,
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// An empty lab. Labs of one target directory take turns, so that tests do not fight for the CPUs.
    #[must_use]
    pub fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "the lab makes network namespaces: run the test as root"
        );
        let turn = netns::Turn::take();
        netns::sweep();
        let name = netns::unique_prefix();
        let dir = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir()
            .unwrap();
        let firewall = Netns::new(&format!("{name}-fw"));
        // Ports must show what was sent to them and nothing else.
        firewall.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        firewall.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        Self {
            firewall,
            ports: Vec::new(),
            environment: Vec::new(),
            dir,
            hosts: 0,
            name,
            _turn: turn,
        }
    }

    /// Files of this test; removed with the lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What the names of its namespaces begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.name
    }

    /// A file of this test, written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Two hosts of one subnet (10.9.N.0/24 and fd09:N::/64), joined by a pair of ports of these names, whose zones
    /// have the ports' names too.
    pub fn pair(&mut self, left: &str, right: &str) -> (Host, Host) {
        self.pair_of(left, right, config::Pmd::AfXdp, host::Kind::Stack)
    }

    /// [`Lab::pair`] without a stack on either side: the far ends send and receive raw frames only, and nothing else
    /// reaches the node.
    pub fn raw_pair(&mut self, left: &str, right: &str) -> (Host, Host) {
        self.pair_of(left, right, config::Pmd::AfXdp, host::Kind::Raw)
    }

    /// A pair of ports of any kind.
    pub fn pair_of(&mut self, left: &str, right: &str, pmd: config::Pmd, kind: host::Kind) -> (Host, Host) {
        self.hosts += 1;
        let subnet = self.hosts;
        let make = |lab: &Self, port: &str, number: u8| {
            let ns = Netns::new(&format!("{}-{port}", lab.name));
            Host::new(ns, &lab.firewall, port, subnet, number, kind)
        };
        let (a, b) = (make(self, left, 1), make(self, right, 2));
        self.add_ports(&a, &b, &pmd);
        (a, b)
    }

    /// [`Lab::pair`] with a bad line between each host and its port ([`impair`]). `watches` see what leaves the node by the
    /// left and by the right port.
    pub fn impaired_pair(
        &mut self,
        names: [&str; 2],
        weather: impair::Weather,
        seed: u64,
        watches: [impair::Watch; 2],
    ) -> ([Host; 2], [Stage; 2]) {
        self.hosts += 1;
        let mut number = 0;
        let sides = names.into_iter().zip(watches);
        let (hosts, wired): (Vec<_>, Vec<_>) = sides
            .map(|(port, watch)| {
                number += 1;
                let line = Stage::namespace(&format!("{}-{port}-line", self.name));
                let ns = Netns::new(&format!("{}-{port}", self.name));
                let host = Host::new(ns, &line, port, self.hosts, number, host::Kind::Stack);
                let seed = seed.wrapping_add(number.into());
                let wired = Stage::wire(line, &self.firewall, &host.near, weather, seed, watch);
                (host, wired)
            })
            .unzip();
        let Ok(hosts) = <[Host; 2]>::try_from(hosts) else {
            unreachable!("two sides")
        };
        let Ok(wired) = <[impair::Wired; 2]>::try_from(wired) else {
            unreachable!("two sides")
        };
        let stages = Stage::start(wired);
        self.add_ports(&hosts[0], &hosts[1], &config::Pmd::AfXdp);
        (hosts, stages)
    }

    fn add_ports(&mut self, a: &Host, b: &Host, pmd: &config::Pmd) {
        for (host, peer) in [(a, &b.port), (b, &a.port)] {
            let device = pmd.device(self.ports.len(), &host.near);
            self.ports.push(config::Port {
                name: host.port.clone(),
                zone: host.port.clone(),
                peer: peer.clone(),
                device,
                mtu: None,
            });
        }
    }

    /// The configuration file's text for this lab's ports.
    #[must_use]
    pub fn render(&self, config: &Config) -> String {
        config.render(self, &self.socket())
    }

    /// Where this lab's node puts its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir().join("haechi.sock")
    }

    /// Runs `haechi` with this configuration until it is ready.
    #[must_use]
    pub fn start(&self, config: Config) -> Node {
        Node::start(self, &config)
    }
}
