//! What is wrong with a configuration: every error in one run, each with its place and a hint.

use std::collections::BTreeMap;

use haechi::base::{Generation, PairId};
use haechi::config::{self, Diagnostic, RuleIds};
use proptest::prelude::*;

/// A good file of which each case replaces a line.
const GOOD: &str = r#"version = 1
[node]
mode = "transparent"
workers = "1"
burst = 32
[[port]]
name = "wan"
device = "vdev:net_null0"
zone = "untrust"
peer = "lan"
[[port]]
name = "lan"
device = "vdev:net_null1"
zone = "trust"
peer = "wan"
[address_sets]
servers = ["10.0.0.0/24", "2001:db8::/64"]
[service_sets]
web = ["tcp/80", "tcp/443"]
[[rule]]
name = "out"
from = "trust"
to = "untrust"
source = ["10.0.0.0/8"]
service = ["@web"]
action = "allow"
"#;

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

fn findings(text: &str) -> Vec<String> {
    let files = BTreeMap::from([("fw".into(), text.to_owned())]);
    config::check_files(&files, "fw".as_ref())
        .diagnostics
        .iter()
        .map(Diagnostic::one_line)
        .collect()
}

/// With `line` replaced by `by` there is exactly one finding, at this place and beginning like this.
fn one(line: &str, by: &str, expected: &str) {
    assert_eq!(GOOD.matches(&format!("\n{line}\n")).count(), 1, "{line}");
    let found = findings(&GOOD.replacen(&format!("\n{line}\n"), &format!("\n{by}\n"), 1));
    assert!(
        found.len() == 1 && found[0].starts_with(expected),
        "{by}\nexpected {expected}\nfound {found:#?}"
    );
    assert!(found[0].contains("; help: "), "{found:?}");
}

#[test]
fn the_good_file_is_good() {
    assert_eq!(findings(GOOD), [""; 0]);
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
fn a_file_wrong_in_five_places_has_five_errors() {
    let text = GOOD
        .replace("burst = 32", "burst = 65")
        .replace("peer = \"lan\"", "peer = \"lam\"")
        .replace("peer = \"wan\"", "peer = \"wan\"\nmut = 1500")
        .replace("from = \"trust\"", "from = \"trsut\"")
        .replace("10.0.0.0/8", "10.0.0.1/8");
    assert_eq!(
        findings(&text),
        [
            "fw:5:9: error: `node.burst` is out of range; help: a whole number from 1 to 64",
            "fw:10:8: error: there is no port \"lam\"; help: did you mean `lan`?",
            "fw:16:1: error: unknown key `port.mut`; help: did you mean `mtu`?",
            "fw:23:8: error: there is no zone \"trsut\"; help: did you mean `trust`?",
            "fw:25:11: error: `10.0.0.1/8` has host bits set; \
             help: the prefix is \"10.0.0.0/8\", the single address \"10.0.0.1\"",
        ]
    );
}

#[test]
fn wrong_keys_and_types() {
    one(
        "burst = 32",
        "bursts = 32",
        "fw:5:1: error: unknown key `node.bursts`; help: did you mean `burst`?",
    );
    one(
        "burst = 32",
        "\tburst = '32'",
        "fw:5:10: error: `node.burst`: expected an integer, found a string; help: without",
    );
    one(
        "burst = 32",
        "burst = 3.5",
        "fw:5:9: error: `node.burst`: expected an integer, found a float",
    );
    one(
        "burst = 32",
        "burst = 99999999999999999999",
        "fw:5:9: error: `node.burst` is out of range",
    );
    one("burst = 32", "name = \"ä\"; x = 1", "fw:5:11: error: ");
    one(
        "burst = 32",
        "idle = 'lazy'",
        "fw:5:8: error: `node.idle` cannot be \"lazy\"; help: it is one of: adaptive, poll",
    );
    one(
        "burst = 32",
        "hugepages = 'no'",
        "fw:5:13: error: `node.hugepages`: expected true or false, found a string",
    );
    one(
        "burst = 32",
        "name = 2026-01-01",
        "fw:5:8: error: `node.name`: expected a string, found a date",
    );
    one(
        "burst = 32",
        "eal_args = '-x'",
        "fw:5:12: error: `node.eal_args`: expected an array of strings",
    );
    one(
        "[node]",
        "[[node]]",
        "fw:2:1: error: `node`: expected a table, found an array; help: there is one of it",
    );
    one(
        "[service_sets]",
        "[service_sets]\nx = 'tcp'",
        "fw:19:5: error: `service_sets.x`: expected an array",
    );
    one(
        "action = \"allow\"",
        "action = \"permit\"",
        "fw:26:10: error: `rule.action` cannot be \"permit\"",
    );
    one(
        "action = \"allow\"",
        "",
        "fw:20:1: error: `action` is missing in `rule`; help: add `action = \"allow\"`",
    );
    one(
        "mode = \"transparent\"",
        "",
        "fw:2:1: error: `mode` is missing in `node`",
    );
    one(
        "action = \"allow\"",
        "action = \"allow\"\n[stateles]",
        "fw:27:2: error: unknown key `stateles`",
    );
}

#[test]
fn syntax_errors_come_with_the_others() {
    let found = findings(
        &GOOD
            .replace("burst = 32", "burst = = 2")
            .replace("\"10.0.0.0/8\"", "\"10.0.0.0/33\""),
    );
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("fw:5:9: error: "), "{found:#?}");
    assert!(
        found[1].starts_with("fw:24:11: error: `/33` is not a prefix length from 0 to 32"),
        "{found:#?}"
    );
    one(
        "burst = 32",
        "burst = 32\nburst = 32",
        "fw:6:1: error: `burst` is set twice",
    );
    one(
        "[service_sets]",
        "[node]\n[service_sets]",
        "fw:18:2: error: `node` is set twice",
    );
}

