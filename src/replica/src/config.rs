//! What a member is started with.

use crate::Unavailable;
use std::time::Duration;

/// How a member is started. Names in brackets are etcd's flags.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member's human-readable name \[name\].
    pub name: String,
    /// Where peers reach this member \[initial-advertise-peer-urls\].
    pub peer_urls: Vec<String>,
    /// Where clients reach this member \[advertise-client-urls\].
    pub client_urls: Vec<String>,
    /// Where clients reach this member that do not speak HTTP: `tcp://host:port`, `tls` for TLS.
    pub stream_urls: Vec<String>,
    /// The members that the cluster starts with, or that this one joins, by name with their peer
    /// URLs, this one among them \[initial-cluster\]. Unused once there is data.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    /// Keeps apart clusters that are started with the same URLs \[initial-cluster-token\].
    pub cluster_token: String,
    /// Join a running cluster, to which this member has been added \[initial-cluster-state
    /// existing\], rather than start a new one. Unused once there is data.
    pub join: bool,
    /// Wait until it has been added, rather than fail, when it is to join and has not been.
    pub await_membership: bool,
    /// Make this member the only one, whatever its data says \[force-new-cluster\].
    pub force_new_cluster: bool,
    /// One tick, and the time between a leader's heartbeats \[heartbeat-interval\].
    pub heartbeat: Duration,
    /// How long to wait for a leader before an election \[election-timeout\].
    pub election: Duration,
    /// Ask before an election whether it could be won \[pre-vote\].
    pub pre_vote: bool,
    /// Do not wait a whole election timeout for the first election
    /// \[initial-election-tick-advance\].
    pub advance_first_election: bool,
    /// Refuse changes of members that would cost the quorum \[strict-reconfig-check\].
    pub strict_reconfig: bool,
    /// How many learners there may be \[max-learners\].
    pub learners_max: u32,
    /// Applied entries after which a checkpoint is written \[snapshot-count\].
    pub checkpoint_entries: u64,
    /// Bytes of applied entries after which a checkpoint is written, whatever their number.
    pub checkpoint_bytes: u64,
    /// Entries kept behind a checkpoint, so that a slow follower need not take a snapshot
    /// \[snapshot-catchup-entries\].
    pub catchup_entries: u64,
    /// What election timeouts are drawn from; members draw apart even from equal seeds.
    pub seed: u64,
}

impl Default for Config {
    /// etcd's defaults.
    fn default() -> Config {
        let url = |port: u16| vec![format!("http://localhost:{port}")];
        Config {
            name: "default".to_owned(),
            peer_urls: url(2380),
            client_urls: url(2379),
            stream_urls: Vec::new(),
            initial_cluster: vec![("default".to_owned(), url(2380))],
            cluster_token: "etcd-cluster".to_owned(),
            join: false,
            await_membership: false,
            force_new_cluster: false,
            heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(1000),
            pre_vote: true,
            advance_first_election: true,
            strict_reconfig: true,
            learners_max: 1,
            checkpoint_entries: 10_000,
            checkpoint_bytes: 64 << 20,
            catchup_entries: 5_000,
            seed: 0,
        }
    }
}

impl Config {
    /// Ticks in an election timeout.
    pub(crate) fn election_ticks(&self) -> usize {
        let ticks = self.election.as_millis() / self.heartbeat.as_millis().max(1);
        (ticks as usize).max(2)
    }

    /// How long a request may take before it is answered with [`Unavailable::TimedOut`] or one of
    /// its kin: 5 s for the queue, and two elections (etcd's `ReqTimeout`).
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election
    }
}

/// Why a member did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The disk failed, or what is on it cannot be trusted.
    #[error(transparent)]
    Fault(#[from] store::Fault),
    /// The checkpoint does not hold what a checkpoint holds.
    #[error("the checkpoint cannot be read: {0}")]
    Damaged(String),
    /// The initial cluster does not name this member with its URLs.
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    NotInInitialCluster(String),
    /// The initial cluster names this member with other URLs than it advertises.
    #[error(
        "--initial-cluster has {name}={listed:?} but missing from \
             --initial-advertise-peer-urls={advertised:?}"
    )]
    PeerUrlsDiffer {
        /// This member.
        name: String,
        /// What the initial cluster says.
        listed: Vec<String>,
        /// What this member says.
        advertised: Vec<String>,
    },
    /// Nobody of the cluster to join answers.
    #[error("cannot fetch cluster info from peer urls: {0}")]
    NobodyAnswers(String),
    /// The cluster to join is another than the initial cluster says.
    #[error("error validating peerURLs: {0}")]
    OtherCluster(String),
    /// This program has no transport for such a URL.
    #[error("peer URL {0:?} is not http://host:port")]
    PeerUrl(String),
    /// No thread could be started.
    #[error("no thread could be started: {0}")]
    Thread(#[from] std::io::Error),
    /// It was stopped while it started.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
