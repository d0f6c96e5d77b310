//! Two elections, what passes between them, and the witness.

use haechi::base::Nanos;
use haechi::ha::{Election, ElectionConfig, Heartbeat, NodeId, Role, Why};

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

/// What a script does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Act {
    Start(usize),
    Crash(usize),
    /// Nothing that this node sends arrives.
    Cut(usize),
    Heal,
    /// Does the witness answer this node?
    Witness(usize, bool),
    Health(usize, bool),
    Switch(usize),
    Leave(usize),
    /// The process is stopped (SIGSTOP), and goes on.
    Stop(usize),
    Go(usize),
    /// One way, in milliseconds.
    Delay(u64),
    /// The nodes cannot get in sync.
    NoSync,
}

/// What the network does to heartbeats from now on; probabilities in 256ths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) drop: u8,
    pub(crate) duplicate: u8,
    /// At most, on top of the delay.
    pub(crate) jitter: Nanos,
}

struct Node {
    config: ElectionConfig,
    election: Option<Election>,
    start: u64,
    stopped: bool,
    witness: bool,
    healthy: bool,
    /// Its clock began so long before the other's.
    clock: u64,
    next_heartbeat: Nanos,
    said: Heartbeat,
    last_sent: u64,
    /// Of the peer's heartbeats: when, what it said, which start.
    heard: Option<(Nanos, Nanos, u64)>,
    /// It is in sync from then on.
    sync_at: Option<Nanos>,
    drained_at: Option<Nanos>,
    asked: u32,
    answers: Vec<(Nanos, u32)>,
    inbox: Vec<(Nanos, u64, Heartbeat)>,
}

pub(crate) struct Pair {
    pub(crate) now: Nanos,
    nodes: [Node; 2],
    cut: [bool; 2],
    delay: Nanos,
    pub(crate) faults: Faults,
    no_sync: bool,
    random: u64,
    /// When a role changed, whose, to what and why.
    pub(crate) changes: Vec<(Nanos, usize, Role, Why)>,
    /// Both nodes led, neither giving it up: from, to.
    pub(crate) two_leaders: Vec<(Nanos, Nanos)>,
}

/// How long a standby takes to get in sync, a leader to send everything, the witness to answer.
const SYNC: Nanos = Nanos::from_millis(100);
const DRAIN: Nanos = Nanos::from_millis(20);
const ANSWER: Nanos = Nanos::from_millis(5);

impl Pair {
    pub(crate) fn new(configs: [ElectionConfig; 2], seed: u64) -> Self {
        let node = |config, clock| Node {
            config,
            election: None,
            start: 0,
            stopped: false,
            witness: true,
            healthy: true,
            clock,
            next_heartbeat: Nanos(0),
            said: Heartbeat::default(),
            last_sent: 0,
            heard: None,
            sync_at: None,
            drained_at: None,
            asked: 0,
            answers: Vec::new(),
            inbox: Vec::new(),
        };
        let [a, b] = configs;
        Self {
            now: Nanos(0),
            // Clocks a year apart.
            nodes: [node(a, 1_000_000), node(b, 365 * 86_400 * 1_000_000_000)],
            cut: [false; 2],
            delay: Nanos(200_000),
            faults: Faults::default(),
            no_sync: false,
            random: seed,
            changes: Vec::new(),
            two_leaders: Vec::new(),
        }
    }

    /// splitmix64.
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn chance(&mut self, of_256: u8) -> bool {
        (self.random() as u8) < of_256
    }

