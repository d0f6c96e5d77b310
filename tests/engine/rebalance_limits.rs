//! Sessions that move between workers take their part of every shared limit along: none is exceeded meanwhile, none is lost, and an apply
//! that changes one in the middle of a move counts each session once.

use std::collections::BTreeMap;
use std::sync::Arc;

use haechi::base::{Generation, Nanos, RuleId};
use haechi::config::{self, RuleIds};
use haechi::engine::{EndReason, Event, Limit, Message};
use haechi::flow::Session;
use haechi::flow::owner::{BucketTable, Method};
use haechi::policy::Policy;

use crate::node::{config, frame};
use crate::rebalance::{RULES, World};

const RULE: Limit = Limit::Rule(RuleId(0));
const METHODS: [Method; 3] = [Method::SymmetricToeplitz, Method::Sorted, Method::TwoSided];

/// A rule with these limits in a table for `sessions`; a session ends ten seconds after its packet.
fn policy(limits: [Option<u32>; 2], sessions: u32, generation: u32, ids: &mut RuleIds) -> Arc<Policy> {
    let names = ["max_sessions", "max_sessions_per_source"];
    let limits = names
        .iter()
        .zip(limits)
        .filter_map(|(name, limit)| Some(format!("{name} = {}\n", limit?)));
    let text = config(&format!(
        "[[rule]]\nname = \"all\"\naction = \"allow\"\n{}[conntrack]\nmax_sessions = {sessions}\nadaptive_start = \"100%\"\n\
         adaptive_end = \"120%\"\n[conntrack.timeouts]\nudp_new = \"10s\"\n",
        limits.collect::<String>()
    ));
    let config = config::load_text("test.toml", &text).unwrap_or_else(|e| panic!("{e}"));
    Arc::new(config::compile(&config, Generation(generation), ids).expect("a policy"))
}

fn world(seed: u64, policy: &Arc<Policy>, capacities: &[u32]) -> World {
    let method = METHODS[seed as usize % 3];
    let table = BucketTable::even(capacities.len() as u16);
    World::of((seed, method), Arc::clone(policy), capacities, table, true)
}

/// The next packet of one of seven sources; every flow has one.
fn open(world: &mut World, flow: u16) {
    let text = format!("udp 10.0.0.{}:{} > 192.0.2.7:53", 1 + flow % 7, 1000 + flow);
    world.arrive(flow, 0, frame(&text));
}

/// Sessions on their way from one worker to another.
fn travelling(world: &World) -> impl Iterator<Item = &Session> {
    let messages = world.between.inboxes.iter().flatten();
    messages.filter_map(|message| match message {
        Message::Session(moved, _) => Some(&moved.session),
        _ => None,
    })
}

fn live(world: &World) -> u64 {
    world.sum(|engine| u64::from(engine.table().len())) + travelling(world).count() as u64
}

/// All sessions by source.
fn by_source(world: &World) -> BTreeMap<[u8; 16], u32> {
    let mut all = BTreeMap::new();
    for engine in &world.engines {
        engine.table().scan(0, u32::MAX, |entry| {
            *all.entry(entry.session.source()).or_default() += 1;
        });
    }
    for session in travelling(world) {
        *all.entry(session.source()).or_default() += 1;
    }
    all
}

/// What is leased of a limit, or on its way by itself or with a session; `None`: an apply is not over.
fn leased(world: &World, limit: Limit) -> Option<u64> {
    let mut sum = 0;
    for engine in &world.engines {
        sum += u64::from(engine.leased(limit)?);
    }
    let since = world.engines[0].policy().rules[0].limits.since;
    for message in world.between.inboxes.iter().flatten() {
        sum += match (message, limit) {
            (Message::Give(give), Limit::Table) if give.limit == limit => u64::from(give.amount),
            (Message::Give(give), Limit::Rule(_)) if (give.limit, give.epoch) == (limit, since) => {
                u64::from(give.amount)
            }
            (Message::Open { amount, epoch, .. }, Limit::Rule(_)) if *epoch == since => u64::from(*amount),
            (Message::Session(..), Limit::Table) => 1,
            (Message::Session(_, units), Limit::Rule(_)) => u64::from(units.of_rule() == Some(since)),
            _ => 0,
        };
    }
    Some(sum)
}

