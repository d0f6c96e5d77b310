//! Sequence numbers of echoes (RFC 792; RFC 4443, section 4): a reply passes if it answers a request that was seen.
//!
//! Not which requests were made is kept, but from which number to which: enough to refuse what nobody asked for, and nothing
//! that a slow path or a flood of pings could overrun. What TCP sessions keep of their senders is where it is kept.

use super::Session;

/// Half of the numbers that there are: beyond it "before" and "after" mean nothing (RFC 1982).
const HALF: u16 = 0x8000;

/// Notes a request of the session's opener.
pub fn request(session: &mut Session, sequence: u16) {
    let known = &mut session.tcp[session.opener.index()];
    // The newest number that was asked for, and how many before it, itself included, may have been.
    let (newest, count) = (known.end as u16, known.max_end);
    let behind = newest.wrapping_sub(sequence);
    if count == 0 {
        (known.end, known.max_end) = (u32::from(sequence), 1);
    } else if behind < HALF {
        known.max_end = count.max(u32::from(behind) + 1);
    } else {
        let ahead = sequence.wrapping_sub(newest);
        known.end = u32::from(sequence);
        known.max_end = (count + u32::from(ahead)).min(u32::from(HALF));
    }
}

/// Can the opener have asked with this number?
#[must_use]
pub const fn was_requested(session: &Session, sequence: u16) -> bool {
    let known = &session.tcp[session.opener.index()];
    let behind = (known.end as u16).wrapping_sub(sequence);
    (behind as u32) < known.max_end
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_not_asked_for_was_not() {
        let mut session = Session::default();
        assert!((0..=u16::MAX).all(|sequence| !was_requested(&session, sequence)));
        request(&mut session, 65_534);
        request(&mut session, 1);
        let asked: Vec<_> = (0..=u16::MAX).filter(|s| was_requested(&session, *s)).collect();
        assert_eq!(asked, [0, 1, 65_534, 65_535]);
        // Overtaken.
        request(&mut session, 65_533);
        assert!(was_requested(&session, 65_533) && !was_requested(&session, 65_532));
        assert!(was_requested(&session, 1) && !was_requested(&session, 2));
    }

    proptest! {
        /// Of a ping that counts up, with any loss and reordering on the way here, every answer passes, however late.
        #[test]
        fn every_request_s_answer_passes(first: u16, steps in prop::collection::vec(-50..200_i32, 1..150)) {
            let mut session = Session::default();
            let mut asked = vec![first];
            for step in steps {
                let last = asked.last().copied().unwrap_or(first);
                asked.push(last.wrapping_add_signed(step as i16));
            }
            for sequence in &asked {
                request(&mut session, *sequence);
                prop_assert!(was_requested(&session, *sequence));
            }
            for sequence in asked {
                prop_assert!(was_requested(&session, sequence), "{sequence}");
            }
        }
    }
}
