//! The commands of ZooKeeper's AdminServer: what the four-letter words tell, as JSON. Whoever serves
//! HTTP asks for them by name.
//!
//! Commands that are about ZooKeeper's own files (`snapshot`, `restore`, `last_snapshot`) are unknown
//! here: etcd's maintenance calls are what backups are made with.

use crate::figures::Number;
use crate::stats::Client;
use crate::words::{NOT_SERVING, Office, TRACE_MASK, environment, spelled, version_text};
use gateway::Member;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// Declares the commands, each with its names: the first is shown, the others are older.
macro_rules! commands {
    ($($command:ident = $name:literal $(| $other:literal)*;)*) => {
        /// A command.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "ZooKeeper's names say what they are")]
        pub enum Command { $($command),* }

        impl Command {
            /// Every command.
            pub const ALL: &[Command] = &[$(Command::$command),*];

            /// The command of a name.
            pub fn of(name: &str) -> Option<Command> {
                match name {
                    $($name $(| $other)* => Some(Command::$command),)*
                    _ => None,
                }
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Command::$command => $name),* }
            }
        }
    };
}

commands! {
    Configuration = "configuration" | "conf" | "config";
    ConnectionStatReset = "connection_stat_reset" | "crst";
    Connections = "connections" | "cons";
    Dirs = "dirs";
    Dump = "dump";
    Environment = "environment" | "env" | "envi";
    GetTraceMask = "get_trace_mask" | "gtmk";
    Hash = "hash";
    InitialConfiguration = "initial_configuration" | "icfg";
    IsReadOnly = "is_read_only" | "isro";
    Leader = "leader" | "lead";
    Monitor = "monitor" | "mntr";
    ObserverConnectionStatReset = "observer_connection_stat_reset" | "orst";
    Observers = "observers" | "obsr";
    Ruok = "ruok";
    ServerStats = "server_stats" | "srvr";
    StatReset = "stat_reset" | "srst";
    Stats = "stats" | "stat";
    SystemProperties = "system_properties" | "sysp";
    VotingView = "voting_view";
    WatchSummary = "watch_summary" | "wchs";
    Watches = "watches" | "wchc";
    WatchesByPath = "watches_by_path" | "wchp";
    Zabstate = "zabstate";
}

impl Command {
    /// Whether a member that is cut off from the others does not answer it.
    fn needs_leader(self) -> bool {
        match self {
            Command::Environment
            | Command::GetTraceMask
            | Command::Monitor
            | Command::SystemProperties
            | Command::Zabstate => false,
            Command::Configuration
            | Command::ConnectionStatReset
            | Command::Connections
            | Command::Dirs
            | Command::Dump
            | Command::Hash
            | Command::InitialConfiguration
            | Command::IsReadOnly
            | Command::Leader
            | Command::ObserverConnectionStatReset
            | Command::Observers
            | Command::Ruok
            | Command::ServerStats
            | Command::StatReset
            | Command::Stats
            | Command::VotingView
            | Command::WatchSummary
            | Command::Watches
            | Command::WatchesByPath => true,
        }
    }
}

/// Answers of several fields, or why there are none.
type Answer = Result<Value, &'static str>;

