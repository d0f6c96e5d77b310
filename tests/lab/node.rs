//! The program under test: started, asked, balanced, stopped.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::api::{Api, Counters};
use super::{Config, Lab, Process, wait_for, wait_for_within};

/// The program of this build.
pub const HAECHI: &str = env!("CARGO_BIN_EXE_haechi");

/// A `haechi run`, maybe not ready, maybe never to be.
pub struct Running {
    /// The process.
    pub process: Process,
    /// Its configuration file.
    pub file: PathBuf,
    /// Its control API.
    pub api: Api,
}

impl Running {
    /// Starts the program with this configuration text, in the lab's firewall namespace.
    #[must_use]
    pub fn spawn(lab: &Lab, text: &str) -> Self {
        let file = lab.file("haechi.toml", text);
        // In front of the program alone, and not of those that start it.
        let mut command = lab.firewall.command("env");
        command.args(&lab.environment).arg(HAECHI);
        command.arg("run").arg("-c").arg(&file);
        let process = Process::spawn(&mut command, lab.dir(), "haechi");
        Self {
            process,
            file,
            api: Api::new(&lab.socket()),
        }
    }

    /// Waits for the line `ready`.
    pub fn wait_ready(&mut self) {
        wait_for("haechi is ready", || {
            if let Some(status) = self.process.ended() {
                panic!(
                    "haechi: {status}\n{}\n{}",
                    self.process.stdout(),
                    self.process.stderr()
                );
            }
            if self.process.stdout().lines().any(|line| line == "ready") {
                Ok(())
            } else {
                Err(self.process.stderr())
            }
        });
    }
}

/// A node in service. When it is dropped, unless the test has failed already, it must balance and stop cleanly.
pub struct Node {
    running: Running,
    /// Its control API.
    pub api: Api,
    /// mbufs outside the pool when it was ready: the fewest that were ever seen at rest, because a neighbour's first packet may
    /// have been on its way.
    baseline: Cell<u64>,
    finished: bool,
}

impl Node {
    /// Starts a node and waits until it is ready.
    #[must_use]
    pub fn start(lab: &Lab, config: &Config) -> Self {
        Self::start_text(lab, &lab.render(config))
    }

    /// [`Node::start`] with the whole text of the file.
    #[must_use]
    pub fn start_text(lab: &Lab, text: &str) -> Self {
        let mut running = Running::spawn(lab, text);
        running.wait_ready();
        let api = running.api.clone();
        let node = Self {
            running,
            api,
            baseline: Cell::new(0),
            finished: false,
        };
        node.baseline.set(node.buffers_in_use());
        node
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.running.process
    }

    /// Its configuration file.
    #[must_use]
    pub fn file(&self) -> &PathBuf {
        &self.running.file
    }

    /// Runs the program as a client of this node; panics if it fails.
    pub fn cli(&self, line: &str) -> String {
        let (ok, stdout, stderr) = self.try_cli(line);
        assert!(ok, "haechi {line}: {stdout}{stderr}");
        stdout
    }

    /// Runs the program as a client of this node: success, standard output, standard error.
    pub fn try_cli(&self, line: &str) -> (bool, String, String) {
        let output = Command::new(HAECHI)
            .args(line.split_whitespace())
            .arg("--socket")
            .arg(self.running.file.with_file_name("haechi.sock"))
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    /// Its counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.api.counters()
    }

    /// Waits until the node has taken in exactly this many packets more than `since`, and none is on its way; returns
    /// the counters then.
    pub fn settled_after(&self, since: &Counters, packets: u64) -> Counters {
        wait_for(&format!("{packets} packets come in and are dealt with"), || {
            let now = self.counters();
            let taken = now.rx_packets - since.rx_packets;
            if taken == packets && now.imbalance() == 0 && now.held == 0 {
                Ok(now)
            } else {
                Err(format!("{taken} so far: {now:?}"))
            }
        })
    }

    /// [`Node::settled_after`], but fragments may be held.
    pub fn settled_after_holding(&self, since: &Counters, packets: u64) -> Counters {
        wait_for(&format!("{packets} packets come in"), || {
            let now = self.counters();
            let taken = now.rx_packets - since.rx_packets;
            if taken == packets && now.imbalance() == 0 && now.held == now.fragments_held {
                Ok(now)
            } else {
                Err(format!("{taken} so far: {now:?}"))
            }
        })
    }

