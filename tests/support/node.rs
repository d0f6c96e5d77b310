//! One engine under a manual clock: frames in by port name, verdicts, counters and sessions out as plain text, so that a
//! test states the whole change and not one field of it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use haechi::base::slab::HeapMemory;
use haechi::base::{Generation, Nanos, PortId};
use haechi::config::{self, RuleIds};
use haechi::engine;
use haechi::engine::{
    Batch, DropReason, Engine, Event, IMPLICIT_DROP, MAX_BATCH, Note, Outputs, Place, RuleCounters, Upkeep,
    Why,
};
use haechi::flow::{Direction, Entry, FlowKey, HashSeed, KeyClass};
use haechi::packet::synth::PacketSpec;
use haechi::packet::{Malformed, PacketBuf, VecPacket};

/// Two pairs, lan-wan and dmz-net, each port in the zone of its name but `net`, which is `wan`'s.
pub const PORTS: [(&str, &str, &str); 4] = [
    ("lan", "lan", "wan"),
    ("wan", "wan", "lan"),
    ("dmz", "dmz", "net"),
    ("net", "wan", "dmz"),
];

/// A configuration: `head` goes before the ports (single keys and sections), `rules` behind them.
pub fn config(rules: &str) -> String {
    let mut text = String::from("version = 1\n[node]\nname = \"t\"\nmode = \"transparent\"\n");
    for (place, (name, zone, peer)) in PORTS.iter().enumerate() {
        text += &format!(
            "[[port]]\nname = \"{name}\"\ndevice = \"vdev:net_null{place}\"\nzone = \"{zone}\"\npeer = \"{peer}\"\n"
        );
    }
    text + rules
}

/// A rule that matches everything.
pub const ALLOW_ALL: &str = "[[rule]]\nname = \"all\"\naction = \"allow\"\n";

/// A flow as its opener sees it.
fn flow_text(key: &FlowKey, opener: Direction) -> String {
    let ends = [(key.low, key.low_port), (key.high, key.high_port)].map(|(address, port)| {
        let address = Ipv6Addr::from(address).to_canonical();
        match key.class {
            KeyClass::Addresses | KeyClass::IcmpFromLow | KeyClass::IcmpFromHigh => address.to_string(),
            _ => format!("{address}:{port}"),
        }
    });
    let opener = opener.index();
    let protocol = match key.protocol {
        1 => String::from("icmp"),
        6 => String::from("tcp"),
        17 => String::from("udp"),
        58 => String::from("icmpv6"),
        other => format!("proto/{other}"),
    };
    let vlan = match key.domain & 0x00ff_ffff {
        0 => String::new(),
        id => format!(" vlan {:x}", id),
    };
    format!("{protocol} {} > {}{vlan}", ends[opener], ends[1 - opener])
}

fn port_id(name: &str) -> PortId {
    let place = PORTS.iter().position(|(port, ..)| *port == name);
    PortId(place.expect("a port of this node") as u16)
}

fn port_name(port: PortId) -> &'static str {
    PORTS[port.index()].0
}

/// A frame from its description.
#[track_caller]
pub fn frame(text: &str) -> Vec<u8> {
    text.parse::<PacketSpec>()
        .unwrap_or_else(|e| panic!("{text}: {e}"))
        .frame()
}

/// Collects verdicts as text.
#[derive(Default)]
struct Record {
    /// By place in the batch.
    verdicts: BTreeMap<usize, String>,
    order: Vec<usize>,
    /// Fragments that are held from now on: number and place in the batch.
    held: Vec<(u64, usize)>,
    /// Verdicts of fragments that were held, by number, in order.
    released: Vec<(u64, String)>,
    forwarded: Vec<(Place, String, Vec<u8>)>,
    originated: Vec<(String, Vec<u8>)>,
    /// Buffers that the engine may still have; `None`: as many as it wants.
    buffers: Option<usize>,
    rules: Vec<String>,
}

