//! The clients' side of the world: asking, being answered, losing patience.

use crate::agenda::Event;
use crate::failure::Failure;
use crate::member::{Answer, Input, Token};
use crate::plant::Plant;
use crate::translate;
use crate::workload::{Call, LocalRead};
use crate::world::World;
use checker::kv::{Op, Reply, Request, Response, Txn};
use keyspace::{LeaseId, Reader, Refusal};
use replica::expiry::Renewal;
use std::ops::Range;

/// How long a client waits for an answer, in microseconds.
const PATIENCE: u64 = 3_000_000;
/// How long it waits for any member to be up.
const ALL_DOWN: u64 = 50_000;

/// One client: it has one request under way at a time.
pub struct Client {
    /// Its number.
    pub id: u32,
    waiting: Option<Waiting>,
}

struct Waiting {
    token: Token,
    member: u64,
    called: u64,
    what: What,
}

enum What {
    /// This place in the history.
    Proposal(usize),
    /// This place in the history, and what is to be read.
    Read(usize, Vec<Range<u32>>),
    /// A keep-alive of this lease.
    KeepAlive(i64),
}

impl Client {
    /// A client that has asked for nothing.
    pub fn new(id: u32) -> Client {
        Client { id, waiting: None }
    }

    /// Whether it waits for an answer.
    pub fn waits(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether it waits for this answer.
    pub fn waits_for(&self, token: u64) -> bool {
        self.waiting.as_ref().is_some_and(|w| w.token.id == token)
    }

    /// What it waits for, if that is at this member.
    pub fn waits_on(&self, member: u64) -> Option<u64> {
        let waiting = self.waiting.as_ref().filter(|w| w.member == member);
        waiting.map(|w| w.token.id)
    }
}

impl World {
    /// A client does something, unless there has been enough.
    pub(crate) fn call(&mut self, client: u32) -> Result<(), Failure> {
        if self.calls >= self.options.ops {
            return Ok(());
        }
        let running = self.running();
        if running.is_empty() {
            self.plan(ALL_DOWN, Event::Call(client));
            return Ok(());
        }
        let at = *self.rng.pick(&running);
        let call = self.workload.next_call();
        self.calls += 1;
        self.ask(client, at, call)
    }

    /// A client asks one member for something.
    pub(crate) fn ask(&mut self, client: u32, at: u64, call: Call) -> Result<(), Failure> {
        self.trace.note(self.now, &[6, u64::from(client), at], || {
            format!("client {client} asks {at}: {call:?}")
        });
        let token = self.token();
        let (what, input, again) = match call {
            Call::ReadHere(span, revision) => {
                self.read_here(at, span, revision)?;
                self.call_again(client);
                return Ok(());
            }
            Call::Propose(request, ttl_ms) => {
                let command = translate::command(&request, ttl_ms);
                let place = self.workload.called(self.now, client, request);
                let again = Input::Propose(self.token(), command.clone());
                let input = Input::Propose(token.clone(), command);
                (What::Proposal(place), input, Some(again))
            }
            Call::Read(spans) => {
                let request = Request::Txn(reads(&spans));
                let place = self.workload.called(self.now, client, request);
                (What::Read(place, spans), Input::Read(token.clone()), None)
            }
            Call::KeepAlive(lease) => {
                let input = Input::KeepAlive(token.clone(), LeaseId(lease));
                (What::KeepAlive(lease), input, None)
            }
        };
        let unchecked =
            matches!(what, What::Read(..)) && self.options.plant == Some(Plant::UncheckedRead);
        self.plan(PATIENCE, Event::GiveUp(client, token.id));
        self.clients[client as usize].waiting = Some(Waiting {
            token,
            member: at,
            called: self.now,
            what,
        });
        if unchecked {
            self.client_answered(client, Answer::Readable);
            return Ok(());
        }
        self.arrive(at, input)?;
        match again {
            Some(again) if self.options.plant == Some(Plant::ProposedTwice) => {
                self.arrive(at, again)
            }
            _ => Ok(()),
        }
    }

