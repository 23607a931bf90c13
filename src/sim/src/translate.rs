//! Between the checkers' numbers and the keyspace's bytes.

use bytes::Bytes;
use checker::kv::{self, Answer, Guard, Op, Reply, Request, Response, Txn};
use checker::watch::Event;
use keyspace::command::{Delete, Filter, Grant, Guard as KeyGuard, Put, Range, Relation, Test};
use keyspace::{Change, Command, End, Entry, LeaseId, Outcome, Principal, Refusal, Revision, Span};
use replica::Answered;

/// The node that all keys are beneath.
pub const KEYS_PATH: &[u8] = b"/key";

/// The key that a node's path is, if it is one.
pub fn key_of(path: &[u8]) -> Option<kv::Key> {
    let beneath = path.strip_prefix(KEYS_PATH)?.starts_with(b"/");
    beneath.then(|| number(path, "/key/"))
}

/// What a run holds of a key's name, so that the order of names is the order of numbers.
pub fn key_bytes(key: kv::Key) -> Bytes {
    Bytes::from(format!("/key/{key:05}"))
}

fn value_bytes(value: kv::Value) -> Bytes {
    Bytes::from(format!("value {value}"))
}

/// The number in a name that this module made; a keyspace that gives out others is broken.
fn number<T: std::str::FromStr>(bytes: &[u8], prefix: &str) -> T {
    let text = std::str::from_utf8(bytes).ok();
    let digits = text.and_then(|text| text.strip_prefix(prefix));
    digits
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("a key or value that nobody wrote: {bytes:?}"))
}

/// A span of keys.
pub fn span(keys: &std::ops::Range<kv::Key>) -> Span {
    if keys.len() == 1 {
        return Span::single(key_bytes(keys.start));
    }
    Span {
        start: key_bytes(keys.start),
        end: End::Before(key_bytes(keys.end)),
    }
}

/// A read of a span, newest or as of a revision.
pub fn range(keys: &std::ops::Range<kv::Key>, revision: Option<u64>) -> Range {
    Range {
        span: span(keys),
        revision: revision.map(Revision),
        limit: 0,
        sort: None,
        filter: Filter::default(),
        count_only: false,
    }
}

/// A request as the log carries it; `ttl_ms` is for a grant.
pub fn command(request: &Request, ttl_ms: u64) -> Command {
    match request {
        Request::Txn(asked) => Command::Txn(txn(asked)),
        Request::Compact(revision) => Command::Compact(Revision(*revision)),
        Request::Grant(lease) => Command::Grant(Grant {
            lease: LeaseId(*lease),
            ttl_ms,
            session: None,
        }),
        Request::End(lease) => Command::Revoke(LeaseId(*lease), Principal::System),
    }
}

/// A transaction as the keyspace takes it.
pub fn txn(asked: &Txn) -> keyspace::command::Txn {
    keyspace::command::Txn {
        guards: asked.guards.iter().map(guard).collect(),
        then: asked.then.iter().map(op).collect(),
        otherwise: asked.otherwise.iter().map(op).collect(),
        principal: Principal::System,
    }
}

fn guard(asked: &Guard) -> KeyGuard {
    let figure = |figure: u64| i64::try_from(figure).expect("revisions are small here");
    let (key, test) = match *asked {
        Guard::Modified(key, revision) => (key, Test::Modified(figure(revision))),
        Guard::Version(key, version) => (key, Test::Version(figure(version))),
        Guard::Value(key, value) => (key, Test::Value(value_bytes(value))),
    };
    KeyGuard {
        span: Span::single(key_bytes(key)),
        test,
        relation: Relation::Equal,
    }
}

fn op(asked: &Op) -> keyspace::command::Op {
    match asked {
        Op::Put(key, value, lease) => keyspace::command::Op::Put(Put {
            key: key_bytes(*key),
            value: Some(value_bytes(*value)),
            lease: Some(LeaseId(*lease)),
            want_previous: true,
        }),
        Op::Read(keys) => keyspace::command::Op::Range(range(keys, None)),
        Op::Delete(keys) => keyspace::command::Op::Delete(Delete {
            span: span(keys),
            want_previous: true,
        }),
    }
}

/// What came of a request. An answer of the wrong kind is a defect of the keyspace: it panics.
pub fn response(answered: &Answered) -> Response {
    let reply = match &answered.outcome {
        Ok(Outcome::Txn(outcome)) => txn_reply(outcome),
        Ok(Outcome::Done | Outcome::Ended(_)) => Reply::Done,
        Ok(Outcome::Nodes(_)) => panic!("nothing here addresses nodes"),
        Err(refusal) => refused(refusal),
    };
    Response {
        revision: Some(answered.revision.0),
        reply: Some(reply),
    }
}

/// What a transaction answered.
pub fn txn_reply(outcome: &keyspace::TxnOutcome) -> Reply {
    Reply::Txn {
        succeeded: outcome.succeeded,
        answers: outcome.answers.iter().map(answer).collect(),
    }
}

fn refused(refusal: &Refusal) -> Reply {
    match refusal {
        Refusal::LeaseNotFound(_) => Reply::LeaseNotFound,
        Refusal::LeaseExists(_) => Reply::LeaseExists,
        Refusal::Compacted { .. } => Reply::Compacted,
        Refusal::Future { .. } => Reply::Future,
        Refusal::KeyNotFound
        | Refusal::Alarmed(_)
        | Refusal::Denied
        | Refusal::Unnamed
        | Refusal::Outdated
        | Refusal::Auth(_)
        | Refusal::Moved
        | Refusal::OutOfTurn
        | Refusal::Node { .. } => {
            panic!("nothing here is refused for that: {refusal}")
        }
    }
}

fn answer(answer: &keyspace::Answer) -> Answer {
    match answer {
        keyspace::Answer::Put(before) => Answer::Put(before.as_ref().map(|e| entry(e).1)),
        keyspace::Answer::Range(found) => {
            assert_eq!(
                found.count,
                found.entries.len() as u64,
                "a count of its own"
            );
            Answer::Read(entries(&found.entries))
        }
        keyspace::Answer::Delete { deleted, previous } => {
            assert_eq!(*deleted, previous.len() as u64, "a count of its own");
            Answer::Delete(entries(previous))
        }
        keyspace::Answer::Txn(_) => panic!("no transaction here holds another"),
    }
}

/// Entries in the checkers' words.
pub fn entries(found: &[Entry]) -> Vec<(kv::Key, kv::Entry)> {
    found.iter().map(entry).collect()
}

fn entry(found: &Entry) -> (kv::Key, kv::Entry) {
    let entry = kv::Entry {
        value: number(found.value(), "value "),
        created: found.created().0,
        modified: found.modified().0,
        version: found.version(),
        lease: found.lease().0,
    };
    (number(found.key(), "/key/"), entry)
}

/// A change as an event with its previous entry.
pub fn event(change: &Change) -> Event {
    let now = &change.entry;
    Event {
        revision: now.modified().0,
        key: number(now.key(), "/key/"),
        now: (!now.is_tombstone()).then(|| entry(now).1),
        previous: change.previous.as_ref().map(|e| entry(e).1),
    }
}
