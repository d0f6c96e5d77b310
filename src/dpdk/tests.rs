//! What can only be tested from inside: received packets that drivers give out rarely. The EAL starts once a process, so
//! these tests share one.

use std::sync::OnceLock;

use super::{
    Burst, Eal, EalConfig, Mempool, Port, PortSetup, RxQueue, TxQueue,
    mbuf::Mbuf,
    mempool::{Layout, Pool},
    sys,
};
use crate::packet::{ChecksumStatus, PacketBuf, RxChecksum};

/// The EAL of this process and a pool, for all tests; it is not cleaned up, since statics are not dropped.
fn shared() -> &'static (Eal, Mempool) {
    static SHARED: OnceLock<(Eal, Mempool)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let eal = Eal::start(&EalConfig {
            memory_mib: 64,
            ..EalConfig::default()
        })
        .unwrap();
        let pool = Mempool::create(&eal, "test", 511, 1500).unwrap();
        (eal, pool)
    })
}

fn ring(name: &str) -> (Port, RxQueue, TxQueue) {
    let device = format!("vdev:net_ring{name}").parse().unwrap();
    let mut port = Port::open(&shared().0, name, &device, 1500).unwrap();
    port.configure(&PortSetup {
        packet_buffers: 1023,
        rx_queues: 1,
        tx_queues: 1,
        rx_descriptors: 256,
        tx_descriptors: 256,
        ..PortSetup::default()
    })
    .unwrap();
    let (mut rx, mut tx) = port.start().unwrap();
    (port, rx.remove(0), tx.remove(0))
}

fn write<T>(packet: &mut Mbuf, offset: u32, value: T) {
    // SAFETY: a field of the mbuf that `packet` owns, of this type.
    unsafe { packet.as_raw().byte_add(offset as usize).cast::<T>().write(value) };
}

fn packet(pool: &Mempool, frame: &[u8]) -> Mbuf {
    let mut packet = pool.alloc().unwrap();
    packet.try_fill(frame).unwrap();
    packet
}

const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
const REST: [u8; 50] = [0x45; 50];

