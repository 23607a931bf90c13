//! Connections as clients see them, over a member in memory: what is answered in which order, and who
//! is cut off.

mod client;
mod members;
mod users;

use client::*;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use zookeeper::Options;
use zookeeper::jute::Write;

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_see_each_other() {
    let server = Server::start(Options::default()).await;
    let mut client = server.connect().await;
    client
        .pipeline(&[
            (1, EXISTS, path_and_watch("/a", false)),
            (2, CREATE, create("/a", 0)),
            (3, CREATE, create("/a", 0)),
            (4, SET_DATA, set("/a")),
            (5, GET_DATA, path_and_watch("/a", false)),
            (-2, PING, Vec::new()),
        ])
        .await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        let reply = client.reply().await.expect("an answer");
        seen.push((reply.xid, reply.error));
    }
    assert_eq!(
        seen,
        [(1, NO_NODE), (2, 0), (3, -110), (4, 0), (5, 0), (-2, 0)]
    );
}

/// A thread carries many connections, and none waits for what another lists.
#[test]
fn many_children_are_listed_beside_the_connections_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build();
    runtime.expect("a runtime").block_on(list_many_children());
}

async fn list_many_children() {
    const CHILDREN: i32 = 1_001;
    let server = Server::start(Options::default()).await;
    let mut client = server.connect().await;
    assert_eq!(client.call(1, CREATE, create("/d", 0)).await.error, 0);
    for nth in 1..=CHILDREN {
        let created = client.call(nth, CREATE, create(&format!("/d/{nth:04}"), 0));
        assert_eq!(created.await.error, 0);
    }
    // What is done aside waits for the one thread there is for it.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let holding = tokio::task::spawn_blocking(move || held.recv());
    let list = path_and_watch("/d", true);
    client
        .send(|out| request(out, 2000, GET_CHILDREN, &list))
        .await;
    let mut other = server.connect().await;
    let answered = other.call(1, EXISTS, path_and_watch("/d", false)).await;
    assert_eq!(answered.error, 0);
    drop(release);
    assert!(holding.await.expect("it waits").is_err(), "it was released");
    let listed = client.reply().await.expect("an answer");
    assert_eq!((listed.xid, listed.error), (2000, 0));
    assert_eq!(listed.body[..4], CHILDREN.to_be_bytes());
    assert_eq!(
        listed.body[4..],
        (1..=CHILDREN).flat_map(named).collect::<Vec<u8>>()
    );
    // It watches, too.
    assert_eq!(other.call(2, CREATE, create("/d/new", 0)).await.error, 0);
    assert_eq!(client.reply().await.expect("an event").xid, -1);
}

/// A child's name as it is listed.
fn named(nth: i32) -> Vec<u8> {
    let mut out = Vec::new();
    out.text(&format!("{nth:04}"));
    out
}

#[tokio::test]
async fn an_event_comes_after_the_read_that_watches_and_before_what_shows_the_change() {
    let server = Server::start(Options::default()).await;
    let mut client = server.connect().await;
    client
        .pipeline(&[
            (1, CREATE, create("/a", 0)),
            (2, GET_DATA, path_and_watch("/a", true)),
            (3, SET_DATA, set("/a")),
            (4, GET_DATA, path_and_watch("/a", false)),
        ])
        .await;
    let mut xids = Vec::new();
    for _ in 0..5 {
        xids.push(client.reply().await.expect("an answer").xid);
    }
    assert_eq!(xids, [1, 2, -1, 3, 4]);
}

/// Once a snapshot has taken the state's place, events may be lost that belong before an answer.
#[tokio::test]
async fn last_answers_are_not_sent_without_the_events_before_them() {
    let server = Server::start(Options::default()).await;
    let mut client = server.connect().await;
    assert_eq!(client.call(1, CREATE, create("/a", 0)).await.error, 0);
    // The connection's task runs only when this one waits, and so finds both at once.
    server.hub.sink().restored(server.gate.reader().revision());
    client
        .pipeline(&[
            (2, GET_DATA, path_and_watch("/a", false)),
            (3, CLOSE, Vec::new()),
        ])
        .await;
    assert_eq!(client.reply().await, None);
}

