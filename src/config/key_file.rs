//! The file with the pair's key ([`PairKey::to_text`]), for its owner's eyes alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::ha::seal::PairKey;

/// Why a key file is not to be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// It is not there.
    #[error("there is no {path}")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read by who asks.
    #[error("{path} cannot be read: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// Others than its owner may read or write it.
    #[error("{path} is not for its owner's eyes alone: its mode is {mode:04o}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is not a key.
    #[error("{path} is not a key: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why not; nothing of its content.
        why: String,
    },
}

impl KeyFileError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Missing { .. } => format!(
                "make it by `haechi ha keygen {path}` on one node, and copy it to the other one; a node does not start without it"
            ),
            Self::Unreadable { .. } => {
                "ask as the user that the node runs as, who must be able to read it".to_owned()
            }
            Self::Exposed { .. } => format!("`chmod 600 {path}`; if others could read it, make a new key"),
            Self::Malformed { .. } => format!("move it away, and make one by `haechi ha keygen {path}`"),
        }
    }
}

/// Bytes of a key file at most: room for some lines of comments.
const LONGEST: usize = 4096;

/// Reads a key.
///
/// # Errors
/// [`KeyFileError`], also when somebody else than its owner could read it.
pub fn read(path: &Path) -> Result<PairKey, KeyFileError> {
    let unreadable = |error: &io::Error| KeyFileError::Unreadable {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let malformed = |why: &dyn std::fmt::Display| KeyFileError::Malformed {
        path: path.to_owned(),
        why: why.to_string(),
    };
    // What is opened is asked, so that it is the file that is read. Not blocking: it may be a pipe.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking as i32)
        .open(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => KeyFileError::Missing {
                path: path.to_owned(),
            },
            _ => unreadable(&error),
        })?;
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err(malformed(&"it is no file"));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    // Never moved while it grows: a copy would stay behind.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST));
    file.take(LONGEST as u64)
        .read_to_string(&mut text)
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => malformed(&"it is no text"),
            _ => unreadable(&error),
        })?;
    PairKey::from_text(&text).map_err(|error| malformed(&error))
}

/// Makes a key and writes it to a new file that its owner alone may read.
///
/// # Errors
/// As the system says; `AlreadyExists` where there is something of that name, which is left as it is.
pub fn generate(path: &Path) -> io::Result<()> {
    let key = PairKey::generate(random)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    if let Err(error) = write(&mut file, &key.to_text()) {
        // Half a key is none, and would be in the way of the next try.
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(())
}

fn random(key: &mut [u8; 32]) -> io::Result<()> {
    let mut filled = 0;
    while filled < key.len() {
        filled += rustix::rand::getrandom(&mut key[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}

fn write(file: &mut File, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
