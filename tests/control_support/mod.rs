//! What the tests of the control API and of the command line share: a node made of the real engine on a thread of its
//! own, its API on a socket in a directory of its own, and a client that shares no code with the program.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its part of a shared module"
)]
#![allow(clippy::disallowed_types, reason = "a lock between test threads")]

pub mod captures;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use haechi::base::slab::HeapMemory;
use haechi::base::{Generation, Nanos, PortId, WorkerId};
use haechi::config::{self, Config, RuleIds};
use haechi::control::api::{ControlSocket, Limits, serve_within};
use haechi::control::explain::live::{Live, explain};
use haechi::control::node::{
    ApplyReport, ApplyRequest, Counters, Cursor, ErrorKind, ExplainReport, ExplainRequest, HaDigest, HaPath,
    HaPeer, HaRole, HaStatus, HaSync, KillReport, Node, NodeState, NotifyReport, NotifyRequest, PortStatus,
    RebalanceReport, Rss, RuleStatus, SessionPage, SessionQuery, Status, SwitchoverReport, SyncState,
    WorkerStatus, no_pair,
};
use haechi::control::view::{LiveSession, Names};
use haechi::control::{NodeError, SessionFilter, apply, rules};
use haechi::engine::{Batch, DropReason, Engine, IMPLICIT_DROP, Note, Outputs, RuleCounters};
use haechi::flow::table::Entry;
use haechi::flow::{FlowKey, HashSeed, SessionState};
use haechi::packet::synth::PacketSpec;
use haechi::packet::{Malformed, VecPacket};
use haechi::policy::Scale;
use serde_json::Value;

/// Two zones, two ports, three rules.
pub const CONFIG: &str = r#"
version = 1

[node]
name = "fw-test"
mode = "transparent"
workers = "1"

[[port]]
name = "wan"
device = "vdev:net_null0"
zone = "untrust"
peer = "lan"

[[port]]
name = "lan"
device = "vdev:net_null1"
zone = "trust"
peer = "wan"

[conntrack]
max_sessions = 4096

[[rule]]
name = "lan-out"
from = "trust"
to = "untrust"
service = ["tcp/80", "tcp/443", "udp/53", "icmp/echo-request"]
action = "allow"
description = "what the office needs"

[[rule]]
name = "no-mail"
service = ["tcp/25"]
action = "reject"

[[rule]]
name = "publish"
from = "untrust"
service = ["tcp/8080"]
action = "allow"
enabled = false
"#;

/// Where the test configuration's ports are.
pub const WAN: PortId = PortId(0);
pub const LAN: PortId = PortId(1);

/// What runs on the node's thread.
pub struct Worker {
    pub engine: Engine,
    pub config: Config,
    pub ids: RuleIds,
    pub names: Arc<Names>,
    pub forwarded: u64,
}

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// A node: the engine on a thread, a clock that the test moves.
pub struct TestNode {
    jobs: std::sync::Mutex<Option<mpsc::Sender<Job>>>,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
    now_ns: AtomicU64,
    /// Makes `status` do something else, for tests of the server.
    pub status_hook: fn() -> Result<(), NodeError>,
    /// What it says of its pair; `None`: it is alone.
    pub pair: std::sync::Mutex<Option<HaStatus>>,
}

impl TestNode {
    pub fn new(text: &str) -> Self {
        Self::with_hook(text, || Ok(()))
    }

    pub fn with_hook(text: &str, status_hook: fn() -> Result<(), NodeError>) -> Self {
        let config = config::load_text("/etc/haechi/test.toml", text).unwrap_or_else(|e| panic!("{e}"));
        let mut ids = RuleIds::new();
        let policy = Arc::new(config::compile(&config, Generation(1), &mut ids).unwrap());
        let names = Arc::new(Names::new(&config, &ids));
        let engine = Engine::new(
            config.conntrack.max_sessions,
            policy,
            &HeapMemory,
            HashSeed([1, 2, 3, 4]),
        )
        .unwrap();
        let (sender, jobs) = mpsc::channel::<Job>();
        let mut worker = Worker {
            engine,
            config,
            ids,
            names,
            forwarded: 0,
        };
        let thread = std::thread::spawn(move || {
            for job in jobs {
                job(&mut worker);
            }
        });
        Self {
            jobs: std::sync::Mutex::new(Some(sender)),
            thread: std::sync::Mutex::new(Some(thread)),
            now_ns: AtomicU64::new(1_000_000_000),
            status_hook,
            pair: std::sync::Mutex::new(None),
        }
    }

