//! Ports on the kernel's interfaces, which come and go.

use std::process::Command;
use std::time::Duration;

use haechi::dpdk::mbuf::free_burst;
use haechi::dpdk::{Burst, Mempool};
use haechi::packet::PacketBuf;

use crate::harness::{Side, close, cross, eal, fill, ip, now, scenario, side, tagged_frame};

/// What this process has open.
fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries
        .filter_map(|e| Some(std::fs::read_link(e.ok()?.path()).ok()?.display().to_string()))
        .collect()
}

/// The kernel's interface under an AF_XDP port is deleted and made anew, again and again: every time the port comes back, no
/// buffer and no descriptor is lost, and the largest frame with two tags crosses both ways.
#[test]
fn af_xdp_comes_back_with_its_interface() {
    scenario("interfaces::af_xdp_comes_back_with_its_interface", None, || {
        let eal = eal();
        let pool = Mempool::create(&eal, "test", 500, 9000).unwrap();
        let mut seen = Vec::new();
        for round in 0..6 {
            if round != 5 {
                ip("link add hxa type veth peer name hxb");
                ip("link set hxb up");
            }
            let mtu = if round % 2 == 0 { 1500 } else { 3498 };
            let mut a = side(&eal, "a", "vdev:net_af_xdp0,iface=hxa,busy_budget=0", mtu);
            let mut b = side(&eal, "b", "vdev:net_af_packet0,iface=hxb", mtu);
            assert_eq!(a.port.info().kernel_interface.as_deref(), Some("hxa"));
            assert!(!a.port.info().knows_link && !b.port.info().knows_link);
            for len in [60, 1522, usize::from(mtu) + 22] {
                cross(&pool, &mut a, &mut b, &tagged_frame(len));
                cross(&pool, &mut b, &mut a, &tagged_frame(len));
            }
            // Its fill ring, when what was sent has been taken back.
            let deadline = now() + Duration::from_secs(20);
            while a.port.buffers().unwrap().in_use != 2048 && now() < deadline {
                a.tx.reap();
                let mut got = Burst::new();
                a.rx.rx_burst(&mut got, 64);
            }
            assert_eq!(a.port.buffers().unwrap().in_use, 2048, "round {round}");
            assert_eq!(pool.in_use(), 0);
            // In the last round but one the interface stays: its queue has to be free again.
            if round != 4 {
                ip("link del hxa");
                a.rx.rx_burst(&mut Burst::new(), 32);
                a.tx.tx_burst(&mut fill(&pool, &tagged_frame(100)));
                let _ = (a.port.stats(), a.port.link());
            }
            close(a);
            close(b);
            seen.push(descriptors());
        }
        assert_eq!(seen[1].len(), seen[5].len(), "file descriptors leak: {seen:#?}");
    });
}

/// Every buffer of an AF_XDP pool goes through the kernel in both directions, again and again, and none is lost.
#[test]
fn every_af_xdp_buffer_works() {
    scenario("interfaces::every_af_xdp_buffer_works", None, || {
        let eal = eal();
        let pool = Mempool::create(&eal, "test", 500, 1500).unwrap();
        ip("link add hxa type veth peer name hxb");
        let mut sides = [
            side(&eal, "a", "vdev:net_af_xdp0,iface=hxa,busy_budget=0", 1500),
            side(&eal, "b", "vdev:net_af_xdp1,iface=hxb,busy_budget=0", 1500),
        ];
        let frame = tagged_frame(300);
        let mut crossed = [0; 2];
        let deadline = now() + Duration::from_secs(60);
        while crossed.iter().any(|c| *c < 30_000) && now() < deadline {
            for to in [0, 1] {
                let mut out = Burst::new();
                pool.alloc_bulk(&mut out, 32);
                out.iter_mut().for_each(|p| p.try_fill(&frame).unwrap());
                sides[1 - to].tx.tx_burst(&mut out);
                free_burst(&mut out);
                let mut got = Burst::new();
                sides[to].rx.rx_burst(&mut got, 64);
                crossed[to] += got.iter().filter(|p| p.bytes() == frame).count();
            }
        }
        assert!(
            crossed.iter().all(|c| *c >= 30_000),
            "{crossed:?} {:?} {:?}",
            sides[0].port.stats(),
            sides[1].port.stats()
        );
        let deadline = now() + Duration::from_secs(20);
        let idle = |sides: &[Side; 2]| sides.iter().all(|s| s.port.buffers().unwrap().in_use == 2048);
        while !idle(&sides) && now() < deadline {
            for side in &mut sides {
                side.tx.reap();
                side.rx.rx_burst(&mut Burst::new(), 64);
            }
        }
        assert!(
            idle(&sides),
            "{:?} {:?}",
            sides[0].port.buffers(),
            sides[1].port.buffers()
        );
        assert_eq!(pool.in_use(), 0);
    });
}

