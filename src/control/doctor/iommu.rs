//! The IOMMU and VFIO, by which DPDK gets PCI devices.

use super::{Group, Host, drivers};
use crate::config::{Config, Device};

pub(super) fn examine(host: &Host, config: Option<&Config>, group: &mut Group<'_>) {
    let devices = config.map(|config| {
        let ports = config.ports.iter();
        ports.filter(|port| takes_vfio(host, &port.device)).count()
    });
    if devices == Some(0) {
        group.ok("not needed: no port is a PCI device that VFIO hands out");
        return;
    }
    let needed = devices.is_some();
    let mut bad = |text: &str, fix: String| {
        if needed {
            group.fail(text, fix);
        } else {
            group.warn(text, fix);
        }
    };
    let unsafe_mode = host.no_iommu();
    let on = host.has_iommu();
    if !host.has("sys/bus/pci/drivers/vfio-pci") {
        bad(
            "vfio-pci is not loaded",
            "modprobe vfio-pci; echo vfio-pci > /etc/modules-load.d/vfio-pci.conf".to_owned(),
        );
    } else if !host.has("dev/vfio/vfio") {
        bad(
            "vfio-pci is there, but /dev/vfio/vfio is not",
            "modprobe vfio; in a container, pass /dev/vfio in".to_owned(),
        );
    } else {
        group.ok("vfio-pci is loaded");
    }
    if on {
        group.ok("the IOMMU is on: devices reach the memory that they were given and no other");
    } else if unsafe_mode {
        group.warn(
            "no IOMMU, and VFIO's no-IOMMU mode: a device can write to any memory of the host",
            how_to_switch_on(host),
        );
    } else if needed {
        group.fail(
            "the IOMMU is off: vfio-pci takes no device",
            how_to_switch_on(host),
        );
    } else {
        group.warn(
            "the IOMMU is off: vfio-pci takes no device",
            how_to_switch_on(host),
        );
    }
}

/// Is it a PCI device, and none that DPDK drives beside the kernel?
fn takes_vfio(host: &Host, device: &Device) -> bool {
    match device {
        Device::Virtual(_) => false,
        Device::Pci(address) => {
            let driver = host.link(&format!("sys/bus/pci/devices/{address}/driver"));
            !driver.is_some_and(|driver| drivers::stays(&driver))
        }
    }
}

impl Host {
    /// Does an IOMMU work here?
    pub(super) fn has_iommu(&self) -> bool {
        !self.names("sys/class/iommu").is_empty() || !self.names("sys/kernel/iommu_groups").is_empty()
    }

    /// Takes VFIO devices without an IOMMU?
    pub(in crate::control) fn no_iommu(&self) -> bool {
        let mode = self.read("sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
        mode.is_some_and(|mode| mode == "Y" || mode == "1")
    }
}

fn how_to_switch_on(host: &Host) -> String {
    if host.is_virtual() {
        return "give the virtual machine an IOMMU (QEMU: -device intel-iommu,intremap=on), or accept the risk: echo 1 > \
                /sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
            .to_owned();
    }
    let (name, option) = if host.cpuinfo().contains("AuthenticAMD") {
        ("AMD-Vi", "iommu=pt")
    } else {
        ("VT-d", "intel_iommu=on iommu=pt")
    };
    format!(
        "switch {name} on in the firmware, add {option} to GRUB_CMDLINE_LINUX in /etc/default/grub; update-grub; reboot"
    )
}
