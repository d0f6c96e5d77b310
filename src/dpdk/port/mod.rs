//! A network port: a NIC by its PCI address or a virtual device.

mod descriptors;
mod device;
mod driver;
mod interrupts;
mod kernel;
mod open;
mod probe;
mod rss;

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::{Arc, atomic::Ordering},
};

pub use device::Device;
pub(super) use interrupts::Interrupt;
pub(super) use open::Open;
pub use rss::{RssAbilities, RssError, RssSetup};

use super::{
    Eal, Error, RxQueue, TxQueue, error::Result, mbuf::MAX_BURST, mempool::BufferUse, queue::QueueCounters,
    sys,
};
use crate::base::Nanos;
use crate::flow::owner::BucketTable;

/// What a port is configured with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSetup {
    /// Mbufs in the port's own pool, which its receive queues draw from.
    pub packet_buffers: u32,
    /// Receive queues; at most `PortInfo::max_rx_queues`.
    pub rx_queues: u16,
    /// Transmit queues: one for each worker; at most `PortInfo::max_tx_queues`.
    pub tx_queues: u16,
    /// Descriptors of each receive queue; adjusted to what the device takes.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue; adjusted to what the device takes.
    pub tx_descriptors: u16,
    /// Have the receive queues announce packets ([`RxQueue::announcer`]), where the device can.
    pub rx_interrupts: bool,
}

/// What is known of a port's device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortInfo {
    /// The poll-mode driver, such as `net_af_xdp`.
    pub driver: String,
    /// The MAC address.
    pub mac: [u8; 6],
    /// The kernel interface behind the port, where there is one.
    pub kernel_interface: Option<String>,
    /// The device reports its link by itself; `false`: ask the kernel interface.
    pub knows_link: bool,
    /// Receive queues at most.
    pub max_rx_queues: u16,
    /// Transmit queues at most.
    pub max_tx_queues: u16,
    /// The device verifies IPv4 header checksums.
    pub rx_ip_checksum: bool,
    /// The device verifies TCP and UDP checksums.
    pub rx_l4_checksum: bool,
    /// What it says of its RSS, before anything was tried ([`Port::rss`]).
    pub rss: RssAbilities,
}

/// A port's link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// There is a link.
    pub up: bool,
    /// Mbit/s; `None`: the device does not say.
    pub speed_mbps: Option<u32>,
}

/// A port's counters since it was opened. A driver that restarts its own (when it stops) does not make them go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received and handed to a queue's owner; counted by the queue handles, so exact with every driver.
    pub rx_packets: u64,
    /// Packets that the driver took for sending; counted by the queue handles.
    pub tx_packets: u64,
    /// Bytes received, without FCS.
    pub rx_bytes: u64,
    /// Bytes sent, without FCS.
    pub tx_bytes: u64,
    /// Packets that the device dropped because the receive ring was full.
    pub rx_missed: u64,
    /// Packets that the device received broken.
    pub rx_errors: u64,
    /// Packets that the driver could not send. (Some count each that a full queue did not take at once.)
    pub tx_errors: u64,
    /// Times that the driver found no packet buffer.
    pub rx_no_buffer: u64,
    /// Frames that arrived in several buffers and were dropped for that (never with a device that keeps to its MTU).
    pub rx_chained: u64,
}

/// A port that haechi took over. Closed when it and all handles of its queues are gone.
///
/// Its functions are for control threads. It can be given to another thread, but two cannot use it at once: DPDK leaves
/// that to its callers.
pub struct Port {
    open: Arc<Open>,
    info: PortInfo,
    rx_counters: Vec<Arc<QueueCounters>>,
    tx_counters: Vec<Arc<QueueCounters>>,
    device_stats: Cell<DeviceStats>,
    not_sync: PhantomData<Cell<()>>,
}

/// The device's counters that the queue handles do not have, and what a restart has to add to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct DeviceStats {
    base: [u64; 4],
    last: [u64; 4],
}

impl DeviceStats {
    /// Takes a new reading: a counter that went back began anew.
    fn update(&mut self, reading: [u64; 4]) -> [u64; 4] {
        for ((new, last), base) in reading.iter().zip(&mut self.last).zip(&mut self.base) {
            if new < last {
                *base += *last;
            }
            *last = *new;
        }
        std::array::from_fn(|i| self.base[i] + self.last[i])
    }
}

impl Port {
    /// Probes the device and takes it over; nothing else of the host's devices is looked at. `name` is the port's name in
    /// the configuration, for error messages. `mtu` is that of the IP packet; room for the Ethernet header and two VLAN
    /// tags is added.
    ///
    /// # Errors
    /// One line with the fix: no such device, no driver, not bound to vfio-pci, in use; an MTU that the device cannot take
    /// (with the largest that it can).
    pub fn open(eal: &Eal, name: &str, device: &Device, mtu: u16) -> Result<Self> {
        let (open, info) = Open::new(eal, name, device, mtu)?;
        Ok(Self {
            open: Arc::new(open),
            info,
            rx_counters: Vec::new(),
            tx_counters: Vec::new(),
            device_stats: Cell::default(),
            not_sync: PhantomData,
        })
    }

