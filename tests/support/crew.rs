//! Several engines that hand packets over to each other, as the workers of one node do, under one manual clock and without threads:
//! what a turn would take from its queues is taken at once.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use haechi::base::slab::HeapMemory;
use haechi::base::{Generation, Nanos, PortId, WorkerId};
use haechi::config::{self, RuleIds};
use haechi::engine::{Batch, DropReason, Engine, Hops, Leasing, Message, Note, Outputs, Placement};
use haechi::flow::owner::{BucketTable, KeySet, Method, OwnerFunction, Side, Tuple};
use haechi::flow::{HashSeed, proof::Event};
use haechi::packet::{ParseOptions, VecPacket, parse};

/// A packet on its way to another worker.
pub type Handed = (VecPacket, PortId, Hops);

/// What the engines of a crew did.
#[derive(Default)]
pub struct Done {
    /// Frames that left, with their port, in order.
    pub forwarded: Vec<(u16, Vec<u8>)>,
    /// Packets that engines made, sorted by nothing: in order.
    pub originated: Vec<(u16, Vec<u8>)>,
    pub drops: BTreeMap<&'static str, u64>,
    pub handed_over: u64,
}

struct Out<'a> {
    done: &'a mut Done,
    queues: &'a mut [VecDeque<Handed>],
    messages: &'a mut [VecDeque<Message>],
    me: usize,
    room: usize,
    message_room: usize,
}

impl Outputs<VecPacket> for Out<'_> {
    fn forward(&mut self, packet: VecPacket, to: PortId, _: Note) {
        self.done.forwarded.push((to.0, packet.frame));
    }
    fn drop(&mut self, _: VecPacket, reason: DropReason, _: Note) {
        *self.done.drops.entry(reason.name()).or_default() += 1;
    }
    fn answer(&mut self, packet: VecPacket, to: PortId, reason: DropReason, _: Note) {
        *self.done.drops.entry(reason.name()).or_default() += 1;
        self.originate(packet, to);
    }
    fn buffer(&mut self) -> Option<VecPacket> {
        Some(VecPacket::default())
    }
    fn originate(&mut self, packet: VecPacket, to: PortId) {
        self.done.originated.push((to.0, packet.frame));
    }
    fn hand_over(&mut self, packet: VecPacket, ingress: PortId, to: WorkerId, hops: Hops, note: Note) {
        assert_ne!(to.index(), self.me, "to itself");
        self.done.handed_over += 1;
        let queue = &mut self.queues[to.index()];
        if queue.len() < self.room {
            queue.push_back((packet, ingress, hops));
        } else {
            self.drop(packet, DropReason::QueueFull, note);
        }
    }
    fn tell(&mut self, to: WorkerId, message: Message) -> Result<(), Message> {
        assert_ne!(to.index(), self.me, "to itself");
        let queue = &mut self.messages[to.index()];
        if queue.len() >= self.message_room {
            return Err(message);
        }
        queue.push_back(message);
        Ok(())
    }
}

/// The workers.
pub struct Crew {
    pub engines: Vec<Engine>,
    pub now: Nanos,
    pub done: Done,
    pub placement: Arc<Placement>,
    /// Packets that a queue takes.
    pub room: usize,
    queues: Vec<VecDeque<Handed>>,
    /// Session-sync messages on their way, by receiver.
    pub messages: Vec<VecDeque<Message>>,
    /// Messages that a queue takes.
    pub message_room: usize,
    /// Messages arrive when the test says so ([`Crew::deliver`]), not when their receiver takes its turn.
    pub late: bool,
}

/// The owner function of a method with a fixed key.
pub fn function(method: Method) -> OwnerFunction {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let keys = KeySet::random(method, |bytes| {
        for byte in bytes.iter_mut() {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            *byte = seed as u8;
        }
    });
    OwnerFunction::new(method, keys).expect("the key fits its method")
}

impl Crew {
    /// So many workers of one configuration; each port is on another side than its peer.
    pub fn new(text: &str, workers: u16, method: Method) -> Self {
        Self::make(text, workers, method, &mut RuleIds::new(), false)
    }

