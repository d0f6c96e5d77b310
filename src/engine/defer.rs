//! Rules with `defer`: the first packet of a session leaves once the other node of the pair knows the session, so that an answer may come
//! back by that one at once.

use super::{Engine, Outputs};
use crate::base::Nanos;

impl<B> Engine<B> {
    /// How long first packets wait at most (`defer_timeout`), and whether they leave then (`defer_fail = "open"`).
    pub fn set_defer(&mut self, timeout: Nanos, opens: bool) {
        let _ = (timeout, opens);
    }

    /// Do first packets wait to be [`Engine::told`], or for their time to be over?
    #[inline]
    #[must_use]
    pub fn has_deferred(&self) -> bool {
        false
    }

    /// Does a packet wait for this session, of which [`Engine::next_change`] has just said the name, to be [`Engine::told`]?
    #[must_use]
    pub fn is_awaited(&self, name: u64) -> bool {
        let _ = name;
        false
    }

    /// The other node knows the session that was told by this name: what waited for that leaves.
    pub fn told<O: Outputs<B>>(&mut self, now: Nanos, name: u64, out: &mut O) {
        let _ = (now, name, out);
    }
}
