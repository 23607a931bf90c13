//! Sessions of ZooKeeper's protocol: creates, ephemeral or not, sets and deletes with and without a
//! version, multis with a check, reads behind a sync, and watches that are told once or always. Their
//! connections break, and they go on, close, or vanish.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::history::{
    Answer, Ask, Bind, Found, Guard, Happening, Key, Life, Line, Moment, Shown, parse,
};
use super::shared::{
    Client, Notes, PARENT, Protocol, Shared, any_lock, any_register, chance, key_at, micros, path,
    something, text, write,
};
use crate::rounds::zookeeper::TELLING;
use crate::rounds::zookeeper::wire::{
    self, Event, Frame, Reply, Request, SET_WATCHES_XID, error, shake_hands,
};
use crate::rounds::{BACKOFF, CONNECT_DEADLINE, REPLY_DEADLINE, SERVE_DEADLINE};

/// What a session asks for.
const TIMEOUT_MS: u32 = 4_000;
/// One in so many steps ends the session.
const STEPS_TO_END: u32 = 120;

struct Worker {
    client: Client,
    key: wire::Key,
    socket: Option<TcpStream>,
    xid: i32,
    /// The newest state it has been shown.
    zxid: i64,
    /// Keys with a watch that is told once, and whether they were there when it was set.
    armed: BTreeSet<(Key, bool)>,
    /// Whether it watches all keys always.
    watches_all: bool,
    lines: Vec<Line>,
    /// The lock that it keeps.
    hold: Option<Key>,
}

/// Works until the end, and hands over what was noted.
///
/// # Errors
/// When an answer makes no sense, or the session is lost though it could have been resumed.
pub async fn work(shared: Arc<Shared>, id: u32) -> Result<Notes> {
    let mut worker = Worker {
        client: Client::new(&shared, Protocol::Zookeeper, id),
        key: wire::Key::fresh(TIMEOUT_MS),
        socket: None,
        xid: 0,
        zxid: 0,
        armed: BTreeSet::new(),
        watches_all: false,
        lines: Vec::new(),
        hold: None,
    };
    worker.connect().await?;
    while worker.client.goes_on().await {
        worker.step().await?;
        if worker.socket.is_none() {
            worker.connect().await?;
        }
    }
    // What it still has to be told comes before this.
    while worker.read(any_register()).await?.is_none() {
        worker.connect().await?;
    }
    worker.finish_lines();
    Ok(worker.client.notes)
}

impl Worker {
    async fn step(&mut self) -> Result<()> {
        match chance(STEPS_TO_END) {
            // The client dies: its session ends some time after, and its ephemeral nodes with it.
            0 => return self.begin_anew().await,
            1 => return self.close().await,
            _ => {}
        }
        if let Some(key) = self.hold.filter(|_| chance(60) == 0) {
            self.hold = None;
            return self.delete(key, -1).await;
        }
        let key = any_register();
        match chance(14) {
            0 | 1 => self.set(key, -1).await,
            2 | 3 => self.compare_and_set(key).await,
            4 | 5 => self.create(key, chance(2) == 0).await.map(drop),
            6 => self.compare_and_delete(key).await,
            7 => self.delete(key, -1).await,
            8 => self.set_another(key).await,
            9 => self.read(key).await.map(drop),
            10 | 11 => self.watch(any_of_all(), chance(2) == 0).await,
            12 => self.read(any_lock()).await.map(drop),
            _ => self.lock().await,
        }
    }

    async fn set(&mut self, key: Key, version: i32) -> Result<()> {
        let value = self.client.fresh_value();
        let ask = write(value, guard(version), Bind::Stay);
        let request = Request::set(&path(key), &text(value), version);
        self.change(key, ask, &request).await.map(drop)
    }

    /// Whether it was created.
    async fn create(&mut self, key: Key, ephemeral: bool) -> Result<bool> {
        let value = self.client.fresh_value();
        let lease = if ephemeral { self.key.id } else { 0 };
        let ask = write(value, Guard::Absent, Bind::Lease(lease));
        let request = Request::create(&path(key), &text(value), i32::from(ephemeral));
        self.change(key, ask, &request).await
    }

