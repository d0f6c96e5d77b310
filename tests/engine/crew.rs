//! Several workers do what one does: wherever a packet arrives, its verdict is that of one engine that has all sessions.

use haechi::base::{Nanos, PortId, WorkerId};
use haechi::engine::{DropReason, Hops, Placement};
use haechi::flow::owner::Method;
use haechi::flow::proof::{Event, Kinds};
use haechi::packet::VecPacket;
use proptest::prelude::*;

use crate::crew::Crew;
use crate::fragments::cut::Cut;
use crate::frames;
use crate::node::{config, frame};

const METHODS: [Method; 4] = [
    Method::SymmetricToeplitz,
    Method::Sorted,
    Method::TwoSided,
    Method::SymmetricKey,
];

const RULES: &str = "[[rule]]\nname = \"web\"\nfrom = \"lan\"\nservice = [\"tcp\", \"udp\", \"icmp\", \"icmpv6\", \"proto/47\"]\naction = \"allow\"\n\
    [[rule]]\nname = \"no\"\nfrom = \"wan\"\nservice = [\"tcp/22\"]\naction = \"reject\"\n\
    [policy]\nreject_rate = \"1000000/s\"\n";

/// What happens next: packets of one of some flows, each with the port and the frame.
fn packets(flow: u8, action: u8) -> Vec<(u16, Vec<u8>)> {
    let v6 = flow % 4 == 3;
    let (client, server) = match v6 {
        true => (format!("[2001:db8::{flow:x}]"), "[2001:db8:f::7]".to_owned()),
        false => (format!("10.0.0.{flow}"), "192.0.2.7".to_owned()),
    };
    let (bare_client, bare_server) = (client.trim_matches(['[', ']']), server.trim_matches(['[', ']']));
    let vlan = if flow % 5 == 4 { " vlan=7" } else { "" };
    let port = 1000 + u16::from(flow);
    let out = |what: &str| (0, frame(&format!("{what}{vlan}")));
    let back = |what: &str| (1, frame(&format!("{what}{vlan}")));
    let ping = if v6 { "icmpv6" } else { "icmp" };
    match action {
        0 => vec![out(&format!("tcp {client}:{port} > {server}:80 syn seq=100"))],
        1 => vec![back(&format!(
            "tcp {server}:80 > {client}:{port} syn,ack seq=500 ack=101"
        ))],
        2 => vec![out(&format!(
            "tcp {client}:{port} > {server}:80 ack seq=101 ack=501"
        ))],
        3 => vec![back(&format!(
            "tcp {server}:80 > {client}:{port} ack seq=501 ack=101"
        ))],
        4 => vec![out(&format!(
            "tcp {client}:{port} > {server}:80 fin,ack seq=101 ack=501"
        ))],
        5 => vec![back(&format!("tcp {server}:80 > {client}:{port} rst seq=501"))],
        6 => vec![out(&format!("udp {client}:{port} > {server}:53"))],
        7 => vec![back(&format!("udp {server}:53 > {client}:{port}"))],
        8 => vec![out(&format!(
            "{ping} {bare_client} > {bare_server} echo-request id={port} seq=1"
        ))],
        9 => vec![back(&format!(
            "{ping} {bare_server} > {bare_client} echo-reply id={port} seq=1"
        ))],
        // Two new packets of a new flow in one burst, and one that a rule rejects.
        10 => vec![
            out(&format!(
                "udp {client}:{port} > {server}:{}",
                2000 + u16::from(flow)
            )),
            out(&format!(
                "udp {client}:{port} > {server}:{}",
                2000 + u16::from(flow)
            )),
            back(&format!("tcp {server}:{port} > {client}:22 syn")),
        ],
        11 => {
            let mut cut = Cut::udp(v6, (port, 53), 300);
            cut.id = u32::from(flow);
            cut.pieces(96).into_iter().map(|piece| (0, piece)).collect()
        }
        12 => {
            let mut cut = Cut::udp(v6, (53, port), 200);
            cut.back = true;
            cut.id = u32::from(flow);
            let mut pieces = cut.pieces(64);
            pieces.reverse();
            pieces.into_iter().map(|piece| (1, piece)).collect()
        }
        13 => vec![(
            1,
            error_about(v6, &frame(&format!("udp {client}:{port} > {server}:53"))),
        )],
        14 => vec![(
            1,
            error_about(
                v6,
                &frame(&format!("tcp {client}:{port} > {server}:80 syn seq=100")),
            ),
        )],
        15 => vec![(0, frames::arp(1, [2, 0, 0, 0, 0, 1])), (1, vec![0; 60])],
        16 => vec![
            out(&format!("tcp {client}:{port} > {server}:80 ack seq=101 ack=501")),
            out(&format!("udp {client}:{port} > {server}:53")),
            back(&format!("udp {server}:53 > {client}:{port}")),
            back(&format!("tcp {server}:80 > {client}:{port} ack seq=501 ack=101")),
        ],
        _ => vec![back(&format!("tcp {server}:{port} > {client}:22 syn"))],
    }
}

