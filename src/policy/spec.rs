//! A rule's conditions with names resolved and sets unfolded, and their normal form: one set of ranges for each property,
//! IPv4 and IPv6 apart. An IPv4 packet meets only IPv4 prefixes, an IPv6 packet only IPv6 ones: `::/0` is not IPv4.

use ipnet::IpNet;

use super::ranges::{Bound, RangeSet};
use crate::base::ZoneId;
use crate::packet::parse::protocol::{ICMP, ICMPV6, TCP, UDP};

/// What a rule asks for. `None`: anything; a list: one of these (an empty one matches nothing).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSpec {
    /// Zones of the ingress port.
    pub from: Option<Vec<ZoneId>>,
    /// Zones of the egress port.
    pub to: Option<Vec<ZoneId>>,
    /// Source prefixes.
    pub source: Option<Vec<IpNet>>,
    /// Destination prefixes.
    pub destination: Option<Vec<IpNet>>,
    /// Services.
    pub service: Option<Vec<ServiceSpec>>,
    /// Source ports, first and last; with them the rule matches TCP and UDP alone.
    pub source_ports: Option<Vec<(u16, u16)>>,
}

/// One service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceSpec {
    /// TCP with a destination port in a range, first and last.
    Tcp(u16, u16),
    /// UDP with a destination port in a range.
    Udp(u16, u16),
    /// ICMP in IPv4.
    Icmp(IcmpSpec),
    /// ICMPv6 in IPv6.
    Icmpv6(IcmpSpec),
    /// An IP protocol by number, whatever it carries.
    Protocol(u8),
}

/// Which ICMP messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IcmpSpec {
    /// All.
    #[default]
    Any,
    /// Those of a type.
    Type(u8),
    /// Those of a type and code.
    Code(u8, u8),
}

/// A protocol and what tells its services apart (destination port, or ICMP type and code) as one integer.
pub(crate) fn service_code(protocol: u8, selector: u16) -> u32 {
    (u32::from(protocol) << 16) | u32::from(selector)
}

/// An address family, and its addresses as integers.
pub(crate) trait Family: Bound {
    /// The protocol whose type and code are looked at in this family.
    const ICMP: u8;
    /// The range of a prefix, if it is of this family.
    fn range(net: &IpNet) -> Option<(Self, Self)>;
    /// The service's messages of ICMP, if they are of this family.
    fn icmp(service: ServiceSpec) -> Option<IcmpSpec>;
}

impl Family for u32 {
    const ICMP: u8 = ICMP;

    fn range(net: &IpNet) -> Option<(Self, Self)> {
        match net {
            IpNet::V4(net) => Some((net.network().to_bits(), net.broadcast().to_bits())),
            IpNet::V6(_) => None,
        }
    }

    fn icmp(service: ServiceSpec) -> Option<IcmpSpec> {
        match service {
            ServiceSpec::Icmp(icmp) => Some(icmp),
            _ => None,
        }
    }
}

impl Family for u128 {
    const ICMP: u8 = ICMPV6;

    fn range(net: &IpNet) -> Option<(Self, Self)> {
        match net {
            IpNet::V6(net) => Some((net.network().to_bits(), net.broadcast().to_bits())),
            IpNet::V4(_) => None,
        }
    }

    fn icmp(service: ServiceSpec) -> Option<IcmpSpec> {
        match service {
            ServiceSpec::Icmpv6(icmp) => Some(icmp),
            _ => None,
        }
    }
}

/// What a rule asks of packets of one address family. Zones are not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conditions<A> {
    pub(crate) source: RangeSet<A>,
    pub(crate) destination: RangeSet<A>,
    /// By [`service_code`].
    pub(crate) service: RangeSet<u32>,
    pub(crate) source_ports: RangeSet<u16>,
}

