//! `/metrics`: the format, that every number of the API is in it with its value, and the port that it is served at.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(clippy::disallowed_types, reason = "a lock between test threads")]

mod control_support;
#[path = "support/exposition.rs"]
mod exposition;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use control_support::{CONFIG, LAN, TestNode};
use exposition::{differences, parse};
use haechi::control::api::Limits;
use haechi::control::metrics::{self, MetricsListener};
use haechi::control::node::{
    ApplyReport, ApplyRequest, Counters, ErrorKind, ExplainReport, ExplainRequest, KillReport, Node,
    PortStatus, RebalanceReport, RuleStatus, SessionPage, SessionQuery, Status, WorkerStatus,
};
use haechi::control::{NodeError, SessionFilter};
use serde_json::{Value, json};

/// A node that answers reads with what it was given.
struct Answers {
    status: Value,
    ports: Value,
    workers: Value,
    rules: Value,
    counters: Value,
    /// What reading rules and counters fails with.
    fails: Option<ErrorKind>,
}

impl Answers {
    /// What a real node of one worker answers, after some packets.
    fn real() -> Self {
        let node = TestNode::new(CONFIG);
        assert!(node.send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:80 syn"));
        assert!(!node.send(LAN, "tcp 10.0.0.5:1000 > 192.0.2.7:25 syn"));
        assert!(!node.send_frame(LAN, vec![0; 13]));
        Self {
            status: serde_json::to_value(node.status().unwrap()).unwrap(),
            ports: serde_json::to_value(node.ports().unwrap()).unwrap(),
            workers: serde_json::to_value(node.workers().unwrap()).unwrap(),
            rules: serde_json::to_value(node.rules().unwrap()).unwrap(),
            counters: serde_json::to_value(node.counters().unwrap()).unwrap(),
            fails: None,
        }
    }

    /// The same with another number in each field, so that none can stand for another. Two numbers are in both of two sections.
    fn numbered() -> Self {
        let mut all = Self::real();
        let mut next = 1000;
        for section in [
            &mut all.status,
            &mut all.ports,
            &mut all.workers,
            &mut all.rules,
            &mut all.counters,
        ] {
            number(section, &mut next);
        }
        all.status["sessions_evicted"] = all.counters["sessions_evicted"].clone();
        all.workers[0]["stalled"] = json!(false);
        all
    }

    fn sections(&self) -> [(&str, Value); 5] {
        [
            ("status", self.status.clone()),
            ("ports", self.ports.clone()),
            ("workers", self.workers.clone()),
            ("rules", self.rules.clone()),
            ("counters", self.counters.clone()),
        ]
    }
}

/// Gives every number another value, and truth values the other one.
fn number(value: &mut Value, next: &mut u64) {
    *next += 1;
    match value {
        // Those that are u16 take it too.
        Value::Number(n) if n.is_f64() => *value = json!(*next as f64 + 0.5),
        Value::Number(_) => *value = json!(*next),
        Value::Bool(b) => *value = json!(!*b),
        // Of a rule that no packet met.
        Value::Array(list) => list.iter_mut().for_each(|value| number(value, next)),
        Value::Object(map) => {
            if map.get("last_hit") == Some(&Value::Null) {
                map.insert("last_hit".to_owned(), json!(1.75e9));
            }
            map.values_mut().for_each(|value| number(value, next));
        }
        Value::Null | Value::String(_) => {}
    }
}

fn of<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, NodeError> {
    Ok(serde_json::from_value(value.clone()).unwrap())
}

impl Node for Answers {
    fn status(&self) -> Result<Status, NodeError> {
        of(&self.status)
    }
    fn ports(&self) -> Result<Vec<PortStatus>, NodeError> {
        of(&self.ports)
    }
    fn workers(&self) -> Result<Vec<WorkerStatus>, NodeError> {
        of(&self.workers)
    }
    fn rules(&self) -> Result<Vec<RuleStatus>, NodeError> {
        match self.fails {
            Some(kind) => Err(NodeError::new(kind, "no rules")),
            None => of(&self.rules),
        }
    }
    fn counters(&self) -> Result<Counters, NodeError> {
        match self.fails {
            Some(kind) => Err(NodeError::new(kind, "no counters")),
            None => of(&self.counters),
        }
    }
    fn sessions(&self, _: &SessionQuery) -> Result<SessionPage, NodeError> {
        panic!("metrics list no sessions")
    }
    fn kill(&self, _: &SessionFilter) -> Result<KillReport, NodeError> {
        panic!("metrics change nothing")
    }
    fn apply(&self, _: &ApplyRequest) -> Result<ApplyReport, NodeError> {
        panic!("metrics change nothing")
    }
    fn rebalance(&self, _: bool) -> Result<RebalanceReport, NodeError> {
        panic!("metrics change nothing")
    }
    fn explain(&self, _: &ExplainRequest) -> Result<ExplainReport, NodeError> {
        panic!("metrics explain nothing")
    }
}

#[test]
fn every_number_of_the_api_is_there_with_its_value() {
    for node in [Answers::real(), Answers::numbered()] {
        let samples = parse(&metrics::metrics(&node).unwrap());
        let wrong = differences(&node.sections(), &samples, &[]);
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(samples[&("haechi_complete".to_owned(), [].into())], 1.0);
        assert_eq!(samples[&("haechi_warnings".to_owned(), [].into())], 1.0);
        let drops = samples
            .keys()
            .filter(|(name, _)| name == "haechi_drops_total")
            .count();
        assert_eq!(drops, haechi::engine::DropReason::COUNT);
    }
}

/// The comparison itself finds what it is for.
#[test]
fn a_number_that_is_missing_or_another_is_found() {
    let node = Answers::numbered();
    let text = metrics::metrics(&node).unwrap();
    let of_port = "haechi_port_rx_missed_total{port=\"wan\"} ";
    let line = text.lines().find(|line| line.starts_with(of_port)).unwrap();
    let wrong = |text: &str| differences(&node.sections(), &parse(text), &[]);
    assert_eq!(wrong(&text.replace(&format!("{line}\n"), "")).len(), 1);
    assert_eq!(wrong(&text.replace(line, &format!("{of_port}1"))).len(), 1);
    let mut more = node.sections();
    more[0].1["new_field"] = json!(7);
    assert_eq!(differences(&more, &parse(&text), &[]).len(), 1);
    let invented = text.replace(
        line,
        &format!("{line}\nhaechi_port_rx_missed_total{{port=\"x\"}} 0"),
    );
    assert_eq!(wrong(&invented).len(), 1);
}

#[test]
fn labels_are_escaped() {
    let mut node = Answers::real();
    let odd = "/a \"b\"\\c\nd,e=\"{}\u{e9}";
    node.status["config"] = json!(odd);
    node.ports[0]["device"] = json!(odd);
    node.rules[0]["name"] = json!("\\\"");
    let text = metrics::metrics(&node).unwrap();
    assert!(text.contains(r#"config="/a \"b\"\\c\nd,e=\"{}"#), "{text}");
    let samples = parse(&text);
    let wrong = differences(&node.sections(), &samples, &[]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_worker_that_does_not_answer_keeps_the_rest_from_nobody() {
    let mut node = Answers::real();
    node.fails = Some(ErrorKind::Unavailable);
    let some = parse(&metrics::metrics(&node).unwrap());
    node.fails = Some(ErrorKind::Internal);
    assert_eq!(metrics::metrics(&node).unwrap_err().kind, ErrorKind::Internal);
    // Nobody even asks.
    node.workers[0]["stalled"] = json!(true);
    let stalled = parse(&metrics::metrics(&node).unwrap());
    for samples in [some, stalled] {
        let value = |name: &str, labels: &[(&str, &str)]| {
            let labels = labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            samples.get(&(name.to_owned(), labels)).copied()
        };
        assert_eq!(value("haechi_complete", &[]), Some(0.0));
        assert_eq!(value("haechi_sessions", &[]), Some(1.0));
        assert_eq!(
            value("haechi_worker_packets_total", &[("worker", "0")]),
            Some(3.0)
        );
        assert_eq!(value("haechi_drops_total", &[("reason", "policy")]), None);
        assert_eq!(value("haechi_rule_sessions", &[("rule", "lan-out")]), None);
    }
}

/// A served node, on a port of its own.
struct Served {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    runtime: tokio::runtime::Runtime,
    server: Option<tokio::task::JoinHandle<Result<(), NodeError>>>,
}

impl Served {
    fn new(node: impl Node, limits: Limits) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = MetricsListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let server = runtime.spawn(metrics::serve(listener, Arc::new(node), stopped, limits));
        Self {
            address,
            stop: Some(stop),
            runtime,
            server: Some(server),
        }
    }

    /// Status and the whole answer.
    fn ask(&self, request: &str) -> (u16, String) {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        read_answer(&mut stream)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    fn get(&self, target: &str) -> (u16, String) {
        self.ask(&format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ))
    }
}

fn read_answer(stream: &mut TcpStream) -> (u16, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server).unwrap().unwrap();
        }
    }
}

#[test]
fn it_is_served_read_only_and_alone() {
    let served = Served::new(Answers::real(), metrics::limits());
    let (status, answer) = served.get("/metrics");
    assert_eq!(status, 200);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(parse(body).len() > 100);
    for (target, expected) in [
        ("/", 404),
        ("/v1/status", 404),
        ("/metrics/", 404),
        ("/metrics?a=b", 200),
    ] {
        assert_eq!(served.get(target).0, expected, "{target}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let request = format!(
            "{method} /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(served.ask(&request).0, 405, "{method}");
    }
    let (status, answer) = served.ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(status == 200 && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(served.ask("nonsense\r\n\r\n").0, 400);
    // The port is free again when it has stopped.
    let address = served.address;
    drop(served);
    drop(MetricsListener::bind(address).unwrap());
}

#[test]
fn connections_are_bounded() {
    let limits = Limits {
        connections: 2,
        ..metrics::limits()
    };
    let served = Served::new(Answers::real(), limits);
    // Two that say nothing hold all slots.
    let idle: Vec<_> = (0..2).map(|_| served.connect()).collect();
    assert_eq!(served.get("/metrics").0, 503);
    drop(idle);
    // Their slots come back.
    let mut tries = 0;
    while served.get("/metrics").0 != 200 {
        tries += 1;
        assert!(tries < 1000);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reads one at a time, and says how many there ever were at once.
struct Slow {
    inner: Answers,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

macro_rules! pass_on {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        impl Node for Slow {
            fn workers(&self) -> Result<Vec<WorkerStatus>, NodeError> {
                let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(now, Ordering::SeqCst);
                // Long enough for others to come in, if they could.
                std::thread::sleep(Duration::from_millis(20));
                self.now.fetch_sub(1, Ordering::SeqCst);
                self.inner.workers()
            }
            $(fn $name(&self, $($arg: $type),*) -> Result<$result, NodeError> { self.inner.$name($($arg),*) })*
        }
    };
}

pass_on! {
    status() -> Status;
    ports() -> Vec<PortStatus>;
    rules() -> Vec<RuleStatus>;
    counters() -> Counters;
    sessions(query: &SessionQuery) -> SessionPage;
    kill(filter: &SessionFilter) -> KillReport;
    apply(request: &ApplyRequest) -> ApplyReport;
    rebalance(dry_run: bool) -> RebalanceReport;
    explain(request: &ExplainRequest) -> ExplainReport;
}

#[test]
fn the_node_is_read_by_one_at_a_time() {
    let most = Arc::new(AtomicUsize::new(0));
    let node = Slow {
        inner: Answers::real(),
        now: Arc::default(),
        most: Arc::clone(&most),
    };
    let served = Served::new(node, metrics::limits());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(served.get("/metrics").0, 200));
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[test]
fn a_port_in_use_is_an_error_that_names_the_key() {
    let first = MetricsListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let error = MetricsListener::bind(first.address()).unwrap_err().to_string();
    assert!(
        error.starts_with("[metrics] listen: cannot listen at 127.0.0.1:"),
        "{error}"
    );
    assert!(
        error.contains("in use") && error.contains("choose another port"),
        "{error}"
    );
    let error = MetricsListener::bind("192.0.2.1:9464".parse().unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("[metrics] listen") && error.contains("an address of this host"),
        "{error}"
    );
}
