//! Waking a sleeping worker: a worker that has nothing to do waits for descriptors on which packets announce themselves,
//! without polling and at no risk to its receive rings. They are the kernel sockets under AF_XDP and AF_PACKET ports (the
//! drivers have them, and DPDK has no call that gives them out) and the receive interrupts of other devices.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::net::{AddressFamily, sockopt};
use std::sync::Arc;

use crate::base::Nanos;

/// The process's AF_XDP and AF_PACKET sockets. What a port's start adds to them are that port's.
///
/// # Errors
/// When `/proc/self/fd` cannot be read.
pub fn packet_sockets() -> std::io::Result<BTreeSet<RawFd>> {
    let mut sockets = BTreeSet::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(fd) = name.to_str().and_then(|n| n.parse::<RawFd>().ok()) else {
            continue;
        };
        let domain = borrow(fd).map(sockopt::socket_domain);
        if matches!(domain, Some(Ok(AddressFamily::XDP | AddressFamily::PACKET))) {
            sockets.insert(fd);
        }
    }
    Ok(sockets)
}

/// A descriptor that this module does not own, for one system call that neither reads, writes nor closes it.
fn borrow<'a>(fd: RawFd) -> Option<BorrowedFd<'a>> {
    // SAFETY: not -1, which is all that the type relies on for memory. The callers ask the kernel about the descriptor or
    // put it into an epoll set, at once; if its owner closed it the kernel refuses, and if the number was given out again
    // meanwhile, a worker is woken for nothing at worst.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Rings for a worker that may be asleep. Clones ring the same one.
#[derive(Clone, Debug)]
pub struct Bell(Option<Arc<OwnedFd>>);

impl Bell {
    /// A bell for a worker that never sleeps for long: ringing it does nothing.
    #[must_use]
    pub const fn mute() -> Self {
        Self(None)
    }

    /// Wakes the worker.
    pub fn ring(&self) {
        if let Some(fd) = &self.0 {
            // An error would say that the count is at its limit: the worker has been rung for already.
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }
}

/// A descriptor on which packets announce themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcer {
    /// Readable as long as packets wait.
    Readable(RawFd),
    /// An interrupt of a queue, which its owner arms ([`super::RxQueue::arm`]). It tells once, and who comes too late to be
    /// told learns nothing: after arming it and before sleeping, look into the queue.
    ///
    /// Nothing is ever read from it, as DPDK's own `rte_epoll_wait` reads nothing from those of virtual devices: the next
    /// interrupt tells again whether the last one's count was read or not.
    Interrupt(RawFd),
}

impl Announcer {
    /// The descriptor.
    #[must_use]
    pub const fn fd(self) -> RawFd {
        match self {
            Self::Readable(fd) | Self::Interrupt(fd) => fd,
        }
    }

    const fn events(self) -> EventFlags {
        match self {
            Self::Readable(_) => EventFlags::IN,
            Self::Interrupt(_) => EventFlags::IN.union(EventFlags::ET),
        }
    }
}

const BELL: u64 = u64::MAX;

/// What one worker waits for: packets that announce themselves, and its bell.
#[derive(Debug)]
pub struct WakeSet {
    epoll: OwnedFd,
    bell: Arc<OwnedFd>,
}

impl WakeSet {
    /// A set with a bell alone.
    ///
    /// # Errors
    /// When the process has no file descriptors left.
    pub fn new() -> std::io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, bell.as_fd(), EventData::new_u64(BELL), EventFlags::IN)?;
        Ok(Self { epoll, bell })
    }

    /// The bell that wakes whoever waits for this set.
    #[must_use]
    pub fn bell(&self) -> Bell {
        Bell(Some(Arc::clone(&self.bell)))
    }

    /// Waits for `announcer`, too. A descriptor that is closed leaves the set by itself (epoll(7)).
    ///
    /// # Errors
    /// When it is no open descriptor that can be waited for.
    pub fn add(&self, announcer: Announcer) -> std::io::Result<()> {
        let borrowed = borrow(announcer.fd()).ok_or(rustix::io::Errno::BADF)?;
        match epoll::add(&self.epoll, borrowed, EventData::new_u64(0), announcer.events()) {
            Err(rustix::io::Errno::EXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    /// No longer waits for `announcer`; nothing happens when it is not in the set or closed.
    pub fn remove(&self, announcer: Announcer) {
        if let Some(borrowed) = borrow(announcer.fd()) {
            // The only errors say that it is not in the set.
            let _ = epoll::delete(&self.epoll, borrowed);
        }
    }

    /// Sleeps until a packet comes, the bell rings or `timeout` is over (false). Allocates nothing.
    pub fn wait(&self, timeout: Nanos) -> bool {
        let timeout = Timespec {
            tv_sec: (timeout.0 / 1_000_000_000) as i64,
            tv_nsec: (timeout.0 % 1_000_000_000) as i64,
        };
        let mut events = [Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        }; 8];
        // An error is a signal's interruption: the caller looks at its queues and comes again.
        let Ok(count) = epoll::wait(&self.epoll, &mut events, Some(&timeout)) else {
            return true;
        };
        if events.iter().take(count).any(|event| event.data.u64() == BELL) {
            let mut rings = [0u8; 8];
            // Non-blocking; an error says that it has been answered.
            let _ = rustix::io::read(&self.bell, &mut rings);
        }
        count > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SocketFlags, SocketType, socket_with};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    const LONG: Nanos = Nanos::from_secs(30);

    #[test]
    fn a_bell_wakes_once_per_answer() {
        let set = WakeSet::new().unwrap();
        let bell = set.bell();
        bell.ring();
        bell.clone().ring();
        assert!(set.wait(LONG));
        // Answered: the next wait runs into its timeout.
        assert!(!set.wait(Nanos::MILLISECOND));
        Bell::mute().ring();
    }

    #[test]
    fn a_socket_wakes_until_it_is_read_or_removed() {
        let set = WakeSet::new().unwrap();
        let (a, b) = UnixDatagram::pair().unwrap();
        let socket = Announcer::Readable(b.as_raw_fd());
        set.add(socket).unwrap();
        set.add(socket).unwrap();
        a.send(b"packet").unwrap();
        assert!(set.wait(LONG));
        assert!(set.wait(LONG));
        set.remove(socket);
        set.remove(socket);
        assert!(!set.wait(Nanos::MILLISECOND));
        assert!(set.add(Announcer::Readable(-1)).is_err());
    }

    /// Each of them, although nobody ever reads the count.
    #[test]
    fn an_interrupt_wakes_once() {
        let set = WakeSet::new().unwrap();
        let interrupt = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        set.add(Announcer::Interrupt(interrupt.as_raw_fd())).unwrap();
        for _ in 0..3 {
            rustix::io::write(&interrupt, &1u64.to_ne_bytes()).unwrap();
            assert!(set.wait(LONG));
            assert!(!set.wait(Nanos::MILLISECOND));
        }
    }

    #[test]
    fn packet_sockets_are_told_from_others() {
        let before = packet_sockets().unwrap();
        let unix = UnixDatagram::unbound().unwrap();
        let packet = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None);
        let after = packet_sockets().unwrap();
        assert!(!after.contains(&unix.as_raw_fd()));
        match packet {
            Ok(socket) => {
                assert!(after.contains(&socket.as_raw_fd()) && !before.contains(&socket.as_raw_fd()))
            }
            Err(e) => assert_eq!(e, rustix::io::Errno::PERM, "only privileges can be missing"),
        }
    }
}
