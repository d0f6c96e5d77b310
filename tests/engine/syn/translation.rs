//! What follows the handshake, in the numbers of either end.

use super::both_ends::*;
use crate::tcp::{ACK, End, FIN, RST, Tcp};

#[test]
fn numbers_are_translated_both_ways() {
    let mut node = node(ALWAYS);
    let (answer, ..) = open(&mut node, &syn(), |_| ());
    let told = answer.timestamps.unwrap().0;
    // The client has received 100 bytes, and 100 more behind a gap.
    let from_client = Tcp {
        seq: ISN.wrapping_add(1),
        ack: answer.seq.wrapping_add(101),
        window: 777,
        timestamps: Some((9100, told.wrapping_add(30))),
        sack: vec![
            (answer.seq.wrapping_add(201), answer.seq.wrapping_add(301)),
            (answer.seq.wrapping_add(401), answer.seq.wrapping_add(501)),
        ],
        data: b"odd".to_vec(),
        ..ack(&answer)
    };
    // What it says it has received has been sent.
    let from_server = Tcp {
        from: End::Server,
        port: 1234,
        flags: ACK,
        seq: SERVER_ISN + 1,
        ack: ISN.wrapping_add(1),
        window: 100,
        timestamps: Some((500_030, 9001)),
        data: vec![7; 500],
        ..Tcp::default()
    };
    assert_eq!(send(&mut node, &from_server), "to lan: session");
    let expected = Tcp {
        seq: answer.seq.wrapping_add(1),
        window: 400, // 100 in units of 2^9, the client counts in units of 2^7
        timestamps: Some((told.wrapping_add(30), 9001)),
        ..from_server
    };
    assert_eq!(forwarded(&mut node), ("lan".to_owned(), expected));
    assert_eq!(send(&mut node, &from_client), "to wan: session");
    let expected = Tcp {
        ack: SERVER_ISN + 101,
        timestamps: Some((9100, 500_030)),
        sack: vec![
            (SERVER_ISN + 201, SERVER_ISN + 301),
            (SERVER_ISN + 401, SERVER_ISN + 501),
        ],
        ..from_client
    };
    assert_eq!(forwarded(&mut node), ("wan".to_owned(), expected));
    // The tracker has the server's numbers: what is outside of them is dropped as ever.
    let blind = Tcp {
        from: End::Server,
        port: 1234,
        flags: RST,
        seq: answer.seq.wrapping_add(501),
        ..Tcp::default()
    };
    assert_eq!(send(&mut node, &blind), "tcp_out_of_window: session");
    let reset = Tcp {
        seq: SERVER_ISN + 501,
        ..blind
    };
    // The client has not acknowledged all: only the next number that it expects, or the end, resets it.
    assert_eq!(send(&mut node, &reset), "to lan: session");
    assert_eq!(forwarded(&mut node).1.seq, answer.seq.wrapping_add(501));
    assert!(node.sessions()[0].contains("closed"));
}

#[test]
fn both_close() {
    let mut node = node(ALWAYS);
    let (answer, ..) = open(&mut node, &syn(), |_| ());
    let fin = Tcp {
        flags: FIN | ACK,
        ..ack(&answer)
    };
    assert_eq!(send(&mut node, &fin), "to wan: session");
    let theirs = Tcp {
        from: End::Server,
        port: 1234,
        flags: FIN | ACK,
        seq: SERVER_ISN + 1,
        ack: ISN.wrapping_add(2),
        ..Tcp::default()
    };
    assert_eq!(send(&mut node, &theirs), "to lan: session");
    let last = Tcp {
        seq: ISN.wrapping_add(2),
        ack: answer.seq.wrapping_add(2),
        ..ack(&answer)
    };
    assert_eq!(send(&mut node, &last), "to wan: session");
    assert!(node.sessions()[0].contains("time_wait"), "{:?}", node.sessions());
    // The ports are used again: by cookie, as the first time.
    node.forwarded.clear();
    let again = Tcp { seq: 5000, ..syn() };
    open(&mut node, &again, |server| server.seq = 900_000);
    assert_eq!(node.sessions().len(), 1);
}

/// An ICMP error about a packet of the server quotes the number that the client side saw; the server gets its own back.
#[test]
fn errors_about_the_server_s_packets_are_translated() {
    let mut node = node(ALWAYS);
    let (answer, ..) = open(&mut node, &syn(), |_| ());
    let big = Tcp {
        from: End::Server,
        port: 1234,
        flags: ACK,
        seq: SERVER_ISN + 1,
        ack: ISN.wrapping_add(1),
        window: 100,
        timestamps: Some((500_030, 9001)),
        data: vec![7; 1000],
        ..Tcp::default()
    };
    assert_eq!(send(&mut node, &big), "to lan: session");
    let (_, seen) = forwarded(&mut node);
    assert_eq!(seen.seq, answer.seq.wrapping_add(1));
    let error = |quoted: &[u8]| {
        let mut error = vec![];
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [192, 0, 2, 7], 60)
            .icmpv4_raw(3, 4, [0, 0, 5, 0])
            .write(&mut error, quoted)
            .unwrap();
        error
    };
    // The client's own numbers are the server's side's, too; these are not.
    assert_eq!(
        node.frame("lan", &error(&big.frame()[14..42])),
        "icmp_error_unrelated: layer 2"
    );
    assert_eq!(
        node.frame("lan", &error(&seen.frame()[14..42])),
        "to wan: related"
    );
    let (_, passed) = node.forwarded.remove(0);
    crate::checked::checked(&passed);
    let quoted_seq = u32::from_be_bytes(passed[14 + 20 + 8 + 24..][..4].try_into().unwrap());
    assert_eq!(quoted_seq, SERVER_ISN + 1);
}
