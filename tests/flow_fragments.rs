//! The store of fragments on hold: its bounds, its order, its time, and that no piece is lost.
#![allow(clippy::panic, reason = "a test's way to fail")]

use haechi::base::{Nanos, WorkerId};
use haechi::flow::HashSeed;
use haechi::flow::fragments::{Complete, Course, Extent, FragmentKey, Fragments, Gone, Offered};
use proptest::prelude::*;

fn key(id: u32) -> FragmentKey {
    FragmentKey {
        id,
        ..FragmentKey::default()
    }
}

fn extent(start: u16, end: u16, more: bool) -> Extent {
    Extent { start, end, more }
}

/// A store whose pieces are numbers, with what is gone of it.
struct Bench {
    store: Fragments<u32>,
    gone: Vec<(u32, Gone)>,
    now: Nanos,
}

impl Bench {
    fn new(datagrams: u32, pieces: u32) -> Self {
        Self {
            store: Fragments::new(datagrams, pieces, HashSeed([1, 2, 3, 4])),
            gone: Vec::new(),
            now: Nanos(0),
        }
    }

    fn offer(&mut self, id: u32, extent: Extent, piece: u32) -> Offered<u32> {
        let gone = &mut self.gone;
        self.store.offer(
            self.now,
            &key(id),
            extent,
            piece,
            |a, b| a == b,
            |p, why| gone.push((p, why)),
        )
    }

    fn expire(&mut self, budget: u32) -> bool {
        let gone = &mut self.gone;
        self.store
            .expire(self.now, Nanos(10), budget, |p, why| gone.push((p, why)))
    }

    fn take(&mut self, complete: Complete) -> Vec<u32> {
        let mut taken = Vec::new();
        self.store.take(complete, |piece| taken.push(piece));
        taken
    }
}

#[test]
fn pieces_are_listed_by_place_and_taken_by_arrival() {
    let mut bench = Bench::new(4, 128);
    assert_eq!(bench.offer(1, extent(16, 20, false), 2), Offered::Held);
    assert_eq!(bench.offer(1, extent(0, 8, true), 0), Offered::Held);
    let Offered::Complete(complete) = bench.offer(1, extent(8, 16, true), 1) else {
        panic!("it is complete")
    };
    let store = &bench.store;
    let listed: Vec<_> = store
        .pieces(&complete)
        .map(|(extent, piece)| (extent.start, *piece))
        .collect();
    assert_eq!(listed, [(0, 0), (8, 1), (16, 2)]);
    assert_eq!(
        (
            store.first(&complete),
            store.total(&complete),
            store.count(&complete)
        ),
        (Some(&0), 20, 3)
    );
    assert_eq!(bench.take(complete), [2, 0, 1]);
    assert_eq!(bench.store.held(), 0);
}

#[test]
fn the_oldest_datagram_goes_for_a_new_one() {
    let mut bench = Bench::new(3, 128);
    for id in 0..3 {
        bench.offer(id, extent(0, 8, true), id);
    }
    // Refused, 1 holds nothing and is remembered.
    assert_eq!(
        bench.offer(1, extent(0, 8, true), 7),
        Offered::Refused(7, Gone::Overlap)
    );
    assert_eq!(bench.gone, [(1, Gone::Overlap)]);
    bench.offer(3, extent(0, 8, true), 3);
    assert_eq!(bench.gone[1..], [(0, Gone::Evicted)]);
    assert_eq!(
        bench.offer(1, extent(8, 16, true), 8),
        Offered::Refused(8, Gone::Overlap)
    );
    bench.offer(4, extent(0, 8, true), 4);
    // It was the oldest, and is forgotten.
    assert_eq!(bench.offer(1, extent(8, 16, true), 9), Offered::Held);
    assert_eq!(bench.gone[2..], [(2, Gone::Evicted)]);
    assert_eq!(bench.store.held(), 3);
}

