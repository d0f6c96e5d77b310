//! Buckets move between workers while packets come: no packet overtakes another of its flow, none is lost, and a session is the same
//! afterwards, whatever order the workers take their turns in and however long a queue waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use haechi::base::slab::HeapMemory;
use haechi::base::{Generation, Nanos, PortId, WorkerId};
use haechi::config::{self, RuleIds};
use haechi::engine::{
    Batch, DropReason, Engine, Hops, Leasing, MAX_BATCH, Mark, Message, Move, Note, Outputs, Placement,
    moving,
};
use haechi::flow::owner::{BUCKETS, BucketSet, BucketTable, Method, Side, Tuple};
use haechi::flow::{HashSeed, Session};
use haechi::packet::VecPacket;
use haechi::policy::Policy;

use crate::crew::function;
use crate::node::{config, frame};

pub(crate) const RULES: &str = "[[rule]]\nname = \"web\"\nfrom = \"lan\"\nservice = [\"tcp\", \"udp\", \"icmp\"]\naction = \"allow\"\nlog = \"end\"\n\
    max_sessions_per_source = 1000\n[log]\nsessions = \"/dev/null\"\n";

const METHODS: [Method; 4] = [
    Method::SymmetricToeplitz,
    Method::Sorted,
    Method::TwoSided,
    Method::SymmetricKey,
];

enum Item {
    Packet(VecPacket, PortId, Hops),
    Mark(Mark),
}

/// What the workers share: queues, and what left.
pub(crate) struct Between {
    /// Packets by receiver and sender.
    rings: Vec<Vec<VecDeque<Item>>>,
    pub(crate) inboxes: Vec<VecDeque<Message>>,
    /// Messages that an inbox takes.
    pub(crate) room: usize,
    forwarded: Vec<(u16, Vec<u8>)>,
    originated: u64,
    pub(crate) drops: BTreeMap<&'static str, u64>,
    redirects_told: u64,
}

struct Out<'a>(&'a mut Between, usize);

impl Outputs<VecPacket> for Out<'_> {
    fn forward(&mut self, packet: VecPacket, to: PortId, _: Note) {
        self.0.forwarded.push((to.0, packet.frame));
    }
    fn drop(&mut self, _: VecPacket, reason: DropReason, _: Note) {
        *self.0.drops.entry(reason.name()).or_default() += 1;
    }
    fn answer(&mut self, packet: VecPacket, to: PortId, reason: DropReason, _: Note) {
        *self.0.drops.entry(reason.name()).or_default() += 1;
        self.originate(packet, to);
    }
    fn buffer(&mut self) -> Option<VecPacket> {
        Some(VecPacket::default())
    }
    fn originate(&mut self, _: VecPacket, _: PortId) {
        self.0.originated += 1;
    }
    fn hand_over(&mut self, packet: VecPacket, ingress: PortId, to: WorkerId, hops: Hops, _: Note) {
        assert_ne!(to.index(), self.1, "to itself");
        self.0.rings[to.index()][self.1].push_back(Item::Packet(packet, ingress, hops));
    }
    fn tell(&mut self, to: WorkerId, message: Message) -> Result<(), Message> {
        assert_ne!(to.index(), self.1, "to itself");
        let inbox = &mut self.0.inboxes[to.index()];
        if inbox.len() >= self.0.room {
            return Err(message);
        }
        self.0.redirects_told += u64::from(matches!(message, Message::Redirect { .. }));
        inbox.push_back(message);
        Ok(())
    }
    fn mark(&mut self, to: WorkerId, mark: Mark) -> bool {
        self.0.rings[to.index()][self.1].push_back(Item::Mark(mark));
        true
    }
}

/// A move that is being given to the workers, one after the other.
struct Giving {
    placement: Arc<Placement>,
    of: Move,
    left: Vec<usize>,
}

pub(crate) struct World {
    pub(crate) engines: Vec<Engine>,
    pub(crate) now: Nanos,
    pub(crate) between: Between,
    /// Receive queues of the workers.
    queues: Vec<VecDeque<(u16, Vec<u8>)>>,
    pub(crate) placement: Arc<Placement>,
    giving: Option<Giving>,
    random: u64,
    sent: u64,
    /// The next number of each flow and direction.
    numbers: BTreeMap<(u16, u16), u32>,
}

