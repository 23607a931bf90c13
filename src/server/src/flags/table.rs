//! The table of flags: etcd's names, defaults and order, in our own words.

use super::value::{FlagValue, Kind, Words};
use super::{Differs, Effect, Flag, Group};
use crate::config::{Config, Fallback};
use std::time::Duration;

/// Why TLS flags stop the start: serving plain text where TLS was asked for would be worse.
const NO_TLS: &str = "TLS comes with a later version; refusing to serve plain text instead";
/// Why tracing flags do nothing.
const NO_TRACING: &str = "spans are not exported";
/// Why the flags of newer discovery stop the start: without them the member would form a cluster of
/// its own.
const NO_V3_DISCOVERY: &str = "discovery by etcd v3 is not offered; use --discovery, or name the members in --initial-cluster";
/// The same of discovery by DNS.
const NO_SRV: &str = "discovery by DNS is not offered; use --discovery, or name the members in --initial-cluster";
/// Why flags of etcd v2's proxy do nothing, or stop the start.
const NO_PROXY: &str = "there is no proxy mode";
/// Why flags of etcd's database do nothing.
const NO_BBOLT: &str = "there is no bbolt database";
/// Why flags of etcd's consistency checks do nothing.
const NO_CHECK: &str = "members do not compare hashes";
/// Why flags of tokens do nothing.
const NO_TOKENS: &str = "tokens come with a later version";

/// A flag that sets a field.
fn flag<T: FlagValue>(
    group: Group,
    name: &'static str,
    default: &'static str,
    field: fn(&mut Config) -> &mut T,
    about: &'static str,
) -> Flag {
    let effect = Effect::Sets(Box::new(move |config, text| {
        *field(config) = T::parse(text)?;
        Ok(())
    }));
    Flag {
        group,
        name,
        default,
        about,
        kind: T::KIND,
        effect,
    }
}

/// A flag that is understood and does nothing.
fn inert<T: FlagValue + PartialEq>(
    group: Group,
    name: &'static str,
    default: &'static str,
    why: &'static str,
    about: &'static str,
) -> Flag {
    Flag {
        group,
        name,
        default,
        about,
        kind: T::KIND,
        effect: Effect::Nothing(differs::<T>(default), why),
    }
}

/// A flag that is understood, and stops the start when it asks for more than its default.
fn refused<T: FlagValue + PartialEq>(
    group: Group,
    name: &'static str,
    default: &'static str,
    why: &'static str,
    about: &'static str,
) -> Flag {
    Flag {
        group,
        name,
        default,
        about,
        kind: T::KIND,
        effect: Effect::Refuses(differs::<T>(default), why),
    }
}

fn differs<T: FlagValue + PartialEq>(default: &'static str) -> Differs {
    Box::new(move |text| Ok(T::parse(text)? != T::parse(default)?))
}

/// A former name of a flag.
fn former(name: &'static str, kind: Kind, now: &'static str) -> Flag {
    Flag {
        group: Group::Former,
        name,
        default: "",
        about: "",
        kind,
        effect: Effect::SameAs(now),
    }
}

/// Every flag, in the order of `--help`.
pub fn table() -> Vec<Flag> {
    let mut flags = process();
    flags.extend(member());
    flags.extend(limits());
    flags.extend(clustering());
    flags.extend(discovery());
    flags.extend(security());
    flags.extend(monitoring());
    flags.extend(logging());
    flags.extend(features());
    flags.extend(former_names());
    flags
}

fn process() -> Vec<Flag> {
    use Group::Process;
    let why = "it is read before the others";
    vec![
        inert::<String>(
            Process,
            "config-file",
            "",
            why,
            "YAML or JSON file with the configuration. It replaces all other flags and ETCD_ variables. Durations in it are nanoseconds.",
        ),
        inert::<bool>(Process, "version", "false", why, "Show the versions and exit."),
    ]
}

