//! Requests of HTTP over a member in memory, without sockets.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use etcd_v2::query::Query;
use etcd_v2::{EtcdV2, Options, ops};
use gateway::keyspace::command::Nodes;
use gateway::keyspace::{Command, WallMs};
use gateway::{Gate, Hub, Limits, Principal};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use replica::{Config, Handle};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tower::Service;

/// Nodes that a listing may have and be made at once.
const SMALL: usize = 1_000;

/// A member that leads nobody, and what it serves.
struct Member {
    replica: Handle,
    gate: Gate,
    routes: Router,
}

type Answered = Result<Response<Body>, Infallible>;

impl Member {
    async fn start() -> Member {
        let config = Config {
            heartbeat: Duration::from_millis(10),
            election: Duration::from_millis(100),
            ..Config::default()
        };
        let hub = Hub::new();
        let replica = replica::start_in_memory(config, hub.sink()).await;
        let replica = replica.expect("nothing is on the disk that could be wrong");
        let gate = Gate::new(replica.clone(), hub, Limits::default());
        let member = Member {
            replica,
            gate: gate.clone(),
            routes: EtcdV2::new(gate, Options::default()).routes(),
        };
        member.gate.led().await;
        member
    }

    fn ask(&self, request: Request<Body>) -> impl Future<Output = Answered> + use<> {
        self.routes.clone().call(request)
    }

    fn get(&self, path: &str) -> impl Future<Output = Answered> + use<> {
        let request = Request::get(path).body(Body::empty());
        self.ask(request.expect("a request"))
    }

    /// Makes so many files in a directory.
    async fn fill(&self, directory: &str, files: usize) {
        let query = Query {
            value: "v".into(),
            ..Query::default()
        };
        let op = |nth: usize| ops::put(format!("{directory}/{nth:07}").into(), &query, WallMs(0));
        let write = |nth: usize| {
            Command::Nodes(Nodes {
                ops: vec![op(nth)],
                ..Nodes::default()
            })
        };
        let writes: Vec<Command> = (0..files).map(write).collect();
        for writes in writes.chunks(100) {
            let written = self.gate.submit(&Principal::System, writes.to_vec()).await;
            let written = written.expect("it leads");
            assert!(written.iter().all(|answered| answered.outcome.is_ok()));
        }
    }
}

async fn content(answered: Answered) -> (StatusCode, String) {
    let Ok(response) = answered;
    let status = response.status();
    let content = to_bytes(response.into_body(), usize::MAX).await;
    let content = content.expect("it is whole").to_vec();
    (status, String::from_utf8(content).expect("text"))
}

/// A thread carries many connections, and none waits for what another lists.
#[test]
fn only_what_is_small_is_listed_on_the_connections_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build();
    let listed = async {
        let member = Member::start().await;
        member.fill("/small", SMALL).await;
        member.fill("/large", SMALL + 1).await;
        for (path, files, at_once) in [
            ("/v2/keys/small", SMALL, true),
            ("/v2/keys/large", SMALL + 1, false),
            ("/v2/keys/", 0, true),
            ("/v2/keys/?recursive=true", SMALL + SMALL + 1, false),
        ] {
            // What is done aside waits for the one thread there is for it.
            let (release, held) = mpsc::channel::<()>();
            let holding = tokio::task::spawn_blocking(move || held.recv());
            let mut asked = pin!(member.get(path));
            let polled = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(polled.is_ready(), at_once, "{path}");
            drop(release);
            assert!(holding.await.expect("it waits").is_err(), "it was released");
            let answered = match polled {
                Poll::Ready(answered) => answered,
                Poll::Pending => asked.await,
            };
            let (status, listed) = content(answered).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(listed.matches("\"value\":\"v\"").count(), files, "{path}");
        }
        member.replica.stop().await;
    };
    runtime.expect("a runtime").block_on(listed);
}

#[tokio::test]
async fn a_form_that_ends_early_is_no_form() {
    let member = Member::start().await;
    let frames = [
        Ok(Frame::data(Bytes::from("value=x"))),
        Err(std::io::Error::other("the client has gone")),
    ];
    let put = |body| {
        let request = Request::put("/v2/keys/k");
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        member.ask(request.body(body).expect("a request"))
    };
    let broken = StreamBody::new(tokio_stream::iter(frames));
    let (status, told) = content(put(Body::new(broken)).await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        told,
        "{\"errorCode\":210,\"message\":\"Invalid POST form\",\"cause\":\"unexpected EOF\",\"index\":0}\n"
    );
    let (status, _) = content(put(Body::new(Full::from("value=x"))).await).await;
    assert_eq!(status, StatusCode::CREATED);
    member.replica.stop().await;
}
