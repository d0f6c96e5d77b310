//! A packet's answer in the packet's own buffer: what [`super::build::bare`] makes, without a detour. For answers that come by
//! the million a second.

use super::build::Bare;
use super::checksum::Sum;
use super::parse::{Straight, ethertype, protocol};
use super::{PacketBuf, PacketMeta};

/// Ethernet without tags, IPv4 without options, TCP without options: what every answer begins with.
const HEADERS: usize = 54;
/// The shortest frame, without FCS (IEEE 802.3).
const MIN_FRAME: usize = 60;
/// Version and header length; "don't fragment"; TTL (IANA's recommended default) and protocol. In the order of the wire.
const IP_FIRST: [u8; 2] = [0x45, 0];
const IP_THIRD: [u8; 6] = [0, 0, 0x40, 0, 64, protocol::TCP];

/// Makes of an untagged IPv4 TCP packet, whose metadata are `meta`, the segment to its source, as if its destination had
/// answered. False, and the packet is as it was: it is another kind of packet, or its buffer has no room.
#[inline(always)]
pub fn bare_in_place<B: PacketBuf>(meta: &PacketMeta, segment: &Bare, packet: &mut B) -> bool {
    if usize::from(meta.l3_offset) != Straight::L3_OFFSET || !meta.has(PacketMeta::IPV4) {
        return false;
    }
    let Some((ethernet, _)) = packet.bytes().split_first_chunk::<12>() else {
        return false;
    };
    let (to, from) = (chunk::<6>(ethernet, 6), chunk::<6>(ethernet, 0));
    let (options, length) = segment.options();
    let end = HEADERS + length;
    if packet.try_resize(end.max(MIN_FRAME)).is_err() {
        return false;
    }
    let Some((head, behind)) = packet.bytes_mut().split_first_chunk_mut::<HEADERS>() else {
        return false;
    };
    let ends = [chunk::<4>(&meta.destination, 12), chunk::<4>(&meta.source, 12)];
    let [source, destination] = ends.map(|address| u64::from(u32::from_le_bytes(address)));
    let addresses = Sum::ZERO.add(source | (destination << 32));
    let total = ((end - Straight::L3_OFFSET) as u16).to_be_bytes();
    let tcp_header = (((end - usize::from(Straight::L4_OFFSET)) / 4) as u8) << 4;

    let ip_sum = addresses
        .add(u64::from(u16::from_le_bytes(IP_FIRST)) + u64::from(u16::from_le_bytes(total)))
        .add(le64(IP_THIRD));
    let ports = u64::from(meta.destination_port.to_be()) | (u64::from(meta.source_port.to_be()) << 16);
    let numbers = u64::from(segment.seq.to_be()) | (u64::from(segment.ack.to_be()) << 32);
    let [high, low] = segment.window.to_be_bytes();
    let state = [tcp_header, segment.flags, high, low];
    let tcp_sum = options
        .iter()
        .fold(addresses, |sum, word| sum.add(u64::from(*word)))
        .add(ports | (u64::from(u32::from_le_bytes(state)) << 32))
        .add(numbers)
        .pseudo(protocol::TCP, (end - usize::from(Straight::L4_OFFSET)) as u32);

    head[0..6].copy_from_slice(&to);
    head[6..12].copy_from_slice(&from);
    head[12..14].copy_from_slice(&ethertype::IPV4.to_be_bytes());
    head[14..16].copy_from_slice(&IP_FIRST);
    head[16..18].copy_from_slice(&total);
    head[18..24].copy_from_slice(&IP_THIRD);
    head[24..26].copy_from_slice(&ip_sum.checksum().to_be_bytes());
    head[26..34].copy_from_slice(&(source | (destination << 32)).to_le_bytes());
    head[34..38].copy_from_slice(&(ports as u32).to_le_bytes());
    head[38..46].copy_from_slice(&numbers.to_le_bytes());
    head[46..50].copy_from_slice(&state);
    head[50..54].copy_from_slice(&u32::from(tcp_sum.checksum().to_be()).to_le_bytes());
    // Options, of which there are zeroes behind those that count: as many as go up to the shortest frame.
    let mut tail = [0; 20];
    for (room, word) in tail.chunks_exact_mut(4).zip(options) {
        room.copy_from_slice(&word.to_le_bytes());
    }
    // Nearly always one of two lengths: copies of a constant length are two moves.
    match (behind.first_chunk_mut::<{ MIN_FRAME - HEADERS }>(), length) {
        (Some(behind), ..=4) => *behind = chunk(&tail, 0),
        _ if length == tail.len() => behind.copy_from_slice(&tail),
        _ => behind.copy_from_slice(&tail[..behind.len().min(tail.len())]),
    }
    true
}

/// `N` bytes of `M`, which are there.
#[inline(always)]
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .unwrap_or([0; N])
}

/// Up to eight bytes as words of a [`Sum`].
#[inline(always)]
const fn le64(bytes: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = bytes;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}
