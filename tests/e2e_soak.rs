//! Real programs over bad lines, for as long as `HAECHI_SOAK_MINUTES` says (1), while an attacker who sees nothing but
//! addresses and ports sends data, RSTs and acknowledgements into their connections: none of his packets passes, and none of
//! theirs is dropped.
//!
//! A frame is overtaken by at most what a round trip brings: the lines' jitter is no more than their delay, on both sides of
//! the node. (What is older than a whole window is refused, as van Rooij's bounds have it.)
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests wait for real programs"
)]

mod lab;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lab::frames::{Ends, Random, tcp};
use lab::impair::{Watch, Weather};
use lab::{Config, Host, Lab, Stage, wait_for, wait_for_within};

const WEATHER: Weather = Weather {
    loss_per_mille: 5,
    delay: Duration::from_millis(4),
    jitter: Duration::from_millis(4),
};
/// Connections that say a word now and then.
const IDLE: usize = 12;
/// Between two packets of the attacker.
const PACE: Duration = Duration::from_millis(10);
/// The attacker's source MAC, which nobody else has: what carries it and leaves the node has passed.
const ATTACKER: [u8; 6] = [0x02, 0x66, 0x66, 0x66, 0x66, 0x66];
/// Longer than any client needs on lines like these, unless something is dropped for good.
const TOO_LONG: Duration = Duration::from_secs(50);

/// One end of a connection: address and port.
type End = (IpAddr, u16);

/// What has left the node of one end's segments.
#[derive(Clone, Copy, Debug)]
struct Sent {
    mac: [[u8; 6]; 2],
    seq_end: u32,
    ack: u32,
}

/// A connection as it left the node; ends and senders in the order lan, wan.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    sent: [Option<Sent>; 2],
    /// Closed or reset by somebody.
    over: bool,
}

/// All that the watches saw.
#[derive(Debug, Default)]
struct Seen {
    flows: BTreeMap<[End; 2], Flow>,
    /// The attacker's frames that came through.
    passed: Vec<Vec<u8>>,
}

impl Seen {
    /// A frame that left the node by the port of side `to` (0: lan).
    fn note(&mut self, to: usize, frame: &[u8]) {
        if frame[6..12] == ATTACKER {
            self.passed.push(frame.to_vec());
        }
        let Ok(packet) = SlicedPacket::from_ethernet(frame) else {
            return;
        };
        let ip: [IpAddr; 2] = match &packet.net {
            Some(NetSlice::Ipv4(v4)) => [
                v4.header().source_addr().into(),
                v4.header().destination_addr().into(),
            ],
            Some(NetSlice::Ipv6(v6)) => [
                v6.header().source_addr().into(),
                v6.header().destination_addr().into(),
            ],
            _ => return,
        };
        let Some(TransportSlice::Tcp(segment)) = packet.transport else {
            return;
        };
        let ends = [
            (ip[0], segment.source_port()),
            (ip[1], segment.destination_port()),
        ];
        let (from, key) = if to == 1 {
            (0, ends)
        } else {
            (1, [ends[1], ends[0]])
        };
        let flow = self.flows.entry(key).or_default();
        if segment.syn() && !segment.ack() {
            *flow = Flow::default();
        }
        flow.over |= segment.fin() || segment.rst();
        if segment.ack() && !segment.syn() && !segment.rst() {
            let len = u32::try_from(segment.payload().len()).unwrap();
            flow.sent[from] = Some(Sent {
                mac: [frame[6..12].try_into().unwrap(), frame[..6].try_into().unwrap()],
                seq_end: segment.sequence_number().wrapping_add(len),
                ack: segment.acknowledgment_number(),
            });
        }
    }

    /// A connection that is established for the node as well: acknowledgements of both ends have passed it.
    fn established(&self, random: &mut Random) -> Option<([End; 2], [Sent; 2])> {
        let live: Vec<_> = self
            .flows
            .iter()
            .filter(|(_, flow)| !flow.over)
            .filter_map(|(ends, flow)| Some((*ends, [flow.sent[0]?, flow.sent[1]?])))
            .collect();
        (!live.is_empty()).then(|| live[random.below(live.len())])
    }
}

/// What the attacker sends: numbers that are no better than guessed, so 256 MB or more away from what they should be, further
/// than any window here.
const KINDS: [&str; 3] = ["data", "RST", "ACK"];

