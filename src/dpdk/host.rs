//! What the host has to offer: privileges, CPUs, memory, huge pages.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::error::{Error, Result};

/// A size of huge pages and how many of them are free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HugePageSize {
    pub(super) kib: u64,
    pub(super) free: u64,
    pub(super) total: u64,
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// All sizes that the kernel has, smallest first.
pub(super) fn huge_page_sizes() -> Vec<HugePageSize> {
    let mut sizes: Vec<_> = fs::read_dir("/sys/kernel/mm/hugepages")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kib = name
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()?;
            let free = number(&entry.path().join("free_hugepages"))?;
            let total = number(&entry.path().join("nr_hugepages"))?;
            Some(HugePageSize { kib, free, total })
        })
        .collect();
    sizes.sort_unstable_by_key(|s| s.kib);
    sizes
}

/// Free huge pages of all sizes, in MiB.
pub(super) fn free_huge_mib() -> u64 {
    huge_page_sizes().iter().map(|s| s.kib * s.free / 1024).sum()
}

/// The line for too few huge pages, with the command that makes enough.
pub(super) fn too_few_huge_pages(needed_mib: u32, detail: &str) -> String {
    let sizes = huge_page_sizes();
    let free = free_huge_mib();
    let missing_kib = u64::from(needed_mib).saturating_sub(free).max(1) * 1024;
    let detail = if detail.is_empty() {
        String::new()
    } else {
        format!(" ({detail})")
    };
    let Some(size) = sizes.first() else {
        return format!("this kernel has no huge pages{detail}: set hugepages = false in [node]");
    };
    let pages = size.total + missing_kib.div_ceil(size.kib);
    format!(
        "too few huge pages: {needed_mib} MiB needed, {free} MiB free{detail}: run `echo {pages} > \
         /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages`, lower memory_mib, packet_buffers or max_sessions, or set \
         hugepages = false in [node]",
        size.kib
    )
}

/// `MemAvailable` of /proc/meminfo, in MiB.
pub(super) fn available_mib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib / 1024)
}

/// Is there as much memory as the EAL shall get?
pub(super) fn check_memory(hugepages: bool, memory_mib: u32) -> Result<()> {
    if memory_mib == 0 {
        return Err(Error::Memory(
            "memory_mib is 0: DPDK needs memory, 1024 is the default".into(),
        ));
    }
    if hugepages {
        if free_huge_mib() < u64::from(memory_mib) {
            return Err(Error::Memory(too_few_huge_pages(memory_mib, "memory_mib")));
        }
        return Ok(());
    }
    match available_mib() {
        Some(available) if available < u64::from(memory_mib) => Err(Error::Memory(format!(
            "too little memory: memory_mib is {memory_mib}, but the host has {available} MiB available: lower memory_mib in \
             [node], or free memory"
        ))),
        _ => Ok(()),
    }
}

/// Has this process what network devices and their memory take? (root, or all of `CAP_NET_ADMIN` (12), `CAP_NET_RAW` (13),
/// `CAP_IPC_LOCK` (14) and `CAP_SYS_ADMIN` (21), capabilities(7))
pub(super) fn privileged() -> bool {
    const NEEDED: u64 = (1 << 12) | (1 << 13) | (1 << 14) | (1 << 21);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    effective & NEEDED == NEEDED
}

/// The CPUs that this thread may run on.
pub(super) fn affinity() -> Vec<usize> {
    // SAFETY: a CPU set is plain bits, for which zero is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most the set's size.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return vec![0];
    }
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: the index is below the set's size.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}

/// Binds this thread to `cpus`; stays as it is where the kernel refuses.
pub(super) fn set_affinity(cpus: &[usize]) {
    // SAFETY: as in `affinity`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the index is below the set's size.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the kernel reads the set.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
}

/// Removes the EAL's runtime directories of haechi processes that are gone (killed before they could do so themselves).
pub(super) fn remove_stale_runtime_dirs() {
    let mut parents = vec![PathBuf::from("/var/run/dpdk")];
    parents.extend(std::env::var_os("XDG_RUNTIME_DIR").map(|d| PathBuf::from(d).join("dpdk")));
    for entry in parents
        .iter()
        .filter_map(|p| fs::read_dir(p).ok())
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|n| n.strip_prefix("haechi-"))
            .and_then(|p| p.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
