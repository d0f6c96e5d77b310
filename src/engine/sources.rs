//! Sessions by rule and source address, for `max_sessions_per_source` and `new_sessions_per_source`: a hash table of fixed
//! capacity, allocated at start: 22.5 bytes a session of the session table, untouched without such rules. It has room for more
//! entries than there can be sessions.
//!
//! A rule and an address stand in it by 64 bits of a secret hash: two of them are taken for one with a chance of one in 2^64,
//! which refuses too much, never too little.
//!
//! An entry counts live sessions and remembers the rate. It goes with its last session, unless the source opened sessions
//! so lately that its rate still counts them: then it lingers for at most a second, and a sweep takes it. Should all places be
//! taken by such, a new source is refused and `sources_full` counts it: a limit is never exceeded for want of memory.
//!
//! Of several workers each counts against its own part of a limit, which [`super::loans`] moves.

use ahash::RandomState;

use super::leases::Leasing;
use super::loans::Loans;
use super::message::Part;
use crate::base::slab::{Memory, MemoryError};
use crate::base::{Nanos, RuleId, Slab};
use crate::flow::HashSeed;
use crate::policy::Limits;

/// One source under one rule. Packed: there may be as many as sessions, and four bytes of each would say nothing.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, packed(4))]
struct Source {
    /// The secret hash of rule and address; its high bits say where it belongs. 0: a free place.
    print: u64,
    /// The rate's state: when the sessions opened so far would have been opened at exactly the rate (the "theoretical arrival
    /// time" of the generic cell rate algorithm, ITU-T I.371, annex A). Up to now: the burst is whole.
    paid_until: Nanos,
    /// Live sessions.
    sessions: u32,
}

impl Source {
    /// Its rate counts none of its sessions any more.
    const fn is_whole(&self, now: Nanos) -> bool {
        self.paid_until.0 <= now.0
    }
}

const _: () = assert!(size_of::<Source>() == 20);

/// Why a source may not open a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has as many as the rule allows.
    Sessions,
    /// It opened as many as the rule allows of late.
    Rate,
    /// No place is left to count it.
    Full,
}

/// The table.
pub(super) struct Sources {
    places: Slab<Source>,
    hasher: RandomState,
    used: usize,
    /// Entries at most: nine tenths of the places, so that a search ends soon.
    limit: usize,
    /// Entries without sessions.
    lingering: usize,
    /// Where the sweep goes on.
    hand: usize,
    /// What moves between workers, of several.
    pub(super) loans: Option<Box<Loans>>,
}

/// Nanoseconds between two sessions at a rate, rounded up, so that it is never exceeded.
fn interval(rate: u32) -> u64 {
    Nanos::SECOND.0.div_ceil(u64::from(rate.max(1)))
}

impl Sources {
    pub(super) fn new(sessions: u32, memory: &impl Memory, seed: HashSeed) -> Result<Self, MemoryError> {
        let sessions = sessions as usize;
        let places = memory.slab(sessions + sessions / 8 + 16)?;
        // Another hash than the session table's, which has the same secret.
        let [a, b, c, d] = seed.0;
        Ok(Self {
            limit: places.len() / 10 * 9,
            places,
            hasher: RandomState::with_seeds(b, c, d, a),
            used: 0,
            lingering: 0,
            hand: 0,
            loans: None,
        })
    }

    /// From now on the limits are shared with other workers: each source has the same name on all of them. Before the first
    /// session.
    pub(super) fn share(&mut self, leasing: Leasing, sessions: u32) {
        let [a, b, c, d] = leasing.seed.0;
        self.hasher = RandomState::with_seeds(b, c, d, a);
        self.loans = Some(Box::new(Loans::new(leasing, sessions)));
    }

    /// This worker's part of a source's limits.
    fn parts(&self, rule: RuleId, print: u64, limits: &Limits) -> Limits {
        match &self.loans {
            Some(loans) => loans.parts((rule, print), limits),
            None => *limits,
        }
    }

