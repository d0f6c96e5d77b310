//! The compiled classifier against an oracle that starts from the configuration's value: random rules, random packets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use haechi::base::{Generation, ZoneId};
use haechi::config::net::IcmpMatch;
use haechi::config::value::TimeoutOverrides;
use haechi::config::{self, AddressRef, Config, Matcher, PortRange, Rule, RuleIds, Service, ServiceRef};
use haechi::policy::{Action, ClassifyKey, Policy, RuleLog};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Zones in the sorted order that gives them their ids.
const ZONES: [&str; 4] = ["dmz", "guest", "trust", "untrust"];

fn base() -> Config {
    let mut text = String::from("version = 1\n[node]\nmode = \"transparent\"\n");
    for (i, zone) in ZONES.iter().enumerate() {
        text += &format!(
            "[[port]]\nname = \"p{i}\"\ndevice = \"vdev:net_null{i}\"\nzone = \"{zone}\"\npeer = \"p{}\"\n",
            i ^ 1
        );
    }
    config::load_text("base", &text).unwrap()
}

/// A packet as its sender would describe it.
#[derive(Clone, Copy, Debug)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    from: usize,
    to: usize,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    icmp_type: u8,
    icmp_code: u8,
}

impl Packet {
    fn has_ports(&self) -> bool {
        [6, 17].contains(&self.protocol)
    }

    fn has_icmp(&self) -> bool {
        self.protocol == if self.source.is_ipv4() { 1 } else { 58 }
    }

    fn key(&self) -> ClassifyKey {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        ClassifyKey {
            source: octets(self.source),
            destination: octets(self.destination),
            source_port: if self.has_ports() { self.source_port } else { 0 },
            destination_port: if self.has_ports() {
                self.destination_port
            } else {
                0
            },
            from: ZoneId(self.from as u16),
            to: ZoneId(self.to as u16),
            protocol: self.protocol,
            icmp_type: if self.has_icmp() { self.icmp_type } else { 0 },
            icmp_code: if self.has_icmp() { self.icmp_code } else { 0 },
        }
    }
}

/// The first enabled rule that matches, read off the configuration as a person would: slow and plain.
fn oracle<'c>(config: &'c Config, packet: &Packet) -> Option<&'c str> {
    let zone = |matcher: &Matcher<String>, zone: usize| match matcher {
        Matcher::Any => true,
        Matcher::OneOf(zones) => zones.iter().any(|name| name == ZONES[zone]),
    };
    let matches = |rule: &&Rule| {
        rule.enabled
            && zone(&rule.from, packet.from)
            && zone(&rule.to, packet.to)
            && address_matches(config, &rule.source, packet.source)
            && address_matches(config, &rule.destination, packet.destination)
            && match &rule.service {
                Matcher::Any => true,
                Matcher::OneOf(members) => members
                    .iter()
                    .any(|member| service_matches(config, member, packet)),
            }
            && match &rule.source_ports {
                Matcher::Any => true,
                Matcher::OneOf(ranges) => {
                    packet.has_ports()
                        && ranges
                            .iter()
                            .any(|r| (r.first..=r.last).contains(&packet.source_port))
                }
            }
    };
    config.rules.iter().find(matches).map(|rule| rule.name.as_str())
}

fn address_matches(config: &Config, matcher: &Matcher<AddressRef>, address: IpAddr) -> bool {
    fn member(config: &Config, member: &AddressRef, address: IpAddr) -> bool {
        match member {
            // ipnet's: an address of the other family is never contained.
            AddressRef::Prefix(net) => net.contains(&address),
            AddressRef::Set(name) => config.address_sets[name]
                .iter()
                .any(|inner| self::member_of(config, inner, address)),
        }
    }
    match matcher {
        Matcher::Any => true,
        Matcher::OneOf(members) => members.iter().any(|m| member(config, m, address)),
    }
}

fn member_of(config: &Config, member: &AddressRef, address: IpAddr) -> bool {
    address_matches(config, &Matcher::OneOf(vec![member.clone()]), address)
}

