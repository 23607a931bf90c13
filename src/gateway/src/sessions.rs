//! Sessions: leases that a client holds through one connection at a time, resumes through another,
//! and keeps alive by whatever it asks for.

use crate::gate::{Error, Gate};
use keyspace::command::{Attach, Grant, Session};
use keyspace::{Command, LeaseId, Principal, Refusal};

/// What a connection needs to hold a session. Whoever knows it can resume the session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey {
    /// The session's lease: positive and random.
    pub id: LeaseId,
    /// What it is resumed with.
    pub password: [u8; 16],
    /// The connection; the first part of each [`keyspace::command::Turn`].
    pub attachment: u64,
}

impl Gate {
    /// Opens a session.
    pub async fn open_session(&self, ttl_ms: u64) -> Result<SessionKey, Error> {
        let key = SessionKey {
            id: self.fresh_lease(),
            password: rand::random(),
            attachment: rand::random(),
        };
        let session = Session {
            password: key.password.to_vec().into(),
            attachment: key.attachment,
        };
        let grant = Grant {
            lease: key.id,
            ttl_ms,
            session: Some(session),
        };
        self.propose(&Principal::System, Command::Grant(grant))
            .await?;
        Ok(key)
    }

    /// Lets a session go on through a new connection; none where there is no such session, or the
    /// password is another. Writes of the connection before are refused from then on.
    pub async fn resume_session(
        &self,
        id: LeaseId,
        password: [u8; 16],
        ttl_ms: u64,
    ) -> Result<Option<SessionKey>, Error> {
        let key = SessionKey {
            id,
            password,
            attachment: rand::random(),
        };
        let attach = Attach {
            lease: id,
            password: password.to_vec().into(),
            attachment: key.attachment,
            ttl_ms,
        };
        match self
            .propose(&Principal::System, Command::Attach(attach))
            .await
        {
            Ok(_) => Ok(Some(key)),
            Err(Error::Refused(Refusal::LeaseNotFound(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes that a session's client is alive; cheap enough for every request.
    pub fn touch(&self, session: LeaseId) {
        self.replica().touch(session);
    }
}
