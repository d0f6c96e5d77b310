//! Limits of a rule: how many sessions it may have, how many of them one source may have, and how fast.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use haechi::base::Nanos;

use crate::node::{ALLOW_ALL, Node};

fn rule(limits: &str) -> String {
    format!("[[rule]]\nname = \"all\"\naction = \"allow\"\n{limits}\n")
}

const REFUSED: [(&str, i64); 3] = [("all packets", 1), ("all bytes", 28), ("all limited", 1)];

/// What a refusal for `reason` moves.
fn refused(reason: &'static str) -> Vec<(&'static str, i64)> {
    [&[("received", 1), (reason, 1)], &REFUSED[..]].concat()
}

fn udp(source: u32, port: u32) -> String {
    format!("udp 10.0.0.{source}:{port} > 192.0.2.7:53")
}

#[test]
fn a_rule_has_at_most_its_sessions() {
    let mut node = Node::new(&rule("max_sessions = 3"));
    for source in 1..=3 {
        assert_eq!(node.send("lan", &udp(source, 1)), "to wan: new session by all");
    }
    node.changes(&refused("session_limit"), |node| {
        assert_eq!(node.send("lan", &udp(4, 1)), "session_limit: rule all");
    });
    // Those that stand go on; when one ends another may begin.
    assert_eq!(node.send("lan", &udp(1, 1)), "to wan: session");
    assert_eq!(node.wait_secs(31), 3);
    assert_eq!(node.send("lan", &udp(4, 1)), "to wan: new session by all");
}

#[test]
fn a_source_has_at_most_its_sessions() {
    let mut node = Node::new(&rule("max_sessions_per_source = 2"));
    for source in 1..=3 {
        for port in 1..=2 {
            assert_eq!(node.send("lan", &udp(source, port)), "to wan: new session by all");
        }
        node.changes(&refused("session_limit"), |node| {
            assert_eq!(node.send("lan", &udp(source, 3)), "session_limit: rule all");
        });
    }
    assert_eq!(node.engine.sources(), [3, 0]);
    // Both directions open: the limit is that of the opener.
    assert_eq!(
        node.send("wan", "udp 192.0.2.7:53 > 10.0.0.1:9"),
        "to lan: new session by all"
    );
    assert_eq!(node.wait_secs(31), 7);
    assert_eq!(node.engine.sources(), [0, 0]);
    assert_eq!(node.send("lan", &udp(1, 3)), "to wan: new session by all");
}

#[test]
fn addresses_of_ipv6_count_one_by_one() {
    let mut node = Node::new(&rule("max_sessions_per_source = 1"));
    let udp = |source: &str, port: u32| format!("udp [{source}]:{port} > [2001:db8::7]:53");
    assert!(node.send("lan", &udp("2001:db8:1::1", 1)).starts_with("to wan"));
    assert!(node.send("lan", &udp("2001:db8:1::2", 1)).starts_with("to wan"));
    assert_eq!(
        node.send("lan", &udp("2001:db8:1::1", 2)),
        "session_limit: rule all"
    );
}

#[test]
fn rules_count_their_sources_apart() {
    let limits = "max_sessions_per_source = 1";
    let mut node = Node::new(&format!(
        "[[rule]]\nname = \"dns\"\nservice = [\"udp/53\"]\naction = \"allow\"\n{limits}\n{}",
        rule(limits)
    ));
    let packets = ["udp 10.0.0.1:1 > 192.0.2.7:53", "udp 10.0.0.1:1 > 192.0.2.7:54"];
    assert_eq!(node.send("lan", packets[0]), "to wan: new session by dns");
    assert_eq!(node.send("lan", packets[1]), "to wan: new session by all");
    assert_eq!(
        node.send("lan", "udp 10.0.0.1:2 > 192.0.2.7:53"),
        "session_limit: rule dns"
    );
    assert_eq!(
        node.send("lan", "udp 10.0.0.1:2 > 192.0.2.7:54"),
        "session_limit: rule all"
    );
}

