//! A worker goes to sleep while others put something into its queues and ring.

use std::cell::Cell;
use std::sync::Arc;

use haechi::base::doorbell::{Doorbell, Flag};
use loom::sync::Notify;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use loom::thread;

use crate::{check, failure};

/// The real thing, watched.
#[derive(Default)]
struct Watched(AtomicBool);

/// The same where several announcements meet several sleeps: stores are exchanges. Loom does not know that an exchange comes right
/// behind the value that it returned, and would show an announcer its own `false` after the sleeper's later `true`, which no machine
/// does; of two exchanges it knows the order.
#[derive(Default)]
struct Ordered(Watched);

/// Without the fence.
#[derive(Default)]
struct Unfenced(Watched);

/// With a fence that orders too little.
#[derive(Default)]
struct HalfFenced(Watched);

impl Flag for Watched {
    fn load(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
    fn store(&self, value: bool) {
        self.0.store(value, Ordering::Relaxed);
    }
    fn swap(&self, value: bool) -> bool {
        self.0.swap(value, Ordering::Relaxed)
    }
    fn fence() {
        fence(Ordering::SeqCst);
    }
}

macro_rules! flag {
    ($flag:ty, $store:ident, $fence:block) => {
        impl Flag for $flag {
            fn load(&self) -> bool {
                self.0.load()
            }
            fn store(&self, value: bool) {
                self.0.$store(value);
            }
            fn swap(&self, value: bool) -> bool {
                self.0.swap(value)
            }
            fn fence() $fence
        }
    };
}
flag!(Ordered, swap, { Watched::fence() });
flag!(Unfenced, store, {});
flag!(HalfFenced, store, { fence(Ordering::AcqRel) });

/// How the sleeper sleeps.
#[derive(Clone, Copy)]
enum Sleep {
    /// As it does.
    Right,
    /// It looks into its queues, and only then says that it sleeps.
    LooksFirst,
}

/// How others announce.
#[derive(Clone, Copy)]
enum Announce {
    /// As they do.
    Right,
    /// First, and only then they put something there.
    First,
}

/// What a worker shares with others: its doorbell, its bell (an eventfd: a ring before the sleep ends it at once), and a queue of each of
/// the others, of which only how much was pushed counts (`rte_ring`: a release store of the producer's tail).
struct Shared<F: Flag> {
    doorbell: Doorbell<F>,
    bell: Notify,
    pushed: [AtomicUsize; 2],
}

/// One worker takes `each` things of each of `others`, and sleeps when there are none. A lost wake-up is a sleep that never ends.
fn sleeper<F: Flag + 'static>(others: usize, each: usize, how: Sleep, announce: Announce) {
    let shared = Arc::new(Shared {
        doorbell: Doorbell::<F>::default(),
        bell: Notify::new(),
        pushed: [AtomicUsize::new(0), AtomicUsize::new(0)],
    });
    for other in 0..others {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            for count in 1..=each {
                if let Announce::First = announce {
                    shared.doorbell.announce(|| shared.bell.notify());
                }
                shared.pushed[other].store(count, Ordering::Release);
                if let Announce::Right = announce {
                    shared.doorbell.announce(|| shared.bell.notify());
                }
            }
        });
    }
    let taken = [const { Cell::new(0) }; 2];
    let there = || (0..others).any(|other| shared.pushed[other].load(Ordering::Acquire) > taken[other].get());
    while taken.iter().map(Cell::get).sum::<usize>() < others * each {
        let sleep = || shared.bell.wait();
        match how {
            Sleep::Right => shared.doorbell.sleep(|| !there(), sleep),
            Sleep::LooksFirst if there() => None,
            Sleep::LooksFirst => shared.doorbell.sleep(|| true, sleep),
        };
        for (taken, pushed) in taken.iter().zip(&shared.pushed).take(others) {
            taken.set(pushed.load(Ordering::Acquire));
        }
    }
}

#[test]
fn no_wake_up_is_lost() {
    let once = check(None, || sleeper::<Watched>(1, 1, Sleep::Right, Announce::Right));
    // What is left of one sleep meets the next.
    let twice = check(Some(4), || {
        sleeper::<Ordered>(1, 2, Sleep::Right, Announce::Right)
    });
    let two = check(Some(3), || {
        sleeper::<Ordered>(2, 1, Sleep::Right, Announce::Right)
    });
    println!("{once} orders with one other worker, {twice} where it comes twice, {two} with two");
    assert!(once > 10 && twice > 100 && two > 100);
}

/// What a lost wake-up looks like.
fn is_asleep_for_ever(model: fn()) {
    let why = failure(|| check(Some(3), model));
    assert!(why.contains("deadlock"), "{why}");
}

#[test]
fn the_model_finds_a_missing_fence() {
    is_asleep_for_ever(|| sleeper::<Unfenced>(1, 1, Sleep::Right, Announce::Right));
    is_asleep_for_ever(|| sleeper::<HalfFenced>(1, 1, Sleep::Right, Announce::Right));
}

#[test]
fn the_model_finds_a_last_look_before_the_flag() {
    is_asleep_for_ever(|| sleeper::<Watched>(1, 1, Sleep::LooksFirst, Announce::Right));
}

#[test]
fn the_model_finds_an_announcement_before_the_packet() {
    is_asleep_for_ever(|| sleeper::<Watched>(1, 1, Sleep::Right, Announce::First));
}
