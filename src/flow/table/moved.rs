//! Sessions that go from one worker's table to another's, with everything that a table keeps of them.

use super::journal::Carried;
use super::{Entry, SessionId, SessionTable, TableFull, packets};
use crate::base::{Nanos, SessionIx, Tick};
use crate::flow::{HashKey, Session, Translation};
use crate::packet::LinkHeader;

/// A session on its way: what all arrays of a table hold of it. Its slot, its name and its timer are the new table's to give.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// The session.
    pub session: Session,
    /// When it was made.
    pub created: Nanos,
    /// Means something with [`Session::PROXIED`].
    pub translation: Translation,
    /// By direction; mean something with [`Session::RESETS`] or [`Session::PROXIED`].
    pub links: [LinkHeader; 2],
    carry: [u16; 2],
    /// What the other node of a pair knows of it.
    told: Carried,
}

impl Moved {
    /// What is to be written down of it where no table takes it: its name is no session's.
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        Entry {
            id: SessionId {
                ix: SessionIx(u32::MAX),
                version: 0,
            },
            session: &self.session,
            translation: self.translation,
            created: self.created,
            packets: packets(&self.session, self.carry),
            is_peers: false,
        }
    }
}

impl<H: HashKey> SessionTable<H> {
    /// A session with all that belongs to it; `None`: the slot is free.
    #[must_use]
    pub fn pack(&self, ix: SessionIx) -> Option<Moved> {
        let cold = self.cold.get(ix.index()).filter(|cold| cold.is_live())?;
        Some(Moved {
            session: self.sessions[ix.index()],
            created: cold.created,
            translation: self.translations[ix.index()],
            links: self.links[ix.index()],
            carry: cold.carry,
            told: self
                .journal
                .as_ref()
                .map_or_else(Carried::default, |j| j.carried(ix.0)),
        })
    }

    /// Removes a session that has gone to another worker's table. Nobody is told that it ended.
    pub fn remove_moved(&mut self, ix: SessionIx) {
        if let Some(journal) = &mut self.journal {
            journal.leave(ix.0, &self.sessions[ix.index()].key);
        }
        self.remove(ix);
    }

    /// Puts a session in that another table had. It idles since its last packet, and may do so for `timeout` ticks in all; if that
    /// is over by `now`, its timer finds it next.
    ///
    /// # Errors
    /// When the table holds its capacity already; nothing changed.
    pub fn unpack(&mut self, moved: &Moved, now: Tick, timeout: u32) -> Result<SessionIx, TableFull> {
        let hash = self.hash(&moved.session.key);
        debug_assert!(
            self.find(&moved.session.key, hash).is_none(),
            "the key is in the table"
        );
        let session = moved.session;
        let ix = self.place(session, hash, moved.created, timeout, now)?;
        self.cold[ix.index()].carry = moved.carry;
        if session.resets() || session.is_proxied() {
            self.links[ix.index()] = moved.links;
        }
        if session.is_proxied() {
            self.translations[ix.index()] = moved.translation;
        }
        if let Some(journal) = &mut self.journal {
            journal.arrive(ix.0, &session.key, &moved.told);
        }
        Ok(ix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::HeapMemory;
    use crate::flow::session::PacketCount;
    use crate::flow::{Direction, FlowKey, HashSeed, SessionState};

    fn flow(n: u32) -> FlowKey {
        FlowKey {
            domain: n,
            ..FlowKey::default()
        }
    }

    #[test]
    fn a_session_is_the_same_in_another_table() {
        let mut from = SessionTable::new(4, &HeapMemory, HashSeed([1; 4])).unwrap();
        let mut to = SessionTable::new(4, &HeapMemory, HashSeed([2; 4])).unwrap();
        let mut session = Session::new(flow(7), Direction::HighToLow, SessionState::Established);
        session.flags = Session::RESETS | Session::PROXIED;
        let born = Nanos::from_secs(5);
        let ix = from.insert(session, from.hash(&flow(7)), born, 1000).unwrap();
        from.sessions[ix.index()].packets = [u32::MAX, 3].map(PacketCount::new);
        from.touch(ix, Direction::LowToHigh, Nanos::from_secs(6).tick(), 100);
        from.translations[ix.index()].sequence = 99;
        from.note_link(ix, Direction::LowToHigh, &[7; 60], 14);
        let moved = from.pack(ix).unwrap();
        let (its, of_moved) = (from.entry(ix).unwrap(), moved.entry());
        assert_eq!(its.packets, of_moved.packets);
        assert_eq!(
            (its.created, its.translation),
            (of_moved.created, of_moved.translation)
        );
        assert!(from.remove(ix));
        assert!(from.pack(ix).is_none());

        let now = Nanos::from_secs(7).tick();
        let there = to.unpack(&moved, now, 1000).unwrap();
        assert_eq!(to.find(&flow(7), to.hash(&flow(7))), Some(there));
        let entry = to.entry(there).unwrap();
        assert_eq!((entry.created, entry.packets), (born, [3, 1 << 32]));
        assert_eq!(entry.session.bytes(), [0, 100]);
        assert_eq!(entry.translation.sequence, 99);
        assert!(!to.links(there)[0].is_unknown() && to.links(there)[1].is_unknown());
        assert_eq!(
            (from.len(), to.len(), to.count(SessionState::Established)),
            (0, 1, 1)
        );
        // It idles since its last packet, not since it moved.
        let over = Nanos::from_secs(6).tick().plus(1002 + 32);
        let ended = |table: &mut SessionTable, at| {
            table
                .expire(at, 100, |_| 1000, |_| super::super::Due::End)
                .expired
        };
        assert_eq!(ended(&mut to, Nanos::from_secs(6).tick().plus(1000)), 0);
        assert_eq!(ended(&mut to, over), 1);
    }

    #[test]
    fn one_that_is_overdue_ends_next_and_a_full_table_takes_none() {
        let mut from = SessionTable::new(2, &HeapMemory, HashSeed([1; 4])).unwrap();
        let mut to = SessionTable::new(1, &HeapMemory, HashSeed([2; 4])).unwrap();
        let moved = [1, 2].map(|n| {
            let session = Session::new(flow(n), Direction::LowToHigh, SessionState::UdpNew);
            let ix = from.insert(session, from.hash(&flow(n)), Nanos(0), 100).unwrap();
            from.pack(ix).unwrap()
        });
        let now = Nanos::from_secs(3600).tick();
        assert!(to.unpack(&moved[0], now, 100).is_ok());
        assert_eq!(to.unpack(&moved[1], now, 100), Err(TableFull));
        let expiry = to.expire(now.plus(40), 100, |_| 100, |_| super::super::Due::End);
        assert_eq!((expiry.expired, to.len()), (1, 0));
        assert!(to.unpack(&moved[1], now, 100).is_ok());
    }
}
