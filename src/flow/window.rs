//! What each end of a TCP connection may send and acknowledge, as a middlebox knows it: the four bounds of Guido van Rooij,
//! "Real Stateful TCP Packet Filtering in IP Filter" (2000), in the form that netfilter gave them.
//!
//! Of each end as a *sender* four numbers are kept: the highest sequence number that it sent, the highest that the other
//! end's windows allowed it, the highest acknowledgement that it sent, and the largest window that it offered.

use super::Direction;
use super::segment::{Segment, at_or_before, flag, later};

/// What is known of one end of a TCP connection as a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TcpSender {
    /// The sequence number after the last one that it sent (`td_end` of van Rooij): data, SYN and FIN. After
    /// [`TcpSender::FIN`] it is what the other end's acknowledgement of the FIN carries.
    pub end: u32,
    /// The right edge of the windows that the other end offered it.
    pub max_end: u32,
    /// The highest acknowledgement that it sent ([`TcpSender::ACKED`]): what the other end must put into a RST (RFC 5961,
    /// section 3.2). Before it sent one: the number after its SYN, without data.
    pub acked: u32,
    /// The largest window that it offered, in units of its scale, rounded up; before [`TcpSender::SETTLED`] in bytes.
    pub max_win: u16,
    /// [`TcpSender::SYN`] and so on.
    pub flags: u8,
    /// Its window scale: before [`TcpSender::SETTLED`] what its SYN announced or [`TcpSender::NO_SCALE`], then what is used.
    pub scale: u8,
}

/// "An end may acknowledge data that is this old" where the windows are small: bound IV of van Rooij, `MAXACKWINDOW`.
const MAX_ACK_WINDOW: u32 = 66_000;
/// By so many windows a segment may be overtaken by later ones of its sender.
const OVERTAKEN_WINDOWS: u32 = 4;

impl TcpSender {
    /// In `flags`: it sent a SYN.
    pub const SYN: u8 = 1;
    /// In `flags`: its SYN was acknowledged by the other end.
    pub const SYN_ACKED: u8 = 2;
    /// In `flags`: it sent a FIN; `end` is the sequence number after it.
    pub const FIN: u8 = 4;
    /// In `flags`: its FIN was acknowledged by the other end.
    pub const FIN_ACKED: u8 = 8;
    /// In `flags`: `acked` is an acknowledgement.
    pub const ACKED: u8 = 16;
    /// In `flags`: its SYN had a Fast Open option (RFC 7413).
    pub const FAST_OPEN: u8 = 32;
    /// In `flags`: both SYNs are acknowledged, and the scales are what both use.
    pub const SETTLED: u8 = 64;
    /// In `flags`: it sent a RST that was in the window, but not what the other end must accept. If the other end did, the
    /// connection is gone, and soon its session; if not, more segments of this sender follow.
    pub const RESET: u8 = 128;
    /// In `scale`: its SYN had no such option.
    pub const NO_SCALE: u8 = 0xff;

    /// Is a flag of `flags` set?
    #[inline]
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The largest window that it offered, in bytes; at least 1, for the byte that probes a closed one.
    const fn window(&self) -> u32 {
        let window = if self.flags & Self::SETTLED != 0 {
            self.scaled()
        } else {
            self.max_win as u32
        };
        if window == 0 { 1 } else { window }
    }

    /// The same of a settled one: its scale is 14 at most.
    #[inline(always)]
    const fn scaled(&self) -> u32 {
        (self.max_win as u32).wrapping_shl(self.scale as u32)
    }
}

/// I: data begins before the right edge of the windows that were offered. (Where it may end the other end knows better.)
#[inline(always)]
const fn data_is_not_too_new(sender: &TcpSender, seq: u32) -> bool {
    at_or_before(seq, sender.max_end)
}

