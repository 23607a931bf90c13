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
const MEASURED: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let parent = std::env::args_os()
        .nth(1)
        .map_or(PathBuf::from("."), PathBuf::from);
    let dir = tempfile::tempdir_in(parent)?;
    println!("entries of {ENTRY_BYTES} bytes    growing file            log");
    for batch in [1, 16, 256] {
        let growing = growing(&dir.path().join("growing"), batch)?;
        let log = log(&dir.path().join(format!("log-{batch}")), batch)?;
        println!("batches of {batch:<12} {growing}  {log}");
    }
    let opened = Instant::now();
    Log::open(&dir.path().join("log-256"), LogOptions::default())?;
    println!("opening the last log again took {:?}", opened.elapsed());
    Ok(())
}

fn growing(path: &Path, batch: usize) -> Result<String> {
    let mut file = File::create(path)?;
    let content = vec![7; ENTRY_BYTES * batch];
    measure(batch, || {
        file.write_all(&content)?;
        Ok(file.sync_data()?)
    })
}

fn log(dir: &Path, batch: usize) -> Result<String> {
    let mut log = Log::open(dir, LogOptions::default())?;
    let data = Bytes::from(vec![7; ENTRY_BYTES]);
    measure(batch, || {
        let next = log.last_index() + 1;
        let entry = |index| LogEntry {
            index,
            term: 1,
            kind: 0,
            data: data.clone(),
        };
        let entries: Vec<_> = (next..next + batch as u64).map(entry).collect();
        let vote = Vote {
            commit: next - 1,
            ..Vote::default()
        };
        log.append(&entries, vote)?;
        Ok(log.cut(next.saturating_sub(10_000))?)
    })
}

fn measure(batch: usize, mut append: impl FnMut() -> Result<()>) -> Result<String> {
    let mut took = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < MEASURED {
        let append_begun = Instant::now();
        append()?;
        took.push(append_begun.elapsed());
    }
    let rate = (took.len() * batch) as f64 / begun.elapsed().as_secs_f64();
    took.sort_unstable();
    Ok(format!(
        "{rate:>9.0}/s p50 {:>4} us",
        took[took.len() / 2].as_micros()
    ))
}
