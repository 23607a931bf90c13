//! The calls there are, and how often each was made: plain counters, which the server shows under
//! the names that dashboards know.

use dashmap::DashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many messages go each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One in, one out.
    Unary,
    /// One in, many out.
    ServerStream,
    /// Many in, many out.
    BidiStream,
}

impl Kind {
    /// As the label `grpc_type` has it.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Unary => "unary",
            Kind::ServerStream => "server_stream",
            Kind::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! methods {
    ($($variant:ident = $service:literal $name:literal $kind:ident;)*) => {
        /// A call that is answered.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Method {
            $(#[doc = concat!($service, "/", $name)] $variant,)*
        }

        impl Method {
            /// All of them.
            pub const ALL: &[Method] = &[$(Method::$variant,)*];

            /// The call at an HTTP/2 path.
            pub fn of(path: &str) -> Option<Method> {
                match path {
                    $(concat!("/", $service, "/", $name) => Some(Method::$variant),)*
                    _ => None,
                }
            }

            /// Its service, with the package, as the label `grpc_service` has it.
            pub fn service(self) -> &'static str {
                match self {
                    $(Method::$variant => $service,)*
                }
            }

            /// Its name, as the label `grpc_method` has it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Method::$variant => $name,)*
                }
            }

            /// How many messages go each way.
            pub fn kind(self) -> Kind {
                match self {
                    $(Method::$variant => Kind::$kind,)*
                }
            }
        }
    };
}

methods! {
    Range = "etcdserverpb.KV" "Range" Unary;
    RangeStream = "etcdserverpb.KV" "RangeStream" ServerStream;
    Put = "etcdserverpb.KV" "Put" Unary;
    DeleteRange = "etcdserverpb.KV" "DeleteRange" Unary;
    Txn = "etcdserverpb.KV" "Txn" Unary;
    Compact = "etcdserverpb.KV" "Compact" Unary;
    Watch = "etcdserverpb.Watch" "Watch" BidiStream;
    LeaseGrant = "etcdserverpb.Lease" "LeaseGrant" Unary;
    LeaseRevoke = "etcdserverpb.Lease" "LeaseRevoke" Unary;
    LeaseKeepAlive = "etcdserverpb.Lease" "LeaseKeepAlive" BidiStream;
    LeaseTimeToLive = "etcdserverpb.Lease" "LeaseTimeToLive" Unary;
    LeaseLeases = "etcdserverpb.Lease" "LeaseLeases" Unary;
    MemberAdd = "etcdserverpb.Cluster" "MemberAdd" Unary;
    MemberRemove = "etcdserverpb.Cluster" "MemberRemove" Unary;
    MemberUpdate = "etcdserverpb.Cluster" "MemberUpdate" Unary;
    MemberList = "etcdserverpb.Cluster" "MemberList" Unary;
    MemberPromote = "etcdserverpb.Cluster" "MemberPromote" Unary;
    Alarm = "etcdserverpb.Maintenance" "Alarm" Unary;
    Status = "etcdserverpb.Maintenance" "Status" Unary;
    Defragment = "etcdserverpb.Maintenance" "Defragment" Unary;
    Hash = "etcdserverpb.Maintenance" "Hash" Unary;
    HashKv = "etcdserverpb.Maintenance" "HashKV" Unary;
    MoveLeader = "etcdserverpb.Maintenance" "MoveLeader" Unary;
    HealthCheck = "grpc.health.v1.Health" "Check" Unary;
    HealthWatch = "grpc.health.v1.Health" "Watch" ServerStream;
}

/// gRPC's codes by number, as the label `grpc_code` has them.
pub const CODE_LABELS: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Clients name their own version; this many different ones are told apart.
const CLIENT_VERSIONS_MAX: usize = 64;

/// The counters.
#[derive(Debug)]
pub struct Calls {
    methods: Vec<Counts>,
    /// Bytes of messages to clients.
    pub sent_bytes: AtomicU64,
    /// Bytes of messages from clients.
    pub received_bytes: AtomicU64,
    requests: DashMap<String, [AtomicU64; 2]>,
}

#[derive(Debug, Default)]
struct Counts {
    started: AtomicU64,
    handled: [AtomicU64; CODE_LABELS.len()],
}

impl Default for Calls {
    fn default() -> Self {
        Calls {
            methods: Method::ALL.iter().map(|_| Counts::default()).collect(),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            requests: DashMap::new(),
        }
    }
}

impl Calls {
    /// `grpc_server_started_total`.
    pub fn started(&self, method: Method) -> u64 {
        self.methods[method as usize]
            .started
            .load(Ordering::Relaxed)
    }

    /// `grpc_server_handled_total`, by the number of the code.
    pub fn handled(&self, method: Method) -> [u64; CODE_LABELS.len()] {
        let counts = &self.methods[method as usize].handled;
        std::array::from_fn(|code| counts[code].load(Ordering::Relaxed))
    }

    /// `etcd_server_client_requests_total`: the client's version, its unary calls, its streams.
    pub fn requests(&self) -> Vec<(String, u64, u64)> {
        let load = |it: &AtomicU64| it.load(Ordering::Relaxed);
        let requests = self.requests.iter();
        let requests = requests.map(|it| (it.key().clone(), load(&it[0]), load(&it[1])));
        requests.collect()
    }

    pub(crate) fn start(&self, method: Method) {
        let counts = &self.methods[method as usize];
        counts.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn handle(&self, method: Method, code: usize) {
        let counts = &self.methods[method as usize];
        if let Some(count) = counts.handled.get(code) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn request(&self, method: Method, client_version: &str) {
        let stream = match method.kind() {
            Kind::Unary => 0,
            Kind::ServerStream | Kind::BidiStream => 1,
        };
        if let Some(counts) = self.requests.get(client_version) {
            counts[stream].fetch_add(1, Ordering::Relaxed);
            return;
        }
        let known = self.requests.len() < CLIENT_VERSIONS_MAX;
        let name = if known { client_version } else { "other" };
        let counts = self.requests.entry(name.into()).or_default();
        counts[stream].fetch_add(1, Ordering::Relaxed);
    }
}
