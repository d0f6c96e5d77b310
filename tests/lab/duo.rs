//! Two nodes of an HA pair side by side between two switches (kernel bridges), with a client on one of these and a server on the other,
//! and a cable between the nodes.

#[path = "routers.rs"]
pub mod routers;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::host::{Host, Kind};
use super::node::HAECHI;
use super::{Lab, Netns, Process, api::Api, wait_for_within};

/// So long a pair may take on a busy machine for what takes it milliseconds.
pub const LONG: Duration = Duration::from_secs(30);

/// One of the nodes.
pub struct Twin {
    /// Where it lives.
    pub ns: Netns,
    /// `a` or `b`.
    pub name: &'static str,
    /// Its directory.
    dir: PathBuf,
    /// The program, while it runs.
    pub process: Option<Process>,
    starts: u32,
}

/// The pair and all around it.
pub struct Duo {
    /// Behind the `lan` ports.
    pub client: Host,
    /// Behind the `wan` ports.
    pub server: Host,
    /// The switch on the client's side, and the one on the server's.
    pub switches: [Netns; 2],
    /// The nodes; the first has the higher priority.
    pub nodes: [Twin; 2],
    /// Keys that go into `[ha]` of both.
    pub ha: String,
    /// What goes behind everything else.
    pub rules: String,
    /// What goes behind that in the file of each.
    pub own: [String; 2],
    /// Answers ping, if the pair has one.
    pub witness: Option<Netns>,
    /// CPUs of the workers of each.
    pub workers: [&'static str; 2],
    /// Last, so that it goes last.
    pub lab: Lab,
}

/// A namespace that says nothing of its own accord.
fn silent(lab: &Lab, what: &str) -> Netns {
    let ns = Netns::new(&format!("{}-{what}", lab.prefix()));
    ns.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    ns.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    ns
}

/// Both nodes, joined to what is on each side of them by `to-a` and `to-b` there.
fn twins(lab: &Lab, sides: &[Netns; 2]) -> [Twin; 2] {
    let nodes = ["a", "b"].map(|name| Twin {
        ns: silent(lab, name),
        name,
        dir: lab.dir().join(name),
        process: None,
        starts: 0,
    });
    for node in &nodes {
        std::fs::create_dir(&node.dir).unwrap();
        for (side, port) in sides.iter().zip(["p-lan", "p-wan"]) {
            let near = format!("to-{}", node.name);
            side.ip(&format!(
                "link add {near} type veth peer name {port} netns {}",
                node.ns.name()
            ));
            side.exec(&format!(
                "ethtool -K {near} tx off tso off gso off gro off rxvlan off txvlan off"
            ));
            node.ns.exec(&format!("ethtool -K {port} rxvlan off txvlan off"));
            node.ns.ip(&format!("link set dev {port} addrgenmode none up"));
        }
    }
    nodes
}

/// The link's addresses.
const LINK: [&str; 2] = ["169.254.77.1", "169.254.77.2"];

impl Duo {
    /// A pair that is not running yet.
    #[must_use]
    pub fn new() -> Self {
        let lab = Lab::new();
        let switches = ["csw", "ssw"].map(|what| silent(&lab, what));
        let host = |what: &str, switch: &Netns, port: &str, number| {
            let ns = Netns::new(&format!("{}-{what}", lab.prefix()));
            let host = Host::new(ns, switch, port, 1, number, Kind::Stack);
            switch.ip("link add br0 type bridge stp_state 0 mcast_snooping 0");
            switch.ip("link set br0 up");
            switch.ip(&format!("link set {} master br0 up", host.near));
            host
        };
        let client = host("client", &switches[0], "lan", 1);
        let server = host("server", &switches[1], "wan", 2);
        let nodes = twins(&lab, &switches);
        for node in &nodes {
            for switch in &switches {
                switch.ip(&format!("link set to-{} master br0 up", node.name));
            }
        }
        Self::of(lab, [client, server], switches, nodes)
    }

