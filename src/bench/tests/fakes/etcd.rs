//! A server of a few of etcd's calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use axum::extract::Request as HttpRequest;
use proto::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader, StatusRequest,
    StatusResponse, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use proto::mvccpb::{Event, KeyValue};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::Grpc;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::{Fate, Fault, bench, check_counted, check_found_out, listen, operations};

type Answer<T> = Result<Response<T>, Status>;

struct State {
    fault: Fault,
    requests: AtomicU64,
    revision: AtomicI64,
    events: broadcast::Sender<Event>,
}

/// Events that a slow watcher may lag behind.
const EVENTS_MAX: usize = 1 << 16;

#[derive(Clone)]
struct Fake(Arc<State>);

impl Fake {
    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            member_id: 7,
            revision: self.0.revision.load(Ordering::SeqCst),
            ..Default::default()
        })
    }
}

impl Fake {
    async fn serve(self, request: HttpRequest) -> http::Response<tonic::body::Body> {
        macro_rules! unary {
            ($answer:ident, $request:ty, $response:ty) => {{
                let codec = ProstCodec::<$response, $request>::default();
                let call = |request: Request<$request>| {
                    let answer = self.$answer(request.into_inner());
                    async move { answer }
                };
                Grpc::new(codec).unary(service_fn(call), request).await
            }};
        }
        match request.uri().path() {
            "/etcdserverpb.KV/Range" => unary!(range, RangeRequest, RangeResponse),
            "/etcdserverpb.KV/Put" => unary!(put, PutRequest, PutResponse),
            "/etcdserverpb.KV/Txn" => unary!(txn, TxnRequest, TxnResponse),
            "/etcdserverpb.Maintenance/Status" => unary!(status, StatusRequest, StatusResponse),
            "/etcdserverpb.Watch/Watch" => {
                let codec = ProstCodec::<WatchResponse, WatchRequest>::default();
                let call = |request: Request<Streaming<WatchRequest>>| {
                    let answers = self.watch(request.into_inner());
                    async move { Ok(Response::new(answers)) }
                };
                Grpc::new(codec).streaming(service_fn(call), request).await
            }
            path => Status::unimplemented(path).into_http(),
        }
    }

    fn range(&self, request: RangeRequest) -> Answer<RangeResponse> {
        // The generator asks for the revision with a count of a key it never writes.
        if !request.count_only {
            self.0.requests.fetch_add(1, Ordering::SeqCst);
        }
        let found = self.0.fault != Fault::FindsNothing;
        Ok(Response::new(RangeResponse {
            header: self.header(),
            kvs: vec![KeyValue::default(); usize::from(found && !request.count_only)],
            count: i64::from(u16::MAX),
            more: false,
        }))
    }

    fn put(&self, request: PutRequest) -> Answer<PutResponse> {
        let nth = self.0.requests.fetch_add(1, Ordering::SeqCst);
        match self.0.fault.fate(nth) {
            Fate::Lost => {}
            Fate::Refused => {
                return Err(Status::resource_exhausted("etcdserver: too many requests"));
            }
            Fate::Done => {
                self.0.revision.fetch_add(1, Ordering::SeqCst);
                let kv = KeyValue {
                    key: request.key,
                    value: request.value,
                    ..Default::default()
                };
                let event = Event {
                    kv: Some(kv),
                    ..Default::default()
                };
                // Nobody may be watching.
                self.0.events.send(event).ok();
            }
        }
        Ok(Response::new(PutResponse {
            header: self.header(),
            prev_kv: None,
        }))
    }

