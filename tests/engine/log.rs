//! What rules log: each session's life, and packets that alert rules drop, none of them uncounted.

use haechi::base::Nanos;
use haechi::engine::{DropReason, EndReason, Event};

use crate::node::Node;

const C: &str = "10.0.0.5:1234 > 192.0.2.7:80";
const S: &str = "192.0.2.7:80 > 10.0.0.5:1234";
const FILES: &str = "[log]\nsessions = \"/s\"\nalerts = \"/a\"\n";

fn allow(log: &str) -> String {
    format!("{FILES}[[rule]]\nname = \"web\"\naction = \"allow\"\nlog = \"{log}\"\n")
}

fn refuse(action: &str, rate: &str) -> String {
    format!(
        "[policy]\nalert_rate = \"{rate}\"\n{FILES}[[rule]]\nname = \"no\"\naction = \"{action}\"\nlog = \"alert\"\n"
    )
}

fn node(rules: &str) -> Node {
    Node::new(rules).with_records(1000)
}

fn establish(node: &mut Node) {
    for (port, packet) in [
        ("lan", format!("tcp {C} syn seq=100")),
        ("wan", format!("tcp {S} syn,ack seq=500 ack=101")),
        ("lan", format!("tcp {C} seq=101 ack=501")),
    ] {
        assert!(node.send(port, &packet).starts_with("to "));
        node.now = node.now.plus(Nanos::from_millis(10));
    }
}

fn close(node: &mut Node) {
    for (port, packet) in [
        ("lan", format!("tcp {C} fin seq=101 ack=501")),
        ("wan", format!("tcp {S} fin seq=501 ack=102")),
        ("lan", format!("tcp {C} seq=102 ack=502")),
    ] {
        assert!(node.send(port, &packet).starts_with("to "));
    }
}

#[test]
fn each_mode_logs_what_it_says() {
    let start = format!("start by web: tcp {C} lan>wan syn_sent [1, 0] [40, 0] after 0 ms");
    let end = format!("end finished by web: tcp {C} lan>wan time_wait [4, 2] [160, 80] after 46030 ms");
    for (mode, expected) in [
        ("none", vec![]),
        ("start", vec![start.clone()]),
        ("end", vec![end.clone()]),
        ("both", vec![start, end]),
    ] {
        let mut node = node(&allow(mode));
        establish(&mut node);
        close(&mut node);
        assert_eq!(node.wait_secs(46), 1);
        assert_eq!(node.records(), expected, "{mode}");
        assert_eq!(node.counters().get("log_records_lost"), None);
    }
}

