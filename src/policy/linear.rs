//! The linear classifier: every rule in order, compiled so that one costs a few nanoseconds. IPv4 and IPv6 have a table
//! each, which holds only the rules that can match there.
//!
//! A rule is asked in two steps. The first is a handful of compares without a branch between them, on memory that lies
//! in the order of the rules: its zones, and for each property the interval from the lowest to the highest value that
//! it admits. Most rules end there. Only one that passes, and that admits less than its intervals, is looked up in the
//! lists of its ranges.

use std::collections::HashMap;
use std::hash::Hash;

use super::classify::{Classifier, ClassifyKey, RuleMatch};
use super::ranges::{Bound, Interval, RangeSet, contains};
use super::spec::{Conditions, Family, RuleSpec, service_code};
use crate::base::ZoneId;
use crate::packet::parse::protocol::{TCP, UDP};

/// First match by looking at the rules in order.
#[derive(Clone, Debug)]
pub struct LinearClassifier {
    v4: Table<u32>,
    v6: Table<u128>,
}

impl LinearClassifier {
    /// Compiles rules in their order, for a policy of so many zones.
    #[must_use]
    pub fn new(rules: &[RuleSpec], zones: usize) -> Self {
        Self {
            v4: Table::new(rules, zones),
            v6: Table::new(rules, zones),
        }
    }

    /// How many rules IPv4 and IPv6 packets can match.
    #[must_use]
    pub fn rules(&self) -> [usize; 2] {
        [self.v4.hulls.len(), self.v6.hulls.len()]
    }
}

impl Classifier for LinearClassifier {
    fn classify(&self, keys: &[ClassifyKey], matches: &mut [RuleMatch]) {
        for (key, found) in keys.iter().zip(matches) {
            *found = match addresses(key) {
                Some(Addresses::V4(source, destination)) => self.v4.first(key, source, destination),
                Some(Addresses::V6(source, destination)) => self.v6.first(key, source, destination),
                None => None,
            };
        }
    }
}

/// What tells the services of the key's protocol apart: destination port, or ICMP type and code.
#[inline]
pub(super) fn selector<A: Family>(key: &ClassifyKey) -> u16 {
    if key.protocol == TCP || key.protocol == UDP {
        key.destination_port
    } else if key.protocol == A::ICMP {
        u16::from_be_bytes([key.icmp_type, key.icmp_code])
    } else {
        0
    }
}

/// A key's source and destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    V4(u32, u32),
    V6(u128, u128),
}

/// The addresses of a key; `None`: an IPv6 packet with an IPv4-mapped address, which no rule means (RFC 4291, 2.5.5.2).
#[inline]
pub(crate) fn addresses(key: &ClassifyKey) -> Option<Addresses> {
    match (mapped_v4(key.source), mapped_v4(key.destination)) {
        (Some(source), Some(destination)) => Some(Addresses::V4(source, destination)),
        (None, None) => {
            let source = u128::from_be_bytes(key.source);
            Some(Addresses::V6(source, u128::from_be_bytes(key.destination)))
        }
        _ => None,
    }
}

/// The IPv4 address in `::ffff:a.b.c.d`.
#[inline]
fn mapped_v4(address: [u8; 16]) -> Option<u32> {
    let bits = u128::from_be_bytes(address);
    (bits >> 32 == 0xffff).then_some(bits as u32)
}

/// The first step: what a rule admits at most.
#[derive(Clone, Debug)]
struct Hull<A> {
    service: Interval<u32>,
    source: Interval<A>,
    destination: Interval<A>,
    source_ports: Interval<u16>,
}

/// Places in one of the table's lists; none: the interval was exact.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    #[inline]
    fn admits<T: Bound>(self, list: &[(T, T)], value: T) -> bool {
        self.start == self.end || contains(&list[self.start..self.end], value)
    }
}

/// The second step: the exact ranges.
#[derive(Clone, Debug)]
struct Exact {
    /// Index into the rules as they were given.
    index: u32,
    service: Span,
    source: Span,
    destination: Span,
    source_ports: Span,
    /// All intervals were exact: there is nothing to look up.
    is_hull: bool,
}

/// Sets of zones, one after the other, each of the same number of words.
#[derive(Clone, Debug)]
struct Bitmaps {
    /// Zones that there are.
    zones: usize,
    words: usize,
    bits: Vec<u64>,
}

impl Bitmaps {
    fn new(zones: usize) -> Self {
        Self {
            zones,
            words: zones.div_ceil(64).max(1),
            bits: Vec::new(),
        }
    }

