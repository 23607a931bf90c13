//! A script's conversation with one member in etcd's second protocol: HTTP, forms and JSON.
//!
//! ```text
//! put PATH [NAME=VALUE...]    at /v2/keys; post as well. The pairs are the form
//! get PATH [NAME=VALUE...]    and delete, head, options: the pairs are the query
//! http METHOD PATH            anywhere, nothing added
//! wait NAME PATH [...]        a get with wait=true: prints the head as soon as it comes
//! recv NAME [N]               the next N events, and whether the answer ends with the only one
//! quiet NAME                  that none comes; drop NAME: no longer waits
//! rebase PATH [...]           the current index is i0 from now on: etcd counts what it does to its
//!                             users and members as well
//! counts                      what has changed in /v2/stats/store since it was last asked
//! kill N, restart N, await ready|no-leader      N may be `all`
//! ```
//!
//! What else a request may say: `form=`, `json=` or `body=` (raw, without a content type),
//! `fill=1000` (a value so long), `as=USER:PASSWORD`, `header="Name: value"`, `at=2`, `at=leader`,
//! `at=follower`, `times=20`, `until=TEXT` (said again until the reply has the text); and of the
//! reply to show: `status`, `head`, `body`, `cors`, `shape` (figures are `N`).
//!
//! A reply is its status, the content type, `index=` X-Etcd-Index, `cluster` and `raft` where the
//! headers X-Etcd-Cluster-Id and X-Raft-Index and -Term are as they should be, and the body as it
//! came, but for what `mask.rs` names. Indexes are relative to the script's first: `i2`, in requests
//! `{i2}`; `{seq2}` has twenty digits. In scripts of several protocols each command follows `v2`.
//!
//! A script on shared servers finds no keys. What hides at the top (`/_x`) needs own servers, for no
//! listing shows it to whoever cleans up.

mod mask;
mod request;
mod wait;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use goldenscript::{Command, Context, Runner};
use serde_json::Value;
use tokio::runtime::Handle;

use super::args::Args;
use super::http::Answer;
use super::{Script, reboot, shown};
use crate::oracle::Cluster;
use mask::Mask;
use request::{Ask, Show};
use wait::Wait;

/// How long a condition that a script awaits may take.
const CONDITION_DEADLINE: Duration = Duration::from_secs(20);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(20);

/// One script's conversation with a cluster.
pub struct Session<'a> {
    /// None where another conversation has the say over the members.
    cluster: Option<&'a mut Cluster>,
    ports: Vec<u16>,
    runtime: &'a Handle,
    asked: usize,
    mask: Mask,
    waits: BTreeMap<String, Wait>,
    counts: BTreeMap<String, i64>,
}

impl<'a> Session<'a> {
    /// A session that asks the member with index `asked`.
    pub fn new(cluster: &'a mut Cluster, runtime: &'a Handle, asked: usize) -> Self {
        let session = Self::beside(cluster, runtime, asked);
        Self {
            cluster: Some(cluster),
            ..session
        }
    }