/// A port unreachable, by the server's router, to the sender of `about`.
fn error_about(v6: bool, about: &[u8]) -> Vec<u8> {
    let quoted = &about[14..];
    match v6 {
        true => {
            let mut ip = frames::Ip6::new(58);
            ip.source.copy_from_slice(&quoted[24..40]);
            ip.destination.copy_from_slice(&quoted[8..24]);
            frames::over6(&ip, frames::icmp(1, 4, [0; 4], quoted), 2)
        }
        false => {
            let mut ip = frames::Ip4::new(1);
            ip.source.copy_from_slice(&quoted[16..20]);
            ip.destination.copy_from_slice(&quoted[12..16]);
            ip.frame(&frames::summed(&[], frames::icmp(3, 3, [0; 4], quoted), 2))
        }
    }
}

/// What happens to both, in the same order, packets of one burst at one worker or at several.
fn both(one: &mut Crew, many: &mut Crew, burst: &[(u16, Vec<u8>)], arrivals: u16) {
    let workers = many.engines.len();
    one.burst(0, burst);
    if arrivals & 1 == 0 {
        many.burst(usize::from(arrivals >> 1) % workers, burst);
        return;
    }
    for (place, packet) in burst.iter().enumerate() {
        let worker = usize::from(arrivals >> (1 + 2 * (place % 7))) % workers;
        many.burst(worker, std::slice::from_ref(packet));
    }
}

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Frames that leave, packets that are made, drops by reason, sessions, counters of rules.
    #[test]
    fn several_workers_do_what_one_does(
        method in 0_usize..4,
        workers in 2_u16..5,
        happens in prop::collection::vec((1_u8..13, 0_u8..18, any::<u16>(), 0_u8..20), 1..60),
    ) {
        let text = config(RULES);
        let mut one = Crew::new(&text, 1, METHODS[method]);
        let mut many = Crew::new(&text, workers, METHODS[method]);
        for (flow, action, arrivals, pause) in happens {
            both(&mut one, &mut many, &packets(flow, action), arrivals);
            if pause == 0 {
                one.wait(Nanos::from_secs(6));
                many.wait(Nanos::from_secs(6));
            }
            prop_assert_eq!(
                sorted(std::mem::take(&mut many.done.forwarded)),
                sorted(std::mem::take(&mut one.done.forwarded))
            );
            prop_assert_eq!(
                sorted(std::mem::take(&mut many.done.originated)),
                sorted(std::mem::take(&mut one.done.originated))
            );
            prop_assert_eq!(&many.done.drops, &one.done.drops);
            prop_assert_eq!(many.sessions(), one.sessions());
        }
        prop_assert_eq!(one.done.handed_over, 0);
        for rule in 0..2 {
            let of = |crew: &Crew| {
                let sum = |field: fn(&haechi::engine::RuleCounters) -> u64| crew.sum(|engine| field(&engine.rules()[rule]));
                [sum(|r| r.sessions), sum(|r| r.packets), sum(|r| r.bytes), sum(|r| r.limited)]
            };
            prop_assert_eq!(of(&many), of(&one));
        }
        for count in [
            |e: &haechi::engine::Engine| e.counters().fragments,
            |e: &haechi::engine::Engine| e.counters().fragments_reassembled,
            |e: &haechi::engine::Engine| e.counters().sessions_created,
            |e: &haechi::engine::Engine| e.counters().sessions_ended,
            |e: &haechi::engine::Engine| e.held(),
        ] {
            prop_assert_eq!(many.sum(count), one.sum(count));
        }
    }
}

