//! Clients that hold sessions: each writes through one connection without waiting for answers, and
//! goes on through another whenever that breaks, or when it feels like it.

use crate::agenda::Event;
use crate::failure::Failure;
use crate::member::{Answer, Done, Input, Token};
use crate::nodes::Looker;
use crate::plant::Plant;
use crate::rng::Rng;
use crate::workload::{KEYS, TTLS_MS};
use crate::world::World;
use checker::nodes::Log;
use checker::turns::{Effect, Write};
use keyspace::command::{Attach, Grant, Nodes, Session, Turn};
use keyspace::node::Action;
use keyspace::{Cause, Command, LeaseId, NodeOp, Refusal};
use replica::Answered;
use std::collections::{BTreeMap, BTreeSet};

/// Clients with a session.
pub const CLIENTS: usize = 3;
/// Sessions' leases are apart from the others.
const FIRST: i64 = 1_000_000_000;
/// How long a client waits for its session, in microseconds.
const PATIENCE: u64 = 1_000_000;
/// Writes made at once.
const BURST_MAX: u64 = 5;
/// Of a thousand such bursts, how many end with the session's own end.
const CLOSING_PERMILLE: u64 = 50;

/// All such clients, and what became of what they asked for.
#[derive(Default)]
pub struct Sessions {
    clients: [Client; CLIENTS],
    last_session: i64,
    last_connection: u64,
    /// What took effect, by session.
    pub effects: BTreeMap<i64, Vec<Effect>>,
    /// The writes that were acknowledged, by session.
    pub acknowledged: BTreeMap<i64, BTreeSet<Write>>,
}

#[derive(Default)]
struct Client {
    /// Its session, if it may live.
    session: Option<i64>,
    state: State,
    /// What its connection is told of nodes.
    looker: Option<Looker>,
    /// What its earlier connections were told.
    told: Vec<Log>,
    /// The writes that are under way through its connection, or were when it was given up.
    writes: BTreeMap<u64, UnderWay>,
}

/// A write that is under way.
struct UnderWay {
    token: Token,
    session: i64,
    write: Write,
    /// It is the session's end.
    closes: bool,
}

#[derive(Default)]
enum State {
    /// It has no connection.
    #[default]
    Outside,
    /// It has asked for its session, then.
    Entering {
        token: u64,
        member: u64,
        connection: u64,
        since: u64,
    },
    /// Its connection holds the session.
    Inside {
        member: u64,
        connection: u64,
        next: u64,
    },
}

impl Sessions {
    /// The sessions whose clients hold a connection; none if some do not.
    pub fn all_inside(&self) -> Option<Vec<i64>> {
        let inside = |client: &Client| match client.state {
            State::Inside { .. } => client.session,
            State::Outside | State::Entering { .. } => None,
        };
        self.clients.iter().map(inside).collect()
    }

    /// Whether a lease is one of these sessions.
    pub fn owns(lease: i64) -> bool {
        lease > FIRST
    }

    /// Which client waits for an answer.
    fn who_waits(&self, asked: u64) -> Option<usize> {
        self.clients.iter().position(|client| {
            let enters = matches!(client.state, State::Entering { token, .. } if token == asked);
            enters || client.writes.contains_key(&asked)
        })
    }

    /// The connection that holds a session.
    pub fn holder(&self, session: i64) -> Option<u64> {
        let effects = self.effects.get(&session)?.iter();
        effects.rev().find_map(|effect| match effect {
            Effect::Attached(connection) => Some(*connection),
            Effect::Wrote(_) | Effect::Closed(_) => None,
        })
    }

    /// Notes what a command did, the first time that any member applied it.
    pub fn done(&mut self, done: &Done) {
        if done.applied.outcome.is_err() {
            return;
        }
        let (session, effect) = match &done.command {
            Command::Grant(grant) => match &grant.session {
                Some(session) => (grant.lease.0, Effect::Attached(session.attachment)),
                None => return,
            },
            Command::Attach(attach) => (attach.lease.0, Effect::Attached(attach.attachment)),
            Command::Nodes(nodes) => {
                let (session, write) = write_of(&nodes.ops[0].path);
                (session, Effect::Wrote(write))
            }
            Command::Close(turn) => {
                let write = (turn.attachment, turn.seq);
                (turn.lease.0, Effect::Closed(write))
            }
            Command::Txn(_)
            | Command::Compact(_)
            | Command::Revoke(..)
            | Command::Expire(_)
            | Command::Checkpoint(_)
            | Command::Alarm(_)
            | Command::Auth(_) => return,
        };
        self.effects.entry(session).or_default().push(effect);
    }
}

