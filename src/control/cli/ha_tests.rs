//! What `show ha` prints of a pair that is not well.

use super::*;
use crate::control::node::{HaPeer, HaRole, HaWish, HaWitness, NotifyState};

fn degraded() -> HaStatus {
    HaStatus {
        mode: "active-standby".to_owned(),
        node_id: 2,
        role: HaRole::Leader,
        role_s: 61.0,
        priority: 100,
        able: false,
        wish: Some(HaWish {
            lead: false,
            by: "instance VI_1".to_owned(),
            state: NotifyState::Fault,
        }),
        peer: HaPeer {
            node_id: 1,
            alive: false,
            role: Some(HaRole::Leader),
            priority: Some(200),
            able: Some(false),
            version: Some(1),
            paths: vec![
                HaPath {
                    name: "link".to_owned(),
                    heard_ms: Some(61_000.0),
                    rtt_us: None,
                },
                HaPath {
                    name: "second_link".to_owned(),
                    ..HaPath::default()
                },
            ],
        },
        witness: Some(HaWitness {
            address: "192.0.2.1".to_owned(),
            answers: Some(false),
            heard_ms: Some(2500.0),
        }),
        policy: HaDigest::new(1, Some(2)),
        layout: HaDigest::new(3, None),
        sync: HaSync {
            state: SyncState::Resync,
            resync_done: 5,
            resync_of: 70,
            resyncs: 1,
            waiting: 65,
            ..HaSync::default()
        },
        refused: [("forged".to_owned(), 3), ("late".to_owned(), 0)].into(),
        ..HaStatus::default()
    }
    .with_reasons(vec![
        "the peer is not heard".to_owned(),
        "the policies differ".to_owned(),
    ])
}

#[test]
fn everything_that_is_wrong_is_said() {
    insta::assert_snapshot!(status_text(&degraded()), @r"
    degraded: the peer is not heard
    and: the policies differ
    node         2 of an active-standby pair, leader for 1m1s, priority 100, cannot lead
    peer         node 1, silent; it was leader, priority 200, cannot lead, protocol 1
    link         heard 1m1s ago
    second_link  never heard
    witness      192.0.2.1 does not answer, its last answer 2.5s ago
    sync         resync, 5 of about 70, 0 sessions of the peer's, 65 to be sent, 1 resync
    sent         0 updates and 0 ends, 0 again
    received     0 updates and 0 ends, 0 without room
    datagrams    0 sent, 0 received
    policy       differs: compare the files by `haechi ha check` (0000000000000001, the peer's 0000000000000002)
    layout       not compared yet (0000000000000003)
    wish         not to lead: instance VI_1 is FAULT
    refused      forged 3
    ");
    // Known of nobody yet.
    let alone = HaStatus::default().with_reasons(vec!["the peer is not heard".to_owned()]);
    let text = status_text(&alone);
    assert!(text.starts_with("degraded: the peer is not heard\n"), "{text}");
    assert!(
        text.contains("never heard") && text.contains("not compared yet"),
        "{text}"
    );
}

/// The word is the first of the text and the first field of the JSON, and it follows from the reasons.
#[test]
fn health_comes_first() {
    let healthy = degraded().with_reasons(Vec::new());
    assert!(healthy.is_healthy() && !degraded().is_healthy());
    assert!(status_text(&healthy).starts_with("healthy\n"));
    let json = serde_json::to_string(&degraded()).unwrap();
    assert!(
        json.starts_with(r#"{"health":"degraded: the peer is not heard","#),
        "{json}"
    );
}
