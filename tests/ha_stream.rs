//! The two halves of a stream of session updates: numbers, losses, resyncs, barriers, bounds.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

use haechi::base::Nanos;
use haechi::flow::image::{BUCKETS, Birth, Bucket, BucketSet, Image};
use haechi::flow::{FlowKey, KeyClass, SessionState};
use haechi::ha::stream::{
    ACK_DELAY, ACK_EVERY, BARRIER_LIMIT, BARRIER_RETRY, ITEMS, Receiver, SETTLE_ROUNDS, Sender,
};
use haechi::ha::wire::{DATAGRAM, Message, Writer, decode};
use haechi::ha::{Ack, DigestReport, Frame, Outgoing, StreamConfig, Update};
use proptest::prelude::*;

const MS: u64 = 1_000_000;

fn at(ms: u64) -> Nanos {
    Nanos(ms * MS)
}

fn key(id: u32) -> FlowKey {
    FlowKey {
        low: (u128::from(id) << 32).to_ne_bytes(),
        high: [0xff; 16],
        low_port: 1,
        high_port: 2,
        protocol: 17,
        class: KeyClass::Ports,
        ..FlowKey::default()
    }
}

fn session(id: u32) -> Outgoing {
    Outgoing {
        worker: 3,
        handle: u64::from(id),
        update: Update::Session(Image {
            key: key(id),
            birth: Birth(1),
            state: SessionState::UdpNew,
            ..Image::default()
        }),
        awaited: false,
    }
}

fn gone(id: u32) -> Outgoing {
    Outgoing {
        update: Update::Gone {
            key: key(id),
            birth: Birth(1),
        },
        ..session(id)
    }
}

