//! `haechi ha ...` and `haechi show ha`: the two nodes of a pair.

use std::fmt::Write as _;

use serde::Serialize;

use super::output::{self, Failure};
use super::{HaCheckArgs, HaNotifyArgs, HaSwitchoverArgs, KeygenArgs, ShowArgs};
use crate::config::{self, Config, Diagnostic, Difference, DiskFiles, PairReport, key_file};
use crate::control::client::Client;
use crate::control::node::{
    DiagnosticInfo, ErrorKind, HaDigest, HaPath, HaRedirect, HaStatus, HaSync, NodeError, NotifyRequest,
    Severity, SyncState,
};
use crate::control::table::{self, counted};

type Done = Result<(), Failure>;

/// What `ha check` says, in JSON.
#[derive(Serialize)]
struct CheckReport {
    /// Can the two be a pair?
    ok: bool,
    /// The version that read both files: the nodes are to have the same.
    version: &'static str,
    files: [String; 2],
    /// Errors and warnings of the files themselves.
    diagnostics: Vec<DiagnosticInfo>,
    /// What differs and should not, and what to look at.
    differences: Vec<DifferenceInfo>,
    /// What differs and may.
    own: Vec<OwnInfo>,
    /// Digests of both, as running nodes compare them; `null` where a file has an error.
    policy: Option<[String; 2]>,
    layout: Option<[String; 2]>,
}

#[derive(Serialize)]
struct DifferenceInfo {
    severity: Severity,
    key: String,
    message: String,
    hint: String,
    sides: [SideInfo; 2],
}

#[derive(Serialize)]
struct SideInfo {
    file: String,
    /// 0: the file as a whole.
    line: usize,
    column: usize,
    /// As JSON writes it; `null`: not set.
    value: Option<String>,
    /// The key is not in the file.
    default: bool,
}

#[derive(Serialize)]
struct OwnInfo {
    key: String,
    values: [Option<String>; 2],
}

fn severity(of: config::Severity) -> Severity {
    match of {
        config::Severity::Error => Severity::Error,
        config::Severity::Warning => Severity::Warning,
    }
}

impl From<&Difference> for DifferenceInfo {
    fn from(of: &Difference) -> Self {
        Self {
            severity: severity(of.severity),
            key: of.key.clone(),
            message: of.message.clone(),
            hint: of.help.clone(),
            sides: of.sides.each_ref().map(|side| SideInfo {
                file: side.place.file.display().to_string(),
                line: side.place.line,
                column: side.place.column,
                value: side.value.clone(),
                default: side.is_default,
            }),
        }
    }
}

pub(super) fn check(args: &HaCheckArgs) -> Done {
    let paths = [args.node_a.as_path(), args.node_b.as_path()];
    let result = config::check_pair(&DiskFiles, paths);
    let ok = result.as_ref().is_ok_and(PairReport::agrees);
    if args.output.json {
        output::print_json(&report(paths.map(|path| path.display().to_string()), &result))?;
    } else {
        let findings: Vec<Diagnostic> = match &result {
            Ok(report) => {
                let differences = report.differences.iter().map(Difference::diagnostic);
                report.warnings.iter().cloned().chain(differences).collect()
            }
            Err(diagnostics) => diagnostics.iter().cloned().collect(),
        };
        complain(&findings);
        if let Ok(report) = &result {
            output::print(&check_text(&paths.map(|path| path.display().to_string()), report))?;
        }
    }
    if ok { Ok(()) } else { Err(Failure::Printed) }
}

fn report(files: [String; 2], result: &Result<PairReport, config::Diagnostics>) -> CheckReport {
    let digits = |digests: [u64; 2]| digests.map(|digest| format!("{digest:016x}"));
    let version = env!("CARGO_PKG_VERSION");
    match result {
        Ok(report) => CheckReport {
            ok: report.agrees(),
            version,
            files,
            diagnostics: report.warnings.iter().map(DiagnosticInfo::from).collect(),
            differences: report.differences.iter().map(DifferenceInfo::from).collect(),
            own: report
                .own
                .iter()
                .map(|(key, values)| OwnInfo {
                    key: key.clone(),
                    values: values.clone(),
                })
                .collect(),
            policy: Some(digits(report.policy)),
            layout: Some(digits(report.layout)),
        },
        Err(diagnostics) => CheckReport {
            ok: false,
            version,
            files,
            diagnostics: diagnostics.iter().map(DiagnosticInfo::from).collect(),
            differences: Vec::new(),
            own: Vec::new(),
            policy: None,
            layout: None,
        },
    }
}

/// All findings on standard error, and how many there are.
fn complain(findings: &[Diagnostic]) {
    if findings.is_empty() {
        return;
    }
    for (place, finding) in findings.iter().enumerate() {
        let gap = if place > 0 { "\n" } else { "" };
        output::complain(&format!("{gap}{finding}\n"));
    }
    let of = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count() as u64
    };
    let errors = counted(of(config::Severity::Error), "error");
    let warnings = counted(of(config::Severity::Warning), "warning");
    output::complain(&format!("{errors}, {warnings}\n"));
}

