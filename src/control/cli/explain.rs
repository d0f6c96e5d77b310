//! `haechi explain`: packets in words or from captures, under a configuration file or on a running node.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::ExplainArgs;
use super::files::refused_file;
use super::output::{self, Failure};
use crate::base::{Generation, Nanos, PortId};
use crate::config::{self, RuleIds};
use crate::control::NodeError;
use crate::control::client::Client;
use crate::control::explain::capture::{Capture, Frame};
use crate::control::explain::{Conversation, Simulator, live};
use crate::control::node::{ErrorKind, ExplainPacket, ExplainRequest, Fate, Verdict};
use crate::control::table::counted;
use crate::control::view::Names;

pub(super) fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let mut printer = Printer {
        json: args.output.json,
        totals: (!args.pcap.is_empty()).then(Totals::default),
    };
    match &args.config {
        Some(file) => under_file(args, file, &mut printer)?,
        None => on_node(args, &mut printer)?,
    }
    printer.finish()
}

/// Under a configuration file: no node, no session but those that the packets make.
fn under_file(args: &ExplainArgs, file: &Path, printer: &mut Printer) -> Result<(), Failure> {
    let checked = config::check(file);
    let Some(config) = &checked.config else {
        return Err(refused_file(file, &checked, args.output.json));
    };
    let mut ids = RuleIds::new();
    let policy = config::compile(config, Generation(1), &mut ids)
        .map_err(|e| NodeError::new(ErrorKind::Refused, format!("{}: {e}", file.display())))?;
    let names = Arc::new(Names::new(config, &ids));
    let mut captures = Captures::open(args)?;
    // More sessions than packets there cannot be: no need for a large node's table.
    let packets = captures.most_packets().max(args.packet.len() as u64);
    let room = u32::try_from(packets)
        .unwrap_or(u32::MAX)
        .min(config.conntrack.max_sessions);
    let mut simulator = Simulator::new(Arc::new(policy), names, room, Nanos::SECOND)?;
    let mut conversation = Conversation::default();
    let mut at_ns = 0_u64;
    // Of the packets whose verdicts are not printed yet.
    let mut cuts = VecDeque::new();
    for words in &args.packet {
        let default = default_port(&simulator, args);
        let ready = conversation.read(&simulator, words, default)?;
        at_ns = at_ns.saturating_add(ready.after_ns);
        simulator.feed(ready.frame, ready.ingress, at_ns);
        cuts.push_back(None);
        while let Some(verdict) = simulator.decided() {
            printer.noted(verdict, cuts.pop_front().flatten())?;
        }
    }
    let ports = captures.resolve(&simulator, args)?;
    while let Some((place, frame, at_ns)) = captures.next_frame()? {
        let Some(port) = ports.get(place) else { continue };
        let ingress = match args.both_directions {
            true => conversation.ingress_of(&simulator, &frame.bytes, *port),
            false => *port,
        };
        cuts.push_back(cut_short(&frame));
        simulator.feed(frame.bytes, ingress, at_ns);
        while let Some(verdict) = simulator.decided() {
            printer.noted(verdict, cuts.pop_front().flatten())?;
        }
    }
    for verdict in simulator.finish() {
        printer.noted(verdict, cuts.pop_front().flatten())?;
    }
    Ok(())
}

