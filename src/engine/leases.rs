//! Limits that several workers share: each has a lease of `max_sessions` and of every rule's `max_sessions`, and no more sessions than
//! that. The leases of all workers, with what is on its way between them, are the limit, at every moment: so it is never exceeded,
//! and a session is refused early by at most what other workers have leased and do not use.
//!
//! Leases move by message. A worker whose lease is nearly used up asks another one, which gives of what it does not use, so that both are
//! about equally full. One question at a time for each limit; who has nothing to give says so, and the next one is asked; when none
//! has anything, there is a pause. A message that finds its queue full is as if not sent: whoever was to give keeps.
//!
//! When an apply changes a rule's limit the leases begin anew (an epoch, `Limits::since`). Each worker stops opening sessions of the rule,
//! keeps a lease of exactly those that it has, tells the rule's home worker how many these are, and sends home what their ends
//! free. When all have told, and the limit is above the sum, home shares the difference out, and all go on.
//!
//! A session that goes to another worker (`carried.rs`) takes its part of each lease along.

use super::counters::{MAX_RULES, RuleCounters};
use super::message::{Ask, Give, Limit, Message};
use super::{Engine, Outputs};
use crate::base::slab::{Memory, MemoryError};
use crate::base::{Generation, Nanos, RuleId, Slab, WorkerId};
use crate::flow::{HashSeed, TableError};
use crate::packet::PacketBuf;
use crate::policy::{Policy, Rule};

mod carried;

pub use carried::Units;

/// A worker that does not answer is not waited for any longer than this; its answer still counts when it comes.
pub(super) const ANSWER: Nanos = Nanos(2_000_000);
/// When no other worker had anything to give, they are asked again after this.
pub(super) const PAUSE: Nanos = Nanos(5_000_000);
/// Rules that can wait for leases at once; another one asks when its next session is opened or refused.
const WANTING: usize = 64;
/// A lease is nearly used up when this part of an even share is left of it.
const LOW: u32 = 16;

/// What an engine has to know to share limits with others.
#[derive(Clone, Copy)]
pub struct Leasing {
    /// Which worker it is.
    pub me: WorkerId,
    /// Of how many.
    pub workers: u16,
    /// `max_sessions` of the node.
    pub max_sessions: u32,
    /// The same for all workers, and a secret: sources have the same name on all of them.
    pub seed: HashSeed,
}

impl Leasing {
    /// Sessions that the table of each of `workers` workers has room for: an even share and a quarter more, at least 4,096 more, since
    /// flows are never spread evenly; at most all.
    #[must_use]
    pub fn capacity(max_sessions: u32, workers: u16) -> u32 {
        let even = max_sessions.div_ceil(u32::from(workers.max(1)));
        even.saturating_add((even / 4).max(4096)).min(max_sessions)
    }

    /// This worker's part of `limit` when it is shared out evenly, the remainder to the workers from `first` on.
    pub(super) fn even(&self, limit: u32, first: u16) -> u32 {
        let workers = u32::from(self.workers.max(1));
        let place = (u32::from(self.me.0) + workers - u32::from(first) % workers) % workers;
        limit / workers + u32::from(place < limit % workers)
    }
}

/// Where a limit stands on this worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Sessions are opened as long as the lease lasts.
    #[default]
    Open,
    /// The limit has changed; home does not know yet how many sessions are here.
    Changed,
    /// It knows, and will say when sessions may be opened again.
    Told,
}

/// This worker's lease of one limit.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// Sessions that this worker may have.
    lease: u32,
    /// Fewer left than this: nearly used up.
    low: u32,
    /// The policy in which the limit last changed.
    epoch: Generation,
    state: State,
    /// Sessions that came from another worker, which had told home of them in the epoch `carried_in`, when home did not know yet
    /// how many are here.
    carried: u32,
    carried_in: Generation,
    /// It waits in [`Leases::wanting`].
    wanting: bool,
    /// Workers that were asked in a row and gave nothing.
    asked: u16,
    /// The one that was asked last.
    turn: u16,
    /// Nobody is asked before.
    until: Nanos,
}

impl Share {
    const fn unused(&self, live: u32) -> u32 {
        self.lease.saturating_sub(live)
    }

