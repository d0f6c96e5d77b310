//! Limits that several workers share: never exceeded, all of them reachable, whatever becomes of the messages.

use std::sync::Arc;

use haechi::base::{Generation, Nanos, RuleId, WorkerId};
use haechi::config::{self, RuleIds};
use haechi::engine::{Ask, Give, Limit, Message};
use haechi::flow::owner::Method;
use proptest::prelude::*;

use crate::crew::Crew;
use crate::node::{config, frame};

const RULE: Limit = Limit::Rule(RuleId(0));

/// A rule with a limit in a table for `sessions`; a session ends ten seconds after its packet.
fn text(limits: &str, sessions: u32) -> String {
    config(&format!(
        "[[rule]]\nname = \"all\"\naction = \"allow\"\n{limits}\n[conntrack]\nmax_sessions = {sessions}\n\
         adaptive_start = \"100%\"\nadaptive_end = \"120%\"\n[conntrack.timeouts]\nudp_new = \"10s\"\n"
    ))
}

fn max(limit: Option<u32>) -> String {
    limit.map_or(String::new(), |limit| format!("max_sessions = {limit}"))
}

fn crew(text: &str, workers: u16, ids: &mut RuleIds) -> Crew {
    Crew::leased(text, workers, Method::SymmetricToeplitz, ids)
}

/// A datagram of a flow that no other number has.
fn datagram(flow: u32) -> (u16, Vec<u8>) {
    let (net, host, port) = (flow >> 16, flow % 199 + 1, 1024 + flow % 60_000);
    (0, frame(&format!("udp 10.{net}.0.{host}:{port} > 192.0.2.7:53")))
}

/// The flows of one worker, in the order of their numbers.
fn flows_of(crew: &Crew, worker: usize) -> impl Iterator<Item = (u16, Vec<u8>)> + use<'_> {
    (0..)
        .map(datagram)
        .filter(move |packet| crew.owner(packet) == worker)
}

fn live(crew: &Crew) -> u64 {
    crew.sum(|engine| u64::from(engine.table().len()))
}

/// What is leased of a limit or on its way; `None`: an apply is not over.
fn leased(crew: &Crew, limit: Limit) -> Option<u64> {
    let mut sum = 0;
    for engine in &crew.engines {
        sum += u64::from(engine.leased(limit)?);
    }
    let rule = crew.engines[0].policy().rules.first()?;
    let epoch = match limit {
        Limit::Rule(_) => rule.limits.since,
        Limit::Table | Limit::Source { .. } => Generation::default(),
    };
    for message in crew.messages.iter().flatten() {
        sum += match (message, limit) {
            (Message::Give(give), _) if (give.limit, give.epoch) == (limit, epoch) => u64::from(give.amount),
            (
                Message::Open {
                    rule,
                    amount,
                    epoch: of_limit,
                },
                Limit::Rule(of),
            ) if (*rule, *of_limit) == (of, epoch) => u64::from(*amount),
            _ => 0,
        };
    }
    Some(sum)
}

/// Tries one flow after the other of a worker's, and lets messages pass, until it has so many sessions or has been refused often.
fn fill(crew: &mut Crew, worker: usize, sessions: u32) -> u32 {
    let packets: Vec<_> = flows_of(crew, worker).take(sessions as usize).collect();
    let mut refused = 0;
    for packet in &packets {
        let before = crew.engines[worker].table().len();
        for _ in 0..10 * crew.engines.len() {
            crew.burst(worker, std::slice::from_ref(packet));
            if crew.engines[worker].table().len() > before {
                break;
            }
            refused += 1;
            crew.wait(Nanos::from_millis(1));
        }
    }
    refused
}

#[test]
fn one_worker_s_traffic_gets_all_of_a_rule_s_limit() {
    for workers in 2..=4 {
        for limit in [1, 2, 3, 7, 100] {
            for worker in 0..usize::from(workers) {
                let mut crew = crew(&text(&max(Some(limit)), 1000), workers, &mut RuleIds::new());
                fill(&mut crew, worker, limit);
                assert_eq!(live(&crew), u64::from(limit), "worker {worker} of {workers}");
                assert_eq!(leased(&crew, RULE), Some(u64::from(limit)));
                assert_eq!(crew.engines[worker].leased(RULE), Some(limit));
                // Not one more, on no worker.
                for other in 0..usize::from(workers) {
                    let packet = flows_of(&crew, other).nth(limit as usize + 5).expect("a flow");
                    for _ in 0..10 {
                        crew.burst(other, std::slice::from_ref(&packet));
                        crew.wait(Nanos::from_millis(1));
                    }
                }
                assert_eq!(live(&crew), u64::from(limit));
            }
        }
    }
}

