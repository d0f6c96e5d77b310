//! Explain on a running node: the live policy and copies of the live sessions, in a scratch engine.

use std::sync::Arc;

use super::words::{Conversation, ingress};
use super::{Simulator, flow_key};
use crate::base::{Nanos, PortId};
use crate::control::node::{ErrorKind, ExplainPacket, ExplainReport, ExplainRequest, NodeError};
use crate::control::view::{LiveSession, Names};
use crate::flow::FlowKey;
use crate::policy::Policy;

/// Packets of one request at most: what they need stays far below what a control thread may take.
pub const MAX_PACKETS: usize = 100_000;

/// What explaining asks of a running node.
pub trait Live {
    /// Copies of those of these flows' sessions that exist, and the time of the worker that owns them. A flow may be
    /// asked for twice.
    ///
    /// # Errors
    /// When a worker does not answer.
    fn lookup(&self, keys: &[FlowKey]) -> Result<Vec<LiveSession>, NodeError>;

    /// The workers' time.
    fn now(&self) -> Nanos;
}

/// A packet of the request, ready for the engine.
struct Packet {
    frame: Vec<u8>,
    ingress: PortId,
    at_ns: u64,
}

/// Answers a request from the live policy and the live sessions of its packets' flows.
///
/// # Errors
/// When a packet cannot be read or does not say where it comes in, when there are too many, or when the node does not
/// answer.
pub fn explain(
    request: &ExplainRequest,
    policy: &Arc<Policy>,
    names: &Arc<Names>,
    node: &dyn Live,
) -> Result<ExplainReport, NodeError> {
    if request.packets.is_empty() || request.packets.len() > MAX_PACKETS {
        return Err(bad(format!("`packets` holds 1 to {MAX_PACKETS} packets")));
    }
    let room = u32::try_from(request.packets.len())
        .unwrap_or(u32::MAX)
        .saturating_mul(2);
    let now = node.now();
    let mut simulator = Simulator::new(Arc::clone(policy), Arc::clone(names), room, now)?;
    let packets = read_all(&simulator, &request.packets, request.both_directions)?;
    let keys: Vec<FlowKey> = packets
        .iter()
        .filter_map(|packet| {
            flow_key(
                policy,
                &simulator.parse(&packet.frame, packet.ingress),
                &packet.frame,
            )
        })
        .map(|(key, _)| key)
        .collect();
    simulator.adopt(node.lookup(&keys)?);
    // Again, now that the sessions are known that TCP numbers which were left out go on with.
    let packets = read_all(&simulator, &request.packets, request.both_directions)?;
    for packet in packets {
        simulator.feed(packet.frame, packet.ingress, packet.at_ns);
    }
    Ok(ExplainReport {
        generation: policy.generation.0,
        verdicts: simulator.finish().collect(),
    })
}

fn read_all(
    simulator: &Simulator,
    packets: &[ExplainPacket],
    both_directions: bool,
) -> Result<Vec<Packet>, NodeError> {
    let mut conversation = Conversation::default();
    let mut at_ns = 0_u64;
    let mut ready = Vec::with_capacity(packets.len());
    for (place, packet) in packets.iter().enumerate() {
        let wrong = |e: NodeError| NodeError {
            error: format!("`packets[{place}]`: {}", e.error),
            ..e
        };
        let read = read(simulator, &mut conversation, packet, both_directions).map_err(wrong)?;
        at_ns = match packet.at_ns {
            Some(at_ns) => at_ns,
            None => at_ns.saturating_add(read.at_ns),
        };
        ready.push(Packet { at_ns, ..read });
    }
    Ok(ready)
}

/// One packet; its time is relative to the one before.
fn read(
    simulator: &Simulator,
    conversation: &mut Conversation,
    packet: &ExplainPacket,
    both_directions: bool,
) -> Result<Packet, NodeError> {
    let given = ingress(simulator, packet.from.as_deref(), packet.port.as_deref())?;
    let port =
        given.ok_or_else(|| bad("it does not say where it comes in").fix("give `from` (a zone) or `port`"));
    match (&packet.packet, &packet.frame) {
        (Some(words), None) => {
            let ready = conversation.read(simulator, words, port)?;
            Ok(Packet {
                frame: ready.frame,
                ingress: ready.ingress,
                at_ns: ready.after_ns,
            })
        }
        (None, Some(hex)) => {
            let frame =
                from_hex(hex).ok_or_else(|| bad("`frame` is pairs of hexadecimal digits, 64 KiB at most"))?;
            let mut ingress = port?;
            if both_directions {
                ingress = conversation.ingress_of(simulator, &frame, ingress);
            }
            Ok(Packet {
                frame,
                ingress,
                at_ns: 0,
            })
        }
        _ => Err(bad("it has either `packet` or `frame`")),
    }
}

fn bad(message: impl Into<String>) -> NodeError {
    NodeError::new(ErrorKind::BadRequest, message)
}

/// Bytes as pairs of hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.len() % 2 != 0 || digits.len() > 2 * 65_536 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    digits
        .chunks_exact(2)
        .map(|pair| Some((digit(pair[0])? << 4) | digit(pair[1])?))
        .collect()
}
