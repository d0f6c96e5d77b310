//! The stages of a burst, in order: parse and hash all, find all, ask the rules, act.

use super::counters::RuleRun;
use super::fragments::Hold;
use super::leases::Leases;
use super::look::{find_all, parse_all};
use super::pair::Pair;
use super::pressure::Pressure;
use super::rate::TokenBucket;
use super::record::Records;
use super::redirect::Redirects;
use super::session::ip_len;
use super::sight::{Parsed, Scratch};
use super::sources::Sources;
use super::steer::{Crew, steer_all, steer_moving};
use super::syn::{Proxy, Syn, protects};
use super::{
    Batch, Counters, DropReason, Engine, Hops, MAX_BATCH, Note, Offered, Outputs, Place, RuleCounters, Why,
    reject,
};
use crate::base::{Nanos, PortId, SessionIx, Tick, WorkerId, ZoneId};
use crate::flow::segment::flag;
use crate::flow::{Candidate, Direction, FlowKey, Plain, Session, SessionTable, track};
use crate::packet::parse::{Malformed, ParseOptions, Straight};
use crate::packet::{PacketBuf, PacketKind, PacketMeta};
use crate::policy::{ClassifyKey, PassOrDrop, Policy, PortPolicy, RuleMatch, VlanMode};

/// What is decided about one packet.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    /// It leaves by the peer of its port.
    Forward(Why),
    /// It is dropped.
    Drop(DropReason, Why),
    /// It is dropped, and answered where that is allowed.
    Reject(DropReason, Why),
    /// It becomes something else.
    Proxy(Proxy, Why),
    /// It is another worker's.
    Elsewhere(WorkerId),
    /// It is this worker's by the owner function, and its session is there.
    Redirect(WorkerId),
    /// It opened this session by this rule, and leaves when the other node of the pair knows the session.
    Defer(SessionIx, u32),
    /// It goes to the other node of the pair, if that has room for it.
    Offer(Offered, Why),
}

impl Verdict {
    pub(super) const fn why(self) -> Why {
        match self {
            Self::Forward(why)
            | Self::Drop(_, why)
            | Self::Reject(_, why)
            | Self::Proxy(_, why)
            | Self::Offer(_, why) => why,
            Self::Defer(session, rule) => Why::NewSession(session, rule),
            Self::Elsewhere(_) | Self::Redirect(_) => Why::Elsewhere,
        }
    }
}

impl<B: PacketBuf> Engine<B> {
    /// Gives every packet of `batch` a verdict through `out`, in order of arrival, and leaves the batch empty. `now`
    /// never goes back from call to call. Fragments get theirs when their datagram is complete.
    pub fn process<O: Outputs<B>>(&mut self, now: Nanos, batch: &mut Batch<B>, out: &mut O) {
        if batch.is_empty() {
            return;
        }
        self.counters.received += batch.len() as u64;
        if !self.forwards() {
            return self.stand_by(batch, out);
        }
        let policy = &*self.policy;
        let scratch = &mut *self.scratch;
        let options = ParseOptions {
            verify_l4: policy.verify_checksums,
            look_into_vlan: policy.transparent.vlan == VlanMode::Inspect,
        };
        let several = self.crew.is_some();
        parse_all(policy, options, scratch, self.table.lookup(), batch, several);
        if let Some(crew) = &mut self.crew {
            if crew.moving.concerns_packets() {
                steer_moving(crew, scratch, batch, &self.table);
            } else {
                steer_all(crew, scratch, batch, &self.table);
            }
        } else if self.pair.is_some() {
            let hops = batch.hops();
            scratch.hops[..hops.len()].copy_from_slice(hops);
        }
        let questions = find_all(policy, options, scratch, self.table.lookup(), batch);
        if questions > 0 {
            policy
                .classifier
                .classify(&scratch.questions[..questions], &mut scratch.matches[..questions]);
        }
        let (mut act, rest) = self.act(now, options);
        act.all(rest.scratch, batch, out, rest.rejects, rest.hold);
    }