    /// Does something on the worker and waits for its result.
    pub fn with<R: Send + 'static>(&self, f: impl FnOnce(&mut Worker) -> R + Send + 'static) -> R {
        let (answer, result) = mpsc::channel();
        let job: Job = Box::new(move |worker| {
            answer.send(f(worker)).unwrap();
        });
        self.jobs.lock().unwrap().as_ref().unwrap().send(job).unwrap();
        result.recv().unwrap()
    }

    pub fn now(&self) -> Nanos {
        Nanos(self.now_ns.load(Ordering::SeqCst))
    }

    /// Lets time pass; idle sessions end on the way.
    pub fn sleep(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap();
        let now = Nanos(self.now_ns.fetch_add(nanos, Ordering::SeqCst) + nanos);
        self.with(move |worker| {
            worker.engine.upkeep(now, u32::MAX, &mut Forwarded(0));
        });
    }

    /// Sends a packet in words; true: it was forwarded.
    pub fn send(&self, ingress: PortId, words: &str) -> bool {
        let frame = words
            .parse::<PacketSpec>()
            .unwrap_or_else(|e| panic!("{words}: {e}"))
            .frame();
        self.send_frame(ingress, frame)
    }

    pub fn send_frame(&self, ingress: PortId, frame: Vec<u8>) -> bool {
        let now = self.now();
        self.with(move |worker| {
            let mut batch = Batch::new();
            assert!(batch.try_push(VecPacket::new(frame), ingress).is_ok());
            let mut out = Forwarded(0);
            worker.engine.process(now, &mut batch, &mut out);
            worker.forwarded += out.0;
            out.0 == 1
        })
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        drop(self.jobs.lock().unwrap().take());
        if let Some(thread) = self.thread.lock().unwrap().take() {
            thread.join().unwrap();
        }
    }
}

struct Forwarded(u64);

impl Outputs<VecPacket> for Forwarded {
    fn forward(&mut self, _: VecPacket, _: PortId, _: Note) {
        self.0 += 1;
    }
    fn drop(&mut self, _: VecPacket, _: DropReason, _: Note) {}
    fn answer(&mut self, _: VecPacket, _: PortId, _: DropReason, _: Note) {}
    fn buffer(&mut self) -> Option<VecPacket> {
        Some(VecPacket::default())
    }
    fn originate(&mut self, _: VecPacket, _: PortId) {}
}

fn live(entry: &Entry<'_>, scale: Scale) -> LiveSession {
    LiveSession {
        session: *entry.session,
        translation: entry.translation,
        created: entry.created,
        packets: entry.packets,
        worker: WorkerId(0),
        scale,
    }
}

impl Live for TestNode {
    fn lookup(&self, keys: &[FlowKey]) -> Result<Vec<LiveSession>, NodeError> {
        let keys = keys.to_vec();
        Ok(self.with(move |worker| {
            let (table, scale) = (worker.engine.table(), worker.engine.timeout_scale());
            let find = |key: &FlowKey| {
                table
                    .entry(table.find(key, table.hash(key))?)
                    .map(|e| live(&e, scale))
            };
            keys.iter().filter_map(find).collect()
        }))
    }

    fn now(&self) -> Nanos {
        TestNode::now(self)
    }
}

impl Node for TestNode {
    fn status(&self) -> Result<Status, NodeError> {
        (self.status_hook)()?;
        Ok(self.with(|worker| Status {
            version: "0.0.0".to_owned(),
            node: worker.config.node.name.clone(),
            mode: "transparent".to_owned(),
            state: NodeState::Ready,
            pid: 4711,
            uptime_s: 7384.0,
            config: "/etc/haechi/test.toml".to_owned(),
            generation: worker.engine.policy().generation.0,
            sessions: worker.engine.table().len().into(),
            max_sessions: worker.engine.table().capacity().into(),
            unused_leases: 0,
            timeout_scale: f64::from(worker.engine.timeout_scale().ppm()) / 1e6,
            sessions_evicted: worker.engine.counters().sessions_evicted,
            half_open: worker.engine.table().half_open().into(),
            sessions_by_state: SessionState::ALL
                .iter()
                .map(|state| {
                    (
                        state.name().to_owned(),
                        worker.engine.table().count(*state).into(),
                    )
                })
                .collect(),
            syn_cookies_engaged: worker.engine.syn_cookies_engaged(),
            rules: worker.engine.policy().rules.len(),
            classifier: worker.engine.policy().classifier.methods(),
            workers: 1,
            ports: 2,
            ports_up: 1,
            packet_buffers: 65_535,
            packet_buffers_in_use: 2_048,
            warnings: vec!["port lan: no link".to_owned()],
        }))
    }