/// The ids that a Sync frame tells of; of sessions that are gone negative.
fn told(frame: &Frame) -> Vec<i64> {
    let id = |key: &FlowKey| (u128::from_ne_bytes(key.low) >> 32) as i64;
    match frame {
        Frame::Sync { updates, .. } => updates
            .iter()
            .map(|update| match update {
                Update::Session(image) => id(&image.key),
                Update::Gone { key, .. } => -id(key),
                Update::Station(_) => panic!("none was offered"),
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn number(frame: &Frame) -> u64 {
    match frame {
        Frame::Sync { number, .. }
        | Frame::ResyncBegin { number, .. }
        | Frame::ResyncEnd { number, .. }
        | Frame::Barrier { number, .. } => *number,
        other => panic!("{other:?}"),
    }
}

/// The next frame that goes, through its bytes.
fn transmit(sender: &mut Sender, now: Nanos) -> Option<Frame> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, DATAGRAM);
    let wrote = sender.transmit(now, &mut writer);
    assert_eq!(wrote, !writer.is_empty());
    let mut frames = decode(&out)
        .unwrap()
        .map(|message: Message<'_>| message.into_frame().unwrap());
    let frame = frames.next();
    assert_eq!(frames.next(), None);
    frame
}

fn transmit_all(sender: &mut Sender, now: Nanos) -> Vec<Frame> {
    std::iter::from_fn(|| transmit(sender, now)).collect()
}

/// All up to `highest` were taken in.
const fn all(highest: u64) -> Ack {
    Ack {
        highest,
        before: u64::MAX,
    }
}

fn config() -> StreamConfig {
    StreamConfig {
        linger: Nanos(0),
        ..StreamConfig::default()
    }
}

/// A sender whose first resync is over, and that waits for the answer to its first barrier's question for ever: so nothing but updates goes.
fn running(config: StreamConfig) -> (Sender, u64) {
    let mut sender = Sender::new(config);
    sender.start(at(0));
    let begin = transmit(&mut sender, at(0)).unwrap();
    assert!(
        matches!(&begin, Frame::ResyncBegin { number: 1, buckets, .. } if buckets.is_empty()),
        "{begin:?}"
    );
    sender.acknowledged(at(0), all(1));
    let (resync, buckets) = sender.walk().map(|(id, buckets)| (id, *buckets)).unwrap();
    assert_eq!(buckets, BucketSet::ALL);
    sender.walked(at(0), resync);
    sender.cut(at(0), sender.cut_wanted().unwrap(), &[0; BUCKETS]);
    let end = transmit(&mut sender, at(0)).unwrap();
    assert_eq!(end, Frame::ResyncEnd { number: 2, resync });
    sender.acknowledged(at(0), all(2));
    assert_eq!(sender.progress(), None);
    assert!(sender.cut_wanted().is_some());
    assert_eq!(transmit(&mut sender, at(0)), None);
    (sender, 3)
}

#[test]
fn what_is_offered_is_told_once_in_order_and_forgotten_when_it_is_acknowledged() {
    let (mut sender, first) = running(config());
    for id in 1..=100 {
        assert!(sender.offer(at(1), session(id)));
    }
    let frames = transmit_all(&mut sender, at(1));
    let numbers: Vec<_> = frames.iter().map(number).collect();
    assert_eq!(numbers, (first..first + frames.len() as u64).collect::<Vec<_>>());
    let ids: Vec<_> = frames.iter().flat_map(told).collect();
    assert_eq!(ids, (1..=100).collect::<Vec<_>>());
    assert_eq!(sender.held(), 100);
    sender.acknowledged(at(2), all(*numbers.last().unwrap()));
    assert_eq!(
        (sender.held(), sender.in_flight(), sender.take_again()),
        (0, 0, None)
    );
    let counters = *sender.counters();
    assert_eq!(
        (counters.sent, counters.acknowledged, counters.lost),
        (100, 100, 0)
    );
}

#[test]
fn what_got_lost_is_asked_for_again_and_what_nobody_else_remembers_is_told_again() {
    let (mut sender, first) = running(config());
    let mut id = 0;
    // Five frames of a session and an end each.
    for _ in 0..5 {
        id += 2;
        assert!(sender.offer(at(1), session(id - 1)) && sender.offer(at(1), gone(id)));
        assert_eq!(transmit_all(&mut sender, at(1)).len(), 1);
    }
    // The second and the fourth never arrived.
    let ack = Ack {
        highest: first + 4,
        before: 0b1010,
    };
    sender.acknowledged(at(2), ack);
    let lost: Vec<_> = std::iter::from_fn(|| sender.take_again()).collect();
    assert_eq!(lost, [(3, 3), (3, 7)]);
    let again = transmit(&mut sender, at(2)).unwrap();
    assert_eq!((number(&again), told(&again)), (first + 5, vec![-4, -8]));
}

#[test]
fn the_last_frame_is_missed_by_the_clock() {
    let (mut sender, first) = running(config());
    // A round trip of 30 ms, after some of none.
    for n in 0..64 {
        let now = at(100 * n);
        sender.offer(now, session(1));
        assert!(transmit(&mut sender, now).is_some());
        sender.acknowledged(at(100 * n + 30), all(first + n));
    }
    let round_trip = sender.round_trip().unwrap();
    assert!(round_trip > at(29) && round_trip <= at(30), "{round_trip:?}");
    sender.offer(at(7000), session(7));
    sender.offer(at(7000), gone(8));
    assert!(transmit(&mut sender, at(7000)).is_some());
    let due = sender.next_timeout().unwrap();
    assert!(due >= at(7039) && due < at(7041), "{due:?}");
    sender.tick(Nanos(due.0 - 1));
    assert_eq!((sender.in_flight(), sender.counters().timeouts), (1, 0));
    sender.tick(due);
    assert_eq!((sender.in_flight(), sender.counters().timeouts), (0, 1));
    assert_eq!(sender.take_again(), Some((3, 7)));
    assert_eq!(told(&transmit(&mut sender, due).unwrap()), [-8]);
    // It was only late: what was sent again says the same, or newer.
    sender.acknowledged(due, all(first + 64));
    assert_eq!(sender.in_flight(), 1);
    // And the next timeout is twice as long.
    let next = sender.next_timeout().unwrap();
    assert!(next >= due.plus(at(78)) && next < due.plus(at(82)), "{next:?}");
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_nothing() {
    let (mut sender, first) = running(config());
    sender.offer(at(1), session(1));
    assert!(transmit(&mut sender, at(1)).is_some());
    for highest in [first + 1, first + 1000, u64::MAX] {
        sender.acknowledged(at(1), all(highest));
    }
    assert_eq!((sender.in_flight(), sender.counters().bad_acks), (1, 3));
    sender.acknowledged(at(1), all(first));
    assert_eq!(sender.in_flight(), 0);
}

#[test]
fn everything_is_bounded_while_nothing_is_acknowledged() {
    let small = StreamConfig {
        window: 20,
        pending: 50,
        ..config()
    };
    let (mut sender, _) = running(small);
    let mut offered = 0;
    let mut now = at(1);
    for round in 0..200 {
        while sender.offer(
            now,
            if offered % 3 == 0 {
                gone(offered)
            } else {
                session(offered)
            },
        ) {
            offered += 1;
        }
        transmit_all(&mut sender, now);
        assert!(
            sender.in_flight() <= 20 && sender.held() <= 50 + 20 * ITEMS,
            "round {round}"
        );
        now = sender.next_timeout().unwrap().max(now);
        sender.tick(now);
        while let Some((worker, handle)) = sender.take_again() {
            assert_eq!(worker, 3);
            assert_ne!(handle % 3, 0);
        }
    }
    // The ends of sessions have nowhere else to be: nothing else is sent in the end, and nothing more is taken.
    assert!(sender.counters().timeouts > 20);
    let mut stopped = Sender::new(small);
    assert!(!stopped.offer(at(0), session(1)), "no peer");
}

#[test]
fn a_datagram_that_is_not_full_waits_a_little_while_others_are_in_flight() {
    let lingers = StreamConfig {
        linger: Nanos(MS),
        ..StreamConfig::default()
    };
    let (mut sender, first) = running(lingers);
    // Nothing is in flight: at once.
    sender.offer(at(10), session(1));
    assert_eq!(told(&transmit(&mut sender, at(10)).unwrap()), [1]);
    sender.offer(at(12), session(2));
    sender.offer(at(12), session(3));
    assert_eq!(transmit(&mut sender, at(12)), None);
    assert_eq!(sender.next_timeout(), Some(at(13)));
    assert_eq!(told(&transmit(&mut sender, at(13)).unwrap()), [2, 3]);
    // A full one does not wait.
    (10..30).for_each(|id| assert!(sender.offer(at(14), session(id))));
    assert!(told(&transmit(&mut sender, at(14)).unwrap()).len() >= 8);
    sender.acknowledged(at(20), all(first + 2));
    sender.offer(at(20), session(4));
    assert!(transmit(&mut sender, at(20)).is_some());
}

#[test]
fn a_resync_is_walked_only_once_the_peer_knows_that_it_began() {
    let mut sender = Sender::new(config());
    sender.set_sessions(5120);
    sender.start(at(0));
    for attempt in 1..=3 {
        let now = at(1000 * attempt);
        let begin = transmit(&mut sender, now).unwrap();
        assert!(
            matches!(
                begin,
                Frame::ResyncBegin {
                    resync: 1,
                    sessions: 5120,
                    ..
                }
            ),
            "{begin:?}"
        );
        assert_eq!((number(&begin), sender.walk()), (attempt, None));
        assert_eq!(sender.take_allowance(now, 9), 0);
        sender.tick(sender.next_timeout().unwrap());
    }
    assert!(transmit(&mut sender, at(9000)).is_some());
    sender.acknowledged(at(9000), all(4));
    assert!(sender.walk().is_some());
    assert_eq!(sender.progress(), Some((0, 5120)));
    // A walk of one before does not end it.
    sender.walked(at(9000), 0);
    assert!(sender.walk().is_some());
}

#[test]
fn a_resync_ends_when_all_of_it_has_arrived() {
    let mut sender = Sender::new(config());
    sender.start(at(0));
    transmit(&mut sender, at(0)).unwrap();
    sender.acknowledged(at(0), all(1));
    assert!(sender.offer(at(1), session(1)));
    let lost = transmit(&mut sender, at(1)).unwrap();
    sender.walked(at(1), 1);
    let round = sender.cut_wanted().expect("a question to the workers");
    sender.cut(at(1), round, &[0; BUCKETS]);
    assert_eq!(
        transmit(&mut sender, at(1)),
        None,
        "not before what was walked is acknowledged"
    );
    // It was lost: the worker is asked again before there is another question.
    sender.tick(at(500));
    assert_eq!(sender.cut_wanted(), None);
    assert_eq!(sender.take_again(), Some((3, 1)));
    let second = sender.cut_wanted().unwrap();
    assert!(second > round);
    sender.cut(at(500), round, &[0; BUCKETS]);
    assert_eq!(sender.cut_wanted(), Some(second), "an old answer is none");
    sender.offer(at(500), session(1));
    sender.cut(at(500), second, &[0; BUCKETS]);
    let again = transmit(&mut sender, at(500)).unwrap();
    assert_eq!((told(&again), number(&again)), (vec![1], number(&lost) + 1));
    sender.acknowledged(at(501), all(number(&again)));
    assert!(matches!(
        transmit(&mut sender, at(501)),
        Some(Frame::ResyncEnd { resync: 1, .. })
    ));
    assert_eq!(sender.counters().resynced, 0);
    // The end gets lost, too.
    sender.tick(at(2000));
    let end = transmit(&mut sender, at(2000)).unwrap();
    assert!(matches!(end, Frame::ResyncEnd { resync: 1, .. }));
    sender.acknowledged(at(2001), all(number(&end)));
    assert_eq!((sender.counters().resynced, sender.progress()), (1, None));
}

#[test]
fn a_resync_does_not_wait_for_ever_for_a_link_that_always_loses_something() {
    let mut sender = Sender::new(config());
    sender.start(at(0));
    transmit(&mut sender, at(0)).unwrap();
    sender.acknowledged(at(0), all(1));
    sender.walked(at(0), 1);
    let mut rounds = 0;
    let end = loop {
        let now = at(5_000 * (1 + rounds));
        let Some(round) = sender.cut_wanted() else {
            break transmit(&mut sender, now).unwrap();
        };
        rounds += 1;
        sender.offer(now, session(1));
        sender.cut(now, round, &[0; BUCKETS]);
        assert_eq!(told(&transmit(&mut sender, now).unwrap()), [1]);
        sender.tick(now.plus(Nanos::from_secs(2)));
        assert_eq!(sender.take_again(), Some((3, 1)));
    };
    assert!(matches!(end, Frame::ResyncEnd { .. }), "{end:?}");
    assert_eq!(rounds, u64::from(SETTLE_ROUNDS));
}

#[test]
fn a_walk_keeps_to_its_rate() {
    let slow = StreamConfig {
        sync_rate: 50_000,
        ..config()
    };
    let mut sender = Sender::new(slow);
    sender.start(at(0));
    transmit(&mut sender, at(0)).unwrap();
    sender.acknowledged(at(0), all(1));
    let mut walked = 0;
    for step in 1..=2000 {
        let now = Nanos(step * MS / 2);
        let allowed = sender.take_allowance(now, 1000);
        assert!(allowed <= 25);
        walked += u64::from(allowed);
    }
    assert_eq!(walked, 50_000);
    // What was not used is not saved up for longer than a hundredth of a second.
    assert_eq!(sender.take_allowance(at(60_000), 10_000), 500);
    assert_eq!(sender.take_allowance(at(60_000), 10_000), 0);
    assert_eq!(sender.take_allowance(at(60_010), 7), 7);
}

/// The parts of the barrier that the sender tells now, by way of a receiver.
fn barrier(sender: &mut Sender, receiver: &mut Receiver, now: Nanos) -> Option<u64> {
    let mut complete = None;
    for frame in transmit_all(sender, now) {
        let Frame::Barrier {
            number,
            barrier,
            first,
            digests,
        } = frame
        else {
            panic!("{frame:?}");
        };
        assert!(receiver.accept(now, number));
        complete = complete.or(receiver.barrier(number, barrier, first, &digests));
    }
    complete
}

fn taken(sender: &mut Sender, receiver: &mut Receiver, now: Nanos) {
    let report = receiver.take_report();
    if let Some(ack) = receiver.take_ack(now.plus(ACK_DELAY)) {
        sender.acknowledged(now, ack);
    }
    if let Some(report) = report {
        sender.report(now, &report);
    }
}

fn sums(seed: u64) -> [u64; BUCKETS] {
    std::array::from_fn(|bucket| (bucket as u64 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A receiver that has taken in all up to `next`.
fn receiver(next: u64) -> Receiver {
    let mut receiver = Receiver::new();
    (1..next).for_each(|number| assert!(receiver.accept(at(0), number)));
    receiver
}

#[test]
fn a_barrier_stands_between_what_was_offered_before_it_and_after() {
    let (mut sender, next) = running(config());
    let mut receiver = receiver(next);
    assert!(sender.offer(at(1), session(1)));
    sender.cut(at(1), sender.cut_wanted().unwrap(), &sums(1));
    assert!(sender.offer(at(1), session(2)));
    let before = transmit(&mut sender, at(1)).unwrap();
    assert_eq!(told(&before), [1]);
    assert!(receiver.accept(at(1), number(&before)));
    let mut frames = transmit_all(&mut sender, at(1));
    let after = frames.pop().unwrap();
    assert_eq!(told(&after), [2]);
    assert!(frames.len() >= 3, "512 sums take several datagrams");
    let parts: Vec<_> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Barrier {
                number,
                barrier,
                first,
                digests,
            } => {
                assert!(receiver.accept(at(1), *number));
                receiver.barrier(*number, *barrier, *first, digests)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(parts.len(), 1, "complete with the last part");
    assert!(receiver.accept(at(1), number(&after)));
    receiver.answer(at(2), parts[0], &sums(1));
    assert_eq!(receiver.equal_at(), Some(at(2)));
    taken(&mut sender, &mut receiver, at(2));
    assert_eq!(sender.equal_since(), Some(at(0)));
    assert_eq!(sender.counters().equal, 1);
    // The next one when it is time.
    assert_eq!(sender.cut_wanted(), None);
    sender.tick(at(2).plus(config().barrier_every));
    assert!(sender.cut_wanted().is_some());
}

#[test]
fn buckets_that_differ_are_resynced_and_no_others() {
    let (mut sender, next) = running(config());
    let mut receiver = receiver(next);
    sender.cut(at(1), sender.cut_wanted().unwrap(), &sums(1));
    let round = barrier(&mut sender, &mut receiver, at(1)).unwrap();
    let mut own = sums(1);
    (own[7], own[511]) = (0, 1);
    receiver.answer(at(1), round, &own);
    assert_eq!(receiver.equal_at(), None);
    taken(&mut sender, &mut receiver, at(2));
    assert_eq!(sender.equal_since(), None);
    let begin = transmit(&mut sender, at(2)).unwrap();
    let Frame::ResyncBegin { buckets, .. } = &begin else {
        panic!("{begin:?}");
    };
    assert_eq!(*buckets, [Bucket(7), Bucket(511)]);
    sender.acknowledged(at(2), all(number(&begin)));
    assert_eq!(sender.walk().unwrap().1.len(), 2);
}

#[test]
fn differences_while_frames_got_lost_mean_nothing_yet() {
    let (mut sender, next) = running(config());
    let mut receiver = receiver(next);
    assert!(sender.offer(at(1), session(1)));
    assert!(transmit(&mut sender, at(1)).is_some(), "which gets lost");
    sender.cut(at(1), sender.cut_wanted().unwrap(), &sums(1));
    let round = barrier(&mut sender, &mut receiver, at(1)).unwrap();
    receiver.answer(at(1), round, &sums(2));
    taken(&mut sender, &mut receiver, at(2));
    assert_eq!((sender.counters().void, sender.counters().different), (1, 0));
    assert_eq!((sender.progress(), sender.take_again()), (None, Some((3, 1))));
    assert_eq!(sender.cut_wanted(), None);
    sender.tick(at(2).plus(BARRIER_RETRY));
    assert!(sender.cut_wanted().is_some());
}

#[test]
fn a_barrier_that_is_lost_or_not_answered_is_tried_again() {
    let (mut sender, next) = running(config());
    let first = sender.cut_wanted().unwrap();
    sender.cut(at(1), first, &sums(1));
    assert!(transmit_all(&mut sender, at(1)).len() >= 3, "which get lost");
    sender.tick(at(900));
    sender.tick(at(1000));
    let second = sender.cut_wanted().unwrap();
    assert!(second > first);
    // The report of the one before says nothing.
    let report = DigestReport {
        barrier: first,
        differ: vec![Bucket(1)],
    };
    sender.report(at(1000), &report);
    sender.cut(at(1000), second, &sums(1));
    let parts = transmit_all(&mut sender, at(1000));
    sender.acknowledged(at(1001), all(number(parts.last().unwrap())));
    assert_eq!(sender.cut_wanted(), None);
    assert_eq!(sender.next_timeout(), Some(at(1000).plus(BARRIER_LIMIT)));
    sender.tick(at(1000).plus(BARRIER_LIMIT));
    sender.tick(at(1000).plus(BARRIER_LIMIT).plus(BARRIER_RETRY));
    assert!(sender.cut_wanted().unwrap() > second);
    assert_eq!((sender.counters().void, next), (2, 3));
}

#[test]
fn a_session_that_the_peer_refuses_does_not_keep_both_busy() {
    let (mut sender, next) = running(config());
    let mut receiver = receiver(next);
    let mut now = at(1);
    // A peer that always finds one bucket different; and acknowledges everything.
    while now < Nanos::from_secs(60) {
        if let Some(round) = sender.cut_wanted() {
            sender.cut(now, round, &sums(1));
        }
        if let Some((resync, _)) = sender.walk() {
            sender.walked(now, resync);
        }
        for frame in transmit_all(&mut sender, now) {
            assert!(receiver.accept(now, number(&frame)));
            let Frame::Barrier {
                number,
                barrier,
                first,
                digests,
            } = frame
            else {
                continue;
            };
            if let Some(round) = receiver.barrier(number, barrier, first, &digests) {
                let mut own = sums(1);
                own[9] ^= 1;
                receiver.answer(now, round, &own);
            }
        }
        taken(&mut sender, &mut receiver, now);
        now = now.plus(at(1));
        sender.tick(now);
    }
    let resyncs = sender.counters().resyncs;
    assert!((8..=16).contains(&resyncs), "{resyncs} resyncs in a minute");
}

#[test]
fn what_was_on_its_way_when_the_peer_was_lost_is_forgotten_and_all_is_told_anew() {
    let (mut sender, _) = running(config());
    (1..50).for_each(|id| assert!(sender.offer(at(1), session(id))));
    transmit(&mut sender, at(1)).unwrap();
    sender.stop();
    assert_eq!(
        (sender.held(), sender.in_flight(), sender.take_again()),
        (0, 0, None)
    );
    assert_eq!(sender.counters().given_up, 49);
    assert_eq!((sender.cut_wanted(), sender.next_timeout()), (None, None));
    assert_eq!(transmit(&mut sender, at(2)), None);
    sender.start(at(3));
    assert!(sender.offer(at(3), session(1)));
    let begin = transmit(&mut sender, at(3)).unwrap();
    assert!(
        matches!(begin, Frame::ResyncBegin { number: 4, .. }),
        "the numbers go on: {begin:?}"
    );
    // Another process of the peer's: from the beginning.
    sender.reset();
    sender.start(at(4));
    assert_eq!(number(&transmit(&mut sender, at(4)).unwrap()), 1);
}

#[test]
fn a_new_association_loses_what_was_on_its_way_and_nothing_else() {
    let (mut sender, first) = running(config());
    assert!(sender.offer(at(1), session(1)) && sender.offer(at(1), gone(2)));
    transmit(&mut sender, at(1)).unwrap();
    sender.lose_all(at(1));
    assert_eq!(sender.take_again(), Some((3, 1)));
    let again = transmit(&mut sender, at(1)).unwrap();
    assert_eq!((number(&again), told(&again)), (first + 1, vec![-2]));
}

#[test]
fn acknowledgements_come_every_few_frames_or_after_a_while() {
    let mut receiver = Receiver::new();
    assert_eq!((receiver.take_ack(at(0)), receiver.next_timeout()), (None, None));
    assert!(receiver.accept(at(5), 1));
    assert_eq!(receiver.take_ack(at(5)), None);
    assert_eq!(receiver.next_timeout(), Some(at(5).plus(ACK_DELAY)));
    assert_eq!(
        receiver.take_ack(at(5).plus(ACK_DELAY)),
        Some(Ack {
            highest: 1,
            before: 0
        })
    );
    assert_eq!(receiver.next_timeout(), None);
    for number in 2..2 + u64::from(ACK_EVERY) {
        assert_eq!(receiver.take_ack(at(20)), None);
        assert!(receiver.accept(at(20), number));
    }
    let ack = receiver.take_ack(at(20)).unwrap();
    assert_eq!(
        (ack.highest, ack.before.count_ones()),
        (1 + u64::from(ACK_EVERY), ACK_EVERY)
    );
    assert_eq!(receiver.counters().acks, 2);
}

#[test]
fn parts_of_a_barrier_that_do_not_follow_each_other_are_none() {
    let quarter = [5_u64; BUCKETS / 4];
    let parts = |receiver: &mut Receiver, parts: &[(u64, u64, u16)]| {
        let answers = parts
            .iter()
            .map(|(number, barrier, first)| receiver.barrier(*number, *barrier, Bucket(*first), &quarter));
        answers.last().flatten()
    };
    let all = [(10, 1, 0), (11, 1, 128), (12, 1, 256), (13, 1, 384)];
    assert_eq!(parts(&mut Receiver::new(), &all), Some(1));
    // One is missing, an update came between, of two barriers, out of range.
    for wrong in [
        [(10, 1, 0), (11, 1, 128), (12, 1, 256), (12, 1, 256)],
        [(10, 1, 0), (11, 1, 128), (13, 1, 256), (14, 1, 384)],
        [(10, 1, 0), (11, 1, 128), (12, 2, 256), (13, 2, 384)],
        [(10, 1, 0), (11, 1, 128), (12, 1, 256), (13, 1, 500)],
        [(10, 1, 128), (11, 1, 256), (12, 1, 384), (13, 1, 384)],
    ] {
        let mut receiver = Receiver::new();
        assert_eq!(parts(&mut receiver, &wrong), None, "{wrong:?}");
        // Nobody asked: no report.
        receiver.answer(at(0), 1, &[5; BUCKETS]);
        assert_eq!((receiver.take_report(), receiver.equal_at()), (None, None));
    }
}

proptest! {
    /// Against a list of what was taken in.
    #[test]
    fn a_receiver_takes_what_is_above_all_before_and_says_so(numbers in prop::collection::vec(
        prop_oneof![8 => 1u64..6, 1 => 40u64..90, 1 => Just(0u64)], 1..200,
    ), back in prop::collection::vec(any::<prop::sample::Index>(), 200)) {
        let mut receiver = Receiver::new();
        let (mut taken, mut sent, mut next) = (vec![], vec![], 0);
        for (step, back) in numbers.iter().zip(&back) {
            // Forward, or one that was there before (or was passed over).
            let number = if *step == 0 && next > 0 { 1 + back.index(next as usize) as u64 } else { next + step.max(&1) };
            sent.push(number);
            let highest = taken.last().copied().unwrap_or(0);
            prop_assert_eq!(receiver.accept(at(0), number), number > highest);
            if number > highest {
                taken.push(number);
            }
            next = next.max(number);
            if let Some(ack) = receiver.take_ack(at(1000)) {
                let highest = *taken.last().unwrap();
                prop_assert_eq!(ack.highest, highest);
                for bit in 0..64 {
                    let is_taken = highest.checked_sub(1 + bit).is_some_and(|n| taken.contains(&n));
                    prop_assert_eq!(ack.before >> bit & 1 == 1, is_taken, "bit {} of {:?}", bit, taken);
                }
            }
        }
        let counters = receiver.counters();
        prop_assert_eq!(counters.frames as usize, taken.len());
        prop_assert_eq!(counters.late as usize, sent.len() - taken.len());
        prop_assert_eq!(counters.missed, taken.last().unwrap() - taken.len() as u64);
    }
}
