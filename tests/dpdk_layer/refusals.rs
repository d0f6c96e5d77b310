//! What is refused, in one line with the fix.

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::{Command, Stdio};

use haechi::dpdk::{Device, Eal, EalConfig, Error, Mempool, Port, PortSetup};

use crate::harness::{close, config, device, eal, ip, scenario, setup, side};

fn refusal(eal: &Eal, text: &str, mtu: u16) -> String {
    let error = match text.parse::<Device>() {
        Ok(device) => match Port::open(eal, "wan", &device, mtu) {
            Ok(mut port) => port.configure(&setup()).err(),
            Err(error) => Some(error),
        },
        Err(error) => Some(error),
    };
    let text = error.unwrap_or_else(|| panic!("{text} was taken")).to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// Each bad port is refused in one line that names the port and the fix, and leaves everything as it was.
#[test]
fn bad_ports_are_refused_with_the_fix() {
    scenario("refusals::bad_ports_are_refused_with_the_fix", None, || {
        let mut config = config();
        config.devices = vec![device("0000:ff:1f.7")];
        let eal = Eal::start(&config).unwrap();
        ip("link add hxa type veth peer name hxb");
        let _taken = side(&eal, "lan", "vdev:net_af_xdp9,iface=hxb", 1500);
        let mut report = String::new();
        for (text, mtu, words) in [
            (
                "0000:ff:1f.7",
                1500,
                &["port 'wan'", "no PCI device 0000:ff:1f.7", "lspci -D"][..],
            ),
            ("0000:ff:1f.6", 1500, &["port 'wan'", "restart"]),
            (
                "vdev:net_foo0",
                1500,
                &["port 'wan'", "no DPDK driver", "net_foo0", "librte-net-"],
            ),
            (
                "vdev:net_af_xdp0,iface=hxnone",
                1500,
                &["port 'wan'", "'hxnone'", "ip link"],
            ),
            ("vdev:net_af_xdp0", 1500, &["port 'wan'", "iface="]),
            (
                "vdev:net_af_packet0,iface=hxa,framesz=junk",
                1500,
                &["port 'wan'", "framesize"],
            ),
            (
                "vdev:net_af_xdp9,iface=hxa",
                1500,
                &["port 'wan'", "another port has the device", "a number of its own"],
            ),
            (
                "vdev:net_af_packet0,iface=hxb",
                1500,
                &["port 'wan'", "another port has the network interface 'hxb'"],
            ),
            (
                "vdev:net_af_xdp0,iface=hxa",
                9000,
                &["port 'wan'", "mtu = 9000", "set mtu = 3498 or less"],
            ),
            (
                "vdev:net_af_packet0,iface=hxa,framesz=2048",
                9000,
                &["set mtu = 1960 or less", "framesz=12288"],
            ),
            (
                "vdev:net_af_packet0,iface=hxa,framesz=9088,blocksz=12288",
                1500,
                &["port 'wan'", "a multiple of"],
            ),
            (
                "vdev:net_memif0,role=client,bsize=2048",
                9000,
                &["set mtu = 2026 or less", "bsize="],
            ),
            // 1500 in DPDK 22.11, 16106 in 24.11.
            ("vdev:net_tap0", 20000, &["set mtu = 1", " or less"]),
            (
                "vdev:net_pcap0,rx_pcap=/nonexistent.pcap",
                1500,
                &["port 'wan'", "/nonexistent.pcap"],
            ),
            ("eth0", 1500, &["not a PCI address", "vdev:"]),
        ] {
            let said = refusal(&eal, text, mtu);
            for word in words {
                assert!(said.contains(word), "{text}: {word:?} is missing in: {said}");
            }
            let _ = writeln!(report, "{said}");
        }
        println!("{report}");
        let refused = |setup: PortSetup, words: [&str; 2]| {
            let mut port = Port::open(&eal, "wan", &device("vdev:net_af_xdp0,iface=hxa"), 1500).unwrap();
            let said = port.configure(&setup).unwrap_err().to_string();
            assert!(words.iter().all(|w| said.contains(w)), "{said}");
            println!("{said}");
        };
        refused(
            PortSetup {
                packet_buffers: 1000,
                ..setup()
            },
            ["packet_buffers = 1000 is too few", "or more"],
        );
        refused(
            PortSetup {
                packet_buffers: 5_000_000,
                ..setup()
            },
            ["memory_mib = 192", "lower packet_buffers"],
        );
        refused(
            PortSetup {
                packet_buffers: 0,
                ..setup()
            },
            ["packet_buffers", "or more"],
        );
        refused(
            PortSetup {
                rx_queues: 3,
                ..setup()
            },
            ["1 receive queue", "rx_queues"],
        );
        refused(
            PortSetup {
                tx_queues: 2,
                ..setup()
            },
            ["1 transmit queue", "workers"],
        );
        // After all that the device is free, and works.
        close(side(&eal, "wan", "vdev:net_af_xdp0,iface=hxa", 1500));
        let said = Mempool::create(&eal, "engine", 10_000_000, 1500)
            .err()
            .unwrap()
            .to_string();
        assert!(
            said.starts_with("engine: ") && said.contains("raise memory_mib"),
            "{said}"
        );
    });
}

/// Two processes cannot have one AF_XDP queue.
#[test]
fn an_interface_of_another_process_is_refused() {
    scenario(
        "refusals::an_interface_of_another_process_is_refused",
        None,
        || {
            if std::env::var("HAECHI_HOLD").is_ok() {
                let eal = eal();
                let _held = side(&eal, "first", "vdev:net_af_xdp0,iface=hxa", 1500);
                println!("held");
                let _ = std::io::stdin().read(&mut [0]);
                return;
            }
            ip("link add hxa type veth peer name hxb");
            let mut holder = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "refusals::an_interface_of_another_process_is_refused",
                    "--nocapture",
                ])
                .env("HAECHI_HOLD", "1")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = std::io::BufRead::lines(std::io::BufReader::new(holder.stdout.take().unwrap()));
            // On a machine of one CPU the test's name stands before it, on the same line.
            assert!(lines.any(|l| l.unwrap().ends_with("held")));
            let eal = eal();
            let said = refusal(&eal, "vdev:net_af_xdp0,iface=hxa", 1500);
            drop(holder.stdin.take());
            assert!(holder.wait().unwrap().success());
            assert!(
                said.contains("another process has its queue") && said.contains("ip link show hxa"),
                "{said}"
            );
        },
    );
}

