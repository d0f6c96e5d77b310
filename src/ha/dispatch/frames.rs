//! Packets that cross between the nodes: from the workers to the protocol, and from there to the workers that have their flows.

use super::Dispatch;
use crate::base::{Nanos, WorkerId};
use crate::engine::Placement;
use crate::ha::frames::FrameBuf;
use crate::ha::message::{Crossing, Path};
use crate::packet::RxChecksum;
use crate::packet::parse::{ParseOptions, parse};

/// Packets of one worker, before the next one has its turn.
const GATHER: usize = 32;

impl Dispatch {
    /// The next datagram, as [`crate::ha::Peer::poll_transmit`]: the workers' packets that cross are among them.
    pub fn poll_transmit(&mut self, now: Nanos, out: &mut Vec<u8>) -> Option<Path> {
        self.gather();
        let path = self.peer.poll_transmit(now, out);
        while let Some(buffer) = self.peer.take_spent() {
            let link = self.links.get(usize::from(buffer.worker));
            if let Some(frames) = link.and_then(|link| link.queues.frames.as_ref()) {
                // It is one of this worker's, and has a place there.
                let _ = frames.out_spare.push(buffer);
            }
        }
        path
    }

    /// Do packets wait to be sent?
    #[must_use]
    pub fn has_frames(&self) -> bool {
        let mut frames = self.links.iter().filter_map(|link| link.queues.frames.as_ref());
        frames.any(|frames| !frames.out.is_empty())
    }

    /// Takes the workers' packets, of each in turn, as many as the protocol has room for.
    fn gather(&mut self) {
        let workers = self.links.len();
        for place in 0..workers {
            let worker = (self.next_gather + place) % workers;
            let Some(frames) = &self.links[worker].queues.frames else {
                return;
            };
            for _ in 0..GATHER {
                if !self.peer.has_room_for_frames() {
                    self.next_gather = worker;
                    return;
                }
                let Some(frame) = frames.out.pop() else { break };
                let refused = self.peer.send_frame(frame);
                debug_assert!(refused.is_ok(), "there is room");
            }
        }
        self.next_gather = (self.next_gather + 1) % workers.max(1);
    }

    /// Gives the peer's packets to the workers. To be called before so many have come that there is no room for more.
    pub fn deliver(&mut self) -> bool {
        for link in &self.links {
            let Some(frames) = &link.queues.frames else {
                return false;
            };
            while let Some(buffer) = frames.incoming_spare.pop() {
                self.peer.give_back(buffer);
            }
        }
        let mut any = false;
        while let Some(frame) = self.peer.poll_frame() {
            any = true;
            let worker = self.worker_of(&frame);
            let Some(link) = self.links.get_mut(worker) else {
                self.peer.lose_frame(frame);
                continue;
            };
            link.is_rung = true;
            let refused = match &link.queues.frames {
                Some(frames) => frames.incoming.push(frame).err(),
                None => Some(frame),
            };
            if let Some(frame) = refused {
                self.peer.lose_frame(frame);
            }
        }
        any
    }

    /// The worker for a packet of the peer's: of one to be judged the owner of its flow, as far as the packet says (the engine knows
    /// better, and hands over what comes to the wrong one); of one to be sent always the same for one of the peer's workers, so that a
    /// flow's packets stay in order.
    fn worker_of(&self, frame: &FrameBuf) -> usize {
        let workers = self.links.len().max(1);
        match frame.crossing {
            Crossing::Return | Crossing::ReturnMade => usize::from(frame.worker) % workers,
            Crossing::Known | Crossing::Unknown | Crossing::SentBack => {
                let owner = self.placement.as_deref().and_then(|of| owner_of(of, frame));
                owner.map_or(0, WorkerId::index)
            }
        }
    }
}

fn owner_of(placement: &Placement, frame: &FrameBuf) -> Option<WorkerId> {
    let options = ParseOptions {
        verify_l4: false,
        ..ParseOptions::default()
    };
    let meta = parse(frame.bytes(), RxChecksum::default(), options);
    placement.owner(frame.port, &meta, frame.bytes())
}
