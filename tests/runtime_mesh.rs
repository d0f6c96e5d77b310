//! Two workers on real DPDK ports: what arrives at the wrong one, a queue between them that is full, one that does not turn, one that
//! sleeps, and a stop. Every packet is accounted for, at each worker and on the way.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's way to fail")]

#[path = "runtime/crew.rs"]
mod crew;
mod runtime;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use crew::{Crew, dropped, on_their_way};
use haechi::base::{Nanos, PortId, WorkerId};
use haechi::config::Config;
use haechi::dpdk::wake::WakeSet;
use haechi::dpdk::{Eal, Mempool};
use haechi::engine::{DropReason, Hops, Message};
use haechi::flow::FlowKey;
use haechi::packet::synth::PacketSpec;
use haechi::packet::{ParseOptions, RxChecksum, parse};
use haechi::runtime::command::{Command, Reply};
use haechi::runtime::launch::rest_workers;
use haechi::runtime::mesh::{self, Handed, What};
use haechi::runtime::worker::Worker;
use runtime::{start_eal, two_ports, write_capture};

const ALL: &str = "[[rule]]\nname = \"all\"\naction = \"allow\"\n";
const FLOWS: u64 = 64;
/// Packets of each flow.
const EACH: u64 = 20;
const TOTAL: u64 = FLOWS * EACH;
const PATIENCE: Duration = Duration::from_secs(20);
const LONG: Nanos = Nanos::from_secs(30);

/// One test after the other in one thread: the EAL's main thread and its ports are the process's.
#[test]
fn two_workers_share_the_packets_of_one() {
    let eal = start_eal();
    everything_is_judged_by_its_owner_and_stays_in_order(&eal);
    what_workers_make_for_each_other_is_counted_once(&eal);
    a_queue_for_one_packet_drops_and_keeps_the_order(&eal);
    a_stalled_worker_stalls_no_other(&eal);
    a_sleeping_worker_is_woken(&eal);
    nothing_is_lost_on_a_stop(&eal);
}

/// One packet of a flow, with its number in the flow.
fn packet(flow: u64, number: u64) -> Vec<u8> {
    let text = format!("udp 10.0.0.{flow}:1000 > 192.0.2.7:53");
    let mut packet: PacketSpec = text.parse().unwrap();
    packet.payload = vec![flow as u8, number as u8];
    packet.frame()
}

/// All packets, the flows beside each other.
fn packets() -> Vec<Vec<u8>> {
    let numbers = (0..EACH).flat_map(|number| (0..FLOWS).map(move |flow| (flow, number)));
    numbers.map(|(flow, number)| packet(flow, number)).collect()
}

/// Flows that the owner function gives to each worker.
fn owned(crew: &Crew) -> [u64; 2] {
    let mut owned = [0; 2];
    for flow in 0..FLOWS {
        let frame = packet(flow, 0);
        let meta = parse(&frame, RxChecksum::default(), ParseOptions::default());
        owned[crew.placement.owner(PortId(0), &meta, &frame).unwrap().index()] += 1;
    }
    owned
}

/// Two workers that both own some of the flows: the node's keys are random, and what they hash to is linear in the bits in which flows
/// differ, so that now and then one worker owns all of them.
fn both_own(eal: &Eal, config: &Config, adaptive: bool) -> Crew {
    loop {
        let crew = Crew::new(eal, config, adaptive);
        if owned(&crew).iter().all(|flows| *flows > 0) {
            return crew;
        }
        crew.close();
    }
}

/// `lan` sends what is in the capture, by one queue, which is the first worker's; what `wan` sends, by one queue, which is the second
/// worker's, is in the file `out`.
fn through_files(dir: &Path, rest: &str) -> Config {
    write_capture(&dir.join("in"), &packets());
    let lan = format!("vdev:net_pcap0,rx_pcap={}/in", dir.display());
    let wan = format!("vdev:net_pcap1,tx_pcap={}/out", dir.display());
    two_ports(&lan, &wan, rest)
}

/// `lan` sends what is in the capture again and again, to the first worker; both workers have a queue to send by.
fn endless(dir: &Path) -> Config {
    write_capture(&dir.join("in"), &packets());
    let lan = format!("vdev:net_pcap0,rx_pcap={}/in,infinite_rx=1", dir.display());
    two_ports(&lan, "vdev:net_null0,no-rx=1", ALL)
}

/// The numbers of the packets of each flow that are in a capture, in order.
fn numbers(file: &Path) -> BTreeMap<u8, Vec<u8>> {
    let file = std::fs::File::open(file).unwrap();
    let mut capture = pcap_file::pcap::PcapReader::new(file).unwrap();
    let mut flows = BTreeMap::<u8, Vec<u8>>::new();
    while let Some(packet) = capture.next_packet() {
        let data = packet.unwrap().data;
        // Ethernet, IPv4, UDP.
        let payload = &data[14 + 20 + 8..];
        flows.entry(payload[0]).or_default().push(payload[1]);
    }
    flows
}

