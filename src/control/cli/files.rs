//! `haechi check`, `haechi apply`, `haechi schema`: commands that start from configuration files.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::output::{self, Failure};
use super::{ApplyArgs, CheckArgs};
use crate::config::{self, Checked, Config, DiskFiles, Files, KeyFileError};
use crate::control::apply;
use crate::control::client::Client;
use crate::control::node::{ApplyReport, ApplyRequest, DiagnosticInfo, ErrorKind, NodeError, SourceFile};
use crate::control::table::counted;
use crate::ha::seal::PairKey;

/// What `check` says of a file, in JSON.
#[derive(Serialize)]
struct CheckReport {
    /// Can a node run with it?
    ok: bool,
    file: String,
    diagnostics: Vec<DiagnosticInfo>,
    /// What it was understood to be; `null` when it has an error.
    summary: Option<Summary>,
}

#[derive(Serialize)]
struct Summary {
    node: String,
    mode: config::Mode,
    ports: usize,
    pairs: usize,
    zones: usize,
    rules: usize,
    rules_disabled: usize,
    workers: usize,
    /// Of a node of a pair, which of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    ha_node_id: Option<u8>,
}

impl Summary {
    fn of(config: &Config) -> Self {
        let ports = config.ports.iter().map(|p| &p.zone);
        let entries = config.zones.iter().map(|z| &z.name);
        Self {
            node: config.node.name.clone(),
            mode: config.node.mode,
            ports: config.ports.len(),
            pairs: config.ports.len() / 2,
            zones: ports.chain(entries).collect::<BTreeSet<_>>().len(),
            rules: config.rules.iter().filter(|r| r.enabled).count(),
            rules_disabled: config.rules.iter().filter(|r| !r.enabled).count(),
            workers: config.node.workers.0.len(),
            ha_node_id: config.ha.as_ref().map(|ha| ha.node_id),
        }
    }
}

pub(super) fn check(args: &CheckArgs) -> Result<(), Failure> {
    let checked = config::check(&args.config);
    let summary = checked.config.as_ref().map(Summary::of);
    let ok = summary.is_some();
    if args.output.json {
        output::print_json(&CheckReport {
            ok,
            file: args.config.display().to_string(),
            diagnostics: checked.diagnostics.iter().map(DiagnosticInfo::from).collect(),
            summary,
        })?;
    } else {
        print_findings(&checked);
        if let Some(summary) = summary {
            output::print(&ok_line(&args.config, &summary))?;
        }
    }
    if ok { Ok(()) } else { Err(Failure::Printed) }
}

fn ok_line(file: &Path, s: &Summary) -> String {
    let disabled = match s.rules_disabled {
        0 => String::new(),
        n => format!(" and {n} disabled"),
    };
    let mode = match s.mode {
        config::Mode::Transparent => "transparent",
    };
    let of_pair = s
        .ha_node_id
        .map_or_else(String::new, |id| format!(", node {id} of a pair"));
    format!(
        "{}: ok: node {}, {mode} mode, {} in {}, {}, {}{disabled}, {}{of_pair}\n",
        file.display(),
        s.node,
        counted(s.ports as u64, "port"),
        counted(s.pairs as u64, "pair"),
        counted(s.zones as u64, "zone"),
        counted(s.rules as u64, "rule"),
        counted(s.workers as u64, "worker")
    )
}

/// All findings on standard error, and how many there are.
pub(super) fn print_findings(checked: &Checked) {
    if checked.diagnostics.is_empty() {
        return;
    }
    output::complain(&checked.diagnostics.to_string());
    let (errors, warnings) = (
        checked.diagnostics.errors().count(),
        checked.diagnostics.warnings().count(),
    );
    let errors = counted(errors as u64, "error");
    let warnings = counted(warnings as u64, "warning");
    output::complain(&format!("{errors}, {warnings}\n"));
}

/// The file system, remembering what was read: exactly what the node is to see.
struct Recorder {
    files: RefCell<BTreeMap<PathBuf, String>>,
}

impl Files for Recorder {
    fn read(&self, path: &Path) -> io::Result<String> {
        let text = DiskFiles.read(path)?;
        self.files.borrow_mut().insert(path.to_owned(), text.clone());
        Ok(text)
    }

    fn identity(&self, path: &Path) -> PathBuf {
        DiskFiles.identity(path)
    }

    fn key(&self, path: &Path) -> Option<Result<PairKey, KeyFileError>> {
        DiskFiles.key(path)
    }
}

