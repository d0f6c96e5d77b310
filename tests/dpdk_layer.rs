//! The DPDK layer on virtual devices: each scenario is a process of its own (the EAL starts once a process) in a network
//! namespace of its own, which goes with the process, however that ends. Needs root and libdpdk.
#![cfg(feature = "dpdk")]

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use haechi::dpdk::mbuf::free_burst;
use haechi::dpdk::thread::Registered;
use haechi::dpdk::{
    Burst, Device, Eal, EalConfig, Error, MAX_BURST, Mempool, Port, PortSetup, RxQueue, TxQueue,
};
use haechi::packet::PacketBuf;
use proptest::prelude::*;

/// Names the scenario to a child process.
const SCENARIO: &str = "HAECHI_DPDK_SCENARIO";

/// Runs `body` in a process of its own, in a new network namespace; `user` runs it without privileges.
fn scenario(name: &str, user: Option<u32>, body: fn()) {
    if std::env::var(SCENARIO).is_ok_and(|s| s == name) {
        return body();
    }
    let exe = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.arg("--net");
    if let Some(user) = user {
        let id = user.to_string();
        command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
    }
    let mut child = command
        .arg(exe)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(SCENARIO, name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read_err = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = err.read_to_string(&mut text);
        text
    });
    let read_out = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = out.read_to_string(&mut text);
        text
    });
    let deadline = now() + Duration::from_secs(180);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let (out, err) = (read_out.join().unwrap(), read_err.join().unwrap());
    assert!(
        status.is_some_and(|s| s.success()),
        "{name}: {status:?}\n{out}\n{err}"
    );
    // Nothing that DPDK, libbpf or libxdp say reaches the user's screen.
    for noise in ["EAL:", "libbpf", "libxdp", "Usage:", "(): "] {
        assert!(
            !out.contains(noise) && !err.contains(noise),
            "{name}: on the screen:\n{out}\n{err}"
        );
    }
    let dir = format!("/var/run/dpdk/haechi-{}", child.id());
    assert!(!std::path::Path::new(&dir).exists(), "{dir} was left behind");
}

#[allow(clippy::disallowed_methods, reason = "a deadline against hanging")]
fn now() -> Instant {
    Instant::now()
}

fn config() -> EalConfig {
    EalConfig {
        memory_mib: 192,
        worker_cpus: vec![1],
        ..EalConfig::default()
    }
}

fn eal() -> Eal {
    Eal::start(&config()).unwrap()
}

fn device(text: &str) -> Device {
    text.parse().unwrap()
}

fn setup() -> PortSetup {
    PortSetup {
        packet_buffers: 4095,
        rx_queues: 1,
        tx_queues: 1,
        rx_descriptors: 512,
        tx_descriptors: 512,
    }
}

/// A port with its one pair of queues.
struct Side {
    port: Port,
    rx: RxQueue,
    tx: TxQueue,
}

fn side(eal: &Eal, name: &str, text: &str, mtu: u16) -> Side {
    let mut port = Port::open(eal, name, &device(text), mtu).unwrap();
    let packet_buffers = if mtu > 4000 { 1023 } else { 4095 };
    let result = port.configure(&PortSetup {
        packet_buffers,
        ..setup()
    });
    assert!(result.is_ok(), "{result:?} {:#?}", eal.log_lines());
    let (mut rx, mut tx) = port.start().unwrap();
    assert_eq!((rx.len(), tx.len()), (1, 1));
    Side {
        port,
        rx: rx.remove(0),
        tx: tx.remove(0),
    }
}

fn close(side: Side) {
    let Side { mut port, rx, tx } = side;
    // Refused while a queue is out, and the port runs on.
    assert!(matches!(port.stop(), Err(Error::InUse(_))));
    drop((rx, tx));
    port.stop().unwrap();
    port.close().unwrap();
}

fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// A frame with two VLAN tags and nothing that a kernel would answer.
fn tagged_frame(len: usize) -> Vec<u8> {
    let mut frame = vec![
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 5, 0x81, 0, 0, 6, 0x88, 0xb5,
    ];
    frame.extend((frame.len()..len).map(|i| (i * 7) as u8));
    frame
}

