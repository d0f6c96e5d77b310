//! `haechi bind` and `haechi unbind`: PCI devices from the kernel to vfio-pci, and back.
//!
//! Everything is done by files of sysfs (the kernel's Documentation/ABI/testing/sysfs-bus-pci: `driver_override`, `unbind`, `bind`,
//! `drivers_probe`), below a root directory, `/` but in tests. All devices are checked before the first is touched.

mod interfaces;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::NodeError;
use super::doctor::{Host, drivers};
use super::node::ErrorKind;
use crate::config::net::pci_address;

/// The driver that hands devices to programs.
const VFIO: &str = "vfio-pci";
/// Where the former driver of each device is kept, below the root: until the next boot, after which the kernel binds them anew anyway.
const FORMER: &str = "run/haechi-bind";

/// What the kernel does when it is asked; tests have one of their own.
pub trait Kernel {
    /// Writes to a file of sysfs.
    ///
    /// # Errors
    /// What the kernel answers.
    fn write(&self, file: &Path, text: &str) -> io::Result<()>;

    /// The addresses of an interface, but for link-local ones, which it has by itself.
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn addresses(&self, interface: u32) -> io::Result<Vec<IpAddr>>;
}

/// The kernel of this host.
#[derive(Clone, Copy, Debug)]
pub struct Linux;

impl Kernel for Linux {
    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        // A file that is not there is not to be made.
        let mut open = fs::OpenOptions::new().write(true).open(file)?;
        io::Write::write_all(&mut open, text.as_bytes())
    }

    fn addresses(&self, interface: u32) -> io::Result<Vec<IpAddr>> {
        interfaces::addresses(interface)
    }
}

/// The PCI bus of a host.
pub struct Bus<'k> {
    host: Host,
    kernel: &'k dyn Kernel,
    /// Also what somebody uses.
    force: bool,
}

/// A device, found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Device {
    address: String,
    driver: Option<String>,
    interfaces: Vec<String>,
}

fn refused(what: impl Into<String>, fix: impl Into<String>) -> NodeError {
    NodeError::new(ErrorKind::Refused, what).fix(fix)
}

impl<'k> Bus<'k> {
    /// The bus of the host whose `/sys`, `/proc` and `/run` are in `root`. `force`: what is in use is taken, too.
    #[must_use]
    pub fn new(root: &Path, kernel: &'k dyn Kernel, force: bool) -> Self {
        Self {
            host: Host::new(root),
            kernel,
            force,
        }
    }

    /// Binds devices (PCI addresses or interfaces) to vfio-pci, and says what it did.
    ///
    /// # Errors
    /// One line with the fix. Before anything was done: a device is not there, is no network device, is in use, cannot be had by VFIO. Or the
    /// kernel refused, and the device is as it was.
    pub fn bind(&self, names: &[String], say: &mut dyn FnMut(String)) -> Result<(), NodeError> {
        let devices = self.find_all(names)?;
        for device in &devices {
            self.check(device, &devices)?;
        }
        for device in &devices {
            match device.driver.as_deref() {
                Some(VFIO) => say(format!("{}: is bound to {VFIO} already", device.address)),
                former => {
                    self.bind_one(device)?;
                    let from = former.map_or_else(|| "no driver".to_owned(), str::to_owned);
                    say(format!("{}: {from} -> {VFIO}{}", device.address, gone(device)));
                }
            }
        }
        Ok(())
    }

    /// Gives devices back to the drivers that they had, and says what it did.
    ///
    /// # Errors
    /// One line with the fix: a device is not there, a process has it, the kernel refused.
    pub fn unbind(&self, names: &[String], say: &mut dyn FnMut(String)) -> Result<(), NodeError> {
        let devices = self.find_all(names)?;
        for device in &devices {
            self.check_unused(device)?;
        }
        for device in &devices {
            match device.driver.as_deref() {
                Some(VFIO) => {
                    let now = self.unbind_one(device)?;
                    let now =
                        now.map_or_else(|| "no driver".to_owned(), |now| self.named(&device.address, &now));
                    say(format!("{}: {VFIO} -> {now}", device.address));
                }
                Some(other) => say(format!(
                    "{}: is not bound to {VFIO}, but to {other}",
                    device.address
                )),
                None => say(format!("{}: has no driver", device.address)),
            }
        }
        Ok(())
    }

    fn at(&self, address: &str) -> String {
        format!("sys/bus/pci/devices/{address}")
    }

    fn driver(&self, address: &str) -> Option<String> {
        self.host.link(&format!("{}/driver", self.at(address)))
    }

    /// A driver, with the interfaces that it made of a device.
    fn named(&self, address: &str, driver: &str) -> String {
        match self.host.names(&format!("{}/net", self.at(address))).join(", ") {
            interfaces if interfaces.is_empty() => driver.to_owned(),
            interfaces => format!("{driver} ({interfaces})"),
        }
    }

