//! One ZooKeeper session as a client keeps it: requests in pipelines, and when the connection
//! breaks, the same session at another member, with its watches set again.
//!
//! It checks what a session is promised whatever it does: answers in the order of requests, a
//! state that never goes back, events before the data that shows their change, and that the
//! session is not lost while it could be resumed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::wire::{self, Frame, Key, Reply, Request, SET_WATCHES_XID};
use crate::rounds::{BACKOFF, CONNECT_DEADLINE, REPLY_DEADLINE};

/// What a session asks for. Servers may round it to their ticks.
const TIMEOUT_MS: u32 = 8_000;
/// How much earlier than its client believes a session may end: a member that died may not have told
/// the others of its latest requests.
pub const TELLING: Duration = Duration::from_millis(1_500);

/// How a pipeline of requests went.
#[derive(Debug)]
pub struct Pipeline {
    /// The replies, in order.
    pub replies: Vec<Reply>,
    /// Whether the connection broke before the last one.
    pub broke: bool,
}

/// How the session stands after its connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It goes on.
    GoesOn,
    /// It is over, rightly.
    Over,
}

/// A session.
pub struct Session {
    members: Vec<SocketAddr>,
    at: usize,
    /// Its identity.
    pub key: Key,
    socket: Option<TcpStream>,
    xid: i32,
    /// The newest state it has been shown.
    zxid: i64,
    /// When the latest request that was answered was sent.
    alive_at: Instant,
    /// The version of each node that it has seen.
    seen: BTreeMap<String, i32>,
    /// The version of each node at which it set a watch that has not fired.
    armed: BTreeMap<String, i32>,
    /// How many events came.
    pub events: u64,
}

impl Session {
    /// Opens a session at some member, beginning with `at`; tries until `deadline`.
    ///
    /// # Errors
    /// When no member takes it in time.
    pub async fn open(members: &[SocketAddr], at: usize, deadline: Instant) -> Result<Self> {
        let mut session = Self {
            members: members.to_vec(),
            at,
            key: Key::fresh(TIMEOUT_MS),
            socket: None,
            xid: 0,
            zxid: 0,
            alive_at: Instant::now(),
            seen: BTreeMap::new(),
            armed: BTreeMap::new(),
            events: 0,
        };
        let outcome = session.connect(deadline).await?;
        ensure!(outcome == Resumed::GoesOn, "a new session is over at once");
        Ok(session)
    }

    /// When the latest request that was answered was sent: until this long after it, and the
    /// session's timeout, it must live.
    pub fn alive_at(&self) -> Instant {
        self.alive_at
    }

    /// Sends requests in one write and awaits their replies.
    ///
    /// # Errors
    /// When a promise is broken.
    pub async fn pipeline(&mut self, requests: &[Request]) -> Result<Pipeline> {
        let mut replies = Vec::new();
        let Some(mut socket) = self.socket.take() else {
            return Ok(Pipeline {
                replies,
                broke: true,
            });
        };
        let sent_at = Instant::now();
        let first_xid = self.xid + 1;
        let mut bytes = Vec::new();
        for request in requests {
            self.xid += 1;
            bytes.extend(request.frame(self.xid));
        }
        let mut broke = socket.write_all(&bytes).await.is_err();
        for (request, xid) in requests.iter().zip(first_xid..) {
            let Some(reply) = self.reply(&mut socket, xid).await? else {
                broke = true;
                break;
            };
            self.alive_at = self.alive_at.max(sent_at);
            self.check(request, &reply)?;
            replies.push(reply);
        }
        if !broke {
            self.socket = Some(socket);
        }
        Ok(Pipeline { replies, broke })
    }

    /// Sends requests that must all succeed.
    ///
    /// # Errors
    /// When one does not, or a promise is broken.
    pub async fn do_all(&mut self, requests: &[Request]) -> Result<()> {
        let pipeline = self.pipeline(requests).await?;
        ensure!(!pipeline.broke, "the connection broke");
        let failed = pipeline.replies.iter().find(|reply| reply.error != 0);
        ensure!(failed.is_none(), "{failed:?}");
        Ok(())
    }

