//! Runs the scripts in `tests/scripts`: each is a story told in commands, with what came of them.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p keyspace --test scripts` writes down anew what comes of them;
//! review the difference. After every command the state is cut, restored and compared, so that each
//! script tests snapshots as well.

mod language;

use bytes::Bytes;
use goldenscript::{Argument, ArgumentConsumer, Command as Line, Context, Runner};
use keyspace::aside::{Role, Tally};
use keyspace::auth::AuthChanges;
use keyspace::command::{
    Alarm, AlarmChange, Attach, Expired, Grant, LeaseRemaining, Nodes, Session, Turn, Txn,
};
use keyspace::node::{Event, EventNode, Kind, NodeAnswer};
use keyspace::{
    Answer, Applied, Change, Command, End, Entry, Identity, Keyspace, LeaseId, LeaseView, NodeView,
    Outcome, Principal, RangeAnswer, Reader, Revision, Span, Stamp, TxnOutcome, WallMs,
};
use std::error::Error;
use std::fmt::Write;
use std::str::FromStr;
use std::sync::Arc;
use test_each_file::test_each_path;

test_each_path! { in "src/keyspace/tests/scripts" as script => run }

fn run(path: &std::path::Path) {
    goldenscript::run(&mut Story::new(), path).expect("the script runs")
}

struct Story {
    keyspace: Keyspace,
    stamp: Stamp,
}

impl Story {
    fn new() -> Story {
        let stamp = Stamp {
            index: 0,
            wall: WallMs(1_000),
        };
        Story {
            keyspace: Keyspace::new(),
            stamp,
        }
    }

    fn apply(&mut self, command: Command) -> String {
        assert_eq!(Command::decode(&command.encode()).as_ref(), Ok(&command));
        self.stamp.index += 1;
        let applied = self.keyspace.apply(self.stamp, &command);
        show_applied(&applied)
    }

    /// The state must survive a snapshot, and no postponed work may show in its digest.
    fn check(&mut self) {
        let cut = self.keyspace.cut(None).expect("a whole cut can be taken");
        let restored = Keyspace::restore(cut).expect("a cut can be restored");
        assert_eq!(restored.digest(), self.keyspace.digest());
        let (left, right) = (self.keyspace.reader(), restored.reader());
        assert_eq!(left.revision(), right.revision());
        assert_eq!(left.leases(), right.leases());
        check_tree(&left, b"/");
        let from = left.compacted();
        let histories = [left, right].map(|r| r.history(from, usize::MAX).expect("it is readable"));
        let [left, right] = histories.map(|h| h.iter().map(show_change).collect::<Vec<_>>());
        assert_eq!(left, right);
    }
}

fn show_names(names: &[Bytes]) -> String {
    let names: Vec<_> = names.iter().map(|n| n.escape_ascii().to_string()).collect();
    match names.is_empty() {
        true => "nothing\n".to_owned(),
        false => format!("{}\n", names.join(" ")),
    }
}

/// Every node lists as many children as it counts, and each of them exists.
fn check_tree(reader: &Reader, path: &[u8]) {
    let (_, view) = reader.node(path);
    let moment = reader.moment();
    let same = moment.node(path).expect("a node can be listed");
    let names = moment.children(path);
    assert_eq!(names.len(), same.children as usize);
    assert_eq!(format!("{view:?}"), format!("{:?}", Some(same)));
    for name in names {
        let above = if path == b"/" { b"" } else { path };
        check_tree(reader, &[above, b"/", &name].concat());
    }
}

impl Runner for Story {
    type Command = Line;

    fn run(&mut self, line: &Line, _: &Context) -> Result<String, Box<dyn Error>> {
        let out = match command(line)? {
            Some(command) => self.apply(command),
            None => self.look(line)?,
        };
        self.check();
        Ok(out)
    }
}

