//! A device's RSS: what it can do, and setting key, hash types and table and reading them back. Whether it then does what it
//! was told is for packets to prove ([`crate::flow::Proof`]).

use super::{Open, driver::sorts, strerror, sys};
use crate::flow::owner::{BucketTable, KEY_BYTES, Method, Unfit};
use crate::flow::proof::{Kind, Kinds};

/// Bytes of key of a driver that does not say: Microsoft's.
const USUAL_KEY: u8 = KEY_BYTES as u8;
/// Smallest table that is of use.
const LEAST_ENTRIES: u16 = 2;

/// What a device says of its RSS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RssAbilities {
    /// Bytes of key that it takes.
    pub key_bytes: u8,
    /// Entries of its table; 0: it has none that could be set.
    pub entries: u16,
    /// What it hashes as we do: TCP and UDP by addresses and ports, ICMP by addresses.
    pub kinds: Kinds,
    /// It hands the hash over with the packet.
    pub tells_hash: bool,
    /// It does plain Toeplitz.
    pub plain: bool,
    /// It XORs source and destination first.
    pub symmetric: bool,
    /// It sorts source and destination first.
    pub sorted: bool,
    /// DPDK's hash types to ask for.
    types: u64,
    /// `HX_HASH_...` as the device says; 0: it does not.
    algorithms: u32,
    /// What it takes for XORing is sorting.
    sorts: bool,
}

/// Why a device's RSS is of no use, so that software has to place its packets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RssError {
    /// Nothing to set.
    #[error("the device has no RSS with a table that can be set")]
    None,
    /// Without it nothing can be proved.
    #[error("the device does not hand the hash over with a packet")]
    NoHash,
    /// There is nothing to choose.
    #[error("one worker owns all flows")]
    OneWorker,
    /// A flow's owner may have no queue there.
    #[error("it has {queues} receive queue(s) for {workers} workers")]
    Queues {
        /// Its receive queues.
        queues: u16,
        /// Workers of the node.
        workers: u16,
    },
    /// It would hash IPv6 with bits that we do not know.
    #[error("its RSS key has {0} bytes: {KEY_BYTES} or more are needed for the addresses and ports of IPv6")]
    KeyLength(u8),
    /// It cannot hash like that.
    #[error("it cannot hash by the node's method ({})", .0.name())]
    Method(Method),
    /// Its table cannot say who owns what.
    #[error(transparent)]
    Table(Unfit),
    /// The driver refused something.
    #[error("the driver does not take {what}: {why}")]
    Refused {
        /// The RSS key, and so on.
        what: &'static str,
        /// In DPDK's words.
        why: String,
    },
    /// What was set is not what is there.
    #[error("{0} read back from it is not what was set")]
    Differs(&'static str),
}

impl RssError {
    /// Is it more than a matter of what the device is: something went wrong?
    #[must_use]
    pub const fn is_fault(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Differs(_) | Self::KeyLength(_))
    }
}

/// What a port of the node is to hash with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RssSetup {
    /// The node's method.
    pub method: Method,
    /// The key of this port's side.
    pub key: [u8; KEY_BYTES],
}

