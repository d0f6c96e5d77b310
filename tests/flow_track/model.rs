//! Windows against a slow and literal model of van Rooij's four bounds.

use haechi::flow::track::{is_steady, open_tcp, track_tcp};
use haechi::flow::{Direction, FlowKey, Options, Plain, Segment, Session, SessionState, Tracked};
use proptest::prelude::*;

use crate::connection::{A, S, SA, WINDOW};

/// The bounds as the paper has them, in numbers that never wrap, from everything that was ever seen.
#[derive(Debug, Default)]
struct Model {
    /// Of each end: (beginning, end) of all that it sent; (acknowledgement, window in bytes) of all that it sent.
    sent: [Vec<(i64, i64)>; 2],
    offered: [Vec<(i64, i64)>; 2],
    /// The largest window of each end in bytes: the largest that it offered, and more when data came that no window seen
    /// here had allowed.
    largest: [i64; 2],
}

impl Model {
    fn end(&self, this: usize) -> i64 {
        self.sent[this].iter().map(|s| s.1).max().unwrap()
    }

    fn right_edge(&self, this: usize) -> i64 {
        self.offered[1 - this]
            .iter()
            .map(|(ack, window)| ack + window.max(&1))
            .max()
            .unwrap()
    }

    fn window(&self, this: usize) -> i64 {
        self.largest[this].max(1)
    }

    /// Which of the four bounds (1 to 4) it breaks.
    fn breaks(&self, this: usize, seq: i64, len: i64, ack: i64) -> Vec<u8> {
        let other = 1 - this;
        let broken = [
            seq > self.right_edge(this),
            seq + len < self.end(this) - 4 * self.window(other),
            ack > self.end(other),
            ack < self.end(other) - self.window(this).max(66_000),
        ];
        (1..)
            .zip(broken)
            .filter_map(|(n, broken)| broken.then_some(n))
            .collect()
    }

    fn note(&mut self, this: usize, seq: i64, len: i64, ack: i64, window: i64, units: [i64; 2]) {
        let other = 1 - this;
        let beyond = (seq + len - self.right_edge(this)).max(0);
        let more = (beyond + units[other] - 1) / units[other] * units[other];
        // No window is larger than its field can say.
        self.largest[other] = (self.largest[other] + more).min(65_535 * units[other]);
        self.largest[this] = self.largest[this].max(window);
        self.sent[this].push((seq, seq + len));
        self.offered[this].push((ack, window));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Segments around all edges: the tracker and its short cut refuse what the model refuses, for every bound.
    #[test]
    fn windows_against_the_literal_model(
        isn in any::<[u32; 2]>(),
        scales in prop::array::uniform2(0..8_u8),
        steps in prop::collection::vec(
            (any::<bool>(), 0..4_u8, -2..3_i64, 0..4_u8, -2..3_i64, prop::sample::select(vec![0_i64, 1, 100, 1460, 65_000]),
             prop::sample::select(vec![0_u16, 1, 500, 65_535]), any::<bool>()),
            1..60,
        ),
    ) {
        let mut session = Session::new(FlowKey::default(), Direction::LowToHigh, SessionState::SynSent);
        let directions = [Direction::LowToHigh, Direction::HighToLow];
        let syn = |scale| Options { scale: Some(scale), ..Options::default() };
        let open = Segment { flags: S, seq: isn[0], window: 8192, options: syn(scales[0]), ..WINDOW };
        prop_assert!(open_tcp(&mut session, &open));
        let answer = Segment {
            flags: SA, seq: isn[1], ack: isn[0].wrapping_add(1), window: 8192, options: syn(scales[1]), ..WINDOW
        };
        prop_assert!(matches!(drive(&mut session, directions[1], &answer), Tracked::Move(_)));
        let third = Segment { flags: A, seq: isn[0].wrapping_add(1), ack: isn[1].wrapping_add(1), window: 100, ..WINDOW };
        prop_assert!(matches!(drive(&mut session, directions[0], &third), Tracked::Move(_)));
        prop_assert_eq!(session.state(), SessionState::Established);
        // Numbers from the ISNs on.
        let mut model = Model {
            sent: [vec![(0, 1)], vec![(0, 1)]],
            offered: [vec![(1, 8192), (1, 100 << scales[0])], vec![(1, 8192)]],
            largest: [(100 << scales[0]).max(8192), 8192],
        };
        let units = scales.map(|scale| 1_i64 << scale);
        let mut refused = [0; 5];
        for (from_opener, base, near, ack_base, ack_near, len, window, short_cut) in steps {
            let this = usize::from(!from_opener);
            let other = 1 - this;
            let base = match base {
                0 | 1 => model.end(this),
                2 => model.right_edge(this),
                _ => model.end(this) - 4 * model.window(other) - len,
            };
            let ack_base = match ack_base {
                0 | 1 => model.end(other),
                2 => model.end(other) - model.window(this).max(66_000),
                _ => (model.end(other) + model.offered[this].last().unwrap().0) / 2,
            };
            let (seq, ack) = (base + near, ack_base + ack_near);
            // Numbers of the model start at 0; what would be before the ISN is still a number on the wire.
            let wire = |end: usize, number: i64| isn[end].wrapping_add(number as u32);
            let segment = Segment {
                flags: A, seq: wire(this, seq), ack: wire(other, ack), window, data_len: len as u32, ..WINDOW
            };
            let broken = model.breaks(this, seq, len, ack);
            let before = format!("{session:?}");
            let plain = Plain { seq: segment.seq, ack: segment.ack, window, data_len: segment.data_len };
            let passed = if short_cut && is_steady(&mut session, directions[this], || Some(plain)) {
                true
            } else {
                prop_assert_eq!(&format!("{session:?}"), &before);
                match track_tcp(&mut session, directions[this], &segment) {
                    Tracked::Stay => true,
                    Tracked::OutOfWindow => false,
                    other => panic!("{other:?}"),
                }
            };
            prop_assert_eq!(passed, broken.is_empty(), "{:?}: seq {} len {} ack {}: {:?}", broken, seq, len, ack, model);
            if passed {
                model.note(this, seq, len, ack, i64::from(window) << scales[this], units);
            } else {
                prop_assert_eq!(&format!("{session:?}"), &before);
                refused[usize::from(broken[0])] += 1;
            }
        }
    }
}

/// The tracker, and what the engine's table does with [`Tracked::Move`].
pub(crate) fn drive(session: &mut Session, sender: Direction, segment: &Segment) -> Tracked {
    let tracked = track_tcp(session, sender, segment);
    if let Tracked::Move(state) = tracked {
        let mut moved = Session::new(session.key, session.opener, state);
        (moved.tcp, moved.flags) = (session.tcp, session.flags);
        *session = moved;
    }
    tracked
}