    /// The last stage's view, and what it is handed besides.
    #[inline(always)]
    pub(super) fn act(&mut self, now: Nanos, options: ParseOptions) -> (Act<'_>, Rest<'_, B>) {
        let act = Act {
            now,
            tick: now.tick(),
            policy: &self.policy,
            options,
            table: &mut self.table,
            counters: &mut self.counters,
            rules: &mut self.rules,
            records: &mut self.records,
            sources: &mut self.sources,
            pressure: self.pressure,
            quota: self.quota,
            leases: self.leases.as_deref_mut(),
            syn: &mut self.syn,
            run: RuleRun::EMPTY,
            table_changed: false,
            crew: self.crew.as_mut(),
            redirects: &self.redirects,
            pair: self.pair.as_deref_mut(),
        };
        let rest = Rest {
            scratch: &mut self.scratch,
            rejects: &mut self.rejects,
            hold: &mut self.fragments,
        };
        (act, rest)
    }

    /// Drops everything: the other node of the pair forwards.
    #[cold]
    fn stand_by<O: Outputs<B>>(&mut self, batch: &mut Batch<B>, out: &mut O) {
        let reason = DropReason::HaStandby;
        for (place, packet) in batch.take().enumerate() {
            self.counters.drops[reason.index()] += 1;
            let place = Place::Batch(place);
            out.drop(
                packet,
                reason,
                Note {
                    why: Why::Layer2,
                    place,
                },
            );
        }
    }
}

/// A port of the policy. Every port of the node is in every policy: an id that is not is a port of no zone to itself.
#[inline]
pub(super) fn port_policy(policy: &Policy, port: PortId) -> PortPolicy {
    policy.ports.get(port.index()).copied().unwrap_or(PortPolicy {
        zone: ZoneId(u16::MAX),
        peer: port,
        pair: crate::base::PairId(u16::MAX),
    })
}

/// What is not in an [`Act`], so that this knows nothing of packet buffers.
pub(super) struct Rest<'a, B> {
    scratch: &'a mut Scratch,
    rejects: &'a mut TokenBucket,
    pub(super) hold: &'a mut Hold<B>,
}

/// The last stage's view of the engine.
pub(super) struct Act<'a> {
    pub(super) now: Nanos,
    pub(super) tick: Tick,
    pub(super) policy: &'a Policy,
    pub(super) options: ParseOptions,
    pub(super) table: &'a mut SessionTable,
    pub(super) counters: &'a mut Counters,
    pub(super) rules: &'a mut [RuleCounters],
    pub(super) records: &'a mut Records,
    pub(super) sources: &'a mut Sources,
    pub(super) pressure: Pressure,
    /// See [`Engine::quota`].
    pub(super) quota: u32,
    pub(super) leases: Option<&'a mut Leases>,
    pub(super) syn: &'a mut Syn,
    pub(super) run: RuleRun,
    /// A session was made or ended in this batch: what stage 2 found may be stale.
    pub(super) table_changed: bool,
    /// The other workers, if there are any.
    pub(super) crew: Option<&'a mut Crew>,
    pub(super) redirects: &'a Redirects,
    /// The other node, if there is one.
    pub(super) pair: Option<&'a mut Pair>,
}