    /// What is known of the device.
    #[must_use]
    pub fn info(&self) -> &PortInfo {
        &self.info
    }

    /// The port, if no queue handle of it is left.
    fn unused(&mut self) -> Result<&mut Open> {
        let name = self.open.name.clone();
        Arc::get_mut(&mut self.open).ok_or_else(|| {
            Error::InUse(format!(
                "port '{name}': its queues are still in use: stop its workers first"
            ))
        })
    }

    /// Makes the port's packet buffers, each with room for one whole frame, and sets up queues, offloads and promiscuous
    /// mode. Once, before the first start.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the number of queues that the device has; [`Error::Memory`] with the memory needed.
    pub fn configure(&mut self, setup: &PortSetup) -> Result<()> {
        self.unused()?.configure(setup)?;
        let counters = |queues: u16| (0..queues).map(|_| Arc::default()).collect();
        self.rx_counters = counters(setup.rx_queues);
        self.tx_counters = counters(setup.tx_queues);
        Ok(())
    }

    /// What the device can do for RSS. Complete after [`Port::configure`]: with DPDK before 23.11 some of it has to be tried.
    #[must_use]
    pub fn rss(&self) -> &RssAbilities {
        &self.open.rss
    }

    /// Says what a port that is configured and not started is to hash with.
    ///
    /// # Errors
    /// [`Error::InUse`] when it is started; what the driver says.
    pub fn set_rss(&mut self, setup: RssSetup) -> Result<()> {
        self.unused()?.set_rss(setup)
    }

    /// Gives a started port that [`Port::set_rss`] prepared its key and its table, so that each bucket's packets come by the queue
    /// with the number of its owner, and reads both back.
    ///
    /// # Errors
    /// Why software has to place its packets; all its queues get some then, where the device can be told.
    pub fn apply_rss(&mut self, table: &BucketTable) -> std::result::Result<(), RssError> {
        let result = match Arc::get_mut(&mut self.open) {
            Some(open) => open.apply_rss(table),
            None => Err(RssError::Refused {
                what: "RSS while its queues are in use",
                why: "stop its workers first".to_owned(),
            }),
        };
        if result.is_err() {
            self.open.spread_evenly();
        }
        result
    }

    /// Of a started port whose packets software places: has all queues get some, where the device can be told.
    pub fn spread_evenly(&self) {
        self.open.spread_evenly();
    }

    /// Changes the table of a port whose [`Port::apply_rss`] went well, while its queues are polled. Packets that are in the
    /// receive rings came by the old one.
    ///
    /// # Errors
    /// Why software has to place its packets from now on.
    pub fn set_table(&self, table: &BucketTable) -> std::result::Result<(), RssError> {
        self.open.set_table(table)
    }

    /// The device's RSS key and table, as they are read from it.
    ///
    /// # Errors
    /// The driver does not tell.
    pub fn read_rss(&self) -> std::result::Result<(Vec<u8>, Vec<u16>), RssError> {
        Ok((self.open.read_key()?, self.open.read_table()?))
    }

    /// The port's packet buffers; `None` before [`Port::configure`].
    #[must_use]
    pub fn buffers(&self) -> Option<BufferUse> {
        self.open.pool.as_ref().map(super::mempool::Pool::usage)
    }

    /// Starts the device and gives out no queue yet, for what has to be set up in between ([`Port::apply_rss`]).
    ///
    /// # Errors
    /// As [`Port::start`].
    pub fn start_device(&mut self) -> Result<()> {
        self.unused()?.start()
    }

    /// Starts the port and gives out its queues, each to be owned by one worker.
    ///
    /// # Errors
    /// What the driver says; [`Error::InUse`] when it is started already.
    pub fn start(&mut self) -> Result<(Vec<RxQueue>, Vec<TxQueue>)> {
        self.unused()?.start()?;
        let id = self.open.id;
        let rx = (0..)
            .zip(&self.rx_counters)
            .map(|(q, c)| {
                let interrupt = self.open.interrupt(q);
                RxQueue::new(id, q, interrupt, c.clone(), self.open.clone())
            })
            .collect();
        let tx = (0..)
            .zip(&self.tx_counters)
            .map(|(q, c)| TxQueue::new(id, q, c.clone(), self.open.clone()))
            .collect();
        Ok((rx, tx))
    }

    /// Stops the port. All its queue handles must have been dropped.
    ///
    /// # Errors
    /// [`Error::InUse`] while handles exist; the port then runs on.
    pub fn stop(&mut self) -> Result<()> {
        self.unused()?;
        // Before a driver forgets them.
        let _ = self.stats();
        self.unused()?.stop()
    }

    /// Stops and closes the port and detaches its device, so that it can be opened again: after its kernel interface came
    /// back, for example.
    ///
    /// # Errors
    /// [`Error::InUse`] while handles exist: the port is then closed when the last of them goes.
    pub fn close(mut self) -> Result<()> {
        self.unused().map(|_| ())
    }

