//! RSS of real nodes of two workers on a device that does what it is told, or lies (`tests/rssdev`): what is said of it, who judges
//! which packet, and that every packet of every session crosses whatever the device does. All counts are exact.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;
#[path = "support/rssdev.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod rssdev;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use lab::config::Port;
use lab::{Config, Lab, Node, wait_for};
use rssdev::{Lie, RssDevice, kinds};

/// Fewer than prove a queue, so that one pass over them never does.
const FLOWS: u32 = 200;
/// Packets that have to agree on a queue.
const PROOF: u64 = 256;
/// Of the last flow, which is the one that is lied about when one in [`FLOWS`] is.
const LAST_SOURCE: &str = "10.1.0.200";
const LAST_KIND: &str = "IPv4 TCP";
/// Both ports of a device without faults, one with a long key, one with a large table.
const GOOD: &str = "reta=128,key=52;reta=512,key=40";
const LAN: u16 = 0;
const WAN: u16 = 1;

/// A node between two such ports; 200 flows cross it.
struct Bench {
    node: Node,
    device: RssDevice,
    /// How often each port has sent all of them.
    passes: [u64; 2],
    /// What each port had sent, by queue, when it was set up.
    since: [Vec<u64>; 2],
    _lab: Lab,
}

/// One of the node's sessions: who owns it, packets from its opener and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    worker: usize,
    packets: [u64; 2],
}

/// What one worker says of itself.
#[derive(Clone, Copy, Debug)]
struct Account {
    packets: u64,
    forwarded: u64,
    handed_over: u64,
    taken_over: u64,
    relayed: u64,
    sessions: u64,
}

impl Bench {
    fn new(settings: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut lab = Lab::new();
        for (name, peer) in [("lan", "wan"), ("wan", "lan")] {
            lab.ports.push(Port {
                name: name.into(),
                zone: name.into(),
                peer: peer.into(),
                device: format!("vdev:net_null{}", lab.ports.len()),
                mtu: None,
            });
        }
        let device = RssDevice::new(&format!("e2e-{number}"), FLOWS, kinds::ALL);
        lab.environment = device.environment(settings);
        let timeouts: String = ["tcp_syn_sent", "tcp_syn_received", "udp_new", "icmp"]
            .iter()
            .map(|name| format!("{name} = \"1h\"\n"))
            .collect();
        let rule = "[[rule]]\nname = \"out\"\nfrom = \"lan\"\naction = \"allow\"\n";
        // Nothing ends meanwhile, however slow the machine is.
        let config =
            Config::new(&format!("[conntrack.timeouts]\n{timeouts}\n{rule}")).node("workers", "\"0-1\"");
        let node = lab.start(config);
        Self {
            node,
            device,
            passes: [0; 2],
            since: [vec![0; 2], vec![0; 2]],
            _lab: lab,
        }
    }

    /// Has a port send all flows once more, and waits until the node has dealt with that: it must have forwarded everything, and
    /// every worker's account must be even.
    fn pass(&mut self, port: u16) {
        self.device.send(port, 1);
        self.passes[usize::from(port)] += 1;
        let sent = u64::from(FLOWS) * self.passes.iter().sum::<u64>();
        wait_for(&format!("{sent} packets cross"), || {
            let now = self.node.counters();
            let done = [LAN, WAN].into_iter().all(|port| self.device.is_done(port));
            if done && now.rx_packets >= sent && now.imbalance() == 0 && now.held == 0 {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            }
        });
        let sent_by = [LAN, WAN].map(|port| self.device.sent(port).iter().sum::<u64>());
        assert_eq!(sent_by, self.passes.map(|passes| u64::from(FLOWS) * passes));
        let now = self.node.counters();
        assert_eq!(now.drops, BTreeMap::new());
        assert_eq!(
            [now.rx_packets, now.tx_packets, now.originated],
            [sent, sent, 0],
            "{now:?}"
        );
        assert_eq!([now.sessions_created, now.sessions_ended], [u64::from(FLOWS), 0]);
        self.check_workers();
    }

    /// The openers send, then the answers come.
    fn round(&mut self) {
        self.pass(LAN);
        self.pass(WAN);
    }

