//! The thread that writes the logs, fed by hand: what a line says, rotation under load, a disk that takes nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests wait for a real thread")]

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use haechi::base::{Generation, Nanos, PortId, RuleId, Tick};
use haechi::config::{self, Config, RuleIds};
use haechi::control::eventlog::{EventLog, LogFiles, RecordQueue, Source};
use haechi::control::view::Names;
use haechi::engine::{Account, Alert, DropReason, EndReason, Event, Record};
use haechi::flow::{Direction, FlowKey, KeyClass, SessionState};
use haechi::policy::{Action, SessionScope};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

fn configuration(dir: &Path, zone: &str) -> Config {
    let text = format!(
        "version = 1\n[node]\nmode = \"transparent\"\n\
         [log]\nsessions = \"{0}/sessions.jsonl\"\nalerts = \"{0}/alerts.jsonl\"\n\
         [[port]]\nname = \"wan\"\nzone = \"{zone}\"\npeer = \"lan\"\ndevice = \"vdev:net_null0\"\n\
         [[port]]\nname = \"lan\"\nzone = \"trust\"\npeer = \"wan\"\ndevice = \"vdev:net_null1\"\n\
         [[rule]]\nname = \"out\"\naction = \"allow\"\nlog = \"both\"\n\
         [[rule]]\nname = \"no\"\naction = \"drop\"\nlog = \"alert\"\n",
        dir.display()
    );
    config::load_text("test", &text).unwrap()
}

fn names(config: &Config) -> Arc<Names> {
    let mut ids = RuleIds::new();
    config::compile(config, Generation(1), &mut ids).unwrap();
    Arc::new(Names::new(config, &ids))
}

/// A log with one worker's queue, whose clock says 50 s.
fn start(config: &Config, queue: &Arc<RecordQueue>) -> EventLog {
    let files = LogFiles::open(&config.log).unwrap().unwrap();
    let source = Source {
        queues: vec![Arc::clone(queue)],
        clock: Box::new(|| Nanos::from_secs(50)),
        names: names(config),
        generation: Generation(1),
        scope: SessionScope::PairVlan,
    };
    EventLog::start(files, source).unwrap()
}

fn key(port: u32) -> FlowKey {
    let v4 = |last| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last];
    FlowKey {
        low: v4(1),
        high: v4(2),
        low_port: (port >> 16) as u16,
        high_port: port as u16,
        domain: 7,
        protocol: 6,
        class: KeyClass::Ports,
        ..FlowKey::default()
    }
}

fn record(port: u32, event: Event) -> Record {
    Record {
        at: Nanos::from_secs(40),
        generation: Generation(1),
        rule: RuleId(0),
        key: key(port),
        opener: Direction::HighToLow,
        ingress: PortId(1),
        egress: PortId(0),
        event,
    }
}

fn ended(port: u32) -> Record {
    let account = Account {
        state: SessionState::TimeWait,
        last_seen: Nanos::from_secs(30).tick(),
        created: Nanos::from_millis(27_500),
        packets: [5, 4],
        bytes: [500, 4000],
        resets: Some([true, false]),
    };
    record(port, Event::End(EndReason::Finished, account))
}