impl World {
    fn new(seed: u64, method: Method, capacities: &[u32], table: BucketTable) -> Self {
        let config = config::load_text("test.toml", &config(RULES)).unwrap_or_else(|e| panic!("{e}"));
        let policy = config::compile(&config, Generation(1), &mut RuleIds::new()).expect("a policy");
        Self::of((seed, method), Arc::new(policy), capacities, table, false)
    }

    /// `leased`: the workers share the limits.
    pub(crate) fn of(
        (seed, method): (u64, Method),
        policy: Arc<Policy>,
        capacities: &[u32],
        table: BucketTable,
        leased: bool,
    ) -> Self {
        let placement = Arc::new(Placement {
            function: function(method),
            buckets: table,
            sides: (0..policy.ports.len())
                .map(|port| [Side::Lan, Side::Wan][port % 2])
                .collect(),
        });
        let workers = capacities.len();
        let engines = (0..).map(WorkerId).zip(capacities).map(|(me, capacity)| {
            let seed = HashSeed([u64::from(me.0), 2, 3, 4]);
            let mut engine = Engine::new(*capacity, Arc::clone(&policy), &HeapMemory, seed)
                .expect("memory")
                .with_records(1000, true);
            if leased {
                let leasing = Leasing {
                    me,
                    workers: workers as u16,
                    max_sessions: policy.max_sessions,
                    seed: HashSeed([5, 6, 7, 8]),
                };
                engine.lease(leasing, &HeapMemory).expect("memory");
            }
            engine.join(me, Arc::clone(&placement));
            engine.share_cookies(HashSeed([7; 4]));
            engine
        });
        Self {
            engines: engines.collect(),
            now: Nanos::from_secs(1000),
            between: Between {
                rings: (0..workers)
                    .map(|_| (0..workers).map(|_| VecDeque::new()).collect())
                    .collect(),
                inboxes: vec![VecDeque::new(); workers],
                room: usize::MAX,
                forwarded: vec![],
                originated: 0,
                drops: BTreeMap::new(),
                redirects_told: 0,
            },
            queues: vec![VecDeque::new(); workers],
            placement,
            giving: None,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            sent: 0,
            numbers: BTreeMap::new(),
        }
    }

