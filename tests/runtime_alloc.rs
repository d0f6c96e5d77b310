//! Invariant: a worker allocates nothing. A worker on real DPDK ports runs on a thread whose every call of the allocator
//! ends the process, while packets pass and every command there is reaches it.
#![cfg(feature = "dpdk")]
#![allow(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use haechi::base::{Generation, PortId, WorkerId};
use haechi::config::{self, RuleIds};
use haechi::dpdk::tsc::TscClock;
use haechi::dpdk::{Eal, EalConfig, HugePages, Mempool, thread::Registered};
use haechi::engine::Engine;
use haechi::flow::HashSeed;
use haechi::packet::synth::PacketSpec;
use haechi::policy::Policy;
use haechi::runtime::command::{Command, Kill, Lookup, Mailbox, Reply, RuleScan, SessionScan, WorkerLink};
use haechi::runtime::ports::NodePort;
use haechi::runtime::stats::WorkerStats;
use haechi::runtime::worker::{Worker, WorkerSetup};

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
    let frame = |text: &str| text.parse::<PacketSpec>().unwrap().frame();
    let (mut lan, mut wan) = (Vec::new(), Vec::new());
    for n in 0..200 {
        lan.push(frame(&format!("udp 10.0.0.5:{} > 192.0.2.7:53", 1024 + n)));
        wan.push(frame(&format!("udp 192.0.2.7:53 > 10.0.0.5:{}", 1024 + n)));
        lan.push(frame(&format!("tcp 10.0.0.5:{} > 192.0.2.7:80 syn", 1024 + n)));
        wan.push(frame(&format!("tcp 192.0.2.8:{} > 10.0.0.5:22 syn", 1024 + n)));
        lan.push(vec![0; 60]);
        wan.push(vec![0xff; 20]);
    }
    for (name, frames) in [("lan", lan), ("wan", wan)] {
        let file = std::fs::File::create(dir.join(name)).unwrap();
        let mut pcap = pcap_file::pcap::PcapWriter::new(file).unwrap();
        for frame in frames {
            let length = u32::try_from(frame.len()).unwrap();
            let packet = pcap_file::pcap::PcapPacket::new(Duration::ZERO, length, &frame);
            pcap.write_packet(&packet).unwrap();
        }
    }
}

fn configuration(dir: &Path, timeout: &str) -> config::Config {
    let text = format!(
        r#"
        version = 1
        [node]
        mode = "transparent"
        workers = "0"
        packet_buffers = 4096
        [conntrack]
        max_sessions = 512
        timeouts = {{ udp_replied = "{timeout}" }}
        [[port]]
        name = "lan"
        zone = "lan"
        peer = "wan"
        device = "vdev:net_pcap0,rx_pcap={dir}/lan,infinite_rx=1"
        [[port]]
        name = "wan"
        zone = "wan"
        peer = "lan"
        device = "vdev:net_pcap1,rx_pcap={dir}/wan,infinite_rx=1"
        [[rule]]
        name = "dns"
        from = "lan"
        service = ["udp/53"]
        action = "allow"
        [[rule]]
        name = "web"
        from = "lan"
        service = ["tcp/80"]
        action = "reject"
        "#,
        dir = dir.display()
    );
    config::load_text("test.toml", &text).unwrap_or_else(|e| panic!("{e}"))
}

fn policy(config: &config::Config, generation: u32) -> Arc<Policy> {
    Arc::new(config::compile(config, Generation(generation), &mut RuleIds::new()).unwrap())
}

const ANSWER: Duration = Duration::from_secs(20);

#[test]
fn a_worker_never_calls_the_allocator() {
    let dir = tempfile::tempdir().unwrap();
    write_captures(dir.path());
    let config = configuration(dir.path(), "5m");
    let eal = Eal::start(&EalConfig {
        hugepages: false,
        memory_mib: 256,
        ..EalConfig::default()
    })
    .unwrap();
    let ports: Vec<NodePort> = (0..)
        .map(PortId)
        .zip(&config.ports)
        .map(|(id, port)| NodePort::new(id, port.clone(), config.node.packet_buffers))
        .collect();
    let mut queues: Vec<_> = ports
        .iter()
        .map(|port| port.open(&eal, 1).unwrap().pop().unwrap())
        .collect();
    let mailbox = Arc::new(Mailbox::default());
    let stats = Arc::new(WorkerStats::new(ports.len()));
    let setup = WorkerSetup {
        engine: Engine::new(
            512,
            policy(&config, 1),
            &HugePages { hugepages: false },
            HashSeed::random(),
        )
        .unwrap(),
        clock: TscClock::new(&eal),
        ports: ports.iter().map(|port| Arc::clone(port.flags())).collect(),
        burst: 32,
        adaptive: true,
        pool: Mempool::create(&eal, "answers", 512, 1500).unwrap(),
        mailbox: Arc::clone(&mailbox),
        stats: Arc::clone(&stats),
    };
    let (worker, bell) = Worker::new(setup).unwrap();
    let link = WorkerLink::new(WorkerId(0), 0, mailbox, stats, bell);
    let thread = std::thread::spawn({
        let eal = eal.clone();
        move || {
            let registered = Registered::new(&eal).unwrap();
            FORBIDDEN.set(true);
            let worker = worker.run();
            FORBIDDEN.set(false);
            drop(registered);
            worker
        }
    });
    let ask = |command| link.ask(command, ANSWER).unwrap();

    // Idle first: sleeping and waking are the worker's, too.
    std::thread::sleep(Duration::from_millis(20));
    for id in [PortId(1), PortId(0)] {
        let given = Command::GivePort(id, Box::new(queues.pop().unwrap()));
        assert!(matches!(ask(given), Reply::GivePort(None)));
    }
    for round in 2..50 {
        let timeout = ["5m", "1s"][round as usize % 2];
        let new = policy(&configuration(dir.path(), timeout), round);
        let Reply::Policy(old) = ask(Command::Policy(new)) else {
            panic!("another answer")
        };
        assert_eq!(old.generation.0, round - 1);
        everything_but_stop(&ask);
        std::thread::sleep(Duration::from_millis(10));
    }
    // A link that is down, and a port that is out of service: packets to them are dropped.
    ports[0].flags().set_link_up(false);
    let Reply::TakePort(Some(taken)) = ask(Command::TakePort(PortId(1))) else {
        panic!("no queues")
    };
    ask(Command::Publish);
    let Reply::GivePort(None) = ask(Command::GivePort(PortId(1), taken)) else {
        panic!("had queues")
    };
    assert!(matches!(ask(Command::Stop), Reply::Stop));
    let worker = thread.join().unwrap();

    let (counts, _) = link.stats().read();
    assert!(counts.is_even(), "{counts:?}");
    assert_eq!(counts.held, 0);
    let passed = [
        counts.rx_packets,
        counts.tx_packets,
        counts.originated,
        counts.sessions_created,
    ];
    assert!(passed.iter().all(|n| *n > 0), "{counts:?}");
    drop(worker);
    for port in ports {
        port.close().unwrap();
    }
}

/// One of every command that is not followed by a stop.
fn everything_but_stop(ask: &impl Fn(Command) -> Reply) {
    assert!(matches!(ask(Command::Publish), Reply::Publish));
    assert!(matches!(ask(Command::ResetGap), Reply::ResetGap));
    let scan = SessionScan {
        from: 0,
        slots: 4096,
        found: Vec::with_capacity(1024),
        next: None,
        now: haechi::base::Nanos(0),
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
