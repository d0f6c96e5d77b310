//! What a worker publishes about itself: plain counts on the worker, copied now and then to atomics that control threads
//! read. The copy is guarded by a version (a seqlock), so that a reader gets the counts of one moment or tries again;
//! the worker never waits.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crossbeam_utils::CachePadded;

use crate::base::PortId;
use crate::engine::DropReason;
use crate::flow::SessionState;
use crate::packet::Malformed;

/// How many things can be wrong with a frame.
const MALFORMED: usize = Malformed::ALL.len();

macro_rules! counts {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// A worker's counts at one moment. Those of packets only ever grow.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Counts {
            $($(#[doc = $doc])* pub $name: u64,)*
            /// Packets dropped, by [`DropReason::index`].
            pub drops: [u64; DropReason::COUNT],
            /// Malformed packets by what is wrong with them, in the order of [`Malformed::ALL`]: a breakdown of `drops`.
            pub malformed: [u64; MALFORMED],
            /// Live sessions by [`SessionState::index`]: a breakdown of `sessions`.
            pub states: [u64; SessionState::COUNT],
        }

        const SCALARS: usize = [$(stringify!($name)),*].len();
        const WORDS: usize = SCALARS + DropReason::COUNT + MALFORMED + SessionState::COUNT;

        impl Default for Counts {
            fn default() -> Self {
                Self {
                    $($name: 0,)*
                    drops: [0; DropReason::COUNT],
                    malformed: [0; MALFORMED],
                    states: [0; SessionState::COUNT],
                }
            }
        }

        impl Counts {
            fn words(&self) -> impl Iterator<Item = u64> {
                [$(self.$name),*].into_iter().chain(self.drops).chain(self.malformed).chain(self.states)
            }

            fn from_words(words: &[u64; WORDS]) -> Self {
                let mut words = words.iter().copied();
                let mut next = || words.next().unwrap_or(0);
                Self {
                    $($name: next(),)*
                    drops: std::array::from_fn(|_| next()),
                    malformed: std::array::from_fn(|_| next()),
                    states: std::array::from_fn(|_| next()),
                }
            }
        }
    };
}

counts! {
    /// Packets taken from receive queues.
    rx_packets,
    /// Packets handed to transmit queues.
    tx_packets,
    /// Of `tx_packets`, those that had come in by a port.
    forwarded,
    /// Packets that the engine made.
    originated,
    /// Answers that `reject_rate` or an empty buffer pool kept from being made.
    rejects_suppressed,
    /// SYNs answered by a cookie.
    syn_cookies_sent,
    /// Cookies that came back, and were good.
    syn_cookies_accepted,
    /// SYNs to servers that are not sent again although nothing answered.
    syn_retries_lost,
    /// 1: rules with `syn_protection = "auto"` answer by cookies now. Of a node: on so many workers.
    syn_cookies_engaged,
    /// RSTs for sessions that idled out; in `originated`, too.
    timeout_resets,
    /// Ends of such sessions that got none.
    timeout_resets_missed,
    /// Records that found no room on their way to the logs.
    log_records_lost,
    /// IP fragments received, but for malformed ones.
    fragments,
    /// Datagrams whose fragments were all there.
    fragments_reassembled,
    /// Fragments that wait for the others of their datagrams.
    fragments_held,
    /// Packets in the worker's hands, fragments among them.
    held,
    /// Packets handed to their owners on other workers.
    handed_over,
    /// Packets handed to other workers to be sent, for want of a transmit queue.
    relayed,
    /// Packets that other workers handed over, to be judged or sent.
    taken_over,
    /// Packets that the other node of an HA pair judges.
    redirected_out,
    /// Packets that it has sent to be judged here.
    redirected_in,
    /// Of those, what went back: packets that pass, and answers to them.
    given_back,
    /// What came back from there to be sent.
    returned,
    /// First packets that were held until the other node knows their session.
    deferred,
    /// First packets that did not wait for that, or in vain.
    deferred_late,
    /// Live sessions.
    sessions,
    /// Sessions that there may be now: the worker's lease.
    max_sessions,
    /// Of `sessions`, those of TCP whose handshake is not complete.
    half_open,
    /// Sessions made.
    sessions_created,
    /// Sessions ended.
    sessions_ended,
    /// Sessions that came from other workers with their buckets.
    sessions_moved_in,
    /// Sessions that went to other workers with their buckets.
    sessions_moved_out,
    /// Sessions of the other node of an HA pair that were taken in.
    sessions_synced_in,
    /// Of those, the ones that it said have ended.
    sessions_synced_out,
    /// News of the other node's sessions for which there was no room.
    sync_refused,
    /// Flows whose sessions are on other workers than the owner function says.
    redirects,
    /// Sessions that gave way to others.
    sessions_evicted,
    /// Sessions refused because there was no place to count their source.
    sources_full,
    /// Messages about flows elsewhere for which there was no room.
    redirects_full,
    /// What part of their length timeouts have, in millionths.
    timeout_scale_ppm,
    /// Number of the policy in force.
    generation,
    /// Turns of the loop.
    turns,
    /// Of a million cycles of the last second, those of turns with packets.
    busy_ppm,
    /// Busy cycles for each packet of the last second, in thousandths.
    millicycles_per_packet,
    /// Longest time between two turns in the last ten seconds, deliberate sleeps not counted.
    max_loop_gap_ns,
    /// How far behind session expiry is.
    expiry_lag_ns,
}

