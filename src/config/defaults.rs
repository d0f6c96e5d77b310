//! Default values of keys that may be left out: named once, for the loader and for the JSON Schema.

use std::path::PathBuf;

use super::net::CpuList;

pub(super) fn yes() -> bool {
    true
}

pub(super) fn name() -> String {
    "haechi".to_owned()
}

/// CPU 1: CPU 0 is left to the kernel and the control threads.
pub(super) fn workers() -> CpuList {
    CpuList(vec![1])
}

pub(super) fn memory_mib() -> u32 {
    1024
}

pub(super) fn packet_buffers() -> u32 {
    65_535
}

pub(super) fn burst() -> u16 {
    32
}

/// As many as a large receive ring has: a worker that is kept from its CPU for a moment has to take as much from the others as from
/// there.
pub(super) fn handover_queue() -> u32 {
    4096
}

pub(super) fn control_socket() -> PathBuf {
    PathBuf::from("/run/haechi/haechi.sock")
}

pub(super) fn mtu() -> u16 {
    1500
}

pub(super) fn descriptors() -> u16 {
    1024
}
