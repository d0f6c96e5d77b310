//! Another policy under live sessions: they go on under the rule that allows them now, or end at their next packet.

use crate::checked::checked_tcp;
use crate::node::Node;

const ALLOW_WEB: &str = "[[rule]]\nname = \"web\"\nservice = [\"tcp/80\"]\naction = \"allow\"\n";
const SYN: &str = "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=100";
const SYN_ACK: &str = "tcp 192.0.2.7:80 > 10.0.0.5:1234 syn,ack seq=500 ack=101";
const ACK: &str = "tcp 10.0.0.5:1234 > 192.0.2.7:80 seq=101 ack=501";
const DATA: &str = "tcp 192.0.2.7:80 > 10.0.0.5:1234 seq=501 ack=101 len=60";

fn established(rules: &str) -> Node {
    let mut node = Node::new(rules);
    for (port, packet) in [("lan", SYN), ("wan", SYN_ACK), ("lan", ACK)] {
        assert!(node.send(port, packet).starts_with("to "));
    }
    node
}

#[test]
fn the_same_rules_again_change_nothing() {
    let mut node = established(ALLOW_WEB);
    node.changes(&[], |node| node.apply(ALLOW_WEB));
    let moved = [
        ("received", 1),
        ("forwarded", 1),
        ("web packets", 1),
        ("web bytes", 100),
    ];
    node.changes(&moved, |node| {
        assert_eq!(node.send("wan", DATA), "to lan: session")
    });
    assert_eq!(
        node.sessions(),
        ["tcp 10.0.0.5:1234 > 192.0.2.7:80 established by web lan>wan packets [2, 2] bytes [80, 140]"]
    );
}

#[test]
fn another_rule_that_allows_it_takes_the_session_over() {
    let mut node = established(ALLOW_WEB);
    let rules = format!("[[rule]]\nname = \"first\"\naction = \"allow\"\n{ALLOW_WEB}");
    node.apply(&rules);
    let moved = [
        ("received", 1),
        ("forwarded", 1),
        ("web sessions", -1),
        ("first sessions", 1),
        ("first packets", 1),
        ("first bytes", 100),
    ];
    node.changes(&moved, |node| {
        assert_eq!(node.send("wan", DATA), "to lan: session")
    });
    assert!(node.sessions()[0].contains("established by first"));
}

#[test]
fn sessions_that_the_new_rules_refuse_end_at_their_next_packet() {
    for (rules, why) in [
        ("", "policy: no rule"),
        (
            "[[rule]]\nname = \"none\"\naction = \"drop\"\n",
            "policy: rule none",
        ),
        (
            "[[rule]]\nname = \"web\"\nservice = [\"tcp/80\"]\naction = \"drop\"\n",
            "policy: rule web",
        ),
        (
            "[[rule]]\nname = \"other\"\nservice = [\"tcp/81\"]\naction = \"allow\"\n",
            "policy: no rule",
        ),
        (
            "[[rule]]\nname = \"in\"\nfrom = \"wan\"\naction = \"allow\"\n",
            "policy: no rule",
        ),
    ] {
        let mut node = established(ALLOW_WEB);
        node.apply(rules);
        assert_eq!(node.engine.table().len(), 1, "not before its next packet");
        let mut moved = vec![
            ("received", 1),
            ("policy", 1),
            ("sessions_ended", 1),
            ("web sessions", -1),
        ];
        match why {
            "policy: rule none" => moved.extend([("none packets", 1), ("none bytes", 100)]),
            "policy: rule web" => moved.extend([("web packets", 1), ("web bytes", 100)]),
            _ => moved.extend([("no rule packets", 1), ("no rule bytes", 100)]),
        }
        // The reply direction asks about the opener's direction, not its own.
        node.changes(&moved, |node| {
            assert_eq!(node.send("wan", DATA), why, "under {rules}")
        });
        assert_eq!(node.sessions(), [""; 0]);
        assert_eq!(node.send("lan", ACK), "no_session: no rule");
    }
}

#[test]
fn a_session_that_is_now_rejected_is_answered() {
    let mut node = established(ALLOW_WEB);
    node.apply("[[rule]]\nname = \"no\"\naction = \"reject\"\n");
    assert_eq!(node.send("lan", ACK), "policy: rule no");
    let [(port, reset)] = &node.originated[..] else {
        panic!("one answer, not {:?}", node.originated);
    };
    let tcp = checked_tcp(reset);
    assert_eq!((port.as_str(), tcp.rst, tcp.sequence_number), ("lan", true, 501));
    assert_eq!(node.sessions(), [""; 0]);
}

