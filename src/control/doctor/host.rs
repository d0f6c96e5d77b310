//! The host, as its kernel tells of it in files.

use std::fs;
use std::path::{Path, PathBuf};

use super::drivers;
use crate::base::cpu;
use crate::base::numa::{self, Topology};
use crate::config::CpuList;

/// Drivers that hand a device to a program.
pub(super) const FOR_PROGRAMS: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];

/// A host whose `/proc`, `/sys` and `/dev` are below a root directory.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    pub(super) topology: Topology,
}

impl Host {
    /// Of a root directory.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            topology: Topology::read(&root.join("sys")),
        }
    }

    /// Where a file is.
    pub(in crate::control) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A file's text without what surrounds it; `None`: there is none, or it cannot be read.
    pub(in crate::control) fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path))
            .ok()
            .map(|text| text.trim().to_owned())
    }

    /// A number alone in a file.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// A list of numbers ("0-3,8"); none where there is no file.
    pub(super) fn list(&self, path: &str) -> Vec<usize> {
        numa::list(&self.read(path).unwrap_or_default())
    }

    /// Is it there?
    pub(in crate::control) fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The names in a directory, in order; none where there is no directory.
    pub(in crate::control) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }

    /// The last part of where a link leads.
    pub(in crate::control) fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// `/proc/cpuinfo`.
    pub(super) fn cpuinfo(&self) -> String {
        self.read("proc/cpuinfo").unwrap_or_default()
    }

    /// Has the CPU this flag?
    pub(super) fn has_flag(&self, flag: &str) -> bool {
        cpu::flags(&self.cpuinfo()).any(|its| its == flag)
    }

    /// Is this a virtual machine?
    pub(super) fn is_virtual(&self) -> bool {
        self.has_flag("hypervisor")
    }

    /// A value of the kernel's command line (`isolcpus=1-3`).
    pub(super) fn boot_option(&self, name: &str) -> Option<String> {
        let line = self.read("proc/cmdline")?;
        let value = |word: &str| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        // The last one counts.
        line.split_whitespace().filter_map(value).next_back()
    }
}

impl Host {
    /// The devices in the IOMMU group of a PCI device that the kernel uses: VFIO hands out a group whose devices are all free. Bridges do not
    /// count, and a device that DPDK drives beside the kernel has no need of VFIO.
    pub(in crate::control) fn others_in_group(&self, address: &str) -> Vec<String> {
        let at = |address: &str| format!("sys/bus/pci/devices/{address}");
        let driver = |address: &str| self.link(&format!("{}/driver", at(address)));
        if driver(address).is_some_and(|driver| drivers::stays(&driver)) {
            return Vec::new();
        }
        let others = self.names(&format!("{}/iommu_group/devices", at(address)));
        let in_the_way = |other: &String| {
            // Base class 06 (PCI Code and ID Assignment Specification).
            let bridge = self
                .read(&format!("{}/class", at(other)))
                .is_some_and(|class| class.starts_with("0x06"));
            other != address
                && !bridge
                && driver(other).is_some_and(|driver| !FOR_PROGRAMS.contains(&driver.as_str()))
        };
        others.into_iter().filter(in_the_way).collect()
    }
}

/// CPUs as the kernel and `[node] workers` write them: "1-3,8".
pub(super) fn ranges(cpus: &[usize]) -> String {
    let numbers = cpus.iter().map(|cpu| u16::try_from(*cpu).unwrap_or(u16::MAX));
    CpuList(numbers.collect()).to_string()
}

/// The same after "CPU" or "CPUs".
pub(super) fn named(cpus: &[usize]) -> String {
    let word = if cpus.len() == 1 { "CPU" } else { "CPUs" };
    format!("{word} {}", ranges(cpus))
}
