//! From the merged tree to the value: the grammar, section by section. What fails is reported and read as its default, so
//! that one run finds everything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::check::check;
use super::defaults;
use super::names::{Names, check_name};
use super::net::{AddressRef, CpuList, Device, ServiceRef};
use super::report::Report;
use super::section::{Section, Walk, expect_string, parse, strings};
use super::tree::{Span, Table, Value};
use super::value::{
    Config, Conntrack, Idle, Matcher, Mode, Node, PolicySection, Port, Rule, RxQueues, TimeoutOverrides,
    Timeouts, Transparent, Zone,
};
use crate::policy::{Action, PassOrDrop, SessionScope, VlanMode};

/// What reading found out beside the value, for the checks that follow.
pub(super) struct Reading<'t> {
    pub(super) config: Config,
    /// By place in `config.ports`.
    pub(super) ports: Vec<Section<'t>>,
    /// By place in `config.ports`: where its device stands.
    pub(super) devices: Vec<Option<Span>>,
    /// By place in `config.rules`; `None`: it has errors of its own.
    pub(super) rules: Vec<Option<Section<'t>>>,
    /// By place in `config.zones`.
    pub(super) zones: Vec<Section<'t>>,
    pub(super) node: Section<'t>,
    pub(super) names: Names,
    /// Both kinds of sets were read without error.
    pub(super) sets_are_sound: bool,
}

/// Reads the tree and checks the value that comes of it. With errors in the report the value is not to be used.
pub(super) fn read_config(root: &Table, report: &mut Report) -> Config {
    let mut walk = Walk {
        report,
        grammar: BTreeMap::new(),
        errors: 0,
    };
    read(root, &mut walk)
}

/// Like [`read_config`], keeping the record of the keys.
pub(super) fn read(root: &Table, walk: &mut Walk<'_>) -> Config {
    let names = Names::gather(root, walk.report);
    let mut section = Section::root(root);
    section.refuse(NOT_YET, walk);
    let version = read_version(&mut section, walk);
    let (node, node_section) = read_node(&mut section, walk);
    let devices = read_devices(&mut section, &names, walk);
    let mut ports = Vec::new();
    let mut port_sections = Vec::new();
    let mut device_spans = Vec::new();
    let sections = section.sections("port", walk);
    let no_ports = section
        .entry("port")
        .is_none_or(|entry| matches!(entry.item.value, Value::Array(_)));
    if sections.is_empty() && no_ports {
        let help = "add two `[[port]]` with `name`, `device`, `zone` and `peer`";
        walk.errors += 1;
        walk.report
            .missing(section.span_of("port"), "there is no `[[port]]`", help);
    }
    for mut section in sections {
        let (port, device) = read_port(&mut section, &devices, &names, walk);
        ports.push(port);
        device_spans.push(device);
        port_sections.push(section);
    }
    let transparent = read_transparent(&mut section, walk);
    let (zones, zone_sections) = read_zones(&mut section, walk);
    let errors_before_sets = walk.errors;
    let address_sets = read_sets(
        section.section("address_sets", walk),
        "address set",
        walk,
        |text, span, walk| address(text, span, &names, walk),
    );
    let service_sets = read_sets(
        section.section("service_sets", walk),
        "service set",
        walk,
        |text, span, walk| service(text, span, &names, walk),
    );
    let sets_are_sound = walk.errors == errors_before_sets;
    let mut rules = Vec::new();
    let mut rule_sections = Vec::new();
    for mut section in section.sections("rule", walk) {
        let errors_before = walk.errors;
        rules.push(read_rule(&mut section, &names, walk));
        rule_sections.push((walk.errors == errors_before).then_some(section));
    }
    let config = Config {
        version,
        node,
        ports,
        transparent,
        zones,
        address_sets,
        service_sets,
        rules,
        policy: read_policy(&mut section, walk),
        conntrack: read_conntrack(&mut section, walk),
    };
    section.finish(walk);
    let reading = Reading {
        config,
        ports: port_sections,
        devices: device_spans,
        rules: rule_sections,
        zones: zone_sections,
        node: node_section,
        names,
        sets_are_sound,
    };
    check(&reading, walk);
    reading.config
}

/// Sections whose features come later.
const NOT_YET: &[(&str, &str)] = &[
    ("stateless", "the stateless stage"),
    ("route", "routed mode"),
    ("nat", "address translation"),
    ("virtual_server", "load balancing"),
    ("log", "session and alert logging"),
    ("metrics", "the metrics endpoint"),
    ("ha", "high availability"),
];

