//! Bursts of any frames through the engine, under policies that change: nothing panics, every packet has one verdict, the
//! counters balance, and nothing is left when everything has idled out.
//!
//! The input is a list of steps: a byte that says what comes, then for a frame its length and its bytes.
#![no_main]

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use haechi::base::slab::HeapMemory;
use haechi::base::{Generation, Nanos, PortId};
use haechi::config::{self, RuleIds};
use haechi::engine::{Batch, DropReason, Engine, Note, Outputs};
use haechi::flow::HashSeed;
use haechi::packet::{ChecksumStatus, RxChecksum, VecPacket};
use haechi::policy::Policy;
use libfuzzer_sys::fuzz_target;

const BASE: &str = r#"
version = 1
[node]
mode = "transparent"
[[port]]
name = "a"
device = "vdev:net_null0"
zone = "in"
peer = "b"
[[port]]
name = "b"
device = "vdev:net_null1"
zone = "out"
peer = "a"
"#;

const RULES: [&str; 4] = [
    "[[rule]]\nname = \"all\"\naction = \"allow\"\n",
    "[[rule]]\nname = \"no\"\nservice = [\"udp\"]\naction = \"reject\"\n[[rule]]\nname = \"all\"\nfrom = \"in\"\naction = \"allow\"\n",
    "[transparent]\nnon_ip = \"pass\"\nsession_scope = \"node\"\n",
    "[[rule]]\nname = \"all\"\naction = \"allow\"\nsyn_protection = \"always\"\n",
];

#[derive(Default)]
struct Verdicts {
    passed: u64,
    dropped: u64,
    made: u64,
}

impl Outputs<VecPacket> for Verdicts {
    fn forward(&mut self, _: VecPacket, _: PortId, _: Note) {
        self.passed += 1;
    }
    fn drop(&mut self, _: VecPacket, _: DropReason, _: Note) {
        self.dropped += 1;
    }
    fn answer(&mut self, _: VecPacket, _: PortId, _: DropReason, _: Note) {
        self.dropped += 1;
        self.made += 1;
    }
    fn buffer(&mut self) -> Option<VecPacket> {
        Some(VecPacket::default())
    }
    fn originate(&mut self, _: VecPacket, _: PortId) {
        self.made += 1;
    }
}

/// Policies are made once: they take longer than all the rest.
type Made = (RuleIds, HashMap<(usize, u32), Arc<Policy>>);

thread_local! {
    static MADE: RefCell<Made> = RefCell::new((RuleIds::new(), HashMap::new()));
}

fn policy(rules: usize, generation: u32) -> Arc<Policy> {
    let rules = rules % RULES.len();
    MADE.with_borrow_mut(|(ids, made)| {
        let make = || {
            let config = config::load_text("fuzz", &format!("{BASE}{}", RULES[rules])).expect("valid");
            Arc::new(config::compile(&config, Generation(generation), ids).expect("compiles"))
        };
        made.entry((rules, generation)).or_insert_with(make).clone()
    })
}

fuzz_target!(|data: &[u8]| {
    let mut generation = 1;
    let mut now = Nanos::from_secs(1);
    let first = policy(0, generation);
    let mut engine = Engine::new(16, first, &HeapMemory, HashSeed([1, 2, 3, 4])).expect("memory");
    let mut verdicts = Verdicts::default();
    let mut batch = Batch::new();
    let mut rest = data;
    while let Some((step, after)) = rest.split_first() {
        rest = after;
        match step {
            0..=3 => {
                engine.process(now, &mut batch, &mut verdicts);
                now = now.plus(Nanos::from_secs(u64::from(*step) * 11));
                engine.upkeep(now, 1000, &mut verdicts);
            }
            4..=7 => {
                generation += 1;
                drop(engine.set_policy(policy(usize::from(*step), generation)));
            }
            _ => {
                let Some((len, after)) = rest.split_first() else {
                    break;
                };
                let (frame, after) = after.split_at(usize::from(*len).min(after.len()));
                rest = after;
                let l4 = if step & 2 == 0 {
                    ChecksumStatus::Good
                } else {
                    ChecksumStatus::Unknown
                };
                let packet = VecPacket {
                    frame: frame.to_vec(),
                    checksum: RxChecksum::new(ChecksumStatus::Good, l4),
                    hash: None,
                };
                if let Err(packet) = batch.try_push(packet, PortId(u16::from(step & 1))) {
                    engine.process(now, &mut batch, &mut verdicts);
                    assert!(
                        batch.try_push(packet, PortId(0)).is_ok(),
                        "the batch was left empty"
                    );
                }
            }
        }
    }
    engine.process(now, &mut batch, &mut verdicts);
    let counters = engine.counters();
    assert_eq!(
        counters.received,
        verdicts.passed + verdicts.dropped + engine.held()
    );
    assert_eq!(
        (counters.forwarded, counters.dropped()),
        (verdicts.passed, verdicts.dropped)
    );
    assert_eq!(counters.originated, verdicts.made);
    now = now.plus(Nanos::from_secs(3 * 3600));
    while engine.upkeep(now, 100_000, &mut verdicts).lag != Nanos(0) {}
    assert_eq!((engine.table().len(), engine.held()), (0, 0));
    assert_eq!(
        engine.counters().sessions_created,
        engine.counters().sessions_ended
    );
    assert!(engine.rules().iter().all(|rule| rule.sessions == 0));
});