#[test]
fn both_ends_of_a_session_that_is_now_rejected_hear_of_it() {
    let mut node = established(ALLOW_WEB);
    node.apply("[[rule]]\nname = \"no\"\nfrom = \"lan\"\naction = \"reject\"\n");
    // The server's packet ends the session; the client's next one is refused by the rule that refuses its connection.
    assert_eq!(node.send("wan", DATA), "policy: rule no");
    assert_eq!(node.send("lan", ACK), "policy: rule no");
    let resets: Vec<_> = node
        .originated
        .iter()
        .map(|(port, frame)| {
            let tcp = checked_tcp(frame);
            (port.as_str(), tcp.rst, tcp.sequence_number)
        })
        .collect();
    assert_eq!(resets, [("wan", true, 101), ("lan", true, 501)]);
    // What opens nothing and is no RST is answered; a RST never is.
    assert_eq!(
        node.send("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 rst seq=101"),
        "policy: rule no"
    );
    assert_eq!(
        node.send("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 fin seq=101"),
        "tcp_bad_flags: no rule"
    );
    assert_eq!(node.originated.len(), 2);
}

#[test]
fn several_packets_of_a_session_that_ends_in_one_burst() {
    let mut node = established(ALLOW_WEB);
    node.apply("");
    let verdicts = node.send_all(&[("wan", DATA), ("lan", ACK), ("lan", SYN), ("wan", DATA)]);
    assert_eq!(
        verdicts,
        [
            "policy: no rule",
            "no_session: no rule",
            "policy: no rule",
            "no_session: no rule"
        ]
    );
    assert_eq!(node.counters()["sessions_ended"], 1);
    // And of one that goes on.
    let mut node = established(ALLOW_WEB);
    node.apply(&format!(
        "[[rule]]\nname = \"first\"\naction = \"allow\"\n{ALLOW_WEB}"
    ));
    let verdicts = node.send_all(&[("wan", DATA), ("lan", ACK), ("wan", DATA)]);
    assert_eq!(
        verdicts,
        ["to lan: session", "to wan: session", "to lan: session"]
    );
    assert_eq!(node.counters()["first sessions"], 1);
    assert_eq!(node.counters()["first packets"], 3);
}

#[test]
fn a_session_whose_rule_is_gone_idles_out_by_the_general_timeouts() {
    let rule = "[[rule]]\nname = \"dns\"\nservice = [\"udp/53\"]\naction = \"allow\"\ntimeouts = { udp_new = \"1h\" }\n";
    let mut node = Node::new(rule);
    node.send("lan", "udp 10.0.0.5:1 > 192.0.2.7:53");
    assert_eq!(node.wait_secs(100), 0);
    node.apply("");
    // It is idle for longer than the general 30 seconds already.
    assert_eq!(node.wait_secs(1), 1);
    assert_eq!(
        node.counters().get("dns sessions"),
        None,
        "its rule's gauge is back at 0"
    );
}

#[test]
fn shorter_timeouts_reach_idle_sessions() {
    let mut node = established(ALLOW_WEB);
    node.wait_secs(60);
    node.apply(&format!(
        "[conntrack.timeouts]\ntcp_established = \"90s\"\n{ALLOW_WEB}"
    ));
    assert_eq!((node.wait_secs(29), node.wait_secs(2)), (0, 1));
    // Longer ones too.
    let mut node = established(&format!(
        "[conntrack.timeouts]\ntcp_established = \"90s\"\n{ALLOW_WEB}"
    ));
    node.wait_secs(60);
    node.apply(ALLOW_WEB);
    assert_eq!(node.wait_secs(7000), 0);
}

#[test]
fn layer_2_settings_and_checksums_change_too() {
    let mut node = Node::new("");
    let lldp = crate::frames::ethernet(0x88cc, &[2, 7, 4]);
    assert_eq!(node.frame("lan", &lldp), "non_ip: layer 2");
    node.apply("[transparent]\nnon_ip = \"pass\"\n");
    assert_eq!(node.frame("lan", &lldp), "to wan: layer 2");
}
