//! How the calls travel: gRPC over whatever HTTP/2 the server brings.
//!
//! One service answers every path. The generated servers would box each call's future twice and
//! could only send generated messages; this one boxes it once and lets replies write themselves.

mod codec;
mod streams;

use crate::calls::{Calls, Method};
use crate::errors::{self, Error};
use crate::ops::watch::OVERHEAD_BYTES;
use crate::ops::{Ops, Options, Terms};
use crate::wire::Reply;
use bytes::Bytes;
use codec::Wire;
use gateway::Gate;
use http::{HeaderMap, Request, Response};
use proto::etcdserverpb::RangeRequest;
use proto::health::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use streams::{KeepAlives, Streamed, Watching};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Code, Status, Streaming};
use tower::Service;

/// gRPC lets a message be this long at most (etcd's figure).
const SEND_BYTES_MAX: usize = i32::MAX as usize;
/// So many election timeouts without a leader end the streams that asked to be led. Clients would
/// have to come back to all of them, so this is more patient than the refusal of new calls.
const LEADERLESS_TIMEOUTS: u32 = 3;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Answers etcd's gRPC calls. Cheap to clone.
#[derive(Clone)]
pub struct EtcdV3 {
    shared: Arc<Shared>,
}

struct Shared {
    ops: Ops,
    calls: Arc<Calls>,
}

/// etcd v3 over `gate`, to be given every request whose content type is gRPC's.
pub fn service(gate: Gate, options: Options) -> EtcdV3 {
    EtcdV3 {
        shared: Arc::new(Shared {
            ops: Ops::new(gate, options),
            calls: Arc::default(),
        }),
    }
}

impl EtcdV3 {
    /// The same calls in plain messages, for other ways to travel.
    pub fn ops(&self) -> &Ops {
        &self.shared.ops
    }

    /// How often each call was made.
    pub fn calls(&self) -> &Calls {
        &self.shared.calls
    }
}