impl Story {
    /// What does not go through the log.
    fn look(&mut self, line: &Line) -> Result<String, Box<dyn Error>> {
        let mut args = line.consume_args();
        let reader = self.keyspace.reader();
        let out = match line.name.as_str() {
            "read" => read(&reader, &mut args)?,
            "read_txn" => read_txn(&reader, &mut args)?,
            "history" => {
                let from = Revision(number(args.next_pos())?);
                let max = args.next_pos().map_or(Ok(usize::MAX), str::parse)?;
                reader.history(from, max).map_or_else(
                    |refusal| format!("refused: {refusal}\n"),
                    |changes| changes.iter().map(show_change).collect(),
                )
            }
            "auth" => language::auth::show(&reader.auth()),
            "may" => may(&reader, &mut args)?,
            "counted" => {
                let path = args.next_pos().unwrap_or("");
                match reader.counted(path.as_bytes()) {
                    Some((of, Tally { nodes, bytes })) => {
                        format!("{nodes} nodes, {bytes} bytes at {}\n", of.escape_ascii())
                    }
                    None => "not counted\n".to_owned(),
                }
            }
            "times" => {
                let range = language::range(args.next_pos().unwrap_or(""))?;
                let entries = reader.range(&range)?.entries;
                let times = entries.iter().map(|entry| {
                    format!("born {} written {}\n", entry.born().0, entry.written().0)
                });
                times.collect()
            }
            "leases" => {
                let lease = |view| show_lease(&reader, view);
                reader.leases().iter().map(lease).collect()
            }
            "stat" => {
                let path = args.next_pos().ok_or("a path is missing")?;
                let (_, view) = reader.node(path.as_bytes());
                view.map_or("no node\n".to_owned(), |view| show_node(&view))
            }
            "ls" => {
                let path = args.next_pos().ok_or("a path is missing")?;
                let moment = reader.moment();
                let names = moment
                    .node(path.as_bytes())
                    .map(|_| moment.children(path.as_bytes()));
                names.map_or("no node\n".to_owned(), |names| show_names(&names))
            }
            "events" => {
                let (oldest, events) = reader.events(number(args.next_pos())?);
                let events: String = events.iter().map(show_event).collect();
                format!("from {oldest} to {}\n{events}", reader.event())
            }
            "due" => format!("{}\n", reader.is_due(self.stamp.wall)),
            "restricted" => {
                let path = args.next_pos().ok_or("a path is missing")?;
                let span = Span {
                    start: path.to_owned().into(),
                    end: End::Before(format!("{}0", path.trim_end_matches('/')).into()),
                };
                let open = reader.check_lists(&Principal::Anonymous, &span, |_| true);
                format!("{}\n", open.is_err())
            }
            "alarms" => format!("{:?}\n", reader.alarms()),
            "bytes" => format!("{}\n", reader.bytes_in_use()),
            "tidy" => {
                while self.keyspace.tidy() {}
                String::new()
            }
            "clock" => {
                self.stamp.wall = WallMs(number(args.next_pos())?);
                String::new()
            }
            // From here on with what a snapshot preserved.
            "restore" => {
                let cut = self.keyspace.cut(None).expect("a whole cut can be taken");
                self.keyspace = Keyspace::restore(cut)?;
                String::new()
            }
            other => return Err(format!("no such command: {other}").into()),
        };
        args.reject_next()?;
        Ok(out)
    }
}

