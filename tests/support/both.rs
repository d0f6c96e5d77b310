//! Two nodes of a pair that both forward, each of one or several engines, and the wires between them: what one offers the other
//! judges, what is given back leaves where it came in, and what each tells of its sessions the other hears when the test says so.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use haechi::base::slab::HeapMemory;
use haechi::base::{Generation, Nanos, PortId, WorkerId};
use haechi::config::{self, RuleIds};
use haechi::engine::{
    Adoption, Batch, DropReason, Engine, Hops, Message, Note, Offered, Outputs, PairSetup, Placement, Record,
};
use haechi::flow::HashSeed;
use haechi::flow::image::DigestKey;
use haechi::flow::owner::{BucketTable, Method, Side};
use haechi::flow::table::{News, Standing};
use haechi::packet::VecPacket;
use haechi::policy::Policy;

use crate::crew::function;
use crate::node::{config, frame};

pub const SETUP: PairSetup = PairSetup {
    key: DigestKey([11, 12]),
    adoption: Adoption {
        bytes: 64 << 20,
        time: Nanos(10_000_000_000),
    },
    ends: 64,
};

/// Something on its way between the nodes or between workers of one.
enum Way {
    /// A packet for a worker.
    Judge(VecPacket, PortId, Hops),
    /// What the other node has judged leaves.
    Leave(VecPacket, PortId),
    Message(Box<Message>),
}

/// What left, in order: the node, the port, and the frame.
pub type Left = (usize, u16, Vec<u8>);

/// What the nodes did.
#[derive(Default)]
pub struct Done {
    pub left: Vec<Left>,
    /// Packets that engines made.
    pub made: Vec<Left>,
    pub drops: [BTreeMap<&'static str, u64>; 2],
    /// Where each packet came in, and how often it crossed: there and back.
    crossed: Vec<(usize, [u8; 2])>,
}

impl Done {
    /// What was dropped, on both nodes, since this was last asked.
    pub fn take_drops(&mut self) -> [Vec<(&'static str, u64)>; 2] {
        std::mem::take(&mut self.drops).map(|drops| drops.into_iter().collect())
    }

    fn crosses(&mut self, node: usize, packet: &VecPacket, back: usize) {
        let Some(id) = packet.hash else { return };
        let (home, crossed) = &mut self.crossed[id as usize];
        assert_eq!(*home == node, back == 0, "out at its own node, back at the other");
        crossed[back] += 1;
        assert_eq!(crossed[back], 1, "packet {id} crosses once each way");
    }

    fn leaves(&mut self, node: usize, packet: VecPacket, to: PortId) {
        if let Some(id) = packet.hash {
            assert_eq!(self.crossed[id as usize].0, node, "it leaves where it came in");
        }
        self.left.push((node, to.0, packet.frame));
    }
}

struct Out<'a> {
    node: usize,
    me: usize,
    done: &'a mut Done,
    ways: &'a mut [Vec<VecDeque<Way>>; 2],
    /// Offers that the link takes still.
    room: &'a mut usize,
}

impl Out<'_> {
    /// To a worker of the other node: any, as long as it is the same for one packet of a flow after the other.
    fn across(&mut self, way: Way) {
        let other = &mut self.ways[1 - self.node];
        let worker = self.me % other.len();
        other[worker].push_back(way);
    }
}

impl Outputs<VecPacket> for Out<'_> {
    fn forward(&mut self, packet: VecPacket, to: PortId, _: Note) {
        self.done.leaves(self.node, packet, to);
    }
    fn drop(&mut self, _: VecPacket, reason: DropReason, _: Note) {
        *self.done.drops[self.node].entry(reason.name()).or_default() += 1;
    }
    fn answer(&mut self, mut packet: VecPacket, to: PortId, reason: DropReason, _: Note) {
        *self.done.drops[self.node].entry(reason.name()).or_default() += 1;
        packet.hash = None;
        self.originate(packet, to);
    }
    fn buffer(&mut self) -> Option<VecPacket> {
        Some(VecPacket::default())
    }
    fn originate(&mut self, packet: VecPacket, to: PortId) {
        self.done.made.push((self.node, to.0, packet.frame));
    }
    fn hand_over(&mut self, packet: VecPacket, ingress: PortId, to: WorkerId, hops: Hops, _: Note) {
        assert_ne!(to.index(), self.me, "to itself");
        self.ways[self.node][to.index()].push_back(Way::Judge(packet, ingress, hops));
    }
    fn tell(&mut self, to: WorkerId, message: Message) -> Result<(), Message> {
        assert_ne!(to.index(), self.me, "to itself");
        self.ways[self.node][to.index()].push_back(Way::Message(Box::new(message)));
        Ok(())
    }
    fn offer(&mut self, packet: VecPacket, ingress: PortId, _: Offered, _: Note) -> Result<(), VecPacket> {
        let Some(left) = self.room.checked_sub(1) else {
            return Err(packet);
        };
        *self.room = left;
        self.done.crosses(self.node, &packet, 0);
        self.across(Way::Judge(packet, ingress, Hops::FROM_PEER));
        Ok(())
    }
    fn give_back(&mut self, packet: VecPacket, to: PortId, _: Note) {
        self.done.crosses(self.node, &packet, 1);
        self.across(Way::Leave(packet, to));
    }
    fn give_back_made(&mut self, mut packet: VecPacket, to: PortId) {
        packet.hash = None;
        self.across(Way::Leave(packet, to));
    }
    fn send_back(&mut self, packet: VecPacket, ingress: PortId, _: Note) {
        self.done.crosses(self.node, &packet, 1);
        self.across(Way::Judge(packet, ingress, Hops::SENT_BACK));
    }
}

