//! What a script may say, whichever protocol it speaks: the folder that it lies in (`etcd-v3`,
//! `etcd-v2`, `zookeeper`, `crossing` for all) decides that, and the session of that protocol reads
//! its commands.
//!
//! A script opens with comments: first what it is about, then `# name: value` lines:
//!
//! ```text
//! # proves: KV.Range limit, KV.Range count     rows of COMPATIBILITY.md (operations.toml)
//! # servers: own                               fresh servers, revisions exact from 1
//! # flags: --max-txn-ops=4                     further flags of its own servers
//! # zoo.cfg: extendedTypesEnabled=true         further lines of its own ZooKeeper servers;
//!                                             `{fixtures}` is the folder of files for them
//! # members: 1                                 only with so many members
//! # skip etcd-3.4: RangeStream came with 3.7   not on that original, and why
//! # differs etcd-3.4: no header before 3.5     its replies are in a file of its own, `NAME.etcd-3.4`
//! ```
//!
//! Any command may say `times=20`, with `{}` numbered in its words.

mod args;
mod crossing;
mod etcd;
mod etcd_v2;
pub(crate) mod http;
pub(crate) mod zookeeper;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use goldenscript::Command;
use tokio::runtime::Handle;

use crate::oracle::{Cluster, Kind, Protocol};

/// One scenario: the file, and what its opening comments say.
#[derive(Clone, Debug)]
pub struct Script {
    /// The path below `scripts/`, without which nothing could name it.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its text.
    pub text: String,
    /// The rows of COMPATIBILITY.md that it proves.
    pub proves: Vec<String>,
    /// Whether it needs fresh servers for itself.
    pub own_servers: bool,
    /// Further flags (or lines of zoo.cfg) of its own servers.
    pub flags: Vec<String>,
    /// The only cluster size it runs with.
    pub members: Option<usize>,
    /// Where it does not run, with the reason.
    pub skips: BTreeMap<String, String>,
    /// Which originals answer otherwise, with the reason.
    pub differs: BTreeMap<String, String>,
}

/// Where the files are that servers are started with.
fn fixtures_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// When an opening comment is not understood or it proves nothing.
    pub fn load(root: &Path, path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let name = path.strip_prefix(root)?.display().to_string();
        let protocol = Protocol::ALL
            .into_iter()
            .find(|protocol| name.split('/').next() == Some(protocol.folder()))
            .with_context(|| format!("{name} is in no protocol's folder"))?;
        let mut script = Self {
            name,
            protocol,
            path: path.to_owned(),
            text: String::new(),
            proves: Vec::new(),
            own_servers: false,
            flags: Vec::new(),
            members: None,
            skips: BTreeMap::new(),
            differs: BTreeMap::new(),
        };
        for line in text.lines().map_while(|line| line.strip_prefix('#')) {
            let Some((name, value)) = line.trim().split_once(": ") else {
                continue;
            };
            let value = value.replace("{fixtures}", &fixtures_dir().display().to_string());
            let words = |separator| value.split(separator).map(|w: &str| w.trim().to_owned());
            match name {
                "proves" => script.proves.extend(words(',')),
                "servers" => script.own_servers = value == "own",
                "flags" | "zoo.cfg" => script.flags.extend(words(' ')),
                "members" => script.members = Some(value.parse()?),
                _ => {
                    if let Some(target) = name.strip_prefix("skip ") {
                        script.skips.insert(target.to_owned(), value.to_owned());
                    } else if let Some(target) = name.strip_prefix("differs ") {
                        script.differs.insert(target.to_owned(), value.to_owned());
                    }
                }
            }
        }
        ensure!(!script.proves.is_empty(), "{} proves nothing", script.name);
        ensure!(
            script.own_servers
                || (script.flags.is_empty() && script.members.is_none_or(|m| m != 1)),
            "{} changes servers it shares",
            script.name
        );
        script.text = text;
        Ok(script)
    }

    /// Why the script does not run on `kind`, if so.
    pub fn skip(&self, kind: Kind) -> Option<&str> {
        self.skips.get(kind.name()).map(String::as_str)
    }

    /// Says it to the member with index `asked`, and returns it with the replies it gave.
    ///
    /// # Errors
    /// When the script itself is wrong, or the servers cannot be brought to a clean state.
    pub fn run(&self, cluster: &mut Cluster, runtime: &Handle, asked: usize) -> Result<String> {
        match self.protocol {
            Protocol::EtcdV3 => etcd::Session::new(cluster, runtime, asked).run_script(self),
            Protocol::EtcdV2 => etcd_v2::Session::new(cluster, runtime, asked).run_script(self),
            Protocol::Zookeeper => {
                zookeeper::Session::new(cluster, runtime, asked).run_script(self)
            }
            Protocol::Crossing => crossing::Session::new(cluster, runtime, asked).run_script(self),
        }
    }
}

/// `kill` or `restart`, done to some members.
fn reboot(cluster: &mut Cluster, verb: &str, members: Range<usize>) -> Result<()> {
    for index in members {
        match verb {
            "kill" => cluster.kill(index),
            _ => cluster.restart(index)?,
        }
    }
    Ok(())
}

/// A reply as a script shows it. A block shows all its replies together, so each says what it
/// answers.
fn shown(command: &Command, reply: String) -> String {
    match reply.strip_prefix('\n') {
        None if reply.is_empty() => reply,
        None => format!("{command} → {reply}"),
        Some(lines) => format!("{command} →\n{lines}"),
    }
}
