//! A connection that holds a session: the engine.
//!
//! Whatever one read of the socket brought is answered together: all complete frames are parsed, writes
//! that stand next to each other go to the replica as one job, a read waits for the writes before it,
//! and one write carries all answers and the events that belong among them. A client that does not
//! read its answers is not read from either.

use crate::acl::Inborn;
use crate::read::Desk;
use crate::record;
use crate::reply::{Event, Replies};
use crate::request::{Asked, Parsed};
use crate::sasl::Exchange;
use crate::stats::{Batch, Entered};
use crate::tally::Op;
use crate::{Arrival, Shared, acl, frame};
use bytes::{Bytes, BytesMut};
use gateway::keyspace::Reader;
use gateway::keyspace::access::Identity;
use gateway::nodes::Gone;
use gateway::{NodeWatcher, Principal, SessionKey, Unavailable};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What one read of the socket may bring, beside the rest of a frame that is longer.
const READ_BYTES: usize = 64 << 10;
/// How long a client has to take its last answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// The connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// At once.
    Now,
    /// Once the client has what was answered so far.
    AfterAnswers,
}

impl From<Unavailable> for Over {
    /// Whatever the reason, a write may have been done or not. ZooKeeper's clients are told so by the
    /// connection's end.
    fn from(unavailable: Unavailable) -> Over {
        match unavailable {
            Unavailable::NoLeader
            | Unavailable::LeaderChanged
            | Unavailable::TimedOut
            | Unavailable::TimedOutLeaderLost
            | Unavailable::TimedOutDisconnected
            | Unavailable::TooMany
            | Unavailable::Stopped
            | Unavailable::NotLeader => Over::AfterAnswers,
        }
    }
}