fn member() -> Vec<Flag> {
    use Group::Member;
    vec![
        flag(Member, "name", "default", |c| &mut c.name, "This member's name."),
        flag(Member, "data-dir", "", |c| &mut c.data_dir, "Where this member keeps its data; NAME.etcd if empty."),
        flag(Member, "wal-dir", "", |c| &mut c.wal_dir, "Where the Raft log lies, if not in the data directory."),
        flag(Member, "snapshot-count", "10000", |c| &mut c.snapshot_count, "Applied entries between two checkpoints of the state."),
        flag(Member, "snapshot-catchup-entries", "5000", |c| &mut c.snapshot_catchup_entries, "Entries kept in memory for slow followers behind a checkpoint."),
        flag(Member, "heartbeat-interval", "100", |c| &mut c.heartbeat_ms, "Milliseconds between the leader's heartbeats."),
        flag(Member, "election-timeout", "1000", |c| &mut c.election_ms, "Milliseconds without a heartbeat after which a member calls an election."),
        flag(Member, "initial-election-tick-advance", "true", |c| &mut c.advance_first_election, "Shorten the wait for the first election after the start."),
        flag(Member, "listen-peer-urls", "http://localhost:2380", |c| &mut c.listen_peer_urls, "Where to listen for the other members."),
        flag(Member, "listen-client-urls", "http://localhost:2379", |c| &mut c.listen_client_urls, "Where to listen for clients, gRPC and HTTP."),
        flag(Member, "listen-client-http-urls", "", |c| &mut c.listen_client_http_urls, "Where to listen for HTTP alone; then --listen-client-urls serve gRPC alone."),
        flag(Member, "listen-zookeeper-urls", "tcp://localhost:2181", |c| &mut c.listen_zookeeper_urls, "Where to listen for ZooKeeper's clients; empty for nowhere."),
        flag(Member, "zookeeper-root", "/", |c| &mut c.zookeeper.mount, "The key that is ZooKeeper's root."),
        flag(Member, "advertise-zookeeper-urls", "", |c| &mut c.advertise_zookeeper_urls, "Where ZooKeeper's clients reach this member; by default where it listens for them, with the host of --advertise-client-urls in place of every address."),
        flag(Member, "zoo-cfg", "", |c| &mut c.zoo_cfg, "ZooKeeper's configuration file, for how its clients are served."),
        flag(Member, "zookeeper-cert-file", "", |c| &mut c.zookeeper_tls.cert, "Certificate shown to ZooKeeper's clients at tls:// URLs, with those between it and its authority, in PEM."),
        flag(Member, "zookeeper-key-file", "", |c| &mut c.zookeeper_tls.key, "Its key; empty where it lies in the certificate's file."),
        flag(Member, "zookeeper-trusted-ca-file", "", |c| &mut c.zookeeper_tls.trusted_ca, "Authorities that their certificates may come from."),
        flag(Member, "zookeeper-client-auth", "need", |c| &mut c.zookeeper_tls.client_auth, "Whether they must show a certificate: 'need', 'want' or 'none'."),
        flag(Member, "listen-zookeeper-admin-urls", "", |c| &mut c.listen_zookeeper_admin_urls, "Where to serve the commands of ZooKeeper's AdminServer."),
        flag(Member, "zookeeper-jaas", "", |c| &mut c.zookeeper_jaas, "File of Java's login configuration whose section Server names ZooKeeper's clients that may log in by SASL."),
        inert::<u64>(Member, "max-wals", "5", "the log is cut by what checkpoints still need", "Number of log files to keep."),
        inert::<bool>(Member, "memory-mlock", "false", "memory is not locked", "Keep the process's pages in memory."),
        flag(Member, "quota-backend-bytes", "0", |c| &mut c.quota_bytes, "Size of the keyspace at which writes are refused until space is freed; 0 is 2 GiB, less is no quota."),
        inert::<String>(Member, "backend-bbolt-freelist-type", "map", NO_BBOLT, "Kind of bbolt's list of free pages (array, map)."),
        inert::<Duration>(Member, "backend-batch-interval", "0s", NO_BBOLT, "Longest time between two of bbolt's commits."),
        inert::<i64>(Member, "backend-batch-limit", "0", NO_BBOLT, "Most operations in one of bbolt's commits."),
    ]
}

