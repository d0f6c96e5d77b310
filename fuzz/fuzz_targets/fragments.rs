//! Any pieces of a few datagrams through the fragment store, beside a list that is searched from end to end: nothing panics,
//! every piece has one fate, no two that are held overlap, and a datagram is complete when all of it is there, and only then.
//!
//! The input is a list of steps of four bytes: what to do, the datagram, and the piece's first byte and length.
#![no_main]

use std::collections::BTreeMap;

use haechi::base::Nanos;
use haechi::flow::HashSeed;
use haechi::flow::fragments::{Extent, FragmentKey, Fragments, Gone, MAX_PIECES, Offered};
use libfuzzer_sys::fuzz_target;

const DATAGRAMS: u32 = 4;
const TIMEOUT: Nanos = Nanos(15_000_000_000);

/// A piece: its number, in order of arrival, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    number: u32,
    content: u8,
}

/// All pieces that are held, by number.
type Held = BTreeMap<u32, (u8, Extent, u8)>;

fn forget(held: &mut Held, piece: Piece) -> u8 {
    held.remove(&piece.number)
        .expect("a piece that was held has one fate")
        .0
}

fn of(held: &Held, key: u8) -> Vec<(u32, Extent, u8)> {
    let mut pieces: Vec<_> = held
        .iter()
        .filter(|(_, (of, ..))| *of == key)
        .map(|(number, (_, extent, content))| (*number, *extent, *content))
        .collect();
    pieces.sort_by_key(|(_, extent, _)| extent.start);
    pieces
}

/// Are these all bytes of a datagram whose end is known?
fn is_whole(pieces: &[(u32, Extent, u8)]) -> bool {
    let mut next = 0;
    for (_, extent, _) in pieces {
        if extent.start != next {
            return false;
        }
        next = extent.end;
    }
    pieces.last().is_some_and(|(_, extent, _)| !extent.more)
}

fn check_held(held: &Held, key: u8) {
    for pair in of(held, key).windows(2) {
        assert!(pair[0].1.end <= pair[1].1.start && pair[0].1.more, "{pair:?}");
    }
}

fn take(store: &mut Fragments<Piece>, held: &mut Held, key: u8, complete: haechi::flow::fragments::Complete) {
    let expected = of(held, key);
    assert!(is_whole(&expected), "complete, with a hole: {expected:?}");
    let found: Vec<_> = store
        .pieces(&complete)
        .map(|(extent, piece)| (piece.number, extent, piece.content))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(store.count(&complete) as usize, expected.len());
    assert_eq!(
        store.total(&complete),
        expected.last().map_or(0, |(_, extent, _)| extent.end)
    );
    assert_eq!(
        store.first(&complete).map(|p| p.number),
        expected.first().map(|p| p.0)
    );
    let mut last = None;
    store.take(complete, |piece| {
        assert!(last < Some(piece.number), "not in order of arrival");
        last = Some(piece.number);
        assert_eq!(forget(held, piece), key);
    });
    assert!(of(held, key).is_empty());
}

fuzz_target!(|data: &[u8]| {
    let mut store = Fragments::new(DATAGRAMS, MAX_PIECES as u32, HashSeed([1, 2, 3, 4]));
    let mut held = Held::new();
    let mut now = Nanos::from_secs(1);
    for (number, step) in (0..).zip(data.chunks_exact(4)) {
        let [what, key, start, length] = *step else {
            continue;
        };
        match what & 15 {
            15 => {
                now = now.plus(Nanos::from_secs(u64::from(start & 7)));
                store.expire(now, TIMEOUT, u32::from(length), |piece, why| {
                    assert_eq!(why, Gone::TimedOut);
                    forget(&mut held, piece);
                });
            }
            14 if length == 0 => {
                store.clear(|piece| {
                    forget(&mut held, piece);
                });
                assert!(held.is_empty());
            }
            _ => {
                let start = u16::from(start) * 8 + if what & 16 == 0 { 0 } else { 63_000 };
                let more = what & 32 == 0;
                let length = u16::from(length) * if more { 8 } else { 1 } + 1;
                let extent = Extent {
                    start,
                    end: start.saturating_add(length),
                    more,
                };
                if extent.start >= extent.end {
                    continue;
                }
                let key = key & 7;
                let id = FragmentKey {
                    id: key.into(),
                    protocol: 17,
                    ..FragmentKey::default()
                };
                let piece = Piece {
                    number,
                    content: what >> 6,
                };
                let before = of(&held, key);
                let offered = store.offer(
                    now,
                    &id,
                    extent,
                    piece,
                    |a, b| a.content == b.content,
                    |piece, _| {
                        forget(&mut held, piece);
                    },
                );
                match offered {
                    Offered::Held => {
                        held.insert(number, (key, extent, piece.content));
                        assert!(!is_whole(&of(&held, key)), "complete, and not noticed");
                    }
                    Offered::Complete(complete) => {
                        held.insert(number, (key, extent, piece.content));
                        take(&mut store, &mut held, key, complete);
                    }
                    Offered::Duplicate(back) => {
                        assert_eq!(back, piece);
                        assert!(before.iter().any(|(_, e, c)| *e == extent && *c == piece.content));
                    }
                    Offered::Passes(..) => panic!("nothing is put together elsewhere"),
                    Offered::Refused(back, _) => {
                        assert_eq!(back, piece);
                        assert!(of(&held, key).is_empty(), "refused, and yet held");
                    }
                }
                check_held(&held, key);
            }
        }
        assert_eq!(store.held() as usize, held.len());
        assert!(held.len() <= MAX_PIECES);
    }
    now = now.plus(TIMEOUT);
    while store.expire(now, TIMEOUT, 16, |piece, _| {
        forget(&mut held, piece);
    }) {}
    assert!(held.is_empty() && store.held() == 0, "something stays for ever");
});