    pub(crate) fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) as usize % below
    }

    /// A packet of a flow in a direction comes in at the worker whose queue has that direction of it. Behind the IP packet stands which
    /// one it is.
    pub(crate) fn arrive(&mut self, flow: u16, back: u16, mut frame: Vec<u8>) {
        let number = self.numbers.entry((flow, back)).or_default();
        frame.extend(flow.to_be_bytes());
        frame.extend(back.to_be_bytes());
        frame.extend(number.to_be_bytes());
        *number += 1;
        self.sent += 1;
        let worker = usize::from(flow * 7 + back * 3) % self.engines.len();
        self.queues[worker].push_back((back, frame));
    }

    fn udp(&mut self, flow: u16, back: u16) {
        let frame = udp(flow, back);
        self.arrive(flow, back, frame);
    }

    /// A worker's turn: `most` packets at most from each of its queues.
    pub(crate) fn turn(&mut self, worker: usize, most: usize, budget: u32) {
        let mut batch = Batch::new();
        let mut marks = vec![];
        for _ in 0..most.min(MAX_BATCH / 4) {
            if let Some((port, frame)) = self.queues[worker].pop_front() {
                assert!(batch.try_push(VecPacket::new(frame), PortId(port)).is_ok());
            }
        }
        for from in 0..self.engines.len() {
            for _ in 0..most.min(MAX_BATCH / 4) {
                match self.between.rings[worker][from].pop_front() {
                    None => break,
                    Some(Item::Mark(mark)) => marks.push((WorkerId(from as u16), mark)),
                    Some(Item::Packet(packet, port, hops)) => {
                        assert!(batch.try_push_handed(packet, port, hops).is_ok());
                    }
                }
            }
        }
        while let Some(message) = self.between.inboxes[worker].pop_front() {
            let mut out = Out(&mut self.between, worker);
            self.engines[worker].receive(self.now, message, &mut out);
        }
        let engine = &mut self.engines[worker];
        let mut out = Out(&mut self.between, worker);
        engine.process(self.now, &mut batch, &mut out);
        for (from, mark) in marks {
            engine.passed(from, mark);
        }
        if engine.is_moving() {
            engine.step_move(self.now, budget, &mut out);
        }
        let c = engine.counters();
        let left = c.forwarded + c.handed_over + c.dropped() + engine.held();
        assert_eq!(c.received, left, "nothing is lost on worker {worker}");
        let here = u64::from(engine.table().len());
        assert_eq!(
            c.sessions_created + c.sessions_moved_in,
            here + c.sessions_ended + c.sessions_moved_out
        );
        let away = count(engine, Session::is_away);
        assert_eq!(engine.away() as usize, away, "worker {worker}");
    }

    /// A worker's upkeep.
    pub(crate) fn upkeep(&mut self, worker: usize) {
        let mut out = Out(&mut self.between, worker);
        while self.engines[worker].upkeep(self.now, 10_000, &mut out).lag > Nanos(0) {}
    }

    /// Begins to give a move to the workers: the target first, then the others in this order.
    pub(crate) fn begin(&mut self, from: u16, to: u16, buckets: BucketSet, mut order: Vec<usize>) {
        assert!(self.giving.is_none() && !self.is_moving());
        order.retain(|worker| *worker != usize::from(to));
        order.insert(0, usize::from(to));
        order.reverse();
        let moves = buckets.iter().map(|bucket| (bucket, WorkerId(to)));
        self.placement = Arc::new(Placement {
            buckets: self.placement.buckets.moved(moves),
            ..Placement::clone(&self.placement)
        });
        self.giving = Some(Giving {
            placement: Arc::clone(&self.placement),
            of: Move {
                from: WorkerId(from),
                to: WorkerId(to),
                workers: self.engines.len() as u16,
                buckets,
            },
            left: order,
        });
    }

    /// Gives the move to the next worker.
    pub(crate) fn give(&mut self) {
        let Some(giving) = &mut self.giving else { return };
        if let Some(worker) = giving.left.pop() {
            let given = self.engines[worker].begin_move(Arc::clone(&giving.placement), &giving.of);
            assert!(given.is_ok(), "worker {worker} is still busy");
        }
        if giving.left.is_empty() {
            self.giving = None;
        }
    }

    pub(crate) fn is_moving(&self) -> bool {
        self.giving.is_some() || self.engines.iter().any(Engine::is_moving)
    }

    /// All buckets of `from`, or a random half of them.
    pub(crate) fn buckets_of(&mut self, from: u16, all: bool) -> BucketSet {
        let table = self.placement.buckets.clone();
        (0..BUCKETS)
            .filter(|b| table.workers[*b] == WorkerId(from) && (all || self.random(2) == 0))
            .collect()
    }

    /// Everybody takes turns until nothing is on its way.
    pub(crate) fn settle(&mut self) {
        for round in 0.. {
            self.give();
            for worker in 0..self.engines.len() {
                self.turn(worker, 16, 64);
            }
            let queues_empty = self.queues.iter().all(VecDeque::is_empty);
            let rings_empty = self.between.rings.iter().flatten().all(VecDeque::is_empty);
            let told = self.between.inboxes.iter().all(VecDeque::is_empty);
            if queues_empty && rings_empty && told && !self.is_moving() {
                return;
            }
            assert!(round < 20_000, "it never ends");
        }
    }

    /// A whole move, while nothing else comes.
    pub(crate) fn move_now(&mut self, from: u16, to: u16) {
        let (buckets, order) = (self.buckets_of(from, true), (0..self.engines.len()).collect());
        self.begin(from, to, buckets, order);
        self.settle();
    }

    /// Of each flow and direction, packets left in the order in which they came. How many there were?
    fn check_order(&self, seed: u64) -> u64 {
        let mut next: BTreeMap<(u16, u16), u32> = BTreeMap::new();
        for (_, frame) in &self.between.forwarded {
            let tail = &frame[frame.len() - 8..];
            let key = (
                u16::from_be_bytes([tail[0], tail[1]]),
                u16::from_be_bytes([tail[2], tail[3]]),
            );
            let number = u32::from_be_bytes([tail[4], tail[5], tail[6], tail[7]]);
            let next = next.entry(key).or_default();
            assert!(
                number >= *next,
                "seed {seed}, flow {key:?}: {number} after {next}"
            );
            *next = number + 1;
        }
        self.between.forwarded.len() as u64
    }

    /// All sessions with everything that they are, sorted.
    fn sessions(&self) -> Vec<String> {
        let mut all = vec![];
        for engine in &self.engines {
            engine.table().scan(0, u32::MAX, |entry| {
                let (session, links) = (entry.session, engine.table().links(entry.id.ix));
                all.push(format!(
                    "{:?} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {links:?} {}",
                    session.key,
                    session.state().name(),
                    entry.packets,
                    session.bytes(),
                    session.tcp,
                    entry.created,
                    session.last_seen(),
                    (session.rule, session.generation, session.ingress, session.egress),
                    session.opener,
                    session.flags & !Session::AWAY,
                ));
            });
        }
        all.sort();
        all
    }

    /// Every session is on its owner, or away with an entry there.
    pub(crate) fn check_places(&self) {
        let mut away = 0;
        for (me, engine) in (0..).map(WorkerId).zip(&self.engines) {
            engine.table().scan(0, u32::MAX, |entry| {
                let session = entry.session;
                let tuple = Tuple::of_key(&session.key, session.opener);
                let hash = self.placement.hash(session.ingress, &tuple);
                let is_mine = self.placement.buckets.owner(hash) == me;
                assert_eq!(session.is_away(), !is_mine, "on worker {me:?}");
                away += usize::from(!is_mine);
            });
            assert_eq!(engine.table_version(), Some(self.placement.buckets.version));
        }
        let entries: usize = self.engines.iter().map(Engine::redirects).sum();
        assert_eq!(entries, away, "entries and sessions that are away");
    }

    pub(crate) fn sum(&self, of: impl Fn(&Engine) -> u64) -> u64 {
        self.engines.iter().map(of).sum()
    }
}

