//! A bad line between a host and its port: a stage in a namespace of its own that takes every frame from one side and
//! sends it on by the other, some never, the others later, in another order. Whole frames as they are, both ways.
//!
//! One thread works both stages of a pair, by a clock that stands still while the thread does not run: so a busy machine delays
//! everything alike, and no frame is overtaken by more than the weather says.
//!
//! The fate of a frame comes from seeded numbers. When frames arrive is up to the clients and the machine, so a seed
//! repeats the kind of weather, not every drop of rain.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, send};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::frames::Random;
use super::netns::Netns;

/// What happens to frames, each way.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Of a thousand frames so many are lost.
    pub loss_per_mille: usize,
    /// Every frame takes this long at least.
    pub delay: Duration,
    /// And up to this much longer, each for itself: so they overtake each other.
    pub jitter: Duration,
}

/// What a stage did.
#[derive(Debug, Default)]
pub struct Tally {
    /// Frames taken.
    pub taken: AtomicU64,
    /// Frames lost on purpose.
    pub lost: AtomicU64,
    /// Frames sent on towards the node.
    pub to_node: AtomicU64,
    /// Frames sent on towards the host.
    pub to_host: AtomicU64,
    /// Frames sent on after one that had come later.
    pub overtaken: AtomicU64,
    /// Frames that went to the node and have not come out of it (by the other stage) yet.
    pub inside: Mutex<HashMap<Vec<u8>, u64>>,
}

/// Sees every frame that the node has let pass, before the stage decides its fate.
pub type Watch = Box<dyn FnMut(&[u8]) + Send>;

/// The stage's interface towards the node; the one towards the host is named after the port, as a port's near end is.
const TO_NODE: &str = "to-node";

/// A running stage.
pub struct Stage {
    /// What it has done so far.
    pub tally: Arc<Tally>,
    node: Arc<OwnedFd>,
    _thread: Arc<Thread>,
    _ns: Netns,
}

/// A wired stage.
pub struct Wired {
    ns: Netns,
    relay: Relay,
}

/// What works the stages; ends when dropped.
struct Thread {
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl Stage {
    /// A namespace for a stage: a host is joined to it as to the firewall's, and [`Stage::start`] does the rest.
    #[must_use]
    pub fn namespace(name: &str) -> Netns {
        let ns = Netns::new(name);
        ns.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        ns.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        ns
    }

    /// Wires `ns`, which has the near end `port` of a host, to an interface `port` of the firewall's namespace.
    #[must_use]
    pub fn wire(ns: Netns, firewall: &Netns, port: &str, weather: Weather, seed: u64, watch: Watch) -> Wired {
        firewall.ip(&format!(
            "link add {port} type veth peer name {TO_NODE} netns {}",
            ns.name()
        ));
        for (ns, interface) in [(&ns, TO_NODE), (firewall, port)] {
            ns.exec(&format!(
                "ethtool -K {interface} tx off tso off gso off gro off rxvlan off txvlan off"
            ));
            ns.ip(&format!("link set dev {interface} addrgenmode none arp off up"));
        }
        let relay = Relay {
            host: ns.packet_socket(port),
            node: Arc::new(ns.packet_socket(TO_NODE)),
            weather,
            random: Random::new(seed),
            tally: Arc::default(),
            watch,
            other: None,
            queue: BinaryHeap::new(),
            arrivals: 0,
            sent: [0; 2],
        };
        Wired { ns, relay }
    }

    /// Begins the work on both sides of the node.
    #[must_use]
    pub fn start(wired: [Wired; 2]) -> [Self; 2] {
        let [mut a, mut b] = wired;
        (a.relay.other, b.relay.other) = (Some(b.relay.tally.clone()), Some(a.relay.tally.clone()));
        let shown = [&a.relay, &b.relay].map(|relay| (relay.tally.clone(), relay.node.clone()));
        let mut relays = [a.relay, b.relay];
        let stop = Arc::new(AtomicBool::new(false));
        let handle = {
            let stop = stop.clone();
            std::thread::spawn(move || run(&mut relays, &stop))
        };
        let thread = Arc::new(Thread {
            stop,
            handle: Some(handle),
        });
        let stage = |ns, (tally, node)| Self {
            tally,
            node,
            _thread: thread.clone(),
            _ns: ns,
        };
        let [left, right] = shown;
        [stage(a.ns, left), stage(b.ns, right)]
    }

    /// Frames that went from here to the node and have not come out of it by the other side: what they say, at most 20.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let inside = self.tally.inside.lock().unwrap();
        let frames = inside.keys().take(20);
        frames
            .map(|frame| match etherparse::SlicedPacket::from_ethernet(frame) {
                Ok(packet) => format!("{:?} {:?}", packet.net, packet.transport),
                Err(_) => format!("{frame:02x?}"),
            })
            .collect()
    }