    /// Sends a question to the next worker, if it is time. True: all others were asked, and gave nothing.
    fn ask(&mut self, leasing: &Leasing, now: Nanos, tell: impl FnOnce(WorkerId) -> bool) -> bool {
        if now < self.until {
            return false;
        }
        if self.asked + 1 >= leasing.workers {
            self.asked = 0;
            self.until = now.plus(PAUSE);
            return true;
        }
        let next = (self.turn + 1) % leasing.workers;
        let next = if next == leasing.me.0 {
            (next + 1) % leasing.workers
        } else {
            next
        };
        if tell(WorkerId(next)) {
            self.turn = next;
            self.asked += 1;
            self.until = now.plus(ANSWER);
        }
        false
    }

    /// Takes what another worker gave.
    fn take(&mut self, amount: u32) {
        self.lease = self.lease.saturating_add(amount);
        self.until = Nanos(0);
        if amount > 0 {
            self.asked = 0;
        }
    }

    /// What to give to another worker: so much that both are about equally full then; where it has nothing left, at least
    /// half of what is unused here.
    fn gift(&self, live: u32, ask: &Ask) -> u32 {
        let unused = self.unused(live);
        let (low, both) = (
            u64::from(self.low.max(1)),
            u64::from(self.lease) + u64::from(ask.lease),
        );
        let (mine, its) = (u64::from(live) + low, u64::from(ask.live) + low);
        let fair = (both * its / (mine + its)).saturating_sub(u64::from(ask.lease));
        let fair = u32::try_from(fair).unwrap_or(u32::MAX);
        let least = if ask.live >= ask.lease {
            unused.div_ceil(2)
        } else {
            0
        };
        fair.max(least).min(unused).min(ask.want)
    }
}

/// What a rule's home worker knows after its limit has changed.
#[derive(Clone, Copy, Debug, Default)]
struct Home {
    epoch: Generation,
    /// Workers that have told.
    told: u16,
    /// Of them, those that may open sessions again.
    opened: u16,
    /// What was freed since, less the sessions that were told.
    pot: i64,
}

/// Is this epoch older than that one? Numbers of policies wrap.
pub(super) const fn is_older(this: Generation, that: Generation) -> bool {
    (this.0.wrapping_sub(that.0) as i32) < 0
}

/// All leases of one worker.
pub(super) struct Leases {
    pub(super) leasing: Leasing,
    table: Share,
    /// A session found no room in the table's lease since the others were last asked for more.
    missed: bool,
    /// The others had nothing to give for the table when they were last asked.
    dry: bool,
    /// By [`RuleId`].
    rules: Slab<Share>,
    /// Of the rules whose home is here.
    homes: Slab<Home>,
    wanting: arrayvec::ArrayVec<RuleId, WANTING>,
    /// The walk over the rules after an apply: the next one's place, and whether all so far are open again.
    walk: Option<(usize, bool)>,
}

impl Leases {
    fn new(leasing: Leasing, policy: &Policy, memory: &impl Memory) -> Result<Self, MemoryError> {
        let workers = usize::from(leasing.workers.max(1));
        let mut leases = Self {
            leasing,
            table: Share {
                lease: leasing.even(leasing.max_sessions, 0),
                low: leasing.even(leasing.max_sessions, 0) / LOW,
                ..Share::default()
            },
            missed: false,
            dry: false,
            rules: memory.slab(MAX_RULES)?,
            homes: memory.slab(MAX_RULES / workers + 1)?,
            wanting: arrayvec::ArrayVec::new(),
            walk: None,
        };
        // All workers begin with the same policy and no session: nobody has to be told anything.
        for rule in &policy.rules {
            if let (Some(limit), Some(share)) = (rule.limits.sessions, leases.rules.get_mut(rule.id.index()))
            {
                share.lease = leasing.even(limit, 0);
                share.low = (limit / u32::from(leasing.workers.max(1)) / LOW).max(1);
                share.epoch = rule.limits.since;
            }
            let is_home = leases.home(rule.id) == leasing.me;
            if let Some(home) = leases
                .homes
                .get_mut(rule.id.index() / workers)
                .filter(|_| is_home)
            {
                home.epoch = rule.limits.since;
                home.told = leasing.workers;
                home.opened = leasing.workers;
            }
        }
        Ok(leases)
    }