impl Client {
    /// Its connection is no more. What was under way may still take effect.
    fn leave(&mut self, rng: &mut Rng) {
        self.state = State::Outside;
        let told = self.looker.take().map(|looker| looker.leave(None));
        self.told.extend(told);
        // The member notices the end of a connection at once, or much later.
        if rng.permille(500) {
            for under_way in self.writes.values() {
                under_way.token.gave_up.set(true);
            }
            self.writes.clear();
        }
    }
}

impl World {
    /// A client with a session does something, unless there has been enough.
    pub(crate) fn act(&mut self, nth: usize) -> Result<(), Failure> {
        if self.calls >= self.options.ops && !self.keeps_sessions {
            return Ok(());
        }
        let pause = self.rng.within(500..60_000);
        self.plan(pause, Event::Act(nth));
        let client = &mut self.sessions.clients[nth];
        match client.state {
            State::Outside => self.enter(nth),
            State::Entering { since, .. } => {
                if self.now > since + PATIENCE {
                    client.state = State::Outside;
                }
                Ok(())
            }
            State::Inside { .. } if !self.keeps_sessions && self.rng.permille(50) => {
                client.leave(&mut self.rng);
                Ok(())
            }
            State::Inside {
                member,
                connection,
                next,
            } => {
                self.look(nth, member, connection)?;
                // Whatever it writes would renew its session as well.
                if self.keeps_sessions {
                    return Ok(());
                }
                self.write_on(nth, member, (connection, next))
            }
        }
    }

    /// Gives a sign of life, reads a node and watches it.
    fn look(&mut self, nth: usize, member: u64, connection: u64) -> Result<(), Failure> {
        let hasty = self.options.plant == Some(Plant::EarlyReply);
        let key = self.rng.below(u64::from(KEYS)) as u32;
        let client = &mut self.sessions.clients[nth];
        let host = &self.hosts[&member];
        let Some(session) = client.session.filter(|_| host.is_up()) else {
            return Ok(());
        };
        if client.looker.is_none() {
            client.looker = Looker::connect(host, session, connection, &mut self.rng);
        }
        if let Some(looker) = &mut client.looker {
            looker.look(host, key, hasty);
        }
        self.arrive(member, Input::Touch(LeaseId(session)))
    }

    /// Every client gives its connection up, and acts from now on.
    pub(crate) fn begin_anew(&mut self) {
        for nth in 0..CLIENTS {
            self.sessions.clients[nth].leave(&mut self.rng);
            self.plan(0, Event::Act(nth));
        }
    }

    /// What all connections were told, once those that live are told everything.
    pub(crate) fn take_told(&mut self) -> Vec<Log> {
        for host in self.hosts.values_mut() {
            host.tell(usize::MAX);
        }
        let mut told = Vec::new();
        for client in &mut self.sessions.clients {
            told.append(&mut client.told);
            let State::Inside { member, .. } = client.state else {
                continue;
            };
            let host = self.hosts.get(&member);
            told.extend(client.looker.take().map(|looker| looker.leave(host)));
        }
        told
    }

    /// Asks some member for a session, or for the one that it has.
    fn enter(&mut self, nth: usize) -> Result<(), Failure> {
        let running = self.running();
        if running.is_empty() {
            return Ok(());
        }
        let member = *self.rng.pick(&running);
        let ttl_ms = *self.rng.pick(&TTLS_MS);
        let token = self.token();
        let sessions = &mut self.sessions;
        sessions.last_connection += 1;
        let connection = sessions.last_connection;
        let client = &mut sessions.clients[nth];
        let command = match client.session {
            Some(session) => Command::Attach(Attach {
                lease: LeaseId(session),
                password: "secret".into(),
                attachment: connection,
                ttl_ms,
            }),
            None => {
                sessions.last_session += 1;
                let session = FIRST + sessions.last_session;
                client.session = Some(session);
                Command::Grant(Grant {
                    lease: LeaseId(session),
                    ttl_ms,
                    session: Some(Session {
                        password: "secret".into(),
                        attachment: connection,
                    }),
                })
            }
        };
        client.state = State::Entering {
            token: token.id,
            member,
            connection,
            since: self.now,
        };
        self.arrive(member, Input::Propose(token, command))
    }