    /// The next reply, which must be to `xid`, with the events before it; none if the connection
    /// breaks.
    async fn reply(&mut self, socket: &mut TcpStream, xid: i32) -> Result<Option<Reply>> {
        loop {
            let frame = tokio::time::timeout(REPLY_DEADLINE, wire::read(socket)).await;
            let Ok(Ok(frame)) = frame else {
                return Ok(None);
            };
            let reply = match frame {
                Frame::Event(event) => {
                    let armed = self.armed.remove(&event.path);
                    ensure!(
                        armed.is_some(),
                        "an event of {} without a watch",
                        event.path
                    );
                    self.events += 1;
                    continue;
                }
                Frame::Reply(reply) => reply,
            };
            ensure!(
                reply.xid == xid,
                "the reply to {} came in place of {xid}",
                reply.xid
            );
            if reply.error == 0 && xid > 0 {
                ensure!(
                    reply.zxid >= self.zxid,
                    "the session saw zxid {:#x}, and then {:#x}",
                    self.zxid,
                    reply.zxid
                );
                self.zxid = reply.zxid;
            }
            return Ok(Some(reply));
        }
    }

    /// What a reply shows of a node must not be older than what was shown before, nor come before
    /// the event of its change.
    fn check(&mut self, request: &Request, reply: &Reply) -> Result<()> {
        let Some(node) = request.node.as_ref().filter(|_| reply.error == 0) else {
            return Ok(());
        };
        let version = reply.stat()?.version;
        let seen = self.seen.insert(node.clone(), version).unwrap_or(0);
        ensure!(
            version >= seen,
            "the session saw version {seen} of {node}, and then {version}"
        );
        if let Some(armed) = self.armed.get(node) {
            ensure!(
                version == *armed,
                "version {version} of {node} was shown before the event of a watch set at {armed}"
            );
        } else if request.watches {
            self.armed.insert(node.clone(), version);
        }
        Ok(())
    }

    /// Breaks the connection without a word.
    pub fn drop_connection(&mut self) {
        self.socket = None;
    }

    /// Goes on at another member, trying until `deadline`.
    ///
    /// # Errors
    /// When the session was lost though it could have been resumed, or no member answers.
    pub async fn resume(&mut self, deadline: Instant) -> Result<Resumed> {
        self.socket = None;
        self.at += 1;
        self.connect(deadline).await
    }

    async fn connect(&mut self, deadline: Instant) -> Result<Resumed> {
        loop {
            for _ in 0..self.members.len() {
                // One that does not answer has no quorum, or is not there.
                let shaken = tokio::time::timeout(CONNECT_DEADLINE, self.shake_hands()).await;
                if let Ok(Ok(outcome)) = shaken {
                    if outcome == Resumed::Over {
                        self.check_rightly_over()?;
                        return Ok(outcome);
                    }
                    if self.watch_again().await? {
                        return Ok(outcome);
                    }
                }
                self.socket = None;
                self.at += 1;
            }
            ensure!(Instant::now() < deadline, "no member takes the session");
            tokio::time::sleep(BACKOFF).await;
        }
    }

    async fn shake_hands(&mut self) -> Result<Resumed> {
        let member = self.members[self.at % self.members.len()];
        let sent_at = Instant::now();
        let Some((key, socket)) = wire::shake_hands(member, &self.key, self.zxid).await? else {
            return Ok(Resumed::Over);
        };
        self.key = key;
        self.alive_at = sent_at;
        self.socket = Some(socket);
        Ok(Resumed::GoesOn)
    }

    /// A session may end when its client was silent for its whole timeout, and not before.
    fn check_rightly_over(&self) -> Result<()> {
        let silent = self.alive_at.elapsed();
        ensure!(
            silent + TELLING >= self.key.timeout,
            "session {:#x} is over after {silent:?} of silence, though it has {:?}",
            self.key.id,
            self.key.timeout
        );
        Ok(())
    }

    /// Sets the watches again that have not fired; what they missed comes before the reply. False
    /// when the connection breaks meanwhile.
    async fn watch_again(&mut self) -> Result<bool> {
        let Some(mut socket) = self.socket.take() else {
            bail!("there is no connection");
        };
        if !self.armed.is_empty() {
            let nodes: Vec<_> = self.armed.keys().cloned().collect();
            let request = Request::set_watches(self.zxid, &nodes);
            let bytes = request.frame(SET_WATCHES_XID);
            if socket.write_all(&bytes).await.is_err() {
                return Ok(false);
            }
            let reply = self.reply(&mut socket, SET_WATCHES_XID).await?;
            if reply.is_none() {
                return Ok(false);
            }
        }
        self.socket = Some(socket);
        Ok(true)
    }
}