#[test]
fn the_node() {
    one(
        "workers = \"1\"",
        "workers = \"1-2\"",
        "fw:4:11: error: more than one worker is not supported yet",
    );
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

/// A name that a filter or an option would read as something else cannot be used once it is there.
#[test]
fn names_that_filters_could_not_name() {
    for (name, problem, help) in [
        ("a,b", "has a `,` in it, which ends a name in a filter", "\"a-b\""),
        ("a=b", "has a `=` in it, which ends a name in a filter", "\"a-b\""),
        ("hi, all", "has a `,` in it", "\"hi-all\""),
        (
            "hi all",
            "has a blank in it, which ends a name in a filter",
            "\"hi-all\"",
        ),
        ("hi\u{a0}all", "has a blank in it", "\"hi-all\""),
        ("it's", "has a quote in it", "\"it-s\""),
        ("a`b", "has a quote in it", "\"a-b\""),
        ("a\\\"b", "has a quote in it", "\"a-b\""),
        ("a\\tb", "has control characters in it", "\"a-b\""),
        (" a ", "has blanks around it", "\"a\""),
        (",", "has a `,` in it", "write another name"),
        ("any", "cannot be \"any\"", "write another name"),
    ] {
        let place = |line: u32, kind: &str| format!("fw:{line}:8: error: the name of a {kind} {problem}");
        for (text, expected) in [
            (
                GOOD.replace("name = \"out\"", &format!("name = \"{name}\"")),
                place(21, "rule"),
            ),
            (format!("{GOOD}[[zone]]\nname = \"{name}\"\n"), place(28, "zone")),
            (
                GOOD.replace("\"lan\"\n", &format!("\"{name}\"\n")),
                place(12, "port"),
            ),
            (
                GOOD.replace("servers = ", &format!("\"{name}\" = ")),
                place(17, "address set").replace(":8:", ":1:"),
            ),
        ] {
            let found = findings(&text);
            let found = found.iter().find(|f| f.starts_with(&expected));
            let found = found.unwrap_or_else(|| panic!("no {expected} in {:#?}", findings(&text)));
            assert!(found.contains(help), "{found}");
        }
    }
    one(
        "name = \"out\"",
        "name = \"implicit_drop\"",
        "fw:21:8: error: the name of a rule cannot be \"implicit_drop\", which counts what no rule matched",
    );
    // What only looks odd is fine, and so is a node's name, which is only shown.
    for name in [
        "a-b_c.d",
        "ÄÖ",
        "r!",
        "10%",
        "a/b",
        "a+b&c;d",
        "(x)",
        "implicit_drop2",
    ] {
        let text = GOOD.replace("name = \"out\"", &format!("name = \"{name}\""));
        assert_eq!(findings(&text), [""; 0], "{name}");
        let filter: haechi::control::SessionFilter = format!("rule={name},x from!={name}").parse().unwrap();
        assert!(filter.pairs().eq([
            ("rule".to_owned(), &*format!("{name},x")),
            ("from!".to_owned(), name)
        ]));
    }
    let text = GOOD.replace("burst = 32", "burst = 32\nname = \"Bob's firewall, 2nd floor\"");
    assert_eq!(findings(&text), [""; 0]);
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

#[test]
fn sets() {
    one(
        "servers = [\"10.0.0.0/24\", \"2001:db8::/64\"]",
        "servers = []",
        "fw:17:11: error: address set \"servers\" is empty",
    );
    one(
        "servers = [\"10.0.0.0/24\", \"2001:db8::/64\"]",
        "x = [\"any\"]",
        "fw:17:6: error: \"any\" in address set \"x\"",
    );
    one(
        "servers = [\"10.0.0.0/24\", \"2001:db8::/64\"]",
        "a = [\"@b\"]\nb = [\"@c\", \"::1\"]\nc = [\"@a\"]",
        "fw:17:1: error: address set \"a\" contains itself: @a > @b > @c > @a",
    );
    one(
        "web = [\"tcp/80\", \"tcp/443\"]",
        "web = [\"@web\"]",
        "fw:19:1: error: service set \"web\" contains itself",
    );
    one(
        "web = [\"tcp/80\", \"tcp/443\"]",
        "web = [\"@servers\"]",
        "fw:19:8: error: there is no service set \"servers\"",
    );
    one(
        "service = [\"@web\"]",
        "service = [\"@wbe\"]",
        "fw:25:12: error: there is no service set \"wbe\"; help: did you mean `web`?",
    );
    one(
        "web = [\"tcp/80\", \"tcp/443\"]",
        "web = [\"tcp/80\"]\n'@x' = [\"tcp\"]",
        "fw:20:1: error: the name of a service set cannot start",
    );
    // Each member of two sets that name each other's members, without a circle.
    one(
        "servers = [\"10.0.0.0/24\", \"2001:db8::/64\"]",
        "a = [\"@b\", \"@c\"]\nb = [\"@c\"]\nc = [\"::ffff:1.2.3.4\"]",
        "fw:19:6: error: `::ffff:1.2.3.4` is an IPv4-mapped address",
    );
}

#[test]
fn values_of_rules() {
    let service = "service = [\"@web\"]";
    for (member, message) in [
        ("tcp/65536", "`65536` is not a port from 0 to 65535"),
        (
            "tcp/90-80",
            "the range `90-80` is reversed; help: write \"80-90\"",
        ),
        ("tpc/80", "`tpc` is not a service; help: did you mean `tcp`?"),
        (
            "icmp/echo-requst",
            "`echo-requst` is neither the name nor the number of a type; help: did you mean `echo-request`?",
        ),
        (
            "icmpv6/256",
            "`256` is neither the name nor the number of a type; help: a number from 0 to 255",
        ),
        ("proto/256", "`256` is not an IP protocol number from 0 to 255"),
        ("proto", "`proto` needs a number"),
        ("@", "`@` needs the name of a set"),
    ] {
        one(
            service,
            &format!("service = [\"{member}\"]"),
            &format!("fw:25:12: error: {message}"),
        );
    }
    let source = "source = [\"10.0.0.0/8\"]";
    one(
        source,
        "source = [\"10.0.0\"]",
        "fw:24:11: error: `10.0.0` is not an IPv4 or IPv6 address",
    );
    one(
        source,
        "source = [\"2001:db8::1/64\"]",
        "fw:24:11: error: `2001:db8::1/64` has host bits set; help: the prefix is \"2001:db8::/64\"",
    );
    one(
        source,
        "source = [\"@server\"]",
        "fw:24:11: error: there is no address set \"server\"; help: did you mean `servers`?",
    );
    one(
        source,
        "source = []",
        "fw:24:10: error: `rule.source` is empty and would match nothing",
    );
    one(
        source,
        "source = [\"any\", \"10.0.0.0/8\"]",
        "fw:24:11: error: `rule.source` has \"any\" beside other members",
    );
    one(
        "to = \"untrust\"",
        "to = \"wan\"",
        "fw:23:6: error: there is no zone \"wan\"; help: this is a port",
    );
    one(
        "action = \"allow\"",
        "action = \"allow\"\ntimeouts = { udp = \"1s\" }",
        "fw:27:14: error: unknown key `rule.timeouts.udp`",
    );
    for (span, message) in [
        ("30", "`30` has no unit; help: write `30s` for seconds"),
        (
            "5y",
            "`y` is not a unit of time; help: durations are written like",
        ),
        ("2 hours", "a duration has no blanks in it; help: write `2h`"),
        (" 2h 4 min ", "a duration has no blanks in it; help: write `2h4m`"),
        (
            "1 week",
            "a duration has no blanks in it; help: durations are written like",
        ),
        (
            "4m 2h",
            "a duration has no blanks in it; help: durations are written like",
        ),
        ("90seconds", "`seconds` is not a unit of time; help: write `90s`"),
        ("2H", "`H` is not a unit of time; help: write `2h`"),
        ("0s", "a duration must be longer than nothing"),
        ("1s1h", "units go from the largest to the smallest"),
        ("300d", "longer than 200 days"),
    ] {
        let line = format!("action = \"allow\"\ntimeouts = {{ icmp = \"{span}\" }}");
        one(
            "action = \"allow\"",
            &line,
            &format!("fw:27:21: error: {message}"),
        );
    }
    for (rate, message) in [
        ("100", "a rate is a number, a slash"),
        ("1/m", "a rate is per second"),
        ("x/s", "`x` is not a whole"),
    ] {
        one(
            "burst = 32",
            &format!("[policy]\nreject_rate = \"{rate}\""),
            &format!("fw:6:15: error: {message}"),
        );
    }
}

#[test]
fn rules_that_cannot_match() {
    one(
        "source = [\"10.0.0.0/8\"]",
        "source = [\"10.0.0.0/8\"]\ndestination = [\"::/0\"]",
        "fw:25:15: error: this rule can never match: the sources are IPv4 and the destinations IPv6",
    );
    one(
        "service = [\"@web\"]",
        "service = [\"icmpv6\"]",
        "fw:25:11: error: this rule can never match: the source addresses are IPv4, the services are not",
    );
    one(
        "service = [\"@web\"]",
        "service = [\"@web\", \"icmp\"]\nsource_ports = [\"1-9\"]",
        "fw:26:16: error: rule \"out\" asks for source ports of services that have none",
    );
    one(
        "service = [\"@web\"]",
        "source_ports = [\"1-9\"]",
        "fw:25:16: error: rule \"out\" asks for source ports",
    );
    one(
        "name = \"out\"",
        "name = \"out\"\naction = \"drop\"\nservice = \"udp\"\n[[rule]]\nname = \"out\"",
        "fw:25:8: error: rule name \"out\" is used twice",
    );
}

#[test]
fn keys_of_later_versions() {
    one(
        "action = \"allow\"",
        "action = \"allow\"\nhelper = \"ftp\"",
        "fw:27:1: error: `rule.helper` is not supported yet; \
         help: remove the key; a later version has application-level gateways",
    );
}

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
    let good = "[[zone]]\nname = \"trust\"\nnetworks = [\"10.0.0.0/8\", \"@servers\"]\nantispoof = true\nreserve = \"60%\"\n\
        [[zone]]\nname = \"untrust\"\nnetworks = \"10.9.0.0/16\"\nreserve = \"40%\"\n[address_sets]";
    assert_eq!(findings(&GOOD.replace("[address_sets]", good)), [""; 0]);
}

#[test]
fn limits_and_pressure() {
    let rule = |line: &str, expected: &str| {
        one(
            "action = \"allow\"",
            &format!("action = \"allow\"\n{line}"),
            expected,
        );
    };
    rule(
        "max_sessions = 0",
        "fw:27:16: error: `rule.max_sessions` is out of range",
    );
    rule(
        "max_sessions_per_source = \"7\"",
        "fw:27:27: error: `rule.max_sessions_per_source`: expected an integer",
    );
    rule(
        "new_sessions_per_source = \"0/s\"",
        "fw:27:27: error: `rule.new_sessions_per_source` is 0: nobody could open a session",
    );
    rule(
        "new_sessions_per_source = \"5/m\"",
        "fw:27:27: error: a rate is per second: `/s`, not `/m`",
    );
    for key in [
        "max_sessions = 1",
        "max_sessions_per_source = 1",
        "new_sessions_per_source = \"1/s\"",
    ] {
        let name = key.split(' ').next().unwrap_or_default();
        one(
            "action = \"allow\"",
            &format!("action = \"drop\"\n{key}"),
            &format!(
                "fw:27:{}: warning: rule \"out\" makes no sessions, its `{name}` is never reached",
                name.len() + 4
            ),
        );
    }
    let conntrack = |lines: &str, expected: &str| {
        one(
            "[address_sets]",
            &format!("[conntrack]\n{lines}\n[address_sets]"),
            expected,
        );
    };
    conntrack(
        "adaptive_end = \"60%\"",
        "fw:17:16: error: `conntrack.adaptive_end` (60%) is not above `adaptive_start` (60%)",
    );
    conntrack(
        "adaptive_start = \"120%\"",
        "fw:17:18: error: `conntrack.adaptive_end` (120%) is not above `adaptive_start` (120%)",
    );
    conntrack(
        "adaptive_start = 60",
        "fw:17:18: error: `conntrack.adaptive_start`: expected a string, found an integer; help: in quotes: \"60\"",
    );
    conntrack("adaptive_end = \"1001%\"", "fw:17:16: error: more than 1000%");
}

#[test]
fn warnings() {
    one(
        "from = \"trust\"",
        "from = \"untrust\"",
        "fw:23:6: warning: rule \"out\" can never match: no pair of ports joins",
    );
    one(
        "action = \"allow\"",
        "action = \"drop\"\ntimeouts = { icmp = \"1s\" }",
        "fw:27:12: warning: rule \"out\" makes no sessions",
    );
    one(
        "[address_sets]",
        "[[zone]]\nname = \"dmz\"\n[address_sets]",
        "fw:17:8: warning: no port is in zone \"dmz\"",
    );
    for (service, finding) in [
        (
            "icmp/3/4",
            "no rule is asked about ICMP errors; help: remove it: an error belongs to the session that it is about",
        ),
        (
            "icmpv6/packet-too-big",
            "no rule is asked about ICMP errors; help: remove it",
        ),
        (
            "icmp/echo-reply",
            "it answers a request; help: name the request instead: its replies pass with the session",
        ),
        (
            "icmpv6/129/0",
            "it answers a request; help: name the request instead",
        ),
        (
            "icmpv6/135",
            "no rule is asked about neighbour discovery and MLD; help: remove it: they cross by themselves",
        ),
    ] {
        let finding = format!("warning: \"{service}\" never opens a session: {finding}");
        one(
            "service = [\"@web\"]",
            &format!("service = [\"@web\", \"{service}\"]"),
            &format!("fw:25:20: {finding}"),
        );
        // In a set: there, and not where it is used.
        one(
            "web = [\"tcp/80\", \"tcp/443\"]",
            &format!("web = [\"{service}\", \"tcp/443\"]"),
            &format!("fw:19:8: {finding}"),
        );
    }
    let second = |rest: &str| {
        format!(
            "action = \"allow\"\n[[rule]]\nname = \"second\"\naction = \"drop\"\nfrom = \"trust\"\n{rest}"
        )
    };
    let covered = "fw:28:8: warning: rule \"second\" can never match: \"out\" covers it entirely \
                   (the earlier rule is here: fw:21:8); help: move it up, or remove it";
    one(
        "action = \"allow\"",
        &second("to = 'untrust'\nsource = ['10.9.0.0/16']\nservice = ['tcp/443']"),
        covered,
    );
    // Each wider than the first rule in one property alone.
    for rest in [
        "to = 'untrust'\nsource = ['10.9.0.0/16', '192.0.2.1']\nservice = ['tcp/443']",
        "to = 'untrust'\nsource = ['10.9.0.0/16']\nservice = ['tcp/442-443']",
        "to = 'untrust'\nsource = ['0.0.0.0/0']\nservice = ['tcp/443']",
        "source = ['10.9.0.0/16']\nservice = ['tcp/443']",
        "to = 'untrust'\nsource = ['10.9.0.0/16']",
    ] {
        let text = GOOD.replace("\naction = \"allow\"\n", &format!("\n{}\n", second(rest)));
        assert_eq!(findings(&text), [""; 0], "{rest}");
    }
    // A rule that is switched off covers nothing.
    let text = GOOD.replace(
        "\naction = \"allow\"\n",
        &format!(
            "\nenabled = false\n{}\n",
            second("to = 'untrust'\nsource = ['10.9.0.0/16']\nservice = ['tcp/443']")
        ),
    );
    assert_eq!(findings(&text), [""; 0]);
    // Warnings refuse nothing.
    assert!(config::load_text("fw", &GOOD.replace("from = \"trust\"", "from = \"untrust\"")).is_ok());
}

#[test]
fn the_terminal_form_shows_the_line_and_underlines_the_place() {
    let errors = config::load_text("fw", &GOOD.replace("peer = \"lan\"", "\tpeer = \"wän\"")).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "fw:10:9: error: there is no port \"wän\"\n   \
         |\n10 |  peer = \"wän\"\n   \
         |         ^^^^^\n   \
         = help: did you mean `wan`?\n"
    );
}

