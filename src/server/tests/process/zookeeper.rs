//! ZooKeeper's side of the process: where its tree lies, TLS, and what operators are told.

use crate::certificates;
use crate::server::{PATIENCE, Server, exchange, get_from, put};
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::{LeaseGrantRequest, PutRequest, RangeRequest};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::Channel;
use zookeeper::jute::Write;
use zookeeper::reply::framed;

pub const CLIENTS: &str = "serving ZooKeeper clients";

pub const CREATE: i32 = 1;
pub const DELETE: i32 = 2;
const GET_DATA: i32 = 4;
const GET_CHILDREN: i32 = 8;
const GET_CHILDREN_2: i32 = 12;
pub const AUTH: i32 = 100;
const WHO_AM_I: i32 = 107;
const CLOSE: i32 = -11;
const NO_NODE: i32 = -101;
const NO_AUTH: i32 = -102;

/// Who may do what.
pub const ANYONE: (&str, &str) = ("world", "anyone");
/// The certificate's owner, as Java spells it.
const CLIENT: &str = "CN=client,O=Triglot\\, tests,C=DE";

/// A client with a session.
pub struct Client<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn open(stream: S) -> Client<S> {
        let mut client = Client(stream);
        let welcome = client.exchange(|out| {
            out.int(0);
            out.long(0);
            out.int(10_000);
            out.long(0);
            out.buffer(Some(&[0; 16]));
        });
        assert_ne!(welcome.await[8..16], [0; 8], "no session");
        client
    }

    async fn exchange(&mut self, payload: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut frame = Vec::new();
        framed(&mut frame, payload);
        let exchanged = async {
            self.0.write_all(&frame).await?;
            self.0.flush().await?;
            let mut frame = vec![0; self.0.read_u32().await? as usize];
            self.0.read_exact(&mut frame).await?;
            Ok::<_, std::io::Error>(frame)
        };
        let exchanged = tokio::time::timeout(PATIENCE, exchanged).await;
        exchanged.expect("in time").expect("an answer")
    }

    /// A request's error, and what it is answered beside.
    pub async fn call(&mut self, kind: i32, body: impl FnOnce(&mut Vec<u8>)) -> (i32, String) {
        let xid = if kind == AUTH { -4 } else { 1 };
        let frame = self
            .exchange(|out| {
                out.int(xid);
                out.int(kind);
                body(out);
            })
            .await;
        let error = i32::from_be_bytes(frame[12..16].try_into().expect("4 bytes"));
        (error, String::from_utf8_lossy(&frame[16..]).into_owned())
    }

    pub async fn create(&mut self, path: &str, who: (&str, &str)) -> (i32, String) {
        let created = self.call(CREATE, |out| {
            out.text(path);
            out.text("data");
            out.count(1);
            out.int(31);
            out.text(who.0);
            out.text(who.1);
            out.int(0);
        });
        created.await
    }

    /// How many children a node says that it has.
    async fn children(&mut self, path: &str) -> i32 {
        let frame = self
            .exchange(|out| {
                out.int(1);
                out.int(GET_CHILDREN_2);
                out.text(path);
                out.boolean(false);
            })
            .await;
        // Before the zxid that ends the stat.
        let count = frame[frame.len() - 12..frame.len() - 8].try_into();
        i32::from_be_bytes(count.expect("4 bytes"))
    }

    async fn read(&mut self, kind: i32, path: &str) -> (i32, String) {
        let read = self.call(kind, |out| {
            out.text(path);
            out.boolean(false);
        });
        read.await
    }
}

pub async fn plain(address: &str) -> Client<TcpStream> {
    Client::open(TcpStream::connect(address).await.expect("it listens")).await
}

/// The keys that start so.
async fn keys(kv: &mut KvClient<Channel>, prefix: &str) -> Vec<String> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix") += 1;
    let request = RangeRequest {
        key: prefix.to_owned().into(),
        range_end: end.into(),
        ..RangeRequest::default()
    };
    let answer = kv.range(request).await.expect("answered").into_inner();
    let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    answer.kvs.iter().map(|kv| text(&kv.key)).collect()
}

