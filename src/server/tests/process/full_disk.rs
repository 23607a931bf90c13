//! A full disk: writes end with an error, the process says why it ends, and what it acknowledged is
//! there once there is room.

use crate::server::Server;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::{PutRequest, RangeRequest};
use store::small_disk::SmallDisk;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Room for a member that has just begun: a log segment, one ahead, and checkpoints.
const DISK_BYTES: u64 = 320 << 20;
/// What a value takes: the disk is full after some hundreds.
const VALUE_BYTES: usize = 1 << 20;
/// More values than the disk has room for.
const VALUES_MAX: usize = 2 * DISK_BYTES as usize / VALUE_BYTES;

async fn put(kv: &mut KvClient<Channel>, number: usize) -> Result<(), Status> {
    let put = PutRequest {
        key: format!("{number:04}").into(),
        value: vec![b'x'; VALUE_BYTES].into(),
        ..PutRequest::default()
    };
    kv.put(put).await.map(|_| ())
}

async fn count(kv: &mut KvClient<Channel>) -> i64 {
    let everything = RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        count_only: true,
        ..RangeRequest::default()
    };
    kv.range(everything).await.expect("read").into_inner().count
}

#[tokio::test]
async fn a_full_disk_ends_the_server_and_loses_nothing() {
    fill_and_return(&[]).await;
}

/// The checkpoint may be what finds no room.
#[tokio::test]
async fn nor_does_one_that_is_full_of_checkpoints() {
    fill_and_return(&["--snapshot-count=10"]).await;
}

async fn fill_and_return(flags: &[&str]) {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else {
        return;
    };
    let data = disk.path().join("d");
    let mut server = Server::start(&data, flags);
    let mut kv = server.kv().await;
    put(&mut kv, 0).await.expect("there is room");
    disk.fill(None);
    let mut acknowledged = 1;
    let refused = loop {
        assert!(acknowledged < VALUES_MAX, "the disk is never full");
        match put(&mut kv, acknowledged).await {
            Ok(()) => acknowledged += 1,
            Err(refused) => break refused,
        }
    };
    // Or the process ended before it could say so, and the connection with it.
    let cut = refused.code() == Code::Unknown && refused.message() == "transport error";
    assert!(refused.code() == Code::Unavailable || cut, "{refused:?}");
    let ended = server.process.wait().expect("it ends");
    assert_eq!(ended.code(), Some(1));
    let why = server.await_line("the server failed");
    let why = why["error"].as_str().expect("text");
    assert!(why.contains("No space left on device"), "{why}");
    assert!(
        why.ends_with("free space on its file system, then start again"),
        "{why}"
    );

    disk.make_room();
    let server = Server::start(&data, flags);
    let mut kv = server.kv().await;
    // The one that was refused may have been written.
    let found = count(&mut kv).await as usize;
    assert!(
        (acknowledged..=acknowledged + 1).contains(&found),
        "{found}"
    );
    put(&mut kv, VALUES_MAX).await.expect("it goes on");
}
