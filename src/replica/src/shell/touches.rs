//! Which sessions' clients were heard of since the leader was last told.

use crate::handle::Handle;
use crate::transport::call;
use dashmap::DashSet;
use foldhash::quality::RandomState;
use keyspace::LeaseId;
use proto::peer::TouchCall;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How long notes are gathered. What a session lives longer for it is of no account beside the
/// shortest time to live.
const GATHERED_FOR: Duration = Duration::from_millis(100);
/// Sessions in one message.
const SESSIONS_MAX: usize = 8192;

/// Bounded by the number of living sessions: only their connections note anything.
#[derive(Default)]
pub struct Touches {
    noted: DashSet<LeaseId, RandomState>,
    /// There are notes, and whoever forwards them knows it.
    told: AtomicBool,
    arrived: Notify,
}

impl Touches {
    /// Notes that a session's client was heard of.
    pub fn note(&self, session: LeaseId) {
        self.noted.insert(session);
        if !self.told.load(Ordering::Acquire) && !self.told.swap(true, Ordering::AcqRel) {
            self.arrived.notify_one();
        }
    }

    /// All notes so far.
    fn take(&self) -> Vec<LeaseId> {
        // First: what is noted from here on is told anew.
        self.told.store(false, Ordering::Release);
        let mut taken = Vec::new();
        self.noted.retain(|session| {
            taken.push(*session);
            false
        });
        taken
    }
}

/// Tells the leader, wherever it is, until the replica ends. What it could not be told is told again.
pub async fn forward(handle: Handle) {
    let shared = handle.shared().clone();
    let mut ended = shared.ended.subscribe();
    loop {
        tokio::select! {
            () = shared.touches.arrived.notified() => {}
            _ = ended.wait_for(|threads| *threads > 0) => return,
        }
        tokio::time::sleep(GATHERED_FOR).await;
        for sessions in shared.touches.take().chunks(SESSIONS_MAX) {
            if !tell(&handle, sessions).await {
                sessions
                    .iter()
                    .for_each(|session| shared.touches.note(*session));
            }
        }
    }
}

/// Whether the leader knows.
async fn tell(handle: &Handle, sessions: &[LeaseId]) -> bool {
    if handle.touch_leading(sessions.iter().copied()) {
        return true;
    }
    let shared = handle.shared();
    let leader = shared.status.borrow().leader;
    let Some(mut leader) = call(&shared.peers, leader) else {
        return false;
    };
    let request = TouchCall {
        cluster: shared.cluster,
        leases: sessions.iter().map(|session| session.0).collect(),
    };
    let told = tokio::time::timeout(shared.config.election, leader.touch(request)).await;
    matches!(told, Ok(Ok(answer)) if !answer.get_ref().not_leader)
}
