//! Rules as a trie takes them: every condition one value under a mask, one prefix or one range. A rule with lists becomes
//! the product of their members, so the product is bounded ([`MAX_EXPANDED`]).
//!
//! What keeps it small: zones and protocols are replaced by classes, of which there are only as many as the rules tell
//! apart, and the numbers of all three classes of a packet mostly fit one byte. So a rule for any zone, any protocol or
//! for TCP and UDP together takes one entry, and a packet's key is no longer than its five-tuple. ICMP's type and code
//! are in the place of the destination port.

use std::collections::HashMap;
use std::hash::Hash;

use super::classify::{Classifier, ClassifyKey, RuleMatch};
use super::linear::{Addresses, addresses, selector};
use super::ranges::RangeSet;
use super::spec::{Conditions, Family, RuleSpec};
use crate::base::ZoneId;

/// So many entries at most, of one address family, are made of a policy's rules. A trie of that many is built in under a
/// second, with 150 MiB of memory meanwhile; where all of them overlap at random, in 4 seconds and with 800 MiB
/// (`CLASSIFY_BUILD=1 cargo bench --bench classify`).
pub const MAX_EXPANDED: usize = 16_384;

/// The rules of one address family are more than [`MAX_EXPANDED`] when every combination of list members is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{entries} combinations of list members, more than {MAX_EXPANDED}")]
pub struct TooMany {
    /// How many.
    pub entries: u64,
}

/// Bits that are looked at, and what they have to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Masked<T> {
    pub(crate) value: T,
    pub(crate) mask: T,
}

/// An address with the number of its leading bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix<A> {
    pub(crate) first: A,
    pub(crate) len: u32,
}

/// One combination of the members of a rule's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<A> {
    /// Index into the rules as they were given.
    pub(crate) rule: u32,
    /// Of [`Selected::class`].
    pub(crate) class: Masked<u8>,
    /// Of [`Selected::from`] and [`Selected::to`]; all bits are free where the class says it all.
    pub(crate) zones: [Masked<u16>; 2],
    pub(crate) source: Prefix<A>,
    pub(crate) destination: Prefix<A>,
    /// First and last.
    pub(crate) source_ports: (u16, u16),
    /// Destination ports, or ICMP type and code.
    pub(crate) selectors: (u16, u16),
}

/// What of a key is compared with entries, besides its addresses and its source port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) class: u8,
    /// 0 where the class says it all.
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) selector: u16,
}

/// The rules of one address family.
#[derive(Clone, Debug)]
pub(crate) struct Expanded<A> {
    /// In the order of the rules.
    pub(crate) entries: Vec<Entry<A>>,
    pub(crate) classes: Classes,
}

impl<A: Family + Address> Expanded<A> {
    /// Expands the rules that can match packets of this family, for a policy of so many zones.
    ///
    /// # Errors
    /// When they are more than [`MAX_EXPANDED`]; nothing of that size is made.
    pub(crate) fn new(rules: &[RuleSpec], zones: usize) -> Result<Self, TooMany> {
        let rules: Vec<Member<'_, A>> = members(rules);
        let classes = Classes::new(&rules, zones);
        let parts: Vec<Parts<A>> = rules.iter().map(|rule| Parts::new(rule, &classes)).collect();
        let entries = parts.iter().map(Parts::product).fold(0, u64::saturating_add);
        if entries > MAX_EXPANDED as u64 {
            return Err(TooMany { entries });
        }
        let mut expanded = Self {
            entries: Vec::with_capacity(usize::try_from(entries).unwrap_or(MAX_EXPANDED)),
            classes,
        };
        for (rule, parts) in rules.iter().zip(&parts) {
            parts.expand(rule.place, &expanded.classes, &mut expanded.entries);
        }
        Ok(expanded)
    }
}

/// The entries that the rules of both families take, whichever has more.
///
/// # Errors
/// When they are more than [`MAX_EXPANDED`].
pub fn entries(rules: &[RuleSpec], zones: usize) -> Result<usize, TooMany> {
    let v4 = Expanded::<u32>::new(rules, zones)?.entries.len();
    let v6 = Expanded::<u128>::new(rules, zones)?.entries.len();
    Ok(v4.max(v6))
}

/// A rule that packets of a family can match.
struct Member<'r, A> {
    place: u32,
    from: Option<&'r [ZoneId]>,
    to: Option<&'r [ZoneId]>,
    conditions: Conditions<A>,
}

