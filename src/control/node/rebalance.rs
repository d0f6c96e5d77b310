//! Moving buckets of flows between workers: what is answered.

use serde::{Deserialize, Serialize};

/// `POST /v1/workers/rebalance`: what was moved, or with `dry_run=true` would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebalanceReport {
    /// Was something moved? Not by a dry run.
    pub moved: bool,
    /// The busiest worker, whose buckets go; absent where nothing is to be moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u16>,
    /// The least busy one, which gets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u16>,
    /// Of 512.
    pub buckets: u64,
    /// Sessions in them when they were chosen.
    pub sessions: u64,
    /// How busy the workers were in the second before, in percent.
    pub busy_percent: Vec<u64>,
    /// The version of the table in force: one more with every move.
    pub version: u32,
    /// Why nothing is moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
