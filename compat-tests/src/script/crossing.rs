//! A script's conversation in all protocols with servers that speak all of them: what one writes,
//! the others see. Commands that begin with `connect`, `open`, `word` or a connection's name are
//! ZooKeeper's, those after `v2` etcd v2's, all others etcd v3's. Zxids are revisions, and called so:
//! `r1`, `r2`, ...; v2 counts its events, `i1`, `i2`, ...

use std::error::Error;

use anyhow::Result;
use goldenscript::{Command, Context, Runner};
use tokio::runtime::Handle;

use super::{Script, etcd, etcd_v2, zookeeper};
use crate::oracle::Cluster;

/// One script's conversation with a cluster.
pub struct Session<'a> {
    etcd: etcd::Session<'a>,
    etcd_v2: etcd_v2::Session<'a>,
    zookeeper: zookeeper::Session<'a>,
}

impl<'a> Session<'a> {
    /// A session that asks the member with index `asked`.
    pub fn new(cluster: &'a mut Cluster, runtime: &'a Handle, asked: usize) -> Self {
        Self {
            zookeeper: zookeeper::Session::beside(cluster, runtime, asked),
            etcd_v2: etcd_v2::Session::beside(cluster, runtime, asked),
            etcd: etcd::Session::new(cluster, runtime, asked),
        }
    }

    /// Runs the script and returns it with the replies that this cluster gave.
    ///
    /// # Errors
    /// When the script itself is wrong, or the servers cannot be brought to a clean state.
    pub fn run_script(&mut self, script: &Script) -> Result<String> {
        if !script.own_servers {
            self.zookeeper.clean()?;
        }
        self.etcd_v2.begin()?;
        let first = self.etcd.begin(script)?;
        self.zookeeper.call_zxids_revisions(first);
        // What etcd v3 has cleaned up were events as well.
        self.etcd_v2.begin()?;
        let text = goldenscript::generate(self, &script.text)?;
        self.zookeeper.close();
        Ok(text)
    }
}

impl Runner for Session<'_> {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Result<String, Box<dyn Error>> {
        if self.zookeeper.understands(&command.name) {
            let reply = self.zookeeper.run(command, context);
            // To etcd's clients a session is a lease.
            for (id, name) in self.zookeeper.sessions() {
                self.etcd.name_lease(*id, name);
            }
            reply
        } else if command.name == "v2" {
            self.etcd_v2.run(command, context)
        } else {
            self.etcd.run(command, context)
        }
    }
}
