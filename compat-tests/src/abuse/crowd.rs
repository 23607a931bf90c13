//! Connections in numbers that a server has no use for.

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::PutRequest;
use proto::etcdserverpb::kv_client::KvClient;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use std::time::Instant;

use super::frames::Raw;
use super::{PATIENCE, Scene, calm, idles, until};

/// Connections that say nothing, or hello and then nothing.
const IDLE: usize = 10_000;
/// Files that a server may open, when they are to run out.
pub const FILES: u64 = 400;
/// Connections that then want one.
const WANTED: usize = 600;
/// Files left to a server when the system begins to refuse it.
const SPARE_FILES: u64 = 20;

/// Lets this process, and the servers that it starts, open as many files as the system allows.
pub fn allow_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// Half of them have introduced themselves, half have not said a word.
pub async fn idle(scene: &Scene) -> Result<String> {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let wanted = IDLE.min(usize::try_from(files / 4 * 3)?);
    let before = scene.process.memory_bytes()?;
    let mut held = Vec::with_capacity(wanted);
    for n in 0..wanted {
        let port = scene.client_port();
        held.push(match n % 2 {
            0 => Raw::connect(port).await?,
            _ => Raw::http2(port, 1 << 16).await?,
        });
    }
    until("every connection's acceptance", async || {
        Ok(scene.process.files()? >= wanted)
    })
    .await?;
    let each = (scene.process.memory_bytes()?.saturating_sub(before)) / wanted as u64;
    let told = idles(scene).await?;
    put_anew(scene).await?;
    Ok(format!("{wanted} connections, {each} bytes each, {told}"))
}

/// More than the server may open: it takes what it can, the rest waits, and is served once there is
/// room.
pub async fn beyond_files(scene: &Scene) -> Result<String> {
    crowded(scene).await
}

/// The system refuses to open anything more, which the server could not know beforehand.
pub async fn files_exhausted(scene: &Scene) -> Result<String> {
    let process = scene.cluster.members[0].process_id().context("it runs")?;
    let process = Pid::from_raw(i32::try_from(process)?);
    // The server's limit was ours.
    let limit = Rlimit {
        current: Some(scene.process.files()? as u64 + SPARE_FILES),
        ..getrlimit(Resource::Nofile)
    };
    let before = prlimit(process, Resource::Nofile, limit)?;
    let told = crowded(scene).await?;
    prlimit(process, Resource::Nofile, before)?;
    Ok(told)
}

/// While more connections are open than there are files for, the server is calm; once they have
/// gone, it serves.
async fn crowded(scene: &Scene) -> Result<String> {
    let mut held = Vec::new();
    for _ in 0..WANTED {
        held.push(Raw::http2(scene.client_port(), 1 << 16).await?);
    }
    let told = calm(scene).await?;
    drop(held);
    put_anew(scene).await?;
    Ok(told)
}

/// A connection made now is served.
async fn put_anew(scene: &Scene) -> Result<()> {
    let began = Instant::now();
    let mut kv = KvClient::new(scene.channel().await?);
    let put = PutRequest {
        key: "anew".into(),
        ..Default::default()
    };
    tokio::time::timeout(PATIENCE, kv.put(put)).await??;
    ensure!(began.elapsed() < PATIENCE, "a new client waited too long");
    Ok(())
}
