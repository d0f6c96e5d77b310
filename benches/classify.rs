//! The classifiers, linear and `rte_acl`: what a question about a new session costs by the number of rules, in bursts of 32
//! and alone, and what building the tries costs. Times are for one packet.
//!
//! `cargo bench --bench classify`, as root (DPDK's memory). `CLASSIFY_BUILD=1` before it tells of builds instead:
//! milliseconds, DPDK's memory that they keep and other memory that they take meanwhile, for rules as people write them (`hosts`) and for rules of random overlapping prefixes and
//! port ranges (`random`).
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput};
use haechi::base::ZoneId;
use haechi::dpdk::{AclClassifier, Eal, EalConfig};
use haechi::policy::{Classifier, ClassifyKey, LinearClassifier, RuleSpec, ServiceSpec};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const BURST: usize = 32;
const KEYS: usize = 4096;
const ZONES: usize = 2;

/// A small generator (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

fn net(v6: bool, address: u32, len: u8) -> IpNet {
    if v6 {
        let bits = (0x2001_0db8_u128 << 96) | (u128::from(address) << 32);
        IpNet::V6(Ipv6Net::new(bits.into(), 64 + len).unwrap().trunc())
    } else {
        IpNet::V4(Ipv4Net::new(address.into(), len).unwrap().trunc())
    }
}

/// A client network to a server or a network of them, by one service: as people write rules.
fn hosts(n: usize, v6: bool) -> Vec<RuleSpec> {
    let mut random = Random(7);
    let rule = |i: usize| {
        let port = [22, 53, 80, 443, 8080, 5432, 3306, 25][random.below(8) as usize];
        let service = match i % 8 {
            0 => ServiceSpec::Udp(port, port),
            1 => ServiceSpec::Tcp(port, port + 1000),
            _ => ServiceSpec::Tcp(port, port),
        };
        RuleSpec {
            from: Some(vec![ZoneId(0)]),
            to: Some(vec![ZoneId(1)]),
            source: (i % 3 != 0).then(|| vec![net(v6, 0x0a00_0000 + (random.below(256) << 16) as u32, 16)]),
            destination: Some(vec![net(
                v6,
                0xc0a8_0000 + (i as u32 * 7) % 65_536,
                if i % 5 == 0 { 28 } else { 32 },
            )]),
            service: Some(vec![service]),
            source_ports: None,
        }
    };
    (0..n).map(rule).collect()
}

/// Random prefixes of all lengths and random port ranges, over each other.
fn random(n: usize, v6: bool) -> Vec<RuleSpec> {
    let mut random = Random(11);
    let prefix = |random: &mut Random| {
        let len = 8 + random.below(25) as u8;
        vec![net(v6, 0x0a00_0000 | (random.next() as u32 & 0x00ff_ffff), len)]
    };
    let range = |random: &mut Random| {
        let (a, b) = (random.next() as u16, random.next() as u16);
        (a.min(b), a.max(b))
    };
    let rule = |_| {
        let ports = range(&mut random);
        RuleSpec {
            source: Some(prefix(&mut random)),
            destination: Some(prefix(&mut random)),
            service: Some(vec![ServiceSpec::Tcp(ports.0, ports.1)]),
            source_ports: Some(vec![range(&mut random)]),
            ..RuleSpec::default()
        }
    };
    (0..n).map(rule).collect()
}

/// An address in one of a rule's networks.
fn inside(random: &mut Random, nets: Option<&Vec<IpNet>>, v6: bool) -> [u8; 16] {
    let any = [net(v6, 0x0a00_0000, 8)];
    let nets = nets.map_or(&any[..], Vec::as_slice);
    match nets[random.below(nets.len() as u64) as usize] {
        IpNet::V4(net) => {
            let host = random.next() as u32 & net.hostmask().to_bits();
            std::net::Ipv4Addr::from(net.network().to_bits() | host)
                .to_ipv6_mapped()
                .octets()
        }
        IpNet::V6(net) => {
            let host = u128::from(random.next()) & net.hostmask().to_bits();
            (net.network().to_bits() | host).to_be_bytes()
        }
    }
}

