//! What the keyspace should do, said as simply as possible: a whole sorted map for every revision,
//! no sharing, no indexes, nothing ever dropped.

use keyspace::command::{Alarm, Command, Filter, Guard, Op, Range, Sort, SortBy, Test, Txn};
use keyspace::{Answer, Applied, Cause, Change, Entry, LeaseId, Outcome, RangeAnswer, Refusal};
use keyspace::{Revision, TxnOutcome};
use std::collections::{BTreeMap, BTreeSet};

/// One key's entry, in the clear. `created` is 0 for a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub created: u64,
    pub modified: u64,
    pub version: u64,
    pub lease: i64,
}

impl Plain {
    pub fn of(entry: &Entry) -> Plain {
        Plain {
            key: entry.key().to_vec(),
            value: entry.value().to_vec(),
            created: entry.created().0,
            modified: entry.modified().0,
            version: entry.version(),
            lease: entry.lease().0,
        }
    }
}

/// A change, in the clear: now, before, and why.
pub type PlainChange = (Plain, Option<Plain>, Cause);

pub fn plain_changes(changes: &[Change]) -> Vec<PlainChange> {
    let plain = |change: &Change| {
        let previous = change.previous.as_ref().map(Plain::of);
        (Plain::of(&change.entry), previous, change.cause)
    };
    changes.iter().map(plain).collect()
}

/// An operation's answer, in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlainAnswer {
    Range(PlainRange),
    Put(Option<Plain>),
    Delete(u64, Vec<Plain>),
    Txn(bool, Vec<PlainAnswer>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainRange {
    pub entries: Vec<Plain>,
    pub count: u64,
    pub more: bool,
    pub revision: u64,
}

impl PlainRange {
    pub fn of(answer: &RangeAnswer) -> PlainRange {
        PlainRange {
            entries: answer.entries.iter().map(Plain::of).collect(),
            count: answer.count,
            more: answer.more,
            revision: answer.revision.0,
        }
    }
}

pub fn plain_txn(outcome: &TxnOutcome) -> PlainAnswer {
    let plain = |answer: &Answer| match answer {
        Answer::Range(range) => PlainAnswer::Range(PlainRange::of(range)),
        Answer::Put(previous) => PlainAnswer::Put(previous.as_ref().map(Plain::of)),
        Answer::Delete { deleted, previous } => {
            PlainAnswer::Delete(*deleted, previous.iter().map(Plain::of).collect())
        }
        Answer::Txn(inner) => plain_txn(inner),
    };
    PlainAnswer::Txn(
        outcome.succeeded,
        outcome.answers.iter().map(plain).collect(),
    )
}

/// What a command came to, in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlainOutcome {
    Txn(PlainAnswer),
    Done,
    Ended(u64),
}

pub type PlainApplied = (u64, Result<PlainOutcome, Refusal>, Vec<PlainChange>);

pub fn plain_applied(applied: &Applied) -> PlainApplied {
    let outcome = applied
        .outcome
        .as_ref()
        .map_err(Refusal::clone)
        .map(|outcome| match outcome {
            Outcome::Txn(txn) => PlainOutcome::Txn(plain_txn(txn)),
            Outcome::Done => PlainOutcome::Done,
            Outcome::Ended(keys) => PlainOutcome::Ended(*keys),
            Outcome::Nodes(_) => unreachable!("tested apart"),
        });
    (applied.revision.0, outcome, plain_changes(&applied.changes))
}

type State = BTreeMap<Vec<u8>, Plain>;

pub struct Naive {
    /// The keys at each revision; index 0 and 1 are empty.
    states: Vec<State>,
    /// The changes of each revision.
    changes: Vec<Vec<PlainChange>>,
    pub compacted: u64,
    pub leases: BTreeMap<i64, (u64, Option<u64>)>,
    /// Who holds those that are sessions.
    holders: BTreeMap<i64, u64>,
    alarms: BTreeSet<(u64, Alarm)>,
}

/// A transaction under way.
struct Draft {
    state: State,
    revision: u64,
    /// The keys changed, in order of their first change.
    touched: Vec<Vec<u8>>,
    /// Whether the last put found nothing.
    created: BTreeSet<Vec<u8>>,
    wrote: bool,
}

impl Naive {
    pub fn new() -> Naive {
        Naive {
            states: vec![State::new(); 2],
            changes: vec![Vec::new(); 2],
            compacted: 0,
            leases: BTreeMap::new(),
            holders: BTreeMap::new(),
            alarms: BTreeSet::new(),
        }
    }

