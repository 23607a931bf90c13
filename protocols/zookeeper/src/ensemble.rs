//! The members as ZooKeeper's clients see and change them: the text of `/zookeeper/config`, and what
//! a reconfig asks for. Pure.
//!
//! A member is a server of that number. Its peers reach it at one port, where ZooKeeper has two that
//! must differ: the second is kept as it was given, and is the one beside the first where none was.

use crate::errors::Code;
use crate::record::Reconfig;
use crate::stat::Stat;
use gateway::{Description, Member, MemberRefusal, NewMember, Version};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The members, and which of those that followed each other.
#[derive(Clone, Debug)]
pub struct Ensemble {
    /// Which ones.
    pub version: Version,
    /// The members.
    pub members: Vec<Member>,
    /// A single one is none, but a server that stands alone: `standaloneEnabled`.
    pub standalone_enabled: bool,
}

/// One step from the members that are to those that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This member goes.
    Remove(u64),
    /// One comes.
    Add(NewMember),
    /// This one gets its vote.
    Promote(u64),
    /// One is reached elsewhere.
    Describe(Description),
}

/// A server as a configuration spells it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    /// `host:port` for its peers.
    peer: String,
    /// The port that ZooKeeper's servers elect a leader at.
    second_port: u16,
    observer: bool,
    /// Where clients reach it.
    stream_urls: Vec<String>,
}

impl Ensemble {
    /// Whether there is but one server, which ZooKeeper does not count as an ensemble.
    pub fn is_standalone(&self) -> bool {
        self.standalone_enabled && self.members.len() == 1
    }

    /// What `/zookeeper/config` holds.
    pub fn config(&self) -> String {
        let mut text = String::new();
        if self.is_standalone() {
            return text;
        }
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by_key(|member| member.number);
        for member in members {
            if let Some(server) = Server::of(member) {
                let (number, server) = (member.number, server.spelled());
                writeln!(text, "server.{number}={server}").expect("a string takes it");
            }
        }
        write!(text, "version={:x}", self.version.number).expect("a string takes it");
        text
    }

    /// The stat of `/zookeeper/config`.
    pub fn stat(&self) -> Stat {
        let standalone = self.is_standalone();
        Stat {
            mzxid: self.version.number.cast_signed(),
            mtime: self.version.since.0.cast_signed(),
            version: if standalone { 0 } else { -1 },
            aversion: -1,
            data_length: crate::jute::length(self.config().len()),
            ..Stat::default()
        }
    }

    /// The steps of a reconfig, in their order: who goes, goes first, but for the member that takes the
    /// steps. It is gone with its own, and could not take the others.
    pub fn plan(&self, asked: &Reconfig<'_>, here: u64) -> Result<Vec<Change>, Code> {
        if self.is_standalone() {
            return Err(Code::Unimplemented);
        }
        if asked.from != -1 && asked.from != self.version.number.cast_signed() {
            return Err(Code::BadVersion);
        }
        let wanted = match asked.members {
            Some(members) => parse_members(members)?,
            None => self.joined_and_left(asked)?,
        };
        let voters = wanted.values().filter(|server| !server.observer).count();
        if voters < if self.standalone_enabled { 2 } else { 1 } {
            return Err(Code::BadArguments);
        }
        // What is refused halfway stays done; so it is not begun if it cannot end well.
        let started = |number: &u64| {
            let mut members = self.members.iter();
            members.any(|member| member.number == *number && !member.name.is_empty())
        };
        let votes = wanted.iter().filter(|(_, server)| !server.observer);
        if votes.filter(|(number, _)| started(number)).count() <= voters / 2 {
            return Err(Code::NewConfigNoQuorum);
        }
        let mut changes = self.changes(&wanted)?;
        changes.sort_by_key(|change| *change == Change::Remove(here));
        match changes.is_empty() {
            true => Ok(self.restated()),
            false => Ok(changes),
        }
    }

    /// A change of nothing: ZooKeeper makes a new configuration of one that is the same, too.
    fn restated(&self) -> Vec<Change> {
        let first = self.members.first().map(|member| Description {
            id: member.id,
            peer_urls: Some(member.peer_urls.clone()),
            ..Description::default()
        });
        first.map(Change::Describe).into_iter().collect()
    }

    fn servers(&self) -> BTreeMap<u64, Server> {
        let servers = self.members.iter();
        servers
            .filter_map(|member| Some((member.number, Server::of(member)?)))
            .collect()
    }

