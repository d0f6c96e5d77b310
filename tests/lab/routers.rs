//! Two active nodes side by side between two routers, which choose a node for each packet by routes of their own.

use super::super::host::{Host, Kind};
use super::super::{Lab, Netns, wait_for_within};
use super::{Duo, LONG, silent, twins};

/// The number of the segment through node a, and of the one through node b.
const SEGMENTS: [u8; 2] = [11, 12];

impl Duo {
    /// A pair between routers that is not running yet: the client's, and the server's, in the place of the switches. A segment goes through
    /// each node. All packets go by node a until [`Self::route`] says otherwise.
    #[must_use]
    pub fn between_routers() -> Self {
        let lab = Lab::new();
        let routers = ["crt", "srt"].map(|what| router(&lab, what));
        let host = |what: &str, router: &Netns, port: &str, subnet: u8| {
            let ns = Netns::new(&format!("{}-{what}", lab.prefix()));
            let host = Host::new(ns, router, port, subnet, 2, Kind::Stack);
            router.ip(&format!("addr add 10.9.{subnet}.1/24 dev {}", host.near));
            router.ip(&format!("addr add fd09:{subnet}::1/64 dev {} nodad", host.near));
            // By this it asks for its neighbours.
            router.ip(&format!("addr add fe80::{subnet}:1/64 dev {} nodad", host.near));
            host.ns.ip(&format!("route add default via 10.9.{subnet}.1"));
            host.ns.ip(&format!("-6 route add default via fd09:{subnet}::1"));
            host
        };
        let client = host("client", &routers[0], "lan", 1);
        let server = host("server", &routers[1], "wan", 2);
        let nodes = twins(&lab, &routers);
        for (node, segment) in nodes.iter().zip(SEGMENTS) {
            for (router, number) in routers.iter().zip([1, 2]) {
                let near = format!("to-{}", node.name);
                router.ip(&format!("link set dev {near} addrgenmode none up"));
                router.ip(&format!("addr add 10.9.{segment}.{number}/24 dev {near}"));
                // Across the segment the other router is asked for by this one's link-local address.
                router.ip(&format!("addr add fe80::{segment}:{number}/64 dev {near} nodad"));
                router.ip(&format!("addr add fd09:{segment}::{number}/64 dev {near} nodad"));
            }
        }
        let mut duo = Self::of(lab, [client, server], routers, nodes);
        duo.ha.push_str("mode = \"active-active\"\n");
        for from in 0..2 {
            duo.route(from, "", 0);
        }
        duo
    }

    /// From now on a router sends packets to the other side by this node: see [`route`].
    pub fn route(&self, from: usize, which: &str, node: usize) {
        route(&self.switches, from, which, node);
    }

    /// Starts both, and waits until both are active and either could lose the other one.
    pub fn start_active(&mut self) {
        for at in 0..2 {
            self.spawn(at);
        }
        for at in 0..2 {
            self.nodes[at].wait_ready();
        }
        self.wait_healthy();
        assert_eq!(self.roles(), ["active", "active"]);
    }

    /// Waits until a counter of `show ha`'s redirection at each node is as said.
    pub fn wait_redirected(&self, at: usize, counter: &str, is_so: impl Fn(u64) -> bool) -> u64 {
        let node = &self.nodes[at];
        wait_for_within(LONG, &format!("{counter} of node {} moves", node.name), || {
            let ha = node.ha();
            let count = ha["redirect"][counter].as_u64().expect("a count");
            if is_so(count) {
                Ok(count)
            } else {
                Err(ha["redirect"].to_string())
            }
        })
    }
}

/// From now on a router (0: the client's, 1: the server's) sends packets to the other side by this node, if they are as `which` says
/// (`ip rule`; nothing: all that no other route is for).
pub fn route(routers: &[Netns; 2], from: usize, which: &str, node: usize) {
    let (router, segment) = (&routers[from], SEGMENTS[node]);
    // The other router's number on each segment, and that of the network behind it.
    let to = 2 - from;
    let table = if which.is_empty() {
        "main".to_owned()
    } else {
        (100 + node).to_string()
    };
    router.ip(&format!(
        "route replace 10.9.{to}.0/24 via 10.9.{segment}.{to} table {table}"
    ));
    router.ip(&format!(
        "-6 route replace fd09:{to}::/64 via fd09:{segment}::{to} table {table}"
    ));
    if !which.is_empty() {
        for family in ["-4", "-6"] {
            router.ip(&format!("{family} rule add {which} lookup {table}"));
        }
    }
}

/// From now on everything goes by this node alone.
pub fn route_all(routers: &[Netns; 2], node: usize) {
    for (from, router) in routers.iter().enumerate() {
        route(routers, from, "", node);
        for family in ["-4", "-6"] {
            for table in [100, 101] {
                // As many as there are.
                while router.try_exec(&format!("ip {family} rule del lookup {table}")).0 {}
            }
        }
    }
}

fn router(lab: &Lab, what: &str) -> Netns {
    let ns = silent(lab, what);
    for (key, value) in [
        ("net/ipv4/ip_forward", "1"),
        // Packets come back by the other segment.
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "0"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/conf/default/accept_ra", "0"),
    ] {
        ns.sysctl(key, value);
    }
    ns
}