fn limits() -> Vec<Flag> {
    use Group::Member;
    vec![
        flag(Member, "max-txn-ops", "128", |c| &mut c.max_txn_ops, "Most operations in a transaction."),
        flag(Member, "max-request-bytes", "1572864", |c| &mut c.max_request_bytes, "Largest request of a client."),
        flag(Member, "max-concurrent-streams", "4294967295", |c| &mut c.max_concurrent_streams, "Most HTTP/2 streams open at a time on a connection."),
        inert::<Duration>(Member, "grpc-keepalive-min-time", "5s", "pings are answered at any rate", "Shortest time that clients should leave between their pings."),
        flag(Member, "grpc-keepalive-interval", "2h", |c| &mut c.keepalive_interval, "Time between our pings to a client; 0 for none."),
        flag(Member, "grpc-keepalive-timeout", "20s", |c| &mut c.keepalive_timeout, "Time to wait for the answer to a ping before closing the connection."),
        flag(Member, "socket-reuse-port", "false", |c| &mut c.reuse_port, "Set SO_REUSEPORT on listeners."),
        flag(Member, "socket-reuse-address", "false", |c| &mut c.reuse_address, "Set SO_REUSEADDR on listeners."),
        flag(Member, "enable-grpc-gateway", "true", |c| &mut c.enable_json, "Serve /v3/ as JSON."),
        flag(Member, "enable-v2", "true", |c| &mut c.enable_v2, "Serve etcd's v2 protocol below /v2/."),
        flag(Member, "v2-root", "/", |c| &mut c.v2_root, "The key that is the root of etcd's v2 protocol."),
        inert::<Duration>(Member, "raft-read-timeout", "5s", "members speak gRPC to each other", "Read timeout of connections between members."),
        inert::<Duration>(Member, "raft-write-timeout", "5s", "members speak gRPC to each other", "Write timeout of connections between members."),
        flag(Member, "feature-gates", "", |c| &mut c.feature_gates, "Features to switch, as name=true,name=false: AllAlpha, AllBeta, CompactHashCheck, FastLeaseKeepAlive, InitialCorruptCheck, LeaseCheckpoint, LeaseCheckpointPersist, PriorityRequest, SetMemberLocalAddr, StopGRPCServiceOnDefrag, TxnModeWriteWithSharedBuffer. All are accepted; none changes anything here."),
    ]
}

fn clustering() -> Vec<Flag> {
    use Group::Clustering;
    vec![
        flag(Clustering, "initial-advertise-peer-urls", "http://localhost:2380", |c| &mut c.advertise_peer_urls, "Where the other members reach this one."),
        flag(Clustering, "initial-cluster", "default=http://localhost:2380", |c| &mut c.initial_cluster, "The members of a cluster to be founded or joined, as name=URL,name=URL."),
        flag(Clustering, "initial-cluster-state", "new", |c| &mut c.initial_cluster_state, "'new' to found a cluster, 'existing' to join one. Without meaning once there is data."),
        flag(Clustering, "initial-cluster-token", "etcd-cluster", |c| &mut c.initial_cluster_token, "Tells clusters apart that are founded with the same URLs."),
        flag(Clustering, "advertise-client-urls", "http://localhost:2379", |c| &mut c.advertise_client_urls, "Where clients reach this member."),
        flag(Clustering, "strict-reconfig-check", "true", |c| &mut c.strict_reconfig_check, "Refuse changes of members that would cost the quorum."),
        flag(Clustering, "pre-vote", "true", |c| &mut c.pre_vote, "Ask before an election whether it could be won, so that a member that was cut off does not disturb."),
        flag(Clustering, "auto-compaction-retention", "0", |c| &mut c.auto_compaction_retention, "How much history to keep; 0 keeps all that etcd's clients write, and of what ZooKeeper's and etcd v2's write, who have none and never compact, the newest 100,000 revisions, or fewer where they would fill the space quota. Hours, or a duration such as 5m, in the mode 'periodic'; a number of revisions in the mode 'revision'."),
        flag(Clustering, "auto-compaction-mode", "periodic", |c| &mut c.auto_compaction_mode, "How to read the retention: 'periodic' or 'revision'."),
    ]
}

