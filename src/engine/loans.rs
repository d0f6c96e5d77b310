//! Limits by source that several workers share: of `max_sessions_per_source` and of `new_sessions_per_source` each worker has an even
//! part, for each source the remainder to others first, and lends of what it does not use.
//!
//! A source has a home among the workers, by the secret hash that is its name. Who has used its part up asks home; when home has
//! nothing left it asks the others, one after the other, so that a further question finds something. Loans are between home and
//! another worker alone, and both keep them until they are paid back: when the source has no session left, or its rate is whole
//! again, or the lender asks for them. The parts, with loans and what is on its way, are the limit, always.
//!
//! A part of a rate moves with its burst: the lender gives as much of what could be opened at once as of what comes in a second. So no
//! more sessions are opened in any time than by one worker that counts all.
//!
//! Sessions that stand when an apply lowers a limit count against their own worker's part alone.

use std::collections::HashMap;

use super::leases::{ANSWER, Leasing, PAUSE};
use super::message::{Ask, Give, Limit, Message, Part};
use super::moving::NoPlace;
use super::sources::Sources;
use crate::base::{Generation, Nanos, RuleId, WorkerId};
use crate::policy::{Limits, Policy};

/// Sources that can wait for loans at once; another one asks when it is refused again.
const QUESTIONS: usize = 64;
/// So long a loan is kept unused, and so often a lender asks for what it lent: who was refused for want of it tries again after 1, 3 and
/// 7 seconds (a SYN, RFC 6298, sections 2 and 5), and shall find it.
const KEEP: Nanos = Nanos::from_secs(10);
/// Loans that one upkeep looks at.
const SWEEP: usize = 16;

/// One source of one rule.
type Name = (RuleId, u64);

/// What this worker has borrowed of a source's limits, by [`Part`]; below zero: lent.
#[derive(Clone, Copy)]
struct Loan {
    name: Name,
    net: [i64; 2],
    /// Nothing is done about it before.
    next: Nanos,
}

/// A source that has used its part up.
#[derive(Clone, Copy)]
struct Question {
    name: Name,
    part: Part,
    /// When it was asked it waits until then.
    until: Option<Nanos>,
}

/// One worker's loans; bounded, and allocated at the start.
pub(super) struct Loans {
    leasing: Leasing,
    list: Vec<Loan>,
    places: HashMap<Name, usize, ahash::RandomState>,
    most: usize,
    questions: arrayvec::ArrayVec<Question, QUESTIONS>,
    hand: usize,
    /// Whom home asked last.
    turn: u16,
}

impl Loans {
    /// Room for a sixteenth of `sessions`, and as much again for what comes back.
    pub(super) fn new(leasing: Leasing, sessions: u32) -> Self {
        let [a, b, c, d] = leasing.seed.0;
        let most = (sessions as usize / 16).max(64);
        Self {
            leasing,
            list: Vec::with_capacity(2 * most),
            // Twice the room: removals leave marks, and half of it free lets the map clear them without allocating.
            places: HashMap::with_capacity_and_hasher(4 * most, ahash::RandomState::with_seeds(d, c, b, a)),
            most,
            questions: arrayvec::ArrayVec::new(),
            hand: 0,
            turn: leasing.me.0,
        }
    }

    const fn home(&self, name: Name) -> WorkerId {
        WorkerId((name.1 % self.leasing.workers as u64) as u16)
    }

    fn is_home(&self, name: Name) -> bool {
        self.home(name) == self.leasing.me
    }

    fn find(&self, name: Name) -> Option<&Loan> {
        if self.list.is_empty() {
            return None;
        }
        self.list.get(*self.places.get(&name)?)
    }

    /// This worker's part of a limit.
    fn part(&self, name: Name, part: Part, limit: u32) -> u32 {
        let even = self.leasing.even(limit, self.home(name).0);
        self.find(name).map_or(even, |loan| {
            // Below zero after an apply that lowered the limit.
            let own = (i64::from(even) + loan.net[part as usize]).max(0);
            u32::try_from(own).unwrap_or(u32::MAX)
        })
    }