#[test]
fn the_eal_says_what_is_wrong() {
    scenario("refusals::the_eal_says_what_is_wrong", None, || {
        let refused = |change: fn(&mut EalConfig), words: &[&str]| {
            let mut config = config();
            change(&mut config);
            let Err(error) = Eal::start(&config) else {
                panic!("{config:?} was taken")
            };
            let said = error.to_string();
            assert_eq!(said.lines().count(), 1, "{said}");
            for word in words {
                assert!(said.contains(word), "{word:?} is missing in: {said}");
            }
            println!("{said}");
        };
        let huge = |c: &mut EalConfig| (c.hugepages, c.memory_mib) = (true, 9_000_000);
        refused(
            huge,
            &[
                "too few huge pages: 9000000 MiB needed",
                "nr_hugepages",
                "hugepages = false",
            ],
        );
        refused(
            |c| c.memory_mib = 90_000_000,
            &["memory_mib is 90000000", "available", "lower memory_mib"],
        );
        refused(|c| c.memory_mib = 0, &["memory_mib is 0"]);
        refused(|c| c.eal_args = vec!["--help".into()], &["eal_args", "--help"]);
        refused(|c| c.eal_args = vec!["a\0b".into()], &["NUL"]);
        // The last: rte_eal_init itself was called.
        refused(
            |c| c.eal_args = vec!["--no-such-option".into()],
            &["no-such-option", "eal_args is"],
        );
        refused(|_| {}, &["only once in a process"]);
    });
}

#[test]
fn a_wrong_cpu_or_prefix_in_eal_args_is_told() {
    scenario(
        "refusals::a_wrong_cpu_or_prefix_in_eal_args_is_told",
        None,
        || {
            let mut config = config();
            config.eal_args = vec!["--iova-mode=nonsense".into()];
            let said = Eal::start(&config).err().unwrap().to_string();
            assert!(
                said.contains("invalid parameters for --iova-mode") && said.contains("eal_args"),
                "{said}"
            );
        },
    );
}

#[test]
fn privileges_are_missed_in_one_line() {
    scenario(
        "refusals::privileges_are_missed_in_one_line",
        Some(65_534),
        || {
            let said = match Eal::start(&config()) {
                Err(error) => error,
                Ok(eal) => Port::open(&eal, "wan", &device("vdev:net_af_packet0,iface=lo"), 1500)
                    .err()
                    .unwrap(),
            };
            assert!(matches!(said, Error::Privileges(_)), "{said}");
            assert!(said.to_string().contains("run as root"), "{said}");
        },
    );
}