    pub fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn newest(&self) -> &State {
        self.states.last().expect("there are always states")
    }

    pub fn lease_keys(&self, lease: i64) -> Vec<Vec<u8>> {
        let bound = self.newest().values().filter(|entry| entry.lease == lease);
        bound.map(|entry| entry.key.clone()).collect()
    }

    pub fn apply(&mut self, command: &Command) -> PlainApplied {
        let before = self.states.len();
        let outcome = self.try_apply(command);
        let changes = self.changes[before..].concat();
        (self.revision(), outcome, changes)
    }

    fn try_apply(&mut self, command: &Command) -> Result<PlainOutcome, Refusal> {
        let alarmed = |alarm| self.alarms.iter().any(|(_, standing)| *standing == alarm);
        let administrative = matches!(command, Command::Checkpoint(_) | Command::Alarm(_));
        if alarmed(Alarm::Corrupt) && !administrative {
            return Err(Refusal::Alarmed(Alarm::Corrupt));
        }
        let grows = match command {
            Command::Txn(txn) => txn.puts(),
            Command::Grant(grant) => grant.session.is_none(),
            _ => false,
        };
        if alarmed(Alarm::NoSpace) && grows {
            return Err(Refusal::Alarmed(Alarm::NoSpace));
        }
        match command {
            Command::Txn(txn) => self.txn(txn),
            Command::Compact(revision) => self.compact(*revision),
            Command::Grant(grant) => {
                if self.leases.contains_key(&grant.lease.0) {
                    return Err(Refusal::LeaseExists(grant.lease));
                }
                self.leases.insert(grant.lease.0, (grant.ttl_ms, None));
                let holder = grant.session.as_ref().map(|session| session.attachment);
                self.holders
                    .extend(holder.map(|holder| (grant.lease.0, holder)));
                Ok(PlainOutcome::Done)
            }
            Command::Revoke(lease, _) => {
                let ended = self.end(*lease, Cause::Delete);
                ended
                    .map(PlainOutcome::Ended)
                    .ok_or(Refusal::LeaseNotFound(*lease))
            }
            Command::Expire(leases) => {
                let ended = leases.iter().filter_map(|expired| {
                    let holder = self.holders.get(&expired.lease.0).copied();
                    if holder != expired.attachment {
                        return None;
                    }
                    self.end(expired.lease, Cause::Expire)
                });
                Ok(PlainOutcome::Ended(ended.sum()))
            }
            Command::Checkpoint(checkpoint) => {
                for remaining in checkpoint {
                    if let Some((_, kept)) = self.leases.get_mut(&remaining.lease.0) {
                        *kept = Some(remaining.remaining_ms).filter(|ms| *ms > 0);
                    }
                }
                Ok(PlainOutcome::Done)
            }
            Command::Nodes(_) | Command::Attach(_) | Command::Close(_) | Command::Auth(_) => {
                unreachable!("tested apart")
            }
            Command::Alarm(change) => {
                let standing = (change.member, change.alarm);
                if change.raised {
                    self.alarms.insert(standing);
                } else {
                    self.alarms.remove(&standing);
                }
                Ok(PlainOutcome::Done)
            }
        }
    }

    fn compact(&mut self, revision: Revision) -> Result<PlainOutcome, Refusal> {
        if revision.0 <= self.compacted {
            let compacted = Revision(self.compacted);
            return Err(Refusal::Compacted { compacted });
        }
        if revision.0 > self.revision() {
            let newest = Revision(self.revision());
            return Err(Refusal::Future { newest });
        }
        self.compacted = revision.0;
        Ok(PlainOutcome::Done)
    }

    fn draft(&self) -> Draft {
        Draft {
            state: self.newest().clone(),
            revision: self.revision() + 1,
            touched: Vec::new(),
            created: BTreeSet::new(),
            wrote: false,
        }
    }

    fn commit(&mut self, draft: Draft, deleted_because: Cause) {
        if !draft.wrote {
            return;
        }
        let change = |key: &Vec<u8>| {
            let previous = self.newest().get(key).cloned();
            match draft.state.get(key) {
                Some(entry) if draft.created.contains(key) => {
                    (entry.clone(), previous, Cause::Create)
                }
                Some(entry) => (entry.clone(), previous, Cause::Set),
                None => (draft.tombstone(key), previous, deleted_because),
            }
        };
        self.changes
            .push(draft.touched.iter().map(change).collect());
        self.states.push(draft.state);
    }

