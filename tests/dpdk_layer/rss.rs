//! RSS over a device that does what it is told, or lies (`tests/rssdev`).

use std::sync::Arc;

use haechi::base::{PortId, WorkerId};
use haechi::control::node::Rss;
use haechi::dpdk::thread::Registered;
use haechi::dpdk::{Burst, Eal, Mbuf, Port, PortSetup, RssError, RssSetup, RxQueue, TxQueue};
use haechi::flow::owner::{BucketTable, KeySet, Method, OwnerFunction, Side, Tuple, Unfit};
use haechi::flow::proof::{Disagreement, Event, Kind, Kinds, Proof, RssState, Wrong};
use haechi::packet::{PacketBuf, ParseOptions, parse};
use haechi::runtime::ports::{NodePort, prepare};

use crate::harness::{eal, open, scenario_with, setup};
use crate::rssdev::{Lie, RssDevice, kinds};

const QUEUES: u16 = 2;
const FLOWS: u32 = 600;

/// `body` runs with such devices.
fn with_devices(name: &str, settings: &str, kinds: u32, body: fn()) {
    if std::env::var_os("HAECHI_RSSDEV_CTL").is_some() {
        return scenario_with(name, None, Vec::new, body);
    }
    let device = RssDevice::new(name, FLOWS, kinds);
    scenario_with(name, None, || device.environment(settings), body);
    device.remove();
}

fn several_queues() -> PortSetup {
    PortSetup {
        rx_queues: QUEUES,
        ..setup()
    }
}

fn configured(eal: &Eal, number: u16) -> Port {
    let device = format!("vdev:net_null{number}");
    open(eal, &format!("p{number}"), &device, 1500, &several_queues())
}

/// A key that all methods but [`Method::TwoSided`] and [`Method::SymmetricKey`] take, and keys for these.
fn keys(method: Method) -> KeySet {
    KeySet::draw(
        method,
        &std::array::from_fn(|i| (i as u8).wrapping_mul(151) ^ 0x5c),
    )
}

fn rss_setup(method: Method, side: Side) -> RssSetup {
    RssSetup {
        method,
        key: *keys(method).key(side),
    }
}

#[test]
fn key_and_table_are_set_and_read_back() {
    let settings = "reta=16,key=40;reta=128,key=52;reta=512,key=47;reta=2048,key=0";
    with_devices(
        "rss::key_and_table_are_set_and_read_back",
        settings,
        kinds::ALL,
        || {
            let eal = eal();
            for (number, (entries, bytes)) in (0..).zip([(16u16, 40), (128, 52), (512, 47), (2048, 40)]) {
                let mut port = configured(&eal, number);
                let abilities = port.rss().clone();
                assert_eq!((abilities.entries, abilities.key_bytes), (entries, bytes));
                assert_eq!(abilities.kinds, Kinds::ALL);
                assert!(abilities.plain && abilities.tells_hash && !abilities.symmetric && !abilities.sorted);
                let rss = rss_setup(Method::TwoSided, Side::Wan);
                port.set_rss(rss).unwrap();
                port.start_device().unwrap();
                let table = BucketTable::even(QUEUES);
                assert_eq!(port.apply_rss(&table), Ok(()));
                let (key, queues) = port.read_rss().unwrap();
                assert_eq!(key.len(), usize::from(bytes));
                assert!(key.iter().zip(rss.key.iter().cycle()).all(|(a, b)| a == b));
                assert_eq!(queues.len(), usize::from(entries));
                assert!(queues.iter().zip(0..).all(|(queue, i)| *queue == i % QUEUES));

                // Buckets move.
                let classes = (0..512).filter(|bucket| bucket % 16 == 3);
                let moved = table.moved(classes.map(|bucket| (bucket, WorkerId(0))));
                assert_eq!(port.set_table(&moved), Ok(()));
                let (_, queues) = port.read_rss().unwrap();
                assert!(
                    queues
                        .iter()
                        .enumerate()
                        .all(|(i, queue)| *queue == moved.workers[i % 512].0)
                );
                // One that the device cannot say, and one with a worker that has no queue.
                let one = moved.moved([(3, WorkerId(1))]);
                let refused = port.set_table(&one);
                if entries < 512 {
                    assert_eq!(refused, Err(RssError::Table(Unfit::TooSmall(entries))));
                } else {
                    assert_eq!(refused, Ok(()));
                }
                assert_eq!(
                    port.set_table(&BucketTable::even(4)),
                    Err(RssError::Queues {
                        queues: QUEUES,
                        workers: 4
                    })
                );
                port.stop().unwrap();
                port.close().unwrap();
            }
        },
    );
}

