//! Two nodes, the network, the clients and the switches before them; what happens to them, and what has to hold at every step:
//!
//! - No packet is forwarded that the forwarding node's policy forbids, no answer to what nobody asked, and none by a node that does
//!   not lead.
//! - A connection that was established [`UNSYNCED`] before the last moment at which the standby was in sync and the link whole goes
//!   on at whoever leads next; a forwarding node never drops a packet of a connection that it has.
//! - Two leaders that hear each other: for [`TWO_LEADERS`] at most.
//! - Digests never differ but for accidents, and [`SETTLED`] after a change of roles: nothing gets lost that the protocol does not
//!   know of.
//! - No queue is above its bound.
//! - [`CALM`] after everything is healed one node leads, the other follows, each says that it is in sync, digests and tables are
//!   equal. Then the leader dies, and the connections go on.

use haechi::base::Nanos;
use haechi::engine::DropReason;
use haechi::ha::dispatch::Notice;
use haechi::ha::peer::RESERVE;
use haechi::ha::seal::PairKey;
use haechi::ha::stream::ITEMS;
use haechi::ha::{NodeId, Path, PeerConfig, Role};

use super::fault::Fault;
use super::ha_net::{Faults, Net, Random};
use super::middle::{Change, Middle, To};
use super::node::{Clock, Node, Plan, Verdict};
use super::policy::Variant;
use super::talk::{Packet, Talk};
use super::tally::Tally;

/// So old a connection has to be, that the standby surely knows of it while it is in sync: what was lost on the way twice was told
/// again by then.
const UNSYNCED: Nanos = Nanos::from_millis(1000);
/// So long two nodes may lead after the ways between them are whole.
const TWO_LEADERS: Nanos = Nanos::from_millis(1500);
/// So long after a node has changed its role, or started, digests may differ: what the one told the other did not want to hear.
const SETTLED: Nanos = Nanos::from_millis(1500);
/// So long things happen.
const TROUBLE: Nanos = Nanos::from_secs(15);
/// So long it takes at most until all is well when they are over.
const CALM: Nanos = Nanos::from_secs(12);
/// After the last leader's death.
const LAST: Nanos = Nanos::from_secs(2);

const TALKS: usize = 20;
const PENDING: usize = 24;
const WINDOW: u32 = 16;
const EVENTS: usize = 260;

pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) tally: Tally,
    /// A hash of everything that was sent and judged.
    pub(crate) trace: u64,
}

struct World {
    now: Nanos,
    random: Random,
    net: Net,
    middle: Option<Middle>,
    nodes: [Option<Node>; 2],
    configs: [PeerConfig; 2],
    variants: [Variant; 2],
    clocks: [Clock; 2],
    key: PairKey,
    fault: Option<Fault>,
    accidents: bool,
    lost_before: u64,
    talks: Vec<Talk>,
    clients_wait: bool,
    /// Whom the switches send packets to.
    view: Option<usize>,
    /// Connections that were established until then are known to each node.
    knows_until: [Nanos; 2],
    both_lead_since: Option<Nanos>,
    /// Comparisons of digests that were different, by each node's count.
    different: [u64; 2],
    roles_since: Nanos,
    cut_until: Option<Nanos>,
    whole_since: Nanos,
    witness: [bool; 2],
    unhealthy_until: [Nanos; 2],
    next_event: Nanos,
    steps: u64,
    tally: Tally,
    trace: u64,
    verbose: bool,
}

/// Runs a seed; with `verbose` it says what happens.
pub(crate) fn run(seed: u64, fault: Option<Fault>, verbose: bool) -> Outcome {
    let mut world = World::new(seed, fault, verbose);
    let violation = world.story().err();
    Outcome {
        violation: violation.map(|text| format!("at {:.3} s: {text}", world.now.0 as f64 / 1e9)),
        tally: world.tally,
        trace: world.trace,
    }
}

