use std::collections::BTreeSet;

use windlass_core::DeliveryTag;

/// Bits of a [`DeliveryTag`] that hold the number on the channel; those above hold the epoch.
const NUMBER_BITS: u32 = 40;

/// The delivery tags of one channel. A channel numbers its deliveries from 1, so tags also carry which of the
/// subscription's channels (its epoch) they belong to: those of a lost channel must never settle others' messages.
#[derive(Debug)]
pub(super) struct Tags {
    epoch: u64,
    /// Every number up to here is settled.
    floor: u64,
    /// Numbers above the floor that are settled.
    settled: BTreeSet<u64>,
    /// The highest number handed out.
    delivered: u64,
}

/// One frame that settles a number, or every number up to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settle {
    pub(super) number: u64,
    pub(super) multiple: bool,
}

impl Tags {
    pub(super) fn new(epoch: u64) -> Self {
        Self { epoch, floor: 0, settled: BTreeSet::new(), delivered: 0 }
    }

    /// Notes `number` as handed out, and answers with its tag.
    pub(super) fn deliver(&mut self, number: u64) -> DeliveryTag {
        self.delivered = self.delivered.max(number);
        DeliveryTag(self.epoch << NUMBER_BITS | number)
    }

    /// Whether nothing that was handed out is still to be settled.
    pub(super) fn all_settled(&self) -> bool {
        self.floor >= self.delivered
    }

    /// The numbers behind `tags`, without the stale ones.
    pub(super) fn numbers(&self, tags: &[DeliveryTag]) -> Vec<u64> {
        let of_epoch = tags.iter().filter(|tag| tag.0 >> NUMBER_BITS == self.epoch);
        of_epoch.map(|tag| tag.0 & ((1 << NUMBER_BITS) - 1)).collect()
    }

    /// Notes `numbers` as settled and answers with the fewest frames that say so to the broker. Numbers settled
    /// before are left out, since the broker would close the channel over them.
    pub(super) fn settle(&mut self, mut numbers: Vec<u64>) -> Vec<Settle> {
        numbers.sort_unstable();
        numbers.retain(|&number| number > self.floor && self.settled.insert(number));
        while self.settled.remove(&(self.floor + 1)) {
            self.floor += 1;
        }
        let below = numbers.partition_point(|&number| number <= self.floor);
        let mut frames = Vec::with_capacity(numbers.len() - below + 1);
        if let Some(&number) = numbers[..below].last() {
            frames.push(Settle { number, multiple: below > 1 });
        }
        frames.extend(numbers[below..].iter().map(|&number| Settle { number, multiple: false }));
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(tags: &mut Tags, numbers: &[u64]) -> Vec<(u64, bool)> {
        tags.settle(numbers.to_vec()).into_iter().map(|s| (s.number, s.multiple)).collect()
    }

    #[test]
    fn a_run_from_the_floor_is_one_frame() {
        let mut tags = Tags::new(1);
        assert_eq!(frames(&mut tags, &[3, 1, 2, 5]), [(3, true), (5, false)]);
        // 5 is settled: 4 alone closes the gap, and must not be sent as 5.
        assert_eq!(frames(&mut tags, &[4]), [(4, false)]);
        assert_eq!(frames(&mut tags, &[6, 7]), [(7, true)]);
    }

    #[test]
    fn nothing_is_settled_twice() {
        let mut tags = Tags::new(1);
        assert_eq!(frames(&mut tags, &[2, 2]), [(2, false)]);
        assert_eq!(frames(&mut tags, &[2]), []);
        assert_eq!(frames(&mut tags, &[1, 2]), [(1, false)]);
        assert_eq!(frames(&mut tags, &[1, 2]), []);
    }

    #[test]
    fn tags_of_another_epoch_are_stale() {
        let (mut old, mut new) = (Tags::new(1), Tags::new(2));
        let tags = [old.deliver(7), new.deliver(8)];
        assert_eq!(new.numbers(&tags), [8]);
    }
}