/// What is borrowed of sources' limits is lent, or on its way.
fn loans_are_even(world: &World) -> bool {
    let on_their_way = world
        .between
        .inboxes
        .iter()
        .flatten()
        .map(|message| match message {
            Message::Give(give) if matches!(give.limit, Limit::Source { .. }) => u64::from(give.amount),
            Message::Session(_, units) => u64::from(units.of_source()),
            _ => 0,
        });
    let [borrowed, lent] = [0, 1].map(|part| world.sum(|engine| engine.loans().1[part]));
    borrowed + on_their_way.sum::<u64>() == lent
}

/// Begins a random move, if none is under way.
fn begin(world: &mut World) {
    let workers = world.engines.len();
    if world.is_moving() {
        return;
    }
    let from = world.random(workers);
    let to = (from + 1 + world.random(workers - 1)) % workers;
    let all = world.random(2) == 0;
    let buckets = world.buckets_of(from as u16, all);
    let mut order: Vec<usize> = (0..workers).collect();
    let by = world.random(workers);
    order.rotate_left(by);
    world.begin(from as u16, to as u16, buckets, order);
}

/// Everybody turns and looks after itself, while time passes.
fn calm(world: &mut World, rounds: u32, step: Nanos) {
    for _ in 0..rounds {
        world.settle();
        for worker in 0..world.engines.len() {
            world.upkeep(worker);
        }
        world.settle();
        world.now = world.now.plus(step);
    }
}

fn check_sums(world: &World, sessions: u32, seed: u64) {
    assert_eq!(
        leased(world, Limit::Table),
        Some(u64::from(sessions)),
        "seed {seed}"
    );
    assert!(live(world) <= u64::from(sessions), "seed {seed}");
    assert!(loans_are_even(world), "seed {seed}");
}

/// What `show` tells of the rule is what is there.
fn check_shown(world: &World, limit: Option<u32>, seed: u64) {
    let counters = world.engines.iter().filter_map(|e| e.rule_counters(RuleId(0)));
    let (sessions, unused) = counters.fold((0, 0), |(sessions, unused), counters| {
        (sessions + counters.sessions, unused + counters.unused_leases)
    });
    assert_eq!(sessions, live(world), "seed {seed}");
    if let Some(limit) = limit {
        assert_eq!(unused, u64::from(limit).saturating_sub(sessions), "seed {seed}");
    }
    let [came, went] = [
        world.sum(|e| e.counters().sessions_moved_in),
        world.sum(|e| e.counters().sessions_moved_out),
    ];
    assert_eq!(came, went, "seed {seed}");
}

/// Fills the rule's limit from nothing, by whatever workers own the flows.
fn fill(world: &mut World, first: u16, wanted: u64) {
    for flow in first.. {
        let before = live(world);
        if before == wanted {
            return;
        }
        for _ in 0..20 {
            open(world, flow);
            calm(world, 1, Nanos::from_millis(6));
            if live(world) > before {
                break;
            }
        }
        assert!(flow - first < 2000, "{before} of {wanted}");
    }
}

