//! Gets that wait for events, and are answered line by line.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::super::args::Args;
use super::super::http::Answer;
use super::Session;
use super::request::{Ask, Show};

/// How long an event that must come, or the end of an answer, may take.
const EVENT_DEADLINE: Duration = Duration::from_secs(15);
/// How long nothing must come to count as quiet: there is nothing to await.
const QUIET: Duration = Duration::from_millis(300);
/// Lines under way between a script and its server.
const LINES_MAX: usize = 4096;

/// An answer that is read by a task of its own. Its connection is closed with it.
pub struct Wait {
    lines: mpsc::Receiver<String>,
    is_stream: bool,
    reading: AbortHandle,
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Wait {
    fn new(mut answer: Answer, is_stream: bool) -> Self {
        let (forward, lines) = mpsc::channel(LINES_MAX);
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            while let Ok(Some(piece)) = answer.piece().await {
                read.extend(piece);
                while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = read.drain(..=end).collect();
                    let line = String::from_utf8_lossy(&line[..end]).into_owned();
                    if forward.send(line).await.is_err() {
                        return;
                    }
                }
            }
        });
        Self {
            lines,
            is_stream,
            reading: reading.abort_handle(),
        }
    }

    /// The next event, or what came instead.
    async fn next(&mut self, within: Duration) -> Result<String, &'static str> {
        match tokio::time::timeout(within, self.lines.recv()).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err("end"),
            Err(_) => Err("nothing"),
        }
    }
}

impl Session<'_> {
    /// Asks, and prints the head of the answer: once it is there the server waits.
    pub(super) async fn wait(&mut self, args: &mut Args) -> Result<String> {
        let name = args.word()?;
        args.push_front("wait", "true");
        let is_stream = args.peek("stream") == Some("true");
        let ask = Ask::read("get", args, &mut self.mask)?;
        let show = Show::read(args);
        let mut answer = self.send(&ask).await?;
        if !answer.status.starts_with("200") {
            let body = answer.body().await?;
            return Ok(self.show(&ask, show, &answer, &body));
        }
        let head = self.show(&ask, show, &answer, b"");
        self.waits.insert(name, Wait::new(answer, is_stream));
        Ok(head)
    }

    /// What a script does with an answer that it waits for.
    pub(super) async fn waiting(&mut self, verb: &str, args: &mut Args) -> Result<String> {
        let name = args.word()?;
        if verb == "drop" {
            self.waits.remove(&name).context("nobody waits")?;
            return Ok(String::new());
        }
        let wait = self.waits.get_mut(&name).context("nobody waits")?;
        if verb == "quiet" {
            return Ok(match wait.next(QUIET).await {
                Ok(line) => self.mask.body(&line, true),
                Err("nothing") => "quiet".to_owned(),
                Err(instead) => instead.to_owned(),
            });
        }
        let count = args.optional_word().map_or(Ok(1), |word| word.parse())?;
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(match wait.next(EVENT_DEADLINE).await {
                Ok(line) => self.mask.body(&line, true),
                Err(instead) => instead.to_owned(),
            });
        }
        if !wait.is_stream && wait.next(EVENT_DEADLINE).await != Err("end") {
            lines.push("and no end".to_owned());
        }
        Ok(format!("\n  {}", lines.join("\n  ")))
    }
}
