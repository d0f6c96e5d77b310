//! Zones: networks, antispoofing, reserves.

use crate::good::{GOOD, findings, one};

/// A zone before the sets, its lines from 18 on.
fn zone(lines: &str, expected: &str) {
    one(
        "[address_sets]",
        &format!("[[zone]]\nname = \"trust\"\n{lines}\n[address_sets]"),
        expected,
    );
}

#[test]
fn zones() {
    zone(
        "networks = [\"10.0.0.1/8\"]",
        "fw:18:13: error: `10.0.0.1/8` has host bits set",
    );
    zone(
        "networks = [\"@nowhere\"]",
        "fw:18:13: error: there is no address set \"nowhere\"",
    );
    zone(
        "networks = \"any\"",
        "fw:18:12: error: `any` is not an IPv4 or IPv6 address",
    );
    zone(
        "antispoof = true",
        "fw:18:13: error: zone \"trust\" has `antispoof`, but no zone has `networks`; help: write what belongs behind a zone",
    );
    zone(
        "antispoof = true\nnetworks = [\"10.0.0.0/8\"]",
        "fw:19:12: warning: zone \"trust\" lists no IPv6 networks: with `antispoof` all IPv6 packets from it are dropped; \
         help: add its IPv6 networks",
    );
    zone(
        "networks = [\"10.0.0.0/8\"]\n[[zone]]\nname = \"untrust\"\nnetworks = [\"192.0.2.1\", \"10.0.0.0/8\"]",
        "fw:21:12: error: 10.0.0.0/8 belongs behind zone \"trust\" and behind \"untrust\" \
         (the other zone's networks are here: fw:18:12); help: keep it in one of them",
    );
    zone(
        "reserve = \"1\"",
        "fw:18:11: error: `1` has no unit; help: write `1%`",
    );
    zone(
        "reserve = \"100.5%\"",
        "fw:18:11: error: a reserve of 100.5% is more than the whole session table; help: write smaller reserves",
    );
    zone(
        "reserve = \"60%\"\n[[zone]]\nname = \"untrust\"\nreserve = \"40.01%\"",
        "fw:21:11: error: the zones' reserves up to this one are 100.01% of the session table",
    );
    // Nested, in a set, and up to the whole table: all right.
    zone(
        "reserve = \"100%\"",
        "fw:18:11: warning: the zones' reserves are the whole session table: zone \"untrust\" can open no session; \
         help: write smaller reserves, or one for that zone",
    );
    let good = "[[zone]]\nname = \"trust\"\nnetworks = [\"10.0.0.0/8\", \"@servers\"]\nantispoof = true\nreserve = \"60%\"\n\
        [[zone]]\nname = \"untrust\"\nnetworks = \"10.9.0.0/16\"\nreserve = \"40%\"\n[address_sets]";
    assert_eq!(findings(&GOOD.replace("[address_sets]", good)), [""; 0]);
}
