//! The handle that adapters hold.

use crate::events::{EventStream, Interest, Unwaited};
use crate::limits::Limits;
use crate::logins::Logins;
use crate::nodes::NodeWatcher;
use crate::sessions::SessionKey;
use crate::space::{Space, SpaceUsed, cost};
use crate::toil::{self, Toil};
use crate::watch::{Hub, WatchStream};
use keyspace::command::{Alarm, AlarmChange};
use keyspace::{Command, LeaseId, Outcome, Principal, Reader, Refusal, Revision};
use replica::roster::{Description, Member, NewMember, Version};
use replica::stats::{PeersStats, Stats};
use replica::{Answered, Handle, MemberError, Status, Unavailable};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How often [`Gate::tidy`] looks ...
const TIDY_PAUSE_MIN: Duration = Duration::from_millis(1);
/// ... at least ...
const TIDY_PAUSE_MAX: Duration = Duration::from_millis(50);
/// ... and for how long.
const TIDY_PATIENCE: Duration = Duration::from_secs(5);

/// What an accepted command did.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The keyspace's revision after the command.
    pub revision: Revision,
    /// The answer.
    pub outcome: Outcome,
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Nothing was done, on no member.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It may or may not have been done.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The way to the keyspace for adapters; clone it freely.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    replica: Handle,
    hub: Hub,
    limits: Limits,
    space: Space,
    logins: Logins,
    readings: Toil,
}

impl Gate {
    /// A gate over a running replica whose changes go to `hub`.
    pub fn new(replica: Handle, hub: Hub, limits: Limits) -> Gate {
        hub.begin(replica.reader());
        let shared = Shared {
            replica,
            hub,
            limits,
            space: Space::default(),
            logins: Logins::default(),
            readings: Toil::new(toil::cores()),
        };
        Gate {
            shared: Arc::new(shared),
        }
    }

    /// The bounds requests are held to.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Replicates a command on someone's behalf and answers what it did. What they may not touch is
    /// refused as it is applied; whether they may give such a command at all is asked before.
    pub async fn propose(&self, by: &Principal, mut command: Command) -> Result<Accepted, Error> {
        command.set_principal(by);
        self.spare(cost(&command)).await?;
        let answered = self.shared.replica.propose(command).await?;
        Ok(Accepted {
            revision: answered.revision,
            outcome: answered.outcome?,
        })
    }

    /// Replicates commands together and in order, and answers what each did. They are handed over
    /// at the call, so that calls take effect in their order; what is returned only waits.
    pub fn submit(
        &self,
        by: &Principal,
        mut commands: Vec<Command>,
    ) -> impl Future<Output = Result<Vec<Answered>, Unavailable>> + Send + use<> {
        commands.iter_mut().for_each(|it| it.set_principal(by));
        // Over the quota, the alarm goes ahead of them, and so they are refused in their order.
        let alarm = self.over_quota(commands.iter().map(cost).sum()).flatten();
        let ahead = usize::from(alarm.is_some());
        if let Some(alarm) = alarm {
            commands.insert(0, alarm);
        }
        let answered = self.shared.replica.propose_all(commands);
        async move {
            let mut answered = answered.await?;
            answered.drain(..ahead);
            Ok(answered)
        }
    }

    /// Refuses what would go over the space quota, having raised this member's alarm.
    async fn spare(&self, cost: u64) -> Result<(), Error> {
        let Some(alarm) = self.over_quota(cost) else {
            return Ok(());
        };
        if let Some(alarm) = alarm {
            // The refusal below holds whether or not the others learn of it now.
            if let Err(error) = self.shared.replica.propose(alarm).await {
                tracing::warn!(%error, "could not raise the space alarm");
            }
        }
        Err(Refusal::Alarmed(Alarm::NoSpace).into())
    }

    /// Whether so much more would go over the space quota; then with the command that raises this
    /// member's alarm, unless it stands.
    fn over_quota(&self, cost: u64) -> Option<Option<Command>> {
        let reader = self.reader();
        let used = self.shared.space.observe(reader.bytes_in_use());
        let quota = self.shared.limits.space_bytes_max?;
        if cost == 0 || used.total_bytes.saturating_add(cost) < quota {
            return None;
        }
        let member = self.status().member;
        if reader.alarms().contains(&(member, Alarm::NoSpace)) {
            return Some(None);
        }
        tracing::warn!(
            quota_bytes = quota,
            size_bytes = used.total_bytes,
            "space quota reached"
        );
        Some(Some(Command::Alarm(AlarmChange {
            member,
            alarm: Alarm::NoSpace,
            raised: true,
        })))
    }

    /// Returns once everything acknowledged before the call, by any member, can be read here.
    pub async fn linearize(&self) -> Result<(), Error> {
        Ok(self.shared.replica.read_index().await?)
    }

    /// Reads of this member's state.
    pub fn reader(&self) -> &Reader {
        self.shared.replica.reader()
    }

