//! The session table against a slow oracle: `std` maps and exact time, under random operations, a manual clock, and hashes
//! from good to hopeless.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::HashMap;

use haechi::base::slab::HeapMemory;
use haechi::base::{Nanos, PortId, RuleId, SessionIx, Tick};
use haechi::flow::{
    Direction, Due, Entry, EvictionClass, FlowKey, HashKey, HashSeed, KeyClass, SecretHash, Session,
    SessionId, SessionState, SessionTable, TableError, TableFull,
};
use proptest::prelude::*;

/// Hashes that keys may get.
#[derive(Clone, Copy, Debug)]
enum Hashing {
    /// What a worker uses, under a fixed seed.
    Secret,
    /// One bucket, one tag.
    AllTheSame(u64),
    /// Few buckets, few tags.
    Few(u64),
    /// One tag; buckets by the low bits of the key.
    OneTag,
}

struct TestHash(Hashing, SecretHash);

impl HashKey for TestHash {
    fn hash(&self, key: &FlowKey) -> u64 {
        let good = self.1.hash(key);
        match self.0 {
            Hashing::Secret => good,
            Hashing::AllTheSame(hash) => hash,
            Hashing::Few(n) => (good % n).wrapping_mul(0x5555_0000_0001),
            Hashing::OneTag => good << 32,
        }
    }
}

fn hashing() -> impl Strategy<Value = Hashing> {
    prop_oneof![
        Just(Hashing::Secret),
        // The last bucket, so that the walk goes over the end; and tag bits that are 0.
        prop_oneof![Just(0), Just(u64::MAX), Just(1 << 63)].prop_map(Hashing::AllTheSame),
        (2_u64..5).prop_map(Hashing::Few),
        Just(Hashing::OneTag),
    ]
}

fn key(n: u8) -> FlowKey {
    FlowKey {
        low: [1; 16],
        high: [2; 16],
        low_port: u16::from(n),
        high_port: 53,
        domain: 7,
        protocol: 17,
        class: KeyClass::Ports,
        reserved: 0,
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u8, SessionState),
    Remove(u8),
    Touch(u8, bool, u16),
    SetState(u8, SessionState),
    Find(Vec<u8>),
    Wait(Nanos),
    /// With this budget a call, until no lag is left.
    Expire(u32),
    /// One call.
    ExpireOnce(u32),
    /// Every state's timeout is multiplied by a 16th of this from now on.
    Timeouts(u32),
    RetainOdd(u32),
}

fn state() -> impl Strategy<Value = SessionState> {
    prop::sample::select(SessionState::ALL.to_vec())
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..60_u8, state()).prop_map(|(k, s)| Op::Insert(k, s)),
        4 => (0..60_u8).prop_map(Op::Remove),
        6 => (0..60_u8, any::<bool>(), any::<u16>()).prop_map(|(k, d, b)| Op::Touch(k, d, b)),
        4 => (0..60_u8, state()).prop_map(|(k, s)| Op::SetState(k, s)),
        3 => prop::collection::vec(0..60_u8, 0..150).prop_map(Op::Find),
        6 => prop_oneof![
            0..3_000_000_000_u64,
            0..60_000_000_000_u64,
            // More than a turn of the wheel (36 minutes), and days.
            0..20_000_000_000_000_u64,
        ]
        .prop_map(|n| Op::Wait(Nanos(n))),
        4 => (1..200_u32).prop_map(Op::Expire),
        2 => (0..9_u32).prop_map(Op::ExpireOnce),
        1 => (1..40_u32).prop_map(Op::Timeouts),
        1 => (1..50_u32).prop_map(Op::RetainOdd),
    ]
}

/// What the oracle knows of a session.
#[derive(Clone, Debug)]
struct Model {
    id: SessionId,
    created: Nanos,
    last: Nanos,
    /// When it was last given another timeout.
    changed: Nanos,
    state: SessionState,
    /// Counts up: when it came into its class of sessions that may be evicted.
    joined: u64,
    packets: [u64; 2],
    bytes: [u64; 2],
}

struct Pair {
    table: SessionTable<TestHash>,
    model: HashMap<u8, Model>,
    now: Nanos,
    scale: u32,
    joins: u64,
}

