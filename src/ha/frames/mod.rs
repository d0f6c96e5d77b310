//! Whole frames that cross between the nodes of an active-active pair: packets offered to the node that may have their session, and what
//! that node made of them on its way back. Nothing of it is acknowledged or sent again: a frame that gets lost is a lost packet.
//!
//! - [`FrameBuf`]: a frame with what is said of it, in memory that is used again
//! - [`Frames`]: the queues of such buffers between the HA thread and one worker
//! - `outbox`: frames to datagrams, cut where they do not fit
//! - `inbox`: parts to frames, and no more of them than is bearable

mod inbox;
mod outbox;

pub use inbox::{Inbox, InboxCounters, JOINED};
pub use outbox::{Outbox, OutboxCounters};

use crossbeam_queue::ArrayQueue;

use super::message::{Crossed, Crossing, Part};
use crate::base::PortId;

/// A frame in memory that is made at start and goes round.
#[derive(Debug)]
pub struct FrameBuf {
    /// What is wanted of the other node.
    pub crossing: Crossing,
    /// By which port it came in, or is to leave.
    pub port: PortId,
    /// The sender's worker that had it.
    pub worker: u16,
    len: usize,
    room: Box<[u8]>,
}

impl FrameBuf {
    /// An empty one, for frames of `room` bytes at most.
    #[must_use]
    pub fn new(room: usize) -> Box<Self> {
        Box::new(Self {
            crossing: Crossing::default(),
            port: PortId(0),
            worker: 0,
            len: 0,
            room: vec![0; room].into_boxed_slice(),
        })
    }

    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.room.get(..self.len).unwrap_or_default()
    }

    /// Copies a frame in. `false`: it is too long, and nothing was changed.
    #[must_use]
    pub fn fill(&mut self, crossing: Crossing, port: PortId, worker: u16, frame: &[u8]) -> bool {
        let Some(place) = self.room.get_mut(..frame.len()) else {
            return false;
        };
        place.copy_from_slice(frame);
        (self.crossing, self.port, self.worker) = (crossing, port, worker);
        self.len = frame.len();
        true
    }

    /// Copies bytes to `offset`; the frame is as long as `len` says. `false`: there is no room.
    fn put(&mut self, offset: usize, len: usize, bytes: &[u8]) -> bool {
        let end = offset + bytes.len();
        if end > len || len > self.room.len() {
            return false;
        }
        self.room[offset..end].copy_from_slice(bytes);
        self.len = len;
        true
    }

    /// What is written of it into a datagram: `bytes` of it, as `part` says.
    const fn crossed<'a>(&self, part: Option<Part>, bytes: &'a [u8]) -> Crossed<'a> {
        Crossed {
            crossing: self.crossing,
            port: self.port,
            worker: self.worker,
            part,
            bytes,
        }
    }
}

/// How frames cross on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramesConfig {
    /// Bytes of the longest frame.
    pub longest: usize,
    /// Ports of the node, and so of its peer.
    pub ports: u16,
    /// `[ha] redirect_rate`: the peer offers as many in a second at most, and gets back as many of this node's. What comes beyond that is
    /// refused.
    pub rate: u32,
    /// Bytes of a datagram that carries frames, at most: what the link's path takes whole.
    pub datagram: usize,
    /// Frames of the peer's that may wait for the workers, and in parts for their rest.
    pub waiting: usize,
}

/// Frames of one worker that may wait for the HA thread.
pub const OUT: usize = 1024;
/// Frames of the peer's that may wait for the workers.
pub const IN: usize = 2048;

/// The queues between the HA thread and one worker. Neither allocates or frees: a buffer that was emptied goes back to where it came
/// from.
#[derive(Debug)]
pub struct Frames {
    /// To the HA thread, to be sent,
    pub out: ArrayQueue<Box<FrameBuf>>,
    /// and back, empty.
    pub out_spare: ArrayQueue<Box<FrameBuf>>,
    /// To the worker,
    pub incoming: ArrayQueue<Box<FrameBuf>>,
    /// and back, empty.
    pub incoming_spare: ArrayQueue<Box<FrameBuf>>,
}

impl Frames {
    /// Of one of `workers` workers: `out` buffers of its own, and its part of the room for those of the HA thread.
    #[must_use]
    pub fn new(out: usize, config: &FramesConfig, workers: usize) -> Self {
        let out = out.max(1);
        let frames = Self {
            out: ArrayQueue::new(out),
            out_spare: ArrayQueue::new(out),
            incoming: ArrayQueue::new((config.waiting / workers.max(1)).max(64)),
            // All of them have a place there.
            incoming_spare: ArrayQueue::new(config.waiting.max(1) + JOINED),
        };
        for _ in 0..out {
            // There is room for as many.
            let _ = frames.out_spare.push(FrameBuf::new(config.longest));
        }
        frames
    }

    /// The worker puts a frame on its way. `false`: there is no room, or the frame is too long.
    #[must_use]
    pub fn send(&self, crossing: Crossing, port: PortId, worker: u16, frame: &[u8]) -> bool {
        let Some(mut buffer) = self.out_spare.pop() else {
            return false;
        };
        if !buffer.fill(crossing, port, worker, frame) {
            let _ = self.out_spare.push(buffer);
            return false;
        }
        // Each buffer has its place in either queue.
        self.out.push(buffer).is_ok()
    }

    /// The worker takes the next frame that came, by `take`, and gives its buffer back. `None`: there is none.
    pub fn take<T>(&self, take: impl FnOnce(&FrameBuf) -> T) -> Option<T> {
        let buffer = self.incoming.pop()?;
        let taken = take(&buffer);
        // There is a place for each of the HA thread's.
        let _ = self.incoming_spare.push(buffer);
        Some(taken)
    }
}
