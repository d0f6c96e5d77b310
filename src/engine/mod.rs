//! The engine: `process()` takes a burst of packets and the time, and gives every packet a verdict. It does no I/O,
//! reads no clock, takes no lock and allocates nothing after [`Engine::new`]. It is generic over the packet buffer, so
//! that `run`, `explain`, tests, fuzzers and benches have the same one.
//!
//! A burst goes through stages, each over all packets before the next begins, so that the cache misses of one packet
//! hide behind the work on the others (ARCHITECTURE.md, invariant 10): parse ([`crate::packet::parse`]), find sessions
//! ([`crate::flow::SessionTable`]), ask the rules for those without ([`crate::policy::Classifier`]), then act in order
//! of arrival (`process`, `session`, `first`).

pub mod batch;
pub mod counters;
mod first;
mod martian;
pub mod outputs;
mod process;
pub mod rate;
pub mod reason;
mod reject;
mod session;
mod timeout_reset;
mod upkeep;

pub use batch::{Batch, MAX_BATCH};
pub use counters::{Counters, IMPLICIT_DROP, MAX_RULES, RuleCounters};
pub use outputs::{Note, Outputs, Why};
pub use reason::DropReason;
pub use upkeep::Upkeep;

use std::sync::Arc;

use crate::base::{Memory, Nanos, SessionIx, Slab};
use crate::flow::{HashSeed, SessionTable, TableError};
use crate::policy::Policy;
use process::Scratch;
use rate::TokenBucket;
use timeout_reset::Resets;
use upkeep::Rearm;

/// One worker's engine: its session table, its counters and the policy of the moment.
pub struct Engine {
    policy: Arc<Policy>,
    table: SessionTable,
    counters: Counters,
    rules: Slab<RuleCounters>,
    rejects: TokenBucket,
    rearm: Rearm,
    resets: Resets,
    scratch: Box<Scratch>,
}

impl Engine {
    /// An engine with an empty table of `max_sessions`, all its memory allocated now.
    ///
    /// # Errors
    /// When `memory` has not enough; the text says how much it takes and how to give it.
    pub fn new(
        max_sessions: u32,
        policy: Arc<Policy>,
        memory: &impl Memory,
        seed: HashSeed,
    ) -> Result<Self, TableError> {
        Ok(Self {
            table: SessionTable::new(max_sessions, memory, seed)?,
            counters: Counters::default(),
            rules: memory.slab(IMPLICIT_DROP.index() + 1)?,
            rejects: TokenBucket::new(policy.reject_rate, Nanos(0)),
            rearm: Rearm::default(),
            resets: Resets::default(),
            scratch: Box::default(),
            policy,
        })
    }

    /// The policy that packets are judged by.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Judges packets by `policy` from now on and gives the old one back, to be freed off the worker. Sessions are
    /// classified again at their next packet; timers follow new timeouts within the budget of [`Engine::upkeep`].
    #[must_use = "dropping a policy frees memory, which a worker must not do"]
    pub fn set_policy(&mut self, policy: Arc<Policy>) -> Arc<Policy> {
        self.rejects.set_rate(policy.reject_rate);
        self.rearm = Rearm::start();
        std::mem::replace(&mut self.policy, policy)
    }

    /// Packets by verdict.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counters of the rules, by [`crate::base::RuleId`], and of [`IMPLICIT_DROP`].
    #[must_use]
    pub fn rules(&self) -> &[RuleCounters] {
        &self.rules
    }

    /// The session table, to be looked at.
    #[must_use]
    pub fn table(&self) -> &SessionTable {
        &self.table
    }

    /// Ends a session now (`sessions kill`). Its next packet is judged as if it had never been.
    pub fn kill(&mut self, session: SessionIx) {
        upkeep::end_session(&mut self.table, &mut self.counters, &mut self.rules, session);
    }
}
