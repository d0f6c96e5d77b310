//! Any segments from either end of a TCP connection through the tracker: nothing panics; what is refused changes nothing; what
//! passes is what the four bounds say, in numbers that do not wrap; no number of an end ever goes back; the way of the steady
//! segments and the general one say the same.
//!
//! The input is a byte about the session, a SYN, and then a list of segments of eight bytes each ([`Step`]).
#![no_main]

use haechi::base::slab::HeapMemory;
use haechi::base::{Nanos, SessionIx};
use haechi::flow::track::{Event, flag, is_steady, open_tcp, pick_up_tcp, track_tcp};
use haechi::flow::{
    Direction, FlowKey, HashSeed, Options, Plain, Segment, Session, SessionState, SessionTable, TcpSender,
    Tracked,
};
use libfuzzer_sys::fuzz_target;

/// Eight bytes: which end and from where numbers count, flags, how far seq and ack are from there, the window's high byte, and
/// the data's length or a SYN's options.
type Step = [u8; 8];

/// `from`, or a number at the end of what is acceptable, plus an offset; or any number at all.
fn number(mode: u8, from: u32, edge: u32, offset: [u8; 2]) -> u32 {
    let offset = i16::from_le_bytes(offset);
    match mode & 3 {
        0 => from,
        1 => from.wrapping_add_signed(offset.into()),
        2 => edge.wrapping_add_signed(offset.into()),
        _ => from.wrapping_add_signed(i32::from(offset) << 16),
    }
}

fn segment(step: Step, tcp: &[TcpSender; 2], sender: Direction) -> Segment {
    let [how, flags, s0, s1, a0, a1, window, rest] = step;
    let (this, other) = (&tcp[sender.index()], &tcp[sender.reverse().index()]);
    let ack = number(how >> 3, other.end, this.acked, [a0, a1]);
    let is_syn = flags & flag::SYN != 0;
    Segment {
        flags,
        seq: number(how >> 1, this.end, this.max_end, [s0, s1]),
        ack,
        window: u16::from_be_bytes([window, rest]),
        data_len: if is_syn { 0 } else { u32::from(rest) * 37 },
        options: Options {
            scale: (is_syn && rest & 16 == 0).then_some((rest & 15).min(14)),
            sack: (how & 32 != 0).then(|| ack.wrapping_add(u32::from(rest) << 4)),
            fast_open: is_syn && how & 64 != 0,
            ..Options::default()
        },
    }
}

/// How far `a` is after `b`, as far as sequence space can tell.
fn after(a: u32, b: u32) -> i64 {
    i64::from(a.wrapping_sub(b).cast_signed())
}

/// The largest window that an end offered, in bytes; in units of its scale once that is known.
fn window(end: &TcpSender) -> i64 {
    let scale = if end.has(TcpSender::SETTLED) {
        end.scale & 15
    } else {
        0
    };
    (i64::from(end.max_win) << scale).max(1)
}

/// The four bounds (van Rooij), without wrapping.
fn within_bounds(tcp: &[TcpSender; 2], sender: Direction, segment: &Segment) -> bool {
    let (s, r) = (&tcp[sender.index()], &tcp[sender.reverse().index()]);
    let newest = match segment.options.sack {
        Some(sack) if after(sack, segment.ack) > 0 => sack,
        _ => segment.ack,
    };
    // Data may be overtaken by four windows. Further ahead than half of the numbers less those is behind, as far as sequence
    // space can tell.
    let ahead = after(segment.end(), s.end) + (4 * window(r)).min(1 << 30);
    // No data before the handshake is over, but for Fast Open (RFC 7413).
    let early = segment.data_len > 0 && !s.has(TcpSender::SYN_ACKED) && !r.has(TcpSender::FAST_OPEN);
    !early
        && after(segment.seq, s.max_end) <= 0
        && (0..1 << 31).contains(&ahead)
        && after(newest, r.end) <= 0
        && after(newest, r.end) >= -window(s).max(66_000)
}

