//! Histories with known verdicts, and a comparison with the definition taken literally.

use super::*;
use crate::kv::{self, Answer, Kv, Op, Reply, Request, Response, Txn};
use proptest::prelude::*;

/// One register: the smallest model that has stale reads.
struct Register;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Write(u8),
    Read,
    /// Write the second if the first is there.
    Swap(u8, u8),
}

impl Model for Register {
    type State = u8;
    type Input = Ask;
    /// What was read; whether a swap happened; 0 for a write.
    type Output = u8;

    fn initial(&self) -> u8 {
        0
    }

    fn step(&self, state: &u8, input: &Ask, output: Option<&u8>) -> Option<u8> {
        let (answer, after) = match *input {
            Ask::Write(value) => (0, value),
            Ask::Read => (*state, *state),
            Ask::Swap(old, new) if old == *state => (1, new),
            Ask::Swap(..) => (0, *state),
        };
        output.is_none_or(|o| *o == answer).then_some(after)
    }

    fn reads_only(&self, input: &Ask, output: &u8) -> bool {
        match input {
            Ask::Write(_) => false,
            Ask::Read => true,
            Ask::Swap(..) => *output == 0,
        }
    }
}

fn op<I, O>(called: u64, input: I, answered: impl Into<Option<(u64, O)>>) -> Operation<I, O> {
    Operation {
        client: 0,
        called,
        input,
        answered: answered.into(),
    }
}

fn register(history: &[Operation<Ask, u8>]) -> bool {
    match check(&Register, history, 1_000_000) {
        Verdict::Linearizable(order) => {
            assert_explains(&Register, history, &order);
            true
        }
        Verdict::Violation { .. } => false,
        Verdict::Undecided => panic!("too many steps"),
    }
}

/// The order that the checker answers with is a proof: look at it.
fn assert_explains<M: Model>(
    model: &M,
    history: &[Operation<M::Input, M::Output>],
    order: &[usize],
) {
    let mut state = model.initial();
    for (nth, &place) in order.iter().enumerate() {
        let operation = &history[place];
        let output = operation.answered.as_ref().map(|(_, o)| o);
        state = model
            .step(&state, &operation.input, output)
            .expect("each step answers as recorded");
        for &later in &order[nth + 1..] {
            let ended = history[later].answered.as_ref().map(|(at, _)| *at);
            assert!(ended.is_none_or(|at| at >= operation.called));
        }
    }
    let answered = |p: &usize| history[*p].answered.is_some();
    assert!(
        (0..history.len())
            .filter(answered)
            .all(|p| order.contains(&p))
    );
}

#[test]
fn reads_beside_a_write_may_see_either() {
    assert!(register(&[
        op(0, Ask::Write(1), (10, 0)),
        op(1, Ask::Read, (3, 0)),
        op(4, Ask::Read, (6, 1)),
    ]));
}

#[test]
fn a_read_may_not_go_back() {
    assert!(!register(&[
        op(0, Ask::Write(1), (10, 0)),
        op(1, Ask::Read, (3, 1)),
        op(4, Ask::Read, (6, 0)),
    ]));
}

#[test]
fn a_stale_read_is_found() {
    assert!(!register(&[
        op(0, Ask::Write(1), (1, 0)),
        op(2, Ask::Read, (3, 0)),
    ]));
}

#[test]
fn a_lost_write_is_found_and_named() {
    let history = [
        op(0, Ask::Write(1), (1, 0)),
        op(2, Ask::Write(2), (3, 0)),
        op(4, Ask::Read, (5, 1)),
    ];
    assert_eq!(
        check(&Register, &history, 100),
        Verdict::Violation {
            longest: vec![0, 1],
            stuck: 2
        }
    );
}

#[test]
fn a_read_of_the_future_is_found() {
    assert!(!register(&[
        op(0, Ask::Read, (1, 1)),
        op(2, Ask::Write(1), (3, 0)),
    ]));
}

#[test]
fn a_double_apply_is_found() {
    // The write took effect once before the other write and once after it.
    assert!(!register(&[
        op(0, Ask::Write(1), (1, 0)),
        op(2, Ask::Write(2), (3, 0)),
        op(4, Ask::Read, (5, 2)),
        op(6, Ask::Read, (7, 1)),
    ]));
}

#[test]
fn an_unknown_outcome_may_take_effect_late_once_or_never() {
    let unknown = || op(0, Ask::Write(1), None);
    let read = |at, value| op(at, Ask::Read, (at + 1, value));
    assert!(register(&[unknown(), read(2, 0)]));
    assert!(register(&[unknown(), read(2, 0), read(4, 1)]));
    assert!(!register(&[unknown(), read(2, 0), read(4, 1), read(6, 0)]));
}

#[test]
fn the_search_is_given_up_after_the_steps_it_was_allowed() {
    let history = [op(0, Ask::Write(1), (1, 0)), op(2, Ask::Read, (3, 1))];
    assert_eq!(check(&Register, &history, 1), Verdict::Undecided);
}