#[test]
fn a_datagram_never_makes_room_for_itself() {
    // One datagram with all the room that there is, another one's piece first.
    let mut bench = Bench::new(8, 1);
    bench.offer(9, extent(0, 8, true), 999);
    for n in 0..128 {
        assert_eq!(
            bench.offer(1, extent(n * 8, n * 8 + 8, true), u32::from(n)),
            Offered::Held
        );
    }
    assert_eq!(
        (bench.store.held(), &bench.gone[..]),
        (128, &[(999, Gone::Evicted)][..])
    );
    // A second one takes its place.
    bench.gone.clear();
    assert_eq!(bench.offer(2, extent(0, 8, true), 1000), Offered::Held);
    assert_eq!((bench.store.held(), bench.gone.len()), (1, 128));
    assert!(
        bench
            .gone
            .iter()
            .zip(0..)
            .all(|(gone, n)| *gone == (n, Gone::Evicted))
    );
}

#[test]
fn time_ends_datagrams_within_a_budget() {
    let mut bench = Bench::new(8, 128);
    for id in 0..4 {
        bench.now = Nanos(u64::from(id));
        bench.offer(id, extent(0, 8, true), id);
        bench.offer(id, extent(8, 16, true), id + 10);
    }
    bench.now = Nanos(9);
    assert!(!bench.expire(100));
    assert_eq!(bench.gone, []);
    bench.now = Nanos(12);
    // Of three that are due, two fit the budget.
    assert!(bench.expire(4));
    assert_eq!(bench.gone.len(), 4);
    assert!(!bench.expire(4));
    let expected = [0, 10, 1, 11, 2, 12].map(|piece| (piece, Gone::TimedOut));
    assert_eq!(bench.gone, expected);
    bench.gone.clear();
    let gone = &mut bench.gone;
    bench.store.clear(|piece| gone.push((piece, Gone::TimedOut)));
    assert_eq!((bench.gone.len(), bench.store.held()), (2, 0));
}

/// A datagram that is put together elsewhere: what is here goes, the first bytes first, and what still comes passes.
#[test]
fn a_datagram_that_is_put_together_elsewhere() {
    let mut bench = Bench::new(4, 200);
    assert_eq!(bench.store.partial(&key(1)), None);
    assert_eq!(bench.offer(1, extent(16, 24, true), 2), Offered::Held);
    assert_eq!(bench.offer(1, extent(8, 16, true), 1), Offered::Held);
    let partial = |bench: &Bench| {
        bench
            .store
            .partial(&key(1))
            .unwrap_or_else(|| panic!("it is there"))
    };
    assert_eq!(bench.store.first_of(&partial(&bench)), None);
    assert_eq!(
        bench.store.pieces_of(&partial(&bench)).collect::<Vec<_>>(),
        [&1, &2]
    );
    let mut gone = vec![];
    let course = Course::Worker(WorkerId(3));
    let some = partial(&bench);
    bench.store.redirect(some, course, |piece| gone.push(piece));
    assert_eq!((gone, bench.store.held()), (vec![1, 2], 0));
    assert_eq!(bench.offer(1, extent(0, 8, true), 0), Offered::Passes(0, course));
    // With the last of its bytes it is over: the next one is another datagram's.
    assert_eq!(
        bench.offer(1, extent(24, 30, false), 3),
        Offered::Passes(3, course)
    );
    assert_eq!(bench.offer(1, extent(0, 8, true), 4), Offered::Held);
    assert_eq!(bench.store.first_of(&partial(&bench)), Some(&4));
    // Or when it is taken back.
    let some = partial(&bench);
    bench.store.redirect(some, Course::Peer(true), |_| {});
    assert_eq!(
        bench.offer(1, extent(8, 16, true), 5),
        Offered::Passes(5, Course::Peer(true))
    );
    bench.store.reclaim(&key(1));
    assert_eq!(bench.offer(1, extent(8, 16, true), 6), Offered::Held);
    // Or after half a second.
    let some = partial(&bench);
    bench.store.redirect(some, Course::Peer(true), |_| {});
    bench.now = Nanos(499_999_999);
    assert_eq!(
        bench.offer(1, extent(16, 24, true), 7),
        Offered::Passes(7, Course::Peer(true))
    );
    bench.now = Nanos(500_000_000);
    assert_eq!(bench.offer(1, extent(16, 24, true), 8), Offered::Held);
    assert_eq!(bench.gone, []);
}

