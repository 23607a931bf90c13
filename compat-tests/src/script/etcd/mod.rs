//! A script's conversation with one member in etcd's protocol.
//!
//! Keys and values are bytes (`"\x00"`), revisions are relative to the script's first (`r2`),
//! and a command may say `at=2`, `at=leader` or `at=follower`, `meta="name:value"`,
//! `until=TEXT` (said again until the reply has the text), or `codeonly` where the text comes
//! from a gRPC library.
//! `rebase` makes the current revision `r0` where the number of revisions before it is chance.
//! The commands are listed in [`Session::dispatch`].

mod admin;
mod kv;
mod mask;
mod print;
mod streams;
mod wire;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use goldenscript::{Command, Context, Runner};
use proto::etcdserverpb::TxnRequest;
use tokio::runtime::Handle;
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::args::{Args, to_bytes};
use super::{Script, reboot, shown};
use crate::oracle::Cluster;
use mask::Mask;
use streams::{KeepAliveStream, WatchStream};

/// No call that a script makes may take longer.
const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// How long a condition that a script awaits may take.
const CONDITION_DEADLINE: Duration = Duration::from_secs(20);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(20);

/// One script's conversation with a cluster.
pub struct Session<'a> {
    cluster: &'a mut Cluster,
    runtime: &'a Handle,
    asked: usize,
    mask: Mask,
    meta: Vec<String>,
    txns: BTreeMap<String, TxnRequest>,
    txn: String,
    watches: BTreeMap<String, WatchStream>,
    keep_alives: BTreeMap<String, KeepAliveStream>,
}

impl<'a> Session<'a> {
    /// A session that asks the member with index `asked`.
    pub fn new(cluster: &'a mut Cluster, runtime: &'a Handle, asked: usize) -> Self {
        Self {
            cluster,
            runtime,
            asked,
            mask: Mask::default(),
            meta: Vec::new(),
            txns: BTreeMap::new(),
            txn: String::new(),
            watches: BTreeMap::new(),
            keep_alives: BTreeMap::new(),
        }
    }

    /// Runs the script and returns it with the replies that this cluster gave.
    ///
    /// # Errors
    /// When the script itself is wrong, or the servers cannot be brought to a clean state.
    pub fn run_script(&mut self, script: &Script) -> Result<String> {
        self.begin(script)?;
        Ok(goldenscript::generate(self, &script.text)?)
    }

    /// Brings the servers to a clean state, and answers at which revision the script begins.
    ///
    /// # Errors
    /// When they cannot be brought there.
    pub fn begin(&mut self, script: &Script) -> Result<i64> {
        self.name_members();
        let runtime = self.runtime;
        self.mask.first_revision = runtime.block_on(self.clean(script.own_servers))?;
        Ok(self.mask.first_revision)
    }

    /// From now on the lease is called `name`.
    pub fn name_lease(&mut self, id: i64, name: &str) {
        self.mask.leases.insert(id, name.to_owned());
    }

    fn name_members(&mut self) {
        self.mask.cluster_id = self.cluster.id;
        self.mask.asked = self.cluster.members[self.asked].id;
        for member in &self.cluster.members {
            self.mask.members.insert(member.id, member.name.clone());
            let (client, peer) = (member.client_url(), member.peer_url());
            self.mask
                .urls
                .insert(client, format!("client-url-{}", member.name));
            self.mask
                .urls
                .insert(peer, format!("peer-url-{}", member.name));
        }
    }

    fn channel(&self) -> Channel {
        self.cluster.members[self.asked].channel.clone()
    }

