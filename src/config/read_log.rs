//! `[log]`, and what rules ask of it.

use std::path::PathBuf;

use super::read::{Reading, beside};
use super::section::{Section, Walk};
use super::value::{Log, Rule};
use crate::policy::{Action, RuleLog};

pub(super) fn read_log<'t>(root: &mut Section<'t>, walk: &mut Walk<'_>) -> (Log, Section<'t>) {
    let mut s = root.section("log", walk);
    let log = Log {
        sessions: read_path(&mut s, "sessions", walk),
        alerts: read_path(&mut s, "alerts", walk),
    };
    s.finish(walk);
    (log, s)
}

fn read_path(section: &mut Section<'_>, key: &'static str, walk: &mut Walk<'_>) -> Option<PathBuf> {
    let (text, span) = section.string(key, walk)?;
    if text.is_empty() || text.ends_with('/') || text.contains('\0') {
        walk.error(
            span,
            format!("`log.{key}` is not the path of a file"),
            format!("write a path like \"/var/log/haechi/{key}.jsonl\""),
        );
    }
    Some(beside(text, span, walk))
}

/// Both logs are files of their own, and every rule that logs has one.
pub(super) fn check_log(reading: &Reading<'_>, walk: &mut Walk<'_>) {
    let log = &reading.config.log;
    if log.sessions.is_some() && log.sessions == log.alerts {
        walk.error(
            reading.log.span_of("alerts"),
            "`log.alerts` is the file of `log.sessions`",
            "give alerts a file of their own",
        );
    }
    for (rule, section) in reading.config.rules.iter().zip(&reading.rules) {
        if let Some(section) = section {
            check_rule(rule, section, log, walk);
        }
    }
}

fn check_rule(rule: &Rule, section: &Section<'_>, log: &Log, walk: &mut Walk<'_>) {
    let name = &rule.name;
    let (message, help) = match (rule.log, rule.action) {
        (RuleLog::None, _) => return,
        (RuleLog::Alert, Action::Allow) => (
            format!("rule \"{name}\" allows, and alerts are for what a rule drops"),
            "write `log = \"start\"`, \"end\" or \"both\" to log its sessions",
        ),
        (RuleLog::Alert, _) if log.alerts.is_none() => (
            format!("rule \"{name}\" logs alerts, and there is no file for them"),
            "add `alerts = \"/var/log/haechi/alerts.jsonl\"` to `[log]`",
        ),
        (RuleLog::Alert, _) => return,
        (_, Action::Drop | Action::Reject) => (
            format!("rule \"{name}\" makes no sessions that could be logged"),
            "write `log = \"alert\"` to log what it drops",
        ),
        _ if log.sessions.is_none() => (
            format!("rule \"{name}\" logs sessions, and there is no file for them"),
            "add `sessions = \"/var/log/haechi/sessions.jsonl\"` to `[log]`",
        ),
        _ => return,
    };
    walk.error(section.span_of("log"), message, help);
}