/// On a running node: its policy, copies of its sessions.
fn on_node(args: &ExplainArgs, printer: &mut Printer) -> Result<(), Failure> {
    let mut request = ExplainRequest {
        both_directions: args.both_directions,
        ..ExplainRequest::default()
    };
    let packet = || ExplainPacket {
        from: args.from.clone(),
        port: args.port.clone(),
        ..ExplainPacket::default()
    };
    request
        .packets
        .extend(args.packet.iter().map(|words| ExplainPacket {
            packet: Some(words.clone()),
            ..packet()
        }));
    let mut captures = Captures::open(args)?;
    let mut cuts = Vec::new();
    while let Some((place, frame, at_ns)) = captures.next_frame()? {
        if request.packets.len() == live::MAX_PACKETS {
            return Err(Failure::from(
                NodeError::new(
                    ErrorKind::BadRequest,
                    format!(
                        "a running node explains {} packets at once, the captures hold more",
                        live::MAX_PACKETS
                    ),
                )
                .fix("cut them, or explain them under the configuration file (-c FILE)"),
            ));
        }
        let (from, port) = match captures.port_name(place) {
            Some(name) => (None, Some(name.to_owned())),
            None => (args.from.clone(), args.port.clone()),
        };
        cuts.push(cut_short(&frame));
        request.packets.push(ExplainPacket {
            packet: None,
            frame: Some(live::to_hex(&frame.bytes)),
            from,
            port,
            at_ns: Some(at_ns),
        });
    }
    if request.packets.is_empty() {
        // An empty capture: nothing to ask for.
        return Ok(());
    }
    let report = Client::new(&args.node.socket)?.explain(&request)?;
    let mut cuts = cuts.into_iter();
    for verdict in report.verdicts {
        printer.noted(verdict, cuts.next().flatten())?;
    }
    Ok(())
}

fn default_port(simulator: &Simulator, args: &ExplainArgs) -> Result<PortId, NodeError> {
    simulator
        .port(args.from.as_deref(), args.port.as_deref())?
        .ok_or_else(|| {
            NodeError::new(ErrorKind::BadRequest, "nothing says where the packet comes in").fix(
                "give --from ZONE or --port NAME, or begin the packet with \"from ZONE\" or \"port NAME\"",
            )
        })
}

fn cut_short(frame: &Frame) -> Option<String> {
    (frame.bytes.len() < frame.original_len as usize).then(|| {
        format!(
            "the capture holds {} of its {} bytes",
            frame.bytes.len(),
            frame.original_len
        )
    })
}

fn note(verdict: &mut Verdict, cut: Option<String>) {
    if let Some(cut) = cut {
        verdict.detail = Some(match verdict.detail.take() {
            Some(detail) => format!("{detail} ({cut})"),
            None => cut,
        });
    }
}

/// Several captures as one, by time.
struct Captures {
    list: Vec<Open>,
    /// When the first frame of all came.
    start_ns: Option<u64>,
}

struct Open {
    capture: Capture,
    port: Option<String>,
    bytes: u64,
    next: Option<Frame>,
}

impl Captures {
    fn open(args: &ExplainArgs) -> Result<Self, Failure> {
        let mut list = Vec::new();
        for source in &args.pcap {
            let (port, path) = port_and_path(source)?;
            let mut capture = Capture::open(path)?;
            let next = capture.next_frame()?;
            list.push(Open {
                capture,
                port,
                bytes: std::fs::metadata(path).map_or(0, |meta| meta.len()),
                next,
            });
        }
        let start_ns = list
            .iter()
            .filter_map(|open| Some(open.next.as_ref()?.at_ns))
            .min();
        Ok(Self { list, start_ns })
    }

    /// Of so many packets they are at most: the head of one takes 12 bytes or more in every format.
    fn most_packets(&self) -> u64 {
        self.list.iter().map(|open| open.bytes / 12).sum()
    }

    /// The port of each.
    fn resolve(&self, simulator: &Simulator, args: &ExplainArgs) -> Result<Vec<PortId>, NodeError> {
        let port = |open: &Open| match &open.port {
            Some(name) => simulator.port(None, Some(name)).map(Option::unwrap_or_default),
            None => default_port(simulator, args),
        };
        self.list.iter().map(port).collect()
    }

    fn port_name(&self, place: usize) -> Option<&str> {
        self.list.get(place)?.port.as_deref()
    }

    /// The earliest frame that is left: of which capture, and when after the first frame.
    fn next_frame(&mut self) -> Result<Option<(usize, Frame, u64)>, Failure> {
        let waiting = self.list.iter().enumerate();
        let earliest = waiting
            .filter_map(|(place, open)| Some((open.next.as_ref()?.at_ns, place)))
            .min();
        let Some((at_ns, place)) = earliest else {
            return Ok(None);
        };
        let Some(open) = self.list.get_mut(place) else {
            return Ok(None);
        };
        let next = open.capture.next_frame()?;
        let frame = std::mem::replace(&mut open.next, next);
        Ok(frame.map(|frame| (place, frame, at_ns.saturating_sub(self.start_ns.unwrap_or(at_ns)))))
    }
}

