//! `tests/rssdev/rssdev.c`, a network card with RSS that does what it is told or lies: built, loaded, and told what to do.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const MAGIC: u64 = 0x3156_4544_5353_5248;
const QUEUES: u64 = 16;
const PORTS: u64 = 4;
/// `struct rssdev_ctl` up to its ports, `struct rssdev_port`.
const HEAD: u64 = 16;
const PORT: u64 = 16 + 16 * QUEUES + 16;

/// How the device's packets are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// They are right.
    Honest = 0,
    /// The hash is another one.
    WrongHash = 1,
    /// They come by another queue than their hash says.
    WrongQueue = 2,
    /// They come without a hash.
    NoHash = 3,
}

/// What the flows are made of; they take turns.
pub(crate) mod kinds {
    pub(crate) const UDP4: u32 = 1;
    pub(crate) const TCP4: u32 = 2;
    pub(crate) const ICMP4: u32 = 4;
    pub(crate) const UDP6: u32 = 8;
    pub(crate) const TCP6: u32 = 16;
    pub(crate) const ICMP6: u32 = 32;
    pub(crate) const ALL: u32 = UDP4 | TCP4 | ICMP4 | UDP6 | TCP6 | ICMP6;
}

/// The device, built once a process.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rssdev/rssdev.c");
        // Tests run side by side, in processes of their own too: whole or not there.
        let fresh = scratch("so");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("haechi-rssdev.so");
        let flags = Command::new("pkg-config")
            .args(["--cflags", "--libs-only-L", "libdpdk"])
            .output()
            .unwrap();
        let flags = String::from_utf8(flags.stdout).unwrap();
        let output = Command::new("cc")
            .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"])
            .args(["-fPIC", "-shared"])
            .args(flags.split_whitespace())
            .arg(&source)
            .arg("-o")
            .arg(&fresh)
            .args(["-lrte_ethdev", "-lrte_mbuf", "-lrte_mempool", "-lrte_eal"])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::rename(&fresh, &library).unwrap();
        library
    })
}

fn scratch(suffix: &str) -> PathBuf {
    let name = format!("haechi-rssdev-{}.{suffix}", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The page that is shared with the device.
pub(crate) struct RssDevice {
    file: File,
    path: PathBuf,
}

impl RssDevice {
    /// A device for programs that are started with [`RssDevice::environment`]: `flows` flows of these [`kinds`], none sent yet.
    pub(crate) fn new(name: &str, flows: u32, kinds: u32) -> Self {
        let path = scratch(&format!("{}.ctl", name.replace(':', "-")));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        file.set_len(HEAD + PORTS * PORT).unwrap();
        file.write_all_at(&flows.to_le_bytes(), 8).unwrap();
        file.write_all_at(&kinds.to_le_bytes(), 12).unwrap();
        Self { file, path }
    }

    /// In the process that has it loaded.
    pub(crate) fn here() -> Self {
        let path = PathBuf::from(std::env::var_os("HAECHI_RSSDEV_CTL").unwrap());
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let device = Self { file, path };
        assert_eq!(device.read(0), MAGIC, "the device is not loaded");
        device
    }

    /// `NAME=VALUE` for the program. `settings`: see `tests/rssdev/device.h`.
    pub(crate) fn environment(&self, settings: &str) -> Vec<OsString> {
        let pair = |name: &str, value: &Path| {
            let mut text = OsString::from(name);
            text.push("=");
            text.push(value);
            text
        };
        vec![
            pair("LD_PRELOAD", library()),
            pair("HAECHI_RSSDEV_CTL", &self.path),
            OsString::from(format!("HAECHI_RSSDEV={settings}")),
        ]
    }

    fn read(&self, at: u64) -> u64 {
        let mut word = [0; 8];
        self.file.read_exact_at(&mut word, at).unwrap();
        u64::from_le_bytes(word)
    }

    fn port(port: u16, at: u64) -> u64 {
        HEAD + u64::from(port) * PORT + at
    }

    /// From now on the packets of a port are wrong like this, one of `every` of them.
    pub(crate) fn lie(&self, port: u16, lie: Lie, every: u32) {
        self.file
            .write_all_at(&every.to_le_bytes(), Self::port(port, 12))
            .unwrap();
        self.file
            .write_all_at(&(lie as u32).to_le_bytes(), Self::port(port, 8))
            .unwrap();
    }

    /// Has a port (N of `net_nullN`) send all flows `passes` times more: the even ones what the openers of the flows send, the odd
    /// ones the answers.
    pub(crate) fn send(&self, port: u16, passes: u64) {
        let at = Self::port(port, 0);
        let passes = self.read(at) + passes;
        self.file.write_all_at(&passes.to_le_bytes(), at).unwrap();
    }

    /// Has the port sent all?
    pub(crate) fn is_done(&self, port: u16) -> bool {
        let passes = self.read(Self::port(port, 0));
        (0..self.queues(port)).all(|q| self.read(Self::port(port, 16 + 8 * q)) == passes)
    }

    /// Pulls a port's device out while it is polled; it must be `removable`.
    pub(crate) fn pull(&self, port: u16) {
        let at = Self::port(port, PORT - 8);
        let pulls = self.read(at) + 1;
        self.file.write_all_at(&pulls.to_le_bytes(), at).unwrap();
    }

    fn queues(&self, port: u16) -> u64 {
        self.read(Self::port(port, PORT - 16))
    }

    /// Packets that a port has delivered, by queue.
    pub(crate) fn sent(&self, port: u16) -> Vec<u64> {
        (0..self.queues(port))
            .map(|q| self.read(Self::port(port, 16 + 8 * (QUEUES + q))))
            .collect()
    }

    /// Removes the page.
    pub(crate) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
