//! Changing the rules of a running node, under load and under the feet of open connections.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "tests wait for real programs")]

mod lab;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use lab::frames::Ends;
use lab::{Config, Lab, Node, wait_for};

/// What a process has now: thread ids, and resident memory in KiB.
fn footprint(node: &Node) -> (BTreeSet<String>, u64) {
    let proc = format!("/proc/{}", node.process().pid());
    let threads = std::fs::read_dir(format!("{proc}/task")).unwrap();
    let threads = threads
        .map(|t| t.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    (threads, rss.trim().trim_end_matches(" kB").parse().unwrap())
}

/// Ten applies a second under 100,000 sessions and an iperf3. `HAECHI_STORM_SECONDS` sets for how long
/// (tests/apply_storm.sh: 30).
#[test]
fn a_storm_of_applies_drops_nothing_and_keeps_sessions_threads_and_memory() {
    const SESSIONS: u64 = 100_000;
    let seconds: u64 = std::env::var("HAECHI_STORM_SECONDS").map_or(4, |s| s.parse().unwrap());
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let (left, right) = lab.raw_pair("left", "right");
    let rules = "[address_sets]\nfriends = [\"10.9.0.0/16\"]\n[[rule]]\nname = \"all\"\naction = \"allow\"\n";
    let conntrack = "max_sessions = 131072\n[conntrack.timeouts]\nudp_new = \"1h\"\n";
    let node = lab.start(Config::new(rules).conntrack(conntrack));

    let ends = Ends::v4(&left, &right);
    let start = node.counters();
    for n in 0..SESSIONS {
        left.send(&ends.udp(1 + (n % 50_000) as u16, 1 + (n / 50_000) as u16, b""));
        // In waves that fit a receive ring.
        if (n + 1) % 500 == 0 {
            wait_for("the sessions are made", || {
                let made = node.counters().sessions_created - start.sessions_created;
                if made == n + 1 {
                    Ok(())
                } else {
                    Err(format!("{made} of {}", n + 1))
                }
            });
        }
    }
    let _iperf = server.iperf_server(lab.dir());
    let line = format!(
        "iperf3 --client {} --bitrate 100M --time {}",
        server.v4,
        seconds + 60
    );
    let mut load = client.spawn(lab.dir(), "load", &line);
    wait_for("the load is on", || {
        if node.counters().rx_packets > start.rx_packets + SESSIONS + 1000 {
            Ok(())
        } else {
            Err("not yet".into())
        }
    });

    let text = std::fs::read_to_string(node.file()).unwrap();
    let variants = [
        text.clone(),
        text.replace("friends = [", "friends = [\"192.0.2.0/24\", ")
            + "[[rule]]\nname = \"more\"\nsource = [\"@friends\"]\naction = \"drop\"\n",
    ];
    let requests = variants.map(|text| {
        let path = lab.file("storm.toml", &text);
        serde_json::json!({ "files": [{ "path": path, "text": text }] })
    });
    // The allocator's and the runtime's first times are over after these.
    for request in requests.iter().cycle().take(10) {
        node.api.post("/v1/apply", request);
    }
    let generation = node.api.get("/v1/status")["generation"].as_u64().unwrap();
    let before = node.counters();
    let (threads, rss) = footprint(&node);
    let ports_before = node.api.get("/v1/ports");
    let (begin, mut applies) = (Instant::now(), 0);
    let mut slowest = Duration::ZERO;
    while begin.elapsed() < Duration::from_secs(seconds) {
        let apply = Instant::now();
        node.api.post("/v1/apply", &requests[applies % 2]);
        applies += 1;
        slowest = slowest.max(apply.elapsed());
        let next = begin + Duration::from_millis(100) * u32::try_from(applies).unwrap();
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let after = node.counters();
    let (threads_after, rss_after) = footprint(&node);
    println!(
        "{applies} applies in {:?}, the slowest {slowest:?}; resident {rss} KiB, then {rss_after}",
        begin.elapsed()
    );
    assert!(applies as u64 >= seconds * 9, "only {applies} in {seconds} s");
    assert!(load.ended().is_none(), "{}{}", load.stdout(), load.stderr());
    assert!(
        after.rx_packets > before.rx_packets + 1000,
        "the load has stopped: {before:?} {after:?}"
    );
    assert_eq!(after.drops, before.drops);
    assert_eq!(
        (after.sessions_created, after.sessions_ended),
        (before.sessions_created, before.sessions_ended),
        "the same sessions"
    );
    assert_eq!(threads_after, threads, "the same threads");
    assert!(
        rss_after <= rss + 2048,
        "memory grows: {rss} KiB, then {rss_after} KiB"
    );
    assert_eq!(
        node.api.get("/v1/status")["generation"].as_u64().unwrap(),
        generation + applies as u64
    );
    for port in ["lan", "wan"] {
        let missed = |ports: &serde_json::Value| {
            ports["ports"]
                .as_array()
                .unwrap()
                .iter()
                .find(|p| p["name"] == port)
                .unwrap()["rx_missed"]
                .as_u64()
                .unwrap()
        };
        assert_eq!(
            missed(&node.api.get("/v1/ports")),
            missed(&ports_before),
            "{port}: frames missed"
        );
    }
    let status = node.api.get("/v1/status");
    assert!(status["sessions"].as_u64().unwrap() > SESSIONS, "{status}");
    // More sessions than one command brings back: a dry run counts them all, under the load, and ends none.
    let text = text.replacen(
        "[[rule]]",
        "[[rule]]\nname = \"udp\"\nfrom = \"left\"\nservice = [\"udp\"]\naction = \"drop\"\n[[rule]]",
        1,
    );
    let request = serde_json::json!({
        "files": [{ "path": lab.file("storm.toml", &text), "text": text }], "dry_run": true,
    });
    let begin = Instant::now();
    let report = node.api.post("/v1/apply", &request);
    println!("a dry run in {:?}", begin.elapsed());
    assert_eq!(report["sessions_refused"], SESSIONS, "{report}");
    let now = node.counters();
    assert_eq!(
        (now.sessions_ended, &now.drops),
        (after.sessions_ended, &after.drops)
    );
    drop(load);
}

fn apply(lab: &Lab, node: &Node, change: impl Fn(String) -> String) -> lab::api::Answer {
    let text = change(std::fs::read_to_string(node.file()).unwrap());
    let path = lab.file("changed.toml", &text);
    let request = serde_json::json!({ "files": [{ "path": path, "text": text }] });
    node.api.request("POST", "/v1/apply", Some(&request)).unwrap()
}

#[test]
fn open_connections_outlive_an_apply_that_allows_them_and_end_under_one_that_does_not() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(
        "[[rule]]\nname = \"web\"\nfrom = \"lan\"\nto = \"wan\"\nservice = [\"tcp/80\", \"tcp/81\"]\naction = \"allow\"\n",
    ));
    let (web, other) = (server.listen(80), server.listen(81));
    let open = |listener: &std::net::TcpListener, port| {
        let outgoing = client.connect(server.v4, port);
        (outgoing, listener.accept().unwrap().0)
    };
    let (mut kept, mut kept_there) = open(&web, 80);
    let (mut revoked, mut revoked_there) = open(&other, 81);
    let fewer = |text: String| text.replace(", \"tcp/81\"", "");
    let file = lab.file("fewer.toml", fewer(std::fs::read_to_string(node.file()).unwrap()));
    let said = node.cli(&format!("apply {} --dry-run", file.display()));
    assert!(
        said.contains("live sessions that the new rules refuse: 1\n"),
        "{said}"
    );
    let answer = apply(&lab, &node, fewer);
    assert_eq!(answer.code, 200, "{}", answer.body);
    assert!(answer.body["sessions_refused"].is_null(), "{}", answer.body);
    assert_eq!(
        answer.body["rules_changed"],
        serde_json::json!(["web"]),
        "{}",
        answer.body
    );

    kept.write_all(b"hello").unwrap();
    kept_there.read_exact(&mut [0; 5]).unwrap();
    revoked.write_all(b"hello").unwrap();
    revoked_there
        .set_read_timeout(Some(Duration::from_millis(400)))
        .unwrap();
    assert!(
        revoked_there.read(&mut [0; 5]).is_err(),
        "a revoked connection still passes"
    );
    assert_eq!(node.api.sessions("destination_port=80").len(), 1);
    assert_eq!(node.api.sessions("destination_port=81").len(), 0);
    assert!(node.counters().drop_of("policy") > 0);

    // What is refused changes nothing.
    let generation = node.api.get("/v1/status")["generation"].clone();
    for (from, to, word) in [
        ("tcp/80", "tcp/80000", "80000"),
        ("memory_mib = 256", "memory_mib = 300", "memory_mib"),
        (
            "action = \"allow\"",
            "action = \"allow\"\nhelper = \"ftp\"",
            "helper",
        ),
    ] {
        let answer = apply(&lab, &node, |text| text.replace(from, to));
        assert!(
            (400..500).contains(&answer.code),
            "{to}: {} {}",
            answer.code,
            answer.body
        );
        assert!(answer.body.to_string().contains(word), "{to}: {}", answer.body);
    }
    assert_eq!(node.api.get("/v1/status")["generation"], generation);
    kept.write_all(b"hello").unwrap();
    kept_there.read_exact(&mut [0; 5]).unwrap();

    // The session of a rule that is removed stands under its name until its next packet.
    let answer = apply(&lab, &node, |text| text.replace("\"web\"", "\"www\""));
    assert_eq!(answer.code, 200, "{}", answer.body);
    let (web, www) = (node.api.rule("web"), node.api.rule("www"));
    assert_eq!(
        (&web["removed"], &web["sessions"]),
        (&true.into(), &1.into()),
        "{web}"
    );
    assert_eq!(
        (&www["removed"], &www["sessions"]),
        (&false.into(), &0.into()),
        "{www}"
    );
    kept.write_all(b"hello").unwrap();
    kept_there.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(node.api.rule("www")["sessions"], 1);
    let rules = node.api.get("/v1/rules");
    let names = rules["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| &rule["name"]);
    assert_eq!(names.collect::<Vec<_>>(), ["www", "implicit_drop"]);
}

#[test]
fn a_new_rule_lets_new_connections_in_and_a_killed_session_has_to_ask_again() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(""));
    let listener = server.listen(80);
    assert!(
        client
            .connect_within(server.v4, 80, Duration::from_millis(300))
            .is_err()
    );
    let file = lab.file(
        "allowing.toml",
        std::fs::read_to_string(node.file()).unwrap()
            + "[[rule]]\nname = \"web\"\nservice = [\"tcp/80\"]\naction = \"allow\"\n",
    );
    let (ok, said, complaint) = node.try_cli(&format!("apply {} --dry-run", file.display()));
    assert!(ok && said.contains("web"), "{said}{complaint}");
    assert!(
        client
            .connect_within(server.v4, 80, Duration::from_millis(300))
            .is_err(),
        "only a dry run"
    );
    node.cli(&format!("apply {}", file.display()));
    let mut connection = client.connect(server.v4, 80);
    let mut there = listener.accept().unwrap().0;
    connection.write_all(b"hello").unwrap();
    there.read_exact(&mut [0; 5]).unwrap();
    // The first attempts' SYNs may be under way still: their session is none of this.
    let port = connection.local_addr().unwrap().port();
    let kill = node.cli(&format!("sessions kill source_port={port} --json"));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&kill).unwrap()["killed"],
        1,
        "{kill}"
    );
    assert_eq!(node.api.sessions(&format!("source_port={port}")).len(), 0);
    let before = node.counters();
    connection.write_all(b"hello").unwrap();
    wait_for("a packet in mid-stream opens no session", || {
        let now = node.counters().drop_of("no_session");
        if now > before.drop_of("no_session") {
            Ok(())
        } else {
            Err(format!("{now}"))
        }
    });
}

