//! States, timeouts and what each packet of a conversation changes.

use haechi::base::{Nanos, Tick};

use crate::node::{ALLOW_ALL, Node};

pub(crate) const C: &str = "10.0.0.5:1234 > 192.0.2.7:80";
pub(crate) const S: &str = "192.0.2.7:80 > 10.0.0.5:1234";

/// A TCP session in a state, by the shortest way there.
pub(crate) fn tcp_in(rules: &str, state: &str) -> Node {
    let mut node = Node::new(rules);
    let mut steps = vec![("lan", format!("tcp {C} syn seq=100"))];
    let handshake = [
        ("wan", format!("tcp {S} syn,ack seq=500 ack=101")),
        ("lan", format!("tcp {C} seq=101 ack=501")),
    ];
    let fin = ("lan", format!("tcp {C} fin seq=101 ack=501"));
    let fin_acked = ("wan", format!("tcp {S} seq=501 ack=102"));
    let other_fin = ("wan", format!("tcp {S} fin seq=501 ack=102"));
    let last_ack = ("lan", format!("tcp {C} seq=102 ack=502"));
    let more: Vec<(&str, String)> = match state {
        "syn_sent" => vec![],
        "syn_sent2" => vec![("wan", format!("tcp {S} syn seq=500"))],
        "syn_received" => handshake[..1].to_vec(),
        "established" => handshake.to_vec(),
        "fin_wait" => [&handshake[..], &[fin]].concat(),
        "close_wait" => [&handshake[..], &[fin, fin_acked]].concat(),
        "closing" => [
            &handshake[..],
            &[fin, ("wan", format!("tcp {S} fin seq=501 ack=101"))],
        ]
        .concat(),
        "last_ack" => [&handshake[..], &[fin, fin_acked, other_fin]].concat(),
        "time_wait" => [&handshake[..], &[fin, fin_acked, other_fin, last_ack]].concat(),
        "closed" => [&handshake[..], &[("wan", format!("tcp {S} rst seq=501"))]].concat(),
        other => panic!("no way to {other}"),
    };
    steps.extend(more);
    for (port, packet) in &steps {
        assert!(
            node.send(port, packet).starts_with("to "),
            "{packet} on the way to {state}"
        );
    }
    assert_eq!(state_of(&node), state);
    node
}

pub(crate) fn state_of(node: &Node) -> String {
    let sessions = node.sessions();
    assert_eq!(sessions.len(), 1);
    let (_, tail) = sessions[0].split_once("> ").expect("a session");
    tail.split(' ').nth(1).expect("its state").to_owned()
}

#[test]
fn a_whole_connection_step_by_step() {
    let mut node = Node::new(ALLOW_ALL);
    let mut expected = [(0_u64, 0_u64); 2];
    let steps: [(&str, String, &str, u64); 9] = [
        ("lan", format!("tcp {C} syn seq=100"), "syn_sent", 40),
        (
            "wan",
            format!("tcp {S} syn,ack seq=500 ack=101"),
            "syn_received",
            40,
        ),
        ("lan", format!("tcp {C} seq=101 ack=501"), "established", 40),
        (
            "lan",
            format!("tcp {C} psh seq=101 ack=501 len=100"),
            "established",
            140,
        ),
        (
            "wan",
            format!("tcp {S} psh seq=501 ack=201 len=1000"),
            "established",
            1040,
        ),
        ("lan", format!("tcp {C} fin seq=201 ack=1501"), "fin_wait", 40),
        ("wan", format!("tcp {S} seq=1501 ack=202"), "close_wait", 40),
        ("wan", format!("tcp {S} fin seq=1501 ack=202"), "last_ack", 40),
        ("lan", format!("tcp {C} seq=202 ack=1502"), "time_wait", 40),
    ];
    for (n, (port, packet, state, bytes)) in steps.iter().enumerate() {
        let mut moved = vec![
            ("received", 1),
            ("forwarded", 1),
            ("all packets", 1),
            ("all bytes", *bytes as i64),
        ];
        if n == 0 {
            moved.extend([("sessions_created", 1), ("all sessions", 1)]);
        }
        node.changes(&moved, |node| node.send(port, packet));
        let end = usize::from(*port == "wan");
        expected[end] = (expected[end].0 + 1, expected[end].1 + bytes);
        let [(p0, b0), (p1, b1)] = expected;
        assert_eq!(
            node.sessions(),
            [format!(
                "tcp {C} {state} by all lan>wan packets [{p0}, {p1}] bytes [{b0}, {b1}]"
            )]
        );
        node.wait(Nanos::from_millis(10));
    }
    let ended = [("sessions_ended", 1), ("all sessions", -1)];
    node.changes(&ended, |node| assert_eq!(node.wait_secs(46), 1));
    // The late packet of a connection that is gone.
    assert_eq!(
        node.send("lan", &format!("tcp {C} seq=202 ack=1502")),
        "no_session: no rule"
    );
}

