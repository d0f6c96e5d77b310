//! A node dies, stops, or turns only in part: what went through it goes on through the other one.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use super::lab::duo::{Duo, LONG, learnt};
use super::lab::stall::Stalled;
use super::lab::{Site, Stream, wait_for_within};
use super::{Connections, pair};

/// A download that takes some seconds here.
const PAGE: usize = 500_000_000;
/// Connections that nothing is said on.
const IDLE: usize = 10_000;

/// Both ends notice nothing; and a node that comes back takes everything in and is fit to take over again.
#[test]
fn the_survivor_goes_on_when_the_leader_dies() {
    let mut duo = pair();
    duo.start();
    let connections = Connections::open(&duo, 50);
    connections.are_known_to(&duo.nodes[1]);
    // What is told of ends is counted as such, on either node.
    duo.client.ping(duo.server.v4, 1);
    duo.nodes[1].wait_ha("told of a ping", |ha| ha["sync"]["replicas"] == 51);
    let (ok, text) = duo.nodes[0].try_cli("sessions kill protocol=icmp");
    assert!(ok, "{text}");
    duo.nodes[1].wait_ha("told of an end", |ha| ha["sync"]["gone_received"] == 1);
    duo.nodes[0].wait_ha("telling of an end", |ha| ha["sync"]["gone_sent"] == 1);
    let sessions = duo.nodes[1].api().sessions("protocol=tcp");
    assert!(
        sessions.len() == 50
            && sessions
                .iter()
                .all(|s| s["owner"] == "peer" && s["state"] == "established"),
        "{sessions:?}"
    );
    duo.nodes[0].kill();
    duo.nodes[1].wait_ha("leader", |ha| ha["role"] == "leader");
    // Each switch hears at once that the hosts behind the other one are behind this node now.
    for (switch, mac) in duo.switches.iter().zip([duo.server.mac, duo.client.mac]) {
        wait_for_within(LONG, "the switches have learnt", || match learnt(switch, mac) {
            Some(port) if port == "to-b" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    connections.are_well();
    let (ok, text) = duo.nodes[1].try_cli("show ha");
    assert!(
        !ok && text.starts_with("degraded: the peer is not heard"),
        "{text}"
    );
    let sessions = duo.nodes[1].api().sessions("protocol=tcp");
    assert!(sessions.iter().all(|s| s["owner"] == "local"), "{sessions:?}");
    duo.spawn(0);
    assert_eq!(duo.nodes[0].wait_ready(), "ready");
    duo.wait_healthy();
    assert_eq!(duo.roles(), ["standby", "leader"]);
    for node in &duo.nodes {
        let (ok, text) = node.try_cli("show ha");
        assert!(ok && text.starts_with("healthy"), "{text}");
    }
    duo.nodes[1].kill();
    duo.nodes[0].wait_ha("leader", |ha| ha["role"] == "leader");
    connections.are_well();
}

/// A datagram a millisecond: all that is lost is what comes until the standby leads. `HAECHI_FAILOVERS=20` prints the longest silence
/// of each of so many, and their median.
#[test]
fn a_stream_goes_on_when_the_leader_is_killed() {
    let trials = std::env::var("HAECHI_FAILOVERS").map_or(1, |text| text.parse().unwrap());
    let mut duo = pair();
    duo.start();
    let mut gaps = Vec::new();
    for trial in 0..trials {
        let (leader, other) = (trial % 2, 1 - trial % 2);
        let stream = Stream::start(&duo.client, &duo.server, duo.server.v4, 7000);
        // What the other node knows of it, it knows of the stream and of where its ends are, too.
        duo.client.ping(duo.server.v4, 10);
        wait_for_within(LONG, "the other node has the sessions", || {
            let sessions = duo.nodes[other].api().sessions("protocol=icmp");
            if sessions.is_empty() {
                Err("none".into())
            } else {
                Ok(())
            }
        });
        duo.nodes[leader].kill();
        duo.nodes[other].wait_ha("leader", |ha| ha["role"] == "leader");
        duo.client.ping(duo.server.v4, 10);
        let account = stream.finish();
        let missing = &account.missing;
        println!(
            "{} of {} lost, silent for {:?}",
            missing.len(),
            account.sent,
            account.gap
        );
        assert!(
            missing.last() != Some(&(account.sent - 1)),
            "it goes on: {missing:?}"
        );
        gaps.push(account.gap);
        duo.spawn(leader);
        duo.nodes[leader].wait_ready();
        duo.wait_healthy();
    }
    gaps.sort();
    println!("the median of {trials}: {:?}", gaps[gaps.len() / 2]);
}

#[test]
fn a_download_goes_on_when_the_leader_is_killed() {
    let mut duo = pair();
    duo.start();
    let site = Site::start(&duo.server, 8080);
    let [a, b] = &mut duo.nodes;
    site.download(&duo.client, duo.server.v4, PAGE, |quarter| {
        if quarter == 2 {
            a.kill();
            b.wait_ha("leader", |ha| ha["role"] == "leader");
        }
    });
}

/// It wakes before the end of it, and finds that another one leads.
#[test]
fn a_download_goes_on_when_the_leader_is_stopped() {
    let mut duo = pair();
    duo.start();
    let site = Site::start(&duo.server, 8080);
    let [a, b] = &duo.nodes;
    site.download(&duo.client, duo.server.v4, PAGE, |quarter| match quarter {
        1 => {
            a.signal(Signal::SIGSTOP);
            b.wait_ha("leader", |ha| ha["role"] == "leader");
        }
        3 => a.signal(Signal::SIGCONT),
        _ => {}
    });
    duo.wait_healthy();
    assert_eq!(duo.roles(), ["standby", "leader"]);
}

#[test]
fn a_stalled_worker_gives_the_lead_up() {
    let mut duo = pair();
    duo.workers = ["0-1", "0-1"];
    duo.start();
    let connections = Connections::open(&duo, 40);
    let owners: BTreeSet<_> = duo.nodes[0]
        .api()
        .sessions("protocol=tcp")
        .iter()
        .map(worker)
        .collect();
    assert_eq!(owners.len(), 2, "both workers have some");
    connections.are_known_to(&duo.nodes[1]);
    let stalled = Stalled::of(duo.nodes[0].process.as_ref().unwrap().pid(), "worker-1");
    duo.nodes[1].wait_ha("leader", |ha| ha["role"] == "leader");
    let ha = duo.nodes[0].wait_ha("standby", |ha| ha["role"] == "standby");
    assert_eq!(ha["able"], false, "{ha}");
    assert!(
        ha["reasons"]
            .as_array()
            .unwrap()
            .iter()
            .any(|r| r == "worker 1 does not turn"),
        "{ha}"
    );
    connections.are_well();
    drop(stalled);
    duo.wait_healthy();
    assert_eq!(duo.roles(), ["standby", "leader"]);
    connections.are_well();
}

fn worker(session: &serde_json::Value) -> u64 {
    session["worker"].as_u64().unwrap()
}

/// The far ends, in a process of their own: both ends together are more files than one may have.
const ECHO: &str = "
import selectors, socket
ears = selectors.DefaultSelector()
listener = socket.create_server(('0.0.0.0', 8080), backlog=1024)
ears.register(listener, selectors.EVENT_READ)
print('listens', flush=True)
while True:
    for key, _ in ears.select():
        if key.fileobj is listener:
            ears.register(listener.accept()[0], selectors.EVENT_READ)
        elif said := key.fileobj.recv(100):
            key.fileobj.sendall(said)
";

fn connect_many(duo: &Duo, count: usize) -> Vec<TcpStream> {
    let to = SocketAddr::new(duo.server.v4, 8080);
    let connect = |_| {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    };
    duo.client.ns.run(|| (0..count).map(connect).collect())
}

#[test]
fn ten_thousand_idle_connections_are_all_alive_afterwards() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut duo = pair();
    duo.start();
    let script = duo.lab.file("echo.py", ECHO);
    let line = format!("python3 {}", script.display());
    let server = duo.server.spawn(duo.lab.dir(), "echo", &line);
    wait_for_within(LONG, "the echo listens", || {
        if server.stdout().contains("listens") {
            Ok(())
        } else {
            Err(server.stderr())
        }
    });
    let mut connections = connect_many(&duo, IDLE);
    duo.nodes[1].wait_ha("in possession of all sessions", |ha| {
        ha["sync"]["replicas"] == IDLE && ha["sync"]["state"] == "in_sync"
    });
    duo.nodes[0].kill();
    duo.nodes[1].wait_ha("leader", |ha| ha["role"] == "leader");
    for (number, connection) in connections.iter_mut().enumerate() {
        connection.write_all(&(number as u32).to_be_bytes()).unwrap();
    }
    for (number, connection) in connections.iter_mut().enumerate() {
        let mut heard = [0; 4];
        connection
            .read_exact(&mut heard)
            .unwrap_or_else(|e| panic!("connection {number}: {e}"));
        assert_eq!(u32::from_be_bytes(heard) as usize, number);
    }
    let counters = duo.nodes[1].api().counters();
    assert_eq!(counters.sessions_created, 0, "none was made anew: {counters:?}");
}
