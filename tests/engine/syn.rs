//! SYN protection: what a handshake by cookie looks like from both ends, and what a forger gets.

use haechi::base::Nanos;
use haechi::packet::VecPacket;

use crate::frames::tagged;
use crate::node::{ALLOW_ALL, Node, frame};
use crate::tcp::{ACK, End, FIN, RST, SYN, Tcp};

const ALWAYS: &str =
    "[[rule]]\nname = \"web\"\nfrom = \"lan\"\naction = \"allow\"\nsyn_protection = \"always\"\n";
const ISN: u32 = 0xffff_fff0;
const SERVER_ISN: u32 = 77;

fn syn() -> Tcp {
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
fn ack(answer: &Tcp) -> Tcp {
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

fn syn_ack(syn: &Tcp) -> Tcp {
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

fn node(rules: &str) -> Node {
    let mut node = Node::new(rules);
    node.rewrites = true;
    node
}

/// A segment into the node; its verdict.
#[track_caller]
fn send(node: &mut Node, segment: &Tcp) -> String {
    let port = match segment.from {
        End::Client => "lan",
        End::Server => "wan",
    };
    node.frame(port, &segment.frame())
}

/// The one packet that was made since the last look.
#[track_caller]
fn made(node: &mut Node) -> (String, Tcp) {
    assert_eq!(node.originated.len(), 1, "one packet was made");
    let (port, frame) = node.originated.remove(0);
    (port, Tcp::read(&frame))
}

/// The one packet that was forwarded since the last look.
#[track_caller]
fn forwarded(node: &mut Node) -> (String, Tcp) {
    assert_eq!(node.forwarded.len(), 1, "one packet was forwarded");
    let (port, frame) = node.forwarded.remove(0);
    (port, Tcp::read(&frame))
}

/// The answer to a SYN.
#[track_caller]
fn answer(node: &mut Node, syn: &Tcp) -> Tcp {
    assert_eq!(send(node, syn), "syn_proxied: rule web");
    let (port, answer) = made(node);
    assert_eq!(port, "lan");
    answer
}

/// A connection as far as the SYN that the server gets: that, and the answer that the client got.
#[track_caller]
fn opening(node: &mut Node, first: &Tcp) -> (Tcp, Tcp) {
    let answer = answer(node, first);
    assert_eq!(send(node, &ack(&answer)), "to wan: new session by web");
    let (port, syn) = forwarded(node);
    assert_eq!(port, "wan");
    (syn, answer)
}

/// A whole connection: the client's answer, the server's SYN+ACK, and what the client got of it.
#[track_caller]
fn open(node: &mut Node, first: &Tcp, server: impl FnOnce(&mut Tcp)) -> (Tcp, Tcp, Tcp) {
    let (syn, answer) = opening(node, first);
    let mut accepted = syn_ack(&syn);
    server(&mut accepted);
    assert_eq!(send(node, &accepted), "to lan: session");
    node.originated.clear();
    let (_, opened) = forwarded(node);
    (answer, accepted, opened)
}

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

/// An option that the server does not have is taken out of the client's packets, and windows are made to fit.
#[test]
fn a_server_that_knows_less_than_was_announced() {
    let mut node = node(ALWAYS);
    let (answer, accepted, opened) = open(&mut node, &syn(), |server| {
        server.scale = None;
        server.sack_permitted = false;
        server.timestamps = None;
    });
    assert_eq!(accepted.timestamps, None);
    assert_eq!((opened.timestamps, opened.window), (None, 65_160 >> 7));
    let from_client = Tcp {
        window: 100,
        sack: vec![(answer.seq, answer.seq.wrapping_add(1))],
        data: vec![1],
        ..ack(&answer)
    };
    assert!(from_client.timestamps.is_some());
    assert_eq!(send(&mut node, &from_client), "to wan: session");
    let expected = Tcp {
        ack: SERVER_ISN + 1,
        window: 3200,
        timestamps: None,
        sack: vec![],
        ..from_client.clone()
    };
    assert_eq!(forwarded(&mut node).1, expected);
    let wide = Tcp {
        window: 4000,
        seq: from_client.seq.wrapping_add(1),
        ..from_client
    };
    assert_eq!(send(&mut node, &wide), "to wan: session");
    assert_eq!(forwarded(&mut node).1.window, 0xffff, "128,000 bytes do not fit");
    let from_server = Tcp {
        from: End::Server,
        port: 1234,
        flags: ACK,
        seq: SERVER_ISN + 1,
        ack: ISN.wrapping_add(3),
        window: 1000,
        ..Tcp::default()
    };
    assert_eq!(send(&mut node, &from_server), "to lan: session");
    assert_eq!(forwarded(&mut node).1.window, 1000 >> 7);
    // The next client is told what is known now.
    let next = self::answer(&mut node, &Tcp { port: 1235, ..syn() });
    assert_eq!(
        (next.mss, next.scale, next.sack_permitted, next.timestamps),
        (Some(1400), None, false, None)
    );
}

/// What a server announced last is announced in its place; what is in no SYN of the client's is announced to no client.
#[test]
fn options_are_learnt_by_destination() {
    let mut node = node(ALWAYS);
    open(&mut node, &syn(), |_| ());
    let next = answer(&mut node, &Tcp { port: 1235, ..syn() });
    assert_eq!((next.mss, next.scale), (Some(1400), Some(9)));
    let (_, _, opened) = open(&mut node, &Tcp { port: 1236, ..syn() }, |_| ());
    assert_eq!(opened.window, 65_160 >> 9);
    let bare = Tcp {
        port: 1237,
        scale: None,
        sack_permitted: false,
        timestamps: None,
        mss: None,
        ..syn()
    };
    let (syn_again, answer) = opening(&mut node, &bare);
    assert_eq!(
        (answer.mss, answer.scale, answer.sack_permitted, answer.timestamps),
        (Some(1400), None, false, None)
    );
    assert_eq!(
        (
            syn_again.mss,
            syn_again.scale,
            syn_again.sack_permitted,
            syn_again.timestamps
        ),
        (Some(536), None, false, None)
    );
    assert_eq!(syn_again.window, 1000);
    // After ten minutes it is forgotten: a server may change.
    node.wait_secs(601);
    let late = self::answer(&mut node, &Tcp { port: 1238, ..syn() });
    assert_eq!((late.mss, late.scale), (Some(1460), Some(7)));
}

/// A connection that was not proxied teaches as well.
#[test]
fn options_are_learnt_while_disengaged_and_set_by_the_rule() {
    let rule = |more: &str| format!("[[rule]]\nname = \"web\"\nfrom = \"lan\"\naction = \"allow\"\n{more}\n");
    let mut node = node(&rule("syn_protection = \"auto\""));
    let first = syn();
    assert_eq!(send(&mut node, &first), "to wan: new session by web");
    assert_eq!(send(&mut node, &syn_ack(&first)), "to lan: session");
    let own = "syn_options = { mss = 1000, window_scale = 2, sack = false, timestamps = false }";
    node.apply(&rule(&format!("syn_protection = \"always\"\n{own}")));
    node.forwarded.clear();
    let known = answer(&mut node, &Tcp { port: 1235, ..syn() });
    assert_eq!(
        (known.mss, known.scale, known.sack_permitted),
        (Some(1400), Some(9), true)
    );
    assert!(known.timestamps.is_some());
    let unknown = answer(
        &mut node,
        &Tcp {
            port: 1235,
            v6: true,
            ..syn()
        },
    );
    assert_eq!(
        (
            unknown.mss,
            unknown.scale,
            unknown.sack_permitted,
            unknown.timestamps
        ),
        (Some(980), Some(2), false, None)
    );
}

/// Whoever has not received the cookie gets nowhere, and nothing is kept for it.
#[test]
fn hostile_acknowledgements() {
    let mut node = node(ALWAYS);
    let answer = answer(&mut node, &syn());
    let good = ack(&answer);
    let mut hostile: Vec<(&str, Tcp)> = vec![
        (
            "a guess",
            Tcp {
                ack: good.ack ^ 0x0100_0000,
                ..good.clone()
            },
        ),
        (
            "other options",
            Tcp {
                ack: good.ack ^ 0x10,
                ..good.clone()
            },
        ),
        (
            "another port",
            Tcp {
                port: 1235,
                ..good.clone()
            },
        ),
        (
            "another address family",
            Tcp {
                v6: true,
                ..good.clone()
            },
        ),
        (
            "another SYN",
            Tcp {
                seq: good.seq.wrapping_add(5),
                ..good.clone()
            },
        ),
        (
            "data beyond",
            Tcp {
                seq: good.seq.wrapping_add(1),
                data: vec![1],
                ..good.clone()
            },
        ),
        (
            "no acknowledgement of the cookie",
            Tcp {
                ack: answer.seq,
                ..good.clone()
            },
        ),
    ];
    hostile.push((
        "a FIN with a guess",
        Tcp {
            flags: FIN | ACK,
            ack: 1,
            ..good.clone()
        },
    ));
    for (what, segment) in &hostile {
        node.changes(&[("received", 1), ("syn_cookie_invalid", 1)], |node| {
            assert_eq!(send(node, segment), "syn_cookie_invalid: rule web", "{what}");
        });
    }
    // By another pair of ports, under the same addresses.
    assert_eq!(node.frame("dmz", &good.frame()), "no_session: no rule");
    // A RST carries no cookie.
    let reset = Tcp {
        flags: RST | ACK,
        ..good.clone()
    };
    assert_eq!(send(&mut node, &reset), "no_session: no rule");
    assert_eq!(node.sessions(), Vec::<String>::new());
    assert!(node.originated.is_empty(), "none was answered");

    // The real one still counts; sent again it belongs to the session, and changes nothing.
    assert_eq!(send(&mut node, &good), "to wan: new session by web");
    assert_eq!(send(&mut node, &good), "syn_proxied: session");
    assert_eq!(node.sessions().len(), 1);
}

/// The key changes every 64 seconds; a cookie lives for one change and no longer.
#[test]
fn an_old_cookie_is_worth_nothing() {
    let mut node = node(ALWAYS);
    // 1024 s is the beginning of an epoch.
    node.now = Nanos::from_secs(1024);
    let answers: Vec<_> = (0..3)
        .map(|n| {
            answer(
                &mut node,
                &Tcp {
                    port: 2000 + n,
                    ..syn()
                },
            )
        })
        .collect();
    node.now = Nanos(Nanos::from_secs(1024 + 64).0 - 1);
    assert_eq!(send(&mut node, &ack(&answers[0])), "to wan: new session by web");
    node.now = Nanos(Nanos::from_secs(1024 + 128).0 - 1);
    assert_eq!(send(&mut node, &ack(&answers[1])), "to wan: new session by web");
    // While another cookie is awaited, one that comes is looked at; later it is not even that.
    node.now = Nanos::from_secs(1024 + 128);
    answer(&mut node, &Tcp { port: 2003, ..syn() });
    assert_eq!(send(&mut node, &ack(&answers[2])), "syn_cookie_invalid: rule web");
    node.now = Nanos::from_secs(1024 + 256);
    assert_eq!(send(&mut node, &ack(&answers[2])), "no_session: no rule");
    // The same SYN gets another one in another epoch.
    assert_ne!(
        answer(&mut node, &Tcp { port: 2002, ..syn() }).seq,
        answers[2].seq
    );
}

/// A recording of a good handshake opens the connection again while its cookie lives: to the server alone, which the forger does
/// not hear.
#[test]
fn a_replayed_acknowledgement() {
    let mut node = node(ALWAYS);
    node.now = Nanos::from_secs(1024);
    let (_, answer) = opening(&mut node, &syn());
    node.wait_secs(31);
    assert_eq!(node.sessions(), Vec::<String>::new(), "the server never answered");
    assert_eq!(send(&mut node, &ack(&answer)), "to wan: new session by web");
    node.wait_secs(128);
    assert_eq!(node.sessions(), Vec::<String>::new());
    assert_eq!(send(&mut node, &ack(&answer)), "no_session: no rule");
}

#[test]
fn a_server_that_refuses() {
    let mut node = node(ALWAYS);
    let (to_server, answer) = opening(&mut node, &syn());
    let refusal = Tcp {
        from: End::Server,
        port: 1234,
        flags: RST | ACK,
        ack: to_server.seq.wrapping_add(2),
        ..Tcp::default()
    };
    // Of another SYN.
    assert_eq!(send(&mut node, &refusal), "tcp_out_of_window: session");
    let refusal = Tcp {
        ack: to_server.seq.wrapping_add(1),
        ..refusal
    };
    assert_eq!(send(&mut node, &refusal), "to lan: session");
    let expected = Tcp {
        seq: answer.seq.wrapping_add(1),
        ..refusal
    };
    assert_eq!(forwarded(&mut node), ("lan".to_owned(), expected));
    assert!(node.sessions()[0].contains("closed"));
    node.wait_secs(11);
    assert_eq!(node.sessions(), Vec::<String>::new());
}

/// The client has its SYN+ACK and sends none again: haechi does, after 1, 2 and 4 seconds, and when the client asks.
#[test]
fn a_server_that_does_not_answer() {
    let mut node = node(ALWAYS);
    let (to_server, answer) = opening(&mut node, &syn());
    for (wait, again) in [
        (999, false),
        (1, true),
        (1999, false),
        (1, true),
        (3999, false),
        (1, true),
        (8000, false),
    ] {
        node.wait(Nanos::from_millis(wait));
        assert_eq!(node.originated.len(), usize::from(again), "after {wait} ms");
        if again {
            assert_eq!(made(&mut node), ("wan".to_owned(), to_server.clone()));
        }
    }
    // A client that waits for its window to open asks with the number before its next one.
    let probe = Tcp {
        seq: ISN,
        ..ack(&answer)
    };
    assert_eq!(send(&mut node, &probe), "to wan: session");
    let again = Tcp {
        timestamps: Some((9001, 0)),
        ..to_server.clone()
    };
    assert_eq!(forwarded(&mut node), ("wan".to_owned(), again));
    assert_eq!(
        send(&mut node, &probe),
        "syn_proxied: session",
        "at most one in 8 seconds"
    );
    node.wait_secs(31);
    assert_eq!(node.sessions(), Vec::<String>::new());
    // A session that is gone or open has nothing sent again.
    open(&mut node, &Tcp { port: 1235, ..syn() }, |_| ());
    opening(&mut node, &Tcp { port: 1236, ..syn() });
    node.wait_secs(31);
    assert!(node.originated.is_empty());
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
fn a_server_with_an_old_connection_is_reset_and_asked_again() {
    let mut node = node(ALWAYS);
    let (to_server, _) = opening(&mut node, &syn());
    let old = Tcp {
        from: End::Server,
        port: 1234,
        flags: ACK,
        seq: 4_000_000,
        ack: 123_456,
        ..Tcp::default()
    };
    assert_eq!(send(&mut node, &old), "syn_proxied: session");
    let expected = Tcp {
        port: 1234,
        flags: RST,
        seq: 123_456,
        ..Tcp::default()
    };
    assert_eq!(made(&mut node), ("wan".to_owned(), expected));
    node.wait_secs(1);
    assert_eq!(node.originated.len(), 1);
    assert_eq!(made(&mut node).1, to_server);
    assert_eq!(send(&mut node, &syn_ack(&to_server)), "to lan: session");
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

#[test]
fn half_open_sessions_engage_and_disengage_cookies() {
    let rules = "[[rule]]\nname = \"web\"\nfrom = \"lan\"\naction = \"allow\"\nsyn_protection = \"auto\"\n\
        [conntrack]\nsyn_cookie_start = \"25%\"\nsyn_cookie_stop = \"15%\"\n";
    let mut node = Node::with_table(rules, 100);
    node.rewrites = true;
    let numbered = |port: u16| Tcp { port, ..syn() };
    for port in 1000..1025 {
        assert!(!node.engine.syn_cookies_engaged());
        assert_eq!(send(&mut node, &numbered(port)), "to wan: new session by web");
    }
    // 25 of 100 are half open.
    let answered = answer(&mut node, &numbered(2000));
    assert!(node.engine.syn_cookies_engaged());
    assert_eq!(node.sessions().len(), 25);
    // Those that are half open go on as they are; 11 come to an end, 14 are left.
    for port in 1000..1010 {
        node.send(
            "wan",
            &format!("tcp 192.0.2.7:80 > 10.0.0.5:{port} rst seq=0 ack=4294967281"),
        );
    }
    node.forwarded.clear();
    answer(&mut node, &numbered(2001));
    node.send(
        "wan",
        "tcp 192.0.2.7:80 > 10.0.0.5:1010 rst,ack seq=0 ack=4294967281",
    );
    node.forwarded.clear();
    let half_open = node.engine.table().half_open();
    assert!(half_open >= 14, "{half_open}");
    for port in 1011..1011 + (half_open as u16).saturating_sub(14) {
        let reset = Tcp {
            from: End::Server,
            port,
            flags: RST | ACK,
            ack: ISN.wrapping_add(1),
            ..Tcp::default()
        };
        assert_eq!(send(&mut node, &reset), "to lan: session");
    }
    node.forwarded.clear();
    assert_eq!(node.engine.table().half_open(), 14);
    node.wait(Nanos::from_millis(1));
    assert!(!node.engine.syn_cookies_engaged(), "upkeep sees it, too");
    assert_eq!(send(&mut node, &numbered(2002)), "to wan: new session by web");
    node.forwarded.clear();
    // A cookie that was sent before is still good.
    assert_eq!(send(&mut node, &ack(&answered)), "to wan: new session by web");
    assert_eq!(forwarded(&mut node).1.flags, SYN);
}

#[test]
fn a_flood_takes_no_session() {
    let mut node = Node::with_table(ALWAYS, 64);
    let start = node.engine.table().memory_bytes();
    for port in 1..=10_000 {
        assert_eq!(send(&mut node, &Tcp { port, ..syn() }), "syn_proxied: rule web");
    }
    assert_eq!(node.originated.len(), 10_000);
    assert_eq!(
        (node.engine.table().len(), node.engine.table().inserted_total()),
        (0, 0)
    );
    assert_eq!(node.engine.table().memory_bytes(), start);
    let different: std::collections::BTreeSet<u32> = node
        .originated
        .iter()
        .map(|(_, frame)| Tcp::read(frame).seq >> 8)
        .collect();
    assert!(different.len() > 9900, "{} different cookies", different.len());
}

/// What the rules refuse is refused as ever, and what is no TCP, or no SYN that could be answered, passes as ever.
#[test]
fn only_allowed_connections_are_answered() {
    let mut node = Node::new(&format!(
        "[[rule]]\nname = \"no\"\nservice = [\"tcp/81\"]\naction = \"reject\"\n{ALWAYS}"
    ));
    assert_eq!(
        node.send("lan", "tcp 10.0.0.5:1 > 192.0.2.7:81 syn"),
        "policy: rule no"
    );
    assert_eq!(
        node.send("lan", "tcp 10.0.0.5:1 > 192.0.2.7:81 ack"),
        "policy: rule no"
    );
    assert_eq!(
        node.send("dmz", "tcp 10.0.0.5:1 > 192.0.2.7:80 syn"),
        "policy: no rule"
    );
    assert_eq!(
        node.send("lan", "udp 10.0.0.5:1 > 192.0.2.7:53"),
        "to wan: new session by web"
    );
    assert_eq!(
        node.send("lan", "tcp 10.0.0.5:1 > 192.0.2.7:80 ack"),
        "no_session: no rule"
    );
    let mut group = frame("tcp 10.0.0.5:1 > 192.0.2.7:80 syn");
    group[0] |= 1;
    assert_eq!(node.frame("lan", &group), "to wan: new session by web");
    assert_eq!(node.counters().get("syn_cookies_sent"), None);
}

/// `pickup` is asked when there is no cookie.
#[test]
fn pickup_goes_on_beside_cookies() {
    let mut node = node(&format!("{ALWAYS}pickup = true\n"));
    let answer = answer(&mut node, &syn());
    assert_eq!(
        send(
            &mut node,
            &Tcp {
                port: 1235,
                ..ack(&answer)
            }
        ),
        "to wan: new session by web"
    );
    assert_eq!(forwarded(&mut node).1.flags, ACK);
    assert!(node.sessions()[0].contains("established"));
    assert_eq!(send(&mut node, &ack(&answer)), "to wan: new session by web");
    assert_eq!(forwarded(&mut node).1.flags, SYN);
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

#[test]
fn a_full_table_refuses_a_good_cookie() {
    let mut node = Node::with_table(&format!("{ALWAYS}{ALLOW_ALL}"), 1);
    node.rewrites = true;
    assert_eq!(
        node.send("dmz", "udp 10.9.0.5:1 > 192.0.2.7:53"),
        "to net: new session by all"
    );
    // A session with packets both ways gives way to none.
    node.send("net", "udp 192.0.2.7:53 > 10.9.0.5:1");
    let answer = answer(&mut node, &syn());
    assert_eq!(send(&mut node, &ack(&answer)), "table_full: rule web");
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
