//! Clients that watch: they catch up from a member's history, then follow its changes, and resume at
//! another member where they were when theirs goes away.

use crate::rng::Rng;
use crate::translate;
use checker::kv::Key;
use checker::watch::{Event, Message, Watch};
use keyspace::{Reader, Refusal, Revision};
use std::ops::Range;

/// Changes taken from history at once; few, so that catching up takes several turns.
const CATCH_UP_CHANGES_MAX: usize = 16;

/// One watcher.
pub struct Watcher {
    /// The member it is connected to.
    pub member: u64,
    /// What it asked for and received so far, since it was last cancelled.
    record: Watch,
    /// The first revision it has not received.
    next: u64,
    /// It has caught up and is sent changes as they happen.
    live: bool,
    /// What it asked for and received before it was cancelled.
    closed: Vec<Watch>,
}

impl Watcher {
    /// A watcher of some span, from revision 1 on: every change there ever is.
    pub fn new(rng: &mut Rng, keys: Key, member: u64) -> Watcher {
        let start = rng.below(u64::from(keys)) as Key;
        let span = match rng.below(3) {
            0 => 0..keys,
            1 => start..start + 1,
            _ => start..keys,
        };
        Watcher {
            member,
            record: watch(span, 1, rng.permille(500)),
            next: 1,
            live: false,
            closed: Vec::new(),
        }
    }

    /// Connects to this member and resumes.
    pub fn attach(&mut self, member: u64) {
        self.member = member;
        self.live = false;
    }

    /// The member's state was replaced: what happened in between must come from history.
    pub fn interrupted(&mut self) {
        self.live = false;
    }

    /// Whether it is sent changes as they happen.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Takes the next piece of history, or finds that there is none.
    pub fn catch_up(&mut self, reader: &Reader) {
        let newest = reader.revision().0;
        if self.next > newest {
            self.live = true;
            return;
        }
        match reader.history(Revision(self.next), CATCH_UP_CHANGES_MAX) {
            Ok(changes) => {
                let events: Vec<Event> = changes.iter().map(translate::event).collect();
                self.next = match events.last() {
                    Some(last) if events.len() >= CATCH_UP_CHANGES_MAX => last.revision + 1,
                    Some(_) | None => newest + 1,
                };
                self.send(newest, reader.compacted().0, &events);
            }
            Err(Refusal::Compacted { compacted }) => {
                let again = watch(
                    self.record.span.clone(),
                    compacted.0,
                    self.record.want_previous,
                );
                self.next = compacted.0;
                let mut cancelled = std::mem::replace(&mut self.record, again);
                cancelled.compacted = Some(compacted.0);
                self.closed.push(cancelled);
            }
            Err(refusal) => panic!("history is never refused for that: {refusal}"),
        }
    }

    /// One revision's changes, as the member that it follows publishes them.
    pub fn publish(&mut self, revision: u64, events: &[Event]) {
        if self.live && revision >= self.next {
            self.next = revision + 1;
            self.send(revision, 0, events);
        }
    }

    /// Is told how far it is complete, as etcd's progress notifications do.
    pub fn bookmark(&mut self, revision: u64) {
        if self.live {
            self.record.messages.push(Message {
                revision,
                compacted: 0,
                events: Vec::new(),
            });
        }
    }

    fn send(&mut self, revision: u64, compacted: u64, events: &[Event]) {
        let record = &mut self.record;
        let asked_for = events.iter().filter(|e| record.span.contains(&e.key));
        let events: Vec<Event> = asked_for
            .map(|event| Event {
                previous: event.previous.filter(|_| record.want_previous),
                ..*event
            })
            .collect();
        if !events.is_empty() {
            record.messages.push(Message {
                revision,
                compacted,
                events,
            });
        }
    }

    /// Everything it asked for and received; the last of it is complete up to `newest`.
    pub fn close(mut self, newest: u64) -> Vec<Watch> {
        self.record.complete_to = Some(newest);
        self.closed.push(self.record);
        self.closed
    }

    /// Where a planted fault tampers with what was sent.
    pub fn messages(&mut self) -> &mut Vec<Message> {
        &mut self.record.messages
    }
}

fn watch(span: Range<Key>, from: u64, want_previous: bool) -> Watch {
    Watch {
        span,
        from,
        want_previous,
        messages: Vec::new(),
        compacted: None,
        complete_to: None,
    }
}
