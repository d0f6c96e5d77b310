//! Properties of `explain`: whatever a capture holds, reading it ends; of every packet it says what the engine does with it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

mod control_support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use control_support::captures::{Packet, frame, handshake, pcap, pcapng};
use control_support::{CONFIG, Directory, LAN, Served, WAN};
use haechi::base::slab::HeapMemory;
use haechi::base::{Generation, Nanos, PortId};
use haechi::config::{self, RuleIds};
use haechi::control::explain::Simulator;
use haechi::control::explain::capture::Capture;
use haechi::control::node::Fate;
use haechi::control::view::Names;
use haechi::engine::{Batch, DropReason, Engine, Note, Outputs};
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
    fates: Vec<Result<PortId, DropReason>>,
}

struct Fates<'a>(&'a mut Vec<Result<PortId, DropReason>>);

impl Outputs<VecPacket> for Fates<'_> {
    fn forward(&mut self, _: VecPacket, to: PortId, _: Note) {
        self.0.push(Ok(to));
    }
    fn drop(&mut self, _: VecPacket, reason: DropReason, _: Note) {
        self.0.push(Err(reason));
    }
    fn buffer(&mut self) -> Option<VecPacket> {
        Some(VecPacket::default())
    }
    fn originate(&mut self, _: VecPacket, _: PortId) {}
}

/// A packet of a small world, so that flows meet: its words, or bytes to be broken.
fn world_packet() -> impl Strategy<Value = (PortId, Vec<u8>)> {
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
    let kind = prop::sample::select(vec!["tcp", "tcp", "udp", "icmp", "proto/47"]);
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
        bursts in prop::collection::vec((0u64..40_000, prop::collection::vec(world_packet(), 1..20)), 1..12),
    ) {
        let config = config::load_text("fw.toml", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let mut ids = RuleIds::new();
        let policy = Arc::new(config::compile(&config, Generation(1), &mut ids).unwrap());
        let names = Arc::new(Names::new(&config, &ids));
        // The reference.
        let engine = Engine::new(config.conntrack.max_sessions, Arc::clone(&policy), &HeapMemory, HashSeed([9; 4])).unwrap();
        let mut reference = Reference { engine, fates: Vec::new() };
        let mut by_port: BTreeMap<PortId, Vec<Packet>> = BTreeMap::new();
        let mut order = Vec::new();
        let mut at_ms = 0;
        for (gap_ms, packets) in &bursts {
            at_ms += gap_ms;
            let now = Nanos::SECOND.plus(Nanos::from_millis(at_ms));
            reference.engine.upkeep(now, u32::MAX, &mut Fates(&mut Vec::new()));
            // Within a burst a worker sees one port after the other.
            let mut batch = Batch::new();
            for port in [WAN, LAN] {
                for (_, frame) in packets.iter().filter(|(ingress, _)| *ingress == port) {
                    prop_assert!(batch.try_push(VecPacket::new(frame.clone()), port).is_ok());
                    by_port.entry(port).or_default().push((Duration::from_millis(at_ms), frame.clone()));
                    order.push((port, frame.clone(), at_ms));
                }
            }
            reference.engine.process(now, &mut batch, &mut Fates(&mut reference.fates));
        }
        // The simulator, packet by packet.
        let mut simulator = Simulator::new(policy, names, config.conntrack.max_sessions, Nanos::SECOND).unwrap();
        let mut said = Vec::new();
        for (port, frame, at_ms) in &order {
            let verdict = simulator.feed(frame.clone(), *port, at_ms * 1_000_000);
            prop_assert_eq!(verdict.reason.is_none(), verdict.verdict == Fate::Forward);
            said.push(match verdict.egress {
                Some(egress) => Ok(if egress == "wan" { WAN } else { LAN }),
                None => Err(verdict.reason.unwrap()),
            });
        }
        let did: Vec<_> = reference.fates.iter().map(|fate| fate.map_err(|reason| reason.name().to_owned())).collect();
        prop_assert_eq!(&said, &did, "{}", text);
    }
}

#[test]
fn the_program_agrees_with_the_engine_on_captures() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(8));
    let packets = prop::collection::vec((0u64..40_000, world_packet()), 1..60);
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