fn everything_is_judged_by_its_owner_and_stays_in_order(eal: &Eal) {
    let dir = tempfile::tempdir().unwrap();
    let mut crew = both_own(eal, &through_files(dir.path(), ALL), false);
    let owned = owned(&crew);
    let [first, second] = crew.settle();
    assert_eq!([first.rx_packets, second.rx_packets], [TOTAL, 0]);
    assert_eq!([first.sessions, second.sessions], owned);
    // The first one hands over what it does not own, and has what it owns sent.
    assert_eq!(
        [first.handed_over, first.relayed],
        [owned[1] * EACH, owned[0] * EACH]
    );
    assert_eq!([first.tx_packets, first.taken_over], [0, 0]);
    assert_eq!(
        [second.taken_over, second.tx_packets, second.forwarded],
        [TOTAL; 3]
    );
    assert_eq!([second.handed_over, second.relayed], [0, 0]);
    assert_eq!([dropped(&first), dropped(&second)], [vec![], vec![]]);
    crew.close();
    let flows = numbers(&dir.path().join("out"));
    assert_eq!(flows.len() as u64, FLOWS);
    let all: Vec<u8> = (0..EACH as u8).collect();
    assert!(flows.values().all(|numbers| *numbers == all), "{flows:?}");
}

/// Refused packets are answered where they came in, for which only the first worker has a queue.
fn what_workers_make_for_each_other_is_counted_once(eal: &Eal) {
    let dir = tempfile::tempdir().unwrap();
    let no = "[policy]\nreject_rate = \"1000000/s\"\n[[rule]]\nname = \"no\"\naction = \"reject\"\n";
    let mut crew = both_own(eal, &through_files(dir.path(), no), false);
    let owned = owned(&crew);
    let [first, second] = crew.settle();
    assert_eq!(
        [first.originated, second.originated],
        owned.map(|flows| flows * EACH)
    );
    assert_eq!([first.handed_over, second.relayed], [owned[1] * EACH; 2]);
    assert_eq!([first.taken_over, second.taken_over], [owned[1] * EACH; 2]);
    assert_eq!([first.tx_packets, first.forwarded], [TOTAL, 0]);
    assert_eq!([second.tx_packets, second.forwarded], [0, 0]);
    let policy = owned.map(|flows| vec![("policy", flows * EACH)]);
    assert_eq!([dropped(&first), dropped(&second)], policy);
    crew.close();
}

fn a_queue_for_one_packet_drops_and_keeps_the_order(eal: &Eal) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = through_files(dir.path(), ALL);
    config.node.handover_queue = 1;
    let mut crew = both_own(eal, &config, false);
    let [first, second] = crew.settle();
    let full = first.drops[DropReason::QueueFull.index()];
    assert_eq!(dropped(&first), [("queue_full", full)]);
    assert_eq!(dropped(&second), []);
    // Bursts for a queue of one: most are lost, and all that are not get through.
    assert!(full > TOTAL / 2 && second.tx_packets > 0);
    assert_eq!(second.tx_packets + full, TOTAL);
    assert_eq!(second.taken_over, first.handed_over + first.relayed);
    crew.close();
    let flows = numbers(&dir.path().join("out"));
    let sent: usize = flows.values().map(Vec::len).sum();
    assert_eq!(sent as u64, second.tx_packets);
    assert!(
        flows.values().all(|numbers| numbers.is_sorted_by(|a, b| a < b)),
        "{flows:?}"
    );
}

fn a_stalled_worker_stalls_no_other(eal: &Eal) {
    const ROOM: u64 = 64;
    let dir = tempfile::tempdir().unwrap();
    let mut config = endless(dir.path());
    config.node.handover_queue = ROOM as u32;
    let mut crew = both_own(eal, &config, false);
    let owned = owned(&crew);
    // From here on the second one does not turn.
    let before = crew.counts(1).taken_over;
    let turn_first = |crew: &mut Crew| {
        for _ in 0..1000 {
            crew.workers[0].turn();
        }
        crew.counts(0)
    };
    let full = turn_first(&mut crew);
    let fuller = turn_first(&mut crew);
    assert_eq!([full.handed_over, fuller.handed_over], [before + ROOM; 2]);
    assert_eq!([full.sessions, fuller.sessions], [owned[0]; 2]);
    assert!(fuller.forwarded > full.forwarded && full.forwarded >= owned[0] * EACH);
    for counts in [full, fuller] {
        let lost = counts.rx_packets - counts.forwarded - counts.handed_over;
        assert_eq!(dropped(&counts), [("queue_full", lost)]);
        assert_eq!(counts.held, 0);
    }
    // It turns again, and takes what is there.
    crew.workers[1].turn();
    let second = crew.counts(1);
    assert_eq!([second.taken_over, second.forwarded], [before + ROOM; 2]);
    // Both as if nothing had been.
    let before = crew.counts(0);
    for _ in 0..1000 {
        crew.workers.iter_mut().for_each(Worker::turn);
    }
    let (first, second) = (crew.counts(0), crew.counts(1));
    assert!(first.handed_over >= before.handed_over + 100 * ROOM);
    assert_eq!([first.sessions, second.sessions], owned);
    assert_eq!(dropped(&second), []);
    for worker in 0..2 {
        assert!(matches!(crew.ask(worker, Command::Rest), Reply::Rest));
    }
    let counts = crew.settle();
    assert_eq!(on_their_way(&counts), 0);
    crew.close();
}

