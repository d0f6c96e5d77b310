//! A session's state: the word that users see, the timeout that it idles out by, and the table of those timeouts.

use crate::base::{Nanos, Tick};

macro_rules! states {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal, $class:ident;)*) => {
        /// Where a session stands. TCP's states are a middlebox's view of RFC 9293, section 3.3.2: they say what has
        /// been *seen* of both ends, not what either end is in.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum SessionState {
            #[default]
            $($(#[doc = $doc])* $variant,)*
        }

        impl SessionState {
            /// All of them, in the order of their indexes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The word that users see in the API, in filters and in logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Which key of `[conntrack.timeouts]` it idles out by.
            #[inline]
            #[must_use]
            pub const fn timeout_class(self) -> TimeoutClass {
                match self { $(Self::$variant => TimeoutClass::$class,)* }
            }
        }
    };
}

states! {
    /// TCP: the opener's SYN seen.
    SynSent = "syn_sent", TcpSynSent;
    /// TCP: SYNs both ways, neither acknowledged yet (simultaneous open, RFC 9293, section 3.5, figure 7).
    SynSent2 = "syn_sent2", TcpSynReceived;
    /// TCP: SYNs both ways, one of them acknowledged.
    SynReceived = "syn_received", TcpSynReceived;
    /// TCP: SYNs both ways, both acknowledged.
    Established = "established", TcpEstablished;
    /// TCP: one end's FIN seen, not acknowledged yet.
    FinWait = "fin_wait", TcpClosing;
    /// TCP: one end's FIN acknowledged; the other end may go on sending (half closed).
    CloseWait = "close_wait", TcpEstablished;
    /// TCP: FINs both ways, neither acknowledged yet (simultaneous close, RFC 9293, section 3.6, figure 13).
    Closing = "closing", TcpClosing;
    /// TCP: FINs both ways, one of them acknowledged.
    LastAck = "last_ack", TcpClosing;
    /// TCP: FINs both ways, both acknowledged.
    TimeWait = "time_wait", TcpTimeWait;
    /// TCP: reset by either end.
    Closed = "closed", TcpClosed;
    /// UDP: packets one way so far.
    UdpNew = "udp_new", UdpNew;
    /// UDP: packets both ways.
    UdpReplied = "udp_replied", UdpReplied;
    /// ICMP and ICMPv6.
    Icmp = "icmp", Icmp;
    /// Another IP protocol: packets one way so far.
    OtherNew = "other_new", Other;
    /// Another IP protocol: packets both ways.
    OtherReplied = "other_replied", Other;
}

impl SessionState {
    /// As an index into an array that has one element for each state.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|s| s.name() == name)
    }

    /// TCP whose handshake is not complete: what `syn_cookie_start` counts.
    #[inline]
    #[must_use]
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::SynSent | Self::SynSent2 | Self::SynReceived)
    }
}

/// The keys of `[conntrack.timeouts]`, in their order there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeoutClass {
    /// `tcp_syn_sent`
    TcpSynSent,
    /// `tcp_syn_received`
    TcpSynReceived,
    /// `tcp_established`
    TcpEstablished,
    /// `tcp_closing`
    TcpClosing,
    /// `tcp_time_wait`
    TcpTimeWait,
    /// `tcp_closed`
    TcpClosed,
    /// `udp_new`
    UdpNew,
    /// `udp_replied`
    UdpReplied,
    /// `icmp`
    Icmp,
    /// `other`
    Other,
}

/// Idle timeouts by state, in ticks: what the wheel needs of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateTimeouts([u32; SessionState::COUNT]);

impl StateTimeouts {
    /// The longest timeout that a session can have, in ticks (208 days): a quarter of the clock's range, so that a
    /// deadline and a late wheel never meet across the wrap. Longer ones count as this.
    pub const MAX_TICKS: u32 = 1 << 30;

    /// From the timeout of each class.
    #[must_use]
    pub fn from_fn(timeout: impl Fn(TimeoutClass) -> Nanos) -> Self {
        let mut ticks = [0; SessionState::COUNT];
        for state in SessionState::ALL {
            ticks[state.index()] = Tick::count(timeout(state.timeout_class())).min(Self::MAX_TICKS);
        }
        Self(ticks)
    }

    /// How long a session may idle in this state, in ticks.
    #[inline]
    #[must_use]
    pub const fn ticks(&self, state: SessionState) -> u32 {
        self.0[state.index()]
    }
}
