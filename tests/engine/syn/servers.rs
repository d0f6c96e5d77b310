//! Servers: what they announce, and those that refuse, do not answer, or remember.

use haechi::base::Nanos;

use super::both_ends::*;
use crate::tcp::{ACK, End, RST, Tcp};

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
    // The RST to the client whose server did not answer.
    node.originated.clear();
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
    // The client believes in its connection: it is told that there is none.
    let told = |port: u16, answer: &Tcp| Tcp {
        from: End::Server,
        port,
        flags: RST | ACK,
        seq: answer.seq.wrapping_add(1),
        ack: ISN.wrapping_add(1),
        ..Tcp::default()
    };
    assert_eq!(made(&mut node), ("lan".to_owned(), told(1234, &answer)));
    // A session that is gone or open has nothing sent again, and one that is open is not reset.
    open(&mut node, &Tcp { port: 1235, ..syn() }, |_| ());
    let (_, answer) = opening(&mut node, &Tcp { port: 1236, ..syn() });
    node.wait_secs(31);
    assert_eq!(made(&mut node), ("lan".to_owned(), told(1236, &answer)));
    assert_eq!(node.counters()["timeout_resets"], 2);
}

/// A client whose session finds no room has shaken hands with haechi already: it is reset, and its cookie opened nothing.
#[test]
fn a_client_that_is_turned_away_is_reset() {
    let mut node = node(&format!("{ALWAYS}max_sessions = 1\n"));
    opening(&mut node, &syn());
    let late = answer(&mut node, &Tcp { port: 1235, ..syn() });
    for _ in 0..2 {
        assert_eq!(send(&mut node, &ack(&late)), "session_limit: rule web");
        let reset = Tcp {
            from: End::Server,
            port: 1235,
            flags: RST,
            seq: late.seq.wrapping_add(1),
            ..Tcp::default()
        };
        assert_eq!(made(&mut node), ("lan".to_owned(), reset));
    }
    let counters = node.counters();
    assert_eq!(
        (counters["syn_cookies_accepted"], counters["session_limit"]),
        (1, 2)
    );
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
