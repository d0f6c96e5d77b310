//! What servers announce in their SYN+ACKs, so that a cookie can announce it in their place.
//!
//! A direct-mapped table: a server that falls on another one's place takes it. What is known is forgotten after ten minutes and
//! learnt anew: a server may change, and one that was once seen without an option would never be offered it again.

use crate::base::{Memory, Slab, Tick};
use crate::flow::{Options, TableError};
use crate::policy::SynOptions;

/// Servers that are known at a time.
const PLACES: usize = 4096;
/// How long something is known, in ticks (10 minutes).
const LIFETIME: i32 = (600 * 1_000_000_000_u64 / Tick::NANOS) as i32;

/// A server: address, port, and the domain that its clients' sessions are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) address: [u8; 16],
    pub(super) domain: u32,
    pub(super) port: u16,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    server: Server,
    since: Tick,
    mss: u16,
    scale: u8,
    /// [`LIVE`] and so on.
    known: u8,
}

/// In `known`: the place is taken.
const LIVE: u8 = 1;
/// In `known`: `scale` is the server's.
const SCALE: u8 = 2;
/// In `known`: it has no window scale.
const NO_SCALE: u8 = 4;
/// In `known`: it permits selective acknowledgements.
const SACK: u8 = 8;
/// In `known`: it does not.
const NO_SACK: u8 = 16;
/// In `known`: it uses time stamps.
const TIMESTAMPS: u8 = 32;
/// In `known`: it does not.
const NO_TIMESTAMPS: u8 = 64;

/// Which options a SYN had: only who was asked says "no" by its silence.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offered {
    pub(super) scale: bool,
    pub(super) sack: bool,
    pub(super) timestamps: bool,
}

/// What a client is told of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Bytes.
    pub(super) mss: u16,
    pub(super) scale: Option<u8>,
    pub(super) sack: bool,
    pub(super) timestamps: bool,
}

/// The table.
pub(super) struct Learnt {
    places: Slab<Place>,
}

impl Learnt {
    pub(super) fn new(memory: &impl Memory) -> Result<Self, TableError> {
        Ok(Self {
            places: memory.slab(PLACES)?,
        })
    }

    /// What clients of `server`, whose hash is `hash`, are told: what is known, else `defaults`. (Their `mss` is for this IP
    /// version.)
    pub(super) fn told(&self, now: Tick, server: &Server, hash: u64, defaults: &SynOptions) -> Told {
        let mut told = Told {
            mss: defaults.mss,
            scale: Some(defaults.window_scale),
            sack: defaults.sack,
            timestamps: defaults.timestamps,
        };
        let Some(place) = self.find(server, hash).filter(|place| place.is_fresh(now)) else {
            return told;
        };
        if place.mss != 0 {
            told.mss = place.mss;
        }
        match place.known & (SCALE | NO_SCALE) {
            SCALE => told.scale = Some(place.scale),
            NO_SCALE => told.scale = None,
            _ => {}
        }
        told.sack = place.says(SACK, NO_SACK).unwrap_or(told.sack);
        told.timestamps = place.says(TIMESTAMPS, NO_TIMESTAMPS).unwrap_or(told.timestamps);
        told
    }

    /// The scales that clients of `server` may have been told of late: the default one, and what is known or was.
    pub(super) fn scales(&self, server: &Server, hash: u64, defaults: &SynOptions) -> [u8; 2] {
        let default = defaults.window_scale;
        let known = self.find(server, hash).filter(|place| place.known & SCALE != 0);
        [known.map_or(default, |place| place.scale), default]
    }

    /// Notes the options of a server's SYN+ACK.
    pub(super) fn learn(
        &mut self,
        now: Tick,
        server: &Server,
        hash: u64,
        options: &Options,
        offered: Offered,
    ) {
        let index = index(hash);
        let Some(place) = self.places.get_mut(index) else {
            return;
        };
        if place.known & LIVE == 0 || place.server != *server || !place.is_fresh(now) {
            *place = Place {
                server: *server,
                since: now,
                known: LIVE,
                ..Place::default()
            };
        }
        place.mss = options.mss.unwrap_or(place.mss);
        if let Some(scale) = options.scale {
            place.scale = scale;
        }
        place.note(options.scale.is_some(), offered.scale, SCALE, NO_SCALE);
        place.note(options.sack_permitted, offered.sack, SACK, NO_SACK);
        let stamped = options.timestamps.is_some();
        place.note(stamped, offered.timestamps, TIMESTAMPS, NO_TIMESTAMPS);
    }