    pub(crate) fn act(&mut self, act: Act) {
        let now = self.now;
        match act {
            Act::Start(n) => {
                let node = &mut self.nodes[n];
                node.start += 1;
                let local = Nanos(now.0 + node.clock);
                node.election = Some(Election::new(node.config, local));
                node.stopped = false;
                node.next_heartbeat = now;
                (node.heard, node.sync_at, node.drained_at, node.asked) = (None, None, None, 0);
                node.answers.clear();
                node.inbox.clear();
                self.with(n, |_, _| {});
                if !self.nodes[n].healthy {
                    self.act(Act::Health(n, false));
                }
            }
            Act::Crash(n) => self.nodes[n].election = None,
            Act::Cut(n) => self.cut[n] = true,
            Act::Heal => self.cut = [false; 2],
            Act::Witness(n, answers) => self.nodes[n].witness = answers,
            Act::Health(n, healthy) => {
                self.nodes[n].healthy = healthy;
                self.with(n, |election, local| election.set_health(local, healthy));
            }
            Act::Switch(n) => self.with(n, |election, local| {
                election.switchover(local).expect("a switchover")
            }),
            Act::Leave(n) => self.with(n, Election::leave),
            Act::Stop(n) => self.nodes[n].stopped = true,
            Act::Go(n) => self.nodes[n].stopped = false,
            Act::Delay(ms) => self.delay = Nanos::from_millis(ms),
            Act::NoSync => self.no_sync = true,
        }
    }

    /// Puts something to a running machine, and does as it says.
    fn with(&mut self, n: usize, input: impl FnOnce(&mut Election, Nanos)) {
        let now = self.now;
        let no_sync = self.no_sync;
        let node = &mut self.nodes[n];
        let Some(election) = node.election.as_mut() else {
            return;
        };
        let before = election.role();
        input(election, Nanos(now.0 + node.clock));
        if election.role() != before {
            self.changes.push((now, n, election.role(), election.why()));
            if before.forwards() {
                node.sync_at = None;
            }
        }
        // The stream's part, played: in sync some time after the peer is there.
        if !election.peer_alive() || no_sync {
            node.sync_at = None;
        } else if node.sync_at.is_none() {
            node.sync_at = Some(now.plus(SYNC));
        }
        match (election.drains_since(), node.drained_at) {
            (None, _) => node.drained_at = None,
            (Some(_), None) if !no_sync => node.drained_at = Some(now.plus(DRAIN)),
            _ => {}
        }
        if node.asked != election.asked() {
            node.asked = election.asked();
            if node.witness {
                node.answers.push((now.plus(ANSWER), node.asked));
            }
        }
        let mut said = Heartbeat::default();
        election.say(&mut said);
        if said != node.said {
            node.said = said;
            node.next_heartbeat = now;
        }
    }

    fn send(&mut self, from: usize) {
        let now = self.now;
        let node = &mut self.nodes[from];
        node.next_heartbeat = now.plus(node.config.heartbeat);
        let dead_time = node.config.dead_time();
        let mut heartbeat = node.said.clone();
        // No two of them say the same time.
        node.last_sent = (now.0 + node.clock).max(node.last_sent + 1);
        heartbeat.sent = Nanos(node.last_sent);
        if let Some((at, sent, _)) = node.heard.filter(|(at, _, _)| now.since(*at) < dead_time) {
            heartbeat.heard = sent.plus(now.since(at));
        }
        let start = node.start;
        if self.cut[from] || self.chance(self.faults.drop) {
            return;
        }
        let copies = 1 + u8::from(self.chance(self.faults.duplicate));
        for _ in 0..copies {
            let jitter = self.random() % (self.faults.jitter.0 + 1);
            let at = now.plus(self.delay).plus(Nanos(jitter));
            self.nodes[1 - from].inbox.push((at, start, heartbeat.clone()));
        }
    }

    /// When node `n` has something to do next.
    fn due(&self, n: usize) -> Nanos {
        let node = &self.nodes[n];
        let Some(election) = node.election.as_ref().filter(|_| !node.stopped) else {
            return Nanos(u64::MAX);
        };
        let timeout = Nanos(election.next_timeout().0.saturating_sub(node.clock));
        let inbox = node.inbox.iter().map(|m| m.0);
        let answers = node.answers.iter().map(|a| a.0);
        let sync = node.sync_at.filter(|at| *at > self.now);
        inbox
            .chain(answers)
            .chain(sync)
            .chain(node.drained_at)
            .chain([timeout, node.next_heartbeat])
            .fold(Nanos(u64::MAX), Nanos::min)
    }

