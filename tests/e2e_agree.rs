//! `explain --pcap` and a running node, fed the same random configurations and packets, agree packet by packet: the
//! verdict, the reason, the port, the bytes, and what the node makes in answer.
//!
//! `HAECHI_SEED` repeats a run, `HAECHI_CASES` sets the number of configurations.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lab::fragments::{Fragmented, is_fragment};
use lab::frames::{DOT1AD, DOT1Q, Ends, Random, tagged};
use lab::node::HAECHI;
use lab::{Config, Host, Lab, process};
use serde_json::Value;

const PACKETS: usize = 150;

const SERVICES: &[&str] = &[
    "tcp",
    "udp",
    "tcp/80",
    "tcp/1-1024",
    "udp/53",
    "udp/53",
    "icmp",
    "icmpv6",
    "icmp/echo-request",
    "icmpv6/128",
    "proto/47",
    "@web",
];
const ADDRESSES: &[&str] = &[
    "10.9.1.1",
    "10.9.1.0/30",
    "10.9.0.0/16",
    "fd09:1::/64",
    "fd09:1::2",
    "0.0.0.0/0",
    "@some",
];

fn list(random: &mut Random, choices: &[&str]) -> String {
    let words: Vec<_> = (0..=random.below(2))
        .map(|_| format!("{:?}", random.pick(choices)))
        .collect();
    format!("[{}]", words.join(", "))
}

fn random_config(random: &mut Random) -> Config {
    let mut rules = String::from(
        "[address_sets]\nsome = [\"10.9.1.2\", \"fd09:1::/65\"]\n[service_sets]\nweb = [\"tcp/80\", \"tcp/443\"]\n\
         [policy]\nreject_rate = \"1000000/s\"\n",
    );
    for n in 0..random.below(7) {
        writeln!(rules, "[[rule]]\nname = \"rule-{n}\"").unwrap();
        if random.chance(1, 2) {
            writeln!(rules, "from = {:?}", random.pick(&["lan", "wan", "any"])).unwrap();
        }
        if random.chance(1, 3) {
            writeln!(rules, "to = {:?}", random.pick(&["lan", "wan", "any"])).unwrap();
        }
        for key in ["source", "destination"] {
            if random.chance(1, 3) {
                writeln!(rules, "{key} = {}", list(random, ADDRESSES)).unwrap();
            }
        }
        if random.chance(2, 3) {
            writeln!(rules, "service = {}", list(random, SERVICES)).unwrap();
        } else if random.chance(1, 4) {
            writeln!(
                rules,
                "service = [\"tcp\", \"udp\"]\nsource_ports = [\"1000-1001\"]"
            )
            .unwrap();
        }
        writeln!(
            rules,
            "action = {:?}",
            random.pick(&["allow", "allow", "allow", "drop", "reject"])
        )
        .unwrap();
        if random.chance(1, 10) {
            rules.push_str("enabled = false\n");
        }
    }
    let transparent = format!(
        "non_ip = {:?}\nvlan = {:?}\nsession_scope = {:?}\n",
        random.pick(&["drop", "pass"]),
        random.pick(&["inspect", "inspect", "inspect", "drop", "pass"]),
        random.pick(&["pair-vlan", "pair", "node"]),
    );
    let conntrack = format!(
        "max_sessions = 16384\nverify_checksums = {}\n",
        random.chance(3, 4)
    );
    Config::new(&rules)
        .transparent(&transparent)
        .conntrack(&conntrack)
}

/// A random configuration without contradictions (an IPv4 source with an IPv6 destination, say, is an error).
fn accepted_config(random: &mut Random, lab: &Lab) -> Config {
    for _ in 0..200 {
        let config = random_config(random);
        let file = lab.file("candidate.toml", lab.render(&config));
        if Command::new(HAECHI)
            .arg("check")
            .arg(file)
            .output()
            .unwrap()
            .status
            .success()
        {
            return config;
        }
    }
    panic!("no random configuration is accepted");
}