    fn end(&mut self, lease: LeaseId, cause: Cause) -> Option<u64> {
        self.leases.remove(&lease.0)?;
        self.holders.remove(&lease.0);
        let keys = self.lease_keys(lease.0);
        let mut draft = self.draft();
        for key in &keys {
            draft.delete(self.newest(), key);
        }
        self.commit(draft, cause);
        Some(keys.len() as u64)
    }

    fn txn(&mut self, txn: &Txn) -> Result<PlainOutcome, Refusal> {
        self.check(txn)?;
        let mut draft = self.draft();
        let answer = self.run(&mut draft, txn);
        self.commit(draft, Cause::Delete);
        Ok(PlainOutcome::Txn(answer))
    }

    /// A transaction that writes nothing, as a reader runs it.
    pub fn read_txn(&self, txn: &Txn) -> Result<PlainAnswer, Refusal> {
        self.check(txn)?;
        Ok(self.run(&mut self.draft(), txn))
    }

    fn holds(&self, txn: &Txn) -> bool {
        txn.guards.iter().all(|guard| self.guard_holds(guard))
    }

    fn guard_holds(&self, guard: &Guard) -> bool {
        let mut found: Vec<Plain> = self.newest().values().cloned().collect();
        found.retain(|entry| guard.span.contains(&entry.key));
        if found.is_empty() {
            if matches!(guard.test, Test::Value(_)) {
                return false;
            }
            found.push(Plain {
                key: Vec::new(),
                value: Vec::new(),
                created: 0,
                modified: 0,
                version: 0,
                lease: 0,
            });
        }
        found.iter().all(|entry| {
            guard.relation.holds(match &guard.test {
                Test::Version(given) => (entry.version as i64).cmp(given),
                Test::Created(given) => (entry.created as i64).cmp(given),
                Test::Modified(given) => (entry.modified as i64).cmp(given),
                Test::Value(given) => entry.value[..].cmp(&given[..]),
                Test::Lease(given) => entry.lease.cmp(given),
            })
        })
    }

