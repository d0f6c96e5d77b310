//! What arrives at an interface, frame by frame, tags and all.

use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use pcap_file::pcap::PcapReader;

use super::netns::Netns;

/// A running tcpdump. (A packet socket alone would lose the VLAN tag that the kernel takes off; libpcap puts it back.)
pub struct Capture {
    child: Child,
    frames: Receiver<Vec<u8>>,
    backlog: Vec<Vec<u8>>,
}

/// Reads tcpdump's output until there is no more, or nobody to listen.
fn relay(stdout: ChildStdout, to_start: &Sender<()>, to_test: &Sender<Vec<u8>>) {
    // The file header is written once the capture runs.
    let mut reader = PcapReader::new(stdout).unwrap();
    let _ = to_start.send(());
    while let Some(Ok(packet)) = reader.next_packet() {
        if to_test.send(packet.data.into_owned()).is_err() {
            return;
        }
    }
}

impl Capture {
    /// Captures the frames that come in by an interface; returns when it has begun.
    #[must_use]
    pub fn start(ns: &Netns, interface: &str, filter: &str) -> Self {
        let mut child = ns
            .command("tcpdump")
            .args([
                "-i",
                interface,
                "-Q",
                "in",
                "--immediate-mode",
                "-U",
                "-n",
                "-Z",
                "root",
            ])
            .args(["-B", "16384", "-w", "-"])
            .args(filter.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (to_test, frames) = channel();
        let (to_start, started) = channel();
        std::thread::spawn(move || relay(stdout, &to_start, &to_test));
        started.recv_timeout(super::PATIENCE).expect("tcpdump starts");
        Self {
            child,
            frames,
            backlog: Vec::new(),
        }
    }

    /// The next frame, if one arrives in time.
    pub fn next_within(&mut self, patience: Duration) -> Option<Vec<u8>> {
        if !self.backlog.is_empty() {
            return Some(self.backlog.remove(0));
        }
        match self.frames.recv_timeout(patience) {
            Ok(frame) => Some(frame),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("tcpdump ended: is its interface gone?"),
        }
    }

    /// Waits for exactly this frame, byte for byte; frames before it are kept for later calls.
    pub fn expect(&mut self, frame: &[u8]) {
        self.expect_that(&format!("a frame of {} bytes as it was sent", frame.len()), |f| {
            f == frame
        });
    }

    /// Waits for a frame with a property, and returns it; frames before it are kept for later calls.
    pub fn expect_that(&mut self, what: &str, property: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        if let Some(i) = self.backlog.iter().position(|f| property(f)) {
            return self.backlog.remove(i);
        }
        let deadline = Instant::now() + super::PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.frames.recv_timeout(left) {
                Ok(frame) if property(&frame) => return frame,
                Ok(frame) => self.backlog.push(frame),
                Err(e) => panic!(
                    "{what}: did not arrive ({e}); {} other frames did: {:02x?}",
                    self.backlog.len(),
                    self.backlog.iter().take(4).collect::<Vec<_>>()
                ),
            }
        }
    }

    /// All frames that have arrived so far and were not asked for.
    pub fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut frames = std::mem::take(&mut self.backlog);
        frames.extend(self.frames.try_iter());
        frames
    }

    /// Waits until `count` frames are there, and returns them in their order.
    pub fn collect(&mut self, count: usize) -> Vec<Vec<u8>> {
        let frames = self.collect_up_to(count);
        assert!(
            frames.len() >= count,
            "{} of {count} frames arrived: {frames:02x?}",
            frames.len()
        );
        frames
    }

    /// Waits until `count` frames are there or no more come, and returns them in their order.
    pub fn collect_up_to(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut frames = std::mem::take(&mut self.backlog);
        let deadline = Instant::now() + super::PATIENCE;
        while frames.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.frames.recv_timeout(left) {
                Ok(frame) => frames.push(frame),
                Err(_) => break,
            }
        }
        frames
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
