//! Finding a port's device and taking it over, and saying in one line why that cannot be.

use std::{
    ffi::CString,
    fs,
    path::{Path, PathBuf},
};

use super::{
    super::{
        Eal,
        eal::{Control, said},
        error::{Error, Result},
        host, log, sys,
    },
    Device,
    driver::Kind,
    kernel::{self, KernelInterface},
};

/// A device that was probed: its port number, and the interface that it stands on.
pub(super) struct Probed {
    pub(super) id: u16,
    /// The virtual device's arguments, completed.
    pub(super) args: String,
    pub(super) kernel: Option<KernelInterface>,
}

/// Takes the device over and notes so in `control`.
pub(super) fn probe(
    eal: &Eal,
    control: &mut Control,
    name: &str,
    device: &Device,
    mtu: u16,
) -> Result<Probed> {
    if control.devices.iter().any(|d| d == device.name()) {
        let rename = match device {
            Device::Pci(_) => "each port needs a device of its own",
            Device::Vdev { .. } => "give each virtual device a number of its own (net_af_xdp0, net_af_xdp1)",
        };
        return Err(Error::DeviceBusy(format!(
            "port '{name}': another port has the device {} already: {rename}",
            device.name()
        )));
    }
    let probed = match device {
        Device::Pci(address) => probe_pci(eal, name, address)?,
        Device::Vdev { name: vdev, args } => probe_vdev(control, name, vdev, args, mtu)?,
    };
    control.devices.push(device.name().to_owned());
    control.interfaces.extend(probed.kernel.as_ref().map(|k| k.index));
    Ok(probed)
}

/// The port of a device that is probed already.
fn find(device: &str) -> Option<u16> {
    let name = CString::new(device).ok()?;
    // SAFETY: a C string; reads the list of ports.
    u16::try_from(unsafe { sys::hx_port_of_device(name.as_ptr()) }).ok()
}

/// Has the EAL probe a device; 0 or a negative errno.
fn dev_probe(devargs: &str) -> i32 {
    CString::new(devargs).map_or(-libc::EINVAL, |devargs| {
        // SAFETY: a C string; `Control`'s lock, which the caller holds, makes this the only probing.
        unsafe { sys::rte_dev_probe(devargs.as_ptr()) }
    })
}

fn probe_vdev(control: &Control, port: &str, vdev: &str, args: &str, mtu: u16) -> Result<Probed> {
    let kind = Kind::of(vdev);
    let device = Device::Vdev {
        name: vdev.to_owned(),
        args: args.to_owned(),
    };
    if let Err(fix) = kind.check_args(args) {
        return Err(Error::BadDevice(format!(
            "port '{port}': {device} does not work: {fix}"
        )));
    }
    let mut interface = None;
    if kind.takes_interface() {
        let Some(iface) = device.interface() else {
            return Err(Error::BadDevice(format!(
                "port '{port}': {vdev} needs the name of a network interface: \"vdev:{vdev},iface=eth1\""
            )));
        };
        let Some(found) = KernelInterface::find(iface) else {
            return Err(Error::NoDevice(format!(
                "port '{port}': there is no network interface '{iface}' in this network namespace: `ip link` lists those that \
                 there are"
            )));
        };
        if control.interfaces.contains(&found.index) {
            return Err(Error::DeviceBusy(format!(
                "port '{port}': another port has the network interface '{iface}' already: each port needs one of its own"
            )));
        }
        if !host::privileged() {
            return Err(unprivileged(port, &device));
        }
        interface = Some(found);
    }
    let args = kind.complete_args(args, mtu);
    let mark = log::mark();
    let result = dev_probe(&if args.is_empty() {
        vdev.to_owned()
    } else {
        format!("{vdev},{args}")
    });
    if result == 0 {
        if let Some(id) = find(vdev) {
            return Ok(Probed {
                id,
                args,
                kernel: interface,
            });
        }
    }
    let lines = log::since(mark);
    if lines
        .iter()
        .any(|l| l.contains("failed to parse device") || l.contains("no driver found"))
    {
        return Err(Error::NoDevice(format!(
            "port '{port}': no DPDK driver takes a device named '{vdev}': check the name, or install its driver (packages \
             librte-net-*; dpdk has all)"
        )));
    }
    if !host::privileged() {
        return Err(unprivileged(port, &device));
    }
    Err(Error::Driver(format!(
        "port '{port}': the driver does not take {device}: {}; check the arguments and that nobody else uses the device",
        said(&lines)
    )))
}

/// The line for a device that takes privileges.
fn unprivileged(port: &str, device: &Device) -> Error {
    Error::Privileges(format!(
        "port '{port}': {device} takes privileges that this process has not: run as root, or with CAP_NET_ADMIN, CAP_NET_RAW, \
         CAP_BPF, CAP_IPC_LOCK and CAP_SYS_ADMIN"
    ))
}

fn probe_pci(eal: &Eal, port: &str, address: &str) -> Result<Probed> {
    if !eal.config().devices.iter().any(|d| d.pci() == Some(address)) {
        return Err(Error::NoDevice(format!(
            "port '{port}': the PCI device {address} was not named when the EAL started: restart haechi"
        )));
    }
    let found = |id| Probed {
        id,
        args: String::new(),
        kernel: None,
    };
    if let Some(id) = find(address) {
        return Ok(found(id));
    }
    // Not probed at the EAL's start, or detached since: once more, for the reason.
    let sysfs = Path::new("/sys/bus/pci/devices").join(address);
    diagnose_pci(port, address, &sysfs)?;
    let mark = log::mark();
    let result = dev_probe(address);
    if let Some(id) = (result == 0).then(|| find(address)).flatten() {
        return Ok(found(id));
    }
    Err(pci_refused(
        port,
        address,
        &sysfs,
        result,
        &said(&log::since(mark)),
    ))
}

