//! What a session asks, several requests at a time, and the check of each answer.

use std::collections::VecDeque;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::frames::{self, Event, Frames, Kind, Put as _, Reply, STAT_BYTES, opcode};
use super::{Path, ZooKeeper};
use crate::generator::Plan;
use crate::keys::{KeySpace, Order, parent_of, random_value};
use crate::load::{Answer, Exchange, Success};

/// Digits of the names that creates count through.
const CREATED_DIGITS: usize = 12;
/// Any version.
const ANY: i32 = -1;

/// How nodes are created.
#[derive(Debug, Clone, Copy, Default)]
pub struct Create {
    /// They go with their session.
    pub ephemeral: bool,
    /// They are not deleted again.
    pub keep: bool,
    /// Beside the whole key space.
    pub among_keys: bool,
}

/// What a multi is made of.
#[derive(Debug, Clone, Copy)]
pub struct Multi {
    /// Nodes that are set.
    pub sets: usize,
    /// Nodes whose version is checked.
    pub checks: usize,
}

/// What the clients of a workload do.
#[derive(Debug, Clone, Copy)]
pub enum Operation {
    /// Makes nodes, and deletes each with the client's next request.
    Create(Create),
    /// Sets data.
    Set,
    /// Reads data.
    Get {
        /// After a sync, so that it is not older than the request.
        sync: bool,
    },
    /// Lists the whole key space.
    Children,
    /// Sets several nodes at once.
    Multi(Multi),
    /// A share of reads, the rest sets.
    Mixed {
        /// Reads among 1,000 operations.
        reads_per_mille: u32,
    },
    /// Makes every node of the key space.
    Fill,
}

impl Operation {
    /// Whether it needs the nodes of the key space.
    pub fn needs_keys(&self) -> bool {
        match self {
            Self::Create(create) => create.among_keys,
            Self::Set | Self::Get { .. } | Self::Children | Self::Multi(_) | Self::Mixed { .. } => {
                true
            }
            Self::Fill => false,
        }
    }
}

/// What an answer must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The path of the new node.
    Created,
    /// Nothing.
    Deleted,
    /// A Stat.
    Stat,
    /// Data and a Stat.
    Data,
    /// At least one name.
    Names,
    /// Steps that were done.
    Steps,
    /// Nothing yet: another answer follows.
    Synced,
}

impl Expected {
    fn is_met_by(self, body: &[u8]) -> bool {
        let behind_length = |length: usize| {
            let first = body
                .first_chunk::<4>()
                .map(|first| i32::from_be_bytes(*first));
            first.is_some_and(|bytes| usize::try_from(bytes) == Ok(length))
        };
        match self {
            Self::Created => body.len() > 4 && behind_length(body.len() - 4),
            Self::Deleted => body.is_empty(),
            Self::Stat => body.len() == STAT_BYTES,
            Self::Data => {
                let rest = body.len().checked_sub(4 + STAT_BYTES);
                rest.is_some_and(behind_length)
            }
            Self::Names => body.len() > 4 && !behind_length(0),
            Self::Steps => frames::check_steps(body).is_ok(),
            Self::Synced => true,
        }
    }