impl RssAbilities {
    pub(super) fn of(info: &sys::rte_eth_dev_info, driver: &str) -> Self {
        let sorts = sorts(driver);
        let has = |types: u64| info.flow_type_rss_offloads & types != 0;
        let kinds = [
            (Kind::Ipv4Tcp, sys::HX_RSS_IPV4_TCP),
            (Kind::Ipv4Udp, sys::HX_RSS_IPV4_UDP),
            (Kind::Ipv4Icmp, sys::HX_RSS_IPV4_OTHER),
            (Kind::Ipv6Tcp, sys::HX_RSS_IPV6_TCP),
            (Kind::Ipv6Udp, sys::HX_RSS_IPV6_UDP),
            (Kind::Ipv6Icmp, sys::HX_RSS_IPV6_OTHER),
        ];
        let wanted = sys::HX_RSS_IPV4
            | sys::HX_RSS_IPV4_TCP
            | sys::HX_RSS_IPV4_UDP
            | sys::HX_RSS_IPV6
            | sys::HX_RSS_IPV6_TCP
            | sys::HX_RSS_IPV6_TCP_EX
            | sys::HX_RSS_IPV6_UDP;
        // SAFETY: reads the structure.
        let algorithms = unsafe { sys::hx_rss_algorithms(info) };
        let types = info.flow_type_rss_offloads & wanted;
        let says = |algorithm: u32| algorithms & algorithm != 0;
        Self {
            key_bytes: if info.hash_key_size == 0 {
                USUAL_KEY
            } else {
                info.hash_key_size
            },
            entries: info.reta_size,
            kinds: Kinds::of(
                kinds
                    .into_iter()
                    .filter(|(_, types)| has(*types))
                    .map(|(kind, _)| kind),
            ),
            tells_hash: info.rx_offload_capa & sys::HX_OFFLOAD_RX_RSS_HASH != 0,
            // Where it does not say, that is what RSS means.
            plain: types != 0 && (algorithms == 0 || says(sys::HX_HASH_TOEPLITZ)),
            symmetric: !sorts && says(sys::HX_HASH_SYMMETRIC),
            sorted: says(sys::HX_HASH_SORTED) || sorts && says(sys::HX_HASH_SYMMETRIC),
            types,
            algorithms,
            sorts,
        }
    }

    /// Can it spread packets over its queues at all?
    pub(super) const fn spreads(&self) -> bool {
        self.types != 0
    }

    /// Can it hash by this method, in a way that can be proved?
    ///
    /// # Errors
    /// Why it cannot.
    pub fn can(&self, method: Method) -> Result<(), RssError> {
        if self.kinds.is_empty() || self.entries < LEAST_ENTRIES {
            return Err(RssError::None);
        }
        if !self.tells_hash {
            return Err(RssError::NoHash);
        }
        if !self.entries.is_power_of_two() {
            return Err(RssError::Table(Unfit::Odd(self.entries)));
        }
        if usize::from(self.key_bytes) < KEY_BYTES {
            return Err(RssError::KeyLength(self.key_bytes));
        }
        let can = match method {
            Method::SymmetricToeplitz => self.symmetric,
            Method::Sorted => self.sorted,
            Method::TwoSided | Method::SymmetricKey => self.plain,
        };
        if can {
            Ok(())
        } else {
            Err(RssError::Method(method))
        }
    }
}

/// A key of the length that a device takes: cut or repeated. What is beyond [`KEY_BYTES`] is never hashed with.
///
/// # Errors
/// The device takes a shorter one.
pub(super) fn device_key(key: &[u8; KEY_BYTES], bytes: u8) -> Result<Vec<u8>, RssError> {
    if usize::from(bytes) < KEY_BYTES {
        return Err(RssError::KeyLength(bytes));
    }
    Ok(key.iter().copied().cycle().take(bytes.into()).collect())
}

/// The algorithm of a method, as the shim has it.
const fn algorithm(method: Method) -> u32 {
    match method {
        Method::SymmetricToeplitz => sys::HX_HASH_SYMMETRIC,
        Method::Sorted => sys::HX_HASH_SORTED,
        Method::TwoSided | Method::SymmetricKey => sys::HX_HASH_TOEPLITZ,
    }
}

fn refused(what: &'static str, error: i32) -> RssError {
    RssError::Refused {
        what,
        why: strerror(error),
    }
}

impl Open {
    /// What `rte_eth_dev_configure` is to be told; `None`: one queue, or a device that knows nothing of it. `key` is the storage.
    pub(super) fn rss_conf(&self, key: &mut Vec<u8>) -> Option<sys::hx_rss> {
        (self.setup.rx_queues > 1 && self.rss.spreads()).then(|| {
            let setup = self.rss_setup.as_ref();
            if let Some(Ok(bytes)) = setup.map(|setup| device_key(&setup.key, self.rss.key_bytes)) {
                *key = bytes;
            }
            self.hx_rss(setup, key)
        })
    }

