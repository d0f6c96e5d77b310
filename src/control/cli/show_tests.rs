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

#[test]
fn sessions_fit_a_terminal() {
    for width in 70..200 {
        let text = sessions_text(&[session(), session()], false, Some(width));
        for line in text.lines() {
            assert!(line.chars().count() <= usize::from(width), "{width}:\n{text}");
        }
        assert_eq!(text.lines().count(), 4, "one line a session:\n{text}");
        assert!(text.contains("syn_received"), "{width}:\n{text}");
    }
    let whole = sessions_text(&[session()], false, None);
    assert!(
        whole.contains("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535"),
        "{whole}"
    );
}

#[test]
fn the_other_tables_fit_a_terminal_too() {
    let port = PortStatus {
        name: "uplink-west".to_owned(),
        zone: "untrust".to_owned(),
        peer: Some("core-west".to_owned()),
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
    let rule = RuleStatus {
        name: "a-rule-with-a-name".to_owned(),
        action: "allow".to_owned(),
        enabled: false,
        from: vec!["a".to_owned(), "another-zone".to_owned()],
        to: Vec::new(),
        description: Some("a long description of what it is good for".to_owned()),
        sessions: 1_000_000,
        packets: u64::MAX,
        bytes: u64::MAX,
        last_hit: Some(990.0),
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
    for width in 80..200 {
        for text in [
            ports_text(std::slice::from_ref(&port), Some(width)),
            rules_text(std::slice::from_ref(&rule), 1000.0, Some(width)),
            counters_text(&counters, true, Some(width)),
        ] {
            let fits = text
                .lines()
                .all(|line| line.chars().count() <= usize::from(width));
            assert!(fits, "{width}:\n{text}");
        }
    }
    assert!(rules_text(&[rule], 1000.0, None).contains("10s ago"));
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
        format!(
            "{reasons} reasons and {zeros} kinds of malformed packets without a drop are not shown (--all)"
        )
    );
    let none = counters_text(&Counters::default(), false, None);
    assert!(!none.to_lowercase().contains("malformed"), "{none}");
    let all = counters_text(&Counters::default(), true, None);
    for kind in Malformed::ALL {
        assert!(all.contains(kind.name()) && all.contains(kind.help()), "{all}");
    }
}
