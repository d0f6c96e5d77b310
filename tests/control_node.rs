//! What the control API does with a real engine behind it: sessions, kill, apply, explain.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

mod control_support;

use std::collections::BTreeSet;
use std::time::Duration;

use control_support::{Answer, CONFIG, LAN, Served, WAN};
use haechi::base::PortId;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A node with a few conversations of every kind.
fn busy() -> Served {
    let served = Served::new(CONFIG);
    let node = &served.node;
    assert!(node.send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:80 syn seq=100"));
    assert!(node.send(WAN, "tcp 192.0.2.7:80 > 10.0.0.5:1000 syn ack seq=300 ack=101"));
    assert!(node.send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:80 ack seq=101 ack=301"));
    assert!(node.send(LAN, "tcp 10.0.0.6:1001 > 192.0.2.7:443 syn"));
    assert!(node.send(LAN, "udp [2001:db8::5]:5353 > [2001:db8:1::7]:53 vlan=7"));
    node.sleep(Duration::from_secs(10));
    assert!(node.send(LAN, "udp 10.0.0.5:2000 > 192.0.2.7:53 vlan=7 vlan=9 len=100"));
    assert!(node.send(WAN, "udp 192.0.2.7:53 > 10.0.0.5:2000 vlan=7 vlan=9 len=200"));
    assert!(node.send(LAN, "icmp 10.0.0.5 > 192.0.2.8 echo-request id=77"));
    served
}

/// Names for the sessions of [`busy`].
fn name(session: &Value) -> String {
    format!(
        "{}:{}",
        session["protocol"].as_str().unwrap(),
        session["source_port"]
    )
}

fn found(answer: Answer) -> BTreeSet<String> {
    answer.ok()["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(name)
        .collect()
}

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

fn files(list: &[(&str, &str)]) -> Value {
    let list: Vec<_> = list
        .iter()
        .map(|(path, text)| json!({"path": path, "text": text}))
        .collect();
    json!({ "files": list })
}

fn with(mut request: Value, key: &str, value: Value) -> Value {
    request[key] = value;
    request
}

#[test]
fn apply_changes_rules_and_sets_live() {
    let served = busy();
    let node = &served.node;
    let new = CONFIG
        .replace(r#"service = ["tcp/80", "#, r#"service = ["#)
        .replace("name = \"no-mail\"", "name = \"no-post\"")
        .replace(
            "max_sessions = 4096",
            "max_sessions = 4096\nverify_checksums = false",
        )
        + "[[rule]]\nname = \"first\"\naction = \"drop\"\nservice = [\"proto/47\"]\n";
    let request = files(&[("/etc/haechi/test.toml", &new)]);
    let expected = json!({
        "applied": false, "generation": 1, "rules_added": ["no-post", "first"], "rules_removed": ["no-mail"],
        "rules_changed": ["lan-out"], "rules_reordered": false, "settings_changed": ["conntrack.verify_checksums"],
        "sessions_refused": null, "warnings": [],
    });
    let dry = served
        .post("/v1/apply", &with(request.clone(), "dry_run", json!(true)))
        .ok();
    // tcp/80 is out, the other four stay.
    assert_eq!(dry, with(expected.clone(), "sessions_refused", json!(1)));
    assert_eq!(
        served.get("/v1/status").ok()["generation"],
        1,
        "a dry run changes nothing"
    );
    assert!(node.send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:80 ack seq=101 ack=301"));
    let applied = served.post("/v1/apply", &request).ok();
    assert_eq!(
        applied,
        with(with(expected, "applied", json!(true)), "generation", json!(2))
    );
    assert_eq!(served.get("/v1/status").ok()["generation"], 2);
    // A session that the new rules refuse ends at its next packet; another goes on.
    assert!(!node.send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:80 ack seq=101 ack=301"));
    assert!(node.send(LAN, "udp 10.0.0.5:2000 > 192.0.2.7:53 vlan=7 vlan=9"));
    let left = found(served.get("/v1/sessions"));
    assert!(
        !left.contains("tcp:1000") && left.contains("udp:2000"),
        "{left:?}"
    );
}

/// Rules to apply over [`CONFIG`] with one that allows everything, and how many of [`opened`]'s sessions they refuse.
const REFUSALS: &[(&str, u64)] = &[
    ("action = \"allow\"", 0),
    ("action = \"drop\"", 10),
    ("action = \"reject\"", 10),
    ("action = \"allow\"\nfrom = \"trust\"", 3),
    ("action = \"allow\"\nto = \"trust\"", 7),
    ("action = \"allow\"\nservice = [\"tcp\", \"udp\"]", 5),
    ("action = \"allow\"\nservice = [\"tcp/80\"]", 8),
    (
        "action = \"allow\"\nservice = [\"tcp\", \"udp\"]\nsource_ports = [\"1000-1999\"]",
        7,
    ),
    ("action = \"allow\"\nservice = [\"icmp/echo-request\"]", 8),
    ("action = \"allow\"\nservice = [\"icmp/13/0\", \"icmpv6\"]", 8),
    ("action = \"allow\"\nservice = [\"proto/47\"]", 9),
    ("action = \"allow\"\nsource = [\"10.0.0.0/24\"]", 5),
    (
        "action = \"allow\"\ndestination = [\"10.0.0.0/24\", \"2001:db8:1::/64\"]",
        5,
    ),
    // A session goes by the first rule that matches it.
    (
        "action = \"drop\"\nservice = [\"udp\"]\n[[rule]]\nname = \"rest\"\naction = \"allow\"",
        2,
    ),
    (
        "action = \"allow\"\nservice = [\"udp\"]\n[[rule]]\nname = \"rest\"\naction = \"drop\"",
        8,
    ),
];

/// Packets that open a session of every kind, both ways, with equal addresses where only the direction differs.
fn opened() -> [(PortId, &'static str); 10] {
    [
        (LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:80 syn"),
        (WAN, "tcp 192.0.2.7:1000 > 10.0.0.5:80 syn"),
        (LAN, "tcp [2001:db8::5]:4000 > [2001:db8:1::7]:443 syn"),
        (LAN, "udp 10.0.0.5:1001 > 192.0.2.7:53"),
        (WAN, "udp 192.0.2.8:53 > 10.0.0.5:2001"),
        (LAN, "icmp 10.0.0.5 > 192.0.2.7 echo-request id=7"),
        (WAN, "icmp 192.0.2.7 > 10.0.0.5 echo-request id=7"),
        (LAN, "icmp 10.0.0.5 > 192.0.2.7 13/0"),
        (LAN, "icmpv6 2001:db8::5 > 2001:db8:1::7 echo-request id=7 vlan=9"),
        (LAN, "proto/47 10.0.0.5 > 192.0.2.7"),
    ]
}

/// The count is of exactly those that an apply then ends at their next packet: what the engine is asked about a session
/// and what the dry run asks are one question.
#[test]
fn a_dry_run_counts_the_sessions_that_the_apply_ends() {
    let (head, _) = CONFIG.split_once("[[rule]]").unwrap();
    let open = format!("{head}[[rule]]\nname = \"all\"\naction = \"allow\"\n");
    for (rules, expected) in REFUSALS {
        let served = Served::new(&open);
        for (port, packet) in opened() {
            assert!(served.node.send(port, packet), "{packet}");
        }
        let new = format!("{head}[[rule]]\nname = \"new\"\n{rules}\n");
        let request = files(&[("/x.toml", &new)]);
        let dry = with(request.clone(), "dry_run", json!(true));
        let count = || served.post("/v1/apply", &dry).ok()["sessions_refused"].clone();
        assert_eq!(count(), json!(expected), "{rules}");
        let applied = served.post("/v1/apply", &request).ok();
        assert_eq!(applied["sessions_refused"], json!(null), "only a dry run counts");
        let passed = opened()
            .into_iter()
            .filter(|(port, packet)| served.node.send(*port, packet));
        assert_eq!(passed.count() as u64, 10 - expected, "{rules}");
        let ended = &served.get("/v1/counters").ok()["sessions_ended"];
        assert_eq!(ended, expected, "{rules}");
        assert_eq!(count(), json!(0), "{rules}: they are gone");
    }
}

/// An apply may move a port to another zone: the sessions through it are asked about with the new one.
#[test]
fn a_dry_run_knows_the_new_zones() {
    let (head, _) = CONFIG.split_once("[[rule]]").unwrap();
    let open = format!("{head}[[rule]]\nname = \"all\"\naction = \"allow\"\nfrom = \"trust\"\n");
    let served = Served::new(&open);
    assert!(served.node.send(LAN, "udp 10.0.0.5:1 > 192.0.2.7:53"));
    for (zone, expected) in [("trust", 0), ("guests", 1)] {
        let moved = open.replace("zone = \"trust\"", &format!("zone = {zone:?}"))
            + &format!("[[zone]]\nname = {:?}\n", "trust");
        let request = with(files(&[("/x.toml", &moved)]), "dry_run", json!(true));
        let report = served.post("/v1/apply", &request).ok();
        assert_eq!(report["sessions_refused"], json!(expected), "{zone}");
    }
}

#[test]
fn an_order_alone_is_a_change() {
    let served = Served::new(CONFIG);
    let (head, rules) = CONFIG.split_once("[[rule]]").unwrap();
    let rules: Vec<_> = rules.split("[[rule]]").collect();
    let swapped = format!(
        "{head}[[rule]]{}[[rule]]{}[[rule]]{}",
        rules[1], rules[0], rules[2]
    );
    let report = served.post("/v1/apply", &files(&[("/x.toml", &swapped)])).ok();
    assert_eq!(
        (&report["rules_reordered"], &report["rules_changed"]),
        (&json!(true), &json!([]))
    );
}

#[test]
fn includes_travel_with_the_file() {
    let served = Served::new(CONFIG);
    let (head, rules) = CONFIG.split_once("[[rule]]").unwrap();
    let main = head.replace("version = 1", "version = 1\ninclude = [\"parts/../rules.toml\"]");
    let rules = format!("[[rule]]{rules}");
    let request = files(&[("/home/op/fw/a.toml", &main), ("/home/op/fw/rules.toml", &rules)]);
    let report = served.post("/v1/apply", &request).ok();
    assert_eq!(
        (&report["applied"], &report["rules_changed"]),
        (&json!(true), &json!([]))
    );
    // The included file is missing from the request: the diagnostic names where it is included.
    let answer = served.post("/v1/apply", &files(&[("/home/op/fw/a.toml", &main)]));
    assert!(
        answer.error(409).contains("/home/op/fw/a.toml"),
        "{}",
        answer.body
    );
    assert!(
        answer.body["diagnostics"][0]["file"]
            .as_str()
            .unwrap()
            .starts_with("/home/op/fw/"),
        "{}",
        answer.body
    );
    let twice = files(&[("/a.toml", CONFIG), ("/a.toml", CONFIG)]);
    assert!(
        served
            .post("/v1/apply", &twice)
            .error(400)
            .contains("/a.toml is there twice")
    );
}

#[test]
fn what_needs_a_restart_is_refused_by_name_and_nothing_changes() {
    let served = Served::new(CONFIG);
    let new = CONFIG
        .replace("max_sessions = 4096", "max_sessions = 8192")
        .replace("workers = \"1\"", "workers = \"2\"")
        .replace("peer = \"lan\"", "peer = \"lan\"\nmtu = 9000")
        .replace("name = \"no-mail\"", "name = \"no-post\"");
    let answer = served.post("/v1/apply", &files(&[("/x.toml", &new)]));
    let error = answer.error(409).to_owned();
    for key in ["node.workers", "port \"wan\".mtu", "conntrack.max_sessions"] {
        assert!(error.contains(key), "{error}");
    }
    assert!(
        answer.body["fix"]
            .as_str()
            .unwrap()
            .contains("nothing was changed")
    );
    assert_eq!(served.get("/v1/rules").ok()["rules"][1]["name"], "no-mail");
    assert_eq!(served.get("/v1/status").ok()["generation"], 1);
}

#[test]
fn a_socket_s_path_is_compared_as_the_file_that_it_means() {
    let relative = |socket: &str| {
        CONFIG.replace(
            "workers = \"1\"",
            &format!("workers = \"1\"\ncontrol_socket = \"{socket}\""),
        )
    };
    // The test's configuration stands in /etc/haechi.
    let served = Served::new(&relative("run/../h.sock"));
    for (path, socket, applies) in [
        ("/etc/haechi/other.toml", "h.sock", true),
        ("/home/op/fw.toml", "/etc/haechi/h.sock", true),
        ("/home/op/fw.toml", "../../etc/./haechi/h.sock", true),
        ("/home/op/fw.toml", "h.sock", false),
    ] {
        let answer = served.post("/v1/apply", &files(&[(path, &relative(socket))]));
        if applies {
            answer.ok();
        } else {
            assert!(
                answer.error(409).contains("node.control_socket"),
                "{}",
                answer.body
            );
        }
    }
}

#[test]
fn every_error_of_a_wrong_file_comes_back_with_its_place() {
    let served = Served::new(CONFIG);
    let wrong = CONFIG
        .replace("action = \"reject\"", "action = \"refuse\"")
        .replace("zone = \"untrust\"\n", "zone = \"untrust\"\ncolour = \"red\"\n")
        .replace("tcp/8080", "tcp/80800");
    let answer = served.post("/v1/apply", &files(&[("/etc/x.toml", &wrong)]));
    assert!(
        answer
            .error(409)
            .contains("/etc/x.toml: the configuration has 3 errors"),
        "{}",
        answer.body
    );
    let diagnostics = answer.body["diagnostics"].as_array().unwrap();
    assert_eq!(diagnostics.len(), 3);
    for diagnostic in diagnostics {
        assert_eq!(
            (&diagnostic["severity"], &diagnostic["file"]),
            (&json!("error"), &json!("/etc/x.toml"))
        );
        assert!(
            diagnostic["line"].as_u64() > Some(1) && diagnostic["column"].as_u64() > Some(0),
            "{diagnostic}"
        );
    }
    assert_eq!(served.get("/v1/status").ok()["generation"], 1);
}

fn explain(served: &Served, packets: &Value) -> Vec<Value> {
    let report = served.post("/v1/explain", &json!({ "packets": packets })).ok();
    report["verdicts"].as_array().unwrap().clone()
}

#[test]
fn explain_uses_copies_of_live_sessions_and_changes_nothing() {
    let served = busy();
    let before = [
        served.get("/v1/counters").ok(),
        served.get("/v1/sessions").ok(),
        served.get("/v1/rules").ok(),
    ];
    let verdicts = explain(
        &served,
        &json!([
            {"from": "untrust", "packet": "tcp 192.0.2.7:80 > 10.0.0.5:1000 ack seq=301 ack=101 len=10"},
            {"from": "untrust", "packet": "tcp 192.0.2.7:80 > 10.0.0.5:1002 ack"},
            {"from": "trust", "packet": "tcp 10.0.0.9:1 > 192.0.2.7:80 syn"},
            {"from": "trust", "packet": "tcp 192.0.2.7:80 > 10.0.0.9:1 syn ack"},
            {"from": "untrust", "packet": "tcp 192.0.2.7:1 > 10.0.0.9:25 syn"},
            {"from": "trust", "packet": "after 40s udp 10.0.0.5:2000 > 192.0.2.7:53"},
            {"port": "lan", "frame": "ffffffffffff0200000000010800"},
        ]),
    );
    let first = &verdicts[0];
    assert_eq!(
        (&first["verdict"], &first["egress"], &first["by"]),
        (&json!("forward"), &json!("lan"), &json!("session"))
    );
    assert_eq!(
        (&first["rule"], &first["session"]["state"]),
        (&json!("lan-out"), &json!("established"))
    );
    assert_eq!(
        first["session"]["packets"],
        json!([2, 2]),
        "the copy goes on counting where the live one is"
    );
    assert_eq!(first["session"]["age_s"], 10.0);
    assert_eq!(
        (&verdicts[1]["reason"], &verdicts[1]["by"]),
        (&json!("no_session"), &json!("none"))
    );
    assert_eq!(
        (&verdicts[2]["by"], &verdicts[2]["session"]["state"]),
        (&json!("new_session"), &json!("syn_sent"))
    );
    assert_eq!(
        verdicts[3]["ingress"], "wan",
        "an answer comes in where the question went out"
    );
    assert_eq!(verdicts[3]["session"]["state"], "syn_received");
    assert_eq!(
        (&verdicts[4]["reason"], &verdicts[4]["rule"]),
        (&json!("policy"), &json!("no-mail"))
    );
    assert_eq!(
        verdicts[4]["answers"],
        json!(["tcp 10.0.0.9:25 > 192.0.2.7:1 rst ack by wan"])
    );
    assert_eq!(
        (&verdicts[5]["by"], &verdicts[5]["at_ns"]),
        (&json!("new_session"), &json!(40_000_000_000_u64))
    );
    assert_eq!(
        (&verdicts[6]["reason"], &verdicts[6]["by"]),
        (&json!("malformed"), &json!("layer2"))
    );
    let after = [
        served.get("/v1/counters").ok(),
        served.get("/v1/sessions").ok(),
        served.get("/v1/rules").ok(),
    ];
    assert_eq!(before, after);
}

#[test]
fn live_copies_idle_out_as_the_live_ones_will() {
    let served = busy();
    // Half open and idle for 10 of 30 seconds.
    let reply = |time: &str| json!([{"from": "untrust", "packet": format!("{time}tcp 192.0.2.7:443 > 10.0.0.6:1001 syn ack")}]);
    assert_eq!(explain(&served, &reply(""))[0]["verdict"], "forward");
    assert_eq!(explain(&served, &reply("after 19s "))[0]["verdict"], "forward");
    assert_eq!(explain(&served, &reply("after 21s "))[0]["reason"], "no_session");
    // A packet centuries later finds nothing, and takes no time to say so.
    assert_eq!(explain(&served, &reply("after 200d "))[0]["reason"], "no_session");
    let mut later = reply("");
    later[0]["at_ns"] = json!(u64::MAX);
    assert_eq!(explain(&served, &later)[0]["reason"], "no_session");
}

/// The rows' sessions are all sessions, also those that a removed rule let in and that have had no packet since.
#[test]
fn a_removed_rule_is_listed_while_it_has_sessions() {
    let served = busy();
    let rows = |expected: &[(&str, u64, bool)]| {
        let list = served.get("/v1/rules").ok();
        let rows: Vec<_> = list["rules"].as_array().unwrap().iter().collect();
        let short: Vec<_> = rows
            .iter()
            .map(|r| {
                (
                    r["name"].as_str().unwrap(),
                    r["sessions"].as_u64().unwrap(),
                    r["removed"].as_bool().unwrap(),
                )
            })
            .collect();
        assert_eq!(short, expected);
        let sum: u64 = short.iter().map(|row| row.1).sum();
        assert_eq!(served.get("/v1/status").ok()["sessions"], sum, "{short:?}");
        list["rules"].clone()
    };
    let apply = |text: &str| served.post("/v1/apply", &files(&[("/x.toml", text)])).ok();
    let (mail, none) = (("no-mail", 0, false), ("implicit_drop", 0, false));
    let publish = ("publish", 0, false);
    rows(&[("lan-out", 5, false), mail, publish, none]);
    apply(&CONFIG.replace("\"lan-out\"", "\"everything\""));
    let list = rows(&[
        ("everything", 0, false),
        mail,
        publish,
        none,
        ("lan-out", 5, true),
    ]);
    assert_eq!(
        (&list[4]["action"], &list[4]["from"], &list[4]["enabled"]),
        (&json!("allow"), &json!([]), &json!(true))
    );
    let text = |what: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_haechi"))
            .args(["show", what, "--socket"])
            .arg(&served.socket)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = text("rules");
    let last = shown.lines().last().unwrap();
    assert!(last.starts_with("lan-out        allow (removed)  "), "{shown}");
    // A packet moves its session to the rule that allows it now.
    assert!(
        served
            .node
            .send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:80 ack seq=101 ack=301")
    );
    rows(&[
        ("everything", 1, false),
        mail,
        publish,
        none,
        ("lan-out", 4, true),
    ]);
    served.delete("/v1/sessions?rule=lan-out").ok();
    rows(&[("everything", 1, false), mail, publish, none]);
    // Under its old name it is that rule again, and one that is switched off is still there.
    apply(&CONFIG.replace("\"lan-out\"", "\"lan-out\"\nenabled = false"));
    rows(&[
        ("lan-out", 0, false),
        mail,
        publish,
        none,
        ("everything", 1, true),
    ]);
}

#[test]
fn explain_judges_by_the_policy_of_the_moment() {
    let served = busy();
    let established = json!([{"from": "trust", "packet": "tcp 10.0.0.5:1000 > 192.0.2.7:80 ack"}]);
    assert_eq!(explain(&served, &established)[0]["verdict"], "forward");
    let new = CONFIG.replace(r#"service = ["tcp/80", "#, r#"service = ["#);
    served.post("/v1/apply", &files(&[("/x.toml", &new)])).ok();
    let refused = &explain(&served, &established)[0];
    assert_eq!(
        (&refused["reason"], &refused["by"]),
        (&json!("policy"), &json!("implicit_drop"))
    );
    assert!(
        found(served.get("/v1/sessions")).contains("tcp:1000"),
        "the live session waits for its own packet"
    );
}
