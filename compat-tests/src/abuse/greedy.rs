//! Clients that want everything at once.

use anyhow::{Result, ensure};
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::{MemberAddRequest, PutRequest};

use super::{Scene, calm};

/// Connections that write, and what each writes at once: more than a server lets wait.
const CONNECTIONS: usize = 8;
const PUTS: usize = 20;
const VALUE_BYTES: usize = 1 << 20;
/// Addresses of one member: as many as a request holds.
const URLS: usize = 40_000;

/// Large writes all at once: each is done, or refused as one too many.
pub async fn writes(scene: &Scene) -> Result<String> {
    let mut writers = Vec::new();
    for connection in 0..CONNECTIONS {
        let kv = KvClient::new(scene.channel().await?);
        for _ in 0..PUTS {
            let mut kv = kv.clone();
            let put = PutRequest {
                key: format!("greedy/{connection}").into(),
                value: vec![b'x'; VALUE_BYTES].into(),
                ..Default::default()
            };
            writers.push(tokio::spawn(async move { kv.put(put).await }));
        }
    }
    let mut refused = 0;
    for writer in writers {
        if let Err(status) = writer.await? {
            ensure!(
                status.message() == "etcdserver: too many requests",
                "refused with {status:?}"
            );
            refused += 1;
        }
    }
    Ok(format!("{refused} of {} refused", CONNECTIONS * PUTS))
}

/// A member with more addresses than anyone can try, which is never there.
pub async fn addresses(scene: &Scene) -> Result<String> {
    let mut cluster = ClusterClient::new(scene.channel().await?);
    let add = MemberAddRequest {
        peer_ur_ls: (0..URLS).map(|n| format!("http://127.0.0.2:{n}")).collect(),
        is_learner: true,
    };
    cluster.member_add(add).await?;
    calm(scene).await
}
