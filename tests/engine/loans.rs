//! Limits by source that several workers share: never exceeded, all of them reachable, and every loan is paid back.

use std::collections::BTreeMap;

use haechi::base::Nanos;
use haechi::config::RuleIds;
use haechi::engine::{Limit, Message};
use haechi::flow::owner::Method;
use proptest::prelude::*;

use crate::crew::Crew;
use crate::node::{config, frame};

/// A session ends ten seconds after its packet.
fn crew(limits: &str, workers: u16) -> Crew {
    let text = config(&format!(
        "[[rule]]\nname = \"all\"\naction = \"allow\"\n{limits}\n[conntrack]\nmax_sessions = 4096\n\
         [conntrack.timeouts]\nudp_new = \"10s\"\n"
    ));
    Crew::leased(&text, workers, Method::SymmetricToeplitz, &mut RuleIds::new())
}

fn datagram(source: u32, flow: u32) -> (u16, Vec<u8>) {
    let port = 1024 + flow % 60_000;
    (0, frame(&format!("udp 10.0.0.{source}:{port} > 192.0.2.7:53")))
}

/// Flows of one source that are one worker's.
fn flows_of(crew: &Crew, source: u32, worker: usize) -> impl Iterator<Item = (u16, Vec<u8>)> + use<'_> {
    (0..)
        .map(move |flow| datagram(source, flow))
        .filter(move |packet| crew.owner(packet) == worker)
}

/// Live sessions of each source on all workers.
fn live(crew: &Crew) -> BTreeMap<[u8; 16], u32> {
    let mut live = BTreeMap::new();
    for engine in &crew.engines {
        engine.table().scan(0, u32::MAX, |entry| {
            *live.entry(entry.session.source()).or_default() += 1;
        });
    }
    live
}

fn count(crew: &Crew) -> u32 {
    live(crew).values().sum()
}

/// What is borrowed is lent, or on its way.
fn is_even(crew: &Crew) -> bool {
    let on_their_way = crew.messages.iter().flatten().map(|message| match message {
        Message::Give(give) if matches!(give.limit, Limit::Source { .. }) => u64::from(give.amount),
        _ => 0,
    });
    let [borrowed, lent] = [0, 1].map(|part| crew.sum(|engine| engine.loans().1[part]));
    borrowed + on_their_way.sum::<u64>() == lent
}

/// Tries a packet until it has opened a session; false: it never did.
fn opens(crew: &mut Crew, worker: usize, packet: &(u16, Vec<u8>), tries: usize) -> bool {
    let before = count(crew);
    (0..tries).any(|_| {
        crew.burst(worker, std::slice::from_ref(packet));
        let opened = count(crew) > before;
        if !opened {
            crew.wait(Nanos::from_millis(2));
        }
        opened
    })
}

#[test]
fn one_worker_s_traffic_gets_all_of_a_source_s_sessions() {
    for workers in 2..=4 {
        for limit in [1, 2, 3, 7, 20] {
            let mut crew = crew(&format!("max_sessions_per_source = {limit}"), workers);
            for source in 1..6 {
                let worker = source as usize % usize::from(workers);
                let packets: Vec<_> = flows_of(&crew, source, worker).take(limit as usize + 1).collect();
                let opened = packets
                    .iter()
                    .filter(|packet| opens(&mut crew, worker, packet, 20));
                assert_eq!(
                    opened.count(),
                    limit as usize,
                    "{workers} workers, source {source}"
                );
                // Nor does any other worker open one more.
                for other in 0..usize::from(workers) {
                    let packet = flows_of(&crew, source, other).nth(100).expect("a flow");
                    assert!(!opens(&mut crew, other, &packet, 5));
                }
            }
            assert!(is_even(&crew));
            // Without sessions every loan goes back, and is forgotten.
            for _ in 0..400 {
                crew.wait(Nanos::from_millis(100));
            }
            for engine in &crew.engines {
                assert_eq!((engine.loans(), engine.sources()), ((0, [0; 2]), [0; 2]));
            }
        }
    }
}

