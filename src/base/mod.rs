//! What every other module stands on: newtype ids, time, fixed memory, prefetch and SIMD helpers, the order of a turn.

pub mod cpu;
pub mod doorbell;
pub mod id;
pub mod numa;
pub mod simd;
pub mod slab;
pub mod time;
pub mod turn;

pub use id::{Generation, PairId, PortId, RuleId, SessionIx, WorkerId, ZoneId};
pub use slab::{Memory, Slab};
pub use time::{Nanos, Tick};