    /// Each account even, and every session's packets judged by its owner, no others by him.
    fn check_workers(&self) {
        let accounts = self.workers();
        let sessions = self.sessions();
        assert_eq!(sessions.len(), FLOWS as usize);
        for (worker, account) in accounts.iter().enumerate() {
            let its: Vec<_> = sessions.values().filter(|s| s.worker == worker).collect();
            let judged: u64 = its.iter().flat_map(|s| s.packets).sum();
            assert_eq!(account.sessions, its.len() as u64, "{accounts:?}");
            // Each port has a transmit queue for each worker.
            assert_eq!(account.relayed, 0, "{accounts:?}");
            assert_eq!(account.forwarded, judged, "worker {worker}: {accounts:?}");
        }
        for (source, session) in &sessions {
            assert_eq!(session.packets, self.passes, "{source}: {session:?}");
        }
        let [a, b] = accounts;
        assert_eq!(
            [a.handed_over, b.handed_over],
            [b.taken_over, a.taken_over],
            "{a:?} {b:?}"
        );
    }

    fn workers(&self) -> [Account; 2] {
        let list = self.node.api.get("/v1/workers");
        let accounts = list["workers"].as_array().unwrap().iter().map(|worker| {
            let number = |key: &str| {
                worker[key]
                    .as_u64()
                    .unwrap_or_else(|| panic!("no {key} in {worker}"))
            };
            let account = Account {
                packets: number("packets"),
                forwarded: number("forwarded"),
                handed_over: number("handed_over"),
                taken_over: number("taken_over"),
                relayed: number("relayed"),
                sessions: number("sessions"),
            };
            // Nothing is made or held here, so all that was transmitted was forwarded.
            let came = account.packets + account.taken_over + number("originated");
            let left = account.forwarded + account.handed_over + account.relayed + number("dropped");
            assert_eq!(came, left, "{worker}");
            assert_eq!(worker["stalled"], false, "{worker}");
            account
        });
        accounts.collect::<Vec<_>>().try_into().expect("two workers")
    }

    fn handed_over(&self) -> u64 {
        self.workers().iter().map(|worker| worker.handed_over).sum()
    }

    /// By the addresses of their openers, which are all different.
    fn sessions(&self) -> BTreeMap<String, Session> {
        let sessions = self.node.api.sessions("");
        let count = sessions.len();
        let by_source: BTreeMap<_, _> = sessions
            .into_iter()
            .map(|s| {
                let number = |value: &serde_json::Value| value.as_u64().unwrap();
                let session = Session {
                    worker: usize::try_from(number(&s["worker"])).unwrap(),
                    packets: [number(&s["packets"][0]), number(&s["packets"][1])],
                };
                (s["source"].as_str().unwrap().to_owned(), session)
            })
            .collect();
        assert_eq!(by_source.len(), count, "a flow has two sessions");
        by_source
    }

    /// Who has which session.
    fn owners(&self) -> BTreeMap<String, usize> {
        let sessions = self.sessions().into_iter();
        sessions
            .map(|(source, session)| (source, session.worker))
            .collect()
    }

    /// What the node says of the ports' RSS, the API and the command line alike.
    fn states(&self) -> [String; 2] {
        let text = self.node.cli("show ports");
        ["lan", "wan"].map(|name| {
            let state = self.node.api.port(name)["rss"].as_str().unwrap().to_owned();
            let row = text
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_default();
            assert!(
                row.split_whitespace().any(|word| word == state),
                "{state}: {text}"
            );
            state
        })
    }

    /// Lines of the log about a port's RSS.
    fn log(&self, words: &str) -> Vec<String> {
        let log = self.node.process().stderr();
        let lines = log.lines().filter(|line| line.contains(words));
        lines.map(str::to_owned).collect()
    }

    /// Waits for a line of the log about a port; there must be one and no more.
    fn wait_log(&self, port: &str, words: &str) -> String {
        let port = format!("port={port:?}");
        wait_for(&format!("{words:?} of {port} is in the log"), || {
            let lines = self.log(words);
            let mut lines = lines.into_iter().filter(|line| line.contains(&port));
            match (lines.next(), lines.next()) {
                (Some(line), None) => Ok(line),
                (_, Some(again)) => panic!("again: {again}"),
                (None, None) => Err(self.node.process().stderr()),
            }
        })
    }

    /// Rounds until each port that is to be proven is: neither earlier nor later than the last of its queues has had enough packets.
    fn prove(&mut self) {
        let mut states = self.states();
        while states.iter().any(|state| state == "unproven") {
            assert!(
                self.passes[0] < 100,
                "a queue with next to no flows: {:?}",
                self.device.sent(LAN)
            );
            for port in [LAN, WAN] {
                self.pass(port);
                let state = &mut states[usize::from(port)];
                if state == "unproven" && self.has_had_enough(port) {
                    *state = "proven".to_owned();
                }
                assert_eq!(self.states(), states);
            }
        }
    }

