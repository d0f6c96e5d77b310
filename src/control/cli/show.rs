//! `haechi show ...` and `haechi sessions kill`: what a running node says, as tables.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::output::{self, Failure};
use super::{KillArgs, NodeSocket, RebalanceArgs, ShowArgs, ShowCountersArgs, ShowSessionsArgs};
use crate::control::SessionFilter;
use crate::control::client::Client;
use crate::control::node::{
    Counters, NodeState, PortStatus, Rss, RuleStatus, SessionInfo, SessionPage, SessionQuery, Status,
    WorkerStatus,
};
use crate::control::table::{self, addresses, counted, cut, names, numbers, words};
use crate::engine::DropReason;
use crate::packet::Malformed;
use crate::policy::{Method, Methods};

type Done = Result<(), Failure>;

fn client(node: &NodeSocket) -> Result<Client, Failure> {
    Ok(Client::new(&node.socket)?)
}

pub(super) fn status(args: &ShowArgs) -> Done {
    let status = client(&args.node)?.status()?;
    if args.output.json {
        return output::print_json(&status);
    }
    output::print(&status_text(&status))
}

pub(super) fn ports(args: &ShowArgs) -> Done {
    let ports = client(&args.node)?.ports()?;
    if args.output.json {
        return output::print_json(&serde_json::json!({ "ports": ports }));
    }
    output::print(&ports_text(&ports, table::terminal_width()))
}

pub(super) fn workers(args: &ShowArgs) -> Done {
    let workers = client(&args.node)?.workers()?;
    if args.output.json {
        return output::print_json(&serde_json::json!({ "workers": workers }));
    }
    output::print(&workers_text(&workers, table::terminal_width()))
}

pub(super) fn rules(args: &ShowArgs) -> Done {
    let rules = client(&args.node)?.rules()?;
    if args.output.json {
        return output::print_json(&serde_json::json!({ "rules": rules }));
    }
    output::print(&rules_text(&rules, unix_now(), table::terminal_width()))
}

pub(super) fn counters(args: &ShowCountersArgs) -> Done {
    let counters = client(&args.node)?.counters()?;
    if args.output.json {
        return output::print_json(&counters);
    }
    output::print(&counters_text(&counters, args.all, table::terminal_width()))
}

pub(super) fn sessions(args: &ShowSessionsArgs) -> Done {
    let filter = filter(&args.filter)?;
    let client = client(&args.node)?;
    let limit = if args.all { u64::MAX } else { args.limit };
    let mut pages = Pages {
        client: &client,
        filter: &filter,
        cursor: None,
        left: limit,
        done: false,
    };
    if args.output.json {
        return sessions_json(&mut pages);
    }
    // Rows are kept, not printed page by page: the columns' widths depend on all of them.
    let mut sessions = Vec::new();
    while let Some(page) = pages.next_page()? {
        sessions.extend(page.sessions);
    }
    output::print(&sessions_text(
        &sessions,
        pages.cursor.is_some(),
        table::terminal_width(),
    ))
}

pub(super) fn kill(args: &KillArgs) -> Done {
    let report = client(&args.node)?.kill(&filter(&args.filter)?)?;
    if args.output.json {
        return output::print_json(&report);
    }
    output::print(&format!("{} ended\n", counted(report.killed, "session")))
}

pub(super) fn rebalance(args: &RebalanceArgs) -> Done {
    let report = client(&args.node)?.rebalance(args.dry_run)?;
    if args.output.json {
        return output::print_json(&report);
    }
    let line = match (report.from, report.to) {
        (Some(from), Some(to)) => format!(
            "{} {} of 512 with {} from worker {from} to worker {to}; the table's version is {}\n",
            if report.moved { "moved" } else { "would move" },
            counted(report.buckets, "bucket"),
            counted(report.sessions, "session"),
            report.version
        ),
        _ => format!("nothing to move: {}\n", report.reason.unwrap_or_default()),
    };
    output::print(&line)
}

fn filter(words: &[String]) -> Result<SessionFilter, Failure> {
    SessionFilter::from_words(words).map_err(|e| Failure::Usage(e.to_string()))
}

/// Pages of sessions, until there are no more or the limit is reached.
struct Pages<'a> {
    client: &'a Client,
    filter: &'a SessionFilter,
    cursor: Option<crate::control::node::Cursor>,
    left: u64,
    done: bool,
}

impl Pages<'_> {
    fn next_page(&mut self) -> Result<Option<SessionPage>, Failure> {
        if self.done || self.left == 0 {
            return Ok(None);
        }
        let most = SessionQuery::MAX_LIMIT;
        let limit = usize::try_from(self.left).unwrap_or(most).min(most);
        let page = self.client.sessions(self.filter, limit, self.cursor)?;
        self.left -= self.left.min(page.sessions.len() as u64);
        self.cursor = page.cursor;
        self.done = page.cursor.is_none();
        Ok(Some(page))
    }
}

