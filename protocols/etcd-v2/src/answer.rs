//! Answers with the headers that etcd v2's clients read.

use crate::Shared;
use crate::errors::Error;
use crate::json;
use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
const ETCD_INDEX: HeaderName = HeaderName::from_static("x-etcd-index");
const RAFT_INDEX: HeaderName = HeaderName::from_static("x-raft-index");
const RAFT_TERM: HeaderName = HeaderName::from_static("x-raft-term");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

const NOT_ALLOWED: &str = "Method Not Allowed\n";

impl Shared {
    /// What was asked for, as of an event.
    pub fn answer(&self, status: StatusCode, index: u64, content: Body) -> Response {
        let raft = self.gate.status();
        let headers = [
            (CONTENT_TYPE, JSON),
            (CLUSTER_ID, self.cluster_id()),
            (ETCD_INDEX, index.into()),
            (RAFT_INDEX, raft.committed.into()),
            (RAFT_TERM, raft.term.into()),
        ];
        (status, headers, content).into_response()
    }

    /// An error.
    pub fn error(&self, error: &Error) -> Response {
        let status = StatusCode::from_u16(error.code.status());
        let headers = [
            (CONTENT_TYPE, JSON),
            (CLUSTER_ID, self.cluster_id()),
            (ETCD_INDEX, error.index.into()),
        ];
        let status = status.expect("every code has a status of HTTP");
        (status, headers, error.encode()).into_response()
    }

    /// JSON that is not of keys.
    pub fn json(&self, status: StatusCode, content: Vec<u8>) -> Response {
        let headers = [(CONTENT_TYPE, JSON), (CLUSTER_ID, self.cluster_id())];
        (status, headers, content).into_response()
    }

    /// Nothing to tell but that it was done.
    pub fn done(&self) -> Response {
        let headers = [(CLUSTER_ID, self.cluster_id())];
        (StatusCode::NO_CONTENT, headers).into_response()
    }

    /// What went wrong, elsewhere than with keys.
    pub fn message(&self, status: StatusCode, text: &str) -> Response {
        self.json(status, message(text))
    }

    /// Go's answer to a change of a member that is not named.
    pub fn without_id(&self) -> Response {
        let headers = [
            (CONTENT_TYPE, TEXT),
            (X_CONTENT_TYPE_OPTIONS, NO_SNIFF),
            (CLUSTER_ID, self.cluster_id()),
        ];
        let status = StatusCode::METHOD_NOT_ALLOWED;
        (status, headers, NOT_ALLOWED).into_response()
    }

    /// It never changes.
    fn cluster_id(&self) -> HeaderValue {
        let id = self.cluster_id.get_or_init(|| {
            let id = format!("{:x}", self.gate.status().cluster);
            HeaderValue::try_from(id).expect("a number is a header's value")
        });
        id.clone()
    }
}

/// The content of an answer about what went wrong, elsewhere than with keys.
pub fn message(text: &str) -> Vec<u8> {
    let mut content = b"{\"message\":".to_vec();
    json::string(&mut content, text.as_bytes());
    content.push(b'}');
    content
}

/// What went wrong before it is said which cluster this is.
pub fn lone_message(status: StatusCode, text: &str) -> Response {
    (status, [(CONTENT_TYPE, JSON)], message(text)).into_response()
}

/// JSON without any of these headers.
pub fn plain_json(content: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, JSON)], content).into_response()
}

/// Go's answer to a method that is not among these, which are separated by commas.
pub fn not_allowed(methods: &'static str) -> Response {
    let headers = [
        (ALLOW, HeaderValue::from_static(methods)),
        (CONTENT_TYPE, TEXT),
        (X_CONTENT_TYPE_OPTIONS, NO_SNIFF),
    ];
    let status = StatusCode::METHOD_NOT_ALLOWED;
    (status, headers, NOT_ALLOWED).into_response()
}
