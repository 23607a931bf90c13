//! What makes replies of different servers comparable. Everything else is printed as it came.
//!
//! - A zxid is called `z1`, `z2`, ... in the order in which a script's replies first show it: two
//!   servers agree when the same changes carry the same names, however many zxids failed writes
//!   and opened sessions have used up between them. What was there before the script is `old`.
//! - A time is not printed, but checked: it lies within the script's run, and all that one zxid
//!   changed carries one time.
//! - A session id is called as the connection that opened it.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

/// Times of one machine, read by different processes, may differ by so much.
const CLOCK_TOLERANCE_MS: i64 = 1_000;

/// The names that one script's run has given so far.
pub struct Names {
    before: i64,
    /// Zxids are revisions, and called `r1`, `r2`, ... by their distance from `before`.
    are_revisions: bool,
    zxids: Vec<i64>,
    times: BTreeMap<i64, i64>,
    sessions: BTreeMap<i64, String>,
    servers: BTreeMap<String, String>,
    started_ms: i64,
}

impl Names {
    /// No names yet, on a server that is at the zxid `before`.
    pub fn new(before: i64) -> Self {
        Self {
            before,
            are_revisions: false,
            zxids: Vec::new(),
            times: BTreeMap::new(),
            sessions: BTreeMap::new(),
            servers: BTreeMap::new(),
            started_ms: now_ms(),
        }
    }

    /// Names as etcd's scripts give them to revisions, on a server that is at revision `first`.
    pub fn of_revisions(first: i64) -> Self {
        Self {
            are_revisions: true,
            ..Self::new(first)
        }
    }

    /// The zxid's name, given now if it has none.
    pub fn zxid(&mut self, zxid: i64) -> String {
        if zxid <= 0 {
            return zxid.to_string();
        }
        if zxid <= self.before {
            return "old".to_owned();
        }
        if self.are_revisions {
            return format!("r{}", zxid - self.before);
        }
        let known = self.zxids.iter().position(|known| *known == zxid);
        let index = known.unwrap_or_else(|| {
            self.zxids.push(zxid);
            self.zxids.len() - 1
        });
        format!("z{}", index + 1)
    }

    /// Reads a zxid: `z3`, `old`, `ahead` of every server, or a number.
    pub fn parse_zxid(&self, text: &str) -> Result<i64> {
        match text {
            "old" => return Ok(self.before),
            "ahead" => return Ok(i64::MAX),
            _ => {}
        }
        match text.strip_prefix('z') {
            None => text.parse().with_context(|| format!("zxid {text:?}")),
            Some(number) => {
                let index = number.parse::<usize>()? - 1;
                let zxid = self.zxids.get(index).copied();
                zxid.with_context(|| format!("{text} has not been seen"))
            }
        }
    }

    /// What is wrong with a time that came with `zxid`, if anything is.
    pub fn time(&mut self, what: &str, zxid: i64, time_ms: i64) -> String {
        if zxid <= self.before {
            return String::new();
        }
        let first = *self.times.entry(zxid).or_insert(time_ms);
        let possible = self.started_ms - CLOCK_TOLERANCE_MS..=now_ms() + CLOCK_TOLERANCE_MS;
        if !possible.contains(&time_ms) {
            format!(" {what}={time_ms}(not now)")
        } else if first != time_ms {
            format!(" {what}={time_ms}(before:{first})")
        } else {
            String::new()
        }
    }

    /// Calls the session `name`.
    pub fn add_session(&mut self, id: i64, name: &str) {
        self.sessions.insert(id, name.to_owned());
    }

    /// The session's name; 0 is none.
    pub fn session(&self, id: i64) -> String {
        if id == 0 {
            return "none".to_owned();
        }
        match self.sessions.get(&id) {
            Some(name) => name.clone(),
            // A lease of etcd's, whose number the script has chosen.
            None if self.are_revisions => id.to_string(),
            None => "unknown".to_owned(),
        }
    }

    /// The sessions' ids, and what they are called.
    pub fn sessions(&self) -> &BTreeMap<i64, String> {
        &self.sessions
    }

    /// Calls a server that is to join `name`; `line` is how a configuration spells it.
    pub fn add_server(&mut self, name: &str, line: String) {
        self.servers.insert(name.to_owned(), line);
    }

    /// Servers of a configuration, separated by commas, those spelled out that were called by name.
    pub fn spell_servers(&self, text: &str) -> String {
        let spell = |server: &str| {
            let (name, role) = server.split_once(':').unwrap_or((server, "participant"));
            match self.servers.get(name) {
                Some(line) => line.replace(":participant", &format!(":{role}")),
                None => server.to_owned(),
            }
        };
        let servers: Vec<_> = text.split(',').map(spell).collect();
        servers.join(",")
    }

    /// Reads a session's name, or a number.
    pub fn parse_session(&self, text: &str) -> Result<i64> {
        match self.sessions.iter().find(|(_, name)| *name == text) {
            Some((id, _)) => Ok(*id),
            None => text.parse().with_context(|| format!("session {text:?}")),
        }
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("the clock is past 1970").as_millis();
    i64::try_from(now).expect("the clock is before the year 292 million")
}

/// The name of an error code.
///
/// # Errors
/// When no code of the protocol has this number.
pub fn error_name(code: i32) -> Result<&'static str> {
    Ok(match code {
        -1 => "SystemError",
        -2 => "RuntimeInconsistency",
        -5 => "MarshallingError",
        -6 => "Unimplemented",
        -8 => "BadArguments",
        -12 => "UnknownSession",
        -13 => "NewConfigNoQuorum",
        -14 => "ReconfigInProgress",
        -100 => "APIError",
        -101 => "NoNode",
        -102 => "NoAuth",
        -103 => "BadVersion",
        -108 => "NoChildrenForEphemerals",
        -110 => "NodeExists",
        -111 => "NotEmpty",
        -112 => "SessionExpired",
        -114 => "InvalidACL",
        -115 => "AuthFailed",
        -118 => "SessionMoved",
        -119 => "NotReadOnly",
        -120 => "EphemeralOnLocalSession",
        -121 => "NoWatcher",
        -122 => "RequestTimeout",
        -123 => "ReconfigDisabled",
        -124 => "SessionClosedRequireSASLAuth",
        -125 => "QuotaExceeded",
        -127 => "ThrottledOp",
        _ => bail!("no error has the code {code}"),
    })
}
