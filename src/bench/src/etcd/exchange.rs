//! What etcd's clients and a server say to each other: unary calls, and keep-alives on standing
//! streams.

use std::time::Instant;

use anyhow::bail;
use proto::etcdserverpb::{LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest};

use super::http2::{Calling, Event, Http2};
use super::requests::{Expected, Requests, path};
use crate::connection::Connection;
use crate::load::{Answer, Exchange, Success};

/// A call per operation.
pub struct Calls {
    requests: Requests,
    /// What each client's answer must show, and whether it does.
    pending: Vec<Option<(Expected, bool)>>,
}

impl Calls {
    /// The calls of so many clients.
    pub fn new(requests: Requests, clients: usize) -> Self {
        Self {
            requests,
            pending: vec![None; clients],
        }
    }
}

impl Exchange for Calls {
    type Wire = Http2;

    fn ask(&mut self, http2: &mut Http2, client: u32, now: Instant) -> anyhow::Result<bool> {
        let expected = self.requests.issue(http2, client, now)?;
        self.pending[client as usize] = expected.map(|expected| (expected, false));
        Ok(expected.is_some())
    }

    fn answered(&mut self, event: Event) -> anyhow::Result<Option<Answer>> {
        match event {
            Event::Message { tag, payload } => {
                if let Some((expected, met)) = &mut self.pending[tag as usize] {
                    *met = expected.is_met_by(&payload);
                }
                Ok(None)
            }
            Event::End { tag, outcome } => {
                let pending = self.pending[tag as usize].take();
                Ok(pending.map(|(expected, as_expected)| Answer {
                    client: tag,
                    outcome: outcome.map(|()| Success {
                        as_expected,
                        wrote: expected.is_write(),
                    }),
                }))
            }
        }
    }
}

/// A message per operation, each client on the stream of its own lease.
pub struct KeepAlives {
    leases: Vec<i64>,
    /// The stream of each client, once it is open.
    streams: Vec<Option<u32>>,
}

impl KeepAlives {
    /// The leases of so many clients.
    pub async fn grant(
        connection: &mut Connection<Http2>,
        ttl_s: i64,
        clients: usize,
    ) -> anyhow::Result<Self> {
        let mut leases = Vec::with_capacity(clients);
        for _ in 0..clients {
            let grant = LeaseGrantRequest { ttl: ttl_s, id: 0 };
            let granted: LeaseGrantResponse = connection.call(path::LEASE_GRANT, &grant).await?;
            leases.push(granted.id);
        }
        Ok(Self {
            streams: vec![None; leases.len()],
            leases,
        })
    }
}

impl Exchange for KeepAlives {
    type Wire = Http2;

    fn ask(&mut self, http2: &mut Http2, client: u32, _: Instant) -> anyhow::Result<bool> {
        let at = client as usize;
        let request = LeaseKeepAliveRequest {
            id: self.leases[at],
        };
        if let Some(stream) = self.streams[at] {
            http2.send(stream, &request);
        } else {
            let path = path::LEASE_KEEP_ALIVE;
            self.streams[at] = Some(http2.open(client, path, &request, Calling::Streaming)?);
        }
        Ok(true)
    }

    fn answered(&mut self, event: Event) -> anyhow::Result<Option<Answer>> {
        match event {
            Event::Message { tag, payload } => Ok(Some(Answer {
                client: tag,
                outcome: Ok(Success {
                    as_expected: Expected::Alive.is_met_by(&payload),
                    wrote: false,
                }),
            })),
            Event::End { outcome, .. } => {
                bail!("the server ended a keep-alive stream: {outcome:?}")
            }
        }
    }
}
