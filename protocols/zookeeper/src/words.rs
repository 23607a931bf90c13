//! Four-letter words: what operators ask a server over a bare socket.

use crate::config::Options;
use crate::figures::{Number, Summary, decimal};
use crate::stats::{Client, Stats};
use crate::tally::Op;
use gateway::Gate;
use gateway::keyspace::command::Range;
use gateway::keyspace::{LeaseId, LeaseView};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

/// The ZooKeeper whose behaviour this adapter has, and which it says it is: some clients choose what
/// to use by it.
pub const ZOOKEEPER_VERSION: &str = "3.9.4";
/// When that was built, in the spelling of ZooKeeper before 3.7: go-zookeeper reads no other, and
/// takes a server whose answer it cannot read for one that is down.
const BUILT_ON: &str = "08/27/2025 12:12 GMT";

/// What a server says that is cut off from the others.
pub const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";

/// The trace mask that ZooKeeper begins with. There are no traces to mask.
pub const TRACE_MASK: u32 = 306;

/// A word that ZooKeeper knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The configuration.
    Conf,
    /// Every connection in full.
    Cons,
    /// Counts of connections from 0.
    Crst,
    /// Sizes on disk.
    Dirs,
    /// Sessions and what ends with them.
    Dump,
    /// The process's surroundings.
    Envi,
    /// The trace mask.
    Gtmk,
    /// Whether there is someone.
    Ruok,
    /// Sets the trace mask.
    Stmk,
    /// Counts from 0.
    Srst,
    /// The server in brief.
    Srvr,
    /// The server and its connections in brief.
    Stat,
    /// Watches by session.
    Wchc,
    /// Watches by path.
    Wchp,
    /// How many watches.
    Wchs,
    /// Figures for monitoring.
    Mntr,
    /// Whether writes are taken.
    Isro,
    /// Digests of the state.
    Hash,
}

impl Word {
    /// The word that the first bytes of a connection are, if they are one.
    pub fn of(bytes: &[u8]) -> Option<Word> {
        Some(match bytes.get(..4)? {
            b"conf" => Word::Conf,
            b"cons" => Word::Cons,
            b"crst" => Word::Crst,
            b"dirs" => Word::Dirs,
            b"dump" => Word::Dump,
            b"envi" => Word::Envi,
            b"gtmk" => Word::Gtmk,
            b"ruok" => Word::Ruok,
            b"stmk" => Word::Stmk,
            b"srst" => Word::Srst,
            b"srvr" => Word::Srvr,
            b"stat" => Word::Stat,
            b"wchc" => Word::Wchc,
            b"wchp" => Word::Wchp,
            b"wchs" => Word::Wchs,
            b"mntr" => Word::Mntr,
            b"isro" => Word::Isro,
            b"hash" => Word::Hash,
            _ => return None,
        })
    }

    /// Whether a server that is cut off from the others does not answer it.
    fn needs_leader(self) -> bool {
        match self {
            Word::Envi | Word::Gtmk | Word::Isro | Word::Ruok | Word::Stmk => false,
            Word::Conf
            | Word::Cons
            | Word::Crst
            | Word::Dirs
            | Word::Dump
            | Word::Srst
            | Word::Srvr
            | Word::Stat
            | Word::Wchc
            | Word::Wchp
            | Word::Wchs
            | Word::Mntr
            | Word::Hash => true,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Word::Conf => "conf",
            Word::Cons => "cons",
            Word::Crst => "crst",
            Word::Dirs => "dirs",
            Word::Dump => "dump",
            Word::Envi => "envi",
            Word::Gtmk => "gtmk",
            Word::Ruok => "ruok",
            Word::Stmk => "stmk",
            Word::Srst => "srst",
            Word::Srvr => "srvr",
            Word::Stat => "stat",
            Word::Wchc => "wchc",
            Word::Wchp => "wchp",
            Word::Wchs => "wchs",
            Word::Mntr => "mntr",
            Word::Isro => "isro",
            Word::Hash => "hash",
        }
    }
}

/// What words are answered from.
pub struct Office<'a> {
    /// The state.
    pub gate: &'a Gate,
    /// The settings.
    pub options: &'a Options,
    /// The counts.
    pub stats: &'a Stats,
    /// Whether it only serves clients that only read.
    pub read_only: bool,
}

