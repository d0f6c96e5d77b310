//! The classifier over `rte_acl`: whatever the rules, it says what the linear one says.

use std::cell::Cell;

use haechi::base::{Generation, ZoneId};
use haechi::config::{self, Config, RuleIds};
use haechi::dpdk::{AclClassifier, Eal, LINEAR_RULES};
use haechi::policy::expand::MAX_EXPANDED;
use haechi::policy::{
    Classifier, ClassifyKey, IcmpSpec, LinearClassifier, Method, Methods, Policy, RuleMatch, RuleSpec,
    ServiceSpec,
};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::harness::{config, scenario};
use crate::policies::{Packet, configuration, packet};

const ZONES: usize = 2;

/// Room for tries: without huge pages there is no more than this.
fn eal(memory_mib: u32) -> Eal {
    Eal::start(&haechi::dpdk::EalConfig {
        memory_mib,
        ..config()
    })
    .unwrap()
}

fn linear(rules: &[RuleSpec], zones: usize) -> Box<dyn Classifier> {
    Box::new(LinearClassifier::new(rules, zones))
}

fn found(classifier: &dyn Classifier, keys: &[ClassifyKey]) -> Vec<RuleMatch> {
    // What was there before is written over.
    let mut found = vec![Some(77); keys.len()];
    classifier.classify(keys, &mut found);
    found
}

/// All at once, and one by one.
fn agree(one: &dyn Classifier, other: &dyn Classifier, keys: &[ClassifyKey]) {
    let expected = found(one, keys);
    assert_eq!(found(other, keys), expected, "{keys:?}");
    for (key, expected) in keys.iter().zip(expected) {
        assert_eq!(found(other, std::slice::from_ref(key)), [expected], "{key:?}");
    }
}

#[test]
fn random_policies_are_answered_alike() {
    scenario("acl::random_policies_are_answered_alike", None, || {
        let eal = eal(192);
        let before = eal.memory_in_use();
        let (tries, matches) = (Cell::new(0), Cell::new(0));
        // With few zones their classes are in the keys' first byte, with many they are not.
        let configurations = prop_oneof![3 => Just(2), 3 => Just(4), 2 => Just(40)].prop_flat_map(|zones| {
            let config = configuration(zones, 40);
            (config, prop::collection::vec(packet(zones), 1..200))
        });
        let mut runner = TestRunner::new(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(300)
        });
        let result = runner.run(&configurations, |(config, packets)| {
            let compile = |config: &Config, tries: bool| -> Policy {
                config::compile_with(config, Generation(1), &mut RuleIds::new(), &|rules, zones| {
                    if tries {
                        Box::new(AclClassifier::new(&eal, rules, zones, 0))
                    } else {
                        linear(rules, zones)
                    }
                })
                .unwrap()
            };
            let (one, other) = (compile(&config, false), compile(&config, true));
            let other = &*other.classifier;
            let methods = other.methods();
            let is_trie = |method| usize::from(method == Method::RteAcl);
            tries.set(tries.get() + is_trie(methods.ipv4) + is_trie(methods.ipv6));
            let keys: Vec<ClassifyKey> = packets.iter().map(Packet::key).collect();
            let expected = found(&*one.classifier, &keys);
            matches.set(matches.get() + expected.iter().flatten().count());
            prop_assert_eq!(found(other, &keys), expected.clone());
            for (key, expected) in keys.iter().zip(expected) {
                prop_assert_eq!(found(other, std::slice::from_ref(key)), [expected], "{:?}", key);
            }
            Ok(())
        });
        result.unwrap();
        // Most of 600 are; some configurations have no rule, and a few of the largest products are over the bound.
        assert!(tries.get() > 400, "only {} tries", tries.get());
        assert!(matches.get() > 5000, "only {} matches", matches.get());
        assert_eq!(eal.memory_in_use(), before, "tries are freed");
    });
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn tcp(source: &str, destination: &str, ports: (u16, u16)) -> RuleSpec {
    RuleSpec {
        source: Some(vec![net(source)]),
        destination: Some(vec![net(destination)]),
        service: Some(vec![ServiceSpec::Tcp(ports.0, ports.1)]),
        ..RuleSpec::default()
    }
}

