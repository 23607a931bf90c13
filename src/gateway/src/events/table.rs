//! Who waits where. Driven by calls under the hub's lock.

use super::stream::Inbox;
use super::{News, Waiting, ends_directory, passes_over};
use keyspace::node::{Event, Happening, Step, beyond, parent};
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::task::Waker;

/// A node's path, shared by all who wait there.
type Path = Arc<[u8]>;

/// See the module.
#[derive(Default)]
pub struct Table {
    /// Ordered, so that those beneath a directory are found; of one path, in the order they came.
    paths: BTreeMap<Path, BTreeMap<u64, Waiter>>,
    next: u64,
}

/// One who waits.
pub struct Waiter {
    /// From which event on.
    pub since: u64,
    /// At all nodes beneath as well.
    pub recursive: bool,
    /// For one event.
    pub once: bool,
    /// Where it is put.
    pub inbox: Arc<Inbox>,
    /// Counts it.
    pub _waiting: Waiting,
}

/// Where somebody waits.
pub struct Place {
    path: Path,
    name: u64,
}

/// Which nodes ended with the events that are told together.
pub enum Ended<'a> {
    /// Those that these steps deleted, by name as soon as somebody asks.
    With(&'a [Step], OnceCell<HashSet<&'a [u8]>>),
    /// Any may have: how the state of a snapshot came to be is not known.
    Unknown,
}

impl<'a> Ended<'a> {
    /// Those that these steps deleted.
    pub fn with(steps: &'a [Step]) -> Ended<'a> {
        Ended::With(steps, OnceCell::new())
    }

    /// Whether the node of a path may be one of them.
    fn may_be(&self, path: &[u8]) -> bool {
        let Ended::With(steps, names) = self else {
            return true;
        };
        let names = names.get_or_init(|| {
            let deleted = steps.iter().filter(|step| step.what == Happening::Deleted);
            deleted.map(|step| step.name.as_bytes()).collect()
        });
        names.contains(path)
    }
}

/// An event, made into one that all share as soon as someone wants it.
struct Telling<'a> {
    event: &'a Event,
    news: Option<Arc<News>>,
}

impl Telling<'_> {
    fn news(&mut self) -> Arc<News> {
        let news = self
            .news
            .get_or_insert_with(|| Arc::new(News::of(self.event.clone())));
        Arc::clone(news)
    }
}

impl Table {
    /// Lets one wait.
    pub fn add(&mut self, path: &[u8], waiter: Waiter) -> Place {
        let path = match self.paths.get_key_value(path) {
            Some((path, _)) => Arc::clone(path),
            None => path.into(),
        };
        let name = self.next;
        self.next += 1;
        let here = self.paths.entry(Arc::clone(&path)).or_default();
        here.insert(name, waiter);
        Place { path, name }
    }

    /// One waits no more, if it still does.
    pub fn remove(&mut self, place: &Place) {
        if let Some(here) = self.paths.get_mut(&place.path) {
            here.remove(&place.name);
            if here.is_empty() {
                self.paths.remove(&place.path);
            }
        }
    }

    /// Tells of an event, and those whose nodes ended with it.
    pub fn tell(&mut self, event: &Event, ended: &Ended, wakers: &mut Vec<Waker>) {
        let mut telling = Telling { event, news: None };
        let path = event.name.as_bytes();
        self.tell_at(path, |_| true, &mut telling, wakers);
        for above in std::iter::successors(parent(path), |path| parent(path)) {
            if !passes_over(above, path) {
                self.tell_at(above, |waiter| waiter.recursive, &mut telling, wakers);
            }
        }
        if ends_directory(event) {
            for path in self.ended_beneath(path, ended) {
                self.tell_at(&path, |_| true, &mut telling, wakers);
            }
        }
    }

    /// The paths beneath `path` where somebody waits and a node ended.
    fn ended_beneath(&self, path: &[u8], ended: &Ended) -> Vec<Path> {
        let (first, end) = ([path, b"/"].concat(), beyond(path));
        let bounds = (Bound::Excluded(&first[..]), Bound::Excluded(&end[..]));
        let beneath = self.paths.range::<[u8], _>(bounds);
        beneath
            .filter(|(path, _)| ended.may_be(path))
            .map(|(path, _)| Arc::clone(path))
            .collect()
    }

    /// Tells those who wait at `path`, if they are meant.
    fn tell_at(
        &mut self,
        path: &[u8],
        meant: impl Fn(&Waiter) -> bool,
        telling: &mut Telling,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(here) = self.paths.get_mut(path) else {
            return;
        };
        here.retain(|_, waiter| {
            if telling.event.index < waiter.since || !meant(waiter) {
                return true;
            }
            let (stays, waker) = waiter.inbox.put(telling.news(), waiter.once);
            wakers.extend(waker);
            stays
        });
        if here.is_empty() {
            self.paths.remove(path);
        }
    }

    /// Nobody knows any more what they missed.
    pub fn dismiss_all(&mut self, wakers: &mut Vec<Waker>) {
        for waiter in std::mem::take(&mut self.paths)
            .into_values()
            .flat_map(BTreeMap::into_values)
        {
            wakers.extend(waiter.inbox.end());
        }
    }
}
