//! From one node to the other.

use haechi::base::Nanos;
use haechi::flow::image::{Birth, Image};
use haechi::flow::{FlowKey, KeyClass, SessionState};
use haechi::ha::frames::{FramesConfig, JOINED};
use haechi::ha::peer::Peer;
use haechi::ha::{Crossing, Outgoing, Path, Role, Update};

use super::peers::{LONGEST, Peers, config, frame, frames_config, key};

const ALL: [Crossing; 5] = [
    Crossing::Known,
    Crossing::Unknown,
    Crossing::SentBack,
    Crossing::Return,
    Crossing::ReturnMade,
];

#[test]
fn packets_of_every_length_arrive_as_they_were_sent_and_in_order() {
    for datagram in [768, 1472, 9100] {
        let mut peers = Peers::active(FramesConfig {
            datagram,
            ..frames_config()
        });
        let lengths = [
            14, 60, 64, 590, 700, 1399, 1430, 1514, 2960, 4000, LONGEST, 1, 1514,
        ];
        let mut sent = vec![];
        for (number, length) in lengths.into_iter().enumerate() {
            let (crossing, port) = (ALL[number % 5], (number % 2) as u16);
            let bytes = frame(number, length);
            assert!(peers.offer(0, crossing, port, &bytes));
            sent.push((crossing, port, 3, bytes));
        }
        let datagrams = peers.transmit(0);
        assert!(
            datagrams
                .iter()
                .all(|(path, bytes)| *path == Path::Link && bytes.len() <= datagram)
        );
        assert_eq!(peers.spent(0), lengths.len(), "every buffer comes back");
        for (path, mut bytes) in datagrams {
            peers.nodes[1].handle_datagram(peers.now, path, &mut bytes);
        }
        assert_eq!(peers.came(1), sent, "datagrams of {datagram}");
        let status = peers.nodes[1].status(peers.now);
        let cut = peers.nodes[0].status(peers.now).frames_out.cut;
        assert_eq!((status.frames_in.frames, status.frames_in.joined), (13, cut));
        // Of a path that takes the longest frame whole none is cut.
        assert_eq!(cut == 0, datagram == 9100);
    }
}

#[test]
fn a_datagram_holds_many_short_packets() {
    let mut peers = Peers::active(frames_config());
    for number in 0..100 {
        assert!(peers.offer(0, Crossing::Known, 0, &frame(number, 60)));
    }
    let datagrams = peers.transmit(0);
    // 60 bytes and what stands around them.
    assert_eq!(
        datagrams.len(),
        100_usize.div_ceil((1472 - haechi::ha::seal::OVERHEAD) / (60 + 21))
    );
}

/// Parts of different packets mixed, each of them once or twice, and the last first.
#[test]
fn parts_arrive_in_any_order() {
    let mut peers = Peers::active(frames_config());
    let sent: Vec<_> = (0..5).map(|number| frame(number, 4000)).collect();
    for bytes in &sent {
        assert!(peers.offer(0, Crossing::Return, 1, bytes));
    }
    let datagrams = peers.transmit(0);
    assert!(datagrams.len() >= 15);
    for (path, bytes) in datagrams.iter().rev().chain(&datagrams) {
        peers.nodes[1].handle_datagram(peers.now, *path, &mut bytes.clone());
    }
    let mut came = peers.came(1);
    came.reverse();
    assert_eq!(came.into_iter().map(|came| came.3).collect::<Vec<_>>(), sent);
    let status = peers.nodes[1].status(peers.now);
    assert_eq!(status.frames_in.invalid, 0, "what came twice was not even opened");
}

