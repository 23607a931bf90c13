//! Awaiting what a cluster comes to, by asking it again and again: it is not ours to be told.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::{MemberListRequest, RangeRequest, StatusRequest, StatusResponse};
use tokio::net::TcpStream;

use super::kind::Protocol;
use super::{Cluster, POLL, READY_DEADLINE, zookeeper};

impl Cluster {
    /// Awaits that every running member serves: linearizable reads, and knowing every member's
    /// name, or where only ZooKeeper's protocol is spoken, sessions.
    ///
    /// # Errors
    /// When a member has exited or the deadline passes.
    pub async fn await_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        for index in 0..self.members.len() {
            if self.members[index].process.is_none() {
                continue;
            }
            loop {
                ensure!(
                    self.members[index].is_running(),
                    "{} exited",
                    self.members[index].name
                );
                match self.probe(index).await {
                    Ok(()) => break,
                    Err(error) if Instant::now() > deadline => {
                        bail!("{} does not serve: {error:#}", self.members[index].name)
                    }
                    Err(_) => tokio::time::sleep(POLL).await,
                }
            }
        }
        Ok(())
    }

    /// Awaits that a member takes connections of ZooKeeper's clients, whatever it does with them.
    ///
    /// # Errors
    /// When it does not after the deadline.
    pub async fn await_listening(&self, index: usize) -> Result<()> {
        let address = self.members[index].zookeeper_address();
        let deadline = Instant::now() + READY_DEADLINE;
        while TcpStream::connect(address).await.is_err() {
            ensure!(Instant::now() < deadline, "it does not listen");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn probe(&mut self, index: usize) -> Result<()> {
        let member = &self.members[index];
        if self.kind.speaks(Protocol::EtcdV3) && !member.is_joiner {
            self.probe_etcd(index).await
        } else {
            zookeeper::probe(member.zookeeper_address()).await
        }
    }

    async fn probe_etcd(&mut self, index: usize) -> Result<()> {
        let channel = self.members[index].channel.clone();
        let range = RangeRequest {
            key: "ready".into(),
            ..Default::default()
        };
        let mut client = KvClient::new(channel.clone());
        tokio::time::timeout(Duration::from_secs(2), client.range(range)).await??;
        let list = ClusterClient::new(channel)
            .member_list(MemberListRequest {
                linearizable: false,
            })
            .await?
            .into_inner();
        self.id = list
            .header
            .context("member list without header")?
            .cluster_id;
        for member in list.members {
            ensure!(
                !member.name.is_empty(),
                "a member has not published its name"
            );
            if let Some(ours) = self.members.iter_mut().find(|m| m.name == member.name) {
                ours.id = member.id;
            }
        }
        Ok(())
    }

    /// The index of the leader, as `from` sees it.
    ///
    /// # Errors
    /// When no leader appears in time.
    pub async fn leader(&self, from: usize) -> Result<usize> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            let leader = self.status_of(from).await.map_or(0, |status| status.leader);
            if let Some(index) = self.members.iter().position(|m| m.id == leader) {
                return Ok(index);
            }
            ensure!(Instant::now() < deadline, "no leader");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Awaits that `from` knows of no leader.
    ///
    /// # Errors
    /// When it still has one after the deadline.
    pub async fn await_no_leader(&self, from: usize) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        while self.status_of(from).await?.leader != 0 {
            ensure!(Instant::now() < deadline, "there is still a leader");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Awaits that the learner `index` has applied what the others have.
    ///
    /// # Errors
    /// When it has not after the deadline.
    pub async fn await_learner(&self, index: usize) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            let applied = self
                .status_of(index)
                .await
                .map(|status| status.raft_applied_index);
            if applied.is_ok_and(|applied| applied > 0) {
                let wanted = self.status_of(0).await?.raft_applied_index;
                if self.status_of(index).await?.raft_applied_index >= wanted {
                    return Ok(());
                }
            }
            ensure!(Instant::now() < deadline, "the learner lags behind");
            tokio::time::sleep(POLL).await;
        }
    }

    async fn status_of(&self, index: usize) -> Result<StatusResponse> {
        let mut client = MaintenanceClient::new(self.members[index].channel.clone());
        let status = client.status(StatusRequest {});
        let status = tokio::time::timeout(Duration::from_secs(2), status).await??;
        Ok(status.into_inner())
    }
}