    /// `message` with the command's metadata.
    fn request<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        for pair in &self.meta {
            let (name, value) = pair.split_once(':').context("meta is name:value")?;
            let name = MetadataKey::from_bytes(name.as_bytes())?;
            let value = MetadataValue::try_from(to_bytes(value)?.as_slice())?;
            request.metadata_mut().insert(name, value);
        }
        Ok(request)
    }

    /// One command of a script, once for each time it is to be repeated.
    async fn command(&mut self, command: &Command) -> Result<String> {
        let mut args = Args::new(command);
        let code_only = args.flag("codeonly");
        self.meta = args.values("meta");
        let times = usize::try_from(args.number("times")?)?;
        let until = args.value("until");
        let before = self.asked;
        if let Some(at) = args.value("at") {
            self.asked = self.member_index(&at).await?;
            self.mask.asked = self.cluster.members[self.asked].id;
        }
        let mut output = String::new();
        for index in 0..times.max(1) {
            let args = if times > 0 {
                args.numbered(index)
            } else {
                args.clone()
            };
            output = self.dispatch(&command.name, args).await?;
        }
        if let Some(text) = until {
            let deadline = Instant::now() + CONDITION_DEADLINE;
            while !output.contains(&text) && Instant::now() < deadline {
                tokio::time::sleep(POLL).await;
                output = self.dispatch(&command.name, args.clone()).await?;
            }
        }
        self.asked = before;
        self.mask.asked = self.cluster.members[before].id;
        if code_only && output.starts_with("error ") {
            output.truncate(output.find(':').unwrap_or(output.len()));
        }
        Ok(output)
    }

    async fn dispatch(&mut self, name: &str, mut args: Args) -> Result<String> {
        let args = &mut args;
        let output = match name {
            "get" | "put" | "del" | "compact" | "stream" => self.kv(name, args).await?,
            "txn" | "if" | "then" | "else" | "commit" | "check" => {
                self.transaction(name, args).await?
            }
            "watch" | "cancel" | "progress" | "recv" | "events" | "quiet" | "close" => {
                self.watching(name, args).await?
            }
            "grant" | "revoke" | "ttl" | "leases" | "expired" => self.lease(name, args).await?,
            "keepalive" => self.keep_alive(args).await?,
            "members" | "member-add" | "member-remove" | "member-update" | "member-promote"
            | "join" => self.membership(name, args).await?,
            "status" | "alarm" | "hash" | "hashkv" | "defrag" | "move-leader" | "snapshot"
            | "downgrade" | "health" | "health-watch" => self.maintenance(name, args).await?,
            "rebase" => {
                self.mask.first_revision = self.revision().await?;
                String::new()
            }
            "http" => self.http(args).await?,
            "rpc" => self.raw_rpc(args).await?,
            "tcp" => self.raw_bytes(args).await?,
            "kill" | "restart" | "await" => self.fault(name, args).await?,
            _ => bail!("no such command: {name}"),
        };
        args.finish()?;
        Ok(output)
    }

    /// `2`, `leader`, `follower`: an index into the members.
    async fn member_index(&self, text: &str) -> Result<usize> {
        let count = self.cluster.members.len();
        Ok(match text {
            "leader" => self.cluster.leader(self.asked).await?,
            "follower" => (self.cluster.leader(self.asked).await? + 1) % count,
            number => (number.parse::<usize>()? - 1) % count,
        })
    }

    /// `kill 2`, `restart 2` (or `all`), and `await ready`, `await no-leader`, `await learner`.
    async fn fault(&mut self, name: &str, args: &mut Args) -> Result<String> {
        let word = args.word()?;
        if name == "await" {
            match word.as_str() {
                "ready" => self.cluster.await_ready().await?,
                "no-leader" => self.cluster.await_no_leader(self.asked).await?,
                "learner" => self.cluster.await_learner(self.asked).await?,
                other => bail!("nothing to await: {other}"),
            }
            return Ok(String::new());
        }
        let members = if word == "all" {
            0..self.cluster.members.len()
        } else {
            let index = self.member_index(&word).await?;
            index..index + 1
        };
        reboot(self.cluster, name, members)?;
        Ok(String::new())
    }
}

impl Runner for Session<'_> {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let runtime = self.runtime;
        let reply = runtime.block_on(self.command(command))?;
        Ok(shown(command, reply))
    }
}

/// Prints a call's reply, or its error with the exact code and text.
async fn reply<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
    print: impl FnOnce(&T) -> String,
) -> String {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(Ok(reply)) => print(reply.get_ref()),
        Ok(Err(status)) => error(&status),
        Err(_) => format!("no reply within {CALL_DEADLINE:?}"),
    }
}

fn error(status: &Status) -> String {
    format!("error {:?}: {}", status.code(), status.message())
}
