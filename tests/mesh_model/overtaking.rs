//! Three workers. The owner of a session tells the target of a reply that it owns the reply's flow (as it does with a flow whose
//! addresses it translates), and sends the session's first packet. The network answers; the reply comes in at the poller, whose
//! engine hands it to the target, whom the owner function names. The target, in the middle of its turns, has to know by then whose it
//! is: it hands it to the owner instead of refusing it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use haechi::base::slab::HeapMemory;
use haechi::base::turn::{self, Steps};
use haechi::base::{Generation, Nanos, PortId, WorkerId};
use haechi::config::{self, RuleIds};
use haechi::engine::{Batch, DropReason, Engine, Hops, Message, Note, Outputs, Placement};
use haechi::flow::owner::{BucketTable, Method, Side, Tuple};
use haechi::flow::{FlowKey, HashSeed};
use haechi::packet::synth::PacketSpec;
use haechi::packet::{ParseOptions, VecPacket, parse};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::{check, crew, failure};

const OWNER: WorkerId = WorkerId(0);
const POLLER: WorkerId = WorkerId(1);
const TARGET: WorkerId = WorkerId(2);
const WAN: PortId = PortId(1);
const NOW: Nanos = Nanos::from_secs(1000);
/// More than ever is in a queue, so that none wraps.
const ROOM: usize = 4;
/// What the model fails with.
const OVERTAKEN: &str = "a reply was judged before its message was taken";

/// DPDK's ring with one producer and one consumer: elements, then a release store of the producer's tail, which the consumer
/// acquires (`__rte_ring_update_tail`, `__rte_ring_move_cons_head`). An element is a number that stands for a packet.
#[derive(Default)]
struct Ring {
    elements: [AtomicUsize; ROOM],
    tail: AtomicUsize,
}

impl Ring {
    fn push_burst(&self, pushed: &mut usize, burst: &mut Vec<usize>) {
        for element in burst.drain(..) {
            self.elements[*pushed].store(element, Ordering::Relaxed);
            *pushed += 1;
        }
        self.tail.store(*pushed, Ordering::Release);
    }

    fn pop_burst(&self, popped: &mut usize) -> Vec<usize> {
        let tail = self.tail.load(Ordering::Acquire);
        let burst = (*popped..tail)
            .map(|place| self.elements[place].load(Ordering::Relaxed))
            .collect();
        *popped = tail;
        burst
    }
}

/// crossbeam's `ArrayQueue`: producers claim a place by moving the tail, write, and release the place's stamp; the length is what was
/// claimed, and who pops what was claimed and not written yet waits for it.
#[derive(Default)]
struct Inbox {
    tail: AtomicUsize,
    elements: [AtomicUsize; ROOM],
    stamps: [AtomicUsize; ROOM],
}

impl Inbox {
    fn push(&self, message: usize) {
        let mut place = self.tail.load(Ordering::Relaxed);
        while let Err(moved) =
            self.tail
                .compare_exchange(place, place + 1, Ordering::SeqCst, Ordering::Relaxed)
        {
            place = moved;
        }
        self.elements[place].store(message, Ordering::Relaxed);
        self.stamps[place].store(1, Ordering::Release);
    }

    fn len(&self, popped: usize) -> usize {
        self.tail.load(Ordering::SeqCst) - popped
    }

    fn pop(&self, popped: &mut usize) -> usize {
        while self.stamps[*popped].load(Ordering::Acquire) == 0 {
            thread::yield_now();
        }
        *popped += 1;
        self.elements[*popped - 1].load(Ordering::Relaxed)
    }
}

/// What the three workers share.
#[derive(Default)]
struct Node {
    /// From the owner's transmit queue through the network to the poller's receive queue.
    network: Ring,
    /// From the poller to the target.
    handed: Ring,
    /// The target's messages.
    inbox: Inbox,
}

/// A mistake.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Right,
    /// The target takes its messages before its packets.
    DrainsFirst,
    /// It takes them last.
    DrainsLast,
    /// The owner lets the packet leave before it tells.
    SendsFirst,
}

/// What is the same in every order.
struct Fixed {
    placement: Arc<Placement>,
    policy: Arc<haechi::policy::Policy>,
    /// Replies of different flows that the target is named for, none of which its own rules let through.
    replies: Vec<(Vec<u8>, FlowKey)>,
    /// Engines that are not in use: all memory of one is allocated when it is made, which takes longer than an order.
    engines: Mutex<Vec<Engine>>,
}

