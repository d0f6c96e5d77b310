//! The grammar of `[ha]`, and what contradicts itself in it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use super::defaults;
use super::ha::{DeferFail, Endpoint, Ha, HaMode, Link, NOT_YET};
use super::names::Names;
use super::read::{Reading, beside};
use super::section::{Section, Walk};
use super::tree::Span;
use super::units::Rate;

/// `[ha]`, where it is, and where its two links stand.
pub(super) struct HaSections<'t> {
    pub(super) ha: Section<'t>,
    link: Section<'t>,
    second_link: Section<'t>,
}

pub(super) fn read_ha<'t>(
    root: &mut Section<'t>,
    names: &Names,
    walk: &mut Walk<'_>,
) -> (Option<Ha>, HaSections<'t>) {
    let is_there = root.has("ha");
    let mut s = root.section("ha", walk);
    s.refuse(
        &[("virtual_addresses", "routed mode, and virtual addresses with it")],
        walk,
    );
    refuse_not_yet(&mut s, walk);
    let (link, link_section) = read_link(&mut s, "link", walk);
    let (second_link, second_section) = read_link(&mut s, "second_link", walk);
    // Of a section that is not there nothing is missed.
    let (mut node_id, mut key_file) = (None, None);
    if is_there {
        if !s.has("node_id") {
            s.missing("node_id", "1", walk);
        }
        if !s.has("link") {
            let example = "{ local = \"169.254.77.1:7700\", peer = \"169.254.77.2:7700\" }";
            s.missing("link", example, walk);
        }
        if !s.has("key_file") {
            s.missing("key_file", "\"ha.key\"", walk);
        }
    }
    if let Some(id) = s.integer("node_id", 1..=2, walk) {
        node_id = Some(id);
    }
    if let Some((text, span)) = s.string("key_file", walk) {
        key_file = Some(read_key_file(text, span, walk));
    }
    let ha = Ha {
        mode: s.choice("mode", MODES, walk).unwrap_or_default(),
        node_id: node_id.unwrap_or(1),
        priority: s
            .integer("priority", 0..=255, walk)
            .unwrap_or_else(Ha::default_priority),
        preempt: s.boolean("preempt", walk).unwrap_or(false),
        preempt_delay: s
            .text("preempt_delay", walk)
            .unwrap_or_else(Ha::default_preempt_delay),
        witness: read_witness(&mut s, walk),
        data_heartbeats: s.boolean("data_heartbeats", walk).unwrap_or_else(defaults::yes),
        redirect_rate: s
            .text("redirect_rate", walk)
            .unwrap_or_else(Ha::default_redirect_rate),
        sync_rate: read_sync_rate(&mut s, walk),
        defer_timeout: s
            .text("defer_timeout", walk)
            .unwrap_or_else(Ha::default_defer_timeout),
        defer_fail: s.choice("defer_fail", DEFER_FAIL, walk).unwrap_or_default(),
        track: read_track(&mut s, names, walk),
        key_file: key_file.unwrap_or_default(),
        heartbeat: s.text("heartbeat", walk).unwrap_or_else(Ha::default_heartbeat),
        dead_after: s
            .integer("dead_after", 1..=100, walk)
            .unwrap_or_else(Ha::default_dead_after),
        alone_after: s
            .text("alone_after", walk)
            .unwrap_or_else(Ha::default_alone_after),
        adopt_kib: s
            .integer("adopt_kib", 1..=1_048_576, walk)
            .unwrap_or_else(Ha::default_adopt_kib),
        adopt_time: s.text("adopt_time", walk).unwrap_or_else(Ha::default_adopt_time),
        link: link.unwrap_or(NO_LINK),
        second_link,
    };
    s.finish(walk);
    let sections = HaSections {
        ha: s,
        link: link_section,
        second_link: second_section,
    };
    (is_there.then_some(ha), sections)
}

const MODES: &[(&str, HaMode)] = &[
    ("active-standby", HaMode::ActiveStandby),
    ("active-active", HaMode::ActiveActive),
];

const DEFER_FAIL: &[(&str, DeferFail)] = &[("open", DeferFail::Open), ("closed", DeferFail::Closed)];

/// Stands for a link that has an error, which is reported.
const NO_LINK: Link = {
    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
    let nowhere = Endpoint(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)));
    Link {
        local: nowhere,
        peer: nowhere,
    }
};