impl World {
    fn new(seed: u64, fault: Option<Fault>, verbose: bool) -> Self {
        let mut random = Random(seed ^ 0x5851_f42d_4c95_7f2d);
        let bytes = random.bytes();
        let key = PairKey::generate::<()>(|key| {
            key.copy_from_slice(&bytes);
            Ok(())
        })
        .expect("a key");
        let (witness, preempt) = (random.chance(80), random.chance(80));
        let workers = [[1, 2], [2, 1], [2, 3], [3, 1], [1, 3], [3, 2]][random.below(6) as usize];
        let config = |n: usize| {
            let mut config = PeerConfig::new(NodeId(1 + n as u8));
            config.election.priority = [150, 100][n];
            config.election.witness = witness;
            config.election.preempt = preempt.then_some(Nanos::from_millis(700));
            config.election.alone_after = Nanos::from_millis(1200);
            config.paths = vec![Path::Link, Path::Second];
            config.stream.window = WINDOW;
            config.stream.pending = PENDING;
            config.stream.sync_rate = 5_000;
            config.events = EVENTS;
            config.workers = workers[n];
            config
        };
        let change = match fault {
            Some(fault) if fault.is_on_the_way() => Some(Change::Fault(fault)),
            None if seed % 4 == 1 => Some(Change::Version2 {
                front: random.chance(128),
            }),
            _ => None,
        };
        let middle = change.map(|change| Middle::new(random.below(2) as usize, change, &key, random.next()));
        let now = Nanos::from_secs(1);
        let clock = Clock {
            began: now,
            zero: Nanos(0),
            drift: 0,
        };
        let mut world = Self {
            now,
            net: Net::new(random.next()),
            middle,
            nodes: [None, None],
            configs: [config(0), config(1)],
            variants: [Variant(0); 2],
            clocks: [clock; 2],
            key,
            fault,
            accidents: match fault {
                None => seed % 4 == 3,
                Some(fault) => fault == Fault::DigestsNotCompared,
            },
            lost_before: 0,
            talks: vec![],
            clients_wait: false,
            view: None,
            knows_until: [Nanos(0); 2],
            both_lead_since: None,
            different: [0; 2],
            roles_since: now,
            cut_until: None,
            whole_since: now,
            witness: [true; 2],
            unhealthy_until: [Nanos(0); 2],
            next_event: now.plus(Nanos::from_millis(1500 + random.below(2000))),
            steps: 0,
            tally: Tally::default(),
            trace: 0xcbf2_9ce4_8422_2325,
            verbose,
            random,
        };
        world.talks = (0..TALKS)
            .map(|place| Talk::new(place, now, &mut world.random))
            .collect();
        if world.middle.is_some() && fault.is_none() {
            world.tally.count("skew");
        }
        world
    }

