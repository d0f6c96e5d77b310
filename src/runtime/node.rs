//! The running node as the control API sees it.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::command::{
    Command, Kill, Lookup, NoAnswer, Reply, RuleScan, SessionCopy, SessionScan, WorkerLink,
};
use super::lock::ControlLock;
use super::pair::PairLink;
use super::policy;
use super::ports::NodePort;
use super::rebalance::{Balancer, MoveError};
use super::stats::{Counts, PortCounts};
use crate::base::{Generation, Nanos, WorkerId};
use crate::config::{Config, Rebalance, RuleIds};
use crate::control::SessionFilter;
use crate::control::apply;
use crate::control::eventlog::Reports;
use crate::control::explain::live::{Live, explain};
use crate::control::node::{
    ApplyReport, ApplyRequest, Counters, Cursor, ErrorKind, ExplainReport, ExplainRequest, HaStatus,
    KillReport, Node, NodeError, NodeState, NotifyReport, NotifyRequest, Owner, PortStatus, RebalanceReport,
    RuleStatus, SessionPage, SessionQuery, Status, SwitchoverReport, WorkerStatus, no_pair,
};
use crate::control::rules;
use crate::control::view::{LiveSession, Names};
use crate::dpdk::tsc::TscClock;
use crate::dpdk::{Eal, Mempool};
use crate::engine::{DropReason, IMPLICIT_DROP, Leasing, Placement, RuleCounters};
use crate::flow::FlowKey;
use crate::flow::SessionState;
use crate::flow::owner::balance::WorkerLoad;
use crate::flow::table::SessionId;
use crate::ha::Role;
use crate::packet::Malformed;
use crate::policy::{Policy, Scale};

/// A worker that takes longer than this over a command is reported, not waited for.
const ASK: Duration = Duration::from_secs(1);
/// Slots of a session table that one command walks over.
const SCAN_SLOTS: u32 = 8192;
/// Sessions that one command brings back.
const SCAN_FOUND: usize = 1024;
/// Slots that one page of a listing looks at at most.
const PAGE_SLOTS: u64 = 1 << 20;
/// What a dry run takes to count the sessions that it would end: well within the time of a request.
const COUNT: Duration = Duration::from_secs(20);
/// How long what concerns all sessions waits for a move of buckets to be over.
const SETTLE: Duration = Duration::from_secs(2);
/// Keys that one command looks up.
const LOOKUP_KEYS: usize = 4096;

/// What a node is made of.
pub struct NodeParts {
    /// The configuration's file.
    pub file: PathBuf,
    /// What it says.
    pub config: Config,
    /// The policy that the workers began with.
    pub policy: Arc<Policy>,
    /// The rules' ids.
    pub ids: RuleIds,
    /// The ports.
    pub ports: Arc<[NodePort]>,
    /// The workers.
    pub workers: Arc<[WorkerLink]>,
    /// The workers' clock.
    pub clock: TscClock,
    /// Packets that workers make come from here.
    pub pool: Mempool,
    /// In its memory policies are compiled.
    pub eal: Eal,
    /// Where flows belong at the start; `None`: there is one worker.
    pub placement: Option<Arc<Placement>>,
    /// The names of `config`.
    pub names: Arc<Names>,
    /// The logs of sessions and alerts, if there are any.
    pub log: Option<Reports>,
    /// The other node, if this one is of a pair.
    pub pair: Option<Arc<PairLink>>,
}

/// What an apply replaces.
struct InForce {
    file: PathBuf,
    config: Config,
    policy: Arc<Policy>,
    ids: RuleIds,
    names: Arc<Names>,
}

/// A running node.
pub struct RunningNode {
    in_force: ControlLock<InForce>,
    /// Held over a whole apply, so that they run one after the other while others read on.
    applying: ControlLock<()>,
    /// Held over a whole move of buckets, and by what no move is to begin under.
    balancer: ControlLock<Balancer>,
    ports: Arc<[NodePort]>,
    workers: Arc<[WorkerLink]>,
    clock: TscClock,
    /// Unix time at the clock's zero.
    epoch: Duration,
    pool: Mempool,
    eal: Eal,
    log: Option<Reports>,
    pair: Option<Arc<PairLink>>,
    state: AtomicU8,
    /// It drains: whoever waits for a move gives up.
    stopping: Arc<AtomicBool>,
    /// The clock's time at which the node came into service, in ns.
    ready_at: std::sync::atomic::AtomicU64,
}

