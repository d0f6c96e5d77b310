//! Opening: what is known of each of the peer's threads.

use aes_gcm::{AeadInPlace as _, Aes256Gcm};

use super::header::{Header, Kind, Salt};
use super::key::{Mixed, Traffic};
use super::send::Sealer;
use super::window::Window;
use super::{HEADER, Refused, SealConfig, TAG, THREADS};
use crate::base::Nanos;

/// Two salts, and what was sealed under them.
pub(super) struct Association {
    pub(super) own: Salt,
    pub(super) peer: Salt,
    /// The HA thread's.
    pub(super) sealer: Sealer,
    /// Of what the peer seals.
    traffic: Traffic,
    grace: Nanos,
    /// By thread, as far as they have been heard.
    threads: Vec<Option<Box<Thread>>>,
    /// A bit for each thread that has a sealer.
    issued: [u64; (THREADS as usize).div_ceil(64)],
}

/// One of the peer's threads.
struct Thread {
    epoch: u32,
    cipher: Aes256Gcm,
    /// The epoch before, its cipher, and how long it is taken.
    former: Option<(u32, Aes256Gcm, Nanos)>,
    window: Window,
}

impl Association {
    /// Opens the first datagram of a new one in its place. `own`: the salt that it is sealed for.
    pub(super) fn begin(
        config: &SealConfig,
        mixed: &Mixed,
        now: Nanos,
        own: Salt,
        header: &Header,
        datagram: &mut [u8],
    ) -> Result<Self, Refused> {
        let traffic = mixed.traffic(config.peer(), [header.salt, own]);
        let thread = first(&traffic, header, datagram)?;
        let mut begun = Self {
            own,
            peer: header.salt,
            sealer: Sealer::new(config, mixed, Kind::Data, 0, [own, header.salt], now),
            traffic,
            grace: config.grace,
            threads: Vec::new(),
            // The HA thread's.
            issued: std::array::from_fn(|word| u64::from(word == 0)),
        };
        begun.put(header.thread, thread);
        Ok(begun)
    }

    fn put(&mut self, number: u16, thread: Thread) {
        let place = usize::from(number);
        if self.threads.len() <= place {
            self.threads.resize_with(place + 1, || None);
        }
        self.threads[place] = Some(Box::new(thread));
    }

    /// Is a datagram with this header one of this association?
    pub(super) fn is_of(&self, header: &Header) -> bool {
        header.salt == self.peer && header.to == self.own.mark()
    }

    /// A sealer for another thread, once.
    pub(super) fn issue(
        &mut self,
        config: &SealConfig,
        mixed: &Mixed,
        thread: u16,
        now: Nanos,
    ) -> Option<Sealer> {
        let bit = 1 << (thread % 64);
        let word = self.issued.get_mut(usize::from(thread / 64))?;
        if thread >= THREADS || *word & bit != 0 {
            return None;
        }
        *word |= bit;
        Some(Sealer::new(
            config,
            mixed,
            Kind::Data,
            thread,
            [self.own, self.peer],
            now,
        ))
    }

    /// Opens a datagram of it in its place, once.
    pub(super) fn open(&mut self, now: Nanos, header: &Header, datagram: &mut [u8]) -> Result<(), Refused> {
        let known = self.threads.get_mut(usize::from(header.thread));
        let Some(thread) = known.and_then(Option::as_mut) else {
            let thread = first(&self.traffic, header, datagram)?;
            self.put(header.thread, thread);
            return Ok(());
        };
        thread.window.check(header.counter)?;
        if header.epoch == thread.epoch {
            decrypt(&thread.cipher, header, datagram)?;
        } else if header.epoch > thread.epoch {
            // Any: whole epochs may have been lost.
            let cipher = self.traffic.cipher(header.thread, header.epoch);
            decrypt(&cipher, header, datagram)?;
            let former = std::mem::replace(&mut thread.cipher, cipher);
            thread.former = Some((thread.epoch, former, now.plus(self.grace)));
            thread.epoch = header.epoch;
        } else {
            let former = thread.former.as_ref();
            let (_, cipher, _) = former
                .filter(|(epoch, _, until)| *epoch == header.epoch && now < *until)
                .ok_or(Refused::Epoch)?;
            decrypt(cipher, header, datagram)?;
        }
        thread.window.mark(header.counter);
        Ok(())
    }
}

/// The first datagram of a thread.
fn first(traffic: &Traffic, header: &Header, datagram: &mut [u8]) -> Result<Thread, Refused> {
    let mut window = Window::default();
    window.check(header.counter)?;
    let cipher = traffic.cipher(header.thread, header.epoch);
    decrypt(&cipher, header, datagram)?;
    window.mark(header.counter);
    Ok(Thread {
        epoch: header.epoch,
        cipher,
        former: None,
        window,
    })
}

/// Opens one datagram of salts that nothing is known of.
pub(super) fn open_once(
    config: &SealConfig,
    mixed: &Mixed,
    header: &Header,
    salts: [Salt; 2],
    datagram: &mut [u8],
) -> Result<(), Refused> {
    let cipher = mixed
        .traffic(config.peer(), salts)
        .cipher(header.thread, header.epoch);
    decrypt(&cipher, header, datagram)
}

fn decrypt(cipher: &Aes256Gcm, header: &Header, datagram: &mut [u8]) -> Result<(), Refused> {
    let (head, rest) = datagram.split_at_mut_checked(HEADER).ok_or(Refused::Short)?;
    let (sealed, tag) = rest
        .len()
        .checked_sub(TAG)
        .and_then(|at| rest.split_at_mut_checked(at))
        .ok_or(Refused::Short)?;
    let nonce = Header::nonce(header.thread, header.counter);
    let tag: &[u8; TAG] = tag.first_chunk().ok_or(Refused::Short)?;
    cipher
        .decrypt_in_place_detached(&nonce.into(), head, sealed, tag.into())
        .map_err(|_| Refused::Forged)
}