fn push(queue: &RecordQueue, mut record: Record) {
    while let Err(full) = queue.push(record) {
        record = full;
        std::thread::yield_now();
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LONG, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_line_has_the_words_of_the_api_and_what_happened_when() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), "untrust");
    let queue = Arc::new(RecordQueue::new(64));
    // A line has microseconds.
    let begin = jiff::Timestamp::now() - jiff::SignedDuration::from_micros(1);
    let log = start(&config, &queue);
    push(
        &queue,
        record(
            0x0050_04d2,
            Event::Start(Account {
                packets: [1, 0],
                bytes: [60, 0],
                ..Account::default()
            }),
        ),
    );
    push(&queue, ended(0x0050_04d2));
    let alert = Alert {
        reason: DropReason::Policy,
        action: Action::Reject,
        bytes: 60,
        suppressed: 3,
    };
    push(
        &queue,
        Record {
            rule: RuleId(1),
            ..record(0x0050_04d2, Event::Alert(alert))
        },
    );
    assert!(log.finish(LONG));
    let end = jiff::Timestamp::now();
    let mut sessions = lines(&config.log.sessions.unwrap());
    let mut alerts = lines(&config.log.alerts.unwrap());
    for line in sessions.iter_mut().chain(&mut alerts) {
        // It happened ten seconds before it was written, by the workers' clock.
        let time: jiff::Timestamp = line["time"].as_str().unwrap().parse().unwrap();
        let written = time + jiff::SignedDuration::from_secs(10);
        assert!(begin <= written && written <= end, "{line}");
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
        line.as_object_mut().unwrap().remove("time");
    }
    let flow = json!({
        "protocol": "tcp", "source": "10.0.0.2", "source_port": 1234, "destination": "10.0.0.1",
        "destination_port": 80, "vlan": [7], "rule": "out", "from": "trust", "to": "untrust",
        "ingress": "lan", "egress": "wan", "worker": 0,
    });
    let with = |more: Value| {
        let mut line = flow.clone();
        line.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        line
    };
    assert_eq!(
        sessions,
        [
            with(json!({
                "event": "start", "state": "syn_sent", "packets": [1, 0], "bytes": [60, 0], "nat": null, "owner": "local",
            })),
            with(json!({
                "event": "end", "reason": "finished", "duration_s": 12.5,
                "idle_s": (Nanos::from_secs(40).tick().distance(Nanos::from_secs(30).tick()) as u64 * Tick::NANOS / 1_000_000)
                    as f64 / 1000.0,
                "state": "time_wait", "packets": [5, 4], "bytes": [500, 4000], "reset_sent": [true, false], "nat": null, "owner": "local",
            })),
        ]
    );
    assert_eq!(
        alerts,
        [with(json!({
            "event": "alert", "reason": "policy", "action": "reject", "rule": "no", "bytes": 60, "suppressed": 3,
        }))]
    );
    assert_eq!((log.reports().written(), log.reports().lost()), (3, 0));
}

/// Zones may change their names under live sessions: a line has the names of its time.
#[test]
fn names_are_those_of_a_records_own_generation() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), "untrust");
    let queue = Arc::new(RecordQueue::new(1024));
    let log = start(&config, &queue);
    for generation in 2..=200 {
        let names = names(&configuration(dir.path(), &format!("zone-{generation}")));
        log.reports().names(Generation(generation), names);
        // A record of the old policy that is still on its way, and one of the new one.
        for generation in [generation - 1, generation] {
            push(
                &queue,
                Record {
                    generation: Generation(generation),
                    ..ended(generation)
                },
            );
        }
        log.reports().retire(Generation(generation));
        wait_for("both are written", || {
            log.reports().written() == u64::from(generation - 1) * 2
        });
    }
    assert!(log.finish(LONG));
    let lines = lines(&config.log.sessions.unwrap());
    assert_eq!(lines.len(), 2 * 199);
    for line in lines {
        let zone = match line["source_port"].as_u64().unwrap() {
            1 => "untrust".to_owned(),
            generation => format!("zone-{generation}"),
        };
        assert_eq!(line["to"], zone, "{line}");
    }
}

