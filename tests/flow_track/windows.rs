//! Windows: van Rooij's bounds one by one and against a literal model, scales, handshakes, resets.

use haechi::flow::track::{is_steady, open_tcp, track_tcp};
use haechi::flow::{Direction, FlowKey, Options, Plain, Segment, Session, SessionState, Tracked};
use proptest::prelude::*;

use crate::connection::{A, Connection, FA, Opener, R, RA, Replier, S, SA, WINDOW, every_way};

const HANDSHAKE: &str = "rsa=syn_received oa=established";

/// An established connection; both ends have sent 100 bytes, which are acknowledged, and offer 65,535.
fn established(c: &mut Connection) {
    c.talk(HANDSHAKE);
    c.talk("od=established rd=established oa=established ra=established");
}

fn plain(c: &Connection, seq: u32, ack: u32, data_len: u32) -> Segment {
    Segment {
        flags: A,
        seq: c.next[0].wrapping_add(seq),
        ack: c.next[1].wrapping_add(ack),
        data_len,
        ..WINDOW
    }
}

fn each_bound(cases: &[(u32, u32, u32, bool)]) {
    every_way(|mut c| {
        established(&mut c);
        for (seq, ack, data_len, passes) in cases {
            let segment = plain(&c, *seq, *ack, *data_len);
            let expected = if *passes {
                Tracked::Stay
            } else {
                Tracked::OutOfWindow
            };
            assert_eq!(c.raw(Opener, segment).0, expected, "{seq} {ack} {data_len}");
        }
    });
}

const fn minus(n: u32) -> u32 {
    0_u32.wrapping_sub(n)
}

#[test]
fn bound_1_data_behind_the_offered_window() {
    each_bound(&[
        (65_536, 0, 1, false),
        (70_000, 0, 0, false),
        (1 << 31, 0, 0, false),
    ]);
    each_bound(&[(65_535, 0, 1, true)]);
}

#[test]
fn bound_2_data_from_before_the_last_window() {
    each_bound(&[
        (minus(65_536), 0, 0, false),
        (minus(65_600), 0, 64, false),
        (minus(65_535), 0, 0, true),
        (minus(65_600), 0, 65, true),
        // A keepalive, with and without its byte.
        (minus(1), 0, 0, true),
        (minus(1), 0, 1, true),
    ]);
}

#[test]
fn bound_3_acknowledgement_of_what_was_never_sent() {
    each_bound(&[(0, 1, 0, false), (0, 5000, 10, false), (0, 0, 0, true)]);
    let sack = |right: u32| {
        move |segment: Segment| Segment {
            options: Options {
                sack: Some(segment.ack.wrapping_add(right)),
                ..segment.options
            },
            ..segment
        }
    };
    every_way(|mut c| {
        established(&mut c);
        let segment = plain(&c, 0, minus(50), 0);
        assert_eq!(
            c.raw(Opener, sack(51)(segment)).0,
            Tracked::OutOfWindow,
            "SACK of what was never sent"
        );
        assert_eq!(c.raw(Opener, sack(50)(segment)).0, Tracked::Stay);
    });
}

#[test]
fn bound_4_acknowledgement_from_long_ago() {
    each_bound(&[
        (0, minus(66_001), 0, false),
        (0, minus(1 << 30), 0, false),
        (0, minus(66_000), 0, true),
    ]);
    // What SACK says has arrived counts.
    every_way(|mut c| {
        established(&mut c);
        let segment = plain(&c, 0, minus(66_001), 0);
        let options = Options {
            sack: Some(c.next[1]),
            ..Options::default()
        };
        assert_eq!(c.raw(Opener, Segment { options, ..segment }).0, Tracked::Stay);
    });
}

#[test]
fn what_is_refused_changes_nothing() {
    every_way(|mut c| {
        established(&mut c);
        let before = format!("{:?}", c.session());
        for (flags, seq, ack, len) in [
            (A, 70_000, 0, 10),
            (A, minus(70_000), 0, 10),
            (A, 0, 9, 10),
            (A, 0, minus(70_000), 10),
            (FA, 70_000, 0, 0),
            (FA, 0, 1, 0),
            (R, 70_000, 0, 0),
            (RA, minus(1), 0, 0),
        ] {
            let segment = Segment {
                flags,
                ..plain(&c, seq, ack, len)
            };
            assert_eq!(
                c.raw(Opener, segment),
                (Tracked::OutOfWindow, SessionState::Established),
                "{segment:?}"
            );
            assert_eq!(format!("{:?}", c.session()), before);
        }
    });
}

