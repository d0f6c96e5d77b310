//! A worker's turns, one at a time, on real DPDK ports: where every packet goes, exactly.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's way to fail")]

mod runtime;

use haechi::base::PortId;
use haechi::dpdk::Eal;
use haechi::engine::DropReason;
use haechi::packet::Malformed;
use haechi::packet::synth::PacketSpec;
use haechi::runtime::command::{Command, Reply};
use haechi::runtime::stats::{Counts, PortCounts};
use haechi::runtime::worker::Worker;
use runtime::{Bench, frame, policy, start_eal, two_ports, write_capture};

const ALL: &str = "[[rule]]\nname = \"all\"\naction = \"allow\"\n";
/// What a net_ring takes by default.
const RING: u64 = 1023;

/// One command through the real queues, with as many turns as it takes.
fn ask(bench: &Bench, worker: &mut Worker, command: Command) -> Reply {
    let link = &bench.link;
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| link.ask(command, std::time::Duration::from_secs(20)));
        while !asker.is_finished() {
            worker.turn();
        }
        asker.join().unwrap().unwrap()
    })
}

/// Gives the worker all ports, the one that only sends first.
fn give_all(bench: &mut Bench, worker: &mut Worker) {
    for port in [PortId(1), PortId(0)] {
        let queues = bench.queues.pop().unwrap();
        let reply = ask(bench, worker, Command::GivePort(port, Box::new(queues)));
        assert!(matches!(reply, Reply::GivePort(None)));
    }
    assert!(matches!(ask(bench, worker, Command::Begin), Reply::Begin));
}

/// Turns until the packets that are there have been taken; the counts then.
fn settle(bench: &Bench, worker: &mut Worker) -> (Counts, Vec<PortCounts>) {
    let mut before = None;
    loop {
        for _ in 0..100 {
            worker.turn();
        }
        assert!(matches!(ask(bench, worker, Command::Publish), Reply::Publish));
        let (counts, ports) = bench.stats.read();
        assert!(counts.is_even(), "{counts:?}");
        assert_eq!(counts.held, 0);
        assert_eq!(
            counts.malformed.iter().sum::<u64>(),
            counts.drops[DropReason::Malformed.index()]
        );
        if before == Some(counts.rx_packets) {
            return (counts, ports);
        }
        before = Some(counts.rx_packets);
    }
}

fn dropped(counts: &Counts) -> Vec<(&'static str, u64)> {
    let all = DropReason::ALL
        .iter()
        .map(|reason| (reason.name(), counts.drops[reason.index()]));
    all.filter(|(_, n)| *n > 0).collect()
}

/// One test after the other in one thread: the EAL's main thread and its ports are the process's.
#[test]
fn every_packet_is_accounted_for() {
    let eal = start_eal();
    what_a_full_queue_does_not_take_is_dropped(&eal);
    what_is_too_long_for_its_port_is_dropped(&eal);
    what_is_for_a_port_out_of_service_is_dropped(&eal);
    refused_packets_are_answered_and_the_answers_counted(&eal);
    malformed_packets_by_kind_and_answers_not_made_are_published(&eal);
    a_policy_comes_back_when_it_is_replaced(&eal);
}

/// net_ring keeps what is sent until somebody receives it, and here nobody does.
fn what_a_full_queue_does_not_take_is_dropped(eal: &Eal) {
    let dir = tempfile::tempdir().unwrap();
    write_capture(
        &dir.path().join("lan"),
        &vec![frame("udp 10.0.0.5:1000 > 192.0.2.7:53"); 3000],
    );
    let lan = format!("vdev:net_pcap0,rx_pcap={}/lan", dir.path().display());
    let mut bench = Bench::new(eal, &two_ports(&lan, "vdev:net_ring0", ALL), false);
    let mut worker = bench.worker.take().unwrap();
    let (mut wan, lan) = (bench.queues.pop().unwrap(), bench.queues.pop().unwrap());
    let receiver = wan.rx.take();
    for (port, queues) in [(PortId(1), wan), (PortId(0), lan)] {
        ask(&bench, &mut worker, Command::GivePort(port, Box::new(queues)));
    }
    assert_eq!(settle(&bench, &mut worker).0.rx_packets, 0, "it has not begun");
    ask(&bench, &mut worker, Command::Begin);
    let (counts, ports) = settle(&bench, &mut worker);
    assert_eq!(counts.rx_packets, 3000);
    assert_eq!(counts.tx_packets, RING);
    assert_eq!(counts.forwarded, RING);
    assert_eq!(dropped(&counts), [("tx_full", 3000 - RING)]);
    assert_eq!(
        [ports[0].rx_packets, ports[1].tx_packets, ports[1].tx_dropped],
        [3000, RING, 3000 - RING]
    );
    assert_eq!(counts.sessions, 1);
    // What the ring holds comes back at the port that it left by, which is the wrong one.
    let Reply::TakePort(Some(mut wan)) = ask(&bench, &mut worker, Command::TakePort(PortId(1))) else {
        panic!("no queues");
    };
    wan.rx = receiver;
    ask(&bench, &mut worker, Command::GivePort(PortId(1), wan));
    let (counts, ports) = settle(&bench, &mut worker);
    assert_eq!(counts.rx_packets, 3000 + RING);
    assert_eq!(counts.tx_packets, RING);
    assert_eq!(dropped(&counts), [("wrong_port", RING), ("tx_full", 3000 - RING)]);
    assert_eq!([ports[0].rx_packets, ports[1].rx_packets], [3000, RING]);
    drop(worker);
    bench.close();
}

