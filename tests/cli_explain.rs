//! `haechi explain`: packets in words, captures of every kind, broken ones.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

mod control_support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use control_support::captures::{frame, handshake, pcap, pcapng};
use control_support::{CONFIG, Directory, LAN, Served, WAN};
use pcap_file::pcap::{PcapHeader, PcapWriter, RawPcapPacket};
use pcap_file::{Endianness, TsResolution};
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

/// A spoofed source is explained by the zones.
#[test]
fn whose_a_spoofed_source_is() {
    let directory = Directory::new();
    let zones = "[[zone]]\nname = \"trust\"\nnetworks = [\"10.0.0.0/8\", \"fd00::/8\"]\nantispoof = true\n\
        [[zone]]\nname = \"untrust\"\nantispoof = true\n";
    let file = directory.file("fw.toml", format!("{CONFIG}{zones}"));
    let output = done(&[
        "explain",
        "-c",
        path(&file),
        "--json",
        "--packet",
        "from untrust tcp 10.0.0.5:1234 > 192.0.2.7:80 syn",
        "--packet",
        "from trust tcp 192.0.2.7:80 > 10.0.0.5:1234 syn",
        "--packet",
        "from trust tcp 10.0.0.5:7 > 10.0.0.5:80 syn",
    ]);
    let verdicts = verdicts(&output);
    let details: Vec<_> = verdicts
        .iter()
        .map(|verdict| verdict["detail"].as_str().unwrap())
        .collect();
    assert_eq!(
        details[..2],
        [
            "10.0.0.5 belongs behind zone trust, not untrust",
            "192.0.2.7 is in none of the networks of zone trust"
        ]
    );
    assert!(details[2].contains("LAND"), "{details:?}");
    assert!(
        verdicts
            .iter()
            .all(|verdict| verdict["reason"] == "spoofed_source")
    );
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
        (
            &wrong,
            &["--from", "trust", "--packet", "tcp 10.0.0.5:1 > 192.0.2.7:80"],
            "wrong.toml:1:",
        ),
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

/// As wrong as a filter that is none, whether a file or a node is asked, and before either is.
#[test]
fn a_packet_that_is_none_is_wrong_usage() {
    let missing = ["-c", "/nonexistent/fw.toml"];
    let nobody = ["--socket", "/nonexistent/h.sock"];
    for (words, why) in [
        ("carrier pigeon", "unknown protocol \"carrier\": write tcp, udp, "),
        // What comes first is said first.
        ("foo 1.2.3.4:5 > nowhere", "unknown protocol \"foo\""),
        ("proto/999 1.2.3.4 > 5.6.7.8", "unknown protocol \"proto/999\""),
        (
            "proto/47 1.2.3.4:5 > 5.6.7.8",
            "\"1.2.3.4:5\" is not an IPv4 or IPv6 address",
        ),
        (
            "tcp 1.2.3.4 > 5.6.7.8:9",
            "\"1.2.3.4\" is not an address with a port",
        ),
        ("icmp fd00::1 > fd00::2", "IPv6 has \"icmpv6\""),
        ("from untrust", "the packet are missing"),
        ("after lunch tcp 10.0.0.5:1 > 192.0.2.7:80", "after lunch: "),
        ("", "the protocol is missing"),
    ] {
        for of in [missing, nobody] {
            let (status, output, error) = haechi(&["explain", of[0], of[1], "--packet", words]);
            assert_eq!((status, output.as_str()), (Some(2), ""), "{words}: {error}");
            assert!(error.contains(why), "{words}: {error}");
        }
    }
    let (status, _, usage) = haechi(&["explain"]);
    assert_eq!(status, Some(2));
    for option in ["--packet", "--pcap"] {
        assert!(usage.contains(option), "{usage}");
    }
    assert!(done(&["explain", "--help"]).contains("each on a line of its own"));
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
        (
            Duration::ZERO,
            frame("udp 10.0.0.5:1 > 192.0.2.7:53 len=1472 vlan=5 vlan=6"),
        ),
        (Duration::ZERO, frame("udp 10.0.0.5:1 > 192.0.2.7:53 len=1473")),
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
    assert_eq!(reasons, [json!(null), json!(null), json!("frame_too_long")]);
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