fn fixed() -> &'static Fixed {
    static FIXED: OnceLock<Fixed> = OnceLock::new();
    FIXED.get_or_init(|| {
        let text = "version = 1\n[node]\nmode = \"transparent\"\nworkers = \"0-2\"\n[conntrack]\nmax_sessions = 64\n\
            [[port]]\nname = \"lan\"\nzone = \"lan\"\npeer = \"wan\"\ndevice = \"vdev:net_null0\"\n\
            [[port]]\nname = \"wan\"\nzone = \"wan\"\npeer = \"lan\"\ndevice = \"vdev:net_null1\"\n\
            [[rule]]\nname = \"out\"\nfrom = \"lan\"\naction = \"allow\"\n";
        let config = config::load_text("test.toml", text).unwrap_or_else(|e| panic!("{e}"));
        let policy = config::compile(&config, Generation(1), &mut RuleIds::new()).expect("a policy");
        let placement = Placement {
            function: crew::function(Method::SymmetricToeplitz),
            buckets: BucketTable::even(3),
            sides: [Side::Lan, Side::Wan].into(),
        };
        let options = ParseOptions {
            verify_l4: true,
            look_into_vlan: true,
        };
        let reply = |port: u16| {
            let text = format!("udp 192.0.2.7:53 > 198.51.100.1:{port}");
            let frame = text.parse::<PacketSpec>().expect("a packet").frame();
            let meta = parse(&frame, VecPacket::new(frame.clone()).checksum, options);
            let owner = placement.buckets.owner(placement.hash(WAN, &Tuple::of(&meta)));
            let pair = policy.ports[WAN.index()].pair;
            let domain = policy.transparent.domain(pair, meta.vlan);
            (owner == TARGET).then(|| (frame, FlowKey::of(&meta, domain).0))
        };
        Fixed {
            replies: (1024..).filter_map(reply).take(2).collect(),
            placement: placement.into(),
            policy: policy.into(),
            engines: Mutex::default(),
        }
    })
}

/// An engine of worker `me` that knows nothing.
struct Judge(Option<Engine>);

impl Judge {
    fn new(me: WorkerId) -> Self {
        let fixed = fixed();
        let spare = fixed.engines.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut engine = spare.unwrap_or_else(|| {
            Engine::new(64, fixed.policy.clone(), &HeapMemory, HashSeed([1, 2, 3, 4])).expect("memory")
        });
        // Its redirects are new with it.
        engine.join(me, fixed.placement.clone());
        Self(Some(engine))
    }

    fn engine(&mut self) -> &mut Engine {
        self.0.as_mut().expect("until it is dropped")
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let engine = self.0.take();
        let mut spare = fixed().engines.lock().unwrap_or_else(PoisonError::into_inner);
        spare.extend(engine);
    }
}

/// Where the engines' verdicts go: the number of the packet, and who it is handed to; `None`: dropped.
#[derive(Default)]
struct Verdicts(Vec<(usize, Option<WorkerId>)>);

fn number(packet: &VecPacket) -> usize {
    let replies = &fixed().replies;
    replies
        .iter()
        .position(|(frame, _)| *frame == packet.frame)
        .expect("one of the replies")
}

impl Outputs<VecPacket> for Verdicts {
    fn forward(&mut self, _: VecPacket, _: PortId, _: Note) {
        panic!("nobody but the owner knows the session");
    }
    fn drop(&mut self, packet: VecPacket, reason: DropReason, _: Note) {
        assert_eq!(reason, DropReason::Policy);
        self.0.push((number(&packet), None));
    }
    fn answer(&mut self, packet: VecPacket, _: PortId, reason: DropReason, note: Note) {
        Outputs::drop(self, packet, reason, note);
    }
    fn hand_over(&mut self, packet: VecPacket, _: PortId, to: WorkerId, _: Hops, _: Note) {
        self.0.push((number(&packet), Some(to)));
    }
    fn buffer(&mut self) -> Option<VecPacket> {
        None
    }
    fn originate(&mut self, _: VecPacket, _: PortId) {}
}

/// The poller and the target: what they do with packets is the engine's.
struct Worker<'a> {
    node: &'a Node,
    me: WorkerId,
    judge: Judge,
    batch: Batch<VecPacket>,
    /// Packets that the batch takes.
    room: usize,
    /// Taken from the receive queue, from others, and from the messages.
    popped: [usize; 3],
    /// Packets on their way to the target, and how many are gone.
    waiting: Vec<usize>,
    pushed: usize,
    judged: usize,
}

impl<'a> Worker<'a> {
    fn new(node: &'a Node, me: WorkerId, room: usize) -> Self {
        Self {
            node,
            me,
            judge: Judge::new(me),
            batch: Batch::new(),
            room,
            popped: [0; 3],
            waiting: Vec::new(),
            pushed: 0,
            judged: 0,
        }
    }

    fn fill(&mut self, packets: Vec<usize>, hops: Hops) -> usize {
        let count = packets.len();
        for packet in packets {
            if self.batch.len() == self.room {
                turn::judge(self, NOW);
            }
            let packet = VecPacket::new(fixed().replies[packet].0.clone());
            self.batch
                .try_push_handed(packet, WAN, hops)
                .expect("there is room");
        }
        count
    }
}

