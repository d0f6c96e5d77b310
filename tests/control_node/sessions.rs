//! Sessions: what is known of them, filters, kill, pages.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use crate::busy::{busy, found};
use crate::control_support::{CONFIG, LAN, Served};

#[test]
fn a_session_says_all_that_is_known_of_it() {
    let served = busy();
    let tcp = served.get("/v1/sessions?source_port=1000").ok();
    assert_eq!(
        tcp["sessions"],
        json!([{
            "protocol": "tcp", "source": "10.0.0.5", "source_port": 1000,
            "destination": "192.0.2.7", "destination_port": 80, "vlan": [], "state": "established",
            "rule": "lan-out", "from": "trust", "to": "untrust", "ingress": "lan", "egress": "wan", "nat": null,
            "packets": [2, 1], "bytes": [80, 40], "age_s": 10.0,
            // 2h4m less ten seconds, to the tick.
            "expires_in_s": tcp["sessions"][0]["expires_in_s"], "worker": 0, "owner": "local",
        }])
    );
    let left = tcp["sessions"][0]["expires_in_s"].as_f64().unwrap();
    assert!((7429.9..7430.1).contains(&left), "{left}");
    let udp = served.get("/v1/sessions?protocol=udp&vlan=9").ok();
    let udp = &udp["sessions"][0];
    assert_eq!(
        (&udp["vlan"], &udp["state"]),
        (&json!([7, 9]), &json!("udp_replied"))
    );
    assert_eq!(
        (&udp["packets"], &udp["bytes"]),
        (&json!([1, 1]), &json!([128, 228]))
    );
    let six = served.get("/v1/sessions?source=2001:db8::/32").ok();
    assert_eq!(six["sessions"][0]["source"], "2001:db8::5");
    let ping = served.get("/v1/sessions?protocol=icmp").ok();
    assert_eq!(
        (&ping["sessions"][0]["source_port"], &ping["sessions"][0]["state"]),
        (&json!(77), &json!("icmp"))
    );
}

#[test]
fn filters_find_by_every_field() {
    let served = busy();
    let all = ["tcp:1000", "tcp:1001", "udp:5353", "udp:2000", "icmp:77"];
    let table: &[(&str, &[&str])] = &[
        ("", &all),
        ("protocol=tcp", &["tcp:1000", "tcp:1001"]),
        ("protocol=6,1", &["tcp:1000", "tcp:1001", "icmp:77"]),
        ("protocol=47", &[]),
        ("protocol=tcp,icmp", &["tcp:1000", "tcp:1001", "icmp:77"]),
        ("protocol!=tcp", &["udp:5353", "udp:2000", "icmp:77"]),
        ("protocol%21=tcp", &["udp:5353", "udp:2000", "icmp:77"]),
        ("protocol=tcp&protocol=udp", &[]),
        ("source=10.0.0.0/29&protocol=udp", &["udp:2000"]),
        ("source=10.0.0.6", &["tcp:1001"]),
        ("source=::/0", &["udp:5353"]),
        ("source_port=1000-1001", &["tcp:1000", "tcp:1001"]),
        ("source_port=-1000", &["tcp:1000", "icmp:77"]),
        ("destination=192.0.2.8,2001:db8:1::/48", &["udp:5353", "icmp:77"]),
        ("destination_port=443-", &["tcp:1001"]),
        ("address=192.0.2.8", &["icmp:77"]),
        ("address=10.0.0.6", &["tcp:1001"]),
        ("vlan=0", &["tcp:1000", "tcp:1001", "icmp:77"]),
        ("vlan=7", &["udp:5353", "udp:2000"]),
        ("vlan=9", &["udp:2000"]),
        ("state=established", &["tcp:1000"]),
        ("state=syn_sent,udp_new", &["tcp:1001", "udp:5353"]),
        ("rule=lan-out", &all),
        ("rule=no-mail", &[]),
        ("from=trust&to=untrust", &all),
        ("from=untrust", &[]),
        ("ingress=lan&egress=wan", &all),
        ("ingress=wan", &[]),
        ("nat=null", &all),
        ("nat=10.0.0.0/8", &[]),
        ("packets=3-", &["tcp:1000"]),
        ("packets=2", &["udp:2000"]),
        ("bytes=-100", &["tcp:1001", "udp:5353", "icmp:77"]),
        ("age_s=5s-", &["tcp:1000", "tcp:1001", "udp:5353"]),
        ("age_s=0", &["udp:2000", "icmp:77"]),
        ("expires_in_s=1h-", &["tcp:1000"]),
        ("expires_in_s=-25s", &["tcp:1001", "udp:5353"]),
        ("worker=0", &all),
        ("worker=1-", &[]),
        ("owner=local", &all),
        ("owner=peer", &[]),
    ];
    for (query, expected) in table {
        let expected: BTreeSet<String> = expected.iter().map(|s| (*s).to_owned()).collect();
        assert_eq!(
            found(served.get(&format!("/v1/sessions?{query}"))),
            expected,
            "{query}"
        );
    }
}

#[test]
fn kill_ends_what_the_filter_finds_and_nothing_else() {
    let served = busy();
    assert_eq!(
        served.delete("/v1/sessions?destination_port=9999").ok(),
        json!({"killed": 0})
    );
    assert_eq!(
        served.delete("/v1/sessions?protocol=tcp").ok(),
        json!({"killed": 2})
    );
    assert_eq!(
        found(served.get("/v1/sessions")),
        BTreeSet::from(["udp:5353", "udp:2000", "icmp:77"].map(str::to_owned))
    );
    assert!(
        !served.node.send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:80 ack"),
        "its next packet finds no session"
    );
    let rules = served.get("/v1/rules").ok();
    assert_eq!(rules["rules"][0]["sessions"], 3, "the rule's count follows");
    assert_eq!(served.delete("/v1/sessions?all=true").ok(), json!({"killed": 3}));
    let counters = served.get("/v1/counters").ok();
    assert_eq!(
        (&counters["sessions_created"], &counters["sessions_ended"]),
        (&json!(5), &json!(5))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Pages of any size show every session once.
    #[test]
    fn pages_add_up(sessions in 0usize..120, limit in 1usize..50) {
        let served = Served::new(CONFIG);
        for port in 0..sessions {
            let made = served.node.send(LAN, &format!("udp 10.0.0.5:{} > 192.0.2.7:53", 1000 + port));
            prop_assert!(made);
        }
        let mut seen = Vec::new();
        let mut target = format!("/v1/sessions?protocol=udp&limit={limit}");
        for page in 0.. {
            prop_assert!(page <= sessions, "pages end");
            let answer = served.get(&target).ok();
            let page = answer["sessions"].as_array().unwrap();
            prop_assert!(page.len() <= limit);
            seen.extend(page.iter().map(|s| s["source_port"].as_u64().unwrap()));
            match answer["cursor"].as_str() {
                Some(cursor) => target = format!("/v1/sessions?protocol=udp&limit={limit}&cursor={cursor}"),
                None => break,
            }
        }
        seen.sort_unstable();
        let expected: Vec<u64> = (1000..1000 + sessions as u64).collect();
        prop_assert_eq!(seen, expected);
    }
}