/// The two nodes.
pub struct Both {
    /// By node and worker.
    pub nodes: [Vec<Engine>; 2],
    pub now: Nanos,
    pub done: Done,
    /// News on their way to each node.
    pub news: [VecDeque<News>; 2],
    /// Offers that the link takes still.
    pub room: usize,
    ways: [Vec<VecDeque<Way>>; 2],
    ids: RuleIds,
    generation: u32,
}

impl Both {
    /// One worker each, of a configuration of [`config`]'s ports with these rules.
    #[track_caller]
    pub fn new(rules: &str) -> Self {
        Self::with_workers(rules, [1, 1])
    }

    #[track_caller]
    pub fn with_workers(rules: &str, workers: [u16; 2]) -> Self {
        Self::make(rules, workers, |_| {})
    }

    /// `change` is made to the policy.
    #[track_caller]
    pub fn make(rules: &str, workers: [u16; 2], change: impl Fn(&mut Policy)) -> Self {
        let mut ids = RuleIds::new();
        let mut policy = compile(rules, 1, &mut ids);
        change(&mut policy);
        let policy = Arc::new(policy);
        let nodes = [0, 1].map(|node| engines(&policy, node, workers[node]));
        let mut both = Self {
            nodes,
            now: Nanos::from_secs(1000),
            done: Done::default(),
            news: [VecDeque::new(), VecDeque::new()],
            room: usize::MAX,
            ways: workers.map(|workers| (0..workers).map(|_| VecDeque::new()).collect()),
            ids,
            generation: 1,
        };
        for node in 0..2 {
            both.stand(node, Standing::Both);
            for engine in &mut both.nodes[node] {
                engine.begin_telling();
                engine.set_redirect(1_000_000);
            }
        }
        both
    }

    /// From now on the node's sessions are whose `standing` says.
    pub fn stand(&mut self, node: usize, standing: Standing) {
        for engine in &mut self.nodes[node] {
            engine.stand(self.now, standing, true);
            while engine.is_settling() {
                engine.step_pair(self.now, 7);
            }
        }
    }

    /// The node dies: its news are lost, and the other one goes on alone.
    pub fn die(&mut self, node: usize) {
        self.news[1 - node].clear();
        self.room = 0;
        for engine in &mut self.nodes[1 - node] {
            engine.end_telling();
        }
        self.stand(1 - node, Standing::Own);
    }

    /// Applies other rules on one node.
    #[track_caller]
    pub fn apply(&mut self, node: usize, rules: &str) {
        self.generation += 1;
        let policy = Arc::new(compile(rules, self.generation, &mut self.ids));
        for engine in &mut self.nodes[node] {
            drop(engine.set_policy(Arc::clone(&policy)));
        }
    }

    /// A packet comes in at a node; what becomes of it becomes of it, over the link and back. What left and what was made.
    #[track_caller]
    pub fn send(&mut self, node: usize, port: u16, text: &str) -> Vec<Left> {
        self.frame(node, port, &frame(text))
    }

    #[track_caller]
    pub fn frame(&mut self, node: usize, port: u16, frame: &[u8]) -> Vec<Left> {
        self.burst(node, &[(port, frame.to_vec())])
    }

    /// Packets in one burst, at the first worker.
    #[track_caller]
    pub fn burst(&mut self, node: usize, packets: &[(u16, Vec<u8>)]) -> Vec<Left> {
        let before = (self.done.left.len(), self.done.made.len());
        for (port, frame) in packets {
            let mut packet = VecPacket::new(frame.clone());
            packet.hash = Some(self.done.crossed.len() as u32);
            self.done.crossed.push((node, [0; 2]));
            self.ways[node][0].push_back(Way::Judge(packet, PortId(*port), Hops::NONE));
        }
        self.settle();
        let mut left = self.done.left[before.0..].to_vec();
        left.extend_from_slice(&self.done.made[before.1..]);
        left
    }

