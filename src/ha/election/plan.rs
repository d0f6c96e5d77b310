//! Planned changes: the operator's, those of a node that stops, and those that `preempt` asks for.

use super::{Election, SwitchRefused};
use crate::base::Nanos;
use crate::ha::message::Role;

/// A planned change that is not through by then is given up (a node that stops yields all the same).
pub const DRAIN_LIMIT: Nanos = Nanos::from_secs(5);
/// So long the lead is offered to a peer that does not take it.
pub const YIELD_LIMIT: Nanos = Nanos::from_secs(1);
/// So long a standby asks for the lead once the operator said so.
pub const ASK_LIMIT: Nanos = Nanos::from_secs(10);

/// A planned change, at the node that forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handover {
    None,
    /// Everything that this node knows is on its way to the peer.
    Draining {
        since: Nanos,
    },
    /// The peer has everything, and may lead.
    Yielding {
        since: Nanos,
    },
}

impl Election {
    /// Does the peer wait for everything that this node knows? Then [`Self::drained`] is to follow.
    #[must_use]
    pub const fn drains_since(&self) -> Option<Nanos> {
        match self.handover {
            Handover::Draining { since } => Some(since),
            _ => None,
        }
    }

    /// Since [`Self::drains_since`] everything that this node knew was found equal at the peer.
    pub fn drained(&mut self, now: Nanos) {
        self.run_again(now);
        if self.drains_since().is_some() {
            self.handover = Handover::Yielding { since: now };
        }
        self.decide(now);
    }

    /// The operator wants the other node to lead: of a leader, its peer; of a standby, itself.
    ///
    /// # Errors
    /// The node that would lead is not there, or not fit.
    pub fn switchover(&mut self, now: Nanos) -> Result<(), SwitchRefused> {
        self.run_again(now);
        self.decide(now);
        let peer = *self.present().ok_or(SwitchRefused::NoPeer)?;
        if self.role.forwards() {
            check_fit(peer.healthy, peer.in_sync)?;
            if self.handover == Handover::None {
                self.handover = Handover::Draining { since: now };
            }
        } else {
            if !peer.role.forwards() {
                return Err(SwitchRefused::NoLeader);
            }
            check_fit(self.healthy && !self.leaving, self.in_sync)?;
            self.parked = false;
            self.ask_until = Some(now.plus(ASK_LIMIT));
        }
        self.decide(now);
        Ok(())
    }

    /// This node is about to stop: it gives the lead up to a peer that can take it, and takes it no more. It may stop once it does not
    /// forward, or no peer is alive.
    pub fn leave(&mut self, now: Nanos) {
        self.run_again(now);
        self.leaving = true;
        self.decide(now);
    }

    /// Begins a planned change, and gives one up that does not come to its end.
    pub(super) fn hand_over(&mut self, now: Nanos) {
        let Some(peer) = self.present().copied() else {
            return;
        };
        let fit = peer.healthy && peer.in_sync;
        match self.handover {
            Handover::None => {
                let wanted = self.leaving && peer.healthy || peer.asks && fit;
                if self.role.forwards() && wanted && now >= self.handover_not_before {
                    self.handover = Handover::Draining { since: now };
                }
            }
            Handover::Draining { since } if now.since(since) >= DRAIN_LIMIT => self.end_of_patience(now),
            Handover::Draining { .. } if !peer.healthy => self.handover = Handover::None,
            Handover::Yielding { .. } if !peer.healthy => self.withdraw(now),
            Handover::Yielding { since } if !self.leaving && now.since(since) >= YIELD_LIMIT => {
                self.withdraw(now);
            }
            _ => {}
        }
    }

    fn end_of_patience(&mut self, now: Nanos) {
        if self.leaving {
            self.handover = Handover::Yielding { since: now };
        } else {
            self.withdraw(now);
        }
    }

    fn withdraw(&mut self, now: Nanos) {
        self.handover = Handover::None;
        self.handover_not_before = now.plus(YIELD_LIMIT);
    }

    pub(super) fn watch_preempt(&mut self, now: Nanos) {
        if self.ask_until.is_some_and(|until| now >= until) {
            self.ask_until = None;
        }
        let given = self.config.preempt.is_some()
            && !self.config.active_active
            && self.role == Role::Standby
            && self.healthy
            && !self.leaving
            && self.in_sync
            && !self.parked
            && self
                .present()
                .is_some_and(|peer| peer.role.forwards() && peer.priority < self.config.priority);
        self.preempt_since = given.then(|| self.preempt_since.unwrap_or(now));
    }

    pub(super) fn asks(&self) -> bool {
        let preempts = self
            .preempt_since
            .zip(self.config.preempt)
            .is_some_and(|(since, delay)| self.last_input.since(since) >= delay);
        let fit = self.role == Role::Standby && self.healthy && !self.leaving;
        fit && (self.ask_until.is_some() || preempts)
    }
}

fn check_fit(healthy: bool, in_sync: bool) -> Result<(), SwitchRefused> {
    match (healthy, in_sync) {
        (false, _) => Err(SwitchRefused::Unhealthy),
        (_, false) => Err(SwitchRefused::NotInSync),
        _ => Ok(()),
    }
}