    fn branch<'t>(&self, txn: &'t Txn) -> &'t [Op] {
        if self.holds(txn) {
            &txn.then
        } else {
            &txn.otherwise
        }
    }

    fn check(&self, txn: &Txn) -> Result<(), Refusal> {
        for op in self.branch(txn) {
            match op {
                Op::Range(range) => self.check_range(range)?,
                Op::Put(put) => {
                    if let Some(lease) = put.lease
                        && lease != LeaseId::NONE
                        && !self.leases.contains_key(&lease.0)
                    {
                        return Err(Refusal::LeaseNotFound(lease));
                    }
                    let keeps = put.value.is_none() || put.lease.is_none();
                    if keeps && !self.newest().contains_key(&put.key[..]) {
                        return Err(Refusal::KeyNotFound);
                    }
                }
                Op::Delete(_) => {}
                Op::Txn(inner) => self.check(inner)?,
            }
        }
        Ok(())
    }

    fn check_range(&self, range: &Range) -> Result<(), Refusal> {
        let Some(asked) = range.revision else {
            return Ok(());
        };
        if asked.0 > self.revision() {
            let newest = Revision(self.revision());
            return Err(Refusal::Future { newest });
        }
        if asked.0 < self.compacted {
            let compacted = Revision(self.compacted);
            return Err(Refusal::Compacted { compacted });
        }
        Ok(())
    }

    pub fn range(&self, range: &Range) -> Result<PlainRange, Refusal> {
        self.check_range(range)?;
        Ok(self.range_in(&self.draft(), range))
    }

    fn range_in(&self, draft: &Draft, range: &Range) -> PlainRange {
        let state = range
            .revision
            .map_or(&draft.state, |r| &self.states[r.0 as usize]);
        let mut entries: Vec<Plain> = state.values().cloned().collect();
        entries.retain(|entry| range.span.contains(&entry.key));
        let count = entries.len() as u64;
        let limit = if range.limit == 0 {
            usize::MAX
        } else {
            range.limit as usize
        };
        let cut_first = range.sort.is_some_and(|sort| sort.after_limit);
        if cut_first && range.filter == Filter::default() {
            entries.truncate(limit.saturating_add(1));
        }
        let within = |figure, min, max| figure >= min && (max == 0 || figure <= max);
        let filter = range.filter;
        entries.retain(|e| within(e.modified, filter.modified_min, filter.modified_max));
        entries.retain(|e| within(e.created, filter.created_min, filter.created_max));
        if let Some(sort) = range.sort {
            sort_entries(&mut entries, sort);
        }
        if range.count_only {
            entries.clear();
        }
        let more = entries.len() > limit;
        entries.truncate(limit);
        PlainRange {
            entries,
            count,
            more,
            revision: if draft.wrote {
                draft.revision
            } else {
                draft.revision - 1
            },
        }
    }

    fn run(&self, draft: &mut Draft, txn: &Txn) -> PlainAnswer {
        let answers = self.branch(txn).iter().map(|op| match op {
            Op::Range(range) => PlainAnswer::Range(self.range_in(draft, range)),
            Op::Put(put) => {
                let before = draft.state.get(&put.key[..]).cloned();
                let kept = before.clone().unwrap_or(Plain {
                    key: put.key.to_vec(),
                    value: Vec::new(),
                    created: draft.revision,
                    modified: 0,
                    version: 0,
                    lease: 0,
                });
                let entry = Plain {
                    value: put
                        .value
                        .as_ref()
                        .map_or(kept.value, |value| value.to_vec()),
                    lease: put.lease.map_or(kept.lease, |lease| lease.0),
                    modified: draft.revision,
                    version: kept.version + 1,
                    ..kept
                };
                draft.touch(&put.key);
                if before.is_none() {
                    draft.created.insert(put.key.to_vec());
                } else {
                    draft.created.remove(&put.key[..]);
                }
                draft.state.insert(put.key.to_vec(), entry);
                PlainAnswer::Put(before.filter(|_| put.want_previous))
            }
            Op::Delete(delete) => {
                let mut found: Vec<Plain> = draft.state.values().cloned().collect();
                found.retain(|entry| delete.span.contains(&entry.key));
                for entry in &found {
                    draft.delete(self.newest(), &entry.key);
                }
                let deleted = found.len() as u64;
                if !delete.want_previous {
                    found.clear();
                }
                PlainAnswer::Delete(deleted, found)
            }
            Op::Txn(inner) => self.run(draft, inner),
        });
        PlainAnswer::Txn(self.holds(txn), answers.collect())
    }

    /// The changes from a revision on, as watchers that catch up see them.
    pub fn history(&self, from: u64, changes_max: usize) -> Result<Vec<PlainChange>, Refusal> {
        if from < self.compacted {
            let compacted = Revision(self.compacted);
            return Err(Refusal::Compacted { compacted });
        }
        let mut found = Vec::new();
        for (revision, changes) in self.changes.iter().enumerate().skip(from as usize) {
            if found.len() >= changes_max {
                break;
            }
            for (entry, previous, _) in changes {
                let readable = revision as u64 > self.compacted;
                let cause = if entry.created == 0 {
                    Cause::Delete
                } else {
                    Cause::Set
                };
                found.push((entry.clone(), previous.clone().filter(|_| readable), cause));
            }
        }
        Ok(found)
    }
}

impl Draft {
    fn tombstone(&self, key: &[u8]) -> Plain {
        Plain {
            key: key.to_vec(),
            value: Vec::new(),
            created: 0,
            modified: self.revision,
            version: 0,
            lease: 0,
        }
    }

    fn touch(&mut self, key: &[u8]) {
        self.wrote = true;
        if !self.touched.iter().any(|touched| touched == key) {
            self.touched.push(key.to_vec());
        }
    }

    fn delete(&mut self, before: &State, key: &[u8]) {
        self.touch(key);
        self.state.remove(key);
        if !before.contains_key(key) {
            self.touched.retain(|touched| touched != key);
        }
    }
}

fn sort_entries(entries: &mut [Plain], sort: Sort) {
    entries.sort_by(|a, b| {
        let ordering = match sort.by {
            SortBy::Key => a.key.cmp(&b.key),
            SortBy::Version => a.version.cmp(&b.version),
            SortBy::Created => a.created.cmp(&b.created),
            SortBy::Modified => a.modified.cmp(&b.modified),
            SortBy::Value => a.value.cmp(&b.value),
        };
        if sort.descending {
            ordering.reverse()
        } else {
            ordering
        }
    });
}
