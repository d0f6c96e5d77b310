//! A node of a pair with a model of sessions in the place of the engine: maps, journals, several workers, and what the HA thread does
//! between them and its [`Peer`]. And two of them over [`Net`].
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, HashMap, VecDeque};

use haechi::base::Nanos;
use haechi::flow::image::{BUCKETS, Birth, Bucket, BucketSet, DigestKey, Image};
use haechi::flow::{FlowKey, KeyClass, SessionState};
use haechi::ha::peer::{Event, Peer, PeerConfig, Status, Sums};
use haechi::ha::seal::PairKey;
use haechi::ha::stream::ITEMS;
use haechi::ha::{NodeId, Outgoing, Path, Role, Update};

use super::ha_net::Net;

pub const A: usize = 0;
pub const B: usize = 1;
/// Workers of each node: their numbers differ.
const WORKERS: [usize; 2] = [2, 3];
/// Ends of sessions that a journal remembers.
const GONES: usize = 48;

/// A session of the node's.
struct Own {
    image: Image,
    dirty: bool,
    /// The digest of what the peer was last told.
    told: Option<u64>,
}

enum Entry {
    Session(u64),
    Gone {
        key: FlowKey,
        birth: Birth,
        handle: u64,
        told: u64,
    },
}

#[derive(Default)]
struct Worker {
    own: BTreeMap<u64, Own>,
    journal: VecDeque<Entry>,
    gones: usize,
    /// Of a cut: entries still to be offered; `None`: it has answered, or there is no cut.
    left: Option<usize>,
    answered: bool,
    /// Of what the peer was told, by bucket.
    sums: Vec<u64>,
}

impl Worker {
    fn new() -> Self {
        Self {
            sums: vec![0; BUCKETS],
            ..Self::default()
        }
    }

    fn add(&mut self, bucket: Bucket, digest: u64) {
        let sum = &mut self.sums[usize::from(bucket.0)];
        *sum = sum.wrapping_add(digest);
    }

    fn mark(&mut self, handle: u64) {
        if let Some(own) = self.own.get_mut(&handle).filter(|own| !own.dirty) {
            own.dirty = true;
            self.journal.push_back(Entry::Session(handle));
        }
    }
}

/// A session of the peer's.
#[derive(Clone, Copy)]
pub struct Replica {
    pub image: Image,
    /// Which of the peer's starts told of it.
    start: u64,
    /// When it was last named.
    stamp: u64,
}

pub struct Node {
    pub peer: Peer,
    n: usize,
    digest_key: DigestKey,
    /// Its clock reads 0 at this time.
    origin: Nanos,
    workers: Vec<Worker>,
    pub replicas: HashMap<FlowKey, Replica>,
    /// The bucket walk under way: which resync, and whose sessions are left.
    walk: Option<(u32, Vec<(usize, u64)>)>,
    cut: Option<u64>,
    resync: Option<(u32, BucketSet, u64)>,
    stamp: u64,
    peer_start: u64,
    sync_up: bool,
    next_handle: u64,
    pub witness: bool,
    pub events: Vec<Event>,
    /// Updates that were taken in.
    pub imported: u64,
}

/// What makes the `id`th flow's key; both ends in their order.
pub fn key_of(id: u32) -> FlowKey {
    let mut low = [0; 16];
    low[10..12].fill(0xff);
    let mut high = low;
    low[12..].copy_from_slice(&(0x0a00_0000 | id).to_be_bytes());
    // The higher one as machines compare them, which is not as people do.
    high[12..].copy_from_slice(&0xc0ff_ffff_u32.to_be_bytes());
    FlowKey {
        low,
        high,
        low_port: 1024 + (id % 50_000) as u16,
        high_port: 443,
        protocol: 6,
        class: KeyClass::Ports,
        ..FlowKey::default()
    }
}

/// How often a session has changed, as its image says.
fn version(image: &Image) -> u32 {
    image.tcp[0].end
}

