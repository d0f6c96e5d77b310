//! A table that fills up: timeouts shrink, what is half open or one-way gives way, zones keep their reserve.

use haechi::base::{Generation, Nanos, PortId, RuleId, Tick};
use haechi::flow::{Direction, EvictionClass, FlowKey, KeyClass, Session, SessionState};

use crate::node::{ALLOW_ALL, Node};

fn udp(n: u32) -> String {
    format!("udp 10.0.{}.{}:1 > 192.0.2.7:53", n / 250, 1 + n % 250)
}

fn udp_reply(n: u32) -> String {
    format!("udp 192.0.2.7:53 > 10.0.{}.{}:1", n / 250, 1 + n % 250)
}

/// A connection of its own to the server, established.
fn tcp(node: &mut Node, n: u32) {
    let (client, server) = (format!("10.1.0.{n}:1000"), "192.0.2.7:80");
    for (port, packet) in [
        ("lan", format!("tcp {client} > {server} syn seq=100")),
        ("wan", format!("tcp {server} > {client} syn,ack seq=500 ack=101")),
        ("lan", format!("tcp {client} > {server} seq=101 ack=501")),
    ] {
        assert!(node.send(port, &packet).starts_with("to "), "{packet}");
    }
}

fn states(node: &Node) -> Vec<String> {
    let state = |line: &String| {
        let (flow, tail) = line.split_once(" by ").expect("a rule");
        assert!(!tail.is_empty());
        flow.rsplit(' ').next().expect("a state").to_owned()
    };
    let mut states: Vec<_> = node.sessions().iter().map(state).collect();
    states.sort();
    states
}

// -- Timeouts

#[test]
fn below_the_start_timeouts_have_their_length() {
    let mut node = Node::with_table(ALLOW_ALL, 100);
    for n in 0..60 {
        node.send("lan", &udp(n));
    }
    assert_eq!(node.engine.timeout_scale().ppm(), 1_000_000);
    assert_eq!((node.wait_secs(30), node.wait_secs(1)), (0, 60));
}

#[test]
fn between_start_and_end_timeouts_shrink_in_a_line() {
    let mut node = Node::with_table(ALLOW_ALL, 100);
    for n in 0..90 {
        node.send("lan", &udp(n));
    }
    // (120 - 90) / (120 - 60) of 30 s.
    assert_eq!(node.engine.timeout_scale().ppm(), 500_000);
    assert_eq!(node.wait(Nanos::from_millis(14_900)), 0);
    assert!(node.wait(Nanos::from_millis(600)) > 0);
    // Each that ends gives the others more time: after t seconds as many are left as have a timeout of t.
    for (secs, left) in [(20, 80), (25, 70), (29, 62)] {
        let idle = node.now.since(Nanos::from_secs(1000));
        node.wait(Nanos::from_secs(secs).since(idle));
        let len = i64::from(node.engine.table().len());
        assert!((len - left).abs() <= 1, "{len} after {secs} s");
    }
    node.wait_secs(2);
    assert_eq!(node.engine.table().len(), 0);
}

#[test]
fn at_the_end_nothing_idles() {
    let config = format!("[conntrack]\nadaptive_start = \"20%\"\nadaptive_end = \"90%\"\n{ALLOW_ALL}");
    let mut node = Node::with_table(&config, 100);
    for n in 0..100 {
        node.send("lan", &udp(n));
        node.send("wan", &udp_reply(n));
    }
    assert_eq!(node.engine.timeout_scale().ppm(), 0);
    node.wait(Nanos::SECOND);
    let left = node.engine.table().len();
    assert!(
        (85..90).contains(&left),
        "{left}: up to where the timeout is nothing"
    );
}

#[test]
fn an_apply_moves_start_and_end() {
    let mut node = Node::with_table(ALLOW_ALL, 100);
    for n in 0..60 {
        node.send("lan", &udp(n));
    }
    node.apply(&format!(
        "[conntrack]\nadaptive_start = \"0%\"\nadaptive_end = \"80%\"\n{ALLOW_ALL}"
    ));
    assert_eq!(node.engine.timeout_scale().ppm(), 250_000);
    assert_eq!(node.wait(Nanos::from_millis(7_400)), 0);
    assert!(node.wait(Nanos::SECOND) > 0);
    node.apply(ALLOW_ALL);
    assert_eq!(node.engine.timeout_scale().ppm(), 1_000_000);
    assert_eq!(node.wait_secs(21), 0);
}

