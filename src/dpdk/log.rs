//! What DPDK and its drivers have to say: kept in memory, bounded, and never on the user's screen.
#![allow(
    clippy::disallowed_types,
    reason = "drivers log from any thread, when something is wrong; no packet path waits here while all is well"
)]

use std::{
    collections::VecDeque,
    ffi::{c_char, c_int},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Lines that are kept; the oldest go first.
const MAX_LINES: usize = 256;
/// A line's bytes; the rest is cut.
const MAX_LINE: usize = 512;

struct Log {
    lines: VecDeque<String>,
    /// A line without its end so far.
    partial: Vec<u8>,
    /// The number of the next line, counted since the start.
    next: u64,
    /// The number of the first line that [`take`] has not given out yet.
    taken: u64,
}

static LOG: Mutex<Log> = Mutex::new(Log {
    lines: VecDeque::new(),
    partial: Vec::new(),
    next: 0,
    taken: 0,
});

fn lock() -> MutexGuard<'static, Log> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.partial.len() < MAX_LINE {
                self.partial.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.partial).trim().to_owned();
        self.partial.clear();
        if line.is_empty() {
            return;
        }
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        self.next += 1;
    }

    fn since(&self, mark: u64) -> Vec<String> {
        let first = self.next - self.lines.len() as u64;
        let skip = usize::try_from(mark.saturating_sub(first)).unwrap_or(usize::MAX);
        self.lines.iter().skip(skip).cloned().collect()
    }
}

/// Adds text as a driver wrote it.
pub(super) fn write(bytes: &[u8]) {
    lock().write(bytes);
}

/// A place in the log.
pub(super) fn mark() -> u64 {
    lock().next
}

/// The lines after a place.
pub(super) fn since(mark: u64) -> Vec<String> {
    lock().since(mark)
}

/// The lines since the last call.
pub(super) fn take() -> Vec<String> {
    let mut log = lock();
    let lines = log.since(log.taken);
    log.taken = log.next;
    lines
}

/// The sink of the stream that DPDK logs to.
pub(super) unsafe extern "C" fn sink(text: *const c_char, length: usize) {
    if !text.is_null() {
        // SAFETY: stdio hands its buffer of `length` bytes to the stream's write function, and it is only read here.
        write(unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) });
    }
}

/// Standard output and standard error go to a memory file while this lives: the EAL prints its usage and its last words
/// past its own log. Then what was written there is in the log.
pub(super) struct Captured {
    file: std::fs::File,
    saved: [(c_int, c_int); 2],
}

impl Captured {
    /// Begins to capture; `None` (and nothing changed) when the process is out of file descriptors.
    pub(super) fn start() -> Option<Self> {
        use std::os::fd::{AsRawFd, FromRawFd};
        // SAFETY: the name is a C string; the call makes a new descriptor or returns -1.
        let fd = unsafe { libc::memfd_create(c"haechi-eal".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return None;
        }
        // SAFETY: `fd` is a new descriptor that nobody else owns.
        let file = unsafe { std::fs::File::from_raw_fd(fd) };
        let mut saved = [(1, -1), (2, -1)];
        for (target, save) in &mut saved {
            // SAFETY: duplicating a descriptor has no memory effects; a closed one gives -1, which `drop` heeds.
            *save = unsafe { libc::fcntl(*target, libc::F_DUPFD_CLOEXEC, 3) };
            if *save >= 0 {
                // SAFETY: both are open descriptors of this process.
                unsafe { libc::dup2(file.as_raw_fd(), *target) };
            }
        }
        Some(Self { file, saved })
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        use std::io::{Read, Seek};
        for (target, save) in self.saved {
            if save >= 0 {
                // SAFETY: stdio buffers are flushed while their descriptor still is the memory file; `save` is the
                // descriptor that `start` made, put back and closed once.
                unsafe {
                    libc::fflush(std::ptr::null_mut());
                    libc::dup2(save, target);
                    libc::close(save);
                }
            }
        }
        let mut text = Vec::new();
        if self.file.rewind().is_ok() && (&self.file).take(1 << 20).read_to_end(&mut text).is_ok() {
            write(&text);
            write(b"\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_read_once() {
        let mut log = Log {
            lines: VecDeque::new(),
            partial: Vec::new(),
            next: 0,
            taken: 0,
        };
        for i in 0..MAX_LINES + 10 {
            log.write(format!("line {i}\n\n").as_bytes());
        }
        assert_eq!(log.lines.len(), MAX_LINES);
        assert_eq!(log.since(0).len(), MAX_LINES);
        assert_eq!(
            log.since(log.next - 2),
            [
                format!("line {}", MAX_LINES + 8),
                format!("line {}", MAX_LINES + 9)
            ]
        );
        assert!(log.since(log.next).is_empty());
        log.write(&vec![b'x'; 2 * MAX_LINE]);
        log.write(b"\n");
        assert_eq!(log.lines.back().map(String::len), Some(MAX_LINE));
    }
}
