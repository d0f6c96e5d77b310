//! What a packet costs that crosses to the other node of an active-active pair, without I/O, by part: copied by the worker into a buffer and
//! out of one; packed and sealed; opened and unpacked. A packet that comes back has all of it twice.
//!
//! `cargo bench --no-default-features --bench ha_redirect`; copying is timed by the packet, the rest by rounds of 64.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop")]
#![allow(
    clippy::disallowed_methods,
    reason = "a part of each round is timed by itself"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use haechi::base::{Nanos, PortId};
use haechi::flow::image::BUCKETS;
use haechi::ha::frames::{FrameBuf, Frames, FramesConfig};
use haechi::ha::peer::{Event, Peer, PeerConfig};
use haechi::ha::seal::PairKey;
use haechi::ha::{Crossing, NodeId, Path, Role};

/// Packets of a round.
const ROUND: usize = 64;
/// Bytes of packets.
const LENGTHS: [usize; 3] = [64, 512, 1514];

fn config() -> FramesConfig {
    FramesConfig {
        longest: 1522,
        ports: 2,
        rate: 1 << 30,
        datagram: 1472,
        waiting: 1024,
    }
}

/// Two active nodes without sessions.
struct Pair {
    nodes: [Peer; 2],
    now: Nanos,
}

impl Pair {
    fn new() -> Self {
        let key = PairKey::generate::<()>(|key| {
            key.fill(7);
            Ok(())
        });
        let key = key.unwrap();
        let now = Nanos::from_secs(1);
        let node = |n| {
            let mut of = PeerConfig::new(NodeId(n));
            of.election.active_active = true;
            of.frames = Some(config());
            Peer::new(of, &key, now, [n; 32])
        };
        let mut pair = Self {
            nodes: [node(1), node(2)],
            now,
        };
        while pair.nodes.each_ref().map(Peer::role) != [Role::Active; 2] {
            pair.now = pair.now.plus(Nanos::MILLISECOND);
            pair.exchange();
        }
        pair
    }

    fn exchange(&mut self) {
        let mut out = Vec::new();
        let mut idle = false;
        while !std::mem::replace(&mut idle, true) {
            for from in [0, 1] {
                self.nodes[from].handle_timeout(self.now);
                self.answer(from);
                while let Some(path) = self.nodes[from].poll_transmit(self.now, &mut out) {
                    self.nodes[1 - from].handle_datagram(self.now, path, &mut out);
                    idle = false;
                }
                self.answer(1 - from);
            }
        }
    }

    fn answer(&mut self, n: usize) {
        let (peer, now) = (&mut self.nodes[n], self.now);
        while let Some(event) = peer.poll_event() {
            match event {
                Event::Cut { round } => peer.cut(now, round, &[0; BUCKETS]),
                Event::Digests { barrier } => peer.answer_digests(now, barrier, &[0; BUCKETS]),
                Event::Walk { resync, .. } => peer.walked(now, resync),
                _ => {}
            }
        }
    }
}

fn copy(c: &mut Criterion) {
    let mut group = c.benchmark_group("ha_redirect/copy");
    group.throughput(Throughput::Elements(1));
    for length in LENGTHS {
        let (frames, packet) = (Frames::new(16, &config(), 1), vec![0x5a; length]);
        let mut far = vec![0; 2048];
        group.bench_function(BenchmarkId::new("in and out", length), |b| {
            b.iter(|| {
                assert!(frames.send(Crossing::Known, PortId(0), 0, black_box(&packet)));
                // As if by the HA threads of both.
                let buffer = frames.out.pop().unwrap();
                assert!(frames.incoming.push(buffer).is_ok());
                frames.take(|frame| far[..length].copy_from_slice(frame.bytes()));
                let buffer = frames.incoming_spare.pop().unwrap();
                assert!(frames.out_spare.push(buffer).is_ok());
            });
        });
    }
    group.finish();
}

fn seal_and_open(c: &mut Criterion) {
    let mut pair = Pair::new();
    let mut datagrams: Vec<(Path, Vec<u8>)> = Vec::new();
    let mut buffers: Vec<Box<FrameBuf>> = (0..ROUND).map(|_| FrameBuf::new(1522)).collect();
    for length in LENGTHS {
        let packet = vec![0x5a; length];
        let mut group = c.benchmark_group("ha_redirect");
        group.throughput(Throughput::Elements(ROUND as u64));
        group.bench_function(BenchmarkId::new("pack and seal", length), |b| {
            let mut out = Vec::with_capacity(2048);
            b.iter(|| {
                for mut buffer in buffers.drain(..) {
                    assert!(buffer.fill(Crossing::Known, PortId(0), 0, &packet));
                    assert!(pair.nodes[0].send_frame(buffer).is_ok());
                }
                while pair.nodes[0].poll_transmit(pair.now, &mut out).is_some() {
                    black_box(&out);
                }
                buffers.extend(std::iter::from_fn(|| pair.nodes[0].take_spent()));
            });
        });
        // A datagram is opened once: they are made anew for each round, beside the time.
        group.bench_function(BenchmarkId::new("open and unpack", length), |b| {
            b.iter_custom(|rounds| {
                let mut spent = std::time::Duration::ZERO;
                for _ in 0..rounds {
                    for mut buffer in buffers.drain(..) {
                        assert!(buffer.fill(Crossing::Known, PortId(0), 0, &packet));
                        assert!(pair.nodes[0].send_frame(buffer).is_ok());
                    }
                    let mut out = Vec::new();
                    datagrams.clear();
                    while let Some(path) = pair.nodes[0].poll_transmit(pair.now, &mut out) {
                        datagrams.push((path, out.clone()));
                    }
                    buffers.extend(std::iter::from_fn(|| pair.nodes[0].take_spent()));
                    let begin = std::time::Instant::now();
                    for (path, datagram) in &mut datagrams {
                        pair.nodes[1].handle_datagram(pair.now, *path, datagram);
                    }
                    let mut came = 0;
                    while let Some(buffer) = pair.nodes[1].poll_frame() {
                        came += black_box(buffer.bytes()).len() / length;
                        pair.nodes[1].give_back(buffer);
                    }
                    spent += begin.elapsed();
                    assert_eq!(came, ROUND);
                }
                spent
            });
        });
        group.finish();
    }
}

criterion_group!(benches, copy, seal_and_open);
criterion_main!(benches);