fn members<A: Family>(rules: &[RuleSpec]) -> Vec<Member<'_, A>> {
    let mut members = Vec::with_capacity(rules.len());
    for (place, rule) in (0..).zip(rules) {
        let nowhere = [&rule.from, &rule.to].into_iter().flatten().any(Vec::is_empty);
        if let Some(conditions) = Conditions::of(rule).filter(|_| !nowhere) {
            members.push(Member {
                place,
                from: rule.from.as_deref(),
                to: rule.to.as_deref(),
                conditions,
            });
        }
    }
    members
}

/// Values that every rule treats alike have one class; classes are numbered from 0.
#[derive(Clone, Debug)]
struct Partition {
    /// By value.
    class: Vec<u16>,
    count: usize,
}

impl Partition {
    /// By what is known of each value.
    fn new<T: Eq + Hash>(signatures: impl IntoIterator<Item = T>) -> Self {
        let mut known = HashMap::new();
        let class = signatures
            .into_iter()
            .map(|signature| {
                let next = known.len();
                *known.entry(signature).or_insert(next) as u16
            })
            .collect();
        Self {
            class,
            count: known.len(),
        }
    }

    /// Zones by the lists that they are in.
    fn of_zones<'r>(lists: impl Iterator<Item = Option<&'r [ZoneId]>>, zones: usize) -> Self {
        let mut signatures = vec![Vec::new(); zones];
        for (place, list) in lists.enumerate() {
            for zone in list.unwrap_or_default() {
                match signatures.get_mut(zone.index()) {
                    Some(signature) if signature.last() != Some(&place) => signature.push(place),
                    _ => {}
                }
            }
        }
        Self::new(signatures)
    }

    /// Protocols by the selectors that each rule admits of them.
    fn of_protocols<A: Family>(rules: &[Member<'_, A>]) -> Self {
        let mut signatures = vec![Vec::new(); 256];
        for rule in rules {
            let service = &rule.conditions.service;
            if *service == RangeSet::full() {
                continue;
            }
            for protocol in 0..=u8::MAX {
                let selectors = selectors_of(service, protocol);
                if !selectors.is_empty() {
                    signatures[usize::from(protocol)].push((rule.place, selectors));
                }
            }
        }
        Self::new(signatures)
    }

    fn bits(&self) -> u32 {
        self.count.max(1).next_power_of_two().trailing_zeros()
    }

    /// The classes of `members`, as few aligned blocks of numbers as hold them and no other class.
    fn cover(&self, members: impl Iterator<Item = usize>) -> Vec<Masked<u16>> {
        let mut wanted = vec![false; self.count];
        for value in members {
            if let Some(class) = self.class.get(value) {
                wanted[usize::from(*class)] = true;
            }
        }
        let mut blocks = Vec::new();
        cover(&wanted, 0, self.bits(), self.bits(), &mut blocks);
        blocks
    }

    /// As `cover`, of a list where none means all.
    fn cover_zones(&self, zones: Option<&[ZoneId]>) -> Vec<Masked<u16>> {
        match zones {
            None => vec![Masked::default()],
            Some(zones) => self.cover(zones.iter().map(|zone| zone.index())),
        }
    }
}

/// Numbers that no class has count as wanted or not, whichever is shorter.
fn cover(wanted: &[bool], first: usize, bits: u32, of: u32, blocks: &mut Vec<Masked<u16>>) {
    let end = wanted.len().min(first + (1 << bits));
    let here = &wanted[first.min(end)..end];
    if here.iter().any(|wanted| *wanted) {
        if here.iter().all(|wanted| *wanted) {
            blocks.push(Masked {
                value: first as u16,
                mask: (((1_u32 << of) - 1) & !((1 << bits) - 1)) as u16,
            });
        } else {
            cover(wanted, first, bits - 1, of, blocks);
            cover(wanted, first + (1 << (bits - 1)), bits - 1, of, blocks);
        }
    }
}

/// What a set of services admits of one protocol.
fn selectors_of(service: &RangeSet<u32>, protocol: u8) -> Vec<(u16, u16)> {
    let (low, high) = (u32::from(protocol) << 16, (u32::from(protocol) << 16) | 0xffff);
    let ranges = service.ranges();
    let next = ranges.partition_point(|(_, last)| *last < low);
    ranges[next..]
        .iter()
        .take_while(|(first, _)| *first <= high)
        .map(|(first, last)| (*first.max(&low) as u16, *last.min(&high) as u16))
        .collect()
}

