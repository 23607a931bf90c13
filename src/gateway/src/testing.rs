//! What the tests of both hubs share: a real keyspace that publishes, without replication.

use crate::watch::Hub;
use keyspace::command::{Op, Put, Txn};
use keyspace::{Applied, Command, Keyspace, Revision, Stamp};
use replica::ChangeSink;

/// A keyspace that publishes.
pub struct World {
    pub keyspace: Keyspace,
    pub hub: Hub,
    pub sink: Box<dyn ChangeSink>,
    index: u64,
}

impl World {
    pub fn new() -> World {
        let keyspace = Keyspace::new();
        let hub = Hub::new();
        hub.begin(&keyspace.reader());
        World {
            sink: hub.sink(),
            keyspace,
            hub,
            index: 0,
        }
    }

    /// As readers see it, but not published yet.
    pub fn apply(&mut self, command: &Command) -> Applied {
        self.index += 1;
        let stamp = Stamp {
            index: self.index,
            ..Stamp::default()
        };
        self.keyspace.apply(stamp, command)
    }

    pub fn run(&mut self, command: &Command) -> Revision {
        let applied = self.apply(command);
        self.sink.publish(command, &applied);
        applied.revision
    }

    pub fn put(&mut self, key: &str) -> Revision {
        self.run(&txn(vec![put(key)]))
    }
}

pub fn put(key: &str) -> Op {
    Op::Put(Put::new(key.to_owned(), "v"))
}

pub fn txn(then: Vec<Op>) -> Command {
    Command::Txn(Txn::unconditional(then))
}
