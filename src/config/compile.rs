//! From the configuration's value to the compiled policy: names become ids, sets are unfolded, defaults are merged.

use std::collections::{BTreeSet, HashMap};

use super::net::{AddressRef, IcmpMatch, Service, ServiceRef};
use super::value::{Config, Matcher, Rule, TimeoutOverrides, Zone};
use crate::base::{Generation, PairId, PortId, RuleId, ZoneId};
use crate::flow::Image;
use crate::flow::fragments::MAX_PIECES;
use crate::policy::{
    self, Adaptive, AntiSpoof, IcmpSpec, Limits, LinearClassifier, MakeClassifier, Policy, PortPolicy,
    Reserve, Reserves, RuleSpec, ServiceSpec,
};

/// Rule names to ids, the same for all policies of one run, so that counters and sessions follow a rule's name over an
/// apply. Bounded: an id is never given to a second name, because idle sessions still carry it.
#[derive(Clone, Debug, Default)]
pub struct RuleIds {
    by_name: HashMap<String, RuleId>,
    names: Vec<String>,
    /// Each rule's `max_sessions` when it was last compiled, and since when it has that.
    limits: HashMap<RuleId, (Option<u32>, Generation)>,
}

impl RuleIds {
    /// How many different names one run can see: per-rule counters are sized for it.
    pub const CAPACITY: usize = 65_536;

    /// No names yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The name's id, a new one for a name not seen before; `None`: all ids are taken.
    pub fn try_id(&mut self, name: &str) -> Option<RuleId> {
        if let Some(id) = self.by_name.get(name) {
            return Some(*id);
        }
        if self.names.len() == Self::CAPACITY {
            return None;
        }
        let id = RuleId(u32::try_from(self.names.len()).ok()?);
        self.names.push(name.to_owned());
        self.by_name.insert(name.to_owned(), id);
        Some(id)
    }

    /// The name's id; `None`: it has none.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<RuleId> {
        self.by_name.get(name).copied()
    }

    /// The name of an id, also of a rule that is no longer there.
    #[must_use]
    pub fn name(&self, id: RuleId) -> Option<&str> {
        self.names.get(id.index()).map(String::as_str)
    }

    /// Since when the rule has this `max_sessions`, if it has it in the policy `generation`.
    fn limit_since(&mut self, id: RuleId, limit: Option<u32>, generation: Generation) -> Generation {
        let (last, since) = self.limits.entry(id).or_insert((limit, generation));
        if *last != limit {
            (*last, *since) = (limit, generation);
        }
        *since
    }

    /// How many ids have been given out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Has no id been given out?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// Why a valid configuration has no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// [`RuleIds`] is full.
    #[error("rule \"{0}\": more than {max} different rule names since start; restart the node, or keep to names already used", max = RuleIds::CAPACITY)]
    RuleIdsExhausted(String),
    /// A name that the loader would have refused (a value that was not made by it).
    #[error("{kind} \"{name}\" does not exist")]
    UnknownName {
        /// What it should name.
        kind: &'static str,
        /// The name.
        name: String,
    },
}

/// The policy of a configuration, with the classifier that needs nothing but memory.
///
/// # Errors
/// [`CompileError::RuleIdsExhausted`]; a value from [`super::load`] has no other.
pub fn compile(config: &Config, generation: Generation, ids: &mut RuleIds) -> Result<Policy, CompileError> {
    compile_with(config, generation, ids, &|rules, zones| {
        Box::new(LinearClassifier::new(rules, zones))
    })
}

