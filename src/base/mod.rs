//! What every other module stands on: newtype ids, time, fixed memory, prefetch and SIMD helpers.

pub mod cpu;
pub mod id;
pub mod simd;
pub mod slab;
pub mod time;

pub use id::{Generation, PairId, PortId, RuleId, SessionIx, WorkerId, ZoneId};
pub use slab::{Memory, Slab};
pub use time::{Nanos, Tick};