/// Few addresses and ports, so that packets meet each other's sessions.
fn random_frame(random: &mut Random, here: &Host, there: &Host) -> Vec<u8> {
    let v6 = random.chance(1, 3);
    let mut ends = if v6 {
        Ends::v6(here, there)
    } else {
        Ends::v4(here, there)
    };
    if random.chance(1, 10) {
        ends = ends.ttl(1);
    }
    let ports = [1000, 1001, 53, 80];
    let (from, to) = (*random.pick(&ports), *random.pick(&ports));
    let flags = [2, 2, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x00, 0x06, 0x29];
    let mut frame = match random.below(10) {
        0..4 => ends.tcp(
            (from, to),
            *random.pick(&flags),
            random.below(3) as u32,
            random.below(3) as u32,
            b"data",
        ),
        4..7 => ends.udp(from, to, b"payload"),
        7 => ends.echo_request(random.below(3) as u16, 1, b"echo"),
        8 => ends.ethernet(
            *random.pick(&[0x0806, 0x88cc, 0x86dd, 0x0800, 0x0026]),
            &[0x11; 40],
        ),
        _ => echo_reply(&ends, random.below(3) as u16),
    };
    if random.chance(1, 4) {
        let tags = [
            vec![(DOT1Q, 7)],
            vec![(DOT1Q, 8)],
            vec![(DOT1AD, 7), (DOT1Q, 8)],
            vec![(DOT1Q, 1); 3],
        ];
        let chosen = random.below(tags.len());
        frame = tagged(&frame, &tags[chosen]);
    }
    if !random.chance(1, 6) {
        return frame;
    }
    // A fragment that came of it would wait for others.
    match random.mutate(&frame, 1514) {
        mutated if is_fragment(&mutated) => frame,
        mutated => mutated,
    }
}

/// A datagram in fragments: in order or not, maybe with one twice, or with one that overlaps. Nothing of it is left to wait.
fn random_fragments(random: &mut Random, here: &Host, there: &Host, id: u32) -> Vec<Vec<u8>> {
    let v6 = random.chance(1, 3);
    let ends = if v6 {
        Ends::v6(here, there)
    } else {
        Ends::v4(here, there)
    };
    let ports = [1000, 1001, 53, 80];
    let (from, to) = (*random.pick(&ports), *random.pick(&ports));
    let frame = match random.below(3) {
        0 => ends.tcp((from, to), 0x18, 1, 1, &[7; 90]),
        1 => ends.echo_request(random.below(3) as u16, 1, &[8; 90]),
        _ => ends.udp(from, to, &[9; 90]),
    };
    let cut = Fragmented::new(frame, id);
    let mut pieces = cut.pieces(*random.pick(&[24, 32, 64]));
    for last in (1..pieces.len()).rev() {
        pieces.swap(last, random.below(last + 1));
    }
    if random.chance(1, 4) {
        pieces.insert(1, pieces[0].clone());
    }
    if random.chance(1, 4) {
        let hostile = cut.piece(0, true, &[0x11; 88]);
        pieces.insert(pieces.len() - 1, hostile);
    }
    if random.chance(1, 3) {
        pieces = pieces.iter().map(|piece| tagged(piece, &[(DOT1Q, 7)])).collect();
    }
    pieces
}

fn echo_reply(ends: &Ends, id: u16) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(ends.mac[0], ends.mac[1]);
    let mut frame = Vec::new();
    match ends.ip {
        [std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)] => builder
            .ipv4(a.octets(), b.octets(), 64)
            .icmpv4_echo_reply(id, 1)
            .write(&mut frame, b"echo"),
        [std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)] => builder
            .ipv6(a.octets(), b.octets(), 64)
            .icmpv6_echo_reply(id, 1)
            .write(&mut frame, b"echo"),
        _ => unreachable!(),
    }
    .unwrap();
    frame
}

/// The receiving kernel drops such a frame before any capture sees it: `skb_vlan_untag` wants the tag and two bytes
/// behind it, where an LLC header would begin.
fn cut_inside_its_tag(frame: &[u8]) -> bool {
    frame.len() < 20 && (frame[12..14] == DOT1Q.to_be_bytes() || frame[12..14] == DOT1AD.to_be_bytes())
}

/// One capture a port; packets a millisecond apart, so that their order over both is theirs.
fn write_pcaps(lab: &Lab, packets: &[(usize, Vec<u8>)]) -> [PathBuf; 2] {
    [0, 1].map(|side| {
        let path = lab.dir().join(format!("side-{side}.pcap"));
        let mut writer = pcap_file::pcap::PcapWriter::new(File::create(&path).unwrap()).unwrap();
        for (n, (_, frame)) in packets.iter().enumerate().filter(|(_, (s, _))| *s == side) {
            let time = Duration::from_secs(1_700_000_000) + Duration::from_millis(n as u64);
            let length = u32::try_from(frame.len()).unwrap();
            writer
                .write_packet(&pcap_file::pcap::PcapPacket::new(time, length, frame))
                .unwrap();
        }
        path
    })
}