/// II: data ends after what the other end can have acknowledged and forgotten: a window before the newest data. (A keepalive
/// has the byte before the next one, RFC 9293, section 3.8.4.) But a segment that was sent again while it was delayed on its
/// way may be overtaken by several round trips, each of a window; its receiver only acknowledges it once more.
#[inline(always)]
const fn data_is_not_too_old(sender: &TcpSender, receiver: &TcpSender, end: u32) -> bool {
    is_at_most_old(sender, receiver, OVERTAKEN_WINDOWS, end)
}

/// Is a number at most so many of the receiver's windows before the newest data?
#[inline(always)]
const fn is_at_most_old(sender: &TcpSender, receiver: &TcpSender, windows: u32, end: u32) -> bool {
    let windows = receiver.window().saturating_mul(windows);
    // Half of the sequence space, and not more, is before a number.
    let back = if windows < 1 << 30 { windows } else { 1 << 30 };
    at_or_before(sender.end.wrapping_sub(back), end)
}

/// III: only what was sent is acknowledged.
#[inline(always)]
const fn ack_is_not_too_new(receiver: &TcpSender, ack: u32) -> bool {
    at_or_before(ack, receiver.end)
}

/// IV: what is acknowledged is not older than data can be that is not acknowledged yet: the window of the end that
/// acknowledges. (Where that is small, acknowledgements that were overtaken may be older.)
#[inline(always)]
const fn ack_is_not_too_old(sender: &TcpSender, receiver: &TcpSender, ack: u32) -> bool {
    let window = sender.window();
    let window = if window > MAX_ACK_WINDOW {
        window
    } else {
        MAX_ACK_WINDOW
    };
    at_or_before(receiver.end.wrapping_sub(window), ack)
}

/// The fields of a segment that say all there is about one with ACK alone: no SYN, FIN or RST, no SACK.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The window field.
    pub window: u16,
    /// Bytes of data.
    pub data_len: u32,
}

/// A plain segment of an established connection: if it is within all bounds and needs nothing but the usual notes, they are
/// taken. `false`: nothing was changed; [`super::track::track_tcp`] has to look.
#[inline(always)]
pub fn pass_plain(tcp: &mut [TcpSender; 2], sender: Direction, segment: &Plain) -> bool {
    const USUAL: u8 = TcpSender::SETTLED | TcpSender::ACKED;
    let [low, high] = tcp;
    let (s, r) = match sender {
        Direction::LowToHigh => (low, high),
        Direction::HighToLow => (high, low),
    };
    // A RST of either end that may have ended the connection is for the tracker to think of.
    if s.flags & USUAL != USUAL || (s.flags | r.flags) & TcpSender::RESET != 0 {
        return false;
    }
    let end = segment.seq.wrapping_add(segment.data_len);
    // All four at once for what comes in order: it ends from the newest data to the right edge, and acknowledges no more than
    // was sent, and nothing old.
    let in_order = end.wrapping_sub(s.end) | s.max_end.wrapping_sub(end);
    let unacknowledged = r.end.wrapping_sub(segment.ack);
    if ((in_order as i32) < 0 || unacknowledged > MAX_ACK_WINDOW) && !is_near(s, r, end, unacknowledged) {
        return false;
    }
    let window = u32::from(segment.window).wrapping_shl(u32::from(s.scale));
    s.end = later(s.end, end);
    s.acked = later(s.acked, segment.ack);
    s.max_win = s.max_win.max(segment.window);
    r.max_end = later(r.max_end, segment.ack.wrapping_add(window.max(1)));
    true
}

/// The bounds in full, of two ends that are settled, so that their windows are in units, and at least 1.
#[inline(never)]
const fn is_near(s: &TcpSender, r: &TcpSender, end: u32, unacknowledged: u32) -> bool {
    let (sent, offered) = (s.scaled(), r.scaled());
    // I and II in one: from a window before the newest data to the right edge. (What ends in there begins before its end; what
    // is older is for the tracker.)
    let oldest = s.end.wrapping_sub(offered);
    let data = end.wrapping_sub(oldest) | s.max_end.wrapping_sub(end);
    // III and IV in one, because no window is as wide as half of the sequence space.
    let most = if sent > MAX_ACK_WINDOW {
        sent
    } else {
        MAX_ACK_WINDOW
    };
    data as i32 >= 0 && unacknowledged <= most
}