    /// This worker's parts of a rule's limits by source.
    pub(super) fn parts(&self, name: Name, limits: &Limits) -> Limits {
        let part = |part, limit: Option<u32>| limit.map(|limit| self.part(name, part, limit));
        Limits {
            per_source: part(Part::Sessions, limits.per_source),
            new_per_source: part(Part::Rate, limits.new_per_source),
            ..*limits
        }
    }

    /// Somebody shall be asked for more.
    pub(super) fn want(&mut self, name: Name, part: Part) {
        let waits = |question: &Question| question.name == name && question.part == part;
        if !self.questions.iter().any(waits) {
            // Without a place it asks when it is refused again.
            let _ = self.questions.try_push(Question {
                name,
                part,
                until: None,
            });
        }
    }

    /// The place of a source's loans, a new one if there are fewer than `most`.
    fn place(&mut self, name: Name, most: usize) -> Option<usize> {
        if let Some(place) = self.places.get(&name) {
            return Some(*place);
        }
        if self.list.len() >= most {
            return None;
        }
        self.list.push(Loan {
            name,
            net: [0; 2],
            next: Nanos(0),
        });
        self.places.insert(name, self.list.len() - 1);
        Some(self.list.len() - 1)
    }

    fn forget(&mut self, place: usize) {
        let gone = self.list.swap_remove(place);
        self.places.remove(&gone.name);
        if let Some(moved) = self.list.get(place) {
            self.places.insert(moved.name, place);
        }
    }

    /// How many sources have loans here, and what is borrowed and lent of all.
    pub(super) fn sums(&self) -> (usize, [u64; 2]) {
        let nets = || self.list.iter().flat_map(|loan| loan.net);
        let borrowed = nets().filter(|net| *net > 0).map(i64::unsigned_abs).sum();
        let lent = nets().filter(|net| *net < 0).map(i64::unsigned_abs).sum();
        (self.list.len(), [borrowed, lent])
    }
}

fn limits_of(policy: &Policy, rule: RuleId) -> Limits {
    policy.rule(rule).map(|rule| rule.limits).unwrap_or_default()
}

const fn limit_of(limits: &Limits, part: Part) -> Option<u32> {
    match part {
        Part::Sessions => limits.per_source,
        Part::Rate => limits.new_per_source,
    }
}

impl Sources {
    /// What this worker has of a part, and what of it is unused.
    fn unused(&self, loans: &Loans, name: Name, part: Part, limits: &Limits, now: Nanos) -> (u32, u32) {
        let whole = loans.part(name, part, limit_of(limits, part).unwrap_or(0));
        let used = match part {
            Part::Sessions => self.live(name),
            Part::Rate => self.opened_of_late(name, whole, now),
        };
        (whole, whole.saturating_sub(used))
    }

    /// Another worker asks for a part of a source's limit.
    pub(super) fn asked(
        &mut self,
        (name, part): (Name, Part),
        ask: &Ask,
        (policy, now): (&Policy, Nanos),
        tell: impl FnOnce(WorkerId, Message) -> bool,
    ) {
        let Some(mut loans) = self.loans.take() else {
            return;
        };
        let limits = limits_of(policy, name.0);
        let (whole, unused) = self.unused(&loans, name, part, &limits, now);
        let amount = unused.div_ceil(2).min(ask.want);
        let is_home = loans.is_home(name);
        let most = loans.most;
        let place = (amount > 0).then(|| loans.place(name, most)).flatten();
        let amount = if place.is_some() { amount } else { 0 };
        let give = Give {
            from: loans.leasing.me,
            limit: ask.limit,
            amount,
            epoch: Generation::default(),
        };
        // Unanswered, it asks again.
        let told = tell(ask.from, Message::Give(give));
        if let Some(place) = place.filter(|_| told) {
            let loan = &mut loans.list[place];
            loan.net[part as usize] -= i64::from(amount);
            loan.next = now.plus(KEEP);
            if part == Part::Rate {
                self.rescale(name, whole, whole - amount, now);
            }
        }
        if is_home && amount == 0 {
            // What others have shall be here when it asks again.
            loans.want(name, part);
        }
        self.loans = Some(loans);
    }

