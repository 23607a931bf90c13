//! The members as ZooKeeper's clients see them, with names in place of this run's ports.

use anyhow::{Context as _, Result, ensure};

use super::jute::Fields;
use super::names::Names;
use super::requests::Request;
use super::{FRAME_DEADLINE, Session};

impl Session<'_> {
    /// Sends a request that is answered with the members, and prints them.
    pub(super) fn members(&mut self, name: &str, request: &Request) -> Result<String> {
        let connection = self.connection(name)?;
        connection.send(request);
        let frame = match connection.receive(FRAME_DEADLINE)? {
            Ok(frame) => frame,
            Err(instead) => return Ok(instead.to_owned()),
        };
        // Changes of the members have zxids of their own, which are not looked at.
        let text = connection.show(&mut Names::new(i64::MAX), &frame);
        let mut fields = Fields(&frame);
        fields.int()?;
        fields.long()?;
        if fields.int()? != 0 {
            return Ok(text);
        }
        let data = fields.buffer()?.context("no data")?;
        let lines: Result<Vec<String>> = std::str::from_utf8(data)?
            .lines()
            .map(|line| self.named(line))
            .collect();
        Ok(lines?.join(", "))
    }

    /// `server.1=127.0.0.1:PORT:PORT:role;127.0.0.1:PORT` as `1=m1 role`, where the ports are those
    /// of the member m1, and two different ones.
    fn named(&self, line: &str) -> Result<String> {
        let Some((number, server)) = line
            .strip_prefix("server.")
            .and_then(|line| line.split_once('='))
        else {
            let (version, _) = line.split_once('=').context("no version")?;
            return Ok(version.to_owned());
        };
        let (peers, clients) = server.split_once(';').unwrap_or((server, ""));
        let parts: Vec<&str> = peers.split(':').collect();
        let [host, peer, election, role] = parts[..] else {
            anyhow::bail!("not a server: {line:?}");
        };
        ensure!(peer != election, "one port for both: {line:?}");
        let cluster = self.cluster.as_deref();
        let cluster = cluster.context("no say over the members")?;
        let member = cluster.members.iter().find(|member| {
            host == "127.0.0.1"
                && peer == member.peer_port.to_string()
                && clients == format!("127.0.0.1:{}", member.zookeeper_port)
        });
        Ok(match member {
            Some(member) => format!("{number}={} {role}", member.name),
            None => format!("{number}={host}:{peer} {role} {clients}"),
        })
    }
}
