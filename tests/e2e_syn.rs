//! SYN protection between real kernels: every combination of options, and connections under a flood.
//!
//! The flood comes from a `net_pcap` port that the node polls itself: spoofed, endless, as fast as the worker takes it.
//! `tests/syn_flood.sh` runs the long one (2,000 connections), and prints the rates beside those of plain forwarding.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "rates are measured by the clock")]

mod lab;

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use haechi::packet::synth::PacketSpec;
use lab::api::Counters;
use lab::config::Port;
use lab::{Config, Host, Lab, Node, traffic, wait_for};

fn rules(protection: &str) -> String {
    format!("[[rule]]\nname = \"all\"\naction = \"allow\"\nsyn_protection = \"{protection}\"\n")
}

/// Bytes that look random and follow from a number.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let byte = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(byte).collect()
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

const TIMEOUT: Duration = Duration::from_secs(20);

/// Answers connections until the listener's side asks for the end: what comes is summed up, and answered by the sum and as much
/// of other bytes.
fn serve(listener: &TcpListener, connections: usize) {
    std::thread::scope(|scope| {
        for _ in 0..connections {
            let Ok((mut stream, _)) = listener.accept() else {
                return;
            };
            scope.spawn(move || {
                let mut heard = vec![];
                let _ = stream.set_read_timeout(Some(TIMEOUT));
                if stream.read_to_end(&mut heard).is_ok() {
                    let sum = checksum(&heard);
                    let _ = stream.write_all(&sum.to_be_bytes());
                    let _ = stream.write_all(&pattern(sum, heard.len()));
                }
            });
        }
    });
}

/// One connection with `len` bytes each way; an error says what was wrong.
fn exchange(stream: &mut TcpStream, seed: u64, len: usize) -> Result<(), String> {
    let said = pattern(seed, len);
    let failed = |what: &'static str| move |e: std::io::Error| format!("{what}: {e}");
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed("socket"))?;
    stream
        .set_write_timeout(Some(TIMEOUT))
        .map_err(failed("socket"))?;
    stream.write_all(&said).map_err(failed("write"))?;
    stream.shutdown(Shutdown::Write).map_err(failed("shutdown"))?;
    let mut heard = vec![];
    stream.read_to_end(&mut heard).map_err(failed("read"))?;
    let (sum, bytes) = heard.split_at_checked(8).ok_or("the answer is short")?;
    if sum != checksum(&said).to_be_bytes() {
        return Err("the server received something else".into());
    }
    if bytes != pattern(checksum(&said), len) {
        return Err("the client received something else".into());
    }
    Ok(())
}

fn options(host: &Host, [timestamps, sack, scaling]: [bool; 3]) {
    for (key, on) in [
        ("tcp_timestamps", timestamps),
        ("tcp_sack", sack),
        ("tcp_window_scaling", scaling),
    ] {
        host.ns
            .sysctl(&format!("net/ipv4/{key}"), if on { "1" } else { "0" });
    }
}

/// Each option of each end on and off: the transfers are whole, by either side's numbers, and the node drops nothing of them.
#[test]
fn transfers_are_whole_whatever_the_ends_support() {
    const ALL: [bool; 3] = [true; 3];
    const NONE: [bool; 3] = [false; 3];
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(&rules("always")));
    let content = pattern(1, 3_000_000);
    lab.file("page", &content);
    let _web = server.web_server(lab.dir(), lab.dir(), 8080);
    let one_off = |place: usize| std::array::from_fn(|i| i != place);
    let mut ends = vec![(ALL, ALL), (NONE, NONE), (ALL, NONE), (NONE, ALL)];
    ends.extend((0..3).flat_map(|i| [(ALL, one_off(i)), (one_off(i), ALL)]));
    let listener = server.listen(9000);
    for (place, (at_client, at_server)) in ends.into_iter().enumerate() {
        options(&client, at_client);
        options(&server, at_server);
        for address in [server.v4, server.v6] {
            let url = match address {
                IpAddr::V4(v4) => format!("http://{v4}:8080/page"),
                IpAddr::V6(v6) => format!("http://[{v6}]:8080/page"),
            };
            let file = lab.dir().join("copy");
            client.ns.exec(&format!(
                "curl --silent --show-error --fail --max-time 30 -o {} {url}",
                file.display()
            ));
            assert!(std::fs::read(&file).unwrap() == content, "{place}: {url}");
            std::thread::scope(|scope| {
                scope.spawn(|| serve(&listener, 1));
                let mut stream = client.connect(address, 9000);
                exchange(&mut stream, place as u64, 500_000)
                    .unwrap_or_else(|e| panic!("{place}, {address}: {e}"));
            });
        }
    }
    let counters = node.counters();
    for reason in [
        "tcp_out_of_window",
        "tcp_bad_flags",
        "bad_checksum",
        "syn_cookie_invalid",
    ] {
        assert_eq!(counters.drop_of(reason), 0, "{reason}");
    }
    assert!(node.cli("show counters").contains("syn cookies"));
}