/// The list as it comes, so that a million sessions need no memory. `cursor` says whether there are more.
fn sessions_json(pages: &mut Pages<'_>) -> Done {
    let mut out = io::BufWriter::new(io::stdout().lock());
    // The first request may be refused: then nothing has been printed yet.
    let mut page = pages.next_page()?;
    out.write_all(b"{\"sessions\": [")?;
    let mut separator = "\n  ";
    while let Some(SessionPage { sessions, .. }) = page {
        for session in &sessions {
            out.write_all(separator.as_bytes())?;
            serde_json::to_writer(&mut out, session)?;
            separator = ",\n  ";
        }
        page = pages.next_page()?;
    }
    write!(out, "\n], \"cursor\": ")?;
    serde_json::to_writer(&mut out, &pages.cursor)?;
    out.write_all(b"}\n")?;
    out.flush()?;
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "for \"5s ago\" in a table")]
fn unix_now() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

fn status_text(s: &Status) -> String {
    let state = match s.state {
        NodeState::Starting => "starting",
        NodeState::Ready => "ready",
        NodeState::Draining => "draining",
    };
    let share = |part: u64, whole: u64| {
        #[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
        let share = if whole == 0 {
            0.0
        } else {
            part as f64 / whole as f64
        };
        format!("{part} of {whole} ({})", table::share(share))
    };
    let mut sessions = share(s.sessions, s.max_sessions);
    if s.workers > 1 {
        sessions.push_str(&format!(", {} leased and unused", s.unused_leases));
    }
    if s.timeout_scale < 1.0 {
        sessions.push_str(&format!(", timeouts at {:.0} %", s.timeout_scale * 100.0));
    }
    if s.sessions_evicted > 0 {
        sessions.push_str(&format!(", {} evicted", s.sessions_evicted));
    }
    let mut text = table::facts(&[
        (
            "node",
            format!("{}, {} mode, haechi {}", s.node, s.mode, s.version),
        ),
        (
            "state",
            format!("{state} for {}, pid {}", table::duration(s.uptime_s), s.pid),
        ),
        (
            "config",
            format!(
                "{}, generation {}, {}{}",
                s.config,
                s.generation,
                counted(s.rules as u64, "rule"),
                tries(s.classifier)
            ),
        ),
        ("ports", format!("{} of {} up", s.ports_up, s.ports)),
        ("workers", s.workers.to_string()),
        ("sessions", sessions),
        (
            "buffers",
            format!("{} in use", share(s.packet_buffers_in_use, s.packet_buffers)),
        ),
    ]);
    if s.syn_cookies_engaged {
        let half_open = counted(s.half_open, "session");
        text.push_str(&format!("SYN cookies are engaged: {half_open} half open\n"));
    }
    for warning in &s.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

/// What is looked up in tries.
fn tries(methods: Methods) -> &'static str {
    match (methods.ipv4, methods.ipv6) {
        (Method::Linear, Method::Linear) => "",
        (Method::RteAcl, Method::RteAcl) => " by rte_acl",
        (Method::RteAcl, Method::Linear) => " by rte_acl (IPv4)",
        (Method::Linear, Method::RteAcl) => " by rte_acl (IPv6)",
    }
}

fn ports_text(ports: &[PortStatus], width: Option<u16>) -> String {
    let columns = [
        names("port", 12),
        names("zone", 8).spare(3),
        names("peer", 8).spare(4),
        words("link"),
        numbers("rx"),
        numbers("rx bytes").spare(5),
        numbers("tx"),
        numbers("tx bytes").spare(5),
        numbers("missed").spare(1),
        numbers("tx dropped").spare(2),
        numbers("queues").spare(6),
        words("rss").spare(7),
        cut("driver", 8).spare(8),
        cut("device", 8).spare(9),
    ];
    let rows = ports.iter().map(|p| {
        let link = match (p.link_up, p.speed_mbps) {
            (false, _) => "down".to_owned(),
            (true, None) => "up".to_owned(),
            (true, Some(mbps)) if mbps >= 1000 && mbps % 1000 == 0 => format!("up {}G", mbps / 1000),
            (true, Some(mbps)) => format!("up {mbps}M"),
        };
        let rss = match p.rss {
            Rss::Proven => "proven",
            Rss::Unproven => "unproven",
            Rss::Software => "software",
            Rss::Mismatch => "mismatch",
        };
        vec![
            p.name.clone(),
            p.zone.clone(),
            p.peer.clone().unwrap_or_default(),
            link,
            table::count(p.rx_packets),
            table::bytes(p.rx_bytes),
            table::count(p.tx_packets),
            table::bytes(p.tx_bytes),
            table::count(p.rx_missed),
            table::count(p.tx_dropped),
            p.rx_queues.to_string(),
            rss.to_owned(),
            p.driver.clone(),
            p.device.clone(),
        ]
    });
    let mut text = table::render(&columns, rows.collect(), width);
    for port in ports {
        if let Some(note) = &port.link_note {
            text.push_str(&format!("{}: {note}\n", port.name));
        }
    }
    text
}

