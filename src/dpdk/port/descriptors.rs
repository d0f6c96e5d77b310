//! File descriptors that a driver forgets when its port closes.
//!
//! net_af_xdp never deletes the UMEM of a queue (up to 24.11: `eth_dev_close` misses the last reference), and libxdp keeps its
//! map. So the socket stays bound to the interface's queue, where nobody can bind another, the pool's memory stays pinned,
//! and each time that an interface goes and comes back costs descriptors.

use std::{
    fs,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use super::super::wake;

/// A descriptor, and what tells the thing behind it from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    fd: RawFd,
    identity: String,
}

/// The AF_XDP and AF_PACKET sockets, BPF maps and BPF programs that this process has open.
pub(super) fn driver_descriptors() -> Vec<Descriptor> {
    let sockets = wake::packet_sockets().unwrap_or_default();
    let fds = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    fds.filter_map(|entry| {
        let fd: RawFd = entry.file_name().to_str()?.parse().ok()?;
        let identity = identity(fd)?;
        let ours = sockets.contains(&fd) || identity.starts_with("anon_inode:bpf-");
        ours.then_some(Descriptor { fd, identity })
    })
    .collect()
}

/// `socket:[123]`, or `anon_inode:bpf-map` with its `map_id` from fdinfo: numbers that the kernel does not use again.
fn identity(fd: RawFd) -> Option<String> {
    let link = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    let link = link.to_str()?;
    if !link.starts_with("anon_inode:") {
        return Some(link.to_owned());
    }
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let id = info
        .lines()
        .find(|l| l.starts_with("map_id") || l.starts_with("prog_id"))?;
    Some(format!("{link} {id}"))
}

/// Closes those of a closed port's descriptors that are still open.
pub(super) fn close_forgotten(descriptors: &[Descriptor]) {
    for descriptor in descriptors {
        if identity(descriptor.fd).as_ref() == Some(&descriptor.identity) {
            // SAFETY: still the very thing that the driver opened for a port that it has closed since, so that nobody uses the
            // descriptor or closes it any more.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor.fd) });
        }
    }
}
