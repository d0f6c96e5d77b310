//! Tables on terminals of any width.

use super::*;
use crate::control::node::Owner;
use std::sync::Arc;

fn session() -> SessionInfo {
    SessionInfo {
        protocol: "tcp".into(),
        source: "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff".parse().unwrap(),
        source_port: 65_535,
        destination: "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap(),
        destination_port: 65_535,
        vlan: vec![4000, 4001],
        state: "syn_received".into(),
        rule: Arc::from("a-rule-with-a-rather-long-name"),
        from: Arc::from("customers-west"),
        to: Arc::from("untrust"),
        ingress: Arc::from("lan"),
        egress: Arc::from("wan"),
        nat: None,
        packets: [u64::MAX, u64::MAX],
        bytes: [u64::MAX, u64::MAX],
        age_s: 1e9,
        expires_in_s: 3e7,
        worker: 3,
        owner: Owner::Local,
    }
}

/// Names and numbers as long as they may be: 64 bytes, 64 bits.
fn long(start: &str) -> String {
    format!("{start}-{}-end", "x".repeat(64 - start.len() - 5))
}

#[track_caller]
fn assert_fits(text: &str, width: u16) {
    let fits = text
        .lines()
        .all(|line| line.chars().count() <= usize::from(width));
    assert!(fits, "{width}:\n{text}");
}

#[test]
fn sessions_fit_a_terminal() {
    let named = SessionInfo {
        rule: long("rule").into(),
        from: long("from").into(),
        to: long("to").into(),
        ..session()
    };
    for width in 40..200 {
        let text = sessions_text(&[session(), named.clone()], false, Some(width));
        assert_fits(&text, width);
        assert_eq!(text.lines().count(), 4, "one line a session:\n{text}");
        for word in ["SOURCE", "DESTINATION", "4000.4001", "]:65535"] {
            assert!(text.contains(word), "{word} at {width}:\n{text}");
        }
        assert_eq!(text.contains("syn_received"), width >= 77, "{width}:\n{text}");
    }
    let whole = sessions_text(&[session()], false, None);
    assert!(
        whole.contains("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535"),
        "{whole}"
    );
}

