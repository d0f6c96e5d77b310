//! The HA pair: what a node says of it, and what it is asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ErrorKind, NodeError};
use crate::ha::Role;

/// `GET /v1/ha`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HaStatus {
    /// `healthy`, or `degraded: ` and the first of `reasons`.
    pub health: String,
    /// Why the pair could not take the loss of a node now, the worst first; none: it could.
    pub reasons: Vec<String>,
    /// `[ha] mode`.
    pub mode: String,
    /// `[ha] node_id`.
    pub node_id: u8,
    /// What this node is.
    pub role: HaRole,
    /// For how long.
    pub role_s: f64,
    /// Since the start, how often it became the leader.
    #[serde(default)]
    pub takeovers: u64,
    /// `[ha] priority` in force.
    pub priority: u8,
    /// It could lead: workers turn, tracked ports have a link, it is not stopping.
    pub able: bool,
    /// What keepalived or an operator asked for last (`haechi ha notify`); absent: nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<HaWish>,
    /// The other node.
    pub peer: HaPeer,
    /// Who is asked when the peer is not heard; absent: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<HaWitness>,
    /// Rules, zones, timeouts, limits: what `haechi ha check` compares.
    pub policy: HaDigest,
    /// Mode, ports, pairs, session scope: nodes that differ in these do not synchronise.
    pub layout: HaDigest,
    /// The session tables.
    pub sync: HaSync,
    /// Packets that cross between the nodes; absent: of an active-standby pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<HaRedirect>,
    /// First packets that were held until the peer knew their session (`defer`),
    #[serde(default)]
    pub deferred: u64,
    /// and those that did not wait for that, or in vain.
    #[serde(default)]
    pub deferred_late: u64,
    /// Datagrams that were refused, by what was wrong with them.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
}

impl HaStatus {
    /// The same with its health, which follows from the reasons.
    #[must_use]
    pub fn with_reasons(mut self, reasons: Vec<String>) -> Self {
        self.health = match reasons.first() {
            None => "healthy".to_owned(),
            Some(reason) => format!("degraded: {reason}"),
        };
        self.reasons = reasons;
        self
    }

    /// Could the pair take the loss of a node now?
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// What a node is in its pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HaRole {
    /// It has just started and does not know of its peer yet. It forwards nothing.
    #[default]
    Waiting,
    /// The peer leads. It forwards nothing.
    Standby,
    /// It forwards.
    Leader,
    /// It led, and hears neither its peer nor the witness. It forwards nothing.
    Isolated,
    /// Active-active: it forwards, and so may its peer.
    Active,
}

impl HaRole {
    /// Does a node of this role forward packets?
    #[must_use]
    pub const fn forwards(self) -> bool {
        matches!(self, Self::Leader | Self::Active)
    }

    /// The word in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Standby => "standby",
            Self::Leader => "leader",
            Self::Isolated => "isolated",
            Self::Active => "active",
        }
    }
}

impl From<Role> for HaRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Waiting => Self::Waiting,
            Role::Standby => Self::Standby,
            Role::Leader => Self::Leader,
            Role::Isolated => Self::Isolated,
            Role::Active => Self::Active,
        }
    }
}

/// The other node, as this one knows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HaPeer {
    /// Its `[ha] node_id`.
    pub node_id: u8,
    /// Is it heard by any path?
    pub alive: bool,
    /// What it says that it is; `null`: it was never heard.
    pub role: Option<HaRole>,
    /// Its `[ha] priority`.
    pub priority: Option<u8>,
    /// Could it lead?
    pub able: Option<bool>,
    /// The version of the protocol that it speaks.
    pub version: Option<u16>,
    /// The ways to it, in the order of the configuration.
    pub paths: Vec<HaPath>,
}

/// A way to the peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HaPath {
    /// `link`, `second_link`, or `port ` and a port's name.
    pub name: String,
    /// Since its last heartbeat; `null`: there was none.
    pub heard_ms: Option<f64>,
    /// A heartbeat's way there and back; `null`: not known yet.
    pub rtt_us: Option<f64>,
}

/// The witness.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HaWitness {
    /// `[ha] witness`.
    pub address: String,
    /// Did it answer when it was asked last? `null`: it was not asked yet.
    pub answers: Option<bool>,
    /// Since its last answer.
    pub heard_ms: Option<f64>,
}

/// What both nodes should have alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaDigest {
    /// Of this node's configuration, 16 hexadecimal digits.
    pub own: String,
    /// Of the peer's; `null`: it was never heard.
    pub peer: Option<String>,
    /// Are they? `null`: not known yet.
    pub equal: Option<bool>,
}

impl HaDigest {
    /// Of this node's digest and what the peer says of its own.
    #[must_use]
    pub fn new(own: u64, peer: Option<u64>) -> Self {
        let digits = |digest: u64| format!("{digest:016x}");
        Self {
            own: digits(own),
            peer: peer.map(digits),
            equal: peer.map(|peer| peer == own),
        }
    }
}

/// Where the two session tables stand to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// The peer is not there.
    #[default]
    NoPeer,
    /// The nodes differ in what has to be alike for it (`layout`).
    Incompatible,
    /// All sessions are being sent, or received.
    Resync,
    /// News are on their way; nothing was proved yet.
    CatchingUp,
    /// The digests of both tables were equal when they were last compared.
    InSync,
}

