//! A client of the control API that shares no code with the program: HTTP by hand, JSON as it comes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// The API of one node.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
}

/// An answer: the status code and the body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 200 and so on.
    pub code: u16,
    /// The body; `null` where it is no JSON.
    pub body: Value,
}

impl Api {
    /// The API behind this socket.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// A request; the error is of the connection, not of the node.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        // HTTP/1.0: the answer ends with the connection, and is not chunked.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let bad = || std::io::Error::other(format!("not HTTP: {}", String::from_utf8_lossy(&answer)));
        let head = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(bad)?;
        let code = String::from_utf8_lossy(&answer[..head])
            .split(' ')
            .nth(1)
            .and_then(|c| c.parse().ok())
            .ok_or_else(bad)?;
        Ok(Answer {
            code,
            body: serde_json::from_slice(&answer[head + 4..]).unwrap_or(Value::Null),
        })
    }

    /// `GET`; panics unless the answer is 200.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        let answer = self
            .request("GET", path, None)
            .unwrap_or_else(|e| panic!("GET {path}: {e}"));
        assert_eq!(answer.code, 200, "GET {path}: {}", answer.body);
        answer.body
    }

    /// `POST`; panics unless the answer is 200.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self
            .request("POST", path, Some(body))
            .unwrap_or_else(|e| panic!("POST {path}: {e}"));
        assert_eq!(answer.code, 200, "POST {path}: {}", answer.body);
        answer.body
    }

    /// All sessions that match, for instance of `protocol=tcp&state=established`; over all pages.
    #[must_use]
    pub fn sessions(&self, filter: &str) -> Vec<Value> {
        let (mut sessions, mut cursor) = (Vec::new(), String::new());
        loop {
            let mut page = self.get(&format!("/v1/sessions?{filter}{cursor}"));
            sessions.append(page["sessions"].as_array_mut().expect("a list of sessions"));
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("{}cursor={next}", if filter.is_empty() { "" } else { "&" }),
                None => return sessions,
            }
        }
    }

    /// One port of `GET /v1/ports`.
    #[must_use]
    pub fn port(&self, name: &str) -> Value {
        find(&self.get("/v1/ports")["ports"], name)
    }

    /// One rule of `GET /v1/rules`.
    #[must_use]
    pub fn rule(&self, name: &str) -> Value {
        find(&self.get("/v1/rules")["rules"], name)
    }

    /// `GET /v1/counters`.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::parse(&self.get("/v1/counters"))
    }
}

fn find(list: &Value, name: &str) -> Value {
    list.as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {list}"))
        .clone()
}

/// `GET /v1/counters`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that workers took from ports.
    pub rx_packets: u64,
    /// Packets that workers handed to ports.
    pub tx_packets: u64,
    /// Packets made by the node.
    pub originated: u64,
    /// Answers that the node did not make.
    pub rejects_suppressed: u64,
    /// IP fragments that came in.
    pub fragments: u64,
    /// Datagrams that were complete.
    pub fragments_reassembled: u64,
    /// Fragments in the node.
    pub fragments_held: u64,
    /// Packets in the node.
    pub held: u64,
    /// Sessions made.
    pub sessions_created: u64,
    /// Sessions ended.
    pub sessions_ended: u64,
    /// Drops by reason; only those that happened.
    pub drops: std::collections::BTreeMap<String, u64>,
    /// Malformed packets by kind; only those that happened.
    pub malformed: std::collections::BTreeMap<String, u64>,
}

impl Counters {
    fn parse(json: &Value) -> Self {
        let json = json.get("counters").filter(|c| c.is_object()).unwrap_or(json);
        let number = |key: &str| {
            json[key]
                .as_u64()
                .unwrap_or_else(|| panic!("no number {key} in {json}"))
        };
        let by_name = |key: &str| {
            let counts = json[key].as_object().expect("counts by name").iter();
            counts
                .map(|(name, n)| (name.clone(), n.as_u64().expect("a count")))
                .filter(|(_, n)| *n > 0)
                .collect()
        };
        Self {
            rx_packets: number("rx_packets"),
            tx_packets: number("tx_packets"),
            originated: number("originated"),
            rejects_suppressed: number("rejects_suppressed"),
            fragments: number("fragments"),
            fragments_reassembled: number("fragments_reassembled"),
            fragments_held: number("fragments_held"),
            held: number("held"),
            sessions_created: number("sessions_created"),
            sessions_ended: number("sessions_ended"),
            drops: by_name("drops"),
            malformed: by_name("malformed"),
        }
    }

    /// All drops.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }

    /// Drops for one reason.
    #[must_use]
    pub fn drop_of(&self, reason: &str) -> u64 {
        self.drops.get(reason).copied().unwrap_or(0)
    }

    /// What came in and was made, less what went out, was dropped or is held: zero on a node at rest.
    #[must_use]
    pub fn imbalance(&self) -> i128 {
        let plus = i128::from(self.rx_packets) + i128::from(self.originated);
        plus - i128::from(self.tx_packets) - i128::from(self.dropped()) - i128::from(self.held)
    }
}
