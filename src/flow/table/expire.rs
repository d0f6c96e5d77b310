//! Sessions that idled out.

use super::{Entry, SessionTable, deadline, entry};
use crate::base::simd::prefetch;
use crate::base::{Nanos, SessionIx, Tick};
use crate::flow::index::{self, NIL};
use crate::flow::{HashKey, Session};

/// Sessions that one look at the wheel fetches together.
const EXPIRE_BATCH: usize = 32;

/// What becomes of a session that idled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It ends.
    End,
    /// It is looked at again after so many ticks.
    Later(u32),
}

/// What one call of [`SessionTable::expire`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expiry {
    /// Sessions that ended.
    pub expired: u32,
    /// Sessions that were looked at and live on.
    pub rearmed: u32,
    /// How far the wheel is behind after the call; 0: nothing that is due is left.
    pub lag: Nanos,
}

impl<H: HashKey> SessionTable<H> {
    /// Ends the sessions that idled longer than `timeout` (ticks, asked for now, so that an applied policy's count) allows;
    /// each is shown to `judge` first, which may put it off. Looks at most at `budget` sessions and empty places of the wheel. No session ends
    /// early; one ends at most 0.3 s late if the lag of the calls is 0. Until then its packets find it, and it idles anew.
    pub fn expire(
        &mut self,
        now: Tick,
        budget: u32,
        timeout: impl Fn(&Session) -> u32,
        mut judge: impl FnMut(Entry<'_>) -> Due,
    ) -> Expiry {
        let mut result = Expiry::default();
        if self.len == 0 {
            return result;
        }
        let mut budget = budget;
        let mut due = [NIL; EXPIRE_BATCH];
        while let Some(head) = self.wheel.due(now, &mut budget) {
            for slot in self.gather(head, budget, &mut due) {
                budget -= 1;
                let session = &self.sessions[*slot as usize];
                let mut deadline = deadline(session, timeout(session));
                if now.distance(deadline) >= 0 {
                    let translation = self.translations[*slot as usize];
                    let is_peers = self.is_peers(SessionIx(*slot));
                    let cold = &self.cold[*slot as usize];
                    match judge(entry(*slot, session, translation, cold, is_peers)) {
                        Due::End => {
                            self.remove(SessionIx(*slot));
                            result.expired += 1;
                            continue;
                        }
                        Due::Later(ticks) => deadline = now.plus(ticks.max(1)),
                    }
                }
                self.wheel.unlink(&mut self.cold, *slot);
                self.wheel.link(&mut self.cold, *slot, deadline);
                result.rearmed += 1;
            }
        }
        if self.len != 0 {
            result.lag = Nanos(u64::from(self.wheel.lag(now)) * Tick::NANOS);
        }
        result
    }

    /// Collects the first slots of a list and fetches what looking at them will touch.
    fn gather<'a>(&self, head: u32, budget: u32, due: &'a mut [u32; EXPIRE_BATCH]) -> &'a [u32] {
        let (index, sessions, cold) = (&*self.index, &*self.sessions, &*self.cold);
        let mut slot = head;
        let mut n = 0;
        while slot != NIL && n < EXPIRE_BATCH.min(budget as usize) {
            let entry = &cold[slot as usize];
            prefetch(&sessions[slot as usize].bytes);
            prefetch(&index[index::home(entry.hash(), index.len())]);
            prefetch(&self.queues.links[slot as usize]);
            due[n] = slot;
            n += 1;
            slot = entry.next;
        }
        &due[..n]
    }
}