/// Is a segment with ACK within all bounds?
#[must_use]
pub fn is_in_window(tcp: &[TcpSender; 2], sender: Direction, segment: &Segment) -> bool {
    let (s, r) = (&tcp[sender.index()], &tcp[sender.reverse().index()]);
    // What SACK says has arrived has been sent as well.
    let newest = segment
        .options
        .sack
        .map_or(segment.ack, |sack| later(segment.ack, sack));
    data_is_not_too_new(s, segment.seq)
        && data_is_not_too_old(s, r, segment.end())
        && ack_is_not_too_new(r, newest)
        && ack_is_not_too_old(s, r, newest)
}

/// Is this the sequence number of a segment that `sender` may have sent within the last window?
pub(super) fn was_sent(tcp: &[TcpSender; 2], sender: Direction, seq: u32) -> bool {
    let (s, r) = (&tcp[sender.index()], &tcp[sender.reverse().index()]);
    s.has(TcpSender::SYN) && at_or_before(seq, s.end) && is_at_most_old(s, r, 1, seq)
}

/// Notes what a segment with ACK that is in the window says.
pub(super) fn advance(tcp: &mut [TcpSender; 2], sender: Direction, segment: &Segment) {
    let scale = scale(tcp, sender);
    let (s, r) = (sender.index(), sender.reverse().index());
    let window = u32::from(segment.window) << scale;
    // A closed window lets one byte through that asks whether it is open again (RFC 9293, section 3.8.6.1).
    tcp[r].max_end = later(tcp[r].max_end, segment.ack.wrapping_add(window.max(1)));
    let this = &mut tcp[s];
    let end = segment.end();
    let beyond = if at_or_before(end, this.max_end) {
        0
    } else {
        end.wrapping_sub(this.max_end)
    };
    this.end = later(this.end, end);
    this.acked = if this.has(TcpSender::ACKED) {
        later(this.acked, segment.ack)
    } else {
        segment.ack
    };
    this.flags = (this.flags | TcpSender::ACKED) & !TcpSender::RESET;
    this.max_win = this.max_win.max(if this.has(TcpSender::SETTLED) {
        segment.window
    } else {
        units(window, 0)
    });
    // It knows of a window that was not seen here: what it sent before stays acceptable.
    let other = &mut tcp[r];
    let scale = if other.has(TcpSender::SETTLED) {
        other.scale
    } else {
        0
    };
    other.max_win = other.max_win.saturating_add(units(beyond, scale));
}

/// Bytes in units of a scale, rounded up.
fn units(bytes: u32, scale: u8) -> u16 {
    u16::try_from(bytes.div_ceil(1 << (scale & 15))).unwrap_or(u16::MAX)
}

/// The scale of the windows that `sender` offers, but on its SYN.
pub(super) fn scale(tcp: &[TcpSender; 2], sender: Direction) -> u8 {
    let both = tcp.iter().all(|end| end.scale != TcpSender::NO_SCALE);
    // Only if both SYNs had the option (RFC 7323, section 2.2).
    if both { tcp[sender.index()].scale & 15 } else { 0 }
}

/// Notes a SYN or SYN+ACK that starts a sender's numbers, or starts them anew.
pub(super) fn start(tcp: &mut [TcpSender; 2], sender: Direction, segment: &Segment) {
    let (s, r) = (sender.index(), sender.reverse().index());
    let first = segment.seq.wrapping_add(1);
    let granted = if tcp[r].has(TcpSender::SYN) {
        u32::from(tcp[r].max_win)
    } else {
        0
    };
    tcp[s] = TcpSender {
        end: segment.end(),
        max_end: later(segment.end(), first.wrapping_add(granted)),
        acked: first,
        max_win: segment.window,
        flags: TcpSender::SYN
            | if segment.options.fast_open {
                TcpSender::FAST_OPEN
            } else {
                0
            },
        scale: segment.options.scale.unwrap_or(TcpSender::NO_SCALE),
    };
    if segment.has(flag::ACK) {
        tcp[s].acked = segment.ack;
        tcp[s].flags |= TcpSender::ACKED;
        tcp[r].max_end = later(
            tcp[r].max_end,
            segment.ack.wrapping_add(u32::from(segment.window).max(1)),
        );
    }
}