/// One second's worth at once, then the rate, whether or not the sessions still stand.
#[test]
fn a_source_opens_at_most_its_rate() {
    for kill in [false, true] {
        let mut node = Node::new(&rule("new_sessions_per_source = \"5/s\""));
        let mut port = 0;
        let mut open = |node: &mut Node, source: u32| {
            port += 1;
            let verdict = node.send("lan", &udp(source, port));
            if kill {
                let mut last = None;
                let _ = node
                    .engine
                    .table()
                    .scan(0, u32::MAX, |entry| last = Some(entry.id.ix));
                let now = node.now;
                last.into_iter().for_each(|ix| node.engine.kill(now, ix));
            }
            verdict
        };
        for _ in 0..5 {
            assert!(open(&mut node, 1).starts_with("to wan"));
        }
        assert_eq!(open(&mut node, 1), "rate_limit: rule all");
        assert!(open(&mut node, 2).starts_with("to wan"), "another source");
        node.wait(Nanos::from_millis(199));
        assert_eq!(open(&mut node, 1), "rate_limit: rule all");
        node.wait(Nanos::MILLISECOND);
        assert!(open(&mut node, 1).starts_with("to wan"));
        assert_eq!(open(&mut node, 1), "rate_limit: rule all");
        node.wait(Nanos::from_millis(400));
        assert!(open(&mut node, 1).starts_with("to wan"));
        assert!(open(&mut node, 1).starts_with("to wan"));
        assert_eq!(open(&mut node, 1), "rate_limit: rule all");
        // No more is saved up than the burst.
        node.wait_secs(25);
        for _ in 0..5 {
            assert!(open(&mut node, 1).starts_with("to wan"));
        }
        assert_eq!(open(&mut node, 1), "rate_limit: rule all");
        node.wait_secs(40);
        assert_eq!(node.engine.sources(), [0, 0]);
        assert_eq!(node.sessions(), [""; 0]);
    }
}

#[test]
fn two_packets_of_one_burst_count_as_two() {
    let mut node = Node::new(&rule("max_sessions_per_source = 2"));
    let packets: Vec<_> = [1, 2, 3, 1].map(|port| udp(1, port)).into();
    let packets: Vec<_> = packets.iter().map(|packet| ("lan", packet.as_str())).collect();
    assert_eq!(
        node.send_all(&packets),
        [
            "to wan: new session by all",
            "to wan: new session by all",
            "session_limit: rule all",
            "to wan: session"
        ]
    );
}

/// The connection is over, a new SYN takes its place: that is one session, not two.
#[test]
fn a_connection_that_is_opened_anew_takes_its_own_place() {
    let limits = "max_sessions = 1\nmax_sessions_per_source = 1";
    let mut node = crate::states::tcp_in(&rule(limits), "time_wait");
    let syn = format!("tcp {} syn seq=900000", crate::states::C);
    assert_eq!(node.send("lan", &syn), "to wan: new session by all");
    assert_eq!(node.engine.sources(), [1, 0]);
    assert_eq!(
        node.send("lan", "tcp 10.0.0.5:1235 > 192.0.2.7:80 syn"),
        "session_limit: rule all"
    );
}

#[test]
fn an_apply_counts_the_sessions_that_stand() {
    let mut node = Node::new(ALLOW_ALL);
    for port in 1..=4 {
        assert!(node.send("lan", &udp(1, port)).starts_with("to wan"));
    }
    node.apply(&rule("max_sessions_per_source = 3"));
    node.wait(Nanos::MILLISECOND);
    assert_eq!(node.engine.sources(), [1, 0]);
    // None of them ends; there are no more.
    assert_eq!(node.send("lan", &udp(1, 5)), "session_limit: rule all");
    for port in 1..=4 {
        assert_eq!(node.send("lan", &udp(1, port)), "to wan: session");
    }
    assert!(node.send("lan", &udp(2, 1)).starts_with("to wan"));
    // Without the limit nobody is counted but those who were, until they end.
    node.apply(ALLOW_ALL);
    assert!(node.send("lan", &udp(1, 5)).starts_with("to wan"));
    assert!(node.send("lan", &udp(3, 5)).starts_with("to wan"));
    node.apply(&rule("max_sessions_per_source = 6"));
    node.wait(Nanos::MILLISECOND);
    assert!(node.send("lan", &udp(1, 6)).starts_with("to wan"));
    assert_eq!(node.send("lan", &udp(1, 7)), "session_limit: rule all");
    assert_eq!(node.engine.sources(), [3, 0]);
    assert_eq!(node.wait_secs(31), 8);
    assert_eq!(node.engine.sources(), [0, 0]);
}

/// A session that another rule takes over is one more there: where there is no room, it ends.
#[test]
fn sessions_that_change_their_rule_keep_to_its_limits() {
    let moved = "[[rule]]\nname = \"dns\"\naction = \"allow\"\nmax_sessions = 3\nmax_sessions_per_source = 2\n\
        new_sessions_per_source = \"1/s\"\n";
    let mut node = Node::new(ALLOW_ALL);
    for (source, port) in [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)] {
        assert!(node.send("lan", &udp(source, port)).starts_with("to wan"));
    }
    node.apply(moved);
    // The rate is one for new sessions.
    assert_eq!(node.send("lan", &udp(1, 1)), "to wan: session");
    assert_eq!(node.send("lan", &udp(1, 2)), "to wan: session");
    let moves = [
        ("received", 1),
        ("session_limit", 1),
        ("sessions_ended", 1),
        ("all sessions", -1),
        ("dns packets", 1),
        ("dns bytes", 28),
        ("dns limited", 1),
    ];
    node.changes(&moves, |node| {
        assert_eq!(node.send("lan", &udp(1, 3)), "session_limit: rule dns");
    });
    assert_eq!(node.send("lan", &udp(2, 1)), "to wan: session");
    assert_eq!(node.send("lan", &udp(2, 2)), "session_limit: rule dns");
    assert_eq!(
        (
            node.counters()["dns sessions"],
            node.counters().get("all sessions")
        ),
        (3, None)
    );
    assert_eq!(node.engine.sources(), [2, 0]);
}

