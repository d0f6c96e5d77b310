//! The keeper: the control thread that watches the ports' links, propagates their loss, takes a port whose device is gone
//! out of service, and puts it back when the device is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::command::{Command, Reply, WorkerLink};
use super::links::{KernelLink, KernelLinks, LinkError};
use super::ports::{LinkView, NodePort};
use super::propagation::{Action, Propagation, Side};
use super::rss;
use crate::base::Nanos;
use crate::dpdk::{Eal, Error};
use crate::flow::RssState;

/// Devices that cannot announce a change are asked so often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A port whose device is gone is tried again so often.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long a worker may take to give queues back.
const WORKER_TIMEOUT: Duration = Duration::from_secs(2);

/// What the keeper knows of one port besides what others see.
#[derive(Default)]
struct Watched {
    /// The kernel interface that the device was opened on.
    kernel: Option<KernelLink>,
    next_try: Option<Instant>,
    last_error: Option<String>,
    /// What idling costs with this port was told; its link, and so its speed, was there.
    idle_told: bool,
    /// That its packets do not wake its worker was told.
    silence_told: bool,
    /// What was told of its RSS last.
    rss_told: RssState,
}

/// A pair of ports, by their places.
struct Pair {
    ports: [usize; 2],
    machine: Propagation,
}

/// Watches over the ports of a node.
pub struct Keeper {
    eal: Eal,
    ports: Arc<[NodePort]>,
    workers: Arc<[WorkerLink]>,
    links: KernelLinks,
    watched: Vec<Watched>,
    pairs: Vec<Pair>,
    start: Instant,
}

impl Keeper {
    /// A keeper of ports that are in service.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
    pub fn new(
        eal: Eal,
        ports: Arc<[NodePort]>,
        workers: Arc<[WorkerLink]>,
        links: KernelLinks,
        propagate: bool,
    ) -> Self {
        let mut keeper = Self {
            watched: ports.iter().map(|_| Watched::default()).collect(),
            pairs: if propagate { pairs(&ports) } else { Vec::new() },
            eal,
            ports,
            workers,
            links,
            start: Instant::now(),
        };
        for place in 0..keeper.ports.len() {
            keeper.watched[place].kernel = keeper.kernel_link(place);
        }
        keeper
    }

    /// Looks at all ports until every link is up, at most `patience` (for each port by what its link takes to
    /// come up). Returns the ports without a link, with the reason.
    #[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
    pub fn wait_for_links(&mut self) -> Vec<(String, String)> {
        // A kernel interface has its carrier as soon as it is set up, a NIC negotiates.
        const KERNEL: Duration = Duration::from_millis(500);
        const NIC: Duration = Duration::from_secs(5);
        let begin = Instant::now();
        loop {
            for place in 0..self.ports.len() {
                self.look(place);
            }
            let waiting = self.ports.iter().any(|port| {
                let patience = if port.kernel_interface().is_some() {
                    KERNEL
                } else {
                    NIC
                };
                !port.link().up && begin.elapsed() < patience
            });
            if !waiting {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let down = self
            .ports
            .iter()
            .map(|port| (port, port.link()))
            .filter(|(_, link)| !link.up);
        down.map(|(port, link)| (port.name().to_owned(), link.note.unwrap_or_default()))
            .collect()
    }

    /// Watches until the sender of `events` is gone, and looks at once whenever it sends.
    pub fn run(mut self, events: &Receiver<()>, stop: &std::sync::atomic::AtomicBool) -> Self {
        while !stop.load(std::sync::atomic::Ordering::Acquire) {
            for place in 0..self.ports.len() {
                self.look(place);
            }
            self.propagate();
            for line in self.eal.log_lines() {
                debug!("{line}");
            }
            match events.recv_timeout(LOOK_EVERY) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_EVERY),
            }
        }
        self
    }

    /// The node stops: with propagation, the far ends are shown that nothing crosses any more. This is for the ports
    /// that are NICs, and for before they are closed.
    pub fn devices_down(&self) {
        for place in self.pairs.iter().flat_map(|pair| pair.ports) {
            if self.ports[place].kernel_interface().is_none() {
                self.set_port(place, false);
            }
        }
    }