    fn has_had_enough(&self, port: u16) -> bool {
        let sent = self.device.sent(port);
        let since = &self.since[usize::from(port)];
        sent.iter().zip(since).all(|(sent, since)| sent - since >= PROOF)
    }

    /// The node's last words must agree with what the device has sent.
    fn finish(self) {
        let sent: u64 = [LAN, WAN]
            .map(|port| self.device.sent(port).iter().sum::<u64>())
            .iter()
            .sum();
        let said = self.node.stop();
        let expected = format!(
            "stopped: packets in {sent}, made 0, out {sent}, dropped 0, sessions {FLOWS}, mbufs in use 0"
        );
        assert!(said.lines().any(|line| line == expected), "{expected}: {said}");
        self.device.remove();
    }
}

#[test]
fn an_honest_device_is_proven_and_nothing_is_handed_over() {
    let mut bench = Bench::new(GOOD);
    assert_eq!(bench.states(), ["unproven", "unproven"]);
    let choice = bench.log("ports can do it in hardware");
    assert_eq!(choice.len(), 1);
    assert!(
        choice[0]
            .contains("RSS: two-sided keys, hashes of rank 32 of 32; 2 of 2 ports can do it in hardware"),
        "{choice:?}"
    );
    for (port, key, entries) in [("lan", 52, 128), ("wan", 40, 512)] {
        let words = format!(
            "RSS: key of {key} bytes, table of {entries} entries read back; unproven: software places packets until {PROOF} agreed"
        );
        bench.wait_log(port, &words);
    }
    // No queue can have had enough yet.
    bench.round();
    assert_eq!(bench.states(), ["unproven", "unproven"]);
    assert_eq!(bench.log("RSS is proven"), Vec::<String>::new());
    bench.prove();
    for port in ["lan", "wan"] {
        bench.wait_log(port, "RSS is proven: the device places packets");
    }
    for _ in 0..10 {
        bench.round();
    }
    assert_eq!(bench.states(), ["proven", "proven"]);
    assert_eq!(bench.handed_over(), 0);
    // Both workers work, and answers come by the queue of what they answer.
    let [lan, wan] = [LAN, WAN].map(|port| bench.device.sent(port));
    assert_eq!(lan, wan);
    let accounts = bench.workers();
    for (account, sent) in accounts.iter().zip(lan) {
        assert!(account.packets == 2 * sent && sent > 0, "{accounts:?}");
    }
    assert_eq!(bench.log("RSS MISMATCH"), Vec::<String>::new());
    bench.finish();
}

const LIES: [(Lie, &str); 3] = [
    (Lie::WrongHash, "wrong hash"),
    (Lie::WrongQueue, "right hash on the wrong queue"),
    (Lie::NoHash, "hash missing"),
];

/// Packets that change their worker when so many are lied about: only a queue can be wrong for a worker.
fn astray(lie: Lie, packets: u32) -> u64 {
    u64::from(packets) * u64::from(lie == Lie::WrongQueue)
}

/// The worker that a warning names.
fn named(warning: &str) -> usize {
    let (_, after) = warning.split_once("on the queue of worker ").expect(warning);
    let (worker, _) = after.split_once(':').expect(warning);
    worker.parse().expect(warning)
}

fn check_warning(warning: &str, words: &str) {
    let parts = [
        " WARN ",
        words,
        "software places this port's packets from now on, until it is set up again",
    ];
    assert!(parts.iter().all(|part| warning.contains(part)), "{warning}");
}

