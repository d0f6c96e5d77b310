//! What is read of a node as a whole: status, ports, workers, rules, counters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::policy::Methods;

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
    /// Sessions of `max_sessions` that are leased to workers and not used: of several workers one may refuse a session early by
    /// at most what the others have of these. 0 with one worker, which never refuses early.
    #[serde(default)]
    pub unused_leases: u64,
    /// What part of their length timeouts have: 1, and less with more than `adaptive_start` of the table in use. Of several
    /// workers, the least.
    #[serde(default = "whole")]
    pub timeout_scale: f64,
    /// Sessions that gave way to others because the table was full.
    #[serde(default)]
    pub sessions_evicted: u64,
    /// TCP sessions whose handshake is not complete.
    #[serde(default)]
    pub half_open: u64,
    /// Sessions by state, one entry for every state, zeros too; they add up to `sessions`.
    #[serde(default)]
    pub sessions_by_state: BTreeMap<String, u64>,
    /// Rules with `syn_protection = "auto"` answer SYNs by cookies now.
    #[serde(default)]
    pub syn_cookies_engaged: bool,
    /// Enabled rules.
    pub rules: usize,
    /// How the first rule that matches is found.
    #[serde(default)]
    pub classifier: Methods,
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

/// Of a node whose timeouts never shrink.
const fn whole() -> f64 {
    1.0
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
    /// Packets that it made itself (RST, ICMP unreachable, segments of proxied handshakes).
    pub originated: u64,
    /// Sessions that it owns.
    pub sessions: u64,
    /// Sessions that it may own now: its lease of `[conntrack] max_sessions`. Leases move between workers as they are needed.
    #[serde(default)]
    pub max_sessions: u64,
    /// Share of the last second's cycles spent on packets: 0 to 1.
    pub busy: f64,
    /// Busy cycles for each packet in the last second; 0 when there was none.
    pub cycles_per_packet: f64,
    /// Packets handed to their owners on other workers.
    pub handed_over: u64,
    /// Packets that other workers handed to it: its own to judge, or to send through its transmit queue.
    #[serde(default)]
    pub taken_over: u64,
    /// Packets handed to other workers to be sent: their port has fewer transmit queues than there are workers.
    #[serde(default)]
    pub relayed: u64,
    /// It has not answered in time: the other numbers are old.
    #[serde(default)]
    pub stalled: bool,
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
    /// It is in no configuration any more, but holds sessions open that it allowed: until they end, or until their next
    /// packet finds another rule.
    #[serde(default)]
    pub removed: bool,
    /// Zones, as configured; none of a rule that was removed.
    pub from: Vec<String>,
    /// Zones, as configured.
    pub to: Vec<String>,
    /// `[[rule]] description`.
    pub description: Option<String>,
    /// Sessions that it holds open now.
    pub sessions: u64,
    /// Sessions that its limits (`max_sessions`, `max_sessions_per_source`, `new_sessions_per_source`) refused.
    #[serde(default)]
    pub limited: u64,
    /// Of its `max_sessions`, what is leased to workers and not used: of several workers one may refuse a session early by at most
    /// what the others have of these. 0 with one worker, and without a limit.
    #[serde(default)]
    pub unused_leases: u64,
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
    /// Packets made here (RST, ICMP unreachable, segments of proxied handshakes).
    pub originated: u64,
    /// Answers to refused packets that `reject_rate` or a lack of buffers kept from being made.
    pub rejects_suppressed: u64,
    /// RSTs to the ends of sessions that idled out (`reset_on_timeout`); in `originated`, too.
    pub timeout_resets: u64,
    /// Ends of such sessions that got none, because nothing was known that they would accept, or for a lack of buffers.
    pub timeout_resets_missed: u64,
    /// Records of sessions and alerts in the files of `[log]`.
    pub log_records_written: u64,
    /// Records that found no room on their way there, or no room on the disk.
    pub log_records_lost: u64,
    /// IP fragments that came in, but for malformed ones.
    pub fragments: u64,
    /// Datagrams whose fragments were all there, so that they were judged.
    pub fragments_reassembled: u64,
    /// Fragments that wait for the others of their datagrams now; part of `held`.
    pub fragments_held: u64,
    /// SYNs answered by a cookie (`syn_protection`).
    #[serde(default)]
    pub syn_cookies_sent: u64,
    /// Cookies that came back, and were good; those that were not are `drops.syn_cookie_invalid`.
    #[serde(default)]
    pub syn_cookies_accepted: u64,
    /// SYNs to servers that were not sent again although nothing answered: too many waited, or a lack of buffers.
    #[serde(default)]
    pub syn_retries_lost: u64,
    /// Packets that are in the node now (queues, reassembly).
    pub held: u64,
    /// Sessions made.
    pub sessions_created: u64,
    /// Sessions ended, for whatever reason.
    pub sessions_ended: u64,
    /// Of those, the ones that gave way to others because the table was full.
    #[serde(default)]
    pub sessions_evicted: u64,
    /// New sessions refused (`session_limit`) because there was no place left to count their source.
    #[serde(default)]
    pub sources_full: u64,
    /// Packets handed from worker to worker, to their owners.
    #[serde(default)]
    pub handed_over: u64,
    /// Sessions that went from worker to worker with their buckets.
    #[serde(default)]
    pub sessions_moved: u64,
    /// Sessions of the other node of an HA pair that were taken in.
    #[serde(default)]
    pub sessions_synced_in: u64,
    /// Of those, the ones that the other node said have ended.
    #[serde(default)]
    pub sessions_synced_out: u64,
    /// News of the other node's sessions for which there was no room.
    #[serde(default)]
    pub sync_refused: u64,
    /// Packets that the other node of an HA pair judges: they have no session here, or one of that node's.
    #[serde(default)]
    pub redirected_out: u64,
    /// Packets that the other node gave to be judged here.
    #[serde(default)]
    pub redirected_in: u64,
    /// Of those, what went back: packets that pass, and answers to them.
    #[serde(default)]
    pub given_back: u64,
    /// What came back from the other node, judged, to leave here.
    #[serde(default)]
    pub returned: u64,
    /// First packets that were held until the other node knows their session (`defer`).
    #[serde(default)]
    pub deferred: u64,
    /// First packets of rules with `defer` that did not wait for that, or in vain.
    #[serde(default)]
    pub deferred_late: u64,
    /// Sessions that are on another worker than their flow's owner, whose table was full.
    #[serde(default)]
    pub redirects: u64,
    /// Messages between workers about flows that are elsewhere for which there was no room.
    #[serde(default)]
    pub redirects_full: u64,
    /// Packets dropped, one entry for every reason, zeros too; the words are those of `engine::DropReason`.
    pub drops: BTreeMap<String, u64>,
    /// Malformed packets by what is wrong with them, one entry for every kind, zeros too; the words are those of
    /// `packet::Malformed`. They add up to `drops.malformed`.
    pub malformed: BTreeMap<String, u64>,
}