#[test]
fn padding_counts_nowhere() {
    use haechi::packet::VecPacket;
    let mut node = Node::new(ALLOW_ALL);
    let mut frame = crate::node::frame("udp 10.0.0.5:1 > 192.0.2.7:2 len=5");
    frame.resize(1000, 0);
    node.burst(&[("lan", VecPacket::new(frame))]);
    assert!(node.sessions()[0].ends_with("packets [1, 0] bytes [33, 0]"));
    assert_eq!(node.counters()["all bytes"], 33);
}

#[test]
fn every_state_idles_out_by_its_own_timeout() {
    let rules = format!(
        "[conntrack.timeouts]\ntcp_syn_sent = \"11s\"\ntcp_syn_received = \"12s\"\ntcp_established = \"100s\"\n\
         tcp_closing = \"14s\"\ntcp_time_wait = \"15s\"\ntcp_closed = \"16s\"\nudp_new = \"17s\"\nudp_replied = \"18s\"\n\
         icmp = \"19s\"\nother = \"20s\"\n{ALLOW_ALL}"
    );
    let udp = "udp 10.0.0.5:1 > 192.0.2.7:2";
    let gre = "proto/47 10.0.0.5 > 192.0.2.7";
    let other = |steps: &[(&str, &str)]| {
        let mut node = Node::new(&rules);
        for (port, packet) in steps {
            node.send(port, packet);
        }
        node
    };
    let nodes = [
        (tcp_in(&rules, "syn_sent"), 11),
        (tcp_in(&rules, "syn_sent2"), 12),
        (tcp_in(&rules, "syn_received"), 12),
        (tcp_in(&rules, "established"), 100),
        (tcp_in(&rules, "fin_wait"), 14),
        (tcp_in(&rules, "close_wait"), 100),
        (tcp_in(&rules, "closing"), 14),
        (tcp_in(&rules, "last_ack"), 14),
        (tcp_in(&rules, "time_wait"), 15),
        (tcp_in(&rules, "closed"), 16),
        (other(&[("lan", udp)]), 17),
        (
            other(&[("lan", udp), ("wan", "udp 192.0.2.7:2 > 10.0.0.5:1")]),
            18,
        ),
        (other(&[("lan", "icmp 10.0.0.5 > 192.0.2.7 echo-request")]), 19),
        (other(&[("lan", gre)]), 20),
        (
            other(&[("lan", gre), ("wan", "proto/47 192.0.2.7 > 10.0.0.5")]),
            20,
        ),
    ];
    for (mut node, timeout) in nodes {
        let session = node.sessions();
        assert_eq!(
            node.wait(Nanos::from_millis(timeout * 1000 - 1)),
            0,
            "early: {session:?}"
        );
        assert_eq!(node.sessions(), session);
        assert_eq!(node.wait(Nanos::from_millis(400)), 1, "late: {session:?}");
        assert_eq!(node.engine.table().len(), 0);
    }
}

#[test]
fn packets_keep_a_session_alive_and_dropped_ones_do_not() {
    let mut node = tcp_in(ALLOW_ALL, "established");
    for _ in 0..10 {
        assert_eq!(node.wait_secs(7000), 0);
        assert_eq!(
            node.send("wan", &format!("tcp {S} seq=501 ack=101")),
            "to lan: session"
        );
    }
    node.wait_secs(7000);
    // From the wrong port, and with flags that nobody sends: no sign of life.
    assert_eq!(
        node.send("lan", &format!("tcp {S} seq=501 ack=101")),
        "wrong_port: session"
    );
    assert_eq!(
        node.send("wan", &format!("tcp {S} syn,fin seq=501")),
        "tcp_bad_flags: session"
    );
    assert_eq!(node.wait_secs(441), 1);
}

#[test]
fn a_shorter_state_ends_sooner_and_a_longer_one_later() {
    // Reset: from two hours down to ten seconds.
    let mut node = tcp_in(ALLOW_ALL, "established");
    node.wait_secs(3600);
    node.send("wan", &format!("tcp {S} rst seq=501"));
    assert_eq!((node.wait_secs(9), node.wait_secs(2)), (0, 1));
    // The first reply: from 30 seconds up to five minutes.
    let mut node = Node::new(ALLOW_ALL);
    node.send("lan", "udp 10.0.0.5:1 > 192.0.2.7:2");
    node.wait_secs(29);
    node.send("wan", "udp 192.0.2.7:2 > 10.0.0.5:1");
    assert_eq!((node.wait_secs(299), node.wait_secs(2)), (0, 1));
}

