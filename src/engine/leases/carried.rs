//! What a session that goes to another worker ([`crate::engine::moving`]) takes along of the limits that workers share: one of the lease
//! of the table, one of its rule's, and one of its source's part. So the sums stay what they are, and neither worker asks for anything.
//!
//! A rule's limit may be changed by an apply meanwhile, which workers hear of one after the other:
//!
//! - The source tells the rule's home first how many sessions it has, if it has not yet. So home knows of all that it sends.
//! - The target makes room as of its own policy, and the source sends nothing by an older one.
//! - The target does not tell home while sessions are on their way to it: one of an epoch before its own is counted with those that
//!   it has, one of its own or of a later epoch is not, since the source has told of it.

use super::{Share, State, is_older};
use crate::base::{Generation, Nanos, RuleId};
use crate::engine::moving::NoPlace;
use crate::engine::{Engine, Message, Outputs};
use crate::flow::Session;
use crate::packet::PacketBuf;

/// What a session on its way takes of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    /// Of its rule's limit, since when that is what it is.
    rule: Option<Generation>,
    /// Of its source's `max_sessions_per_source`.
    source: bool,
}

impl Units {
    /// It takes one of its rule's limit; since when that is what it is.
    #[must_use]
    pub const fn of_rule(self) -> Option<Generation> {
        self.rule
    }

    /// Does it take one of its source's part?
    #[must_use]
    pub const fn of_source(self) -> bool {
        self.source
    }
}

impl Share {
    /// Sessions here that home knows of in this epoch although this worker has not told of them.
    pub(super) fn known(&self, epoch: Generation) -> u32 {
        if self.carried_in == epoch { self.carried } else { 0 }
    }

    /// A session comes with one of the limit of this epoch.
    fn carry_in(&mut self, epoch: Generation) {
        if self.epoch == epoch {
            self.lease = self.lease.saturating_add(1);
            if self.state != State::Changed {
                return;
            }
        } else if is_older(epoch, self.epoch) {
            // Home is not told before all that is on its way is here.
            self.lease = self.lease.saturating_add(1);
            return;
        }
        // Not to be told of, now or when the policy is here. Only the newest counts: it is the one that will be in force.
        if is_older(epoch, self.carried_in) {
            return;
        }
        if self.carried_in != epoch {
            self.carried = 0;
            self.carried_in = epoch;
        }
        self.carried += 1;
    }
}

impl<B> Engine<B> {
    /// Takes what a session brought of the leases.
    pub(in crate::engine) fn take_units(&mut self, rule: RuleId, units: Units) {
        let Some(leases) = &mut self.leases else {
            return;
        };
        leases.table.lease = leases.table.lease.saturating_add(1);
        match (leases.rules.get_mut(rule.index()), units.rule) {
            (Some(share), Some(epoch)) => share.carry_in(epoch),
            // The source knows of no limit yet: home is told of it by this worker.
            (Some(share), None) if share.state == State::Changed => share.lease += 1,
            _ => {}
        }
    }

    /// A session goes, with these.
    pub(in crate::engine) fn give_units(&mut self, session: &Session, units: Units, now: Nanos) {
        if let Some(leases) = &mut self.leases {
            leases.table.lease = leases.table.lease.saturating_sub(1);
            let share = leases.rules.get_mut(session.rule.index());
            if let (Some(share), Some(_)) = (share, units.rule) {
                share.lease = share.lease.saturating_sub(1);
            }
            self.set_quota();
        }
        if units.source {
            self.sources.send_along(session.rule, &session.source(), now);
        }
    }
}

impl<B: PacketBuf> Engine<B> {
    /// What a session takes along if it goes now. `None`: the rule's home has to be told something before, later.
    pub(in crate::engine) fn units_of<O: Outputs<B>>(
        &mut self,
        session: &Session,
        out: &mut O,
    ) -> Option<Result<Units, NoPlace>> {
        let arriving = self.arriving() > 0;
        let (Some(leases), Some(rule)) = (&mut self.leases, self.policy.rule(session.rule)) else {
            let nothing = Units {
                rule: None,
                source: false,
            };
            return Some(Ok(nothing));
        };
        let mut epoch = None;
        if rule.limits.sessions.is_some() {
            let live = self.rules.get(rule.id.index()).map_or(0, |c| c.sessions);
            let tell = |to, message: Message| out.tell(to, message).is_ok();
            leases.step(rule, (live, arriving), tell);
            let share = leases.rules.get(rule.id.index())?;
            if share.state == State::Changed {
                return None;
            }
            epoch = Some(share.epoch);
        }
        let source = if session.flags & Session::COUNTED == 0 {
            Ok(false)
        } else {
            self.sources
                .may_send_along(session.rule, &session.source(), &rule.limits)
        };
        Some(source.map(|source| Units { rule: epoch, source }))
    }
}