#[test]
fn a_closed_window_lets_a_probe_through() {
    every_way(|mut c| {
        established(&mut c);
        let close = Segment {
            flags: A,
            seq: c.next[1],
            ack: c.next[0].wrapping_add(65_435),
            window: 0,
            ..WINDOW
        };
        let fill = plain(&c, 0, 0, 65_435);
        assert_eq!(c.raw(Opener, fill).0, Tracked::Stay);
        assert_eq!(c.raw(Replier, close).0, Tracked::Stay);
        assert_eq!(
            c.raw(Opener, plain(&c, 65_435, 0, 1)).0,
            Tracked::Stay,
            "a probe of one byte"
        );
    });
}

/// Handshakes with and without the window scale option.
#[test]
fn scales_count_if_both_have_them() {
    for (ours, theirs, scale) in [
        (Some(7), Some(3), Some(7)),
        (Some(14), Some(0), Some(14)),
        (Some(0), Some(14), Some(0)),
        (Some(7), None, None),
        (None, Some(7), None),
        (None, None, None),
    ] {
        every_way(|mut c| {
            let syn = |flags, seq, ack, scale| Segment {
                flags,
                seq,
                ack,
                options: Options {
                    scale,
                    ..Options::default()
                },
                ..WINDOW
            };
            let isn = c.next[0].wrapping_sub(1);
            assert_eq!(c.raw(Opener, syn(S, isn, 0, ours)).0, Tracked::Stay);
            let answer = syn(SA, c.next[1], isn.wrapping_add(1), theirs);
            assert_eq!(c.raw(Replier, answer).1, SessionState::SynReceived);
            let (seq, ack) = (isn.wrapping_add(1), c.next[1].wrapping_add(1));
            // The window of a SYN is never scaled; that of the ACK is.
            let acknowledge = Segment {
                flags: A,
                seq,
                ack,
                window: 1000,
                ..WINDOW
            };
            assert_eq!(c.raw(Opener, acknowledge).1, SessionState::Established);
            let edge = 1000_u32 << scale.unwrap_or(0);
            let edge = edge.max(65_535);
            let data = |at: u32| Segment {
                flags: A,
                seq: ack.wrapping_add(at),
                ack: seq,
                data_len: 1,
                ..WINDOW
            };
            assert_eq!(
                c.raw(Replier, data(edge + 1)).0,
                Tracked::OutOfWindow,
                "{ours:?} {theirs:?}"
            );
            assert_eq!(c.raw(Replier, data(edge)).0, Tracked::Stay, "{ours:?} {theirs:?}");
        });
    }
}

#[test]
fn a_syn_ack_acknowledges_the_syn() {
    every_way(|mut c| {
        let isn = c.next[0].wrapping_sub(1);
        for wrong in [0, 2, 1 << 31, minus(5)] {
            let answer = Segment {
                flags: SA,
                seq: c.next[1],
                ack: isn.wrapping_add(wrong),
                ..WINDOW
            };
            assert_eq!(
                c.raw(Replier, answer),
                (Tracked::OutOfWindow, SessionState::SynSent)
            );
        }
        c.talk(HANDSHAKE);
    });
}

#[test]
fn data_before_the_handshake_is_complete() {
    // With the SYN, and with Fast Open.
    for (fast_open, opens) in [(false, false), (true, true)] {
        let mut session = Session::new(FlowKey::default(), Direction::LowToHigh, SessionState::SynSent);
        let options = Options {
            fast_open,
            ..Options::default()
        };
        let syn = Segment {
            flags: S,
            seq: 7,
            data_len: 50,
            options,
            ..WINDOW
        };
        assert_eq!(open_tcp(&mut session, &syn), opens);
    }
    every_way(|mut c| {
        c.talk("rsa=syn_received");
        let early = Segment {
            flags: A,
            seq: c.next[1],
            ack: c.next[0],
            data_len: 10,
            ..WINDOW
        };
        assert_eq!(
            c.raw(Replier, early),
            (Tracked::OutOfWindow, SessionState::SynReceived)
        );
        c.talk("od=established rd=established");
    });
}

