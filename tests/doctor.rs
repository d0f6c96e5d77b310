//! `haechi doctor` over made-up hosts: a good box, a laptop, a virtual machine without IOMMU, a box with two sockets, and single faults.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/host.rs"]
mod host;

use haechi::config::{self, Config};
use haechi::control::doctor::{Report, Verdict, examine};
use host::Tree;

/// All flags that a build of this program may use, and an invariant TSC.
const FLAGS: &str = "fpu aes abm avx avx2 avx512f bmi1 bmi2 f16c fma movbe constant_tsc nonstop_tsc";
const NIC: &str = "0x020000";
/// Root, with everything.
const ALL: &str = "000001ffffffffff";

fn cpu(tree: &Tree, vendor: &str, flags: &str) {
    let text = format!("processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: A CPU\nflags\t\t: {flags}");
    tree.file("proc/cpuinfo", &text);
}

fn privileges(tree: &Tree, capabilities: &str, memlock: &str) {
    tree.file(
        "proc/self/status",
        &format!("Name:\thaechi\nCapEff:\t{capabilities}\nCapBnd:\t{ALL}"),
    );
    let limits = format!(
        "Limit                     Soft Limit           Hard Limit           Units\nMax locked memory         {memlock}            {memlock}            bytes"
    );
    tree.file("proc/self/limits", &limits);
}

/// `workers`, and two ports: `a` and `b`, of these devices.
fn config(workers: &str, hugepages: bool, devices: [&str; 2]) -> Config {
    let text = format!(
        "version = 1\n[node]\nmode = \"transparent\"\nworkers = \"{workers}\"\nhugepages = {hugepages}\nmemory_mib = 2048\n\
         [[port]]\nname = \"a\"\ndevice = \"{}\"\nzone = \"x\"\npeer = \"b\"\n\
         [[port]]\nname = \"b\"\ndevice = \"{}\"\nzone = \"y\"\npeer = \"a\"\n",
        devices[0], devices[1]
    );
    config::load_text("node", &text).unwrap_or_else(|e| panic!("{e}"))
}

const PAIR: [&str; 2] = ["0000:3b:00.0", "0000:3b:00.1"];

/// An Intel box with eight cores, everything set up, both ports of an E810 card bound.
fn good() -> Tree {
    let tree = Tree::empty();
    cpu(&tree, "GenuineIntel", FLAGS);
    privileges(&tree, ALL, "unlimited");
    tree.cpus(8, false, 1)
        .governor(8, "performance")
        .pages(0, 2048, 2048, 2048)
        .pages(0, 1_048_576, 0, 0)
        .file("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc")
        .file("proc/sys/kernel/osrelease", "6.1.0-40-amd64")
        .file("proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 intel_iommu=on iommu=pt isolcpus=1-3 nohz_full=1-3 rcu_nocbs=1-3")
        .file("sys/devices/system/cpu/isolated", "1-3")
        .file("sys/devices/system/cpu/nohz_full", "1-3")
        .directory("sys/class/iommu/dmar0")
        .file("dev/vfio/vfio", "");
    for (n, address) in PAIR.iter().enumerate() {
        let at = format!("sys/bus/pci/devices/{address}");
        tree.pci(
            (address, 0x8086, 0x1592),
            NIC,
            Some("vfio-pci"),
            0,
            Some(20 + n as u32),
        )
        .file(&format!("{at}/current_link_width"), "16")
        .file(&format!("{at}/max_link_width"), "16")
        .file(&format!("{at}/current_link_speed"), "16.0 GT/s PCIe")
        .file(&format!("{at}/max_link_speed"), "16.0 GT/s PCIe");
    }
    tree
}

fn of(tree: &Tree, config: &Config) -> Report {
    examine(tree.root(), Some(config))
}

/// The findings of one verdict: group, text, and fix.
fn said(report: &Report, verdict: Verdict) -> Vec<String> {
    let alike = report
        .findings
        .iter()
        .filter(|finding| finding.verdict == verdict);
    alike
        .map(|finding| {
            let fix = finding.fix.as_deref().unwrap_or("");
            format!("{}: {} -> {fix}", finding.group, finding.text)
        })
        .collect()
}