#[test]
fn one_worker_s_traffic_gets_the_whole_table() {
    for workers in 2..=4 {
        for sessions in [64, 300] {
            let mut crew = crew(&text("", sessions), workers, &mut RuleIds::new());
            let refused = fill(&mut crew, 1, sessions);
            assert_eq!(live(&crew), u64::from(sessions), "{workers} workers");
            assert_eq!(leased(&crew, Limit::Table), Some(u64::from(sessions)));
            assert_eq!(crew.engines[1].quota(), sessions);
            // Nobody had to give way while others had room, and hardly anything was refused.
            assert_eq!(crew.sum(|engine| engine.counters().sessions_evicted), 0);
            assert!(refused <= sessions / 4, "{refused}");
            // The next one finds all of it taken: now the oldest gives way.
            let packet = flows_of(&crew, 1).nth(sessions as usize + 5).expect("a flow");
            for _ in 0..10 {
                crew.burst(1, std::slice::from_ref(&packet));
                crew.wait(Nanos::from_millis(1));
            }
            assert_eq!(crew.sum(|engine| engine.counters().sessions_evicted), 1);
            assert_eq!(live(&crew), u64::from(sessions));
        }
    }
}

/// With traffic that fills both, neither takes from the other: nobody is asked again and again.
#[test]
fn a_table_without_traffic_asks_nobody() {
    let mut crew = crew(&text(&max(Some(1)), 64), 2, &mut RuleIds::new());
    crew.late = true;
    for _ in 0..100 {
        crew.wait(Nanos::from_millis(1));
    }
    assert!(crew.messages.iter().all(|queue| queue.is_empty()));
}

/// One that fills up lends from the others before its timeouts shrink: they follow the fill of the node.
#[test]
fn timeouts_shrink_by_the_fill_of_the_node() {
    let mut text = text("", 4000);
    text = text.replace("adaptive_start = \"100%\"", "adaptive_start = \"60%\"");
    let mut crew = crew(&text, 4, &mut RuleIds::new());
    let packets: Vec<_> = flows_of(&crew, 2).take(2200).collect();
    for packets in packets.chunks(16) {
        crew.burst(2, packets);
        crew.wait(Nanos(50_000));
    }
    // 55 %: more than twice an even share.
    assert_eq!(live(&crew), 2200);
    assert_eq!(crew.engines[2].timeout_scale().ppm(), 1_000_000);
    assert!(crew.done.drops.is_empty(), "{:?}", crew.done.drops);
}

#[test]
fn tables_have_room_for_more_than_an_even_share() {
    use haechi::engine::Leasing;
    assert_eq!(Leasing::capacity(1_000_000, 1), 1_000_000);
    assert_eq!(Leasing::capacity(1_000_000, 2), 625_000);
    assert_eq!(Leasing::capacity(1_000_000, 64), 19_721);
    assert_eq!(Leasing::capacity(5000, 2), 5000);
    assert_eq!(Leasing::capacity(1, 8), 1);
}

/// A gift of another epoch is not taken, a question of another one not answered.
#[test]
fn messages_of_other_epochs_are_without_effect() {
    let mut crew = crew(&text(&max(Some(8)), 100), 2, &mut RuleIds::new());
    let stale = Generation(7);
    crew.messages[0].push_back(Message::Give(Give {
        from: WorkerId(1),
        limit: RULE,
        amount: 5,
        epoch: stale,
    }));
    crew.messages[0].push_back(Message::Ask(Ask {
        from: WorkerId(1),
        limit: RULE,
        want: 5,
        live: 4,
        lease: 4,
        epoch: stale,
    }));
    crew.late = true;
    crew.deliver(0, 2);
    assert_eq!(crew.engines[0].leased(RULE), Some(4));
    assert!(crew.messages.iter().all(|queue| queue.is_empty()));
}

/// Applies that change a limit, one worker after the other, with sessions: what stands counts for the new limit.
#[test]
fn a_changed_limit_is_shared_out_anew() {
    let mut ids = RuleIds::new();
    let mut crew = crew(&text(&max(Some(40)), 1000), 3, &mut ids);
    fill(&mut crew, 0, 30);
    fill(&mut crew, 1, 10);
    assert_eq!(live(&crew), 40);
    let mut generation = 1;
    let mut apply = |crew: &mut Crew, limit: Option<u32>| {
        generation += 1;
        let config = config::load_text("test.toml", &text(&max(limit), 1000)).expect("a configuration");
        let policy = config::compile(&config, Generation(generation), &mut ids).expect("a policy");
        let policy = Arc::new(policy);
        for engine in &mut crew.engines {
            drop(engine.set_policy(Arc::clone(&policy)));
        }
        for _ in 0..3 {
            crew.wait(Nanos(50_000));
        }
    };
    // More: the difference is for all.
    apply(&mut crew, Some(100));
    assert_eq!(leased(&crew, RULE), Some(100));
    let unused = crew.sum(|engine| engine.rule_counters(RuleId(0)).expect("a rule").unused_leases);
    assert_eq!(unused, 60);
    // None at all, and one again.
    apply(&mut crew, None);
    apply(&mut crew, Some(50));
    assert_eq!(leased(&crew, RULE), Some(50));
    // Less than there are: nobody opens one until enough have ended.
    apply(&mut crew, Some(20));
    assert_eq!(leased(&crew, RULE), None);
    for worker in 0..3 {
        let packet = flows_of(&crew, worker).nth(50).expect("a flow");
        crew.burst(worker, &[packet]);
    }
    assert_eq!(live(&crew), 40);
    crew.wait(Nanos::from_secs(11));
    crew.wait(Nanos(50_000));
    crew.wait(Nanos(50_000));
    assert_eq!((live(&crew), leased(&crew, RULE)), (0, Some(20)));
    fill(&mut crew, 2, 20);
    assert_eq!(live(&crew), 20);
}