fn read_version(root: &mut Section<'_>, walk: &mut Walk<'_>) -> u32 {
    // A file that is included needs none; `include` itself was taken out when the files were merged.
    root.entry("include");
    match root.entry("version") {
        None => root.missing("version", "1", walk),
        Some(entry) if matches!(entry.item.value, Value::Integer(Some(1))) => {}
        Some(entry) => walk.error(
            entry.item.span,
            "this version of haechi reads configurations of version 1",
            "write `version = 1`",
        ),
    }
    1
}

fn read_node<'t>(root: &mut Section<'t>, walk: &mut Walk<'_>) -> (Node, Section<'t>) {
    let mut section = root.section("node", walk);
    let s = &mut section;
    let name = match s.string("name", walk) {
        Some((name, span)) => {
            check_name("node", name, span, walk);
            name.to_owned()
        }
        None => defaults::name(),
    };
    match s.entry("mode") {
        None => s.missing("mode", "\"transparent\"", walk),
        Some(entry) if matches!(&entry.item.value, Value::String(mode) if mode == "routed") => walk.error(
            entry.item.span,
            "`node.mode` \"routed\" is not supported yet",
            "routed mode comes with a later version; write `mode = \"transparent\"`",
        ),
        Some(_) => {
            s.choice("mode", &[("transparent", Mode::Transparent)], walk);
        }
    }
    let workers: CpuList = s.text("workers", walk).unwrap_or_else(defaults::workers);
    if workers.0.len() > 1 {
        walk.error(
            s.span_of("workers"),
            "more than one worker is not supported yet",
            format!(
                "several workers come with a later version; write `workers = \"{}\"`",
                workers.0[0]
            ),
        );
    }
    let idle = s.choice(
        "idle",
        &[("adaptive", Idle::Adaptive), ("poll", Idle::Poll)],
        walk,
    );
    let node = Node {
        name,
        mode: Mode::Transparent,
        workers,
        idle: idle.unwrap_or_default(),
        hugepages: s.boolean("hugepages", walk).unwrap_or_else(defaults::yes),
        memory_mib: s
            .integer("memory_mib", 64..=1_048_576, walk)
            .unwrap_or_else(defaults::memory_mib),
        packet_buffers: s
            .integer("packet_buffers", 512..=16_777_215, walk)
            .unwrap_or_else(defaults::packet_buffers),
        burst: s.integer("burst", 1..=64, walk).unwrap_or_else(defaults::burst),
        eal_args: read_eal_args(s, walk),
        control_socket: read_socket(s, walk),
    };
    section.finish(walk);
    (node, section)
}

fn read_eal_args(section: &mut Section<'_>, walk: &mut Walk<'_>) -> Vec<String> {
    let Some(entry) = section.entry("eal_args") else {
        return Vec::new();
    };
    if !matches!(entry.item.value, Value::Array(_)) {
        let message = format!(
            "`node.eal_args`: expected an array of strings, found {}",
            entry.item.value.kind()
        );
        walk.error(entry.item.span, message, "write `eal_args = [\"--log-level=8\"]`");
        return Vec::new();
    }
    strings(&entry.item, "node.eal_args", walk)
        .into_iter()
        .map(|(text, _)| text.to_owned())
        .collect()
}

/// A Unix socket's path has this many bytes at most (`sun_path` of unix(7), with its final zero).
const MAX_SOCKET_PATH: usize = 107;

fn read_socket(section: &mut Section<'_>, walk: &mut Walk<'_>) -> PathBuf {
    let Some((text, span)) = section.string("control_socket", walk) else {
        return defaults::control_socket();
    };
    let directory = walk
        .report
        .path(span.file)
        .parent()
        .unwrap_or(Path::new(""))
        .to_owned();
    let path = directory.join(text);
    if text.is_empty() || text.contains('\0') {
        walk.error(
            span,
            "`node.control_socket` is not a path",
            "write a path like \"/run/haechi/haechi.sock\"",
        );
    } else if path.as_os_str().len() > MAX_SOCKET_PATH {
        walk.error(
            span,
            format!("the path of `node.control_socket` is longer than {MAX_SOCKET_PATH} bytes"),
            "a Unix socket's path cannot be longer: write a shorter one",
        );
    }
    path
}

/// Devices by port name, with the place of the device.
type Devices = BTreeMap<String, (Option<Device>, Span)>;