#[tokio::test]
async fn the_tree_lies_where_it_is_mounted() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--zookeeper-root=/apps/zk"]);
    let address = server.addresses(CLIENTS)[0];
    let mut kv = server.kv().await;
    // One above the root has a value and nothing beneath yet.
    put(&mut kv, "/apps", "a key").await;
    put(&mut kv, "/outside", "another").await;
    let mut client = plain(address).await;
    let (error, path) = client.create("/a", ANYONE).await;
    assert_eq!((error, &path[4..]), (0, "/a"));
    put(&mut kv, "/apps/zk/b", "seen").await;
    assert_eq!(
        keys(&mut kv, "/apps").await,
        ["/apps", "/apps/zk/a", "/apps/zk/b"]
    );
    let (error, data) = client.read(GET_DATA, "/b").await;
    assert!(error == 0 && data[4..].starts_with("seen"), "{data:?}");
    let (_, names) = client.read(GET_CHILDREN, "/").await;
    assert!(names.contains('a') && names.contains('b') && names.contains("zookeeper"));
    assert!(!names.contains("outside") && !names.contains("apps"));
    // ZooKeeper's own node hides a key of its name, and counts in its place.
    assert_eq!(client.children("/").await, 3);
    put(&mut kv, "/apps/zk/zookeeper", "hidden").await;
    assert_eq!(client.children("/").await, 3);
}

/// Nothing lies beneath what goes with a lease: not even the root.
#[tokio::test]
async fn the_root_is_not_made_beneath_a_leased_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--zookeeper-root=/apps/zk"]);
    let leases = LeaseClient::connect(server.uri());
    let lease = LeaseGrantRequest { id: 5, ttl: 600 };
    let granted = leases.await.expect("it listens").lease_grant(lease).await;
    granted.expect("accepted");
    let mut kv = server.kv().await;
    let leased = PutRequest {
        key: "/apps".into(),
        lease: 5,
        ..PutRequest::default()
    };
    kv.put(leased).await.expect("accepted");
    let mut client = plain(server.addresses(CLIENTS)[0]).await;
    let (error, _) = client.create("/a", ANYONE).await;
    assert_eq!(error, NO_NODE);
    assert_eq!(keys(&mut kv, "/apps").await, ["/apps"]);
}

/// What a client of a port with TLS trusts, and who it is, by the files of a directory.
fn connector(files: &Path, identity: Option<&str>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(files.join("authority.pem"));
    roots.add(authority.expect("PEM")).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider's versions")
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let file = files.join(format!("{name}.pem"));
            let certificate = CertificateDer::from_pem_file(&file).expect("PEM");
            let key = PrivateKeyDer::from_pem_file(&file).expect("PEM");
            let config = builder.with_client_auth_cert(vec![certificate], key);
            config.expect("the key is the certificate's")
        }
    };
    TlsConnector::from(Arc::new(config))
}

async fn by_tls(
    address: &str,
    files: &Path,
    identity: Option<&str>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = "localhost".try_into().expect("a name");
    let mut stream = connector(files, identity).connect(name, stream).await?;
    // A server that does not like the client says so only after the client's side of the handshake.
    stream.write_all(b"ruok").await?;
    stream.flush().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert_eq!(answer, "imok");
    let stream = TcpStream::connect(address).await?;
    let name = "localhost".try_into().expect("a name");
    connector(files, identity).connect(name, stream).await
}

/// Starts a server with a port for TLS and one without; the file's lines beside.
fn start_with_tls(dir: &Path, lines: &str) -> (Server, String, String) {
    certificates::write(dir);
    let file = dir.join("zoo.cfg");
    let text = format!(
        "4lw.commands.whitelist=*\nssl.keyStore.location={files}/server.pem\n\
         ssl.trustStore.location={files}/authority.pem\n{lines}",
        files = dir.display()
    );
    std::fs::write(&file, text).expect("writable");
    let server = Server::start(
        &dir.join("data"),
        &[
            "--listen-zookeeper-urls=tcp://127.0.0.1:0,tls://127.0.0.1:0",
            "--zoo-cfg",
            file.to_str().expect("a plain path"),
        ],
    );
    let addresses = server.addresses(CLIENTS);
    let (plain, secure) = (addresses[0].to_owned(), addresses[1].to_owned());
    (server, plain, secure)
}

