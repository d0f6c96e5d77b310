//! What every route answers.

use haechi::control::node::{ApplyRequest, ExplainRequest};
use haechi::engine::DropReason;
use haechi::packet::Malformed;
use serde_json::json;

use crate::control_support::{CONFIG, LAN, Served, healthy_pair, request};

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
        "max_sessions",
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
        "handed_over",
        "sessions_moved",
        "redirects",
        "redirects_full",
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
    *served.node.pair.lock().unwrap() = Some(healthy_pair());
    let ha = served.get("/v1/ha").ok();
    for key in [
        "health", "reasons", "mode", "node_id", "role", "role_s", "priority", "able", "peer", "policy",
        "layout", "sync",
    ] {
        assert!(ha.get(key).is_some(), "a pair has {key}");
    }
    assert_eq!(ha["peer"]["paths"][0]["name"], "link");
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

/// The README's examples of the API, as they stand there.
#[test]
fn the_examples_of_the_readme_work() {
    let served = Served::new(CONFIG);
    *served.node.pair.lock().unwrap() = Some(healthy_pair());
    let readme = include_str!("../../README.md");
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
            "GET /v1/ha",
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