    fn note(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:9.3} s  {}", self.now.0 as f64 / 1e9, text());
        }
    }

    // The story.

    fn story(&mut self) -> Result<(), String> {
        self.change_quality();
        self.start(0);
        if self.random.chance(220) {
            self.start(1);
        }
        let end = self.now.plus(TROUBLE);
        while self.now < end {
            if self.now >= self.next_event {
                self.event();
            }
            self.step()?;
        }
        self.heal_all();
        let end = self.now.plus(CALM);
        self.clients_wait = true;
        loop {
            self.step()?;
            let differs = if self.steps % 16 == 0 {
                self.differs()
            } else {
                Some(String::new())
            };
            match differs {
                None => break,
                Some(why) if self.now >= end && !why.is_empty() => return Err(why),
                Some(_) => {}
            }
        }
        self.say(|| "calm".into());
        if self.lost_before + self.accidents_so_far() > 0 {
            self.tally.count("divergence mended");
        }
        // What is known to be equal has to be worth it.
        let leader = (0..2)
            .find(|n| self.leads(*n))
            .expect("one leads when all is well");
        self.stop(leader);
        self.clients_wait = false;
        let end = self.now.plus(LAST);
        while self.now < end {
            self.step()?;
        }
        Ok(())
    }

    fn heal_all(&mut self) {
        self.say(|| "everything is healed".into());
        self.net.faults = Faults::NONE;
        self.heal();
        self.witness = [true; 2];
        for n in 0..2 {
            self.unhealthy_until[n] = Nanos(0);
            self.variants[n] = Variant(0);
            match &mut self.nodes[n] {
                None => self.start(n),
                Some(node) => {
                    node.stop_accidents();
                    node.stall(0, Nanos(0));
                    node.stall(1, Nanos(0));
                    node.stall(2, Nanos(0));
                    if node.variant != Variant(0) {
                        self.reload(n, Variant(0));
                    }
                }
            }
            if let Some(node) = &mut self.nodes[n] {
                node.stop_accidents();
                let local = node.clock.read(self.now);
                node.dispatch.set_ports(local, true);
            }
        }
    }

    fn event(&mut self) {
        let pause = 50 + self.random.below(900);
        self.next_event = self.now.plus(Nanos::from_millis(pause));
        let n = self.random.below(2) as usize;
        match self.random.below(20) {
            0 | 1 => self.stop(n),
            2..=5 => {
                for n in 0..2 {
                    if self.nodes[n].is_none() {
                        self.start(n);
                    }
                }
            }
            6..=8 => self.cut(),
            9 => self.heal(),
            10 | 11 => self.change_quality(),
            12 => {
                let variant = Variant(self.random.below(Variant::COUNT) as u8);
                self.reload(n, variant);
            }
            13 => {
                let variant = Variant(self.random.below(Variant::COUNT) as u8);
                self.reload(n, variant);
                self.reload(1 - n, variant);
            }
            14..=16 => self.switch_over(n),
            17 => self.stall(n),
            18 => self.unplug(n),
            _ => {
                self.witness[n] = !self.witness[n];
            }
        }
    }

    fn start(&mut self, n: usize) {
        let year = 365 * 24 * 3600;
        self.clocks[n] = Clock {
            began: self.now,
            zero: Nanos(self.random.below(year * 1_000_000_000)),
            drift: self.random.below(400) as i64 - 200,
        };
        let plan = Plan {
            config: self.configs[n].clone(),
            key: &self.key,
            clock: self.clocks[n],
            variant: self.variants[n],
            fault: self.fault,
            accidents: self.accidents,
        };
        self.nodes[n] = Some(Node::new(plan, self.now, &mut self.random));
        self.knows_until[n] = Nanos(0);
        (self.different[n], self.roles_since) = (0, self.now);
        self.say(|| format!("node {n} starts"));
    }

    /// As if by SIGKILL.
    fn stop(&mut self, n: usize) {
        let Some(node) = self.nodes[n].take() else { return };
        self.lost_before += node.accidents();
        if self.middle.as_ref().is_none_or(|middle| middle.node != n) {
            self.net.forget(n);
        }
        if self.view == Some(n) {
            self.view = None;
        }
        self.knows_until[n] = Nanos(0);
        self.tally.count("crash");
        self.say(|| format!("node {n} dies"));
    }

    fn cut(&mut self) {
        let ways = 1 + self.random.below(15);
        for (bit, (from, path)) in [
            (0, Path::Link),
            (1, Path::Link),
            (0, Path::Second),
            (1, Path::Second),
        ]
        .into_iter()
        .enumerate()
        {
            // Mostly both paths, so that somebody has to decide.
            if ways >> bit & 1 != 0 || ways > 9 {
                self.net.cut(from, path);
            }
        }
        let time = [40, 150, 400, 900, 2500][self.random.below(5) as usize];
        self.cut_until = Some(self.now.plus(Nanos::from_millis(time)));
        self.tally.count("cut");
        self.say(|| format!("ways {ways:04b} are cut for {time} ms"));
    }

    fn heal(&mut self) {
        self.net.heal();
        if self.cut_until.take().is_some() {
            self.whole_since = self.now;
        }
    }

    fn change_quality(&mut self) {
        let random = &mut self.random;
        let bad = random.chance(128);
        let jitter = if random.chance(100) {
            random.below(3_000)
        } else {
            0
        };
        self.net.faults = Faults {
            drop: if bad { random.below(26) as u8 } else { 0 },
            duplicate: if bad { random.below(30) as u8 } else { 0 },
            corrupt: if bad { random.below(8) as u8 } else { 0 },
            delay: Nanos(1000 * (50 + random.below(3_000))),
            jitter: Nanos(1000 * jitter),
        };
        let faults = self.net.faults;
        self.say(|| format!("{faults:?}"));
    }

    fn reload(&mut self, n: usize, variant: Variant) {
        self.variants[n] = variant;
        let Some(node) = &mut self.nodes[n] else { return };
        node.reload(self.now, variant);
        self.tally.count("reload");
        if self.view == Some(n) {
            self.excuse_refused(variant);
        }
        self.say(|| format!("node {n} has {variant:?}"));
    }

    fn excuse_refused(&mut self, variant: Variant) {
        for talk in &mut self.talks {
            talk.excused |= !variant.allows(talk.service);
        }
    }

    fn switch_over(&mut self, n: usize) {
        let Some(node) = &mut self.nodes[n] else { return };
        let local = node.clock.read(self.now);
        if node.dispatch.peer.switchover(local).is_ok() {
            self.tally.count("switchover");
            self.say(|| format!("the operator asks node {n} for a switchover"));
        }
    }

    fn stall(&mut self, n: usize) {
        let until = self.now.plus(Nanos::from_millis(100 + self.random.below(700)));
        let worker = self.random.below(3) as usize;
        if let Some(node) = &mut self.nodes[n] {
            node.stall(worker, until);
            self.tally.count("stall");
            self.say(|| format!("a worker of node {n} stands still"));
        }
    }

    fn unplug(&mut self, n: usize) {
        let Some(node) = &mut self.nodes[n] else { return };
        let local = node.clock.read(self.now);
        node.dispatch.set_ports(local, false);
        self.unhealthy_until[n] = self.now.plus(Nanos::from_millis(200 + self.random.below(1000)));
        self.tally.count("unhealthy");
        self.say(|| format!("a port of node {n} is down"));
    }

    fn leads(&self, n: usize) -> bool {
        self.nodes[n]
            .as_ref()
            .is_some_and(|node| node.dispatch.role().forwards())
    }

    fn is_whole(&self) -> bool {
        self.cut_until.is_none()
    }

    // A step.

    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        let step = 1_000_000 + self.random.below(5_000_000);
        self.now = self.now.plus(Nanos(step));
        if self.cut_until.is_some_and(|until| self.now >= until) {
            self.heal();
            self.say(|| "all ways are whole".into());
        }
        self.deliver();
        for n in 0..2 {
            self.turn(n)?;
        }
        self.follow_leader();
        self.clients()?;
        self.check()
    }

    fn deliver(&mut self) {
        while let Some(mut datagram) = self.net.take(self.now) {
            let tail = datagram.bytes.iter().rev().take(8);
            let tag = tail.fold(0, |tag, byte| tag << 8 | u64::from(*byte));
            self.note(tag ^ self.now.0);
            let to = datagram.to;
            match self.middle.as_mut().filter(|middle| middle.node == to) {
                None => self.hand(to, datagram.path, &mut datagram.bytes),
                Some(middle) => {
                    let out = middle.pass(
                        self.now,
                        To::Far,
                        datagram.path,
                        &mut datagram.bytes,
                        &mut self.tally,
                    );
                    self.spread(to, out);
                }
            }
        }
    }

    /// What the middle before node `near` makes of a datagram.
    fn spread(&mut self, near: usize, out: Vec<(To, Path, Vec<u8>)>) {
        for (to, path, mut bytes) in out {
            match to {
                To::Near => self.hand(near, path, &mut bytes),
                To::Far => self.net.send(self.now, near, path, &bytes),
            }
        }
    }

    fn hand(&mut self, to: usize, path: Path, bytes: &mut [u8]) {
        if let Some(node) = &mut self.nodes[to] {
            let local = node.clock.read(self.now);
            node.dispatch.peer.handle_datagram(local, path, bytes);
        }
    }

    fn turn(&mut self, n: usize) -> Result<(), String> {
        let Some(node) = &mut self.nodes[n] else {
            return Ok(());
        };
        let local = node.clock.read(self.now);
        if self.unhealthy_until[n].0 != 0 && self.now >= self.unhealthy_until[n] {
            self.unhealthy_until[n] = Nanos(0);
            node.dispatch.set_ports(local, true);
        }
        if node.dispatch.peer.next_timeout() <= local {
            node.dispatch.peer.handle_timeout(local);
        }
        node.dispatch.turn(local);
        node.turn_workers(self.now, &mut self.tally);
        node.dispatch.turn(local);
        let mut bytes = Vec::new();
        let mut sent = Vec::new();
        while let Some(path) = node.dispatch.peer.poll_transmit(local, &mut bytes) {
            sent.push((path, std::mem::take(&mut bytes)));
            if sent.len() > 200 {
                return Err(format!("node {n} sends without end"));
            }
        }
        let notices = node.dispatch.take_notices();
        for (path, mut bytes) in sent {
            match self.middle.as_mut().filter(|middle| middle.node == n) {
                None => self.net.send(self.now, n, path, &bytes),
                Some(middle) => {
                    let out = middle.pass(self.now, To::Near, path, &mut bytes, &mut self.tally);
                    self.spread(n, out);
                }
            }
        }
        for notice in notices {
            self.heed(n, &notice);
        }
        Ok(())
    }

    fn heed(&mut self, n: usize, notice: &Notice) {
        match notice {
            Notice::Role { from, to, why } => {
                self.note(*to as u64 + 1);
                self.roles_since = self.now;
                self.tally.count(change_of_role(*from, *to));
                self.say(|| format!("node {n}: {from:?} > {to:?}: {}", why.text()));
            }
            Notice::AskWitness(ask) if self.witness[n] => {
                self.tally.count("witness");
                if let Some(node) = &mut self.nodes[n] {
                    let local = node.clock.read(self.now);
                    node.dispatch.peer.witness_answered(local, *ask);
                }
            }
            other => self.say(|| format!("node {n}: {other:?}")),
        }
    }

    /// The switches send to whom they last heard.
    fn follow_leader(&mut self) {
        let leads = [self.leads(0), self.leads(1)];
        if leads == [true, true] {
            // Each may have what the other does not know of.
            self.talks.iter_mut().for_each(|talk| talk.excused = true);
            if self.random.chance(4) {
                self.view = self.view.map(|n| 1 - n);
            }
        }
        if self.view.is_none_or(|n| !leads[n]) {
            if let Some(n) = (0..2).find(|n| leads[*n]) {
                self.look_at(n);
            }
        }
        for n in 0..2 {
            let Some(node) = &self.nodes[n] else { continue };
            let local = node.clock.read(self.now);
            let serves = self.view == Some(n) && leads[n] && !leads[1 - n];
            let follows = node.dispatch.role() == Role::Standby
                && leads[1 - n]
                && self.is_whole()
                && !node.is_stalled(self.now)
                && self.nodes[1 - n]
                    .as_ref()
                    .is_some_and(|other| !other.is_stalled(self.now))
                && node.dispatch.peer.in_sync(local);
            if serves {
                self.knows_until[n] = self.now.plus(UNSYNCED);
            } else if follows {
                self.knows_until[n] = self.now;
            }
        }
    }

    fn look_at(&mut self, n: usize) {
        self.view = Some(n);
        let until = self.knows_until[n];
        for talk in &mut self.talks {
            if let Some(established) = talk.established {
                if established.plus(UNSYNCED) > until {
                    talk.excused = true;
                } else if !talk.excused {
                    talk.moved = true;
                }
            }
        }
        let variant = self.variants[n];
        self.excuse_refused(variant);
    }

    fn clients(&mut self) -> Result<(), String> {
        for place in 0..self.talks.len() {
            if self.now < self.talks[place].next_at || self.clients_wait {
                continue;
            }
            let mut talk = self.talks[place].clone();
            let as_sent = talk.clone();
            let packet = talk.next(self.now, &mut self.random);
            let verdict = match self.view {
                Some(n) => self.send(n, &talk, &packet)?,
                None => None,
            };
            match verdict {
                Some(Verdict::Forwarded) => {
                    if packet.must_pass && talk.moved {
                        talk.moved = false;
                        self.tally.count("clients: failover survived");
                    }
                    let before = talk.established;
                    talk.passed(self.now, &packet, &mut self.random);
                    if before.is_none() && talk.established.is_some() {
                        self.tally.count("clients: established");
                    }
                }
                _ => talk.lost(self.now, &mut self.random),
            }
            self.talks[place] = talk;
            // The switches flood now and then.
            if self.random.chance(20) {
                let other = self.view.map_or(0, |n| 1 - n);
                if !self.leads(other) {
                    self.send(other, &as_sent, &packet)?;
                }
            }
            if self.random.chance(6) {
                let blind = self.talks[place].blind(&mut self.random);
                for n in 0..2 {
                    if self.send_to(n, &blind) == Some(Verdict::Forwarded) {
                        return Err(format!("node {n} forwards an answer that nobody asked for"));
                    }
                }
            }
        }
        Ok(())
    }

    fn send_to(&mut self, n: usize, packet: &Packet) -> Option<Verdict> {
        let worker = self.random.below(3) as usize;
        let node = self.nodes[n].as_mut()?;
        let verdict = node.packet(
            self.now,
            worker,
            packet.port,
            packet.frame.clone(),
            &mut self.tally,
        );
        self.note(match verdict {
            Verdict::Forwarded => 1,
            Verdict::Dropped(reason) => 2 + reason as u64,
        });
        match verdict {
            Verdict::Forwarded if packet.is_reply => self.tally.count("verdict reply"),
            Verdict::Forwarded => self.tally.count("verdict forwarded"),
            Verdict::Dropped(DropReason::HaStandby) => self.tally.count("verdict ha_standby"),
            Verdict::Dropped(DropReason::Policy) => self.tally.count("verdict policy"),
            Verdict::Dropped(_) => self.tally.count("verdict other"),
        }
        Some(verdict)
    }

    /// A packet of a conversation at a node, and whether its verdict is right.
    fn send(&mut self, n: usize, talk: &Talk, packet: &Packet) -> Result<Option<Verdict>, String> {
        let verdict = self.send_to(n, packet);
        let Some(node) = &self.nodes[n] else {
            return Ok(None);
        };
        match verdict {
            Some(Verdict::Forwarded) => {
                if !self.variants[n].allows(talk.service) {
                    return Err(format!("node {n} forwards what its policy forbids: {talk:?}"));
                }
                if packet.is_reply && !talk.asked {
                    return Err(format!(
                        "node {n} forwards an answer that nobody asked for: {talk:?}"
                    ));
                }
                if !node.dispatch.role().forwards() && node.is_told() {
                    return Err(format!("node {n} is {:?}, and forwards", node.dispatch.role()));
                }
            }
            Some(Verdict::Dropped(DropReason::HaStandby)) | None => {}
            Some(Verdict::Dropped(reason)) => {
                let is_served = self.view == Some(n) && self.leads(n);
                if is_served && packet.must_pass {
                    let until = self.knows_until[n];
                    return Err(format!(
                        "node {n} drops ({}) a packet of what it has to know (until {until:?}): {talk:?}",
                        reason.name()
                    ));
                }
                if is_served && talk.established.is_some() {
                    self.tally.count("clients: lost to a forwarding node");
                }
            }
        }
        Ok(verdict)
    }

    // What has to hold.

    fn check(&mut self) -> Result<(), String> {
        let both = self.leads(0) && self.leads(1);
        self.both_lead_since = if both && self.is_whole() {
            self.both_lead_since.or(Some(self.now))
        } else {
            None
        };
        if self
            .both_lead_since
            .is_some_and(|since| self.now.since(since) >= TWO_LEADERS)
        {
            return Err("both nodes lead, and could hear each other".into());
        }
        if self.steps % 8 != 0 {
            return Ok(());
        }
        for n in 0..2 {
            let Some(node) = &self.nodes[n] else { continue };
            if let Some(overflow) = node.overflows() {
                return Err(format!("node {n}: {overflow}"));
            }
            let status = node.dispatch.peer.status(node.local(self.now));
            if status.held > PENDING + WINDOW as usize * ITEMS || status.events > EVENTS + RESERVE {
                return Err(format!(
                    "node {n}: {} held, {} events",
                    status.held, status.events
                ));
            }
            let before = std::mem::replace(&mut self.different[n], status.sender.different);
            let settled = self.now.since(self.roles_since) >= SETTLED;
            let is_explained = self.lost_before + self.accidents_so_far() > 0
                || self.fault.is_some_and(Fault::shows_otherwise);
            if status.sender.different > before && settled && !is_explained {
                return Err(format!(
                    "node {n}: its peer has other sessions, and nobody knows why: {:?}",
                    status.sender
                ));
            }
        }
        Ok(())
    }

    fn accidents_so_far(&self) -> u64 {
        self.nodes.iter().flatten().map(Node::accidents).sum()
    }

    /// Why all is not well; `None`: it is.
    fn differs(&self) -> Option<String> {
        let [Some(a), Some(b)] = &self.nodes else {
            return Some("a node does not run".into());
        };
        let (leader, follower) = match (a.dispatch.role(), b.dispatch.role()) {
            (Role::Leader, Role::Standby) => (a, b),
            (Role::Standby, Role::Leader) => (b, a),
            roles => return Some(format!("the nodes are {roles:?}")),
        };
        if !leader.forwards() || follower.forwards() {
            return Some("the workers do not do what their node is".into());
        }
        for node in [leader, follower] {
            let local = node.local(self.now);
            if !node.dispatch.peer.in_sync(local) {
                return Some(format!(
                    "a node is not in sync: {:?}",
                    node.dispatch.peer.status(local)
                ));
            }
        }
        let ([told, _], [_, heard]) = (leader.digests(), follower.digests());
        if told != heard {
            return Some("the digests differ".into());
        }
        let (of_leader, of_follower) = (leader.sessions(), follower.sessions());
        let missing = of_leader.iter().find(|session| !of_follower.contains(session));
        let left = of_follower.iter().find(|session| !of_leader.contains(session));
        (of_leader != of_follower).then(|| {
            format!(
                "{} and {} sessions; only at the leader: {missing:?}; only at the other: {left:?}",
                of_leader.len(),
                of_follower.len()
            )
        })
    }
}

fn change_of_role(from: Role, to: Role) -> &'static str {
    match (from, to) {
        (Role::Waiting, Role::Leader) => "role Waiting > Leader",
        (Role::Waiting, Role::Standby) => "role Waiting > Standby",
        (Role::Standby, Role::Leader) => "role Standby > Leader",
        (Role::Leader, Role::Standby) => "role Leader > Standby",
        (Role::Leader, Role::Isolated) => "role Leader > Isolated",
        (Role::Isolated, Role::Leader) => "role Isolated > Leader",
        (Role::Isolated, Role::Standby) => "role Isolated > Standby",
        _ => "role, another change",
    }
}
