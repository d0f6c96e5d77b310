//! The program as its users run it: arguments, exit status, what goes to which output. Against files, and against a
//! node that this test serves.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

mod control_support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use control_support::{CONFIG, Directory, LAN, Served, WAN};
use serde_json::Value;

fn haechi(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_haechi"))
        .args(arguments)
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard output of a command that must succeed and say nothing else.
#[track_caller]
fn done(arguments: &[&str]) -> String {
    let output = haechi(arguments);
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new()),
        "{arguments:?}"
    );
    text(&output.stdout)
}

/// Standard error of a command that must fail with this status and print nothing else.
#[track_caller]
fn fails(status: i32, arguments: &[&str]) -> String {
    let output = haechi(arguments);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(status), String::new()),
        "{arguments:?}"
    );
    text(&output.stderr)
}

/// JSON of a command, whatever its status.
#[track_caller]
fn json(status: i32, arguments: &[&str]) -> Value {
    let output = haechi(arguments);
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(status), String::new()),
        "{arguments:?}"
    );
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e} in {}", text(&output.stdout)))
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn wrong_usage_is_status_2() {
    let table: &[&[&str]] = &[
        &[],
        &["frobnicate"],
        &["run"],
        &["run", "-c"],
        &["check"],
        &["check", "a.toml", "b.toml"],
        &["show"],
        &["show", "weather"],
        &["show", "sessions", "colour=red"],
        &["show", "sessions", "protocol"],
        &["show", "sessions", "--limit", "0"],
        &["show", "sessions", "--limit", "5", "--all"],
        &["show", "status", "--verbose"],
        &["sessions"],
        &["sessions", "kill"],
        &["sessions", "kill", "--all", "protocol=tcp"],
        &["sessions", "kill", "source=10.0.0.300"],
        &["apply"],
        &["explain"],
        &["explain", "-c", "a.toml"],
        &["explain", "-c", "a.toml", "--socket", "/x", "--packet", "x"],
        &["explain", "-c", "a.toml", "--packet", "x", "--pcap", "y"],
        &[
            "explain", "-c", "a.toml", "--from", "a", "--port", "b", "--packet", "x",
        ],
        &["explain", "-c", "a.toml", "--both-directions", "--packet", "x"],
        &["ha"],
        &["ha", "check", "a.toml"],
        &["ha", "keygen"],
        &["ha", "keygen", "a", "b"],
        &["ha", "switchover", "now"],
        &["completions", "tcsh"],
    ];
    for arguments in table {
        let output = haechi(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{arguments:?}"
        );
    }
}

#[test]
fn commands_of_later_versions_are_refused_by_name() {
    let table: &[(&[&str], &str)] = &[
        (&["confirm"], "confirm"),
        (&["rollback"], "rollback"),
        (&["top"], "top"),
        (&["top", "--interval", "1s"], "top"),
        (&["capture", "-w", "x.pcap"], "capture"),
        (&["show", "routes"], "show routes"),
        (&["show", "neighbours", "--json"], "show neighbours"),
        (&["apply", "x.toml", "--confirm", "60s"], "apply --confirm"),
        (&["apply", "x.toml", "--confirm"], "apply --confirm"),
    ];
    for (arguments, name) in table {
        assert_eq!(
            fails(1, arguments),
            format!("haechi: `{name}` is not supported yet\n"),
            "{arguments:?}"
        );
    }
}

