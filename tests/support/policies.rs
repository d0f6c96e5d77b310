//! Random configurations and packets, and what a person would say of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use haechi::base::ZoneId;
use haechi::config::net::IcmpMatch;
use haechi::config::value::TimeoutOverrides;
use haechi::config::{self, AddressRef, Config, Matcher, PortRange, Rule, Service, ServiceRef};
use haechi::policy::{Action, ClassifyKey, RuleLog};
use proptest::prelude::*;

/// A zone's name; in the order of the names a zone's place is its id.
fn zone(place: usize) -> String {
    format!("zone{place:02}")
}

/// A configuration without rules, of an even number of zones, at most 64.
pub(crate) fn base(zones: usize) -> Config {
    let mut text = String::from("version = 1\n[node]\nmode = \"transparent\"\n");
    for (i, zone) in (0..zones).map(zone).enumerate() {
        text += &format!(
            "[[port]]\nname = \"p{i}\"\ndevice = \"vdev:net_null{i}\"\nzone = \"{zone}\"\npeer = \"p{}\"\n",
            i ^ 1
        );
    }
    config::load_text("base", &text).unwrap()
}

/// A packet as its sender would describe it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) protocol: u8,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) icmp_type: u8,
    pub(crate) icmp_code: u8,
}

impl Packet {
    fn has_ports(&self) -> bool {
        [6, 17].contains(&self.protocol)
    }

    fn has_icmp(&self) -> bool {
        self.protocol == if self.source.is_ipv4() { 1 } else { 58 }
    }

    pub(crate) fn key(&self) -> ClassifyKey {
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
pub(crate) fn oracle<'c>(config: &'c Config, packet: &Packet) -> Option<&'c str> {
    let zone = |matcher: &Matcher<String>, zone: usize| match matcher {
        Matcher::Any => true,
        Matcher::OneOf(zones) => zones.contains(&self::zone(zone)),
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

fn rule(zones: usize) -> impl Strategy<Value = Rule> {
    let names: Vec<String> = (0..zones).map(zone).collect();
    let zone = || matcher(prop::sample::select(names.clone()), 3);
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
                defer: false,
                enabled,
                description: None,
            },
        )
}

/// A configuration whose sets may name the sets before them.
pub(crate) fn configuration(zones: usize, rules: usize) -> impl Strategy<Value = Config> {
    let address_sets =
        prop::collection::vec((prop::collection::vec(prefix(), 1..6), any::<bool>()), SETS.len());
    let service_sets = prop::collection::vec(
        (prop::collection::vec(service(), 1..4), any::<bool>()),
        SETS.len(),
    );
    (
        prop::collection::vec(rule(zones), 0..rules),
        address_sets,
        service_sets,
    )
        .prop_map(move |(mut rules, address_sets, service_sets)| {
            for (i, rule) in rules.iter_mut().enumerate() {
                rule.name = format!("rule{i}");
            }
            let mut config = base(zones);
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
        })
}

pub(crate) fn packet(zones: usize) -> impl Strategy<Value = Packet> {
    let addresses = prop_oneof![
        (v4().prop_map(IpAddr::V4), v4().prop_map(IpAddr::V4)),
        (v6().prop_map(IpAddr::V6), v6().prop_map(IpAddr::V6)),
    ];
    let protocol = prop::sample::select(vec![6_u8, 6, 6, 17, 17, 17, 1, 58, 47, 0, 255]);
    let port = || prop_oneof![8 => 73_u16..92, 1 => any::<u16>(), 1 => Just(0), 1 => Just(u16::MAX)];
    let icmp_type = prop::sample::select(vec![0_u8, 8, 128, 255, 3]);
    (
        addresses,
        0..zones,
        0..zones,
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
