//! Changing the configuration: what is asked and what is answered.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{DiagnosticInfo, Severity};

/// `POST /v1/apply`: the files themselves, so that the node needs no access to the client's file system and reads
/// exactly what the client saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `files`")]
pub struct ApplyRequest {
    /// The main file first, then everything that it includes.
    pub files: Vec<SourceFile>,
    /// Only say what would change, and how many sessions would end.
    #[serde(default)]
    pub dry_run: bool,
}

impl ApplyRequest {
    /// What a body looks like, for people who got it wrong.
    pub const SHAPE: &'static str =
        r#"{"files": [{"path": "/etc/haechi/haechi.toml", "text": "version = 1\n..."}], "dry_run": true}"#;
}

/// One file of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `path` and `text`")]
pub struct SourceFile {
    /// Its absolute path on the client's side: what diagnostics name and what `include` is resolved against.
    pub path: String,
    /// What stands in it.
    pub text: String,
}

/// What an apply changed, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyReport {
    /// Was it put in force?
    pub applied: bool,
    /// The policy's number after it.
    pub generation: u32,
    /// Names of rules that are new.
    pub rules_added: Vec<String>,
    /// Names of rules that are gone.
    pub rules_removed: Vec<String>,
    /// Names of rules of another content.
    pub rules_changed: Vec<String>,
    /// Does another order of the rules that stay come with it?
    pub rules_reordered: bool,
    /// Other keys that changed (`conntrack.timeouts`, `address_sets`, ...).
    pub settings_changed: Vec<String>,
    /// Live sessions that the new rules refuse: they end at their next packet. A dry run counts them, as they are while
    /// it does; `null`: not counted, because this was no dry run or there are too many to ask about them all in time.
    pub sessions_refused: Option<u64>,
    /// Warnings about the configuration.
    #[serde(default)]
    pub warnings: Vec<DiagnosticInfo>,
}

impl ApplyReport {
    /// Adds what was found out only when the policy was compiled; it is about the file as a whole.
    pub fn warn(&mut self, file: &Path, warnings: &[String]) {
        self.warnings
            .extend(warnings.iter().map(|warning| DiagnosticInfo {
                severity: Severity::Warning,
                file: file.display().to_string(),
                line: 0,
                column: 0,
                message: warning.clone(),
                hint: None,
            }));
    }
}
