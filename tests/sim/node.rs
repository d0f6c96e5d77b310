//! One node: several engines with the mesh between them, each with its member, and the dispatch with its protocol. Between the
//! dispatch's queues and the members' own stands the simulator, which counts what goes by, and meddles with it.

use std::collections::VecDeque;
use std::sync::Arc;

use haechi::base::slab::HeapMemory;
use haechi::base::{Nanos, PortId, WorkerId};
use haechi::engine::{
    Adoption, Batch, DropReason, Engine, Hops, Message, Note, Outputs, PairSetup, Placement, Upkeep,
};
use haechi::flow::HashSeed;
use haechi::flow::image::BucketSet;
use haechi::flow::owner::{BucketTable, KeySet, Method, OwnerFunction, Side};
use haechi::flow::table::News;
use haechi::ha::dispatch::{Dispatch, DispatchConfig};
use haechi::ha::member::{Member, Order, Queues, Word};
use haechi::ha::seal::PairKey;
use haechi::ha::{Peer, PeerConfig};
use haechi::packet::VecPacket;

use super::fault::{Fault, Meddler};
use super::ha_net::Random;
use super::policy::Variant;
use super::tally::Tally;

/// Sessions of a worker.
const TABLE: u32 = 1024;
/// Orders and words that wait: few, so that the bound is met.
pub(crate) const ROOM: usize = 12;
/// Messages between two workers that wait.
const MESSAGES: usize = 64;
/// What a connection may have moved on by without this node's knowledge.
/// Room for ends of sessions that wait to be told: little, so that it runs out.
pub(crate) const ENDS: usize = 4;

pub(crate) const ADOPTION: Adoption = Adoption {
    bytes: 64 << 20,
    time: Nanos(10_000_000_000),
};

/// A node's clock: it begins anywhere, and is fast or slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) began: Nanos,
    pub(crate) zero: Nanos,
    /// Millionths.
    pub(crate) drift: i64,
}

impl Clock {
    pub(crate) fn read(&self, now: Nanos) -> Nanos {
        let passed = now.since(self.began).0 as i64;
        let off = passed / 1_000_000 * self.drift;
        Nanos(self.zero.0 + (passed + off) as u64)
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Forwarded,
    Dropped(DropReason),
}

#[derive(Default)]
struct Mesh {
    packets: Vec<VecDeque<(VecPacket, PortId, Hops)>>,
    messages: Vec<VecDeque<Message>>,
    verdict: Option<Verdict>,
    handed_over: u64,
}

struct Out<'a> {
    mesh: &'a mut Mesh,
}

impl Out<'_> {
    fn say(&mut self, verdict: Verdict) {
        self.mesh.verdict = Some(verdict);
    }
}

impl Outputs<VecPacket> for Out<'_> {
    fn forward(&mut self, _: VecPacket, _: PortId, _: Note) {
        self.say(Verdict::Forwarded);
    }
    fn drop(&mut self, _: VecPacket, reason: DropReason, _: Note) {
        self.say(Verdict::Dropped(reason));
    }
    fn answer(&mut self, _: VecPacket, _: PortId, reason: DropReason, _: Note) {
        self.say(Verdict::Dropped(reason));
    }
    fn buffer(&mut self) -> Option<VecPacket> {
        Some(VecPacket::default())
    }
    fn originate(&mut self, _: VecPacket, _: PortId) {}
    fn hand_over(&mut self, packet: VecPacket, ingress: PortId, to: WorkerId, hops: Hops, _: Note) {
        self.mesh.handed_over += 1;
        self.mesh.packets[to.index()].push_back((packet, ingress, hops));
    }
    fn tell(&mut self, to: WorkerId, message: Message) -> Result<(), Message> {
        let queue = &mut self.mesh.messages[to.index()];
        if queue.len() >= MESSAGES {
            return Err(message);
        }
        queue.push_back(message);
        Ok(())
    }
}

struct Worker {
    engine: Engine,
    member: Member,
    /// The member's queues.
    own: Arc<Queues>,
    /// The dispatch's.
    far: Arc<Queues>,
    /// What found no room.
    order: Option<Order>,
    words: VecDeque<Word>,
    meddler: Meddler,
    stands_still_until: Nanos,
    next_upkeep: Nanos,
}

