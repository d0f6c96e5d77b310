//! Two workers of one node on real ports with real queues between them, turned by hand or on threads.
#![allow(unreachable_pub, reason = "a module of a test binary has no outside")]

use std::sync::Arc;
use std::time::Duration;

use haechi::base::{PortId, WorkerId};
use haechi::config::Config;
use haechi::dpdk::thread::Registered;
use haechi::dpdk::tsc::TscClock;
use haechi::dpdk::{Eal, HugePages, Mempool};
use haechi::engine::{DropReason, Engine, Placement};
use haechi::flow::HashSeed;
use haechi::runtime::command::{Command, Mailbox, Reply, WorkerLink};
use haechi::runtime::ports::{self, NodePort};
use haechi::runtime::stats::{Counts, WorkerStats};
use haechi::runtime::threads::places;
use haechi::runtime::worker::{Worker, WorkerSetup};

use crate::runtime::policy;

const WORKERS: u16 = 2;
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Crew {
    eal: Eal,
    pub workers: Vec<Worker>,
    pub links: Vec<WorkerLink>,
    pub placement: Arc<Placement>,
    // Last: the queues go first.
    ports: Vec<NodePort>,
}

impl Crew {
    /// Opens the configuration's ports for two workers, which have begun.
    pub fn new(eal: &Eal, config: &Config, adaptive: bool) -> Self {
        let ports: Vec<NodePort> = (0..)
            .map(PortId)
            .zip(&config.ports)
            .map(|(id, port)| NodePort::new(id, port.clone(), config.node.packet_buffers, adaptive))
            .collect();
        let rss = ports::prepare(&ports, eal, WORKERS).unwrap();
        let sides = ports.iter().map(|port| ports::side(&ports, port).unwrap());
        let capacity = config.node.handover_queue;
        let places = places(eal, &rss, sides.collect(), &[None; WORKERS as usize], capacity).unwrap();
        let queues: Vec<_> = ports
            .iter()
            .map(|port| (port.id(), port.open(eal, WORKERS).unwrap()))
            .collect();
        let pool = Mempool::create(eal, "answers", 2048, 1500).unwrap();
        let policy = policy(config, 1);
        let placement = Arc::clone(&places[0].placement);
        let (mut workers, mut links) = (vec![], vec![]);
        for (id, place) in (0..).map(WorkerId).zip(places) {
            let memory = HugePages { hugepages: false };
            let sessions = config.conntrack.max_sessions;
            let mut engine = Engine::new(sessions, Arc::clone(&policy), &memory, HashSeed::random()).unwrap();
            engine.join(id, place.placement);
            let (mailbox, stats) = (Arc::default(), Arc::new(WorkerStats::new(ports.len())));
            let setup = WorkerSetup {
                pair: None,
                way: None,
                id,
                engine,
                clock: TscClock::new(eal),
                ports: ports.iter().map(|port| Arc::clone(port.flags())).collect(),
                burst: usize::from(config.node.burst),
                adaptive,
                pool: pool.clone(),
                mesh: Some(place.mesh),
                mailbox: Arc::<Mailbox>::clone(&mailbox),
                stats: Arc::clone(&stats),
                records: None,
            };
            let (worker, bell) = Worker::new(setup).unwrap();
            workers.push(worker);
            links.push(WorkerLink::new(id, id.index(), mailbox, stats, bell));
        }
        let mut crew = Self {
            eal: eal.clone(),
            workers,
            links,
            placement,
            ports,
        };
        for (port, queues) in queues {
            for (worker, queues) in queues.into_iter().enumerate() {
                let given = crew.ask(worker, Command::GivePort(port, Box::new(queues)));
                assert!(matches!(given, Reply::GivePort(None)));
            }
        }
        for worker in 0..crew.workers.len() {
            assert!(matches!(crew.ask(worker, Command::Begin), Reply::Begin));
        }
        crew
    }

    /// One command to one worker, with as many turns of that one as it takes.
    pub fn ask(&mut self, worker: usize, command: Command) -> Reply {
        let (link, worker) = (&self.links[worker], &mut self.workers[worker]);
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| link.ask(command, PATIENCE));
            while !asker.is_finished() {
                worker.turn();
            }
            asker.join().unwrap().unwrap()
        })
    }

    /// What one worker counts now; even.
    pub fn counts(&mut self, worker: usize) -> Counts {
        assert!(matches!(self.ask(worker, Command::Publish), Reply::Publish));
        let counts = self.links[worker].stats().read().0;
        assert!(counts.is_even(), "{counts:?}");
        counts
    }

    /// Both turn until nothing comes any more and nothing is on its way.
    pub fn settle(&mut self) -> [Counts; 2] {
        let mut before = None;
        loop {
            for _ in 0..100 {
                self.workers.iter_mut().for_each(Worker::turn);
            }
            let counts = [self.counts(0), self.counts(1)];
            let came = counts.each_ref().map(|c| (c.rx_packets, c.taken_over));
            if before == Some(came) && on_their_way(&counts) == 0 {
                assert_eq!(counts.each_ref().map(|c| c.held), [0, 0]);
                return counts;
            }
            before = Some(came);
        }
    }

    /// Lets both turn on threads of their own while `work` runs; it has to end with their stop.
    pub fn on_threads(&mut self, work: impl FnOnce(&[WorkerLink])) {
        let threads: Vec<_> = std::mem::take(&mut self.workers)
            .into_iter()
            .map(|worker| {
                let eal = self.eal.clone();
                std::thread::spawn(move || {
                    let _registered = Registered::new(&eal).unwrap();
                    worker.run()
                })
            })
            .collect();
        work(&self.links);
        for thread in threads {
            self.workers.push(thread.join().unwrap());
        }
    }

    /// Closes the ports; every buffer must be back in its pool.
    pub fn close(mut self) {
        self.workers.clear();
        for port in &self.ports {
            port.close().unwrap();
        }
        assert_eq!(self.eal.buffers_of_closed_ports(), 0);
    }
}

/// Packets that one has handed over and the other has not taken.
pub fn on_their_way(counts: &[Counts; 2]) -> u64 {
    let sum = |count: fn(&Counts) -> u64| counts.iter().map(count).sum::<u64>();
    sum(|c| c.handed_over + c.relayed) - sum(|c| c.taken_over)
}

/// Drops of a worker by reason.
pub fn dropped(counts: &Counts) -> Vec<(&'static str, u64)> {
    let all = DropReason::ALL
        .iter()
        .map(|reason| (reason.name(), counts.drops[reason.index()]));
    all.filter(|(_, n)| *n > 0).collect()
}