impl<A: Family> Conditions<A> {
    /// The rule's conditions; `None`: no packet of this family can match.
    pub(crate) fn of(rule: &RuleSpec) -> Option<Self> {
        let addresses = |nets: &Option<Vec<IpNet>>| match nets {
            None => RangeSet::full(),
            Some(nets) => RangeSet::new(nets.iter().filter_map(A::range).collect()),
        };
        let conditions = Self {
            source: addresses(&rule.source),
            destination: addresses(&rule.destination),
            service: services::<A>(rule),
            source_ports: rule
                .source_ports
                .as_ref()
                .map_or_else(RangeSet::full, |ports| RangeSet::new(ports.clone())),
        };
        let possible = !conditions.source.is_empty()
            && !conditions.destination.is_empty()
            && !conditions.service.is_empty()
            && !conditions.source_ports.is_empty();
        possible.then_some(conditions)
    }

    fn covers(&self, other: &Self) -> bool {
        self.service.covers(&other.service)
            && self.source.covers(&other.source)
            && self.destination.covers(&other.destination)
            && self.source_ports.covers(&other.source_ports)
    }
}

fn services<A: Family>(rule: &RuleSpec) -> RangeSet<u32> {
    let whole = |protocol| (service_code(protocol, 0), service_code(protocol, u16::MAX));
    let range = |protocol, first, last| (service_code(protocol, first), service_code(protocol, last));
    let mut ranges: Vec<(u32, u32)> = match &rule.service {
        None if rule.source_ports.is_none() => return RangeSet::full(),
        None => vec![whole(TCP), whole(UDP)],
        Some(services) => services
            .iter()
            .filter_map(|service| match *service {
                ServiceSpec::Tcp(first, last) => Some(range(TCP, first, last)),
                ServiceSpec::Udp(first, last) => Some(range(UDP, first, last)),
                ServiceSpec::Protocol(number) => Some(whole(number)),
                ServiceSpec::Icmp(_) | ServiceSpec::Icmpv6(_) => Some(match A::icmp(*service)? {
                    IcmpSpec::Any => whole(A::ICMP),
                    IcmpSpec::Type(t) => range(
                        A::ICMP,
                        u16::from_be_bytes([t, 0]),
                        u16::from_be_bytes([t, u8::MAX]),
                    ),
                    IcmpSpec::Code(t, c) => {
                        range(A::ICMP, u16::from_be_bytes([t, c]), u16::from_be_bytes([t, c]))
                    }
                }),
            })
            .collect(),
    };
    if rule.source_ports.is_some() {
        ranges.retain(|(first, _)| [TCP, UDP].map(u32::from).contains(&(first >> 16)));
    }
    RangeSet::new(ranges)
}

/// A rule in the form in which rules are compared.
#[derive(Clone, Debug)]
pub struct NormalRule {
    from: Option<Vec<ZoneId>>,
    to: Option<Vec<ZoneId>>,
    v4: Option<Conditions<u32>>,
    v6: Option<Conditions<u128>>,
}

impl NormalRule {
    /// The rule's normal form.
    #[must_use]
    pub fn new(rule: &RuleSpec) -> Self {
        Self {
            from: rule.from.clone(),
            to: rule.to.clone(),
            v4: Conditions::of(rule),
            v6: Conditions::of(rule),
        }
    }

    /// Can any packet match at all?
    #[must_use]
    pub fn can_match(&self) -> bool {
        (self.v4.is_some() || self.v6.is_some())
            && [&self.from, &self.to]
                .into_iter()
                .all(|zones| zones.as_ref().is_none_or(|zones| !zones.is_empty()))
    }

    /// Does every packet that matches `other` match this one too?
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        zones_cover(self.from.as_deref(), other.from.as_deref())
            && zones_cover(self.to.as_deref(), other.to.as_deref())
            && family_covers(self.v4.as_ref(), other.v4.as_ref())
            && family_covers(self.v6.as_ref(), other.v6.as_ref())
    }
}

fn zones_cover(zones: Option<&[ZoneId]>, other: Option<&[ZoneId]>) -> bool {
    match (zones, other) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(zones), Some(other)) => other.iter().all(|zone| zones.contains(zone)),
    }
}

fn family_covers<A: Family>(rule: Option<&Conditions<A>>, other: Option<&Conditions<A>>) -> bool {
    other.is_none_or(|other| rule.is_some_and(|rule| rule.covers(other)))
}