/// Not by the clock: the sleep says by what it ended, and without the bell it would last for half a minute.
fn a_sleeping_worker_is_woken(eal: &Eal) {
    let pool = Mempool::create(eal, "woken", 512, 1500).unwrap();
    let mut meshes = mesh::mesh(eal, &[None, None], 4).unwrap();
    let (mut second, mut first) = (meshes.pop().unwrap(), meshes.pop().unwrap());
    let to = WorkerId(1);
    let wake = WakeSet::new().unwrap();
    second.set_bell(wake.bell());
    let redirect = || Message::Redirect {
        key: FlowKey::default(),
        hash: 7,
        to: None,
    };
    let sleeper = AtomicI32::new(0);
    for round in 0..4 {
        let (slept, mesh) = std::thread::scope(|scope| {
            let mesh = second;
            let (sleeper, wake) = (&sleeper, &wake);
            let slept = scope.spawn(move || {
                let tid = rustix::thread::gettid().as_raw_nonzero().get();
                let slept = mesh.sleep(|| {
                    sleeper.store(tid, Ordering::Release);
                    wake.wait(LONG)
                });
                (slept, mesh)
            });
            until_asleep(sleeper);
            if round % 2 == 0 {
                let handed = Handed::new(pool.alloc().unwrap(), PortId(0), Hops::NONE, What::Judge);
                assert!(matches!(first.push(to, handed), Ok(false)));
                assert_eq!(first.flush(to, |_| panic!("there is room")), 1);
            } else {
                first.tell(to, redirect()).unwrap();
            }
            slept.join().unwrap()
        });
        assert_eq!(slept, Some(true), "round {round}");
        second = mesh;
        // What is there keeps it awake; nothing but a sleep has it rung for.
        assert_eq!(second.sleep(|| wake.wait(LONG)), None);
        let mut taken = arrayvec::ArrayVec::<Handed, 4>::new();
        second.take(&mut taken);
        assert_eq!(taken.len() + second.messages(), 1);
        let message = second.next_message();
        assert!(
            match message {
                None => round % 2 == 0,
                Some(Message::Redirect {
                    hash: 7, to: None, ..
                }) => round % 2 == 1,
                Some(_) => false,
            },
            "round {round}"
        );
        assert!(second.is_empty());
        assert!(!wake.wait(Nanos(0)), "rung for while awake");
        sleeper.store(0, Ordering::Relaxed);
    }
}

/// Waits until the thread is in its system call: there is none but the one that it sleeps in.
fn until_asleep(thread: &AtomicI32) {
    loop {
        let tid = thread.load(Ordering::Acquire);
        let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap_or_default();
        // The name, which may have blanks, stands in parentheses before the state.
        if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')) && tid != 0 {
            return;
        }
        std::thread::yield_now();
    }
}

fn nothing_is_lost_on_a_stop(eal: &Eal) {
    let dir = tempfile::tempdir().unwrap();
    for adaptive in [false, true] {
        let mut crew = both_own(eal, &endless(dir.path()), adaptive);
        let owned = owned(&crew);
        crew.on_threads(|links| {
            while links[1].stats().read().0.taken_over < 10 * TOTAL {
                assert!(matches!(
                    links[1].ask(Command::Publish, PATIENCE),
                    Ok(Reply::Publish)
                ));
            }
            rest_workers(links);
            for link in links {
                assert!(matches!(link.ask(Command::Stop, PATIENCE), Ok(Reply::Stop)));
            }
        });
        let counts = [0, 1].map(|worker| crew.links[worker].stats().read().0);
        for counts in &counts {
            assert!(counts.is_even() && counts.held == 0, "{counts:?}");
        }
        assert_eq!(on_their_way(&counts), 0);
        assert_eq!(counts.each_ref().map(|counts| counts.sessions), owned);
        assert_eq!(dropped(&counts[1]), []);
        let full = counts[0].drops[DropReason::QueueFull.index()];
        let sent = counts[0].tx_packets + counts[1].tx_packets;
        assert_eq!(counts[0].rx_packets, sent + full);
        assert_eq!(counts[0].dropped(), full);
        crew.close();
    }
}
