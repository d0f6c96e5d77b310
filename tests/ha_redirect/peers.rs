//! Two active peers without sessions, and a link that does what a test says.

use haechi::base::{Nanos, PortId};
use haechi::flow::image::BUCKETS;
use haechi::ha::frames::{FrameBuf, FramesConfig};
use haechi::ha::peer::{Event, Peer, PeerConfig, PeerCounters};
use haechi::ha::seal::PairKey;
use haechi::ha::{Crossing, NodeId, Path, Role};

/// Of the longest frame.
pub(crate) const LONGEST: usize = 9022;
pub(crate) const PORTS: u16 = 2;

/// A packet that came: what for, the port, the sender's worker, the bytes.
pub(crate) type Came = (Crossing, u16, u16, Vec<u8>);

pub(crate) fn frames_config() -> FramesConfig {
    FramesConfig {
        longest: LONGEST,
        ports: PORTS,
        rate: 1000,
        datagram: 1472,
        waiting: 256,
    }
}

pub(crate) fn config(node: u8, frames: FramesConfig) -> PeerConfig {
    let mut config = PeerConfig::new(NodeId(node));
    config.election.active_active = true;
    config.election.alone_after = Nanos::from_millis(500);
    config.paths = vec![Path::Link, Path::Second];
    config.frames = Some(frames);
    config
}

pub(crate) fn key() -> PairKey {
    let key = PairKey::generate::<()>(|key| {
        key.fill(7);
        Ok(())
    });
    key.expect("a key")
}

pub(crate) struct Peers {
    pub(crate) nodes: [Peer; 2],
    pub(crate) now: Nanos,
    /// What a node was told of acknowledgements.
    pub(crate) told: [Vec<(u16, u64)>; 2],
    /// Updates that were taken in.
    pub(crate) updates: [u64; 2],
}

impl Peers {
    /// Both active and in sync.
    pub(crate) fn active(frames: FramesConfig) -> Self {
        let now = Nanos::from_secs(1);
        let node = |n| Peer::new(config(n, frames), &key(), now, [n; 32]);
        let mut peers = Self {
            nodes: [node(1), node(2)],
            now,
            told: [vec![], vec![]],
            updates: [0; 2],
        };
        for _ in 0..4000 {
            if peers.roles() == [Role::Active; 2] {
                return peers;
            }
            peers.pass(Nanos::MILLISECOND);
        }
        panic!("they are {:?}", peers.roles());
    }

    pub(crate) fn roles(&self) -> [Role; 2] {
        self.nodes.each_ref().map(Peer::role)
    }

    pub(crate) fn counters(&self, n: usize) -> PeerCounters {
        self.nodes[n].status(self.now).counters
    }

    /// Time goes on, and everything that is sent arrives.
    pub(crate) fn pass(&mut self, time: Nanos) {
        self.now = self.now.plus(time);
        for node in &mut self.nodes {
            node.handle_timeout(self.now);
        }
        self.exchange();
    }

    pub(crate) fn exchange(&mut self) {
        loop {
            let mut idle = true;
            for from in [0, 1] {
                self.take_events(from);
                for (path, mut datagram) in self.transmit(from) {
                    idle = false;
                    self.nodes[1 - from].handle_datagram(self.now, path, &mut datagram);
                }
                self.take_events(1 - from);
            }
            if idle {
                return;
            }
        }
    }

    /// What workers without sessions answer.
    fn take_events(&mut self, n: usize) {
        let now = self.now;
        while let Some(event) = self.nodes[n].poll_event() {
            let peer = &mut self.nodes[n];
            match event {
                Event::Cut { round } => peer.cut(now, round, &[0; BUCKETS]),
                Event::Digests { barrier } => peer.answer_digests(now, barrier, &[0; BUCKETS]),
                Event::Walk { resync, .. } => peer.walked(now, resync),
                Event::Told { worker, handle } => self.told[n].push((worker, handle)),
                Event::Update(_) => self.updates[n] += 1,
                _ => {}
            }
        }
    }

    /// All that a node has to send now.
    pub(crate) fn transmit(&mut self, from: usize) -> Vec<(Path, Vec<u8>)> {
        let mut sent = vec![];
        let mut datagram = vec![];
        while let Some(path) = self.nodes[from].poll_transmit(self.now, &mut datagram) {
            sent.push((path, datagram.clone()));
        }
        sent
    }

    /// Gives a packet to a node to be sent, in a buffer of its own.
    pub(crate) fn offer(&mut self, from: usize, crossing: Crossing, port: u16, bytes: &[u8]) -> bool {
        let mut buffer = FrameBuf::new(LONGEST);
        assert!(buffer.fill(crossing, PortId(port), 3, bytes));
        self.nodes[from].send_frame(buffer).is_ok()
    }

    /// The packets that a node has for its workers; their buffers go back.
    pub(crate) fn came(&mut self, n: usize) -> Vec<Came> {
        let mut came = vec![];
        while let Some(buffer) = self.nodes[n].poll_frame() {
            came.push((
                buffer.crossing,
                buffer.port.0,
                buffer.worker,
                buffer.bytes().to_vec(),
            ));
            self.nodes[n].give_back(buffer);
        }
        came
    }

    /// Buffers that a node has done with.
    pub(crate) fn spent(&mut self, n: usize) -> usize {
        std::iter::from_fn(|| self.nodes[n].take_spent()).count()
    }
}

/// A frame that no other of a test is equal to.
pub(crate) fn frame(number: usize, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (number * 31 + at * 7 + at / 256) as u8)
        .collect()
}