    fn is_write(self) -> bool {
        match self {
            Self::Created | Self::Deleted | Self::Stat | Self::Steps => true,
            Self::Data | Self::Names | Self::Synced => false,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    xid: i32,
    client: u32,
    expected: Expected,
}

/// The requests of one session.
pub struct Requests {
    operation: Operation,
    keys: KeySpace,
    order: Order,
    value: Bytes,
    rng: SmallRng,
    /// What each client deletes next.
    created: Vec<Option<Path>>,
    pending: VecDeque<Pending>,
    /// The newest state an answer has shown.
    zxid: i64,
}

impl Requests {
    /// Of so many `clients` of the session `number`.
    pub fn new(
        operation: Operation,
        order: Order,
        clients: usize,
        plan: &Plan<ZooKeeper>,
        number: usize,
    ) -> anyhow::Result<Self> {
        let mut rng = SmallRng::seed_from_u64(plan.seed_of(number));
        let keys = match operation {
            Operation::Create(_) => names_to_create(&plan.keys)?,
            Operation::Set
            | Operation::Get { .. }
            | Operation::Children
            | Operation::Multi(_)
            | Operation::Mixed { .. }
            | Operation::Fill => plan.keys.clone(),
        };
        Ok(Self {
            operation,
            keys,
            order,
            value: random_value(&mut rng, plan.value_bytes),
            rng,
            created: vec![None; clients],
            pending: VecDeque::with_capacity(clients),
            zxid: 0,
        })
    }

    fn create(&mut self, frames: &mut Frames, path: &[u8], kind: Kind) -> (i32, Expected) {
        let xid = frames.ask(opcode::CREATE, |out| {
            frames::create(out, path, &self.value, kind);
        });
        (xid, Expected::Created)
    }

    fn create_or_delete(
        &mut self,
        frames: &mut Frames,
        client: u32,
        create: Create,
        path: Path,
    ) -> (i32, Expected) {
        let own = &mut self.created[client as usize];
        if let Some(path) = own.take() {
            let xid = frames.ask(opcode::DELETE, |out| {
                out.string(&path);
                out.put_i32(ANY);
            });
            return (xid, Expected::Deleted);
        }
        if !create.keep {
            *own = Some(path.clone());
        }
        let kind = if create.ephemeral {
            Kind::Ephemeral
        } else {
            Kind::Persistent
        };
        self.create(frames, &path, kind)
    }

    fn set(&self, frames: &mut Frames, path: &[u8]) -> (i32, Expected) {
        let xid = frames.ask(opcode::SET_DATA, |out| {
            out.string(path);
            out.string(&self.value);
            out.put_i32(ANY);
        });
        (xid, Expected::Stat)
    }

    fn multi(&self, frames: &mut Frames, multi: Multi, number: u64) -> (i32, Expected) {
        let nth = |n: usize| self.keys.key((number + n as u64) % self.keys.count());
        let xid = frames.ask(opcode::MULTI, |out| {
            for n in 0..multi.checks {
                step(out, opcode::CHECK, false);
                out.string(&nth(n));
                out.put_i32(ANY);
            }
            for n in 0..multi.sets {
                step(out, opcode::SET_DATA, false);
                out.string(&nth(n));
                out.string(&self.value);
                out.put_i32(ANY);
            }
            step(out, -1, true);
        });
        (xid, Expected::Steps)
    }

    fn request(
        &mut self,
        frames: &mut Frames,
        client: u32,
        number: u64,
    ) -> anyhow::Result<(i32, Expected)> {
        let path = self.keys.key(number);
        Ok(match self.operation {
            Operation::Create(create) => self.create_or_delete(frames, client, create, path),
            Operation::Fill => self.create(frames, &path, Kind::Persistent),
            Operation::Set => self.set(frames, &path),
            Operation::Get { sync } => {
                if sync {
                    let xid = frames.ask(opcode::SYNC, |out| out.string(&path));
                    self.await_reply(xid, client, Expected::Synced);
                }
                get(frames, &path)
            }
            Operation::Mixed { reads_per_mille } => {
                if self.rng.random_range(0..1_000) < reads_per_mille {
                    get(frames, &path)
                } else {
                    self.set(frames, &path)
                }
            }
            Operation::Children => {
                let xid = frames.ask(opcode::GET_CHILDREN, |out| {
                    out.string(parent_of(&path));
                    out.boolean(false);
                });
                (xid, Expected::Names)
            }
            Operation::Multi(multi) => self.multi(frames, multi, number),
        })
    }

    fn await_reply(&mut self, xid: i32, client: u32, expected: Expected) {
        self.pending.push_back(Pending {
            xid,
            client,
            expected,
        });
    }

    /// The answer to the oldest request: any other breaks the session's order.
    fn take(&mut self, reply: &Reply) -> anyhow::Result<Pending> {
        let pending = self.pending.pop_front().context("a reply to nothing")?;
        ensure!(
            reply.xid == pending.xid,
            "the reply to request {} came in place of that to {}",
            reply.xid,
            pending.xid
        );
        ensure!(
            reply.zxid >= self.zxid || reply.error != 0,
            "the session was shown zxid {:#x} and then {:#x}",
            self.zxid,
            reply.zxid
        );
        self.zxid = self.zxid.max(reply.zxid);
        Ok(pending)
    }
}

fn get(frames: &mut Frames, path: &[u8]) -> (i32, Expected) {
    let xid = frames.ask(opcode::GET_DATA, |out| {
        out.string(path);
        out.boolean(false);
    });
    (xid, Expected::Data)
}

/// The header of a step in a multi, or its end.
fn step(out: &mut bytes::BytesMut, opcode: i32, end: bool) {
    out.put_i32(opcode);
    out.boolean(end);
    out.put_i32(-1);
}

/// Names beside the key space that no other run has made.
fn names_to_create(keys: &KeySpace) -> anyhow::Result<KeySpace> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let first = keys.key(0);
    let parent = std::str::from_utf8(parent_of(&first)).context("a path is text")?;
    let prefix = format!("{}/c{now:x}-", parent.trim_end_matches('/'));
    let bytes = first.len().max(prefix.len() + CREATED_DIGITS);
    KeySpace::new(&prefix, bytes, 10_u64.pow(CREATED_DIGITS as u32))
}

impl Exchange for Requests {
    type Wire = Frames;

