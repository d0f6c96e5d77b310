//! Buckets of flows go from a busy worker to an idle one while hundreds of real connections talk: when asked to, and by themselves.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lab::{Config, Host, Lab, Node, wait_for, wait_for_within};
use serde_json::{Value, json};

/// Connections that are open at the same time.
const CONNECTIONS: usize = 400;
/// So many datagrams are on their way at most: no queue is so small.
const BURST: u64 = 1000;
/// A busy worker has been busy for a second, or for three.
const LONG: Duration = Duration::from_secs(180);
/// Where datagrams go that are refused.
const REFUSED: u16 = 5000;
const ALLOW: &str = "[[rule]]\nname = \"all\"\nfrom = \"lan\"\naction = \"allow\"\n";
const REFUSE: &str = "[[rule]]\nname = \"udp\"\nservice = [\"udp\"]\naction = \"drop\"\n";

struct Bench {
    node: Node,
    client: Host,
    server: Host,
    /// Both ends of each connection.
    connections: Vec<(TcpStream, TcpStream)>,
    lab: Lab,
}

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or_else(|| panic!("no {key} in {of}"))
}

impl Bench {
    fn new(rebalance: &str) -> Self {
        let mut lab = Lab::new();
        let (client, server) = lab.pair("lan", "wan");
        let config = Config::new(ALLOW)
            .node("workers", "\"0-1\"")
            .node("rebalance", &format!("\"{rebalance}\""));
        let node = lab.start(config);
        let listener = server.listen(8080);
        let connect = |n| {
            let address = if n % 2 == 0 { server.v4 } else { server.v6 };
            let near = client.connect(address, 8080);
            let (far, _) = listener.accept().unwrap();
            (near, far)
        };
        Self {
            connections: (0..CONNECTIONS).map(connect).collect(),
            node,
            client,
            server,
            lab,
        }
    }

    /// Each connection's worker, by its opener's address and port.
    fn places(&self) -> BTreeMap<String, u64> {
        let sessions = self.node.api.sessions("protocol=tcp");
        let place = |s: &Value| {
            (
                format!("{} {}", s["source"], s["source_port"]),
                number(s, "worker"),
            )
        };
        let places: BTreeMap<_, _> = sessions.iter().map(place).collect();
        assert_eq!((sessions.len(), places.len()), (CONNECTIONS, CONNECTIONS));
        places
    }

    /// For each worker a client's port whose datagrams to [`REFUSED`] are that worker's. From then on they are refused, both ways.
    fn hot_ports(&self) -> [u16; 2] {
        for port in 20_000..20_040 {
            let socket = self.client.udp(port);
            socket
                .send_to(b"?", SocketAddr::new(self.server.v4, REFUSED))
                .unwrap();
        }
        let ports = wait_for("flows of both workers", || {
            let sessions = self.node.api.sessions("protocol=udp");
            let of = |worker: u64| {
                let its = sessions.iter().find(|s| number(s, "worker") == worker);
                its.map(|s| number(s, "source_port") as u16)
            };
            match [of(0), of(1)] {
                [Some(first), Some(second)] => Ok([first, second]),
                _ => Err(format!("{sessions:?}")),
            }
        });
        let text = std::fs::read_to_string(self.node.file()).unwrap();
        let file = self
            .lab
            .file("refuse.toml", text.replace(ALLOW, &format!("{REFUSE}{ALLOW}")));
        self.node.cli(&format!("apply {}", file.display()));
        self.node.cli("sessions kill protocol=udp");
        ports
    }

    fn moved(&self) -> u64 {
        number(&self.node.api.get("/v1/counters"), "sessions_moved")
    }
}

/// Each connection says something, and is answered.
fn talk(connections: &[(TcpStream, TcpStream)], round: u64) {
    for (n, (near, far)) in (0_u64..).zip(connections) {
        for (mut from, mut to) in [(near, far), (far, near)] {
            let said = ((round << 16) | n).to_be_bytes();
            from.write_all(&said).unwrap();
            let mut heard = [0; 8];
            to.read_exact(&mut heard).unwrap();
            assert_eq!(heard, said, "connection {n}");
        }
    }
}

/// Ends threads when this goes, if by a panic too.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// One node at a time has the CPUs.
#[test]
fn buckets_move_on_a_live_node() {
    connections_move_while_they_talk_and_none_is_lost();
    a_hot_worker_gives_connections_away_by_itself();
}

/// Keeps one worker busy with datagrams that it receives, owns and refuses, a burst after the other.
fn heat(node: &Node, socket: &UdpSocket, to: SocketAddr) {
    let before = node.counters().drop_of("policy");
    for _ in 0..BURST {
        socket.send_to(b"refused", to).unwrap();
    }
    // What the kernel's queue before the node had no room for is not waited for.
    let mut last = 0;
    wait_for("what was sent is refused", || {
        let refused = node.counters().drop_of("policy") - before;
        let more = refused - std::mem::replace(&mut last, refused);
        if refused > 0 && more == 0 {
            Ok(())
        } else {
            Err(format!("{refused}"))
        }
    });
}