/// How a node is made.
pub(crate) struct Plan<'a> {
    pub(crate) config: PeerConfig,
    pub(crate) key: &'a PairKey,
    pub(crate) clock: Clock,
    pub(crate) variant: Variant,
    pub(crate) fault: Option<Fault>,
    pub(crate) accidents: bool,
}

pub(crate) struct Node {
    pub(crate) dispatch: Dispatch,
    pub(crate) clock: Clock,
    pub(crate) variant: Variant,
    /// What a node under [`Fault::AdoptedByOldPolicy`] judges by.
    generation: u32,
    workers: Vec<Worker>,
    mesh: Mesh,
    fault: Option<Fault>,
}

impl Node {
    pub(crate) fn new(plan: Plan<'_>, now: Nanos, random: &mut Random) -> Self {
        let count = plan.config.workers;
        let local = plan.clock.read(now);
        // The nodes' devices differ, and so does what they spread flows by.
        let method = match plan.config.election.node.0 {
            1 => Method::TwoSided,
            _ => Method::Sorted,
        };
        let keys = KeySet::random(method, |bytes| {
            bytes.iter_mut().for_each(|byte| *byte = random.next() as u8);
        });
        let placement = Arc::new(Placement {
            function: OwnerFunction::new(method, keys).expect("the key fits its method"),
            buckets: BucketTable::even(count),
            sides: [Side::Lan, Side::Wan].into(),
        });
        let setup = PairSetup {
            key: plan.key.digest_key(),
            adoption: ADOPTION,
            ends: ENDS,
        };
        let policy = plan.variant.policy(1);
        let workers: Vec<Worker> = (0..count)
            .map(|me| {
                let seed = HashSeed([random.next(), 2, 3, 4]);
                let engine = Engine::new(TABLE, Arc::clone(&policy), &HeapMemory, seed).expect("memory");
                let mut engine = engine.with_pair(&setup, &HeapMemory).expect("memory");
                engine.join(WorkerId(me), Arc::clone(&placement));
                let own = Arc::new(Queues::new(ROOM));
                Worker {
                    engine,
                    member: Member::new(Arc::clone(&own)),
                    own,
                    far: Arc::new(Queues::new(ROOM)),
                    order: None,
                    words: VecDeque::new(),
                    meddler: Meddler::new(plan.fault, plan.accidents, random.next()),
                    stands_still_until: Nanos(0),
                    next_upkeep: local,
                }
            })
            .collect();
        let config = DispatchConfig {
            node: plan.config.election.node,
            ping_every: plan.config.election.heartbeat,
            stalled_after: plan.config.election.dead_time(),
            sync_rate: plan.config.stream.sync_rate,
        };
        let mut config_of_peer = plan.config;
        config_of_peer.policy = plan.variant.digest();
        let peer = Peer::new(config_of_peer, plan.key, local, random.bytes());
        let queues = workers.iter().map(|worker| Arc::clone(&worker.far)).collect();
        Self {
            dispatch: Dispatch::new(config, peer, queues, Some(placement), local),
            clock: plan.clock,
            variant: plan.variant,
            generation: 1,
            mesh: Mesh {
                packets: workers.iter().map(|_| VecDeque::new()).collect(),
                messages: workers.iter().map(|_| VecDeque::new()).collect(),
                ..Mesh::default()
            },
            workers,
            fault: plan.fault,
        }
    }

    pub(crate) fn local(&self, now: Nanos) -> Nanos {
        self.clock.read(now)
    }

    /// Do all its engines judge packets?
    pub(crate) fn forwards(&self) -> bool {
        self.workers.iter().all(|worker| worker.engine.forwards())
    }

    /// Has every order arrived?
    pub(crate) fn is_told(&self) -> bool {
        self.workers.iter().all(|worker| {
            worker.order.is_none() && worker.far.orders.is_empty() && worker.own.orders.is_empty()
        })
    }

