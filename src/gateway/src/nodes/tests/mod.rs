//! The hub over a real keyspace, without replication: `telling` (who is told of what), `connections`
//! (what one holds, and what becomes of it), `reading` (reading and watching beside writing), `model`
//! (all of it at random).

mod connections;
mod model;
mod reading;
mod telling;

use super::{NodeEvent, NodeWatcher};
use crate::testing::{World, txn};
use keyspace::command::{Attach, Delete, Expired, Grant, Nodes, Op, Session};
use keyspace::node::{Action, NodeWrite};
use keyspace::{AccessList, Cause, Command, LeaseId, NodeOp, Revision, Span};
use std::pin::pin;
use std::task::{Context, Waker};

const SESSION: LeaseId = LeaseId(7);

impl World {
    /// One where a session is held through connection 1.
    fn with_session() -> World {
        let mut world = World::new();
        world.grant(SESSION);
        world
    }

    fn grant(&mut self, lease: LeaseId) {
        let session = Some(Session {
            password: "secret".into(),
            attachment: 1,
        });
        self.run(&Command::Grant(Grant {
            lease,
            ttl_ms: 1_000,
            session,
        }));
    }

    fn attach(&mut self, attachment: u64) {
        self.run(&Command::Attach(Attach {
            lease: SESSION,
            password: "secret".into(),
            attachment,
            ttl_ms: 1_000,
        }));
    }

    fn watcher(&self) -> NodeWatcher {
        self.watcher_of(SESSION, 1)
    }

    fn watcher_of(&self, session: LeaseId, attachment: u64) -> NodeWatcher {
        let nodes = self.hub.nodes();
        nodes.watcher(self.keyspace.reader(), session, attachment)
    }

    fn delete(&mut self, key: &str) -> Revision {
        self.run(&txn(vec![delete(key)]))
    }
}

fn delete(key: &str) -> Op {
    Op::Delete(Delete {
        span: Span::single(key.to_owned()),
        want_previous: false,
    })
}

fn nodes(ops: Vec<NodeOp>) -> Command {
    Command::Nodes(Nodes {
        ops,
        ..Nodes::default()
    })
}

fn op(path: &str, action: Action) -> NodeOp {
    NodeOp {
        path: path.to_owned().into(),
        tests: Vec::new(),
        action,
        cause: Cause::Set,
    }
}

fn write(path: &str, acl: Option<AccessList>) -> NodeOp {
    let write = NodeWrite {
        acl,
        ..NodeWrite::new("v")
    };
    op(path, Action::Write(write))
}

fn remove(path: &str) -> NodeOp {
    op(path, Action::Remove { recursive: false })
}

fn show(event: &NodeEvent) -> String {
    let path = event.path.escape_ascii();
    format!("{:?} {path}@{}", event.what, event.revision)
}

/// These sessions end, if they are held so.
fn expire(sessions: &[(i64, u64)]) -> Command {
    let expired = sessions.iter().map(|(lease, attachment)| Expired {
        lease: LeaseId(*lease),
        attachment: Some(*attachment),
    });
    Command::Expire(expired.collect())
}

fn is_ready(future: impl Future) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    pin!(future).poll(&mut cx).is_ready()
}

/// Everything that waits, as `What path@revision`.
fn drain(watcher: &NodeWatcher) -> Vec<String> {
    let events = watcher.take_events(None);
    events.iter().map(|event| show(event)).collect()
}
