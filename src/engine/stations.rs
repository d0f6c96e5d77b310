//! What an engine of an HA pair knows of the hosts around it, and what it says in their name when it comes to lead
//! ([`crate::flow::station`]).

use super::process::port_policy;
use super::rate::Pacer;
use super::{Engine, Outputs};
use crate::base::{Nanos, PortId};
use crate::flow::station::{Station, Stations};
use crate::packet::build::announcement;
use crate::packet::{LinkHeader, PacketBuf, PacketMeta};

/// Stations that are newly learnt, a second: more than any network has, and little enough for a flood of made-up addresses to cost nothing.
const LEARNS: u32 = 2000;
/// Frames in the name of stations, a second.
const ANNOUNCES: u32 = 20_000;
/// Of each of these at once.
const BURST: u32 = 256;
/// Frames in one step.
const STEP: usize = 32;

/// See the module.
pub(super) struct Known {
    pub(super) stations: Stations,
    /// Of some ports the last one that was known: nearly always the next one, too.
    latest: [Station; 4],
    learning: Pacer,
    announcing: Pacer,
    /// The place to go on with.
    pub(super) next: Option<usize>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            stations: Stations::default(),
            latest: [Station::default(); 4],
            learning: Pacer::new(LEARNS, BURST),
            announcing: Pacer::new(ANNOUNCES, BURST),
            next: None,
        }
    }
}

impl Known {
    /// A frame of a host behind `port` passes.
    pub(super) fn learn(&mut self, now: Nanos, port: PortId, meta: &PacketMeta, frame: &[u8]) {
        let l3_offset = usize::from(meta.l3_offset);
        if l3_offset == 0 {
            return;
        }
        let Some(link) = LinkHeader::of(frame, l3_offset).of_source() else {
            return;
        };
        let station = Station { link, port };
        let latest = &mut self.latest[port.index() % 4];
        if *latest == station {
            return;
        }
        if self.stations.knows(&station) {
            *latest = station;
        } else if self.learning.try_pass(now) {
            self.note(station, true);
        }
    }

    /// See [`Stations::note`].
    pub(super) fn note(&mut self, station: Station, tell: bool) {
        // It may have been behind another port.
        self.latest = [Station::default(); 4];
        self.stations.note(station, tell);
    }
}

impl<B: PacketBuf> Engine<B> {
    /// Says where stations are, in their names, as the pace allows. True: there is more to say.
    #[cold]
    pub fn announce<O: Outputs<B>>(&mut self, now: Nanos, out: &mut O) -> bool {
        let (policy, forwards) = (std::sync::Arc::clone(&self.policy), self.forwards());
        let Some(known) = self.pair.as_mut().map(|pair| &mut pair.known) else {
            return false;
        };
        for _ in 0..STEP {
            let Some(place) = known.next.filter(|_| forwards) else {
                known.next = None;
                return false;
            };
            let Some((station, next)) = known.stations.from(place) else {
                known.next = None;
                return false;
            };
            if !known.announcing.try_pass(now) {
                return true;
            }
            // Without a buffer this one is left out: its next frame says the same.
            known.next = Some(next);
            let mut frame = [0; 64];
            let length = announcement(&station.link, &mut frame);
            let frame = length.and_then(|length| frame.get(..length));
            if let (Some(frame), Some(mut packet)) = (frame, out.buffer()) {
                if packet.try_fill(frame).is_ok() {
                    self.counters.originated += 1;
                    self.counters.stations_announced += 1;
                    out.originate(packet, port_policy(&policy, station.port).peer);
                }
            }
        }
        true
    }
}
