//! Which zone a source address belongs behind (RFC 2827; RFC 3704, section 2.3), for zones with `antispoof = true`.
//!
//! Prefixes of zones may nest: the most specific one that holds an address says whose it is. So that one binary search finds
//! it, they are compiled to ranges that do not overlap.

use ipnet::IpNet;

use super::ranges::Bound;
use super::spec::Family;
use crate::base::ZoneId;

/// Why a source is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoof {
    /// It belongs behind this other zone.
    BelongsTo(ZoneId),
    /// It is in none of the networks of the zone that it comes from.
    NotInZone,
}

/// The networks of all zones, and the zones whose packets are compared with them.
#[derive(Clone, Debug, Default)]
pub struct AntiSpoof {
    /// By [`ZoneId`]: has it networks of its own? `None`: it is not checked.
    checked: Vec<Option<bool>>,
    v4: Vec<Range<u32>>,
    v6: Vec<Range<u128>>,
}

/// Addresses from `first` to `last` of one zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range<A> {
    first: A,
    last: A,
    zone: ZoneId,
}

impl AntiSpoof {
    /// From each zone's networks and `antispoof`, by [`ZoneId`].
    #[must_use]
    pub fn new(zones: &[(Vec<IpNet>, bool)]) -> Self {
        if zones.iter().all(|(_, antispoof)| !antispoof) {
            return Self::default();
        }
        let checked = zones
            .iter()
            .map(|(networks, antispoof)| antispoof.then_some(!networks.is_empty()));
        Self {
            checked: checked.collect(),
            v4: ranges(zones),
            v6: ranges(zones),
        }
    }

    /// What is wrong with a packet from `source` (IPv4 as `::ffff:a.b.c.d`) that comes in by a port of `zone`.
    #[inline]
    #[must_use]
    pub fn judge(&self, zone: ZoneId, source: &[u8; 16]) -> Option<Spoof> {
        // Most policies check none, or few zones.
        let has_networks = (*self.checked.get(zone.index())?)?;
        self.look_up(zone, has_networks, source)
    }

    #[inline(never)]
    fn look_up(&self, zone: ZoneId, has_networks: bool, source: &[u8; 16]) -> Option<Spoof> {
        let bits = u128::from_be_bytes(*source);
        let owner = if bits >> 32 == 0xffff {
            owner(&self.v4, bits as u32)
        } else {
            owner(&self.v6, bits)
        };
        match owner {
            Some(owner) => (owner != zone).then_some(Spoof::BelongsTo(owner)),
            None => (has_networks && !is_of_the_link(bits)).then_some(Spoof::NotInZone),
        }
    }
}

/// Addresses that mean something on their link alone, so that no prefix need name them: link-local ones (RFC 4291, section
/// 2.5.6; RFC 3927) and, where they may be sources at all, unspecified ones (DHCP).
fn is_of_the_link(bits: u128) -> bool {
    if bits >> 32 == 0xffff {
        let v4 = bits as u32;
        v4 == 0 || v4 >> 16 == 0xa9fe
    } else {
        bits == 0 || bits >> 118 == 0x3fa
    }
}

fn owner<A: Bound>(ranges: &[Range<A>], address: A) -> Option<ZoneId> {
    let next = ranges.partition_point(|range| range.last < address);
    ranges
        .get(next)
        .filter(|range| range.first <= address)
        .map(|range| range.zone)
}

