//! Every drop has a reason (invariant 9): one enum, the same word in counters, API, logs and `explain`.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])* $variant,)*
        }

        impl DropReason {
            /// All of them, in the order of their indexes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The word that users see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One line for `show counters` that says what it means.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)*).trim_ascii(),)* }
            }

            /// As an index into an array of counters.
            #[inline]
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

reasons! {
    /// A length or a field contradicts the frame (too short, bad header length, more than two VLAN tags, ...).
    Malformed = "malformed",
    /// The IPv4 header checksum or the TCP, UDP, ICMP or ICMPv6 checksum is wrong.
    BadChecksum = "bad_checksum",
    /// No session, and a packet that cannot open one (a TCP packet that is not a SYN, an echo reply, ...).
    NoSession = "no_session",
    /// TCP flags that no TCP sends together (none, SYN+FIN, SYN+RST, FIN alone, ...), or that make no sense in the state.
    TcpBadFlags = "tcp_bad_flags",
    /// A TCP segment whose sequence or acknowledgement number is not in its window, a RST that its receiver would not
    /// accept (RFC 5961), a SYN+ACK for another SYN, or data before the handshake is complete.
    TcpOutOfWindow = "tcp_out_of_window",
    /// A packet of a handshake that haechi answers in its destination's place (`syn_protection`), or that has to wait for it:
    /// nothing was refused.
    SynProxied = "syn_proxied",
    /// No session, and an acknowledgement of no SYN cookie (`syn_protection`).
    SynCookieInvalid = "syn_cookie_invalid",
    /// A drop or reject rule matched, no rule matched, or the new policy refuses the session.
    Policy = "policy",
    /// A source address that no packet can have here: the destination's own (LAND), loopback, multicast, unspecified, or, in
    /// a zone with `antispoof`, one that belongs behind another zone or not behind this one.
    SpoofedSource = "spoofed_source",
    /// Not IP and not ARP, and `[transparent] non_ip` says drop.
    NonIp = "non_ip",
    /// VLAN-tagged, and `[transparent] vlan` says drop.
    VlanTagged = "vlan_tagged",
    /// Fragments of one datagram with bytes in common (RFC 5722), and all of its other fragments.
    FragmentOverlap = "fragment_overlap",
    /// A fragment that is here already, byte for byte.
    FragmentDuplicate = "fragment_duplicate",
    /// Fragments of a datagram that was not complete within `[conntrack.fragments] timeout`, or when the node stopped.
    FragmentTimeout = "fragment_timeout",
    /// Fragments of the oldest incomplete datagram, which made room for another one's (`[conntrack.fragments] max_datagrams`, or a
    /// quarter of `packet_buffers` held).
    FragmentEvicted = "fragment_evicted",
    /// Fragments of a datagram that came in more than 128 of them.
    FragmentExcess = "fragment_excess",
    /// An ICMP error that is about no packet of a live session, a redirect, or a source quench.
    IcmpErrorUnrelated = "icmp_error_unrelated",
    /// An echo reply with a sequence number that nobody asked for.
    EchoUnrequested = "echo_unrequested",
    /// A packet of a session that came in by a port of the wrong side.
    WrongPort = "wrong_port",
    /// The session table is full of sessions that stay, or what is left of it is other zones' reserve.
    TableFull = "table_full",
    /// The rule, or the source under this rule, has as many sessions as `max_sessions` or `max_sessions_per_source` allow.
    SessionLimit = "session_limit",
    /// The source opened as many sessions of this rule in the last second as `new_sessions_per_source` allows.
    RateLimit = "rate_limit",
    /// The queue to the worker that owns the packet's flow was full.
    QueueFull = "queue_full",
    /// The packet was handed over as often as a packet may be, and was another worker's still.
    HandoverLoop = "handover_loop",
    /// This node of an HA pair follows, or is cut off: it forwards nothing.
    HaStandby = "ha_standby",
    /// A packet of a session of the other node of an HA pair, or a fragment of a datagram that went there, for which
    /// `[ha] redirect_rate`, or the queue to that node, has no room.
    RedirectLimit = "redirect_limit",
    /// The first packet of a session of a rule with `defer`, which the other node of the HA pair did not know within
    /// `[ha] defer_timeout` (with `defer_fail = "closed"`).
    Deferred = "deferred",
    /// The egress port's transmit queue was full.
    TxFull = "tx_full",
    /// The egress port's link is down or the port is out of service.
    LinkDown = "link_down",
    /// The egress port cannot send a frame of this length.
    FrameTooLong = "frame_too_long",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_indexes_dense() {
        let names: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (i, r) in DropReason::ALL.iter().enumerate() {
            assert_eq!(r.index(), i);
            assert!(!r.help().is_empty());
        }
    }
}
