//! The file with the pair's key: a line of 64 hexadecimal digits, for its owner's eyes alone. Empty lines and such as begin with `#` count for
//! nothing.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// The key of a pair. It is never printed: `Debug` says only that there is one.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKey(pub [u8; KEY_BYTES]);

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(..)")
    }
}

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
        why: &'static str,
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

/// Reads a key.
///
/// # Errors
/// [`KeyFileError`], also when somebody else than its owner could read it.
pub fn read(path: &Path) -> Result<SharedKey, KeyFileError> {
    let unreadable = |error: &io::Error| KeyFileError::Unreadable {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let malformed = |why| KeyFileError::Malformed {
        path: path.to_owned(),
        why,
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
        return Err(malformed("it is no file"));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    file.take(4096)
        .read_to_string(&mut text)
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => malformed("it is no text"),
            _ => unreadable(&error),
        })?;
    parse(&text).ok_or_else(|| malformed("a key is one line of 64 hexadecimal digits"))
}

fn parse(text: &str) -> Option<SharedKey> {
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let digits = lines.next()?.as_bytes();
    if digits.len() != 2 * KEY_BYTES || lines.next().is_some() {
        return None;
    }
    let nibble = |digit: u8| {
        let value = char::from(digit).to_digit(16)?;
        u8::try_from(value).ok()
    };
    let mut key = [0; KEY_BYTES];
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
    }
    Some(SharedKey(key))
}

/// Makes a key and writes it to a new file that its owner alone may read.
///
/// # Errors
/// As the system says; `AlreadyExists` where there is something of that name, which is left as it is.
pub fn generate(path: &Path) -> io::Result<()> {
    let mut key = [0; KEY_BYTES];
    let mut filled = 0;
    while filled < KEY_BYTES {
        filled += rustix::rand::getrandom(&mut key[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("# The key of a haechi HA pair: secret, the same file on both nodes.\n{digits}\n");
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    if let Err(error) = write(&mut file, &text) {
        // Half a key is none, and would be in the way of the next try.
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(())
}

fn write(file: &mut File, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_digits() {
        let digits = "00ff".repeat(16);
        let key = parse(&digits).unwrap();
        assert_eq!((key.0[0], key.0[1], key.0[31]), (0, 0xff, 0xff));
        let text = format!("# A key.\n\n {}\r\n", digits.to_uppercase());
        assert_eq!(parse(&text), Some(key.clone()));
        assert_eq!(format!("{key:?}"), "SharedKey(..)");
        let twice = format!("{digits}\n{digits}\n");
        for text in [
            "",
            "# A key.\n",
            &twice,
            &digits[1..],
            &format!("{digits}0"),
            &digits.replace('f', "g"),
            &"é".repeat(32),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
