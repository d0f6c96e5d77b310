//! The node's ports as control threads see them: the device while it is in service, what is known of it when it is not.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::sync::{Arc, MutexGuard};

use tracing::{info, warn};

use super::idle::Idle;
use super::lock::ControlLock;
use super::rss::{Candidate, NodeRss, Plan};
use super::slots::{PortFlags, PortQueues};
use crate::base::{Nanos, PortId, WorkerId};
use crate::config::{self, RxQueues};
use crate::control::node::{PortStatus, Rss};
use crate::dpdk::mempool::BufferUse;
use crate::dpdk::wake::{self, Announcer};
use crate::dpdk::{
    Device, Eal, Error, Port, PortInfo, PortSetup, PortStats, RssAbilities, RssError, RxQueue,
};
use crate::flow::owner::{BucketTable, KeyError, Side};
use crate::flow::proof::{Kinds, Proof, RssState};

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
    /// Opened and configured, and not in service yet.
    prepared: Option<Prepared>,
    /// What its RSS is to do.
    plan: Plan,
    info: PortInfo,
    /// Its packets wake an idle worker.
    announces: bool,
    /// Receive and transmit queues.
    queues: [u16; 2],
    /// Counters of earlier incarnations of the device.
    before: PortStats,
    link: LinkView,
}

/// A port between its configuration and its start.
struct Prepared {
    port: Port,
    /// The sockets that it opened.
    sockets: BTreeSet<RawFd>,
    rx_queues: u16,
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

    /// Opens the device and configures it for `workers` workers: then it is known what it can do for RSS.
    ///
    /// # Errors
    /// One line with the fix.
    pub fn prepare(&self, eal: &Eal, workers: u16) -> Result<(), Error> {
        let prepared = self.prepared(eal, workers)?;
        self.state().prepared = Some(prepared);
        Ok(())
    }

    fn prepared(&self, eal: &Eal, workers: u16) -> Result<Prepared, Error> {
        let device = device(&self.config.device)?;
        let before = self.sockets();
        let mut port = Port::open(eal, &self.config.name, &device, self.config.mtu)?;
        let rx_queues = match self.config.rx_queues {
            RxQueues::Auto => workers.min(port.info().max_rx_queues).max(1),
            RxQueues::Count(count) => count,
        };
        let tx_queues = workers.min(port.info().max_tx_queues).max(1);
        port.configure(&PortSetup {
            packet_buffers: self.packet_buffers,
            rx_queues,
            tx_queues,
            rx_descriptors: self.config.rx_descriptors,
            tx_descriptors: self.config.tx_descriptors,
            rx_interrupts: self.adaptive,
        })?;
        let sockets = self.sockets().difference(&before).copied().collect();
        Ok(Prepared {
            port,
            sockets,
            rx_queues,
        })
    }

    /// What the node's choice of a method wants to know; `None`: the port is not prepared. `side`: of its pair.
    #[must_use]
    pub fn candidate(&self, side: Option<Side>) -> Option<Candidate> {
        let state = self.state();
        let prepared = state.prepared.as_ref()?;
        Some(Candidate {
            side,
            queues: prepared.rx_queues,
            abilities: prepared.port.rss().clone(),
        })
    }

    /// What the node's choice is for this port, from its next start on.
    pub fn set_plan(&self, plan: Plan) {
        self.state().plan = plan;
    }

    /// Starts the port, which is prepared first if it is not, and gives out what each worker owns of it.
    ///
    /// # Errors
    /// One line with the fix.
    pub fn open(&self, eal: &Eal, workers: u16) -> Result<Vec<PortQueues>, Error> {
        let (prepared, plan) = {
            let mut state = self.state();
            (state.prepared.take(), state.plan.clone())
        };
        let Prepared {
            mut port,
            sockets: mut opened,
            rx_queues,
        } = match prepared {
            Some(prepared) => prepared,
            None => self.prepared(eal, workers)?,
        };
        let before = self.sockets();
        if let Plan::Hardware { setup, .. } = &plan {
            port.set_rss(*setup)?;
        }
        port.start_device()?;
        let claimed = match plan {
            Plan::Hardware { table, .. } => self.told(port.apply_rss(&table), port.rss()),
            Plan::Software(why) => {
                port.spread_evenly();
                if workers > 1 {
                    self.told(Err(why), port.rss())
                } else {
                    Kinds::NONE
                }
            }
        };
        let (rx, tx) = port.start()?;
        opened.extend(self.sockets().difference(&before));
        let sockets: Vec<_> = opened.into_iter().map(Announcer::Readable).collect();
        let info = port.info().clone();
        let ring_fills = !arrives_when_polled(&info.driver);
        self.flags.set_sleep_bound(sleep_bound(&port));
        self.flags.set_silent(false);
        self.flags.rss.set_up(claimed, rx_queues);
        let mut state = self.state();
        state.queues = [rx.len(), tx.len()].map(|n| u16::try_from(n).unwrap_or(u16::MAX));
        state.port = Some(port);
        state.info = info;
        state.announces = !sockets.is_empty() || rx.iter().all(|rx| rx.announcer().is_some());
        let mut rx: Vec<_> = rx.into_iter().map(Some).collect();
        let mut tx: Vec<_> = tx.into_iter().map(Some).collect();
        let rx_of = Deal::new(self.id, rx.len() as u16, workers);
        let tx_of = Deal::new(self.id, tx.len() as u16, workers);
        let queues = (0..workers).map(|worker| {
            let rx = rx.get_mut(rx_of.place(worker)).and_then(Option::take);
            let tx = tx.get_mut(tx_of.place(worker)).and_then(Option::take);
            let interrupt = rx.as_ref().and_then(RxQueue::announcer);
            let polled_sockets = if rx.is_some() { sockets.clone() } else { Vec::new() };
            PortQueues {
                rx,
                tx,
                sender: tx_of.owner(tx_of.place(worker) as u16),
                mtu: usize::from(self.config.mtu),
                ring_fills,
                announcers: interrupt.map_or(polled_sockets, |interrupt| vec![interrupt]),
            }
        });
        Ok(queues.collect())
    }