    /// Sessions that the table may have.
    pub(super) const fn quota(&self) -> u32 {
        self.table.lease
    }

    /// A session finds no room. May others still have something to give? They are asked.
    pub(super) fn missed(&mut self, capacity: u32) -> bool {
        if !self.missed && !self.dry {
            // Who was asked before may have kept something, since there was room here then.
            self.missed = true;
            self.table.asked = 0;
            self.table.until = Nanos(0);
        }
        !self.dry && self.table.lease < capacity
    }

    fn home(&self, rule: RuleId) -> WorkerId {
        WorkerId((rule.0 % u32::from(self.leasing.workers.max(1))) as u16)
    }

    fn home_place(&self, rule: RuleId) -> usize {
        rule.index() / usize::from(self.leasing.workers.max(1))
    }

    /// May one more session of a rule be opened that has `live` ones and a limit?
    pub(super) fn has_room_in(&mut self, rule: &Rule, live: u64) -> bool {
        let live = u32::try_from(live).unwrap_or(u32::MAX);
        self.follow(rule, live);
        let Some(share) = self.rules.get_mut(rule.id.index()) else {
            return false;
        };
        if share.state != State::Open {
            return false;
        }
        if share.unused(live) <= share.low && !share.wanting {
            share.wanting = self.wanting.try_push(rule.id).is_ok();
            // Whoever had nothing some time ago may have something now.
            share.asked = 0;
        }
        live < share.lease
    }

    /// Begins the rule's epoch, if it is another than that of the lease.
    fn follow(&mut self, rule: &Rule, live: u32) {
        let (Some(limit), workers) = (rule.limits.sessions, u32::from(self.leasing.workers.max(1))) else {
            return;
        };
        if let Some(share) = self.rules.get_mut(rule.id.index()) {
            if share.epoch != rule.limits.since {
                let known = share.known(rule.limits.since);
                *share = Share {
                    lease: live.max(known),
                    // Sessions may have come that have followed more policies than this worker.
                    carried: share.carried,
                    carried_in: share.carried_in,
                    low: (limit / workers / LOW).max(1),
                    epoch: rule.limits.since,
                    state: State::Changed,
                    wanting: share.wanting,
                    turn: share.turn,
                    ..Share::default()
                };
            }
        }
    }

    /// What this worker may have of a rule's limit beyond its `live` sessions.
    fn unused(&self, rule: RuleId, live: u64) -> u64 {
        let lease = self.rules.get(rule.index()).map_or(0, |share| share.lease);
        u64::from(lease).saturating_sub(live)
    }

    /// One worker has told home that it has so many sessions of a rule, or frees so many now (`freed`).
    fn at_home(&mut self, rule: RuleId, epoch: Generation, told: Option<u32>, freed: u32) {
        let place = self.home_place(rule);
        let Some(home) = self.homes.get_mut(place) else {
            return;
        };
        if is_older(epoch, home.epoch) {
            return;
        }
        if home.epoch != epoch {
            *home = Home {
                epoch,
                ..Home::default()
            };
        }
        if let Some(live) = told {
            home.told += 1;
            home.pot -= i64::from(live);
        }
        home.pot += i64::from(freed);
    }

