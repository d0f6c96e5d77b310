//! Addresses that no packet on a link can have.

use crate::node::{ALLOW_ALL, Node};

#[test]
fn sources_that_nobody_has_are_dropped() {
    let mut node = Node::new(ALLOW_ALL);
    for packet in [
        "tcp 10.0.0.5:80 > 10.0.0.5:80 syn",
        "tcp 10.0.0.5:1 > 10.0.0.5:2 syn",
        "udp 127.0.0.1:1 > 10.0.0.6:2",
        "udp 10.0.0.5:1 > 127.0.0.1:2",
        "icmp 127.255.0.9 > 10.0.0.6 echo-request",
        "udp 224.0.0.1:1 > 10.0.0.6:2",
        "udp 239.255.255.255:1 > 10.0.0.6:2",
        "udp 255.255.255.255:1 > 10.0.0.6:2",
        "udp 0.0.0.0:68 > 10.0.0.6:67",
        "udp 0.1.2.3:1 > 10.0.0.6:2",
        "udp 10.0.0.5:1 > 0.0.0.0:2",
        "tcp [2001:db8::5]:80 > [2001:db8::5]:80 syn",
        "udp [::1]:1 > [2001:db8::6]:2",
        "udp [2001:db8::5]:1 > [::1]:2",
        "udp [::]:1 > [2001:db8::6]:2",
        "udp [2001:db8::5]:1 > [::]:2",
        "udp [ff02::1]:1 > [2001:db8::6]:2",
    ] {
        node.changes(&[("received", 1), ("spoofed_source", 1)], |node| {
            assert_eq!(node.send("lan", packet), "spoofed_source: no rule", "{packet}");
        });
    }
    assert_eq!(node.sessions(), [""; 0]);
    assert!(node.originated.is_empty());
}

#[test]
fn sources_that_somebody_has_are_the_rules_business() {
    for packet in [
        // DHCP, IGMP from a host without an address, multicast, the reserved class E (which networks use).
        "udp 0.0.0.0:68 > 255.255.255.255:67",
        "proto/2 0.0.0.0 > 224.0.0.22",
        "udp 10.0.0.5:5353 > 224.0.0.251:5353",
        "udp 10.0.0.5:1 > 255.255.255.255:2",
        "udp 240.0.0.1:1 > 10.0.0.6:2",
        "udp 169.254.1.1:1 > 10.0.0.6:2",
        "udp 128.0.0.1:1 > 223.255.255.255:2",
        "udp [fe80::5]:546 > [ff02::1:2]:547",
        "udp [2001:db8::5]:1 > [2001:db8::6]:1",
    ] {
        let mut node = Node::new(ALLOW_ALL);
        assert_eq!(node.send("lan", packet), "to wan: new session by all", "{packet}");
        let mut node = Node::new("");
        assert_eq!(node.send("lan", packet), "policy: no rule", "{packet}");
    }
}

/// A reject rule does not answer to an address that nobody has.
#[test]
fn nobody_is_answered() {
    let mut node = Node::new("[[rule]]\nname = \"no\"\naction = \"reject\"\n");
    assert_eq!(
        node.send("lan", "tcp 127.0.0.1:1 > 10.0.0.6:2 syn"),
        "spoofed_source: no rule"
    );
    assert!(node.originated.is_empty());
}
