//! Worker threads: pinned, known to the EAL, with everything that they own made on their own CPU.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use core_affinity::CoreId;

use super::command::{Mailbox, WorkerLink};
use super::crossway::Way;
use super::mesh::{self, Mesh};
use super::rss::NodeRss;
use super::slots::PortFlags;
use super::stats::WorkerStats;
use super::worker::{Worker, WorkerSetup};
use crate::base::{Nanos, WorkerId};
use crate::control::eventlog::{self, RecordQueue};
use crate::dpdk::thread::Registered;
use crate::dpdk::tsc::TscClock;
use crate::dpdk::wake::Bell;
use crate::dpdk::{Eal, Error, HugePages, Mempool};
use crate::engine::{Engine, Leasing, PairSetup, Placement};
use crate::flow::{BucketTable, HashSeed, OwnerFunction, Side};
use crate::ha::member::Member;
use crate::policy::Policy;

/// What all workers of a node have in common.
#[derive(Clone)]
pub struct WorkerCommon {
    /// The running EAL.
    pub eal: Eal,
    /// The node's clock.
    pub clock: TscClock,
    /// All ports, by their ids.
    pub ports: Vec<Arc<PortFlags>>,
    /// The policy to begin with.
    pub policy: Arc<Policy>,
    /// `max_sessions` of the node.
    pub max_sessions: u32,
    /// Session tables in huge pages.
    pub hugepages: bool,
    /// Packets taken from a receive queue in one turn.
    pub burst: usize,
    /// `idle = "adaptive"`.
    pub adaptive: bool,
    /// Packets that workers make come from here.
    pub pool: Mempool,
    /// There is a log for alerts.
    pub alerts: bool,
    /// The node is one of a pair.
    pub pair: Option<PairCommon>,
}

/// What the workers of a node of a pair have in common.
#[derive(Clone)]
pub struct PairCommon {
    /// For the engines.
    pub setup: PairSetup,
    /// Packets a second that each worker offers to the other node at most; 0: none.
    pub redirect_rate: u32,
    /// `defer_timeout`, and whether packets pass then.
    pub defer: (Nanos, bool),
}

/// Where a worker stands among several.
pub struct Place {
    /// What belongs where.
    pub placement: Arc<Placement>,
    /// The way to the others.
    pub mesh: Mesh,
    /// The secret that they have in common.
    pub seed: HashSeed,
    /// The key of SYN cookies.
    pub cookies: HashSeed,
}

/// The places of all workers; none if there is but one. `rss`: the node's choice; `sides`: of all ports; `sockets`: the
/// workers' NUMA nodes, where queues to them lie; `queue`: room for so many packets from each worker to each other one.
///
/// # Errors
/// When there is no memory for the queues between them.
pub fn places(
    eal: &Eal,
    rss: &NodeRss,
    sides: Vec<Side>,
    sockets: &[Option<u32>],
    queue: u32,
) -> Result<Vec<Place>, Error> {
    if sockets.len() < 2 {
        return Ok(Vec::new());
    }
    let placement = Arc::new(Placement {
        function: OwnerFunction::clone(&rss.function),
        buckets: BucketTable::clone(&rss.table),
        sides: sides.into(),
    });
    let meshes = mesh::mesh(eal, sockets, queue)?;
    let (seed, cookies) = (HashSeed::random(), HashSeed::random());
    let place = |mesh| Place {
        seed,
        cookies,
        placement: Arc::clone(&placement),
        mesh,
    };
    Ok(meshes.into_iter().map(place).collect())
}

/// A worker's thread. The worker comes back when it ends, to be freed by whoever joins it (`None`: it never began).
pub type WorkerThread = JoinHandle<Option<Worker>>;

/// Starts a worker on `cpu` and waits until it polls.
///
/// # Errors
/// One line with the fix: the CPU cannot be had, or the memory of the session table.
pub fn spawn(
    id: WorkerId,
    cpu: usize,
    common: WorkerCommon,
    records: Option<Arc<RecordQueue>>,
    place: Option<Place>,
    way: Option<Way>,
) -> Result<(WorkerLink, WorkerThread), String> {
    let mailbox = Arc::new(Mailbox::default());
    let stats = Arc::new(WorkerStats::new(common.ports.len()));
    let (ready, started) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(format!("worker-{}", id.0))
        .spawn({
            let (mailbox, stats) = (Arc::clone(&mailbox), Arc::clone(&stats));
            move || {
                let made = prepare((id, cpu), common, mailbox, stats, records, place, way);
                let (worker, _registered) = match made {
                    Ok((worker, bell, registered)) => {
                        // Whoever started this thread waits for it.
                        let _ = ready.send(Ok(bell));
                        (worker, registered)
                    }
                    Err(e) => {
                        let _ = ready.send(Err(e));
                        return None;
                    }
                };
                Some(worker.run())
            }
        })
        .map_err(|e| format!("cannot start a thread for worker {}: {e}", id.0))?;
    let bell = match started.recv() {
        Ok(Ok(bell)) => bell,
        Ok(Err(e)) => return Err(e),
        Err(_) => return Err(format!("worker {} did not start", id.0)),
    };
    Ok((WorkerLink::new(id, cpu, mailbox, stats, bell), thread))
}

/// On the worker's thread: pins it, makes it known to the EAL, makes the engine.
fn prepare(
    (id, cpu): (WorkerId, usize),
    common: WorkerCommon,
    mailbox: Arc<Mailbox>,
    stats: Arc<WorkerStats>,
    records: Option<Arc<RecordQueue>>,
    place: Option<Place>,
    way: Option<Way>,
) -> Result<(Worker, Bell, Registered), String> {
    // Pinned before it is registered: the EAL notes the CPU, and the engine's memory is touched from here.
    if !core_affinity::set_for_current(CoreId { id: cpu }) {
        return Err(format!(
            "cannot run a worker on CPU {cpu}: choose another in `[node] workers`"
        ));
    }
    let registered = Registered::new(&common.eal).map_err(|e| e.to_string())?;
    let memory = HugePages {
        hugepages: common.hugepages,
    };
    let workers = place.as_ref().map_or(1, |place| place.mesh.workers());
    let capacity = Leasing::capacity(common.max_sessions, workers);
    let mut engine =
        Engine::new(capacity, common.policy, &memory, HashSeed::random()).map_err(|e| e.to_string())?;
    if records.is_some() {
        engine = engine.with_records(eventlog::WAITING, common.alerts);
    }
    if let Some(pair) = &common.pair {
        engine = engine
            .with_pair(&pair.setup, &memory)
            .map_err(|e| e.to_string())?;
        engine.set_redirect(pair.redirect_rate);
        engine.set_defer(pair.defer.0, pair.defer.1);
    }
    if let Some(place) = &place {
        let leasing = Leasing {
            me: id,
            workers,
            max_sessions: common.max_sessions,
            seed: place.seed,
        };
        engine.lease(leasing, &memory).map_err(|e| e.to_string())?;
    }
    let mesh = place.map(|place| {
        engine.join(id, place.placement);
        engine.share_cookies(place.cookies);
        place.mesh
    });
    let setup = WorkerSetup {
        id,
        engine,
        clock: common.clock,
        ports: common.ports,
        burst: common.burst,
        adaptive: common.adaptive,
        pool: common.pool,
        mesh,
        mailbox,
        stats,
        records,
        pair: way.as_ref().map(|way| Member::new(Arc::clone(&way.queues))),
        way,
    };
    let (worker, bell) = Worker::new(setup).map_err(|e| format!("cannot make what wakes a worker: {e}"))?;
    Ok((worker, bell, registered))
}
