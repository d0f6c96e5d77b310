//! Stations: which MAC addresses are behind which port. When a node of an HA pair comes to lead, the switches around it still send to the
//! other node what is for them; a frame in the name of each station, out of the opposite port, tells them better at once.

use crate::base::PortId;
use crate::flow::Image;
use crate::packet::LinkHeader;

/// A MAC address, the VLAN tags that its frames have, and the port that it is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Station {
    /// Its address as the source, with its tags; no destination.
    pub link: LinkHeader,
    /// The port.
    pub port: PortId,
}

/// How many are known at once: one that finds its place taken takes it.
const PLACES: usize = 4096;
/// Names of stations begin here, behind those of all sessions' slots ([`super::table::News`]).
const NAMES: u64 = 1 << 31;

/// A table of them: direct-mapped, fixed.
pub struct Stations {
    places: Box<[Station]>,
    /// Places with news for the other node, in order; each once.
    news: std::collections::VecDeque<u16>,
    is_new: Box<[bool]>,
}

impl Default for Stations {
    fn default() -> Self {
        Self {
            places: vec![Station::default(); PLACES].into(),
            news: std::collections::VecDeque::with_capacity(PLACES),
            is_new: vec![false; PLACES].into(),
        }
    }
}

impl Stations {
    fn place(station: &Station) -> usize {
        Image::hash_of(&station.link.to_bytes()) as usize % PLACES
    }

    /// Is it known, where it is?
    #[must_use]
    pub fn knows(&self, station: &Station) -> bool {
        self.places[Self::place(station)] == *station
    }

    /// Notes one; with `tell`, the other node is to hear of it.
    pub fn note(&mut self, station: Station, tell: bool) {
        let place = Self::place(&station);
        self.places[place] = station;
        if tell {
            self.tell(place);
        }
    }

    fn tell(&mut self, place: usize) {
        if !std::mem::replace(&mut self.is_new[place], true) {
            self.news.push_back(place as u16);
        }
    }

    /// The other node knows of none.
    pub fn tell_all(&mut self) {
        (0..PLACES).for_each(|place| {
            if !self.places[place].link.is_unknown() {
                self.tell(place);
            }
        });
    }

    /// What was told of one got lost. False: it is no name of a station.
    pub fn tell_again(&mut self, name: u64) -> bool {
        let place = name.checked_sub(NAMES).filter(|place| *place < PLACES as u64);
        if let Some(place) = place {
            self.tell(place as usize);
        }
        place.is_some()
    }

    /// The next one to be told, with its name.
    pub fn next_news(&mut self) -> Option<(Station, u64)> {
        let place = self.news.pop_front()?;
        self.is_new[usize::from(place)] = false;
        Some((self.places[usize::from(place)], NAMES + u64::from(place)))
    }

    /// How many are to be told.
    #[must_use]
    pub fn news(&self) -> usize {
        self.news.len()
    }

    /// The first station from a place on, and where to go on; `None`: there is none.
    #[must_use]
    pub fn from(&self, place: usize) -> Option<(Station, usize)> {
        let found = (place..PLACES).find(|place| !self.places[*place].link.is_unknown())?;
        Some((self.places[found], found + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn station(n: u16, port: u16) -> Station {
        let mut bytes = [0; LinkHeader::SIZE];
        bytes[6..8].copy_from_slice(&n.to_be_bytes());
        Station {
            link: LinkHeader::from_bytes(&bytes),
            port: PortId(port),
        }
    }

    #[test]
    fn each_is_told_once_until_it_moves_or_gets_lost() {
        let mut stations = Stations::default();
        for _ in 0..2 {
            stations.note(station(1, 0), true);
        }
        stations.note(station(2, 0), false);
        let (told, name) = stations.next_news().unwrap();
        assert_eq!((told, stations.next_news()), (station(1, 0), None));
        assert!(stations.knows(&station(1, 0)) && !stations.knows(&station(1, 1)));
        assert!(stations.tell_again(name) && !stations.tell_again(7));
        assert_eq!(stations.next_news(), Some((station(1, 0), name)));
        stations.note(station(1, 1), true);
        assert_eq!(stations.next_news(), Some((station(1, 1), name)));
        stations.tell_all();
        assert_eq!(stations.news(), 2);
    }

    #[test]
    fn there_is_an_end_to_them() {
        let mut stations = Stations::default();
        (1..=u16::MAX).for_each(|n| stations.note(station(n, 0), true));
        let (mut place, mut count) = (0, 0);
        while let Some((_, next)) = stations.from(place) {
            (place, count) = (next, count + 1);
        }
        assert!(
            count <= PLACES && count > PLACES * 9 / 10 && stations.news() == count,
            "{count}"
        );
    }
}
