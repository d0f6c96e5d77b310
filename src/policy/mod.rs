//! The compiled policy: immutable, built off the workers, swapped at a burst boundary.

pub mod antispoof;
pub mod classify;
pub mod expand;
pub mod linear;
pub mod pressure;
mod ranges;
pub mod spec;

pub use antispoof::{AntiSpoof, Spoof};
pub use classify::{Classifier, ClassifyKey, MakeClassifier, Method, Methods, RuleMatch};
pub use linear::LinearClassifier;
pub use pressure::{Adaptive, Limits, Reserve, Reserves, Scale, Share};
pub use spec::{IcmpSpec, NormalRule, RuleSpec, ServiceSpec};

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::base::{Generation, Nanos, PairId, PortId, RuleId, ZoneId};
use crate::flow::{Direction, KeyClass, Session, StateTimeouts, TimeoutClass};

/// Everything that decides a packet's fate, compiled from one configuration.
pub struct Policy {
    /// This policy's number; sessions remember the one that they were last classified under.
    pub generation: Generation,
    /// By [`PortId`].
    pub ports: Vec<PortPolicy>,
    /// By [`ZoneId`].
    pub zones: Vec<String>,
    /// Enabled rules in order: what [`RuleMatch`] indexes.
    pub rules: Vec<Rule>,
    /// By [`RuleId`]: the rule's place in `rules`, or [`Policy::NO_PLACE`] for one that is not in this policy.
    pub rule_places: Vec<u32>,
    /// By what stands for a rule's name on both nodes of an HA pair ([`crate::flow::Image::rule_of`]): its place in `rules`.
    pub rule_names: HashMap<u64, u32>,
    /// Finds the first matching rule.
    pub classifier: Box<dyn Classifier>,
    /// Layer-2 behaviour.
    pub transparent: Transparent,
    /// Session timeouts where the rule has none of its own.
    pub timeouts: Timeouts,
    /// The same in the table's ticks.
    pub state_timeouts: StateTimeouts,
    /// Verify TCP, UDP, ICMP and ICMPv6 checksums (the IPv4 header's is always verified).
    pub verify_checksums: bool,
    /// RSTs and ICMP errors that each worker makes itself, a second.
    pub reject_rate: u32,
    /// Alert records of each rule, a second, of each worker.
    pub alert_rate: u32,
    /// Fragments on hold.
    pub fragments: FragmentLimits,
    /// `[conntrack] max_sessions`: of all workers.
    pub max_sessions: u32,
    /// When timeouts shrink.
    pub adaptive: Adaptive,
    /// What is kept for zones.
    pub reserves: Reserves,
    /// Which sources a zone's packets may have.
    pub antispoof: AntiSpoof,
    /// When [`SynProtection::Auto`] answers by cookies.
    pub syn_cookies: SynCookies,
}

impl Policy {
    /// In `rule_places`: the rule is not in this policy.
    pub const NO_PLACE: u32 = u32::MAX;

    /// The rule with this id; `None`: it is not in this policy (any more).
    #[inline]
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        let place = *self.rule_places.get(id.index())?;
        self.rules.get(place as usize)
    }

    /// The rule with this name, by what stands for that ([`Rule::name_hash`]).
    #[must_use]
    pub fn rule_named(&self, name: u64) -> Option<&Rule> {
        self.rules.get(*self.rule_names.get(&name)? as usize)
    }

    /// The timeouts of sessions of this rule; of a rule that is gone, the general ones.
    #[inline]
    #[must_use]
    pub fn state_timeouts(&self, id: RuleId) -> &StateTimeouts {
        self.rule(id)
            .map_or(&self.state_timeouts, |rule| &rule.state_timeouts)
    }

    /// What the rules are asked about a session that another policy let in: its opening packet's question.
    #[must_use]
    pub fn question(&self, session: &Session) -> ClassifyKey {
        let key = &session.key;
        let (source, source_port, destination, destination_port) = match session.opener {
            Direction::LowToHigh => (key.low, key.low_port, key.high, key.high_port),
            Direction::HighToLow => (key.high, key.high_port, key.low, key.low_port),
        };
        let ports = key.class == KeyClass::Ports;
        let zone = |port: PortId| self.ports.get(port.index()).map_or(ZoneId(u16::MAX), |p| p.zone);
        ClassifyKey {
            source,
            destination,
            source_port: if ports { source_port } else { 0 },
            destination_port: if ports { destination_port } else { 0 },
            from: zone(session.ingress),
            to: zone(session.egress),
            protocol: key.protocol,
            icmp_type: session.icmp_type,
            icmp_code: session.icmp_code,
        }
    }
}

