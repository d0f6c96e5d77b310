//! Link propagation (`[transparent] link_propagation`): when one port of a pair loses its link the other is set down,
//! so that routers and switches on both sides see the cut at once.
//!
//! A port that was set down here cannot report its own link: whatever the device says of it is our own doing. That
//! is where such schemes dead-lock (each port is down because the other is) or flap (a port that was just set up
//! again is still negotiating, is taken for lost, and takes the first one down). Three rules keep this one live:
//!
//! 1. Of a pair at most one port is set down, and only while the other has lost its link by itself; that one stays
//!    administratively up, so its link can always come back, and then the pair is restored.
//! 2. What is heard about a port while it is set down does not count.
//! 3. A port that was just set up has [`Propagation::GRACE`] to find its link before "no link" counts as a loss.
//!
//! If both links are gone by themselves nothing is set down: there is nobody to tell.

use crate::base::Nanos;

/// One of the two ports of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The port that comes first in the configuration.
    A,
    /// Its peer.
    B,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// What is to be done with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set it administratively down: its far end loses its link.
    SetDown(Side),
    /// Set it administratively up again.
    SetUp(Side),
}

#[derive(Clone, Copy, Debug, Default)]
struct Port {
    link_up: bool,
    /// Until then a missing link is no loss; `None`: it has had its link since it was set up, or its time is over.
    grace_until: Option<Nanos>,
}

/// One pair's state machine. It is told what is seen and gives back what to do.
#[derive(Clone, Debug)]
pub struct Propagation {
    ports: [Port; 2],
    /// The side that lost its link; its peer is set down.
    cut: Option<Side>,
}

impl Propagation {
    /// How long a port that was set up may take to find its link: gigabit copper negotiates for 2 to 4 seconds
    /// (IEEE 802.3, clause 28 and 40), some optics and 25G+ link training longer.
    pub const GRACE: Nanos = Nanos::from_secs(8);

    /// A pair whose ports were both set up at `now`.
    #[must_use]
    pub const fn new(now: Nanos) -> Self {
        let port = Port {
            link_up: false,
            grace_until: Some(now.plus(Self::GRACE)),
        };
        Self {
            ports: [port, port],
            cut: None,
        }
    }

    /// Is this side set down because the other one lost its link?
    #[must_use]
    pub fn is_set_down(&self, side: Side) -> bool {
        self.cut == Some(side.other())
    }

    /// The link of `side` was seen up or down.
    pub fn observe(&mut self, now: Nanos, side: Side, link_up: bool) -> Option<Action> {
        if self.is_set_down(side) {
            return None;
        }
        let port = &mut self.ports[side.index()];
        port.link_up = link_up;
        if link_up {
            port.grace_until = None;
        }
        self.tick(now)
    }

    /// Time passed; to be called now and then, as a grace period may have ended.
    pub fn tick(&mut self, now: Nanos) -> Option<Action> {
        if let Some(lost) = self.cut {
            if !self.ports[lost.index()].link_up {
                return None;
            }
            let other = lost.other();
            self.cut = None;
            self.ports[other.index()] = Port {
                link_up: false,
                grace_until: Some(now.plus(Self::GRACE)),
            };
            return Some(Action::SetUp(other));
        }
        let lost = Side::BOTH.map(|side| self.has_lost(now, side));
        let cut = match lost {
            [true, false] => Side::A,
            [false, true] => Side::B,
            _ => return None,
        };
        self.cut = Some(cut);
        Some(Action::SetDown(cut.other()))
    }

    /// Propagation is over (switched off by an apply): the side to set up again, if one was set down.
    pub fn release(&mut self) -> Option<Action> {
        self.cut.take().map(|lost| Action::SetUp(lost.other()))
    }

