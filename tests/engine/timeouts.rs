//! Every timeout ends its sessions at its second, a rule's own before the general one; what keeps a session alive; and a
//! million sessions end in time.

use haechi::base::slab::HeapMemory;
use haechi::base::{Nanos, Tick};
use haechi::engine::Upkeep;
use haechi::flow::{
    Direction, Due, FlowKey, HashSeed, KeyClass, Session, SessionState, SessionTable, StateTimeouts,
};

use crate::node::Node;
use crate::states::{C, S, state_of, tcp_in};

/// A key of `[conntrack.timeouts]`, its default in seconds, and a state that idles by it.
const ENTRIES: [(&str, u64, &str); 15] = [
    ("tcp_syn_sent", 30, "syn_sent"),
    ("tcp_syn_received", 30, "syn_sent2"),
    ("tcp_syn_received", 30, "syn_received"),
    ("tcp_established", 7440, "established"),
    ("tcp_established", 7440, "close_wait"),
    ("tcp_closing", 240, "fin_wait"),
    ("tcp_closing", 240, "closing"),
    ("tcp_closing", 240, "last_ack"),
    ("tcp_time_wait", 45, "time_wait"),
    ("tcp_closed", 10, "closed"),
    ("udp_new", 30, "udp_new"),
    ("udp_replied", 300, "udp_replied"),
    ("icmp", 30, "icmp"),
    ("other", 600, "other_new"),
    ("other", 600, "other_replied"),
];

fn in_state(config: &str, state: &str) -> Node {
    let packets: &[(&str, &str)] = match state {
        "udp_new" => &[("lan", "udp 10.0.0.5:1 > 192.0.2.7:2")],
        "udp_replied" => &[
            ("lan", "udp 10.0.0.5:1 > 192.0.2.7:2"),
            ("wan", "udp 192.0.2.7:2 > 10.0.0.5:1"),
        ],
        "icmp" => &[("lan", "icmp 10.0.0.5 > 192.0.2.7 echo-request")],
        "other_new" => &[("lan", "proto/47 10.0.0.5 > 192.0.2.7")],
        "other_replied" => &[
            ("lan", "proto/47 10.0.0.5 > 192.0.2.7"),
            ("wan", "proto/47 192.0.2.7 > 10.0.0.5"),
        ],
        tcp => return tcp_in(config, tcp),
    };
    let mut node = Node::new(config);
    for (port, packet) in packets {
        assert!(node.send(port, packet).starts_with("to "), "{packet}");
    }
    node
}

/// The one session lives for `secs` after its last packet, and not a second longer.
#[track_caller]
fn ends_at(mut node: Node, secs: u64, what: &str) {
    assert_eq!(node.wait_secs(secs), 0, "{what}: not before {secs} s");
    assert_eq!(
        node.wait(Nanos::SECOND),
        1,
        "{what}: within a second after {secs} s"
    );
    assert_eq!(node.sessions(), [""; 0]);
    assert_eq!(node.counters().get("all sessions"), None);
}

fn rule(timeouts: &str) -> String {
    format!("[[rule]]\nname = \"all\"\naction = \"allow\"\ntimeouts = {{ {timeouts} }}\n")
}

#[test]
fn every_entry_has_its_default() {
    for (key, secs, state) in ENTRIES {
        ends_at(in_state(&rule(""), state), secs, key);
    }
}

#[test]
fn every_entry_can_be_set_and_overridden() {
    for (key, _, state) in ENTRIES {
        let general = format!("[conntrack.timeouts]\n{key} = \"77s\"\n");
        ends_at(in_state(&format!("{general}{}", rule("")), state), 77, key);
        let own = format!("{general}{}", rule(&format!("{key} = \"1m40s\"")));
        ends_at(in_state(&own, state), 100, key);
        // A rule's other timeouts are nothing to it.
        let other = ENTRIES
            .iter()
            .find(|(other, ..)| *other != key)
            .expect("another")
            .0;
        let of_other = format!("{general}{}", rule(&format!("{other} = \"1m40s\"")));
        ends_at(in_state(&of_other, state), 77, key);
    }
}

#[test]
fn a_keepalive_restarts_the_timer() {
    // RFC 9293, section 3.8.4: a keepalive's number is one less than the next, with one byte of garbage or none; the answer
    // is a plain acknowledgement.
    for (probe, answer) in [
        (
            format!("tcp {C} seq=100 ack=501 len=1"),
            format!("tcp {S} seq=501 ack=101"),
        ),
        (
            format!("tcp {C} seq=100 ack=501"),
            format!("tcp {S} seq=501 ack=101"),
        ),
    ] {
        for (port, packet) in [("lan", &probe), ("wan", &answer)] {
            let mut node = tcp_in(&rule(""), "established");
            for _ in 0..3 {
                assert_eq!(node.wait_secs(7400), 0);
                let peer = if port == "lan" { "wan" } else { "lan" };
                assert_eq!(node.send(port, packet), format!("to {peer}: session"), "{packet}");
            }
            assert_eq!(state_of(&node), "established");
            ends_at(node, 7440, packet);
        }
    }
}

