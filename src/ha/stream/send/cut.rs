//! Cuts through the workers' updates, and what they are for: comparing digests, and bringing a resync to its end.

use super::{BARRIER_LIMIT, BARRIER_RETRY, BUCKETS, BucketSet, Nanos, SETTLE_ROUNDS, Sender, SenderCounters};

/// What a cut through the workers' updates is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To tell the digests.
    Barrier,
    /// To know that everything of a resync has arrived.
    Settle,
}

/// A consistent cut, from the question to the workers to what came of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    None,
    /// The workers send what they have, and say their sums.
    Asked,
    /// They have; up to this many updates belong before the cut.
    Waits {
        updates: u64,
    },
    /// From this bucket on the sums are still to be told.
    Telling {
        from: usize,
    },
    /// All numbers below this one belong before the cut.
    Sent {
        number: u64,
        since: Nanos,
    },
}

/// What a cut is, beside how far it has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutOf {
    pub(super) purpose: Purpose,
    /// Its number.
    pub(super) round: u64,
    /// When the workers were asked.
    pub(super) asked_at: Nanos,
    /// Frames with updates lost until then.
    pub(super) losses: u64,
    /// The number of a barrier's first part.
    pub(super) first_part: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resync {
    None,
    Begin {
        sent: bool,
    },
    /// The workers walk through their sessions.
    Walk,
    /// What got lost is sent again.
    Settle {
        rounds: u32,
    },
    End {
        sent: bool,
    },
}

impl Sender {
    /// These buckets are to be told in full.
    pub fn want_resync(&mut self, now: Nanos, buckets: &BucketSet) {
        if self.up {
            self.wanted.extend(buckets);
            self.resync_at = now;
            self.advance(now);
        }
    }

    /// The digests are to be compared as soon as can be.
    pub fn want_barrier(&mut self, now: Nanos) {
        self.barrier_at = now;
        self.advance(now);
    }

    /// A cut that the workers are to be asked for, by its number. Each of them first offers what its journal held when it was asked,
    /// then says its sums, and none of its later updates is offered before [`Self::cut`].
    #[must_use]
    pub fn cut_wanted(&self) -> Option<u64> {
        match self.cut {
            // What got lost is in the journals first.
            Cut::Asked if self.again.is_empty() => Some(self.cut_of.round),
            _ => None,
        }
    }

    /// All workers have answered; their sums by bucket. Answers to an older question change nothing.
    pub fn cut(&mut self, now: Nanos, round: u64, sums: &[u64; BUCKETS]) {
        if !matches!(self.cut, Cut::Asked) || round != self.cut_of.round {
            return;
        }
        self.sums.copy_from_slice(sums);
        self.cut = Cut::Waits { updates: self.pushed };
        self.place_cut(now);
    }

    /// Has everything before the cut been sent?
    pub(super) fn place_cut(&mut self, now: Nanos) {
        let Cut::Waits { updates } = self.cut else {
            return;
        };
        if self.popped < updates || !self.gones.is_empty() {
            return;
        }
        self.report = None;
        self.cut = match self.cut_of.purpose {
            Purpose::Barrier => {
                self.cut_of.first_part = self.next;
                Cut::Telling { from: 0 }
            }
            Purpose::Settle => Cut::Sent {
                number: self.next,
                since: now,
            },
        };
    }

    /// A resync that the workers are to walk for: its number, and which buckets. They offer all of their own sessions in them, as many at
    /// a time as [`Self::take_allowance`] says, and then comes [`Self::walked`].
    #[must_use]
    pub fn walk(&self) -> Option<(u32, &BucketSet)> {
        (self.resync == Resync::Walk).then_some((self.resync_id, &self.resyncing))
    }

    /// How many sessions of `want` the walk may offer now: `sync_rate`, in steps of a hundredth of a second.
    pub fn take_allowance(&mut self, now: Nanos, want: u32) -> u32 {
        if self.resync != Resync::Walk {
            return 0;
        }
        let rate = u64::from(self.config.sync_rate.max(100));
        let earned = now.since(self.tokens_at).0.min(Nanos::SECOND.0 / 100) * rate;
        self.tokens = (self.tokens + earned).min(rate * (Nanos::SECOND.0 / 100));
        self.tokens_at = now;
        let room = self.config.pending - self.pending.len();
        let allowed = u64::from(want)
            .min(self.tokens / Nanos::SECOND.0)
            .min(room as u64);
        self.tokens -= allowed * Nanos::SECOND.0;
        self.walked += allowed;
        allowed as u32
    }

    /// The workers are through with the walk of this resync.
    pub fn walked(&mut self, now: Nanos, resync: u32) {
        if self.resync == Resync::Walk && resync == self.resync_id {
            self.resync = Resync::Settle { rounds: 0 };
            self.advance(now);
        }
    }

    /// How many sessions this node owns, for the progress.
    pub const fn set_sessions(&mut self, sessions: u64) {
        self.sessions = sessions;
    }

