//! A proxied connection between two model endpoints, over a network that loses and reorders: every byte arrives, and what
//! either end reads in acknowledgements, SACK blocks, time stamps and windows is true in its own numbers.

use std::collections::{BTreeSet, VecDeque};

use haechi::base::Nanos;
use proptest::prelude::*;

use crate::node::Node;
use crate::tcp::{ACK, End, FIN, SYN, Tcp};

const RULES: &str =
    "[[rule]]\nname = \"web\"\nfrom = \"lan\"\naction = \"allow\"\nsyn_protection = \"always\"\n";

/// By how many bytes an open window may seem too wide: a client hears of at least one unit of the default scale.
const SLACK: usize = (1 << 7) - 1;

/// A small deterministic generator (PCG's multiplier): a case is told by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What an endpoint can and has to send.
#[derive(Clone)]
struct Setup {
    isn: u32,
    clock: u32,
    mss: u16,
    scale: Option<u8>,
    sack: bool,
    timestamps: bool,
    window: u32,
    data: Vec<u8>,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            isn,
            clock,
            mss,
            scale,
            sack,
            timestamps,
            window,
            data,
        } = self;
        let len = data.len();
        write!(
            f,
            "isn {isn} clock {clock} mss {mss} scale {scale:?} sack {sack} timestamps {timestamps} window {window} bytes {len}"
        )
    }
}

fn setup() -> impl Strategy<Value = Setup> {
    (
        any::<u32>(),
        any::<u32>(),
        prop::sample::select(vec![536_u16, 1000, 1460]),
        prop::option::of(0_u8..15),
        any::<bool>(),
        any::<bool>(),
        prop::sample::select(vec![100_u32, 3000, 20_000, 200_000]),
        (1_usize..20_000, any::<u64>()),
    )
        .prop_map(
            |(isn, clock, mss, scale, sack, timestamps, window, (len, seed))| Setup {
                isn,
                clock,
                mss,
                // A scale whose unit is larger than the window would keep it closed for ever.
                scale: scale.map(|scale| scale.min(window.ilog2() as u8)),
                sack,
                timestamps,
                window,
                data: bytes(len, seed),
            },
        )
}

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    (0..len).map(|_| dice.roll(256) as u8).collect()
}

/// One end. Places in a stream are counted from the byte after the SYN; the FIN is the last place.
struct Model {
    side: End,
    own: Setup,
    /// The peer's first number after its SYN; `None`: not heard yet.
    peer: Option<u32>,
    /// What both SYNs had, as this end knows it.
    scales: Option<(u8, u8)>,
    sack: bool,
    timestamps: bool,
    mss: usize,
    /// The SYN is acknowledged.
    open: bool,
    acked: usize,
    sent: usize,
    received: Vec<u8>,
    behind_gaps: BTreeSet<usize>,
    heard: Vec<Option<u8>>,
    peer_end: Option<usize>,
    /// Right edge that the peer offered, and that this end offered, as places.
    may_send: usize,
    offered: usize,
    clock: u32,
    stamps: BTreeSet<u32>,
    echo: u32,
    first_stamp: Option<u32>,
    owes_ack: bool,
}

impl Model {
    fn new(side: End, own: Setup) -> Self {
        Self {
            side,
            peer: None,
            scales: None,
            sack: false,
            timestamps: false,
            mss: 536,
            open: false,
            acked: 0,
            sent: 0,
            received: vec![],
            behind_gaps: BTreeSet::new(),
            heard: vec![],
            peer_end: None,
            may_send: 0,
            offered: 0,
            clock: own.clock,
            stamps: BTreeSet::new(),
            echo: 0,
            first_stamp: None,
            owes_ack: false,
            own,
        }
    }

    fn first(&self) -> u32 {
        self.own.isn.wrapping_add(1)
    }

    fn end(&self) -> usize {
        self.own.data.len() + 1
    }

    fn is_done(&self) -> bool {
        self.acked == self.end() && self.peer_end == Some(self.received.len())
    }

    /// The place after all that it has received in order.
    fn expected(&self) -> usize {
        self.received.len() + usize::from(self.peer_end == Some(self.received.len()))
    }

    fn next_expected(&self) -> u32 {
        self.peer.unwrap_or(0).wrapping_add(self.expected() as u32)
    }

    fn segment(&mut self, flags: u8, seq: u32) -> Tcp {
        let syn = flags & SYN != 0;
        let scale = if syn {
            0
        } else {
            self.scales.map_or(0, |(own, _)| own)
        };
        let window = u16::try_from(self.own.window >> scale).unwrap_or(u16::MAX);
        self.offered = self.offered.max(self.expected() + (usize::from(window) << scale));
        let stamped = if syn { self.own.timestamps } else { self.timestamps };
        self.clock = self.clock.wrapping_add(1);
        if stamped {
            self.stamps.insert(self.clock);
        }
        Tcp {
            from: self.side,
            port: 1234,
            flags,
            seq,
            ack: if flags & ACK != 0 { self.next_expected() } else { 0 },
            window,
            timestamps: stamped.then_some((self.clock, self.echo)),
            ..Tcp::default()
        }
    }