impl Counts {
    /// All drops.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Adds `other`'s packets and sessions; what is not a sum (loads, gaps) is left alone.
    pub fn add(&mut self, other: &Self) {
        self.rx_packets += other.rx_packets;
        self.tx_packets += other.tx_packets;
        self.forwarded += other.forwarded;
        self.originated += other.originated;
        self.rejects_suppressed += other.rejects_suppressed;
        self.timeout_resets += other.timeout_resets;
        self.timeout_resets_missed += other.timeout_resets_missed;
        self.log_records_lost += other.log_records_lost;
        self.fragments += other.fragments;
        self.fragments_reassembled += other.fragments_reassembled;
        self.fragments_held += other.fragments_held;
        self.syn_cookies_sent += other.syn_cookies_sent;
        self.syn_cookies_accepted += other.syn_cookies_accepted;
        self.syn_retries_lost += other.syn_retries_lost;
        self.syn_cookies_engaged += other.syn_cookies_engaged;
        self.held += other.held;
        self.handed_over += other.handed_over;
        self.relayed += other.relayed;
        self.taken_over += other.taken_over;
        self.redirected_out += other.redirected_out;
        self.redirected_in += other.redirected_in;
        self.given_back += other.given_back;
        self.returned += other.returned;
        self.deferred += other.deferred;
        self.deferred_late += other.deferred_late;
        self.sessions += other.sessions;
        self.max_sessions += other.max_sessions;
        self.half_open += other.half_open;
        self.sessions_created += other.sessions_created;
        self.sessions_ended += other.sessions_ended;
        self.sessions_moved_in += other.sessions_moved_in;
        self.sessions_moved_out += other.sessions_moved_out;
        self.sessions_synced_in += other.sessions_synced_in;
        self.sessions_synced_out += other.sessions_synced_out;
        self.sync_refused += other.sync_refused;
        self.redirects += other.redirects;
        self.sessions_evicted += other.sessions_evicted;
        self.sources_full += other.sources_full;
        self.redirects_full += other.redirects_full;
        let mine = self.drops.iter_mut().chain(&mut self.malformed);
        let its = other.drops.into_iter().chain(other.malformed);
        for (mine, its) in mine.chain(&mut self.states).zip(its.chain(other.states)) {
            *mine += its;
        }
    }

    /// The account that must come out even on a worker at rest, and in any one moment's counts.
    #[must_use]
    pub fn is_even(&self) -> bool {
        let came = self.rx_packets + self.originated + self.taken_over + self.redirected_in + self.returned;
        let crossed = self.redirected_out + self.given_back;
        let left = self.tx_packets + self.handed_over + self.relayed + crossed + self.dropped();
        came == left + self.held
    }
}

/// What a worker did on one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounts {
    /// Packets taken from its receive queue.
    pub rx_packets: u64,
    /// Packets handed to its transmit queue.
    pub tx_packets: u64,
    /// Packets for this port that were dropped instead (`tx_full`, `link_down`, `frame_too_long`).
    pub tx_dropped: u64,
}

const PORT_WORDS: usize = 3;

impl PortCounts {
    const fn words(self) -> [u64; PORT_WORDS] {
        [self.rx_packets, self.tx_packets, self.tx_dropped]
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        self.rx_packets += other.rx_packets;
        self.tx_packets += other.tx_packets;
        self.tx_dropped += other.tx_dropped;
    }
}

/// One worker's published counts. The worker alone writes.
#[derive(Debug)]
pub struct WorkerStats {
    /// Turns of the loop once more, for those who ask nothing else: a worker that was stopped while it published leaves the rest unreadable.
    turns: CachePadded<AtomicU64>,
    version: CachePadded<AtomicU64>,
    words: CachePadded<[AtomicU64; WORDS]>,
    ports: Box<[CachePadded<[AtomicU64; PORT_WORDS]>]>,
}

