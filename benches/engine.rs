//! The engine, a burst of 64 packets at a time: what a packet of a known session costs, and what a SYN that is answered by a
//! cookie does. Times are for one packet.
//!
//! `cargo bench --no-default-features --bench engine`. No device has looked at a checksum. What makes the packets is not timed.
//!
//! On a busy machine instructions say more than time. `ENGINE_COUNT=NAME:BURSTS` before the binary has it do so many bursts
//! of one case and nothing else:
//! `ENGINE_COUNT="SYN answered:2000" valgrind --tool=callgrind --toggle-collect='*engine::burst*' target/release/deps/engine-*`.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group};
use haechi::base::slab::HeapMemory;
use haechi::base::{Generation, Nanos, PortId};
use haechi::config::{self, RuleIds};
use haechi::engine::{Batch, DropReason, Engine, MAX_BATCH, Note, Outputs};
use haechi::flow::HashSeed;
use haechi::packet::checksum::Sum;
use haechi::packet::synth::PacketSpec;
use haechi::packet::{PacketBuf, VecPacket};

/// Flows, or SYNs, that come in turn.
const FLOWS: usize = 4096;
const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);

/// What the engine does with each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Forward,
    Answer,
}

struct Case {
    name: &'static str,
    /// Of the one rule.
    protection: &'static str,
    fate: Fate,
    /// What opens the sessions, with the port of each packet.
    before: Vec<(PortId, Vec<u8>)>,
    frames: Vec<Vec<u8>>,
}

/// The frame of a description, in which `CLIENT` stands for the `n`th client.
fn frame(description: &str, n: usize) -> Vec<u8> {
    let [_, b, c, d] = (n as u32).wrapping_mul(2_654_435_761).to_be_bytes();
    let client = format!("10.{b}.{c}.{d}:{}", 1024 + n % 60_000);
    let text = description.replace("CLIENT", &client);
    text.parse::<PacketSpec>().unwrap().frame()
}

fn frames(description: &str) -> Vec<Vec<u8>> {
    (0..FLOWS).map(|n| frame(description, n)).collect()
}

/// SYNs with the options of Linux: maximum segment size, selective acknowledgements, time stamps, window scale.
fn with_options(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    for frame in &mut frames {
        frame.truncate(54);
        frame[46] = 10 << 4;
        frame.extend([2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]);
        frame[16..18].copy_from_slice(&60_u16.to_be_bytes());
        frame[24..26].fill(0);
        let checksum = Sum::ZERO.bytes(&frame[14..34]).checksum();
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame[50..52].fill(0);
        let sum = Sum::ZERO.bytes(&frame[26..34]).pseudo(6, 40);
        let checksum = sum.bytes(&frame[34..]).checksum();
        frame[50..52].copy_from_slice(&checksum.to_be_bytes());
    }
    frames
}

fn cases() -> Vec<Case> {
    let udp = frames("udp CLIENT > 198.51.100.7:53");
    let syn = frames("tcp CLIENT > 198.51.100.7:80 syn seq=100");
    let handshake = |n| {
        [
            (LAN, frame("tcp CLIENT > 198.51.100.7:80 syn seq=100", n)),
            (WAN, frame("tcp 198.51.100.7:80 > CLIENT syn seq=500 ack=101", n)),
            (LAN, frame("tcp CLIENT > 198.51.100.7:80 seq=101 ack=501", n)),
        ]
    };
    vec![
        Case {
            name: "UDP forwarded",
            protection: "off",
            fate: Fate::Forward,
            before: udp.iter().map(|frame| (LAN, frame.clone())).collect(),
            frames: udp,
        },
        Case {
            name: "TCP forwarded",
            protection: "off",
            fate: Fate::Forward,
            before: (0..FLOWS).flat_map(handshake).collect(),
            frames: frames("tcp CLIENT > 198.51.100.7:80 seq=101 ack=501"),
        },
        Case {
            name: "SYN answered",
            protection: "always",
            fate: Fate::Answer,
            before: vec![],
            frames: syn.clone(),
        },
        Case {
            name: "SYN with options answered",
            protection: "always",
            fate: Fate::Answer,
            before: vec![],
            frames: with_options(syn),
        },
    ]
}

fn engine(case: &Case) -> Engine {
    let text = format!(
        r#"version = 1
[node]
name = "bench"
mode = "transparent"
[[port]]
name = "lan"
device = "vdev:net_null0"
zone = "lan"
peer = "wan"
[[port]]
name = "wan"
device = "vdev:net_null1"
zone = "wan"
peer = "lan"
[[rule]]
name = "all"
action = "allow"
syn_protection = "{}"
"#,
        case.protection
    );
    let config = config::load_text("bench.toml", &text).unwrap_or_else(|e| panic!("{e}"));
    let policy = config::compile(&config, Generation(1), &mut RuleIds::new()).unwrap();
    Engine::new(
        2 * FLOWS as u32,
        Arc::new(policy),
        &HeapMemory,
        HashSeed([1, 2, 3, 4]),
    )
    .unwrap()
}

