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
    assert_eq!(node.balance(), before, "explain has changed something");
    assert_eq!(node.api.sessions("").len(), 1);
}

/// CPU time that a process has used, in clock ticks of 10 ms.
fn ticks(pid: nix::unistd::Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// What an idle node costs is printed, not asserted: this machine may be busy. That it sleeps at all is asserted.
#[test]
fn an_idle_node_sleeps_and_wakes_for_the_first_packet() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(RULES));
    client.ping(server.v4, 1);
    std::thread::sleep(Duration::from_millis(200));
    let before = ticks(node.process().pid());
    std::thread::sleep(Duration::from_secs(1));
    let used = ticks(node.process().pid()) - before;
    println!("an idle node uses {used} % of a CPU");
    assert!(used < 50, "an adaptive node that idles uses {used} % of a CPU");
    client.ping(server.v4, 1);
}
