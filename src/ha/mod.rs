//! The HA pair's protocol, without I/O: time and bytes in, bytes and events out (ARCHITECTURE.md, "The HA pair").
//!
//! - `message`: what the nodes tell each other
//! - `wire`: messages to bytes and back, in a form that later versions can add to
//! - `seal`: datagrams that nobody else can read, forge or replay
//! - `election`: which of the nodes leads
//! - `frames`: packets that cross between active-active nodes
//! - `stream`: session updates in order, acknowledged, sent again in their newest state
//! - `peer`: all of it together
//! - [`dispatch`]: what goes on between it and the workers
//! - [`member`]: a worker's part in it

pub mod dispatch;
pub mod election;
pub mod frames;
pub mod member;
pub mod message;
pub mod peer;
pub mod seal;
pub mod stream;
pub mod wire;

pub use election::{Election, ElectionConfig, SwitchRefused, Why};
pub use message::{
    Ack, Crossed, Crossing, DigestReport, Frame, Heartbeat, Lead, NodeId, Part, Path, Progress, Role, Update,
};
pub use peer::{Event, Peer, PeerConfig, Status};
pub use stream::{Outgoing, StreamConfig};
