//! The node's RSS: one method, key set and logical table for all ports, those that most of them can do in hardware, and what
//! became of it at each port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use tracing::{info, warn};

use crate::base::WorkerId;
use crate::dpdk::{RssAbilities, RssError, RssSetup};
use crate::flow::HashSeed;
use crate::flow::owner::{
    BUCKETS, BucketTable, KEY_BYTES, KeyError, KeySet, Method, OwnerFunction, Side, Unfit,
};
use crate::flow::proof::{Disagreement, Event, Kind, Kinds, RssState, Wrong};

/// What is asked of a port before the choice.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its side of its pair; `None`: it is in none.
    pub side: Option<Side>,
    /// Receive queues that it will have.
    pub queues: u16,
    /// What its device can do.
    pub abilities: RssAbilities,
}

/// What a port is to do.
#[derive(Clone, Debug)]
pub enum Plan {
    /// The device places packets, once that is proved.
    Hardware {
        /// What it hashes with.
        setup: RssSetup,
        /// What it is to do with the hash.
        table: Arc<BucketTable>,
    },
    /// Software does.
    Software(RssError),
}

impl Default for Plan {
    fn default() -> Self {
        Self::Software(RssError::None)
    }
}

/// The node's choice.
#[derive(Clone, Debug)]
pub struct NodeRss {
    /// Which worker a flow belongs to.
    pub function: Arc<OwnerFunction>,
    /// Who has which bucket at the start.
    pub table: Arc<BucketTable>,
    /// For each port, in the order of the candidates.
    pub plans: Vec<Plan>,
}

/// In the order of preference, where as many ports can.
const METHODS: [Method; 4] = [
    Method::SymmetricToeplitz,
    Method::Sorted,
    Method::TwoSided,
    Method::SymmetricKey,
];

/// Can the port do it, and has each worker a queue and entries of the table there?
fn fits(port: &Candidate, method: Method, workers: u16) -> Result<(), RssError> {
    if workers < 2 {
        return Err(RssError::OneWorker);
    }
    // What no method makes good comes first: it is what is to be told of the port.
    let able = match port.abilities.can(method) {
        Err(RssError::Method(_)) => false,
        other => other.map(|()| method != Method::TwoSided || port.side.is_some())?,
    };
    if port.queues != workers {
        return Err(RssError::Queues {
            queues: port.queues,
            workers,
        });
    }
    // Half as many buckets as the fullest and the emptiest differ by.
    if port.abilities.entries < workers.saturating_mul(2) {
        return Err(RssError::Table(Unfit::TooSmall(port.abilities.entries)));
    }
    if able {
        Ok(())
    } else {
        Err(RssError::Method(method))
    }
}

impl NodeRss {
    /// The method that most ports can do in hardware; if none can do any, the one that is best in software. `random` fills in what
    /// nobody can guess.
    ///
    /// # Errors
    /// Never with keys that are drawn here; a defect else.
    pub fn choose(
        ports: &[Candidate],
        workers: u16,
        random: impl FnMut(&mut [u8; KEY_BYTES]),
    ) -> Result<Self, KeyError> {
        let able = |method: Method| {
            ports
                .iter()
                .filter(move |port| fits(port, method, workers).is_ok())
        };
        // The first of the best.
        let method = METHODS
            .into_iter()
            .rev()
            .max_by_key(|method| able(*method).count())
            .unwrap_or(Method::SymmetricToeplitz);
        let keys = KeySet::random(method, random);
        let function = Arc::new(OwnerFunction::new(method, keys)?);
        let period = able(method)
            .map(|port| usize::from(port.abilities.entries))
            .min()
            .unwrap_or(BUCKETS);
        let table = Arc::new(BucketTable::even_folded(workers, period));
        let plan = |port: &Candidate| match fits(port, method, workers) {
            Ok(()) => Plan::Hardware {
                setup: RssSetup {
                    method,
                    key: *keys.key(port.side.unwrap_or_default()),
                },
                table: Arc::clone(&table),
            },
            Err(why) => Plan::Software(why),
        };
        Ok(Self {
            plans: ports.iter().map(plan).collect(),
            function,
            table,
        })
    }