/// Takes the buffers back, to be filled again.
#[derive(Default)]
struct Taken {
    buffers: Vec<VecPacket>,
    forwarded: u64,
    answered: u64,
}

impl Outputs<VecPacket> for Taken {
    fn forward(&mut self, packet: VecPacket, _: PortId, _: Note) {
        self.forwarded += 1;
        self.buffers.push(packet);
    }
    fn drop(&mut self, _: VecPacket, reason: DropReason, _: Note) {
        panic!("dropped: {}", reason.name());
    }
    fn answer(&mut self, packet: VecPacket, _: PortId, _: DropReason, _: Note) {
        self.answered += 1;
        self.buffers.push(packet);
    }
    fn buffer(&mut self) -> Option<VecPacket> {
        None
    }
    fn originate(&mut self, _: VecPacket, _: PortId) {}
}

/// What is measured.
#[inline(never)]
fn burst(engine: &mut Engine, now: Nanos, batch: &mut Batch<VecPacket>, taken: &mut Taken) {
    engine.process(now, batch, taken);
}

/// One engine in the middle of its work.
struct Run<'a> {
    case: &'a Case,
    engine: Engine,
    batch: Batch<VecPacket>,
    taken: Taken,
    now: Nanos,
    next: usize,
}

impl<'a> Run<'a> {
    fn new(case: &'a Case) -> Self {
        let mut run = Self {
            case,
            engine: engine(case),
            batch: Batch::new(),
            taken: Taken::default(),
            now: Nanos::from_secs(1000),
            next: 0,
        };
        for (port, frame) in &case.before {
            run.batch.try_push(VecPacket::new(frame.clone()), *port).unwrap();
            if run.batch.room() == 0 {
                run.engine.process(run.now, &mut run.batch, &mut run.taken);
            }
        }
        run.engine.process(run.now, &mut run.batch, &mut run.taken);
        let buffer = || VecPacket::new(Vec::with_capacity(128));
        run.taken = Taken::default();
        run.taken.buffers.resize_with(MAX_BATCH, buffer);
        run
    }

    /// One burst; how long the engine had it.
    fn burst(&mut self) -> Duration {
        for mut buffer in self.taken.buffers.drain(..) {
            buffer.try_fill(&self.case.frames[self.next]).unwrap();
            self.next = (self.next + 1) % FLOWS;
            self.batch.try_push(buffer, LAN).unwrap();
        }
        self.now = self.now.plus(Nanos(1000));
        let start = Instant::now();
        burst(
            &mut self.engine,
            self.now,
            black_box(&mut self.batch),
            &mut self.taken,
        );
        start.elapsed()
    }

    /// So many bursts; how long the engine had them. Every packet has met its fate.
    fn bursts(&mut self, bursts: u64) -> Duration {
        (self.taken.forwarded, self.taken.answered) = (0, 0);
        let time = (0..bursts).map(|_| self.burst()).sum();
        let all = bursts * MAX_BATCH as u64;
        let expected = match self.case.fate {
            Fate::Forward => (all, 0),
            Fate::Answer => (0, all),
        };
        assert_eq!(
            (self.taken.forwarded, self.taken.answered),
            expected,
            "{}",
            self.case.name
        );
        time
    }
}

fn engines(criterion: &mut Criterion) {
    let cases = cases();
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(1));
    for case in &cases {
        let mut run = None;
        group.bench_function(case.name, |bencher| {
            let run = run.get_or_insert_with(|| Run::new(case));
            bencher.iter_custom(|packets| {
                let bursts = packets.div_ceil(MAX_BATCH as u64);
                run.bursts(bursts)
                    .mul_f64(packets as f64 / (bursts * MAX_BATCH as u64) as f64)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, engines);

fn main() {
    let Ok(count) = std::env::var("ENGINE_COUNT") else {
        benches();
        Criterion::default().configure_from_args().final_summary();
        return;
    };
    let (name, bursts) = count.rsplit_once(':').unwrap();
    let cases = cases();
    let case = cases.iter().find(|case| case.name == name).unwrap();
    let bursts = bursts.parse().unwrap();
    let time = Run::new(case).bursts(bursts);
    let packets = bursts * MAX_BATCH as u64;
    println!(
        "{name}: {packets} packets, {:.1} ns each",
        time.as_nanos() as f64 / packets as f64
    );
}
