//! `reset_on_timeout`: a TCP session that idles out is reset at both ends, so that neither waits for one that its firewall
//! has forgotten. And the client of a server that never answered is reset when haechi had shaken its hand (`syn_protection`):
//! it believes in a connection that there never was.
//!
//! The RSTs of many sessions that end at once are paced. A session that waits for its turn is still in the table, and
//! lives on if a packet comes for it.

use std::collections::VecDeque;

use super::rate::Pacer;
use super::upkeep::idled_out;
use super::{Engine, Outputs};
use crate::base::{Nanos, SessionIx, Tick};
use crate::flow::{
    Direction, Due, Entry, FlowKey, Session, SessionId, SessionState, SessionTable, TcpSender, Translation,
};
use crate::packet::build::{Reset, timeout_reset};
use crate::packet::{LinkHeader, PacketBuf};

/// Sessions whose ends are reset, a second: a million in 50 s, at 40,000 packets a second.
const RATE: u32 = 20_000;
/// Sessions at once: fewer packets than the smallest transmit ring takes.
const BURST: u32 = 16;
/// Sessions that wait for their turn; how long the last of them waits.
const QUEUE: usize = 65_536;
const QUEUE_TIME: Nanos = Nanos(QUEUE as u64 * 1_000_000_000 / RATE as u64);

/// Sessions that idled out and wait to be reset.
pub(super) struct Resets {
    queue: VecDeque<SessionId>,
    pacer: Pacer,
    frame: Box<[u8; Reset::MAX_FRAME]>,
}

impl Default for Resets {
    fn default() -> Self {
        Self {
            queue: VecDeque::with_capacity(QUEUE),
            pacer: Pacer::new(RATE, BURST),
            frame: Box::new([0; Reset::MAX_FRAME]),
        }
    }
}

impl Resets {
    /// What becomes of a session that idled out: where its ends are to be reset, it waits for its turn.
    pub(super) fn judge(&mut self, entry: &Entry<'_>) -> Due {
        if !is_told(entry.session) {
            return Due::End;
        }
        // One that finds no room is looked at again when those that wait now are done.
        if self.queue.len() < QUEUE {
            self.queue.push_back(entry.id);
        }
        Due::Later(Tick::count(QUEUE_TIME.plus(Nanos::SECOND)))
    }

    /// Sessions that wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Marks those that joined when `before` were waiting, so that no walk hastens their timers meanwhile.
    pub(super) fn mark_since(&self, before: usize, table: &mut SessionTable) {
        for id in self.queue.iter().skip(before) {
            table.get_mut(id.ix).flags |= Session::WAITS;
        }
    }

    /// Does none wait?
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Is an end told when this session idles out?
const fn is_told(session: &Session) -> bool {
    (session.resets() && is_open(session)) || awaits_server(session)
}

/// Does a client that haechi answered wait for its server?
const fn awaits_server(session: &Session) -> bool {
    session.is_proxied() && matches!(session.state(), SessionState::SynSent) && !session.is_reset()
}

/// Do both ends believe in the connection?
const fn is_open(session: &Session) -> bool {
    // A RST may have closed it, and if not, it must not be this session's end that tells.
    if session.is_reset() {
        return false;
    }
    use SessionState::{CloseWait, Closing, Established, FinWait, LastAck, SynReceived, SynSent2};
    matches!(
        session.state(),
        SynSent2 | SynReceived | Established | FinWait | CloseWait | Closing | LastAck
    )
}

impl<B: PacketBuf> Engine<B> {
    /// Resets and ends waiting sessions as far as the pace allows. Returns how many.
    pub(super) fn reset_waiting<O: Outputs<B>>(&mut self, now: Nanos, out: &mut O) -> u32 {
        let mut ended = 0;
        while !self.resets.queue.is_empty() && self.resets.pacer.try_pass(now) {
            // Ended in another way, or revived: its timer runs on, from its last packet.
            let Some(ix) = self
                .resets
                .queue
                .pop_front()
                .and_then(|id| self.table.resolve(id))
            else {
                continue;
            };
            self.table.get_mut(ix).flags &= !Session::WAITS;
            let session = self.table.get(ix);
            let timeout = session.timeout(self.policy.state_timeouts(session.rule));
            let timeout = self.pressure.scale(self.table.len()).ticks(timeout);
            if self.table.overdue(ix, now.tick(), timeout).is_none() {
                self.table.hasten(ix, timeout);
                continue;
            }
            let reason = idled_out(session);
            let opener = session.opener;
            // It may have got further while it waited for its turn.
            let told = is_told(session).then(|| {
                let told = self.reset_ends(ix, out);
                [opener, opener.reverse()].map(|end| told[end.index()])
            });
            self.end(now, ix, reason, told);
            ended += 1;
        }
        ended
    }

    /// Sends each end of a session a RST from the other; where the server never answered, the client alone. Which ends have got one, by [`Direction`]?
    fn reset_ends<O: Outputs<B>>(&mut self, ix: SessionIx, out: &mut O) -> [bool; 2] {
        let mut told = [false; 2];
        let session = self.table.get(ix);
        let links = self.table.links(ix);
        for sender in [Direction::LowToHigh, Direction::HighToLow] {
            if awaits_server(session) && session.is_opener(sender) {
                continue;
            }
            let (_, egress) = session.ports_of(sender);
            let frame = reset_from(session, links, self.table.translation(ix), sender).and_then(|reset| {
                let len = timeout_reset(&reset, &mut self.resets.frame[..])?;
                let mut buffer = out.buffer()?;
                buffer.try_fill(&self.resets.frame[..len]).ok()?;
                Some(buffer)
            });
            told[sender.reverse().index()] = frame.is_some();
            if let Some(frame) = frame {
                self.counters.originated += 1;
                self.counters.timeout_resets += 1;
                out.originate(frame, egress);
            } else {
                self.counters.timeout_resets_missed += 1;
            }
        }
        told
    }
}

/// The RST that the receiver of `sender`'s packets accepts as its: it has the number that the receiver expects next, which is
/// the highest that it acknowledged (RFC 9293, section 3.10.7.4, second; RFC 5961, section 3.2). `None`: the receiver has not
/// acknowledged anything, or no packet has shown the way to it.
fn reset_from(
    session: &Session,
    links: &[LinkHeader; 2],
    translation: &Translation,
    sender: Direction,
) -> Option<Reset> {
    let (this, other) = (
        &session.tcp[sender.index()],
        &session.tcp[sender.reverse().index()],
    );
    let (sequence, acknowledgment) = if awaits_server(session) {
        // The client has acknowledged the cookie, and that is all that it knows of its server.
        (translation.cookie.wrapping_add(1), Some(other.end))
    } else if other.has(TcpSender::ACKED) {
        (other.acked, this.has(TcpSender::ACKED).then_some(this.acked))
    } else {
        return None;
    };
    let link = match links[sender.index()] {
        link if !link.is_unknown() => link,
        _ => links[sender.reverse().index()].reversed(),
    };
    if link.is_unknown() {
        return None;
    }
    // The client of a proxied connection knows other numbers of its server than the tracker.
    let delta = if session.is_proxied() && !session.is_opener(sender) {
        translation.sequence
    } else {
        0
    };
    let key = &session.key;
    let (low, high) = ((key.low, key.low_port), (key.high, key.high_port));
    let (source, destination) = match sender {
        Direction::LowToHigh => (low, high),
        Direction::HighToLow => (high, low),
    };
    Some(Reset {
        link,
        is_ipv4: FlowKey::is_ipv4(key),
        source,
        destination,
        sequence: sequence.wrapping_sub(delta),
        acknowledgment,
    })
}