fn count(engine: &Engine, which: impl Fn(&Session) -> bool) -> usize {
    let mut count = 0;
    engine
        .table()
        .scan(0, u32::MAX, |entry| count += usize::from(which(entry.session)));
    count
}

fn udp(flow: u16, back: u16) -> Vec<u8> {
    let client = format!("10.0.{}.{}:{}", flow / 200, 1 + flow % 200, 1000 + flow);
    match back {
        0 => frame(&format!("udp {client} > 192.0.2.7:53")),
        _ => frame(&format!("udp 192.0.2.7:53 > {client}")),
    }
}

fn tcp(flow: u16, back: u16, what: &str) -> Vec<u8> {
    let client = format!("10.1.{}.{}:{}", flow / 200, 1 + flow % 200, 1000 + flow);
    match back {
        0 => frame(&format!("tcp {client} > 192.0.2.7:80 {what}")),
        _ => frame(&format!("tcp 192.0.2.7:80 > {client} {what}")),
    }
}

/// So many answered UDP flows.
fn open(world: &mut World, flows: std::ops::Range<u16>) {
    for flow in flows.clone() {
        world.udp(flow, 0);
    }
    world.settle();
    for flow in flows {
        world.udp(flow, 1);
    }
    world.settle();
}

#[test]
fn a_session_is_the_same_on_another_worker() {
    for method in METHODS {
        let mut world = World::new(1, method, &[1000; 3], BucketTable::even(3));
        open(&mut world, 0..60);
        for flow in 0..30 {
            world.arrive(100 + flow, 0, tcp(flow, 0, "syn seq=100"));
            world.settle();
            world.arrive(100 + flow, 1, tcp(flow, 1, "syn,ack seq=500 ack=101"));
            world.settle();
        }
        let before = world.sessions();
        let created = world.sum(|e| e.counters().sessions_created);
        let sources = world.engines.iter().map(|e| e.sources()[0]).sum::<usize>();
        assert_eq!((before.len(), sources), (90, 90));
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            world.now = world.now.plus(Nanos::from_secs(1));
            world.move_now(from, to);
            assert_eq!(world.sessions(), before, "{method:?}");
            world.check_places();
            assert_eq!(world.engines[usize::from(from)].table().len(), 0);
            assert_eq!(world.engines[usize::from(from)].sources(), [0, 0]);
        }
        assert_eq!(world.engines[0].table().len(), 90);
        assert_eq!(world.engines[0].sources()[0], 90);
        // Nothing was made and nothing ended, for whoever looks at counters and logs.
        assert_eq!(world.sum(|e| e.counters().sessions_created), created);
        assert_eq!(world.sum(|e| e.counters().sessions_ended), 0);
        assert_eq!(world.sum(|e| e.records() as u64), 0);
        assert_eq!(world.sum(|e| e.rules()[0].sessions), 90);
        // They go on, and end where they are.
        for flow in 0..30 {
            world.arrive(100 + flow, 0, tcp(flow, 0, "ack seq=101 ack=501"));
        }
        world.settle();
        assert!(world.between.drops.is_empty(), "{:?}", world.between.drops);
        world.now = world.now.plus(Nanos::from_secs(40_000));
        let mut out = Out(&mut world.between, 0);
        while world.engines[0].upkeep(world.now, 1000, &mut out).lag > Nanos(0) {}
        assert_eq!(world.engines[0].table().len(), 0);
        assert_eq!(world.sum(|e| e.counters().sessions_ended), 90);
        assert_eq!(world.sum(|e| e.records() as u64), 90);
        assert_eq!(world.sum(|e| e.rules()[0].sessions), 0);
    }
}

