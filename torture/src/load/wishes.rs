//! What the clients want: drawn from the seed, so that the same seed wants the same in the same order.

use crate::{
    history::Wish,
    jobs::{Ending, Told},
};

/// What a client does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Deed {
    /// Enqueues, with an idempotency key or without; then polls.
    Enqueue {
        wish: Wish,
        keyed: bool,
    },
    /// Sends the same request twice at once, under one key, to different APIs; later another one under that key.
    Twins {
        wish: Wish,
        other: Wish,
    },
    /// Enqueues, and calls it off some milliseconds later.
    Cancel {
        wish: Wish,
        after: u64,
    },
    Batch {
        wishes: Vec<Wish>,
    },
    Workflow {
        wishes: Vec<Wish>,
    },
}

/// How many ordering keys there are; each has a client of its own, that waits for one answer before it asks again.
pub(crate) const ORDERS: u64 = 6;
/// How many keys of the limit, and how many unique keys.
const KEYS: u64 = 5;

/// The deed with this number.
pub(crate) fn deed(seed: u64, number: u64) -> Deed {
    let mut rng = fastrand::Rng::with_seed(seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let rng = &mut rng;
    let wish = |rng: &mut fastrand::Rng, part: &str| Wish {
        tag: format!("d{number}{part}"),
        max_attempts: 20,
        told: Told { millis: rng.u64(1..60), ..Told::default() },
        ..Wish::default()
    };
    let mut one = wish(rng, "");
    let keyed = rng.u32(..5) > 0;
    match rng.u32(..100) {
        0..25 => {}
        25..35 => one.delay_ms = Some(rng.u64(200..6000)),
        35..43 => {
            one.told.failures = rng.u32(1..4);
            one.told.panics = rng.u32(..3) == 0;
        }
        // Its attempts are used up.
        43..46 => {
            one.told.failures = 99;
            one.max_attempts = rng.u32(1..4);
        }
        46..48 => one.told.ending = Ending::Discard,
        48..54 => one.told.millis = rng.u64(500..4000),
        // Longer than a lease.
        54..55 => one.told.millis = rng.u64(8_000..20_000),
        55..68 => {
            one.transactional = true;
            one.told.failures = rng.u32(..4) / 3;
        }
        68..72 => return Deed::Twins { other: Wish { max_attempts: 19, ..wish(rng, "x") }, wish: one },
        72..76 => {
            one.told.millis = rng.u64(50..1500);
            one.unique = Some(format!("u{}", rng.u64(..KEYS)));
        }
        76..81 => {
            one.told.millis = rng.u64(5..120);
            one.limit = Some(format!("l{}", rng.u64(..KEYS)));
        }
        81..86 => {
            one.told.millis = rng.u64(1..3000);
            one.delay_ms = rng.bool().then(|| rng.u64(100..2000));
            return Deed::Cancel { wish: one, after: rng.u64(..800) };
        }
        86..88 => {
            let wishes = (0..rng.u32(2..12)).map(|entry| wish(rng, &format!("b{entry}"))).collect();
            return Deed::Batch { wishes };
        }
        88..91 => return Deed::Workflow { wishes: diamond(number, rng) },
        // One attempt only: never started twice.
        91..94 => one.max_attempts = 1,
        _ => one.told.memory = rng.usize(1..24),
    }
    Deed::Enqueue { wish: one, keyed }
}

/// A job, two that wait for it, and one that waits for both. In one of four, a part fails for good.
fn diamond(number: u64, rng: &mut fastrand::Rng) -> Vec<Wish> {
    let tag = |part: u64| format!("d{number}w{part}");
    let failing = rng.u64(..12);
    (0..4)
        .map(|part| Wish {
            tag: tag(part),
            transactional: rng.bool(),
            max_attempts: 20,
            told: Told {
                millis: rng.u64(1..200),
                ending: if part == failing { Ending::Discard } else { Ending::Succeed },
                ..Told::default()
            },
            after: match part {
                0 => Vec::new(),
                3 => vec![tag(1), tag(2)],
                _ => vec![tag(0)],
            },
            ..Wish::default()
        })
        .collect()
}

/// The next job of an ordering key.
pub(crate) fn ordered(seed: u64, key: u64, place: u64) -> Wish {
    let mut rng = fastrand::Rng::with_seed(seed ^ key.wrapping_mul(0xff51_afd7_ed55_8ccd) ^ place << 20);
    Wish {
        tag: format!("o{key}n{place}"),
        max_attempts: 20,
        told: Told { millis: rng.u64(1..150), failures: rng.u32(..5) / 4, ..Told::default() },
        order: Some((format!("o{key}"), place)),
        ..Wish::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_seed_decides_and_tags_are_unique() {
        let mut tags = HashSet::new();
        for number in 0..2000 {
            assert_eq!(deed(5, number), deed(5, number));
            let wishes = match deed(5, number) {
                Deed::Enqueue { wish, .. } | Deed::Cancel { wish, .. } => vec![wish],
                Deed::Twins { wish, other } => vec![wish, other],
                Deed::Batch { wishes } | Deed::Workflow { wishes } => wishes,
            };
            for wish in wishes {
                assert!(tags.insert(wish.tag.clone()), "{wish:?}");
            }
        }
        assert_ne!(
            (0..50).map(|n| deed(5, n)).collect::<Vec<_>>(),
            (0..50).map(|n| deed(6, n)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn every_nature_of_job_is_wanted() {
        let deeds: Vec<Deed> = (0..2000).map(|number| deed(1, number)).collect();
        let singles: Vec<&Wish> = deeds
            .iter()
            .filter_map(|deed| match deed {
                Deed::Enqueue { wish, .. } => Some(wish),
                _ => None,
            })
            .collect();
        let natures: [fn(&Wish) -> bool; 9] = [
            |wish| wish.delay_ms.is_some(),
            |wish| wish.told.panics,
            |wish| wish.told.failures > wish.max_attempts,
            |wish| wish.told.ending == Ending::Discard,
            |wish| wish.told.millis > 8000,
            |wish| wish.transactional,
            |wish| wish.unique.is_some(),
            |wish| wish.limit.is_some(),
            |wish| wish.max_attempts == 1,
        ];
        for (number, nature) in natures.iter().enumerate() {
            assert!(singles.iter().any(|wish| nature(wish)), "nature {number}");
        }
        assert!(deeds.iter().any(|deed| matches!(deed, Deed::Twins { .. })));
        assert!(deeds.iter().any(|deed| matches!(deed, Deed::Cancel { .. })));
        assert!(deeds.iter().any(|deed| matches!(deed, Deed::Batch { .. })));
        assert!(deeds.iter().any(|deed| matches!(deed, Deed::Workflow { .. })));
    }
}