    fn hx_rss(&self, setup: Option<&RssSetup>, key: &[u8]) -> sys::hx_rss {
        sys::hx_rss {
            key: if key.is_empty() {
                std::ptr::null()
            } else {
                key.as_ptr()
            },
            key_len: key.len() as u8,
            types: self.rss.types,
            algorithm: setup.map_or(sys::HX_HASH_TOEPLITZ, |setup| algorithm(setup.method)),
        }
    }

    /// Where a device does not say whether it can hash symmetrically: by a flow rule that is tried. What that means to mlx5 is
    /// to sort.
    pub(super) fn try_symmetric(&mut self) {
        if self.rss.algorithms != 0 || self.rss.can(Method::TwoSided).is_err() {
            return;
        }
        let rss = self.hx_rss(None, &[]);
        let queues: Vec<u16> = (0..self.setup.rx_queues).collect();
        let tried = [&[][..], &queues].into_iter().any(|queues| {
            // SAFETY: a configured port; all that is pointed to lives until the call returns.
            let error = unsafe {
                sys::hx_rss_flows(
                    self.id,
                    &raw const rss,
                    queues.as_ptr(),
                    queues.len() as u16,
                    false,
                )
            };
            error == 0
        });
        self.rss.sorted = tried && self.rss.sorts;
        self.rss.symmetric = tried && !self.rss.sorts;
    }

    /// Sets up a started device: the key if it does not have it yet, rules where hashing symmetrically takes them, the table,
    /// all of it read back.
    pub(super) fn apply_rss(&mut self, table: &BucketTable) -> Result<(), RssError> {
        let Some(setup) = self.rss_setup else {
            return Err(RssError::None);
        };
        self.rss.can(setup.method)?;
        self.set_key(&setup)?;
        self.set_table(table)?;
        let by_rule =
            self.rss.algorithms == 0 && matches!(setup.method, Method::SymmetricToeplitz | Method::Sorted);
        if by_rule {
            self.make_rules(&setup, table)
        } else {
            Ok(())
        }
    }

    /// The device's table as the logical one says, folded or repeated; read back.
    pub(super) fn set_table(&self, table: &BucketTable) -> Result<(), RssError> {
        if self.table_in_rules {
            return Err(refused("another table: it stands in its flow rules", libc::EBUSY));
        }
        let entries: Vec<u16> = table
            .device_entries(self.rss.entries)
            .map_err(RssError::Table)?
            .map(|worker| worker.0)
            .collect();
        if let Some(most) = entries.iter().max().filter(|most| **most >= self.setup.rx_queues) {
            return Err(RssError::Queues {
                queues: self.setup.rx_queues,
                workers: most + 1,
            });
        }
        self.write_table(&entries)?;
        let read = self.read_table()?;
        if read == entries {
            Ok(())
        } else {
            Err(RssError::Differs("the table"))
        }
    }

    /// Of a device whose packets software places: all its queues are to get some, if it can be told.
    pub(super) fn spread_evenly(&self) {
        let (size, queues) = (self.rss.entries, self.setup.rx_queues);
        if queues > 1 && self.rss.spreads() && size > 0 {
            let entries: Vec<u16> = (0..size).map(|i| i % queues).collect();
            if let Err(why) = self.write_table(&entries) {
                tracing::debug!(port = %self.name, "{why}");
            }
        }
    }

    fn write_table(&self, entries: &[u16]) -> Result<(), RssError> {
        if entries.len() > sys::HX_RETA_MOST as usize {
            return Err(refused("a table of that size", libc::EINVAL));
        }
        // SAFETY: a configured port; as many entries as are said.
        match unsafe { sys::hx_reta_set(self.id, entries.as_ptr(), entries.len() as u16) } {
            0 => Ok(()),
            error => Err(refused("its table", error)),
        }
    }

