//! What the simulator found, each by itself.

use std::sync::Arc;

use haechi::base::slab::HeapMemory;
use haechi::base::{Nanos, PortId};
use haechi::engine::{Batch, DropReason, Engine, Note, Outputs, PairSetup, Placement};
use haechi::flow::image::{BUCKETS, DigestKey, Image};
use haechi::flow::owner::{BucketTable, KeySet, Method, OwnerFunction, Side};
use haechi::flow::table::{News, Standing};
use haechi::flow::{Direction, FlowKey, HashSeed, KeyClass};
use haechi::ha::member::{Member, Order, Queues, Word};
use haechi::packet::VecPacket;
use haechi::packet::synth::PacketSpec;

use super::ha_net::Random;
use super::node::{ADOPTION, ENDS};
use super::policy::Variant;

struct Nowhere;

impl Outputs<VecPacket> for Nowhere {
    fn forward(&mut self, _: VecPacket, _: PortId, _: Note) {}
    fn drop(&mut self, _: VecPacket, reason: DropReason, _: Note) {
        panic!("dropped: {}", reason.name());
    }
    fn answer(&mut self, _: VecPacket, _: PortId, _: DropReason, _: Note) {}
    fn buffer(&mut self) -> Option<VecPacket> {
        None
    }
    fn originate(&mut self, _: VecPacket, _: PortId) {}
}

/// But those of stations.
fn words(queues: &Queues) -> Vec<Word> {
    std::iter::from_fn(|| queues.words.pop())
        .filter(|word| !matches!(word, Word::News(News::Station(..), _)))
        .collect()
}

/// Digests that leave out what got lost would differ, and a resync would end what it did not name.
#[test]
fn what_got_lost_before_a_cut_is_told_again_within_it() {
    let setup = PairSetup {
        key: DigestKey([1, 2]),
        adoption: ADOPTION,
        ends: ENDS,
    };
    let now = Nanos::from_secs(5);
    let engine = Engine::new(64, Variant(0).policy(1), &HeapMemory, HashSeed([1, 2, 3, 4])).expect("memory");
    let mut engine = engine.with_pair(&setup, &HeapMemory).expect("memory");
    let queues = Arc::new(Queues::new(8));
    let mut member = Member::new(Arc::clone(&queues));
    let mut order = |engine: &mut Engine, orders: Vec<Order>| {
        for order in orders {
            queues.orders.push(order).expect("there is room");
        }
        while member.turn(now, false, engine, &mut Nowhere) {}
        words(&queues)
    };
    let begun = order(
        &mut engine,
        vec![Order::Stand(Standing::Own, true), Order::BeginTelling(1)],
    );
    assert!(matches!(begun[..], [Word::Begun(1)]), "{begun:?}");
    let mut batch = Batch::new();
    let packet: PacketSpec = "udp 10.0.0.5:5 > 192.0.2.7:53 len=10".parse().expect("a packet");
    batch
        .try_push(VecPacket::new(packet.frame()), PortId(0))
        .expect("there is room");
    engine.process(now, &mut batch, &mut Nowhere);
    let told = order(&mut engine, vec![]);
    let [Word::News(News::Session(_, name), _)] = told[..] else {
        panic!("{told:?}");
    };
    let again = order(
        &mut engine,
        vec![Order::TellAgain(name), Order::SumTold(7, Box::new([0; BUCKETS]))],
    );
    assert!(
        matches!(again[..], [Word::News(News::Session(..), _), Word::Told(7, _)]),
        "{again:?}"
    );
}

/// An end says the flow alone, and by two keys the flow's worker depends on which of its ends is on which side.
#[test]
fn an_end_reaches_the_worker_of_its_session_by_every_method() {
    let mut random = Random(7);
    for method in [
        Method::SymmetricToeplitz,
        Method::Sorted,
        Method::TwoSided,
        Method::SymmetricKey,
    ] {
        let keys = KeySet::random(method, |bytes| {
            bytes.iter_mut().for_each(|byte| *byte = random.next() as u8);
        });
        let placement = Placement {
            function: OwnerFunction::new(method, keys).expect("the key fits its method"),
            buckets: BucketTable::even(3),
            sides: [Side::Lan, Side::Wan, Side::Lan, Side::Wan].into(),
        };
        for _ in 0..200 {
            let pair = random.below(2) as u16;
            let address = |host: u64| {
                let mut address = [0; 16];
                address[10..12].fill(0xff);
                address[12..].copy_from_slice(&(host as u32).to_be_bytes());
                address
            };
            let image = Image {
                key: FlowKey {
                    low: address(random.next()),
                    high: address(random.next()),
                    low_port: random.next() as u16,
                    high_port: 80,
                    domain: u32::from(pair) << 24,
                    protocol: 6,
                    class: KeyClass::Ports,
                    ..FlowKey::default()
                },
                opener: if random.chance(128) {
                    Direction::LowToHigh
                } else {
                    Direction::HighToLow
                },
                ingress: PortId(2 * pair + random.below(2) as u16),
                ..Image::default()
            };
            let owners = placement.owners_of_key(&image.key);
            assert!(owners.contains(&placement.owner_of_image(&image)), "{method:?}");
        }
    }
}
