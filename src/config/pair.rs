//! What the two nodes of a pair have to have alike: every key of the file is decided about here, once, for `haechi ha check` and for the
//! digests that running nodes compare.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher as _;
use std::path::PathBuf;

use serde_json::Value;
use siphasher::sip::SipHasher24;

use super::tree::join;
use super::value::Config;

/// What a key is to a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// Alike, or the nodes do not understand each other's sessions: they do not synchronise. [`layout_digest`]
    Layout,
    /// Alike, or the nodes judge packets differently, or act differently as a pair. [`policy_digest`]
    Policy,
    /// `haechi ha check` looks at it by itself: what has to differ, or to mirror the other node's.
    Paired,
    /// Each node's own.
    Own,
}

use Concern::{Layout, Own, Paired, Policy};

/// Every key, places in arrays left out. What stands for a whole table of names stands for all of them.
pub const CONCERNS: &[(&str, Concern)] = &[
    ("version", Policy),
    ("include", Own),
    ("devices", Own),
    ("node.name", Own),
    ("node.mode", Layout),
    ("node.workers", Own),
    ("node.idle", Own),
    ("node.rebalance", Own),
    ("node.hugepages", Own),
    ("node.memory_mib", Own),
    ("node.packet_buffers", Own),
    ("node.burst", Own),
    ("node.handover_queue", Own),
    ("node.eal_args", Own),
    ("node.control_socket", Own),
    // Names in their order: sessions name ports by their places.
    ("port", Layout),
    ("port.name", Layout),
    ("port.peer", Layout),
    ("port.device", Own),
    ("port.zone", Policy),
    ("port.mtu", Policy),
    ("port.rx_queues", Own),
    ("port.rx_descriptors", Own),
    ("port.tx_descriptors", Own),
    ("transparent.non_ip", Policy),
    ("transparent.vlan", Policy),
    ("transparent.link_propagation", Policy),
    ("transparent.session_scope", Layout),
    ("zone.name", Policy),
    ("zone.networks", Policy),
    ("zone.antispoof", Policy),
    ("zone.reserve", Policy),
    ("address_sets", Policy),
    ("service_sets", Policy),
    // Names in their order: the first that matches decides.
    ("rule", Policy),
    ("rule.name", Policy),
    ("rule.from", Policy),
    ("rule.to", Policy),
    ("rule.source", Policy),
    ("rule.destination", Policy),
    ("rule.service", Policy),
    ("rule.source_ports", Policy),
    ("rule.action", Policy),
    ("rule.log", Policy),
    ("rule.timeouts", Policy),
    ("rule.pickup", Policy),
    ("rule.reset_on_timeout", Policy),
    ("rule.tcp_strict", Policy),
    ("rule.max_sessions", Policy),
    ("rule.max_sessions_per_source", Policy),
    ("rule.new_sessions_per_source", Policy),
    ("rule.syn_protection", Policy),
    ("rule.syn_options", Policy),
    ("rule.defer", Policy),
    ("rule.enabled", Policy),
    ("rule.description", Own),
    ("policy.reject_rate", Policy),
    ("policy.alert_rate", Policy),
    ("conntrack.max_sessions", Policy),
    ("conntrack.verify_checksums", Policy),
    ("conntrack.adaptive_start", Policy),
    ("conntrack.adaptive_end", Policy),
    ("conntrack.tcp_strict", Policy),
    ("conntrack.pickup", Policy),
    ("conntrack.reset_on_timeout", Policy),
    ("conntrack.syn_cookie_start", Policy),
    ("conntrack.syn_cookie_stop", Policy),
    ("conntrack.timeouts", Policy),
    ("conntrack.fragments.max_datagrams", Policy),
    ("conntrack.fragments.timeout", Policy),
    ("log.sessions", Own),
    ("log.alerts", Own),
    ("metrics.listen", Own),
    ("ha.mode", Policy),
    ("ha.node_id", Paired),
    ("ha.priority", Paired),
    ("ha.preempt", Policy),
    ("ha.preempt_delay", Policy),
    ("ha.witness", Paired),
    ("ha.data_heartbeats", Policy),
    ("ha.redirect_rate", Policy),
    ("ha.sync_rate", Own),
    ("ha.defer_timeout", Policy),
    ("ha.defer_fail", Policy),
    ("ha.track", Policy),
    ("ha.key_file", Paired),
    ("ha.heartbeat", Policy),
    ("ha.dead_after", Policy),
    ("ha.alone_after", Own),
    ("ha.adopt_kib", Policy),
    ("ha.adopt_time", Policy),
    ("ha.link", Paired),
    ("ha.second_link", Paired),
];

/// What a key is to a pair, by its path without places in arrays; `None`: nobody decided.
fn decided(path: &str) -> Option<Concern> {
    let mut path = path;
    loop {
        if let Some((_, concern)) = CONCERNS.iter().find(|(key, _)| *key == path) {
            return Some(*concern);
        }
        path = path.rsplit_once('.')?.0;
    }
}

/// A step on the way to a leaf.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A key of a table.
    Key(String),
    /// The member of an array that has this name.
    Named(String),
}

/// The way to a leaf: `rule "web".service`, `conntrack.timeouts.icmp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way(pub(super) Vec<Step>);

impl Way {
    pub(super) fn with(&self, step: Step) -> Self {
        let mut way = self.clone();
        way.0.push(step);
        way
    }