impl Node {
    fn new(n: usize, config: PeerConfig, key: &PairKey, now: Nanos, random: [u8; 32]) -> Self {
        let origin = Nanos(now.0.saturating_sub(1_000_000 * (1 + n as u64)));
        Self {
            peer: Peer::new(config, key, now.since(origin), random),
            n,
            digest_key: key.digest_key(),
            origin,
            workers: (0..WORKERS[n]).map(|_| Worker::new()).collect(),
            replicas: HashMap::new(),
            walk: None,
            cut: None,
            resync: None,
            stamp: 0,
            peer_start: 0,
            sync_up: false,
            next_handle: 1,
            witness: true,
            events: Vec::new(),
            imported: 0,
        }
    }

    fn local(&self, now: Nanos) -> Nanos {
        now.since(self.origin)
    }

    /// Opens a session, or changes it.
    pub fn touch(&mut self, id: u32, birth: u64) {
        let key = key_of(id);
        let at = id as usize % self.workers.len();
        let worker = &mut self.workers[at];
        let known = worker
            .own
            .iter()
            .find(|(_, own)| own.image.key == key)
            .map(|(h, _)| *h);
        let handle = known.unwrap_or(self.next_handle);
        self.next_handle += u64::from(known.is_none());
        let own = worker.own.entry(handle).or_insert_with(|| Own {
            image: Image {
                key,
                birth: Birth(birth),
                state: SessionState::Established,
                ..Image::default()
            },
            dirty: false,
            told: None,
        });
        own.image.tcp[0].end += 1;
        if self.sync_up {
            worker.mark(handle);
        }
    }

    /// Ends one, if it is there. A journal that has no room for it makes a gap.
    pub fn end(&mut self, now: Nanos, id: u32) {
        let key = key_of(id);
        let at = id as usize % self.workers.len();
        let worker = &mut self.workers[at];
        let Some(handle) = worker
            .own
            .iter()
            .find(|(_, own)| own.image.key == key)
            .map(|(h, _)| *h)
        else {
            return;
        };
        let Some(own) = worker.own.remove(&handle) else {
            return;
        };
        // Only sessions that the peer was told of.
        let Some(told) = own.told else {
            return;
        };
        if worker.gones < GONES {
            worker.gones += 1;
            worker.journal.push_back(Entry::Gone {
                key,
                birth: own.image.birth,
                handle,
                told,
            });
            return;
        }
        worker.add(self.digest_key.bucket(&key), told.wrapping_neg());
        let local = self.local(now);
        self.peer.gap(local);
    }

    pub fn sessions(&self) -> usize {
        self.workers.iter().map(|worker| worker.own.len()).sum()
    }

    pub fn status(&self, now: Nanos) -> Status {
        self.peer.status(self.local(now))
    }

    pub fn role(&self) -> Role {
        self.peer.role()
    }

    pub fn in_sync(&self, now: Nanos) -> bool {
        self.peer.in_sync(self.local(now))
    }

    pub fn with<R>(&mut self, now: Nanos, act: impl FnOnce(&mut Peer, Nanos) -> R) -> R {
        let local = self.local(now);
        act(&mut self.peer, local)
    }

    fn next_timeout(&self, now: Nanos) -> Nanos {
        let timeout = self.origin.plus(self.peer.next_timeout());
        // Its walk is paced.
        let pace = now.plus(Nanos::MILLISECOND);
        if self.walk.is_some() {
            timeout.min(pace)
        } else {
            timeout
        }
    }

    /// One turn of the HA thread.
    fn turn(&mut self, now: Nanos, net: &mut Net) {
        let local = self.local(now);
        if self.peer.next_timeout() <= local {
            self.peer.handle_timeout(local);
        }
        self.take_events(local);
        self.offer(local);
        let mut out = Vec::new();
        while let Some(path) = self.peer.poll_transmit(local, &mut out) {
            net.send(now, self.n, path, &out);
            self.take_events(local);
            self.offer(local);
        }
        self.check_bounds(local);
    }

    fn check_bounds(&self, local: Nanos) {
        let status = self.peer.status(local);
        assert!(
            status.held <= PENDING + WINDOW as usize * ITEMS,
            "{} updates held",
            status.held
        );
        assert!(status.events <= EVENTS, "{} events", status.events);
    }