/// Random traffic, moves, late messages, queues of few messages, workers that are told of an apply one after the other.
#[test]
fn limits_hold_while_sessions_move_and_policies_change() {
    let (mut moved, mut refused, mut in_between) = (0, 0, 0);
    for seed in 1..=300_u64 {
        let workers = 2 + seed as usize % 3;
        let mut ids = RuleIds::new();
        let per_source = [None, Some(9)][seed as usize / 3 % 2];
        let (mut limit, sessions) = (Some(10 + seed as u32 % 37), 64 + seed as u32 % 20);
        let mut policies = vec![policy([limit, per_source], sessions, 1, &mut ids)];
        let mut in_force = vec![0; workers];
        // Some tables have little room.
        let small = seed % 5 == 0;
        let capacities: Vec<u32> = (0..workers)
            .map(|worker| if small && worker == 1 { 12 } else { sessions })
            .collect();
        let mut world = world(seed, &policies[0], &capacities);
        world.between.room = [usize::MAX, 1, 4][seed as usize / 2 % 3];
        let mut flows = 0;
        for _ in 0..1200 {
            let created = world.sum(|e| e.counters().sessions_created);
            match world.random(16) {
                0..=3 => {
                    open(&mut world, flows);
                    flows += 1;
                }
                4 => begin(&mut world),
                5 => world.give(),
                6 | 7 => {
                    let worker = world.random(workers);
                    world.upkeep(worker);
                }
                8 => {
                    let time = world.random(700) as u64;
                    world.now = world.now.plus(Nanos::from_millis(time));
                }
                9 if world.random(4) == 0 && policies.len() < 100 => {
                    let worker = world.random(workers);
                    if in_force[worker] + 1 == policies.len() {
                        limit = (world.random(5) > 0).then_some(world.random(50) as u32 + 1);
                        let generation = policies.len() as u32 + 1;
                        policies.push(policy([limit, per_source], sessions, generation, &mut ids));
                    }
                    in_force[worker] += 1;
                    drop(world.engines[worker].set_policy(Arc::clone(&policies[in_force[worker]])));
                    in_between += usize::from(world.is_moving());
                }
                _ => {
                    let (worker, most) = (world.random(workers), world.random(6));
                    world.turn(worker, most, 40);
                }
            }
            let opened = world.sum(|e| e.counters().sessions_created) > created;
            let since = policies[in_force[0]].rules[0].limits.since;
            let same = in_force
                .iter()
                .all(|place| policies[*place].rules[0].limits.since == since);
            let its = policies[in_force[0]].rules[0].limits.sessions;
            if let (true, Some(its)) = (same, its.map(u64::from)) {
                assert!(
                    !opened || live(&world) <= its,
                    "seed {seed}: {} of {its}",
                    live(&world)
                );
                let leased = leased(&world, RULE);
                assert!(
                    leased.is_none_or(|leased| leased == its),
                    "seed {seed}: {leased:?} of {its}"
                );
            }
            let most = by_source(&world).into_values().max().unwrap_or(0);
            assert!(most <= per_source.unwrap_or(u32::MAX), "seed {seed}: {most}");
            check_sums(&world, sessions, seed);
        }
        // In the end everybody has the same policy, and nothing is lost.
        world.between.room = usize::MAX;
        let last = policies.last().expect("one");
        for (engine, in_force) in world.engines.iter_mut().zip(in_force) {
            if in_force + 1 < policies.len() {
                drop(engine.set_policy(Arc::clone(last)));
            }
        }
        calm(&mut world, 10, Nanos(50_000));
        check_sums(&world, sessions, seed);
        check_shown(
            &world,
            limit.filter(|limit| live(&world) <= u64::from(*limit)),
            seed,
        );
        world.check_places();
        calm(&mut world, 30, Nanos::from_secs(2));
        assert_eq!(live(&world), 0, "seed {seed}");
        assert_eq!(
            world.sum(|e| e.loans().1[0] + e.loans().1[1]),
            0,
            "seed {seed}: all loans are paid back"
        );
        check_shown(&world, limit, seed);
        moved += world.sum(|e| e.counters().sessions_moved_in);
        refused += world.between.drops.get("session_limit").copied().unwrap_or(0);
        // All of it is there for whoever wants it.
        let room: u32 = if small { 12 } else { sessions };
        let wanted = limit
            .unwrap_or(sessions)
            .min(room)
            .min(per_source.map_or(u32::MAX, |most| 7 * most));
        fill(&mut world, flows, u64::from(wanted));
        check_sums(&world, sessions, seed);
    }
    assert!(
        moved > 5000 && refused > 10_000 && in_between > 1000,
        "{moved} {refused} {in_between}"
    );
}

