//! Two nodes of a pair: what they must have alike, what may differ, and the digests that say so.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use haechi::config::{self, CONCERNS, Concern, Config, Difference, Files, KeyFileError, PairReport};
use haechi::ha::seal::PairKey;

/// Files at hand, with keys.
struct Pair {
    files: BTreeMap<PathBuf, String>,
    keys: BTreeMap<PathBuf, PairKey>,
}

impl Files for Pair {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.files.read(path)
    }

    fn identity(&self, path: &Path) -> PathBuf {
        self.files.identity(path)
    }

    fn key(&self, path: &Path) -> Option<Result<PairKey, KeyFileError>> {
        let missing = || KeyFileError::Missing {
            path: path.to_owned(),
        };
        Some(self.keys.get(path).cloned().ok_or_else(missing))
    }
}

/// One of several keys.
fn key(number: u8) -> PairKey {
    PairKey::from_text(&format!("{}00", format!("{number:02x}").repeat(31))).unwrap()
}

/// What both include: `rule "web"` in line 14, `rule "dns"` in line 18.
const SHARED: &str = r#"version = 1
node.mode = "transparent"
[[port]]
name = "wan"
zone = "untrust"
peer = "lan"
[[port]]
name = "lan"
zone = "trust"
peer = "wan"
[ha]
key_file = "ha.key"
heartbeat = "50ms"
[[rule]]
name = "web"
service = ["tcp/80"]
action = "allow"
[[rule]]
name = "dns"
service = ["udp/53"]
action = "allow"
"#;

fn node(me: u8) -> String {
    let you = 3 - me;
    format!(
        "include = [\"pair.toml\"]\n[node]\nname = \"fw-{me}\"\n[devices]\nwan = \"vdev:net_null{me}\"\nlan = \"vdev:net_null3\"\n\
         [ha]\nnode_id = {me}\npriority = {me}00\n\
         link = {{ local = \"169.254.77.{me}:7700\", peer = \"169.254.77.{you}:7700\" }}\n"
    )
}

impl Pair {
    fn new() -> Self {
        let files = [
            ("a.toml", node(1)),
            ("b.toml", node(2)),
            ("pair.toml", SHARED.to_owned()),
        ];
        Self {
            files: files.map(|(path, text)| (path.into(), text)).into(),
            keys: BTreeMap::from(["ha.key".into()].map(|path| (path, key(7)))),
        }
    }

    /// With `line` of a file replaced.
    fn with(mut self, file: &str, line: &str, by: &str) -> Self {
        let text = self.files.get_mut(Path::new(file)).unwrap();
        assert_eq!(text.matches(line).count(), 1, "{line} in {text}");
        *text = text.replace(line, by);
        self
    }

    /// Node b with a copy of the shared file, `line` of it replaced.
    fn split(self, line: &str, by: &str) -> Self {
        let mut pair = self.with("b.toml", "\"pair.toml\"", "\"other.toml\"");
        pair.files.insert("other.toml".into(), SHARED.to_owned());
        pair.with("other.toml", line, by)
    }

