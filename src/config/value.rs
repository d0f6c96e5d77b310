//! The validated configuration: a plain value in the shape of the file, defaults filled in. The JSON Schema for editors
//! is generated from these types, so their documentation is what an editor shows.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::ha::Ha;
use super::listen::ListenAddress;
use super::net::{AddressRef, CpuList, Device, PortRange, ServiceRef};
use super::units::{Rate, TimeSpan};
use crate::policy::{Action, PassOrDrop, RuleLog, SessionScope, Share, SynProtection, VlanMode};

/// One node of haechi.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "haechi configuration", transform = super::schema::add_loader_keys)]
pub struct Config {
    /// The grammar's version: 1.
    #[schemars(schema_with = "super::schema::version")]
    pub version: u32,
    /// The node itself: mode, workers, memory.
    pub node: Node,
    /// The ports, two for each pair. Included files come first; an apply can neither add nor reorder ports.
    #[serde(rename = "port")]
    pub ports: Vec<Port>,
    /// Transparent mode (bump in the wire).
    #[schemars(default)]
    pub transparent: Transparent,
    /// Zones that need more than their name; every `zone` of a port exists without an entry here.
    #[serde(rename = "zone")]
    #[schemars(default)]
    pub zones: Vec<Zone>,
    /// Named lists of addresses and prefixes; `"@name"` refers to one.
    #[schemars(default, with = "BTreeMap<String, super::schema::NonEmpty<AddressRef>>")]
    pub address_sets: BTreeMap<String, Vec<AddressRef>>,
    /// Named lists of services; `"@name"` refers to one.
    #[schemars(default, with = "BTreeMap<String, super::schema::NonEmpty<ServiceRef>>")]
    pub service_sets: BTreeMap<String, Vec<ServiceRef>>,
    /// Stateful rules: for a new session the first that matches decides; none: drop.
    #[serde(rename = "rule")]
    #[schemars(default)]
    pub rules: Vec<Rule>,
    /// What holds for all rules.
    #[schemars(default)]
    pub policy: PolicySection,
    /// Connection tracking.
    #[schemars(default)]
    pub conntrack: Conntrack,
    /// Where sessions and alerts are written down.
    #[schemars(default)]
    pub log: Log,
    /// The other node of the pair; without it the node is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ha: Option<Ha>,
    /// Where Prometheus reads what the node counts.
    #[schemars(default)]
    pub metrics: Metrics,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = super::schema::may_be_partial)]
pub struct Node {
    /// The node's name in output and logs.
    #[schemars(default = "super::defaults::name")]
    pub name: String,
    /// How packets cross: "transparent" is a bump in the wire (layer 2).
    pub mode: Mode,
    /// CPUs of the poll-mode workers, one each.
    #[schemars(default = "super::defaults::workers")]
    pub workers: CpuList,
    /// "adaptive" backs off when idle; "poll" never sleeps.
    #[schemars(default)]
    pub idle: Idle,
    /// "auto": flows, with their sessions, go from a busy worker to an idle one while the node runs.
    #[schemars(default)]
    pub rebalance: Rebalance,
    /// false: ordinary memory, for a laptop or a CI machine.
    #[schemars(default = "super::defaults::yes")]
    pub hugepages: bool,
    /// Memory that the node takes at start, in MiB.
    #[schemars(default = "super::defaults::memory_mib", range(min = 64, max = 1_048_576))]
    pub memory_mib: u32,
    /// Packet buffers (mbufs) in each port-facing pool.
    #[schemars(
        default = "super::defaults::packet_buffers",
        range(min = 512, max = 16_777_215)
    )]
    pub packet_buffers: u32,
    /// Packets taken from a receive queue in one turn.
    #[schemars(default = "super::defaults::burst", range(min = 1, max = 64))]
    pub burst: u16,
    /// Packets that one worker may be behind with what another one hands it; what finds the queue full is dropped (`queue_full`).
    #[schemars(default = "super::defaults::handover_queue", range(min = 1, max = 65_536))]
    pub handover_queue: u32,
    /// Arguments handed to the DPDK EAL as they are.
    #[schemars(default)]
    pub eal_args: Vec<String>,
    /// The Unix socket of the control API; a relative path is relative to the file that it stands in.
    #[schemars(default = "super::defaults::control_socket")]
    pub control_socket: PathBuf,
}

