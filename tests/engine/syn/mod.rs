//! SYN protection: what a handshake by cookie looks like from both ends, and what a forger gets.

mod both_ends;
mod engaged;
mod handshake;
mod hostile;
mod servers;
mod translation;
