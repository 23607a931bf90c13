//! What a durable append costs on this disk: our log, whose segments are filled ahead, beside a
//! plain file that grows. `cargo run --release -p store --example sync_cost [DIR]`

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use store::log::{Log, LogOptions};
use store::{LogEntry, LogReader, LogStore, Vote};

const ENTRY_BYTES: usize = 256;
const MEASURED: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let parent = std::env::args_os()
        .nth(1)
        .map_or(PathBuf::from("."), PathBuf::from);
    let dir = tempfile::tempdir_in(parent)?;
    println!("entries of {ENTRY_BYTES} bytes    growing file            log");
    for batch in [1, 16, 256] {
        let mut growing = Growing::create(&dir.path().join("growing"), batch)?;
        let mut log = Log::open(
            &dir.path().join(format!("log-{batch}")),
            LogOptions::default(),
        )?;
        // In turns, so that whatever else the disk does hits both.
        let (mut growing_took, mut log_took) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        while begun.elapsed() < MEASURED {
            growing_took.push(timed(|| growing.append())?);
            log_took.push(timed(|| append(&mut log, batch as u64))?);
        }
        let (growing, log) = (summary(growing_took, batch), summary(log_took, batch));
        println!("batches of {batch:<12} {growing}  {log}");
    }
    let opened = Instant::now();
    let log = Log::open(&dir.path().join("log-256"), LogOptions::default())?;
    let entries = log.last_index() + 1 - log.first_index();
    println!(
        "opening a log of {entries} entries took {:?}",
        opened.elapsed()
    );
    Ok(())
}

struct Growing {
    file: File,
    content: Vec<u8>,
}

impl Growing {
    fn create(path: &Path, batch: usize) -> Result<Growing> {
        Ok(Growing {
            file: File::create(path)?,
            content: vec![7; ENTRY_BYTES * batch],
        })
    }

    fn append(&mut self) -> Result<()> {
        self.file.write_all(&self.content)?;
        Ok(self.file.sync_data()?)
    }
}

fn append(log: &mut Log, batch: u64) -> Result<()> {
    let next = log.last_index() + 1;
    let entry = |index| LogEntry {
        index,
        term: 1,
        kind: 0,
        data: Bytes::from_static(&[7; ENTRY_BYTES]),
    };
    let entries: Vec<_> = (next..next + batch).map(entry).collect();
    let vote = Vote {
        commit: next - 1,
        ..Vote::default()
    };
    log.append(&entries, vote)?;
    Ok(log.cut(next.saturating_sub(10_000))?)
}

fn timed(append: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    append()?;
    Ok(begun.elapsed())
}

fn summary(mut took: Vec<Duration>, batch: usize) -> String {
    let rate = (took.len() * batch) as f64 / took.iter().sum::<Duration>().as_secs_f64();
    took.sort_unstable();
    let p50_us = took[took.len() / 2].as_micros();
    format!("{rate:>9.0}/s p50 {p50_us:>4} us")
}
