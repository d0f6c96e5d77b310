//! The compiled classifier against an oracle that starts from the configuration's value: random rules, random packets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/policies.rs"]
mod policies;

use std::cell::Cell;
use std::collections::BTreeMap;

use haechi::base::Generation;
use haechi::config::value::TimeoutOverrides;
use haechi::config::{self, Config, Matcher, Rule, RuleIds};
use haechi::policy::expand::EntryClassifier;
use haechi::policy::{Action, ClassifyKey, Policy, RuleLog};
use policies::{Packet, base, configuration, oracle, packet};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

fn compile(config: &Config) -> Policy {
    config::compile(config, Generation(1), &mut RuleIds::new()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn first_match_is_the_oracles(
        config in configuration(4, 24),
        packets in prop::collection::vec(packet(4), 1..80),
    ) {
        let policy = compile(&config);
        let keys: Vec<ClassifyKey> = packets.iter().map(Packet::key).collect();
        let mut found = vec![None; keys.len()];
        policy.classifier.classify(&keys, &mut found);
        for (packet, found) in packets.iter().zip(found) {
            let name = found.map(|place| policy.rules[place as usize].name.as_str());
            prop_assert_eq!(name, oracle(&config, packet), "{:?}", packet);
        }
    }
}

/// The first matches of a policy.
fn found(policy: &Policy, keys: &[ClassifyKey]) -> Vec<Option<u32>> {
    let mut found = vec![None; keys.len()];
    policy.classifier.classify(keys, &mut found);
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// With few zones their classes are in the keys' first byte, with many they are not.
    #[test]
    fn what_a_trie_is_built_of_says_the_same(
        (zones, config) in prop_oneof![Just(2), Just(4), Just(40)]
            .prop_flat_map(|zones| (Just(zones), configuration(zones, 12))),
        mut packets in prop::collection::vec(packet(40), 1..80),
    ) {
        // One more zone than there are.
        packets.iter_mut().for_each(|packet| {
            packet.from %= zones + 1;
            packet.to %= zones + 1;
        });
        let compile = |entries: bool| {
            config::compile_with(&config, Generation(1), &mut RuleIds::new(), &|rules, zones| {
                if entries {
                    Box::new(EntryClassifier::new(rules, zones).unwrap())
                } else {
                    Box::new(haechi::policy::LinearClassifier::new(rules, zones))
                }
            })
            .unwrap()
        };
        let keys: Vec<ClassifyKey> = packets.iter().map(Packet::key).collect();
        prop_assert_eq!(found(&compile(true), &keys), found(&compile(false), &keys));
    }
}

/// A rule that asks for less than `rule`, or the same.
fn narrowed(rule: &Rule) -> Rule {
    fn first<T: Clone>(matcher: &Matcher<T>) -> Matcher<T> {
        match matcher {
            Matcher::Any => Matcher::Any,
            Matcher::OneOf(members) => Matcher::OneOf(members[..1].to_vec()),
        }
    }
    Rule {
        name: format!("narrowed {}", rule.name),
        from: first(&rule.from),
        source: first(&rule.source),
        service: first(&rule.service),
        enabled: true,
        ..rule.clone()
    }
}

/// The oracle's side of the warning "can never match": no packet ever meets a rule that another covers.
#[test]
fn a_covered_rule_never_decides() {
    let mut runner = TestRunner::new(ProptestConfig::with_cases(64));
    let warned = Cell::new(0);
    let input = (configuration(4, 24), prop::collection::vec(packet(4), 200));
    let result = runner.run(&input, |(mut config, packets)| {
        let copies: Vec<Rule> = config.rules.iter().take(3).map(narrowed).collect();
        config.rules.extend(copies);
        let text = toml::to_string(&config).unwrap();
        let files = BTreeMap::from([("generated".into(), text)]);
        let checked = config::check_files(&files, "generated".as_ref());
        for warning in checked.diagnostics.warnings() {
            let Some((before, _)) = warning.message.split_once("\" can never match: \"") else {
                continue;
            };
            warned.set(warned.get() + 1);
            let name = before.trim_start_matches("rule \"");
            for packet in &packets {
                prop_assert_ne!(oracle(&config, packet), Some(name), "{:?}", packet);
            }
        }
        Ok(())
    });
    result.unwrap();
    // Some hundred, mostly; a handful would do to say that something was tested.
    assert!(warned.get() > 8, "only {} rules were covered", warned.get());
}

#[test]
fn each_address_family_meets_its_own_prefixes_alone() {
    let mut config = base(4);
    let rule = |name: &str, prefix: &str| Rule {
        name: name.to_owned(),
        from: Matcher::Any,
        to: Matcher::Any,
        source: Matcher::OneOf(vec![prefix.parse().unwrap()]),
        destination: Matcher::Any,
        service: Matcher::Any,
        source_ports: Matcher::Any,
        action: Action::Allow,
        log: RuleLog::None,
        timeouts: TimeoutOverrides::default(),
        pickup: None,
        reset_on_timeout: None,
        max_sessions: None,
        max_sessions_per_source: None,
        new_sessions_per_source: None,
        tcp_strict: None,
        syn_protection: Default::default(),
        syn_options: Default::default(),
        defer: false,
        enabled: true,
        description: None,
    };
    config.rules = vec![rule("six", "::/0"), rule("four", "0.0.0.0/0")];
    let policy = compile(&config);
    let find = |source: &str, destination: &str| {
        let packet = Packet {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            from: 0,
            to: 1,
            protocol: 6,
            source_port: 1,
            destination_port: 1,
            icmp_type: 0,
            icmp_code: 0,
        };
        let mut found = [None];
        policy.classifier.classify(&[packet.key()], &mut found);
        found[0].map(|place| policy.rules[place as usize].name.clone())
    };
    assert_eq!(find("10.0.0.1", "10.0.0.2").as_deref(), Some("four"));
    assert_eq!(find("2001:db8::1", "2001:db8::2").as_deref(), Some("six"));
    assert_eq!(find("::1", "::2").as_deref(), Some("six"));
    // An IPv6 packet may not carry a mapped address: it meets no rule, not even `any`.
    assert_eq!(find("::ffff:10.0.0.1", "2001:db8::2"), None);
}