/// What the port changed of its interface (MTU, up, promiscuous) is as before after the close.
#[test]
fn the_interface_is_given_back_as_it_was() {
    scenario("interfaces::the_interface_is_given_back_as_it_was", None, || {
        ip("link add hxa type veth peer name hxb");
        let show = || {
            let output = Command::new("ip")
                .args(["-d", "-o", "link", "show", "hxa"])
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let flags = text.split(['<', '>']).nth(1).unwrap().replace(",M-DOWN", "");
            let mtu = text
                .split(" mtu ")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .to_owned();
            (flags, mtu, text.contains("xdp"))
        };
        let before = show();
        let eal = eal();
        for text in ["vdev:net_af_xdp0,iface=hxa", "vdev:net_af_packet0,iface=hxa"] {
            let a = side(&eal, "a", text, 1500);
            let (flags, mtu, _) = show();
            assert!(
                flags.contains("UP") && flags.contains("PROMISC") && mtu == "1508",
                "{flags} {mtu}"
            );
            a.port.set_link(false).unwrap();
            assert!(!show().0.contains("UP"));
            a.port.set_link(true).unwrap();
            assert!(show().0.contains("UP"));
            close(a);
            assert_eq!(show(), before);
        }
    });
}

/// Jumbo frames with two tags over drivers whose rings have to be made for them.
#[test]
fn jumbo_frames_cross_in_one_buffer() {
    scenario("interfaces::jumbo_frames_cross_in_one_buffer", None, || {
        let eal = eal();
        let pool = Mempool::create(&eal, "test", 500, 9000).unwrap();
        ip("link add hxa type veth peer name hxb");
        let mut a = side(&eal, "a", "vdev:net_af_packet0,iface=hxa", 9000);
        let mut b = side(&eal, "b", "vdev:net_af_packet1,iface=hxb", 9000);
        for len in [60, 1522, 9022] {
            cross(&pool, &mut a, &mut b, &tagged_frame(len));
            cross(&pool, &mut b, &mut a, &tagged_frame(len));
        }
        assert_eq!(a.port.stats().rx_chained + b.port.stats().rx_chained, 0);
        close(a);
        close(b);

        let socket = format!("@haechi-{}", std::process::id());
        let memif =
            |role: &str, n: u8| format!("vdev:net_memif{n},role={role},socket={socket},socket-abstract=yes");
        let mut a = side(&eal, "a", &memif("server", 0), 9000);
        let mut b = side(&eal, "b", &memif("client", 1), 9000);
        for len in [60, 1522, 9022] {
            cross(&pool, &mut a, &mut b, &tagged_frame(len));
            cross(&pool, &mut b, &mut a, &tagged_frame(len));
        }
        assert_eq!(a.port.stats().rx_chained + b.port.stats().rx_chained, 0);
        assert!(a.port.link().up && b.port.link().up);
        drop(b);
    });
}

/// A tap port: its kernel side sees what the port sends, and the other way round.
#[test]
fn tap_carries_two_tags() {
    scenario("interfaces::tap_carries_two_tags", None, || {
        let eal = eal();
        let pool = Mempool::create(&eal, "test", 500, 1500).unwrap();
        let mut a = side(&eal, "a", "vdev:net_tap0,iface=hxtap", 1500);
        assert_eq!(a.port.info().kernel_interface.as_deref(), Some("hxtap"));
        ip("link set hxtap up mtu 1508");
        let mut b = side(&eal, "b", "vdev:net_af_packet0,iface=hxtap", 1500);
        for len in [60, 1522] {
            cross(&pool, &mut a, &mut b, &tagged_frame(len));
            cross(&pool, &mut b, &mut a, &tagged_frame(len));
        }
        close(b);
        close(a);
    });
}
