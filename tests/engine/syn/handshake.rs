//! Handshakes by cookie, one and many.

use haechi::packet::VecPacket;

use super::both_ends::*;
use crate::frames::tagged;
use crate::tcp::{ACK, End, RST, SYN, Tcp};

#[test]
fn a_handshake_by_cookie() {
    for v6 in [false, true] {
        let mut node = node(ALWAYS);
        let first = Tcp { v6, ..syn() };
        let changes: [(&str, i64); 6] = [
            ("received", 1),
            ("originated", 1),
            ("syn_proxied", 1),
            ("syn_cookies_sent", 1),
            ("web packets", 1),
            ("web bytes", first.frame().len() as i64 - 14),
        ];
        let answer = node.changes(&changes, |node| answer(node, &first));
        assert_eq!(node.sessions(), Vec::<String>::new(), "nothing is kept");
        let expected = Tcp {
            from: End::Server,
            v6,
            port: 1234,
            flags: SYN | ACK,
            seq: answer.seq,
            ack: ISN.wrapping_add(1),
            window: 0,
            mss: Some(if v6 { 1440 } else { 1460 }),
            scale: Some(7),
            sack_permitted: true,
            timestamps: Some((answer.timestamps.unwrap().0, 9000)),
            ..Tcp::default()
        };
        assert_eq!(answer, expected);

        // The client's ACK becomes its SYN.
        assert_eq!(send(&mut node, &ack(&answer)), "to wan: new session by web");
        let (port, to_server) = forwarded(&mut node);
        let expected = Tcp {
            v6,
            window: 32_000, // 1000 in units of 2^5
            timestamps: Some((9001, 0)),
            ..syn()
        };
        assert_eq!((port.as_str(), &to_server), ("wan", &expected));
        assert!(node.sessions()[0].contains("syn_sent by web"));

        // The server's SYN+ACK becomes an ACK that opens the window, and is answered.
        let accepted = syn_ack(&to_server);
        assert_eq!(send(&mut node, &accepted), "to lan: session");
        let (port, third) = made(&mut node);
        let expected = Tcp {
            v6,
            port: 1234,
            flags: ACK,
            seq: ISN.wrapping_add(1),
            ack: SERVER_ISN + 1,
            window: 1000,
            timestamps: Some((9001, 500_000)),
            ..Tcp::default()
        };
        assert_eq!((port.as_str(), third), ("wan", expected));
        let (port, opened) = forwarded(&mut node);
        let expected = Tcp {
            from: End::Server,
            v6,
            port: 1234,
            flags: ACK,
            seq: answer.seq.wrapping_add(1),
            ack: ISN.wrapping_add(1),
            window: 65_160 >> 7,
            timestamps: Some((answer.timestamps.unwrap().0, 9001)),
            ..Tcp::default()
        };
        assert_eq!((port.as_str(), opened), ("lan", expected));
        assert!(node.sessions()[0].contains("established by web"));
    }
}

/// A client whose ACK was lost and that has data asks whether its window opens: that is as good.
#[test]
fn a_probe_brings_the_cookie_as_well() {
    let mut node = node(ALWAYS);
    let answer = answer(&mut node, &syn());
    let probe = Tcp {
        seq: ISN,
        ..ack(&answer)
    };
    assert_eq!(send(&mut node, &probe), "to wan: new session by web");
    assert_eq!(forwarded(&mut node).1.seq, ISN);
}

#[test]
fn a_lost_third_step_is_made_again() {
    let mut node = node(ALWAYS);
    let (to_server, _) = opening(&mut node, &syn());
    node.buffers = Some(0);
    let accepted = syn_ack(&to_server);
    assert_eq!(send(&mut node, &accepted), "to lan: session");
    assert!(node.originated.is_empty(), "there was no buffer for it");
    // It is made of the server's own packet.
    assert_eq!(send(&mut node, &accepted), "syn_proxied: session");
    let (port, third) = made(&mut node);
    assert_eq!(
        (port.as_str(), third.flags, third.ack),
        ("wan", ACK, SERVER_ISN + 1)
    );
}

/// A client that begins anew while its session opens gets a cookie, and takes the session over when it brings that back.
#[test]
fn a_client_that_begins_anew() {
    let mut node = node(ALWAYS);
    let (_, first) = opening(&mut node, &syn());
    let again = Tcp { seq: 5, ..syn() };
    assert_eq!(send(&mut node, &again), "syn_proxied: session");
    let (_, second) = made(&mut node);
    assert_ne!(first.seq, second.seq);
    // A forger cannot.
    let forged = Tcp {
        ack: second.seq.wrapping_add(2),
        ..ack(&second)
    };
    assert_eq!(send(&mut node, &forged), "tcp_out_of_window: session");
    assert_eq!(send(&mut node, &ack(&second)), "to wan: new session by web");
    assert_eq!(forwarded(&mut node).1.seq, 5);
    assert_eq!(node.sessions().len(), 1);
    // And gives up.
    let reset = Tcp {
        flags: RST,
        seq: 6,
        port: 1234,
        ..Tcp::default()
    };
    assert_eq!(send(&mut node, &reset), "to wan: session");
    assert!(node.sessions()[0].contains("closed"));
}

/// Tags are kept on every packet that is made.
#[test]
fn tagged_handshakes() {
    let mut node = node(ALWAYS);
    let tag = |segment: &Tcp| tagged(0x8100, 7, &segment.frame());
    let untag = |(port, frame): (String, Vec<u8>)| {
        assert_eq!(frame[12..16], [0x81, 0, 0, 7]);
        (port, Tcp::read(&[&frame[..12], &frame[16..]].concat()))
    };
    assert_eq!(node.frame("lan", &tag(&syn())), "syn_proxied: rule web");
    let (_, answer) = untag(node.originated.remove(0));
    // Without its tag it is another flow's.
    assert_eq!(send(&mut node, &ack(&answer)), "syn_cookie_invalid: rule web");
    assert_eq!(
        node.frame("lan", &tag(&ack(&answer))),
        "to wan: new session by web"
    );
    let (_, to_server) = untag(node.forwarded.remove(0));
    assert_eq!(node.frame("wan", &tag(&syn_ack(&to_server))), "to lan: session");
    untag(node.originated.remove(0));
    untag(node.forwarded.remove(0));
}

/// A burst with SYNs, ACKs and others: each has its own verdict, and two ACKs of one client make one session.
#[test]
fn a_burst_of_handshakes() {
    let mut node = node(ALWAYS);
    let answer = answer(&mut node, &syn());
    let packet = |segment: &Tcp| ("lan", VecPacket::new(segment.frame()));
    let verdicts = node.burst(&[
        packet(&Tcp { port: 7, ..syn() }),
        packet(&ack(&answer)),
        packet(&ack(&answer)),
        packet(&Tcp { port: 8, ..syn() }),
        packet(&Tcp { port: 7, ..syn() }),
    ]);
    assert_eq!(
        verdicts,
        [
            "syn_proxied: rule web",
            "to wan: new session by web",
            "syn_proxied: session",
            "syn_proxied: rule web",
            "syn_proxied: rule web"
        ]
    );
}
