//! Is a history linearizable? Wing and Gong's search with Lowe's memory of configurations.
//!
//! The search walks the history in time, always trying to let one more operation take effect whose
//! call came before the first outstanding return, and steps back when a return is reached whose
//! operation has not taken effect. A configuration (which operations took effect, and the state they
//! led to) that was left once is never entered again.
//!
//! Three observations keep it near linear on histories of a store that answers with revisions:
//! an answer pins its operation to a revision, so that a branch whose state has passed an
//! outstanding answer's revision is dead at once ([`Model::position`], [`Model::latest`]); a mere read
//! may take effect as soon as its answer is right, so that no alternative to it need be tried
//! ([`Model::reads_only`]); and an operation of unknown outcome that would change nothing need not
//! take effect.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;

/// What the object under test should do, one operation at a time.
pub trait Model {
    /// Everything that later answers may depend on.
    type State: Clone + Eq + Hash;
    /// What was asked.
    type Input;
    /// What was answered.
    type Output;

    /// The state before any operation.
    fn initial(&self) -> Self::State;

    /// The state after `input` took effect in `state`, or `None` when `output` could not have been
    /// its answer. Without an output any answer will do.
    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;

    /// Whether an operation that was answered thus changed nothing, whatever the state it met.
    fn reads_only(&self, _input: &Self::Input, _output: &Self::Output) -> bool {
        false
    }

    /// A figure that never falls as operations take effect. 0 where there is no such figure.
    fn position(&self, _state: &Self::State) -> u64 {
        0
    }

    /// The greatest position at which an operation answered thus can still take effect.
    fn latest(&self, _input: &Self::Input, _output: &Self::Output) -> u64 {
        u64::MAX
    }
}

/// One operation as its client saw it. Times only need to be comparable.
#[derive(Clone, Debug)]
pub struct Operation<I, O> {
    /// Who asked; only for reports.
    pub client: u32,
    /// When it was asked.
    pub called: u64,
    /// What was asked.
    pub input: I,
    /// When what was answered. `None` means that the outcome is unknown: it may take effect at any
    /// time after the call, or never.
    pub answered: Option<(u64, O)>,
}

/// What [`check`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An order that explains every answer, as places in the history.
    Linearizable(Vec<usize>),
    /// No order does.
    Violation {
        /// The longest explanation found.
        longest: Vec<usize>,
        /// The operation whose answer it could not explain.
        stuck: usize,
    },
    /// The search was given up.
    Undecided,
}

/// Looks for an order of `history` that `model` explains, with at most `steps_max` steps of the
/// model.
pub fn check<M: Model>(
    model: &M,
    history: &[Operation<M::Input, M::Output>],
    steps_max: u64,
) -> Verdict {
    Search::new(model, history).run(steps_max)
}

/// As [`check`], but one part of the history for each key, which is sound where the model's keys do
/// not know of each other. `key` says which one an operation touches; where one touches several
/// (`None`), the history is checked as a whole.
pub fn check_by_key<M: Model, K: Ord>(
    model: &M,
    history: &[Operation<M::Input, M::Output>],
    key: impl Fn(&M::Input) -> Option<K>,
    steps_max: u64,
) -> Verdict
where
    M::Input: Clone,
    M::Output: Clone,
{
    let mut parts: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (place, operation) in history.iter().enumerate() {
        match key(&operation.input) {
            Some(key) => parts.entry(key).or_default().push(place),
            None => return check(model, history, steps_max),
        }
    }
    let mut order = Vec::with_capacity(history.len());
    for places in parts.values() {
        let part: Vec<_> = places.iter().map(|&p| history[p].clone()).collect();
        let back = |inner: Vec<usize>| inner.into_iter().map(|p| places[p]).collect::<Vec<_>>();
        match check(model, &part, steps_max) {
            Verdict::Linearizable(inner) => order.extend(back(inner)),
            Verdict::Violation { longest, stuck } => {
                return Verdict::Violation {
                    longest: back(longest),
                    stuck: places[stuck],
                };
            }
            Verdict::Undecided => return Verdict::Undecided,
        }
    }
    Verdict::Linearizable(order)
}

/// Which operations took effect.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken(Box<[u64]>);

impl Taken {
    fn none_of(len: usize) -> Taken {
        Taken(vec![0; len.div_ceil(64)].into())
    }

    fn flip(&mut self, place: usize) {
        self.0[place / 64] ^= 1 << (place % 64);
    }
}

/// A call or a return on the time line.
#[derive(Clone, Copy)]
enum Moment {
    Call(usize),
    Return(usize),
}

/// The calls and returns that are not taken yet, in time, as a doubly linked list in which what was
/// taken out can be put back in reverse order. Moment `m` is at node `m + 1`; node 0 is both ends.
struct TimeLine {
    moments: Vec<Moment>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// The nodes of each operation: its call's, and its return's if it has one.
    nodes: Vec<(usize, Option<usize>)>,
}

