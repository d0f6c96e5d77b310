//! Rules by packets: what passes, by which rule, and what it leaves behind.

use haechi::base::Nanos;

use crate::node::Node;

/// The lan may do much, the wan may reach one server; a drop and a reject rule.
const RULES: &str = r#"
[[rule]]
name = "no-telnet"
service = ["tcp/23"]
action = "drop"
[[rule]]
name = "no-smtp"
from = "lan"
service = ["tcp/25", "udp/25"]
action = "reject"
[[rule]]
name = "lan-out"
from = "lan"
to = "wan"
source = ["10.0.0.0/8", "2001:db8::/64"]
service = ["tcp", "udp/53", "icmp/echo-request", "icmpv6/echo-request", "proto/47"]
action = "allow"
[[rule]]
name = "to-server"
from = "wan"
destination = ["10.0.0.80"]
service = ["tcp/80"]
source_ports = ["1024-65535"]
action = "allow"
"#;

#[test]
fn first_packets_by_rule() {
    for (port, packet, verdict) in [
        (
            "lan",
            "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn",
            "to wan: new session by lan-out",
        ),
        (
            "lan",
            "tcp [2001:db8::5]:1234 > [2001:db8:1::7]:80 syn",
            "to wan: new session by lan-out",
        ),
        (
            "lan",
            "udp 10.0.0.5:1234 > 192.0.2.7:53",
            "to wan: new session by lan-out",
        ),
        (
            "lan",
            "icmp 10.0.0.5 > 192.0.2.7 echo-request id=7",
            "to wan: new session by lan-out",
        ),
        (
            "lan",
            "icmpv6 2001:db8::5 > 2001:db8:1::7 echo-request id=7",
            "to wan: new session by lan-out",
        ),
        (
            "lan",
            "proto/47 10.0.0.5 > 192.0.2.7 len=20",
            "to wan: new session by lan-out",
        ),
        (
            "wan",
            "tcp 192.0.2.7:1024 > 10.0.0.80:80 syn",
            "to lan: new session by to-server",
        ),
        (
            "net",
            "tcp 192.0.2.7:1024 > 10.0.0.80:80 syn",
            "to dmz: new session by to-server",
        ),
        // Refused by a rule.
        (
            "lan",
            "tcp 10.0.0.5:1234 > 192.0.2.7:23 syn",
            "policy: rule no-telnet",
        ),
        (
            "dmz",
            "tcp 10.0.0.5:1234 > 192.0.2.7:23 syn",
            "policy: rule no-telnet",
        ),
        (
            "lan",
            "tcp 10.0.0.5:1234 > 192.0.2.7:25 syn",
            "policy: rule no-smtp",
        ),
        ("lan", "udp 10.0.0.5:1234 > 192.0.2.7:25", "policy: rule no-smtp"),
        // No rule: another source, service, port, zone, source port.
        ("lan", "tcp 11.0.0.5:1234 > 192.0.2.7:80 syn", "policy: no rule"),
        ("lan", "udp 10.0.0.5:1234 > 192.0.2.7:54", "policy: no rule"),
        (
            "lan",
            "icmp 10.0.0.5 > 192.0.2.7 timestamp-request len=12",
            "policy: no rule",
        ),
        ("lan", "proto/50 10.0.0.5 > 192.0.2.7 len=20", "policy: no rule"),
        ("wan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn", "policy: no rule"),
        ("wan", "tcp 192.0.2.7:1023 > 10.0.0.80:80 syn", "policy: no rule"),
        ("wan", "tcp 192.0.2.7:1024 > 10.0.0.81:80 syn", "policy: no rule"),
        (
            "lan",
            "tcp [2001:db8:2::5]:1234 > [2001:db8:1::7]:80 syn",
            "policy: no rule",
        ),
        // What can open no session, whatever the rules say.
        (
            "lan",
            "tcp 10.0.0.5:1234 > 192.0.2.7:80 ack",
            "no_session: no rule",
        ),
        (
            "lan",
            "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn,ack",
            "no_session: no rule",
        ),
        (
            "lan",
            "tcp 10.0.0.5:1234 > 192.0.2.7:80 fin,ack",
            "no_session: no rule",
        ),
        (
            "lan",
            "tcp 10.0.0.5:1234 > 192.0.2.7:80 rst",
            "no_session: no rule",
        ),
        (
            "lan",
            "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn,fin",
            "tcp_bad_flags: no rule",
        ),
        (
            "lan",
            "tcp 10.0.0.5:1234 > 192.0.2.7:80 fin,psh,urg",
            "tcp_bad_flags: no rule",
        ),
        (
            "lan",
            "icmp 10.0.0.5 > 192.0.2.7 echo-reply id=7",
            "no_session: no rule",
        ),
        (
            "lan",
            "icmp 10.0.0.5 > 192.0.2.7 3/3",
            "icmp_error_unrelated: layer 2",
        ),
        (
            "lan",
            "icmpv6 2001:db8::5 > 2001:db8:1::7 packet-too-big",
            "icmp_error_unrelated: layer 2",
        ),
    ] {
        let mut node = Node::new(RULES);
        assert_eq!(node.send(port, packet), verdict, "{packet} from {port}");
        let made = u32::from(verdict.contains("new session"));
        assert_eq!(node.engine.table().len(), made, "{packet} from {port}");
        assert_eq!(
            node.originated.len(),
            usize::from(verdict.contains("no-smtp")),
            "{packet} from {port}"
        );
    }
}

