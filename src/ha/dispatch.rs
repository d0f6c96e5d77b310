//! What goes on between the protocol ([`Peer`]) and the workers of a node ([`super::member`]), without I/O: events become orders, and what
//! the workers say becomes updates, digests and progress. The HA thread turns it, and so does the simulator.

mod frames;

use std::sync::Arc;

use super::NodeId;
use super::member::{Order, Queues, Word};
use super::message::{Role, Update};
use super::peer::{Event, Peer};
use super::stream::Outgoing;
use crate::base::{Nanos, WorkerId};
use crate::engine::Placement;
use crate::flow::image::{BUCKETS, BucketSet};
use crate::flow::table::journal::Sums;
use crate::flow::table::{News, Standing};

/// Words of one worker in one turn.
const WORDS: usize = 256;
/// Events in one turn.
const EVENTS: usize = 1024;

/// What a node has to know to begin with.
#[derive(Clone, Debug)]
pub struct DispatchConfig {
    /// This node.
    pub node: NodeId,
    /// A worker is asked so often whether it turns ...
    pub ping_every: Nanos,
    /// ... and counts as stalled when it has not answered for so long.
    pub stalled_after: Nanos,
    /// Sessions a second of a resync, of all workers.
    pub sync_rate: u32,
}

/// Something for the log, or for whoever turns the dispatch.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The node is something else. The workers know, or hear of it before any packet that comes from now on.
    Role {
        /// What it was.
        from: Role,
        /// What it is.
        to: Role,
        /// Why.
        why: super::election::Why,
    },
    /// The witness is to be asked, with this number.
    AskWitness(u32),
    /// The peer's process is another one, or the first.
    PeerStarted,
    /// Updates can be sent, or not.
    Sync(bool),
    /// The peer's policy is the same, or not.
    Policy(bool),
    /// The peer's ports, mode and session scope are the same, or not.
    Layout(bool),
    /// This worker does not turn, or turns again.
    Stalled(WorkerId, bool),
}

/// One worker, as the dispatch sees it.
#[derive(Debug)]
struct Link {
    queues: Arc<Queues>,
    /// What it said, and what the peer has no room for yet.
    unsent: Option<Word>,
    /// The conversation that its words are of; those of an earlier one are nobody's.
    begun: u32,
    /// It has said its sums for the cut under way: nothing more of it goes out before all have.
    is_cut: bool,
    pinged: u64,
    answered: u64,
    answered_at: Nanos,
    is_stalled: bool,
    /// It was given something since the last look: it may sleep.
    is_rung: bool,
}

/// Sums that are added up over all workers.
#[derive(Debug)]
struct Gather {
    number: u64,
    missing: usize,
    sums: Box<Sums>,
}

impl Gather {
    fn new(number: u64, workers: usize) -> Self {
        Self {
            number,
            missing: workers,
            sums: Box::new([0; BUCKETS]),
        }
    }

    /// True: it was the last.
    fn add(&mut self, sums: &Sums) -> bool {
        for (sum, more) in self.sums.iter_mut().zip(sums) {
            *sum = sum.wrapping_add(*more);
        }
        self.missing = self.missing.saturating_sub(1);
        self.missing == 0
    }
}

/// What was counted here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DispatchCounters {
    /// Ends of sessions that were offered to be sent.
    pub gone_sent: u64,
    /// Ends of the peer's sessions that were given to the workers.
    pub gone_received: u64,
    /// Updates of the peer's that came while this node leads: it is no longer to have any.
    pub unwanted: u64,
    /// News for which there was nobody any more.
    pub unheard: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Dispatch {
    config: DispatchConfig,
    /// The protocol.
    pub peer: Peer,
    links: Vec<Link>,
    placement: Option<Arc<Placement>>,
    /// An event for which the queues have no room yet.
    held: Option<Event>,
    notices: Vec<Notice>,
    role: Role,
    sync_up: bool,
    conversation: u32,
    cut: Option<Gather>,
    digests: Option<Gather>,
    walk: Option<(u32, usize)>,
    /// The resync of the peer's sessions that is under way.
    resync: Option<(u32, BucketSet)>,
    ports_are_up: bool,
    counters: DispatchCounters,
    /// The worker whose packets are taken first.
    next_gather: usize,
}