#[test]
fn check_says_what_it_understood() {
    let directory = Directory::new();
    let file = directory.file("fw.toml", CONFIG);
    assert_eq!(
        done(&["check", path(&file)]),
        format!(
            "{}: ok: node fw-test, transparent mode, 2 ports in 1 pair, 2 zones, 2 rules and 1 disabled, 1 worker\n",
            file.display()
        )
    );
    let report = json(0, &["check", path(&file), "--json"]);
    assert_eq!(
        (&report["ok"], &report["summary"]["rules"]),
        (&Value::from(true), &Value::from(2))
    );
    let wrong = CONFIG
        .replace("version = 1", "version = 2\nspeed = 11")
        .replace("burst", "bursts")
        .replace("mode = \"transparent\"", "mode = \"transparent\"\nburst = 1000")
        .replace("\"tcp/443\"", "\"tcp/https\"")
        .replace("action = \"reject\"", "action = \"refuse\"");
    let file = directory.file("wrong.toml", &wrong);
    let errors = fails(1, &["check", path(&file)]);
    assert!(errors.ends_with("5 errors, 0 warnings\n"), "{errors}");
    assert_eq!(errors.matches(": error: ").count(), 5, "{errors}");
    for line in errors.lines().filter(|line| line.contains(": error: ")) {
        assert!(line.starts_with(&format!("{}:", file.display())), "{line}");
    }
    let report = json(1, &["check", path(&file), "--json"]);
    assert_eq!(
        (&report["ok"], &report["summary"]),
        (&Value::from(false), &Value::Null)
    );
    assert_eq!(report["diagnostics"].as_array().unwrap().len(), 5);
    let none = fails(1, &["check", "/nonexistent/fw.toml"]);
    assert!(
        none.starts_with("/nonexistent/fw.toml: error: cannot read it"),
        "{none}"
    );
}

#[test]
fn check_reads_text_that_ends_and_says_what_is_none() {
    let directory = Directory::new();
    let latin = directory.file("latin1.toml", b"version = 1\n# f\xc3\xbcr M\xfcller\n");
    assert_eq!(
        fails(1, &["check", path(&latin)]),
        format!(
            "{}:2:8: error: cannot read it: it is not UTF-8 text: byte 0xfc in line 2, column 8\n  \
             = help: save it as UTF-8\n1 error, 0 warnings\n",
            latin.display()
        )
    );
    let includes = directory.file("main.toml", "version = 1\ninclude = [\"latin1.toml\"]\n");
    let error = fails(1, &["check", path(&includes)]);
    assert!(
        error.contains("main.toml:2:12: error: cannot read `")
            && error.contains("byte 0xfc in line 2, column 8")
            && error.contains("help: save it as UTF-8"),
        "{error}"
    );
    // Nobody writes into the pipe, nothing ends the device.
    let pipe = directory.path("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    for (file, what) in [
        (path(&pipe), "a named pipe"),
        ("/dev/zero", "a device"),
        (path(&directory.0), "a directory"),
    ] {
        for command in ["check", "run -c", "apply"] {
            let output = Command::new("timeout")
                .args(["30", env!("CARGO_BIN_EXE_haechi")])
                .args(command.split(' '))
                .arg(file)
                .output()
                .unwrap();
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command} {file}: {error}");
            let expected = format!("error: cannot read it: it is {what}, not a file");
            let refused = error.contains(&expected) && error.contains("write the configuration to a file");
            assert!(
                refused || command == "run -c" && cfg!(not(feature = "dpdk")),
                "{error}"
            );
        }
    }
    // What another command writes beside this one does end.
    let file = directory.file("fw.toml", CONFIG);
    for shell in [
        r#""$0" check <(cat "$1")"#,
        r#"cat "$1" | "$0" check /dev/stdin"#,
        r#""$0" check /dev/stdin <"$1""#,
    ] {
        let output = Command::new("bash")
            .args(["-c", shell, env!("CARGO_BIN_EXE_haechi"), path(&file)])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{shell}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains(": ok: node fw-test"), "{shell}");
    }
}