/// What identities and access lists make of writes that stand next to each other has to fit in one
/// entry of the log: one that did not stopped the member.
#[tokio::test]
async fn pipelined_writes_of_many_identities_go_in_several_entries() {
    const WRITES: i32 = 500;
    const USER_BYTES: usize = 7000;
    let server = Server::start(Options::default()).await;
    let mut client = server.connect().await;
    let shown = client.call(-4, AUTH, auth(&format!("{}:p", "x".repeat(USER_BYTES))));
    assert_eq!(shown.await.error, 0);
    assert_eq!(client.call(1, CREATE, create("/a", 0)).await.error, 0);
    let before = server.gate.status().committed;
    let writes: Vec<_> = (0..WRITES).map(|xid| (xid, SET_DATA, set("/a"))).collect();
    client.pipeline(&writes).await;
    for xid in 0..WRITES {
        let reply = client.reply().await.expect("an answer");
        assert_eq!((reply.xid, reply.error), (xid, 0));
    }
    let entries = server.gate.status().committed - before;
    let bytes = WRITES as u64 * USER_BYTES as u64;
    assert!(
        entries > bytes / (2 << 20),
        "{entries} entries of {bytes} bytes"
    );
}

#[tokio::test]
async fn a_change_by_another_is_told_before_it_is_shown() {
    let server = Server::start(Options::default()).await;
    let mut writer = server.connect().await;
    let mut watcher = server.connect().await;
    assert_eq!(writer.call(1, CREATE, create("/a", 0)).await.error, 0);
    for round in 1..=50 {
        let watched = watcher.call(round, GET_DATA, path_and_watch("/a", true));
        assert_eq!(watched.await.error, 0);
        let written = writer.call(round, SET_DATA, set("/a"));
        let read = watcher.call(round, GET_DATA, path_and_watch("/a", false));
        let (written, first) = tokio::join!(written, read);
        // Either the read did not see the change, or the event came first.
        let event = if first.xid == -1 {
            let shown = watcher.reply().await.expect("the read's answer");
            assert!(shown.zxid >= written.zxid);
            first
        } else {
            assert!(first.zxid < written.zxid, "shown before it was told");
            watcher.reply().await.expect("the event")
        };
        assert_eq!((event.xid, event.zxid), (-1, written.zxid));
    }
}

#[tokio::test]
async fn a_session_goes_on_through_a_new_connection_and_the_old_one_is_cut() {
    let server = Server::start(Options::default()).await;
    let mut old = server.connect().await;
    assert_eq!(old.call(1, CREATE, create("/e", 1)).await.error, 0);
    let mut new = server.open();
    new.shake_hands(old.session, old.password).await;
    assert_eq!(new.session, old.session);
    assert_eq!(old.reply().await, None);
    let found = new.call(1, EXISTS, path_and_watch("/e", false)).await;
    assert_eq!(found.error, 0);
    assert_eq!(new.call(2, CLOSE, Vec::new()).await.error, 0);
    assert_eq!(new.reply().await, None);

    let mut late = server.open();
    late.shake_hands(old.session, old.password).await;
    assert_eq!((late.session, late.reply().await), (0, None));
    let mut other = server.connect().await;
    let found = other.call(1, EXISTS, path_and_watch("/e", false)).await;
    assert_eq!(found.error, NO_NODE);
}

#[tokio::test]
async fn a_wrong_password_resumes_nothing_and_cuts_nobody() {
    let server = Server::start(Options::default()).await;
    let mut owner = server.connect().await;
    let mut thief = server.open();
    thief.shake_hands(owner.session, [9; PASSWORD_BYTES]).await;
    assert_eq!((thief.session, thief.reply().await), (0, None));
    assert_eq!(owner.call(1, PING, Vec::new()).await.error, 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_from() {
    let server = Server::start(Options::default()).await;
    let mut client = server.connect().await;
    let mut sync = Vec::new();
    sync.text(&"x".repeat(1000));
    let flood = vec![(1, SYNC, sync); 64];
    // Nobody reads the answers: at some point the server stops taking requests.
    let mut sent = 0;
    let stuck = async {
        loop {
            client.pipeline(&flood).await;
            sent += 64;
        }
    };
    // Paused, time passes only once nobody has anything to do.
    tokio::time::pause();
    let stuck = tokio::time::timeout(Duration::from_secs(1), stuck).await;
    assert!(stuck.is_err());
    assert!(sent < 10_000, "{sent} requests were taken");
}

#[tokio::test]
async fn connections_of_one_address_and_frames_are_bounded() {
    let options = Options {
        connections_per_address_max: 1,
        frame_bytes_max: 1000,
        ..Options::default()
    };
    let server = Server::start(options).await;
    let mut first = server.connect().await;
    let mut second = server.open();
    assert_eq!(second.frame().await, None);
    let long = 1001u32.to_be_bytes();
    first.stream.write_all(&long).await.expect("it is open");
    assert_eq!(first.frame().await, None);
}