impl Dispatch {
    /// Of these workers; `placement` says whose flows are, of several.
    #[must_use]
    pub fn new(
        config: DispatchConfig,
        peer: Peer,
        queues: Vec<Arc<Queues>>,
        placement: Option<Arc<Placement>>,
        now: Nanos,
    ) -> Self {
        let link = |queues| Link {
            queues,
            unsent: None,
            begun: 0,
            is_cut: false,
            pinged: 0,
            answered: 0,
            answered_at: now,
            is_stalled: false,
            is_rung: false,
        };
        Self {
            config,
            peer,
            links: queues.into_iter().map(link).collect(),
            placement,
            held: None,
            notices: Vec::new(),
            role: Role::Waiting,
            sync_up: false,
            conversation: 0,
            cut: None,
            digests: None,
            walk: None,
            resync: None,
            ports_are_up: true,
            counters: DispatchCounters::default(),
            next_gather: 0,
        }
    }

    /// What the workers were last told that the node is.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> &DispatchCounters {
        &self.counters
    }

    /// Workers that do not turn.
    pub fn stalled(&self) -> impl Iterator<Item = WorkerId> + '_ {
        let links = (0..).map(WorkerId).zip(&self.links);
        links.filter(|(_, link)| link.is_stalled).map(|(id, _)| id)
    }

    /// Have all tracked ports a link?
    pub fn set_ports(&mut self, now: Nanos, are_up: bool) {
        self.ports_are_up = are_up;
        self.tell_health(now);
    }

    /// Buckets have moved between workers.
    pub fn set_placement(&mut self, placement: Arc<Placement>) {
        self.placement = Some(placement);
    }

    /// What happened since, for the log.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The workers that were given something since: they may sleep.
    pub fn rung(&mut self) -> impl Iterator<Item = WorkerId> + '_ {
        let links = (0..).map(WorkerId).zip(&mut self.links);
        links.filter_map(|(id, link)| std::mem::take(&mut link.is_rung).then_some(id))
    }

    /// Carries events to the workers, and what they say to the protocol, as far as there is room. True: there was something.
    pub fn turn(&mut self, now: Nanos) -> bool {
        self.ping(now);
        let mut any = false;
        for _ in 0..EVENTS {
            let Some(event) = self.held.take().or_else(|| self.peer.poll_event()) else {
                break;
            };
            any = true;
            self.held = self.act(now, event).err();
            if self.held.is_some() {
                break;
            }
        }
        for worker in 0..self.links.len() {
            any |= self.listen(now, worker);
        }
        any | self.deliver()
    }

    fn tell_health(&mut self, now: Nanos) {
        let healthy = self.ports_are_up && self.links.iter().all(|link| !link.is_stalled);
        self.peer.set_health(now, healthy);
    }

    /// Asks the workers whether they turn.
    fn ping(&mut self, now: Nanos) {
        let mut news = false;
        for (id, link) in (0..).map(WorkerId).zip(&mut self.links) {
            if link.pinged == link.answered {
                let is_due = now.since(link.answered_at) >= self.config.ping_every;
                if is_due && link.queues.orders.push(Order::Ping(link.pinged + 1)).is_ok() {
                    link.pinged += 1;
                    link.is_rung = true;
                }
            }
            let is_stalled =
                now.since(link.answered_at) >= self.config.ping_every.plus(self.config.stalled_after);
            if is_stalled != link.is_stalled {
                link.is_stalled = is_stalled;
                self.notices.push(Notice::Stalled(id, is_stalled));
                news = true;
            }
        }
        if news {
            self.tell_health(now);
        }
    }

    /// Is there room for an order to each worker?
    fn have_room(&self) -> bool {
        self.links.iter().all(|link| !link.queues.orders.is_full())
    }

    /// To all workers, for which there is room.
    fn order_all(&mut self, mut order: impl FnMut() -> Order) {
        for link in &mut self.links {
            // (There is room: only this thread gives orders.)
            let _ = link.queues.orders.push(order());
            link.is_rung = true;
        }
    }

    /// Acts on an event.
    ///
    /// # Errors
    /// Gives it back: there is no room at the workers now.
    #[allow(clippy::result_large_err, reason = "nothing is boxed for what comes often")]
    fn act(&mut self, now: Nanos, event: Event) -> Result<(), Event> {
        if let Event::Update(update) = event {
            return self.take_in(&update).map_err(|()| event);
        }
        if let Event::Again { worker, handle } = event {
            if let Some(link) = self.links.get_mut(usize::from(worker)) {
                link.queues
                    .orders
                    .push(Order::TellAgain(handle))
                    .map_err(|_| event)?;
                link.is_rung = true;
            }
            return Ok(());
        }
        if let Event::Told { worker, handle } = event {
            return self
                .order_to(WorkerId(worker), Order::Told(handle))
                .map_err(|()| event);
        }
        if !self.have_room() {
            return Err(event);
        }
        match event {
            Event::Role { from, to, why } => {
                self.role = to;
                let (standing, forwards) = stands(to);
                self.order_all(|| Order::Stand(standing, forwards));
                self.notices.push(Notice::Role { from, to, why });
            }
            Event::AskWitness { ask } => self.notices.push(Notice::AskWitness(ask)),
            Event::PeerStarted => {
                self.order_all(|| Order::ForgetHeard);
                self.notices.push(Notice::PeerStarted);
            }
            Event::Sync { up } => self.converse(up),
            Event::Policy { equal } => self.notices.push(Notice::Policy(equal)),
            Event::Layout { equal } => self.notices.push(Notice::Layout(equal)),
            Event::ResyncBegin { .. } if self.leads() => {}
            Event::ResyncBegin { resync, buckets, .. } => {
                self.resync = Some((resync, buckets));
                self.order_all(|| Order::BeginResync);
            }
            Event::ResyncEnd { resync } => {
                let named = self
                    .resync
                    .take()
                    .filter(|(number, _)| *number == resync && !self.leads());
                if let Some((_, buckets)) = named {
                    self.order_all(|| Order::EndResync(buckets));
                }
            }
            Event::Digests { barrier } => {
                self.digests = Some(Gather::new(barrier, self.links.len()));
                self.order_all(|| Order::SumHeard(barrier, Box::new([0; BUCKETS])));
            }
            Event::Cut { round } => {
                self.cut = Some(Gather::new(round, self.links.len()));
                self.links.iter_mut().for_each(|link| link.is_cut = false);
                self.order_all(|| Order::SumTold(round, Box::new([0; BUCKETS])));
            }
            Event::Walk { resync, buckets } => {
                self.walk = Some((resync, self.links.len()));
                let rate = self.config.sync_rate / (self.links.len().max(1) as u32);
                self.order_all(|| Order::TellAll(buckets, rate.max(1), resync));
            }
            Event::Update(_) | Event::Again { .. } | Event::Told { .. } => {}
        }
        let _ = now;
        Ok(())
    }

    /// There is somebody to be told of sessions, or nobody any more.
    fn converse(&mut self, up: bool) {
        self.sync_up = up;
        (self.cut, self.digests, self.walk) = (None, None, None);
        for link in &mut self.links {
            (link.unsent, link.is_cut) = (None, false);
        }
        if up {
            self.conversation = self.conversation.wrapping_add(1);
            let number = self.conversation;
            self.order_all(|| Order::BeginTelling(number));
        } else {
            self.order_all(|| Order::EndTelling);
        }
        self.notices.push(Notice::Sync(up));
    }

    const fn leads(&self) -> bool {
        matches!(self.role, Role::Leader | Role::Isolated)
    }

    /// News of a session of the peer's go to the worker that has its flow.
    fn take_in(&mut self, update: &Update) -> Result<(), ()> {
        if self.leads() {
            self.counters.unwanted += 1;
            return Ok(());
        }
        // Of a session that both have made, the lower node's stays.
        let yields = self.role != Role::Active || self.config.node.0 > 1;
        let placement = self.placement.as_deref();
        let (owners, news) = match update {
            Update::Session(image) => {
                let owner = placement.map_or(WorkerId(0), |placement| placement.owner_of_image(image));
                ([owner; 2], News::Session(*image, 0))
            }
            Update::Station(station) => ([WorkerId(0); 2], News::Station(*station, 0)),
            // Whoever has it. Told twice, for want of room at the other one, it says nothing new.
            Update::Gone { key, birth } => (
                placement.map_or([WorkerId(0); 2], |placement| placement.owners_of_key(key)),
                News::Gone(*key, *birth),
            ),
        };
        self.order_to(owners[0], Order::TakeIn(news, yields))?;
        if owners[1] != owners[0] {
            self.order_to(owners[1], Order::TakeIn(news, yields))?;
        }
        self.counters.gone_received += u64::from(matches!(update, Update::Gone { .. }));
        Ok(())
    }

    fn order_to(&mut self, worker: WorkerId, order: Order) -> Result<(), ()> {
        let Some(link) = self.links.get_mut(worker.index()) else {
            return Ok(());
        };
        link.is_rung = true;
        link.queues.orders.push(order).map_err(|_| ())
    }

    /// Takes what a worker says. True: it said something.
    fn listen(&mut self, now: Nanos, worker: usize) -> bool {
        for count in 0..WORDS {
            let Some(link) = self.links.get_mut(worker).filter(|link| !link.is_cut) else {
                return count > 0;
            };
            let Some(word) = link.unsent.take().or_else(|| link.queues.words.pop()) else {
                return count > 0;
            };
            if let Err(word) = self.heed(now, worker, word) {
                self.links[worker].unsent = Some(word);
                return count > 0;
            }
        }
        true
    }

    /// Heeds a word.
    ///
    /// # Errors
    /// Gives it back: the protocol has no room now.
    #[allow(clippy::result_large_err, reason = "nothing is boxed for what comes often")]
    fn heed(&mut self, now: Nanos, worker: usize, word: Word) -> Result<(), Word> {
        let link = &mut self.links[worker];
        let is_heard = self.sync_up && link.begun == self.conversation;
        match word {
            Word::News(..) if !is_heard => self.counters.unheard += 1,
            Word::News(news, awaited) => {
                let (handle, update) = match news {
                    News::Session(image, name) => (name, Update::Session(image)),
                    News::Gone(key, birth) => (0, Update::Gone { key, birth }),
                    News::Station(station, name) => (name, Update::Station(station)),
                };
                let outgoing = Outgoing {
                    worker: worker as u16,
                    handle,
                    update,
                    awaited,
                };
                if !self.peer.offer(now, outgoing) {
                    return Err(word);
                }
                self.counters.gone_sent += u64::from(matches!(word, Word::News(News::Gone(..), _)));
                if self.walk.is_some() {
                    // The workers keep the pace; this says how far the walk is, about.
                    self.peer.take_allowance(now, 1);
                }
            }
            Word::Begun(number) => link.begun = number,
            Word::ToldAll(number) => {
                if let Some((_, missing)) = self
                    .walk
                    .as_mut()
                    .filter(|(resync, _)| *resync == number && is_heard)
                {
                    *missing = missing.saturating_sub(1);
                    if *missing == 0 {
                        self.walk = None;
                        self.peer.walked(now, number);
                    }
                }
            }
            Word::Gap if is_heard => self.peer.gap(now),
            Word::Gap => {}
            Word::Told(round, sums) => {
                let Some(cut) = self.cut.as_mut().filter(|cut| cut.number == round && is_heard) else {
                    return Ok(());
                };
                link.is_cut = true;
                if cut.add(&sums) {
                    self.peer.cut(now, round, &cut.sums);
                    self.cut = None;
                    self.links.iter_mut().for_each(|link| link.is_cut = false);
                }
            }
            Word::Heard(barrier, sums) => {
                let Some(digests) = self.digests.as_mut().filter(|digests| digests.number == barrier) else {
                    return Ok(());
                };
                if digests.add(&sums) {
                    self.peer.answer_digests(now, barrier, &digests.sums);
                    self.digests = None;
                }
            }
            Word::Here(number) => {
                (link.answered, link.answered_at) = (number, now);
                self.peer.set_progress(worker as u16, number as u32);
            }
        }
        Ok(())
    }
}

/// Whose sessions are and whether packets are judged, for a node of this role.
const fn stands(role: Role) -> (Standing, bool) {
    match role {
        Role::Waiting | Role::Standby => (Standing::Follow, false),
        Role::Leader => (Standing::Own, true),
        Role::Isolated => (Standing::Own, false),
        Role::Active => (Standing::Both, true),
    }
}
