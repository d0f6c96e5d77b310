//! `haechi run`: from a configuration file to a node in service, and down again with everything accounted for.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::command::{Command, Farewell, Reply, WorkerLink};
use super::keeper::Keeper;
use super::links::KernelLinks;
use super::node::{NodeParts, RunningNode};
use super::notify::notify;
use super::pair::{self, PairLink, PairParts, PairPlan, PairThread};
use super::policy;
use super::ports::{self, NodePort};
use super::stats::Counts;
use super::threads::{self, WorkerCommon, WorkerThread};
use super::totals::Totals;
use super::watchdog::Watchdog;
use crate::base::numa::{self, Topology};
use crate::base::{Generation, PortId, WorkerId};
use crate::config::{self, Config, Diagnostics, Idle, RuleIds};
use crate::control::api::{self, ControlSocket};
use crate::control::eventlog::{self, EventLog, LogFiles, RecordQueue, Source};
use crate::control::explain::live::Live as _;
use crate::control::logging;
use crate::control::metrics::{self, MetricsListener};
use crate::control::node::{Node, NodeState};
use crate::control::view::Names;
use crate::dpdk::tsc::TscClock;
use crate::dpdk::{Eal, EalConfig, Mempool};

/// mbufs for packets that each worker makes itself: they live for one turn, and for another worker's where that sends them.
const ANSWER_BUFFERS: u32 = 2048;
/// The largest answer is an ICMPv6 unreachable within the minimum MTU (RFC 4443, section 2.4 (c)).
const ANSWER_MTU: u16 = 1500;
/// Buffers a worker for packets of the other node of an active-active pair: they may fill transmit queues.
const REDIRECT_BUFFERS: u32 = 4096;
/// How long a worker may take over a command at the start and the stop.
const WORKER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the stop of a node may wait for the logs: some million records.
const LOG_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a node does not start, or ends other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration has errors.
    #[error("{0}")]
    Config(Diagnostics),
    /// Everything else; one line with the fix.
    #[error("{0}")]
    Failed(String),
}