/// The command for the log that a line spells, if it is one.
fn command(line: &Line) -> Result<Option<Command>, Box<dyn Error>> {
    let mut args = line.consume_args();
    let command = match line.name.as_str() {
        "txn" => Command::Txn(Txn {
            principal: principal(&mut args)?,
            ..language::txn(args.next_pos().unwrap_or(""))?
        }),
        // Transactions of one operation.
        "put" | "del" | "get" => {
            let principal = principal(&mut args)?;
            let mut op = line.name.clone();
            for arg in args.by_ref() {
                match arg {
                    Argument::Positional(text) => write!(op, " {text}")?,
                    Argument::KeyValue(key, value) => write!(op, " {key}={value}")?,
                    other => return Err(format!("unexpected argument {other}").into()),
                }
            }
            Command::Txn(Txn {
                principal,
                ..language::txn(&format!("then {op}"))?
            })
        }
        // Steps at nodes: see `language/nodes.rs`.
        "nodes" => Command::Nodes(Nodes {
            turn: match args.take_key("session") {
                Some(session) => Some(turn(session, &mut args)?),
                None => None,
            },
            by: args.take_key("by").map(identities).transpose()?,
            principal: principal(&mut args)?,
            ops: language::nodes::ops(args.next_pos().unwrap_or(""))?,
        }),
        "attach" => Command::Attach(Attach {
            lease: LeaseId(number(args.next_pos())?),
            password: args.take_key("password").unwrap_or("").to_owned().into(),
            attachment: number(args.take_key("via"))?,
            ttl_ms: number(args.next_pos())?,
        }),
        "compact" => Command::Compact(Revision(number(args.next_pos())?)),
        "grant" => Command::Grant(Grant {
            lease: LeaseId(number(args.next_pos())?),
            ttl_ms: number(args.next_pos())?,
            session: match args.take_key("password") {
                Some(password) => Some(Session {
                    password: password.to_owned().into(),
                    attachment: number(args.take_key("via").or(Some("0")))?,
                }),
                None => None,
            },
        }),
        "close" => {
            let session = args.next_pos().ok_or("a session is missing")?;
            Command::Close(turn(session, &mut args)?)
        }
        "revoke" => {
            let principal = principal(&mut args)?;
            Command::Revoke(LeaseId(number(args.next_pos())?), principal)
        }
        // Changes of users and roles: see `language/auth.rs`.
        "change" => Command::Auth(AuthChanges {
            principal: principal(&mut args)?,
            at: args.take_key("at").map(str::parse).transpose()?,
            changes: language::auth::changes(args.next_pos().unwrap_or(""))?,
        }),
        "expire" => {
            let attachment = args.take_key("via").map(str::parse).transpose()?;
            let mut leases = Vec::new();
            while let Some(arg) = args.next_pos() {
                let lease = LeaseId(number(Some(arg))?);
                leases.push(Expired { lease, attachment });
            }
            Command::Expire(leases)
        }
        "checkpoint" => Command::Checkpoint(vec![LeaseRemaining {
            lease: LeaseId(number(args.next_pos())?),
            remaining_ms: number(args.next_pos())?,
        }]),
        "raise" | "clear" => Command::Alarm(AlarmChange {
            member: number(args.next_pos())?,
            alarm: match args.next_pos() {
                Some("nospace") => Alarm::NoSpace,
                Some("corrupt") => Alarm::Corrupt,
                other => return Err(format!("no such alarm: {other:?}").into()),
            },
            raised: line.name == "raise",
        }),
        _ => return Ok(None),
    };
    args.reject_next()?;
    Ok(Some(command))
}

/// What becomes of a client's reading or writing these keys.
fn read(reader: &Reader, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
    let range = language::range(args.next_pos().unwrap_or(""))?;
    let answer = match args.take_key("as") {
        Some(who) => reader.range_for(&language::auth::principal(who)?, &range),
        None => reader.range(&range),
    };
    Ok(match answer {
        Ok(answer) => show_range(&answer),
        Err(refusal) => format!("refused: {refusal}\n"),
    })
}

fn read_txn(reader: &Reader, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
    let txn = language::txn(args.next_pos().unwrap_or(""))?;
    let answer = match args.take_key("as") {
        Some(who) => reader.txn_for(&language::auth::principal(who)?, &txn),
        None => reader.txn(&txn),
    };
    Ok(match answer {
        Ok((revision, outcome)) => format!("@{revision}\n{}", show_txn(&outcome, 0)),
        Err(refusal) => format!("refused: {refusal}\n"),
    })
}

