//! The grammar of what becomes the policy: sets, rules, `[policy]` and `[conntrack]`.

use std::collections::BTreeMap;

use super::defaults;
use super::names::{Names, check_name};
use super::net::{AddressRef, ServiceRef};
use super::read::read_name;
use super::section::{Section, Walk, parse, strings};
use super::tree::{Span, Value};
use super::units::Rate;
use super::value::{
    Conntrack, FragmentsSection, Matcher, PolicySection, Rule, SynOptions, TimeoutOverrides, Timeouts,
};
use crate::policy::{Action, RuleLog, Share, SynProtection};

pub(super) fn read_sets<'t, T>(
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

pub(super) fn address(text: &str, span: Span, names: &Names, walk: &mut Walk<'_>) -> Option<AddressRef> {
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

pub(super) fn service(text: &str, span: Span, names: &Names, walk: &mut Walk<'_>) -> Option<ServiceRef> {
    let member = parse(text, span, walk)?;
    match &member {
        ServiceRef::Set(name) => check_set(
            name,
            span,
            ("service", &names.service_sets),
            ("address", &names.address_sets),
            walk,
        ),
        ServiceRef::Service(service) => {
            if let Some((why, help)) = service.never_opens() {
                let message = format!("\"{text}\" never opens a session: {why}");
                walk.report.warning(span, message).help(help);
            }
        }
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

pub(super) fn read_rule(section: &mut Section<'_>, names: &Names, walk: &mut Walk<'_>) -> Rule {
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
        log: s.choice("log", RuleLog::WORDS, walk).unwrap_or_default(),
        timeouts: read_overrides(s, walk),
        pickup: s.boolean("pickup", walk),
        reset_on_timeout: s.boolean("reset_on_timeout", walk),
        tcp_strict: s.boolean("tcp_strict", walk),
        max_sessions: s.integer("max_sessions", SESSIONS, walk),
        max_sessions_per_source: s.integer("max_sessions_per_source", SESSIONS, walk),
        new_sessions_per_source: read_session_rate(s, walk),
        syn_protection: s
            .choice("syn_protection", SYN_PROTECTION, walk)
            .unwrap_or_default(),
        syn_options: read_syn_options(s, walk),
        defer: s.boolean("defer", walk).unwrap_or(false),
        enabled: s.boolean("enabled", walk).unwrap_or_else(defaults::yes),
        description: s.string("description", walk).map(|(text, _)| text.to_owned()),
    };
    s.finish(walk);
    rule
}

const SYN_PROTECTION: &[(&str, SynProtection)] = &[
    ("off", SynProtection::Off),
    ("auto", SynProtection::Auto),
    ("always", SynProtection::Always),
];

fn read_syn_options(section: &mut Section<'_>, walk: &mut Walk<'_>) -> SynOptions {
    let mut s = section.section("syn_options", walk);
    let default = SynOptions::default();
    let options = SynOptions {
        mss: s.integer("mss", 216..=8960, walk),
        window_scale: s
            .integer("window_scale", 0..=14, walk)
            .unwrap_or(default.window_scale),
        sack: s.boolean("sack", walk).unwrap_or(default.sack),
        timestamps: s.boolean("timestamps", walk).unwrap_or(default.timestamps),
    };
    s.finish(walk);
    options
}

/// What a limit of a rule's sessions can be.
const SESSIONS: std::ops::RangeInclusive<i64> = 1..=268_435_456;

fn read_session_rate(section: &mut Section<'_>, walk: &mut Walk<'_>) -> Option<Rate> {
    let rate = section.text("new_sessions_per_source", walk);
    if rate == Some(Rate(0)) {
        let message = "`rule.new_sessions_per_source` is 0: nobody could open a session";
        let help = "write a rate of at least \"1/s\"; to refuse them all write `action = \"drop\"`";
        walk.error(section.span_of("new_sessions_per_source"), message, help);
    }
    rate
}

/// Keys of a rule whose features come later.
const RULE_NOT_YET: &[(&str, &str)] = &[("helper", "application-level gateways")];

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

pub(super) fn read_policy(root: &mut Section<'_>, walk: &mut Walk<'_>) -> PolicySection {
    let mut s = root.section("policy", walk);
    let default = PolicySection::default();
    let policy = PolicySection {
        reject_rate: s.text("reject_rate", walk).unwrap_or(default.reject_rate),
        alert_rate: s.text("alert_rate", walk).unwrap_or(default.alert_rate),
    };
    s.finish(walk);
    policy
}

/// Keys of `[conntrack]` whose features come later.
const CONNTRACK_NOT_YET: &[(&str, &str)] = &[];

pub(super) fn read_conntrack(root: &mut Section<'_>, walk: &mut Walk<'_>) -> Conntrack {
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
        adaptive_start: s.text("adaptive_start", walk).unwrap_or(default.adaptive_start),
        adaptive_end: s.text("adaptive_end", walk).unwrap_or(default.adaptive_end),
        tcp_strict: s.boolean("tcp_strict", walk).unwrap_or(default.tcp_strict),
        pickup: s.boolean("pickup", walk).unwrap_or(default.pickup),
        reset_on_timeout: s
            .boolean("reset_on_timeout", walk)
            .unwrap_or(default.reset_on_timeout),
        syn_cookie_start: s
            .text("syn_cookie_start", walk)
            .unwrap_or(default.syn_cookie_start),
        syn_cookie_stop: s.text("syn_cookie_stop", walk).unwrap_or(default.syn_cookie_stop),
        timeouts: Timeouts::default(),
        fragments: read_fragments(&mut s, walk),
    };
    if conntrack.adaptive_end <= conntrack.adaptive_start {
        // At the key that is there.
        let key = match s.entry("adaptive_end") {
            Some(_) => "adaptive_end",
            None => "adaptive_start",
        };
        let (start, end) = (conntrack.adaptive_start, conntrack.adaptive_end);
        walk.error(
            s.span_of(key),
            format!("`conntrack.adaptive_end` ({end}) is not above `adaptive_start` ({start})"),
            "timeouts shrink from the start on, to nothing at the end: write a larger `adaptive_end`",
        );
    }
    check_syn_cookies(&s, &conntrack, walk);
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

fn read_fragments(conntrack: &mut Section<'_>, walk: &mut Walk<'_>) -> FragmentsSection {
    let mut s = conntrack.section("fragments", walk);
    let default = FragmentsSection::default();
    let fragments = FragmentsSection {
        max_datagrams: s
            .integer("max_datagrams", 1..=1_048_576, walk)
            .unwrap_or(default.max_datagrams),
        timeout: s.text("timeout", walk).unwrap_or(default.timeout),
    };
    s.finish(walk);
    fragments
}

fn check_syn_cookies(section: &Section<'_>, conntrack: &Conntrack, walk: &mut Walk<'_>) {
    let (start, stop) = (conntrack.syn_cookie_start, conntrack.syn_cookie_stop);
    if stop > start {
        let at = |key| section.span_of(key);
        let span = if at("syn_cookie_stop") == section.span {
            at("syn_cookie_start")
        } else {
            at("syn_cookie_stop")
        };
        walk.error(
            span,
            format!("`syn_cookie_stop` ({stop}) is above `syn_cookie_start` ({start})"),
            "SYN cookies stop at fewer half-open sessions than they start at",
        );
    } else if start > Share::WHOLE {
        walk.report
            .warning(
                section.span_of("syn_cookie_start"),
                format!(
                    "`syn_cookie_start` ({start}) is more than the session table: SYN cookies never start"
                ),
            )
            .help("write at most \"100%\", or leave out `syn_protection = \"auto\"`");
    }
}