impl Office<'_> {
    /// The answer to a word.
    pub fn answer(&self, word: Word) -> String {
        let name = word.name();
        if !self.options.allows(name) {
            return format!("{name} is not executed because it is not in the whitelist.\n");
        }
        if word.needs_leader() && self.is_cut_off() {
            return NOT_SERVING.to_owned();
        }
        let mut out = String::new();
        let written = self.write(word, &mut out);
        written.expect("writing to a string never fails");
        out
    }

    /// Whether nobody is served.
    pub fn is_cut_off(&self) -> bool {
        self.gate.status().leader == 0 && !self.read_only
    }

    fn write(&self, word: Word, out: &mut String) -> std::fmt::Result {
        match word {
            Word::Conf => self.configuration(out),
            Word::Cons => self.connections(out, false),
            Word::Crst => {
                self.reset_connections();
                writeln!(out, "Connection stats reset.")
            }
            Word::Dirs => self.directories(out),
            Word::Dump => self.sessions(out),
            Word::Envi => {
                writeln!(out, "Environment:")?;
                environment()
                    .iter()
                    .try_for_each(|(name, value)| writeln!(out, "{name}={value}"))
            }
            Word::Gtmk | Word::Stmk => write!(out, "{TRACE_MASK}"),
            Word::Ruok => write!(out, "imok"),
            Word::Srst => {
                self.stats.reset();
                writeln!(out, "Server stats reset.")
            }
            Word::Srvr => {
                version(out)?;
                self.summary(out)
            }
            Word::Stat => {
                version(out)?;
                writeln!(out, "Clients:")?;
                self.connections(out, true)?;
                self.summary(out)
            }
            Word::Wchc => self.watch_lists(out, false),
            Word::Wchp => self.watch_lists(out, true),
            Word::Wchs => self.watch_summary(out),
            Word::Mntr => self.monitor(out),
            Word::Isro if self.read_only => write!(out, "ro"),
            Word::Isro if self.gate.status().leader == 0 => write!(out, "null"),
            Word::Isro => write!(out, "rw"),
            // No history of digests is kept.
            Word::Hash => Ok(()),
        }
    }

    /// Lets each connection count from 0.
    pub fn reset_connections(&self) {
        for client in self.stats.clients() {
            client.reset();
        }
    }

    /// For how long it serves.
    pub fn uptime_ms(&self) -> u64 {
        u64::try_from(self.stats.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether there is no ensemble, but a server that stands alone.
    pub fn is_alone(&self) -> bool {
        self.options.standalone && self.gate.members().len() == 1
    }

    /// The number by which ZooKeeper's clients know a member; 0 for none, and for a server that
    /// stands alone.
    pub fn number_of(&self, member: u64) -> u64 {
        if self.is_alone() {
            return 0;
        }
        let members = self.gate.members();
        let found = members.iter().find(|it| it.id == member);
        found.map_or(0, |it| it.number)
    }

    /// What ZooKeeper would call this member.
    pub fn mode(&self) -> &'static str {
        let status = self.gate.status();
        if self.read_only {
            "read-only"
        } else if self.is_alone() {
            "standalone"
        } else if status.learner {
            "observer"
        } else if status.leader == status.member {
            "leader"
        } else {
            "follower"
        }
    }
}

/// Nodes that are always there, as ZooKeeper counts them: the root twice, and its own three.
const NODES_MIN: u64 = 5;

