//! Real clients and real servers through the firewall: what rules allow works at full function, the rest is refused in
//! the way they say.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use std::io::ErrorKind;
use std::time::Duration;

use lab::config::Pmd;
use lab::host::Kind;
use lab::{Config, Host, Lab, Netns, traffic, wait_for};

/// The client's side may reach these services; ports 23 are refused aloud, the rest in silence.
const RULES: &str = r#"
[service_sets]
web = ["tcp/8080"]

[[rule]]
name = "ping"
from = "lan"
to = "wan"
service = ["icmp/echo-request", "icmpv6/128"]
action = "allow"

[[rule]]
name = "web"
from = "lan"
to = "wan"
service = ["@web"]
action = "allow"

[[rule]]
name = "iperf"
from = "lan"
to = "wan"
service = ["tcp/5201", "udp/5201"]
action = "allow"

[[rule]]
name = "no-telnet"
from = "lan"
to = "wan"
service = ["tcp/23", "udp/23"]
action = "reject"
"#;

#[test]
fn ping_curl_and_iperf3_work_over_ipv4_and_ipv6() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(RULES));
    let start = node.counters();
    let _web = server.web_server(lab.dir(), lab.dir(), 8080);
    lab.file("page", "as it stands on the server\n");
    let _iperf = server.iperf_server(lab.dir());
    for address in [server.v4, server.v6] {
        client.ping(address, 5);
        let url = match address {
            std::net::IpAddr::V4(v4) => format!("http://{v4}:8080/page"),
            std::net::IpAddr::V6(v6) => format!("http://[{v6}]:8080/page"),
        };
        assert_eq!(client.curl(&url), "as it stands on the server\n");
        for direction in ["", "--reverse"] {
            let report = client.iperf(address, &format!("--bytes 20M {direction}"));
            let sent = report["end"]["sum_sent"]["bytes"].as_u64().unwrap();
            assert!(sent >= 20_000_000, "{direction} {address}: {report}");
            println!(
                "TCP {address} {direction}: {:.0} Mbit/s, {} retransmissions",
                report["end"]["sum_sent"]["bits_per_second"].as_f64().unwrap() / 1e6,
                report["end"]["sum_sent"]["retransmits"]
            );
            // A busy machine may lose datagrams, in iperf3's socket at least; the node's own drops are checked below.
            let report = client.iperf(
                address,
                &format!("--udp --bitrate 10M --length 1200 --bytes 500K {direction}"),
            );
            let sum = &report["end"]["sum"];
            let [packets, lost] = ["packets", "lost_packets"].map(|key| sum[key].as_u64().unwrap());
            assert!(
                packets > 400 && lost < packets / 2,
                "{direction} {address}: {sum}"
            );
        }
    }
    let iperf = node.api.sessions("rule=iperf");
    for protocol in ["tcp", "udp"] {
        for (from, to) in [(client.v4, server.v4), (client.v6, server.v6)] {
            let found = iperf.iter().any(|s| {
                s["protocol"] == protocol
                    && s["source"] == from.to_string()
                    && s["destination"] == to.to_string()
            });
            assert!(found, "no {protocol} session from {from} to {to} in {iperf:?}");
        }
    }
    let web = node.api.rule("web");
    assert!(
        web["packets"].as_u64() > Some(10) && web["bytes"].as_u64() > Some(1000),
        "{web}"
    );
    assert_eq!(node.balance().drops, start.drops);
}

#[test]
fn a_rejected_port_is_refused_at_once_over_ipv4_and_ipv6() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(RULES));
    // Something listens there: it is the firewall that refuses.
    let _telnet = server.listen(23);
    let _datagrams = server.udp(23);
    for address in [server.v4, server.v6] {
        let before = node.counters();
        let attempt = client.connect_within(address, 23, Duration::from_secs(10));
        assert_eq!(
            attempt.unwrap_err().kind(),
            ErrorKind::ConnectionRefused,
            "{address}"
        );

        let socket = client.udp(0);
        socket.connect((address, 23)).unwrap();
        socket.send(b"anybody there?").unwrap();
        let error = socket.recv(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");

        // At once: the refused SYN is the only one, the client has not had to send it again.
        let after = node.balance();
        assert_eq!(after.drop_of("policy") - before.drop_of("policy"), 2);
        assert_eq!(after.originated - before.originated, 2);
    }
    assert_eq!(node.counters().sessions_created, 0);
    assert_eq!(node.api.rule("no-telnet")["packets"], 4);
}

