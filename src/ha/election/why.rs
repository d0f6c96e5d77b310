//! Why things are as they are, in words.

/// Why a node is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has just started.
    Started,
    /// No peer was heard since the start.
    Alone,
    /// The peer is silent.
    PeerSilent,
    /// Nobody led, and this node ranks higher.
    RanksHigher,
    /// The peer leads, or is to lead.
    PeerLeads,
    /// Both led, and this node lost.
    LostToPeer,
    /// Both led, and the peer does not hear this node.
    PeerIsDeaf,
    /// The peer gave the lead up.
    Yielded,
    /// This node gave the lead up.
    GaveUp,
    /// The peer cannot lead.
    PeerUnhealthy,
    /// This node cannot lead.
    Unhealthy,
    /// Neither the peer nor the witness is heard.
    NoWitness,
    /// This node was not run for longer than its peer waits for it.
    Stalled,
    /// Active-active: both are in sync.
    Both,
    /// Active-active: the peer stopped forwarding.
    PeerStopped,
}

impl Why {
    /// In words, for the log and `show ha`.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Started => "it has just started",
            Self::Alone => "no peer was heard since the start",
            Self::PeerSilent => "the peer is silent",
            Self::RanksHigher => "nobody led, and this node ranks higher",
            Self::PeerLeads => "the peer leads",
            Self::LostToPeer => "both nodes led, and the peer ranks higher",
            Self::PeerIsDeaf => "both nodes led, and the peer does not hear this one",
            Self::Yielded => "the peer gave the lead up",
            Self::GaveUp => "the lead was given up",
            Self::PeerUnhealthy => "the peer cannot lead",
            Self::Unhealthy => "this node cannot lead",
            Self::NoWitness => "neither the peer nor the witness is heard",
            Self::Stalled => "this node was stopped for a while",
            Self::Both => "both nodes are in sync",
            Self::PeerStopped => "the peer stopped forwarding",
        }
    }
}

/// Why there is no planned change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchRefused {
    /// Nobody to take the lead, or to give it.
    #[error("the peer is not heard")]
    NoPeer,
    /// It has a port down, a worker stalled, or stops.
    #[error("the node that would lead is not healthy")]
    Unhealthy,
    /// Connections would be lost.
    #[error("the node that would lead is not in sync")]
    NotInSync,
    /// Neither of the nodes leads.
    #[error("no node leads")]
    NoLeader,
}
