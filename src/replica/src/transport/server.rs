//! The side that listens.

use super::{FRAME_BYTES_MAX, REMOVED};
use crate::handle::Handle;
use crate::shell::Shared;
use crate::shell::checkpointer::{Incoming, Job};
use crate::{MemberError, MemberRefusal, Unavailable};
use keyspace::LeaseId;
use proto::peer::peer_server::{Peer, PeerServer};
use proto::peer::{
    Closed, Envelope, LeaseAnswer, LeaseCall, Member, MembersAnswer, MembersCall, PingCall, Pong,
    PromoteAnswer, PromoteCall, PromoteResult, SnapshotChunk, SnapshotResult, TouchAnswer,
    TouchCall,
};
use std::sync::Arc;
use store::Record;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, Streaming};

/// Chunks of a snapshot between the network and the checkpoint thread.
const CHUNKS_MAX: usize = 4;

/// Answers peers; to be mounted on the peer listeners.
#[derive(Clone)]
pub struct PeerService {
    handle: Handle,
}

impl PeerService {
    /// The service of one replica.
    pub fn server(handle: Handle) -> PeerServer<PeerService> {
        PeerServer::new(PeerService { handle })
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }

    fn shared(&self) -> &Arc<Shared> {
        self.handle.shared()
    }

    /// Whether the call is from a member of this cluster to this one. One that is not known (yet)
    /// is believed: who was just added may be known to the others first.
    fn check(&self, cluster: u64, from: u64, to: u64) -> Result<(), Status> {
        self.check_cluster(cluster)?;
        if to != self.shared().member {
            return Err(Status::failed_precondition("this is another member"));
        }
        if self.shared().roster.read().is_removed(from) {
            return Err(Status::failed_precondition(REMOVED));
        }
        Ok(())
    }

    fn check_cluster(&self, cluster: u64) -> Result<(), Status> {
        match cluster == self.shared().cluster {
            true => Ok(()),
            false => Err(Status::failed_precondition("cluster ID mismatch")),
        }
    }
}

fn stopped(_: Unavailable) -> Status {
    Status::unavailable("stopped")
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn messages(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Closed>, Status> {
        let mut stream = request.into_inner();
        while let Some(envelope) = stream.message().await? {
            self.check(envelope.cluster, envelope.from, envelope.to)?;
            let len_bytes: usize = envelope.messages.iter().map(bytes::Bytes::len).sum();
            let stats = self.shared().peers.stats_of(envelope.from);
            stats.received_bytes.add(len_bytes as u64);
            stats.received_messages.add(envelope.messages.len() as u64);
            self.shared()
                .inbox
                .receive(envelope.messages)
                .map_err(stopped)?;
        }
        Ok(Response::new(Closed {}))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotResult>, Status> {
        let mut stream = request.into_inner();
        let first = stream.message().await?.and_then(|chunk| chunk.header);
        let header = first.ok_or_else(|| Status::invalid_argument("no header"))?;
        self.check(header.cluster, header.from, header.to)?;
        let (records, arriving) = mpsc::channel(CHUNKS_MAX);
        let (taken, outcome) = oneshot::channel();
        let job = Job::Receive(Incoming {
            message: header.message,
            meta: header.meta,
            records: arriving,
            taken,
        });
        let jobs = &self.shared().checkpoint_jobs;
        jobs.send(job).map_err(|_| stopped(Unavailable::Stopped))?;
        while let Some(chunk) = stream.message().await? {
            let complete = chunk.complete;
            let chunk = chunk.records.into_iter().map(|record| Record {
                key: record.key,
                value: record.value,
            });
            // Fails when the receiver gave up, which its outcome says.
            let refused = records.send(Some(chunk.collect())).await.is_err();
            if refused || (complete && records.send(None).await.is_err()) {
                break;
            }
        }
        drop(records);
        let taken = outcome.await.unwrap_or(false);
        Ok(Response::new(SnapshotResult { taken }))
    }

    async fn ping(&self, request: Request<PingCall>) -> Result<Response<Pong>, Status> {
        let call = request.into_inner();
        self.check(call.cluster, call.from, call.to)?;
        Ok(Response::new(Pong {}))
    }

    async fn members(&self, _: Request<MembersCall>) -> Result<Response<MembersAnswer>, Status> {
        let members = self.handle.members().into_iter().map(|member| Member {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            learner: member.learner,
        });
        Ok(Response::new(MembersAnswer {
            cluster: self.shared().cluster,
            members: members.collect(),
        }))
    }

    async fn keep_alive(
        &self,
        request: Request<LeaseCall>,
    ) -> Result<Response<LeaseAnswer>, Status> {
        let call = request.into_inner();
        self.check_cluster(call.cluster)?;
        let renewed = self.handle.keep_alive_leading(LeaseId(call.lease)).await;
        Ok(Response::new(match renewed {
            Ok(Some(ttl_ms)) => LeaseAnswer {
                ttl_ms,
                ..LeaseAnswer::default()
            },
            Ok(None) => LeaseAnswer {
                missing: true,
                ..LeaseAnswer::default()
            },
            Err(_) => LeaseAnswer {
                not_leader: true,
                ..LeaseAnswer::default()
            },
        }))
    }

    async fn touch(&self, request: Request<TouchCall>) -> Result<Response<TouchAnswer>, Status> {
        let call = request.into_inner();
        self.check_cluster(call.cluster)?;
        let led = self
            .handle
            .touch_leading(call.leases.into_iter().map(LeaseId));
        Ok(Response::new(TouchAnswer { not_leader: !led }))
    }

    async fn remaining(
        &self,
        request: Request<LeaseCall>,
    ) -> Result<Response<LeaseAnswer>, Status> {
        let call = request.into_inner();
        self.check_cluster(call.cluster)?;
        let remaining = self.handle.remaining_leading(LeaseId(call.lease)).await;
        Ok(Response::new(match remaining {
            Ok(Some(remaining_ms)) => LeaseAnswer {
                remaining_ms,
                ..LeaseAnswer::default()
            },
            Ok(None) => LeaseAnswer {
                missing: true,
                ..LeaseAnswer::default()
            },
            Err(_) => LeaseAnswer {
                not_leader: true,
                ..LeaseAnswer::default()
            },
        }))
    }

    async fn promote(
        &self,
        request: Request<PromoteCall>,
    ) -> Result<Response<PromoteAnswer>, Status> {
        let call = request.into_inner();
        self.check_cluster(call.cluster)?;
        let promoted = self.handle.promote_leading(call.id, call.after).await;
        let version = *promoted.as_ref().unwrap_or(&0);
        let result = match promoted {
            Ok(_) => PromoteResult::Promoted,
            Err(MemberError::Unavailable(Unavailable::NotLeader)) => PromoteResult::NotLeader,
            Err(MemberError::Refused(MemberRefusal::NotFound)) => PromoteResult::NotFound,
            Err(MemberError::Refused(MemberRefusal::NotLearner)) => PromoteResult::NotLearner,
            Err(MemberError::Refused(MemberRefusal::LearnerNotReady)) => {
                PromoteResult::LearnerNotReady
            }
            Err(MemberError::Refused(MemberRefusal::NotEnoughStarted)) => {
                PromoteResult::NotEnoughStarted
            }
            Err(MemberError::Refused(MemberRefusal::OtherVersion)) => PromoteResult::OtherVersion,
            Err(MemberError::Refused(_) | MemberError::Unavailable(_)) => PromoteResult::Unknown,
        };
        Ok(Response::new(PromoteAnswer {
            version,
            result: result.into(),
        }))
    }
}