fn key(source: &str, destination: &str, protocol: u8, ports: (u16, u16)) -> ClassifyKey {
    let octets = |text: &str| match text.parse().unwrap() {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(address) => address.octets(),
    };
    ClassifyKey {
        source: octets(source),
        destination: octets(destination),
        protocol,
        source_port: ports.0,
        destination_port: ports.1,
        from: ZoneId(0),
        to: ZoneId(1),
        ..ClassifyKey::default()
    }
}

#[test]
fn edges_are_where_they_should_be() {
    scenario("acl::edges_are_where_they_should_be", None, || {
        let eal = eal(192);
        let icmp = |service| RuleSpec {
            service: Some(vec![service]),
            ..RuleSpec::default()
        };
        let rules = [
            tcp("10.0.0.1/32", "0.0.0.0/0", (0, 0)),
            tcp("0.0.0.0/0", "255.255.255.255/32", (65_535, 65_535)),
            tcp("2001:db8::1/128", "::/0", (0, 0)),
            tcp(
                "::/0",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
                (65_535, 65_535),
            ),
            tcp("128.0.0.0/1", "0.0.0.0/1", (1, 65_534)),
            tcp("2001:db8::/33", "2001:db8:8000::/95", (80, 80)),
            RuleSpec {
                source_ports: Some(vec![(0, 0), (65_535, 65_535)]),
                service: Some(vec![ServiceSpec::Udp(0, 65_535)]),
                ..RuleSpec::default()
            },
            icmp(ServiceSpec::Icmp(IcmpSpec::Code(255, 255))),
            icmp(ServiceSpec::Icmpv6(IcmpSpec::Type(0))),
            icmp(ServiceSpec::Protocol(0)),
            icmp(ServiceSpec::Protocol(255)),
            RuleSpec {
                from: Some(vec![ZoneId(1)]),
                to: Some(vec![]),
                ..RuleSpec::default()
            },
        ];
        let addresses = [
            [
                "0.0.0.0",
                "10.0.0.0",
                "10.0.0.1",
                "10.0.0.2",
                "127.255.255.255",
                "128.0.0.0",
                "255.255.255.255",
            ],
            [
                "::",
                "2001:db8::1",
                "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff",
                "2001:db8:8000::1:ffff:ffff",
                "2001:db8:8000::2:0:0",
                "2001:db8::2",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ],
        ];
        let mut keys = Vec::new();
        for family in addresses {
            for source in family {
                for destination in family {
                    for ports in [0, 1, 80, 65_534, 65_535]
                        .into_iter()
                        .flat_map(|a| [0, 1, 80, 65_535].map(|b| (a, b)))
                    {
                        keys.push(key(source, destination, 6, ports));
                        keys.push(key(source, destination, 17, ports));
                    }
                    for (protocol, icmp) in [(0, 0), (1, 255), (58, 0), (58, 1), (1, 254), (255, 0), (254, 0)]
                    {
                        keys.push(ClassifyKey {
                            icmp_type: icmp,
                            icmp_code: icmp,
                            ..key(source, destination, protocol, (0, 0))
                        });
                    }
                }
            }
        }
        // Of mixed families no rule is meant; neither of a zone that is not there.
        keys.push(key("::ffff:10.0.0.1", "2001:db8::1", 6, (0, 0)));
        keys.push(ClassifyKey {
            to: ZoneId(ZONES as u16),
            ..keys[0]
        });
        keys.push(ClassifyKey {
            from: ZoneId(u16::MAX),
            ..keys[0]
        });
        let both = Methods {
            ipv4: Method::RteAcl,
            ipv6: Method::RteAcl,
        };
        // One rule, two, and so on to all: every one of them is first once.
        for n in 1..=rules.len() {
            for rules in [&rules[..n], &rules[n - 1..]] {
                let trie = AclClassifier::new(&eal, rules, ZONES, 0);
                assert!(
                    n < 4 || rules.len() < 8 || trie.methods() == both,
                    "{:?}",
                    trie.methods()
                );
                assert_eq!(trie.warnings(), &[] as &[String]);
                agree(&*linear(rules, ZONES), &trie, &keys);
            }
        }
        assert!(found(&*linear(&rules, ZONES), &keys).iter().flatten().count() > 500);
        // No rule: nothing matches, and nothing is built.
        let none = AclClassifier::new(&eal, &[], ZONES, 0);
        assert_eq!(none.methods(), Methods::default());
        assert!(found(&none, &keys).iter().all(Option::is_none));
        assert!(found(&none, &[]).is_empty());
    });
}

