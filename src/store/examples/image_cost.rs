//! What an image of a million records costs to write and to load, and an increment of a hundredth
//! of it. `cargo run --release -p store --example image_cost [DIR]`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use store::checkpoint::Checkpoints;
use store::{CheckpointStore, Mark, Record};

const RECORDS: u64 = 1_000_000;
const VALUE_BYTES: usize = 270;

fn main() -> Result<()> {
    let parent = std::env::args_os()
        .nth(1)
        .map_or(PathBuf::from("."), PathBuf::from);
    let dir = tempfile::tempdir_in(parent)?;
    let mut store = Checkpoints::open(dir.path())?;
    measure("write an image", || {
        let mut sink = store.begin_image(mark(1))?;
        for key in 0..RECORDS {
            sink.push(record(key))?;
        }
        Ok(sink.finish()?)
    })?;
    drop(store);
    let mut store = measure("open", || Ok(Checkpoints::open(dir.path())?))?;
    measure("read and verify it", || read(&mut store))?;
    measure("write an increment", || {
        let changed = (0..RECORDS).step_by(100).map(record).collect();
        ensure!(
            store.increment(1, mark(2), changed)?,
            "the increment was refused"
        );
        Ok(())
    })?;
    drop(store);
    let mut store = measure("open with increment", || Ok(Checkpoints::open(dir.path())?))?;
    ensure!(store.newest() == Some(mark(2)), "the increment is gone");
    measure("read both", || read(&mut store))
}

fn read(store: &mut Checkpoints) -> Result<()> {
    let loaded = store.load()?.context("an image was written")?;
    let mut records = 0;
    for record in loaded.records {
        record?;
        records += 1;
    }
    ensure!(records == RECORDS, "{records} records came back");
    Ok(())
}

fn record(key: u64) -> Record {
    Record {
        key: Bytes::from(format!("/registry/example/{key:012}")),
        value: Bytes::from(vec![key as u8; VALUE_BYTES]),
    }
}

fn mark(index: u64) -> Mark {
    Mark {
        index,
        term: 1,
        meta: Bytes::new(),
    }
}

fn measure<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (begun, cpu) = (Instant::now(), cpu_time());
    let result = work()?;
    let (took, cpu) = (begun.elapsed(), cpu_time() - cpu);
    println!(
        "{what:<20} {:>5} ms, CPU {:>5} ms",
        took.as_millis(),
        cpu.as_millis()
    );
    Ok(result)
}

fn cpu_time() -> Duration {
    let spec = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(spec.tv_sec as u64, spec.tv_nsec as u32)
}