impl RunningNode {
    /// A node that is not in service yet.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
    pub fn new(parts: NodeParts) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = unix.saturating_sub(parts.clock.now().to_duration());
        let stopping = Arc::new(AtomicBool::new(false));
        Self {
            in_force: ControlLock::new(InForce {
                names: parts.names,
                file: parts.file,
                config: parts.config,
                policy: parts.policy,
                ids: parts.ids,
            }),
            applying: ControlLock::new(()),
            balancer: ControlLock::new(Balancer::new(parts.placement, Arc::clone(&stopping))),
            ports: parts.ports,
            workers: parts.workers,
            clock: parts.clock,
            epoch,
            pool: parts.pool,
            eal: parts.eal,
            log: parts.log,
            pair: parts.pair,
            state: AtomicU8::new(NodeState::Starting as u8),
            stopping,
            ready_at: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// The ports.
    #[must_use]
    pub fn ports(&self) -> &[NodePort] {
        &self.ports
    }

    /// The workers.
    #[must_use]
    pub fn workers(&self) -> &[WorkerLink] {
        &self.workers
    }

    /// The pool of packets that workers make themselves.
    #[must_use]
    pub fn pool(&self) -> &Mempool {
        &self.pool
    }

    /// Says where the node is in its life.
    pub fn set_state(&self, state: NodeState) {
        if state == NodeState::Ready {
            self.ready_at.store(self.clock.now().0, Ordering::Relaxed);
        }
        self.state.store(state as u8, Ordering::Release);
        self.stopping
            .store(state == NodeState::Draining, Ordering::Release);
    }

    fn life(&self) -> NodeState {
        let state = self.state.load(Ordering::Acquire);
        [NodeState::Starting, NodeState::Ready]
            .into_iter()
            .find(|s| *s as u8 == state)
            .unwrap_or(NodeState::Draining)
    }

    fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock()
    }

    fn names_and_policy(&self) -> (Arc<Names>, Arc<Policy>) {
        let in_force = self.in_force();
        (Arc::clone(&in_force.names), Arc::clone(&in_force.policy))
    }

    /// A worker's counts of this moment.
    fn counts_now(worker: &WorkerLink) -> Result<(Counts, Vec<PortCounts>), NodeError> {
        worker.ask(Command::Publish, ASK)?;
        Ok(worker.stats().read())
    }

    /// A worker's counts of this moment or, when it does not answer, its last ones.
    fn counts_at_hand(worker: &WorkerLink) -> (Counts, Vec<PortCounts>) {
        Self::counts_now(worker).unwrap_or_else(|_| worker.stats().read())
    }

    /// The sums over all workers. A packet that went from one worker to another between their answers would be in both or in none:
    /// so they are asked until two rounds say the same, or packets are coming so fast that nobody can tell.
    fn total_now(&self) -> Result<Counts, NodeError> {
        const ROUNDS: usize = 4;
        let round = || -> Result<Counts, NodeError> {
            let mut total = Counts::default();
            for worker in self.workers.iter() {
                total.add(&Self::counts_now(worker)?.0);
            }
            Ok(total)
        };
        let mut total = round()?;
        for _ in 1..ROUNDS {
            if self.workers.len() == 1 {
                break;
            }
            let before = std::mem::replace(&mut total, round()?);
            if before == total {
                break;
            }
        }
        Ok(total)
    }

    /// All workers' counters of `rules` rule ids from `from` on.
    fn rule_counters(&self, from: usize, rules: usize) -> Result<Vec<RuleCounters>, NodeError> {
        let mut total = vec![RuleCounters::default(); rules];
        for worker in self.workers.iter() {
            let scan = RuleScan {
                from,
                counters: Vec::with_capacity(rules),
            };
            let Reply::Rules(scan) = worker.ask(Command::Rules(Box::new(scan)), ASK)? else {
                return Err(defect());
            };
            for (total, one) in total.iter_mut().zip(&scan.counters) {
                total.sessions += one.sessions;
                total.limited += one.limited;
                total.unused_leases += one.unused_leases;
                total.packets += one.packets;
                total.bytes += one.bytes;
                total.last_hit = total.last_hit.max(one.last_hit);
            }
        }
        Ok(total)
    }

