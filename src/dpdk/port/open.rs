//! An open port: what a [`super::Port`] and the handles of its queues share. Closed when the last of them is gone.

use std::{
    ffi::{CStr, c_int, c_void},
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    super::{
        Eal, Error,
        error::Result,
        log,
        mbuf::MAX_BURST,
        mempool::{Layout, Pool},
        sys,
    },
    Device, Link, PortInfo, PortSetup,
    descriptors::{self, Descriptor},
    driver::{Frames, Interrupts, Kind, Lengths},
    interrupts::{ArmLock, Interrupt},
    kernel::KernelInterface,
    probe,
    rss::{RssAbilities, RssSetup},
    strerror,
};

/// See the module.
pub(in crate::dpdk) struct Open {
    pub(super) id: u16,
    /// The port's name in the configuration.
    pub(super) name: String,
    pub(super) pool: Option<Pool>,
    device: Device,
    /// The virtual device's arguments as they were given to the driver.
    args: String,
    kind: Kind,
    pub(super) interrupt_kind: Interrupts,
    mtu: u16,
    frames: Frames,
    kernel: Option<KernelInterface>,
    handle: *mut sys::rte_device,
    /// What it was configured with, the descriptors as the device takes them.
    pub(super) setup: PortSetup,
    max_queues: (u16, u16),
    /// Receive descriptors at most; 0: it does not say.
    max_rx_descriptors: u16,
    rx_offloads: u64,
    pub(super) rss: RssAbilities,
    /// What it is to hash with; `None`: as the driver likes.
    pub(super) rss_setup: Option<RssSetup>,
    /// The device's table stands in its flow rules, and cannot be changed.
    pub(super) table_in_rules: bool,
    tells_removal: bool,
    /// The device is configured for receive interrupts.
    pub(super) rx_interrupts: bool,
    /// Each receive queue's, while it is started; none: it has none.
    pub(super) interrupts: Vec<Interrupt>,
    pub(super) arm_lock: ArmLock,
    pub(super) started: bool,
    /// Descriptors that the driver opened for the queues.
    descriptors: Vec<Descriptor>,
    /// Set by the driver's thread; boxed, so that it stays where the driver was told it is.
    removed: Box<AtomicBool>,
    eal: Eal,
}

// SAFETY: the raw pointer is DPDK's handle of the device, which is used by control functions alone: under `&mut self`, or on
// drop. What `&self` gives access to (link, statistics, flags) DPDK allows beside the data path; `super::Port` is not
// `Sync`, so control functions do not meet each other.
unsafe impl Send for Open {}
// SAFETY: as above; queue handles share it and use nothing of it.
unsafe impl Sync for Open {}

/// Tells the flag that the device is gone.
extern "C" fn on_removal(_: u16, _: sys::rte_eth_event_type, flag: *mut c_void, _: *mut c_void) -> c_int {
    // SAFETY: registered with a pointer to the port's boxed flag, and unregistered before that goes.
    unsafe { (*flag.cast::<AtomicBool>()).store(true, Ordering::Release) };
    0
}

impl Open {
    /// Probes the device and reads what it is.
    pub(super) fn new(eal: &Eal, name: &str, device: &Device, mtu: u16) -> Result<(Self, PortInfo)> {
        let mut control = eal.control();
        let probed = probe::probe(eal, &mut control, name, device, mtu)?;
        drop(control);
        let mut open = Self {
            id: probed.id,
            name: name.to_owned(),
            pool: None,
            device: device.clone(),
            args: probed.args,
            kind: Kind::Nic,
            interrupt_kind: Interrupts::None,
            mtu,
            frames: Frames {
                room: 0,
                device_mtu: mtu,
            },
            kernel: probed.kernel,
            handle: std::ptr::null_mut(),
            setup: PortSetup::default(),
            max_queues: (0, 0),
            max_rx_descriptors: 0,
            rx_offloads: 0,
            rss: RssAbilities::default(),
            rss_setup: None,
            table_in_rules: false,
            tells_removal: false,
            rx_interrupts: false,
            interrupts: Vec::new(),
            arm_lock: ArmLock::default(),
            started: false,
            descriptors: Vec::new(),
            removed: Box::default(),
            eal: eal.clone(),
        };
        // From here on, dropping `open` gives the device back.
        let info = open.read_info()?;
        Ok((open, info))
    }

