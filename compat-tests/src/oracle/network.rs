//! Network namespaces, one for each member, joined by a bridge that we stand on as well: a member
//! can be cut off from the others while its clients still reach it, as a broken switch does.
//! Packets vanish without a word; nothing is refused or reset.
//!
//! Needs root and `ip`.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Nobody has this address, so what is sent to it vanishes.
const NOBODY: &str = "02:00:00:00:de:ad";
/// The bridge's number in the subnet, which is no member's.
const BRIDGE: u8 = 254;

/// Namespaces that go when dropped.
pub struct Network {
    /// What their names begin with, and the bridge's name.
    name: String,
    subnet: u8,
    members: usize,
}

impl Network {
    /// Namespaces for so many members.
    ///
    /// # Errors
    /// When the machine does not let us.
    pub fn new(members: usize) -> Result<Self> {
        let id = std::process::id();
        let network = Self {
            name: format!("tg{}", id % 1_000_000),
            subnet: (id % 256) as u8,
            members,
        };
        network.remove();
        network.build().inspect_err(|_| network.remove())?;
        Ok(network)
    }

    fn build(&self) -> Result<()> {
        let bridge = &self.name;
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!(
            "addr add {}/24 dev {bridge}",
            self.address(BRIDGE)
        ))?;
        ip(&format!("link set {bridge} up"))?;
        for index in 0..self.members {
            let (space, host) = (self.namespace(index), self.host(index));
            let end = format!("{}v{index}", self.name);
            ip(&format!("netns add {space}"))?;
            ip(&format!(
                "link add {end} type veth peer name eth0 netns {space}"
            ))?;
            ip(&format!("link set {end} master {bridge} up"))?;
            ip(&format!("-n {space} addr add {host}/24 dev eth0"))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
        }
        Ok(())
    }

    fn remove(&self) {
        // What is not there need not go.
        for index in 0..self.members {
            let _ = ip(&format!("netns del {}", self.namespace(index)));
        }
        let _ = ip(&format!("link del {}", self.name));
    }

    fn namespace(&self, index: usize) -> String {
        format!("{}n{index}", self.name)
    }

    fn address(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.subnet, number)
    }

    /// The address of a member.
    pub fn host(&self, index: usize) -> Ipv4Addr {
        self.address(u8::try_from(index + 1).expect("a cluster has few members"))
    }

    /// `command`, to be run where this member lives.
    pub fn enter(&self, index: usize, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside
            .args(["netns", "exec", &self.namespace(index)])
            .arg(command.get_program())
            .args(command.get_args());
        inside
    }

    /// Lets nothing pass between a member and the others, in either direction.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn cut(&self, index: usize) -> Result<()> {
        self.each_way(index, |space, host| {
            ip(&format!(
                "-n {space} neigh replace {host} lladdr {NOBODY} dev eth0 nud permanent"
            ))
        })
    }

    /// Ends a cut.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn heal(&self, index: usize) -> Result<()> {
        self.each_way(index, |space, host| {
            ip(&format!("-n {space} neigh del {host} dev eth0"))
        })
    }

    fn each_way(
        &self,
        index: usize,
        change: impl Fn(String, Ipv4Addr) -> Result<()>,
    ) -> Result<()> {
        for other in (0..self.members).filter(|other| *other != index) {
            change(self.namespace(index), self.host(other))?;
            change(self.namespace(other), self.host(index))?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .context("there is no `ip`")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {}", error.trim());
    Ok(())
}
