//! What is wrong with a configuration: every error in one run, each with its place and a hint.

mod files;
mod garbage;
mod good;
mod ha;
mod limits;
mod logs;
mod metrics;
mod names;
mod ports;
mod rules;
mod zones;
