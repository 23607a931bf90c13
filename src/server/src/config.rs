//! What a server is started with, checked by etcd's rules.

use crate::compaction::Retention;
use crate::discovery;
use crate::flags::value::{FlagValue, Kind, StreamUrls, Urls, Words};
use crate::tls::Files;
use crate::url;
use gateway::limits::REQUEST_BYTES_MAX;
use gateway::url::{Scheme, Url};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Above this an election takes longer than anyone wants to wait (etcd's bound).
const ELECTION_MS_MAX: u64 = 50_000;
/// etcd's quota where none is set.
const QUOTA_DEFAULT: u64 = 2 << 30;
/// How hard passwords can be hashed.
const BCRYPT_COSTS: RangeInclusive<u32> = 4..=31;
const BCRYPT_COST_DEFAULT: u32 = 10;
/// The quota beyond which etcd warns that it was not made for that.
const QUOTA_SUGGESTED_MAX: u64 = 8 << 30;
/// The name that members have when none is given.
const DEFAULT_NAME: &str = "default";
/// The cluster that a member founds when none is given.
const DEFAULT_CLUSTER: &str = "default=http://localhost:2380";

/// Who founds a cluster is said in one way.
const CONFLICTING_BOOTSTRAP: &str = "multiple discovery or bootstrap flags are set. Choose one of \
     \"initial-cluster\", \"discovery\" or \"discovery-srv\"";

/// Every setting that has an effect; see `triglot --help` for each.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub name: String,
    pub data_dir: String,
    pub wal_dir: String,
    pub snapshot_count: u64,
    pub snapshot_catchup_entries: u64,
    pub heartbeat_ms: u64,
    pub election_ms: u64,
    pub advance_first_election: bool,
    pub listen_peer_urls: Urls,
    pub listen_client_urls: Urls,
    pub listen_client_http_urls: Urls,
    pub listen_zookeeper_urls: StreamUrls,
    pub zookeeper_tls: Files,
    pub listen_zookeeper_admin_urls: Urls,
    pub zookeeper_admin_path: String,
    pub advertise_zookeeper_urls: StreamUrls,
    pub zoo_cfg: String,
    /// The file of Java's login configuration that names who may log in by SASL.
    pub zookeeper_jaas: String,
    /// Its section; empty is `Server`.
    pub zookeeper_jaas_section: String,
    /// The password of its user `super` in place of the one there.
    pub zookeeper_sasl_super_password: Option<String>,
    /// What `zoo_cfg` sets.
    pub zookeeper: zookeeper::Options,
    pub quota_bytes: i64,
    pub max_txn_ops: usize,
    /// How hard passwords are hashed.
    pub bcrypt_cost: u64,
    pub max_request_bytes: usize,
    pub max_concurrent_streams: u32,
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    pub reuse_port: bool,
    pub reuse_address: bool,
    pub enable_json: bool,
    pub enable_v2: bool,
    pub v2_root: etcd_v2::Root,
    pub feature_gates: FeatureGates,
    pub advertise_peer_urls: Urls,
    pub initial_cluster: String,
    pub initial_cluster_state: ClusterState,
    pub initial_cluster_token: String,
    pub discovery: Option<discovery::Place>,
    pub discovery_proxy: Option<discovery::Proxy>,
    pub advertise_client_urls: Urls,
    pub strict_reconfig_check: bool,
    pub pre_vote: bool,
    pub auto_compaction_retention: String,
    pub auto_compaction_mode: String,
    pub cors: Words,
    pub host_whitelist: Words,
    pub metrics: MetricsLevel,
    pub listen_metrics_urls: Urls,
    pub log_outputs: Words,
    pub log_level: LogLevel,
    pub log_format: LogFormat,
    pub watch_progress_interval: Duration,
    pub max_learners: u32,
    pub force_new_cluster: bool,
    pub no_fsync: bool,
    /// The flags that were given, by any means.
    pub given: BTreeSet<&'static str>,
}

impl Config {
    /// Settings that follow from others where they were not given.
    pub fn complete(&mut self) {
        // Clients must be able to reach what is advertised, which nobody can guess from where the
        // server listens; `check` refuses the gap.
        if self.given.contains("listen-client-urls")
            && !self.given.contains("advertise-client-urls")
        {
            self.advertise_client_urls = Urls::default();
        }
        if self.discovery.is_some() {
            if !self.given.contains("initial-cluster") {
                self.initial_cluster.clear();
            }
        } else if self.name != DEFAULT_NAME && self.initial_cluster == DEFAULT_CLUSTER {
            self.initial_cluster = initial_cluster_of(&self.name, &self.advertise_peer_urls);
        }
        if self.data_dir.is_empty() {
            self.data_dir = format!("{}.etcd", self.name);
        }
    }