/// Packets come all the while, workers take turns as chance has it, queues wait for as long as it likes.
#[test]
fn packets_stay_in_order_and_none_is_lost_whatever_the_order_of_turns() {
    let mut held = 0;
    for seed in 1..=160 {
        let workers = 2 + seed as usize % 3;
        let method = METHODS[seed as usize % 4];
        let mut world = World::new(
            seed,
            method,
            &vec![1000; workers],
            BucketTable::even(workers as u16),
        );
        // Messages find little room now and then.
        world.between.room = [usize::MAX, 1, 3][seed as usize / 4 % 3];
        let mut flows = 0_u16;
        let mut answered = vec![];
        let mut moves = 0;
        for _ in 0..1500 {
            match world.random(12) {
                0 if flows < 120 => {
                    world.udp(flows, 0);
                    flows += 1;
                }
                1 | 2 if flows > 0 => {
                    let flow = world.random(flows.into()) as u16;
                    for _ in 0..1 + world.random(4) {
                        world.udp(flow, 0);
                    }
                }
                3 if !answered.is_empty() => {
                    let at = world.random(answered.len());
                    world.udp(answered[at], 1);
                }
                4 => {
                    // An answer comes when its question has left.
                    let left = world
                        .between
                        .forwarded
                        .last()
                        .map(|(_, frame)| frame[frame.len() - 8..].to_vec());
                    answered.extend(left.map(|tail| u16::from_be_bytes([tail[0], tail[1]])));
                }
                5 if !world.is_moving() => {
                    let from = world.random(workers) as u16;
                    let to = (from + 1 + world.random(workers - 1) as u16) % workers as u16;
                    let all = world.random(2) == 0;
                    let buckets = world.buckets_of(from, all);
                    let mut order: Vec<usize> = (0..workers).collect();
                    let by = world.random(workers);
                    order.rotate_left(by);
                    world.begin(from, to, buckets, order);
                    moves += 1;
                }
                6 => world.give(),
                _ => {
                    let (worker, most) = (world.random(workers), world.random(6));
                    let budget = 1 + world.random(40) as u32;
                    world.turn(worker, most, budget);
                    held += world.engines[worker].held();
                }
            }
            world.now = world.now.plus(Nanos(1000));
        }
        world.settle();
        assert!(
            world.between.drops.is_empty(),
            "seed {seed}: {:?}",
            world.between.drops
        );
        assert_eq!(world.check_order(seed), world.sent, "seed {seed}");
        assert!(moves > 3, "seed {seed}: {moves} moves");
        world.check_places();
        assert_eq!(world.sessions().len(), usize::from(flows), "seed {seed}");
        assert_eq!(world.sum(|e| e.rules()[0].sessions), u64::from(flows));
        assert_eq!(world.sum(|e| e.counters().sessions_ended), 0, "seed {seed}");
    }
    assert!(held > 1000, "packets waited for their sessions: {held}");
}

/// Every order in which three workers can be told, with packets between any two of the steps.
#[test]
fn every_order_in_which_workers_get_the_table() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for late in 0..3 {
            let mut world = World::new(1, Method::Sorted, &[1000; 3], BucketTable::even(3));
            open(&mut world, 0..40);
            let buckets = world.buckets_of(0, true);
            world.begin(0, 1, buckets, order.to_vec());
            for _ in 0..4 {
                for flow in 0..40 {
                    world.udp(flow, flow % 2);
                }
                world.give();
                for worker in (0..3).filter(|worker| *worker != late) {
                    for _ in 0..8 {
                        world.turn(worker, 16, 8);
                    }
                }
            }
            world.settle();
            assert!(
                world.between.drops.is_empty(),
                "{order:?} {late}: {:?}",
                world.between.drops
            );
            assert_eq!(world.check_order(0), world.sent, "{order:?} {late}");
            assert_eq!(world.engines[0].table().len(), 0);
            world.check_places();
        }
    }
}