    fn joined_and_left(&self, asked: &Reconfig<'_>) -> Result<BTreeMap<u64, Server>, Code> {
        let mut servers = self.servers();
        for leaving in split(asked.leaving.unwrap_or_default(), ',') {
            // Whoever is none of them has left already.
            servers.remove(&number(leaving)?);
        }
        for joining in split(asked.joining.unwrap_or_default(), ',') {
            let parts: Vec<&str> = split(joining, '=').collect();
            let &[name, server] = &parts[..] else {
                return Err(Code::BadArguments);
            };
            let name = name.rsplit('.').next().unwrap_or_default();
            let server = Server::parse(server)?;
            if server.stream_urls.is_empty() {
                return Err(Code::BadArguments);
            }
            servers.insert(number(name)?, server);
        }
        Ok(servers)
    }

    fn changes(&self, wanted: &BTreeMap<u64, Server>) -> Result<Vec<Change>, Code> {
        let left = self.members.iter();
        let left = left.filter(|member| !wanted.contains_key(&member.number));
        let mut changes: Vec<Change> = left.map(|member| Change::Remove(member.id)).collect();
        for (number, server) in wanted {
            match self.members.iter().find(|member| member.number == *number) {
                None => changes.push(Change::Add(NewMember {
                    peer_urls: vec![self.peer_url(server)],
                    learner: server.observer,
                    number: Some(*number),
                    stream_urls: server.stream_urls.clone(),
                    second_port: Some(server.second_port),
                    after: None,
                })),
                Some(member) => changes.extend(self.changed(member, server)?),
            }
        }
        Ok(changes)
    }

    /// The steps from a member that is to what it is to be.
    fn changed(&self, member: &Member, server: &Server) -> Result<Vec<Change>, Code> {
        let is = Server::of(member).ok_or(Code::BadArguments)?;
        let mut changes = Vec::new();
        // A vote is not taken back: the member would have to go and come again.
        if server.observer && !is.observer {
            return Err(Code::BadArguments);
        }
        let peer_urls = match is.peer == server.peer {
            // There may be more of them than the one that is shown.
            true => member.peer_urls.clone(),
            false => vec![self.peer_url(server)],
        };
        let observer = server.observer;
        if *server != (Server { observer, ..is }) {
            changes.push(Change::Describe(Description {
                id: member.id,
                peer_urls: Some(peer_urls),
                stream_urls: Some(server.stream_urls.clone()),
                second_port: Some(server.second_port),
                ..Description::default()
            }));
        }
        if is.observer && !server.observer {
            changes.push(Change::Promote(member.id));
        }
        Ok(changes)
    }

    /// Peers speak to all members alike, with TLS or without.
    fn peer_url(&self, server: &Server) -> String {
        let urls = self.members.iter().flat_map(|member| &member.peer_urls);
        let scheme = urls.filter_map(|url| url.split_once("://")).next();
        let scheme = scheme.map_or("http", |(scheme, _)| scheme);
        format!("{scheme}://{}", server.peer)
    }
}

impl Server {
    /// None of a member that is not reached by host and port.
    fn of(member: &Member) -> Option<Server> {
        let (_, peer) = member.peer_urls.first()?.split_once("://")?;
        let (_, port) = host_and_port(peer)?;
        let beside = port.checked_add(1).unwrap_or(port - 1);
        Some(Server {
            peer: peer.to_owned(),
            second_port: member.second_port.unwrap_or(beside),
            observer: member.learner,
            stream_urls: member.stream_urls.clone(),
        })
    }

    fn spelled(&self) -> String {
        let role = if self.observer {
            "observer"
        } else {
            "participant"
        };
        let mut text = format!("{}:{}:{role}", self.peer, self.second_port);
        let at = |scheme: &str| {
            let mut urls = self.stream_urls.iter();
            urls.find_map(|url| url.strip_prefix(scheme)?.strip_prefix("://"))
        };
        let (plain, secure) = (at("tcp"), at("tls"));
        if plain.is_some() || secure.is_some() {
            text.push(';');
            text.push_str(plain.unwrap_or_default());
        }
        if let Some(secure) = secure {
            text.push(';');
            text.push_str(secure);
        }
        text
    }

