//! Leases that begin, and sessions: leases that one connection at a time holds, and whose writes
//! come in turn.

use crate::change::{Outcome, Refusal};
use crate::command::{Attach, Command, Expired, Grant, Turn};
use crate::keyspace::{Keyspace, Result};
use crate::lease::{Held, Lease};
use crate::write::Finished;
use bytes::Bytes;
use imbl::OrdSet;
use std::sync::atomic::Ordering;

impl Keyspace {
    pub(crate) fn grant(&self, grant: &Grant) -> Result {
        let mut leases = self.shared.leases.write();
        if leases.contains_key(&grant.lease) {
            return Err(Refusal::LeaseExists(grant.lease));
        }
        let lease = Lease {
            ttl_ms: grant.ttl_ms,
            remaining_ms: None,
            session: grant.session.as_ref().map(|session| Held {
                password: Bytes::copy_from_slice(&session.password),
                attachment: session.attachment,
                next: 0,
            }),
            keys: OrdSet::new(),
        };
        self.shared.bytes.fetch_add(lease.cost(), Ordering::Relaxed);
        leases.insert(grant.lease, lease);
        Ok((Outcome::Done, Finished::default()))
    }

    /// Whoever does not know the password learns nothing, not even that there is such a session.
    pub(crate) fn attach(&self, attach: &Attach) -> Result {
        let mut leases = self.shared.leases.write();
        let found = leases.get_mut(&attach.lease);
        let lease = found.ok_or(Refusal::LeaseNotFound(attach.lease))?;
        let held = lease.session.as_mut();
        let held = held.filter(|held| held.password == attach.password);
        let held = held.ok_or(Refusal::LeaseNotFound(attach.lease))?;
        held.attachment = attach.attachment;
        held.next = 0;
        lease.ttl_ms = attach.ttl_ms;
        lease.remaining_ms = None;
        Ok((Outcome::Done, Finished::default()))
    }

    /// Whether a lease whose time is over is there, and held as it was then.
    pub(crate) fn is_still_held(&self, expired: &Expired) -> bool {
        let leases = self.shared.leases.read();
        let held = |lease: &Lease| lease.session.as_ref().map(|held| held.attachment);
        leases.get(&expired.lease).map(held) == Some(expired.attachment)
    }

    /// Refuses a session's write that is out of turn. In turn, it is the next one's turn whatever
    /// becomes of this one.
    pub(crate) fn take_turn(&self, command: &Command) -> std::result::Result<(), Refusal> {
        match command {
            Command::Nodes(nodes) => nodes.turn.map_or(Ok(()), |turn| self.turn(turn)),
            Command::Close(turn) => self.turn(*turn),
            Command::Txn(_)
            | Command::Compact(_)
            | Command::Grant(_)
            | Command::Revoke(..)
            | Command::Expire(_)
            | Command::Checkpoint(_)
            | Command::Alarm(_)
            | Command::Attach(_)
            | Command::Auth(_) => Ok(()),
        }
    }

    fn turn(&self, turn: Turn) -> std::result::Result<(), Refusal> {
        let mut leases = self.shared.leases.write();
        let found = leases.get_mut(&turn.lease);
        let held = found.and_then(|lease| lease.session.as_mut());
        let held = held.ok_or(Refusal::LeaseNotFound(turn.lease))?;
        if held.attachment != turn.attachment {
            return Err(Refusal::Moved);
        }
        if held.next != turn.seq {
            return Err(Refusal::OutOfTurn);
        }
        held.next = held.next.wrapping_add(1);
        Ok(())
    }
}
