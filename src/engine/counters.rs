//! What the engine counts: plain integers that its worker owns and publishes.

use super::DropReason;
use crate::base::{Nanos, RuleId};
use crate::packet::parse::Malformed;

/// The most rules that one run of a node can have names for (over all its applies).
pub const MAX_RULES: usize = 65_536;
/// What no rule matches is counted here, behind all rules.
pub const IMPLICIT_DROP: RuleId = RuleId(MAX_RULES as u32);

/// Packets by verdict. After every burst `received == forwarded + handed_over + redirected_out + given_back + sent_back + dropped() +
/// held`, exactly, where the held ones are mostly fragments ([`super::Engine::held`]).
#[derive(Clone, Debug)]
pub struct Counters {
    /// Packets that `process` took in.
    pub received: u64,
    /// Packets handed to [`super::Outputs::forward`].
    pub forwarded: u64,
    /// Packets handed to [`super::Outputs::hand_over`].
    pub handed_over: u64,
    /// Packets that the other node of an HA pair took over to be judged there ([`super::Outputs::offer`]).
    pub redirected_out: u64,
    /// Packets of `received` that the other node offered: each is counted by the worker that gets it first.
    pub redirected_in: u64,
    /// Of those that were offered, the ones that pass, and so leave by the other node ([`super::Outputs::give_back`]).
    pub given_back: u64,
    /// Fragments that were offered, and are of the other node's sessions ([`super::Outputs::send_back`]).
    pub sent_back: u64,
    /// First packets that were held until the other node knows their session (`defer`) ...
    pub deferred: u64,
    /// ... and those of rules with `defer` that did not wait for that, or in vain: `defer_timeout` was over, or too many waited.
    pub deferred_late: u64,
    /// Packets that the engine made itself (RST, ICMP unreachable, segments of proxied handshakes).
    pub originated: u64,
    /// Answers that `reject_rate` or an empty buffer pool kept from being made.
    pub rejects_suppressed: u64,
    /// RSTs for sessions that idled out (`reset_on_timeout`); in `originated`, too.
    pub timeout_resets: u64,
    /// Ends of such sessions that got none: nothing was seen that they acknowledged, or the buffer pool was empty.
    pub timeout_resets_missed: u64,
    /// IP fragments among the packets of `received`, but for malformed ones.
    pub fragments: u64,
    /// Datagrams whose fragments were all there.
    pub fragments_reassembled: u64,
    /// Packets dropped, by [`DropReason::index`].
    pub drops: [u64; DropReason::COUNT],
    /// Malformed packets by what is wrong with them: adds up to `drops[Malformed]`.
    pub malformed: [u64; Malformed::ALL.len()],
    /// SYNs answered by a cookie.
    pub syn_cookies_sent: u64,
    /// Cookies that came back, and were good.
    pub syn_cookies_accepted: u64,
    /// SYNs to servers that are not sent again although nothing answered: too many wait, or a lack of buffers.
    pub syn_retries_lost: u64,
    /// Sessions made.
    pub sessions_created: u64,
    /// Sessions ended, for whatever reason.
    pub sessions_ended: u64,
    /// Records of sessions that found no room on their way to the logs.
    pub log_records_lost: u64,
    /// Sessions that came from other workers with their buckets ...
    pub sessions_moved_in: u64,
    /// ... and those that went. So on each worker created + in = live + ended + out.
    pub sessions_moved_out: u64,
    /// Sessions of the other node of an HA pair that were taken in ...
    pub sessions_synced_in: u64,
    /// ... and those that it said have ended. On each worker created + in + synced in = live + ended + out + synced out.
    pub sessions_synced_out: u64,
    /// Frames in the name of hosts, so that switches learn where these are; in `originated`, too.
    pub stations_announced: u64,
    /// News of the other node's sessions for which there was no room.
    pub sync_refused: u64,
    /// Of those ended, the ones that gave way to others in a full table.
    pub sessions_evicted: u64,
    /// Messages about flows that are elsewhere for which there was no room: their packets open sessions of their own.
    pub redirects_full: u64,
    /// Sessions refused because no place was left to count their source, among the drops as `session_limit`; and loans between workers
    /// that found no place.
    pub sources_full: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            received: 0,
            forwarded: 0,
            handed_over: 0,
            redirected_out: 0,
            redirected_in: 0,
            given_back: 0,
            sent_back: 0,
            deferred: 0,
            deferred_late: 0,
            originated: 0,
            rejects_suppressed: 0,
            timeout_resets: 0,
            timeout_resets_missed: 0,
            fragments: 0,
            fragments_reassembled: 0,
            drops: [0; DropReason::COUNT],
            malformed: [0; Malformed::ALL.len()],
            syn_cookies_sent: 0,
            syn_cookies_accepted: 0,
            syn_retries_lost: 0,
            sessions_created: 0,
            sessions_ended: 0,
            log_records_lost: 0,
            sessions_moved_in: 0,
            sessions_moved_out: 0,
            sessions_synced_in: 0,
            sessions_synced_out: 0,
            stations_announced: 0,
            sync_refused: 0,
            sessions_evicted: 0,
            redirects_full: 0,
            sources_full: 0,
        }
    }
}

impl Counters {
    /// All drops.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }
}

/// One rule's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCounters {
    /// Live sessions.
    pub sessions: u64,
    /// Packets that it decided, first packets and packets of its sessions.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// When it last decided a packet; zero: never.
    pub last_hit: Nanos,
    /// Sessions that its limits refused.
    pub limited: u64,
    /// Of several workers: what is unused of this one's lease of the rule's `max_sessions`; [`super::Engine::rule_counters`] says it.
    pub unused_leases: u64,
}

/// Adds up one rule's packets in registers and touches its counters when another rule's packet comes: packets of one
/// burst mostly belong to few rules.
#[derive(Clone, Copy)]
pub(super) struct RuleRun {
    rule: RuleId,
    packets: u64,
    bytes: u64,
}

impl RuleRun {
    pub(super) const EMPTY: Self = Self {
        rule: RuleId(0),
        packets: 0,
        bytes: 0,
    };

    #[inline]
    pub(super) fn add(&mut self, rules: &mut [RuleCounters], now: Nanos, rule: RuleId, bytes: u32) {
        if rule != self.rule {
            self.flush(rules, now);
            self.rule = rule;
        }
        self.packets += 1;
        self.bytes += u64::from(bytes);
    }

    #[inline]
    pub(super) fn flush(&mut self, rules: &mut [RuleCounters], now: Nanos) {
        if self.packets == 0 {
            return;
        }
        if let Some(counters) = rules.get_mut(self.rule.index()) {
            counters.packets += self.packets;
            counters.bytes += self.bytes;
            counters.last_hit = now;
        }
        *self = Self {
            rule: self.rule,
            packets: 0,
            bytes: 0,
        };
    }
}
