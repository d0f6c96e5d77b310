//! The families: which number has which name, and what it is.

use std::fmt;

use super::Snapshot;
use super::page::{Labels, Page};
use crate::control::node::{Counters, NodeState, PortStatus, Rss, RuleStatus, Status, WorkerStatus};

pub(super) fn encode(of: &Snapshot, page: &mut Page<'_>) -> fmt::Result {
    let complete = of.rules.is_some() && of.counters.is_some();
    page.gauge(
        "complete",
        "1: everything is here. 0: a worker does not answer; the counters of the node and of its rules are left out, and those of the \
         worker are old",
        u64::from(complete),
    )?;
    status(&of.status, page)?;
    ports(&of.ports, page)?;
    workers(&of.workers, page)?;
    if let Some(rules) = &of.rules {
        self::rules(rules, page)?;
    }
    if let Some(counters) = &of.counters {
        self::counters(counters, page)?;
    }
    Ok(())
}

/// Name, help, and the number of a `T`.
type Numbers<T> = [(&'static str, &'static str, fn(&T) -> u64)];
/// The same of what is no count.
type Measures<T> = [(&'static str, &'static str, fn(&T) -> f64)];

const STATUS_GAUGES: &Numbers<Status> = &[
    ("node_pid", "The node's process", |s| u64::from(s.pid)),
    (
        "policy_generation",
        "Number of the policy in force: one more with every apply",
        |s| u64::from(s.generation),
    ),
    ("sessions", "Sessions on all workers", |s| s.sessions),
    (
        "sessions_limit",
        "Sessions that there may be: [conntrack] max_sessions",
        |s| s.max_sessions,
    ),
    (
        "sessions_unused_leases",
        "Sessions of the limit that are leased to workers and not used",
        |s| s.unused_leases,
    ),
    (
        "sessions_half_open",
        "TCP sessions whose handshake is not complete",
        |s| s.half_open,
    ),
    (
        "syn_cookies_engaged",
        "1: rules with syn_protection = \"auto\" answer SYNs by cookies now",
        |s| u64::from(s.syn_cookies_engaged),
    ),
    ("rules", "Enabled rules", |s| s.rules as u64),
    ("workers", "Workers", |s| s.workers as u64),
    ("ports", "Ports", |s| s.ports as u64),
    ("ports_up", "Ports whose link is up", |s| s.ports_up as u64),
    ("packet_buffers", "Packet buffers of all pools", |s| {
        s.packet_buffers
    }),
    (
        "packet_buffers_in_use",
        "Packet buffers that are not in their pools: in rings, in caches, held",
        |s| s.packet_buffers_in_use,
    ),
    (
        "warnings",
        "What an operator should look at: the warnings of `haechi show status`",
        |s| s.warnings.len() as u64,
    ),
];

fn status(s: &Status, page: &mut Page<'_>) -> fmt::Result {
    page.info(
        "node",
        "The node: its version, its name, its mode and the configuration file in force",
        [vec![
            ("version", s.version.as_str()),
            ("node", s.node.as_str()),
            ("mode", s.mode.as_str()),
            ("config", s.config.as_str()),
        ]]
        .into_iter(),
    )?;
    page.info(
        "classifier",
        "How the first rule that matches is found, by address family",
        [("ipv4", s.classifier.ipv4), ("ipv6", s.classifier.ipv6)]
            .into_iter()
            .map(|(family, method)| vec![("family", family), ("method", method.name())]),
    )?;
    let states = [
        ("starting", NodeState::Starting),
        ("ready", NodeState::Ready),
        ("draining", NodeState::Draining),
    ];
    page.gauges(
        "node_state",
        "1: the node is in this state",
        states
            .into_iter()
            .map(|(word, state)| (vec![("state", word)], u64::from(s.state == state))),
    )?;
    page.gauges(
        "sessions_by_state",
        "Sessions on all workers by state",
        s.sessions_by_state
            .iter()
            .map(|(state, n)| (vec![("state", state.as_str())], *n)),
    )?;
    page.gauge("uptime_seconds", "Time since the node was ready", s.uptime_s)?;
    page.gauge(
        "timeout_scale_ratio",
        "What part of their length timeouts have",
        s.timeout_scale,
    )?;
    for (name, help, read) in STATUS_GAUGES {
        page.gauge(name, help, read(s))?;
    }
    Ok(())
}