    /// The same, but the workers share the limits; `ids` are for policies to come.
    pub fn leased(text: &str, workers: u16, method: Method, ids: &mut RuleIds) -> Self {
        Self::make(text, workers, method, ids, true)
    }

    fn make(text: &str, workers: u16, method: Method, ids: &mut RuleIds, leased: bool) -> Self {
        let config = config::load_text("test.toml", text).unwrap_or_else(|e| panic!("{e}"));
        let policy = config::compile(&config, Generation(1), ids).expect("a policy");
        let policy = Arc::new(policy);
        let sides = (0..policy.ports.len())
            .map(|port| [Side::Lan, Side::Wan][port % 2])
            .collect();
        let placement = Arc::new(Placement {
            function: function(method),
            buckets: BucketTable::even(workers),
            sides,
        });
        let engines = (0..workers)
            .map(|me| {
                let seed = HashSeed([u64::from(me), 2, 3, 4]);
                let sessions = if leased {
                    Leasing::capacity(policy.max_sessions, workers)
                } else {
                    1000
                };
                let mut engine =
                    Engine::new(sessions, Arc::clone(&policy), &HeapMemory, seed).expect("memory");
                if leased {
                    let leasing = Leasing {
                        me: WorkerId(me),
                        workers,
                        max_sessions: policy.max_sessions,
                        seed: HashSeed([5, 6, 7, 8]),
                    };
                    engine.lease(leasing, &HeapMemory).expect("memory");
                }
                engine.join(WorkerId(me), Arc::clone(&placement));
                engine
            })
            .collect();
        Self {
            engines,
            now: Nanos::from_secs(1000),
            done: Done::default(),
            placement,
            room: usize::MAX,
            queues: (0..workers).map(|_| VecDeque::new()).collect(),
            messages: (0..workers).map(|_| VecDeque::new()).collect(),
            message_room: usize::MAX,
            late: false,
        }
    }

    /// A burst that comes in at one worker's queue; then everybody takes turns until nothing is on its way.
    pub fn burst(&mut self, worker: usize, packets: &[(u16, Vec<u8>)]) {
        self.arrive(worker, packets);
        self.settle();
    }

    /// As [`Self::burst`], but what is handed over waits.
    pub fn arrive(&mut self, worker: usize, packets: &[(u16, Vec<u8>)]) {
        let mut batch = Batch::new();
        for (port, frame) in packets {
            batch
                .try_push(VecPacket::new(frame.clone()), PortId(*port))
                .expect("there is room");
        }
        self.process(worker, batch);
    }

    /// Packets that come in by the queues that a device with RSS chooses. `device` makes of a packet's right hash the one that it
    /// says, and the worker of the queue.
    pub fn by_device(
        &mut self,
        packets: &[(u16, Vec<u8>)],
        device: impl Fn(&Placement, u32) -> (Option<u32>, WorkerId),
    ) {
        self.by_device_in_bursts(1, packets, device);
    }

    /// As [`Self::by_device`]; so many packets at once, each worker's together.
    pub fn by_device_in_bursts(
        &mut self,
        burst: usize,
        packets: &[(u16, Vec<u8>)],
        device: impl Fn(&Placement, u32) -> (Option<u32>, WorkerId),
    ) {
        for burst in packets.chunks(burst) {
            let mut batches: Vec<_> = self.engines.iter().map(|_| Batch::new()).collect();
            for (port, frame) in burst {
                let mut packet = VecPacket::new(frame.clone());
                let options = ParseOptions {
                    verify_l4: true,
                    look_into_vlan: true,
                };
                let meta = parse(frame, packet.checksum, options);
                let right = self.placement.hash(PortId(*port), &Tuple::of(&meta));
                let (hash, worker) = device(&self.placement, right);
                packet.hash = hash;
                let batch = &mut batches[worker.index()];
                batch.try_push(packet, PortId(*port)).expect("there is room");
            }
            for (worker, batch) in batches.into_iter().enumerate() {
                self.process(worker, batch);
            }
            self.settle();
        }
    }