    /// Puts a frame onto the wire to the node, past the weather. `false`: the interface does not take it now.
    #[must_use]
    pub fn inject(&self, frame: &[u8]) -> bool {
        transmit(&self.node, frame)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(Err(panic)) = self.handle.take().map(JoinHandle::join) else {
            return;
        };
        if !std::thread::panicking() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// A frame that waits for its time.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: Duration,
    arrival: u64,
    to_node: bool,
    frame: Vec<u8>,
}

struct Relay {
    host: OwnedFd,
    node: Arc<OwnedFd>,
    weather: Weather,
    random: Random,
    tally: Arc<Tally>,
    watch: Watch,
    other: Option<Arc<Tally>>,
    queue: BinaryHeap<Reverse<Waiting>>,
    arrivals: u64,
    /// The latest arrival sent, each way.
    sent: [u64; 2],
}

/// Frames that are taken from one side before the other has its turn.
const TURN: usize = 64;
/// How soon a stage that is to end notices.
const NOTICE: Duration = Duration::from_millis(50);

/// More than this between two turns, but for waiting, and the thread was kept from running: that time does not count.
const HELD_UP: Duration = Duration::from_millis(1);

fn run(relays: &mut [Relay; 2], stop: &AtomicBool) {
    let (mut last, mut now, mut waited) = (Instant::now(), Duration::ZERO, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let real = Instant::now();
        now += (real - last).min(waited + HELD_UP);
        last = real;
        for relay in relays.iter_mut() {
            relay.take(true, now);
            relay.take(false, now);
        }
        // Over both stages in order of time.
        while let Some((_, relay)) = relays
            .iter_mut()
            .filter_map(|relay| Some((relay.next_due()?, relay)))
            .min_by_key(|(due, _)| *due)
            .filter(|(due, _)| *due <= now)
        {
            if !relay.send_next() {
                break; // tried again after the wait for sockets, which are ready soon
            }
        }
        let due = relays.iter().filter_map(Relay::next_due).min();
        waited = due.map_or(NOTICE, |due| due.saturating_sub(now).min(NOTICE));
        let wait = Timespec::try_from(waited).unwrap();
        let [a, b] = &*relays;
        let mut sockets = [&a.host, &a.node, &b.host, &b.node].map(|fd| PollFd::new(fd, PollFlags::IN));
        match poll(&mut sockets, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => panic!("poll: {e}"),
        }
    }
}

impl Relay {
    fn next_due(&self) -> Option<Duration> {
        self.queue.peek().map(|Reverse(next)| next.due)
    }

    /// Takes what has come in by one side and decides its fate.
    fn take(&mut self, to_node: bool, now: Duration) {
        let mut buffer = [0; 65_536];
        for _ in 0..TURN {
            let from = if to_node {
                self.host.as_raw_fd()
            } else {
                self.node.as_raw_fd()
            };
            let (len, address) = match recvfrom::<LinkAddr>(from, &mut buffer) {
                Ok(received) => received,
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                // An interface that goes down says so once, at the end of a test.
                Err(Errno::ENETDOWN) => return,
                Err(e) => panic!("recvfrom: {e}"),
            };
            // What it sends itself is heard as well.
            if address.is_some_and(|a| a.pkttype() == PACKET_OUTGOING) {
                continue;
            }
            let frame = &buffer[..len];
            if !to_node {
                (self.watch)(frame);
                self.came_out(frame);
            }
            self.tally.taken.fetch_add(1, Ordering::Relaxed);
            if self.random.chance(self.weather.loss_per_mille, 1000) {
                self.tally.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let jitter = self
                .weather
                .jitter
                .mul_f64(self.random.below(1001) as f64 / 1000.0);
            self.arrivals += 1;
            self.queue.push(Reverse(Waiting {
                due: now + self.weather.delay + jitter,
                arrival: self.arrivals,
                to_node,
                frame: frame.to_vec(),
            }));
        }
    }

    fn came_out(&self, frame: &[u8]) {
        let Some(other) = &self.other else { return };
        let mut inside = other.inside.lock().unwrap();
        let Some(count) = inside.get_mut(frame) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            inside.remove(frame);
        }
    }

    /// Sends the frame whose turn it is. `false`: not now.
    fn send_next(&mut self) -> bool {
        let Some(Reverse(next)) = self.queue.peek() else {
            return true;
        };
        let to = if next.to_node { &*self.node } else { &self.host };
        if next.to_node {
            *self
                .tally
                .inside
                .lock()
                .unwrap()
                .entry(next.frame.clone())
                .or_default() += 1;
        }
        if !transmit(to, &next.frame) {
            return false;
        }
        let tally = &self.tally;
        let count = if next.to_node {
            &tally.to_node
        } else {
            &tally.to_host
        };
        count.fetch_add(1, Ordering::Relaxed);
        let latest = &mut self.sent[usize::from(next.to_node)];
        if next.arrival < *latest {
            tally.overtaken.fetch_add(1, Ordering::Relaxed);
        }
        *latest = next.arrival.max(*latest);
        self.queue.pop();
        true
    }
}

/// `PACKET_OUTGOING` of packet(7).
const PACKET_OUTGOING: u8 = 4;

/// Sends one frame. `false`: not now.
fn transmit(socket: &OwnedFd, frame: &[u8]) -> bool {
    match send(socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT) {
        Ok(sent) => {
            assert_eq!(sent, frame.len());
            true
        }
        Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => false,
        // The other end is gone or down: as a cable that is pulled, it swallows.
        Err(Errno::ENETDOWN | Errno::ENXIO) => true,
        Err(e) => panic!("a frame of {} bytes: {e}", frame.len()),
    }
}