#[test]
fn a_file_that_is_not_there_is_one_clear_error() {
    let errors = config::load("/nonexistent/fw.toml".as_ref()).unwrap_err();
    assert_eq!(errors.errors().count(), 1);
    assert!(
        errors
            .to_string()
            .starts_with("/nonexistent/fw.toml: error: cannot read it: No such file"),
        "{errors}"
    );
}

proptest! {
    /// Any text has a value or an error, never a panic; places lie in the text.
    #[test]
    fn garbage_is_refused_in_words(text in "[a-z\\[\\]=\"'\n .0-9/@äß#{},-]{0,200}") {
        check_places(&text)?;
    }

    /// A good file with a piece cut out or doubled.
    #[test]
    fn damaged_files_are_refused_in_words(at in 0_usize..600, len in 0_usize..40, double: bool) {
        let at = at.min(GOOD.len());
        let end = (at + len).min(GOOD.len());
        let middle = if double { &GOOD[at..end] } else { "" };
        let text = format!("{}{middle}{middle}{}", &GOOD[..at], &GOOD[end..]);
        check_places(&text)?;
    }
}

fn check_places(text: &str) -> Result<(), TestCaseError> {
    let Err(found) = config::load_text("fw", text) else {
        return Ok(());
    };
    prop_assert!(found.has_errors());
    let lines: Vec<&str> = text.split('\n').collect();
    for finding in found.iter() {
        let line = lines[finding.place.line - 1];
        prop_assert!(finding.place.column <= line.chars().count() + 1, "{finding}");
    }
    Ok(())
}