/// What fragments on hold may take (`[conntrack.fragments]`). The numbers are those of each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentLimits {
    /// Incomplete datagrams at once.
    pub max_datagrams: u32,
    /// Fragments of all of them together: buffers that ports do not have meanwhile.
    pub max_held: u32,
    /// How long a datagram has to become complete.
    pub timeout: Nanos,
}

/// What the engine has to know of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPolicy {
    /// The zone behind it.
    pub zone: ZoneId,
    /// The port that its frames cross to.
    pub peer: PortId,
    /// The pair that both belong to.
    pub pair: PairId,
}

/// What to do with frames that rules cannot look into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PassOrDrop {
    /// They cross.
    Pass,
    /// They are dropped.
    Drop,
}

/// What to do with VLAN-tagged frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VlanMode {
    /// The rules look inside up to two tags.
    Inspect,
    /// All tagged frames are dropped.
    Drop,
    /// All tagged frames cross unseen.
    Pass,
}

/// What tells equal five-tuples apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SessionScope {
    /// Port pair and VLAN tags.
    PairVlan,
    /// Port pair.
    Pair,
    /// Nothing: one session on the whole node.
    Node,
}

/// The `[transparent]` section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transparent {
    /// Frames other than IP and ARP.
    pub non_ip: PassOrDrop,
    /// Tagged frames.
    pub vlan: VlanMode,
    /// The session key's domain.
    pub session_scope: SessionScope,
}

impl Transparent {
    /// The domain (invariant 11) of a frame of a pair with these VLAN identifiers (see `PacketMeta::vlan`).
    #[inline]
    #[must_use]
    pub const fn domain(&self, pair: PairId, vlan: u32) -> u32 {
        match self.session_scope {
            SessionScope::PairVlan => ((pair.0 as u32) << 24) | vlan,
            SessionScope::Pair => (pair.0 as u32) << 24,
            SessionScope::Node => 0,
        }
    }
}

/// What a matching rule does with a new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It passes and a session is made.
    Allow,
    /// It is dropped.
    Drop,
    /// It is dropped and answered (TCP RST, ICMP unreachable).
    Reject,
}

/// What of a rule is written to the logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuleLog {
    /// Nothing.
    #[default]
    None,
    /// That a session begins.
    Start,
    /// That it ended, why, and what it carried.
    End,
    /// Both.
    Both,
    /// Packets that a drop or reject rule dropped, within `alert_rate`.
    Alert,
}

impl RuleLog {
    /// All of them by their words.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("none", Self::None),
        ("start", Self::Start),
        ("end", Self::End),
        ("both", Self::Both),
        ("alert", Self::Alert),
    ];

    /// Is a session's beginning written down?
    #[inline]
    #[must_use]
    pub const fn start(self) -> bool {
        matches!(self, Self::Start | Self::Both)
    }

    /// Is its end?
    #[inline]
    #[must_use]
    pub const fn end(self) -> bool {
        matches!(self, Self::End | Self::Both)
    }
}

/// Who answers the SYNs that a rule allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SynProtection {
    /// Their destination.
    #[default]
    Off,
    /// haechi, by SYN cookies, while half-open sessions pile up; else their destination.
    Auto,
    /// haechi, by SYN cookies.
    Always,
}

/// What a SYN cookie announces for a destination of which nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynOptions {
    /// Maximum segment size over IPv4, in bytes; over IPv6 it is 20 less, as the header is longer.
    pub mss: u16,
    /// Window scale, 0 to 14.
    pub window_scale: u8,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Time stamps.
    pub timestamps: bool,
}

