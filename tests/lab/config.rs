//! Configuration files for the node under test.

use std::fmt::Write;
use std::path::Path;

use super::Lab;

/// How the node takes a veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pmd {
    /// AF_XDP: everything passes as it is.
    AfXdp,
    /// AF_PACKET: the kernel reassembles IPv4 fragments and cuts long frames.
    AfPacket,
    /// Any device string, `{iface}` and `{n}` replaced.
    Device(String),
}

impl Pmd {
    /// The device string of the `n`th port, which holds `iface`.
    #[must_use]
    pub fn device(&self, n: usize, iface: &str) -> String {
        match self {
            // busy_budget=0: preferred busy polling is of no use on a veth, and kernels differ in having it.
            Self::AfXdp => format!("vdev:net_af_xdp{n},iface={iface},busy_budget=0"),
            Self::AfPacket => format!("vdev:net_af_packet{n},iface={iface},qdisc_bypass=1"),
            Self::Device(text) => text.replace("{iface}", iface).replace("{n}", &n.to_string()),
        }
    }
}

/// One `[[port]]`.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// The port that its frames cross to.
    pub peer: String,
    /// PCI address or virtual device string.
    pub device: String,
    /// `mtu`, where it is not the default.
    pub mtu: Option<u16>,
}

/// What a test wants of its node: the rest is what suits a small machine.
#[derive(Clone, Debug)]
pub struct Config {
    rules: String,
    node: Vec<(String, String)>,
    conntrack: String,
    transparent: String,
}

impl Config {
    /// A node with these lines at the end of its file: rules, sets, anything that is no key of `[node]`, `[conntrack]`
    /// or `[transparent]`.
    #[must_use]
    pub fn new(rules: &str) -> Self {
        // The same tests with several workers: `deploy/test.sh`.
        let workers = std::env::var("HAECHI_TEST_WORKERS").unwrap_or_else(|_| "1".into());
        let workers = format!("{workers:?}");
        let node = [
            ("workers", workers.as_str()),
            ("idle", "\"adaptive\""),
            ("hugepages", "false"),
            ("memory_mib", "256"),
            ("packet_buffers", "8191"),
        ];
        Self {
            rules: rules.into(),
            node: node.map(|(k, v)| (k.into(), v.into())).into(),
            conntrack: "max_sessions = 16384\n".into(),
            transparent: String::new(),
        }
    }

    /// A node that lets everything pass that opens a session.
    #[must_use]
    pub fn allow_all() -> Self {
        Self::new("[[rule]]\nname = \"all\"\naction = \"allow\"\n")
    }

    /// Sets a key of `[node]` to a TOML value.
    #[must_use]
    pub fn node(mut self, key: &str, value: &str) -> Self {
        self.node.retain(|(k, _)| k != key);
        self.node.push((key.into(), value.into()));
        self
    }

    /// The lines of `[conntrack]`.
    #[must_use]
    pub fn conntrack(mut self, lines: &str) -> Self {
        self.conntrack = lines.into();
        self
    }

    /// The lines of `[transparent]`.
    #[must_use]
    pub fn transparent(mut self, lines: &str) -> Self {
        self.transparent = lines.into();
        self
    }

    /// The file's text.
    #[must_use]
    pub fn render(&self, lab: &Lab, socket: &Path) -> String {
        let mut text = String::from("version = 1\n\n[node]\nname = \"lab\"\nmode = \"transparent\"\n");
        for (key, value) in &self.node {
            writeln!(text, "{key} = {value}").unwrap();
        }
        if !self.node.iter().any(|(key, _)| key == "control_socket") {
            writeln!(text, "control_socket = {:?}", socket.display().to_string()).unwrap();
        }
        writeln!(text, "\n[transparent]\n{}", self.transparent).unwrap();
        writeln!(text, "\n[conntrack]\n{}", self.conntrack).unwrap();
        for Port {
            name,
            zone,
            peer,
            device,
            mtu,
        } in &lab.ports
        {
            writeln!(
                text,
                "\n[[port]]\nname = {name:?}\nzone = {zone:?}\npeer = {peer:?}\ndevice = {device:?}"
            )
            .unwrap();
            if let Some(mtu) = mtu {
                writeln!(text, "mtu = {mtu}").unwrap();
            }
        }
        text.push('\n');
        text.push_str(&self.rules);
        text
    }
}
