//! How requests are read, told in scripts, and what any bytes may not do to the readers.

use bytes::BytesMut;
use goldenscript::{Argument, Command, Context};
use proptest::prelude::*;
use std::error::Error;
use test_each_file::test_each_path;
use zookeeper::jute::Write;
use zookeeper::record::{self, Request};
use zookeeper::{frame, handshake};

test_each_path! { in "protocols/zookeeper/tests/scripts" as scripts => run_script }

fn run_script(path: &std::path::Path) {
    goldenscript::run(&mut Runner, path).expect("the script runs");
}

/// Builds bytes from words (`i` an integer, `l` a long one, `b` a truth value, `s` text, `x`
/// bytes in hex, `null`) and shows how they are read.
struct Runner;

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut bytes = Vec::new();
        for argument in &command.args {
            append(&mut bytes, argument)?;
        }
        match command.name.as_str() {
            "request" => Ok(format!("{:?}\n", record::parse(&bytes))),
            "connect" => Ok(format!("{:?}\n", handshake::parse(&bytes))),
            name => Err(format!("no command {name}").into()),
        }
    }
}

fn append(bytes: &mut Vec<u8>, argument: &Argument) -> Result<(), Box<dyn Error>> {
    let (kind, value) = match argument {
        Argument::Positional(word) => (word.as_str(), ""),
        Argument::KeyValue(kind, value) => (kind.as_str(), value.as_str()),
        other => return Err(format!("unexpected argument {other}").into()),
    };
    match kind {
        "i" => bytes.int(value.parse()?),
        "l" => bytes.long(value.parse()?),
        "b" => bytes.boolean(value == "1"),
        "s" => bytes.text(value),
        "null" => bytes.buffer(None),
        "x" => {
            for digits in value.as_bytes().chunks(2) {
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits)?, 16)?);
            }
        }
        _ => return Err(format!("no bytes are spelled {argument}").into()),
    }
    Ok(())
}

/// The lists in a request: what reading one may allocate.
fn items(request: &Request<'_>) -> usize {
    match request {
        Request::Multi(writes) => writes.len(),
        Request::MultiRead(reads) => reads.len(),
        Request::SetWatches(watches) => {
            let lists = [
                &watches.data,
                &watches.exist,
                &watches.child,
                &watches.persistent,
                &watches.recursive,
            ];
            lists.iter().map(|list| list.len()).sum()
        }
        Request::Write(record::Write::Create(create)) => create.acl.len(),
        Request::Write(record::Write::SetAcl { acl, .. }) => acl.len(),
        _ => 0,
    }
}

/// Kinds of requests that hold lists, and some that do not.
fn kind() -> impl Strategy<Value = i32> {
    prop_oneof![
        Just(1),
        Just(7),
        Just(14),
        Just(21),
        Just(22),
        Just(101),
        Just(105),
        -12..110i32
    ]
}

proptest! {
    #[test]
    fn no_bytes_panic_a_reader_or_make_it_keep_more_than_they_hold(
        kind in kind(),
        body in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..200),
    ) {
        let mut bytes = Vec::new();
        bytes.int(1);
        bytes.int(kind);
        bytes.extend_from_slice(&body);
        if let Ok((_, request)) = record::parse(&bytes) {
            // The shortest item is a length of four bytes.
            prop_assert!(items(&request) <= body.len() / 4);
        }
        record::parse(&body).ok();
        handshake::parse(&body);
    }

    #[test]
    fn frames_never_reserve_more_than_their_bound(bytes: Vec<u8>) {
        const BYTES_MAX: usize = 64;
        let mut read = BytesMut::from(&bytes[..]);
        let mut taken = 0;
        while let Ok(Some(frame)) = frame::next(&mut read, BYTES_MAX) {
            prop_assert!(frame.len() <= BYTES_MAX);
            taken += 4 + frame.len();
        }
        prop_assert_eq!(taken + read.len(), bytes.len());
        prop_assert!(read.capacity() <= 2 * (bytes.len() + BYTES_MAX + 8));
    }

    #[test]
    fn a_path_and_a_watch_are_read_back(path in "/[a-z/]{0,20}", watch: bool) {
        let mut bytes = Vec::new();
        bytes.int(7);
        bytes.int(4);
        bytes.text(&path);
        bytes.boolean(watch);
        let (header, request) = record::parse(&bytes).expect("a sound request");
        prop_assert_eq!(header.xid, 7);
        let expected = record::Read::GetData { path: &path, watch };
        prop_assert_eq!(request, Request::Read(expected));
    }
}