#[tokio::test]
async fn certificates_are_identities_where_tls_is_spoken() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, open, secure) = start_with_tls(dir.path(), "");
    let stream = by_tls(&secure, dir.path(), Some("client"))
        .await
        .expect("trusted");
    let mut client = Client::open(stream).await;
    let (error, who) = client.call(WHO_AM_I, |_| {}).await;
    assert_eq!(error, 0);
    assert!(who.contains("x509") && who.contains(CLIENT), "{who:?}");
    assert_eq!(client.create("/mine", ("x509", CLIENT)).await.0, 0);
    assert_eq!(client.create("/also", ("auth", "")).await.0, 0);
    assert_eq!(client.read(GET_DATA, "/mine").await.0, 0);
    let mut other = plain(&open).await;
    for path in ["/mine", "/also"] {
        assert_eq!(other.read(GET_DATA, path).await.0, NO_AUTH, "{path}");
    }
    let body = |out: &mut Vec<u8>| {
        out.int(0);
        out.text("x509");
        out.buffer(Some(b""));
    };
    assert_eq!(client.call(AUTH, body).await.0, 0);
    assert_eq!(other.call(AUTH, body).await.0, -115);
}

#[tokio::test]
async fn the_super_users_certificate_lets_do_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    let line = format!("zookeeper.X509AuthenticationProvider.superUser={CLIENT}\n");
    let (_server, open, secure) = start_with_tls(dir.path(), &line);
    let mut owner = plain(&open).await;
    assert_eq!(owner.create("/closed", ("digest", "a:b")).await.0, 0);
    assert_eq!(owner.read(GET_DATA, "/closed").await.0, NO_AUTH);
    let stream = by_tls(&secure, dir.path(), Some("client"))
        .await
        .expect("trusted");
    let mut client = Client::open(stream).await;
    assert_eq!(client.read(GET_DATA, "/closed").await.0, 0);
}

#[tokio::test]
async fn who_does_not_speak_as_the_port_does_is_cut_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, open, secure) = start_with_tls(dir.path(), "");
    for identity in [None, Some("stranger")] {
        assert!(
            by_tls(&secure, dir.path(), identity).await.is_err(),
            "{identity:?}"
        );
    }
    assert!(by_tls(&open, dir.path(), Some("client")).await.is_err());
    assert!(!exchange(&secure, b"ruok").contains("imok"));
    assert_eq!(exchange(&open, b"ruok"), "imok");
    let figures = server.get("/metrics");
    let failed = figures
        .lines()
        .find(|it| it.starts_with("unsuccessful_handshake "));
    assert_eq!(failed, Some("unsuccessful_handshake 3"));
}

#[tokio::test]
async fn connections_count_before_they_shake_hands() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, _, secure) = start_with_tls(dir.path(), "maxClientCnxns=1\n");
    let connect = || async { TcpStream::connect(&secure).await.expect("it listens") };
    let (mut one, mut other) = (connect().await, connect().await);
    // Whichever of the silent two came second is cut off.
    let closed =
        async { tokio::select!(read = one.read_u8() => read, read = other.read_u8() => read) };
    let closed = tokio::time::timeout(PATIENCE, closed).await;
    assert!(closed.expect("in time").is_err());
    let figures = server.get("/metrics");
    assert!(figures.contains("\nconnection_rejected 1\n"), "{figures}");
}

#[tokio::test]
async fn clients_need_no_certificate_where_none_is_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, _, secure) = start_with_tls(dir.path(), "ssl.clientAuth=none\n");
    let stream = by_tls(&secure, dir.path(), None).await.expect("welcome");
    let mut client = Client::open(stream).await;
    let (_, who) = client.call(WHO_AM_I, |_| {}).await;
    assert!(!who.contains("x509"), "{who:?}");
}

