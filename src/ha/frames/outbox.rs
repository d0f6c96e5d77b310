//! Frames on their way into datagrams.

use std::collections::VecDeque;

use super::FrameBuf;
use crate::ha::message::Part;
use crate::ha::wire::{self, Writer};

/// Frames that wait at most: the rest stays with the workers.
const WAITING: usize = 256;
/// A part is no shorter than this, unless the frame's rest is.
const PART_MIN: usize = 128;

/// What was counted of frames sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxCounters {
    /// Frames,
    pub frames: u64,
    /// those of them that went in parts,
    pub cut: u64,
    /// and those that could not go, because the peer is not there any more.
    pub given_up: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    waiting: VecDeque<Box<FrameBuf>>,
    /// Bytes of the first that are on their way already.
    gone: usize,
    /// The number of the frame that is cut.
    id: u32,
    /// Empty buffers on their way back.
    spent: VecDeque<Box<FrameBuf>>,
    counters: OutboxCounters,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            waiting: VecDeque::with_capacity(WAITING),
            gone: 0,
            id: 0,
            spent: VecDeque::with_capacity(2 * WAITING),
            counters: OutboxCounters::default(),
        }
    }
}

impl Outbox {
    /// Does nothing wait?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> &OutboxCounters {
        &self.counters
    }

    /// Is there room for another one?
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting.len() < WAITING && self.spent.len() < WAITING
    }

    /// Takes a frame to be sent.
    ///
    /// # Errors
    /// Gives it back: too many wait, or buffers wait to be taken back.
    pub fn push(&mut self, frame: Box<FrameBuf>) -> Result<(), Box<FrameBuf>> {
        if !self.has_room() {
            return Err(frame);
        }
        self.waiting.push_back(frame);
        Ok(())
    }

    /// A buffer that is free again.
    pub fn take_spent(&mut self) -> Option<Box<FrameBuf>> {
        self.spent.pop_front()
    }

    /// Nothing of what waits can go.
    pub fn give_up(&mut self) {
        self.gone = 0;
        while let Some(frame) = self.waiting.pop_front() {
            self.counters.given_up += 1;
            self.spent.push_back(frame);
        }
    }

    /// Writes as many frames as the datagram takes; an empty one takes `whole` bytes. What does not fit into an empty one goes in parts.
    pub fn write(&mut self, writer: &mut Writer<'_>, whole: usize) {
        while let Some(frame) = self.waiting.front() {
            let bytes = frame.bytes();
            if self.gone == 0 && writer.crossed(&frame.crossed(None, bytes)) {
                self.sent(false);
                continue;
            }
            if wire::crossed_len(false) + bytes.len() <= whole {
                return;
            }
            let rest = bytes.get(self.gone..).unwrap_or_default();
            let room = writer.room().saturating_sub(wire::crossed_len(true));
            let len = room.min(rest.len());
            if len < PART_MIN.min(rest.len()) {
                return;
            }
            let part = Part {
                id: self.id,
                offset: self.gone as u16,
                total: bytes.len() as u16,
            };
            let written = writer.crossed(&frame.crossed(Some(part), &rest[..len]));
            debug_assert!(written, "its length was computed");
            self.gone += len;
            if len == rest.len() {
                self.sent(true);
            }
        }
    }

    fn sent(&mut self, was_cut: bool) {
        self.gone = 0;
        self.counters.frames += 1;
        self.counters.cut += u64::from(was_cut);
        self.id = self.id.wrapping_add(u32::from(was_cut));
        if let Some(frame) = self.waiting.pop_front() {
            self.spent.push_back(frame);
        }
    }
}
