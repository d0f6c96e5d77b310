//! The owner function (ARCHITECTURE.md, invariant 2): which worker a flow belongs to, by the hash that network cards compute for
//! RSS (Toeplitz), made so that both directions of a flow have the same one. Software and device agree bit for bit.
//!
//! What a card puts into the hash is Microsoft's layout ("RSS hashing types"): source address, destination address, and for
//! TCP and UDP source port, destination port, in network byte order.

pub mod balance;
mod keys;
mod table;

pub use keys::{KEY_BYTES, KeyError, KeySet, Method};
pub use table::{BUCKETS, BucketSet, BucketTable, Unfit};

use super::{Direction, FlowKey, KeyClass};
use crate::packet::{PacketKind, PacketMeta};

/// Bytes that are hashed at most: two IPv6 addresses and two ports.
const INPUT: usize = 36;

/// Which side of the firewall a port is on. Of a pair one port is on each; only [`Method::TwoSided`] asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first port of a pair.
    #[default]
    Lan,
    /// The other one.
    Wan,
}

impl Side {
    /// The other one: of the packet that an ICMP error carries, which once came by there.
    #[inline(always)]
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Lan => Self::Wan,
            Self::Wan => Self::Lan,
        }
    }
}

/// What of a packet says who owns its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address, likewise.
    pub destination: [u8; 16],
    /// Source port, host byte order; without `has_ports` nothing.
    pub source_port: u16,
    /// Destination port, likewise.
    pub destination_port: u16,
    /// Both addresses are of IPv4.
    pub is_ipv4: bool,
    /// TCP or UDP: by addresses and ports; anything else by the addresses alone.
    pub has_ports: bool,
}

/// Are the bytes an IPv4-mapped address (RFC 4291, section 2.5.5.2)?
#[inline(always)]
pub(super) const fn is_mapped(address: &[u8; 16]) -> bool {
    u128::from_be_bytes(*address) >> 32 == 0xffff
}

impl Tuple {
    /// Of a parsed packet of IP that is neither a fragment (it has no ports yet) nor an ICMP error (it belongs to the flow of
    /// the packet in it). As in [`FlowKey`], mapped addresses count as IPv4 whatever the frame says.
    #[inline(always)]
    #[must_use]
    pub fn of(meta: &PacketMeta) -> Self {
        Self {
            source: meta.source,
            destination: meta.destination,
            source_port: meta.source_port,
            destination_port: meta.destination_port,
            is_ipv4: is_mapped(&meta.source) && is_mapped(&meta.destination),
            has_ports: matches!(meta.kind, PacketKind::Tcp | PacketKind::Udp),
        }
    }

    /// Of a packet of this flow that goes in this direction.
    #[must_use]
    pub fn of_key(key: &FlowKey, direction: Direction) -> Self {
        let tuple = Self {
            source: key.low,
            destination: key.high,
            source_port: key.low_port,
            destination_port: key.high_port,
            is_ipv4: key.is_ipv4(),
            has_ports: key.class == KeyClass::Ports,
        };
        match direction {
            Direction::LowToHigh => tuple,
            Direction::HighToLow => tuple.reverse(),
        }
    }

    /// Of the packet that goes back.
    #[inline(always)]
    #[must_use]
    pub const fn reverse(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..*self
        }
    }
}

/// One byte of the input: what each of its values adds to the hash.
type Table = [u32; 256];

/// The hash is linear: what the input's bytes add is looked up and XORed. Boxed: cold but for the first cache lines of an IPv4
/// packet's tables.
#[derive(Clone, Debug)]
enum Tables {
    /// [`Method::SymmetricToeplitz`]: source and destination are XORed first, and each byte of the result stands in both places.
    /// Four bytes of addresses and two of ports (6 KiB); then the same for IPv6.
    Xor(Box<([Table; 6], [Table; 18])>),
    /// [`Method::Sorted`]: by the byte's place in the input (12 KiB for IPv4).
    Sorted(Box<[Table; INPUT]>),
    /// [`Method::TwoSided`]: the same with the key of the LAN side.
    TwoSided(Box<[Table; INPUT]>),
    /// [`Method::SymmetricKey`]: the hash of the XOR of all 16-bit words, by its two bytes (2 KiB).
    Fold(Box<[Table; 2]>),
}