    /// Without the names of members.
    fn plain(&self) -> String {
        let keys = self.0.iter().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Named(_) => None,
        });
        keys.collect::<Vec<_>>().join(".")
    }

    /// What nobody decided about is not to differ.
    pub(super) fn concern(&self) -> Concern {
        decided(&self.plain()).unwrap_or(Policy)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = String::new();
        for step in &self.0 {
            match step {
                Step::Key(key) => path = join(&path, key),
                Step::Named(name) => path.push_str(&format!(" \"{name}\"")),
            }
        }
        f.write_str(&path)
    }
}

/// All leaves of a configuration with their values, defaults filled in, in a form in which equal meanings are equal: members of sets
/// sorted, zones by name, rules that are switched off and zones that say nothing left out. Ports and rules stand by their names, and their order in a leaf of its own.
pub(super) fn leaves(config: &Config) -> BTreeMap<Way, Value> {
    let mut config = config.clone();
    config.rules.retain(|rule| rule.enabled);
    config
        .zones
        .retain(|zone| !zone.networks.is_empty() || zone.antispoof || zone.reserve.is_some());
    // A path need not be UTF-8; JSON is.
    let plain = |path: &mut PathBuf| *path = PathBuf::from(path.to_string_lossy().into_owned());
    plain(&mut config.node.control_socket);
    config.log.sessions.iter_mut().for_each(plain);
    config.log.alerts.iter_mut().for_each(plain);
    config.ha.iter_mut().for_each(|ha| plain(&mut ha.key_file));
    let mut found = BTreeMap::new();
    // Names are strings and numbers are finite: nothing here cannot be said in JSON.
    let value = serde_json::to_value(&config).unwrap_or_default();
    walk(&value, &Way::default(), &mut found);
    found
}

fn walk(value: &Value, way: &Way, found: &mut BTreeMap<Way, Value>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                walk(value, &way.with(Step::Key(key.clone())), found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let names: Vec<&str> = items.iter().filter_map(|item| item["name"].as_str()).collect();
            for (item, name) in items.iter().zip(&names) {
                walk(item, &way.with(Step::Named((*name).to_owned())), found);
            }
            // The order of zones means nothing.
            if decided(&way.plain()).is_some() {
                found.insert(way.clone(), names.into());
            }
        }
        Value::Array(items) => {
            let mut items = items.clone();
            // Arguments for the EAL are in an order, and nobody compares them but to show them.
            if way.concern() != Own {
                items.sort_by_key(Value::to_string);
                items.dedup();
            }
            if !items.is_empty() || decided(&way.plain()).is_some() {
                found.insert(way.clone(), Value::Array(items));
            }
        }
        leaf => {
            found.insert(way.clone(), leaf.clone());
        }
    }
}

/// A digest of everything that both nodes of a pair should have alike, beyond [`layout_digest`]: what packets may do, limits and timeouts, and
/// how the pair behaves. The same for configurations of the same meaning, on any machine and in any run.
#[must_use]
pub fn policy_digest(config: &Config) -> u64 {
    digest(config, Policy)
}

/// A digest of what has to be alike if one node's sessions are to mean anything to the other one: mode, ports and pairs in their order,
/// session scope.
#[must_use]
pub fn layout_digest(config: &Config) -> u64 {
    digest(config, Layout)
}

fn digest(config: &Config, concern: Concern) -> u64 {
    let leaves = leaves(config);
    let of_concern = leaves.iter().filter(|(way, _)| way.concern() == concern);
    digest_of(of_concern.map(|(way, value)| (way.to_string(), value.to_string())))
}

/// The keys are public: what is compared is no secret, and who could make two policies collide could as well write the same one.
fn digest_of(pairs: impl Iterator<Item = (String, String)>) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(0x6861_6563_6869_2d70, 0x6169_722d_7631_0000);
    for (path, value) in pairs {
        for text in [path, value] {
            // With their lengths, so that no two lists of texts are one text.
            hasher.write(&(text.len() as u64).to_le_bytes());
            hasher.write(text.as_bytes());
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same on every machine and in every run; a change of it makes running nodes of two versions differ.
    #[test]
    fn the_digest_of_a_list_of_texts() {
        let digest = |pairs: &[(&str, &str)]| {
            digest_of(
                pairs
                    .iter()
                    .map(|(path, value)| ((*path).to_owned(), (*value).to_owned())),
            )
        };
        assert_eq!(
            digest(&[("ha.heartbeat", "\"50ms\""), ("version", "1")]),
            4_601_240_072_004_409_410
        );
        assert_ne!(digest(&[("a", "bc")]), digest(&[("ab", "c")]));
        assert_ne!(
            digest(&[("a", "b"), ("c", "d")]),
            digest(&[("c", "d"), ("a", "b")])
        );
    }

    #[test]
    fn no_key_is_decided_about_twice() {
        let keys: std::collections::BTreeSet<_> = CONCERNS.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), CONCERNS.len());
    }

    #[test]
    fn ways_read_like_the_file() {
        let key = |key: &str| Step::Key(key.to_owned());
        let way = Way(vec![
            key("rule"),
            Step::Named("web".to_owned()),
            key("timeouts"),
            key("icmp"),
        ]);
        assert_eq!(way.to_string(), "rule \"web\".timeouts.icmp");
        assert_eq!(
            (way.plain().as_str(), way.concern()),
            ("rule.timeouts.icmp", Policy)
        );
        let set = Way(vec![key("address_sets"), key("a.b")]);
        assert_eq!(
            (set.to_string().as_str(), set.concern()),
            ("address_sets.\"a.b\"", Policy)
        );
    }
}