/// Why software has to place the packets of four devices.
fn refusals() -> Vec<RssError> {
    let eal = eal();
    (0..4)
        .map(|number| {
            let mut port = configured(&eal, number);
            port.set_rss(rss_setup(Method::SymmetricKey, Side::Lan)).unwrap();
            port.start_device().unwrap();
            let error = port.apply_rss(&BucketTable::even(QUEUES)).unwrap_err();
            // It runs all the same, and where it can be told, both queues are to get packets.
            if let (Ok((_, table)), false) = (port.read_rss(), number == 1 && error.is_fault()) {
                let even = |(i, queue): (usize, &u16)| usize::from(*queue) == i % 2;
                let spread = table.iter().enumerate().filter(|entry| even(*entry)).count();
                assert!(spread + 1 >= table.len(), "{number}: {table:?}");
            }
            port.stop().unwrap();
            port.close().unwrap();
            error
        })
        .collect()
}

#[test]
fn devices_that_cannot_are_left_to_software() {
    let settings = "reta=48;reta=100;key=16;hash=0";
    with_devices(
        "rss::devices_that_cannot_are_left_to_software",
        settings,
        kinds::ALL,
        || {
            assert_eq!(
                refusals(),
                [
                    RssError::Table(Unfit::Odd(48)),
                    RssError::Table(Unfit::Odd(100)),
                    RssError::KeyLength(16),
                    RssError::NoHash
                ]
            );
        },
    );
}

#[test]
fn drivers_that_refuse_or_forget_are_found_out() {
    let settings = "refuse=key;refuse=table;forget=key;forget=table";
    with_devices(
        "rss::drivers_that_refuse_or_forget_are_found_out",
        settings,
        kinds::ALL,
        || {
            let errors = refusals();
            let refused = |error: &RssError, expected: &str| {
                assert!(
                    matches!(error, RssError::Refused { what, .. } if *what == expected),
                    "{error:?}"
                );
            };
            refused(&errors[0], "its RSS key");
            refused(&errors[1], "its table");
            assert_eq!(
                errors[2..],
                [RssError::Differs("the RSS key"), RssError::Differs("the table")]
            );
            assert!(errors.iter().all(RssError::is_fault));
        },
    );
}

/// A port whose queues' packets are judged as workers would.
struct Judged {
    number: u16,
    port: Port,
    queues: Vec<(RxQueue, Proof)>,
    _tx: Vec<TxQueue>,
    function: OwnerFunction,
    table: BucketTable,
    side: Side,
    /// What happened, by queue.
    events: Vec<(u16, Event)>,
    seen: u64,
}

impl Judged {
    fn new(eal: &Eal, number: u16, method: Method) -> Self {
        let side = if number % 2 == 0 { Side::Lan } else { Side::Wan };
        let mut port = configured(eal, number);
        assert_eq!(port.rss().can(method), Ok(()));
        port.set_rss(rss_setup(method, side)).unwrap();
        port.start_device().unwrap();
        let table = BucketTable::even(QUEUES);
        assert_eq!(port.apply_rss(&table), Ok(()));
        let claimed = port.rss().kinds;
        let (rx, tx) = port.start().unwrap();
        Self {
            number,
            port,
            queues: rx.into_iter().map(|rx| (rx, Proof::new(claimed))).collect(),
            _tx: tx,
            function: OwnerFunction::new(method, keys(method)).unwrap(),
            table,
            side,
            events: Vec::new(),
            seen: 0,
        }
    }

    /// Has the device send all flows so often, and looks at each packet.
    fn pass(&mut self, device: &RssDevice, passes: u64) {
        device.send(self.number, passes);
        let mut burst = Burst::new();
        while !device.is_done(self.number) {
            for queue in 0..QUEUES {
                self.queues[usize::from(queue)].0.rx_burst(&mut burst, 32);
                for packet in burst.drain(..) {
                    self.judge(queue, &packet);
                }
            }
        }
    }

    fn judge(&mut self, queue: u16, packet: &Mbuf) {
        self.seen += 1;
        let meta = parse(packet.bytes(), packet.rx_checksum(), ParseOptions::default());
        let kind = Kind::of(&meta).unwrap();
        let hash = self.function.hash(self.side, &Tuple::of(&meta));
        let here = self.table.owner(hash) == WorkerId(queue);
        let proof = &mut self.queues[usize::from(queue)].1;
        let event = proof.check(kind, packet.rx_hash(), hash, here);
        if event != Event::Nothing {
            self.events.push((queue, event));
        }
    }

