//! The newest node events. They are state: whoever resumes from one of them finds the rest on every
//! member, after restarts, and whatever was compacted meanwhile.

use crate::node::Event;
use std::collections::VecDeque;

/// Events kept: as many as etcd v2 keeps, whose clients count on it.
pub(crate) const EVENTS_MAX: usize = 1000;

/// The events, oldest first.
#[derive(Default)]
pub(crate) struct Ring {
    pub events: VecDeque<Event>,
}

impl Ring {
    pub fn push(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The events from `index` on.
    pub fn from(&self, index: u64) -> impl Iterator<Item = &Event> {
        let first = self.events.partition_point(|event| event.index < index);
        self.events.range(first..)
    }
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
            (6, EVENTS_MAX, 1005)
        );
        assert_eq!(reader.events(1005).1.len(), 1);
    }
}
