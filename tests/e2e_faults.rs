//! What goes wrong under a running node: links, interfaces, the end of the process itself.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use std::time::Duration;

use lab::frames::Ends;
use lab::{Config, Host, Lab, Node, wait_for};

fn wait_carrier(host: &Host, up: bool) {
    wait_for(
        &format!("{} has {} carrier", host.port, if up { "a" } else { "no" }),
        || {
            if host.ns.carrier("e0") == up {
                Ok(())
            } else {
                Err("not yet".into())
            }
        },
    );
}

/// One packet goes through, maybe not at the first attempt.
fn wait_passes(from: &Host, to: &Host, port: u16) {
    let mut capture = to.capture();
    let frame = Ends::v4(from, to).udp(port, 53, b"back again");
    wait_for("a packet passes", || {
        from.send(&frame);
        match capture.next_within(Duration::from_millis(100)) {
            Some(got) if got == frame => Ok(()),
            other => Err(format!("{other:02x?}")),
        }
    });
}

#[test]
fn a_cut_link_is_reported_and_propagated_and_comes_back() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    let node = lab.start(Config::allow_all());
    wait_passes(&a, &b, 1000);
    for (cut, other) in [(&a, &b), (&b, &a)] {
        cut.cut();
        node.wait_link(&cut.port, false);
        let shown = node.cli("show ports");
        let line = shown
            .lines()
            .find(|l| l.contains(&cut.port))
            .unwrap_or_else(|| panic!("{shown}"));
        assert!(line.contains("down"), "{shown}");
        // Its pair's other side sees that its cable is of no use now, and can turn to another path.
        wait_carrier(other, false);
        cut.restore();
        node.wait_link(&cut.port, true);
        wait_carrier(other, true);
        node.wait_link(&other.port, true);
        wait_passes(&a, &b, 1001);
        wait_passes(&b, &a, 1002);
    }
}

#[test]
fn without_propagation_the_other_side_stays_up() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    let node = lab.start(Config::allow_all().transparent("link_propagation = false"));
    wait_passes(&a, &b, 1000);
    let before = node.balance();
    a.cut();
    node.wait_link("lan", false);
    assert!(b.ns.carrier("e0"));
    assert_eq!(node.api.port("wan")["link_up"], true);
    // What would leave by the dead port is dropped, under that reason.
    let session = Ends::v4(&b, &a).udp(53, 1000, b"an answer to nobody");
    b.send(&session);
    let after = node.settled_after(&before, 1);
    assert_eq!(after.drop_of("link_down"), 1, "{after:?}");
    a.restore();
    node.wait_link("lan", true);
    wait_passes(&a, &b, 1001);
}

#[test]
fn one_pairs_dead_link_is_not_the_other_pairs_business() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    let (c, d) = lab.raw_pair("lan2", "wan2");
    let node = lab.start(Config::allow_all());
    a.cut();
    node.wait_link("lan", false);
    wait_carrier(&b, false);
    wait_passes(&c, &d, 1000);
    wait_passes(&d, &c, 1001);
    a.restore();
    wait_carrier(&b, true);
    wait_passes(&a, &b, 1000);
}

#[test]
fn a_node_starts_with_a_link_down_and_says_so() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    a.cut();
    let node = lab.start(Config::allow_all());
    node.wait_link("lan", false);
    let said = [node.process().stdout(), node.process().stderr()].concat();
    assert!(
        said.lines().any(|l| l.contains("lan") && l.contains("down")),
        "{said}"
    );
    a.restore();
    node.wait_link("lan", true);
    wait_carrier(&b, true);
    wait_passes(&a, &b, 1000);
}

#[test]
fn a_deleted_interface_is_reported_survived_and_taken_back() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.raw_pair("lan", "wan");
    let (c, d) = lab.raw_pair("lan2", "wan2");
    let node = lab.start(Config::allow_all());
    wait_passes(&a, &b, 1000);
    a.delete_link(&lab.firewall);
    let port = node.wait_link("lan", false);
    assert!(port["link_note"].is_string(), "says what is the matter: {port}");
    wait_carrier(&b, false);
    wait_passes(&c, &d, 1000);
    a.recreate_link(&lab.firewall);
    node.wait_link("lan", true);
    wait_carrier(&b, true);
    wait_passes(&a, &b, 1001);
    wait_passes(&b, &a, 1002);
}

/// A number of the totals that `haechi run` prints when it stops: the one after these words.
fn total(said: &str, words: &str) -> u64 {
    let totals = said
        .lines()
        .find(|l| l.starts_with("stopped: "))
        .unwrap_or_else(|| panic!("no totals: {said}"));
    let (_, rest) = totals
        .split_once(words)
        .unwrap_or_else(|| panic!("no {words} in {totals}"));
    let digits: String = rest
        .trim_start()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits
        .parse()
        .unwrap_or_else(|e| panic!("{words}: {e}: {totals}"))
}

#[test]
fn sigterm_under_load_drains_and_accounts_for_every_packet() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::allow_all());
    let _iperf = server.iperf_server(lab.dir());
    let line = format!("iperf3 --client {} --time 30 --bidir", server.v4);
    let _load = client.spawn(lab.dir(), "load", &line);
    let busy = wait_for("the load is on", || {
        let now = node.counters();
        if now.rx_packets > 10_000 {
            Ok(now)
        } else {
            Err(format!("{now:?}"))
        }
    });
    let said = node.stop();
    let (taken, made) = (total(&said, "packets in"), total(&said, "made"));
    assert!(taken > busy.rx_packets, "{said}");
    assert_eq!(
        taken + made,
        total(&said, "out") + total(&said, "dropped"),
        "{said}"
    );
    assert_eq!(total(&said, "mbufs in use"), 0, "{said}");
}

#[test]
fn sigterm_sets_both_sides_of_a_pair_down_and_leaves_the_interfaces_as_they_were() {
    let mut lab = Lab::new();
    let (a, b) = lab.raw_pair("lan", "wan");
    let flags = |host: &Host| lab.firewall.link(&host.near).unwrap()["flags"].to_string();
    let before = [flags(&a), flags(&b)];
    for propagation in [true, false] {
        let node = lab.start(Config::allow_all().transparent(&format!("link_propagation = {propagation}")));
        wait_passes(&a, &b, 1000);
        node.finish();
        if propagation {
            // A firewall that is gone is a cut cable: neighbours must see it.
            wait_carrier(&a, false);
            wait_carrier(&b, false);
            for host in [&a, &b] {
                lab.firewall.ip(&format!("link set dev {} up", host.near));
            }
        } else {
            assert_eq!([flags(&a), flags(&b)], before);
        }
        for host in [&a, &b] {
            let link = lab.firewall.link(&host.near).unwrap();
            assert!(
                link["xdp"].is_null(),
                "an XDP program is left on {}: {link}",
                host.near
            );
        }
    }
    // And a new node takes the same ports again.
    let _node: Node = lab.start(Config::allow_all());
    wait_passes(&a, &b, 1000);
}