/// Timeouts from a fraction of a second to a day, by state.
fn timeout(state: SessionState, scale: u32) -> Nanos {
    let base_ms: u64 = match state.index() {
        0 => 300,
        1 => 1_000,
        2 => 2_700,
        3 => 86_400_000,
        4 => 7_440_000,
        n => 10_000 * n as u64,
    };
    Nanos::from_millis(base_ms * u64::from(scale) / 16)
}

fn ticks(state: SessionState, scale: u32) -> u32 {
    Tick::count(timeout(state, scale))
}

/// A session may be seen idle this much after its timeout, if the calls do not lag.
const LATE: Nanos = Nanos(Nanos::SECOND.0 / 3);

impl Pair {
    fn new(capacity: u32, hashing: Hashing, start: Nanos) -> Self {
        let hasher = TestHash(hashing, SecretHash::new(HashSeed([1, 2, 3, 4])));
        Self {
            table: SessionTable::with_hash(capacity, &HeapMemory, hasher).unwrap(),
            model: HashMap::new(),
            now: start,
            scale: 16,
            joins: 0,
        }
    }

    fn find(&self, k: u8) -> Option<SessionIx> {
        self.table.find(&key(k), self.table.hash(&key(k)))
    }

    fn insert(&mut self, k: u8, state: SessionState) {
        let found = self.find(k);
        assert_eq!(found, self.model.get(&k).map(|m| m.id.ix));
        if found.is_some() {
            return;
        }
        let full = self.model.len() == self.table.capacity() as usize;
        let mut session = Session::new(key(k), Direction::HighToLow, state);
        session.rule = RuleId(u32::from(k));
        let hash = self.table.hash(&key(k));
        match self
            .table
            .insert(session, hash, self.now, ticks(state, self.scale))
        {
            Ok(ix) => {
                assert!(!full);
                let id = self.table.entry(ix).unwrap().id;
                self.joins += 1;
                let model = Model {
                    joined: self.joins,
                    id,
                    created: self.now,
                    last: self.now,
                    changed: self.now,
                    state,
                    packets: [0; 2],
                    bytes: [0; 2],
                };
                self.model.insert(k, model);
            }
            Err(TableFull) => assert!(full, "an insertion failed below capacity"),
        }
    }

    fn remove(&mut self, k: u8) {
        let found = self.find(k);
        match self.model.remove(&k) {
            Some(m) => {
                assert_eq!(found, Some(m.id.ix));
                assert!(self.table.remove(m.id.ix));
                assert_eq!(self.table.resolve(m.id), None);
                assert!(!self.table.remove(m.id.ix), "removed twice");
            }
            None => assert_eq!(found, None),
        }
    }

    fn touch(&mut self, k: u8, by_opener: bool, bytes: u16) {
        if let Some(m) = self.model.get_mut(&k) {
            let sender = if by_opener {
                Direction::HighToLow
            } else {
                Direction::LowToHigh
            };
            self.table
                .touch(m.id.ix, sender, self.now.tick(), u32::from(bytes));
            m.last = self.now;
            m.packets[usize::from(!by_opener)] += 1;
            m.bytes[usize::from(!by_opener)] += u64::from(bytes);
        }
    }

    fn find_batch(&self, keys: &[u8]) {
        let flow_keys: Vec<_> = keys.iter().map(|k| key(*k)).collect();
        let mut hashes = vec![0; keys.len()];
        let mut found = vec![Some(SessionIx(12345)); keys.len()];
        self.table.hash_batch(&flow_keys, &mut hashes);
        self.table.find_batch(&flow_keys, &hashes, &mut found);
        let expected: Vec<_> = keys.iter().map(|k| self.model.get(k).map(|m| m.id.ix)).collect();
        assert_eq!(found, expected);
    }