    /// Another worker gave, or paid back. False: there is no place for it, and the source has less from now on.
    pub(super) fn given(
        &mut self,
        (name, part): (Name, Part),
        give: &Give,
        (policy, now): (&Policy, Nanos),
        tell: impl FnOnce(WorkerId, Message) -> bool,
    ) -> bool {
        let Some(mut loans) = self.loans.take() else {
            return false;
        };
        let answered = |question: &Question| (question.name, question.part) == (name, part);
        if give.amount > 0 {
            loans.questions.retain(|question| !answered(question));
        } else if let Some(question) = loans.questions.iter_mut().find(|question| answered(question)) {
            question.until = question.until.map(|_| now.plus(PAUSE));
        }
        let limits = limits_of(policy, name.0);
        let (whole, _) = self.unused(&loans, name, part, &limits, now);
        let most = 2 * loans.most;
        let kept = if give.amount == 0 {
            true
        } else if let Some(place) = loans.place(name, most) {
            let loan = &mut loans.list[place];
            loan.net[part as usize] += i64::from(give.amount);
            loan.next = now.plus(KEEP);
            if part == Part::Rate {
                self.rescale(name, whole, whole.saturating_add(give.amount), now);
            }
            true
        } else {
            let from = loans.leasing.me;
            tell(give.from, Message::Give(Give { from, ..*give }))
        };
        self.loans = Some(loans);
        kept
    }

    /// Does a counted session that goes to another worker take one of its source's part along? Whoever asks for it later gets it by the
    /// source's home, as of every loan.
    pub(super) fn may_send_along(
        &mut self,
        rule: RuleId,
        address: &[u8; 16],
        limits: &Limits,
    ) -> Result<bool, NoPlace> {
        let name = (rule, self.print(rule, address));
        let (Some(limit), Some(loans)) = (limits.per_source, &mut self.loans) else {
            return Ok(false);
        };
        if loans.part(name, Part::Sessions, limit) == 0 {
            // More sessions stand than the limit allows since an apply.
            return Ok(false);
        }
        let most = loans.most;
        loans.place(name, most).map(|_| true).ok_or(NoPlace)
    }

    /// One of a source's part goes: [`Self::may_send_along`] has found a place.
    pub(super) fn send_along(&mut self, rule: RuleId, address: &[u8; 16], now: Nanos) {
        let name = (rule, self.print(rule, address));
        let Some(loans) = &mut self.loans else { return };
        let most = loans.most;
        if let Some(place) = loans.place(name, most) {
            let loan = &mut loans.list[place];
            loan.net[Part::Sessions as usize] -= 1;
            loan.next = now.plus(KEEP);
        }
    }

    /// What [`Self::send_along`] sent is here. False: there is no place to note that, and the source has less from now on.
    pub(super) fn came_along(&mut self, rule: RuleId, address: &[u8; 16], now: Nanos) -> bool {
        let name = (rule, self.print(rule, address));
        let Some(loans) = &mut self.loans else {
            return true;
        };
        let most = 2 * loans.most;
        let Some(place) = loans.place(name, most) else {
            return false;
        };
        let loan = &mut loans.list[place];
        loan.net[Part::Sessions as usize] += 1;
        loan.next = now.plus(KEEP);
        true
    }

    /// Loans that other workers' sessions may bring.
    pub(super) fn room_for_loans(&self) -> u32 {
        self.loans.as_ref().map_or(u32::MAX, |loans| {
            u32::try_from((2 * loans.most).saturating_sub(loans.list.len())).unwrap_or(u32::MAX)
        })
    }