fn fill(pool: &Mempool, frame: &[u8]) -> Burst {
    let mut packet = pool.alloc().unwrap();
    packet.try_fill(frame).unwrap();
    Burst::from_iter([packet])
}

/// Sends `frame` until it arrives: a fresh link may lose the first.
fn cross(pool: &Mempool, from: &mut Side, to: &mut Side, frame: &[u8]) {
    let deadline = now() + Duration::from_secs(20);
    let mut got = Burst::new();
    while now() < deadline {
        let mut out = fill(pool, frame);
        from.tx.tx_burst(&mut out);
        for _ in 0..2000 {
            to.rx.rx_burst(&mut got, 32);
            if got.drain(..).any(|p| p.bytes() == frame) {
                return;
            }
        }
    }
    panic!(
        "{} bytes do not cross: {:?} {:?} {:?} {:?}",
        frame.len(),
        from.port.stats(),
        to.port.stats(),
        from.port.link(),
        to.port.link()
    );
}

#[derive(Clone, Debug)]
enum Step {
    Alloc,
    AllocBulk(usize),
    DropFirst(usize),
    FreeBurst,
    Exchange,
    OtherThread(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Alloc),
        (0..=MAX_BURST).prop_map(Step::AllocBulk),
        (1..20_usize).prop_map(Step::DropFirst),
        Just(Step::FreeBurst),
        Just(Step::Exchange),
        any::<bool>().prop_map(Step::OtherThread),
    ];
    proptest::collection::vec(step, 0..60)
}

/// Whatever is done with mbufs, in whatever order and on whatever thread, the pool counts exactly those that are out, gives
/// out no more than it has, and is back at its baseline when all are gone.
#[test]
fn mempool_baseline() {
    scenario("mempool_baseline", None, || {
        let eal = eal();
        let _main = Registered::new(&eal).unwrap();
        let pool = Mempool::create(&eal, "test", 500, 1500).unwrap();
        assert_eq!((pool.size(), pool.in_use(), pool.available()), (500, 0, 500));
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            cases: 60,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let result = runner.run(&steps(), |steps| {
            let mut bursts = [Burst::new(), Burst::new()];
            for step in steps {
                let had = bursts[0].len();
                match step {
                    Step::Alloc if bursts[0].is_full() => {}
                    Step::Alloc => bursts[0].push(pool.alloc().unwrap()),
                    Step::AllocBulk(n) => {
                        let fits = had + n <= MAX_BURST;
                        prop_assert_eq!(pool.alloc_bulk(&mut bursts[0], n), fits);
                        prop_assert_eq!(bursts[0].len(), if fits { had + n } else { had });
                    }
                    Step::DropFirst(n) => drop(bursts[0].drain(..n.min(had)).collect::<Vec<_>>()),
                    Step::FreeBurst => free_burst(&mut bursts[0]),
                    Step::Exchange => bursts.swap(0, 1),
                    Step::OtherThread(registered) => {
                        let packets: Vec<_> = bursts[0].drain(..).collect();
                        let eal = eal.clone();
                        let other = std::thread::spawn(move || {
                            let guard = registered.then(|| Registered::new(&eal).unwrap());
                            drop(packets);
                            drop(guard);
                        });
                        other.join().unwrap();
                    }
                }
                let out: usize = bursts.iter().map(|b| b.len()).sum();
                prop_assert_eq!(pool.in_use() as usize, out);
            }
            drop(bursts);
            prop_assert_eq!(pool.in_use(), 0);
            Ok(())
        });
        result.unwrap();
        // To the last one, and no further; then all of them once more.
        for _ in 0..2 {
            let mut all: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
            // Other lcores' caches may keep some from this thread; they count as available.
            assert_eq!(all.len(), pool.in_use() as usize);
            assert!(pool.alloc().is_none());
            assert!(!pool.alloc_bulk(&mut Burst::new(), MAX_BURST));
            let half = all.split_off(all.len() / 2);
            drop(all);
            drop(half);
            assert_eq!(pool.in_use(), 0);
        }
    });
}

