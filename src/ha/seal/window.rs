//! The replay window: which counters of one sending thread have come in (RFC 4303, section 3.4.3; the ring of RFC 6479).

use super::Refused;

/// Counters that are told apart behind the newest one.
pub(super) const WIDTH: u64 = 2048;
/// One word more than the width: that of the newest one is filled bit by bit.
const WORDS: usize = WIDTH as usize / 64 + 1;

#[derive(Clone, Debug)]
pub(super) struct Window {
    /// The highest counter that came in; 0: none did, counters begin with 1.
    newest: u64,
    seen: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self {
            newest: 0,
            seen: [0; WORDS],
        }
    }
}

const fn place(counter: u64) -> (usize, u64) {
    ((counter / 64) as usize % WORDS, 1 << (counter % 64))
}

impl Window {
    /// May this one come in?
    pub(super) fn check(&self, counter: u64) -> Result<(), Refused> {
        if counter == 0 || self.newest.saturating_sub(counter) >= WIDTH {
            return Err(Refused::Late);
        }
        let (word, bit) = place(counter);
        if counter <= self.newest && self.seen[word] & bit != 0 {
            return Err(Refused::Replayed);
        }
        Ok(())
    }

    /// It came in. Only after its seal was found right.
    pub(super) fn mark(&mut self, counter: u64) {
        if counter > self.newest {
            let words = (counter / 64 - self.newest / 64).min(WORDS as u64);
            for step in 1..=words {
                self.seen[((self.newest / 64 + step) % WORDS as u64) as usize] = 0;
            }
            self.newest = counter;
        }
        let (word, bit) = place(counter);
        self.seen[word] |= bit;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As a set of all that came in says it.
        #[test]
        fn it_is_the_set_of_what_came_in(
            start in prop_oneof![1..5000_u64, u64::MAX - 20_000..u64::MAX - 10_000],
            steps in prop::collection::vec(prop_oneof![
                4 => -40..60_i64, 2 => -3000..100_i64, 1 => -100..5000_i64,
            ], 1..400),
        ) {
            let (mut window, mut all, mut newest) = (Window::default(), BTreeSet::new(), 0_u64);
            let mut counter = start;
            for step in steps {
                counter = newest.max(counter.min(start)).saturating_add_signed(step).max(1);
                let expected = if newest.saturating_sub(counter) >= WIDTH {
                    Err(Refused::Late)
                } else if all.contains(&counter) {
                    Err(Refused::Replayed)
                } else {
                    Ok(())
                };
                prop_assert_eq!(window.check(counter), expected);
                if expected.is_ok() {
                    window.mark(counter);
                    all.insert(counter);
                    newest = newest.max(counter);
                }
            }
        }
    }

    #[test]
    fn the_edges() {
        let mut window = Window::default();
        assert_eq!(window.check(0), Err(Refused::Late));
        window.mark(WIDTH + 1);
        assert_eq!(window.check(1), Err(Refused::Late));
        assert_eq!(window.check(2), Ok(()));
        window.mark(2);
        assert_eq!(window.check(2), Err(Refused::Replayed));
        window.mark(u64::MAX);
        assert_eq!(window.check(u64::MAX), Err(Refused::Replayed));
        assert_eq!(window.check(u64::MAX - WIDTH), Err(Refused::Late));
        assert_eq!(window.check(u64::MAX - WIDTH + 1), Ok(()));
    }
}