    fn ports(&self) -> Result<Vec<PortStatus>, NodeError> {
        Ok(self.with(|worker| {
            let port = |p: &config::Port| PortStatus {
                name: p.name.clone(),
                zone: p.zone.clone(),
                peer: Some(p.peer.clone()),
                device: "vdev:net_null0".to_owned(),
                driver: "net_null".to_owned(),
                mac: "02:00:00:00:00:01".to_owned(),
                mtu: p.mtu,
                link_up: p.name == "wan",
                link_note: (p.name != "wan").then(|| "no link".to_owned()),
                speed_mbps: Some(10_000),
                rx_packets: 1_234_567,
                tx_packets: 999,
                rx_bytes: 123_456_789,
                tx_bytes: 0,
                rx_missed: 7,
                rx_errors: 0,
                rx_no_buffer: 0,
                tx_dropped: 0,
                tx_errors: 0,
                rx_queues: 1,
                tx_queues: 1,
                rss: Rss::Software,
            };
            worker.config.ports.iter().map(port).collect()
        }))
    }

    fn workers(&self) -> Result<Vec<WorkerStatus>, NodeError> {
        Ok(self.with(|worker| {
            let counters = worker.engine.counters();
            vec![WorkerStatus {
                worker: 0,
                cpu: 1,
                packets: counters.received,
                forwarded: counters.forwarded,
                dropped: counters.dropped(),
                originated: counters.originated,
                sessions: worker.engine.table().len().into(),
                max_sessions: worker.engine.quota().into(),
                busy: 0.123,
                cycles_per_packet: 212.4,
                handed_over: 0,
                taken_over: 0,
                relayed: 0,
                stalled: false,
                max_loop_gap_us: 38.2,
                expiry_lag_ms: 0.0,
                generation: worker.engine.policy().generation.0,
            }]
        }))
    }

    fn rules(&self) -> Result<Vec<RuleStatus>, NodeError> {
        Ok(self.with(|worker| {
            // Times of a clock that the test moves mean nothing to the program that shows them.
            let timeless = |counters: &RuleCounters| RuleCounters {
                last_hit: Nanos(0),
                ..*counters
            };
            let counters = worker.engine.rules();
            let known: Vec<_> = counters[..worker.ids.len()].iter().map(timeless).collect();
            let no_rule = timeless(&counters[IMPLICIT_DROP.index()]);
            rules::rows(&worker.config, &worker.ids, &known, no_rule, |_| 0.0)
        }))
    }

    fn counters(&self) -> Result<Counters, NodeError> {
        Ok(self.with(|worker| {
            let counters = worker.engine.counters();
            let drops = DropReason::ALL
                .iter()
                .map(|r| (r.name().to_owned(), counters.drops[r.index()]));
            let kinds = Malformed::ALL.iter().zip(counters.malformed);
            Counters {
                rx_packets: counters.received,
                tx_packets: counters.forwarded + counters.originated,
                originated: counters.originated,
                rejects_suppressed: counters.rejects_suppressed,
                timeout_resets: counters.timeout_resets,
                timeout_resets_missed: counters.timeout_resets_missed,
                log_records_written: 0,
                log_records_lost: counters.log_records_lost,
                fragments: counters.fragments,
                fragments_reassembled: counters.fragments_reassembled,
                fragments_held: worker.engine.held(),
                held: worker.engine.held(),
                syn_cookies_sent: counters.syn_cookies_sent,
                syn_cookies_accepted: counters.syn_cookies_accepted,
                syn_retries_lost: counters.syn_retries_lost,
                sessions_created: counters.sessions_created,
                sessions_ended: counters.sessions_ended,
                sessions_evicted: counters.sessions_evicted,
                sources_full: counters.sources_full,
                handed_over: counters.handed_over,
                sessions_moved: counters.sessions_moved_out,
                sessions_synced_in: counters.sessions_synced_in,
                sessions_synced_out: counters.sessions_synced_out,
                sync_refused: counters.sync_refused,
                redirected_out: counters.redirected_out,
                redirected_in: counters.redirected_in,
                given_back: counters.given_back,
                returned: 0,
                deferred: counters.deferred,
                deferred_late: counters.deferred_late,
                redirects: 0,
                redirects_full: counters.redirects_full,
                drops: drops.collect(),
                malformed: kinds.map(|(kind, n)| (kind.name().to_owned(), n)).collect(),
            }
        }))
    }

