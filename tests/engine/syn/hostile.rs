//! What a forger gets.

use haechi::base::Nanos;

use super::both_ends::*;
use crate::node::Node;
use crate::tcp::{ACK, FIN, RST, Tcp};

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
