//! The control API: HTTP/1.1 and JSON over a Unix socket.
//!
//! Everything is bounded: connections, the time for a request's head, for a request and for a connection, the size of
//! a body, calls into the node. Whatever a client sends is answered with JSON, a refusal too.

mod routes;
mod socket;

use std::future::Future;
use std::io::ErrorKind as ErrorKindIo;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

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
    let router = routes::router(node, limits);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let refusal: Arc<str> = Arc::from(too_many(limits.connections));
    let turned_away = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                // Out of file descriptors, most likely: a moment later some may be free.
                tracing::warn!("control socket: cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            match Arc::clone(&turned_away).try_acquire_owned() {
                Ok(slot) => {
                    let refusal = Arc::clone(&refusal);
                    tokio::spawn(async move {
                        turn_away(stream, &refusal).await;
                        drop(slot);
                    });
                }
                // A socket just made has room for it, and whoever is to read it can.
                Err(_) => drop(rustix::io::write(&stream, refusal.as_bytes())),
            }
            continue;
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            match tokio::time::timeout(limits.connection, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::debug!("control connection: {e}"),
                Err(_) => tracing::debug!("control connection: closed after {:?}", limits.connection),
            }
            drop(slot);
        });
    }
    // No new connections while the open ones finish.
    drop(listener);
    drop(file);
    if tokio::time::timeout(limits.drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("control socket: requests were cut off by the stop");
    }
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

/// Tells a client so, and lets it read that before the connection goes.
async fn turn_away(stream: UnixStream, refusal: &str) {
    let exchange = async {
        let mut rest = refusal.as_bytes();
        while !rest.is_empty() {
            stream.writable().await?;
            match stream.try_write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == ErrorKindIo::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        rustix::net::shutdown(&stream, rustix::net::Shutdown::Write)?;
        // A socket closed with a request unread in it takes its answer along: read until the client has hung up.
        let mut unread = [0; 4096];
        loop {
            stream.readable().await?;
            match stream.try_read(&mut unread) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKindIo::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    };
    // A client that is gone or does not read has nothing to be told.
    let _: Result<Result<(), std::io::Error>, _> =
        tokio::time::timeout(Duration::from_secs(1), exchange).await;
}