    fn sessions(&self, query: &SessionQuery) -> Result<SessionPage, NodeError> {
        let (query, now) = (query.clone(), self.now());
        Ok(self.with(move |worker| {
            let mut page = SessionPage::default();
            let mut slot = query.cursor.slot;
            let (table, scale) = (worker.engine.table(), worker.engine.timeout_scale());
            while slot < table.capacity() {
                let entry = table.entry(haechi::base::SessionIx(slot));
                slot += 1;
                let Some(entry) = entry else { continue };
                let info = worker
                    .names
                    .session(worker.engine.policy(), &live(&entry, scale), now);
                if query.filter.matches(&info) {
                    page.sessions.push(info);
                    if page.sessions.len() == query.limit {
                        page.cursor = Some(Cursor { worker: 0, slot });
                        break;
                    }
                }
            }
            page
        }))
    }

    fn kill(&self, filter: &SessionFilter) -> Result<KillReport, NodeError> {
        let (filter, now) = (filter.clone(), self.now());
        Ok(self.with(move |worker| {
            let (names, policy) = (Arc::clone(&worker.names), Arc::clone(worker.engine.policy()));
            let scale = worker.engine.timeout_scale();
            let (next, killed) = worker.engine.kill_where(now, 0, u32::MAX, |entry| {
                filter.matches(&names.session(&policy, &live(entry, scale), now))
            });
            assert_eq!(next, None);
            KillReport {
                killed: killed.into(),
            }
        }))
    }

    fn apply(&self, request: &ApplyRequest) -> Result<ApplyReport, NodeError> {
        let request = request.clone();
        self.with(move |worker| {
            let mut plan = apply::plan(&worker.config, &request)?;
            plan.report.generation = worker.engine.policy().generation.0;
            let generation = Generation(plan.report.generation + 1);
            if request.dry_run {
                let policy = config::compile(&plan.config, generation, &mut worker.ids.clone()).unwrap();
                let mut refused = 0;
                let end = worker.engine.table().scan(0, u32::MAX, |entry| {
                    refused += apply::refused(&policy, [entry.session]);
                });
                assert_eq!(end, None);
                plan.report.sessions_refused = Some(refused);
                return Ok(plan.report);
            }
            plan.report.generation = generation.0;
            let policy = config::compile(&plan.config, generation, &mut worker.ids)
                .map_err(|e| NodeError::new(ErrorKind::Refused, e.to_string()))?;
            worker.names = Arc::new(Names::new(&plan.config, &worker.ids));
            worker.config = plan.config;
            drop(worker.engine.set_policy(Arc::new(policy)));
            plan.report.applied = true;
            Ok(plan.report)
        })
    }

    fn rebalance(&self, dry_run: bool) -> Result<RebalanceReport, NodeError> {
        Ok(RebalanceReport {
            moved: !dry_run,
            from: Some(0),
            to: Some(1),
            buckets: 100,
            sessions: 1,
            busy_percent: vec![90, 10],
            version: 1,
            reason: None,
        })
    }

    fn explain(&self, request: &ExplainRequest) -> Result<ExplainReport, NodeError> {
        let (policy, names) =
            self.with(|worker| (Arc::clone(worker.engine.policy()), Arc::clone(&worker.names)));
        explain(request, &policy, &names, self)
    }

    fn ha(&self) -> Result<HaStatus, NodeError> {
        self.pair.lock().unwrap().clone().ok_or_else(no_pair)
    }

    /// At once: the two nodes have the other's role.
    fn switchover(&self) -> Result<SwitchoverReport, NodeError> {
        let mut pair = self.pair.lock().unwrap();
        let status = pair.as_mut().ok_or_else(no_pair)?;
        if !status.peer.alive {
            return Err(NodeError::new(ErrorKind::Refused, "the peer is not heard"));
        }
        let peer = status.peer.role.replace(status.role).unwrap();
        status.role = peer;
        let leads = peer == HaRole::Leader;
        Ok(SwitchoverReport {
            leader: if leads {
                status.node_id
            } else {
                status.peer.node_id
            },
            role: peer,
            took_ms: 12.3,
        })
    }

