//! What an apply may change in a running node: every key of the value is either live or named as needing a restart.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use haechi::base::{Generation, PairId, PortId, ZoneId};
use haechi::config::{self, Config, RuleIds};
use haechi::policy::PortPolicy;

fn base() -> Config {
    let mut text = String::from("version = 1\nnode.mode = \"transparent\"\n");
    for (i, (name, zone, peer)) in [
        ("a", "left", "d"),
        ("b", "right", "c"),
        ("c", "left", "b"),
        ("d", "right", "a"),
    ]
    .iter()
    .enumerate()
    {
        text += &format!(
            "[[port]]\nname = \"{name}\"\nzone = \"{zone}\"\npeer = \"{peer}\"\ndevice = \"vdev:net_null{i}\"\n"
        );
    }
    text += "[[rule]]\nname = \"first\"\nfrom = \"left\"\naction = \"allow\"\n";
    text += "[[rule]]\nname = \"second\"\naction = \"drop\"\n";
    text += "[ha]\nnode_id = 1\nkey_file = \"ha.key\"\nwitness = \"192.0.2.1\"\n";
    for (key, net) in [("link", 77), ("second_link", 78)] {
        text += &format!("{key} = {{ local = \"169.254.{net}.1:7700\", peer = \"169.254.{net}.2:7700\" }}\n");
    }
    let mut config = config::load_text("base", &text).unwrap();
    // What is not written out where it has its default.
    if let Some(ha) = &mut config.ha {
        ha.data_heartbeats = false;
        ha.redirect_rate = config::Rate(1);
        ha.defer_timeout = config::TimeSpan::from_secs(1);
        ha.defer_fail = config::DeferFail::Closed;
    }
    config
}

fn ha(config: &mut Config) -> &mut config::Ha {
    config.ha.as_mut().unwrap()
}

