//! How commands print, and how they fail.

use std::io::{self, ErrorKind as IoErrorKind, Write};
use std::process::ExitCode;

use clap::Command;
use serde::Serialize;

use crate::control::node::{DiagnosticInfo, ErrorKind, NodeError, Severity};

/// Why a command ends without having done what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// Refused or failed: exit 1.
    Refused(NodeError),
    /// Wrong usage that the grammar cannot see: exit 2.
    Usage(String),
    /// Already printed: exit 1.
    Printed,
    /// Nobody reads the output any more (`| head`): no error.
    PipeClosed,
}

impl Failure {
    pub(super) fn not_supported(what: &str) -> Self {
        Self::Refused(NodeError::new(
            ErrorKind::NotSupported,
            format!("`{what}` is not supported yet"),
        ))
    }

    pub(super) fn no_runtime() -> Self {
        Self::Refused(
            NodeError::new(
                ErrorKind::NotSupported,
                "this haechi was built without DPDK and cannot run a node",
            )
            .fix("build it with the feature `dpdk`, which is on by default"),
        )
    }

    /// Prints it and says how to exit.
    pub(super) fn report(self, json: bool) -> ExitCode {
        match self {
            Self::PipeClosed => ExitCode::SUCCESS,
            Self::Printed => ExitCode::FAILURE,
            Self::Usage(why) => {
                complain(&format!("haechi: {why}\n"));
                ExitCode::from(2)
            }
            Self::Refused(error) if json => {
                // Nobody is left to tell when this fails too.
                let _ = print_json(&error);
                ExitCode::FAILURE
            }
            Self::Refused(error) => {
                for diagnostic in &error.diagnostics {
                    complain(&format!("{}\n", diagnostic_text(diagnostic)));
                }
                complain(&format!("haechi: {error}\n"));
                ExitCode::FAILURE
            }
        }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        Self::Refused(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == IoErrorKind::BrokenPipe {
            Self::PipeClosed
        } else {
            Self::Refused(NodeError::new(
                ErrorKind::Internal,
                format!("cannot write the output: {error}"),
            ))
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::from(io::Error::from(error))
    }
}

/// Writes text to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes text to standard error. Where nobody reads that either, the exit status has to do.
pub(super) fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes one JSON value for people and programs alike, and a line end.
pub(super) fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// A finding as a compiler would print it, so that editors jump to it.
pub(super) fn diagnostic_text(d: &DiagnosticInfo) -> String {
    let severity = match d.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let place = match (d.line, d.column) {
        (0, _) => d.file.clone(),
        (line, 0) => format!("{}:{line}", d.file),
        (line, column) => format!("{}:{line}:{column}", d.file),
    };
    let hint = d
        .hint
        .as_deref()
        .map(|h| format!("\n  hint: {h}"))
        .unwrap_or_default();
    format!("{place}: {severity}: {}{hint}", d.message)
}

/// `haechi completions SHELL`.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(&super::grammar()), "haechi", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// What `--help` shows of a command: the generator would offer hidden commands and options too.
fn shown(command: &Command) -> Command {
    let mut shown = Command::new(command.get_name().to_owned())
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned())
        .subcommands(
            command
                .get_subcommands()
                .filter(|command| !command.is_hide_set())
                .map(self::shown),
        );
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        shown = shown.version(version.to_owned());
    }
    shown
}
