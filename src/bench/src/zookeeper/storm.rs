//! A client that connects again and again, as all do at once when a member has died.

use std::time::Instant;

use super::call;
use super::frames::Welcome;
use crate::load::Slice;
use crate::protocol::{Member, Working};

/// One such client.
pub struct Storm {
    endpoint: String,
    /// The session it resumes each time; none if it opens and closes one.
    session: Option<Welcome>,
    slice: Slice,
    last: Instant,
}

impl Storm {
    /// A client of `endpoint`, which resumes its one session if so.
    pub async fn new(endpoint: String, resume: bool, slice: Slice) -> anyhow::Result<Self> {
        let mut session = None;
        if resume {
            let mut connection = call::open(&endpoint).await?;
            session = connection.wire().welcome().copied();
            connection.abandon()?;
        }
        Ok(Self {
            endpoint,
            session,
            last: slice.start,
            slice,
        })
    }

    async fn connect(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let connection = match &self.session {
            Some(session) => call::resume(&self.endpoint, session).await?,
            None => call::open(&self.endpoint).await?,
        };
        self.last = Instant::now();
        self.slice.tally.borrow_mut().succeeded(began, self.last);
        if self.session.is_some() {
            connection.abandon()
        } else {
            connection.part().await
        }
    }
}

impl Member for Storm {
    fn begin(&mut self, slice: Slice) {
        self.last = slice.start;
        self.slice = slice;
    }

    fn run(&mut self) -> Working<'_, ()> {
        Box::pin(async {
            while Instant::now() < self.slice.end {
                if let Err(error) = self.connect().await {
                    self.slice.tally.borrow_mut().failed(format!("{error:#}"));
                }
            }
            let mut tally = self.slice.tally.borrow_mut();
            tally.elapsed = tally.elapsed.max(self.last - self.slice.start);
            Ok(())
        })
    }

    fn keep(&mut self) -> Working<'_, ()> {
        Box::pin(async {
            if let Some(session) = &self.session
                && self.last.elapsed() > session.timeout / 3
            {
                call::resume(&self.endpoint, session).await?.abandon()?;
                self.last = Instant::now();
            }
            Ok(())
        })
    }

    fn part(self: Box<Self>) -> Working<'static, ()> {
        Box::pin(async move {
            if let Some(session) = &self.session {
                call::resume(&self.endpoint, session).await?.part().await?;
            }
            Ok(())
        })
    }
}
