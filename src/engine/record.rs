//! What is worth a line in the logs: sessions that begin and end, packets that alert rules dropped. Records are plain data of a
//! fixed size, with ids in place of names; they wait in a ring of fixed size until the worker takes them away. A full ring
//! loses records, each of them counted, and never a packet.

use super::alert::{Alert, Alerts};
use super::{Counters, MAX_RULES};
use crate::base::{Generation, Nanos, PortId, RuleId, Slab, Tick};
use crate::flow::{Direction, Entry, FlowKey, SessionState};

/// One line of a log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// When it happened.
    pub at: Nanos,
    /// The policy in force then: tells the names that ids had.
    pub generation: Generation,
    /// The rule that allowed the session or dropped the packet.
    pub rule: RuleId,
    /// The flow.
    pub key: FlowKey,
    /// The direction of the session's opener, or of the packet.
    pub opener: Direction,
    /// The port that the opener's packets or the packet came in by.
    pub ingress: PortId,
    /// The port that they leave by, or would have.
    pub egress: PortId,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A session was made.
    Start(Account),
    /// A session ended.
    End(EndReason, Account),
    /// A rule dropped a packet.
    Alert(Alert),
}

impl Default for Event {
    fn default() -> Self {
        Self::Start(Account::default())
    }
}

/// A session's state and what it carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Where it stood.
    pub state: SessionState,
    /// When its last packet came.
    pub last_seen: Tick,
    /// When it was made.
    pub created: Nanos,
    /// Packets, `[opener's, replier's]`.
    pub packets: [u64; 2],
    /// Bytes of IP packets, `[opener's, replier's]`.
    pub bytes: [u64; 2],
    /// `reset_on_timeout`: was a RST sent to `[the opener, the replier]`? `None`: neither was to get one.
    pub resets: Option<[bool; 2]>,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// Why a session ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum EndReason {
            $($(#[doc = $doc])* $variant,)*
        }

        impl EndReason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word that users see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// It idled for longer than its state's timeout.
    Timeout = "timeout",
    /// TCP: both ends closed the connection, and its time_wait is over.
    Finished = "finished",
    /// TCP: an end reset the connection.
    Reset = "reset",
    /// TCP: a new connection took the place of one that was closed or reset.
    Reused = "reused",
    /// An apply brought rules that do not allow it, or that have no room for it.
    Policy = "policy",
    /// It gave way to another one in a full table.
    Evicted = "evicted",
    /// An operator ended it (`sessions kill`).
    Killed = "killed",
    /// The other node of an HA pair did not know it within `defer_timeout` (`defer_fail = "closed"`).
    Deferred = "deferred",
    /// The node stopped.
    Shutdown = "shutdown",
}

impl Record {
    /// Of a session, under the policy `generation`.
    fn of_session(
        at: Nanos,
        generation: Generation,
        entry: &Entry<'_>,
        event: impl FnOnce(Account) -> Event,
    ) -> Self {
        let session = entry.session;
        Self {
            at,
            generation,
            rule: session.rule,
            key: session.key,
            opener: session.opener,
            ingress: session.ingress,
            egress: session.egress,
            event: event(Account {
                state: session.state(),
                last_seen: session.last_seen(),
                created: entry.created,
                packets: entry.packets,
                bytes: session.bytes(),
                resets: None,
            }),
        }
    }

    /// Of a session just made.
    pub(super) fn start(at: Nanos, generation: Generation, entry: &Entry<'_>) -> Self {
        Self::of_session(at, generation, entry, Event::Start)
    }

    /// Of a session that ends.
    pub(super) fn end(at: Nanos, generation: Generation, entry: &Entry<'_>, reason: EndReason) -> Self {
        Self::of_session(at, generation, entry, |account| Event::End(reason, account))
    }

    /// With what its ends were told.
    pub(super) const fn with_resets(mut self, resets: Option<[bool; 2]>) -> Self {
        if let Event::End(_, account) = &mut self.event {
            account.resets = resets;
        }
        self
    }
}

/// Records on their way out of the engine, first in, first out.
#[derive(Default)]
pub(super) struct Records {
    ring: Option<Slab<Record>>,
    first: usize,
    len: usize,
    pub(super) alerts: Alerts,
}

impl Records {
    /// Room for `capacity` records. Without `alerts` none of those is made.
    pub(super) fn new(capacity: usize, alerts: bool) -> Self {
        Self {
            ring: (capacity > 0).then(|| Slab::heap(capacity)),
            first: 0,
            len: 0,
            alerts: if alerts {
                Alerts::new(MAX_RULES)
            } else {
                Alerts::default()
            },
        }
    }

    /// Does anybody read them?
    #[inline]
    pub(super) const fn is_on(&self) -> bool {
        self.ring.is_some()
    }

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Records that it takes before it is full.
    pub(super) fn room(&self) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.len() - self.len)
    }

    /// Adds a record, or counts it as lost.
    pub(super) fn push(&mut self, record: Record, counters: &mut Counters) {
        if self.room() == 0 {
            counters.log_records_lost += u64::from(self.is_on());
            return;
        }
        if let Some(ring) = &mut self.ring {
            let place = (self.first + self.len) % ring.len();
            ring[place] = record;
            self.len += 1;
        }
    }

    /// Takes the oldest one out.
    pub(super) fn pop(&mut self) -> Option<Record> {
        if self.len == 0 {
            return None;
        }
        let ring = self.ring.as_ref()?;
        let record = ring[self.first];
        self.first = (self.first + 1) % ring.len();
        self.len -= 1;
        Some(record)
    }

    /// A packet that an alert rule dropped.
    pub(super) fn alert(&mut self, record: Record, rate: u32) {
        let room = self.room() > 0;
        if let Some(record) = self.alerts.offer(record, rate, room) {
            // There is room: none is lost here.
            self.push(record, &mut Counters::default());
        }
    }

    /// Alerts that were kept back for long enough go out.
    #[inline]
    pub(super) fn due(&mut self, now: Nanos, rate: u32) {
        if self.alerts.is_due(now) {
            self.alerts_due(now, rate);
        }
    }

    #[cold]
    fn alerts_due(&mut self, now: Nanos, rate: u32) {
        let look = self.alerts.begin(now, self.room());
        for _ in 0..look {
            if let Some(record) = self.alerts.look(now, rate) {
                self.push(record, &mut Counters::default());
            }
        }
    }

    /// All alerts that are kept back go out; with `wait` as many as there is room for. True: there are more.
    pub(super) fn release_alerts(&mut self, counters: &mut Counters, wait: bool) -> bool {
        while !wait || self.room() > 0 {
            match self.alerts.release() {
                Some(record) => self.push(record, counters),
                None => return false,
            }
        }
        !self.alerts.is_empty()
    }
}
