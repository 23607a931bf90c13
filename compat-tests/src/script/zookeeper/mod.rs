//! A script's conversation with a member in ZooKeeper's protocol, frame by frame.
//!
//! ```text
//! connect NAME [timeout=MS] [resume=NAME] [password=BYTES] [zxid=ahead] [readonly=none] [at=2]
//!                        a connection of that name and its handshake
//! open NAME              a connection without a handshake; NAME handshake: reads the answer to
//!                        one; NAME text: what comes until the server closes
//! NAME REQUEST ...       a request (requests.rs), and everything that comes up to its reply
//! NAME hold, flush [N]   requests in between leave in one write, and are answered together, or
//!                        their first N answers are read
//! NAME receive [N] [sorted]   the next frames; NAME shut: that the server closes
//! NAME bytes BYTES       bytes as they are; NAME frame BYTES: with their length before them
//! NAME zxids             events show the zxid in their header from now on
//! NAME drop              closes the connection without a word; the session lives on
//! NAME log-in USER PASSWORD   SASL's DIGEST-MD5 (login.rs)
//! NAME config            the members, as /zookeeper/config tells them (members.rs); NAME reconfig
//!                        answers with the same
//! word WORD              a four-letter word (words.rs)
//! kill N, restart N, await ready      N may be `all`; `await N`: that it takes connections
//! start m4               one more member, which waits to be added: `reconfig joining=m4`, or
//!                        `joining=m4:observer`
//! ```
//!
//! `times=20 every=50` lets so many milliseconds pass between one time and the next, for a session's
//! time has to run while something renews it. Data is bytes, paths are
//! UTF-8. What of a reply is named or left out says `names.rs`. A script
//! starts on an empty tree.

mod clean;
mod connection;
pub(crate) mod jute;
mod login;
mod members;
mod names;
mod print;
mod requests;
mod words;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use goldenscript::{Command, Context, Runner};
use tokio::runtime::Handle;

use super::args::{Args, to_bytes};
use super::{Script, reboot, shown};
use crate::oracle::Cluster;
use connection::Connection;
use jute::{Fields, Record};
use names::Names;
use requests::Request;

/// How long a frame that must come, or the end of a connection, may take.
const FRAME_DEADLINE: Duration = Duration::from_secs(15);
/// The session timeout that a script gets unless it asks for another.
const TIMEOUT_MS: i32 = 10_000;