/// Without its rest a packet is not there, and more of these than there is room for push out the oldest.
#[test]
fn packets_of_which_parts_got_lost_keep_no_other_one_up() {
    let mut peers = Peers::active(frames_config());
    let first_parts = |peers: &mut Peers, number| {
        assert!(peers.offer(0, Crossing::Known, 0, &frame(number, 1514)));
        let mut datagrams = peers.transmit(0);
        assert_eq!(datagrams.len(), 2);
        let rest = datagrams.pop().unwrap();
        let (path, mut bytes) = datagrams.pop().unwrap();
        peers.nodes[1].handle_datagram(peers.now, path, &mut bytes);
        rest
    };
    let mut rests: Vec<_> = (0..JOINED + 1)
        .map(|number| first_parts(&mut peers, number))
        .collect();
    assert_eq!(peers.came(1), []);
    assert_eq!(peers.nodes[1].status(peers.now).frames_in.unjoined, 1);
    // The oldest has gone; the others are waited for.
    let (path, mut oldest) = rests.remove(0);
    peers.nodes[1].handle_datagram(peers.now, path, &mut oldest);
    assert_eq!(peers.came(1), []);
    // (What came of it now stands for the next oldest, of which only a rest would come.)
    for (path, mut rest) in rests.drain(1..) {
        peers.nodes[1].handle_datagram(peers.now, path, &mut rest);
    }
    assert_eq!(peers.came(1).len(), JOINED - 1);
    // A whole one needs no other.
    assert!(peers.offer(0, Crossing::Known, 0, &frame(1, 100)));
    peers.exchange();
    assert_eq!(peers.came(1).len(), 1);
}

/// However much the peer sends: twice the rate a second and no more, and the rest of what it says is heard.
#[test]
fn a_peer_that_floods_is_heard_within_bounds() {
    let mut peers = Peers::active(frames_config());
    let mut taken = 0;
    for millisecond in 0..3000_usize {
        for number in 0..10 {
            assert!(peers.offer(0, Crossing::Unknown, 0, &frame(millisecond + number, 60)));
        }
        peers.pass(Nanos::MILLISECOND);
        peers.spent(0);
        taken += peers.came(1).len();
    }
    // A second's worth at once, and three seconds.
    assert!((7990..=8010).contains(&taken), "{taken}");
    let status = peers.nodes[1].status(peers.now);
    assert_eq!(status.frames_in.refused, 30_000 - taken as u64);
    assert_eq!(peers.roles(), [Role::Active; 2]);
    assert!(status.in_sync && status.peer_in_sync);
}

fn session(id: u32, awaited: bool) -> Outgoing {
    Outgoing {
        worker: 5,
        handle: u64::from(id),
        update: Update::Session(Image {
            key: FlowKey {
                low: (u128::from(id) << 32).to_ne_bytes(),
                high: [0xff; 16],
                low_port: 1,
                high_port: 2,
                protocol: 17,
                class: KeyClass::Ports,
                ..FlowKey::default()
            },
            birth: Birth(1),
            state: SessionState::UdpNew,
            ..Image::default()
        }),
        awaited,
    }
}

/// As long as packets wait, every seventeenth datagram may be one with updates; heartbeats and acknowledgements go first.
#[test]
fn updates_and_heartbeats_have_their_turn_among_packets() {
    let mut peers = Peers::active(frames_config());
    assert!(peers.nodes[0].offer(peers.now, session(1, false)));
    peers.now = peers.now.plus(Nanos::from_millis(60));
    let mut since = vec![];
    for number in 0..40 {
        // Never empty.
        while peers.nodes[0].has_room_for_frames() {
            assert!(peers.offer(0, Crossing::Known, 0, &frame(number, 1400)));
        }
        let mut datagram = vec![];
        let path = peers.nodes[0].poll_transmit(peers.now, &mut datagram).unwrap();
        let before = (peers.counters(1).heartbeats_heard, peers.counters(1).updates);
        peers.nodes[1].handle_datagram(peers.now, path, &mut datagram);
        let after = (peers.counters(1).heartbeats_heard, peers.counters(1).updates);
        since.push((after.0 - before.0, after.1 - before.1));
        peers.spent(0);
    }
    assert_eq!(
        &since[..2],
        [(1, 0), (1, 0)],
        "a heartbeat by either way comes first"
    );
    let update = since.iter().position(|(_, updates)| *updates == 1);
    assert!(update.is_some_and(|place| place <= 2 + 17), "{since:?}");
}