    /// A step of a rule's way into its epoch. True: it is there. Home is not told while sessions are `arriving`.
    fn step(
        &mut self,
        rule: &Rule,
        (live, arriving): (u64, bool),
        mut tell: impl FnMut(WorkerId, Message) -> bool,
    ) -> bool {
        let Some(limit) = rule.limits.sessions else {
            return true;
        };
        let live = u32::try_from(live).unwrap_or(u32::MAX);
        self.follow(rule, live);
        let (id, epoch, home) = (rule.id, rule.limits.since, self.home(rule.id));
        let is_home = home == self.leasing.me;
        let Some(share) = self.rules.get(id.index()).copied() else {
            return true;
        };
        let mut next = share;
        if share.state == State::Changed && !arriving {
            let report = Message::Report {
                rule: id,
                sessions: share.lease - share.known(epoch),
                epoch,
            };
            if is_home {
                self.at_home(id, epoch, Some(share.lease - share.known(epoch)), 0);
            }
            if is_home || tell(home, report) {
                next.state = State::Told;
            }
        }
        let freed = next.unused(live);
        if next.state == State::Told && freed > 0 {
            if is_home {
                self.at_home(id, epoch, None, freed);
                next.lease -= freed;
            } else {
                let give = Give {
                    from: self.leasing.me,
                    limit: Limit::Rule(id),
                    amount: freed,
                    epoch,
                };
                if tell(home, Message::Give(give)) {
                    next.lease -= freed;
                }
            }
        }
        if is_home && next.state == State::Told {
            self.open_all(id, (limit, epoch), &mut next, tell);
        }
        if let Some(share) = self.rules.get_mut(id.index()) {
            *share = next;
        }
        next.state == State::Open
    }

    /// At home: once all have told and there is something to share out, all go on, this worker last.
    fn open_all(
        &mut self,
        rule: RuleId,
        (limit, epoch): (u32, Generation),
        own: &mut Share,
        mut tell: impl FnMut(WorkerId, Message) -> bool,
    ) {
        let (place, workers, me) = (self.home_place(rule), self.leasing.workers, self.leasing.me);
        let Some(home) = self.homes.get_mut(place) else {
            return;
        };
        if home.epoch != epoch || home.told < workers {
            return;
        }
        if home.opened == 0 {
            if home.pot + i64::from(limit) < 0 {
                return;
            }
            home.pot += i64::from(limit);
            home.opened = 1;
        }
        while home.opened < workers {
            let to = WorkerId((me.0 + home.opened) % workers);
            let amount = home.pot / i64::from(workers - home.opened + 1);
            let open = Message::Open {
                rule,
                amount: u32::try_from(amount).unwrap_or(0),
                epoch,
            };
            if !tell(to, open) {
                return;
            }
            home.pot -= amount;
            home.opened += 1;
        }
        own.take(u32::try_from(home.pot).unwrap_or(0));
        own.state = State::Open;
        home.pot = 0;
    }

    /// What another worker gave of a rule's limit.
    fn rule_given(&mut self, rule: RuleId, amount: u32, epoch: Generation) {
        let is_home = self.home(rule) == self.leasing.me;
        let place = self.home_place(rule);
        // While home shares out, what comes goes into the pot.
        let waits = |home: &Home| home.epoch == epoch && home.opened < self.leasing.workers;
        if is_home && self.homes.get(place).is_some_and(waits) {
            self.at_home(rule, epoch, None, amount);
        } else if let Some(share) = self
            .rules
            .get_mut(rule.index())
            .filter(|share| share.epoch == epoch)
        {
            share.take(amount);
        }
    }

    fn opened(&mut self, rule: RuleId, amount: u32, epoch: Generation) {
        if let Some(share) = self
            .rules
            .get_mut(rule.index())
            .filter(|share| share.epoch == epoch)
        {
            share.take(amount);
            share.state = State::Open;
        }
    }

    /// Asks others for the rules that are nearly used up.
    fn ask_for_rules(
        &mut self,
        now: Nanos,
        rules: &[RuleCounters],
        mut tell: impl FnMut(WorkerId, Message) -> bool,
    ) {
        let (leasing, shares) = (&self.leasing, &mut self.rules);
        self.wanting.retain(|rule| {
            let Some(share) = shares.get_mut(rule.index()) else {
                return false;
            };
            let live = rules.get(rule.index()).map_or(0, |counters| counters.sessions);
            let live = u32::try_from(live).unwrap_or(u32::MAX);
            let ask = Ask {
                from: leasing.me,
                limit: Limit::Rule(*rule),
                want: u32::MAX,
                live,
                lease: share.lease,
                epoch: share.epoch,
            };
            share.wanting = share.state == State::Open
                && share.unused(live) <= share.low
                && !share.ask(leasing, now, |to| tell(to, Message::Ask(ask)));
            share.wanting
        });
    }

