//! Where a configuration's text comes from, and the way from there to a validated value.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::diagnostic::Diagnostics;
use super::include::read_all;
use super::read::read_config;
use super::report::Report;
use super::value::Config;

/// What reads configuration files: the disk, or texts at hand (tests, an API request).
pub trait Files {
    /// A file's text.
    ///
    /// # Errors
    /// As the file system says; `InvalidData` when it is not UTF-8.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The path that tells whether two paths are the same file.
    fn identity(&self, path: &Path) -> PathBuf;
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFiles;

/// No configuration is longer: a path to something else (a device, a log) ends here and not in all of the memory.
const MAX_FILE_BYTES: u64 = 16 << 20;

impl Files for DiskFiles {
    fn read(&self, path: &Path) -> io::Result<String> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path)?
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)?;
        if read as u64 > MAX_FILE_BYTES {
            return Err(io::Error::other("longer than 16 MiB"));
        }
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..at]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                + 1;
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("line {line} is not UTF-8 text"),
            )
        })
    }

    fn identity(&self, path: &Path) -> PathBuf {
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
    }
}

/// Texts by path.
impl Files for BTreeMap<PathBuf, String> {
    fn read(&self, path: &Path) -> io::Result<String> {
        let text = self.get(&self.identity(path)).ok_or(io::ErrorKind::NotFound)?;
        Ok(text.clone())
    }

    fn identity(&self, path: &Path) -> PathBuf {
        let mut plain = PathBuf::new();
        for component in path.components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir if plain.file_name().is_some() => {
                    plain.pop();
                }
                other => plain.push(other),
            }
        }
        plain
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
    let mut report = Report::default();
    let config = read_all(files, path, &mut report).map(|root| read_config(&root, &mut report));
    let diagnostics = report.finish();
    Checked {
        config: config.filter(|_| !diagnostics.has_errors()),
        diagnostics,
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