/// Every packet of a flow is judged by its owner, wherever it comes in: no other worker has a session.
#[test]
fn a_session_is_on_its_owner_alone() {
    for method in METHODS {
        let mut crew = Crew::new(&config(RULES), 3, method);
        for flow in 0..60 {
            for (place, action) in [6, 7, 6, 7].into_iter().enumerate() {
                crew.burst((usize::from(flow) + place) % 3, &packets(flow, action));
            }
        }
        assert_eq!(crew.done.drops.len(), 0, "{:?}", crew.done.drops);
        assert_eq!(
            crew.sum(|engine| engine.counters().handed_over),
            crew.done.handed_over
        );
        // About two of three packets arrive at another worker than theirs.
        assert!(
            (120..200).contains(&crew.done.handed_over),
            "{}",
            crew.done.handed_over
        );
        let shares: Vec<_> = crew.engines.iter().map(|engine| engine.table().len()).collect();
        assert_eq!(shares.iter().sum::<u32>(), 60, "{shares:?}");
        assert!(shares.iter().all(|share| *share >= 8), "{method:?}: {shares:?}");
    }
}

#[test]
fn a_full_queue_is_a_counted_drop() {
    let mut crew = Crew::new(&config(RULES), 2, Method::SymmetricToeplitz);
    crew.room = 1;
    let packets: Vec<_> = (0..40).flat_map(|flow| packets(flow, 6)).collect();
    crew.arrive(0, &packets);
    let handed = crew.engines[0].counters().handed_over;
    assert!(handed > 5, "{handed}");
    assert_eq!(crew.done.drops["queue_full"], handed - 1);
    crew.settle();
    assert_eq!(crew.done.forwarded.len() as u64, 40 - (handed - 1));
}

/// A packet that comes to a worker which is not its owner, for the third time (tables of different versions could do that), goes on no
/// more.
#[test]
fn a_packet_that_is_always_elsewhere_is_dropped() {
    let mut crew = Crew::new(&config(RULES), 2, Method::SymmetricToeplitz);
    let twice = Hops::NONE.next().and_then(Hops::next).expect("two hops");
    assert_eq!(twice.next(), None);
    for (port, frame) in (0..40).flat_map(|flow| packets(flow, 6)) {
        for worker in 0..2 {
            crew.plant(worker, (VecPacket::new(frame.clone()), PortId(port), twice));
        }
    }
    crew.settle();
    assert_eq!(crew.done.drops, [("handover_loop", 40)].into());
    assert_eq!(crew.done.handed_over, 0);
    let dropped = crew.sum(|engine| engine.counters().drops[DropReason::HandoverLoop.index()]);
    assert_eq!(dropped, 40);
    assert_eq!(crew.sessions().len(), 40);
}

/// Answered datagrams of so many flows, each packet twice.
fn talk(flows: std::ops::Range<u8>) -> Vec<(u16, Vec<u8>)> {
    flows
        .flat_map(|flow| {
            [6, 7, 6, 7]
                .into_iter()
                .flat_map(move |action| packets(flow, action))
        })
        .collect()
}

/// A crew of two whose devices say that they hash everything, with proven queues and live sessions.
fn proven(method: Method) -> Crew {
    let mut crew = Crew::new(&config(RULES), 2, method);
    for engine in &mut crew.engines {
        for port in 0..4 {
            engine.claims(PortId(port), Kinds::ALL);
        }
    }
    assert_eq!(states(&crew), ["unproven"; 4]);
    crew.by_device(&talk(1..250), honest);
    crew.by_device(&talk(1..250), honest);
    assert_eq!(states(&crew), ["proven"; 4]);
    let events = crew.rss_events();
    // However many kinds were proven behind it.
    assert_eq!(events.len(), 4, "{events:?}");
    assert!(
        events.iter().all(|(.., event)| *event == Event::Proven),
        "{events:?}"
    );
    assert_eq!(crew.done.handed_over, 0);
    assert_eq!(crew.sessions().len(), 249);
    crew
}

fn mismatches(crew: &mut Crew) -> usize {
    let events = crew.rss_events();
    let is_mismatch = |event: &Event| matches!(event, Event::Mismatch(_));
    events.iter().filter(|(.., event)| is_mismatch(event)).count()
}

fn honest(placement: &Placement, hash: u32) -> (Option<u32>, WorkerId) {
    (Some(hash), placement.buckets.owner(hash))
}

/// Of the first two ports on both workers.
fn states(crew: &Crew) -> Vec<&'static str> {
    let of = |port| {
        crew.engines
            .iter()
            .map(move |engine| engine.rss_state(PortId(port)).name())
    };
    of(0).chain(of(1)).collect()
}

