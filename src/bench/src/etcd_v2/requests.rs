//! What a client asks, one request after the other, and the check of each answer.

use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use rand::distr::Alphanumeric;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::EtcdV2;
use super::call::{KEYS, QUORUM};
use super::http1::{self, Http1, Request};
use crate::generator::Plan;
use crate::keys::{KeySpace, Order};
use crate::load::{Answer, Exchange, Success};

/// What the clients of a workload do.
#[derive(Debug, Clone, Copy)]
pub enum Operation {
    /// Sets keys.
    Set,
    /// Reads keys.
    Get {
        /// Through the quorum instead of from the asked member's own state.
        quorum: bool,
    },
    /// A share of reads, the rest sets.
    Mixed {
        /// Reads among 1,000 operations.
        reads_per_mille: u32,
        /// Whether they go through the quorum.
        quorum: bool,
    },
    /// Sets every key once.
    Fill,
}

impl Operation {
    /// Whether it reads keys, which must then exist.
    pub fn reads(&self) -> bool {
        match self {
            Self::Get { .. } | Self::Mixed { .. } => true,
            Self::Set | Self::Fill => false,
        }
    }
}

/// What an answer must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// That a key was set; the index moved.
    Set,
    /// A value.
    Value,
}

impl Expected {
    /// Whether `body` shows it. Answers begin with the action, and then the node.
    fn is_met_by(self, body: &[u8]) -> bool {
        match self {
            Self::Set => body.starts_with(br#"{"action":"set","#),
            Self::Value => {
                body.starts_with(br#"{"action":"get","#)
                    && position(body, br#","value":"#).is_some()
            }
        }
    }
}

/// Where `body` goes on behind the first `words` in it.
pub fn position(body: &[u8], words: &[u8]) -> Option<usize> {
    let mut windows = body.windows(words.len());
    Some(windows.position(|window| window == words)? + words.len())
}

/// The requests of one connection, which has one client.
pub struct Requests {
    operation: Operation,
    keys: KeySpace,
    order: Order,
    form: Bytes,
    rng: SmallRng,
    pending: Option<(u32, Expected)>,
}

impl Requests {
    /// Those of connection `number`.
    pub fn new(operation: Operation, order: Order, plan: &Plan<EtcdV2>, number: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(plan.seed_of(number));
        let mut form = b"value=".to_vec();
        form.extend((&mut rng).sample_iter(Alphanumeric).take(plan.value_bytes));
        Self {
            operation,
            keys: plan.keys.clone(),
            order,
            form: form.into(),
            rng,
            pending: None,
        }
    }

    fn set(&self, http1: &mut Http1, key: &[u8]) -> Expected {
        http1.ask(Request {
            method: "PUT",
            path: &[KEYS, key],
            query: "",
            form: Some(&self.form),
        });
        Expected::Set
    }
}

fn get(http1: &mut Http1, key: &[u8], quorum: bool) -> Expected {
    http1.ask(Request {
        method: "GET",
        path: &[KEYS, key],
        query: if quorum { QUORUM } else { "" },
        form: None,
    });
    Expected::Value
}

impl Exchange for Requests {
    type Wire = Http1;

    fn ask(&mut self, http1: &mut Http1, client: u32, _: Instant) -> Result<bool> {
        let Some(number) = self.order.pick(self.keys.count()) else {
            return Ok(false);
        };
        let key = self.keys.key(number);
        let expected = match self.operation {
            Operation::Set | Operation::Fill => self.set(http1, &key),
            Operation::Get { quorum } => get(http1, &key, quorum),
            Operation::Mixed {
                reads_per_mille,
                quorum,
            } => {
                if self.rng.random_range(0..1_000) < reads_per_mille {
                    get(http1, &key, quorum)
                } else {
                    self.set(http1, &key)
                }
            }
        };
        self.pending = Some((client, expected));
        Ok(true)
    }

    fn answered(&mut self, answer: http1::Answer) -> Result<Option<Answer>> {
        let (client, expected) = self.pending.take().context("an answer to nothing")?;
        let outcome = if answer.succeeded() {
            Ok(Success {
                as_expected: expected.is_met_by(&answer.body),
                wrote: expected == Expected::Set,
            })
        } else {
            Err(answer.failure())
        };
        Ok(Some(Answer { client, outcome }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_must_have_the_shape_of_what_was_asked_for() {
        let set = br#"{"action":"set","node":{"key":"/a","value":"x","modifiedIndex":4}}"#;
        let file = br#"{"action":"get","node":{"key":"/a","value":"","modifiedIndex":4}}"#;
        let dir = br#"{"action":"get","node":{"key":"/a","dir":true,"modifiedIndex":4}}"#;
        assert!(Expected::Set.is_met_by(set) && !Expected::Set.is_met_by(file));
        assert!(Expected::Value.is_met_by(file));
        assert!(!Expected::Value.is_met_by(dir) && !Expected::Value.is_met_by(set));
    }
}
