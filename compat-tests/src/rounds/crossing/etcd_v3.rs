//! Clients of etcd v3: puts, deletes, transactions that compare values and revisions, leases that are
//! kept alive, revoked or left alone, and ranges, linearizable and not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use proto::mvccpb::KeyValue;

use super::history::{
    Answer, Ask, Bind, Found, Guard, Key, Lease, Life, Moment, Shown, Value, parse,
};
use super::shared::{
    Client, Member, Notes, Protocol, Shared, any_lock, any_register, chance, path, text, write,
};
use crate::rounds::{BACKOFF, CALL_DEADLINE};

/// The least that etcd grants.
const TTL_S: i64 = 2;
/// How often a lease is kept alive.
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// The clocks of two processes on one machine, and of their timers, differ by less.
const TOLERANCE_US: u64 = 50_000;

/// A lock, as long as it is kept.
struct Hold {
    key: Key,
    value: Value,
    lease: Lease,
    kept_at: Instant,
}

struct Worker {
    client: Client,
    hold: Option<Hold>,
}

/// Works until the end, and hands over what was noted.
///
/// # Errors
/// When an answer makes no sense.
pub async fn work(shared: Arc<Shared>, id: u32) -> Result<Notes> {
    let mut worker = Worker {
        client: Client::new(&shared, Protocol::EtcdV3, id),
        hold: None,
    };
    while worker.client.goes_on().await {
        worker.step().await?;
    }
    Ok(worker.client.notes)
}

impl Worker {
    async fn step(&mut self) -> Result<()> {
        if let Some(hold) = self.hold.take() {
            self.keep(hold).await?;
        }
        let key = any_register();
        match chance(12) {
            0..=2 => self.put(key).await,
            3 => self.delete(key).await,
            4 => self.swap(key, false).await,
            5 | 6 => self.swap(key, true).await,
            7 => self.swap_another(key).await,
            8 => self.compare_and_delete(key).await,
            9 => self.read(any_lock(), true).await.map(drop),
            10 => self.read(key, chance(2) == 0).await.map(drop),
            _ => self.lock().await,
        }
    }

