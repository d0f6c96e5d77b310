//! Session-sync messages: what the workers of a node tell each other besides packets (ARCHITECTURE.md, invariant 3).
//!
//! What makes them safe is when they are sent and taken: a message is in its receiver's queue before the packet leaves that its sender
//! had in hand, and a worker that has taken its packets drains its queue before it judges them. So whatever packet is caused by
//! the one that left, by whatever way it comes back, meets a worker that knows the message. (`tests/mesh_model.rs` checks that with
//! every order of three workers' steps.) Messages of one sender to one receiver stay in order.

use super::leases::Units;
use super::syn::Retry;
use super::{Engine, Outputs};
use crate::base::{Generation, Nanos, RuleId, WorkerId};
use crate::flow::FlowKey;
use crate::flow::table::{Moved, News};
use crate::packet::PacketBuf;

/// One message.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a worker allocates nothing: a session travels in the queue itself"
)]
pub enum Message {
    /// Packets of this flow, which the owner function gives to the receiver, belong to `to`; `None`: to the receiver.
    Redirect {
        /// The flow.
        key: FlowKey,
        /// What the owner function makes of it.
        hash: u32,
        /// Who has its session.
        to: Option<WorkerId>,
    },
    /// The sender needs more of a limit that it shares with the receiver.
    Ask(Ask),
    /// The sender gives of a limit; answers an [`Ask`], with nothing if need be, or sends back what it does not need.
    Give(Give),
    /// To a rule's home after its limit has changed: the sender has so many sessions of it, and opens no more.
    Report {
        /// The rule.
        rule: RuleId,
        /// Its live sessions there.
        sessions: u32,
        /// Since when the rule has its limit.
        epoch: Generation,
    },
    /// A rule's home has heard from all: sessions of it may be opened again, and so many more than there are.
    Open {
        /// The rule.
        rule: RuleId,
        /// Sessions.
        amount: u32,
        /// Since when the rule has its limit.
        epoch: Generation,
    },
    /// A move ([`super::moving`]): the source asks for room for some sessions.
    Room {
        /// Who asks.
        source: WorkerId,
    },
    /// There is room for so many; 0: the table is full.
    Granted {
        /// Sessions.
        sessions: u16,
        /// The receiver sends none before it has this policy, or a newer one.
        policy: Generation,
    },
    /// A session, which is the receiver's from now on, with what it takes of limits.
    Session(Moved, Units),
    /// A SYN that the receiver is to send again if the server of this flow, whose session has come before, does not answer.
    Retry {
        /// The flow.
        key: FlowKey,
        /// The SYN.
        retry: Retry,
    },
    /// What the receiver had given the sender before its [`super::Mark::Drain`] has been done.
    Passed {
        /// The mark's version.
        version: u32,
    },
    /// News of a session of the other node of an HA pair, which is the receiver's to keep; and whether one of this node's own gives way to it.
    Peer(News, bool),
    /// All sessions of the buckets have been sent.
    Moved {
        /// Until then SYN cookies that the sender gave out may come back, to the receiver.
        awaited_until: Nanos,
    },
}

/// A limit that workers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `max_sessions` of the node.
    Table,
    /// `max_sessions` of a rule.
    Rule(RuleId),
    /// A limit of a rule by source.
    Source {
        /// The rule.
        rule: RuleId,
        /// The source's name: the secret hash of rule and address.
        print: u64,
        /// Which limit.
        part: Part,
    },
}

/// Which limit by source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `max_sessions_per_source`.
    Sessions,
    /// `new_sessions_per_source`.
    Rate,
}

/// See [`Message::Ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who asks.
    pub from: WorkerId,
    /// For what.
    pub limit: Limit,
    /// More than this it cannot use.
    pub want: u32,
    /// What it uses of its lease.
    pub live: u32,
    /// Its lease.
    pub lease: u32,
    /// Since when the limit is what it is; without effect where it is another.
    pub epoch: Generation,
}

/// See [`Message::Give`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Give {
    /// Who gives.
    pub from: WorkerId,
    /// Of what.
    pub limit: Limit,
    /// How much.
    pub amount: u32,
    /// As in [`Ask::epoch`].
    pub epoch: Generation,
}

impl<B: PacketBuf> Engine<B> {
    /// Takes a message of another worker.
    pub fn receive<O: Outputs<B>>(&mut self, now: Nanos, message: Message, out: &mut O) {
        match message {
            Message::Ask(ask) => self.asked(now, &ask, out),
            Message::Give(give) => self.given(now, &give, out),
            Message::Report {
                rule,
                sessions,
                epoch,
            } => self.reported(rule, sessions, epoch),
            Message::Open { rule, amount, epoch } => self.opened(rule, amount, epoch),
            Message::Redirect { key, hash, to } => self.redirect(key, hash, to),
            Message::Room { source } => self.make_room_for(source),
            Message::Granted { sessions, policy } => self.granted(sessions, policy),
            Message::Session(moved, units) => self.take_in(now, moved, units),
            Message::Retry { key, retry } => self.take_retry(&key, &retry),
            Message::Passed { .. } => self.drained(),
            Message::Peer(news, yields) => self.take_news(now, &news, yields, out),
            Message::Moved { awaited_until } => self.all_moved(awaited_until),
        }
    }
}
