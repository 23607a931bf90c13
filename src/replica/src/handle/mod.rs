//! The way to a running replica.

mod leases;
mod members;

pub use members::HEALTHY_AFTER;

use crate::entry::Step;
use crate::machine::{Answered, StepOutcome};
use crate::proposals::Proposal;
use crate::shell::inbox::Order;
use crate::shell::raft_thread::ApplyJob;
use crate::shell::{Reply, Shared};
use crate::stats::{PeersStats, Stats};
use crate::transport::PeerService;
use crate::{Failure, Status, Unavailable};
use keyspace::{Command, Reader};
use proto::peer::peer_server::PeerServer;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

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
}
