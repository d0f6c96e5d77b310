//! `haechi bind` and `haechi unbind` over a made-up sysfs, with a kernel that does what Linux does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/host.rs"]
mod host;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use haechi::control::NodeError;
use haechi::control::bind::{Bus, Kernel};
use host::Tree;

/// Linux, as far as drivers of PCI devices go (drivers/pci/pci-driver.c, drivers/base/bus.c).
struct Linux<'t> {
    tree: &'t Tree,
    /// Which driver the kernel chooses by itself.
    own: BTreeMap<&'static str, &'static str>,
    addresses: BTreeMap<u32, Vec<IpAddr>>,
    /// Drivers that refuse their devices.
    refuses: Cell<Option<&'static str>>,
    written: RefCell<Vec<String>>,
}

impl Linux<'_> {
    fn probe(&self, address: &str) {
        let at = format!("sys/bus/pci/devices/{address}");
        let chosen = self
            .tree
            .read(&format!("{at}/driver_override"))
            .unwrap_or_default();
        let chosen = match chosen.trim() {
            "" => self.own.get(address).copied().unwrap_or_default(),
            driver => driver,
        };
        self.attach(chosen, address);
    }

    fn attach(&self, driver: &str, address: &str) {
        let there = self.tree.path(&format!("sys/bus/pci/drivers/{driver}")).exists();
        if driver.is_empty() || !there || self.refuses.get() == Some(driver) {
            return;
        }
        let at = format!("sys/bus/pci/devices/{address}");
        if !self.tree.path(&format!("{at}/driver")).exists() {
            self.tree
                .link(&format!("{at}/driver"), &format!("../../drivers/{driver}"));
        }
        if driver != "vfio-pci" {
            self.tree.interface("eth9", address, 9, false);
        }
    }
}

impl Kernel for Linux<'_> {
    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        let file = file
            .strip_prefix(self.tree.root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        self.written
            .borrow_mut()
            .push(format!("{} > {file}", text.trim()));
        let parts: Vec<&str> = file.split('/').collect();
        match parts[..] {
            ["sys", "bus", "pci", "devices", address, "driver_override"] => {
                self.tree.file(
                    &format!("sys/bus/pci/devices/{address}/driver_override"),
                    text.trim(),
                );
            }
            ["sys", "bus", "pci", "devices", address, "driver", "unbind"] => {
                assert_eq!(text, address);
                let at = format!("sys/bus/pci/devices/{address}");
                if !self.tree.path(&format!("{at}/driver")).is_symlink() {
                    return Err(io::ErrorKind::NotFound.into());
                }
                self.tree.remove(&format!("{at}/driver"));
                if self.tree.path(&format!("{at}/net")).exists() {
                    self.tree.remove(&format!("{at}/net"));
                }
            }
            ["sys", "bus", "pci", "drivers_probe"] => self.probe(text),
            ["sys", "bus", "pci", "drivers", driver, "bind"] => self.attach(driver, text),
            _ => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(())
    }

    fn addresses(&self, interface: u32) -> io::Result<Vec<IpAddr>> {
        Ok(self.addresses.get(&interface).cloned().unwrap_or_default())
    }
}

const NIC: &str = "0x020000";

/// Two ports of an i40e card, eth0 and eth1, in groups of their own, and vfio-pci loaded.
fn host() -> Tree {
    let tree = Tree::empty();
    tree.pci(("0000:3b:00.0", 0x8086, 0x1572), NIC, Some("i40e"), 0, Some(11))
        .pci(("0000:3b:00.1", 0x8086, 0x1572), NIC, Some("i40e"), 0, Some(12))
        .interface("eth0", "0000:3b:00.0", 2, true)
        .interface("eth1", "0000:3b:00.1", 3, true)
        .directory("sys/bus/pci/drivers/vfio-pci");
    tree
}

fn linux(tree: &Tree) -> Linux<'_> {
    Linux {
        tree,
        own: [("0000:3b:00.0", "i40e"), ("0000:3b:00.1", "i40e")].into(),
        addresses: BTreeMap::new(),
        refuses: Cell::new(None),
        written: RefCell::default(),
    }
}

type Done = (Vec<String>, Result<(), NodeError>);