    fn check(&self) -> PairReport {
        let paths = ["a.toml", "b.toml"].map(Path::new);
        config::check_pair(self, paths).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn lines(&self) -> Vec<String> {
        let report = self.check();
        report
            .differences
            .iter()
            .map(|difference| Difference::diagnostic(difference).one_line())
            .collect()
    }
}

/// There is exactly this to say, and the nodes agree all the same, or not.
#[track_caller]
fn one(pair: &Pair, expected: &str) {
    let lines = pair.lines();
    assert_eq!(lines, [expected], "{lines:#?}");
    assert_eq!(
        pair.check().agrees(),
        expected.contains(": warning: "),
        "{expected}"
    );
}

#[test]
fn a_pair_that_agrees() {
    let report = Pair::new().check();
    assert!(report.agrees() && report.differences.is_empty() && report.warnings.is_empty());
    assert_eq!(report.policy[0], report.policy[1]);
    assert_eq!(report.layout[0], report.layout[1]);
    let own: Vec<(&str, [Option<&str>; 2])> = report
        .own
        .iter()
        .map(|(key, values)| (key.as_str(), values.each_ref().map(Option::as_deref)))
        .collect();
    assert_eq!(
        own,
        [
            ("node.name", [Some("\"fw-1\""), Some("\"fw-2\"")]),
            (
                "port \"wan\".device",
                [Some("\"vdev:net_null1\""), Some("\"vdev:net_null2\"")]
            ),
        ]
    );
}

#[test]
fn a_difference_names_both_places_and_values() {
    one(
        &Pair::new().split("\"tcp/80\"", "\"tcp/443\""),
        "pair.toml:16:11: error: `rule \"web\".service` is [\"tcp/80\"] here, and [\"tcp/443\"] in b.toml \
         (the other node's is here: other.toml:16:11); help: write it in the file that both nodes include",
    );
    one(
        &Pair::new().split("heartbeat = \"50ms\"", "heartbeat = \"60ms\""),
        "pair.toml:13:13: error: `ha.heartbeat` is \"50ms\" here, and \"60ms\" in b.toml \
         (the other node's is here: other.toml:13:13); help: write it in the file that both nodes include",
    );
    // A default stands where its table does, or nowhere.
    let own = "priority = 200\n";
    one(
        &Pair::new().with("b.toml", own, &format!("{own}dead_after = 4\n")),
        "pair.toml:11:1: error: `ha.dead_after` is 3 (the default) here, and 4 in b.toml \
         (the other node's is here: b.toml:10:14); help: write it in the file that both nodes include",
    );
    one(
        &Pair::new().with(
            "a.toml",
            "[devices]\n",
            "[conntrack]\nmax_sessions = 5000\n[devices]\n",
        ),
        "a.toml:5:16: error: `conntrack.max_sessions` is 5000 here, and 1000000 (the default) in b.toml \
         (the other node's is here: b.toml); help: write it in the file that both nodes include",
    );
}

#[test]
fn rules_and_ports_that_one_node_lacks_or_has_elsewhere() {
    let extra = "[[rule]]\nname = \"own\"\naction = \"drop\"\n";
    one(
        &Pair::new().with("b.toml", "[devices]\n", &format!("{extra}[devices]\n")),
        "a.toml: error: rule \"own\" is in b.toml, and not in a.toml (the other node's is here: b.toml:4:1); help: write all rules in \
         the file that both nodes include (a rule with `enabled = false` counts as none)",
    );
    // Switched off it says nothing.
    let off = format!("{extra}enabled = false\n[devices]\n");
    assert!(Pair::new().with("b.toml", "[devices]\n", &off).check().agrees());
    let web = "[[rule]]\nname = \"web\"\nservice = [\"tcp/80\"]\naction = \"allow\"\n";
    let mut swapped = Pair::new().split(web, "");
    swapped
        .files
        .get_mut(Path::new("other.toml"))
        .unwrap()
        .push_str(web);
    one(
        &swapped,
        "pair.toml:14:1: error: the order of rules differs from here on: rule \"web\" comes here, \"dns\" in b.toml \
         (the other node's is here: other.toml:14:1); help: write all rules in the file that both nodes include",
    );
    let [a, b] = swapped.check().policy;
    assert_ne!(a, b);
    let lan = "[[port]]\nname = \"lan\"\nzone = \"trust\"\npeer = \"wan\"\n";
    let wan = "[[port]]\nname = \"wan\"\nzone = \"untrust\"\npeer = \"lan\"\n";
    let crossed = Pair::new().split(&format!("{wan}{lan}"), &format!("{lan}{wan}"));
    one(
        &crossed,
        "pair.toml:3:1: error: the order of ports differs from here on: port \"wan\" comes here, \"lan\" in b.toml \
         (the other node's is here: other.toml:3:1); help: write all ports in the file that both nodes include",
    );
    let report = crossed.check();
    assert_ne!(report.layout[0], report.layout[1]);
    assert_eq!(report.policy[0], report.policy[1]);
}

/// Equal meanings are equal: the order in sets, of zones, a single member without brackets, a zone that says nothing.
#[test]
fn the_same_in_other_words() {
    let words = [
        ("service = [\"udp/53\"]", "service = \"udp/53\""),
        ("[ha]\n", "[[zone]]\nname = \"trust\"\n[ha]\n"),
        (
            "heartbeat = \"50ms\"",
            "heartbeat = \"50ms\"\nmode = \"active-standby\"\ndead_after = 3",
        ),
    ];
    for (line, by) in words {
        let pair = Pair::new().split(line, by);
        assert_eq!(pair.lines(), [""; 0], "{by}");
        let report = pair.check();
        assert_eq!(report.policy[0], report.policy[1], "{by}");
    }
    let several = |members: &str| Pair::new().split("[\"udp/53\"]", members).check().policy[1];
    assert_eq!(
        several("[\"udp/53\", \"tcp/53\"]"),
        several("[\"tcp/53\", \"udp/53\"]")
    );
    assert_ne!(
        several("[\"udp/53\", \"tcp/53\"]"),
        several("[\"udp/53\"] # alone")
    );
}

#[test]
fn what_has_to_differ_or_to_mirror() {
    one(
        &Pair::new().with("b.toml", "node_id = 2", "node_id = 1"),
        "a.toml:8:11: error: both nodes have `node_id = 1` (the other node's is here: b.toml:8:11); help: one node is 1, the other one 2",
    );
    one(
        &Pair::new().with("b.toml", "priority = 200", "priority = 100"),
        "a.toml:9:12: warning: both nodes have `priority = 100`: at the start node 1 leads \
         (the other node's is here: b.toml:9:12); help: give the node that is to lead the higher priority",
    );
    one(
        &Pair::new().with("b.toml", "fw-2", "fw-1"),
        "a.toml:3:8: warning: both nodes are called \"fw-1\" (the other node's is here: b.toml:3:8); help: give each node a name of its own",
    );
    one(
        &Pair::new().with(
            "b.toml",
            "peer = \"169.254.77.1:7700\"",
            "peer = \"169.254.77.1:7701\"",
        ),
        "a.toml:10:18: error: `ha.link.local` is 169.254.77.1:7700 here, and `peer` is 169.254.77.1:7701 in b.toml \
         (the other node's is here: b.toml:10:46); help: each node's `local` is the other one's `peer`",
    );
    let second =
        "priority = 100\nsecond_link = { local = \"169.254.78.1:7700\", peer = \"169.254.78.2:7700\" }";
    one(
        &Pair::new().with("a.toml", "priority = 100", second),
        "a.toml:10:15: error: `ha.second_link` is in a.toml, and not in b.toml (the other node's is here: pair.toml:11:1); \
         help: write its mirror image in the other node's file, or remove it",
    );
    one(
        &Pair::new().with(
            "b.toml",
            "priority = 200",
            "priority = 200\nwitness = \"192.0.2.1\"",
        ),
        "pair.toml:11:1: warning: the witness is none here, and 192.0.2.1 in b.toml (the other node's is here: b.toml:10:11); \
         help: nodes that ask the same witness find out more often which of them is cut off",
    );
    let mut alone = Pair::new();
    let text = SHARED.replace("[ha]\nkey_file = \"ha.key\"\nheartbeat = \"50ms\"\n", "");
    let devices = "devices = { wan = \"vdev:net_null0\", lan = \"vdev:net_null1\" }\n";
    alone.files.insert("b.toml".into(), format!("{devices}{text}"));
    one(
        &alone,
        "pair.toml:11:1: error: b.toml is no node of a pair: it has no `[ha]` (the other node's is here: b.toml); \
         help: add `[ha]` with `node_id`, `link` and `key_file`",
    );
}

#[test]
fn keys_are_compared_and_never_shown() {
    let own_key = || Pair::new().with("pair.toml", "key_file = \"ha.key\"\n", "");
    let place = |pair: Pair, file: &str, key: &str| {
        let id = if file == "a.toml" {
            "node_id = 1"
        } else {
            "node_id = 2"
        };
        pair.with(file, id, &format!("{id}\nkey_file = \"{key}\""))
    };
    let mut pair = place(place(own_key(), "a.toml", "a.key"), "b.toml", "b.key");
    pair.keys = BTreeMap::from([("a.key".into(), key(1)), ("b.key".into(), key(2))]);
    one(
        &pair,
        "a.toml:9:12: error: the nodes have different keys (the other node's is here: b.toml:9:12); \
         help: copy one node's key file to the other one",
    );
    pair.keys.insert("b.key".into(), key(1));
    assert_eq!(pair.lines(), [""; 0], "two files, one key");
    pair.keys.remove(Path::new("b.key"));
    one(
        &pair,
        "a.toml:9:12: warning: the nodes' keys were not compared: there is no b.key (the other node's is here: b.toml:9:12); \
         help: ask where both key files are, as who may read them",
    );
    let warnings = pair.check().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0]
            .one_line()
            .starts_with("b.toml:9:12: warning: the pair's key: there is no b.key; help: make it by")
    );
}

