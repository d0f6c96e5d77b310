//! Checks between keys: ports and their peers, devices, sets, and rules that can never match.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::check_zones::check_zones;
use super::compile::{rule_spec, zone_names};
use super::net::{AddressRef, Device, ServiceRef};
use super::read::Reading;
use super::read_ha::check_ha;
use super::read_log::check_log;
use super::section::{Section, Walk};
use super::tree::Span;
use super::value::{Config, Matcher, Port, Rule, RxQueues, TimeoutOverrides};
use crate::packet::parse::protocol::{TCP, UDP};
use crate::policy::{Action, NormalRule, RuleSpec, ServiceSpec, SynProtection};

/// A session key has 8 bits for its pair (`policy::Transparent::domain`): sessions of one pair more would be taken for
/// those of another.
const MAX_PORTS: usize = 2 << 8;
const _: () = assert!(MAX_PORTS <= crate::flow::evict::MAX_PORTS);
/// More rules are refused: [`super::RuleIds`] must hold those of several generations.
const MAX_RULES: usize = 16_384;

pub(super) fn check(reading: &Reading<'_>, walk: &mut Walk<'_>) {
    let config = &reading.config;
    check_peers(reading, walk);
    check_devices(reading, walk);
    check_queues(reading, walk);
    check_zones(reading, walk);
    check_log(reading, walk);
    check_ha(reading, walk);
    let circles = set_circles(reading, walk);
    if config.ports.len() > MAX_PORTS {
        let span = reading.ports[MAX_PORTS].span;
        let message = format!("more than {MAX_PORTS} ports, {} pairs", MAX_PORTS / 2);
        walk.error(span, message, "run a second node");
    }
    if config.rules.len() > MAX_RULES {
        let span = reading
            .rules
            .iter()
            .skip(MAX_RULES)
            .flatten()
            .next()
            .map_or(reading.node.span, |s| s.span);
        walk.error(
            span,
            format!("more than {MAX_RULES} rules"),
            "use sets to say more in one rule",
        );
    }
    // Rules are unfolded only when names and sets hold.
    if reading.sets_are_sound && !circles && config.rules.len() <= MAX_RULES {
        check_rules(reading, walk);
    }
}

/// Ports by name; of two with one name (which is reported) the first.
fn by_name(config: &Config) -> HashMap<&str, usize> {
    let mut places = HashMap::new();
    for (place, port) in config.ports.iter().enumerate() {
        places.entry(port.name.as_str()).or_insert(place);
    }
    places
}

fn check_peers(reading: &Reading<'_>, walk: &mut Walk<'_>) {
    let ports = &reading.config.ports;
    let places = by_name(&reading.config);
    for (port, section) in ports.iter().zip(&reading.ports) {
        // A missing or unknown name is reported where it was read.
        let Some(&peer_place) = places.get(port.peer.as_str()).filter(|_| !port.name.is_empty()) else {
            continue;
        };
        let (peer, peer_section) = (&ports[peer_place], &reading.ports[peer_place]);
        let span = section.span_of("peer");
        if port.name == peer.name {
            let help = "frames cross to another port: name that one";
            walk.error(span, format!("port \"{}\" is its own peer", port.name), help);
        } else if peer.peer != port.name && peer.peer != peer.name && places.contains_key(peer.peer.as_str())
        {
            walk.errors += 1;
            let message = format!(
                "\"{}\" names \"{}\" as its peer, but the peer of \"{}\" is \"{}\"",
                port.name, peer.name, peer.name, peer.peer
            );
            let finding = walk
                .report
                .error(span, message)
                .related(peer_section.span_of("peer"), "it says so here");
            finding.help(format!(
                "a pair is mutual: write `peer = \"{}\"` there",
                port.name
            ));
        } else if peer.mtu != port.mtu && port.name < peer.name {
            let (smaller, larger) = if port.mtu < peer.mtu {
                (port, peer)
            } else {
                (peer, port)
            };
            let message = format!(
                "the MTU of \"{}\" is {}, that of its peer \"{}\" is {}",
                smaller.name, smaller.mtu, larger.name, larger.mtu
            );
            let finding = walk.report.warning(section.span_of("mtu"), message);
            finding.help(format!(
                "larger packets cannot leave by \"{}\" and are dropped",
                smaller.name
            ));
        }
    }
}