/// How a session ends, by what brings it to its end.
#[test]
fn each_end_has_its_reason() {
    type Ending = fn(&mut Node);
    let syn_again: Ending = |node| {
        close(node);
        let syn = format!("tcp {C} syn seq=900000");
        assert_eq!(node.send("lan", &syn), "to wan: new session by web");
    };
    let revoked: Ending = |node| {
        node.apply("");
        assert_eq!(
            node.send("lan", &format!("tcp {C} seq=101 ack=501")),
            "policy: no rule"
        );
    };
    let killed: Ending = |node| {
        let mut ix = None;
        node.engine.table().scan(0, 1000, |entry| ix = Some(entry.id.ix));
        node.engine.kill(node.now, ix.unwrap());
        node.engine.kill(node.now, ix.unwrap());
    };
    let killed_by_walk: Ending =
        |node| assert_eq!(node.engine.kill_where(node.now, 0, 100, |_| true), (None, 1));
    let reset: Ending = |node| {
        node.send("wan", &format!("tcp {S} rst seq=501"));
        assert_eq!(node.wait_secs(11), 1);
    };
    let finished: Ending = |node| {
        close(node);
        assert_eq!(node.wait_secs(46), 1);
    };
    let timeout: Ending = |node| assert_eq!(node.wait_secs(7441), 1);
    let shutdown: Ending = |node| assert_eq!(node.engine.farewell(node.now, 0, 1000, true), None);
    let evicted: Ending = |node| {
        close(node);
        // Flows both ways stay: the connection that is over is the one to go.
        for n in 0..1000 {
            let ends = format!("10.1.{}.{}:1", n / 250, n % 250);
            assert_eq!(
                node.send("lan", &format!("udp {ends} > 192.0.2.7:53")),
                "to wan: new session by web"
            );
            assert_eq!(
                node.send("wan", &format!("udp 192.0.2.7:53 > {ends}")),
                "to lan: session"
            );
        }
    };
    let endings: [(EndReason, Ending, &str); 9] = [
        (EndReason::Timeout, timeout, "established [2, 1] [80, 40]"),
        (EndReason::Finished, finished, "time_wait [4, 2] [160, 80]"),
        (EndReason::Reset, reset, "closed [2, 2] [80, 80]"),
        (EndReason::Reused, syn_again, "time_wait [4, 2] [160, 80]"),
        (EndReason::Policy, revoked, "established [2, 1] [80, 40]"),
        (EndReason::Evicted, evicted, "time_wait [4, 2] [160, 80]"),
        (EndReason::Killed, killed, "established [2, 1] [80, 40]"),
        (EndReason::Killed, killed_by_walk, "established [2, 1] [80, 40]"),
        (EndReason::Shutdown, shutdown, "established [2, 1] [80, 40]"),
    ];
    // (Nobody waits for a peer where there is none: `active/defer.rs`.)
    for reason in EndReason::ALL
        .iter()
        .filter(|reason| **reason != EndReason::Deferred)
    {
        assert!(
            endings.iter().any(|(r, ..)| r == reason),
            "{reason:?} is not tried"
        );
    }
    for (reason, ending, account) in endings {
        let mut node = node(&allow("end"));
        establish(&mut node);
        ending(&mut node);
        let records = node.records();
        let expected = format!("end {} by web: tcp {C} lan>wan {account} after ", reason.name());
        assert_eq!(records.len(), 1, "{reason:?}: {records:?}");
        assert!(
            records[0].starts_with(&expected),
            "{}, not {expected}",
            records[0]
        );
    }
}

#[test]
fn a_reset_that_may_have_ended_the_connection_is_a_reset() {
    let mut node = node(&allow("end"));
    establish(&mut node);
    // In the window, but not at the next number: it shortens the timeout (RFC 5961, section 3.2).
    node.send("wan", &format!("tcp {S} rst seq=600"));
    assert!(node.sessions()[0].contains(" established "));
    assert_eq!(node.wait_secs(11), 1);
    assert!(node.records()[0].starts_with("end reset by web: "));
}

/// Its ends are told, and so is the log.
#[test]
fn a_session_whose_ends_are_reset_at_its_timeout_has_its_record() {
    let rules = allow("end") + "reset_on_timeout = true\n";
    let mut node = node(&rules);
    establish(&mut node);
    assert_eq!(node.wait_secs(7441), 1);
    assert_eq!(node.originated.len(), 2);
    let records = node.records();
    assert_eq!(records.len(), 1);
    assert!(records[0].starts_with("end timeout by web: "), "{records:?}");
    assert!(records[0].ends_with(", reset [true, true]"), "{records:?}");
    // Half open: only the server has acknowledged anything.
    for (port, packet) in [
        ("wan", "tcp 192.0.2.7:80 > 10.0.0.5:1234 syn seq=500"),
        ("lan", "tcp 10.0.0.5:1234 > 192.0.2.7:80 syn,ack seq=100 ack=501"),
    ] {
        node.send(port, packet);
    }
    node.wait_secs(7441);
    let records = node.records();
    assert!(records[0].ends_with(", reset [false, true]"), "{records:?}");
}