#[test]
fn an_allowed_packet_changes_exactly_this() {
    let mut node = Node::new(RULES);
    node.send("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn");
    node.counted(&[
        ("received", 1),
        ("forwarded", 1),
        ("sessions_created", 1),
        ("lan-out sessions", 1),
        ("lan-out packets", 1),
        ("lan-out bytes", 40),
    ]);
    assert_eq!(
        node.sessions(),
        ["tcp 10.0.0.5:1234 > 192.0.2.7:80 syn_sent by lan-out lan>wan packets [1, 0] bytes [40, 0]"]
    );
}

#[test]
fn refused_packets_change_exactly_this() {
    let mut node = Node::new(RULES);
    node.send("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:23 syn");
    node.counted(&[
        ("received", 1),
        ("policy", 1),
        ("no-telnet packets", 1),
        ("no-telnet bytes", 40),
    ]);
    let mut node = Node::new(RULES);
    node.send("lan", "udp 10.0.0.5:1234 > 192.0.2.7:25 len=12");
    node.counted(&[
        ("received", 1),
        ("policy", 1),
        ("originated", 1),
        ("no-smtp packets", 1),
        ("no-smtp bytes", 40),
    ]);
    let mut node = Node::new(RULES);
    node.send("lan", "udp 10.0.0.5:1234 > 192.0.2.7:54");
    node.counted(&[
        ("received", 1),
        ("policy", 1),
        ("no rule packets", 1),
        ("no rule bytes", 28),
    ]);
    let mut node = Node::new(RULES);
    node.send("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 ack");
    node.counted(&[("received", 1), ("no_session", 1)]);
}

#[test]
fn replies_pass_without_a_rule_of_their_own() {
    for (opening, reply, session) in [
        (
            "udp 10.0.0.5:1234 > 192.0.2.7:53 len=10",
            "udp 192.0.2.7:53 > 10.0.0.5:1234 len=20",
            "udp 10.0.0.5:1234 > 192.0.2.7:53 udp_replied by lan-out lan>wan packets [1, 1] bytes [38, 48]",
        ),
        (
            "icmp 10.0.0.5 > 192.0.2.7 echo-request id=7",
            "icmp 192.0.2.7 > 10.0.0.5 echo-reply id=7",
            "icmp 10.0.0.5:7 > 192.0.2.7:7 icmp by lan-out lan>wan packets [1, 1] bytes [28, 28]",
        ),
        (
            "icmpv6 2001:db8::5 > 2001:db8:1::7 echo-request id=0",
            "icmpv6 2001:db8:1::7 > 2001:db8::5 echo-reply id=0",
            "icmpv6 2001:db8::5:0 > 2001:db8:1::7:0 icmp by lan-out lan>wan packets [1, 1] bytes [48, 48]",
        ),
        (
            "proto/47 10.0.0.5 > 192.0.2.7 len=20",
            "proto/47 192.0.2.7 > 10.0.0.5 len=4",
            "proto/47 10.0.0.5 > 192.0.2.7 other_replied by lan-out lan>wan packets [1, 1] bytes [40, 24]",
        ),
    ] {
        let mut node = Node::new(RULES);
        assert!(
            node.send("wan", reply).ends_with("no rule"),
            "unasked for: {reply}"
        );
        assert_eq!(node.send("lan", opening), "to wan: new session by lan-out");
        assert_eq!(node.send("wan", reply), "to lan: session");
        assert_eq!(node.sessions(), [session]);
        // Nobody else's reply: another end, another port.
        let other = reply
            .replace("192.0.2.7", "192.0.2.8")
            .replace("2001:db8:1::7", "2001:db8:1::8");
        assert!(node.send("wan", &other).ends_with("no rule"), "{other}");
    }
}

