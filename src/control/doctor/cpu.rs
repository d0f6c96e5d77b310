//! The CPU, its clock, and the kernel.

use super::{Group, Host};
use crate::base::cpu;

/// DPDK 22.11 asks for this (its Linux guide, "System Software").
const OLDEST_KERNEL: (u32, u32) = (4, 14);
/// `net_af_xdp` and interrupts of VFIO devices are at their best from here on (the AF_XDP driver's guide, "Prerequisites").
const GOOD_KERNEL: (u32, u32) = (5, 10);

pub(super) fn examine(host: &Host, group: &mut Group<'_>) {
    flags(host, group);
    clock(host, group);
    kernel(host, group);
}

fn flags(host: &Host, group: &mut Group<'_>) {
    let info = host.cpuinfo();
    if cpu::flags(&info).next().is_none() {
        group.warn(
            "/proc/cpuinfo does not tell what the CPU can",
            "compare `lscpu` with .cargo/config.toml",
        );
        return;
    }
    let missing = cpu::missing(&info);
    if missing.is_empty() {
        let model = info.lines().find(|line| line.starts_with("model name"));
        let model = model
            .and_then(|line| line.split_once(": "))
            .map_or("the CPU", |(_, model)| model);
        group.ok(format!("{model} has all that this build uses"));
    } else {
        group.fail(
            format!("the CPU has no {}, which this build uses", missing.join(", ")),
            "build on this machine: RUSTFLAGS=\"-C target-cpu=native\" cargo build --release",
        );
    }
}

/// Workers read the time stamp counter alone: it has to run on, at one speed.
fn clock(host: &Host, group: &mut Group<'_>) {
    let missing: Vec<_> = ["constant_tsc", "nonstop_tsc"]
        .into_iter()
        .filter(|flag| !host.has_flag(flag))
        .collect();
    let source = host
        .read("sys/devices/system/clocksource/clocksource0/current_clocksource")
        .unwrap_or_default();
    if !missing.is_empty() {
        let fix = if host.is_virtual() {
            "give the virtual machine the host's CPU model with an invariant TSC (QEMU: -cpu host,migratable=no,+invtsc)"
        } else {
            "take a CPU whose TSC is invariant; until then set `idle = \"poll\"` and switch frequency scaling off in the firmware"
        };
        group.warn(
            format!(
                "the time stamp counter is not invariant (no {}): timeouts may run at another speed",
                missing.join(", ")
            ),
            fix,
        );
        return;
    }
    match source.as_str() {
        // Those of hypervisors are read from the TSC, too.
        "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" => {
            group.ok(format!("the time stamp counter is invariant (clock source {source})"));
        }
        _ => group.warn(
            format!("the kernel does not trust the time stamp counter: its clock source is `{source}`"),
            "look why: dmesg | grep -i tsc; update the firmware, or boot with tsc=reliable if you know better",
        ),
    }
}

fn kernel(host: &Host, group: &mut Group<'_>) {
    let release = host.read("proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        group.warn(
            "the kernel's version is not known",
            "uname -r should say 5.10 or newer",
        );
        return;
    };
    let fix = "install a newer kernel: apt-get install linux-image-amd64";
    if (major, minor) < OLDEST_KERNEL {
        group.fail(format!("kernel {release}: DPDK needs 4.14 or newer"), fix);
    } else if (major, minor) < GOOD_KERNEL {
        group.warn(
            format!("kernel {release}: before 5.10 net_af_xdp and VFIO lack features"),
            fix,
        );
    } else {
        group.ok(format!("kernel {release}"));
    }
}
