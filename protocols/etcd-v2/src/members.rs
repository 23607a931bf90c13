//! `/v2/members` and `/v2/machines`: who belongs to the cluster, and where clients reach it.

use crate::answer::not_allowed;
use crate::{Shared, json};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use gateway::url;
use gateway::{Description, HEALTHY_AFTER, Member, MemberError, MemberRefusal, NewMember};
use serde::Deserialize;
use std::sync::Arc;

const PREFIX: &str = "/v2/members";

/// The most that a change of members may have: no cluster has as many addresses.
const CHANGE_BYTES_MAX: usize = 64 << 10;

/// What is asked for when a member is added or changed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Change {
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
}

/// Why nothing was changed.
enum Failure {
    /// So it is told.
    Told(StatusCode, String),
    /// No member was named.
    WithoutId,
}

impl Failure {
    fn told(status: StatusCode, text: impl Into<String>) -> Failure {
        Failure::Told(status, text.into())
    }

    fn bad(text: impl Into<String>) -> Failure {
        Failure::told(StatusCode::BAD_REQUEST, text)
    }
}

/// Answers a request for members.
pub async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let name = path.strip_prefix('/').unwrap_or(path);
    if [Method::POST, Method::DELETE, Method::PUT].contains(&parts.method)
        && let Err(refused) = shared.administrator(&parts.headers).await
    {
        return shared.refuse(&refused);
    }
    let answered = match parts.method {
        Method::GET => return list(&shared, name),
        Method::POST => add(&shared, &parts.headers, body).await,
        Method::DELETE => remove(&shared, name).await,
        Method::PUT => update(&shared, name, &parts.headers, body).await,
        _ => return not_allowed("GET,POST,DELETE,PUT"),
    };
    answered.unwrap_or_else(|failure| match failure {
        Failure::Told(status, text) => shared.message(status, &text),
        Failure::WithoutId => shared.without_id(),
    })
}

/// Answers with all addresses at which clients reach the cluster.
pub async fn serve_machines(State(shared): State<Arc<Shared>>, method: Method) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return not_allowed("GET,HEAD");
    }
    let members = shared.gate.members().into_iter();
    let mut urls: Vec<String> = members.flat_map(|member| member.client_urls).collect();
    urls.sort_unstable();
    urls.join(", ").into_response()
}

fn list(shared: &Shared, name: &str) -> Response {
    let members = shared.gate.members();
    match name {
        "" => {
            let mut content = b"{\"members\":[".to_vec();
            for (nth, member) in members.iter().enumerate() {
                if nth > 0 {
                    content.push(b',');
                }
                encode(&mut content, member);
            }
            content.extend_from_slice(b"]}\n");
            shared.json(StatusCode::OK, content)
        }
        "leader" => {
            let leader = shared.gate.status().leader;
            match members.iter().find(|member| member.id == leader) {
                Some(member) => answer(shared, StatusCode::OK, member),
                None => shared.message(StatusCode::SERVICE_UNAVAILABLE, "During election"),
            }
        }
        _ => shared.message(StatusCode::NOT_FOUND, "Not found"),
    }
}

async fn add(shared: &Shared, headers: &HeaderMap, body: Body) -> Result<Response, Failure> {
    let new = NewMember {
        peer_urls: peer_urls(headers, body).await?,
        ..NewMember::default()
    };
    if shared.options.strict_reconfig && !all_are_connected(shared) {
        return Err(refused(MemberRefusal::Unhealthy.into(), ""));
    }
    let added = shared.gate.member_add(new, HEALTHY_AFTER).await;
    let (member, _) = added.map_err(|error| refused(error, ""))?;
    Ok(answer(shared, StatusCode::CREATED, &member))
}

/// Whether every member is there: the last etcd that serves v2 adds none before, where later ones ask
/// for a quorum.
fn all_are_connected(shared: &Shared) -> bool {
    let (own, connected) = (shared.gate.status().member, shared.gate.connected());
    let members = shared.gate.members();
    let mut others = members.iter().filter(|member| member.id != own);
    others.all(|member| connected.contains(&member.id))
}

async fn remove(shared: &Shared, name: &str) -> Result<Response, Failure> {
    let id = id_of(name)?;
    let removed = shared.gate.member_remove(id, None, HEALTHY_AFTER).await;
    removed.map_err(|error| match error {
        MemberError::Refused(MemberRefusal::NotFound) if shared.gate.is_removed(id) => {
            let text = format!("Member permanently removed: {id:x}");
            Failure::told(StatusCode::GONE, text)
        }
        error => refused(error, name),
    })?;
    Ok(shared.done())
}

