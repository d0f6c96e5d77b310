//! Receive interrupts: a packet wakes who waits for it, one that came too early for that is found by looking once more, and
//! who polls is left alone.
#![allow(clippy::disallowed_types, reason = "a log that a test reads")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use haechi::base::Nanos;
use haechi::dpdk::wake::{Announcer, WakeSet};
use haechi::dpdk::{Burst, Eal, Mempool};
use haechi::packet::PacketBuf;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::harness::{
    Side, close, cross, eal, fill, ip, now, open, scenario, side, side_with, socket, tagged_frame, with,
};

/// Longer than a scenario may last.
const LONG: Nanos = Nanos::from_secs(1000);
const SHORT: Nanos = Nanos::MILLISECOND;

fn host(eal: &Eal, rx_interrupts: bool) -> Side {
    let device = format!("vdev:net_vhost0,iface={}", socket(std::process::id()).display());
    side_with(eal, "host", &device, rx_interrupts)
}

fn guest(eal: &Eal, rx_interrupts: bool) -> Side {
    let device = format!(
        "vdev:net_virtio_user0,path={},queue_size=1024",
        socket(std::process::id()).display()
    );
    side_with(eal, "guest", &device, rx_interrupts)
}

/// What `side` has, without the frames of anybody else.
fn receive(side: &mut Side, frame: &[u8]) -> usize {
    let mut got = Burst::new();
    side.rx.rx_burst(&mut got, 32);
    got.iter().filter(|p| p.bytes() == frame).count()
}

/// What `side` has, sooner or later.
fn receive_one(side: &mut Side, frame: &[u8]) {
    let deadline = now() + Duration::from_secs(20);
    while receive(side, frame) == 0 {
        assert!(now() < deadline, "the frame is lost");
    }
}

fn send(pool: &Mempool, side: &mut Side, frame: &[u8]) {
    let mut out = fill(pool, frame);
    assert_eq!(side.tx.tx_burst(&mut out), 1);
}

/// Takes what is there, and lets old announcements go.
fn settle(set: &WakeSet, side: &mut Side) {
    side.rx.disarm();
    while side.rx.rx_burst(&mut Burst::new(), 32) > 0 || set.wait(SHORT) {}
}

/// A packet, after a silence, wakes `to`, who sleeps for it; again and again.
fn wakes(set: &WakeSet, pool: &Mempool, from: &mut Side, to: &mut Side) {
    let frame = tagged_frame(100);
    for _ in 0..20 {
        settle(set, to);
        assert!(to.rx.arm());
        assert_eq!(receive(to, &frame), 0);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| set.wait(LONG));
            send(pool, from, &frame);
            assert!(sleeper.join().unwrap());
        });
        receive_one(to, &frame);
        to.rx.disarm();
    }
}

/// What nobody asked to be told of is not told; looking once more after asking finds it.
fn is_silent_until_armed(set: &WakeSet, pool: &Mempool, from: &mut Side, to: &mut Side) {
    let frame = tagged_frame(101);
    settle(set, to);
    for _ in 0..20 {
        send(pool, from, &frame);
        assert!(!set.wait(SHORT), "announced to nobody");
        assert!(to.rx.arm());
        receive_one(to, &frame);
        to.rx.disarm();
    }
}

/// From one side to the other, whose announcements are interrupts.
fn one_way(set: &WakeSet, pool: &Mempool, from: &mut Side, to: &mut Side) {
    let announcer = to.rx.announcer().unwrap();
    assert!(matches!(announcer, Announcer::Interrupt(_)));
    set.add(announcer).unwrap();
    wakes(set, pool, from, to);
    is_silent_until_armed(set, pool, from, to);
    set.remove(announcer);
}

#[test]
fn a_guest_and_its_host_are_woken() {
    scenario("interrupts::a_guest_and_its_host_are_woken", None, || {
        let eal = eal();
        let set = WakeSet::new().unwrap();
        let mut host = host(&eal, true);
        assert!(!host.rx.arm(), "who is no guest yet cannot be asked");
        let mut guest = guest(&eal, true);
        let pool = Mempool::create(&eal, "test", 500, 1500).unwrap();
        cross(&pool, &mut guest, &mut host, &tagged_frame(60));
        cross(&pool, &mut host, &mut guest, &tagged_frame(60));
        for _ in 0..2 {
            one_way(&set, &pool, &mut guest, &mut host);
            one_way(&set, &pool, &mut host, &mut guest);
        }
        close(guest);
        close(host);
    });
}

