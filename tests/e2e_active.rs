//! An active-active pair between two routers that choose a node for each direction by themselves, with real TCP stacks on both sides.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use lab::Site;
use lab::duo::routers::route_all;
use lab::duo::{Duo, Twin};

/// Ports of which requests and replies go by these nodes.
const WAYS: [(u16, [usize; 2]); 4] = [(8080, [0, 1]), (8081, [1, 0]), (8082, [0, 0]), (8083, [1, 1])];
/// Nobody may use it: refused with a RST.
const REJECTED: u16 = 9;
/// The same, without a word.
const DROPPED: u16 = 10;

/// What the policy refuses stands before what it allows.
const RULES: &str = "
[[rule]]
name = \"rejected\"
service = [\"tcp/9\"]
action = \"reject\"
[[rule]]
name = \"dropped\"
service = [\"tcp/10\"]
action = \"drop\"
[[rule]]
name = \"out\"
from = \"lan\"
to = \"wan\"
action = \"allow\"
";

/// Requests without a rule of their own go by node a, replies by node b; those of the ports of [`WAYS`] as it says.
fn pair() -> Duo {
    let mut duo = Duo::between_routers();
    duo.rules = RULES.to_owned();
    // What is tested is not how soon a dead node is missed: a busy machine shall not make a living one seem so.
    duo.ha += "heartbeat = \"100ms\"\ndead_after = 10\n";
    duo.start_active();
    ways(&duo);
    duo
}

fn ways(duo: &Duo) {
    duo.route(0, "", 0);
    duo.route(1, "", 1);
    for (port, [request, reply]) in WAYS {
        for protocol in ["tcp", "udp"] {
            duo.route(0, &format!("ipproto {protocol} dport {port}"), request);
            duo.route(1, &format!("ipproto {protocol} sport {port}"), reply);
        }
    }
}

/// What both nodes counted of packets that crossed: offered, returned, taken, given back.
fn crossed(duo: &Duo) -> [[u64; 4]; 2] {
    duo.nodes.each_ref().map(crossed_at)
}

fn crossed_at(node: &Twin) -> [u64; 4] {
    let redirect = node.ha()["redirect"].clone();
    ["redirected_out", "returned", "redirected_in", "given_back"].map(|name| redirect[name].as_u64().unwrap())
}

/// A datagram there and its echo back.
fn echoed(near: &UdpSocket, text: &[u8]) -> std::io::Result<bool> {
    near.send(text)?;
    let mut heard = vec![0; text.len() + 1];
    let length = near.recv(&mut heard)?;
    Ok(heard[..length] == *text)
}

#[test]
fn each_direction_by_its_own_node() {
    let mut duo = pair();
    let to = [duo.server.v4, duo.server.v6];
    // TCP: the SYN by one node, the SYN-ACK by the other, and what follows likewise.
    for (port, _) in WAYS {
        let site = Site::start(&duo.server, port);
        for address in to {
            site.download(&duo.client, address, 3_000_000, |_| {});
        }
    }
    // Each node was asked by the other one, and what it let pass left where it had come in.
    let counts = crossed(&duo);
    for [out, returned, taken, given_back] in counts {
        assert!(
            out > 0 && returned > 0 && taken > 0 && given_back > 0,
            "{counts:?}"
        );
    }

    // UDP, and the error of a port where nobody listens, which comes back by the other node than the datagram took.
    for (port, _) in WAYS {
        let far = duo.server.udp(port);
        let echo = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = far.recv_from(&mut buffer) {
                if length == 0 {
                    return;
                }
                far.send_to(&buffer[..length], from).unwrap();
            }
        });
        for address in to {
            let near = duo.client.udp(0);
            near.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            near.connect(SocketAddr::new(address, port)).unwrap();
            for number in 0..20_u8 {
                assert!(echoed(&near, &[number; 100]).unwrap(), "{address}:{port}");
            }
        }
        let last = duo.client.udp(0);
        last.send_to(&[], SocketAddr::new(to[0], port)).unwrap();
        echo.join().unwrap();
    }
    let nobody = duo.client.udp(0);
    nobody.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    nobody.connect(SocketAddr::new(to[0], 8089)).unwrap();
    nobody.send(b"is anybody there?").unwrap();
    let refused = nobody.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    // Ping, and ping in fragments: the echo's way is not the reply's.
    for address in to {
        duo.client.ping(address, 20);
        duo.client
            .ns
            .exec(&format!("ping -q -n -c 5 -i 0.05 -s 3000 -W 5 {address}"));
    }

    // iperf3, with its two connections.
    let _server = duo.server.iperf_server(duo.lab.dir());
    let report = duo.client.iperf(to[0], "--time 2 --bitrate 20M");
    assert!(report["end"]["sum_received"]["bytes"].as_u64().unwrap() > 1_000_000);

    // What the policy refuses it refuses by any way, once: a RST comes back, or nothing at all.
    let refused = duo
        .client
        .connect_within(to[0], REJECTED, Duration::from_secs(5))
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let silence = duo
        .client
        .connect_within(to[0], DROPPED, Duration::from_millis(300))
        .unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::TimedOut);

    // What is going on is said, of a pair that is well.
    for node in &duo.nodes {
        let (well, text) = node.try_cli("show ha");
        assert!(
            well && text.starts_with("healthy\n") && text.contains("of an active-active pair, active for "),
            "{text}"
        );
        let line = |name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .map(str::to_owned)
        };
        let (to, from) = (line("to peer").unwrap(), line("for peer").unwrap());
        assert!(
            to.contains(" offered, ") && from.contains(" given back"),
            "{text}"
        );
        assert!(!from.contains("refused"), "{text}");
    }
    for node in &mut duo.nodes {
        let totals = node.stop();
        assert!(totals.contains("mbufs in use 0"), "{totals}");
    }
}

/// A node dies while a page comes whose requests and replies cross different nodes: first the one that has the session, then the one that
/// hands the replies to it. The routers notice, and the page comes to its end by the other one.
#[test]
fn a_download_outlives_either_node() {
    /// Long enough for a node to die in the middle of it.
    const BYTES: usize = 40_000_000;
    let mut duo = pair();
    let site = Site::start(&duo.server, 8080);
    for dies in [0, 1] {
        let (before, from) = (crossed(&duo)[0], duo.server.v4);
        let Duo {
            client,
            nodes,
            switches,
            ..
        } = &mut duo;
        site.download(client, from, BYTES, |quarter| {
            if quarter == 2 {
                nodes[dies].kill();
                route_all(switches, 1 - dies);
            }
        });
        let survivor = &duo.nodes[1 - dies];
        survivor.wait_ha("alone", |ha| ha["role"] == "leader" && ha["health"] != "healthy");
        assert!(
            dies == 0 || crossed_at(survivor)[2] > before[2],
            "replies were judged by node a"
        );
        duo.spawn(dies);
        duo.nodes[dies].wait_ready();
        duo.wait_healthy();
        assert_eq!(duo.roles(), ["active", "active"]);
        ways(&duo);
    }
}
