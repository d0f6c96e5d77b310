//! Where a configuration's text comes from, and the way from there to a validated value.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::diagnostic::Diagnostics;
use super::include::read_all;
use super::key_file::{self, KeyFileError};
use super::read::read_config;
use super::report::Report;
use super::tree::{Span, Table};
use super::value::Config;
use crate::ha::seal::PairKey;

/// What reads configuration files: the disk, or texts at hand (tests, an API request).
pub trait Files {
    /// A file's text.
    ///
    /// # Errors
    /// As the file system says; `InvalidData` with [`NotUtf8`] when it is not UTF-8, `InvalidInput` when it is no file.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The path that tells whether two paths are the same file.
    fn identity(&self, path: &Path) -> PathBuf;

    /// The pair's key at this path, or what is wrong with it; `None`: nobody looked, because the files are of another machine.
    fn key(&self, path: &Path) -> Option<Result<PairKey, KeyFileError>> {
        let _ = path;
        None
    }
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFiles;

/// The first byte of a file that is not UTF-8, and where it stands; lines and columns count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not UTF-8 text: byte 0x{byte:02x} in line {line}, column {column}")]
pub struct NotUtf8 {
    /// The byte.
    pub byte: u8,
    /// Its line.
    pub line: usize,
    /// Its column, in characters.
    pub column: usize,
}

impl NotUtf8 {
    fn of(error: &std::string::FromUtf8Error) -> Self {
        let (good, bad) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let good = String::from_utf8_lossy(good);
        Self {
            byte: bad.first().copied().unwrap_or_default(),
            line: good.matches('\n').count() + 1,
            column: good.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
        }
    }
}

/// The file system that pipes without a name are in (statfs(2)).
const PIPEFS: i64 = 0x5049_5045;

/// Opens what ends. A device never may, and a named pipe waits until somebody writes to it. One without a name is the
/// other end of a command that the shell runs beside this one: `haechi check <(generate)`, `generate | haechi check /dev/stdin`.
fn open(path: &Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = std::fs::metadata(path)?.file_type();
    let is_pipeline = || kind.is_fifo() && rustix::fs::statfs(path).is_ok_and(|of| of.f_type == PIPEFS);
    if !kind.is_file() && !is_pipeline() {
        let what = if kind.is_dir() {
            "directory"
        } else if kind.is_fifo() {
            "named pipe"
        } else if kind.is_socket() {
            "socket"
        } else {
            "device"
        };
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("it is a {what}, not a file"),
        ));
    }
    std::fs::File::open(path)
}

/// No configuration is longer: a path to something else (a device, a log) ends here and not in all of the memory.
const MAX_FILE_BYTES: u64 = 16 << 20;

impl Files for DiskFiles {
    fn read(&self, path: &Path) -> io::Result<String> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        let read = open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if read as u64 > MAX_FILE_BYTES {
            return Err(io::Error::other("longer than 16 MiB"));
        }
        String::from_utf8(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, NotUtf8::of(&error)))
    }

    fn identity(&self, path: &Path) -> PathBuf {
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
    }

    fn key(&self, path: &Path) -> Option<Result<PairKey, KeyFileError>> {
        Some(key_file::read(path))
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
    check_tree(files, path).checked
}

/// A checked configuration with the tree that it was read from.
pub(super) struct CheckedTree {
    pub(super) checked: Checked,
    pub(super) root: Table,
    /// Where the tree's places are.
    pub(super) report: Report,
}

/// Like [`check_files`], keeping the tree.
pub(super) fn check_tree(files: &dyn Files, path: &Path) -> CheckedTree {
    let mut report = Report::default();
    let root = read_all(files, path, &mut report);
    let config = root.as_ref().map(|root| {
        let (config, key_file) = read_config(root, &mut report);
        if let Some((path, span)) = key_file {
            report_key_file(files, &path, span, &mut report);
        }
        config
    });
    let diagnostics = report.finish();
    CheckedTree {
        checked: Checked {
            config: config.filter(|_| !diagnostics.has_errors()),
            diagnostics,
        },
        root: root.unwrap_or_default(),
        report,
    }
}

/// Before the node is installed there may be no key yet, or who asks may not read it: a node that starts has to have it.
fn report_key_file(files: &dyn Files, path: &Path, span: Span, report: &mut Report) {
    let Some(Err(error)) = files.key(path) else {
        return;
    };
    let (message, help) = (format!("the pair's key: {error}"), error.help(path));
    match error {
        KeyFileError::Missing { .. } | KeyFileError::Unreadable { .. } => report.warning(span, message),
        KeyFileError::Exposed { .. } | KeyFileError::Malformed { .. } => report.error(span, message),
    }
    .help(help);
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