impl WorkerStats {
    /// Zeros, for a node of `ports` ports.
    #[must_use]
    pub fn new(ports: usize) -> Self {
        Self {
            turns: CachePadded::default(),
            version: CachePadded::default(),
            words: CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0))),
            ports: std::iter::repeat_with(CachePadded::default).take(ports).collect(),
        }
    }

    /// Publishes `counts`; by the owning worker only.
    pub fn publish(&self, counts: &Counts, ports: impl Iterator<Item = PortCounts>) {
        self.turns.store(counts.turns, Ordering::Relaxed);
        // An odd version says "being written". The fence keeps the stores below from being seen before it; the release
        // store at the end keeps them from being seen after it (Boehm, "Can seqlocks get along with programming
        // language memory models?", MSPC 2012).
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (to, word) in self.words.iter().zip(counts.words()) {
            to.store(word, Ordering::Relaxed);
        }
        for (to, port) in self.ports.iter().zip(ports) {
            for (to, word) in to.iter().zip(port.words()) {
                to.store(word, Ordering::Relaxed);
            }
        }
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// The counts of one moment, with those of every port.
    #[must_use]
    pub fn read(&self) -> (Counts, Vec<PortCounts>) {
        loop {
            let before = self.version.load(Ordering::Acquire);
            let words = std::array::from_fn(|i| self.words[i].load(Ordering::Relaxed));
            let ports = (0..self.ports.len()).map(|i| self.load_port(i)).collect();
            fence(Ordering::Acquire);
            if before % 2 == 0 && self.version.load(Ordering::Relaxed) == before {
                return (Counts::from_words(&words), ports);
            }
            std::thread::yield_now();
        }
    }

    /// Turns of the worker's loop, as last published: moves while it turns, every millisecond or, asleep, ten.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// One port's packets so far, as last published; may be of another moment than the rest.
    #[must_use]
    pub fn port(&self, port: PortId) -> PortCounts {
        if port.index() < self.ports.len() {
            self.load_port(port.index())
        } else {
            PortCounts::default()
        }
    }

    fn load_port(&self, index: usize) -> PortCounts {
        let [rx_packets, tx_packets, tx_dropped] =
            std::array::from_fn(|i| self.ports[index][i].load(Ordering::Relaxed));
        PortCounts {
            rx_packets,
            tx_packets,
            tx_dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn every_field_survives_publication() {
        let numbered: [u64; WORDS] = std::array::from_fn(|i| i as u64 + 1);
        let counts = Counts::from_words(&numbered);
        assert_eq!(counts.words().collect::<Vec<_>>(), numbered);
        let stats = WorkerStats::new(2);
        let ports = [1, 10].map(|n| PortCounts {
            rx_packets: n,
            tx_packets: n + 1,
            tx_dropped: n + 2,
        });
        stats.publish(&counts, ports.into_iter());
        assert_eq!(stats.turns(), counts.turns);
        assert_eq!(stats.read(), (counts, ports.to_vec()));
        assert_eq!(stats.port(PortId(1)), ports[1]);
    }

    #[test]
    fn a_node_s_counts_are_the_sums_of_its_workers() {
        let mut total = Counts::default();
        for factor in [1, 1000] {
            total.add(&Counts::from_words(&std::array::from_fn(|i| {
                factor * (i as u64 + 1)
            })));
        }
        let of_one = Counts::from_words(&std::array::from_fn(|i| 1001 * (i as u64 + 1)));
        // A load or a gap is a worker's own.
        let expected = Counts {
            generation: 0,
            turns: 0,
            busy_ppm: 0,
            millicycles_per_packet: 0,
            max_loop_gap_ns: 0,
            expiry_lag_ns: 0,
            timeout_scale_ppm: 0,
            ..of_one
        };
        assert_eq!(total, expected);
    }

    #[test]
    fn readers_never_see_half_a_publication() {
        let stats = Arc::new(WorkerStats::new(1));
        let writer = std::thread::spawn({
            let stats = Arc::clone(&stats);
            move || {
                for n in 1..=200_000u64 {
                    let counts = Counts::from_words(&[n; WORDS]);
                    let port = PortCounts {
                        rx_packets: n,
                        tx_packets: n,
                        tx_dropped: n,
                    };
                    stats.publish(&counts, std::iter::once(port));
                }
            }
        });
        let mut reads = 0u32;
        while !writer.is_finished() || reads == 0 {
            let (counts, ports) = stats.read();
            assert!(counts.words().all(|w| w == counts.turns), "{counts:?}");
            assert_eq!(ports[0].rx_packets, counts.turns);
            reads += 1;
        }
        writer.join().unwrap();
        assert_eq!(stats.read().0.turns, 200_000);
    }
}