fn key(n: u32) -> FlowKey {
    let mut low = [0; 16];
    low[10..12].fill(0xff);
    let mut high = low;
    low[12..].copy_from_slice(&(0x0a00_0000 | n).to_be_bytes());
    high[12..].copy_from_slice(&[192, 0, 2, 7]);
    FlowKey {
        low,
        high,
        low_port: 1024,
        high_port: 53,
        domain: 0,
        protocol: 17,
        class: KeyClass::Ports,
        reserved: 0,
    }
}

/// At the pace of a worker, in a table of 200,000: a session ends within a second and a half after its shrunk timeout. The
/// timeouts that sessions were linked by when the table was empty are four times as long.
#[test]
fn shrunk_timeouts_are_kept_at_a_worker_s_pace() {
    const CAPACITY: u32 = 200_000;
    const STEP: Nanos = Nanos::from_millis(10);
    const BUDGET: u32 = 128 * 200;
    let config = format!(
        "[conntrack]\nadaptive_start = \"10%\"\nadaptive_end = \"100%\"\n[conntrack.timeouts]\nudp_new = \"2m\"\n{ALLOW_ALL}"
    );
    let mut node = Node::with_table(&config, CAPACITY);
    let mut next = 0;
    let mut latest = Nanos(0);
    // 8,000 sessions a second for twenty seconds, then none.
    for step in 0..6_000_u32 {
        node.now = node.now.plus(STEP);
        for _ in 0..if step < 2_000 { 80 } else { 0 } {
            let mut session = Session::new(key(next), Direction::LowToHigh, SessionState::UdpNew);
            (session.generation, session.rule) = (Generation(1), RuleId(0));
            (session.ingress, session.egress) = (PortId(0), PortId(1));
            assert!(node.engine.adopt(session, Default::default(), node.now).is_some());
            next += 1;
        }
        node.upkeep(BUDGET);
        if step % 100 == 99 {
            let timeout = node
                .engine
                .timeout_scale()
                .ticks(Tick::count(Nanos::from_secs(120)));
            let mut oldest = 0;
            let _ = node.engine.table().scan(0, u32::MAX, |entry| {
                oldest = oldest.max(node.now.tick().distance(entry.session.last_seen()));
            });
            let late = Nanos(u64::from((oldest as u32).saturating_sub(timeout)) * Tick::NANOS);
            latest = latest.max(late);
        }
    }
    assert_eq!(next, 160_000);
    let left = node.engine.table().len();
    assert!(left < next, "{left}: the timeouts did shrink");
    assert!(latest < Nanos::from_millis(1_500), "{latest:?} late");
}

/// What the API says of a session is what happens to it.
#[test]
fn a_walk_is_over_when_nothing_changes() {
    let mut node = Node::with_table(ALLOW_ALL, 100);
    for n in 0..90 {
        node.send("lan", &udp(n));
    }
    node.wait(Nanos::from_secs(2));
    for _ in 0..10 {
        node.now = node.now.plus(Nanos::from_millis(200));
        assert!(!node.upkeep(1000).pending, "an idle worker may sleep");
    }
}

// -- Eviction

