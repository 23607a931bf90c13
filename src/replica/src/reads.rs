//! Linearizable reads: all that arrive while a round is under way share the next one. Sans I/O;
//! `W` is whatever waits.

use crate::core::{Core, ReadReady, Role};

/// Ticks after which an unanswered round is asked anew: it may have been lost, or met a leader that
/// had committed nothing in its term yet. etcd retries after 500 ms too.
const RETRY_TICKS: u32 = 5;

/// See the module.
pub struct Reads<W> {
    member: u64,
    incarnation: u64,
    round: u64,
    /// Who asked since the round under way began.
    queued: Vec<W>,
    /// Whom the round under way is for.
    waiting: Vec<W>,
    waiting_ticks: u32,
    /// The leader and term that the round was asked of.
    asked: (u64, u64),
}

impl<W> Reads<W> {
    /// For one run of a member; other runs and members have other contexts.
    pub fn new(member: u64, incarnation: u64) -> Reads<W> {
        Reads {
            member,
            incarnation,
            round: 0,
            queued: Vec::new(),
            waiting: Vec::new(),
            waiting_ticks: 0,
            asked: (0, 0),
        }
    }

    /// Someone asks.
    pub fn push(&mut self, waiter: W) {
        self.queued.push(waiter);
    }

    /// A tick passed.
    pub fn tick(&mut self) {
        self.waiting_ticks += 1;
    }

    /// Starts the next round if one is due, or the same anew if it seems lost.
    pub fn flush(&mut self, core: &mut Core) {
        let view = core.view();
        let asked = (view.leader, view.term);
        let lost = asked != self.asked || self.waiting_ticks >= RETRY_TICKS;
        // A leader that has committed nothing in its term yet would drop it.
        let early = view.role == Role::Leader && !view.settled;
        if view.leader == 0 || early || (!self.waiting.is_empty() && !lost) {
            return;
        }
        self.waiting.append(&mut self.queued);
        if self.waiting.is_empty() {
            return;
        }
        self.round += 1;
        self.waiting_ticks = 0;
        self.asked = asked;
        core.read_index(self.context());
    }

    fn context(&self) -> Vec<u8> {
        let parts = [self.member, self.incarnation, self.round];
        parts.iter().flat_map(|part| part.to_be_bytes()).collect()
    }

    /// Whom an answer is for; nobody if it is for a round that was given up.
    pub fn take(&mut self, ready: &ReadReady) -> Vec<W> {
        match ready.context == self.context() {
            true => std::mem::take(&mut self.waiting),
            false => Vec::new(),
        }
    }

    /// Drops those that no longer wait.
    pub fn retain(&mut self, mut waits: impl FnMut(&W) -> bool) {
        self.queued.retain(&mut waits);
        self.waiting.retain(&mut waits);
    }

    /// Everyone who still waits, for the end.
    pub fn drain(&mut self) -> impl Iterator<Item = W> {
        let queued = std::mem::take(&mut self.queued).into_iter();
        queued.chain(std::mem::take(&mut self.waiting))
    }
}
