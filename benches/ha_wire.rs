//! What one session update costs on its way between the nodes of a pair: to bytes, sealed, opened, and back. Times of `update` are for one
//! update, of `datagram` for one datagram of 1400 bytes.
//!
//! `cargo bench --no-default-features --bench ha_wire`.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use haechi::base::Nanos;
use haechi::ha::seal::{OVERHEAD, Opened, PairKey, Seal, SealConfig, begin};
use haechi::ha::wire::{DATAGRAM, Message, Writer, decode};
use haechi::ha::{NodeId, Update};

#[path = "../tests/support/ha_images.rs"]
mod ha_images;

const NOW: Nanos = Nanos::SECOND;
/// As many as one datagram holds.
const UPDATES: usize = 10;
/// More sessions than stay in the first cache.
const SESSIONS: u32 = 4000;

fn pair() -> (Seal, Seal) {
    let key = PairKey::from_text(&"0123456789abcdef".repeat(4)).unwrap();
    let seal = |id: u8| Seal::new(SealConfig::new(NodeId(id)), &key, [id; 32]);
    let (mut a, mut b, mut out) = (seal(1), seal(2), Vec::new());
    a.hello(NOW, &mut out).unwrap();
    b.open(NOW, &mut out).unwrap();
    b.answer(NOW, &mut out).unwrap();
    a.open(NOW, &mut out).unwrap();
    begin(&mut out);
    a.seal(NOW, &mut out).unwrap();
    b.open(NOW, &mut out).unwrap();
    (a, b)
}

fn write(out: &mut Vec<u8>, number: u64, updates: &[Update]) {
    let mut writer = Writer::new(out, DATAGRAM - OVERHEAD);
    assert!(writer.sync(number) && updates.iter().all(|update| writer.update(update)));
}

/// Takes all that is in it, as a receiver would.
fn read(plain: &[u8]) -> u64 {
    let mut sum = 0;
    for message in decode(plain).unwrap() {
        if let Message::Sync { updates, .. } = message {
            for update in updates {
                match black_box(update.unwrap()) {
                    Update::Session(image) => sum += image.birth.0,
                    Update::Gone { birth, .. } => sum += birth.0,
                    Update::Station(_) => {}
                }
            }
        }
    }
    sum
}

fn updates(criterion: &mut Criterion) {
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|number| Update::Session(ha_images::established(number)))
        .collect();
    let mut group = criterion.benchmark_group("ha_wire/update");
    group.throughput(Throughput::Elements(UPDATES as u64));
    let mut rows = sessions.chunks_exact(UPDATES).cycle();
    let mut out = Vec::new();
    group.bench_function("encode", |b| {
        b.iter(|| {
            out.clear();
            write(&mut out, 1, rows.next().unwrap());
            black_box(out.len())
        });
    });
    group.bench_function("decode", |b| b.iter(|| read(black_box(&out))));
    let (mut a, mut b) = pair();
    group.bench_function("encode, seal, open, decode", |bencher| {
        bencher.iter(|| {
            begin(&mut out);
            write(&mut out, 1, rows.next().unwrap());
            a.seal(NOW, &mut out).unwrap();
            let Opened::Data { plain, .. } = b.open(NOW, &mut out).unwrap() else {
                return 0;
            };
            read(plain)
        });
    });
    group.finish();
}

fn datagrams(criterion: &mut Criterion) {
    let (mut a, mut b) = pair();
    let plain = [7; DATAGRAM - OVERHEAD];
    let mut group = criterion.benchmark_group("ha_wire/datagram");
    group.throughput(Throughput::Bytes(DATAGRAM as u64));
    let mut out = Vec::new();
    group.bench_function("seal", |bencher| {
        bencher.iter(|| {
            begin(&mut out);
            out.extend_from_slice(black_box(&plain));
            a.seal(NOW, &mut out).unwrap();
            out.len()
        });
    });
    group.bench_function("seal, open", |bencher| {
        bencher.iter(|| {
            begin(&mut out);
            out.extend_from_slice(black_box(&plain));
            a.seal(NOW, &mut out).unwrap();
            b.open(NOW, &mut out).is_ok()
        });
    });
    // What somebody costs who can say a counter that has not come in yet.
    out[23] ^= 0x40;
    group.bench_function("refuse a forged one", |bencher| {
        bencher.iter(|| b.open(NOW, black_box(&mut out)).is_err());
    });
    out.truncate(OVERHEAD);
    a.hello(NOW, &mut out).unwrap();
    group.bench_function("a hello that was recorded", |bencher| {
        bencher.iter(|| b.open(NOW, black_box(&mut out)).is_ok());
    });
    group.finish();
}

criterion_group!(benches, updates, datagrams);
criterion_main!(benches);