#[test]
fn schema_and_completions_are_what_they_claim() {
    let schema: Value = serde_json::from_str(&done(&["schema"])).unwrap();
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"));
    assert!(schema["properties"]["rule"].is_object());
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = done(&["completions", shell]);
        assert!(
            script.contains("haechi") && script.contains("both-directions"),
            "{shell}"
        );
        // What `--help` does not show is not offered.
        let words: BTreeSet<&str> = script.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        for word in [
            "sessions",
            "kill",
            "doctor",
            "unbind",
            "completions",
            "socket",
            "limit",
            "version",
            "keygen",
        ] {
            assert!(words.contains(word), "no {word} for {shell}");
        }
        for word in ["confirm", "rollback", "neighbours", "routes", "supported"] {
            assert!(!words.contains(word), "{word} for {shell}");
        }
    }
    let mut bash = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(
        &mut bash.stdin.take().unwrap(),
        done(&["completions", "bash"]).as_bytes(),
    )
    .unwrap();
    assert!(bash.wait().unwrap().success(), "bash reads it");
}

#[test]
fn a_reader_that_hangs_up_is_no_error() {
    for arguments in [&["schema"][..], &["completions", "zsh"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_haechi"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (Some(0), String::new())
        );
    }
}

#[test]
fn a_node_that_cannot_be_reached_is_one_line_with_the_fix() {
    let directory = Directory::new();
    let missing = directory.path("none.sock");
    let dead = directory.path("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let plain = directory.file("plain", "");
    for (socket, words) in [
        (&missing, "no node runs here:"),
        (&dead, "no node runs here any more"),
        (&plain, "no node runs here"),
    ] {
        for command in [
            &["show", "status"][..],
            &["show", "sessions", "--all"],
            &["show", "counters"],
            &["show", "ha"],
            &["ha", "switchover"],
            &["ha", "notify", "INSTANCE", "VI_1", "MASTER"],
            &["sessions", "kill", "--all"],
            &[
                "explain",
                "--from",
                "trust",
                "--packet",
                "tcp 10.0.0.1:1 > 10.0.0.2:2",
            ],
        ] {
            let arguments = [command, &["--socket", path(socket)]].concat();
            let error = fails(1, &arguments);
            assert!(
                error.starts_with(&format!("haechi: {}: {words}", socket.display())),
                "{error}"
            );
            assert!(
                error.contains("(start one with `haechi run`") && error.lines().count() == 1,
                "{error}"
            );
            let refused = json(1, &[&arguments[..], &["--json"]].concat());
            assert_eq!(refused["kind"], "unavailable");
        }
    }
}

#[test]
fn a_socket_of_something_else_is_told_apart() {
    let directory = Directory::new();
    let socket = directory.path("other.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let other = std::thread::spawn(move || {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "SSH-2.0-x\r\n",
            "",
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = std::io::Read::read(&mut stream, &mut [0; 1000]);
            let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
        }
    });
    for words in [
        "not one of this version's",
        "HTTP status 404",
        "the connection to the node broke",
        "the connection to the node broke",
    ] {
        let error = fails(1, &["show", "status", "--socket", path(&socket)]);
        assert!(error.contains(words) && error.lines().count() == 1, "{error}");
    }
    other.join().unwrap();
}