#[test]
fn an_apply_changes_what_is_logged_of_live_sessions() {
    // (before, after, logs the end of a session that has had a packet since, and of one that has not)
    let dropped = format!("{FILES}[[rule]]\nname = \"web\"\naction = \"drop\"\n");
    for (before, after, logged) in [
        ("none", allow("end"), true),
        ("end", allow("none"), false),
        ("both", String::new(), true),
        ("both", dropped, true),
        ("none", String::new(), false),
    ] {
        for packet in [false, true] {
            let mut node = node(&allow(before));
            establish(&mut node);
            node.records();
            node.apply(&after);
            if packet {
                node.send("lan", &format!("tcp {C} seq=101 ack=501"));
            }
            node.wait_secs(7441);
            let records = node.records();
            assert_eq!(
                records.len(),
                usize::from(logged),
                "{before}, then {after}: {records:?}"
            );
            assert!(records.iter().all(|record| record.starts_with("end ")));
        }
    }
}

#[test]
fn what_finds_no_room_is_counted_and_the_packets_pass() {
    let mut node = Node::new(&allow("both")).with_records(3);
    for port in 1..=5 {
        let packet = format!("udp 10.0.0.5:{port} > 192.0.2.7:53");
        assert_eq!(node.send("lan", &packet), "to wan: new session by web");
    }
    assert_eq!(node.counters()["log_records_lost"], 2);
    assert_eq!(node.records().len(), 3);
    assert_eq!(node.wait_secs(31), 5);
    assert_eq!(node.counters()["log_records_lost"], 4);
    assert_eq!(node.records().len(), 3);
    // First in, first out, however often the ring has gone round.
    for port in 1..=20 {
        node.send("lan", &format!("udp 10.0.0.5:{port} > 192.0.2.7:53"));
        let records = node.records();
        assert!(records[0].contains(&format!("10.0.0.5:{port} ")), "{records:?}");
    }
}

#[test]
fn without_logs_nothing_is_made_and_nothing_is_lost() {
    let mut node = Node::new(&allow("both"));
    establish(&mut node);
    node.wait_secs(7441);
    assert_eq!(
        (node.records().len(), node.counters().get("log_records_lost")),
        (0, None)
    );
    let mut node = Node::new(&refuse("drop", "10/s"));
    node.send("lan", &format!("tcp {C} syn"));
    node.wait_secs(10);
    assert_eq!(node.records().len(), 0);
}

#[test]
fn a_farewell_takes_its_time_or_loses_what_finds_no_room() {
    let fill = || {
        let mut node = Node::new(&allow("end")).with_records(10);
        for port in 1..=100 {
            node.send("lan", &format!("udp 10.0.0.5:{port} > 192.0.2.7:53"));
        }
        node
    };
    let mut node = fill();
    let (mut from, mut told) = (Some(0), vec![]);
    while let Some(slot) = from {
        from = node.engine.farewell(node.now, slot, 7, true);
        // As if the log were slow.
        if from == Some(slot) || from.is_none() {
            told.append(&mut node.records());
        }
    }
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 100);
    assert!(
        told.iter()
            .all(|record| record.starts_with("end shutdown by web"))
    );
    assert_eq!(node.counters().get("log_records_lost"), None);
    assert_eq!(node.engine.table().len(), 100, "the account stays");
    let mut node = fill();
    assert_eq!(node.engine.farewell(node.now, 0, 1000, false), None);
    node.engine.lose_records();
    assert_eq!(node.counters()["log_records_lost"], 100);
}

/// Takes the alerts that wait: how many, and how many they say were left out.
fn alerts(node: &mut Node) -> (u64, u64) {
    let (mut records, mut suppressed) = (0, 0);
    while let Some(record) = node.engine.next_record() {
        let Event::Alert(alert) = record.event else {
            panic!("{record:?}")
        };
        records += 1;
        suppressed += alert.suppressed;
    }
    (records, suppressed)
}