/// Frames of every length, two VLAN tags and all, cross unchanged in one buffer, in order; what a full queue does not take
/// stays, in order.
#[test]
fn ring_carries_frames_of_every_length() {
    scenario("ring_carries_frames_of_every_length", None, || {
        let eal = eal();
        let pool = Mempool::create(&eal, "test", 3000, 9000).unwrap();
        let mut a = side(&eal, "a", "vdev:net_ring0", 9000);
        assert_eq!(pool.max_frame() / 64, 9022_usize.div_ceil(64));
        let mut bytes = 0;
        let lengths: Vec<usize> = (14..9022).step_by(97).chain([1514, 1518, 1522, 9022]).collect();
        for &len in &lengths {
            let frame = tagged_frame(len);
            let mut out = fill(&pool, &frame[..len]);
            assert_eq!(a.tx.tx_burst(&mut out), 1);
            let mut got = Burst::new();
            assert_eq!(a.rx.rx_burst(&mut got, 32), 1);
            assert_eq!(got[0].bytes(), &frame[..len]);
            bytes += len as u64;
        }
        let stats = a.port.stats();
        assert_eq!((stats.rx_packets, stats.rx_bytes), (lengths.len() as u64, bytes));
        assert_eq!((stats.tx_packets, stats.tx_bytes), (lengths.len() as u64, bytes));
        assert_eq!(pool.in_use(), 0);

        // A frame that is too long leaves the buffer as it was.
        let mut packet = pool.alloc().unwrap();
        packet.try_fill(&tagged_frame(60)).unwrap();
        assert!(packet.try_fill(&vec![1; pool.max_frame() + 1]).is_err());
        assert_eq!(packet.bytes(), tagged_frame(60));
        packet.bytes_mut()[59] = 99;
        assert_eq!(packet.bytes()[59], 99);
        drop(packet);

        // net_ring holds 1023 packets.
        let mut sent = 0_u32;
        let mut next = 0_u32;
        let mut out = Burst::new();
        loop {
            while !out.is_full() {
                let Some(mut packet) = pool.alloc() else { break };
                packet
                    .try_fill(&[&[0; 12][..], &next.to_be_bytes()].concat())
                    .unwrap();
                next += 1;
                out.push(packet);
            }
            let waiting = out.len();
            let gone = a.tx.tx_burst(&mut out);
            assert_eq!(out.len(), waiting - gone);
            sent += gone as u32;
            if let Some(first) = out.first() {
                assert_eq!(first.bytes()[12..], sent.to_be_bytes());
            }
            if gone < waiting {
                break;
            }
        }
        assert_eq!(pool.in_use(), next);
        let mut order = 0;
        let mut got = Burst::new();
        while a.rx.rx_burst(&mut got, 7) > 0 {
            for packet in got.drain(..) {
                assert_eq!(packet.bytes()[12..], u32::to_be_bytes(order));
                order += 1;
            }
        }
        assert_eq!(order, sent);
        free_burst(&mut out);
        assert_eq!(pool.in_use(), 0);
        close(a);
    });
}