/// RFC 7413, figure 1: data with the SYN, and the answer before the client's ACK.
#[test]
fn fast_open() {
    for taken in [0, 50] {
        every_way(|mut c| {
            let (isn, other) = (c.next[0].wrapping_sub(1), c.next[1]);
            let options = Options {
                fast_open: true,
                ..Options::default()
            };
            let syn = Segment {
                flags: S,
                seq: isn,
                data_len: 50,
                options,
                ..WINDOW
            };
            assert_eq!(c.raw(Opener, syn).0, Tracked::Stay);
            let first = isn.wrapping_add(1);
            // The server takes the data, or asks for it again.
            let answer = Segment {
                flags: SA,
                seq: other,
                ack: first.wrapping_add(taken),
                ..WINDOW
            };
            assert_eq!(c.raw(Replier, answer).1, SessionState::SynReceived);
            let data = Segment {
                flags: A,
                seq: other.wrapping_add(1),
                ack: first.wrapping_add(taken),
                data_len: 1000,
                ..WINDOW
            };
            assert_eq!(c.raw(Replier, data), (Tracked::Stay, SessionState::SynReceived));
            let ack = Segment {
                flags: A,
                seq: first.wrapping_add(taken),
                ack: other.wrapping_add(1001),
                data_len: 50 - taken,
                ..WINDOW
            };
            assert_eq!(c.raw(Opener, ack).1, SessionState::Established);
            // Beyond what the SYN offered nothing goes.
            assert_eq!(
                c.raw(
                    Replier,
                    Segment {
                        seq: data.seq.wrapping_add(70_000),
                        ..data
                    }
                )
                .0,
                Tracked::OutOfWindow
            );
        });
    }
}

/// RFC 5961, section 3.2: only the next expected number closes; another one in the window makes the receiver ask.
#[test]
fn resets_by_their_number() {
    let reset = |c: &Connection, seq: u32| Segment {
        flags: R,
        seq: c.next[0].wrapping_add(seq),
        ..WINDOW
    };
    for (seq, expected, state) in [
        (0, Tracked::Move(SessionState::Closed), SessionState::Closed),
        (1, Tracked::Shorten, SessionState::Established),
        (65_535, Tracked::Shorten, SessionState::Established),
        (65_536, Tracked::OutOfWindow, SessionState::Established),
        (minus(1), Tracked::OutOfWindow, SessionState::Established),
        (1 << 31, Tracked::OutOfWindow, SessionState::Established),
    ] {
        every_way(|mut c| {
            established(&mut c);
            let segment = reset(&c, seq);
            assert_eq!(c.raw(Opener, segment), (expected, state), "{seq}");
        });
    }
    // Data on its way: the receiver expects what it acknowledged, or the end.
    for (seq, state) in [
        (0, SessionState::Closed),
        (100, SessionState::Closed),
        (50, SessionState::Established),
    ] {
        every_way(|mut c| {
            established(&mut c);
            assert_eq!(c.raw(Opener, plain(&c, 0, 0, 100)).0, Tracked::Stay);
            let segment = reset(&c, seq);
            assert_eq!(c.raw(Opener, segment).1, state, "{seq}");
        });
    }
    // Refused connections: the RST acknowledges the SYN.
    every_way(|mut c| {
        for (flags, ack) in [(R, 0), (RA, 1), (RA, minus(1))] {
            let segment = Segment {
                flags,
                seq: 0,
                ack: c.next[0].wrapping_add(ack),
                ..WINDOW
            };
            assert_eq!(
                c.raw(Replier, segment),
                (Tracked::OutOfWindow, SessionState::SynSent)
            );
        }
        let segment = Segment {
            flags: RA,
            seq: 0,
            ack: c.next[0],
            ..WINDOW
        };
        assert_eq!(c.raw(Replier, segment).1, SessionState::Closed);
    });
}

/// An end whose socket is gone answers a segment that was overtaken on its way by a RST with that segment's acknowledgement, which
/// is older than the newest one (RFC 9293, section 3.10.7.1). Found by tests/soak.sh: such RSTs of real clients were dropped.
#[test]
fn resets_that_answer_overtaken_segments_pass_and_change_nothing() {
    // Its FIN is acknowledged, and so is the other's; then its RST has ended the connection.
    for (talk, since) in [
        ("of=fin_wait", 1),
        ("of=fin_wait ra*=close_wait", 1),
        ("of=fin_wait ra*=close_wait rf*=last_ack oa*=time_wait", 1),
        ("or=closed", 1),
        ("rr=closed", 1),
    ] {
        every_way(|mut c| {
            established(&mut c);
            c.talk(talk);
            let end = c.fin_end[0].unwrap_or(c.next[0]);
            let reset = |old: u32| Segment {
                flags: R,
                seq: end.wrapping_sub(old),
                ..WINDOW
            };
            let before = format!("{:?}", c.session());
            for (old, expected) in [
                (since + 1, Tracked::Stay),
                (100, Tracked::Stay),
                (66_000, Tracked::Stay),
                (66_001, Tracked::OutOfWindow),
                (1 << 31, Tracked::OutOfWindow),
            ] {
                assert_eq!(
                    c.raw(Opener, reset(old)).0,
                    expected,
                    "{old} before the end after {talk}"
                );
                assert_eq!(format!("{:?}", c.session()), before);
            }
        });
    }
    // One that goes on has answered nothing: the other end's FIN does not say that this socket is gone.
    every_way(|mut c| {
        established(&mut c);
        c.talk("rf=fin_wait");
        let segment = Segment {
            flags: R,
            seq: c.next[0].wrapping_sub(1),
            ..WINDOW
        };
        assert_eq!(c.raw(Opener, segment).0, Tracked::OutOfWindow);
    });
}

