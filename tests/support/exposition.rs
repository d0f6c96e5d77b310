//! The OpenMetrics text format, read as strictly as `promtool check metrics` and Prometheus itself would, and compared with the
//! control API's numbers.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A sample's name and labels, and its value.
pub type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

#[derive(Default)]
struct Family {
    name: String,
    help: bool,
    kind: Option<String>,
    unit: bool,
    samples: usize,
}

/// Reads a whole answer; panics with the line that is wrong.
#[track_caller]
pub fn parse(text: &str) -> Samples {
    let mut samples = Samples::new();
    let mut seen = BTreeSet::new();
    let mut family = Family::default();
    let body = text.strip_suffix("# EOF\n").expect("the text ends with # EOF");
    for line in body.lines() {
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next().unwrap(), words.next());
            if family.name != name {
                assert!(is_name(name), "{line}");
                assert!(seen.insert(name.to_owned()), "a family in two places: {line}");
                family = Family {
                    name: name.to_owned(),
                    ..Family::default()
                };
            }
            assert_eq!(family.samples, 0, "samples come last: {line}");
            let rest = rest
                .filter(|rest| !rest.is_empty())
                .unwrap_or_else(|| panic!("{line}"));
            match what {
                Some("HELP") => assert!(!std::mem::replace(&mut family.help, true), "twice: {line}"),
                Some("TYPE") => {
                    assert!(["counter", "gauge", "info"].contains(&rest), "{line}");
                    assert_eq!(family.kind.replace(rest.to_owned()), None, "twice: {line}");
                }
                Some("UNIT") => {
                    assert!(["seconds", "bytes"].contains(&rest), "no base unit: {line}");
                    assert!(name.ends_with(&format!("_{rest}")), "{line}");
                    family.unit = true;
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, labels, value) = sample(line);
        let kind = family
            .kind
            .as_deref()
            .unwrap_or_else(|| panic!("no TYPE: {line}"));
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        assert!(family.help, "no HELP: {line}");
        assert_eq!(
            name,
            format!("{}{suffix}", family.name),
            "not of its family: {line}"
        );
        lint(&family, kind, line);
        if kind == "counter" {
            assert!(value >= 0.0, "{line}");
        }
        family.samples += 1;
        assert_eq!(samples.insert((name, labels), value), None, "twice: {line}");
    }
    samples
}

/// What promtool complains of in names.
fn lint(family: &Family, kind: &str, line: &str) {
    let name = &family.name;
    assert!(!name.chars().any(|c| c.is_ascii_uppercase()), "{line}");
    for part in ["_total", "_count", "_sum", "_bucket", "_info"] {
        assert!(!name.ends_with(part), "a suffix that means another type: {line}");
    }
    for part in ["counter", "gauge"] {
        assert!(
            !name.split('_').any(|word| word == part),
            "the type in the name: {line}"
        );
    }
    for unit in ["ms", "us", "ns", "s", "mbps", "kb", "mib", "percent", "minutes"] {
        assert!(!name.split('_').any(|word| word == unit), "no base unit: {line}");
    }
    // A rate has its unit in the middle of its name.
    let named = ["_seconds", "_bytes"].iter().any(|unit| name.ends_with(unit));
    assert_eq!(named, family.unit, "UNIT and the name's end: {kind}: {line}");
}

fn is_name(name: &str) -> bool {
    let first = name
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `name{label="value",...} number`
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label) && !label.starts_with("__"), "{label} in {line}");
            let (value, after) = unquote(value, line);
            assert_eq!(
                labels.insert(label.to_owned(), value),
                None,
                "a label twice: {line}"
            );
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}').unwrap_or_else(|| panic!("{line}"));
                    break;
                }
            }
        }
    }
    let number = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    let value: f64 = number.parse().unwrap_or_else(|e| panic!("{e}: {line}"));
    assert!(value.is_finite() && !number.contains(' '), "{line}");
    (name.to_owned(), labels, value)
}

/// A label's value up to its closing quote, and what comes behind.
fn unquote<'t>(text: &'t str, line: &str) -> (String, &'t str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, c @ ('\\' | '"'))) => c,
                other => panic!("a bad escape {other:?}: {line}"),
            }),
            c => value.push(c),
        }
    }
    panic!("no closing quote: {line}");
}

