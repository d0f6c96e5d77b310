//! Windows: van Rooij's bounds one by one, scales, handshakes.

use haechi::flow::track::open_tcp;
use haechi::flow::{Direction, FlowKey, Options, Segment, Session, SessionState, Tracked};

use crate::connection::{A, Connection, FA, Opener, R, RA, Replier, S, SA, WINDOW, every_way};
use crate::model::drive;

const HANDSHAKE: &str = "rsa=syn_received oa=established";

/// An established connection; both ends have sent 100 bytes, which are acknowledged, and offer 65,535.
pub(crate) fn established(c: &mut Connection) {
    c.talk(HANDSHAKE);
    c.talk("od=established rd=established oa=established ra=established");
}

pub(crate) fn plain(c: &Connection, seq: u32, ack: u32, data_len: u32) -> Segment {
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

pub(crate) const fn minus(n: u32) -> u32 {
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
fn bound_2_data_from_before_the_last_windows() {
    const WINDOWS: u32 = 4 * 65_535;
    each_bound(&[
        (minus(WINDOWS + 1), 0, 0, false),
        (minus(WINDOWS + 65), 0, 64, false),
        (minus(WINDOWS), 0, 0, true),
        (minus(WINDOWS + 65), 0, 65, true),
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
            (A, minus(300_000), 0, 10),
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