fn connections_move_while_they_talk_and_none_is_lost() {
    let bench = Bench::new("off");
    let hot = bench.hot_ports();
    let node = &bench.node;
    let connections = &bench.connections;
    talk(connections, 0);
    let before = node.counters();
    let (near, far) = (bench.client.udp(hot[0]), bench.server.udp(REFUSED));
    // From the client's side worker 0 receives, from the server's worker 1.
    let ways = [
        (near, SocketAddr::new(bench.server.v4, REFUSED)),
        (far, SocketAddr::new(bench.client.v4, hot[1])),
    ];
    let (stop, mut moved, mut version) = (AtomicBool::new(false), 0, 0);
    std::thread::scope(|scope| {
        let stop = &stop;
        let ends = Stop(stop);
        let talker = scope.spawn(move || {
            let mut rounds = 1;
            while !stop.load(Ordering::Acquire) {
                talk(connections, rounds);
                rounds += 1;
            }
            rounds
        });
        for (round, hot) in [0, 1, 0, 1].into_iter().enumerate() {
            let (socket, to) = &ways[hot];
            let places = bench.places();
            // A dry run says what would be moved, and nothing is.
            let said = wait_for_within(LONG, "something is to be moved", || {
                heat(node, socket, *to);
                let said: Value =
                    serde_json::from_str(&node.cli("workers rebalance --dry-run --json")).unwrap();
                if said["from"] == hot && number(&said, "sessions") > 0 {
                    Ok(said)
                } else {
                    Err(said.to_string())
                }
            });
            assert_eq!(
                (&said["moved"], number(&said, "version")),
                (&json!(false), version),
                "{said}"
            );
            assert_eq!(bench.places(), places);
            assert_eq!(bench.moved(), moved);
            let said = wait_for_within(LONG, "the hot worker gives something away", || {
                heat(node, socket, *to);
                let places = bench.places();
                let said: Value = if round % 2 == 0 {
                    serde_json::from_str(&node.cli("workers rebalance --json")).unwrap()
                } else {
                    node.api
                        .request("POST", "/v1/workers/rebalance", None)
                        .unwrap()
                        .body
                };
                if said["moved"] == false {
                    return Err(said.to_string());
                }
                version += 1;
                assert_eq!(number(&said, "version"), version, "{said}");
                let (from, to) = (number(&said, "from"), number(&said, "to"));
                assert_eq!(from, 1 - to, "{said}");
                let after = bench.places();
                let gone = places.iter().filter(|(flow, worker)| after[*flow] != **worker);
                let gone: Vec<_> = gone.collect();
                assert!(gone.iter().all(|(_, worker)| **worker == from), "{said}");
                assert_eq!(number(&said, "sessions"), gone.len() as u64, "{said}");
                moved += gone.len() as u64;
                assert_eq!(bench.moved(), moved);
                // On a machine that others share, the cold worker may have been the busy one for once.
                if from == hot as u64 {
                    Ok(said)
                } else {
                    Err(said.to_string())
                }
            });
            println!("{said}");
        }
        drop(ends);
        println!("{} rounds of talk", talker.join().unwrap());
    });
    assert!(moved > 50, "{moved}");
    let workers = node.cli("show workers");
    println!("{workers}");
    let mut after = node.balance();
    assert_eq!(after.sessions_created, before.sessions_created);
    assert_eq!(after.sessions_ended, before.sessions_ended);
    after
        .drops
        .retain(|reason, count| *count > 0 && reason != "policy");
    assert!(after.drops.is_empty(), "{after:?}");
    assert!(bench.places().values().any(|worker| *worker == 0));
    for (near, far) in bench.connections {
        lab::traffic::converse(near, far);
    }
}

/// With `rebalance = "auto"` nobody has to ask.
fn a_hot_worker_gives_connections_away_by_itself() {
    let bench = Bench::new("auto");
    let [hot, _] = bench.hot_ports();
    let before = bench.places();
    let (stop, socket) = (AtomicBool::new(false), bench.client.udp(hot));
    let refused = SocketAddr::new(bench.server.v4, REFUSED);
    std::thread::scope(|scope| {
        let ends = Stop(&stop);
        // As fast as it can: what is too much is lost before the node has it.
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                socket.send_to(b"refused", refused).unwrap();
            }
        });
        let moved = wait_for_within(LONG, "it moves something", || {
            let moved = bench.moved();
            if moved > 0 {
                Ok(moved)
            } else {
                Err(bench.node.cli("show workers"))
            }
        });
        drop(ends);
        println!("{moved} sessions moved by themselves");
    });
    let after = bench.places();
    let gone = before.iter().filter(|(flow, worker)| after[*flow] != **worker);
    assert!(gone.count() > 10);
    let log = bench.node.process().stderr();
    assert!(log.contains("buckets moved"), "{log}");
    talk(&bench.connections, 1);
    for (near, far) in bench.connections {
        lab::traffic::converse(near, far);
    }
}
