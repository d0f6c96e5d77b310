//! The parser, a burst of 32 frames at a time, and the checksum alone. Times are for one frame.
//!
//! `cargo bench --no-default-features --bench parse`. "software": no device has looked at a checksum; "device": it has.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use haechi::packet::checksum::Sum;
use haechi::packet::synth::PacketSpec;
use haechi::packet::{ChecksumStatus, PacketKind, PacketMeta, ParseOptions, RxChecksum, parse_into};

const BURST: usize = 32;

/// A burst of frames that differ in their source port.
fn burst(description: &str, kind: PacketKind) -> Vec<Vec<u8>> {
    let frames: Vec<_> = (0..BURST)
        .map(|n| {
            let text = description.replace("PORT", &(1024 + n).to_string());
            text.parse::<PacketSpec>().unwrap().frame()
        })
        .collect();
    for frame in &frames {
        let mut meta = PacketMeta::default();
        parse_into(frame, RxChecksum::default(), ParseOptions::default(), &mut meta);
        assert_eq!(meta.kind, kind, "{description}");
    }
    frames
}

/// Frames with TCP timestamps, which the synthesiser has not: an ACK as most of a connection's are.
fn with_timestamps(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    for frame in &mut frames {
        frame.truncate(54);
        frame[46] = 8 << 4;
        frame.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        frame[16..18].copy_from_slice(&52_u16.to_be_bytes());
        frame[24..26].fill(0);
        let checksum = Sum::ZERO.bytes(&frame[14..34]).checksum();
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame[50..52].fill(0);
        let sum = Sum::ZERO.bytes(&frame[26..34]).pseudo(6, 32);
        let checksum = sum.bytes(&frame[34..]).checksum();
        frame[50..52].copy_from_slice(&checksum.to_be_bytes());
    }
    frames
}

fn parsing(criterion: &mut Criterion) {
    let udp = "udp 10.0.0.5:PORT > 192.0.2.7:53";
    let tcp = "tcp 10.0.0.5:PORT > 192.0.2.7:80 ack=1";
    let bursts = [
        ("udp4 64", burst(&format!("{udp} len=18"), PacketKind::Udp)),
        ("tcp4 64", burst(tcp, PacketKind::Tcp)),
        ("tcp4 timestamps", with_timestamps(burst(tcp, PacketKind::Tcp))),
        ("tcp4 1518", burst(&format!("{tcp} len=1460"), PacketKind::Tcp)),
        (
            "udp4 64 in a VLAN",
            burst(&format!("{udp} len=14 vlan=5"), PacketKind::Udp),
        ),
        (
            "udp6 78",
            burst(
                "udp [2001:db8::5]:PORT > [2001:db8::7]:53 len=12",
                PacketKind::Udp,
            ),
        ),
        (
            "icmp echo 98",
            burst(
                "icmp 10.0.0.5 > 192.0.2.7 echo-request id=PORT len=56",
                PacketKind::Echo,
            ),
        ),
    ];
    let software = RxChecksum::default();
    let device = RxChecksum::new(ChecksumStatus::Good, ChecksumStatus::Good);
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(BURST as u64));
    let mut metas = [PacketMeta::default(); BURST];
    for (name, frames) in &bursts {
        for (who, checksum) in [("software", software), ("device", device)] {
            group.bench_function(BenchmarkId::new(*name, who), |bencher| {
                bencher.iter(|| {
                    let (checksum, options) = black_box((checksum, ParseOptions::default()));
                    for (frame, meta) in black_box(frames).iter().zip(&mut metas) {
                        parse_into(frame, checksum, options, meta);
                    }
                    black_box(&mut metas);
                });
            });
        }
    }
    group.finish();
}

fn summing(criterion: &mut Criterion) {
    let bytes: Vec<u8> = (0..9000_u32).map(|n| (n * 31) as u8).collect();
    let mut group = criterion.benchmark_group("checksum");
    for len in [20, 26, 64, 1460, 8960] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| Sum::ZERO.bytes(black_box(&bytes[..len])).is_valid());
        });
    }
    group.finish();
}

criterion_group!(benches, parsing, summing);
criterion_main!(benches);
