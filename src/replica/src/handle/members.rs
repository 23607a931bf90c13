//! The members: who they are, and how others come and go.

use super::Handle;
use crate::entry::Step;
use crate::identity::member_id;
use crate::machine::StepOutcome;
use crate::roster::{Description, MemberChange, NewMember, Version};
use crate::shell::inbox::Order;
use crate::shell::{Reply, wall_ms};
use crate::transport::call;
use crate::{Member, MemberError, MemberRefusal, Unavailable};
use proto::peer::{PromoteCall, PromoteResult};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long members must have been connected before etcd lets others come or go (its
/// `HealthInterval`).
pub const HEALTHY_AFTER: Duration = Duration::from_secs(5);
/// A learner is ready for its vote when it has this share of the leader's log, in percent.
const READY_PERCENT: u64 = 90;

impl Handle {
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

    /// The connected voter that has most of the log, if this member leads others. None where they would
    /// be too few to elect it, and whoever hands over would wait for that in vain.
    pub(super) async fn successor(&self) -> Option<u64> {
        let leads = self.shared.status.borrow().leader == self.shared.member;
        if !leads || !self.connected_to(Instant::now(), 0) {
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