    /// From the operating system's randomness.
    ///
    /// # Errors
    /// As [`Self::choose`].
    pub fn choose_randomly(ports: &[Candidate], workers: u16) -> Result<Self, KeyError> {
        Self::choose(ports, workers, |key| {
            let words = [HashSeed::random(), HashSeed::random()].map(|seed| seed.0);
            for (bytes, word) in key.chunks_exact_mut(8).zip(words.as_flattened()) {
                bytes.copy_from_slice(&word.to_ne_bytes());
            }
        })
    }

    /// The lines of the log about the node: what it hashes with, and what is wrong with that.
    #[must_use]
    pub fn describe(&self) -> (String, Option<String>) {
        let (method, keys) = (self.function.method(), self.function.keys());
        let hardware = self
            .plans
            .iter()
            .filter(|plan| matches!(plan, Plan::Hardware { .. }))
            .count();
        let line = format!(
            "RSS: {}, hashes of rank {} of 32; {} of {} ports can do it in hardware",
            method.name(),
            keys.rank(method),
            hardware,
            self.plans.len()
        );
        (line, keys.weakness(method))
    }

    /// Says so in the log.
    pub fn log(&self) {
        let (line, weakness) = self.describe();
        info!("{line}");
        if let Some(weakness) = weakness {
            warn!("{weakness}");
        }
    }
}

/// What the workers and the control threads know in common of a port's RSS, by relaxed atomics. Each worker that polls a queue of it
/// has a [`crate::flow::Proof`] of its own, of the kinds that are [`PortRss::claimed`], and reports here what happens to it.
#[derive(Debug, Default)]
pub struct PortRss {
    /// [`Kinds`]; none: software.
    claimed: AtomicU16,
    queues: AtomicU16,
    /// Queues that are proven.
    proven: AtomicU16,
    /// One of the workers is about to say, or has said, what it saw.
    taken: AtomicBool,
    /// [`Disagreement`] and worker, see `pack`; 0: none.
    mismatch: AtomicU64,
    /// The two hashes of the disagreement.
    hashes: AtomicU64,
}

/// Above what [`pack`] says: there is a disagreement.
const SAID: u64 = 1 << 63;

impl PortRss {
    /// The port was set up, and no worker polls it yet: with `queues` queues whose device claims to hash these kinds; none: by
    /// software.
    pub fn set_up(&self, claimed: Kinds, queues: u16) {
        self.claimed.store(claimed.bits(), Ordering::Relaxed);
        self.queues.store(queues, Ordering::Relaxed);
        self.proven.store(0, Ordering::Relaxed);
        self.mismatch.store(0, Ordering::Relaxed);
        self.taken.store(false, Ordering::Release);
    }

    /// What a worker that gets a queue of the port begins its proof with.
    #[must_use]
    pub fn claimed(&self) -> Kinds {
        Kinds::from_bits(self.claimed.load(Ordering::Relaxed))
    }

    /// Has a packet on any queue disproved it? For workers, once a burst: their own proof is void then.
    #[inline(always)]
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        self.mismatch.load(Ordering::Relaxed) != 0
    }

    /// A worker's proof of its queue has come to this.
    pub fn report(&self, worker: WorkerId, event: Event) {
        match event {
            Event::Nothing | Event::KindProven(_) => {}
            Event::Proven => {
                self.proven.fetch_add(1, Ordering::Relaxed);
            }
            // The first to see one says it.
            Event::Mismatch(what) => {
                if !self.taken.swap(true, Ordering::AcqRel) {
                    let (said, hashes) = pack(worker, what);
                    self.hashes.store(hashes, Ordering::Relaxed);
                    self.mismatch.store(said, Ordering::Release);
                }
            }
        }
    }

    /// The tables change, and with them every worker's proof begins anew ([`crate::flow::Proof::table_changes`]). To be called before
    /// any worker is told.
    pub fn table_changes(&self) {
        self.proven.store(0, Ordering::Relaxed);
    }

    /// What the port is: what its least trusted queue is.
    #[must_use]
    pub fn state(&self) -> RssState {
        if self.claimed().is_empty() {
            RssState::Software
        } else if self.is_mismatch() {
            RssState::Mismatch
        } else if self.proven.load(Ordering::Relaxed) >= self.queues.load(Ordering::Relaxed) {
            RssState::Proven
        } else {
            RssState::Unproven
        }
    }

    /// Which worker saw what.
    #[must_use]
    pub fn mismatch(&self) -> Option<(WorkerId, Disagreement)> {
        let said = self.mismatch.load(Ordering::Acquire);
        unpack(said, self.hashes.load(Ordering::Relaxed))
    }
}