    fn txn(&self, _: TxnRequest) -> Answer<TxnResponse> {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        self.0.revision.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(TxnResponse {
            header: self.header(),
            succeeded: true,
            responses: Vec::new(),
        }))
    }

    fn status(&self, _: StatusRequest) -> Answer<StatusResponse> {
        Ok(Response::new(StatusResponse {
            header: self.header(),
            leader: 7,
            version: "3.7.0".into(),
            ..Default::default()
        }))
    }

    fn watch(
        &self,
        mut requests: Streaming<WatchRequest>,
    ) -> ReceiverStream<Result<WatchResponse, Status>> {
        let mut events = self.0.events.subscribe();
        let (answers, stream) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut watchers = 0;
            loop {
                let mut batch = Vec::new();
                tokio::select! {
                    Some(Ok(_)) = requests.next() => {
                        batch.push(WatchResponse {
                            watch_id: watchers,
                            created: true,
                            ..Default::default()
                        });
                        watchers += 1;
                    }
                    Ok(event) = events.recv() => {
                        batch.extend((0..watchers).map(|watch_id| WatchResponse {
                            watch_id,
                            events: vec![event.clone()],
                            ..Default::default()
                        }));
                    }
                    else => return,
                }
                for answer in batch {
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
        });
        ReceiverStream::new(stream)
    }
}

/// Starts a server on a free port; it ends with the test's runtime.
async fn serve(fault: Fault) -> (Fake, String) {
    let fake = Fake(Arc::new(State {
        fault,
        requests: AtomicU64::new(0),
        revision: AtomicI64::new(1),
        events: broadcast::channel(EVENTS_MAX).0,
    }));
    let (listener, endpoint) = listen().await;
    let served = fake.clone();
    let answer = move |request| served.clone().serve(request);
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (fake, endpoint)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_counted_reached_the_server() {
    for command in [
        "put --clients 8 --connections 2",
        "put --clients 3 --connections 3 --rate 500",
        "put --clients 2 --val-size 200000",
        "range --clients 8 --connections 2",
        "mixed --read-ratio 0.5 --clients 8",
        "txn --txn-ops 3 --clients 2",
    ] {
        let (fake, endpoint) = serve(Fault::None).await;
        let series = bench(&format!("{command} --endpoints {endpoint}")).await;
        let series = series.unwrap_or_else(|error| panic!("{command}: {error:#}"));
        check_counted(&series[0], fake.0.requests.load(Ordering::SeqCst), command);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_take_turns_and_are_compared() {
    let (subject, endpoint) = serve(Fault::None).await;
    let (baseline, against) = serve(Fault::None).await;
    let pid = std::process::id();
    let series = bench(&format!(
        "put --endpoints {endpoint} --against {against} --pid {pid} --against-pid {pid}"
    ))
    .await
    .expect("both serve");
    assert_eq!(series.len(), 2);
    for (series, fake) in series.iter().zip([subject, baseline]) {
        assert_eq!(operations(series), fake.0.requests.load(Ordering::SeqCst));
        assert!(series["slices"][0]["rss_bytes"].as_u64() > Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loses_writes_is_found_out() {
    let (_, endpoint) = serve(Fault::LosesWrites).await;
    check_found_out(bench(&format!("put --clients 4 --endpoints {endpoint}")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_and_empty_answers_are_counted() {
    let (fake, endpoint) = serve(Fault::RefusesWrites).await;
    let series = bench(&format!("put --clients 4 --endpoints {endpoint}"))
        .await
        .expect("refusals do not end a benchmark");
    let series = &series[0];
    let refused = &series["failures"]["grpc-status 8: etcdserver: too many requests"];
    let reached = fake.0.requests.load(Ordering::SeqCst);
    assert_eq!(refused.as_u64(), Some(reached / 10));
    assert_eq!(operations(series), reached - reached / 10);

    let (fake, endpoint) = serve(Fault::FindsNothing).await;
    let series = bench(&format!("range --clients 4 --endpoints {endpoint}"))
        .await
        .expect("it answers");
    let reached = fake.0.requests.load(Ordering::SeqCst);
    assert_eq!(series[0]["misses"].as_u64(), Some(reached));
}

/// Every put must reach every watcher before a slice is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_gets_every_event() {
    let (fake, endpoint) = serve(Fault::None).await;
    let series = bench(&format!(
        "watch-latency --rate 200 --watchers 10 --streams 3 --connections 2 --endpoints {endpoint}"
    ))
    .await
    .expect("it serves");
    let puts = fake.0.requests.load(Ordering::SeqCst);
    assert!(puts > 0);
    assert_eq!(operations(&series[0]), puts * 10);
}
