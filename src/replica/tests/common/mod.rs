//! What the shell's tests share.

#![allow(dead_code, reason = "each test program uses its own part")]

use bytes::Bytes;
use keyspace::command::{Grant, Op, Put, Range, Txn};
use keyspace::{Change, Command, LeaseId, Revision, Span};
use parking_lot::Mutex;
use replica::{ChangeSink, Config, Handle, StartError};
use std::sync::Arc;
use std::time::Duration;
use store::mem::{MemCheckpoints, MemDisk, MemLog};

/// How long anything awaited may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A sink that remembers.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Revision>>>);

impl Recorder {
    pub fn revisions(&self) -> Vec<Revision> {
        self.0.lock().clone()
    }
}

impl ChangeSink for Recorder {
    fn publish(&mut self, revision: Revision, _: &[Change]) {
        self.0.lock().push(revision);
    }
}

/// etcd's defaults, but quicker.
pub fn config() -> Config {
    Config {
        heartbeat: Duration::from_millis(20),
        election: Duration::from_millis(200),
        ..Config::default()
    }
}

pub async fn open(config: Config, disk: &MemDisk) -> Result<Handle, StartError> {
    open_with(config, disk, Recorder::default()).await
}

pub async fn open_with(
    config: Config,
    disk: &MemDisk,
    recorder: Recorder,
) -> Result<Handle, StartError> {
    let log = Box::new(MemLog::open(disk));
    let checkpoints = Box::new(MemCheckpoints::open(disk));
    replica::start(config, log, checkpoints, Box::new(recorder)).await
}

fn put_op(key: &str, value: &str, lease: i64) -> Command {
    Command::Txn(Txn {
        then: vec![Op::Put(Put {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            lease: Some(LeaseId(lease)),
            want_previous: false,
        })],
        ..Txn::default()
    })
}

pub fn put(key: &str, value: &str) -> Command {
    put_op(key, value, 0)
}

pub fn put_with_lease(key: &str, lease: i64) -> Command {
    put_op(key, "leased", lease)
}

pub fn grant(lease: i64, ttl_ms: u64) -> Command {
    Command::Grant(Grant {
        lease: LeaseId(lease),
        ttl_ms,
        password: None,
    })
}

/// Number of keys that can be read at `replica`.
pub fn range_count(replica: &Handle) -> u64 {
    let answer = replica.reader().range(&Range::of(Span::all()));
    answer
        .expect("the newest revision is never compacted")
        .count
}

/// Waits until `condition` holds.
pub async fn eventually(condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("it never happened");
}
