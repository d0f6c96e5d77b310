//! What becomes of the roles, case by case: a script, and the roles at given times (`LS`: A leads, B is standby; `W`aiting,
//! `I`solated, `A`ctive, `-` not running).

use haechi::base::Nanos;
use haechi::ha::{Election, ElectionConfig, Heartbeat, Lead, NodeId, Role, SwitchRefused, Why};

use super::pair::{A, Act, B, Pair, configs};
use Act::{Crash, Cut, Delay, Go, Heal, Health, Leave, NoSync, Start, Stop, Switch, Witness};

struct Case {
    name: &'static str,
    config: fn(&mut ElectionConfig),
    /// In milliseconds.
    script: &'static [(u64, Act)],
    /// In milliseconds.
    expected: &'static [(u64, &'static str)],
    /// So long at most both led, neither giving it up; in milliseconds.
    two_leaders: u64,
}

const fn plain(_: &mut ElectionConfig) {}

const fn witness(config: &mut ElectionConfig) {
    config.witness = true;
}

const fn active(config: &mut ElectionConfig) {
    config.active_active = true;
}

const fn active_witness(config: &mut ElectionConfig) {
    config.active_active = true;
    config.witness = true;
}

const fn preempt(config: &mut ElectionConfig) {
    config.preempt = Some(Nanos::from_millis(1000));
}

const fn preempt_at_once(config: &mut ElectionConfig) {
    config.preempt = Some(Nanos(0));
}

const fn alike(config: &mut ElectionConfig) {
    config.priority = 100;
}

