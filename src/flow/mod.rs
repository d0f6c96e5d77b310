//! Flows: the key, the session table, the TCP tracker and the timers.

pub mod key;

pub use key::{Direction, FlowKey, KeyClass};
