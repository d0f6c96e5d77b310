//! The engine: `process()` takes a burst of packets and the time, and gives every packet a verdict. It does no I/O,
//! reads no clock, takes no lock and allocates nothing after [`Engine::new`]. It is generic over the packet buffer, so
//! that `run`, `explain`, tests, fuzzers and benches have the same one.
//!
//! A burst goes through stages, each over all packets before the next begins, so that the cache misses of one packet
//! hide behind the work on the others (ARCHITECTURE.md, invariant 10): parse ([`crate::packet::parse`]), find sessions
//! ([`crate::flow::SessionTable`]), ask the rules for those without ([`crate::policy::Classifier`]), then act in order
//! of arrival (`process`, `session`, `first`).

mod alert;
pub mod batch;
pub mod counters;
mod defer;
mod first;
mod fragments;
mod leases;
mod limits;
mod loans;
mod look;
mod martian;
mod message;
pub mod moving;
mod offers;
pub mod outputs;
pub mod pair;
mod pressure;
mod process;
pub mod rate;
pub mod reason;
pub mod record;
mod redirect;
mod reject;
mod session;
mod sight;
mod sources;
mod split;
mod stations;
mod steer;
mod syn;
mod timeout_reset;
mod upkeep;

pub use alert::Alert;
pub use batch::{Batch, Hops, MAX_BATCH};
pub use counters::{Counters, IMPLICIT_DROP, MAX_RULES, RuleCounters};
pub use defer::DEFERRED;
pub use leases::{Leasing, Units};
pub use message::{Ask, Give, Limit, Message, Part};
pub use moving::{Mark, Move};
pub use outputs::{Note, Offered, Outputs, Place, Why};
pub use pair::{Adoption, PairSetup};
pub use reason::DropReason;
pub use record::{Account, EndReason, Event, Record};
pub use steer::Placement;
pub use syn::Retry;
pub use upkeep::Upkeep;

use std::sync::Arc;

use crate::base::{Memory, Nanos, SessionIx, Slab};
use crate::flow::{HashSeed, SessionTable, TableError};
use crate::packet::VecPacket;
use crate::policy::Policy;
use fragments::Hold;
use leases::Leases;
use pair::Pair;
use pressure::Pressure;
use rate::TokenBucket;
use record::Records;
use redirect::Redirects;
use sight::Scratch;
use sources::Sources;
use steer::Crew;
use syn::Syn;
use timeout_reset::Resets;
use upkeep::{Books, Rearm};

/// One worker's engine: its session table, its counters, the policy of the moment, and fragments (packets of the kind `B`)
/// that wait for others.
pub struct Engine<B = VecPacket> {
    policy: Arc<Policy>,
    table: SessionTable,
    counters: Counters,
    rules: Slab<RuleCounters>,
    sources: Sources,
    pressure: Pressure,
    ignores_pressure: bool,
    /// See [`Engine::quota`].
    quota: u32,
    /// What it shares with other workers.
    leases: Option<Box<Leases>>,
    rejects: TokenBucket,
    rearm: Rearm,
    resets: Resets,
    records: Records,
    fragments: Hold<B>,
    syn: Syn,
    crew: Option<Crew>,
    redirects: Redirects,
    /// Of a node that is one of an HA pair.
    pair: Option<Box<Pair>>,
    scratch: Box<Scratch>,
}

impl<B> Engine<B> {
    /// An engine with an empty table of `max_sessions`, all its memory allocated now. How many fragments it holds is the
    /// policy's to say, this one's as long as it lives.
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
            table: SessionTable::for_ports(max_sessions, policy.ports.len(), memory, seed)?,
            sources: Sources::new(max_sessions, memory, seed)?,
            pressure: Pressure::of(&policy, max_sessions),
            ignores_pressure: false,
            quota: max_sessions,
            leases: None,
            counters: Counters::default(),
            rules: memory.slab(IMPLICIT_DROP.index() + 1)?,
            rejects: TokenBucket::new(policy.reject_rate, Nanos(0)),
            rearm: Rearm::default(),
            resets: Resets::default(),
            records: Records::default(),
            fragments: Hold::new(policy.fragments, seed),
            syn: Syn::new(memory, seed)?,
            crew: None,
            redirects: Redirects::none(),
            pair: None,
            scratch: Box::default(),
            policy,
        })
    }

    /// The same engine with room for so many records of what its rules log, to be taken away by [`Engine::next_record`] before
    /// they fill it; without `alerts` none of those is made. (An engine without this makes no records at all.)
    #[must_use]
    pub fn with_records(mut self, capacity: usize, alerts: bool) -> Self {
        self.records = Records::new(capacity, alerts);
        self
    }

    /// How many records wait.
    #[inline]
    #[must_use]
    pub const fn records(&self) -> usize {
        self.records.len()
    }

    /// The oldest record that waits.
    pub fn next_record(&mut self) -> Option<Record> {
        self.records.pop()
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
        self.rearm.start();
        let old = std::mem::replace(&mut self.policy, policy);
        self.set_pressure();
        self.begin_epochs();
        old
    }

    fn set_pressure(&mut self) {
        if !self.ignores_pressure {
            self.pressure = Pressure::of(&self.policy, self.share());
        }
    }

    /// Packets by verdict.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Do rules with `syn_protection = "auto"` answer SYNs by cookies now?
    #[must_use]
    pub const fn syn_cookies_engaged(&self) -> bool {
        self.syn.is_engaged()
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

    /// Sources that are counted for limits of rules, and those of them that have no session any more but whose rate is not
    /// whole again.
    #[must_use]
    pub fn sources(&self) -> [usize; 2] {
        self.sources.entries()
    }

    /// Ends a session now (`sessions kill`), if it is this node's. Its next packet is judged as if it had never been.
    pub fn kill(&mut self, now: Nanos, session: SessionIx) {
        if !self.table.is_peers(session) {
            self.end(now, session, EndReason::Killed, None);
        }
    }

    /// Ends a session.
    fn end(&mut self, now: Nanos, session: SessionIx, reason: EndReason, resets: Option<[bool; 2]>) {
        let mut books = Books {
            now,
            policy: &self.policy,
            counters: &mut self.counters,
            rules: &mut self.rules,
            records: &mut self.records,
            resets,
            sources: &mut self.sources,
            crew: self.crew.as_mut(),
        };
        books.end(&mut self.table, session, reason);
    }
}
