//! One world: machines, a network and clients under virtual time. Everything that happens is an
//! event in one queue; equal seeds give equal queues.

use crate::agenda::{Agenda, Event, Mend};
use crate::clients::Client;
use crate::failure::Failure;
use crate::faults::Faults;
use crate::host::{Death, Host};
use crate::ledger::Ledger;
use crate::member::{Answer, Done, Input, Output, Packet, Stopped, TICK_MS, Token};
use crate::net::Net;
use crate::plant::Plant;
use crate::rng::Rng;
use crate::sessions::Sessions;
use crate::trace::Trace;
use crate::translate;
use crate::watcher::Watcher;
use crate::workload::{KEYS, Workload};
use checker::kv::{Lease, Request, Response};
use keyspace::Command;
use keyspace::command::Expired;
use replica::Member as Membership;
use replica::roster::{MemberChange, Roster};
use std::collections::BTreeMap;

/// Clients that ask at the same time.
const CLIENTS: u32 = 8;
/// Watchers.
const WATCHERS: usize = 10;
/// A broken snapshot stream is noticed after this, in microseconds.
const STREAM_LOST: u64 = 300_000;
/// Once a watcher has a member, it takes history every so often.
const CATCH_UP_EVERY: u64 = 3_000;
/// How often roster and hosts are brought together.
const CARE_EVERY: u64 = 50_000;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// What everything is drawn from.
    pub seed: u64,
    /// Operations that clients begin.
    pub ops: u64,
    /// Voting members at the start.
    pub members: u64,
    /// A bug to find.
    pub plant: Option<Plant>,
    /// Lines of the trace to keep.
    pub trace_lines: usize,
}

/// What is known of a lease.
#[derive(Clone, Copy, Debug)]
pub struct LeaseLine {
    /// Granted time.
    pub ttl_ms: u64,
    /// When it was granted, or when a keep-alive was asked for that succeeded.
    pub renewed: u64,
}

/// See the module.
pub struct World {
    /// What the run is made of.
    pub options: Options,
    /// Microseconds since the world began.
    pub now: u64,
    agenda: Agenda,
    pub(crate) rng: Rng,
    /// What happened.
    pub trace: Trace,
    pub(crate) net: Net,
    pub(crate) faults: Faults,
    pub(crate) hosts: BTreeMap<u64, Host>,
    /// The roster that the cluster began with.
    pub(crate) first_roster: Roster,
    pub(crate) clients: Vec<Client>,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) sessions: Sessions,
    pub(crate) workload: Workload,
    pub(crate) ledger: Ledger,
    /// The newest entry that any member applied.
    frontier: u64,
    pub(crate) leases: BTreeMap<Lease, LeaseLine>,
    /// Operations begun.
    pub(crate) calls: u64,
    pub(crate) next_token: u64,
    /// Nothing breaks any more.
    pub(crate) calm: bool,
    /// Sessions' clients give signs of life and do nothing else.
    pub(crate) keeps_sessions: bool,
}

impl World {
    /// At its beginning: all machines run, nobody leads.
    pub fn new(options: Options) -> World {
        let mut rng = Rng::new(options.seed);
        let ids: Vec<u64> = (1..=options.members).collect();
        let first_roster = Roster::new(ids.iter().map(|&id| membership(id)));
        let net = Net::new(rng.fork());
        let faults = Faults::new(rng.fork());
        let workload = Workload::new(rng.fork());
        let watchers = (0..WATCHERS)
            .map(|nth| Watcher::new(&mut rng, KEYS, ids[nth % ids.len()]))
            .collect();
        let mut world = World {
            now: 0,
            agenda: Agenda::default(),
            trace: Trace::new(options.trace_lines),
            net,
            faults,
            hosts: BTreeMap::new(),
            first_roster,
            clients: (0..CLIENTS).map(Client::new).collect(),
            watchers,
            sessions: Sessions::default(),
            workload,
            ledger: Ledger::default(),
            frontier: 0,
            leases: BTreeMap::new(),
            calls: 0,
            next_token: 0,
            calm: false,
            keeps_sessions: false,
            rng,
            options,
        };
        for id in ids {
            world.add_host(id, 0);
        }
        for client in 0..CLIENTS {
            world.plan(u64::from(client), Event::Call(client));
        }
        for client in 0..crate::sessions::CLIENTS {
            world.plan(0, Event::Act(client));
        }
        for watcher in 0..WATCHERS {
            world.plan(CATCH_UP_EVERY, Event::CatchUp(watcher));
        }
        world.plan(CARE_EVERY, Event::Care);
        let pause = world.faults.pause();
        world.plan(pause, Event::Break);
        world
    }

