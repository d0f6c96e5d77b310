//! `deploy/quickstart.sh`: everything passes, and nothing is left, also when it is interrupted.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lab::{Process, process, wait_for};
use nix::sys::signal::Signal;

struct Quickstart {
    name: String,
    dir: tempfile::TempDir,
    _turn: lab::netns::Turn,
}

impl Quickstart {
    fn new() -> Self {
        let turn = lab::netns::Turn::take();
        let name = lab::netns::unique_prefix();
        let dir = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir()
            .unwrap();
        Self {
            name,
            dir,
            _turn: turn,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // The tests may run in the background of a shell, where SIGINT is ignored.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/quickstart.sh"));
        command.env("HAECHI_QUICKSTART", &self.name).args(arguments);
        command
    }

    fn start(&self, arguments: &[&str]) -> Process {
        let all = [&["--binary", lab::node::HAECHI], arguments].concat();
        Process::spawn(&mut self.command(&all), self.dir.path(), "quickstart")
    }

    /// Namespaces, state and logs that carry its name.
    fn left(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for directory in ["/run/netns", "/run", "/tmp"] {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let mine = entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(&format!("{}-", self.name));
                if mine && entry.path() != self.dir.path() {
                    left.push(entry.path());
                }
            }
        }
        left
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        let _ = self.command(&["--stop"]).output();
    }
}

#[test]
fn it_shows_everything_and_leaves_nothing() {
    let quickstart = Quickstart::new();
    let mut run = quickstart.start(&[]);
    let status = run.wait_within(Duration::from_secs(60));
    let said = run.stdout();
    let logs = || {
        let logs = quickstart
            .left()
            .into_iter()
            .filter(|f| f.extension().is_some_and(|e| e == "log"));
        logs.map(|f| std::fs::read_to_string(f).unwrap_or_default())
            .collect::<String>()
    };
    assert!(status.success(), "{said}{}{}", run.stderr(), logs());
    assert!(!said.contains("[FAIL]"), "{said}");
    for word in [
        "ping",
        "curl",
        "iperf3",
        "port 23",
        "port 25",
        "unsolicited",
        "show sessions",
        "show counters",
        "cleanly",
    ] {
        assert!(
            said.lines().any(|l| l.starts_with("[pass]") && l.contains(word)),
            "no {word}: {said}"
        );
    }
    // Its tables are for a terminal of 80 columns where there is none.
    let tables = said
        .split("[pass] ")
        .filter(|part| part.starts_with("haechi show "));
    for line in tables.flat_map(str::lines) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert_eq!(run.stderr(), "");
    assert_eq!(quickstart.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_binary_that_is_not_there_is_wrong_usage() {
    let quickstart = Quickstart::new();
    let file = quickstart.dir.path().join("not-a-program");
    std::fs::write(&file, "").unwrap();
    for (arguments, why) in [
        (&["--binary"][..], "needs the file of a haechi program"),
        (&["--keep", "--binary"], "needs the file of a haechi program"),
        (
            &["--binary", "/nonexistent"],
            "--binary /nonexistent: there is no such program",
        ),
        (&["--binary", ""], "there is no such program"),
        (&["--binary", "/tmp"], "there is no such program"),
        (&["--binary", file.to_str().unwrap()], "there is no such program"),
    ] {
        let output = quickstart.command(arguments).output().unwrap();
        let (said, complaint) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(
            (output.status.code(), &*said),
            (Some(2), ""),
            "{arguments:?}: {complaint}"
        );
        assert!(
            complaint.contains(why) && complaint.lines().count() == 1,
            "{complaint}"
        );
    }
    // A path that is relative is so to where the user is.
    let mut command = quickstart.command(&["--binary", "not-a-program", "--stop"]);
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(
        process::run(command.current_dir(quickstart.dir.path())),
        "nothing to stop\n"
    );
}

#[test]
fn what_somebody_else_made_is_left_alone() {
    for which in ["client", "server", "firewall"] {
        let quickstart = Quickstart::new();
        let theirs = lab::Netns::new(&format!("{}-{which}", quickstart.name));
        let mut run = quickstart.start(&[]);
        assert_eq!(run.wait().code(), Some(1), "{}", run.stdout());
        let said = run.stdout();
        assert!(
            said.contains(&format!(
                "[FAIL] there are network namespaces of these names, not made here: {}.",
                theirs.name()
            )),
            "{said}"
        );
        assert_eq!(
            process::run(&mut quickstart.command(&["--stop"])),
            "nothing to stop\n"
        );
        assert_eq!(quickstart.left(), [Path::new("/run/netns").join(theirs.name())]);
    }
}

#[test]
fn an_interrupt_leaves_nothing() {
    for (signal, after) in [(Signal::SIGINT, "ready between"), (Signal::SIGTERM, "curl http")] {
        let quickstart = Quickstart::new();
        let mut run = quickstart.start(&[]);
        wait_for(after, || {
            if run.stdout().contains(after) {
                Ok(())
            } else {
                Err(run.stdout())
            }
        });
        run.signal(signal);
        assert!(!run.wait_within(Duration::from_secs(20)).success());
        assert_eq!(
            quickstart.left(),
            Vec::<PathBuf>::new(),
            "after {signal} at {after}"
        );
    }
}

#[test]
fn kept_it_goes_on_until_it_is_stopped() {
    let quickstart = Quickstart::new();
    let run = quickstart.start(&["--keep"]);
    let said = run.finish_within(Duration::from_secs(60));
    assert!(said.contains("deploy/quickstart.sh --stop"), "{said}");
    let client = format!("{}-client", quickstart.name);
    let fetch = |command: &mut Command| {
        command
            .args([
                "netns",
                "exec",
                &client,
                "curl",
                "--silent",
                "--max-time",
                "5",
                "http://10.77.0.2/",
            ])
            .output()
            .unwrap()
    };
    assert_eq!(fetch(&mut Command::new("ip")).stdout, b"Hello through haechi.\n");
    // A second one does not disturb the first.
    let mut second = quickstart.start(&[]);
    assert_eq!(second.wait().code(), Some(1), "{}", second.stdout());
    assert_eq!(fetch(&mut Command::new("ip")).stdout, b"Hello through haechi.\n");
    process::run(&mut quickstart.command(&["--stop"]));
    let left: Vec<_> = quickstart
        .left()
        .into_iter()
        .filter(|f| f.extension().is_none())
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}
