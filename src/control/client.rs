//! The control API's client: what the command line is made of.

mod patient;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use self::patient::Patient;
use super::SessionFilter;
use super::node::{
    ApplyReport, ApplyRequest, Counters, Cursor, ErrorKind, ExplainReport, ExplainRequest, HaStatus,
    KillReport, NodeError, NotifyReport, NotifyRequest, PortStatus, RebalanceReport, RuleStatus, SessionPage,
    Status, SwitchoverReport, WorkerStatus,
};

/// An answer at most: a page of the largest size with the longest names is well below it.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A node that is reached over its control socket. One connection for each request.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
    timeout: Duration,
}

#[derive(serde::Deserialize)]
struct Ports {
    ports: Vec<PortStatus>,
}

#[derive(serde::Deserialize)]
struct Workers {
    workers: Vec<WorkerStatus>,
}

#[derive(serde::Deserialize)]
struct Rules {
    rules: Vec<RuleStatus>,
}

impl Client {
    /// A client of the node at `socket`. Nothing is sent yet.
    ///
    /// # Errors
    /// When the process cannot wait for I/O.
    pub fn new(socket: &Path) -> Result<Self, NodeError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| NodeError::new(ErrorKind::Internal, format!("cannot start the client: {e}")))?;
        Ok(Self {
            socket: socket.to_owned(),
            runtime,
            timeout: Duration::from_secs(60),
        })
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    /// The node's refusal, or why it cannot be reached; so for all requests.
    pub fn status(&self) -> Result<Status, NodeError> {
        self.get("/v1/status")
    }

    /// `GET /v1/ports`.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn ports(&self) -> Result<Vec<PortStatus>, NodeError> {
        self.get::<Ports>("/v1/ports").map(|list| list.ports)
    }

    /// `GET /v1/workers`.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn workers(&self) -> Result<Vec<WorkerStatus>, NodeError> {
        self.get::<Workers>("/v1/workers").map(|list| list.workers)
    }

    /// `GET /v1/rules`.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn rules(&self) -> Result<Vec<RuleStatus>, NodeError> {
        self.get::<Rules>("/v1/rules").map(|list| list.rules)
    }

    /// `GET /v1/counters`.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn counters(&self) -> Result<Counters, NodeError> {
        self.get("/v1/counters")
    }

    /// `GET /v1/sessions`: one page.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn sessions(
        &self,
        filter: &SessionFilter,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<SessionPage, NodeError> {
        let mut query = query_of(filter);
        query.append_pair("limit", &limit.to_string());
        if let Some(cursor) = cursor {
            query.append_pair("cursor", &cursor.to_string());
        }
        self.get(&format!("/v1/sessions?{}", query.finish()))
    }

    /// `DELETE /v1/sessions`: those of the filter, or all of them with an empty one.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn kill(&self, filter: &SessionFilter) -> Result<KillReport, NodeError> {
        let mut query = query_of(filter);
        if filter.is_empty() {
            query.append_pair("all", "true");
        }
        let target = format!("/v1/sessions?{}", query.finish());
        self.request(Method::DELETE, &target, Bytes::new())
    }

    /// `POST /v1/workers/rebalance`.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn rebalance(&self, dry_run: bool) -> Result<RebalanceReport, NodeError> {
        let query = if dry_run { "?dry_run=true" } else { "" };
        let target = format!("/v1/workers/rebalance{query}");
        self.request(Method::POST, &target, Bytes::new())
    }

    /// `POST /v1/apply`.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn apply(&self, request: &ApplyRequest) -> Result<ApplyReport, NodeError> {
        self.post("/v1/apply", request)
    }

    /// `POST /v1/explain`.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn explain(&self, request: &ExplainRequest) -> Result<ExplainReport, NodeError> {
        self.post("/v1/explain", request)
    }

    /// `GET /v1/ha`.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn ha(&self) -> Result<HaStatus, NodeError> {
        self.get("/v1/ha")
    }

    /// `POST /v1/ha/switchover`.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn switchover(&self) -> Result<SwitchoverReport, NodeError> {
        self.request(Method::POST, "/v1/ha/switchover", Bytes::new())
    }

    /// `POST /v1/ha/notify`.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn notify(&self, request: &NotifyRequest) -> Result<NotifyReport, NodeError> {
        self.post("/v1/ha/notify", request)
    }

    fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, NodeError> {
        self.request(Method::GET, target, Bytes::new())
    }

    fn post<T: DeserializeOwned, B: Serialize>(&self, target: &str, body: &B) -> Result<T, NodeError> {
        let body = serde_json::to_vec(body)
            .map_err(|e| NodeError::new(ErrorKind::Internal, format!("cannot write the request: {e}")))?;
        self.request(Method::POST, target, Bytes::from(body))
    }

    fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<T, NodeError> {
        // The timer needs the runtime around it.
        let exchange =
            async { tokio::time::timeout(self.timeout, self.exchange(method, target, body)).await };
        let (status, answer) = self.runtime.block_on(exchange).map_err(|_| {
            self.error(
                ErrorKind::Unavailable,
                &format!("no answer within {:?}", self.timeout),
            )
            .fix("is the node overloaded or stopped? See its log")
        })??;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(|e| self.foreign(&e.to_string()));
        }
        match serde_json::from_slice::<NodeError>(&answer) {
            Ok(refusal) => Err(refusal),
            Err(_) => Err(self.foreign(&format!("HTTP status {status}"))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), NodeError> {
        let broken = |why: String| {
            self.error(
                ErrorKind::Unavailable,
                &format!("the connection to the node broke: {why}"),
            )
            .fix("is the node stopping? Try again")
        };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|e| self.unreachable(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(Patient::new(stream)))
                .await
                .map_err(|e| broken(e.to_string()))?;
        tokio::spawn(async move {
            // The request that is under way sees the same error.
            let _ = connection.await;
        });
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| NodeError::new(ErrorKind::BadRequest, format!("cannot be asked: {e}")))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| broken(e.to_string()))?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|e| broken(e.to_string()))?;
        Ok((status, answer.to_bytes()))
    }

    fn error(&self, kind: ErrorKind, what: &str) -> NodeError {
        NodeError::new(kind, format!("{}: {what}", self.socket.display()))
    }

    fn foreign(&self, why: &str) -> NodeError {
        self.error(
            ErrorKind::Internal,
            &format!("the answer is not one of this version's: {why}"),
        )
        .fix("is it a haechi node's control socket, and of the same version?")
    }

    fn unreachable(&self, e: &io::Error) -> NodeError {
        let error = |what: &str| self.error(ErrorKind::Unavailable, what);
        match e.kind() {
            io::ErrorKind::NotFound => error("no node runs here: there is no such socket")
                .fix("start one with `haechi run`, or name its socket with --socket"),
            io::ErrorKind::ConnectionRefused => {
                error("no node runs here any more: nobody listens at the socket")
                    .fix("start one with `haechi run`, or name its socket with --socket")
            }
            io::ErrorKind::PermissionDenied => {
                error("permission denied").fix("run as root, or as a member of the socket's group")
            }
            // Its queue of connections that it has not even looked at is full (unix(7): EAGAIN).
            io::ErrorKind::WouldBlock => error("more clients wait for the node than it lets wait")
                .fix("close some API connections, or try again"),
            _ => error(&format!("cannot connect: {e}")).fix("name the node's control socket with --socket"),
        }
    }
}

fn query_of(filter: &SessionFilter) -> form_urlencoded::Serializer<'static, String> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (key, value) in filter.pairs() {
        query.append_pair(&key, value);
    }
    query
}
