//! Sealing: one thread's key, counter and epoch.

use aes_gcm::{AeadInPlace as _, Aes256Gcm};

use super::header::{Header, Kind, Salt};
use super::key::{Mixed, Traffic};
use super::{HEADER, OVERHEAD, SealConfig, SealError, TAG};
use crate::base::Nanos;

/// What one thread seals with. Its key is used for so many datagrams or so long, then the next epoch's is derived.
pub struct Sealer {
    traffic: Traffic,
    cipher: Aes256Gcm,
    header: Header,
    rekey_after: u64,
    rekey_time: Nanos,
    /// Since when the present key is used, and for how many datagrams.
    since: Nanos,
    used: u64,
    rekeyed: bool,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// `salts`: the own one, and the peer's.
    pub(super) fn new(
        config: &SealConfig,
        mixed: &Mixed,
        kind: Kind,
        thread: u16,
        salts: [Salt; 2],
        now: Nanos,
    ) -> Self {
        let traffic = mixed.traffic(config.node, salts);
        let [salt, to] = salts;
        Self {
            cipher: traffic.cipher(thread, 0),
            traffic,
            header: Header {
                kind,
                node: config.node,
                thread,
                epoch: 0,
                to: to.mark(),
                counter: 1,
                salt,
            },
            rekey_after: config.rekey_after.max(1),
            rekey_time: config.rekey_time,
            since: now,
            used: 0,
            rekeyed: false,
        }
    }

    /// The counter of the next datagram.
    pub(super) const fn counter(&self) -> u64 {
        self.header.counter
    }

    /// Goes on after datagrams that other sealers of the thread have made.
    pub(super) const fn set_counter(&mut self, counter: u64) {
        self.header.counter = counter;
    }

    /// Has the key changed since this was last asked?
    pub(super) const fn take_rekeyed(&mut self) -> bool {
        std::mem::replace(&mut self.rekeyed, false)
    }

    /// Seals what is in `out` behind [`HEADER`] bytes, in its place, and appends the tag.
    ///
    /// # Errors
    ///
    /// `out` is shorter than a header, or the keys are used up.
    pub fn seal(&mut self, now: Nanos, out: &mut Vec<u8>) -> Result<(), SealError> {
        if out.len() < HEADER {
            return Err(SealError::NoRoom);
        }
        out.resize(out.len() + TAG, 0);
        let sealed = self.seal_in_place(now, out);
        if sealed.is_err() {
            out.truncate(out.len() - TAG);
        }
        sealed
    }

    /// The same of a buffer that has room for the tag behind the plaintext: it is the whole datagram. Allocates nothing.
    ///
    /// # Errors
    ///
    /// `datagram` is shorter than header and tag, or the keys are used up.
    pub fn seal_in_place(&mut self, now: Nanos, datagram: &mut [u8]) -> Result<(), SealError> {
        if datagram.len() < OVERHEAD {
            return Err(SealError::NoRoom);
        }
        if self.used >= self.rekey_after || now.since(self.since) >= self.rekey_time {
            self.rekey(now)?;
        }
        let counter = self.header.counter;
        let next = counter.checked_add(1).ok_or(SealError::Exhausted)?;
        let header = self.header.to_bytes();
        let nonce = Header::nonce(self.header.thread, counter);
        let (head, rest) = datagram.split_at_mut(HEADER);
        let (plain, tag_place) = rest.split_at_mut(rest.len() - TAG);
        head.copy_from_slice(&header);
        let tag = self
            .cipher
            .encrypt_in_place_detached(&nonce.into(), &header, plain)
            .map_err(|_| SealError::Exhausted)?;
        tag_place.copy_from_slice(&tag);
        self.header.counter = next;
        self.used += 1;
        Ok(())
    }

    #[cold]
    fn rekey(&mut self, now: Nanos) -> Result<(), SealError> {
        let epoch = self.header.epoch.checked_add(1).ok_or(SealError::Exhausted)?;
        self.header.epoch = epoch;
        self.cipher = self.traffic.cipher(self.header.thread, epoch);
        (self.since, self.used, self.rekeyed) = (now, 0, true);
        Ok(())
    }
}
