//! Connections that read nodes and watch them through the hub that adapters use. What one is told and
//! what its answers show is kept in order, for `checker::nodes` to judge.
//!
//! It does what an adapter does: an answer that shows some revision waits until the hub has told
//! everything up to it, and goes out behind the events that belong before it.

use crate::host::Host;
use crate::rng::Rng;
use crate::translate;
use checker::kv::Key;
use checker::nodes::{Line, Log};
use gateway::NodeWatcher;
use gateway::nodes::{Mode, Once};
use keyspace::{LeaseId, Revision};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// One connection that watches.
pub struct Looker {
    watcher: NodeWatcher,
    /// Which of the host's runs it is connected to.
    run: u64,
    log: Log,
    /// A read whose answer waits: of which node, and at which revision.
    answer: Option<(Key, Revision)>,
}

impl Looker {
    /// A connection to a running host, which holds the session; half of them watch everything
    /// always.
    pub fn connect(host: &Host, session: i64, attachment: u64, rng: &mut Rng) -> Option<Looker> {
        let reader = host.member.as_ref()?.reader();
        let hub = host.hub.nodes();
        let watcher = hub.watcher(reader, LeaseId(session), attachment);
        let everything = rng.permille(500);
        let since = everything.then(|| watcher.add(translate::KEYS_PATH, Mode::Recursive));
        Some(Looker {
            watcher,
            run: host.run,
            log: Log {
                everything_since: since.map(|since| since.0),
                lines: Vec::new(),
            },
            answer: None,
        })
    }

    /// Reads a node and watches it, or goes on with the answer of the last read.
    pub fn look(&mut self, host: &Host, key: Key, hasty: bool) {
        if host.run != self.run || self.watcher.gone().is_some() {
            return;
        }
        let (key, revision) = *self.answer.get_or_insert_with(|| {
            let path = translate::key_bytes(key);
            let (revision, _) = self.watcher.node(&path, Once::Data, |_| true);
            (key, revision)
        });
        if !hasty && !self.is_told(revision) {
            return;
        }
        self.answer = None;
        self.take(Some(revision));
        let revision = revision.0;
        self.log.lines.push(Line::Shown { key, revision });
        self.take(None);
    }

    /// Whether the hub has told everything up to a revision.
    fn is_told(&self, revision: Revision) -> bool {
        let settled = pin!(self.watcher.settled(revision));
        let mut context = Context::from_waker(Waker::noop());
        settled.poll(&mut context) == Poll::Ready(())
    }

    fn take(&mut self, through: Option<Revision>) {
        for event in self.watcher.take_events(through) {
            if let Some(key) = translate::key_of(&event.path) {
                let revision = event.revision.0;
                self.log.lines.push(Line::Told { key, revision });
            }
        }
    }

    /// The connection ends. If it could have gone on, all that happened up to now must have been told.
    pub fn leave(mut self, host: Option<&Host>) -> Log {
        let newest = host
            .filter(|host| host.run == self.run && host.untold() == 0)
            .filter(|_| self.watcher.gone().is_none())
            .and_then(|host| Some(host.member.as_ref()?.reader().revision()));
        if let Some(newest) = newest {
            self.take(None);
            self.log.lines.push(Line::End(newest.0));
        }
        self.log
    }
}