/// What finds no room at the target waits no longer, and is counted.
#[test]
fn a_full_waiting_queue_is_a_counted_drop() {
    let mut world = World::new(1, Method::Sorted, &[1000; 2], BucketTable::even(2));
    open(&mut world, 0..20);
    let buckets = world.buckets_of(0, true);
    world.begin(0, 1, buckets, vec![1, 0]);
    world.give();
    // Worker 0 stalls, and does not get the table.
    let sent_before = world.sent;
    while world.engines[1].counters().drops[DropReason::QueueFull.index()] < 100 {
        for flow in 0..20 {
            for back in 0..2 {
                world.udp(flow, back);
            }
        }
        for _ in 0..8 {
            world.turn(1, 16, 8);
        }
        assert!(world.sent - sent_before < 100_000);
    }
    assert_eq!(world.engines[1].held(), moving::WAITING as u64);
    world.settle();
    let lost = world.between.drops["queue_full"];
    assert_eq!(world.between.drops.len(), 1);
    assert_eq!(world.check_order(0) + lost, world.sent);
    world.check_places();
    assert_eq!(world.sessions().len(), 20);
}

/// All buckets belong to workers 0 and 1; the third has a small table, which gets full.
fn with_a_small_worker(method: Method) -> World {
    let mut table = BucketTable::even(2);
    table.version = 5;
    let mut world = World::new(3, method, &[1000, 1000, 8], table);
    open(&mut world, 0..60);
    world
}

/// Packets of all flows both ways; all of them pass, in order.
fn talk(world: &mut World, flows: std::ops::Range<u16>) {
    let before = world.between.forwarded.len() as u64;
    let sent = world.sent;
    for _ in 0..3 {
        for flow in flows.clone() {
            world.udp(flow, 0);
            world.udp(flow, 1);
        }
        world.turn(0, 5, 10);
        world.turn(2, 3, 10);
    }
    world.settle();
    assert_eq!(world.between.forwarded.len() as u64 - before, world.sent - sent);
    world.check_order(0);
}

/// Sessions that find the target's table full stay, and entries lead to them: installed, moved on when the bucket moves on, taken away
/// when the session ends or when the bucket comes to where it is.
#[test]
fn redirect_entries_are_installed_moved_and_removed() {
    for method in METHODS {
        let mut world = with_a_small_worker(method);
        let before = world.sessions();
        let whole = world.engines[0].table().len();
        assert!(whole > 12, "{whole}");
        let created = world.sum(|e| e.counters().sessions_created);

        // Installed.
        world.move_now(0, 2);
        assert_eq!(world.sessions(), before);
        assert_eq!(world.engines[2].table().len(), 8);
        assert_eq!(world.engines[0].table().len(), whole - 8);
        assert_eq!(world.engines[2].redirects(), (whole - 8) as usize);
        world.check_places();
        talk(&mut world, 0..60);
        assert_eq!(world.sum(|e| e.counters().sessions_created), created);

        // Moved: the bucket goes on to worker 1, the sessions of worker 0 stay where they are.
        world.move_now(2, 1);
        world.check_places();
        assert_eq!(
            (world.engines[2].redirects(), world.engines[2].table().len()),
            (0, 0)
        );
        assert_eq!(world.engines[1].redirects(), (whole - 8) as usize);
        talk(&mut world, 0..60);

        // Removed, because a session ends: killed, or idle for too long.
        let (_, killed) = world.engines[0].kill_where(world.now, 0, 40, |entry| entry.session.is_away());
        assert!(killed > 2, "{killed}");
        world.settle();
        world.check_places();
        assert_eq!(world.engines[1].redirects(), (whole - 8 - killed) as usize);

        // Removed, because the bucket comes home.
        let home = world.buckets_of(1, true);
        world.begin(1, 0, home, vec![2, 1, 0]);
        world.settle();
        world.check_places();
        assert_eq!(world.engines[1].redirects(), 0);
        assert_eq!(world.sum(|e| u64::from(e.away())), 0);
        assert_eq!(world.engines[0].table().len(), 60 - killed);
        talk(&mut world, 0..60);
        assert_eq!(world.engines[0].table().len(), 60);
        assert!(world.between.drops.is_empty(), "{:?}", world.between.drops);
    }
}

