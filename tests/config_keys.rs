//! No key is ignored in silence: every key of the interface's description either changes the configuration, or is refused
//! by name.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use haechi::config;
use toml::{Table, Value};

/// The example of the interface's description: every key there is or will be, at least once.
const INTERFACE: &str = include_str!("data/interface.toml");

/// What a key does.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// With this value (as TOML) the configuration is another one.
    Change(&'static str),
    /// It has one value only; with this one the file is refused with a message that has this in it.
    Only(&'static str, &'static str),
    /// It is refused, whatever its value, by this name.
    NotYet(&'static str),
    /// It is resolved while the file is loaded; its own test is named.
    Loader,
}
use Does::{Change, Loader, NotYet, Only};

const KEYS: &[(&str, Does)] = &[
    ("version", Only("2", "configurations of version 1")),
    ("node.name", Change("'fw-b'")),
    (
        "node.mode",
        Only("'routed'", "`node.mode` \"routed\" is not supported yet"),
    ),
    ("node.workers", Change("'2'")),
    ("node.idle", Change("'poll'")),
    ("node.rebalance", Change("'auto'")),
    ("node.hugepages", Change("false")),
    ("node.memory_mib", Change("2048")),
    ("node.packet_buffers", Change("32767")),
    ("node.burst", Change("16")),
    // `tests/runtime_mesh.rs` has what it does.
    ("node.handover_queue", Change("1")),
    ("node.eal_args", Change("['--log-level=8']")),
    ("node.control_socket", Change("'/run/other.sock'")),
    // `the_device_map_names_a_ports_device`
    ("devices.wan", Loader),
    ("port.name", Change("'uplink'")),
    ("port.zone", Change("'outside'")),
    ("port.addresses", NotYet("port.addresses")),
    // With one pair there is one valid value; `tests/config_errors/ports.rs` has the others.
    ("port.peer", Only("'nowhere'", "no port \"nowhere\"")),
    ("port.mtu", Change("9000")),
    ("port.rx_queues", Change("1")),
    ("port.rx_descriptors", Change("512")),
    ("port.tx_descriptors", Change("512")),
    ("port.kernel_interface", NotYet("port.kernel_interface")),
    ("transparent.non_ip", Change("'pass'")),
    ("transparent.vlan", Change("'drop'")),
    ("transparent.link_propagation", Change("false")),
    ("transparent.session_scope", Change("'node'")),
    ("zone.name", Change("'untrust'")),
    ("zone.networks", Change("['10.0.0.0/8', '@servers']")),
    ("zone.antispoof", Change("true")),
    ("zone.reserve", Change("'0.5%'")),
    ("route.to", NotYet("route")),
    ("route.via", NotYet("route")),
    ("address_sets.servers", Change("['192.0.2.0/24']")),
    ("service_sets.web", Change("['tcp/8080']")),
    ("stateless.default_action", NotYet("stateless")),
    ("stateless.fragment_action", NotYet("stateless")),
    ("stateless.rule.name", NotYet("stateless")),
    ("stateless.rule.from", NotYet("stateless")),
    ("stateless.rule.source", NotYet("stateless")),
    ("stateless.rule.action", NotYet("stateless")),
    ("rule.name", Change("'other'")),
    ("rule.from", Change("'untrust'")),
    ("rule.to", Change("'trust'")),
    ("rule.source", Change("['192.0.2.0/24']")),
    ("rule.destination", Change("['192.0.2.0/24']")),
    ("rule.service", Change("['udp']")),
    ("rule.source_ports", Change("['1024-65535']")),
    ("rule.action", Change("'reject'")),
    ("rule.log", Change("'both'")),
    ("rule.helper", NotYet("rule.helper")),
    ("rule.timeouts.tcp_established", Change("'1h'")),
    ("rule.timeouts.udp_replied", Change("'1m'")),
    ("rule.reset_on_timeout", Change("true")),
    ("rule.pickup", Change("true")),
    ("rule.tcp_strict", Change("false")),
    ("rule.max_sessions", Change("7")),
    ("rule.max_sessions_per_source", Change("7")),
    ("rule.new_sessions_per_source", Change("'7/s'")),
    ("rule.syn_protection", Change("'always'")),
    ("rule.syn_options.mss", Change("1200")),
    ("rule.syn_options.window_scale", Change("3")),
    ("rule.syn_options.sack", Change("false")),
    ("rule.syn_options.timestamps", Change("false")),
    ("rule.defer", Change("true")),
    ("rule.enabled", Change("false")),
    ("rule.description", Change("'other'")),
    ("policy.reject_rate", Change("'5/s'")),
    ("policy.alert_rate", Change("'5/s'")),
    ("conntrack.max_sessions", Change("4096")),
    ("conntrack.verify_checksums", Change("false")),
    ("conntrack.adaptive_start", Change("'50%'")),
    ("conntrack.adaptive_end", Change("'100%'")),
    ("conntrack.syn_cookie_start", Change("'30%'")),
    ("conntrack.syn_cookie_stop", Change("'5%'")),
    ("conntrack.tcp_strict", Change("false")),
    ("conntrack.pickup", Change("true")),
    ("conntrack.reset_on_timeout", Change("true")),
    ("conntrack.timeouts.tcp_syn_sent", Change("'7s'")),
    ("conntrack.timeouts.tcp_syn_received", Change("'7s'")),
    ("conntrack.timeouts.tcp_established", Change("'7s'")),
    ("conntrack.timeouts.tcp_closing", Change("'7s'")),
    ("conntrack.timeouts.tcp_time_wait", Change("'7s'")),
    ("conntrack.timeouts.tcp_closed", Change("'7s'")),
    ("conntrack.timeouts.udp_new", Change("'7s'")),
    ("conntrack.timeouts.udp_replied", Change("'7s'")),
    ("conntrack.timeouts.icmp", Change("'7s'")),
    ("conntrack.timeouts.other", Change("'7s'")),
    ("conntrack.fragments.max_datagrams", Change("7")),
    ("conntrack.fragments.timeout", Change("'7s'")),
    ("nat.source.name", NotYet("nat")),
    ("nat.source.to", NotYet("nat")),
    ("nat.source.source", NotYet("nat")),
    ("nat.source.translate_to", NotYet("nat")),
    ("nat.source.ports", NotYet("nat")),
    ("nat.destination.name", NotYet("nat")),
    ("nat.destination.from", NotYet("nat")),
    ("nat.destination.destination", NotYet("nat")),
    ("nat.destination.service", NotYet("nat")),
    ("nat.destination.translate_to", NotYet("nat")),
    ("nat.destination.translate_port", NotYet("nat")),
    ("virtual_server.name", NotYet("virtual_server")),
    ("virtual_server.address", NotYet("virtual_server")),
    ("virtual_server.service", NotYet("virtual_server")),
    ("virtual_server.algorithm", NotYet("virtual_server")),
    ("virtual_server.real_servers.address", NotYet("virtual_server")),
    ("virtual_server.real_servers.port", NotYet("virtual_server")),
    ("virtual_server.real_servers.weight", NotYet("virtual_server")),
    ("virtual_server.health_check.kind", NotYet("virtual_server")),
    ("virtual_server.health_check.interval", NotYet("virtual_server")),
    ("virtual_server.health_check.failures", NotYet("virtual_server")),
    ("log.sessions", Change("'/s'")),
    ("log.alerts", Change("'/a'")),
    ("metrics.listen", Change("'[::1]:9464'")),
    ("ha.mode", Change("'active-active'")),
    ("ha.node_id", Change("2")),
    ("ha.priority", Change("7")),
    ("ha.preempt", Change("true")),
    ("ha.preempt_delay", Change("'7s'")),
    ("ha.witness", Change("'192.0.2.254'")),
    ("ha.data_heartbeats", NotYet("ha.data_heartbeats")),
    ("ha.redirect_rate", Change("'7/s'")),
    ("ha.sync_rate", Change("'7/s'")),
    ("ha.defer_timeout", Change("'7ms'")),
    ("ha.defer_fail", Change("'closed'")),
    ("ha.track", Change("['wan']")),
    ("ha.link.local", Change("'169.254.77.3:7700'")),
    ("ha.link.peer", Change("'169.254.77.3:7700'")),
    ("ha.second_link.local", Change("'169.254.78.3:7700'")),
    ("ha.second_link.peer", Change("'169.254.78.3:7700'")),
    ("ha.key_file", Change("'other.key'")),
    ("ha.heartbeat", Change("'7ms'")),
    ("ha.dead_after", Change("7")),
    ("ha.alone_after", Change("'7s'")),
    ("ha.adopt_kib", Change("7")),
    ("ha.adopt_time", Change("'7s'")),
    ("ha.virtual_addresses.port", NotYet("ha.virtual_addresses")),
    ("ha.virtual_addresses.address", NotYet("ha.virtual_addresses")),
];

/// A file that is accepted and that has a place for every key.
const BASE: &str = r#"
version = 1
[node]
mode = "transparent"
[[port]]
name = "wan"
device = "vdev:net_null0"
zone = "untrust"
peer = "lan"
[[port]]
name = "lan"
device = "vdev:net_null1"
zone = "trust"
peer = "wan"
[log]
sessions = "/var/log/haechi/sessions.jsonl"
[[zone]]
name = "trust"
networks = ["fd00::/8"]
[address_sets]
servers = ["198.51.100.0/24"]
[ha]
node_id = 1
key_file = "ha.key"
link = { local = "169.254.77.1:7700", peer = "169.254.77.2:7700" }
second_link = { local = "169.254.78.1:7700", peer = "169.254.78.2:7700" }
[[rule]]
name = "first"
service = ["tcp"]
action = "allow"
"#;

/// Every leaf's path, places in arrays left out, with its first value.
fn leaves(value: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                leaves(value, &path, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            items.iter().for_each(|item| leaves(item, path, found));
        }
        leaf => {
            found.entry(path.to_owned()).or_insert_with(|| leaf.clone());
        }
    }
}

