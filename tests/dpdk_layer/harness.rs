//! Scenarios, ports and frames.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use haechi::dpdk::{Burst, Device, Eal, EalConfig, Error, Mempool, Port, PortSetup, RxQueue, TxQueue};
use haechi::packet::PacketBuf;

/// Names the scenario to a child process.
pub(crate) const SCENARIO: &str = "HAECHI_DPDK_SCENARIO";

/// Runs `body` in a process of its own, in a new network namespace; `user` runs it without privileges.
pub(crate) fn scenario(name: &str, user: Option<u32>, body: fn()) {
    scenario_with(name, user, Vec::new, body);
}

/// The same with these variables in its environment (`NAME=VALUE`).
pub(crate) fn scenario_with(
    name: &str,
    user: Option<u32>,
    environment: impl FnOnce() -> Vec<std::ffi::OsString>,
    body: fn(),
) {
    if std::env::var(SCENARIO).is_ok_and(|s| s == name) {
        return body();
    }
    let exe = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.arg("--net");
    if let Some(user) = user {
        let id = user.to_string();
        command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
    }
    let mut child = command
        .arg("env")
        .args(environment())
        .arg(exe)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(SCENARIO, name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read_err = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = err.read_to_string(&mut text);
        text
    });
    let read_out = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = out.read_to_string(&mut text);
        text
    });
    let deadline = now() + Duration::from_secs(180);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // Whose host was killed leaves its socket.
    let _ = std::fs::remove_file(socket(child.id()));
    let (out, err) = (read_out.join().unwrap(), read_err.join().unwrap());
    assert!(
        status.is_some_and(|s| s.success()),
        "{name}: {status:?}\n{out}\n{err}"
    );
    // Nothing that DPDK, libbpf or libxdp say reaches the user's screen.
    for noise in ["EAL:", "libbpf", "libxdp", "Usage:", "(): "] {
        assert!(
            !out.contains(noise) && !err.contains(noise),
            "{name}: on the screen:\n{out}\n{err}"
        );
    }
    let dir = format!("/var/run/dpdk/haechi-{}", child.id());
    assert!(!std::path::Path::new(&dir).exists(), "{dir} was left behind");
}

#[allow(clippy::disallowed_methods, reason = "a deadline against hanging")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Where a process that plays a virtual machine's host waits for the guest.
pub(crate) fn socket(process: u32) -> PathBuf {
    std::env::temp_dir().join(format!("haechi-dpdk-{process}.sock"))
}

pub(crate) fn config() -> EalConfig {
    EalConfig {
        memory_mib: 192,
        worker_cpus: vec![1],
        ..EalConfig::default()
    }
}

pub(crate) fn eal() -> Eal {
    Eal::start(&config()).unwrap()
}

pub(crate) fn device(text: &str) -> Device {
    text.parse().unwrap()
}

pub(crate) fn setup() -> PortSetup {
    PortSetup {
        packet_buffers: 4095,
        rx_queues: 1,
        tx_queues: 1,
        rx_descriptors: 512,
        tx_descriptors: 512,
        ..PortSetup::default()
    }
}

/// A port with its one pair of queues.
pub(crate) struct Side {
    pub(crate) port: Port,
    pub(crate) rx: RxQueue,
    pub(crate) tx: TxQueue,
}

pub(crate) fn side(eal: &Eal, name: &str, text: &str, mtu: u16) -> Side {
    let packet_buffers = if mtu > 4000 { 1023 } else { 4095 };
    let setup = PortSetup {
        packet_buffers,
        ..setup()
    };
    started(open(eal, name, text, mtu, &setup))
}

/// A port of MTU 1500 whose receive queue may announce packets, if it can.
pub(crate) fn side_with(eal: &Eal, name: &str, text: &str, rx_interrupts: bool) -> Side {
    started(open(eal, name, text, 1500, &with(rx_interrupts)))
}

pub(crate) fn with(rx_interrupts: bool) -> PortSetup {
    PortSetup {
        rx_interrupts,
        ..setup()
    }
}

/// A port that is configured, and not started.
pub(crate) fn open(eal: &Eal, name: &str, text: &str, mtu: u16, setup: &PortSetup) -> Port {
    let mut port = Port::open(eal, name, &device(text), mtu).unwrap();
    let result = port.configure(setup);
    assert!(result.is_ok(), "{result:?} {:#?}", eal.log_lines());
    port
}

fn started(mut port: Port) -> Side {
    let (mut rx, mut tx) = port.start().unwrap();
    assert_eq!((rx.len(), tx.len()), (1, 1));
    Side {
        port,
        rx: rx.remove(0),
        tx: tx.remove(0),
    }
}

pub(crate) fn close(side: Side) {
    let Side { mut port, rx, tx } = side;
    // Refused while a queue is out, and the port runs on.
    assert!(matches!(port.stop(), Err(Error::InUse(_))));
    drop((rx, tx));
    port.stop().unwrap();
    port.close().unwrap();
}

pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// A frame with two VLAN tags and nothing that a kernel would answer.
pub(crate) fn tagged_frame(len: usize) -> Vec<u8> {
    let mut frame = vec![
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 5, 0x81, 0, 0, 6, 0x88, 0xb5,
    ];
    frame.extend((frame.len()..len).map(|i| (i * 7) as u8));
    frame
}

pub(crate) fn fill(pool: &Mempool, frame: &[u8]) -> Burst {
    let mut packet = pool.alloc().unwrap();
    packet.try_fill(frame).unwrap();
    Burst::from_iter([packet])
}

/// Sends `frame` until it arrives: a fresh link may lose the first.
pub(crate) fn cross(pool: &Mempool, from: &mut Side, to: &mut Side, frame: &[u8]) {
    let deadline = now() + Duration::from_secs(20);
    let mut got = Burst::new();
    while now() < deadline {
        let mut out = fill(pool, frame);
        from.tx.tx_burst(&mut out);
        for _ in 0..2000 {
            to.rx.rx_burst(&mut got, 32);
            if got.drain(..).any(|p| p.bytes() == frame) {
                return;
            }
        }
    }
    panic!(
        "{} bytes do not cross: {:?} {:?} {:?} {:?}",
        frame.len(),
        from.port.stats(),
        to.port.stats(),
        from.port.link(),
        to.port.link()
    );
}