    /// Reads what takes long beside the connections' threads, a few such at a time.
    pub async fn read_aside<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.shared.readings.run(read).await
    }

    /// This moment's view of the cluster.
    pub fn status(&self) -> Status {
        self.shared.replica.status()
    }

    /// What this member's replica counts.
    pub fn stats(&self) -> &Stats {
        self.shared.replica.stats()
    }

    /// How long this member has known the leader that it knows.
    pub fn led_for(&self) -> Option<Duration> {
        self.shared.replica.led_for()
    }

    /// How the other members are reached from here, by id.
    pub fn peers(&self) -> PeersStats {
        self.shared.replica.peer_stats()
    }

    /// The other members that this one is connected to, by id.
    pub fn connected(&self) -> Vec<u64> {
        let peers = self.shared.replica.peer_stats().into_iter();
        peers
            .filter(|(_, stats)| stats.active.get() > 0)
            .map(|(id, _)| id)
            .collect()
    }

    /// The room the keyspace takes.
    pub fn space(&self) -> SpaceUsed {
        self.shared.space.observe(self.reader().bytes_in_use())
    }

    /// Lets the reported size fall to what is in use.
    pub fn defragment(&self) {
        self.shared.space.defragment(self.reader().bytes_in_use());
    }

    /// Returns once what was compacted takes no room any more, or has taken too long to go: a
    /// snapshot that is under way may keep it.
    pub async fn tidy(&self) {
        let began = Instant::now();
        let mut pause = TIDY_PAUSE_MIN;
        while !self.reader().is_tidy() && began.elapsed() < TIDY_PATIENCE {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(TIDY_PAUSE_MAX);
        }
    }

    /// Watches for one client.
    pub fn watch(&self) -> WatchStream {
        self.shared.hub.stream(self.reader().clone())
    }

    /// Node watchers for one connection that holds no session of the cluster.
    pub fn watch_nodes_alone(&self) -> NodeWatcher {
        let hub = self.shared.hub.nodes();
        hub.watcher(self.reader().clone(), LeaseId::NONE, 0)
    }

    /// Node watchers for one connection, which holds that session.
    pub fn watch_nodes(&self, session: &SessionKey) -> NodeWatcher {
        let hub = self.shared.hub.nodes();
        hub.watcher(self.reader().clone(), session.id, session.attachment)
    }

    /// Waits for node events, from one of the past on or from now on.
    pub fn await_events(&self, interest: Interest) -> Result<EventStream, Unwaited> {
        let hub = self.shared.hub.events();
        hub.await_events(self.reader(), interest)
    }

    pub(crate) fn logins(&self) -> &Logins {
        &self.shared.logins
    }

    pub(crate) fn replica(&self) -> &Handle {
        &self.shared.replica
    }

    /// The hub behind [`Gate::watch`], for its figures.
    pub fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    /// Returns when this member has known no leader for the whole of `patience`.
    pub async fn leaderless(&self, patience: Duration) {
        let mut changes = self.shared.replica.status_changes();
        // A sender that is gone belonged to a replica that stopped: no leader will come.
        while changes.wait_for(|status| status.leader == 0).await.is_ok() {
            let found = changes.wait_for(|status| status.leader != 0);
            match tokio::time::timeout(patience, found).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// Returns once this member knows a leader.
    pub async fn led(&self) {
        let mut changes = self.shared.replica.status_changes();
        let led = changes.wait_for(|status| status.leader != 0).await.is_ok();
        if !led {
            // The replica has stopped.
            std::future::pending::<()>().await;
        }
    }

    /// A lease id that no other proposer will choose: random and positive, as etcd's are.
    pub fn fresh_lease(&self) -> LeaseId {
        LeaseId(rand::random_range(1..=i64::MAX))
    }

    /// Starts a lease's time anew. Answers the granted TTL in milliseconds, or none when there is
    /// no such lease.
    pub async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Option<u64>, Error> {
        Ok(self.shared.replica.lease_keep_alive(lease).await?)
    }

    /// What is left of a lease's time in milliseconds, by the leader's clock.
    pub async fn lease_remaining(&self, lease: LeaseId) -> Result<Option<u64>, Error> {
        Ok(self.shared.replica.lease_remaining(lease).await?)
    }

    /// The members, by id.
    pub fn members(&self) -> Vec<Member> {
        self.shared.replica.members()
    }

    /// Whether this id was a member's that was removed.
    pub fn is_removed(&self, id: u64) -> bool {
        self.shared.replica.is_removed(id)
    }

    /// Which roster the members are of; and that together with them.
    pub fn roster(&self) -> (Version, Vec<Member>) {
        self.shared.replica.roster()
    }

    /// Adds a member and answers with it, and with the number of the members' version then, as every
    /// change of them does. One that is to follow a version is refused after any other. Where changes
    /// are checked, a quorum of those that vote then must have been connected for so long.
    pub async fn member_add(
        &self,
        new: NewMember,
        connected_for: Duration,
    ) -> Result<(Member, u64), MemberError> {
        self.shared.replica.member_add(new, connected_for).await
    }

    /// Removes a member. Where changes are checked, a quorum of those that stay must have been
    /// connected for so long.
    pub async fn member_remove(
        &self,
        id: u64,
        after: Option<u64>,
        connected_for: Duration,
    ) -> Result<u64, MemberError> {
        let replica = &self.shared.replica;
        replica.member_remove(id, after, connected_for).await
    }

    /// Changes what is known of a member, where its peers reach it above all.
    pub async fn member_update(&self, description: Description) -> Result<u64, MemberError> {
        self.shared.replica.describe(description).await
    }

    /// Gives a learner its vote.
    pub async fn member_promote(&self, id: u64, after: Option<u64>) -> Result<u64, MemberError> {
        self.shared.replica.member_promote(id, after).await
    }

    /// Hands leadership to `to` and answers once it leads.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), MemberError> {
        self.shared.replica.transfer_leader(to).await
    }
}