/// Rules that overlap: every fourth of a /24 is in one of a /16.
fn many(n: u32) -> Vec<RuleSpec> {
    let rule = |i: u32| {
        let (len, bits) = if i % 4 == 0 {
            (16, i << 14)
        } else {
            (24, (i * 2654) << 8)
        };
        let v4 = ipnet::Ipv4Net::new((0x0a00_0000 | (bits & 0x00ff_ffff)).into(), len).unwrap();
        let v6_bits = (0x2001_0db8_u128 << 96) | (u128::from(bits) << 64);
        let v6 = ipnet::Ipv6Net::new(v6_bits.into(), 32 + len).unwrap();
        let port = (i * 7919) as u16;
        RuleSpec {
            from: (i % 3 == 0).then(|| vec![ZoneId((i % 2) as u16)]),
            source: Some(vec![IpNet::V4(v4.trunc()), IpNet::V6(v6.trunc())]),
            service: Some(vec![
                ServiceSpec::Tcp(port, port.saturating_add(100)),
                ServiceSpec::Udp(port, port.saturating_add(100)),
            ]),
            ..RuleSpec::default()
        }
    };
    (0..n).map(rule).collect()
}

/// Packets that meet the rules of `many`, or just miss them.
fn meet(n: u32) -> Vec<ClassifyKey> {
    let keys = |i: u32| {
        let i = i % 6000;
        let low = [i << 14, (i * 2654) << 8, ((i * 2654) << 8) | 255][i as usize % 3] & 0x00ff_ffff;
        let port = ((i * 7919) as u16).wrapping_add([0, 100, 101, 50][i as usize % 4]);
        let v4 = std::net::Ipv4Addr::from(0x0a00_0000 | low)
            .to_ipv6_mapped()
            .octets();
        let v6 = ((0x2001_0db8_u128 << 96) | (u128::from(low) << 64) | u128::from(i)).to_be_bytes();
        [v4, v6].map(|source| ClassifyKey {
            source,
            destination: source,
            protocol: [6, 17][i as usize & 1],
            source_port: 1,
            destination_port: port,
            from: ZoneId((i % 2) as u16),
            to: ZoneId((i / 2 % 2) as u16),
            ..ClassifyKey::default()
        })
    };
    (0..n).flat_map(keys).collect()
}

#[test]
fn thousands_of_rules_are_answered_alike_and_freed() {
    scenario(
        "acl::thousands_of_rules_are_answered_alike_and_freed",
        None,
        || {
            let eal = eal(192);
            let before = eal.memory_in_use();
            let rules = many(5000);
            let trie = AclClassifier::new(&eal, &rules, ZONES, LINEAR_RULES);
            let both = Methods {
                ipv4: Method::RteAcl,
                ipv6: Method::RteAcl,
            };
            assert_eq!((trie.methods(), trie.warnings()), (both, &[] as &[String]));
            let keys = meet(20_000);
            let linear = linear(&rules, ZONES);
            let matches = found(&*linear, &keys);
            assert!(matches.iter().flatten().count() > 1000);
            assert!(matches.iter().any(Option::is_none));
            assert_eq!(found(&trie, &keys), matches);
            // Workers share it.
            std::thread::scope(|scope| {
                for keys in keys.chunks(keys.len() / 4) {
                    let (trie, linear) = (&trie, &linear);
                    scope.spawn(move || assert_eq!(found(trie, keys), found(&**linear, keys)));
                }
            });
            assert!(eal.memory_in_use() > before + (1 << 20));
            drop(trie);
            assert_eq!(eal.memory_in_use(), before);
            // Few rules, or few of one family, are asked in order.
            assert_eq!(
                AclClassifier::new(&eal, &many(LINEAR_RULES as u32), ZONES, LINEAR_RULES).methods(),
                Methods::default()
            );
            let mut mixed = many(LINEAR_RULES as u32);
            mixed.push(tcp("10.0.0.0/8", "10.0.0.0/8", (1, 1)));
            let mixed = AclClassifier::new(&eal, &mixed, ZONES, LINEAR_RULES);
            assert_eq!(
                mixed.methods(),
                Methods {
                    ipv4: Method::RteAcl,
                    ipv6: Method::Linear
                }
            );
            let first = &many(LINEAR_RULES as u32);
            let expected = found(&LinearClassifier::new(first, ZONES), &keys);
            assert_eq!(found(&mixed, &keys), expected, "two ways in one batch");
        },
    );
}

