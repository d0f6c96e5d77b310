//! Invariant 11: a session belongs to its pair and its VLANs, and its packets to its ports.

use crate::node::{ALLOW_ALL, Node};

const SYN: &str = "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn";
const SYN_ACK: &str = "tcp 192.0.2.7:80 > 10.0.0.5:1234 syn,ack ack=1";

fn scope(scope: &str, rules: &str) -> String {
    format!("[transparent]\nsession_scope = \"{scope}\"\n{rules}")
}

#[test]
fn one_five_tuple_through_two_pairs_is_two_sessions_under_two_rules() {
    // Through one pair it is allowed by one rule, through the other by another.
    let rules = "[[rule]]\nname = \"lan\"\nfrom = \"lan\"\naction = \"allow\"\n\
                 [[rule]]\nname = \"dmz\"\nfrom = \"dmz\"\naction = \"allow\"\n";
    let mut node = Node::new(rules);
    assert_eq!(node.send("lan", SYN), "to wan: new session by lan");
    assert_eq!(
        node.send("net", SYN_ACK),
        "no_session: no rule",
        "the other pair knows nothing of it"
    );
    assert_eq!(node.send("dmz", SYN), "to net: new session by dmz");
    assert_eq!(node.send("wan", SYN_ACK), "to lan: session");
    assert_eq!(
        node.sessions(),
        [
            "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn_received by lan lan>wan packets [1, 1] bytes [40, 40]",
            "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn_sent by dmz dmz>net packets [1, 0] bytes [40, 0]",
        ]
    );
    // Refused through one pair, allowed through the other.
    let mut node = Node::new("[[rule]]\nname = \"lan\"\nfrom = \"lan\"\naction = \"allow\"\n");
    assert_eq!(node.send("lan", SYN), "to wan: new session by lan");
    assert_eq!(node.send("dmz", SYN), "policy: no rule");
}

#[test]
fn one_five_tuple_in_several_vlans_is_several_sessions() {
    let mut node = Node::new(ALLOW_ALL);
    let tags = [
        "",
        "vlan=5",
        "vlan=6",
        "vlan=5 vlan=6",
        "vlan=6 vlan=5",
        "vlan=5 vlan=5",
    ];
    for tags in tags {
        assert_eq!(
            node.send("wan", &format!("{SYN_ACK} {tags}")),
            "no_session: no rule",
            "{tags}"
        );
        assert_eq!(
            node.send("lan", &format!("{SYN} {tags}")),
            "to wan: new session by all",
            "{tags}"
        );
    }
    for tags in tags {
        assert_eq!(
            node.send("wan", &format!("{SYN_ACK} {tags}")),
            "to lan: session",
            "{tags}"
        );
    }
    assert_eq!(node.engine.table().len() as usize, tags.len());
    assert!(node.sessions().iter().all(|s| s.contains("packets [1, 1]")));
    // VLAN 0 only carries a priority: the frame belongs to no VLAN, or to that of its other tag.
    let sessions = node.sessions();
    for tags in ["vlan=0", "vlan=0 vlan=0", "vlan=0 vlan=5", "vlan=5 vlan=0"] {
        assert_eq!(
            node.send("lan", &format!("tcp 10.0.0.5:1234 > 192.0.2.7:80 {tags} ack")),
            "to wan: session",
            "{tags}"
        );
    }
    assert_eq!(node.sessions().len(), sessions.len());
}

#[test]
fn a_packet_on_the_wrong_side_is_dropped_and_changes_nothing() {
    let mut node = Node::new(ALLOW_ALL);
    node.send("lan", SYN);
    node.send("wan", SYN_ACK);
    node.send("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 ack");
    let before = node.sessions();
    for (port, packet) in [
        ("wan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 ack"),
        ("wan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 rst"),
        ("wan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn"),
        ("lan", "tcp 192.0.2.7:80 > 10.0.0.5:1234 ack"),
        ("lan", "tcp 192.0.2.7:80 > 10.0.0.5:1234 fin,ack"),
    ] {
        let verdict = node.changes(&[("received", 1), ("wrong_port", 1)], |node| {
            node.send(port, packet)
        });
        assert_eq!(verdict, "wrong_port: session", "{packet} from {port}");
        assert_eq!(node.sessions(), before);
    }
}

#[test]
fn scope_pair_looks_away_from_vlans() {
    let mut node = Node::new(&scope("pair", ALLOW_ALL));
    assert_eq!(
        node.send("lan", &format!("{SYN} vlan=5")),
        "to wan: new session by all"
    );
    assert_eq!(node.send("wan", &format!("{SYN_ACK} vlan=6")), "to lan: session");
    assert_eq!(
        node.send("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 ack"),
        "to wan: session"
    );
    assert_eq!(node.send("dmz", SYN), "to net: new session by all");
    assert_eq!(node.engine.table().len(), 2);
}

#[test]
fn scope_node_lets_a_reply_take_another_pair_of_the_same_zones() {
    // Both "wan" and "net" are in zone wan: an asymmetric path comes back through the other pair. The zones behind the
    // other ports differ, so that the opener's packets may not.
    let mut node = Node::new(&scope("node", ALLOW_ALL));
    assert_eq!(node.send("lan", SYN), "to wan: new session by all");
    assert_eq!(node.send("net", SYN_ACK), "to dmz: session");
    assert_eq!(
        node.send("dmz", "tcp 10.0.0.5:1234 > 192.0.2.7:80 ack"),
        "wrong_port: session"
    );
    assert_eq!(
        node.send("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 ack"),
        "to wan: session"
    );
    assert_eq!(
        node.sessions(),
        ["tcp 10.0.0.5:1234 > 192.0.2.7:80 established by all lan>wan packets [2, 1] bytes [80, 40]"]
    );
}