    fn states(&self) -> Vec<RssState> {
        self.queues.iter().map(|(_, proof)| proof.state()).collect()
    }

    fn close(self) {
        let Self {
            mut port,
            queues,
            _tx,
            ..
        } = self;
        drop((queues, _tx));
        port.stop().unwrap();
        port.close().unwrap();
    }
}

#[test]
fn an_honest_device_is_proven_by_every_method() {
    with_devices(
        "rss::an_honest_device_is_proven_by_every_method",
        "symmetric=1",
        kinds::ALL,
        || {
            let eal = eal();
            let _main = Registered::new(&eal).unwrap();
            let device = RssDevice::here();
            for (method, numbers) in [
                (Method::SymmetricToeplitz, [0, 1]),
                (Method::TwoSided, [0, 1]),
                (Method::SymmetricKey, [2, 3]),
            ] {
                let mut owners = Vec::new();
                for number in numbers {
                    let mut port = Judged::new(&eal, number, method);
                    assert_eq!(port.states(), [RssState::Unproven; 2]);
                    port.pass(&device, 4);
                    assert_eq!(port.states(), [RssState::Proven; 2], "{method:?} {number}");
                    for (_, proof) in &port.queues {
                        let believed: Vec<_> = proof.believed().iter().collect();
                        assert_eq!(believed, Kind::ALL[..6], "{method:?} {number}");
                    }
                    assert_eq!(port.seen, 4 * u64::from(FLOWS));
                    owners.push(device.sent(number));
                    port.close();
                }
                // Answers come by the queue of what they answer, and both queues have their share.
                assert_eq!(owners[0], owners[1], "{method:?}");
                let most = owners[0].iter().max().unwrap();
                let least = owners[0].iter().min().unwrap();
                assert!(most < &(3 * least), "{method:?}: {owners:?}");
            }
        },
    );
}

#[test]
fn a_lie_is_found_out_before_and_after_the_proof() {
    with_devices(
        "rss::a_lie_is_found_out_before_and_after_the_proof",
        "",
        kinds::UDP4 | kinds::TCP6,
        || {
            let eal = eal();
            let _main = Registered::new(&eal).unwrap();
            let device = RssDevice::here();
            for (lie, words) in [
                (Lie::WrongHash, "wrong hash"),
                (Lie::WrongQueue, "right hash on the wrong queue"),
                (Lie::NoHash, "hash missing"),
            ] {
                for (proven_first, every) in [(false, 1), (true, 1), (true, 50)] {
                    let mut port = Judged::new(&eal, 0, Method::SymmetricKey);
                    device.lie(0, Lie::Honest, 1);
                    if proven_first {
                        port.pass(&device, 2);
                        assert_eq!(port.states(), [RssState::Proven; 2]);
                    }
                    port.events.clear();
                    device.lie(0, lie, every);
                    port.pass(&device, 2);
                    assert_eq!(port.states(), [RssState::Mismatch; 2], "{lie:?} {every}");
                    // Each queue says it once.
                    assert_eq!(port.events.len(), 2, "{:?}", port.events);
                    for (_, event) in &port.events {
                        match event {
                            Event::Mismatch(what) => assert!(what.to_string().starts_with(words), "{what}"),
                            other => panic!("{other:?}"),
                        }
                    }
                    // It does not come back when the device behaves again.
                    device.lie(0, Lie::Honest, 1);
                    port.pass(&device, 2);
                    assert_eq!(port.states(), [RssState::Mismatch; 2]);
                    port.close();
                }
            }
        },
    );
}

/// What the device says that it hashes otherwise is neither believed nor held against it.
#[test]
fn a_kind_that_the_device_does_not_claim_is_left_out() {
    with_devices(
        "rss::a_kind_that_the_device_does_not_claim_is_left_out",
        "udp=0",
        kinds::UDP4 | kinds::TCP4,
        || {
            let eal = eal();
            let _main = Registered::new(&eal).unwrap();
            let device = RssDevice::here();
            let mut port = Judged::new(&eal, 0, Method::SymmetricKey);
            port.pass(&device, 4);
            assert_eq!(port.states(), [RssState::Proven; 2]);
            for (_, proof) in &port.queues {
                assert_eq!(proof.believed().iter().collect::<Vec<_>>(), [Kind::Ipv4Tcp]);
            }
            port.close();
        },
    );
}

