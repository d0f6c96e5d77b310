//! What opens a session of any protocol, what states it may have, and what its packets change.

use haechi::base::Nanos;
use haechi::flow::track::{flag, is_steady, opening, track_other};
use haechi::flow::{
    Direction, FlowKey, KeyClass, Session, SessionState, StateTimeouts, TimeoutClass, Tracked,
};
use haechi::packet::{PacketKind, PacketMeta};

use crate::connection::{R, S};

#[test]
fn only_a_plain_syn_a_request_or_a_datagram_opens_a_session() {
    let meta = |kind, flags, byte| PacketMeta {
        kind,
        flags,
        tcp_flags_or_icmp_type: byte,
        ..PacketMeta::default()
    };
    let (v4, v6) = (PacketMeta::IPV4, PacketMeta::IPV6);
    for flags in 0..=u8::MAX {
        let plain_syn = flags & (S | flag::ACK | flag::FIN | R) == S;
        assert_eq!(
            opening(&meta(PacketKind::Tcp, v4, flags)),
            plain_syn.then_some(SessionState::SynSent)
        );
    }
    assert_eq!(opening(&meta(PacketKind::Udp, v4, 0)), Some(SessionState::UdpNew));
    assert_eq!(opening(&meta(PacketKind::Echo, v4, 8)), Some(SessionState::Icmp));
    assert_eq!(opening(&meta(PacketKind::Echo, v4, 0)), None);
    assert_eq!(
        opening(&meta(PacketKind::Echo, v6, 128)),
        Some(SessionState::Icmp)
    );
    assert_eq!(opening(&meta(PacketKind::Echo, v6, 129)), None);
    assert_eq!(opening(&meta(PacketKind::Icmp, v4, 13)), Some(SessionState::Icmp));
    assert_eq!(
        opening(&meta(PacketKind::OtherIp, v4, 0)),
        Some(SessionState::OtherNew)
    );
    for kind in [
        PacketKind::Malformed,
        PacketKind::BadChecksum,
        PacketKind::Arp,
        PacketKind::NonIp,
        PacketKind::NeighbourDiscovery,
        PacketKind::IcmpError,
        PacketKind::Fragment,
    ] {
        assert_eq!(opening(&meta(kind, v4, S)), None, "{kind:?}");
    }
}

#[test]
fn datagrams_count_as_replied_from_the_first_one_back() {
    for opener in [Direction::LowToHigh, Direction::HighToLow] {
        for (first, replied) in [
            (SessionState::UdpNew, Some(SessionState::UdpReplied)),
            (SessionState::UdpReplied, None),
            (SessionState::OtherNew, Some(SessionState::OtherReplied)),
            (SessionState::OtherReplied, None),
            (SessionState::Icmp, None),
        ] {
            let session = Session::new(FlowKey::default(), opener, first);
            assert_eq!(track_other(&session, opener), Tracked::Stay);
            let expected = replied.map_or(Tracked::Stay, Tracked::Move);
            assert_eq!(track_other(&session, opener.reverse()), expected);
        }
    }
}

/// A reply belongs to its request's session alone, also between hosts that ping each other with one identifier.
#[test]
fn an_echo_belongs_to_its_request() {
    for (flags, request, reply) in [(PacketMeta::IPV4, 8, 0), (PacketMeta::IPV6, 128, 129)] {
        let key = |from: u8, to: u8, icmp_type| {
            let meta = PacketMeta {
                source: [from; 16],
                destination: [to; 16],
                source_port: 1,
                destination_port: 1,
                kind: PacketKind::Echo,
                flags,
                tcp_flags_or_icmp_type: icmp_type,
                ..PacketMeta::default()
            };
            FlowKey::of(&meta, 0)
        };
        let (there, direction) = key(1, 2, request);
        assert_eq!(there.class, KeyClass::EchoFromLow);
        assert_eq!(key(2, 1, reply), (there, direction.reverse()));
        let (back, direction) = key(2, 1, request);
        assert_eq!(back.class, KeyClass::EchoFromHigh);
        assert_eq!(key(1, 2, reply), (back, direction.reverse()));
        assert_ne!(there, back);
    }
}

#[test]
fn states_have_names_and_timeouts() {
    let classes = [
        ("syn_sent", TimeoutClass::TcpSynSent),
        ("syn_sent2", TimeoutClass::TcpSynReceived),
        ("syn_received", TimeoutClass::TcpSynReceived),
        ("established", TimeoutClass::TcpEstablished),
        ("fin_wait", TimeoutClass::TcpClosing),
        ("close_wait", TimeoutClass::TcpEstablished),
        ("closing", TimeoutClass::TcpClosing),
        ("last_ack", TimeoutClass::TcpClosing),
        ("time_wait", TimeoutClass::TcpTimeWait),
        ("closed", TimeoutClass::TcpClosed),
        ("udp_new", TimeoutClass::UdpNew),
        ("udp_replied", TimeoutClass::UdpReplied),
        ("icmp", TimeoutClass::Icmp),
        ("other_new", TimeoutClass::Other),
        ("other_replied", TimeoutClass::Other),
    ];
    assert_eq!(classes.len(), SessionState::COUNT);
    let timeouts = StateTimeouts::from_fn(|class| match class {
        TimeoutClass::TcpEstablished => Nanos(u64::MAX),
        TimeoutClass::TcpClosed => Nanos(1),
        _ => Nanos::from_secs(30),
    });
    for (name, class) in classes {
        let state = SessionState::from_name(name).unwrap();
        assert_eq!((state.name(), state.timeout_class()), (name, class));
        let expected = match class {
            TimeoutClass::TcpEstablished => StateTimeouts::MAX_TICKS,
            TimeoutClass::TcpClosed => 1,
            _ => 1789, // 30 s in ticks of 2^24 ns, rounded up
        };
        assert_eq!(timeouts.ticks(state), expected, "{name}");
        assert_eq!(state.is_half_open(), name.starts_with("syn_"));
    }
    assert_eq!(SessionState::from_name("Established"), None);
}

/// The engine's short cut past the tracker: whatever it calls steady, the tracker lets pass and notes nothing of. (TCP:
/// `windows.rs`.)
#[test]
fn what_is_steady_changes_nothing() {
    let mut steady = Vec::new();
    for state in SessionState::ALL.iter().copied() {
        for (opener, sender) in [Direction::LowToHigh, Direction::HighToLow]
            .into_iter()
            .flat_map(|o| [(o, Direction::LowToHigh), (o, Direction::HighToLow)])
        {
            let mut session = Session::new(FlowKey::default(), opener, state);
            let before = format!("{session:?}");
            if !is_steady(&mut session, sender, || None) {
                continue;
            }
            assert_eq!(track_other(&session, sender), Tracked::Stay, "{state:?}");
            assert_eq!(format!("{session:?}"), before, "{state:?}");
            steady.push(state.name());
        }
    }
    let count = |name| steady.iter().filter(|n| **n == name).count();
    let all = ["udp_new", "udp_replied", "icmp", "other_new", "other_replied"].map(count);
    assert_eq!(all, [2, 4, 2, 2, 4], "of new ones and of ICMP the opener's");
    assert_eq!(steady.len(), 14);
}