fn blind(kind: usize, from: usize, ends: [End; 2], sent: [Sent; 2], random: &mut Random) -> Vec<u8> {
    let far = 1 << 28;
    let guess = |near: u32, random: &mut Random| {
        near.wrapping_add(far + random.below((1 << 32) - 2 * far as usize) as u32)
    };
    let to = 1 - from;
    let spoofed = Ends {
        mac: [ATTACKER, sent[from].mac[1]],
        ip: [ends[from].0, ends[to].0],
        ttl: 64,
    };
    let ports = (ends[from].1, ends[to].1);
    let (seq, ack) = (sent[from].seq_end, sent[from].ack);
    match kind {
        0 => {
            let data = vec![0x66; 1 + random.below(200)];
            spoofed.tcp(ports, tcp::PSH | tcp::ACK, guess(seq, random), ack, &data)
        }
        1 => {
            let flags = *random.pick(&[tcp::RST, tcp::RST | tcp::ACK]);
            spoofed.tcp(ports, flags, guess(seq, random), ack, &[])
        }
        _ => spoofed.tcp(ports, tcp::ACK, seq, guess(ack, random), &[]),
    }
}

/// Sends into whatever connections there are until told to stop; how many of each kind, from each side.
fn attack(seen: &Mutex<Seen>, stages: &[Stage; 2], mut random: Random, stop: &AtomicBool) -> [[u64; 2]; 3] {
    let mut sent = [[0; 2]; 3];
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(PACE);
        let (kind, from) = (random.below(3), random.below(2));
        let Some((ends, last)) = seen.lock().unwrap().established(&mut random) else {
            continue;
        };
        if stages[from].inject(&blind(kind, from, ends, last, &mut random)) {
            sent[kind][from] += 1;
        }
    }
    sent
}

/// The attacker ends with the clients, also when one of them fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Clients of one kind, one after the other, until the end; how many there were.
fn until(end: Instant, mut client: impl FnMut()) -> u64 {
    let mut done = 0;
    while Instant::now() < end || done == 0 {
        client();
        done += 1;
    }
    done
}

fn fetch(lab: &Lab, client: &Host, server: IpAddr, page: &[u8]) {
    let name = format!("fetched-{}", if server.is_ipv4() { 4 } else { 6 });
    let into = lab.dir().join(name);
    let host = if server.is_ipv4() {
        server.to_string()
    } else {
        format!("[{server}]")
    };
    client.ns.exec(&format!(
        "curl --silent --show-error --fail --noproxy * --max-time {} --output {} http://{host}:8080/page",
        TOO_LONG.as_secs(),
        into.display()
    ));
    assert!(
        std::fs::read(&into).unwrap() == page,
        "another page than was served"
    );
}

fn ping(client: &Host, to: IpAddr) {
    let said = client.ns.exec(&format!("ping -n -q -i 0.1 -c 50 -W 5 {to}"));
    assert!(!said.contains("errors") && !said.contains("duplicates"), "{said}");
}

/// Says everything back until the other end closes.
fn echo(mut stream: TcpStream) {
    let mut heard = [0; 256];
    loop {
        match stream.read(&mut heard).expect("an idle session is alive") {
            0 => return,
            n => stream.write_all(&heard[..n]).unwrap(),
        }
    }
}

fn echo_server(listener: &TcpListener, connections: usize) {
    std::thread::scope(|scope| {
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            scope.spawn(move || echo(stream));
        }
    });
}

/// Connections that are open all the time and say a word now and then; how many words.
fn idle(client: &Host, servers: [IpAddr; 2], mut random: Random, end: Instant) -> u64 {
    let mut streams: Vec<_> = (0..IDLE)
        .map(|i| {
            let stream = client.connect_within(servers[i % 2], 2222, TOO_LONG).unwrap();
            stream.set_read_timeout(Some(TOO_LONG)).unwrap();
            stream
        })
        .collect();
    until(end, || {
        let stream = &mut streams[random.below(IDLE)];
        let word: Vec<u8> = (0..=random.below(100)).map(|_| random.next() as u8).collect();
        stream.write_all(&word).unwrap();
        let mut heard = vec![0; word.len()];
        stream.read_exact(&mut heard).expect("an idle session is alive");
        assert_eq!(heard, word);
        std::thread::sleep(Duration::from_millis(random.below(200) as u64));
    })
}

/// What the clients did.
#[derive(Debug)]
struct Work {
    pages: u64,
    iperfs: u64,
    pings: u64,
    words: u64,
    blind: [[u64; 2]; 3],
}