/// The same under traffic and random turns.
#[test]
fn redirected_flows_stay_in_order() {
    let mut told = 0;
    for seed in 1..=60 {
        let mut world = with_a_small_worker(METHODS[seed as usize % 4]);
        world.random ^= seed << 32;
        for _ in 0..1200 {
            match world.random(10) {
                0..=3 => {
                    let (flow, back) = (world.random(60) as u16, world.random(2) as u16);
                    world.udp(flow, back);
                }
                4 if !world.is_moving() => {
                    let from = world.random(3) as u16;
                    let to = (from + 1 + world.random(2) as u16) % 3;
                    let buckets = world.buckets_of(from, false);
                    world.begin(from, to, buckets, vec![2, 0, 1]);
                }
                5 => world.give(),
                _ => {
                    let (worker, most) = (world.random(3), world.random(6));
                    world.turn(worker, most, 20);
                }
            }
        }
        world.settle();
        assert!(
            world.between.drops.is_empty(),
            "seed {seed}: {:?}",
            world.between.drops
        );
        assert_eq!(world.check_order(seed), world.sent, "seed {seed}");
        world.check_places();
        assert_eq!(world.sessions().len(), 60, "seed {seed}");
        told += world.between.redirects_told;
    }
    assert!(told > 1000, "{told}");
}

/// An entry that leads nowhere costs one packet, and is gone.
#[test]
fn an_entry_that_leads_nowhere_heals() {
    let mut world = World::new(1, Method::Sorted, &[1000; 3], BucketTable::even(3));
    open(&mut world, 0..30);
    let mut entries = 0;
    let mut found = vec![];
    for worker in 0..3 {
        world.engines[worker].table().scan(0, u32::MAX, |entry| {
            let session = entry.session;
            let tuple = Tuple::of_key(&session.key, session.opener);
            found.push((worker, session.key, world.placement.hash(session.ingress, &tuple)));
        });
    }
    for (worker, key, hash) in found {
        world.engines[worker].kill_where(world.now, 0, u32::MAX, |entry| entry.session.key == key);
        let to = Some(WorkerId((worker as u16 + 1) % 3));
        let mut out = Out(&mut world.between, worker);
        world.engines[worker].receive(world.now, Message::Redirect { key, hash, to }, &mut out);
        entries += 1;
    }
    assert_eq!(world.sum(|e| e.redirects() as u64), entries);
    for _ in 0..2 {
        for flow in 0..30 {
            world.udp(flow, 0);
        }
        world.settle();
    }
    assert_eq!(world.sum(|e| e.redirects() as u64), 0);
    assert_eq!(world.between.drops, [("handover_loop", entries)].into());
    assert_eq!(world.sessions().len(), 30);
}

/// A flow opens anew where it is away, and its bucket comes there before its owner has heard of that: however much of it was told, the
/// session is at home then.
#[test]
fn what_is_told_too_late_is_settled_here() {
    for rounds in 1..16 {
        let mut table = BucketTable::even(2);
        table.version = 5;
        let mut world = World::new(3, Method::Sorted, &[1000, 1000, 8], table);
        for (back, what) in [
            (0, "syn seq=100"),
            (1, "syn,ack seq=500 ack=101"),
            (0, "rst seq=101"),
        ] {
            for flow in 0..30 {
                world.arrive(flow, back, tcp(flow, back, what));
            }
            world.settle();
        }
        world.move_now(0, 2);
        let away = world.engines[0].away();
        assert!(away > 2, "{away}");
        let buckets = world.buckets_of(2, true);
        world.begin(2, 0, buckets, vec![0, 1, 2]);
        for flow in 0..30 {
            world.arrive(flow, 0, tcp(flow, 0, "syn seq=90000"));
        }
        world.between.room = 1;
        for _ in 0..rounds {
            for worker in [1, 2, 0] {
                world.turn(worker, 16, 64);
            }
        }
        world.between.room = usize::MAX;
        world.settle();
        world.check_places();
        assert_eq!(world.sum(|e| u64::from(e.away())), 0);
        assert_eq!(world.sum(|e| e.counters().sessions_created), 60, "all are new");
    }
}
