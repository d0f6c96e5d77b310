//! Explaining packets: what is asked and what is answered.

use serde::{Deserialize, Serialize};

use super::{SessionInfo, Word};

/// `POST /v1/explain`: packets, in order; each sees the sessions that those before it made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `packets`")]
pub struct ExplainRequest {
    /// The packets.
    pub packets: Vec<ExplainPacket>,
    /// The frames are those of both directions: one that answers an earlier one comes in where that one went out, not
    /// where it says.
    #[serde(default)]
    pub both_directions: bool,
}

impl ExplainRequest {
    /// What a body looks like, for people who got it wrong.
    pub const SHAPE: &'static str =
        r#"{"packets": [{"from": "trust", "packet": "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn"}]}"#;
}

/// A packet to be explained: in words or as a frame, one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `packet` or `frame`")]
pub struct ExplainPacket {
    /// In words: `tcp 10.0.0.5:1234 > 192.0.2.7:80 syn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<String>,
    /// The whole Ethernet frame without FCS, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
    /// The zone that it comes from; enough where the zone has one port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The port that it comes in by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// When, after the first packet; it never goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ns: Option<u64>,
}

/// What would happen to the packets of an [`ExplainRequest`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExplainReport {
    /// The policy that was asked.
    pub generation: u32,
    /// One for each packet, in order.
    pub verdicts: Vec<Verdict>,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It leaves by `egress`.
    Forward,
    /// It goes no further.
    Drop,
    /// It is a fragment, and others of its datagram are not among the packets.
    #[default]
    Held,
}

/// What happens to one packet, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// From 1.
    pub number: u64,
    /// After the first packet.
    pub at_ns: u64,
    /// The packet in words, as far as the parser understood it.
    pub packet: String,
    /// Bytes of the frame.
    pub length: usize,
    /// The port that it came in by.
    pub ingress: String,
    /// That port's zone.
    pub from: String,
    /// What happens.
    pub verdict: Fate,
    /// Forwarded: the port that it leaves by.
    pub egress: Option<String>,
    /// Forwarded: that port's zone.
    pub to: Option<String>,
    /// Dropped: the counter's word.
    pub reason: Option<String>,
    /// More about it: which length of a malformed frame, ...
    pub detail: Option<String>,
    /// By what it was judged: `layer2`, `session`, `related`, `new_session`, `rule`, `implicit_drop` or `none`.
    pub by: Word,
    /// The rule that decided, or that the session stands under.
    pub rule: Option<String>,
    /// The session as it is after the packet.
    pub session: Option<SessionInfo>,
    /// Packets that the node makes in answer, in words.
    pub answers: Vec<String>,
}
