//! A node of two workers with real kernels at both ends: thousands of connections, and a worker that stalls.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use std::net::{SocketAddr, TcpStream};

use lab::stall::Stalled;
use lab::traffic::converse;
use lab::{Config, Lab, Node, wait_for};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

/// Connections that are open at the same time.
const CONNECTIONS: usize = 3000;

fn two_workers(rules: &str) -> Config {
    Config::new(rules).node("workers", "\"0-1\"")
}

fn workers(node: &Node) -> Vec<Value> {
    node.api.get("/v1/workers")["workers"].as_array().unwrap().clone()
}

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or_else(|| panic!("no {key} in {of}"))
}

/// What workers handed over has arrived at others, exactly: once nothing is on its way.
fn accounts_are_even(node: &Node) {
    wait_for("what was handed over has arrived", || {
        let workers = workers(node);
        let sum = |keys: &[&str]| -> u64 {
            let of = |worker: &Value| keys.iter().map(|key| number(worker, key)).sum::<u64>();
            workers.iter().map(of).sum()
        };
        let (handed, taken) = (sum(&["handed_over", "relayed"]), sum(&["taken_over"]));
        if handed == taken {
            Ok(())
        } else {
            Err(format!("{handed} handed over, {taken} taken"))
        }
    });
}

#[test]
fn thousands_of_connections_are_shared_and_none_is_lost() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(two_workers(
        "[[rule]]\nname = \"web\"\nfrom = \"lan\"\naction = \"allow\"\n",
    ));
    let listener = server.listen(8080);
    let mut ends: Vec<(TcpStream, TcpStream)> = Vec::with_capacity(CONNECTIONS);
    for n in 0..CONNECTIONS {
        let address = if n % 2 == 0 { server.v4 } else { server.v6 };
        let near = client.connect(address, 8080);
        let (far, _) = listener.accept().unwrap();
        ends.push((near, far));
    }
    client.ping(server.v4, 3);
    client.ping(server.v6, 3);
    let sessions = node.api.sessions("protocol=tcp");
    assert_eq!(sessions.len(), CONNECTIONS);
    // Each is on one worker, and each worker has its share.
    let mut flows: Vec<_> = sessions
        .iter()
        .map(|s| format!("{}:{}", s["source"], s["source_port"]))
        .collect();
    flows.sort_unstable();
    flows.dedup();
    assert_eq!(flows.len(), CONNECTIONS);
    for worker in [0, 1] {
        let share = sessions.iter().filter(|s| s["worker"] == worker).count();
        assert!(share > CONNECTIONS / 3, "worker {worker} has {share}");
    }
    assert_eq!(
        number(&node.api.rule("web"), "sessions"),
        node.api.sessions("").len() as u64
    );
    // Half are killed by a filter: of both workers.
    let (ok, said, _) = node.try_cli("sessions kill source=10.9.1.1");
    assert!(ok, "{said}");
    assert_eq!(node.api.sessions("protocol=tcp").len(), CONNECTIONS / 2);
    for (near, far) in ends.into_iter().skip(1).step_by(2) {
        converse(near, far);
    }
    let before = workers(&node);
    assert!(
        before.iter().all(|worker| number(worker, "handed_over") > 1000),
        "{before:?}"
    );
    // Of killed connections the ends still have something to say, which belongs to no session.
    let mut counters = node.balance();
    counters
        .drops
        .retain(|reason, count| reason != "no_session" && *count > 0);
    assert!(counters.drops.is_empty(), "{counters:?}");
    accounts_are_even(&node);
}

/// The other one goes on; what it hands over waits in the queue and, when that is full, is dropped and counted; `show workers` names
/// the one that does not answer; and when it turns again everything is as before.
#[test]
fn a_worker_that_stalls_does_not_stall_the_other() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(two_workers("[[rule]]\nname = \"all\"\naction = \"allow\"\n"));
    client.ping(server.v4, 1);
    let of = |worker: usize, key: &str| number(&workers(&node)[worker], key);
    assert!(workers(&node).iter().all(|worker| worker["stalled"] == false));
    let before = node.counters();
    let stalled = Stalled::new(&node, "worker-1");
    // From the port that worker 0 polls: half of the flows are the other one's, and the other half leave by its queue.
    let socket = client.udp(30_000);
    let sent = of(0, "packets");
    wait_for("the queue to the stalled worker is full", || {
        // Asking a node with a stalled worker takes seconds: many before each question.
        for port in (1..200).cycle().take(20_000) {
            socket
                .send_to(b"datagram", SocketAddr::new(server.v4, port))
                .unwrap();
        }
        let dropped = of(0, "dropped");
        if dropped > 0 {
            Ok(())
        } else {
            Err(format!("{} packets", of(0, "packets")))
        }
    });
    assert!(of(0, "packets") > sent + 4096, "worker 0 goes on");
    let said = workers(&node);
    assert_eq!(
        [&said[0]["stalled"], &said[1]["stalled"]],
        [false, true],
        "{said:?}"
    );
    let text = node.cli("show workers");
    assert!(text.contains("worker 1 does not answer"), "{text}");
    let status = node.cli("show status");
    assert!(status.contains("worker 1"), "{status}");
    drop(stalled);
    wait_for("worker 1 answers again", || {
        match workers(&node)[1]["stalled"].as_bool() {
            Some(false) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let after = node.balance();
    let reasons: Vec<_> = after
        .drops
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(r, _)| r.as_str())
        .collect();
    assert_eq!(reasons, ["queue_full"], "{after:?}");
    assert!(after.drop_of("queue_full") > before.drop_of("queue_full"));
    accounts_are_even(&node);
    client.ping(server.v4, 3);
    client.ping(server.v6, 3);
}
