//! Clients of etcd v2: sets, updates and creates, with and without a time to live, comparisons of
//! values and indexes for writes and deletes, and gets, through a quorum and not.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde_json::Value as Json;

use super::history::{
    Action, Answer, Ask, Bind, Found, Guard, Key, Moment, Shown, Value, WaitEvent, parse,
};
use super::shared::{
    Client, Notes, PARENT, Protocol, Shared, any_lock, any_register, chance, key_at, path,
    something, text, write,
};
use crate::rounds::{BACKOFF, CALL_DEADLINE};
use crate::script::http;

/// The least time to live there is.
const TTL_S: u64 = 1;

/// etcd v2's errors that say what a key held.
mod error {
    pub const NOT_FOUND: u64 = 100;
    pub const COMPARE_FAILED: u64 = 101;
    pub const EXISTS: u64 = 105;
}

struct Worker {
    client: Client,
    /// The lock that it keeps, and its latest value.
    hold: Option<(Key, Value)>,
}

/// What a member answers.
struct Reply {
    index: u64,
    body: Json,
}

/// Works until the end, and hands over what was noted.
///
/// # Errors
/// When an answer makes no sense.
pub async fn work(shared: Arc<Shared>, id: u32) -> Result<Notes> {
    let mut worker = Worker {
        client: Client::new(&shared, Protocol::EtcdV2, id),
        hold: None,
    };
    while worker.client.goes_on().await {
        worker.step().await?;
    }
    Ok(worker.client.notes)
}

impl Worker {
    async fn step(&mut self) -> Result<()> {
        if let Some((key, value)) = self.hold.take() {
            self.keep(key, value).await?;
        }
        let key = any_register();
        match chance(14) {
            0 | 1 => self.write(key, Guard::Always, "", None).await.map(drop),
            2 => {
                let ttl_s = Some(TTL_S);
                self.write(key, Guard::Always, "", ttl_s).await.map(drop)
            }
            3 => {
                let present = "&prevExist=true";
                self.write(key, Guard::Present, present, None)
                    .await
                    .map(drop)
            }
            4 => {
                let absent = "&prevExist=false";
                self.write(key, Guard::Absent, absent, None).await.map(drop)
            }
            5..=7 => self.swap(key).await,
            8 => self.compare_and_delete(key).await,
            9 => self.delete(key, Guard::Present, "").await,
            10 => self.read(any_lock(), true).await.map(drop),
            11 | 12 => self.read(key, chance(2) == 0).await.map(drop),
            _ => self.lock().await,
        }
    }

    /// Writes a fresh value, whatever `condition` says of it in the form; whether it is known to
    /// have been done, and then the value.
    async fn write(
        &mut self,
        key: Key,
        guard: Guard,
        condition: &str,
        ttl_s: Option<u64>,
    ) -> Result<Option<Value>> {
        let value = self.client.fresh_value();
        let ask = write(
            value,
            guard,
            Bind::Time(ttl_s.map(|ttl_s| ttl_s * 1_000_000)),
        );
        let ttl = ttl_s.map_or(String::new(), |ttl_s| format!("&ttl={ttl_s}"));
        let form = format!("value={}{condition}{ttl}", text(value));
        let done = self.ask("PUT", key, ask, "", &form).await?;
        Ok(done.then_some(value))
    }

    async fn delete(&mut self, key: Key, guard: Guard, query: &str) -> Result<()> {
        let ask = Ask::Delete { guard };
        self.ask("DELETE", key, ask, query, "").await.map(drop)
    }

    /// Reads a key; answers what it holds, and the index of that.
    async fn read(&mut self, key: Key, fresh: bool) -> Result<Option<(Value, u64)>> {
        let began_us = self.client.shared.now_us();
        let (ask, query) = if fresh {
            (Ask::Read, "?quorum=true")
        } else {
            (Ask::ReadLate, "")
        };
        let Some(reply) = self.call("GET", &path(key), query, "").await? else {
            return Ok(None);
        };
        let found = match code(&reply.body) {
            Some(error::NOT_FOUND) => Found::Nothing,
            Some(_) => return Ok(None),
            None => found(&reply.body["node"])?,
        };
        let at = Moment::Index(reply.index);
        self.client
            .note(key, began_us, ask, Some((at, Answer::Found(found))));
        let Found::Entry(shown) = found else {
            return Ok(None);
        };
        Ok(shown.value.zip(shown.index))
    }

    /// Writes a key if it is as it was just read, by value or by index.
    async fn swap(&mut self, key: Key) -> Result<()> {
        let Some((value, index)) = self.read(key, true).await? else {
            return Ok(());
        };
        let condition = compare(value, index);
        let ttl_s = (chance(3) == 0).then_some(TTL_S);
        let guard = Guard::Holds(value);
        self.write(key, guard, &format!("&{condition}"), ttl_s)
            .await
            .map(drop)
    }

    async fn compare_and_delete(&mut self, key: Key) -> Result<()> {
        let Some((value, index)) = self.read(key, true).await? else {
            return Ok(());
        };
        let query = format!("?{}", compare(value, index));
        self.delete(key, Guard::Holds(value), &query).await
    }

    /// Creates a lock for a time, if nobody has it and this client has none.
    async fn lock(&mut self) -> Result<()> {
        if self.hold.is_none() {
            let key = any_lock();
            let absent = "&prevExist=false";
            let value = self.write(key, Guard::Absent, absent, Some(TTL_S)).await?;
            self.hold = value.map(|value| (key, value));
        }
        Ok(())
    }