fn read_devices(root: &mut Section<'_>, names: &Names, walk: &mut Walk<'_>) -> Devices {
    let section = root.section("devices", walk);
    let mut devices = Devices::new();
    for (port, entry) in section.entries() {
        if !names.ports.contains_key(port) {
            walk.errors += 1;
            walk.report
                .unknown(
                    entry.key,
                    format!("a device for a port \"{port}\" that does not exist"),
                )
                .help_nearest(port, names.ports.keys().map(String::as_str), "the ports are");
        }
        let device = expect_string(&entry.item, &format!("devices.{port}"), walk)
            .and_then(|text| parse(text, entry.item.span, walk));
        devices.insert(port.clone(), (device, entry.item.span));
    }
    devices
}

fn read_port(
    section: &mut Section<'_>,
    devices: &Devices,
    names: &Names,
    walk: &mut Walk<'_>,
) -> (Port, Option<Span>) {
    let s = section;
    s.refuse(
        &[
            ("addresses", "routed mode"),
            ("kernel_interface", "traffic for this host"),
        ],
        walk,
    );
    let name = read_name(s, "port", "\"wan\"", walk);
    let (device, device_span) = read_device(s, &name, devices, walk);
    let zone = match s.string("zone", walk) {
        Some((zone, span)) => {
            check_name("zone", zone, span, walk);
            zone.to_owned()
        }
        None => {
            if s.entry("zone").is_none() {
                s.missing("zone", "\"untrust\"", walk);
            }
            String::new()
        }
    };
    let peer = match s.string("peer", walk) {
        Some((peer, span)) => {
            if !names.ports.contains_key(peer) {
                walk.errors += 1;
                walk.report
                    .unknown(span, format!("there is no port \"{peer}\""))
                    .help_nearest(peer, names.ports.keys().map(String::as_str), "the ports are");
            }
            peer.to_owned()
        }
        None => {
            if s.entry("peer").is_none() {
                s.missing("peer", "\"lan\"", walk);
            }
            String::new()
        }
    };
    let port = Port {
        name,
        device: device.unwrap_or(Device::Virtual(String::new())),
        zone,
        peer,
        mtu: s.integer("mtu", 576..=9000, walk).unwrap_or_else(defaults::mtu),
        rx_queues: read_rx_queues(s, walk),
        rx_descriptors: s
            .integer("rx_descriptors", 32..=32_768, walk)
            .unwrap_or_else(defaults::descriptors),
        tx_descriptors: s
            .integer("tx_descriptors", 32..=32_768, walk)
            .unwrap_or_else(defaults::descriptors),
    };
    s.finish(walk);
    (port, device_span)
}

fn read_device(
    section: &mut Section<'_>,
    port: &str,
    devices: &Devices,
    walk: &mut Walk<'_>,
) -> (Option<Device>, Option<Span>) {
    let own = section.entry("device").map(|entry| entry.item.span);
    let device = section.text("device", walk);
    match (own, devices.get(port)) {
        (Some(own), Some((_, other))) => {
            walk.errors += 1;
            walk.report
                .error(own, format!("port \"{port}\" has two devices"))
                .related(*other, "the other one is here")
                .help("keep one of them");
            (device, Some(own))
        }
        (Some(own), None) => (device, Some(own)),
        (None, Some((device, span))) => (device.clone(), Some(*span)),
        (None, None) => {
            walk.errors += 1;
            let help = format!("add `device = \"0000:3b:00.0\"` here, or `{port} = ...` in `[devices]`");
            walk.report
                .missing(section.span, format!("port \"{port}\" has no device"), help);
            (None, None)
        }
    }
}

fn read_rx_queues(section: &mut Section<'_>, walk: &mut Walk<'_>) -> RxQueues {
    match section.entry("rx_queues").map(|entry| &entry.item) {
        None => RxQueues::Auto,
        Some(item) if matches!(&item.value, Value::String(text) if text == "auto") => RxQueues::Auto,
        Some(item) => match item.value {
            Value::Integer(Some(count @ 1..=1024)) => RxQueues::Count(count as u16),
            _ => {
                walk.error(
                    item.span,
                    "`port.rx_queues` is \"auto\" or a number from 1 to 1024",
                    "write `rx_queues = \"auto\"`",
                );
                RxQueues::Auto
            }
        },
    }
}

/// The `name` of a port, zone or rule.
fn read_name(section: &mut Section<'_>, kind: &str, example: &str, walk: &mut Walk<'_>) -> String {
    match section.string("name", walk) {
        Some((name, span)) => {
            check_name(kind, name, span, walk);
            name.to_owned()
        }
        None => {
            if section.entry("name").is_none() {
                section.missing("name", example, walk);
            }
            String::new()
        }
    }
}

