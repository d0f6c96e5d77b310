//! `/metrics`: what the control API's reads say, for Prometheus (OpenMetrics text, version 1.0.0).
//!
//! Names are the API's with `haechi_`, the part that they belong to (`port_`, `worker_`, `rule_`) and base units: counters end in `_total`,
//! times are in seconds, shares from 0 to 1 end in `_ratio`. Series are as many as there are ports, workers, rules, states and reasons:
//! what packets bring along (addresses, sessions) is in no label.

mod families;
mod listener;
mod page;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use super::NodeError;
use super::node::{Counters, Node, PortStatus, RuleStatus, Status, WorkerStatus};
use crate::control::node::ErrorKind;
use page::Page;

pub use listener::{MetricsListener, limits, serve};

/// What an answer is made of: one reading of the node.
#[derive(Debug)]
struct Snapshot {
    status: Status,
    ports: Vec<PortStatus>,
    workers: Vec<WorkerStatus>,
    /// `None`: a worker does not answer, so nobody knows.
    rules: Option<Vec<RuleStatus>>,
    /// Likewise.
    counters: Option<Counters>,
}

impl Snapshot {
    /// Asks the node. Of one with a worker that does not answer, what needs all workers' answers is left out, so that the rest comes in
    /// time.
    fn of(node: &dyn Node) -> Result<Self, NodeError> {
        let workers = node.workers()?;
        let stalled = workers.iter().any(|worker| worker.stalled);
        Ok(Self {
            status: node.status()?,
            ports: node.ports()?,
            rules: (!stalled).then(|| node.rules()).map_or(Ok(None), known)?,
            counters: (!stalled).then(|| node.counters()).map_or(Ok(None), known)?,
            workers,
        })
    }
}

/// What a node answers, if it can now.
fn known<T>(answer: Result<T, NodeError>) -> Result<Option<T>, NodeError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind == ErrorKind::Unavailable => Ok(None),
        Err(error) => Err(error),
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        families::encode(self, &mut Page(encoder))
    }
}

/// The whole answer to `GET /metrics`. Blocks as the calls of [`Node`] do.
///
/// # Errors
/// See [`NodeError`]. What a stalled worker does not tell is no error: the families that need it are left out, and `haechi_complete` is
/// 0.
pub fn metrics(node: &dyn Node) -> Result<String, NodeError> {
    let mut registry = Registry::with_prefix("haechi");
    registry.register_collector(Box::new(Snapshot::of(node)?));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = text::encode(&mut text, &registry);
    Ok(text)
}