#[test]
fn keys_are_judged_apart_where_no_operation_spans_them() {
    /// One register for each key.
    struct Registers;
    impl Model for Registers {
        type State = BTreeMap<char, u8>;
        type Input = (char, Ask);
        type Output = u8;
        fn initial(&self) -> Self::State {
            BTreeMap::new()
        }
        fn step(
            &self,
            state: &Self::State,
            (key, ask): &(char, Ask),
            output: Option<&u8>,
        ) -> Option<Self::State> {
            let before = state.get(key).copied().unwrap_or(0);
            let value = Register.step(&before, ask, output)?;
            let mut after = state.clone();
            after.insert(*key, value);
            Some(after)
        }
    }
    let mut history = vec![
        op(0, ('a', Ask::Write(1)), (1, 0)),
        op(0, ('b', Ask::Write(2)), (1, 0)),
        op(2, ('a', Ask::Read), (3, 1)),
        op(2, ('b', Ask::Read), (3, 2)),
    ];
    let by_key = |history: &[_]| check_by_key(&Registers, history, |(key, _)| Some(*key), 100);
    assert_eq!(
        by_key(&history),
        Verdict::Linearizable(vec![0, 2, 1, 3]),
        "one key after the other"
    );
    history.push(op(4, ('b', Ask::Read), (5, 1)));
    assert_eq!(
        by_key(&history),
        Verdict::Violation {
            longest: vec![1, 3],
            stuck: 4
        }
    );
}

fn put(key: kv::Key, value: kv::Value) -> Request {
    Request::Txn(Txn {
        then: vec![Op::Put(key, value, 0)],
        ..Txn::default()
    })
}

fn read(key: kv::Key) -> Request {
    Request::Txn(Txn {
        then: vec![Op::Read(key..key + 1)],
        ..Txn::default()
    })
}

fn answered(at: u64, revision: u64, answers: Vec<Answer>) -> Option<(u64, Response)> {
    let reply = Reply::Txn {
        succeeded: true,
        answers,
    };
    let response = Response {
        revision: Some(revision),
        reply: Some(reply),
    };
    Some((at, response))
}

#[test]
fn concurrent_puts_are_put_in_the_order_of_their_revisions() {
    // 400 puts to keys of their own, all at once: only the revisions tell their order, and a search
    // that did not use them would try 400! of them.
    let len = 400;
    let place = |revision: u64| ((revision * 7919) % len) as usize;
    let mut history: Vec<_> = (0..len)
        .map(|n| op(0, put(n as kv::Key, n), None))
        .collect();
    for nth in 0..len {
        history[place(nth)].answered = answered(1_000, nth + 2, vec![Answer::Put(None)]);
    }
    let expected = (0..len).map(place).collect();
    assert_eq!(
        check(&Kv, &history, len * len),
        Verdict::Linearizable(expected)
    );
}

#[test]
fn a_revision_given_twice_is_found() {
    let history = [
        op(0, put(1, 1), answered(1, 2, vec![Answer::Put(None)])),
        op(0, put(2, 2), answered(1, 2, vec![Answer::Put(None)])),
    ];
    assert!(matches!(
        check(&Kv, &history, 100),
        Verdict::Violation { .. }
    ));
}

#[test]
fn a_stale_revision_is_found_though_the_value_is_right() {
    // Key 2 is not there before nor after; only the header's revision betrays the stale read.
    let nothing = vec![Answer::Read(vec![])];
    let history = [
        op(0, put(1, 1), answered(1, 2, vec![Answer::Put(None)])),
        op(2, read(2), answered(3, 1, nothing.clone())),
    ];
    assert!(matches!(
        check(&Kv, &history, 100),
        Verdict::Violation { .. }
    ));
    let fresh = [history[0].clone(), op(2, read(2), answered(3, 2, nothing))];
    assert!(matches!(check(&Kv, &fresh, 100), Verdict::Linearizable(_)));
}

#[test]
fn writes_of_unknown_outcome_fill_gaps_and_only_gaps() {
    let lost = |n| op(0, put(n, u64::from(n)), None);
    let seen = |revision| op(5, put(9, 9), answered(6, revision, vec![Answer::Put(None)]));
    let mut history: Vec<_> = (1..=8).map(lost).collect();
    history.push(seen(10));
    assert!(matches!(
        check(&Kv, &history, 1_000_000),
        Verdict::Linearizable(_)
    ));
    history[8] = seen(11);
    assert!(
        matches!(check(&Kv, &history, 1_000_000), Verdict::Violation { .. }),
        "eight lost writes do not make nine revisions"
    );
}

/// The definition taken literally: some order of the answered operations and some of the others
/// that keeps real time and that the model explains.
fn explained_by_brute_force(
    history: &[Operation<Ask, u8>],
    taken: &mut Vec<usize>,
    state: u8,
) -> bool {
    let left: Vec<usize> = (0..history.len()).filter(|p| !taken.contains(p)).collect();
    if left.iter().all(|&p| history[p].answered.is_none()) {
        return true;
    }
    let first_return = left
        .iter()
        .filter_map(|&p| history[p].answered)
        .map(|(at, _)| at)
        .min();
    left.iter().any(|&place| {
        let operation = &history[place];
        if first_return.is_some_and(|at| operation.called > at) {
            return false;
        }
        let output = operation.answered.as_ref().map(|(_, o)| o);
        let Some(after) = Register.step(&state, &operation.input, output) else {
            return false;
        };
        taken.push(place);
        let explained = explained_by_brute_force(history, taken, after);
        taken.pop();
        explained
    })
}

fn operations() -> impl Strategy<Value = Operation<Ask, u8>> {
    let ask = prop_oneof![
        (0..3u8).prop_map(Ask::Write),
        Just(Ask::Read),
        (0..3u8, 0..3u8).prop_map(|(old, new)| Ask::Swap(old, new)),
    ];
    (0..12u64, 0..6u64, ask, 0..3u8, 0..5u8).prop_map(|(called, takes, ask, answer, fate)| {
        let answer = if matches!(ask, Ask::Write(_)) {
            0
        } else {
            answer
        };
        op(called, ask, (fate > 0).then_some((called + takes, answer)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    #[test]
    fn agrees_with_brute_force(history in prop::collection::vec(operations(), 0..7)) {
        let expected = explained_by_brute_force(&history, &mut Vec::new(), 0);
        prop_assert_eq!(register(&history), expected);
    }
}