/// How packets cross the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Frames of a pair of ports cross or drop, unchanged.
    Transparent,
}

/// What workers do when no packets come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// Back off, and wake in time for a full receive ring.
    #[default]
    Adaptive,
    /// Never sleep.
    Poll,
}

/// Whether buckets of flows move between workers by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rebalance {
    /// When `haechi workers rebalance` asks for it.
    #[default]
    Off,
    /// When one worker has been much busier than another for some seconds.
    Auto,
}

/// `[[port]]`
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The port's name, unique.
    pub name: String,
    /// A PCI address ("0000:3b:00.0") or "vdev:" and a DPDK virtual device; here or by the port's name in `[devices]`.
    #[schemars(with = "Option<Device>")]
    pub device: Device,
    /// The zone behind the port; several ports may share one.
    pub zone: String,
    /// The port that frames cross to; it names this one as its peer.
    pub peer: String,
    /// Of the IP packet, in bytes; room for two VLAN tags more is always made.
    #[schemars(default = "super::defaults::mtu", range(min = 576, max = 9000))]
    pub mtu: u16,
    /// Receive queues: "auto" is one a worker where the device can, else fewer.
    #[schemars(default)]
    pub rx_queues: RxQueues,
    /// Receive descriptors of each queue.
    #[schemars(default = "super::defaults::descriptors", range(min = 32, max = 32_768))]
    pub rx_descriptors: u16,
    /// Transmit descriptors of each queue.
    #[schemars(default = "super::defaults::descriptors", range(min = 32, max = 32_768))]
    pub tx_descriptors: u16,
}

/// How many receive queues a port has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RxQueues {
    /// One for each worker where the device can, else fewer.
    #[default]
    Auto,
    /// So many, at most one for each worker.
    Count(u16),
}

/// `[transparent]`
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Transparent {
    /// Frames other than IP and ARP (spanning tree, LACP, LLDP, ...).
    pub non_ip: PassOrDrop,
    /// VLAN-tagged frames: "inspect" applies the same rules inside up to two tags.
    pub vlan: VlanMode,
    /// When one port of a pair loses its link, or the node stops, the other is set down too.
    pub link_propagation: bool,
    /// What tells equal five-tuples apart.
    pub session_scope: SessionScope,
}

impl Default for Transparent {
    fn default() -> Self {
        Self {
            non_ip: PassOrDrop::Drop,
            vlan: VlanMode::Inspect,
            link_propagation: true,
            session_scope: SessionScope::PairVlan,
        }
    }
}

/// `[[zone]]`
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// The zone's name.
    pub name: String,
    /// What belongs behind it: prefixes, single addresses, "@set". Of nested prefixes the most specific counts.
    #[schemars(default)]
    pub networks: Vec<AddressRef>,
    /// true: a source that belongs behind another zone, or that is in none of this zone's networks, is dropped. A zone
    /// without networks drops the first kind alone. Link-local sources need not be listed.
    #[schemars(default)]
    pub antispoof: bool,
    /// Share of the session table that sessions opened from other zones cannot take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Share>,
}

/// What a rule asks of one property of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Matcher<T> {
    /// Nothing.
    #[default]
    Any,
    /// It is one of these; never empty.
    OneOf(Vec<T>),
}

impl<T> Matcher<T> {
    /// The members; none for [`Matcher::Any`].
    #[must_use]
    pub fn members(&self) -> &[T] {
        match self {
            Self::Any => &[],
            Self::OneOf(members) => members,
        }
    }
}

