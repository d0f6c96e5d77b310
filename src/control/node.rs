//! What a running node offers to its operators, and the shapes in which it says so: the JSON of the control API.
//!
//! Units stand at the end of a name (`_s`, `_ms`, `_us`, `_ns`, `_mbps`); what has none is a count. Fields may be added by later
//! versions, so readers ignore those that they do not know; requests refuse them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::filter::SessionFilter;

/// A running node, as the control API sees it.
///
/// The methods block (they ask workers and wait for the answers): the API calls them on threads where that is allowed.
/// They may be called from several threads at once, and each returns within a bounded time: a worker that does not
/// answer is [`ErrorKind::Unavailable`], not a hang.
pub trait Node: Send + Sync + 'static {
    /// The node in one screen.
    ///
    /// # Errors
    /// As all of these methods: see [`NodeError`].
    fn status(&self) -> Result<Status, NodeError>;

    /// Every port, in the configuration's order.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn ports(&self) -> Result<Vec<PortStatus>, NodeError>;

    /// Every worker, in the configuration's order.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn workers(&self) -> Result<Vec<WorkerStatus>, NodeError>;

    /// Every rule, in the configuration's order, disabled ones too, and the implicit drop last.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn rules(&self) -> Result<Vec<RuleStatus>, NodeError>;

    /// The node's packet accounts: everything that came in, and where it went.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn counters(&self) -> Result<Counters, NodeError>;

    /// One page of the sessions that match. A page may hold fewer sessions than the limit, even none, and still have a
    /// cursor: the node looks at a bounded number of slots a page. Sessions that live through all pages are listed
    /// once; others may or may not be.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn sessions(&self, query: &SessionQuery) -> Result<SessionPage, NodeError>;

    /// Ends every session that matches, without a packet to its ends. Returns when they are gone.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn kill(&self, filter: &SessionFilter) -> Result<KillReport, NodeError>;

    /// Validates a configuration against the running one and, unless it is a dry run, puts it in force. Either all of
    /// it or nothing. Applies run one after the other.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with all diagnostics, when it is wrong or needs a restart; see [`NodeError`].
    fn apply(&self, request: &ApplyRequest) -> Result<ApplyReport, NodeError>;

    /// Says what would happen to packets, from the live policy and copies of the live sessions. Changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`] for a packet that cannot be read; see [`NodeError`].
    fn explain(&self, request: &ExplainRequest) -> Result<ExplainReport, NodeError>;
}

/// Why a node refuses or fails; the API's status codes follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request makes no sense, whatever the node's state: 400.
    BadRequest,
    /// What it names does not exist: 404.
    NotFound,
    /// The node's state or configuration forbids it: 409.
    Refused,
    /// The node cannot answer now (stopping, a worker is busy): 503.
    Unavailable,
    /// A later version will do this: 501.
    NotSupported,
    /// A defect or a resource that ran out: 500.
    Internal,
}

/// What a node answers instead of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error}{}", fix.as_deref().map(|f| format!(" ({f})")).unwrap_or_default())]
pub struct NodeError {
    /// What sort of refusal.
    pub kind: ErrorKind,
    /// One line: what went wrong.
    pub error: String,
    /// One line: what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// What is wrong with a configuration, all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<DiagnosticInfo>,
}

impl NodeError {
    /// An error without a fix.
    #[must_use]
    pub fn new(kind: ErrorKind, error: impl Into<String>) -> Self {
        Self {
            kind,
            error: error.into(),
            fix: None,
            diagnostics: Vec::new(),
        }
    }