/// One packet of a port that is not proven yet, and then all of them, and then those of the other port.
#[test]
fn one_lie_ends_it_before_the_proof() {
    for (lie, words) in LIES {
        let mut bench = Bench::new(GOOD);
        // In the first pass, in which no queue can have had enough: every packet is looked at.
        bench.device.lie(LAN, lie, FLOWS);
        bench.pass(LAN);
        assert_eq!(bench.states(), ["mismatch", "unproven"], "{lie:?}");
        assert_eq!(bench.handed_over(), astray(lie, 1), "{lie:?}");
        let warning = bench.wait_log("lan", "RSS MISMATCH");
        check_warning(&warning, &format!("{words}: a packet ({LAST_KIND}) "));
        // Where the packet came in, by whose it is and by the counts of the device.
        let owners = bench.owners();
        let owner = owners[LAST_SOURCE];
        let came_by = if lie == Lie::WrongQueue { 1 - owner } else { owner };
        assert_eq!(named(&warning), came_by, "{lie:?}");
        let accounts = bench.workers();
        let sent = bench.device.sent(LAN);
        assert_eq!(sent[came_by], accounts[came_by].sessions + astray(lie, 1));
        assert_eq!(accounts[came_by].handed_over, astray(lie, 1));
        bench.pass(WAN);

        // Whatever it does now, each packet is judged by its owner; so on the other port, of which one word is enough.
        bench.device.lie(LAN, lie, 1);
        bench.pass(LAN);
        assert_eq!(bench.states(), ["mismatch", "unproven"], "{lie:?}");
        assert_eq!(bench.handed_over(), astray(lie, 1 + FLOWS), "{lie:?}");
        bench.device.lie(WAN, lie, 1);
        bench.round();
        assert_eq!(bench.states(), ["mismatch", "mismatch"], "{lie:?}");
        check_warning(&bench.wait_log("wan", "RSS MISMATCH"), words);
        assert_eq!(bench.handed_over(), astray(lie, 1 + 3 * FLOWS), "{lie:?}");

        // It does not come back by behaving.
        bench.device.lie(LAN, Lie::Honest, 1);
        bench.device.lie(WAN, Lie::Honest, 1);
        for _ in 0..5 {
            bench.round();
        }
        assert_eq!(bench.states(), ["mismatch", "mismatch"], "{lie:?}");
        assert_eq!(bench.handed_over(), astray(lie, 1 + 3 * FLOWS), "{lie:?}");
        assert_eq!(bench.owners(), owners, "{lie:?}");
        assert_eq!(bench.log("RSS is proven"), Vec::<String>::new());
        bench.finish();
    }
}

/// What was believed is not believed any more. One of 64 packets that are believed is looked at, and each that finds no session.
#[test]
fn a_lie_after_the_proof_is_found_out_and_no_session_suffers() {
    for (lie, words) in LIES {
        let mut bench = Bench::new(GOOD);
        bench.prove();
        assert_eq!(bench.states(), ["proven", "proven"]);
        assert_eq!(bench.handed_over(), 0);
        let owners = bench.owners();
        bench.device.lie(LAN, lie, 1);
        // Two passes: of 96 believed packets on one queue one is looked at for certain, and one of the queues gets 200.
        bench.pass(LAN);
        bench.pass(LAN);
        assert_eq!(bench.states(), ["mismatch", "proven"], "{lie:?}");
        check_warning(&bench.wait_log("lan", "RSS MISMATCH"), words);
        assert!(named(&bench.wait_log("lan", "RSS MISMATCH")) < 2);
        assert_eq!(bench.handed_over(), astray(lie, 2 * FLOWS), "{lie:?}");
        for _ in 0..5 {
            bench.round();
        }
        assert_eq!(bench.states(), ["mismatch", "proven"], "{lie:?}");
        assert_eq!(bench.handed_over(), astray(lie, 7 * FLOWS), "{lie:?}");
        assert_eq!(bench.owners(), owners, "{lie:?}");
        bench.finish();
    }
}

/// Sessions are made where the node wants them, not where a device that lies from its first packet on puts them: answers from an
/// honest one find them.
#[test]
fn openers_on_the_wrong_queue_make_their_sessions_on_the_right_worker() {
    let mut bench = Bench::new(GOOD);
    bench.device.lie(LAN, Lie::WrongQueue, 1);
    bench.pass(LAN);
    assert_eq!(bench.states(), ["mismatch", "unproven"]);
    bench.pass(WAN);
    assert_eq!(bench.handed_over(), u64::from(FLOWS));
    bench.prove();
    assert_eq!(bench.states(), ["mismatch", "proven"]);
    // The answers came where the sessions are.
    assert_eq!(bench.handed_over(), u64::from(FLOWS) * bench.passes[0]);
    check_warning(
        &bench.wait_log("lan", "RSS MISMATCH"),
        "right hash on the wrong queue",
    );
    bench.finish();
}

/// Packets that other workers have received, and so must be handed over if they were all received by the worker of the port's number.
fn of_others(bench: &Bench) -> [u64; 2] {
    let sessions = bench.sessions();
    [0, 1].map(|worker: usize| {
        let others = sessions.values().filter(|session| session.worker != worker);
        others.map(|session| session.packets[worker]).sum()
    })
}