    /// `host:port:port[:role][;[host:]port[;[host:]port]]`: for peers, for elections, for clients and
    /// for clients that use TLS.
    fn parse(text: &str) -> Result<Server, Code> {
        let mut parts = text.split(';');
        let peers = parts.next().unwrap_or_default();
        let (host, ports) = host_and_rest(peers).ok_or(Code::BadArguments)?;
        let ports: Vec<&str> = ports.split(':').collect();
        let (peer, election, role) = match &ports[..] {
            [peer, election] => (port(peer)?, port(election)?, "participant"),
            [peer, election, role] => (port(peer)?, port(election)?, *role),
            _ => return Err(Code::BadArguments),
        };
        let observer = match role.trim().to_ascii_lowercase().as_str() {
            "participant" => false,
            "observer" => true,
            _ => return Err(Code::BadArguments),
        };
        if peer == election {
            return Err(Code::BadArguments);
        }
        let mut stream_urls = Vec::new();
        for (scheme, place) in ["tcp", "tls"].into_iter().zip(parts.by_ref()) {
            if !place.is_empty() {
                let (at, port) = client_place(place, host)?;
                stream_urls.push(format!("{scheme}://{at}:{port}"));
            }
        }
        Ok(Server {
            peer: format!("{host}:{peer}"),
            second_port: election,
            observer,
            stream_urls,
        })
    }
}

/// Where clients reach a server: a port alone, or at every address, means where its peers do.
fn client_place<'a>(text: &'a str, host: &'a str) -> Result<(&'a str, u16), Code> {
    match host_and_rest(text) {
        None => Ok((host, port(text)?)),
        Some(("0.0.0.0" | "[::]", rest)) => Ok((host, port(rest)?)),
        Some((at, rest)) => Ok((at, port(rest)?)),
    }
}

/// `server.N=...` in lines, or separated by commas.
fn parse_members(text: &str) -> Result<BTreeMap<u64, Server>, Code> {
    let mut servers = BTreeMap::new();
    let lines = text.split([',', '\n']).map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with(['#', '!'])) {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        match key.trim().strip_prefix("server.") {
            Some(name) => drop(servers.insert(number(name)?, Server::parse(value.trim())?)),
            None if key.trim() == "version" => {}
            // Groups and weights among them: every vote counts the same here.
            None => return Err(Code::BadArguments),
        }
    }
    Ok(servers)
}

/// The parts between separators, without those of nothing.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let parts = text.split(separator).map(str::trim);
    parts.filter(|part| !part.is_empty())
}

/// A server's number. ZooKeeper trips over what is none.
fn number(text: &str) -> Result<u64, Code> {
    let number: i64 = text.parse().map_err(|_| Code::MarshallingError)?;
    u64::try_from(number).map_err(|_| Code::BadArguments)
}

fn port(text: &str) -> Result<u16, Code> {
    text.parse().map_err(|_| Code::BadArguments)
}

/// Splits behind a host, which may be an address in brackets.
fn host_and_rest(text: &str) -> Option<(&str, &str)> {
    let end = if text.starts_with('[') {
        text.find("]:")? + 1
    } else {
        text.find(':')?
    };
    Some((&text[..end], &text[end + 1..]))
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = host_and_rest(text)?;
    Some((host, port.parse().ok().filter(|port| *port > 0)?))
}

