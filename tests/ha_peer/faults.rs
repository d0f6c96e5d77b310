//! Whatever the network and the nodes went through: once it is over the nodes have each other's sessions, their digests are equal and
//! they say so; no session ever moved backwards and no queue passed its bound (checked at every step, `ha_model`).

use haechi::base::Nanos;
use haechi::ha::{Path, Role};
use proptest::prelude::*;

use super::ha_model::{A, B, Pair};
use super::ha_net::Faults;

#[derive(Clone, Debug)]
enum Act {
    /// Packets of these flows at a node.
    Touch(usize, u32, u32),
    End(usize, u32, u32),
    Stop(usize),
    Start(usize),
    Cut(usize, bool),
    Heal,
    Wait(u64),
}

#[derive(Clone, Debug)]
struct Story {
    seed: u64,
    drop: u8,
    duplicate: u8,
    corrupt: u8,
    delay_us: u64,
    jitter_us: u64,
    acts: Vec<Act>,
}

fn acts() -> impl Strategy<Value = Act> {
    let node = || prop_oneof![3 => Just(A), 1 => Just(B)];
    prop_oneof![
        12 => (node(), 0u32..300, 1u32..60).prop_map(|(n, from, count)| Act::Touch(n, from, count)),
        6 => (node(), 0u32..300, 1u32..80).prop_map(|(n, from, count)| Act::End(n, from, count)),
        1 => node().prop_map(Act::Stop),
        3 => node().prop_map(Act::Start),
        2 => (node(), any::<bool>()).prop_map(|(n, both)| Act::Cut(n, both)),
        2 => Just(Act::Heal),
        12 => (0u64..300).prop_map(Act::Wait),
        1 => (0u64..2500).prop_map(Act::Wait),
    ]
}

prop_compose! {
    fn stories()(
        seed in any::<u64>(), drop in prop_oneof![Just(0u8), 0u8..80], duplicate in 0u8..40, corrupt in 0u8..20,
        delay_us in 50u64..5_000, jitter_us in prop_oneof![Just(0u64), 0u64..20_000],
        acts in prop::collection::vec(acts(), 1..60),
    ) -> Story {
        Story { seed, drop, duplicate, corrupt, delay_us, jitter_us, acts }
    }
}

fn check(story: &Story) -> Result<(), TestCaseError> {
    let mut pair = Pair::new(story.seed);
    pair.net.faults = Faults {
        drop: story.drop,
        duplicate: story.duplicate,
        corrupt: story.corrupt,
        delay: Nanos(1000 * story.delay_us),
        jitter: Nanos(1000 * story.jitter_us),
    };
    pair.start(A);
    pair.start(B);
    for act in &story.acts {
        match *act {
            Act::Touch(n, from, count) => (from..from + count).for_each(|id| pair.touch(n, id)),
            Act::End(n, from, count) => (from..from + count).for_each(|id| pair.end(n, id)),
            Act::Stop(n) => pair.stop(n),
            Act::Start(n) => pair.start(n),
            Act::Cut(n, both) => {
                pair.net.cut(n, Path::Link);
                if both {
                    pair.net.cut(n, Path::Second);
                }
            }
            Act::Heal => pair.net.heal(),
            Act::Wait(ms) => pair.run(ms),
        }
    }
    pair.net.faults = Faults::NONE;
    pair.net.heal();
    for n in [A, B] {
        if pair.nodes[n].is_none() {
            pair.start(n);
        }
    }
    // A second at most until a silent link is noticed, one for hellos, one for a comparison that was not answered, and their turns.
    let converged = pair.run_while(6_000, |pair| pair.differs().is_none());
    prop_assert!(converged, "{:?}", pair.differs());
    // And it stays so, with nothing left over.
    pair.run(3_000);
    prop_assert_eq!(pair.differs(), None);
    let now = pair.now;
    for n in [A, B] {
        let status = pair.node(n).status(now);
        prop_assert_eq!(status.held, 0);
        prop_assert_eq!(status.resync, None);
    }
    let leaders = [A, B].map(|n| pair.node(n).role() == Role::Leader);
    prop_assert!(leaders[A] != leaders[B], "{leaders:?}");
    prop_assert!(pair.net.longest <= 1400, "{} bytes", pair.net.longest);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn once_it_is_over_both_nodes_have_the_same(story in stories()) {
        check(&story)?;
    }
}
