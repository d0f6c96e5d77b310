//! Two endpoints on a lossy path.

use haechi::flow::track::flag;
use haechi::flow::{Direction, Segment, SessionState, Tracked};
use proptest::prelude::*;

use crate::connection::{A, Connection, Opener, Replier, S, WINDOW};

/// One end of a connection, as simple as RFC 9293 allows: no options, everything not acknowledged is sent again.
#[derive(Debug)]
struct Endpoint {
    /// Opens actively; else it waits for a SYN.
    active: bool,
    isn: u32,
    /// Bytes to send before the FIN.
    bytes: u32,
    /// Acknowledged, in sequence numbers from the ISN on: SYN, bytes, FIN.
    acked: u32,
    /// The next number expected of the other end, once its SYN came.
    expects: Option<u32>,
    got_fin: bool,
}

impl Endpoint {
    fn established(&self) -> bool {
        self.acked > 0 && self.expects.is_some()
    }

    fn fin_acked(&self) -> bool {
        self.acked == self.bytes + 2
    }

    fn done(&self) -> bool {
        self.fin_acked() && self.got_fin
    }

    /// What it sends now, given the most data for one segment; `close`: a FIN may go.
    fn emit(&self, most: u32, close: bool) -> Option<Segment> {
        let seq = self.isn.wrapping_add(self.acked);
        let ack = self.expects.unwrap_or(0);
        let ack_flag = if self.expects.is_some() { A } else { 0 };
        if self.acked == 0 {
            return (self.active || self.expects.is_some()).then_some(Segment {
                flags: S | ack_flag,
                seq,
                ack,
                data_len: 0,
                ..WINDOW
            });
        }
        self.expects?;
        let data_len = (self.bytes + 1).saturating_sub(self.acked).min(most);
        let fin = close && !self.fin_acked() && self.acked + data_len == self.bytes + 1;
        Some(Segment {
            flags: A | if fin { flag::FIN } else { 0 },
            seq,
            ack,
            data_len,
            ..WINDOW
        })
    }

    fn receive(&mut self, segment: &Segment) {
        if segment.flags & S != 0 && self.expects.is_none() {
            self.expects = Some(segment.seq.wrapping_add(1));
        }
        let Some(expects) = self.expects else { return };
        if segment.flags & A != 0 {
            let acked = segment.ack.wrapping_sub(self.isn);
            if acked > self.acked && acked <= self.bytes + 2 {
                self.acked = acked;
            }
        }
        if segment.flags & S == 0 && self.acked > 0 && segment.seq == expects && !self.got_fin {
            self.expects = Some(segment.end());
            self.got_fin = segment.flags & flag::FIN != 0;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Two endpoints talk through the tracker; segments are lost before it and behind it. Nothing that they send is refused, a
    /// connection that both hold established is `established` here too, and once both have closed it is `time_wait`.
    #[test]
    fn endpoints_on_a_lossy_path(
        opener in prop::sample::select(vec![Direction::LowToHigh, Direction::HighToLow]),
        simultaneous in any::<bool>(),
        isn in any::<[u32; 2]>(),
        bytes in (0..400_u32, 0..400_u32),
        steps in prop::collection::vec((any::<bool>(), 0..3_u8, 0..150_u32, any::<bool>()), 0..80),
    ) {
        let mut ends = [
            Endpoint { active: true, isn: isn[0], bytes: bytes.0, acked: 0, expects: None, got_fin: false },
            Endpoint { active: simultaneous, isn: isn[1], bytes: bytes.1, acked: 0, expects: None, got_fin: false },
        ];
        let mut c = Connection::open(opener, isn);
        let mut fins = 0_u32;
        // After the random steps, enough lossless ones to finish.
        let rest = (0..60).map(|i| (i % 2 == 0, 0, 100, true));
        for (from_opener, loss, most, close) in steps.into_iter().chain(rest) {
            let (from, this) = if from_opener { (Opener, 0) } else { (Replier, 1) };
            let Some(segment) = ends[this].emit(most, close) else { continue };
            if loss == 1 {
                continue;
            }
            let (tracked, state) = c.raw(from, segment);
            prop_assert!(
                matches!(tracked, Tracked::Stay | Tracked::Move(_)),
                "{tracked:?} in {state:?}: {from:?} sends {segment:?}"
            );
            fins += u32::from(segment.flags & flag::FIN != 0);
            if loss == 0 {
                ends[1 - this].receive(&segment);
            }
            if fins == 0 && ends.iter().all(Endpoint::established) {
                prop_assert_eq!(c.state(), SessionState::Established);
            }
            prop_assert!(fins > 0 || c.state() <= SessionState::Established);
            if ends.iter().all(Endpoint::fin_acked) {
                prop_assert_eq!(c.state(), SessionState::TimeWait);
            } else if ends.iter().any(Endpoint::fin_acked) {
                prop_assert!(matches!(
                    c.state(),
                    SessionState::CloseWait | SessionState::LastAck | SessionState::TimeWait
                ));
            }
        }
        prop_assert!(ends.iter().all(Endpoint::done), "the model never finishes: {ends:?}");
        prop_assert_eq!(c.state(), SessionState::TimeWait);
    }
}