#[tokio::test]
async fn without_space_sessions_open_and_reads_and_deletes_go_on() {
    const QUOTA_EXCEEDED: i32 = -125;
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--quota-backend-bytes=1048576"]);
    let address = server.addresses(CLIENTS)[0];
    let mut client = plain(address).await;
    let mut errors = Vec::new();
    while errors.iter().all(|error| *error == 0) {
        assert!(errors.len() < 100, "it never fills");
        let created = client.call(CREATE, |out| {
            out.text(&format!("/{}", errors.len()));
            out.buffer(Some(&[0; 64 << 10]));
            out.count(1);
            out.int(31);
            out.text(ANYONE.0);
            out.text(ANYONE.1);
            out.int(0);
        });
        errors.push(created.await.0);
    }
    assert!(errors.len() > 5 && errors.last() == Some(&QUOTA_EXCEEDED));
    let mut other = plain(address).await;
    assert_eq!(other.read(GET_DATA, "/0").await.0, 0);
    assert_eq!(other.create("/more", ANYONE).await.0, QUOTA_EXCEEDED);
    let deleted = other.call(DELETE, |out| {
        out.text("/0");
        out.int(-1);
    });
    assert_eq!(deleted.await.0, 0);
    assert_eq!(other.call(CLOSE, |_| {}).await.0, 0);
    assert_eq!(client.read(GET_DATA, "/1").await.0, 0);
}

/// Each line `auth` of an access list stands for all identities of the caller: a few kilobytes of
/// such lines made an entry longer than a segment of the log, and the member stopped.
#[tokio::test]
async fn access_lists_that_grow_too_long_are_refused() {
    const CREATES: i32 = 16;
    const LINES: usize = 1024;
    const INVALID_ACL: i32 = -114;
    const AUTH_FAILED: i32 = -115;
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &[]);
    let address = server.addresses(CLIENTS)[0];
    let auth = |user_bytes| {
        move |out: &mut Vec<u8>| {
            out.int(0);
            out.text("digest");
            out.text(&format!("{}:p", "x".repeat(user_bytes)));
        }
    };
    let mut client = plain(address).await;
    assert_eq!(client.call(AUTH, auth(60_000)).await.0, AUTH_FAILED);

    let mut client = plain(address).await;
    assert_eq!(client.call(AUTH, auth(7000)).await.0, 0);
    let mut frames = Vec::new();
    for xid in 0..CREATES {
        framed(&mut frames, |out| {
            out.int(xid);
            out.int(CREATE);
            out.text(&format!("/{xid}"));
            out.text("");
            out.count(LINES);
            for line in 0..LINES {
                out.int(31);
                out.text("auth");
                out.text(&line.to_string());
            }
            out.int(0);
        });
    }
    let (mut answers, mut requests) = tokio::io::split(client.0);
    let sent = requests.write_all(&frames);
    let answered = async {
        for _ in 0..CREATES {
            let mut frame = vec![0; answers.read_u32().await.expect("an answer") as usize];
            answers.read_exact(&mut frame).await.expect("all of it");
            assert_eq!(frame[12..16], INVALID_ACL.to_be_bytes());
        }
    };
    let (sent, ()) = tokio::join!(sent, answered);
    sent.expect("it is open");
    let mut other = plain(address).await;
    assert_eq!(other.create("/after", ANYONE).await.0, 0);
}

/// The fields of the answers of ZooKeeper 3.9.6 to some commands, beside `command` and `error`.
const FIELDS: [(&str, &[&str]); 12] = [
    (
        "configuration",
        &[
            "client_port",
            "client_port_listen_backlog",
            "data_dir",
            "data_log_dir",
            "max_client_cnxns",
            "max_session_timeout",
            "min_session_timeout",
            "server_id",
            "tick_time",
        ],
    ),
    ("connections", &["connections", "secure_connections"]),
    ("dirs", &["datadir_size", "logdir_size"]),
    (
        "dump",
        &[
            "expiry_time_to_session_ids",
            "session_id_to_ephemeral_paths",
        ],
    ),
    ("hash", &["digests"]),
    ("is_read_only", &["read_only"]),
    ("observers", &["observers", "synced_observers"]),
    ("stat_reset", &[]),
    ("voting_view", &["current_config"]),
    (
        "watch_summary",
        &["num_connections", "num_paths", "num_total_watches"],
    ),
    ("watches", &["session_id_to_watched_paths"]),
    ("zabstate", &["voting", "zabstate"]),
];

/// The same of one connection.
const CONNECTION_FIELDS: [&str; 16] = [
    "avg_latency",
    "established",
    "interest_ops",
    "last_cxid",
    "last_latency",
    "last_operation",
    "last_response_time",
    "last_zxid",
    "max_latency",
    "min_latency",
    "outstanding_requests",
    "packets_received",
    "packets_sent",
    "remote_socket_address",
    "session_id",
    "session_timeout",
];

