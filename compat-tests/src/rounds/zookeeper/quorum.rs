//! Five members, three killed: nothing is written, and with one of them back every session goes on
//! with its ephemeral nodes.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::session::{Resumed, Session};
use super::wire::Request;
use super::work::{names_below, read};
use super::{addresses, flags};
use crate::oracle::{Cluster, Kind};
use crate::rounds::{SERVE_DEADLINE, tally_of};
use crate::run::Tally;

/// Sessions that live through it, spread over the members.
const SESSIONS: usize = 10;
/// How often a session comes back to the minority to write, which it may not.
const ATTEMPTS: usize = 3;

/// Kills three of five members and starts one again.
///
/// # Errors
/// When the servers cannot be started; a broken promise is a failed tally.
pub async fn quorum_loss(kind: Kind) -> Result<Tally> {
    let mut cluster = Cluster::start(kind, 5, &flags()).await?;
    let outcome = lose_quorum(&mut cluster).await;
    Ok(tally_of("quorum loss", &mut cluster, outcome))
}

async fn lose_quorum(cluster: &mut Cluster) -> Result<()> {
    let addresses = addresses(cluster);
    let deadline = Instant::now() + SERVE_DEADLINE;
    let mut sessions = Vec::new();
    for number in 0..SESSIONS {
        sessions.push(Session::open(&addresses, number, deadline).await?);
    }
    let nodes = [("/quorum", "before"), ("/eph", "")];
    let creates = nodes.map(|(path, data)| Request::create(path, data, 0));
    sessions[0].do_all(&creates).await?;
    for (number, session) in sessions.iter_mut().enumerate() {
        let create = Request::create(&format!("/eph/{number}"), "", 1);
        session.do_all(&[create]).await?;
    }
    (2..5).for_each(|index| cluster.kill(index));
    // Members 1 and 2 serve the first two sessions, and may answer neither any more.
    for session in &mut sessions {
        ensure!(!write(session).await?, "a minority took a write");
    }
    for session in &mut sessions[..ATTEMPTS] {
        ensure!(!resume_and_write(session).await?, "a minority took a write");
    }
    cluster.restart(2)?;
    cluster.await_ready().await?;
    let deadline = Instant::now() + SERVE_DEADLINE;
    for session in &mut sessions {
        let resumed = session.resume(deadline).await?;
        ensure!(resumed == Resumed::GoesOn, "a session was lost");
    }
    let names = names_below(&mut sessions[0], "/eph").await?;
    ensure!(
        names.len() == SESSIONS,
        "of the ephemerals {names:?} are left"
    );
    let (_, data) = read(&mut sessions[0], "/quorum").await?;
    ensure!(
        data == "before" || data == "refused",
        "/quorum holds {data:?}"
    );
    let set = Request::set("/quorum", "after", -1);
    sessions[0].do_all(&[set]).await?;
    let (_, data) = read(&mut sessions[1], "/quorum").await?;
    ensure!(data == "after", "/quorum holds {data:?}");
    Ok(())
}

/// Goes on with a session at any member and writes; whether that was done.
async fn resume_and_write(session: &mut Session) -> Result<bool> {
    // Each member is tried once.
    if session.resume(Instant::now()).await.is_err() {
        return Ok(false);
    }
    write(session).await
}

/// Writes what must be refused; whether it was done.
async fn write(session: &mut Session) -> Result<bool> {
    let set = Request::set("/quorum", "refused", -1);
    let pipeline = session.pipeline(&[set]).await?;
    Ok(pipeline.replies.iter().any(|reply| reply.error == 0))
}
