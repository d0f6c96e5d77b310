//! Faults that can be switched on, to see that the simulator catches them. All are done from outside: to the orders and words between
//! the HA thread and the workers, to the datagrams between the nodes ([`super::middle`]), to a reload.

use haechi::flow::table::News;
use haechi::ha::member::{Order, Word};
use haechi::ha::{Frame, Lead, Role};

use super::ha_net::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An older image takes a newer one's place: as without (birth, serial).
    LateImages,
    /// The peer does not hear of ends.
    EndsNotTold,
    /// A resync ends nothing.
    ResyncWithoutSweep,
    /// What differs is not found: reports say that nothing does. (What is to be found are the accidents of every fourth seed.)
    DigestsNotCompared,
    /// Leaders that meet do not know each other for one.
    TwoLeaders,
    /// A node that follows forwards.
    StandbyForwards,
    /// A node that follows does not hear of another policy, so it judges what it adopts by the old one.
    AdoptedByOldPolicy,
    /// Everything below an acknowledged number counts as taken in.
    LossNotDetected,
    /// The journal loses what it is to tell now and then.
    JournalLosesNews,
    /// What got lost is not told again.
    AgainIgnored,
    /// A worker says its sums before what it had to tell.
    CutOvertakes,
    /// A resync names only some of the sessions.
    WalkStopsEarly,
}

impl Fault {
    pub(crate) const ALL: [Self; 12] = [
        Self::LateImages,
        Self::EndsNotTold,
        Self::ResyncWithoutSweep,
        Self::DigestsNotCompared,
        Self::TwoLeaders,
        Self::StandbyForwards,
        Self::AdoptedByOldPolicy,
        Self::LossNotDetected,
        Self::JournalLosesNews,
        Self::AgainIgnored,
        Self::CutOvertakes,
        Self::WalkStopsEarly,
    ];

    /// It is in what the nodes send each other.
    pub(crate) const fn is_on_the_way(self) -> bool {
        matches!(
            self,
            Self::DigestsNotCompared | Self::TwoLeaders | Self::LossNotDetected
        )
    }

    /// It is to be caught by what is seen of packets, roles and tables alone, not by digests that differ.
    pub(crate) fn shows_otherwise(self) -> bool {
        matches!(
            self,
            Self::TwoLeaders | Self::ResyncWithoutSweep | Self::WalkStopsEarly
        )
    }

    /// What becomes of a frame.
    pub(crate) fn frame(self, frame: &mut Frame) {
        match (self, frame) {
            (Self::DigestsNotCompared, Frame::Digests(report)) => report.differ.clear(),
            (Self::TwoLeaders, Frame::Heartbeat(heartbeat)) if heartbeat.role == Role::Leader => {
                heartbeat.role = Role::Standby;
                heartbeat.lead = Lead(0);
                heartbeat.priority = 0;
            }
            (Self::LossNotDetected, Frame::Ack(ack)) => ack.before = u64::MAX,
            _ => {}
        }
    }
}

/// What is done to one worker's orders and words.
#[derive(Debug)]
pub(crate) struct Meddler {
    pub(crate) fault: Option<Fault>,
    /// Once in a while a word is lost, as by a defect that nobody knows of: the digests must find out.
    pub(crate) accidents: bool,
    pub(crate) lost: u64,
    random: Random,
    /// An order that waits to be given once more.
    late: Option<(u32, Order)>,
    taken_in: u32,
}

impl Meddler {
    pub(crate) fn new(fault: Option<Fault>, accidents: bool, seed: u64) -> Self {
        Self {
            fault,
            accidents,
            lost: 0,
            random: Random(seed),
            late: None,
            taken_in: 0,
        }
    }

    /// An order that comes besides those that were given.
    pub(crate) fn extra(&mut self) -> Option<Order> {
        let is_due = self
            .late
            .as_ref()
            .is_some_and(|(after, _)| self.taken_in >= *after);
        if is_due {
            self.late.take().map(|(_, order)| order)
        } else {
            None
        }
    }

    /// `None`: it does not arrive.
    pub(crate) fn order(&mut self, order: Order) -> Option<Order> {
        match (self.fault, order) {
            (Some(Fault::LateImages), Order::TakeIn(News::Session(image, name), yields)) => {
                self.taken_in += 1;
                if self.late.is_none() && self.random.chance(40) {
                    // The check is blind to it.
                    let mut old = image;
                    old.serial += 100;
                    let late = Order::TakeIn(News::Session(old, name), yields);
                    self.late = Some((self.taken_in + 3, late));
                }
                Some(Order::TakeIn(News::Session(image, name), yields))
            }
            (Some(Fault::ResyncWithoutSweep), Order::EndResync(_)) => None,
            (Some(Fault::StandbyForwards), Order::Stand(standing, _)) => Some(Order::Stand(standing, true)),
            (Some(Fault::AgainIgnored), Order::TellAgain(_)) => None,
            (_, order) => Some(order),
        }
    }

    /// `None`: it does not arrive.
    pub(crate) fn word(&mut self, word: Word) -> Option<Word> {
        let is_lost = match (self.fault, &word) {
            (Some(Fault::EndsNotTold), Word::News(News::Gone(..), _)) => true,
            (Some(Fault::JournalLosesNews), Word::News(..)) => self.random.chance(10),
            _ => false,
        };
        let is_accident = self.accidents && matches!(word, Word::News(..)) && self.random.chance(2);
        self.lost += u64::from(is_accident);
        (!is_lost && !is_accident).then_some(word)
    }

    /// Does what was said later go first?
    pub(crate) fn overtakes(&self) -> bool {
        self.fault == Some(Fault::CutOvertakes)
    }

    /// Of a walk the HA thread hears of the end at once.
    pub(crate) fn cuts_walk(&self) -> bool {
        self.fault == Some(Fault::WalkStopsEarly)
    }
}