    async fn delete(&mut self, key: Key, version: i32) -> Result<()> {
        let ask = Ask::Delete {
            guard: guard(version),
        };
        let request = Request::delete_version(&path(key), version);
        self.change(key, ask, &request).await.map(drop)
    }

    async fn compare_and_set(&mut self, key: Key) -> Result<()> {
        match self.read(key).await?.flatten() {
            Some(version) => self.set(key, version).await,
            None => Ok(()),
        }
    }

    async fn compare_and_delete(&mut self, key: Key) -> Result<()> {
        match self.read(key).await?.flatten() {
            Some(version) => self.delete(key, version).await,
            None => Ok(()),
        }
    }

    /// Sets another key if this one has the version that it was just read with.
    async fn set_another(&mut self, key: Key) -> Result<()> {
        let Some(version) = self.read(key).await?.flatten() else {
            return Ok(());
        };
        let another = (key + 1) % super::shared::REGISTERS;
        let value = self.client.fresh_value();
        let multi = Request::multi(&[
            Request::check(&path(key), version),
            Request::set(&path(another), &text(value), -1),
        ]);
        let ask = write(value, Guard::Present, Bind::Stay);
        let began_us = self.client.shared.now_us();
        let Some(reply) = self.ask(&multi).await? else {
            self.client.note(another, began_us, ask, None);
            return Ok(());
        };
        // One that failed does not say of which key that tells.
        if reply.error == 0 && reply.is_done()? {
            let check = Ask::Check {
                guard: guard(version),
            };
            let done = |before| Answer::Done {
                before,
                now: Found::Unsaid,
            };
            let at = at(&reply);
            self.client
                .note(key, began_us, check, Some((at, done(Found::Unsaid))));
            self.client
                .note(another, began_us, ask, Some((at, done(something()))));
        }
        Ok(())
    }

    /// Creates a lock that ends with the session, if nobody has it and this session has none.
    async fn lock(&mut self) -> Result<()> {
        if self.hold.is_none() {
            let key = any_lock();
            self.hold = self.create(key, true).await?.then_some(key);
        }
        Ok(())
    }

    /// Asks for a change, and notes it; whether it is known to have been done.
    async fn change(&mut self, key: Key, ask: Ask, request: &Request) -> Result<bool> {
        let began_us = self.client.shared.now_us();
        let Some(reply) = self.ask(request).await? else {
            self.client.note(key, began_us, ask, None);
            return Ok(false);
        };
        let answer = match reply.error {
            0 => {
                let before = if ask.guard() == Some(Guard::Absent) {
                    Found::Nothing
                } else {
                    something()
                };
                let now = match ask.value() {
                    Some(value) => shown(&reply, Some(value))?,
                    None => Found::Nothing,
                };
                Answer::Done { before, now }
            }
            error::NO_NODE => Answer::Refused(Found::Nothing),
            error::NODE_EXISTS | error::BAD_VERSION => Answer::Refused(something()),
            code => bail!("{ask:?} of key {key}: error {code}"),
        };
        self.client
            .note(key, began_us, ask, Some((at(&reply), answer)));
        Ok(reply.error == 0)
    }

    /// Reads a key behind a sync; answers its version if it is there, or nothing if nobody answers.
    async fn read(&mut self, key: Key) -> Result<Option<Option<i32>>> {
        let began_us = self.client.shared.now_us();
        if self.ask(&Request::sync(&path(key))).await?.is_none() {
            return Ok(None);
        }
        let Some(reply) = self.ask(&Request::get(&path(key), false)).await? else {
            return Ok(None);
        };
        let found = data(&reply)?;
        let answer = (at(&reply), Answer::Found(found));
        self.client.note(key, began_us, Ask::Read, Some(answer));
        Ok(Some(match found {
            Found::Entry(_) => Some(reply.stat()?.version),
            Found::Unsaid | Found::Nothing => None,
        }))
    }