fn service_matches(config: &Config, member: &ServiceRef, packet: &Packet) -> bool {
    let port = |range: &PortRange| (range.first..=range.last).contains(&packet.destination_port);
    let icmp = |icmp: &IcmpMatch| {
        packet.has_icmp()
            && icmp.icmp_type.is_none_or(|t| t == packet.icmp_type)
            && icmp.code.is_none_or(|c| c == packet.icmp_code)
    };
    match member {
        ServiceRef::Set(name) => config.service_sets[name]
            .iter()
            .any(|inner| service_matches(config, inner, packet)),
        ServiceRef::Service(Service::Tcp(range)) => packet.protocol == 6 && port(range),
        ServiceRef::Service(Service::Udp(range)) => packet.protocol == 17 && port(range),
        ServiceRef::Service(Service::Icmp(m)) => packet.protocol == 1 && icmp(m),
        ServiceRef::Service(Service::Icmpv6(m)) => packet.protocol == 58 && icmp(m),
        ServiceRef::Service(Service::Protocol(number)) => packet.protocol == *number,
    }
}

/// Addresses close together, so that prefixes overlap and packets meet their edges.
fn v4() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        8 => (0_u32..64).prop_map(|low| Ipv4Addr::from_bits(0x0a00_0000 + low)),
        1 => any::<u32>().prop_map(Ipv4Addr::from_bits),
        1 => Just(Ipv4Addr::BROADCAST),
        1 => Just(Ipv4Addr::UNSPECIFIED),
    ]
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    const NET: u128 = 0x2001_0db8 << 96;
    prop_oneof![
        8 => (0_u128..64).prop_map(|low| Ipv6Addr::from_bits(NET + low)),
        1 => any::<u128>().prop_map(Ipv6Addr::from_bits),
        1 => Just(Ipv6Addr::UNSPECIFIED),
        // Beside the mapped IPv4 addresses, on both sides.
        1 => Just(Ipv6Addr::from_bits(0xfffe_ffff_ffff)),
        1 => Just(Ipv6Addr::from_bits(0x1_0000_0000_0000)),
    ]
    .prop_map(|address| {
        if address.to_ipv4_mapped().is_some() {
            Ipv6Addr::LOCALHOST
        } else {
            address
        }
    })
}

fn prefix() -> impl Strategy<Value = AddressRef> {
    let v4_len = prop_oneof![6 => 25_u8..=32, 1 => 0_u8..=32, 1 => Just(0)];
    let v6_len = prop_oneof![6 => 121_u8..=128, 1 => 0_u8..=128, 1 => Just(0)];
    prop_oneof![
        (v4().prop_map(IpAddr::V4), v4_len),
        (v6().prop_map(IpAddr::V6), v6_len),
    ]
    .prop_map(|(address, len)| AddressRef::Prefix(ipnet::IpNet::new(address, len).unwrap().trunc()))
}

fn range() -> impl Strategy<Value = PortRange> {
    let port = prop_oneof![8 => 75_u16..90, 1 => any::<u16>(), 1 => Just(0), 1 => Just(u16::MAX)];
    prop_oneof![
        3 => (port.clone(), port).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) }),
        1 => Just(PortRange::ALL),
    ]
}

fn service() -> impl Strategy<Value = ServiceRef> {
    let icmp = || {
        (
            prop::option::of(prop::sample::select(vec![0_u8, 8, 128, 255])),
            prop::option::of(0_u8..3),
        )
            .prop_map(|(icmp_type, code)| IcmpMatch {
                icmp_type,
                code: icmp_type.and(code),
            })
    };
    prop_oneof![
        3 => range().prop_map(Service::Tcp),
        3 => range().prop_map(Service::Udp),
        1 => icmp().prop_map(Service::Icmp),
        1 => icmp().prop_map(Service::Icmpv6),
        1 => prop::sample::select(vec![1_u8, 6, 17, 47, 58]).prop_map(Service::Protocol),
    ]
    .prop_map(ServiceRef::Service)
}

fn matcher<T: Clone + std::fmt::Debug + 'static>(
    member: impl Strategy<Value = T> + 'static,
    most: usize,
) -> impl Strategy<Value = Matcher<T>> {
    prop_oneof![
        1 => Just(Matcher::Any),
        2 => prop::collection::vec(member, 1..=most).prop_map(Matcher::OneOf),
    ]
}