/// What can be told from sysfs before the driver is asked.
fn diagnose_pci(port: &str, address: &str, sysfs: &Path) -> Result<()> {
    if !sysfs.exists() {
        return Err(Error::NoDevice(format!(
            "port '{port}': there is no PCI device {address}: `lspci -D` lists those that there are"
        )));
    }
    let class = fs::read_to_string(sysfs.join("class")).unwrap_or_default();
    if !class.is_empty() && !class.starts_with("0x02") {
        return Err(Error::NoDevice(format!(
            "port '{port}': the PCI device {address} is no network device (class {}): `lspci -D | grep -i net` lists those",
            class.trim()
        )));
    }
    let bind = format!("`haechi bind {address}` or `dpdk-devbind.py --bind=vfio-pci {address}`");
    match driver(sysfs).as_deref() {
        // Bifurcated drivers: DPDK works beside the kernel's.
        Some("vfio-pci" | "igb_uio" | "uio_pci_generic" | "mlx5_core" | "mlx4_core" | "mana") => Ok(()),
        Some(kernel) => Err(Error::Unsupported(format!(
            "port '{port}': the PCI device {address} belongs to the kernel driver {kernel}: bind it to vfio-pci with {bind} (it then \
             is no network interface of the host any more)"
        ))),
        None => Err(Error::Unsupported(format!(
            "port '{port}': the PCI device {address} is bound to no driver: bind it to vfio-pci with {bind}"
        ))),
    }
}

fn driver(sysfs: &Path) -> Option<String> {
    fs::read_link(sysfs.join("driver"))
        .ok()?
        .file_name()?
        .to_str()
        .map(str::to_owned)
}

/// Why a PCI device that looks right was not taken.
fn pci_refused(port: &str, address: &str, sysfs: &Path, result: i32, said: &str) -> Error {
    if driver(sysfs).as_deref() == Some("vfio-pci") {
        let group = fs::read_link(sysfs.join("iommu_group")).ok();
        let Some(group) = group.as_deref().and_then(Path::file_name) else {
            return Error::Unsupported(format!(
                "port '{port}': the PCI device {address} has no IOMMU group: switch the IOMMU on (firmware, and intel_iommu=on or \
                 amd_iommu=on for the kernel)"
            ));
        };
        let node = PathBuf::from("/dev/vfio").join(group);
        match fs::OpenOptions::new().read(true).write(true).open(&node) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                return Error::DeviceBusy(format!(
                    "port '{port}': another process uses the PCI device {address} ({}): `fuser -v {}` names it",
                    node.display(),
                    node.display()
                ));
            }
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                return Error::Privileges(format!(
                    "port '{port}': {} may not be opened: run as root, or give this user the device node",
                    node.display()
                ));
            }
            _ => {}
        }
    }
    Error::NoDevice(format!(
        "port '{port}': no DPDK driver takes the PCI device {address} ({said}, error {}): see `dpdk-devbind.py --status`, and \
         install its driver (packages librte-net-*; dpdk has all)",
        -result
    ))
}

/// What to say when a receive queue of a port on a kernel interface cannot be set up.
pub(super) fn queue_refused(
    port: &str,
    kind: Kind,
    interface: Option<&KernelInterface>,
    lines: &[String],
) -> Error {
    let said = said(lines);
    match (kind, interface) {
        (Kind::AfXdp, Some(interface)) if kernel::index_of(&interface.name) != Some(interface.index) => {
            Error::NoDevice(format!(
                "port '{port}': the network interface '{}' is gone",
                interface.name
            ))
        }
        (Kind::AfXdp, Some(interface)) => Error::DeviceBusy(format!(
            "port '{port}': AF_XDP cannot be bound to '{0}': another process has its queue or an XDP program (`ip link show {0}` shows \
             one), or its MTU, or a veth peer's, is too large for XDP ({said})",
            interface.name
        )),
        _ => Error::Driver(format!("port '{port}': a receive queue cannot be set up: {said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_devices_are_told_apart_by_sysfs() {
        let root = std::env::temp_dir().join(format!("haechi-pci-{}", std::process::id()));
        let device = |name: &str, class: &str, driver: Option<&str>| {
            let dir = root.join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("class"), class).unwrap();
            if let Some(driver) = driver {
                let target = root.join("drivers").join(driver);
                fs::create_dir_all(&target).unwrap();
                std::os::unix::fs::symlink(target, dir.join("driver")).unwrap();
            }
            diagnose_pci("wan", "0000:01:00.0", &dir)
        };
        let text = |r: Result<()>| r.unwrap_err().to_string();
        let results = [
            device("a", "0x020000\n", Some("vfio-pci")),
            device("b", "0x020000\n", Some("mlx5_core")),
            device("c", "0x020000\n", Some("igb")),
            device("d", "0x020000\n", None),
            device("e", "0x030000\n", Some("vfio-pci")),
            diagnose_pci("wan", "0000:01:00.0", &root.join("missing")),
        ];
        fs::remove_dir_all(&root).unwrap();
        let [a, b, c, d, e, f] = results;
        assert!(a.is_ok() && b.is_ok());
        let c = text(c);
        assert!(
            c.contains("kernel driver igb") && c.contains("haechi bind 0000:01:00.0"),
            "{c}"
        );
        assert!(text(d).contains("no driver"));
        assert!(text(e).contains("no network device"));
        assert!(text(f).contains("there is no PCI device 0000:01:00.0"));
    }
}