    /// The same, beside another conversation with these members.
    pub fn beside(cluster: &Cluster, runtime: &'a Handle, asked: usize) -> Self {
        Self {
            cluster: None,
            ports: cluster.members.iter().map(|m| m.client_port).collect(),
            runtime,
            asked,
            mask: Mask::new(cluster),
            waits: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Runs the script and returns it with the replies that this cluster gave.
    ///
    /// # Errors
    /// When the script itself is wrong, or the servers cannot be brought to a clean state.
    pub fn run_script(&mut self, script: &Script) -> Result<String> {
        if !script.own_servers {
            self.runtime.block_on(self.clean())?;
        }
        self.begin()?;
        Ok(goldenscript::generate(self, &script.text)?)
    }

    /// From now on the current index is `i0`, at every member.
    ///
    /// # Errors
    /// When a member does not answer.
    pub fn begin(&mut self) -> Result<()> {
        let runtime = self.runtime;
        let root = Ask::plain("GET", "/v2/keys/?quorum=true");
        runtime.block_on(async {
            for &port in &self.ports {
                Answer::to(port, &root.bytes(port)).await?;
            }
            self.rebase(&root).await
        })
    }

    async fn rebase(&mut self, ask: &Ask) -> Result<()> {
        let root = self.send(ask).await?;
        // A member that does not speak this protocol has no index.
        let index = root.header("x-etcd-index").map_or(Ok(0), str::parse)?;
        self.mask.first_index = index;
        Ok(())
    }

    /// Deletes every key that a listing shows.
    async fn clean(&self) -> Result<()> {
        let mut root = self.plain("GET", "/?quorum=true").await?;
        let root: Value = serde_json::from_slice(&root.body().await?)?;
        let nodes = root["node"]["nodes"].as_array();
        for node in nodes.into_iter().flatten() {
            let key = node["key"].as_str().context("a node has a key")?;
            let path = format!("{}?recursive=true", request::escaped(key.as_bytes(), b"/"));
            self.plain("DELETE", &path).await?;
        }
        Ok(())
    }

    /// A request without anything about it, for our own needs.
    async fn plain(&self, method: &str, path: &str) -> Result<Answer> {
        self.send(&Ask::plain(method, &format!("/v2/keys{path}")))
            .await
    }

    async fn send(&self, ask: &Ask) -> Result<Answer> {
        let port = self.ports[self.asked];
        Answer::to(port, &ask.bytes(port)).await
    }

    /// One command of a script, once for each time it is to be repeated.
    async fn command(&mut self, command: &Command) -> Result<String> {
        let mut args = Args::new(command);
        let verb = match command.name.as_str() {
            "v2" => args.word()?,
            name => name.to_owned(),
        };
        let times = usize::try_from(args.number("times")?)?;
        let until = args.value("until");
        let before = self.asked;
        if let Some(at) = args.value("at") {
            self.asked = self.member_index(&at).await?;
        }
        let mut output = String::new();
        if let Some(text) = until {
            output = self.await_reply(&verb, &args, &text).await?;
        } else {
            for index in 0..times.max(1) {
                let args = if times > 0 {
                    args.numbered(index)
                } else {
                    args.clone()
                };
                output = self.dispatch(&verb, args).await?;
            }
        }
        self.asked = before;
        Ok(output)
    }

    /// Says it again until the reply has the text; a member that starts may not answer at first.
    async fn await_reply(&mut self, verb: &str, args: &Args, text: &str) -> Result<String> {
        let deadline = Instant::now() + CONDITION_DEADLINE;
        loop {
            let reply = self.dispatch(verb, args.clone()).await;
            let is_there = reply.as_ref().is_ok_and(|reply| reply.contains(text));
            if is_there || Instant::now() > deadline {
                return reply;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn dispatch(&mut self, verb: &str, mut args: Args) -> Result<String> {
        let args = &mut args;
        let output = match verb {
            "get" | "put" | "post" | "delete" | "head" | "options" | "http" => {
                let ask = Ask::read(verb, args, &mut self.mask)?;
                let show = Show::read(args);
                let mut answer = self.send(&ask).await?;
                let body = answer.body().await?;
                self.show(&ask, show, &answer, &body)
            }
            "wait" => self.wait(args).await?,
            "recv" | "quiet" | "drop" => self.waiting(verb, args).await?,
            "rebase" => {
                let ask = Ask::read("get", args, &mut self.mask)?;
                self.rebase(&ask).await?;
                String::new()
            }
            "counts" => self.counts().await?,
            "kill" | "restart" | "await" => self.fault(verb, args).await?,
            _ => bail!("no such command: {verb}"),
        };
        args.finish()?;
        Ok(output)
    }

    /// A reply as text.
    fn show(&mut self, ask: &Ask, show: Show, answer: &Answer, body: &[u8]) -> String {
        if show.status {
            return answer.status.clone();
        }
        let head = if show.body {
            answer.status.clone()
        } else {
            self.mask.head(answer, show.cors)
        };
        let body = String::from_utf8_lossy(body);
        if show.head || body.is_empty() {
            return head;
        }
        // Keys' answers end their line, messages do not.
        let end = if body.ends_with('\n') { "" } else { " bare" };
        let body = self.mask.body(body.trim_end(), ask.is_sorted);
        let body = if show.shape { mask::shape(&body) } else { body };
        format!("{head}{end}\n  {}", body.replace('\n', "\n  "))
    }

    /// Which counters of the store have moved; those of reads count etcd's own as well.
    async fn counts(&mut self) -> Result<String> {
        let ask = Ask::plain("GET", "/v2/stats/store");
        let body = self.send(&ask).await?.body().await?;
        let counts: BTreeMap<String, i64> = serde_json::from_slice(&body)?;
        let mut moved = Vec::new();
        for (name, count) in &counts {
            let before = self.counts.get(name).copied().unwrap_or_default();
            if *count != before && !name.starts_with("gets") {
                moved.push(format!("{name} {:+}", count - before));
            }
        }
        let is_first = self.counts.is_empty();
        self.counts = counts;
        Ok(if is_first {
            String::new()
        } else {
            moved.join(", ")
        })
    }

    /// `2`, `leader`, `follower`: an index into the members.
    async fn member_index(&self, text: &str) -> Result<usize> {
        let count = self.ports.len();
        if let Ok(number) = text.parse::<usize>() {
            return Ok((number - 1) % count);
        }
        let cluster = self.cluster.as_deref().context("no say over the members")?;
        let leader = cluster.leader(self.asked).await?;
        Ok(match text {
            "leader" => leader,
            "follower" => (leader + 1) % count,
            other => bail!("no member: {other}"),
        })
    }

    /// `kill 2`, `restart 2` (or `all`), `await ready` and `await no-leader`.
    async fn fault(&mut self, verb: &str, args: &mut Args) -> Result<String> {
        let word = args.word()?;
        let asked = self.asked;
        let cluster = self
            .cluster
            .as_deref_mut()
            .context("no say over the members")?;
        if verb == "await" {
            match word.as_str() {
                "ready" => cluster.await_ready().await?,
                "no-leader" => cluster.await_no_leader(asked).await?,
                other => bail!("nothing to await: {other}"),
            }
            return Ok(String::new());
        }
        let count = cluster.members.len();
        let members = if word == "all" {
            0..count
        } else {
            let number = word.parse::<usize>()?;
            ensure!(number > 0, "members are counted from 1");
            let index = (number - 1) % count;
            index..index + 1
        };
        reboot(cluster, verb, members)?;
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
