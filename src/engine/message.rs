//! Session-sync messages: what the workers of a node tell each other besides packets (ARCHITECTURE.md, invariant 3).
//!
//! What makes them safe is when they are sent and taken: a message is in its receiver's queue before the packet leaves that its sender
//! had in hand, and a worker that has taken its packets drains its queue before it judges them. So whatever packet is caused by
//! the one that left, by whatever way it comes back, meets a worker that knows the message. (`tests/mesh_model.rs` checks that with
//! every order of three workers' steps.) Messages of one sender to one receiver stay in order.

use super::Engine;
use crate::base::{Nanos, WorkerId};
use crate::flow::FlowKey;
use crate::packet::PacketBuf;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Packets of this flow, which the owner function gives to the receiver, belong to `to`; `None`: to the receiver.
    Redirect {
        /// The flow.
        key: FlowKey,
        /// Who has its session.
        to: Option<WorkerId>,
    },
}

impl<B: PacketBuf> Engine<B> {
    /// Takes a message of another worker.
    pub fn receive(&mut self, now: Nanos, message: Message) {
        let _ = now;
        match message {
            Message::Redirect { key, to } => self.redirect(key, to),
        }
    }
}