    /// One step of a walk over a worker's sessions.
    fn scan(worker: &WorkerLink, from: u32, found: usize) -> Result<Box<SessionScan>, NodeError> {
        let scan = SessionScan {
            from,
            slots: SCAN_SLOTS,
            found: Vec::with_capacity(found),
            next: None,
            now: Nanos(0),
            scale: Scale::FULL,
        };
        match worker.ask(Command::Sessions(Box::new(scan)), ASK)? {
            Reply::Sessions(scan) => Ok(scan),
            _ => Err(defect()),
        }
    }

    /// Waits until no move of buckets is under way, [`SETTLE`] at most; while what comes back is held none begins. `None`: it takes
    /// longer, and what is asked of all sessions may miss some that are on their way.
    #[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
    pub(super) fn settled(&self) -> Option<MutexGuard<'_, Balancer>> {
        let deadline = Instant::now() + SETTLE;
        loop {
            if let Some(mut balancer) = self.balancer.try_lock() {
                if matches!(balancer.go_on(&self.workers), Ok(true)) {
                    return Some(balancer);
                }
            }
            if Instant::now() >= deadline {
                tracing::warn!(
                    "a move of buckets is under way: sessions that are on their way may be left out"
                );
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Shows all sessions, a step of a worker's table after the other, until `show` says that it has seen enough. A
    /// session that lives all the while is shown exactly once, unless it moves to another worker ([`Self::settled`]).
    fn walk(
        &self,
        mut show: impl FnMut(&WorkerLink, &SessionScan) -> Result<ControlFlow<()>, NodeError>,
    ) -> Result<ControlFlow<()>, NodeError> {
        for worker in self.workers.iter() {
            let mut from = Some(0);
            while let Some(slot) = from {
                let scan = Self::scan(worker, slot, SCAN_FOUND)?;
                from = scan.next;
                if show(worker, &scan)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// How many live sessions `policy` would end; `None`: there are too many to find out in [`COUNT`].
    #[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
    fn refused_by(&self, policy: &Policy) -> Result<Option<u64>, NodeError> {
        let deadline = Instant::now() + COUNT;
        let mut refused = 0;
        let whole = self.walk(|_, scan| {
            if Instant::now() >= deadline {
                return Ok(ControlFlow::Break(()));
            }
            refused += apply::refused(policy, scan.found.iter().map(|copy| &copy.session));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(whole.is_continue().then_some(refused))
    }

    /// How loaded the workers are now.
    fn loads(&self) -> Result<Vec<WorkerLoad>, NodeError> {
        let sessions = self.in_force().config.conntrack.max_sessions;
        let capacity = u64::from(Leasing::capacity(sessions, self.workers.len() as u16));
        let load = |worker: &WorkerLink| {
            let (counts, _) = Self::counts_now(worker)?;
            Ok(WorkerLoad {
                busy_ppm: counts.busy_ppm,
                room: capacity.saturating_sub(counts.sessions),
            })
        };
        self.workers.iter().map(load).collect()
    }

    /// Once a second, on a control thread: a move that a stalled worker kept from ending goes on, and with `rebalance = "auto"` a new one
    /// begins where it pays.
    pub fn balance(&self) {
        // Whoever has it may take long, and a stop waits for this thread.
        let Some(mut balancer) = self.balancer.try_lock() else {
            return;
        };
        if !matches!(balancer.go_on(&self.workers), Ok(true)) {
            return;
        }
        if self.in_force().config.node.rebalance != Rebalance::Auto {
            return;
        }
        let Ok(loads) = self.loads() else { return };
        if !balancer.is_time(&loads) {
            return;
        }
        let moved = balancer.proposal(&self.workers, &loads).and_then(|proposal| {
            let moved = balancer.carry_out(&self.workers, &proposal);
            self.tell_pair(&balancer);
            moved?;
            Ok(proposal)
        });
        match moved {
            Ok(proposal) => tracing::info!(
                from = proposal.from.0,
                to = proposal.to.0,
                buckets = proposal.buckets.iter().count(),
                sessions = proposal.sessions,
                "buckets moved"
            ),
            Err(MoveError::Balanced(_) | MoveError::Stopping) => {}
            Err(e) => tracing::warn!("rebalance: {e}"),
        }
    }

    /// The other node, if this one is of a pair.
    #[must_use]
    pub fn pair(&self) -> Option<&PairLink> {
        self.pair.as_deref()
    }

    /// Are its sessions the other node's?
    fn follows(&self) -> bool {
        self.pair
            .as_ref()
            .is_some_and(|pair| matches!(pair.role(), Role::Waiting | Role::Standby))
    }

    /// The HA thread is to give sessions to the workers that have their flows.
    fn tell_pair(&self, balancer: &Balancer) {
        if let (Some(pair), Some(placement)) = (&self.pair, balancer.placement()) {
            pair.set_placement(Arc::clone(placement));
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for port in self.ports.iter() {
            let link = port.link();
            if !link.up {
                let note = link.note.unwrap_or_else(|| "no link".to_owned());
                warnings.push(format!("port {}: {note}", port.name()));
            }
        }
        warnings.extend(self.log.iter().flat_map(Reports::warnings));
        warnings
    }

    /// Unix time in seconds of a moment of the workers' clock.
    fn unix(&self, at: Nanos) -> f64 {
        (self.epoch + at.to_duration()).as_secs_f64()
    }
}

impl Live for RunningNode {
    fn lookup(&self, keys: &[FlowKey]) -> Result<Vec<LiveSession>, NodeError> {
        let mut sessions = Vec::new();
        for worker in self.workers.iter() {
            for keys in keys.chunks(LOOKUP_KEYS) {
                let lookup = Lookup {
                    keys: keys.to_vec(),
                    found: Vec::with_capacity(keys.len()),
                    ..Lookup::default()
                };
                let Reply::Lookup(lookup) = worker.ask(Command::Lookup(Box::new(lookup)), ASK)? else {
                    return Err(defect());
                };
                sessions.extend(
                    lookup
                        .found
                        .iter()
                        .map(|copy| live(copy, worker.id(), lookup.scale)),
                );
            }
        }
        Ok(sessions)
    }

    fn now(&self) -> Nanos {
        self.clock.now()
    }
}

impl From<NoAnswer> for NodeError {
    fn from(error: NoAnswer) -> Self {
        Self::new(ErrorKind::Unavailable, error.to_string())
            .fix("look at `haechi show workers`, and try again")
    }
}

fn not_moved(why: &MoveError) -> NodeError {
    NodeError::new(ErrorKind::Unavailable, why.to_string())
        .fix("look at `haechi show workers`, and try again")
}

fn defect() -> NodeError {
    NodeError::new(ErrorKind::Internal, "a worker answered another question").fix("please report it")
}

fn live(copy: &SessionCopy, worker: WorkerId, scale: Scale) -> LiveSession {
    LiveSession {
        session: copy.session,
        translation: copy.translation,
        created: copy.created,
        packets: copy.packets,
        worker,
        scale,
    }
}

impl Node for RunningNode {
    fn status(&self) -> Result<Status, NodeError> {
        let mut total = Counts::default();
        let mut scale_ppm = 1_000_000;
        let mut warnings = self.warnings();
        for worker in self.workers.iter() {
            let counts = Self::counts_now(worker).unwrap_or_else(|e| {
                warnings.push(e.error);
                worker.stats().read()
            });
            total.add(&counts.0);
            scale_ppm = scale_ppm.min(counts.0.timeout_scale_ppm);
        }
        let mut buffers = [u64::from(self.pool.size()), u64::from(self.pool.in_use())];
        for port in self.ports.iter() {
            let usage = port.buffers();
            buffers[0] += u64::from(usage.size);
            buffers[1] += u64::from(usage.in_use);
        }
        let state = self.life();
        let ready_at = Nanos(self.ready_at.load(Ordering::Relaxed));
        let uptime = match state {
            NodeState::Starting => Duration::ZERO,
            NodeState::Ready | NodeState::Draining => self.clock.now().since(ready_at).to_duration(),
        };
        let in_force = self.in_force();
        warnings.extend_from_slice(in_force.policy.classifier.warnings());
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: in_force.config.node.name.clone(),
            mode: "transparent".to_owned(),
            state,
            pid: std::process::id(),
            uptime_s: uptime.as_secs_f64(),
            config: in_force.file.display().to_string(),
            generation: in_force.policy.generation.0,
            sessions: total.sessions,
            max_sessions: u64::from(in_force.config.conntrack.max_sessions),
            unused_leases: if self.workers.len() > 1 {
                total.max_sessions.saturating_sub(total.sessions)
            } else {
                0
            },
            timeout_scale: ratio(scale_ppm, 1_000_000),
            sessions_evicted: total.sessions_evicted,
            half_open: total.half_open,
            sessions_by_state: SessionState::ALL
                .iter()
                .map(|state| (state.name().to_owned(), total.states[state.index()]))
                .collect(),
            syn_cookies_engaged: total.syn_cookies_engaged > 0,
            rules: in_force.policy.rules.len(),
            classifier: in_force.policy.classifier.methods(),
            workers: self.workers.len(),
            ports: self.ports.len(),
            ports_up: self.ports.iter().filter(|port| port.link().up).count(),
            packet_buffers: buffers[0],
            packet_buffers_in_use: buffers[1],
            warnings,
        })
    }

    fn ports(&self) -> Result<Vec<PortStatus>, NodeError> {
        let mut tx_dropped = vec![0; self.ports.len()];
        for worker in self.workers.iter() {
            for (total, port) in tx_dropped.iter_mut().zip(Self::counts_at_hand(worker).1) {
                *total += port.tx_dropped;
            }
        }
        let in_force = self.in_force();
        let status =
            |(port, tx_dropped): (&NodePort, u64)| port.status(in_force.names.zone_of(port.id()), tx_dropped);
        Ok(self.ports.iter().zip(tx_dropped).map(status).collect())
    }

    fn workers(&self) -> Result<Vec<WorkerStatus>, NodeError> {
        let status = |worker: &WorkerLink| {
            let now = Self::counts_now(worker);
            let stalled = now.is_err();
            let (counts, _) = now.unwrap_or_else(|_| worker.stats().read());
            WorkerStatus {
                worker: worker.id().0,
                cpu: u32::try_from(worker.cpu()).unwrap_or(u32::MAX),
                packets: counts.rx_packets,
                forwarded: counts.forwarded,
                dropped: counts.dropped(),
                originated: counts.originated,
                sessions: counts.sessions,
                max_sessions: counts.max_sessions,
                busy: ratio(counts.busy_ppm, 1_000_000),
                cycles_per_packet: ratio(counts.millicycles_per_packet, 1000),
                handed_over: counts.handed_over,
                taken_over: counts.taken_over,
                relayed: counts.relayed,
                stalled,
                max_loop_gap_us: ratio(counts.max_loop_gap_ns, 1000),
                expiry_lag_ms: ratio(counts.expiry_lag_ns, 1_000_000),
                generation: u32::try_from(counts.generation).unwrap_or(u32::MAX),
            }
        };
        Ok(self.workers.iter().map(status).collect())
    }

    fn rules(&self) -> Result<Vec<RuleStatus>, NodeError> {
        let (config, ids) = {
            let in_force = self.in_force();
            (in_force.config.clone(), in_force.ids.clone())
        };
        let counters = self.rule_counters(0, ids.len())?;
        let no_rule = self.rule_counters(IMPLICIT_DROP.index(), 1)?;
        let no_rule = no_rule.first().copied().unwrap_or_default();
        Ok(rules::rows(&config, &ids, &counters, no_rule, |at| self.unix(at)))
    }

    fn counters(&self) -> Result<Counters, NodeError> {
        let total = self.total_now()?;
        let drops = DropReason::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), total.drops[reason.index()]));
        let kinds = Malformed::ALL.iter().zip(total.malformed);
        Ok(Counters {
            rx_packets: total.rx_packets,
            tx_packets: total.tx_packets,
            originated: total.originated,
            rejects_suppressed: total.rejects_suppressed,
            timeout_resets: total.timeout_resets,
            timeout_resets_missed: total.timeout_resets_missed,
            log_records_written: self.log.as_ref().map_or(0, Reports::written),
            log_records_lost: total.log_records_lost + self.log.as_ref().map_or(0, Reports::lost),
            fragments: total.fragments,
            fragments_reassembled: total.fragments_reassembled,
            fragments_held: total.fragments_held,
            syn_cookies_sent: total.syn_cookies_sent,
            syn_cookies_accepted: total.syn_cookies_accepted,
            syn_retries_lost: total.syn_retries_lost,
            held: total.held,
            sessions_created: total.sessions_created,
            sessions_ended: total.sessions_ended,
            sessions_evicted: total.sessions_evicted,
            sources_full: total.sources_full,
            handed_over: total.handed_over,
            sessions_moved: total.sessions_moved_out,
            sessions_synced_in: total.sessions_synced_in,
            sessions_synced_out: total.sessions_synced_out,
            sync_refused: total.sync_refused,
            redirected_out: total.redirected_out,
            redirected_in: total.redirected_in,
            given_back: total.given_back,
            returned: total.returned,
            deferred: total.deferred,
            deferred_late: total.deferred_late,
            redirects: total.redirects,
            redirects_full: total.redirects_full,
            drops: drops.collect(),
            malformed: kinds.map(|(kind, n)| (kind.name().to_owned(), n)).collect(),
        })
    }

    fn sessions(&self, query: &SessionQuery) -> Result<SessionPage, NodeError> {
        let (names, policy) = self.names_and_policy();
        let follows = self.follows();
        let limit = query.limit.clamp(1, SessionQuery::MAX_LIMIT);
        let mut page = SessionPage::default();
        let mut cursor = query.cursor;
        let mut looked_at = 0;
        while let Some(worker) = self.workers.get(usize::from(cursor.worker)) {
            let scan = Self::scan(worker, cursor.slot, SCAN_FOUND)?;
            for copy in &scan.found {
                let mut session = names.session(&policy, &live(copy, worker.id(), scan.scale), scan.now);
                if follows {
                    session.owner = Owner::Peer;
                }
                if !query.filter.matches(&session) {
                    continue;
                }
                page.sessions.push(session);
                if page.sessions.len() == limit {
                    page.cursor = Some(Cursor {
                        worker: cursor.worker,
                        slot: copy.id.ix.0.saturating_add(1),
                    });
                    return Ok(page);
                }
            }
            cursor = match scan.next {
                Some(slot) => Cursor { slot, ..cursor },
                None => Cursor {
                    worker: cursor.worker.saturating_add(1),
                    slot: 0,
                },
            };
            looked_at += u64::from(SCAN_SLOTS);
            if looked_at >= PAGE_SLOTS {
                let more = usize::from(cursor.worker) < self.workers.len();
                page.cursor = more.then_some(cursor);
                return Ok(page);
            }
        }
        Ok(page)
    }

    fn kill(&self, filter: &SessionFilter) -> Result<KillReport, NodeError> {
        if self.follows() {
            let error = "this node follows in its pair: its sessions are the other node's";
            return Err(NodeError::new(ErrorKind::Refused, error).fix("end them on the node that leads"));
        }
        let (names, policy) = self.names_and_policy();
        let mut report = KillReport::default();
        let _none_begins = self.settled();
        let _all = self.walk(|worker, scan| {
            let meant = scan.found.iter().filter(|copy| {
                filter.matches(&names.session(&policy, &live(copy, worker.id(), scan.scale), scan.now))
            });
            let sessions: Vec<SessionId> = meant.map(|copy| copy.id).collect();
            if !sessions.is_empty() {
                let kill = Kill {
                    sessions,
                    ..Kill::default()
                };
                match worker.ask(Command::Kill(Box::new(kill)), ASK)? {
                    Reply::Kill(kill) => report.killed += kill.killed,
                    _ => return Err(defect()),
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(report)
    }

    #[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
    fn apply(&self, request: &ApplyRequest) -> Result<ApplyReport, NodeError> {
        let one_at_a_time = self.applying.lock();
        if self.life() == NodeState::Draining {
            return Err(NodeError::new(ErrorKind::Unavailable, "the node is stopping"));
        }
        let (running, mut ids, generation) = {
            let in_force = self.in_force();
            (
                in_force.config.clone(),
                in_force.ids.clone(),
                in_force.policy.generation,
            )
        };
        let plan = apply::plan(&running, request)?;
        let mut report = plan.report;
        let next = Generation(generation.0.wrapping_add(1));
        let policy = policy::compile(&self.eal, &plan.config, next, &mut ids).map_err(|e| {
            NodeError::new(ErrorKind::Refused, e.to_string()).fix("restart the node with this file")
        })?;
        report.generation = generation.0;
        report.warn(&plan.file, policy.classifier.warnings());
        if request.dry_run {
            // It changes nothing: an apply need not wait until all sessions are counted.
            drop(one_at_a_time);
            report.sessions_refused = self.refused_by(&policy)?;
            return Ok(report);
        }
        let policy = Arc::new(policy);
        {
            let mut in_force = self.in_force();
            in_force.names = Arc::new(Names::new(&plan.config, &ids));
            if let Some(log) = &self.log {
                log.names(next, Arc::clone(&in_force.names));
            }
            in_force.file = plan.file;
            in_force.config = plan.config;
            in_force.policy = Arc::clone(&policy);
            in_force.ids = ids;
        }
        let begin = Instant::now();
        for worker in self.workers.iter() {
            // The answer brings the old policy back: it ends here.
            let answer = worker.ask(Command::Policy(Arc::clone(&policy)), ASK);
            if let Err(e) = answer {
                // The command is in the worker's queue, and cannot be taken back: it is carried out when the worker
                // gets to it, so this is the configuration in force.
                return Err(NodeError::new(
                    ErrorKind::Unavailable,
                    format!("{e}: it follows when it does"),
                ));
            }
        }
        if let Some(log) = &self.log {
            log.retire(next);
        }
        if let Some(pair) = &self.pair {
            pair.applied(&self.in_force().config);
        }
        tracing::info!(
            generation = next.0,
            took_us = begin.elapsed().as_micros(),
            "policy in force"
        );
        report.applied = true;
        report.generation = next.0;
        Ok(report)
    }

    fn rebalance(&self, dry_run: bool) -> Result<RebalanceReport, NodeError> {
        if self.life() == NodeState::Draining {
            return Err(NodeError::new(ErrorKind::Unavailable, "the node is stopping"));
        }
        let mut balancer = self.balancer.lock();
        let loads = self.loads()?;
        let busy = loads.iter().map(|load| load.busy_ppm / 10_000);
        let mut report = RebalanceReport {
            busy_percent: busy.collect(),
            version: balancer.version(),
            ..RebalanceReport::default()
        };
        let proposal = match balancer.proposal(&self.workers, &loads) {
            Ok(proposal) => proposal,
            Err(MoveError::Balanced(why)) => {
                report.reason = Some(why.to_string());
                return Ok(report);
            }
            Err(e) => return Err(not_moved(&e)),
        };
        report.from = Some(proposal.from.0);
        report.to = Some(proposal.to.0);
        report.buckets = proposal.buckets.iter().count() as u64;
        report.sessions = proposal.sessions;
        if !dry_run {
            let moved = balancer.carry_out(&self.workers, &proposal);
            self.tell_pair(&balancer);
            moved.map_err(|e| not_moved(&e))?;
            report.moved = true;
            report.version = balancer.version();
        }
        Ok(report)
    }

    fn explain(&self, request: &ExplainRequest) -> Result<ExplainReport, NodeError> {
        let (names, policy) = self.names_and_policy();
        explain(request, &policy, &names, self)
    }

    fn ha(&self) -> Result<HaStatus, NodeError> {
        self.pair.as_ref().map(|pair| pair.view()).ok_or_else(no_pair)
    }

    fn switchover(&self) -> Result<SwitchoverReport, NodeError> {
        self.pair.as_ref().ok_or_else(no_pair)?.switch_over()
    }

    fn notify(&self, request: &NotifyRequest) -> Result<NotifyReport, NodeError> {
        let pair = self.pair.as_ref().ok_or_else(no_pair)?;
        let wish = request.wish();
        pair.wish(wish.clone());
        let role = pair.role().into();
        Ok(NotifyReport { wish, role })
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people: 2^53 is enough")]
fn ratio(value: u64, unit: u64) -> f64 {
    value as f64 / unit as f64
}