#[test]
fn half_open_then_one_way_then_ended_sessions_give_way() {
    let mut node = Node::with_table(ALLOW_ALL, 10);
    // One replied datagram flow, one established and one half-closed connection: they stay.
    node.send("lan", &udp(0));
    node.send("wan", &udp_reply(0));
    tcp(&mut node, 1);
    tcp(&mut node, 2);
    node.send("lan", "tcp 10.1.0.2:1000 > 192.0.2.7:80 fin seq=101 ack=501");
    // Over: reset.
    tcp(&mut node, 3);
    node.send("wan", "tcp 192.0.2.7:80 > 10.1.0.3:1000 rst seq=501");
    // One way: datagrams, echo, another protocol.
    node.send("lan", &udp(1));
    node.send("lan", "icmp 10.0.0.5 > 192.0.2.7 echo-request");
    node.send("lan", "proto/47 10.0.0.5 > 192.0.2.7");
    // Half open, the second one answered.
    for n in 1..=2 {
        node.send("lan", &format!("tcp 10.2.0.{n}:1 > 192.0.2.7:80 syn seq=1"));
    }
    node.send("wan", "tcp 192.0.2.7:80 > 10.2.0.2:1 syn,ack seq=1 ack=2");
    // And a one-way flow that came last.
    node.send("lan", &udp(2));
    let full = [
        "closed",
        "established",
        "fin_wait",
        "icmp",
        "other_new",
        "syn_received",
        "syn_sent",
        "udp_new",
        "udp_new",
        "udp_replied",
    ];
    assert_eq!(states(&node), full);
    let evicted = [
        "tcp 10.2.0.1:1 ",
        "tcp 10.2.0.2:1 ",
        "udp 10.0.0.2:1 ",
        "icmp 10.0.0.5",
        "proto/47 10.0.0.5 ",
        "udp 10.0.0.3:1 ",
        "tcp 10.1.0.3:1000 ",
    ];
    for (n, victim) in evicted.iter().enumerate() {
        let is_there = |node: &Node| node.sessions().iter().any(|line| line.starts_with(victim));
        assert!(is_there(&node), "{victim}");
        // Replied at once, so that what comes in is no victim itself.
        let n = 100 + n as u32;
        let moved = [
            ("received", 1),
            ("forwarded", 1),
            ("sessions_created", 1),
            ("sessions_ended", 1),
            ("sessions_evicted", 1),
            ("all packets", 1),
            ("all bytes", 28),
        ];
        node.changes(&moved, |node| {
            assert_eq!(node.send("lan", &udp(n)), "to wan: new session by all");
        });
        assert!(!is_there(&node), "{victim} was the one to go");
        assert_eq!(node.send("wan", &udp_reply(n)), "to lan: session");
    }
    node.changes(&[("received", 1), ("table_full", 1)], |node| {
        assert_eq!(node.send("lan", &udp(200)), "table_full: rule all");
    });
    let left = ["established", "fin_wait"].into_iter().chain(["udp_replied"; 8]);
    assert_eq!(states(&node), left.collect::<Vec<_>>());
}

#[test]
fn the_log_says_who_gave_way() {
    let rules = "[log]\nsessions = \"/s\"\n[[rule]]\nname = \"all\"\naction = \"allow\"\nlog = \"end\"\n";
    let mut node = Node::with_table(rules, 1).with_records(10);
    node.send("lan", &udp(1));
    assert_eq!(node.send("lan", &udp(2)), "to wan: new session by all");
    let records = node.records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert!(
        records[0].starts_with("end evicted by all: udp 10.0.0.2:1 > 192.0.2.7:53 "),
        "{records:?}"
    );
}

/// With one victim among established sessions it is found; the table is full only without.
#[test]
fn the_only_half_open_session_is_found() {
    let mut node = Node::with_table(ALLOW_ALL, 2_000);
    for n in 0..1_999 {
        node.send("lan", &udp(n));
        node.send("wan", &udp_reply(n));
    }
    let syn = |n: u32| format!("tcp 10.2.0.{n}:1 > 192.0.2.7:80 syn seq=1");
    assert_eq!(node.send("lan", &syn(1)), "to wan: new session by all");
    for n in 2..50 {
        assert_eq!(node.send("lan", &syn(n)), "to wan: new session by all");
        assert_eq!(node.engine.table().evictable(EvictionClass::HalfOpen), 1);
    }
    assert_eq!(node.counters()["sessions_evicted"], 48);
    assert_eq!(node.counters().get("table_full"), None);
}