#[test]
fn logs_have_files_of_their_own_and_rules_log_what_they_can() {
    let action = "action = \"allow\"";
    let files = "[log]\nsessions = \"/s\"\nalerts = \"/a\"";
    let rule =
        |action: &str, log: &str, files: &str| format!("action = \"{action}\"\nlog = \"{log}\"\n{files}");
    for (by, expected) in [
        (
            rule("allow", "end", ""),
            "fw:27:7: error: rule \"out\" logs sessions, and there is no file for them",
        ),
        (
            rule("drop", "alert", "[log]\nsessions = \"/s\""),
            "fw:27:7: error: rule \"out\" logs alerts, and there is no file",
        ),
        (
            rule("allow", "alert", files),
            "fw:27:7: error: rule \"out\" allows, and alerts are for what a rule drops",
        ),
        (
            rule("drop", "start", files),
            "fw:27:7: error: rule \"out\" makes no sessions that could be logged",
        ),
        (
            rule("reject", "both", files),
            "fw:27:7: error: rule \"out\" makes no sessions that could be logged",
        ),
        (
            rule("allow", "all", files),
            "fw:27:7: error: `rule.log` cannot be \"all\"",
        ),
        (
            rule("allow", "none", "[log]\nalerts = \"\""),
            "fw:29:10: error: `log.alerts` is not the path of a file",
        ),
        (
            rule("allow", "none", "[log]\nalerts = \"/a/\""),
            "fw:29:10: error: `log.alerts` is not the path of a file",
        ),
        (
            rule("allow", "none", "[log]\nsessions = \"/a\"\nalerts = \"/a\""),
            "fw:30:10: error: `log.alerts` is the file of `log.sessions`",
        ),
    ] {
        one(action, &by, expected);
    }
    for (action_word, log) in [
        ("allow", "start"),
        ("allow", "both"),
        ("drop", "alert"),
        ("reject", "alert"),
        ("drop", "none"),
    ] {
        let text = GOOD.replacen(action, &rule(action_word, log, files), 1);
        assert_eq!(findings(&text), [""; 0], "{action_word} {log}");
    }
}

#[test]
fn a_log_stands_beside_its_file() {
    let files = BTreeMap::from([(
        "/etc/haechi/fw".into(),
        format!("{GOOD}[log]\nsessions = \"log/s\"\nalerts = \"/a\"\n"),
    )]);
    let config = config::check_files(&files, "/etc/haechi/fw".as_ref())
        .config
        .unwrap();
    assert_eq!(
        config.log.sessions.unwrap(),
        std::path::Path::new("/etc/haechi/log/s")
    );
    assert_eq!(config.log.alerts.unwrap(), std::path::Path::new("/a"));
}