    fn find(&self, server: &Server, hash: u64) -> Option<&Place> {
        let place = self.places.get(index(hash))?;
        (place.known & LIVE != 0 && place.server == *server).then_some(place)
    }
}

const fn index(hash: u64) -> usize {
    (hash >> 32) as usize % PLACES
}

impl Place {
    const fn is_fresh(&self, now: Tick) -> bool {
        let age = now.distance(self.since);
        age >= 0 && age < LIFETIME
    }

    const fn says(&self, yes: u8, no: u8) -> Option<bool> {
        match (self.known & yes != 0, self.known & no != 0) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }

    const fn note(&mut self, has: bool, offered: bool, yes: u8, no: u8) {
        if has {
            self.known = (self.known | yes) & !no;
        } else if offered {
            self.known = (self.known | no) & !yes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::HeapMemory;

    const DEFAULTS: SynOptions = SynOptions {
        mss: 1460,
        window_scale: 7,
        sack: true,
        timestamps: true,
    };
    const ALL: Offered = Offered {
        scale: true,
        sack: true,
        timestamps: true,
    };
    const BY_DEFAULT: Told = Told {
        mss: 1460,
        scale: Some(7),
        sack: true,
        timestamps: true,
    };

    fn server(port: u16) -> Server {
        Server {
            address: [9; 16],
            domain: 0,
            port,
        }
    }

    #[test]
    fn silence_says_no_only_when_it_was_asked() {
        let mut learnt = Learnt::new(&HeapMemory).unwrap();
        let poor = Options {
            mss: Some(536),
            ..Options::default()
        };
        learnt.learn(Tick(0), &server(1), 0, &poor, Offered::default());
        let told = Told {
            mss: 536,
            ..BY_DEFAULT
        };
        assert_eq!(learnt.told(Tick(0), &server(1), 0, &DEFAULTS), told);
        learnt.learn(Tick(0), &server(1), 0, &poor, ALL);
        let told = Told {
            mss: 536,
            scale: None,
            sack: false,
            timestamps: false,
        };
        assert_eq!(learnt.told(Tick(0), &server(1), 0, &DEFAULTS), told);
        let rich = Options {
            scale: Some(3),
            sack_permitted: true,
            timestamps: Some((1, 2)),
            ..Options::default()
        };
        learnt.learn(Tick(0), &server(1), 0, &rich, Offered::default());
        let told = Told {
            mss: 536,
            scale: Some(3),
            sack: true,
            timestamps: true,
        };
        assert_eq!(learnt.told(Tick(0), &server(1), 0, &DEFAULTS), told);
        assert_eq!(learnt.scales(&server(1), 0, &DEFAULTS), [3, 7]);
    }

    #[test]
    fn a_place_is_taken_over_and_forgotten() {
        let mut learnt = Learnt::new(&HeapMemory).unwrap();
        let options = Options {
            scale: Some(3),
            ..Options::default()
        };
        learnt.learn(Tick(0), &server(1), 0, &options, Offered::default());
        assert_eq!(
            learnt
                .told(Tick(LIFETIME as u32 - 1), &server(1), 0, &DEFAULTS)
                .scale,
            Some(3)
        );
        // Forgotten, but a client may have been told before.
        assert_eq!(
            learnt.told(Tick(LIFETIME as u32), &server(1), 0, &DEFAULTS),
            BY_DEFAULT
        );
        assert_eq!(learnt.scales(&server(1), 0, &DEFAULTS), [3, 7]);
        learnt.learn(Tick(0), &server(2), 0, &options, Offered::default());
        assert_eq!(learnt.told(Tick(0), &server(1), 0, &DEFAULTS), BY_DEFAULT);
        assert_eq!(learnt.told(Tick(0), &server(2), 0, &DEFAULTS).scale, Some(3));
        assert_eq!(learnt.scales(&server(1), 0, &DEFAULTS), [7, 7]);
    }
}
