//! Requests for keys: `/v2/keys` and all below.

use crate::answer::not_allowed;
use crate::auth::login::Visitor;
use crate::auth::pattern;
use crate::errors::{Asked, Code, Error};
use crate::form::{self, FORM_BYTES_MAX, Form, Malformed};
use crate::node;
use crate::query::{Method, Query};
use crate::read::read;
use crate::{Shared, ops, time, watch};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::Response;
use gateway::Interest;
use gateway::keyspace::change::Cause;
use gateway::keyspace::command::Nodes;
use gateway::keyspace::node::{NodeAnswer, NodeOp, is_path};
use gateway::keyspace::{Command, Outcome, Permissions};
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;
use std::sync::Arc;

const PREFIX: &str = "/v2/keys";

/// Of what a client goes on to send although it is too much, so much is thrown away before it is told:
/// one that was cut off would not look for an answer.
const EXCESS_BYTES_MAX: usize = FORM_BYTES_MAX;

/// Answers a request.
pub async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let Some(method) = method_of(request.method()) else {
        return not_allowed("HEAD,GET,PUT,POST,DELETE");
    };
    let (parts, body) = request.into_parts();
    let answered = match query_of(method, &parts, body).await {
        Ok(query) => admit(&shared, method, &parts, &query).await,
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(|error| shared.error(&error))
}

fn method_of(method: &axum::http::Method) -> Option<Method> {
    match method.as_str() {
        "HEAD" => Some(Method::Head),
        "GET" => Some(Method::Get),
        "PUT" => Some(Method::Put),
        "POST" => Some(Method::Post),
        "DELETE" => Some(Method::Delete),
        _ => None,
    }
}

/// Answers who may ask. It is judged by the path as it is spelled, and answered without a slash at its
/// end.
async fn admit(
    shared: &Arc<Shared>,
    method: Method,
    parts: &Parts,
    query: &Query,
) -> Result<Response, Error> {
    let path = parts.uri.path();
    let path = path.strip_prefix(PREFIX).unwrap_or_default();
    let mut path: Vec<u8> = percent_decode_str(path).collect();
    let visitor = Visitor {
        who: shared.who(&parts.headers).await?,
        key: pattern::key(&path, &shared.options.root),
        recursive: query.recursive,
        may: match method {
            Method::Head | Method::Get => Permissions::READ,
            Method::Put | Method::Post | Method::Delete => Permissions::WRITE,
        },
    };
    if !visitor.is_permitted(shared) {
        return Err(Error::unauthorized());
    }
    if path.ends_with(b"/") {
        path.pop();
    }
    if path.is_empty() {
        path.push(b'/');
    }
    answer(shared, method, &path, query, visitor).await
}

async fn query_of(method: Method, parts: &Parts, body: Body) -> Result<Query, Error> {
    let kind = parts.headers.get(CONTENT_TYPE);
    let is_form = kind.is_some_and(|kind| form::is_form(kind.as_bytes()));
    let malformed = |why: Malformed| Error::of_request(Code::InvalidForm, why.to_string());
    let body = match method {
        Method::Put | Method::Post if is_form => content_of(body).await.map_err(malformed)?,
        Method::Put | Method::Post | Method::Head | Method::Get | Method::Delete => Vec::new(),
    };
    let query = parts.uri.query().unwrap_or_default();
    let form = Form::parse(&body, query.as_bytes()).map_err(malformed)?;
    Query::parse(method, &form)
}

async fn content_of(mut body: Body) -> Result<Vec<u8>, Malformed> {
    let mut content = Vec::new();
    let mut excess = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Malformed::Truncated)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if excess > 0 || content.len() + data.len() > FORM_BYTES_MAX {
            content = Vec::new();
            excess += data.len();
        } else {
            content.extend_from_slice(&data);
        }
        if excess > EXCESS_BYTES_MAX {
            break;
        }
    }
    match excess {
        0 => Ok(content),
        _ => Err(Malformed::TooLarge),
    }
}

