//! `/version`, `/members` and `/debug/vars`: what a server says about itself and its cluster.

use crate::http::{GetOnly, json};
use crate::{CLUSTER_VERSION, ETCD_VERSION};
use axum::Router;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use gateway::{Gate, Member};
use serde::Serialize;

/// `/version`, on every port.
pub fn version() -> Router {
    Router::new().route("/version", any(serve_version))
}

async fn serve_version(_: GetOnly) -> Response {
    json(format!(
        r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{CLUSTER_VERSION}","storage":"{CLUSTER_VERSION}"}}"#
    ))
}

/// `/members`, on the peer port.
pub fn members(gate: Gate) -> Router {
    Router::new()
        .route("/members", any(serve_members))
        .with_state(gate)
}

/// A member as etcd spells it in JSON.
#[derive(Serialize)]
struct Shown<'a> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    learner: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
}

impl<'a> From<&'a Member> for Shown<'a> {
    fn from(member: &'a Member) -> Self {
        Shown {
            id: member.id,
            peer_urls: &member.peer_urls,
            learner: member.learner,
            name: &member.name,
            client_urls: &member.client_urls,
        }
    }
}

fn members_json(members: &[Member]) -> String {
    let shown: Vec<Shown<'_>> = members.iter().map(Shown::from).collect();
    let text = serde_json::to_string(&shown).expect("plain data has a JSON form");
    format!("{text}\n")
}

async fn serve_members(_: GetOnly, State(gate): State<Gate>) -> Response {
    let answer = json(members_json(&gate.members()));
    let cluster = format!("{:x}", gate.status().cluster);
    match HeaderValue::from_str(&cluster) {
        Ok(cluster) => ([("x-etcd-cluster-id", cluster)], answer).into_response(),
        Err(_) => answer,
    }
}

/// `/debug/vars`, in the form of Go's expvar.
pub fn debug_vars(gate: Gate) -> Router {
    Router::new()
        .route("/debug/vars", any(serve_vars))
        .with_state(gate)
}

async fn serve_vars(_: GetOnly, State(gate): State<Gate>) -> Response {
    let args: Vec<String> = std::env::args().collect();
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let status = gate.status();
    let raft = serde_json::json!({
        "id": format!("{:x}", status.member),
        "term": status.term,
        "commit": status.committed,
        "lead": format!("{:x}", status.leader),
        "applied": status.applied,
    });
    json(format!(
        "{{\n\"cmdline\": {},\n\"file_descriptor_limit\": {},\n\"raft.status\": {raft}\n}}\n",
        serde_json::Value::from(args),
        files.unwrap_or(u64::MAX),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_spelled_as_etcd_spells_them() {
        let started = Member {
            id: 7_616_583_982_444_832_909,
            name: "default".into(),
            peer_urls: vec!["http://127.0.0.1:21380".into()],
            client_urls: vec!["http://127.0.0.1:21379".into()],
            ..Member::default()
        };
        let added = Member {
            id: 1,
            peer_urls: vec!["http://b:1".into()],
            learner: true,
            ..Member::default()
        };
        assert_eq!(
            members_json(&[started, added]),
            "[{\"id\":7616583982444832909,\"peerURLs\":[\"http://127.0.0.1:21380\"],\
             \"name\":\"default\",\"clientURLs\":[\"http://127.0.0.1:21379\"]},\
             {\"id\":1,\"peerURLs\":[\"http://b:1\"],\"isLearner\":true}]\n"
        );
    }
}