/// What must hold of what the tracker did with a segment.
fn judge(before: &Session, after_it: &Session, sender: Direction, segment: &Segment, verdict: Tracked) {
    let (old, new) = (&before.tcp, &after_it.tcp);
    let strict = before.flags & Session::LIBERAL == 0;
    let event = Event::of(segment.flags);
    assert!(event.is_some() || verdict == Tracked::BadFlags);
    if matches!(
        verdict,
        Tracked::OutOfWindow | Tracked::BadFlags | Tracked::Reopen
    ) {
        assert_eq!(old, new, "refused, and yet noted");
    }
    assert!(strict || verdict != Tracked::OutOfWindow);
    for (was, is) in old.iter().zip(new) {
        if was.has(TcpSender::SYN_ACKED) {
            assert!(after(is.end, was.end) >= 0 && after(is.max_end, was.max_end) >= 0);
            assert!(!was.has(TcpSender::ACKED) || after(is.acked, was.acked) >= 0);
            assert_eq!(
                was.flags & !(TcpSender::FIN | TcpSender::RESET) & !is.flags,
                0,
                "a flag was lost"
            );
        }
        if was.has(TcpSender::SETTLED) {
            assert!(is.max_win >= was.max_win && is.scale == was.scale);
        }
    }
    let open = (SessionState::Established..=SessionState::LastAck).contains(&before.state());
    if open && strict && matches!(event, Some(Event::Ack | Event::Fin)) {
        let expected = within_bounds(old, sender, segment);
        assert_eq!(
            verdict != Tracked::OutOfWindow,
            expected,
            "{sender:?} {segment:?} {old:?}"
        );
    }
    if open && strict && verdict == Tracked::Move(SessionState::Closed) {
        let next = [old[sender.reverse().index()].acked, old[sender.index()].end];
        assert!(
            event == Some(Event::Rst) && next.contains(&segment.seq),
            "a blind RST closed it"
        );
    }
}

/// The way of the steady segments leads where the general one does, or it changes nothing.
fn both_ways(before: &Session, sender: Direction, segment: &Segment) {
    let plain = Plain {
        seq: segment.seq,
        ack: segment.ack,
        window: segment.window,
        data_len: segment.data_len,
    };
    let other = flag::SYN | flag::FIN | flag::RST | flag::ACK;
    if segment.flags & other != flag::ACK || segment.options.sack.is_some() {
        return;
    }
    let (mut steady, mut general) = (*before, *before);
    if is_steady(&mut steady, sender, || Some(plain)) {
        assert_eq!(track_tcp(&mut general, sender, segment), Tracked::Stay);
        assert_eq!(steady.tcp, general.tcp);
    } else {
        assert_eq!(steady.tcp, before.tcp);
    }
}

fn open(how: u8, first: Step) -> (SessionTable, SessionIx) {
    let mut table = SessionTable::new(1, &HeapMemory, HashSeed([1; 4])).expect("memory");
    let opener = if how & 1 == 0 {
        Direction::LowToHigh
    } else {
        Direction::HighToLow
    };
    let mut session = Session::new(FlowKey::default(), opener, SessionState::SynSent);
    session.set_strict(how & 2 == 0);
    let isn = u32::from_le_bytes([first[2], first[3], first[4], first[5]]);
    let mut segment = segment(first, &session.tcp, opener);
    segment.seq = isn;
    if how & 12 == 12 {
        segment.flags = flag::ACK;
        pick_up_tcp(&mut session, &segment);
    } else {
        segment.flags = flag::SYN;
        let _ = open_tcp(&mut session, &segment);
    }
    let hash = table.hash(&session.key);
    let ix = table.insert(session, hash, Nanos(0), 100).expect("room for one");
    if how & 12 == 12 {
        table.set_state(ix, SessionState::SynReceived, 100);
    }
    (table, ix)
}

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    let mut steps = rest
        .chunks_exact(8)
        .map(|step| <Step>::try_from(step).expect("eight"));
    let Some(first) = steps.next() else { return };
    let (mut table, ix) = open(*how, first);
    for step in steps {
        let before = *table.get(ix);
        let sender = if step[0] & 1 == 0 {
            before.opener
        } else {
            before.opener.reverse()
        };
        let segment = segment(step, &before.tcp, sender);
        both_ways(&before, sender, &segment);
        let verdict = track_tcp(table.get_mut(ix), sender, &segment);
        judge(&before, table.get(ix), sender, &segment, verdict);
        match verdict {
            Tracked::Move(state) => {
                assert_ne!(state, before.state(), "a move to the state that it is in");
                table.set_state(ix, state, 100);
            }
            Tracked::Shorten => table.set_state(ix, before.state(), 100),
            Tracked::Reopen => break,
            _ => {}
        }
    }
});
