//! How an idle worker waits, on real DPDK ports: it sleeps until packets announce themselves, loses none of a burst that
//! wakes it, does not spin for a port that has no peer, never sleeps with `idle = "poll"`, and finds out when a port does not
//! announce what it should.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's way to fail")]
#![allow(
    clippy::disallowed_methods,
    reason = "deadlines against hanging, and turns per time"
)]

mod runtime;

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use haechi::base::PortId;
use haechi::dpdk::thread::Registered;
use haechi::dpdk::wake::Announcer;
use haechi::dpdk::{Burst, Device, Eal, Mempool, Port, PortSetup, RxQueue, TxQueue};
use haechi::packet::PacketBuf;
use haechi::runtime::command::{Command, Reply};
use haechi::runtime::stats::{Counts, PortCounts};
use haechi::runtime::worker::Worker;
use runtime::{Bench, frame, start_eal, two_ports};

const ALL: &str = "[[rule]]\nname = \"all\"\naction = \"allow\"\n";
const PATIENCE: Duration = Duration::from_secs(20);
/// What a guest's ring takes at once, half of it.
const BURST: u64 = 256;

/// One test after the other: the EAL's main thread and its ports are the process's.
#[test]
fn an_idle_worker_waits_for_what_can_wake_it() {
    let eal = start_eal();
    sleeps_until_a_guest_sends(&eal);
    never_sleeps_when_it_polls(&eal);
    does_not_spin_for_a_port_without_a_peer(&eal);
    does_not_rely_on_a_port_that_fails_to_wake_it(&eal);
}

/// A worker on its thread.
struct Running {
    bench: Bench,
    thread: std::thread::JoinHandle<Worker>,
}

impl Running {
    fn new(eal: &Eal, lan: &str, wan: &str, adaptive: bool) -> Self {
        Self::of(Bench::new(eal, &two_ports(lan, wan, ALL), adaptive))
    }

    fn of(mut bench: Bench) -> Self {
        let worker = bench.worker.take().unwrap();
        let thread = std::thread::spawn({
            let eal = bench.eal.clone();
            move || {
                let _registered = Registered::new(&eal).unwrap();
                worker.run()
            }
        });
        for id in [PortId(1), PortId(0)] {
            let queues = Box::new(bench.queues.pop().unwrap());
            let given = bench.link.ask(Command::GivePort(id, queues), PATIENCE).unwrap();
            assert!(matches!(given, Reply::GivePort(None)));
        }
        let running = Self { bench, thread };
        assert!(matches!(running.ask(Command::Begin), Reply::Begin));
        running
    }

    fn ask(&self, command: Command) -> Reply {
        self.bench.link.ask(command, PATIENCE).unwrap()
    }

    /// What it counted, without a question that would wake it.
    fn counts(&self) -> (Counts, Vec<PortCounts>) {
        self.bench.stats.read()
    }

    /// Turns in a second, over a tenth of one.
    fn turns_a_second(&self) -> u64 {
        let (before, start) = (self.counts().0.turns, Instant::now());
        std::thread::sleep(Duration::from_millis(100));
        let turns = self.counts().0.turns - before;
        turns * 1_000_000 / (start.elapsed().as_micros() as u64)
    }