/// Besides what a good host is told, this one line: verdict, group, and words of text and fix.
#[track_caller]
fn one(tree: &Tree, config: &Config, verdict: Verdict, words: &[&str]) {
    let report = of(tree, config);
    let all = [said(&report, Verdict::Warn), said(&report, Verdict::Fail)];
    let [warns, fails] = &all;
    let (these, others) = if verdict == Verdict::Warn {
        (warns, fails)
    } else {
        (fails, warns)
    };
    assert!(these.len() == 1 && others.is_empty(), "{all:#?}");
    for word in words {
        assert!(these[0].contains(word), "{word}: {}", these[0]);
    }
}

#[test]
fn a_good_box_is_fit() {
    let report = of(&good(), &config("1-3", true, PAIR));
    insta::assert_snapshot!(report.text(), @r"
    ok    cpu         A CPU has all that this build uses
    ok    cpu         the time stamp counter is invariant (clock source tsc)
    ok    cpu         kernel 6.1.0-40-amd64
    ok    workers     CPUs 1-3 are the workers' alone (isolcpus, nohz_full, rcu_nocbs)
    ok    workers     each worker has a core of its own
    ok    workers     the workers' CPUs keep their highest frequency (governor performance)
    ok    memory      huge pages: node 0: 2048 of 2048 2M pages free
    ok    iommu       vfio-pci is loaded
    ok    iommu       the IOMMU is on: devices reach the memory that they were given and no other
    ok    port a      0000:3b:00.0 is bound to vfio-pci
    ok    port a      net_ice drives it; its RSS is symmetric in hardware
    ok    port b      0000:3b:00.1 is bound to vfio-pci
    ok    port b      net_ice drives it; its RSS is symmetric in hardware
    ok    privileges  this process may use devices and their memory
    ok    privileges  memory may be locked
    15 ok, 0 warn, 0 fail
    ");
    assert_eq!(report.verdict(), Verdict::Ok);
    // Without a file: what holds for any node.
    let report = examine(good().root(), None);
    insta::assert_snapshot!(report.text(), @r"
    ok    cpu         A CPU has all that this build uses
    ok    cpu         the time stamp counter is invariant (clock source tsc)
    ok    cpu         kernel 6.1.0-40-amd64
    ok    workers     isolated of CPUs 0-7: 1-3
    ok    memory      huge pages: node 0: 2048 of 2048 2M pages free
    ok    iommu       vfio-pci is loaded
    ok    iommu       the IOMMU is on: devices reach the memory that they were given and no other
    ok    privileges  this process may use devices and their memory
    ok    privileges  memory may be locked
    9 ok, 0 warn, 0 fail
    ");
}

#[test]
fn a_laptop_runs_with_virtual_devices() {
    let tree = Tree::empty();
    cpu(&tree, "GenuineIntel", FLAGS);
    privileges(&tree, ALL, "8388608");
    tree.cpus(8, true, 1)
        .governor(8, "powersave")
        .pages(0, 2048, 0, 0)
        .file(
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "tsc",
        )
        .file("proc/sys/kernel/osrelease", "6.8.0-45-generic")
        .file("proc/cmdline", "quiet splash")
        .file("sys/devices/system/cpu/isolated", "")
        .file("sys/devices/system/cpu/nohz_full", "(null)")
        .file(
            "proc/meminfo",
            "MemTotal:       16000000 kB\nMemAvailable:    9000000 kB",
        )
        .file("sys/class/net/veth-a/flags", "0x1003");
    let node = config(
        "1",
        false,
        ["vdev:net_af_xdp0,iface=veth-a", "vdev:net_af_xdp1,iface=veth-b"],
    );
    let report = of(&tree, &node);
    insta::assert_snapshot!(report.text(), @r"
    ok    cpu         A CPU has all that this build uses
    ok    cpu         the time stamp counter is invariant (clock source tsc)
    ok    cpu         kernel 6.8.0-45-generic
    warn  workers     the kernel uses CPUs of workers: isolcpus lacks 1, nohz_full lacks 1, rcu_nocbs lacks 1
                      -> add isolcpus=1 nohz_full=1 rcu_nocbs=1 to GRUB_CMDLINE_LINUX in /etc/default/grub; update-grub; reboot
    warn  workers     the kernel uses the second threads of workers' cores: CPU 5
                      -> take them away: for n in 5; do echo 0 > /sys/devices/system/cpu/cpu$n/online; done
    warn  workers     workers' CPUs slow down between packets: governor powersave of CPU 1
                      -> cpupower -c 1 frequency-set -g performance
    warn  memory      `hugepages = false`: ordinary memory is for a laptop or a CI machine, and slower
                      -> set `hugepages = true` in [node]
    ok    iommu       not needed: no port is a PCI device that VFIO hands out
    warn  port a      net_af_xdp0 is a virtual device: good for a lab, not for line rate
                      -> on bare metal, name the NIC's PCI address
    fail  port b      there is no network interface veth-b
                      -> ip link lists those that there are
    ok    privileges  this process may use devices and their memory
    ok    privileges  memory may be locked
    6 ok, 5 warn, 1 fail
    ");
    assert_eq!(report.verdict(), Verdict::Fail);
    tree.file("sys/class/net/veth-b/flags", "0x1003");
    assert_eq!(of(&tree, &node).verdict(), Verdict::Warn);
    tree.file("proc/meminfo", "MemAvailable:    1000000 kB");
    let fails = said(&of(&tree, &node), Verdict::Fail);
    assert!(
        fails.len() == 1 && fails[0].contains("976 MiB of memory are available: a node needs 2048 MiB"),
        "{fails:?}"
    );
}

#[test]
fn a_virtual_machine_without_iommu_is_told_what_to_do() {
    let tree = Tree::empty();
    cpu(
        &tree,
        "AuthenticAMD",
        &format!("{} hypervisor", FLAGS.replace(" nonstop_tsc", "")),
    );
    privileges(&tree, ALL, "8388608");
    tree.cpus(4, false, 1)
        .pages(0, 2048, 1024, 1024)
        .file(
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "kvm-clock",
        )
        .file("proc/sys/kernel/osrelease", "5.4.0-100-generic")
        .file("proc/cmdline", "isolcpus=1-2 nohz_full=1-2")
        .file("sys/devices/system/cpu/isolated", "1-2")
        .file("sys/devices/system/cpu/nohz_full", "1-2");
    tree.pci((PAIR[0], 0x1af4, 0x1000), NIC, Some("virtio-pci"), -1, None)
        .pci((PAIR[1], 0x1af4, 0x1041), NIC, None, -1, None)
        .interface("ens4", PAIR[0], 4, true);
    let node = config("1-2", true, PAIR);
    insta::assert_snapshot!(of(&tree, &node).text(), @r"
    ok    cpu         A CPU has all that this build uses
    warn  cpu         the time stamp counter is not invariant (no nonstop_tsc): timeouts may run at another speed
                      -> give the virtual machine the host's CPU model with an invariant TSC (QEMU: -cpu host,migratable=no,+invtsc)
    warn  cpu         kernel 5.4.0-100-generic: before 5.10 net_af_xdp and VFIO lack features
                      -> install a newer kernel: apt-get install linux-image-amd64
    ok    workers     CPUs 1-2 are the workers' alone (isolcpus, nohz_full, rcu_nocbs)
    ok    workers     each worker has a core of its own
    ok    workers     the kernel does not scale the CPUs' frequency
    ok    memory      huge pages: node 0: 1024 of 1024 2M pages free
    fail  iommu       vfio-pci is not loaded
                      -> modprobe vfio-pci; echo vfio-pci > /etc/modules-load.d/vfio-pci.conf
    fail  iommu       the IOMMU is off: vfio-pci takes no device
                      -> give the virtual machine an IOMMU (QEMU: -device intel-iommu,intremap=on), or accept the risk: echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode
    fail  port a      0000:3b:00.0 belongs to the kernel: driver virtio-pci (ens4)
                      -> haechi bind 0000:3b:00.0
    warn  port a      net_virtio drives it; it has no RSS that can be used: 2 workers place its packets in software
                      -> take a NIC with RSS, or one worker
    fail  port b      0000:3b:00.1 has no driver
                      -> haechi bind 0000:3b:00.1
    warn  port b      net_virtio drives it; it has no RSS that can be used: 2 workers place its packets in software
                      -> take a NIC with RSS, or one worker
    ok    privileges  this process may use devices and their memory
    ok    privileges  memory may be locked
    7 ok, 4 warn, 4 fail
    ");
    // With the risk accepted it runs.
    tree.directory("sys/bus/pci/drivers/vfio-pci")
        .file("dev/vfio/vfio", "")
        .file("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y")
        .link(
            &format!("sys/bus/pci/devices/{}/driver", PAIR[0]),
            "../../drivers/vfio-pci",
        )
        .link(
            &format!("sys/bus/pci/devices/{}/driver", PAIR[1]),
            "../../drivers/uio_pci_generic",
        );
    let report = of(&tree, &node);
    assert_eq!(report.verdict(), Verdict::Warn, "{}", report.text());
    assert!(
        report
            .text()
            .contains("a device can write to any memory of the host"),
        "{}",
        report.text()
    );
    assert!(
        report.text().contains("is bound to uio_pci_generic"),
        "{}",
        report.text()
    );
}

/// Two sockets of four cores with two threads each; the card is on the second, the workers and all huge pages on the first.
#[test]
fn a_port_on_the_other_socket_is_warned_of() {
    let tree = good();
    tree.cpus(16, true, 2)
        .governor(16, "performance")
        .pages(1, 2048, 0, 0)
        .pages(1, 1_048_576, 0, 0);
    tree.remove("sys/kernel/mm");
    for address in PAIR {
        tree.file(&format!("sys/bus/pci/devices/{address}/numa_node"), "1");
    }
    for file in ["isolated", "nohz_full"] {
        tree.file(&format!("sys/devices/system/cpu/{file}"), "1-3,9-11");
    }
    let report = of(&tree, &config("1-3", true, PAIR));
    insta::assert_snapshot!(said(&report, Verdict::Warn).join("\n"), @r"
    memory: no huge pages on NUMA node 1, where ports or workers are: packets would lie on another -> echo 1024 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages
    port a: 0000:3b:00.0 is on NUMA node 1, and workers are not (CPUs 1-3): each packet crosses between sockets -> choose `[node] workers` from 4-7,12-15, the CPUs of node 1
    port b: 0000:3b:00.1 is on NUMA node 1, and workers are not (CPUs 1-3): each packet crosses between sockets -> choose `[node] workers` from 4-7,12-15, the CPUs of node 1
    ");
    assert_eq!(said(&report, Verdict::Fail), [""; 0]);
    // On the card's socket, with pages there, all is well.
    for file in ["isolated", "nohz_full"] {
        tree.file(&format!("sys/devices/system/cpu/{file}"), "4-6,12-14");
    }
    tree.pages(1, 2048, 1024, 1024).remove("sys/kernel/mm");
    let report = of(&tree, &config("4-6", true, PAIR));
    assert_eq!(report.verdict(), Verdict::Ok, "{}", report.text());
    // Siblings: two workers on a core, and a second thread that is the kernel's.
    one(
        &tree,
        &config("4,12", true, PAIR),
        Verdict::Warn,
        &[
            "workers: workers share a core, of which each gets about half: CPUs 4 and 12",
            "lscpu -e",
        ],
    );
    tree.file("sys/devices/system/cpu/isolated", "4-6,12-13");
    one(
        &tree,
        &config("4-6", true, PAIR),
        Verdict::Warn,
        &[
            "workers: the kernel uses the second threads of workers' cores: CPU 14",
            "for n in 14; do echo 0 > /sys/devices/system/cpu/cpu$n/online",
        ],
    );
    tree.file("sys/devices/system/cpu/isolated", "4-6,12-14");
    tree.file(&format!("sys/bus/pci/devices/{}/numa_node", PAIR[1]), "-1");
    one(
        &tree,
        &config("4-6", true, PAIR),
        Verdict::Warn,
        &["port b: the firmware does not say"],
    );
}

#[test]
fn each_fault_is_found_and_nothing_else() {
    let node = config("1-3", true, PAIR);
    let at = |n: usize, file: &str| format!("sys/bus/pci/devices/{}/{file}", PAIR[n]);
    type Spoil<'s> = Box<dyn Fn(&Tree) + 's>;
    let spoil: Vec<(Spoil<'_>, Verdict, Vec<&str>)> = vec![
        (
            Box::new(|t| cpu(t, "GenuineIntel", &FLAGS.replace(" constant_tsc", ""))),
            Verdict::Warn,
            vec!["cpu: the time stamp counter is not invariant (no constant_tsc)"],
        ),
        (
            Box::new(|t| {
                t.file(
                    "sys/devices/system/clocksource/clocksource0/current_clocksource",
                    "hpet",
                );
            }),
            Verdict::Warn,
            vec!["cpu: ", "`hpet`", "dmesg | grep -i tsc"],
        ),
        (
            Box::new(|t| {
                t.file("proc/sys/kernel/osrelease", "4.9.0-19-amd64");
            }),
            Verdict::Fail,
            vec![
                "cpu: kernel 4.9.0-19-amd64: DPDK needs 4.14",
                "apt-get install linux-image-amd64",
            ],
        ),
        (
            Box::new(|t| {
                t.file("sys/devices/system/cpu/isolated", "2-3");
            }),
            Verdict::Warn,
            vec![
                "workers: ",
                "isolcpus lacks 1",
                "isolcpus=1-3 nohz_full=1-3 rcu_nocbs=1-3",
                "reboot",
            ],
        ),
        (
            Box::new(|t| {
                t.file("sys/devices/system/cpu/nohz_full", "1")
                    .file("proc/cmdline", "rcu_nocbs=2");
            }),
            Verdict::Warn,
            vec!["workers: ", "nohz_full lacks 2-3, rcu_nocbs lacks 3"],
        ),
        (
            Box::new(|t| {
                t.file(
                    "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor",
                    "schedutil",
                );
            }),
            Verdict::Warn,
            vec![
                "workers: workers' CPUs slow down between packets: governor schedutil of CPU 2",
                "cpupower -c 2 frequency-set -g performance",
            ],
        ),
        (
            Box::new(|t| {
                t.pages(0, 2048, 1000, 1000);
            }),
            Verdict::Fail,
            vec![
                "memory: huge pages: node 0: 1000 of 1000 2M pages free: a node needs 2048 MiB",
                "echo 1024 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
            ],
        ),
        (
            Box::new(|t| {
                t.pages(0, 2048, 2048, 100);
            }),
            Verdict::Warn,
            vec!["memory: ", "100 of 2048 2M pages free", "others have taken them"],
        ),
        (
            Box::new(|t| {
                t.remove("sys/class/iommu").remove("sys/kernel/iommu_groups");
            }),
            Verdict::Fail,
            vec![
                "iommu: the IOMMU is off",
                "switch VT-d on",
                "intel_iommu=on iommu=pt",
            ],
        ),
        (
            Box::new(|t| {
                t.remove("dev/vfio");
            }),
            Verdict::Fail,
            vec!["iommu: ", "/dev/vfio/vfio is not", "modprobe vfio"],
        ),
        (
            Box::new(|t| {
                t.link(&at(0, "driver"), "../../drivers/ice")
                    .interface("ens1f0", PAIR[0], 5, true);
            }),
            Verdict::Fail,
            vec![
                "port a: 0000:3b:00.0 belongs to the kernel: driver ice (ens1f0)",
                "-> haechi bind 0000:3b:00.0",
            ],
        ),
        (
            Box::new(|t| {
                t.remove(&at(1, "driver"));
            }),
            Verdict::Fail,
            vec![
                "port b: 0000:3b:00.1 has no driver",
                "-> haechi bind 0000:3b:00.1",
            ],
        ),
        (
            Box::new(|t| {
                t.file(&at(0, "device"), "0xbeef");
            }),
            Verdict::Warn,
            vec![
                "port a: no DPDK driver is known here for 8086:beef",
                "dpdk-pmdinfo.py",
            ],
        ),
        (
            Box::new(|t| {
                t.file(&at(0, "vendor"), "0x15ad")
                    .file(&at(0, "device"), "0x07b0");
            }),
            Verdict::Warn,
            vec!["port a: net_vmxnet3 drives it; it has no RSS that can be used: 3 workers"],
        ),
        (
            Box::new(|t| {
                t.file(&at(1, "class"), "0x010802");
            }),
            Verdict::Fail,
            vec!["port b: 0000:3b:00.1 is no network device (class 0x010802)"],
        ),
        (
            Box::new(|t| {
                t.pci(("0000:3b:00.7", 0x8086, 0x1593), NIC, Some("ice"), 0, Some(20));
            }),
            Verdict::Fail,
            vec![
                "port a: the IOMMU group of 0000:3b:00.0",
                "haechi bind 0000:3b:00.0 0000:3b:00.7",
            ],
        ),
        (
            Box::new(|t| {
                t.file(&at(0, "current_link_width"), "8");
            }),
            Verdict::Warn,
            vec!["port a: PCIe: 8 lanes of 16", "wider slot"],
        ),
        (
            Box::new(|t| {
                t.file(&at(0, "current_link_speed"), "8.0 GT/s PCIe");
            }),
            Verdict::Warn,
            vec!["port a: PCIe: 8 GT/s a lane of 16"],
        ),
        (
            // All but CAP_SYS_ADMIN.
            Box::new(|t| privileges(t, "000001ffffdfffff", "8388608")),
            Verdict::Warn,
            vec![
                "privileges: this process has no CAP_SYS_ADMIN",
                "deploy/haechi@.service",
            ],
        ),
    ];
    for (spoil, verdict, words) in spoil {
        let tree = good();
        spoil(&tree);
        one(&tree, &node, verdict, &words);
    }
    // Locked memory counts for those who may not lock any.
    let tree = good();
    privileges(&tree, "0", "8388608");
    let warns = said(&of(&tree, &node), Verdict::Warn);
    assert_eq!(warns.len(), 2, "{warns:?}");
    assert!(
        warns[1].contains("8 MiB of memory may be locked: a node needs 2048 MiB -> ulimit -l unlimited"),
        "{warns:?}"
    );
    // A worker too many, and CPU 0.
    one(
        &good(),
        &config("1-3,8", true, PAIR),
        Verdict::Fail,
        &["workers: there is no CPU 8", "choose `[node] workers` from 0-7"],
    );
    let tree = good();
    tree.file("sys/devices/system/cpu/isolated", "0-3")
        .file("sys/devices/system/cpu/nohz_full", "0-3");
    one(
        &tree,
        &config("0-3", true, PAIR),
        Verdict::Warn,
        &["workers: a worker is on CPU 0"],
    );
    // A device that is not there.
    one(
        &good(),
        &config("1-3", true, ["0000:99:00.0", PAIR[1]]),
        Verdict::Fail,
        &["port a: there is no PCI device 0000:99:00.0", "lspci -D"],
    );
}

/// mlx5 works beside its kernel driver: no vfio-pci, and its group is nobody's business.
#[test]
fn a_bifurcated_driver_stays() {
    let tree = good();
    for address in PAIR {
        tree.file(&format!("sys/bus/pci/devices/{address}/vendor"), "0x15b3")
            .file(&format!("sys/bus/pci/devices/{address}/device"), "0x101d")
            .link(
                &format!("sys/bus/pci/devices/{address}/driver"),
                "../../drivers/mlx5_core",
            );
    }
    let report = of(&tree, &config("1-3", true, PAIR));
    assert_eq!(report.verdict(), Verdict::Ok, "{}", report.text());
    assert!(
        report.text().contains("stays with mlx5_core"),
        "{}",
        report.text()
    );
    // No IOMMU is needed for it either.
    tree.remove("sys/class/iommu")
        .remove("sys/kernel/iommu_groups")
        .remove("sys/bus/pci/drivers/vfio-pci");
    let report = of(&tree, &config("1-3", true, PAIR));
    assert_eq!(report.verdict(), Verdict::Ok, "{}", report.text());
}

/// Nothing is known of such a host, and nothing panics.
#[test]
fn a_host_that_tells_nothing() {
    let tree = Tree::empty();
    assert_eq!(examine(tree.root(), None).count(Verdict::Fail), 1, "huge pages");
    let report = of(&tree, &config("1-3", true, PAIR));
    assert_eq!(report.verdict(), Verdict::Fail);
    for finding in &report.findings {
        assert_eq!(
            finding.verdict == Verdict::Ok,
            finding.fix.is_none(),
            "{finding:?}"
        );
        assert!(
            finding.fix.as_ref().is_none_or(|fix| !fix.is_empty()),
            "{finding:?}"
        );
    }
}
