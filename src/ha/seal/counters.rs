//! What was counted.

macro_rules! refusals {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal;)*) => {
        /// Why a datagram is not believed. Nothing of it has any effect but that it is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Refused {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Refused {
            /// All of them, in the order of [`SealCounters::refused`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word that users see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

refusals! {
    /// Shorter than header and tag.
    Short = "short";
    /// It does not begin like one of haechi's.
    Magic = "magic";
    /// A later version of the header; or a kind that this one does not know.
    Version = "version";
    /// The node's own datagram sent back; or both nodes have the same `node_id`.
    Reflected = "reflected";
    /// From a node that is not of the pair.
    Node = "node";
    /// From a thread that no node has.
    Thread = "thread";
    /// Sealed for another start of this node, or for an association that is over.
    Stale = "stale";
    /// Received before.
    Replayed = "replayed";
    /// So far behind that nobody knows whether it was received before.
    Late = "late";
    /// Sealed under a key that is no longer taken.
    Epoch = "epoch";
    /// The seal is wrong: another key, or it was changed or made by somebody else.
    Forged = "forged";
}

impl Refused {
    /// As an index into [`SealCounters::refused`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What was sealed, opened and refused since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealCounters {
    /// Datagrams sealed by the HA thread, hellos and answers too.
    pub sealed: u64,
    /// Datagrams whose seal was right, hellos too.
    pub opened: u64,
    /// Hellos sent.
    pub hellos_sent: u64,
    /// Hellos that came in; those above [`Self::hellos_answered`] were of the peer as it is known, or too many.
    pub hellos_heard: u64,
    /// Answers sent.
    pub hellos_answered: u64,
    /// Associations taken up.
    pub associations: u64,
    /// Changes of the HA thread's own key.
    pub rekeys: u64,
    /// By [`Refused`].
    pub refused: [u64; Refused::ALL.len()],
}

impl SealCounters {
    /// How many were refused for this.
    #[must_use]
    pub const fn of(&self, why: Refused) -> u64 {
        self.refused[why.index()]
    }
}