fn check_text([a, b]: &[String; 2], report: &PairReport) -> String {
    let mut text = String::new();
    let ok = report.agrees();
    let [first, second] = &report.configs;
    // Writing to a string cannot fail.
    let _ = if ok {
        writeln!(
            text,
            "{a} and {b}: ok: {} and {} agree: {}, {}, policy {:016x}, layout {:016x}, read by haechi {}",
            node(first),
            node(second),
            counted(first.ports.len() as u64, "port"),
            counted(
                first.rules.iter().filter(|rule| rule.enabled).count() as u64,
                "rule"
            ),
            report.policy[0],
            report.layout[0],
            env!("CARGO_PKG_VERSION"),
        )
    } else {
        writeln!(text, "{a} and {b}: these are no pair")
    };
    if report.own.is_empty() {
        text.push_str("what may differ (devices, queues, workers, memory, names of nodes, logs) does not\n");
        return text;
    }
    text.push_str("what may differ, and does:\n");
    for (key, values) in &report.own {
        let [a, b] = values
            .each_ref()
            .map(|value| value.as_deref().unwrap_or("not set"));
        let _ = writeln!(text, "  {key}: {a} and {b}");
    }
    text
}

fn node(config: &Config) -> String {
    let id = config.ha.as_ref().map_or(0, |ha| ha.node_id);
    format!("{} (node {id})", config.node.name)
}

pub(super) fn keygen(args: &KeygenArgs) -> Done {
    let path = &args.file;
    key_file::generate(path).map_err(|error| {
        let refused = |what: String| NodeError::new(ErrorKind::Refused, what);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => refused(format!(
                "{}: it is there already, and a key is never written over",
                path.display()
            ))
            .fix("name another file, or move this one away when both nodes are to have a new key"),
            _ => refused(format!("{}: cannot write a key: {error}", path.display())),
        }
    })?;
    let path = path.display();
    output::print(&format!(
        "{path}: a new key, for its owner's eyes alone\n\
         next: copy it to the other node by a way that nobody listens to (`scp -p {path} OTHER:{path}`), name it in both nodes' files \
         (`[ha] key_file`), and compare those by `haechi ha check`. Running nodes take a new key when they are started again\n"
    ))
}

pub(super) fn switchover(args: &HaSwitchoverArgs) -> Done {
    let report = Client::new(&args.node.socket)?.switchover()?;
    if args.output.json {
        return output::print_json(&report);
    }
    output::print(&format!(
        "node {} leads; this node is {} ({:.0} ms)\n",
        report.leader,
        report.role.name(),
        report.took_ms
    ))
}

pub(super) fn notify(args: &HaNotifyArgs) -> Done {
    let request = NotifyRequest {
        kind: args.kind,
        name: args.name.clone(),
        state: args.state,
        priority: args.priority,
    };
    let report = Client::new(&args.node.socket)?.notify(&request)?;
    if args.output.json {
        return output::print_json(&report);
    }
    let asks = if report.wish.lead {
        "asks for the lead"
    } else {
        "gives the lead up if its peer can take it"
    };
    output::print(&format!(
        "{} is {}: this node {asks}; it is {} now\n",
        report.wish.by,
        report.wish.state.word(),
        report.role.name()
    ))
}

/// Exit status 0: healthy; 1: degraded.
pub(super) fn show(args: &ShowArgs) -> Done {
    let status = Client::new(&args.node.socket)?.ha()?;
    if args.output.json {
        output::print_json(&status)?;
    } else {
        output::print(&status_text(&status))?;
    }
    if status.is_healthy() {
        Ok(())
    } else {
        Err(Failure::Printed)
    }
}

