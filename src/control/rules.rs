//! The rows of `GET /v1/rules`: from a configuration's rules and the engine's counters.

use std::collections::BTreeSet;

use super::node::RuleStatus;
use crate::base::{Nanos, RuleId};
use crate::config::{self, Config, Matcher, RuleIds};
use crate::engine::RuleCounters;
use crate::policy::Action;

/// Every rule of `config` in its order, what no rule matched, and the rules of earlier configurations that still hold
/// sessions open, so that the rows' sessions are all sessions. `counters` are by [`RuleId`]; `unix` turns a moment of the
/// engine's into Unix time.
#[must_use]
pub fn rows(
    config: &Config,
    ids: &RuleIds,
    counters: &[RuleCounters],
    no_rule: RuleCounters,
    unix: impl Fn(Nanos) -> f64,
) -> Vec<RuleStatus> {
    let row = |name: &str, action: Action, counters: RuleCounters| RuleStatus {
        name: name.to_owned(),
        action: word(action).to_owned(),
        enabled: true,
        removed: false,
        from: zones(&Matcher::Any),
        to: zones(&Matcher::Any),
        description: None,
        sessions: counters.sessions,
        limited: counters.limited,
        unused_leases: counters.unused_leases,
        packets: counters.packets,
        bytes: counters.bytes,
        last_hit: (counters.last_hit > Nanos(0)).then(|| unix(counters.last_hit)),
    };
    let of = |id: RuleId| counters.get(id.index()).copied().unwrap_or_default();
    let mut rows: Vec<_> = Vec::with_capacity(config.rules.len() + 1);
    for rule in &config.rules {
        // A rule that was never enabled has no id, and no counters.
        let counters = ids.id(&rule.name).map(of).unwrap_or_default();
        rows.push(RuleStatus {
            enabled: rule.enabled,
            from: zones(&rule.from),
            to: zones(&rule.to),
            description: rule.description.clone(),
            ..row(&rule.name, rule.action, counters)
        });
    }
    rows.push(row(config::IMPLICIT_DROP, Action::Drop, no_rule));
    let names: BTreeSet<&str> = config.rules.iter().map(|rule| rule.name.as_str()).collect();
    let gone = counters.iter().zip(0..).filter(|(one, _)| one.sessions > 0);
    for (counters, id) in gone {
        if let Some(name) = ids.name(RuleId(id)).filter(|name| !names.contains(name)) {
            rows.push(RuleStatus {
                removed: true,
                from: Vec::new(),
                to: Vec::new(),
                // No other makes sessions.
                ..row(name, Action::Allow, *counters)
            });
        }
    }
    rows
}

fn zones(matcher: &Matcher<String>) -> Vec<String> {
    match matcher {
        Matcher::Any => vec!["any".to_owned()],
        Matcher::OneOf(zones) => zones.clone(),
    }
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Drop => "drop",
        Action::Reject => "reject",
    }
}
