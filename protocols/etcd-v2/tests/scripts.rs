//! Runs the scripts in `tests/scripts`: requests as they are put into words of the keyspace, and what is
//! answered, without HTTP and without replication.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p etcd-v2 --test scripts` writes down anew what comes of them;
//! review the difference.

use etcd_v2::errors::{Asked, Code, Error};
use etcd_v2::form::Form;
use etcd_v2::node::{self, Bounds, Reading};
use etcd_v2::query::{Method, Query};
use etcd_v2::{Root, ops};
use gateway::keyspace::access::{AccessEntry, Identity, Permissions};
use gateway::keyspace::command::{Delete, Nodes, Op, Put, Txn};
use gateway::keyspace::node::{Action, NodeOp};
use gateway::keyspace::{Cause, Command, Keyspace, Outcome, Principal, Span, Stamp, WallMs};
use goldenscript::{Command as Line, Context, Runner};
use std::cell::Cell;
use std::error::Error as AnyError;
use test_each_file::test_each_path;

test_each_path! { in "protocols/etcd-v2/tests/scripts" as script => run }

fn run(path: &std::path::Path) {
    goldenscript::run(&mut Story::new(), path).expect("the script runs")
}

struct Story {
    keyspace: Keyspace,
    stamp: Stamp,
    root: Root,
}

impl Story {
    fn new() -> Story {
        let stamp = Stamp {
            index: 0,
            // The last day of a year.
            wall: WallMs(1_735_603_200_000),
        };
        Story {
            keyspace: Keyspace::new(),
            stamp,
            root: Root::default(),
        }
    }

    fn apply(&mut self, command: &Command) -> (Result<Outcome, gateway::keyspace::Refusal>, u64) {
        self.stamp.index += 1;
        let applied = self.keyspace.apply(self.stamp, command);
        (applied.outcome, applied.event)
    }

    fn write(&mut self, method: Method, path: &str, query: &Query) -> Result<Vec<u8>, Error> {
        let (key, now) = (self.root.key(path.as_bytes()), self.stamp.wall);
        let op = match method {
            Method::Put => ops::put(key, query, now),
            Method::Post => ops::post(&key, query, now),
            Method::Delete => ops::delete(key, query),
            Method::Get | Method::Head => unreachable!("these do not write"),
        };
        let cause = op.cause;
        let (outcome, index) = self.apply(&Command::Nodes(Nodes {
            by: Some([].into()),
            ops: vec![op],
            ..Nodes::default()
        }));
        let asked = Asked {
            path: path.as_bytes(),
            query,
            root: &self.root,
        };
        match outcome.map_err(|refusal| asked.refused(refusal, index))? {
            Outcome::Nodes(answers) => {
                let brief = query.no_value_on_success;
                Ok(node::written(
                    &answers[0],
                    cause,
                    index,
                    &self.root,
                    now,
                    brief,
                ))
            }
            Outcome::Txn(_) | Outcome::Done | Outcome::Ended(_) => unreachable!("it was nodes"),
        }
    }

    fn read(&self, path: &str, query: &Query) -> Result<Vec<u8>, Error> {
        let moment = self.keyspace.reader().moment();
        let auth = self.keyspace.reader().auth();
        let reading = Reading {
            moment: &moment,
            root: &self.root,
            now: self.stamp.wall,
            recursive: query.recursive,
            rights: auth
                .rights(&Principal::Anonymous)
                .expect("nobody is judged"),
            bound: true,
            bounds: Bounds::NONE,
            listed: Cell::default(),
        };
        let read = reading.node(&self.root.key(path.as_bytes()));
        read.map_err(|unseen| Error::unseen(&unseen, &self.root, path.as_bytes(), moment.event()))
    }

    fn request(&mut self, method: Method, path: &str, form: &str) -> Result<Vec<u8>, Error> {
        let form = Form::parse(form.as_bytes(), b"");
        let form = form.map_err(|why| Error::of_request(Code::InvalidForm, why.to_string()))?;
        let query = Query::parse(method, &form)?;
        match method {
            Method::Get | Method::Head => self.read(path, &query),
            Method::Put | Method::Post | Method::Delete => self.write(method, path, &query),
        }
    }

    /// What the other protocols do.
    fn elsewhere(&mut self, line: &Line) -> Result<Command, Box<dyn AnyError>> {
        let mut args = line.consume_args();
        let mut next = || {
            args.next_pos()
                .map(str::to_owned)
                .ok_or("an argument is missing")
        };
        Ok(match line.name.as_str() {
            "v3-put" => {
                let put = Put::new(next()?, next()?);
                Command::Txn(Txn::unconditional(vec![Op::Put(put)]))
            }
            "v3-delete" => Command::Txn(Txn::unconditional(vec![Op::Delete(Delete {
                span: Span::single(next()?),
                want_previous: false,
            })])),
            "restrict" => {
                let list = [AccessEntry {
                    permissions: Permissions::READ,
                    who: Identity::new("digest", "bob"),
                }];
                Command::Nodes(Nodes {
                    ops: vec![NodeOp {
                        path: next()?.into(),
                        tests: Vec::new(),
                        action: Action::SetAcl(Some(list.into())),
                        cause: Cause::Set,
                    }],
                    ..Nodes::default()
                })
            }
            "expire" => Command::Expire(Vec::new()),
            other => return Err(format!("no such command: {other}").into()),
        })
    }
}

impl Runner for Story {
    type Command = Line;

    fn run(&mut self, line: &Line, _: &Context) -> Result<String, Box<dyn AnyError>> {
        let mut args = line.consume_args();
        let first = args.next_pos().unwrap_or_default();
        let method = match line.name.as_str() {
            "get" => Method::Get,
            "put" => Method::Put,
            "post" => Method::Post,
            "delete" => Method::Delete,
            "root" => {
                self.root = Root::at(first).ok_or("not a path")?;
                return Ok(String::new());
            }
            "pass" => {
                self.stamp.wall.0 += first.parse::<u64>()?;
                return Ok(String::new());
            }
            "events" => {
                let (_, events) = self.keyspace.reader().events(first.parse()?);
                let told = events.iter().filter(|it| !it.silent);
                let events = told.map(|event| node::event(event, &self.root));
                return Ok(String::from_utf8(events.collect::<Vec<_>>().concat())?);
            }
            _ => {
                let command = self.elsewhere(line)?;
                self.apply(&command).0?;
                return Ok(String::new());
            }
        };
        let form = args.next_pos().unwrap_or_default();
        args.reject_next()?;
        Ok(match self.request(method, first, form) {
            Ok(content) => String::from_utf8(content)?,
            Err(error) => {
                let content = String::from_utf8(error.encode())?;
                format!("{} {content}", error.code.status())
            }
        })
    }
}
