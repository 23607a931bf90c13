//! Leases: grant, revoke, keep alive, time to live, list.

use super::Ops;
use crate::errors::{self, Error};
use gateway::keyspace::command::Grant;
use gateway::keyspace::{Command, LeaseId, Permissions};
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

/// etcd's longest lease, in seconds.
const TTL_SECONDS_MAX: i64 = 9_000_000_000;

impl Ops {
    /// Creates a lease; without an id, under a fresh one.
    pub async fn lease_grant(
        &self,
        request: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, Error> {
        self.gate.reader().check_known(&self.by)?;
        if request.ttl > TTL_SECONDS_MAX {
            return Err(errors::LEASE_TTL_TOO_LARGE);
        }
        let ttl = request.ttl.max(self.gate.limits().lease_ttl_seconds_min());
        let lease = match LeaseId(request.id) {
            LeaseId::NONE => self.gate.fresh_lease(),
            given => given,
        };
        let grant = Grant {
            lease,
            ttl_ms: ttl.unsigned_abs() * 1000,
            session: None,
        };
        let accepted = self.gate.propose(&self.by, Command::Grant(grant)).await?;
        Ok(LeaseGrantResponse {
            header: Some(self.header(accepted.revision).into()),
            id: lease.0,
            ttl,
            error: String::new(),
        })
    }

    /// Ends a lease and deletes the keys bound to it.
    pub async fn lease_revoke(
        &self,
        request: LeaseRevokeRequest,
    ) -> Result<LeaseRevokeResponse, Error> {
        self.gate.reader().check_known(&self.by)?;
        let command = Command::Revoke(LeaseId(request.id), self.by.clone());
        let accepted = self.gate.propose(&self.by, command).await?;
        Ok(LeaseRevokeResponse {
            header: Some(self.header(accepted.revision).into()),
        })
    }

    /// Starts a lease's time anew. The answer for a lease that is no more has TTL 0.
    pub async fn lease_keep_alive(
        &self,
        request: LeaseKeepAliveRequest,
    ) -> Result<LeaseKeepAliveResponse, Error> {
        let reader = self.gate.reader();
        reader.check_known(&self.by)?;
        reader.check_lease(&self.by, LeaseId(request.id), Permissions::WRITE)?;
        // Taken before: or a client could see its lease kept alive at a revision that revoked it.
        let header = self.header_now();
        let ttl_ms = self.gate.lease_keep_alive(LeaseId(request.id)).await?;
        Ok(LeaseKeepAliveResponse {
            header: Some(header.into()),
            id: request.id,
            ttl: ttl_ms.map_or(0, seconds),
        })
    }

    /// What is left of a lease. The answer for a lease that is no more has TTL -1.
    pub async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Error> {
        self.gate.reader().check_known(&self.by)?;
        let lease = LeaseId(request.id);
        let remaining_ms = self.gate.lease_remaining(lease).await?;
        let reader = self.gate.reader();
        // The leader knows it, so it exists, but its grant may be still on its way to this member;
        // and so may be the newest of its keys.
        if remaining_ms.is_some() && (request.keys || reader.lease(lease).is_none()) {
            self.gate.linearize().await?;
        }
        let view = reader.lease(lease);
        let mut response = LeaseTimeToLiveResponse {
            header: Some(self.header_now().into()),
            id: request.id,
            ttl: -1,
            granted_ttl: 0,
            keys: Vec::new(),
        };
        if let (Some(remaining_ms), Some(view)) = (remaining_ms, view) {
            response.ttl = seconds(remaining_ms);
            response.granted_ttl = seconds(view.ttl_ms);
            if request.keys {
                response.keys = reader.lease_keys(lease).unwrap_or_default();
                reader.check_lease(&self.by, lease, Permissions::READ)?;
            }
        }
        Ok(response)
    }

    /// Every lease this member knows. They tell of their keys, and so all of these must be readable.
    pub fn lease_leases(&self, _: LeaseLeasesRequest) -> Result<LeaseLeasesResponse, Error> {
        let reader = self.gate.reader();
        reader.check_known(&self.by)?;
        let leases = reader.leases();
        for view in &leases {
            reader.check_lease(&self.by, view.lease, Permissions::READ)?;
        }
        let leases = leases
            .into_iter()
            .map(|view| LeaseStatus { id: view.lease.0 });
        Ok(LeaseLeasesResponse {
            header: Some(self.header_now().into()),
            leases: leases.collect(),
        })
    }
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).unwrap_or(i64::MAX)
}
