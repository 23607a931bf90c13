//! A session's writes: those of one connection take effect in their order and without a gap, none
//! after the session went on through another connection, and none that was acknowledged is missing.
//! The session's end, when its client asks for it, is one of its writes, and the last.

use std::collections::BTreeSet;
use thiserror::Error;

/// One write of a session: through which connection, and which of its writes, from 0.
pub type Write = (u64, u64);

/// What took effect, in the order in which it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The session goes on through this connection.
    Attached(u64),
    /// A write.
    Wrote(Write),
    /// The session's end, asked for as this write.
    Closed(Write),
}

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// A write through a connection that does not hold the session.
    #[error("connection {} wrote while {holder} held the session", .write.0)]
    Stale {
        /// The write.
        write: Write,
        /// Who held the session.
        holder: u64,
    },
    /// A write that was not the connection's next.
    #[error("connection {}: write {} took effect instead of {next}", .write.0, .write.1)]
    OutOfTurn {
        /// The write.
        write: Write,
        /// Which one was next.
        next: u64,
    },
    /// Something took effect in a session that its client had ended.
    #[error("connection {connection} took effect in a session that was closed")]
    AfterEnd {
        /// Through which connection.
        connection: u64,
    },
    /// A write that was acknowledged did not take effect.
    #[error("connection {}: write {} was acknowledged and is lost", .0.0, .0.1)]
    Lost(Write),
}

/// Looks for a broken promise.
pub fn check(effects: &[Effect], acknowledged: &BTreeSet<Write>) -> Result<(), Violation> {
    let (mut holder, mut next, mut closed) = (0, 0, false);
    let mut done = BTreeSet::new();
    for effect in effects {
        let write = match *effect {
            Effect::Attached(connection) | Effect::Wrote((connection, _)) if closed => {
                return Err(Violation::AfterEnd { connection });
            }
            Effect::Attached(connection) => {
                (holder, next) = (connection, 0);
                continue;
            }
            Effect::Wrote(write) | Effect::Closed(write) => write,
        };
        if write.0 != holder {
            return Err(Violation::Stale { write, holder });
        }
        if write.1 != next {
            return Err(Violation::OutOfTurn { write, next });
        }
        next += 1;
        done.insert(write);
        closed = matches!(effect, Effect::Closed(_));
    }
    match acknowledged.difference(&done).next() {
        Some(lost) => Err(Violation::Lost(*lost)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Effect::{Attached, Closed, Wrote};

    fn judge(effects: &[Effect], acknowledged: &[Write]) -> Result<(), Violation> {
        check(effects, &acknowledged.iter().copied().collect())
    }

    #[test]
    fn writes_in_turn_are_fine() {
        let effects = [
            Attached(1),
            Wrote((1, 0)),
            Wrote((1, 1)),
            Attached(2),
            Wrote((2, 0)),
            Closed((2, 1)),
        ];
        assert_eq!(judge(&effects, &[(1, 1), (2, 0), (2, 1)]), Ok(()));
        assert_eq!(judge(&[], &[]), Ok(()));
    }

    #[test]
    fn broken_promises_are_found() {
        let write = (1, 1);
        let late = [Attached(1), Wrote((1, 0)), Attached(2), Wrote(write)];
        assert_eq!(
            judge(&late, &[]),
            Err(Violation::Stale { write, holder: 2 })
        );
        let gap = [Attached(1), Wrote(write)];
        assert_eq!(
            judge(&gap, &[]),
            Err(Violation::OutOfTurn { write, next: 0 })
        );
        let late_end = [Attached(1), Attached(2), Closed((1, 0))];
        assert!(judge(&late_end, &[]).is_err());
        let early_end = [Attached(1), Closed(write)];
        assert!(judge(&early_end, &[]).is_err());
        let after_end = [Attached(1), Closed((1, 0)), Attached(2)];
        let connection = 2;
        assert_eq!(
            judge(&after_end, &[]),
            Err(Violation::AfterEnd { connection })
        );
        let twice = [Attached(1), Wrote((1, 0)), Wrote((1, 0))];
        assert!(judge(&twice, &[]).is_err());
        assert_eq!(judge(&[Attached(1)], &[write]), Err(Violation::Lost(write)));
    }
}
