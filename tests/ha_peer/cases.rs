//! Case by case.

use haechi::base::Nanos;
use haechi::ha::peer::Event;
use haechi::ha::{Path, Role, SwitchRefused, Why};

use super::ha_model::{A, B, Pair};
use super::ha_net::Faults;

/// Two nodes in sync, A leading, with so many sessions of A's.
fn in_sync(seed: u64, sessions: u32) -> Pair {
    let mut pair = Pair::new(seed);
    pair.start(A);
    pair.start(B);
    (0..sessions).for_each(|id| pair.touch(A, id));
    let synced = pair.run_while(3_000, |pair| pair.differs().is_none());
    assert!(synced, "{:?}", pair.differs());
    assert_eq!(roles(&mut pair), [Role::Leader, Role::Standby]);
    for n in [A, B] {
        pair.node(n).events.clear();
    }
    pair
}

fn roles(pair: &mut Pair) -> [Role; 2] {
    [A, B].map(|n| pair.node(n).role())
}

fn settles(pair: &mut Pair, ms: u64) {
    let settled = pair.run_while(ms, |pair| pair.differs().is_none());
    assert!(settled, "{:?}", pair.differs());
}

#[test]
fn a_standby_has_its_leaders_sessions_and_says_so() {
    let mut pair = in_sync(1, 1000);
    let now = pair.now;
    let status = pair.node(B).status(now);
    assert!(status.in_sync && status.sync_up);
    assert_eq!((status.resync_in, status.events), (None, 0));
    assert_eq!(status.counters.updates, 1000);
    let status = pair.node(A).status(now);
    assert_eq!(
        (status.sender.acknowledged, status.sender.lost, status.held),
        (1000, 0, 0)
    );
    let peer = status.peer.unwrap();
    assert!(peer.alive && peer.in_sync && peer.policy_equal && peer.layout_equal);
    // There and back, and nothing of the 50 ms that an answer waits for the next heartbeat.
    let round_trip = status.paths[0].round_trip.unwrap();
    assert!(
        round_trip >= Nanos(199_000) && round_trip <= Nanos(201_000),
        "{round_trip:?}"
    );
    // Changes and ends.
    (0..500).for_each(|id| pair.touch(A, id));
    (300..1000).for_each(|id| pair.end(A, id));
    settles(&mut pair, 500);
}

#[test]
fn a_dead_leader_is_noticed_in_time_and_a_returning_node_synchronises_before_it_is_in_sync() {
    let mut pair = in_sync(2, 100);
    pair.stop(A);
    let dead = pair.now;
    let took_over = pair.run_while(200, |pair| pair.node(B).role() == Role::Leader);
    assert!(
        took_over && pair.now.since(dead) <= Nanos::from_millis(151),
        "{:?}",
        pair.now.since(dead)
    );
    assert!(pair.node(B).events.contains(&Event::Role {
        from: Role::Standby,
        to: Role::Leader,
        why: Why::PeerSilent
    }));
    (0..700).for_each(|id| pair.touch(B, id));
    pair.start(A);
    // In sync is not said before it is true.
    let settled = pair.run_while(2_000, |pair| {
        let now = pair.now;
        if pair.node(A).in_sync(now) {
            assert_eq!(pair.node(A).replicas.len(), 700);
        }
        pair.differs().is_none()
    });
    assert!(settled, "{:?}", pair.differs());
    assert_eq!(roles(&mut pair), [Role::Standby, Role::Leader]);
}

#[test]
fn a_standby_that_restarts_faster_than_it_is_missed_gets_everything_anew() {
    let mut pair = in_sync(3, 400);
    pair.start(B);
    assert!(pair.node(B).replicas.is_empty());
    settles(&mut pair, 1_000);
    assert_eq!(roles(&mut pair), [Role::Leader, Role::Standby]);
    assert_eq!(
        pair.node(A)
            .events
            .iter()
            .filter(|event| **event == Event::PeerStarted)
            .count(),
        1
    );
}

#[test]
fn a_leader_that_restarts_faster_than_it_is_missed_does_not_lead_again() {
    let mut pair = in_sync(4, 400);
    pair.start(A);
    pair.run(20);
    assert_eq!(roles(&mut pair), [Role::Standby, Role::Leader]);
    // What B had of the start before, the resync of the new one has ended.
    settles(&mut pair, 2_000);
    assert!(pair.node(B).replicas.is_empty());
}

#[test]
fn a_switchover_waits_until_the_peer_has_everything() {
    for asked in [A, B] {
        let mut pair = in_sync(5, 300);
        (0..300).for_each(|id| pair.touch(A, id));
        let now = pair.now;
        pair.node(asked)
            .with(now, |peer, local| peer.switchover(local))
            .expect("it is fit");
        let switched = pair.run_while(500, |pair| {
            let over = pair.node(B).role() == Role::Leader;
            // Nobody leads before the other has what was there when it was asked.
            let differ = pair.sessions_differ();
            assert!(!over || differ.is_none(), "{differ:?}");
            over
        });
        assert!(switched, "{:?}", roles(&mut pair));
        // Then it tells all that it has anew: the sessions are its own now.
        settles(&mut pair, 1_000);
        assert_eq!(roles(&mut pair), [Role::Standby, Role::Leader]);
        pair.run(20_000);
        assert_eq!(roles(&mut pair), [Role::Standby, Role::Leader]);
        settles(&mut pair, 10);
    }
}

