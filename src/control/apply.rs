//! Apply: from the files of a request to a configuration that may be put in force, or to all that speaks against it.
//! Nothing here touches the node, so nothing can be half applied.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::node::{ApplyReport, ApplyRequest, DiagnosticInfo, ErrorKind, NodeError, Severity};
use super::table::counted;
use crate::config::{self, Config, Diagnostic, Diagnostics, Files as _, Rule};
use crate::flow::Session;
use crate::policy::{Action, ClassifyKey, Policy};

/// A configuration that a running node can take over, and what is new in it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to compile and to run from now on.
    pub config: Config,
    /// The main file, to be named in the status.
    pub file: PathBuf,
    /// What changes. `applied` is false and `generation` is 0: the node fills them in, and in a dry run
    /// `sessions_refused` (see [`refused`]).
    pub report: ApplyReport,
}

/// Validates the request's files, as they were read on the client's side, against what runs now.
///
/// # Errors
/// With all diagnostics when the configuration is wrong; with the names of all keys that need a restart when it is
/// right but cannot be put in force live.
pub fn plan(running: &Config, request: &ApplyRequest) -> Result<Plan, NodeError> {
    let Some(main) = request.files.first() else {
        return Err(NodeError::new(
            ErrorKind::BadRequest,
            "`files` has to hold the configuration file",
        ));
    };
    let mut files = BTreeMap::new();
    for file in &request.files {
        let key = files.identity(Path::new(&file.path));
        if files.insert(key, file.text.clone()).is_some() {
            return Err(NodeError::new(
                ErrorKind::BadRequest,
                format!("`files`: {} is there twice", file.path),
            ));
        }
    }
    let path = PathBuf::from(&main.path);
    let checked = config::check_files(&files, &path);
    let Some(new) = checked.config else {
        return Err(invalid(&path, &checked.diagnostics));
    };
    // A path that is relative to a file is relative to the working directory of whoever named the file.
    let absolute = |config: &Config| {
        let mut config = config.clone();
        let logs = [&mut config.log.sessions, &mut config.log.alerts];
        for path in logs
            .into_iter()
            .flatten()
            .chain([&mut config.node.control_socket])
        {
            *path = files.identity(&std::path::absolute(&*path).unwrap_or_else(|_| path.clone()));
        }
        config
    };
    let diff = config::diff(&absolute(running), &absolute(&new));
    if !diff.restart.is_empty() {
        return Err(NodeError::new(
            ErrorKind::Refused,
            format!("needs a restart of the node: {}", diff.restart.join(", ")),
        )
        .fix("restart it with this file, or leave those keys as they are; nothing was changed"));
    }
    let mut report = rules_report(&running.rules, &new.rules);
    report.settings_changed = diff.live.into_iter().filter(|key| key != "rule").collect();
    report.warnings = checked.diagnostics.iter().map(DiagnosticInfo::from).collect();
    Ok(Plan {
        config: new,
        file: path,
        report,
    })
}

/// How many of these sessions `policy` refuses: once it is in force, they end at their next packet.
#[must_use]
pub fn refused<'s>(policy: &Policy, sessions: impl IntoIterator<Item = &'s Session>) -> u64 {
    let questions: Vec<ClassifyKey> = sessions.into_iter().map(|s| policy.question(s)).collect();
    let mut answers = vec![None; questions.len()];
    policy.classifier.classify(&questions, &mut answers);
    let allowed = |place: &Option<u32>| {
        let rule = place.and_then(|place| policy.rules.get(place as usize));
        rule.is_some_and(|rule| rule.action == Action::Allow)
    };
    answers.iter().filter(|answer| !allowed(answer)).count() as u64
}

/// The refusal of a file that has errors.
#[must_use]
pub fn invalid(file: &Path, diagnostics: &Diagnostics) -> NodeError {
    let errors = diagnostics.errors().count();
    let mut error = NodeError::new(
        ErrorKind::Refused,
        format!(
            "{}: the configuration has {}",
            file.display(),
            counted(errors as u64, "error")
        ),
    )
    .fix("correct them; nothing was changed");
    error.diagnostics = diagnostics.iter().map(DiagnosticInfo::from).collect();
    error
}

fn rules_report(old: &[Rule], new: &[Rule]) -> ApplyReport {
    let before: BTreeMap<&str, &Rule> = old.iter().map(|r| (r.name.as_str(), r)).collect();
    let after: BTreeSet<&str> = new.iter().map(|r| r.name.as_str()).collect();
    let names = |rules: &mut dyn Iterator<Item = &Rule>| rules.map(|r| r.name.clone()).collect();
    let stay_before = old
        .iter()
        .map(|r| r.name.as_str())
        .filter(|name| after.contains(name));
    let stay_after = new
        .iter()
        .map(|r| r.name.as_str())
        .filter(|name| before.contains_key(name));
    ApplyReport {
        rules_added: names(&mut new.iter().filter(|r| !before.contains_key(r.name.as_str()))),
        rules_removed: names(&mut old.iter().filter(|r| !after.contains(r.name.as_str()))),
        rules_changed: names(
            &mut new
                .iter()
                .filter(|r| before.get(r.name.as_str()).is_some_and(|b| b != r)),
        ),
        rules_reordered: stay_before.ne(stay_after),
        ..ApplyReport::default()
    }
}

impl From<&Diagnostic> for DiagnosticInfo {
    fn from(d: &Diagnostic) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let message = match &d.related {
            Some((place, how)) => format!("{} ({how}: {place})", d.message),
            None => d.message.clone(),
        };
        Self {
            severity: match d.severity {
                config::Severity::Error => Severity::Error,
                config::Severity::Warning => Severity::Warning,
            },
            file: d.place.file.display().to_string(),
            line: number(d.place.line),
            column: number(d.place.column),
            message,
            hint: d.help.clone(),
        }
    }
}
