//! `haechi doctor`: is this host fit to run a node? What it looks at is read from the files of a root directory (`/` but in tests), and nothing is
//! changed. One file for each group of findings.

mod cpu;
pub mod drivers;
mod host;
mod iommu;
mod memory;
mod ports;
mod privileges;
mod workers;

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::config::Config;

pub use host::Host;

/// How a finding came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It runs, but not as well as it could.
    Warn,
    /// It does not run like that.
    Fail,
}

impl Verdict {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it came out.
    pub verdict: Verdict,
    /// What it is about: `cpu`, `workers`, `memory`, `iommu`, `port wan`, `privileges`.
    pub group: String,
    /// What was found.
    pub text: String,
    /// The command that mends it, or what else to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// All findings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In order of the groups.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst of all.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|finding| finding.verdict);
        verdicts.max().unwrap_or(Verdict::Ok)
    }

    /// How many came out like this.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        let alike = self.findings.iter().filter(|finding| finding.verdict == verdict);
        alike.count()
    }

    /// For people: a line for each finding, below it what mends it, and a last line that sums up.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let width = self.findings.iter().map(|f| f.group.len()).max().unwrap_or(0);
        for Finding {
            verdict,
            group,
            text: found,
            fix,
        } in &self.findings
        {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:4}  {group:width$}  {found}", verdict.name());
            if let Some(fix) = fix {
                let _ = writeln!(text, "{:indent$}-> {fix}", "", indent = width + 8);
            }
        }
        let counts = [Verdict::Ok, Verdict::Warn, Verdict::Fail].map(|verdict| self.count(verdict));
        let _ = writeln!(text, "{} ok, {} warn, {} fail", counts[0], counts[1], counts[2]);
        text
    }
}

/// Collects the findings of a group.
struct Group<'r> {
    name: String,
    report: &'r mut Report,
}

impl Group<'_> {
    fn add(&mut self, verdict: Verdict, text: impl Into<String>, fix: Option<String>) {
        self.report.findings.push(Finding {
            verdict,
            group: self.name.clone(),
            text: text.into(),
            fix,
        });
    }

    fn ok(&mut self, text: impl Into<String>) {
        self.add(Verdict::Ok, text, None);
    }

    fn warn(&mut self, text: impl Into<String>, fix: impl Into<String>) {
        self.add(Verdict::Warn, text, Some(fix.into()));
    }

    fn fail(&mut self, text: impl Into<String>, fix: impl Into<String>) {
        self.add(Verdict::Fail, text, Some(fix.into()));
    }
}

/// Examines the host whose `/proc`, `/sys` and `/dev` are in `root`, for a node of this configuration, or for any.
#[must_use]
pub fn examine(root: &Path, config: Option<&Config>) -> Report {
    let host = Host::new(root);
    let mut report = Report::default();
    let mut group = |name: &str, examine: &dyn Fn(&mut Group<'_>)| {
        examine(&mut Group {
            name: name.to_owned(),
            report: &mut report,
        });
    };
    group("cpu", &|g| cpu::examine(&host, g));
    group("workers", &|g| workers::examine(&host, config, g));
    group("memory", &|g| memory::examine(&host, config, g));
    group("iommu", &|g| iommu::examine(&host, config, g));
    for port in config.iter().flat_map(|config| &config.ports) {
        group(&format!("port {}", port.name), &|g| {
            ports::examine(&host, config, port, g)
        });
    }
    group("privileges", &|g| privileges::examine(&host, config, g));
    report
}
