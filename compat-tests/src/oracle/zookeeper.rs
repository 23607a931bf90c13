//! ZooKeeper's own way of being started: a zoo.cfg and a myid for each member, and a JVM.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Member;

/// How long a member that serves may take to open a session.
const SESSION_DEADLINE: Duration = Duration::from_secs(3);
/// The session is closed at once; were it not, this is soon enough.
const SESSION_TIMEOUT_MS: i32 = 1_000;

/// zoo.cfg of the servers that scenarios share: short sessions, everything switched on that
/// changes nothing else, and a super user (`super:test`) who can clean up behind any scenario.
pub const SHARED: [&str; 5] = [
    "tickTime=500",
    "maxClientCnxns=0",
    "extendedTypesEnabled=true",
    "4lw.commands.whitelist=*",
    "DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=",
];

/// What the JVM runs.
const MAIN_CLASS: &str = "org.apache.zookeeper.server.quorum.QuorumPeerMain";

/// A JVM with this class path; the rest of its arguments comes from [`configure`].
///
/// Several run side by side on a small machine, each for a few seconds: small heaps, and no time
/// spent on optimising.
pub fn command(class_path: &Path) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg("-Dzookeeper.jmx.log4j.disable=true")
        .arg("-cp")
        .arg(class_path);
    command
}

/// Writes what the members are started with into `dir`, with `lines` added to each zoo.cfg; those
/// that start with `-D` are properties of the JVM.
pub fn configure(members: &mut [Member], dir: &Path, lines: &[String]) -> Result<()> {
    let mut servers = String::new();
    if members.len() > 1 {
        for (member, number) in members.iter().zip(1..) {
            writeln!(servers, "{}", server_line(member, number, "participant"))?;
        }
    }
    for (member, number) in members.iter_mut().zip(1..) {
        configure_one(member, number, &servers, dir, lines)?;
    }
    Ok(())
}

/// The same for one that is to join `members`. ZooKeeper's manual: it lists them, and itself as one
/// without a vote.
pub fn configure_joiner(
    member: &mut Member,
    members: &[Member],
    dir: &Path,
    lines: &[String],
) -> Result<()> {
    let mut servers = String::new();
    for (other, number) in members.iter().zip(1..) {
        writeln!(servers, "{}", server_line(other, number, "participant"))?;
    }
    let number = members.len() + 1;
    writeln!(servers, "{}", server_line(member, number, "observer"))?;
    configure_one(member, number, &servers, dir, lines)
}

/// A member as ZooKeeper's configuration spells it.
pub fn server_line(member: &Member, number: usize, role: &str) -> String {
    format!(
        "server.{number}={}:{}:{}:{role};{}",
        member.host,
        member.peer_port,
        member.election_port,
        member.zookeeper_address()
    )
}

fn configure_one(
    member: &mut Member,
    number: usize,
    servers: &str,
    dir: &Path,
    lines: &[String],
) -> Result<()> {
    let data = dir.join(format!("{}.zookeeper", member.name));
    std::fs::create_dir_all(&data)?;
    std::fs::write(data.join("myid"), format!("{number}\n"))?;
    let mut text = format!(
        "dataDir={}\ninitLimit=20\nsyncLimit=10\nadmin.enableServer=false\n{servers}",
        data.display()
    );
    if servers.is_empty() {
        let port = member.zookeeper_port;
        writeln!(text, "clientPort={port}\nclientPortAddress=127.0.0.1")?;
    }
    let (mut flags, lines): (Vec<_>, Vec<_>) = lines
        .iter()
        .cloned()
        .partition(|line| line.starts_with("-D"));
    for line in lines {
        writeln!(text, "{}", member.spell(&line))?;
    }
    let path = dir.join(format!("{}.cfg", member.name));
    std::fs::write(&path, text)?;
    flags.extend([MAIN_CLASS.to_owned(), path.display().to_string()]);
    member.flags = flags;
    Ok(())
}

/// Opens a session and closes it: only a member of a quorum can do that.
pub async fn probe(member: SocketAddr) -> Result<()> {
    let talk = async {
        let mut socket = TcpStream::connect(member).await?;
        let mut connect = Vec::new();
        connect.extend(44_i32.to_be_bytes());
        connect.extend(0_i32.to_be_bytes()); // protocol version
        connect.extend(0_i64.to_be_bytes()); // last zxid seen
        connect.extend(SESSION_TIMEOUT_MS.to_be_bytes());
        connect.extend(0_i64.to_be_bytes()); // session id
        connect.extend(16_i32.to_be_bytes());
        connect.extend([0; 16]); // password
        socket.write_all(&connect).await?;
        let mut reply = [0; 40];
        socket.read_exact(&mut reply).await?;
        ensure!(reply[12..20] != [0; 8], "no session");
        let close_session = [0_i32, 0, 0, 8, 0, 0, 0, 1, -1, -1, -1, -11];
        let bytes = close_session.map(|byte| byte.to_be_bytes()[3]);
        socket.write_all(&bytes).await?;
        socket.read_exact(&mut [0; 20]).await?;
        Ok(())
    };
    tokio::time::timeout(SESSION_DEADLINE, talk).await?
}