#[derive(Clone, Debug)]
enum Step {
    /// New flows, at a worker that may not be theirs.
    Open(usize, u8),
    /// A worker's upkeep.
    Upkeep(usize),
    /// A worker takes so many messages.
    Deliver(usize, usize),
    /// Time passes, in milliseconds.
    Wait(u64),
    /// A worker takes the policy over that it is behind with, or a new one with this limit.
    Apply(usize, Option<u32>),
}

fn steps() -> impl Strategy<Value = Step> {
    let worker = 0_usize..4;
    prop_oneof![
        6 => (worker.clone(), 1_u8..16).prop_map(|(worker, flows)| Step::Open(worker, flows)),
        5 => worker.clone().prop_map(Step::Upkeep),
        5 => (worker.clone(), 1_usize..5).prop_map(|(worker, most)| Step::Deliver(worker, most)),
        2 => (1_u64..4000).prop_map(Step::Wait),
        1 => (worker, prop::option::weighted(0.8, 0_u32..90)).prop_map(|(worker, limit)| Step::Apply(worker, limit)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is late or finds its queue full: no session is opened when the limit is reached, and no lease is lost or made.
    #[test]
    fn limits_are_never_exceeded(
        workers in 2_u16..5,
        limit in 1_u32..90,
        sessions in 64_u32..100,
        room in 1_usize..6,
        steps in prop::collection::vec(steps(), 1..200),
    ) {
        let mut ids = RuleIds::new();
        let mut crew = crew(&text(&max(Some(limit)), sessions), workers, &mut ids);
        crew.late = true;
        crew.message_room = room;
        let workers = usize::from(workers);
        let mut policies = vec![Arc::clone(crew.engines[0].policy())];
        let mut in_force = vec![0; workers];
        let mut next = 0;
        for step in steps {
            match step {
                Step::Open(worker, flows) => {
                    for _ in 0..flows {
                        next += 1;
                        let before = live(&crew);
                        crew.burst(worker % workers, &[datagram(next)]);
                        if live(&crew) > before {
                            // As long as not all have the policy, each by its own and by what it has.
                            let since = |place: &usize| policies[*place].rules[0].limits.since;
                            let same = in_force.iter().all(|place| since(place) == since(&in_force[0]));
                            let mine = crew.owner(&datagram(next));
                            let limit = policies[in_force[mine]].rules[0].limits.sessions;
                            let own = u64::from(crew.engines[mine].table().len() - 1);
                            let counted = if same { before } else { own };
                            prop_assert!(counted < u64::from(limit.unwrap_or(u32::MAX)));
                        }
                    }
                }
                Step::Upkeep(worker) => crew.upkeep(worker % workers),
                Step::Deliver(worker, most) => crew.deliver(worker % workers, most),
                Step::Wait(ms) => crew.wait(Nanos::from_millis(ms)),
                Step::Apply(worker, limit) => {
                    let worker = worker % workers;
                    if in_force[worker] + 1 == policies.len() && policies.len() < 200 {
                        let text = text(&max(limit.filter(|limit| *limit > 0)), sessions);
                        let config = config::load_text("test.toml", &text).expect("a configuration");
                        let generation = Generation(policies.len() as u32 + 1);
                        policies.push(Arc::new(config::compile(&config, generation, &mut ids).expect("a policy")));
                    }
                    in_force[worker] += 1;
                    drop(crew.engines[worker].set_policy(Arc::clone(&policies[in_force[worker]])));
                }
            }
            let limit = policies[policies.len() - 1].rules[0].limits.sessions;
            let same = in_force.iter().all(|place| policies[*place].rules[0].limits.since == policies[policies.len() - 1].rules[0].limits.since);
            if let (true, Some(limit)) = (same, limit) {
                if let Some(leased) = leased(&crew, RULE) {
                    prop_assert_eq!(leased, u64::from(limit));
                }
            }
            prop_assert_eq!(leased(&crew, Limit::Table), Some(u64::from(sessions)));
            prop_assert!(live(&crew) <= u64::from(sessions));
        }
        // In the end everybody has the same policy, and nothing is lost on the way.
        for (engine, in_force) in crew.engines.iter_mut().zip(in_force) {
            if in_force + 1 < policies.len() {
                drop(engine.set_policy(Arc::clone(&policies[policies.len() - 1])));
            }
        }
        crew.late = false;
        crew.message_room = usize::MAX;
        for _ in 0..10 {
            crew.wait(Nanos::from_secs(3));
        }
        prop_assert_eq!(live(&crew), 0);
        if let Some(limit) = policies[policies.len() - 1].rules[0].limits.sessions {
            prop_assert_eq!(leased(&crew, RULE), Some(u64::from(limit)));
            fill(&mut crew, 1, limit.min(sessions));
            prop_assert_eq!(live(&crew), u64::from(limit.min(sessions)));
        }
    }
}