    /// Keeps a lock for a while, and then gives it back or forgets it.
    async fn keep(&mut self, key: Key, value: Value) -> Result<()> {
        let own = format!("prevValue={}", text(value));
        match chance(60) {
            0 => {}
            1 => {
                self.delete(key, Guard::Holds(value), &format!("?{own}"))
                    .await?
            }
            2..=5 => {
                let guard = Guard::Holds(value);
                let kept = self
                    .write(key, guard, &format!("&{own}"), Some(TTL_S))
                    .await?;
                self.hold = kept.map(|value| (key, value));
            }
            _ => self.hold = Some((key, value)),
        }
        Ok(())
    }

    /// Asks for a change, and notes it; whether it is known to have been done.
    async fn ask(
        &mut self,
        method: &str,
        key: Key,
        ask: Ask,
        query: &str,
        form: &str,
    ) -> Result<bool> {
        let began_us = self.client.shared.now_us();
        let reply = self.call(method, &path(key), query, form).await?;
        let answer = match reply {
            None => None,
            Some(reply) => answer(&reply)?,
        };
        self.client.note(key, began_us, ask, answer);
        Ok(matches!(answer, Some((_, Answer::Done { .. }))))
    }

    /// A member's answer, if it gives one.
    async fn call(
        &mut self,
        method: &str,
        path: &str,
        query: &str,
        form: &str,
    ) -> Result<Option<Reply>> {
        let port = self.client.member().await.port;
        let reply = ask_member(port, method, path, query, form);
        let answered = tokio::time::timeout(CALL_DEADLINE, reply).await;
        let reply = answered.ok().and_then(Result::ok);
        self.client.note_member(reply.is_some());
        if reply.is_none() {
            tokio::time::sleep(BACKOFF).await;
        }
        Ok(reply)
    }
}

async fn ask_member(port: u16, method: &str, path: &str, query: &str, form: &str) -> Result<Reply> {
    let path = format!("/v2/keys{path}{query}");
    let typed = ["Content-Type: application/x-www-form-urlencoded".to_owned()];
    let host = format!("127.0.0.1:{port}");
    let request = http::request(method, &path, &host, &typed, form.as_bytes());
    let mut answer = http::Answer::to(port, &request).await?;
    let index = answer.header("x-etcd-index").map(str::parse);
    let body: Json = serde_json::from_slice(&answer.body().await?)?;
    let index = index.context("no index")??;
    Ok(Reply { index, body })
}

/// etcd v2's index, as a member that a quorum has confirmed counts it, and whether anything is bound
/// to a time.
///
/// # Errors
/// When it does not answer.
pub async fn survey(port: u16) -> Result<(u64, bool)> {
    let reply = ask_member(port, "GET", PARENT, "?quorum=true&recursive=true", "").await?;
    let nodes = reply.body["node"]["nodes"].as_array();
    let timed = nodes.is_some_and(|nodes| nodes.iter().any(|node| !node["ttl"].is_null()));
    Ok((reply.index, timed))
}

/// That a key is as it was read.
fn compare(value: Value, index: u64) -> String {
    match chance(2) {
        0 => format!("prevValue={}", text(value)),
        _ => format!("prevIndex={index}"),
    }
}

fn code(body: &Json) -> Option<u64> {
    body["errorCode"].as_u64()
}

/// What was answered to a change; nothing if that does not say whether it was done.
fn answer(reply: &Reply) -> Result<Option<(Moment, Answer)>> {
    let at = Moment::Index(reply.index);
    let refused = |found| Some((at, Answer::Refused(found)));
    Ok(match code(&reply.body) {
        None => {
            let before = found(&reply.body["prevNode"])?;
            let now = found(&reply.body["node"])?;
            Some((at, Answer::Done { before, now }))
        }
        Some(error::NOT_FOUND) => refused(Found::Nothing),
        Some(error::COMPARE_FAILED | error::EXISTS) => refused(something()),
        Some(_) => None,
    })
}

/// A node as an answer shows it.
fn found(node: &Json) -> Result<Found> {
    // That of a deletion has no value.
    let Some(value) = node["value"].as_str() else {
        return Ok(Found::Nothing);
    };
    Ok(Found::Entry(Shown {
        value: Some(parse(value.as_bytes())?),
        index: Some(node["modifiedIndex"].as_u64().context("no index")?),
        ..Shown::default()
    }))
}

/// Reads an event that somebody waited for.
///
/// # Errors
/// When it is none.
pub fn event(line: &[u8]) -> Result<WaitEvent> {
    let event: Json = serde_json::from_slice(line)?;
    let node = &event["node"];
    let action = match event["action"].as_str().context("no action")? {
        "set" | "create" | "update" | "compareAndSwap" => Action::Written,
        "delete" | "compareAndDelete" => Action::Deleted,
        "expire" => Action::Expired,
        other => bail!("the action is {other:?}"),
    };
    let value = |node: &Json| {
        node["value"]
            .as_str()
            .map(|text| parse(text.as_bytes()))
            .transpose()
    };
    Ok(WaitEvent {
        index: node["modifiedIndex"].as_u64().context("no index")?,
        key: key_at(node["key"].as_str().context("no key")?)?,
        action,
        value: value(node)?,
        previous: value(&event["prevNode"])?,
    })
}