#[test]
fn rules_may_have_timeouts_of_their_own() {
    let rules = format!(
        "[[rule]]\nname = \"dns\"\nservice = [\"udp/53\"]\naction = \"allow\"\ntimeouts = {{ udp_new = \"5s\" }}\n{ALLOW_ALL}"
    );
    let mut node = Node::new(&rules);
    node.send("lan", "udp 10.0.0.5:1 > 192.0.2.7:53");
    node.send("lan", "udp 10.0.0.5:1 > 192.0.2.7:54");
    assert_eq!((node.wait_secs(4), node.wait_secs(2)), (0, 1));
    assert!(node.sessions()[0].contains(":54"));
    assert_eq!((node.wait_secs(23), node.wait_secs(2)), (0, 1));
}

#[test]
fn bad_flags_are_dropped_in_every_state_and_change_nothing() {
    for state in [
        "syn_sent",
        "syn_sent2",
        "syn_received",
        "established",
        "fin_wait",
        "close_wait",
        "closing",
        "last_ack",
        "time_wait",
        "closed",
    ] {
        let mut node = tcp_in(ALLOW_ALL, state);
        let before = node.sessions();
        for flags in [
            "syn,fin",
            "syn,rst",
            "fin",
            "fin,psh,urg",
            "fin,rst",
            "psh",
            "urg",
            "syn,ack,fin,rst",
        ] {
            for (port, ends) in [("lan", C), ("wan", S)] {
                let moved = [("received", 1), ("tcp_bad_flags", 1)];
                node.changes(&moved, |node| {
                    assert_eq!(
                        node.send(port, &format!("tcp {ends} {flags}")),
                        "tcp_bad_flags: session"
                    )
                });
            }
        }
        assert_eq!(node.sessions(), before, "{state}");
    }
}

#[test]
fn a_syn_reopens_a_finished_session_from_either_end_if_the_rules_allow() {
    let rules = "[[rule]]\nname = \"out\"\nfrom = \"lan\"\naction = \"allow\"\n";
    for state in ["time_wait", "closed"] {
        let mut node = tcp_in(rules, state);
        let moved = [
            ("received", 1),
            ("forwarded", 1),
            ("sessions_created", 1),
            ("sessions_ended", 1),
            ("out packets", 1),
            ("out bytes", 40),
        ];
        node.changes(&moved, |node| {
            assert_eq!(
                node.send("lan", &format!("tcp {C} syn seq=9000")),
                "to wan: new session by out"
            );
        });
        assert_eq!(
            node.sessions(),
            [format!(
                "tcp {C} syn_sent by out lan>wan packets [1, 0] bytes [40, 0]"
            )]
        );
        // The server may not open one, whatever was there.
        let mut node = tcp_in(rules, state);
        let before = node.sessions();
        let moved = [
            ("received", 1),
            ("policy", 1),
            ("no rule packets", 1),
            ("no rule bytes", 40),
        ];
        node.changes(&moved, |node| {
            assert_eq!(
                node.send("wan", &format!("tcp {S} syn seq=9000")),
                "policy: no rule"
            )
        });
        assert_eq!(node.sessions(), before);
        // With a rule it may, and it is then the opener.
        let mut node = tcp_in(ALLOW_ALL, state);
        assert_eq!(
            node.send("wan", &format!("tcp {S} syn seq=9000")),
            "to lan: new session by all"
        );
        assert_eq!(
            node.sessions(),
            [format!(
                "tcp {S} syn_sent by all wan>lan packets [1, 0] bytes [40, 0]"
            )]
        );
    }
}

#[test]
fn a_kill_ends_a_session_at_once() {
    let mut node = tcp_in(ALLOW_ALL, "established");
    let mut ix = None;
    node.engine.table().scan(0, 1000, |entry| ix = Some(entry.id.ix));
    let moved = [("sessions_ended", 1), ("all sessions", -1)];
    node.changes(&moved, |node| node.engine.kill(node.now, ix.expect("a session")));
    assert_eq!(
        node.send("lan", &format!("tcp {C} seq=101 ack=501")),
        "no_session: no rule"
    );
    // Again: nothing is there.
    node.changes(&[], |node| node.engine.kill(node.now, ix.expect("a session")));
}

#[test]
fn the_coarse_clock_may_wrap() {
    let mut node = Node::new(ALLOW_ALL);
    // Two seconds before the 32-bit tick counter wraps.
    let wrap = Nanos(Tick::NANOS << 32);
    node.now = Nanos(wrap.0 - 2 * Nanos::SECOND.0);
    node.send("lan", "udp 10.0.0.5:1 > 192.0.2.7:2");
    assert_eq!((node.wait_secs(29), node.wait_secs(2)), (0, 1));
    assert!(node.now > wrap);
}