    /// Waits until a counter of drops has grown by `by` since.
    pub fn wait_drops(&self, since: &Counters, reason: &str, by: u64) {
        wait_for(&format!("{by} drops for {reason}"), || {
            let now = self.counters();
            let grown = now.drop_of(reason) - since.drop_of(reason);
            if grown == by {
                Ok(())
            } else {
                Err(format!("{grown} so far: {now:?}"))
            }
        });
    }

    /// Waits until a port's link is as said; returns the port.
    pub fn wait_link(&self, port: &str, up: bool) -> serde_json::Value {
        wait_for(
            &format!("port {port} is {}", if up { "up" } else { "down" }),
            || {
                let now = self.api.port(port);
                if now["link_up"] == up {
                    Ok(now)
                } else {
                    Err(now.to_string())
                }
            },
        )
    }

    fn buffers_in_use(&self) -> u64 {
        self.api.get("/v1/status")["packet_buffers_in_use"]
            .as_u64()
            .expect("packet_buffers_in_use")
    }

    /// Waits until the node is at rest and its accounts agree, exactly: packets in and made = packets out, dropped
    /// and held; the same summed over workers; ports' and workers' counts of the same packets; no mbuf missing.
    pub fn balance(&self) -> Counters {
        wait_for_within(Duration::from_secs(5), "the node's accounts balance", || {
            let before = self.counters();
            let (ports, workers) = (self.api.get("/v1/ports"), self.api.get("/v1/workers"));
            let in_use = self.buffers_in_use();
            self.baseline.set(self.baseline.get().min(in_use));
            let after = self.counters();
            let sum = |list: &serde_json::Value, key: &str| -> u64 {
                let entries = list.as_array().expect("a list").iter();
                entries
                    .map(|e| e[key].as_u64().unwrap_or_else(|| panic!("no {key} in {e}")))
                    .sum()
            };
            let (ports, workers) = (&ports["ports"], &workers["workers"]);
            let checks = [
                ("counters moved", i128::from(before != after), 0),
                ("in + originated - out - dropped - held", after.imbalance(), 0),
                ("held", after.held.into(), 0),
                (
                    "malformed by kind",
                    after.malformed.values().sum::<u64>().into(),
                    after.drop_of("malformed").into(),
                ),
                (
                    "workers' packets",
                    sum(workers, "packets").into(),
                    after.rx_packets.into(),
                ),
                (
                    "workers' dropped",
                    sum(workers, "dropped").into(),
                    after.dropped().into(),
                ),
                (
                    "workers' originated",
                    sum(workers, "originated").into(),
                    after.originated.into(),
                ),
                (
                    "ports' rx_packets",
                    sum(ports, "rx_packets").into(),
                    after.rx_packets.into(),
                ),
                (
                    "ports' tx_packets",
                    sum(ports, "tx_packets").into(),
                    after.tx_packets.into(),
                ),
                (
                    "sessions",
                    sum(workers, "sessions").into(),
                    i128::from(after.sessions_created) - i128::from(after.sessions_ended),
                ),
                ("mbufs in use", in_use.into(), self.baseline.get().into()),
            ];
            let wrong: Vec<_> = checks.iter().filter(|(_, is, should)| is != should).collect();
            if wrong.is_empty() {
                Ok(after)
            } else {
                Err(format!("(what, is, should be): {wrong:?}; {after:?}"))
            }
        })
    }

    /// Balances the node, stops it with SIGTERM, and returns what it printed.
    pub fn finish(mut self) -> String {
        self.stop_checked()
    }

    /// Stops the node with SIGTERM without the balance of a node at rest, for tests that stop it under load. It must
    /// exit with 0. Returns what it printed.
    pub fn stop(mut self) -> String {
        self.finished = true;
        self.terminate()
    }

    fn terminate(&mut self) -> String {
        self.running.process.signal(Signal::SIGTERM);
        let status = self.running.process.wait();
        let (stdout, stderr) = (self.running.process.stdout(), self.running.process.stderr());
        assert!(status.success(), "haechi: {status}\n{stdout}{stderr}");
        stdout
    }

    fn stop_checked(&mut self) -> String {
        self.finished = true;
        if let Some(status) = self.running.process.ended() {
            panic!(
                "haechi ended by itself: {status}\n{}",
                self.running.process.stderr()
            );
        }
        self.balance();
        self.terminate()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- haechi said:\n{}{}",
                self.running.process.stdout(),
                self.running.process.stderr()
            );
        } else if !self.finished {
            self.stop_checked();
        }
    }
}
