//! TCP connections that another node has tracked so far: this one has their numbers as they were when it was last told, some packets
//! ago, and learns them anew from the packets that come.
//!
//! A segment beyond its window passes if its numbers are within a tolerance of the known ones, and changes nothing by itself. What its
//! sender claims to have sent is noted; when the other end, whose packets come in by the other port, acknowledges some of what was
//! claimed, that is known. So one who sees neither direction may get a segment through to an end that will not take it, but cannot move a
//! number: for that both ends would have to agree with him.

use super::segment::{at_or_before, flag, later};
use super::window::{is_in_window, scale};
use super::{Direction, Segment, Session};

/// What each end claims to have sent, by [`Direction`]; `None`: nothing beyond what is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims(pub [Option<u32>; 2]);

/// What a segment means for a connection whose numbers are learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relearnt {
    /// It is judged as always.
    Judge,
    /// It passes, and nothing is known of it.
    Pass,
}

/// Looks at a segment of `sender`, within `tolerance` bytes of what is known.
pub fn relearn(
    session: &mut Session,
    claims: &mut Claims,
    sender: Direction,
    segment: &Segment,
    tolerance: u32,
) -> Relearnt {
    // RSTs and SYNs are judged by what is known for certain.
    let plain = segment.flags & (flag::SYN | flag::RST | flag::ACK) == flag::ACK;
    if !plain || is_in_window(&session.tcp, sender, segment) {
        return Relearnt::Judge;
    }
    let tolerance = tolerance.min(1 << 30);
    let (s, r) = (sender.index(), sender.reverse().index());
    let is_near = |known: u32, number: u32| {
        at_or_before(known.wrapping_sub(tolerance), number)
            && at_or_before(number, known.wrapping_add(tolerance))
    };
    let newest = segment
        .options
        .sack
        .map_or(segment.ack, |sack| later(segment.ack, sack));
    if !is_near(session.tcp[s].end, segment.end()) || !is_near(session.tcp[r].end, newest) {
        return Relearnt::Judge;
    }
    // The other end's claim is confirmed as far as it is acknowledged.
    if let Some(claim) = claims.0[r] {
        let end = session.tcp[r].end;
        if !at_or_before(newest, end) && at_or_before(newest, claim) {
            let window = u32::from(segment.window) << scale(&session.tcp, sender);
            let other = &mut session.tcp[r];
            other.end = newest;
            other.max_end = later(other.max_end, segment.ack.wrapping_add(window.max(1)));
        }
    }
    if is_in_window(&session.tcp, sender, segment) {
        return Relearnt::Judge;
    }
    if !at_or_before(segment.end(), session.tcp[s].end) {
        claims.0[s] = Some(segment.end());
    }
    Relearnt::Pass
}
