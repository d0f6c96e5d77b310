//! The queue between two workers: DPDK's ring (one producer, one consumer, `src/dpdk/ring.rs`) against crossbeam's `ArrayQueue`, in
//! elements of 16 bytes (a packet on its way, `runtime::mesh::Handed`).
//!
//! `cargo bench --bench mesh` takes two CPUs; `cargo bench --bench mesh -- 2 3` says which. Figures are nanoseconds an element: of the
//! whole way, with a producer on one CPU and a consumer on the other, both as fast as they can ("two threads"), and of pushing and
//! popping on one CPU alone ("one thread": what it costs in instructions, without a cache line that changes hands). The contestants
//! take turns, round by round, and medians are printed, because a machine's speed drifts.
#![allow(missing_docs, reason = "a program")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark reads the clock, and may stop"
)]

use std::sync::{Arc, Barrier};
use std::time::Instant;

use arrayvec::ArrayVec;
use core_affinity::CoreId;
use crossbeam_queue::ArrayQueue;
use haechi::dpdk::ring::{self, Receiver, Sender};
use haechi::dpdk::{Eal, EalConfig, MAX_BURST};

/// As many as a worker's queue has by default (`[node] handover_queue`).
const CAPACITY: usize = 4096;
/// Elements of one round.
const ELEMENTS: u64 = 2_000_000;
/// Odd, for a median.
const ROUNDS: usize = 11;
const BURSTS: [usize; 3] = [1, 8, 32];

/// As large as a packet on its way, and one that can be checked.
#[repr(C)]
struct Element(u64, u64);

type Burst = ArrayVec<Element, MAX_BURST>;

/// The end that pushes: from the front, as many as there is room for.
trait Push: Send {
    fn push(&mut self, burst: &mut Burst);
}

/// The end that pops: up to `max` behind the end of `burst`.
trait Pop: Send {
    fn pop(&mut self, burst: &mut Burst, max: usize);
}

impl Push for Sender<Element> {
    #[inline]
    fn push(&mut self, burst: &mut Burst) {
        self.push_burst(burst);
    }
}

impl Pop for Receiver<Element> {
    #[inline]
    fn pop(&mut self, burst: &mut Burst, max: usize) {
        self.pop_burst(burst, max);
    }
}

impl Push for Arc<ArrayQueue<Element>> {
    #[inline]
    fn push(&mut self, burst: &mut Burst) {
        let mut pushed = 0;
        while pushed < burst.len() {
            let Element(a, b) = burst[pushed];
            if ArrayQueue::push(self, Element(a, b)).is_err() {
                break;
            }
            pushed += 1;
        }
        burst.drain(..pushed);
    }
}

impl Pop for Arc<ArrayQueue<Element>> {
    #[inline]
    fn pop(&mut self, burst: &mut Burst, max: usize) {
        while burst.len() < max {
            // `pop` on an empty queue fences: the length first, as a worker would that polls it.
            match ArrayQueue::is_empty(self) {
                false => burst.extend(ArrayQueue::pop(self)),
                true => break,
            }
        }
    }
}

/// The next `count` elements into an empty burst.
#[inline]
fn fill(burst: &mut Burst, next: &mut u64, count: usize) {
    for _ in 0..count {
        burst.push(Element(*next, !*next));
        *next += 1;
    }
}

/// Takes what came, and checks the order: what the queue costs shall not be optimised away, nor be wrong.
#[inline]
fn check(burst: &mut Burst, expected: &mut u64) {
    for Element(a, b) in burst.drain(..) {
        assert!(a == *expected && b == !a, "out of order");
        *expected += 1;
    }
}

fn pin(cpu: usize) {
    assert!(
        core_affinity::set_for_current(CoreId { id: cpu }),
        "cannot run on CPU {cpu}"
    );
}

/// A producer on one CPU, a consumer on the other. Nanoseconds an element.
fn two_threads(mut push: impl Push, mut pop: impl Pop, cpus: [usize; 2], size: usize) -> f64 {
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(cpus[0]);
            let (mut burst, mut next) = (Burst::new(), 0);
            start.wait();
            while next < ELEMENTS {
                fill(&mut burst, &mut next, size);
                while !burst.is_empty() {
                    push.push(&mut burst);
                    std::hint::spin_loop();
                }
            }
        });
        let consumer = scope.spawn(|| {
            pin(cpus[1]);
            let (mut burst, mut expected) = (Burst::new(), 0);
            start.wait();
            let began = Instant::now();
            while expected < ELEMENTS {
                pop.pop(&mut burst, size);
                if burst.is_empty() {
                    std::hint::spin_loop();
                }
                check(&mut burst, &mut expected);
            }
            began.elapsed().as_nanos() as f64 / ELEMENTS as f64
        });
        consumer.join().unwrap()
    })
}

/// A burst in and out again, on one CPU. Nanoseconds an element.
fn one_thread(mut push: impl Push, mut pop: impl Pop, cpus: [usize; 2], size: usize) -> f64 {
    pin(cpus[0]);
    let (mut burst, mut next, mut expected) = (Burst::new(), 0, 0);
    let began = Instant::now();
    while expected < ELEMENTS {
        fill(&mut burst, &mut next, size);
        push.push(&mut burst);
        pop.pop(&mut burst, size);
        check(&mut burst, &mut expected);
    }
    began.elapsed().as_nanos() as f64 / ELEMENTS as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The CPUs of the arguments, or the first two that there are.
fn cpus() -> [usize; 2] {
    let mut cpus: Vec<usize> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    if cpus.len() != 2 {
        cpus = core_affinity::get_core_ids()
            .unwrap_or_default()
            .iter()
            .map(|core| core.id)
            .take(2)
            .collect();
    }
    match cpus[..] {
        [a, b] if a != b => [a, b],
        _ => panic!("this takes two CPUs"),
    }
}

fn main() {
    let cpus = cpus();
    let eal = Eal::start(&EalConfig {
        hugepages: false,
        memory_mib: 64,
        ..EalConfig::default()
    })
    .unwrap();
    let ring = || ring::ring::<Element>(&eal, CAPACITY as u32, None).unwrap();
    let array = || {
        let queue = Arc::new(ArrayQueue::<Element>::new(CAPACITY));
        (Arc::clone(&queue), queue)
    };
    println!("ns an element, CPUs {cpus:?}, median of {ROUNDS} alternating rounds (lowest to highest)\n");
    println!("| burst | threads | rte_ring | ArrayQueue | ArrayQueue / rte_ring |");
    println!("| --- | --- | --- | --- | --- |");
    for threads in [2, 1] {
        for size in BURSTS {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..2 * ROUNDS {
                let (first, second) = (ring(), array());
                // Which of the two begins alternates, too.
                if (round % 2 == 0) == (round / 2 % 2 == 0) {
                    ours.push(match threads {
                        2 => two_threads(first.0, first.1, cpus, size),
                        _ => one_thread(first.0, first.1, cpus, size),
                    });
                } else {
                    theirs.push(match threads {
                        2 => two_threads(second.0, second.1, cpus, size),
                        _ => one_thread(second.0, second.1, cpus, size),
                    });
                }
            }
            let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| theirs / ours);
            let ratio = median(ratios.collect());
            let figures = |of: &[f64]| {
                let (low, high) = of
                    .iter()
                    .fold((f64::MAX, 0.0_f64), |(low, high), f| (low.min(*f), high.max(*f)));
                format!("{:.1} ({low:.1} to {high:.1})", median(of.to_vec()))
            };
            println!(
                "| {size} | {threads} | {} | {} | {ratio:.1} |",
                figures(&ours),
                figures(&theirs)
            );
        }
    }
}