impl TimeLine {
    fn new<I, O>(history: &[Operation<I, O>]) -> TimeLine {
        // A call at the very moment of a return counts as concurrent with it: calls sort first.
        let mut sorted: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * history.len());
        for (place, operation) in history.iter().enumerate() {
            sorted.push((operation.called, false, place));
            if let Some((at, _)) = &operation.answered {
                assert!(*at >= operation.called, "answered before it was called");
                sorted.push((*at, true, place));
            }
        }
        sorted.sort_unstable();
        let mut nodes = vec![(0, None); history.len()];
        let mut moments = Vec::with_capacity(sorted.len());
        for (node, (_, returns, place)) in (1..).zip(sorted) {
            if returns {
                nodes[place].1 = Some(node);
                moments.push(Moment::Return(place));
            } else {
                nodes[place].0 = node;
                moments.push(Moment::Call(place));
            }
        }
        let len = moments.len() + 1;
        TimeLine {
            moments,
            next: (0..len).map(|n| (n + 1) % len).collect(),
            previous: (0..len).map(|n| (n + len - 1) % len).collect(),
            nodes,
        }
    }

    fn moment(&self, node: usize) -> Option<Moment> {
        node.checked_sub(1).map(|m| self.moments[m])
    }

    fn take(&mut self, place: usize) {
        let (call, answer) = self.nodes[place];
        self.unlink(call);
        if let Some(answer) = answer {
            self.unlink(answer);
        }
    }

    fn put_back(&mut self, place: usize) {
        let (call, answer) = self.nodes[place];
        if let Some(answer) = answer {
            self.link(answer);
        }
        self.link(call);
    }

    fn unlink(&mut self, node: usize) {
        let (before, after) = (self.previous[node], self.next[node]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    fn link(&mut self, node: usize) {
        let (before, after) = (self.previous[node], self.next[node]);
        self.next[before] = node;
        self.previous[after] = node;
    }
}

/// An operation that took effect, and how to take that back.
struct Step<S> {
    place: usize,
    before: S,
    /// Nothing else need be tried in its stead.
    read: bool,
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Input, M::Output>],
    line: TimeLine,
    state: M::State,
    taken: Taken,
    path: Vec<Step<M::State>>,
    /// Answered operations not yet taken, by the greatest position at which they can be.
    outstanding: BTreeSet<(u64, usize)>,
    seen: HashSet<(Taken, M::State)>,
    longest: Vec<usize>,
    stuck: usize,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a [Operation<M::Input, M::Output>]) -> Self {
        let mut search = Search {
            model,
            history,
            line: TimeLine::new(history),
            state: model.initial(),
            taken: Taken::none_of(history.len()),
            path: Vec::new(),
            outstanding: BTreeSet::new(),
            seen: HashSet::new(),
            longest: Vec::new(),
            stuck: 0,
        };
        search.outstanding = (0..history.len())
            .filter_map(|place| search.deadline(place))
            .collect();
        search
    }

    fn deadline(&self, place: usize) -> Option<(u64, usize)> {
        let operation = &self.history[place];
        let (_, output) = operation.answered.as_ref()?;
        Some((self.model.latest(&operation.input, output), place))
    }

    fn run(mut self, steps_max: u64) -> Verdict {
        let mut node = self.line.next[0];
        let mut steps = 0;
        while !self.outstanding.is_empty() {
            match self.line.moment(node) {
                Some(Moment::Call(place)) => {
                    steps += 1;
                    if steps > steps_max {
                        return Verdict::Undecided;
                    }
                    node = if self.try_take(place) {
                        self.line.next[0]
                    } else {
                        self.line.next[node]
                    };
                }
                Some(Moment::Return(place)) => {
                    self.note_longest(place);
                    match self.step_back() {
                        Some(resume) => node = resume,
                        None => {
                            return Verdict::Violation {
                                longest: self.longest,
                                stuck: self.stuck,
                            };
                        }
                    }
                }
                None => unreachable!("an outstanding operation's return is on the line"),
            }
        }
        Verdict::Linearizable(self.places())
    }

    fn places(&self) -> Vec<usize> {
        self.path.iter().map(|step| step.place).collect()
    }

    fn note_longest(&mut self, stuck: usize) {
        if self.longest.is_empty() || self.path.len() > self.longest.len() {
            self.longest = self.places();
            self.stuck = stuck;
        }
    }

    /// Lets an operation take effect now, if the model and the outstanding answers allow it and the
    /// configuration is new.
    fn try_take(&mut self, place: usize) -> bool {
        let operation = &self.history[place];
        let output = operation.answered.as_ref().map(|(_, output)| output);
        let Some(after) = self.model.step(&self.state, &operation.input, output) else {
            return false;
        };
        if output.is_none() && after == self.state {
            return false;
        }
        let position = self.model.position(&after);
        let most_urgent = self.outstanding.iter().find(|(_, other)| *other != place);
        if most_urgent.is_some_and(|(latest, _)| *latest < position) {
            return false;
        }
        let read = output.is_some_and(|o| self.model.reads_only(&operation.input, o));
        self.taken.flip(place);
        if !read && !self.seen.insert((self.taken.clone(), after.clone())) {
            self.taken.flip(place);
            return false;
        }
        self.line.take(place);
        if let Some(deadline) = self.deadline(place) {
            self.outstanding.remove(&deadline);
        }
        let before = std::mem::replace(&mut self.state, after);
        self.path.push(Step {
            place,
            before,
            read,
        });
        true
    }

    /// Takes back the last step that has alternatives and says after which moment to look for them.
    fn step_back(&mut self) -> Option<usize> {
        loop {
            let step = self.path.pop()?;
            self.state = step.before;
            self.taken.flip(step.place);
            self.line.put_back(step.place);
            if let Some(deadline) = self.deadline(step.place) {
                self.outstanding.insert(deadline);
            }
            if !step.read {
                return Some(self.line.next[self.line.nodes[step.place].0]);
            }
        }
    }
}

#[cfg(test)]
#[path = "linear_tests.rs"]
mod tests;