fn interface() -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    leaves(&Value::Table(INTERFACE.parse().unwrap()), "", &mut found);
    found
}

/// BASE with one key set, in the first table of each array on its way.
fn with(path: &str, value: Value) -> String {
    const ARRAYS: [&str; 8] = [
        "port",
        "zone",
        "rule",
        "route",
        "stateless.rule",
        "nat.source",
        "nat.destination",
        "virtual_server",
    ];
    let mut root: Table = BASE.parse().unwrap();
    let mut table = &mut root;
    let (parents, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at = String::new();
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        at = if at.is_empty() {
            parent.to_owned()
        } else {
            format!("{at}.{parent}")
        };
        let empty = if ARRAYS.contains(&at.as_str()) {
            Value::Array(vec![Value::Table(Table::new())])
        } else {
            Value::Table(Table::new())
        };
        let inner = table.entry(parent).or_insert(empty);
        table = match inner {
            Value::Array(items) => items[0].as_table_mut().unwrap(),
            other => other.as_table_mut().unwrap(),
        };
    }
    table.insert(key.to_owned(), value);
    if path == "port.name" {
        // The other port's key follows the name; all else stays as it was.
        root["port"][1]["peer"] = root["port"][0]["name"].clone();
    }
    toml::to_string(&root).unwrap()
}