    /// Plans an event for so many microseconds from now.
    pub(crate) fn plan(&mut self, after: u64, event: Event) {
        self.agenda.plan(self.now + after, event);
    }

    /// A new machine, to be started after a while.
    fn add_host(&mut self, id: u64, after: u64) {
        let mut host = Host::new(id);
        host.faults.sync_lies = self.options.plant == Some(Plant::LyingDisk);
        host.disk.set_faults(host.faults);
        host.clock_rate = match self.options.plant {
            Some(Plant::FastLeases) => 2,
            Some(Plant::ImmortalLeases) => 0,
            Some(_) | None => 1,
        };
        self.hosts.insert(id, host);
        self.plan(after, Event::Mend(Mend::Start(id)));
    }

    /// Lets the next event happen.
    pub fn step(&mut self) -> Result<(), Failure> {
        let (at, event) = self.agenda.take_next().expect("clocks tick for ever");
        self.now = at;
        match event {
            Event::Tick(id, run) => self.tick(id, run),
            Event::Arrive(id, input) => self.arrive(id, input),
            Event::Disk(id, run) => self.disk(id, run),
            Event::Call(client) => self.call(client),
            Event::GiveUp(client, token) => {
                self.give_up(client, token);
                Ok(())
            }
            Event::Act(client) => self.act(client),
            Event::Break => self.break_something(),
            Event::Mend(mend) => self.mend(mend),
            Event::CatchUp(watcher) => {
                self.catch_up(watcher);
                Ok(())
            }
            Event::Care => self.care(),
        }
    }

    fn tick(&mut self, id: u64, run: u64) -> Result<(), Failure> {
        let host = self.hosts.get_mut(&id).expect("hosts stay");
        if host.run != run || host.member.is_none() {
            return Ok(());
        }
        // A tick is never quite as long as the next.
        let after = TICK_MS * 1_000 + self.rng.below(200);
        self.plan(after, Event::Tick(id, run));
        self.arrive(id, Input::Tick)
    }

    /// Something reaches a member.
    pub(crate) fn arrive(&mut self, id: u64, input: Input) -> Result<(), Failure> {
        if !matches!(input, Input::Tick) {
            self.trace
                .note(self.now, &[1, id], || format!("{id} <- {}", words(&input)));
            if let Input::Message(_, Packet::Message(bytes)) = &input {
                self.trace.note_bytes(bytes);
            }
        }
        let lost_snapshot = match &input {
            Input::Message(from, Packet::Snapshot(..)) => Some(*from),
            _ => None,
        };
        let host = self.hosts.get_mut(&id).expect("hosts stay");
        if !host.receive(input) {
            if let Some(from) = lost_snapshot {
                self.plan(1, Event::Arrive(from, Input::SnapshotSent(id, false)));
            }
            return Ok(());
        }
        if host.is_busy() {
            return Ok(());
        }
        let mut out = Output::default();
        let begun = host.begin(self.now, &mut self.rng, &mut out);
        self.after_round(id, begun, out)
    }

    fn disk(&mut self, id: u64, run: u64) -> Result<(), Failure> {
        let host = self.hosts.get_mut(&id).expect("hosts stay");
        if host.run != run || host.member.is_none() {
            return Ok(());
        }
        if let Some(death) = host.doomed {
            self.kill(id, death);
            return Ok(());
        }
        let mut out = Output::default();
        let finished = host.finish(self.now, &mut self.rng, &mut out);
        self.after_round(id, finished, out)
    }

    fn after_round(
        &mut self,
        id: u64,
        round: Result<Option<u64>, Stopped>,
        out: Output,
    ) -> Result<(), Failure> {
        self.take_out(id, out)?;
        let host = &self.hosts[&id];
        match round {
            Ok(None) => Ok(()),
            Ok(Some(sync)) => {
                let run = host.run;
                self.plan(sync, Event::Disk(id, run));
                Ok(())
            }
            Err(Stopped::Fault(fault)) if host.faults.full => {
                let (now, id) = (self.now, id);
                self.trace
                    .note(now, &[2, id], || format!("{id} stops: {fault}"));
                // What was written stays: only the process ends.
                let death = Death {
                    kept: 1_000,
                    image_damaged: false,
                };
                self.kill(id, death);
                Ok(())
            }
            Err(stopped) => Err(Failure::Stopped {
                member: id,
                reason: stopped.to_string(),
            }),
        }
    }