    fn read_here(
        &mut self,
        at: u64,
        span: Range<u32>,
        revision: Option<u64>,
    ) -> Result<(), Failure> {
        let host = &self.hosts[&at];
        let Some(member) = host.member.as_ref().filter(|_| host.is_up()) else {
            return Ok(());
        };
        let reader = member.reader();
        let (compacted, newest) = (reader.compacted().0, reader.revision().0);
        match reader.range(&translate::range(&span, revision)) {
            Ok(found) => self.workload.local.push(LocalRead {
                at: self.now,
                revision: revision.unwrap_or(found.revision.0),
                span,
                found: translate::entries(&found.entries),
            }),
            Err(Refusal::Compacted { .. }) if revision.is_some_and(|r| r < compacted) => {}
            Err(Refusal::Future { .. }) if revision.is_some_and(|r| r > newest) => {}
            Err(refusal) => {
                return Err(Failure::WronglyRefused {
                    member: at,
                    revision,
                    reason: refusal.to_string(),
                });
            }
        }
        Ok(())
    }

    /// A client's request is answered.
    pub(crate) fn client_answered(&mut self, client: u32, answer: Answer) {
        let waiting = self.clients[client as usize].waiting.take();
        let waiting = waiting.expect("it waits");
        waiting.token.gave_up.set(true);
        self.trace.note(self.now, &[7, u64::from(client)], || {
            format!("client {client} is answered: {answer:?}")
        });
        match (waiting.what, answer) {
            (_, Answer::Unknown) => {}
            (What::Proposal(place), Answer::Answered(answered)) => {
                let mut response = translate::response(&answered);
                if self.options.plant == Some(Plant::WrongRevision) && self.rng.permille(20) {
                    response.revision = response.revision.map(|r| r + 1);
                }
                self.workload.answered(self.now, place, response);
            }
            (What::Read(place, spans), Answer::Readable) => {
                // Whoever answered may be gone by now, as far as the client knows.
                if let Some(member) = &self.hosts[&waiting.member].member {
                    let response = read(&member.reader(), &spans);
                    self.workload.answered(self.now, place, response);
                }
            }
            (What::KeepAlive(lease), Answer::Renewal(Renewal::Renewed { .. })) => {
                if let Some(line) = self.leases.get_mut(&lease) {
                    line.renewed = line.renewed.max(waiting.called);
                }
            }
            (What::KeepAlive(lease), Answer::Renewal(Renewal::Missing)) => {
                self.workload.lease_ended(lease);
            }
            (What::KeepAlive(_), Answer::Renewal(Renewal::Ending)) => {}
            (What::Proposal(_) | What::Read(..) | What::KeepAlive(_), answer) => {
                panic!("an answer to another question: {answer:?}")
            }
        }
        self.call_again(client);
    }

    /// Clients ask in bursts, now and then they think.
    fn call_again(&mut self, client: u32) {
        let think = match self.rng.below(10) {
            0..=5 => self.rng.within(0..3_000),
            _ => self.rng.within(20_000..400_000),
        };
        self.plan(think, Event::Call(client));
    }

    /// A client's patience ends, if it still waits for this.
    pub(crate) fn give_up(&mut self, client: u32, token: u64) {
        if self.clients[client as usize].waits_for(token) {
            self.client_answered(client, Answer::Unknown);
        }
    }
}

fn reads(spans: &[Range<u32>]) -> Txn {
    Txn {
        then: spans.iter().cloned().map(Op::Read).collect(),
        ..Txn::default()
    }
}

fn read(reader: &Reader, spans: &[Range<u32>]) -> Response {
    let (revision, reply) = match spans {
        [span] => {
            let found = reader.range(&translate::range(span, None));
            let found = found.expect("the newest state can always be read");
            let answers = vec![checker::kv::Answer::Read(translate::entries(
                &found.entries,
            ))];
            let reply = Reply::Txn {
                succeeded: true,
                answers,
            };
            (found.revision, reply)
        }
        spans => {
            let outcome = reader.txn(&translate::txn(&reads(spans)));
            let (revision, outcome) = outcome.expect("the newest state can always be read");
            (revision, translate::txn_reply(&outcome))
        }
    };
    Response {
        revision: Some(revision.0),
        reply: Some(reply),
    }
}