    /// What packets proved or disproved since this was last asked.
    pub fn rss_events(&mut self) -> Vec<(usize, PortId, Event)> {
        let mut events = vec![];
        for (worker, engine) in self.engines.iter_mut().enumerate() {
            let news = engine.has_rss_news();
            let before = events.len();
            events.extend(
                std::iter::from_fn(|| engine.next_rss_event()).map(|(port, event)| (worker, port, event)),
            );
            assert_eq!(news, events.len() > before);
            assert!(!engine.has_rss_news());
        }
        events
    }

    /// Puts a packet into a worker's queue as if another one had handed it over.
    pub fn plant(&mut self, worker: usize, handed: Handed) {
        self.queues[worker].push_back(handed);
    }

    /// The worker takes the oldest messages that wait for it, so many.
    pub fn deliver(&mut self, worker: usize, most: usize) {
        for _ in 0..most {
            let Some(message) = self.messages[worker].pop_front() else {
                return;
            };
            let (engine, mut out) = self.turn(worker);
            engine.1.receive(engine.0, message, &mut out);
        }
    }

    /// An engine, the time, and where its verdicts go.
    fn turn(&mut self, worker: usize) -> ((Nanos, &mut Engine), Out<'_>) {
        let out = Out {
            done: &mut self.done,
            queues: &mut self.queues,
            messages: &mut self.messages,
            me: worker,
            room: self.room,
            message_room: self.message_room,
        };
        ((self.now, &mut self.engines[worker]), out)
    }

    /// Turns until nothing is on its way.
    pub fn settle(&mut self) {
        self.settle_packets();
        while let Some(worker) = self
            .messages
            .iter()
            .position(|queue| !queue.is_empty() && !self.late)
        {
            self.deliver(worker, usize::MAX);
        }
    }

    fn settle_packets(&mut self) {
        while let Some(worker) = self.queues.iter().position(|queue| !queue.is_empty()) {
            let mut batch = Batch::new();
            while batch.room() > 0 {
                let Some((packet, ingress, hops)) = self.queues[worker].pop_front() else {
                    break;
                };
                batch
                    .try_push_handed(packet, ingress, hops)
                    .expect("there is room");
            }
            self.process(worker, batch);
        }
    }

    fn process(&mut self, worker: usize, mut batch: Batch<VecPacket>) {
        if !self.late {
            self.deliver(worker, usize::MAX);
        }
        let ((now, engine), mut out) = self.turn(worker);
        engine.process(now, &mut batch, &mut out);
        let counters = self.engines[worker].counters();
        assert_eq!(
            counters.received,
            counters.forwarded + counters.handed_over + counters.dropped() + self.engines[worker].held(),
            "nothing is lost on worker {worker}"
        );
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Nanos) {
        self.now = self.now.plus(time);
        for worker in 0..self.engines.len() {
            self.upkeep(worker);
        }
        self.settle();
    }

    /// One worker's upkeep.
    pub fn upkeep(&mut self, worker: usize) {
        let ((now, engine), mut out) = self.turn(worker);
        while engine.upkeep(now, 10_000, &mut out).lag > Nanos(0) {}
    }

    /// Who owns a packet's flow.
    pub fn owner(&self, (port, frame): &(u16, Vec<u8>)) -> usize {
        let options = ParseOptions {
            verify_l4: true,
            look_into_vlan: true,
        };
        let meta = parse(frame, VecPacket::new(frame.clone()).checksum, options);
        let owner = self.placement.owner(PortId(*port), &meta, frame);
        owner.map_or(0, WorkerId::index)
    }

    /// All sessions: flow, state, packets and bytes of each, sorted. Each is on its owner.
    pub fn sessions(&self) -> Vec<String> {
        let mut all = vec![];
        for engine in &self.engines {
            engine.table().scan(0, u32::MAX, |entry| {
                all.push(format!(
                    "{:?} {} {:?} {:?}",
                    entry.session.key,
                    entry.session.state().name(),
                    entry.packets,
                    entry.session.bytes()
                ));
            });
        }
        all.sort();
        all
    }

    /// A counter over all workers.
    pub fn sum(&self, of: impl Fn(&Engine) -> u64) -> u64 {
        self.engines.iter().map(of).sum()
    }
}