    fn push(&mut self, zones: Option<&[ZoneId]>) {
        let start = self.bits.len();
        let fill = if zones.is_none() { u64::MAX } else { 0 };
        self.bits.resize(start + self.words, fill);
        for zone in zones.unwrap_or_default() {
            if let Some(word) = self.bits[start..].get_mut(zone.index() / 64) {
                *word |= 1 << (zone.index() % 64);
            }
        }
    }
}

/// The rules that can match packets of one address family.
#[derive(Clone, Debug)]
struct Table<A> {
    /// For each rule a bitmap of `from` zones and one of `to` zones.
    zones: Bitmaps,
    hulls: Vec<Hull<A>>,
    exacts: Vec<Exact>,
    addresses: Vec<(A, A)>,
    services: Vec<(u32, u32)>,
    ports: Vec<(u16, u16)>,
}

impl<A: Family + Hash> Table<A> {
    fn new(rules: &[RuleSpec], zones: usize) -> Self {
        let (mut addresses, mut services, mut ports) = (Shared::new(), Shared::new(), Shared::new());
        let mut bitmaps = Bitmaps::new(zones);
        let (mut hulls, mut exacts) = (Vec::new(), Vec::new());
        for (rule, index) in rules.iter().zip(0_u32..) {
            // A rule that no packet of this family can match has no place here.
            if let Some(conditions) = Conditions::<A>::of(rule) {
                bitmaps.push(rule.from.as_deref());
                bitmaps.push(rule.to.as_deref());
                hulls.push(Hull {
                    service: Interval::hull(&conditions.service),
                    source: Interval::hull(&conditions.source),
                    destination: Interval::hull(&conditions.destination),
                    source_ports: Interval::hull(&conditions.source_ports),
                });
                let mut exact = Exact {
                    index,
                    service: services.add(conditions.service),
                    source: addresses.add(conditions.source),
                    destination: addresses.add(conditions.destination),
                    source_ports: ports.add(conditions.source_ports),
                    is_hull: false,
                };
                let spans = [exact.service, exact.source, exact.destination, exact.source_ports];
                exact.is_hull = spans.iter().all(|span| span.start == span.end);
                exacts.push(exact);
            }
        }
        Self {
            zones: bitmaps,
            hulls,
            exacts,
            addresses: addresses.list,
            services: services.list,
            ports: ports.list,
        }
    }

    #[inline]
    fn first(&self, key: &ClassifyKey, source: A, destination: A) -> RuleMatch {
        let service = service_code(key.protocol, selector::<A>(key));
        let (from_word, from_bit) = (key.from.index() / 64, key.from.index() % 64);
        let (to_word, to_bit) = (key.to.index() / 64, key.to.index() % 64);
        let words = self.zones.words;
        if key.from.max(key.to).index() >= self.zones.zones {
            // Not a zone of this policy.
            return None;
        }
        // (`chunks_exact` would divide.)
        let (mut from_at, mut to_at) = (from_word, words + to_word);
        for (place, hull) in self.hulls.iter().enumerate() {
            let zones = (self.zones.bits[from_at] >> from_bit) & (self.zones.bits[to_at] >> to_bit) & 1;
            from_at += 2 * words;
            to_at += 2 * words;
            // Not `&&`: no branch that a mixed burst would make the CPU guess wrong.
            let possible = (zones == 1)
                & hull.service.contains(service)
                & hull.source.contains(source)
                & hull.destination.contains(destination)
                & hull.source_ports.contains(key.source_port);
            if possible {
                let exact = &self.exacts[place];
                let admitted = exact.is_hull
                    || exact.service.admits(&self.services, service)
                        && exact.source.admits(&self.addresses, source)
                        && exact.destination.admits(&self.addresses, destination)
                        && exact.source_ports.admits(&self.ports, key.source_port);
                if admitted {
                    return Some(exact.index);
                }
            }
        }
        None
    }
}

/// A list of ranges that rules share: a set that many rules name stands in it once.
#[derive(Debug)]
struct Shared<T> {
    list: Vec<(T, T)>,
    spans: HashMap<RangeSet<T>, Span>,
}

impl<T: Bound + Hash> Shared<T> {
    fn new() -> Self {
        Self {
            list: Vec::new(),
            spans: HashMap::new(),
        }
    }

    fn add(&mut self, set: RangeSet<T>) -> Span {
        if set.is_interval() {
            return Span::default();
        }
        let list = &mut self.list;
        *self.spans.entry(set).or_insert_with_key(|set| {
            let start = list.len();
            list.extend_from_slice(set.ranges());
            Span {
                start,
                end: list.len(),
            }
        })
    }
}
