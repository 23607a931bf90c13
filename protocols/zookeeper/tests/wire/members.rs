//! Members that come, and one that is without the others.

use crate::client::*;
use replica::Config;
use zookeeper::Options;
use zookeeper::jute::Write;

fn reconfig(joining: Option<&str>, leaving: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    for list in [joining, leaving, None] {
        out.buffer(list.map(str::as_bytes));
    }
    out.long(-1);
    out
}

/// The data that a reply begins with, and the zxid of its last change.
fn config_of(body: &[u8]) -> (String, i64) {
    let (len, rest) = body.split_first_chunk::<4>().expect("a length");
    let (data, stat) = rest.split_at(u32::from_be_bytes(*len) as usize);
    let mzxid = stat[8..16].try_into().expect("8 bytes");
    let data = String::from_utf8(data.to_vec()).expect("a text");
    (data, i64::from_be_bytes(mzxid))
}

/// A member that an operator adds through ZooKeeper's protocol shows in what watchers then read.
#[tokio::test]
async fn watchers_of_the_config_are_told_of_members_that_come() {
    let server = Server::start(Options {
        reconfig: true,
        standalone: false,
        skip_acl: true,
        ..Options::default()
    })
    .await;
    let mut watching = server.connect().await;
    let path = || path_and_watch("/zookeeper/config", true);
    let before = watching.call(1, GET_DATA, path()).await;
    let alone = "server.1=localhost:2380:2381:participant\nversion=0";
    assert_eq!(config_of(&before.body), (alone.to_owned(), 0));
    let mut operator = server.connect().await;
    let joining = "server.7=127.0.0.1:1:2:observer;127.0.0.1:3";
    let answer = operator
        .call(1, RECONFIG, reconfig(Some(joining), None))
        .await;
    assert_eq!(answer.error, 0);
    let mut root = Vec::new();
    root.text("/");
    watching
        .pipeline(&[(2, SYNC, root), (3, GET_DATA, path())])
        .await;
    let event = watching.reply().await.expect("an event");
    // The state is no newer for it.
    assert_eq!((event.xid, event.zxid), (-1, before.zxid));
    let synced = watching.reply().await.expect("an answer");
    assert_eq!(synced.xid, 2, "the event comes before what shows it");
    let after = watching.reply().await.expect("an answer");
    assert_eq!(after.body, answer.body);
    let (config, version) = config_of(&after.body);
    let both = format!(
        "server.1=localhost:2380:2381:participant\n\
         server.7=127.0.0.1:1:2:observer;127.0.0.1:3\nversion={version:x}"
    );
    assert_eq!(config, both);
    assert!(version > event.zxid);
    let answer = operator
        .call(2, RECONFIG, reconfig(None, Some("1,7")))
        .await;
    assert_eq!(answer.error, BAD_ARGUMENTS);
}

/// Without a leader, clients that say that it will do are served what can be read.
#[tokio::test]
async fn without_a_leader_clients_may_read() {
    let url = |port: u16| vec![format!("http://127.0.0.1:{port}")];
    let others = [("a".to_owned(), url(1)), ("b".to_owned(), url(2))];
    let mut config = Config::default();
    config.initial_cluster.extend(others);
    let options = Options {
        read_only_mode: true,
        ..Options::default()
    };
    let server = Server::alone(options, config).await;
    let zookeeper = server.zookeeper.clone();
    let attending = tokio::spawn(async move { zookeeper.attend().await });
    let turned = async {
        while server.word("isro").await != "ro" {
            tokio::task::yield_now().await;
        }
    };
    timely(turned).await;
    assert!(server.word("srvr").await.contains("Mode: read-only"));
    let mut client = server.open();
    client.only_reads = true;
    client.shake_hands(0, [0; PASSWORD_BYTES]).await;
    assert_ne!(client.session, 0);
    let read = client.call(1, EXISTS, path_and_watch("/", true)).await;
    assert_eq!(read.error, 0);
    let mut path = Vec::new();
    path.text("/");
    for (kind, body) in [(CREATE, create("/a", 0)), (SYNC, path)] {
        let refused = client.call(2, kind, body).await;
        assert_eq!((refused.error, refused.body.len()), (NOT_READ_ONLY, 0));
    }
    let closed = client.call(3, CLOSE, Vec::new()).await;
    assert_eq!(closed.error, 0);
    assert_eq!(client.reply().await, None);
    let mut writer = server.open();
    writer
        .send(|out| handshake(out, 0, &[0; PASSWORD_BYTES], false))
        .await;
    assert_eq!(writer.frame().await, None);
    attending.abort();
}