fn work(
    lab: &Lab,
    hosts: &[Host; 2],
    stages: &[Stage; 2],
    seen: &Mutex<Seen>,
    random: &mut Random,
    end: Instant,
) -> Work {
    let [client, server] = hosts;
    let both = [server.v4, server.v6];
    let page: Vec<u8> = (0..400_000).map(|_| random.next() as u8).collect();
    lab.file("page", &page);
    let _web = server.web_server(lab.dir(), lab.dir(), 8080);
    let iperf_server = server.iperf_server(lab.dir());
    let listener = server.listen(2222);
    let (for_idle, for_attack) = (Random::new(random.next()), Random::new(random.next()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop_at_end = StopOnDrop(&stop);
        let attacker = scope.spawn(|| attack(seen, stages, for_attack, &stop));
        let echoes = scope.spawn(|| echo_server(&listener, IDLE));
        let pages = both.map(|server| {
            let page = &page;
            scope.spawn(move || until(end, || fetch(lab, client, server, page)))
        });
        let pings = both.map(|server| scope.spawn(move || until(end, || ping(client, server))));
        let iperfs = scope.spawn(|| {
            let mut ways = ["", "--reverse"].into_iter().cycle();
            let mut tests = 0;
            until(end, || {
                // It takes one client at a time, and hears of the end of the last one when the line lets it.
                tests += 1;
                wait_for_within(TOO_LONG, "the iperf3 server listens again", || {
                    let said = iperf_server.stdout();
                    let listened = said.matches("Server listening").count();
                    (listened >= tests).then_some(()).ok_or(said)
                });
                let way = ways.next().unwrap();
                let report = client.iperf(server.v4, &format!("--time 5 {way}"));
                assert!(
                    report["end"]["sum_received"]["bytes"].as_u64() > Some(0),
                    "{report}"
                );
            })
        });
        let words = scope.spawn(|| idle(client, both, for_idle, end));
        let sum = |threads: [std::thread::ScopedJoinHandle<'_, u64>; 2]| {
            threads
                .into_iter()
                .map(|t| t.join().expect("a client finishes"))
                .sum()
        };
        let mut work = Work {
            pages: sum(pages),
            pings: sum(pings),
            iperfs: iperfs.join().expect("iperf3 finishes"),
            words: words.join().expect("idle sessions live"),
            blind: [[0; 2]; 3],
        };
        drop(stop_at_end);
        work.blind = attacker.join().expect("the attacker finishes");
        echoes.join().expect("idle sessions end in order");
        work
    })
}

#[test]
fn blind_packets_are_dropped_and_none_of_real_clients() {
    let minutes: f64 = std::env::var("HAECHI_SOAK_MINUTES").map_or(1.0, |m| m.parse().expect("minutes"));
    let mut random = Random::seeded("soak");
    let mut lab = Lab::new();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let watches = [0, 1].map(|to| {
        let seen = seen.clone();
        Box::new(move |frame: &[u8]| seen.lock().unwrap().note(to, frame)) as Watch
    });
    let (hosts, stages) = lab.impaired_pair(["lan", "wan"], WEATHER, random.next(), watches);
    let node = lab.start(Config::allow_all());

    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let work = work(&lab, &hosts, &stages, &seen, &mut random, end);
    let injected: u64 = work.blind.iter().flatten().sum();

    let sum = |of: fn(&lab::impair::Tally) -> &std::sync::atomic::AtomicU64| -> u64 {
        stages.iter().map(|s| of(&s.tally).load(Ordering::Relaxed)).sum()
    };
    // The attacker's last ones are perhaps on their way. (A lost one would leave this waiting in vain, as it should.)
    wait_for("every blind packet is dropped", || {
        let counters = node.counters();
        let dropped = counters.drop_of("tcp_out_of_window");
        (dropped >= injected)
            .then_some(())
            .ok_or_else(|| format!("{injected} sent: {counters:?}"))
    });
    let counters = node.balance();
    let expected = BTreeMap::from([("tcp_out_of_window".to_string(), injected)]);
    println!(
        "soak: {minutes} minutes: {} pages, {} iperf3, {} pings, {} words of {IDLE} idle sessions; {} packets, of them {} blind \
         (lan, wan: {:?}); the lines lost {} of {} and let {} be overtaken; drops: {:?}",
        work.pages,
        work.iperfs,
        work.pings * 50,
        work.words,
        counters.rx_packets,
        injected,
        KINDS.iter().zip(&work.blind).collect::<Vec<_>>(),
        sum(|t| &t.lost),
        sum(|t| &t.taken),
        sum(|t| &t.overtaken),
        counters.drops
    );
    assert_eq!(
        seen.lock().unwrap().passed,
        Vec::<Vec<u8>>::new(),
        "a blind packet passed"
    );
    assert!(
        work.blind.iter().flatten().all(|sent| *sent > 0),
        "{:?}",
        work.blind
    );
    assert!(
        sum(|t| &t.lost) > 0 && sum(|t| &t.overtaken) > 0,
        "the lines are good"
    );
    if counters.drops != expected {
        // Perhaps also what was sent before the node was up.
        let missing: Vec<_> = stages.iter().map(Stage::missing).collect();
        panic!("{expected:?} expected; what went in and did not come out: {missing:#?}");
    }
}
