//! Pools, mbufs and queues.

use haechi::dpdk::mbuf::free_burst;
use haechi::dpdk::thread::Registered;
use haechi::dpdk::{Burst, Eal, Error, MAX_BURST, Mempool, Port};
use haechi::packet::PacketBuf;
use proptest::prelude::*;

use crate::harness::{Side, close, config, device, eal, fill, scenario, setup, side, tagged_frame};
use crate::hugepages::FreeHugePages;

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
    scenario("packets::mempool_baseline", None, || {
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
    scenario("packets::ring_carries_frames_of_every_length", None, || {
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
    scenario("packets::ports_open_again_after_a_close", None, || {
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
    scenario("packets::pcap_files_are_replayed", None, || {
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

/// With huge pages: ports, pools and tables, side by side with other processes, and nothing stays when all is gone.
#[test]
fn huge_pages_are_used_and_given_back() {
    let _pages = FreeHugePages::reserve(64);
    scenario("packets::huge_pages_are_used_and_given_back", None, || {
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
