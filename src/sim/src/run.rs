//! One run: a stormy part, a calm one, and the verdict.

use crate::failure::Failure;
use crate::member::Input;
use crate::workload::{Call, KEYS, TTLS_MS};
use crate::world::{Options, World};
use checker::kv::{Kv, Op, Request, Response, Txn};
use checker::linear::{self, Operation, Verdict};
use checker::{nodes, turns, watch};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How long a cluster may take to recover once nothing is broken: some elections, a snapshot, and
/// the patience of the last client.
const RECOVERY: u64 = 20_000_000;
/// How long after its time a lease may live: an election's grace, and a repeated end.
const LEASE_SLACK: u64 = 8_000_000;
/// How long sessions are kept alive by signs of life alone: longer than the longest time to live.
const KEPT: u64 = 14_000_000;
/// How often another member is to lead meanwhile: seldom, since a new leader gives every session its
/// full time.
const TRANSFER_EVERY: u64 = 6_000_000;
/// Steps of the model that the search may take.
const SEARCH_STEPS_MAX: u64 = 2_000_000;
/// Operations shown before the one that nothing explains.
const SHOWN: usize = 12;

/// What a good run has to show for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of everything that happened, in order.
    pub trace_hash: u64,
    /// Operations in the history, and how many of them nobody knows the outcome of.
    pub operations: (usize, usize),
    /// The last revision.
    pub revision: u64,
    /// Virtual time, in milliseconds.
    pub took_ms: u64,
}

/// Runs one seed to its verdict, and gives the lines of the trace that were to be kept.
pub fn run(options: Options) -> (Result<Report, Failure>, String) {
    let mut world = World::new(options);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.live()));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Failure::Panic(text.unwrap_or_default()))
    });
    (outcome, world.trace.to_string())
}

impl World {
    fn live(&mut self) -> Result<Report, Failure> {
        while self.calls < self.options.ops {
            self.step()?;
        }
        self.calm_down()?;
        self.until_converged()?;
        self.last_words()?;
        self.keep_sessions()?;
        self.until_leases_ended()?;
        self.until_converged()?;
        self.judge()
    }

    /// Until `done`, or the world says why not.
    fn until(
        &mut self,
        limit: u64,
        done: impl Fn(&World) -> bool,
        failure: impl Fn(&World) -> Failure,
    ) -> Result<(), Failure> {
        let deadline = self.now + limit;
        while !done(self) {
            if self.now > deadline {
                return Err(failure(self));
            }
            self.step()?;
        }
        Ok(())
    }

    fn until_converged(&mut self) -> Result<(), Failure> {
        self.until(RECOVERY, World::converged, |world| Failure::Stuck {
            after_ms: RECOVERY / 1_000,
            state: world.describe(),
        })?;
        let digests: Vec<(u64, u64, u64)> = self
            .hosts
            .values()
            .filter_map(|host| Some(host.member.as_ref()?.digest()))
            .collect();
        for (index, digest, revision) in digests {
            self.ledger.compare(index, digest, revision)?;
        }
        Ok(())
    }

    /// All members run, follow one leader, have applied the same, and nobody waits.
    fn converged(&self) -> bool {
        let roster = self.roster();
        let mut views = Vec::new();
        for member in roster.members() {
            let host = self.hosts.get(&member.id);
            let Some(member) = host.and_then(|host| host.member.as_ref()) else {
                return false;
            };
            let view = member.view();
            views.push((view.leader, view.term, view.committed, member.applied()));
        }
        let first = views[0];
        let (leader, _, committed, applied) = first;
        leader != 0
            && committed == applied
            && views.iter().all(|view| *view == first)
            && self.clients.iter().all(|client| !client.waits())
            && self.watchers.iter().all(|watcher| watcher.is_live())
            && self.watchers.iter().all(|w| self.hosts[&w.member].is_up())
    }

    fn describe(&self) -> String {
        let lines = self.hosts.values().map(|host| match &host.member {
            Some(member) => {
                let (view, applied) = (member.view(), member.applied());
                format!("\n  {}: {view:?}, applied {applied}", host.id)
            }
            None if host.removed => format!("\n  {}: removed", host.id),
            None => format!("\n  {}: not running", host.id),
        });
        let waiting = self.clients.iter().filter(|client| client.waits()).count();
        let live = self
            .watchers
            .iter()
            .filter(|watcher| watcher.is_live())
            .count();
        let all: String = lines.collect();
        format!("{all}\n  {waiting} clients wait, {live} watchers are live")
    }