const BOTH: [(u64, Act); 2] = [(0, Start(A)), (0, Start(B))];

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "both cold", config: plain, two_leaders: 0,
        script: &BOTH,
        expected: &[(1, "LS"), (10_000, "LS")] },
    Case { name: "both cold, of one priority", config: alike, two_leaders: 0,
        script: &[(0, Start(B)), (3, Start(A))],
        expected: &[(5, "LS"), (10_000, "LS")] },
    Case { name: "both cold, the better one unhealthy", config: plain, two_leaders: 0,
        script: &[(0, Health(A, false)), (0, Start(A)), (0, Start(B))],
        expected: &[(2, "SL"), (10_000, "SL")] },
    Case { name: "both cold, both unhealthy: somebody leads", config: plain, two_leaders: 0,
        script: &[(0, Health(A, false)), (0, Health(B, false)), (0, Start(A)), (0, Start(B))],
        expected: &[(2, "LS"), (10_000, "LS")] },
    Case { name: "peer absent", config: plain, two_leaders: 0,
        script: &[(0, Start(B))],
        expected: &[(4_999, "-W"), (5_000, "-L"), (60_000, "-L")] },
    Case { name: "peer absent, the witness answers", config: witness, two_leaders: 0,
        script: &[(0, Start(B))],
        expected: &[(5_004, "-W"), (5_005, "-L"), (60_000, "-L")] },
    Case { name: "peer absent, the witness answers late", config: witness, two_leaders: 0,
        script: &[(0, Witness(B, false)), (0, Start(B)), (20_000, Witness(B, true))],
        expected: &[(19_999, "-W"), (20_060, "-L")] },
    Case { name: "peer arrives later", config: plain, two_leaders: 0,
        script: &[(0, Start(B)), (6_000, Start(A))],
        expected: &[(6_002, "SL"), (60_000, "SL")] },
    Case { name: "peer arrives before this node would have led alone", config: plain, two_leaders: 0,
        script: &[(0, Start(B)), (4_900, Start(A))],
        expected: &[(4_899, "-W"), (4_902, "LS"), (60_000, "LS")] },
    Case { name: "the leader dies", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Crash(A))],
        expected: &[(1_090, "-S"), (1_151, "-L")] },
    Case { name: "the standby dies", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Crash(B))],
        expected: &[(60_000, "L-")] },
    Case { name: "the leader dies, the witness answers", config: witness, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Crash(A))],
        expected: &[(1_090, "-S"), (1_156, "-L"), (60_000, "-L")] },
    Case { name: "the leader dies, the witness does not answer", config: witness, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (900, Witness(B, false)), (1_000, Crash(A)), (30_000, Witness(B, true))],
        expected: &[(29_999, "-S"), (30_060, "-L")] },
    // The leader stops 2 dead times after the silence set in, by when the standby leads.
    Case { name: "the leader is cut off from peer and witness", config: witness, two_leaders: 300,
        script: &[BOTH[0], BOTH[1], (1_000, Cut(A)), (1_000, Cut(B)), (1_000, Witness(A, false)),
                  (5_000, Heal), (5_000, Witness(A, true))],
        expected: &[(1_156, "LL"), (1_395, "LL"), (1_460, "IL"), (4_999, "IL"), (5_052, "SL"), (9_000, "SL")] },
    Case { name: "the standby is cut off from peer and witness", config: witness, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Cut(A)), (1_000, Cut(B)), (1_000, Witness(B, false)), (5_000, Heal)],
        expected: &[(4_999, "LS"), (9_000, "LS")] },
    // The case that remains.
    Case { name: "all paths cut, both reach the witness", config: witness, two_leaders: 3_951,
        script: &[BOTH[0], BOTH[1], (1_000, Cut(A)), (1_000, Cut(B)), (5_000, Heal)],
        expected: &[(1_156, "LL"), (4_999, "LL"), (5_052, "LS"), (9_000, "LS")] },
    Case { name: "an isolated leader gets its witness back", config: witness, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Crash(B)), (1_000, Witness(A, false)), (3_000, Witness(A, true))],
        expected: &[(1_390, "L-"), (1_451, "I-"), (2_999, "I-"), (3_060, "L-")] },
    Case { name: "an isolated leader gets its standby back", config: witness, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (900, Witness(A, false)), (900, Witness(B, false)), (1_000, Cut(A)), (1_000, Cut(B)),
                  (3_000, Heal)],
        expected: &[(2_999, "IS"), (3_060, "LS")] },
    Case { name: "both lead, no witness", config: plain, two_leaders: 1_950,
        script: &[BOTH[0], BOTH[1], (1_000, Cut(A)), (1_000, Cut(B)), (3_000, Heal)],
        expected: &[(1_152, "LL"), (2_999, "LL"), (3_052, "LS"), (9_000, "LS")] },
    Case { name: "both lead, the better one unhealthy", config: plain, two_leaders: 1_950,
        script: &[BOTH[0], BOTH[1], (1_000, Cut(A)), (1_000, Cut(B)), (2_000, Health(A, false)), (3_000, Heal)],
        expected: &[(2_999, "LL"), (3_052, "SL"), (9_000, "SL")] },
    // It hears the other lead, and that it is not heard itself, and steps back after one more dead time.
    Case { name: "the leader is heard no more", config: plain, two_leaders: 151,
        script: &[BOTH[0], BOTH[1], (1_000, Cut(A)), (3_000, Heal)],
        expected: &[(1_155, "LL"), (1_310, "SL"), (9_000, "SL")] },
    Case { name: "the leader hears no more", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Cut(B)), (3_000, Heal)],
        expected: &[(2_999, "LS"), (9_000, "LS")] },
    Case { name: "unhealthy leader", config: plain, two_leaders: 1,
        script: &[BOTH[0], BOTH[1], (1_000, Health(A, false)), (2_000, Health(A, true))],
        expected: &[(1_001, "SL"), (60_000, "SL")] },
    Case { name: "unhealthy leader, unhealthy standby", config: plain, two_leaders: 1,
        script: &[BOTH[0], BOTH[1], (900, Health(B, false)), (1_000, Health(A, false)), (2_000, Health(B, true))],
        expected: &[(1_999, "LS"), (2_001, "SL")] },
    Case { name: "unhealthy leader, the standby never in sync: it waits alone_after", config: plain, two_leaders: 1,
        script: &[(0, NoSync), BOTH[0], BOTH[1], (1_000, Health(A, false))],
        expected: &[(5_999, "LS"), (6_002, "SL"), (60_000, "SL")] },
    Case { name: "unhealthy and alone", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Crash(B)), (2_000, Health(A, false))],
        expected: &[(60_000, "L-")] },
    Case { name: "switchover, asked of the leader", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Switch(A))],
        expected: &[(1_019, "LS"), (1_021, "SL"), (60_000, "SL")] },
    Case { name: "switchover, asked of the standby", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Switch(B))],
        expected: &[(1_020, "LS"), (1_022, "SL"), (60_000, "SL")] },
    Case { name: "switchover and back", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Switch(A)), (2_000, Switch(A))],
        expected: &[(1_999, "SL"), (2_030, "LS"), (60_000, "LS")] },
    Case { name: "who preempts does not undo what the operator did", config: preempt, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Switch(A))],
        expected: &[(1_022, "SL"), (60_000, "SL")] },
    Case { name: "switchover while the standby cannot have everything: given up", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, NoSync), (1_000, Switch(A))],
        expected: &[(6_100, "LS"), (60_000, "LS")] },
    Case { name: "preempt with delay", config: preempt, two_leaders: 0,
        script: &[(0, Start(B)), (6_000, Start(A))],
        // In sync at 6,100, by the next tick.
        expected: &[(7_100, "SL"), (7_200, "LS"), (60_000, "LS")] },
    Case { name: "preempt without delay", config: preempt_at_once, two_leaders: 0,
        script: &[(0, Start(B)), (6_000, Start(A))],
        expected: &[(6_090, "SL"), (6_200, "LS"), (60_000, "LS")] },
    Case { name: "preempt, never in sync", config: preempt, two_leaders: 0,
        script: &[(0, NoSync), (0, Start(B)), (6_000, Start(A))],
        expected: &[(60_000, "SL")] },
    Case { name: "preempt, a port that flaps", config: preempt, two_leaders: 1,
        script: &[BOTH[0], BOTH[1], (1_000, Health(A, false)), (1_500, Health(A, true)), (2_000, Health(A, false)),
                  (2_400, Health(A, true)), (2_900, Health(A, false)), (3_000, Health(A, true))],
        expected: &[(1_001, "SL"), (3_999, "SL"), (4_100, "LS"), (60_000, "LS")] },
    Case { name: "the leader restarts faster than it is missed", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Crash(A)), (1_010, Start(A))],
        expected: &[(1_012, "SL"), (60_000, "SL")] },
    Case { name: "the standby restarts faster than it is missed", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Crash(B)), (1_010, Start(B))],
        expected: &[(1_012, "LS"), (60_000, "LS")] },
    Case { name: "the leader leaves", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Leave(A)), (1_500, Crash(A))],
        expected: &[(1_019, "LS"), (1_021, "SL"), (1_499, "SL"), (60_000, "-L")] },
    Case { name: "the leader leaves, and cannot send everything", config: plain, two_leaders: 0,
        script: &[(0, NoSync), BOTH[0], BOTH[1], (1_000, Leave(A))],
        expected: &[(5_999, "LS"), (6_002, "SL"), (60_000, "SL")] },
    Case { name: "who leaves takes no lead any more", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Leave(B)), (2_000, Crash(A))],
        expected: &[(60_000, "-S")] },
    // It has stopped leading before it forwards again, whatever it wants of old.
    Case { name: "the leader is stopped, and goes on", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Stop(A)), (3_000, Go(A))],
        expected: &[(1_151, "LL"), (3_000, "SL"), (60_000, "SL")] },
    Case { name: "the standby is stopped, and goes on", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Stop(B)), (3_000, Go(B))],
        expected: &[(3_000, "LS"), (60_000, "LS")] },
    Case { name: "the standby is stopped, the leader dies meanwhile", config: plain, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Stop(B)), (2_000, Crash(A)), (3_000, Go(B))],
        expected: &[(3_000, "-S"), (3_200, "-L")] },
    Case { name: "a long way", config: plain, two_leaders: 0,
        script: &[(0, Delay(100)), BOTH[0], BOTH[1], (1_000, Crash(A))],
        expected: &[(151, "LS"), (1_190, "-S"), (1_251, "-L")] },
    Case { name: "active-active, both cold", config: active, two_leaders: 0,
        script: &BOTH,
        expected: &[(1, "LS"), (160, "AA"), (60_000, "AA")] },
    Case { name: "active-active, peer absent and arriving later", config: active, two_leaders: 0,
        script: &[(0, Start(B)), (6_000, Start(A))],
        expected: &[(5_000, "-L"), (6_050, "SL"), (6_160, "AA"), (60_000, "AA")] },
    Case { name: "active-active, one dies and comes back", config: active, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Crash(A)), (3_000, Start(A))],
        expected: &[(1_090, "-A"), (1_152, "-L"), (3_010, "SL"), (3_200, "AA"), (60_000, "AA")] },
    Case { name: "active-active, one restarts faster than it is missed", config: active, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Crash(A)), (1_010, Start(A))],
        expected: &[(1_012, "SL"), (1_200, "AA"), (60_000, "AA")] },
    Case { name: "active-active, all paths cut", config: active, two_leaders: 1_951,
        script: &[BOTH[0], BOTH[1], (1_000, Cut(A)), (1_000, Cut(B)), (3_000, Heal)],
        expected: &[(2_999, "LL"), (3_060, "AA"), (60_000, "AA")] },
    Case { name: "active-active, one cut off from peer and witness", config: active_witness, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Cut(A)), (1_000, Cut(B)), (1_000, Witness(A, false)), (3_000, Heal)],
        expected: &[(1_160, "AL"), (1_460, "IL"), (2_999, "IL"), (3_060, "SL"), (3_200, "AA"), (60_000, "AA")] },
    Case { name: "active-active, one unhealthy and back", config: active, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Health(A, false)), (2_000, Health(A, true))],
        expected: &[(1_002, "SL"), (6_999, "SL"), (7_060, "AA"), (60_000, "AA")] },
    Case { name: "active-active, both unhealthy", config: active, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Health(A, false)), (1_000, Health(B, false))],
        expected: &[(60_000, "AA")] },
    Case { name: "active-active, taken out and put back by the operator", config: active, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Switch(A)), (9_000, Switch(A))],
        expected: &[(1_019, "AA"), (1_022, "SL"), (8_999, "SL"), (9_060, "AA"), (60_000, "AA")] },
    Case { name: "active-active, one leaves", config: active, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Leave(A))],
        expected: &[(1_022, "SL"), (60_000, "SL")] },
    Case { name: "active-active, one is stopped, and goes on", config: active, two_leaders: 0,
        script: &[BOTH[0], BOTH[1], (1_000, Stop(A)), (3_000, Go(A))],
        expected: &[(1_152, "AL"), (3_000, "SL"), (3_300, "AA"), (60_000, "AA")] },
    Case { name: "active-active, never in sync", config: active, two_leaders: 0,
        script: &[(0, NoSync), BOTH[0], BOTH[1]],
        expected: &[(60_000, "LS")] },
];