/// Refuses what the runtime does not do yet.
fn refuse_not_yet(section: &mut Section<'_>, walk: &mut Walk<'_>) {
    for (key, word, feature) in NOT_YET {
        match word {
            None => section.refuse(&[(*key, *feature)], walk),
            Some(word) => section.refuse_word(key, word, feature, walk),
        }
    }
}

fn read_link<'t>(
    ha: &mut Section<'t>,
    key: &'static str,
    walk: &mut Walk<'_>,
) -> (Option<Link>, Section<'t>) {
    let is_there = ha.has(key);
    let mut s = ha.section(key, walk);
    if is_there {
        for (end, example) in [
            ("local", "\"169.254.77.1:7700\""),
            ("peer", "\"169.254.77.2:7700\""),
        ] {
            if !s.has(end) {
                s.missing(end, example, walk);
            }
        }
    }
    let mut end = |key| {
        let endpoint: Option<Endpoint> = s.text(key, walk);
        endpoint.filter(|endpoint| check_endpoint(*endpoint, s.span_of(key), walk))
    };
    let (local, peer) = (end("local"), end("peer"));
    s.finish(walk);
    let link = local.zip(peer).map(|(local, peer)| Link { local, peer });
    (link.filter(|link| check_link(*link, &s, walk)), s)
}

/// Is it the address of one machine?
fn check_endpoint(endpoint: Endpoint, span: Span, walk: &mut Walk<'_>) -> bool {
    let address = endpoint.0.ip();
    let problem = if endpoint.0.port() == 0 {
        "port 0 is none"
    } else if address.is_unspecified() {
        "this is every address, not one"
    } else if address.is_multicast() || matches!(address, IpAddr::V4(v4) if v4.is_broadcast()) {
        "this is the address of many"
    } else {
        return true;
    };
    let help = "write one node's address and a UDP port, like \"169.254.77.1:7700\"";
    walk.error(span, format!("`{endpoint}` is no end of a link: {problem}"), help);
    false
}

fn check_link(link: Link, section: &Section<'_>, walk: &mut Walk<'_>) -> bool {
    let (local, peer) = (link.local.0, link.peer.0);
    let message = if local == peer {
        format!("both ends of `{}` are {}", section.path, link.local)
    } else if local.is_ipv4() != peer.is_ipv4() {
        format!("one end of `{}` is IPv4, the other one IPv6", section.path)
    } else {
        return true;
    };
    let help = "`local` is an address of this node, `peer` the one that the other node has there";
    walk.error(section.span_of("peer"), message, help);
    false
}

fn read_key_file(text: &str, span: Span, walk: &mut Walk<'_>) -> PathBuf {
    if text.is_empty() || text.ends_with('/') || text.contains('\0') {
        walk.error(
            span,
            "`ha.key_file` is not the path of a file",
            "write a path like \"/etc/haechi/ha.key\", and make it by `haechi ha keygen`",
        );
    }
    beside(text, span, walk)
}

fn read_witness(section: &mut Section<'_>, walk: &mut Walk<'_>) -> Option<IpAddr> {
    let (text, span) = section.string("witness", walk)?;
    let parsed = text.parse::<IpAddr>();
    let many = |address: &IpAddr| {
        address.is_unspecified()
            || address.is_multicast()
            || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
    };
    match parsed.ok().filter(|address| !many(address)) {
        Some(address) => Some(address),
        None => {
            let message = format!("`{text}` is not the address of a witness");
            walk.error(span, message, "write one address, like \"198.51.100.254\"");
            None
        }
    }
}

fn read_sync_rate(section: &mut Section<'_>, walk: &mut Walk<'_>) -> Rate {
    let rate = section.text("sync_rate", walk);
    if rate == Some(Rate(0)) {
        walk.error(
            section.span_of("sync_rate"),
            "`ha.sync_rate` is 0: the peer would never get the sessions",
            "write a rate of at least \"1/s\"",
        );
    }
    rate.unwrap_or_else(Ha::default_sync_rate)
}

fn read_track(section: &mut Section<'_>, names: &Names, walk: &mut Walk<'_>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    section.list("track", walk, |text, span, walk| {
        if !names.ports.contains_key(text) {
            walk.errors += 1;
            let ports = names.ports.keys().map(String::as_str);
            let finding = walk.report.unknown(span, format!("there is no port \"{text}\""));
            if names.zones.contains_key(text) {
                finding.help("this is a zone: name its ports");
            } else {
                finding.help_nearest(text, ports, "the ports are");
            }
        } else if !seen.insert(text) {
            let message = format!("port \"{text}\" is tracked twice");
            walk.error(span, message, "name each port once");
        }
        Some(text.to_owned())
    })
}