/// A connection that holds a session.
pub struct Session<'a, S> {
    pub(crate) shared: &'a Shared,
    stream: &'a mut S,
    entered: &'a Entered<'a>,
    pub(crate) key: SessionKey,
    /// It is a session of this server alone, which cannot write.
    pub(crate) read_only: bool,
    /// Which of the connection's writes is next.
    pub(crate) turn: u64,
    /// Who the client is by its connection, without a word of its own.
    pub(crate) inborn: Inborn,
    /// Who the client has shown to be.
    pub(crate) ids: Arc<[Identity]>,
    /// On whose behalf it asks, once authentication is on.
    pub(crate) principal: Principal,
    /// How far it has logged in.
    pub(crate) sasl: Exchange,
    pub(crate) watcher: NodeWatcher,
    pub(crate) read: BytesMut,
    pub(crate) replies: Replies,
    wire: Vec<u8>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    /// Takes a connection over whose handshake is done.
    pub fn new(
        shared: &'a Shared,
        stream: &'a mut S,
        arrival: &Arrival,
        entered: &'a Entered<'a>,
        key: SessionKey,
        read_only: bool,
    ) -> Session<'a, S> {
        let inborn = Inborn::of(arrival, &shared.options);
        Session {
            shared,
            stream,
            entered,
            watcher: match read_only {
                true => shared.gate.watch_nodes_alone(),
                false => shared.gate.watch_nodes(&key),
            },
            key,
            read_only,
            turn: 0,
            ids: inborn.ids().cloned().collect(),
            inborn,
            principal: Principal::Anonymous,
            sasl: Exchange::default(),
            read: BytesMut::new(),
            replies: Replies::default(),
            wire: Vec::new(),
        }
    }

    /// Answers until either side ends it.
    pub async fn run(&mut self) {
        let mut cut_off = std::pin::pin!(cut_off(self.shared, self.read_only));
        loop {
            match self.answer().await {
                Ok(()) => {}
                Err(Over::Now) => return,
                Err(Over::AfterAnswers) => {
                    // One that does not take them has had its time.
                    tokio::time::timeout(PATIENCE, self.part()).await.ok();
                    return;
                }
            }
            self.read.reserve(READ_BYTES);
            tokio::select! {
                biased;
                () = cut_off.as_mut() => return,
                read = self.stream.read_buf(&mut self.read) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                },
                () = self.watcher.ready() => if self.watcher.gone().is_some() {
                    return;
                },
            }
        }
    }

    /// The last words.
    async fn part(&mut self) {
        self.collect().await;
        match self.watcher.gone() {
            None | Some(Gone::Ended) => {}
            // The events that belong before these answers may be lost.
            Some(Gone::Moved | Gone::Replaced | Gone::Overflown) => return,
        }
        if self.stream.write_all(&self.wire).await.is_ok() {
            self.stream.shutdown().await.ok();
        }
    }

    /// Answers all that was read.
    async fn answer(&mut self) -> Result<(), Over> {
        let began = Instant::now();
        let bytes_max = self.shared.options.frame_bytes_max;
        let frames = frame::complete(&mut self.read, bytes_max);
        let frames = frames.map_err(|frame::BadLength| Over::Now)?;
        let payloads = frame::payloads(&frames);
        let parsed: Vec<Parsed<'_>> = payloads.map(|payload| parse(payload, &frames)).collect();
        let mut answered = Ok(());
        if !parsed.is_empty() {
            if !self.read_only {
                self.shared.gate.touch(self.key.id);
            }
            answered = self.process(&parsed).await;
        }
        let events = match answered {
            Ok(()) => self.collect().await,
            Err(_) => 0,
        };
        // Before they are sent: whoever has an answer finds it counted.
        self.note(began, &parsed, events);
        answered?;
        self.send().await
    }

    /// Notes what was answered.
    fn note(&self, began: Instant, parsed: &[Parsed<'_>], events: u64) {
        let last = parsed.iter().rev().flatten().next();
        let batch = Batch {
            began,
            requests: parsed.len() as u64,
            events,
            last_xid: last.map_or(-1, |asked| asked.header.xid),
            last_op: last.and_then(|asked| Op::of(&asked.request)),
            revision: self.replies.revision(),
        };
        self.entered.note(&batch);
        if !parsed.is_empty() {
            let asked = parsed.iter().flatten();
            let ops = asked.filter_map(|asked| Op::of(&asked.request));
            self.shared.stats.tally.note(ops, batch.took_ms());
        }
    }

    /// Writes what waits, and what there is to tell beside.
    pub(crate) async fn flush(&mut self) -> Result<(), Over> {
        self.collect().await;
        self.send().await
    }

    async fn send(&mut self) -> Result<(), Over> {
        if self.watcher.gone().is_some() {
            return Err(Over::Now);
        }
        if self.wire.is_empty() {
            return Ok(());
        }
        let written = async {
            self.stream.write_all(&self.wire).await?;
            // TLS may keep some of it.
            self.stream.flush().await
        };
        let written = tokio::select! {
            biased;
            written = written => written,
            // A client that does not read keeps neither its session nor what waits for it.
            _ = self.watcher.dismissed() => return Err(Over::Now),
            () = cut_off(self.shared, self.read_only) => return Err(Over::Now),
        };
        written.map_err(|_| Over::Now)?;
        self.wire.clear();
        self.wire.shrink_to(READ_BYTES);
        Ok(())
    }

    /// Puts answers and events in their order; answers how many events.
    async fn collect(&mut self) -> u64 {
        // What answers show, their watchers must have been told of.
        self.watcher.settled(self.replies.revision()).await;
        let events = self.watcher.take_events(None);
        let desk = self.desk();
        let newest = desk.reader.revision();
        let told: Vec<_> = events
            .iter()
            .filter_map(|event| Some((event, desk.mount.shown(&event.path)?)))
            .filter(|(event, path)| desk.may_hear(path, event.acl.as_deref()))
            .collect();
        let count = told.len() as u64;
        let told = told.iter().map(|(event, path)| Event {
            revision: event.revision,
            // What is not in the keyspace counts as later than all that is.
            zxid: event.revision.min(newest),
            what: event.what,
            path,
        });
        let mut wire = std::mem::take(&mut self.wire);
        self.replies.drain(told, &mut wire);
        self.wire = wire;
        count
    }

    pub(crate) fn reader(&self) -> &Reader {
        self.shared.gate.reader()
    }

    /// Whether access lists do not bind this client.
    pub(crate) fn may_everything(&self) -> bool {
        self.shared.options.skip_acl || acl::is_super(&self.ids)
    }

    pub(crate) fn desk(&self) -> Desk<'_> {
        let reader = self.shared.gate.reader();
        let bound = !self.may_everything() && !reader.is_root(&self.principal);
        Desk {
            reader,
            mount: &self.shared.options.mount,
            watcher: &self.watcher,
            session: self.key.id,
            by: bound.then_some(&self.ids),
            principal: &self.principal,
            gate: &self.shared.gate,
            options: &self.shared.options,
        }
    }
}

/// Returns when a connection has to go for the cluster's sake. A client of a member that is cut off
/// must not believe that its session goes on: the others may end it and give its locks away. And one
/// that only reads has to find out that it can write. ZooKeeper cuts all connections either time.
async fn cut_off(shared: &Shared, read_only: bool) {
    let gate = &shared.gate;
    match read_only {
        true => gate.led().await,
        false => gate.leaderless(gate.limits().election_timeout).await,
    }
}

fn parse<'f>(payload: &'f [u8], frames: &'f Bytes) -> Parsed<'f> {
    let (header, request) = record::parse(payload)?;
    Ok(Asked {
        frames,
        len_bytes: payload.len(),
        header,
        request,
    })
}