/// A RST that its receiver may not have accepted: the session lives as long as a closed one, unless its sender goes on.
#[test]
fn a_doubtful_reset_shortens_the_timeout_until_its_sender_goes_on() {
    use haechi::base::Nanos;
    use haechi::flow::{StateTimeouts, TimeoutClass};
    let timeouts = StateTimeouts::from_fn(|class| match class {
        TimeoutClass::TcpClosed => Nanos::from_secs(1),
        _ => Nanos::from_secs(100),
    });
    every_way(|mut c| {
        established(&mut c);
        let long = c.session().timeout(&timeouts);
        let segment = Segment {
            flags: R,
            ..plain(&c, 10, 0, 0)
        };
        assert_eq!(c.raw(Opener, segment).0, Tracked::Shorten);
        let short = c.session().timeout(&timeouts);
        assert!(short < long);
        // The receiver's challenge ACK says nothing of whether the sender is still there.
        assert_eq!(
            c.raw(
                Replier,
                Segment {
                    flags: A,
                    seq: c.next[1],
                    ack: c.next[0],
                    ..WINDOW
                }
            )
            .0,
            Tracked::Stay
        );
        assert_eq!(c.session().timeout(&timeouts), short);
        assert_eq!(c.raw(Opener, plain(&c, 0, 0, 1)).0, Tracked::Stay);
        assert_eq!(c.session().timeout(&timeouts), long);
    });
}

#[test]
fn liberal_sessions_take_any_number() {
    for flags in [A, FA, R] {
        let mut session = Session::new(FlowKey::default(), Direction::LowToHigh, SessionState::SynSent);
        session.flags = Session::LIBERAL;
        assert!(open_tcp(
            &mut session,
            &Segment {
                flags: S,
                seq: 1,
                data_len: 5,
                ..WINDOW
            }
        ));
        for (sender, segment) in [
            (
                Direction::HighToLow,
                Segment {
                    flags: SA,
                    seq: 9,
                    ack: 77,
                    ..WINDOW
                },
            ),
            (
                Direction::LowToHigh,
                Segment {
                    flags: A,
                    seq: 1 << 20,
                    ack: 10,
                    ..WINDOW
                },
            ),
            (
                Direction::LowToHigh,
                Segment {
                    flags,
                    seq: 1 << 30,
                    ack: 1 << 30,
                    data_len: 9,
                    ..WINDOW
                },
            ),
        ] {
            let tracked = drive(&mut session, sender, &segment);
            assert!(
                matches!(tracked, Tracked::Stay | Tracked::Move(_)),
                "{tracked:?} {segment:?}"
            );
        }
    }
}

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
            seq + len < self.end(this) - self.window(other),
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
                _ => model.end(this) - model.window(other) - len,
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
fn drive(session: &mut Session, sender: Direction, segment: &Segment) -> Tracked {
    let tracked = track_tcp(session, sender, segment);
    if let Tracked::Move(state) = tracked {
        let mut moved = Session::new(session.key, session.opener, state);
        (moved.tcp, moved.flags) = (session.tcp, session.flags);
        *session = moved;
    }
    tracked
}

/// The flag that the short cut must look at: what it takes needs no note but of numbers.
#[test]
fn the_short_cut_leaves_flags_to_the_tracker() {
    every_way(|mut c| {
        established(&mut c);
        let segment = Segment {
            flags: R,
            ..plain(&c, 10, 0, 0)
        };
        assert_eq!(c.raw(Opener, segment).0, Tracked::Shorten);
        let mut session = c.session();
        let opener = session.opener;
        let go_on = Plain {
            seq: c.next[0],
            ack: c.next[1],
            window: 100,
            data_len: 1,
        };
        assert!(
            !is_steady(&mut session, opener, || Some(go_on)),
            "the mark has to go"
        );
        assert!(!is_steady(&mut session, opener, || None));
    });
}
