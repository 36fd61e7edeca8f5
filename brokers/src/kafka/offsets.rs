use std::collections::BTreeMap;

use windlass_core::Message;

/// What has been handed out of one partition, and how far it may be committed.
///
/// It outlives the partition's assignment: a partition that comes back starts again from its committed offset, and
/// what the holder has in hand, or settled meanwhile, must not be handed out again.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    given: BTreeMap<i64, Given>,
    /// Everything below has been handed out or skipped, by us or those before us. Not known at first.
    next: Option<i64>,
    /// Up to where it has been read under this assignment.
    read: Option<i64>,
}

#[derive(Debug)]
struct Given {
    tag: u64,
    message: Message,
    settled: bool,
    /// Not read again since the partition was last lost, so that others may have been further.
    away: bool,
}

/// What to do with a message that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Hand it out. At its offset there was another message with this tag, unsettled: the partition was made anew.
    New { replaces: Option<u64> },
    /// It is in the holder's hands already, or was settled.
    Known,
}

impl Offsets {
    /// Notes `message` as handed out under `tag`, unless it is known.
    pub(super) fn read(&mut self, offset: i64, tag: u64, message: &Message) -> Read {
        self.skip(offset);
        let mut replaces = None;
        if let Some(given) = self.given.get_mut(&offset) {
            if given.message == *message {
                given.away = false;
                return Read::Known;
            }
            replaces = (!given.settled).then_some(given.tag);
        }
        self.given.insert(offset, Given { tag, message: message.clone(), settled: false, away: false });
        Read::New { replaces }
    }

    /// Passes over what cannot be read.
    pub(super) fn skip(&mut self, offset: i64) {
        self.read = Some(offset + 1);
        self.next = self.next.max(self.read);
    }

    pub(super) fn message(&self, offset: i64) -> Option<&Message> {
        self.given.get(&offset).map(|given| &given.message)
    }

    pub(super) fn settle(&mut self, offset: i64) {
        if let Some(given) = self.given.get_mut(&offset) {
            given.settled = true;
        }
    }

    /// The offset below which all is settled, for the commit.
    pub(super) fn floor(&self) -> Option<i64> {
        let next = self.next?;
        let open = |(_, given): &(&i64, &Given)| !given.away && !given.settled;
        Some(self.given.iter().find(open).map_or(next, |(offset, _)| *offset))
    }

    /// The commit of `floor` has succeeded: what is settled below will not be read again, and is forgotten.
    pub(super) fn committed(&mut self, floor: i64) {
        self.given.retain(|offset, given| *offset >= floor || !given.settled);
    }

    /// Whether something that was handed out under this assignment is unsettled.
    pub(super) fn is_open(&self) -> bool {
        self.given.values().any(|given| !given.away && !given.settled)
    }

    /// The partition is no longer ours.
    pub(super) fn lose(&mut self) {
        let read = self.read.take();
        self.next = None;
        // What was passed over without being read again has been committed by others.
        let over = |offset: &i64, given: &Given| given.settled && given.away && Some(*offset) < read;
        self.given.retain(|offset, given| !over(offset, given));
        for given in self.given.values_mut() {
            given.away = true;
        }
    }

    /// Whether to call [`resume`](Self::resume) when the partition is ours again.
    pub(super) fn remembers(&self) -> bool {
        !self.given.is_empty()
    }

    /// The partition is ours again, to be read from `committed` on. So what was handed out from there on can be
    /// committed even before it is read again.
    pub(super) fn resume(&mut self, committed: i64) {
        self.committed(committed);
        let mut next = committed;
        for (offset, given) in self.given.range_mut(committed..) {
            // In a gap there may be messages of others.
            if *offset != next {
                break;
            }
            given.away = false;
            next += 1;
        }
        self.next = Some(next);
    }