    fn take_events(&mut self, local: Nanos) {
        while let Some(event) = self.peer.poll_event() {
            self.take_event(local, event);
        }
    }

    fn take_event(&mut self, local: Nanos, event: Event) {
        match &event {
            Event::Update(update) => {
                self.import(update);
                return;
            }
            Event::Again { worker, handle } => self.workers[usize::from(*worker)].mark(*handle),
            Event::Sync { up } => self.set_sync(*up),
            Event::PeerStarted => {
                self.peer_start += 1;
                self.resync = None;
            }
            Event::AskWitness { ask } if self.witness => self.peer.witness_answered(local, *ask),
            Event::ResyncBegin { resync, buckets, .. } => {
                self.stamp += 1;
                self.resync = Some((*resync, *buckets, self.stamp));
            }
            Event::ResyncEnd { resync } => {
                let (begun, buckets, stamp) = self.resync.take().expect("a resync begins before it ends");
                assert_eq!(begun, *resync);
                let key = self.digest_key;
                self.replicas
                    .retain(|flow, replica| !buckets.has(key.bucket(flow)) || replica.stamp >= stamp);
            }
            Event::Digests { barrier } => {
                let sums = self.replica_sums();
                self.peer.answer_digests(local, *barrier, &sums);
            }
            Event::Cut { round } => {
                self.cut = Some(*round);
                for worker in &mut self.workers {
                    worker.left = Some(worker.journal.len());
                    worker.answered = false;
                }
            }
            Event::Walk { resync, buckets } => {
                let mut all = Vec::new();
                for (w, worker) in self.workers.iter().enumerate() {
                    let inside = |own: &Own| buckets.has(self.digest_key.bucket(&own.image.key));
                    all.extend(
                        worker
                            .own
                            .iter()
                            .filter(|(_, own)| inside(own))
                            .map(|(h, _)| (w, *h)),
                    );
                }
                self.walk = Some((*resync, all));
            }
            _ => {}
        }
        self.events.push(event);
    }

    /// The peer is there, or it is not: then nothing is remembered for it.
    fn set_sync(&mut self, up: bool) {
        self.sync_up = up;
        (self.walk, self.cut) = (None, None);
        for worker in &mut self.workers {
            worker.journal.clear();
            (worker.gones, worker.left, worker.answered) = (0, None, false);
            worker.sums.fill(0);
            for own in worker.own.values_mut() {
                (own.dirty, own.told) = (false, None);
            }
        }
    }

    fn replica_sums(&self) -> Sums {
        let mut sums = [0_u64; BUCKETS];
        for (flow, replica) in &self.replicas {
            let sum = &mut sums[usize::from(self.digest_key.bucket(flow).0)];
            *sum = sum.wrapping_add(replica.image.digest(&self.digest_key));
        }
        sums
    }

    fn import(&mut self, update: &Update) {
        self.imported += 1;
        match update {
            Update::Session(image) => {
                let new = Replica {
                    image: *image,
                    start: self.peer_start,
                    stamp: self.stamp,
                };
                if let Some(old) = self
                    .replicas
                    .insert(image.key, new)
                    .filter(|old| old.start == new.start)
                {
                    let before = (old.image.birth, version(&old.image));
                    assert!(
                        before <= (image.birth, version(image)),
                        "a session moved backwards: {before:?}, {image:?}"
                    );
                }
            }
            // Of no node of this model.
            Update::Station(_) => {}
            Update::Gone { key, birth } => {
                if self
                    .replicas
                    .get(key)
                    .is_some_and(|old| old.image.birth <= *birth)
                {
                    self.replicas.remove(key);
                }
            }
        }
    }