/// One script's conversation with a cluster.
pub struct Session<'a> {
    /// None where another conversation has the say over the members.
    cluster: Option<&'a mut Cluster>,
    ports: Vec<u16>,
    runtime: &'a Handle,
    asked: usize,
    names: Names,
    connections: BTreeMap<String, Connection>,
    passwords: BTreeMap<i64, Vec<u8>>,
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
            ports: cluster.members.iter().map(|m| m.zookeeper_port).collect(),
            runtime,
            asked,
            names: Names::new(0),
            connections: BTreeMap::new(),
            passwords: BTreeMap::new(),
        }
    }

    /// Empties the tree.
    ///
    /// # Errors
    /// When the member does not let us.
    pub fn clean(&self) -> Result<i64> {
        clean::clean(self.port())
    }

    /// From now on zxids are called as etcd's scripts call revisions, from `first`.
    pub fn call_zxids_revisions(&mut self, first: i64) {
        self.names = Names::of_revisions(first);
    }

    /// Whether a command of that name is meant for this conversation.
    pub fn understands(&self, name: &str) -> bool {
        matches!(name, "connect" | "open" | "word") || self.connections.contains_key(name)
    }

    /// The sessions' ids, and what they are called.
    pub fn sessions(&self) -> &BTreeMap<i64, String> {
        self.names.sessions()
    }

    /// Closes the sessions that are still open.
    pub fn close(&mut self) {
        for connection in self.connections.values_mut() {
            connection.flush();
            connection.send_frame(&Record::default().int(i32::MAX).int(-11).into_bytes());
        }
    }

    /// Runs the script and returns it with the replies that this cluster gave.
    ///
    /// # Errors
    /// When the script itself is wrong, or the tree cannot be emptied before it.
    pub fn run_script(&mut self, script: &Script) -> Result<String> {
        let before = if script.own_servers { 0 } else { self.clean()? };
        self.names = Names::new(before);
        let text = goldenscript::generate(self, &script.text)?;
        self.close();
        Ok(text)
    }

    fn port(&self) -> u16 {
        self.ports[self.asked]
    }

    /// One command of a script, once for each time it is to be repeated.
    fn command(&mut self, command: &Command) -> Result<String> {
        let mut args = Args::new(command);
        let times = usize::try_from(args.number("times")?)?;
        let pause = Duration::from_millis(args.number("every")?.try_into()?);
        let before = self.asked;
        if let Some(at) = args.value("at") {
            self.asked = (at.parse::<usize>()? - 1) % self.ports.len();
        }
        let mut output = String::new();
        for index in 0..times.max(1) {
            let mut args = if times > 0 {
                args.numbered(index)
            } else {
                args.clone()
            };
            if index > 0 {
                std::thread::sleep(pause);
            }
            output = self.dispatch(&command.name, &mut args)?;
            args.finish()?;
        }
        self.asked = before;
        Ok(output)
    }

    fn dispatch(&mut self, name: &str, args: &mut Args) -> Result<String> {
        match name {
            "connect" => {
                let name = args.word()?;
                self.connect(&name, args)
            }
            "open" => {
                let connection = Connection::open(self.port())?;
                self.connections.insert(args.word()?, connection);
                Ok(String::new())
            }
            "word" => self.word(args),
            "kill" | "restart" | "await" => self.fault(name, args),
            "start" => self.start(&args.word()?),
            name => {
                let command = args.word()?;
                match requests::request(&self.names, &command, args)? {
                    Some(request) if ["config", "reconfig"].contains(&command.as_str()) => {
                        self.members(name, &request)
                    }
                    Some(request) => self.request(name, &request),
                    None => self.converse(name, &command, args),
                }
            }
        }
    }

    fn connection(&mut self, name: &str) -> Result<&mut Connection> {
        let connection = self.connections.get_mut(name);
        connection.with_context(|| format!("no connection {name:?}"))
    }

    /// Opens a connection and prints how the server answers the handshake.
    fn connect(&mut self, name: &str, args: &mut Args) -> Result<String> {
        let mut connection = Connection::open(self.port())?;
        let (mut session, mut password) = (0, vec![0; 16]);
        if let Some(resumed) = args.value("resume") {
            session = self.names.parse_session(&resumed)?;
            if let Some(known) = self.passwords.get(&session) {
                password.clone_from(known);
            }
        }
        if let Some(given) = args.value("password") {
            password = to_bytes(&given)?;
        }
        let number = |args: &mut Args, key: &str, default: i32| -> Result<i32> {
            Ok(args.value(key).map_or(Ok(default), |text| text.parse())?)
        };
        let version = number(args, "protocol", 0)?;
        let timeout = number(args, "timeout", TIMEOUT_MS)?;
        let seen = args
            .value("zxid")
            .map_or(Ok(0), |zxid| self.names.parse_zxid(&zxid))?;
        let handshake = Record::default()
            .int(version)
            .long(seen)
            .int(timeout)
            .long(session);
        let handshake = handshake.buffer(Some(&password));
        let handshake = match args.value("readonly").as_deref() {
            None | Some("false") => handshake.flag(false),
            Some("true") => handshake.flag(true),
            Some(_) => handshake,
        };
        connection.send_frame(&handshake.into_bytes());
        self.connections.insert(name.to_owned(), connection);
        self.receive_handshake(name, session, &password)
    }

    /// Prints the answer to a handshake that asked for the session `asked`, and names the session.
    fn receive_handshake(&mut self, name: &str, asked: i64, password: &[u8]) -> Result<String> {
        let connection = self.connection(name)?;
        let frame = match connection.receive(FRAME_DEADLINE)? {
            Ok(frame) => frame,
            Err(instead) => return Ok(instead.to_owned()),
        };
        let (text, id, given) = self.show_handshake(asked, password, &frame)?;
        if id != 0 && id != asked {
            self.names.add_session(id, name);
            self.passwords.insert(id, given);
        }
        Ok(text)
    }

    /// The answer as text, the session's id and its password.
    fn show_handshake(
        &self,
        asked: i64,
        password: &[u8],
        frame: &[u8],
    ) -> Result<(String, i64, Vec<u8>)> {
        let mut fields = Fields(frame);
        let (version, timeout, session) = (fields.int()?, fields.int()?, fields.long()?);
        let given = fields.buffer()?.context("no password")?.to_vec();
        let mut text = format!("timeout={timeout} session=");
        text += &match session {
            0 => "none".to_owned(),
            id if id == asked => self.names.session(id),
            id if !self.sessions().contains_key(&id) => "new".to_owned(),
            id => format!("{} in place of it", self.names.session(id)),
        };
        text += if given.iter().all(|byte| *byte == 0) {
            " password=zero"
        } else if given == password {
            " password=same"
        } else {
            " password=new"
        };
        if given.len() != 16 {
            text += &format!("({} bytes)", given.len());
        }
        if version != 0 {
            text += &format!(" protocol={version}");
        }
        text += match fields.0 {
            [] => " readonly=none",
            [0] => " readonly=false",
            [1] => " readonly=true",
            _ => " readonly=?",
        };
        Ok((text, session, given))
    }

    /// Sends a request and prints what comes up to its reply.
    fn request(&mut self, name: &str, request: &Request) -> Result<String> {
        let connection = self.connection(name)?;
        connection.send(request);
        if connection.holds() {
            return Ok(String::new());
        }
        self.replies(name)
    }

    /// Prints what comes until nothing is unanswered.
    fn replies(&mut self, name: &str) -> Result<String> {
        let mut lines = Vec::new();
        while self.connection(name)?.unanswered() > 0 {
            let (line, frame) = self.next(name)?;
            lines.push(line);
            if frame.is_none() {
                break;
            }
        }
        Ok(listed(&lines))
    }

    /// What comes next as text, and the frame if it is one: then more can come.
    fn next(&mut self, name: &str) -> Result<(String, Option<Vec<u8>>)> {
        // Beside the names, so not by `connection`.
        let connection = self.connections.get_mut(name);
        let connection = connection.with_context(|| format!("no connection {name:?}"))?;
        Ok(match connection.receive(FRAME_DEADLINE)? {
            Ok(frame) => (connection.show(&mut self.names, &frame), Some(frame)),
            Err(instead) => (instead.to_owned(), None),
        })
    }

    /// What a script does with a connection besides sending requests.
    fn converse(&mut self, name: &str, command: &str, args: &mut Args) -> Result<String> {
        if command == "log-in" {
            return self.log_in(name, args);
        }
        let connection = self.connection(name)?;
        match command {
            "hold" => connection.hold(),
            "flush" => {
                connection.flush();
                if args.is_empty() {
                    return self.replies(name);
                }
                return self.receive(name, args);
            }
            "zxids" => connection.shows_event_zxids = true,
            "bytes" => connection.send_bytes(&args.bytes()?),
            "frame" => connection.send_frame(&args.bytes()?),
            "text" => {
                let answer = connection.receive_all(FRAME_DEADLINE)?;
                let answer = answer.context("the connection stays open")?;
                return Ok(String::from_utf8_lossy(&answer).into_owned());
            }
            "handshake" => return self.receive_handshake(name, 0, &[0; 16]),
            "drop" => {
                self.connections.remove(name);
            }
            "receive" => return self.receive(name, args),
            "shut" => {
                let mut lines = Vec::new();
                loop {
                    let (line, frame) = self.next(name)?;
                    lines.push(line);
                    if frame.is_none() {
                        return Ok(listed(&lines));
                    }
                }
            }
            other => bail!("no such command: {other}"),
        }
        Ok(String::new())
    }

    /// The next frames, however many are asked for.
    fn receive(&mut self, name: &str, args: &mut Args) -> Result<String> {
        let sorted = args.flag("sorted");
        let count = args.optional_word().map_or(Ok(1), |word| word.parse())?;
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(self.next(name)?.0);
        }
        if sorted {
            lines.sort_unstable();
        }
        Ok(listed(&lines))
    }

    /// Starts one more member, which has to be the next by name.
    fn start(&mut self, name: &str) -> Result<String> {
        let cluster = self.cluster.as_mut().context("no say over the members")?;
        let _within = self.runtime.enter();
        let server = cluster.start_joiner()?;
        let member = cluster.members.last().context("just started")?;
        ensure!(member.name == name, "the next is {}", member.name);
        self.ports.push(member.zookeeper_port);
        self.names.add_server(name, server);
        Ok(String::new())
    }

    /// `kill 2`, `restart 2` (or `all`), and `await ready`.
    fn fault(&mut self, name: &str, args: &mut Args) -> Result<String> {
        let word = args.word()?;
        let cluster = self.cluster.as_mut().context("no say over the members")?;
        if name == "await" {
            let awaited = async {
                match word.as_str() {
                    "ready" => cluster.await_ready().await,
                    number => cluster.await_listening(number.parse::<usize>()? - 1).await,
                }
            };
            self.runtime.block_on(awaited)?;
            return Ok(String::new());
        }
        let count = cluster.members.len();
        let members = if word == "all" {
            0..count
        } else {
            let index = (word.parse::<usize>()? - 1) % count;
            index..index + 1
        };
        reboot(cluster, name, members)?;
        Ok(String::new())
    }
}

impl Runner for Session<'_> {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let reply = self.command(command)?;
        Ok(shown(command, reply))
    }
}

/// One line, or several below each other.
fn listed(lines: &[String]) -> String {
    match lines {
        [] => String::new(),
        [line] => line.clone(),
        lines => format!("\n  {}", lines.join("\n  ")),
    }
}