#[test]
fn a_device_that_hashes_right_is_believed_and_nothing_is_handed_over() {
    for method in METHODS {
        let mut crew = proven(method);
        crew.by_device(&talk(1..250), honest);
        assert_eq!((crew.done.handed_over, mismatches(&mut crew)), (0, 0));
        assert!(crew.done.drops.is_empty(), "{:?}", crew.done.drops);
        // What no device hashes as software does is handed over, without a word against the device.
        for (place, action) in [11, 12, 13, 11, 12, 13].into_iter().enumerate() {
            // (An untagged error is about no flow of a VLAN.)
            for flow in (1..20).filter(|flow| flow % 5 != 4) {
                crew.burst(place % 2, &packets(flow, action));
            }
        }
        assert!(crew.done.handed_over > 0);
        assert!(crew.done.drops.is_empty(), "{:?}", crew.done.drops);
        assert_eq!((states(&crew), mismatches(&mut crew)), (vec!["proven"; 4], 0));
    }
}

/// Wrong hashes, right ones on the wrong queue, none at all: each is found among sampled packets, and from then on software places
/// everything. No session has noticed.
#[test]
fn a_device_that_lies_later_is_found_out_and_no_session_is_lost() {
    type Device = fn(&Placement, u32) -> (Option<u32>, WorkerId);
    let lies: [(&str, Device); 3] = [
        ("wrong hash", |placement, hash| {
            (Some(hash ^ 1 << 20), placement.buckets.owner(hash))
        }),
        ("wrong queue", |placement, hash| {
            (Some(hash), WorkerId(1 - placement.buckets.owner(hash).0))
        }),
        ("missing", |placement, hash| (None, placement.buckets.owner(hash))),
    ];
    for method in METHODS {
        // Packets that came with the one that disproves the device were placed by its word, too.
        for ((lie, device), burst) in lies.into_iter().flat_map(|lie| [1, 48].map(|burst| (lie, burst))) {
            let mut crew = proven(method);
            let sessions = crew.sessions().len();
            let handed = crew.done.handed_over;
            crew.by_device_in_bursts(burst, &talk(1..250), device);
            assert_eq!(states(&crew), ["mismatch"; 4], "{lie}");
            let events = crew.rss_events();
            assert_eq!(events.len(), 4, "{events:?}");
            for (.., event) in events {
                let Event::Mismatch(disagreement) = event else {
                    panic!("{event:?}");
                };
                assert!(disagreement.to_string().contains(lie), "{disagreement}");
            }
            // On the wrong queue a packet finds no session, and is looked at again before it opens one.
            crew.by_device_in_bursts(burst, &talk(1..250), device);
            let expected = if lie == "wrong queue" { 2 * 4 * 249 } else { 0 };
            assert_eq!(crew.done.handed_over - handed, expected, "{lie}");
            assert!(crew.done.drops.is_empty(), "{lie}: {:?}", crew.done.drops);
            assert_eq!(crew.sessions().len(), sessions);
        }
    }
}

/// One worker's packets disprove the port for all.
#[test]
fn a_port_that_another_worker_distrusts_is_steered_in_software() {
    let mut crew = proven(Method::SymmetricToeplitz);
    for engine in &mut crew.engines {
        engine.distrust(PortId(0));
    }
    assert_eq!(states(&crew), ["mismatch", "mismatch", "proven", "proven"]);
    crew.by_device(&talk(1..250), honest);
    assert_eq!(crew.done.handed_over, 0);
    crew.burst(0, &talk(1..8));
    assert!(crew.done.handed_over > 0);
}

/// Pieces that were handed over for a session which has ended meanwhile open none where they are: by the owner function the flow is
/// another worker's.
#[test]
fn a_datagram_that_came_for_a_session_in_vain_opens_none() {
    let hops = Hops::NONE.next().unwrap().of_datagram().redirected();
    let opened = [0, 1].map(|worker| {
        let mut crew = Crew::new(&config(RULES), 2, Method::Sorted);
        let pieces = Cut::udp(false, (1000, 53), 2000).pieces(800);
        for piece in &pieces {
            crew.plant(worker, (VecPacket::new(piece.clone()), PortId(0), hops));
        }
        crew.settle();
        let sessions: u32 = crew.engines.iter().map(|engine| engine.table().len()).sum();
        let dropped = crew.done.drops.get("handover_loop").copied().unwrap_or(0);
        let all = pieces.len() as u64;
        let passed = crew.done.forwarded.len() as u64;
        assert_eq!((dropped, passed), if sessions == 0 { (all, 0) } else { (0, all) });
        sessions
    });
    assert_eq!(
        opened.iter().sum::<u32>(),
        1,
        "the owner alone opens one: {opened:?}"
    );
}
