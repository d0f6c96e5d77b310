//! Any bytes through the parser and the answer maker: nothing panics, offsets are inside, and its three
//! paths agree (eight frames at once, the straight one, the general one).
#![no_main]

#[path = "../../tests/support/consistent.rs"]
mod consistent;

use haechi::flow::HashSeed;
use haechi::packet::build::{MAX_ANSWER, may_answer, refusal};
use haechi::packet::{ChecksumStatus, ParseOptions, RxChecksum, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((how, frame)) = data.split_first() else {
        return;
    };
    // Mostly as if a device had found the checksums right: a fuzzer does not find them.
    let status = |bits: u8| match bits & 3 {
        0 | 1 => ChecksumStatus::Good,
        2 => ChecksumStatus::Unknown,
        _ => ChecksumStatus::Bad,
    };
    let checksum = RxChecksum::new(status(*how), status(how >> 2));
    let options = ParseOptions {
        verify_l4: how & 0x10 == 0,
        look_into_vlan: how & 0x20 == 0,
    };
    let meta = parse(frame, checksum, options);
    consistent::consistent(frame, &meta);
    consistent::both_paths(frame, checksum, options);
    // Beside it in the vectors: itself, cut off where the headers end, and nothing.
    let mut frames = [frame; 8];
    for (lane, cut) in [(1, 59), (3, 60), (4, 42), (6, 0)] {
        frames[lane] = &frame[..frame.len().min(cut)];
    }
    consistent::three_paths(
        &frames,
        &[checksum; 8],
        options.verify_l4,
        0,
        HashSeed([1, 2, 3, 4]),
    );

    let mut scratch = [0; MAX_ANSWER];
    let answer = refusal(&meta, frame, &mut scratch);
    assert_eq!(answer.is_some(), may_answer(&meta, frame));
    if let Some(len) = answer {
        let made = parse(&scratch[..len], RxChecksum::default(), ParseOptions::default());
        consistent::consistent(&scratch[..len], &made);
        assert!(!may_answer(&made, &scratch[..len]), "an answer is never answered");
    }
});
