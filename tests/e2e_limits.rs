//! Limits, reserves and zones' networks on a running node, with real kernels at both ends.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lab::api::Counters;
use lab::{Config, Lab, Node, wait_for};

/// How long a connection that is not to come about is waited for: its SYN is sent again after a second.
const REFUSED: Duration = Duration::from_millis(1_500);

/// Waits until something was dropped for a reason; a kernel may send a SYN more than once.
fn wait_drop(node: &Node, since: &Counters, reason: &str) {
    wait_for(&format!("a drop for {reason}"), || {
        let now = node.counters();
        if now.drop_of(reason) > since.drop_of(reason) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
}

#[test]
fn the_fourth_connection_of_a_source_is_refused() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let rules = "[[rule]]\nname = \"web\"\nservice = [\"tcp/8080\"]\naction = \"allow\"\nmax_sessions_per_source = 3\n\
                 timeouts = { tcp_time_wait = \"1s\", tcp_closed = \"1s\" }\n";
    let node = lab.start(Config::new(rules));
    let listener = server.listen(8080);
    let mut connections: Vec<TcpStream> = (0..3).map(|_| client.connect(server.v4, 8080)).collect();
    let before = node.counters();
    let refused = client.connect_within(server.v4, 8080, REFUSED).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TimedOut, "{refused}");
    wait_drop(&node, &before, "session_limit");
    let rule = node.api.rule("web");
    assert_eq!(rule["sessions"], 3, "{rule}");
    assert!(rule["limited"].as_u64() >= Some(1), "{rule}");
    // Another address of the same host is another source.
    connections.push(client.connect(server.v6, 8080));
    // One ends, another may begin.
    let (over, _) = listener.accept().unwrap();
    let gone = connections.remove(0);
    drop((gone, over));
    wait_for("the first connection's session ends", || {
        let live = node.api.rule("web")["sessions"].as_u64();
        if live == Some(3) {
            Ok(())
        } else {
            Err(format!("{live:?}"))
        }
    });
    connections.push(client.connect(server.v4, 8080));
    let (ok, said, _) = node.try_cli("show rules");
    assert!(ok && said.contains("refused by its limits"), "{said}");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test reads the clock")]
fn a_source_opens_no_more_than_its_rate() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let rules = "[[rule]]\nname = \"dns\"\nservice = [\"udp/5353\"]\naction = \"allow\"\nnew_sessions_per_source = \"5/s\"\n";
    let node = lab.start(Config::new(rules));
    let before = node.counters();
    // Fifty flows as fast as they can be sent: a burst of five, and what the time allows.
    let sockets: Vec<_> = (0..50).map(|n| client.udp(20_000 + n)).collect();
    let sent = std::time::Instant::now();
    for socket in &sockets {
        socket
            .send_to(b"question", SocketAddr::new(server.v4, 5353))
            .unwrap();
    }
    wait_for("all have been judged", || {
        let now = node.counters();
        let judged = now.sessions_created - before.sessions_created + now.drop_of("rate_limit")
            - before.drop_of("rate_limit");
        if judged >= 50 {
            Ok(())
        } else {
            Err(format!("{judged} of 50"))
        }
    });
    let opened = node.counters().sessions_created - before.sessions_created;
    let allowed = 5 + sent.elapsed().as_secs() * 5 + 5;
    // With several workers the flows of a source may all be one's, and the others' part of the rate comes too late for a burst.
    let workers = node.api.get("/v1/workers")["workers"].as_array().unwrap().len() as u64;
    assert!((5 / workers..=allowed).contains(&opened), "{opened} of {allowed}");
}

/// The session table full of flows from outside, which nothing may evict: the operator still gets in.
#[test]
fn a_full_table_has_room_for_the_zone_with_a_reserve() {
    let mut lab = Lab::new();
    let (inside, outside) = lab.pair("lan", "wan");
    let rules = "[[zone]]\nname = \"lan\"\nreserve = \"10%\"\n[[rule]]\nname = \"all\"\naction = \"allow\"\n";
    let node = lab.start(Config::new(rules).conntrack("max_sessions = 100\n"));
    let before = node.counters();
    let answering = inside.udp(5353);
    let flood: Vec<_> = (0..120).map(|n| outside.udp(20_000 + n)).collect();
    let mut heard = [0; 16];
    let mut refused = 0;
    for (socket, judged) in flood.iter().zip(1..) {
        socket
            .send_to(b"question", SocketAddr::new(inside.v4, 5353))
            .unwrap();
        let refused_before = refused;
        wait_for("the flow is let in or refused", || {
            let now = node.counters();
            refused = now.drop_of("table_full") - before.drop_of("table_full");
            let so_far = now.sessions_created - before.sessions_created + refused;
            if so_far == judged {
                Ok(())
            } else {
                Err(format!("{so_far} of {judged}: {now:?}"))
            }
        });
        // Answered where there was room, so that the session is one both ways and stays.
        if refused == refused_before {
            let (_, from) = answering.recv_from(&mut heard).unwrap();
            answering.send_to(b"response", from).unwrap();
            socket.recv_from(&mut heard).unwrap();
        }
    }
    // Of several workers one may refuse while the others still have room that they have not been asked for, and each keeps less than a
    // session too little of the reserve.
    let workers = node.api.get("/v1/workers")["workers"].as_array().unwrap().len();
    let expected = if workers == 1 { 30..=30 } else { 29..=45 };
    assert!(expected.contains(&refused), "{refused}");
    let status = node.api.get("/v1/status");
    assert!(status["timeout_scale"].as_f64() < Some(1.0), "{status}");
    let (ok, said, _) = node.try_cli("show status");
    assert!(ok && said.contains("timeouts at "), "{said}");
    let _listener = outside.listen(22);
    drop(inside.connect(outside.v4, 22));
}

#[test]
fn a_source_of_another_zone_is_dropped() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let rules = format!(
        "[[zone]]\nname = \"wan\"\nantispoof = true\nnetworks = [\"{}\", \"{}\"]\n\
         [[zone]]\nname = \"lan\"\nantispoof = true\nnetworks = [\"{}\"]\n[[rule]]\nname = \"all\"\naction = \"allow\"\n",
        server.v4, server.v6, client.v4
    );
    let node = lab.start(Config::new(&rules));
    let _listener = server.listen(8080);
    drop(client.connect(server.v4, 8080));
    // Its IPv6 address is not among the zone's networks.
    let before = node.counters();
    let refused = client.connect_within(server.v6, 8080, REFUSED).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TimedOut, "{refused}");
    wait_drop(&node, &before, "spoofed_source");
    let packet = format!("tcp [{}]:1 > [{}]:8080 syn", client.v6, server.v6);
    let body = serde_json::json!({"packets": [{"from": "lan", "packet": packet}]});
    let verdict = node.api.post("/v1/explain", &body)["verdicts"][0].clone();
    assert_eq!(verdict["reason"], "spoofed_source", "{verdict}");
    let detail = verdict["detail"].as_str().unwrap();
    assert_eq!(
        detail,
        format!("{} is in none of the networks of zone lan", client.v6)
    );
}
