//! A network port: a NIC by its PCI address or a virtual device.

use std::str::FromStr;

use super::{Eal, Error, RxQueue, TxQueue, error::Result, mempool::BufferUse};
use crate::base::Nanos;

/// A device as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// A PCI address, with its domain: `0000:3b:00.0`.
    Pci(String),
    /// A virtual device, `net_af_xdp0,iface=veth0`: driver name with a number, arguments.
    Vdev {
        /// `net_af_xdp0`
        name: String,
        /// `iface=veth0`
        args: String,
    },
}

impl FromStr for Device {
    type Err = Error;
    /// Reads `0000:3b:00.0`, `3b:00.0` or `vdev:NAME[,ARGS]`.
    fn from_str(text: &str) -> Result<Self> {
        Err(Error::BadDevice(text.into()))
    }
}

/// What a port is configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Largest MTU.
    pub max_mtu: u16,
    /// The device verifies IPv4 header checksums.
    pub rx_ip_checksum: bool,
    /// The device verifies TCP and UDP checksums.
    pub rx_l4_checksum: bool,
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
    /// Packets that the device could not send.
    pub tx_errors: u64,
    /// Times that the driver found no packet buffer.
    pub rx_no_buffer: u64,
    /// Frames that arrived in several buffers and were dropped for that (never with a device that keeps to its MTU).
    pub rx_chained: u64,
}

/// A port that haechi took over. Closed when it and all handles of its queues are gone.
pub struct Port {
    eal: Eal,
    info: PortInfo,
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
        let _ = (name, device, mtu);
        Ok(Self {
            eal: eal.clone(),
            info: PortInfo::default(),
        })
    }

    /// What is known of the device.
    #[must_use]
    pub fn info(&self) -> &PortInfo {
        let _ = &self.eal;
        &self.info
    }

    /// Makes the port's packet buffers, each with room for one whole frame, and sets up queues, offloads and promiscuous
    /// mode. Once, before the first start.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the number of queues that the device has; [`Error::Memory`] with the memory needed.
    pub fn configure(&mut self, setup: &PortSetup) -> Result<()> {
        let _ = setup;
        Ok(())
    }

    /// The port's packet buffers; `None` before [`Port::configure`].
    #[must_use]
    pub fn buffers(&self) -> Option<BufferUse> {
        None
    }

    /// Starts the port and gives out its queues, each to be owned by one worker.
    ///
    /// # Errors
    /// What the driver says; [`Error::InUse`] when it is started already.
    pub fn start(&mut self) -> Result<(Vec<RxQueue>, Vec<TxQueue>)> {
        Ok((Vec::new(), Vec::new()))
    }

    /// Stops the port. All its queue handles must have been dropped.
    ///
    /// # Errors
    /// [`Error::InUse`] while handles exist; the port then runs on.
    pub fn stop(&mut self) -> Result<()> {
        Ok(())
    }

    /// Stops and closes the port and detaches its device, so that it can be opened again: after its kernel interface came
    /// back, for example.
    ///
    /// # Errors
    /// [`Error::InUse`] while handles exist: the port is then closed when the last of them goes.
    pub fn close(self) -> Result<()> {
        Ok(())
    }

    /// The link as the device reports it (see [`PortInfo::knows_link`]). Never waits.
    #[must_use]
    pub fn link(&self) -> Link {
        Link::default()
    }

    /// Sets the link up or down.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the driver cannot.
    pub fn set_link(&self, up: bool) -> Result<()> {
        let _ = up;
        Ok(())
    }

    /// The device's counters.
    #[must_use]
    pub fn stats(&self) -> PortStats {
        PortStats::default()
    }

    /// The device said that it is gone (hot unplug).
    #[must_use]
    pub fn removed(&self) -> bool {
        false
    }

    /// How long the smallest receive ring takes to fill with the smallest frames at link speed: who sleeps longer than
    /// this between two polls may lose packets.
    #[must_use]
    pub fn ring_fill_time(&self) -> Nanos {
        Nanos::MILLISECOND
    }
}