    /// Sends questions, pays back what is not needed.
    pub(super) fn settle(
        &mut self,
        (policy, now): (&Policy, Nanos),
        mut tell: impl FnMut(WorkerId, Message) -> bool,
    ) {
        let Some(mut loans) = self.loans.take() else {
            return;
        };
        for place in (0..loans.questions.len()).rev() {
            let question = loans.questions[place];
            match question.until {
                Some(until) if now < until => {}
                Some(_) => {
                    loans.questions.swap_remove(place);
                }
                None => {
                    if self.ask(&mut loans, question, u32::MAX, &mut tell) {
                        loans.questions[place].until = Some(now.plus(ANSWER));
                    }
                }
            }
        }
        for _ in 0..SWEEP.min(loans.list.len()) {
            loans.hand = if loans.hand < loans.list.len() {
                loans.hand
            } else {
                0
            };
            let place = loans.hand;
            let Some(loan) = loans.list.get(place).copied() else {
                break;
            };
            let asks = loans.questions.iter().any(|question| question.name == loan.name);
            if loan.net == [0; 2] && !asks && now >= loan.next {
                loans.forget(place);
                continue;
            }
            loans.hand += 1;
            if now >= loan.next && !loans.is_home(loan.name) {
                self.pay_back(&mut loans, place, (policy, now), &mut tell);
            }
        }
        self.loans = Some(loans);
    }

    /// Asks home, or as home the next of the others.
    fn ask(
        &self,
        loans: &mut Loans,
        question: Question,
        want: u32,
        mut tell: impl FnMut(WorkerId, Message) -> bool,
    ) -> bool {
        let most = loans.most;
        if loans.place(question.name, most).is_none() {
            return true;
        }
        let (me, workers) = (loans.leasing.me, loans.leasing.workers);
        let mut to = loans.home(question.name);
        if to == me {
            to = WorkerId((loans.turn + 1) % workers);
            if to == me {
                to = WorkerId((to.0 + 1) % workers);
            }
            loans.turn = to.0;
        }
        let ask = Ask {
            from: me,
            limit: Limit::Source {
                rule: question.name.0,
                print: question.name.1,
                part: question.part,
            },
            want,
            live: 0,
            lease: 0,
            epoch: Generation::default(),
        };
        tell(to, Message::Ask(ask))
    }

    /// Of a source that needs no loan any more: what is borrowed goes home, what is lent is asked for.
    fn pay_back(
        &self,
        loans: &mut Loans,
        place: usize,
        (policy, now): (&Policy, Nanos),
        mut tell: impl FnMut(WorkerId, Message) -> bool,
    ) {
        let loan = loans.list[place];
        let limits = limits_of(policy, loan.name.0);
        let (mut net, mut next) = (loan.net, now.plus(PAUSE));
        for part in [Part::Sessions, Part::Rate] {
            let (whole, unused) = self.unused(loans, loan.name, part, &limits, now);
            let borrowed = u32::try_from(loan.net[part as usize]).unwrap_or(0);
            let lent = u32::try_from(-loan.net[part as usize]).unwrap_or(0);
            let amount = borrowed.min(unused);
            if self.live(loan.name) == 0 && unused == whole && amount > 0 {
                let give = Give {
                    from: loans.leasing.me,
                    limit: Limit::Source {
                        rule: loan.name.0,
                        print: loan.name.1,
                        part,
                    },
                    amount,
                    epoch: Generation::default(),
                };
                if tell(loans.home(loan.name), Message::Give(give)) {
                    net[part as usize] -= i64::from(amount);
                }
            } else if lent > 0 {
                let question = Question {
                    name: loan.name,
                    part,
                    until: None,
                };
                if self.ask(loans, question, lent, &mut tell) {
                    next = now.plus(KEEP);
                }
            }
        }
        loans.list[place].net = net;
        loans.list[place].next = next;
    }
}