    /// What it sends at one turn: its SYN, or what the window lets it, from the first byte that is not acknowledged.
    fn turn(&mut self, dice: &mut Dice) -> Vec<Tcp> {
        if !self.open {
            let flags = match (self.side, self.peer) {
                (End::Client, _) => SYN,
                (End::Server, Some(_)) => SYN | ACK,
                (End::Server, None) => return vec![],
            };
            let mut syn = self.segment(flags, self.own.isn);
            syn.mss = Some(self.own.mss);
            let answers = self.side == End::Server;
            syn.scale = self.own.scale.filter(|_| !answers || self.scales.is_some());
            syn.sack_permitted = self.own.sack && (!answers || self.sack);
            syn.timestamps = syn.timestamps.filter(|_| !answers || self.timestamps);
            return vec![syn];
        }
        let mut segments = vec![];
        let mut at = self.acked;
        for _ in 0..8 {
            let data = self.own.data.get(at..).unwrap_or(&[]);
            let room = self.may_send.saturating_sub(at);
            let some = data.len().min(room).min(self.mss);
            // Sometimes a piece is sent in other parts than the time before.
            let some = if some > 1 && dice.roll(4) == 0 {
                1 + dice.roll(some as u64) as usize
            } else {
                some
            };
            let last = at + some == self.own.data.len() && some < room.max(1);
            if some == 0 && !last {
                break;
            }
            let data = data[..some].to_vec();
            let flags = if last && at + some < self.end() {
                FIN | ACK
            } else {
                ACK
            };
            if at >= self.end() {
                break;
            }
            let mut segment = self.segment(flags, self.first().wrapping_add(at as u32));
            segment.data = data;
            segment.sack = self.blocks();
            at += some + usize::from(flags & FIN != 0);
            self.sent = self.sent.max(at);
            segments.push(segment);
        }
        if segments.is_empty() && (self.owes_ack || self.acked < self.end()) {
            // An acknowledgement; of a closed window, the number before the next one.
            let back = u32::from(!self.owes_ack);
            let seq = if back == 1 {
                self.first().wrapping_add(self.acked as u32).wrapping_sub(1)
            } else {
                self.first().wrapping_add(self.sent as u32)
            };
            let mut segment = self.segment(ACK, seq);
            segment.sack = self.blocks();
            segments.push(segment);
        }
        self.owes_ack = false;
        segments
    }

    /// Up to three blocks of what was received behind a gap.
    fn blocks(&self) -> Vec<(u32, u32)> {
        if !self.sack {
            return vec![];
        }
        let mut blocks: Vec<(usize, usize)> = vec![];
        for at in &self.behind_gaps {
            match blocks.last_mut() {
                Some((_, right)) if *right == *at => *right += 1,
                _ => blocks.push((*at, at + 1)),
            }
        }
        let first = self.peer.unwrap_or(0);
        let number = |at: usize| first.wrapping_add(at as u32);
        blocks
            .into_iter()
            .take(3)
            .map(|(left, right)| (number(left), number(right)))
            .collect()
    }

    /// Takes a segment. `peer`: the other end, for what is true.
    fn take(&mut self, segment: &Tcp, peer: &Self) {
        let syn_ack = segment.has(SYN) && segment.has(ACK);
        if segment.has(SYN) {
            if self.peer.is_none() {
                self.peer = Some(segment.seq.wrapping_add(1));
                self.scales = self.own.scale.zip(segment.scale);
                self.sack = self.own.sack && segment.sack_permitted;
                self.timestamps = self.own.timestamps && segment.timestamps.is_some();
                self.mss = usize::from(self.own.mss.min(segment.mss.unwrap_or(536)));
                self.may_send = usize::from(segment.window);
            }
            assert!(
                segment.scale.is_none() || self.side == End::Server || self.own.scale.is_some(),
                "only what was asked for"
            );
        }
        let Some(peer_first) = self.peer else {
            panic!("{:?}: a segment before any SYN: {segment:?}", self.side);
        };
        if let Some((stamp, echoed)) = segment.timestamps {
            assert!(
                self.timestamps || segment.has(SYN),
                "{:?}: time stamps unasked for",
                self.side
            );
            // A SYN that is sent again has the stamp of the first one.
            let first = *self.first_stamp.get_or_insert(stamp);
            let past = (stamp.wrapping_sub(first) as i32) < 0 && !segment.has(SYN);
            assert!(!past, "{:?}: a time stamp of the past", self.side);
            if segment.has(ACK) {
                assert!(
                    self.stamps.contains(&echoed),
                    "{:?}: {echoed} was never sent",
                    self.side
                );
            }
            self.echo = stamp;
        }
        if segment.has(ACK) {
            let place = segment.ack.wrapping_sub(self.first()) as usize;
            assert!(
                place <= self.sent,
                "{:?}: {place} acknowledged, {} sent",
                self.side,
                self.sent
            );
            self.open = true;
            self.acked = self.acked.max(place);
            let scale = if segment.has(SYN) {
                0
            } else {
                self.scales.map_or(0, |(_, peer)| peer)
            };
            self.may_send = self.may_send.max(place + (usize::from(segment.window) << scale));
            if !segment.has(SYN) {
                assert!(
                    place + (usize::from(segment.window) << scale) <= peer.offered.max(place) + SLACK,
                    "{:?}: more window than its peer ever offered",
                    self.side
                );
            }
        }
        assert!(
            self.sack || segment.sack.is_empty(),
            "{:?}: SACK unasked for",
            self.side
        );
        for (left, right) in &segment.sack {
            let [left, right] = [left, right].map(|edge| edge.wrapping_sub(self.first()) as usize);
            assert!(
                left < right && right <= self.sent,
                "{:?}: block {left}..{right}",
                self.side
            );
            for at in left..right {
                assert!(
                    at < peer.received.len() || peer.behind_gaps.contains(&at),
                    "{at} is not there"
                );
            }
        }
        if syn_ack {
            self.owes_ack = true;
        }
        if segment.has(SYN) {
            return;
        }
        self.data(segment, segment.seq.wrapping_sub(peer_first));
    }

