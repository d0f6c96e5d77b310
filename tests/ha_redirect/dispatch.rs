//! From worker to worker: the queues, and which worker of the other node a packet goes to.

use std::sync::Arc;

use haechi::base::{Nanos, PortId, WorkerId};
use haechi::engine::Placement;
use haechi::flow::image::BUCKETS;
use haechi::flow::owner::{BucketTable, KeySet, Method, OwnerFunction, Side};
use haechi::ha::dispatch::{Dispatch, DispatchConfig};
use haechi::ha::frames::{Frames, FramesConfig};
use haechi::ha::member::{Order, Queues, Word};
use haechi::ha::peer::Peer;
use haechi::ha::{Crossing, NodeId, Role};
use haechi::packet::RxChecksum;
use haechi::packet::parse::{ParseOptions, parse};

use super::frames::{Ip4, fixed, icmp, tcp4, udp4};
use super::peers::{config, frame, frames_config, key};

/// Buffers of a worker.
const OUT: usize = 16;

/// One node: the HA thread's part, and workers that answer what they are asked.
struct Node {
    dispatch: Dispatch,
    queues: Vec<Arc<Queues>>,
    placement: Option<Arc<Placement>>,
}

impl Node {
    fn new(node: u8, workers: usize, frames: &FramesConfig, now: Nanos) -> Self {
        let queues: Vec<_> = (0..workers)
            .map(|_| Arc::new(Queues::new(64).with_frames(Some(Frames::new(OUT, frames, workers)))))
            .collect();
        let placement = (workers > 1).then(|| {
            let mut byte = 0_u8;
            let keys = KeySet::random(Method::TwoSided, |bytes| {
                bytes.iter_mut().for_each(|place| {
                    byte = byte.wrapping_mul(13).wrapping_add(node + 40);
                    *place = byte;
                });
            });
            Arc::new(Placement {
                function: OwnerFunction::new(Method::TwoSided, keys).expect("the key fits its method"),
                buckets: BucketTable::even(workers as u16),
                sides: [Side::Lan, Side::Wan].into(),
            })
        });
        let dispatch = Dispatch::new(
            DispatchConfig {
                node: NodeId(node),
                ping_every: Nanos::from_millis(50),
                stalled_after: Nanos::from_secs(1000),
                sync_rate: 1000,
            },
            Peer::new(config(node, *frames), &key(), now, [node; 32]),
            queues.clone(),
            placement.clone(),
            now,
        );
        Self {
            dispatch,
            queues,
            placement,
        }
    }

    fn frames(&self, worker: usize) -> &Frames {
        self.queues[worker].frames.as_ref().unwrap()
    }

    fn work(&self) {
        for queues in &self.queues {
            while let Some(order) = queues.orders.pop() {
                let word = match order {
                    Order::SumTold(number, sums) => Word::Told(number, sums),
                    Order::SumHeard(number, sums) => Word::Heard(number, sums),
                    Order::BeginTelling(number) => Word::Begun(number),
                    Order::TellAll(_, _, number) => Word::ToldAll(number),
                    Order::Ping(number) => Word::Here(number),
                    _ => continue,
                };
                assert!(queues.words.push(word).is_ok());
            }
        }
    }

    /// What its workers get: which one, what for, by which port.
    fn arrived(&self) -> Vec<(usize, Crossing, PortId, Vec<u8>)> {
        let mut arrived = vec![];
        for worker in 0..self.queues.len() {
            while let Some(one) = self
                .frames(worker)
                .take(|frame| (worker, frame.crossing, frame.port, frame.bytes().to_vec()))
            {
                arrived.push(one);
            }
        }
        arrived
    }
}

struct Both {
    nodes: [Node; 2],
    now: Nanos,
}

impl Both {
    fn active(workers: [usize; 2], frames: &FramesConfig) -> Self {
        let now = Nanos::from_secs(1);
        let mut both = Self {
            nodes: [
                Node::new(1, workers[0], frames, now),
                Node::new(2, workers[1], frames, now),
            ],
            now,
        };
        assert_eq!(BUCKETS, 512);
        for _ in 0..4000 {
            both.now = both.now.plus(Nanos::MILLISECOND);
            both.turn();
            if both.nodes.iter().all(|node| node.dispatch.role() == Role::Active) {
                return both;
            }
        }
        panic!(
            "they are {:?}",
            both.nodes.each_ref().map(|node| node.dispatch.role())
        );
    }