    /// Ends in the oracle what the table says has ended; nothing may end early.
    fn expire_once(&mut self, budget: u32) -> Nanos {
        let (now, scale) = (self.now, self.scale);
        let model = &mut self.model;
        let mut ended = 0;
        let expiry = self.table.expire(
            now.tick(),
            budget,
            |s| ticks(s.state(), scale),
            |entry| {
                ended += 1;
                let k = entry.session.rule.0 as u8;
                let m = model.remove(&k).expect("a session ended that is not there");
                check(&entry, &m);
                assert!(
                    now.since(m.last) >= timeout(m.state, scale),
                    "session {k} ended early"
                );
                Due::End
            },
        );
        assert_eq!(expiry.expired, ended);
        assert!(expiry.expired + expiry.rearmed <= budget);
        expiry.lag
    }

    fn expire(&mut self, budget: u32) {
        // The first call after a pause may have a whole turn of the wheel ahead of it.
        let calls = 2 * (8192 + 2 * self.table.capacity()) / budget + 2;
        let caught_up = (0..calls).any(|_| self.expire_once(budget) == Nanos(0));
        assert!(caught_up, "{calls} calls with a budget of {budget} leave a lag");
        for (k, m) in &self.model {
            let deadline = m.last.plus(timeout(m.state, self.scale)).max(m.changed);
            assert!(
                self.now < deadline.plus(LATE),
                "session {k} should have ended: {m:?}, now {:?}",
                self.now
            );
        }
    }

    fn new_timeouts(&mut self, scale: u32, page: u32) {
        self.scale = scale;
        for m in self.model.values_mut() {
            m.changed = self.now;
        }
        let mut from = Some(0);
        while let Some(slot) = from {
            from = self.table.rearm(slot, page, |s| ticks(s.state(), scale));
        }
    }

    fn retain(&mut self, page: u32, keep: impl Fn(u8) -> bool) {
        let mut from = Some(0);
        let mut shown = 0;
        while let Some(slot) = from {
            from = self.table.retain(slot, page, |entry| {
                shown += 1;
                keep(entry.session.rule.0 as u8)
            });
        }
        assert_eq!(shown, self.model.len());
        self.model.retain(|k, _| keep(*k));
    }

    fn check_all(&self) {
        assert_eq!(self.table.len() as usize, self.model.len());
        for state in SessionState::ALL {
            let expected = self.model.values().filter(|m| m.state == *state).count();
            assert_eq!(self.table.count(*state) as usize, expected);
        }
        self.check_evictable();
        let mut shown = 0;
        let mut from = Some(0);
        while let Some(slot) = from {
            from = self.table.scan(slot, 7, |entry| {
                shown += 1;
                check(&entry, &self.model[&(entry.session.rule.0 as u8)]);
            });
        }
        assert_eq!(shown, self.model.len());
        let lived = self.table.inserted_total() - self.table.removed_total();
        assert_eq!(lived, u64::from(self.table.len()));
    }
}

impl Pair {
    /// The first of the lowest class is the one to be evicted.
    fn check_evictable(&self) {
        let class = |m: &Model| EvictionClass::of(m.state);
        for one in EvictionClass::ALL {
            let expected = self.model.values().filter(|m| class(m) == Some(one)).count();
            assert_eq!(self.table.evictable(one) as usize, expected, "{one:?}");
        }
        let evictable = self.model.values().filter(|m| class(m).is_some());
        let first = evictable.min_by_key(|m| (class(m).map(|class| class as u8), m.joined));
        assert_eq!(self.table.victim(|_| true), first.map(|m| m.id.ix));
        assert_eq!(self.table.victim(|_| false), None);
        assert_eq!(self.table.opened_by(PortId(0)), self.table.len());
    }
}

fn check(entry: &Entry<'_>, m: &Model) {
    assert_eq!(entry.id, m.id);
    assert_eq!(entry.created, m.created);
    assert_eq!(entry.packets, m.packets);
    assert_eq!(entry.session.bytes(), m.bytes);
    assert_eq!(entry.session.state(), m.state);
    assert_eq!(entry.session.last_seen(), m.last.tick());
}