#[test]
fn a_switchover_to_nobody_is_refused() {
    let mut pair = Pair::new(6);
    pair.start(B);
    pair.run(10);
    let now = pair.now;
    let answer = pair.node(B).with(now, |peer, local| peer.switchover(local));
    assert_eq!(answer, Err(SwitchRefused::NoPeer));
}

#[test]
fn a_node_that_leaves_hands_over_first() {
    let mut pair = in_sync(7, 300);
    let now = pair.now;
    pair.node(A).with(now, |peer, local| peer.leave(local));
    assert!(!pair.node(A).peer.may_stop());
    let stops = pair.run_while(500, |pair| pair.node(A).peer.may_stop());
    assert!(stops);
    assert_eq!(roles(&mut pair), [Role::Standby, Role::Leader]);
}

#[test]
fn heartbeats_by_the_second_path_keep_the_roles_while_the_link_is_cut() {
    let mut pair = in_sync(8, 100);
    pair.net.cut(A, Path::Link);
    pair.net.cut(B, Path::Link);
    (0..50).for_each(|id| pair.touch(A, id));
    (50..100).for_each(|id| pair.end(A, id));
    pair.run(5_000);
    assert_eq!(roles(&mut pair), [Role::Leader, Role::Standby]);
    let now = pair.now;
    let status = pair.node(B).status(now);
    assert!(!status.in_sync && !status.sync_up);
    assert!(status.paths[0].heard_ago.unwrap() > Nanos::from_secs(4) && !status.paths[0].heard_by_peer);
    assert!(status.paths[1].heard_ago.unwrap() < Nanos::from_millis(60) && status.paths[1].heard_by_peer);
    pair.net.heal();
    settles(&mut pair, 2_000);
    assert!(pair.node(A).events.contains(&Event::Sync { up: false }));
}

#[test]
fn a_short_silence_is_bridged_without_telling_everything_anew() {
    let mut pair = in_sync(9, 500);
    let now = pair.now;
    let before = pair.node(A).status(now).sender;
    pair.net.cut(A, Path::Link);
    (0..200).for_each(|id| pair.touch(A, id));
    (200..230).for_each(|id| pair.end(A, id));
    pair.run(400);
    pair.net.heal();
    settles(&mut pair, 3_000);
    let now = pair.now;
    let after = pair.node(A).status(now).sender;
    assert_eq!(after.resyncs, before.resyncs);
    assert!(after.lost > before.lost && after.again > before.again);
}

#[test]
fn a_journal_that_lost_ends_of_sessions_makes_a_resync() {
    let mut pair = in_sync(10, 2_000);
    let now = pair.now;
    let before = pair.node(A).status(now).sender.resyncs;
    // More than the journals remember, at once.
    (0..1_500).for_each(|id| pair.end(A, id));
    settles(&mut pair, 3_000);
    let now = pair.now;
    assert!(pair.node(A).status(now).sender.resyncs > before);
    assert_eq!(pair.node(B).replicas.len(), 500);
}

#[test]
fn a_replica_that_is_wrong_or_missing_or_too_much_is_found_and_mended() {
    let mut pair = in_sync(11, 300);
    let keys: Vec<_> = pair.node(B).replicas.keys().copied().take(3).collect();
    let replicas = &mut pair.node(B).replicas;
    let mut stray = replicas[&keys[0]];
    replicas.get_mut(&keys[0]).unwrap().image.tcp[1].acked ^= 1;
    replicas.remove(&keys[1]);
    stray.image.key.low_port ^= 0x4000;
    replicas.insert(stray.image.key, stray);
    assert!(pair.differs().is_some());
    // A second until the next comparison.
    settles(&mut pair, 1_500);
    let now = pair.now;
    let status = pair.node(A).status(now);
    assert_eq!(status.sender.different, 1);
    // Of some buckets, not of all.
    assert!(status.sender.sent < 400, "{} updates", status.sender.sent);
}

#[test]
fn another_policy_is_said_and_sessions_go_on() {
    let mut pair = Pair::new(12);
    pair.configs[B].policy = 77;
    pair.start(A);
    pair.start(B);
    (0..50).for_each(|id| pair.touch(A, id));
    settles(&mut pair, 1_000);
    for n in [A, B] {
        let now = pair.now;
        assert!(!pair.node(n).status(now).peer.unwrap().policy_equal);
        let said = pair
            .node(n)
            .events
            .iter()
            .filter(|event| **event == Event::Policy { equal: false });
        assert_eq!(said.count(), 1);
    }
    // Then it is applied there, too.
    let now = pair.now;
    pair.node(A).with(now, |peer, local| peer.set_policy(local, 77));
    pair.run(200);
    for n in [A, B] {
        assert!(pair.node(n).events.contains(&Event::Policy { equal: true }));
    }
}