    /// Waits until it turns so seldom, or so often.
    fn settles(&self, what: &str, within: impl std::ops::RangeBounds<u64>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let turns = self.turns_a_second();
            if within.contains(&turns) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {turns} turns a second");
        }
    }

    /// Waits until it has received so many packets on its first port.
    fn receives(&self, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.counts().1[0].rx_packets < count {
            assert!(Instant::now() < deadline, "{:?}", self.counts());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(self) -> Bench {
        assert!(matches!(self.ask(Command::Stop), Reply::Stop));
        drop(self.thread.join().unwrap());
        let (counts, _) = self.bench.stats.read();
        assert!(counts.is_even() && counts.held == 0, "{counts:?}");
        self.bench
    }
}

/// The far end of a port.
struct Far {
    port: Port,
    rx: RxQueue,
    tx: TxQueue,
    pool: Mempool,
}

impl Far {
    fn new(eal: &Eal, device: &str) -> Self {
        let device: Device = device.parse().unwrap();
        let mut port = Port::open(eal, "far", &device, 1500).unwrap();
        let setup = PortSetup {
            packet_buffers: 4095,
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 512,
            tx_descriptors: 512,
            rx_interrupts: false,
        };
        port.configure(&setup).unwrap();
        let (mut rx, mut tx) = port.start().unwrap();
        Self {
            port,
            rx: rx.remove(0),
            tx: tx.remove(0),
            pool: Mempool::create(eal, "far", 1000, 1500).unwrap(),
        }
    }

    /// As fast as it can.
    fn send(&mut self, frame: &[u8], count: u64) {
        let mut left = count;
        while left > 0 {
            let mut out = Burst::new();
            assert!(self.pool.alloc_bulk(&mut out, left.min(32) as usize));
            out.iter_mut().for_each(|packet| packet.try_fill(frame).unwrap());
            let waiting = out.len();
            assert_eq!(self.tx.tx_burst(&mut out), waiting, "the ring is full");
            left -= waiting as u64;
        }
    }

    /// Waits for as many.
    fn receive(&mut self, frame: &[u8], count: u64) {
        let deadline = Instant::now() + PATIENCE;
        let mut got = 0;
        while got < count {
            let mut burst = Burst::new();
            self.rx.rx_burst(&mut burst, 32);
            got += burst.iter().filter(|packet| packet.bytes() == frame).count() as u64;
            assert!(Instant::now() < deadline, "{got} of {count} arrived");
        }
    }

    fn close(self) {
        let Self { port, rx, tx, pool } = self;
        drop((rx, tx, pool));
        port.close().unwrap();
    }
}

/// Two hosts, whose guests are the far ends.
fn hosts(dir: &Path) -> ([String; 2], [String; 2]) {
    let dir = dir.display();
    (
        [0, 1].map(|n| format!("vdev:net_vhost{n},iface={dir}/{n}")),
        [0, 1].map(|n| format!("vdev:net_virtio_user{n},path={dir}/{n},queue_size=1024")),
    )
}

/// The two ends of a memif.
fn memif(name: &str) -> [String; 2] {
    let socket = format!("@haechi-idle-{}-{name}", std::process::id());
    [("server", 0), ("client", 2)]
        .map(|(role, n)| format!("vdev:net_memif{n},role={role},socket={socket},socket-abstract=yes"))
}

fn links_are_up(running: &Running) {
    let deadline = Instant::now() + PATIENCE;
    while !running
        .bench
        .ports
        .iter()
        .all(|port| port.device_link().unwrap().up)
    {
        assert!(Instant::now() < deadline, "no link");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn sleeps_until_a_guest_sends(eal: &Eal) {
    let dir = tempfile::tempdir().unwrap();
    let (hosts, guests) = hosts(dir.path());
    let running = Running::new(eal, &hosts[0], &hosts[1], true);
    let [mut a, mut b] = guests.map(|guest| Far::new(eal, &guest));
    links_are_up(&running);
    let frame = frame("udp 10.0.0.5:1000 > 192.0.2.7:53");
    for round in 1..=20 {
        // By the clock, a ring of 1024 would take 29,000.
        running.settles("a worker that packets wake", ..1000);
        a.send(&frame, BURST);
        b.receive(&frame, BURST);
        // It publishes a little later than it sends.
        running.receives(round * BURST);
        let (counts, ports) = running.counts();
        let sent: u64 = counts.drops.iter().sum();
        assert_eq!((ports[0].rx_packets, sent), (round * BURST, 0), "nothing is lost");
    }
    a.close();
    b.close();
    running.stop().close();
}

fn never_sleeps_when_it_polls(eal: &Eal) {
    let dir = tempfile::tempdir().unwrap();
    let (hosts, guests) = hosts(dir.path());
    let bench = Bench::new(eal, &two_ports(&hosts[0], &hosts[1], ALL), false);
    for queues in &bench.queues {
        assert_eq!(
            (
                queues.announcers.as_slice(),
                queues.rx.as_ref().unwrap().announcer()
            ),
            (&[][..], None)
        );
    }
    let running = Running::of(bench);
    let [mut a, mut b] = guests.map(|guest| Far::new(eal, &guest));
    links_are_up(&running);
    let frame = frame("udp 10.0.0.5:1000 > 192.0.2.7:53");
    a.send(&frame, BURST);
    b.receive(&frame, BURST);
    running.settles("a worker that polls", 100_000..);
    a.close();
    b.close();
    running.stop().close();
}

fn does_not_spin_for_a_port_without_a_peer(eal: &Eal) {
    let [server, client] = memif("a");
    let running = Running::new(eal, &server, "vdev:net_null1,no-rx=1", true);
    // What the keeper does.
    let look = || {
        for port in &running.bench.ports {
            let link = port.device_link().unwrap();
            port.flags().set_link_up(link.up);
        }
    };
    look();
    assert!(!running.bench.ports[0].flags().link_up());
    running.settles("a worker whose port has no peer", ..2_000);
    // The peer comes, and sends before anybody has seen its link.
    let mut peer = Far::new(eal, &client);
    let deadline = Instant::now() + PATIENCE;
    while !peer.port.link().up {
        assert!(Instant::now() < deadline, "no link");
    }
    let frame = frame("udp 10.0.0.5:1000 > 192.0.2.7:53");
    peer.send(&frame, BURST);
    running.receives(BURST);
    // By the clock now, in half the time in which the ring fills at 10 Gbit/s: it still sleeps.
    look();
    assert!(running.bench.ports[0].flags().link_up());
    running.settles("a worker whose port has a peer", 3_000..30_000);
    peer.send(&frame, BURST);
    running.receives(2 * BURST);
    peer.close();
    running.stop().close();
}

/// The port says that packets announce themselves, on a descriptor that nobody ever touches.
fn does_not_rely_on_a_port_that_fails_to_wake_it(eal: &Eal) {
    let [server, client] = memif("b");
    let mut bench = Bench::new(eal, &two_ports(&server, "vdev:net_ring1", ALL), true);
    let (nobody, _rings) = std::os::unix::net::UnixDatagram::pair().unwrap();
    for queues in &mut bench.queues {
        queues.announcers = vec![Announcer::Readable(nobody.as_raw_fd())];
    }
    let running = Running::of(bench);
    let mut peer = Far::new(eal, &client);
    links_are_up(&running);
    let frame = frame("udp 10.0.0.5:1000 > 192.0.2.7:53");
    let deadline = Instant::now() + PATIENCE;
    let flags = running.bench.ports[0].flags();
    let mut sent = 0;
    while !flags.silent() {
        assert!(Instant::now() < deadline, "after {sent} packets");
        running.settles("a worker that waits for packets to announce themselves", ..1000);
        peer.send(&frame, 1);
        sent += 1;
        running.receives(sent);
    }
    // The other one's packets (a ring gives back what is sent) come while the worker is awake: that says nothing.
    assert!(!running.bench.ports[1].flags().silent());
    running.settles("a worker that sleeps by the clock", 3_000..30_000);
    peer.close();
    running.stop().close();
}
