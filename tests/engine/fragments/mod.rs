//! Fragments: held until their datagram is complete, judged once, and gone as they came.

pub mod cut;
mod hostile;
mod oracle;
mod whole;