#[test]
fn copies_of_sessions_count_as_well() {
    let limits = rule("max_sessions_per_source = 2");
    let mut live = Node::new(&limits);
    for port in 1..=2 {
        live.send("lan", &udp(1, port));
    }
    let mut copy = Node::new(&limits);
    let mut sessions = vec![];
    let _ = live
        .engine
        .table()
        .scan(0, u32::MAX, |entry| sessions.push(*entry.session));
    for session in sessions {
        assert!(copy.engine.adopt(session, Default::default(), copy.now).is_some());
    }
    assert_eq!(copy.send("lan", &udp(1, 3)), "session_limit: rule all");
    assert_eq!(copy.wait_secs(31), 2);
    assert_eq!(copy.engine.sources(), [0, 0]);
}

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % u64::from(n)) as u32
    }
}

/// A rule as the oracle knows it.
#[derive(Clone, Copy)]
struct Rule {
    name: &'static str,
    /// Destination ports.
    ports: (u32, u32),
    sessions: Option<u64>,
    per_source: Option<u64>,
    per_second: Option<u64>,
}

const fn limited(
    name: &'static str,
    ports: (u32, u32),
    sessions: Option<u64>,
    per_source: Option<u64>,
    per_second: Option<u64>,
) -> Rule {
    Rule {
        name,
        ports,
        sessions,
        per_source,
        per_second,
    }
}

/// Policies that follow one another in any order: limits come, go and change, sessions go from rule to rule.
const POLICIES: [&[Rule]; 5] = [
    &[
        limited("a", (1000, 1499), Some(5), Some(2), None),
        limited("b", (1000, 1999), None, Some(3), Some(2)),
    ],
    &[limited("b", (1000, 1999), Some(6), Some(3), Some(2))],
    &[
        limited("a", (1000, 1499), None, None, None),
        limited("b", (1000, 1999), Some(4), None, None),
    ],
    &[
        limited("b", (1500, 1999), None, Some(1), None),
        limited("a", (1000, 1999), None, None, Some(4)),
    ],
    &[limited("a", (1000, 1499), Some(3), Some(1), Some(4))],
];

fn text(policy: &[Rule]) -> String {
    let key = |name: &str, value: Option<String>| value.map_or(String::new(), |v| format!("{name} = {v}\n"));
    let rule = |rule: &Rule| {
        format!(
            "[[rule]]\nname = \"{}\"\naction = \"allow\"\nservice = [\"udp/{}-{}\"]\n{}{}{}",
            rule.name,
            rule.ports.0,
            rule.ports.1,
            key("max_sessions", rule.sessions.map(|n| n.to_string())),
            key("max_sessions_per_source", rule.per_source.map(|n| n.to_string())),
            key(
                "new_sessions_per_source",
                rule.per_second.map(|n| format!("\"{n}/s\""))
            ),
        )
    };
    policy.iter().map(rule).collect()
}

/// Sessions counted one by one, buckets filled drop by drop.
struct Oracle {
    policy: usize,
    /// By flow (source, source port, destination port): its rule, and the policy that it was last asked under.
    sessions: BTreeMap<(IpAddr, u32, u32), (String, usize)>,
    /// By rule and source: a billionth of a token each, and when it was filled up.
    buckets: BTreeMap<(&'static str, IpAddr), (u64, Nanos)>,
    /// Counts applies: a session asked before the last one is asked again.
    applies: usize,
}

impl Oracle {
    fn rule(&self, port: u32) -> Option<Rule> {
        let rules = POLICIES[self.policy].iter();
        rules
            .copied()
            .find(|rule| (rule.ports.0..=rule.ports.1).contains(&port))
    }

    fn count(&self, rule: &str, source: Option<IpAddr>) -> u64 {
        let sessions = self.sessions.iter();
        sessions
            .filter(|((of, ..), (under, _))| under == rule && source.is_none_or(|source| source == *of))
            .count() as u64
    }

    fn refuses(&self, rule: &Rule, source: IpAddr) -> bool {
        rule.sessions
            .is_some_and(|most| self.count(rule.name, None) >= most)
            || rule
                .per_source
                .is_some_and(|most| self.count(rule.name, Some(source)) >= most)
    }

