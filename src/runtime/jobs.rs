//! Commands that take a worker several turns, a step a turn.

use super::command::{BucketScan, Farewell, Kill, Lookup, RuleScan, SessionCopy, SessionScan};
use crate::base::{Nanos, RuleId};
use crate::control::eventlog::RecordQueue;
use crate::dpdk::Mbuf;
use crate::engine::Engine;

/// Sessions, keys or rules that a running job looks at in one turn: some ten microseconds, a small part of what a
/// receive ring of the default size bridges at 10 Gbit/s.
const JOB_STEP: u32 = 128;

/// Looks at some slots; true: done.
pub(super) fn step_scan(engine: &Engine<Mbuf>, scan: &mut SessionScan, now: Nanos) -> bool {
    scan.now = now;
    scan.scale = engine.timeout_scale();
    let room = scan.found.capacity().saturating_sub(scan.found.len());
    // A slot holds at most one session, so this cannot run out of room.
    let budget = JOB_STEP
        .min(scan.slots)
        .min(u32::try_from(room).unwrap_or(u32::MAX));
    if budget == 0 {
        scan.next = Some(scan.from);
        return true;
    }
    let found = &mut scan.found;
    scan.next = engine
        .table()
        .scan(scan.from, budget, |entry| found.push(SessionCopy::from(entry)));
    scan.slots -= budget;
    match scan.next {
        None => true,
        Some(next) => {
            scan.from = next;
            scan.slots == 0
        }
    }
}

/// Ends some sessions; true: done.
pub(super) fn step_kill(engine: &mut Engine<Mbuf>, kill: &mut Kill, now: Nanos) -> bool {
    for id in kill.sessions.iter().skip(kill.done).take(JOB_STEP as usize) {
        kill.done += 1;
        if let Some(ix) = engine.table().resolve(*id) {
            engine.kill(now, ix);
            kill.killed += 1;
        }
    }
    kill.done >= kill.sessions.len()
}

/// Records go on their way to the log. What finds no room waits in the engine, whose room is what bounds it.
#[cold]
pub(super) fn pass_records(engine: &mut Engine<Mbuf>, queue: Option<&RecordQueue>) {
    let Some(queue) = queue else {
        return;
    };
    while !queue.is_full() {
        let Some(record) = engine.next_record() else {
            return;
        };
        // Nobody else pushes: there is room.
        let _ = queue.push(record);
    }
}

/// Tells the log of some sessions; true: of all, and everything is on its way.
pub(super) fn step_farewell(
    engine: &mut Engine<Mbuf>,
    queue: Option<&RecordQueue>,
    farewell: &mut Farewell,
    now: Nanos,
) -> bool {
    let wait = now < farewell.until;
    if let Some(from) = farewell.from {
        farewell.from = engine.farewell(now, from, JOB_STEP, wait);
    }
    pass_records(engine, queue);
    if !wait {
        engine.lose_records();
    }
    farewell.from.is_none() && engine.records() == 0
}

/// Looks some keys up; true: done.
pub(super) fn step_lookup(engine: &Engine<Mbuf>, lookup: &mut Lookup, now: Nanos) -> bool {
    lookup.now = now;
    lookup.scale = engine.timeout_scale();
    let table = engine.table();
    for key in lookup.keys.iter().skip(lookup.done).take(JOB_STEP as usize) {
        lookup.done += 1;
        let entry = table.find(key, table.hash(key)).and_then(|ix| table.entry(ix));
        match entry {
            Some(entry) if lookup.found.len() < lookup.found.capacity() => {
                lookup.found.push(SessionCopy::from(entry));
            }
            _ => {}
        }
    }
    lookup.done >= lookup.keys.len()
}

/// Counts the sessions of some slots; true: of as many as it was asked for, or of all.
pub(super) fn step_buckets(engine: &Engine<Mbuf>, scan: &mut BucketScan) -> bool {
    let budget = JOB_STEP.min(scan.slots);
    scan.from = scan
        .from
        .and_then(|from| engine.count_buckets(from, budget, &mut scan.sessions));
    scan.slots -= budget;
    scan.from.is_none() || scan.slots == 0
}

/// Copies some rules' counters; true: done.
pub(super) fn step_rules(engine: &Engine<Mbuf>, scan: &mut RuleScan) -> bool {
    let room = scan.counters.capacity() - scan.counters.len();
    let before = scan.counters.len();
    let rest = (scan.from + before..).map_while(|id| engine.rule_counters(RuleId(id as u32)));
    scan.counters.extend(rest.take(room.min(JOB_STEP as usize)));
    scan.counters.len() == before || scan.counters.len() == scan.counters.capacity()
}
