//! RSTs: which end a connection, which pass without an effect, which are dropped.

use haechi::flow::track::is_steady;
use haechi::flow::{Plain, Segment, SessionState, Tracked};

use crate::connection::{A, Connection, Opener, R, RA, Replier, WINDOW, every_way};
use crate::windows::{established, minus, plain};

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

/// A RST of the opener in the window, but not at the number that its receiver expects next.
fn doubtful(c: &Connection) -> Segment {
    Segment {
        flags: R,
        ..plain(c, 10, 0, 0)
    }
}

/// A RST that its receiver may not have accepted: the session lives as long as a closed one, unless either end goes on. Whoever
/// guesses RSTs shall not end an idle connection: its receiver asks by a challenge ACK, which says that it has not closed.
#[test]
fn a_doubtful_reset_shortens_the_timeout_until_an_end_goes_on() {
    use haechi::base::Nanos;
    use haechi::flow::{StateTimeouts, TimeoutClass};
    let timeouts = StateTimeouts::from_fn(|class| match class {
        TimeoutClass::TcpClosed => Nanos::from_secs(1),
        _ => Nanos::from_secs(100),
    });
    every_way(|mut c| {
        established(&mut c);
        let long = c.session().timeout(&timeouts);
        let segment = doubtful(&c);
        assert_eq!(c.raw(Opener, segment).0, Tracked::Shorten);
        let short = c.session().timeout(&timeouts);
        assert!(short < long);
        // The receiver's challenge ACK (RFC 5961, section 3.2).
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
        assert_eq!(c.session().timeout(&timeouts), long);
        // Linux asks once in half a second: RSTs that follow are not asked about, and shorten nothing.
        assert_eq!(c.raw(Opener, segment).0, Tracked::Stay);
        assert_eq!(c.session().timeout(&timeouts), long);
    });
    every_way(|mut c| {
        established(&mut c);
        let long = c.session().timeout(&timeouts);
        let segment = doubtful(&c);
        assert_eq!(c.raw(Opener, segment).0, Tracked::Shorten);
        assert_eq!(c.raw(Opener, plain(&c, 0, 0, 1)).0, Tracked::Stay);
        assert_eq!(c.session().timeout(&timeouts), long);
    });
}

/// A closed session's timeout may be the longer one.
#[test]
fn a_doubtful_reset_never_lengthens_the_timeout() {
    use haechi::base::Nanos;
    use haechi::flow::{StateTimeouts, TimeoutClass};
    let timeouts = StateTimeouts::from_fn(|class| match class {
        TimeoutClass::TcpEstablished => Nanos::from_secs(4),
        _ => Nanos::from_secs(10),
    });
    every_way(|mut c| {
        established(&mut c);
        let before = c.session().timeout(&timeouts);
        let segment = doubtful(&c);
        assert_eq!(c.raw(Opener, segment).0, Tracked::Shorten);
        assert_eq!(c.session().timeout(&timeouts), before);
    });
}

/// The flag that the short cut must look at: what it takes needs no note but of numbers.
#[test]
fn the_short_cut_leaves_flags_to_the_tracker() {
    every_way(|mut c| {
        established(&mut c);
        let segment = doubtful(&c);
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