    /// Ends a process; whoever waited for it does not know the outcome.
    pub(crate) fn kill(&mut self, id: u64, death: Death) {
        let host = self.hosts.get_mut(&id).expect("hosts stay");
        let (tokens, senders) = host.die(self.now, death);
        self.trace.note(self.now, &[3, id, death.kept], || {
            format!("{id} dies, {death:?}")
        });
        for token in tokens {
            self.answered(token, None);
        }
        let waiting: Vec<(u32, u64)> = self
            .clients
            .iter()
            .filter_map(|client| Some((client.id, client.waits_on(id)?)))
            .collect();
        for (client, token) in waiting {
            self.give_up(client, token);
        }
        for sender in senders {
            self.plan(1, Event::Arrive(sender, Input::SnapshotSent(id, false)));
        }
    }

    fn take_out(&mut self, id: u64, out: Output) -> Result<(), Failure> {
        if out.restored {
            self.hosts.get_mut(&id).expect("hosts stay").restored();
            self.trace
                .note(self.now, &[4, id], || format!("{id} installed a snapshot"));
            if self.options.plant != Some(Plant::SnapshotGap) {
                let here = self.watchers.iter_mut().filter(|w| w.member == id);
                here.for_each(Watcher::interrupted);
            }
        }
        let newest = out.done.last().map_or(0, |done| done.index);
        for done in &out.done {
            self.done(id, done)?;
            let host = self.hosts.get_mut(&id).expect("hosts stay");
            host.applied(&done.command, &done.applied);
            // Watchers are told a little later than readers see it.
            let told = self.rng.below(host.untold() as u64 + 1);
            host.tell(told as usize);
        }
        self.frontier = self.frontier.max(newest);
        for (index, digest, revision) in out.digests {
            self.ledger.compare(index, digest, revision)?;
        }
        for (token, answer) in out.answers {
            self.answered(token, Some(answer));
        }
        for (to, packet) in out.packets {
            self.send(id, to, packet);
        }
        for (from, taken) in out.snapshots_taken {
            let back = Input::SnapshotSent(id, taken && self.net.connects(id, from));
            self.plan(STREAM_LOST / 100, Event::Arrive(from, back));
        }
        Ok(())
    }

    /// A member applied a command.
    fn done(&mut self, id: u64, done: &Done) -> Result<(), Failure> {
        self.trace.note(
            self.now,
            &[5, id, done.index, done.applied.revision.0],
            || {
                let (index, revision) = (done.index, done.applied.revision);
                let outcome = if done.applied.outcome.is_ok() {
                    ""
                } else {
                    " refused"
                };
                format!(
                    "{id} applies {index} -> revision {revision}{outcome}: {:?}",
                    done.command
                )
            },
        );
        let events: Vec<_> = done.applied.changes.iter().map(translate::event).collect();
        // One command makes several revisions where it ends several leases.
        for events in events.chunk_by(|a, b| a.revision == b.revision) {
            let revision = events[0].revision;
            self.ledger.publish(self.now, revision, events)?;
            for watcher in self.watchers.iter_mut().filter(|w| w.member == id) {
                watcher.publish(revision, events);
                tamper(self.options.plant, watcher, &mut self.rng);
            }
        }
        if done.index > self.frontier {
            self.first_done(done, &events)?;
        }
        Ok(())
    }

    /// The first time that anyone applied a command: what clients do not see of leases.
    fn first_done(&mut self, done: &Done, events: &[checker::watch::Event]) -> Result<(), Failure> {
        self.sessions.done(done);
        match &done.command {
            Command::Attach(attach) if done.applied.outcome.is_ok() => {
                let line = LeaseLine {
                    ttl_ms: attach.ttl_ms,
                    renewed: self.now,
                };
                self.leases.insert(attach.lease.0, line);
            }
            Command::Grant(grant) if done.applied.outcome.is_ok() => {
                let line = LeaseLine {
                    ttl_ms: grant.ttl_ms,
                    renewed: self.now,
                };
                self.leases.insert(grant.lease.0, line);
            }
            Command::Revoke(lease, _) => drop(self.leases.remove(&lease.0)),
            Command::Close(turn) if done.applied.outcome.is_ok() => {
                self.leases.remove(&turn.lease.0);
            }
            Command::Expire(leases) => {
                for Expired { lease, attachment } in leases {
                    if self.sessions.holder(lease.0) != *attachment {
                        continue;
                    }
                    let bound = |e: &&checker::watch::Event| {
                        e.previous.is_some_and(|previous| previous.lease == lease.0)
                    };
                    let revision = events.iter().find(bound).map(|e| e.revision);
                    self.expired(lease.0, revision)?;
                }
            }
            Command::Grant(_)
            | Command::Txn(_)
            | Command::Compact(_)
            | Command::Checkpoint(_)
            | Command::Alarm(_)
            | Command::Attach(_)
            | Command::Close(_)
            | Command::Nodes(_)
            | Command::Auth(_) => {}
        }
        Ok(())
    }