    fn turn(&mut self, n: usize) {
        let now = self.now;
        // Of what came while the process was stopped, the oldest first.
        self.nodes[n].inbox.sort_by_key(|m| m.0);
        while self.nodes[n].inbox.first().is_some_and(|m| m.0 <= now) {
            let (_, start, heartbeat) = self.nodes[n].inbox.remove(0);
            let node = &mut self.nodes[n];
            if node
                .heard
                .is_some_and(|(_, sent, of)| (start, heartbeat.sent) < (of, sent))
            {
                continue;
            }
            if node.heard.is_some_and(|(_, _, of)| of != start) {
                node.sync_at = None;
            }
            if node.heard.is_none_or(|(_, _, of)| of != start) {
                // Who has just started is answered at once.
                node.next_heartbeat = now;
            }
            node.heard = Some((now, heartbeat.sent, start));
            self.with(n, |election, local| election.heard(local, start, &heartbeat));
        }
        let answers = std::mem::take(&mut self.nodes[n].answers);
        for (at, ask) in answers {
            if at <= now {
                self.with(n, |election, local| election.witness_answered(local, ask));
            } else {
                self.nodes[n].answers.push((at, ask));
            }
        }
        self.with(n, Election::tick);
        let synced = self.nodes[n].sync_at.is_some_and(|at| at <= now);
        self.with(n, |election, local| election.set_in_sync(local, synced));
        if self.nodes[n].drained_at.is_some_and(|at| at <= now) {
            self.nodes[n].drained_at = None;
            self.with(n, Election::drained);
        }
        if self.nodes[n].next_heartbeat <= now {
            self.send(n);
        }
    }

    /// Everything that is due up to a time, in milliseconds.
    pub(crate) fn run_until(&mut self, ms: u64) {
        let end = Nanos::from_millis(ms);
        loop {
            let next = [A, B].map(|n| self.due(n));
            let first = usize::from(next[B] < next[A]);
            if next[first] > end {
                break;
            }
            let at = self.now.max(next[first]);
            self.note_leaders(at);
            self.now = at;
            self.turn(first);
        }
        self.note_leaders(end);
        self.now = end;
    }

    /// Nothing changes until `until`.
    fn note_leaders(&mut self, until: Nanos) {
        let leads = |n: &Node| {
            let role = n.election.as_ref().filter(|_| !n.stopped).map(Election::role);
            role == Some(Role::Leader) && !n.said.yields
        };
        if until > self.now && self.nodes.iter().all(leads) {
            match self.two_leaders.last_mut() {
                Some((_, to)) if *to == self.now => *to = until,
                _ => self.two_leaders.push((self.now, until)),
            }
        }
    }

    pub(crate) fn role(&self, n: usize) -> Option<Role> {
        self.nodes[n].election.as_ref().map(Election::role)
    }

    /// One letter for each node.
    pub(crate) fn roles(&self) -> String {
        let letter = |n| match self.role(n) {
            None => '-',
            Some(Role::Waiting) => 'W',
            Some(Role::Standby) => 'S',
            Some(Role::Leader) => 'L',
            Some(Role::Isolated) => 'I',
            Some(Role::Active) => 'A',
        };
        [letter(A), letter(B)].iter().collect()
    }

    pub(crate) fn alive(&self, n: usize) -> bool {
        self.nodes[n].election.as_ref().is_some_and(Election::peer_alive)
    }
}

/// A of priority 200, B of 100.
pub(crate) fn configs() -> [ElectionConfig; 2] {
    let config = |node, priority| ElectionConfig {
        priority,
        ..ElectionConfig::new(NodeId(node))
    };
    [config(1, 200), config(2, 100)]
}