    pub(super) fn driver_error(&self, what: &str, error: i32, mark: u64) -> Error {
        let said = super::super::eal::said(&log::since(mark));
        Error::Driver(format!(
            "port '{}' ({}): {what}: {} (the driver says: {said})",
            self.name,
            self.device,
            strerror(error)
        ))
    }

    fn read_info(&mut self) -> Result<PortInfo> {
        let mark = log::mark();
        // SAFETY: plain data, for which zero is valid; DPDK fills it in.
        let mut info: sys::rte_eth_dev_info = unsafe { std::mem::zeroed() };
        // SAFETY: as above, the same for the address.
        let mut mac: sys::rte_ether_addr = unsafe { std::mem::zeroed() };
        // SAFETY: the port exists; both structures are written whole.
        let error = unsafe {
            sys::rte_eth_macaddr_get(self.id, &raw mut mac);
            sys::rte_eth_dev_info_get(self.id, &raw mut info)
        };
        if error != 0 || info.driver_name.is_null() {
            return Err(self.driver_error("the device does not say what it is", error, mark));
        }
        // SAFETY: a static string of the driver.
        let driver = unsafe { CStr::from_ptr(info.driver_name) }
            .to_string_lossy()
            .into_owned();
        self.handle = info.device;
        self.kind = Kind::of(&driver);
        self.interrupt_kind = Interrupts::of(&driver);
        let lengths = Lengths {
            max_mtu: info.max_mtu,
            max_rx_pktlen: info.max_rx_pktlen,
            min_rx_bufsize: info.min_rx_bufsize,
        };
        self.frames = self.kind.frames(self.mtu, &lengths, &self.args).map_err(|e| {
            let hint = if e.hint.is_empty() { String::new() } else { format!(" ({})", e.hint) };
            Error::Unsupported(format!(
                "port '{}': {} cannot hold frames of mtu = {} with two VLAN tags in one buffer: set mtu = {} or less{hint}",
                self.name, self.device, self.mtu, e.largest
            ))
        })?;
        let wanted =
            sys::HX_OFFLOAD_RX_IPV4_CKSUM | sys::HX_OFFLOAD_RX_UDP_CKSUM | sys::HX_OFFLOAD_RX_TCP_CKSUM;
        if self.kind.checksum_offload() {
            self.rx_offloads = info.rx_offload_capa & wanted;
        }
        self.rss = RssAbilities::of(&info, &driver);
        // SAFETY: the driver's flags, where it has any.
        let flags = unsafe { info.dev_flags.as_ref() };
        self.tells_removal = flags.is_some_and(|flags| flags & sys::HX_DEV_INTR_RMV != 0);
        self.max_queues = (info.max_rx_queues, info.max_tx_queues);
        self.max_rx_descriptors = info.rx_desc_lim.nb_max;
        let l4 = sys::HX_OFFLOAD_RX_UDP_CKSUM | sys::HX_OFFLOAD_RX_TCP_CKSUM;
        let behind = || {
            (info.if_index != 0)
                .then(|| KernelInterface::name_of(info.if_index))
                .flatten()
        };
        Ok(PortInfo {
            driver,
            mac: mac.addr_bytes,
            kernel_interface: self.kernel.as_ref().map(|k| k.name.clone()).or_else(behind),
            knows_link: self.kind.knows_link(),
            max_rx_queues: info.max_rx_queues,
            max_tx_queues: info.max_tx_queues,
            rx_ip_checksum: self.rx_offloads & sys::HX_OFFLOAD_RX_IPV4_CKSUM != 0,
            rx_l4_checksum: self.rx_offloads & l4 == l4,
            rss: self.rss.clone(),
        })
    }

