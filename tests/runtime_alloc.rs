//! Invariant: a worker allocates nothing. A worker on real DPDK ports runs on a thread whose every call of the allocator
//! ends the process, while packets pass and every command there is reaches it.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's way to fail")]
#![allow(unsafe_code, reason = "a global allocator is an unsafe trait")]

#[path = "support/frames.rs"]
mod frames;
mod runtime;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use frames::{Ip4, udp};
use haechi::base::{Nanos, PortId};
use haechi::config::Config;
use haechi::dpdk::thread::Registered;
use haechi::engine::{DropReason, Event};
use haechi::policy::Scale;
use haechi::runtime::command::{Command, Farewell, Kill, Lookup, Reply, RuleScan, SessionScan};
use runtime::{Bench, frame, policy, start_eal, two_ports, write_capture};

/// The system's allocator; a thread that is marked may not call it.
struct Guarded;

thread_local! {
    static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
}

fn check() {
    if FORBIDDEN.try_with(Cell::get).unwrap_or(false) {
        // No unwinding and no message that would allocate: the process ends here, and the test harness says so.
        std::process::abort();
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller's contract is this one's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        check();
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Guarded = Guarded;

/// Flows of both kinds: UDP that is allowed (both ways), TCP that is refused with a reset, things that are dropped.
fn write_captures(dir: &Path) {
    let (mut lan, mut wan) = (Vec::new(), Vec::new());
    for n in 0..200 {
        lan.push(frame(&format!("udp 10.0.0.5:{} > 192.0.2.7:53", 1024 + n)));
        wan.push(frame(&format!("udp 192.0.2.7:53 > 10.0.0.5:{}", 1024 + n)));
        lan.push(frame(&format!("tcp 10.0.0.5:{} > 192.0.2.7:80 syn", 1024 + n)));
        wan.push(frame(&format!("tcp 192.0.2.8:{} > 10.0.0.5:22 syn", 1024 + n)));
        lan.push(vec![0; 60]);
        wan.push(vec![0xff; 20]);
        // Parts of datagrams that are complete, that overlap, and that never will be complete.
        let datagram = udp((1000, 53), &[1; 16]);
        let (first, last) = ((0x2000, &datagram[..16]), (0x0002, &datagram[16..]));
        let overlapping = (0x0001, &datagram[8..]);
        let parts: &[_] = match n % 3 {
            0 => &[first, last],
            1 => &[first, overlapping, last],
            _ => &[last],
        };
        for (fragment, part) in parts {
            let mut ip = Ip4::new(17);
            (ip.fragment, ip.destination[3]) = (*fragment, n as u8);
            lan.push(ip.frame(part));
        }
    }
    write_capture(&dir.join("lan"), &lan);
    write_capture(&dir.join("wan"), &wan);
}

fn configuration(dir: &Path, timeout: &str) -> Config {
    let dir = dir.display();
    let rest = format!(
        r#"
        timeouts = {{ udp_replied = "{timeout}" }}
        [[rule]]
        name = "dns"
        from = "lan"
        service = ["udp/53"]
        action = "allow"
        log = "both"
        [[rule]]
        name = "web"
        from = "lan"
        service = ["tcp/80"]
        action = "reject"
        log = "alert"
        [log]
        sessions = "/nowhere/sessions"
        alerts = "/nowhere/alerts"
        "#
    );
    two_ports(
        &format!("vdev:net_pcap0,rx_pcap={dir}/lan,infinite_rx=1"),
        &format!("vdev:net_pcap1,rx_pcap={dir}/wan,infinite_rx=1"),
        &rest,
    )
}

const ANSWER: Duration = Duration::from_secs(20);

#[test]
fn a_worker_never_calls_the_allocator() {
    let dir = tempfile::tempdir().unwrap();
    write_captures(dir.path());
    let mut bench = Bench::new(&start_eal(), &configuration(dir.path(), "5m"), true);
    let worker = bench.worker.take().unwrap();
    let mut queues = std::mem::take(&mut bench.queues);
    let thread = std::thread::spawn({
        let eal = bench.eal.clone();
        move || {
            let registered = Registered::new(&eal).unwrap();
            FORBIDDEN.set(true);
            let worker = worker.run();
            FORBIDDEN.set(false);
            drop(registered);
            worker
        }
    });
    let ask = |command| bench.link.ask(command, ANSWER).unwrap();

    // Idle first: sleeping and waking are the worker's, too.
    std::thread::sleep(Duration::from_millis(20));
    for id in [PortId(1), PortId(0)] {
        let given = Command::GivePort(id, Box::new(queues.pop().unwrap()));
        assert!(matches!(ask(given), Reply::GivePort(None)));
    }
    assert!(matches!(ask(Command::Begin), Reply::Begin));
    // Sessions and alerts; most find no room.
    let mut told = [0, 0];
    for round in 2..50 {
        let timeout = ["5m", "1s"][round as usize % 2];
        let new = policy(&configuration(dir.path(), timeout), round);
        let Reply::Policy(old) = ask(Command::Policy(new)) else {
            panic!("another answer")
        };
        assert_eq!(old.generation.0, round - 1);
        everything_but_stop(&ask);
        while let Some(record) = bench.records.pop() {
            told[usize::from(matches!(record.event, Event::Alert(_)))] += 1;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // A link that is down, and a port that is out of service: packets to them are dropped.
    bench.ports[0].flags().set_link_up(false);
    let Reply::TakePort(Some(taken)) = ask(Command::TakePort(PortId(1))) else {
        panic!("no queues")
    };
    ask(Command::Publish);
    let Reply::GivePort(None) = ask(Command::GivePort(PortId(1), taken)) else {
        panic!("had queues")
    };
    let farewell = Farewell {
        until: Nanos(0),
        from: Some(0),
    };
    assert!(matches!(ask(Command::Farewell(farewell)), Reply::Farewell));
    assert!(matches!(ask(Command::Stop), Reply::Stop));
    let worker = thread.join().unwrap();

    let (counts, _) = bench.stats.read();
    assert!(counts.is_even(), "{counts:?}");
    assert_eq!(counts.held, 0);
    let passed = [
        counts.rx_packets,
        counts.tx_packets,
        counts.originated,
        counts.sessions_created,
        counts.log_records_lost,
        told[0],
        told[1],
    ];
    assert!(passed.iter().all(|n| *n > 0), "{counts:?}");
    let hostile = counts.drops[DropReason::FragmentOverlap.index()];
    assert!(counts.fragments_reassembled > 0 && hostile > 0, "{counts:?}");
    drop(worker);
    bench.close();
}

/// One of every command that is not followed by a stop.
fn everything_but_stop(ask: &impl Fn(Command) -> Reply) {
    assert!(matches!(ask(Command::Publish), Reply::Publish));
    assert!(matches!(ask(Command::Begin), Reply::Begin));
    let scan = SessionScan {
        from: 0,
        slots: 4096,
        found: Vec::with_capacity(1024),
        next: None,
        now: Nanos(0),
        scale: Scale::FULL,
    };
    let Reply::Sessions(scan) = ask(Command::Sessions(Box::new(scan))) else {
        panic!("another answer")
    };
    assert_eq!(scan.next, None);
    let keys: Vec<_> = scan.found.iter().map(|found| found.session.key).collect();
    let lookup = Lookup {
        found: Vec::with_capacity(keys.len()),
        keys,
        ..Lookup::default()
    };
    let Reply::Lookup(lookup) = ask(Command::Lookup(Box::new(lookup))) else {
        panic!("another answer")
    };
    assert_eq!(lookup.done, scan.found.len());
    let half = scan.found.len() / 2;
    let kill = Kill {
        sessions: scan.found.iter().take(half).map(|found| found.id).collect(),
        ..Kill::default()
    };
    let Reply::Kill(kill) = ask(Command::Kill(Box::new(kill))) else {
        panic!("another answer")
    };
    assert_eq!(kill.done, half);
    let rules = RuleScan {
        from: 0,
        counters: Vec::with_capacity(2),
    };
    let Reply::Rules(rules) = ask(Command::Rules(Box::new(rules))) else {
        panic!("another answer")
    };
    assert_eq!(rules.counters.len(), 2);
}
