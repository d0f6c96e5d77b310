//! ICMP that is neither an echo nor an error: a session is one conversation, not all ICMP between two hosts.

use crate::node::Node;

const TIMESTAMPS: &str = "[[rule]]\nname = \"time\"\nfrom = \"lan\"\nservice = [\"icmp/13\", \"icmpv6/139\"]\naction = \"allow\"\n";
const ASK: &str = "icmp 10.0.0.5 > 192.0.2.7 13/0 len=12";

#[test]
fn the_answer_passes_and_nothing_else_comes_back() {
    let mut node = Node::new(TIMESTAMPS);
    assert_eq!(node.send("lan", ASK), "to wan: new session by time");
    assert_eq!(
        node.send("wan", "icmp 192.0.2.7 > 10.0.0.5 14/0 len=12"),
        "to lan: session"
    );
    assert_eq!(node.send("lan", ASK), "to wan: session");
    for (packet, fate) in [
        // Other answers and questions, an echo with a code that no echo has, the same question the other way.
        ("18/0 len=4", "no_session: no rule"),
        ("16/0", "no_session: no rule"),
        ("14/1 len=12", "no_session: no rule"),
        ("0/1", "no_session: no rule"),
        ("17/0 len=4", "policy: no rule"),
        ("8/1", "policy: no rule"),
        ("echo-request id=0", "policy: no rule"),
        ("13/0 len=12", "policy: no rule"),
    ] {
        assert_eq!(
            node.send("wan", &format!("icmp 192.0.2.7 > 10.0.0.5 {packet}")),
            fate,
            "{packet}"
        );
    }
    assert_eq!(
        node.sessions(),
        ["icmp 10.0.0.5 > 192.0.2.7 icmp by time lan>wan packets [2, 1] bytes [80, 40]"]
    );
}

#[test]
fn the_opener_s_other_types_are_asked_about() {
    let mut node = Node::new(TIMESTAMPS);
    assert_eq!(node.send("lan", ASK), "to wan: new session by time");
    for packet in ["17/0 len=4", "8/1", "15/0", "echo-request id=3328"] {
        let fate = node.send("lan", &format!("icmp 10.0.0.5 > 192.0.2.7 {packet}"));
        assert_eq!(fate, "policy: no rule", "{packet}");
    }
}

#[test]
fn both_ends_may_ask() {
    let rules = "[[rule]]\nname = \"time\"\nservice = [\"icmp/13\"]\naction = \"allow\"\n";
    let mut node = Node::new(rules);
    assert_eq!(node.send("lan", ASK), "to wan: new session by time");
    assert_eq!(
        node.send("wan", "icmp 192.0.2.7 > 10.0.0.5 13/0 len=12"),
        "to lan: new session by time"
    );
    assert_eq!(
        node.send("wan", "icmp 192.0.2.7 > 10.0.0.5 14/0 len=12"),
        "to lan: session"
    );
    assert_eq!(
        node.send("lan", "icmp 10.0.0.5 > 192.0.2.7 14/0 len=12"),
        "to wan: session"
    );
    assert_eq!(node.sessions().len(), 2);
}

#[test]
fn node_information_of_ipv6_has_codes_of_its_own_in_answers() {
    let mut node = Node::new(TIMESTAMPS);
    let (ask, answer) = (
        "icmpv6 2001:db8::5 > 2001:db8:1::7 139/1 len=16",
        "icmpv6 2001:db8:1::7 > 2001:db8::5 140/0 len=16",
    );
    assert_eq!(node.send("wan", answer), "no_session: no rule");
    assert_eq!(node.send("lan", ask), "to wan: new session by time");
    assert_eq!(node.send("wan", answer), "to lan: session");
    assert_eq!(
        node.send("wan", "icmpv6 2001:db8:1::7 > 2001:db8::5 129/1"),
        "no_session: no rule"
    );
}

const PING: &str =
    "[[rule]]\nname = \"ping\"\nfrom = \"lan\"\nservice = [\"icmp/8\", \"icmpv6/128\"]\naction = \"allow\"\n";

/// Who guesses the identifier must know what was asked for, too.
#[test]
fn a_reply_that_nobody_asked_for_is_dropped() {
    for (protocol, client, server) in [
        ("icmp", "10.0.0.5", "192.0.2.7"),
        ("icmpv6", "2001:db8::5", "2001:db8:1::7"),
    ] {
        let mut node = Node::new(PING);
        let ask = |seq: u16| format!("{protocol} {client} > {server} echo-request id=7 seq={seq}");
        let answer = |seq: u16| format!("{protocol} {server} > {client} echo-reply id=7 seq={seq}");
        assert_eq!(node.send("lan", &ask(100)), "to wan: new session by ping");
        for seq in [0, 99, 101, 32_868, 65_535] {
            node.changes(&[("received", 1), ("echo_unrequested", 1)], |node| {
                assert_eq!(node.send("wan", &answer(seq)), "echo_unrequested: session");
            });
        }
        // Late, twice, and out of order: all of them were asked for.
        assert_eq!(node.send("lan", &ask(101)), "to wan: session");
        assert_eq!(node.send("lan", &ask(103)), "to wan: session");
        for seq in [103, 100, 101, 100] {
            assert_eq!(node.send("wan", &answer(seq)), "to lan: session");
        }
        assert_eq!(node.send("wan", &answer(104)), "echo_unrequested: session");
    }
}