#[test]
fn what_is_dropped_keeps_nothing_alive() {
    let mut node = tcp_in(&rule(""), "established");
    assert_eq!(node.wait_secs(7400), 0);
    let out_of_window = format!("tcp {C} seq=2000000 ack=501 len=1");
    assert_eq!(node.send("lan", &out_of_window), "tcp_out_of_window: session");
    assert_eq!(
        node.send("wan", &format!("tcp {C} seq=100 ack=501 len=1")),
        "wrong_port: session"
    );
    assert_eq!((node.wait_secs(40), node.wait_secs(1)), (0, 1));
}

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn key(n: u32) -> FlowKey {
    let mut low = [0; 16];
    low[10..12].fill(0xff);
    let mut high = low;
    low[12..].copy_from_slice(&(0x0a00_0000 | (n >> 4)).to_be_bytes());
    high[12..].copy_from_slice(&[192, 0, 2, 7]);
    FlowKey {
        low,
        high,
        low_port: 1024 + (n & 15) as u16,
        high_port: 443,
        domain: 0,
        protocol: 17,
        class: KeyClass::Ports,
        reserved: 0,
    }
}

/// A million sessions whose last packets came at random within some minutes, looked at as a worker does: 128 every 50
/// microseconds of its time. Each ends within a second after its deadline, and none before.
#[test]
fn a_million_sessions_end_within_a_second() {
    const SESSIONS: u32 = 1_000_000;
    const TIMEOUT: Nanos = Nanos::from_secs(30);
    /// What a worker looks at in a step of this test.
    const STEP: Nanos = Nanos::from_millis(10);
    const BUDGET: u32 = 128 * 200;
    let timeouts = StateTimeouts::from_fn(|_| TIMEOUT);
    let ticks = timeouts.ticks(SessionState::UdpReplied);
    let mut table = SessionTable::new(SESSIONS, &HeapMemory, HashSeed([1, 2, 3, 4])).expect("memory");
    let mut random = Random(7);
    let start = Nanos::from_secs(100);
    for n in 0..SESSIONS {
        let key = key(n);
        let session = Session::new(key, Direction::LowToHigh, SessionState::UdpReplied);
        let ix = table
            .insert(session, table.hash(&key), start, ticks)
            .expect("room");
        // The last packet: up to 20 s later.
        let last = start.plus(Nanos(random.below(20_000_000_000)));
        table.touch(ix, Direction::LowToHigh, last.tick(), 100);
    }
    let (mut now, mut worst, mut ended) = (start, 0_i64, 0);
    while !table.is_empty() {
        now = now.plus(STEP);
        assert!(now < start.plus(Nanos::from_secs(60)), "{} are left", table.len());
        table.expire(
            now.tick(),
            BUDGET,
            |session| session.timeout(&timeouts),
            |entry| {
                let idle = i64::from(now.tick().distance(entry.session.last_seen())) - i64::from(ticks);
                assert!(idle >= 0, "{idle} ticks before its time");
                worst = worst.max(idle);
                ended += 1;
                Due::End
            },
        );
    }
    assert_eq!(ended, SESSIONS);
    let worst_ms = worst * (Tick::NANOS / 1_000_000) as i64;
    assert!(worst_ms < 1000, "{worst_ms} ms late");
}

/// A million sessions that fall due in one tenth of a second are more than the usual pace ends in time: the lag has the worker
/// hurry.
#[test]
fn a_flood_of_ends_is_caught_up_with() {
    const SESSIONS: u32 = 1_000_000;
    let timeouts = StateTimeouts::from_fn(|_| Nanos::SECOND);
    let ticks = timeouts.ticks(SessionState::UdpReplied);
    let mut table = SessionTable::new(SESSIONS, &HeapMemory, HashSeed([1, 2, 3, 4])).expect("memory");
    let start = Nanos::from_secs(100);
    let mut now = start;
    for n in 0..SESSIONS {
        let session = Session::new(key(n), Direction::LowToHigh, SessionState::UdpReplied);
        now = start.plus(Nanos(u64::from(n) * 100));
        let hash = table.hash(&session.key);
        table.insert(session, hash, now, ticks).expect("room");
    }
    let (mut worst, mut calls) = (Nanos(0), 0);
    while !table.is_empty() {
        let expiry = table.expire(
            now.tick(),
            Upkeep::BUDGET,
            |session| session.timeout(&timeouts),
            |_| Due::End,
        );
        worst = worst.max(expiry.lag);
        calls += 1;
        let upkeep = Upkeep {
            lag: expiry.lag,
            ..Upkeep::default()
        };
        now = now.plus(upkeep.again_in());
        assert!(now < start.plus(Nanos::from_secs(3)), "{} are left", table.len());
    }
    // At the usual pace the last one would wait for 0.4 s.
    assert!(worst < Nanos::from_millis(300), "{worst:?} behind");
    assert!(
        calls >= SESSIONS / Upkeep::BUDGET,
        "more than the budget was looked at"
    );
}
