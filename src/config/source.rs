//! Where a configuration's text comes from, and the way from there to a validated value.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use super::value::Config;

/// What reads configuration files: the disk, or texts at hand (tests, an API request).
pub trait Files {
    /// A file's text.
    ///
    /// # Errors
    /// As the file system says.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The path that tells whether two paths are the same file.
    fn identity(&self, path: &Path) -> PathBuf;
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn identity(&self, path: &Path) -> PathBuf {
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
    }
}

/// Texts by path.
impl Files for BTreeMap<PathBuf, String> {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn identity(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
}

/// A checked configuration: the value where there is no error, and every finding.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The value; `None` when there is an error.
    pub config: Option<Config>,
    /// All errors and warnings.
    pub diagnostics: Diagnostics,
}

/// Reads a configuration file and all that it includes.
///
/// # Errors
/// Every error of all files (and the warnings between them), when there is at least one.
pub fn load(path: &Path) -> Result<Config, Diagnostics> {
    check(path).into_result()
}

/// Like [`load`] for a text that includes nothing; `name` stands in diagnostics in place of a path.
///
/// # Errors
/// Every error of the text.
pub fn load_text(name: &str, text: &str) -> Result<Config, Diagnostics> {
    let files = BTreeMap::from([(PathBuf::from(name), text.to_owned())]);
    check_files(&files, Path::new(name)).into_result()
}

/// Like [`load`], with the warnings of a good configuration too.
#[must_use]
pub fn check(path: &Path) -> Checked {
    check_files(&DiskFiles, path)
}

/// Like [`check`], from any source of files.
#[must_use]
pub fn check_files(files: &dyn Files, path: &Path) -> Checked {
    let message = match files.read(path) {
        Ok(_) => "not loaded".to_owned(),
        Err(error) => format!("cannot be read: {error}"),
    };
    Checked {
        config: None,
        diagnostics: Diagnostics::new(vec![Diagnostic {
            severity: Severity::Error,
            place: Place {
                file: path.to_owned(),
                line: 0,
                column: 0,
            },
            message,
            help: None,
            related: None,
            source: None,
        }]),
    }
}

impl Checked {
    /// The value, or all findings.
    ///
    /// # Errors
    /// When there is an error among them.
    pub fn into_result(self) -> Result<Config, Diagnostics> {
        self.config.ok_or(self.diagnostics)
    }
}
