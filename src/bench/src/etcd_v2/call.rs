//! Connections of etcd v2's clients, and single requests outside the measurement.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::http1::{Answer, Http1, Request};
use crate::connection::{Connection, Next, Session};

/// What keys are below.
pub const KEYS: &[u8] = b"/v2/keys";
/// Everything that has been acknowledged is seen.
pub const QUORUM: &str = "?quorum=true";

/// Connects to `endpoint` (`host:port`).
pub async fn open(endpoint: &str) -> Result<Connection<Http1>> {
    Connection::open(endpoint, Http1::new(endpoint), &mut Silence).await
}

impl Connection<Http1> {
    /// One GET and its answer.
    pub async fn get(&mut self, path: &[&[u8]], query: &str) -> Result<Answer> {
        self.wire().ask(Request {
            method: "GET",
            path,
            query,
            form: None,
        });
        self.find(|answer| Ok(Some(answer))).await
    }
}

/// HTTP's servers do not greet.
struct Silence;

impl Session<Http1> for Silence {
    fn on_event(&mut self, _: &mut Http1, answer: Answer, _: Instant) -> Result<()> {
        bail!("an answer before any request: {answer:?}")
    }

    fn turn(&mut self, _: &mut Http1, _: Instant) -> Result<Next> {
        Ok(Next::Done)
    }
}

/// How etcd v2 says why something was not done.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    /// etcd's own number.
    #[serde(rename = "errorCode")]
    pub code: u32,
    message: String,
}

impl Answer {
    /// Why it was refused.
    pub fn refusal(&self) -> Option<Refusal> {
        serde_json::from_slice(&self.body).ok()
    }

    /// What to count a failure under.
    pub fn failure(&self) -> String {
        match self.refusal() {
            Some(Refusal { code, message }) => format!("error {code}: {message}"),
            None => format!("HTTP status {}", self.status),
        }
    }

    /// Whether it was done.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What was asked for, which must be there.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        if !self.succeeded() {
            bail!(self.failure());
        }
        serde_json::from_slice(&self.body).context("an answer that is not etcd's")
    }

    /// The store's index.
    pub fn index(&self) -> Result<u64> {
        self.index.context("an answer without X-Etcd-Index")
    }
}