    /// Some writes, one after the other, from `first` on; perhaps the session's end is the last.
    fn write_on(&mut self, nth: usize, member: u64, first: Write) -> Result<(), Failure> {
        let (connection, next) = first;
        let Some(session) = self.sessions.clients[nth].session else {
            return Ok(());
        };
        let end = next + 1 + self.rng.below(BURST_MAX);
        let closes = self.rng.permille(CLOSING_PERMILLE);
        self.sessions.clients[nth].state = State::Inside {
            member,
            connection,
            next: end,
        };
        for seq in next..end {
            let turn = Turn {
                lease: LeaseId(session),
                attachment: connection,
                seq,
            };
            let closes = closes && seq + 1 == end;
            let command = if closes {
                Command::Close(turn)
            } else {
                Command::Nodes(Nodes {
                    turn: Some(turn).filter(|_| self.options.plant != Some(Plant::NoTurns)),
                    ops: vec![op_of(session, (connection, seq))],
                    ..Nodes::default()
                })
            };
            let token = self.token();
            let under_way = UnderWay {
                token: token.clone(),
                session,
                write: (connection, seq),
                closes,
            };
            self.sessions.clients[nth]
                .writes
                .insert(token.id, under_way);
            self.arrive(member, Input::Propose(token, command))?;
        }
        Ok(())
    }

    /// Someone's request is answered, perhaps one of these clients'.
    pub(crate) fn session_answered(&mut self, token: u64, answer: &Answer) {
        let Some(nth) = self.sessions.who_waits(token) else {
            return;
        };
        let client = &mut self.sessions.clients[nth];
        let refusal = match answer {
            Answer::Answered(Answered { outcome, .. }) => outcome.as_ref().err(),
            _ => None,
        };
        let accepted = matches!(answer, Answer::Answered(_)) && refusal.is_none();
        let mut over = matches!(refusal, Some(Refusal::LeaseNotFound(_)));
        let current = match (client.writes.remove(&token), &client.state) {
            (
                Some(UnderWay {
                    session,
                    write,
                    closes,
                    ..
                }),
                state,
            ) => {
                if accepted {
                    let acknowledged = self.sessions.acknowledged.entry(session);
                    acknowledged.or_default().insert(write);
                    over |= closes;
                }
                matches!(state, State::Inside { connection, .. } if *connection == write.0)
            }
            (None, State::Entering { .. }) => true,
            (None, State::Outside | State::Inside { .. }) => false,
        };
        if !current {
            return;
        }
        match client.state {
            State::Entering {
                member, connection, ..
            } if accepted => {
                client.state = State::Inside {
                    member,
                    connection,
                    next: 0,
                };
            }
            State::Entering { .. } => client.state = State::Outside,
            State::Inside { .. } if !accepted || over => client.leave(&mut self.rng),
            State::Inside { .. } | State::Outside => {}
        }
        if over {
            client.session = None;
        }
    }
}

/// A write that changes nothing, so that it moves no revision, but says which one it is.
fn op_of(session: i64, (connection, seq): Write) -> NodeOp {
    NodeOp {
        path: format!("/{session}/{connection}/{seq}").into(),
        tests: Vec::new(),
        action: Action::Check,
        cause: Cause::Set,
    }
}

fn write_of(path: &[u8]) -> (i64, Write) {
    let text = std::str::from_utf8(path).expect("it was written here");
    let mut numbers = text.split('/').skip(1).map(|part| part.parse::<u64>());
    let mut number = || {
        numbers
            .next()
            .and_then(Result::ok)
            .expect("it was written here")
    };
    (number().cast_signed(), (number(), number()))
}
