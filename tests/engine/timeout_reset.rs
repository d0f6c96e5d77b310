//! `reset_on_timeout`: who is reset when a session idles out, by which numbers, which way, and how fast.

use haechi::base::Nanos;
use haechi::packet::VecPacket;

use crate::checked::checked_tcp;
use crate::frames::with;
use crate::node::{Node, frame};

const RULES: &str = "[[rule]]\nname = \"web\"\nfrom = \"lan\"\naction = \"allow\"\nreset_on_timeout = true\n\
                     timeouts = { tcp_established = \"60s\", tcp_closing = \"60s\", tcp_syn_received = \"60s\" }\n";
const IPV4: [&str; 2] = ["10.0.0.5:1234", "192.0.2.7:80"];
const IPV6: [&str; 2] = ["[2001:db8::5]:1234", "[2001:db8::7]:80"];
/// A packet of the client's (`true`) or the server's.
type Step = (bool, &'static str);
const HANDSHAKE: [Step; 3] = [
    (true, "syn seq=100"),
    (false, "syn,ack seq=500 ack=101"),
    (true, "seq=101 ack=501"),
];

/// The client's packets come in by `lan`, the server's by `wan`.
fn play(node: &mut Node, [client, server]: [&str; 2], tags: &str, packets: &[Step]) {
    for (from_client, packet) in packets {
        let verdict = if *from_client {
            node.send("lan", &format!("tcp {client} > {server} {packet} {tags}"))
        } else {
            node.send("wan", &format!("tcp {server} > {client} {packet} {tags}"))
        };
        assert!(verdict.starts_with("to "), "{packet}: {verdict}");
    }
}

/// What was sent when all time-outs have passed: the port it left by, source port, sequence and acknowledgement number.
fn resets(node: &mut Node) -> Vec<(String, u16, u32, Option<u32>)> {
    node.wait_secs(61);
    let mut sent: Vec<_> = std::mem::take(&mut node.originated)
        .into_iter()
        .map(|(port, frame)| {
            let tcp = checked_tcp(&frame);
            assert!(tcp.rst && !tcp.syn && !tcp.fin && !tcp.psh, "{tcp:?}");
            let ack = tcp.ack.then_some(tcp.acknowledgment_number);
            (port, tcp.source_port, tcp.sequence_number, ack)
        })
        .collect();
    sent.sort();
    sent
}

/// To each end the number that it acknowledged last, and the acknowledgement that the other end sent last.
fn both(client_expects: u32, server_expects: u32) -> Vec<(String, u16, u32, Option<u32>)> {
    vec![
        (String::from("lan"), 80, client_expects, Some(server_expects)),
        (String::from("wan"), 1234, server_expects, Some(client_expects)),
    ]
}

#[test]
fn both_ends_are_reset_with_the_numbers_that_they_expect() {
    for (ends, tags) in [(IPV4, ""), (IPV6, ""), (IPV4, "vlan=5 vlan=6"), (IPV6, "vlan=7")] {
        let mut node = Node::new(RULES);
        play(&mut node, ends, tags, &HANDSHAKE);
        play(
            &mut node,
            ends,
            tags,
            &[
                (true, "seq=101 ack=501 len=20"),
                (false, "seq=501 ack=121 len=1000"),
                (true, "seq=121 ack=1501"),
            ],
        );
        assert_eq!(resets(&mut node), both(1501, 121), "{ends:?} {tags}");
        assert_eq!(node.sessions(), [""; 0]);
        let counters = node.counters();
        assert_eq!((counters["originated"], counters["timeout_resets"]), (2, 2));
        assert_eq!(counters.get("timeout_resets_missed"), None);
    }
}

#[test]
fn a_reset_goes_the_way_of_the_last_packets() {
    let mut node = Node::new(RULES);
    play(&mut node, IPV4, "vlan=5 vlan=6", &HANDSHAKE);
    // The server's gateway failed over to another one.
    let [client, server] = IPV4;
    let mut last = [
        frame(&format!("tcp {client} > {server} seq=101 ack=501 vlan=5 vlan=6")),
        frame(&format!("tcp {server} > {client} seq=501 ack=101 vlan=5 vlan=6")),
    ];
    last[0] = with(last[0].clone(), 0, &[2, 0, 0, 0, 0, 9]);
    last[1] = with(last[1].clone(), 6, &[2, 0, 0, 0, 0, 9]);
    // Priority and drop eligibility of the last packet, too.
    last[1][14] |= 0xe0;
    assert_eq!(node.frame("lan", &last[0]), "to wan: session");
    assert_eq!(node.frame("wan", &last[1]), "to lan: session");
    node.wait_secs(61);
    node.originated.sort();
    let sent: Vec<_> = node
        .originated
        .iter()
        .map(|(port, f)| (&port[..], &f[..22]))
        .collect();
    assert_eq!(sent, [("lan", &last[1][..22]), ("wan", &last[0][..22])]);
}

#[test]
fn only_connections_that_both_ends_believe_in_are_reset() {
    let closed = [
        (true, "fin seq=101 ack=501"),
        (false, "fin seq=501 ack=102"),
        (true, "seq=102 ack=502"),
    ];
    let cases: [(&str, usize, &[Step]); 6] = [
        ("a SYN alone", 0, &HANDSHAKE[..1]),
        ("time_wait", 0, &[&HANDSHAKE[..], &closed].concat()),
        ("reset", 0, &[&HANDSHAKE[..], &[(true, "rst seq=101")]].concat()),
        (
            "half closed",
            2,
            &[&HANDSHAKE[..], &closed[..1], &[(false, "seq=501 ack=102")]].concat(),
        ),
        // The client has acknowledged nothing yet: it is told nothing that it would not believe.
        ("half open", 1, &HANDSHAKE[..2]),
        ("established", 2, &HANDSHAKE),
    ];
    for (name, expected, packets) in cases {
        let mut node = Node::new(RULES);
        play(&mut node, IPV4, "", packets);
        let sent = resets(&mut node);
        assert_eq!(sent.len(), expected, "{name}: {sent:?}");
        assert_eq!(node.sessions(), [""; 0], "{name}");
        let missed = node.counters().get("timeout_resets_missed").copied().unwrap_or(0);
        assert_eq!(missed, if name == "half open" { 1 } else { 0 }, "{name}");
    }
    // Nor anything but TCP.
    let mut node = Node::new(&RULES.replace("tcp_established", "udp_replied"));
    node.send("lan", "udp 10.0.0.5:1 > 192.0.2.7:53");
    node.send("wan", "udp 192.0.2.7:53 > 10.0.0.5:1");
    assert_eq!(resets(&mut node), []);
}

#[test]
fn a_session_picked_up_in_mid_stream_resets_the_end_whose_numbers_it_saw() {
    let mut node = Node::new(&format!("{RULES}pickup = true\n"));
    play(&mut node, IPV4, "", &[(true, "seq=7000 ack=9000 len=10")]);
    // The way to it is the way back of its own packet.
    let frame = frame(&format!("tcp {} > {} ack", IPV4[0], IPV4[1]));
    node.wait_secs(61);
    let [(port, reset)] = &node.originated[..] else {
        panic!("one reset: {:?}", node.originated);
    };
    assert_eq!(
        (&port[..], &reset[..6], &reset[6..12]),
        ("lan", &frame[6..12], &frame[..6])
    );
    let tcp = checked_tcp(reset);
    assert_eq!((tcp.sequence_number, tcp.ack), (9000, false));
    let counters = node.counters();
    assert_eq!(
        (counters["timeout_resets"], counters["timeout_resets_missed"]),
        (1, 1)
    );
}

#[test]
fn rules_decide_over_the_node_and_an_apply_reaches_live_sessions() {
    let rule = RULES.replace("reset_on_timeout = true\n", "");
    let on = format!("{rule}[conntrack]\nreset_on_timeout = true\n");
    let off = format!("{rule}reset_on_timeout = false\n[conntrack]\nreset_on_timeout = true\n");
    for (rules, expected) in [(&rule, 0), (&on, 2), (&off, 0)] {
        let mut node = Node::new(rules);
        play(&mut node, IPV4, "", &HANDSHAKE);
        assert_eq!(resets(&mut node).len(), expected, "{rules}");
    }
    // From the first packet after the apply on the way is known.
    for (before, after, expected) in [(&rule, &on, 2), (&on, &rule, 0)] {
        let mut node = Node::new(before);
        play(&mut node, IPV4, "", &HANDSHAKE);
        node.apply(after);
        play(&mut node, IPV4, "", &[(true, "seq=101 ack=501")]);
        assert_eq!(resets(&mut node).len(), expected);
    }
}

/// A slot's next session does not inherit the way of the one before it.
#[test]
fn nothing_is_left_of_the_session_before() {
    let mut node = Node::with_table(RULES, 64);
    play(&mut node, IPV4, "", &HANDSHAKE);
    assert_eq!(resets(&mut node).len(), 2);
    play(
        &mut node,
        ["10.0.0.6:1", "192.0.2.7:80"],
        "vlan=9",
        &HANDSHAKE[..2],
    );
    node.wait_secs(61);
    let [(port, reset)] = &node.originated[..] else {
        panic!("one reset");
    };
    assert_eq!(port, "wan");
    assert_eq!(reset[12..16], [0x81, 0, 0, 9], "in its own VLAN, by the way back");
}

fn opened(node: &mut Node, count: u32) {
    for n in 0..count {
        let client = format!("10.{}.{}.{}:1234", n >> 16, (n >> 8) & 255, n & 255);
        play(node, [&client, IPV4[1]], "", &HANDSHAKE);
    }
}

#[test]
fn the_resets_of_a_mass_expiry_are_paced() {
    let mut node = Node::new(RULES);
    opened(&mut node, 900);
    let ended = node.wait_secs(61);
    assert_eq!((ended, node.originated.len()), (16, 32), "one burst");
    assert_eq!(node.sessions().len(), 884, "the others wait in the table");
    // 20,000 sessions a second.
    for step in 1..=20 {
        assert_eq!(node.wait(Nanos(500_000)), 10, "step {step}");
    }
    // One of them is still alive.
    let waiting = node
        .sessions()
        .into_iter()
        .filter(|s| s.contains("established"))
        .collect::<Vec<_>>();
    assert_eq!(waiting.len(), 684);
    let client = waiting[300].split(' ').nth(1).unwrap().to_owned();
    play(&mut node, [&client, IPV4[1]], "", &[(true, "seq=101 ack=501")]);
    for _ in 0..80 {
        node.wait(Nanos(500_000));
    }
    let left = node.sessions();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].contains(&client));
    assert_eq!(node.originated.len(), 2 * 899);
    // It idles anew, and no longer than others.
    assert_eq!(node.wait_secs(59), 0);
    assert_eq!(node.wait_secs(2), 1);
    assert_eq!(node.counters()["timeout_resets"], 1800);
}