/// `[[rule]]`
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The rule's name, unique; counters and sessions follow the name over an apply.
    pub name: String,
    /// Zones that the session is opened from.
    #[schemars(default)]
    pub from: Matcher<String>,
    /// Zones that it is opened to.
    #[schemars(default)]
    pub to: Matcher<String>,
    /// Source addresses: prefixes, single addresses, "@set".
    #[schemars(default)]
    pub source: Matcher<AddressRef>,
    /// Destination addresses: prefixes, single addresses, "@set".
    #[schemars(default)]
    pub destination: Matcher<AddressRef>,
    /// Services: "tcp", "tcp/80", "tcp/1000-2000", "udp/53", "icmp", "icmp/echo-request", "icmpv6/128", "proto/47", "@set".
    #[schemars(default)]
    pub service: Matcher<ServiceRef>,
    /// Source ports of TCP and UDP: "1024-65535".
    #[schemars(default)]
    pub source_ports: Matcher<PortRange>,
    /// "allow", "drop", or "reject" (TCP RST, ICMP unreachable).
    pub action: Action,
    /// What is written to the logs of `[log]`: of an allow rule its sessions' "start", "end" or "both", of a drop or reject
    /// rule an "alert" for what it drops, within `[policy] alert_rate`.
    #[schemars(default)]
    pub log: RuleLog,
    /// Timeouts of this rule's sessions, where they differ from `[conntrack.timeouts]`.
    #[schemars(default)]
    pub timeouts: TimeoutOverrides,
    /// A TCP packet in mid-stream may open a session of this rule; default: as `[conntrack] pickup` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pickup: Option<bool>,
    /// A TCP session of this rule that idles out is reset at both ends; default: as `[conntrack] reset_on_timeout` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_on_timeout: Option<bool>,
    /// false: no window checks for TCP sessions of this rule; default: as `[conntrack] tcp_strict` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_strict: Option<bool>,
    /// Sessions of this rule; more are refused (`session_limit`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 268_435_456))]
    pub max_sessions: Option<u32>,
    /// Sessions of this rule that one source address opened; more are refused (`session_limit`). IPv6 addresses count one
    /// by one, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 268_435_456))]
    pub max_sessions_per_source: Option<u32>,
    /// New sessions of this rule that one source address may open in a second, all of them at once if it opened none in the
    /// second before; more are refused (`rate_limit`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_sessions_per_source: Option<Rate>,
    /// SYN cookies for TCP sessions of this rule: "off", "auto" (while half-open sessions pile up) or "always".
    #[schemars(default)]
    pub syn_protection: SynProtection,
    /// What SYN cookies announce for a destination of which nothing is known yet.
    #[schemars(default)]
    pub syn_options: SynOptions,
    /// In an HA pair: the first packet of each session waits until the peer has the session, `[ha] defer_timeout` at most.
    #[schemars(default)]
    pub defer: bool,
    /// false: as if the rule were not there.
    #[schemars(default = "super::defaults::yes")]
    pub enabled: bool,
    /// Free text, shown by `show rules`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A rule's `syn_options`: TCP options that a SYN cookie announces for a server that has not been seen to answer yet.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SynOptions {
    /// Maximum segment size in bytes; default: what the smallest MTU of the node's ports leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 216, max = 8960))]
    pub mss: Option<u16>,
    /// Window scale.
    #[schemars(range(min = 0, max = 14))]
    pub window_scale: u8,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Time stamps.
    pub timestamps: bool,
}

impl Default for SynOptions {
    fn default() -> Self {
        Self {
            mss: None,
            window_scale: 7,
            sack: true,
            timestamps: true,
        }
    }
}

/// `[policy]`
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySection {
    /// RSTs and ICMP errors that haechi makes itself.
    pub reject_rate: Rate,
    /// Alert records of each rule, with bursts of a second's worth; what is left out is counted in the next one. At "0/s" one
    /// record a second says how many there would have been.
    pub alert_rate: Rate,
}

impl Default for PolicySection {
    fn default() -> Self {
        Self {
            reject_rate: Rate(1000),
            alert_rate: Rate(10),
        }
    }
}