/// A node's table, a rule and a source that are full stay full while everything goes to and fro; what ends can be opened again elsewhere.
#[test]
fn full_limits_stay_full_wherever_their_sessions_are() {
    for (limits, most) in [([Some(20), None], 20), ([None, Some(3)], 21), ([None, None], 64)] {
        let mut ids = RuleIds::new();
        let policy = policy(limits, 64, 1, &mut ids);
        let mut world = world(2, &policy, &[64; 3]);
        fill(&mut world, 0, most);
        let evicted = world.sum(|e| e.counters().sessions_evicted);
        let mut next = 5000;
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 2), (2, 1), (1, 0)] {
            world.move_now(from, to);
            check_sums(&world, 64, 0);
            check_shown(&world, limits[0], 0);
            assert_eq!(world.engines[usize::from(from)].table().len(), 0);
            if limits != [None, None] {
                for _ in 0..14 {
                    open(&mut world, next);
                    next += 1;
                    calm(&mut world, 2, Nanos(100_000));
                }
            }
            assert_eq!(live(&world), most, "{limits:?}");
            assert_eq!(world.sum(|e| e.counters().sessions_evicted), evicted);
        }
        // Whoever has none of it any more gets it back.
        calm(&mut world, 20, Nanos::from_secs(2));
        assert_eq!(live(&world), 0);
        fill(&mut world, next, most);
    }
}

/// A session that comes where its flow has another one by then gives way: every account has it, and what it brought is paid back.
#[test]
fn a_session_that_finds_no_place_is_in_all_books() {
    let text = config(&format!("{RULES}[conntrack]\nmax_sessions = 64\n"));
    let config = config::load_text("test.toml", &text).unwrap_or_else(|e| panic!("{e}"));
    let policy = config::compile(&config, Generation(1), &mut RuleIds::new()).expect("a policy");
    let mut world = world(1, &Arc::new(policy), &[64; 2]);
    for flow in 0..20 {
        open(&mut world, flow);
    }
    calm(&mut world, 3, Nanos::from_millis(6));
    assert_eq!(live(&world), 20);
    let buckets = world.buckets_of(0, true);
    world.begin(0, 1, buckets, vec![1, 0]);
    let coming = |world: &World| match world.between.inboxes[1].back() {
        Some(Message::Session(moved, units)) if units.of_source() => Some(*moved),
        _ => None,
    };
    for round in 0.. {
        world.give();
        world.turn(1, 16, 8);
        world.turn(0, 16, 8);
        if coming(&world).is_some() {
            break;
        }
        assert!(round < 1000, "none goes");
    }
    let moved = coming(&world).expect("one");
    let now = world.now;
    assert!(
        world.engines[1]
            .adopt(moved.session, moved.translation, now)
            .is_some()
    );
    // Every turn checks the worker's account.
    world.settle();
    assert_eq!(world.sum(|e| e.counters().sessions_evicted), 1);
    assert_eq!(live(&world), 20);
    check_shown(&world, None, 0);
    assert!(loans_are_even(&world));
    let mut ends = vec![];
    while let Some(record) = world.engines[1].next_record() {
        if let Event::End(reason, _) = record.event {
            ends.push((record.key, reason));
        }
    }
    assert_eq!(ends, [(moved.session.key, EndReason::Evicted)]);
    for engine in &mut world.engines {
        engine.kill_where(now, 0, u32::MAX, |_| true);
    }
    calm(&mut world, 30, Nanos::from_secs(2));
    assert_eq!(world.sum(|e| e.loans().1[0] + e.loans().1[1]), 0);
}