fn pack(worker: WorkerId, what: Disagreement) -> (u64, u64) {
    let (wrong, first, second) = match what.wrong {
        Wrong::Hash { device, software } => (0, device, software),
        Wrong::Queue { hash } => (1, hash, 0),
        Wrong::Missing => (2, 0, 0),
    };
    let said = SAID | (u64::from(worker.0) << 16) | (wrong << 8) | what.kind as u64;
    (said, (u64::from(first) << 32) | u64::from(second))
}

fn unpack(said: u64, hashes: u64) -> Option<(WorkerId, Disagreement)> {
    let kind = *Kind::ALL.get((said & 0xff) as usize)?;
    let (first, second) = ((hashes >> 32) as u32, hashes as u32);
    let wrong = match (said >> 8) & 0xff {
        0 => Wrong::Hash {
            device: first,
            software: second,
        },
        1 => Wrong::Queue { hash: first },
        _ => Wrong::Missing,
    };
    (said & SAID != 0).then_some((WorkerId((said >> 16) as u16), Disagreement { kind, wrong }))
}

/// Puts a port's news into the log, each once. `told`: what was told last.
pub fn tell(name: &str, rss: &PortRss, told: &mut RssState) {
    let state = rss.state();
    if state == *told {
        return;
    }
    *told = state;
    match state {
        RssState::Proven => info!(port = name, "RSS is proven: the device places packets"),
        RssState::Mismatch => {
            let (worker, what) = rss.mismatch().map_or_else(
                || (0, "a packet disagreed".to_owned()),
                |(worker, what)| (worker.0, what.to_string()),
            );
            warn!(
                port = name,
                "RSS MISMATCH on the queue of worker {worker}: {what}. The device does not do what it was told: software places \
                 this port's packets from now on, until it is set up again"
            );
        }
        RssState::Software | RssState::Unproven => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(side: Side, change: impl Fn(&mut RssAbilities)) -> Candidate {
        let mut abilities = RssAbilities::default();
        abilities.key_bytes = 40;
        abilities.entries = 128;
        abilities.kinds = Kinds::ALL;
        abilities.tells_hash = true;
        change(&mut abilities);
        Candidate {
            side: Some(side),
            queues: 2,
            abilities,
        }
    }

    fn choose(ports: &[Candidate]) -> NodeRss {
        NodeRss::choose_randomly(ports, 2).unwrap()
    }

    fn hardware(rss: &NodeRss) -> Vec<bool> {
        let hardware = |plan: &Plan| matches!(plan, Plan::Hardware { .. });
        rss.plans.iter().map(hardware).collect()
    }

    #[test]
    fn what_most_ports_can_do_is_chosen() {
        let symmetric = |side| {
            candidate(side, |a| {
                a.plain = true;
                a.symmetric = true;
            })
        };
        let sorted = |side| {
            candidate(side, |a| {
                a.plain = true;
                a.sorted = true;
            })
        };
        let plain = |side| candidate(side, |a| a.plain = true);
        let (lan, wan) = (Side::Lan, Side::Wan);

        let rss = choose(&[symmetric(lan), symmetric(wan)]);
        assert_eq!(rss.function.method(), Method::SymmetricToeplitz);
        assert_eq!(hardware(&rss), [true, true]);
        let rss = choose(&[sorted(lan), sorted(wan)]);
        assert_eq!(rss.function.method(), Method::Sorted);
        let rss = choose(&[symmetric(lan), sorted(wan)]);
        assert_eq!(rss.function.method(), Method::TwoSided);
        assert_eq!(hardware(&rss), [true, true]);
        let (Plan::Hardware { setup: a, .. }, Plan::Hardware { setup: b, .. }) =
            (&rss.plans[0], &rss.plans[1])
        else {
            panic!("{:?}", rss.plans)
        };
        assert_ne!(a.key, b.key);
        let rss = choose(&[symmetric(lan), plain(wan), plain(lan)]);
        assert_eq!(rss.function.method(), Method::TwoSided);

        // A port that is in no pair has no side.
        let routed = Candidate {
            side: None,
            ..plain(lan)
        };
        let rss = choose(&[routed.clone(), plain(wan), routed]);
        assert_eq!(rss.function.method(), Method::SymmetricKey);
        assert_eq!(hardware(&rss), [true, true, true]);
        let (line, weakness) = rss.describe();
        assert!(
            line.contains("symmetric key, hashes of rank 16 of 32; 3 of 3"),
            "{line}"
        );
        assert!(weakness.is_some_and(|w| w.contains("rank 16")));
    }

    #[test]
    fn a_port_that_cannot_is_for_software() {
        let plain = |side| candidate(side, |a| a.plain = true);
        let mut few = plain(Side::Wan);
        few.queues = 1;
        let rss = choose(&[plain(Side::Lan), few]);
        assert_eq!(hardware(&rss), [true, false]);
        assert!(
            matches!(&rss.plans[1], Plan::Software(why) if why.to_string() == "it has 1 receive queue(s) for 2 workers")
        );
        // What keeps all of them from it, and not what the method that software has then would take.
        let lone = Candidate {
            queues: 1,
            ..plain(Side::Lan)
        };
        let rss = choose(&[lone.clone(), lone]);
        assert_eq!(rss.function.method(), Method::SymmetricToeplitz);
        assert!(rss.plans.iter().all(|plan| matches!(
            plan,
            Plan::Software(RssError::Queues {
                queues: 1,
                workers: 2
            })
        )));
        let odd = candidate(Side::Wan, |a| {
            a.plain = true;
            a.entries = 100;
        });
        let rss = choose(&[plain(Side::Lan), odd]);
        assert!(matches!(&rss.plans[1], Plan::Software(why) if why.to_string().contains("100 entries")));

        // None at all: what is best in software, with a key that is strong.
        let none = candidate(Side::Lan, |_| {});
        let rss = choose(&[none.clone(), none]);
        assert_eq!(rss.function.method(), Method::SymmetricToeplitz);
        assert_eq!(hardware(&rss), [false, false]);
        assert_eq!(rss.describe().1, None);
    }

    #[test]
    fn the_logical_table_fits_the_smallest_device_table() {
        let ports: Vec<Candidate> = [16u16, 64, 512, 2048]
            .into_iter()
            .map(|entries| {
                let mut port = candidate(Side::Lan, |a| a.plain = true);
                port.abilities.entries = entries;
                port.queues = 3;
                port
            })
            .collect();
        let rss = NodeRss::choose_randomly(&ports, 3).unwrap();
        assert_eq!(hardware(&rss), [true; 4]);
        assert_eq!(rss.table.period(), 16);
        for port in &ports {
            assert!(rss.table.device_entries(port.abilities.entries).is_ok());
        }
    }

    #[test]
    fn a_port_is_what_its_queues_are() {
        let rss = PortRss::default();
        assert_eq!(rss.state(), RssState::Software);
        rss.set_up(Kinds::ALL, 2);
        assert_eq!(rss.state(), RssState::Unproven);
        rss.report(WorkerId(0), Event::Proven);
        assert_eq!(rss.state(), RssState::Unproven);
        rss.report(WorkerId(1), Event::Proven);
        assert_eq!(rss.state(), RssState::Proven);
        rss.table_changes();
        assert_eq!(rss.state(), RssState::Unproven);
        let wrongs = [
            Wrong::Hash {
                device: 0xffff_ffff,
                software: 1,
            },
            Wrong::Queue { hash: 0x8000_0001 },
            Wrong::Missing,
        ];
        for (wrong, kind) in wrongs
            .into_iter()
            .zip([Kind::Ipv4Tcp, Kind::Ipv6Icmp, Kind::TaggedIpv6Icmp])
        {
            rss.set_up(Kinds::ALL, 2);
            assert_eq!((rss.state(), rss.mismatch()), (RssState::Unproven, None));
            let what = Disagreement { kind, wrong };
            rss.report(WorkerId(7), Event::Mismatch(what));
            // The second one changes nothing.
            let other = Disagreement {
                kind: Kind::Ipv4Udp,
                wrong: Wrong::Missing,
            };
            rss.report(WorkerId(1), Event::Mismatch(other));
            rss.report(WorkerId(1), Event::Proven);
            assert_eq!(rss.mismatch(), Some((WorkerId(7), what)));
            assert!(rss.is_mismatch());
            assert_eq!(rss.state(), RssState::Mismatch);
        }
    }
}