/// The policy of a configuration, with a classifier of the caller's making.
///
/// # Errors
/// As [`compile`].
pub fn compile_with(
    config: &Config,
    generation: Generation,
    ids: &mut RuleIds,
    classifier: MakeClassifier<'_>,
) -> Result<Policy, CompileError> {
    let zones = zone_names(config);
    let mut rules = Vec::new();
    let mut specs = Vec::new();
    let timeouts = config.conntrack.timeouts.to_policy();
    for rule in config.rules.iter().filter(|rule| rule.enabled) {
        specs.push(rule_spec(config, &zones, rule)?);
        let own_timeouts = (rule.timeouts != TimeoutOverrides::default())
            .then(|| Box::new(config.conntrack.timeouts.with(&rule.timeouts).to_policy()));
        let id = ids
            .try_id(&rule.name)
            .ok_or_else(|| CompileError::RuleIdsExhausted(rule.name.clone()))?;
        rules.push(policy::Rule {
            id,
            name: rule.name.clone(),
            name_hash: Image::rule_of(&rule.name),
            action: rule.action,
            log: rule.log,
            tcp_strict: rule.tcp_strict.unwrap_or(config.conntrack.tcp_strict),
            pickup: rule.pickup.unwrap_or(config.conntrack.pickup),
            reset_on_timeout: rule.reset_on_timeout.unwrap_or(config.conntrack.reset_on_timeout),
            defer: rule.defer,
            limits: Limits {
                sessions: rule.max_sessions,
                since: ids.limit_since(id, rule.max_sessions, generation),
                per_source: rule.max_sessions_per_source,
                new_per_source: rule.new_sessions_per_source.map(|rate| rate.0),
            },
            syn_protection: rule.syn_protection,
            syn_options: syn_options(config, rule),
            state_timeouts: own_timeouts.as_deref().unwrap_or(&timeouts).by_state(),
            timeouts: own_timeouts,
            description: rule.description.clone(),
        });
    }
    let mut rule_places = vec![Policy::NO_PLACE; ids.len()];
    for (place, rule) in (0..).zip(&rules) {
        rule_places[rule.id.index()] = place;
    }
    let ports = port_policies(config, &zones)?;
    Ok(Policy {
        generation,
        rule_places,
        rule_names: (0..)
            .zip(&rules)
            .map(|(place, rule)| (rule.name_hash, place))
            .collect(),
        state_timeouts: timeouts.by_state(),
        reserves: reserves(config, &zones, &ports),
        ports,
        antispoof: antispoof(config, &zones)?,
        classifier: classifier(&specs, zones.len()),
        zones,
        rules,
        transparent: policy::Transparent {
            non_ip: config.transparent.non_ip,
            vlan: config.transparent.vlan,
            session_scope: config.transparent.session_scope,
        },
        timeouts,
        verify_checksums: config.conntrack.verify_checksums,
        reject_rate: rate_of_worker(config, config.policy.reject_rate.0),
        alert_rate: rate_of_worker(config, config.policy.alert_rate.0),
        fragments: fragment_limits(config),
        max_sessions: config.conntrack.max_sessions,
        adaptive: Adaptive {
            start: config.conntrack.adaptive_start,
            end: config.conntrack.adaptive_end,
        },
        syn_cookies: policy::SynCookies {
            start: config.conntrack.syn_cookie_start,
            stop: config.conntrack.syn_cookie_stop,
        },
    })
}

fn workers(config: &Config) -> u32 {
    u32::try_from(config.node.workers.0.len())
        .unwrap_or(u32::MAX)
        .max(1)
}

/// Each worker's share of a rate of the node; at least 1 a second, if there is a rate at all.
fn rate_of_worker(config: &Config, rate: u32) -> u32 {
    (rate / workers(config)).max(rate.min(1))
}

/// Each worker's share. Of the buffers a quarter of one port's pool, so that three quarters are left to its rings.
fn fragment_limits(config: &Config) -> policy::FragmentLimits {
    let workers = workers(config);
    let max_datagrams = config.conntrack.fragments.max_datagrams.div_ceil(workers);
    policy::FragmentLimits {
        max_datagrams,
        max_held: (config.node.packet_buffers / 4 / workers)
            .min(max_datagrams.saturating_mul(MAX_PIECES as u32)),
        timeout: config.conntrack.fragments.timeout.0,
    }
}