fn node_ports(devices: [&str; 2]) -> Vec<NodePort> {
    let mut text =
        "version = 1\n[node]\nmode = \"transparent\"\nworkers = \"0\"\npacket_buffers = 4096\n".to_owned();
    for (name, peer, device) in [("lan", "wan", devices[0]), ("wan", "lan", devices[1])] {
        text.push_str(&format!(
            "\n[[port]]\nname = {name:?}\nzone = {name:?}\npeer = {peer:?}\ndevice = \"vdev:{device}\"\n"
        ));
    }
    let config = haechi::config::load_text("test.toml", &text).unwrap();
    (0..)
        .map(PortId)
        .zip(&config.ports)
        .map(|(id, port)| NodePort::new(id, port.clone(), config.node.packet_buffers, false))
        .collect()
}

fn shown(ports: &[NodePort]) -> Vec<Rss> {
    ports.iter().map(|port| port.status("zone", 0).rss).collect()
}

/// From the node's choice to what `show ports` says, with what workers report in between.
#[test]
fn a_node_sets_its_ports_up_by_what_they_can_do() {
    // The third one's table is of no use.
    with_devices(
        "rss::a_node_sets_its_ports_up_by_what_they_can_do",
        "reta=64;reta=512;reta=48",
        kinds::UDP4,
        || {
            let eal = eal();
            let ports = node_ports(["net_null0", "net_null1"]);
            assert_eq!(shown(&ports), [Rss::Software; 2]);
            let rss = prepare(&ports, &eal, QUEUES).unwrap();
            // Both are plain, and the pair has two sides.
            assert_eq!(rss.function.method(), Method::TwoSided);
            assert_eq!(rss.function.keys().rank(Method::TwoSided), 32);
            let queues: Vec<_> = ports
                .iter()
                .map(|port| port.open(&eal, QUEUES).unwrap())
                .collect();
            for queues in &queues {
                assert!(queues.len() == 2 && queues.iter().all(|queues| queues.rx.is_some()));
            }
            assert_eq!(shown(&ports), [Rss::Unproven; 2]);
            let lan = &ports[0].flags().rss;
            assert_eq!(lan.claimed(), Kinds::ALL);
            lan.report(WorkerId(0), Event::Proven);
            assert_eq!(shown(&ports), [Rss::Unproven; 2]);
            lan.report(WorkerId(1), Event::Proven);
            assert_eq!(shown(&ports), [Rss::Proven, Rss::Unproven]);

            // Buckets move: to be proved again.
            let moves = (0..512)
                .filter(|bucket| bucket % 64 == 5)
                .map(|bucket| (bucket, WorkerId(0)));
            let table = Arc::new(rss.table.moved(moves));
            lan.table_changes();
            assert!(ports.iter().all(|port| port.set_table(&table) == Ok(())));
            assert_eq!(shown(&ports), [Rss::Unproven; 2]);

            let missing = Disagreement {
                kind: Kind::Ipv4Udp,
                wrong: Wrong::Missing,
            };
            lan.report(WorkerId(1), Event::Mismatch(missing));
            assert_eq!(shown(&ports), [Rss::Mismatch, Rss::Unproven]);
            assert_eq!(lan.mismatch(), Some((WorkerId(1), missing)));

            // Set up again, it begins anew, with the table as it is now.
            drop(queues);
            ports[0].close().unwrap();
            let queues = ports[0].open(&eal, QUEUES).unwrap();
            assert_eq!(shown(&ports), [Rss::Unproven; 2]);
            drop(queues);
            ports.iter().for_each(|port| port.close().unwrap());

            // One that cannot is for software, and has its queues all the same; so is every port of one worker.
            let ports = node_ports(["net_null0", "net_null2"]);
            let rss = prepare(&ports, &eal, QUEUES).unwrap();
            assert_eq!(rss.function.method(), Method::TwoSided);
            let queues: Vec<_> = ports
                .iter()
                .map(|port| port.open(&eal, QUEUES).unwrap())
                .collect();
            assert_eq!(shown(&ports), [Rss::Unproven, Rss::Software]);
            assert!(queues[1].iter().all(|queues| queues.rx.is_some()));
            drop(queues);
            ports.iter().for_each(|port| port.close().unwrap());

            let ports = node_ports(["net_null0", "net_null1"]);
            prepare(&ports, &eal, 1).unwrap();
            let queues: Vec<_> = ports.iter().map(|port| port.open(&eal, 1).unwrap()).collect();
            assert_eq!(shown(&ports), [Rss::Software; 2]);
            drop(queues);
            ports.iter().for_each(|port| port.close().unwrap());
        },
    );
}