impl Record {
    fn note(&mut self, verdict: String, note: Note) {
        let why = match note.why {
            Why::Layer2 => String::from("layer 2"),
            Why::Session(_) => String::from("session"),
            Why::Related(_) => String::from("related"),
            Why::NewSession(_, rule) => format!("new session by {}", self.rules[rule as usize]),
            Why::Rule(Some(rule)) => format!("rule {}", self.rules[rule as usize]),
            Why::Rule(None) => String::from("no rule"),
            Why::Elsewhere => String::from("elsewhere"),
        };
        let verdict = format!("{verdict}: {why}");
        match note.place {
            Place::Batch(place) => self.say(place, verdict),
            Place::Held(number) => self.released.push((number, verdict)),
        }
    }

    fn say(&mut self, place: usize, verdict: String) {
        let twice = self.verdicts.insert(place, verdict);
        assert_eq!(twice, None, "a second verdict for packet {place}");
        self.order.push(place);
    }
}

impl Outputs<VecPacket> for Record {
    fn forward(&mut self, packet: VecPacket, to: PortId, note: Note) {
        self.note(format!("to {}", port_name(to)), note);
        self.forwarded
            .push((note.place, port_name(to).to_owned(), packet.frame));
    }
    fn hold(&mut self, number: u64, place: usize) {
        self.say(place, String::from("held"));
        self.held.push((number, place));
    }
    fn drop(&mut self, _: VecPacket, reason: DropReason, note: Note) {
        self.note(reason.name().to_owned(), note);
    }
    fn answer(&mut self, packet: VecPacket, to: PortId, reason: DropReason, note: Note) {
        self.note(reason.name().to_owned(), note);
        self.originate(packet, to);
    }
    fn buffer(&mut self) -> Option<VecPacket> {
        if let Some(left) = &mut self.buffers {
            *left = left.checked_sub(1)?;
        }
        Some(VecPacket::default())
    }
    fn originate(&mut self, packet: VecPacket, to: PortId) {
        self.originated.push((port_name(to).to_owned(), packet.frame));
    }
}

/// An engine and its clock.
pub struct Node {
    pub engine: Engine,
    pub now: Nanos,
    ids: RuleIds,
    generation: u32,
    /// Packets that the engine made since they were last taken.
    pub originated: Vec<(String, Vec<u8>)>,
    /// Frames that left since they were last taken.
    pub forwarded: Vec<(String, Vec<u8>)>,
    /// Fragments that the engine holds, by their number: where each came in, and its frame.
    pub holds: BTreeMap<u64, (&'static str, Vec<u8>)>,
    /// Verdicts of fragments that were held, since they were last taken, in order.
    pub released: Vec<String>,
    /// See `Record`.
    pub buffers: Option<usize>,
    /// There are proxied sessions: what is forwarded may have been rewritten.
    pub rewrites: bool,
}

impl Node {
    #[track_caller]
    pub fn new(rules: &str) -> Self {
        Self::with_table(rules, 1000)
    }

    #[track_caller]
    pub fn with_table(rules: &str, max_sessions: u32) -> Self {
        Self::of_text(&config(rules), max_sessions)
    }

    /// Of a whole configuration, which has the ports of [`config`].
    #[track_caller]
    pub fn of_text(text: &str, max_sessions: u32) -> Self {
        let mut ids = RuleIds::new();
        let config = config::load_text("test.toml", text).unwrap_or_else(|e| panic!("{e}"));
        let policy = config::compile(&config, Generation(1), &mut ids).expect("a policy");
        let engine = Engine::new(
            max_sessions,
            Arc::new(policy),
            &HeapMemory,
            HashSeed([1, 2, 3, 4]),
        )
        .expect("memory");
        Self {
            engine,
            now: Nanos::from_secs(1000),
            ids,
            generation: 1,
            originated: vec![],
            forwarded: vec![],
            holds: BTreeMap::new(),
            released: vec![],
            buffers: None,
            rewrites: false,
        }
    }

    /// One of the two nodes of a pair: it stands by.
    pub fn paired(mut self, setup: &engine::PairSetup) -> Self {
        self.engine = self.engine.with_pair(setup, &HeapMemory).expect("memory");
        self
    }