/// Starts the numbers of both ends from a segment in mid-stream. What its SYNs said is unknown: the windows are taken for the
/// largest that they may be, and learnt from there.
pub(super) fn pick_up(tcp: &mut [TcpSender; 2], sender: Direction, segment: &Segment) {
    const SCALE: u8 = 14;
    let known = TcpSender::SYN | TcpSender::SYN_ACKED | TcpSender::SETTLED;
    let window = (u32::from(segment.window) << SCALE).max(1);
    tcp[sender.index()] = TcpSender {
        end: segment.end(),
        max_end: segment.end().wrapping_add(u32::from(u16::MAX) << SCALE),
        acked: segment.ack,
        max_win: segment.window.max(1),
        // Half open until the other end acknowledges something.
        flags: (known & !TcpSender::SYN_ACKED) | TcpSender::ACKED,
        scale: SCALE,
    };
    tcp[sender.reverse().index()] = TcpSender {
        end: segment.ack,
        max_end: segment.ack.wrapping_add(window),
        acked: segment.end(),
        max_win: u16::MAX,
        // The data that comes before that is as good as that of a Fast Open.
        flags: known | TcpSender::FAST_OPEN,
        scale: SCALE,
    };
}

/// Both SYNs are acknowledged: the scales are what both use from now on.
pub(super) fn settle(tcp: &mut [TcpSender; 2]) {
    if tcp[0].has(TcpSender::SETTLED) {
        return;
    }
    let scales = [scale(tcp, Direction::LowToHigh), scale(tcp, Direction::HighToLow)];
    for (end, scale) in tcp.iter_mut().zip(scales) {
        end.max_win = units(u32::from(end.max_win), scale).max(1);
        end.scale = scale;
        end.flags |= TcpSender::SETTLED;
    }
}

/// May a SYN+ACK acknowledge this much of the other end's SYN, and the data in it?
pub(super) const fn acknowledges_syn(other: &TcpSender, ack: u32) -> bool {
    // Before the other end sent an acknowledgement, `acked` is the number after its SYN.
    let first = if other.has(TcpSender::ACKED) {
        other.end
    } else {
        other.acked
    };
    at_or_before(first, ack) && at_or_before(ack, other.end)
}

/// What a RST is worth (RFC 9293, section 3.10.7.4, second; RFC 5961, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// The other end accepts it.
    Exact,
    /// The other end asks by a challenge ACK, or accepts it if it has received more than was seen to be acknowledged.
    Inside,
    /// It is none of the sender's.
    Outside,
}

/// May this RST answer a segment that was overtaken? An end without a socket puts that segment's acknowledgement into it (RFC
/// 9293, section 3.10.7.1), which may be as old as acknowledgements may. Its receiver ignores it (RFC 5961, section 3.2).
pub(super) const fn answers_old(tcp: &[TcpSender; 2], sender: Direction, seq: u32) -> bool {
    let (this, other) = (&tcp[sender.index()], &tcp[sender.reverse().index()]);
    ack_is_not_too_new(this, seq) && ack_is_not_too_old(other, this, seq)
}

/// Judges a RST of a connection of which both SYNs were seen.
pub(super) fn reset(tcp: &[TcpSender; 2], sender: Direction, seq: u32) -> Reset {
    let (this, other) = (&tcp[sender.index()], &tcp[sender.reverse().index()]);
    let next = if other.has(TcpSender::ACKED) {
        other.acked
    } else {
        this.end
    };
    // The next number that the other end expects is the one that it acknowledged, or, if all that was sent has arrived, the end.
    if seq == next || seq == this.end {
        Reset::Exact
    } else if at_or_before(next, seq) && at_or_before(seq, this.max_end) {
        Reset::Inside
    } else {
        Reset::Outside
    }
}
