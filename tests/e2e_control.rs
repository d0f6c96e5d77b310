//! Operators at a running node: the API by curl, the tables, explain on live sessions, and what an idle node costs.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use lab::{Config, Lab, process};
use serde_json::Value;

const RULES: &str = "[[rule]]\nname = \"web\"\nfrom = \"lan\"\nto = \"wan\"\nservice = [\"tcp/80\"]\naction = \"allow\"\n\
                     [[rule]]\nname = \"ping\"\nservice = [\"icmp/echo-request\"]\naction = \"allow\"\n";

#[test]
fn curl_and_the_tables_tell_the_same() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(RULES));
    let meta = std::fs::metadata(lab.socket()).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    let listener = server.listen(80);
    let connection = client.connect(server.v4, 80);
    let _there = listener.accept().unwrap();
    client.ping(server.v4, 3);
    let _ = client.connect_within(server.v4, 25, Duration::from_millis(100));
    node.balance();

    let curl = |path: &str| -> Value {
        let url = format!("http://localhost/v1/{path}");
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--fail", "--unix-socket"])
            .arg(lab.socket())
            .arg(url);
        serde_json::from_str(&process::run(&mut command)).unwrap()
    };
    let port = connection.local_addr().unwrap().port();
    for (path, words) in [
        ("status", vec!["lab", "transparent", "ready"]),
        (
            "sessions",
            vec!["established", "web", "ping", "10.9.1.1", "10.9.1.2"],
        ),
        ("rules", vec!["web", "ping", "implicit_drop", "allow"]),
        ("ports", vec!["lan", "wan", "net_af_xdp", "up"]),
        ("workers", vec!["1"]),
        ("counters", vec!["policy"]),
    ] {
        let table = node.cli(&format!("show {path}"));
        for word in &words {
            assert!(table.contains(word), "show {path} does not say {word}:\n{table}");
        }
        for line in table.lines() {
            assert!(
                line.chars().count() <= 200,
                "show {path} has a line that fits no terminal: {line}"
            );
        }
        let json: Value = serde_json::from_str(&node.cli(&format!("show {path} --json"))).unwrap();
        let by_curl = curl(path);
        let keys = |v: &Value| v.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>());
        assert_eq!(keys(&json), keys(&by_curl), "{path}");
        println!("{table}");
    }
    assert!(node.cli("show sessions").contains(&port.to_string()));
    let found = curl(&format!("sessions?protocol=tcp&source_port={port}"));
    assert_eq!(found["sessions"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(node.api.request("GET", "/v1/nonsense", None).unwrap().code, 404);
    assert!(
        (400..500).contains(
            &node
                .api
                .request("GET", "/v1/sessions?colour=red", None)
                .unwrap()
                .code
        )
    );
}

#[test]
fn explain_sees_live_sessions_and_changes_nothing() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(RULES));
    let listener = server.listen(80);
    let connection = client.connect(server.v4, 80);
    let _there = listener.accept().unwrap();
    let before = node.balance();
    let port = connection.local_addr().unwrap().port();
    let ask = |zone: &str, packet: &str| -> Value {
        let output = Command::new(lab::node::HAECHI)
            .args([
                "explain", "--json", "--from", zone, "--packet", packet, "--socket",
            ])
            .arg(lab.socket())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(said.lines().next().unwrap_or_default())
            .unwrap_or_else(|e| panic!("{e}: {said}{}", String::from_utf8_lossy(&output.stderr)))
    };
    let (a, b) = (client.v4, server.v4);
    let answer = ask("wan", &format!("tcp {b}:80 > {a}:{port} ack"));
    assert_eq!(
        (&answer["verdict"], &answer["rule"]),
        (&"forward".into(), &"web".into()),
        "{answer}"
    );
    let stray = ask("wan", &format!("tcp {b}:80 > {a}:{} ack", port ^ 1));
    assert_eq!(
        (&stray["verdict"], &stray["reason"]),
        (&"drop".into(), &"no_session".into()),
        "{stray}"
    );
    let new = ask("lan", &format!("tcp {a}:1 > {b}:80 syn"));
    assert_eq!(
        (&new["verdict"], &new["rule"]),
        (&"forward".into(), &"web".into()),
        "{new}"
    );
    let refused = ask("lan", &format!("tcp {a}:1 > {b}:81 syn"));
    assert_eq!(
        (&refused["verdict"], &refused["reason"]),
        (&"drop".into(), &"policy".into()),
        "{refused}"
    );
    // Not the packets in and out: the hosts' kernels may ask for each other's addresses meanwhile.
    let after = node.balance();
    assert_eq!(
        (
            after.sessions_created,
            after.sessions_ended,
            after.originated,
            &after.drops
        ),
        (
            before.sessions_created,
            before.sessions_ended,
            before.originated,
            &before.drops
        ),
        "explain has changed something"
    );
    assert_eq!(node.api.sessions("").len(), 1);
}

/// How often the node's worker has gone to sleep of its own will.
fn sleeps(pid: nix::unistd::Pid) -> u64 {
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().path();
        if std::fs::read_to_string(task.join("comm"))
            .unwrap()
            .starts_with("worker-")
        {
            let status = std::fs::read_to_string(task.join("status")).unwrap();
            let line = status
                .lines()
                .find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
            return line.unwrap().trim().parse().unwrap();
        }
    }
    panic!("the node has no worker");
}

/// What an idle node costs is for `benches/idle.sh`; that it sleeps, and wakes, is seen here.
#[test]
fn an_idle_node_sleeps_and_wakes_for_the_first_packet() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(RULES));
    client.ping(server.v4, 1);
    let before = sleeps(node.process().pid());
    lab::wait_for("the idle worker sleeps, again and again", || {
        let now = sleeps(node.process().pid());
        if now > before + 20 {
            Ok(())
        } else {
            Err(format!("{} times", now - before))
        }
    });
    client.ping(server.v4, 1);
}