fn what_is_too_long_for_its_port_is_dropped(eal: &Eal) {
    let dir = tempfile::tempdir().unwrap();
    // 28 bytes of headers in an IP packet of 576; VLAN tags do not count, but nothing else uses the room for them.
    let frames = [
        (0, ""),
        (548, ""),
        (548, " vlan=5 vlan=6"),
        (549, ""),
        (549, " vlan=5"),
    ]
    .map(|(payload, tags)| {
        let mut packet: PacketSpec = format!("udp 10.0.0.5:1000 > 192.0.2.7:53{tags}").parse().unwrap();
        packet.payload = vec![0; payload];
        packet.frame()
    });
    assert_eq!(frames.each_ref().map(Vec::len), [60, 590, 598, 591, 595]);
    write_capture(&dir.path().join("lan"), &frames);
    let lan = format!("vdev:net_pcap0,rx_pcap={}/lan", dir.path().display());
    let mut config = two_ports(&lan, "vdev:net_null0,no-rx=1", ALL);
    config.ports[1].mtu = 576;
    let mut bench = Bench::new(eal, &config, false);
    let mut worker = bench.worker.take().unwrap();
    give_all(&mut bench, &mut worker);
    let (counts, ports) = settle(&bench, &mut worker);
    assert_eq!([counts.rx_packets, counts.tx_packets], [5, 3]);
    assert_eq!(dropped(&counts), [("frame_too_long", 2)]);
    assert_eq!(ports[1].tx_dropped, 2);
    drop(worker);
    bench.close();
}

fn what_is_for_a_port_out_of_service_is_dropped(eal: &Eal) {
    let dir = tempfile::tempdir().unwrap();
    write_capture(
        &dir.path().join("lan"),
        &vec![frame("udp 10.0.0.5:1000 > 192.0.2.7:53"); 100],
    );
    let lan = format!(
        "vdev:net_pcap0,rx_pcap={}/lan,infinite_rx=1",
        dir.path().display()
    );
    let mut bench = Bench::new(eal, &two_ports(&lan, "vdev:net_null0,no-rx=1", ALL), false);
    let mut worker = bench.worker.take().unwrap();
    let (wan, lan) = (bench.queues.pop().unwrap(), bench.queues.pop().unwrap());
    let reply = ask(&bench, &mut worker, Command::GivePort(PortId(0), Box::new(lan)));
    assert!(matches!(reply, Reply::GivePort(None)));
    ask(&bench, &mut worker, Command::Begin);
    // The worker never had the port's queues.
    for _ in 0..10 {
        worker.turn();
    }
    let down = |bench: &Bench, worker: &mut Worker| {
        ask(bench, worker, Command::Publish);
        let counts = bench.stats.read().0;
        assert!(counts.is_even(), "{counts:?}");
        (counts.drops[DropReason::LinkDown.index()], counts.tx_packets)
    };
    let (never, sent) = down(&bench, &mut worker);
    assert!(never > 0 && sent == 0);
    // It has them, and the link is down.
    bench.ports[1].flags().set_link_up(false);
    ask(&bench, &mut worker, Command::GivePort(PortId(1), Box::new(wan)));
    let (cut, sent) = down(&bench, &mut worker);
    assert!(cut > never && sent == 0);
    // Up.
    bench.ports[1].flags().set_link_up(true);
    worker.turn();
    let (still, sent) = down(&bench, &mut worker);
    assert!(sent > 0);
    // It has given them back.
    let Reply::TakePort(Some(wan)) = ask(&bench, &mut worker, Command::TakePort(PortId(1))) else {
        panic!("no queues");
    };
    worker.turn();
    let (gone, sent_then) = down(&bench, &mut worker);
    assert!(gone > still && sent_then >= sent);
    let Reply::TakePort(None) = ask(&bench, &mut worker, Command::TakePort(PortId(1))) else {
        panic!("the same queues twice");
    };
    drop((worker, wan));
    bench.close();
}