fn port(of: &PortStatus) -> Labels<'_> {
    vec![("port", of.name.as_str())]
}

fn rule(of: &RuleStatus) -> Labels<'_> {
    vec![("rule", of.name.as_str())]
}

const PORT_GAUGES: &Numbers<PortStatus> = &[
    ("port_link_up", "1: the port has a link", |p| u64::from(p.link_up)),
    ("port_mtu_bytes", "Largest IP packet", |p| u64::from(p.mtu)),
    ("port_rx_queues", "Receive queues", |p| u64::from(p.rx_queues)),
    ("port_tx_queues", "Transmit queues", |p| u64::from(p.tx_queues)),
];

const PORT_COUNTERS: &Numbers<PortStatus> = &[
    ("port_rx_packets", "Frames in", |p| p.rx_packets),
    ("port_tx_packets", "Frames out", |p| p.tx_packets),
    ("port_rx_bytes", "Bytes in, without FCS", |p| p.rx_bytes),
    ("port_tx_bytes", "Bytes out, without FCS", |p| p.tx_bytes),
    (
        "port_rx_missed",
        "Frames that the device dropped because its receive ring was full",
        |p| p.rx_missed,
    ),
    (
        "port_rx_errors",
        "Frames that the device received in error",
        |p| p.rx_errors,
    ),
    (
        "port_rx_no_buffer",
        "Frames lost because no packet buffer was free",
        |p| p.rx_no_buffer,
    ),
    (
        "port_tx_dropped",
        "Frames that the node could not hand to the device (drops of reason tx_full or link_down, too)",
        |p| p.tx_dropped,
    ),
    ("port_tx_errors", "Frames that the device failed to send", |p| {
        p.tx_errors
    }),
];

fn ports(ports: &[PortStatus], page: &mut Page<'_>) -> fmt::Result {
    page.info(
        "port",
        "A port: its zone, the port that frames cross to, its device, driver and address",
        ports.iter().map(|p| {
            vec![
                ("port", p.name.as_str()),
                ("zone", p.zone.as_str()),
                ("peer", p.peer.as_deref().unwrap_or_default()),
                ("device", p.device.as_str()),
                ("driver", p.driver.as_str()),
                ("mac", p.mac.as_str()),
            ]
        }),
    )?;
    let words = [
        ("proven", Rss::Proven),
        ("unproven", Rss::Unproven),
        ("software", Rss::Software),
        ("mismatch", Rss::Mismatch),
    ];
    page.gauges(
        "port_rss",
        "1: flows of this port are spread over workers in this way",
        ports.iter().flat_map(|p| {
            words.iter().map(|(word, rss)| {
                let labels = vec![("port", p.name.as_str()), ("rss", *word)];
                (labels, u64::from(p.rss == *rss))
            })
        }),
    )?;
    page.gauges(
        "port_speed_bytes_per_second",
        "Link speed, of ports that know it",
        // A megabit is 125,000 bytes.
        ports
            .iter()
            .filter_map(|p| Some((port(p), u64::from(p.speed_mbps?) * 125_000))),
    )?;
    for (name, help, read) in PORT_GAUGES {
        page.gauges(name, help, ports.iter().map(|p| (port(p), read(p))))?;
    }
    for (name, help, read) in PORT_COUNTERS {
        page.counters(name, help, ports.iter().map(|p| (port(p), read(p))))?;
    }
    Ok(())
}

const WORKER_COUNTERS: &Numbers<WorkerStatus> = &[
    ("worker_packets", "Packets taken in", |w| w.packets),
    ("worker_forwarded", "Packets forwarded", |w| w.forwarded),
    ("worker_dropped", "Packets dropped, for all reasons", |w| {
        w.dropped
    }),
    (
        "worker_originated",
        "Packets that the worker made itself (RST, ICMP unreachable, segments of proxied handshakes)",
        |w| w.originated,
    ),
    (
        "worker_handed_over",
        "Packets handed to their owners on other workers",
        |w| w.handed_over,
    ),
    (
        "worker_taken_over",
        "Packets that other workers handed to it",
        |w| w.taken_over,
    ),
    (
        "worker_relayed",
        "Packets handed to other workers to be sent",
        |w| w.relayed,
    ),
];