/// A node with something to show; its clock stands.
fn busy() -> Served {
    let served = Served::new(CONFIG);
    let node = &served.node;
    assert!(node.send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:80 syn seq=100"));
    assert!(node.send(WAN, "tcp 192.0.2.7:80 > 10.0.0.5:1000 syn ack seq=300 ack=101"));
    assert!(node.send(
        LAN,
        "tcp 10.0.0.5:1000 > 192.0.2.7:80 ack seq=101 ack=301 len=1000"
    ));
    assert!(node.send(LAN, "udp [2001:db8::5]:5353 > [2001:db8:1::7]:53 vlan=7 vlan=9"));
    assert!(node.send(LAN, "icmp 10.0.0.5 > 192.0.2.8 echo-request id=77"));
    assert!(!node.send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:25 syn"));
    assert!(!node.send(WAN, "tcp 192.0.2.7:1000 > 10.0.0.5:22 syn"));
    assert!(!node.send(WAN, "tcp 192.0.2.7:1000 > 10.0.0.5:22 ack"));
    served
}

#[test]
fn show_prints_tables() {
    let served = busy();
    let socket = path(&served.socket).to_owned();
    let show = |what: &[&str]| done(&[&["show"], what, &["--socket", &socket]].concat());
    insta::assert_snapshot!("show_status", show(&["status"]));
    insta::assert_snapshot!("show_ports", show(&["ports"]));
    insta::assert_snapshot!("show_workers", show(&["workers"]));
    insta::assert_snapshot!("show_rules", show(&["rules"]));
    // How many reasons there are is told by tests of the table.
    let counters = regex::Regex::new(r"not shown: \d+")
        .unwrap()
        .replace(&show(&["counters"]), "not shown: N")
        .into_owned();
    insta::assert_snapshot!("show_counters", counters);
    insta::assert_snapshot!("show_sessions", show(&["sessions"]));
    insta::assert_snapshot!(
        "show_sessions_filtered",
        show(&["sessions", "protocol=tcp", "--limit", "1"])
    );
    let all = show(&["counters", "--all"]);
    for reason in haechi::engine::DropReason::ALL {
        assert!(
            all.contains(reason.name()) && all.contains(reason.help()),
            "{all}"
        );
    }
}

/// What is not written to a terminal may be shown on one: `COLUMNS` says how wide that is.
#[test]
fn tables_fit_the_columns_that_the_environment_names() {
    let served = busy();
    for what in ["ports", "workers", "rules", "counters", "sessions"] {
        let widest = |columns: &str| {
            let output = Command::new(env!("CARGO_BIN_EXE_haechi"))
                .args(["show", what, "--socket", path(&served.socket)])
                .env("COLUMNS", columns)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            let table = text(&output.stdout);
            (
                table.lines().map(|line| line.chars().count()).max().unwrap(),
                table,
            )
        };
        for columns in [50, 80] {
            let (widest, table) = widest(&columns.to_string());
            assert!(widest <= columns, "{what} in {columns} columns:\n{table}");
        }
        let whole = done(&["show", what, "--socket", path(&served.socket)]);
        for columns in ["0", "", "wide", "1000"] {
            assert_eq!(widest(columns).1, whole, "COLUMNS={columns}");
        }
    }
}

#[test]
fn show_json_is_the_api_s() {
    let served = busy();
    let socket = path(&served.socket).to_owned();
    for what in ["status", "ports", "workers", "rules", "counters", "sessions"] {
        let api = served.get(&format!("/v1/{what}")).ok();
        assert_eq!(
            json(0, &["show", what, "--json", "--socket", &socket]),
            api,
            "{what}"
        );
    }
    let some = json(
        0,
        &["show", "sessions", "--json", "--limit", "2", "--socket", &socket],
    );
    assert_eq!(some["sessions"].as_array().unwrap().len(), 2);
    assert!(some["cursor"].is_string(), "there is more: {some}");
    let none = json(
        0,
        &["show", "sessions", "rule=nobody", "--json", "--socket", &socket],
    );
    assert_eq!(none, serde_json::json!({"sessions": [], "cursor": null}));
}

#[test]
fn more_sessions_than_a_page_are_listed_on_request() {
    let served = Served::new(CONFIG);
    for port in 0..1234 {
        assert!(
            served
                .node
                .send(LAN, &format!("udp 10.0.0.5:{} > 192.0.2.7:53", 1000 + port))
        );
    }
    let socket = path(&served.socket).to_owned();
    let first = done(&["show", "sessions", "--socket", &socket]);
    assert_eq!(first.lines().count(), 1002);
    assert!(first.ends_with("1000 sessions; there may be more (--limit, --all, or a filter)\n"));
    let all = done(&["show", "sessions", "--all", "--socket", &socket]);
    assert_eq!(all.lines().count(), 1236);
    assert!(all.ends_with("1234 sessions\n"));
    let all = json(0, &["show", "sessions", "--all", "--json", "--socket", &socket]);
    assert_eq!(all["sessions"].as_array().unwrap().len(), 1234);
}

#[test]
fn kill_says_how_many() {
    let served = busy();
    let socket = path(&served.socket).to_owned();
    let kill =
        |arguments: &[&str]| done(&[&["sessions", "kill"], arguments, &["--socket", &socket]].concat());
    assert_eq!(
        kill(&["protocol=tcp", "destination_port=80"]),
        "1 session ended\n"
    );
    assert_eq!(kill(&["protocol=tcp destination_port=80"]), "0 sessions ended\n");
    assert_eq!(kill(&["--all"]), "2 sessions ended\n");
    assert_eq!(
        json(0, &["sessions", "kill", "--all", "--json", "--socket", &socket]),
        serde_json::json!({"killed": 0})
    );
}

#[test]
fn apply_from_files_with_includes() {
    let served = busy();
    let socket = path(&served.socket).to_owned();
    let directory = &served.directory;
    let (head, rules) = CONFIG.split_once("[[rule]]").unwrap();
    let main = directory.file(
        "fw.toml",
        head.replace("version = 1", "version = 1\ninclude = [\"rules.toml\"]"),
    );
    directory.file(
        "rules.toml",
        format!(
            "[[rule]]{}",
            rules.replace("tcp/443", "tcp/8443").replace("no-mail", "no-post")
        ),
    );
    let apply = |more: &[&str]| done(&[&["apply", path(&main), "--socket", &socket], more].concat());
    let changes = "rules added: no-post\nrules removed: no-mail\nrules changed: lan-out\n";
    assert_eq!(
        apply(&["--dry-run"]),
        format!("{changes}live sessions that the new rules refuse: 0\nnothing was applied (--dry-run)\n")
    );
    let fewer = directory.file("fewer.toml", CONFIG.replace("\"tcp/80\", \"tcp/443\", ", ""));
    assert_eq!(
        done(&["apply", path(&fewer), "--dry-run", "--socket", &socket]),
        "rules changed: lan-out\nlive sessions that the new rules refuse: 1\nnothing was applied (--dry-run)\n"
    );
    assert_eq!(apply(&[]), format!("{changes}applied as generation 2\n"));
    assert_eq!(apply(&[]), "applied as generation 3; nothing changed\n");
    assert_eq!(apply(&["--dry-run"]), "nothing would change\n");
    let report = json(
        0,
        &["apply", path(&main), "--dry-run", "--json", "--socket", &socket],
    );
    assert_eq!(
        (&report["applied"], &report["generation"]),
        (&Value::from(false), &Value::from(3))
    );
    // Wrong: told at the user's file, before any node is asked.
    directory.file("rules.toml", "[[rule]]\nname = \"x\"\naction = \"maybe\"\n");
    let error = fails(1, &["apply", path(&main), "--socket", "/nonexistent.sock"]);
    assert!(
        error.contains("rules.toml:3:10: error: ") && error.ends_with("1 error, 0 warnings\n"),
        "{error}"
    );
    let refused = json(1, &["apply", path(&main), "--json", "--socket", &socket]);
    assert_eq!(refused["diagnostics"].as_array().unwrap().len(), 1);
    // Right, but not live.
    let restart = directory.file(
        "restart.toml",
        CONFIG.replace("max_sessions = 4096", "max_sessions = 10000"),
    );
    let error = fails(1, &["apply", path(&restart), "--socket", &socket]);
    assert!(
        error.starts_with("haechi: needs a restart of the node: conntrack.max_sessions ("),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn run_without_a_file_is_refused_at_once() {
    let error = fails(1, &["run", "-c", "/nonexistent/fw.toml"]);
    assert!(!error.is_empty());
}