/// A server that speaks first, one that refuses, and one that is not there.
#[test]
fn servers_that_speak_first_or_refuse() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let node = lab.start(Config::new(&rules("always")));
    let listener = server.listen(9000);
    for address in [server.v4, server.v6] {
        let mut stream = client.connect(address, 9000);
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.write_all(b"220 ready\r\n").unwrap();
        let mut heard = [0; 11];
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"220 ready\r\n");
        traffic::converse(stream, accepted);
        // The client's end is open before the server's refusal comes, and is reset by it.
        let refused = client.connect_within(address, 9001, TIMEOUT);
        let error = refused.and_then(|mut stream| {
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.read(&mut [0; 1])
        });
        assert_eq!(
            error.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionReset,
            "{address}"
        );
    }
    assert_eq!(node.counters().drop_of("tcp_out_of_window"), 0);
}

/// SYNs or datagrams from addresses that nobody has, as a file for a `net_pcap` port.
fn flood_file(lab: &Lab, name: &str, packet: impl Fn(u32) -> String) -> PathBuf {
    let mut file = vec![];
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for number in 0..FLOOD {
        let frame = packet(number).parse::<PacketSpec>().unwrap().frame();
        for word in [0, 0, frame.len() as u32, frame.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    lab.file(name, file)
}

/// Packets of a flood's file; the port replays them for ever.
const FLOOD: u32 = 4096;

fn spoofed(number: u32) -> String {
    let [_, b, c, d] = (number.wrapping_mul(2_654_435_761)).to_be_bytes();
    format!("10.{b}.{c}.{d}:{}", 1024 + number % 60_000)
}

fn syn(n: u32) -> String {
    let isn = n.wrapping_mul(40_503);
    format!("tcp {} > 198.51.100.7:80 syn seq={isn}", spoofed(n))
}

/// A pair whose one port is the flood.
fn add_flood(lab: &mut Lab, file: &Path) {
    let port = |name: &str, peer: &str, device: String| Port {
        name: name.into(),
        zone: name.into(),
        peer: peer.into(),
        device,
        mtu: None,
    };
    let n = lab.ports.len();
    let device = format!("vdev:net_pcap{n},rx_pcap={},infinite_rx=1", file.display());
    lab.ports.push(port("flood", "sink", device));
    lab.ports
        .push(port("sink", "flood", format!("vdev:net_null{},no-rx=1", n + 1)));
}

fn config(protection: &str) -> Config {
    Config::new(&rules(protection))
        .node("packet_buffers", "16383")
        .node("memory_mib", "512")
        .transparent("link_propagation = false\n")
}

/// Packets a second that the port `flood` brings, over `time`.
fn flood_rate(node: &Node, time: Duration) -> f64 {
    let taken = || node.api.port("flood")["rx_packets"].as_u64().unwrap();
    let (start, before) = (Instant::now(), taken());
    wait_for("the flood", || {
        if taken() > before {
            Ok(())
        } else {
            Err("nothing".into())
        }
    });
    std::thread::sleep(time);
    let after = taken();
    (after - before) as f64 / start.elapsed().as_secs_f64()
}

/// Connections one after the other while the flood lasts; how many of them finished with the right bytes.
fn connect_all(client: &Host, server: &Host, connections: usize) -> (usize, Duration) {
    let listener = server.listen(9000);
    let start = Instant::now();
    let mut done = 0;
    std::thread::scope(|scope| {
        let server_side = scope.spawn(|| serve(&listener, connections));
        for number in 0..connections {
            let attempt = client
                .connect_within(server.v4, 9000, TIMEOUT)
                .map_err(|e| format!("connect: {e}"))
                .and_then(|mut stream| exchange(&mut stream, number as u64, 5000));
            match attempt {
                Ok(()) => done += 1,
                Err(e) => println!("connection {number}: {e}"),
            }
        }
        // Those that failed are missing there: let the server go.
        while !server_side.is_finished() {
            drop(server.ns.run(|| TcpStream::connect(("127.0.0.1", 9000))));
        }
    });
    (done, start.elapsed())
}

/// The test: `connections` over a flood that the node polls itself.
fn connections_under_flood(connections: usize) {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let file = flood_file(&lab, "syns.pcap", syn);
    add_flood(&mut lab, &file);
    let node = lab.start(config("always"));
    let before = node.api.get("/v1/status")["sessions"].as_u64().unwrap();
    let rate = flood_rate(&node, Duration::from_secs(2));
    let counters = node.counters();
    assert_eq!(
        (before, counters.sessions_created),
        (0, 0),
        "no session for the flood"
    );
    assert!(counters.drop_of("syn_proxied") > u64::from(FLOOD), "{counters:?}");
    let busy = node.api.port("flood")["rx_packets"].as_u64().unwrap();
    let (done, time) = connect_all(&client, &server, connections);
    let flooded = node.api.port("flood")["rx_packets"].as_u64().unwrap() - busy;
    println!(
        "{done} of {connections} connections in {:.1} s under {:.0} SYNs/s (alone: {rate:.0} SYNs/s)",
        time.as_secs_f64(),
        flooded as f64 / time.as_secs_f64()
    );
    let counters = node.counters();
    println!(
        "sessions made {}, SYN cookies accepted {}, SYNs answered {}",
        counters.sessions_created,
        node.api.get("/v1/counters")["syn_cookies_accepted"],
        counters.drop_of("syn_proxied"),
    );
    assert!(done * 100 >= connections * 99, "{done} of {connections}");
    // A session for each connection that came so far, and for nothing else (but ICMP, neighbours and the like, of which there
    // is none here).
    assert!(counters.sessions_created <= connections as u64, "{counters:?}");
    node.stop();
}

/// `tests/syn_flood.sh` runs 2,000 connections and five rounds.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |n| {
        n.parse().unwrap_or_else(|e| panic!("{name}={n}: {e}"))
    })
}