    /// Takes what the other node of its pair says.
    pub fn hear(&mut self, news: &haechi::flow::table::News, yields: bool) {
        let mut record = Record::default();
        self.engine.take_news(self.now, news, yields, &mut record);
        self.account(record, &[]);
    }

    /// Has it say what it has to say in the name of hosts; by port.
    pub fn announce(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut record = Record::default();
        while self.engine.announce(self.now, &mut record) {
            self.now = self.now.plus(Nanos::MILLISECOND);
        }
        let said = record.originated.clone();
        self.account(record, &[]);
        self.originated.clear();
        said
    }

    /// With room for so many records of what its rules log.
    pub fn with_records(mut self, capacity: usize) -> Self {
        self.engine = self.engine.with_records(capacity, true);
        self
    }

    /// Takes the records that wait: event, rule, flow as its opener or sender sees it, ports, and of sessions the state, packets,
    /// bytes and how many milliseconds they lasted.
    pub fn records(&mut self) -> Vec<String> {
        let records: Vec<engine::Record> = std::iter::from_fn(|| self.engine.next_record()).collect();
        assert_eq!(self.engine.records(), 0);
        records.iter().map(|record| self.record(record)).collect()
    }

    fn record(&self, record: &engine::Record) -> String {
        let event = match record.event {
            Event::Start(_) => String::from("start"),
            Event::End(reason, _) => format!("end {}", reason.name()),
            Event::Alert(alert) => format!("alert {} {:?}", alert.reason.name(), alert.action),
        };
        let rest = match record.event {
            Event::Start(a) | Event::End(_, a) => format!(
                "{} {:?} {:?} after {} ms{}",
                a.state.name(),
                a.packets,
                a.bytes,
                record.at.since(a.created).0 / 1_000_000,
                match a.resets {
                    None => String::new(),
                    Some(told) => format!(", reset {told:?}"),
                }
            ),
            Event::Alert(alert) => format!("{} bytes, {} left out", alert.bytes, alert.suppressed),
        };
        format!(
            "{event} by {}: {} {}>{} {rest}",
            self.ids.name(record.rule).unwrap_or("?"),
            flow_text(&record.key, record.opener),
            port_name(record.ingress),
            port_name(record.egress),
        )
    }

    /// Applies another configuration.
    #[track_caller]
    pub fn apply(&mut self, rules: &str) {
        self.generation += 1;
        let config = config::load_text("test.toml", &config(rules)).unwrap_or_else(|e| panic!("{e}"));
        let policy = config::compile(&config, Generation(self.generation), &mut self.ids).expect("a policy");
        drop(self.engine.set_policy(Arc::new(policy)));
    }

    /// Lets time pass, with upkeep as a worker does it.
    pub fn wait(&mut self, time: Nanos) -> u32 {
        self.now = self.now.plus(time);
        let mut expired = 0;
        loop {
            let upkeep = self.upkeep(10_000);
            expired += upkeep.expired;
            if upkeep.lag == Nanos(0) {
                return expired;
            }
        }
    }

    /// Takes over what a call of the engine did; checks that held fragments are released once and unchanged, and that nothing is
    /// lost.
    #[track_caller]
    fn account(&mut self, record: Record, packets: &[(&str, VecPacket)]) {
        for (number, place) in &record.held {
            let (port, packet) = &packets[*place];
            let held = (port_name(port_id(port)), packet.frame.clone());
            assert_eq!(self.holds.insert(*number, held), None, "a number is given once");
        }
        for (place, to, frame) in &record.forwarded {
            let (from, came) = match place {
                Place::Batch(place) => (packets[*place].0, packets[*place].1.bytes()),
                Place::Held(number) => (self.holds[number].0, &*self.holds[number].1),
            };
            assert!(frame == came || self.rewrites, "forwarded frames are unchanged");
            let (.., peer) = PORTS[port_id(from).index()];
            assert_eq!(to, peer, "by the other port of the pair");
        }
        for (number, _) in &record.released {
            assert!(
                self.holds.remove(number).is_some(),
                "what was held is released once"
            );
        }
        let counters = self.engine.counters();
        assert_eq!(self.engine.held(), self.holds.len() as u64, "held");
        assert_eq!(
            counters.received,
            counters.forwarded + counters.dropped() + self.engine.held(),
            "nothing is lost"
        );
        assert_eq!(
            counters.malformed.iter().sum::<u64>(),
            counters.drops[DropReason::Malformed.index()]
        );
        self.released
            .extend(record.released.into_iter().map(|(_, verdict)| verdict));
        self.forwarded
            .extend(record.forwarded.into_iter().map(|(_, to, frame)| (to, frame)));
        self.originated.extend(record.originated);
    }

