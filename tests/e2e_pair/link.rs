//! What crosses the link, what nodes say that differ, and what a standby does.

use std::net::IpAddr;

use super::lab::duo::Duo;
use super::lab::{Capture, wait_for};
use super::{ALONE_SOON, Connections, pair};

/// No packet of the link has it by chance.
const RULE: &str = "a-rule-with-a-telling-name";

fn holds(frame: &[u8], needle: &[u8]) -> bool {
    frame.windows(needle.len()).any(|window| window == needle)
}

/// What the sessions between client and server consist of.
fn needles(duo: &Duo, ports: &[[u16; 2]]) -> Vec<Vec<u8>> {
    let mut needles = vec![RULE.as_bytes().to_vec()];
    for host in [&duo.client, &duo.server] {
        for address in [host.v4, host.v6] {
            needles.push(match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            });
        }
    }
    // Of two bytes there are some in any ciphertext.
    for [from, to] in ports {
        needles.push([from.to_be_bytes(), to.to_be_bytes()].concat());
        needles.push([from.to_le_bytes(), to.to_le_bytes()].concat());
    }
    needles
}

#[test]
fn the_link_carries_no_plain_text() {
    let mut duo = pair();
    duo.rules = format!("[[rule]]\nname = \"{RULE}\"\naction = \"allow\"\n");
    let mut link = Capture::start(&duo.nodes[1].ns, "ha0", "udp port 7700");
    let mut data = Capture::start(&duo.server.ns, "e0", "tcp port 8080");
    duo.start();
    let listener = duo.server.listen(8080);
    let connect = |to| {
        let near = duo.client.connect(to, 8080);
        let far = listener.accept().unwrap().0;
        super::lab::traffic::echo(&near, &far);
        (near, far)
    };
    let connections = [connect(duo.server.v4), connect(duo.server.v6)];
    let ports = connections
        .each_ref()
        .map(|(near, _)| [near.local_addr().unwrap().port(), 8080]);
    let before = duo.nodes[1].wait_ha("in possession of both", |ha| {
        ha["sync"]["replicas"].as_u64() >= Some(2)
    });
    wait_for("another proof has crossed", || {
        let ha = duo.nodes[1].ha();
        let number = |ha: &serde_json::Value| ha["sync"]["datagrams_received"].as_u64().unwrap();
        if number(&ha) > number(&before) + 20 {
            Ok(())
        } else {
            Err(ha.to_string())
        }
    });
    let (link, data) = (link.drain(), data.drain());
    let needles = needles(&duo, &ports);
    // The name crosses no port, so it is looked for in what it was made of.
    for needle in &needles[1..needles.len()] {
        if needle[2..] == 8080_u16.to_le_bytes() {
            continue;
        }
        assert!(
            data.iter().any(|frame| holds(frame, needle)),
            "{needle:02x?} crosses the ports"
        );
    }
    assert!(link.len() > 20, "{} frames", link.len());
    for frame in &link {
        // Behind Ethernet, IPv4 and UDP.
        let payload = &frame[42..];
        for needle in &needles {
            assert!(!holds(payload, needle), "{needle:02x?} in {payload:02x?}");
        }
    }
    println!("{} datagrams looked at", link.len());
}

