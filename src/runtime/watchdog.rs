//! systemd's watchdog (`WatchdogSec=`, `sd_watchdog_enabled(3)`): fed while every worker turns. One that does not is a node that holds packets
//! up although its process lives: systemd ends it and starts it anew.

use std::ffi::{OsStr, OsString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::command::WorkerLink;
use super::notify::notify;

/// A sleeping worker turns once in this time at least ([`super::idle::Idle::LONGEST_EVENT_WAIT`]), and says so within a millisecond; the rest
/// is for the scheduler.
const SHORTEST_LOOK: Duration = Duration::from_millis(25);
/// The stop of the node waits no longer than this for the watchdog.
const SLICE: Duration = Duration::from_millis(50);

/// The watchdog that the service manager asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// How often it is looked whether all workers turn: four times in the manager's time limit.
    look_every: Duration,
}

impl Watchdog {
    /// As the environment says; `None`: nobody wants it of this process.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let variable = std::env::var_os::<&str>;
        Self::asked(
            variable("WATCHDOG_USEC"),
            variable("WATCHDOG_PID"),
            std::process::id(),
        )
    }

    fn asked(usec: Option<OsString>, pid: Option<OsString>, own: u32) -> Option<Self> {
        let number = |text: &OsStr| text.to_str()?.parse::<u64>().ok();
        let usec = usec?;
        // Another process's, which left its environment to this one.
        if pid.is_some_and(|pid| number(&pid) != Some(u64::from(own))) {
            return None;
        }
        let Some(limit) = number(&usec).filter(|usec| *usec > 0) else {
            warn!(
                "WATCHDOG_USEC={} is no time: the watchdog is not fed",
                usec.to_string_lossy()
            );
            return None;
        };
        let look_every = Duration::from_micros(limit / 4).max(SHORTEST_LOOK);
        if look_every * 2 > Duration::from_micros(limit) {
            warn!(
                "WatchdogSec of {limit} microseconds is too short: an idle node may be ended; 100 ms and more are safe"
            );
        }
        Some(Self { look_every })
    }

    /// Feeds the watchdog until `stop`, each time that all of `workers` have turned since it looked last.
    #[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
    pub fn feed(self, workers: &[WorkerLink], stop: &AtomicBool) {
        let mut progress = Progress::default();
        let mut well = true;
        while !stop.load(Ordering::Acquire) {
            let still = progress.still(workers.iter().map(|worker| worker.stats().turns()));
            if still.is_empty() {
                if !well {
                    info!("all workers turn again");
                }
                if let Err(e) = notify("WATCHDOG=1") {
                    warn!("cannot tell systemd: {e}");
                }
            } else if well {
                warn!("workers that do not turn: {still:?}; systemd is not told that the node is well");
            }
            well = still.is_empty();
            let until = Instant::now() + self.look_every;
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                std::thread::sleep(left.min(SLICE).max(Duration::from_micros(1)));
            }
        }
    }
}

/// How far the workers had come when they were looked at last.
#[derive(Debug, Default)]
struct Progress {
    turns: Vec<u64>,
}

impl Progress {
    /// Which workers have not turned since the last look. At the first look all have.
    fn still(&mut self, turns: impl Iterator<Item = u64>) -> Vec<usize> {
        let before = std::mem::replace(&mut self.turns, turns.collect());
        let pairs = before.iter().zip(&self.turns).enumerate();
        pairs
            .filter(|(_, (before, now))| before == now)
            .map(|(worker, _)| worker)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(usec: &str, pid: Option<&str>) -> Option<Duration> {
        let watchdog = Watchdog::asked(Some(usec.into()), pid.map(OsString::from), 7);
        watchdog.map(|watchdog| watchdog.look_every)
    }

    #[test]
    fn it_is_fed_four_times_in_its_time_if_it_is_this_process_s() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(asked("4000000", None), second);
        assert_eq!(asked("4000000", Some("7")), second);
        assert_eq!(asked("4000000", Some("8")), None);
        assert_eq!(asked("4000000", Some("")), None);
        assert_eq!(Watchdog::asked(None, Some("7".into()), 7), None);
        for nonsense in ["", "0", "-1", "1s", "99999999999999999999"] {
            assert_eq!(asked(nonsense, None), None, "{nonsense}");
        }
        assert_eq!(asked("1000", None), Some(SHORTEST_LOOK));
    }

    #[test]
    fn one_worker_that_stands_still_is_enough() {
        let mut progress = Progress::default();
        let mut still = |turns: [u64; 3]| progress.still(turns.into_iter());
        assert_eq!(still([5, 5, 0]), [0_usize; 0]);
        assert_eq!(still([6, 7, 1]), [0_usize; 0]);
        assert_eq!(still([7, 7, 1]), [1, 2]);
        assert_eq!(still([7, 8, 2]), [0]);
        assert_eq!(still([8, 9, 3]), [0_usize; 0]);
    }
}