impl From<crate::dpdk::Error> for RunError {
    fn from(error: crate::dpdk::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

fn failed(error: impl std::fmt::Display) -> RunError {
    RunError::Failed(error.to_string())
}

/// Runs a node until SIGTERM or SIGINT. Prints `ready` when it is in service, its totals when it has stopped, and what
/// keeps it from either on standard error.
#[must_use]
pub fn run(config: &Path) -> ExitCode {
    logging::init();
    match run_node(config) {
        Ok(totals) => {
            say(&totals);
            ExitCode::SUCCESS
        }
        Err(RunError::Config(diagnostics)) => {
            // A line each, which a service's log keeps together; `haechi check` shows them in their places.
            for diagnostic in diagnostics.iter() {
                eprintln!("{}", diagnostic.one_line());
            }
            ExitCode::FAILURE
        }
        Err(RunError::Failed(error)) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A line on standard output. Whoever started the node may have stopped reading: that is no reason to fail.
fn say(line: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// As [`run`], without the last words.
///
/// # Errors
/// When the node cannot start, or a worker ended by itself.
pub fn run_node(path: &Path) -> Result<Totals, RunError> {
    let checked = config::check(path);
    let Some(config) = checked.config else {
        return Err(RunError::Config(checked.diagnostics));
    };
    for warning in checked.diagnostics.warnings() {
        warn!("{}", warning.one_line());
    }
    let plan = PairPlan::of(&config).map_err(RunError::Failed)?;
    // Threads inherit the CPUs of the one that starts them: this one keeps off the workers' first of all.
    keep_off(&worker_cpus(&config))?;
    let logs = LogFiles::open(&config.log).map_err(failed)?;
    let signals = signals()?;
    let socket = ControlSocket::bind(&config.node.control_socket).map_err(failed)?;
    let metrics = config.metrics.listen.map(|at| MetricsListener::bind(at.0));
    let metrics = metrics.transpose().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|e| failed(format!("cannot start the control threads: {e}")))?;
    let (changed, events) = mpsc::sync_channel(1);
    let links = KernelLinks::start(runtime.handle(), changed)
        .map_err(|e| failed(format!("cannot watch the links of kernel interfaces: {e}")))?;
    let mut service = Service::start(path, config, links, logs, plan)?;
    let node: Arc<dyn Node> = Arc::clone(&service.node) as Arc<dyn Node>;
    let (stop_api, stopped) = oneshot::channel::<()>();
    let server = runtime.spawn(api::serve(socket, Arc::clone(&node), async {
        // An error says that the sender is gone, which means the same.
        let _ = stopped.await;
    }));
    let (stop_metrics, stopped) = oneshot::channel::<()>();
    let metrics = metrics.map(|listener| {
        let stopped = async {
            let _ = stopped.await;
        };
        runtime.spawn(metrics::serve(listener, node, stopped, metrics::limits()))
    });
    let waited = service.serve(events, &signals);
    notify("STOPPING=1").unwrap_or_else(|e| warn!("cannot tell systemd: {e}"));
    drop((stop_api, stop_metrics));
    for (what, server) in [("control socket", Some(server)), ("metrics", metrics)] {
        match server.map(|server| runtime.block_on(server)) {
            None | Some(Ok(Ok(()))) => {}
            Some(Ok(Err(e))) => warn!("{what}: {e}"),
            Some(Err(e)) => warn!("{what}: {e}"),
        }
    }
    let stopped = service.stop();
    runtime.shutdown_timeout(Duration::from_secs(1));
    waited.and(stopped)
}

/// A node in service.
struct Service {
    node: Arc<RunningNode>,
    keeper: Option<Keeper>,
    pair: Option<PairThread>,
    threads: Vec<WorkerThread>,
    log: Option<EventLog>,
    // Last: everything above is made of it.
    eal: Eal,
}

impl Service {
    fn start(
        path: &Path,
        config: Config,
        links: KernelLinks,
        logs: Option<LogFiles>,
        plan: Option<PairPlan>,
    ) -> Result<Self, RunError> {
        let eal = start_eal(&config)?;
        let ports = node_ports(&config);
        let workers = worker_cpus(&config);
        let worker_count = u16::try_from(workers.len()).map_err(failed)?;
        let pool = Mempool::create(
            &eal,
            "answers",
            ANSWER_BUFFERS * u32::from(worker_count),
            ANSWER_MTU,
        )?;
        let rss = ports::prepare(&ports, &eal, worker_count)?;
        let mut queues = Vec::new();
        for port in ports.iter() {
            queues.push(port.open(&eal, worker_count)?);
        }
        // Now that the ports have their memory: the rules can do with less.
        let mut ids = RuleIds::new();
        let policy = Arc::new(policy::compile(&eal, &config, Generation(1), &mut ids).map_err(failed)?);
        let common = WorkerCommon {
            eal: eal.clone(),
            clock: TscClock::new(&eal),
            ports: ports.iter().map(|port| Arc::clone(port.flags())).collect(),
            policy: Arc::clone(&policy),
            max_sessions: config.conntrack.max_sessions,
            hugepages: config.node.hugepages,
            burst: usize::from(config.node.burst),
            adaptive: config.node.idle == Idle::Adaptive,
            pool: pool.clone(),
            alerts: logs.as_ref().is_some_and(LogFiles::has_alerts),
            pair: plan.as_ref().map(PairPlan::common),
        };
        let redirected = match plan.as_ref().and_then(PairPlan::longest_packet) {
            Some(mtu) => {
                let buffers = REDIRECT_BUFFERS * u32::from(worker_count);
                Some(Mempool::create(&eal, "redirected packets", buffers, mtu)?)
            }
            None => None,
        };
        let clock = common.clock;
        let names = Arc::new(Names::new(&config, &ids));
        let queues_of_log: Vec<_> = workers
            .iter()
            .filter(|_| logs.is_some())
            .map(|_| Arc::new(RecordQueue::new(eventlog::QUEUE)))
            .collect();
        let log = logs
            .map(|files| {
                let source = Source {
                    queues: queues_of_log.clone(),
                    clock: Box::new(move || clock.now()),
                    names: Arc::clone(&names),
                    generation: policy.generation,
                    scope: policy.transparent.session_scope,
                };
                EventLog::start(files, source)
            })
            .transpose()
            .map_err(|e| failed(format!("cannot start a thread for the logs: {e}")))?;
        let (mut worker_links, mut threads) = (Vec::new(), Vec::new());
        let sides = ports
            .iter()
            .map(|port| ports::side(&ports, port).unwrap_or_default());
        let queue = config.node.handover_queue;
        let sockets = placed(&config, &workers);
        let places = threads::places(&eal, &rss, sides.collect(), &sockets, queue)?;
        let placement = places.first().map(|place| Arc::clone(&place.placement));
        let mut places = places.into_iter();
        for (id, cpu) in (0..).map(WorkerId).zip(workers) {
            let records = queues_of_log.get(id.index()).cloned();
            let way = plan
                .as_ref()
                .and_then(|plan| plan.way(id.index(), redirected.clone()));
            match threads::spawn(id, cpu, common.clone(), records, places.next(), way) {
                Ok((link, thread)) => {
                    worker_links.push(link);
                    threads.push(thread);
                }
                Err(e) => {
                    // The first error is the one to tell.
                    let _ = stop_workers(&worker_links, threads);
                    return Err(failed(e));
                }
            }
        }
        drop(common);
        let worker_links: Arc<[WorkerLink]> = worker_links.into();
        let propagate = config.transparent.link_propagation;
        let (pair, pair_thread) = plan
            .map(|plan| {
                pair::start(PairParts {
                    plan,
                    workers: Arc::clone(&worker_links),
                    ports: Arc::clone(&ports),
                    placement: placement.clone(),
                    clock,
                })
            })
            .transpose()
            .map_err(|e| failed(format!("cannot start the HA thread: {e}")))?
            .unzip();
        let node = Arc::new(RunningNode::new(NodeParts {
            file: absolute(path),
            config,
            policy,
            ids,
            ports: Arc::clone(&ports),
            workers: Arc::clone(&worker_links),
            clock,
            pool,
            eal: eal.clone(),
            placement,
            names,
            log: log.as_ref().map(EventLog::reports),
            pair,
        }));
        let service = Self {
            keeper: Some(Keeper::new(eal.clone(), ports, worker_links, links, propagate)),
            node,
            pair: pair_thread,
            threads,
            log,
            eal,
        };
        match service.give_ports(queues) {
            Ok(()) => Ok(service),
            Err(e) => {
                // The first error is the one to tell.
                let _ = service.stop();
                Err(e)
            }
        }
    }

    /// Hands every worker its queues of every port; then all begin.
    fn give_ports(&self, queues: Vec<Vec<super::slots::PortQueues>>) -> Result<(), RunError> {
        for (port, queues) in self.node.ports().iter().zip(queues) {
            for (worker, queues) in self.node.workers().iter().zip(queues) {
                let command = Command::GivePort(port.id(), Box::new(queues));
                worker.ask(command, WORKER_TIMEOUT).map_err(failed)?;
            }
        }
        for worker in self.node.workers() {
            worker.ask(Command::Begin, WORKER_TIMEOUT).map_err(failed)?;
        }
        Ok(())
    }

    /// In service, until a signal comes or a worker ends by itself.
    fn serve(&mut self, events: Receiver<()>, signals: &Receiver<()>) -> Result<(), RunError> {
        let Some(mut keeper) = self.keeper.take() else {
            return Ok(());
        };
        for (port, why) in keeper.wait_for_links() {
            say(&format_args!("port {port}: link down: {why}"));
        }
        let stop = AtomicBool::new(false);
        let (result, keeper) = std::thread::scope(|scope| {
            let keeper = std::thread::Builder::new()
                .name("keeper".to_owned())
                .spawn_scoped(scope, {
                    let stop = &stop;
                    move || keeper.run(&events, stop)
                });
            let balancer = self.balance(scope, &stop);
            if let Err(e) = &balancer {
                warn!("cannot start a thread to rebalance the workers: {e}");
            }
            if let Err(e) = self.watch(scope, &stop) {
                warn!("cannot start a thread for systemd's watchdog, which will end the node: {e}");
            }
            let result = match &keeper {
                Ok(_) => self.in_service(signals),
                Err(e) => Err(failed(format!("cannot start a thread to watch the ports: {e}"))),
            };
            // Before the threads are waited for: a move under way would keep them.
            self.node.set_state(NodeState::Draining);
            stop.store(true, Ordering::Release);
            (result, keeper.ok().and_then(|thread| thread.join().ok()))
        });
        self.keeper = keeper;
        result
    }

    /// Says that the node is ready once it is, and waits for its stop. In a pair it is when it has its place there.
    fn in_service(&self, signals: &Receiver<()>) -> Result<(), RunError> {
        let Some(pair) = self.node.pair() else {
            self.ready(&"ready");
            return self.wait(signals, || false).map(|_| ());
        };
        if !self.wait(signals, || pair.is_ready())? {
            return Ok(());
        }
        let is_alone = !pair.view().peer.alive;
        self.ready(if is_alone { &"ready (alone)" } else { &"ready" });
        let ended = self.wait(signals, || false);
        // Who takes over is to have everything first.
        pair.leave();
        self.await_leave(pair);
        ended.map(|_| ())
    }

    fn ready(&self, line: &dyn std::fmt::Display) {
        self.node.set_state(NodeState::Ready);
        say(line);
        notify("READY=1").unwrap_or_else(|e| warn!("cannot tell systemd: {e}"));
    }

    #[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
    fn await_leave(&self, pair: &PairLink) {
        let deadline = Instant::now() + pair::LEAVE_LIMIT;
        while !pair.may_stop() {
            if Instant::now() >= deadline {
                warn!("HA: the peer has not taken the lead: connections may be lost");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the thread that moves buckets between workers, if there are several.
    fn balance<'scope>(
        &self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        stop: &'scope AtomicBool,
    ) -> std::io::Result<()> {
        if self.node.workers().len() < 2 {
            return Ok(());
        }
        let node = Arc::clone(&self.node);
        std::thread::Builder::new()
            .name("balancer".to_owned())
            .spawn_scoped(scope, move || {
                // Looks often enough not to keep the node from stopping.
                for tenth in 1_u64.. {
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(100));
                    if tenth % 10 == 0 {
                        node.balance();
                    }
                }
            })
            .map(|_| ())
    }

    /// Starts the thread that feeds the service manager's watchdog, if it wants that.
    fn watch<'scope>(
        &self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        stop: &'scope AtomicBool,
    ) -> std::io::Result<()> {
        let Some(watchdog) = Watchdog::from_environment() else {
            return Ok(());
        };
        let node = Arc::clone(&self.node);
        std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn_scoped(scope, move || watchdog.feed(node.workers(), stop))
            .map(|_| ())
    }

    /// Until `until` is so: true; or the node is to stop: false.
    fn wait(&self, signals: &Receiver<()>, until: impl Fn() -> bool) -> Result<bool, RunError> {
        loop {
            if until() {
                return Ok(true);
            }
            match signals.recv_timeout(Duration::from_millis(20)) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                    info!("stopping");
                    return Ok(false);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(dead) = self.threads.iter().position(WorkerThread::is_finished) {
                return Err(failed(format!(
                    "worker {dead} ended unexpectedly: this is a defect, please report it"
                )));
            }
        }
    }

    /// Stops the workers, frees what they hold, closes the ports, and adds everything up.
    fn stop(mut self) -> Result<Totals, RunError> {
        // Nobody gives the workers orders any more.
        self.pair = None;
        if self.log.is_some() {
            self.farewell();
        }
        rest_workers(self.node.workers());
        let stopped = stop_workers(self.node.workers(), self.threads);
        let mut totals = Totals::of(self.node.workers());
        if let Some(keeper) = &self.keeper {
            keeper.devices_down();
        }
        for port in self.node.ports() {
            if let Err(e) = port.close() {
                warn!(port = port.name(), "{e}");
            }
        }
        if let Some(keeper) = &self.keeper {
            keeper.interfaces_down();
        }
        if let Some(log) = &self.log {
            if !log.finish(LOG_TIMEOUT) {
                warn!("the logs are not complete: their disk does not answer");
            }
            totals.counts.log_records_lost += log.reports().lost();
        }
        totals.mbufs_in_use = self.eal.buffers_of_closed_ports() + u64::from(self.node.pool().in_use());
        stopped.map(|()| totals)
    }

    /// Has the workers tell the log of the sessions that end with the node.
    fn farewell(&self) {
        let _none_begins = self.node.settled();
        for worker in self.node.workers() {
            let until = self.node.now().plus(LOG_TIMEOUT.into());
            let farewell = Command::Farewell(Farewell { until, from: Some(0) });
            if let Err(e) = worker.ask(farewell, LOG_TIMEOUT + WORKER_TIMEOUT) {
                warn!("the session log does not have all sessions: {e}");
            }
        }
    }
}

/// Has the workers of a node receive no more, and waits until nothing is on its way between them: the first step of a stop.
#[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
pub fn rest_workers(links: &[WorkerLink]) {
    if links.len() < 2 {
        return;
    }
    let answers = |worker: &WorkerLink| worker.ask(Command::Rest, WORKER_TIMEOUT).is_ok();
    if !links.iter().all(answers) {
        // What a stalled worker holds goes with it.
        return;
    }
    let deadline = Instant::now() + WORKER_TIMEOUT;
    while Instant::now() < deadline {
        let mut total = Counts::default();
        for worker in links {
            if worker.ask(Command::Publish, WORKER_TIMEOUT).is_err() {
                return;
            }
            total.add(&worker.stats().read().0);
        }
        if total.handed_over + total.relayed == total.taken_over {
            return;
        }
    }
    warn!("packets are still on their way between workers: they are dropped");
}

/// Ends the workers: what they have in hand is sent first; what they own is freed here.
fn stop_workers(links: &[WorkerLink], threads: Vec<WorkerThread>) -> Result<(), RunError> {
    let mut result = Ok(());
    for (thread, worker) in threads.into_iter().zip(links) {
        let stopped = matches!(worker.ask(Command::Stop, WORKER_TIMEOUT), Ok(Reply::Stop));
        if !stopped && !thread.is_finished() {
            // It may never end, and goes with the process. Its ports stay open until then.
            result = Err(failed(format!("worker {} did not stop", worker.id().0)));
        } else if thread.join().is_err() {
            result = Err(failed(format!(
                "worker {} panicked: this is a defect, please report it",
                worker.id().0
            )));
        }
    }
    result
}

/// The workers' NUMA nodes. What lies badly is warned of.
fn placed(config: &Config, workers: &[usize]) -> Vec<Option<u32>> {
    let sys = Path::new("/sys");
    let topology = Topology::read(sys);
    let node = |port: &config::Port| match &port.device {
        config::Device::Pci(address) => numa::node_of_device(sys, address),
        config::Device::Virtual(_) => None,
    };
    let ports: Vec<_> = config
        .ports
        .iter()
        .map(|port| (port.name.clone(), node(port)))
        .collect();
    for warning in topology.warnings(workers, &ports) {
        warn!("{warning}");
    }
    topology.sockets(workers)
}

fn worker_cpus(config: &Config) -> Vec<usize> {
    config
        .node
        .workers
        .0
        .iter()
        .map(|cpu| usize::from(*cpu))
        .collect()
}

/// Moves this thread, and so all that it starts, off the workers' CPUs where others are left.
fn keep_off(workers: &[usize]) -> Result<(), RunError> {
    let allowed =
        sched_getaffinity(None).map_err(|e| failed(format!("cannot ask for the process's CPUs: {e}")))?;
    let allowed: BTreeSet<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    if let Some(missing) = workers.iter().find(|cpu| !allowed.contains(cpu)) {
        let allowed: Vec<_> = allowed.iter().map(usize::to_string).collect();
        return Err(failed(format!(
            "[node] workers: there is no CPU {missing} for this process: choose from {}",
            allowed.join(",")
        )));
    }
    let mut rest = CpuSet::new();
    for cpu in allowed.iter().filter(|cpu| !workers.contains(cpu)) {
        rest.set(*cpu);
    }
    if rest.count() == 0 {
        warn!("every CPU has a worker: control threads share them");
        return Ok(());
    }
    sched_setaffinity(None, &rest).map_err(|e| failed(format!("cannot keep off the workers' CPUs: {e}")))
}

/// A message for each SIGTERM, SIGINT or SIGHUP.
fn signals() -> Result<Receiver<()>, RunError> {
    let (sender, receiver) = mpsc::channel();
    ctrlc::set_handler(move || {
        // Nobody receives any more: the node is on its way down.
        let _ = sender.send(());
    })
    .map_err(|e| failed(format!("cannot take over SIGTERM: {e}")))?;
    Ok(receiver)
}

fn start_eal(config: &Config) -> Result<Eal, RunError> {
    let devices: Result<Vec<_>, _> = config
        .ports
        .iter()
        .map(|port| ports::device(&port.device))
        .collect();
    Ok(Eal::start(&EalConfig {
        hugepages: config.node.hugepages,
        memory_mib: config.node.memory_mib,
        worker_cpus: worker_cpus(config),
        devices: devices?,
        file_prefix: None,
        eal_args: config.node.eal_args.clone(),
    })?)
}

fn node_ports(config: &Config) -> Arc<[NodePort]> {
    let ports = (0..).map(PortId).zip(&config.ports);
    ports
        .map(|(id, port)| {
            let adaptive = config.node.idle == Idle::Adaptive;
            NodePort::new(id, port.clone(), config.node.packet_buffers, adaptive)
        })
        .collect()
}

/// Where the configuration file of a node is, for its status.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
