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