/// Prefixes nest or are apart: taken from the widest on, each cuts its addresses out of the one around it.
fn ranges<A: Family>(zones: &[(Vec<IpNet>, bool)]) -> Vec<Range<A>> {
    let mut prefixes: Vec<Range<A>> = Vec::new();
    for (place, (networks, _)) in (0..).zip(zones) {
        let of_family = networks.iter().filter_map(A::range);
        prefixes.extend(of_family.map(|(first, last)| Range {
            first,
            last,
            zone: ZoneId(place),
        }));
    }
    // Where they start, the wider first; so the open ones below form a stack.
    prefixes.sort_by(|a, b| (a.first, b.last).cmp(&(b.first, a.last)));
    let mut flat = Vec::new();
    let mut open: Vec<Range<A>> = Vec::new();
    for prefix in prefixes {
        while let Some(mut around) = open.pop() {
            if around.last >= prefix.first {
                if around.first < prefix.first {
                    flat.push(Range {
                        last: prefix.first.predecessor(),
                        ..around
                    });
                }
                // What is left of it comes behind this prefix, unless that reaches its end.
                if let Some(behind) = prefix.last.successor().filter(|next| *next <= around.last) {
                    around.first = behind;
                    open.push(around);
                }
                break;
            }
            flat.push(around);
        }
        open.push(prefix);
    }
    // The innermost is the first to end.
    flat.extend(open.into_iter().rev());
    flat
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn source(text: &str) -> [u8; 16] {
        match text.parse::<std::net::IpAddr>().unwrap() {
            std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(v6) => v6.octets(),
        }
    }

    proptest! {
        #[test]
        fn the_longest_prefix_decides(
            prefixes in prop::collection::btree_map((0_u32..256, 24_u8..=32), 0_u16..4, 0..24),
        ) {
            let mut zones = vec![(Vec::new(), true); 4];
            let mut all = Vec::new();
            for ((host, len), zone) in prefixes {
                let net = IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 | host).into(), len).unwrap().trunc();
                // One prefix, one zone: the configuration's checks see to that.
                if all.iter().all(|(other, _)| *other != net) {
                    all.push((net, ZoneId(zone)));
                    zones[usize::from(zone)].0.push(net);
                }
            }
            let antispoof = AntiSpoof::new(&zones);
            prop_assert!(antispoof.v4.windows(2).all(|pair| pair[0].last < pair[1].first));
            for host in 0_u32..300 {
                let address = std::net::Ipv4Addr::from(0x0a00_0000 + host);
                let longest = all
                    .iter()
                    .filter(|(net, _)| net.contains(&std::net::IpAddr::from(address)))
                    .max_by_key(|(net, _)| net.prefix_len())
                    .map(|(_, zone)| *zone);
                for (zone, (networks, _)) in (0..).map(ZoneId).zip(&zones) {
                    let expected = match longest {
                        Some(owner) => (owner != zone).then_some(Spoof::BelongsTo(owner)),
                        None => (!networks.is_empty()).then_some(Spoof::NotInZone),
                    };
                    prop_assert_eq!(antispoof.judge(zone, &address.to_ipv6_mapped().octets()), expected);
                }
            }
        }
    }

    #[test]
    fn the_whole_of_both_families_and_the_link() {
        let zones = [
            (vec![net("0.0.0.0/0"), net("::/0")], true),
            (vec![net("255.255.255.0/24"), net("ff00::/8")], true),
            (vec![], true),
            (vec![], false),
        ];
        let antispoof = AntiSpoof::new(&zones);
        let judge = |zone, text| antispoof.judge(ZoneId(zone), &source(text));
        assert_eq!(judge(0, "255.255.254.255"), None);
        assert_eq!(judge(0, "255.255.255.255"), Some(Spoof::BelongsTo(ZoneId(1))));
        assert_eq!(judge(1, "255.255.255.255"), None);
        assert_eq!(judge(1, "ffff::1"), None);
        assert_eq!(judge(2, "10.0.0.1"), Some(Spoof::BelongsTo(ZoneId(0))));
        assert_eq!(judge(3, "10.0.0.1"), None);
        assert_eq!(judge(9, "10.0.0.1"), None);
        let one = AntiSpoof::new(&[(vec![net("10.0.0.0/8"), net("fd00::/8")], true)]);
        for text in [
            "169.254.1.1",
            "0.0.0.0",
            "::",
            "fe80::1",
            "febf::1",
            "10.1.2.3",
            "fd00::1",
        ] {
            assert_eq!(one.judge(ZoneId(0), &source(text)), None, "{text}");
        }
        for text in ["169.253.1.1", "11.0.0.1", "fec0::1", "2001:db8::1"] {
            let expected = Some(Spoof::NotInZone);
            assert_eq!(one.judge(ZoneId(0), &source(text)), expected, "{text}");
        }
    }
}