/// What is wrong with a file comes first, each finding of the shared one once.
#[test]
fn files_with_errors_are_not_compared() {
    let pair = Pair::new().with("pair.toml", "\"tcp/80\"", "\"tcp/http\"").with(
        "b.toml",
        "node_id = 2",
        "node_id = 7",
    );
    let errors = config::check_pair(&pair, ["a.toml", "b.toml"].map(Path::new)).unwrap_err();
    let lines: Vec<String> = errors.iter().map(config::Diagnostic::one_line).collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].starts_with("pair.toml:16:12: error: "), "{lines:#?}");
    assert!(
        lines[1].starts_with("b.toml:8:11: error: `ha.node_id` is out of range"),
        "{lines:#?}"
    );
}

/// Every key of the file, by the schema: tables' keys with their path. What is a map of names, or a list of values, is a leaf.
fn keys_of_the_schema() -> BTreeSet<String> {
    fn walk(root: &serde_json::Value, schema: &serde_json::Value, path: &str, found: &mut BTreeSet<String>) {
        if let Some(name) = schema.get("$ref").and_then(serde_json::Value::as_str) {
            let target = root.pointer(name.trim_start_matches('#')).unwrap();
            return walk(root, target, path, found);
        }
        if let Some(items) = schema.get("items") {
            return walk(root, items, path, found);
        }
        match schema.get("properties").and_then(serde_json::Value::as_object) {
            None => {
                found.insert(path.to_owned());
            }
            Some(properties) => {
                for (key, property) in properties {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    walk(root, property, &path, found);
                }
            }
        }
    }
    let schema: serde_json::Value = serde_json::from_str(&config::schema_json()).unwrap();
    let mut found = BTreeSet::new();
    walk(&schema, &schema, "", &mut found);
    found
}

