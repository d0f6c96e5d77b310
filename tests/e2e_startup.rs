//! A node that cannot start says so in one line with the fix, exits 1, and leaves nothing behind.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/hugepages.rs"]
mod hugepages;
mod lab;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use hugepages::FreeHugePages;
use lab::api::Api;
use lab::node::HAECHI;
use lab::process::{Process, run};
use lab::{Config, Lab, Running};
use nix::sys::signal::Signal;

/// The one line that a start that must fail leaves on standard error.
fn refusal(lab: &Lab, mut process: Process) -> String {
    let status = process.wait();
    let (stdout, stderr) = (process.stdout(), process.complaints());
    assert_eq!(status.code(), Some(1), "{stdout}{stderr}");
    assert_eq!(stdout, "", "{stderr}");
    let lines: Vec<_> = stderr.lines().filter(|l| !l.trim().is_empty()).collect();
    assert_eq!(lines.len(), 1, "one clear line: {stderr}");
    assert_nothing_left(lab);
    lines[0].into()
}

/// Neither a socket, nor an XDP program, nor an interface set down.
fn assert_nothing_left(lab: &Lab) {
    assert!(!lab.socket().exists());
    for port in &lab.ports {
        let near = format!("p-{}", port.name);
        if let Some(link) = lab.firewall.link(&near) {
            assert!(link["xdp"].is_null(), "{link}");
            assert!(lab.firewall.carrier(&near), "{link}");
        }
    }
}

fn refused(lab: &Lab, text: &str) -> String {
    refusal(lab, Running::spawn(lab, text).process)
}

fn assert_says(line: &str, words: &[&str]) {
    for word in words {
        assert!(
            line.to_lowercase().contains(&word.to_lowercase()),
            "does not say {word}: {line}"
        );
    }
}

/// A node can be started after the failure as if nothing had been.
fn assert_starts(lab: &Lab) {
    lab.start(Config::allow_all()).finish();
}

#[test]
fn a_device_that_does_not_exist() {
    let mut lab = Lab::new();
    let (a, _b) = lab.raw_pair("lan", "wan");
    let good = lab.render(&Config::allow_all());
    let line = refused(
        &lab,
        &good.replace(&format!("iface={}", a.near), "iface=nowhere0"),
    );
    assert_says(&line, &["lan", "nowhere0"]);
    let line = refused(
        &lab,
        &good.replace(&lab.ports[1].device, "vdev:net_nonesuch0,iface=x"),
    );
    assert_says(&line, &["wan", "net_nonesuch0"]);
    let line = refused(&lab, &good.replace(&lab.ports[1].device, "0000:7f:1f.7"));
    assert_says(&line, &["wan", "0000:7f:1f.7"]);
    assert_starts(&lab);
}

#[test]
fn a_port_used_twice() {
    let mut lab = Lab::new();
    let (_a, _b) = lab.raw_pair("lan", "wan");
    let good = lab.render(&Config::allow_all());
    // In one file, and by another node that runs.
    let mut process = Running::spawn(&lab, &good.replace(&lab.ports[1].device, &lab.ports[0].device)).process;
    assert_eq!(process.wait().code(), Some(1));
    assert_says(&process.stderr(), &["lan", "wan", "device"]);
    assert_nothing_left(&lab);
    let node = lab.start(Config::allow_all());
    let other = lab.dir().join("other.sock");
    let line = {
        let text = lab.render(
            &Config::allow_all().node("control_socket", &format!("{:?}", other.display().to_string())),
        );
        let file = lab.file("other.toml", text);
        let mut process = Process::spawn(
            lab.firewall.command(HAECHI).arg("run").arg("-c").arg(file),
            lab.dir(),
            "other",
        );
        assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
        assert!(!other.exists());
        process.complaints()
    };
    assert_eq!(line.lines().count(), 1, "{line}");
    assert_says(&line, &["lan", "another process"]);
    drop(node);
    assert_starts(&lab);
}

#[test]
fn too_little_memory_or_too_few_huge_pages_or_buffers() {
    let mut lab = Lab::new();
    let (_a, _b) = lab.raw_pair("lan", "wan");
    let line = refused(
        &lab,
        &lab.render(&Config::allow_all().node("packet_buffers", "255")),
    );
    assert_says(&line, &["packet_buffers"]);
    let line = refused(&lab, &lab.render(&Config::allow_all().node("memory_mib", "16")));
    assert_says(&line, &["memory_mib"]);
    // A tebibyte is more than a machine that runs tests has, so that it is refused with huge pages set up and without.
    let line = refused(
        &lab,
        &lab.render(
            &Config::allow_all()
                .node("hugepages", "true")
                .node("memory_mib", "1048576"),
        ),
    );
    assert_says(&line, &["huge page", "hugepages = false"]);
    assert_starts(&lab);
}

#[test]
fn huge_pages_are_used_and_no_file_of_them_is_left() {
    let mut lab = Lab::new();
    let _pages = FreeHugePages::reserve(128);
    let (_a, _b) = lab.raw_pair("lan", "wan");
    let config = Config::allow_all()
        .node("hugepages", "true")
        .node("memory_mib", "128");
    lab.start(config).finish();
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    for mount in mounts.lines().filter(|l| l.contains(" hugetlbfs ")) {
        let directory = mount.split(' ').nth(1).unwrap();
        for file in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            assert!(
                !file.file_name().to_string_lossy().contains("haechi"),
                "{file:?} is left"
            );
        }
    }
}