/// The hash of a node: one method and one key set for all its ports.
#[derive(Clone, Debug)]
pub struct OwnerFunction {
    method: Method,
    keys: KeySet,
    tables: Tables,
}

impl OwnerFunction {
    /// # Errors
    /// The keys do not make the method symmetric.
    pub fn new(method: Method, keys: KeySet) -> Result<Self, KeyError> {
        keys.fit(method)?;
        let tables = match method {
            Method::SymmetricToeplitz => {
                let both = |i: usize, j: usize| added(|byte| keys.lan_adds(i, byte) ^ keys.lan_adds(j, byte));
                Tables::Xor(Box::new((
                    std::array::from_fn(|i| if i < 4 { both(i, i + 4) } else { both(i + 4, i + 6) }),
                    std::array::from_fn(|i| {
                        if i < 16 {
                            both(i, i + 16)
                        } else {
                            both(i + 16, i + 18)
                        }
                    }),
                )))
            }
            Method::Sorted => Tables::Sorted(keys.tables()),
            Method::TwoSided => Tables::TwoSided(keys.tables()),
            Method::SymmetricKey => Tables::Fold(Box::new(std::array::from_fn(|i| {
                added(|byte| keys.lan_adds(i, byte))
            }))),
        };
        Ok(Self { method, keys, tables })
    }

    /// How it hashes.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// What the devices are given.
    #[must_use]
    pub const fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// The hash that the device of a port on this side computes for a packet; the same for both directions of a flow, each
    /// by its own side.
    #[inline]
    #[must_use]
    pub fn hash(&self, side: Side, tuple: &Tuple) -> u32 {
        if tuple.is_ipv4 {
            let address = |a: &[u8; 16]| u32::from_le_bytes([a[12], a[13], a[14], a[15]]);
            let (source, destination) = (address(&tuple.source), address(&tuple.destination));
            return if tuple.has_ports {
                self.hash_ipv4_ports(
                    side,
                    source,
                    destination,
                    tuple.source_port,
                    tuple.destination_port,
                )
            } else {
                self.hash_ipv4(side, source, destination)
            };
        }
        self.hash_ipv6(side, tuple)
    }

    /// [`Self::hash`] of IPv4 with TCP or UDP. Addresses as [`crate::packet::Straight`] and [`crate::packet::Lanes`] have them:
    /// the bytes in the order of the wire read as a little-endian number; ports in host byte order.
    #[inline(always)]
    #[must_use]
    pub fn hash_ipv4_ports(
        &self,
        side: Side,
        source: u32,
        destination: u32,
        source_port: u16,
        destination_port: u16,
    ) -> u32 {
        let ports = |from: u16, to: u16| u32::from(from.swap_bytes()) | (u32::from(to.swap_bytes()) << 16);
        match &self.tables {
            Tables::Xor(tables) => {
                let address = (source ^ destination).to_le_bytes();
                let port = (source_port ^ destination_port).to_be_bytes();
                let [a, b, c, d, e, f] = &tables.0;
                at(a, address[0])
                    ^ at(b, address[1])
                    ^ at(c, address[2])
                    ^ at(d, address[3])
                    ^ at(e, port[0])
                    ^ at(f, port[1])
            }
            Tables::Sorted(tables) => {
                let (low, high) = sorted(source, destination);
                let (from, to) = (
                    source_port.min(destination_port),
                    source_port.max(destination_port),
                );
                words(tables, [low, high, ports(from, to)])
            }
            Tables::TwoSided(tables) => {
                let (from, to) = lan(side, source, destination);
                let (from_port, to_port) = lan(side, source_port, destination_port);
                words(tables, [from, to, ports(from_port, to_port)])
            }
            Tables::Fold(tables) => {
                let addresses = source ^ destination;
                let fold =
                    addresses ^ (addresses >> 16) ^ u32::from((source_port ^ destination_port).swap_bytes());
                folded(tables, fold as u16)
            }
        }
    }

    /// [`Self::hash`] of IPv4 without ports; addresses as there.
    #[inline]
    #[must_use]
    pub fn hash_ipv4(&self, side: Side, source: u32, destination: u32) -> u32 {
        match &self.tables {
            // Nothing XORed with nothing adds nothing.
            Tables::Xor(_) | Tables::Fold(_) => self.hash_ipv4_ports(side, source, destination, 0, 0),
            Tables::Sorted(tables) => {
                let (low, high) = sorted(source, destination);
                words(tables, [low, high])
            }
            Tables::TwoSided(tables) => {
                let (from, to) = lan(side, source, destination);
                words(tables, [from, to])
            }
        }
    }

