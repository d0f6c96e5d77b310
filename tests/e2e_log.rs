//! The logs of a running node: each session's life, as the API told it while it lived; alerts that add up; rotation; full disks.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "tests wait for real programs")]

mod lab;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use haechi::control::eventlog::file::LogFile;
use lab::frames::Ends;
use lab::{Config, Lab, Node, Running, process, wait_for};
use serde_json::{Value, json};

/// `[log]` with files of the lab, and where they are.
fn logs(lab: &Lab) -> (String, PathBuf, PathBuf) {
    let [sessions, alerts] = ["sessions.jsonl", "alerts.jsonl"].map(|name| lab.dir().join(name));
    let section = format!("[log]\nsessions = {sessions:?}\nalerts = {alerts:?}\n");
    (section, sessions, alerts)
}

/// The lines of a log that match, once there are `count` of them.
fn lines(path: &Path, count: usize, matches: impl Fn(&Value) -> bool) -> Vec<Value> {
    wait_for(&format!("{count} lines in {}", path.display()), || {
        let found: Vec<Value> = all_lines(path).into_iter().filter(&matches).collect();
        if found.len() >= count {
            Ok(found)
        } else {
            Err(format!("{found:#?}"))
        }
    })
}

fn all_lines(path: &Path) -> Vec<Value> {
    // Between two files there is none.
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.unwrap(),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// What the API said of a session, and the log says of its end.
#[track_caller]
fn assert_same(session: &Value, end: &Value) {
    for (key, value) in session.as_object().unwrap() {
        if !matches!(key.as_str(), "age_s" | "expires_in_s") {
            assert_eq!(&end[key], value, "{key}: {session}\n{end}");
        }
    }
    assert!(
        end["duration_s"].as_f64() >= session["age_s"].as_f64(),
        "{session}\n{end}"
    );
}

#[test]
fn a_download_begins_and_ends_in_the_log_as_the_api_told_it() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let (section, path, _) = logs(&lab);
    let node = lab.start(Config::new(&format!(
        "{section}[[rule]]\nname = \"web\"\nservice = [\"tcp/80\"]\naction = \"allow\"\nlog = \"both\"\n\
         [[rule]]\nname = \"short\"\nservice = [\"tcp/81\"]\naction = \"allow\"\nlog = \"end\"\n\
         timeouts = {{ tcp_time_wait = \"1s\" }}\n\
         [[rule]]\nname = \"rest\"\naction = \"allow\"\n"
    )));
    let site = lab.dir().join("site");
    std::fs::create_dir(&site).unwrap();
    std::fs::write(site.join("file"), vec![b'x'; 300_000]).unwrap();
    let _web = server.web_server(lab.dir(), &site, 80);
    assert_eq!(client.curl(&format!("http://{}/file", server.v4)).len(), 300_000);
    let session = wait_for("the connection is over", || {
        let sessions = node.api.sessions("destination_port=80");
        match &sessions[..] {
            [one] if one["state"] == "time_wait" => Ok(one.clone()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(session["bytes"][1].as_u64().unwrap() > 300_000);
    let start = &lines(&path, 1, |line| line["rule"] == "web")[0];
    assert_eq!(
        (&start["event"], &start["packets"], &start["source_port"]),
        (&json!("start"), &json!([1, 0]), &session["source_port"])
    );
    assert!(start.get("reason").is_none() && start.get("duration_s").is_none());
    // Nothing more while it lives; then why it ended, and all that the API knew of it.
    assert_eq!(all_lines(&path).len(), 1);
    node.cli("sessions kill destination_port=80");
    let end = &lines(&path, 1, |line| line["event"] == "end")[0];
    assert_eq!(end["reason"], "killed");
    assert_same(&session, end);

    // A session that ends by itself, and sessions that the node's stop ends, one of them without a log.
    let listener = server.listen(81);
    let connection = client.connect(server.v4, 81);
    lab::traffic::converse(connection, listener.accept().unwrap().0);
    let end = &lines(&path, 1, |line| line["rule"] == "short")[0];
    assert_eq!(
        (&end["reason"], &end["event"]),
        (&json!("finished"), &json!("end"))
    );
    assert!(end["duration_s"].as_f64() >= Some(1.0), "{end}");
    let (mut connection, mut there) = (client.connect(server.v4, 81), listener.accept().unwrap().0);
    connection.write_all(b"hello").unwrap();
    there.read_exact(&mut [0; 5]).unwrap();
    client.ping(server.v4, 1);
    node.balance();
    let alive = node.api.sessions("destination_port=81");
    let written = node.api.get("/v1/counters")["log_records_written"]
        .as_u64()
        .unwrap();
    assert_eq!(written, 3);
    let said = node.finish();
    assert!(
        said.contains("mbufs in use 0\n") && !said.contains("lost"),
        "{said}"
    );
    let all = all_lines(&path);
    assert_eq!(all.len(), 4, "{all:#?}");
    assert_eq!(all[3]["reason"], "shutdown");
    assert_same(&alive[0], &all[3]);
}

#[test]
fn alerts_and_what_they_left_out_are_the_rules_drops() {
    let mut lab = Lab::new();
    let (left, right) = lab.raw_pair("left", "right");
    let (section, _, path) = logs(&lab);
    let config = Config::new(&format!(
        "{section}[policy]\nalert_rate = \"1/s\"\n\
         [[rule]]\nname = \"no\"\nservice = [\"udp\"]\naction = \"drop\"\nlog = \"alert\"\n"
    ));
    // One worker's, in order: which of two workers' first alerts is written first nobody knows.
    let node = lab.start(config.node("workers", "\"1\""));
    let ends = Ends::v4(&left, &right);
    for n in 0..1000 {
        left.send(&ends.udp(1000 + n, 53, b"x"));
    }
    wait_for("all drops are told", || {
        let drops = node.api.rule("no")["packets"].as_u64().unwrap();
        let alerts = all_lines(&path);
        let left_out: u64 = alerts.iter().map(|a| a["suppressed"].as_u64().unwrap()).sum();
        let told = alerts.len() as u64 + left_out;
        if drops == 1000 && told == drops {
            Ok(())
        } else {
            Err(format!(
                "{drops} drops, {} alerts, {left_out} left out",
                alerts.len()
            ))
        }
    });
    let alerts = all_lines(&path);
    assert!(alerts.len() >= 2, "the first one, and what was left out");
    let expected = json!({
        "event": "alert", "reason": "policy", "action": "drop", "rule": "no", "protocol": "udp",
        "from": "left", "to": "right", "ingress": "left", "egress": "right", "source_port": 1000, "destination_port": 53,
        "bytes": 29, "suppressed": 0,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&alerts[0][key], value, "{key}: {}", alerts[0]);
    }
    assert_eq!(node.counters().drop_of("policy"), 1000);
}

fn apply(lab: &Lab, node: &Node, change: impl Fn(String) -> String) -> lab::api::Answer {
    let text = change(std::fs::read_to_string(node.file()).unwrap());
    let path = lab.file("changed.toml", &text);
    let request = json!({ "files": [{ "path": path, "text": text }] });
    node.api.request("POST", "/v1/apply", Some(&request)).unwrap()
}

#[test]
fn rotation_and_applies_under_a_running_node() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    // Beside the configuration's file.
    let node = lab.start(Config::new(
        "[log]\nsessions = \"sessions.jsonl\"\n[[rule]]\nname = \"all\"\naction = \"allow\"\nlog = \"start\"\n",
    ));
    let path = lab.dir().join("sessions.jsonl");
    let socket = client.udp(4000);
    let send = |port: u16| socket.send_to(b"x", (server.v4, port)).unwrap();
    let of = |port: u16| move |line: &Value| line["destination_port"] == port;
    send(1);
    lines(&path, 1, of(1));
    let old = lab.dir().join("sessions.jsonl.1");
    std::fs::rename(&path, &old).unwrap();
    wait_for("the log is made again", || {
        path.exists().then_some(()).ok_or_else(String::new)
    });
    send(2);
    lines(&path, 1, of(2));
    assert_eq!((all_lines(&old).len(), all_lines(&path).len()), (1, 1));

    let answer = apply(&lab, &node, |text| text.replace("sessions.jsonl", "other.jsonl"));
    assert_eq!(answer.code, 409);
    assert!(
        answer.body["error"]
            .as_str()
            .unwrap()
            .ends_with("restart of the node: log.sessions"),
        "{}",
        answer.body
    );
    // The sessions so far are logged as the new rules say when they end, the next ones from their start on.
    let answer = apply(&lab, &node, |text| text.replace("\"start\"", "\"end\""));
    assert_eq!(answer.code, 200, "{}", answer.body);
    send(3);
    wait_for("the session is made", || {
        match node.api.sessions("destination_port=3").len() {
            1 => Ok(()),
            n => Err(n.to_string()),
        }
    });
    assert_eq!(all_lines(&path).len(), 1);
    let said = node.cli("sessions kill protocol=udp");
    assert!(said.contains('3'), "{said}");
    let ends = lines(&path, 3, |line| line["reason"] == "killed");
    assert_eq!((ends.len(), all_lines(&path).len()), (3, 4));
}

#[test]
fn a_log_that_cannot_be_opened_keeps_the_node_from_starting() {
    let mut lab = Lab::new();
    let (_a, _b) = lab.raw_pair("lan", "wan");
    let missing = lab.dir().join("missing");
    let config = Config::new(&format!("[log]\nsessions = {:?}\n", missing.join("s.jsonl")));
    let mut process = Running::spawn(&lab, &lab.render(&config)).process;
    assert_eq!(process.wait().code(), Some(1));
    let said = process.complaints();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains(&format!("mkdir -p {}", missing.display())),
        "{said}"
    );
    assert!(!lab.socket().exists());
    // `check` touches no file.
    let file = lab.file("check.toml", lab.render(&config));
    process::run(Command::new(lab::node::HAECHI).arg("check").arg(file));
}

/// Sessions go on while their log has no room, the loss is counted and told, and the log goes on when there is room.
#[test]
fn a_full_disk_costs_records_and_nothing_else() {
    let mut lab = Lab::new();
    let (left, right) = lab.raw_pair("left", "right");
    let (section, path, _) = logs(&lab);
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let node = lab.start(Config::new(&format!(
        "{section}[[rule]]\nname = \"all\"\naction = \"allow\"\nlog = \"both\"\n"
    )));
    let ends = Ends::v4(&left, &right);
    let start = node.counters();
    for n in 0..500 {
        left.send(&ends.udp(1000 + n, 53, b"x"));
    }
    let now = node.settled_after(&start, 500);
    assert_eq!((now.sessions_created, now.dropped()), (500, 0));
    wait_for("the records are counted as lost", || {
        match node.api.get("/v1/counters")["log_records_lost"].as_u64() {
            Some(500) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let warnings = node.api.get("/v1/status")["warnings"].to_string();
    assert!(warnings.contains("No space left on device"), "{warnings}");
    assert!(
        node.cli("show counters")
            .contains("log records         0 (500 lost)"),
        "{}",
        node.cli("show counters")
    );
    let gap = node.api.get("/v1/workers")["workers"][0]["max_loop_gap_us"]
        .as_f64()
        .unwrap();
    println!("max_loop_gap_us {gap}");
    std::fs::remove_file(&path).unwrap();
    left.send(&ends.udp(1, 54, b"x"));
    lines(&path, 1, |line| line["destination_port"] == 54);
    let warnings = node.api.get("/v1/status")["warnings"].to_string();
    assert!(!warnings.contains("No space"), "{warnings}");
    let said = node.process().stderr();
    assert_eq!(
        said.matches("No space left on device").count(),
        1,
        "told once: {said}"
    );
    assert!(said.contains("written again, after 500 lost records"), "{said}");
    let said = node.finish();
    assert!(said.contains("log records lost 500\n"), "{said}");
}

/// A disk that is full in the middle of a line: no half line stays, and what is said to be written is.
#[test]
fn no_line_is_cut_where_the_disk_ends() {
    // A thread has mounts of its own, which go with it.
    let full = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let dir = tempfile::tempdir().unwrap();
        process::run(Command::new("mount").args(["--make-rprivate", "/"]));
        process::run(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
                .arg(dir.path()),
        );
        std::fs::write(dir.path().join("filler"), vec![0; 20_000]).unwrap();
        let path = dir.path().join("log");
        let mut file = LogFile::open(&path).unwrap();
        let (mut written, mut lost) = (0, 0);
        let mut batch = |file: &mut LogFile| {
            for n in 0..50 {
                let line = format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(90));
                file.line(|to| to.write_all(line.as_bytes()));
            }
            let done = file.flush();
            assert_eq!(done.lines + done.lost, 50);
            assert_eq!(done.error.is_some(), done.lost > 0);
            (written, lost) = (written + done.lines, lost + done.lost);
            let lines = all_lines(&path);
            assert_eq!(lines.len() as u64, written, "what is written is there");
            assert!(std::fs::read(&path).unwrap().ends_with(b"\n"), "no half line");
            (written, lost)
        };
        for _ in 0..20 {
            batch(&mut file);
        }
        let (before, lost) = batch(&mut file);
        assert!(before > 100 && lost > 100, "{before} written, {lost} lost");
        std::fs::remove_file(dir.path().join("filler")).unwrap();
        assert_eq!(batch(&mut file), (before + 50, lost));
        drop(file);
        // Lazily: a program that another test is starting may hold the file for a moment more.
        process::run(Command::new("umount").arg("--lazy").arg(dir.path()));
    });
    full.join().unwrap();
}