impl Office<'_> {
    /// How many nodes there are, as ZooKeeper counts them.
    pub fn node_count(&self) -> u64 {
        let everything = Range {
            count_only: true,
            ..Range::of(self.options.mount.span())
        };
        let keys = self.gate.reader().range(&everything);
        keys.map_or(0, |keys| keys.count) + NODES_MIN
    }

    fn summary(&self, out: &mut String) -> std::fmt::Result {
        let traffic = &self.stats.traffic;
        writeln!(
            out,
            "Latency min/avg/max: {}/{}/{}",
            traffic.latency.min_ms(),
            decimal(traffic.latency.mean_ms()),
            traffic.latency.max_ms()
        )?;
        writeln!(out, "Received: {}", traffic.received.load(Relaxed))?;
        writeln!(out, "Sent: {}", traffic.sent.load(Relaxed))?;
        writeln!(out, "Connections: {}", self.stats.connections())?;
        writeln!(out, "Outstanding: 0")?;
        writeln!(out, "Zxid: {:#x}", self.gate.reader().revision().0)?;
        writeln!(out, "Mode: {}", self.mode())?;
        writeln!(out, "Node count: {}", self.node_count())
    }

    fn connections(&self, out: &mut String, brief: bool) -> std::fmt::Result {
        for client in self.stats.clients() {
            connection(out, &client, brief)?;
        }
        writeln!(out)
    }

    fn configuration(&self, out: &mut String) -> std::fmt::Result {
        let options = self.options;
        writeln!(out, "clientPort={}", port(options.client_port))?;
        writeln!(out, "secureClientPort={}", port(options.secure_client_port))?;
        // Log and snapshots lie in one place.
        let bytes = self.gate.space().total_bytes;
        writeln!(out, "dataDir={}", options.data_dir)?;
        writeln!(out, "dataDirSize={bytes}")?;
        writeln!(out, "dataLogDir={}", options.data_dir)?;
        writeln!(out, "dataLogSize={bytes}")?;
        writeln!(out, "tickTime={}", options.tick.as_millis())?;
        writeln!(
            out,
            "maxClientCnxns={}",
            options.connections_per_address_max
        )?;
        writeln!(
            out,
            "minSessionTimeout={}",
            options.timeout_min().as_millis()
        )?;
        writeln!(
            out,
            "maxSessionTimeout={}",
            options.timeout_max().as_millis()
        )?;
        writeln!(out, "clientPortListenBacklog=-1")?;
        writeln!(
            out,
            "serverId={}",
            self.number_of(self.gate.status().member)
        )
    }

    fn directories(&self, out: &mut String) -> std::fmt::Result {
        let bytes = self.gate.space().total_bytes;
        writeln!(out, "datadir_size: {bytes}")?;
        writeln!(out, "logdir_size: {bytes}")
    }

    /// Sessions, with what ends with each.
    fn sessions(&self, out: &mut String) -> std::fmt::Result {
        let leases = self.gate.reader().leases();
        let sessions: Vec<_> = leases.iter().filter(|lease| lease.is_session()).collect();
        writeln!(out, "SessionTracker dump:")?;
        writeln!(out, "Session Sets (1)/({}):", sessions.len())?;
        for session in sessions {
            writeln!(out, "\t{:#x}", session.lease.0)?;
        }
        let bound = self.bound(&leases);
        writeln!(out, "ephemeral nodes dump:")?;
        writeln!(out, "Sessions with Ephemerals ({}):", bound.len())?;
        for (lease, paths) in bound {
            writeln!(out, "{:#x}:", lease.0)?;
            for path in paths {
                writeln!(out, "\t{path}")?;
            }
        }
        let clients = self.stats.clients();
        writeln!(out, "Connections dump:")?;
        writeln!(out, "Connections Sets (1)/({}):", clients.len())?;
        for client in clients {
            let session = client.session.load(Relaxed);
            writeln!(out, "\tip: /{} sessionId: {session:#x}", client.peer)?;
        }
        Ok(())
    }

    /// The nodes that end with a lease, by leases that have any.
    pub fn bound(&self, leases: &[LeaseView]) -> Vec<(LeaseId, Vec<String>)> {
        let reader = self.gate.reader();
        let path = |key: &[u8]| self.options.mount.shown(key).map(Cow::into_owned);
        let bound = leases.iter().map(|view| {
            let mut paths = Vec::new();
            reader.for_lease_keys(view.lease, |key| paths.extend(path(key)));
            (view.lease, paths)
        });
        bound.filter(|(_, paths)| !paths.is_empty()).collect()
    }

    /// Which session watches which paths. As ZooKeeper tells it, watches of children are left out.
    pub fn watches(&self) -> Vec<(LeaseId, String)> {
        let pairs = self.gate.hub().nodes().watches().into_iter();
        let shown = pairs.map(|(session, key)| {
            let path = self.options.mount.shown(&key);
            let path = path.unwrap_or_else(|| String::from_utf8_lossy(&key));
            (session, path.into_owned())
        });
        shown.collect()
    }

    fn watch_lists(&self, out: &mut String, by_path: bool) -> std::fmt::Result {
        let mut lists = BTreeMap::<String, Vec<String>>::new();
        for (session, path) in self.watches() {
            let session = format!("{:#x}", session.0);
            let (key, item) = if by_path {
                (path, session)
            } else {
                (session, path)
            };
            lists.entry(key).or_default().push(item);
        }
        for (key, items) in lists {
            writeln!(out, "{key}")?;
            for item in items {
                writeln!(out, "\t{item}")?;
            }
        }
        writeln!(out)
    }

    /// Sessions that watch, paths that are watched, and watches.
    pub fn watch_counts(&self) -> (usize, usize, usize) {
        let watches = self.gate.hub().nodes().watches();
        let sessions: BTreeSet<_> = watches.iter().map(|(session, _)| session).collect();
        let paths: BTreeSet<_> = watches.iter().map(|(_, path)| path).collect();
        (sessions.len(), paths.len(), watches.len())
    }

    fn watch_summary(&self, out: &mut String) -> std::fmt::Result {
        let (sessions, paths, watches) = self.watch_counts();
        writeln!(out, "{sessions} connections watching {paths} paths")?;
        writeln!(out, "Total watches:{watches}")
    }

    fn monitor(&self, out: &mut String) -> std::fmt::Result {
        let figures = self.figures();
        let mut figure =
            |name: &str, value: &dyn std::fmt::Display| writeln!(out, "zk_{name}\t{value}");
        figure("version", &version_text())?;
        figure("server_state", &self.mode())?;
        for (name, value) in &figures.gauges {
            figure(name, value)?;
        }
        for (name, value) in &figures.counters {
            figure(name, value)?;
        }
        for summary in &figures.summaries {
            for (name, value) in spelled(summary) {
                figure(&name, &value)?;
            }
        }
        figure("cnt_election_time", &figures.elections)
    }
}

