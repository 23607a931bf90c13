//! A server of a few of etcd v2's requests.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::serve::ListenerExt as _;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::{Fate, Fault, bench, check_counted, check_found_out, listen, operations};

struct State {
    fault: Fault,
    sets: AtomicU64,
    gets: AtomicU64,
    /// The keys of all events. The index of an event is its place, from 1.
    events: watch::Sender<Vec<String>>,
}

fn answer(status: StatusCode, index: usize, body: impl Into<Body>) -> Response {
    let head = Response::builder()
        .status(status)
        .header("X-Etcd-Index", index);
    head.body(body.into()).expect("a valid answer")
}

fn refusal(status: StatusCode, code: u32, message: &str, index: usize) -> Response {
    let body = json!({"errorCode": code, "message": message, "cause": "/", "index": index});
    answer(status, index, body.to_string())
}

/// An action as etcd spells it, members in their order.
fn action(name: &str, key: &str, index: usize) -> String {
    format!(
        "{{\"action\":\"{name}\",\"node\":{{\"key\":\"{key}\",\"value\":\"x\",\
         \"modifiedIndex\":{index},\"createdIndex\":{index}}}}}\n"
    )
}

impl State {
    async fn serve(self: Arc<Self>, request: Request) -> Response {
        let (uri, method) = (request.uri().clone(), request.method().clone());
        let form = axum::body::to_bytes(request.into_body(), usize::MAX).await;
        let form = form.expect("a whole request");
        let wait = uri.query().and_then(|query| query.split_once("waitIndex="));
        match (method.as_str(), uri.path().strip_prefix("/v2/keys")) {
            ("PUT", Some(key)) => {
                assert!(form.starts_with(b"value=") && form.len() > 6, "{form:?}");
                self.set(key)
            }
            (_, Some("/bench")) => self.list(),
            (_, Some(key)) => match wait {
                Some((_, index)) => self.wait(key, index.parse().expect("an index")).await,
                None => self.get(key),
            },
            (_, None) => {
                let told = json!({"etcdserver": "3.4.23", "state": "StateLeader"});
                answer(StatusCode::OK, 0, told.to_string())
            }
        }
    }

    fn set(&self, key: &str) -> Response {
        let nth = self.sets.fetch_add(1, Ordering::SeqCst);
        match self.fault.fate(nth) {
            Fate::Lost => {}
            Fate::Refused => {
                let index = self.events.borrow().len();
                return refusal(StatusCode::FORBIDDEN, 102, "Not a file", index);
            }
            Fate::Done => self
                .events
                .send_modify(|events| events.push(key.to_owned())),
        }
        let index = self.events.borrow().len();
        answer(StatusCode::CREATED, index, action("set", key, index))
    }

    fn get(&self, key: &str) -> Response {
        let events = self.events.borrow();
        let Some(at) = events.iter().position(|known| known == key) else {
            return refusal(StatusCode::NOT_FOUND, 100, "Key not found", events.len());
        };
        self.gets.fetch_add(1, Ordering::SeqCst);
        let body = if self.fault == Fault::FindsNothing {
            json!({"action": "get", "node": {"dir": true}}).to_string()
        } else {
            action("get", key, at + 1)
        };
        answer(StatusCode::OK, events.len(), body)
    }

    fn list(&self) -> Response {
        let events = self.events.borrow();
        let keys: std::collections::BTreeSet<_> = events.iter().collect();
        let nodes: Vec<Value> = keys.iter().map(|key| json!({"key": key})).collect();
        let body = json!({"action": "get", "node": {"dir": true, "nodes": nodes}});
        answer(StatusCode::OK, events.len(), body.to_string())
    }

    async fn wait(&self, key: &str, index: usize) -> Response {
        let mut events = self.events.subscribe();
        let now = events.borrow().len();
        if self.fault == Fault::ForgetsEvents && index.is_multiple_of(10) {
            let happened = events.wait_for(|events| events.len() >= index).await;
            happened.expect("the server lives");
            let cleared = "The event in requested index is outdated and cleared";
            return refusal(StatusCode::BAD_REQUEST, 401, cleared, index);
        }
        // The head comes at once, and the event when it happens.
        let (sender, body) = mpsc::channel(1);
        let key = key.to_owned();
        tokio::spawn(async move {
            let happened = events.wait_for(|events| events[index - 1..].contains(&key));
            let Ok(at) = happened
                .await
                .map(|events| events[index - 1..].iter().position(|it| *it == key))
            else {
                return;
            };
            let at = at.expect("it was awaited") + index;
            let event = Ok::<_, Infallible>(action("set", &key, at));
            // The client may have gone.
            sender.send(event).await.ok();
        });
        let body = Body::from_stream(ReceiverStream::new(body));
        answer(StatusCode::OK, now, body)
    }

