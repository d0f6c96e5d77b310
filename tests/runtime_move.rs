//! Two workers on threads of their own, with real rings between them, on a device with RSS: buckets go to and fro while packets come, none is
//! lost, none overtakes another of its flow, and every session is there afterwards.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's way to fail")]

#[path = "runtime/crew.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod crew;
#[path = "support/rssdev.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod rssdev;
mod runtime;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command as Program;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crew::Crew;
use haechi::base::WorkerId;
use haechi::engine::Placement;
use haechi::flow::owner::BUCKETS;
use haechi::flow::owner::balance::Proposal;
use haechi::runtime::command::{Command, Reply, WorkerLink};
use haechi::runtime::launch::rest_workers;
use haechi::runtime::rebalance::{Balancer, MoveError};
use haechi::runtime::stats::Counts;
use rssdev::{RssDevice, kinds};
use runtime::{start_eal, two_ports};

const FLOWS: u64 = 200;
/// Packets on their way at most: fewer than any queue takes, so that none is lost however late a worker gets its CPU.
const UNDER_WAY: u64 = 2000;
const MOVES: u32 = 24;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn buckets_move_under_load_without_loss_or_reordering() {
    if std::env::var_os("HAECHI_RSSDEV_CTL").is_some() {
        return on_the_device();
    }
    // Of ICMP's echo requests each says which pass it is of.
    let device = RssDevice::new("move", FLOWS as u32, kinds::ICMP4);
    let status = Program::new("env")
        .args(device.environment("reta=128,key=40"))
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "buckets_move_under_load_without_loss_or_reordering",
            "--nocapture",
        ])
        .status()
        .unwrap();
    device.remove();
    assert!(status.success(), "{status}");
}

/// What both count, as they last published it.
fn counts(links: &[WorkerLink]) -> Counts {
    let mut total = Counts::default();
    for worker in links {
        total.add(&worker.stats().read().0);
    }
    total
}

#[allow(clippy::disallowed_methods, reason = "a test's clock")]
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// All that one worker has, or half of it, goes to the other one, again and again. Returns how often the device has sent all flows.
fn rebalance(placement: &Arc<Placement>, links: &[WorkerLink], device: &RssDevice) -> u64 {
    let (mut passes, stop) = (0, AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Packets come all the while, as fast as they leave.
        let feeder = scope.spawn(|| {
            let mut passes = 0;
            while !stop.load(Ordering::Acquire) {
                if passes * FLOWS - counts(links).tx_packets < UNDER_WAY {
                    device.send(0, 1);
                    passes += 1;
                } else {
                    std::thread::yield_now();
                }
            }
            passes
        });
        let mut balancer = Balancer::new(Some(Arc::clone(placement)), Arc::default());
        let mut table = placement.buckets.clone();
        for number in 0..MOVES {
            let [from, to] = [[0, 1], [1, 0]][number as usize % 2].map(WorkerId);
            let half = number % 3 == 0;
            let goes = |bucket: &usize| table.workers[*bucket] == from && !(half && bucket % 2 == 0);
            let proposal = Proposal {
                from,
                to,
                buckets: (0..BUCKETS).filter(goes).collect(),
                sessions: 0,
            };
            let before = counts(links).tx_packets;
            // However late a worker gets its CPU.
            let mut over = balancer.carry_out(links, &proposal).map(|()| true);
            wait_for("the move is over", || {
                match &over {
                    Ok(true) => return true,
                    Ok(false) | Err(MoveError::NoAnswer(_) | MoveError::UnderWay) => {}
                    Err(e) => panic!("{e}"),
                }
                over = balancer.go_on(links);
                false
            });
            table = table.moved(proposal.buckets.iter().map(|bucket| (bucket, to)));
            assert_eq!(balancer.version(), number + 1);
            // Some go where they belong now before the next move.
            wait_for("packets leave", || {
                counts(links).tx_packets > before + 3 * UNDER_WAY
            });
        }
        stop.store(true, Ordering::Release);
        passes = feeder.join().unwrap();
    });
    passes
}

fn on_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let wan = format!("vdev:net_pcap1,tx_pcap={}", out.display());
    let rule = "[[rule]]\nname = \"all\"\naction = \"allow\"\n";
    let mut config = two_ports("vdev:net_null0", &wan, rule);
    config.node.packet_buffers = 16_384;
    let eal = start_eal();
    let device = RssDevice::here();
    let mut crew = Crew::new(&eal, &config, true);
    let placement = Arc::clone(&crew.placement);
    let (mut passes, mut total) = (0, Counts::default());
    crew.on_threads(|links| {
        passes = rebalance(&placement, links, &device);
        wait_for("everything has left", || {
            counts(links).tx_packets == passes * FLOWS
        });
        rest_workers(links);
        total = counts(links);
        for worker in links {
            assert!(matches!(worker.ask(Command::Stop, PATIENCE), Ok(Reply::Stop)));
        }
    });
    assert_eq!(crew::dropped(&total), [], "{total:?}");
    assert_eq!([total.rx_packets, total.tx_packets], [passes * FLOWS; 2]);
    assert_eq!(total.handed_over + total.relayed, total.taken_over);
    assert_eq!(
        [total.sessions, total.sessions_created, total.sessions_ended],
        [FLOWS, FLOWS, 0]
    );
    assert_eq!(total.sessions_moved_in, total.sessions_moved_out);
    assert!(
        total.sessions_moved_in > u64::from(MOVES) * FLOWS / 4,
        "{total:?}"
    );
    assert_eq!(total.redirects, 0);
    println!(
        "{MOVES} moves of {} sessions in all while {} packets crossed, {} handed over",
        total.sessions_moved_in, total.tx_packets, total.handed_over
    );
    crew.close();
    let flows = passes_of(&out);
    assert_eq!(flows.len() as u64, FLOWS);
    let all: Vec<u16> = (0..passes).map(|pass| pass as u16).collect();
    for (flow, its) in flows {
        assert!(its == all, "flow {flow}: {its:?}");
    }
}

/// Of each flow, by its identifier, the passes of its packets in a capture, in order.
fn passes_of(file: &Path) -> BTreeMap<u16, Vec<u16>> {
    let file = std::fs::File::open(file).unwrap();
    let mut capture = pcap_file::pcap::PcapReader::new(file).unwrap();
    let mut flows = BTreeMap::<u16, Vec<u16>>::new();
    while let Some(packet) = capture.next_packet() {
        let data = packet.unwrap().data;
        // Ethernet, IPv4, and of ICMP (RFC 792) type, code and checksum.
        let word = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
        flows
            .entry(word(14 + 20 + 4))
            .or_default()
            .push(word(14 + 20 + 6));
    }
    flows
}