    fn ask(&mut self, frames: &mut Frames, client: u32, _: Instant) -> anyhow::Result<bool> {
        let Some(number) = self.order.pick(self.keys.count()) else {
            return Ok(false);
        };
        let (xid, expected) = self.request(frames, client, number)?;
        self.await_reply(xid, client, expected);
        Ok(true)
    }

    fn answered(&mut self, event: Event) -> anyhow::Result<Option<Answer>> {
        let reply = match event {
            Event::Reply(reply) => reply,
            Event::Fired(kind) => anyhow::bail!("an event of type {kind} without a watch"),
        };
        let Pending {
            client, expected, ..
        } = self.take(&reply)?;
        let outcome = match (reply.error, expected) {
            (0, Expected::Synced) => return Ok(None),
            (0, Expected::Steps) => frames::check_steps(&reply.body).map_err(|e| e.to_string()),
            (0, _) => Ok(()),
            (code, _) => Err(format!("error {code}")),
        };
        let success = outcome.map(|()| Success {
            as_expected: expected.is_met_by(&reply.body),
            wrote: expected.is_write(),
        });
        Ok(Some(Answer {
            client,
            outcome: success,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_must_have_the_shape_of_what_was_asked_for() {
        let mut data = vec![0, 0, 0, 2, 7, 7];
        data.extend([0; STAT_BYTES]);
        assert!(Expected::Data.is_met_by(&data));
        assert!(!Expected::Data.is_met_by(&data[1..]));
        assert!(!Expected::Data.is_met_by(b""));
        assert!(Expected::Created.is_met_by(b"\0\0\0\x02/a"));
        assert!(!Expected::Created.is_met_by(b"\0\0\0\x03/a"));
        assert!(Expected::Deleted.is_met_by(b"") && !Expected::Deleted.is_met_by(b"x"));
        assert!(Expected::Stat.is_met_by(&[0; STAT_BYTES]) && !Expected::Stat.is_met_by(b""));
        assert!(Expected::Names.is_met_by(b"\0\0\0\x01\0\0\0\x01a"));
        assert!(!Expected::Names.is_met_by(b"\0\0\0\0"));
    }

    #[test]
    fn created_names_stand_beside_the_key_space() {
        for (prefix, above) in [("/bench/", "/bench/c"), ("/", "/c")] {
            let keys = KeySpace::new(prefix, 16, 10).expect("fits");
            let names = names_to_create(&keys).expect("fits");
            assert!(names.key(5).starts_with(above.as_bytes()), "{prefix}");
        }
    }
}