#[test]
fn an_echo_session_lets_no_request_of_the_other_end_in() {
    for (request, reply, reverse) in [
        (
            "icmp 10.0.0.5 > 192.0.2.7 echo-request id=1",
            "icmp 192.0.2.7 > 10.0.0.5 echo-reply id=1",
            "icmp 192.0.2.7 > 10.0.0.5 echo-request id=1",
        ),
        (
            "icmpv6 2001:db8::5 > 2001:db8:1::7 echo-request id=1",
            "icmpv6 2001:db8:1::7 > 2001:db8::5 echo-reply id=1",
            "icmpv6 2001:db8:1::7 > 2001:db8::5 echo-request id=1",
        ),
    ] {
        let mut node = Node::new(RULES);
        node.send("lan", request);
        assert_eq!(node.send("wan", reply), "to lan: session");
        assert_eq!(
            node.send("wan", reverse),
            "policy: no rule",
            "the other end may not ping"
        );
        // And the opener cannot answer what was never asked.
        let unasked = request.replace("echo-request", "echo-reply");
        assert_eq!(node.send("lan", &unasked), "no_session: no rule");
        assert_eq!(node.sessions().len(), 1);
    }
}

#[test]
fn two_hosts_may_ping_each_other_with_the_same_identifier() {
    // Windows always uses identifier 1.
    let mut node =
        Node::new("[[rule]]\nname = \"ping\"\nservice = [\"icmp/echo-request\"]\naction = \"allow\"\n");
    let (a, b) = ("10.0.0.5", "192.0.2.7");
    assert_eq!(
        node.send("lan", &format!("icmp {a} > {b} echo-request id=1")),
        "to wan: new session by ping"
    );
    assert_eq!(
        node.send("wan", &format!("icmp {b} > {a} echo-request id=1")),
        "to lan: new session by ping"
    );
    assert_eq!(
        node.send("wan", &format!("icmp {b} > {a} echo-reply id=1")),
        "to lan: session"
    );
    assert_eq!(
        node.send("lan", &format!("icmp {a} > {b} echo-reply id=1")),
        "to wan: session"
    );
    assert_eq!(node.sessions().len(), 2);
}

#[test]
fn flows_that_differ_in_anything_are_different_sessions() {
    let mut node = Node::new(crate::node::ALLOW_ALL);
    let packets = [
        "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn",
        "tcp 10.0.0.5:1235 > 192.0.2.7:80 syn",
        "tcp 10.0.0.5:1234 > 192.0.2.7:81 syn",
        "tcp 10.0.0.6:1234 > 192.0.2.7:80 syn",
        "tcp 10.0.0.5:1234 > 192.0.2.8:80 syn",
        "tcp 10.0.0.5:80 > 192.0.2.7:1234 syn",
        "udp 10.0.0.5:1234 > 192.0.2.7:80",
        "tcp 10.0.0.5:1234 > 192.0.2.7:80 vlan=5 syn",
        "tcp 10.0.0.5:1234 > 192.0.2.7:80 vlan=5 vlan=6 syn",
        "tcp [2001:db8::5]:1234 > [2001:db8::7]:80 syn",
        "icmp 10.0.0.5 > 192.0.2.7 echo-request id=0",
        "icmp 10.0.0.5 > 192.0.2.7 echo-request id=1",
        "icmp 10.0.0.5 > 192.0.2.7 timestamp-request len=12",
        "proto/47 10.0.0.5 > 192.0.2.7",
        "proto/50 10.0.0.5 > 192.0.2.7",
    ];
    for (sent, packet) in packets.iter().enumerate() {
        assert_eq!(node.send("lan", packet), "to wan: new session by all", "{packet}");
        assert_eq!(node.engine.table().len() as usize, sent + 1);
    }
    for packet in packets {
        assert_eq!(node.send("lan", packet), "to wan: session", "{packet}");
    }
}

#[test]
fn a_rule_remembers_its_last_packet() {
    let mut node = Node::new(RULES);
    let last_hit = |node: &Node, id: usize| node.engine.rules()[id].last_hit;
    assert_eq!(last_hit(&node, 2), Nanos(0), "never");
    node.send("lan", "udp 10.0.0.5:1234 > 192.0.2.7:53");
    let opened = node.now;
    node.wait_secs(5);
    node.send("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:23 syn");
    assert_eq!((last_hit(&node, 2), last_hit(&node, 0)), (opened, node.now));
    node.wait_secs(5);
    node.send("wan", "udp 192.0.2.7:53 > 10.0.0.5:1234");
    assert_eq!(last_hit(&node, 2), node.now, "a packet of its session");
    // Nothing that it does not decide.
    node.wait_secs(5);
    node.send("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 ack");
    assert!(node.rules().iter().all(|rule| rule.last_hit < node.now));
}

#[test]
fn disabled_rules_are_not_there() {
    let off = "[[rule]]\nname = \"all\"\naction = \"allow\"\nenabled = false\n";
    let mut node = Node::new(off);
    assert_eq!(node.send("lan", "udp 10.0.0.5:1 > 10.0.0.6:2"), "policy: no rule");
}