/// ZooKeeper's word for why the members did not change.
pub fn code_of(refusal: MemberRefusal) -> Code {
    match refusal {
        MemberRefusal::OtherVersion => Code::BadVersion,
        MemberRefusal::NotEnoughStarted
        | MemberRefusal::Unhealthy
        | MemberRefusal::LearnerNotReady => Code::NewConfigNoQuorum,
        MemberRefusal::IdExists
        | MemberRefusal::PeerUrlExists
        | MemberRefusal::NotFound
        | MemberRefusal::NotLearner
        | MemberRefusal::TooManyLearners
        | MemberRefusal::BadTransferee => Code::BadArguments,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::keyspace::WallMs;

    fn member(number: u64) -> Member {
        Member {
            id: number + 100,
            name: format!("m{number}"),
            peer_urls: vec![format!("http://h{number}:2380")],
            number,
            stream_urls: vec![format!("tcp://h{number}:2181")],
            ..Member::default()
        }
    }

    fn ensemble(count: u64) -> Ensemble {
        Ensemble {
            version: Version {
                number: 26,
                since: WallMs(5),
            },
            members: (1..=count).rev().map(member).collect(),
            standalone_enabled: true,
        }
    }

    fn plan(asked: Reconfig<'_>) -> Result<Vec<Change>, Code> {
        let mut ensemble = ensemble(3);
        ensemble.members.push(Member {
            learner: true,
            ..member(4)
        });
        ensemble.plan(&Reconfig { from: -1, ..asked }, 101)
    }

    fn joining(joining: &str) -> Result<Vec<Change>, Code> {
        plan(Reconfig {
            joining: Some(joining),
            ..Reconfig::default()
        })
    }

    #[test]
    fn the_config_names_every_server() {
        let mut ensemble = ensemble(2);
        ensemble.members[0].learner = true;
        ensemble.members[1].stream_urls = vec!["tls://[::1]:2281".to_owned()];
        ensemble.members[1].second_port = Some(3888);
        assert_eq!(
            ensemble.config(),
            "server.1=h1:2380:3888:participant;;[::1]:2281\n\
             server.2=h2:2380:2381:observer;h2:2181\nversion=1a"
        );
        let stat = ensemble.stat();
        assert_eq!((stat.mzxid, stat.mtime, stat.version), (26, 5, -1));
        ensemble.members.truncate(1);
        assert_eq!(
            (ensemble.config(), ensemble.stat().version),
            (String::new(), 0)
        );
        ensemble.standalone_enabled = false;
        assert!(ensemble.config().starts_with("server.2="));
    }

    #[test]
    fn what_is_configured_can_be_asked_for_again() {
        let ensemble = ensemble(3);
        let config = ensemble.config();
        let asked = Reconfig {
            members: Some(&config),
            from: 26,
            ..Reconfig::default()
        };
        let restated = Description {
            id: 103,
            peer_urls: Some(vec!["http://h3:2380".to_owned()]),
            ..Description::default()
        };
        assert_eq!(
            ensemble.plan(&asked, 101),
            Ok(vec![Change::Describe(restated)]),
            "it makes a new version"
        );
    }

    #[test]
    fn servers_join_and_leave() {
        let asked = Reconfig {
            joining: Some("server.9=h9:1:2;3,"),
            leaving: Some("2, 77"),
            ..Reconfig::default()
        };
        let joined = NewMember {
            peer_urls: vec!["http://h9:1".to_owned()],
            learner: false,
            number: Some(9),
            stream_urls: vec!["tcp://h9:3".to_owned()],
            second_port: Some(2),
            after: None,
        };
        assert_eq!(
            plan(asked),
            Ok(vec![Change::Remove(102), Change::Add(joined)])
        );
        let itself = Reconfig {
            joining: Some("server.4=h4:2380:2381:participant;h4:2181"),
            leaving: Some("1"),
            ..Reconfig::default()
        };
        assert_eq!(
            plan(itself),
            Ok(vec![Change::Promote(104), Change::Remove(101)]),
            "whoever takes the steps goes last"
        );
        let promoted = joining("4=h4:2380:2381:PARTICIPANT;h4:2181");
        assert_eq!(promoted, Ok(vec![Change::Promote(104)]));
        let moved = Description {
            id: 101,
            peer_urls: Some(vec!["http://h1:7".to_owned()]),
            stream_urls: Some(vec!["tcp://h1:2181".to_owned()]),
            second_port: Some(8),
            ..Description::default()
        };
        assert_eq!(
            joining("server.1=h1:7:8;0.0.0.0:2181"),
            Ok(vec![Change::Describe(moved)])
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_as_zookeeper_does() {
        for (server, code) in [
            ("server.9=h9:1:2", Code::BadArguments),
            ("server.9", Code::BadArguments),
            ("server.x=h9:1:2;3", Code::MarshallingError),
            ("server.9=h9:1:1;3", Code::BadArguments),
            ("server.9=h9:1:2:leader;3", Code::BadArguments),
            ("server.9=h9:x:2;3", Code::BadArguments),
            ("server.9=[::1;3", Code::BadArguments),
            ("server.1=h1:2380:2381:observer;2181", Code::BadArguments),
            (
                "5=h5:1:2;3,6=h6:1:2;3,7=h7:1:2;3,8=h8:1:2;3",
                Code::NewConfigNoQuorum,
            ),
        ] {
            assert_eq!(joining(server), Err(code), "{server}");
        }
        let leaving = Reconfig {
            leaving: Some("1,2"),
            ..Reconfig::default()
        };
        assert_eq!(plan(leaving), Err(Code::BadArguments));
        let stale = Reconfig {
            from: 25,
            ..Reconfig::default()
        };
        assert_eq!(ensemble(2).plan(&stale, 101), Err(Code::BadVersion));
        assert_eq!(ensemble(1).plan(&stale, 101), Err(Code::Unimplemented));
        let weighted = Reconfig {
            members: Some("server.1=h1:1:2;3\ngroup.1=1"),
            ..Reconfig::default()
        };
        assert_eq!(plan(weighted), Err(Code::BadArguments));
    }
}
