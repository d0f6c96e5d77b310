//! A port's device: whose it is, whether DPDK can drive it, and how far from the workers it is.

use super::drivers::{self, Rss};
use super::host::{FOR_PROGRAMS, named, ranges};
use super::{Group, Host};
use crate::base::numa;
use crate::config::{Config, Device, Port};

pub(super) fn examine(host: &Host, config: Option<&Config>, port: &Port, group: &mut Group<'_>) {
    match &port.device {
        Device::Virtual(_) => virtual_device(host, &port.device, group),
        Device::Pci(address) => pci_device(host, config, address, group),
    }
}

fn virtual_device(host: &Host, device: &Device, group: &mut Group<'_>) {
    match device.kernel_interface() {
        Some(interface)
            if !device.eal_name().starts_with("net_tap")
                && !host.has(&format!("sys/class/net/{interface}")) =>
        {
            group.fail(
                format!("there is no network interface {interface}"),
                "ip link lists those that there are",
            )
        }
        _ => group.warn(
            format!(
                "{} is a virtual device: good for a lab, not for line rate",
                device.eal_name()
            ),
            "on bare metal, name the NIC's PCI address",
        ),
    }
}

fn pci_device(host: &Host, config: Option<&Config>, address: &str, group: &mut Group<'_>) {
    let at = format!("sys/bus/pci/devices/{address}");
    if !host.has(&at) {
        group.fail(
            format!("there is no PCI device {address}"),
            "lspci -D | grep -i ethernet lists those that there are",
        );
        return;
    }
    let class = host.read(&format!("{at}/class")).unwrap_or_default();
    // Base class 02: network controllers (PCI Code and ID Assignment Specification).
    if !class.is_empty() && !class.starts_with("0x02") {
        group.fail(
            format!("{address} is no network device (class {class})"),
            "lspci -D | grep -i ethernet lists those that there are",
        );
        return;
    }
    let id = |what: &str| {
        let text = host.read(&format!("{at}/{what}"))?;
        u16::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    };
    let (vendor, device) = (id("vendor").unwrap_or(0), id("device").unwrap_or(0));
    let pmd = drivers::find(vendor, device);
    bound(host, &at, address, group);
    let workers = config.map_or(1, |config| config.node.workers.0.len());
    match pmd {
        None => group.warn(
            format!("no DPDK driver is known here for {vendor:04x}:{device:04x}"),
            "dpdk-pmdinfo.py /usr/lib/x86_64-linux-gnu/dpdk/pmds-*/*.so lists the devices of the drivers that are installed",
        ),
        Some(pmd) => rss(pmd, workers, group),
    }
    viable(host, address, group);
    lanes(host, &at, group);
    distance(host, config, address, group);
}

fn bound(host: &Host, at: &str, address: &str, group: &mut Group<'_>) {
    let driver = host.link(&format!("{at}/driver"));
    match driver.as_deref() {
        Some("vfio-pci") => group.ok(format!("{address} is bound to vfio-pci")),
        Some(uio) if FOR_PROGRAMS.contains(&uio) => group.warn(
            format!(
                "{address} is bound to {uio}: without an IOMMU between, and without interrupts for each queue"
            ),
            format!("haechi bind {address}"),
        ),
        Some(kernel) if drivers::stays(kernel) => {
            group.ok(format!(
                "{address} stays with {kernel}, beside which DPDK drives it"
            ));
        }
        Some(kernel) => {
            let interface = host.names(&format!("{at}/net")).join(", ");
            let named = if interface.is_empty() {
                String::new()
            } else {
                format!(" ({interface})")
            };
            group.fail(
                format!("{address} belongs to the kernel: driver {kernel}{named}"),
                format!("haechi bind {address}"),
            );
        }
        None => group.fail(
            format!("{address} has no driver"),
            format!("haechi bind {address}"),
        ),
    }
}

fn rss(pmd: &drivers::Pmd, workers: usize, group: &mut Group<'_>) {
    let name = pmd.name;
    match pmd.rss {
        Rss::Symmetric => group.ok(format!("{name} drives it; its RSS is symmetric in hardware")),
        Rss::Key => group.ok(format!("{name} drives it; its RSS becomes symmetric by the key")),
        Rss::None if workers < 2 => group.ok(format!("{name} drives it")),
        Rss::None => group.warn(
            format!("{name} drives it; it has no RSS that can be used: {workers} workers place its packets in software"),
            "take a NIC with RSS, or one worker",
        ),
    }
}

/// VFIO hands out groups: all their devices, or none (the kernel's Documentation/driver-api/vfio.rst). Bridges do not count.
fn viable(host: &Host, address: &str, group: &mut Group<'_>) {
    let others = host.others_in_group(address);
    if !others.is_empty() {
        group.fail(
            format!(
                "the IOMMU group of {address} has devices that the kernel uses: {}",
                others.join(", ")
            ),
            format!(
                "haechi bind {address} {}, or move the card to another slot",
                others.join(" ")
            ),
        );
    }
}

/// A card in a slot that is too narrow or too slow for it.
fn lanes(host: &Host, at: &str, group: &mut Group<'_>) {
    let read = |what: &str| host.read(&format!("{at}/{what}"));
    let width = |what: &str| read(what)?.parse::<u32>().ok();
    let speed = |what: &str| read(what)?.split_whitespace().next()?.parse::<f64>().ok();
    if let (Some(is), Some(can)) = (width("current_link_width"), width("max_link_width")) {
        // 0 and 255 say "not known".
        if is < can && is > 0 && can < 255 {
            group.warn(
                format!("PCIe: {is} lanes of {can}"),
                "move the card to a wider slot",
            );
        }
    }
    if let (Some(is), Some(can)) = (speed("current_link_speed"), speed("max_link_speed")) {
        if is < can {
            group.warn(
                format!("PCIe: {is} GT/s a lane of {can}"),
                "move the card to a faster slot, or set the slot's generation in the firmware",
            );
        }
    }
}

fn distance(host: &Host, config: Option<&Config>, address: &str, group: &mut Group<'_>) {
    let nodes = host.topology.nodes();
    let (Some(config), true) = (config, nodes.len() > 1) else {
        return;
    };
    let Some(node) = numa::node_of_device(&host.path("sys"), address) else {
        group.warn(
            format!("the firmware does not say on which NUMA node {address} is"),
            "look into the board's manual for the slot's CPU, and choose `[node] workers` there",
        );
        return;
    };
    let workers: Vec<usize> = config
        .node
        .workers
        .0
        .iter()
        .map(|cpu| usize::from(*cpu))
        .collect();
    let mut far: Vec<usize> = workers
        .iter()
        .copied()
        .filter(|cpu| host.topology.node(*cpu).is_some_and(|its| its != node))
        .collect();
    far.sort_unstable();
    if far.is_empty() {
        group.ok(format!("{address} and its workers are on NUMA node {node}"));
        return;
    }
    let near: Vec<usize> = host.topology.cpus_of(node).collect();
    group.warn(
        format!(
            "{address} is on NUMA node {node}, and workers are not ({}): each packet crosses between sockets",
            named(&far)
        ),
        format!(
            "choose `[node] workers` from {}, the CPUs of node {node}",
            ranges(&near)
        ),
    );
}
