//! `haechi explain`: packets in words, captures of every kind, broken ones, and that it says of every packet what the
//! engine does with it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

mod control_support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

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
use haechi::packet::synth::PacketSpec;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter, RawPcapPacket};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::SectionHeaderBlock;
use pcap_file::{DataLink, Endianness, TsResolution};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Status, standard output, standard error.
fn haechi(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_haechi"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn done(arguments: &[&str]) -> String {
    let (status, output, errors) = haechi(arguments);
    assert_eq!(
        (status, errors.as_str()),
        (Some(0), ""),
        "{arguments:?}\n{output}"
    );
    output
}

#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let (status, _, errors) = haechi(arguments);
    assert_eq!(status, Some(1), "{arguments:?}: {errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

fn verdicts(output: &str) -> Vec<Value> {
    output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn frame(words: &str) -> Vec<u8> {
    words
        .parse::<PacketSpec>()
        .unwrap_or_else(|e| panic!("{words}: {e}"))
        .frame()
}

#[test]
fn a_conversation_in_words() {
    let directory = Directory::new();
    let file = directory.file("fw.toml", CONFIG);
    let output = done(&[
        "explain",
        "-c",
        path(&file),
        "--from",
        "trust",
        "--packet",
        "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn",
        "--packet",
        "tcp 192.0.2.7:80 > 10.0.0.5:1234 syn ack",
        "--packet",
        "tcp 10.0.0.5:1234 > 192.0.2.7:80 ack",
        "--packet",
        "tcp 10.0.0.5:1234 > 192.0.2.7:80 psh ack len=100",
        "--packet",
        "tcp 192.0.2.7:80 > 10.0.0.5:1234 fin ack",
        "--packet",
        "tcp 10.0.0.5:1234 > 192.0.2.7:80 fin ack",
        "--packet",
        "tcp 192.0.2.7:80 > 10.0.0.5:1234 ack",
        "--packet",
        "after 46s tcp 192.0.2.7:80 > 10.0.0.5:1234 ack",
        "--packet",
        "tcp 10.0.0.5:1234 > 192.0.2.7:25 syn",
        "--packet",
        "from untrust tcp 192.0.2.7:4444 > 10.0.0.5:22 syn",
        "--packet",
        "from untrust tcp 10.0.0.9:1 > 192.0.2.7:80 syn",
        "--packet",
        "port wan udp 192.0.2.7:53 > 10.0.0.5:99 vlan=12",
        "--packet",
        "icmpv6 2001:db8::1 > 2001:db8::2 echo-request id=9",
        "--packet",
        "icmp 10.0.0.5 > 192.0.2.7 echo-request id=9",
        "--packet",
        "icmp 192.0.2.7 > 10.0.0.5 echo-reply id=9",
    ]);
    insta::assert_snapshot!("explain_conversation", output);
}

#[test]
fn json_is_one_verdict_a_line() {
    let directory = Directory::new();
    let file = directory.file("fw.toml", CONFIG);
    let output = done(&[
        "explain",
        "-c",
        path(&file),
        "--port",
        "lan",
        "--json",
        "--packet",
        "udp 10.0.0.5:1000 > 192.0.2.7:53",
        "--packet",
        "udp 10.0.0.5:1000 > 192.0.2.7:54",
    ]);
    let verdicts = verdicts(&output);
    assert_eq!(verdicts.len(), 2);
    assert_eq!(
        verdicts[0],
        json!({
            "number": 1, "at_ns": 0, "packet": "udp 10.0.0.5:1000 > 192.0.2.7:53", "length": 60, "ingress": "lan",
            "from": "trust", "verdict": "forward", "egress": "wan", "to": "untrust", "reason": null, "detail": null,
            "by": "new_session", "rule": "lan-out", "answers": [],
            "session": {
                "protocol": "udp", "source": "10.0.0.5", "source_port": 1000, "destination": "192.0.2.7",
                "destination_port": 53, "vlan": [], "state": "udp_new", "rule": "lan-out", "from": "trust",
                "to": "untrust", "ingress": "lan", "egress": "wan", "nat": null, "packets": [1, 0], "bytes": [28, 0],
                "age_s": 0.0, "expires_in_s": verdicts[0]["session"]["expires_in_s"], "worker": 0, "owner": "local",
            },
        })
    );
    assert_eq!(
        (
            &verdicts[1]["verdict"],
            &verdicts[1]["reason"],
            &verdicts[1]["by"]
        ),
        (&json!("drop"), &json!("policy"), &json!("implicit_drop"))
    );
}

#[test]
fn what_cannot_be_explained_is_one_line() {
    let directory = Directory::new();
    let file = directory.file("fw.toml", CONFIG);
    let wider = CONFIG.to_owned()
        + "[[port]]\nname = \"wan2\"\ndevice = \"vdev:net_null2\"\nzone = \"untrust\"\npeer = \"lan2\"\n\
           [[port]]\nname = \"lan2\"\ndevice = \"vdev:net_null3\"\nzone = \"trust\"\npeer = \"wan2\"\n";
    let wider = directory.file("wider.toml", wider);
    let wrong = directory.file("wrong.toml", "version = 7\n");
    let table: &[(&Path, &[&str], &str)] = &[
        (
            &file,
            &["--packet", "tcp 10.0.0.5:1 > 192.0.2.7:80"],
            "nothing says where the packet comes in (give --from ZONE",
        ),
        (
            &file,
            &["--from", "moon", "--packet", "tcp 10.0.0.5:1 > 192.0.2.7:80"],
            "no port is in a zone \"moon\" (the zones are trust, untrust)",
        ),
        (
            &file,
            &["--port", "eth0", "--packet", "tcp 10.0.0.5:1 > 192.0.2.7:80"],
            "there is no port \"eth0\" (the ports are wan, lan)",
        ),
        (
            &wider,
            &["--from", "trust", "--packet", "tcp 10.0.0.5:1 > 192.0.2.7:80"],
            "zone \"trust\" has several ports (say which one: lan, lan2)",
        ),
        (
            &file,
            &["--from", "trust", "--packet", "carrier pigeon"],
            "packet \"carrier pigeon\": ",
        ),
        (
            &file,
            &["--from", "trust", "--packet", "from untrust"],
            "the packet are missing",
        ),
        (
            &file,
            &[
                "--from",
                "trust",
                "--packet",
                "after lunch tcp 10.0.0.5:1 > 192.0.2.7:80",
            ],
            "after lunch: ",
        ),
        (
            &file,
            &[
                "--from",
                "trust",
                "--packet",
                "from trust port wan tcp 10.0.0.5:1 > 192.0.2.7:80",
            ],
            "port \"wan\" is not in zone \"trust\"",
        ),
        (
            &file,
            &["--from", "trust", "--pcap", "/nonexistent.pcap"],
            "/nonexistent.pcap: cannot be read",
        ),
        (
            &file,
            &["--pcap", "lan=/nonexistent.pcap"],
            "/nonexistent.pcap: cannot be read",
        ),
        (&wrong, &["--from", "trust", "--packet", "x"], "wrong.toml:1:"),
    ];
    for (file, arguments, words) in table {
        let error = refused(&[&["explain", "-c", path(file)], *arguments].concat());
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    let (status, _, error) = haechi(&["explain", "-c", path(&file), "--pcap", "=x"]);
    assert_eq!(
        (status, error.as_str()),
        (Some(2), "haechi: --pcap =x: PORT=FILE needs both\n")
    );
}

/// Time and frame.
type Packet = (Duration, Vec<u8>);

fn pcap(packets: &[Packet], endianness: Endianness, ts_resolution: TsResolution) -> Vec<u8> {
    let header = PcapHeader {
        endianness,
        ts_resolution,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    for (time, frame) in packets {
        writer
            .write_packet(&PcapPacket::new(
                *time,
                u32::try_from(frame.len()).unwrap(),
                frame,
            ))
            .unwrap();
    }
    writer.into_writer()
}

/// With `if_tsresol`: 9 decimal digits, or 2^-30 seconds, or none (microseconds).
fn pcapng(packets: &[Packet], endianness: Endianness, resolution: Option<u8>) -> Vec<u8> {
    let section = SectionHeaderBlock {
        endianness,
        ..SectionHeaderBlock::default()
    };
    let mut writer = PcapNgWriter::with_section_header(Vec::new(), section).unwrap();
    let options = resolution.map(InterfaceDescriptionOption::IfTsResol);
    writer
        .write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: options.into_iter().collect(),
        })
        .unwrap();
    for (time, frame) in packets {
        let nanos = time.as_nanos();
        let units = match resolution {
            None => nanos / 1000,
            Some(9) => nanos,
            Some(_) => (nanos << 30).div_ceil(1_000_000_000),
        };
        writer
            .write_pcapng_block(EnhancedPacketBlock {
                interface_id: 0,
                // The crate writes nanoseconds as units of whatever size.
                timestamp: Duration::from_nanos(u64::try_from(units).unwrap()),
                original_len: u32::try_from(frame.len()).unwrap(),
                data: frame.into(),
                options: Vec::new(),
            })
            .unwrap();
    }
    writer.into_inner()
}

fn handshake() -> Vec<Packet> {
    let at = |ms| Duration::from_secs(1_700_000_000) + Duration::from_millis(ms);
    vec![
        (at(0), frame("tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=100")),
        (
            at(10),
            frame("tcp 192.0.2.7:80 > 10.0.0.5:1234 syn ack seq=300 ack=101"),
        ),
        (
            at(20),
            frame("tcp 10.0.0.5:1234 > 192.0.2.7:80 ack seq=101 ack=301"),
        ),
        (at(30_000), frame("tcp 10.0.0.5:1234 > 192.0.2.7:25 syn")),
    ]
}

#[test]
fn captures_of_every_kind_read_alike() {
    let directory = Directory::new();
    let file = directory.file("fw.toml", CONFIG);
    let packets = handshake();
    let (big, little) = (Endianness::Big, Endianness::Little);
    let captures = [
        pcap(&packets, little, TsResolution::MicroSecond),
        pcap(&packets, little, TsResolution::NanoSecond),
        pcap(&packets, big, TsResolution::MicroSecond),
        pcap(&packets, big, TsResolution::NanoSecond),
        pcapng(&packets, little, None),
        pcapng(&packets, big, Some(9)),
        pcapng(&packets, little, Some(0x80 | 30)),
    ];
    for (number, capture) in captures.iter().enumerate() {
        let capture = directory.file(&format!("{number}.pcap"), capture);
        let output = done(&[
            "explain",
            "-c",
            path(&file),
            "--from",
            "trust",
            "--both-directions",
            "--pcap",
            path(&capture),
        ]);
        insta::assert_snapshot!("explain_pcap", output);
        let fixed = done(&[
            "explain",
            "-c",
            path(&file),
            "--from",
            "trust",
            "--json",
            "--pcap",
            path(&capture),
        ]);
        let reasons: Vec<_> = verdicts(&fixed).iter().map(|v| v["reason"].clone()).collect();
        assert_eq!(
            reasons,
            [
                json!(null),
                json!("wrong_port"),
                json!("tcp_bad_flags"),
                json!("policy")
            ],
            "all by one port"
        );
    }
}

#[test]
fn captures_of_both_ports_are_merged_by_time() {
    let directory = Directory::new();
    let file = directory.file("fw.toml", CONFIG);
    let packets = handshake();
    let lan = [packets[0].clone(), packets[2].clone(), packets[3].clone()];
    let wan = [packets[1].clone()];
    let lan = directory.file(
        "lan=side.pcap",
        pcap(&lan, Endianness::Little, TsResolution::MicroSecond),
    );
    let wan = directory.file("wan.pcap", pcapng(&wan, Endianness::Little, Some(9)));
    // A file that exists is that file, whatever its name; else what stands before `=` is a port.
    let wan = format!("wan={}", wan.display());
    let output = done(&[
        "explain",
        "-c",
        path(&file),
        "--port",
        "lan",
        "--pcap",
        path(&lan),
        "--pcap",
        &wan,
    ]);
    insta::assert_snapshot!("explain_pcap", output);
}

#[test]
fn a_frame_that_the_capture_cut_short_says_so() {
    let directory = Directory::new();
    let file = directory.file("fw.toml", CONFIG);
    let mut writer = PcapWriter::with_header(
        Vec::new(),
        PcapHeader {
            snaplen: 40,
            ..PcapHeader::default()
        },
    )
    .unwrap();
    let whole = frame("tcp 10.0.0.5:1234 > 192.0.2.7:80 syn");
    let raw = RawPcapPacket {
        ts_sec: 1,
        ts_frac: 0,
        incl_len: 40,
        orig_len: 60,
        data: (&whole[..40]).into(),
    };
    writer.write_raw_packet(&raw).unwrap();
    let capture = directory.file("cut.pcap", writer.into_writer());
    let output = done(&[
        "explain",
        "-c",
        path(&file),
        "--from",
        "trust",
        "--pcap",
        path(&capture),
    ]);
    assert!(
        output.contains("drop, malformed") && output.contains("(the capture holds 40 of its 60 bytes)"),
        "{output}"
    );
    assert!(
        output.ends_with("1 packet: 0 forwarded, 1 dropped: malformed 1\n"),
        "{output}"
    );
}

#[test]
fn a_frame_too_long_for_its_egress_is_dropped_as_the_worker_would() {
    let directory = Directory::new();
    let file = directory.file("fw.toml", CONFIG);
    let packets = [
        (Duration::ZERO, frame("udp 10.0.0.5:1 > 192.0.2.7:53 len=1472")),
        (Duration::ZERO, frame("udp 10.0.0.5:1 > 192.0.2.7:53 len=1481")),
    ];
    let capture = directory.file(
        "long.pcap",
        pcap(&packets, Endianness::Little, TsResolution::MicroSecond),
    );
    let output = done(&[
        "explain",
        "-c",
        path(&file),
        "--from",
        "trust",
        "--json",
        "--pcap",
        path(&capture),
    ]);
    let reasons: Vec<_> = verdicts(&output).iter().map(|v| v["reason"].clone()).collect();
    assert_eq!(reasons, [json!(null), json!("frame_too_long")]);
}

#[test]
fn broken_captures_are_refused_clearly() {
    let directory = Directory::new();
    let file = directory.file("fw.toml", CONFIG);
    let good = pcap(&handshake(), Endianness::Little, TsResolution::MicroSecond);
    let good_ng = pcapng(&handshake(), Endianness::Little, None);
    let mut wifi = good.clone();
    wifi[20] = 105;
    let table: &[(&str, &[u8], &str)] = &[
        ("empty", b"", "not a capture file"),
        ("short", b"\xd4\xc3", "not a capture file"),
        (
            "text",
            b"this is a text and not a capture of packets",
            "not a capture file",
        ),
        ("head", &good[..20], "not a capture file"),
        (
            "cut",
            &good[..good.len() - 7],
            "broken after 3 packets: the file ends inside a packet",
        ),
        (
            "cut-ng",
            &good_ng[..good_ng.len() - 7],
            "broken after 3 packets: the file ends inside a packet",
        ),
        ("wifi", &wifi, "not of Ethernet (capture on an Ethernet interface"),
    ];
    for (name, bytes, words) in table {
        let capture = directory.file(name, bytes);
        let error = refused(&[
            "explain",
            "-c",
            path(&file),
            "--from",
            "trust",
            "--pcap",
            path(&capture),
        ]);
        assert!(
            error.contains(words) && error.lines().count() == 1,
            "{name}: {error}"
        );
    }
    let nothing = directory.file("nothing.pcap", &good[..24]);
    let output = done(&[
        "explain",
        "-c",
        path(&file),
        "--from",
        "trust",
        "--pcap",
        path(&nothing),
    ]);
    assert_eq!(output, "0 packets: 0 forwarded, 0 dropped\n");
}

#[test]
fn a_running_node_explains_captures_against_its_sessions() {
    let served = Served::new(CONFIG);
    let socket = path(&served.socket).to_owned();
    assert!(
        served
            .node
            .send(LAN, "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn seq=100")
    );
    assert!(
        served
            .node
            .send(WAN, "tcp 192.0.2.7:80 > 10.0.0.5:1234 syn ack seq=300 ack=101")
    );
    let rest = &handshake()[2..];
    let capture = served.directory.file(
        "rest.pcap",
        pcap(rest, Endianness::Little, TsResolution::MicroSecond),
    );
    let output = done(&[
        "explain",
        "--socket",
        &socket,
        "--from",
        "trust",
        "--json",
        "--pcap",
        path(&capture),
    ]);
    let verdicts = verdicts(&output);
    assert_eq!(
        (&verdicts[0]["by"], &verdicts[0]["session"]["state"]),
        (&json!("session"), &json!("established"))
    );
    assert_eq!(
        (&verdicts[1]["reason"], &verdicts[1]["at_ns"]),
        (&json!("policy"), &json!(29_980_000_000_u64))
    );
    let named = format!("lan={}", capture.display());
    let output = done(&["explain", "--socket", &socket, "--pcap", &named]);
    assert!(
        output.contains("session of rule \"lan-out\", established"),
        "{output}"
    );
    let words = done(&[
        "explain",
        "--socket",
        &socket,
        "--from",
        "trust",
        "--packet",
        "tcp 10.0.0.5:1234 > 192.0.2.7:80 ack",
    ]);
    assert!(words.contains("established"), "{words}");
    let error = refused(&[
        "explain",
        "--socket",
        &socket,
        "--packet",
        "tcp 10.0.0.5:1234 > 192.0.2.7:80 ack",
    ]);
    assert!(error.contains("it does not say where it comes in"), "{error}");
}

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
    fn forward(&mut self, _: VecPacket, to: PortId, _: Note<'_>) {
        self.0.push(Ok(to));
    }
    fn drop(&mut self, _: VecPacket, reason: DropReason, _: Note<'_>) {
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
            reference.engine.upkeep(now, u32::MAX);
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
                path(&file).to_owned(),
                "--json".to_owned(),
            ];
            for (port, packets) in &captures {
                let name = if *port == WAN { "wan" } else { "lan" };
                let capture = pcap(packets, Endianness::Little, TsResolution::MicroSecond);
                let capture = directory.file(&format!("{name}.pcap"), capture);
                arguments.extend(["--pcap".to_owned(), format!("{name}={}", capture.display())]);
            }
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let said: Vec<bool> = verdicts(&done(&arguments))
                .iter()
                .map(|v| v["verdict"] == "forward")
                .collect();
            prop_assert_eq!(said, did, "{}", text);
            Ok(())
        })
        .unwrap();
}