fn discovery() -> Vec<Flag> {
    use Group::Clustering;
    vec![
        flag(Clustering, "discovery", "", |c| &mut c.discovery, "Where to find the members of a cluster to be founded, in place of --initial-cluster: the http:// URL of a directory of etcd v2's keys in which _config/size says how many there will be. Without meaning once there is data."),
        flag(Clustering, "discovery-proxy", "", |c| &mut c.discovery_proxy, "HTTP proxy on the way there."),
        refused::<Fallback>(Clustering, "discovery-fallback", "exit", NO_PROXY, "What to do when all members are there already: 'exit'."),
        refused::<String>(Clustering, "discovery-token", "", NO_V3_DISCOVERY, "Token of the discovery service."),
        refused::<Words>(Clustering, "discovery-endpoints", "", NO_V3_DISCOVERY, "Endpoints of the discovery service."),
        inert::<Duration>(Clustering, "discovery-dial-timeout", "2s", NO_V3_DISCOVERY, "Time to connect to the discovery service."),
        inert::<Duration>(Clustering, "discovery-request-timeout", "5s", NO_V3_DISCOVERY, "Time for a request to the discovery service."),
        inert::<Duration>(Clustering, "discovery-keepalive-time", "2s", NO_V3_DISCOVERY, "Time between pings to the discovery service."),
        inert::<Duration>(Clustering, "discovery-keepalive-timeout", "6s", NO_V3_DISCOVERY, "Time for the answer to such a ping."),
        inert::<bool>(Clustering, "discovery-insecure-transport", "true", NO_V3_DISCOVERY, "Speak to the discovery service without TLS."),
        inert::<bool>(Clustering, "discovery-insecure-skip-tls-verify", "false", NO_V3_DISCOVERY, "Trust any certificate of the discovery service."),
        inert::<String>(Clustering, "discovery-cert", "", NO_V3_DISCOVERY, "Certificate for the discovery service."),
        inert::<String>(Clustering, "discovery-key", "", NO_V3_DISCOVERY, "Key for the discovery service."),
        inert::<String>(Clustering, "discovery-cacert", "", NO_V3_DISCOVERY, "Authorities that the discovery service's certificate may come from."),
        inert::<String>(Clustering, "discovery-user", "", NO_V3_DISCOVERY, "User at the discovery service."),
        inert::<String>(Clustering, "discovery-password", "", NO_V3_DISCOVERY, "That user's password."),
        refused::<String>(Clustering, "discovery-srv", "", NO_SRV, "DNS domain with the cluster's SRV records."),
        inert::<String>(Clustering, "discovery-srv-name", "", NO_SRV, "Suffix of the SRV records' name."),
    ]
}

fn security() -> Vec<Flag> {
    use Group::{Auth, Security};
    vec![
        refused::<String>(Security, "cert-file", "", NO_TLS, "Certificate shown to clients."),
        refused::<String>(Security, "key-file", "", NO_TLS, "Its key."),
        refused::<bool>(Security, "client-cert-auth", "false", NO_TLS, "Ask clients for certificates."),
        refused::<String>(Security, "client-cert-file", "", NO_TLS, "Certificate for connections of this member to itself."),
        refused::<String>(Security, "client-key-file", "", NO_TLS, "Its key."),
        refused::<String>(Security, "client-crl-file", "", NO_TLS, "Revoked certificates of clients."),
        refused::<Words>(Security, "client-cert-allowed-hostname", "", NO_TLS, "Names that clients' certificates may have."),
        refused::<String>(Security, "trusted-ca-file", "", NO_TLS, "Authorities that clients' certificates may come from."),
        refused::<bool>(Security, "auto-tls", "false", NO_TLS, "Serve clients with a certificate made by the server."),
        refused::<String>(Security, "peer-cert-file", "", NO_TLS, "Certificate shown to other members."),
        refused::<String>(Security, "peer-key-file", "", NO_TLS, "Its key."),
        refused::<bool>(Security, "peer-client-cert-auth", "false", NO_TLS, "Ask other members for certificates."),
        refused::<String>(Security, "peer-client-cert-file", "", NO_TLS, "Certificate for connections to other members."),
        refused::<String>(Security, "peer-client-key-file", "", NO_TLS, "Its key."),
        refused::<String>(Security, "peer-trusted-ca-file", "", NO_TLS, "Authorities that members' certificates may come from."),
        refused::<Words>(Security, "peer-cert-allowed-cn", "", NO_TLS, "Common names that members' certificates may have."),
        refused::<Words>(Security, "peer-cert-allowed-hostname", "", NO_TLS, "Names that members' certificates may have."),
        refused::<bool>(Security, "peer-auto-tls", "false", NO_TLS, "Speak to members with certificates made by the servers."),
        inert::<u64>(Security, "self-signed-cert-validity", "1", NO_TLS, "Years that certificates made by the server are valid."),
        refused::<String>(Security, "peer-crl-file", "", NO_TLS, "Revoked certificates of members."),
        inert::<bool>(Security, "peer-skip-client-san-verification", "false", NO_TLS, "Do not check the names in members' certificates."),
        inert::<Words>(Security, "cipher-suites", "", NO_TLS, "Cipher suites to offer."),
        inert::<String>(Security, "tls-min-version", "TLS1.2", NO_TLS, "Oldest version of TLS to accept (TLS1.2, TLS1.3)."),
        inert::<String>(Security, "tls-max-version", "", NO_TLS, "Newest version of TLS to accept (TLS1.2, TLS1.3)."),
        flag(Security, "cors", "*", |c| &mut c.cors, "Origins whose pages may ask; empty or * for all."),
        flag(Security, "host-whitelist", "*", |c| &mut c.host_whitelist, "Names under which HTTP requests may call this server; empty or * for all."),
        inert::<String>(Auth, "auth-token", "simple", NO_TOKENS, "Kind of tokens, with options."),
        flag(Auth, "bcrypt-cost", "10", |c| &mut c.bcrypt_cost, "Cost of hashing a password, 4 to 31; any other is 10."),
        inert::<u64>(Auth, "auth-token-ttl", "300", NO_TOKENS, "Seconds that a token lives after its last use."),
    ]
}