/// A port that is opened again after a close has its counters anew, and its buffers back.
#[test]
fn ports_open_again_after_a_close() {
    scenario("ports_open_again_after_a_close", None, || {
        let eal = eal();
        for round in 0..5 {
            let mut a = side(&eal, "a", "vdev:net_null0,size=64", 1500);
            let info = a.port.info().clone();
            assert_eq!(info.driver, "net_null");
            assert!(info.knows_link && info.kernel_interface.is_none());
            let mut got = Burst::new();
            assert_eq!(a.rx.rx_burst(&mut got, 32), 32, "round {round}");
            assert_eq!(a.rx.rx_burst(&mut got, 64), 32);
            assert_eq!(a.rx.rx_burst(&mut got, 64), 0);
            assert_eq!(a.port.buffers().unwrap().in_use, 64);
            assert_eq!(a.tx.tx_burst(&mut got), 64);
            let stats = a.port.stats();
            assert_eq!(
                (stats.rx_packets, stats.rx_bytes, stats.tx_packets, stats.tx_bytes),
                (64, 4096, 64, 4096)
            );
            assert_eq!(a.port.buffers().unwrap().in_use, 0);
            if round % 2 == 0 {
                close(a);
            } else {
                // The queues outlive the port: it is closed with the last of them.
                let Side { port, mut rx, tx } = a;
                assert!(matches!(port.close(), Err(Error::InUse(_))));
                drop(tx);
                let mut got = Burst::new();
                assert_eq!(rx.rx_burst(&mut got, 8), 8);
                assert!(matches!(
                    Port::open(&eal, "b", &device("vdev:net_null0"), 1500),
                    Err(Error::DeviceBusy(_))
                ));
            }
        }
    });
}

#[test]
fn pcap_files_are_replayed() {
    scenario("pcap_files_are_replayed", None, || {
        let path = std::env::temp_dir().join(format!("haechi-dpdk-{}.pcap", std::process::id()));
        let mut file: Vec<u8> = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
            file.extend(word.to_ne_bytes());
        }
        for len in [60_u32, 1522] {
            for word in [0, 0, len, len] {
                file.extend(word.to_ne_bytes());
            }
            file.extend(tagged_frame(len as usize));
        }
        std::fs::write(&path, file).unwrap();
        let eal = eal();
        let text = format!("vdev:net_pcap0,rx_pcap={},infinite_rx=1", path.display());
        let mut port = Port::open(&eal, "a", &device(&text), 1500).unwrap();
        let result = port.configure(&setup());
        std::fs::remove_file(&path).unwrap();
        result.unwrap();
        let (mut rx, _tx) = port.start().unwrap();
        let mut got = Burst::new();
        for _ in 0..100 {
            rx[0].rx_burst(&mut got, 32);
            for packet in got.drain(..) {
                assert!([60, 1522].contains(&packet.len()));
                assert_eq!(packet.bytes(), tagged_frame(packet.len()));
            }
        }
        assert!(port.stats().rx_packets >= 100);
    });
}

/// What this process has open.
fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries
        .filter_map(|e| Some(std::fs::read_link(e.ok()?.path()).ok()?.display().to_string()))
        .collect()
}

/// The kernel's interface under an AF_XDP port is deleted and made anew, again and again: every time the port comes back, no
/// buffer and no descriptor is lost, and the largest frame with two tags crosses both ways.
#[test]
fn af_xdp_comes_back_with_its_interface() {
    scenario("af_xdp_comes_back_with_its_interface", None, || {
        let eal = eal();
        let pool = Mempool::create(&eal, "test", 500, 9000).unwrap();
        let mut seen = Vec::new();
        for round in 0..6 {
            if round != 5 {
                ip("link add hxa type veth peer name hxb");
                ip("link set hxb up");
            }
            let mtu = if round % 2 == 0 { 1500 } else { 3498 };
            let mut a = side(&eal, "a", "vdev:net_af_xdp0,iface=hxa,busy_budget=0", mtu);
            let mut b = side(&eal, "b", "vdev:net_af_packet0,iface=hxb", mtu);
            assert_eq!(a.port.info().kernel_interface.as_deref(), Some("hxa"));
            assert!(!a.port.info().knows_link && !b.port.info().knows_link);
            for len in [60, 1522, usize::from(mtu) + 22] {
                cross(&pool, &mut a, &mut b, &tagged_frame(len));
                cross(&pool, &mut b, &mut a, &tagged_frame(len));
            }
            // Its fill ring, when what was sent has been taken back.
            let deadline = now() + Duration::from_secs(20);
            while a.port.buffers().unwrap().in_use != 2048 && now() < deadline {
                a.tx.reap();
                let mut got = Burst::new();
                a.rx.rx_burst(&mut got, 64);
            }
            assert_eq!(a.port.buffers().unwrap().in_use, 2048, "round {round}");
            assert_eq!(pool.in_use(), 0);
            // In the last round but one the interface stays: its queue has to be free again.
            if round != 4 {
                ip("link del hxa");
                a.rx.rx_burst(&mut Burst::new(), 32);
                a.tx.tx_burst(&mut fill(&pool, &tagged_frame(100)));
                let _ = (a.port.stats(), a.port.link());
            }
            close(a);
            close(b);
            seen.push(descriptors());
        }
        assert_eq!(seen[1].len(), seen[5].len(), "file descriptors leak: {seen:#?}");
    });
}

