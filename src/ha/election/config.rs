//! What the lead depends on, of the configuration.

use crate::base::Nanos;
use crate::ha::message::NodeId;

/// `[ha]`, as far as the lead depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElectionConfig {
    /// `node_id`.
    pub node: NodeId,
    /// `priority`: the higher leads.
    pub priority: u8,
    /// `mode = "active-active"`.
    pub active_active: bool,
    /// `preempt_delay`, if `preempt` is set: a standby of higher priority asks for the lead after so long in sync.
    pub preempt: Option<Nanos>,
    /// There is a witness.
    pub witness: bool,
    /// `heartbeat`.
    pub heartbeat: Nanos,
    /// `dead_after`: so many heartbeats missed, and the peer counts as dead.
    pub dead_after: u32,
    /// `alone_after`: so long a node that has just started waits for its peer.
    pub alone_after: Nanos,
}

impl ElectionConfig {
    /// The defaults of `[ha]`.
    #[must_use]
    pub const fn new(node: NodeId) -> Self {
        Self {
            node,
            priority: 100,
            active_active: false,
            preempt: None,
            witness: false,
            heartbeat: Nanos::from_millis(50),
            dead_after: 3,
            alone_after: Nanos::from_secs(5),
        }
    }

    /// Silence of this length, and the peer counts as dead.
    #[must_use]
    pub const fn dead_time(&self) -> Nanos {
        Nanos(self.heartbeat.0.saturating_mul(self.dead_after as u64))
    }

    /// So long a node that forwards waits for the witness before it stops: six heartbeats with the defaults, as an answer may get lost.
    #[must_use]
    pub const fn witness_wait(&self) -> Nanos {
        Nanos(self.dead_time().0.saturating_mul(2))
    }
}
