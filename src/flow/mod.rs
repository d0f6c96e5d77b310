//! Flows: the key, who owns them, the session table, the TCP tracker and the timers.

pub mod echo;
pub mod evict;
pub mod fragments;
mod hash;
pub mod image;
mod index;
pub mod key;
pub mod owner;
pub mod proof;
pub mod relearn;
pub mod segment;
pub mod session;
pub mod state;
pub mod station;
pub mod table;
pub mod track;
pub mod translation;
mod wheel;
pub mod window;

pub use evict::EvictionClass;
pub use fragments::{FragmentKey, Fragments};
pub use hash::{HashKey, HashSeed, SecretHash};
pub use image::{Birth, Bucket, BucketSet, DigestKey, Image};
pub use key::{Direction, FlowKey, KeyClass, KeyRow};
pub use owner::{BUCKETS, BucketTable, KeySet, Method, OwnerFunction, Side, Tuple};
pub use proof::{Disagreement, Event, Kind, Kinds, Proof, RssState, Trust};
pub use segment::{Options, Segment};
pub use session::Session;
pub use state::{SessionState, StateTimeouts, TimeoutClass};
pub use table::{
    Candidate, Due, Entry, Expiry, Lookup, MAX_BATCH, SessionId, SessionTable, TableError, TableFull,
};
pub use track::Tracked;
pub use translation::Translation;
pub use window::{Plain, TcpSender};