#[test]
fn a_standby_drops_everything_and_makes_nothing() {
    let mut duo = pair();
    // Both nodes see everything.
    duo.switches_remember(0);
    duo.start();
    let connections = Connections::open(&duo, 5);
    connections.are_known_to(&duo.nodes[1]);
    duo.client.ping(duo.server.v4, 5);
    // One that it knows nothing of, to a port where nobody listens: an ICMP error comes back.
    let socket = duo.client.udp(0);
    socket.send_to(b"?", (duo.server.v4, 9)).unwrap();
    let standby = &duo.nodes[1];
    let counters = standby.api().counters();
    assert!(counters.drop_of("ha_standby") > 20, "{counters:?}");
    assert_eq!(counters.dropped(), counters.drop_of("ha_standby"), "{counters:?}");
    assert_eq!(
        (
            counters.tx_packets,
            counters.originated,
            counters.sessions_created
        ),
        (0, 0, 0),
        "{counters:?}"
    );
    let sessions = standby.api().sessions("");
    assert!(
        sessions.len() >= 6 && sessions.iter().all(|session| session["owner"] == "peer"),
        "{sessions:?}"
    );
    let (ok, text) = standby.try_cli("sessions kill protocol=tcp");
    assert!(!ok, "{text}");
    println!("{text}");
    connections.are_well();
    // At the one that leads they end, and the standby hears of it.
    let (ok, text) = duo.nodes[0].try_cli("sessions kill protocol=tcp");
    assert!(ok, "{text}");
    wait_for("they are gone at the standby, too", || {
        match standby.api().sessions("protocol=tcp").len() {
            0 => Ok(()),
            count => Err(format!("{count} left")),
        }
    });
}

/// The node says what differs, and which part of the pair's work it therefore does not do.
#[test]
fn nodes_that_differ_say_so() {
    let mut duo = pair();
    duo.ha = ALONE_SOON.to_owned();
    duo.spawn(0);
    assert_eq!(duo.nodes[0].wait_ready(), "ready (alone)");
    let connections = Connections::open(&duo, 5);

    // Another policy: sessions are synchronised all the same.
    duo.own[1] = "[[rule]]\nname = \"another\"\naction = \"drop\"\n".to_owned();
    duo.spawn(1);
    assert_eq!(duo.nodes[1].wait_ready(), "ready");
    connections.are_known_to(&duo.nodes[1]);
    for node in &duo.nodes {
        // (What is still being sent would be said first.)
        node.wait_ha("in sync but for the policy", |ha| {
            ha["reasons"].as_array().unwrap().len() == 1
        });
        let (ok, text) = node.try_cli("show ha");
        assert!(
            !ok && text.starts_with("degraded: the nodes have different policies"),
            "{text}"
        );
        assert!(
            log(node).contains("the nodes have different policies"),
            "{}",
            log(node)
        );
    }
    duo.nodes[1].stop();

    // Another layout: they are not.
    duo.own[1] = "[transparent]\nsession_scope = \"node\"\n".to_owned();
    duo.spawn(1);
    duo.nodes[1].wait_socket();
    for node in &duo.nodes {
        node.wait_ha("incompatible", |ha| ha["sync"]["state"] == "incompatible");
        let (ok, text) = node.try_cli("show ha");
        assert!(
            !ok && text.starts_with("degraded: the nodes differ in mode, ports or session scope"),
            "{text}"
        );
        assert!(
            log(node).contains("the nodes differ in mode, ports or session scope"),
            "{}",
            log(node)
        );
    }
    assert_eq!(duo.roles(), ["leader", "standby"]);
    assert!(duo.nodes[1].api().sessions("").is_empty());
    duo.nodes[1].stop();

    // Another key: they do not hear each other.
    duo.own[1].clear();
    duo.new_key(1);
    let refused = duo.nodes[0].ha()["refused"].clone();
    duo.spawn(1);
    duo.nodes[1].wait_socket();
    for node in &duo.nodes {
        let ha = node.wait_ha("refusing", |ha| {
            ha["refused"] != refused && ha["refused"]["forged"].as_u64() > Some(3)
        });
        assert_eq!(ha["peer"]["alive"], false, "{ha}");
    }
    connections.are_well();
    assert!(duo.nodes[1].api().sessions("").is_empty());
    for node in &duo.nodes {
        node.wait_ha("alone", |ha| ha["health"] == "degraded: the peer is not heard");
    }
}

fn log(node: &super::lab::duo::Twin) -> String {
    node.process.as_ref().unwrap().stderr()
}