fn check_devices(reading: &Reading<'_>, walk: &mut Walk<'_>) {
    let mut used: BTreeMap<String, (&Port, Span)> = BTreeMap::new();
    for (port, span) in reading.config.ports.iter().zip(&reading.devices) {
        let Some(span) = *span else { continue };
        let device = &port.device;
        if *device == Device::Virtual(String::new()) {
            continue;
        }
        let interface = device.kernel_interface().map(|name| format!("interface {name}"));
        let name = device.eal_name().to_owned();
        // Two virtual devices of one name, or two of different drivers on one interface, are one device as well.
        for key in [Some(name), interface].into_iter().flatten() {
            match used.get(&key) {
                None => {
                    used.insert(key, (port, span));
                }
                Some((other, first)) => {
                    walk.errors += 1;
                    walk.report
                        .error(
                            span,
                            format!(
                                "ports \"{}\" and \"{}\" use the same device ({key})",
                                other.name, port.name
                            ),
                        )
                        .related(*first, "used here before")
                        .help("give each port a device of its own");
                    break;
                }
            }
        }
    }
}

fn check_queues(reading: &Reading<'_>, walk: &mut Walk<'_>) {
    let node = &reading.config.node;
    let places = by_name(&reading.config);
    for (port, section) in reading.config.ports.iter().zip(&reading.ports) {
        let workers = node.workers.0.len();
        if let RxQueues::Count(queues) = port.rx_queues {
            if usize::from(queues) > workers {
                walk.error(
                    section.span_of("rx_queues"),
                    format!("{queues} receive queues, but {workers} worker to poll them"),
                    "a worker polls one queue of each port: write `rx_queues = \"auto\"`",
                );
            }
        }
        // Packets of this port fill its receive ring, then its peer's transmit ring.
        let Some(peer) = places
            .get(port.peer.as_str())
            .map(|place| &reading.config.ports[*place])
        else {
            continue;
        };
        let needed = u32::from(port.rx_descriptors) + u32::from(peer.tx_descriptors) + u32::from(node.burst);
        if node.packet_buffers <= needed {
            walk.error(
                reading.node.span_of("packet_buffers"),
                format!(
                    "{} packet buffers cannot fill the rings of port \"{}\"",
                    node.packet_buffers, port.name
                ),
                format!(
                    "write `packet_buffers = {}` or more, or give the ports fewer descriptors",
                    2 * needed
                ),
            );
            // Once for the node: one number has to be changed.
            break;
        }
    }
}

/// Reports sets that contain themselves.
fn set_circles(reading: &Reading<'_>, walk: &mut Walk<'_>) -> bool {
    let config = &reading.config;
    let addresses = config.address_sets.iter().map(|(name, members)| {
        let sets = members.iter().filter_map(|member| match member {
            AddressRef::Set(name) => Some(name.as_str()),
            AddressRef::Prefix(_) => None,
        });
        (name.as_str(), sets.collect())
    });
    let services = config.service_sets.iter().map(|(name, members)| {
        let sets = members.iter().filter_map(|member| match member {
            ServiceRef::Set(name) => Some(name.as_str()),
            ServiceRef::Service(_) => None,
        });
        (name.as_str(), sets.collect())
    });
    let mut found = false;
    let kinds: [(&str, Graph<'_>, _); 2] = [
        ("address", addresses.collect(), &reading.names.address_sets),
        ("service", services.collect(), &reading.names.service_sets),
    ];
    for (kind, graph, spans) in kinds {
        for circle in circles(&graph) {
            found = true;
            if let Some(span) = spans.get(circle[0]) {
                let path = circle
                    .iter()
                    .map(|name| format!("@{name}"))
                    .collect::<Vec<_>>()
                    .join(" > ");
                walk.error(
                    *span,
                    format!(
                        "{kind} set \"{}\" contains itself: {path} > @{}",
                        circle[0], circle[0]
                    ),
                    "take one of them out of the other",
                );
            }
        }
    }
    found
}

/// Sets with the sets that they name.
type Graph<'c> = BTreeMap<&'c str, Vec<&'c str>>;

/// The circles that a walk from every set meets, each once, from its first member on.
fn circles<'c>(graph: &Graph<'c>) -> Vec<Vec<&'c str>> {
    let mut done = BTreeMap::new();
    let mut found = Vec::new();
    for start in graph.keys().copied() {
        // An explicit stack: the depth is what the file says. (set, its next member to look at)
        let mut path: Vec<(&str, usize)> = Vec::new();
        if !done.contains_key(start) {
            done.insert(start, false);
            path.push((start, 0));
        }
        while let Some((name, next)) = path.last_mut() {
            let Some(member) = graph.get(name).and_then(|members| members.get(*next)).copied() else {
                done.insert(name, true);
                path.pop();
                continue;
            };
            *next += 1;
            match done.get(member) {
                Some(true) => {}
                Some(false) => {
                    let from = path.iter().position(|(name, _)| *name == member).unwrap_or(0);
                    found.push(path[from..].iter().map(|(name, _)| *name).collect());
                }
                None => {
                    done.insert(member, false);
                    path.push((member, 0));
                }
            }
        }
    }
    found
}

