//! The workers' CPUs: are they there, and does anybody else use them?

use super::host::{named, ranges};
use super::{Group, Host};
use crate::config::Config;

pub(super) fn examine(host: &Host, config: Option<&Config>, group: &mut Group<'_>) {
    let Some(config) = config else {
        without_workers(host, group);
        return;
    };
    let mut workers: Vec<usize> = config
        .node
        .workers
        .0
        .iter()
        .map(|cpu| usize::from(*cpu))
        .collect();
    workers.sort_unstable();
    let online: Vec<usize> = host.topology.cpus().collect();
    let missing: Vec<usize> = workers
        .iter()
        .copied()
        .filter(|cpu| !online.contains(cpu))
        .collect();
    if !missing.is_empty() {
        group.fail(
            format!("there is no {}", named(&missing)),
            format!("choose `[node] workers` from {}", ranges(&online)),
        );
        workers.retain(|cpu| online.contains(cpu));
        if workers.is_empty() {
            return;
        }
    }
    isolation(host, &workers, group);
    cores(host, &workers, group);
    governor(host, &workers, group);
    control(&workers, &online, group);
}

fn without_workers(host: &Host, group: &mut Group<'_>) {
    let cpus: Vec<usize> = host.topology.cpus().collect();
    let isolated = host.list("sys/devices/system/cpu/isolated");
    if isolated.is_empty() {
        group.warn(
            format!("no CPU of {} is isolated", ranges(&cpus)),
            "name the configuration file, to see which ones a node needs: haechi doctor FILE",
        );
    } else {
        group.ok(format!("isolated of {}: {}", named(&cpus), ranges(&isolated)));
    }
}

/// `isolcpus`, `nohz_full` and `rcu_nocbs` (the kernel's kernel-parameters.txt). A full nohz CPU has its RCU callbacks elsewhere by itself.
fn isolation(host: &Host, workers: &[usize], group: &mut Group<'_>) {
    let isolated = host.list("sys/devices/system/cpu/isolated");
    let nohz = host.list("sys/devices/system/cpu/nohz_full");
    let rcu = match host.boot_option("rcu_nocbs") {
        Some(all) if all == "all" => workers.to_vec(),
        Some(list) => crate::base::numa::list(&list),
        None => Vec::new(),
    };
    let lacks = |has: &dyn Fn(&usize) -> bool| -> Vec<usize> {
        workers.iter().copied().filter(|cpu| !has(cpu)).collect()
    };
    let open = [
        ("isolcpus", lacks(&|cpu| isolated.contains(cpu))),
        ("nohz_full", lacks(&|cpu| nohz.contains(cpu))),
        ("rcu_nocbs", lacks(&|cpu| rcu.contains(cpu) || nohz.contains(cpu))),
    ];
    let wrong: Vec<String> = open
        .iter()
        .filter(|(_, cpus)| !cpus.is_empty())
        .map(|(option, cpus)| format!("{option} lacks {}", ranges(cpus)))
        .collect();
    let all = ranges(workers);
    if wrong.is_empty() {
        group.ok(format!(
            "{} {} the workers' alone (isolcpus, nohz_full, rcu_nocbs)",
            named(workers),
            if workers.len() == 1 { "is" } else { "are" }
        ));
    } else {
        group.warn(
            format!("the kernel uses CPUs of workers: {}", wrong.join(", ")),
            format!(
                "add isolcpus={all} nohz_full={all} rcu_nocbs={all} to GRUB_CMDLINE_LINUX in /etc/default/grub; update-grub; reboot"
            ),
        );
    }
}

/// Two workers on one core get half of it each; other work on a core's second thread takes as much.
fn cores(host: &Host, workers: &[usize], group: &mut Group<'_>) {
    let isolated = host.list("sys/devices/system/cpu/isolated");
    let (mut shared, mut open) = (Vec::new(), Vec::new());
    for cpu in workers {
        for sibling in host
            .topology
            .siblings(*cpu)
            .iter()
            .filter(|sibling| *sibling != cpu)
        {
            if workers.contains(sibling) {
                if cpu < sibling {
                    shared.push(format!("{cpu} and {sibling}"));
                }
            } else if !isolated.contains(sibling) {
                open.push(*sibling);
            }
        }
    }
    if !shared.is_empty() {
        group.warn(
            format!(
                "workers share a core, of which each gets about half: CPUs {}",
                shared.join(", ")
            ),
            "choose one CPU of each core in `[node] workers` (lscpu -e shows cores)",
        );
    }
    open.sort_unstable();
    if !open.is_empty() {
        group.warn(
            format!(
                "the kernel uses the second threads of workers' cores: {}",
                named(&open)
            ),
            format!(
                "take them away: for n in {}; do echo 0 > /sys/devices/system/cpu/cpu$n/online; done",
                open.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
            ),
        );
    }
    if shared.is_empty() && open.is_empty() {
        group.ok("each worker has a core of its own");
    }
}

fn governor(host: &Host, workers: &[usize], group: &mut Group<'_>) {
    let governor = |cpu: &usize| {
        host.read(&format!(
            "sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"
        ))
    };
    let slow: Vec<(usize, String)> = workers
        .iter()
        .filter_map(|cpu| Some((*cpu, governor(cpu)?)))
        .filter(|(_, governor)| governor != "performance")
        .collect();
    match slow.first() {
        None if workers.iter().any(|cpu| governor(cpu).is_some()) => {
            group.ok("the workers' CPUs keep their highest frequency (governor performance)");
        }
        None => group.ok("the kernel does not scale the CPUs' frequency"),
        Some((_, word)) => {
            let cpus: Vec<usize> = slow.iter().map(|(cpu, _)| *cpu).collect();
            group.warn(
                format!(
                    "workers' CPUs slow down between packets: governor {word} of {}",
                    named(&cpus)
                ),
                format!("cpupower -c {} frequency-set -g performance", ranges(&cpus)),
            );
        }
    }
}

/// Control threads, and the kernel, want a CPU as well.
fn control(workers: &[usize], online: &[usize], group: &mut Group<'_>) {
    if workers.contains(&0) && online.len() > 1 {
        group.warn(
            "a worker is on CPU 0, where the kernel keeps its house",
            "leave CPU 0 to the kernel: choose others in `[node] workers`",
        );
    } else if online.iter().all(|cpu| workers.contains(cpu)) {
        group.warn(
            "every CPU has a worker: control threads share them",
            "leave one CPU out of `[node] workers`",
        );
    }
}