/// Where a field of the API is in the metrics: its section and path (`*`: any key, the label's value), the sample's name, and by what the
/// API's number is multiplied.
type Place = (&'static str, &'static str, &'static str, f64);

/// Every field that is a number or a truth value.
const NUMBERS: &[Place] = &[
    ("status", "pid", "haechi_node_pid", 1.0),
    ("status", "uptime_s", "haechi_uptime_seconds", 1.0),
    ("status", "generation", "haechi_policy_generation", 1.0),
    ("status", "sessions", "haechi_sessions", 1.0),
    ("status", "max_sessions", "haechi_sessions_limit", 1.0),
    ("status", "unused_leases", "haechi_sessions_unused_leases", 1.0),
    ("status", "timeout_scale", "haechi_timeout_scale_ratio", 1.0),
    ("status", "sessions_evicted", "haechi_sessions_evicted_total", 1.0),
    ("status", "half_open", "haechi_sessions_half_open", 1.0),
    (
        "status",
        "sessions_by_state.*",
        "haechi_sessions_by_state{state}",
        1.0,
    ),
    ("status", "syn_cookies_engaged", "haechi_syn_cookies_engaged", 1.0),
    ("status", "rules", "haechi_rules", 1.0),
    ("status", "workers", "haechi_workers", 1.0),
    ("status", "ports", "haechi_ports", 1.0),
    ("status", "ports_up", "haechi_ports_up", 1.0),
    ("status", "packet_buffers", "haechi_packet_buffers", 1.0),
    (
        "status",
        "packet_buffers_in_use",
        "haechi_packet_buffers_in_use",
        1.0,
    ),
    ("ports", "mtu", "haechi_port_mtu_bytes", 1.0),
    ("ports", "link_up", "haechi_port_link_up", 1.0),
    (
        "ports",
        "speed_mbps",
        "haechi_port_speed_bytes_per_second",
        125_000.0,
    ),
    ("ports", "rx_packets", "haechi_port_rx_packets_total", 1.0),
    ("ports", "tx_packets", "haechi_port_tx_packets_total", 1.0),
    ("ports", "rx_bytes", "haechi_port_rx_bytes_total", 1.0),
    ("ports", "tx_bytes", "haechi_port_tx_bytes_total", 1.0),
    ("ports", "rx_missed", "haechi_port_rx_missed_total", 1.0),
    ("ports", "rx_errors", "haechi_port_rx_errors_total", 1.0),
    ("ports", "rx_no_buffer", "haechi_port_rx_no_buffer_total", 1.0),
    ("ports", "tx_dropped", "haechi_port_tx_dropped_total", 1.0),
    ("ports", "tx_errors", "haechi_port_tx_errors_total", 1.0),
    ("ports", "rx_queues", "haechi_port_rx_queues", 1.0),
    ("ports", "tx_queues", "haechi_port_tx_queues", 1.0),
    ("workers", "cpu", "haechi_worker_cpu", 1.0),
    ("workers", "packets", "haechi_worker_packets_total", 1.0),
    ("workers", "forwarded", "haechi_worker_forwarded_total", 1.0),
    ("workers", "dropped", "haechi_worker_dropped_total", 1.0),
    ("workers", "originated", "haechi_worker_originated_total", 1.0),
    ("workers", "sessions", "haechi_worker_sessions", 1.0),
    ("workers", "max_sessions", "haechi_worker_sessions_limit", 1.0),
    ("workers", "busy", "haechi_worker_busy_ratio", 1.0),
    (
        "workers",
        "cycles_per_packet",
        "haechi_worker_cycles_per_packet",
        1.0,
    ),
    ("workers", "handed_over", "haechi_worker_handed_over_total", 1.0),
    ("workers", "taken_over", "haechi_worker_taken_over_total", 1.0),
    ("workers", "relayed", "haechi_worker_relayed_total", 1.0),
    ("workers", "stalled", "haechi_worker_stalled", 1.0),
    (
        "workers",
        "max_loop_gap_us",
        "haechi_worker_max_loop_gap_seconds",
        1e-6,
    ),
    (
        "workers",
        "expiry_lag_ms",
        "haechi_worker_expiry_lag_seconds",
        1e-3,
    ),
    ("workers", "generation", "haechi_worker_policy_generation", 1.0),
    ("rules", "enabled", "haechi_rule_enabled", 1.0),
    ("rules", "removed", "haechi_rule_removed", 1.0),
    ("rules", "sessions", "haechi_rule_sessions", 1.0),
    ("rules", "limited", "haechi_rule_limited_total", 1.0),
    ("rules", "unused_leases", "haechi_rule_unused_leases", 1.0),
    ("rules", "packets", "haechi_rule_packets_total", 1.0),
    ("rules", "bytes", "haechi_rule_bytes_total", 1.0),
    ("rules", "last_hit", "haechi_rule_last_hit_timestamp_seconds", 1.0),
    ("counters", "fragments_held", "haechi_fragments_held", 1.0),
    ("counters", "held", "haechi_held", 1.0),
    ("counters", "redirects", "haechi_redirects", 1.0),
    ("counters", "drops.*", "haechi_drops_total{reason}", 1.0),
    ("counters", "malformed.*", "haechi_malformed_total{kind}", 1.0),
];

/// The rest of `/v1/counters`: `haechi_NAME_total`.
const COUNTERS: &str = "rx_packets tx_packets originated rejects_suppressed timeout_resets timeout_resets_missed log_records_written \
    log_records_lost fragments fragments_reassembled syn_cookies_sent syn_cookies_accepted syn_retries_lost sessions_created \
    sessions_ended sessions_evicted sources_full handed_over sessions_moved redirects_full sessions_synced_in sessions_synced_out sync_refused \
    redirected_out redirected_in given_back returned deferred deferred_late";

/// Words, which are labels of `_info`, with the label's name; or the name of a gauge that is 1 for them.
const WORDS: &[(&str, &str, &str, &str)] = &[
    ("status", "version", "haechi_node_info", "version"),
    ("status", "node", "haechi_node_info", "node"),
    ("status", "mode", "haechi_node_info", "mode"),
    ("status", "config", "haechi_node_info", "config"),
    ("status", "state", "haechi_node_state", "state"),
    (
        "status",
        "classifier.ipv4",
        "haechi_classifier_info{family=ipv4}",
        "method",
    ),
    (
        "status",
        "classifier.ipv6",
        "haechi_classifier_info{family=ipv6}",
        "method",
    ),
    ("ports", "zone", "haechi_port_info", "zone"),
    ("ports", "peer", "haechi_port_info", "peer"),
    ("ports", "device", "haechi_port_info", "device"),
    ("ports", "driver", "haechi_port_info", "driver"),
    ("ports", "mac", "haechi_port_info", "mac"),
    ("ports", "rss", "haechi_port_rss", "rss"),
    ("rules", "action", "haechi_rule_info", "action"),
];

/// What is prose, or names the thing that all its samples are labelled with.
const NO_SERIES: &[(&str, &str)] = &[
    ("ports", "name"),
    ("ports", "link_note"),
    ("workers", "worker"),
    ("rules", "name"),
    ("rules", "from"),
    ("rules", "to"),
    ("rules", "description"),
];

/// Everything in the API's answers (`section`, its value) that is not in the samples with the same value, or that nobody thought of. `moves`:
/// fields that differ between two readings of a node at rest.
pub fn differences(api: &[(&str, Value)], samples: &Samples, moves: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut accounted = BTreeSet::new();
    for (section, value) in api {
        let rows = match value {
            Value::Array(rows) => rows.clone(),
            one => vec![one.clone()],
        };
        let label = match *section {
            "ports" => Some(("port", "name")),
            "workers" => Some(("worker", "worker")),
            "rules" => Some(("rule", "name")),
            _ => None,
        };
        for row in &rows {
            let mut labels = BTreeMap::new();
            if let Some((label, key)) = label {
                let name = row[key]
                    .as_str()
                    .map_or_else(|| row[key].to_string(), str::to_owned);
                labels.insert(label.to_owned(), name);
            }
            for (path, leaf) in leaves(row, "") {
                let at = format!("{section}.{path}");
                match find(section, &path, &leaf, &labels) {
                    Found::Nothing if leaf.is_null() => {}
                    Found::Nothing => wrong.push(format!("{at} = {leaf} is nowhere in the metrics' names")),
                    Found::NoSeries => {}
                    Found::Sample(name, labels, expected) => {
                        accounted.insert((name.clone(), labels.clone()));
                        match samples.get(&(name.clone(), labels.clone())) {
                            None => wrong.push(format!("{at}: there is no {name} {labels:?}")),
                            Some(_) if moves.contains(&at.as_str()) => {}
                            Some(is) if (is - expected).abs() <= expected.abs() * 1e-12 => {}
                            Some(is) => {
                                wrong.push(format!("{at} = {expected}, but {name} {labels:?} = {is}"))
                            }
                        }
                    }
                    Found::Word(name, labels, label, word) => {
                        let found = samples.iter().find(|((n, l), v)| {
                            *n == name
                                && **v == 1.0
                                && labels.iter().all(|(k, v)| l.get(k) == Some(v))
                                && l.get(&label) == Some(&word)
                        });
                        match found {
                            None => wrong.push(format!(
                                "{at}: there is no {name} {labels:?} with {label}={word:?}"
                            )),
                            Some((key, _)) => drop(accounted.insert(key.clone())),
                        }
                    }
                }
            }
        }
    }
    // The other way round: nothing is invented.
    let of_their_own = [
        "haechi_complete",
        "haechi_warnings",
        "haechi_node_state",
        "haechi_port_rss",
    ];
    for ((name, labels), value) in samples {
        if !accounted.contains(&(name.clone(), labels.clone())) && !of_their_own.contains(&name.as_str()) {
            wrong.push(format!("{name} {labels:?} = {value} is not of the API"));
        }
    }
    wrong
}

enum Found {
    Nothing,
    NoSeries,
    Sample(String, BTreeMap<String, String>, f64),
    Word(String, BTreeMap<String, String>, String, String),
}

fn find(section: &str, path: &str, leaf: &Value, labels: &BTreeMap<String, String>) -> Found {
    let first = path.split(['.', '[']).next().unwrap_or_default();
    if NO_SERIES.contains(&(section, first)) || (section, first) == ("status", "warnings") {
        return Found::NoSeries;
    }
    let number = leaf
        .as_f64()
        .or_else(|| leaf.as_bool().map(|b| f64::from(u8::from(b))));
    if let Some(number) = number {
        if section == "counters" && COUNTERS.split_whitespace().any(|name| name == path) {
            return Found::Sample(format!("haechi_{path}_total"), labels.clone(), number);
        }
        for (of, place, name, factor) in NUMBERS {
            let key = match place.strip_suffix('*') {
                Some(start) => path.strip_prefix(start),
                None => (path == *place).then_some(""),
            };
            let Some(key) = key.filter(|_| *of == section) else {
                continue;
            };
            let mut labels = labels.clone();
            let name = match name.split_once('{') {
                None => *name,
                Some((name, label)) => {
                    labels.insert(label.trim_end_matches('}').to_owned(), key.to_owned());
                    name
                }
            };
            return Found::Sample(name.to_owned(), labels, number * factor);
        }
    }
    if let Some(word) = leaf.as_str() {
        for (of, place, name, label) in WORDS {
            if (*of, *place) != (section, path) {
                continue;
            }
            let mut labels = labels.clone();
            let name = match name.split_once('{') {
                None => *name,
                Some((name, fixed)) => {
                    let (key, value) = fixed.trim_end_matches('}').split_once('=').unwrap_or_default();
                    labels.insert(key.to_owned(), value.to_owned());
                    name
                }
            };
            return Found::Word(name.to_owned(), labels, (*label).to_owned(), word.to_owned());
        }
    }
    Found::Nothing
}

/// All values that hold no others, with their paths.
fn leaves(value: &Value, path: &str) -> Vec<(String, Value)> {
    let inner = |key: &str| match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    };
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| leaves(value, &inner(key)))
            .collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .flat_map(|(n, value)| leaves(value, &format!("{path}[{n}]")))
            .collect(),
        leaf => vec![(path.to_owned(), leaf.clone())],
    }
}