    /// The same with a fix.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// One finding in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticInfo {
    /// `error` or `warning`.
    pub severity: Severity,
    /// The file, as it was named or included.
    pub file: String,
    /// From 1; 0: the file as a whole.
    pub line: u32,
    /// From 1, in characters; 0: the line as a whole.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is not accepted.
    Error,
    /// It is, but may not do what was meant.
    Warning,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// haechi's version.
    pub version: String,
    /// `[node] name`.
    pub node: String,
    /// `transparent` or `routed`.
    pub mode: String,
    /// Where the node is in its life.
    pub state: NodeState,
    /// The process.
    pub pid: u32,
    /// Since `ready`.
    pub uptime_s: f64,
    /// The file that is in force.
    pub config: String,
    /// Number of the policy in force: one more with every apply.
    pub generation: u32,
    /// Sessions on all workers.
    pub sessions: u64,
    /// `[conntrack] max_sessions`.
    pub max_sessions: u64,
    /// Enabled rules.
    pub rules: usize,
    /// Workers.
    pub workers: usize,
    /// Ports.
    pub ports: usize,
    /// Ports whose link is up.
    pub ports_up: usize,
    /// mbufs of all pools.
    pub packet_buffers: u64,
    /// mbufs that are not in their pools now: in receive rings, in transmit rings, in caches, held.
    pub packet_buffers_in_use: u64,
    /// What an operator should look at, one line each.
    pub warnings: Vec<String>,
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Workers do not all poll yet.
    Starting,
    /// In service.
    Ready,
    /// On its way down.
    Draining,
}

/// What is known of how a port spreads flows over queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rss {
    /// Real packets showed that the device's hash is the owner function's.
    Proven,
    /// Not enough packets yet.
    Unproven,
    /// Steered in software.
    Software,
    /// Real packets showed that it is not; steered in software.
    Mismatch,
}

/// One of `GET /v1/ports`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortStatus {
    /// `[[port]] name`.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Transparent mode: the port that frames cross to.
    pub peer: Option<String>,
    /// PCI address or virtual device string.
    pub device: String,
    /// DPDK's name of the driver.
    pub driver: String,
    /// `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// Of the IP packet, in bytes.
    pub mtu: u16,
    /// Has it a link?
    pub link_up: bool,
    /// What the link's state is taken from or why the port is out of service, where that is not plain.
    pub link_note: Option<String>,
    /// Link speed; `null` where the device does not know.
    pub speed_mbps: Option<u32>,
    /// Frames in.
    pub rx_packets: u64,
    /// Frames out.
    pub tx_packets: u64,
    /// Bytes in, without FCS.
    pub rx_bytes: u64,
    /// Bytes out, without FCS.
    pub tx_bytes: u64,
    /// Frames that the device dropped because its receive ring was full.
    pub rx_missed: u64,
    /// Frames that the device received in error.
    pub rx_errors: u64,
    /// Frames lost because no mbuf was free.
    pub rx_no_buffer: u64,
    /// Frames that this node could not hand to the device (counted as `tx_full` or `link_down` too).
    pub tx_dropped: u64,
    /// Frames that the device failed to send.
    pub tx_errors: u64,
    /// Receive queues.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
    /// How flows are spread.
    pub rss: Rss,
}

/// One of `GET /v1/workers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its place in `[node] workers`.
    pub worker: u16,
    /// The CPU that it is pinned to.
    pub cpu: u32,
    /// Packets taken in.
    pub packets: u64,
    /// Packets forwarded.
    pub forwarded: u64,
    /// Packets dropped, for all reasons.
    pub dropped: u64,
    /// Packets that it made itself (RST, ICMP unreachable).
    pub originated: u64,
    /// Sessions that it owns.
    pub sessions: u64,
    /// Share of the last second's cycles spent on packets: 0 to 1.
    pub busy: f64,
    /// Busy cycles for each packet in the last second; 0 when there was none.
    pub cycles_per_packet: f64,
    /// Packets handed to their owners on other workers.
    pub handed_over: u64,
    /// Longest time between two turns of its loop in the last ten seconds, sleeps of an idle worker not counted.
    pub max_loop_gap_us: f64,
    /// How far behind session expiry is.
    pub expiry_lag_ms: f64,
    /// Number of the policy that it works under.
    pub generation: u32,
}

