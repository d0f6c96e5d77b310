//! A worker that polls makes no system call.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use std::process::Command;

use lab::config::Port;
use lab::{Config, Lab, wait_for};

/// The thread of a process whose name begins so.
fn thread(pid: nix::unistd::Pid, name: &str) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|t| t.unwrap());
    let mut named = tasks
        .filter(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|comm| comm.starts_with(name)));
    named
        .next()
        .expect("a worker thread")
        .file_name()
        .into_string()
        .unwrap()
}

/// Ten seconds of `strace -c` on a worker with frames on both ports (net_null invents them, and costs no system call of
/// its own as AF_XDP does).
#[test]
fn a_worker_that_polls_makes_no_system_call_in_ten_seconds() {
    let mut lab = Lab::new();
    for (name, peer) in [("lan", "wan"), ("wan", "lan")] {
        lab.ports.push(Port {
            name: name.into(),
            zone: name.into(),
            peer: peer.into(),
            device: format!("vdev:net_null{}", lab.ports.len()),
            mtu: None,
        });
    }
    // What net_null invents is no IP: it crosses, so that the transmit side is exercised as well.
    let config = Config::new("")
        .node("idle", "\"poll\"")
        .transparent("non_ip = \"pass\"");
    let node = lab.start(config);
    let before = node.counters();
    wait_for("frames cross", || {
        if node.counters().tx_packets > before.tx_packets + 100_000 {
            Ok(())
        } else {
            Err("not yet".into())
        }
    });
    let worker = thread(node.process().pid(), "worker-0");
    let output = Command::new("timeout")
        .args(["--signal", "INT", "10", "strace", "-c", "-p", &worker])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let calls: Vec<_> = said
        .lines()
        .filter(|l| !l.contains(" attached") && !l.contains(" detached"))
        .collect();
    assert!(said.contains("attached"), "strace could not attach: {said}");
    assert_eq!(calls, Vec::<&str>::new(), "system calls: {said}");
    let after = node.counters();
    println!(
        "{} frames crossed meanwhile",
        after.tx_packets - before.tx_packets
    );
    assert!(after.tx_packets > before.tx_packets);
    // net_null never stops: there is no rest to balance at.
    let said = node.stop();
    assert!(said.contains("stopped: "), "{said}");
}
