//! The checkpoint thread: writes copies of the state while the others go on, and reads snapshots.

use super::inbox::Order;
use super::raft_thread::ApplyJob;
use super::{Shared, Snapshot};
use crate::Failure;
use crate::core::announced;
use crate::machine::{Machine, Meta, to_keyspace, to_store};
use bytes::Bytes;
use keyspace::Cut;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;
use store::{CheckpointStore, Fault, ImageSink, Mark, Record};
use tokio::sync::oneshot;

/// What to do.
pub enum Job {
    /// Write a whole image.
    Image { mark: Mark, cut: Cut },
    /// Write what changed since the checkpoint at this index.
    Increment { since: u64, mark: Mark, cut: Cut },
    /// Read a snapshot that a leader sends.
    Receive(Incoming),
    /// Nothing more comes.
    End,
}

/// A snapshot that arrives.
pub struct Incoming {
    /// The Raft message that announces it.
    pub message: Bytes,
    /// The sender's [`Meta`].
    pub meta: Bytes,
    /// Its records in key order; it ends with `None`, or without when the sender was lost.
    pub records: tokio::sync::mpsc::Receiver<Option<Vec<Record>>>,
    /// Whether it was taken.
    pub taken: oneshot::Sender<bool>,
}

/// The checkpoint thread.
pub fn run(mut store: Box<dyn CheckpointStore>, jobs: &Receiver<Job>, shared: &Arc<Shared>) {
    for job in jobs.iter() {
        let outcome = match job {
            Job::Image { mark, cut } => write_image(&mut *store, mark, cut, shared).map(|()| true),
            Job::Increment { since, mark, cut } => {
                let began = Instant::now();
                let laid = store.increment(since, mark, cut.map(to_store).collect());
                shared.stats.checkpoints.observe(began.elapsed());
                laid
            }
            Job::Receive(incoming) => match receive(&mut *store, incoming, shared) {
                Ok(()) => continue,
                Err(fault) => Err(fault),
            },
            Job::End => return,
        };
        match outcome {
            // Fails only at the end, when no further checkpoint is needed.
            Ok(laid) => drop(shared.apply_jobs.send(ApplyJob::Checkpointed { laid })),
            Err(fault) => {
                shared.fail(Failure::Fault(fault));
                return;
            }
        }
    }
}

fn write_image(
    store: &mut dyn CheckpointStore,
    mark: Mark,
    cut: Cut,
    shared: &Shared,
) -> Result<(), Fault> {
    let began = Instant::now();
    let index = mark.index;
    let mut sink = store.begin_image(mark)?;
    for record in cut {
        sink.push(to_store(record))?;
    }
    sink.finish()?;
    shared.stats.checkpoints.observe(began.elapsed());
    tracing::info!(
        index,
        took_ms = began.elapsed().as_millis() as u64,
        "saved snapshot"
    );
    let kept = index.saturating_sub(shared.config.catchup_entries);
    let needed_from = store.log_needed_from().min(kept);
    shared.inbox.order(Order::CutLog(needed_from));
    Ok(())
}

/// Writes the records to an image that does not count yet, and makes a machine of them.
fn receive(
    store: &mut dyn CheckpointStore,
    incoming: Incoming,
    shared: &Arc<Shared>,
) -> Result<(), Fault> {
    let Some(place) = announced(&incoming.message) else {
        return Ok(());
    };
    let Ok(meta) = Meta::decode(&incoming.meta) else {
        return Ok(());
    };
    let meta = meta.moved_to(shared.owner());
    let mark = Mark {
        index: place.index,
        term: place.term,
        meta: meta.encode(),
    };
    let mut arriving = Arriving {
        records: incoming.records,
        chunk: Vec::new().into_iter(),
        image: store.begin_image(mark)?,
        last_key: None,
        fault: None,
        complete: false,
    };
    let machine = Machine::restore(place, &meta, &mut arriving);
    if let Some(fault) = arriving.fault {
        return Err(fault);
    }
    match machine {
        Ok(machine) if arriving.complete => {
            let snapshot = Snapshot {
                message: incoming.message,
                machine,
                image: arriving.image,
                taken: incoming.taken,
            };
            shared.inbox.order(Order::SnapshotRead(Box::new(snapshot)));
        }
        Ok(_) => tracing::warn!("a snapshot broke off"),
        Err(damaged) => tracing::warn!(%damaged, "a snapshot was refused"),
    }
    Ok(())
}

/// Records on their way from the network into an image and a keyspace.
struct Arriving {
    records: tokio::sync::mpsc::Receiver<Option<Vec<Record>>>,
    chunk: std::vec::IntoIter<Record>,
    image: Box<dyn ImageSink>,
    last_key: Option<Bytes>,
    fault: Option<Fault>,
    complete: bool,
}

impl Iterator for &mut Arriving {
    type Item = keyspace::Record;

    fn next(&mut self) -> Option<keyspace::Record> {
        let record = loop {
            if let Some(record) = self.chunk.next() {
                break record;
            }
            match self.records.blocking_recv() {
                Some(Some(chunk)) => self.chunk = chunk.into_iter(),
                Some(None) => {
                    self.complete = true;
                    return None;
                }
                None => return None,
            }
        };
        // An image's keys ascend; a sender that does not keep to it is not one of us.
        if self
            .last_key
            .as_ref()
            .is_some_and(|last| record.key <= *last)
        {
            return None;
        }
        self.last_key = Some(record.key.clone());
        if let Err(fault) = self.image.push(record.clone()) {
            self.fault = Some(fault);
            return None;
        }
        Some(to_keyspace(record))
    }
}
