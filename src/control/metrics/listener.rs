//! The TCP port of `/metrics`: read-only, nothing else is there.

use std::future::Future;
use std::io::ErrorKind as IoErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use crate::control::api::Limits;
use crate::control::api::accept::{self, Served};
use crate::control::node::ErrorKind;
use crate::control::{Node, NodeError};

/// What the OpenMetrics text format is called (its specification 1.0, section "Text format").
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A port that listens for Prometheus.
#[derive(Debug)]
pub struct MetricsListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl MetricsListener {
    /// Listens. Needs no async runtime, so that a node can do it before it touches any device.
    ///
    /// # Errors
    /// One line that names the key and the fix: the port is taken, the address is not this host's, ...
    pub fn bind(address: SocketAddr) -> Result<Self, NodeError> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        });
        bound.map_err(|e| {
            let fix = match e.kind() {
                IoErrorKind::AddrInUse => {
                    "choose another port, or stop what listens there (`ss -ltnp` says what)"
                }
                IoErrorKind::AddrNotAvailable => "choose an address of this host (`ip address` lists them)",
                IoErrorKind::PermissionDenied => "choose a port from 1024 on",
                _ => "choose another address",
            };
            NodeError::new(
                ErrorKind::Refused,
                format!("[metrics] listen: cannot listen at {address}: {e}"),
            )
            .fix(fix)
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What those who read metrics may use up: one reading of the node at a time, since each asks all workers.
#[must_use]
pub fn limits() -> Limits {
    Limits {
        connections: 16,
        calls: 1,
        head: Duration::from_secs(10),
        request: Duration::from_secs(30),
        connection: Duration::from_secs(300),
        drain: Duration::from_secs(1),
    }
}

/// Serves `/metrics` of `node` until `shutdown` is ready.
///
/// # Errors
/// When the port cannot be used in this async runtime (one with I/O and time).
pub async fn serve(
    listener: MetricsListener,
    node: Arc<dyn Node>,
    shutdown: impl Future<Output = ()>,
    limits: Limits,
) -> Result<(), NodeError> {
    let address = listener.address;
    let listener = tokio::net::TcpListener::from_std(listener.listener).map_err(|e| {
        NodeError::new(
            ErrorKind::Internal,
            format!("[metrics] listen: cannot serve at {address}: {e}"),
        )
    })?;
    let shared = Shared {
        node,
        calls: Arc::new(Semaphore::new(limits.calls)),
        time: limits.request,
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                "there is /metrics here, and nothing else\n",
            )
        })
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "/metrics is for GET\n"))
        .with_state(shared);
    let served = Served {
        what: "metrics",
        router,
        refusal: "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            .to_owned(),
        limits,
    };
    accept::serve(listener, (), served, shutdown).await;
    Ok(())
}

#[derive(Clone)]
struct Shared {
    node: Arc<dyn Node>,
    calls: Arc<Semaphore>,
    time: Duration,
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let time = shared.time;
    let answer = async move {
        let permit = shared.calls.acquire_owned().await;
        let permit = permit.map_err(|_| NodeError::new(ErrorKind::Unavailable, "the node is stopping"))?;
        let read = move || {
            let text = super::metrics(&*shared.node);
            drop(permit);
            text
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|_| {
            Err(NodeError::new(
                ErrorKind::Internal,
                "the request failed inside the node",
            ))
        })
    };
    let answer = tokio::time::timeout(time, answer).await.unwrap_or_else(|_| {
        Err(NodeError::new(
            ErrorKind::Unavailable,
            format!("the node's numbers were not all there after {time:?}"),
        ))
    });
    match answer {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
            response
        }
        Err(e) => e.into_response(),
    }
}