/// Begins with one word: `healthy`, or `degraded` and why.
fn status_text(s: &HaStatus) -> String {
    let mut text = format!("{}\n", s.health);
    for reason in s.reasons.iter().skip(1) {
        text.push_str(&format!("and: {reason}\n"));
    }
    let able = |able: Option<bool>| if able == Some(false) { ", cannot lead" } else { "" };
    let mut facts = vec![
        (
            "node".to_owned(),
            format!(
                "{} of an {} pair, {} for {}, priority {}{}",
                s.node_id,
                s.mode,
                s.role.name(),
                table::duration(s.role_s),
                s.priority,
                able(Some(s.able))
            ),
        ),
        ("peer".to_owned(), peer_text(s)),
    ];
    for path in &s.peer.paths {
        facts.push((path.name.clone(), path_text(path)));
    }
    if let Some(witness) = &s.witness {
        let heard = witness.heard_ms.map_or_else(String::new, |ms| {
            format!(", its last answer {} ago", table::duration(ms / 1e3))
        });
        let answers = match witness.answers {
            Some(true) => "answers",
            Some(false) => "does not answer",
            None => "was not asked yet",
        };
        facts.push((
            "witness".to_owned(),
            format!("{} {answers}{heard}", witness.address),
        ));
    }
    facts.push(("sync".to_owned(), sync_text(&s.sync)));
    facts.push((
        "sent".to_owned(),
        format!(
            "{} and {}, {} again",
            counted(s.sync.sessions_sent, "update"),
            counted(s.sync.gone_sent, "end"),
            s.sync.sessions_resent
        ),
    ));
    facts.push((
        "received".to_owned(),
        format!(
            "{} and {}, {} without room",
            counted(s.sync.sessions_received, "update"),
            counted(s.sync.gone_received, "end"),
            s.sync.sessions_refused
        ),
    ));
    facts.push((
        "datagrams".to_owned(),
        format!(
            "{} sent, {} received",
            s.sync.datagrams_sent, s.sync.datagrams_received
        ),
    ));
    if let Some(redirect) = &s.redirect {
        facts.extend(redirect_facts(redirect));
    }
    if s.deferred + s.deferred_late > 0 {
        facts.push((
            "deferred".to_owned(),
            format!(
                "{}, {} of them late",
                counted(s.deferred, "first packet"),
                s.deferred_late
            ),
        ));
    }
    facts.push(("policy".to_owned(), digest_text(&s.policy)));
    facts.push(("layout".to_owned(), digest_text(&s.layout)));
    if let Some(wish) = &s.wish {
        let wants = if wish.lead { "to lead" } else { "not to lead" };
        facts.push((
            "wish".to_owned(),
            format!("{wants}: {} is {}", wish.by, wish.state.word()),
        ));
    }
    let refused: Vec<String> = s
        .refused
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(kind, n)| format!("{kind} {n}"))
        .collect();
    if !refused.is_empty() {
        facts.push(("refused".to_owned(), refused.join(", ")));
    }
    let facts: Vec<(&str, String)> = facts
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    text.push_str(&table::facts(&facts));
    text
}

fn redirect_facts(of: &HaRedirect) -> [(String, String); 2] {
    let mut out = format!(
        "{} offered, {} returned, at most {}/s",
        counted(of.redirected_out, "packet"),
        of.returned,
        of.rate
    );
    if of.limited > 0 {
        out.push_str(&format!(", {} beyond it dropped", of.limited));
    }
    let mut taken = format!(
        "{} taken, {} given back",
        counted(of.redirected_in, "packet"),
        of.given_back
    );
    for (count, what) in [(of.refused, "refused"), (of.lost, "lost")] {
        if count > 0 {
            taken.push_str(&format!(", {count} {what}"));
        }
    }
    [("to peer".to_owned(), out), ("for peer".to_owned(), taken)]
}

fn peer_text(s: &HaStatus) -> String {
    let peer = &s.peer;
    let Some(role) = peer.role else {
        return format!("node {}, never heard", peer.node_id);
    };
    let mut text = format!("node {}, ", peer.node_id);
    text.push_str(&match peer.alive {
        true => role.name().to_owned(),
        false => format!("silent; it was {}", role.name()),
    });
    if let Some(priority) = peer.priority {
        text.push_str(&format!(", priority {priority}"));
    }
    if peer.able == Some(false) {
        text.push_str(", cannot lead");
    }
    if let Some(version) = peer.version {
        text.push_str(&format!(", protocol {version}"));
    }
    text
}

fn path_text(path: &HaPath) -> String {
    let Some(heard_ms) = path.heard_ms else {
        return "never heard".to_owned();
    };
    let mut text = format!("heard {} ago", table::duration(heard_ms / 1e3));
    if let Some(rtt) = path.rtt_us {
        text.push_str(&format!(", there and back in {rtt:.0} us"));
    }
    text
}

fn sync_text(sync: &HaSync) -> String {
    let mut text = sync.state.words().to_owned();
    if sync.state == SyncState::Resync || sync.resync_of > 0 {
        text.push_str(&format!(", {} of about {}", sync.resync_done, sync.resync_of));
    }
    if let Some(proved) = sync.proved_s {
        text.push_str(&format!(", proved {} ago", table::duration(proved)));
    }
    text.push_str(&format!(
        ", {} of the peer's, {} to be sent",
        counted(sync.replicas, "session"),
        sync.waiting
    ));
    if sync.resyncs > 0 {
        text.push_str(&format!(", {}", counted(sync.resyncs, "resync")));
    }
    text
}

fn digest_text(digest: &HaDigest) -> String {
    let said = match digest.equal {
        Some(true) => "equal",
        Some(false) => "differs: compare the files by `haechi ha check`",
        None => "not compared yet",
    };
    let peer = match (&digest.peer, digest.equal) {
        (Some(peer), Some(false)) => format!(", the peer's {peer}"),
        _ => String::new(),
    };
    format!("{said} ({}{peer})", digest.own)
}

#[cfg(test)]
#[path = "ha_tests.rs"]
mod tests;
