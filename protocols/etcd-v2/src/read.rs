//! Reading nodes: what is small at once, what is large beside the connection's thread, which carries
//! others too.

use crate::errors::{Code, Error};
use crate::node::{Bounds, Reading, Unseen};
use crate::query::Query;
use crate::{Shared, time};
use axum::http::StatusCode;
use axum::response::Response;
use gateway::keyspace::Principal;
use gateway::limits::AT_ONCE_MAX;
use std::cell::Cell;
use std::sync::Arc;

/// What is told at once.
const SMALL: Bounds = Bounds {
    nodes_max: AT_ONCE_MAX,
    bytes_max: 256 << 10,
};

/// What is told at all: the content is made before it is sent.
const LARGE: Bounds = Bounds {
    nodes_max: u64::MAX,
    bytes_max: 256 << 20,
};

/// How often a reading is begun that a compaction overtakes, or a change of what the client may.
const ATTEMPTS_MAX: usize = 5;

/// Answers with a node.
pub async fn read(
    shared: &Arc<Shared>,
    path: &[u8],
    query: &Query,
    who: &Principal,
) -> Result<Response, Error> {
    let told = tell(shared, path, query.recursive, who).await;
    shared.stats.read(query.recursive, told.is_ok());
    let (index, content) = told?;
    Ok(shared.answer(StatusCode::OK, index, content.into()))
}

/// What there is to tell.
struct Told {
    /// As of this event.
    index: u64,
    content: Result<Vec<u8>, Unseen>,
}

async fn tell(
    shared: &Arc<Shared>,
    path: &[u8],
    recursive: bool,
    who: &Principal,
) -> Result<(u64, Vec<u8>), Error> {
    let mut told = look(shared, path, recursive, who, SMALL)?;
    if told.content == Err(Unseen::TooLarge) {
        let (here, path, who) = (Arc::clone(shared), path.to_owned(), who.clone());
        let look = move || look(&here, &path, recursive, &who, LARGE);
        told = shared.gate.read_aside(look).await??;
    }
    let Told { index, content } = told;
    let root = &shared.options.root;
    let content = content.map_err(|unseen| Error::unseen(&unseen, root, path, index))?;
    Ok((index, content))
}

/// Reads a node as it is at one moment, as far as the bounds go.
fn look(
    shared: &Shared,
    path: &[u8],
    recursive: bool,
    who: &Principal,
    bounds: Bounds,
) -> Result<Told, Error> {
    let (root, reader) = (&shared.options.root, shared.gate.reader());
    let key = root.key(path);
    for _ in 0..ATTEMPTS_MAX {
        let auth = reader.auth();
        let rights = auth.rights(who);
        let moment = reader.moment();
        let reading = Reading {
            moment: &moment,
            root,
            now: time::now(),
            recursive,
            rights: rights.map_err(|_| Error::unauthorized())?,
            bound: !auth.is_root(who),
            bounds,
            listed: Cell::default(),
        };
        let content = reading.node(&key);
        if moment.is_whole() && Arc::ptr_eq(&auth, &reader.auth()) {
            let index = moment.event();
            return Ok(Told { index, content });
        }
    }
    let why = "etcdserver: history was compacted too often to read";
    Err(Error::of_request(Code::RaftInternal, why))
}