fn refused_packets_are_answered_and_the_answers_counted(eal: &Eal) {
    let dir = tempfile::tempdir().unwrap();
    write_capture(
        &dir.path().join("lan"),
        &vec![frame("tcp 10.0.0.5:1000 > 192.0.2.7:80 syn"); 10],
    );
    let lan = format!("vdev:net_pcap0,rx_pcap={}/lan", dir.path().display());
    let reject = "[[rule]]\nname = \"no\"\naction = \"reject\"\n";
    let mut bench = Bench::new(eal, &two_ports(&lan, "vdev:net_null0,no-rx=1", reject), false);
    let mut worker = bench.worker.take().unwrap();
    give_all(&mut bench, &mut worker);
    let (counts, ports) = settle(&bench, &mut worker);
    assert_eq!(
        [
            counts.rx_packets,
            counts.originated,
            counts.tx_packets,
            counts.forwarded
        ],
        [10, 10, 10, 0]
    );
    assert_eq!(dropped(&counts), [("policy", 10)]);
    assert_eq!(
        ports[0].tx_packets, 10,
        "the answers leave where the packets came in"
    );
    drop(worker);
    bench.close();
}

fn malformed_packets_by_kind_and_answers_not_made_are_published(eal: &Eal) {
    let dir = tempfile::tempdir().unwrap();
    let syn = frame("tcp 10.0.0.5:1000 > 192.0.2.7:80 syn");
    let mut bad_offset = syn.clone();
    bad_offset[14 + 20 + 12] = 0x40;
    let frames = [
        syn[..40].to_vec(),
        syn[..13].to_vec(),
        syn[..20].to_vec(),
        bad_offset,
    ];
    let refused = vec![syn; 10];
    write_capture(
        &dir.path().join("lan"),
        &[&frames[..], &frames[2..], &refused].concat(),
    );
    let lan = format!("vdev:net_pcap0,rx_pcap={}/lan", dir.path().display());
    let reject = "[policy]\nreject_rate = \"0/s\"\n[[rule]]\nname = \"no\"\naction = \"reject\"\n";
    let mut bench = Bench::new(eal, &two_ports(&lan, "vdev:net_null0,no-rx=1", reject), false);
    let mut worker = bench.worker.take().unwrap();
    give_all(&mut bench, &mut worker);
    let (counts, _) = settle(&bench, &mut worker);
    assert_eq!(dropped(&counts), [("malformed", 6), ("policy", 10)]);
    let kinds = Malformed::ALL.iter().zip(counts.malformed);
    let kinds: Vec<_> = kinds.filter(|(_, n)| *n > 0).collect();
    assert_eq!(
        kinds,
        [
            (&Malformed::EthernetTruncated, 1),
            (&Malformed::Ipv4Truncated, 2),
            (&Malformed::Ipv4TotalLength, 1),
            (&Malformed::TcpDataOffset, 2)
        ]
    );
    assert_eq!([counts.originated, counts.rejects_suppressed], [0, 10]);
    drop(worker);
    bench.close();
}

fn a_policy_comes_back_when_it_is_replaced(eal: &Eal) {
    let config = two_ports("vdev:net_null0,no-rx=1", "vdev:net_null1,no-rx=1", ALL);
    let mut bench = Bench::new(eal, &config, false);
    let mut worker = bench.worker.take().unwrap();
    let new = policy(&config, 2);
    let weak = std::sync::Arc::downgrade(&new);
    let Reply::Policy(old) = ask(&bench, &mut worker, Command::Policy(new)) else {
        panic!("another answer")
    };
    assert_eq!(old.generation.0, 1);
    assert_eq!(
        std::sync::Arc::strong_count(&old),
        1,
        "the worker has let go of it"
    );
    assert_eq!(weak.strong_count(), 1);
    settle(&bench, &mut worker);
    assert_eq!(bench.stats.read().0.generation, 2);
    drop(worker);
    bench.close();
}
