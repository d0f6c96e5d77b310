//! `[ha]`: the other node of the pair, how it is reached, and who of the two leads.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema};
use serde::Serialize;

use super::diagnostic::{TextValue, ValueError};
use super::units::{Rate, TimeSpan};
use crate::base::Nanos;

/// What the reader takes and refuses, because the runtime does not do it yet: a key, or one word of it. To allow one is to take it off
/// this list: value, checks, digests and documentation are there.
pub(super) const NOT_YET: &[(&str, Option<&str>, &str)] =
    &[("data_heartbeats", None, "heartbeats across the data ports")];

/// `[ha]`
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = super::schema::may_be_partial, transform = without_keys_to_come)]
pub struct Ha {
    /// "active-standby": one node forwards, the other one takes its sessions in and waits. "active-active": both forward, between routers
    /// that have a segment of their own through each node, and packets whose session is the other node's go there to be judged.
    #[schemars(default)]
    pub mode: HaMode,
    /// Which of the pair's two nodes this is: 1 or 2.
    #[schemars(range(min = 1, max = 2))]
    pub node_id: u8,
    /// Of two nodes that could both lead the one with the higher priority does.
    #[schemars(default = "Ha::default_priority")]
    pub priority: u8,
    /// true: a node of the higher priority takes the lead back when it has all sessions again.
    #[schemars(default)]
    pub preempt: bool,
    /// How long it is well before it does.
    #[schemars(default = "Ha::default_preempt_delay")]
    pub preempt_delay: TimeSpan,
    /// An address that answers ping, best on both nodes' way to their clients: asked before a standby leads because it hears nothing of
    /// its peer, and before a leader goes on that hears nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witness: Option<IpAddr>,
    /// Heartbeats across the data ports as well.
    #[serde(skip_serializing_if = "Ha::is_default_data_heartbeats")]
    #[schemars(default = "super::defaults::yes")]
    pub data_heartbeats: bool,
    /// Active-active: packets that this node offers to its peer at most, and 512 times as many bytes. Half of it is kept for packets of
    /// sessions that the peer is known to have. 0: none.
    #[schemars(default = "Ha::default_redirect_rate")]
    pub redirect_rate: Rate,
    /// Session updates that this node sends in a second while it tells its peer of all its sessions.
    #[schemars(default = "Ha::default_sync_rate")]
    pub sync_rate: Rate,
    /// How long the first packet of a session is held until the peer has the session, if the rule says `defer`.
    #[schemars(default = "Ha::default_defer_timeout")]
    pub defer_timeout: TimeSpan,
    /// What becomes of such a packet when that time is over: "open" lets it pass, "closed" drops it.
    #[schemars(default)]
    pub defer_fail: DeferFail,
    /// Ports whose loss of link gives up the lead.
    #[schemars(default)]
    pub track: Vec<String>,
    /// The same key on both nodes, made by `haechi ha keygen`, readable by the owner alone. A relative path is relative to the file that
    /// it stands in.
    pub key_file: PathBuf,
    /// The time between two heartbeats.
    #[schemars(default = "Ha::default_heartbeat")]
    pub heartbeat: TimeSpan,
    /// So many heartbeats missed on every path: the peer is dead.
    #[schemars(default = "Ha::default_dead_after", range(min = 1, max = 100))]
    pub dead_after: u8,
    /// How long a node that has just started waits for its peer before it leads alone.
    #[schemars(default = "Ha::default_alone_after")]
    pub alone_after: TimeSpan,
    /// How far a TCP segment may lie beyond what was last known of an adopted session's window, in KiB ...
    #[schemars(default = "Ha::default_adopt_kib", range(min = 1, max = 1_048_576))]
    pub adopt_kib: u32,
    /// ... and for how long after the adoption.
    #[schemars(default = "Ha::default_adopt_time")]
    pub adopt_time: TimeSpan,
    /// The way between the nodes: heartbeats and sessions.
    pub link: Link,
    /// Another way, for heartbeats only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_link: Option<Link>,
}

/// Defaults of keys that may be left out, for the loader and the JSON Schema.
impl Ha {
    pub(super) fn default_priority() -> u8 {
        100
    }

    pub(super) fn default_preempt_delay() -> TimeSpan {
        TimeSpan::from_secs(30)
    }

    pub(super) fn default_redirect_rate() -> Rate {
        Rate(200_000)
    }

    pub(super) fn default_sync_rate() -> Rate {
        Rate(200_000)
    }

    pub(super) fn default_defer_timeout() -> TimeSpan {
        TimeSpan(Nanos::from_millis(20))
    }

    pub(super) fn default_heartbeat() -> TimeSpan {
        TimeSpan(Nanos::from_millis(50))
    }

    pub(super) fn default_dead_after() -> u8 {
        3
    }

    pub(super) fn default_alone_after() -> TimeSpan {
        TimeSpan::from_secs(5)
    }

    pub(super) fn default_adopt_kib() -> u32 {
        65_536
    }

    pub(super) fn default_adopt_time() -> TimeSpan {
        TimeSpan::from_secs(10)
    }
}

/// What of [`NOT_YET`] is not written out where it has its default: it could not be read again.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks like that")]
impl Ha {
    fn is_default_data_heartbeats(value: &bool) -> bool {
        *value == super::defaults::yes()
    }
}

impl Ha {
    /// From the last heartbeat of a peer to its death: `heartbeat` x `dead_after`.
    #[must_use]
    pub fn silence(&self) -> Nanos {
        Nanos(self.heartbeat.0.0.saturating_mul(u64::from(self.dead_after)))
    }
}

/// Who forwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(transform = without_words_to_come)]
pub enum HaMode {
    /// One node at a time.
    #[default]
    ActiveStandby,
    /// Both nodes.
    ActiveActive,
}

/// What becomes of a packet that the peer did not acknowledge in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeferFail {
    /// It passes.
    #[default]
    Open,
    /// It is dropped.
    Closed,
}

/// Both ends of a way between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = super::schema::may_be_partial)]
pub struct Link {
    /// An address of this node, with a UDP port.
    pub local: Endpoint,
    /// The peer's, which is its `local`.
    pub peer: Endpoint,
}

/// An address with a port: "169.254.77.1:7700", "[fd00::1]:7700".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint(pub SocketAddr);

impl TextValue for Endpoint {
    const HELP: &'static str =
        "write an address and a port, like \"169.254.77.1:7700\" or \"[fd00::1]:7700\"";
}

impl FromStr for Endpoint {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Ok(endpoint) = text.parse::<SocketAddr>() {
            return Ok(Self(endpoint));
        }
        Err(match text.parse::<IpAddr>() {
            Ok(address) => ValueError::with_help(
                format!("`{text}` has no port"),
                format!("write \"{}\"", SocketAddr::new(address, 7700)),
            ),
            Err(_) => format!("`{text}` is not an address with a port").into(),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An editor offers no key that is refused ...
fn without_keys_to_come(schema: &mut Schema) {
    let Some(properties) = schema.get_mut("properties").and_then(|p| p.as_object_mut()) else {
        return;
    };
    for (key, word, _) in NOT_YET {
        if word.is_none() {
            properties.remove(*key);
        }
    }
}

/// ... and no word.
fn without_words_to_come(schema: &mut Schema) {
    let Some(choices) = schema.get_mut("oneOf").and_then(|c| c.as_array_mut()) else {
        return;
    };
    choices.retain(|choice| {
        let word = choice.get("const").and_then(|word| word.as_str());
        NOT_YET
            .iter()
            .all(|(_, refused, _)| refused.is_none() || *refused != word)
    });
}
