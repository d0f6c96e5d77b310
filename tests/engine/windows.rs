//! `tcp_strict` and `pickup`: what the rules make of TCP's sequence numbers.

use crate::node::Node;

const SYN: &str = "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=100";
const SYN_ACK: &str = "tcp 192.0.2.7:80 > 10.0.0.5:1234 syn,ack seq=500 ack=101";
const ACK: &str = "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack=501";

fn established(rules: &str) -> Node {
    let mut node = Node::new(rules);
    for (port, packet) in [("lan", SYN), ("wan", SYN_ACK), ("lan", ACK)] {
        assert!(node.send(port, packet).starts_with("to "));
    }
    node
}

fn rule(keys: &str) -> String {
    format!("[[rule]]\nname = \"web\"\nfrom = \"lan\"\nservice = [\"tcp/80\"]\naction = \"allow\"\n{keys}\n")
}

/// Blind injection: everything but the ports is guessed. (Each is dropped and counted, and changes nothing.)
#[test]
fn blind_segments_are_dropped() {
    let mut node = established(&rule(""));
    let before = node.sessions();
    for packet in [
        "seq=70000 ack=101 len=100",
        "seq=4000000000 ack=101 len=100",
        "seq=501 ack=102",
        "seq=501 ack=4000000000 len=10",
        "fin seq=70000 ack=101",
        "rst seq=0",
        "rst seq=70000",
        "rst seq=500",
    ] {
        let packet = format!("tcp 192.0.2.7:80 > 10.0.0.5:1234 {packet}");
        node.changes(&[("received", 1), ("tcp_out_of_window", 1)], |node| {
            assert_eq!(
                node.send("wan", &packet),
                "tcp_out_of_window: session",
                "{packet}"
            );
        });
        assert_eq!(node.sessions(), before, "{packet}");
    }
    // What the client expects next.
    assert_eq!(
        node.send("wan", "tcp 192.0.2.7:80 > 10.0.0.5:1234 rst seq=501"),
        "to lan: session"
    );
    assert!(node.sessions()[0].contains("closed"));
}

#[test]
fn a_rule_or_the_whole_node_may_look_away_from_windows() {
    let wild = "tcp 192.0.2.7:80 > 10.0.0.5:1234 seq=4000000000 ack=7 len=100";
    for rules in [
        rule("tcp_strict = false"),
        format!("{}[conntrack]\ntcp_strict = false\n", rule("")),
    ] {
        assert_eq!(
            established(&rules).send("wan", wild),
            "to lan: session",
            "{rules}"
        );
    }
    let strict = format!("{}[conntrack]\ntcp_strict = false\n", rule("tcp_strict = true"));
    assert_eq!(
        established(&strict).send("wan", wild),
        "tcp_out_of_window: session"
    );
    // An apply reaches live sessions, both ways.
    let mut node = established(&rule(""));
    assert_eq!(node.send("wan", wild), "tcp_out_of_window: session");
    node.apply(&rule("tcp_strict = false"));
    assert_eq!(node.send("wan", wild), "to lan: session");
    node.apply(&rule("tcp_strict = true"));
    assert_eq!(
        node.send("wan", "tcp 192.0.2.7:80 > 10.0.0.5:1234 seq=1000000 ack=7"),
        "tcp_out_of_window: session"
    );
}

#[test]
fn data_with_a_syn_needs_fast_open() {
    let mut node = Node::new(&rule(""));
    assert_eq!(
        node.send("lan", &format!("{SYN} len=10")),
        "tcp_out_of_window: rule web"
    );
    assert_eq!(node.sessions(), [""; 0]);
    let mut node = Node::new(&rule("tcp_strict = false"));
    assert_eq!(
        node.send("lan", &format!("{SYN} len=10")),
        "to wan: new session by web"
    );
}