    /// The link as the device reports it (see [`PortInfo::knows_link`]). Never waits.
    #[must_use]
    pub fn link(&self) -> Link {
        self.open.link()
    }

    /// Sets the link up or down.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the driver cannot.
    pub fn set_link(&self, up: bool) -> Result<()> {
        self.open.set_link(up)
    }

    /// The port's counters.
    #[must_use]
    pub fn stats(&self) -> PortStats {
        let mut device = self.device_stats.get();
        let [rx_missed, rx_errors, tx_errors, rx_no_buffer] = match self.open.device_stats() {
            Some(s) => device.update([s.imissed, s.ierrors, s.oerrors, s.rx_nombuf]),
            None => device.update(device.last),
        };
        self.device_stats.set(device);
        let sum = |queues: &[Arc<QueueCounters>],
                   field: fn(&QueueCounters) -> &std::sync::atomic::AtomicU64| {
            queues.iter().map(|q| field(q).load(Ordering::Relaxed)).sum()
        };
        PortStats {
            rx_packets: sum(&self.rx_counters, |q| &q.packets),
            tx_packets: sum(&self.tx_counters, |q| &q.packets),
            rx_bytes: sum(&self.rx_counters, |q| &q.bytes),
            tx_bytes: sum(&self.tx_counters, |q| &q.bytes),
            rx_missed,
            rx_errors,
            tx_errors,
            rx_no_buffer,
            rx_chained: sum(&self.rx_counters, |q| &q.unusable),
        }
    }

    /// The device said that it is gone (hot unplug).
    #[must_use]
    pub fn removed(&self) -> bool {
        self.open.removed()
    }

    /// How long the smallest receive ring takes to fill with the smallest frames at link speed: who sleeps longer than
    /// this between two polls may lose packets. Where no speed is known, or the port is memory that has none, 10 Gbit/s
    /// count.
    #[must_use]
    pub fn ring_fill_time(&self) -> Nanos {
        fill_time(self.open.ring_size(), self.open.line_speed())
    }

    /// What to configure for receive rings that take `time` to fill, or as long as the device allows, and how long they
    /// would take then. `None`: they cannot take longer.
    #[must_use]
    pub fn larger_ring(&self, time: Nanos) -> Option<(String, Nanos)> {
        let speed = self.open.line_speed();
        let (setting, frames) = self.open.larger_ring(frames_in(time, speed))?;
        Some((setting, fill_time(frames, speed)))
    }

    /// DPDK's number of the port, as its own tools and telemetry show it.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.open.id
    }
}

/// Bits of a frame of the smallest kind: 64 bytes, and 20 of preamble and gap.
const FRAME_BITS: u64 = (64 + 20) * 8;

/// What counts as link speed where none is known: as most virtual devices say, and as fast as one core sends the
/// smallest frames.
const SUPPOSED_MBPS: u32 = 10_000;

fn mbps(told: Option<u32>) -> u64 {
    u64::from(told.filter(|speed| *speed > 0).unwrap_or(SUPPOSED_MBPS))
}

/// The time in which `frames` of the smallest kind arrive.
fn fill_time(frames: u32, speed_mbps: Option<u32>) -> Nanos {
    Nanos(u64::from(frames.max(MAX_BURST as u32)) * FRAME_BITS * 1000 / mbps(speed_mbps))
}

/// How many of them arrive in `time`.
fn frames_in(time: Nanos, speed_mbps: Option<u32>) -> u32 {
    let frames = (time.0 * mbps(speed_mbps)).div_ceil(FRAME_BITS * 1000);
    u32::try_from(frames).unwrap_or(1 << 30).min(1 << 30)
}

/// A DPDK error as text.
fn strerror(error: i32) -> String {
    // SAFETY: returns a C string of this thread, which is copied at once.
    unsafe { std::ffi::CStr::from_ptr(sys::rte_strerror(error.abs())) }
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_never_go_back() {
        let mut stats = DeviceStats::default();
        assert_eq!(stats.update([5, 1, 0, 0]), [5, 1, 0, 0]);
        assert_eq!(stats.update([9, 1, 0, 0]), [9, 1, 0, 0]);
        assert_eq!(stats.update([2, 1, 0, 3]), [11, 1, 0, 3]);
        assert_eq!(stats.update([0, 0, 0, 0]), [11, 1, 0, 3]);
        assert_eq!(stats.update([1, 0, 0, 0]), [12, 1, 0, 3]);
    }

    #[test]
    fn a_ring_fills_at_line_rate() {
        assert_eq!(fill_time(1024, Some(10_000)), Nanos(68_812));
        assert_eq!(fill_time(1024, Some(100_000)), Nanos(6_881));
        assert_eq!(fill_time(1024, None), fill_time(1024, Some(10_000)));
        assert_eq!(fill_time(1024, Some(0)), fill_time(1024, None));
        assert_eq!(frames_in(Nanos(68_812), Some(10_000)), 1024);
        assert_eq!(frames_in(Nanos(1_000_000), None), 14_881);
        assert_eq!(frames_in(Nanos::from_secs(1_000_000), None), 1 << 30);
    }
}