    fn find_all(&self, names: &[String]) -> Result<Vec<Device>, NodeError> {
        let mut devices: Vec<Device> = Vec::new();
        for name in names {
            let device = self.find(name)?;
            if !devices.contains(&device) {
                devices.push(device);
            }
        }
        Ok(devices)
    }

    fn find(&self, name: &str) -> Result<Device, NodeError> {
        const LIST: &str = "`lspci -D` lists PCI devices, `ip link` interfaces";
        let address = match pci_address(name) {
            Some(address) => address,
            // A name from the outside becomes part of a path.
            None if name.is_empty() || name.contains('/') || name.starts_with('.') => {
                return Err(refused(
                    format!("`{name}` is neither a PCI address nor an interface"),
                    LIST,
                ));
            }
            None => {
                let interface = format!("sys/class/net/{name}");
                if !self.host.has(&interface) {
                    return Err(refused(format!("there is no interface {name}"), LIST));
                }
                let device = self.host.link(&format!("{interface}/device"));
                let device = device.filter(|device| pci_address(device).is_some());
                device.ok_or_else(|| {
                    refused(
                        format!("interface {name} is no PCI device's"),
                        "name it in a port: device = \"vdev:net_af_xdp0,iface=...\"; that needs no binding",
                    )
                })?
            }
        };
        let at = self.at(&address);
        if !self.host.has(&at) {
            return Err(refused(format!("there is no PCI device {address}"), LIST));
        }
        let class = self.host.read(&format!("{at}/class")).unwrap_or_default();
        if !class.starts_with("0x02") {
            return Err(refused(
                format!("{address} is no network device (class {class})"),
                LIST,
            ));
        }
        Ok(Device {
            driver: self.driver(&address),
            interfaces: self.host.names(&format!("{at}/net")),
            address,
        })
    }

    /// May it be bound, together with `all`?
    fn check(&self, device: &Device, all: &[Device]) -> Result<(), NodeError> {
        let address = &device.address;
        if device.driver.as_deref() == Some(VFIO) {
            return Ok(());
        }
        if let Some(driver) = device.driver.as_deref().filter(|driver| drivers::stays(driver)) {
            return Err(refused(
                format!("{address} stays with {driver}: DPDK drives it beside the kernel"),
                "use it as it is: no binding",
            ));
        }
        if !self.host.has("sys/bus/pci/drivers/vfio-pci") {
            return Err(refused("vfio-pci is not loaded", "modprobe vfio-pci"));
        }
        if !self.host.has(&format!("{}/iommu_group", self.at(address))) && !self.host.no_iommu() {
            return Err(refused(
                format!("{address} is behind no IOMMU, and VFIO takes no other device"),
                "`haechi doctor` says how to switch it on",
            ));
        }
        let others = self.host.others_in_group(address);
        let others: Vec<String> = others
            .into_iter()
            .filter(|other| all.iter().all(|device| device.address != *other))
            .collect();
        if !others.is_empty() {
            return Err(refused(
                format!(
                    "the IOMMU group of {address} has devices that the kernel uses: {}",
                    others.join(", ")
                ),
                format!(
                    "bind them as well: haechi bind {address} {}; or move the card to another slot",
                    others.join(" ")
                ),
            ));
        }
        if !self.force {
            for interface in &device.interfaces {
                self.check_idle(interface)?;
            }
        }
        Ok(())
    }

    /// Is this host using the interface?
    fn check_idle(&self, interface: &str) -> Result<(), NodeError> {
        let at = format!("sys/class/net/{interface}");
        let read = |file: &str| self.host.read(&format!("{at}/{file}"));
        let flags =
            read("flags").and_then(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok());
        // IFF_UP of <linux/if.h>.
        if flags.is_some_and(|flags| flags & 1 == 0) {
            return Ok(());
        }
        let used = |how: &str| {
            Err(refused(
                format!("interface {interface} is in use: {how}"),
                format!(
                    "ip link set {interface} down, or haechi bind --force: not if you are logged in through it"
                ),
            ))
        };
        if interfaces::has_default_route(&self.host, interface) {
            return used("it has a default route");
        }
        let uppers = self.host.names(&at);
        if let Some(upper) = uppers.iter().find_map(|name| name.strip_prefix("upper_")) {
            return used(&format!("{upper} is on top of it"));
        }
        let Some(index) = read("ifindex").and_then(|index| index.parse().ok()) else {
            return used("the kernel does not say its index");
        };
        match self.kernel.addresses(index) {
            Ok(addresses) => match addresses.first() {
                Some(address) => used(&format!("it is up, and has the address {address}")),
                None => Ok(()),
            },
            Err(e) => used(&format!("the kernel does not tell its addresses: {e}")),
        }
    }