#[test]
fn a_packet_in_mid_stream_opens_a_session_only_where_its_rule_says_so() {
    let data = "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=5000 ack=9000 len=100 psh";
    let reply = "tcp 192.0.2.7:80 > 10.0.0.5:1234 seq=9000 ack=5100 len=1000";
    let mut node = Node::new(&rule(""));
    assert_eq!(node.send("lan", data), "no_session: no rule");
    for rules in [
        rule("pickup = true"),
        format!("{}[conntrack]\npickup = true\n", rule("")),
    ] {
        let mut node = Node::new(&rules);
        // Another rule's packets, the other end's, and what is no plain segment do not.
        for (port, packet) in [
            ("wan", reply.to_owned()),
            ("lan", data.replace(":80", ":81")),
            ("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 rst seq=5000".to_owned()),
            (
                "lan",
                "tcp 10.0.0.5:1234 > 192.0.2.7:80 fin,ack seq=5000 ack=9000".to_owned(),
            ),
            (
                "lan",
                "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn,ack seq=5000 ack=9000".to_owned(),
            ),
        ] {
            assert_eq!(node.send(port, &packet), "no_session: no rule", "{packet}");
        }
        assert_eq!(node.send("lan", data), "to wan: new session by web");
        assert_eq!(node.send("wan", reply), "to lan: session");
        assert!(
            node.sessions()[0].contains("established by web"),
            "{:?}",
            node.sessions()
        );
        // From then on there are windows.
        assert_eq!(
            node.send(
                "wan",
                "tcp 192.0.2.7:80 > 10.0.0.5:1234 seq=10000 ack=5101 len=10"
            ),
            "tcp_out_of_window: session"
        );
        assert_eq!(
            node.send(
                "lan",
                "tcp 10.0.0.5:1234 > 192.0.2.7:80 fin,ack seq=5100 ack=10000"
            ),
            "to wan: session"
        );
    }
    let mut node = Node::new(&format!("{}[conntrack]\npickup = true\n", rule("pickup = false")));
    assert_eq!(node.send("lan", data), "no_session: no rule");
}

/// Who guesses a number in the window must not end a connection that its receiver keeps (RFC 5961, section 3.2).
#[test]
fn a_guessed_reset_does_not_end_an_idle_connection() {
    for answered in [true, false] {
        let mut node = established(&rule("reset_on_timeout = true"));
        let guess = "tcp 192.0.2.7:80 > 10.0.0.5:1234 rst seq=1501";
        assert_eq!(node.send("wan", guess), "to lan: session");
        if answered {
            let challenge = "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack=501";
            assert_eq!(node.send("lan", challenge), "to wan: session");
            // Again, and this time the receiver is not asked.
            assert_eq!(node.send("wan", guess), "to lan: session");
            assert_eq!(node.wait_secs(7000), 0);
            assert_eq!(node.wait_secs(441), 1);
            assert_eq!(node.originated.len(), 2, "an ordinary timeout");
        } else {
            assert_eq!(node.wait_secs(11), 1);
            assert_eq!(node.originated.len(), 0, "it is not haechi that resets the ends");
        }
    }
}

/// One packet that nobody answered is no connection: it goes soon, and first when the table is full.
#[test]
fn what_is_picked_up_is_half_open_until_the_other_end_answers() {
    let mut node = Node::new(&rule("pickup = true"));
    let client = "tcp 10.0.0.5:1234 > 192.0.2.7:80";
    node.send("lan", &format!("{client} seq=7000 ack=9000 len=10"));
    assert!(
        node.sessions()[0].contains("syn_received"),
        "{:?}",
        node.sessions()
    );
    assert_eq!(node.engine.table().half_open(), 1);
    // More of it before the answer.
    let more = node.send("lan", &format!("{client} seq=7010 ack=9000 len=10"));
    assert_eq!(more, "to wan: session");
    let answer = "tcp 192.0.2.7:80 > 10.0.0.5:1234 seq=9000 ack=7020 len=5";
    assert_eq!(node.send("wan", answer), "to lan: session");
    assert!(
        node.sessions()[0].contains("established"),
        "{:?}",
        node.sessions()
    );
    assert_eq!(node.wait_secs(7000), 0);
    let mut node = Node::new(&rule("pickup = true"));
    node.send("lan", &format!("{client} seq=7000 ack=9000 len=10"));
    assert_eq!(node.wait_secs(31), 1);
    // The client begins anew on the same ports.
    node.send("lan", &format!("{client} seq=7000 ack=9000 len=10"));
    for (port, packet) in [("lan", SYN), ("wan", SYN_ACK), ("lan", ACK)] {
        assert!(node.send(port, packet).starts_with("to "), "{packet}");
    }
    assert!(
        node.sessions()[0].contains("established"),
        "{:?}",
        node.sessions()
    );
}

#[test]
fn data_in_answer_to_a_syn_is_dropped() {
    let mut node = Node::new(&rule(""));
    node.send("lan", SYN);
    let server = "tcp 192.0.2.7:80 > 10.0.0.5:1234";
    for numbers in ["seq=987654321 ack=123456 len=1400", "seq=1 ack=101 len=1"] {
        let fate = node.send("wan", &format!("{server} {numbers}"));
        assert_eq!(fate, "tcp_out_of_window: session", "{numbers}");
    }
    // An old connection's acknowledgement has none.
    let old = node.send("wan", &format!("{server} seq=1 ack=77"));
    assert_eq!(old, "to lan: session");
}
