//! The control API: HTTP/1.1 and JSON over a Unix socket.
//!
//! Everything is bounded: connections, the time for a request's head, for a request and for a connection, the size of
//! a body, calls into the node. Whatever a client sends is answered with JSON, a refusal too.

pub(super) mod accept;
mod routes;
mod socket;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use self::accept::Served;
use super::{Node, NodeError};
use crate::control::node::ErrorKind;

pub use routes::MAX_BODY_BYTES;
pub use socket::ControlSocket;

/// What clients may use up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. More are told 503 and closed: as many more with patience, beyond that at once.
    pub connections: usize,
    /// Calls into the node at once; more wait, within their request's time.
    pub calls: usize,
    /// For the head of a request, and for a connection to sit idle between two.
    pub head: Duration,
    /// For a request, from its head to its answer.
    pub request: Duration,
    /// For a connection: a client that does not read its answer cannot hold it for longer.
    pub connection: Duration,
    /// For open requests when the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            calls: 8,
            head: Duration::from_secs(10),
            request: Duration::from_secs(30),
            connection: Duration::from_secs(300),
            drain: Duration::from_secs(3),
        }
    }
}

/// Serves `node` at `socket` until `shutdown` is ready and the open requests have had their answers. Then the socket's
/// file is gone.
///
/// # Errors
/// When the socket cannot be used in this async runtime (one with I/O and time).
pub async fn serve(
    socket: ControlSocket,
    node: Arc<dyn Node>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    serve_within(socket, node, shutdown, Limits::default()).await
}

/// [`serve`] within other limits.
///
/// # Errors
/// As [`serve`].
pub async fn serve_within(
    socket: ControlSocket,
    node: Arc<dyn Node>,
    shutdown: impl Future<Output = ()>,
    limits: Limits,
) -> Result<(), NodeError> {
    let ControlSocket { listener, file } = socket;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(|e| {
        NodeError::new(
            ErrorKind::Internal,
            format!("cannot serve the control socket: {e}"),
        )
    })?;
    let served = Served {
        what: "control socket",
        router: routes::router(node, limits),
        refusal: too_many(limits.connections),
        limits,
    };
    accept::serve(listener, file, served, shutdown).await;
    Ok(())
}

/// What a client is told for which there is no slot: a whole answer.
fn too_many(connections: usize) -> String {
    let error = NodeError::new(
        ErrorKind::Unavailable,
        format!("the node has as many API connections as it takes ({connections})"),
    )
    .fix("close some, or try again");
    let body = serde_json::to_string(&error).unwrap_or_default();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}