    /// With a cable between the nodes, and a key.
    fn of(lab: Lab, [client, server]: [Host; 2], switches: [Netns; 2], nodes: [Twin; 2]) -> Self {
        let [a, b] = &nodes;
        a.ns.ip(&format!(
            "link add ha0 type veth peer name ha0 netns {}",
            b.ns.name()
        ));
        for (node, address) in nodes.iter().zip(LINK) {
            node.ns.ip(&format!("addr add {address}/30 dev ha0"));
            node.ns.ip("link set ha0 up");
        }
        let duo = Self {
            client,
            server,
            switches,
            nodes,
            ha: String::new(),
            rules: String::from("[[rule]]\nname = \"all\"\naction = \"allow\"\n"),
            own: [String::new(), String::new()],
            witness: None,
            workers: ["0", "1"],
            lab,
        };
        duo.new_key(0);
        std::fs::copy(duo.key(0), duo.key(1)).unwrap();
        duo
    }

    fn key(&self, at: usize) -> PathBuf {
        self.nodes[at].dir.join("ha.key")
    }

    /// Gives a node a key of its own, from its next start on.
    pub fn new_key(&self, at: usize) {
        // It overwrites none.
        let _ = std::fs::remove_file(self.key(at));
        super::process::run(Command::new(HAECHI).args(["ha", "keygen"]).arg(self.key(at)));
    }

    /// Gives the pair a witness, on a network of its own.
    pub fn add_witness(&mut self) {
        let ns = Netns::new(&format!("{}-witness", self.lab.prefix()));
        ns.bridge("br0", &[]);
        ns.ip("addr add 10.99.0.254/24 dev br0");
        for (at, node) in self.nodes.iter().enumerate() {
            let near = format!("to-{}", node.name);
            ns.ip(&format!(
                "link add {near} type veth peer name mg0 netns {}",
                node.ns.name()
            ));
            ns.ip(&format!("link set {near} master br0 up"));
            node.ns.ip(&format!("addr add 10.99.0.{}/24 dev mg0", at + 1));
            node.ns.ip("link set mg0 up");
        }
        self.ha += "witness = \"10.99.0.254\"\n";
        self.witness = Some(ns);
    }

    /// Cuts a node's way to the witness, or mends it.
    pub fn reach_witness(&self, at: usize, reached: bool) {
        let state = if reached { "up" } else { "down" };
        self.nodes[at].ns.ip(&format!("link set mg0 {state}"));
    }

    /// So long, in 1/100 s, the switches remember where a MAC address is; 0: they send everything everywhere.
    pub fn switches_remember(&self, time: u32) {
        for switch in &self.switches {
            switch.ip(&format!("link set br0 type bridge ageing_time {time}"));
        }
    }

    /// The text of a node's file.
    fn text(&self, at: usize) -> String {
        let node = &self.nodes[at];
        let mut text = format!(
            "version = 1\n[node]\nname = \"fw-{}\"\nmode = \"transparent\"\nworkers = \"{}\"\nidle = \"adaptive\"\nhugepages = false\n\
             memory_mib = 256\npacket_buffers = 8191\ncontrol_socket = {:?}\n\
             [conntrack]\nmax_sessions = 65536\n",
            node.name,
            self.workers[at],
            node.socket().display().to_string(),
        );
        for (port, peer, number) in [("lan", "wan", 0), ("wan", "lan", 1)] {
            text += &format!(
                "[[port]]\nname = \"{port}\"\nzone = \"{port}\"\npeer = \"{peer}\"\n\
                 device = \"vdev:net_af_xdp{number},iface=p-{port},busy_budget=0\"\n"
            );
        }
        text += &format!(
            "[ha]\nnode_id = {}\npriority = {}\nkey_file = {:?}\nlink = {{ local = \"{}:7700\", peer = \"{}:7700\" }}\n{}",
            at + 1,
            200 - 100 * at,
            self.key(at).display().to_string(),
            LINK[at],
            LINK[1 - at],
            self.ha,
        );
        text += &self.rules;
        text += &self.own[at];
        text
    }

    /// Starts a node.
    pub fn spawn(&mut self, at: usize) {
        let text = self.text(at);
        let node = &mut self.nodes[at];
        let file = node.dir.join("node.toml");
        std::fs::write(&file, text).unwrap();
        node.starts += 1;
        let mut command = node.ns.command(HAECHI);
        command.arg("run").arg("-c").arg(&file);
        let what = format!("haechi-{}-{}", node.name, node.starts);
        node.process = Some(Process::spawn(&mut command, self.lab.dir(), &what));
    }

