//! A connection that the tracker sees, and conversations in short.

use haechi::base::slab::HeapMemory;
use haechi::base::{Nanos, SessionIx};
use haechi::flow::track::{Event, flag, open_tcp, track_tcp};
use haechi::flow::{
    Direction, FlowKey, HashSeed, Options, Segment, Session, SessionState, SessionTable, Tracked,
};

pub(crate) const S: u8 = flag::SYN;
pub(crate) const SA: u8 = flag::SYN | flag::ACK;
pub(crate) const A: u8 = flag::ACK;
pub(crate) const FA: u8 = flag::FIN | flag::ACK;
pub(crate) const R: u8 = flag::RST;
pub(crate) const RA: u8 = flag::RST | flag::ACK;

/// The rest of a segment: a window that all that is sent here fits in, no options.
pub(crate) const WINDOW: Segment = Segment {
    flags: 0,
    seq: 0,
    ack: 0,
    window: 65_535,
    data_len: 0,
    options: Options {
        scale: None,
        sack: None,
        fast_open: false,
        mss: None,
        sack_permitted: false,
        timestamps: None,
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Opener,
    Replier,
}
pub(crate) use End::{Opener, Replier};

impl End {
    fn other(self) -> Self {
        if self == Opener { Replier } else { Opener }
    }
}

/// A tracked connection, with what its ends have sent so far. Data is 100 bytes a segment.
pub(crate) struct Connection {
    table: SessionTable,
    ix: SessionIx,
    /// The next sequence number of each end, and the FIN's end once it is sent.
    pub(crate) next: [u32; 2],
    pub(crate) fin_end: [Option<u32>; 2],
}

impl Connection {
    /// The opener's SYN has been seen.
    pub(crate) fn open(opener: Direction, isn: [u32; 2]) -> Self {
        let mut table = SessionTable::new(1, &HeapMemory, HashSeed([1; 4])).unwrap();
        let mut session = Session::new(FlowKey::default(), opener, SessionState::SynSent);
        let syn = Segment {
            flags: S,
            seq: isn[0],
            ack: 0,
            data_len: 0,
            ..WINDOW
        };
        assert!(open_tcp(&mut session, &syn));
        let hash = table.hash(&session.key);
        let ix = table.insert(session, hash, Nanos(0), 100).unwrap();
        Self {
            table,
            ix,
            next: [isn[0].wrapping_add(1), isn[1]],
            fin_end: [None; 2],
        }
    }

    pub(crate) fn state(&self) -> SessionState {
        self.table.get(self.ix).state()
    }

    /// A copy of the session as it is.
    pub(crate) fn session(&self) -> Session {
        *self.table.get(self.ix)
    }

    /// What the tracker says of a segment, and the state after it.
    pub(crate) fn raw(&mut self, from: End, segment: Segment) -> (Tracked, SessionState) {
        let session = self.table.get_mut(self.ix);
        let sender = if from == Opener {
            session.opener
        } else {
            session.opener.reverse()
        };
        let tracked = track_tcp(session, sender, &segment);
        if let Tracked::Move(state) = tracked {
            assert_ne!(state, self.state(), "a move to the state that it is in");
            self.table.set_state(self.ix, state, 100);
        }
        (tracked, self.state())
    }

    /// A segment of this end with these flags and `data_len` bytes; it acknowledges the other's FIN or all but it.
    fn segment(&self, from: End, flags: u8, data_len: u32, acks_fin: bool) -> Segment {
        let (this, other) = (from as usize, from.other() as usize);
        let mut seq = self.next[this];
        if let Some(end) = self.fin_end[this] {
            // A FIN sent again is the same FIN; anything else comes after it.
            seq = if flags & flag::FIN != 0 {
                end.wrapping_sub(1)
            } else {
                end
            };
        } else if flags & flag::SYN != 0 && from == Opener {
            seq = seq.wrapping_sub(1);
        }
        let ack = match self.fin_end[other] {
            Some(end) if acks_fin => end,
            Some(end) => end.wrapping_sub(1),
            None => self.next[other],
        };
        Segment {
            flags,
            seq,
            ack,
            data_len,
            ..WINDOW
        }
    }

    pub(crate) fn send(
        &mut self,
        from: End,
        flags: u8,
        data_len: u32,
        acks_fin: bool,
    ) -> (Tracked, SessionState) {
        let segment = self.segment(from, flags, data_len, acks_fin);
        let this = from as usize;
        if self.fin_end[this].is_none() {
            self.next[this] = segment.end();
            if flags & flag::FIN != 0 && Event::of(flags).is_some() {
                self.fin_end[this] = Some(segment.end());
            }
        }
        self.raw(from, segment)
    }

    /// A conversation in short: each word is `o` or `r`, a kind of segment (`s`, `sa`, `a`, `d`ata, `f`in, `r`st; `*`
    /// after `a` and `f`: acknowledges the other's FIN), and after `=` the state that it must lead to.
    pub(crate) fn talk(&mut self, words: &str) -> &mut Self {
        for word in words.split_whitespace() {
            let (what, expected) = word.split_once('=').unwrap();
            let from = if what.starts_with('o') { Opener } else { Replier };
            let (flags, len, acks_fin) = match &what[1..] {
                "s" => (S, 0, false),
                "sa" => (SA, 0, false),
                "a" => (A, 0, false),
                "a*" => (A, 0, true),
                "d" => (A | flag::PSH, 100, false),
                "d*" => (A | flag::PSH, 100, true),
                "f" => (FA, 0, false),
                "f*" => (FA, 0, true),
                "fd" => (FA | flag::PSH, 100, false),
                "r" => (R, 0, false),
                "ra" => (RA, 0, true),
                other => unreachable!("{other}"),
            };
            let (tracked, state) = self.send(from, flags, len, acks_fin);
            let got = match tracked {
                Tracked::Stay | Tracked::Move(_) => state.name(),
                Tracked::Reopen => "REOPEN",
                Tracked::BadFlags => "BAD",
                Tracked::OutOfWindow => "OUT",
                Tracked::Shorten => "SHORT",
            };
            assert_eq!(got, expected, "after {word:?} of {words:?}");
        }
        self
    }
}

/// Initial sequence numbers that stay clear of the wrap, and such that SYN, data or FIN fall on it.
pub(crate) const ISNS: [[u32; 2]; 5] = [
    [1000, 5000],
    [u32::MAX, u32::MAX],
    [u32::MAX - 1, u32::MAX - 101],
    [u32::MAX - 100, u32::MAX - 2],
    [0x7fff_ffff, 0x7fff_ff9b],
];

/// A fresh connection in every orientation.
pub(crate) fn every_way(mut test: impl FnMut(Connection)) {
    for opener in [Direction::LowToHigh, Direction::HighToLow] {
        for isn in ISNS {
            test(Connection::open(opener, isn));
        }
    }
}

pub(crate) fn conversation(words: &str) {
    every_way(|mut c| {
        c.talk(words);
    });
}
