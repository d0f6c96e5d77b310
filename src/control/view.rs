//! From what workers have (ids, ticks, keys) to what operators read (names, seconds, addresses).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::node::{Owner, SessionInfo, Word};
use crate::base::{Nanos, PortId, RuleId, Tick, WorkerId};
use crate::config::{Config, RuleIds};
use crate::flow::{Direction, FlowKey, KeyClass, Session, Translation};
use crate::packet::parse::protocol::{ICMP, ICMPV6, TCP, UDP};
use crate::policy::{Policy, Scale, SessionScope};

/// The names of ports, zones and rules of one configuration.
#[derive(Clone, Debug)]
pub struct Names {
    ports: Vec<PortName>,
    rules: HashMap<RuleId, Arc<str>>,
    none: Arc<str>,
}

#[derive(Clone, Debug)]
struct PortName {
    name: Arc<str>,
    zone: Arc<str>,
    mtu: usize,
}

/// One live session, as its worker told it.
#[derive(Clone, Copy, Debug)]
pub struct LiveSession {
    /// The session.
    pub session: Session,
    /// How its numbers differ, of a proxied one.
    pub translation: Translation,
    /// When it was made.
    pub created: Nanos,
    /// Packets, `[opener's, replier's]`.
    pub packets: [u64; 2],
    /// Who owns it.
    pub worker: WorkerId,
    /// What timeouts have shrunk to on that worker.
    pub scale: Scale,
}

impl Names {
    /// Of a configuration, and of all rules that its run has seen.
    #[must_use]
    pub fn new(config: &Config, ids: &RuleIds) -> Self {
        let ids = (0..u32::try_from(ids.len()).unwrap_or(u32::MAX)).map(|id| {
            let id = RuleId(id);
            (id, Arc::from(ids.name(id).unwrap_or_default()))
        });
        let ports = config.ports.iter().map(|port| PortName {
            name: Arc::from(port.name.as_str()),
            zone: Arc::from(port.zone.as_str()),
            mtu: usize::from(port.mtu),
        });
        Self {
            ports: ports.collect(),
            rules: ids.collect(),
            none: Arc::from("?"),
        }
    }

    /// A port's name.
    #[must_use]
    pub fn port(&self, id: PortId) -> &Arc<str> {
        self.ports.get(id.index()).map_or(&self.none, |p| &p.name)
    }

    /// The zone of a port.
    #[must_use]
    pub fn zone_of(&self, id: PortId) -> &Arc<str> {
        self.ports.get(id.index()).map_or(&self.none, |p| &p.zone)
    }

    /// The longest IP packet that a port sends, in bytes.
    #[must_use]
    pub fn mtu(&self, id: PortId) -> usize {
        self.ports.get(id.index()).map_or(usize::MAX, |p| p.mtu)
    }

    /// A rule's name.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> &Arc<str> {
        self.rules.get(&id).unwrap_or(&self.none)
    }

    /// All ports with their ids, names and zones.
    pub fn ports(&self) -> impl Iterator<Item = (PortId, &str, &str)> {
        self.ports
            .iter()
            .enumerate()
            .filter_map(|(place, p)| Some((PortId(u16::try_from(place).ok()?), &*p.name, &*p.zone)))
    }

    /// A session in the API's shape, at its worker's time `now`.
    #[must_use]
    pub fn session(&self, policy: &Policy, live: &LiveSession, now: Nanos) -> SessionInfo {
        let session = &live.session;
        let (source, source_port, destination, destination_port) = ends(&session.key, session.opener);
        SessionInfo {
            protocol: protocol(session.key.protocol),
            source,
            source_port,
            destination,
            destination_port,
            vlan: vlans(policy.transparent.session_scope, &session.key),
            state: Word::Borrowed(session.state().name()),
            rule: Arc::clone(self.rule(session.rule)),
            from: Arc::clone(self.zone_of(session.ingress)),
            to: Arc::clone(self.zone_of(session.egress)),
            ingress: Arc::clone(self.port(session.ingress)),
            egress: Arc::clone(self.port(session.egress)),
            nat: None,
            packets: live.packets,
            bytes: session.bytes(),
            age_s: seconds(now.since(live.created)),
            expires_in_s: seconds(expires_in(live, policy, now)),
            worker: live.worker.0,
            owner: Owner::Local,
        }
    }
}

