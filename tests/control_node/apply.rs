//! Apply: what changes live, what a dry run says, what is refused, what is left of removed rules.

use haechi::base::PortId;
use serde_json::json;

use crate::busy::{busy, files, found, with};
use crate::control_support::{CONFIG, LAN, Served, WAN};

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