    /// Starts both, and waits until they have their places, the first at the lead.
    pub fn start(&mut self) {
        for at in 0..2 {
            self.spawn(at);
        }
        for at in 0..2 {
            self.nodes[at].wait_ready();
        }
        self.wait_healthy();
        assert_eq!(self.roles(), ["leader", "standby"]);
    }

    /// What both are.
    #[must_use]
    pub fn roles(&self) -> [String; 2] {
        [self.nodes[0].role(), self.nodes[1].role()]
    }

    /// Waits until either could take over without a loss.
    pub fn wait_healthy(&self) {
        for node in &self.nodes {
            node.wait_ha("healthy", |ha| ha["health"] == "healthy");
        }
    }

    /// Takes the cable between the nodes out, or puts it in again.
    pub fn cable(&self, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        self.nodes[0].ns.ip(&format!("link set ha0 {state}"));
    }
}

impl Default for Duo {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Duo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                if let Some(process) = &node.process {
                    // It may be stopped.
                    if let Ok(answer) = node.api().request("GET", "/v1/counters", None) {
                        let drops = &answer.body["drops"];
                        eprintln!("--- node {} dropped: {drops}", node.name);
                    }
                    eprintln!(
                        "--- node {} said:\n{}{}",
                        node.name,
                        process.stdout(),
                        process.stderr()
                    );
                }
            }
        }
    }
}

impl Twin {
    fn socket(&self) -> PathBuf {
        self.dir.join("haechi.sock")
    }

    /// Its control API.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&self.socket())
    }

    /// Waits for the line `ready`, or `ready (alone)`, and returns it.
    pub fn wait_ready(&mut self) -> String {
        let name = self.name;
        let process = self.process.as_mut().expect("it runs");
        wait_for_within(LONG, &format!("node {name} is ready"), || {
            if let Some(status) = process.ended() {
                panic!("node {name}: {status}\n{}{}", process.stdout(), process.stderr());
            }
            let ready = process
                .stdout()
                .lines()
                .find(|line| line.starts_with("ready"))
                .map(str::to_owned);
            ready.ok_or_else(|| process.stderr())
        })
    }

    /// Waits until its API answers: before it is ready.
    pub fn wait_socket(&self) {
        wait_for_within(LONG, &format!("node {} answers", self.name), || {
            self.api()
                .request("GET", "/v1/ha", None)
                .map_err(|e| e.to_string())
        });
    }

    /// The pair, as it sees it.
    #[must_use]
    pub fn ha(&self) -> serde_json::Value {
        self.api().get("/v1/ha")
    }

    /// What it is.
    #[must_use]
    pub fn role(&self) -> String {
        self.ha()["role"].as_str().expect("a role").to_owned()
    }

    /// Waits until its view of the pair is as said.
    pub fn wait_ha(&self, what: &str, is_so: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        wait_for_within(LONG, &format!("node {} is {what}", self.name), || {
            let ha = self.ha();
            if is_so(&ha) { Ok(ha) } else { Err(ha.to_string()) }
        })
    }

    /// Runs the program as a client of this node: success, standard output and error.
    pub fn try_cli(&self, line: &str) -> (bool, String) {
        let output = Command::new(HAECHI)
            .args(line.split_whitespace())
            .arg("--socket")
            .arg(self.socket())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// Sends a signal to the program itself, and not to what started it.
    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    /// It is gone at once.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.process.take().expect("it runs").wait();
    }

    /// It is asked to stop, and does.
    pub fn stop(&mut self) -> String {
        self.signal(Signal::SIGTERM);
        let process = self.process.take().expect("it runs");
        process.finish_within(LONG)
    }
}

/// The bridge's port behind which a switch has a MAC address.
#[must_use]
pub fn learnt(switch: &Netns, mac: [u8; 6]) -> Option<String> {
    let mac = mac.map(|b| format!("{b:02x}")).join(":");
    let table = switch.exec("bridge fdb show br br0");
    let line = table
        .lines()
        .find(|line| line.starts_with(&mac) && !line.contains("permanent"))?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == "dev")?;
    words.next().map(str::to_owned)
}
