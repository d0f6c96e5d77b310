//! The segments of both ends, and a node between them that answers by cookie.

use crate::node::Node;
use crate::tcp::{ACK, End, SYN, Tcp};

pub(crate) const ALWAYS: &str =
    "[[rule]]\nname = \"web\"\nfrom = \"lan\"\naction = \"allow\"\nsyn_protection = \"always\"\n";
pub(crate) const ISN: u32 = 0xffff_fff0;
pub(crate) const SERVER_ISN: u32 = 77;

pub(crate) fn syn() -> Tcp {
    Tcp {
        port: 1234,
        flags: SYN,
        seq: ISN,
        window: 64_240,
        mss: Some(1460),
        scale: Some(5),
        sack_permitted: true,
        timestamps: Some((9000, 0)),
        ..Tcp::default()
    }
}

/// The client's packets, behind the answer to its SYN.
pub(crate) fn ack(answer: &Tcp) -> Tcp {
    Tcp {
        port: answer.port,
        v6: answer.v6,
        flags: ACK,
        seq: answer.ack,
        ack: answer.seq.wrapping_add(1),
        window: 1000,
        timestamps: answer.timestamps.map(|(own, _)| (9001, own)),
        ..Tcp::default()
    }
}

pub(crate) fn syn_ack(syn: &Tcp) -> Tcp {
    Tcp {
        from: End::Server,
        port: syn.port,
        v6: syn.v6,
        flags: SYN | ACK,
        seq: SERVER_ISN,
        ack: syn.seq.wrapping_add(1),
        window: 65_160,
        mss: Some(1400),
        scale: Some(9),
        sack_permitted: true,
        timestamps: Some((500_000, syn.timestamps.map_or(0, |(own, _)| own))),
        ..Tcp::default()
    }
}

pub(crate) fn node(rules: &str) -> Node {
    let mut node = Node::new(rules);
    node.rewrites = true;
    node
}

/// A segment into the node; its verdict.
#[track_caller]
pub(crate) fn send(node: &mut Node, segment: &Tcp) -> String {
    let port = match segment.from {
        End::Client => "lan",
        End::Server => "wan",
    };
    node.frame(port, &segment.frame())
}

/// The one packet that was made since the last look.
#[track_caller]
pub(crate) fn made(node: &mut Node) -> (String, Tcp) {
    assert_eq!(node.originated.len(), 1, "one packet was made");
    let (port, frame) = node.originated.remove(0);
    (port, Tcp::read(&frame))
}

/// The one packet that was forwarded since the last look.
#[track_caller]
pub(crate) fn forwarded(node: &mut Node) -> (String, Tcp) {
    assert_eq!(node.forwarded.len(), 1, "one packet was forwarded");
    let (port, frame) = node.forwarded.remove(0);
    (port, Tcp::read(&frame))
}

/// The answer to a SYN.
#[track_caller]
pub(crate) fn answer(node: &mut Node, syn: &Tcp) -> Tcp {
    assert_eq!(send(node, syn), "syn_proxied: rule web");
    let (port, answer) = made(node);
    assert_eq!(port, "lan");
    answer
}

/// A connection as far as the SYN that the server gets: that, and the answer that the client got.
#[track_caller]
pub(crate) fn opening(node: &mut Node, first: &Tcp) -> (Tcp, Tcp) {
    let answer = answer(node, first);
    assert_eq!(send(node, &ack(&answer)), "to wan: new session by web");
    let (port, syn) = forwarded(node);
    assert_eq!(port, "wan");
    (syn, answer)
}

/// A whole connection: the client's answer, the server's SYN+ACK, and what the client got of it.
#[track_caller]
pub(crate) fn open(node: &mut Node, first: &Tcp, server: impl FnOnce(&mut Tcp)) -> (Tcp, Tcp, Tcp) {
    let (syn, answer) = opening(node, first);
    let mut accepted = syn_ack(&syn);
    server(&mut accepted);
    assert_eq!(send(node, &accepted), "to lan: session");
    node.originated.clear();
    let (_, opened) = forwarded(node);
    (answer, accepted, opened)
}