    /// Live sessions of a source.
    pub(super) fn live(&self, (_, print): (RuleId, u64)) -> u32 {
        let place = self.search(print);
        place.map_or(0, |place| self.places[place].sessions)
    }

    /// How many sessions its rate still counts of a source that may open `rate` a second here, rounded up.
    pub(super) fn opened_of_late(&self, (_, print): (RuleId, u64), rate: u32, now: Nanos) -> u32 {
        let place = self.search(print);
        let ahead = place.map_or(0, |place| self.places[place].paid_until.since(now).0);
        let opened = (u128::from(ahead) * u128::from(rate)).div_ceil(u128::from(Nanos::SECOND.0));
        u32::try_from(opened).unwrap_or(u32::MAX)
    }

    /// A source's rate changes here: the sessions that it still counts stay as many.
    pub(super) fn rescale(&mut self, (_, print): (RuleId, u64), from: u32, to: u32, now: Nanos) {
        let Ok(place) = self.search(print) else {
            return;
        };
        let source = &mut self.places[place];
        let ahead = u128::from(source.paid_until.since(now).0) * u128::from(from);
        let ahead = ahead.div_ceil(u128::from(to.max(1)));
        source.paid_until = now.plus(Nanos(u64::try_from(ahead).unwrap_or(u64::MAX)));
    }

    /// What stands for a rule's source; never 0.
    pub(super) fn print(&self, rule: RuleId, address: &[u8; 16]) -> u64 {
        self.hasher
            .hash_one((rule.0, u128::from_ne_bytes(*address)))
            .max(1)
    }

    /// The place where the search for an entry begins.
    const fn home(&self, print: u64) -> usize {
        ((print as u128 * self.len() as u128) >> 64) as usize
    }

    const fn next(&self, place: usize) -> usize {
        if place + 1 == self.len() { 0 } else { place + 1 }
    }

    const fn len(&self) -> usize {
        match &self.places {
            Slab::Heap(places) => places.len(),
            Slab::Static(places) => places.len(),
        }
    }

    /// The entry, or the free place where it would stand.
    fn search(&self, print: u64) -> Result<usize, usize> {
        let mut place = self.home(print);
        loop {
            let here = self.places[place].print;
            if here == print {
                return Ok(place);
            }
            // There is a free place: `used` is below all of them.
            if here == 0 {
                return Err(place);
            }
            place = self.next(place);
        }
    }

    fn find(&self, rule: RuleId, address: &[u8; 16]) -> Result<usize, usize> {
        self.search(self.print(rule, address))
    }

    /// May this source open one more session under the rule now? If other workers may have room for it they are asked.
    pub(super) fn check(
        &mut self,
        rule: RuleId,
        address: &[u8; 16],
        limits: &Limits,
        now: Nanos,
    ) -> Result<(), Refusal> {
        let print = self.print(rule, address);
        let limits = self.parts(rule, print, limits);
        let refused = self.check_parts(print, &limits, now);
        if let (Err(refusal), Some(loans)) = (refused, &mut self.loans) {
            match refusal {
                Refusal::Sessions => loans.want((rule, print), Part::Sessions),
                Refusal::Rate => loans.want((rule, print), Part::Rate),
                Refusal::Full => {}
            }
        }
        refused
    }

    fn check_parts(&self, print: u64, limits: &Limits, now: Nanos) -> Result<(), Refusal> {
        // A part may be nothing.
        if limits.per_source == Some(0) {
            return Err(Refusal::Sessions);
        }
        if limits.new_per_source == Some(0) {
            return Err(Refusal::Rate);
        }
        let Ok(place) = self.search(print) else {
            return if self.used < self.limit {
                Ok(())
            } else {
                Err(Refusal::Full)
            };
        };
        let source = &self.places[place];
        if limits.per_source.is_some_and(|most| source.sessions >= most) {
            return Err(Refusal::Sessions);
        }
        // One second's worth at once.
        let ahead = |rate: u32| interval(rate) * u64::from(rate.saturating_sub(1));
        if limits
            .new_per_source
            .is_some_and(|rate| source.paid_until.since(now).0 > ahead(rate))
        {
            return Err(Refusal::Rate);
        }
        Ok(())
    }