    /// Does a packet leave where it came in, by the other port of the pair?
    #[track_caller]
    pub fn passes(&mut self, node: usize, port: u16, text: &str) -> bool {
        let left = self.send(node, port, text);
        let expected = (node, port ^ 1, frame(text));
        assert!(left.is_empty() || left == [expected], "{text}: {left:?}");
        !left.is_empty()
    }

    /// Turns until nothing is on its way.
    pub fn settle(&mut self) {
        loop {
            let mut idle = true;
            for node in 0..2 {
                for worker in 0..self.nodes[node].len() {
                    while !self.ways[node][worker].is_empty() {
                        idle = false;
                        self.turn(node, worker);
                    }
                }
            }
            if idle {
                break;
            }
        }
        self.check();
    }

    /// One worker takes what comes next, as far as it is of one kind.
    fn turn(&mut self, node: usize, worker: usize) {
        let mut batch = Batch::new();
        let mut of_peer = false;
        while let Some(Way::Judge(_, _, hops)) = self.ways[node][worker].front() {
            if batch.room() == 0 || (!batch.is_empty() && hops.is_from_peer() != of_peer) {
                break;
            }
            of_peer = hops.is_from_peer();
            if let Some(Way::Judge(packet, port, hops)) = self.ways[node][worker].pop_front() {
                batch.try_push_handed(packet, port, hops).expect("there is room");
            }
        }
        let next = if batch.is_empty() {
            self.ways[node][worker].pop_front()
        } else {
            None
        };
        let now = self.now;
        let (engine, mut out) = self.of(node, worker);
        match next {
            None if of_peer => engine.process_redirected(now, &mut batch, &mut out),
            None => engine.process(now, &mut batch, &mut out),
            Some(Way::Leave(packet, to)) if packet.hash.is_some() => out.done.leaves(node, packet, to),
            Some(Way::Leave(packet, to)) => out.done.made.push((node, to.0, packet.frame)),
            Some(Way::Message(message)) => engine.receive(now, *message, &mut out),
            Some(Way::Judge(..)) => unreachable!(),
        }
    }

    fn of(&mut self, node: usize, worker: usize) -> (&mut Engine, Out<'_>) {
        let out = Out {
            node,
            me: worker,
            done: &mut self.done,
            ways: &mut self.ways,
            room: &mut self.room,
        };
        (&mut self.nodes[node][worker], out)
    }

    /// What holds whenever nothing is on its way.
    #[track_caller]
    fn check(&self) {
        for engine in self.nodes.iter().flatten() {
            let c = engine.counters();
            let gone = c.forwarded + c.handed_over + c.redirected_out + c.given_back + c.sent_back;
            assert_eq!(
                c.received,
                gone + c.dropped() + engine.held(),
                "nothing is lost: {c:?}"
            );
            let live = c.sessions_created + c.sessions_synced_in + c.sessions_moved_in
                - c.sessions_ended
                - c.sessions_synced_out
                - c.sessions_moved_out;
            assert_eq!(live, u64::from(engine.table().len()), "sessions");
            let of_rules: u64 = engine.rules().iter().map(|rule| rule.sessions).sum();
            assert_eq!(of_rules, live, "every session has its rule");
        }
        let sum = |node: usize, of: fn(&haechi::engine::Counters) -> u64| {
            self.nodes[node]
                .iter()
                .map(|engine| of(engine.counters()))
                .sum::<u64>()
        };
        for node in 0..2 {
            assert_eq!(
                sum(node, |c| c.redirected_out),
                sum(1 - node, |c| c.redirected_in)
            );
        }
    }

    /// Has a node's workers say what is new; it is on its way then. Returns how much.
    pub fn tell(&mut self, node: usize) -> usize {
        let before = self.news[1 - node].len();
        for engine in &mut self.nodes[node] {
            while engine.news() > 0 {
                let mut budget = 16;
                while let Some(news) = engine.next_change(self.now, &mut budget) {
                    self.news[1 - node].push_back(news);
                }
            }
        }
        self.news[1 - node].len() - before
    }

    /// The node hears the oldest news that is on its way to it. False: there is none.
    pub fn hear(&mut self, node: usize) -> bool {
        let Some(news) = self.news[node].pop_front() else {
            return false;
        };
        let now = self.now;
        let (engine, mut out) = self.of(node, 0);
        // The lower node's sessions stay.
        engine.take_news(now, &news, node == 1, &mut out);
        self.settle();
        true
    }