#[test]
fn a_device_without_usable_rss_is_left_to_software() {
    let cases = [
        (
            "reta=100",
            "INFO",
            "its table has 100 entries, which is no power of two",
            2,
        ),
        (
            "reta=0",
            "INFO",
            "the device has no RSS with a table that can be set",
            1,
        ),
        (
            "key=16",
            "WARN",
            "its RSS key has 16 bytes: 40 or more are needed",
            2,
        ),
        (
            "hash=0",
            "INFO",
            "the device does not hand the hash over with a packet",
            2,
        ),
        ("queues=1", "INFO", "it has 1 receive queue(s) for 2 workers", 1),
        ("refuse=table", "WARN", "the driver does not take its table: ", 2),
        (
            "forget=key",
            "WARN",
            "the RSS key read back from it is not what was set",
            2,
        ),
    ];
    for (settings, level, why, queues) in cases {
        let mut bench = Bench::new(settings);
        assert_eq!(bench.states(), ["software", "software"], "{settings}");
        for port in ["lan", "wan"] {
            let line = bench.wait_log(port, "RSS: software places this port's packets: ");
            assert!(
                line.contains(why) && line.contains(&format!(" {level} ")),
                "{settings}: {line}"
            );
        }
        for _ in 0..3 {
            bench.round();
        }
        assert_eq!(bench.states(), ["software", "software"], "{settings}");
        let handed: Vec<_> = bench.workers().iter().map(|worker| worker.handed_over).collect();
        // Some happen to do as the node would: the table that a device has by itself deals queues out in turn, too, and the bit of the
        // key that is lost does not reach the lowest of the hash.
        let places_right = matches!(settings, "refuse=table" | "forget=key");
        assert_eq!(handed.iter().sum::<u64>() > 0, !places_right, "{settings}");
        let busy = |port| bench.device.sent(port).iter().filter(|sent| **sent > 0).count();
        assert_eq!([LAN, WAN].map(busy), [queues; 2], "{settings}");
        if settings == "queues=1" {
            // They are dealt out: the first port's to the first worker, the second one's to the second.
            assert_eq!(handed, of_others(&bench));
        }
        bench.finish();
    }
}

/// Each port is for itself: where only one can, software places the packets of the other.
#[test]
fn one_port_may_be_proven_and_the_other_left_to_software() {
    let mut bench = Bench::new("reta=128;reta=100");
    assert_eq!(bench.log("1 of 2 ports can do it in hardware").len(), 1);
    assert_eq!(bench.states(), ["unproven", "software"]);
    bench.pass(LAN);
    assert_eq!(bench.handed_over(), 0);
    bench.pass(WAN);
    bench.prove();
    assert_eq!(bench.states(), ["proven", "software"]);
    let before = bench.handed_over();
    assert!(before > 0);
    bench.pass(LAN);
    assert_eq!(bench.handed_over(), before);
    bench.pass(WAN);
    assert!(bench.handed_over() > before);
    bench.finish();
}

/// Pulled out and put back, a port has to be proved anew, and can be.
#[test]
fn a_port_that_is_set_up_again_is_proved_again() {
    let mut bench = Bench::new("reta=128,removable=1");
    bench.device.lie(LAN, Lie::WrongQueue, FLOWS);
    bench.pass(LAN);
    bench.device.lie(LAN, Lie::Honest, 1);
    bench.pass(WAN);
    bench.prove();
    assert_eq!(bench.states(), ["mismatch", "proven"]);
    bench.wait_log("lan", "RSS MISMATCH");
    let owners = bench.owners();
    for (port, name) in [(LAN, "lan"), (WAN, "wan")] {
        bench.since[usize::from(port)] = bench.device.sent(port);
        bench.device.pull(port);
        bench.wait_log(name, "out of service: the device is gone");
        bench.wait_log(name, "back in service");
        bench.node.wait_link(name, true);
    }
    assert_eq!(bench.states(), ["unproven", "unproven"]);
    assert_eq!(bench.owners(), owners);
    bench.round();
    assert_eq!(bench.states(), ["unproven", "unproven"]);
    bench.prove();
    assert_eq!(bench.states(), ["proven", "proven"]);
    assert_eq!(bench.handed_over(), 1);
    bench.wait_log("lan", "RSS is proven");
    // A second lie is told as the first was.
    bench.device.lie(LAN, Lie::NoHash, 1);
    bench.pass(LAN);
    bench.pass(LAN);
    assert_eq!(bench.states(), ["mismatch", "proven"]);
    wait_for("it is warned of again", || {
        match bench.log("RSS MISMATCH").as_slice() {
            [_, again] if again.contains("hash missing") => Ok(()),
            lines => Err(format!("{lines:?}")),
        }
    });
    assert_eq!(bench.owners(), owners);
    bench.finish();
}
