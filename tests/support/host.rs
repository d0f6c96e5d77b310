//! Made-up hosts: the files that a kernel would show, below a directory.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A host's `/proc`, `/sys` and `/dev`.
pub struct Tree(tempfile::TempDir);

impl Tree {
    /// Nothing at all.
    pub fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// Writes a file, with the line end that the kernel's files have.
    pub fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
        self
    }

    pub fn directory(&self, path: &str) -> &Self {
        fs::create_dir_all(self.path(path)).unwrap();
        self
    }

    /// Makes a link whose target need not be there.
    pub fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(target, path).unwrap();
        self
    }

    pub fn remove(&self, path: &str) -> &Self {
        let path = self.path(path);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        self
    }

    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    /// CPUs `0..count`, those of the upper half being second threads if `smt`; node 0 has the first `per_node` cores, and so on.
    pub fn cpus(&self, count: usize, smt: bool, nodes: usize) -> &Self {
        self.file("sys/devices/system/cpu/online", &format!("0-{}", count - 1));
        let cores = if smt { count / 2 } else { count };
        let of_node = |node: usize| -> Vec<String> {
            let mine = (0..count).filter(|cpu| (cpu % cores) * nodes / cores == node);
            mine.map(|cpu| cpu.to_string()).collect()
        };
        for cpu in 0..count {
            let siblings = if smt {
                format!("{},{}", cpu % cores, cpu % cores + cores)
            } else {
                cpu.to_string()
            };
            let at = format!("sys/devices/system/cpu/cpu{cpu}");
            self.file(&format!("{at}/topology/thread_siblings_list"), &siblings);
        }
        self.file("sys/devices/system/node/online", &format!("0-{}", nodes - 1));
        for node in 0..nodes {
            self.file(
                &format!("sys/devices/system/node/node{node}/cpulist"),
                &of_node(node).join(","),
            );
        }
        self
    }

    pub fn governor(&self, count: usize, governor: &str) -> &Self {
        for cpu in 0..count {
            let file = format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
            self.file(&file, governor);
        }
        self
    }

    /// Huge pages of a node: (KiB, total, free).
    pub fn pages(&self, node: usize, kib: u64, total: u64, free: u64) -> &Self {
        for root in [
            format!("sys/devices/system/node/node{node}/hugepages"),
            "sys/kernel/mm/hugepages".to_owned(),
        ] {
            let at = format!("{root}/hugepages-{kib}kB");
            self.file(&format!("{at}/nr_hugepages"), &total.to_string());
            self.file(&format!("{at}/free_hugepages"), &free.to_string());
        }
        self
    }

    /// A PCI device: (address, vendor, device), its class, its driver or none, its NUMA node, its IOMMU group or none.
    pub fn pci(
        &self,
        (address, vendor, device): (&str, u16, u16),
        class: &str,
        driver: Option<&str>,
        node: i32,
        group: Option<u32>,
    ) -> &Self {
        let at = format!("sys/bus/pci/devices/{address}");
        self.file(&format!("{at}/vendor"), &format!("0x{vendor:04x}"))
            .file(&format!("{at}/device"), &format!("0x{device:04x}"))
            .file(&format!("{at}/class"), class)
            .file(&format!("{at}/numa_node"), &node.to_string());
        if let Some(driver) = driver {
            self.directory(&format!("sys/bus/pci/drivers/{driver}"));
            self.link(
                &format!("{at}/driver"),
                &format!("../../../../bus/pci/drivers/{driver}"),
            );
        }
        if let Some(group) = group {
            let devices = format!("sys/kernel/iommu_groups/{group}/devices");
            self.link(
                &format!("{devices}/{address}"),
                &format!("../../../../bus/pci/devices/{address}"),
            );
            self.link(
                &format!("{at}/iommu_group"),
                &format!("../../../../kernel/iommu_groups/{group}"),
            );
        }
        self
    }

    /// A network interface of a PCI device.
    pub fn interface(&self, name: &str, address: &str, index: u32, up: bool) -> &Self {
        let at = format!("sys/class/net/{name}");
        self.file(&format!("{at}/flags"), if up { "0x1003" } else { "0x1002" })
            .file(&format!("{at}/ifindex"), &index.to_string())
            .link(
                &format!("{at}/device"),
                &format!("../../../bus/pci/devices/{address}"),
            )
            .directory(&format!("sys/bus/pci/devices/{address}/net/{name}"))
    }
}