impl SyncState {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NoPeer => "no peer",
            Self::Incompatible => "incompatible",
            Self::Resync => "resync",
            Self::CatchingUp => "catching up",
            Self::InSync => "in sync",
        }
    }
}

/// Session synchronisation, both ways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HaSync {
    /// Where it stands.
    pub state: SyncState,
    /// Since the digests were last found equal; `null`: they never were.
    pub proved_s: Option<f64>,
    /// Sessions of the peer's that this node has (active-active: about, it may have adopted some).
    pub replicas: u64,
    /// Sessions whose news wait to be sent.
    pub waiting: u64,
    /// Of a resync that is under way: sessions sent or received so far ...
    #[serde(default)]
    pub resync_done: u64,
    /// ... of about so many; 0: none is under way.
    #[serde(default)]
    pub resync_of: u64,
    /// Resyncs since the start, by either node.
    #[serde(default)]
    pub resyncs: u64,
    /// Updates of sessions sent.
    pub sessions_sent: u64,
    /// Updates of sessions taken in.
    pub sessions_received: u64,
    /// Ends of sessions sent.
    pub gone_sent: u64,
    /// Ends of sessions taken in.
    pub gone_received: u64,
    /// Updates that got lost on their way, and were sent again in their newest state.
    pub sessions_resent: u64,
    /// Sessions of the peer's that found no room here.
    pub sessions_refused: u64,
    /// Datagrams sent, of all kinds.
    pub datagrams_sent: u64,
    /// Datagrams taken in, of all kinds.
    pub datagrams_received: u64,
}

/// Packets that cross between the nodes of an active-active pair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaRedirect {
    /// `[ha] redirect_rate`: this node offers so many a second at most.
    pub rate: u64,
    /// Offered to the peer, to be judged there ...
    pub redirected_out: u64,
    /// ... and come back, to leave here.
    pub returned: u64,
    /// The peer's, to be judged here ...
    pub redirected_in: u64,
    /// ... and gone back.
    pub given_back: u64,
    /// Packets of the peer's sessions that were dropped because there was no budget, or no room, to offer them.
    pub limited: u64,
    /// Packets of the peer's beyond what it may send in a second.
    pub refused: u64,
    /// Packets of the peer's for which there was no room, or of which parts got lost.
    pub lost: u64,
}

/// `POST /v1/ha/switchover`: what became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SwitchoverReport {
    /// The node that leads now.
    pub leader: u8,
    /// What the node that was asked is now.
    pub role: HaRole,
    /// How long it took.
    pub took_ms: f64,
}

/// `POST /v1/ha/notify`: what keepalived says of this node (keepalived.conf(5), `notify`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `kind`, `name` and `state`")]
pub struct NotifyRequest {
    /// Of one virtual router, or of a group of them.
    pub kind: NotifyKind,
    /// Its name in keepalived.conf.
    pub name: String,
    /// What it has become.
    pub state: NotifyState,
    /// Its VRRP priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
}

impl NotifyRequest {
    /// What a body looks like, for people who got it wrong.
    pub const SHAPE: &'static str =
        r#"{"kind": "INSTANCE", "name": "VI_1", "state": "MASTER", "priority": 200}"#;

    /// What it makes the node wish for.
    #[must_use]
    pub fn wish(&self) -> HaWish {
        HaWish {
            lead: self.state == NotifyState::Master,
            by: format!("{} {}", self.kind.word().to_ascii_lowercase(), self.name),
            state: self.state,
        }
    }
}

/// Words that stand alike in JSON and on keepalived's command line.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
        pub enum $name {
            $($(#[$of])* #[serde(rename = $word)] #[value(name = $word)] $variant,)*
        }

        impl $name {
            /// keepalived's word.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// Of what keepalived speaks.
    NotifyKind {
        /// A `vrrp_instance`.
        Instance = "INSTANCE",
        /// A `vrrp_sync_group`.
        Group = "GROUP",
    }
}

words! {
    /// What it says.
    NotifyState {
        /// It is to lead.
        Master = "MASTER",
        /// Another one leads.
        Backup = "BACKUP",
        /// It cannot lead.
        Fault = "FAULT",
        /// keepalived stops.
        Stop = "STOP",
        /// keepalived was reloaded without it.
        Deleted = "DELETED",
    }
}

/// What the node was asked for from outside: it holds until something else is asked for, or the node restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaWish {
    /// true: ask the peer for the lead; false: give it up, if the peer can take it.
    pub lead: bool,
    /// Who asked: `instance VI_1`.
    pub by: String,
    /// What keepalived called it.
    pub state: NotifyState,
}

/// `POST /v1/ha/notify`: what the node makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyReport {
    /// What it wishes for now.
    pub wish: HaWish,
    /// What it is at this moment; that changes when the peer has answered.
    pub role: HaRole,
}

/// What a node that is alone answers.
#[must_use]
pub fn no_pair() -> NodeError {
    NodeError::new(
        ErrorKind::Refused,
        "this node has no `[ha]`: it is no node of a pair",
    )
    .fix("see dpdk-config/ha/ for how two nodes become a pair")
}
