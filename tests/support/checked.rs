//! Frames that haechi made, through etherparse: parsed, every length and every checksum verified.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

/// The headers of a frame in which everything is right.
///
/// # Panics
/// When a header, a length or a checksum is wrong.
#[track_caller]
pub fn checked(frame: &[u8]) -> PacketHeaders<'_> {
    let packet = PacketHeaders::from_ethernet_slice(frame).expect("headers and lengths");
    match (&packet.net, &packet.transport) {
        (Some(NetHeaders::Ipv4(ip, _)), transport) => {
            assert_eq!(
                ip.header_checksum,
                ip.calc_header_checksum(),
                "IPv4 header checksum"
            );
            if let Some(transport) = transport {
                let mut right = transport.clone();
                right
                    .update_checksum_ipv4(ip, packet.payload.slice())
                    .expect("a checksum can be had");
                assert_eq!(*transport, right, "L4 checksum");
            }
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(transport)) => {
            let mut right = transport.clone();
            right
                .update_checksum_ipv6(ip, packet.payload.slice())
                .expect("a checksum can be had");
            assert_eq!(*transport, right, "L4 checksum");
        }
        _ => {}
    }
    packet
}

/// The TCP header of a frame in which everything is right.
#[track_caller]
pub fn checked_tcp(frame: &[u8]) -> etherparse::TcpHeader {
    match checked(frame).transport {
        Some(TransportHeader::Tcp(tcp)) => tcp,
        other => panic!("not TCP: {other:?}"),
    }
}