/// Packets that match the rules, one as often as the other.
fn keys(rules: &[RuleSpec], v6: bool) -> Vec<ClassifyKey> {
    let mut random = Random(3);
    let key = |_| {
        let rule = &rules[random.below(rules.len() as u64) as usize];
        let (protocol, port) = match rule.service.as_ref().unwrap()[0] {
            ServiceSpec::Udp(port, _) => (17, port),
            ServiceSpec::Tcp(first, last) => (6, first + random.below(u64::from(last - first) + 1) as u16),
            _ => (47, 0),
        };
        let source_ports = rule
            .source_ports
            .as_ref()
            .map_or((1024, 65_535), |ports| ports[0]);
        let width = u64::from(source_ports.1 - source_ports.0) + 1;
        ClassifyKey {
            source: inside(&mut random, rule.source.as_ref(), v6),
            destination: inside(&mut random, rule.destination.as_ref(), v6),
            source_port: source_ports.0 + random.below(width) as u16,
            destination_port: port,
            from: ZoneId(0),
            to: ZoneId(1),
            protocol,
            ..ClassifyKey::default()
        }
    };
    (0..KEYS).map(key).collect()
}

fn ask(classifier: &dyn Classifier, keys: &[ClassifyKey], burst: usize) {
    let mut matches = [None; BURST];
    for keys in keys.chunks(burst) {
        classifier.classify(black_box(keys), &mut matches[..keys.len()]);
        black_box(&mut matches);
    }
}

fn questions(c: &mut Criterion, eal: &Eal) {
    for (family, v6) in [("IPv4", false), ("IPv6", true)] {
        let mut group = c.benchmark_group(format!("first match, {family}"));
        group.throughput(Throughput::Elements(KEYS as u64));
        for n in [1, 4, 8, 16, 32, 100, 1000, 10_000] {
            let rules = hosts(n, v6);
            let keys = keys(&rules, v6);
            let classifiers: [(&str, Box<dyn Classifier>); 2] = [
                ("linear", Box::new(LinearClassifier::new(&rules, ZONES))),
                ("rte_acl", Box::new(AclClassifier::new(eal, &rules, ZONES, 0))),
            ];
            for (name, classifier) in &classifiers {
                for (how, burst) in [("bursts", BURST), ("alone", 1)] {
                    group.bench_function(BenchmarkId::new(format!("{name}, {how}"), n), |b| {
                        b.iter(|| ask(&**classifier, &keys, burst));
                    });
                }
            }
        }
    }
}

fn builds(eal: &Eal) {
    for (name, rules) in [("hosts", hosts as fn(usize, bool) -> _), ("random", random)] {
        for (family, v6) in [("IPv4", false), ("IPv6", true)] {
            for n in [100, 1000, 2000, 5000, 10_000, 16_000] {
                let rules: Vec<RuleSpec> = rules(n, v6);
                let peak = |field: &str| {
                    let text = std::fs::read_to_string("/proc/self/status").unwrap();
                    let line = text.lines().find(|l| l.starts_with(field)).unwrap().to_owned();
                    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
                };
                std::fs::write("/proc/self/clear_refs", "5").unwrap();
                let rss = peak("VmRSS");
                let before = eal.memory_in_use();
                let begin = Instant::now();
                let classifier = AclClassifier::new(eal, &rules, ZONES, 0);
                let took = begin.elapsed();
                let bytes = eal.memory_in_use() - before;
                let grew = peak("VmHWM") - rss;
                let keys = keys(&rules, v6);
                let begin = Instant::now();
                for _ in 0..20 {
                    ask(&classifier, &keys, BURST);
                }
                let each = begin.elapsed().as_nanos() / (20 * KEYS as u128);
                println!(
                    "{name} {family} {n:6}: built in {:6} ms, {:6} KiB, {} MiB while building, {each} ns a packet {}",
                    took.as_millis(),
                    bytes >> 10,
                    grew >> 10,
                    classifier.warnings().join("; ")
                );
            }
        }
    }
}

fn main() {
    let eal = Eal::start(&EalConfig {
        memory_mib: 1024,
        ..EalConfig::default()
    })
    .unwrap();
    if std::env::var_os("CLASSIFY_BUILD").is_some() {
        builds(&eal);
    } else {
        let mut criterion = Criterion::default().configure_from_args();
        questions(&mut criterion, &eal);
        criterion.final_summary();
    }
}