/// A SYN that was refused for want of a loan is sent again after a second: the loan is still there.
#[test]
fn a_loan_waits_for_who_tries_again_later() {
    for source in 1..9 {
        let mut crew = crew("max_sessions_per_source = 3", 2);
        for packet in flows_of(&crew, source, 0).take(3).collect::<Vec<_>>() {
            let before = count(&crew);
            let mut tries = 0;
            while count(&crew) == before {
                tries += 1;
                assert!(tries <= 2, "refused again after a second");
                crew.burst(0, std::slice::from_ref(&packet));
                for _ in 0..100 {
                    crew.wait(Nanos::from_millis(10));
                }
            }
        }
        assert!(is_even(&crew));
    }
}

#[test]
fn one_worker_s_traffic_gets_all_of_a_source_s_rate() {
    for workers in 2..=4 {
        for rate in [1, 3, 20] {
            let mut crew = crew(&format!("new_sessions_per_source = \"{rate}/s\""), workers);
            for worker in 0..usize::from(workers) {
                let source = 9 - worker as u32;
                let packets: Vec<_> = flows_of(&crew, source, worker).take(rate as usize).collect();
                for packet in &packets {
                    assert!(
                        opens(&mut crew, worker, packet, 600),
                        "{rate}/s, worker {worker} of {workers}"
                    );
                }
            }
            for _ in 0..400 {
                crew.wait(Nanos::from_millis(100));
            }
            for engine in &crew.engines {
                assert_eq!((engine.loans(), engine.sources()), ((0, [0; 2]), [0; 2]));
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A new flow of a source, at a worker that may not be its own.
    Open(usize, u32),
    Upkeep(usize),
    Deliver(usize, usize),
    /// Milliseconds.
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let worker = 0_usize..4;
    let step = prop_oneof![
        8 => (worker.clone(), 1_u32..4).prop_map(|(worker, source)| Step::Open(worker, source)),
        5 => worker.clone().prop_map(Step::Upkeep),
        5 => (worker, 1_usize..4).prop_map(|(worker, most)| Step::Deliver(worker, most)),
        2 => (1_u64..3000).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn limits_of_sources_are_never_exceeded(
        workers in 2_u16..5,
        limit in 1_u32..9,
        rate in 1_u32..9,
        which in 1_u8..4,
        room in 1_usize..6,
        steps in steps(),
    ) {
        let mut limits = String::new();
        if which & 1 != 0 {
            limits += &format!("max_sessions_per_source = {limit}\n");
        }
        if which & 2 != 0 {
            limits += &format!("new_sessions_per_source = \"{rate}/s\"\n");
        }
        let mut crew = crew(&limits, workers);
        crew.late = true;
        crew.message_room = room;
        let workers = usize::from(workers);
        let mut next = 0;
        let mut opened: BTreeMap<u32, Vec<Nanos>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Open(worker, source) => {
                    next += 1;
                    let before = count(&crew);
                    crew.burst(worker % workers, &[datagram(source, next)]);
                    if count(&crew) > before {
                        opened.entry(source).or_default().push(crew.now);
                    }
                }
                Step::Upkeep(worker) => crew.upkeep(worker % workers),
                Step::Deliver(worker, most) => crew.deliver(worker % workers, most),
                Step::Wait(ms) => crew.wait(Nanos::from_millis(ms)),
            }
            prop_assert!(is_even(&crew));
            if which & 1 != 0 {
                prop_assert!(live(&crew).values().all(|live| *live <= limit), "{:?}", live(&crew));
            }
        }
        if which & 2 != 0 {
            // In any time a burst and what comes in that time.
            for times in opened.values() {
                for (first, from) in times.iter().enumerate() {
                    for (last, to) in times.iter().enumerate().skip(first) {
                        let beyond = (last + 1 - first).saturating_sub(rate as usize) as u64;
                        prop_assert!(beyond * 1_000_000_000 <= to.since(*from).0 * u64::from(rate));
                    }
                }
            }
        }
        crew.late = false;
        crew.message_room = usize::MAX;
        for _ in 0..400 {
            crew.wait(Nanos::from_millis(100));
        }
        for engine in &crew.engines {
            prop_assert_eq!((engine.loans(), engine.sources()), ((0, [0; 2]), [0; 2]));
        }
    }
}
