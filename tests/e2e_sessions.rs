//! The life of sessions with real kernels at both ends: reset when they idle out, picked up in mid-stream.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use lab::{Config, Lab, wait_for};

/// A connection with some bytes behind it, each way.
fn conversation(client: &mut TcpStream, server: &mut TcpStream) {
    for stream in [&mut *client, &mut *server] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    exchange(client, server);
}

fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    let mut heard = [0; 8];
    client.write_all(b"question").unwrap();
    server.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"question");
    server.write_all(b"response").unwrap();
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"response");
}

#[test]
fn both_kernels_see_a_reset_when_a_session_idles_out() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let rules = "[[rule]]\nname = \"resets\"\nservice = [\"tcp/8080\"]\naction = \"allow\"\nreset_on_timeout = true\n\
                 timeouts = { tcp_established = \"2s\" }\n\
                 [[rule]]\nname = \"silent\"\nservice = [\"tcp/8081\"]\naction = \"allow\"\n\
                 timeouts = { tcp_established = \"2s\" }\n";
    let node = lab.start(Config::new(rules));
    let mut ends = Vec::new();
    for port in [8080, 8081] {
        let listener = server.listen(port);
        for address in [server.v4, server.v6] {
            let mut near = client.connect(address, port);
            let (mut far, _) = listener.accept().unwrap();
            conversation(&mut near, &mut far);
            ends.push((near, far));
        }
    }
    wait_for("the sessions idle out", || {
        match node.api.sessions("protocol=tcp") {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
    let mut silent = ends.split_off(2);
    for (near, far) in &mut ends {
        for end in [near, far] {
            let error = end.read(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{end:?}");
        }
    }
    for (near, far) in &mut silent {
        for end in [near, far] {
            end.set_nonblocking(true).unwrap();
            let error = end.read(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{end:?}");
        }
    }
    let counters = node.api.get("/v1/counters");
    assert_eq!(counters["timeout_resets"], 4, "{counters}");
    assert_eq!(counters["timeout_resets_missed"], 0, "{counters}");
}

#[test]
fn a_connection_in_mid_stream_goes_on_where_its_rule_picks_it_up() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let rules = "[[rule]]\nname = \"picked-up\"\nfrom = \"lan\"\nservice = [\"tcp/8080\"]\naction = \"allow\"\npickup = true\n\
                 [[rule]]\nname = \"strict\"\nfrom = \"lan\"\nservice = [\"tcp/8081\"]\naction = \"allow\"\n";
    let node = lab.start(Config::new(rules));
    for (port, goes_on) in [(8080, true), (8081, false)] {
        let listener = server.listen(port);
        let mut near = client.connect(server.v4, port);
        let (mut far, _) = listener.accept().unwrap();
        conversation(&mut near, &mut far);
        let (ok, said, _) = node.try_cli(&format!("sessions kill destination_port={port}"));
        assert!(ok, "{said}");
        let before = node.counters();
        if goes_on {
            exchange(&mut near, &mut far);
            exchange(&mut near, &mut far);
            assert_eq!(node.counters().dropped(), before.dropped());
            let session = &node.api.sessions("rule=picked-up")[0];
            assert_eq!(session["state"], "established", "{session}");
        } else {
            near.write_all(b"question").unwrap();
            node.wait_drops(&before, "no_session", 1);
            assert!(node.api.sessions("rule=strict").is_empty());
        }
    }
}