impl<B> Service<Request<B>> for EtcdV3
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match Method::of(request.uri().path()) {
            Some(method) => self.dispatch(method, request),
            None => {
                let status = Status::from(unknown(request.uri().path()));
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

/// What grpc-go says of a path that nothing answers.
fn unknown(path: &str) -> Error {
    let (service, name) = path
        .trim_start_matches('/')
        .rsplit_once('/')
        .unwrap_or_default();
    let known = Method::ALL.iter().any(|method| method.service() == service);
    Error::unimplemented(match known {
        true => format!("unknown method {name} for service {service}"),
        false => format!("unknown service {service}"),
    })
}

type Answer<B> = <EtcdV3 as Service<Request<B>>>::Future;

impl EtcdV3 {
    fn dispatch<B>(&self, method: Method, request: Request<B>) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let call = Call {
            shared: self.shared.clone(),
            method,
        };
        /// One message in, one out. Learners answer few of them.
        macro_rules! unary {
            ($op:ident) => {
                call.unary(
                    request,
                    |_| false,
                    |ops, message| async move { ops.$op(message).await },
                )
            };
            ($op:ident at once) => {
                call.unary(
                    request,
                    |_| false,
                    |ops, message| async move { ops.$op(message) },
                )
            };
        }
        match method {
            Method::Range => {
                let local = |message: &RangeRequest| message.serializable;
                call.unary(request, local, |ops, message| async move {
                    ops.range(message).await
                })
            }
            Method::RangeStream => call.server_stream(request, |ops, message| async move {
                let mut parts = ops.range_stream(message).await?;
                let parts = std::iter::from_fn(move || parts.next_part().transpose());
                Ok(tokio_stream::iter(parts))
            }),
            Method::Put => unary!(put),
            Method::DeleteRange => unary!(delete_range),
            Method::Txn => unary!(txn),
            Method::Compact => unary!(compact),
            Method::Watch => call.bidi_stream(request, |ops, requests| {
                Watching::new(ops.watch(), requests)
            }),
            Method::LeaseGrant => unary!(lease_grant),
            Method::LeaseRevoke => unary!(lease_revoke),
            Method::LeaseKeepAlive => call.bidi_stream(request, KeepAlives::new),
            Method::LeaseTimeToLive => unary!(lease_time_to_live),
            Method::LeaseLeases => unary!(lease_leases at once),
            Method::MemberAdd => unary!(member_add),
            Method::MemberRemove => unary!(member_remove),
            Method::MemberUpdate => unary!(member_update),
            Method::MemberList => unary!(member_list),
            Method::MemberPromote => unary!(member_promote),
            Method::Alarm => unary!(alarm),
            Method::Status => call.unary(
                request,
                |_| true,
                |ops, message| async move { ops.status(message) },
            ),
            Method::Defragment => unary!(defragment at once),
            Method::Hash => unary!(hash),
            Method::HashKv => unary!(hash_kv),
            Method::MoveLeader => unary!(move_leader),
            Method::HealthCheck => call.unary(
                request,
                |_| true,
                |_, message| async move { health(&message) },
            ),
            Method::HealthWatch => call.server_stream(request, |_, message| async move {
                let now = tokio_stream::once(Ok(watched_health(&message)));
                Ok(now.chain(tokio_stream::pending()))
            }),
        }
    }
}

/// The one service there is, whose name is empty, serves as long as anything answers at all.
fn health(request: &HealthCheckRequest) -> Result<HealthCheckResponse, Error> {
    match request.service.is_empty() {
        true => Ok(HealthCheckResponse {
            status: ServingStatus::Serving.into(),
        }),
        false => Err(errors::UNKNOWN_SERVICE),
    }
}

/// What a watcher hears first: it may come before the service it watches, so an unknown one is a
/// state and no error.
fn watched_health(request: &HealthCheckRequest) -> HealthCheckResponse {
    let status = match request.service.is_empty() {
        true => ServingStatus::Serving,
        false => ServingStatus::ServiceUnknown,
    };
    HealthCheckResponse {
        status: status.into(),
    }
}

/// One call under way.
struct Call {
    shared: Arc<Shared>,
    method: Method,
}

impl Call {
    /// Answers a message with a message.
    fn unary<B, M, R, F>(
        self,
        request: Request<B>,
        learner_answers: fn(&M) -> bool,
        op: impl FnOnce(Ops, M) -> F + Send + 'static,
    ) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
        M: prost::Message + Default + 'static,
        R: Reply,
        F: Future<Output = Result<R, Error>> + Send,
    {
        Box::pin(async move {
            let shared = &self.shared;
            let mut once = Some((op, self.begin(request.headers())));
            let answer = tower::service_fn(|message: tonic::Request<M>| {
                let (op, require_leader) = once.take().expect(ONE_MESSAGE);
                async move {
                    let message = message.into_inner();
                    shared.ops.admit(Terms {
                        require_leader: require_leader?,
                        learner_answers: learner_answers(&message),
                    })?;
                    let reply = op(shared.ops.clone(), message).await?;
                    Ok(tonic::Response::new(reply))
                }
            });
            let mut grpc = self.grpc(Wire::<M, R>::brief(shared.calls.clone()));
            let response = go_like(grpc.unary(answer, request).await);
            self.shared
                .calls
                .handle(self.method, code_of(response.headers()));
            Ok(response)
        })
    }

    /// Answers a message with a stream.
    fn server_stream<B, M, R, S, F>(
        self,
        request: Request<B>,
        op: impl FnOnce(Ops, M) -> F + Send + 'static,
    ) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
        M: prost::Message + Default + 'static,
        R: Reply,
        S: Stream<Item = Result<R, Error>> + Send + 'static,
        F: Future<Output = Result<S, Error>> + Send,
    {
        Box::pin(async move {
            let call = &self;
            let mut once = Some((op, self.begin(request.headers())));
            let answer = tower::service_fn(|message: tonic::Request<M>| {
                let (op, require_leader) = once.take().expect(ONE_MESSAGE);
                async move {
                    let require_leader = require_leader?;
                    call.admit_stream(require_leader)?;
                    let replies = op(call.shared.ops.clone(), message.into_inner()).await?;
                    let replies = call.streamed(require_leader, replies);
                    Ok(tonic::Response::new(replies))
                }
            });
            let mut grpc = self.grpc(Wire::<M, R>::new(self.shared.calls.clone()));
            let response = go_like(grpc.server_streaming(answer, request).await);
            Ok(self.end_refused(response))
        })
    }

    /// Answers a stream with a stream.
    fn bidi_stream<B, M, R, S>(
        self,
        request: Request<B>,
        open: impl FnOnce(Ops, Streaming<M>) -> S + Send + 'static,
    ) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
        M: prost::Message + Default + 'static,
        R: Reply,
        S: Stream<Item = Result<R, Error>> + Send + 'static,
    {
        Box::pin(async move {
            let call = &self;
            let mut once = Some((open, self.begin(request.headers())));
            let answer = tower::service_fn(|requests: tonic::Request<Streaming<M>>| {
                let (open, require_leader) = once.take().expect("a call opens one stream");
                async move {
                    let require_leader = require_leader?;
                    call.admit_stream(require_leader)?;
                    let replies = open(call.shared.ops.clone(), requests.into_inner());
                    let replies = call.streamed(require_leader, replies);
                    Ok(tonic::Response::new(replies))
                }
            });
            let mut grpc = self.grpc(Wire::<M, R>::new(self.shared.calls.clone()));
            let response = grpc.streaming(answer, request).await;
            Ok(self.end_refused(response))
        })
    }

    /// Counts the call and reads from its metadata whether it wants to be led.
    fn begin(&self, headers: &HeaderMap) -> Result<bool, Error> {
        self.shared.calls.start(self.method);
        let version = match headers.get("client-api-version") {
            Some(version) => std::str::from_utf8(version.as_bytes())
                .map_err(|_| errors::INVALID_CLIENT_API_VERSION)?,
            None => "unknown",
        };
        self.shared.calls.request(self.method, version);
        Ok(headers.get("hasleader").is_some_and(|it| it == "true"))
    }

    /// Learners answer no streams (but the health service, which is not etcd's).
    fn admit_stream(&self, require_leader: bool) -> Result<(), Error> {
        self.shared.ops.admit(Terms {
            require_leader,
            learner_answers: self.method == Method::HealthWatch,
        })
    }

    fn grpc<T: tonic::codec::Codec>(&self, codec: T) -> Grpc<T> {
        let limits = self.shared.ops.gate().limits();
        Grpc::new(codec)
            .max_decoding_message_size(limits.request_bytes_max + OVERHEAD_BYTES)
            .max_encoding_message_size(SEND_BYTES_MAX)
    }

    /// A stream that is counted when it ends, and ends when its client wants a leader and there is
    /// none for too long.
    fn streamed<S>(&self, require_leader: bool, replies: S) -> Streamed<S> {
        let gate = self.shared.ops.gate().clone();
        let leaderless: Option<BoxFuture<()>> = require_leader.then(|| {
            let patience = gate.limits().election_timeout * LEADERLESS_TIMEOUTS;
            let lost: BoxFuture<()> = Box::pin(async move { gate.leaderless(patience).await });
            lost
        });
        Streamed::new(replies, leaderless, self.shared.calls.clone(), self.method)
    }

    /// Streams are counted when they end, which one that was refused never does.
    fn end_refused(&self, response: Response<Body>) -> Response<Body> {
        if response.headers().contains_key(GRPC_STATUS) {
            self.shared
                .calls
                .handle(self.method, code_of(response.headers()));
        }
        response
    }
}

const ONE_MESSAGE: &str = "the call has one message";
const GRPC_STATUS: &str = "grpc-status";

/// The code in the headers of a response that has nothing else; others are successes so far.
fn code_of(headers: &HeaderMap) -> usize {
    let code = headers.get(GRPC_STATUS).and_then(|it| it.to_str().ok());
    code.and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// A message over the limit is refused before this crate sees it, in tonic's words. Clients know
/// grpc-go's.
fn go_like(response: Response<Body>) -> Response<Body> {
    if response
        .headers()
        .get(GRPC_STATUS)
        .is_none_or(|it| it != "11")
    {
        return response;
    }
    let too_long = Status::from_header_map(response.headers()).and_then(|status| {
        let sizes = status
            .message()
            .strip_prefix("Error, decoded message length too large: found ")?;
        let (found, rest) = sizes.split_once(" bytes, the limit is: ")?;
        let limit = rest.strip_suffix(" bytes")?;
        let message = format!("grpc: received message larger than max ({found} vs. {limit})");
        Some(Status::resource_exhausted(message))
    });
    too_long.map_or(response, Status::into_http)
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        Status::new(Code::from_i32(error.code.number()), error.message)
    }
}