const WORKER_GAUGES: &Numbers<WorkerStatus> = &[
    ("worker_cpu", "The CPU that the worker is pinned to", |w| {
        u64::from(w.cpu)
    }),
    ("worker_sessions", "Sessions that the worker owns", |w| w.sessions),
    (
        "worker_sessions_limit",
        "Sessions that the worker may own now: its lease of the node's limit",
        |w| w.max_sessions,
    ),
    (
        "worker_stalled",
        "1: the worker does not answer, and its other numbers are old",
        |w| u64::from(w.stalled),
    ),
    (
        "worker_policy_generation",
        "Number of the policy that the worker works under",
        |w| u64::from(w.generation),
    ),
];

const WORKER_MEASURES: &Measures<WorkerStatus> = &[
    (
        "worker_busy_ratio",
        "Share of the last second's cycles spent on packets",
        |w| w.busy,
    ),
    (
        "worker_cycles_per_packet",
        "Busy cycles for each packet in the last second",
        |w| w.cycles_per_packet,
    ),
    (
        "worker_max_loop_gap_seconds",
        "Longest time between two turns of the worker's loop in the last ten seconds",
        |w| w.max_loop_gap_us / 1e6,
    ),
    (
        "worker_expiry_lag_seconds",
        "How far behind session expiry is",
        |w| w.expiry_lag_ms / 1e3,
    ),
];

fn workers(workers: &[WorkerStatus], page: &mut Page<'_>) -> fmt::Result {
    let names: Vec<String> = workers.iter().map(|w| w.worker.to_string()).collect();
    let worker = |n: usize| -> Labels<'_> { vec![("worker", names[n].as_str())] };
    for (name, help, read) in WORKER_COUNTERS {
        page.counters(
            name,
            help,
            workers.iter().enumerate().map(|(n, w)| (worker(n), read(w))),
        )?;
    }
    for (name, help, read) in WORKER_GAUGES {
        page.gauges(
            name,
            help,
            workers.iter().enumerate().map(|(n, w)| (worker(n), read(w))),
        )?;
    }
    for (name, help, read) in WORKER_MEASURES {
        page.gauges(
            name,
            help,
            workers.iter().enumerate().map(|(n, w)| (worker(n), read(w))),
        )?;
    }
    Ok(())
}

const RULE_GAUGES: &Numbers<RuleStatus> = &[
    ("rule_enabled", "0: the rule matches nothing", |r| {
        u64::from(r.enabled)
    }),
    (
        "rule_removed",
        "1: the rule is in no configuration any more, but holds sessions open that it allowed",
        |r| u64::from(r.removed),
    ),
    ("rule_sessions", "Sessions that the rule holds open", |r| {
        r.sessions
    }),
    (
        "rule_unused_leases",
        "Of the rule's max_sessions, what is leased to workers and not used",
        |r| r.unused_leases,
    ),
];

const RULE_COUNTERS: &Numbers<RuleStatus> = &[
    (
        "rule_packets",
        "Packets of the rule's sessions, or that it refused",
        |r| r.packets,
    ),
    ("rule_bytes", "Bytes of those IP packets", |r| r.bytes),
    ("rule_limited", "Sessions that the rule's limits refused", |r| {
        r.limited
    }),
];

fn rules(rules: &[RuleStatus], page: &mut Page<'_>) -> fmt::Result {
    page.info(
        "rule",
        "A rule and its action; implicit_drop is what no rule matched",
        rules
            .iter()
            .map(|r| vec![("rule", r.name.as_str()), ("action", r.action.as_str())]),
    )?;
    for (name, help, read) in RULE_GAUGES {
        page.gauges(name, help, rules.iter().map(|r| (rule(r), read(r))))?;
    }
    for (name, help, read) in RULE_COUNTERS {
        page.counters(name, help, rules.iter().map(|r| (rule(r), read(r))))?;
    }
    page.gauges(
        "rule_last_hit_timestamp_seconds",
        "When the rule last decided about a new session; of rules that did since the node started",
        rules.iter().filter_map(|r| Some((rule(r), r.last_hit?))),
    )
}