const SETS: [&str; 3] = ["set0", "set1", "set2"];

fn rule() -> impl Strategy<Value = Rule> {
    let zone = || matcher(prop::sample::select(ZONES.map(str::to_owned).to_vec()), 2);
    let set = || prop::sample::select(SETS.map(str::to_owned).to_vec());
    let address = move || prop_oneof![4 => prefix(), 1 => set().prop_map(AddressRef::Set)];
    let services = prop_oneof![
        4 => matcher(prop_oneof![4 => service(), 1 => set().prop_map(ServiceRef::Set)], 12)
            .prop_map(|services| (services, Matcher::Any)),
        1 => (range(), matcher(range(), 3)).prop_map(|(ports, source_ports)| {
            let members = [Service::Tcp(ports), Service::Udp(ports)].map(ServiceRef::Service);
            (Matcher::OneOf(members.to_vec()), source_ports)
        }),
    ];
    // Up to 20 prefixes: more ranges than are scanned one by one.
    (
        zone(),
        zone(),
        matcher(address(), 20),
        matcher(address(), 3),
        services,
        prop::bool::weighted(0.9),
    )
        .prop_map(
            |(from, to, source, destination, (service, source_ports), enabled)| Rule {
                name: String::new(),
                from,
                to,
                source,
                destination,
                service,
                source_ports,
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
                enabled,
                description: None,
            },
        )
}

/// A configuration whose sets may name the sets before them.
fn configuration() -> impl Strategy<Value = Config> {
    let address_sets =
        prop::collection::vec((prop::collection::vec(prefix(), 1..6), any::<bool>()), SETS.len());
    let service_sets = prop::collection::vec(
        (prop::collection::vec(service(), 1..4), any::<bool>()),
        SETS.len(),
    );
    (prop::collection::vec(rule(), 0..24), address_sets, service_sets).prop_map(
        |(mut rules, address_sets, service_sets)| {
            for (i, rule) in rules.iter_mut().enumerate() {
                rule.name = format!("rule{i}");
            }
            let mut config = base();
            config.rules = rules;
            for (i, (mut members, nested)) in address_sets.into_iter().enumerate() {
                if nested && i > 0 {
                    members.push(AddressRef::Set(SETS[i - 1].to_owned()));
                }
                config.address_sets.insert(SETS[i].to_owned(), members);
            }
            for (i, (mut members, nested)) in service_sets.into_iter().enumerate() {
                if nested && i > 0 {
                    members.push(ServiceRef::Set(SETS[i - 1].to_owned()));
                }
                config.service_sets.insert(SETS[i].to_owned(), members);
            }
            config
        },
    )
}

fn packet() -> impl Strategy<Value = Packet> {
    let addresses = prop_oneof![
        (v4().prop_map(IpAddr::V4), v4().prop_map(IpAddr::V4)),
        (v6().prop_map(IpAddr::V6), v6().prop_map(IpAddr::V6)),
    ];
    let protocol = prop::sample::select(vec![6_u8, 6, 6, 17, 17, 17, 1, 58, 47, 0, 255]);
    let port = || prop_oneof![8 => 73_u16..92, 1 => any::<u16>(), 1 => Just(0), 1 => Just(u16::MAX)];
    let icmp_type = prop::sample::select(vec![0_u8, 8, 128, 255, 3]);
    (
        addresses,
        0..4_usize,
        0..4_usize,
        protocol,
        port(),
        port(),
        icmp_type,
        0_u8..3,
    )
        .prop_map(
            |(
                (source, destination),
                from,
                to,
                protocol,
                source_port,
                destination_port,
                icmp_type,
                icmp_code,
            )| {
                Packet {
                    source,
                    destination,
                    from,
                    to,
                    protocol,
                    source_port,
                    destination_port,
                    icmp_type,
                    icmp_code,
                }
            },
        )
}

fn compile(config: &Config) -> Policy {
    config::compile(config, Generation(1), &mut RuleIds::new()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn first_match_is_the_oracles(
        config in configuration(),
        packets in prop::collection::vec(packet(), 1..80),
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
    let input = (configuration(), prop::collection::vec(packet(), 200));
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
    let mut config = base();
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