pub(super) fn apply(args: &ApplyArgs) -> Result<(), Failure> {
    let main = std::path::absolute(&args.config)
        .map_err(|e| NodeError::new(ErrorKind::BadRequest, format!("{}: {e}", args.config.display())))?;
    let recorder = Recorder {
        files: RefCell::default(),
    };
    let checked = config::check_files(&recorder, &main);
    if checked.config.is_none() {
        return Err(refused_file(&args.config, &checked, args.output.json));
    }
    let mut files = recorder.files.into_inner();
    let mut list = vec![source_file(&main, files.remove(&main).unwrap_or_default())?];
    for (path, text) in files {
        list.push(source_file(&path, text)?);
    }
    let request = ApplyRequest {
        files: list,
        dry_run: args.dry_run,
    };
    let report = Client::new(&args.node.socket)?.apply(&request)?;
    if args.output.json {
        return output::print_json(&report);
    }
    for warning in &report.warnings {
        output::complain(&format!("{}\n", output::diagnostic_text(warning)));
    }
    output::print(&report_text(&report))
}

/// A file with errors, told where the user reads it.
pub(super) fn refused_file(file: &Path, checked: &Checked, json: bool) -> Failure {
    if json {
        return Failure::Refused(apply::invalid(file, &checked.diagnostics));
    }
    print_findings(checked);
    Failure::Printed
}

fn source_file(path: &Path, text: String) -> Result<SourceFile, NodeError> {
    let Some(name) = path.to_str() else {
        return Err(NodeError::new(
            ErrorKind::BadRequest,
            format!("{}: the file's name is not UTF-8", path.display()),
        )
        .fix("rename it"));
    };
    Ok(SourceFile {
        path: name.to_owned(),
        text,
    })
}

fn report_text(report: &ApplyReport) -> String {
    let mut text = String::new();
    let mut list = |what: &str, names: &[String]| {
        if !names.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{what}: {}", names.join(", "));
        }
    };
    list("rules added", &report.rules_added);
    list("rules removed", &report.rules_removed);
    list("rules changed", &report.rules_changed);
    list("settings changed", &report.settings_changed);
    if report.rules_reordered {
        text.push_str("the order of rules changed\n");
    }
    let nothing = text.is_empty();
    match report.sessions_refused {
        Some(0) if nothing => {}
        Some(n) => {
            let _ = writeln!(text, "live sessions that the new rules refuse: {n}");
        }
        None if report.applied => {}
        None => text.push_str("live sessions that the new rules refuse: too many sessions to count them\n"),
    }
    text.push_str(&match (report.applied, nothing) {
        (true, true) => format!("applied as generation {}; nothing changed\n", report.generation),
        (true, false) => format!("applied as generation {}\n", report.generation),
        (false, true) => "nothing would change\n".to_owned(),
        (false, false) => "nothing was applied (--dry-run)\n".to_owned(),
    });
    text
}

pub(super) fn schema() -> Result<(), Failure> {
    output::print(&config::schema_json())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_how_many_sessions_would_end_or_that_nobody_knows() {
        let text = |sessions_refused, rules_changed: &[&str]| {
            report_text(&ApplyReport {
                sessions_refused,
                rules_changed: rules_changed.iter().map(|&name| name.to_owned()).collect(),
                ..ApplyReport::default()
            })
        };
        let counted = |n: &str| format!("live sessions that the new rules refuse: {n}\n");
        let dry = "nothing was applied (--dry-run)\n";
        assert_eq!(text(Some(0), &[]), "nothing would change\n");
        // An earlier apply refuses them already, and no packet of theirs has come since.
        assert_eq!(text(Some(2), &[]), counted("2") + "nothing would change\n");
        assert_eq!(
            text(Some(0), &["a"]),
            format!("rules changed: a\n{}{dry}", counted("0"))
        );
        assert_eq!(
            text(Some(1_234_567), &["a"]),
            format!("rules changed: a\n{}{dry}", counted("1234567"))
        );
        assert_eq!(
            text(None, &["a"]),
            format!(
                "rules changed: a\n{}{dry}",
                counted("too many sessions to count them")
            )
        );
        let applied = ApplyReport {
            applied: true,
            generation: 2,
            ..ApplyReport::default()
        };
        assert_eq!(
            report_text(&applied),
            "applied as generation 2; nothing changed\n"
        );
    }
}