/// A packet waits for it: the update does not wait for company, nor its acknowledgement for the clock.
#[test]
fn what_is_awaited_is_acknowledged_at_once() {
    let mut peers = Peers::active(frames_config());
    assert!(peers.nodes[0].offer(peers.now, session(1, false)));
    assert!(peers.nodes[0].offer(peers.now, session(7, true)));
    peers.exchange();
    assert_eq!(peers.updates[1], 2);
    assert_eq!(
        peers.told[0],
        [(5, 7)],
        "told of the one that is awaited, in no time"
    );
    // Of one that nobody waits for nothing is told.
    assert!(peers.nodes[0].offer(peers.now, session(8, false)));
    peers.pass(Nanos::from_millis(20));
    assert_eq!((peers.updates[1], peers.told[0].len()), (3, 1));
    // One that got lost is told again, and awaited as it is offered then.
    assert!(peers.nodes[0].offer(peers.now, session(9, true)));
    assert_eq!(peers.transmit(0).len(), 1);
    for _ in 0..200 {
        peers.pass(Nanos::MILLISECOND);
    }
    assert_eq!(
        (peers.told[0].len(), peers.nodes[0].status(peers.now).sender.again),
        (1, 1)
    );
}

/// Where they do not belong packets are counted, and nothing else.
#[test]
fn packets_cross_between_active_nodes_alone() {
    // By the second path they are not sent; a node that does not forward takes none.
    let mut peers = Peers::active(frames_config());
    assert!(peers.offer(0, Crossing::Known, 0, &frame(1, 60)));
    let (_, mut datagram) = peers.transmit(0).pop().unwrap();
    peers.nodes[1].handle_datagram(peers.now, Path::Second, &mut datagram);
    assert_eq!((peers.came(1).len(), peers.counters(1).misplaced), (0, 1));

    let now = peers.now;
    let mut waiting = Peer::new(config(1, frames_config()), &key(), now, [9; 32]);
    assert_eq!(waiting.role(), Role::Waiting);
    let mut buffer = haechi::ha::frames::FrameBuf::new(100);
    assert!(buffer.fill(Crossing::Known, haechi::base::PortId(0), 0, &frame(1, 60)));
    assert!(waiting.send_frame(buffer).is_ok());
    let mut out = vec![];
    while waiting.poll_transmit(now, &mut out).is_some() {}
    assert!(
        waiting.take_spent().is_some(),
        "it does not wait for better times"
    );
    assert_eq!(waiting.status(now).frames_out.given_up, 1);

    // A peer that is gone: what is offered to it comes back.
    for _ in 0..200 {
        peers.now = peers.now.plus(Nanos::MILLISECOND);
        peers.nodes[0].handle_timeout(peers.now);
        peers.transmit(0);
    }
    assert_eq!(peers.nodes[0].role(), Role::Leader);
    assert!(peers.offer(0, Crossing::Known, 0, &frame(1, 60)));
    peers.transmit(0);
    peers.spent(0);
    assert_eq!(peers.nodes[0].status(peers.now).frames_out.given_up, 1);
}

/// A restart forgets what was begun; no part of the one is joined to a part of the other.
#[test]
fn a_peer_that_restarts_begins_no_packet_in_the_middle() {
    let mut peers = Peers::active(frames_config());
    assert!(peers.offer(0, Crossing::Known, 0, &frame(1, 1514)));
    let mut datagrams = peers.transmit(0);
    let (path, mut first) = datagrams.remove(0);
    peers.nodes[1].handle_datagram(peers.now, path, &mut first);
    peers.nodes[0] = Peer::new(config(1, frames_config()), &key(), peers.now, [8; 32]);
    for _ in 0..4000 {
        peers.pass(Nanos::MILLISECOND);
        if peers.roles() == [Role::Active; 2] {
            break;
        }
    }
    assert_eq!(peers.nodes[1].status(peers.now).frames_in.unjoined, 1);
    // Its count of packets in parts begins anew, with the same number.
    assert!(peers.offer(0, Crossing::Known, 0, &frame(2, 1514)));
    peers.exchange();
    assert_eq!(peers.came(1), [(Crossing::Known, 0, 3, frame(2, 1514))]);
}