/// Upkeep as a worker does it, for so long.
fn idle(node: &mut Node, time: Nanos) {
    let end = node.now.plus(time);
    while node.now < end {
        node.now = node.now.plus(Nanos::MILLISECOND);
        node.upkeep(100);
    }
}

#[test]
fn an_alert_for_every_packet_within_the_rate() {
    for (action, verdict) in [("drop", "Drop"), ("reject", "Reject")] {
        let mut node = node(&refuse(action, "10/s"));
        let packets = [
            ("lan", "tcp 10.0.0.5:1 > 192.0.2.7:80 syn", "40"),
            ("wan", "udp 192.0.2.7:5 > 10.0.0.5:6 len=100", "128"),
            ("lan", "icmp 10.0.0.5 > 192.0.2.7 echo-request id=7", "28"),
            ("dmz", "tcp [2001:db8::1]:1 > [2001:db8::2]:80 syn", "60"),
        ];
        for (port, packet, _) in packets {
            assert_eq!(node.send(port, packet), "policy: rule no");
        }
        let records = node.records();
        let expected = [
            "tcp 10.0.0.5:1 > 192.0.2.7:80 lan>wan 40",
            "udp 192.0.2.7:5 > 10.0.0.5:6 wan>lan 128",
            "icmp 10.0.0.5:7 > 192.0.2.7:7 lan>wan 28",
            "tcp 2001:db8::1:1 > 2001:db8::2:80 dmz>net 60",
        ]
        .map(|flow| format!("alert policy {verdict} by no: {flow} bytes, 0 left out"));
        assert_eq!(records, expected);
    }
}

#[test]
fn other_drops_make_no_alert() {
    let rules = format!(
        "{FILES}[[rule]]\nname = \"no\"\nservice = [\"tcp/81\"]\naction = \"drop\"\nlog = \"alert\"\n\
         [[rule]]\nname = \"quiet\"\nservice = [\"tcp/82\"]\naction = \"drop\"\n\
         [[rule]]\nname = \"web\"\nservice = [\"tcp/80\"]\naction = \"allow\"\n"
    );
    let mut node = node(&rules);
    establish(&mut node);
    for packet in [
        // Out of its window, no session, another rule's, no rule's.
        format!("tcp {C} seq=4000000000 ack=501 len=10"),
        String::from("tcp 10.0.0.5:9 > 192.0.2.7:81 seq=1 ack=1"),
        String::from("tcp 10.0.0.5:9 > 192.0.2.7:82 syn"),
        String::from("udp 10.0.0.5:9 > 192.0.2.7:81"),
    ] {
        assert!(!node.send("lan", &packet).starts_with("to "), "{packet}");
    }
    assert_eq!(node.records(), [""; 0]);
}

#[test]
fn a_session_that_an_alert_rule_ends_is_an_alert_too() {
    let mut node = node(&allow("end"));
    establish(&mut node);
    node.apply(&refuse("reject", "10/s"));
    node.send("lan", &format!("tcp {C} seq=101 ack=501"));
    // The other end's next packet finds no session, and hears of it too.
    node.send("wan", &format!("tcp {S} seq=501 ack=101"));
    let records = node.records();
    assert_eq!(records.len(), 3, "{records:?}");
    assert!(records[0].starts_with("end policy by web: "), "{records:?}");
    assert!(
        records[1..]
            .iter()
            .all(|r| r.starts_with("alert policy Reject by no: ")),
        "{records:?}"
    );
    assert_eq!(node.counters()["no packets"], 2);
}