async fn answer(
    shared: &Arc<Shared>,
    method: Method,
    path: &[u8],
    query: &Query,
    visitor: Visitor,
) -> Result<Response, Error> {
    let key = shared.options.root.key(path);
    let now = time::now();
    match method {
        // As in etcd, reading through the others wins over waiting.
        Method::Get if query.quorum => {
            shared.gate.linearize().await.map_err(unavailable)?;
            read(shared, path, query, &visitor.who).await
        }
        Method::Get if query.wait => wait(shared, path, query, visitor),
        Method::Get | Method::Head => read(shared, path, query, &visitor.who).await,
        Method::Post => write(shared, path, query, ops::post(&key, query, now), &visitor).await,
        Method::Put if path == b"/" => Err(read_only(shared)),
        Method::Put => write(shared, path, query, ops::put(key, query, now), &visitor).await,
        Method::Delete if path == b"/" && query.compares() => {
            let index = shared.gate.reader().event();
            Err(Error::of_state(Code::NotAFile, b"", index))
        }
        Method::Delete if path == b"/" => Err(read_only(shared)),
        Method::Delete => write(shared, path, query, ops::delete(key, query), &visitor).await,
    }
}

fn read_only(shared: &Shared) -> Error {
    Error::of_state(Code::RootReadOnly, b"/", shared.gate.reader().event())
}

fn unavailable(error: gateway::Error) -> Error {
    match error {
        gateway::Error::Unavailable(unavailable) => unavailable.into(),
        gateway::Error::Refused(refusal) => unreachable!("reading is not refused: {refusal}"),
    }
}

async fn write(
    shared: &Shared,
    path: &[u8],
    query: &Query,
    op: NodeOp,
    visitor: &Visitor,
) -> Result<Response, Error> {
    let cause = op.cause;
    let command = Command::Nodes(Nodes {
        by: Some([].into()),
        ops: vec![op],
        ..Nodes::default()
    });
    let answered = shared.gate.submit(&visitor.who, vec![command]).await?;
    let answered = answered.into_iter().next();
    let answered = answered.expect("one command has one answer");
    let asked = Asked {
        path,
        query,
        root: &shared.options.root,
    };
    shared.stats.wrote(cause, answered.outcome.is_ok());
    match answered.outcome {
        Ok(Outcome::Nodes(answers)) => {
            let answer = answers.first().expect("one step has one answer");
            Ok(tell(shared, query, cause, answer, answered.event))
        }
        Ok(Outcome::Txn(_) | Outcome::Done | Outcome::Ended(_)) => {
            unreachable!("steps at nodes are answered as such")
        }
        Err(refusal) => Err(asked.refused(refusal, answered.event)),
    }
}

/// Answers what a write did, by the event of this index.
fn tell(shared: &Shared, query: &Query, cause: Cause, answer: &NodeAnswer, index: u64) -> Response {
    let (created, brief) = match cause {
        Cause::Create => (true, query.no_value_on_success),
        Cause::Set => (answer.previous.is_none(), query.no_value_on_success),
        Cause::Update | Cause::CompareAndSwap => (false, query.no_value_on_success),
        Cause::Delete | Cause::CompareAndDelete | Cause::Expire => (false, false),
    };
    let status = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let root = &shared.options.root;
    let content = node::written(answer, cause, index, root, time::now(), brief);
    shared.answer(status, index, content.into())
}

fn wait(
    shared: &Arc<Shared>,
    path: &[u8],
    query: &Query,
    visitor: Visitor,
) -> Result<Response, Error> {
    let path = shared.options.root.key(path);
    if !is_path(&path) {
        return Err(Error::invalid_key());
    }
    shared.stats.waited();
    let interest = Interest {
        by: visitor.who.clone(),
        path,
        recursive: query.recursive,
        since: query.wait_index,
        once: !query.stream,
    };
    let events = shared.gate.await_events(interest)?;
    let index = events.index();
    let content = watch::content(events, Arc::clone(shared), visitor);
    Ok(shared.answer(StatusCode::OK, index, content))
}