    /// Everything that is new is told and heard.
    pub fn sync(&mut self) {
        while self.tell(0) + self.tell(1) > 0 || !self.news.iter().all(VecDeque::is_empty) {
            while self.hear(0) | self.hear(1) {}
        }
    }

    /// Each node has what the other one says of its sessions.
    #[track_caller]
    pub fn assert_equal(&self) {
        let sums = |node: usize| {
            let mut sums = [vec![0_u64; 512], vec![0_u64; 512]];
            for engine in &self.nodes[node] {
                let (told, heard) = engine.digests().expect("one of a pair");
                for (sum, of) in sums.iter_mut().zip([told, heard]) {
                    sum.iter_mut()
                        .zip(of)
                        .for_each(|(sum, of)| *sum = sum.wrapping_add(*of));
                }
            }
            sums
        };
        let ([told_a, heard_a], [told_b, heard_b]) = (sums(0), sums(1));
        assert!(told_a == heard_b && told_b == heard_a, "digests differ");
    }

    /// Lets time pass on both nodes.
    pub fn wait(&mut self, time: Nanos) {
        self.now = self.now.plus(time);
        let now = self.now;
        for node in 0..2 {
            for worker in 0..self.nodes[node].len() {
                let (engine, mut out) = self.of(node, worker);
                while engine.upkeep(now, 10_000, &mut out).lag > Nanos(0) {}
            }
        }
        self.settle();
    }

    /// A counter of a node, all workers together.
    pub fn sum(&self, node: usize, of: impl Fn(&haechi::engine::Counters) -> u64) -> u64 {
        self.nodes[node].iter().map(|engine| of(engine.counters())).sum()
    }

    /// The sessions in a node's tables: state, and whether they are the other node's; sorted.
    pub fn sessions(&self, node: usize) -> Vec<String> {
        let mut all = vec![];
        for engine in &self.nodes[node] {
            engine.table().scan(0, u32::MAX, |entry| {
                let whose = if entry.is_peers { "peer's" } else { "own" };
                all.push(format!("{} {whose}", entry.session.state().name()));
            });
        }
        all.sort();
        all
    }

    /// Records that a node has for its log.
    pub fn records(&mut self, node: usize) -> Vec<Record> {
        let engines = self.nodes[node].iter_mut();
        engines
            .flat_map(|engine| std::iter::from_fn(|| engine.next_record()).collect::<Vec<_>>())
            .collect()
    }

    /// The node says that the other one knows the session of this name.
    pub fn told(&mut self, node: usize, worker: usize, name: u64) {
        let now = self.now;
        let (engine, mut out) = self.of(node, worker);
        engine.told(now, name, &mut out);
        self.settle();
    }
}

fn compile(rules: &str, generation: u32, ids: &mut RuleIds) -> Policy {
    let config = config::load_text("test.toml", &config(rules)).unwrap_or_else(|e| panic!("{e}"));
    config::compile(&config, Generation(generation), ids).expect("a policy")
}

fn engines(policy: &Arc<Policy>, node: usize, workers: u16) -> Vec<Engine> {
    let sides = (0..policy.ports.len())
        .map(|port| [Side::Lan, Side::Wan][port % 2])
        .collect();
    let placement = Arc::new(Placement {
        function: function(Method::SymmetricKey),
        buckets: BucketTable::even(workers),
        sides,
    });
    let make = |worker: u16| {
        let seed = HashSeed([u64::from(worker), node as u64, 3, 4]);
        let engine = Engine::new(1000, Arc::clone(policy), &HeapMemory, seed).expect("memory");
        let mut engine = engine
            .with_records(1000, true)
            .with_pair(&SETUP, &HeapMemory)
            .expect("memory");
        if workers > 1 {
            engine.join(WorkerId(worker), Arc::clone(&placement));
        }
        engine
    };
    (0..workers).map(make).collect()
}

/// An ICMP error of `router` to `to` about a packet, of which it holds 28 bytes.
pub fn error(router: &str, to: &str, (icmp_type, code): (u8, u8), about: &str) -> Vec<u8> {
    let about = &frame(about)[14..42];
    let ends: [std::net::Ipv4Addr; 2] = [router, to].map(|address| address.parse().expect("an address"));
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 8]);
    let mut out = Vec::new();
    builder
        .ipv4(ends[0].octets(), ends[1].octets(), 60)
        .icmpv4_raw(icmp_type, code, [0, 0, 5, 0])
        .write(&mut out, about)
        .expect("a frame");
    out
}
