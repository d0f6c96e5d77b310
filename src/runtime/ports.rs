//! The node's ports as control threads see them: the device while it is in service, what is known of it when it is not.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::sync::{Arc, MutexGuard};

use super::idle::Idle;
use super::lock::ControlLock;
use super::slots::{PortFlags, PortQueues};
use crate::base::{Nanos, PortId, WorkerId};
use crate::config::{self, RxQueues};
use crate::control::node::{PortStatus, Rss};
use crate::dpdk::mempool::BufferUse;
use crate::dpdk::wake::{self, Announcer};
use crate::dpdk::{Device, Eal, Error, Port, PortInfo, PortSetup, PortStats, RxQueue};

/// One port of the node.
pub struct NodePort {
    id: PortId,
    config: config::Port,
    packet_buffers: u32,
    /// Its workers sleep when they are idle, and want to be woken.
    adaptive: bool,
    flags: Arc<PortFlags>,
    state: ControlLock<State>,
}

#[derive(Default)]
struct State {
    /// `None`: out of service.
    port: Option<Port>,
    info: PortInfo,
    /// Its packets wake an idle worker.
    announces: bool,
    /// Receive and transmit queues.
    queues: [u16; 2],
    /// Counters of earlier incarnations of the device.
    before: PortStats,
    link: LinkView,
}

/// A port's link as last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkView {
    /// There is a link and packets are sent.
    pub up: bool,
    /// Mbit/s, where the device says.
    pub speed_mbps: Option<u32>,
    /// Where that is not plain: why it is down, or where the state comes from.
    pub note: Option<String>,
}

impl NodePort {
    /// A port that is not in service yet. `adaptive`: its workers sleep when they are idle.
    #[must_use]
    pub fn new(id: PortId, config: config::Port, packet_buffers: u32, adaptive: bool) -> Self {
        Self {
            id,
            config,
            packet_buffers,
            adaptive,
            flags: Arc::default(),
            state: ControlLock::default(),
        }
    }

