//! Memory for each key, and rates of put, get and range, in process:
//!
//! `cargo run --release -p keyspace --example measure -- [KEYS]`
//!
//! Keys of 33 bytes are put in random order, with values of 256 bytes. Rates are by CPU time, so that
//! other work on the machine disturbs them less.

use keyspace::command::{Op, Put, Range, Txn};
use keyspace::{Command, End, Keyspace, Reader, Record, Span, Stamp};
use std::hint::black_box;

/// What the server runs on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let keys: u64 = std::env::args()
        .nth(1)
        .map_or(1_000_000, |n| n.parse().expect("a number"));
    let mut keyspace = Keyspace::new();
    let before = resident_bytes();
    let put_all = |keyspace: &mut Keyspace, round: u64| {
        for n in 0..keys {
            keyspace.apply(Stamp::default(), &put(shuffled(n + round, keys)));
        }
    };
    rate("create", keys, || put_all(&mut keyspace, 0));
    let bytes = resident_bytes() - before;
    println!("memory    {} bytes a key", bytes as u64 / keys);
    rate("overwrite", keys, || put_all(&mut keyspace, 1));
    let newest = keyspace.reader().revision();
    keyspace
        .apply(Stamp::default(), &Command::Compact(newest))
        .outcome
        .expect("it compacts");
    rate("compact", keys, || while keyspace.tidy() {});
    println!(
        "memory    {} bytes a key",
        (resident_bytes() - before) as u64 / keys
    );
    // One revision more, so that the compacted one is an older one, and has to be walked.
    keyspace.apply(Stamp::default(), &put(0));
    read(&keyspace.reader(), keys);
    snapshot(keyspace, keys);
}

fn read(reader: &Reader, keys: u64) {
    rate("get", keys, || {
        for n in 0..keys {
            let range = Range::of(Span::single(key(shuffled(n + 2, keys))));
            black_box(reader.range(&range).expect("it reads"));
        }
    });
    let span = |n| Span {
        start: key(shuffled(n, keys)).into(),
        end: End::Unbounded,
    };
    rate("range 100", keys / 50, || {
        for n in 0..keys / 50 {
            let mut range = Range::of(span(n));
            range.limit = 100;
            black_box(reader.range(&range).expect("it reads"));
        }
    });
    rate("count", keys / 10, || {
        for n in 0..keys / 10 {
            let mut range = Range::of(span(n));
            range.count_only = true;
            black_box(reader.range(&range).expect("it reads"));
        }
    });
    rate("count old", 2, || {
        for _ in 0..2 {
            let mut range = Range::of(Span::all());
            range.count_only = true;
            range.revision = Some(reader.compacted());
            black_box(reader.range(&range).expect("it reads"));
        }
    });
}

fn snapshot(keyspace: Keyspace, keys: u64) {
    let cut = keyspace.cut(None).expect("a whole cut can be taken");
    let mut records: Vec<Record> = Vec::new();
    rate("cut", keys, || records.extend(cut));
    drop(keyspace);
    rate("restore", keys, || {
        black_box(Keyspace::restore(records.into_iter()).expect("it restores"));
    });
}

fn rate(name: &str, operations: u64, work: impl FnOnce()) {
    let start = cpu_ns();
    work();
    let seconds = (cpu_ns() - start) as f64 / 1e9;
    let each_ns = seconds * 1e9 / operations as f64;
    println!(
        "{name:<9} {:>10.0} /s {each_ns:>10.0} ns each",
        operations as f64 / seconds
    );
}

/// Every number below `keys` once for n from 0 to `keys`, in no order: the multiplier is a prime.
fn shuffled(n: u64, keys: u64) -> u64 {
    n * 2_654_435_761 % keys
}

fn key(n: u64) -> String {
    format!("/registry/pods/default/{n:010}")
}

fn put(n: u64) -> Command {
    let put = Put::new(key(n), vec![n as u8; 256]);
    Command::Txn(Txn::unconditional(vec![Op::Put(put)]))
}

fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    stat.split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number")
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages: usize = statm
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    pages * 4096
}