impl Act<'_> {
    #[inline(never)]
    fn all<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        scratch: &mut Scratch,
        batch: &mut Batch<B>,
        out: &mut O,
        rejects: &mut TokenBucket,
        hold: &mut Hold<B>,
    ) {
        let mut packets = batch.take();
        let (mut place, mut forwarded) = (0, 0);
        loop {
            // Nearly every packet; the others are judged out of line, where they cost these nothing.
            let candidate = scratch.sights.get(place).map_or(Candidate::NONE, |s| s.candidate);
            let run = if candidate == Candidate::NONE {
                Run::NONE
            } else {
                self.steady_run(scratch, place, packets.as_slice())
            };
            if run.packets > 0 {
                let sights = &scratch.sights[place..];
                out.forward_run(packets.by_ref().take(run.packets), run.egress, |n| Note {
                    why: Why::Session(sights[n].candidate.named()),
                    place: Place::Batch(place + n),
                });
                place += run.packets;
                forwarded += run.packets as u64;
            }
            if run.goes_on {
                continue;
            }
            let Some(packet) = packets.next() else { break };
            match self.flood(scratch, place, packet.bytes()) {
                Some(rule) => {
                    let note = Note {
                        why: Why::Rule(Some(rule)),
                        place: Place::Batch(place),
                    };
                    let of = (&scratch.metas[place], scratch.sights[place].key.domain);
                    self.answer_syn(rule, note, of, packet, &mut scratch.answer, out);
                }
                None => self.judge(scratch, place, packet, out, rejects, hold),
            }
            place += 1;
        }
        self.counters.forwarded += forwarded;
        self.run.flush(self.rules, self.now);
    }

    /// Is this a SYN without a session that haechi answers itself? Then that is counted, and its rule said: the short cut of
    /// [`Act::first`] for what floods are made of.
    #[inline(always)]
    fn flood(&mut self, scratch: &Scratch, place: usize, frame: &[u8]) -> Option<u32> {
        // What stage 2 did not find may be there by now.
        let question = usize::from(scratch.sights[place].question).checked_sub(1);
        let answer = scratch.matches[question.filter(|_| !self.table_changed)?]?;
        let rule = self.policy.rules.get(answer as usize)?;
        let meta = &scratch.metas[place];
        if !protects(rule) || meta.kind != PacketKind::Tcp || self.is_spoofed(meta) {
            return None;
        }
        let hops = scratch.hops[place];
        if hops.is_from_peer() || self.is_astray(meta, &scratch.sights[place].key, hops) {
            return None;
        }
        let answers = self.answers_syn(meta, frame, rule);
        if answers {
            self.run.add(self.rules, self.now, rule.id, ip_len(meta));
        }
        answers.then_some(answer)
    }

    /// Counts packets of sessions that stay as they are but for numbers and counters, from `first` on, of which `packets` are
    /// left: as many as leave by one port.
    #[inline(never)]
    fn steady_run<B: PacketBuf>(&mut self, scratch: &Scratch, first: usize, packets: &[B]) -> Run {
        let mut run = Run::NONE;
        let mut rule_run = self.run;
        let mut looked = None;
        for (packet, sight) in packets.iter().zip(&scratch.sights[first..]) {
            let place = first + run.packets;
            let Some((ix, session)) = self.table.confirm_mut(&sight.key, sight.candidate) else {
                break;
            };
            let (ingress, egress) = session.ports_of(sight.direction);
            let odd =
                (ingress.0 ^ sight.ingress.0) | u16::from(session.flags & (Session::PROXIED | Session::AWAY));
            if odd != 0 || session.generation != self.policy.generation {
                break;
            }
            if run.packets == 0 {
                run.egress = egress;
            } else if egress != run.egress {
                run.goes_on = true;
                break;
            }
            let plain = || match sight.parsed {
                Parsed::Plain => Some(scratch.segments.plain(place)),
                Parsed::Flow => {
                    let meta = &scratch.metas[place];
                    plain(packet.bytes(), meta.l4_offset, meta.l4_len)
                }
                _ => None,
            };
            if !track::is_steady(session, sight.direction, plain) {
                break;
            }
            let bytes = if sight.parsed == Parsed::Flow {
                ip_len(&scratch.metas[place])
            } else {
                u32::from(sight.ip_len)
            };
            let (rule, resets) = (session.rule, session.resets());
            let looks = session.touch(sight.direction, self.tick, bytes);
            rule_run.add(self.rules, self.now, rule, bytes);
            run.packets += 1;
            if looks {
                // One in thousands; behind the loop, which is the faster without that call.
                looked = Some((ix, resets, place));
                run.goes_on = true;
                break;
            }
            if resets {
                self.note_link(scratch, place, ix, packet.bytes());
            }
        }
        self.run = rule_run;
        if let Some((ix, resets, place)) = looked {
            self.table.look(ix, scratch.sights[place].direction);
            if resets {
                self.note_link(scratch, place, ix, packets[place - first].bytes());
            }
        }
        run
    }

    /// The table keeps the link header of a packet of such a session.
    #[inline]
    fn note_link(&mut self, scratch: &Scratch, place: usize, ix: SessionIx, frame: &[u8]) {
        let sight = &scratch.sights[place];
        let l3_offset = match sight.parsed {
            Parsed::Flow => usize::from(scratch.metas[place].l3_offset),
            _ => Straight::L3_OFFSET,
        };
        self.table.note_link(ix, sight.direction, frame, l3_offset);
    }

    /// Any packet.
    #[inline(never)]
    fn judge<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        scratch: &mut Scratch,
        place: usize,
        packet: B,
        out: &mut O,
        rejects: &mut TokenBucket,
        hold: &mut Hold<B>,
    ) {
        let sight = &scratch.sights[place];
        if let Some(owner) = sight.elsewhere() {
            let way = (sight.ingress, owner, scratch.hops[place]);
            self.elsewhere(packet, way, Place::Batch(place), out);
            return;
        }
        if sight.parsed == Parsed::Waits {
            let hops = scratch.hops[place];
            self.wait(packet, sight.ingress, hops, Place::Batch(place), hold, out);
            return;
        }
        scratch.complete(place, &packet, self.options);
        let (meta, sight) = (&scratch.metas[place], &scratch.sights[place]);
        if meta.kind == PacketKind::Fragment {
            self.fragment(scratch, place, packet, hold, out, rejects);
            return;
        }
        let mut packet = packet;
        let mut verdict = if sight.parsed == Parsed::Flow {
            self.flow(&scratch.flow(place, packet.bytes()), &scratch.matches)
        } else if meta.kind == PacketKind::IcmpError {
            self.related(meta, packet.bytes(), scratch.hops[place])
        } else {
            self.layer2(meta)
        };
        if let Verdict::Offer(what, why) = verdict {
            match self.offer(scratch, place, packet, (what, why), out) {
                Ok(()) => return,
                Err(refused) => (packet, verdict) = refused,
            }
        }
        let (meta, sight) = (&scratch.metas[place], &scratch.sights[place]);
        let (sight_place, place) = (place, Place::Batch(place));
        match verdict {
            Verdict::Forward(why) => {
                self.counters.forwarded += 1;
                self.learn_station(meta, packet.bytes(), scratch.hops[sight_place]);
                let peer = port_policy(self.policy, meta.ingress).peer;
                out.forward(packet, peer, Note { why, place });
            }
            Verdict::Defer(ix, _) => {
                self.learn_station(meta, packet.bytes(), scratch.hops[sight_place]);
                let note = Note {
                    why: verdict.why(),
                    place,
                };
                self.defer(packet, (ix, meta.ingress), note, hold, out);
            }
            Verdict::Drop(reason, why) => {
                self.counters.drops[reason.index()] += 1;
                out.drop(packet, reason, Note { why, place });
            }
            // Not twice: see `offer`.
            Verdict::Offer(_, why) => {
                self.counters.drops[DropReason::RedirectLimit.index()] += 1;
                out.drop(packet, DropReason::RedirectLimit, Note { why, place });
            }
            Verdict::Reject(reason, why) => {
                self.counters.drops[reason.index()] += 1;
                reject::answer(
                    self.counters,
                    rejects,
                    self.now,
                    meta,
                    &packet,
                    &mut scratch.answer,
                    out,
                );
                out.drop(packet, reason, Note { why, place });
            }
            Verdict::Proxy(proxy, why) => {
                let of = (meta, sight.key.domain);
                self.proxy(proxy, Note { why, place }, of, packet, &mut scratch.answer, out);
            }
            Verdict::Elsewhere(owner) => {
                let hops = scratch.hops[sight_place];
                self.elsewhere(packet, (meta.ingress, owner, hops), place, out);
            }
            Verdict::Redirect(owner) => {
                let hops = scratch.hops[sight_place].redirected();
                if hops.next().is_none() && sight.parsed == Parsed::Flow {
                    // It has come back: the entry that sends it away leads nowhere.
                    self.leads_nowhere(meta, &sight.key);
                }
                self.elsewhere(packet, (meta.ingress, owner, hops), place, out);
            }
        }
    }

    /// A frame passes: where its sender is becomes known. (What the other node offered came in there.)
    #[inline]
    fn learn_station(&mut self, meta: &PacketMeta, frame: &[u8], hops: Hops) {
        if let Some(pair) = self.pair.as_mut().filter(|_| !hops.is_from_peer()) {
            pair.known.learn(self.now, meta.ingress, meta, frame);
        }
    }

    /// A packet of a flow. Where an earlier packet of this batch made or ended a session, what stage 2 found is found
    /// again: two packets of one new flow in a burst make one session.
    #[inline]
    pub(super) fn flow(&mut self, flow: &FlowPacket<'_>, matches: &[RuleMatch; MAX_BATCH]) -> Verdict {
        let found = if self.table_changed {
            self.table.find(flow.key, flow.hash)
        } else {
            let near = self.table.lookup().confirm(flow.key, flow.candidate);
            let further = || match flow.candidate {
                Candidate::NONE => None,
                // Another flow's session, or one further on.
                _ => self.table.find(flow.key, flow.hash),
            };
            near.or_else(further)
        };
        if let Some(ix) = found {
            return self.session(flow, ix);
        }
        if let Some(verdict) = self.astray(flow) {
            return verdict;
        }
        let answer = match usize::from(flow.question) {
            // Stage 2 saw something: another flow's session, or one that an earlier packet of the batch ended.
            0 => self.ask(&super::first::question(flow.meta, self.policy)),
            question => matches[question - 1],
        };
        self.first(flow, answer)
    }

    /// Asks the rules about one packet alone.
    #[cold]
    pub(super) fn ask(&self, question: &ClassifyKey) -> RuleMatch {
        let mut matches = [None];
        self.policy
            .classifier
            .classify(std::slice::from_ref(question), &mut matches);
        matches[0]
    }

    /// Everything that no session and no rule is asked about.
    pub(super) fn layer2(&mut self, meta: &PacketMeta) -> Verdict {
        let transparent = &self.policy.transparent;
        if meta.has(PacketMeta::TAGGED) && transparent.vlan != VlanMode::Inspect {
            return match transparent.vlan {
                VlanMode::Pass => Verdict::Forward(Why::Layer2),
                _ => Verdict::Drop(DropReason::VlanTagged, Why::Layer2),
            };
        }
        match meta.kind {
            PacketKind::Arp | PacketKind::NeighbourDiscovery => Verdict::Forward(Why::Layer2),
            PacketKind::NonIp => match transparent.non_ip {
                PassOrDrop::Pass => Verdict::Forward(Why::Layer2),
                PassOrDrop::Drop => Verdict::Drop(DropReason::NonIp, Why::Layer2),
            },
            PacketKind::BadChecksum => Verdict::Drop(DropReason::BadChecksum, Why::Layer2),
            // The kinds of flows never come here; should one, it is not let through.
            _ => {
                let detail = usize::from(meta.detail).min(Malformed::ALL.len() - 1);
                self.counters.malformed[detail] += 1;
                Verdict::Drop(DropReason::Malformed, Why::Layer2)
            }
        }
    }
}