fn bind(kernel: &Linux<'_>, force: bool, names: &[&str]) -> Done {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut said = Vec::new();
    let result = Bus::new(kernel.tree.root(), kernel, force).bind(&names, &mut |line| said.push(line));
    (said, result)
}

fn unbind(kernel: &Linux<'_>, force: bool, names: &[&str]) -> Done {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut said = Vec::new();
    let result = Bus::new(kernel.tree.root(), kernel, force).unbind(&names, &mut |line| said.push(line));
    (said, result)
}

/// Nothing was done, and the line says so.
#[track_caller]
fn refused(kernel: &Linux<'_>, (said, result): Done, words: &[&str]) {
    let line = result.expect_err("refused").to_string();
    for word in words {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert!(line.contains(" ("), "a fix: {line}");
    assert_eq!(said, [""; 0], "{line}");
    assert_eq!(*kernel.written.borrow(), [""; 0], "{line}");
    assert!(!kernel.tree.path("run").exists(), "{line}");
}

fn driver(tree: &Tree, address: &str) -> Option<String> {
    let target = std::fs::read_link(tree.path(&format!("sys/bus/pci/devices/{address}/driver"))).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

#[test]
fn devices_go_to_vfio_and_back_to_their_drivers() {
    let tree = host();
    let kernel = linux(&tree);
    // By address, short or long, and by interface; twice is once.
    let (said, result) = bind(&kernel, false, &["3B:00.0", "eth1", "0000:3b:00.0"]);
    result.unwrap();
    assert_eq!(
        said,
        [
            "0000:3b:00.0: i40e -> vfio-pci (interface eth0 is gone)",
            "0000:3b:00.1: i40e -> vfio-pci (interface eth1 is gone)"
        ]
    );
    assert_eq!(
        kernel.written.borrow()[..3],
        [
            "vfio-pci > sys/bus/pci/devices/0000:3b:00.0/driver_override",
            "0000:3b:00.0 > sys/bus/pci/devices/0000:3b:00.0/driver/unbind",
            "0000:3b:00.0 > sys/bus/pci/drivers_probe"
        ]
    );
    for address in ["0000:3b:00.0", "0000:3b:00.1"] {
        assert_eq!(driver(&tree, address).as_deref(), Some("vfio-pci"));
        assert_eq!(
            tree.read(&format!("run/haechi-bind/{address}")).as_deref(),
            Some("i40e")
        );
    }
    // Again: nothing to do.
    kernel.written.borrow_mut().clear();
    let (said, result) = bind(&kernel, false, &["3b:00.0"]);
    result.unwrap();
    assert_eq!(said, ["0000:3b:00.0: is bound to vfio-pci already"]);
    assert!(kernel.written.borrow().is_empty());
    let (said, result) = unbind(&kernel, false, &["0000:3b:00.0"]);
    result.unwrap();
    assert_eq!(said, ["0000:3b:00.0: vfio-pci -> i40e (eth9)"]);
    assert_eq!(driver(&tree, "0000:3b:00.0").as_deref(), Some("i40e"));
    assert_eq!(
        tree.read("sys/bus/pci/devices/0000:3b:00.0/driver_override")
            .as_deref(),
        Some("\n")
    );
    assert_eq!(tree.read("run/haechi-bind/0000:3b:00.0"), None);
    assert_eq!(
        driver(&tree, "0000:3b:00.1").as_deref(),
        Some("vfio-pci"),
        "the other one stays"
    );
    let (said, result) = unbind(&kernel, false, &["0000:3b:00.0"]);
    result.unwrap();
    assert_eq!(said, ["0000:3b:00.0: is not bound to vfio-pci, but to i40e"]);
}

/// What was bound by other means, or before the last boot of `/run`, goes to the driver that the kernel chooses; what had none, to none.
#[test]
fn a_device_without_a_record_goes_to_the_kernel_s_choice() {
    let tree = host();
    let kernel = linux(&tree);
    bind(&kernel, false, &["eth0"]).1.unwrap();
    tree.remove("run/haechi-bind/0000:3b:00.0");
    assert_eq!(
        unbind(&kernel, false, &["3b:00.0"]).0,
        ["0000:3b:00.0: vfio-pci -> i40e (eth9)"]
    );
    tree.remove("sys/bus/pci/devices/0000:3b:00.1/driver");
    let (said, result) = bind(&kernel, true, &["3b:00.1"]);
    result.unwrap();
    assert!(
        said[0].starts_with("0000:3b:00.1: no driver -> vfio-pci"),
        "{said:?}"
    );
    assert_eq!(
        unbind(&kernel, false, &["3b:00.1"]).0,
        ["0000:3b:00.1: vfio-pci -> no driver"]
    );
    assert_eq!(driver(&tree, "0000:3b:00.1"), None);
    // A driver whose module is gone: the kernel's choice as well, and that is told.
    bind(&kernel, true, &["3b:00.1"]).1.unwrap();
    std::fs::write(tree.path("run/haechi-bind/0000:3b:00.1"), "ixgbe").unwrap();
    let line = unbind(&kernel, false, &["3b:00.1"]).1.unwrap_err().to_string();
    assert!(
        line.contains("ixgbe does not take it back") && line.contains("modprobe ixgbe"),
        "{line}"
    );
}

#[test]
fn an_interface_in_use_is_refused_but_by_force() {
    let v4: IpAddr = "10.0.0.7".parse().unwrap();
    let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
    let zero = "00000000000000000000000000000000";
    let route6 = |flags: &str| {
        format!(
            "{zero} 00 {zero} 00 fd000000000000000000000000000001 00000400 00000003 00000000 {flags}     eth0"
        )
    };
    // A default route, IPv4 and IPv6; an address; a bridge on top.
    let tree = host();
    tree.file("proc/net/route", routes);
    let kernel = linux(&tree);
    refused(
        &kernel,
        bind(&kernel, false, &["eth0"]),
        &["eth0 is in use", "default route", "--force"],
    );
    bind(&kernel, false, &["eth1"])
        .1
        .expect("no default route, no address");
    let tree = host();
    tree.file("proc/net/ipv6_route", &route6("00000003"));
    let kernel = linux(&tree);
    refused(
        &kernel,
        bind(&kernel, false, &["3b:00.0"]),
        &["eth0 is in use", "default route"],
    );
    tree.file("proc/net/ipv6_route", &route6("00200200"));
    bind(&kernel, false, &["3b:00.0"])
        .1
        .expect("an unreachable route is none");
    let tree = host();
    let mut kernel = linux(&tree);
    kernel.addresses.insert(2, vec![v4]);
    let done = bind(&kernel, false, &["eth1", "eth0"]);
    refused(
        &kernel,
        done,
        &["eth0 is in use", "it is up, and has the address 10.0.0.7"],
    );
    let tree = host();
    tree.link("sys/class/net/eth0/upper_br0", "../br0");
    let kernel = linux(&tree);
    let done = bind(&kernel, false, &["eth0"]);
    refused(&kernel, done, &["eth0 is in use", "br0 is on top of it"]);
    // Down, nobody uses it; by force it is taken as it is.
    for force in [false, true] {
        let tree = host();
        tree.file("proc/net/route", routes)
            .interface("eth0", "0000:3b:00.0", 2, force);
        let mut kernel = linux(&tree);
        kernel.addresses.insert(2, vec![v4]);
        bind(&kernel, force, &["eth0"]).1.unwrap();
        assert_eq!(driver(&tree, "0000:3b:00.0").as_deref(), Some("vfio-pci"));
    }
}

#[test]
fn what_vfio_cannot_have_is_refused_with_the_fix() {
    let tree = host();
    let kernel = linux(&tree);
    for (name, words) in [
        ("eth7", ["there is no interface eth7", "ip link"]),
        ("0000:99:00.0", ["there is no PCI device 0000:99:00.0", "lspci"]),
        ("../x", ["neither a PCI address nor an interface", "lspci"]),
        ("", ["neither a PCI address nor an interface", "lspci"]),
    ] {
        refused(&kernel, bind(&kernel, true, &["3b:00.1", name]), &words);
        refused(&kernel, unbind(&kernel, true, &[name]), &words);
    }
    tree.file("sys/class/net/lo/flags", "0x9");
    refused(
        &kernel,
        bind(&kernel, false, &["lo"]),
        &["interface lo is no PCI device's", "net_af_xdp"],
    );
    tree.pci(
        ("0000:00:1f.2", 0x8086, 0x2922),
        "0x010601",
        Some("ahci"),
        0,
        Some(3),
    );
    refused(
        &kernel,
        bind(&kernel, true, &["00:1f.2"]),
        &["no network device", "0x010601"],
    );
    tree.pci(
        ("0000:5e:00.0", 0x15b3, 0x1017),
        NIC,
        Some("mlx5_core"),
        0,
        Some(30),
    );
    refused(
        &kernel,
        bind(&kernel, true, &["5e:00.0"]),
        &["stays with mlx5_core", "no binding"],
    );
    // The module.
    tree.remove("sys/bus/pci/drivers/vfio-pci");
    refused(
        &kernel,
        bind(&kernel, true, &["3b:00.0"]),
        &["vfio-pci is not loaded", "modprobe vfio-pci"],
    );
    tree.directory("sys/bus/pci/drivers/vfio-pci");
    // The IOMMU.
    tree.remove("sys/bus/pci/devices/0000:3b:00.0/iommu_group");
    refused(
        &kernel,
        bind(&kernel, true, &["3b:00.0"]),
        &["behind no IOMMU", "haechi doctor"],
    );
    tree.file("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y");
    bind(&kernel, false, &["3b:00.0"]).1.expect("no-IOMMU mode");
}

#[test]
fn a_group_is_bound_as_a_whole() {
    let tree = Tree::empty();
    tree.pci(("0000:3b:00.0", 0x8086, 0x1572), NIC, Some("i40e"), 0, Some(11))
        .pci(("0000:3b:00.1", 0x8086, 0x1572), NIC, Some("i40e"), 0, Some(11))
        .pci(
            ("0000:3a:00.0", 0x8086, 0x2030),
            "0x060400",
            Some("pcieport"),
            0,
            Some(11),
        )
        .directory("sys/bus/pci/drivers/vfio-pci");
    let kernel = linux(&tree);
    let done = bind(&kernel, false, &["3b:00.0"]);
    refused(
        &kernel,
        done,
        &[
            "group of 0000:3b:00.0",
            "0000:3b:00.1",
            "haechi bind 0000:3b:00.0 0000:3b:00.1",
        ],
    );
    let (said, result) = bind(&kernel, false, &["3b:00.0", "3b:00.1"]);
    result.unwrap();
    assert_eq!(said.len(), 2);
    assert_eq!(
        driver(&tree, "0000:3a:00.0").as_deref(),
        Some("pcieport"),
        "bridges stay"
    );
}

#[test]
fn a_device_that_vfio_does_not_take_is_left_as_it_was() {
    let tree = host();
    let kernel = linux(&tree);
    kernel.refuses.set(Some("vfio-pci"));
    let (said, result) = bind(&kernel, false, &["eth0"]);
    let line = result.unwrap_err().to_string();
    assert!(
        line.contains("vfio-pci does not take it (its driver is none)") && line.contains("dmesg"),
        "{line}"
    );
    assert_eq!(said, [""; 0]);
    assert_eq!(driver(&tree, "0000:3b:00.0").as_deref(), Some("i40e"));
    assert_eq!(
        tree.read("sys/bus/pci/devices/0000:3b:00.0/driver_override")
            .as_deref(),
        Some("\n")
    );
    assert_eq!(tree.read("run/haechi-bind/0000:3b:00.0"), None);
}

#[test]
fn a_device_that_a_process_has_is_not_given_back() {
    let tree = host();
    let kernel = linux(&tree);
    bind(&kernel, false, &["eth0"]).1.unwrap();
    kernel.written.borrow_mut().clear();
    tree.link("proc/4711/fd/17", "/dev/vfio/11")
        .link("proc/4712/fd/3", "/dev/vfio/12");
    let (said, result) = unbind(&kernel, false, &["3b:00.0"]);
    let line = result.unwrap_err().to_string();
    assert!(
        line.contains("process 4711 has 0000:3b:00.0") && line.contains("systemctl stop"),
        "{line}"
    );
    assert!(said.is_empty() && kernel.written.borrow().is_empty());
    unbind(&kernel, true, &["3b:00.0"]).1.expect("by force");
    assert_eq!(driver(&tree, "0000:3b:00.0").as_deref(), Some("i40e"));
}
