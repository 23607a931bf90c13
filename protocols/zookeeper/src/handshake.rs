//! The handshake: how a client opens a session or resumes one.

use crate::jute::{self, Parsed, Write};
use crate::reply::framed;

/// Bytes of a session's password.
pub const PASSWORD_BYTES: usize = 16;

/// What a client asks for when it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The newest state it has seen: a server that is behind must not take it.
    pub zxid: i64,
    /// How long the session is to outlive the client's silence.
    pub timeout_ms: i32,
    /// The session it resumes, or 0.
    pub session: i64,
    /// That session's password.
    pub password: &'a [u8],
    /// Whether a server that cannot write would do; none from clients that know of no such servers,
    /// and do not understand an answer that speaks of it.
    pub read_only: Option<bool>,
}

/// Reads the first frame of a connection.
pub fn parse(frame: &[u8]) -> Option<Connect<'_>> {
    connect(frame).ok().map(|(_, connect)| connect)
}

fn connect(input: &[u8]) -> Parsed<'_, Connect<'_>> {
    let (rest, _version) = jute::int(input)?;
    let (rest, zxid) = jute::long(rest)?;
    let (rest, timeout_ms) = jute::int(rest)?;
    let (rest, session) = jute::long(rest)?;
    let (rest, password) = jute::buffer(rest)?;
    let read_only = jute::boolean(rest).ok().map(|(_, read_only)| read_only);
    let connect = Connect {
        zxid,
        timeout_ms,
        session,
        password: password.unwrap_or_default(),
        read_only,
    };
    Ok((rest, connect))
}

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// What it got; 0 where the session is over.
    pub timeout_ms: i32,
    /// Its session; 0 where that is over.
    pub session: i64,
    /// What it resumes the session with.
    pub password: [u8; PASSWORD_BYTES],
    /// Whether it can only read here.
    pub read_only: bool,
}

impl Welcome {
    /// The session that the client named is over, or never was, or not its own.
    pub const OVER: Welcome = Welcome {
        timeout_ms: 0,
        session: 0,
        password: [0; PASSWORD_BYTES],
        read_only: false,
    };

    /// Appends the answer; `tells_read_only` if the client understands whether it can write here.
    pub fn encode(&self, out: &mut Vec<u8>, tells_read_only: bool) {
        framed(out, |out| {
            out.int(0);
            out.int(self.timeout_ms);
            out.long(self.session);
            out.buffer(Some(&self.password));
            if tells_read_only {
                out.boolean(self.read_only);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_as_long_as_the_client_expects() {
        let len = |tells| {
            let mut out = Vec::new();
            Welcome::OVER.encode(&mut out, tells);
            out.len()
        };
        assert_eq!((len(false), len(true)), (4 + 36, 4 + 37));
    }

    #[test]
    fn clients_may_leave_out_whether_they_only_read() {
        let mut frame = Vec::new();
        frame.int(0);
        frame.long(7);
        frame.int(1000);
        frame.long(9);
        frame.buffer(Some(&[1; PASSWORD_BYTES]));
        let expected = Connect {
            zxid: 7,
            timeout_ms: 1000,
            session: 9,
            password: &[1; PASSWORD_BYTES],
            read_only: None,
        };
        assert_eq!(parse(&frame), Some(expected.clone()));
        let mut newer = frame.clone();
        newer.boolean(true);
        let read_only = Some(true);
        assert_eq!(
            parse(&newer),
            Some(Connect {
                read_only,
                ..expected
            })
        );
        assert_eq!(parse(&frame[..43]), None);
    }
}
