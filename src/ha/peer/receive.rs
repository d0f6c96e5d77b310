//! Datagrams that came.

use super::{Event, Peer, RESERVE, ResyncIn};
use crate::base::Nanos;
use crate::ha::message::{Frame, Heartbeat, Path};
use crate::ha::seal::{Change, Opened};
use crate::ha::stream::from_listed;
use crate::ha::wire::{self, Message, Updates};

impl Peer {
    /// A datagram came by `path`; it is opened in its place. What is wrong with it is counted, and has no effect.
    pub fn handle_datagram(&mut self, now: Nanos, path: Path, datagram: &mut [u8]) {
        self.counters.received += 1;
        let Some(way) = self.ways.iter().position(|way| way.path == path) else {
            self.counters.unknown_path += 1;
            return;
        };
        match self.seal.open(now, datagram) {
            Ok(Opened::Hello { answer: true }) => self.answer_by = Some(path),
            Ok(Opened::Hello { answer: false }) | Err(_) => return,
            Ok(Opened::Data {
                thread,
                change,
                plain,
                ..
            }) => {
                self.associated(now, change);
                let Ok(messages) = wire::decode(plain) else {
                    self.counters.unreadable += 1;
                    return;
                };
                // What carries updates: the HA thread's datagrams by the link.
                let streams = thread == 0 && path == Path::Link;
                let size = plain.len();
                for message in messages {
                    self.handle_message(now, way, streams, size, message);
                }
            }
        }
        self.follow(now);
    }

    /// Whom this node speaks with from now on.
    fn associated(&mut self, now: Nanos, change: Change) {
        match change {
            Change::None => return,
            Change::SameStart => self.sender.lose_all(now),
            Change::NewStart => {
                self.sender.reset();
                self.receiver.reset();
                self.resync_in = None;
                if let Some(inbox) = &mut self.inbox {
                    inbox.forget_parts();
                }
                self.heard = None;
                self.starts += 1;
                self.counters.peer_starts += 1;
                for way in &mut self.ways {
                    (way.heard, way.heard_by_peer, way.round_trip) = (None, None, None);
                }
                self.announce();
            }
        }
        // The peer knows as soon as can be.
        self.heartbeats_due(now);
    }

    fn handle_message(&mut self, now: Nanos, way: usize, streams: bool, size: usize, message: Message<'_>) {
        let frame = match message {
            Message::Sync {
                number,
                haste,
                updates,
            } => {
                if streams && self.takes(now, number, size) {
                    self.take_updates(updates);
                    if haste {
                        self.receiver.hasten(now);
                    }
                } else if !streams {
                    self.counters.misplaced += 1;
                }
                return;
            }
            Message::Packet(packet) => {
                let crosses = streams && self.crosses() && self.understands_peer();
                match self.inbox.as_mut().filter(|_| crosses) {
                    Some(inbox) => inbox.take(now, &packet),
                    None => self.counters.misplaced += 1,
                }
                return;
            }
            Message::Invalid { .. } => {
                self.counters.invalid_frames += 1;
                return;
            }
            Message::Other(frame) => frame,
        };
        match frame {
            Frame::Heartbeat(heartbeat) => self.handle_heartbeat(now, way, heartbeat),
            Frame::Unknown { .. } => self.counters.unknown_frames += 1,
            _ if !streams => self.counters.misplaced += 1,
            Frame::Ack(ack) => self.sender.acknowledged(now, ack),
            Frame::Digests(report) => self.sender.report(now, &report),
            numbered => self.handle_numbered(now, size, &numbered),
        }
    }

    /// Is a frame of this number taken in? It is from a datagram of `size` bytes, which may hold an update every 8 bytes.
    fn takes(&mut self, now: Nanos, number: u64, size: usize) -> bool {
        if !self.understands_peer() {
            self.counters.misplaced += 1;
            return false;
        }
        if self.events.len() + size / 8 + RESERVE > self.config.events {
            self.counters.no_room += 1;
            return false;
        }
        self.receiver.accept(now, number)
    }

    fn take_updates(&mut self, updates: Updates<'_>) {
        for update in updates {
            match update {
                Ok(update) if self.events.len() + RESERVE < self.config.events => {
                    self.counters.updates += 1;
                    self.events.push_back(Event::Update(update));
                }
                Ok(_) => self.counters.no_room += 1,
                Err(_) => self.counters.invalid_updates += 1,
            }
        }
    }

    fn handle_numbered(&mut self, now: Nanos, size: usize, frame: &Frame) {
        match frame {
            Frame::ResyncBegin {
                number,
                resync,
                buckets,
                sessions,
            } if self.takes(now, *number, size) => {
                self.receiver.hasten(now);
                self.receiver.doubt();
                self.resync_in = Some(ResyncIn {
                    resync: *resync,
                    of_all: buckets.is_empty(),
                    sessions: *sessions,
                    updates: self.counters.updates,
                });
                self.events.push_back(Event::ResyncBegin {
                    resync: *resync,
                    buckets: from_listed(buckets),
                    sessions: *sessions,
                });
            }
            Frame::ResyncEnd { number, resync } if self.takes(now, *number, size) => {
                self.receiver.hasten(now);
                // Told again because its acknowledgement was late, it says nothing new.
                if let Some(open) = self.resync_in.take_if(|open| open.resync == *resync) {
                    if open.of_all {
                        self.receiver.trust();
                    }
                    self.events.push_back(Event::ResyncEnd { resync: *resync });
                }
            }
            Frame::Barrier {
                number,
                barrier,
                first,
                digests,
            } if self.takes(now, *number, size) => {
                if let Some(barrier) = self.receiver.barrier(*number, *barrier, *first, digests) {
                    self.events.push_back(Event::Digests { barrier });
                }
            }
            _ => {}
        }
    }

    fn handle_heartbeat(&mut self, now: Nanos, way: usize, heartbeat: Heartbeat) {
        self.counters.heartbeats_heard += 1;
        let Some(way) = self.ways.get_mut(way) else {
            return;
        };
        if way.heard.is_some_and(|(_, sent)| heartbeat.sent <= sent) {
            self.counters.heartbeats_late += 1;
            return;
        }
        way.heard = Some((now, heartbeat.sent));
        if heartbeat.heard.0 != 0 {
            way.heard_by_peer = Some(now);
            // Its estimate of this node's clock is behind by the way there; nothing lies in the future.
            way.round_trip = now.0.checked_sub(heartbeat.heard.0).map(Nanos).or(way.round_trip);
        }
        self.election.heard(now, self.starts, &heartbeat);
        if self.heard.as_ref().is_none_or(|last| heartbeat.sent > last.sent) {
            self.heard = Some(heartbeat);
        }
    }
}
