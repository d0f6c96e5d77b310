//! The HA pair's datagrams. Any plaintext: it is refused, or what is read of it can be written and read again. Any datagram: it is refused.
//! A datagram of the peer's of which bytes were changed on the way: opened if they are as they were, and only then, and once.
//!
//! The input is a byte that says which of these, then the bytes; for a changed datagram first three changes of three bytes each: where (2)
//! and what.
#![no_main]

use haechi::base::Nanos;
use haechi::ha::seal::{Opened, PairKey, Seal, SealConfig, begin};
use haechi::ha::wire::{Message, Writer, decode};
use haechi::ha::{Frame, NodeId};
use libfuzzer_sys::fuzz_target;

const NOW: Nanos = Nanos::SECOND;

fn read(plain: &[u8]) -> Option<Vec<Frame>> {
    Some(decode(plain).ok()?.filter_map(Message::into_frame).collect())
}

fn plaintext(plain: &[u8]) {
    let Some(frames) = read(plain) else {
        return;
    };
    let mut again = Vec::new();
    let mut writer = Writer::new(&mut again, usize::from(u16::MAX));
    // Defaults are written out: what was small may have become too long for one datagram.
    if frames.iter().all(|frame| writer.frame(frame)) {
        assert_eq!(read(&again), Some(frames));
    }
}

/// Two nodes that know each other.
fn pair() -> (Seal, Seal) {
    let key = PairKey::from_text(&"0123456789abcdef".repeat(4)).expect("it is a key");
    let seal = |id: u8| Seal::new(SealConfig::new(NodeId(id)), &key, [id; 32]);
    let (mut a, mut b, mut out) = (seal(1), seal(2), Vec::new());
    a.hello(NOW, &mut out).expect("it has counters left");
    assert_eq!(b.open(NOW, &mut out), Ok(Opened::Hello { answer: true }));
    b.answer(NOW, &mut out).expect("there is a hello");
    assert!(a.open(NOW, &mut out).is_ok());
    begin(&mut out);
    a.seal(NOW, &mut out).expect("it has a peer");
    assert!(b.open(NOW, &mut out).is_ok());
    (a, b)
}

fn changed(input: &[u8]) {
    let Some((changes, plain)) = input.split_at_checked(9) else {
        return;
    };
    let (mut a, mut b) = pair();
    let mut sealed = Vec::new();
    begin(&mut sealed);
    sealed.extend_from_slice(plain);
    a.seal(NOW, &mut sealed).expect("it has a peer");
    let mut arrived = sealed.clone();
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % arrived.len();
        arrived[at] ^= change[2];
    }
    let unchanged = arrived == sealed;
    match b.open(NOW, &mut arrived) {
        Ok(Opened::Data { plain: opened, .. }) => {
            assert!(unchanged && opened == plain);
            plaintext(opened);
        }
        other => assert!(!unchanged && other.is_err(), "{other:?}"),
    }
    assert_eq!(b.open(NOW, &mut sealed.clone()).is_ok(), !unchanged);
    assert!(b.open(NOW, &mut sealed).is_err());
}

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((0, datagram)) => {
            let (_, mut b) = pair();
            assert!(b.open(NOW, &mut datagram.to_vec()).is_err());
        }
        Some((1, input)) => changed(input),
        Some((_, plain)) => plaintext(plain),
        None => (),
    }
});
