//! A connection's beginning: a four-letter word, or the handshake that opens a session or resumes one.

use crate::frame;
use crate::handshake::{self, Connect, PASSWORD_BYTES, Welcome};
use crate::session::Session;
use crate::stats::{Batch, Entered};
use crate::tally::Op;
use crate::words::Word;
use crate::{Arrival, Shared};
use bytes::{Bytes, BytesMut};
use gateway::keyspace::command::Nodes;
use gateway::keyspace::node::NodeRefusal;
use gateway::keyspace::{Command, LeaseId, Refusal};
use gateway::{Error, Principal, SessionKey, Unavailable};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How long a client has to say who it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves a connection.
pub async fn converse<S>(shared: &Shared, mut stream: S, arrival: &Arrival, entered: Entered<'_>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut read = BytesMut::new();
    let hello = tokio::time::timeout(PATIENCE, hello(shared, &mut stream, &mut read)).await;
    match hello {
        Ok(Some(Hello::Word(word))) => {
            let answer = shared.office().answer(word);
            // Who asks does not always wait for the answer.
            stream.write_all(answer.as_bytes()).await.ok();
            // Once it sees the end, this connection counts no more.
            drop(entered);
            stream.shutdown().await.ok();
        }
        Ok(Some(Hello::Connect(frame))) => {
            if let Some(mut session) = open(shared, &mut stream, arrival, &entered, &frame).await {
                session.read = read;
                session.run().await;
            }
        }
        Ok(None) | Err(_) => {}
    }
}

/// How a connection begins.
enum Hello {
    Word(Word),
    Connect(Bytes),
}

async fn hello(
    shared: &Shared,
    stream: &mut (impl AsyncRead + Unpin),
    read: &mut BytesMut,
) -> Option<Hello> {
    loop {
        if let Some(word) = Word::of(read) {
            return Some(Hello::Word(word));
        }
        match frame::next(read, shared.options.frame_bytes_max) {
            Ok(Some(frame)) => return Some(Hello::Connect(frame)),
            Ok(None) => {}
            Err(frame::BadLength) => return None,
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}

/// Opens a session, or resumes one; none if there is nothing more to say.
async fn open<'a, S>(
    shared: &'a Shared,
    stream: &'a mut S,
    arrival: &Arrival,
    entered: &'a Entered<'a>,
    frame: &[u8],
) -> Option<Session<'a, S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let began = Instant::now();
    let connect = handshake::parse(frame)?;
    let revision = shared.gate.reader().revision();
    if connect.zxid > revision.0.cast_signed() {
        tracing::debug!(peer = %arrival.peer, zxid = connect.zxid, "client has seen a newer state than there is");
        return None;
    }
    let timeout_ms = shared.options.negotiate_ms(connect.timeout_ms);
    let ttl_ms = u64::from(timeout_ms.unsigned_abs());
    let read_only = shared.read_only.load(Relaxed);
    let key = match read_only {
        true => alone(shared, &connect),
        // Another member may have a leader: a client should not spend its session's time waiting here.
        false => tokio::select! {
            biased;
            key = session_of(shared, &connect, ttl_ms) => key,
            () = shared.gate.leaderless(shared.gate.limits().election_timeout) => None,
        },
    };
    let mut wire = Vec::new();
    let tells_read_only = connect.read_only.is_some();
    let Some(key) = key? else {
        Welcome::OVER.encode(&mut wire, tells_read_only);
        stream.write_all(&wire).await.ok();
        stream.shutdown().await.ok();
        return None;
    };
    let welcome = Welcome {
        timeout_ms,
        session: key.id.0,
        password: key.password,
        read_only,
    };
    welcome.encode(&mut wire, tells_read_only);
    // Before it is sent: whoever has an answer finds it counted.
    let client = &entered.client;
    client.session.store(key.id.0, Relaxed);
    client.timeout_ms.store(ttl_ms, Relaxed);
    let batch = Batch {
        began,
        requests: 1,
        events: 0,
        last_xid: 0,
        last_op: Some(Op::CreateSession),
        revision,
    };
    shared
        .stats
        .tally
        .note([Op::CreateSession].into_iter(), batch.took_ms());
    entered.note(&batch);
    stream.write_all(&wire).await.ok()?;
    stream.flush().await.ok()?;
    Some(Session::new(
        shared, stream, arrival, entered, key, read_only,
    ))
}

/// The session that a client wants. None within where that is over; none at all where nobody knows.
async fn session_of(
    shared: &Shared,
    connect: &Connect<'_>,
    ttl_ms: u64,
) -> Option<Option<SessionKey>> {
    make_root(shared).await.ok()?;
    if connect.session == 0 {
        return shared.gate.open_session(ttl_ms).await.ok().map(Some);
    }
    let Ok(password) = <[u8; PASSWORD_BYTES]>::try_from(connect.password) else {
        return Some(None);
    };
    let id = LeaseId(connect.session);
    let resumed = shared.gate.resume_session(id, password, ttl_ms);
    resumed.await.ok()
}

/// Makes the root that clients see where it lies at a node that is missing. Whoever else makes it at
/// the same time has done as well.
async fn make_root(shared: &Shared) -> Result<(), Unavailable> {
    let ops = shared.options.mount.steps(shared.gate.reader());
    if ops.is_empty() {
        return Ok(());
    }
    let nodes = Command::Nodes(Nodes {
        ops,
        ..Nodes::default()
    });
    match shared.gate.propose(&Principal::System, nodes).await {
        Ok(_) => {}
        Err(Error::Refused(Refusal::Node {
            reason: NodeRefusal::Exists,
            ..
        })) => {}
        Err(Error::Refused(refusal)) => tracing::warn!(%refusal, "cannot make ZooKeeper's root"),
        Err(Error::Unavailable(unavailable)) => return Err(unavailable),
    }
    Ok(())
}

/// A session of this server alone, for a client that only reads: it lasts as long as the connection,
/// and nobody else knows of it. None within where the client's session is over; none at all where it
/// has to find another server.
fn alone(shared: &Shared, connect: &Connect<'_>) -> Option<Option<SessionKey>> {
    let only_reads = connect.read_only == Some(true);
    let holds_session = shared
        .gate
        .reader()
        .lease(LeaseId(connect.session))
        .is_some();
    if !only_reads || holds_session {
        return None;
    }
    let key = SessionKey {
        id: shared.gate.fresh_lease(),
        password: rand::random(),
        attachment: 0,
    };
    Some((connect.session == 0).then_some(key))
}