    /// The same for ports on kernel interfaces, for after they are closed (which puts the interface back as it was).
    pub fn interfaces_down(&self) {
        for place in self.pairs.iter().flat_map(|pair| pair.ports) {
            if self.ports[place].kernel_interface().is_some() {
                self.set_port(place, false);
            }
        }
    }

    /// Looks at one port: is its device there, has it a link?
    fn look(&mut self, place: usize) {
        let kernel = self.kernel_link(place);
        let port = &self.ports[place];
        if port.is_open() {
            let expected = self.watched[place].kernel.map(|k| k.index);
            let gone = port.removed() || (expected.is_some() && kernel.map(|k| k.index) != expected);
            if gone {
                self.take_out(place);
            } else {
                self.see_link(place, kernel);
            }
        }
        if !self.ports[place].is_open() {
            self.put_back(place, kernel);
        }
    }

    fn kernel_link(&self, place: usize) -> Option<KernelLink> {
        let name = self.ports[place].kernel_interface()?;
        match self.links.get(name) {
            Ok(link) => link,
            Err(e) => {
                warn!("cannot ask for the link: {e}");
                self.watched[place].kernel
            }
        }
    }

    fn see_link(&mut self, place: usize, kernel: Option<KernelLink>) {
        let port = &self.ports[place];
        let device = port.device_link().unwrap_or_default();
        let link_up = match kernel {
            Some(kernel) if !port.knows_link() => kernel.link_up,
            _ => device.up,
        };
        let set_down = self
            .side_of(place)
            .is_some_and(|(pair, side)| self.pairs[pair].machine.is_set_down(side));
        let note = match (set_down, link_up, port.kernel_interface()) {
            (true, _, _) => Some(format!("set down because {} has no link", port.peer())),
            (false, false, Some(interface)) => Some(format!("interface {interface} has no carrier")),
            (false, false, None) => Some("no link".to_owned()),
            (false, true, _) => None,
        };
        let view = LinkView {
            up: link_up && !set_down,
            speed_mbps: device.speed_mbps,
            note,
        };
        let was = port.link();
        if port.set_link(view.clone()) && (was.up != view.up || was.note != view.note) {
            match &view.note {
                None => info!(port = port.name(), "link up"),
                Some(note) => warn!(port = port.name(), "link down: {note}"),
            }
        }
        let watched = &mut self.watched[place];
        if port.flags().silent() && !watched.silence_told {
            (watched.silence_told, watched.idle_told) = (true, false);
            warn!(
                port = port.name(),
                "its packets were to wake an idle worker, by interrupts, and did not: the worker sleeps by the clock from now on"
            );
        }
        rss::tell(port.name(), &port.flags().rss, &mut watched.rss_told);
        if view.up && !watched.idle_told {
            watched.idle_told = true;
            if let Some(note) = port.idle_note() {
                info!(port = port.name(), "{note}");
            }
        }
        self.observe(place, link_up);
    }

    /// The device is gone: the workers give its queues back, and what is left of it is closed.
    fn take_out(&mut self, place: usize) {
        let port = &self.ports[place];
        let what = match port.kernel_interface() {
            Some(interface) => format!("interface {interface} is gone"),
            None => "the device is gone".to_owned(),
        };
        port.set_link(LinkView {
            up: false,
            speed_mbps: None,
            note: Some(format!("out of service: {what}")),
        });
        warn!(
            port = port.name(),
            "out of service: {what}; packets to it are dropped (link_down)"
        );
        for worker in self.workers.iter() {
            match worker.ask(Command::TakePort(port.id()), WORKER_TIMEOUT) {
                // The queues end here, off the worker.
                Ok(Reply::TakePort(queues)) => drop(queues),
                Ok(_) => {}
                Err(e) => warn!(port = port.name(), "{e}: the device is closed when it does"),
            }
        }
        if let Err(e) = port.close() {
            warn!(port = port.name(), "{e}");
        }
        self.watched[place] = Watched::default();
        self.observe(place, false);
    }

