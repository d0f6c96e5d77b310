//! The routes: what is asked for, checked, handed to the node, and answered.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::sync::Semaphore;

use super::Limits;
use crate::control::node::{
    ApplyRequest, Cursor, ErrorKind, ExplainRequest, Node, NodeError, NotifyRequest, SessionQuery,
};

/// A request's body at most: room for a configuration with large sets, or for a capture of some ten thousand packets.
pub const MAX_BODY_BYTES: usize = 32 << 20;

/// What handlers share.
#[derive(Clone)]
struct Shared {
    node: Arc<dyn Node>,
    calls: Arc<Semaphore>,
}

type Answer = Result<Response, NodeError>;

pub(super) fn router(node: Arc<dyn Node>, limits: Limits) -> Router {
    let shared = Shared {
        node,
        calls: Arc::new(Semaphore::new(limits.calls)),
    };
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/ports", get(ports))
        .route("/v1/workers", get(workers))
        .route("/v1/workers/rebalance", post(rebalance))
        .route("/v1/rules", get(rules))
        .route("/v1/counters", get(counters))
        .route("/v1/sessions", get(sessions).delete(kill))
        .route("/v1/apply", post(apply))
        .route("/v1/explain", post(explain))
        .route("/v1/ha", get(ha))
        .route("/v1/ha/switchover", post(switchover))
        .route("/v1/ha/notify", post(notify))
        .route("/v1/{later}", any(later))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(move |request, next| {
            in_time(limits, request, next)
        }))
        .with_state(shared)
}

impl IntoResponse for NodeError {
    fn into_response(self) -> Response {
        let status = match self.kind {
            ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Refused => StatusCode::CONFLICT,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::NotSupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        json(status, &self)
    }
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    // These shapes have string keys and finite numbers only: serialising them cannot fail.
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Shared {
    /// Calls the node where blocking is allowed, and answers with what it says.
    async fn call<T, F>(self, f: F) -> Answer
    where
        T: Serialize + Send + 'static,
        F: FnOnce(&dyn Node) -> Result<T, NodeError> + Send + 'static,
    {
        let permit = self
            .calls
            .acquire_owned()
            .await
            .map_err(|_| NodeError::new(ErrorKind::Unavailable, "the node is stopping"))?;
        let node = self.node;
        // Serialised there too: a page of sessions is some megabytes.
        let work = move || {
            let answer = f(&*node).map(|value| json(StatusCode::OK, &value));
            drop(permit);
            answer
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
            Err(NodeError::new(
                ErrorKind::Internal,
                "the request failed inside the node",
            ))
        })
    }
}

/// Answers 503 when a request takes too long, its body's arrival included; does not wait for one that is too large.
async fn in_time(limits: Limits, request: Request, next: Next) -> Response {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let length = announced.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_BODY_BYTES) {
        return too_large().into_response();
    }
    match tokio::time::timeout(limits.request, next.run(request)).await {
        Ok(response) => response,
        Err(_) => NodeError::new(
            ErrorKind::Unavailable,
            format!("the request was not done after {:?}", limits.request),
        )
        .fix("try again, or ask for less")
        .into_response(),
    }
}