async fn update(
    shared: &Shared,
    name: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let id = id_of(name)?;
    let description = Description {
        id,
        peer_urls: Some(peer_urls(headers, body).await?),
        ..Description::default()
    };
    let updated = shared.gate.member_update(description).await;
    updated.map_err(|error| match error {
        // etcd forgot this case.
        MemberError::Refused(MemberRefusal::NotFound) if shared.gate.is_removed(id) => {
            internal(&error)
        }
        error => refused(error, name),
    })?;
    Ok(shared.done())
}

fn id_of(name: &str) -> Result<u64, Failure> {
    if name.is_empty() {
        return Err(Failure::WithoutId);
    }
    // A sign is no digit, though it may begin a number.
    let id = u64::from_str_radix(name, 16).ok();
    let id = id.filter(|_| !name.starts_with('+'));
    id.ok_or_else(|| no_such_member(name))
}

fn no_such_member(name: &str) -> Failure {
    Failure::told(StatusCode::NOT_FOUND, format!("No such member: {name}"))
}

/// What became of a change that was not made, to the member of this name.
fn refused(error: MemberError, name: &str) -> Failure {
    let conflict = |text| Failure::told(StatusCode::CONFLICT, text);
    match error {
        MemberError::Refused(MemberRefusal::IdExists) => conflict("membership: ID exists"),
        MemberError::Refused(MemberRefusal::PeerUrlExists) => {
            conflict("membership: peerURL exists")
        }
        MemberError::Refused(MemberRefusal::NotFound) => no_such_member(name),
        MemberError::Refused(
            MemberRefusal::NotEnoughStarted
            | MemberRefusal::Unhealthy
            | MemberRefusal::NotLearner
            | MemberRefusal::LearnerNotReady
            | MemberRefusal::TooManyLearners
            | MemberRefusal::OtherVersion
            | MemberRefusal::BadTransferee,
        )
        | MemberError::Unavailable(_) => internal(&error),
    }
}

/// etcd keeps to itself what is not the client's fault.
fn internal(error: &MemberError) -> Failure {
    tracing::warn!(%error, "could not change the members");
    Failure::told(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
}

/// The addresses that a change names, sorted as etcd keeps them.
async fn peer_urls(headers: &HeaderMap, body: Body) -> Result<Vec<String>, Failure> {
    let kind = headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = match kind.split_once(';') {
        Some((kind, _)) => kind.trim().to_ascii_lowercase(),
        None => kind.to_owned(),
    };
    if kind != "application/json" {
        let text = format!("Bad Content-Type {kind}, accept application/json");
        return Err(Failure::told(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let content = to_bytes(body, CHANGE_BYTES_MAX).await;
    let content = content.map_err(|error| Failure::bad(error.to_string()))?;
    let change: Change =
        serde_json::from_slice(&content).map_err(|error| Failure::bad(error.to_string()))?;
    if change.peer_urls.is_empty() {
        return Err(Failure::bad("no valid URLs given"));
    }
    url::sorted(&change.peer_urls).map_err(|bad| Failure::bad(bad.to_string()))
}

fn answer(shared: &Shared, status: StatusCode, member: &Member) -> Response {
    let mut content = Vec::new();
    encode(&mut content, member);
    content.push(b'\n');
    shared.json(status, content)
}

fn encode(out: &mut Vec<u8>, member: &Member) {
    out.extend_from_slice(b"{\"id\":");
    json::string(out, format!("{:x}", member.id).as_bytes());
    out.extend_from_slice(b",\"name\":");
    json::string(out, member.name.as_bytes());
    for (name, urls) in [
        ("peerURLs", &member.peer_urls),
        ("clientURLs", &member.client_urls),
    ] {
        out.extend_from_slice(format!(",\"{name}\":[").as_bytes());
        for (nth, url) in urls.iter().enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            json::string(out, url.as_bytes());
        }
        out.push(b']');
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_spelled_as_etcd_spells_them() {
        let added = Member {
            id: 0xab,
            peer_urls: vec!["http://b:1".into(), "http://b:2".into()],
            ..Member::default()
        };
        let mut out = Vec::new();
        encode(&mut out, &added);
        assert_eq!(
            String::from_utf8(out).as_deref(),
            Ok(concat!(
                r#"{"id":"ab","name":"","#,
                r#""peerURLs":["http://b:1","http://b:2"],"clientURLs":[]}"#
            ))
        );
    }
}