/// Every buffer of an AF_XDP pool goes through the kernel in both directions, again and again, and none is lost.
#[test]
fn every_af_xdp_buffer_works() {
    scenario("every_af_xdp_buffer_works", None, || {
        let eal = eal();
        let pool = Mempool::create(&eal, "test", 500, 1500).unwrap();
        ip("link add hxa type veth peer name hxb");
        let mut sides = [
            side(&eal, "a", "vdev:net_af_xdp0,iface=hxa,busy_budget=0", 1500),
            side(&eal, "b", "vdev:net_af_xdp1,iface=hxb,busy_budget=0", 1500),
        ];
        let frame = tagged_frame(300);
        let mut crossed = [0; 2];
        let deadline = now() + Duration::from_secs(60);
        while crossed.iter().any(|c| *c < 30_000) && now() < deadline {
            for to in [0, 1] {
                let mut out = Burst::new();
                pool.alloc_bulk(&mut out, 32);
                out.iter_mut().for_each(|p| p.try_fill(&frame).unwrap());
                sides[1 - to].tx.tx_burst(&mut out);
                free_burst(&mut out);
                let mut got = Burst::new();
                sides[to].rx.rx_burst(&mut got, 64);
                crossed[to] += got.iter().filter(|p| p.bytes() == frame).count();
            }
        }
        assert!(
            crossed.iter().all(|c| *c >= 30_000),
            "{crossed:?} {:?} {:?}",
            sides[0].port.stats(),
            sides[1].port.stats()
        );
        let deadline = now() + Duration::from_secs(20);
        let idle = |sides: &[Side; 2]| sides.iter().all(|s| s.port.buffers().unwrap().in_use == 2048);
        while !idle(&sides) && now() < deadline {
            for side in &mut sides {
                side.tx.reap();
                side.rx.rx_burst(&mut Burst::new(), 64);
            }
        }
        assert!(
            idle(&sides),
            "{:?} {:?}",
            sides[0].port.buffers(),
            sides[1].port.buffers()
        );
        assert_eq!(pool.in_use(), 0);
    });
}

/// What the port changed of its interface (MTU, up, promiscuous) is as before after the close.
#[test]
fn the_interface_is_given_back_as_it_was() {
    scenario("the_interface_is_given_back_as_it_was", None, || {
        ip("link add hxa type veth peer name hxb");
        let show = || {
            let output = Command::new("ip")
                .args(["-d", "-o", "link", "show", "hxa"])
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let flags = text.split(['<', '>']).nth(1).unwrap().replace(",M-DOWN", "");
            let mtu = text
                .split(" mtu ")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .to_owned();
            (flags, mtu, text.contains("xdp"))
        };
        let before = show();
        let eal = eal();
        for text in ["vdev:net_af_xdp0,iface=hxa", "vdev:net_af_packet0,iface=hxa"] {
            let a = side(&eal, "a", text, 1500);
            let (flags, mtu, _) = show();
            assert!(
                flags.contains("UP") && flags.contains("PROMISC") && mtu == "1508",
                "{flags} {mtu}"
            );
            a.port.set_link(false).unwrap();
            assert!(!show().0.contains("UP"));
            a.port.set_link(true).unwrap();
            assert!(show().0.contains("UP"));
            close(a);
            assert_eq!(show(), before);
        }
    });
}

