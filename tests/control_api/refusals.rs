//! What is refused, and in which words.

use std::io::Write;

use haechi::control::api::MAX_BODY_BYTES;

use crate::control_support::{CONFIG, Served, answer, connect, request};

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
        ("GET", "/v1/ha", "", 409, "this node has no `[ha]`"),
        ("POST", "/v1/ha/switchover", "", 409, "this node has no `[ha]`"),
        (
            "POST",
            "/v1/ha/notify",
            r#"{"kind": "INSTANCE", "name": "VI_1", "state": "MASTER", "priority": 200}"#,
            409,
            "this node has no `[ha]`",
        ),
        (
            "POST",
            "/v1/ha/notify",
            r#"{"kind": "INSTANCE", "name": "VI_1", "state": "READY"}"#,
            400,
            "body: `state`: unknown variant `READY`",
        ),
        ("POST", "/v1/ha", "", 405, "POST /v1/ha: the method does not fit"),
        (
            "GET",
            "/v1/ha/switchover",
            "",
            405,
            "GET /v1/ha/switchover: the method does not fit",
        ),
        ("GET", "/v1/ha?x=1", "", 400, "there is no parameter `x` here"),
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
            let (key, is_list) = match *target {
                "/v1/apply" => ("files", true),
                "/v1/ha/notify" => ("state", false),
                _ => ("packets", true),
            };
            assert_eq!(
                (shape[key].is_array(), shape[key].is_string()),
                (is_list, !is_list),
                "{fix}"
            );
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