    /// See [`super::Port::configure`].
    pub(super) fn configure(&mut self, setup: &PortSetup) -> Result<()> {
        if self.pool.is_some() {
            return Err(Error::InUse(format!(
                "port '{}' is configured already: close it first",
                self.name
            )));
        }
        self.check_queues(setup)?;
        self.setup = setup.clone();
        self.rx_interrupts = setup.rx_interrupts && self.interrupt_kind != Interrupts::None;
        self.configure_device()?;
        let (rx, tx) = (
            &raw mut self.setup.rx_descriptors,
            &raw mut self.setup.tx_descriptors,
        );
        // SAFETY: two numbers that are read and written.
        unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, rx, tx) };
        self.make_pool()?;
        if let Some(kernel) = &self.kernel {
            kernel.make_room(self.mtu).map_err(|e| {
                Error::Unsupported(format!(
                    "port '{}': the network interface '{}' does not take an MTU of {} ({e}), which mtu = {} needs for two VLAN tags: \
                     set a lower mtu",
                    self.name,
                    kernel.name,
                    u32::from(self.mtu) + 8,
                    self.mtu
                ))
            })?;
        }
        self.set_up_queues()?;
        if self.setup.rx_queues > 1 {
            self.try_symmetric();
        }
        self.listen_for_removal();
        self.promiscuous()
    }

    /// With receive interrupts if they are wanted, without if the device does not take that.
    fn configure_device(&mut self) -> Result<()> {
        let mark = log::mark();
        let mut error = self.configure_once();
        if error != 0 && self.rx_interrupts {
            self.without_interrupts(&format!("it cannot be configured with them: {}", strerror(error)));
            error = self.configure_once();
        }
        if error != 0 {
            return Err(self.driver_error("it cannot be configured", error, mark));
        }
        if self.kind == Kind::Tap {
            // Its kernel side has an MTU of its own, which the configuration does not reach.
            // SAFETY: a configured, stopped port.
            let error = unsafe { sys::rte_eth_dev_set_mtu(self.id, self.frames.device_mtu) };
            if error != 0 {
                return Err(self.driver_error("its MTU cannot be set", error, mark));
            }
        }
        Ok(())
    }

    fn configure_once(&mut self) -> i32 {
        let mut key = Vec::new();
        let rss = self.rss_conf(&mut key);
        let hash = match rss {
            Some(_) if self.rss.tells_hash => sys::HX_OFFLOAD_RX_RSS_HASH,
            _ => 0,
        };
        let rss = rss.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the port exists and is stopped; no queue handle is out (`&mut self`); the key lives until the call returns.
        unsafe {
            sys::hx_port_configure(
                self.id,
                self.setup.rx_queues,
                self.setup.tx_queues,
                u32::from(self.frames.device_mtu),
                self.rx_offloads | hash,
                self.tells_removal,
                self.rx_interrupts,
                rss,
            )
        }
    }

    /// Configures a stopped port anew, with the buffers that it has.
    pub(super) fn set_up_again(&mut self) -> Result<()> {
        self.configure_device()?;
        self.set_up_queues()?;
        self.promiscuous()
    }

    /// See [`super::Port::set_rss`].
    pub(super) fn set_rss(&mut self, setup: RssSetup) -> Result<()> {
        if self.pool.is_none() || self.started {
            return Err(Error::InUse(format!(
                "port '{}': RSS is set between its configuration and its start",
                self.name
            )));
        }
        self.rss_setup = Some(setup);
        let result = self.set_up_again();
        if result.is_ok() {
            return result;
        }
        // It may not take that key or that way to hash: without, packets still come, and `apply_rss` will say what is wrong.
        self.rss_setup = None;
        self.set_up_again()?;
        self.rss_setup = Some(setup);
        Ok(())
    }

    fn check_queues(&self, setup: &PortSetup) -> Result<()> {
        let refuse = |what: &str, asked: u16, has: u16| {
            Err(Error::Unsupported(format!(
                "port '{}': {} has {has} {what} queue(s), {asked} are wanted: set rx_queues or workers to at most that",
                self.name, self.device
            )))
        };
        if setup.rx_queues == 0 || setup.rx_queues > self.max_queues.0 {
            return refuse("receive", setup.rx_queues, self.max_queues.0);
        }
        if setup.tx_queues == 0 || setup.tx_queues > self.max_queues.1 {
            return refuse("transmit", setup.tx_queues, self.max_queues.1);
        }
        Ok(())
    }

    /// The port's pool: one of a closed port if its shape fits, else a new one.
    fn make_pool(&mut self) -> Result<()> {
        let setup = &self.setup;
        let fill = u32::from(setup.rx_queues) * self.kind.queue_fill(setup.rx_descriptors);
        // What the transmit rings of the other side hold, and a burst for each queue in haechi's hands.
        let moving = u32::from(setup.tx_queues) * u32::from(setup.tx_descriptors)
            + u32::from(setup.rx_queues) * MAX_BURST as u32;
        if setup.packet_buffers < fill + moving {
            return Err(Error::Memory(format!(
                "port '{}': packet_buffers = {} is too few: its receive queues hold {fill} and packets on their way {moving}: set \
                 packet_buffers = {} or more",
                self.name,
                setup.packet_buffers,
                fill + moving
            )));
        }
        let mut control = self.eal.control();
        let layout = self.kind.layout();
        // SAFETY: only reads what is known of the port; -1: nothing is.
        let node = unsafe { sys::rte_eth_dev_socket_id(self.id) };
        let fits = |p: &Pool| {
            (p.room, p.size) == (self.frames.room, setup.packet_buffers)
                && (p.layout, p.node) == (layout, node)
        };
        if let Some(at) = control.idle_pools.iter().position(fits) {
            self.pool = Some(control.idle_pools.swap_remove(at));
            return Ok(());
        }
        control.pools_made += 1;
        let whose = format!("port '{}'", self.name);
        let (buffers, room) = (setup.packet_buffers, self.frames.room);
        let pool = Pool::create(
            &self.eal,
            control.pools_made,
            &whose,
            buffers,
            (room, layout),
            node,
        )?;
        drop(control);
        self.pool = Some(pool);
        Ok(())
    }

    fn set_up_queues(&mut self) -> Result<()> {
        // So that no other port of this process is being set up: drivers keep lists, and the new
        // descriptors are this one's.
        let eal = self.eal.clone();
        let _control = eal.control();
        let before = descriptors::driver_descriptors();
        let result = self.set_up_each_queue();
        self.descriptors = descriptors::driver_descriptors();
        self.descriptors.retain(|d| !before.contains(d));
        result
    }

    fn set_up_each_queue(&self) -> Result<()> {
        let Some(pool) = &self.pool else { return Ok(()) };
        let setup = &self.setup;
        let mark = log::mark();
        for queue in 0..setup.tx_queues {
            // SAFETY: a configured, stopped port and a queue of its; null takes the driver's defaults; any NUMA node.
            let error = unsafe {
                sys::rte_eth_tx_queue_setup(self.id, queue, setup.tx_descriptors, u32::MAX, std::ptr::null())
            };
            if error != 0 {
                return Err(self.driver_error("a transmit queue cannot be set up", error, mark));
            }
        }
        for queue in 0..setup.rx_queues {
            // SAFETY: as above; the pool lives as long as the EAL, of which `self` holds a clone.
            let error = unsafe {
                sys::rte_eth_rx_queue_setup(
                    self.id,
                    queue,
                    setup.rx_descriptors,
                    u32::MAX,
                    std::ptr::null(),
                    pool.raw(),
                )
            };
            if error != 0 {
                let lines = log::since(mark);
                return Err(probe::queue_refused(
                    &self.name,
                    self.kind,
                    self.kernel.as_ref(),
                    &lines,
                ));
            }
        }
        Ok(())
    }

    fn listen_for_removal(&self) {
        if self.tells_removal {
            // SAFETY: the flag is boxed and lives until `drop` has unregistered this.
            unsafe {
                sys::rte_eth_dev_callback_register(
                    self.id,
                    sys::HX_EVENT_INTR_RMV,
                    Some(on_removal),
                    self.flag(),
                );
            }
        }
    }

    fn flag(&self) -> *mut c_void {
        std::ptr::from_ref::<AtomicBool>(&self.removed).cast_mut().cast()
    }

    /// A firewall in the wire takes frames for everybody.
    fn promiscuous(&self) -> Result<()> {
        let mark = log::mark();
        // SAFETY: a configured port.
        let (error, _) = unsafe {
            (
                sys::rte_eth_promiscuous_enable(self.id),
                sys::rte_eth_allmulticast_enable(self.id),
            )
        };
        match error {
            // Virtual devices that have no such mode have no filter either.
            0 => Ok(()),
            e if e == -libc::ENOTSUP && self.kind != Kind::Nic => Ok(()),
            e => Err(self.driver_error("it does not go into promiscuous mode", e, mark)),
        }
    }

    /// See [`super::Port::start`].
    pub(super) fn start(&mut self) -> Result<()> {
        if self.pool.is_none() {
            return Err(Error::InUse(format!(
                "port '{}' is not configured yet",
                self.name
            )));
        }
        if self.started {
            return Ok(());
        }
        self.start_device()?;
        if let Some(kernel) = &self.kernel {
            kernel.set_up(true).map_err(|e| {
                Error::Driver(format!(
                    "port '{}': '{}' cannot be set up: {e}",
                    self.name, kernel.name
                ))
            })?;
        }
        Ok(())
    }

    /// See [`super::Port::stop`].
    pub(super) fn stop(&mut self) -> Result<()> {
        if !self.started {
            return Ok(());
        }
        let mark = log::mark();
        // SAFETY: no queue handle is out (`&mut self`), so nobody polls.
        let error = unsafe { sys::rte_eth_dev_stop(self.id) };
        self.started = false;
        self.interrupts.clear();
        if error == 0 {
            Ok(())
        } else {
            Err(self.driver_error("it does not stop", error, mark))
        }
    }

    pub(super) fn link(&self) -> Link {
        let (mut up, mut speed) = (false, 0);
        // SAFETY: the port exists; both are written.
        let error = unsafe { sys::hx_link(self.id, &raw mut up, &raw mut speed) };
        let told = error == 0 && speed != 0 && speed != sys::HX_SPEED_UNKNOWN;
        Link {
            up: error == 0 && up,
            speed_mbps: told.then_some(speed),
        }
    }

    pub(super) fn set_link(&self, up: bool) -> Result<()> {
        let refused = |why: String| {
            let to = if up { "up" } else { "down" };
            Error::Unsupported(format!(
                "port '{}': its link cannot be set {to}: {why}",
                self.name
            ))
        };
        if let Some(kernel) = &self.kernel {
            return kernel.set_up(up).map_err(|e| refused(e.to_string()));
        }
        // SAFETY: the port exists.
        let error = unsafe {
            if up {
                sys::rte_eth_dev_set_link_up(self.id)
            } else {
                sys::rte_eth_dev_set_link_down(self.id)
            }
        };
        if error == 0 {
            Ok(())
        } else {
            Err(refused(strerror(error)))
        }
    }

    pub(super) fn device_stats(&self) -> Option<sys::rte_eth_stats> {
        // SAFETY: plain data, for which zero is valid.
        let mut stats: sys::rte_eth_stats = unsafe { std::mem::zeroed() };
        // SAFETY: the port exists; the structure is written whole.
        (unsafe { sys::rte_eth_stats_get(self.id, &raw mut stats) } == 0).then_some(stats)
    }

    pub(super) fn removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    pub(super) fn ring_size(&self) -> u32 {
        self.kind.ring_size(self.setup.rx_descriptors, &self.args)
    }

    pub(super) fn larger_ring(&self, frames: u32) -> Option<(String, u32)> {
        let larger = self.kind.larger_ring(frames, self.max_rx_descriptors)?;
        (larger.1 > self.ring_size()).then_some(larger)
    }

    /// See [`Kind::line_speed`].
    pub(super) fn line_speed(&self) -> Option<u32> {
        self.kind.line_speed(self.link().speed_mbps)
    }

    /// A started queue's interrupt.
    pub(super) fn interrupt(&self, queue: u16) -> Option<Interrupt> {
        self.interrupts.get(usize::from(queue)).copied()
    }
}