    fn turn(&mut self) {
        for node in &mut self.nodes {
            node.dispatch.peer.handle_timeout(self.now);
        }
        for _ in 0..6 {
            for from in [0, 1] {
                self.nodes[from].dispatch.turn(self.now);
                self.nodes[from].work();
                let mut datagram = vec![];
                while let Some(path) = self.nodes[from].dispatch.poll_transmit(self.now, &mut datagram) {
                    let to = &mut self.nodes[1 - from].dispatch;
                    to.peer.handle_datagram(self.now, path, &mut datagram);
                    to.deliver();
                }
            }
        }
    }
}

fn packets() -> Vec<Vec<u8>> {
    let mut packets = vec![];
    for port in 1000..1040 {
        packets.push(tcp4((port, 443), 0x10, &[], b"hello"));
        packets.push(udp4((port, 53), b"hello"));
    }
    packets
}

/// To be judged a packet goes to the worker that has its flow by this node's owner function, whichever worker of the other node had it; an
/// error to that of the packet that it tells of; what is not known to the first.
#[test]
fn a_packet_goes_to_the_worker_of_its_flow() {
    let mut both = Both::active([2, 3], &frames_config());
    let mut used = [0; 3];
    for (number, packet) in packets().into_iter().enumerate() {
        let port = PortId((number % 2) as u16);
        assert!(
            both.nodes[0]
                .frames(number % 2)
                .send(Crossing::Known, port, (number % 2) as u16, &packet)
        );
        both.turn();
        let arrived = both.nodes[1].arrived();
        let placement = both.nodes[1].placement.as_ref().unwrap();
        let meta = parse(&packet, RxChecksum::default(), ParseOptions::default());
        let WorkerId(owner) = placement.owner(port, &meta, &packet).unwrap();
        assert_eq!(arrived, [(usize::from(owner), Crossing::Known, port, packet)]);
        used[usize::from(owner)] += 1;
    }
    assert!(used.iter().all(|used| *used > 0), "{used:?}");

    // Port unreachable, about a datagram that went the other way.
    let placement = both.nodes[1].placement.clone().unwrap();
    for port in 1000..1020 {
        let datagram = udp4((port, 53), b"hello");
        let error = fixed(Ip4::new(1).frame(&icmp(3, 3, [0; 4], &datagram[14..])));
        assert!(
            both.nodes[0]
                .frames(0)
                .send(Crossing::Unknown, PortId(1), 0, &error)
        );
        both.turn();
        let meta = parse(&datagram, RxChecksum::default(), ParseOptions::default());
        let owner = placement.owner(PortId(0), &meta, &datagram).unwrap();
        assert_eq!(both.nodes[1].arrived()[0].0, owner.index(), "{port}");
    }
    assert!(
        both.nodes[0]
            .frames(1)
            .send(Crossing::Unknown, PortId(0), 1, &frame(1, 30))
    );
    both.turn();
    assert_eq!(
        both.nodes[1].arrived(),
        [(0, Crossing::Unknown, PortId(0), frame(1, 30))]
    );
}

/// What goes back goes to one worker for each of the sender's, so that a flow stays in order.
#[test]
fn what_comes_back_stays_in_order() {
    let mut both = Both::active([2, 3], &frames_config());
    for round in 0..40 {
        for worker in 0..3 {
            let crossing = [Crossing::Return, Crossing::ReturnMade][round % 2];
            let frames = both.nodes[1].frames(worker);
            assert!(frames.send(crossing, PortId(0), worker as u16, &frame(round, 60 + worker)));
        }
        if round % 4 == 3 {
            both.turn();
        }
    }
    let arrived = both.nodes[0].arrived();
    assert_eq!(arrived.len(), 120);
    for sender in 0..3 {
        let came: Vec<_> = arrived.iter().filter(|one| one.3.len() == 60 + sender).collect();
        assert!(came.iter().all(|one| one.0 == sender % 2), "all to one worker");
        let bytes: Vec<_> = came.into_iter().map(|one| one.3.clone()).collect();
        let sent: Vec<_> = (0..40).map(|round| frame(round, 60 + sender)).collect();
        assert_eq!(bytes, sent);
    }
}