/// Who adds a key decides what it is to a pair: in `CONCERNS`, for itself or for the table that it stands in.
#[test]
fn every_key_is_decided_about() {
    // These tables are alike or not as a whole.
    let whole = [
        "rule.timeouts",
        "rule.syn_options",
        "conntrack.timeouts",
        "ha.link",
        "ha.second_link",
    ];
    let keys: BTreeSet<String> = keys_of_the_schema()
        .into_iter()
        .map(|key| {
            let table = whole.iter().find(|table| key.starts_with(&format!("{table}.")));
            table.map_or(key, |table| (*table).to_owned())
        })
        .collect();
    let decided: BTreeSet<String> = CONCERNS.iter().map(|(key, _)| (*key).to_owned()).collect();
    // The order of rules and ports is no key; what is refused so far is decided about already.
    let beyond = ["port", "rule", "ha.data_heartbeats"];
    let expected: BTreeSet<String> = keys.iter().cloned().chain(beyond.map(str::to_owned)).collect();
    assert_eq!(decided, expected);
}

/// A key, and a change of it.
type Change = (&'static str, fn(&mut Config));

/// What a change of a key does to the digests is what its concern says.
#[test]
fn digests_change_with_what_matters_and_with_nothing_else() {
    let base = || Pair::new().check().configs[0].clone();
    let digests = |config: &Config| (config::layout_digest(config), config::policy_digest(config));
    let changes: &[Change] = &[
        ("node.name", |c| c.node.name.push('x')),
        ("node.workers", |c| c.node.workers.0.push(7)),
        ("node.idle", |c| c.node.idle = config::Idle::Poll),
        ("node.rebalance", |c| c.node.rebalance = config::Rebalance::Auto),
        ("node.hugepages", |c| c.node.hugepages = false),
        ("node.memory_mib", |c| c.node.memory_mib += 1),
        ("node.packet_buffers", |c| c.node.packet_buffers += 1),
        ("node.burst", |c| c.node.burst += 1),
        ("node.handover_queue", |c| c.node.handover_queue += 1),
        ("node.eal_args", |c| c.node.eal_args.push("-v".to_owned())),
        ("node.control_socket", |c| c.node.control_socket.push("x")),
        ("port", |c| c.ports.swap(0, 1)),
        ("port.name", |c| c.ports[0].name.push('x')),
        ("port.peer", |c| c.ports[0].peer.push('x')),
        ("port.device", |c| {
            c.ports[0].device = "vdev:net_null9".parse().unwrap()
        }),
        ("port.zone", |c| c.ports[0].zone.push('x')),
        ("port.mtu", |c| c.ports[0].mtu += 1),
        ("port.rx_queues", |c| {
            c.ports[0].rx_queues = config::RxQueues::Count(1)
        }),
        ("port.rx_descriptors", |c| c.ports[0].rx_descriptors += 1),
        ("port.tx_descriptors", |c| c.ports[0].tx_descriptors += 1),
        ("transparent.non_ip", |c| {
            c.transparent.non_ip = haechi::policy::PassOrDrop::Pass
        }),
        ("transparent.vlan", |c| {
            c.transparent.vlan = haechi::policy::VlanMode::Drop
        }),
        ("transparent.link_propagation", |c| {
            c.transparent.link_propagation = false
        }),
        ("transparent.session_scope", |c| {
            c.transparent.session_scope = haechi::policy::SessionScope::Node;
        }),
        ("zone.antispoof", |c| c.zones.push(zone(true, None))),
        ("zone.reserve", |c| {
            c.zones.push(zone(false, Some(haechi::policy::Share(100))))
        }),
        ("address_sets", |c| {
            c.address_sets
                .insert("x".to_owned(), vec!["::1".parse().unwrap()]);
        }),
        ("service_sets", |c| {
            c.service_sets
                .insert("x".to_owned(), vec!["tcp".parse().unwrap()]);
        }),
        ("rule", |c| c.rules.swap(0, 1)),
        ("rule.name", |c| c.rules[0].name.push('x')),
        ("rule.action", |c| {
            c.rules[0].action = haechi::policy::Action::Drop
        }),
        ("rule.log", |c| c.rules[0].log = haechi::policy::RuleLog::Both),
        ("rule.timeouts", |c| {
            c.rules[0].timeouts.icmp = Some(config::TimeSpan::from_secs(1))
        }),
        ("rule.pickup", |c| c.rules[0].pickup = Some(true)),
        ("rule.max_sessions", |c| c.rules[0].max_sessions = Some(7)),
        ("rule.syn_options", |c| c.rules[0].syn_options.sack = false),
        ("rule.defer", |c| c.rules[0].defer = true),
        ("rule.enabled", |c| c.rules[0].enabled = false),
        ("rule.description", |c| {
            c.rules[0].description = Some("x".to_owned())
        }),
        ("policy.reject_rate", |c| c.policy.reject_rate = config::Rate(7)),
        ("conntrack.max_sessions", |c| c.conntrack.max_sessions += 1),
        ("conntrack.timeouts", |c| {
            c.conntrack.timeouts.other = config::TimeSpan::from_secs(1)
        }),
        ("conntrack.fragments.max_datagrams", |c| {
            c.conntrack.fragments.max_datagrams += 1
        }),
        ("log.sessions", |c| c.log.sessions = Some("x".into())),
        ("ha.mode", |c| ha(c).mode = config::HaMode::ActiveActive),
        ("ha.node_id", |c| ha(c).node_id = 2),
        ("ha.priority", |c| ha(c).priority += 1),
        ("ha.preempt", |c| ha(c).preempt = true),
        ("ha.witness", |c| ha(c).witness = Some([192, 0, 2, 1].into())),
        ("ha.data_heartbeats", |c| ha(c).data_heartbeats = false),
        ("ha.redirect_rate", |c| ha(c).redirect_rate = config::Rate(7)),
        ("ha.sync_rate", |c| ha(c).sync_rate = config::Rate(7)),
        ("ha.track", |c| ha(c).track.push("wan".to_owned())),
        ("ha.key_file", |c| ha(c).key_file.push("x")),
        ("ha.heartbeat", |c| {
            ha(c).heartbeat = config::TimeSpan::from_secs(1)
        }),
        ("ha.dead_after", |c| ha(c).dead_after += 1),
        ("ha.alone_after", |c| {
            ha(c).alone_after = config::TimeSpan::from_secs(7)
        }),
        ("ha.adopt_kib", |c| ha(c).adopt_kib += 1),
        ("ha.link", |c| ha(c).link.local = "[::1]:1".parse().unwrap()),
        ("ha.second_link", |c| ha(c).second_link = Some(c_link())),
    ];
    let before = digests(&base());
    assert_eq!(digests(&base()), before);
    assert_ne!(before.0, before.1);
    for (key, change) in changes {
        let concern = CONCERNS.iter().find(|(of, _)| of == key).unwrap().1;
        let mut config = base();
        change(&mut config);
        assert_ne!(config, base(), "{key}");
        let after = digests(&config);
        let changed = (after.0 != before.0, after.1 != before.1);
        match concern {
            Concern::Own | Concern::Paired => assert_eq!(changed, (false, false), "{key}"),
            Concern::Policy => assert_eq!(changed, (false, true), "{key}"),
            // Another name is another port, with all of its keys.
            Concern::Layout if *key == "port.name" => assert_eq!(changed, (true, true), "{key}"),
            Concern::Layout => assert_eq!(changed, (true, false), "{key}"),
        }
    }
}

fn ha(config: &mut Config) -> &mut config::Ha {
    config.ha.as_mut().unwrap()
}

fn c_link() -> config::Link {
    config::Link {
        local: "[::1]:1".parse().unwrap(),
        peer: "[::1]:2".parse().unwrap(),
    }
}

fn zone(antispoof: bool, reserve: Option<haechi::policy::Share>) -> config::Zone {
    config::Zone {
        name: "trust".to_owned(),
        networks: vec![],
        antispoof,
        reserve,
    }
}

/// A path that is not UTF-8 changes no digest, and hides no difference.
#[test]
fn digests_do_not_depend_on_where_the_files_are() {
    use std::os::unix::ffi::OsStrExt as _;
    let odd = Path::new(std::ffi::OsStr::from_bytes(b"/etc/\xff/ha.key"));
    let [mut a, mut b] = Pair::new().check().configs;
    let before = config::policy_digest(&a);
    ha(&mut a).key_file = odd.to_owned();
    a.log.sessions = Some(odd.to_owned());
    assert_eq!(config::policy_digest(&a), before);
    ha(&mut b).key_file = odd.to_owned();
    b.conntrack.max_sessions += 1;
    assert_ne!(config::policy_digest(&b), before);
}