/// Jumbo frames with two tags over drivers whose rings have to be made for them.
#[test]
fn jumbo_frames_cross_in_one_buffer() {
    scenario("jumbo_frames_cross_in_one_buffer", None, || {
        let eal = eal();
        let pool = Mempool::create(&eal, "test", 500, 9000).unwrap();
        ip("link add hxa type veth peer name hxb");
        let mut a = side(&eal, "a", "vdev:net_af_packet0,iface=hxa", 9000);
        let mut b = side(&eal, "b", "vdev:net_af_packet1,iface=hxb", 9000);
        for len in [60, 1522, 9022] {
            cross(&pool, &mut a, &mut b, &tagged_frame(len));
            cross(&pool, &mut b, &mut a, &tagged_frame(len));
        }
        assert_eq!(a.port.stats().rx_chained + b.port.stats().rx_chained, 0);
        close(a);
        close(b);

        let socket = format!("@haechi-{}", std::process::id());
        let memif =
            |role: &str, n: u8| format!("vdev:net_memif{n},role={role},socket={socket},socket-abstract=yes");
        let mut a = side(&eal, "a", &memif("server", 0), 9000);
        let mut b = side(&eal, "b", &memif("client", 1), 9000);
        for len in [60, 1522, 9022] {
            cross(&pool, &mut a, &mut b, &tagged_frame(len));
            cross(&pool, &mut b, &mut a, &tagged_frame(len));
        }
        assert_eq!(a.port.stats().rx_chained + b.port.stats().rx_chained, 0);
        assert!(a.port.link().up && b.port.link().up);
        drop(b);
    });
}

/// A tap port: its kernel side sees what the port sends, and the other way round.
#[test]
fn tap_carries_two_tags() {
    scenario("tap_carries_two_tags", None, || {
        let eal = eal();
        let pool = Mempool::create(&eal, "test", 500, 1500).unwrap();
        let mut a = side(&eal, "a", "vdev:net_tap0,iface=hxtap", 1500);
        assert_eq!(a.port.info().kernel_interface.as_deref(), Some("hxtap"));
        ip("link set hxtap up mtu 1508");
        let mut b = side(&eal, "b", "vdev:net_af_packet0,iface=hxtap", 1500);
        for len in [60, 1522] {
            cross(&pool, &mut a, &mut b, &tagged_frame(len));
            cross(&pool, &mut b, &mut a, &tagged_frame(len));
        }
        close(b);
        close(a);
    });
}