fn monitoring() -> Vec<Flag> {
    use Group::{Monitoring, Tracing};
    vec![
        inert::<bool>(Monitoring, "enable-pprof", "false", "there is no Go runtime to profile", "Serve profiles below /debug/pprof/."),
        flag(Monitoring, "metrics", "basic", |c| &mut c.metrics, "How much to measure: 'basic', or 'extensive' with the times of gRPC calls."),
        flag(Monitoring, "listen-metrics-urls", "", |c| &mut c.listen_metrics_urls, "Where to serve metrics and health alone."),
        inert::<bool>(Tracing, "enable-distributed-tracing", "false", NO_TRACING, "Export spans."),
        inert::<String>(Tracing, "distributed-tracing-address", "localhost:4317", NO_TRACING, "Collector of the spans."),
        inert::<String>(Tracing, "distributed-tracing-service-name", "etcd", NO_TRACING, "Service name in the spans."),
        inert::<String>(Tracing, "distributed-tracing-instance-id", "", NO_TRACING, "Instance id in the spans."),
        inert::<u64>(Tracing, "distributed-tracing-sampling-rate", "0", NO_TRACING, "Spans to export of each million."),
    ]
}

fn logging() -> Vec<Flag> {
    use Group::Logging;
    vec![
        inert::<String>(Logging, "logger", "zap", "there is one logger", "Name of the logger."),
        flag(Logging, "log-outputs", "default", |c| &mut c.log_outputs, "Where the log goes: 'default' or 'stderr', 'stdout', or files, separated by commas."),
        flag(Logging, "log-level", "info", |c| &mut c.log_level, "Least level to log: debug, info, warn, error, panic or fatal."),
        flag(Logging, "log-format", "json", |c| &mut c.log_format, "'json' or 'console'."),
        inert::<bool>(Logging, "enable-log-rotation", "false", "log files are not rotated; let logrotate do it", "Rotate the log file."),
        inert::<String>(Logging, "log-rotation-config-json", "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", "log files are not rotated", "How to rotate it."),
        inert::<Duration>(Logging, "warning-unary-request-duration", "300ms", "slow calls are counted, not logged", "Time after which a call is logged as slow."),
    ]
}

fn features() -> Vec<Flag> {
    use Group::{Features, Unsafe};
    vec![
        inert::<Duration>(Features, "corrupt-check-time", "0s", NO_CHECK, "Time between comparisons of the members' hashes."),
        inert::<Duration>(Features, "compact-hash-check-time", "1m", NO_CHECK, "Time between comparisons of hashes made at compactions."),
        inert::<i64>(Features, "compaction-batch-limit", "1000", "compaction runs in slices of time", "Most revisions removed in one step of a compaction."),
        inert::<Duration>(Features, "compaction-sleep-interval", "0s", "compaction runs in slices of time", "Pause between two steps of a compaction."),
        flag(Features, "watch-progress-notify-interval", "10m", |c| &mut c.watch_progress_interval, "Time between progress notices to watchers that asked for them."),
        inert::<Duration>(Features, "warning-apply-duration", "100ms", "slow applies are counted, not logged", "Time after which applying a request is logged as slow."),
        inert::<u64>(Features, "bootstrap-defrag-threshold-megabytes", "0", NO_BBOLT, "Defragment at the start when that many megabytes become free."),
        flag(Features, "max-learners", "1", |c| &mut c.max_learners, "Most learners in the cluster."),
        inert::<Duration>(Features, "downgrade-check-time", "5s", "there is nothing to downgrade to", "Time between looks at a downgrade's progress."),
        flag(Unsafe, "force-new-cluster", "false", |c| &mut c.force_new_cluster, "Start as the only member of a new cluster, with the data that is there."),
        flag(Unsafe, "unsafe-no-fsync", "false", |c| &mut c.no_fsync, "Never sync the disk: acknowledged writes may be lost."),
    ]
}