/// Shares of the session table that half-open sessions take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynCookies {
    /// From here on [`SynProtection::Auto`] answers by cookies.
    pub start: Share,
    /// Below it no longer does.
    pub stop: Share,
}

/// A rule as the workers need it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Stable by name over generations.
    pub id: RuleId,
    /// The name in the configuration.
    pub name: String,
    /// What stands for the name on both nodes of an HA pair ([`crate::flow::Image::rule_of`]).
    pub name_hash: u64,
    /// What it does.
    pub action: Action,
    /// What is written to the logs.
    pub log: RuleLog,
    /// Segments of its TCP sessions are refused for their sequence and acknowledgement numbers.
    pub tcp_strict: bool,
    /// A TCP packet in mid-stream may open a session of it.
    pub pickup: bool,
    /// Both ends of its TCP sessions are reset when they idle out.
    pub reset_on_timeout: bool,
    /// The first packet of each of its sessions waits until the other node of an HA pair knows the session. (Of one that begins with a SYN
    /// cookie none waits: nothing is lost that its client cannot ask for again.)
    pub defer: bool,
    /// How many sessions it may have.
    pub limits: Limits,
    /// Who answers its SYNs.
    pub syn_protection: SynProtection,
    /// What SYN cookies announce where nothing better is known.
    pub syn_options: SynOptions,
    /// The rule's own timeouts, complete: the defaults with the rule's overrides.
    pub timeouts: Option<Box<Timeouts>>,
    /// The timeouts that count for its sessions, its own or the general ones, in the table's ticks.
    pub state_timeouts: StateTimeouts,
    /// The `description` key, for `show rules`.
    pub description: Option<String>,
}

/// Idle timeouts by session state (`[conntrack.timeouts]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// SYN seen.
    pub tcp_syn_sent: Nanos,
    /// SYN and SYN+ACK seen (or SYNs both ways).
    pub tcp_syn_received: Nanos,
    /// Handshake complete.
    pub tcp_established: Nanos,
    /// A FIN seen, one way or both, not yet all acknowledged.
    pub tcp_closing: Nanos,
    /// Both FINs acknowledged.
    pub tcp_time_wait: Nanos,
    /// Reset.
    pub tcp_closed: Nanos,
    /// UDP, one way so far.
    pub udp_new: Nanos,
    /// UDP, both ways.
    pub udp_replied: Nanos,
    /// ICMP and ICMPv6.
    pub icmp: Nanos,
    /// Every other protocol.
    pub other: Nanos,
}

impl Timeouts {
    /// In the table's ticks, by state.
    #[must_use]
    pub fn by_state(&self) -> StateTimeouts {
        StateTimeouts::from_fn(|class| match class {
            TimeoutClass::TcpSynSent => self.tcp_syn_sent,
            TimeoutClass::TcpSynReceived => self.tcp_syn_received,
            TimeoutClass::TcpEstablished => self.tcp_established,
            TimeoutClass::TcpClosing => self.tcp_closing,
            TimeoutClass::TcpTimeWait => self.tcp_time_wait,
            TimeoutClass::TcpClosed => self.tcp_closed,
            TimeoutClass::UdpNew => self.udp_new,
            TimeoutClass::UdpReplied => self.udp_replied,
            TimeoutClass::Icmp => self.icmp,
            TimeoutClass::Other => self.other,
        })
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_syn_sent: Nanos::from_secs(30),
            tcp_syn_received: Nanos::from_secs(30),
            tcp_established: Nanos::from_secs(2 * 3600 + 4 * 60),
            tcp_closing: Nanos::from_secs(4 * 60),
            tcp_time_wait: Nanos::from_secs(45),
            tcp_closed: Nanos::from_secs(10),
            udp_new: Nanos::from_secs(30),
            udp_replied: Nanos::from_secs(5 * 60),
            icmp: Nanos::from_secs(30),
            other: Nanos::from_secs(10 * 60),
        }
    }
}
