//! The hub against a plain list of watchers.

use super::{delete, drain};
use crate::nodes::{Mode, Once, What, Which};
use crate::testing::{World, put, txn};
use keyspace::Revision;
use proptest::prelude::*;

/// One of the model's steps.
#[derive(Clone, Debug)]
enum Step {
    /// Puts or deletes these.
    Write(Vec<(usize, bool)>),
    /// Publishes what was written, if it was not.
    Publish,
    /// Reads and watches.
    Watch(usize, usize, Once),
    Add(usize, usize, Mode),
    Remove(usize, usize, Which),
    Take(usize),
}

const PATHS: [&str; 6] = ["/", "/a", "/a/b", "/a/b/c", "/a/d", "/e"];

fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    let once = prop::sample::select(vec![Once::Data, Once::Children]);
    let mode = prop::sample::select(vec![Mode::Persistent, Mode::Recursive]);
    let which = prop::sample::select(vec![
        Which::Any,
        Which::Children,
        Which::Data,
        Which::Persistent,
        Which::Recursive,
    ]);
    prop_oneof![
        5 => prop::collection::btree_map(path(), any::<bool>(), 1..3)
            .prop_map(|writes| Step::Write(writes.into_iter().collect())),
        4 => Just(Step::Publish),
        6 => (0..2usize, path(), once).prop_map(|(who, path, once)| Step::Watch(who, path, once)),
        2 => (0..2usize, path(), mode).prop_map(|(who, path, mode)| Step::Add(who, path, mode)),
        1 => (0..2usize, path(), which).prop_map(|(who, path, which)| Step::Remove(who, path, which)),
        3 => (0..2usize).prop_map(Step::Take),
    ]
}

/// A watcher of the model, which keeps them all in one list.
struct Plain {
    path: usize,
    kind: PlainKind,
    since: Revision,
}

impl Plain {
    fn wants(&self, what: What, path: &str) -> bool {
        let own = PATHS[self.path];
        let beneath = own == "/"
            || path
                .strip_prefix(own)
                .is_some_and(|rest| rest.starts_with('/'));
        match self.kind {
            PlainKind::Once(Once::Data) => own == path && what != What::ChildrenChanged,
            PlainKind::Once(Once::Children) => {
                own == path && matches!(what, What::ChildrenChanged | What::Deleted)
            }
            PlainKind::Lasting(Mode::Persistent) => own == path,
            PlainKind::Lasting(Mode::Recursive) => {
                (own == path || beneath) && what != What::ChildrenChanged
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PlainKind {
    Once(Once),
    Lasting(Mode),
}

/// What a command's steps mean to one connection of the model.
fn tell(list: &mut Vec<Plain>, steps: &[keyspace::node::Step], events: &mut Vec<String>) {
    use keyspace::node::Happening;
    for step in steps {
        let path = String::from_utf8(step.name.as_bytes().to_vec()).expect("paths are text");
        let what = match step.what {
            Happening::Created => What::Created,
            Happening::Written | Happening::Emptied => What::Changed,
            Happening::Deleted => What::Deleted,
        };
        let mut news = vec![(what, path.clone())];
        if what != What::Changed
            && let Some((above, _)) = path.rsplit_once('/').filter(|_| path != "/")
        {
            let above = if above.is_empty() { "/" } else { above };
            news.push((What::ChildrenChanged, above.to_owned()));
        }
        for (what, path) in news {
            let mut told = false;
            list.retain(|watcher| {
                let fires = step.revision > watcher.since && watcher.wants(what, &path);
                told |= fires;
                !fires || matches!(watcher.kind, PlainKind::Lasting(_))
            });
            if told {
                events.push(format!("{what:?} {path}@{}", step.revision));
            }
        }
    }
}

proptest! {
    /// Whatever is written, published, watched and taken in whatever order: every connection is told
    /// exactly what a plain list of its watchers says.
    #[test]
    fn the_table_tells_what_a_list_tells(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::with_session();
        let watchers = [world.watcher(), world.watcher()];
        let mut lists = [Vec::<Plain>::new(), Vec::new()];
        let mut expected = [Vec::<String>::new(), Vec::new()];
        let mut unpublished = None;
        for step in steps {
            let is_write = matches!(step, Step::Write(_) | Step::Publish);
            if let Some((command, applied)) = unpublished.take_if(|_| is_write) {
                let applied: keyspace::Applied = applied;
                world.sink.publish(&command, &applied);
                for (list, events) in lists.iter_mut().zip(&mut expected) {
                    tell(list, &applied.steps, events);
                }
            }
            match step {
                Step::Write(writes) => {
                    let ops = writes.iter().map(|(path, put_it)| match put_it {
                        true => put(PATHS[*path]),
                        false => delete(PATHS[*path]),
                    });
                    let command = txn(ops.collect());
                    let applied = world.apply(&command);
                    unpublished = Some((command, applied));
                }
                Step::Publish => {}
                Step::Watch(who, path, once) => {
                    let (since, _) = watchers[who].node(PATHS[path].as_bytes(), once, |_| true);
                    let kind = PlainKind::Once(once);
                    // Those left at one revision are one.
                    lists[who].retain(|w| w.path != path || w.kind != kind || w.since != since);
                    lists[who].push(Plain { path, kind, since });
                }
                Step::Add(who, path, mode) => {
                    let since = watchers[who].add(PATHS[path].as_bytes(), mode);
                    let kind = PlainKind::Lasting(mode);
                    if !lists[who].iter().any(|w| w.path == path && w.kind == kind) {
                        lists[who].push(Plain { path, kind, since });
                    }
                }
                Step::Remove(who, path, which) => {
                    let had = watchers[who].remove(PATHS[path].as_bytes(), which);
                    let before = lists[who].len();
                    lists[who].retain(|w| {
                        let is_it = match which {
                            Which::Any => true,
                            Which::Children => w.kind == PlainKind::Once(Once::Children),
                            Which::Data => w.kind == PlainKind::Once(Once::Data),
                            Which::Persistent => w.kind == PlainKind::Lasting(Mode::Persistent),
                            Which::Recursive => w.kind == PlainKind::Lasting(Mode::Recursive),
                        };
                        w.path != path || !is_it
                    });
                    prop_assert_eq!(had, lists[who].len() < before);
                }
                Step::Take(who) => {
                    prop_assert_eq!(drain(&watchers[who]), std::mem::take(&mut expected[who]));
                }
            }
        }
        for (watcher, expected) in watchers.iter().zip(expected) {
            prop_assert_eq!(drain(watcher), expected);
        }
    }
}