fn refusal(eal: &Eal, text: &str, mtu: u16) -> String {
    let error = match text.parse::<Device>() {
        Ok(device) => match Port::open(eal, "wan", &device, mtu) {
            Ok(mut port) => port.configure(&setup()).err(),
            Err(error) => Some(error),
        },
        Err(error) => Some(error),
    };
    let text = error.unwrap_or_else(|| panic!("{text} was taken")).to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// Each bad port is refused in one line that names the port and the fix, and leaves everything as it was.
#[test]
fn bad_ports_are_refused_with_the_fix() {
    scenario("bad_ports_are_refused_with_the_fix", None, || {
        let mut config = config();
        config.devices = vec![device("0000:ff:1f.7")];
        let eal = Eal::start(&config).unwrap();
        ip("link add hxa type veth peer name hxb");
        let _taken = side(&eal, "lan", "vdev:net_af_xdp9,iface=hxb", 1500);
        let mut report = String::new();
        for (text, mtu, words) in [
            (
                "0000:ff:1f.7",
                1500,
                &["port 'wan'", "no PCI device 0000:ff:1f.7", "lspci -D"][..],
            ),
            ("0000:ff:1f.6", 1500, &["port 'wan'", "restart"]),
            (
                "vdev:net_foo0",
                1500,
                &["port 'wan'", "no DPDK driver", "net_foo0", "librte-net-"],
            ),
            (
                "vdev:net_af_xdp0,iface=hxnone",
                1500,
                &["port 'wan'", "'hxnone'", "ip link"],
            ),
            ("vdev:net_af_xdp0", 1500, &["port 'wan'", "iface="]),
            (
                "vdev:net_af_packet0,iface=hxa,framesz=junk",
                1500,
                &["port 'wan'", "framesize"],
            ),
            (
                "vdev:net_af_xdp9,iface=hxa",
                1500,
                &["port 'wan'", "another port has the device", "a number of its own"],
            ),
            (
                "vdev:net_af_packet0,iface=hxb",
                1500,
                &["port 'wan'", "another port has the network interface 'hxb'"],
            ),
            (
                "vdev:net_af_xdp0,iface=hxa",
                9000,
                &["port 'wan'", "mtu = 9000", "set mtu = 3498 or less"],
            ),
            (
                "vdev:net_af_packet0,iface=hxa,framesz=2048",
                9000,
                &["set mtu = 1960 or less", "framesz=12288"],
            ),
            (
                "vdev:net_af_packet0,iface=hxa,framesz=9088,blocksz=12288",
                1500,
                &["port 'wan'", "a multiple of"],
            ),
            (
                "vdev:net_memif0,role=client,bsize=2048",
                9000,
                &["set mtu = 2026 or less", "bsize="],
            ),
            // 1500 in DPDK 22.11, 16106 in 24.11.
            ("vdev:net_tap0", 20000, &["set mtu = 1", " or less"]),
            (
                "vdev:net_pcap0,rx_pcap=/nonexistent.pcap",
                1500,
                &["port 'wan'", "/nonexistent.pcap"],
            ),
            ("eth0", 1500, &["not a PCI address", "vdev:"]),
        ] {
            let said = refusal(&eal, text, mtu);
            for word in words {
                assert!(said.contains(word), "{text}: {word:?} is missing in: {said}");
            }
            let _ = writeln!(report, "{said}");
        }
        println!("{report}");
        let refused = |setup: PortSetup, words: [&str; 2]| {
            let mut port = Port::open(&eal, "wan", &device("vdev:net_af_xdp0,iface=hxa"), 1500).unwrap();
            let said = port.configure(&setup).unwrap_err().to_string();
            assert!(words.iter().all(|w| said.contains(w)), "{said}");
            println!("{said}");
        };
        refused(
            PortSetup {
                packet_buffers: 1000,
                ..setup()
            },
            ["packet_buffers = 1000 is too few", "or more"],
        );
        refused(
            PortSetup {
                packet_buffers: 5_000_000,
                ..setup()
            },
            ["memory_mib = 192", "lower packet_buffers"],
        );
        refused(
            PortSetup {
                packet_buffers: 0,
                ..setup()
            },
            ["packet_buffers", "or more"],
        );
        refused(
            PortSetup {
                rx_queues: 3,
                ..setup()
            },
            ["1 receive queue", "rx_queues"],
        );
        refused(
            PortSetup {
                tx_queues: 2,
                ..setup()
            },
            ["1 transmit queue", "workers"],
        );
        // After all that the device is free, and works.
        close(side(&eal, "wan", "vdev:net_af_xdp0,iface=hxa", 1500));
        let said = Mempool::create(&eal, "engine", 10_000_000, 1500)
            .err()
            .unwrap()
            .to_string();
        assert!(
            said.starts_with("engine: ") && said.contains("raise memory_mib"),
            "{said}"
        );
    });
}

/// Two processes cannot have one AF_XDP queue.
#[test]
fn an_interface_of_another_process_is_refused() {
    scenario("an_interface_of_another_process_is_refused", None, || {
        if std::env::var("HAECHI_HOLD").is_ok() {
            let eal = eal();
            let _held = side(&eal, "first", "vdev:net_af_xdp0,iface=hxa", 1500);
            println!("held");
            let _ = std::io::stdin().read(&mut [0]);
            return;
        }
        ip("link add hxa type veth peer name hxb");
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "an_interface_of_another_process_is_refused",
                "--nocapture",
            ])
            .env("HAECHI_HOLD", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(holder.stdout.take().unwrap()));
        assert!(lines.any(|l| l.unwrap() == "held"));
        let eal = eal();
        let said = refusal(&eal, "vdev:net_af_xdp0,iface=hxa", 1500);
        drop(holder.stdin.take());
        assert!(holder.wait().unwrap().success());
        assert!(
            said.contains("another process has its queue") && said.contains("ip link show hxa"),
            "{said}"
        );
    });
}

