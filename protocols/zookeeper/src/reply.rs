//! What goes back to a client: answers, in the order of the requests, and events among them.
//!
//! An event of revision n goes before the first answer that was computed at n or later, and after
//! all that were computed before: a client must never see a change before it is told of it, nor be
//! told by a watch that it does not know yet to have set.

use crate::errors::Code;
use crate::jute::Write;
use crate::record::EVENT_XID;
use gateway::keyspace::Revision;
use gateway::nodes::What;

/// Answers that wait to be written. They lie in one buffer, since mostly no event comes between.
#[derive(Default)]
pub struct Replies {
    bytes: Vec<u8>,
    /// Where answers of a revision end, where the next is of a greater one.
    marks: Vec<Mark>,
    /// The greatest revision an answer was computed at.
    revision: Revision,
}

#[derive(Clone, Copy)]
struct Mark {
    revision: Revision,
    end: usize,
}

/// An event to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// When it happened, for its place among the answers.
    pub revision: Revision,
    /// When the client is told that it happened.
    pub zxid: Revision,
    /// What happened.
    pub what: What,
    /// Where.
    pub path: &'a str,
}

/// ZooKeeper's numbers for what can happen.
fn number(what: What) -> i32 {
    match what {
        What::Created => 1,
        What::Deleted => 2,
        What::Changed => 3,
        What::ChildrenChanged => 4,
    }
}

/// The state that every event reports: the client is connected.
const CONNECTED: i32 = 3;

impl Replies {
    /// Answers with a body.
    pub fn answer(&mut self, xid: i32, at: Revision, body: impl FnOnce(&mut Vec<u8>)) {
        self.push(at, |out, at| {
            framed(out, |out| {
                header(out, xid, at.0.cast_signed(), 0);
                body(out);
            });
        });
    }

    /// Answers with an error, which has no body.
    pub fn error(&mut self, xid: i32, at: Revision, code: Code) {
        self.push(at, |out, at| {
            framed(out, |out| {
                header(out, xid, at.0.cast_signed(), code.number());
            });
        });
    }

    /// Answers what ZooKeeper answers without looking at its state: the zxid means nothing.
    pub fn aside(
        &mut self,
        xid: i32,
        zxid: i64,
        code: Option<Code>,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        self.push(Revision(0), |out, _| {
            framed(out, |out| {
                header(out, xid, zxid, code.map_or(0, Code::number));
                body(out);
            });
        });
    }

    /// Tells of something that happened while the client was away, before it is answered.
    pub fn catch_up(&mut self, at: Revision, what: What, path: &str) {
        self.push(at, |out, _| encode_event(out, -1, what, path));
    }

    /// Appends what was computed at a revision. What comes later is never of an older state.
    fn push(&mut self, at: Revision, encode: impl FnOnce(&mut Vec<u8>, Revision)) {
        self.revision = self.revision.max(at);
        let revision = self.revision;
        encode(&mut self.bytes, revision);
        let end = self.bytes.len();
        match self.marks.last_mut() {
            Some(mark) if mark.revision == revision => mark.end = end,
            Some(_) | None => self.marks.push(Mark { revision, end }),
        }
    }

    /// The greatest revision an answer was computed at.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Bytes that wait.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Moves everything into `wire`, with the events, which come in order, where they belong.
    pub fn drain<'a>(&mut self, events: impl Iterator<Item = Event<'a>>, wire: &mut Vec<u8>) {
        let mut events = events.peekable();
        if wire.is_empty() && events.peek().is_none() {
            self.marks.clear();
            return std::mem::swap(wire, &mut self.bytes);
        }
        let mut from = 0;
        for mark in self.marks.drain(..) {
            while let Some(event) = events.next_if(|event| event.revision <= mark.revision) {
                event.encode(wire);
            }
            wire.extend_from_slice(&self.bytes[from..mark.end]);
            from = mark.end;
        }
        events.for_each(|event| event.encode(wire));
        self.bytes.clear();
    }
}

impl Event<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_event(out, self.zxid.0.cast_signed(), self.what, self.path);
    }
}

fn encode_event(out: &mut Vec<u8>, zxid: i64, what: What, path: &str) {
    framed(out, |out| {
        header(out, EVENT_XID, zxid, 0);
        out.int(number(what));
        out.int(CONNECTED);
        out.text(path);
    });
}

fn header(out: &mut Vec<u8>, xid: i32, zxid: i64, error: i32) {
    out.int(xid);
    out.long(zxid);
    out.int(error);
}

/// Puts the length before what is appended.
pub fn framed(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.int(0);
    payload(out);
    let len = crate::jute::length(out.len() - start - 4);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Revision = Revision(5);
    const B: Revision = Revision(7);

    fn event(revision: u64) -> Event<'static> {
        Event {
            revision: Revision(revision),
            zxid: Revision(revision),
            what: What::Changed,
            path: "/a",
        }
    }

    /// The xids and zxids on the wire.
    fn order(replies: &mut Replies, events: &[Event<'static>]) -> Vec<(i32, i64)> {
        let mut wire = Vec::new();
        replies.drain(events.iter().copied(), &mut wire);
        let mut order = Vec::new();
        let mut rest = &wire[..];
        while let Some((len, frame)) = rest.split_first_chunk::<4>() {
            let (frame, after) = frame.split_at(u32::from_be_bytes(*len) as usize);
            let xid = i32::from_be_bytes(frame[..4].try_into().expect("4 bytes"));
            let zxid = i64::from_be_bytes(frame[4..12].try_into().expect("8 bytes"));
            order.push((xid, zxid));
            rest = after;
        }
        order
    }

    #[test]
    fn events_go_before_answers_that_show_them_and_after_those_that_do_not() {
        let mut replies = Replies::default();
        replies.answer(1, A, |_| {});
        replies.answer(2, B, |_| {});
        let events = [event(5), event(6), event(7), event(8)];
        assert_eq!(
            order(&mut replies, &events),
            [(-1, 5), (1, 5), (-1, 6), (-1, 7), (2, 7), (-1, 8)]
        );
        assert_eq!(order(&mut replies, &[]), []);
    }

    #[test]
    fn answers_never_go_back_in_time() {
        let mut replies = Replies::default();
        replies.answer(1, B, |_| {});
        replies.error(2, A, Code::NoNode);
        replies.aside(3, 0, None, |_| {});
        assert_eq!(replies.revision(), B);
        assert_eq!(
            order(&mut replies, &[event(7)]),
            [(-1, 7), (1, 7), (2, 7), (3, 0)]
        );
    }
}
