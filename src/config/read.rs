//! From the merged tree to the value: the grammar, section by section. What fails is reported and read as its default, so
//! that one run finds everything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::check::check;
use super::defaults;
use super::listen::read_metrics;
use super::names::{Names, check_name};
use super::net::{CpuList, Device};
use super::read_ha::{HaSections, read_ha};
use super::read_log::read_log;
use super::read_rules::{address, read_conntrack, read_policy, read_rule, read_sets, service};
use super::report::Report;
use super::section::{Section, Walk, expect_string, parse, strings};
use super::tree::{Span, Table, Value};
use super::value::{Config, Idle, Mode, Node, Port, Rebalance, RxQueues, Transparent, Zone};
use crate::policy::{PassOrDrop, SessionScope, VlanMode};

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
    pub(super) log: Section<'t>,
    pub(super) ha: HaSections<'t>,
    pub(super) names: Names,
    /// Both kinds of sets were read without error.
    pub(super) sets_are_sound: bool,
}

/// Reads the tree and checks the value that comes of it. With errors in the report the value is not to be used.
/// Beside it the key file that it names, and where.
pub(super) fn read_config(root: &Table, report: &mut Report) -> (Config, Option<(PathBuf, Span)>) {
    let mut walk = Walk::new(report);
    let config = read(root, &mut walk);
    (config, walk.key_file)
}

/// Like [`read_config`], keeping the record of the keys.
pub(super) fn read(root: &Table, walk: &mut Walk<'_>) -> Config {
    let names = Names::gather(root, walk.report);
    let mut section = Section::root(root);
    section.refuse(NOT_YET, walk);
    let version = read_version(&mut section, walk);
    let (node, node_section) = read_node(&mut section, walk);
    let ports = read_ports(&mut section, &names, walk);
    let transparent = read_transparent(&mut section, walk);
    let (zones, zone_sections) = read_zones(&mut section, &names, walk);
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
    let log = read_log(&mut section, walk);
    let (ha, ha_sections) = read_ha(&mut section, &names, walk);
    let config = Config {
        version,
        node,
        ports: ports.values,
        transparent,
        zones,
        address_sets,
        service_sets,
        rules,
        policy: read_policy(&mut section, walk),
        conntrack: read_conntrack(&mut section, walk),
        log: log.0,
        ha,
        metrics: read_metrics(&mut section, walk),
    };
    section.finish(walk);
    let reading = Reading {
        config,
        ports: ports.sections,
        devices: ports.devices,
        rules: rule_sections,
        zones: zone_sections,
        node: node_section,
        log: log.1,
        ha: ha_sections,
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
    let idle = s.choice(
        "idle",
        &[("adaptive", Idle::Adaptive), ("poll", Idle::Poll)],
        walk,
    );
    let rebalance = s.choice(
        "rebalance",
        &[("off", Rebalance::Off), ("auto", Rebalance::Auto)],
        walk,
    );
    let node = Node {
        name,
        mode: Mode::Transparent,
        workers,
        idle: idle.unwrap_or_default(),
        rebalance: rebalance.unwrap_or_default(),
        hugepages: s.boolean("hugepages", walk).unwrap_or_else(defaults::yes),
        memory_mib: s
            .integer("memory_mib", 64..=1_048_576, walk)
            .unwrap_or_else(defaults::memory_mib),
        packet_buffers: s
            .integer("packet_buffers", 512..=16_777_215, walk)
            .unwrap_or_else(defaults::packet_buffers),
        burst: s.integer("burst", 1..=64, walk).unwrap_or_else(defaults::burst),
        handover_queue: s
            .integer("handover_queue", 1..=65_536, walk)
            .unwrap_or_else(defaults::handover_queue),
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

/// A path as it stands in the file: a relative one is relative to that file.
pub(super) fn beside(text: &str, span: Span, walk: &Walk<'_>) -> PathBuf {
    let directory = walk.report.path(span.file).parent();
    directory.unwrap_or(Path::new("")).join(text)
}

/// A Unix socket's path has this many bytes at most (`sun_path` of unix(7), with its final zero).
const MAX_SOCKET_PATH: usize = 107;

fn read_socket(section: &mut Section<'_>, walk: &mut Walk<'_>) -> PathBuf {
    let Some((text, span)) = section.string("control_socket", walk) else {
        return defaults::control_socket();
    };
    let path = beside(text, span, walk);
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

/// The ports, and by the place of each where it and its device stand.
struct Ports<'t> {
    values: Vec<Port>,
    sections: Vec<Section<'t>>,
    devices: Vec<Option<Span>>,
}

fn read_ports<'t>(root: &mut Section<'t>, names: &Names, walk: &mut Walk<'_>) -> Ports<'t> {
    let by_name = read_devices(root, names, walk);
    let mut sections = root.sections("port", walk);
    let no_ports = root
        .entry("port")
        .is_none_or(|entry| matches!(entry.item.value, Value::Array(_)));
    if sections.is_empty() && no_ports {
        let help = "add two `[[port]]` with `name`, `device`, `zone` and `peer`";
        walk.errors += 1;
        walk.report
            .missing(root.span_of("port"), "there is no `[[port]]`", help);
    }
    let (mut values, mut devices) = (Vec::new(), Vec::new());
    for section in &mut sections {
        let (port, device) = read_port(section, &by_name, names, walk);
        values.push(port);
        devices.push(device);
    }
    Ports {
        values,
        sections,
        devices,
    }
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
    let zone = s.required("zone", "\"untrust\"", walk);
    if let Some((zone, span)) = zone {
        check_name("zone", zone, span, walk);
    }
    let peer = s.required("peer", "\"lan\"", walk);
    if let Some((peer, span)) = peer.filter(|(peer, _)| !names.ports.contains_key(*peer)) {
        walk.errors += 1;
        walk.report
            .unknown(span, format!("there is no port \"{peer}\""))
            .help_nearest(peer, names.ports.keys().map(String::as_str), "the ports are");
    }
    // What is missing is reported, and empty from here on.
    let or_empty =
        |string: Option<(&str, Span)>| string.map_or_else(String::new, |(text, _)| text.to_owned());
    let port = Port {
        name,
        device: device.unwrap_or(Device::Virtual(String::new())),
        zone: or_empty(zone),
        peer: or_empty(peer),
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
pub(super) fn read_name(section: &mut Section<'_>, kind: &str, example: &str, walk: &mut Walk<'_>) -> String {
    let Some((name, span)) = section.required("name", example, walk) else {
        return String::new();
    };
    check_name(kind, name, span, walk);
    name.to_owned()
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

fn read_zones<'t>(
    root: &mut Section<'t>,
    names: &Names,
    walk: &mut Walk<'_>,
) -> (Vec<Zone>, Vec<Section<'t>>) {
    let mut zones = Vec::new();
    let mut sections = root.sections("zone", walk);
    for s in &mut sections {
        zones.push(Zone {
            name: read_name(s, "zone", "\"trust\"", walk),
            networks: s.list("networks", walk, |text, span, walk| {
                address(text, span, names, walk)
            }),
            antispoof: s.boolean("antispoof", walk).unwrap_or(false),
            reserve: s.text("reserve", walk),
        });
        s.finish(walk);
    }
    (zones, sections)
}