    /// Looks at a key, and sets a watch that is told once; with `exists`, also where nothing is.
    async fn watch(&mut self, key: Key, exists: bool) -> Result<()> {
        let began_us = self.client.shared.now_us();
        let request = match exists {
            true => Request::exists(&path(key), true),
            false => Request::get(&path(key), true),
        };
        let Some(reply) = self.ask(&request).await? else {
            return Ok(());
        };
        let found = match exists {
            true if reply.error == 0 => shown(&reply, None)?,
            true | false => data(&reply)?,
        };
        if exists || reply.error == 0 {
            self.armed.insert((key, reply.error == 0));
            // What came with the reply is told again, as the reply that set the watch.
            self.lines.pop();
            let revision = reply.zxid.cast_unsigned();
            self.lines.push(Line::Armed { key, revision });
        }
        let answer = (at(&reply), Answer::Found(found));
        self.client.note(key, began_us, Ask::ReadLate, Some(answer));
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        let began_us = self.client.shared.now_us();
        if let Some(reply) = self.ask(&Request::close()).await? {
            ensure!(reply.error == 0, "closing a session: {reply:?}");
            let ended_us = self.client.shared.now_us();
            let life = self.client.life().context("it was opened")?;
            life.ended_us = Some((began_us, ended_us));
        }
        self.begin_anew().await
    }

    /// Another session takes this one's place.
    async fn begin_anew(&mut self) -> Result<()> {
        self.finish_lines();
        self.socket = None;
        self.hold = None;
        self.armed.clear();
        self.watches_all = false;
        self.zxid = 0;
        self.key = wire::Key::fresh(TIMEOUT_MS);
        Box::pin(self.connect()).await
    }

    fn finish_lines(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.client.notes.sessions.push(lines);
    }

    /// The reply to a request, noted as shown; none if there is none.
    async fn ask(&mut self, request: &Request) -> Result<Option<Reply>> {
        self.xid += 1;
        let reply = self.exchange(request, self.xid).await?;
        match &reply {
            Some(reply) => {
                let revision = reply.zxid.cast_unsigned();
                self.lines.push(Line::Shown { revision });
            }
            None => self.lines.push(Line::Broke),
        }
        self.client.note_member(reply.is_some());
        Ok(reply)
    }

    /// The reply to a request; none if the connection breaks, or the session is over.
    async fn exchange(&mut self, request: &Request, xid: i32) -> Result<Option<Reply>> {
        let Some(mut socket) = self.socket.take() else {
            return Ok(None);
        };
        let sent_us = self.client.shared.now_us();
        if socket.write_all(&request.frame(xid)).await.is_err() {
            return Ok(None);
        }
        loop {
            let frame = tokio::time::timeout(REPLY_DEADLINE, wire::read(&mut socket)).await;
            let Ok(Ok(frame)) = frame else {
                return Ok(None);
            };
            let reply = match frame {
                Frame::Event(event) => {
                    self.tell(&event)?;
                    continue;
                }
                Frame::Reply(reply) => reply,
            };
            ensure!(reply.xid == xid, "{reply:?} came in place of {xid}");
            self.zxid = self.zxid.max(reply.zxid);
            if [error::SESSION_EXPIRED, error::SESSION_MOVED].contains(&reply.error) {
                return Ok(None);
            }
            let life = self.client.life().context("it was opened")?;
            life.alive_us = sent_us;
            self.socket = Some(socket);
            return Ok(Some(reply));
        }
    }

    fn tell(&mut self, event: &Event) -> Result<()> {
        let what = match event.kind {
            1 => Happening::Created,
            2 => Happening::Deleted,
            3 => Happening::Changed,
            kind => bail!("an event of kind {kind}: {event:?}"),
        };
        let key = key_at(&event.path)?;
        self.armed.retain(|(armed, _)| *armed != key);
        self.lines.push(Line::Told {
            key,
            what,
            revision: u64::try_from(event.zxid).ok(),
        });
        Ok(())
    }

    /// Goes on with the session at any member that takes it, or with another one if it is rightly
    /// over; opens one if there is none.
    async fn connect(&mut self) -> Result<()> {
        let deadline = Instant::now() + SERVE_DEADLINE;
        loop {
            ensure!(Instant::now() < deadline, "no member takes the session");
            let member = self.client.member().await;
            let sent_us = self.client.shared.now_us();
            let shaken = shake_hands(member.zookeeper, &self.key, self.zxid);
            let shaken = tokio::time::timeout(CONNECT_DEADLINE, shaken).await;
            match shaken {
                Ok(Ok(Some((key, socket)))) => {
                    let is_new = self.key.id == 0;
                    self.key = key;
                    self.socket = Some(socket);
                    self.note_life(is_new, sent_us)?;
                    if self.set_watches(is_new).await? {
                        return Ok(());
                    }
                    self.socket = None;
                }
                Ok(Ok(None)) => {
                    self.check_rightly_over()?;
                    return self.begin_anew().await;
                }
                Ok(Err(_)) | Err(_) => self.client.note_member(false),
            }
            tokio::time::sleep(BACKOFF).await;
        }
    }

