//! The engine: `process()` takes a burst of packets and the time, and gives every packet a verdict. It does no I/O,
//! reads no clock, takes no lock and allocates nothing.

pub mod outputs;
pub mod reason;

pub use outputs::{Note, Outputs, Why};
pub use reason::DropReason;