/// `[conntrack]`
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Conntrack {
    /// Sessions of the node.
    #[schemars(range(min = 64, max = 268_435_456))]
    pub max_sessions: u32,
    /// Verify TCP, UDP, ICMP and ICMPv6 checksums (the IPv4 header's is always verified).
    pub verify_checksums: bool,
    /// With a larger share of the table in use all timeouts shrink, in a line ...
    pub adaptive_start: Share,
    /// ... to nothing at this share, which may be more than the whole table.
    pub adaptive_end: Share,
    /// false: TCP segments are not refused for their sequence and acknowledgement numbers.
    pub tcp_strict: bool,
    /// A TCP packet in mid-stream may open a session.
    pub pickup: bool,
    /// A TCP session that idles out is reset at both ends.
    pub reset_on_timeout: bool,
    /// Half-open share of the session table from which rules with `syn_protection = "auto"` answer SYNs by cookies.
    pub syn_cookie_start: Share,
    /// Half-open share of the session table below which they no longer do.
    pub syn_cookie_stop: Share,
    /// Idle timeouts by session state.
    pub timeouts: Timeouts,
    /// IP fragments, which wait for the others of their datagram.
    pub fragments: FragmentsSection,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self {
            max_sessions: 1_000_000,
            verify_checksums: true,
            adaptive_start: Share(6_000),
            adaptive_end: Share(12_000),
            tcp_strict: true,
            pickup: false,
            reset_on_timeout: false,
            syn_cookie_start: Share(2_500),
            syn_cookie_stop: Share(1_500),
            timeouts: Timeouts::default(),
            fragments: FragmentsSection::default(),
        }
    }
}

/// `[conntrack.fragments]`
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FragmentsSection {
    /// Incomplete datagrams that are held at once.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_datagrams: u32,
    /// How long a datagram has to become complete, from its first fragment on.
    pub timeout: TimeSpan,
}

impl Default for FragmentsSection {
    fn default() -> Self {
        Self {
            max_datagrams: 4096,
            timeout: TimeSpan::from_secs(15),
        }
    }
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The file for sessions of rules with `log = "start"`, "end" or "both", one JSON object a line. A relative path is
    /// relative to the file that it stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<PathBuf>,
    /// The file for what rules with `log = "alert"` drop, one JSON object a line; another one than that for sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerts: Option<PathBuf>,
}

/// `[metrics]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// The address and the TCP port of `/metrics`, for Prometheus; without it nobody listens. Whoever reaches it can read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<ListenAddress>,
}

/// The timeouts' one list: the section with its defaults, a rule's overrides, and the walk over both.
macro_rules! timeouts {
    ($($(#[doc = $doc:literal])* $name:ident = $secs:expr;)*) => {
        /// `[conntrack.timeouts]`
        #[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct Timeouts {
            $($(#[doc = $doc])* pub $name: TimeSpan,)*
        }

        impl Default for Timeouts {
            fn default() -> Self {
                Self { $($name: TimeSpan::from_secs($secs),)* }
            }
        }

        impl Timeouts {
            /// The names of the keys.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($name),)*];

            /// These with a rule's own in their place.
            #[must_use]
            pub fn with(&self, overrides: &TimeoutOverrides) -> Self {
                Self { $($name: overrides.$name.unwrap_or(self.$name),)* }
            }

            /// As the policy has them.
            #[must_use]
            pub fn to_policy(&self) -> crate::policy::Timeouts {
                crate::policy::Timeouts { $($name: self.$name.0,)* }
            }

            pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut TimeSpan> {
                match key { $(stringify!($name) => Some(&mut self.$name),)* _ => None }
            }
        }

        /// A rule's `timeouts`.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct TimeoutOverrides {
            $($(#[doc = $doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<TimeSpan>,)*
        }

        impl TimeoutOverrides {
            pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Option<TimeSpan>> {
                match key { $(stringify!($name) => Some(&mut self.$name),)* _ => None }
            }
        }
    };
}

timeouts! {
    /// TCP, SYN seen.
    tcp_syn_sent = 30;
    /// TCP, SYN and SYN+ACK seen.
    tcp_syn_received = 30;
    /// TCP, handshake complete.
    tcp_established = 2 * 3600 + 4 * 60;
    /// TCP, a FIN seen.
    tcp_closing = 4 * 60;
    /// TCP, both FINs acknowledged.
    tcp_time_wait = 45;
    /// TCP, reset.
    tcp_closed = 10;
    /// UDP, one way so far.
    udp_new = 30;
    /// UDP, both ways.
    udp_replied = 5 * 60;
    /// ICMP and ICMPv6.
    icmp = 30;
    /// Every other protocol.
    other = 10 * 60;
}