/// A session that is evicted in a burst whose later packets belong to it: they are judged as if it had never been.
#[test]
fn packets_behind_an_eviction_in_the_same_burst() {
    let mut node = Node::with_table(ALLOW_ALL, 2);
    let packets: Vec<_> = [0, 1, 2, 0, 1].map(udp).into();
    let burst: Vec<_> = packets.iter().map(|packet| ("lan", packet.as_str())).collect();
    assert_eq!(node.send_all(&burst), ["to wan: new session by all"; 5]);
    assert_eq!(node.counters()["sessions_evicted"], 3);
    assert_eq!(node.engine.table().len(), 2);
}

#[test]
fn an_evicted_session_is_no_more_counted_for_its_source() {
    let rules =
        "[[rule]]\nname = \"all\"\naction = \"allow\"\nmax_sessions = 3\nmax_sessions_per_source = 1\n";
    let mut node = Node::with_table(rules, 2);
    for n in 0..20 {
        assert_eq!(node.send("lan", &udp(n)), "to wan: new session by all");
        assert_eq!(node.engine.sources(), [1 + (n as usize).min(1), 0]);
    }
}

/// The oldest half-open session of the port that has the most of them goes: a flood from one side gives way to itself.
#[test]
fn a_flood_gives_way_before_everybody_else() {
    let mut node = Node::with_table(ALLOW_ALL, 100);
    for n in 1..=5 {
        let syn = format!("tcp 10.1.0.{n}:1000 > 192.0.2.7:80 syn seq=100");
        assert_eq!(node.send("lan", &syn), "to wan: new session by all");
    }
    for n in 0..1_000 {
        let syn = format!("tcp 198.51.{}.{}:1 > 10.0.0.1:80 syn seq=1", n / 250, n % 250);
        assert_eq!(node.send("wan", &syn), "to lan: new session by all");
    }
    for n in 1..=5 {
        let syn_ack = format!("tcp 192.0.2.7:80 > 10.1.0.{n}:1000 syn,ack seq=500 ack=101");
        assert_eq!(node.send("wan", &syn_ack), "to lan: session");
    }
    assert_eq!(node.engine.table().half_open(), 100);
}

// -- Reserves

const RESERVE: &str = "[[zone]]\nname = \"lan\"\nreserve = \"5%\"\n";

/// Sessions both ways from outside, to different hosts inside, until one is refused; how many there were.
fn flood_from_wan(node: &mut Node, source: u32) -> u32 {
    for n in 0.. {
        let ends = format!("203.0.113.{source}:{} > 10.7.0.1:53", 1000 + n);
        let back = format!("10.7.0.1:53 > 203.0.113.{source}:{}", 1000 + n);
        match node.send("wan", &format!("udp {ends}")).as_str() {
            "to lan: new session by all" => {
                assert_eq!(node.send("lan", &format!("udp {back}")), "to wan: session");
            }
            other => {
                assert_eq!(other, "table_full: rule all");
                return n;
            }
        }
    }
    unreachable!("the table has an end");
}

/// A full table is no outage for the operator: a zone with a reserve gets its sessions while a flood from another zone, of
/// datagram flows both ways that nothing may evict, holds all the rest.
#[test]
fn the_operator_s_ssh_gets_its_session_in_a_full_table() {
    let mut node = Node::with_table(&format!("{RESERVE}{ALLOW_ALL}"), 100);
    assert_eq!(flood_from_wan(&mut node, 0), 95);
    for n in 1..=5 {
        tcp(&mut node, n);
        assert_eq!(
            flood_from_wan(&mut node, n),
            0,
            "nothing of the reserve is theirs"
        );
    }
    assert_eq!(
        node.send("lan", "tcp 10.1.0.6:1000 > 192.0.2.7:22 syn seq=100"),
        "table_full: rule all"
    );
    // What the zone gives back is its own again, and no one else's.
    node.wait_secs(301);
    assert_eq!(node.engine.table().len(), 5, "the connections");
    assert_eq!(flood_from_wan(&mut node, 0), 95);
    // Without a reserve there is no such room.
    let mut node = Node::with_table(ALLOW_ALL, 100);
    assert_eq!(flood_from_wan(&mut node, 0), 100);
    assert_eq!(
        node.send("lan", "tcp 10.1.0.6:1000 > 192.0.2.7:22 syn seq=100"),
        "table_full: rule all"
    );
}