    /// Takes over who may log in by SASL from the text of `zookeeper_jaas`. As in ZooKeeper, that
    /// may be a file for clients alone, unless it was said which of its sections is the server's.
    pub fn take_users(&mut self, text: &str) -> Result<(), String> {
        let section = match self.zookeeper_jaas_section.as_str() {
            "" => "Server",
            section => section,
        };
        let told = zookeeper::jaas::users(text, section)
            .map_err(|why| format!("{}: {why}", self.zookeeper_jaas))?;
        let Some(mut users) = told else {
            return match self.zookeeper_jaas_section.is_empty() {
                true => Ok(()),
                false => Err(format!(
                    "{} has no section {section:?}",
                    self.zookeeper_jaas
                )),
            };
        };
        if let Some(password) = &self.zookeeper_sasl_super_password
            && let Some(known) = users.passwords.get_mut("super")
        {
            known.clone_from(password);
        }
        self.zookeeper.sasl = Some(users.into());
        Ok(())
    }

    /// Where ZooKeeper's clients reach the server. Unless it was said, that is where it listens; and
    /// who listens at every address is found where etcd's clients find it.
    pub fn reachable_zookeeper_urls(&self) -> Urls {
        if self.given.contains("advertise-zookeeper-urls") {
            return self.advertise_zookeeper_urls.0.clone();
        }
        let advertised = self.advertise_client_urls.0.iter();
        let host = advertised.filter_map(Url::host_port).next();
        let reachable = |url: &Url| match (url.host_port(), host) {
            (Some((at, port)), Some((host, _))) if is_anywhere(at) => Url {
                address: if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                },
                ..url.clone()
            },
            _ => url.clone(),
        };
        let urls = self.listen_zookeeper_urls.0.0.iter().map(reachable);
        Urls(urls.collect())
    }

    /// etcd's refusals, in its order and words; remarks on what is legal but unwise.
    pub fn check(&self, remarks: &mut Vec<String>) -> Result<(), String> {
        let listens = [
            &self.listen_peer_urls,
            &self.listen_client_urls,
            &self.listen_client_http_urls,
            &self.listen_metrics_urls,
            &self.listen_zookeeper_urls.0,
            &self.listen_zookeeper_admin_urls,
        ];
        for url in listens.iter().flat_map(|urls| &urls.0) {
            url::check_bindable(url)?;
        }
        for (flag, form, urls) in [
            (
                "--initial-advertise-peer-urls",
                "\"host:port\"",
                &self.advertise_peer_urls,
            ),
            (
                "--advertise-client-urls",
                "in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\"",
                &self.advertise_client_urls,
            ),
            (
                "--advertise-zookeeper-urls",
                "\"host:port\"",
                &self.advertise_zookeeper_urls.0,
            ),
        ] {
            for url in &urls.0 {
                url::check_advertisable(url)
                    .map_err(|why| format!("{flag} \"{urls}\" must be {form} ({why})"))?;
            }
        }
        if self.discovery.is_some() && !self.initial_cluster.is_empty() {
            return Err(CONFLICTING_BOOTSTRAP.into());
        }
        self.check_times()?;
        check_bytes("--max-request-bytes", self.max_request_bytes)?;
        if self.advertise_client_urls.0.is_empty() && !self.listen_client_urls.0.is_empty() {
            return Err(
                "--advertise-client-urls is required when --listen-client-urls is set explicitly"
                    .into(),
            );
        }
        self.retention()?;
        let http = listens.into_iter().chain([&self.advertise_peer_urls]);
        self.check_secure(http)?;
        self.remark(remarks);
        Ok(())
    }

    fn check_times(&self) -> Result<(), String> {
        let (heartbeat, election) = (self.heartbeat_ms, self.election_ms);
        if heartbeat == 0 {
            return Err("--heartbeat-interval must be >0 (set to 0ms)".into());
        }
        if election == 0 {
            return Err("--election-timeout must be >0 (set to 0ms)".into());
        }
        if heartbeat.saturating_mul(5) > election {
            return Err(format!(
                "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
            ));
        }
        if election > ELECTION_MS_MAX {
            return Err(format!(
                "--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_MS_MAX}ms"
            ));
        }
        Ok(())
    }

    /// Never plain text where TLS was asked for.
    fn check_secure<'a>(&self, lists: impl Iterator<Item = &'a Urls>) -> Result<(), String> {
        let mut urls = lists.flat_map(|urls| &urls.0);
        match urls.find(|url| url.secure() && url.scheme != Scheme::Tls) {
            Some(url) => Err(format!(
                "{url} asks for TLS, which comes with a later version; refusing to serve plain text instead"
            )),
            None => Ok(()),
        }
    }

    /// What ZooKeeper's clients find is said by flags and by its own file together.
    pub fn check_zookeeper(&self) -> Result<(), String> {
        check_bytes("jute.maxbuffer", self.zookeeper.frame_bytes_max)?;
        let mut urls = self.listen_zookeeper_urls.0.0.iter();
        match urls.find(|url| url.secure()) {
            Some(url) if self.zookeeper_tls.cert.is_empty() => Err(format!(
                "{url} asks for TLS, which takes --zookeeper-cert-file"
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn remark(&self, remarks: &mut Vec<String>) {
        if self.name == DEFAULT_NAME {
            remarks.push(
                "members of a cluster need different names: consider --name instead of 'default'"
                    .into(),
            );
        }
        if self
            .quota()
            .is_some_and(|quota| quota > QUOTA_SUGGESTED_MAX)
        {
            remarks.push("--quota-backend-bytes is above the 8 GiB that etcd suggests".into());
        }
        if self.no_fsync {
            remarks.push("--unsafe-no-fsync: acknowledged writes may be lost".into());
        }
        for (gate, on) in &self.feature_gates.0 {
            remarks.push(format!("feature gate {gate}={on} changes nothing here"));
        }
    }

    /// Where the member's data lies, as in etcd.
    pub fn member_dir(&self) -> PathBuf {
        Path::new(&self.data_dir).join("member")
    }

    /// Where the Raft log lies.
    pub fn log_dir(&self) -> PathBuf {
        if self.wal_dir.is_empty() {
            self.member_dir().join("wal")
        } else {
            PathBuf::from(&self.wal_dir)
        }
    }

    /// Where the checkpoints lie.
    pub fn checkpoint_dir(&self) -> PathBuf {
        self.member_dir().join("snap")
    }

    /// Bytes of the keyspace at which the alarm is raised; none means never.
    pub fn quota(&self) -> Option<u64> {
        match u64::try_from(self.quota_bytes) {
            Ok(0) => Some(QUOTA_DEFAULT),
            Ok(bytes) => Some(bytes),
            Err(_) => None,
        }
    }

    /// How hard passwords are hashed. As in etcd, what cannot be is as if nothing was said.
    pub fn bcrypt_cost(&self) -> u32 {
        let possible = u32::try_from(self.bcrypt_cost).ok();
        let possible = possible.filter(|cost| BCRYPT_COSTS.contains(cost));
        possible.unwrap_or(BCRYPT_COST_DEFAULT)
    }

    /// What automatic compaction keeps.
    pub fn retention(&self) -> Result<Retention, String> {
        Retention::parse(&self.auto_compaction_mode, &self.auto_compaction_retention)
    }

    /// The members of `--initial-cluster` by name, checked for founding a cluster or for joining
    /// one: this member must be named, under the URLs that it advertises when it founds.
    pub fn initial_members(&self) -> Result<BTreeMap<String, Urls>, String> {
        let members = parse_initial_cluster(&self.initial_cluster)?;
        let Some(own) = members.get(&self.name) else {
            return Err(format!(
                "couldn't find local name {:?} in the initial cluster configuration",
                self.name
            ));
        };
        let mut seen = BTreeSet::new();
        for url in members.values().flat_map(|urls| &urls.0) {
            if !seen.insert(url) {
                return Err(format!(
                    "initial cluster {} has duplicate url",
                    self.initial_cluster
                ));
            }
        }
        match self.initial_cluster_state {
            ClusterState::Existing => {}
            ClusterState::New => self.check_advertised(own)?,
        }
        Ok(members)
    }

    /// What tells clusters apart that are founded with the same URLs.
    pub fn cluster_token(&self) -> &str {
        match &self.discovery {
            Some(place) => &place.text,
            None => &self.initial_cluster_token,
        }
    }

    fn check_advertised(&self, own: &Urls) -> Result<(), String> {
        let advertised = &self.advertise_peer_urls;
        if own == advertised || same_places(own, advertised) {
            return Ok(());
        }
        let beyond = |of: &Urls, other: &Urls| {
            let missing = of.0.iter().filter(|url| !other.0.contains(url));
            Urls(missing.cloned().collect())
        };
        let missing = beyond(own, advertised);
        if !missing.0.is_empty() {
            return Err(format!(
                "--initial-cluster has {} but missing from --initial-advertise-peer-urls={advertised}",
                initial_cluster_of(&self.name, &missing)
            ));
        }
        Err(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
            beyond(advertised, own),
            initial_cluster_of(&self.name, own)
        ))
    }
}

/// Whether requests of this size can be replicated.
fn check_bytes(setting: &str, bytes: usize) -> Result<(), String> {
    match bytes <= REQUEST_BYTES_MAX {
        true => Ok(()),
        false => Err(format!(
            "{setting}[{bytes}] must be at most {REQUEST_BYTES_MAX}"
        )),
    }
}

/// Whether this stands for every address of the machine.
fn is_anywhere(host: &str) -> bool {
    host.is_empty() || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// Whether two lists of URLs, under different names, resolve to the same addresses.
fn same_places(one: &Urls, other: &Urls) -> bool {
    let places = |urls: &Urls| -> Option<BTreeSet<_>> {
        let resolved: Result<Vec<_>, _> = urls.0.iter().map(url::resolve).collect();
        Some(resolved.ok()?.into_iter().flatten().collect())
    };
    one.0.len() == other.0.len() && places(one).is_some_and(|one| Some(one) == places(other))
}

/// `name=URL,name=URL` of one member.
pub fn initial_cluster_of(name: &str, urls: &Urls) -> String {
    let pairs: Vec<String> = urls.0.iter().map(|url| format!("{name}={url}")).collect();
    pairs.join(",")
}

/// The URLs of `name=URL,name=URL` by name.
pub fn parse_initial_cluster(text: &str) -> Result<BTreeMap<String, Urls>, String> {
    let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        members
            .entry(name.to_owned())
            .or_default()
            .push(url::parse(url)?);
    }
    Ok(members
        .into_iter()
        .map(|(name, mut urls)| {
            urls.sort();
            (name, Urls(urls))
        })
        .collect())
}

/// Declares an enum whose variants are a flag's legal words.
macro_rules! choice {
    ($(#[$about:meta])* $name:ident, $refusal:literal, $($(#[$what:meta])* $variant:ident = $word:literal),+) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name {
            #[default]
            $($(#[$what])* $variant),+
        }

        impl FlagValue for $name {
            const KIND: Kind = Kind::Text;
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($name::$variant),)+
                    _ => Err(format!($refusal, text)),
                }
            }
        }
    };
}

choice!(
    /// Whether a member without data founds a cluster or joins one.
    ClusterState,
    "unexpected clusterState {:?}",
    New = "new",
    Existing = "existing"
);
choice!(
    /// What to do when discovery finds that all members are there.
    Fallback,
    "invalid value {:?}",
    Exit = "exit",
    Proxy = "proxy"
);
choice!(
    /// How much is measured.
    MetricsLevel,
    "unknown level {:?}, want basic or extensive",
    Basic = "basic",
    Extensive = "extensive"
);
choice!(
    /// How a line of the log looks.
    LogFormat,
    "unknown log format: {}, supported values json, console",
    Json = "json",
    Console = "console"
);
choice!(
    /// The least that is logged.
    LogLevel,
    "unrecognized level: {:?}",
    Debug = "debug",
    Info = "info",
    Warn = "warn",
    Error = "error",
    Panic = "panic",
    Fatal = "fatal"
);

/// Feature gates that were switched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates(pub BTreeMap<String, bool>);

/// The gates of etcd 3.7, and Kubernetes' two that stand for many.
const GATES: &[&str] = &[
    "AllAlpha",
    "AllBeta",
    "CompactHashCheck",
    "FastLeaseKeepAlive",
    "InitialCorruptCheck",
    "LeaseCheckpoint",
    "LeaseCheckpointPersist",
    "PriorityRequest",
    "SetMemberLocalAddr",
    "StopGRPCServiceOnDefrag",
    "TxnModeWriteWithSharedBuffer",
];

impl FlagValue for FeatureGates {
    const KIND: Kind = Kind::List;
    fn parse(text: &str) -> Result<Self, String> {
        let mut gates = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (gate, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("missing bool value for {pair}"))?;
            if !GATES.contains(&gate.trim()) {
                return Err(format!("unrecognized feature gate: {gate}"));
            }
            let on = bool::parse(value.trim())
                .map_err(|why| format!("invalid value of {gate}={value}, err: {why}"))?;
            gates.insert(gate.trim().to_owned(), on);
        }
        Ok(FeatureGates(gates))
    }
}