/// One of `GET /v1/rules`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// `[[rule]] name`; `implicit_drop` for what no rule matched.
    pub name: String,
    /// `allow`, `drop` or `reject`.
    pub action: String,
    /// Disabled rules match nothing.
    pub enabled: bool,
    /// Zones, as configured.
    pub from: Vec<String>,
    /// Zones, as configured.
    pub to: Vec<String>,
    /// `[[rule]] description`.
    pub description: Option<String>,
    /// Sessions that it holds open now.
    pub sessions: u64,
    /// Packets of its sessions, or that it refused.
    pub packets: u64,
    /// Bytes of those IP packets.
    pub bytes: u64,
    /// When it last decided about a new session, Unix time in seconds; `null`: not since the node started.
    pub last_hit: Option<f64>,
}

/// `GET /v1/counters`. On a node at rest, `rx_packets + originated = tx_packets + all drops + held`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets that workers took from ports.
    pub rx_packets: u64,
    /// Packets that workers handed to ports, their own (`originated`) among them.
    pub tx_packets: u64,
    /// Packets made here (RST, ICMP unreachable).
    pub originated: u64,
    /// Answers to refused packets that `reject_rate` or a lack of buffers kept from being made.
    pub rejects_suppressed: u64,
    /// Packets that are in the node now (queues, reassembly).
    pub held: u64,
    /// Sessions made.
    pub sessions_created: u64,
    /// Sessions ended, for whatever reason.
    pub sessions_ended: u64,
    /// Packets dropped, one entry for every reason, zeros too; the words are those of `engine::DropReason`.
    pub drops: BTreeMap<String, u64>,
    /// Malformed packets by what is wrong with them, one entry for every kind, zeros too; the words are those of
    /// `packet::Malformed`. They add up to `drops.malformed`.
    pub malformed: BTreeMap<String, u64>,
}

/// A name that is mostly one of a fixed list.
pub type Word = Cow<'static, str>;

/// One of `GET /v1/sessions`. `source` and `destination` are those of the packet that opened the session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or the protocol's number.
    pub protocol: Word,
    /// Who opened it.
    pub source: IpAddr,
    /// TCP, UDP: port; echo: identifier; else 0.
    pub source_port: u16,
    /// To whom.
    pub destination: IpAddr,
    /// TCP, UDP: port; echo: identifier; else 0.
    pub destination_port: u16,
    /// VLAN tags, outer first.
    pub vlan: Vec<u16>,
    /// The connection's state, e.g. `established`.
    pub state: Word,
    /// The rule that allowed it.
    pub rule: Arc<str>,
    /// Zone of the port that its first packet came in by.
    pub from: Arc<str>,
    /// Zone of the port that it left by.
    pub to: Arc<str>,
    /// The port that its first packet came in by.
    pub ingress: Arc<str>,
    /// The port that it left by.
    pub egress: Arc<str>,
    /// The translated tuple; always `null` until address translation exists.
    pub nat: Option<NatInfo>,
    /// `[original, reply]`.
    pub packets: [u64; 2],
    /// `[original, reply]`, of IP packets.
    pub bytes: [u64; 2],
    /// Since its first packet.
    pub age_s: f64,
    /// Until it ends, if no packet comes.
    pub expires_in_s: f64,
    /// Who owns it.
    pub worker: u16,
    /// Which node of a pair owns it.
    pub owner: Owner,
}

/// A translated tuple.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatInfo {
    /// After translation.
    pub source: IpAddr,
    /// After translation.
    pub source_port: u16,
    /// After translation.
    pub destination: IpAddr,
    /// After translation.
    pub destination_port: u16,
}

/// Which node of a pair owns a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// This one.
    Local,
    /// The other one.
    Peer,
}

/// Where a listing goes on: the next slot to look at. Users pass it back as they got it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Place of the worker.
    pub worker: u16,
    /// The first slot of its table that was not looked at.
    pub slot: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.worker, self.slot)
    }
}

/// Not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of a page that this API gave")]
pub struct BadCursor;

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(s: &str) -> Result<Self, BadCursor> {
        let (worker, slot) = s.split_once('.').ok_or(BadCursor)?;
        Ok(Self {
            worker: worker.parse().map_err(|_| BadCursor)?,
            slot: slot.parse().map_err(|_| BadCursor)?,
        })
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which sessions, and how many at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionQuery {
    /// Which.
    pub filter: SessionFilter,
    /// At most so many: 1 to [`SessionQuery::MAX_LIMIT`].
    pub limit: usize,
    /// Where to go on; the default is the start.
    pub cursor: Cursor,
}

impl SessionQuery {
    /// Sessions a page where the request does not say.
    pub const DEFAULT_LIMIT: usize = 1_000;
    /// Sessions a page at most.
    pub const MAX_LIMIT: usize = 10_000;
}

/// `GET /v1/sessions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionPage {
    /// This page's.
    pub sessions: Vec<SessionInfo>,
    /// Where the next page starts; `null`: this was the last.
    pub cursor: Option<Cursor>,
}

