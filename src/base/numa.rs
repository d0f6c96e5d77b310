//! Where the CPUs and devices of this machine are: which NUMA node, and which of them share a core. What is decided from that is pure; the
//! kernel says it in sysfs.

use std::collections::BTreeMap;
use std::path::Path;

/// The CPUs of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// By CPU: its NUMA node.
    nodes: BTreeMap<usize, u32>,
    /// By CPU: all that share its core, itself too.
    siblings: BTreeMap<usize, Vec<usize>>,
}

/// A list of numbers as the kernel writes it: "0-3,8".
#[must_use]
pub fn list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

impl Topology {
    /// Of a machine whose sysfs is mounted at `sys`. What it does not say is not known.
    #[must_use]
    pub fn read(sys: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(sys.join(path)).unwrap_or_default();
        let mut topology = Self::default();
        for node in list(&read("devices/system/node/online")) {
            for cpu in list(&read(&format!("devices/system/node/node{node}/cpulist"))) {
                topology.nodes.insert(cpu, node as u32);
            }
        }
        for cpu in list(&read("devices/system/cpu/online")) {
            let siblings = list(&read(&format!(
                "devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
            )));
            topology.siblings.insert(cpu, siblings);
        }
        topology
    }

    /// The CPUs that there are, in order.
    pub fn cpus(&self) -> impl Iterator<Item = usize> {
        self.siblings.keys().copied()
    }

    /// All CPUs that share a core with this one, itself too.
    #[must_use]
    pub fn siblings(&self, cpu: usize) -> &[usize] {
        self.siblings.get(&cpu).map_or(&[], Vec::as_slice)
    }

    /// The CPUs of a NUMA node.
    pub fn cpus_of(&self, node: u32) -> impl Iterator<Item = usize> {
        let of = self.nodes.iter().filter(move |(_, its)| **its == node);
        of.map(|(cpu, _)| *cpu)
    }

    /// The NUMA nodes that there are, in order.
    #[must_use]
    pub fn nodes(&self) -> Vec<u32> {
        let mut nodes: Vec<u32> = self.nodes.values().copied().collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// A CPU's NUMA node.
    #[must_use]
    pub fn node(&self, cpu: usize) -> Option<u32> {
        self.nodes.get(&cpu).copied()
    }

    /// The workers' NUMA nodes; of a machine with one alone none is asked for.
    #[must_use]
    pub fn sockets(&self, workers: &[usize]) -> Vec<Option<u32>> {
        let several = self
            .nodes
            .values()
            .any(|node| Some(node) != self.nodes.values().next());
        let node = |cpu: &usize| self.node(*cpu).filter(|_| several);
        workers.iter().map(node).collect()
    }

    /// What an operator should know of how the workers lie: two on one core, ports on another node than a worker that polls them.
    /// `ports`: names and nodes, where one is known.
    #[must_use]
    pub fn warnings(&self, workers: &[usize], ports: &[(String, Option<u32>)]) -> Vec<String> {
        let mut warnings = Vec::new();
        for (place, cpu) in workers.iter().enumerate() {
            let siblings = self.siblings.get(cpu);
            let shares = |other: &&usize| siblings.is_some_and(|siblings| siblings.contains(*other));
            if let Some(other) = workers[..place].iter().find(shares) {
                warnings.push(format!(
                    "workers on CPUs {other} and {cpu} share one core: each gets about half of it; choose one CPU of a core in `[node] \
                     workers`"
                ));
            }
        }
        for (name, node) in ports {
            let Some(node) = node else { continue };
            let elsewhere = |cpu: &&usize| self.node(**cpu).is_some_and(|its| its != *node);
            if let Some(cpu) = workers.iter().find(elsewhere) {
                warnings.push(format!(
                    "port {name} is on NUMA node {node}, and the worker on CPU {cpu} is not: each of its packets crosses between them; \
                     choose CPUs of node {node} in `[node] workers`"
                ));
            }
        }
        warnings
    }
}

/// The NUMA node of a PCI device; `None`: the machine has one alone, or does not say.
#[must_use]
pub fn node_of_device(sys: &Path, address: &str) -> Option<u32> {
    let file = sys.join("bus/pci/devices").join(address).join("numa_node");
    // -1: not known.
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes of two cores with two threads each: CPU n and n + 4 share a core, 0, 1, 4 and 5 are on node 0.
    fn machine() -> (tempfile::TempDir, Topology) {
        let sys = tempfile::tempdir().unwrap();
        let write = |path: String, text: &str| {
            let file = sys.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        write("devices/system/node/online".to_owned(), "0-1\n");
        write("devices/system/node/node0/cpulist".to_owned(), "0-1,4-5\n");
        write("devices/system/node/node1/cpulist".to_owned(), "2-3,6-7\n");
        write("devices/system/cpu/online".to_owned(), "0-7\n");
        for cpu in 0..8 {
            let siblings = format!("{},{}\n", cpu % 4, cpu % 4 + 4);
            write(
                format!("devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"),
                &siblings,
            );
        }
        write("bus/pci/devices/0000:3b:00.0/numa_node".to_owned(), "1\n");
        write("bus/pci/devices/0000:01:00.0/numa_node".to_owned(), "-1\n");
        let topology = Topology::read(sys.path());
        (sys, topology)
    }

    #[test]
    fn queues_lie_where_their_readers_are() {
        let (_sys, topology) = machine();
        assert_eq!(
            topology.sockets(&[1, 2, 7, 99]),
            [Some(0), Some(1), Some(1), None]
        );
        let one = Topology {
            nodes: [(0, 0), (1, 0)].into(),
            ..Topology::default()
        };
        assert_eq!(one.sockets(&[0, 1]), [None, None]);
        assert_eq!(Topology::read(Path::new("/nowhere")), Topology::default());
    }

    #[test]
    fn what_lies_badly_is_warned_of() {
        let (sys, topology) = machine();
        assert_eq!(node_of_device(sys.path(), "0000:3b:00.0"), Some(1));
        assert_eq!(node_of_device(sys.path(), "0000:01:00.0"), None);
        assert_eq!(node_of_device(sys.path(), "0000:02:00.0"), None);
        let port = |node| ("lan".to_owned(), node);
        assert_eq!(topology.warnings(&[2, 3], &[port(Some(1))]), [""; 0]);
        assert_eq!(topology.warnings(&[0, 2], &[port(None)]), [""; 0]);
        let warnings = topology.warnings(&[1, 5], &[port(Some(1))]);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("workers on CPUs 1 and 5 share one core"));
        assert!(warnings[1].starts_with("port lan is on NUMA node 1, and the worker on CPU 1 is not"));
    }
}