/// A key, whether a change of it needs a restart, and the change.
type Change = (&'static str, bool, fn(&mut Config));

fn changes() -> Vec<Change> {
    vec![
        ("node.name", true, |c| c.node.name = "x".to_owned()),
        ("node.workers", true, |c| c.node.workers.0 = vec![3]),
        ("node.idle", true, |c| c.node.idle = config::Idle::Poll),
        ("node.rebalance", false, |c| {
            c.node.rebalance = config::Rebalance::Auto
        }),
        ("node.hugepages", true, |c| c.node.hugepages = false),
        ("node.memory_mib", true, |c| c.node.memory_mib += 1),
        ("node.packet_buffers", true, |c| c.node.packet_buffers += 1),
        ("node.burst", true, |c| c.node.burst += 1),
        ("node.handover_queue", true, |c| c.node.handover_queue += 1),
        ("node.eal_args", true, |c| c.node.eal_args.push("-v".to_owned())),
        ("node.control_socket", true, |c| c.node.control_socket.push("x")),
        ("port", true, |c| c.ports.swap(0, 1)),
        ("port", true, |c| c.ports[0].name = "x".to_owned()),
        ("port \"a\".device", true, |c| {
            c.ports[0].device = "vdev:net_null9".parse().unwrap()
        }),
        ("port \"a\".peer", true, |c| c.ports[0].peer = "b".to_owned()),
        ("port \"a\".mtu", true, |c| c.ports[0].mtu = 9000),
        ("port \"a\".rx_queues", true, |c| {
            c.ports[0].rx_queues = config::RxQueues::Count(1)
        }),
        ("port \"a\".rx_descriptors", true, |c| {
            c.ports[0].rx_descriptors = 64
        }),
        ("port \"a\".tx_descriptors", true, |c| {
            c.ports[0].tx_descriptors = 64
        }),
        ("port \"a\".zone", false, |c| c.ports[0].zone = "x".to_owned()),
        ("transparent.non_ip", false, |c| {
            c.transparent.non_ip = haechi::policy::PassOrDrop::Pass
        }),
        ("transparent.vlan", false, |c| {
            c.transparent.vlan = haechi::policy::VlanMode::Drop
        }),
        ("transparent.link_propagation", true, |c| {
            c.transparent.link_propagation = false
        }),
        ("transparent.session_scope", true, |c| {
            c.transparent.session_scope = haechi::policy::SessionScope::Node;
        }),
        ("zone", false, |c| {
            c.zones.push(config::Zone {
                name: "left".to_owned(),
                networks: vec![],
                antispoof: false,
                reserve: None,
            })
        }),
        ("address_sets", false, |c| {
            c.address_sets
                .insert("x".to_owned(), vec!["::1".parse().unwrap()]);
        }),
        ("service_sets", false, |c| {
            c.service_sets
                .insert("x".to_owned(), vec!["tcp".parse().unwrap()]);
        }),
        ("rule", false, |c| c.rules.swap(0, 1)),
        ("policy.reject_rate", false, |c| {
            c.policy.reject_rate = config::Rate(1)
        }),
        ("policy.alert_rate", false, |c| {
            c.policy.alert_rate = config::Rate(1)
        }),
        ("log.sessions", true, |c| c.log.sessions = Some("/x".into())),
        ("log.alerts", true, |c| c.log.alerts = Some("/x".into())),
        ("metrics.listen", true, |c| {
            c.metrics.listen = Some("[::1]:9464".parse().unwrap());
        }),
        ("conntrack.max_sessions", true, |c| c.conntrack.max_sessions += 1),
        ("conntrack.adaptive_start", false, |c| {
            c.conntrack.adaptive_start.0 -= 1
        }),
        ("conntrack.adaptive_end", false, |c| {
            c.conntrack.adaptive_end.0 += 1
        }),
        ("conntrack.tcp_strict", false, |c| c.conntrack.tcp_strict = false),
        ("conntrack.pickup", false, |c| c.conntrack.pickup = true),
        ("conntrack.reset_on_timeout", false, |c| {
            c.conntrack.reset_on_timeout = true
        }),
        ("conntrack.syn_cookie_start", false, |c| {
            c.conntrack.syn_cookie_start = haechi::policy::Share(3000);
        }),
        ("conntrack.syn_cookie_stop", false, |c| {
            c.conntrack.syn_cookie_stop = haechi::policy::Share(500);
        }),
        ("conntrack.verify_checksums", false, |c| {
            c.conntrack.verify_checksums = false
        }),
        ("conntrack.timeouts", false, |c| {
            c.conntrack.timeouts.icmp = config::TimeSpan::from_secs(1)
        }),
        ("conntrack.fragments.max_datagrams", true, |c| {
            c.conntrack.fragments.max_datagrams += 1
        }),
        ("conntrack.fragments.timeout", false, |c| {
            c.conntrack.fragments.timeout = config::TimeSpan::from_secs(1)
        }),
        ("ha", true, |c| c.ha = None),
        ("ha.mode", true, |c| ha(c).mode = config::HaMode::ActiveActive),
        ("ha.node_id", true, |c| ha(c).node_id = 2),
        ("ha.priority", false, |c| ha(c).priority = 7),
        ("ha.preempt", true, |c| ha(c).preempt = true),
        ("ha.preempt_delay", true, |c| {
            ha(c).preempt_delay = config::TimeSpan::from_secs(1)
        }),
        ("ha.witness", true, |c| ha(c).witness = None),
        ("ha.data_heartbeats", true, |c| ha(c).data_heartbeats = true),
        ("ha.redirect_rate", true, |c| {
            ha(c).redirect_rate = config::Rate(7)
        }),
        ("ha.sync_rate", true, |c| ha(c).sync_rate = config::Rate(7)),
        ("ha.defer_timeout", true, |c| {
            ha(c).defer_timeout = config::TimeSpan::from_secs(7)
        }),
        ("ha.defer_fail", true, |c| {
            ha(c).defer_fail = config::DeferFail::Open
        }),
        ("ha.track", true, |c| ha(c).track.push("a".to_owned())),
        ("ha.key_file", true, |c| ha(c).key_file.push("x")),
        ("ha.heartbeat", true, |c| {
            ha(c).heartbeat = config::TimeSpan::from_secs(1)
        }),
        ("ha.dead_after", true, |c| ha(c).dead_after = 7),
        ("ha.alone_after", true, |c| {
            ha(c).alone_after = config::TimeSpan::from_secs(7)
        }),
        ("ha.adopt_kib", true, |c| ha(c).adopt_kib = 7),
        ("ha.adopt_time", true, |c| {
            ha(c).adopt_time = config::TimeSpan::from_secs(7)
        }),
        ("ha.link", true, |c| ha(c).link.local = "[::1]:1".parse().unwrap()),
        ("ha.second_link", true, |c| ha(c).second_link = None),
    ]
}

#[test]
fn each_change_is_live_or_named() {
    let old = base();
    assert_eq!(config::diff(&old, &old), config::Diff::default());
    for (key, restart, change) in changes() {
        let mut new = old.clone();
        change(&mut new);
        let names = vec![key.to_owned()];
        let expected = if restart { (names, vec![]) } else { (vec![], names) };
        let diff = config::diff(&old, &new);
        assert_eq!((diff.restart, diff.live), expected, "{key}");
        assert_eq!(config::restart_needed(&old, &new).is_empty(), !restart, "{key}");
    }
}

/// No field of the value can change without a word about it.
#[test]
fn every_leaf_of_the_value_is_compared() {
    let tried: Vec<String> = changes()
        .into_iter()
        .map(|(key, ..)| key.replace(" \"a\"", ""))
        .collect();
    let value = serde_json::to_value(base()).unwrap();
    let mut leaves = Vec::new();
    for (section, inner) in value.as_object().unwrap() {
        match (section.as_str(), inner) {
            ("version", _) => {}
            ("rule" | "zone" | "address_sets" | "service_sets", _) => leaves.push(section.clone()),
            (_, serde_json::Value::Array(items)) => {
                leaves.extend(
                    items[0]
                        .as_object()
                        .unwrap()
                        .keys()
                        .map(|key| format!("{section}.{key}")),
                );
            }
            (_, inner) => {
                for (key, value) in inner.as_object().unwrap() {
                    match value {
                        // Not one word for all of them.
                        serde_json::Value::Object(inner) if key == "fragments" => {
                            leaves.extend(inner.keys().map(|inner| format!("{section}.{key}.{inner}")));
                        }
                        _ => leaves.push(format!("{section}.{key}")),
                    }
                }
            }
        }
    }
    // A port's name is the list of ports; the mode has one value so far.
    leaves.retain(|leaf| leaf != "port.name" && leaf != "node.mode");
    for leaf in leaves {
        assert!(tried.contains(&leaf), "{leaf}");
    }
}

#[test]
fn pairs_and_zones_are_numbered_by_the_file() {
    let policy = config::compile(&base(), Generation(1), &mut RuleIds::new()).unwrap();
    assert_eq!(policy.zones, ["left", "right"]);
    let port = |zone, peer, pair| PortPolicy {
        zone: ZoneId(zone),
        peer: PortId(peer),
        pair: PairId(pair),
    };
    assert_eq!(
        policy.ports,
        [port(0, 3, 0), port(1, 2, 1), port(0, 1, 1), port(1, 0, 0)]
    );
}

#[test]
fn rule_ids_follow_the_name_over_generations() {
    let mut ids = RuleIds::new();
    let mut config = base();
    let first = config::compile(&config, Generation(1), &mut ids).unwrap();
    config.rules.swap(0, 1);
    config.rules[0].name = "third".to_owned();
    let second = config::compile(&config, Generation(2), &mut ids).unwrap();
    assert_eq!(second.rules[1].id, first.rules[0].id);
    assert_eq!(second.rule(first.rules[0].id).unwrap().name, "first");
    // The name that is gone keeps its id, and its name for the sessions that still carry it.
    assert!(second.rule(first.rules[1].id).is_none());
    assert_eq!(ids.name(first.rules[1].id), Some("second"));
    assert_eq!((ids.len(), ids.name(second.rules[0].id)), (3, Some("third")));
}

#[test]
fn rule_ids_are_bounded() {
    let mut ids = RuleIds::new();
    for i in 0..RuleIds::CAPACITY {
        assert!(ids.try_id(&format!("r{i}")).is_some());
    }
    assert_eq!(ids.try_id("one more"), None);
    assert!(ids.try_id("r7").is_some());
    let error = config::compile(&base(), Generation(1), &mut ids).err().unwrap();
    assert_eq!(error, config::CompileError::RuleIdsExhausted("first".to_owned()));
}