    /// Counts a session that the source opens now. Checked before: there is a place.
    pub(super) fn open(&mut self, rule: RuleId, address: &[u8; 16], limits: &Limits, now: Nanos) -> bool {
        let Some(place) = self.join(rule, address) else {
            return false;
        };
        let limits = self.parts(rule, self.places[place].print, limits);
        if let Some(rate) = limits.new_per_source {
            let source = &mut self.places[place];
            source.paid_until = Nanos(source.paid_until.max(now).0.saturating_add(interval(rate)));
        }
        true
    }

    /// Counts a session that is there already, whatever the limits say. False: there is no place for its source.
    pub(super) fn adopt(&mut self, rule: RuleId, address: &[u8; 16]) -> bool {
        self.join(rule, address).is_some()
    }

    fn join(&mut self, rule: RuleId, address: &[u8; 16]) -> Option<usize> {
        let print = self.print(rule, address);
        let place = match self.search(print) {
            Ok(place) => {
                self.lingering -= usize::from(self.places[place].sessions == 0);
                place
            }
            Err(_) if self.used >= self.limit => return None,
            Err(place) => {
                self.used += 1;
                self.places[place] = Source {
                    print,
                    ..Source::default()
                };
                place
            }
        };
        self.places[place].sessions += 1;
        Some(place)
    }

    /// One session less of a source that was counted.
    pub(super) fn leave(&mut self, rule: RuleId, address: &[u8; 16], now: Nanos) {
        let Ok(place) = self.find(rule, address) else {
            return;
        };
        let source = &mut self.places[place];
        source.sessions = source.sessions.saturating_sub(1);
        if source.sessions > 0 {
            return;
        }
        self.lingering += 1;
        if source.is_whole(now) {
            self.free(place);
        }
    }

    /// Takes an entry without sessions out. Those behind it that it kept from their homes move up.
    fn free(&mut self, place: usize) {
        self.lingering -= 1;
        self.used -= 1;
        let len = self.len();
        let distance = |from: usize, to: usize| if to >= from { to - from } else { to + len - from };
        let mut hole = place;
        let mut place = self.next(hole);
        while self.places[place].print != 0 {
            let source = self.places[place];
            let home = self.home(source.print);
            if distance(home, place) >= distance(hole, place) {
                self.places[hole] = source;
                hole = place;
            }
            place = self.next(place);
        }
        self.places[hole] = Source::default();
    }

    /// Looks at `budget` places for entries that need not linger any more.
    pub(super) fn sweep(&mut self, now: Nanos, budget: u32) {
        let mut budget = (budget as usize).min(self.len());
        while self.lingering > 0 && budget > 0 {
            budget -= 1;
            let source = self.places[self.hand];
            if source.print != 0 && source.sessions == 0 && source.is_whole(now) {
                // Another may have moved up into its place.
                self.free(self.hand);
            } else {
                self.hand = self.next(self.hand);
            }
        }
    }

