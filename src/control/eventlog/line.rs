//! A record as a line of JSON: the words of the API's sessions, and what happened to them when.

use std::io;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::base::{Nanos, Tick, WorkerId};
use crate::control::node::{NatInfo, Owner, Word};
use crate::control::view::{Names, ends, protocol, seconds, vlans};
use crate::engine::{Event, Record};
use crate::policy::{Action, SessionScope};

/// A moment, in UTC, to the microsecond (RFC 3339).
#[derive(Clone, Copy)]
struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.6}", self.0))
    }
}

/// The flow and its place, of sessions and alerts alike.
#[derive(Serialize)]
struct Flow<'a> {
    protocol: Word,
    source: IpAddr,
    source_port: u16,
    destination: IpAddr,
    destination_port: u16,
    vlan: Vec<u16>,
    rule: &'a str,
    from: &'a str,
    to: &'a str,
    ingress: &'a str,
    egress: &'a str,
    worker: u16,
}

#[derive(Serialize)]
struct SessionLine<'a> {
    time: Time,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Since its first packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<f64>,
    /// Since its last packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_s: Option<f64>,
    #[serde(flatten)]
    flow: Flow<'a>,
    state: &'static str,
    packets: [u64; 2],
    bytes: [u64; 2],
    /// `reset_on_timeout`: was a RST sent to `[source, destination]`?
    #[serde(skip_serializing_if = "Option::is_none")]
    reset_sent: Option<[bool; 2]>,
    nat: Option<NatInfo>,
    owner: Owner,
}

#[derive(Serialize)]
struct AlertLine<'a> {
    time: Time,
    event: &'static str,
    reason: &'static str,
    action: Action,
    #[serde(flatten)]
    flow: Flow<'a>,
    bytes: u32,
    suppressed: u64,
}

/// What is needed to understand a record.
pub(super) struct Reader<'a> {
    pub(super) names: &'a Names,
    pub(super) scope: SessionScope,
    /// Unix time at the zero of the workers' clock, in ns.
    pub(super) epoch_ns: i128,
    pub(super) worker: WorkerId,
}

impl Reader<'_> {
    /// Writes a record without the end of the line.
    pub(super) fn write(&self, record: &Record, to: &mut Vec<u8>) -> io::Result<()> {
        let written = match record.event {
            Event::Alert(alert) => serde_json::to_writer(
                to,
                &AlertLine {
                    time: self.time(record.at),
                    event: "alert",
                    reason: alert.reason.name(),
                    action: alert.action,
                    flow: self.flow(record),
                    bytes: alert.bytes,
                    suppressed: alert.suppressed,
                },
            ),
            Event::Start(_) | Event::End(..) => serde_json::to_writer(to, &self.session(record)?),
        };
        Ok(written?)
    }

    fn session(&self, record: &Record) -> io::Result<SessionLine<'_>> {
        let (event, end, account) = match record.event {
            Event::Start(account) => ("start", None, account),
            Event::End(reason, account) => ("end", Some(reason), account),
            Event::Alert(_) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let idle = record.at.tick().distance(account.last_seen).max(0).unsigned_abs();
        Ok(SessionLine {
            time: self.time(record.at),
            event,
            reason: end.map(|reason| reason.name()),
            duration_s: end.map(|_| seconds(record.at.since(account.created))),
            idle_s: end.map(|_| seconds(Nanos(u64::from(idle) * Tick::NANOS))),
            flow: self.flow(record),
            state: account.state.name(),
            packets: account.packets,
            bytes: account.bytes,
            reset_sent: account.resets,
            nat: None,
            owner: Owner::Local,
        })
    }

    fn flow(&self, record: &Record) -> Flow<'_> {
        let (source, source_port, destination, destination_port) = ends(&record.key, record.opener);
        Flow {
            protocol: protocol(record.key.protocol),
            source,
            source_port,
            destination,
            destination_port,
            vlan: vlans(self.scope, &record.key),
            rule: self.names.rule(record.rule),
            from: self.names.zone_of(record.ingress),
            to: self.names.zone_of(record.egress),
            ingress: self.names.port(record.ingress),
            egress: self.names.port(record.egress),
            worker: self.worker.0,
        }
    }

    fn time(&self, at: Nanos) -> Time {
        Time(Timestamp::from_nanosecond(self.epoch_ns + i128::from(at.0)).unwrap_or_default())
    }
}
