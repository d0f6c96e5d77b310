//! What an apply may change in a running node.

use super::value::Config;

/// The difference of two configurations, as the keys that differ (`node.burst`, `port "wan".mtu`, `rule`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Changes that need a restart of the node.
    pub restart: Vec<String>,
    /// Changes that take effect at a burst boundary.
    pub live: Vec<String>,
}

/// Every key in which `new` differs from `old`.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Diff {
    let mut diff = Diff::default();
    macro_rules! compare {
        ($list:ident, $($path:ident).+) => {
            if old.$($path).+ != new.$($path).+ {
                diff.$list.push([$(stringify!($path)),+].join("."));
            }
        };
    }
    compare!(restart, node.name);
    compare!(restart, node.mode);
    compare!(restart, node.workers);
    compare!(restart, node.idle);
    compare!(live, node.rebalance);
    compare!(restart, node.hugepages);
    compare!(restart, node.memory_mib);
    compare!(restart, node.packet_buffers);
    compare!(restart, node.burst);
    compare!(restart, node.handover_queue);
    compare!(restart, node.eal_args);
    compare!(restart, node.control_socket);
    diff_ports(old, new, &mut diff);
    compare!(live, transparent.non_ip);
    compare!(live, transparent.vlan);
    compare!(restart, transparent.link_propagation);
    compare!(restart, transparent.session_scope);
    for (key, differs) in [
        ("zone", old.zones != new.zones),
        ("address_sets", old.address_sets != new.address_sets),
        ("service_sets", old.service_sets != new.service_sets),
        ("rule", old.rules != new.rules),
    ] {
        if differs {
            diff.live.push(key.to_owned());
        }
    }
    compare!(live, policy.reject_rate);
    compare!(live, policy.alert_rate);
    compare!(restart, conntrack.max_sessions);
    compare!(live, conntrack.verify_checksums);
    compare!(live, conntrack.adaptive_start);
    compare!(live, conntrack.adaptive_end);
    compare!(live, conntrack.tcp_strict);
    compare!(live, conntrack.pickup);
    compare!(live, conntrack.reset_on_timeout);
    compare!(live, conntrack.syn_cookie_start);
    compare!(live, conntrack.syn_cookie_stop);
    compare!(live, conntrack.timeouts);
    compare!(restart, conntrack.fragments.max_datagrams);
    compare!(live, conntrack.fragments.timeout);
    compare!(restart, log.sessions);
    compare!(restart, log.alerts);
    diff_ha(old, new, &mut diff);
    compare!(restart, metrics.listen);
    diff
}

/// Of `[ha]` an apply changes the priority alone: all else is agreed upon with the peer, or belongs to sockets and keys in use.
fn diff_ha(old: &Config, new: &Config, diff: &mut Diff) {
    let (old, new) = match (&old.ha, &new.ha) {
        (None, None) => return,
        (Some(old), Some(new)) => (old, new),
        _ => {
            diff.restart.push("ha".to_owned());
            return;
        }
    };
    macro_rules! compare {
        ($list:ident, $key:ident) => {
            if old.$key != new.$key {
                diff.$list.push(concat!("ha.", stringify!($key)).to_owned());
            }
        };
    }
    compare!(restart, mode);
    compare!(restart, node_id);
    compare!(live, priority);
    compare!(restart, preempt);
    compare!(restart, preempt_delay);
    compare!(restart, witness);
    compare!(restart, data_heartbeats);
    compare!(restart, redirect_rate);
    compare!(restart, sync_rate);
    compare!(restart, defer_timeout);
    compare!(restart, defer_fail);
    compare!(restart, track);
    compare!(restart, key_file);
    compare!(restart, heartbeat);
    compare!(restart, dead_after);
    compare!(restart, alone_after);
    compare!(restart, adopt_kib);
    compare!(restart, adopt_time);
    compare!(restart, link);
    compare!(restart, second_link);
}

/// The changed keys that an apply cannot change live; empty: `new` can be applied to a node that runs `old`.
#[must_use]
pub fn restart_needed(old: &Config, new: &Config) -> Vec<String> {
    diff(old, new).restart
}

fn diff_ports(old: &Config, new: &Config, diff: &mut Diff) {
    if old
        .ports
        .iter()
        .map(|p| &p.name)
        .ne(new.ports.iter().map(|p| &p.name))
    {
        // A port's place in the list is its id: an apply can neither add, remove, rename nor reorder ports.
        diff.restart.push("port".to_owned());
        return;
    }
    for (old, new) in old.ports.iter().zip(&new.ports) {
        let changed = |list: &mut Vec<String>, key: &str, differs: bool| {
            if differs {
                list.push(format!("port \"{}\".{key}", new.name));
            }
        };
        changed(&mut diff.restart, "device", old.device != new.device);
        changed(&mut diff.restart, "peer", old.peer != new.peer);
        changed(&mut diff.restart, "mtu", old.mtu != new.mtu);
        changed(&mut diff.restart, "rx_queues", old.rx_queues != new.rx_queues);
        changed(
            &mut diff.restart,
            "rx_descriptors",
            old.rx_descriptors != new.rx_descriptors,
        );
        changed(
            &mut diff.restart,
            "tx_descriptors",
            old.tx_descriptors != new.tx_descriptors,
        );
        changed(&mut diff.live, "zone", old.zone != new.zone);
    }
}
