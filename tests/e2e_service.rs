//! A node as a service: what it tells systemd, what `deploy/haechi@.service` allows it, and what Prometheus reads of it.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/exposition.rs"]
mod exposition;
#[path = "support/hugepages.rs"]
mod hugepages;
mod lab;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use exposition::{differences, parse};
use hugepages::FreeHugePages;
use lab::api::Api;
use lab::node::HAECHI;
use lab::process::{Process, run};
use lab::stall::Stalled;
use lab::{Config, Lab, wait_for};
use nix::sys::signal::Signal;

/// The service manager's end of the notify socket.
struct Manager(UnixDatagram);

impl Manager {
    /// For the lab's node, with these variables.
    fn new(lab: &mut Lab, variables: &[&str]) -> Self {
        let path = lab.dir().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notify = format!("NOTIFY_SOCKET={}", path.display());
        lab.environment.push(notify.into());
        lab.environment.extend(variables.iter().map(Into::into));
        Self(socket)
    }

    /// The next message within `patience`, if there is one.
    fn next(&self, patience: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 256];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[track_caller]
    fn expect(&self, message: &str) {
        assert_eq!(self.next(lab::PATIENCE).as_deref(), Some(message));
    }

    /// Forgets what has come.
    fn drain(&self) {
        while self.next(Duration::from_millis(1)).is_some() {}
    }
}