fn check_rules(reading: &Reading<'_>, walk: &mut Walk<'_>) {
    let config = &reading.config;
    let zones = zone_names(config);
    let joined = joined_zones(config);
    let mut earlier: Vec<(usize, NormalRule)> = Vec::new();
    for (place, (rule, section)) in config.rules.iter().zip(&reading.rules).enumerate() {
        let Some(section) = section else { continue };
        let Ok(spec) = rule_spec(config, &zones, rule) else {
            continue;
        };
        if !check_source_ports(rule, &spec, section, walk) {
            continue;
        }
        let normal = NormalRule::new(&spec);
        if !normal.can_match() {
            report_impossible(&spec, section, walk);
            continue;
        }
        warn_unjoined(&joined, rule, section, walk);
        warn_without_effect(rule, &spec, section, walk);
        if rule.defer && rule.action == Action::Allow && config.ha.is_none() {
            let message = format!("rule \"{}\" waits for no peer: there is no `[ha]`", rule.name);
            walk.report
                .warning(section.span_of("defer"), message)
                .help("remove `defer`");
        }
        if !rule.enabled {
            continue;
        }
        if let Some((by, _)) = earlier.iter().find(|(_, before)| before.covers(&normal)) {
            let message = format!(
                "rule \"{}\" can never match: \"{}\" covers it entirely",
                rule.name, config.rules[*by].name
            );
            let finding = walk
                .report
                .warning(section.span_of("name"), message)
                .help("move it up, or remove it");
            if let Some(before) = &reading.rules[*by] {
                finding.related(before.span_of("name"), "the earlier rule is here");
            }
            continue;
        }
        earlier.push((place, normal));
    }
}

/// Keys that a rule of its kind does nothing with: whoever wrote them believes in something that is not there.
fn warn_without_effect(rule: &Rule, spec: &RuleSpec, section: &Section<'_>, walk: &mut Walk<'_>) {
    let of_tcp = [
        ("pickup", rule.pickup == Some(true)),
        ("reset_on_timeout", rule.reset_on_timeout == Some(true)),
        ("tcp_strict", rule.tcp_strict == Some(false)),
        ("syn_protection", rule.syn_protection != SynProtection::Off),
        ("syn_options", section.has("syn_options")),
    ];
    let of_sessions = [
        ("timeouts", rule.timeouts != TimeoutOverrides::default()),
        ("max_sessions", rule.max_sessions.is_some()),
        ("max_sessions_per_source", rule.max_sessions_per_source.is_some()),
        ("new_sessions_per_source", rule.new_sessions_per_source.is_some()),
        ("defer", rule.defer),
    ];
    let speaks_tcp = spec.service.as_ref().is_none_or(|services| {
        services
            .iter()
            .any(|service| matches!(service, ServiceSpec::Tcp(..) | ServiceSpec::Protocol(TCP)))
    });
    let mut warn = |key: &str, why: &str| {
        walk.report
            .warning(section.span_of(key), format!("rule \"{}\" {why}", rule.name))
            .help(format!("remove `{key}`"));
    };
    if rule.action != Action::Allow {
        for (key, _) in of_sessions.iter().chain(&of_tcp).filter(|(_, is_set)| *is_set) {
            warn(key, &format!("makes no sessions: `{key}` has no effect"));
        }
        return;
    }
    if !speaks_tcp {
        for (key, _) in of_tcp.iter().filter(|(_, is_set)| *is_set) {
            warn(key, &format!("allows no TCP: `{key}` has no effect"));
        }
    } else if section.has("syn_options") && rule.syn_protection == SynProtection::Off {
        warn(
            "syn_options",
            "answers no SYNs itself (`syn_protection` is \"off\"): `syn_options` has no effect",
        );
    }
    if let (Some(all), Some(each)) = (rule.max_sessions, rule.max_sessions_per_source) {
        if each > all {
            let why =
                format!("has at most {all} sessions: `max_sessions_per_source` ({each}) is never reached");
            warn("max_sessions_per_source", &why);
        }
    }
}

