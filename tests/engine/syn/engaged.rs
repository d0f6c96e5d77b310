//! When cookies are sent, for what, and what they stand beside.

use haechi::base::Nanos;

use super::both_ends::*;
use crate::node::{ALLOW_ALL, Node, frame};
use crate::tcp::{ACK, End, RST, SYN, Tcp};

#[test]
fn half_open_sessions_engage_and_disengage_cookies() {
    let rules = "[[rule]]\nname = \"web\"\nfrom = \"lan\"\naction = \"allow\"\nsyn_protection = \"auto\"\n\
        [conntrack]\nsyn_cookie_start = \"25%\"\nsyn_cookie_stop = \"15%\"\n";
    let mut node = Node::with_table(rules, 100);
    node.rewrites = true;
    let numbered = |port: u16| Tcp { port, ..syn() };
    for port in 1000..1025 {
        assert!(!node.engine.syn_cookies_engaged());
        assert_eq!(send(&mut node, &numbered(port)), "to wan: new session by web");
    }
    // 25 of 100 are half open.
    let answered = answer(&mut node, &numbered(2000));
    assert!(node.engine.syn_cookies_engaged());
    assert_eq!(node.sessions().len(), 25);
    // Those that are half open go on as they are; 11 come to an end, 14 are left.
    for port in 1000..1010 {
        node.send(
            "wan",
            &format!("tcp 192.0.2.7:80 > 10.0.0.5:{port} rst seq=0 ack=4294967281"),
        );
    }
    node.forwarded.clear();
    answer(&mut node, &numbered(2001));
    node.send(
        "wan",
        "tcp 192.0.2.7:80 > 10.0.0.5:1010 rst,ack seq=0 ack=4294967281",
    );
    node.forwarded.clear();
    let half_open = node.engine.table().half_open();
    assert!(half_open >= 14, "{half_open}");
    for port in 1011..1011 + (half_open as u16).saturating_sub(14) {
        let reset = Tcp {
            from: End::Server,
            port,
            flags: RST | ACK,
            ack: ISN.wrapping_add(1),
            ..Tcp::default()
        };
        assert_eq!(send(&mut node, &reset), "to lan: session");
    }
    node.forwarded.clear();
    assert_eq!(node.engine.table().half_open(), 14);
    node.wait(Nanos::from_millis(1));
    assert!(!node.engine.syn_cookies_engaged(), "upkeep sees it, too");
    assert_eq!(send(&mut node, &numbered(2002)), "to wan: new session by web");
    node.forwarded.clear();
    // A cookie that was sent before is still good.
    assert_eq!(send(&mut node, &ack(&answered)), "to wan: new session by web");
    assert_eq!(forwarded(&mut node).1.flags, SYN);
}

/// What the rules refuse is refused as ever, and what is no TCP, or no SYN that could be answered, passes as ever.
#[test]
fn only_allowed_connections_are_answered() {
    let mut node = Node::new(&format!(
        "[[rule]]\nname = \"no\"\nservice = [\"tcp/81\"]\naction = \"reject\"\n{ALWAYS}"
    ));
    assert_eq!(
        node.send("lan", "tcp 10.0.0.5:1 > 192.0.2.7:81 syn"),
        "policy: rule no"
    );
    assert_eq!(
        node.send("lan", "tcp 10.0.0.5:1 > 192.0.2.7:81 ack"),
        "policy: rule no"
    );
    assert_eq!(
        node.send("dmz", "tcp 10.0.0.5:1 > 192.0.2.7:80 syn"),
        "policy: no rule"
    );
    assert_eq!(
        node.send("lan", "udp 10.0.0.5:1 > 192.0.2.7:53"),
        "to wan: new session by web"
    );
    assert_eq!(
        node.send("lan", "tcp 10.0.0.5:1 > 192.0.2.7:80 ack"),
        "no_session: no rule"
    );
    let mut group = frame("tcp 10.0.0.5:1 > 192.0.2.7:80 syn");
    group[0] |= 1;
    assert_eq!(node.frame("lan", &group), "to wan: new session by web");
    assert_eq!(node.counters().get("syn_cookies_sent"), None);
}

/// Where every connection has to begin with a cookie, none is picked up: a flood of ACKs takes no session either.
#[test]
fn nothing_is_picked_up_beside_cookies() {
    let mut node = node(&format!("{ALWAYS}pickup = true\n"));
    let early = node.send("lan", "tcp 10.0.0.5:7 > 192.0.2.7:80 seq=1 ack=1 len=100");
    assert_eq!(early, "no_session: no rule");
    let answer = answer(&mut node, &syn());
    assert_eq!(
        send(
            &mut node,
            &Tcp {
                port: 1235,
                ..ack(&answer)
            }
        ),
        "syn_cookie_invalid: rule web"
    );
    assert_eq!(node.sessions(), [""; 0]);
    assert_eq!(send(&mut node, &ack(&answer)), "to wan: new session by web");
    assert_eq!(forwarded(&mut node).1.flags, SYN);
}

#[test]
fn a_full_table_refuses_a_good_cookie() {
    let mut node = Node::with_table(&format!("{ALWAYS}{ALLOW_ALL}"), 1);
    node.rewrites = true;
    assert_eq!(
        node.send("dmz", "udp 10.9.0.5:1 > 192.0.2.7:53"),
        "to net: new session by all"
    );
    // A session with packets both ways gives way to none.
    node.send("net", "udp 192.0.2.7:53 > 10.9.0.5:1");
    let answer = answer(&mut node, &syn());
    assert_eq!(send(&mut node, &ack(&answer)), "table_full: rule web");
}