/// Until the session ends if no packet comes, to a tick's precision.
fn expires_in(live: &LiveSession, policy: &Policy, now: Nanos) -> Nanos {
    let session = &live.session;
    let timeout = live
        .scale
        .ticks(session.timeout(policy.state_timeouts(session.rule)));
    let idle = now.tick().distance(session.last_seen()).max(0);
    let left = i64::from(timeout) - i64::from(idle);
    Nanos(u64::try_from(left).unwrap_or(0).saturating_mul(Tick::NANOS))
}

/// Seconds to the millisecond.
#[allow(clippy::cast_precision_loss, reason = "2^53 ms are 285,000 years")]
pub(super) fn seconds(time: Nanos) -> f64 {
    (time.0 / 1_000_000) as f64 / 1000.0
}

/// Source, source port, destination, destination port, as the opener's packets have them.
pub(super) fn ends(key: &FlowKey, opener: Direction) -> (IpAddr, u16, IpAddr, u16) {
    // Of an echo, its identifier; the type of other ICMP stands elsewhere.
    let port = |port| match key.class {
        KeyClass::IcmpFromLow | KeyClass::IcmpFromHigh => 0,
        _ => port,
    };
    let low = (address(key.low), port(key.low_port));
    let high = (address(key.high), port(key.high_port));
    let ((source, source_port), (destination, destination_port)) = match opener {
        Direction::LowToHigh => (low, high),
        Direction::HighToLow => (high, low),
    };
    (source, source_port, destination, destination_port)
}

/// An address of the engine's: IPv4 is `::ffff:a.b.c.d` there.
#[must_use]
pub fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// The IP protocols that have a word.
const PROTOCOLS: [(u8, &str); 4] = [(ICMP, "icmp"), (TCP, "tcp"), (UDP, "udp"), (ICMPV6, "icmpv6")];

/// The word for an IP protocol; its number where there is none.
#[must_use]
pub fn protocol(number: u8) -> Word {
    match PROTOCOLS.iter().find(|(known, _)| *known == number) {
        Some((_, word)) => Word::Borrowed(word),
        None => Word::Owned(number.to_string()),
    }
}

/// The IP protocol that a word or a number means.
#[must_use]
pub fn protocol_number(word: &str) -> Option<u8> {
    let known = PROTOCOLS.iter().find(|(_, known)| *known == word);
    known.map_or_else(|| word.parse().ok(), |(number, _)| Some(*number))
}

/// The VLAN identifiers of a flow, outer first, where sessions are told apart by them.
pub(super) fn vlans(scope: SessionScope, key: &FlowKey) -> Vec<u16> {
    match scope {
        SessionScope::PairVlan => vlan_tags(key.domain & 0x00ff_ffff),
        SessionScope::Pair | SessionScope::Node => Vec::new(),
    }
}

/// VLAN identifiers, outer first, from [`crate::packet::PacketMeta::vlan`].
#[must_use]
pub fn vlan_tags(vlan: u32) -> Vec<u16> {
    let tag = |shift: u32| u16::try_from((vlan >> shift) & 0xfff).unwrap_or(0);
    match (tag(12), tag(0)) {
        (0, 0) => Vec::new(),
        (0, one) => vec![one],
        (outer, inner) => vec![outer, inner],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_s_word_and_number_mean_it() {
        for number in 0..=u8::MAX {
            assert_eq!(protocol_number(&protocol(number)), Some(number));
            assert_eq!(protocol_number(&number.to_string()), Some(number));
        }
        assert_eq!([6, 58, 47].map(protocol), ["tcp", "icmpv6", "47"]);
        for word in ["256", "TCP", "", "-1"] {
            assert_eq!(protocol_number(word), None, "{word}");
        }
    }
}