#[test]
fn a_socket_path_in_use() {
    let mut lab = Lab::new();
    let (_a, _b) = lab.raw_pair("lan", "wan");
    let text = lab.render(&Config::allow_all());
    // By another process that listens there.
    let listener = std::os::unix::net::UnixListener::bind(lab.socket()).unwrap();
    let mut process = Running::spawn(&lab, &text).process;
    assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
    assert_eq!(process.complaints().lines().count(), 1, "{}", process.stderr());
    assert_says(&process.stderr(), &["haechi.sock", "in use"]);
    assert!(lab.socket().exists(), "somebody else's socket");
    drop(listener);
    // A socket that nobody listens at any more is only in the way.
    assert_starts(&lab);
    // Something that is no socket is not ours to remove.
    std::fs::write(lab.socket(), "precious").unwrap();
    let mut process = Running::spawn(&lab, &text).process;
    assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
    assert_says(&process.stderr(), &["haechi.sock"]);
    assert_eq!(std::fs::read_to_string(lab.socket()).unwrap(), "precious");
    std::fs::remove_file(lab.socket()).unwrap();
}

/// `/run/haechi` is gone after every boot: a node makes the directory of its socket, and takes it away again. It makes one
/// directory, not a path.
#[test]
fn a_socket_in_a_missing_directory() {
    let mut lab = Lab::new();
    let (_a, _b) = lab.raw_pair("lan", "wan");
    let in_directory = |directory: &Path| {
        let socket = directory.join("haechi.sock").display().to_string();
        Config::allow_all().node("control_socket", &format!("{socket:?}"))
    };
    let deep = lab.dir().join("nowhere/at/all");
    let line = refused(&lab, &lab.render(&in_directory(&deep)));
    assert_says(
        &line,
        &["nowhere/at/all", "cannot make the directory", "control_socket"],
    );
    assert!(!lab.dir().join("nowhere").exists());
    let made = lab.dir().join("made");
    let mut running = Running::spawn(&lab, &lab.render(&in_directory(&made)));
    running.wait_ready();
    let socket = made.join("haechi.sock");
    assert_eq!(Api::new(&socket).get("/v1/status")["state"], "ready");
    running.process.signal(Signal::SIGTERM);
    let status = running.process.wait();
    assert_eq!(status.code(), Some(0), "{}", running.process.stderr());
    assert!(!made.exists(), "the directory that it made goes with it");
    // One that was there stays.
    std::fs::create_dir(&made).unwrap();
    let mut running = Running::spawn(&lab, &lab.render(&in_directory(&made)));
    running.wait_ready();
    running.process.signal(Signal::SIGTERM);
    assert_eq!(running.process.wait().code(), Some(0));
    assert!(made.exists() && !socket.exists());
    assert_starts(&lab);
}

#[test]
fn missing_privileges() {
    let mut lab = Lab::new();
    let (_a, _b) = lab.raw_pair("lan", "wan");
    // Everything that nobody may need of files: the binary, the configuration, a directory for the socket.
    let public = tempfile::Builder::new()
        .prefix("hxlab-nobody-")
        .tempdir()
        .unwrap();
    std::fs::set_permissions(public.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let binary = public.path().join("haechi");
    std::fs::copy(HAECHI, &binary).unwrap();
    let socket = public.path().join("haechi.sock");
    let config = Config::allow_all().node("control_socket", &format!("{:?}", socket.display().to_string()));
    let file = public.path().join("haechi.toml");
    std::fs::write(&file, lab.render(&config)).unwrap();
    let mut command = lab.firewall.command("setpriv");
    command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"]);
    command.arg(&binary).arg("run").arg("-c").arg(&file);
    let line = refusal(&lab, Process::spawn(&mut command, lab.dir(), "nobody"));
    assert!(
        line.contains("root") || line.contains("CAP_"),
        "says what it needs: {line}"
    );
    let left: Vec<_> = std::fs::read_dir(public.path())
        .unwrap()
        .map(|f| f.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_configuration_wrong_in_five_places_prints_five_errors() {
    let lab = Lab::new();
    let file = lab.file(
        "wrong.toml",
        r#"version = 1
[node]
name = "wrong"
mode = "transparent"
workers = "one"
memory_mib = "much"
[[port]]
name = "lan"
zone = "lan"
peer = "wam"
device = "vdev:net_null0"
[[port]]
name = "wan"
zone = "wan"
peer = "lan"
device = "vdev:net_null1"
[[rule]]
name = "web"
service = ["tcp/80000"]
colour = "red"
action = "allow"
"#,
    );
    for command in [vec!["check"], vec!["run", "-c"]] {
        let output = Command::new(HAECHI).args(&command).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        for (line, word) in [
            (5, "workers"),
            (6, "memory_mib"),
            (10, "wam"),
            (19, "80000"),
            (20, "colour"),
        ] {
            let place = format!("wrong.toml:{line}:");
            assert!(
                said.lines().any(|l| l.contains(&place)),
                "{command:?}: no error at line {line} ({word}): {said}"
            );
        }
    }
}

#[test]
fn wrong_usage_and_missing_files() {
    let nowhere = Command::new(HAECHI)
        .args(["run", "-c", "/nowhere/at/all.toml"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_says(&said, &["/nowhere/at/all.toml"]);
    assert_eq!(
        Command::new(HAECHI).args(["run"]).output().unwrap().status.code(),
        Some(2)
    );
    assert_eq!(
        Command::new(HAECHI)
            .args(["walk"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(2)
    );
    assert!(Path::new(HAECHI).exists() && run(Command::new(HAECHI).arg("--version")).starts_with("haechi "));
}