    /// Asks others for more of the table before it is under pressure, `sessions` being those that are taken or reserved.
    fn ask_for_table(
        &mut self,
        now: Nanos,
        (sessions, start, capacity): (u32, u32, u32),
        tell: impl FnOnce(WorkerId, Message) -> bool,
    ) {
        let share = &mut self.table;
        let near = share.lease.min(start);
        // At an eighth before pressure begins, or a sixteenth of an even share before the end.
        let is_near = sessions > 0 && sessions.saturating_add(share.low.max(near / 8)) >= near;
        let wants = is_near || self.missed;
        if !wants || share.lease >= capacity {
            self.dry &= wants;
            share.asked = 0;
            return;
        }
        let ask = Ask {
            from: self.leasing.me,
            limit: Limit::Table,
            want: capacity - share.lease,
            live: sessions,
            lease: share.lease,
            epoch: share.epoch,
        };
        if share.ask(&self.leasing, now, |to| tell(to, Message::Ask(ask))) {
            self.dry |= self.missed;
            self.missed = false;
        }
    }
}

impl<B> Engine<B> {
    /// From now on this engine's limits are those of a node of several workers, of which it has an even part. Before the first packet;
    /// its table was made with [`Leasing::capacity`].
    ///
    /// # Errors
    /// When `memory` has not enough.
    pub fn lease(&mut self, leasing: Leasing, memory: &impl Memory) -> Result<(), TableError> {
        if leasing.workers > 1 {
            self.leases = Some(Box::new(Leases::new(leasing, &self.policy, memory)?));
            self.sources.share(leasing, self.table.capacity());
            self.set_quota();
        }
        Ok(())
    }

    /// Sessions that this worker may have now: all that its table has room for, or its lease of the node's `max_sessions`.
    #[must_use]
    pub const fn quota(&self) -> u32 {
        self.quota
    }

    /// What this worker has of a limit that it shares with others; `None`: it shares none, or is not told yet what an apply left
    /// of it.
    #[must_use]
    pub fn leased(&self, limit: Limit) -> Option<u32> {
        let leases = self.leases.as_ref()?;
        let share = match limit {
            Limit::Table => &leases.table,
            Limit::Source { .. } => return None,
            Limit::Rule(rule) => {
                let since = self.policy.rule(rule)?.limits.since;
                leases
                    .rules
                    .get(rule.index())
                    .filter(|share| share.epoch == since)?
            }
        };
        (share.state == State::Open).then_some(share.lease)
    }

    /// How many sources have loans here, and what all of these have borrowed and lent.
    #[must_use]
    pub fn loans(&self) -> (usize, [u64; 2]) {
        self.sources
            .loans
            .as_ref()
            .map_or_else(Default::default, |loans| loans.sums())
    }

    /// A rule's counters, with what is unused of its lease.
    #[must_use]
    pub fn rule_counters(&self, rule: RuleId) -> Option<RuleCounters> {
        let mut counters = *self.rules.get(rule.index())?;
        let limit = self.policy.rule(rule).and_then(|rule| rule.limits.sessions);
        if let (Some(leases), Some(_)) = (&self.leases, limit) {
            counters.unused_leases = leases.unused(rule, counters.sessions);
        }
        Some(counters)
    }

    /// What this worker has of the table: [`Self::quota`], and room that is promised to sessions on their way here.
    pub(super) fn share(&self) -> u32 {
        let capacity = self.table.capacity();
        self.leases
            .as_ref()
            .map_or(capacity, |leases| leases.quota().min(capacity))
    }

    /// The table's lease has changed, or what is promised of its room.
    pub(super) fn set_quota(&mut self) {
        let room = self.table.capacity().saturating_sub(self.arriving());
        let quota = self.share().min(room);
        let shrinks = quota < self.quota;
        self.quota = quota;
        self.set_pressure();
        if shrinks {
            self.rearm.shrunk();
        }
    }

    /// After an apply: rules whose limits have changed begin their epochs.
    pub(super) fn begin_epochs(&mut self) {
        if let Some(leases) = &mut self.leases {
            leases.walk = Some((0, true));
        }
    }
}

