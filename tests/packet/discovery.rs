//! Neighbour discovery and MLD: what nodes have to discard is malformed, the rest crosses.

use haechi::packet::{Malformed, PacketKind};

use crate::frames::*;
use crate::{is_kind, is_malformed};

/// A discovery message with its IPv6 header.
fn discovery(
    kind: u8,
    source: [u8; 16],
    destination: [u8; 16],
    rest: [u8; 4],
    body: &[u8],
) -> (Ip6, Vec<u8>) {
    let mut ip = Ip6::new(58);
    (ip.source, ip.destination, ip.hop_limit) = (source, destination, 255);
    (ip, icmp(kind, 0, rest, body))
}

#[test]
fn neighbour_discovery_follows_rfc_4861() {
    const NOBODY: [u8; 16] = [0; 16];
    const SOURCE_OPTION: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 0x0a];
    const TARGET_OPTION: [u8; 8] = [2, 1, 2, 0, 0, 0, 0, 0x0a];
    let solicited: [u8; 4] = [0x40, 0, 0, 0];
    let node = solicited_node(B6);
    let advertisement = [0; 8];
    let join = |parts: &[&[u8]]| parts.concat();
    let good = [
        discovery(133, LINK, ALL_NODES, [0; 4], &SOURCE_OPTION),
        discovery(133, NOBODY, ALL_NODES, [0; 4], &[]),
        discovery(
            134,
            LINK,
            ALL_NODES,
            [64, 0, 7, 8],
            &join(&[&advertisement, &SOURCE_OPTION]),
        ),
        discovery(135, A6, node, [0; 4], &join(&[&B6, &SOURCE_OPTION])),
        discovery(135, A6, B6, [0; 4], &B6),
        discovery(135, NOBODY, node, [0; 4], &B6),
        discovery(136, B6, A6, solicited, &join(&[&B6, &TARGET_OPTION])),
        discovery(136, B6, ALL_NODES, [0x20, 0, 0, 0], &B6),
        discovery(137, LINK, A6, [0; 4], &join(&[&LINK, &B6])),
        discovery(137, LINK, A6, [0; 4], &join(&[&B6, &B6])),
        // An option that nobody knows, of two units.
        discovery(135, A6, node, [0; 4], &join(&[&B6, &[200, 2], &[0; 14]])),
    ];
    for (ip, message) in &good {
        let frame = over6(ip, message.clone(), 2);
        let meta = is_kind(&frame, PacketKind::NeighbourDiscovery);
        assert_eq!((meta.icmp_type(), meta.protocol), (message[0], 58));
        // Forwarded by a router; a code; cut in its fixed part; a fragment header.
        let mut routed = ip.clone();
        routed.hop_limit = 254;
        is_malformed(&over6(&routed, message.clone(), 2), Malformed::NeighbourDiscovery);
        is_malformed(
            &over6(ip, with(message.clone(), 1, &[1]), 2),
            Malformed::NeighbourDiscovery,
        );
        let fragmented = ip.clone().extension(44, &[0; 8]);
        is_malformed(
            &over6(&fragmented, message.clone(), 2),
            Malformed::NeighbourDiscovery,
        );
        let with_options = |options: &[u8]| over6(ip, [&message[..], options].concat(), 2);
        is_malformed(
            &with_options(&[14, 0, 0, 0, 0, 0, 0, 0]),
            Malformed::NeighbourDiscovery,
        );
        is_malformed(
            &with_options(&[14, 2, 0, 0, 0, 0, 0, 0]),
            Malformed::NeighbourDiscovery,
        );
        is_malformed(&with_options(&[14]), Malformed::NeighbourDiscovery);
        is_kind(
            &with_options(&[14, 1, 0, 0, 0, 0, 0, 0]),
            PacketKind::NeighbourDiscovery,
        );
    }
    for (kind, least) in [(133, 8), (134, 16), (135, 24), (136, 24), (137, 40)] {
        for len in 8..least {
            let (ip, message) = discovery(kind, LINK, A6, [0; 4], &[0; 32][..len - 8]);
            is_malformed(&over6(&ip, message, 2), Malformed::NeighbourDiscovery);
        }
    }
    let bad = [
        discovery(133, NOBODY, ALL_NODES, [0; 4], &SOURCE_OPTION),
        discovery(134, A6, ALL_NODES, [0; 4], &advertisement),
        discovery(135, A6, node, [0; 4], &ALL_NODES),
        discovery(135, NOBODY, B6, [0; 4], &B6),
        discovery(135, NOBODY, node, [0; 4], &join(&[&B6, &SOURCE_OPTION])),
        discovery(136, B6, ALL_NODES, solicited, &B6),
        discovery(136, B6, A6, solicited, &ALL_NODES),
        discovery(137, A6, B6, [0; 4], &join(&[&LINK, &B6])),
        discovery(137, LINK, A6, [0; 4], &join(&[&LINK, &ALL_NODES])),
        discovery(137, LINK, A6, [0; 4], &join(&[&A6, &B6])),
    ];
    for (ip, message) in bad {
        is_malformed(&over6(&ip, message, 2), Malformed::NeighbourDiscovery);
    }
}

#[test]
fn mld_needs_link_local_source_hop_limit_1_and_a_router_alert() {
    let message = |kind: u8, len: usize| icmp(kind, 0, [0; 4], &vec![0; len - 8]);
    let ip = |source: [u8; 16]| {
        let mut ip = Ip6::new(58).extension(0, &ROUTER_ALERT);
        (ip.source, ip.destination, ip.hop_limit) = (source, ALL_NODES, 1);
        ip
    };
    for (kind, least) in [(130, 24), (131, 24), (132, 24), (143, 8)] {
        is_kind(
            &over6(&ip(LINK), message(kind, least), 2),
            PacketKind::NeighbourDiscovery,
        );
        is_malformed(&over6(&ip(A6), message(kind, least), 2), Malformed::Mld);
        for len in 8..least {
            is_malformed(&over6(&ip(LINK), message(kind, len), 2), Malformed::Mld);
        }
        // Reports may come before the sender has an address, queries not.
        let unspecified = over6(&ip([0; 16]), message(kind, least), 2);
        match kind {
            130 => is_malformed(&unspecified, Malformed::Mld),
            _ => drop(is_kind(&unspecified, PacketKind::NeighbourDiscovery)),
        }
        for hop_limit in [0, 2, 255] {
            let mut ip = ip(LINK);
            ip.hop_limit = hop_limit;
            is_malformed(&over6(&ip, message(kind, least), 2), Malformed::Mld);
        }
        let mut bare = ip(LINK);
        bare.extensions.clear();
        is_malformed(&over6(&bare, message(kind, least), 2), Malformed::Mld);
        bare.extensions.push((0, vec![0, 0, 1, 4, 0, 0, 0, 0]));
        is_malformed(&over6(&bare, message(kind, least), 2), Malformed::Mld);
        // In destination options a router alert alerts nobody.
        bare.extensions = vec![(60, ROUTER_ALERT.to_vec())];
        is_malformed(&over6(&bare, message(kind, least), 2), Malformed::Mld);
    }
    for len in 25..28 {
        is_malformed(&over6(&ip(LINK), message(130, len), 2), Malformed::Mld);
    }
    is_kind(
        &over6(&ip(LINK), message(130, 28), 2),
        PacketKind::NeighbourDiscovery,
    );
}