/// A summary as ZooKeeper's own monitoring spells it: one figure for each of its sides.
pub fn spelled(summary: &Summary) -> Vec<(String, Number)> {
    let name = summary.name;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole milliseconds are shown"
    )]
    let whole = |value: f64| Number::Count(value as u64);
    let mut figures = vec![(format!("avg_{name}"), Number::Mean(summary.mean()))];
    if let Some((min, max)) = summary.bounds {
        figures.push((format!("min_{name}"), min.into()));
        figures.push((format!("max_{name}"), max.into()));
    }
    figures.push((format!("cnt_{name}"), summary.count.into()));
    figures.push((format!("sum_{name}"), whole(summary.sum)));
    for (part, value) in &summary.quantiles {
        figures.push((format!("p{}_{name}", part * 100.0), whole(*value)));
    }
    figures
}

/// A port, as those that are not open are shown.
fn port(port: Option<u16>) -> i64 {
    port.map_or(-1, i64::from)
}

/// What `zookeeper.version` is.
pub fn version_text() -> String {
    let own = env!("CARGO_PKG_VERSION");
    format!("{ZOOKEEPER_VERSION}-triglot-{own}, built on {BUILT_ON}")
}

fn version(out: &mut String) -> std::fmt::Result {
    writeln!(out, "Zookeeper version: {}", version_text())
}

/// What of the process's surroundings is told.
pub fn environment() -> [(&'static str, String); 3] {
    [
        ("zookeeper.version", version_text()),
        ("os.name", std::env::consts::OS.to_owned()),
        ("os.arch", std::env::consts::ARCH.to_owned()),
    ]
}

fn connection(out: &mut String, client: &Client, brief: bool) -> std::fmt::Result {
    let traffic = &client.traffic;
    let (received, sent) = (traffic.received.load(Relaxed), traffic.sent.load(Relaxed));
    let session = client.session.load(Relaxed);
    // What ZooKeeper's selector waits for: a client that asks for a word is not read from again.
    let reading = u8::from(session != 0);
    write!(
        out,
        " /{}[{reading}](queued=0,recved={received},sent={sent}",
        client.peer
    )?;
    if !brief && session != 0 {
        write!(
            out,
            ",sid={session:#x},lop={},est={},to={}",
            client.last_op().map_or("NA", Op::brief),
            client.established_ms,
            client.timeout_ms.load(Relaxed)
        )?;
        let last_xid = client.last_xid.load(Relaxed);
        if last_xid >= 0 {
            write!(out, ",lcxid={last_xid:#x}")?;
        }
        write!(
            out,
            ",lzxid={:#x},lresp={},llat={},minlat={},avglat={:.0},maxlat={}",
            client.last_revision.load(Relaxed),
            client.last_response_ms.load(Relaxed),
            client.last_latency_ms.load(Relaxed),
            traffic.latency.min_ms(),
            traffic.latency.mean_ms(),
            traffic.latency.max_ms()
        )?;
    }
    writeln!(out, ")")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_from_lengths() {
        assert_eq!(Word::of(b"ruok\n"), Some(Word::Ruok));
        assert_eq!(Word::of(b"ruo"), None);
        assert_eq!(Word::of(b"\0\0\0\x2d"), None);
        assert_eq!(Word::of(b"quit"), None);
    }
}
