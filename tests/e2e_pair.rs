//! An HA pair between two switches, with real TCP stacks on both sides.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use lab::duo::{Duo, LONG, learnt};
use lab::wait_for_within;
use nix::sys::signal::Signal;

/// A connection outlives the node that it went through, and both ends notice nothing.
#[test]
fn the_survivor_goes_on_when_the_leader_dies() {
    let mut duo = Duo::new();
    duo.start();
    let listener = duo.server.listen(8080);
    let connections: Vec<_> = (0..50)
        .map(|_| {
            let near = duo.client.connect(duo.server.v4, 8080);
            (near, listener.accept().unwrap().0)
        })
        .collect();
    for (near, far) in &connections {
        lab::traffic::echo(near, far);
    }
    wait_for_within(LONG, "the standby has all sessions", || {
        let sessions = duo.nodes[1].api().sessions("protocol=tcp");
        if sessions.len() == 50
            && sessions
                .iter()
                .all(|s| s["owner"] == "peer" && s["state"] == "established")
        {
            Ok(())
        } else {
            Err(format!("{sessions:?}"))
        }
    });
    duo.nodes[0].kill();
    duo.nodes[1].wait_ha("leader", |ha| ha["role"] == "leader");
    // Each switch knows at once that the hosts behind the other one are behind this node now.
    for (switch, mac) in duo.switches.iter().zip([duo.server.mac, duo.client.mac]) {
        wait_for_within(LONG, "the switches have learnt", || match learnt(switch, mac) {
            Some(port) if port == "to-b" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    for (near, far) in &connections {
        lab::traffic::echo(near, far);
    }
    let (ok, text) = duo.nodes[1].try_cli("show ha");
    println!("{text}");
    assert!(
        !ok && text.starts_with("degraded: the peer is not heard"),
        "{text}"
    );
    // It comes back, takes everything in, and is fit to take over again.
    duo.spawn(0);
    assert_eq!(duo.nodes[0].wait_ready(), "ready");
    duo.wait_healthy();
    assert_eq!(duo.nodes[0].role(), "standby");
    let (ok, text) = duo.nodes[1].try_cli("ha switchover");
    assert!(ok, "{text}");
    println!("{text}");
    assert_eq!([duo.nodes[0].role(), duo.nodes[1].role()], ["leader", "standby"]);
    for (near, far) in &connections {
        lab::traffic::echo(near, far);
    }
    duo.nodes[1].signal(Signal::SIGSTOP);
    duo.nodes[1].signal(Signal::SIGCONT);
    println!("{}", duo.nodes[0].stop());
    duo.nodes[1].wait_ha("leader", |ha| ha["role"] == "leader");
    for (near, far) in connections {
        lab::traffic::converse(near, far);
    }
}