impl Office<'_> {
    /// What a command answers, in JSON. There is an answer to every name.
    pub fn command(&self, name: &str) -> Value {
        let (name, answer) = match Command::of(name) {
            None => (name, Err(format!("Unknown command: {name}"))),
            Some(command) => {
                let cut_off = command.needs_leader() && self.is_cut_off();
                let answer = match cut_off {
                    true => Err(NOT_SERVING.trim_end()),
                    false => self.answer_command(command),
                };
                (command.name(), answer.map_err(str::to_owned))
            }
        };
        let (mut fields, error) = match answer {
            Ok(Value::Object(fields)) => (fields, Value::Null),
            Ok(_) => (Map::new(), Value::Null),
            Err(error) => (Map::new(), error.into()),
        };
        fields.insert("command".to_owned(), name.into());
        fields.insert("error".to_owned(), error);
        fields.into()
    }

    fn answer_command(&self, command: Command) -> Answer {
        let nothing = json!({});
        Ok(match command {
            Command::Configuration => self.show_configuration(),
            Command::ConnectionStatReset => {
                self.reset_connections();
                nothing
            }
            Command::Connections => self.show_connections(connection_in_full),
            Command::Dirs => {
                let bytes = self.gate.space().total_bytes;
                json!({ "datadir_size": bytes, "logdir_size": bytes })
            }
            Command::Dump => self.show_sessions(),
            Command::Environment => Value::Object(
                environment()
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.into()))
                    .collect(),
            ),
            Command::GetTraceMask => json!({ "tracemask": TRACE_MASK }),
            // No history of digests is kept.
            Command::Hash => json!({ "digests": [] }),
            Command::InitialConfiguration => {
                json!({ "initial_configuration": self.options.initial_configuration })
            }
            Command::IsReadOnly => json!({ "read_only": self.read_only }),
            Command::Leader => return self.show_leader(),
            Command::Monitor => self.show_figures(),
            // Observers keep no counts of their own here.
            Command::ObserverConnectionStatReset | Command::SystemProperties => nothing,
            Command::Observers => self.show_observers(),
            Command::Ruok => nothing,
            Command::ServerStats => Value::Object(self.show_stats()),
            Command::StatReset => {
                self.stats.reset();
                nothing
            }
            Command::Stats => {
                let mut fields = self.show_stats();
                let connections = self.show_connections(connection_in_brief);
                fields.extend(connections.as_object().cloned().unwrap_or_default());
                Value::Object(fields)
            }
            Command::VotingView => self.show_voters(),
            Command::WatchSummary => {
                let (sessions, paths, watches) = self.watch_counts();
                json!({
                    "num_connections": sessions,
                    "num_paths": paths,
                    "num_total_watches": watches,
                })
            }
            Command::Watches => {
                let mut paths = BTreeMap::<String, Vec<String>>::new();
                for (session, path) in self.watches() {
                    paths.entry(session.0.to_string()).or_default().push(path);
                }
                json!({ "session_id_to_watched_paths": paths })
            }
            Command::WatchesByPath => {
                let mut sessions = BTreeMap::<String, Vec<i64>>::new();
                for (session, path) in self.watches() {
                    sessions.entry(path).or_default().push(session.0);
                }
                json!({ "path_to_session_ids": sessions })
            }
            Command::Zabstate => self.show_consensus(),
        })
    }

    fn show_configuration(&self) -> Value {
        let options = self.options;
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).ok();
        let mut fields = json!({
            "client_port": options.client_port,
            "data_dir": options.data_dir,
            "data_log_dir": options.data_dir,
            "tick_time": millis(options.tick),
            "max_client_cnxns": options.connections_per_address_max,
            "min_session_timeout": millis(options.timeout_min()),
            "max_session_timeout": millis(options.timeout_max()),
            "server_id": self.number_of(self.gate.status().member),
            "client_port_listen_backlog": -1,
        });
        if let Some(port) = options.secure_client_port {
            fields["secure_client_port"] = port.into();
        }
        fields
    }

    fn show_connections(&self, show: fn(&Client) -> Value) -> Value {
        let clients = self.stats.clients();
        let of = |secure: bool| -> Vec<Value> {
            let clients = clients.iter().filter(|client| client.secure == secure);
            clients.map(|client| show(client)).collect()
        };
        json!({ "connections": of(false), "secure_connections": of(true) })
    }

    fn show_sessions(&self) -> Value {
        let leases = self.gate.reader().leases();
        let sessions = leases.iter().filter(|lease| lease.is_session());
        let ids: Vec<i64> = sessions.map(|session| session.lease.0).collect();
        let bound = self.bound(&leases).into_iter();
        let bound: BTreeMap<String, Vec<String>> = bound
            .map(|(lease, paths)| (lease.0.to_string(), paths))
            .collect();
        // When sessions end is the leader's affair; -1 stands for that.
        json!({
            "expiry_time_to_session_ids": { "-1": ids },
            "session_id_to_ephemeral_paths": bound,
        })
    }

    fn show_leader(&self) -> Answer {
        if self.is_alone() {
            return Err("server is not initialized");
        }
        let status = self.gate.status();
        let members = self.gate.members();
        let leader = members.iter().find(|member| member.id == status.leader);
        Ok(json!({
            "is_leader": status.leader == status.member,
            "leader_id": self.number_of(status.leader),
            "leader_ip": leader.and_then(|it| places(&it.peer_urls).into_iter().next()),
        }))
    }

    fn show_figures(&self) -> Value {
        let figures = self.figures();
        let mut fields = Map::new();
        fields.insert("version".to_owned(), version_text().into());
        fields.insert("server_state".to_owned(), self.mode().into());
        for (name, value) in figures.gauges {
            fields.insert(name.to_owned(), number(value));
        }
        for (name, value) in figures.counters {
            fields.insert(name.to_owned(), value.into());
        }
        for summary in &figures.summaries {
            let spelled = spelled(summary).into_iter();
            fields.extend(spelled.map(|(name, value)| (name, number(value))));
        }
        fields.insert("cnt_election_time".to_owned(), figures.elections.into());
        Value::Object(fields)
    }

    fn show_observers(&self) -> Value {
        let connected = self.gate.connected();
        let leads = self.gate.status().leader == self.gate.status().member;
        let members = self.gate.members();
        let observers: Vec<Value> = members
            .iter()
            .filter(|member| leads && member.learner && connected.contains(&member.id))
            .map(|member| json!({ "sid": member.number, "remote_socket_address": places(&member.peer_urls).first() }))
            .collect();
        json!({ "synced_observers": observers.len(), "observers": observers })
    }

    fn show_stats(&self) -> Map<String, Value> {
        let traffic = &self.stats.traffic;
        let bytes = self.gate.space().total_bytes;
        let fields = json!({
            "version": version_text(),
            "read_only": self.read_only,
            "server_stats": {
                "packets_sent": traffic.sent.load(Relaxed),
                "packets_received": traffic.received.load(Relaxed),
                "fsync_threshold_exceed_count": 0,
                "data_dir_size": bytes,
                "log_dir_size": bytes,
                "provider_null": false,
                "last_processed_zxid": self.gate.reader().revision().0,
                "outstanding_requests": 0,
                "server_state": self.mode(),
                "avg_latency": number(Number::Mean(traffic.latency.mean_ms())),
                "max_latency": traffic.latency.max_ms(),
                "min_latency": traffic.latency.min_ms(),
                "num_alive_client_connections": self.stats.connections(),
                "uptime": self.uptime_ms(),
                "auth_failed_count": self.stats.auth_failed.load(Relaxed),
            },
            "node_count": self.node_count(),
        });
        fields.as_object().cloned().unwrap_or_default()
    }

    fn show_voters(&self) -> Value {
        if self.is_alone() {
            return json!({ "current_config": {} });
        }
        let members = self.gate.members();
        let show = |member: &Member| {
            let shown = json!({
                "serverAddresses": places(&member.peer_urls),
                "electionAddresses": [],
                "clientAddress": "",
                "learnerType": "participant",
            });
            (member.number.to_string(), shown)
        };
        let voters = members.iter().filter(|member| !member.learner);
        let voters: Map<String, Value> = voters.map(show).collect();
        json!({ "current_config": voters })
    }

    fn show_consensus(&self) -> Value {
        if self.is_alone() {
            return json!({ "voting": false, "zabstate": "" });
        }
        let status = self.gate.status();
        let revision = self.gate.reader().revision().0;
        let state = if status.leader == 0 {
            "election"
        } else {
            "broadcast"
        };
        json!({
            "myid": self.number_of(status.member),
            "is_leader": status.leader == status.member,
            "voting": !status.learner,
            "last_zxid": format!("0x{revision:x}"),
            "zab_epoch": revision >> 32,
            "zab_counter": revision & 0xffff_ffff,
            "zabstate": state,
        })
    }
}