fn explain(config: &PathBuf, pcaps: &[PathBuf; 2]) -> Vec<Value> {
    let mut command = Command::new(HAECHI);
    command.arg("explain").arg("-c").arg(config).arg("--json");
    for (port, pcap) in ["lan", "wan"].iter().zip(pcaps) {
        command.arg("--pcap").arg(format!("{port}={}", pcap.display()));
    }
    process::run(&mut command)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[test]
fn explain_and_a_running_node_agree_packet_by_packet() {
    let mut random = Random::seeded("explain and the node");
    let cases: usize = std::env::var("HAECHI_CASES").map_or(6, |n| n.parse().unwrap());
    let mut fates = BTreeMap::<String, u64>::new();
    for case in 0..cases {
        let mut lab = Lab::new();
        let (lan, wan) = lab.raw_pair("lan", "wan");
        let hosts = [&lan, &wan];
        let config = accepted_config(&mut random, &lab);
        // Fragments of one datagram come and go together.
        let groups: Vec<(usize, Vec<Vec<u8>>)> = (0..PACKETS)
            .map(|n| {
                let side = random.below(2);
                let (here, there) = (hosts[side], hosts[1 - side]);
                let frames = match random.chance(1, 8) {
                    true => random_fragments(&mut random, here, there, n as u32),
                    false => vec![random_frame(&mut random, here, there)],
                };
                (side, frames)
            })
            .collect();
        let packets: Vec<(usize, Vec<u8>)> = groups
            .iter()
            .flat_map(|(side, frames)| frames.iter().map(|frame| (*side, frame.clone())))
            .collect();
        let pcaps = write_pcaps(&lab, &packets);
        let file = lab.file("explained.toml", lab.render(&config));
        let verdicts = explain(&file, &pcaps);
        assert_eq!(verdicts.len(), packets.len());

        let node = lab.start(config);
        let mut captures = [lan.capture(), wan.capture()];
        let mut expected: [Vec<&[u8]>; 2] = [Vec::new(), Vec::new()];
        let mut answers = [0, 0];
        let mut before = node.counters();
        let mut verdicts = verdicts.iter();
        for (n, (side, frames)) in groups.iter().enumerate() {
            frames.iter().for_each(|frame| hosts[*side].send(frame));
            let after = node.settled_after(&before, frames.len() as u64);
            let made = after.originated - before.originated;
            // How many packets of each fate.
            let mut did = BTreeMap::<String, u64>::new();
            for (reason, count) in &after.drops {
                did.insert(reason.clone(), count - before.drop_of(reason));
            }
            did.insert("forward".into(), frames.len() as u64 - did.values().sum::<u64>());
            did.retain(|_, count| *count > 0);
            let mut told = BTreeMap::<String, u64>::new();
            let mut answered = 0;
            for frame in frames {
                let verdict = verdicts.next().unwrap();
                let fate = verdict["reason"].as_str().unwrap_or("forward");
                *told.entry(fate.into()).or_default() += 1;
                answered += verdict["answers"].as_array().unwrap().len() as u64;
                if fate == "forward" {
                    assert_eq!(verdict["verdict"], "forward");
                    assert_eq!(verdict["egress"], hosts[1 - side].port);
                    if !cut_inside_its_tag(frame) {
                        expected[1 - side].push(frame);
                    }
                }
            }
            assert_eq!(
                (&did, made),
                (&told, answered),
                "case {case}, packet {n}: the node's against explain's\n{frames:02x?}\n{}",
                std::fs::read_to_string(&file).unwrap()
            );
            for (fate, count) in did {
                *fates.entry(fate).or_default() += count;
            }
            answers[*side] += usize::try_from(made).unwrap();
            before = after;
        }
        for side in [0, 1] {
            let got = captures[side].collect_up_to(expected[side].len() + answers[side]);
            // What crossed, in order, with the node's own answers in between.
            let mut crossed = expected[side].iter().peekable();
            let others = got
                .iter()
                .filter(|f| crossed.next_if(|e| *e == f).is_none())
                .count();
            assert_eq!(
                (crossed.next(), others),
                (None, answers[side]),
                "case {case}, side {side}: the first frame that did not come as it should, and frames of another kind"
            );
            assert_eq!(captures[side].drain().len(), 0);
        }
    }
    println!("{fates:?}");
    assert!(fates.len() > 4, "too tame: {fates:?}");
}