fn value(text: &str) -> Value {
    format!("v = {text}")
        .parse::<Table>()
        .unwrap()
        .remove("v")
        .unwrap()
}

/// Keys that the interface does not name: the queues between workers, whether flows move between them, what a rule's SYN cookies announce by
/// default, and what a pair needs beyond what it names.
const BEYOND_THE_INTERFACE: [&str; 12] = [
    "ha.second_link.local",
    "ha.second_link.peer",
    "ha.alone_after",
    "ha.sync_rate",
    "ha.adopt_kib",
    "ha.adopt_time",
    "node.handover_queue",
    "node.rebalance",
    "rule.syn_options.mss",
    "rule.syn_options.window_scale",
    "rule.syn_options.sack",
    "rule.syn_options.timestamps",
];

#[test]
fn the_list_has_every_key_of_the_interface() {
    let listed: BTreeSet<&str> = KEYS.iter().map(|(path, _)| *path).collect();
    assert_eq!(listed.len(), KEYS.len(), "a key stands twice");
    let interface = interface();
    let mut expected: BTreeSet<&str> = interface.keys().map(String::as_str).collect();
    expected.extend(BEYOND_THE_INTERFACE);
    assert_eq!(listed, expected);
}

#[test]
fn every_key_changes_the_configuration_or_is_refused_by_name() {
    let base = config::load_text("base", BASE).unwrap();
    let interface = interface();
    for (path, does) in KEYS {
        match does {
            Change(text) => {
                let text = with(path, value(text));
                let config =
                    config::load_text(path, &text).unwrap_or_else(|errors| panic!("{path}: {errors}"));
                assert_ne!(config, base, "{path} changes nothing");
            }
            Only(other, message) => {
                let errors = config::load_text(path, &with(path, value(other))).unwrap_err();
                assert!(
                    errors.errors().any(|e| e.message.contains(message)),
                    "{path}: {errors}"
                );
            }
            NotYet(name) => {
                // The interface's own value: what a reader of the description would write.
                let errors = config::load_text(path, &with(path, interface[*path].clone())).unwrap_err();
                let refused = format!("`{name}` is not supported yet");
                assert!(errors.errors().any(|e| e.message == refused), "{path}: {errors}");
            }
            Loader => {}
        }
    }
}

#[test]
fn the_device_map_names_a_ports_device() {
    let mut root: Table = BASE.parse().unwrap();
    root["port"][0].as_table_mut().unwrap().remove("device");
    for address in ["0000:3b:00.0", "0000:3b:00.1"] {
        root.insert(
            "devices".to_owned(),
            Table::from_iter([("wan".to_owned(), Value::from(address))]).into(),
        );
        let config = config::load_text("devices", &toml::to_string(&root).unwrap()).unwrap();
        assert_eq!(config.ports[0].device.to_string(), address);
    }
}

