//! Somebody in the middle who has the pair's key: to each node it is the other one. So it can read what they send each other, count
//! it, and change it: into what a later version would send, or into what a defective node would.

use haechi::base::Nanos;
use haechi::flow::image::Bucket;
use haechi::ha::seal::{self, Opened, PairKey, Seal, SealConfig};
use haechi::ha::wire::{Writer, decode};
use haechi::ha::{Frame, NodeId, Path, Update};

use super::fault::Fault;
use super::ha_net::Random;
use super::ha_v2;
use super::tally::Tally;

/// What it makes of datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The near node speaks version 2.
    Version2 {
        front: bool,
    },
    Fault(Fault),
}

/// One of its two ends.
struct End {
    seal: Seal,
    config: SealConfig,
    /// The process that it speaks with.
    start: Option<u64>,
    next_hello: Nanos,
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Near,
    Far,
}

pub(crate) struct Middle {
    /// The node that it stands before.
    pub(crate) node: usize,
    change: Change,
    key: PairKey,
    random: Random,
    near: End,
    far: End,
}

impl End {
    fn new(node: NodeId, key: &PairKey, random: &mut Random) -> Self {
        let config = SealConfig::new(node);
        Self {
            seal: Seal::new(config, key, random.bytes()),
            config,
            start: None,
            next_hello: Nanos(0),
        }
    }

    fn restart(&mut self, key: &PairKey, random: &mut Random) {
        self.seal = Seal::new(self.config, key, random.bytes());
    }
}

impl Middle {
    pub(crate) fn new(node: usize, change: Change, key: &PairKey, seed: u64) -> Self {
        let mut random = Random(seed);
        let (own, other) = (NodeId(1 + node as u8), NodeId(2 - node as u8));
        let text = key.to_text();
        Self {
            node,
            change,
            key: PairKey::from_text(&text).expect("a key"),
            near: End::new(other, key, &mut random),
            far: End::new(own, key, &mut random),
            random,
        }
    }

    /// A datagram of the near node's (`from` is [`To::Near`]) or for it. Returns what goes where.
    pub(crate) fn pass(
        &mut self,
        now: Nanos,
        from: To,
        path: Path,
        datagram: &mut [u8],
        tally: &mut Tally,
    ) -> Vec<(To, Path, Vec<u8>)> {
        let (of, other, to) = match from {
            To::Near => (&mut self.near, &mut self.far, To::Far),
            To::Far => (&mut self.far, &mut self.near, To::Near),
        };
        let mut out = vec![];
        let mut is_new = false;
        match of.seal.open(now, datagram) {
            Ok(Opened::Hello { answer: true }) => {
                let mut answer = vec![];
                if of.seal.answer(now, &mut answer).is_ok() {
                    out.push((from, path, answer));
                }
            }
            Ok(Opened::Data {
                start,
                change: association,
                plain,
                ..
            }) => {
                is_new = association != seal::Change::None;
                if of.start.replace(start).is_some_and(|before| before != start) {
                    // Another process here is another one there.
                    other.restart(&self.key, &mut self.random);
                }
                if !plain.is_empty() {
                    let plain = change(self.change, from, plain, tally);
                    let mut sealed = vec![];
                    seal::begin(&mut sealed);
                    sealed.extend(plain);
                    if other.seal.has_peer() && other.seal.seal(now, &mut sealed).is_ok() {
                        out.push((to, path, sealed));
                    }
                }
            }
            _ => {}
        }
        // As a node does it: who speaks with it knows by the first datagram.
        let mut empty = vec![];
        seal::begin(&mut empty);
        if is_new && of.seal.seal(now, &mut empty).is_ok() {
            out.push((from, path, empty));
        }
        if other.seal.wants_hello(now) && now >= other.next_hello {
            other.next_hello = now.plus(Nanos::from_millis(50));
            let mut hello = vec![];
            if other.seal.hello(now, &mut hello).is_ok() {
                out.push((to, path, hello));
            }
        }
        out
    }
}

fn change(change: Change, from: To, plain: &[u8], tally: &mut Tally) -> Vec<u8> {
    let frames: Vec<Frame> = decode(plain)
        .expect("what a node sends can be read")
        .filter_map(haechi::ha::wire::Message::into_frame)
        .collect();
    for frame in &frames {
        count(frame, tally);
    }
    match change {
        Change::Version2 { front } if from == To::Near => {
            let (bytes, added) = ha_v2::write(plain, front);
            added.news.iter().for_each(|_| tally.count("frame unknown"));
            bytes
        }
        Change::Version2 { .. } => plain.to_vec(),
        Change::Fault(fault) => {
            let mut bytes = vec![];
            let mut writer = Writer::new(&mut bytes, plain.len() + 512);
            for mut frame in frames {
                fault.frame(&mut frame);
                assert!(write(&mut writer, &frame), "there is room");
            }
            bytes
        }
    }
}

fn write(writer: &mut Writer<'_>, frame: &Frame) -> bool {
    match frame {
        Frame::Barrier {
            number,
            barrier,
            first: Bucket(first),
            digests,
        } => writer.barrier(*number, *barrier, Bucket(*first), digests) == digests.len(),
        frame => writer.frame(frame),
    }
}

fn count(frame: &Frame, tally: &mut Tally) {
    let name = match frame {
        Frame::Heartbeat(_) => "frame heartbeat",
        Frame::Sync { updates, .. } => {
            for update in updates {
                tally.count(match update {
                    Update::Session(_) => "frame sync, session",
                    Update::Gone { .. } => "frame sync, end",
                    Update::Station(_) => "frame sync, station",
                });
            }
            "frame sync"
        }
        Frame::Ack(_) => "frame ack",
        Frame::ResyncBegin { .. } => "frame resync begin",
        Frame::ResyncEnd { .. } => "frame resync end",
        Frame::Barrier { .. } => "frame barrier",
        Frame::Digests(_) => "frame digests",
        Frame::Packet { .. } => "frame packet",
        Frame::Unknown { .. } => "frame of no node's",
    };
    tally.count(name);
}