/// `source_ports` goes with TCP and UDP services alone.
fn check_source_ports(rule: &Rule, spec: &RuleSpec, section: &Section<'_>, walk: &mut Walk<'_>) -> bool {
    if rule.source_ports == Matcher::Any {
        return true;
    }
    let services = spec.service.as_deref().unwrap_or_default();
    let with_ports = |service: &ServiceSpec| match service {
        ServiceSpec::Tcp(..) | ServiceSpec::Udp(..) => true,
        ServiceSpec::Protocol(number) => [TCP, UDP].contains(number),
        ServiceSpec::Icmp(_) | ServiceSpec::Icmpv6(_) => false,
    };
    if !services.is_empty() && services.iter().all(with_ports) {
        return true;
    }
    walk.error(
        section.span_of("source_ports"),
        format!(
            "rule \"{}\" asks for source ports of services that have none",
            rule.name
        ),
        "only TCP and UDP have ports: write `service = [\"tcp\", \"udp\"]`, or the ones that are meant",
    );
    false
}

/// Says why no packet can match.
fn report_impossible(spec: &RuleSpec, section: &Section<'_>, walk: &mut Walk<'_>) {
    let only = |nets: &Option<Vec<ipnet::IpNet>>, v4: bool| {
        nets.as_ref()
            .is_some_and(|nets| nets.iter().all(|net| matches!(net, ipnet::IpNet::V4(_)) == v4))
    };
    let families = [(&spec.source, "source"), (&spec.destination, "destination")];
    let (key, message) = if only(&spec.source, true) && only(&spec.destination, false) {
        (
            "destination",
            "the sources are IPv4 and the destinations IPv6".to_owned(),
        )
    } else if only(&spec.source, false) && only(&spec.destination, true) {
        (
            "destination",
            "the sources are IPv6 and the destinations IPv4".to_owned(),
        )
    } else {
        let addresses = families.into_iter().find_map(|(nets, key)| {
            [(true, "IPv4"), (false, "IPv6")]
                .into_iter()
                .find(|(v4, _)| only(nets, *v4))
                .map(|(_, f)| (f, key))
        });
        let (family, key) = addresses.unwrap_or(("of both families", "source"));
        (
            "service",
            format!("the {key} addresses are {family}, the services are not"),
        )
    };
    walk.error(
        section.span_of(key),
        format!("this rule can never match: {message}"),
        "ICMP is for IPv4 and ICMPv6 for IPv6; write a rule for each address family",
    );
}

/// The zones that a first packet can come from and go to: in transparent mode those of a port and of its peer.
fn joined_zones(config: &Config) -> BTreeSet<(&String, &String)> {
    let places = by_name(config);
    let peer = |port: &Port| {
        places
            .get(port.peer.as_str())
            .map(|place| &config.ports[*place].zone)
    };
    config
        .ports
        .iter()
        .filter_map(|port| Some((&port.zone, peer(port)?)))
        .collect()
}

fn warn_unjoined(
    joined: &BTreeSet<(&String, &String)>,
    rule: &Rule,
    section: &Section<'_>,
    walk: &mut Walk<'_>,
) {
    let admits = |matcher: &Matcher<String>, zone: &String| match matcher {
        Matcher::Any => true,
        Matcher::OneOf(zones) => zones.contains(zone),
    };
    if joined.is_empty()
        || joined
            .iter()
            .any(|(from, to)| admits(&rule.from, from) && admits(&rule.to, to))
    {
        return;
    }
    let message = format!(
        "rule \"{}\" can never match: no pair of ports joins these zones",
        rule.name
    );
    let key = if rule.to == Matcher::Any { "from" } else { "to" };
    walk.report
        .warning(section.span_of(key), message)
        .help("`from` is the zone of the port that the first packet comes in by, `to` that of its peer");
}