    /// Says in the log what became of the port's RSS; returns what its workers have to prove.
    fn told(&self, result: Result<(), RssError>, abilities: &RssAbilities) -> Kinds {
        let port = self.config.name.as_str();
        match result {
            Ok(()) => {
                info!(
                    port,
                    "RSS: key of {} bytes, table of {} entries read back; unproven: software places packets until {} agreed",
                    abilities.key_bytes,
                    abilities.entries,
                    Proof::PORT
                );
                abilities.kinds
            }
            Err(why) if why.is_fault() => {
                warn!(port, "RSS: software places this port's packets: {why}");
                Kinds::NONE
            }
            Err(why) => {
                info!(port, "RSS: software places this port's packets: {why}");
                Kinds::NONE
            }
        }
    }

    /// Buckets have moved: the device's table follows, if it counts, and so does that of the port's next start.
    ///
    /// # Errors
    /// The device does not take it: software has to place its packets from now on.
    pub fn set_table(&self, table: &Arc<BucketTable>) -> Result<(), RssError> {
        let mut state = self.state();
        if let Plan::Hardware { table: planned, .. } = &mut state.plan {
            *planned = Arc::clone(table);
        }
        match &state.port {
            Some(port) if !self.flags.rss.claimed().is_empty() => port.set_table(table),
            _ => Ok(()),
        }
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
            rss: match self.flags.rss.state() {
                RssState::Software => Rss::Software,
                RssState::Proven => Rss::Proven,
                RssState::Unproven => Rss::Unproven,
                RssState::Mismatch => Rss::Mismatch,
            },
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Opens and configures all ports, chooses the node's method, keys and table by what they can do, and says so in the log. Then each
/// can be opened.
///
/// # Errors
/// One line with the fix.
pub fn prepare(ports: &[NodePort], eal: &Eal, workers: u16) -> Result<NodeRss, Error> {
    let mut candidates = Vec::with_capacity(ports.len());
    for port in ports {
        port.prepare(eal, workers)?;
        candidates.extend(port.candidate(side(ports, port)));
    }
    let rss = NodeRss::choose_randomly(&candidates, workers)
        .map_err(|e: KeyError| Error::Unsupported(format!("RSS: {e}: this is a defect, please report it")))?;
    for (port, plan) in ports.iter().zip(&rss.plans) {
        port.set_plan(plan.clone());
    }
    if workers > 1 {
        rss.log();
    }
    Ok(rss)
}

/// Of a pair, the port that the configuration names first is the LAN side.
#[must_use]
pub fn side(ports: &[NodePort], port: &NodePort) -> Option<Side> {
    let peer = ports.iter().find(|other| other.name() == port.peer())?;
    Some(if port.id() < peer.id() {
        Side::Lan
    } else {
        Side::Wan
    })
}

/// Which worker has which queue of a port: the one of its number, where all have one; else the ports' queues are dealt out in turn.
#[derive(Clone, Copy)]
struct Deal {
    first: u16,
    queues: u16,
    workers: u16,
}

impl Deal {
    fn new(port: PortId, queues: u16, workers: u16) -> Self {
        let first = if queues < workers { port.0 % workers } else { 0 };
        Self {
            first,
            queues: queues.max(1),
            workers,
        }
    }

    /// A worker's queue, if it is one of the port's.
    fn place(self, worker: u16) -> usize {
        usize::from((worker + self.workers - self.first) % self.workers)
    }

    /// Whose the queue is, or who stands in for one that the port does not have.
    fn owner(self, place: u16) -> WorkerId {
        WorkerId((self.first + place % self.queues) % self.workers)
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
    fn every_queue_has_one_worker_and_every_worker_a_sender() {
        for workers in 1..6 {
            for queues in 1..=workers {
                for port in (0..7).map(PortId) {
                    let deal = Deal::new(port, queues, workers);
                    let own: Vec<_> = (0..workers)
                        .filter(|w| deal.place(*w) < usize::from(queues))
                        .collect();
                    assert_eq!(own.len(), usize::from(queues));
                    for worker in 0..workers {
                        let sender = deal.owner(deal.place(worker) as u16).0;
                        assert!(
                            own.contains(&sender),
                            "{workers} {queues} {port:?}: {worker} by {sender}"
                        );
                        assert!(!own.contains(&worker) || sender == worker);
                    }
                    // The device's table names workers by the numbers of their queues.
                    if queues == workers {
                        assert!((0..workers).all(|worker| deal.place(worker) == usize::from(worker)));
                    }
                }
            }
        }
    }

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
