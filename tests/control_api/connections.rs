//! Connections: how many, for how long, at once, and until the node stops.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use haechi::control::api::Limits;

use crate::control_support::{CONFIG, LAN, Served, TestNode, answer, connect, request};

#[test]
fn slow_clients_and_slow_calls_have_their_time() {
    static HOLD: AtomicBool = AtomicBool::new(true);
    let node = TestNode::with_hook(CONFIG, || {
        while HOLD.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    });
    let limits = Limits {
        head: Duration::from_millis(300),
        request: Duration::from_millis(600),
        ..Limits::default()
    };
    let served = Served::with(node, limits);
    // A call that takes too long is answered all the same.
    assert!(
        served
            .get("/v1/status")
            .error(503)
            .contains("not done after 600ms")
    );
    // A body that does not come.
    let mut stream = connect(&served.socket);
    stream
        .write_all(b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\n")
        .unwrap();
    assert!(answer(&mut stream).error(503).contains("not done after 600ms"));
    // A head that does not come, and a connection that sits idle after a request: the server hangs up.
    for head in ["GET /v1/stat", "", "GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = connect(&served.socket);
        stream.write_all(head.as_bytes()).unwrap();
        std::io::Read::read_to_end(&mut stream, &mut Vec::new()).unwrap();
    }
    HOLD.store(false, Ordering::SeqCst);
    served.get("/v1/status").ok();
}

#[test]
fn one_connection_too_many_is_told_so() {
    let limits = Limits {
        connections: 3,
        ..Limits::default()
    };
    let served = Served::with(TestNode::new(CONFIG), limits);
    // Each has its answer, so each is counted, and stays open.
    let open: Vec<UnixStream> = (0..3)
        .map(|_| {
            let mut stream = connect(&served.socket);
            stream
                .write_all(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap();
            let mut some = [0; 12];
            std::io::Read::read_exact(&mut stream, &mut some).unwrap();
            assert_eq!(&some, b"HTTP/1.1 404");
            stream
        })
        .collect();
    let refused = answer(&mut connect(&served.socket));
    assert_eq!(
        refused.error(503),
        "the node has as many API connections as it takes (3)"
    );
    drop(open);
    // The slots are free again once the server has seen the ends.
    while served.get("/v1/status").code != 200 {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// However many clients hold their connections and say nothing: who comes then is told the reason.
#[test]
fn the_command_line_says_that_all_connections_are_taken() {
    let limits = Limits {
        connections: 4,
        head: Duration::from_secs(300),
        ..Limits::default()
    };
    let served = Served::with(TestNode::new(CONFIG), limits);
    let show = || {
        std::process::Command::new(env!("CARGO_BIN_EXE_haechi"))
            .args(["show", "status", "--socket"])
            .arg(&served.socket)
            .output()
            .unwrap()
    };
    // In waves below the listener's backlog: the first four have a slot, four more are told so with patience, the
    // others at once.
    let mut open = Vec::new();
    for _ in 0..10 {
        open.extend((0..40).map(|_| connect(&served.socket)));
        let output = show();
        assert_eq!(
            (output.status.code(), &*String::from_utf8_lossy(&output.stderr)),
            (
                Some(1),
                "haechi: the node has as many API connections as it takes (4) (close some, or try again)\n"
            )
        );
    }
    drop(open);
    while !show().status.success() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_defect_in_the_node_is_an_answer() {
    let served = Served::with(
        TestNode::with_hook(CONFIG, || panic!("on purpose")),
        Limits::default(),
    );
    assert!(
        served
            .get("/v1/status")
            .error(500)
            .contains("failed inside the node")
    );
    served.get("/v1/counters").ok();
}

#[test]
fn many_clients_at_once_see_one_node() {
    let served = Served::new(CONFIG);
    for port in 1..=200 {
        assert!(
            served
                .node
                .send(LAN, &format!("udp 10.0.0.5:{port} > 192.0.2.7:53"))
        );
    }
    std::thread::scope(|scope| {
        for client in 0..12 {
            let served = &served;
            scope.spawn(move || {
                for round in 0..10 {
                    let port = client * 10 + round + 1;
                    let mine = served.get(&format!("/v1/sessions?source_port={port}")).ok();
                    assert_eq!(mine["sessions"].as_array().unwrap().len(), 1);
                    served.get("/v1/counters").ok();
                    let killed = served.delete(&format!("/v1/sessions?source_port={port}")).ok();
                    assert_eq!(killed["killed"], 1);
                }
            });
        }
    });
    assert_eq!(served.get("/v1/status").ok()["sessions"], 80);
}

#[test]
fn a_stop_lets_a_request_finish_and_takes_the_socket_away() {
    static ENTERED: AtomicBool = AtomicBool::new(false);
    static GO_ON: AtomicBool = AtomicBool::new(false);
    let node = TestNode::with_hook(CONFIG, || {
        ENTERED.store(true, Ordering::SeqCst);
        while !GO_ON.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    });
    let limits = Limits {
        drain: Duration::from_secs(60),
        ..Limits::default()
    };
    let mut served = Served::with(node, limits);
    let socket = served.socket.clone();
    let asked = std::thread::spawn(move || request(&socket, "GET", "/v1/status", ""));
    while !ENTERED.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(2));
    }
    served.begin_stop();
    while served.socket.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(UnixStream::connect(&served.socket).is_err());
    GO_ON.store(true, Ordering::SeqCst);
    assert_eq!(asked.join().unwrap().ok()["node"], "fw-test");
    served.stop();
}
