//! Checks of `[[zone]]`: ports, reserves, and networks against each other.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::compile::zone_networks;
use super::read::Reading;
use super::section::Walk;
use super::tree::Span;
use super::value::Zone;
use crate::policy::Share;

pub(super) fn check_zones(reading: &Reading<'_>, walk: &mut Walk<'_>) {
    let config = &reading.config;
    for (zone, section) in config.zones.iter().zip(&reading.zones) {
        if !zone.name.is_empty() && config.ports.iter().all(|port| port.zone != zone.name) {
            let message = format!("no port is in zone \"{}\"", zone.name);
            walk.report
                .warning(section.span_of("name"), message)
                .help("write it as the `zone` of a port");
        }
    }
    check_reserves(reading, walk);
    check_networks(reading, walk);
}

/// All reserves together are at most the whole table.
fn check_reserves(reading: &Reading<'_>, walk: &mut Walk<'_>) {
    let mut sum = Share(0);
    for (zone, section) in reading.config.zones.iter().zip(&reading.zones) {
        let Some(reserve) = zone.reserve else { continue };
        let before = sum;
        sum = Share(sum.0.saturating_add(reserve.0));
        if sum > Share::WHOLE && before <= Share::WHOLE {
            let message = match before {
                Share(0) => format!("a reserve of {reserve} is more than the whole session table"),
                _ => format!("the zones' reserves up to this one are {sum} of the session table"),
            };
            let help = "write smaller reserves: what is left over is for everybody";
            walk.error(section.span_of("reserve"), message, help);
        } else if sum == Share::WHOLE && before < sum {
            // Who has no reserve lives on what is left over.
            let has_reserve = |name: &str| {
                let mut zones = reading.config.zones.iter();
                zones.any(|zone| zone.name == name && zone.reserve.is_some_and(|share| share.0 > 0))
            };
            let mut ports = reading.config.ports.iter();
            if let Some(port) = ports.find(|port| !has_reserve(&port.zone)) {
                let message = format!(
                    "the zones' reserves are the whole session table: zone \"{}\" can open no session",
                    port.zone
                );
                let help = "write smaller reserves, or one for that zone";
                walk.report
                    .warning(section.span_of("reserve"), message)
                    .help(help);
            }
        }
    }
}

fn check_networks(reading: &Reading<'_>, walk: &mut Walk<'_>) {
    let config = &reading.config;
    let somewhere = config.zones.iter().any(|zone| !zone.networks.is_empty());
    let mut owners: BTreeMap<IpNet, (&Zone, Span)> = BTreeMap::new();
    for (zone, section) in config.zones.iter().zip(&reading.zones) {
        // What does not resolve is reported where it was read.
        let Ok(networks) = zone_networks(config, zone) else {
            continue;
        };
        let span = section.span_of("networks");
        for network in &networks {
            match owners.get(network) {
                Some((other, first)) if other.name != zone.name => {
                    walk.errors += 1;
                    let message = format!(
                        "{network} belongs behind zone \"{}\" and behind \"{}\"",
                        other.name, zone.name
                    );
                    walk.report
                        .error(span, message)
                        .related(*first, "the other zone's networks are here")
                        .help("keep it in one of them, or write more specific prefixes");
                }
                _ => {
                    owners.insert(*network, (zone, span));
                }
            }
        }
        if !zone.antispoof {
            continue;
        }
        if !somewhere {
            let message = format!(
                "zone \"{}\" has `antispoof`, but no zone has `networks`",
                zone.name
            );
            let help = "write what belongs behind a zone, like `networks = [\"10.0.0.0/8\"]`";
            walk.error(section.span_of("antispoof"), message, help);
        }
        warn_missing_family(zone, &networks, span, walk);
    }
}

/// Who lists the networks of one family only may not know that this refuses all packets of the other.
fn warn_missing_family(zone: &Zone, networks: &[IpNet], span: Span, walk: &mut Walk<'_>) {
    let has = |v4: bool| networks.iter().any(|net| matches!(net, IpNet::V4(_)) == v4);
    let missing = match (has(true), has(false)) {
        (true, false) => "IPv6",
        (false, true) => "IPv4",
        _ => return,
    };
    let message = format!(
        "zone \"{}\" lists no {missing} networks: with `antispoof` all {missing} packets from it are dropped",
        zone.name
    );
    walk.report
        .warning(span, message)
        .help(format!("add its {missing} networks, if it has any"));
}