#[test]
fn a_blocked_port_and_an_unsolicited_connection_get_no_answer() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(RULES));
    let start = node.counters();
    let (inside, outside) = (client.listen(8080), server.listen(25));
    let refused = |from: &Host, to, port| {
        let attempt = from.connect_within(to, port, Duration::from_millis(400));
        assert_eq!(
            attempt.unwrap_err().kind(),
            ErrorKind::TimedOut,
            "{to} port {port}"
        );
    };
    // Port 25 matches no rule; the client's web port no rule from this side.
    refused(&client, server.v4, 25);
    refused(&client, server.v6, 25);
    refused(&server, client.v4, 8080);
    refused(&server, client.v6, 8080);
    assert!(!server.ping_answered(client.v4));
    for listener in [&inside, &outside] {
        listener.set_nonblocking(true).unwrap();
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "somebody got through"
        );
    }
    let counters = node.balance();
    assert!(counters.drop_of("policy") >= 5, "{counters:?}");
    let mut expected = start.drops.clone();
    expected.insert("policy".into(), counters.drop_of("policy"));
    assert_eq!(counters.drops, expected);
    assert_eq!((counters.originated, counters.sessions_created), (0, 0));
    assert_eq!(
        node.api.rule("implicit_drop")["packets"],
        counters.drop_of("policy")
    );
    // The other direction of the same addresses still works.
    client.ping(server.v4, 1);
}

#[test]
fn a_connection_is_one_session_from_open_to_close() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(RULES));
    let listener = server.listen(8080);
    for address in [server.v4, server.v6] {
        let outgoing = client.connect(address, 8080);
        let incoming = listener.accept().unwrap().0;
        let port = outgoing.local_addr().unwrap().port();
        let sessions = node.api.sessions(&format!("source_port={port}"));
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        let session = &sessions[0];
        assert_eq!(session["state"], "established", "{session}");
        assert_eq!(session["rule"], "web");
        assert_eq!((&session["from"], &session["to"]), (&"lan".into(), &"wan".into()));
        assert_eq!(session["destination_port"], 8080);
        assert_eq!(
            session["packets"],
            serde_json::json!([2, 1]),
            "SYN and ACK, SYN+ACK: {session}"
        );
        assert_eq!(session["owner"], "local");
        traffic::converse(outgoing, incoming);
        wait_for("the session is closed in order", || {
            let sessions = node.api.sessions(&format!("source_port={port}"));
            if sessions.len() == 1 && sessions[0]["state"] == "time_wait" {
                Ok(())
            } else {
                Err(format!("{sessions:?}"))
            }
        });
    }
}

#[test]
fn address_resolution_and_group_membership_need_no_rule() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(""));
    let mut capture = server.capture_of("ip6");
    // Joining a group makes the kernel send an MLDv2 report (RFC 3810): hop-by-hop header with router alert, type 143.
    client.ns.ip("addr add fd09:1::77/64 dev e0 nodad");
    capture.expect_that("the MLD report of another address", |f| {
        f[14 + 6] == 0 && f[14 + 40] == 58 && f.get(14 + 48) == Some(&143)
    });
    assert!(
        !client.ping_answered(server.v4) && !client.ping_answered(server.v6),
        "no rule allows it"
    );
    let neighbours = client.ns.ip("neigh show dev e0");
    for address in [server.v4, server.v6] {
        assert!(
            neighbours
                .lines()
                .any(|l| l.starts_with(&format!("{address} ")) && l.contains("lladdr 02:09:00:01:00:02")),
            "{address} is not resolved: {neighbours}"
        );
    }
    assert!(node.balance().drop_of("policy") >= 2);
}