impl Drop for Open {
    /// Gives the device back to the host, and the pool to the next port.
    fn drop(&mut self) {
        let _ = self.stop();
        let mut control = self.eal.control();
        let before = descriptors::driver_descriptors();
        // SAFETY: stopped; no handle is left, since each holds this. After the close the port's number is not used any more.
        // The device handle is the one that the port was made on.
        unsafe {
            if self.tells_removal && self.pool.is_some() {
                sys::rte_eth_dev_callback_unregister(
                    self.id,
                    sys::HX_EVENT_INTR_RMV,
                    Some(on_removal),
                    self.flag(),
                );
            }
            sys::rte_eth_promiscuous_disable(self.id);
            sys::rte_eth_dev_close(self.id);
            if !self.handle.is_null() {
                sys::rte_dev_remove(self.handle);
            }
        }
        // libxdp also forgets the program that it looks at when it detaches it.
        descriptors::close_forgotten(&self.descriptors);
        let mut after = descriptors::driver_descriptors();
        after.retain(|d| !before.contains(d));
        descriptors::close_forgotten(&after);
        if let Some(kernel) = &self.kernel {
            kernel.restore();
            control.interfaces.retain(|i| *i != kernel.index);
        }
        control.devices.retain(|d| d != self.device.name());
        if let Some(pool) = self.pool.take() {
            if pool.layout == Layout::Pages {
                // SAFETY: this port alone drew from the pool, and it is closed.
                let lost = unsafe { pool.reclaim_lost() };
                if lost > 0 {
                    tracing::debug!(port = %self.name, buffers = lost, "taken back from the driver");
                }
            }
            control.idle_pools.push(pool);
        }
    }
}
