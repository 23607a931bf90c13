//! Bytes from the network: whatever comes is answered, and what is answered is JSON.

use etcd_v2::errors::{Asked, Error};
use etcd_v2::form::Form;
use etcd_v2::node::{Bounds, Reading};
use etcd_v2::query::{Method, Query};
use etcd_v2::{Root, json, ops};
use gateway::keyspace::command::Nodes;
use gateway::keyspace::{Command, Keyspace, Outcome, Principal, Stamp, WallMs};
use proptest::prelude::*;
use std::cell::Cell;

/// Bytes of which many mean something in a form.
fn form() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "value",
            "ttl",
            "prevIndex",
            "prevValue",
            "prevExist",
            "dir",
            "recursive",
            "refresh",
            "=",
            "=",
            "=",
            "&",
            "&",
            "&",
            "%",
            "%2",
            "%41",
            "+",
            ";",
            "true",
            "1",
            "x",
        ])
        .prop_map(|word| word.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..3),
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

fn method() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![Method::Put, Method::Post, Method::Delete])
}

fn parse(method: Method, body: &[u8], query: &[u8]) -> Result<Query, Error> {
    let form = Form::parse(body, query);
    let form =
        form.map_err(|why| Error::of_request(etcd_v2::errors::Code::InvalidForm, why.to_string()))?;
    Query::parse(method, &form)
}

fn assert_json(text: &[u8]) {
    let parsed: Result<serde_json::Value, _> = serde_json::from_slice(text);
    assert!(parsed.is_ok(), "{}", text.escape_ascii());
}

/// Reads a path, with all that lies beneath and without, whole and within bounds.
fn assert_told(keyspace: &Keyspace, root: &Root, path: &[u8]) {
    let (moment, auth) = (keyspace.reader().moment(), keyspace.reader().auth());
    for (recursive, nodes_max) in [(false, u64::MAX), (true, u64::MAX), (true, 2)] {
        let reading = Reading {
            moment: &moment,
            root,
            now: WallMs(1_700_000_000_000),
            recursive,
            rights: auth
                .rights(&Principal::Anonymous)
                .expect("nobody is judged"),
            bound: true,
            bounds: Bounds {
                nodes_max,
                ..Bounds::NONE
            },
            listed: Cell::default(),
        };
        match reading.node(&root.key(path)) {
            Ok(told) => assert_json(&told),
            Err(unseen) => {
                let error = Error::unseen(&unseen, root, path, moment.event());
                assert_json(&error.encode());
            }
        }
    }
}

proptest! {
    #[test]
    fn every_request_is_answered_in_json(
        root in prop::sample::select(vec!["/", "/apps/v2"]),
        requests in prop::collection::vec((method(), form(), form(), prop::collection::vec(any::<u8>(), 0..6)), 1..20),
    ) {
        let mut keyspace = Keyspace::new();
        let root = Root::at(root).expect("a path");
        for (index, (method, body, query, name)) in (1..).zip(requests) {
            let query = match parse(method, &body, &query) {
                Ok(query) => query,
                Err(error) => {
                    assert_json(&error.encode());
                    continue;
                }
            };
            let path = [b"/", &name[..]].concat();
            assert_told(&keyspace, &root, &path);
            let (key, now) = (root.key(&path), WallMs(1_700_000_000_000));
            // As the adapter does: it answers for the root itself.
            let op = match method {
                Method::Post => ops::post(&key, &query, now),
                _ if path == b"/" => continue,
                Method::Delete => ops::delete(key, &query),
                Method::Put | Method::Get | Method::Head => ops::put(key, &query, now),
            };
            let cause = op.cause;
            let command = Command::Nodes(Nodes { ops: vec![op], ..Nodes::default() });
            let applied = keyspace.apply(Stamp { index, wall: now }, &command);
            let asked = Asked { path: &path, query: &query, root: &root };
            match applied.outcome {
                Ok(Outcome::Nodes(answers)) => {
                    let (answer, event) = (&answers[0], applied.event);
                    assert_json(&etcd_v2::node::written(answer, cause, event, &root, now, false));
                }
                Ok(other) => panic!("it was nodes: {other:?}"),
                Err(refusal) => assert_json(&asked.refused(refusal, applied.event).encode()),
            }
        }
        assert_told(&keyspace, &root, b"/");
        for event in keyspace.reader().events(0).1 {
            assert_json(&etcd_v2::node::event(&event, &root));
        }
    }

    #[test]
    fn strings_are_json_and_keep_their_text(text in any::<String>(), bytes in any::<Vec<u8>>()) {
        let mut out = Vec::new();
        json::string(&mut out, text.as_bytes());
        let parsed: String = serde_json::from_slice(&out).expect("it is JSON");
        prop_assert_eq!(parsed, text);
        out.clear();
        json::string(&mut out, &bytes);
        assert_json(&out);
    }
}