/// More sessions than can wait at once: the rest is looked at again later, and every one is reset.
#[test]
fn more_sessions_than_can_wait_are_all_reset() {
    const SESSIONS: u32 = 70_000;
    let rules = format!("{RULES}[conntrack]\nverify_checksums = false\n");
    let mut node = Node::with_table(&rules, SESSIONS);
    let [_, server] = IPV4;
    for half in ["10.0.0.5", "10.0.0.6"] {
        let packets = HANDSHAKE.map(|(from_client, packet)| match from_client {
            true => ("lan", 34, frame(&format!("tcp {half}:1 > {server} {packet}"))),
            false => ("wan", 36, frame(&format!("tcp {server} > {half}:1 {packet}"))),
        });
        for first in (0..SESSIONS / 2).step_by(20) {
            let burst: Vec<_> = (first..first + 20)
                .flat_map(|n| {
                    let port = (n as u16).to_be_bytes();
                    packets
                        .each_ref()
                        .map(|(ingress, at, f)| (*ingress, VecPacket::new(with(f.clone(), *at, &port))))
                })
                .collect();
            node.burst(&burst);
            node.forwarded.clear();
        }
    }
    assert_eq!(node.engine.table().len(), SESSIONS);
    node.wait_secs(61);
    let start = node.now;
    while !node.engine.table().is_empty() {
        node.wait(Nanos(800_000));
        node.originated.clear();
        let left = node.engine.table().len();
        assert!(node.now.since(start) < Nanos::from_secs(10), "{left} left");
    }
    assert_eq!(node.counters()["timeout_resets"], 2 * u64::from(SESSIONS));
}

#[test]
fn without_buffers_the_session_ends_all_the_same() {
    let mut node = Node::new(RULES);
    play(&mut node, IPV4, "", &HANDSHAKE);
    node.buffers = Some(1);
    node.wait_secs(61);
    assert_eq!(node.sessions(), [""; 0]);
    let counters = node.counters();
    assert_eq!(
        (counters["timeout_resets"], counters["timeout_resets_missed"]),
        (1, 1)
    );
}

/// Packets of the steady path, too, leave a trace of their way: fragments of bursts as a worker has them.
#[test]
fn packets_of_a_burst_are_noted() {
    let mut node = Node::new(RULES);
    play(&mut node, IPV4, "", &HANDSHAKE);
    let data = frame(&format!("tcp {} > {} seq=501 ack=101 len=100", IPV4[1], IPV4[0]));
    let moved = with(data, 6, &[2, 0, 0, 0, 0, 7]);
    let burst: Vec<_> = (0..9).map(|_| ("wan", VecPacket::new(moved.clone()))).collect();
    node.burst(&burst);
    node.wait_secs(61);
    let to_client = node.originated.iter().find(|(port, _)| port == "lan").unwrap();
    assert_eq!(to_client.1[..12], moved[..12]);
}