/// What changes a rule or a timeout reaches the compiled policy too.
#[test]
fn timeouts_and_switches_reach_the_policy() {
    use haechi::base::{Generation, Nanos, PortId};
    use haechi::policy::{Limits, Policy, RuleLog, Share, Spoof};
    let compile = |text: &str| {
        let config = config::load_text("policy", text).unwrap();
        config::compile(&config, Generation(3), &mut config::RuleIds::new()).unwrap()
    };
    let base = compile(BASE);
    assert_eq!((base.generation, base.rules.len()), (Generation(3), 1));
    assert!(compile(&with("rule.enabled", value("false"))).rules.is_empty());
    assert!(!compile(&with("conntrack.verify_checksums", value("false"))).verify_checksums);
    assert_eq!([base.rules[0].tcp_strict, base.rules[0].pickup], [true, false]);
    for key in ["rule.tcp_strict", "conntrack.tcp_strict"] {
        assert!(!compile(&with(key, value("false"))).rules[0].tcp_strict, "{key}");
    }
    for key in ["rule.pickup", "conntrack.pickup"] {
        assert!(compile(&with(key, value("true"))).rules[0].pickup, "{key}");
    }
    assert!(!base.rules[0].reset_on_timeout);
    for key in ["rule.reset_on_timeout", "conntrack.reset_on_timeout"] {
        assert!(
            compile(&with(key, value("true"))).rules[0].reset_on_timeout,
            "{key}"
        );
    }
    assert_eq!(
        compile(&with("policy.reject_rate", value("'5/s'"))).reject_rate,
        5
    );
    assert_eq!(compile(&with("policy.alert_rate", value("'5/s'"))).alert_rate, 5);
    let several = compile(&with("node.workers", value("'0-2'")));
    assert_eq!(
        [several.reject_rate, several.alert_rate],
        [333, 3],
        "each worker's share"
    );
    assert_eq!((base.alert_rate, base.rules[0].log), (10, RuleLog::None));
    assert_eq!(
        compile(&with("rule.log", value("'end'"))).rules[0].log,
        RuleLog::End
    );
    let fragments = |key: &str, text: &str| compile(&with(key, value(text))).fragments;
    assert_eq!(
        fragments("conntrack.fragments.max_datagrams", "7").max_datagrams,
        7
    );
    assert_eq!(
        fragments("conntrack.fragments.timeout", "'7s'").timeout,
        Nanos::from_secs(7)
    );
    assert_eq!(fragments("node.packet_buffers", "4096").max_held, 1024);
    let limits = |key, text| compile(&with(key, value(text))).rules[0].limits;
    let unlimited = Limits {
        since: base.rules[0].limits.since,
        ..Limits::default()
    };
    assert_eq!(base.rules[0].limits, unlimited);
    assert_eq!(limits("rule.max_sessions", "7").sessions, Some(7));
    assert_eq!(limits("rule.max_sessions_per_source", "7").per_source, Some(7));
    assert_eq!(
        limits("rule.new_sessions_per_source", "'7/s'").new_per_source,
        Some(7)
    );
    assert_eq!(
        [base.adaptive.start, base.adaptive.end],
        [6_000, 12_000].map(Share)
    );
    let start = compile(&with("conntrack.adaptive_start", value("'0.5%'")))
        .adaptive
        .start;
    let end = compile(&with("conntrack.adaptive_end", value("'99.25%'")))
        .adaptive
        .end;
    assert_eq!([start, end], [50, 9_925].map(Share));
    let reserves = compile(&with("zone.reserve", value("'1%'"))).reserves;
    let [reserve] = reserves.list() else {
        panic!("one reserve, not {reserves:?}");
    };
    assert_eq!(
        (reserve.share, reserve.ports.as_slice()),
        (Share(100), [PortId(1)].as_slice())
    );
    let source = std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets();
    let judged = |policy: &Policy| policy.antispoof.judge(policy.ports[1].zone, &source);
    assert_eq!(judged(&base), None);
    assert_eq!(
        judged(&compile(&with("zone.antispoof", value("true")))),
        Some(Spoof::NotInZone)
    );
    for key in config::value::Timeouts::KEYS {
        let general = compile(&with(&format!("conntrack.timeouts.{key}"), value("'7s'")));
        assert_ne!(general.timeouts, base.timeouts, "{key}");
        assert_ne!(general.state_timeouts, base.state_timeouts, "{key}");
        let own = compile(&with(&format!("rule.timeouts.{key}"), value("'7s'")));
        assert_eq!(own.timeouts, base.timeouts, "{key}");
        assert_eq!(own.rules[0].state_timeouts, general.state_timeouts, "{key}");
        assert_eq!(own.rules[0].timeouts.as_deref(), Some(&general.timeouts), "{key}");
    }
    assert_eq!(base.timeouts.tcp_established, Nanos::from_secs(7440));
}