    fn notify(&self, request: &NotifyRequest) -> Result<NotifyReport, NodeError> {
        let mut pair = self.pair.lock().unwrap();
        let status = pair.as_mut().ok_or_else(no_pair)?;
        status.wish = Some(request.wish());
        Ok(NotifyReport {
            wish: request.wish(),
            role: status.role,
        })
    }
}

/// A pair whose other node is well.
pub fn healthy_pair() -> HaStatus {
    let path = |name: &str, heard_ms| HaPath {
        name: name.to_owned(),
        heard_ms: Some(heard_ms),
        rtt_us: Some(85.4),
    };
    HaStatus {
        mode: "active-standby".to_owned(),
        node_id: 1,
        role: HaRole::Leader,
        role_s: 7384.0,
        takeovers: 1,
        priority: 200,
        able: true,
        peer: HaPeer {
            node_id: 2,
            alive: true,
            role: Some(HaRole::Standby),
            priority: Some(100),
            able: Some(true),
            version: Some(1),
            paths: vec![path("link", 12.0), path("second_link", 31.0)],
        },
        policy: HaDigest::new(7, Some(7)),
        layout: HaDigest::new(8, Some(8)),
        sync: HaSync {
            state: SyncState::InSync,
            proved_s: Some(0.4),
            replicas: 3,
            sessions_sent: 12_345,
            gone_sent: 1,
            datagrams_sent: 1234,
            datagrams_received: 1233,
            ..HaSync::default()
        },
        ..HaStatus::default()
    }
    .with_reasons(Vec::new())
}

/// A directory that goes with its value.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("haechi-control-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and says where.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A node with its API being served; both end with the value.
pub struct Served {
    pub node: Arc<TestNode>,
    pub socket: PathBuf,
    pub directory: Directory,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

impl Served {
    pub fn new(text: &str) -> Self {
        Self::with(TestNode::new(text), Limits::default())
    }

    pub fn with(node: TestNode, limits: Limits) -> Self {
        let directory = Directory::new();
        let socket = directory.path("h.sock");
        let node = Arc::new(node);
        let bound = ControlSocket::bind(&socket).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let served = Arc::clone(&node);
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let shutdown = async {
                let _ = stopped.await;
            };
            runtime
                .block_on(serve_within(bound, served, shutdown, limits))
                .unwrap();
            // A handler that a test holds up is not waited for.
            runtime.shutdown_background();
        });
        Self {
            node,
            socket,
            directory,
            stop: Some(stop),
            server: Some(server),
        }
    }

    /// Stops the server and waits until it has.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }

    /// Begins to stop the server.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    pub fn get(&self, target: &str) -> Answer {
        request(&self.socket, "GET", target, "")
    }

    pub fn post(&self, target: &str, body: &Value) -> Answer {
        request(&self.socket, "POST", target, &body.to_string())
    }

    pub fn delete(&self, target: &str) -> Answer {
        request(&self.socket, "DELETE", target, "")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub head: String,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.code, 200, "{}", self.body);
        self.body
    }

    /// The error's text, of an answer with this code.
    #[track_caller]
    pub fn error(&self, code: u16) -> &str {
        assert_eq!(self.code, code, "{}", self.body);
        self.body["error"]
            .as_str()
            .unwrap_or_else(|| panic!("no error in {}", self.body))
    }
}

pub fn request(socket: &Path, method: &str, target: &str, body: &str) -> Answer {
    let mut stream = connect(socket);
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    answer(&mut stream)
}

pub fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Reads an answer to the connection's end. The server may hang up before it has read all that was sent: its answer is
/// delivered, then the kernel reports a reset (unix(7), `ECONNRESET`) instead of an end.
pub fn answer(stream: &mut UnixStream) -> Answer {
    let mut bytes = Vec::new();
    if let Err(e) = stream.read_to_end(&mut bytes) {
        assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{e}");
    }
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no HTTP: {text:?}"));
    let code = head.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap();
    Answer {
        code,
        head: head.to_owned(),
        body: serde_json::from_str(body).unwrap_or_else(|e| panic!("{e} in {body:?}")),
    }
}