const COUNTERS: &Numbers<Counters> = &[
    ("rx_packets", "Packets that workers took from ports", |c| {
        c.rx_packets
    }),
    ("tx_packets", "Packets that workers handed to ports", |c| {
        c.tx_packets
    }),
    (
        "originated",
        "Packets made here (RST, ICMP unreachable, segments of proxied handshakes)",
        |c| c.originated,
    ),
    (
        "rejects_suppressed",
        "Answers to refused packets that reject_rate or a lack of buffers kept from being made",
        |c| c.rejects_suppressed,
    ),
    (
        "timeout_resets",
        "RSTs to the ends of sessions that idled out",
        |c| c.timeout_resets,
    ),
    (
        "timeout_resets_missed",
        "Ends of such sessions that got none",
        |c| c.timeout_resets_missed,
    ),
    (
        "log_records_written",
        "Records of sessions and alerts in the log files",
        |c| c.log_records_written,
    ),
    (
        "log_records_lost",
        "Records that found no room on their way there, or on the disk",
        |c| c.log_records_lost,
    ),
    ("fragments", "IP fragments that came in", |c| c.fragments),
    (
        "fragments_reassembled",
        "Datagrams whose fragments were all there",
        |c| c.fragments_reassembled,
    ),
    ("syn_cookies_sent", "SYNs answered by a cookie", |c| {
        c.syn_cookies_sent
    }),
    (
        "syn_cookies_accepted",
        "Cookies that came back, and were good",
        |c| c.syn_cookies_accepted,
    ),
    (
        "syn_retries_lost",
        "SYNs to servers that were not sent again although nothing answered",
        |c| c.syn_retries_lost,
    ),
    ("sessions_created", "Sessions made", |c| c.sessions_created),
    ("sessions_ended", "Sessions ended, for whatever reason", |c| {
        c.sessions_ended
    }),
    (
        "sessions_evicted",
        "Sessions that gave way to others because the table was full",
        |c| c.sessions_evicted,
    ),
    (
        "sources_full",
        "New sessions refused because there was no place left to count their source",
        |c| c.sources_full,
    ),
    (
        "handed_over",
        "Packets handed from worker to worker, to their owners",
        |c| c.handed_over,
    ),
    (
        "sessions_moved",
        "Sessions that went from worker to worker with their buckets",
        |c| c.sessions_moved,
    ),
    (
        "redirects_full",
        "Messages about flows that are elsewhere for which there was no room",
        |c| c.redirects_full,
    ),
    (
        "sessions_synced_in",
        "Sessions of the other node of an HA pair that were taken in",
        |c| c.sessions_synced_in,
    ),
    (
        "sessions_synced_out",
        "Of those, the ones that the other node said have ended",
        |c| c.sessions_synced_out,
    ),
    (
        "sync_refused",
        "News of the other node's sessions for which there was no room",
        |c| c.sync_refused,
    ),
    (
        "redirected_out",
        "Packets given to the other node of an HA pair to be judged",
        |c| c.redirected_out,
    ),
    (
        "redirected_in",
        "Packets that the other node of an HA pair gave to be judged here",
        |c| c.redirected_in,
    ),
    (
        "given_back",
        "Of those, what went back: packets that pass, and answers",
        |c| c.given_back,
    ),
    (
        "returned",
        "Packets that came back from the other node of an HA pair, judged",
        |c| c.returned,
    ),
    (
        "deferred",
        "First packets held until the other node of an HA pair knows their session",
        |c| c.deferred,
    ),
    (
        "deferred_late",
        "First packets of rules with defer that did not wait for that, or in vain",
        |c| c.deferred_late,
    ),
];

const GAUGES: &Numbers<Counters> = &[
    (
        "fragments_held",
        "Fragments that wait for the others of their datagrams",
        |c| c.fragments_held,
    ),
    ("held", "Packets that are in the node", |c| c.held),
    (
        "redirects",
        "Sessions that are on another worker than their flow's owner",
        |c| c.redirects,
    ),
];

fn counters(c: &Counters, page: &mut Page<'_>) -> fmt::Result {
    for (name, help, read) in COUNTERS {
        page.counter(name, help, read(c))?;
    }
    for (name, help, read) in GAUGES {
        page.gauge(name, help, read(c))?;
    }
    page.counters(
        "drops",
        "Packets dropped, by reason",
        c.drops
            .iter()
            .map(|(reason, n)| (vec![("reason", reason.as_str())], *n)),
    )?;
    page.counters(
        "malformed",
        "Malformed packets by what is wrong with them; they add up to the drops of reason malformed",
        c.malformed
            .iter()
            .map(|(kind, n)| (vec![("kind", kind.as_str())], *n)),
    )
}