/// Names that etcd 3.4 to 3.6 had and manifests still carry.
fn former_names() -> Vec<Flag> {
    use Group::Former;
    use Kind::{Bool, Duration as Time, Number, Text};
    let gates = "it was a feature gate before it was removed, and none changes anything here";
    let gone = "it is gone from etcd, too";
    vec![
        former("experimental-bootstrap-defrag-threshold-megabytes", Number, "bootstrap-defrag-threshold-megabytes"),
        inert::<bool>(Former, "experimental-compact-hash-check-enabled", "false", gates, ""),
        former("experimental-compact-hash-check-time", Time, "compact-hash-check-time"),
        former("experimental-compaction-batch-limit", Number, "compaction-batch-limit"),
        former("experimental-compaction-sleep-interval", Time, "compaction-sleep-interval"),
        former("experimental-corrupt-check-time", Time, "corrupt-check-time"),
        former("experimental-distributed-tracing-address", Text, "distributed-tracing-address"),
        former("experimental-distributed-tracing-instance-id", Text, "distributed-tracing-instance-id"),
        former("experimental-distributed-tracing-sampling-rate", Number, "distributed-tracing-sampling-rate"),
        former("experimental-distributed-tracing-service-name", Text, "distributed-tracing-service-name"),
        former("experimental-downgrade-check-time", Time, "downgrade-check-time"),
        former("experimental-enable-distributed-tracing", Bool, "enable-distributed-tracing"),
        inert::<bool>(Former, "experimental-enable-lease-checkpoint", "false", gates, ""),
        inert::<bool>(Former, "experimental-enable-lease-checkpoint-persist", "false", gates, ""),
        inert::<bool>(Former, "experimental-initial-corrupt-check", "false", gates, ""),
        former("experimental-max-learners", Number, "max-learners"),
        former("experimental-memory-mlock", Bool, "memory-mlock"),
        former("experimental-peer-skip-client-san-verification", Bool, "peer-skip-client-san-verification"),
        inert::<bool>(Former, "experimental-set-member-localaddr", "false", gates, ""),
        former("experimental-snapshot-catch-up-entries", Number, "snapshot-catchup-entries"),
        former("experimental-snapshot-catchup-entries", Number, "snapshot-catchup-entries"),
        inert::<bool>(Former, "experimental-stop-grpc-service-on-defrag", "false", gates, ""),
        inert::<bool>(Former, "experimental-txn-mode-write-with-shared-buffer", "true", gates, ""),
        former("experimental-warning-apply-duration", Time, "warning-apply-duration"),
        former("experimental-warning-unary-request-duration", Time, "warning-unary-request-duration"),
        former("experimental-watch-progress-notify-interval", Time, "watch-progress-notify-interval"),
        inert::<String>(Former, "experimental-enable-v2v3", "", "v2 and v3 share their keys; see --v2-root", ""),
        inert::<String>(Former, "v2-deprecation", "", gone, ""),
        inert::<u64>(Former, "max-snapshots", "5", "two checkpoints are kept, always", ""),
        refused::<String>(Former, "proxy", "off", NO_PROXY, ""),
        inert::<u64>(Former, "proxy-failure-wait", "5000", NO_PROXY, ""),
        inert::<u64>(Former, "proxy-refresh-interval", "30000", NO_PROXY, ""),
        inert::<u64>(Former, "proxy-dial-timeout", "1000", NO_PROXY, ""),
        inert::<u64>(Former, "proxy-write-timeout", "5000", NO_PROXY, ""),
        inert::<u64>(Former, "proxy-read-timeout", "0", NO_PROXY, ""),
    ]
}
