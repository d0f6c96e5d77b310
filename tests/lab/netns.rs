//! Network namespaces: made, entered and removed.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, bind, setsockopt, socket, sockopt,
};

use super::process::{Process, run};

/// All namespaces of all labs are named `hxlab-<process id>-<number>-<what>`.
const PREFIX: &str = "hxlab-";

/// A name that no other lab of this machine has.
#[must_use]
pub fn unique_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{PREFIX}{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Removes the namespaces of test processes that are no more (they were killed).
pub fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name
            .to_str()
            .and_then(|n| n.strip_prefix(PREFIX))
            .and_then(|n| n.split('-').next())
        else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            let _ = Command::new("ip")
                .args([OsStr::new("netns"), OsStr::new("del"), &name])
                .output();
        }
    }
}

/// A lab's turn: while it is held, other labs of the same target directory wait.
pub struct Turn {
    _lock: Flock<File>,
}

impl Turn {
    /// Waits for its turn.
    #[must_use]
    pub fn take() -> Self {
        let file = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab.lock")).unwrap();
        Self {
            _lock: Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, e)| e)
                .unwrap(),
        }
    }
}

/// A network namespace.
pub struct Netns {
    name: String,
}

impl Netns {
    /// A new namespace with its loopback up.
    #[must_use]
    pub fn new(name: &str) -> Self {
        run(Command::new("ip").args(["netns", "add", name]));
        let ns = Self { name: name.into() };
        ns.ip("link set lo up");
        ns
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its handle in the file system.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs an `ip` command in it, for instance `link set e0 up`.
    pub fn ip(&self, command: &str) -> String {
        run(Command::new("ip")
            .args(["-n", &self.name])
            .args(command.split_whitespace()))
    }

    /// A command that runs in it (with its own `/sys`), and dies with the thread that starts it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "ip", "netns", "exec", &self.name])
            .arg(program);
        command
    }

    /// Runs a command line in it to its end (a minute at most); panics if it fails.
    pub fn exec(&self, line: &str) -> String {
        run(self.command("timeout").arg("60").args(line.split_whitespace()))
    }

    /// Runs a command line in it to its end (a minute at most), whatever that is: success, and all it said.
    pub fn try_exec(&self, line: &str) -> (bool, String) {
        let output = self
            .command("timeout")
            .arg("60")
            .args(line.split_whitespace())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    /// Starts a command line in it.
    pub fn spawn(&self, dir: &Path, what: &str, line: &str) -> Process {
        let mut words = line.split_whitespace();
        Process::spawn(self.command(words.next().unwrap()).args(words), dir, what)
    }

    /// Runs `task` on a thread inside the namespace. A socket made there stays there, wherever it is used.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let handle = File::open(self.path()).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(handle, CloneFlags::CLONE_NEWNET).unwrap();
                task()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Sets a value under `/proc/sys`.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys").join(key);
        self.run(|| std::fs::write(&path, value).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    }

    /// A bridge with these members, up.
    pub fn bridge(&self, name: &str, members: &[&str]) {
        self.ip(&format!(
            "link add name {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        ));
        for member in members {
            self.ip(&format!("link set dev {member} master {name} up"));
        }
        self.ip(&format!("link set dev {name} up"));
    }

    /// A raw socket that sends frames by this interface and receives none.
    #[must_use]
    pub fn raw_socket(&self, interface: &str) -> OwnedFd {
        self.run(|| {
            let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
            bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &link_address(interface)).unwrap();
            fd
        })
    }

    /// A raw socket that sends frames by this interface and receives all that it sees (its own too), without waiting.
    #[must_use]
    pub fn packet_socket(&self, interface: &str) -> OwnedFd {
        /// Frames wait here while the machine is busy with something else.
        const BUFFER: usize = 32 << 20;
        self.run(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
            setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).unwrap();
            bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &link_address(interface)).unwrap();
            fd
        })
    }

    /// The interface's state as `ip -json link` shows it (`operstate`, `flags`, ...); `None`: there is none.
    #[must_use]
    pub fn link(&self, interface: &str) -> Option<serde_json::Value> {
        let output = Command::new("ip")
            .args([
                "-n", &self.name, "-json", "-stats", "link", "show", "dev", interface,
            ])
            .output()
            .unwrap();
        let links: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(links[0].clone())
    }

    /// Has the interface a carrier?
    #[must_use]
    pub fn carrier(&self, interface: &str) -> bool {
        self.link(interface).is_some_and(|l| {
            l["flags"]
                .as_array()
                .is_some_and(|flags| flags.iter().any(|f| f == "LOWER_UP"))
        })
    }
}

/// Where a packet socket is bound to; of the thread's namespace.
fn link_address(interface: &str) -> LinkAddr {
    nix::ifaddrs::getifaddrs()
        .unwrap()
        .filter(|i| i.interface_name == interface)
        .find_map(|i| i.address?.as_link_addr().copied())
        .unwrap_or_else(|| panic!("no interface {interface}"))
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}