    /// Walked, and to be walked, about, while there is a resync.
    #[must_use]
    pub fn progress(&self) -> Option<(u64, u64)> {
        let under_way = self.resync != Resync::None || !self.wanted.is_empty();
        under_way.then(|| (self.walked, self.to_walk.max(self.walked)))
    }

    /// When the workers were asked for what the peer then found equal; `None` when the last comparison that said anything was not.
    #[must_use]
    pub const fn equal_since(&self) -> Option<Nanos> {
        self.equal_asked_at
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> &SenderCounters {
        &self.counters
    }

    /// How long an acknowledgement takes.
    #[must_use]
    pub const fn round_trip(&self) -> Option<Nanos> {
        self.pace.round_trip()
    }

    /// A part of a barrier got lost. (Parts of one before mean nothing any more.)
    pub(super) fn lose_part(&mut self, number: u64, again_at: Nanos) {
        let is_told = matches!(self.cut, Cut::Telling { .. } | Cut::Sent { .. });
        if is_told && number >= self.cut_of.first_part {
            self.void_barrier(again_at);
        }
    }

    /// The barrier under way comes to nothing; the next one not before `again_at`.
    fn void_barrier(&mut self, again_at: Nanos) {
        if self.cut_of.purpose == Purpose::Barrier {
            self.counters.void += 1;
            self.cut = Cut::None;
            self.barrier_at = again_at;
        }
    }

    /// What follows from what is known.
    pub(super) fn advance(&mut self, now: Nanos) {
        if !self.up {
            return;
        }
        match self.cut {
            Cut::Sent { number, since } if self.floor >= number => self.judge_cut(now, since),
            Cut::Sent { since, .. } if now >= since.plus(BARRIER_LIMIT) => self.void_barrier(now),
            _ => {}
        }
        if !matches!(self.cut, Cut::None) {
            return;
        }
        if let Resync::Settle { .. } = self.resync {
            self.ask(now, Purpose::Settle);
        } else if self.resync == Resync::None && !self.wanted.is_empty() {
            if now >= self.resync_at {
                self.begin_resync(now);
            }
        } else if self.resync == Resync::None && now >= self.barrier_at {
            self.ask(now, Purpose::Barrier);
        }
    }

    fn ask(&mut self, now: Nanos, purpose: Purpose) {
        self.cut = Cut::Asked;
        self.cut_of = CutOf {
            purpose,
            round: self.cut_of.round + 1,
            asked_at: now,
            losses: self.losses,
            first_part: 0,
        };
    }

    fn begin_resync(&mut self, now: Nanos) {
        self.resync_id = self.resync_id.wrapping_add(1);
        self.resyncing = std::mem::replace(&mut self.wanted, BucketSet::NONE);
        self.resync = Resync::Begin { sent: false };
        self.to_walk = self.sessions * u64::from(self.resyncing.len()) / BUCKETS as u64;
        self.walked = 0;
        (self.tokens, self.tokens_at) = (0, now);
        self.counters.resyncs += 1;
        self.equal_asked_at = None;
    }

    /// It is known what became of all frames before the cut.
    fn judge_cut(&mut self, now: Nanos, since: Nanos) {
        // What was lost before the workers were asked they have told again since, within the cut.
        let clean = self.losses == self.cut_of.losses;
        match (self.cut_of.purpose, self.report.take()) {
            (Purpose::Settle, _) => {
                self.cut = Cut::None;
                let rounds = match self.resync {
                    Resync::Settle { rounds } => rounds + 1,
                    _ => return,
                };
                self.resync = if clean || rounds >= SETTLE_ROUNDS {
                    Resync::End { sent: false }
                } else {
                    Resync::Settle { rounds }
                };
            }
            (Purpose::Barrier, None) if now < since.plus(BARRIER_LIMIT) => {}
            (Purpose::Barrier, report) => {
                self.cut = Cut::None;
                self.judge_report(now, clean, report);
            }
        }
    }

    fn judge_report(&mut self, now: Nanos, clean: bool, report: Option<BucketSet>) {
        match report {
            Some(differ) if differ.is_empty() => {
                self.futile = 0;
                self.counters.equal += 1;
                self.equal_asked_at = Some(self.cut_of.asked_at);
                self.barrier_at = now.plus(self.config.barrier_every);
            }
            Some(differ) if clean => {
                self.counters.different += 1;
                self.equal_asked_at = None;
                self.wanted.extend(&differ);
                // A resync that did not help is tried again, but a session that the peer refuses must not keep both busy.
                self.futile += 1;
                self.resync_at = match self.futile {
                    0..=2 => now,
                    more => now.plus(Nanos(BARRIER_RETRY.0 << (more - 2).min(7))),
                };
                self.barrier_at = now;
            }
            _ => {
                self.counters.void += 1;
                self.barrier_at = now.plus(BARRIER_RETRY);
            }
        }
    }
}