    /// What a packet of a flow meets, as far as its first word.
    fn judge(&mut self, flow: (IpAddr, u32, u32), now: Nanos) -> &'static str {
        let (source, _, port) = flow;
        let rule = self.rule(port);
        let applies = self.applies;
        if let Some((under, asked)) = self.sessions.get(&flow).cloned() {
            if asked == applies {
                return "to wan: session";
            }
            let Some(rule) = rule else {
                self.sessions.remove(&flow);
                return "policy";
            };
            if under != rule.name && self.refuses(&rule, source) {
                self.sessions.remove(&flow);
                return "session_limit";
            }
            self.sessions.insert(flow, (rule.name.to_owned(), applies));
            return "to wan: session";
        }
        let Some(rule) = rule else { return "policy" };
        if self.refuses(&rule, source) {
            return "session_limit";
        }
        if let Some(rate) = rule.per_second {
            const TOKEN: u64 = 1_000_000_000;
            let full = rate * TOKEN;
            let (level, filled) = self.buckets.entry((rule.name, source)).or_insert((full, now));
            *level = full.min(*level + now.since(*filled).0 * rate);
            *filled = now;
            if *level < TOKEN {
                return "rate_limit";
            }
            *level -= TOKEN;
        }
        self.sessions.insert(flow, (rule.name.to_owned(), applies));
        "to wan: new session"
    }
}

/// The table's sessions, to be counted by their rule and source.
fn in_table(node: &Node, names: &[&str]) -> BTreeMap<(IpAddr, u32, u32), String> {
    let mut found = BTreeMap::new();
    let _ = node.engine.table().scan(0, u32::MAX, |entry| {
        let key = &entry.session.key;
        let source = entry.session.source();
        let (port, other) = match source == key.low {
            true => (key.low_port, key.high_port),
            false => (key.high_port, key.low_port),
        };
        let flow = (
            Ipv6Addr::from(source).to_canonical(),
            u32::from(port),
            u32::from(other),
        );
        found.insert(flow, names[entry.session.rule.index()].to_owned());
    });
    found
}

/// Ten thousand steps of everything against counting by hand: the same verdicts, so that no limit is exceeded and none
/// refuses too early, and at the end nothing is counted that is not there.
#[test]
fn limits_are_exact_over_opens_ends_and_applies() {
    for seed in 0..4 {
        let mut random = Random(seed);
        let mut node = Node::new(&text(POLICIES[0]));
        let names = ["a", "b"];
        let mut oracle = Oracle {
            policy: 0,
            sessions: BTreeMap::new(),
            buckets: BTreeMap::new(),
            applies: 0,
        };
        for step in 0..2500 {
            match random.below(40) {
                0 => {
                    oracle.policy = random.below(POLICIES.len() as u32) as usize;
                    oracle.applies += 1;
                    node.apply(&text(POLICIES[oracle.policy]));
                    // A rate that changes is another one: a bucket never holds more than the rate.
                    oracle.buckets.clear();
                    node.wait_secs(2);
                }
                1 => {
                    let all: Vec<_> = oracle.sessions.keys().copied().collect();
                    let mut slots = vec![];
                    let _ = node
                        .engine
                        .table()
                        .scan(0, u32::MAX, |entry| slots.push(entry.id.ix));
                    if !all.is_empty() {
                        let killed = slots[random.below(slots.len() as u32) as usize];
                        node.engine.kill(node.now, killed);
                    }
                }
                2..=9 => {
                    node.wait(Nanos(u64::from(random.below(3_000)) * 1_000_000));
                }
                _ => {
                    let source = 1 + random.below(4);
                    let port = 1 + random.below(4);
                    let to = 1000 + 250 * random.below(4);
                    let packet = format!("udp 10.0.0.{source}:{port} > 192.0.2.7:{to}");
                    let address = IpAddr::from([10, 0, 0, source as u8]);
                    let expected = oracle.judge((address, port, to), node.now);
                    let verdict = node.send("lan", &packet);
                    let context = format!("seed {seed}, step {step}: {packet}: {verdict}, not {expected}");
                    assert!(verdict.starts_with(expected), "{context}");
                }
            }
            // What ended by itself is the table's business.
            let live = in_table(&node, &names);
            oracle.sessions.retain(|flow, _| live.contains_key(flow));
            let counted: BTreeMap<_, _> = oracle
                .sessions
                .iter()
                .map(|(flow, (rule, _))| (*flow, rule.clone()))
                .collect();
            assert_eq!(live, counted, "seed {seed}, step {step}");
            for (name, counters) in names.iter().zip(node.engine.rules()) {
                assert_eq!(
                    counters.sessions,
                    oracle.count(name, None),
                    "seed {seed}, step {step}"
                );
            }
        }
        node.wait_secs(40);
        assert_eq!(node.engine.table().len(), 0);
        assert_eq!(node.engine.sources(), [0, 0], "seed {seed}");
        assert_eq!(node.engine.counters().sources_full, 0);
    }
}
