//! What carries a proxied TCP connection between the numbers that its client was told (by a SYN cookie) and those of its
//! server. The client's own sequence numbers and time stamps are the same on both sides.

/// The difference between the two sides of a session with [`super::Session::PROXIED`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Translation {
    /// The server's sequence numbers minus those that the client knows. 0 before the server has answered.
    pub sequence: u32,
    /// The server's time stamps minus those that the client knows; before the server has answered: the one that the client
    /// echoed.
    pub timestamp: u32,
    /// The initial sequence number that the client was told.
    pub cookie: u32,
    /// [`Translation::SACK`] and so on.
    pub flags: u8,
    /// The client's maximum segment size, as an index into the cookie's table.
    pub mss: u8,
    /// The scale of the server's windows that the client was told; 0: none.
    pub told_scale: u8,
    /// The scale of the client's windows; 0: none.
    pub client_scale: u8,
}

const _: () = assert!(size_of::<Translation>() == 16);

impl Translation {
    /// In `flags`: the client was told that selective acknowledgements are understood.
    pub const SACK: u8 = 1;
    /// In `flags`: the client uses time stamps.
    pub const TIMESTAMPS: u8 = 2;
    /// In `flags`: both SYNs of the client's side had a window scale.
    pub const SCALE: u8 = 4;
    /// In `flags`: the server understands no selective acknowledgements; the client's are taken out.
    pub const STRIP_SACK: u8 = 8;
    /// In `flags`: the server uses no time stamps; the client's are taken out.
    pub const STRIP_TIMESTAMPS: u8 = 16;

    /// Is a flag of `flags` set?
    #[inline]
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A window field in units of another scale. What is finer than a unit is rounded down, so that no window is offered that
/// the receiver has not, but one that is open stays open: a window that is always smaller than a unit would stall its
/// connection for ever, and what exceeds it is but sent again. What is more than the field can say is cut.
#[inline]
#[must_use]
pub const fn rescale(window: u16, from: u8, to: u8) -> u16 {
    let bytes = (window as u32) << (from & 15);
    match bytes >> (to & 15) {
        0 if bytes > 0 => 1,
        units if units > u16::MAX as u32 => u16::MAX,
        units => units as u16,
    }
}

#[cfg(test)]
mod tests {
    use super::rescale;

    #[test]
    fn windows_are_rounded_down_and_cut() {
        for (window, from, to, expected) in [
            (1000, 7, 7, 1000),
            (1000, 0, 7, 7),
            (100, 0, 7, 1),
            (1000, 7, 0, 0xffff),
            (100, 7, 0, 12_800),
            (0xffff, 14, 14, 0xffff),
            (0xffff, 14, 0, 0xffff),
            (0, 14, 0, 0),
        ] {
            assert_eq!(
                rescale(window, from, to),
                expected,
                "{window} from {from} to {to}"
            );
        }
    }
}