#[test]
fn the_eal_says_what_is_wrong() {
    scenario("the_eal_says_what_is_wrong", None, || {
        let refused = |change: fn(&mut EalConfig), words: &[&str]| {
            let mut config = config();
            change(&mut config);
            let Err(error) = Eal::start(&config) else {
                panic!("{config:?} was taken")
            };
            let said = error.to_string();
            assert_eq!(said.lines().count(), 1, "{said}");
            for word in words {
                assert!(said.contains(word), "{word:?} is missing in: {said}");
            }
            println!("{said}");
        };
        let huge = |c: &mut EalConfig| (c.hugepages, c.memory_mib) = (true, 9_000_000);
        refused(
            huge,
            &[
                "too few huge pages: 9000000 MiB needed",
                "nr_hugepages",
                "hugepages = false",
            ],
        );
        refused(
            |c| c.memory_mib = 90_000_000,
            &["memory_mib is 90000000", "available", "lower memory_mib"],
        );
        refused(|c| c.memory_mib = 0, &["memory_mib is 0"]);
        refused(|c| c.eal_args = vec!["--help".into()], &["eal_args", "--help"]);
        refused(|c| c.eal_args = vec!["a\0b".into()], &["NUL"]);
        // The last: rte_eal_init itself was called.
        refused(
            |c| c.eal_args = vec!["--no-such-option".into()],
            &["no-such-option", "eal_args is"],
        );
        refused(|_| {}, &["only once in a process"]);
    });
}

#[test]
fn a_wrong_cpu_or_prefix_in_eal_args_is_told() {
    scenario("a_wrong_cpu_or_prefix_in_eal_args_is_told", None, || {
        let mut config = config();
        config.eal_args = vec!["--iova-mode=nonsense".into()];
        let said = Eal::start(&config).err().unwrap().to_string();
        assert!(
            said.contains("invalid parameters for --iova-mode") && said.contains("eal_args"),
            "{said}"
        );
    });
}

#[test]
fn privileges_are_missed_in_one_line() {
    scenario("privileges_are_missed_in_one_line", Some(65_534), || {
        let said = match Eal::start(&config()) {
            Err(error) => error,
            Ok(eal) => Port::open(&eal, "wan", &device("vdev:net_af_packet0,iface=lo"), 1500)
                .err()
                .unwrap(),
        };
        assert!(matches!(said, Error::Privileges(_)), "{said}");
        assert!(said.to_string().contains("run as root"), "{said}");
    });
}

/// With huge pages: ports, pools and tables, side by side with other processes, and nothing stays when all is gone.
#[test]
fn huge_pages_are_used_and_given_back() {
    scenario("huge_pages_are_used_and_given_back", None, || {
        use haechi::base::slab::Memory as _;
        let mut config = config();
        (config.hugepages, config.memory_mib) = (true, 64);
        let eal = Eal::start(&config).unwrap();
        let pool = Mempool::create(&eal, "test", 500, 1500).unwrap();
        let mut a = side(&eal, "a", "vdev:net_ring0", 1500);
        let mut out = fill(&pool, &tagged_frame(100));
        assert_eq!(a.tx.tx_burst(&mut out), 1);
        assert_eq!(a.rx.rx_burst(&mut out, 1), 1);
        assert_eq!(out[0].bytes(), tagged_frame(100));
        let table = haechi::dpdk::HugePages { hugepages: true }
            .slab::<u64>(1 << 19)
            .unwrap();
        assert!(table.iter().all(|v| *v == 0));
        let said = a.port.configure(&setup()).unwrap_err().to_string();
        assert!(said.contains("in use"), "{said}");
        let said = Mempool::create(&eal, "engine", 60_000_000, 1500)
            .err()
            .unwrap()
            .to_string();
        assert!(
            said.contains("too few huge pages") && said.contains("nr_hugepages"),
            "{said}"
        );
    });
}