    fn data(&mut self, segment: &Tcp, at: u32) {
        let at = at as i32;
        if !segment.data.is_empty() || segment.has(FIN) {
            self.owes_ack = true;
            let right = (at.max(0) as usize) + segment.data.len();
            assert!(
                right <= self.offered + SLACK,
                "{:?}: {right} is beyond {}",
                self.side,
                self.offered
            );
        } else if at < self.received.len() as i32 {
            self.owes_ack = true;
        }
        let Ok(at) = usize::try_from(at) else { return };
        if segment.has(FIN) {
            let end = at + segment.data.len();
            assert!(self.peer_end.is_none_or(|known| known == end));
            self.peer_end = Some(end);
        }
        for (place, byte) in (at..).zip(&segment.data) {
            if self.heard.len() <= place {
                self.heard.resize(place + 1, None);
            }
            assert!(
                self.heard[place].is_none_or(|before| before == *byte),
                "a byte changed"
            );
            self.heard[place] = Some(*byte);
            if place >= self.received.len() {
                self.behind_gaps.insert(place);
            }
        }
        while let Some(Some(byte)) = self.heard.get(self.received.len()) {
            self.behind_gaps.remove(&self.received.len());
            self.received.push(*byte);
        }
    }
}

/// One turn's segments of an end through the node, some lost, some late. What the node makes itself reaches the other end.
fn cross(
    node: &mut Node,
    segments: impl IntoIterator<Item = Tcp>,
    dice: &mut Dice,
    loss: u64,
    out: &mut [VecDeque<Tcp>; 2],
) {
    for segment in segments {
        let port = match segment.from {
            End::Client => "lan",
            End::Server => "wan",
        };
        if dice.roll(100) >= loss {
            node.frame(port, &segment.frame());
        }
    }
    let mut left = std::mem::take(&mut node.forwarded);
    left.append(&mut node.originated);
    for (port, frame) in left {
        let queue = &mut out[usize::from(port == "wan")];
        if dice.roll(100) < loss {
            continue;
        }
        if dice.roll(100) < loss {
            queue.push_front(Tcp::read(&frame));
        } else {
            queue.push_back(Tcp::read(&frame));
        }
    }
}

/// Runs until both ends have all. The network loses packets for the first hundred turns, and none after that.
fn converse(client: Setup, server: Setup, loss: u64, seed: u64) {
    let mut node = Node::new(RULES);
    node.rewrites = true;
    let mut dice = Dice(seed);
    let (sent, answered) = (client.data.clone(), server.data.clone());
    let mut client = Model::new(End::Client, client);
    let mut server = Model::new(End::Server, server);
    for turn in 0..2000 {
        let loss = if turn < 100 { loss } else { 0 };
        let mut out = [VecDeque::new(), VecDeque::new()];
        let segments = client.turn(&mut dice);
        cross(&mut node, segments, &mut dice, loss, &mut out);
        let segments = server.turn(&mut dice);
        cross(&mut node, segments, &mut dice, loss, &mut out);
        let [to_client, to_server] = out;
        for segment in to_client {
            client.take(&segment, &server);
        }
        for segment in to_server {
            server.take(&segment, &client);
        }
        node.wait(Nanos::from_millis(300));
        if client.is_done() && server.is_done() {
            assert!(server.received == sent, "what the client sent");
            assert!(client.received == answered, "what the server sent");
            assert_eq!(node.counters().get("tcp_bad_flags"), None);
            // What a client sends into the part of a unit that its server has not is not let through.
            if server.own.window as usize > SLACK {
                assert_eq!(node.counters().get("tcp_out_of_window"), None);
            }
            return;
        }
    }
    panic!(
        "not done: client {}/{} acknowledged, server {}/{}, {:?} {:?}",
        client.acked,
        client.end(),
        server.acked,
        server.end(),
        node.sessions(),
        node.counters()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_and_every_number_is_true(
        client in setup(), server in setup(), loss in 0_u64..30, seed: u64,
    ) {
        converse(client, server, loss, seed);
    }
}