/// A TCP segment with ACK alone and no option but time stamps in their usual place (RFC 7323, appendix A).
#[inline(always)]
fn plain(frame: &[u8], l4_offset: u16, l4_len: u16) -> Option<Plain> {
    let (tcp, behind) = frame.get(usize::from(l4_offset)..)?.split_first_chunk::<20>()?;
    let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    let header = match tcp[12] >> 4 {
        5 => 20,
        8 if behind.first_chunk() == Some(&[1, 1, 8, 10]) => 32,
        _ => return None,
    };
    (tcp[13] & (flag::ACK | flag::SYN | flag::FIN | flag::RST) == flag::ACK).then(|| Plain {
        seq: word(4),
        ack: word(8),
        window: u16::from_be_bytes([tcp[14], tcp[15]]),
        data_len: u32::from(l4_len).wrapping_sub(header),
    })
}

/// Packets in a row of sessions that stay as they are.
#[derive(Clone, Copy)]
struct Run {
    packets: usize,
    /// They leave by this.
    egress: PortId,
    /// The next one is perhaps another such, that leaves by another port.
    goes_on: bool,
}

impl Run {
    const NONE: Self = Self {
        packets: 0,
        egress: PortId(0),
        goes_on: false,
    };
}

/// A packet of a flow, as the session and first-packet paths need it.
#[derive(Clone, Copy)]
pub(super) struct FlowPacket<'a> {
    pub(super) meta: &'a PacketMeta,
    pub(super) frame: &'a [u8],
    pub(super) key: &'a FlowKey,
    pub(super) hash: u64,
    pub(super) direction: Direction,
    pub(super) candidate: Candidate,
    pub(super) question: u8,
    /// How it came to this worker.
    pub(super) hops: Hops,
}