fn read_transparent(root: &mut Section<'_>, walk: &mut Walk<'_>) -> Transparent {
    let mut s = root.section("transparent", walk);
    let default = Transparent::default();
    let non_ip = [("drop", PassOrDrop::Drop), ("pass", PassOrDrop::Pass)];
    let vlan = [
        ("inspect", VlanMode::Inspect),
        ("drop", VlanMode::Drop),
        ("pass", VlanMode::Pass),
    ];
    let scope = [
        ("pair-vlan", SessionScope::PairVlan),
        ("pair", SessionScope::Pair),
        ("node", SessionScope::Node),
    ];
    let transparent = Transparent {
        non_ip: s.choice("non_ip", &non_ip, walk).unwrap_or(default.non_ip),
        vlan: s.choice("vlan", &vlan, walk).unwrap_or(default.vlan),
        link_propagation: s
            .boolean("link_propagation", walk)
            .unwrap_or(default.link_propagation),
        session_scope: s
            .choice("session_scope", &scope, walk)
            .unwrap_or(default.session_scope),
    };
    s.finish(walk);
    transparent
}

fn read_zones<'t>(root: &mut Section<'t>, walk: &mut Walk<'_>) -> (Vec<Zone>, Vec<Section<'t>>) {
    let mut zones = Vec::new();
    let mut sections = root.sections("zone", walk);
    for s in &mut sections {
        let antispoof = "anti-spoofing";
        let keys = [
            ("networks", antispoof),
            ("antispoof", antispoof),
            ("reserve", "the reserve of a zone"),
        ];
        s.refuse(&keys, walk);
        zones.push(Zone {
            name: read_name(s, "zone", "\"trust\"", walk),
        });
        s.finish(walk);
    }
    (zones, sections)
}

fn read_sets<'t, T>(
    section: Section<'t>,
    kind: &str,
    walk: &mut Walk<'_>,
    mut member: impl FnMut(&'t str, Span, &mut Walk<'_>) -> Option<T>,
) -> BTreeMap<String, Vec<T>> {
    let mut sets = BTreeMap::new();
    for (name, entry) in section.entries() {
        check_name(kind, name, entry.key, walk);
        if matches!(&entry.item.value, Value::Array(items) if items.is_empty()) {
            walk.error(
                entry.item.span,
                format!("{kind} \"{name}\" is empty"),
                "add a member, or remove the set",
            );
        }
        let path = super::tree::join(&section.path, name);
        if !matches!(entry.item.value, Value::Array(_)) {
            let message = format!("`{path}`: expected an array, found {}", entry.item.value.kind());
            walk.error(
                entry.item.span,
                message,
                "a set is a list: write its members in brackets",
            );
            continue;
        }
        let mut members = Vec::new();
        for (text, span) in strings(&entry.item, &path, walk) {
            if text == "any" {
                walk.error(
                    span,
                    format!("\"any\" in {kind} \"{name}\""),
                    "a rule without the key matches any",
                );
            } else {
                members.extend(member(text, span, walk));
            }
        }
        sets.insert(name.clone(), members);
    }
    sets
}

fn address(text: &str, span: Span, names: &Names, walk: &mut Walk<'_>) -> Option<AddressRef> {
    let member = parse(text, span, walk)?;
    if let AddressRef::Set(name) = &member {
        check_set(
            name,
            span,
            ("address", &names.address_sets),
            ("service", &names.service_sets),
            walk,
        );
    }
    Some(member)
}

fn service(text: &str, span: Span, names: &Names, walk: &mut Walk<'_>) -> Option<ServiceRef> {
    let member = parse(text, span, walk)?;
    if let ServiceRef::Set(name) = &member {
        check_set(
            name,
            span,
            ("service", &names.service_sets),
            ("address", &names.address_sets),
            walk,
        );
    }
    Some(member)
}

type Sets<'n> = (&'static str, &'n BTreeMap<String, Span>);

fn check_set(name: &str, span: Span, (kind, sets): Sets<'_>, (other, others): Sets<'_>, walk: &mut Walk<'_>) {
    if sets.contains_key(name) {
        return;
    }
    walk.errors += 1;
    let finding = walk
        .report
        .unknown(span, format!("there is no {kind} set \"{name}\""));
    match others.get(name) {
        Some(place) => {
            let help = format!("define it in `[{kind}_sets]`");
            finding
                .related(*place, &format!("the {other} set of this name is here"))
                .help(help)
        }
        None => finding.help_nearest(
            name,
            sets.keys().map(String::as_str),
            &format!("the {kind} sets are"),
        ),
    };
}