/// Records and what they say was left out are the rule's drops, exactly, however much comes and whenever it ends.
#[test]
fn records_and_what_was_left_out_are_all_drops() {
    for (rate, per_second) in [("10/s", 10), ("1/s", 1), ("1000/s", 1000)] {
        let mut node = node(&refuse("drop", rate));
        let (mut records, mut suppressed) = (0, 0);
        // 3 s of 5 packets a millisecond.
        for _ in 0..3000 {
            for _ in 0..5 {
                node.send("lan", &format!("tcp {C} syn"));
            }
            idle(&mut node, Nanos::MILLISECOND);
            let (r, s) = alerts(&mut node);
            (records, suppressed) = (records + r, suppressed + s);
        }
        assert_eq!(node.counters()["no packets"], 15_000);
        // A second's worth at once, then as many as the rate lets through.
        let within = 3 * per_second..=4 * per_second;
        assert!(within.contains(&records), "{rate}: {records} records");
        idle(&mut node, Nanos::from_millis(2100));
        let (r, s) = alerts(&mut node);
        assert!(r <= 1, "{rate}: {r} late records");
        assert_eq!(records + r + suppressed + s, 15_000, "{rate}");
        // Nothing is told twice.
        idle(&mut node, Nanos::from_secs(3));
        assert_eq!(alerts(&mut node), (0, 0));
    }
}

#[test]
fn at_a_rate_of_zero_one_record_a_second_says_how_many() {
    let mut node = node(&refuse("drop", "0/s"));
    for _ in 0..2500 {
        node.send("lan", &format!("tcp {C} syn"));
        idle(&mut node, Nanos::MILLISECOND);
    }
    let (records, suppressed) = alerts(&mut node);
    assert_eq!(records, 2);
    idle(&mut node, Nanos::from_millis(1100));
    let (last, rest) = alerts(&mut node);
    assert_eq!((last, records + suppressed + last + rest), (1, 2500));
}

#[test]
fn every_rule_has_a_rate_of_its_own() {
    let rules: String = (1..=200)
        .map(|n| {
            format!(
                "[[rule]]\nname = \"r{n}\"\nservice = [\"udp/{n}\"]\naction = \"drop\"\nlog = \"alert\"\n"
            )
        })
        .collect();
    let mut node = node(&format!("[policy]\nalert_rate = \"1/s\"\n{FILES}{rules}"));
    for _ in 0..3 {
        for n in 1..=200 {
            node.send("lan", &format!("udp 10.0.0.5:9 > 192.0.2.7:{n}"));
        }
    }
    assert_eq!(alerts(&mut node), (200, 0));
    idle(&mut node, Nanos::from_millis(1100));
    assert_eq!(alerts(&mut node), (200, 200));
}

#[test]
fn alerts_that_find_no_room_are_left_out_and_counted_as_such() {
    let mut node = Node::new(&refuse("drop", "100/s")).with_records(3);
    for _ in 0..10 {
        node.send("lan", &format!("tcp {C} syn"));
    }
    assert_eq!(alerts(&mut node), (3, 0));
    idle(&mut node, Nanos::from_millis(1100));
    assert_eq!(alerts(&mut node), (1, 6));
    assert_eq!(node.counters().get("log_records_lost"), None);
    assert_eq!(node.engine.counters().drops[DropReason::Policy.index()], 10);
}

#[test]
fn what_is_left_out_at_the_stop_comes_out_with_the_farewell() {
    let mut node = node(&refuse("drop", "2/s"));
    for _ in 0..50 {
        node.send("lan", &format!("tcp {C} syn"));
    }
    assert_eq!(node.engine.farewell(node.now, 0, 100, true), None);
    assert_eq!(alerts(&mut node), (3, 47));
}

#[test]
fn an_apply_changes_the_rate() {
    let mut node = node(&refuse("drop", "1/s"));
    let burst = |node: &mut Node| {
        for _ in 0..50 {
            node.send("lan", &format!("tcp {C} syn"));
        }
        alerts(node)
    };
    assert_eq!(burst(&mut node), (1, 0));
    node.apply(&refuse("drop", "20/s"));
    assert_eq!(burst(&mut node), (19, 49));
    idle(&mut node, Nanos::from_millis(1100));
    assert_eq!(alerts(&mut node), (1, 30));
}