    /// Words that got lost within the node, as by a defect.
    pub(crate) fn accidents(&self) -> u64 {
        self.workers.iter().map(|worker| worker.meddler.lost).sum()
    }

    pub(crate) fn stop_accidents(&mut self) {
        self.workers
            .iter_mut()
            .for_each(|worker| worker.meddler.accidents = false);
    }

    /// Another policy.
    pub(crate) fn reload(&mut self, now: Nanos, variant: Variant) {
        let local = self.local(now);
        self.variant = variant;
        self.dispatch.peer.set_policy(local, variant.digest());
        if self.fault == Some(Fault::AdoptedByOldPolicy) && !self.dispatch.role().forwards() {
            return;
        }
        self.generation += 1;
        let policy = variant.policy(self.generation);
        for worker in &mut self.workers {
            drop(worker.engine.set_policy(Arc::clone(&policy)));
        }
    }

    /// One of the workers does not turn for a while.
    pub(crate) fn stall(&mut self, worker: usize, until: Nanos) {
        let count = self.workers.len();
        self.workers[worker % count].stands_still_until = until;
    }

    pub(crate) fn is_stalled(&self, now: Nanos) -> bool {
        self.workers.iter().any(|worker| now < worker.stands_still_until)
    }

    /// A packet at any worker's receive queue, judged at once by whoever it belongs to.
    pub(crate) fn packet(
        &mut self,
        now: Nanos,
        worker: usize,
        port: PortId,
        frame: Vec<u8>,
        tally: &mut Tally,
    ) -> Verdict {
        let local = self.local(now);
        self.mesh.verdict = None;
        let handed = self.mesh.handed_over;
        let mut batch = Batch::new();
        batch
            .try_push(VecPacket::new(frame), port)
            .expect("there is room");
        self.process(local, worker % self.workers.len(), batch);
        while let Some(at) = self.mesh.packets.iter().position(|queue| !queue.is_empty()) {
            let mut batch = Batch::new();
            while let Some((packet, ingress, hops)) = self.mesh.packets[at].pop_front() {
                batch
                    .try_push_handed(packet, ingress, hops)
                    .expect("there is room");
            }
            self.process(local, at, batch);
        }
        if self.mesh.handed_over > handed {
            tally.count("verdict handed over");
        }
        self.mesh.verdict.expect("every packet has a verdict")
    }

    fn process(&mut self, local: Nanos, worker: usize, mut batch: Batch<VecPacket>) {
        self.take_messages(local, worker);
        let mut out = Out { mesh: &mut self.mesh };
        self.workers[worker].engine.process(local, &mut batch, &mut out);
    }

    fn take_messages(&mut self, local: Nanos, worker: usize) {
        while let Some(message) = self.mesh.messages[worker].pop_front() {
            let mut out = Out { mesh: &mut self.mesh };
            self.workers[worker].engine.receive(local, message, &mut out);
        }
    }

    /// One turn of every worker.
    pub(crate) fn turn_workers(&mut self, now: Nanos, tally: &mut Tally) {
        let local = self.local(now);
        for at in 0..self.workers.len() {
            if now < self.workers[at].stands_still_until {
                continue;
            }
            self.take_messages(local, at);
            let worker = &mut self.workers[at];
            worker.take_orders(tally);
            let mut out = Out { mesh: &mut self.mesh };
            worker.member.turn(local, false, &mut worker.engine, &mut out);
            if local >= worker.next_upkeep {
                worker.next_upkeep = local.plus(Nanos::from_millis(20));
                worker.engine.upkeep(local, Upkeep::BUDGET, &mut out);
            }
            worker.take_words(tally);
        }
    }

    /// All sessions, sorted: what both nodes ought to have alike. How far a connection has come its owner tells every 4,096 packets
    /// alone: that both have what was told the digests prove.
    pub(crate) fn sessions(&self) -> Vec<String> {
        let mut all = vec![];
        for worker in &self.workers {
            worker.engine.table().scan(0, u32::MAX, |entry| {
                let of = entry.session;
                all.push(format!(
                    "{:?} {} {:?} {:?} {:?} {:?}",
                    of.key,
                    of.state().name(),
                    of.opener,
                    (of.ingress, of.egress),
                    entry.session.flags & haechi::flow::image::Image::FLAGS,
                    of.tcp.map(|sender| (sender.flags, sender.scale))
                ));
            });
        }
        all.sort();
        all
    }