/// `PORT=FILE`, or a file by whatever name it has.
fn port_and_path(source: &OsStr) -> Result<(Option<String>, &Path), Failure> {
    let path = Path::new(source);
    if path.exists() {
        return Ok((None, path));
    }
    match source.to_str().and_then(|text| text.split_once('=')) {
        Some(("", _) | (_, "")) => Err(Failure::Usage(format!(
            "--pcap {}: PORT=FILE needs both",
            source.to_string_lossy()
        ))),
        Some((port, file)) => Ok((Some(port.to_owned()), Path::new(file))),
        None => Ok((None, path)),
    }
}

/// Prints verdicts as they come.
struct Printer {
    json: bool,
    totals: Option<Totals>,
}

#[derive(Default)]
struct Totals {
    packets: u64,
    forwarded: u64,
    held: u64,
    drops: BTreeMap<String, u64>,
}

impl Printer {
    fn noted(&mut self, mut verdict: Verdict, cut: Option<String>) -> Result<(), Failure> {
        note(&mut verdict, cut);
        self.verdict(&verdict)
    }

    fn verdict(&mut self, verdict: &Verdict) -> Result<(), Failure> {
        if let Some(totals) = &mut self.totals {
            totals.add(verdict);
        }
        if self.json {
            output::print(&format!("{}\n", serde_json::to_string(verdict)?))
        } else {
            output::print(&verdict_text(verdict))
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self.totals {
            Some(totals) if !self.json => output::print(&totals.text()),
            _ => Ok(()),
        }
    }
}

impl Totals {
    fn add(&mut self, verdict: &Verdict) {
        self.packets += 1;
        match (&verdict.reason, verdict.verdict) {
            (Some(reason), _) => *self.drops.entry(reason.clone()).or_default() += 1,
            (None, Fate::Held) => self.held += 1,
            (None, _) => self.forwarded += 1,
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{}: {} forwarded, {} dropped",
            counted(self.packets, "packet"),
            self.forwarded,
            self.packets - self.forwarded - self.held
        );
        if self.held > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, ", {} held", self.held);
        }
        let mut separator = ": ";
        for (reason, packets) in &self.drops {
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{reason} {packets}");
            separator = ", ";
        }
        text.push('\n');
        text
    }
}

/// One line for the packet, one for its fate, one for each answer.
fn verdict_text(v: &Verdict) -> String {
    let seconds = std::time::Duration::from_nanos(v.at_ns).as_secs_f64();
    let mut text = format!(
        "{:>4} {seconds:>11.6}s {} ({}): {}\n",
        v.number, v.ingress, v.from, v.packet
    );
    let fate = match (v.verdict, &v.egress, &v.to) {
        (Fate::Forward, Some(egress), Some(to)) => format!("forward by {egress} ({to})"),
        (Fate::Forward, ..) => "forward".to_owned(),
        (Fate::Held, ..) => "held".to_owned(),
        (Fate::Drop, ..) => format!("drop, {}", v.reason.as_deref().unwrap_or("no reason")),
    };
    let rule = v.rule.as_deref().unwrap_or("?");
    let state = v
        .session
        .as_ref()
        .map(|s| format!(", {}", s.state))
        .unwrap_or_default();
    let by = match &*v.by {
        "layer2" => String::new(),
        "session" => format!(": session of rule \"{rule}\"{state}"),
        "related" => format!(": about a packet of a session of rule \"{rule}\"{state}"),
        "new_session" => format!(": rule \"{rule}\", new session{state}"),
        "rule" => format!(": rule \"{rule}\""),
        "implicit_drop" => ": no rule matches".to_owned(),
        // The reason says it all.
        _ => String::new(),
    };
    let _ = writeln!(text, "     -> {fate}{by}");
    // What a policy drop means is said already.
    let said = v.reason.as_deref() == Some("policy");
    if let Some(detail) = v.detail.as_deref().filter(|_| !said) {
        let _ = writeln!(text, "        {detail}");
    }
    for answer in &v.answers {
        let _ = writeln!(text, "     <- {answer}");
    }
    text
}
