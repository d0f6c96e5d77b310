//! The rule behind all of it: whatever the split of paths, the two nodes together forward exactly what one engine forwards for the same
//! packets in the same order, and make the same answers.
//!
//! Differences there are only while both nodes have made a session of one flow and do not know of each other's yet (`flows.rs`), and of
//! fragments that wait for a first one which comes late (`split.rs`). So here either each direction of a conversation has a node of
//! its own, and news come whenever they come; or every packet takes any node, and the nodes know of each other what there is to know.

use proptest::prelude::*;

use super::flows::OUT;
use crate::both::{Both, error};
use crate::node::{ALLOW_ALL, Node, PORTS, frame};

const LAN: u16 = 0;
const WAN: u16 = 1;
const REJECTS: &str = "[[rule]]\nname = \"no\"\nto = \"wan\"\nservice = [\"tcp/22\", \"udp/22\"]\naction = \"reject\"\n\
                       [[rule]]\nname = \"out\"\nfrom = \"lan\"\naction = \"allow\"\n\
                       [[rule]]\nname = \"in\"\nfrom = \"wan\"\naction = \"reject\"\n";
const RULES: [&str; 3] = [OUT, ALLOW_ALL, REJECTS];

/// A packet of a conversation: the port that it comes in by, which of the conversation's ways it takes, and the frame.
type Step = (u16, usize, Vec<u8>);

/// The packets of one conversation of a kind, in order; `n` tells it from all others.
fn talk(kind: u8, n: u16) -> Vec<Step> {
    let (c, s) = (format!("10.0.0.5:{}", 1000 + n), String::from("192.0.2.7:80"));
    let server = |text: String| (WAN, 1, frame(&text));
    let client = |text: String| (LAN, 0, frame(&text));
    let (there, back) = (format!("{c} > {s}"), format!("{s} > {c}"));
    match kind {
        // A connection, data both ways, its end; an error about it, and a part of it once more.
        0 | 1 => {
            let data = format!("tcp {there} seq=101 ack=501 len=50");
            let mut steps = vec![
                client(format!("tcp {there} syn seq=100")),
                server(format!("tcp {back} syn,ack seq=500 ack=101")),
                client(format!("tcp {there} seq=101 ack=501")),
                client(data.clone()),
                server(format!("tcp {back} seq=501 ack=151 len=900")),
                (WAN, 2, error("198.51.100.1", "10.0.0.5", (3, 4), &data)),
                server(format!("tcp {back} seq=90000000 ack=151 len=1")),
                client(format!("tcp {there} seq=151 ack=1401")),
                client(data),
            ];
            if kind == 0 {
                steps.extend([
                    client(format!("tcp {there} fin,ack seq=151 ack=1401")),
                    server(format!("tcp {back} fin,ack seq=1401 ack=152")),
                    client(format!("tcp {there} seq=152 ack=1402")),
                    // And another one by the same ports.
                    client(format!("tcp {there} syn seq=70000")),
                    server(format!("tcp {back} syn,ack seq=800000 ack=70001")),
                ]);
            } else {
                steps.extend([
                    server(format!("tcp {back} rst seq=1401")),
                    client(format!("tcp {there} seq=151 ack=1401 len=9")),
                ]);
            }
            steps
        }
        2 => vec![
            client(format!("udp {there} len=10")),
            server(format!("udp {back} len=11")),
            client(format!("udp {there} len=12")),
            (
                WAN,
                2,
                error("198.51.100.1", "10.0.0.5", (3, 3), &format!("udp {there} len=12")),
            ),
            server(format!("udp {back} len=13")),
        ],
        3 => (1..4)
            .flat_map(|seq| {
                [
                    client(format!("icmp 10.0.0.5 > 192.0.2.7 echo-request id={n} seq={seq}")),
                    server(format!("icmp 192.0.2.7 > 10.0.0.5 echo-reply id={n} seq={seq}")),
                    server(format!("icmp 192.0.2.7 > 10.0.0.5 echo-reply id={n} seq=77")),
                ]
            })
            .collect(),
        // What the rules refuse, and what belongs to nothing.
        4 => vec![
            client(format!("tcp 10.0.0.5:{n} > 192.0.2.7:22 syn seq=5")),
            client(format!("udp 10.0.0.5:{n} > 192.0.2.7:22 len=3")),
            client(format!("tcp 10.0.0.9:{n} > 192.0.2.7:80 seq=5 ack=9 len=3")),
            server(format!("tcp 192.0.2.9:{n} > 10.0.0.5:80 syn,ack seq=5 ack=9")),
            server(format!("icmp 192.0.2.9 > 10.0.0.5 echo-reply id={n} seq=1")),
            (
                WAN,
                2,
                error(
                    "198.51.100.1",
                    "10.0.0.5",
                    (3, 4),
                    &format!("udp 10.0.0.5:{n} > 192.0.2.99:9 len=20"),
                ),
            ),
        ],
        // The server's side begins.
        _ => vec![
            server(format!("tcp 192.0.2.9:{n} > 10.0.0.5:80 syn seq=5")),
            client(format!("tcp 10.0.0.5:80 > 192.0.2.9:{n} syn,ack seq=50 ack=6")),
            server(format!("tcp 192.0.2.9:{n} > 10.0.0.5:80 seq=6 ack=51")),
            server(format!("udp 192.0.2.9:{n} > 10.0.0.5:80 len=1")),
        ],
    }
}