    fn note_life(&mut self, is_new: bool, sent_us: u64) -> Result<()> {
        if is_new {
            self.client.notes.lives.push(Life {
                lease: self.key.id,
                ttl_us: micros(self.key.timeout),
                alive_us: sent_us,
                tolerance_us: micros(TELLING),
                ended_us: None,
            });
            return Ok(());
        }
        let life = self.client.life().context("it was opened")?;
        ensure!(life.lease == self.key.id, "another session goes on");
        life.alive_us = sent_us;
        Ok(())
    }

    /// A session may end when its client was silent for its whole timeout, and not before.
    fn check_rightly_over(&mut self) -> Result<()> {
        let now_us = self.client.shared.now_us();
        let life = self.client.life().context("it was opened")?;
        ensure!(
            now_us + life.tolerance_us >= life.alive_us + life.ttl_us,
            "a session is over at {now_us} us, that should live: {life:?}"
        );
        Ok(())
    }

    /// Sets the watches again that have not fired; half of the sessions begin with one on all keys.
    /// False when the connection breaks meanwhile.
    async fn set_watches(&mut self, is_new: bool) -> Result<bool> {
        if is_new {
            if chance(2) == 0 {
                return Ok(true);
            }
            let Some(reply) = self.ask(&Request::watch_beneath(PARENT)).await? else {
                return Ok(false);
            };
            ensure!(reply.error == 0, "watching all: {reply:?}");
            self.watches_all = true;
            self.lines.pop();
            let revision = reply.zxid.cast_unsigned();
            self.lines.push(Line::ArmedAlways { revision });
            return Ok(true);
        }
        let paths = |there: bool| -> Vec<String> {
            let armed = self
                .armed
                .iter()
                .filter(|(_, was_there)| *was_there == there);
            armed.map(|(key, _)| path(*key)).collect()
        };
        let all: Vec<_> = self
            .watches_all
            .then(|| PARENT.to_owned())
            .into_iter()
            .collect();
        let request = Request::set_all_watches(self.zxid, &paths(true), &paths(false), &all);
        let Some(reply) = self.exchange(&request, SET_WATCHES_XID).await? else {
            return Ok(false);
        };
        ensure!(reply.error == 0, "setting watches again: {reply:?}");
        let revision = reply.zxid.cast_unsigned();
        self.lines.push(Line::Resumed { revision });
        Ok(true)
    }
}

fn any_of_all() -> Key {
    match chance(3) {
        0 => any_lock(),
        _ => any_register(),
    }
}

/// ZooKeeper's version is one less than how often the node was written.
fn guard(version: i32) -> Guard {
    match u64::try_from(version) {
        Ok(version) => Guard::Version(version + 1),
        Err(_) => Guard::Present,
    }
}

fn at(reply: &Reply) -> Moment {
    Moment::Revision(reply.zxid.cast_unsigned())
}

/// What the Stat of a reply says of a node, beside its value if that is known.
fn shown(reply: &Reply, value: Option<super::history::Value>) -> Result<Found> {
    let stat = reply.stat()?;
    Ok(Found::Entry(Shown {
        value,
        created: Some(stat.czxid.cast_unsigned()),
        modified: Some(stat.mzxid.cast_unsigned()),
        version: Some(u64::try_from(stat.version)? + 1),
        lease: Some(stat.owner),
        index: None,
    }))
}

/// What a read found.
fn data(reply: &Reply) -> Result<Found> {
    match reply.error {
        0 => shown(reply, Some(parse(reply.text()?.as_bytes())?)),
        error::NO_NODE => Ok(Found::Nothing),
        code => bail!("reading: error {code}"),
    }
}