fn workers_text(workers: &[WorkerStatus], width: Option<u16>) -> String {
    let columns = [
        numbers("worker"),
        numbers("cpu"),
        numbers("busy"),
        numbers("cycles/packet").spare(6),
        numbers("packets"),
        numbers("forwarded").spare(2),
        numbers("dropped"),
        numbers("handed over").spare(5),
        numbers("sessions").spare(1),
        numbers("max gap").spare(4),
        numbers("expiry lag").spare(3),
    ];
    let rows = workers.iter().map(|w| {
        vec![
            w.worker.to_string(),
            w.cpu.to_string(),
            table::share(w.busy),
            format!("{:.0}", w.cycles_per_packet),
            table::count(w.packets),
            table::count(w.forwarded),
            table::count(w.dropped),
            table::count(w.handed_over),
            w.sessions.to_string(),
            format!("{:.0}us", w.max_loop_gap_us),
            format!("{:.0}ms", w.expiry_lag_ms),
        ]
    });
    let mut text = table::render(&columns, rows.collect(), width);
    for worker in workers.iter().filter(|worker| worker.stalled) {
        text.push_str(&format!("worker {} does not answer\n", worker.worker));
    }
    text
}

fn rules_text(rules: &[RuleStatus], now: f64, width: Option<u16>) -> String {
    let columns = [
        names("rule", 24),
        words("action"),
        cut("from", 6).spare(3),
        cut("to", 6).spare(3),
        numbers("sessions"),
        numbers("packets").spare(1),
        numbers("bytes").spare(4),
        words("last hit").spare(2),
        cut("description", 8).spare(5),
    ];
    let rows = rules.iter().map(|r| {
        let zones = |zones: &[String]| {
            if zones.is_empty() {
                "any".to_owned()
            } else {
                zones.join(",")
            }
        };
        let action = match (r.removed, r.enabled) {
            (true, _) => format!("{} (removed)", r.action),
            (false, true) => r.action.clone(),
            (false, false) => format!("{} (disabled)", r.action),
        };
        let [from, to] = match r.removed {
            true => [String::new(), String::new()],
            false => [zones(&r.from), zones(&r.to)],
        };
        vec![
            r.name.clone(),
            action,
            from,
            to,
            r.sessions.to_string(),
            table::count(r.packets),
            table::bytes(r.bytes),
            r.last_hit.map_or_else(
                || "never".to_owned(),
                |at| format!("{} ago", table::duration(now - at)),
            ),
            r.description.clone().unwrap_or_default(),
        ]
    });
    let mut text = table::render(&columns, rows.collect(), width);
    for rule in rules {
        if rule.limited > 0 {
            let refused = counted(rule.limited, "session");
            text.push_str(&format!("{}: {refused} refused by its limits\n", rule.name));
        }
        if rule.unused_leases > 0 {
            let unused = rule.unused_leases;
            text.push_str(&format!(
                "{}: {unused} of max_sessions leased and unused\n",
                rule.name
            ));
        }
    }
    text
}

