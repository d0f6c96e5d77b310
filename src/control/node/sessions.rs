//! Sessions: one of them, a page of them, and which are meant.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Word;
use crate::control::filter::SessionFilter;

/// One of `GET /v1/sessions`. `source` and `destination` are those of the packet that opened the session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or the protocol's number.
    pub protocol: Word,
    /// Who opened it.
    pub source: IpAddr,
    /// TCP, UDP: port; echo: identifier; else 0.
    pub source_port: u16,
    /// To whom.
    pub destination: IpAddr,
    /// TCP, UDP: port; echo: identifier; else 0.
    pub destination_port: u16,
    /// VLAN tags, outer first.
    pub vlan: Vec<u16>,
    /// The connection's state, e.g. `established`.
    pub state: Word,
    /// The rule that allowed it.
    pub rule: Arc<str>,
    /// Zone of the port that its first packet came in by.
    pub from: Arc<str>,
    /// Zone of the port that it left by.
    pub to: Arc<str>,
    /// The port that its first packet came in by.
    pub ingress: Arc<str>,
    /// The port that it left by.
    pub egress: Arc<str>,
    /// The translated tuple; always `null` until address translation exists.
    pub nat: Option<NatInfo>,
    /// `[original, reply]`.
    pub packets: [u64; 2],
    /// `[original, reply]`, of IP packets.
    pub bytes: [u64; 2],
    /// Since its first packet.
    pub age_s: f64,
    /// Until it ends, if no packet comes.
    pub expires_in_s: f64,
    /// Who owns it.
    pub worker: u16,
    /// Which node of a pair owns it.
    pub owner: Owner,
}

/// A translated tuple.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatInfo {
    /// After translation.
    pub source: IpAddr,
    /// After translation.
    pub source_port: u16,
    /// After translation.
    pub destination: IpAddr,
    /// After translation.
    pub destination_port: u16,
}

/// Which node of a pair owns a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// This one.
    Local,
    /// The other one.
    Peer,
}

/// Where a listing goes on: the next slot to look at. Users pass it back as they got it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Place of the worker.
    pub worker: u16,
    /// The first slot of its table that was not looked at.
    pub slot: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.worker, self.slot)
    }
}

/// Not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of a page that this API gave")]
pub struct BadCursor;

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(s: &str) -> Result<Self, BadCursor> {
        let (worker, slot) = s.split_once('.').ok_or(BadCursor)?;
        Ok(Self {
            worker: worker.parse().map_err(|_| BadCursor)?,
            slot: slot.parse().map_err(|_| BadCursor)?,
        })
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which sessions, and how many at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionQuery {
    /// Which.
    pub filter: SessionFilter,
    /// At most so many: 1 to [`SessionQuery::MAX_LIMIT`].
    pub limit: usize,
    /// Where to go on; the default is the start.
    pub cursor: Cursor,
}

impl SessionQuery {
    /// Sessions a page where the request does not say.
    pub const DEFAULT_LIMIT: usize = 1_000;
    /// Sessions a page at most.
    pub const MAX_LIMIT: usize = 10_000;
}

/// `GET /v1/sessions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionPage {
    /// This page's.
    pub sessions: Vec<SessionInfo>,
    /// Where the next page starts; `null`: this was the last.
    pub cursor: Option<Cursor>,
}

/// `DELETE /v1/sessions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillReport {
    /// Sessions ended.
    pub killed: u64,
}