    /// Tries to put a port back into service once its device may be back.
    #[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
    fn put_back(&mut self, place: usize, kernel: Option<KernelLink>) {
        let port = &self.ports[place];
        let watched = &mut self.watched[place];
        let too_soon = watched.next_try.is_some_and(|at| Instant::now() < at);
        if too_soon || (port.kernel_interface().is_some() && kernel.is_none()) {
            return;
        }
        watched.next_try = Some(Instant::now() + RETRY_EVERY);
        let workers = u16::try_from(self.workers.len()).unwrap_or(u16::MAX);
        let queues = match port.open(&self.eal, workers) {
            Ok(queues) => queues,
            Err(e) => {
                let error = e.to_string();
                if watched.last_error.as_ref() != Some(&error) {
                    warn!(port = port.name(), "still out of service: {error}");
                    watched.last_error = Some(error);
                }
                return;
            }
        };
        for (worker, queues) in self.workers.iter().zip(queues) {
            match worker.ask(Command::GivePort(port.id(), Box::new(queues)), WORKER_TIMEOUT) {
                Ok(Reply::GivePort(old)) => drop(old),
                Ok(_) => {}
                Err(e) => warn!(port = port.name(), "{e}: it takes the queues over when it does"),
            }
        }
        info!(port = port.name(), "back in service");
        let kernel = self.kernel_link(place);
        self.watched[place] = Watched {
            kernel,
            idle_told: true,
            ..Watched::default()
        };
        self.see_link(place, kernel);
    }

    fn side_of(&self, place: usize) -> Option<(usize, Side)> {
        self.pairs.iter().enumerate().find_map(|(i, pair)| {
            let side = Side::BOTH
                .into_iter()
                .zip(pair.ports)
                .find(|(_, port)| *port == place)?;
            Some((i, side.0))
        })
    }

    fn observe(&mut self, place: usize, link_up: bool) {
        if let Some((pair, side)) = self.side_of(place) {
            let now = self.now();
            let action = self.pairs[pair].machine.observe(now, side, link_up);
            self.act(pair, action);
        }
    }

    fn propagate(&mut self) {
        let now = self.now();
        for pair in 0..self.pairs.len() {
            let action = self.pairs[pair].machine.tick(now);
            self.act(pair, action);
        }
    }

    fn act(&mut self, pair: usize, action: Option<Action>) {
        let (side, up) = match action {
            None => return,
            Some(Action::SetDown(side)) => (side, false),
            Some(Action::SetUp(side)) => (side, true),
        };
        let [a, b] = self.pairs[pair].ports;
        let (place, other) = match side {
            Side::A => (a, b),
            Side::B => (b, a),
        };
        let (port, other) = (self.ports[place].name(), self.ports[other].name());
        if up {
            info!(port, "set up again: {other} has its link back");
        } else {
            warn!(port, "set down: {other} has no link (link_propagation)");
        }
        self.set_port(place, up);
    }

    fn set_port(&self, place: usize, up: bool) {
        let port = &self.ports[place];
        let result = match port.kernel_interface() {
            // One that is gone needs nothing more.
            Some(interface) => match self.links.set(interface, up) {
                Ok(()) | Err(LinkError::Gone(_)) => Ok(()),
                Err(e) => Err(e.to_string()),
            },
            None => match port.set_device_link(up) {
                Ok(()) => Ok(()),
                // A device without a link to the outside has nobody to tell.
                Err(e @ Error::Unsupported(_)) => {
                    debug!(port = port.name(), "{e}");
                    Ok(())
                }
                Err(e) => Err(e.to_string()),
            },
        };
        if let Err(e) = result {
            warn!(
                port = port.name(),
                "cannot set the link {}: {e}",
                if up { "up" } else { "down" }
            );
        }
    }

    fn now(&self) -> Nanos {
        Nanos::from(self.start.elapsed())
    }
}

/// The pairs of the node's ports.
fn pairs(ports: &[NodePort]) -> Vec<Pair> {
    let by_name: HashMap<&str, usize> = ports.iter().enumerate().map(|(i, p)| (p.name(), i)).collect();
    let mut pairs = Vec::new();
    for (a, port) in ports.iter().enumerate() {
        if let Some(b) = by_name.get(port.peer()).copied().filter(|b| a < *b) {
            pairs.push(Pair {
                ports: [a, b],
                machine: Propagation::new(Nanos(0)),
            });
        }
    }
    pairs
}
