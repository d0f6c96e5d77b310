//! nmap through the firewall sees what a stateful firewall shows: what a rule allows, what one rejects, and nothing else,
//! however it asks.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's way to fail")]

mod lab;

use std::collections::BTreeMap;
use std::net::IpAddr;

use lab::{Config, Host, Lab};

/// 8080: somebody listens to TCP; 8081: allowed, nobody listens; 23: TCP is rejected; 25: no rule.
const RULES: &str = r#"
[[rule]]
name = "web"
from = "lan"
service = ["tcp/8080-8081", "udp/8080-8081"]
action = "allow"
[[rule]]
name = "telnet"
from = "lan"
service = ["tcp/23"]
action = "reject"
"#;
const PORTS: [u16; 4] = [23, 25, 8080, 8081];

/// What nmap says of [`PORTS`] in this order.
fn scan(from: &Host, to: IpAddr, how: &str) -> Vec<String> {
    let list = PORTS.map(|port| port.to_string()).join(",");
    let v6 = if to.is_ipv6() { "-6" } else { "" };
    let report = from.ns.exec(&format!(
        "nmap {v6} -n -Pn -T4 --max-retries 3 {how} -p {list} -oG - {to}"
    ));
    let ports = report
        .lines()
        .find_map(|line| line.split("Ports: ").nth(1))
        .unwrap_or_else(|| panic!("{how}: {report}"));
    let states: BTreeMap<u16, String> = ports
        .split(", ")
        .map(|entry| {
            let mut fields = entry.trim().split('/');
            let port = fields.next().unwrap().parse().unwrap();
            (port, fields.next().unwrap().to_owned())
        })
        .collect();
    PORTS.map(|port| states[&port].clone()).to_vec()
}

#[test]
fn nmap_sees_what_the_rules_say_and_nothing_else() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    // What is left of tiny fragments waits for the rest in vain, and not for long.
    let conntrack = "max_sessions = 16384\n[conntrack.fragments]\ntimeout = \"1s\"\n";
    let node = lab.start(Config::new(RULES).conntrack(conntrack));
    let _listener = server.listen(8080);
    let asked = ["closed", "filtered", "open", "closed"];
    let silent = ["filtered"; 4];
    let unsure = ["open|filtered"; 4];
    for (how, expected, reason) in [
        // A connection, a SYN alone, and one from a port that some firewalls let through.
        ("-sT", asked, None),
        ("-sS", asked, None),
        ("-sS -g 53", asked, None),
        // A reject rule answers whatever belongs to no connection, as a host would.
        (
            "-sA",
            ["unfiltered", "filtered", "filtered", "filtered"],
            Some("no_session"),
        ),
        (
            "-sW",
            ["closed", "filtered", "filtered", "filtered"],
            Some("no_session"),
        ),
        // No TCP sends these.
        ("-sF", unsure, Some("tcp_bad_flags")),
        ("-sN", unsure, Some("tcp_bad_flags")),
        ("-sX", unsure, Some("tcp_bad_flags")),
        // A SYN that no receiver would answer, in fragments too short for its header, and with data (and no Fast Open).
        ("-sS --badsum", silent, Some("bad_checksum")),
        ("-sS -f", silent, Some("malformed")),
        (
            "-sS --data-length 30",
            ["closed", "filtered", "filtered", "filtered"],
            Some("tcp_out_of_window"),
        ),
    ] {
        let before = node.counters();
        assert_eq!(scan(&client, server.v4, how), expected, "{how}");
        if let Some(reason) = reason {
            assert!(
                node.balance().drop_of(reason) > before.drop_of(reason),
                "{how}: {reason}"
            );
        }
    }
    assert_eq!(scan(&client, server.v6, "-sS"), asked);
    // Fragments that are long enough are a packet like any other: where nobody listens, the host says so.
    let before = node.counters();
    assert_eq!(
        scan(&client, server.v4, "-sU --mtu 24 --data-length 60"),
        ["open|filtered", "open|filtered", "closed", "closed"]
    );
    let after = node.balance();
    // 68 bytes in pieces of 24.
    assert!(after.fragments_reassembled >= before.fragments_reassembled + 4);
    assert_eq!(
        after.fragments - before.fragments,
        3 * (after.fragments_reassembled - before.fragments_reassembled)
    );
    // Nothing is open the other way, from no port.
    for how in ["-sS", "-sS -g 53", "-sA", "-sS -g 8080"] {
        assert_eq!(scan(&server, client.v4, how), silent, "{how}");
    }
    for how in ["-sF", "-sN", "-sX"] {
        assert_eq!(scan(&server, client.v4, how), unsure, "{how}");
    }
}
