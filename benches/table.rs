//! The session table: batched lookup and update, insertion, expiry.
//!
//! `cargo bench --no-default-features --bench table` measures on ordinary pages;
//! `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` before it on transparent huge pages (which is what a worker's tables live in:
//! 2 MB pages that DPDK maps). Times are for one element (one lookup, one insertion, one expired session).
//!
//! Criterion calls a benchmark's closure for every sample, and not at all where a filter leaves the benchmark out: a table is
//! made at the first call, outside of what is measured.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use haechi::base::slab::HeapMemory;
use haechi::base::{Nanos, SessionIx, Tick};
use haechi::flow::{Direction, Due, FlowKey, HashSeed, KeyClass, Session, SessionState, SessionTable};

/// Packets of a burst.
const BURST: usize = 32;
/// Keys made at a time, outside of what is measured; small enough to stay in the second-level cache, as the keys of
/// packets just parsed do.
const CHUNK: usize = 4096;
const SIZES: [u32; 4] = [1_000, 100_000, 1_000_000, 4_000_000];
const TIMEOUT: u32 = 1 << 20;

/// The `i`th flow: IPv4, UDP, clients of 10.0.0.0/8 to one of 256 servers.
fn key(i: u32) -> FlowKey {
    let mut low = [0; 16];
    low[10..12].fill(0xff);
    let mut high = low;
    low[12..].copy_from_slice(&(0x0a00_0000 | (i >> 4)).to_be_bytes());
    high[12..].copy_from_slice(&(0xc000_0200 | (i.wrapping_mul(31) & 0xff)).to_be_bytes());
    FlowKey {
        low,
        high,
        low_port: 1024 + (i & 15) as u16,
        high_port: 443,
        domain: 0,
        protocol: 17,
        class: KeyClass::Ports,
        reserved: 0,
    }
}

/// A small generator (splitmix64): the order of the packets.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((((z ^ (z >> 31)) >> 32) * u64::from(n)) >> 32) as u32
    }
}

/// A session for each key, as the engine makes them: looked up in bursts, not found, inserted.
fn insert_all(table: &mut SessionTable, keys: &[FlowKey], now: Nanos) {
    let mut hashes = [0; BURST];
    let mut found = [None; BURST];
    for keys in keys.chunks(BURST) {
        table.hash_batch(keys, &mut hashes);
        table.find_batch(keys, &hashes, &mut found);
        for ((key, hash), found) in keys.iter().zip(hashes).zip(found) {
            assert!(found.is_none());
            let session = Session::new(*key, Direction::LowToHigh, SessionState::UdpNew);
            table.insert(session, hash, now, TIMEOUT).unwrap();
        }
    }
}

/// A table at exactly its capacity: the index at its highest load.
fn full_table(n: u32) -> SessionTable {
    let mut table = SessionTable::new(n, &HeapMemory, HashSeed([1, 2, 3, 4])).unwrap();
    let keys: Vec<_> = (0..n).map(key).collect();
    insert_all(&mut table, &keys, Nanos::SECOND);
    table
}

fn forward_burst(table: &mut SessionTable, keys: &[FlowKey], now: Tick) {
    let mut hashes = [0; BURST];
    let mut found = [None; BURST];
    table.hash_batch(keys, &mut hashes);
    table.find_batch(keys, &hashes, &mut found);
    for ix in found {
        table.touch(ix.unwrap(), Direction::LowToHigh, now, 64);
    }
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup_update");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for n in SIZES {
        let mut table = None;
        let mut random = Random(7);
        let mut now = Tick(0);
        group.bench_function(BenchmarkId::from_parameter(n), |b| {
            let table = table.get_or_insert_with(|| full_table(n));
            b.iter_custom(|lookups| {
                chunks(
                    lookups,
                    || key(random.below(n)),
                    |keys| {
                        now = now.plus(1);
                        for burst in keys.chunks_exact(BURST) {
                            forward_burst(table, burst, now);
                        }
                    },
                )
            });
        });
    }
    group.finish();
}

/// Measures chunks of random keys until there were `asked` lookups. The answer goes by the median chunk: whatever else
/// runs on the machine interrupts some chunks (a tenth of a millisecond each), and counts for nothing as long as it
/// leaves most of them alone.
fn chunks(asked: u64, mut make: impl FnMut() -> FlowKey, mut work: impl FnMut(&[FlowKey])) -> Duration {
    let mut keys = vec![FlowKey::default(); CHUNK];
    let mut times: Vec<_> = (0..asked.div_ceil(CHUNK as u64))
        .map(|_| {
            keys.fill_with(&mut make);
            timed(|| work(&keys))
        })
        .collect();
    median(&mut times).mul_f64(asked as f64 / CHUNK as f64)
}

fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn lookup_hashbrown(c: &mut Criterion) {
    let mut group = c.benchmark_group("hashbrown_lookup_update");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for n in SIZES {
        let mut table = None;
        let mut random = Random(7);
        group.bench_function(BenchmarkId::from_parameter(n), |b| {
            let table = table.get_or_insert_with(|| {
                let mut table: HashMap<FlowKey, [u64; 8], ahash::RandomState> = HashMap::default();
                table.extend((0..n).map(|i| (key(i), [0; 8])));
                table
            });
            b.iter_custom(|lookups| {
                chunks(
                    lookups,
                    || key(random.below(n)),
                    |keys| {
                        for key in keys {
                            let session = table.get_mut(key).unwrap();
                            session[0] += 1;
                            session[1] += 64;
                        }
                    },
                )
            });
        });
    }
    group.finish();
}

/// Misses: what a flood of unknown flows costs the lookup.
fn miss(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup_miss");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for n in SIZES {
        let mut table = None;
        let mut random = Random(7);
        group.bench_function(BenchmarkId::from_parameter(n), |b| {
            let table = table.get_or_insert_with(|| full_table(n));
            b.iter_custom(|lookups| {
                chunks(
                    lookups,
                    || key(n + random.below(n)),
                    |keys| {
                        for burst in keys.chunks_exact(BURST) {
                            let mut hashes = [0; BURST];
                            let mut found: [Option<SessionIx>; BURST] = [None; BURST];
                            table.hash_batch(burst, &mut hashes);
                            table.find_batch(burst, &hashes, &mut found);
                            black_box(&found);
                        }
                    },
                )
            });
        });
    }
    group.finish();
}

/// Filling an empty table, and letting all of it expire. The slots are those that the last round freed, in no order that
/// the memory likes. By the median chunk, as above.
fn insert_expire(c: &mut Criterion) {
    let mut group = c.benchmark_group("fill");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for n in [100_000, 1_000_000] {
        let mut table = None;
        let mut now = Nanos::SECOND;
        group.bench_function(BenchmarkId::new("insert", n), |b| {
            let table = table.get_or_insert_with(|| full_table(n));
            b.iter_custom(|asked| {
                let mut times = Vec::new();
                while times.len() as u64 * (CHUNK as u64) < asked {
                    now = expire_all(table, now, &mut Vec::new());
                    fill_timed(table, n, now, &mut times);
                }
                median(&mut times).mul_f64(asked as f64 / CHUNK as f64)
            });
        });
        group.bench_function(BenchmarkId::new("expire", n), |b| {
            let table = table.get_or_insert_with(|| full_table(n));
            b.iter_custom(|asked| {
                let mut times = Vec::new();
                while times.len() as u64 * (CHUNK as u64) < asked {
                    now = expire_all(table, now, &mut Vec::new());
                    fill_timed(table, n, now, &mut Vec::new());
                    now = expire_all(table, now, &mut times);
                }
                median(&mut times).mul_f64(asked as f64 / CHUNK as f64)
            });
        });
    }
    group.finish();
}

fn fill_timed(table: &mut SessionTable, n: u32, now: Nanos, times: &mut Vec<Duration>) {
    // Flows arrive in an order that has nothing to do with their keys' or their slots'.
    for chunk in 0..n / CHUNK as u32 {
        let shuffled = |i| ((u64::from(chunk) * CHUNK as u64 + i) * 1_000_003 % u64::from(n)) as u32;
        let keys: Vec<_> = (0..CHUNK as u64).map(|i| key(shuffled(i))).collect();
        times.push(timed(|| insert_all(table, &keys, now)));
    }
}

/// Lets the clock run until every session has ended, 64 at a time as a worker does; the time then. `times`: of each
/// `CHUNK` sessions ended.
fn expire_all(table: &mut SessionTable, mut now: Nanos, times: &mut Vec<Duration>) -> Nanos {
    while !table.is_empty() {
        now = now.plus(Nanos::from_secs(600));
        while table.len() as usize >= CHUNK && lag(table, now, 0) {
            let goal = table.len() - CHUNK as u32;
            let time = timed(|| while table.len() > goal && lag(table, now, 64) {});
            if table.len() <= goal {
                times.push(time);
            }
        }
        while lag(table, now, 64) {}
    }
    now
}

/// One look at the wheel: is there more to do?
fn lag(table: &mut SessionTable, now: Nanos, budget: u32) -> bool {
    table.expire(now.tick(), budget, |_| TIMEOUT, |_| Due::End).lag != Nanos(0)
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = lookup, miss, lookup_hashbrown, insert_expire
}
criterion_main!(benches);
