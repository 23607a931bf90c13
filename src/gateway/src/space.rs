//! How much room the keyspace takes, as clients and the quota see it.
//!
//! etcd's figure is the size of a file that grows and only shrinks by defragmentation. Here memory
//! is freed by itself, but operators and tests rely on that behaviour (compact, defragment, disarm),
//! so the reported size is the high-water mark since the last defragmentation.

use keyspace::auth::AuthChange;
use keyspace::command::{Grant, Op, Txn};
use keyspace::node::{Action, NodeOp};
use keyspace::{AccessList, Command};
use std::sync::atomic::{AtomicU64, Ordering};

/// What an empty keyspace is reported to take: an empty etcd file has five pages of 4 KiB.
const EMPTY_BYTES: u64 = 5 * 4096;
/// What a put is charged beyond its key and value (etcd's figure).
const PUT_OVERHEAD_BYTES: u64 = 256;
/// What a lease is charged (etcd's figure).
const LEASE_BYTES: u64 = 64;

/// The high-water mark.
#[derive(Debug, Default)]
pub struct Space {
    peak: AtomicU64,
}

/// A moment's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceUsed {
    /// What is held now.
    pub in_use_bytes: u64,
    /// The most that was held since the last defragmentation.
    pub total_bytes: u64,
}

impl Space {
    /// Takes notice of what the keyspace holds now.
    pub fn observe(&self, keyspace_bytes: u64) -> SpaceUsed {
        let in_use_bytes = EMPTY_BYTES + keyspace_bytes;
        let before = self.peak.fetch_max(in_use_bytes, Ordering::Relaxed);
        SpaceUsed {
            in_use_bytes,
            total_bytes: before.max(in_use_bytes),
        }
    }

    /// Forgets the high water.
    pub fn defragment(&self, keyspace_bytes: u64) {
        self.peak
            .store(EMPTY_BYTES + keyspace_bytes, Ordering::Relaxed);
    }
}

/// The room a command may take, as the quota charges it. Zero for what never grows the keyspace.
pub fn cost(command: &Command) -> u64 {
    match command {
        Command::Txn(txn) => cost_of_txn(txn),
        Command::Nodes(nodes) => nodes.ops.iter().map(cost_of_node_op).sum(),
        Command::Grant(Grant { session: None, .. }) => LEASE_BYTES,
        // About what it takes is what it says.
        Command::Auth(asked) if asked.changes.iter().any(AuthChange::grows) => {
            command.encode().len() as u64
        }
        // Who opens a session may want to make room.
        Command::Grant(_)
        | Command::Compact(_)
        | Command::Revoke(..)
        | Command::Expire(_)
        | Command::Checkpoint(_)
        | Command::Alarm(_)
        | Command::Attach(_)
        | Command::Close(_)
        | Command::Auth(_) => 0,
    }
}

fn cost_of_txn(txn: &Txn) -> u64 {
    let branch = |ops: &[Op]| ops.iter().map(cost_of_op).sum::<u64>();
    branch(&txn.then).max(branch(&txn.otherwise))
}

fn cost_of_node_op(op: &NodeOp) -> u64 {
    if !op.grows() {
        return 0;
    }
    let value = match &op.action {
        Action::Write(write) => {
            write.value.as_ref().map_or(0, |value| value.len()) + len_of(write.acl.as_ref())
        }
        Action::SetAcl(acl) => len_of(acl.as_ref()),
        Action::MakeDirectory { .. } | Action::Check | Action::Remove { .. } => 0,
    };
    PUT_OVERHEAD_BYTES + (op.path.len() + value) as u64
}

fn len_of(acl: Option<&AccessList>) -> usize {
    let entries = acl.into_iter().flat_map(|acl| acl.iter());
    entries.map(|entry| entry.who.len_bytes()).sum()
}

fn cost_of_op(op: &Op) -> u64 {
    match op {
        Op::Put(put) => {
            let value = put.value.as_ref().map_or(0, |value| value.len());
            PUT_OVERHEAD_BYTES + (put.key.len() + value) as u64
        }
        Op::Txn(txn) => cost_of_txn(txn),
        Op::Range(_) | Op::Delete(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyspace::command::{Delete, Put};
    use keyspace::{Revision, Span};

    fn put(key: &'static str, value: &'static str) -> Op {
        Op::Put(Put::new(key, value))
    }

    #[test]
    fn a_transaction_is_charged_for_its_dearer_branch() {
        let txn = Txn {
            guards: vec![],
            then: vec![put("a", "12"), put("b", "34")],
            otherwise: vec![Op::Txn(Txn::unconditional(vec![put("c", "")]))],
            ..Txn::default()
        };
        assert_eq!(cost(&Command::Txn(txn)), 2 * (256 + 3));
    }

    #[test]
    fn what_frees_room_is_free() {
        let delete = Op::Delete(Delete {
            span: Span::all(),
            want_previous: false,
        });
        let txn = Txn {
            then: vec![delete],
            ..Txn::default()
        };
        assert_eq!(cost(&Command::Txn(txn)), 0);
        assert_eq!(cost(&Command::Compact(Revision(5))), 0);
    }

    #[test]
    fn size_falls_only_by_defragmentation() {
        let space = Space::default();
        assert_eq!(space.observe(0).total_bytes, EMPTY_BYTES);
        assert_eq!(space.observe(1000).total_bytes, EMPTY_BYTES + 1000);
        let compacted = space.observe(10);
        assert_eq!(compacted.total_bytes, EMPTY_BYTES + 1000);
        assert_eq!(compacted.in_use_bytes, EMPTY_BYTES + 10);
        space.defragment(10);
        assert_eq!(space.observe(10).total_bytes, EMPTY_BYTES + 10);
    }
}