#[test]
fn af_packet_carries_what_af_xdp_carries() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair_of("lan", "wan", Pmd::AfPacket, Kind::Stack);
    let _node = lab.start(Config::new(RULES));
    let _iperf = server.iperf_server(lab.dir());
    for address in [server.v4, server.v6] {
        client.ping(address, 3);
        for direction in ["", "--reverse"] {
            let report = client.iperf(address, &format!("--bytes 5M {direction}"));
            assert!(
                report["end"]["sum_sent"]["bytes"].as_u64() >= Some(5_000_000),
                "{report}"
            );
        }
    }
}

#[test]
fn jumbo_frames_cross_where_the_ports_are_set_up_for_them() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    // AF_XDP on a veth holds a frame in one page: 3000 bytes are more than a standard frame and less than that.
    for host in [&client, &server] {
        host.set_mtu(&lab.firewall, 3000);
    }
    lab.ports.iter_mut().for_each(|port| port.mtu = Some(3000));
    let _node = lab.start(Config::new(RULES));
    for address in [server.v4, server.v6] {
        let header = if address.is_ipv4() { 28 } else { 48 };
        client.ns.exec(&format!(
            "ping -q -n -c 2 -i 0.01 -W 5 -M do -s {} {address}",
            3000 - header
        ));
    }
}

/// Path MTU discovery (RFC 1191, RFC 8201) through the node: a router behind it has a narrow link, says so by ICMP, and the
/// client's kernel sends smaller segments. Without the error the connection would stall.
#[test]
fn path_mtu_discovery_works_through_the_firewall() {
    let mut lab = Lab::new();
    let (client, router) = lab.pair("lan", "wan");
    let far = Netns::new(&format!("{}-far", client.ns.name()));
    router.ns.ip(&format!(
        "link add n0 mtu 1280 type veth peer name e0 mtu 1500 netns {}",
        far.name()
    ));
    for (key, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
    ] {
        router.ns.sysctl(key, value);
    }
    for (ns, commands) in [
        (
            &router.ns,
            [
                "addr add 10.77.0.1/24 dev n0",
                "addr add fd77::1/64 dev n0 nodad",
                "link set n0 up",
            ],
        ),
        (
            &far,
            [
                "addr add 10.77.0.2/24 dev e0",
                "addr add fd77::2/64 dev e0 nodad",
                "link set e0 up",
            ],
        ),
    ] {
        commands.iter().for_each(|command| drop(ns.ip(command)));
    }
    far.ip("route add default via 10.77.0.1");
    far.ip("route add default via fd77::1");
    client.ns.ip(&format!("route add 10.77.0.0/24 via {}", router.v4));
    client.ns.ip(&format!("route add fd77::/64 via {}", router.v6));
    let node = lab.start(Config::new(
        "[[rule]]\nname = \"out\"\nfrom = \"lan\"\naction = \"allow\"\n",
    ));
    let start = node.counters();
    for address in ["10.77.0.2", "fd77::2"] {
        let target: std::net::IpAddr = address.parse().unwrap();
        let listener = far.run(|| std::net::TcpListener::bind((target, 8080)).unwrap());
        let mut outgoing = client.connect(target, 8080);
        let mut incoming = listener.accept().unwrap().0;
        incoming.set_read_timeout(Some(lab::PATIENCE)).unwrap();
        let sent = vec![0x5a; 200_000];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::io::Write::write_all(&mut outgoing, &sent).unwrap();
                outgoing.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            std::io::Read::read_to_end(&mut incoming, &mut got).unwrap();
            assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
        });
        let route = client.ns.ip(&format!("route get {address}"));
        assert!(route.contains("mtu 1280"), "{route}");
    }
    assert_eq!(node.balance().drops, start.drops, "nothing was dropped");
}