    /// The answer to a call, unless it fails; a call that fails may have been done.
    async fn call<T, F>(&mut self, call: impl FnOnce(Member) -> F) -> Option<T>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let member = self.client.member().await;
        let answered = tokio::time::timeout(CALL_DEADLINE, call(member)).await;
        let answer = answered.ok().and_then(Result::ok);
        self.client.note_member(answer.is_some());
        if answer.is_none() {
            tokio::time::sleep(BACKOFF).await;
        }
        answer.map(tonic::Response::into_inner)
    }

    async fn put(&mut self, key: Key) -> Result<()> {
        let value = self.client.fresh_value();
        let began_us = self.client.shared.now_us();
        let ask = write(value, Guard::Always, Bind::Lease(0));
        let put = put(key, value, 0);
        let call = |m: Member| async move { KvClient::new(m.channel).put(put).await };
        let answer = self.call(call).await.map(|reply| {
            let revision = reply.header.map_or(0, |header| header.revision);
            anyhow::Ok(done(revision, found(reply.prev_kv.as_ref())?, Some(value)))
        });
        self.client.note(key, began_us, ask, answer.transpose()?);
        Ok(())
    }

    async fn delete(&mut self, key: Key) -> Result<()> {
        let began_us = self.client.shared.now_us();
        let ask = Ask::Delete {
            guard: Guard::Always,
        };
        let delete = delete(key);
        let call = |m: Member| async move { KvClient::new(m.channel).delete_range(delete).await };
        let answer = self.call(call).await.map(|reply| {
            let revision = reply.header.map_or(0, |header| header.revision);
            anyhow::Ok(done(revision, found(reply.prev_kvs.first())?, None))
        });
        self.client.note(key, began_us, ask, answer.transpose()?);
        Ok(())
    }

    /// Reads a key; answers its pair.
    async fn read(&mut self, key: Key, fresh: bool) -> Result<Option<KeyValue>> {
        let began_us = self.client.shared.now_us();
        let ask = if fresh { Ask::Read } else { Ask::ReadLate };
        let range = RangeRequest {
            key: path(key).into(),
            serializable: !fresh,
            ..Default::default()
        };
        let call = |m: Member| async move { KvClient::new(m.channel).range(range).await };
        let Some(reply) = self.call(call).await else {
            return Ok(None);
        };
        let pair = reply.kvs.into_iter().next();
        let at = at(reply.header.map_or(0, |header| header.revision));
        let answer = Answer::Found(found(pair.as_ref())?);
        self.client.note(key, began_us, ask, Some((at, answer)));
        Ok(pair)
    }

    /// Puts a key if it is as it was just read, by value or by revision.
    async fn swap(&mut self, key: Key, by_revision: bool) -> Result<()> {
        let Some(pair) = self.read(key, true).await? else {
            return Ok(());
        };
        let guard = Guard::Holds(parse(&pair.value)?);
        let value = self.client.fresh_value();
        let ask = write(value, guard, Bind::Lease(0));
        let compare = compare(&pair, by_revision);
        self.transact(compare, &[(key, ask)], put(key, value, 0).into())
            .await
            .map(drop)
    }

    /// Deletes a key if it is as it was just read.
    async fn compare_and_delete(&mut self, key: Key) -> Result<()> {
        let Some(pair) = self.read(key, true).await? else {
            return Ok(());
        };
        let guard = Guard::Holds(parse(&pair.value)?);
        let ask = Ask::Delete { guard };
        self.transact(compare(&pair, true), &[(key, ask)], delete(key).into())
            .await
            .map(drop)
    }

    /// Puts another key as well if the first is as it was just read.
    async fn swap_another(&mut self, key: Key) -> Result<()> {
        let Some(pair) = self.read(key, true).await? else {
            return Ok(());
        };
        let another = (key + 1) % super::shared::REGISTERS;
        let guard = Guard::Holds(parse(&pair.value)?);
        let (one, two) = (self.client.fresh_value(), self.client.fresh_value());
        let asks = [
            (key, write(one, guard, Bind::Lease(0))),
            (another, write(two, Guard::Always, Bind::Lease(0))),
        ];
        let mut puts: Puts = put(key, one, 0).into();
        puts.0.extend(Puts::from(put(another, two, 0)).0);
        self.transact(compare(&pair, true), &asks, puts)
            .await
            .map(drop)
    }

    /// A transaction whose condition is on the first of the keys, and what each is asked; whether it
    /// is known to have been done.
    async fn transact(
        &mut self,
        compare: Compare,
        asks: &[(Key, Ask)],
        then: Puts,
    ) -> Result<bool> {
        let began_us = self.client.shared.now_us();
        let otherwise = RangeRequest {
            key: path(asks[0].0).into(),
            ..Default::default()
        };
        let txn = TxnRequest {
            compare: vec![compare],
            success: then.0,
            failure: vec![RequestOp {
                request: Some(Request::RequestRange(otherwise)),
            }],
        };
        let call = |m: Member| async move { KvClient::new(m.channel).txn(txn).await };
        let Some(reply) = self.call(call).await else {
            for (key, ask) in asks {
                self.client.note(*key, began_us, *ask, None);
            }
            return Ok(false);
        };
        let revision = reply.header.as_ref().map_or(0, |header| header.revision);
        if !reply.succeeded {
            let answer = (at(revision), Answer::Refused(answers(&reply)?[0]));
            let (key, ask) = asks[0];
            self.client.note(key, began_us, ask, Some(answer));
            return Ok(false);
        }
        for ((key, ask), before) in asks.iter().zip(answers(&reply)?) {
            let answer = done(revision, before, ask.value());
            self.client.note(*key, began_us, *ask, Some(answer));
        }
        Ok(true)
    }

    /// Creates a lock under a lease, if nobody has it and this client has none.
    async fn lock(&mut self) -> Result<()> {
        if self.hold.is_some() {
            return Ok(());
        }
        let key = any_lock();
        let Some(lease) = self.grant().await else {
            return Ok(());
        };
        let value = self.client.fresh_value();
        let ask = write(value, Guard::Absent, Bind::Lease(lease));
        let absent = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: path(key).into(),
            target_union: Some(TargetUnion::CreateRevision(0)),
            ..Default::default()
        };
        let then = put(key, value, lease).into();
        if self.transact(absent, &[(key, ask)], then).await? {
            let kept_at = Instant::now();
            self.hold = Some(Hold {
                key,
                value,
                lease,
                kept_at,
            });
            return Ok(());
        }
        self.revoke(lease).await;
        Ok(())
    }

    /// Keeps a lock for a while, and then gives it back or forgets it.
    async fn keep(&mut self, mut hold: Hold) -> Result<()> {
        match chance(120) {
            0 => return Ok(()),
            1 => {
                self.revoke(hold.lease).await;
                return Ok(());
            }
            2 => {
                let own = Compare {
                    result: CompareResult::Equal.into(),
                    target: CompareTarget::Value.into(),
                    key: path(hold.key).into(),
                    target_union: Some(TargetUnion::Value(text(hold.value).into())),
                    ..Default::default()
                };
                let ask = Ask::Delete {
                    guard: Guard::Holds(hold.value),
                };
                let then = delete(hold.key).into();
                return self.transact(own, &[(hold.key, ask)], then).await.map(drop);
            }
            _ => {}
        }
        if hold.kept_at.elapsed() >= KEEP_ALIVE {
            hold.kept_at = Instant::now();
            if !self.keep_alive(hold.lease).await {
                return Ok(());
            }
        }
        self.hold = Some(hold);
        Ok(())
    }

    async fn grant(&mut self) -> Option<Lease> {
        let began_us = self.client.shared.now_us();
        let grant = LeaseGrantRequest { ttl: TTL_S, id: 0 };
        let call = |m: Member| async move { LeaseClient::new(m.channel).lease_grant(grant).await };
        let reply = self.call(call).await?;
        self.client.notes.lives.push(Life {
            lease: reply.id,
            ttl_us: u64::try_from(reply.ttl).unwrap_or(0) * 1_000_000,
            alive_us: began_us,
            tolerance_us: TOLERANCE_US,
            ended_us: None,
        });
        Some(reply.id)
    }

    /// Whether the lease lives on; where nobody answers, that is not known, and it is given up.
    async fn keep_alive(&mut self, lease: Lease) -> bool {
        let sent_us = self.client.shared.now_us();
        let requests = tokio_stream::iter([LeaseKeepAliveRequest { id: lease }]);
        let call = |m: Member| async move {
            let mut client = LeaseClient::new(m.channel);
            let mut replies = client.lease_keep_alive(requests).await?.into_inner();
            Ok(tonic::Response::new(replies.message().await?))
        };
        let reply = self.call(call).await.flatten();
        let lives = reply.is_some_and(|reply| reply.ttl > 0);
        if let Some(life) = self.client.life().filter(|_| lives) {
            life.alive_us = sent_us;
        }
        lives
    }

    async fn revoke(&mut self, lease: Lease) {
        let began_us = self.client.shared.now_us();
        let revoke = LeaseRevokeRequest { id: lease };
        let call =
            |m: Member| async move { LeaseClient::new(m.channel).lease_revoke(revoke).await };
        if self.call(call).await.is_some() {
            let ended_us = self.client.shared.now_us();
            let life = self.client.life().expect("it was granted");
            life.ended_us = Some((began_us, ended_us));
        }
    }
}

