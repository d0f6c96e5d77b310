//! Walks over all sessions, a bounded number of slots at a time.

use super::{Entry, SessionTable, deadline};
use crate::base::SessionIx;
use crate::flow::{HashKey, Session};

impl<H: HashKey> SessionTable<H> {
    /// Shows the sessions of `budget` slots from slot `from` on. `Some`: where to go on; `None`: that was the last. A
    /// session that lives all the while is shown exactly once.
    pub fn scan(&self, from: u32, budget: u32, mut show: impl FnMut(Entry<'_>)) -> Option<u32> {
        let (slots, next) = self.page(from, budget);
        for slot in slots {
            if let Some(entry) = self.entry(SessionIx(slot)) {
                show(entry);
            }
        }
        next
    }

    /// Ends the sessions among `budget` slots from slot `from` on that `keep` does not want. `Some`: where to go on.
    pub fn retain(&mut self, from: u32, budget: u32, mut keep: impl FnMut(Entry<'_>) -> bool) -> Option<u32> {
        let (slots, next) = self.page(from, budget);
        for slot in slots {
            if self.entry(SessionIx(slot)).is_some_and(|entry| !keep(entry)) {
                self.remove(SessionIx(slot));
            }
        }
        next
    }

    /// After timeouts got shorter: links the sessions among `budget` slots from slot `from` on to where their new
    /// deadlines ask for. `Some`: where to go on. (Longer timeouts need no such walk.) `timeout` may mark the session, but
    /// leaves its ports alone.
    pub fn rearm(
        &mut self,
        from: u32,
        budget: u32,
        mut timeout: impl FnMut(&mut Session) -> u32,
    ) -> Option<u32> {
        let (slots, next) = self.page(from, budget);
        for slot in slots {
            if self.cold[slot as usize].is_live() {
                let session = &mut self.sessions[slot as usize];
                let timeout = timeout(session);
                let deadline = deadline(session, timeout);
                self.wheel.hasten(&mut self.cold, slot, deadline);
            }
        }
        next
    }

    /// Slots from here on were never used: no walk need go so far.
    #[inline]
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.fresh
    }

    pub(super) fn page(&self, from: u32, budget: u32) -> (std::ops::Range<u32>, Option<u32>) {
        let end = from.saturating_add(budget).min(self.fresh);
        (from.min(end)..end, (end < self.fresh).then_some(end))
    }
}