/// What one engine makes of a packet: forwarded, and made.
fn alone(node: &mut Node, port: u16, frame: &[u8]) -> Vec<(u16, Vec<u8>)> {
    node.forwarded.clear();
    node.originated.clear();
    node.frame(PORTS[usize::from(port)].0, frame);
    let place = |name: &str| PORTS.iter().position(|(port, ..)| *port == name).unwrap() as u16;
    let all = node.forwarded.iter().chain(&node.originated);
    all.map(|(port, frame)| (place(port), frame.clone())).collect()
}

#[derive(Clone, Debug)]
struct Case {
    rules: usize,
    workers: [u16; 2],
    /// Kinds of the conversations, and the node that each of their ways takes.
    talks: Vec<(u8, [usize; 3])>,
    /// Whose packet is next, a node, and how much news is heard behind it.
    order: Vec<(usize, usize, usize)>,
}

fn case() -> impl Strategy<Value = Case> {
    let talks = prop::collection::vec((0..6_u8, prop::array::uniform3(0..2_usize)), 1..6);
    let order = prop::collection::vec((0..6_usize, 0..2_usize, 0..6_usize), 80);
    (0..RULES.len(), prop::array::uniform2(1..4_u16), talks, order).prop_map(
        |(rules, workers, talks, order)| Case {
            rules,
            workers,
            talks,
            order,
        },
    )
}

/// Runs a case; `next` says by which node a packet comes in, and hears news behind it.
fn run(
    case: &Case,
    next: impl Fn(&mut Both, Option<&[usize; 3]>, usize, (usize, usize)) -> usize,
) -> Result<Both, TestCaseError> {
    let mut both = Both::with_workers(RULES[case.rules], case.workers);
    let mut one = Node::new(RULES[case.rules]);
    let mut talks: Vec<_> = (0..)
        .zip(&case.talks)
        .map(|(n, (kind, ways))| (ways, talk(*kind, 100 + n).into_iter()))
        .collect();
    for (which, node, heard) in &case.order {
        let which = *which % talks.len();
        let (ways, talk) = &mut talks[which];
        let Some((port, way, frame)) = talk.next() else {
            continue;
        };
        let node = next(&mut both, Some(ways), way, (*node, *heard));
        let expected: Vec<_> = alone(&mut one, port, &frame)
            .into_iter()
            .map(|(port, frame)| (node, port, frame))
            .collect();
        let left = both.frame(node, port, &frame);
        prop_assert_eq!(
            left,
            expected,
            "packet {} of talk {} by node {}",
            case.talks[which].0,
            which,
            node
        );
        next(&mut both, None, way, (node, *heard));
    }
    Ok(both)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Each direction by its own node; news come late, and in any mixture with packets.
    #[test]
    fn each_direction_has_its_node_and_news_come_when_they_come(case in case()) {
        let mut both = run(&case, |both, ways, way, (_, heard)| {
            if ways.is_none() {
                if heard > 2 {
                    both.tell(heard % 2);
                }
                for node in (0..heard).map(|n| n % 2) {
                    both.hear(node);
                }
            }
            ways.map_or(0, |ways| ways[way])
        })?;
        both.sync();
        both.assert_equal();
    }

    /// Every packet by any node; what is new is known before the next one comes.
    #[test]
    fn every_packet_takes_any_node(case in case()) {
        let both = run(&case, |both, ways, _, (node, _)| {
            if ways.is_none() {
                both.sync();
            }
            node
        })?;
        both.assert_equal();
        // Each session is somebody's, and the other one's there.
        let whose = |node: usize| -> Vec<String> { both.sessions(node) };
        let swap = |text: &String| match text.split_once(' ') {
            Some((state, "own")) => format!("{state} peer's"),
            Some((state, _)) => format!("{state} own"),
            None => unreachable!(),
        };
        let mut swapped: Vec<_> = whose(1).iter().map(swap).collect();
        swapped.sort();
        prop_assert_eq!(whose(0), swapped);
    }
}
