//! Alert records within `alert_rate`: a meter for each rule. What a meter keeps back is counted, and the count goes out with the
//! rule's next record; when no more packets come, with the last packet that was kept back. So of every rule, once all is out,
//! records and counts add up to the packets that it dropped.

use super::DropReason;
use super::record::{Event, Record};
use crate::base::{Nanos, Slab};
use crate::policy::Action;

/// A packet that a drop or reject rule dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Why.
    pub reason: DropReason,
    /// What the rule does.
    pub action: Action,
    /// Bytes of the IP packet.
    pub bytes: u32,
    /// Packets that the rule dropped since the record before this one, and that have none of their own.
    pub suppressed: u64,
}

/// No rule: the end of a list.
const NIL: u32 = u32::MAX;

/// One rule's meter: a bucket that leaks `rate` records a second and holds a second's worth. (Filled, not emptied, by
/// records: so zeros are a fresh meter, whatever the rate.)
#[derive(Clone, Copy, Default)]
struct Meter {
    /// In units of 1 / (10^9) record.
    level: u64,
    leaked: Nanos,
    /// Packets kept back since the last record.
    suppressed: u64,
    /// When the first of them came.
    since: Nanos,
    /// The last of them.
    last: Record,
    /// The next rule that may have some.
    next: u32,
    listed: bool,
}

impl Meter {
    const RECORD: u64 = 1_000_000_000;

    fn try_take(&mut self, rate: u32, now: Nanos) -> bool {
        let elapsed = now.since(self.leaked).0.min(Nanos::SECOND.0);
        self.leaked = self.leaked.max(now);
        self.level = self.level.saturating_sub(elapsed * u64::from(rate));
        if self.level + Self::RECORD > u64::from(rate) * Self::RECORD {
            return false;
        }
        self.level += Self::RECORD;
        true
    }

    /// The last packet kept back, with the count of the others.
    fn release(&mut self) -> Record {
        let mut record = self.last;
        if let Event::Alert(alert) = &mut record.event {
            alert.suppressed = self.suppressed.saturating_sub(1);
        }
        self.suppressed = 0;
        record
    }
}

/// The meters of all rules, and the list of those that keep packets back.
pub(super) struct Alerts {
    /// By rule id; empty: nobody reads alerts.
    meters: Slab<Meter>,
    first: u32,
    last: u32,
    next_look: Nanos,
}

impl Default for Alerts {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Alerts {
    /// So long a count waits for a packet to go out with.
    const WAIT: Nanos = Nanos::SECOND;
    /// The list is looked at so often ...
    const LOOK_EVERY: Nanos = Nanos::MILLISECOND;
    /// ... and so many rules of it at once: all that a configuration can have within a quarter of a second.
    const LOOK_AT: usize = 64;

    pub(super) fn new(rules: usize) -> Self {
        Self {
            meters: Slab::heap(rules),
            first: NIL,
            last: NIL,
            next_look: Nanos(0),
        }
    }

    /// A packet that its rule dropped just now. `Some`: this is to be written down. With no `room` for it it is kept back.
    pub(super) fn offer(&mut self, mut record: Record, rate: u32, room: bool) -> Option<Record> {
        let meter = self.meters.get_mut(record.rule.index())?;
        if room && meter.try_take(rate, record.at) {
            if let Event::Alert(alert) = &mut record.event {
                alert.suppressed = std::mem::take(&mut meter.suppressed);
            }
            return Some(record);
        }
        if meter.suppressed == 0 {
            meter.since = record.at;
        }
        meter.suppressed += 1;
        meter.last = record;
        self.list(record.rule.0);
        None
    }

    /// Is there anything that may have to go out?
    #[inline]
    pub(super) fn is_due(&self, now: Nanos) -> bool {
        self.first != NIL && now >= self.next_look
    }

    /// Is nothing kept back?
    pub(super) const fn is_empty(&self) -> bool {
        self.first == NIL
    }

    /// How many rules to [`Alerts::look`] at now, each of which may take one of `room` places.
    pub(super) fn begin(&mut self, now: Nanos, room: usize) -> usize {
        self.next_look = now.plus(Self::LOOK_EVERY);
        Self::LOOK_AT.min(room)
    }

    /// Looks at one rule of the list. `Some`: a packet that was kept back for long enough.
    pub(super) fn look(&mut self, now: Nanos, rate: u32) -> Option<Record> {
        let rule = self.unlist()?;
        let meter = &mut self.meters[rule as usize];
        if meter.suppressed == 0 {
            return None;
        }
        // A second after a meter refused a packet it has room for one more; with a rate of 0 it never has.
        let waited = now >= meter.since.plus(Self::WAIT);
        if waited && (rate == 0 || meter.try_take(rate, now)) {
            return Some(meter.release());
        }
        // To the end of the list, so that each is looked at in turn.
        self.list(rule);
        None
    }

    /// One packet of those kept back, whatever the time and the rate: the node stops.
    pub(super) fn release(&mut self) -> Option<Record> {
        while let Some(rule) = self.unlist() {
            let meter = &mut self.meters[rule as usize];
            if meter.suppressed > 0 {
                return Some(meter.release());
            }
        }
        None
    }

    fn list(&mut self, rule: u32) {
        let meter = &mut self.meters[rule as usize];
        if meter.listed {
            return;
        }
        meter.listed = true;
        meter.next = NIL;
        match self.meters.get_mut(self.last as usize) {
            Some(last) => last.next = rule,
            None => self.first = rule,
        }
        self.last = rule;
    }

    fn unlist(&mut self) -> Option<u32> {
        let rule = self.first;
        let meter = self.meters.get_mut(rule as usize)?;
        meter.listed = false;
        self.first = meter.next;
        if self.first == NIL {
            self.last = NIL;
        }
        Some(rule)
    }
}