/// No queue is longer than it is, no buffer is ever lost, and who finds no room is told so.
#[test]
fn queues_are_bounded_and_buffers_come_back() {
    let frames = FramesConfig {
        rate: 1_000_000,
        ..frames_config()
    };
    let mut both = Both::active([1, 2], &frames);
    let packet = tcp4((1000, 443), 0x10, &[], b"hello");
    for _ in 0..3 {
        // The HA thread does not come by.
        let sent = (0..2 * OUT)
            .filter(|_| {
                both.nodes[0]
                    .frames(0)
                    .send(Crossing::Known, PortId(0), 0, &packet)
            })
            .count();
        assert_eq!(sent, OUT);
        assert!(both.nodes[0].dispatch.has_frames());
        both.turn();
        assert!(!both.nodes[0].dispatch.has_frames());
        assert_eq!(
            both.nodes[0].frames(0).out_spare.len(),
            OUT,
            "all of them are back"
        );
    }
    assert_eq!(both.nodes[1].arrived().len(), 3 * OUT);
    // One that is longer than any stays where it is.
    assert!(
        !both.nodes[0]
            .frames(0)
            .send(Crossing::Known, PortId(0), 0, &frame(1, 9100))
    );
    assert_eq!(both.nodes[0].frames(0).out_spare.len(), OUT);

    // A worker that takes nothing: its queue is full, the rest is counted, and the other worker gets its own.
    let owner = {
        let meta = parse(&packet, RxChecksum::default(), ParseOptions::default());
        both.nodes[1]
            .placement
            .as_ref()
            .unwrap()
            .owner(PortId(0), &meta, &packet)
            .unwrap()
    };
    for _ in 0..30 {
        for _ in 0..OUT {
            assert!(
                both.nodes[0]
                    .frames(0)
                    .send(Crossing::Known, PortId(0), 0, &packet)
            );
        }
        both.turn();
    }
    let room = frames.waiting / 2;
    assert_eq!(both.nodes[1].frames(owner.index()).incoming.len(), room);
    let status = both.nodes[1].dispatch.peer.status(both.now);
    assert_eq!(status.frames_in.no_room, 30 * OUT as u64 - room as u64);
    let other = packets().into_iter().find(|packet| {
        let meta = parse(packet, RxChecksum::default(), ParseOptions::default());
        both.nodes[1]
            .placement
            .as_ref()
            .unwrap()
            .owner(PortId(0), &meta, packet)
            != Some(owner)
    });
    let other = other.unwrap();
    assert!(
        both.nodes[0]
            .frames(0)
            .send(Crossing::Known, PortId(0), 0, &other)
    );
    both.turn();
    assert_eq!(both.nodes[1].frames(1 - owner.index()).incoming.len(), 1);
    // It goes on.
    assert_eq!(both.nodes[1].arrived().len(), room + 1);
    for _ in 0..20 {
        assert!(
            both.nodes[0]
                .frames(0)
                .send(Crossing::Known, PortId(0), 0, &packet)
        );
        both.turn();
        assert_eq!(both.nodes[1].arrived().len(), 1);
    }
    assert_eq!(
        both.nodes[1].dispatch.peer.status(both.now).frames_in.no_room,
        status.frames_in.no_room
    );
}

/// It may sleep.
#[test]
fn a_worker_is_rung_for() {
    let mut both = Both::active([1, 1], &frames_config());
    let _ = both.nodes[1].dispatch.rung().count();
    assert!(
        both.nodes[0]
            .frames(0)
            .send(Crossing::Unknown, PortId(1), 0, &frame(3, 70))
    );
    both.turn();
    assert_eq!(both.nodes[1].dispatch.rung().collect::<Vec<_>>(), [WorkerId(0)]);
    assert_eq!(
        both.nodes[1].arrived(),
        [(0, Crossing::Unknown, PortId(1), frame(3, 70))]
    );
}
