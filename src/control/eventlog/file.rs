//! A log file that others rotate: lines are appended whole, to the file that has the name now. Nothing is ever half written: of
//! lines that do not fit the disk any more, those that are cut are taken back.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Collected lines go out when they are so many bytes.
const FULL: usize = 256 * 1024;

/// What a write came to.
#[derive(Debug, Default)]
pub struct Written {
    /// Lines that are in the file.
    pub lines: u64,
    /// Lines that are lost.
    pub lost: u64,
    /// Why.
    pub error: Option<io::Error>,
}

/// A file that lines are appended to.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Option<File>,
    /// Device and inode of `file`.
    id: (u64, u64),
    /// The file ends with a part of a line, which could not be taken back.
    cut: bool,
    lines: Vec<u8>,
    count: u64,
}

impl LogFile {
    /// Opens the file, which is made where there is none; its directory is not.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = Self {
            path: path.to_owned(),
            file: None,
            id: (0, 0),
            cut: false,
            lines: Vec::with_capacity(FULL + 4096),
            count: 0,
        };
        file.reopen()?;
        Ok(file)
    }

    /// Its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line, which `write` writes without its end. Says whether it is time to [`LogFile::flush`].
    pub fn line(&mut self, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> bool {
        let before = self.lines.len();
        if write(&mut self.lines).is_ok() {
            self.lines.push(b'\n');
            self.count += 1;
        } else {
            self.lines.truncate(before);
        }
        self.lines.len() >= FULL
    }

    /// Writes the collected lines into the file that has the name now. Whatever comes of it, none is left.
    pub fn flush(&mut self) -> Written {
        if self.count == 0 {
            return Written::default();
        }
        let (error, whole) = match self.follow() {
            Ok(()) => self.append(),
            Err(e) => (Some(e), 0),
        };
        let all = std::mem::take(&mut self.count);
        let lines = if error.is_none() {
            all
        } else {
            self.lines[..whole].iter().filter(|b| **b == b'\n').count() as u64
        };
        self.lines.clear();
        Written {
            lines,
            lost: all.saturating_sub(lines),
            error,
        }
    }

    /// Goes over to another file if the name has become another's (logrotate's `create`), or nobody's.
    ///
    /// # Errors
    /// What the system says; there is no file then, and the next call tries again.
    pub fn follow(&mut self) -> io::Result<()> {
        let named = std::fs::metadata(&self.path).map(|m| id(&m));
        if self.file.is_some() && named.is_ok_and(|named| named == self.id) {
            return Ok(());
        }
        self.file = None;
        self.reopen()
    }

    fn reopen(&mut self) -> io::Result<()> {
        // A pipe that nobody reads must not keep the others waiting.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(i32::try_from(flags).unwrap_or(0))
            .open(&self.path)?;
        let metadata = file.metadata()?;
        self.id = id(&metadata);
        self.cut = ends_within_a_line(&self.path, &metadata);
        self.file = Some(file);
        Ok(())
    }

    /// What went wrong, and how many bytes of whole lines are in the file.
    fn append(&mut self) -> (Option<io::Error>, usize) {
        let Some(file) = &mut self.file else {
            return (Some(ErrorKind::NotFound.into()), 0);
        };
        if self.cut {
            if let Err(e) = file.write_all(b"\n") {
                return (Some(e), 0);
            }
            self.cut = false;
        }
        let mut done = 0;
        while done < self.lines.len() {
            let error = match file.write(&self.lines[done..]) {
                Ok(0) => ErrorKind::WriteZero.into(),
                Ok(n) => {
                    done += n;
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => e,
            };
            let whole = self.lines[..done]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |end| end + 1);
            self.cut = whole < done && take_back(file, done - whole).is_err();
            return (Some(error), whole);
        }
        (None, done)
    }
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Takes the last bytes of a file away.
fn take_back(file: &File, bytes: usize) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(ErrorKind::Unsupported.into());
    }
    file.set_len(metadata.len().saturating_sub(bytes as u64))
}

/// Was the file left with a part of a line, by a machine that lost its power?
fn ends_within_a_line(path: &Path, metadata: &Metadata) -> bool {
    if !metadata.is_file() || metadata.len() == 0 {
        return false;
    }
    let mut last = [0];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut last, metadata.len() - 1));
    read.is_ok() && last != *b"\n"
}