/// `n` rules that no packet of the lab meets.
fn strangers(n: usize) -> String {
    let rule = |i| {
        format!(
            "[[rule]]\nname = \"r{i}\"\nsource = [\"198.18.{}.{}/32\", \"2001:db8:{i:x}::/48\"]\n\
             service = [\"tcp/{}\", \"udp/53\"]\naction = \"drop\"\n",
            i / 250,
            i % 250,
            1000 + i % 100
        )
    };
    (0..n).map(rule).collect()
}

#[test]
fn a_thousand_rules_come_under_traffic_and_are_looked_up_in_tries() {
    const ALL: &str = "[[rule]]\nname = \"all\"\naction = \"allow\"\n";
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(ALL));
    let tries = |method: &str| serde_json::json!({ "ipv4": method, "ipv6": method });
    assert_eq!(node.api.get("/v1/status")["classifier"], tries("linear"));
    let _iperf = server.iperf_server(lab.dir());
    let line = format!("iperf3 --client {} --bitrate 50M --time 120", server.v4);
    let mut load = client.spawn(lab.dir(), "load", &line);
    let flows_on = |node: &Node| {
        let start = node.counters();
        wait_for("the load is on", || {
            let now = node.counters();
            if now.rx_packets > start.rx_packets + 1000 {
                Ok(())
            } else {
                Err("not yet".into())
            }
        });
    };
    flows_on(&node);

    let closed = "[[rule]]\nname = \"closed\"\nservice = [\"tcp/81\"]\naction = \"reject\"\n";
    let before = node.counters();
    let answer = apply(&lab, &node, |text| {
        text.replace(ALL, &(strangers(1000) + closed + ALL))
    });
    assert_eq!(answer.code, 200, "{}", answer.body);
    assert_eq!(answer.body["warnings"], serde_json::json!([]));
    let status = node.api.get("/v1/status");
    assert_eq!(
        (&status["classifier"], &status["rules"]),
        (&tries("rte_acl"), &1002.into()),
        "{status}"
    );
    let shown = node.cli("show status");
    assert!(shown.contains("1002 rules by rte_acl\n"), "{shown}");
    flows_on(&node);
    assert!(load.ended().is_none(), "{}{}", load.stdout(), load.stderr());
    assert_eq!(node.counters().drops, before.drops);
    // New connections meet the rules behind the thousand, in their order and in both families.
    let _listeners = (server.listen(80), server.listen(81));
    for address in [server.v4, server.v6] {
        let _open = client.connect(address, 80);
        assert!(
            client
                .connect_within(address, 81, Duration::from_secs(5))
                .is_err()
        );
    }
    assert!(node.counters().drop_of("policy") >= before.drop_of("policy") + 2);
    assert_eq!(node.api.rule("closed")["sessions"], 0);
    assert!(node.api.rule("closed")["packets"].as_u64() >= Some(2));
    assert_eq!(node.api.rule("r7")["packets"], 0);

    // A product of lists that is too large for a trie: in force all the same, and said in three places.
    let every_second = |what: &str, n: usize| {
        let members: Vec<_> = (0..n).map(|i| format!("\"{what}{}\"", 2 * i + 1)).collect();
        members.join(", ")
    };
    let product = format!(
        "[[rule]]\nname = \"product\"\nsource = [{}]\nservice = [\"tcp\"]\nsource_ports = [{}]\naction = \"drop\"\n",
        every_second("203.0.113.", 100),
        every_second("", 200)
    );
    let answer = apply(&lab, &node, |text| {
        text.replace(ALL, &(strangers(1000) + &product + closed + ALL))
    });
    assert_eq!(answer.code, 200, "{}", answer.body);
    let said = answer.body["warnings"][0]["message"].as_str().unwrap_or_default();
    assert!(
        said.contains("rules for IPv4 are asked in order"),
        "{}",
        answer.body
    );
    let status = node.api.get("/v1/status");
    let mixed = serde_json::json!({ "ipv4": "linear", "ipv6": "rte_acl" });
    assert_eq!(status["classifier"], mixed, "{status}");
    assert_eq!(status["warnings"][0], said, "{status}");
    assert!(node.process().stderr().contains(said) || node.process().stdout().contains(said));
    flows_on(&node);
    let _open = client.connect(server.v4, 80);

    let answer = apply(&lab, &node, |text| text);
    assert_eq!(answer.code, 200, "{}", answer.body);
    assert_eq!(node.api.get("/v1/status")["classifier"], tries("linear"));
    flows_on(&node);
    assert!(load.ended().is_none(), "{}{}", load.stdout(), load.stderr());
    drop(load);
}