impl Steps for Worker<'_> {
    fn receive(&mut self, _: Nanos) -> usize {
        if self.me != POLLER {
            return 0;
        }
        let packets = self.node.network.pop_burst(&mut self.popped[0]);
        self.fill(packets, Hops::NONE)
    }

    fn take_over(&mut self, _: Nanos) -> usize {
        if self.me != TARGET {
            return 0;
        }
        let packets = self.node.handed.pop_burst(&mut self.popped[1]);
        self.fill(packets, Hops::NONE.next().expect("the first"))
    }

    fn messages(&self) -> usize {
        if self.me == TARGET {
            self.node.inbox.len(self.popped[2])
        } else {
            0
        }
    }

    fn take_message(&mut self, now: Nanos) {
        let message = self.node.inbox.pop(&mut self.popped[2]);
        let key = fixed().replies[message].1;
        let to = Some(OWNER);
        let mut out = Verdicts::default();
        self.judge
            .engine()
            .receive(now, Message::Redirect { key, hash: 0, to }, &mut out);
    }

    fn process(&mut self, now: Nanos) {
        let mut verdicts = Verdicts::default();
        self.judge.engine().process(now, &mut self.batch, &mut verdicts);
        for (packet, to) in verdicts.0 {
            self.judged += 1;
            match (self.me, to) {
                (POLLER, Some(TARGET)) => self.waiting.push(packet),
                (TARGET, Some(OWNER)) => {}
                (TARGET, None) => panic!("{OVERTAKEN}"),
                other => panic!("{other:?}"),
            }
        }
    }

    fn flush(&mut self) {
        if !self.waiting.is_empty() {
            self.node.handed.push_burst(&mut self.pushed, &mut self.waiting);
        }
    }
}

/// A worker's turn, or one in a wrong order.
fn turn_in(order: Order, worker: &mut Worker<'_>) {
    match order {
        Order::DrainsFirst => {
            for _ in 0..worker.messages() {
                worker.take_message(NOW);
            }
            if worker.receive(NOW) + worker.take_over(NOW) > 0 {
                worker.process(NOW);
                worker.flush();
            }
        }
        Order::DrainsLast => {
            if worker.receive(NOW) + worker.take_over(NOW) > 0 {
                worker.process(NOW);
                worker.flush();
            }
            for _ in 0..worker.messages() {
                worker.take_message(NOW);
            }
        }
        _ => {
            turn::turn(worker, NOW);
        }
    }
}

/// The owner: makes a session for each of so many packets, and lets them leave. (The network answers with packets of the same number.)
fn own(order: Order, node: &Node, sessions: usize) {
    let mut pushed = 0;
    for session in 0..sessions {
        let tell = |node: &mut &Node| {
            node.inbox.push(session);
        };
        let mut send = |node: &mut &Node| node.network.push_burst(&mut pushed, &mut vec![session]);
        let mut node = node;
        if order == Order::SendsFirst {
            send(&mut node);
            tell(&mut node);
        } else {
            // As the engine does: it tells while it judges, and what it forwards leaves after.
            tell(&mut node);
            send(&mut node);
        }
    }
}

/// Enough for an engine.
const STACK: usize = 1 << 17;

fn spawn(work: impl FnOnce() -> usize + Send + 'static) -> thread::JoinHandle<usize> {
    let thread = thread::Builder::new().stack_size(STACK);
    thread.spawn(work).expect("a thread of the model")
}

/// So many sessions, turns of the poller and of the target, and room in a batch. Returns in how many orders, and in how many of
/// them all replies came to the target.
fn three_workers(
    preemptions: Option<usize>,
    order: Order,
    (sessions, turns, room): (usize, [usize; 2], usize),
) -> (usize, usize) {
    let complete = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let orders = check(preemptions, {
        let complete = Arc::clone(&complete);
        move || {
            let node = Arc::new(Node::default());
            let worker = |me: WorkerId, turns: usize| {
                let node = Arc::clone(&node);
                spawn(move || {
                    let mut worker = Worker::new(&node, me, room);
                    for _ in 0..turns {
                        turn_in(order, &mut worker);
                    }
                    worker.judged
                })
            };
            let poller = worker(POLLER, turns[0]);
            let target = worker(TARGET, turns[1]);
            own(order, &node, sessions);
            poller.join().expect("the poller");
            if target.join().expect("the target") == sessions {
                complete.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    (orders, complete.load(std::sync::atomic::Ordering::Relaxed))
}

#[test]
fn no_reply_overtakes_its_message() {
    let one = three_workers(None, Order::Right, (1, [1, 2], 4));
    println!("one session: {one:?}");
    let two = three_workers(Some(2), Order::Right, (2, [2, 2], 4));
    println!("two sessions: {two:?}");
    let full = three_workers(Some(2), Order::Right, (2, [1, 2], 1));
    println!("two sessions, batches of one packet: {full:?}");
    for (orders, complete) in [one, two, full] {
        assert!(orders > 50 && complete > 5);
    }
}

#[test]
fn the_model_finds_messages_taken_before_packets() {
    let why = failure(|| three_workers(Some(2), Order::DrainsFirst, (1, [1, 1], 4)).0);
    assert_eq!(why, OVERTAKEN);
}

#[test]
fn the_model_finds_messages_taken_after_packets() {
    let why = failure(|| three_workers(Some(2), Order::DrainsLast, (1, [1, 1], 4)).0);
    assert_eq!(why, OVERTAKEN);
}

#[test]
fn the_model_finds_a_packet_that_leaves_before_its_message() {
    let why = failure(|| three_workers(Some(2), Order::SendsFirst, (1, [1, 1], 4)).0);
    assert_eq!(why, OVERTAKEN);
}
