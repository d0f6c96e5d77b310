//! Receive interrupts: how a queue announces packets while nobody polls it.
#![allow(
    clippy::disallowed_types,
    reason = "arming is for workers that go to sleep, not for the fast path"
)]

use std::sync::{Mutex, PoisonError};

use super::{
    super::{error::Result, log, sys, wake::Announcer},
    driver::Interrupts,
    open::Open,
    strerror,
};

/// One queue's.
#[derive(Clone, Copy, Debug)]
pub(in crate::dpdk) struct Interrupt {
    pub(in crate::dpdk) announcer: Announcer,
    kind: Interrupts,
}

/// Held while a queue is armed or disarmed: drivers change registers and shadows of them that the queues of a port share
/// (net_ixgbe), and leave it to their callers that two do not at once.
#[derive(Debug, Default)]
pub(super) struct ArmLock(Mutex<()>);

impl Interrupt {
    pub(in crate::dpdk) fn arm(self, open: &Open, queue: u16) -> bool {
        match self.kind {
            Interrupts::Readable => true,
            Interrupts::None => false,
            Interrupts::Guest if !open.link().up => false,
            Interrupts::Masked | Interrupts::Guest | Interrupts::Unmasked => open.arm(queue) == 0,
        }
    }

    pub(in crate::dpdk) fn disarm(self, open: &Open, queue: u16) {
        if matches!(self.kind, Interrupts::Masked | Interrupts::Guest) {
            open.disarm(queue);
        }
    }
}

/// What a started device has of the interrupts that it was configured for.
enum Found {
    /// One for each queue.
    All(Vec<Interrupt>),
    /// The driver knows none, and so nothing was changed by asking for them.
    Ignored,
    /// Not enough, or not usable.
    Unusable(String),
}

impl Open {
    fn arm(&self, queue: u16) -> i32 {
        let _one = self.arm_lock.0.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: a started port (queue handles keep it so, and so does `&mut self` at its start) and a queue of its.
        unsafe { sys::rte_eth_dev_rx_intr_enable(self.id, queue) }
    }

    fn disarm(&self, queue: u16) {
        let _one = self.arm_lock.0.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: as above. An error says that there was nothing to take back.
        unsafe { sys::rte_eth_dev_rx_intr_disable(self.id, queue) };
    }

    /// Starts the device: with receive interrupts if it was configured for them, without if it cannot have them after all.
    pub(super) fn start_device(&mut self) -> Result<()> {
        let mark = log::mark();
        let mut error = self.start_once();
        if self.rx_interrupts {
            let refused = match error {
                0 => match self.find_interrupts() {
                    Found::All(interrupts) => {
                        self.interrupts = interrupts;
                        None
                    }
                    Found::Ignored => {
                        tracing::debug!(port = %self.name, "its driver has no receive interrupts");
                        self.rx_interrupts = false;
                        None
                    }
                    Found::Unusable(why) => {
                        self.stop()?;
                        Some(why)
                    }
                },
                e => Some(format!("it does not start with them: {}", strerror(e))),
            };
            if let Some(why) = refused {
                self.without_interrupts(&why);
                self.set_up_again()?;
                error = self.start_once();
            }
        }
        if error == 0 {
            Ok(())
        } else {
            Err(self.driver_error("it does not start", error, mark))
        }
    }

    fn start_once(&mut self) -> i32 {
        // SAFETY: configured, its queues are set up, and no handle is out (`&mut self`).
        let error = unsafe { sys::rte_eth_dev_start(self.id) };
        self.started = error == 0;
        error
    }

    /// From here on the port has none.
    pub(super) fn without_interrupts(&mut self, why: &str) {
        tracing::info!(port = %self.name, "no receive interrupts, an idle worker sleeps by the clock: {why}");
        self.rx_interrupts = false;
        self.interrupts.clear();
    }

    /// Looks for every queue's interrupt, and tries whether it can be armed.
    fn find_interrupts(&self) -> Found {
        let kind = self.interrupt_kind;
        let mut found = Vec::new();
        for queue in 0..self.setup.rx_queues {
            if kind != Interrupts::Readable {
                match self.arm(queue) {
                    0 => {}
                    e if e == -libc::ENOTSUP && queue == 0 => return Found::Ignored,
                    e => return Found::Unusable(format!("queue {queue} cannot be armed: {}", strerror(e))),
                }
            }
            // SAFETY: a started port and a queue of its; reads the driver's list.
            let fd = unsafe { sys::rte_eth_dev_rx_intr_ctl_q_get_fd(self.id, queue) };
            if fd < 0 {
                return Found::Unusable(format!("queue {queue} has no descriptor for them"));
            }
            let announcer = match kind {
                Interrupts::Readable => Announcer::Readable(fd),
                _ => Announcer::Interrupt(fd),
            };
            let interrupt = Interrupt { announcer, kind };
            // Workers begin by polling.
            interrupt.disarm(self, queue);
            found.push(interrupt);
        }
        Found::All(found)
    }
}
