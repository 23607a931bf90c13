//! Clusters whose members find each other through a registry in etcd v2's keys, every
//! implementation through every other.
//!
//! What is judged: the members and their ids, who comes too late, and what a member does that has
//! founded the cluster already.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::{MemberListRequest, PutRequest, RangeRequest};
use serde_json::Value;

use crate::oracle::{Cluster, Kind, Protocol};
use crate::run::Tally;
use crate::script::http::{self, Answer};

/// How many members found a cluster.
const MEMBERS: usize = 3;
/// Where the registries are.
const REGISTRY: &str = "/v2/keys/_etcd/registry";

/// Founds a cluster of each of `kinds` through a registry that each of them serves.
///
/// # Errors
/// When a registry cannot be started; a broken promise is a failed tally.
pub async fn run(kinds: &[Kind]) -> Result<Tally> {
    let mut tally = Tally::default();
    let kinds = kinds.iter().filter(|kind| kind.speaks(Protocol::EtcdV2));
    for server in kinds.clone() {
        let flags: Vec<String> = Protocol::EtcdV2
            .needed_flag()
            .map(str::to_owned)
            .into_iter()
            .collect();
        let registry = Cluster::start(*server, 1, &flags).await?;
        for founder in kinds.clone() {
            let what = format!("{} through {}", founder.name(), server.name());
            match found(&registry, *founder).await {
                Ok(()) => {
                    println!("ok   {what}");
                    tally.passed += 1;
                }
                Err(error) => {
                    println!("FAIL {what}: {error:#}");
                    tally.failed += 1;
                }
            }
        }
    }
    Ok(tally)
}

async fn found(registry: &Cluster, founder: Kind) -> Result<()> {
    let port = registry.members[0].client_port;
    let token = format!("{REGISTRY}/{}", founder.name());
    let form = ["Content-Type: application/x-www-form-urlencoded".to_owned()];
    let size = format!("value={MEMBERS}");
    ask(port, "PUT", &format!("{token}/_config/size"), &form, &size).await?;
    let flags = [
        format!("--discovery={}{token}", registry.members[0].client_url()),
        "--discovery-fallback=exit".to_owned(),
    ];
    let mut cluster = Cluster::start_once(founder, MEMBERS, &flags).await?;
    let outcome = judge(&mut cluster, port, &token).await;
    outcome.map_err(|error| error.context(format!("logs are in {}", cluster.keep_logs().display())))
}

async fn judge(cluster: &mut Cluster, port: u16, token: &str) -> Result<()> {
    let registered = ask(port, "GET", token, &[], "").await?;
    let registered = names(&registered).context("the registry lists nobody")?;
    let known: BTreeSet<String> = cluster
        .members
        .iter()
        .map(|m| format!("{:x}", m.id))
        .collect();
    ensure!(
        registered == known,
        "{registered:?} have registered, but the members are {known:?}"
    );
    one_cluster(cluster).await?;

    let log = cluster.start_in_vain("m4").await?;
    ensure!(
        log.contains("discovery: cluster is full"),
        "m4 logged: {log}"
    );
    let registered_then = names(&ask(port, "GET", token, &[], "").await?);
    ensure!(
        registered_then.as_ref() == Some(&registered),
        "m4 has registered"
    );

    cluster.kill(0);
    cluster.restart(0)?;
    cluster.await_ready().await.context("after a restart")?;
    let log = cluster.members[0].log()?;
    ensure!(
        log.lines()
            .any(|line| line.contains("discovery token") && line.contains("ignored")),
        "m1 does not say that it ignores the URL: {log}"
    );

    cluster.kill(1);
    cluster.forget(1)?;
    cluster.restart(1)?;
    let log = cluster.await_end(1).await?;
    ensure!(
        log.contains("has previously registered"),
        "m2 without its data logged: {log}"
    );
    Ok(())
}

/// What is written at one member is read at another, and there are no others.
async fn one_cluster(cluster: &Cluster) -> Result<()> {
    let mut client = ClusterClient::new(cluster.members[0].channel.clone());
    let list = client.member_list(MemberListRequest {
        linearizable: false,
    });
    let members = list.await?.into_inner().members.len();
    ensure!(members == MEMBERS, "there are {members} members");
    let put = PutRequest {
        key: "found".into(),
        value: "yes".into(),
        ..Default::default()
    };
    KvClient::new(cluster.members[0].channel.clone())
        .put(put)
        .await?;
    let range = RangeRequest {
        key: "found".into(),
        ..Default::default()
    };
    let mut last = KvClient::new(cluster.members[MEMBERS - 1].channel.clone());
    let read = last.range(range).await?.into_inner();
    ensure!(
        read.count == 1,
        "the last member does not know what the first wrote"
    );
    Ok(())
}

async fn ask(port: u16, method: &str, path: &str, headers: &[String], body: &str) -> Result<Value> {
    let request = http::request(method, path, "registry", headers, body.as_bytes());
    let mut answer = Answer::to(port, &request).await?;
    let body = answer.body().await?;
    ensure!(
        answer.status.starts_with('2'),
        "{method} {path}: {}",
        answer.status
    );
    Ok(serde_json::from_slice(&body)?)
}

/// The names in a directory of etcd v2's.
fn names(listing: &Value) -> Option<BTreeSet<String>> {
    let nodes = listing["node"]["nodes"].as_array()?;
    let name = |node: &Value| Some(node["key"].as_str()?.rsplit('/').next()?.to_owned());
    nodes.iter().map(name).collect()
}
