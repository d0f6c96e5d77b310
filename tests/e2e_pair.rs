//! An HA pair between two switches, with real TCP stacks on both sides.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "e2e_pair/failover.rs"]
mod failover;
mod lab;
#[path = "e2e_pair/link.rs"]
mod link;
#[path = "e2e_pair/roles.rs"]
mod roles;

use std::net::TcpStream;

use lab::duo::{Duo, Twin};

/// Soon over, so that a test which waits for it is.
const ALONE_SOON: &str = "alone_after = \"1s\"\n";

/// A pair between switches that remember for minutes where a MAC address was: who comes to lead has to tell them better.
fn pair() -> Duo {
    Duo::new()
}

/// Connections through the pair, both ends of each.
struct Connections(Vec<(TcpStream, TcpStream)>);

impl Connections {
    fn open(duo: &Duo, count: usize) -> Self {
        let listener = duo.server.listen(8080);
        let open = |_| {
            let near = duo.client.connect(duo.server.v4, 8080);
            (near, listener.accept().unwrap().0)
        };
        let connections = Self((0..count).map(open).collect());
        connections.are_well();
        connections
    }

    /// Waits until the node has them from its peer.
    fn are_known_to(&self, node: &Twin) {
        node.wait_ha("in possession of all sessions", |ha| {
            ha["sync"]["replicas"] == self.0.len() && ha["sync"]["state"] == "in_sync"
        });
    }

    /// Each carries something each way.
    fn are_well(&self) {
        for (near, far) in &self.0 {
            lab::traffic::echo(near, far);
        }
    }
}