    fn requests(&self) -> u64 {
        self.sets.load(Ordering::SeqCst) + self.gets.load(Ordering::SeqCst)
    }
}

/// Starts a server on a free port; it ends with the test's runtime.
async fn serve(fault: Fault) -> (Arc<State>, String) {
    let state = Arc::new(State {
        fault,
        sets: AtomicU64::new(0),
        gets: AtomicU64::new(0),
        events: watch::Sender::default(),
    });
    let (listener, endpoint) = listen().await;
    let served = state.clone();
    let answer = move |request| served.clone().serve(request);
    let router = axum::Router::new().fallback(answer);
    // Without it, an event waits for the client to acknowledge the head before it.
    let listener = listener.tap_io(|socket| socket.set_nodelay(true).expect("a socket"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (state, endpoint)
}

/// Runs `triglot bench etcd-v2` on 50 keys and returns its series, and how many requests the
/// measurement made the server answer.
async fn measure(state: &State, endpoint: &str, command: &str) -> anyhow::Result<(Value, u64)> {
    let run = async |command: &str| {
        let where_to = format!("--endpoints {endpoint} --key-space-size 50");
        bench(&format!("etcd-v2 {command} {where_to}")).await
    };
    run("fill").await?;
    let before = state.requests();
    let [series] = <[Value; 1]>::try_from(run(command).await?).expect("one server");
    Ok((series, state.requests() - before))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_counted_reached_the_server() {
    for command in [
        "set --clients 8",
        "set --clients 3 --rate 500",
        "set --clients 2 --val-size 200000",
        "get --clients 8",
        "get --quorum --clients 2",
        "mixed --read-ratio 0.5 --clients 8",
    ] {
        let (state, endpoint) = serve(Fault::None).await;
        let outcome = measure(&state, &endpoint, command).await;
        let (series, reached) = outcome.unwrap_or_else(|error| panic!("{command}: {error:#}"));
        check_counted(&series, reached, command);
        assert_eq!(series["version"], "3.4.23", "{command}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filling_in_sets_every_key() {
    let (state, endpoint) = serve(Fault::None).await;
    let outcome = measure(&state, &endpoint, "fill --clients 4").await;
    let (series, reached) = outcome.expect("it serves");
    assert_eq!((operations(&series), reached), (50, 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loses_writes_is_found_out() {
    let (_, endpoint) = serve(Fault::LosesWrites).await;
    let command = format!("etcd-v2 set --clients 4 --endpoints {endpoint}");
    check_found_out(bench(&command).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_and_empty_answers_are_counted() {
    let (state, endpoint) = serve(Fault::RefusesWrites).await;
    let command = format!("etcd-v2 set --clients 4 --endpoints {endpoint}");
    let series = bench(&command).await;
    let series = &series.expect("refusals do not end a benchmark")[0];
    let reached = state.requests();
    let refused = series["failures"]["error 102: Not a file"].as_u64();
    assert_eq!(refused, Some(reached / 10));
    assert_eq!(operations(series), reached - reached / 10);

    let (state, endpoint) = serve(Fault::FindsNothing).await;
    let outcome = measure(&state, &endpoint, "get --clients 4").await;
    let (series, reached) = outcome.expect("it answers");
    assert_eq!(series["misses"].as_u64(), Some(reached));
}

/// Every set must reach every client that waits before a slice is over, or is known to be missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_gets_every_event() {
    for (command, fault) in [
        ("watch-latency --rate 200 --watchers 10", Fault::None),
        ("watch-fanout --watchers 10", Fault::None),
        ("watch-fanout --watchers 10", Fault::ForgetsEvents),
    ] {
        let (state, endpoint) = serve(fault).await;
        let series = bench(&format!("etcd-v2 {command} --endpoints {endpoint}")).await;
        let series = series.unwrap_or_else(|error| panic!("{command}: {error:#}"));
        let sets = state.sets.load(Ordering::SeqCst);
        let forgotten = if fault == Fault::ForgetsEvents {
            sets / 10
        } else {
            0
        };
        assert!(sets > 10, "{command}");
        assert_eq!(operations(&series[0]), (sets - forgotten) * 10, "{command}");
        assert_eq!(series[0]["misses"], forgotten * 10, "{command}");
    }
}