    /// Stops, as a worker does.
    pub fn stop(&mut self) {
        let mut record = Record::default();
        self.engine.drop_fragments(&mut record);
        self.account(record, &[]);
    }

    /// Upkeep once.
    pub fn upkeep(&mut self, budget: u32) -> Upkeep {
        let mut record = Record {
            buffers: self.buffers,
            ..Record::default()
        };
        let upkeep = self.engine.upkeep(self.now, budget, &mut record);
        self.buffers = record.buffers;
        assert!(record.order.is_empty(), "no packet came");
        self.account(record, &[]);
        upkeep
    }

    pub fn wait_secs(&mut self, secs: u64) -> u32 {
        self.wait(Nanos::from_secs(secs))
    }

    /// One burst of whole frames; the verdict of each. Checks what holds of every burst: each packet has one verdict, in
    /// order, what is forwarded is unchanged, and the counters balance.
    #[track_caller]
    pub fn burst(&mut self, packets: &[(&str, VecPacket)]) -> Vec<String> {
        assert!(packets.len() <= MAX_BATCH);
        let before = self.engine.counters().clone();
        let mut batch = Batch::new();
        for (port, packet) in packets {
            batch
                .try_push(packet.clone(), port_id(port))
                .expect("there is room");
        }
        let mut record = Record {
            buffers: self.buffers,
            rules: self
                .engine
                .policy()
                .rules
                .iter()
                .map(|rule| rule.name.clone())
                .collect(),
            ..Record::default()
        };
        self.engine.process(self.now, &mut batch, &mut record);
        self.buffers = record.buffers;
        assert!(batch.is_empty(), "the batch is left empty");
        assert_eq!(
            record.order,
            (0..packets.len()).collect::<Vec<_>>(),
            "one verdict each, in order"
        );
        let after = self.engine.counters();
        assert_eq!(after.received - before.received, packets.len() as u64);
        assert_eq!(after.forwarded - before.forwarded, record.forwarded.len() as u64);
        assert_eq!(
            after.originated - before.originated,
            record.originated.len() as u64
        );
        assert_eq!(
            after.sessions_created + after.sessions_synced_in
                - after.sessions_ended
                - after.sessions_synced_out,
            u64::from(self.engine.table().len()),
            "sessions made and ended"
        );
        let of_rules: u64 = self.rules().iter().map(|rule| rule.sessions).sum();
        assert_eq!(
            of_rules,
            u64::from(self.engine.table().len()),
            "every session has its rule"
        );
        let verdicts = std::mem::take(&mut record.verdicts).into_values().collect();
        self.account(record, packets);
        verdicts
    }

    /// One frame alone.
    #[track_caller]
    pub fn frame(&mut self, port: &str, frame: &[u8]) -> String {
        self.burst(&[(port, VecPacket::new(frame))]).remove(0)
    }

    /// One packet alone, by its description.
    #[track_caller]
    pub fn send(&mut self, port: &str, text: &str) -> String {
        self.frame(port, &frame(text))
    }

    /// Packets in one burst, by their descriptions.
    #[track_caller]
    pub fn send_all(&mut self, packets: &[(&str, &str)]) -> Vec<String> {
        let packets: Vec<_> = packets
            .iter()
            .map(|(port, text)| (*port, VecPacket::new(frame(text))))
            .collect();
        self.burst(&packets)
    }

    /// Counters of the rules that there are, out of the 65,536 that there could be.
    pub fn rules(&self) -> &[RuleCounters] {
        &self.engine.rules()[..self.ids.len()]
    }