fn run(pair: &mut Pair, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Insert(k, state) => pair.insert(*k, *state),
            Op::Remove(k) => pair.remove(*k),
            Op::Touch(k, by_opener, bytes) => pair.touch(*k, *by_opener, *bytes),
            Op::SetState(k, state) => {
                if let Some(m) = pair.model.get_mut(k) {
                    if EvictionClass::of(m.state) != EvictionClass::of(*state) {
                        pair.joins += 1;
                        m.joined = pair.joins;
                    }
                    m.state = *state;
                    m.changed = pair.now;
                    pair.table.set_state(m.id.ix, *state, ticks(*state, pair.scale));
                }
            }
            Op::Find(keys) => pair.find_batch(keys),
            Op::Wait(pause) => pair.now = pair.now.plus(*pause),
            Op::Expire(budget) => pair.expire(*budget),
            Op::ExpireOnce(budget) => {
                pair.expire_once(*budget);
            }
            Op::Timeouts(scale) => pair.new_timeouts(*scale, 11),
            Op::RetainOdd(page) => pair.retain(*page, |k| k % 2 == 1),
        }
        assert_eq!(pair.table.len() as usize, pair.model.len());
        pair.check_evictable();
    }
    pair.check_all();
    // Whatever came before: everything ends in its time.
    pair.now = pair.now.plus(Nanos::from_secs(4 * 86_400));
    pair.expire(64);
    assert!(pair.table.is_empty());
    assert_eq!(pair.table.half_open(), 0);
    pair.find_batch(&(0..60).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// The clock starts anywhere, also just before its ticks wrap.
    #[test]
    fn table_is_what_a_map_with_exact_time_is(
        capacity in prop_oneof![1..4_u32, 5..12_u32, 20..70_u32],
        hashing in hashing(),
        start_tick in prop_oneof![Just(0_u32), any::<u32>(), (u32::MAX - 5000)..=u32::MAX],
        offset in 0..Tick::NANOS,
        ops in prop::collection::vec(op(), 1..250),
    ) {
        let start = Nanos(u64::from(start_tick) * Tick::NANOS + offset);
        run(&mut Pair::new(capacity, hashing, start), &ops);
    }

    /// A worker's way: short steps of time, an expiry after each; the lag stays 0 and everything is on time.
    #[test]
    fn sessions_end_on_time_under_a_steady_clock(
        start_tick in prop_oneof![Just(0_u32), (u32::MAX - 50)..=u32::MAX],
        steps in prop::collection::vec((1..400_000_000_u64, 0..40_u8, state(), any::<bool>()), 100..400),
    ) {
        let mut pair = Pair::new(40, Hashing::Secret, Nanos(u64::from(start_tick) * Tick::NANOS));
        for (pause, k, state, touch) in steps {
            pair.now = pair.now.plus(Nanos(pause));
            pair.insert(k, state);
            if touch {
                pair.touch(k.wrapping_mul(7) % 40, true, 64);
            }
            pair.expire(2_000);
        }
        pair.check_all();
    }
}

#[test]
fn a_full_table_refuses_and_takes_again() {
    for hashing in [
        Hashing::Secret,
        Hashing::AllTheSame(u64::MAX),
        Hashing::Few(3),
        Hashing::OneTag,
    ] {
        let mut pair = Pair::new(40, hashing, Nanos::SECOND);
        for _ in 0..3 {
            for k in 0..60 {
                pair.insert(k, SessionState::UdpNew);
            }
            assert_eq!(pair.table.len(), 40);
            pair.check_all();
            pair.remove(5);
            pair.insert(59, SessionState::SynSent);
            assert!(pair.find(59).is_some());
            assert_eq!((pair.table.len(), pair.table.half_open()), (40, 1));
            pair.find_batch(&(0..60).chain(0..60).collect::<Vec<_>>());
            pair.retain(3, |_| false);
            assert!(pair.table.is_empty());
        }
    }
}

#[test]
fn a_stale_id_is_told_from_its_successor() {
    let mut pair = Pair::new(1, Hashing::Secret, Nanos::SECOND);
    pair.insert(1, SessionState::UdpNew);
    let old = pair.model[&1].id;
    pair.remove(1);
    pair.insert(2, SessionState::UdpNew);
    let new = pair.model[&2].id;
    assert_eq!(old.ix, new.ix, "the slot is used again");
    assert_eq!(
        (pair.table.resolve(old), pair.table.resolve(new)),
        (None, Some(new.ix))
    );
    assert_eq!(
        pair.table.resolve(SessionId {
            ix: SessionIx(7),
            version: 1
        }),
        None
    );
    assert!(pair.table.entry(SessionIx(7)).is_none());
    assert!(!pair.table.remove(SessionIx(7)));
}

