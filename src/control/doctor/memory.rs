//! Huge pages by NUMA node and size, against `memory_mib`.

use super::{Group, Host};
use crate::base::numa;
use crate::config::{Config, Device};

/// Huge pages of a size on a NUMA node.
struct Pages {
    /// `None`: the kernel does not tell nodes apart.
    node: Option<u32>,
    kib: u64,
    total: u64,
    free: u64,
    /// Where their number is set.
    file: String,
}

impl Pages {
    fn free_mib(&self) -> u64 {
        self.free * self.kib / 1024
    }

    fn total_mib(&self) -> u64 {
        self.total * self.kib / 1024
    }
}

fn pages_in(host: &Host, node: Option<u32>, directory: &str, found: &mut Vec<Pages>) {
    for name in host.names(directory) {
        let kib = name
            .strip_prefix("hugepages-")
            .and_then(|rest| rest.strip_suffix("kB"));
        let Some(kib) = kib.and_then(|kib| kib.parse().ok()) else {
            continue;
        };
        let number = |what: &str| host.number(&format!("{directory}/{name}/{what}"));
        if let (Some(total), Some(free)) = (number("nr_hugepages"), number("free_hugepages")) {
            found.push(Pages {
                node,
                kib,
                total,
                free,
                file: format!("/{directory}/{name}/nr_hugepages"),
            });
        }
    }
}

fn pages(host: &Host) -> Vec<Pages> {
    let mut found = Vec::new();
    for node in host.topology.nodes() {
        let directory = format!("sys/devices/system/node/node{node}/hugepages");
        pages_in(host, Some(node), &directory, &mut found);
    }
    if found.is_empty() {
        pages_in(host, None, "sys/kernel/mm/hugepages", &mut found);
    }
    found.sort_by_key(|pages| (pages.node, pages.kib));
    found
}

/// `2 nodes: node 0 512 of 512 x 2M free`
fn inventory(all: &[Pages]) -> String {
    let some = all.iter().filter(|pages| pages.total > 0);
    let texts: Vec<String> = some
        .map(|pages| {
            let node = pages
                .node
                .map_or_else(String::new, |node| format!("node {node}: "));
            let size = match pages.kib {
                1_048_576 => "1G".to_owned(),
                kib if kib % 1024 == 0 => format!("{}M", kib / 1024),
                kib => format!("{kib}K"),
            };
            format!("{node}{} of {} {size} pages free", pages.free, pages.total)
        })
        .collect();
    texts.join("; ")
}

pub(super) fn examine(host: &Host, config: Option<&Config>, group: &mut Group<'_>) {
    let all = pages(host);
    let needed = config.map(|config| u64::from(config.node.memory_mib));
    if config.is_some_and(|config| !config.node.hugepages) {
        ordinary(host, needed.unwrap_or(0), group);
        return;
    }
    let Some(smallest) = all.iter().map(|pages| pages.kib).min() else {
        group.fail(
            "this kernel has no huge pages",
            "boot a kernel with CONFIG_HUGETLBFS, or set `hugepages = false` in [node]",
        );
        return;
    };
    let wanted = nodes_of(host, config);
    // Where they lack, they are made on the node of the first port or worker.
    let place = all.iter().find(|pages| {
        pages.kib == smallest
            && (pages.node.is_none() || wanted.is_empty() || pages.node == wanted.first().copied())
    });
    let command = |pages: &Pages, missing_mib: u64| {
        let count = pages.total + (missing_mib * 1024).div_ceil(pages.kib);
        format!("echo {count} > {}", pages.file)
    };
    let free: u64 = all.iter().map(Pages::free_mib).sum();
    let total: u64 = all.iter().map(Pages::total_mib).sum();
    let target = needed.unwrap_or(1024);
    let what = inventory(&all);
    if free >= target {
        group.ok(format!("huge pages: {what}"));
    } else if total >= target {
        group.warn(
            format!("huge pages: {what}: a node needs {target} MiB, and others have taken them"),
            "grep -l huge /proc/*/numa_maps names the processes; a node that runs has its own already",
        );
    } else {
        let fix = place.map_or_else(String::new, |pages| command(pages, target - total));
        let found = if total == 0 {
            format!("there are no huge pages: a node needs {target} MiB")
        } else {
            format!("huge pages: {what}: a node needs {target} MiB")
        };
        if needed.is_some() {
            group.fail(found, fix);
        } else {
            group.warn(found, fix);
        }
        return;
    }
    if host.topology.nodes().len() < 2 {
        return;
    }
    for node in wanted {
        let of_node = || all.iter().filter(|pages| pages.node == Some(node));
        if of_node().map(|pages| pages.total).sum::<u64>() > 0 {
            continue;
        }
        if let Some(pages) = of_node().find(|pages| pages.kib == smallest) {
            group.warn(
                format!("no huge pages on NUMA node {node}, where ports or workers are: packets would lie on another"),
                command(pages, target),
            );
        }
    }
}

/// The NUMA nodes of ports, then of workers.
fn nodes_of(host: &Host, config: Option<&Config>) -> Vec<u32> {
    let mut nodes = Vec::new();
    let Some(config) = config else {
        return nodes;
    };
    let sys = host.path("sys");
    let ports = config.ports.iter().filter_map(|port| match &port.device {
        Device::Pci(address) => numa::node_of_device(&sys, address),
        Device::Virtual(_) => None,
    });
    let cpus = config.node.workers.0.iter();
    let workers = cpus.filter_map(|cpu| host.topology.node(usize::from(*cpu)));
    for node in ports.chain(workers) {
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    nodes
}

fn ordinary(host: &Host, needed: u64, group: &mut Group<'_>) {
    let info = host.read("proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    match available.map(|kib| kib / 1024) {
        Some(available) if available < needed => group.fail(
            format!("{available} MiB of memory are available: a node needs {needed} MiB"),
            "free memory, or lower `memory_mib` in [node]",
        ),
        _ => group.warn(
            "`hugepages = false`: ordinary memory is for a laptop or a CI machine, and slower",
            "set `hugepages = true` in [node]",
        ),
    }
}
