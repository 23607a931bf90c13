//! A keyspace to test against, without replication.

use gateway::keyspace::command::{Delete, Op, Put, Txn};
use gateway::keyspace::{
    Applied, Command, Entry, Keyspace, Reader, Revision, Span, Stamp, command::Range,
};

/// Applies what it is told to.
pub struct World {
    keyspace: Keyspace,
    index: u64,
}

impl World {
    pub fn new() -> World {
        World {
            keyspace: Keyspace::new(),
            index: 0,
        }
    }

    pub fn apply(&mut self, command: &Command) -> Applied {
        self.index += 1;
        let stamp = Stamp {
            index: self.index,
            ..Stamp::default()
        };
        self.keyspace.apply(stamp, command)
    }

    pub fn run<const N: usize>(&mut self, then: [Op; N]) -> Applied {
        self.apply(&Command::Txn(Txn::unconditional(then.into())))
    }

    pub fn compact(&mut self, revision: u64) {
        let applied = self.apply(&Command::Compact(Revision(revision)));
        assert!(applied.outcome.is_ok());
        while self.keyspace.tidy() {}
    }

    pub fn reader(&self) -> Reader {
        self.keyspace.reader()
    }

    /// The newest version of a key.
    pub fn entry(&self, key: &'static str) -> Entry {
        let answer = self.reader().range(&Range::of(Span::single(key)));
        let mut entries = answer.expect("the newest revision can be read").entries;
        entries.pop().expect("the key is there")
    }
}

pub fn put(key: &'static str, value: &'static str) -> Op {
    Op::Put(Put::new(key, value))
}

pub fn delete(key: &'static str) -> Op {
    Op::Delete(Delete {
        span: Span::single(key),
        want_previous: false,
    })
}
