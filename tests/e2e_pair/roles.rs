//! Who leads.

use super::lab::duo::Duo;
use super::{ALONE_SOON, Connections, pair};

/// With its peer absent a node leads alone after `alone_after`. One that comes later has everything before it is ready.
#[test]
fn one_alone_leads_and_the_late_one_takes_everything_in_first() {
    let mut duo = pair();
    // So slowly that it can be watched.
    duo.ha = format!("{ALONE_SOON}sync_rate = \"200/s\"\n");
    duo.spawn(0);
    assert_eq!(duo.nodes[0].wait_ready(), "ready (alone)");
    let (ok, text) = duo.nodes[0].try_cli("show ha");
    assert!(
        !ok && text.starts_with("degraded: the peer is not heard"),
        "{text}"
    );
    assert_eq!(duo.nodes[0].role(), "leader");
    let connections = Connections::open(&duo, 400);
    duo.spawn(1);
    duo.nodes[1].wait_socket();
    duo.nodes[1].wait_ha("in the middle of it", |ha| {
        ha["role"] == "standby"
            && ha["sync"]["state"] == "resync"
            && ha["sync"]["replicas"].as_u64() > Some(20)
    });
    let said = duo.nodes[1].process.as_ref().unwrap().stdout();
    assert!(!said.contains("ready"), "{said}");
    assert_eq!(duo.nodes[1].wait_ready(), "ready");
    let ha = duo.nodes[1].ha();
    assert_eq!(
        [&ha["role"], &ha["sync"]["state"], &ha["sync"]["replicas"]],
        [
            &"standby".into(),
            &"in_sync".into(),
            &serde_json::Value::from(400)
        ],
        "{ha}"
    );
    duo.wait_healthy();
    connections.are_well();
}

/// The cable between the nodes is out; who may go on depends on who hears the witness.
#[test]
fn the_witness_decides_who_goes_on_when_the_cable_is_cut() {
    let mut duo = pair();
    duo.ha = ALONE_SOON.to_owned();
    duo.add_witness();
    duo.start();
    let connections = Connections::open(&duo, 3);
    connections.are_known_to(&duo.nodes[1]);
    let [a, b] = &duo.nodes;

    // Neither hears it: nobody begins to lead, and who led stops.
    duo.reach_witness(0, false);
    duo.reach_witness(1, false);
    duo.cable(false);
    a.wait_ha("isolated", |ha| ha["role"] == "isolated");
    let ha = b.wait_ha("without its peer", |ha| ha["peer"]["alive"] == false);
    assert_eq!(
        [&ha["role"], &ha["takeovers"]],
        [&"standby".into(), &serde_json::Value::from(0)],
        "{ha}"
    );
    let (ok, text) = a.try_cli("show ha");
    assert!(
        !ok && text
            .starts_with("degraded: this node forwards nothing: neither the peer nor the witness is heard"),
        "{text}"
    );
    duo.cable(true);
    duo.wait_healthy();
    assert_eq!(duo.roles(), ["leader", "standby"]);
    connections.are_well();

    // The standby alone hears it: the lead goes over.
    duo.reach_witness(1, true);
    duo.cable(false);
    b.wait_ha("leader", |ha| ha["role"] == "leader");
    a.wait_ha("isolated", |ha| ha["role"] == "isolated");
    connections.are_well();
    duo.cable(true);
    duo.wait_healthy();
    assert_eq!(duo.roles(), ["standby", "leader"]);

    // The leader alone hears it: everything stays.
    duo.reach_witness(0, true);
    duo.reach_witness(1, false);
    duo.cable(false);
    a.wait_ha("leader", |ha| ha["role"] == "leader");
    b.wait_ha("isolated", |ha| ha["role"] == "isolated");
    connections.are_well();
    duo.cable(true);
    duo.wait_healthy();
    assert_eq!(duo.roles(), ["leader", "standby"]);

    // Both hear it, and not each other: both lead, until they do; then one does.
    duo.reach_witness(1, true);
    one_stays_of_two(&duo);
    connections.are_well();
}

/// Without a witness a node cannot tell a dead peer from a cut cable.
#[test]
fn without_a_witness_both_lead_until_they_hear_each_other() {
    let mut duo = pair();
    duo.start();
    let connections = Connections::open(&duo, 3);
    connections.are_known_to(&duo.nodes[1]);
    one_stays_of_two(&duo);
    connections.are_well();
}

fn one_stays_of_two(duo: &Duo) {
    duo.cable(false);
    for node in &duo.nodes {
        node.wait_ha("alone at the lead", |ha| {
            ha["role"] == "leader" && ha["peer"]["alive"] == false
        });
    }
    duo.cable(true);
    duo.wait_healthy();
    assert_eq!(duo.roles(), ["leader", "standby"], "the higher priority stays");
}

#[test]
fn a_tracked_port_without_a_link_gives_the_lead_up() {
    let mut duo = pair();
    duo.ha = "track = [\"lan\", \"wan\"]\n".to_owned();
    duo.start();
    let connections = Connections::open(&duo, 3);
    connections.are_known_to(&duo.nodes[1]);
    let [a, b] = &duo.nodes;
    duo.switches[1].ip("link set to-a down");
    b.wait_ha("leader", |ha| ha["role"] == "leader");
    let ha = a.wait_ha("standby", |ha| ha["role"] == "standby");
    assert_eq!(ha["able"], false, "{ha}");
    assert!(
        ha["reasons"]
            .as_array()
            .unwrap()
            .iter()
            .any(|r| r == "port wan has no link"),
        "{ha}"
    );
    let ha = b.ha();
    assert_eq!(ha["health"], "degraded: the peer cannot lead", "{ha}");
    connections.are_well();
    duo.switches[1].ip("link set to-a up");
    duo.wait_healthy();
    assert_eq!(duo.roles(), ["standby", "leader"]);
    connections.are_well();
}
