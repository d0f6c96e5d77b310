//! Newtype ids: small integers that cannot be mixed up.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $raw);

        impl $name {
            /// The id as an index into an array that has one element for each id.
            #[inline]
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// A port of this node: its place in the configuration's `[[port]]` list.
    PortId(u16)
);
id!(
    /// A pair of ports that frames cross between (transparent mode).
    PairId(u16)
);
id!(
    /// A zone: its place in the sorted list of zone names of a policy.
    ZoneId(u16)
);
id!(
    /// A rule, stable by name over all policy generations of one run, so that counters and sessions outlive an apply.
    RuleId(u32)
);
id!(
    /// A poll-mode worker of this node: its place in the configuration's `workers` list.
    WorkerId(u16)
);
id!(
    /// A session's slot in its worker's table.
    SessionIx(u32)
);
id!(
    /// A compiled policy's number: one more with every apply.
    Generation(u32)
);