impl<B: PacketBuf> Engine<B> {
    /// Asks for leases, and goes on with epochs. True: a queue was full, and there is more to say.
    pub(super) fn lease_upkeep<O: Outputs<B>>(&mut self, now: Nanos, budget: u32, out: &mut O) -> bool {
        let taken = self.table.len().saturating_add(self.pressure.reserved());
        let table = (taken, self.pressure.start(), self.table.capacity());
        let arriving = self.arriving() > 0;
        let Some(leases) = &mut self.leases else {
            return false;
        };
        let mut refused = false;
        let mut tell = |to, message| {
            let told = out.tell(to, message).is_ok();
            refused |= !told;
            told
        };
        leases.ask_for_table(now, table, &mut tell);
        leases.ask_for_rules(now, &self.rules, &mut tell);
        self.sources.settle((&self.policy, now), &mut tell);
        if let Some((from, mut all)) = leases.walk {
            let rules = &self.policy.rules;
            let end = rules.len().min(from.saturating_add(budget as usize));
            for rule in rules.get(from..end).unwrap_or_default() {
                let live = self.rules.get(rule.id.index()).map_or(0, |c| c.sessions);
                all &= leases.step(rule, (live, arriving), &mut tell);
            }
            leases.walk = if end < rules.len() {
                Some((end, all))
            } else {
                (!all).then_some((0, true))
            };
        }
        refused
    }

    /// Another worker asks for a part of a lease.
    pub(super) fn asked<O: Outputs<B>>(&mut self, now: Nanos, ask: &Ask, out: &mut O) {
        if let Limit::Source { rule, print, part } = ask.limit {
            let tell = |to, message| out.tell(to, message).is_ok();
            let context = (&*self.policy, now);
            self.sources.asked(((rule, print), part), ask, context, tell);
            return;
        }
        let taken = self.table.len().saturating_add(self.pressure.reserved());
        let Some(leases) = &mut self.leases else {
            return;
        };
        let me = leases.leasing.me;
        let share = match ask.limit {
            Limit::Table => Some((&mut leases.table, taken)),
            Limit::Rule(rule) => {
                let live = self
                    .rules
                    .get(rule.index())
                    .map_or(0, |counters| counters.sessions);
                let share = leases.rules.get_mut(rule.index());
                share.map(|share| (share, u32::try_from(live).unwrap_or(u32::MAX)))
            }
            Limit::Source { .. } => None,
        };
        let Some((share, live)) = share.filter(|(share, _)| share.epoch == ask.epoch) else {
            return;
        };
        let amount = if share.state == State::Open {
            share.gift(live, ask)
        } else {
            0
        };
        let give = Give {
            from: me,
            limit: ask.limit,
            amount,
            epoch: ask.epoch,
        };
        if out.tell(ask.from, Message::Give(give)).is_ok() {
            share.lease -= amount;
            if ask.limit == Limit::Table && amount > 0 {
                self.set_quota();
            }
        }
    }

    /// Another worker gave a part of a lease.
    pub(super) fn given<O: Outputs<B>>(&mut self, now: Nanos, give: &Give, out: &mut O) {
        let Some(leases) = &mut self.leases else {
            return;
        };
        match give.limit {
            Limit::Table => {
                leases.table.take(give.amount);
                if give.amount > 0 {
                    leases.dry = false;
                    leases.missed = false;
                }
                self.set_quota();
            }
            Limit::Rule(rule) => leases.rule_given(rule, give.amount, give.epoch),
            Limit::Source { rule, print, part } => {
                let tell = |to, message| out.tell(to, message).is_ok();
                let context = (&*self.policy, now);
                if !self.sources.given(((rule, print), part), give, context, tell) {
                    self.counters.sources_full += 1;
                }
            }
        }
    }

    /// A rule's home hears from another worker.
    pub(super) fn reported(&mut self, rule: RuleId, sessions: u32, epoch: Generation) {
        if let Some(leases) = &mut self.leases {
            leases.at_home(rule, epoch, Some(sessions), 0);
        }
    }

    /// A rule's home shared its new limit out.
    pub(super) fn opened(&mut self, rule: RuleId, amount: u32, epoch: Generation) {
        if let Some(leases) = &mut self.leases {
            leases.opened(rule, amount, epoch);
        }
    }
}