fn syn_options(config: &Config, rule: &Rule) -> policy::SynOptions {
    // An IPv4 and a TCP header without options (RFC 9293, section 3.7.1).
    let mtu = config.ports.iter().map(|port| port.mtu).min().unwrap_or(1500);
    let options = &rule.syn_options;
    policy::SynOptions {
        mss: options.mss.unwrap_or(mtu.saturating_sub(40)),
        window_scale: options.window_scale,
        sack: options.sack,
        timestamps: options.timestamps,
    }
}

/// What is kept for zones, in the order of the file. A zone without a port opens no session.
fn reserves(config: &Config, zones: &[String], ports: &[PortPolicy]) -> Reserves {
    let reserve = |entry: &Zone| {
        let share = entry.reserve.filter(|share| share.0 > 0)?;
        let zone = zone_id(zones, &entry.name).ok()?;
        let of_zone = (0..).map(PortId).zip(ports).filter(|(_, port)| port.zone == zone);
        let ports: Vec<_> = of_zone.map(|(id, _)| id).collect();
        (!ports.is_empty()).then_some(Reserve { zone, ports, share })
    };
    Reserves::new(config.zones.iter().filter_map(reserve).collect())
}

fn antispoof(config: &Config, zones: &[String]) -> Result<AntiSpoof, CompileError> {
    let mut by_zone = vec![(Vec::new(), false); zones.len()];
    for zone in &config.zones {
        by_zone[zone_id(zones, &zone.name)?.index()] = (zone_networks(config, zone)?, zone.antispoof);
    }
    Ok(AntiSpoof::new(&by_zone))
}

/// A zone's networks with sets unfolded.
pub(super) fn zone_networks(config: &Config, zone: &Zone) -> Result<Vec<ipnet::IpNet>, CompileError> {
    prefixes(config, &zone.networks)
}

/// All zones, those of ports and those with an entry, sorted: a zone's place is its id.
pub(super) fn zone_names(config: &Config) -> Vec<String> {
    let ports = config.ports.iter().map(|port| &port.zone);
    let entries = config.zones.iter().map(|zone| &zone.name);
    ports
        .chain(entries)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .cloned()
        .collect()
}

fn unknown(kind: &'static str, name: &str) -> CompileError {
    CompileError::UnknownName {
        kind,
        name: name.to_owned(),
    }
}

fn zone_id(zones: &[String], name: &str) -> Result<ZoneId, CompileError> {
    let place = zones.iter().position(|zone| zone == name);
    place
        .and_then(|i| u16::try_from(i).ok())
        .map(ZoneId)
        .ok_or_else(|| unknown("zone", name))
}

fn port_policies(config: &Config, zones: &[String]) -> Result<Vec<PortPolicy>, CompileError> {
    let mut ports: Vec<PortPolicy> = Vec::with_capacity(config.ports.len());
    let mut pairs = 0_u16;
    for (place, port) in config.ports.iter().enumerate() {
        let peer = config
            .ports
            .iter()
            .position(|other| other.name == port.peer)
            .ok_or_else(|| unknown("port", &port.peer))?;
        // A pair is numbered where its first port stands.
        let pair = match ports.get(peer) {
            Some(first) if peer < place => first.pair,
            _ => {
                pairs += 1;
                PairId(pairs - 1)
            }
        };
        ports.push(PortPolicy {
            zone: zone_id(zones, &port.zone)?,
            peer: PortId(u16::try_from(peer).map_err(|_| unknown("port", &port.peer))?),
            pair,
        });
    }
    Ok(ports)
}