    /// Has a process the device open? The kernel would wait for it, however long.
    fn check_unused(&self, device: &Device) -> Result<(), NodeError> {
        if device.driver.as_deref() != Some(VFIO) || self.force {
            return Ok(());
        }
        let group = self
            .host
            .link(&format!("{}/iommu_group", self.at(&device.address)));
        let Some(group) = group else {
            return Ok(());
        };
        let is_group = |target: &Path| {
            let name = target.strip_prefix("/dev/vfio").ok().and_then(Path::to_str);
            // That of a device without an IOMMU is called so.
            name.is_some_and(|name| name == group || name == format!("noiommu-{group}"))
        };
        for process in self
            .host
            .names("proc")
            .into_iter()
            .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        {
            let files = format!("proc/{process}/fd");
            for file in self.host.names(&files) {
                if fs::read_link(self.host.path(&format!("{files}/{file}")))
                    .is_ok_and(|target| is_group(&target))
                {
                    return Err(refused(
                        format!("process {process} has {}", device.address),
                        "stop the node first: systemctl stop haechi@NAME",
                    ));
                }
            }
        }
        Ok(())
    }

    fn write(&self, file: &str, text: &str) -> Result<(), NodeError> {
        self.kernel.write(&self.host.path(file), text).map_err(|e| {
            let fix = match e.kind() {
                io::ErrorKind::PermissionDenied => "run it as root",
                _ => "dmesg | tail says what the kernel thinks of it",
            };
            refused(format!("/{file}: cannot write `{}`: {e}", text.trim()), fix)
        })
    }

    fn former(&self, address: &str) -> PathBuf {
        self.host.path(FORMER).join(address)
    }

    fn remember(&self, device: &Device) -> Result<(), NodeError> {
        let file = self.former(&device.address);
        let driver = device.driver.as_deref().unwrap_or_default();
        let written = fs::create_dir_all(self.host.path(FORMER)).and_then(|()| fs::write(&file, driver));
        written.map_err(|e| {
            refused(
                format!(
                    "{}: cannot note the driver of {}: {e}",
                    file.display(),
                    device.address
                ),
                "run it as root",
            )
        })
    }

    fn bind_one(&self, device: &Device) -> Result<(), NodeError> {
        let address = &device.address;
        self.remember(device)?;
        let bound = self.move_to_vfio(device);
        if bound.is_err() {
            // As it was; what went wrong first is what there is to tell.
            let _ = self.put_back(address, Some(device.driver.as_deref().unwrap_or_default()));
            let _ = fs::remove_file(self.former(address));
        }
        bound
    }

    fn move_to_vfio(&self, device: &Device) -> Result<(), NodeError> {
        let address = &device.address;
        let at = self.at(address);
        self.write(&format!("{at}/driver_override"), VFIO)?;
        if device.driver.is_some() {
            self.write(&format!("{at}/driver/unbind"), address)?;
        }
        self.write("sys/bus/pci/drivers_probe", address)?;
        match self.driver(address).as_deref() {
            Some(VFIO) => Ok(()),
            other => Err(refused(
                format!(
                    "{address}: {VFIO} does not take it (its driver is {})",
                    other.unwrap_or("none")
                ),
                "dmesg | tail says why",
            )),
        }
    }

    /// From whatever driver to this one, or to the one that the kernel chooses by itself, or (an empty name) to none.
    fn put_back(&self, address: &str, driver: Option<&str>) -> Result<(), NodeError> {
        let at = self.at(address);
        // A line end alone takes the override away.
        self.write(&format!("{at}/driver_override"), "\n")?;
        if self
            .driver(address)
            .is_some_and(|now| Some(now.as_str()) != driver)
        {
            self.write(&format!("{at}/driver/unbind"), address)?;
        }
        if self.driver(address).is_some() {
            return Ok(());
        }
        match driver {
            Some("") => Ok(()),
            Some(driver) if self.host.has(&format!("sys/bus/pci/drivers/{driver}")) => {
                self.write(&format!("sys/bus/pci/drivers/{driver}/bind"), address)
            }
            _ => self.write("sys/bus/pci/drivers_probe", address),
        }
    }

    /// The driver that it has then.
    fn unbind_one(&self, device: &Device) -> Result<Option<String>, NodeError> {
        let address = &device.address;
        let file = self.former(address);
        let former = fs::read_to_string(&file).ok();
        self.put_back(address, former.as_deref())?;
        let now = self.driver(address);
        if let Some(former) = former.filter(|former| !former.is_empty() && now.as_deref() != Some(former)) {
            return Err(refused(
                format!("{address}: {former} does not take it back"),
                format!("modprobe {former}; then: echo {address} > /sys/bus/pci/drivers_probe"),
            ));
        }
        let _ = fs::remove_file(file);
        Ok(now)
    }
}

/// What goes with the kernel's driver.
fn gone(device: &Device) -> String {
    match device.interfaces.join(", ") {
        interfaces if interfaces.is_empty() => String::new(),
        interfaces => format!(" (interface {interfaces} is gone)"),
    }
}