#[test]
fn capacities_that_no_table_can_have() {
    for capacity in [0, SessionTable::MAX_CAPACITY + 1, u32::MAX] {
        let made = SessionTable::new(capacity, &HeapMemory, HashSeed([0; 4]));
        assert!(matches!(made, Err(TableError::Capacity(c)) if c == capacity));
    }
}

#[test]
fn at_most_256_bytes_a_session_all_in() {
    // The wheel has one size for all: in a smaller table it counts for more.
    for capacity in [4_096, 65_536, 100_000] {
        let table = SessionTable::new(capacity, &HeapMemory, HashSeed([0; 4])).unwrap();
        let bytes = table.memory_bytes() as f64 / f64::from(capacity);
        assert!(bytes <= 256.0, "{bytes} bytes a session");
    }
}

#[test]
fn random_seeds_differ() {
    let hash = |seed| SecretHash::new(seed).hash(&key(1));
    assert_ne!(hash(HashSeed::random()), hash(HashSeed::random()));
    assert_eq!(hash(HashSeed([1, 2, 3, 4])), hash(HashSeed([1, 2, 3, 4])));
}

/// A turn of the wheel is bounded work, however long the pause was.
#[test]
fn a_long_pause_is_caught_up_in_one_turn() {
    let mut pair = Pair::new(4, Hashing::Secret, Nanos::SECOND);
    pair.insert(1, SessionState::Established);
    pair.now = pair.now.plus(Nanos::from_secs(300 * 86_400));
    let expiry = pair
        .table
        .expire(pair.now.tick(), 8192 + 8, |s| ticks(s.state(), 16), |_| Due::End);
    assert_eq!((expiry.expired, expiry.lag), (1, Nanos(0)));
}

#[test]
fn expiry_reports_its_lag_and_a_small_budget_catches_up() {
    let mut pair = Pair::new(60, Hashing::Secret, Nanos::SECOND);
    for k in 0..60 {
        pair.insert(k, SessionState::SynSent);
    }
    pair.now = pair.now.plus(Nanos::from_secs(10));
    let mut lag = pair.expire_once(30);
    assert!(lag > Nanos::from_secs(8), "{lag:?}");
    let mut calls = 1;
    while lag != Nanos(0) {
        let next = pair.expire_once(30);
        assert!(next <= lag);
        lag = next;
        calls += 1;
        assert!(calls < 20);
    }
    assert!(pair.table.is_empty());
    // No session that is due is left behind a lag of 0, from the first moment on.
    for k in 0..60 {
        pair.insert(k, SessionState::SynSent);
    }
    pair.now = pair.now.plus(timeout(SessionState::SynSent, 16)).plus(LATE);
    while !pair.table.is_empty() {
        let lag = pair.expire_once(10);
        assert_eq!(lag == Nanos(0), pair.table.is_empty());
    }
}

/// The wheel costs an idle session one look for each 36 minutes, and one that is not due none.
#[test]
fn a_session_is_looked_at_when_it_is_due_and_not_before() {
    for (timeout_s, looks) in [(1, 0), (30, 0), (36 * 60, 0), (37 * 60, 1), (2 * 3600, 3)] {
        let mut pair = Pair::new(4, Hashing::Secret, Nanos::SECOND);
        let session = Session::new(key(1), Direction::LowToHigh, SessionState::UdpNew);
        let ticks = Tick::count(Nanos::from_secs(timeout_s));
        let hash = pair.table.hash(&key(1));
        pair.table.insert(session, hash, pair.now, ticks).unwrap();
        let mut rearmed = 0;
        while !pair.table.is_empty() {
            pair.now = pair.now.plus(Nanos::from_millis(50));
            rearmed += pair
                .table
                .expire(pair.now.tick(), 64, |_| ticks, |_| Due::End)
                .rearmed;
        }
        assert_eq!(rearmed, looks, "{timeout_s} s");
        let late = pair.now.since(Nanos::from_secs(1 + timeout_s));
        assert!(late <= LATE.plus(Nanos::from_millis(50)), "{late:?}");
    }
}
