//! The node, its ports and their devices.

use std::collections::BTreeMap;

use haechi::base::{Generation, PairId};
use haechi::config::{self, RuleIds};

use crate::good::{GOOD, findings, one};

/// A good file of so many pairs, five lines a port from line 4 on.
fn with_pairs(pairs: usize) -> String {
    let mut text = String::from("version = 1\n[node]\nmode = \"transparent\"\n");
    for port in 0..2 * pairs {
        let peer = port ^ 1;
        text += &format!(
            "[[port]]\nname = \"p{port}\"\ndevice = \"vdev:net_null{port}\"\nzone = \"z\"\npeer = \"p{peer}\"\n"
        );
    }
    text
}

/// What tells two pairs' sessions apart has 8 bits: as many pairs as it can tell apart are taken, and no more.
#[test]
fn no_more_pairs_than_a_session_key_tells_apart() {
    let most = config::load_text("fw", &with_pairs(256)).unwrap();
    let policy = config::compile(&most, Generation(1), &mut RuleIds::new()).unwrap();
    let domains = |vlan| policy.ports.iter().map(move |port| (port.pair, vlan));
    let domains: BTreeMap<u32, (PairId, u32)> = domains(0)
        .chain(domains(0xff_ffff))
        .map(|(pair, vlan)| (policy.transparent.domain(pair, vlan), (pair, vlan)))
        .collect();
    assert_eq!(
        domains.len(),
        2 * 256,
        "each pair's own, with VLAN tags and without"
    );
    assert_eq!(
        findings(&with_pairs(257)),
        [format!(
            "fw:{}:1: error: more than 512 ports, 256 pairs; help: run a second node",
            4 + 5 * 512
        )]
    );
}

#[test]
fn the_node() {
    one(
        "workers = \"1\"",
        "workers = \"\"",
        "fw:4:11: error: a node needs at least one worker",
    );
    one(
        "workers = \"1\"",
        "workers = \"1,1\"",
        "fw:4:11: error: CPU 1 is named twice",
    );
    one(
        "workers = \"1\"",
        "workers = \"3-1\"",
        "fw:4:11: error: the range `3-1` is reversed; help: write \"1-3\"",
    );
    one(
        "workers = \"1\"",
        "workers = 1",
        "fw:4:11: error: `node.workers`: expected a string, found an integer",
    );
    for size in ["0", "65537"] {
        one(
            "burst = 32",
            &format!("handover_queue = {size}"),
            "fw:5:18: error: `node.handover_queue` is out of range; help: a whole number from 1 to 65536",
        );
    }
    one(
        "burst = 32",
        "burst = 0",
        "fw:5:9: error: `node.burst` is out of range",
    );
    one(
        "burst = 32",
        "packet_buffers = 2048",
        "fw:5:18: error: 2048 packet buffers cannot fill the rings of port",
    );
    one(
        "burst = 32",
        "name = \"\"",
        "fw:5:8: error: the name of a node is empty",
    );
    let long = format!("control_socket = \"/{}\"", "x".repeat(107));
    one(
        "burst = 32",
        &long,
        "fw:5:18: error: the path of `node.control_socket` is longer than 107 bytes",
    );
}

#[test]
fn ports_and_devices() {
    one(
        "peer = \"lan\"",
        "peer = \"wan\"",
        "fw:10:8: error: port \"wan\" is its own peer",
    );
    one(
        "name = \"lan\"",
        "name = \"lan\"\nrx_queues = 2",
        "fw:13:13: error: 2 receive queues, but 1 worker",
    );
    one(
        "name = \"lan\"",
        "name = \"lan\"\nrx_queues = 'all'",
        "fw:13:13: error: `port.rx_queues` is \"auto\" or a number",
    );
    one(
        "name = \"lan\"",
        "name = \"lan\"\nmtu = 9001",
        "fw:13:7: error: `port.mtu` is out of range",
    );
    one(
        "name = \"lan\"",
        "name = \"lan\"\nmtu = 9000",
        "fw:13:7: warning: the MTU of \"wan\" is 1500, that of its peer",
    );
    one(
        "device = \"vdev:net_null1\"",
        "device = \"eth1\"",
        "fw:13:10: error: `eth1` is neither a PCI address nor",
    );
    one(
        "device = \"vdev:net_null1\"",
        "",
        "fw:11:1: error: port \"lan\" has no device",
    );
    one(
        "device = \"vdev:net_null1\"",
        "device = \"vdev:net_null0,size=64\"",
        "fw:13:10: error: ports \"wan\" and \"lan\" use the same device (net_null0) (used here before: fw:8:10)",
    );
    one(
        "[address_sets]",
        "[devices]\nlan = \"vdev:net_null2\"\n[address_sets]",
        "fw:13:10: error: port \"lan\" has two devices",
    );
    one(
        "[address_sets]",
        "[devices]\nlam = \"vdev:net_null2\"\n[address_sets]",
        "fw:17:1: error: a device for a port \"lam\"",
    );
    let any = findings(&GOOD.replace("\nzone = \"trust\"\n", "\nzone = \"any\"\n"));
    assert!(
        any[0].starts_with("fw:14:8: error: the name of a zone cannot be \"any\""),
        "{any:#?}"
    );

    let same_interface = GOOD
        .replace("vdev:net_null0", "vdev:net_af_xdp0,iface=veth9")
        .replace("vdev:net_null1", "vdev:net_af_packet0,iface=veth9");
    assert!(findings(&same_interface)[0].contains("use the same device (interface veth9)"));
    let same_pci = GOOD
        .replace("vdev:net_null0", "0000:3B:00.0")
        .replace("vdev:net_null1", "3b:00.0");
    assert!(findings(&same_pci)[0].contains("use the same device (0000:3b:00.0)"));

    // Three ports, two of which claim the third.
    let third = "[[port]]\nname = \"dmz\"\ndevice = \"vdev:net_null2\"\nzone = \"dmz\"\npeer = \"lan\"\n[address_sets]";
    one(
        "[address_sets]",
        third,
        "fw:20:8: error: \"dmz\" names \"lan\" as its peer, but the peer of \"lan\" is \"wan\" (it says so here: fw:15:8)",
    );
    let twice = GOOD.replace("name = \"lan\"", "name = \"wan\"");
    let found = findings(&twice);
    assert!(
        found
            .iter()
            .any(|f| f.starts_with("fw:12:8: error: port name \"wan\" is used twice")),
        "{found:#?}"
    );
    assert!(
        findings("version = 1\nport = []\nnode.mode = 'transparent'")[0].contains("there is no `[[port]]`")
    );
}