/// Renamed and recreated, renamed and left to haechi to make, as logrotate does either: no line is lost, cut or written twice.
#[test]
fn rotation_under_load_loses_no_line() {
    const RECORDS: u32 = 150_000;
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), "untrust");
    let path = config.log.sessions.clone().unwrap();
    let queue = Arc::new(RecordQueue::new(4096));
    let log = start(&config, &queue);
    let load = std::thread::spawn({
        let queue = Arc::clone(&queue);
        move || (0..RECORDS).for_each(|n| push(&queue, ended(n)))
    });
    let mut rotated = Vec::new();
    while !load.is_finished() {
        wait_for("the file grows", || {
            load.is_finished() || std::fs::metadata(&path).is_ok_and(|m| m.len() > 100_000)
        });
        let old = dir.path().join(format!("sessions.jsonl.{}", rotated.len()));
        std::fs::rename(&path, &old).unwrap();
        if rotated.len() % 2 == 0 {
            // Another may have been faster: then it is haechi's.
            let _ = std::fs::File::create_new(&path);
        }
        rotated.push(old);
        wait_for("the file is there again", || path.exists());
    }
    load.join().unwrap();
    assert!(log.finish(LONG));
    assert!(rotated.len() > 3, "{} rotations", rotated.len());
    rotated.push(path);
    let mut seen = BTreeSet::new();
    for line in rotated.iter().flat_map(|path| lines(path)) {
        let port = |key: &str| line[key].as_u64().unwrap();
        let n = (port("destination_port") << 16) | port("source_port");
        assert!(seen.insert(n), "{n} is there twice");
    }
    assert_eq!(seen.len(), RECORDS as usize);
    assert_eq!(
        (log.reports().written(), log.reports().lost()),
        (RECORDS.into(), 0)
    );
}

#[test]
fn a_file_that_is_gone_is_let_go_of_without_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), "untrust");
    let path = config.log.sessions.clone().unwrap();
    let log = start(&config, &Arc::new(RecordQueue::new(4)));
    std::fs::remove_file(&path).unwrap();
    wait_for("the file is made again", || path.exists());
    assert!(log.finish(LONG));
}

#[test]
fn a_full_disk_loses_records_says_so_and_is_written_again_when_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), "untrust");
    let path = config.log.sessions.clone().unwrap();
    symlink("/dev/full", &path).unwrap();
    let queue = Arc::new(RecordQueue::new(64));
    let log = start(&config, &queue);
    let reports = log.reports();
    assert_eq!(reports.warnings(), [""; 0]);
    (0..10).for_each(|n| push(&queue, ended(n)));
    wait_for("records are lost", || reports.lost() == 10);
    let warnings = reports.warnings();
    assert!(
        warnings.len() == 1
            && warnings[0].contains("sessions.jsonl")
            && warnings[0].contains("No space left on device"),
        "{warnings:?}"
    );
    // The other log is not concerned.
    push(
        &queue,
        record(
            1,
            Event::Alert(Alert {
                reason: DropReason::Policy,
                action: Action::Drop,
                bytes: 60,
                suppressed: 0,
            }),
        ),
    );
    wait_for("the alert is written", || reports.written() == 1);
    std::fs::remove_file(&path).unwrap();
    push(&queue, ended(11));
    wait_for("it is written again", || reports.written() == 2);
    assert_eq!((reports.warnings(), reports.lost()), (vec![], 10));
    assert!(log.finish(LONG));
    assert_eq!(lines(&path).len(), 1);
}

/// What a machine that lost its power left of a line stays a line of its own.
#[test]
fn a_cut_line_of_before_spoils_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), "untrust");
    let path = config.log.sessions.clone().unwrap();
    std::fs::write(&path, "{\"a\":1}\n{\"time\":\"20").unwrap();
    let queue = Arc::new(RecordQueue::new(4));
    let log = start(&config, &queue);
    push(&queue, ended(1));
    assert!(log.finish(LONG));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1], "{\"time\":\"20");
    serde_json::from_str::<Value>(lines[2]).unwrap();
}

#[test]
fn a_log_that_cannot_be_opened_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &Path| {
        let log = config::Log {
            sessions: Some(path.to_owned()),
            alerts: None,
        };
        LogFiles::open(&log).unwrap_err().to_string()
    };
    let missing = dir.path().join("none");
    let said = refused(&missing.join("s.jsonl"));
    assert!(
        said.starts_with("cannot open the session log ")
            && said.contains(&format!("mkdir -p {}", missing.display())),
        "{said}"
    );
    let said = refused(dir.path());
    assert!(said.contains("Is a directory"), "{said}");
    assert!(LogFiles::open(&config::Log::default()).unwrap().is_none());
}
