//! Datagrams that are to be sent.

use super::{Peer, plaintext};
use crate::base::Nanos;
use crate::ha::message::{Frame, Heartbeat, Path};
use crate::ha::seal;
use crate::ha::wire::Writer;

/// Datagrams with packets that cross, before one with updates.
const IN_A_ROW: u32 = 16;

impl Peer {
    /// Makes `out` the next datagram, and says which way it goes. `None`: nothing is to be sent now.
    pub fn poll_transmit(&mut self, now: Nanos, out: &mut Vec<u8>) -> Option<Path> {
        let path = self
            .transmit_answer(now, out)
            .or_else(|| (0..self.ways.len()).find_map(|way| self.transmit_heartbeat(now, way, out)))
            .or_else(|| self.transmit_frames(now, out))
            .or_else(|| self.transmit_stream(now, out))?;
        self.counters.sent += 1;
        Some(path)
    }

    fn transmit_answer(&mut self, now: Nanos, out: &mut Vec<u8>) -> Option<Path> {
        let path = self.answer_by.take()?;
        let sealed = self.seal.answer(now, out);
        self.sealed(sealed.is_ok(), path)
    }

    fn sealed(&mut self, ok: bool, path: Path) -> Option<Path> {
        self.counters.unsealed += u64::from(!ok);
        ok.then_some(path)
    }

    fn transmit_heartbeat(&mut self, now: Nanos, at: usize, out: &mut Vec<u8>) -> Option<Path> {
        let way = self.ways.get_mut(at)?;
        let path = way.path;
        if now >= way.next_heartbeat {
            way.next_heartbeat = now.plus(self.config.election.heartbeat);
            way.hello_due = self.seal.wants_hello(now);
            if self.seal.has_peer() {
                let heartbeat = self.heartbeat(now, path);
                seal::begin(out);
                let fits =
                    Writer::new(out, plaintext(self.config.datagram)).frame(&Frame::Heartbeat(heartbeat));
                let sealed = fits && self.seal.seal(now, out).is_ok();
                self.counters.heartbeats_sent += u64::from(sealed);
                return self.sealed(sealed, path);
            }
        }
        let way = self.ways.get_mut(at)?;
        if !std::mem::take(&mut way.hello_due) {
            return None;
        }
        let sealed = self.seal.hello(now, out);
        self.sealed(sealed.is_ok(), path)
    }

    /// What a heartbeat by `path` says now, for those who send it themselves (workers, across data ports).
    pub fn heartbeat(&mut self, now: Nanos, path: Path) -> Heartbeat {
        self.last_sent = now.max(self.last_sent.plus(Nanos(1)));
        let dead_time = self.config.election.dead_time();
        let heard = self
            .ways
            .iter()
            .find(|way| way.path == path)
            .and_then(|way| way.heard)
            .filter(|(at, _)| now.since(*at) < dead_time)
            .map_or(Nanos(0), |(at, sent)| sent.plus(now.since(at)));
        Heartbeat {
            sent: self.last_sent,
            heard,
            progress: self.progress.clone(),
            ..self.said.clone()
        }
    }

    fn has_link(&self) -> bool {
        self.seal.has_peer() && self.config.paths.contains(&Path::Link)
    }

    /// Packets that cross to the peer. Now and then updates have their turn all the same: they would wait as long as packets come.
    fn transmit_frames(&mut self, now: Nanos, out: &mut Vec<u8>) -> Option<Path> {
        if self.outbox.is_empty() {
            return None;
        }
        if !self.has_link() || !self.crosses() || !self.election.peer_alive() {
            self.outbox.give_up();
            return None;
        }
        if self.in_a_row >= IN_A_ROW {
            self.in_a_row = 0;
            if let Some(path) = self.transmit_stream(now, out) {
                return Some(path);
            }
        }
        self.in_a_row += 1;
        seal::begin(out);
        let datagram = self
            .config
            .frames
            .map_or(self.config.datagram, |frames| frames.datagram);
        let whole = plaintext(datagram);
        let mut writer = Writer::new(out, whole);
        self.write_answers(now, &mut writer);
        self.outbox.write(&mut writer, whole);
        let sealed = self.seal.seal(now, out);
        self.sealed(sealed.is_ok(), Path::Link)
    }

    /// What the receiving half has to say, and the next frame of the sending half.
    fn transmit_stream(&mut self, now: Nanos, out: &mut Vec<u8>) -> Option<Path> {
        if !self.has_link() {
            return None;
        }
        seal::begin(out);
        let mut writer = Writer::new(out, plaintext(self.config.datagram));
        self.write_answers(now, &mut writer);
        self.sender.transmit(now, &mut writer);
        if writer.is_empty() {
            return None;
        }
        let sealed = self.seal.seal(now, out);
        self.sealed(sealed.is_ok(), Path::Link)
    }

    /// What the receiving half has to say.
    fn write_answers(&mut self, now: Nanos, writer: &mut Writer<'_>) {
        // With both there is room for more than a session in the smallest datagram.
        let mut fits = true;
        if let Some(report) = self.receiver.take_report() {
            fits &= writer.frame(&Frame::Digests(report));
        }
        if let Some(ack) = self.receiver.take_ack(now) {
            fits &= writer.frame(&Frame::Ack(ack));
        }
        debug_assert!(fits, "acknowledgements are short");
    }
}