    /// The sessions, sorted: flow as its opener sees it, state, rule, ports, packets, bytes and idle milliseconds.
    pub fn sessions(&self) -> Vec<String> {
        let mut sessions = vec![];
        let end = self
            .engine
            .table()
            .scan(0, u32::MAX, |entry| sessions.push(self.session(&entry)));
        assert_eq!(end, None);
        sessions.sort();
        assert_eq!(sessions.len(), self.engine.table().len() as usize);
        sessions
    }

    fn session(&self, entry: &Entry<'_>) -> String {
        let session = entry.session;
        format!(
            "{} {} by {} {}>{} packets {:?} bytes {:?}",
            flow_text(&session.key, session.opener),
            session.state().name(),
            self.ids.name(session.rule).unwrap_or("?"),
            port_name(session.ingress),
            port_name(session.egress),
            entry.packets,
            session.bytes(),
        )
    }

    /// Every counter that is not 0, by name: of the engine, of drops, of malformed packets, of rules.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let counters = self.engine.counters();
        let mut all = BTreeMap::from([
            (String::from("received"), counters.received),
            (String::from("forwarded"), counters.forwarded),
            (String::from("originated"), counters.originated),
            (String::from("rejects_suppressed"), counters.rejects_suppressed),
            (String::from("timeout_resets"), counters.timeout_resets),
            (
                String::from("timeout_resets_missed"),
                counters.timeout_resets_missed,
            ),
            (String::from("log_records_lost"), counters.log_records_lost),
            (String::from("fragments"), counters.fragments),
            (
                String::from("fragments_reassembled"),
                counters.fragments_reassembled,
            ),
            (String::from("held"), self.engine.held()),
            (String::from("syn_cookies_sent"), counters.syn_cookies_sent),
            (
                String::from("syn_cookies_accepted"),
                counters.syn_cookies_accepted,
            ),
            (String::from("syn_retries_lost"), counters.syn_retries_lost),
            (String::from("sessions_created"), counters.sessions_created),
            (String::from("sessions_ended"), counters.sessions_ended),
            (String::from("sessions_evicted"), counters.sessions_evicted),
            (String::from("sources_full"), counters.sources_full),
            (String::from("sessions_synced_in"), counters.sessions_synced_in),
            (String::from("sessions_synced_out"), counters.sessions_synced_out),
            (String::from("sync_refused"), counters.sync_refused),
        ]);
        for reason in DropReason::ALL {
            all.insert(reason.name().to_owned(), counters.drops[reason.index()]);
        }
        for malformed in Malformed::ALL {
            all.insert(
                format!("malformed {}", malformed.name()),
                counters.malformed[*malformed as usize],
            );
        }
        for id in 0..self.ids.len() {
            let rule = &self.engine.rules()[id];
            let name = self.ids.name(haechi::base::RuleId(id as u32)).unwrap_or("?");
            all.insert(format!("{name} sessions"), rule.sessions);
            all.insert(format!("{name} packets"), rule.packets);
            all.insert(format!("{name} bytes"), rule.bytes);
            all.insert(format!("{name} limited"), rule.limited);
        }
        let none = &self.engine.rules()[IMPLICIT_DROP.index()];
        all.insert(String::from("no rule packets"), none.packets);
        all.insert(String::from("no rule bytes"), none.bytes);
        all.retain(|_, value| *value != 0);
        all
    }

    /// Asserts every counter that is not 0.
    #[track_caller]
    pub fn counted(&self, expected: &[(&str, u64)]) {
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        assert_eq!(self.counters(), expected);
    }

    /// Runs `change`; asserts by how much which counters moved (gauges may fall).
    #[track_caller]
    pub fn changes<T>(&mut self, expected: &[(&str, i64)], change: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.counters();
        let result = change(self);
        let after = self.counters();
        let mut moved = BTreeMap::new();
        for name in before.keys().chain(after.keys()) {
            let value = |of: &BTreeMap<String, u64>| of.get(name).copied().unwrap_or(0) as i64;
            if value(&before) != value(&after) {
                moved.insert(name.clone(), value(&after) - value(&before));
            }
        }
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        assert_eq!(moved, expected, "counters moved by");
        result
    }
}