/// The kernel's side of a tap makes it readable; there is nothing to arm.
#[test]
fn a_tap_is_woken() {
    scenario("interrupts::a_tap_is_woken", None, || {
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let eal = eal();
        let set = WakeSet::new().unwrap();
        let pool = Mempool::create(&eal, "test", 500, 1500).unwrap();
        let mut tap = side_with(&eal, "a", "vdev:net_tap0,iface=hxtap", true);
        ip("link set hxtap up mtu 1508");
        let mut kernel = side(&eal, "b", "vdev:net_af_packet0,iface=hxtap", 1500);
        cross(&pool, &mut kernel, &mut tap, &tagged_frame(60));
        let announcer = tap.rx.announcer().unwrap();
        assert!(matches!(announcer, Announcer::Readable(_)));
        set.add(announcer).unwrap();
        wakes(&set, &pool, &mut kernel, &mut tap);
        set.remove(announcer);
        close(kernel);
        close(tap);
    });
}

/// `idle = "poll"`: no device is asked to interrupt anybody.
#[test]
fn who_polls_arms_nothing() {
    scenario("interrupts::who_polls_arms_nothing", None, || {
        let eal = eal();
        let mut host = host(&eal, false);
        let mut guest = guest(&eal, false);
        let tap = side_with(&eal, "tap", "vdev:net_tap0,iface=hxtap", false);
        for side in [&host, &guest, &tap] {
            assert_eq!(side.rx.announcer(), None);
        }
        let pool = Mempool::create(&eal, "test", 500, 1500).unwrap();
        cross(&pool, &mut guest, &mut host, &tagged_frame(60));
        cross(&pool, &mut host, &mut guest, &tagged_frame(60));
    });
}

/// These drivers ignore the wish; the ports work as without it.
#[test]
fn devices_without_interrupts_work_without() {
    scenario(
        "interrupts::devices_without_interrupts_work_without",
        None,
        || {
            let eal = eal();
            let pool = Mempool::create(&eal, "test", 500, 1500).unwrap();
            let memif = |role: &str, n: u8| {
                let device = format!(
                    "vdev:net_memif{n},role={role},socket=@{},socket-abstract=yes",
                    socket(std::process::id()).display()
                );
                side_with(&eal, role, &device, true)
            };
            let [mut a, mut b] = [memif("server", 0), memif("client", 1)];
            assert_eq!((a.rx.announcer(), b.rx.announcer()), (None, None));
            cross(&pool, &mut a, &mut b, &tagged_frame(60));
            cross(&pool, &mut b, &mut a, &tagged_frame(60));
            let null = side_with(&eal, "null", "vdev:net_null0", true);
            assert_eq!(null.rx.announcer(), None);
        },
    );
}

/// A device that cannot be started with interrupts is started without, and that is said once. (The host takes a descriptor for
/// each queue's interrupt, and there is none left.)
#[test]
fn a_device_that_refuses_interrupts_works_without() {
    scenario(
        "interrupts::a_device_that_refuses_interrupts_works_without",
        None,
        || {
            let eal = eal();
            let lines = Lines::default();
            let subscriber = tracing_subscriber::fmt()
                .with_writer(Mutex::new(lines.clone()))
                .finish();
            let mut host = tracing::subscriber::with_default(subscriber, || host_without_descriptors(&eal));
            let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            let told: Vec<_> = said.lines().collect();
            assert!(
                told.len() == 1 && told[0].contains("no receive interrupts") && told[0].contains("host"),
                "{said}"
            );
            assert_eq!(host.rx.announcer(), None);
            let pool = Mempool::create(&eal, "test", 500, 1500).unwrap();
            let mut guest = guest(&eal, true);
            cross(&pool, &mut guest, &mut host, &tagged_frame(60));
            cross(&pool, &mut host, &mut guest, &tagged_frame(60));
            close(guest);
            close(host);
        },
    );
}

fn host_without_descriptors(eal: &Eal) -> Side {
    let device = format!("vdev:net_vhost0,iface={}", socket(std::process::id()).display());
    let mut port = open(eal, "host", &device, 1500, &with(true));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Every number below the first free one is taken.
    let free = std::fs::File::open("/dev/null").unwrap();
    let limit = std::os::fd::AsRawFd::as_raw_fd(&free) as u64;
    drop(free);
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    let started = port.start();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let (mut rx, mut tx) = started.unwrap();
    Side {
        port,
        rx: rx.remove(0),
        tx: tx.remove(0),
    }
}

/// A log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