/// From zones and protocols to classes.
#[derive(Clone, Debug)]
pub(crate) struct Classes {
    protocols: Partition,
    from: Partition,
    to: Partition,
    /// All three classes are in the byte.
    pub(crate) packed: bool,
    /// By protocol, and by zone: the bits in the byte.
    protocol_bits: [u8; 256],
    from_bits: Vec<u8>,
    to_bits: Vec<u8>,
}

impl Classes {
    fn new<A: Family>(rules: &[Member<'_, A>], zones: usize) -> Self {
        let protocols = Partition::of_protocols(rules);
        let from = Partition::of_zones(rules.iter().map(|rule| rule.from), zones);
        let to = Partition::of_zones(rules.iter().map(|rule| rule.to), zones);
        let packed = protocols.bits() + from.bits() + to.bits() <= u8::BITS;
        let bits = |partition: &Partition, shift: u32| -> Vec<u8> {
            let place = |class: &u16| if packed { (*class << shift) as u8 } else { 0 };
            partition.class.iter().map(place).collect()
        };
        let to_shift = protocols.bits();
        let from_shift = to_shift + to.bits();
        Self {
            packed,
            protocol_bits: std::array::from_fn(|protocol| protocols.class[protocol] as u8),
            from_bits: bits(&from, from_shift),
            to_bits: bits(&to, to_shift),
            protocols,
            from,
            to,
        }
    }

    /// `None`: a zone that the policy does not have, which no rule matches.
    #[inline]
    pub(crate) fn of<A: Family>(&self, key: &ClassifyKey) -> Option<Selected> {
        let (from, to) = (key.from.index(), key.to.index());
        let zones = self.from_bits.get(from)? | self.to_bits.get(to)?;
        let mut selected = Selected {
            class: self.protocol_bits[usize::from(key.protocol)] | zones,
            selector: selector::<A>(key),
            ..Selected::default()
        };
        if !self.packed {
            selected.from = *self.from.class.get(from)?;
            selected.to = *self.to.class.get(to)?;
        }
        Some(selected)
    }

    /// One combination of classes.
    fn place(
        &self,
        protocol: Masked<u16>,
        from: Masked<u16>,
        to: Masked<u16>,
    ) -> (Masked<u8>, [Masked<u16>; 2]) {
        if !self.packed {
            let class = Masked {
                value: protocol.value as u8,
                mask: protocol.mask as u8,
            };
            return (class, [from, to]);
        }
        let to_shift = self.protocols.bits();
        let from_shift = to_shift + self.to.bits();
        let join = |p: u16, f: u16, t: u16| (p | (f << from_shift) | (t << to_shift)) as u8;
        let class = Masked {
            value: join(protocol.value, from.value, to.value),
            mask: join(protocol.mask, from.mask, to.mask),
        };
        (class, [Masked::default(); 2])
    }
}

/// A rule's conditions, each as a list of what one entry can say.
struct Parts<A> {
    services: Vec<(Masked<u16>, (u16, u16))>,
    from: Vec<Masked<u16>>,
    to: Vec<Masked<u16>>,
    sources: Vec<Prefix<A>>,
    destinations: Vec<Prefix<A>>,
    source_ports: Vec<(u16, u16)>,
}

impl<A: Family + Address> Parts<A> {
    fn new(rule: &Member<'_, A>, classes: &Classes) -> Self {
        Self {
            services: services(&rule.conditions.service, classes),
            from: classes.from.cover_zones(rule.from),
            to: classes.to.cover_zones(rule.to),
            sources: prefixes(&rule.conditions.source),
            destinations: prefixes(&rule.conditions.destination),
            source_ports: rule.conditions.source_ports.ranges().to_vec(),
        }
    }

    fn product(&self) -> u64 {
        [
            self.services.len(),
            self.from.len(),
            self.to.len(),
            self.sources.len(),
            self.destinations.len(),
            self.source_ports.len(),
        ]
        .into_iter()
        .fold(1, |product: u64, len| product.saturating_mul(len as u64))
    }