/// `DELETE /v1/sessions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillReport {
    /// Sessions ended.
    pub killed: u64,
}

/// `POST /v1/apply`: the files themselves, so that the node needs no access to the client's file system and reads
/// exactly what the client saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The main file first, then everything that it includes.
    pub files: Vec<SourceFile>,
    /// Only say what would change, and how many sessions would end.
    #[serde(default)]
    pub dry_run: bool,
}

/// One file of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Its absolute path on the client's side: what diagnostics name and what `include` is resolved against.
    pub path: String,
    /// What stands in it.
    pub text: String,
}

/// What an apply changed, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyReport {
    /// Was it put in force?
    pub applied: bool,
    /// The policy's number after it.
    pub generation: u32,
    /// Names of rules that are new.
    pub rules_added: Vec<String>,
    /// Names of rules that are gone.
    pub rules_removed: Vec<String>,
    /// Names of rules of another content.
    pub rules_changed: Vec<String>,
    /// Does another order of the rules that stay come with it?
    pub rules_reordered: bool,
    /// Other keys that changed (`conntrack.timeouts`, `address_sets`, ...).
    pub settings_changed: Vec<String>,
    /// Live sessions that the new rules refuse: they end at their next packet. A dry run counts them, as they are while
    /// it does; `null`: not counted, because this was no dry run or there are too many to ask about them all in time.
    pub sessions_refused: Option<u64>,
    /// Warnings about the configuration.
    #[serde(default)]
    pub warnings: Vec<DiagnosticInfo>,
}

/// `POST /v1/explain`: packets, in order; each sees the sessions that those before it made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The packets.
    pub packets: Vec<ExplainPacket>,
    /// The frames are those of both directions: one that answers an earlier one comes in where that one went out, not
    /// where it says.
    #[serde(default)]
    pub both_directions: bool,
}

/// A packet to be explained: in words or as a frame, one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainPacket {
    /// In words: `tcp 10.0.0.5:1234 > 192.0.2.7:80 syn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<String>,
    /// The whole Ethernet frame without FCS, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
    /// The zone that it comes from; enough where the zone has one port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The port that it comes in by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// When, after the first packet; it never goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ns: Option<u64>,
}

/// What would happen to the packets of an [`ExplainRequest`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExplainReport {
    /// The policy that was asked.
    pub generation: u32,
    /// One for each packet, in order.
    pub verdicts: Vec<Verdict>,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It leaves by `egress`.
    Forward,
    /// It goes no further.
    Drop,
}

/// What happens to one packet, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// From 1.
    pub number: u64,
    /// After the first packet.
    pub at_ns: u64,
    /// The packet in words, as far as the parser understood it.
    pub packet: String,
    /// Bytes of the frame.
    pub length: usize,
    /// The port that it came in by.
    pub ingress: String,
    /// That port's zone.
    pub from: String,
    /// What happens.
    pub verdict: Fate,
    /// Forwarded: the port that it leaves by.
    pub egress: Option<String>,
    /// Forwarded: that port's zone.
    pub to: Option<String>,
    /// Dropped: the counter's word.
    pub reason: Option<String>,
    /// More about it: which length of a malformed frame, ...
    pub detail: Option<String>,
    /// By what it was judged: `layer2`, `session`, `new_session`, `rule`, `implicit_drop` or `none`.
    pub by: Word,
    /// The rule that decided, or that the session stands under.
    pub rule: Option<String>,
    /// The session as it is after the packet.
    pub session: Option<SessionInfo>,
    /// Packets that the node makes in answer, in words.
    pub answers: Vec<String>,
}