async fn status(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Answer {
    no_parameters(query.as_deref())?;
    shared.call(|node| node.status()).await
}

async fn counters(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Answer {
    no_parameters(query.as_deref())?;
    shared.call(|node| node.counters()).await
}

async fn ports(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Answer {
    no_parameters(query.as_deref())?;
    shared
        .call(|node| Ok(serde_json::json!({ "ports": node.ports()? })))
        .await
}

async fn workers(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Answer {
    no_parameters(query.as_deref())?;
    shared
        .call(|node| Ok(serde_json::json!({ "workers": node.workers()? })))
        .await
}

async fn rebalance(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Answer {
    let mut dry_run = false;
    for (key, value) in parameters(query.as_deref()) {
        match (key.as_str(), value.as_str()) {
            ("dry_run", "true") => dry_run = true,
            ("dry_run", _) => {
                return Err(bad(format!(
                    "query: `dry_run` is `true` or not there, but it is `{value}`"
                )));
            }
            _ => return Err(bad(format!("query: there is no parameter `{key}`"))),
        }
    }
    shared.call(move |node| node.rebalance(dry_run)).await
}

async fn rules(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Answer {
    no_parameters(query.as_deref())?;
    shared
        .call(|node| Ok(serde_json::json!({ "rules": node.rules()? })))
        .await
}

async fn sessions(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Answer {
    let mut wanted = SessionQuery {
        limit: SessionQuery::DEFAULT_LIMIT,
        ..SessionQuery::default()
    };
    for (key, value) in parameters(query.as_deref()) {
        match key.as_str() {
            "limit" => wanted.limit = limit(&value)?,
            "cursor" => wanted.cursor = cursor(&value)?,
            _ => wanted
                .filter
                .push(&key, &value)
                .map_err(|e| bad(format!("query: {e}")))?,
        }
    }
    shared.call(move |node| node.sessions(&wanted)).await
}

async fn kill(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Answer {
    let mut filter = crate::control::SessionFilter::default();
    let mut all = false;
    for (key, value) in parameters(query.as_deref()) {
        match (key.as_str(), value.as_str()) {
            ("all", "true") => all = true,
            ("all", _) => {
                return Err(bad(format!(
                    "query: `all` is `true` or not there, but it is `{value}`"
                )));
            }
            _ => filter
                .push(&key, &value)
                .map_err(|e| bad(format!("query: {e}")))?,
        }
    }
    if filter.is_empty() != all {
        return Err(
            bad("query: say which sessions, or `all=true`, one of the two".to_owned())
                .fix("for example DELETE /v1/sessions?protocol=tcp&from=trust"),
        );
    }
    shared.call(move |node| node.kill(&filter)).await
}

async fn apply(State(shared): State<Shared>, RawQuery(query): RawQuery, body: ReadBody) -> Answer {
    no_parameters(query.as_deref())?;
    let request: ApplyRequest = parse_body(body, ApplyRequest::SHAPE)?;
    if request.files.is_empty() {
        return Err(bad("body: `files` has to hold the configuration file".to_owned()));
    }
    shared.call(move |node| node.apply(&request)).await
}

async fn explain(State(shared): State<Shared>, RawQuery(query): RawQuery, body: ReadBody) -> Answer {
    no_parameters(query.as_deref())?;
    let request: ExplainRequest = parse_body(body, ExplainRequest::SHAPE)?;
    shared.call(move |node| node.explain(&request)).await
}

async fn ha(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Answer {
    no_parameters(query.as_deref())?;
    shared.call(|node| node.ha()).await
}

async fn switchover(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Answer {
    no_parameters(query.as_deref())?;
    shared.call(|node| node.switchover()).await
}

async fn notify(State(shared): State<Shared>, RawQuery(query): RawQuery, body: ReadBody) -> Answer {
    no_parameters(query.as_deref())?;
    let request: NotifyRequest = parse_body(body, NotifyRequest::SHAPE)?;
    shared.call(move |node| node.notify(&request)).await
}

/// What later versions will answer at these addresses.
async fn later(method: Method, Path(name): Path<String>) -> Response {
    let right = match name.as_str() {
        "routes" | "neighbours" => Method::GET,
        "confirm" | "rollback" => Method::POST,
        _ => return unknown(&format!("/v1/{name}")).into_response(),
    };
    if method != right {
        return wrong_method(&method, &format!("/v1/{name}"));
    }
    NodeError::new(
        ErrorKind::NotSupported,
        format!("{method} /v1/{name} is not supported yet"),
    )
    .into_response()
}

async fn no_route(request: Request) -> NodeError {
    unknown(request.uri().path())
}

async fn no_method(method: Method, request: Request) -> Response {
    wrong_method(&method, request.uri().path())
}

fn wrong_method(method: &Method, path: &str) -> Response {
    let error = bad(format!("{method} {path}: the method does not fit here")).fix(WHAT_THERE_IS);
    let mut response = error.into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

const WHAT_THERE_IS: &str = "GET /v1/status, sessions, counters, rules, ports, workers, ha; POST /v1/apply, explain; DELETE /v1/sessions";

fn unknown(path: &str) -> NodeError {
    NodeError::new(ErrorKind::NotFound, format!("there is no {path}")).fix(WHAT_THERE_IS)
}

fn bad(message: impl Into<String>) -> NodeError {
    NodeError::new(ErrorKind::BadRequest, message)
}

/// A body, or why it did not arrive whole.
type ReadBody = Result<Bytes, BytesRejection>;

fn too_large() -> NodeError {
    bad(format!("body: it is larger than {} MiB", MAX_BODY_BYTES >> 20))
}

/// Reads a request's body as JSON; refusals name the field and the place, and show a body of the right `shape`.
fn parse_body<T: DeserializeOwned>(body: ReadBody, shape: &str) -> Result<T, NodeError> {
    let bytes = body.map_err(|e| match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => bad(format!("body: {e}")),
    })?;
    let wrong = |why: String| bad(format!("body: {why}")).fix(format!("it is like {shape}"));
    if bytes.trim_ascii().is_empty() {
        return Err(wrong("there is none".to_owned()));
    }
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        let why = e.into_inner();
        match (why.classify(), path.as_str()) {
            (Category::Data, "." | "?") => wrong(in_words_of_json(&why.to_string())),
            (Category::Data, path) => wrong(format!("`{path}`: {}", in_words_of_json(&why.to_string()))),
            _ => wrong(format!("it is not JSON: {why}")),
        }
    })?;
    json.end()
        .map_err(|e| wrong(format!("it goes on behind its end: {e}")))?;
    Ok(value)
}

/// What serde says of a wrong value, which it calls by the names of its own data model and of Rust's types.
fn in_words_of_json(said: &str) -> String {
    let mut said = said.to_owned();
    for (theirs, json) in [
        ("invalid type: map,", "it is an object,"),
        ("invalid type: sequence,", "it is an array,"),
        ("invalid type: integer ", "it is the number "),
        ("invalid value: integer ", "it is the number "),
        ("invalid type: floating point ", "it is the number "),
        ("invalid type: string ", "it is the string "),
        ("invalid type: boolean ", "it is "),
        ("invalid type: ", "it is "),
        ("invalid length", "it is an array of length"),
        ("expected a sequence", "expected an array"),
        ("expected a map", "expected an object"),
        ("expected a boolean", "expected true or false"),
        ("expected u64", "expected a whole number, 0 or more"),
    ] {
        said = said.replacen(theirs, json, 1);
    }
    said
}

/// The query's `key=value` pairs, unescaped, in order.
fn parameters(query: Option<&str>) -> impl Iterator<Item = (String, String)> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
}

fn no_parameters(query: Option<&str>) -> Result<(), NodeError> {
    match parameters(query).next() {
        None => Ok(()),
        Some((key, _)) => Err(bad(format!("query: there is no parameter `{key}` here"))),
    }
}

fn limit(value: &str) -> Result<usize, NodeError> {
    match value.parse() {
        Ok(n) if (1..=SessionQuery::MAX_LIMIT).contains(&n) => Ok(n),
        _ => Err(bad(format!(
            "query: `limit` is a number from 1 to {}, but it is `{value}`",
            SessionQuery::MAX_LIMIT
        ))),
    }
}

fn cursor(value: &str) -> Result<Cursor, NodeError> {
    value
        .parse()
        .map_err(|e| bad(format!("query: `cursor`: {e}, but `{value}`")))
}
