//! What the process that asks may do; the node needs as much.

use super::{Group, Host};
use crate::config::{Config, Device};

/// Capabilities that a node needs, by their bits (capabilities(7)).
const NEEDED: [(u32, &str); 4] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (14, "CAP_IPC_LOCK"),
    (21, "CAP_SYS_ADMIN"),
];
const IPC_LOCK: u64 = 1 << 14;

pub(super) fn examine(host: &Host, config: Option<&Config>, group: &mut Group<'_>) {
    let status = host.read("proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(capabilities) = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok()) else {
        group.warn(
            "/proc/self/status does not tell capabilities",
            "run haechi as root",
        );
        return;
    };
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(bit, _)| capabilities & (1 << bit) == 0)
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        group.ok("this process may use devices and their memory");
    } else {
        group.warn(
            format!("this process has no {}", missing.join(", ")),
            "run haechi as root, or by deploy/haechi@.service, which gives it what it needs",
        );
    }
    memlock(host, config, capabilities, group);
}

/// VFIO counts what a device can reach as locked (the kernel's vfio_iommu_type1.c); whoever has `CAP_IPC_LOCK` may lock any.
fn memlock(host: &Host, config: Option<&Config>, capabilities: u64, group: &mut Group<'_>) {
    let limits = host.read("proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"));
    let limit = line
        .and_then(|line| line.split_whitespace().next())
        .unwrap_or_default();
    let mib = limit.parse::<u64>().ok().map(|bytes| bytes >> 20);
    let needed = config.map_or(1024, |config| u64::from(config.node.memory_mib));
    let uses_vfio = config.is_none_or(|config| {
        config
            .ports
            .iter()
            .any(|port| matches!(port.device, Device::Pci(_)))
    });
    match mib {
        Some(mib) if uses_vfio && mib < needed && capabilities & IPC_LOCK == 0 => group.warn(
            format!("{mib} MiB of memory may be locked: a node needs {needed} MiB"),
            "ulimit -l unlimited, or LimitMEMLOCK=infinity in the service",
        ),
        Some(_) | None => group.ok("memory may be locked"),
    }
}