    /// How many messages from `committed` on have been handed out: they do not wait, though they are not committed.
    pub(super) fn given_since(&self, committed: i64) -> u64 {
        self.given.range(committed..).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::{JobId, Lane, Priority};

    use super::*;

    fn message() -> Message {
        Message {
            job_id: JobId::new(),
            attempt: 1,
            lane: Lane { queue: "q".parse().unwrap(), priority: Priority::Normal },
            kind: "k".parse().unwrap(),
            trace: None,
            ordering_key: None,
        }
    }

    fn read(offsets: &mut Offsets, from: i64, messages: &[Message]) -> Vec<Read> {
        (from..).zip(messages).map(|(offset, message)| offsets.read(offset, offset as u64, message)).collect()
    }

    const NEW: Read = Read::New { replaces: None };

    #[test]
    fn nothing_unsettled_is_committed_whatever_the_order() {
        let mut offsets = Offsets::default();
        assert_eq!(offsets.floor(), None);
        read(&mut offsets, 5, &[message(), message(), message()]);
        assert_eq!(offsets.floor(), Some(5));
        offsets.settle(7);
        offsets.settle(6);
        assert_eq!(offsets.floor(), Some(5));
        offsets.settle(5);
        offsets.settle(5);
        assert_eq!(offsets.floor(), Some(8));
        // Offsets may be left out, and garbage is passed over.
        offsets.skip(20);
        assert_eq!(offsets.floor(), Some(21));
        assert!(!offsets.is_open());
    }

    #[test]
    fn what_is_in_hand_is_known_when_the_partition_comes_back() {
        let mut offsets = Offsets::default();
        let messages = [message(), message(), message()];
        read(&mut offsets, 0, &messages);
        offsets.lose();
        assert!(!offsets.is_open());
        offsets.settle(1);
        assert_eq!(offsets.floor(), None, "others own it now");
        assert_eq!(offsets.given_since(0), 3);
        assert_eq!(read(&mut offsets, 0, &messages), [Read::Known, Read::Known, Read::Known]);
        offsets.settle(0);
        assert_eq!(offsets.floor(), Some(2));
        offsets.settle(2);
        assert_eq!(offsets.floor(), Some(3));
        assert_eq!(offsets.given_since(2), 1);
        offsets.committed(3);
        assert_eq!(offsets.given_since(0), 0);
    }

    #[test]
    fn what_was_settled_meanwhile_is_committed_without_reading_it_again() {
        let mut offsets = Offsets::default();
        let messages = [message(), message(), message(), message()];
        read(&mut offsets, 0, &messages);
        offsets.lose();
        for offset in [0, 1, 3] {
            offsets.settle(offset);
        }
        offsets.lose();
        offsets.resume(1);
        assert_eq!(offsets.floor(), Some(2));
        offsets.settle(2);
        assert_eq!(offsets.floor(), Some(4));
        // They are read again all the same.
        assert_eq!(read(&mut offsets, 1, &messages[1..]), [Read::Known, Read::Known, Read::Known]);
        assert_eq!(offsets.floor(), Some(4));
        offsets.committed(4);
        assert!(!offsets.remembers());
        // Not beyond what is known: others may have handed out 4.
        offsets.lose();
        read(&mut offsets, 5, &[message()]);
        offsets.lose();
        offsets.settle(5);
        offsets.resume(4);
        assert_eq!(offsets.floor(), Some(4));
    }

    #[test]
    fn others_commits_are_never_taken_back() {
        let mut offsets = Offsets::default();
        let messages = [message(), message(), message()];
        read(&mut offsets, 0, &messages[..1]);
        offsets.lose();
        // The others have settled it, and the next.
        assert_eq!(read(&mut offsets, 2, &messages[2..]), [NEW]);
        offsets.settle(2);
        assert_eq!(offsets.floor(), Some(3));
        offsets.settle(0);
        assert_eq!(offsets.floor(), Some(3));
    }

    #[test]
    fn a_partition_made_anew_has_new_messages_at_old_offsets() {
        let mut offsets = Offsets::default();
        read(&mut offsets, 0, &[message()]);
        offsets.lose();
        assert_eq!(offsets.read(0, 9, &message()), Read::New { replaces: Some(0) });
        assert_eq!(offsets.floor(), Some(0));
    }
}