fn may(reader: &Reader, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
    let who = language::auth::principal(args.next_pos().unwrap_or(""))?;
    let may = language::auth::permissions(args.next_pos().unwrap_or(""))?;
    let span = language::span(args.next_pos().unwrap_or(""))?;
    Ok(match reader.check(&who, &span, may) {
        Ok(()) => "yes\n".to_owned(),
        Err(refusal) => format!("no: {refusal}\n"),
    })
}

/// Who asks: the system itself unless it is said.
fn principal(args: &mut ArgumentConsumer<'_>) -> Result<Principal, Box<dyn Error>> {
    let who = args.take_key("as").unwrap_or("system");
    Ok(language::auth::principal(who)?)
}

fn turn(session: &str, args: &mut ArgumentConsumer<'_>) -> Result<Turn, Box<dyn Error>> {
    Ok(Turn {
        lease: LeaseId(number(Some(session))?),
        attachment: number(args.take_key("via"))?,
        seq: number(args.take_key("seq"))?,
    })
}

/// `digest:bob,ip:1.2.3.4`
fn identities(text: &str) -> Result<Arc<[Identity]>, String> {
    text.split(',').map(language::nodes::identity).collect()
}

fn number<T: FromStr<Err: Error + 'static>>(text: Option<&str>) -> Result<T, Box<dyn Error>> {
    Ok(text.ok_or("a number is missing")?.parse()?)
}

fn show_lease(reader: &Reader, view: &LeaseView) -> String {
    let keys = reader.lease_keys(view.lease).expect("the lease is there");
    let keys: Vec<_> = keys
        .iter()
        .map(|key| key.escape_ascii().to_string())
        .collect();
    let remaining = view
        .remaining_ms
        .map_or(String::new(), |ms| format!(" remaining_ms={ms}"));
    let (lease, ttl_ms, keys) = (view.lease.0, view.ttl_ms, keys.join(","));
    let held = view
        .attachment
        .map_or(String::new(), |via| format!(" session via={via}"));
    format!("{lease} ttl_ms={ttl_ms}{remaining}{held} keys={keys}\n")
}

fn show_applied(applied: &Applied) -> String {
    let mut out = match &applied.outcome {
        Ok(Outcome::Txn(txn)) => format!("@{}\n{}", applied.revision, show_txn(txn, 0)),
        Ok(Outcome::Done) => format!("@{}\n", applied.revision),
        Ok(Outcome::Ended(keys)) => format!("@{} ended with {keys} keys\n", applied.revision),
        Ok(Outcome::Nodes(answers)) => {
            let answers: String = answers.iter().map(show_answer).collect();
            format!("@{}\n{answers}", applied.revision)
        }
        Err(refusal) => format!("@{} refused: {refusal}\n", applied.revision),
    };
    for change in &applied.changes {
        out += &format!("! {:?} {}", change.cause, show_change(change));
    }
    for step in &applied.steps {
        out += &format!("~ {:?} {:?}", step.what, step.name);
        for (whose, acl) in [("acl", &step.acl), ("parent's", &step.parent_acl)] {
            if let Some(acl) = acl {
                out += &format!(", {whose} {}", language::nodes::show_access(acl));
            }
        }
        out += "\n";
    }
    out
}

fn show_answer(answer: &NodeAnswer) -> String {
    let node = answer.node.as_ref().map_or("gone\n".to_owned(), show_node);
    format!("{} {node}", answer.path.escape_ascii())
}

