//! Leases' time, which the leader keeps: any member asks it.

use super::Handle;
use crate::Unavailable;
use crate::expiry::Renewal;
use crate::transport::call;
use keyspace::LeaseId;
use proto::peer::LeaseCall;
use proto::peer::peer_client::PeerClient;
use std::time::Duration;
use tonic::transport::Channel;

/// How long an asker waits before it looks for the leader again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

impl Handle {
    /// Starts a lease's time anew, on the leader (from whichever member). Answers the granted
    /// TTL, or `None` when there is no such lease. A lease whose time is over but whose end is not
    /// yet replicated makes the caller wait for that end.
    pub async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Option<u64>, Unavailable> {
        let here = || self.keep_alive_leading(lease);
        let there = |mut leader: PeerClient<Channel>| async move {
            let answer = leader.keep_alive(self.lease_call(lease)).await;
            let answer = answer.ok()?.into_inner();
            (!answer.not_leader).then(|| (!answer.missing).then_some(answer.ttl_ms))
        };
        self.ask_leader(here, there).await
    }

    /// Notes that the client of a session is alive, which starts its time anew on the leader, soon.
    /// Cheap enough for every request. Nobody answers: that the session is over shows when its end
    /// is applied.
    pub fn touch(&self, session: LeaseId) {
        self.shared.touches.note(session);
    }

    /// What is left of a lease's time in milliseconds, by the leader's clock.
    pub async fn lease_remaining(&self, lease: LeaseId) -> Result<Option<u64>, Unavailable> {
        let here = || self.remaining_leading(lease);
        let there = |mut leader: PeerClient<Channel>| async move {
            let answer = leader.remaining(self.lease_call(lease)).await;
            let answer = answer.ok()?.into_inner();
            (!answer.not_leader).then(|| (!answer.missing).then_some(answer.remaining_ms))
        };
        self.ask_leader(here, there).await
    }

    /// Asks until whoever leads has answered: this member, or the one it takes for the leader, which
    /// answers nothing if it does not lead.
    async fn ask_leader<H, T>(
        &self,
        here: impl Fn() -> H,
        there: impl Fn(PeerClient<Channel>) -> T,
    ) -> Result<Option<u64>, Unavailable>
    where
        H: Future<Output = Result<Option<u64>, Unavailable>>,
        T: Future<Output = Option<Option<u64>>>,
    {
        let ask = async {
            loop {
                match here().await {
                    Err(Unavailable::NotLeader) => {}
                    answered => return answered,
                }
                if let Some(leader) = self.leader()
                    && let Some(answer) = there(leader).await
                {
                    return Ok(answer);
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        let timeout = self.shared.config.request_timeout();
        let answered = tokio::time::timeout(timeout, ask).await;
        answered.unwrap_or(Err(Unavailable::TimedOut))
    }

    fn leader(&self) -> Option<PeerClient<Channel>> {
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
}