/// Two ends of one network, sessions that only their VLANs and ports tell apart.
#[test]
fn sessions_at_some_widths() {
    let one = |source: &str, source_port, destination: &str, destination_port, vlan: &[u16]| SessionInfo {
        source: source.parse().unwrap(),
        source_port,
        destination: destination.parse().unwrap(),
        destination_port,
        vlan: vlan.to_vec(),
        state: "established".into(),
        packets: [12_345, 67_890],
        bytes: [1_234_567, 89],
        age_s: 75.0,
        expires_in_s: 7_440.0,
        ..session()
    };
    let (a, b) = ("2001:db8:1:2:3:4:5:6", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff");
    let tagged = [
        one(a, 40_000, b, 443, &[7]),
        one(a, 40_000, b, 443, &[8]),
        one("10.0.0.5", 1234, "192.0.2.7", 80, &[]),
    ];
    let shown = |sessions: &[SessionInfo]| {
        [120, 80, 60, 40]
            .map(|width| sessions_text(sessions, false, Some(width)))
            .join("\n")
    };
    insta::assert_snapshot!("sessions_with_vlans", shown(&tagged));
    let plain = [
        one("10.100.200.105", 40_000, "192.0.2.7", 80, &[]),
        one("fd00::5", 40_000, "fd00::7", 80, &[]),
    ];
    insta::assert_snapshot!("sessions_without_vlans", shown(&plain));
}

fn rule(name: String) -> RuleStatus {
    RuleStatus {
        name,
        action: "allow".to_owned(),
        enabled: false,
        removed: false,
        from: vec!["a".to_owned(), "another-zone".to_owned()],
        to: Vec::new(),
        description: Some("a long description of what it is good for".to_owned()),
        sessions: 1_000_000,
        limited: 0,
        unused_leases: 0,
        packets: u64::MAX,
        bytes: u64::MAX,
        last_hit: Some(990.0),
    }
}

#[test]
fn rules_at_some_widths() {
    let rules = [
        rule("from-the-office-in-the-west-wing-to-the-printers-2nd-floor".to_owned()),
        rule("from-the-office-in-the-west-wing-to-the-printers-3rd-floor".to_owned()),
        RuleStatus {
            enabled: true,
            packets: 3,
            bytes: 4096,
            sessions: 1,
            last_hit: None,
            ..rule("web".to_owned())
        },
    ];
    let shown = [120, 80, 60, 40].map(|width| rules_text(&rules, 1000.0, Some(width)));
    insta::assert_snapshot!("rules_at_some_widths", shown.join("\n"));
    let leased = RuleStatus {
        unused_leases: 7,
        ..rule("web".to_owned())
    };
    assert!(rules_text(&[leased], 1000.0, None).ends_with("\nweb: 7 of max_sessions leased and unused\n"));
}

#[test]
fn the_other_tables_fit_a_terminal_too() {
    let port = PortStatus {
        name: long("port"),
        zone: long("zone"),
        peer: Some(long("peer")),
        device: "vdev:net_af_xdp0,iface=veth-wan,busy_budget=0".to_owned(),
        driver: "net_af_xdp".to_owned(),
        mac: "02:00:00:00:00:01".to_owned(),
        mtu: 1500,
        link_up: true,
        link_note: None,
        speed_mbps: Some(100_000),
        rx_packets: u64::MAX,
        tx_packets: u64::MAX,
        rx_bytes: u64::MAX,
        tx_bytes: u64::MAX,
        rx_missed: u64::MAX,
        rx_errors: 0,
        rx_no_buffer: 0,
        tx_dropped: u64::MAX,
        tx_errors: 0,
        rx_queues: 16,
        tx_queues: 16,
        rss: Rss::Mismatch,
    };
    let worker = WorkerStatus {
        worker: 15,
        cpu: 4095,
        packets: u64::MAX,
        forwarded: u64::MAX,
        dropped: u64::MAX,
        originated: 0,
        sessions: 268_435_456,
        max_sessions: 268_435_456,
        busy: 1.0,
        cycles_per_packet: 123_456.0,
        handed_over: u64::MAX,
        taken_over: u64::MAX,
        relayed: u64::MAX,
        stalled: true,
        max_loop_gap_us: 1e6,
        expiry_lag_ms: 1e6,
        generation: 1,
    };
    let counters = Counters {
        drops: DropReason::ALL
            .iter()
            .map(|r| (r.name().to_owned(), u64::from(u32::MAX)))
            .collect(),
        malformed: Malformed::ALL
            .iter()
            .map(|m| (m.name().to_owned(), u64::from(u32::MAX)))
            .collect(),
        ..Counters::default()
    };
    for width in 40..200 {
        for text in [
            ports_text(std::slice::from_ref(&port), Some(width)),
            workers_text(std::slice::from_ref(&worker), Some(width)),
            rules_text(&[rule(long("rule"))], 1000.0, Some(width)),
            counters_text(&counters, true, Some(width)),
        ] {
            assert_fits(&text, width);
        }
    }
    assert!(rules_text(&[rule("x".to_owned())], 1000.0, None).contains("10s ago"));
    let lines = RuleStatus {
        description: Some("of two\nlines".to_owned()),
        ..rule("x".to_owned())
    };
    let text = rules_text(&[lines], 1000.0, None);
    assert!(
        text.ends_with("  of two lines\n") && text.lines().count() == 2,
        "{text}"
    );
}

#[test]
fn reasons_that_only_the_node_knows_are_shown() {
    let counters = Counters {
        drops: [("solar_flare".to_owned(), 3), ("policy".to_owned(), 1)].into(),
        ..Counters::default()
    };
    let text = counters_text(&counters, false, None);
    assert!(
        text.contains("solar_flare") && text.contains("dropped             4"),
        "{text}"
    );
}

#[test]
fn what_malformed_packets_were_is_shown_where_there_were_any() {
    let counters = Counters {
        drops: [("malformed".to_owned(), 3)].into(),
        malformed: [("tcp_options".to_owned(), 2), ("bent".to_owned(), 1)].into(),
        ..Counters::default()
    };
    let text = counters_text(&counters, false, None);
    let (_, kinds) = text.split_once("\nMALFORMED ").unwrap();
    let kinds: Vec<_> = kinds.lines().collect();
    assert!(
        kinds[1].starts_with("tcp_options        2  A TCP option's length is"),
        "{text}"
    );
    assert_eq!(kinds[2], "bent               1  (a word of the node's version)");
    let (reasons, zeros) = (DropReason::COUNT - 1, Malformed::ALL.len() - 1);
    assert_eq!(
        kinds[4],
        format!("not shown: {reasons} reasons and {zeros} kinds of malformed packets without a drop (--all)")
    );
    let none = counters_text(&Counters::default(), false, None);
    assert!(!none.to_lowercase().contains("malformed"), "{none}");
    let all = counters_text(&Counters::default(), true, None);
    for kind in Malformed::ALL {
        assert!(all.contains(kind.name()) && all.contains(kind.help()), "{all}");
    }
}

#[test]
fn one_is_not_several() {
    let drops = |dropped: usize| {
        let reasons = DropReason::ALL.iter().take(dropped);
        let counters = Counters {
            drops: reasons.map(|r| (r.name().to_owned(), 1)).collect(),
            ..Counters::default()
        };
        counters_text(&counters, false, None)
    };
    let all_but = |n: usize| drops(DropReason::COUNT - n);
    assert!(all_but(1).ends_with("\nnot shown: 1 reason without a drop (--all)\n"));
    assert!(all_but(2).ends_with("\nnot shown: 2 reasons without a drop (--all)\n"));
    let status = |rules, workers, unused_leases| {
        let status = Status {
            version: String::new(),
            node: String::new(),
            mode: String::new(),
            state: NodeState::Ready,
            pid: 1,
            uptime_s: 0.0,
            config: "fw.toml".to_owned(),
            generation: 1,
            sessions: 0,
            max_sessions: 10,
            unused_leases,
            timeout_scale: 1.0,
            sessions_evicted: 0,
            half_open: 0,
            sessions_by_state: BTreeMap::new(),
            syn_cookies_engaged: false,
            rules,
            classifier: Methods::default(),
            workers,
            ports: 2,
            ports_up: 2,
            packet_buffers: 1,
            packet_buffers_in_use: 0,
            warnings: Vec::new(),
        };
        status_text(&status)
    };
    assert!(status(1, 1, 0).contains(" generation 1, 1 rule\n"));
    assert!(status(0, 1, 0).contains(" generation 1, 0 rules\n"));
    // One worker never refuses early.
    assert!(
        status(0, 1, 0).contains(" 0 of 10 (0.0%)\n"),
        "{}",
        status(0, 1, 0)
    );
    assert!(status(0, 2, 10).contains(" 0 of 10 (0.0%), 10 leased and unused\n"));
}
