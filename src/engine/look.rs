//! The first stages of a burst: headers to keys and hashes, hashes to candidates; nothing is judged yet.

use wide::u32x8;

use super::process::port_policy;
use super::sight::{Parsed, Scratch, Sight};
use super::{Batch, first};
use crate::base::PortId;
use crate::base::simd::{LANES, prefetch_bytes};
use crate::flow::{Candidate, FlowKey, KeyRow, Lookup};
use crate::packet::parse::{ParseOptions, parse_into, parse_lanes};
use crate::packet::{PacketBuf, PacketKind, PacketMeta, RxChecksum};
use crate::policy::Policy;

/// Stage 1: headers to keys, keys to hashes; the index's buckets are asked for. The frames' first lines are asked for
/// before the first one is read. What the straight path reads goes to the key without a detour through memory.
#[inline(never)]
pub(super) fn parse_all<B: PacketBuf>(
    policy: &Policy,
    options: ParseOptions,
    scratch: &mut Scratch,
    table: Lookup<'_>,
    batch: &Batch<B>,
    several: bool,
) {
    let (packets, ingress) = batch.parts();
    for packet in packets {
        prefetch_bytes(packet.bytes());
    }
    // Packets come in runs of one port.
    let mut domain = Domain::of(policy, PortId(0));
    for (group, packets) in packets.chunks(LANES).enumerate() {
        let (frames, device) = gather(packets);
        let lanes = parse_lanes(&frames, &device, options.verify_l4);
        let first = group * LANES;
        scratch.segments.keep(first, &lanes.tcp);
        let ingress = &ingress[first..first + packets.len()];
        let rows = KeyRow::of(
            &lanes,
            domain.of_all(policy, ingress),
            Parsed::tags(&lanes, several),
        );
        // Hashes are chains of dependent instructions: they overlap where nothing else stands between them.
        let hashes: [u64; LANES] = std::array::from_fn(|i| table.hash_row(&rows[i]));
        let sights = &mut scratch.sights[first..first + packets.len()];
        for (i, (sight, port)) in sights.iter_mut().zip(ingress).enumerate() {
            sight.ingress = *port;
            let row = &rows[i];
            let tag = row.tag();
            sight.kinds = (tag >> 8) as u8;
            sight.parsed = match tag as u8 {
                0 => {
                    let meta = &mut scratch.metas[first + i];
                    parse_into(frames[i], device[i], options, meta);
                    meta.ingress = *port;
                    see(sight, meta, policy, table);
                    continue;
                }
                Parsed::STRAIGHT => Parsed::Straight,
                _ => Parsed::Plain,
            };
            table.prefetch(hashes[i]);
            sight.key = row.key();
            sight.hash = hashes[i];
            sight.ip_len = row.ip_len();
            sight.direction = row.direction();
        }
    }
}

/// What [`parse_lanes`] looks at; of a last group that is not full, nothing for the rest.
#[inline(always)]
fn gather<B: PacketBuf>(packets: &[B]) -> ([&[u8]; LANES], [RxChecksum; LANES]) {
    if let Some(packets) = packets.first_chunk::<LANES>() {
        return (
            std::array::from_fn(|i| packets[i].bytes()),
            std::array::from_fn(|i| packets[i].rx_checksum()),
        );
    }
    let (mut frames, mut device) = ([&[][..]; LANES], [RxChecksum::default(); LANES]);
    for ((packet, frame), device) in packets.iter().zip(&mut frames).zip(&mut device) {
        (*frame, *device) = (packet.bytes(), packet.rx_checksum());
    }
    (frames, device)
}

/// Stage 1 for a packet of the general path.
#[inline(never)]
fn see(sight: &mut Sight, meta: &PacketMeta, policy: &Policy, table: Lookup<'_>) {
    if !belongs_to_flow(meta) {
        sight.parsed = Parsed::Layer2;
        return;
    }
    let pair = port_policy(policy, meta.ingress).pair;
    let (key, direction) = FlowKey::of(meta, policy.transparent.domain(pair, meta.vlan));
    let hash = table.hash(&key);
    table.prefetch(hash);
    sight.key = key;
    sight.hash = hash;
    sight.direction = direction;
    sight.parsed = Parsed::Flow;
}

/// [`crate::policy::Transparent::domain`] of untagged packets of one port.
struct Domain {
    port: PortId,
    base: u32,
}

impl Domain {
    #[inline]
    fn of(policy: &Policy, port: PortId) -> Self {
        let pair = port_policy(policy, port).pair;
        Self {
            port,
            base: policy.transparent.domain(pair, 0),
        }
    }

    /// Of the packets of a group, which came in by `ingress`; `self` becomes the last one's.
    #[inline(always)]
    fn of_all(&mut self, policy: &Policy, ingress: &[PortId]) -> u32x8 {
        let others = ingress
            .iter()
            .fold(0, |others, port| others | (port.0 ^ self.port.0));
        if others == 0 {
            return u32x8::splat(self.base);
        }
        self.of_mixed(policy, ingress)
    }

    #[inline(never)]
    fn of_mixed(&mut self, policy: &Policy, ingress: &[PortId]) -> u32x8 {
        let mut domains = [0; LANES];
        for (port, domain) in ingress.iter().zip(&mut domains) {
            if *port != self.port {
                *self = Self::of(policy, *port);
            }
            *domain = self.base;
        }
        u32x8::new(domains)
    }
}

/// Stage 2: where each flow's session may be; the sessions are asked for. What has none for certain is what the rules have
/// to be asked about. Returns how many questions there are.
#[inline(never)]
pub(super) fn find_all<B: PacketBuf>(
    policy: &Policy,
    options: ParseOptions,
    scratch: &mut Scratch,
    table: Lookup<'_>,
    batch: &Batch<B>,
) -> usize {
    let (packets, _) = batch.parts();
    let mut questions = 0;
    for (place, packet) in packets.iter().enumerate() {
        let sight = &mut scratch.sights[place];
        sight.question = 0;
        if sight.parsed <= Parsed::Layer2 {
            sight.candidate = Candidate::NONE;
            continue;
        }
        sight.candidate = table.probe(sight.hash);
        if sight.candidate == Candidate::NONE {
            scratch.complete(place, packet, options);
            scratch.questions[questions] = first::question(&scratch.metas[place], policy);
            questions += 1;
            scratch.sights[place].question = questions as u8;
        }
    }
    questions
}

/// Is this packet looked up in the session table? ICMP errors and fragments are not: they belong to the flow of the
/// packet that they carry or are part of. (Tagged frames that are not looked into are [`PacketKind::NonIp`].)
#[inline(always)]
fn belongs_to_flow(meta: &PacketMeta) -> bool {
    matches!(
        meta.kind,
        PacketKind::Tcp | PacketKind::Udp | PacketKind::Echo | PacketKind::Icmp | PacketKind::OtherIp
    )
}
