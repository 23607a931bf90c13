//! Below gRPC's client: plain HTTP, calls with arbitrary bytes as message, and bare TCP.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Status, transport::Channel};

use super::super::args::{Args, to_bytes};
use super::super::http::{self, Answer};
use super::{Session, reply};

/// How long a server may leave a connection open on which nonsense came.
const CLOSE_DEADLINE: Duration = Duration::from_secs(20);
/// No reply that a script reads is larger.
const REPLY_BYTES_MAX: u64 = 4 << 20;

impl Session<'_> {
    /// `http METHOD PATH [body=] [header="Name: value"] [host=] [names|status|sorted]`: prints
    /// the status, the content type and the body (`sorted` where the original's order is that of
    /// a hash map); `names` prints only metric names of etcd's own.
    pub(super) async fn http(&mut self, args: &mut Args) -> Result<String> {
        let (names, status_only) = (args.flag("names"), args.flag("status"));
        let sorted = args.flag("sorted");
        let (method, path) = (args.word()?, args.word()?);
        let body = args.value("body").unwrap_or_default();
        let port = self.cluster.members[self.asked].client_port;
        let host = args
            .value("host")
            .unwrap_or_else(|| format!("127.0.0.1:{port}"));
        let headers = args.values("header");
        let request = http::request(&method, &path, &host, &headers, body.as_bytes());
        let mut answer = Answer::to(port, &request).await?;
        let body = answer.body().await?;
        let body = String::from_utf8_lossy(&body);
        if names {
            return Ok(metric_names(&body));
        }
        if status_only {
            return Ok(answer.status);
        }
        let mut lines: Vec<_> = body.trim_end().lines().collect();
        if sorted {
            lines.sort_unstable();
        }
        let content_type = answer.header("content-type").unwrap_or("no content type");
        let status = &answer.status;
        Ok(format!("{status} ({content_type})\n{}", lines.join("\n")))
    }

    /// `rpc /package.Service/Method BYTES`: one message of arbitrary bytes.
    pub(super) async fn raw_rpc(&mut self, args: &mut Args) -> Result<String> {
        let path = args.word()?;
        let size = usize::try_from(args.number("size")?)?;
        let mut message = args
            .optional_word()
            .map_or(Ok(Vec::new()), |word| to_bytes(&word))?;
        message.resize(message.len().max(size), b'x');
        let request = self.request(Bytes::from(message))?;
        let mut client = Grpc::<Channel>::new(self.channel()).max_encoding_message_size(usize::MAX);
        client.ready().await?;
        let call = client.unary(request, PathAndQuery::try_from(path)?, RawCodec);
        Ok(reply(call, |_| "ok".to_owned()).await)
    }

    /// `tcp BYTES`: sends them on a fresh connection; the answer is the server's affair, but it
    /// must close the connection and go on serving others.
    pub(super) async fn raw_bytes(&mut self, args: &mut Args) -> Result<String> {
        let bytes = args.bytes()?;
        let port = self.cluster.members[self.asked].client_port;
        Ok(match exchange(port, &bytes).await {
            Ok(_) => "closed".to_owned(),
            Err(error) => format!("{error:#}"),
        })
    }
}

/// Sends `request`, and reads until the server closes.
async fn exchange(port: u16, request: &[u8]) -> Result<Vec<u8>> {
    let talk = async {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.write_all(request).await?;
        let mut answer = Vec::new();
        // A reset closes the connection as well as an orderly end does.
        match socket.take(REPLY_BYTES_MAX).read_to_end(&mut answer).await {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error),
            _ => Ok(answer),
        }
    };
    let answer = tokio::time::timeout(CLOSE_DEADLINE, talk).await;
    Ok(answer.context("the connection stayed open")??)
}

/// The names that etcd's own dashboards and alerts ask for, as far as the body has them.
fn metric_names(body: &str) -> String {
    const WANTED: [&str; 32] = [
        "etcd_server_has_leader",
        "etcd_server_is_leader",
        "etcd_server_leader_changes_seen_total",
        "etcd_server_proposals_applied_total",
        "etcd_server_proposals_committed_total",
        "etcd_server_proposals_failed_total",
        "etcd_server_proposals_pending",
        "etcd_server_quota_backend_bytes",
        "etcd_server_version",
        "etcd_server_id",
        "etcd_server_slow_apply_total",
        "etcd_server_health_failures",
        "etcd_server_health_success",
        "etcd_mvcc_put_total",
        "etcd_mvcc_delete_total",
        "etcd_mvcc_range_total",
        "etcd_mvcc_txn_total",
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "etcd_debugging_mvcc_events_total",
        "etcd_debugging_mvcc_keys_total",
        "etcd_debugging_mvcc_slow_watcher_total",
        "etcd_debugging_mvcc_total_put_size_in_bytes",
        "etcd_debugging_mvcc_watch_stream_total",
        "etcd_debugging_mvcc_watcher_total",
        "etcd_disk_wal_fsync_duration_seconds_bucket",
        "etcd_disk_backend_commit_duration_seconds_bucket",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_network_client_grpc_sent_bytes_total",
        "grpc_server_started_total",
        "grpc_server_handled_total",
        "process_resident_memory_bytes",
    ];
    let present = |name: &&str| {
        body.lines().any(|line| {
            line.strip_prefix(*name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        })
    };
    WANTED
        .into_iter()
        .filter(present)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Messages as the bytes they are.
#[derive(Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