/// A rule with names resolved and sets unfolded; `None` in a list: anything.
pub(super) fn rule_spec(config: &Config, zones: &[String], rule: &Rule) -> Result<RuleSpec, CompileError> {
    let zone_ids = |matcher: &Matcher<String>| match matcher {
        Matcher::Any => Ok(None),
        Matcher::OneOf(names) => names
            .iter()
            .map(|name| zone_id(zones, name))
            .collect::<Result<Vec<_>, _>>()
            .map(Some),
    };
    Ok(RuleSpec {
        from: zone_ids(&rule.from)?,
        to: zone_ids(&rule.to)?,
        source: addresses(config, &rule.source)?,
        destination: addresses(config, &rule.destination)?,
        service: services(config, &rule.service)?,
        source_ports: match &rule.source_ports {
            Matcher::Any => None,
            Matcher::OneOf(ranges) => Some(ranges.iter().map(|r| (r.first, r.last)).collect()),
        },
    })
}

fn addresses(
    config: &Config,
    matcher: &Matcher<AddressRef>,
) -> Result<Option<Vec<ipnet::IpNet>>, CompileError> {
    match matcher {
        Matcher::Any => Ok(None),
        Matcher::OneOf(members) => prefixes(config, members).map(Some),
    }
}

fn prefixes(config: &Config, members: &[AddressRef]) -> Result<Vec<ipnet::IpNet>, CompileError> {
    let mut nets = Vec::new();
    unfold(members, &mut |member| match member {
        AddressRef::Prefix(net) => {
            nets.push(*net);
            Ok(None)
        }
        AddressRef::Set(name) => match config.address_sets.get(name) {
            Some(set) => Ok(Some((name.as_str(), set.as_slice()))),
            None => Err(unknown("address set", name)),
        },
    })?;
    Ok(nets)
}

fn services(
    config: &Config,
    matcher: &Matcher<ServiceRef>,
) -> Result<Option<Vec<ServiceSpec>>, CompileError> {
    let Matcher::OneOf(members) = matcher else {
        return Ok(None);
    };
    let mut specs = Vec::new();
    unfold(members, &mut |member| match member {
        ServiceRef::Service(service) => {
            specs.push(service_spec(*service));
            Ok(None)
        }
        ServiceRef::Set(name) => match config.service_sets.get(name) {
            Some(set) => Ok(Some((name.as_str(), set.as_slice()))),
            None => Err(unknown("service set", name)),
        },
    })?;
    Ok(Some(specs))
}

/// A set that a member names: its name and its members.
type NamedSet<'c, T> = Option<(&'c str, &'c [T])>;

/// Calls `visit` for every member; where it answers with a set, for that one's members too. Each set is taken once, which
/// also ends a circle that the loader would have refused.
fn unfold<'c, T>(
    members: &'c [T],
    visit: &mut dyn FnMut(&'c T) -> Result<NamedSet<'c, T>, CompileError>,
) -> Result<(), CompileError> {
    let mut seen = BTreeSet::new();
    // Not by recursion: how deep sets name sets is up to the file.
    let mut pending = vec![members];
    while let Some(members) = pending.pop() {
        for member in members {
            match visit(member)? {
                Some((name, set)) if seen.insert(name) => pending.push(set),
                _ => {}
            }
        }
    }
    Ok(())
}

fn service_spec(service: Service) -> ServiceSpec {
    match service {
        Service::Tcp(ports) => ServiceSpec::Tcp(ports.first, ports.last),
        Service::Udp(ports) => ServiceSpec::Udp(ports.first, ports.last),
        Service::Icmp(icmp) => ServiceSpec::Icmp(icmp_spec(icmp)),
        Service::Icmpv6(icmp) => ServiceSpec::Icmpv6(icmp_spec(icmp)),
        Service::Protocol(number) => ServiceSpec::Protocol(number),
    }
}

fn icmp_spec(icmp: IcmpMatch) -> IcmpSpec {
    match (icmp.icmp_type, icmp.code) {
        (None, _) => IcmpSpec::Any,
        (Some(t), None) => IcmpSpec::Type(t),
        (Some(t), Some(c)) => IcmpSpec::Code(t, c),
    }
}
