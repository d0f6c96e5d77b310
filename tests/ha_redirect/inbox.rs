//! What a peer sends that has gone mad.

use haechi::base::{Nanos, PortId};
use haechi::ha::frames::{FramesConfig, Inbox, InboxCounters, JOINED};
use haechi::ha::{Crossed, Crossing, Part};
use proptest::prelude::*;

use super::peers::{LONGEST, frame, frames_config};

const NOW: Nanos = Nanos(1);

fn inbox() -> Inbox {
    Inbox::new(&frames_config(), NOW)
}

fn whole(bytes: &[u8]) -> Crossed<'_> {
    Crossed {
        crossing: Crossing::Known,
        port: PortId(1),
        worker: 0,
        part: None,
        bytes,
    }
}

fn part(id: u32, offset: u16, total: u16, bytes: &[u8]) -> Crossed<'_> {
    Crossed {
        part: Some(Part { id, offset, total }),
        ..whole(bytes)
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let bytes = frame(1, 3000);
    type Case<'a> = (&'a str, Vec<Crossed<'a>>);
    let cases: Vec<Case<'_>> = vec![
        (
            "a port that there is not",
            vec![Crossed {
                port: PortId(2),
                ..whole(&bytes)
            }],
        ),
        (
            "the same bytes twice",
            vec![
                part(1, 0, 3000, &bytes[..1000]),
                part(1, 999, 3000, &bytes[999..]),
            ],
        ),
        (
            "within another part",
            vec![
                part(1, 0, 3000, &bytes[..1000]),
                part(1, 10, 3000, &bytes[10..20]),
            ],
        ),
        (
            "another length",
            vec![
                part(1, 0, 3000, &bytes[..1000]),
                part(1, 1000, 2999, &bytes[1000..2999]),
            ],
        ),
        (
            "another port",
            vec![
                part(1, 0, 3000, &bytes[..1000]),
                Crossed {
                    port: PortId(0),
                    ..part(1, 1000, 3000, &bytes[1000..])
                },
            ],
        ),
        ("longer than any", vec![part(1, 0, LONGEST as u16 + 1, &bytes)]),
        ("beyond its end", vec![part(1, 1, 3000, &bytes)]),
        ("nothing", vec![part(1, 0, 3000, &[])]),
    ];
    for (what, sent) in cases {
        let mut inbox = inbox();
        for crossed in &sent {
            inbox.take(NOW, crossed);
        }
        assert!(inbox.pop().is_none(), "{what}");
        assert_eq!((inbox.counters().invalid, inbox.held()), (1, [0, 0]), "{what}");
    }
    let long = frame(1, LONGEST + 1);
    let mut inbox = inbox();
    inbox.take(NOW, &whole(&long));
    assert_eq!((inbox.pop().is_none(), inbox.counters().invalid), (true, 1));
    // More parts than any frame has.
    for n in 0..20 {
        inbox.take(NOW, &part(1, n, 3000, &bytes[usize::from(n)..usize::from(n) + 1]));
    }
    assert_eq!(inbox.counters().invalid, 2);
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let config = FramesConfig {
        waiting: 8,
        rate: 1_000_000,
        ..frames_config()
    };
    let mut inbox = Inbox::new(&config, NOW);
    let bytes = frame(1, 60);
    for _ in 0..100 {
        inbox.take(NOW, &whole(&bytes));
    }
    let room = 8 + JOINED;
    assert_eq!(inbox.held(), [room, 0]);
    assert_eq!(inbox.counters().no_room, 100 - room as u64);
    // What is given back is used again; what found no room at its worker is lost, and its buffer is not.
    for n in 0..room {
        let buffer = inbox.pop().unwrap();
        if n % 2 == 0 {
            inbox.give_back(buffer);
        } else {
            inbox.lose(buffer);
        }
    }
    assert!(inbox.pop().is_none());
    for _ in 0..room {
        inbox.take(NOW, &whole(&bytes));
    }
    assert_eq!(inbox.held(), [room, 0]);
    let lost = 100 - room as u64 + room as u64 / 2;
    assert_eq!(
        *inbox.counters(),
        InboxCounters {
            frames: 2 * room as u64,
            no_room: lost,
            ..InboxCounters::default()
        }
    );
}

#[test]
fn a_rate_of_nothing_takes_nothing_and_a_new_rate_counts_from_now_on() {
    let bytes = frame(1, 60);
    let mut inbox = Inbox::new(
        &FramesConfig {
            rate: 0,
            ..frames_config()
        },
        NOW,
    );
    inbox.take(NOW, &whole(&bytes));
    assert_eq!((inbox.held(), inbox.counters().refused), ([0, 0], 1));
    inbox.set_rate(100);
    for _ in 0..300 {
        inbox.take(Nanos::from_secs(2), &whole(&bytes));
    }
    assert_eq!((inbox.held(), inbox.counters().refused), ([200, 0], 101));
}

proptest! {
    /// Cut anyhow and in any order, with other packets between: whole again, each once. No buffer is ever lost.
    #[test]
    fn parts_are_joined_whatever_their_order(
        frames in prop::collection::vec((1..4000_usize, prop::collection::vec(1..4000_usize, 0..6)), 1..20),
        order in any::<u64>(),
    ) {
        let config = FramesConfig { rate: 1_000_000, ..frames_config() };
        let mut inbox = Inbox::new(&config, NOW);
        let bytes: Vec<_> = frames.iter().enumerate().map(|(n, (length, _))| frame(n, *length)).collect();
        let mut parts = vec![];
        for (id, (length, cuts)) in frames.iter().enumerate() {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % length).chain([0, *length]).collect();
            cuts.sort_unstable();
            cuts.dedup();
            for pair in cuts.windows(2) {
                parts.push((id, pair[0], pair[1]));
            }
        }
        let mut state = order | 1;
        for n in (1..parts.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            parts.swap(n, (state >> 33) as usize % (n + 1));
        }
        for (id, from, to) in parts {
            inbox.take(NOW, &part(id as u32, from as u16, bytes[id].len() as u16, &bytes[id][from..to]));
        }
        let mut came = vec![];
        while let Some(buffer) = inbox.pop() {
            came.push(buffer.bytes().to_vec());
            inbox.give_back(buffer);
        }
        let mut sent = bytes;
        came.sort();
        sent.sort();
        prop_assert_eq!(came, sent);
        prop_assert_eq!(inbox.held(), [0, 0]);
    }
}