    fn offer(&mut self, local: Nanos) {
        for w in 0..self.workers.len() {
            while !self.workers[w].answered {
                if self.workers[w].left == Some(0) {
                    self.workers[w].answered = true;
                    self.workers[w].left = None;
                } else if !self.offer_one(local, w) {
                    break;
                }
            }
        }
        if self.cut.is_some() && self.workers.iter().all(|worker| worker.answered) {
            let mut sums = [0_u64; BUCKETS];
            for worker in &mut self.workers {
                worker.answered = false;
                for (sum, own) in sums.iter_mut().zip(&worker.sums) {
                    *sum = sum.wrapping_add(*own);
                }
            }
            let round = self.cut.take().expect("a cut");
            self.peer.cut(local, round, &sums);
        }
        self.offer_walked(local);
    }

    /// The oldest entry of a journal, if it is taken.
    fn offer_one(&mut self, local: Nanos, w: usize) -> bool {
        let worker = &mut self.workers[w];
        let (update, handle) = match worker.journal.front() {
            None => return false,
            Some(Entry::Gone {
                key, birth, handle, ..
            }) => (
                Some(Update::Gone {
                    key: *key,
                    birth: *birth,
                }),
                *handle,
            ),
            Some(Entry::Session(handle)) => (
                worker.own.get(handle).map(|own| Update::Session(own.image)),
                *handle,
            ),
        };
        if let Some(update) = update {
            let outgoing = Outgoing {
                worker: w as u16,
                handle,
                update,
                awaited: false,
            };
            if !self.peer.offer(local, outgoing) {
                return false;
            }
        }
        let worker = &mut self.workers[w];
        match worker.journal.pop_front() {
            Some(Entry::Gone { key, told, .. }) => {
                worker.gones -= 1;
                worker.add(self.digest_key.bucket(&key), told.wrapping_neg());
            }
            _ => self.told(w, handle),
        }
        if let Some(left) = &mut self.workers[w].left {
            *left -= 1;
        }
        true
    }

    fn told(&mut self, w: usize, handle: u64) {
        let key = self.digest_key;
        let worker = &mut self.workers[w];
        if let Some(own) = worker.own.get_mut(&handle) {
            own.dirty = false;
            let digest = own.image.digest(&key);
            let before = own.told.replace(digest).unwrap_or(0);
            let bucket = key.bucket(&own.image.key);
            worker.add(bucket, digest.wrapping_sub(before));
        }
    }

    fn offer_walked(&mut self, local: Nanos) {
        let Some((resync, left)) = self.walk.as_mut() else {
            return;
        };
        let resync = *resync;
        let allowed = self.peer.take_allowance(local, left.len() as u32) as usize;
        let now: Vec<_> = left.drain(..allowed).collect();
        let is_through = left.is_empty();
        for (w, handle) in now {
            let Some(own) = self.workers[w].own.get_mut(&handle) else {
                continue;
            };
            let outgoing = Outgoing {
                worker: w as u16,
                handle,
                update: Update::Session(own.image),
                awaited: false,
            };
            assert!(
                self.peer.offer(local, outgoing),
                "there is room for what is allowed"
            );
            let dirty = own.dirty;
            self.told(w, handle);
            // Its entry is in the journal still.
            if let Some(own) = self.workers[w].own.get_mut(&handle) {
                own.dirty = dirty;
            }
        }
        if is_through {
            self.walk = None;
            self.peer.walked(local, resync);
        }
    }
}

/// Small, so that every bound is met.
pub const WINDOW: u32 = 24;
pub const PENDING: usize = 40;
pub const EVENTS: usize = 260;

pub struct Pair {
    pub now: Nanos,
    pub net: Net,
    pub nodes: [Option<Node>; 2],
    pub configs: [PeerConfig; 2],
    pub key: PairKey,
    births: u64,
}

impl Pair {
    pub fn new(seed: u64) -> Self {
        let config = |node, priority| {
            let mut config = PeerConfig::new(NodeId(node));
            config.election.priority = priority;
            config.paths = vec![Path::Link, Path::Second];
            config.stream.window = WINDOW;
            config.stream.pending = PENDING;
            config.events = EVENTS;
            config
        };
        let mut net = Net::new(seed);
        let bytes = net.random.bytes();
        let key = PairKey::generate::<()>(|key| {
            key.copy_from_slice(&bytes);
            Ok(())
        });
        Self {
            now: Nanos::from_secs(1),
            net,
            nodes: [None, None],
            configs: [config(1, 200), config(2, 100)],
            key: key.expect("a key"),
            births: 0,
        }
    }