#[test]
fn connections_finish_under_a_flood() {
    connections_under_flood(number("HAECHI_FLOOD_CONNECTIONS", 200));
}

/// `auto`: the flood engages the cookies, and when it is gone they disengage.
#[test]
fn a_flood_engages_cookies_by_itself() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let file = flood_file(&lab, "syns.pcap", syn);
    add_flood(&mut lab, &file);
    let text = lab.render(&config("auto").conntrack("max_sessions = 1024\nsyn_cookie_start = \"25%\"\nsyn_cookie_stop = \"15%\"\n[conntrack.timeouts]\ntcp_syn_sent = \"3s\"\n"));
    let node = Node::start_text(&lab, &text);
    wait_for("cookies engage", || {
        let status = node.api.get("/v1/status");
        if status["syn_cookies_engaged"] == true {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    assert!(node.cli("show status").contains("SYN cookies are engaged"));
    let (done, _) = connect_all(&client, &server, 50);
    assert_eq!(done, 50);
    let sessions = node.api.get("/v1/status")["sessions"].as_u64().unwrap();
    assert!(sessions <= 1024 / 4 + 50, "{sessions} sessions");
    // The flood's rule goes: half-open sessions time out, and the node is as before.
    let calm = text.replace("name = \"all\"", "name = \"all\"\nfrom = \"lan\"");
    let file = lab.file("calm.toml", calm);
    node.cli(&format!("apply {}", file.display()));
    wait_for("cookies disengage", || {
        let status = node.api.get("/v1/status");
        if status["syn_cookies_engaged"] == false {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    let (done, _) = connect_all(&client, &server, 1);
    assert_eq!(done, 1);
    node.stop();
}

/// What the flood's port brings a second while the node does nothing else.
fn rate(protection: &str, packet: impl Fn(u32) -> String) -> (f64, Counters) {
    let mut lab = Lab::new();
    let file = flood_file(&lab, "flood.pcap", packet);
    add_flood(&mut lab, &file);
    // One worker's rates: of several, those without a queue of the port only get what they are handed.
    let node = lab.start(config(protection).node("workers", "\"1\""));
    let rate = flood_rate(&node, Duration::from_secs(1));
    let counters = node.counters();
    node.stop();
    (rate, counters)
}

/// How many SYNs are answered beside how many packets the same port forwards: printed, not judged. The machine's speed drifts,
/// so the two are measured in turns.
#[test]
fn rates_under_a_flood() {
    let mut shares = vec![];
    for round in 1..=number("HAECHI_FLOOD_ROUNDS", 1) {
        let (forwarded, counters) = rate("off", |n| format!("udp {} > 198.51.100.7:53", spoofed(n)));
        assert!(
            counters.drops.is_empty(),
            "all of it is forwarded, but {counters:?}"
        );
        let (answered, counters) = rate("always", syn);
        assert_eq!(counters.sessions_created, 0);
        let share = 100.0 * answered / forwarded;
        println!(
            "round {round}: the port forwards {forwarded:.0} packets/s of known sessions, and has {answered:.0} SYNs/s answered: {share:.0} %"
        );
        shares.push(share);
    }
    shares.sort_by(f64::total_cmp);
    println!(
        "SYNs answered beside packets forwarded, median: {:.0} %",
        shares[shares.len() / 2]
    );
}