fn read_rule(section: &mut Section<'_>, names: &Names, walk: &mut Walk<'_>) -> Rule {
    let s = section;
    s.refuse(RULE_NOT_YET, walk);
    let actions = [
        ("allow", Action::Allow),
        ("drop", Action::Drop),
        ("reject", Action::Reject),
    ];
    if s.entry("action").is_none() {
        s.missing("action", "\"allow\"", walk);
    }
    let rule = Rule {
        name: read_name(s, "rule", "\"web\"", walk),
        from: zones(s, "from", names, walk),
        to: zones(s, "to", names, walk),
        source: s.matcher("source", walk, |text, span, walk| {
            address(text, span, names, walk)
        }),
        destination: s.matcher("destination", walk, |text, span, walk| {
            address(text, span, names, walk)
        }),
        service: s.matcher("service", walk, |text, span, walk| {
            service(text, span, names, walk)
        }),
        source_ports: s.matcher("source_ports", walk, parse),
        action: s.choice("action", &actions, walk).unwrap_or(Action::Drop),
        timeouts: read_overrides(s, walk),
        enabled: s.boolean("enabled", walk).unwrap_or_else(defaults::yes),
        description: s.string("description", walk).map(|(text, _)| text.to_owned()),
    };
    s.finish(walk);
    rule
}

/// Keys of a rule whose features come later.
const RULE_NOT_YET: &[(&str, &str)] = &[
    ("log", "session and alert logging"),
    ("helper", "application-level gateways"),
    ("reset_on_timeout", "the reset of timed-out sessions"),
    ("pickup", "pick-up in mid-stream"),
    ("tcp_strict", "window checks"),
    ("max_sessions", "the limits of a rule"),
    ("max_sessions_per_source", "the limits of a rule"),
    ("new_sessions_per_source", "the limits of a rule"),
    ("syn_protection", "SYN protection"),
    ("defer", "high availability"),
];

fn zones(
    section: &mut Section<'_>,
    key: &'static str,
    names: &Names,
    walk: &mut Walk<'_>,
) -> Matcher<String> {
    section.matcher(key, walk, |text, span, walk| {
        if !names.zones.contains_key(text) {
            walk.errors += 1;
            let zones = names.zones.keys().map(String::as_str);
            let finding = walk.report.unknown(span, format!("there is no zone \"{text}\""));
            if names.ports.contains_key(text) {
                finding.help("this is a port: rules speak of the ports' zones");
            } else {
                finding.help_nearest(text, zones, "the zones are");
            }
        }
        Some(text.to_owned())
    })
}

fn read_overrides(section: &mut Section<'_>, walk: &mut Walk<'_>) -> TimeoutOverrides {
    let mut overrides = TimeoutOverrides::default();
    let mut s = section.section("timeouts", walk);
    for key in Timeouts::KEYS {
        let value = s.text(key, walk);
        if let Some(field) = overrides.get_mut(key) {
            *field = value;
        }
    }
    s.finish(walk);
    overrides
}

fn read_policy(root: &mut Section<'_>, walk: &mut Walk<'_>) -> PolicySection {
    let mut s = root.section("policy", walk);
    s.refuse(&[("alert_rate", "session and alert logging")], walk);
    let default = PolicySection::default();
    let policy = PolicySection {
        reject_rate: s.text("reject_rate", walk).unwrap_or(default.reject_rate),
    };
    s.finish(walk);
    policy
}

/// Keys of `[conntrack]` whose features come later.
const CONNTRACK_NOT_YET: &[(&str, &str)] = &[
    ("adaptive_start", "the shrinking of timeouts under load"),
    ("adaptive_end", "the shrinking of timeouts under load"),
    ("syn_cookie_start", "SYN protection"),
    ("syn_cookie_stop", "SYN protection"),
    ("tcp_strict", "window checks"),
    ("pickup", "pick-up in mid-stream"),
    ("reset_on_timeout", "the reset of timed-out sessions"),
    ("fragments", "fragment tracking"),
];

fn read_conntrack(root: &mut Section<'_>, walk: &mut Walk<'_>) -> Conntrack {
    let mut s = root.section("conntrack", walk);
    s.refuse(CONNTRACK_NOT_YET, walk);
    let default = Conntrack::default();
    let mut conntrack = Conntrack {
        max_sessions: s
            .integer("max_sessions", 64..=268_435_456, walk)
            .unwrap_or(default.max_sessions),
        verify_checksums: s
            .boolean("verify_checksums", walk)
            .unwrap_or(default.verify_checksums),
        timeouts: Timeouts::default(),
    };
    let mut timeouts = s.section("timeouts", walk);
    for key in Timeouts::KEYS {
        let value = timeouts.text(key, walk);
        if let (Some(field), Some(value)) = (conntrack.timeouts.get_mut(key), value) {
            *field = value;
        }
    }
    timeouts.finish(walk);
    s.finish(walk);
    conntrack
}