/// One-way sessions of a zone within its reserve do not give way to others'; those above it do.
#[test]
fn what_stands_in_the_reserve_is_not_evicted_for_others() {
    let mut node = Node::with_table(&format!("{RESERVE}{ALLOW_ALL}"), 100);
    for n in 0..8 {
        assert!(node.send("lan", &udp(n)).starts_with("to wan"));
    }
    // 8 of lan, of which 3 above its reserve: the others take those, not the 5.
    assert_eq!(flood_from_wan(&mut node, 0), 95);
    assert_eq!(node.counters()["sessions_evicted"], 3);
    let of_lan: Vec<_> = node
        .sessions()
        .into_iter()
        .filter(|line| line.contains(" lan>wan "))
        .collect();
    assert_eq!(of_lan.len(), 5);
    // The zone's own new sessions evict its own old ones.
    for n in 100..110 {
        assert_eq!(node.send("lan", &udp(n)), "to wan: new session by all");
    }
    assert_eq!(node.counters()["sessions_evicted"], 13);
    assert_eq!(node.engine.table().len(), 100);
}

#[test]
fn half_open_sessions_of_others_make_room_for_the_reserve() {
    let mut node = Node::with_table(ALLOW_ALL, 100);
    let syn = |n: u32| format!("tcp 198.51.100.{n}:1 > 10.0.0.1:80 syn seq=1");
    for n in 0..100 {
        assert!(node.send("wan", &syn(n)).starts_with("to lan"));
    }
    // An apply finds no reserve in a full table: it makes one.
    node.apply(&format!("{RESERVE}{ALLOW_ALL}"));
    node.wait(Nanos::MILLISECOND);
    assert_eq!(
        (node.engine.table().len(), node.counters()["sessions_evicted"]),
        (95, 5)
    );
    assert!(node.send("wan", &syn(200)).starts_with("to lan"));
    assert_eq!(node.engine.table().len(), 95);
    for n in 1..=5 {
        tcp(&mut node, n);
    }
    assert_eq!(node.engine.table().len(), 100);
}

/// Two reserves, in random order and from both sides: neither zone is ever without room while it has not used its own.
#[test]
fn two_reserves_hold_whatever_comes() {
    let zones = "[[zone]]\nname = \"lan\"\nreserve = \"10%\"\n[[zone]]\nname = \"dmz\"\nreserve = \"20%\"\n";
    let mut node = Node::with_table(&format!("{zones}{ALLOW_ALL}"), 50);
    let mut random = 7_u64;
    let mut refused = 0;
    for n in 0..3_000_u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let pick = (random >> 33) % 8;
        let (port, peer, reserve) = [
            ("lan", "wan", 5),
            ("wan", "lan", 0),
            ("dmz", "net", 10),
            ("net", "dmz", 0),
        ][(pick % 4) as usize];
        let used = |node: &Node, port: &str| {
            let from = format!(" {port}>");
            node.sessions().iter().filter(|line| line.contains(&from)).count()
        };
        let before = used(&node, port);
        let (ip, sport) = (format!("10.{}.{}.1", n % 7, n % 5), 1 + n % 60_000);
        let verdict = node.send(port, &format!("udp {ip}:{sport} > 192.0.2.7:53"));
        if verdict.starts_with("table_full") {
            assert!(before >= reserve, "{port} has {before} of its {reserve}");
            refused += 1;
        } else if pick >= 4 {
            node.send(peer, &format!("udp 192.0.2.7:53 > {ip}:{sport}"));
        }
        let lacking = |port: &str, reserve: usize| reserve.saturating_sub(used(&node, port));
        let free = 50 - node.engine.table().len() as usize;
        assert!(free >= lacking("lan", 5) + lacking("dmz", 10), "step {n}");
        if random >> 60 == 0 {
            node.wait_secs(61);
        }
    }
    assert!(refused > 100, "{refused}");
}