fn show_node(view: &NodeView) -> String {
    let mut out = match &view.entry {
        Some(entry) if entry.is_null() => format!("null version {}", entry.version()),
        Some(entry) => format!(
            "={} version {}",
            entry.value().escape_ascii(),
            entry.version()
        ),
        None => "no value".to_owned(),
    };
    let (created, modified) = (view.created, view.modified);
    out += &format!(", created @{created}#{}", view.created_event);
    out += &format!(", modified @{modified}#{}", view.modified_event);
    if view.puts != view.entry.as_ref().map_or(1, Entry::version) {
        out += &format!(", changed {} times", view.puts);
    }
    let (children, creates) = (view.children, view.creates);
    out += &format!(
        ", children {children} of {creates} @{}",
        view.children_changed
    );
    if view.directory {
        out += ", directory";
    }
    if view.kind != Kind::Plain {
        out += &format!(", {:?}", view.kind);
    }
    if let Some(deadline) = view.deadline {
        out += &format!(", until {}", deadline.0);
    }
    if let Some(acl) = &view.acl {
        out += &format!(", acl {}", language::nodes::show_access(acl));
    }
    if view.acl_version > 0 {
        out += &format!(", acl version {}", view.acl_version);
    }
    if let Some(held) = &view.aside {
        let null = if held.null { " null" } else { "" };
        out += &format!(", holds {}{null}", held.value.escape_ascii());
        out += &match &held.role {
            Role::Plain => String::new(),
            Role::Limits { of, .. } => format!(" as limits of {}", of.escape_ascii()),
            Role::Tally { of } => format!(" as tally of {}", of.escape_ascii()),
        };
    }
    out + "\n"
}

fn show_event(event: &Event) -> String {
    let show = |node: &EventNode| {
        let value = node
            .entry
            .as_ref()
            .map(|entry| format!("={}", entry.value().escape_ascii()));
        let directory = if node.directory { " directory" } else { "" };
        let until = node
            .deadline
            .map_or(String::new(), |at| format!(" until {}", at.0));
        let (created, modified) = (node.created, node.modified);
        format!(
            "{}{directory} #{created}..{modified}{until}",
            value.unwrap_or_default()
        )
    };
    let silent = if event.silent { " silent" } else { "" };
    let restricted = if event.restricted { " restricted" } else { "" };
    let previous = event
        .previous
        .as_ref()
        .map_or(String::new(), |p| format!(", before {}", show(p)));
    let (index, cause, name, node) = (event.index, event.cause, &event.name, show(&event.node));
    format!("#{index}{silent}{restricted} {cause:?} {name:?} {node}{previous}\n")
}

fn show_change(change: &Change) -> String {
    let what = if change.entry.is_tombstone() {
        let (key, entry) = (change.entry.key().escape_ascii(), &change.entry);
        format!("{key} deleted @{}.{}", entry.modified(), entry.sub())
    } else {
        format!("{:?}", change.entry)
    };
    match &change.previous {
        Some(previous) => format!("{what}, before {previous:?}\n"),
        None => format!("{what}\n"),
    }
}

fn show_txn(txn: &TxnOutcome, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let mut out = String::new();
    if !txn.succeeded {
        out += &format!("{indent}otherwise\n");
    }
    for answer in &txn.answers {
        let shown = match answer {
            Answer::Range(range) => show_range(range),
            Answer::Put(None) => continue,
            Answer::Put(Some(previous)) => format!("before {previous:?}\n"),
            Answer::Delete { deleted, previous } => {
                let shown = previous.iter().map(|entry| format!("  {entry:?}\n"));
                format!("deleted {deleted}\n{}", shown.collect::<String>())
            }
            Answer::Txn(inner) => format!("txn\n{}", show_txn(inner, 1)),
        };
        for line in shown.lines() {
            out += &format!("{indent}{line}\n");
        }
    }
    out
}

fn show_range(answer: &RangeAnswer) -> String {
    let entries: String = answer.entries.iter().map(show_entry).collect();
    let more = if answer.more { ", more" } else { "" };
    format!(
        "{entries}{} keys @{}{more}\n",
        answer.count, answer.revision
    )
}

fn show_entry(entry: &Entry) -> String {
    format!("{entry:?}\n")
}