#[test]
fn every_case_ends_as_it_should() {
    let mut wrong = Vec::new();
    for case in CASES {
        let mut both = configs();
        both.iter_mut().for_each(case.config);
        let mut pair = Pair::new(both, 1);
        let mut script = case.script.iter().peekable();
        let mut found = String::new();
        let mut seen = Vec::new();
        for (at, roles) in case.expected {
            while let Some((when, act)) = script.next_if(|(when, _)| when <= at) {
                pair.run_until(*when);
                pair.act(*act);
            }
            pair.run_until(*at);
            if pair.roles() != *roles {
                found += &format!(" at {at} ms {} instead of {roles};", pair.roles());
            }
            seen.push(pair.roles());
        }
        assert!(
            script.next().is_none(),
            "{}: the script goes on after the last look",
            case.name
        );
        let two_leaders: u64 = pair.two_leaders.iter().map(|(from, to)| to.since(*from).0).sum();
        if two_leaders > Nanos::from_millis(case.two_leaders).0 {
            found += &format!(" two leaders for {two_leaders} ns: {:?};", pair.two_leaders);
        }
        if !found.is_empty() {
            wrong.push(format!("{}:{found} changes: {:?}", case.name, pair.changes));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_link_that_flaps_every_second_leaves_one_leader_each_time() {
    for cut in [&[A][..], &[B], &[A, B]] {
        let mut pair = Pair::new(configs(), 1);
        pair.act(Start(A));
        pair.act(Start(B));
        for second in 1..=60 {
            pair.run_until(1000 * second);
            cut.iter().for_each(|n| pair.act(Cut(*n)));
            pair.run_until(1000 * second + 500);
            pair.act(Heal);
            pair.run_until(1000 * second + 900);
            let one = ["LS", "SL"].contains(&pair.roles().as_str());
            assert!(one, "cut {cut:?}, second {second}: {}", pair.roles());
        }
        // Each node changed its role once or twice a second at most.
        assert!(pair.changes.len() <= 4 * 61, "{} changes", pair.changes.len());
    }
}

/// One machine, and heartbeats by hand.
fn alone() -> (Election, Heartbeat) {
    let [_, config] = configs();
    let mut standby = Election::new(config, Nanos(0));
    let heartbeat = Heartbeat {
        node: NodeId(1),
        role: Role::Leader,
        lead: Lead(1),
        priority: 200,
        healthy: true,
        sent: Nanos(1),
        heard: Nanos(1),
        ..Heartbeat::default()
    };
    standby.heard(Nanos(0), 1, &heartbeat);
    assert_eq!(standby.role(), Role::Standby);
    (standby, heartbeat)
}

#[test]
fn three_heartbeats_lost_and_the_peer_is_dead_not_a_nanosecond_earlier() {
    for (heartbeat, dead_after) in [(50, 3), (10, 1), (1000, 5), (7, 2)] {
        let mut config = configs()[1];
        config.heartbeat = Nanos::from_millis(heartbeat);
        config.dead_after = dead_after;
        let (_, news) = alone();
        let mut standby = Election::new(config, Nanos(0));
        standby.heard(Nanos(77), 1, &news);
        let dead = Nanos(77).plus(Nanos::from_millis(heartbeat * u64::from(dead_after)));
        let mut ticks = 0;
        loop {
            let next = standby.next_timeout();
            assert!(next <= dead, "it wakes up in time: {next:?}");
            if next == dead {
                break;
            }
            standby.tick(next);
            ticks += 1;
            assert_eq!(standby.role(), Role::Standby);
        }
        assert!(ticks + 1 >= dead_after, "a tick each heartbeat");
        standby.tick(Nanos(dead.0 - 1));
        assert_eq!((standby.role(), standby.peer_alive()), (Role::Standby, true));
        standby.tick(dead);
        assert_eq!((standby.role(), standby.why()), (Role::Leader, Why::PeerSilent));
        assert_eq!(standby.lead(), Lead(2));
    }
}

#[test]
fn heartbeats_that_are_repeated_late_or_out_of_order_say_nothing() {
    let ms = Nanos::from_millis;
    let (mut standby, mut heartbeat) = alone();
    heartbeat.sent = ms(40);
    standby.heard(ms(40), 1, &heartbeat);
    // An older one, which says that the leader yields; the same again; one of the start before: nobody believes them, and they do
    // not make the peer live longer.
    let mut old = heartbeat.clone();
    old.yields = true;
    old.sent = ms(39);
    standby.heard(ms(100), 1, &old);
    old.sent = ms(40);
    standby.heard(ms(150), 1, &old);
    old.sent = ms(200);
    standby.heard(ms(160), 0, &old);
    assert_eq!(standby.role(), Role::Standby);
    standby.tick(Nanos(ms(190).0 - 1));
    assert_eq!(standby.role(), Role::Standby);
    standby.tick(ms(190));
    assert_eq!(standby.role(), Role::Leader);
}

#[test]
fn its_own_heartbeats_are_nobody() {
    let mut first = Election::new(configs()[0], Nanos(0));
    let mut own = Heartbeat::default();
    first.say(&mut own);
    own.sent = Nanos(5);
    first.heard(Nanos(9), 1, &own);
    assert!(!first.peer_alive());
    assert_eq!(first.role(), Role::Waiting);
}

#[test]
fn an_answer_to_an_old_question_is_none() {
    let ms = Nanos::from_millis;
    let mut config = configs()[1];
    config.witness = true;
    let (_, mut heartbeat) = alone();
    let mut standby = Election::new(config, Nanos(0));
    standby.heard(Nanos(1), 1, &heartbeat);
    let run = |standby: &mut Election, until: Nanos| {
        while standby.next_timeout() <= until {
            standby.tick(standby.next_timeout());
        }
    };
    // First silence: three questions, unanswered; then the peer is back, and silent again.
    run(&mut standby, ms(260));
    assert_eq!((standby.asked(), standby.role()), (3, Role::Standby));
    heartbeat.sent = ms(270);
    standby.heard(ms(270), 1, &heartbeat);
    standby.witness_answered(ms(271), 3);
    run(&mut standby, ms(425));
    assert_eq!((standby.asked(), standby.peer_alive()), (4, false));
    for old in [0, 1, 2, 3, 5, u32::MAX] {
        standby.witness_answered(ms(425), old);
        assert_eq!(standby.role(), Role::Standby, "question {old}");
    }
    // So late is no answer either.
    run(&mut standby, ms(425 + 20 * 50));
    assert_eq!(standby.asked(), 24);
    standby.witness_answered(ms(1425), 4);
    assert_eq!(standby.role(), Role::Standby);
    standby.witness_answered(ms(1425), 23);
    assert_eq!(standby.role(), Role::Leader);
}

#[test]
fn a_switchover_that_cannot_be_is_refused_with_its_reason() {
    let (mut standby, mut heartbeat) = alone();
    let ms = Nanos::from_millis;
    assert_eq!(standby.switchover(ms(1)), Err(SwitchRefused::NotInSync));
    standby.set_in_sync(ms(1), true);
    standby.set_health(ms(1), false);
    assert_eq!(standby.switchover(ms(1)), Err(SwitchRefused::Unhealthy));
    standby.set_health(ms(1), true);
    assert_eq!(standby.switchover(ms(1)), Ok(()));
    let mut said = Heartbeat::default();
    standby.say(&mut said);
    assert!(said.asks_to_lead);
    // For ten seconds, while the leader does nothing about it.
    for n in 1..=10_020 / 20 {
        heartbeat.sent = ms(20 * n);
        standby.heard(ms(20 * n), 1, &heartbeat);
        standby.say(&mut said);
        assert_eq!(said.asks_to_lead, 20 * n < 10_001, "after {} ms", 20 * n);
    }
    let mut leader = Election::new(configs()[0], Nanos(0));
    assert_eq!(leader.switchover(ms(1)), Err(SwitchRefused::NoPeer));
    let peer = Heartbeat {
        node: NodeId(2),
        role: Role::Standby,
        sent: Nanos(1),
        ..Heartbeat::default()
    };
    leader.heard(ms(2), 1, &peer);
    assert_eq!(leader.switchover(ms(2)), Err(SwitchRefused::Unhealthy));
    let isolated = Heartbeat {
        role: Role::Isolated,
        lead: Lead(3),
        healthy: true,
        ..heartbeat
    };
    let (mut standby, _) = alone();
    standby.heard(ms(3), 1, &isolated);
    assert_eq!(standby.switchover(ms(3)), Err(SwitchRefused::NoLeader));
}