/// What a node of two workers does for its watchdog: READY=1, then WATCHDOG=1 while both turn, none while one does not.
#[test]
fn the_watchdog_is_fed_while_every_worker_turns() {
    const LOOK: Duration = Duration::from_millis(100);
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let manager = Manager::new(&mut lab, &["WATCHDOG_USEC=400000"]);
    let node = lab.start(Config::allow_all().node("workers", "\"0-1\""));
    manager.expect("READY=1");
    for _ in 0..5 {
        manager.expect("WATCHDOG=1");
    }
    for worker in [1, 0] {
        let told = node.process().stderr().matches("do not turn").count();
        let stalled = Stalled::new(&node, &format!("worker-{worker}"));
        let line = format!("workers that do not turn: [{worker}]");
        wait_for("the node says that it is not well", || {
            let said = node.process().stderr();
            if said.matches("do not turn").count() > told && said.contains(&line) {
                Ok(())
            } else {
                Err(said)
            }
        });
        // What was sent before it stood still has arrived; from here on nothing comes, however long the manager's patience.
        manager.drain();
        assert_eq!(manager.next(LOOK * 10), None, "worker {worker} stands still");
        drop(stalled);
        manager.expect("WATCHDOG=1");
        manager.expect("WATCHDOG=1");
    }
    client.ping(server.v4, 1);
    node.balance();
    manager.drain();
    node.finish();
    wait_for("the stop is told", || {
        match manager.next(Duration::from_secs(1)).as_deref() {
            Some("STOPPING=1") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// The environment of another process, and one without a watchdog.
#[test]
fn a_watchdog_of_others_is_not_fed() {
    for variables in [&["WATCHDOG_USEC=400000", "WATCHDOG_PID=1"][..], &[]] {
        let mut lab = Lab::new();
        let (_client, _server) = lab.raw_pair("lan", "wan");
        let manager = Manager::new(&mut lab, variables);
        let node = lab.start(Config::allow_all());
        manager.expect("READY=1");
        assert_eq!(manager.next(Duration::from_secs(1)), None);
        node.finish();
    }
}

/// Fields that move although no packet does.
const MOVES: &[&str] = &[
    "status.uptime_s",
    "workers.busy",
    "workers.cycles_per_packet",
    "workers.max_loop_gap_us",
    "workers.expiry_lag_ms",
];

#[test]
fn prometheus_reads_what_the_api_says() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let rules = "[[rule]]\nname = \"web\"\nfrom = \"lan\"\nservice = [\"tcp\", \"icmp\", \"icmpv6\"]\naction = \"allow\"\n\
                 [[rule]]\nname = \"no-udp\"\nservice = [\"udp\"]\naction = \"reject\"\n\
                 [metrics]\nlisten = \"127.0.0.1:9464\"\n";
    let node = lab.start(Config::new(rules).node("workers", "\"0-1\""));
    client.ping(server.v4, 3);
    let listener = server.listen(8080);
    let near = client.connect(server.v4, 8080);
    let (far, _) = listener.accept().unwrap();
    client.udp(30_000).send_to(b"x", (server.v4, 9)).unwrap();
    node.balance();
    let scrape = || {
        lab.firewall
            .exec("curl -sS --fail --max-time 20 http://127.0.0.1:9464/metrics")
    };
    let read = || {
        ["status", "ports", "workers", "rules", "counters"].map(|section| {
            let answer = node.api.get(&format!("/v1/{section}"));
            match section {
                "status" | "counters" => (section, answer),
                list => (section, answer[list].clone()),
            }
        })
    };
    let unmoved = |mut api: [(&'static str, serde_json::Value); 5]| {
        for path in MOVES {
            let (section, field) = path.split_once('.').unwrap();
            let (_, value) = api.iter_mut().find(|(name, _)| *name == section).unwrap();
            match value {
                serde_json::Value::Array(rows) => rows.iter_mut().for_each(|row| row[field] = 0.into()),
                one => one[field] = 0.into(),
            }
        }
        api
    };
    // Neighbours may still have something to say: compared is a reading before and after which the API said the same.
    let samples = wait_for("the node is at rest", || {
        let before = read();
        let samples = parse(&scrape());
        if unmoved(before.clone()) != unmoved(read()) {
            return Err("it moves".to_owned());
        }
        let wrong = differences(&before, &samples, MOVES);
        assert!(wrong.is_empty(), "{wrong:#?}");
        Ok(samples)
    });
    let value = |name: &str, label: (&str, &str)| {
        let labels = [(label.0.to_owned(), label.1.to_owned())].into();
        samples[&(name.to_owned(), labels)]
    };
    assert!(value("haechi_drops_total", ("reason", "policy")) >= 1.0);
    assert!(value("haechi_sessions_by_state", ("state", "established")) >= 1.0);
    assert!(value("haechi_rule_packets_total", ("rule", "web")) >= 6.0);
    // Nothing else is served there.
    let code = |target: &str, method: &str| {
        lab.firewall.exec(&format!(
            "curl -sS -o /dev/null -w %{{http_code}} -X {method} http://127.0.0.1:9464{target}"
        ))
    };
    assert_eq!(
        [
            code("/v1/status", "GET"),
            code("/metrics", "POST"),
            code("/v1/sessions", "DELETE")
        ],
        ["404", "405", "404"]
    );
    // A worker that stands still: what is known of the others comes all the same.
    let stalled = Stalled::new(&node, "worker-1");
    let partial = parse(&scrape());
    drop(stalled);
    let partial_value = |name: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        partial.get(&(name.to_owned(), labels.collect())).copied()
    };
    assert_eq!(partial_value("haechi_complete", &[]), Some(0.0));
    assert_eq!(
        partial_value("haechi_worker_stalled", &[("worker", "1")]),
        Some(1.0)
    );
    assert_eq!(
        partial_value("haechi_worker_stalled", &[("worker", "0")]),
        Some(0.0)
    );
    assert_eq!(partial_value("haechi_drops_total", &[("reason", "policy")]), None);
    drop((near, far));
    // The address cannot be changed live.
    let changed = std::fs::read_to_string(node.file())
        .unwrap()
        .replace(":9464", ":9465");
    let file = lab.file("changed.toml", changed);
    let (ok, said, complaint) = node.try_cli(&format!("apply {}", file.display()));
    assert!(
        !ok && (said + &complaint).contains("metrics.listen"),
        "needs a restart"
    );
}

#[test]
fn a_metrics_port_in_use_keeps_the_node_from_starting() {
    let mut lab = Lab::new();
    let (_a, _b) = lab.raw_pair("lan", "wan");
    let config = Config::new("[metrics]\nlisten = \"127.0.0.1:9464\"\n");
    let node = lab.start(config.clone());
    let other = lab.dir().join("other.sock");
    let text = lab.render(&config.node("control_socket", &format!("{:?}", other.display().to_string())));
    let file = lab.file("other.toml", text);
    let mut process = Process::spawn(
        lab.firewall.command(HAECHI).arg("run").arg("-c").arg(file),
        lab.dir(),
        "other",
    );
    assert_eq!(process.wait().code(), Some(1));
    let line = process.complaints();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(
        line.contains("[metrics] listen: cannot listen at 127.0.0.1:9464")
            && line.contains("choose another port"),
        "{line}"
    );
    assert!(!other.exists());
    node.finish();
    // The port is free at once.
    lab.start(Config::new("[metrics]\nlisten = \"127.0.0.1:9464\"\n"))
        .finish();
}

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

/// The values of a key in the service and a drop-in, empty ones resetting the list (systemd.syntax(7)).
fn service(key: &str, drop_in: Option<&str>) -> Vec<String> {
    let mut values = Vec::new();
    for file in [Some("haechi@.service"), drop_in].into_iter().flatten() {
        for line in std::fs::read_to_string(deploy(file)).unwrap().lines() {
            match line.split_once('=') {
                Some((its, "")) if its == key => values.clear(),
                Some((its, value)) if its == key => values.extend(value.split(' ').map(str::to_owned)),
                _ => {}
            }
        }
    }
    assert!(!values.is_empty(), "{key}");
    values
}

#[test]
fn systemd_understands_the_service_and_its_drop_ins() {
    let lab = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(deploy("haechi@.service")).unwrap();
    let unit = lab.path().join("haechi@.service");
    // The program is where this build put it.
    std::fs::write(&unit, text.replace("/usr/local/sbin/haechi", HAECHI)).unwrap();
    let drop_ins: Vec<PathBuf> = std::fs::read_dir(deploy("dropins"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(drop_ins.len(), 2);
    for drop_in in [None].into_iter().chain(drop_ins.iter().map(Some)) {
        if let Some(file) = drop_in {
            let directory = lab.path().join("haechi@.service.d");
            let _ = std::fs::remove_dir_all(&directory);
            std::fs::create_dir(&directory).unwrap();
            std::fs::copy(file, directory.join(file.file_name().unwrap())).unwrap();
        }
        // Whatever it says is a complaint.
        let output = Command::new("systemd-analyze")
            .arg("verify")
            .arg(&unit)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // Other units of this host are not ours.
        let ours: Vec<_> = said.lines().filter(|line| line.contains("haechi")).collect();
        assert!(output.status.success() && ours.is_empty(), "{drop_in:?}: {said}");
    }
    // A mistake would have been found.
    std::fs::write(
        &unit,
        text.replace("/usr/local/sbin/haechi", HAECHI) + "\n[Service]\nWatchdogSecs=5\n",
    )
    .unwrap();
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&unit)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("WatchdogSecs"));
}

/// A directory for somebody who is not root, with the program in it.
struct Public {
    dir: tempfile::TempDir,
}

impl Public {
    fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("hxlab-nobody-")
            .tempdir()
            .unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::copy(HAECHI, dir.path().join("haechi")).unwrap();
        Self { dir }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("haechi.sock")
    }

    /// Starts a node as the service does: another user with the capabilities that are listed, and no others ever.
    fn start(&self, lab: &Lab, config: Config, drop_in: Option<&str>) -> Process {
        let words = |key: &str| {
            let capabilities = service(key, drop_in);
            let names = capabilities
                .iter()
                .map(|name| name.trim_start_matches("CAP_").to_lowercase());
            names.map(|name| format!(",+{name}")).collect::<String>()
        };
        let (ambient, bounding) = (words("AmbientCapabilities"), words("CapabilityBoundingSet"));
        let config = config.node(
            "control_socket",
            &format!("{:?}", self.socket().display().to_string()),
        );
        let file = self.dir.path().join("haechi.toml");
        std::fs::write(&file, lab.render(&config)).unwrap();
        // Without LimitMEMLOCK=infinity, which needs more than root has in a container: CAP_IPC_LOCK has to do.
        let mut command = lab.firewall.command("setpriv");
        command
            .args([
                "--reuid",
                "nobody",
                "--regid",
                "nogroup",
                "--clear-groups",
                "--no-new-privs",
            ])
            .arg(format!("--inh-caps=-all{ambient}"))
            .arg(format!("--ambient-caps=-all{ambient}"))
            .arg(format!("--bounding-set=-all{bounding}"))
            .args(["--", "env"])
            .arg(format!("XDG_RUNTIME_DIR={}", self.dir.path().display()))
            .arg(self.dir.path().join("haechi"))
            .arg("run")
            .arg("-c")
            .arg(file);
        Process::spawn(&mut command, lab.dir(), "nobody")
    }
}

#[track_caller]
fn ready(process: &mut Process) {
    wait_for("the node is ready", || {
        if let Some(status) = process.ended() {
            panic!("{status}: {}{}", process.stdout(), process.stderr());
        }
        match process.stdout().lines().any(|line| line == "ready") {
            true => Ok(()),
            false => Err(process.stderr()),
        }
    });
}

#[track_caller]
fn stop(mut process: Process) {
    process.signal(Signal::SIGTERM);
    let status = process.wait();
    assert_eq!(status.code(), Some(0), "{}", process.stderr());
}

/// The capabilities of the service are enough: with huge pages, for devices that are nobody's interface ...
#[test]
fn a_node_runs_with_the_capabilities_of_the_service() {
    let mut lab = Lab::new();
    let _pages = FreeHugePages::reserve(128);
    for (name, peer, n) in [("lan", "wan", 0), ("wan", "lan", 1)] {
        lab.ports.push(lab::config::Port {
            name: name.into(),
            zone: name.into(),
            peer: peer.into(),
            device: format!("vdev:net_null{n}"),
            mtu: None,
        });
    }
    let public = Public::new();
    let config = Config::allow_all()
        .node("hugepages", "true")
        .node("memory_mib", "128");
    let mut process = public.start(&lab, config, None);
    ready(&mut process);
    assert_eq!(Api::new(&public.socket()).get("/v1/status")["state"], "ready");
    stop(process);
}

/// ... and with the drop-in's, for kernel interfaces.
#[test]
fn kernel_interfaces_take_the_capabilities_of_the_drop_in() {
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let public = Public::new();
    let mut process = public.start(&lab, Config::allow_all(), Some("dropins/kernel-interfaces.conf"));
    ready(&mut process);
    client.ping(server.v4, 3);
    stop(process);
    // Without it they are refused, in words.
    let mut process = public.start(&lab, Config::allow_all(), None);
    assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
    assert!(process.stderr().contains("CAP_SYS_ADMIN"), "{}", process.stderr());
}

/// All system calls of a group, and of those in it.
fn system_calls(group: &str, found: &mut BTreeSet<String>) {
    let listed = run(Command::new("systemd-analyze").args(["syscall-filter", group]));
    for line in listed.lines().map(str::trim) {
        match line {
            "" => {}
            name if name == group || name.starts_with('#') => {}
            name if name.starts_with('@') => system_calls(name, found),
            name => drop(found.insert(name.to_owned())),
        }
    }
}

/// A whole life under strace: no system call that SystemCallFilter refuses, no memory that is writable and executable, no family of addresses
/// that RestrictAddressFamilies does not name.
#[test]
fn a_node_stays_within_the_service_s_hardening() {
    let drop_in = Some("dropins/kernel-interfaces.conf");
    let mut allowed = BTreeSet::new();
    for name in service("SystemCallFilter", drop_in) {
        match name.starts_with('@') {
            true => system_calls(&name, &mut allowed),
            false => drop(allowed.insert(name)),
        }
    }
    let families = service("RestrictAddressFamilies", None);
    let mut lab = Lab::new();
    let (client, server) = lab.pair("lan", "wan");
    let log = lab.dir().join("strace");
    let file = lab.file(
        "haechi.toml",
        lab.render(&Config::new(
            "[[rule]]\nname = \"all\"\naction = \"allow\"\n[metrics]\nlisten = \"127.0.0.1:9464\"\n",
        )),
    );
    let mut command = lab.firewall.command("strace");
    command
        .args(["-f", "-qq", "-s", "16", "-o"])
        .arg(&log)
        .arg(HAECHI)
        .arg("run")
        .arg("-c")
        .arg(file);
    let mut process = Process::spawn(&mut command, lab.dir(), "strace");
    ready(&mut process);
    client.ping(server.v4, 3);
    lab.firewall
        .exec("curl -sS --fail -o /dev/null http://127.0.0.1:9464/metrics");
    // strace passes a signal to it on to nobody: to the node itself.
    let pid = Api::new(&lab.socket()).get("/v1/status")["pid"].as_i64().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
    let trace = std::fs::read(&log).unwrap();
    let trace = String::from_utf8_lossy(&trace);
    let (mut calls, mut lines) = (BTreeSet::new(), 0);
    for line in trace.lines() {
        // PID name(arguments
        let Some((name, arguments)) = line
            .split_once(' ')
            .and_then(|(_, call)| call.trim_start().split_once('('))
        else {
            continue;
        };
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        lines += 1;
        calls.insert(name.to_owned());
        let executable = arguments.contains("PROT_EXEC");
        match name {
            "mmap" => assert!(!(executable && arguments.contains("PROT_WRITE")), "{line}"),
            "mprotect" | "pkey_mprotect" => assert!(!executable, "{line}"),
            "socket" => {
                let family = arguments.split(',').next().unwrap();
                assert!(families.iter().any(|allowed| allowed == family), "{line}");
            }
            _ => {}
        }
    }
    assert!(lines > 1000 && calls.contains("bpf"), "{lines} lines: {calls:?}");
    // The EAL asks for I/O ports in case of old virtio devices, and goes on without them: EPERM is what it gets without CAP_SYS_RAWIO, too.
    let refused: Vec<_> = calls.difference(&allowed).map(String::as_str).collect();
    assert_eq!(refused, ["iopl"]);
}