/// A list of `n` single addresses that do not touch.
fn apart(base: u32, n: u32) -> Option<Vec<IpNet>> {
    let host = |i| IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from(base + 2 * i)));
    Some((0..n).map(host).collect())
}

#[test]
fn what_is_too_large_for_a_trie_is_asked_in_order_and_said() {
    scenario(
        "acl::what_is_too_large_for_a_trie_is_asked_in_order_and_said",
        None,
        || {
            let eal = eal(64);
            let before = eal.memory_in_use();
            let keys = meet(2000);
            let both = Methods {
                ipv4: Method::RteAcl,
                ipv6: Method::RteAcl,
            };
            let half = Methods {
                ipv4: Method::Linear,
                ipv6: Method::RteAcl,
            };
            // The product of one rule's lists fills what there may be of IPv4, and then is more. (The others have one
            // entry each: no rule tells TCP and UDP apart.)
            let mut rules = many(1000);
            let fit = (MAX_EXPANDED as u32 - 1000) / 8;
            for (sources, methods) in [(fit, both), (fit + 1, half)] {
                rules.truncate(1000);
                rules.push(RuleSpec {
                    source: apart(0x0a00_0000, sources),
                    destination: apart(0x0b00_0000, 8),
                    ..RuleSpec::default()
                });
                let trie = AclClassifier::new(&eal, &rules, ZONES, 0);
                assert_eq!(trie.methods(), methods, "{:?}", trie.warnings());
                agree(&*linear(&rules, ZONES), &trie, &keys);
                match trie.warnings() {
                    [] => assert_eq!(methods, both),
                    [warning] => assert!(
                        warning.contains("rules for IPv4 are asked in order")
                            && warning.contains("more than 16384"),
                        "{warning}"
                    ),
                    more => panic!("{more:?}"),
                }
            }
            // A product that nobody could hold.
            rules.push(RuleSpec {
                source: apart(0x0a00_0000, 60_000),
                destination: apart(0x0b00_0000, 60_000),
                source_ports: Some((0..30_000).map(|p| (2 * p, 2 * p)).collect()),
                ..RuleSpec::default()
            });
            let trie = AclClassifier::new(&eal, &rules, ZONES, 0);
            assert_eq!(trie.methods(), half);
            drop(trie);
            assert_eq!(eal.memory_in_use(), before);
            // No room in DPDK's memory: rules that overlap at random take some 15 KiB each.
            let scattered: Vec<RuleSpec> = (0_u32..8000)
                .map(|i| {
                    let bits = i.wrapping_mul(2_654_435_761);
                    let net = |bits: u32| {
                        ipnet::Ipv4Net::new((0x0a00_0000 | (bits >> 8)).into(), 8 + (bits % 25) as u8)
                            .unwrap()
                    };
                    let (a, b) = (bits as u16, (bits >> 7) as u16);
                    RuleSpec {
                        source: Some(vec![IpNet::V4(net(bits).trunc())]),
                        destination: Some(vec![IpNet::V4(net(bits.rotate_left(13)).trunc())]),
                        service: Some(vec![ServiceSpec::Tcp(a.min(b), a.max(b))]),
                        source_ports: Some(vec![(a.min(!b), a.max(!b))]),
                        ..RuleSpec::default()
                    }
                })
                .collect();
            let trie = AclClassifier::new(&eal, &scattered, ZONES, 0);
            assert_eq!(trie.methods(), Methods::default());
            let [warning] = trie.warnings() else {
                panic!("{:?}", trie.warnings())
            };
            assert!(warning.contains("raise memory_mib"), "{warning}");
            agree(&*linear(&scattered, ZONES), &trie, &keys[..200]);
            drop(trie);
            assert_eq!(eal.memory_in_use(), before, "what was begun is freed");
        },
    );
}