    /// The sums by bucket over all workers, folded: as told, and as heard.
    pub(crate) fn digests(&self) -> [Vec<u64>; 2] {
        let mut sums = [vec![], vec![]];
        for worker in &self.workers {
            let (told, heard) = worker.engine.digests().expect("an engine of a pair");
            for (sum, of) in sums.iter_mut().zip([told, heard]) {
                sum.resize(of.len(), 0_u64);
                for (sum, more) in sum.iter_mut().zip(of) {
                    *sum = sum.wrapping_add(*more);
                }
            }
        }
        sums
    }

    /// A queue that is above its bound.
    pub(crate) fn overflows(&self) -> Option<String> {
        for worker in &self.workers {
            let news = worker.engine.news();
            if news > TABLE as usize + ENDS {
                return Some(format!("{news} news"));
            }
            if worker.words.len() > ROOM {
                return Some(format!("{} words", worker.words.len()));
            }
        }
        None
    }
}

impl Worker {
    fn take_orders(&mut self, tally: &mut Tally) {
        if self.far.orders.is_full() {
            tally.count("link: full queue");
        }
        while self.order.is_some() || !self.far.orders.is_empty() {
            if self.own.orders.is_full() {
                return;
            }
            let order = match self.order.take().or_else(|| self.meddler.extra()) {
                Some(order) => Some(order),
                None => {
                    let order = self.far.orders.pop().expect("there is one");
                    count_order(&order, tally);
                    self.meddler.order(order)
                }
            };
            let Some(mut order) = order else { continue };
            if let (Order::TellAll(buckets, ..), true) = (&mut order, self.meddler.cuts_walk()) {
                *buckets = buckets.iter().step_by(2).collect::<BucketSet>();
            }
            self.own.orders.push(order).expect("there is room");
        }
    }

    fn take_words(&mut self, tally: &mut Tally) {
        if self.own.words.is_full() {
            tally.count("link: full queue");
        }
        while self.words.len() < ROOM {
            let Some(word) = self.own.words.pop() else { break };
            count_word(&word, tally);
            self.words.extend(self.meddler.word(word));
        }
        if self.meddler.overtakes() {
            if let Some(at) = self.words.iter().position(|word| matches!(word, Word::Told(..))) {
                let told = self.words.remove(at).expect("it is there");
                self.words.push_front(told);
            }
        }
        while let Some(word) = self.words.pop_front() {
            if let Err(word) = self.far.words.push(word) {
                self.words.push_front(word);
                return;
            }
        }
    }
}

fn count_order(order: &Order, tally: &mut Tally) {
    tally.count(match order {
        Order::TakeIn(News::Session(..), _) => "order take in, session",
        Order::TakeIn(News::Gone(..), _) => "order take in, end",
        Order::TakeIn(News::Station(..), _) => "order take in, station",
        Order::TellAgain(_) => "order tell again",
        Order::Told(_) => "order told",
        Order::Stand(..) => "order stand",
        Order::ForgetHeard => "order forget heard",
        Order::BeginTelling(_) => "order begin telling",
        Order::EndTelling => "order end telling",
        Order::TellAll(..) => "order tell all",
        Order::BeginResync => "order begin resync",
        Order::EndResync(_) => "order end resync",
        Order::SumTold(..) => "order sum told",
        Order::SumHeard(..) => "order sum heard",
        Order::Ping(_) => "order ping",
    });
}

fn count_word(word: &Word, tally: &mut Tally) {
    tally.count(match word {
        Word::News(News::Session(..), _) => "word news, session",
        Word::News(News::Gone(..), _) => "word news, end",
        Word::News(News::Station(..), _) => "word news, station",
        Word::Begun(_) => "word begun",
        Word::ToldAll(_) => "word told all",
        Word::Gap => "word gap",
        Word::Told(..) => "word told",
        Word::Heard(..) => "word heard",
        Word::Here(_) => "word here",
    });
}