    /// Its place in the configuration.
    #[must_use]
    pub fn id(&self) -> PortId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The name of the port that its frames cross to.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.config.peer
    }

    /// What workers are told of it.
    #[must_use]
    pub fn flags(&self) -> &Arc<PortFlags> {
        &self.flags
    }

    /// The kernel interface under it, where there is one.
    #[must_use]
    pub fn kernel_interface(&self) -> Option<&str> {
        self.config.device.kernel_interface()
    }

    /// Opens the device, sets it up for `workers` workers, starts it, and gives out what each worker owns of it.
    ///
    /// # Errors
    /// One line with the fix.
    pub fn open(&self, eal: &Eal, workers: u16) -> Result<Vec<PortQueues>, Error> {
        let device = device(&self.config.device)?;
        let sockets_before = self.sockets();
        let mut port = Port::open(eal, &self.config.name, &device, self.config.mtu)?;
        let info = port.info().clone();
        let rx_queues = match self.config.rx_queues {
            RxQueues::Auto => workers.min(info.max_rx_queues).max(1),
            RxQueues::Count(count) => count,
        };
        let tx_queues = workers.min(info.max_tx_queues).max(1);
        port.configure(&PortSetup {
            packet_buffers: self.packet_buffers,
            rx_queues,
            tx_queues,
            rx_descriptors: self.config.rx_descriptors,
            tx_descriptors: self.config.tx_descriptors,
            rx_interrupts: self.adaptive,
        })?;
        let (rx, tx) = port.start()?;
        let sockets = self.sockets();
        let sockets = sockets.difference(&sockets_before).copied();
        let sockets: Vec<_> = sockets.map(Announcer::Readable).collect();
        let ring_fills = !arrives_when_polled(&info.driver);
        self.flags.set_sleep_bound(sleep_bound(&port));
        self.flags.set_silent(false);
        let mut state = self.state();
        state.queues = [rx.len(), tx.len()].map(|n| u16::try_from(n).unwrap_or(u16::MAX));
        state.port = Some(port);
        state.info = info;
        state.announces = !sockets.is_empty() || rx.iter().all(|rx| rx.announcer().is_some());
        let mut rx: Vec<_> = rx.into_iter().map(Some).collect();
        let mut tx: Vec<_> = tx.into_iter().map(Some).collect();
        // Where there are fewer queues than workers the ports' queues are dealt out in turn.
        let first = self.id.0 % workers;
        let place = |worker: u16| usize::from((worker + workers - first) % workers);
        let senders = tx_queues;
        let queues = (0..workers).map(|worker| {
            let rx = rx.get_mut(place(worker)).and_then(Option::take);
            let tx = tx.get_mut(place(worker)).and_then(Option::take);
            let interrupt = rx.as_ref().and_then(RxQueue::announcer);
            let polled_sockets = if rx.is_some() { sockets.clone() } else { Vec::new() };
            PortQueues {
                rx,
                tx,
                sender: WorkerId((first + place(worker) as u16 % senders) % workers),
                mtu: usize::from(self.config.mtu),
                ring_fills,
                announcers: interrupt.map_or(polled_sockets, |interrupt| vec![interrupt]),
            }
        });
        Ok(queues.collect())
    }

    /// The sockets that announce packets, where anybody sleeps.
    fn sockets(&self) -> BTreeSet<RawFd> {
        let sockets = self.adaptive.then(|| wake::packet_sockets().unwrap_or_default());
        sockets.unwrap_or_default()
    }

    /// Stops and closes the device; the workers have given its queues back.
    ///
    /// # Errors
    /// When a worker still has a queue: the device is closed when that goes.
    pub fn close(&self) -> Result<(), Error> {
        self.flags.set_link_up(false);
        let mut state = self.state();
        let Some(port) = state.port.take() else {
            return Ok(());
        };
        state.before = sum(&state.before, &port.stats());
        drop(state);
        port.close()
    }

    /// What makes idling dear with this port, and the remedy: it cannot announce its packets, and its ring fills so fast that
    /// an idle worker has to look often.
    #[must_use]
    pub fn idle_note(&self) -> Option<String> {
        let state = self.state();
        let port = state.port.as_ref()?;
        let sleep = sleep_bound(port);
        let announces = state.announces && !self.flags.silent();
        let silent = self.adaptive && !announces && !arrives_when_polled(&state.info.driver);
        (silent && sleep < Idle::CHEAP_SLEEP).then(|| {
            let longer = port.larger_ring(Nanos(2 * Idle::CHEAP_SLEEP.0));
            idle_note(sleep, longer.map(|(setting, time)| (setting, Nanos(time.0 / 2))))
        })
    }

    /// Is the device in service?
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state().port.is_some()
    }

    /// The device said that it is gone.
    #[must_use]
    pub fn removed(&self) -> bool {
        self.state().port.as_ref().is_some_and(Port::removed)
    }

    /// Does the device know its link?
    #[must_use]
    pub fn knows_link(&self) -> bool {
        self.state().info.knows_link
    }

    /// The link as the device reports it; `None`: out of service.
    #[must_use]
    pub fn device_link(&self) -> Option<crate::dpdk::Link> {
        let state = self.state();
        let port = state.port.as_ref()?;
        // The bound follows the speed, which a NIC knows when it has its link.
        self.flags.set_sleep_bound(sleep_bound(port));
        Some(port.link())
    }

    /// Sets the device's link up or down.
    ///
    /// # Errors
    /// What the driver says.
    pub fn set_device_link(&self, up: bool) -> Result<(), Error> {
        self.state()
            .port
            .as_ref()
            .map_or(Ok(()), |port| port.set_link(up))
    }

    /// What is known of the link.
    #[must_use]
    pub fn link(&self) -> LinkView {
        self.state().link.clone()
    }

    /// Says what is known of the link; workers act on it at once. True: it is news.
    pub fn set_link(&self, link: LinkView) -> bool {
        self.flags.set_link_up(link.up);
        let mut state = self.state();
        let news = state.link != link;
        state.link = link;
        news
    }

    /// The port's packet buffers.
    #[must_use]
    pub fn buffers(&self) -> BufferUse {
        self.state()
            .port
            .as_ref()
            .and_then(Port::buffers)
            .unwrap_or_default()
    }

    /// For the API. `zone` is today's, `tx_dropped` is what the workers counted.
    #[must_use]
    pub fn status(&self, zone: &str, tx_dropped: u64) -> PortStatus {
        let state = self.state();
        let now = state.port.as_ref().map(Port::stats).unwrap_or_default();
        let stats = sum(&state.before, &now);
        let [rx_queues, tx_queues] = state.queues;
        PortStatus {
            name: self.config.name.clone(),
            zone: zone.to_owned(),
            peer: Some(self.config.peer.clone()),
            device: self.config.device.to_string(),
            driver: state.info.driver.clone(),
            mac: mac_text(state.info.mac),
            mtu: self.config.mtu,
            link_up: state.link.up,
            link_note: state.link.note.clone(),
            speed_mbps: state.link.speed_mbps,
            rx_packets: stats.rx_packets,
            tx_packets: stats.tx_packets,
            rx_bytes: stats.rx_bytes,
            tx_bytes: stats.tx_bytes,
            rx_missed: stats.rx_missed,
            rx_errors: stats.rx_errors + stats.rx_chained,
            rx_no_buffer: stats.rx_no_buffer,
            tx_dropped,
            tx_errors: stats.tx_errors,
            rx_queues,
            tx_queues,
            // One worker owns every flow; with several, the software owner counts until a device is proven.
            rss: Rss::Software,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// The DPDK layer's name for a configured device.
///
/// # Errors
/// When DPDK knows no such device.
pub fn device(device: &config::Device) -> Result<Device, Error> {
    match device {
        config::Device::Pci(address) => address.parse(),
        config::Device::Virtual(text) => format!("vdev:{text}").parse(),
    }
}

/// Half the time in which the smallest receive ring fills at link speed: a burst that begins right after a look finds the
/// other half still free when the worker comes back a little late.
fn sleep_bound(port: &Port) -> Nanos {
    Nanos(port.ring_fill_time().0 / 2)
}

/// See [`NodePort::idle_note`]: how long the worker may sleep, and what would make that how long.
fn idle_note(sleep: Nanos, longer: Option<(String, Nanos)>) -> String {
    let looks = if sleep < Idle::SHORTEST_SLEEP {
        "so the worker never sleeps".to_owned()
    } else {
        format!(
            "so the worker looks every {} us, which takes more than 5 % of its CPU",
            sleep.0 / 1000
        )
    };
    let remedy = longer.map_or(String::new(), |(setting, sleep)| {
        format!("; {setting} would make that every {} us", sleep.0 / 1000)
    });
    format!(
        "the port cannot wake an idle worker, and a burst at link speed has to find room in its receive ring, {looks}{remedy}"
    )
}

/// Drivers that make or read their packets when they are polled: nothing is lost while nobody does.
fn arrives_when_polled(driver: &str) -> bool {
    matches!(driver, "net_null" | "net_pcap")
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn sum(a: &PortStats, b: &PortStats) -> PortStats {
    PortStats {
        rx_packets: a.rx_packets + b.rx_packets,
        tx_packets: a.tx_packets + b.tx_packets,
        rx_bytes: a.rx_bytes + b.rx_bytes,
        tx_bytes: a.tx_bytes + b.tx_bytes,
        rx_missed: a.rx_missed + b.rx_missed,
        rx_errors: a.rx_errors + b.rx_errors,
        tx_errors: a.tx_errors + b.tx_errors,
        rx_no_buffer: a.rx_no_buffer + b.rx_no_buffer,
        rx_chained: a.rx_chained + b.rx_chained,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dear_port_is_told_with_its_remedy() {
        let larger = |us: u64| Some(("rx_descriptors = 16384".to_owned(), Nanos(us * 1000)));
        let note = idle_note(Nanos(34_406), larger(550));
        assert!(
            note.contains("every 34 us")
                && note.ends_with("rx_descriptors = 16384 would make that every 550 us"),
            "{note}"
        );
        let note = idle_note(Nanos(3_440), None);
        assert!(note.ends_with("so the worker never sleeps"), "{note}");
    }
}