fn fields(value: &Value) -> Vec<&str> {
    let fields = value.as_object().expect("an object").keys();
    let mut fields: Vec<&str> = fields.map(String::as_str).collect();
    fields.retain(|field| !matches!(*field, "command" | "error"));
    fields.sort_unstable();
    fields
}

#[tokio::test]
async fn commands_answer_in_zookeepers_shapes() {
    let dir = tempfile::tempdir().expect("a directory");
    let flag = "--listen-zookeeper-admin-urls=http://127.0.0.1:0";
    let server = Server::start(dir.path(), &[flag]);
    let _client = plain(server.addresses(CLIENTS)[0]).await;
    let admin = server.addresses("serving ZooKeeper's AdminServer")[0];
    for (command, expected) in FIELDS {
        let answer = json_from(admin, &format!("/commands/{command}"));
        assert_eq!(fields(&answer), expected, "{command}");
        assert_eq!(
            (&answer["command"], &answer["error"]),
            (&command.into(), &Value::Null)
        );
    }
    let answer = json_from(admin, "/commands/connections");
    assert_eq!(fields(&answer["connections"][0]), CONNECTION_FIELDS);
    let alone = json_from(admin, "/commands/leader");
    assert_eq!(alone["error"], "server is not initialized");
}

/// The body of an answer by HTTP.
fn json_from(address: &str, path: &str) -> Value {
    let answer = get_from(address, path);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    serde_json::from_str(body).expect("JSON")
}

#[tokio::test]
async fn operators_are_told_as_by_zookeeper() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("zoo.cfg");
    let text = "tickTime=500\nadmin.serverPort=0\nadmin.serverAddress=127.0.0.1\n\
                metricsProvider.httpPort=0\nmetricsProvider.httpHost=127.0.0.1\n";
    std::fs::write(&file, text).expect("writable");
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--zoo-cfg", file.to_str().expect("a plain path")]);
    let mut client = plain(server.addresses(CLIENTS)[0]).await;
    assert_eq!(client.create("/a", ANYONE).await.0, 0);
    let watched = client.call(GET_DATA, |out| {
        out.text("/a");
        out.boolean(true);
    });
    assert_eq!(watched.await.0, 0);

    let metrics = server.addresses("serving metrics")[0];
    let page = get_from(metrics, "/metrics");
    for line in [
        "# TYPE znode_count gauge\nznode_count 6\n",
        "\nnum_alive_connections 1\n",
        "\nwatch_count 1\n",
        "\nop_count_create 1\n",
        "\nop_count_get_data 1\n",
        "\nupdatelatency{quantile=\"0.99\"} ",
        "\nupdatelatency_count 2\n",
        "\nfsynctime_count ",
        "\nsnapshottime_sum ",
        "\nelection_time_count ",
        "\nopen_file_descriptor_count ",
        "\netcd_server_has_leader 1\n",
    ] {
        assert!(page.contains(line), "{line:?} is not in\n{page}");
    }

    let admin = server.addresses("serving ZooKeeper's AdminServer")[0];
    let list = get_from(admin, "/commands");
    assert!(list.contains("<a href=\"/commands/watches_by_path\">watches_by_path</a>"));
    let monitor = json_from(admin, "/commands/monitor");
    assert_eq!(
        (&monitor["znode_count"], &monitor["error"]),
        (&6.into(), &Value::Null)
    );
    assert_eq!(monitor["server_state"], "standalone");
    let configuration = json_from(admin, "/commands/conf");
    assert_eq!(configuration["command"], "configuration");
    assert_eq!(configuration["tick_time"], 500);
    let initial = json_from(admin, "/commands/initial_configuration");
    assert_eq!(initial["initial_configuration"], text);
    let connections = json_from(admin, "/commands/connections");
    assert_eq!(connections["connections"][0]["last_operation"], "GETD");
    let watches = json_from(admin, "/commands/watches_by_path");
    let session = &connections["connections"][0]["session_id"];
    assert_eq!(watches["path_to_session_ids"]["/a"][0], *session);
    let unknown = json_from(admin, "/commands/nosuch");
    assert_eq!(unknown["error"], "Unknown command: nosuch");
}
