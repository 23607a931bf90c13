//! The way to a running replica.

use crate::entry::Step;
use crate::expiry::Renewal;
use crate::identity::member_id;
use crate::machine::{Answered, StepOutcome};
use crate::proposals::Proposal;
use crate::roster::{Description, MemberChange, NewMember, Version};
use crate::shell::inbox::Order;
use crate::shell::raft_thread::ApplyJob;
use crate::shell::{Reply, Shared, wall_ms};
use crate::stats::{PeersStats, Stats};
use crate::transport::{PeerService, call};
use crate::{Failure, Member, MemberError, MemberRefusal, Status, Unavailable};
use keyspace::{Command, LeaseId, Reader};
use proto::peer::peer_server::PeerServer;
use proto::peer::{LeaseCall, PromoteCall, PromoteResult};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How long members must have been connected before etcd lets others come or go (its
/// `HealthInterval`).
pub const HEALTHY_AFTER: Duration = Duration::from_secs(5);
/// A learner is ready for its vote when it has this share of the leader's log, in percent.
const READY_PERCENT: u64 = 90;
/// How long an asker waits before it looks for the leader again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The way to a running replica; clone it freely.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

type StepsReply = oneshot::Receiver<Result<Vec<StepOutcome>, Unavailable>>;

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Handle {
        Handle { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Replicates a command and answers once it is applied here.
    pub async fn propose(&self, command: Command) -> Result<Answered, Unavailable> {
        let mut answered = self.propose_all(vec![command]).await?;
        Ok(answered.pop().expect("one command has one outcome"))
    }

    /// Replicates commands together and in order, with nothing of others between them, and answers
    /// once all are applied here: one submission, one wake-up.
    ///
    /// They are handed over at the call, so that calls take effect in their order; what is returned
    /// only waits.
    pub fn propose_all(
        &self,
        commands: Vec<Command>,
    ) -> impl Future<Output = Result<Vec<Answered>, Unavailable>> + Send + use<> {
        let outcomes = self.propose_steps(commands.into_iter().map(Step::Command).collect());
        async move {
            let answered = outcomes
                .await?
                .into_iter()
                .filter_map(|outcome| match outcome {
                    StepOutcome::Answered(answered) => Some(answered),
                    StepOutcome::Roster(_) => None,
                });
            Ok(answered.collect())
        }
    }

    fn propose_steps(
        &self,
        steps: Vec<Step>,
    ) -> impl Future<Output = Result<Vec<StepOutcome>, Unavailable>> + Send + use<> {
        let began = Instant::now();
        let (to, answer) = oneshot::channel();
        let submitted = self.submit(steps, to);
        let handle = self.clone();
        async move {
            let outcome = match submitted {
                Ok(()) => handle.wait(answer, began).await,
                Err(unavailable) => Err(unavailable),
            };
            if outcome.is_err() {
                handle.shared.stats.failed.add(1);
            }
            outcome
        }
    }

    fn submit(
        &self,
        steps: Vec<Step>,
        to: oneshot::Sender<Result<Vec<StepOutcome>, Unavailable>>,
    ) -> Result<(), Unavailable> {
        let proposal = Proposal::new(steps, ());
        let permit = self.shared.in_flight.admit(proposal.len_bytes())?;
        let reply = Reply::new(to, permit);
        self.shared.inbox.propose(proposal.with_waiter(reply))
    }

    async fn wait(
        &self,
        answer: StepsReply,
        began: Instant,
    ) -> Result<Vec<StepOutcome>, Unavailable> {
        let timeout = self.shared.config.request_timeout();
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_dropped)) => Err(Unavailable::Stopped),
            Err(_elapsed) => Err(self.why_timed_out(began)),
        }
    }

    /// Tells the kinds of timeouts apart as etcd's `parseProposeCtxErr` does.
    fn why_timed_out(&self, began: Instant) -> Unavailable {
        let shared = &self.shared;
        let lost_at = shared.leader_since.lock().map(|since| {
            // An election takes up to two timeouts: the leader before was lost by then.
            (since.checked_sub(2 * shared.config.election), since)
        });
        if let Some((lost, elected)) = lost_at
            && lost.is_some_and(|lost| began > lost)
            && began < elected
        {
            return Unavailable::TimedOutLeaderLost;
        }
        let leader = shared.status.borrow().leader;
        let connected = match leader {
            0 => true,
            leader if leader == shared.member => self.connected_to(began, 0),
            leader => shared.peers.connected_since(leader, began),
        };
        match connected {
            true => Unavailable::TimedOut,
            false => Unavailable::TimedOutDisconnected,
        }
    }

    /// Whether this member has been connected to a quorum of the voters since then, if there were
    /// so many more of them.
    fn connected_to(&self, moment: Instant, more: usize) -> bool {
        let voters = self.shared.roster.read().voters();
        let quorum = (voters.len() + more) / 2 + 1;
        self.count_connected(&voters, moment) >= quorum
    }

    fn count_connected(&self, voters: &[u64], moment: Instant) -> usize {
        let connected =
            |&&id: &&u64| id == self.shared.member || self.shared.peers.connected_since(id, moment);
        voters.iter().filter(connected).count()
    }

    /// Returns once everything acknowledged before the call, by any member, can be read here.
    pub async fn read_index(&self) -> Result<(), Unavailable> {
        // Nobody else acknowledges anything, and what this member did, it has applied.
        if self.shared.alone.load(Ordering::Acquire) {
            return Ok(());
        }
        let began = Instant::now();
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.read(reply)?;
        let timeout = self.shared.config.request_timeout();
        let outcome = match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_dropped)) => Err(Unavailable::Stopped),
            Err(_elapsed) => Err(Unavailable::TimedOut),
        };
        let stats = &self.shared.stats;
        if outcome.is_err() {
            stats.failed_reads.add(1);
        }
        if began.elapsed() > Duration::from_millis(500) {
            stats.slow_reads.add(1);
        }
        outcome
    }

    /// Reads of this member's state.
    pub fn reader(&self) -> &Reader {
        &self.shared.reader
    }

    /// This moment's view.
    pub fn status(&self) -> Status {
        let mut status = *self.shared.status.borrow();
        status.applied = self.shared.applied.load(Ordering::Acquire);
        status.committed = self
            .shared
            .committed
            .load(Ordering::Acquire)
            .max(status.applied);
        status
    }

    /// Changes of the view (leader, term), for those who must react. `committed` and `applied` are
    /// as of [`Handle::status`] only.
    pub fn status_changes(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// How long this member has known the leader that it knows; none if it never knew one.
    pub fn led_for(&self) -> Option<Duration> {
        let since = *self.shared.leader_since.lock();
        since.map(|since| since.elapsed())
    }

    /// Turns true once this member's name and client URLs are replicated, as etcd demands before
    /// it says that it is ready.
    pub fn published(&self) -> watch::Receiver<bool> {
        self.shared.published.subscribe()
    }

    /// Waits for the end of this replica that nobody asked for. After it nothing is acknowledged.
    pub async fn failed(&self) -> Arc<Failure> {
        let mut failed = self.shared.failed.subscribe();
        let found = failed.wait_for(Option::is_some).await;
        let found = found.expect("the replica outlives its handles");
        Arc::clone(found.as_ref().expect("it was waited for"))
    }

    /// The counts.
    pub fn stats(&self) -> &Stats {
        let stats = &self.shared.stats;
        stats.pending.set(self.shared.in_flight.proposals() as u64);
        stats
    }

    /// The counts of connections to peers.
    pub fn peer_stats(&self) -> PeersStats {
        self.shared.peers.stats()
    }

    /// The service for the peer listeners.
    pub fn peer_service(&self) -> PeerServer<PeerService> {
        PeerService::server(self.clone())
    }

    /// The members, by id.
    pub fn members(&self) -> Vec<Member> {
        self.shared.roster.read().members().cloned().collect()
    }

    /// Whether this id was a member's that was removed.
    pub fn is_removed(&self, id: u64) -> bool {
        self.shared.roster.read().is_removed(id)
    }

    /// Which roster the members are of; and that together with them.
    pub fn roster(&self) -> (Version, Vec<Member>) {
        let roster = Arc::clone(&self.shared.roster.read());
        (roster.version(), roster.members().cloned().collect())
    }

    /// Whether and when the members, or what is known of them, changed.
    pub fn roster_changes(&self) -> watch::Receiver<()> {
        self.shared.roster_changed.subscribe()
    }

    /// Adds a member (its id is made here, as etcd makes it) and answers with it. Where changes are
    /// checked, a quorum of those that vote then must have been connected for so long.
    pub async fn member_add(
        &self,
        new: NewMember,
        connected_for: Duration,
    ) -> Result<(Member, u64), MemberError> {
        let NewMember {
            peer_urls,
            learner,
            number,
            stream_urls,
            second_port,
            after,
        } = new;
        let config = &self.shared.config;
        if config.strict_reconfig {
            let roster = Arc::clone(&self.shared.roster.read());
            if !learner && !roster.may_add_voter() {
                return Err(MemberRefusal::NotEnoughStarted.into());
            }
            let alone = roster.voters().len() == 1;
            if !alone && !self.connected_to(so_long_ago(connected_for), 1) {
                return Err(MemberRefusal::Unhealthy.into());
            }
        }
        let id = member_id(&peer_urls, &config.cluster_token, Some(wall_ms() / 1000));
        let change = MemberChange::Add {
            id,
            peer_urls: peer_urls.clone(),
            learner,
            learners_max: config.learners_max,
            number,
            stream_urls,
            second_port,
            after,
        };
        let version = self.change(change).await?;
        let roster = Arc::clone(&self.shared.roster.read());
        // It may be gone again.
        let member = roster.get(id).cloned().unwrap_or_else(|| Member {
            id,
            peer_urls,
            learner,
            ..Member::default()
        });
        Ok((member, version))
    }

    /// Removes a member. Where changes are checked, a quorum of those that stay must have been
    /// connected for so long.
    pub async fn member_remove(
        &self,
        id: u64,
        after: Option<u64>,
        connected_for: Duration,
    ) -> Result<u64, MemberError> {
        if self.shared.config.strict_reconfig {
            self.may_remove(id, so_long_ago(connected_for))?;
        }
        self.change(MemberChange::Remove { id, after }).await
    }

    /// etcd's `mayRemoveMember`.
    fn may_remove(&self, id: u64, connected_since: Instant) -> Result<(), MemberRefusal> {
        let roster = Arc::clone(&self.shared.roster.read());
        match roster.get(id) {
            None => return Err(MemberRefusal::NotFound),
            Some(member) if member.learner => return Ok(()),
            Some(_) => {}
        }
        if !roster.may_remove_voter(id) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        let down = id != self.shared.member && self.shared.peers.active_since(id).is_none();
        if down {
            return Ok(());
        }
        let voters = roster.voters();
        let active = self.count_connected(&voters, connected_since);
        match active.saturating_sub(1) > (voters.len() - 1) / 2 {
            true => Ok(()),
            false => Err(MemberRefusal::Unhealthy),
        }
    }

    /// Changes what is known of a member, where its peers reach it above all.
    pub async fn describe(&self, description: Description) -> Result<u64, MemberError> {
        let outcomes = self
            .propose_steps(vec![Step::Describe(description)])
            .await?;
        roster_outcome(outcomes)
    }

    /// Gives a learner its vote. Any member can be asked: it asks the leader.
    pub async fn member_promote(&self, id: u64, after: Option<u64>) -> Result<u64, MemberError> {
        let leader = self.shared.status.borrow().leader;
        if leader == self.shared.member {
            return self.promote_leading(id, after).await;
        }
        let mut peer = call(&self.shared.peers, leader).ok_or(Unavailable::NoLeader)?;
        let request = PromoteCall {
            cluster: self.shared.cluster,
            id,
            after,
        };
        let timeout = self.shared.config.request_timeout();
        let answer = tokio::time::timeout(timeout, peer.promote(request)).await;
        let answer = answer.map_err(|_| Unavailable::TimedOut)?;
        let answer = answer.map_err(|_| Unavailable::TimedOut)?.into_inner();
        match answer.result() {
            PromoteResult::Promoted => Ok(answer.version),
            PromoteResult::NotLeader => Err(Unavailable::LeaderChanged.into()),
            PromoteResult::NotFound => Err(MemberRefusal::NotFound.into()),
            PromoteResult::NotLearner => Err(MemberRefusal::NotLearner.into()),
            PromoteResult::LearnerNotReady => Err(MemberRefusal::LearnerNotReady.into()),
            PromoteResult::NotEnoughStarted => Err(MemberRefusal::NotEnoughStarted.into()),
            PromoteResult::OtherVersion => Err(MemberRefusal::OtherVersion.into()),
            PromoteResult::Unknown => Err(Unavailable::TimedOut.into()),
        }
    }

    pub(crate) async fn promote_leading(
        &self,
        id: u64,
        after: Option<u64>,
    ) -> Result<u64, MemberError> {
        let roster = Arc::clone(&self.shared.roster.read());
        // The version is judged where the change is applied: whoever asked may be ahead of this member.
        roster.check(&MemberChange::Promote { id, after: None })?;
        let (reply, matches) = oneshot::channel();
        self.shared.inbox.order(Order::Matches(reply));
        let matches = matches.await.map_err(|_| Unavailable::Stopped)?;
        let index_of = |member| matches.iter().find(|m| m.member == member).map(|m| m.index);
        let leader = index_of(self.shared.member).ok_or(Unavailable::NotLeader)?;
        let learner = index_of(id).ok_or(MemberRefusal::NotFound)?;
        if learner * 100 < leader * READY_PERCENT {
            return Err(MemberRefusal::LearnerNotReady.into());
        }
        if self.shared.config.strict_reconfig && !roster.may_promote() {
            return Err(MemberRefusal::NotEnoughStarted.into());
        }
        let version = self.change(MemberChange::Promote { id, after }).await?;
        self.shared.stats.promotions.add(1);
        Ok(version)
    }

    /// The number of the roster's version then.
    async fn change(&self, change: MemberChange) -> Result<u64, MemberError> {
        let began = Instant::now();
        let (to, answer) = oneshot::channel();
        let permit = self.shared.in_flight.admit(0)?;
        self.shared
            .inbox
            .order(Order::Change(change, Reply::new(to, permit)));
        roster_outcome(self.wait(answer, began).await?)
    }

    /// Hands leadership to `to` and answers once it leads.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), MemberError> {
        let voter = self
            .shared
            .roster
            .read()
            .get(to)
            .is_some_and(|member| !member.learner);
        if !voter {
            return Err(MemberRefusal::BadTransferee.into());
        }
        if self.shared.status.borrow().leader != self.shared.member {
            return Err(Unavailable::NotLeader.into());
        }
        self.shared.inbox.order(Order::Transfer(to));
        let mut status = self.shared.status.subscribe();
        let led = status.wait_for(|status| status.leader == to);
        let timeout = self.shared.config.request_timeout();
        match tokio::time::timeout(timeout, led).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Unavailable::Stopped.into()),
            Err(_elapsed) => Err(Unavailable::TimedOut.into()),
        }
    }

    /// Starts a lease's time anew, on the leader (from whichever member). Answers the granted
    /// TTL, or `None` when there is no such lease. A lease whose time is over but whose end is not
    /// yet replicated makes the caller wait for that end.
    pub async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Option<u64>, Unavailable> {
        let ask = async {
            loop {
                match self.keep_alive_leading(lease).await {
                    Err(Unavailable::NotLeader) => {}
                    answered => return answered,
                }
                if let Some(mut leader) = self.leader() {
                    let call = self.lease_call(lease);
                    if let Ok(answer) = leader.keep_alive(call).await {
                        let answer = answer.into_inner();
                        if !answer.not_leader {
                            return Ok((!answer.missing).then_some(answer.ttl_ms));
                        }
                    }
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        let timeout = self.shared.config.request_timeout();
        let answer = tokio::time::timeout(timeout, ask).await;
        answer.unwrap_or(Err(Unavailable::TimedOut))
    }

    /// Notes that the client of a session is alive, which starts its time anew on the leader, soon.
    /// Cheap enough for every request. Nobody answers: that the session is over shows when its end
    /// is applied.
    pub fn touch(&self, session: LeaseId) {
        self.shared.touches.note(session);
    }

    /// What is left of a lease's time in milliseconds, by the leader's clock.
    pub async fn lease_remaining(&self, lease: LeaseId) -> Result<Option<u64>, Unavailable> {
        let ask = async {
            loop {
                match self.remaining_leading(lease).await {
                    Err(Unavailable::NotLeader) => {}
                    answered => return answered,
                }
                if let Some(mut leader) = self.leader() {
                    let call = self.lease_call(lease);
                    if let Ok(answer) = leader.remaining(call).await {
                        let answer = answer.into_inner();
                        if !answer.not_leader {
                            return Ok((!answer.missing).then_some(answer.remaining_ms));
                        }
                    }
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        let timeout = self.shared.config.request_timeout();
        let answer = tokio::time::timeout(timeout, ask).await;
        answer.unwrap_or(Err(Unavailable::TimedOut))
    }

    fn leader(&self) -> Option<proto::peer::peer_client::PeerClient<tonic::transport::Channel>> {
        let leader = self.shared.status.borrow().leader;
        call(&self.shared.peers, leader)
    }

    fn lease_call(&self, lease: LeaseId) -> LeaseCall {
        LeaseCall {
            cluster: self.shared.cluster,
            lease: lease.0,
        }
    }

    pub(crate) async fn keep_alive_leading(
        &self,
        lease: LeaseId,
    ) -> Result<Option<u64>, Unavailable> {
        loop {
            if !self.shared.clocks.lock().is_leading() {
                return Err(Unavailable::NotLeader);
            }
            let ended = self.shared.lease_ended.notified();
            tokio::pin!(ended);
            // From here on no end is missed.
            ended.as_mut().enable();
            // Whether this member still leads is for the others to say: one that stood still
            // and was deposed meanwhile would acknowledge a renewal that the new leader's clocks
            // know nothing of (etcd's `ensureLeadership`). A grant on its way is applied then, too.
            self.read_index().await?;
            let renewal = {
                let mut clocks = self.shared.clocks.lock();
                if !clocks.is_leading() {
                    return Err(Unavailable::NotLeader);
                }
                clocks.keep_alive(self.shared.now_ms(), lease)
            };
            match renewal {
                Renewal::Renewed { ttl_ms } => {
                    self.shared.stats.leases_renewed.add(1);
                    return Ok(Some(ttl_ms));
                }
                Renewal::Missing => return Ok(None),
                Renewal::Ending => ended.await,
            }
        }
    }

    /// Starts the time of these anew, if this member leads; whether it does. Unlike a keep-alive it
    /// promises nothing, so that nobody has to confirm who leads.
    pub(crate) fn touch_leading(&self, leases: impl Iterator<Item = LeaseId>) -> bool {
        let now_ms = self.shared.now_ms();
        let mut clocks = self.shared.clocks.lock();
        if !clocks.is_leading() {
            return false;
        }
        leases.for_each(|lease| clocks.touched(now_ms, lease));
        true
    }

    pub(crate) async fn remaining_leading(
        &self,
        lease: LeaseId,
    ) -> Result<Option<u64>, Unavailable> {
        if !self.shared.clocks.lock().is_leading() {
            return Err(Unavailable::NotLeader);
        }
        self.read_index().await?;
        let clocks = self.shared.clocks.lock();
        if !clocks.is_leading() {
            return Err(Unavailable::NotLeader);
        }
        let remaining = clocks.remaining(self.shared.now_ms(), lease);
        Ok(remaining.map(|(_, remaining_ms)| remaining_ms))
    }

    /// Digest of the applied state and the index it belongs to.
    pub async fn digest(&self) -> Result<(u64, u64), Unavailable> {
        let (reply, digest) = oneshot::channel();
        let sent = self.shared.apply_jobs.send(ApplyJob::Digest(reply));
        sent.map_err(|_| Unavailable::Stopped)?;
        digest.await.map_err(|_| Unavailable::Stopped)
    }

    /// Hands leadership over if it is held, stops, and returns once all is on disk.
    pub async fn stop(&self) {
        if let Some(to) = self.successor().await {
            // Best effort: the others elect a leader anyway, only later.
            self.transfer_leader(to).await.ok();
        }
        self.halt().await;
    }

    /// Stops without handing anything over, as if the process were killed, and returns when its
    /// threads have ended.
    pub async fn halt(&self) {
        self.shared.inbox.order(Order::Stop);
        let mut ended = self.shared.ended.subscribe();
        // The sender is in what this handle holds.
        ended
            .wait_for(|&threads| threads == crate::shell::start::THREADS)
            .await
            .ok();
        self.shared.peers.close();
    }

    /// The connected voter that has most of the log, if this member leads others.
    async fn successor(&self) -> Option<u64> {
        if self.shared.status.borrow().leader != self.shared.member {
            return None;
        }
        let (reply, matches) = oneshot::channel();
        self.shared.inbox.order(Order::Matches(reply));
        let matches = matches.await.ok()?;
        let voters = self.shared.roster.read().voters();
        let others = matches.into_iter().filter(|m| {
            m.member != self.shared.member
                && voters.contains(&m.member)
                && self.shared.peers.active_since(m.member).is_some()
        });
        others.max_by_key(|m| m.index).map(|m| m.member)
    }
}

fn so_long_ago(age: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(age).unwrap_or(now)
}

fn roster_outcome(outcomes: Vec<StepOutcome>) -> Result<u64, MemberError> {
    let roster = outcomes.into_iter().find_map(|outcome| match outcome {
        StepOutcome::Roster(outcome) => Some(outcome),
        StepOutcome::Answered(_) => None,
    });
    let outcome = roster.expect("a change of the roster has an outcome of its kind");
    outcome.map_err(MemberError::Refused)
}
