//! Properties of `explain`: whatever a capture holds, reading it ends; of every packet it says what the engine does with it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

mod control_support;
#[path = "support/frames.rs"]
mod frames;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use control_support::captures::{Packet, frame, handshake, pcap, pcapng};
use control_support::{CONFIG, Directory, LAN, Served, WAN};
use frames::{Ip4, ethernet, fix_ipv4_header};
use haechi::base::slab::HeapMemory;
use haechi::base::{Generation, Nanos, PortId};
use haechi::config::{self, RuleIds};
use haechi::control::explain::Simulator;
use haechi::control::explain::capture::Capture;
use haechi::control::node::Fate;
use haechi::control::view::Names;
use haechi::engine::{Batch, DropReason, Engine, Note, Outputs, Place};
use haechi::flow::HashSeed;
use haechi::packet::VecPacket;
use pcap_file::{Endianness, TsResolution};
use proptest::prelude::*;

/// Everything that a capture holds, and how its reading ended.
fn read_all(path: &Path) -> (usize, bool) {
    let Ok(mut capture) = Capture::open(path) else {
        return (0, false);
    };
    let mut frames = 0;
    loop {
        match capture.next_frame() {
            Ok(Some(_)) => frames += 1,
            Ok(None) => return (frames, true),
            Err(_) => return (frames, false),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever the bytes, reading a capture ends, and never with a panic.
    #[test]
    fn mutated_captures_end(
        ng in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let directory = Directory::new();
        let mut bytes = if ng {
            pcapng(&handshake(), Endianness::Little, Some(9))
        } else {
            pcap(&handshake(), Endianness::Big, TsResolution::NanoSecond)
        };
        for (place, byte) in flips {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        let (frames, _) = read_all(&directory.file("x.pcap", &bytes));
        prop_assert!(frames <= bytes.len() / 12);
    }
}

/// A reference node: the engine as a worker drives it, in bursts.
struct Reference {
    engine: Engine,
    fates: Fates,
}

/// What became of each packet, in order; `None`: it is held.
#[derive(Default)]
struct Fates {
    all: Vec<Option<Result<PortId, DropReason>>>,
    /// How many packets there were before the batch.
    before: usize,
    /// Held fragments by number: which packet each is.
    held: BTreeMap<u64, usize>,
}

impl Fates {
    fn set(&mut self, place: Place, fate: Result<PortId, DropReason>) {
        let packet = match place {
            Place::Batch(place) => self.before + place,
            Place::Held(number) => self.held.remove(&number).unwrap(),
        };
        self.all.resize(self.all.len().max(packet + 1), None);
        assert_eq!(self.all[packet].replace(fate), None, "one verdict each");
    }
}

impl Outputs<VecPacket> for Fates {
    fn forward(&mut self, _: VecPacket, to: PortId, note: Note) {
        self.set(note.place, Ok(to));
    }
    fn drop(&mut self, _: VecPacket, reason: DropReason, note: Note) {
        self.set(note.place, Err(reason));
    }
    fn hold(&mut self, number: u64, place: usize) {
        self.held.insert(number, self.before + place);
    }
    fn answer(&mut self, packet: VecPacket, _: PortId, reason: DropReason, note: Note) {
        self.drop(packet, reason, note);
    }
    fn buffer(&mut self) -> Option<VecPacket> {
        Some(VecPacket::default())
    }
    fn originate(&mut self, _: VecPacket, _: PortId) {}
}

fn host_bytes(text: &str) -> [u8; 4] {
    text.parse::<std::net::Ipv4Addr>().unwrap().octets()
}

/// Kinds of packets; a fragment's fate may come later.
const WHOLE: [&str; 5] = ["tcp", "tcp", "udp", "icmp", "proto/47"];
const ANY: [&str; 7] = ["tcp", "tcp", "udp", "icmp", "proto/47", "fragment", "fragment"];

/// Halves of a datagram, mostly; more seldom a piece that overlaps both, and one that ends elsewhere.
fn fragment_part(choice: &str) -> (u16, bool, usize) {
    match choice {
        "syn" | "syn ack" | "ack" => (0, true, 16),
        "fin ack" | "rst" => (16, false, 8),
        "syn fin" => (8, true, 16),
        _ => (24, false, 9),
    }
}

/// A piece of a UDP datagram of 24 bytes without a checksum, to a port that is its identification, too.
fn udp_fragment(
    source: [u8; 4],
    destination: [u8; 4],
    port: u16,
    (offset, more, length): (u16, bool, usize),
) -> Vec<u8> {
    let mut datagram = [
        1000_u16.to_be_bytes(),
        port.to_be_bytes(),
        24_u16.to_be_bytes(),
        [0; 2],
    ]
    .concat();
    datagram.resize(40, 7);
    let offset = usize::from(offset);
    let mut ip = Ip4::new(17);
    (ip.source, ip.destination) = (source, destination);
    ip.fragment = (u16::from(more) << 13) | (offset as u16 / 8);
    let mut packet = ip.packet(&datagram[offset..offset + length]);
    packet[4..6].copy_from_slice(&port.to_be_bytes());
    ethernet(0x0800, &fix_ipv4_header(packet))
}

/// A packet of a small world, so that flows meet: its words, or bytes to be broken.
fn world_packet(kinds: &[&'static str]) -> impl Strategy<Value = (PortId, Vec<u8>)> {
    let host = prop::sample::select(vec!["10.0.0.5", "10.0.0.6", "192.0.2.7"]);
    let port = prop::sample::select(vec![25u16, 53, 80, 1000, 8080]);
    let flags = prop::sample::select(vec![
        "syn",
        "syn ack",
        "ack",
        "fin ack",
        "rst",
        "psh ack len=9",
        "syn fin",
    ]);
    let tags = prop::sample::select(vec!["", "", "", " vlan=5", " vlan=5 vlan=6"]);
    let kind = prop::sample::select(kinds.to_vec());
    let damage = prop::option::weighted(0.1, (any::<prop::sample::Index>(), any::<u8>()));
    (
        kind,
        host.clone(),
        host,
        port.clone(),
        port,
        flags,
        tags,
        damage,
        any::<bool>(),
    )
        .prop_map(
            |(kind, source, destination, sport, dport, flags, tags, damage, wan)| {
                if kind == "fragment" {
                    let (source, destination) = (host_bytes(source), host_bytes(destination));
                    let part = fragment_part(flags);
                    let bytes = udp_fragment(source, destination, dport, part);
                    return (if wan { WAN } else { LAN }, bytes);
                }
                let words = match kind {
                    "tcp" => format!("tcp {source}:{sport} > {destination}:{dport} {flags}{tags}"),
                    "udp" => format!("udp {source}:{sport} > {destination}:{dport}{tags}"),
                    "icmp" => {
                        let message = if sport > 100 { "echo-request" } else { "echo-reply" };
                        format!("icmp {source} > {destination} {message} id={dport}{tags}")
                    }
                    other => format!("{other} {source} > {destination}{tags}"),
                };
                let mut bytes = frame(&words);
                if let Some((place, byte)) = damage {
                    let place = place.index(bytes.len());
                    bytes[place] = byte;
                }
                (if wan { WAN } else { LAN }, bytes)
            },
        )
}

/// A random configuration over that world.
fn world_config() -> impl Strategy<Value = String> {
    let rule = (
        prop::sample::select(vec!["any", "trust", "untrust"]),
        prop::sample::select(vec![
            "tcp",
            "udp",
            "tcp/80",
            "tcp/1-100",
            "udp/53",
            "icmp",
            "icmp/echo-request",
            "proto/47",
        ]),
        prop::option::of(prop::sample::select(vec![
            "10.0.0.0/8",
            "192.0.2.0/24",
            "10.0.0.5",
        ])),
        prop::sample::select(vec!["allow", "allow", "drop", "reject"]),
        any::<bool>(),
    );
    let scope = prop::sample::select(vec!["pair-vlan", "pair", "node"]);
    let vlan = prop::sample::select(vec!["inspect", "inspect", "drop", "pass"]);
    (prop::collection::vec(rule, 0..6), scope, vlan, 64u32..80).prop_map(|(rules, scope, vlan, sessions)| {
        let (head, _) = CONFIG.split_once("[conntrack]").unwrap();
        let mut text = format!(
            "{head}[transparent]\nsession_scope = \"{scope}\"\nvlan = \"{vlan}\"\n[conntrack]\nmax_sessions = {sessions}\n"
        );
        for (number, (from, service, source, action, enabled)) in rules.into_iter().enumerate() {
            let source = source.map(|s| format!("source = [\"{s}\"]\n")).unwrap_or_default();
            text += &format!(
                "[[rule]]\nname = \"r{number}\"\nfrom = \"{from}\"\nservice = [\"{service}\"]\n{source}action = \"{action}\"\nenabled = {enabled}\n"
            );
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Explain, packet by packet from captures, says what the engine does in bursts as a worker drives it.
    #[test]
    fn explain_says_what_the_engine_does(
        text in world_config(),
        bursts in prop::collection::vec((0u64..40_000, prop::collection::vec(world_packet(&ANY), 1..20)), 1..12),
    ) {
        let config = config::load_text("fw.toml", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let mut ids = RuleIds::new();
        let policy = Arc::new(config::compile(&config, Generation(1), &mut ids).unwrap());
        let names = Arc::new(Names::new(&config, &ids));
        // The reference.
        let engine = Engine::new(config.conntrack.max_sessions, Arc::clone(&policy), &HeapMemory, HashSeed([9; 4])).unwrap();
        let mut reference = Reference { engine, fates: Fates::default() };
        let mut by_port: BTreeMap<PortId, Vec<Packet>> = BTreeMap::new();
        let mut order = Vec::new();
        let mut at_ms = 0;
        for (gap_ms, packets) in &bursts {
            at_ms += gap_ms;
            let now = Nanos::SECOND.plus(Nanos::from_millis(at_ms));
            reference.engine.upkeep(now, u32::MAX, &mut reference.fates);
            // Within a burst a worker sees one port after the other.
            let mut batch = Batch::new();
            for port in [WAN, LAN] {
                for (_, frame) in packets.iter().filter(|(ingress, _)| *ingress == port) {
                    prop_assert!(batch.try_push(VecPacket::new(frame.clone()), port).is_ok());
                    by_port.entry(port).or_default().push((Duration::from_millis(at_ms), frame.clone()));
                    order.push((port, frame.clone(), at_ms));
                }
            }
            reference.fates.before = order.len() - batch.len();
            reference.engine.process(now, &mut batch, &mut reference.fates);
        }
        // The simulator, packet by packet.
        let mut simulator = Simulator::new(policy, names, config.conntrack.max_sessions, Nanos::SECOND).unwrap();
        let mut said = Vec::new();
        for (port, frame, at_ms) in &order {
            simulator.feed(frame.clone(), *port, at_ms * 1_000_000);
        }
        for (place, verdict) in simulator.finish().enumerate() {
            prop_assert_eq!(verdict.number, place as u64 + 1);
            prop_assert_eq!(verdict.reason.is_some(), verdict.verdict == Fate::Drop);
            said.push(match verdict.egress {
                Some(egress) => Some(Ok(if egress == "wan" { WAN } else { LAN })),
                None => verdict.reason.map(Err),
            });
        }
        let fates = &mut reference.fates.all;
        fates.resize(order.len(), None);
        let did: Vec<_> = fates.iter().map(|fate| fate.map(|fate| fate.map_err(|reason| reason.name().to_owned()))).collect();
        prop_assert_eq!(&said, &did, "{}", text);
    }
}

#[test]
fn the_program_agrees_with_the_engine_on_captures() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(8));
    let packets = prop::collection::vec((0u64..40_000, world_packet(&WHOLE)), 1..60);
    runner
        .run(&(world_config(), packets), |(text, packets)| {
            let directory = Directory::new();
            let file = directory.file("fw.toml", &text);
            let served = Served::new(&text);
            let mut captures: BTreeMap<PortId, Vec<Packet>> = BTreeMap::new();
            let mut did = Vec::new();
            let mut at_ms = 0;
            for (number, (gap_ms, (port, frame))) in packets.iter().enumerate() {
                // A gap of at least a millisecond, so that the captures' times tell the order.
                at_ms += gap_ms + 1;
                if number > 0 {
                    served.node.sleep(Duration::from_millis(gap_ms + 1));
                }
                captures
                    .entry(*port)
                    .or_default()
                    .push((Duration::from_millis(at_ms), frame.clone()));
                did.push(served.node.send_frame(*port, frame.clone()));
            }
            let mut arguments = vec![
                "explain".to_owned(),
                "-c".to_owned(),
                file.display().to_string(),
                "--json".to_owned(),
            ];
            for (port, packets) in &captures {
                let name = if *port == WAN { "wan" } else { "lan" };
                let capture = pcap(packets, Endianness::Little, TsResolution::MicroSecond);
                let capture = directory.file(&format!("{name}.pcap"), capture);
                arguments.extend(["--pcap".to_owned(), format!("{name}={}", capture.display())]);
            }
            let output = Command::new(env!("CARGO_BIN_EXE_haechi"))
                .args(&arguments)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            prop_assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let verdict =
                |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["verdict"] == "forward";
            let said: Vec<bool> = String::from_utf8(output.stdout)
                .unwrap()
                .lines()
                .map(verdict)
                .collect();
            prop_assert_eq!(said, did, "{}", text);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_capture_says_of_each_fragment_what_becomes_of_its_datagram() {
    let (a, b) = ([10, 0, 0, 5], [192, 0, 2, 7]);
    let packets = [
        udp_fragment(a, b, 53, (0, true, 16)),
        frame("udp 10.0.0.6:1000 > 192.0.2.7:53"),
        udp_fragment(a, b, 53, (16, false, 8)),
        // Refused as one: no rule allows it.
        udp_fragment(a, b, 54, (16, false, 8)),
        udp_fragment(a, b, 54, (0, true, 16)),
        udp_fragment(a, b, 55, (0, true, 16)),
        udp_fragment(a, b, 55, (8, true, 16)),
        // The rest is not in the capture.
        udp_fragment(a, b, 80, (0, true, 16)),
    ];
    let packets: Vec<Packet> = (0..).map(Duration::from_millis).zip(packets).collect();
    let directory = Directory::new();
    let capture = pcap(&packets, Endianness::Little, TsResolution::MicroSecond);
    let capture = directory.file("fragments.pcap", capture);
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_haechi"))
            .args(["explain", "--from", "trust", "--pcap"])
            .arg(&capture)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let rows = |json: &str| -> Vec<_> {
        json.lines()
            .map(|line| {
                let row: serde_json::Value = serde_json::from_str(line).unwrap();
                let word = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
                let number = row["number"].as_u64().unwrap();
                format!("{number} {} {} {}", word("verdict"), word("reason"), word("by"))
            })
            .collect()
    };
    let file = directory.file("fw.toml", CONFIG);
    let file = file.to_str().unwrap();
    let expected = [
        "1 forward - new_session",
        "2 forward - new_session",
        "3 forward - session",
        "4 drop policy implicit_drop",
        "5 drop policy implicit_drop",
        "6 drop fragment_overlap layer2",
        "7 drop fragment_overlap layer2",
        "8 held - none",
    ];
    assert_eq!(rows(&run(&["-c", file, "--json"])), expected);
    let text = run(&["-c", file]);
    for line in [
        "fragment proto/17 10.0.0.5 > 192.0.2.7 id=53 bytes=0-15 more",
        "fragment proto/17 10.0.0.5 > 192.0.2.7 id=53 bytes=16-23\n",
        "-> held\n",
        "8 packets: 3 forwarded, 4 dropped, 1 held: fragment_overlap 2, policy 2",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // On a running node a first fragment finds its datagram's session.
    let served = Served::new(CONFIG);
    assert!(served.node.send(LAN, "udp 10.0.0.5:1000 > 192.0.2.7:53"));
    let json = run(&["--socket", served.socket.to_str().unwrap(), "--json"]);
    assert_eq!(rows(&json)[0], "1 forward - session");
    assert_eq!(rows(&json)[1..], expected[1..]);
}