/// What does not go together.
pub(super) fn check_ha(reading: &Reading<'_>, walk: &mut Walk<'_>) {
    let (Some(ha), sections) = (&reading.config.ha, &reading.ha) else {
        return;
    };
    let s = &sections.ha;
    check_second_link(ha, sections, walk);
    check_witness(ha, s, walk);
    check_times(ha, s, walk);
    if s.has("preempt_delay") && !ha.preempt {
        walk.report
            .warning(
                s.span_of("preempt_delay"),
                "without `preempt = true` nothing waits for `ha.preempt_delay`",
            )
            .help("add `preempt = true`, or remove `preempt_delay`");
    }
    check_mode(ha, s, walk);
    if s.has("key_file") {
        walk.key_file = Some((ha.key_file.clone(), s.span_of("key_file")));
    }
}

/// What a pair of this mode does nothing with.
fn check_mode(ha: &Ha, section: &Section<'_>, walk: &mut Walk<'_>) {
    let without_effect: &[&str] = match ha.mode {
        HaMode::ActiveStandby => &["redirect_rate"],
        HaMode::ActiveActive => &["preempt", "preempt_delay"],
    };
    for key in without_effect.iter().filter(|key| section.has(key)) {
        let mode = match ha.mode {
            HaMode::ActiveStandby => "one node forwards at a time: none offers packets to the other",
            HaMode::ActiveActive => "both nodes forward: none takes the lead back",
        };
        walk.report
            .warning(section.span_of(key), format!("`ha.{key}` has no effect: {mode}"))
            .help(format!("remove `{key}`"));
    }
}

fn check_second_link(ha: &Ha, sections: &HaSections<'_>, walk: &mut Walk<'_>) {
    let Some(second) = ha.second_link.filter(|_| ha.link != NO_LINK) else {
        return;
    };
    let same = [
        ("local", second.local == ha.link.local),
        ("peer", second.peer == ha.link.peer),
    ];
    if let Some((end, _)) = same.into_iter().find(|(_, same)| *same) {
        walk.errors += 1;
        walk.report
            .error(
                sections.second_link.span_of(end),
                format!("`ha.second_link` and `ha.link` have the same `{end}`"),
            )
            .related(sections.link.span_of(end), "the link is here")
            .help("a second link is a way of its own: other interfaces, other addresses");
        return;
    }
    let address = second.local.0.ip();
    if address == ha.link.local.0.ip() && !address.is_loopback() {
        walk.report
            .warning(
                sections.second_link.span_of("local"),
                format!("both links go by {address}: what cuts one of them cuts the other one too"),
            )
            .help("give the second link an interface and addresses of its own");
    }
}

/// A witness that is one of the two nodes says nothing about who of them is cut off.
fn check_witness(ha: &Ha, section: &Section<'_>, walk: &mut Walk<'_>) {
    let Some(witness) = ha.witness else { return };
    let links = [Some(ha.link), ha.second_link];
    let ends = links
        .into_iter()
        .flatten()
        .flat_map(|link| [(link.local, "this node's own"), (link.peer, "the peer's")]);
    for (end, whose) in ends {
        if end.0.ip() == witness {
            let message = format!("the witness {witness} is {whose} address");
            let help = "a witness is a third machine, like the router that both nodes stand before";
            walk.error(section.span_of("witness"), message, help);
            return;
        }
    }
}

fn check_times(ha: &Ha, section: &Section<'_>, walk: &mut Walk<'_>) {
    // At the key that is there.
    let at = |keys: [&str; 3]| {
        let key = keys.into_iter().find(|key| section.has(key));
        section.span_of(key.unwrap_or("alone_after"))
    };
    if ha.alone_after.0 <= ha.silence() {
        let message = format!(
            "`ha.alone_after` ({}) is not longer than it takes to miss a peer ({} x {})",
            ha.alone_after, ha.heartbeat, ha.dead_after
        );
        let help =
            "a node that has just started would lead before it can have heard its peer: write a longer one";
        walk.error(at(["alone_after", "heartbeat", "dead_after"]), message, help);
    }
    if ha.dead_after == 1 {
        walk.report
            .warning(
                section.span_of("dead_after"),
                "with `ha.dead_after = 1` one lost heartbeat is a dead peer",
            )
            .help("write 2 or more");
    }
}
