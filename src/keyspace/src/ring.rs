//! The newest node events. They are state: whoever resumes from one of them finds the rest on every
//! member, after restarts, and whatever was compacted meanwhile.

use crate::node::Event;
use std::collections::VecDeque;

/// Events kept: as many as etcd v2 keeps, whose clients count on it ...
pub(crate) const EVENTS_MAX: usize = 1000;
/// ... but for the newest, no more of them than take so much: what they show is not compacted.
const BYTES_MAX: usize = 64 << 20;

/// What an event counts beside the node's name and its values.
const EVENT_BYTES: usize = 256;

/// The counter before the first event. Like etcd v2's it is never 0, which to clients is no index: who
/// has seen this one can ask for what comes after it.
pub(crate) const FOUNDED: u64 = 1;

/// The events, oldest first.
#[derive(Default)]
pub(crate) struct Ring {
    pub events: VecDeque<Event>,
    bytes: usize,
}

impl Ring {
    /// Adds the newest. What is kept depends on nothing but the events that there were, so that it is
    /// the same on every member.
    pub fn push(&mut self, event: Event) {
        self.bytes += cost(&event);
        self.events.push_back(event);
        let is_over = |ring: &Ring| ring.events.len() > EVENTS_MAX || ring.bytes > BYTES_MAX;
        while self.events.len() > 1 && is_over(self) {
            let oldest = self.events.pop_front().expect("there are several");
            self.bytes -= cost(&oldest);
        }
    }

    /// The oldest index from which on all that has happened is known.
    pub fn oldest(&self) -> u64 {
        let kept = self.events.front().map(|event| event.index);
        // Before the very first one nothing has happened.
        kept.filter(|index| *index > FOUNDED + 1).unwrap_or(FOUNDED)
    }

    /// The events from `index` on.
    pub fn from(&self, index: u64) -> impl Iterator<Item = &Event> {
        let first = self.events.partition_point(|event| event.index < index);
        self.events.range(first..)
    }
}

fn cost(event: &Event) -> usize {
    let nodes = [Some(&event.node), event.previous.as_ref()];
    let entries = nodes
        .into_iter()
        .flatten()
        .filter_map(|node| node.entry.as_ref());
    let values: usize = entries.map(|entry| entry.value().len()).sum();
    EVENT_BYTES + event.name.as_bytes().len() + values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Op, Put, Txn};
    use crate::{Keyspace, Revision, Stamp};

    /// etcd v2's clients resume within the newest thousand; compaction must not take these away.
    #[test]
    fn the_newest_thousand_events_survive_compaction_and_snapshots() {
        let mut keyspace = Keyspace::new();
        for _ in 0..EVENTS_MAX + 5 {
            let put = Op::Put(Put::new("/a", "v"));
            let txn = Txn::unconditional(vec![put]);
            keyspace.apply(Stamp::default(), &Command::Txn(txn));
        }
        let compact = Command::Compact(Revision(EVENTS_MAX as u64));
        keyspace.apply(Stamp::default(), &compact);
        while keyspace.tidy() {}
        let cut = keyspace.cut(None).expect("it can be cut");
        let reader = Keyspace::restore(cut).expect("it can be restored").reader();
        let (oldest, events) = reader.events(1);
        assert_eq!(
            (oldest, events.len(), reader.event()),
            (7, EVENTS_MAX, 1006)
        );
        assert_eq!(reader.events(1006).1.len(), 1);
    }

    /// Each event shows the value that was there before, too: three of 10 MiB take 60.
    #[test]
    fn large_events_push_out_older_ones_sooner() {
        let mut keyspace = Keyspace::new();
        let mut put = |key: &str, value_bytes: usize| {
            let put = Op::Put(Put::new(key.to_owned(), vec![b'v'; value_bytes]));
            let txn = Command::Txn(Txn::unconditional(vec![put]));
            keyspace.apply(Stamp::default(), &txn);
            let cut = keyspace.cut(None).expect("it can be cut");
            let restored = Keyspace::restore(cut).expect("it can be restored");
            let kept = |keyspace: &Keyspace| {
                let (oldest, events) = keyspace.reader().events(0);
                (oldest, events.len())
            };
            assert_eq!(kept(&restored), kept(&keyspace));
            // As if it had never been away.
            keyspace = restored;
            kept(&keyspace).0
        };
        let large = 10 << 20;
        let oldest = [large; 5].map(|bytes| put("/a", bytes));
        assert_eq!(oldest, [1, 1, 1, 3, 4]);
        assert_eq!(put("/b", 1), 4);
        assert_eq!(put("/c", BYTES_MAX), 8);
        assert_eq!(put("/b", 1), 9);
    }
}