    fn expired(&mut self, lease: Lease, revision: Option<u64>) -> Result<(), Failure> {
        if let Some(line) = self.leases.remove(&lease) {
            // Clocks are read in whole milliseconds.
            let lived_ms = (self.now - line.renewed).div_ceil(1_000);
            if lived_ms + 1 < line.ttl_ms {
                return Err(Failure::LeaseTooShort {
                    lease,
                    ttl_ms: line.ttl_ms,
                    lived_ms,
                });
            }
        }
        if Sessions::owns(lease) {
            // The checker of keys knows nothing of sessions.
            return Ok(());
        }
        self.workload.lease_ended(lease);
        let place = self.workload.called(self.now, CLIENTS, Request::End(lease));
        let response = Response {
            revision,
            reply: None,
        };
        self.workload.answered(self.now, place, response);
        Ok(())
    }

    fn send(&mut self, from: u64, to: u64, packet: Packet) {
        if !self.hosts.contains_key(&to) {
            return;
        }
        let delays = self.net.carry(from, to);
        match packet {
            Packet::Snapshot(..) => {
                // A stream: it arrives once, or its sender learns that it broke off.
                let event = match delays.first() {
                    Some(&delay) => (delay * 4, Event::Arrive(to, Input::Message(from, packet))),
                    None => (
                        STREAM_LOST,
                        Event::Arrive(from, Input::SnapshotSent(to, false)),
                    ),
                };
                self.plan(event.0, event.1);
            }
            Packet::Touches(_) if self.options.plant == Some(Plant::LostTouches) => {}
            Packet::Touches(_) | Packet::Touched(_) => {
                for delay in delays {
                    let input = Input::Message(from, packet.clone());
                    self.plan(delay, Event::Arrive(to, input));
                }
            }
            Packet::Message(mut bytes) => {
                if delays.is_empty() && !self.net.connects(from, to) && self.rng.permille(100) {
                    self.plan(1_000, Event::Arrive(from, Input::Unreachable(to)));
                }
                if self.options.plant == Some(Plant::AlteredMessage) && self.rng.permille(20) {
                    bytes = alter(&bytes);
                }
                for delay in delays {
                    let packet = Packet::Message(bytes.clone());
                    self.plan(delay, Event::Arrive(to, Input::Message(from, packet)));
                }
            }
        }
    }

    fn catch_up(&mut self, nth: usize) {
        self.plan(CATCH_UP_EVERY, Event::CatchUp(nth));
        let watcher = &mut self.watchers[nth];
        let host = self.hosts.get(&watcher.member);
        let member = host
            .filter(|host| host.is_up())
            .and_then(|host| host.member.as_ref());
        match member {
            Some(member) if !watcher.is_live() => watcher.catch_up(&member.reader()),
            Some(_) => {}
            None => {
                let up: Vec<u64> = self.up();
                if !up.is_empty() {
                    let to = *self.rng.pick(&up);
                    self.watchers[nth].attach(to);
                }
            }
        }
    }

    /// Members that answer clients.
    pub(crate) fn up(&self) -> Vec<u64> {
        let up = self
            .hosts
            .values()
            .filter(|host| host.is_up() && !host.removed);
        up.map(|host| host.id).collect()
    }

    /// Members that clients may think are there: those that stand still are among them.
    pub(crate) fn running(&self) -> Vec<u64> {
        let running = self
            .hosts
            .values()
            .filter(|host| host.member.is_some() && !host.removed);
        running.map(|host| host.id).collect()
    }

    /// The member that leads in the newest term, if one does.
    pub(crate) fn leader(&self) -> Option<u64> {
        let members = self.hosts.values().filter_map(|host| {
            let view = host.member.as_ref()?.view();
            (view.leader == host.id).then_some((view.term, host.id))
        });
        members.max().map(|(_, id)| id)
    }