/// Each datagram is said once when it is old enough, the oldest first, whatever has ended meanwhile.
#[test]
fn datagrams_become_ripe_once() {
    let mut bench = Bench::new(8, 200);
    let ripe = |bench: &mut Bench| {
        let now = bench.now;
        let all = std::iter::from_fn(|| {
            let partial = bench.store.next_ripe(now, Nanos(5))?;
            bench.store.pieces_of(&partial).next().copied()
        });
        all.collect::<Vec<_>>()
    };
    for id in 1..=5 {
        bench.now = Nanos(id.into());
        assert_eq!(bench.offer(id, extent(8, 16, true), id), Offered::Held);
    }
    assert_eq!(ripe(&mut bench), [0_u32; 0]);
    bench.now = Nanos(7);
    assert_eq!(ripe(&mut bench), [1, 2]);
    assert_eq!(ripe(&mut bench), [0_u32; 0]);
    // The third is refused, the fourth complete; both before they are ripe.
    assert!(matches!(
        bench.offer(3, extent(0, 9, true), 9),
        Offered::Refused(9, Gone::Overlap)
    ));
    bench.offer(4, extent(0, 8, true), 9);
    let Offered::Complete(complete) = bench.offer(4, extent(16, 17, false), 9) else {
        panic!("all of it is there");
    };
    bench.take(complete);
    bench.offer(6, extent(0, 8, true), 6);
    bench.now = Nanos(100);
    assert_eq!(ripe(&mut bench), [5, 6]);
    bench.expire(u32::MAX);
    bench.offer(7, extent(0, 8, true), 7);
    bench.now = Nanos(200);
    assert_eq!(ripe(&mut bench), [7]);
}

proptest! {
    /// Under any offers no piece is lost or doubled, no bound is passed, and all room comes back.
    #[test]
    fn every_piece_is_somewhere(
        offers in prop::collection::vec((0_u32..6, 0_u16..20, 1_u16..4, any::<bool>(), 0_u64..3), 0..400),
        datagrams in 1_u32..5,
    ) {
        let mut bench = Bench::new(datagrams, 1);
        let (mut accounted, mut offered) = (std::collections::BTreeSet::new(), 0);
        for (id, start, len, more, wait) in offers {
            bench.now = bench.now.plus(Nanos(wait));
            bench.expire(u32::MAX);
            // Some go elsewhere.
            if let Some(ripe) = bench.store.next_ripe(bench.now, Nanos(7)) {
                if wait == 2 {
                    bench.store.redirect(ripe, Course::Peer(false), |piece| assert!(accounted.insert(piece)));
                }
            }
            let piece = offered;
            offered += 1;
            match bench.offer(id, extent(start * 8, (start + len) * 8, more), piece) {
                Offered::Held => {}
                Offered::Complete(complete) => {
                    let count = bench.store.count(&complete);
                    let total = bench.store.total(&complete);
                    let mut end = 0;
                    for (extent, _) in bench.store.pieces(&complete) {
                        prop_assert_eq!(extent.start, end, "side by side");
                        end = extent.end;
                    }
                    prop_assert_eq!(end, total);
                    let taken = bench.take(complete);
                    prop_assert_eq!(taken.len() as u32, count);
                    prop_assert!(taken.is_sorted(), "in order of arrival");
                    for piece in taken {
                        prop_assert!(accounted.insert(piece));
                    }
                }
                Offered::Duplicate(back) | Offered::Refused(back, _) | Offered::Passes(back, _) => {
                    prop_assert_eq!(back, piece);
                    prop_assert!(accounted.insert(piece));
                }
            }
            for (piece, _) in bench.gone.drain(..) {
                prop_assert!(accounted.insert(piece), "gone twice");
            }
            prop_assert_eq!(accounted.len() as u32 + bench.store.held(), offered);
            prop_assert!(bench.store.held() <= 128);
        }
        bench.store.clear(|piece| { accounted.insert(piece); });
        prop_assert_eq!((accounted.len() as u32, bench.store.held()), (offered, 0));
        for n in 0..128 {
            prop_assert_eq!(bench.offer(n % datagrams, extent(n as u16 * 8, n as u16 * 8 + 8, true), n), Offered::Held);
        }
        prop_assert_eq!((bench.store.held(), bench.gone.len()), (128, 0));
    }
}