/// net_ring hands the mbuf over as it is: what its sender writes into it is what a NIC's driver would have written.
#[test]
fn a_tag_that_the_device_took_out_is_put_back() {
    let pool = Mempool::create(&shared().0, "vlan", 255, 1500).unwrap();
    let (port, mut rx, mut tx) = ring("vlan");
    let (vlan, qinq) = (sys::HX_RX_VLAN_STRIPPED, sys::HX_RX_QINQ_STRIPPED);
    let inner = [0x81, 0x00, 0x20, 0x05];
    let outer = [0x88, 0xa8, 0x60, 0x07];
    let cases: [(u64, Vec<u8>); 4] = [
        (0, vec![]),
        (vlan, inner.to_vec()),
        (vlan | qinq, [outer, inner].concat()),
        (qinq, outer.to_vec()),
    ];
    let mut out = Burst::new();
    for (flags, _) in &cases {
        let mut stripped = packet(&pool, &[&ADDRESSES[..], &REST].concat());
        write(
            &mut stripped,
            sys::HX_MBUF_OL_FLAGS,
            *flags | sys::HX_RX_L4_CKSUM_GOOD,
        );
        write(&mut stripped, sys::HX_MBUF_VLAN_TCI, 0x2005_u16);
        write(&mut stripped, sys::HX_MBUF_VLAN_TCI_OUTER, 0x6007_u16);
        out.push(stripped);
    }
    assert_eq!(tx.tx_burst(&mut out), 4);
    let mut got = Burst::new();
    assert_eq!(rx.rx_burst(&mut got, 32), 4);
    for (packet, (flags, tags)) in got.iter().zip(&cases) {
        assert_eq!(
            packet.bytes(),
            [&ADDRESSES[..], tags, &REST].concat(),
            "flags {flags:#x}"
        );
        assert_eq!(packet.ol_flags(), sys::HX_RX_L4_CKSUM_GOOD);
        assert_eq!(
            packet.rx_checksum(),
            RxChecksum::new(ChecksumStatus::Unknown, ChecksumStatus::Good)
        );
    }
    drop(got);

    // A frame without room for the tag, and one without addresses: dropped and counted, the next good one passes.
    let mut out = Burst::new();
    for (frame, headroom) in [(&REST[..], 0_u16), (&REST[..10], 128), (&REST[..], 128)] {
        let mut stripped = packet(&pool, frame);
        write(&mut stripped, sys::HX_MBUF_OL_FLAGS, vlan);
        write(&mut stripped, sys::HX_MBUF_DATA_OFF, headroom);
        out.push(stripped);
    }
    tx.tx_burst(&mut out);
    assert_eq!(rx.rx_burst(&mut Burst::new(), 0), 0);
    let mut got = Burst::new();
    assert_eq!(rx.rx_burst(&mut got, 32), 1);
    assert_eq!(port.stats().rx_chained, 2);
    drop(got);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_chained_packet_is_counted_and_dropped_whole() {
    let pool = Mempool::create(&shared().0, "chain", 255, 1500).unwrap();
    let (port, mut rx, mut tx) = ring("chain");
    let mut out = Burst::new();
    for i in 0..10_u8 {
        let mut head = packet(&pool, &[i; 60]);
        if i % 3 == 1 {
            let mut tail = packet(&pool, &[i; 60]);
            write(&mut head, sys::HX_MBUF_NEXT, tail.as_raw());
            write(&mut head, sys::HX_MBUF_NB_SEGS, 2_u16);
            write(&mut head, sys::HX_MBUF_PKT_LEN, 120_u32);
            // The head owns it now.
            std::mem::forget(tail);
        }
        out.push(head);
    }
    assert_eq!(tx.tx_burst(&mut out), 10);
    assert_eq!(pool.in_use(), 13);
    let mut got = Burst::new();
    assert_eq!(rx.rx_burst(&mut got, 32), 7);
    let order: Vec<u8> = got.iter().map(|p| p.bytes()[0]).collect();
    assert_eq!(order, [0, 2, 3, 5, 6, 8, 9]);
    assert_eq!(pool.in_use(), 7);
    assert_eq!(
        (
            rx.chained_drops(),
            port.stats().rx_chained,
            port.stats().rx_packets
        ),
        (3, 3, 10)
    );
    super::mbuf::free_burst(&mut got);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn what_the_device_says_of_checksums() {
    let pool = &shared().1;
    let mut frame = packet(pool, &REST);
    let (ip_good, ip_bad) = (sys::HX_RX_IP_CKSUM_GOOD, sys::HX_RX_IP_CKSUM_BAD);
    let (l4_good, l4_bad) = (sys::HX_RX_L4_CKSUM_GOOD, sys::HX_RX_L4_CKSUM_BAD);
    use ChecksumStatus::{Bad, Good, Unknown};
    for (flags, ip, l4) in [
        (0, Unknown, Unknown),
        (ip_good, Good, Unknown),
        (ip_bad | l4_good, Bad, Good),
        (l4_bad, Unknown, Bad),
        (ip_good | ip_bad | l4_good | l4_bad, Unknown, Unknown),
    ] {
        write(&mut frame, sys::HX_MBUF_OL_FLAGS, flags);
        let said = frame.rx_checksum();
        assert_eq!((said.ip(), said.l4()), (ip, l4));
    }
    // New bytes: what was said does not hold for them.
    write(&mut frame, sys::HX_MBUF_OL_FLAGS, ip_good | l4_good);
    frame.try_fill(&REST).unwrap();
    assert_eq!(frame.rx_checksum(), RxChecksum::default());
}

#[test]
fn only_lost_buffers_are_reclaimed() {
    let eal = &shared().0;
    let pool = Pool::create(eal, 9999, "test", 100, (Pool::PAGE_ROOM, Layout::Pages), -1).unwrap();
    // A driver's: allocated, never received. haechi's: adopted, or received with a port number.
    let mut taken = [std::ptr::null_mut(); 30];
    // SAFETY: room for 30 pointers.
    assert!(unsafe { sys::hx_mbuf_alloc_bulk(pool.raw(), taken.as_mut_ptr(), 30) });
    let mut held: Vec<Mbuf> = taken[20..]
        .iter()
        .filter_map(|raw| std::ptr::NonNull::new(*raw))
        // SAFETY: just allocated, and not used otherwise.
        .map(|raw| unsafe { Mbuf::adopt(raw) })
        .collect();
    write(&mut held[0], sys::HX_MBUF_PORT, 3_u16);
    assert_eq!(pool.usage().in_use, 30);
    // SAFETY: nobody else draws from the pool, which has no caches.
    let lost = unsafe { pool.reclaim_lost() };
    assert_eq!((lost, pool.usage().in_use), (20, 10));
    // SAFETY: as above.
    assert_eq!(unsafe { pool.reclaim_lost() }, 0);
    drop(held);
    assert_eq!(pool.usage().in_use, 0);
}
