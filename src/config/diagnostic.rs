//! Diagnostics: what is wrong with a file, where, and what to do about it.

use std::fmt;
use std::path::PathBuf;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file holds, but not what its writer meant.
    Warning,
}

/// A place in a file; lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line; 0: the file as a whole.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// What, in one line.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Another place that has to do with it, and how ("first defined here").
    pub related: Option<(Place, String)>,
    /// The line of the file that it stands in, and how many characters of it are meant.
    pub source: Option<(String, usize)>,
}

/// All findings of a run, in the order of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    pub(super) fn new(list: Vec<Diagnostic>) -> Self {
        Self { list }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// Those that refuse the file.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter().filter(|d| d.severity == Severity::Error)
    }

    /// Those that do not.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter().filter(|d| d.severity == Severity::Warning)
    }

    /// Is there an error?
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// Is there nothing at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    /// Each with its line of the file, for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.list.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl Diagnostic {
    /// The stable form of one line: `file:line:column: error: message; help: ...`.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut line = self.headline();
        if let Some((place, how)) = &self.related {
            line.push_str(&format!(" ({how}: {place})"));
        }
        if let Some(help) = &self.help {
            line.push_str("; help: ");
            line.push_str(help);
        }
        line
    }

    fn headline(&self) -> String {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        format!("{}: {severity}: {}", self.place, self.message)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    /// The headline, the line of the file with the place underlined, related places, and the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.headline())?;
        let gutter = self.place.line.to_string().len();
        if let Some((text, length)) = &self.source {
            // A tab is one character of the column but not one cell of a terminal: both lines get the same blanks.
            let text = text.replace('\t', " ");
            let indent = self.place.column - 1;
            write!(f, "\n{:gutter$} |", "")?;
            write!(f, "\n{} | {text}", self.place.line)?;
            write!(
                f,
                "\n{:gutter$} | {:indent$}{}",
                "",
                "",
                "^".repeat((*length).max(1))
            )?;
        }
        if let Some((place, how)) = &self.related {
            write!(f, "\n{:gutter$} = note: {how}: {place}", "")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{:gutter$} = help: {help}", "")?;
        }
        Ok(())
    }
}

/// A string of the file that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ValueError {
    /// What is wrong with it.
    pub message: String,
    /// What to write in its place, where that is known.
    pub help: Option<String>,
}

impl ValueError {
    pub(super) fn with_help(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: Some(help.into()),
        }
    }
}

impl<T: Into<String>> From<T> for ValueError {
    fn from(message: T) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }
}

/// A value that stands in the file as a string.
pub(super) trait TextValue: std::str::FromStr<Err = ValueError> {
    /// How to write one.
    const HELP: &'static str;
}
