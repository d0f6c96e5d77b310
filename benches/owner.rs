//! The owner function: which worker a packet belongs to, by each method. Times are for one packet.
//!
//! `cargo bench --no-default-features --bench owner`. A burst of 32, as a worker without hardware RSS steers it; and what a packet of
//! a port costs whose hardware is believed.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use haechi::flow::{BucketTable, KeySet, Kind, Kinds, Method, OwnerFunction, Proof, Side, Trust, Tuple};

const BURST: usize = 32;
const METHODS: [Method; 4] = [
    Method::SymmetricToeplitz,
    Method::Sorted,
    Method::TwoSided,
    Method::SymmetricKey,
];

/// Numbers without a pattern.
fn numbers() -> impl Iterator<Item = u32> {
    (1u32..).map(|i| {
        i.wrapping_mul(0x9e37_79b9)
            .rotate_left(13)
            .wrapping_mul(0x85eb_ca6b)
    })
}

fn function(method: Method) -> OwnerFunction {
    let mut numbers = numbers();
    let keys = KeySet::random(method, |key| key.fill_with(|| numbers.next().unwrap_or(0) as u8));
    OwnerFunction::new(method, keys).unwrap()
}

fn steering(criterion: &mut Criterion) {
    let table = BucketTable::even(4);
    let mut group = criterion.benchmark_group("owner");
    group.throughput(Throughput::Elements(BURST as u64));
    for method in METHODS {
        let function = function(method);
        // More flows than stay in a cache by themselves would tell nothing: the tables are what is to be there.
        let mut numbers = numbers();
        let mut next = || numbers.next().unwrap_or(0);
        let ipv4: Vec<_> = (0..1024 * BURST)
            .map(|_| (next(), next(), next() as u16, next() as u16))
            .collect();
        let ipv6: Vec<_> = (0..64 * BURST)
            .map(|_| {
                let mut address = || std::array::from_fn(|_| next() as u8);
                Tuple {
                    source: address(),
                    destination: address(),
                    source_port: next() as u16,
                    destination_port: next() as u16,
                    is_ipv4: false,
                    has_ports: true,
                }
            })
            .collect();
        let mut bursts = ipv4.chunks_exact(BURST).cycle();
        group.bench_function(BenchmarkId::new("ipv4 ports", method.name()), |b| {
            b.iter(|| {
                let burst = black_box(bursts.next().unwrap_or(&[]));
                burst
                    .iter()
                    .map(|(s, d, from, to)| {
                        let hash = function.hash_ipv4_ports(Side::Wan, *s, *d, *from, *to);
                        u32::from(table.owner(hash).0)
                    })
                    .sum::<u32>()
            });
        });
        let mut bursts = ipv6.chunks_exact(BURST).cycle();
        group.bench_function(BenchmarkId::new("ipv6 ports", method.name()), |b| {
            b.iter(|| {
                let burst = black_box(bursts.next().unwrap_or(&[]));
                burst
                    .iter()
                    .map(|tuple| u32::from(table.owner(function.hash(Side::Wan, tuple)).0))
                    .sum::<u32>()
            });
        });
    }
    group.finish();
}

/// A believed packet: one of 64 is hashed and checked.
fn believing(criterion: &mut Criterion) {
    let function = function(Method::SymmetricToeplitz);
    let mut proof = Proof::new(Kinds::ALL);
    for hash in 1..=256 {
        proof.check(Kind::Ipv4Udp, Some(hash), hash, true);
    }
    assert!(proof.believes(Kind::Ipv4Udp));
    let mut group = criterion.benchmark_group("owner");
    group.throughput(Throughput::Elements(BURST as u64));
    let kind = 1 << Kind::Ipv4Udp as u8;
    let burst: [(u8, u16); BURST] = std::array::from_fn(|i| (kind, 53 + i as u16));
    group.bench_function("believed", |b| {
        b.iter(|| {
            let mut here = 0;
            for (i, (kind, port)) in (0..).zip(black_box(&burst)) {
                if proof.trust(Kinds::of_lane(*kind)) == Trust::Check {
                    let hash = function.hash_ipv4_ports(Side::Lan, i, 1, 2, *port);
                    black_box(proof.check(Kind::Ipv4Udp, Some(hash), hash, true));
                } else {
                    here += 1;
                }
            }
            here
        });
    });
    group.finish();
}

criterion_group!(benches, steering, believing);
criterion_main!(benches);
