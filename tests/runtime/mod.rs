//! What the runtime's tests share: a worker on real DPDK ports that need neither NIC nor namespace.
#![allow(dead_code, reason = "every test binary uses its own part")]
#![allow(unreachable_pub, reason = "a module shared by test binaries has no outside")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's way to fail"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use haechi::base::{Generation, PortId, WorkerId};
use haechi::config::{self, Config, RuleIds};
use haechi::control::eventlog::RecordQueue;
use haechi::dpdk::tsc::TscClock;
use haechi::dpdk::{Eal, EalConfig, HugePages, Mempool};
use haechi::engine::Engine;
use haechi::flow::HashSeed;
use haechi::packet::synth::PacketSpec;
use haechi::policy::Policy;
use haechi::runtime::command::{Mailbox, WorkerLink};
use haechi::runtime::ports::NodePort;
use haechi::runtime::slots::PortQueues;
use haechi::runtime::stats::WorkerStats;
use haechi::runtime::worker::{Worker, WorkerSetup};

/// The process's EAL: it can be started once, so a test binary has one test. Cleaned up when its last clone goes.
pub fn start_eal() -> Eal {
    Eal::start(&EalConfig {
        hugepages: false,
        memory_mib: 256,
        ..EalConfig::default()
    })
    .unwrap()
}

/// A frame from its description.
pub fn frame(text: &str) -> Vec<u8> {
    text.parse::<PacketSpec>().unwrap().frame()
}

/// A capture file for net_pcap.
pub fn write_capture(file: &Path, frames: &[Vec<u8>]) {
    let file = std::fs::File::create(file).unwrap();
    let mut pcap = pcap_file::pcap::PcapWriter::new(file).unwrap();
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        let packet = pcap_file::pcap::PcapPacket::new(Duration::ZERO, length, frame);
        pcap.write_packet(&packet).unwrap();
    }
}

/// A configuration of two ports, `lan` and `wan`, on these devices, with these lines behind.
pub fn two_ports(lan: &str, wan: &str, rest: &str) -> Config {
    let mut text = String::from(
        "version = 1\n[node]\nmode = \"transparent\"\nworkers = \"0\"\npacket_buffers = 4096\n\
         [conntrack]\nmax_sessions = 512\n",
    );
    text.push_str(rest);
    for (name, peer, device) in [("lan", "wan", lan), ("wan", "lan", wan)] {
        text.push_str(&format!(
            "\n[[port]]\nname = {name:?}\nzone = {name:?}\npeer = {peer:?}\ndevice = {device:?}\n"
        ));
    }
    config::load_text("test.toml", &text).unwrap_or_else(|e| panic!("{e}"))
}

/// The policy of a configuration.
pub fn policy(config: &Config, generation: u32) -> Arc<Policy> {
    Arc::new(config::compile(config, Generation(generation), &mut RuleIds::new()).unwrap())
}

/// A worker that owns nothing yet, its link, and the queues that are for it.
pub struct Bench {
    pub eal: Eal,
    pub worker: Option<Worker>,
    pub link: WorkerLink,
    pub mailbox: Arc<Mailbox>,
    pub stats: Arc<WorkerStats>,
    pub records: Arc<RecordQueue>,
    pub queues: Vec<PortQueues>,
    // Last: the queues go first.
    pub ports: Vec<NodePort>,
}

impl Bench {
    /// Opens the configuration's ports and makes a worker for them.
    pub fn new(eal: &Eal, config: &Config, adaptive: bool) -> Self {
        let ports: Vec<NodePort> = (0..)
            .map(PortId)
            .zip(&config.ports)
            .map(|(id, port)| NodePort::new(id, port.clone(), config.node.packet_buffers, adaptive))
            .collect();
        let queues = ports.iter().map(|port| port.open(eal, 1).unwrap().pop().unwrap());
        let queues = queues.collect();
        let mailbox = Arc::new(Mailbox::default());
        let stats = Arc::new(WorkerStats::new(ports.len()));
        let records = Arc::new(RecordQueue::new(64));
        let sessions = config.conntrack.max_sessions;
        let setup = WorkerSetup {
            pair: None,
            way: None,
            id: WorkerId(0),
            engine: Engine::new(
                sessions,
                policy(config, 1),
                &HugePages { hugepages: false },
                HashSeed::random(),
            )
            .unwrap()
            .with_records(64, true),
            clock: TscClock::new(eal),
            ports: ports.iter().map(|port| Arc::clone(port.flags())).collect(),
            burst: usize::from(config.node.burst),
            adaptive,
            pool: Mempool::create(eal, "answers", 512, 1500).unwrap(),
            mesh: None,
            mailbox: Arc::clone(&mailbox),
            stats: Arc::clone(&stats),
            records: Some(Arc::clone(&records)),
        };
        let (worker, bell) = Worker::new(setup).unwrap();
        let link = WorkerLink::new(WorkerId(0), 0, Arc::clone(&mailbox), Arc::clone(&stats), bell);
        Self {
            eal: eal.clone(),
            worker: Some(worker),
            link,
            mailbox,
            stats,
            records,
            queues,
            ports,
        }
    }

    /// Closes the ports; every buffer must be back in its pool.
    pub fn close(mut self) {
        self.worker = None;
        self.queues.clear();
        for port in &self.ports {
            port.close().unwrap();
        }
        assert_eq!(self.eal.buffers_of_closed_ports(), 0);
    }
}
