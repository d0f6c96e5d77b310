//! Child processes that do not outlive the test, and one-shot commands.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs a command to its end and returns its standard output; panics with everything it said if it fails.
pub fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A child process; killed (by its id) and reaped when dropped.
pub struct Process {
    child: Child,
    what: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` with its output in files of `dir` (named after `what`).
    pub fn spawn(command: &mut Command, dir: &Path, what: &str) -> Self {
        let (stdout, stderr) = (dir.join(format!("{what}.out")), dir.join(format!("{what}.err")));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self {
            child,
            what: what.into(),
            stdout,
            stderr,
        }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// What it has printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// What it has complained of so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap()).into_owned()
    }

    /// The same without what a node of as many workers as this machine has CPUs always says.
    #[must_use]
    pub fn complaints(&self) -> String {
        let lines = self.stderr();
        let lines = lines.split_inclusive('\n');
        lines
            .filter(|line| !line.contains("every CPU has a worker"))
            .collect()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap_or_else(|e| panic!("{signal} to {}: {e}", self.what));
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_within(super::PATIENCE)
    }

    /// Waits for its end, with a deadline of its own.
    pub fn wait_within(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("{} ends", self.what);
        super::wait_for_within(patience, &what, || {
            self.child
                .try_wait()
                .unwrap()
                .ok_or_else(|| "still running".into())
        })
    }

    /// Waits for its end; panics with what it said unless it exits with 0. Returns its standard output.
    pub fn finish_within(mut self, patience: Duration) -> String {
        let status = self.wait_within(patience);
        let stdout = self.stdout();
        assert!(
            status.success(),
            "{}: {status}\n{stdout}{}",
            self.what,
            self.stderr()
        );
        stdout
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
