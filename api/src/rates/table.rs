//! When the next request of each key is expected, for a bounded number of keys.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, PoisonError},
};

use super::gcra::{Gcra, Verdict};

/// A digest of who is counted, or the address itself.
pub(super) type Key = [u8; 16];

/// Two generations of keys: when the younger one is full, or as old as anything it has to remember, the older one is
/// forgotten. Who has used up what they may is forgotten early only if as many others as a generation holds have come
/// since their last request: who can send from so many addresses has a burst for each of them anyhow.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) gcra: Gcra,
    most: usize,
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, u64>,
    old: HashMap<Key, u64>,
    /// When the young one was begun.
    begun: u64,
}

impl Table {
    /// With at most twice `most` keys.
    pub(super) fn new(gcra: Gcra, most: usize) -> Self {
        Self { gcra, most, generations: Mutex::default() }
    }

    /// Counts a request of this key at `now`, in nanoseconds.
    pub(super) fn take(&self, key: Key, now: u64) -> Verdict {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let fills = self.gcra.interval.saturating_mul(self.gcra.capacity);
        if generations.young.len() >= self.most || now.saturating_sub(generations.begun) > fills {
            generations.old = mem::take(&mut generations.young);
            generations.begun = now;
        }
        let Generations { young, old, .. } = &mut *generations;
        let expected = young.get(&key).or_else(|| old.get(&key)).copied().unwrap_or_default();
        let (verdict, next) = self.gcra.decide(expected, now);
        young.insert(key, next);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn table(rate: &str, most: usize) -> Table {
        Table::new(Gcra::new(&rate.parse().unwrap()), most)
    }

    fn key(number: usize) -> Key {
        (number as u128).to_be_bytes()
    }

    fn held(table: &Table) -> usize {
        let generations = table.generations.lock().unwrap();
        generations.young.len() + generations.old.len()
    }

    #[test]
    fn each_key_is_counted_for_itself() {
        let table = table("1/s burst 2", 100);
        for number in 0..3 {
            assert_eq!(table.take(key(number), 0).goes, Ok(0));
            assert_eq!(table.take(key(number), 0).goes, Ok(0));
            assert_eq!(table.take(key(number), 0).goes, Err(SECOND));
        }
        assert_eq!(table.take(key(1), SECOND).goes, Ok(0));
    }

    #[test]
    fn any_number_of_keys_takes_no_more_than_so_much() {
        let table = table("1/s burst 60", 100);
        for number in 0..10_000 {
            table.take(key(number), 0);
            assert!(held(&table) <= 200);
        }
    }

    #[test]
    fn who_keeps_coming_is_not_forgotten_among_many() {
        let table = table("1/m burst 1", 100);
        assert_eq!(table.take(key(0), 0).goes, Ok(0));
        for number in 1..10_000 {
            table.take(key(number), 0);
            if number % 90 == 0 {
                assert!(table.take(key(0), 0).goes.is_err(), "{number}");
            }
        }
    }

    #[test]
    fn what_is_full_again_is_forgotten_in_time() {
        let table = table("1/s burst 2", 100);
        for number in 0..50 {
            table.take(key(number), 0);
        }
        table.take(key(100), 3 * SECOND);
        table.take(key(100), 6 * SECOND);
        assert_eq!(held(&table), 2);
    }
}