    /// The roster of whoever applied most.
    pub(crate) fn roster(&self) -> Roster {
        let members = self.hosts.values().filter_map(|host| host.member.as_ref());
        let newest = members.max_by_key(|member| member.applied());
        newest.map_or_else(
            || self.first_roster.clone(),
            |member| member.roster().clone(),
        )
    }

    /// New members get machines, removed ones lose theirs; watchers are told how far they are, and
    /// some move on.
    fn care(&mut self) -> Result<(), Failure> {
        self.plan(CARE_EVERY, Event::Care);
        let roster = self.roster();
        let new: Vec<u64> = roster
            .members()
            .map(|member| member.id)
            .filter(|id| !self.hosts.contains_key(id))
            .collect();
        for id in new {
            let after = self.rng.below(500_000);
            self.add_host(id, after);
        }
        let gone: Vec<u64> = self
            .hosts
            .values()
            .filter(|host| !host.removed && roster.is_removed(host.id))
            .map(|host| host.id)
            .collect();
        for id in gone {
            self.hosts.get_mut(&id).expect("just listed").removed = true;
            let death = Death {
                kept: 1_000,
                image_damaged: false,
            };
            self.kill(id, death);
        }
        for watcher in &mut self.watchers {
            let host = self.hosts.get(&watcher.member);
            let Some(member) = host.and_then(|host| host.member.as_ref()) else {
                continue;
            };
            let ahead = u64::from(self.options.plant == Some(Plant::EarlyBookmark));
            watcher.bookmark(member.reader().revision().0 + ahead);
            if !self.calm && self.rng.permille(20) {
                watcher.interrupted();
            }
        }
        Ok(())
    }

    /// Asks for a change of members at some member; nobody waits for the answer.
    pub(crate) fn ask_for(&mut self, change: MemberChange) -> Result<(), Failure> {
        let up = self.up();
        if up.is_empty() {
            return Ok(());
        }
        let at = *self.rng.pick(&up);
        let token = self.token();
        self.arrive(at, Input::Change(token, change))
    }

    pub(crate) fn token(&mut self) -> Token {
        self.next_token += 1;
        Token {
            id: self.next_token,
            gave_up: std::rc::Rc::default(),
        }
    }

    fn answered(&mut self, token: Token, answer: Option<Answer>) {
        let answer = answer.unwrap_or(Answer::Unknown);
        self.session_answered(token.id, &answer);
        let client = self
            .clients
            .iter()
            .position(|client| client.waits_for(token.id));
        if let Some(client) = client {
            self.client_answered(client as u32, answer);
        }
    }
}

/// A member as the roster holds it.
pub(crate) fn membership(id: u64) -> Membership {
    Membership {
        id,
        name: format!("m{id}"),
        peer_urls: vec![format!("http://m{id}")],
        ..Membership::default()
    }
}

fn words(input: &Input) -> String {
    match input {
        Input::Message(from, Packet::Message(bytes)) => {
            format!("{from}: {}", replica::core::describe(bytes))
        }
        Input::Message(from, Packet::Snapshot(message, _)) => {
            format!("{from}: snapshot, {}", replica::core::describe(message))
        }
        other => format!("{other:?}"),
    }
}

/// Flips a digit of a value, if the message carries one.
fn alter(bytes: &[u8]) -> bytes::Bytes {
    let mut altered = bytes.to_vec();
    let value = altered.windows(6).position(|window| window == b"value ");
    if let Some(digit) = value.and_then(|at| altered.get_mut(at + 6)) {
        *digit = b'0' + (*digit - b'0' + 1) % 10;
    }
    altered.into()
}

/// What a planted bug does to a watcher's newest message.
fn tamper(plant: Option<Plant>, watcher: &mut Watcher, rng: &mut Rng) {
    let messages = watcher.messages();
    let Some(mut last) = messages.pop() else {
        return;
    };
    let now_and_then = rng.permille(20);
    match plant {
        Some(Plant::EventTwice) if now_and_then => messages.extend([last.clone(), last]),
        Some(Plant::EventLost) if now_and_then => {}
        Some(Plant::TornRevision) if last.events.len() > 1 => {
            let mut rest = last.clone();
            rest.events = last.events.split_off(1);
            messages.extend([last, rest]);
        }
        _ => messages.push(last),
    }
}