    /// Entries, and those of them without sessions.
    #[must_use]
    pub(super) const fn entries(&self) -> [usize; 2] {
        [self.used, self.lingering]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::base::slab::HeapMemory;

    const RULE: RuleId = RuleId(7);

    fn sources(sessions: u32) -> Sources {
        Sources::new(sessions, &HeapMemory, HashSeed([1, 2, 3, 4])).unwrap()
    }

    fn address(n: u32) -> [u8; 16] {
        std::net::Ipv4Addr::from(n).to_ipv6_mapped().octets()
    }

    fn rate(new_per_source: u32) -> Limits {
        Limits {
            new_per_source: Some(new_per_source),
            ..Limits::default()
        }
    }

    /// Opens and ends sessions as fast as the rate lets it; returns when.
    fn opened(rate: u32, step: Nanos, for_time: Nanos) -> Vec<Nanos> {
        let limits = super::tests::rate(rate);
        let (mut sources, mut now, mut times) = (sources(4), Nanos::SECOND, vec![]);
        while now < Nanos::SECOND.plus(for_time) {
            while sources.check(RULE, &address(1), &limits, now).is_ok() {
                assert!(sources.open(RULE, &address(1), &limits, now));
                sources.leave(RULE, &address(1), now);
                times.push(now);
            }
            sources.sweep(now, u32::MAX);
            now = now.plus(step);
        }
        times
    }

    #[test]
    fn one_burst_and_then_the_rate_exactly() {
        for per_second in [1, 2, 3, 50, 1000] {
            let times = opened(per_second, Nanos(100_000), Nanos::from_secs(5));
            let rate = per_second as usize;
            assert_eq!(times.iter().filter(|t| **t == Nanos::SECOND).count(), rate);
            // In any second beside the burst, the rate, and never more than a burst and the time's worth.
            assert!(
                times.len() <= 6 * rate && times.len() >= 6 * rate - 1 - rate / 50,
                "{per_second}: {}",
                times.len()
            );
            for (n, time) in times.iter().enumerate().skip(rate) {
                let elapsed = time.since(Nanos::SECOND).0;
                assert!(((n + 1 - rate) as u64) * 1_000_000_000 <= elapsed * u64::from(per_second));
            }
        }
    }

    #[test]
    fn a_source_without_sessions_lingers_until_its_rate_is_whole_again() {
        let (mut sources, limits) = (sources(4), rate(2));
        let now = Nanos::from_secs(9);
        for _ in 0..2 {
            assert!(sources.open(RULE, &address(1), &limits, now));
            sources.leave(RULE, &address(1), now);
        }
        sources.sweep(now.plus(Nanos(999_999_999)), u32::MAX);
        assert_eq!(sources.entries(), [1, 1]);
        sources.sweep(now.plus(Nanos::SECOND), u32::MAX);
        assert_eq!(sources.entries(), [0, 0]);
    }

    #[test]
    fn a_full_table_refuses_new_sources_and_no_others() {
        let mut sources = sources(64);
        let limits = Limits {
            per_source: Some(2),
            ..Limits::default()
        };
        let most = (0..).take_while(|n| sources.adopt(RULE, &address(*n))).count() as u32;
        assert!(most >= 64, "{most}: more sources than sessions");
        let now = Nanos(0);
        assert_eq!(
            sources.check(RULE, &address(most), &limits, now),
            Err(Refusal::Full)
        );
        assert!(!sources.open(RULE, &address(most), &limits, now));
        assert_eq!(sources.check(RULE, &address(3), &limits, now), Ok(()));
        assert!(sources.open(RULE, &address(3), &limits, now));
        assert_eq!(
            sources.check(RULE, &address(3), &limits, now),
            Err(Refusal::Sessions)
        );
        sources.leave(RULE, &address(0), now);
        assert_eq!(sources.check(RULE, &address(most), &limits, now), Ok(()));
    }

    proptest! {
        /// Entries move up when others go: none is lost, none is found twice.
        #[test]
        fn counts_are_those_of_a_map(steps in prop::collection::vec((0_u32..24, 0_u32..2, prop::bool::ANY), 0..400)) {
            let mut sources = sources(12);
            let mut model = BTreeMap::new();
            for (n, rule, opens) in steps {
                let (rule, key) = (RuleId(rule), (n, rule));
                if opens {
                    let known = model.contains_key(&key);
                    let joined = sources.adopt(rule, &address(n));
                    prop_assert_eq!(joined, known || model.len() < sources.limit);
                    if joined {
                        *model.entry(key).or_insert(0) += 1;
                    }
                } else if let Some(count) = model.get_mut(&key) {
                    *count -= 1;
                    if *count == 0 {
                        model.remove(&key);
                    }
                    sources.leave(rule, &address(n), Nanos(0));
                }
                prop_assert_eq!(sources.entries(), [model.len(), 0]);
                for ((n, rule), count) in &model {
                    let place = sources.find(RuleId(*rule), &address(*n));
                    prop_assert_eq!(place.ok().map(|place| sources.places[place].sessions), Some(*count));
                }
            }
        }
    }
}