/// The accounts first; then the drops with what they mean, and what the malformed packets were: what happened, unless all
/// is asked for.
fn counters_text(counters: &Counters, all: bool, width: Option<u16>) -> String {
    let mut text = table::facts(&[
        ("received", counters.rx_packets.to_string()),
        ("originated", counters.originated.to_string()),
        ("rejects suppressed", counters.rejects_suppressed.to_string()),
        (
            "timeout resets",
            format!(
                "{} ({} missed)",
                counters.timeout_resets, counters.timeout_resets_missed
            ),
        ),
        (
            "syn cookies",
            format!(
                "{} sent, {} accepted",
                counters.syn_cookies_sent, counters.syn_cookies_accepted
            ),
        ),
        ("sent", counters.tx_packets.to_string()),
        (
            "dropped",
            counters
                .drops
                .values()
                .fold(0u64, |sum, n| sum.saturating_add(*n))
                .to_string(),
        ),
        ("fragments", counters.fragments.to_string()),
        ("reassembled", counted(counters.fragments_reassembled, "datagram")),
        ("held", counters.held.to_string()),
        ("sessions created", counters.sessions_created.to_string()),
        (
            "sessions ended",
            format!(
                "{} ({} evicted)",
                counters.sessions_ended, counters.sessions_evicted
            ),
        ),
        (
            "log records",
            format!(
                "{} ({} lost)",
                counters.log_records_written, counters.log_records_lost
            ),
        ),
    ]);
    if counters.sources_full > 0 {
        let refused = counted(counters.sources_full, "session");
        text.push_str(&format!(
            "{refused} refused because there was no place to count the source\n"
        ));
    }
    if counters.sessions_moved > 0 {
        text.push_str(&format!(
            "{} moved from worker to worker; {} elsewhere than their owner, whose table was full\n",
            counted(counters.sessions_moved, "session"),
            counters.redirects
        ));
    }
    if counters.redirects_full > 0 {
        let lost = counted(counters.redirects_full, "message");
        text.push_str(&format!(
            "{lost} between workers lost for want of room: packets of such flows open sessions of their own\n"
        ));
    }
    let reasons: Vec<_> = DropReason::ALL.iter().map(|r| (r.name(), r.help())).collect();
    let kinds: Vec<_> = Malformed::ALL.iter().map(|m| (m.name(), m.help())).collect();
    let (drops, reasons) = count_rows(&reasons, &counters.drops, all);
    let (malformed, kinds) = count_rows(&kinds, &counters.malformed, all);
    let mut hidden = Vec::new();
    if reasons > 0 {
        hidden.push(counted(reasons as u64, "reason"));
    }
    // Where nothing was malformed, the reason of that name says it for all kinds.
    if kinds > 0 && !malformed.is_empty() {
        hidden.push(format!("{} of malformed packets", counted(kinds as u64, "kind")));
    }
    for (heading, rows) in [("dropped for", drops), ("malformed", malformed)] {
        if !rows.is_empty() {
            let columns = [cut(heading, 20), numbers("packets"), cut("meaning", 20).spare(1)];
            text.push('\n');
            text.push_str(&table::render(&columns, rows, width));
        }
    }
    if !hidden.is_empty() {
        text.push_str(&format!(
            "\nnot shown: {} without a drop (--all)\n",
            hidden.join(" and ")
        ));
    }
    text
}

/// Rows of word, count and meaning, in this version's order and then the words that only the node's version knows. Zeros are
/// only counted, unless all are asked for.
fn count_rows(
    known: &[(&str, &str)],
    counts: &BTreeMap<String, u64>,
    all: bool,
) -> (Vec<Vec<String>>, usize) {
    let ours: BTreeSet<&str> = known.iter().map(|(name, _)| *name).collect();
    let theirs = counts
        .keys()
        .map(String::as_str)
        .filter(|name| !ours.contains(name))
        .map(|name| (name, "(a word of the node's version)"));
    let mut rows = Vec::new();
    let mut zeros = 0;
    for (name, help) in known.iter().copied().chain(theirs) {
        match counts.get(name).copied().unwrap_or(0) {
            0 if !all => zeros += 1,
            n => rows.push(vec![name.to_owned(), n.to_string(), help.to_owned()]),
        }
    }
    (rows, zeros)
}

fn sessions_text(sessions: &[SessionInfo], more: bool, width: Option<u16>) -> String {
    // Sessions may differ in their VLAN alone.
    let vlan = match sessions.iter().any(|s| !s.vlan.is_empty()) {
        true => words("vlan"),
        false => words("vlan").spare(9),
    };
    let columns = [
        words("protocol").dear(),
        addresses("source", 20),
        addresses("destination", 20),
        vlan,
        words("state").spare(2),
        names("rule", 8).spare(3),
        cut("from", 6).spare(7),
        cut("to", 6).spare(7),
        numbers("packets").spare(5),
        numbers("bytes").spare(6),
        numbers("age").spare(8),
        numbers("expires").spare(4),
    ];
    let rows = sessions.iter().map(|s| {
        let vlan: Vec<_> = s.vlan.iter().map(u16::to_string).collect();
        vec![
            s.protocol.to_string(),
            end(s.source, s.source_port, &s.protocol),
            end(s.destination, s.destination_port, &s.protocol),
            vlan.join("."),
            s.state.to_string(),
            s.rule.to_string(),
            s.from.to_string(),
            s.to.to_string(),
            format!("{}/{}", table::count(s.packets[0]), table::count(s.packets[1])),
            format!("{}/{}", table::bytes(s.bytes[0]), table::bytes(s.bytes[1])),
            table::duration(s.age_s),
            table::duration(s.expires_in_s),
        ]
    });
    let mut text = table::render(&columns, rows.collect(), width);
    text.push_str(&counted(sessions.len() as u64, "session"));
    text.push_str(if more {
        "; there may be more (--limit, --all, or a filter)\n"
    } else {
        "\n"
    });
    text
}

/// `10.0.0.5:1234`, `[2001:db8::1]:53`; an echo's identifier is no port.
fn end(address: std::net::IpAddr, port: u16, protocol: &str) -> String {
    match protocol {
        "tcp" | "udp" => std::net::SocketAddr::new(address, port).to_string(),
        _ => address.to_string(),
    }
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
