//! The control API over its socket: routes, refusals, limits, the socket's file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

mod control_support;

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use control_support::{CONFIG, Directory, LAN, Served, TestNode, answer, connect, request};
use haechi::control::api::{ControlSocket, Limits, MAX_BODY_BYTES};
use haechi::control::node::{ApplyRequest, ExplainRequest};
use haechi::engine::DropReason;
use haechi::packet::Malformed;
use serde_json::json;

#[test]
fn every_read_route_answers_with_its_shape() {
    let served = Served::new(CONFIG);
    assert!(served.node.send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:80 syn"));
    assert!(!served.node.send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:25 syn"));
    let status = served.get("/v1/status").ok();
    assert_eq!(
        (&status["node"], &status["state"]),
        (&json!("fw-test"), &json!("ready"))
    );
    assert_eq!((&status["sessions"], &status["rules"]), (&json!(1), &json!(2)));
    let ports = served.get("/v1/ports").ok();
    assert_eq!(ports["ports"][0]["name"], "wan");
    for key in [
        "name",
        "device",
        "driver",
        "mac",
        "link_up",
        "rx_packets",
        "tx_packets",
        "rx_bytes",
        "tx_bytes",
        "rx_missed",
        "tx_dropped",
        "rx_queues",
        "rss",
    ] {
        assert!(ports["ports"][1].get(key).is_some(), "a port has {key}");
    }
    let workers = served.get("/v1/workers").ok();
    for key in [
        "cpu",
        "packets",
        "forwarded",
        "dropped",
        "sessions",
        "busy",
        "cycles_per_packet",
        "handed_over",
        "max_loop_gap_us",
        "expiry_lag_ms",
    ] {
        assert!(workers["workers"][0].get(key).is_some(), "a worker has {key}");
    }
    let rules = served.get("/v1/rules").ok();
    assert_eq!(
        (&rules["rules"][0]["name"], &rules["rules"][0]["sessions"]),
        (&json!("lan-out"), &json!(1))
    );
    assert_eq!(rules["rules"][2]["enabled"], false);
    for key in ["name", "sessions", "packets", "bytes", "last_hit", "limited"] {
        assert!(rules["rules"][0].get(key).is_some(), "a rule has {key}");
    }
    assert!(!served.node.send_frame(LAN, vec![0; 13]));
    let counters = served.get("/v1/counters").ok();
    let drops = counters["drops"].as_object().unwrap();
    assert_eq!(
        drops.len(),
        DropReason::COUNT,
        "one entry for every reason, zeros too"
    );
    assert_eq!((&drops["policy"], &drops["malformed"]), (&json!(1), &json!(1)));
    for key in [
        "rx_packets",
        "tx_packets",
        "originated",
        "rejects_suppressed",
        "timeout_resets",
        "timeout_resets_missed",
        "log_records_written",
        "log_records_lost",
        "fragments",
        "fragments_reassembled",
        "fragments_held",
        "syn_cookies_sent",
        "syn_cookies_accepted",
        "syn_retries_lost",
        "held",
        "sessions_created",
        "sessions_ended",
        "sessions_evicted",
        "sources_full",
    ] {
        assert!(counters[key].is_u64(), "counters have {key}");
    }
    let kinds = counters["malformed"].as_object().unwrap();
    let names: Vec<_> = kinds.keys().map(String::as_str).collect();
    let mut all: Vec<_> = Malformed::ALL.iter().map(|kind| kind.name()).collect();
    all.sort_unstable();
    assert_eq!(names, all, "one entry for every kind, zeros too");
    assert_eq!(
        (&kinds["ethernet_truncated"], &kinds["tcp_options"]),
        (&json!(1), &json!(0))
    );
    let sessions = served.get("/v1/sessions").ok();
    assert_eq!(sessions["cursor"], json!(null));
    for key in [
        "protocol",
        "source",
        "source_port",
        "destination",
        "destination_port",
        "state",
        "rule",
        "from",
        "to",
        "nat",
        "packets",
        "bytes",
        "age_s",
        "expires_in_s",
        "worker",
        "owner",
    ] {
        assert!(sessions["sessions"][0].get(key).is_some(), "a session has {key}");
    }
}

/// Method, target, body, status code, words of the error.
type Refusal<'a> = (&'a str, &'a str, &'a str, u16, &'a str);

#[test]
fn what_cannot_be_is_refused_by_name() {
    let served = Served::new(CONFIG);
    let table: &[Refusal<'_>] = &[
        ("GET", "/", "", 404, "there is no /"),
        ("GET", "/v1/nothing", "", 404, "there is no /v1/nothing"),
        ("GET", "/v1/sessions/7", "", 404, "there is no /v1/sessions/7"),
        ("GET", "/v2/status", "", 404, "there is no /v2/status"),
        ("GET", "/v1/ha", "", 501, "GET /v1/ha is not supported yet"),
        (
            "GET",
            "/v1/routes",
            "",
            501,
            "GET /v1/routes is not supported yet",
        ),
        (
            "GET",
            "/v1/neighbours",
            "",
            501,
            "GET /v1/neighbours is not supported yet",
        ),
        (
            "POST",
            "/v1/confirm",
            "",
            501,
            "POST /v1/confirm is not supported yet",
        ),
        (
            "POST",
            "/v1/rollback",
            "",
            501,
            "POST /v1/rollback is not supported yet",
        ),
        (
            "GET",
            "/v1/confirm",
            "",
            405,
            "GET /v1/confirm: the method does not fit",
        ),
        (
            "POST",
            "/v1/status",
            "",
            405,
            "POST /v1/status: the method does not fit",
        ),
        (
            "GET",
            "/v1/apply",
            "",
            405,
            "GET /v1/apply: the method does not fit",
        ),
        (
            "PUT",
            "/v1/sessions",
            "",
            405,
            "PUT /v1/sessions: the method does not fit",
        ),
        ("GET", "/v1/status?verbose=1", "", 400, "`verbose`"),
        ("POST", "/v1/apply?dry_run=1", "{}", 400, "`dry_run`"),
        ("GET", "/v1/sessions?limit=0", "", 400, "`limit`"),
        (
            "GET",
            "/v1/sessions?limit=10001",
            "",
            400,
            "`limit` is a number from 1 to 10000, but it is `10001`",
        ),
        ("GET", "/v1/sessions?limit=-1", "", 400, "`limit`"),
        ("GET", "/v1/sessions?cursor=x", "", 400, "`cursor`"),
        ("GET", "/v1/sessions?cursor=1.99999999999", "", 400, "`cursor`"),
        (
            "GET",
            "/v1/sessions?colour=red",
            "",
            400,
            "`colour` is not a field of a session",
        ),
        ("GET", "/v1/sessions?source=10.0.0.300", "", 400, "`source`"),
        ("GET", "/v1/sessions?source_port=70000", "", 400, "`source_port`"),
        ("GET", "/v1/sessions?age_s=old", "", 400, "`age_s`"),
        ("GET", "/v1/sessions?owner=me", "", 400, "`owner`"),
        ("GET", "/v1/sessions?state=", "", 400, "`state`: it needs a value"),
        (
            "GET",
            "/v1/sessions?%ff%fe=%ff",
            "",
            400,
            "is not a field of a session",
        ),
        (
            "DELETE",
            "/v1/sessions",
            "",
            400,
            "say which sessions, or `all=true`",
        ),
        ("DELETE", "/v1/sessions?all=yes", "", 400, "`all`"),
        (
            "DELETE",
            "/v1/sessions?all=true&protocol=tcp",
            "",
            400,
            "one of the two",
        ),
        ("POST", "/v1/apply", "", 400, "body: there is none"),
        (
            "POST",
            "/v1/apply",
            "{",
            400,
            "body: it is not JSON: EOF while parsing",
        ),
        (
            "POST",
            "/v1/apply",
            "version = 1",
            400,
            "body: it is not JSON: expected value at line 1",
        ),
        (
            "POST",
            "/v1/apply",
            "[]",
            400,
            "body: it is an array of length 0, expected an object with `files`",
        ),
        (
            "POST",
            "/v1/apply",
            r#""version = 1""#,
            400,
            "body: it is the string \"version = 1\", expected an object with `files`",
        ),
        ("POST", "/v1/apply", "{}", 400, "missing field `files`"),
        ("POST", "/v1/apply", r#"{"files": []}"#, 400, "`files`"),
        (
            "POST",
            "/v1/apply",
            r#"{"files": [{"path": 7}]}"#,
            400,
            "body: `files[0].path`: it is the number `7`, expected a string",
        ),
        (
            "POST",
            "/v1/apply",
            r#"{"files": [], "force": true}"#,
            400,
            "unknown field `force`",
        ),
        (
            "POST",
            "/v1/apply",
            r#"{"files": []} x"#,
            400,
            "it goes on behind its end: trailing characters",
        ),
        (
            "POST",
            "/v1/apply",
            r#"{"files": {"path": "x"}, "dry_run": true}"#,
            400,
            "body: `files`: it is an object, expected an array",
        ),
        (
            "POST",
            "/v1/apply",
            r#"{"files": ["x"]}"#,
            400,
            "body: `files[0]`: it is the string \"x\", expected an object with `path` and `text`",
        ),
        (
            "POST",
            "/v1/explain",
            r#"{"packets": ["tcp 10.0.0.1:1 > 10.0.0.2:80"]}"#,
            400,
            "body: `packets[0]`: it is the string \"tcp 10.0.0.1:1 > 10.0.0.2:80\", expected an object with `packet` or `frame`",
        ),
        (
            "POST",
            "/v1/explain",
            r#"{"packets": [{"packet": null, "at_ns": -1}]}"#,
            400,
            "body: `packets[0].at_ns`: it is the number `-1`, expected a whole number, 0 or more",
        ),
        (
            "POST",
            "/v1/explain",
            r#"{"packets": [], "both_directions": 1}"#,
            400,
            "body: `both_directions`: it is the number `1`, expected true or false",
        ),
        (
            "POST",
            "/v1/explain",
            r#"{"packets": []}"#,
            400,
            "`packets` holds 1 to",
        ),
        (
            "POST",
            "/v1/explain",
            r#"{"packets": [{"from": "trust"}]}"#,
            400,
            "`packets[0]`: it has either `packet` or `frame`",
        ),
        (
            "POST",
            "/v1/explain",
            r#"{"packets": [{"packet": "tcp 10.0.0.1:1 > 10.0.0.2:80"}]}"#,
            400,
            "does not say where it comes in",
        ),
        (
            "POST",
            "/v1/explain",
            r#"{"packets": [{"from": "moon", "packet": "x"}]}"#,
            400,
            "no port is in a zone \"moon\"",
        ),
        (
            "POST",
            "/v1/explain",
            r#"{"packets": [{"port": "eth9", "packet": "x"}]}"#,
            400,
            "there is no port \"eth9\"",
        ),
        (
            "POST",
            "/v1/explain",
            r#"{"packets": [{"port": "lan", "packet": "x"}]}"#,
            400,
            "packet \"x\"",
        ),
        (
            "POST",
            "/v1/explain",
            r#"{"packets": [{"port": "lan", "frame": "0x0"}]}"#,
            400,
            "`frame` is pairs of hexadecimal digits",
        ),
        (
            "POST",
            "/v1/explain",
            r#"{"packets": [{"port": "lan", "frame": "éé"}]}"#,
            400,
            "`frame` is pairs of hexadecimal digits",
        ),
    ];
    for (method, target, body, code, words) in table {
        let answer = request(&served.socket, method, target, body);
        let error = answer.error(*code);
        assert!(error.contains(words), "{method} {target} {body}: {error}");
        assert!(
            !error.contains("struct") && !error.contains("invalid"),
            "in a user's words: {error}"
        );
        if error.starts_with("body: ") && !error.contains("has to hold") {
            let fix = answer.body["fix"].as_str().unwrap();
            let shape = fix.strip_prefix("it is like ").unwrap();
            let shape: serde_json::Value = serde_json::from_str(shape).unwrap();
            let key = if *target == "/v1/apply" {
                "files"
            } else {
                "packets"
            };
            assert!(shape[key].is_array(), "{fix}");
        }
        assert!(
            answer
                .head
                .to_lowercase()
                .contains("content-type: application/json"),
            "{}",
            answer.head
        );
    }
    served.get("/v1/status").ok();
}

/// The README's examples of the API, as they stand there.
#[test]
fn the_examples_of_the_readme_work() {
    let served = Served::new(CONFIG);
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once("\n## Control API\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut routes = Vec::new();
    for line in section.lines().filter(|line| line.starts_with("curl ")) {
        let words: Vec<_> = line.split(['\'', ' ']).collect();
        let target = words
            .iter()
            .find_map(|word| word.strip_prefix("http://localhost"));
        let target = target.unwrap_or_else(|| panic!("no route in {line}"));
        let body = line
            .split_once(" -d '")
            .map(|(_, rest)| rest.split('\'').next().unwrap());
        let method = match (words.contains(&"DELETE"), body) {
            (true, _) => "DELETE",
            (false, Some(_)) => "POST",
            (false, None) => "GET",
        };
        let answer = request(&served.socket, method, target, body.unwrap_or_default());
        assert_eq!(answer.code, 200, "{line}: {}", answer.body);
        routes.push(format!("{method} {}", target.split('?').next().unwrap()));
    }
    let apply = ApplyRequest::SHAPE.replace(
        "version = 1\\n...",
        &CONFIG.replace('\n', "\\n").replace('"', "\\\""),
    );
    let report = request(&served.socket, "POST", "/v1/apply", &apply).ok();
    assert_eq!(report["applied"], false);
    routes.push("POST /v1/apply".to_owned());
    for shape in [ApplyRequest::SHAPE, ExplainRequest::SHAPE] {
        assert!(section.contains(shape), "{shape}");
    }
    routes.sort();
    routes.dedup();
    assert_eq!(
        routes,
        [
            "DELETE /v1/sessions",
            "GET /v1/counters",
            "GET /v1/ports",
            "GET /v1/rules",
            "GET /v1/sessions",
            "GET /v1/status",
            "GET /v1/workers",
            "POST /v1/apply",
            "POST /v1/explain",
        ]
    );
}

#[test]
fn bytes_that_are_no_http_harm_nobody() {
    let served = Served::new(CONFIG);
    for garbage in [
        &b"\0\x01\x02\x03\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        &[0xff; 70_000],
    ] {
        let mut stream = connect(&served.socket);
        // The server may have hung up before all of it is written.
        let _ = stream.write_all(garbage);
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
    }
    served.get("/v1/status").ok();
}

#[test]
fn a_body_has_a_largest_size() {
    let served = Served::new(CONFIG);
    let head = "POST /v1/apply HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    // One that says so is not waited for.
    let mut stream = connect(&served.socket);
    write!(stream, "{head}Content-Length: {}\r\n\r\n", MAX_BODY_BYTES + 1).unwrap();
    assert!(answer(&mut stream).error(400).contains("larger than 32 MiB"));
    // One that does not say so is cut off; the server may hang up before all of it is written.
    let mut stream = connect(&served.socket);
    write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n").unwrap();
    let chunk = vec![b' '; 1 << 20];
    for _ in 0..=MAX_BODY_BYTES >> 20 {
        let sent = write!(stream, "{:x}\r\n", chunk.len()).and_then(|()| stream.write_all(&chunk));
        if sent.and_then(|()| stream.write_all(b"\r\n")).is_err() {
            break;
        }
    }
    assert!(answer(&mut stream).error(400).contains("larger than 32 MiB"));
    served.get("/v1/status").ok();
}

#[test]
fn slow_clients_and_slow_calls_have_their_time() {
    static HOLD: AtomicBool = AtomicBool::new(true);
    let node = TestNode::with_hook(CONFIG, || {
        while HOLD.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    });
    let limits = Limits {
        head: Duration::from_millis(300),
        request: Duration::from_millis(600),
        ..Limits::default()
    };
    let served = Served::with(node, limits);
    // A call that takes too long is answered all the same.
    assert!(
        served
            .get("/v1/status")
            .error(503)
            .contains("not done after 600ms")
    );
    // A body that does not come.
    let mut stream = connect(&served.socket);
    stream
        .write_all(b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\n")
        .unwrap();
    assert!(answer(&mut stream).error(503).contains("not done after 600ms"));
    // A head that does not come, and a connection that sits idle after a request: the server hangs up.
    for head in ["GET /v1/stat", "", "GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = connect(&served.socket);
        stream.write_all(head.as_bytes()).unwrap();
        std::io::Read::read_to_end(&mut stream, &mut Vec::new()).unwrap();
    }
    HOLD.store(false, Ordering::SeqCst);
    served.get("/v1/status").ok();
}

#[test]
fn one_connection_too_many_is_told_so() {
    let limits = Limits {
        connections: 3,
        ..Limits::default()
    };
    let served = Served::with(TestNode::new(CONFIG), limits);
    // Each has its answer, so each is counted, and stays open.
    let open: Vec<UnixStream> = (0..3)
        .map(|_| {
            let mut stream = connect(&served.socket);
            stream
                .write_all(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap();
            let mut some = [0; 12];
            std::io::Read::read_exact(&mut stream, &mut some).unwrap();
            assert_eq!(&some, b"HTTP/1.1 404");
            stream
        })
        .collect();
    let refused = answer(&mut connect(&served.socket));
    assert_eq!(
        refused.error(503),
        "the node has as many API connections as it takes (3)"
    );
    drop(open);
    // The slots are free again once the server has seen the ends.
    while served.get("/v1/status").code != 200 {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// However many clients hold their connections and say nothing: who comes then is told the reason.
#[test]
fn the_command_line_says_that_all_connections_are_taken() {
    let limits = Limits {
        connections: 4,
        head: Duration::from_secs(300),
        ..Limits::default()
    };
    let served = Served::with(TestNode::new(CONFIG), limits);
    let show = || {
        std::process::Command::new(env!("CARGO_BIN_EXE_haechi"))
            .args(["show", "status", "--socket"])
            .arg(&served.socket)
            .output()
            .unwrap()
    };
    // In waves below the listener's backlog: the first four have a slot, four more are told so with patience, the
    // others at once.
    let mut open = Vec::new();
    for _ in 0..10 {
        open.extend((0..40).map(|_| connect(&served.socket)));
        let output = show();
        assert_eq!(
            (output.status.code(), &*String::from_utf8_lossy(&output.stderr)),
            (
                Some(1),
                "haechi: the node has as many API connections as it takes (4) (close some, or try again)\n"
            )
        );
    }
    drop(open);
    while !show().status.success() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_defect_in_the_node_is_an_answer() {
    let served = Served::with(
        TestNode::with_hook(CONFIG, || panic!("on purpose")),
        Limits::default(),
    );
    assert!(
        served
            .get("/v1/status")
            .error(500)
            .contains("failed inside the node")
    );
    served.get("/v1/counters").ok();
}

#[test]
fn many_clients_at_once_see_one_node() {
    let served = Served::new(CONFIG);
    for port in 1..=200 {
        assert!(
            served
                .node
                .send(LAN, &format!("udp 10.0.0.5:{port} > 192.0.2.7:53"))
        );
    }
    std::thread::scope(|scope| {
        for client in 0..12 {
            let served = &served;
            scope.spawn(move || {
                for round in 0..10 {
                    let port = client * 10 + round + 1;
                    let mine = served.get(&format!("/v1/sessions?source_port={port}")).ok();
                    assert_eq!(mine["sessions"].as_array().unwrap().len(), 1);
                    served.get("/v1/counters").ok();
                    let killed = served.delete(&format!("/v1/sessions?source_port={port}")).ok();
                    assert_eq!(killed["killed"], 1);
                }
            });
        }
    });
    assert_eq!(served.get("/v1/status").ok()["sessions"], 80);
}

#[test]
fn a_stop_lets_a_request_finish_and_takes_the_socket_away() {
    static ENTERED: AtomicBool = AtomicBool::new(false);
    static GO_ON: AtomicBool = AtomicBool::new(false);
    let node = TestNode::with_hook(CONFIG, || {
        ENTERED.store(true, Ordering::SeqCst);
        while !GO_ON.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    });
    let limits = Limits {
        drain: Duration::from_secs(60),
        ..Limits::default()
    };
    let mut served = Served::with(node, limits);
    let socket = served.socket.clone();
    let asked = std::thread::spawn(move || request(&socket, "GET", "/v1/status", ""));
    while !ENTERED.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(2));
    }
    served.begin_stop();
    while served.socket.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(UnixStream::connect(&served.socket).is_err());
    GO_ON.store(true, Ordering::SeqCst);
    assert_eq!(asked.join().unwrap().ok()["node"], "fw-test");
    served.stop();
}

#[test]
fn the_socket_is_for_owner_and_group() {
    let directory = Directory::new();
    let path = directory.path("deep").join("h.sock");
    let socket = ControlSocket::bind(&path).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o7777, 0o660);
    drop(socket);
    assert!(!path.exists(), "the socket goes");
    assert!(
        !directory.path("deep").exists(),
        "and the directory that was made for it"
    );
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let directory = Directory::new();
    let path = directory.path("h.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead socket is left");
    let first = ControlSocket::bind(&path).unwrap();
    let error = ControlSocket::bind(&path).unwrap_err();
    assert!(
        error
            .error
            .ends_with("the control socket is in use by a running node"),
        "{error}"
    );
    assert!(
        error
            .fix
            .as_ref()
            .is_some_and(|fix| fix.contains("control_socket")),
        "{error}"
    );
    assert!(UnixStream::connect(&path).is_ok(), "the live one still lives");
    drop(first);
    assert!(!path.exists());
    // One whose backlog is full is alive too.
    let full = UnixListener::bind(&path).unwrap();
    full.set_nonblocking(true).unwrap();
    let mut waiting = Vec::new();
    while waiting.len() < 5000 {
        let stream = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
        if rustix::net::connect(&stream, &address).is_err() {
            break;
        }
        waiting.push(stream);
    }
    let error = ControlSocket::bind(&path).unwrap_err();
    assert!(error.error.contains("in use by a running node"), "{error}");
}

#[test]
fn a_socket_that_is_another_ones_by_now_is_left_alone() {
    let directory = Directory::new();
    let path = directory.path("h.sock");
    let ours = ControlSocket::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    drop(ours);
    assert!(UnixStream::connect(&path).is_ok());
    drop(theirs);
}

#[test]
fn a_place_where_no_socket_can_be_is_one_clear_line() {
    let directory = Directory::new();
    let file = directory.file("plain", "text");
    let table = [
        (file.clone(), "taken by something that is not a socket"),
        (
            directory.path("a").join("b").join("h.sock"),
            "cannot make the directory",
        ),
        (file.join("h.sock"), "Not a directory"),
        (directory.path(&"x".repeat(200)), "too long for a socket"),
    ];
    for (path, words) in table {
        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(error.error.contains(words), "{error}");
        assert!(
            error.error.starts_with(path.to_str().unwrap()) || words.contains("directory"),
            "{error}"
        );
        assert!(
            error.fix.is_some() && !error.to_string().contains('\n'),
            "{error}"
        );
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "text");
}

#[test]
fn of_nodes_that_start_at_once_one_gets_the_socket() {
    let directory = Directory::new();
    for round in 0..20 {
        let path = directory.path(&format!("{round}.sock"));
        drop(UnixListener::bind(&path).unwrap());
        let barrier = std::sync::Barrier::new(4);
        let bound: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                barrier.wait();
                ControlSocket::bind(&path).ok()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(bound.len(), 1);
        assert!(UnixStream::connect(&path).is_ok());
    }
}