    /// A write, and then a read of everything at every member, must succeed now.
    fn last_words(&mut self) -> Result<(), Failure> {
        let txn = Txn {
            then: vec![Op::Put(KEYS, u64::MAX, 0)],
            ..Txn::default()
        };
        let ids: Vec<u64> = self.roster().members().map(|member| member.id).collect();
        let write = Call::Propose(Request::Txn(txn), 0);
        let everything = 0..KEYS + 1;
        let read = Call::Read(vec![everything]);
        let mut calls = vec![(ids[0], write)];
        calls.extend(ids.into_iter().map(|id| (id, read.clone())));
        for (at, call) in calls {
            let place = self.workload.history.len();
            self.ask(0, at, call)?;
            self.until(
                RECOVERY,
                |world| !world.clients[0].waits(),
                |world| Failure::Stuck {
                    after_ms: RECOVERY / 1_000,
                    state: world.describe(),
                },
            )?;
            if self.workload.history[place].answered.is_none() {
                return Err(Failure::Stuck {
                    after_ms: 0,
                    state: format!("member {at} does not answer{}", self.describe()),
                });
            }
        }
        Ok(())
    }

    /// While clients give signs of life, through whichever member, their sessions live, whoever leads.
    fn keep_sessions(&mut self) -> Result<(), Failure> {
        self.keeps_sessions = true;
        // Nobody was heard of for a while, so that sessions may be over.
        self.begin_anew();
        self.until(
            RECOVERY,
            |world| world.sessions.all_inside().is_some(),
            |world| Failure::Stuck {
                after_ms: RECOVERY / 1_000,
                state: format!("sessions are not served{}", world.describe()),
            },
        )?;
        let kept = self.sessions.all_inside().unwrap_or_default();
        let end = self.now + KEPT;
        let mut transfer_at = self.now + TRANSFER_EVERY;
        while self.now < end {
            self.step()?;
            if self.now >= transfer_at {
                transfer_at += TRANSFER_EVERY;
                let voters: Vec<u64> = self.roster().members().map(|member| member.id).collect();
                let to = *self.rng.pick(&voters);
                if let Some(leader) = self.leader() {
                    self.arrive(leader, Input::Transfer(to))?;
                }
            }
        }
        self.keeps_sessions = false;
        let leader = self
            .leader()
            .and_then(|leader| self.hosts[&leader].member.as_ref());
        let leases: BTreeSet<i64> = leader.map_or_else(BTreeSet::new, |leader| {
            let leases = leader.reader().leases();
            leases.iter().map(|lease| lease.lease.0).collect()
        });
        let lost = kept.into_iter().find(|session| !leases.contains(session));
        lost.map_or(Ok(()), |session| Err(Failure::SessionLost(session)))
    }

    fn until_leases_ended(&mut self) -> Result<(), Failure> {
        let longest = TTLS_MS.iter().max().expect("there are some") * 1_000;
        let leases = |world: &World| {
            let members = world.hosts.values().filter_map(|host| host.member.as_ref());
            let leases = members.flat_map(|member| member.reader().leases());
            leases.map(|lease| lease.lease.0).collect::<Vec<i64>>()
        };
        self.until(
            longest + LEASE_SLACK,
            |world| leases(world).is_empty(),
            |world| Failure::LeasesImmortal(leases(world)),
        )
    }

    fn judge(&mut self) -> Result<Report, Failure> {
        self.workload.settle(&self.ledger);
        let told = self.take_told();
        let history = &self.workload.history;
        match linear::check(&Kv, history, SEARCH_STEPS_MAX) {
            Verdict::Linearizable(_) => {}
            Verdict::Undecided => return Err(Failure::Undecided),
            Verdict::Violation { longest, stuck } => {
                let shown = &longest[longest.len().saturating_sub(SHOWN)..];
                let lines = shown.iter().map(|&place| describe(&history[place]) + "\n");
                return Err(Failure::NotLinearizable {
                    stuck: describe(&history[stuck]),
                    before: lines.collect(),
                });
            }
        }
        self.ledger.judge(&self.workload.local)?;
        let newest = self.ledger.newest();
        for (watcher, watches) in std::mem::take(&mut self.watchers).into_iter().enumerate() {
            for watch in watches.close(newest) {
                watch::check(self.ledger.events(), &watch).map_err(|violation| Failure::Watch {
                    watcher,
                    violation: Box::new(violation),
                })?;
            }
        }
        let truth = nodes::Truth::new(self.ledger.events());
        for log in &told {
            nodes::check(&truth, log)?;
        }
        let none = BTreeSet::new();
        for (&session, effects) in &self.sessions.effects {
            let acknowledged = self.sessions.acknowledged.get(&session).unwrap_or(&none);
            turns::check(effects, acknowledged)
                .map_err(|violation| Failure::Turns { session, violation })?;
        }
        let unknown = history
            .iter()
            .filter(|operation| operation.answered.is_none());
        Ok(Report {
            trace_hash: self.trace.hash(),
            operations: (history.len(), unknown.count()),
            revision: newest,
            took_ms: self.now / 1_000,
        })
    }
}

fn describe(operation: &Operation<Request, Response>) -> String {
    let answered = match &operation.answered {
        Some((at, response)) => format!("{at} {response:?}"),
        None => "never answered".to_owned(),
    };
    format!(
        "  client {} {}..{answered} {:?}",
        operation.client, operation.called, operation.input
    )
}