/// The steps of a transaction.
struct Puts(Vec<RequestOp>);

impl From<PutRequest> for Puts {
    fn from(put: PutRequest) -> Self {
        Self(vec![RequestOp {
            request: Some(Request::RequestPut(put)),
        }])
    }
}

impl From<DeleteRangeRequest> for Puts {
    fn from(delete: DeleteRangeRequest) -> Self {
        Self(vec![RequestOp {
            request: Some(Request::RequestDeleteRange(delete)),
        }])
    }
}

fn put(key: Key, value: Value, lease: Lease) -> PutRequest {
    PutRequest {
        key: path(key).into(),
        value: text(value).into(),
        lease,
        prev_kv: true,
        ..Default::default()
    }
}

fn delete(key: Key) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: path(key).into(),
        prev_kv: true,
        ..Default::default()
    }
}

/// That a key is as it was read.
fn compare(pair: &KeyValue, by_revision: bool) -> Compare {
    let (target, union) = if by_revision {
        (
            CompareTarget::Mod,
            TargetUnion::ModRevision(pair.mod_revision),
        )
    } else {
        (CompareTarget::Value, TargetUnion::Value(pair.value.clone()))
    };
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: pair.key.clone(),
        target_union: Some(union),
        ..Default::default()
    }
}

/// What each step of a transaction found.
fn answers(reply: &TxnResponse) -> Result<Vec<Found>> {
    let responses = reply.responses.iter();
    responses
        .map(
            |step| match step.response.as_ref().context("an empty answer")? {
                Response::ResponseRange(range) => found(range.kvs.first()),
                Response::ResponsePut(put) => found(put.prev_kv.as_ref()),
                Response::ResponseDeleteRange(delete) => found(delete.prev_kvs.first()),
                Response::ResponseTxn(_) => anyhow::bail!("there was no transaction within"),
            },
        )
        .collect()
}

fn found(pair: Option<&KeyValue>) -> Result<Found> {
    let Some(pair) = pair else {
        return Ok(Found::Nothing);
    };
    Ok(Found::Entry(Shown {
        value: Some(parse(&pair.value)?),
        created: Some(pair.create_revision.cast_unsigned()),
        modified: Some(pair.mod_revision.cast_unsigned()),
        version: Some(pair.version.cast_unsigned()),
        lease: Some(pair.lease),
        index: None,
    }))
}

fn at(revision: i64) -> Moment {
    Moment::Revision(revision.cast_unsigned())
}

/// What was there before, and the value that is there now.
fn done(revision: i64, before: Found, value: Option<Value>) -> (Moment, Answer) {
    let now = value.map_or(Found::Nothing, |value| {
        Found::Entry(Shown {
            value: Some(value),
            ..Shown::default()
        })
    });
    (at(revision), Answer::Done { before, now })
}