    fn has_lost(&self, now: Nanos, side: Side) -> bool {
        let port = &self.ports[side.index()];
        !port.link_up && port.grace_until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T0: Nanos = Nanos::from_secs(100);

    fn after(secs: u64) -> Nanos {
        T0.plus(Nanos::from_secs(secs))
    }

    fn both_up() -> Propagation {
        let mut p = Propagation::new(T0);
        assert_eq!(p.observe(T0, Side::A, true), None);
        assert_eq!(p.observe(T0, Side::B, true), None);
        p
    }

    #[test]
    fn a_lost_link_takes_the_peer_down_and_gives_it_back() {
        for side in Side::BOTH {
            let other = side.other();
            let mut p = both_up();
            assert_eq!(p.observe(after(1), side, false), Some(Action::SetDown(other)));
            assert!(p.is_set_down(other) && !p.is_set_down(side));
            assert_eq!(p.observe(after(1), other, false), None, "our own doing");
            assert_eq!(p.tick(after(1000)), None, "as long as it takes");
            assert_eq!(p.observe(after(1000), side, true), Some(Action::SetUp(other)));
            assert!(!p.is_set_down(other));
            assert_eq!(p.observe(after(1002), other, true), None);
            assert_eq!(p.tick(after(2000)), None);
        }
    }

    #[test]
    fn a_restored_port_that_still_negotiates_is_not_lost() {
        let mut p = both_up();
        p.observe(after(1), Side::A, false);
        p.observe(after(2), Side::A, true);
        assert_eq!(
            p.observe(after(2), Side::B, false),
            None,
            "the device still says down"
        );
        assert_eq!(p.tick(after(9)), None);
        assert_eq!(p.observe(after(9), Side::B, true), None);
    }

    #[test]
    fn a_restored_port_without_a_link_of_its_own_is_lost_after_the_grace() {
        let mut p = both_up();
        p.observe(after(1), Side::A, false);
        p.observe(after(2), Side::A, true);
        assert_eq!(p.tick(after(9)), None);
        assert_eq!(p.tick(after(10)), Some(Action::SetDown(Side::A)));
        assert_eq!(p.observe(after(11), Side::A, false), None);
        assert_eq!(p.observe(after(20), Side::B, true), Some(Action::SetUp(Side::A)));
    }

    #[test]
    fn a_link_that_was_seen_after_the_restore_and_goes_again_counts_at_once() {
        let mut p = both_up();
        p.observe(after(1), Side::A, false);
        p.observe(after(2), Side::A, true);
        p.observe(after(3), Side::B, true);
        assert_eq!(
            p.observe(after(4), Side::B, false),
            Some(Action::SetDown(Side::A))
        );
    }

    #[test]
    fn a_port_that_never_had_a_link_counts_after_the_grace() {
        let mut p = Propagation::new(T0);
        assert_eq!(p.observe(after(1), Side::A, true), None);
        assert_eq!(p.observe(after(1), Side::B, false), None);
        assert_eq!(p.tick(after(8)), Some(Action::SetDown(Side::A)));
    }

    #[test]
    fn with_both_links_gone_nothing_is_set_down() {
        let mut p = Propagation::new(T0);
        p.observe(after(1), Side::A, false);
        p.observe(after(1), Side::B, false);
        assert_eq!(p.tick(after(100)), None);
        assert_eq!(
            p.observe(after(100), Side::A, true),
            Some(Action::SetDown(Side::A)),
            "B is still gone"
        );
        assert_eq!(p.observe(after(101), Side::B, true), Some(Action::SetUp(Side::A)));
    }

    #[test]
    fn users_are_told_how_long_the_grace_is() {
        let said = format!("{} seconds", Propagation::GRACE.to_duration().as_secs());
        for text in [
            include_str!("../../README.md"),
            include_str!("../../dpdk-config/reference.toml"),
        ] {
            assert!(text.contains(&said), "{said}");
        }
    }

    #[test]
    fn released_it_gives_back_what_it_took() {
        let mut p = both_up();
        assert_eq!(p.release(), None);
        p.observe(after(1), Side::A, false);
        assert_eq!(p.release(), Some(Action::SetUp(Side::B)));
    }

    /// Two nodes in line, `outer0 - [A0 B0] - [A1 B1] - outer1`, cables that come and go: a physical model in which a
    /// port has its link when its cable is whole and both of its ends are administratively up.
    #[derive(Clone)]
    struct Line {
        nodes: [Propagation; 2],
        admin_up: [[bool; 2]; 2],
        cable: [bool; 3],
    }

    impl Line {
        fn link(&self, node: usize, side: Side) -> bool {
            let up = |n: usize, s: Side| self.admin_up[n][s.index()];
            match (node, side) {
                (0, Side::A) => self.cable[0] && up(0, Side::A),
                (0, Side::B) | (1, Side::A) => self.cable[1] && up(0, Side::B) && up(1, Side::A),
                _ => self.cable[2] && up(1, Side::B),
            }
        }

        /// Every node looks at its ports; true when one of them did something.
        fn round(&mut self, now: Nanos) -> bool {
            let mut acted = false;
            for node in 0..2 {
                for side in Side::BOTH {
                    let link = self.link(node, side);
                    match self.nodes[node].observe(now, side, link) {
                        Some(Action::SetDown(s)) => self.admin_up[node][s.index()] = false,
                        Some(Action::SetUp(s)) => self.admin_up[node][s.index()] = true,
                        None => continue,
                    }
                    acted = true;
                }
            }
            acted
        }
    }

    proptest! {
        /// Whatever happened before: once all cables are whole and stay so, every port comes up and nothing flaps on.
        #[test]
        fn whole_cables_always_end_up_in_service(
            events in prop::collection::vec((0usize..3, any::<bool>(), 0u64..12), 0..40)
        ) {
            let mut now = T0;
            let mut line = Line {
                nodes: [Propagation::new(now), Propagation::new(now)],
                admin_up: [[true; 2]; 2],
                cable: [true; 3],
            };
            for (cable, whole, wait) in events {
                line.cable[cable] = whole;
                line.round(now);
                now = now.plus(Nanos::from_secs(wait));
                line.round(now);
                for node in &line.admin_up {
                    prop_assert!(node[0] || node[1], "both ports of a pair set down");
                }
            }
            line.cable = [true; 3];
            for _ in 0..20 {
                now = now.plus(Nanos::from_secs(10));
                line.round(now);
            }
            prop_assert_eq!(line.admin_up, [[true; 2]; 2]);
            for node in 0..2 {
                prop_assert!(Side::BOTH.iter().all(|&s| line.link(node, s)));
            }
            now = now.plus(Nanos::from_secs(100));
            prop_assert!(!line.round(now));
        }
    }
}