    pub fn start(&mut self, n: usize) {
        self.stop(n);
        let random = self.net.random.bytes();
        self.nodes[n] = Some(Node::new(n, self.configs[n].clone(), &self.key, self.now, random));
    }

    /// As if by SIGKILL.
    pub fn stop(&mut self, n: usize) {
        self.nodes[n] = None;
        self.net.forget(n);
    }

    pub fn node(&mut self, n: usize) -> &mut Node {
        self.nodes[n].as_mut().expect("the node runs")
    }

    /// A packet of flow `id` at node `n`: opens a session, or changes it. The nodes have flows of their own.
    pub fn touch(&mut self, n: usize, id: u32) {
        self.births += 1;
        let births = self.births;
        if let Some(node) = &mut self.nodes[n] {
            node.touch(2 * id + n as u32, births);
        }
    }

    pub fn end(&mut self, n: usize, id: u32) {
        let now = self.now;
        if let Some(node) = &mut self.nodes[n] {
            node.end(now, 2 * id + n as u32);
        }
    }

    pub fn turn(&mut self, n: usize) {
        if let Some(node) = &mut self.nodes[n] {
            node.turn(self.now, &mut self.net);
        }
    }

    /// Everything that is due until `end`.
    pub fn run_until(&mut self, end: Nanos) {
        // What was put to the nodes since.
        self.turn(A);
        self.turn(B);
        loop {
            let due = |n: usize| {
                self.nodes[n]
                    .as_ref()
                    .map_or(Nanos(u64::MAX), |node| node.next_timeout(self.now))
            };
            let next = due(A).min(due(B)).min(self.net.next().unwrap_or(Nanos(u64::MAX)));
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            while let Some(mut datagram) = self.net.take(self.now) {
                if let Some(node) = &mut self.nodes[datagram.to] {
                    let local = node.local(self.now);
                    node.peer
                        .handle_datagram(local, datagram.path, &mut datagram.bytes);
                    node.take_events(local);
                }
            }
            self.turn(A);
            self.turn(B);
        }
        self.now = end;
    }

    pub fn run(&mut self, ms: u64) {
        self.run_until(self.now.plus(Nanos::from_millis(ms)));
    }

    /// Runs until `done`, `ms` at most; whether it came to that.
    pub fn run_while(&mut self, ms: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now.plus(Nanos::from_millis(ms));
        while self.now < end {
            if done(self) {
                return true;
            }
            self.run(1);
        }
        done(self)
    }

    /// Why the two are not equal and in sync; `None`: they are.
    pub fn differs(&self) -> Option<String> {
        self.sessions_differ().or_else(|| {
            let [Some(a), Some(b)] = &self.nodes else {
                return None;
            };
            [(a, b), (b, a)].into_iter().find_map(|(from, to)| {
                let in_sync = to.in_sync(self.now) && from.status(self.now).peer_in_sync;
                let name = ["A", "B"][from.n];
                (!in_sync).then(|| format!("the other of {name} is not in sync: {:?}", from.status(self.now)))
            })
        })
    }

    /// Which sessions a node does not have as the other one has them.
    pub fn sessions_differ(&self) -> Option<String> {
        let [Some(a), Some(b)] = &self.nodes else {
            return Some("a node does not run".into());
        };
        for (from, to) in [(a, b), (b, a)] {
            let name = ["A", "B"][from.n];
            if from.sessions() != to.replicas.len() {
                return Some(format!(
                    "{} sessions of {name}, {} replicas",
                    from.sessions(),
                    to.replicas.len()
                ));
            }
            for own in from.workers.iter().flat_map(|worker| worker.own.values()) {
                let replica = to.replicas.get(&own.image.key);
                if replica.is_none_or(|replica| replica.image != own.image) {
                    return Some(format!(
                        "{:?} of {name}, and {:?}",
                        own.image,
                        replica.map(|r| r.image)
                    ));
                }
            }
        }
        None
    }
}