    /// The device's table.
    pub(super) fn read_table(&self) -> Result<Vec<u16>, RssError> {
        let size = self.rss.entries;
        if u32::from(size) > sys::HX_RETA_MOST {
            return Err(refused("a table of that size", libc::EINVAL));
        }
        let mut entries = vec![0; size.into()];
        // SAFETY: room for as many entries as are said.
        match unsafe { sys::hx_reta_get(self.id, entries.as_mut_ptr(), size) } {
            0 => Ok(entries),
            error => Err(RssError::Refused {
                what: "a question for its table",
                why: strerror(error),
            }),
        }
    }

    fn set_key(&self, setup: &RssSetup) -> Result<(), RssError> {
        let key = device_key(&setup.key, self.rss.key_bytes)?;
        if self.read_key().is_ok_and(|read| read == key) {
            return Ok(());
        }
        let rss = self.hx_rss(Some(setup), &key);
        // SAFETY: a configured port; the key lives until the call returns.
        let error = unsafe { sys::hx_rss_set(self.id, &raw const rss) };
        if error != 0 {
            return Err(refused("its RSS key", error));
        }
        match self.read_key() {
            Ok(read) if read != key => Err(RssError::Differs("the RSS key")),
            // It has no way to tell: packets will.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The device's key.
    pub(super) fn read_key(&self) -> Result<Vec<u8>, RssError> {
        // Some drivers write a key of the usual length whatever they are told.
        let mut key = vec![0; usize::from(u8::MAX)];
        let mut types = 0;
        // SAFETY: room for any key.
        match unsafe { sys::hx_rss_get(self.id, key.as_mut_ptr(), self.rss.key_bytes, &raw mut types) } {
            0 => {
                key.truncate(self.rss.key_bytes.into());
                Ok(key)
            }
            error => Err(refused("a question for its RSS key", error)),
        }
    }

    /// Symmetric hashing by flow rules: without queues, so that the table counts; else with the table in the rules.
    fn make_rules(&mut self, setup: &RssSetup, table: &BucketTable) -> Result<(), RssError> {
        let key = device_key(&setup.key, self.rss.key_bytes)?;
        let rss = self.hx_rss(Some(setup), &key);
        let entries: Vec<u16> = table
            .device_entries(self.rss.entries)
            .map_err(RssError::Table)?
            .map(|worker| worker.0)
            .collect();
        let mut error = 0;
        for queues in [&[][..], &entries] {
            // SAFETY: a started port; all that is pointed to lives until the call returns.
            error = unsafe {
                sys::hx_rss_flows(
                    self.id,
                    &raw const rss,
                    queues.as_ptr(),
                    queues.len() as u16,
                    true,
                )
            };
            if error == 0 {
                self.table_in_rules = !queues.is_empty();
                return Ok(());
            }
        }
        Err(refused("flow rules for symmetric hashing", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{KeySet, OwnerFunction, Side, Tuple};
    use proptest::prelude::*;

    /// `rte_softrss_be` over the input that the device of a port on this side hashes.
    fn reference(method: Method, keys: &KeySet, side: Side, tuple: &Tuple) -> u32 {
        let from = if tuple.is_ipv4 { 12 } else { 0 };
        let words = |address: &[u8; 16]| -> Vec<u32> {
            let bytes = address[from..].chunks_exact(4);
            bytes
                .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
                .collect()
        };
        let (mut source, mut destination) = (words(&tuple.source), words(&tuple.destination));
        let (mut from_port, mut to_port) = (u32::from(tuple.source_port), u32::from(tuple.destination_port));
        match method {
            Method::SymmetricToeplitz => {
                for (a, b) in source.iter_mut().zip(&mut destination) {
                    *a ^= *b;
                    *b = *a;
                }
                from_port ^= to_port;
                to_port = from_port;
            }
            Method::Sorted => {
                if source > destination {
                    std::mem::swap(&mut source, &mut destination);
                }
                (from_port, to_port) = (from_port.min(to_port), from_port.max(to_port));
            }
            Method::TwoSided | Method::SymmetricKey => {}
        }
        let mut input = source;
        input.extend(destination);
        if tuple.has_ports {
            input.push((from_port << 16) | to_port);
        }
        // SAFETY: as many words as are said, and a key of 40 bytes.
        unsafe { sys::hx_softrss(input.as_ptr(), input.len() as u32, keys.key(side).as_ptr()) }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn hashes_are_those_of_rte_softrss_be(
            addresses in any::<[[u8; 16]; 2]>(),
            ports in any::<[u16; 2]>(),
            (is_ipv4, has_ports, wan) in any::<(bool, bool, bool)>(),
            entropy in any::<[u8; KEY_BYTES]>(),
            method in prop::sample::select(&[Method::SymmetricToeplitz, Method::Sorted, Method::TwoSided, Method::SymmetricKey][..]),
        ) {
            let [source, destination] = addresses.map(|mut address| {
                if is_ipv4 {
                    address[..12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
                }
                address
            });
            let tuple = Tuple { source, destination, source_port: ports[0], destination_port: ports[1], is_ipv4, has_ports };
            let side = if wan { Side::Wan } else { Side::Lan };
            let keys = KeySet::draw(method, &entropy);
            let function = OwnerFunction::new(method, keys).unwrap();
            prop_assert_eq!(function.hash(side, &tuple), reference(method, &keys, side, &tuple));
            let back = tuple.reverse();
            prop_assert_eq!(reference(method, &keys, side.opposite(), &back), function.hash(side, &tuple));
        }
    }

    #[test]
    fn keys_are_cut_or_repeated_to_the_device_s_length() {
        let key: [u8; KEY_BYTES] = std::array::from_fn(|i| i as u8);
        for bytes in [40u8, 41, 47, 48, 52, 80, 255] {
            let device = device_key(&key, bytes).unwrap();
            assert_eq!(device.len(), usize::from(bytes));
            assert!(device.iter().zip(0..).all(|(byte, i)| *byte == i % 40));
        }
        for bytes in [0, 1, 16, 39] {
            let error = device_key(&key, bytes).unwrap_err();
            assert_eq!(error, RssError::KeyLength(bytes));
            assert!(error.to_string().contains(&format!("{bytes} bytes")), "{error}");
        }
    }

    #[test]
    fn a_device_can_what_it_says() {
        let device = RssAbilities {
            key_bytes: 52,
            entries: 512,
            kinds: Kinds::ALL,
            tells_hash: true,
            plain: true,
            ..RssAbilities::default()
        };
        assert_eq!(device.can(Method::TwoSided), Ok(()));
        assert_eq!(device.can(Method::SymmetricKey), Ok(()));
        assert_eq!(device.can(Method::Sorted), Err(RssError::Method(Method::Sorted)));
        let symmetric = RssAbilities {
            symmetric: true,
            ..device.clone()
        };
        assert_eq!(symmetric.can(Method::SymmetricToeplitz), Ok(()));
        let lacks = |change: fn(&mut RssAbilities)| {
            let mut device = device.clone();
            change(&mut device);
            device.can(Method::TwoSided).unwrap_err()
        };
        assert_eq!(lacks(|d| d.tells_hash = false), RssError::NoHash);
        assert_eq!(lacks(|d| d.kinds = Kinds::NONE), RssError::None);
        assert_eq!(lacks(|d| d.entries = 0), RssError::None);
        assert_eq!(lacks(|d| d.entries = 48), RssError::Table(Unfit::Odd(48)));
        assert_eq!(lacks(|d| d.key_bytes = 16), RssError::KeyLength(16));
    }
}
