//! What a running node offers to its operators, and the shapes in which it says so: the JSON of the control API.
//!
//! Units stand at the end of a name (`_s`, `_ms`, `_us`, `_ns`, `_mbps`); what has none is a count. Fields may be added by later
//! versions, so readers ignore those that they do not know; requests refuse them.

mod apply;
mod explain;
mod ha;
mod rebalance;
mod sessions;
mod status;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::filter::SessionFilter;

pub use apply::{ApplyReport, ApplyRequest, SourceFile};
pub use explain::{ExplainPacket, ExplainReport, ExplainRequest, Fate, Verdict};
pub use ha::{
    HaDigest, HaPath, HaPeer, HaRedirect, HaRole, HaStatus, HaSync, HaWish, HaWitness, NotifyKind,
    NotifyReport, NotifyRequest, NotifyState, SwitchoverReport, SyncState, no_pair,
};
pub use rebalance::RebalanceReport;
pub use sessions::{BadCursor, Cursor, KillReport, NatInfo, Owner, SessionInfo, SessionPage, SessionQuery};
pub use status::{Counters, NodeState, PortStatus, Rss, RuleStatus, Status, WorkerStatus};

/// A name that is mostly one of a fixed list.
pub type Word = Cow<'static, str>;

/// A running node, as the control API sees it.
///
/// The methods block (they ask workers and wait for the answers): the API calls them on threads where that is allowed.
/// They may be called from several threads at once, and each returns within a bounded time: a worker that does not
/// answer is [`ErrorKind::Unavailable`], not a hang.
pub trait Node: Send + Sync + 'static {
    /// The node in one screen.
    ///
    /// # Errors
    /// As all of these methods: see [`NodeError`].
    fn status(&self) -> Result<Status, NodeError>;

    /// Every port, in the configuration's order.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn ports(&self) -> Result<Vec<PortStatus>, NodeError>;

    /// Every worker, in the configuration's order.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn workers(&self) -> Result<Vec<WorkerStatus>, NodeError>;

    /// Every rule, in the configuration's order, disabled ones too, the implicit drop, and last the removed rules that
    /// still have sessions.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn rules(&self) -> Result<Vec<RuleStatus>, NodeError>;

    /// The node's packet accounts: everything that came in, and where it went.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn counters(&self) -> Result<Counters, NodeError>;

    /// One page of the sessions that match. A page may hold fewer sessions than the limit, even none, and still have a
    /// cursor: the node looks at a bounded number of slots a page. Sessions that live through all pages are listed
    /// once, but for those that move to another worker meanwhile; others may or may not be.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn sessions(&self, query: &SessionQuery) -> Result<SessionPage, NodeError>;

    /// Ends every session that matches, without a packet to its ends. Returns when they are gone. Waits two seconds at most
    /// for a move of buckets to be over: in a longer one it may miss sessions that are on their way.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn kill(&self, filter: &SessionFilter) -> Result<KillReport, NodeError>;

    /// Validates a configuration against the running one and, unless it is a dry run, puts it in force. Either all of
    /// it or nothing. Applies run one after the other.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with all diagnostics, when it is wrong or needs a restart; see [`NodeError`].
    fn apply(&self, request: &ApplyRequest) -> Result<ApplyReport, NodeError>;

    /// Moves buckets of flows, with their sessions, from the busiest worker to the least busy one, or with `dry_run` says what it
    /// would move: some 16,384 sessions at a time. Returns when the move is over.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn rebalance(&self, dry_run: bool) -> Result<RebalanceReport, NodeError>;

    /// Says what would happen to packets, from the live policy and copies of the live sessions. Changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`] for a packet that cannot be read; see [`NodeError`].
    fn explain(&self, request: &ExplainRequest) -> Result<ExplainReport, NodeError>;

    /// The HA pair as this node sees it.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] of a node that is alone; see [`NodeError`].
    fn ha(&self) -> Result<HaStatus, NodeError> {
        Err(no_pair())
    }

    /// The lead goes to the other node: a leader gives it up, a standby asks for it. Returns when the change is over, which loses no
    /// packet and no session.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when the node that would lead is not there, cannot lead, or does not have all sessions;
    /// [`ErrorKind::Unavailable`] when the change was not over in time; see [`NodeError`].
    fn switchover(&self) -> Result<SwitchoverReport, NodeError> {
        Err(no_pair())
    }

    /// Records what keepalived says of this node as its wish: MASTER asks for the lead, all else gives it up where the peer can take it.
    /// Does not wait for the change.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] of a node that is alone; see [`NodeError`].
    fn notify(&self, _request: &NotifyRequest) -> Result<NotifyReport, NodeError> {
        Err(no_pair())
    }
}

/// Why a node refuses or fails; the API's status codes follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request makes no sense, whatever the node's state: 400.
    BadRequest,
    /// What it names does not exist: 404.
    NotFound,
    /// The node's state or configuration forbids it: 409.
    Refused,
    /// The node cannot answer now (stopping, a worker is busy): 503.
    Unavailable,
    /// A later version will do this: 501.
    NotSupported,
    /// A defect or a resource that ran out: 500.
    Internal,
}

/// What a node answers instead of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error}{}", fix.as_deref().map(|f| format!(" ({f})")).unwrap_or_default())]
pub struct NodeError {
    /// What sort of refusal.
    pub kind: ErrorKind,
    /// One line: what went wrong.
    pub error: String,
    /// One line: what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// What is wrong with a configuration, all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<DiagnosticInfo>,
}

impl NodeError {
    /// An error without a fix.
    #[must_use]
    pub fn new(kind: ErrorKind, error: impl Into<String>) -> Self {
        Self {
            kind,
            error: error.into(),
            fix: None,
            diagnostics: Vec::new(),
        }
    }

    /// The same with a fix.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// One finding in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticInfo {
    /// `error` or `warning`.
    pub severity: Severity,
    /// The file, as it was named or included.
    pub file: String,
    /// From 1; 0: the file as a whole.
    pub line: u32,
    /// From 1, in characters; 0: the line as a whole.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is not accepted.
    Error,
    /// It is, but may not do what was meant.
    Warning,
}