    fn hash_ipv6(&self, side: Side, tuple: &Tuple) -> u32 {
        let (source, destination) = (&tuple.source, &tuple.destination);
        let (source_port, destination_port) = match tuple.has_ports {
            true => (tuple.source_port, tuple.destination_port),
            // Zeros add nothing, whatever the method.
            false => (0, 0),
        };
        match &self.tables {
            Tables::Xor(tables) => {
                let pairs = source.iter().zip(destination).map(|(a, b)| a ^ b);
                let port = (source_port ^ destination_port).to_be_bytes();
                xor_all(&tables.1, pairs.chain(port))
            }
            Tables::Sorted(tables) => {
                let (low, high) = if source > destination {
                    (destination, source)
                } else {
                    (source, destination)
                };
                let (from, to) = (
                    source_port.min(destination_port),
                    source_port.max(destination_port),
                );
                xor_all(&tables[..], input(low, high, from, to))
            }
            Tables::TwoSided(tables) => {
                let (from, to) = lan(side, source, destination);
                let (from_port, to_port) = lan(side, source_port, destination_port);
                xor_all(&tables[..], input(from, to, from_port, to_port))
            }
            Tables::Fold(tables) => {
                let addresses = u128::from_le_bytes(*source) ^ u128::from_le_bytes(*destination);
                let addresses = (addresses as u64) ^ ((addresses >> 64) as u64);
                let addresses = (addresses as u32) ^ ((addresses >> 32) as u32);
                let fold =
                    addresses ^ (addresses >> 16) ^ u32::from((source_port ^ destination_port).swap_bytes());
                folded(tables, fold as u16)
            }
        }
    }
}

/// A table of what one byte adds.
fn added(of: impl Fn(u8) -> u32) -> Table {
    std::array::from_fn(|byte| of(byte as u8))
}

#[inline(always)]
fn at(table: &Table, byte: u8) -> u32 {
    table[usize::from(byte)]
}

/// A fold, its bytes in the order of the wire.
#[inline(always)]
fn folded(tables: &[Table; 2], fold: u16) -> u32 {
    let [first, second] = fold.to_le_bytes();
    at(&tables[0], first) ^ at(&tables[1], second)
}

/// The input in words whose bytes are in the order of the wire.
#[inline(always)]
fn words<const N: usize>(tables: &[Table; INPUT], words: [u32; N]) -> u32 {
    let mut hash = 0;
    for (i, word) in words.into_iter().enumerate() {
        let [a, b, c, d] = word.to_le_bytes();
        hash ^= at(&tables[4 * i], a)
            ^ at(&tables[4 * i + 1], b)
            ^ at(&tables[4 * i + 2], c)
            ^ at(&tables[4 * i + 3], d);
    }
    hash
}

fn xor_all(tables: &[Table], input: impl IntoIterator<Item = u8>) -> u32 {
    tables
        .iter()
        .zip(input)
        .fold(0, |hash, (table, byte)| hash ^ at(table, byte))
}

/// The input of IPv6 with ports.
fn input(source: &[u8; 16], destination: &[u8; 16], source_port: u16, destination_port: u16) -> [u8; INPUT] {
    let mut input = [0; INPUT];
    input[..16].copy_from_slice(source);
    input[16..32].copy_from_slice(destination);
    input[32..34].copy_from_slice(&source_port.to_be_bytes());
    input[34..].copy_from_slice(&destination_port.to_be_bytes());
    input
}

/// The lower address first, as numbers of the network's byte order.
#[inline(always)]
fn sorted(a: u32, b: u32) -> (u32, u32) {
    let (x, y) = (a.swap_bytes(), b.swap_bytes());
    (x.min(y).swap_bytes(), x.max(y).swap_bytes())
}

/// What a port of the WAN side hashes, the LAN side hashes of the packet that goes back.
#[inline(always)]
fn lan<T>(side: Side, source: T, destination: T) -> (T, T) {
    match side {
        Side::Lan => (source, destination),
        Side::Wan => (destination, source),
    }
}