fn number(number: Number) -> Value {
    match number {
        Number::Count(count) => count.into(),
        Number::Mean(mean) => ((mean * 1e4).round() / 1e4).into(),
    }
}

/// Hosts and ports of URLs.
fn places(urls: &[String]) -> Vec<&str> {
    let place = |url: &'_ String| {
        url.split_once("://")
            .map_or(0, |(scheme, _)| scheme.len() + 3)
    };
    urls.iter().map(|url| &url[place(url)..]).collect()
}

fn connection_in_brief(client: &Client) -> Value {
    let traffic = &client.traffic;
    json!({
        "remote_socket_address": client.peer.to_string(),
        "interest_ops": 1,
        "outstanding_requests": 0,
        "packets_received": traffic.received.load(Relaxed),
        "packets_sent": traffic.sent.load(Relaxed),
    })
}

fn connection_in_full(client: &Client) -> Value {
    let latency = &client.traffic.latency;
    let mut fields = connection_in_brief(client);
    let more = json!({
        "session_id": client.session.load(Relaxed),
        "last_operation": client.last_op().map_or("NA", crate::tally::Op::brief),
        "established": client.established_ms,
        "session_timeout": client.timeout_ms.load(Relaxed),
        "last_cxid": client.last_xid.load(Relaxed),
        "last_zxid": client.last_revision.load(Relaxed),
        "last_response_time": client.last_response_ms.load(Relaxed),
        "last_latency": client.last_latency_ms.load(Relaxed),
        "min_latency": latency.min_ms(),
        "avg_latency": number(Number::Mean(latency.mean_ms())),
        "max_latency": latency.max_ms(),
    });
    if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
        fields.extend(more);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_one_name_that_is_shown_and_older_ones() {
        for command in Command::ALL {
            assert_eq!(Command::of(command.name()), Some(*command));
        }
        assert_eq!(Command::of("mntr"), Some(Command::Monitor));
        assert_eq!(Command::of("snapshot"), None);
    }

    #[test]
    fn places_are_what_urls_name() {
        let urls = ["http://127.0.0.1:2380".to_owned(), "plain:1".to_owned()];
        assert_eq!(places(&urls), ["127.0.0.1:2380", "plain:1"]);
    }
}