#[test]
fn another_layout_is_said_and_no_session_crosses() {
    let mut pair = Pair::new(13);
    pair.configs[B].layout = 77;
    pair.start(A);
    pair.start(B);
    (0..50).for_each(|id| pair.touch(A, id));
    pair.run(5_000);
    let now = pair.now;
    for n in [A, B] {
        let node = pair.node(n);
        let status = node.status(now);
        assert!(!status.peer.unwrap().layout_equal && !status.sync_up && !status.in_sync);
        let said = node
            .events
            .iter()
            .filter(|event| matches!(event, Event::Layout { .. }));
        assert_eq!(said.collect::<Vec<_>>(), [&Event::Layout { equal: false }]);
        assert!(node.replicas.is_empty());
    }
    assert_eq!(roles(&mut pair), [Role::Leader, Role::Standby]);
}

#[test]
fn the_lower_of_two_versions_is_spoken() {
    let mut pair = Pair::new(14);
    pair.configs[A].version = 2;
    pair.start(A);
    pair.start(B);
    (0..50).for_each(|id| pair.touch(A, id));
    settles(&mut pair, 1_000);
    let now = pair.now;
    let seen = [A, B]
        .map(|n| pair.node(n).status(now))
        .map(|status| (status.version, status.peer.unwrap().version));
    assert_eq!(seen, [(1, 1), (1, 2)]);
}

#[test]
fn another_key_is_counted_and_each_node_is_alone() {
    let mut pair = Pair::new(15);
    pair.start(A);
    let key = haechi::ha::seal::PairKey::generate::<()>(|key| {
        key.fill(9);
        Ok(())
    });
    pair.key = key.unwrap();
    pair.start(B);
    pair.run(6_000);
    assert_eq!(roles(&mut pair), [Role::Leader, Role::Leader]);
    let now = pair.now;
    for n in [A, B] {
        let status = pair.node(n).status(now);
        assert_eq!((status.peer, status.counters.peer_starts), (None, 0));
        assert!(status.seal.refused.iter().sum::<u64>() > 100);
    }
}

#[test]
fn what_was_recorded_and_sent_back_later_changes_nothing() {
    let mut pair = Pair::new(16);
    pair.net.record = Some(Vec::new());
    pair.start(A);
    pair.start(B);
    (0..100).for_each(|id| pair.touch(A, id));
    settles(&mut pair, 1_000);
    (0..100).for_each(|id| pair.end(A, id));
    (100..200).for_each(|id| pair.touch(A, id));
    settles(&mut pair, 1_000);
    // The same to the same processes, to both, then to others.
    let record = pair.net.record.take().unwrap();
    for restart in [false, true] {
        if restart {
            pair.start(A);
            pair.start(B);
            (100..200).for_each(|id| pair.touch(A, id));
            settles(&mut pair, 2_000);
        }
        let now = pair.now;
        let before = [A, B].map(|n| pair.node(n).imported);
        for (from, bytes) in &record {
            for to in [1 - from, *from] {
                let mut bytes = bytes.clone();
                pair.node(to).with(now, |peer, local| {
                    peer.handle_datagram(local, Path::Link, &mut bytes)
                });
            }
        }
        pair.run(100);
        assert_eq!([A, B].map(|n| pair.node(n).imported), before);
        settles(&mut pair, 2_000);
        assert_eq!(roles(&mut pair), [Role::Leader, Role::Standby]);
    }
}

#[test]
fn a_slow_reader_is_waited_for() {
    let mut pair = in_sync(17, 0);
    // More than all queues hold, many times over, over a link that reorders.
    pair.net.faults = Faults {
        jitter: Nanos(300_000),
        ..Faults::NONE
    };
    for round in 0..20 {
        (0..2_000).for_each(|id| pair.touch(A, id));
        pair.run(round);
    }
    pair.net.faults = Faults::NONE;
    settles(&mut pair, 5_000);
}

#[test]
fn a_link_that_flaps_every_second_ends_in_sync_each_time() {
    let mut pair = in_sync(18, 500);
    for second in 0..10 {
        for n in [A, B] {
            pair.net.cut(n, Path::Link);
            pair.net.cut(n, Path::Second);
        }
        (0..100).for_each(|id| pair.touch(A, id + 10 * second));
        pair.run(500);
        pair.net.heal();
        pair.run(490);
        assert_eq!(roles(&mut pair), [Role::Leader, Role::Standby], "second {second}");
        settles(&mut pair, 10);
    }
}

#[test]
fn datagrams_by_a_way_that_is_not_there_are_counted() {
    let mut pair = in_sync(19, 10);
    let now = pair.now;
    pair.node(A).with(now, |peer, local| {
        peer.handle_datagram(local, Path::Port(3), &mut [0; 100])
    });
    pair.node(A).with(now, |peer, local| {
        peer.handle_datagram(local, Path::Link, &mut [0; 100])
    });
    pair.node(A).with(now, |peer, local| {
        peer.handle_datagram(local, Path::Link, &mut [])
    });
    let status = pair.node(A).status(now);
    assert_eq!(status.counters.unknown_path, 1);
    assert_eq!(status.seal.refused.iter().sum::<u64>(), 2);
}