    fn expand(&self, rule: u32, classes: &Classes, entries: &mut Vec<Entry<A>>) {
        for (protocol, selectors) in &self.services {
            for from in &self.from {
                for to in &self.to {
                    let (class, zones) = classes.place(*protocol, *from, *to);
                    for source in &self.sources {
                        for destination in &self.destinations {
                            entries.extend(self.source_ports.iter().map(|source_ports| Entry {
                                rule,
                                class,
                                zones,
                                source: *source,
                                destination: *destination,
                                source_ports: *source_ports,
                                selectors: *selectors,
                            }));
                        }
                    }
                }
            }
        }
    }
}

/// Protocol classes with the selectors that a rule admits of them; classes of which it admits the same stand together.
fn services(service: &RangeSet<u32>, classes: &Classes) -> Vec<(Masked<u16>, (u16, u16))> {
    if *service == RangeSet::full() {
        return vec![(Masked::default(), (0, u16::MAX))];
    }
    type Ports = Vec<(u16, u16)>;
    let mut alike: Vec<(Ports, Vec<usize>)> = Vec::new();
    for protocol in 0..=u8::MAX {
        let selectors = selectors_of(service, protocol);
        match alike.iter_mut().find(|(known, _)| *known == selectors) {
            _ if selectors.is_empty() => {}
            Some((_, protocols)) => protocols.push(protocol.into()),
            None => alike.push((selectors, vec![protocol.into()])),
        }
    }
    let mut services = Vec::new();
    for (selectors, protocols) in alike {
        for class in classes.protocols.cover(protocols.into_iter()) {
            services.extend(selectors.iter().map(|range| (class, *range)));
        }
    }
    services
}

/// Looks at all entries of both families in order: the answer that a trie of them has to give, without DPDK.
#[derive(Clone, Debug)]
pub struct EntryClassifier {
    v4: Expanded<u32>,
    v6: Expanded<u128>,
}

impl EntryClassifier {
    /// Expands rules in their order, for a policy of so many zones.
    ///
    /// # Errors
    /// When they are more than [`MAX_EXPANDED`] in a family.
    pub fn new(rules: &[RuleSpec], zones: usize) -> Result<Self, TooMany> {
        Ok(Self {
            v4: Expanded::new(rules, zones)?,
            v6: Expanded::new(rules, zones)?,
        })
    }
}

impl Classifier for EntryClassifier {
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

impl<A: Family + Address> Expanded<A> {
    fn first(&self, key: &ClassifyKey, source: A, destination: A) -> RuleMatch {
        let selected = self.classes.of::<A>(key)?;
        let matches = |entry: &&Entry<A>| {
            let [from, to] = entry.zones;
            entry.class.value == selected.class & entry.class.mask
                && from.value == selected.from & from.mask
                && to.value == selected.to & to.mask
                && entry.source.holds(source)
                && entry.destination.holds(destination)
                && (entry.source_ports.0..=entry.source_ports.1).contains(&key.source_port)
                && (entry.selectors.0..=entry.selectors.1).contains(&selected.selector)
        };
        self.entries.iter().find(matches).map(|entry| entry.rule)
    }
}

impl<A: Address> Prefix<A> {
    fn holds(self, address: A) -> bool {
        let differ = self.first.bits() ^ address.bits();
        differ.checked_shr(A::BITS - self.len).unwrap_or(0) == 0
    }
}

/// An address as bits.
pub(crate) trait Address: Copy {
    /// How many.
    const BITS: u32;
    fn bits(self) -> u128;
    fn of_bits(bits: u128) -> Self;
}

impl Address for u32 {
    const BITS: u32 = Self::BITS;
    fn bits(self) -> u128 {
        self.into()
    }
    fn of_bits(bits: u128) -> Self {
        bits as Self
    }
}

impl Address for u128 {
    const BITS: u32 = Self::BITS;
    fn bits(self) -> u128 {
        self
    }
    fn of_bits(bits: u128) -> Self {
        bits
    }
}

/// The fewest prefixes that hold exactly these addresses: at most as many as the set was made of.
fn prefixes<A: Family + Address>(set: &RangeSet<A>) -> Vec<Prefix<A>> {
    let mut prefixes = Vec::new();
    for (first, last) in set.ranges() {
        let (mut first, last) = (first.bits(), last.bits());
        loop {
            // The largest block that begins here and ends in time.
            let left = last - first;
            let room = left.checked_add(1).map_or(u128::BITS, u128::ilog2);
            let host = first.trailing_zeros().min(room).min(A::BITS);
            prefixes.push(Prefix {
                first: A::of_bits(first),
                len: A::BITS - host,
            });
            let size = 1_u128.checked_shl(host).unwrap_or(0);
            if size == 0 || size > left {
                break;
            }
            first += size;
        }
    }
    prefixes
}
