//! Who waits where. Driven by calls under the hub's lock.

use super::stream::Inbox;
use super::{News, ends_directory, passes_over};
use keyspace::node::{Event, Happening, Step, parent};
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
}

/// Where somebody waits.
pub struct Place {
    path: Path,
    name: u64,
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

    /// Tells of an event. The steps that it came with say which nodes ended with it; without them,
    /// any beneath may have.
    pub fn tell(&mut self, event: &Event, steps: Option<&[Step]>, wakers: &mut Vec<Waker>) {
        let mut telling = Telling { event, news: None };
        let path = event.name.as_bytes();
        self.tell_at(path, |_| true, &mut telling, wakers);
        for above in std::iter::successors(parent(path), |path| parent(path)) {
            if !passes_over(above, path) {
                self.tell_at(above, |waiter| waiter.recursive, &mut telling, wakers);
            }
        }
        if ends_directory(event) {
            for path in self.ended_beneath(path, steps) {
                self.tell_at(&path, |_| true, &mut telling, wakers);
            }
        }
    }

    /// The paths beneath `path` where somebody waits and a node ended.
    fn ended_beneath(&self, path: &[u8], steps: Option<&[Step]>) -> Vec<Path> {
        // Beneath is all that comes after the slash and before what follows a slash.
        let (first, end) = ([path, b"/"].concat(), [path, b"0"].concat());
        let bounds = (Bound::Excluded(&first[..]), Bound::Excluded(&end[..]));
        let beneath = self.paths.range::<[u8], _>(bounds);
        let mut paths: Vec<Path> = beneath.map(|(path, _)| Arc::clone(path)).collect();
        if let Some(steps) = steps.filter(|_| !paths.is_empty()) {
            let ended = steps.iter().filter(|step| step.what == Happening::Deleted);
            let ended: HashSet<&[u8]> = ended.map(|step| step.name.as_bytes()).collect();
            paths.retain(|path| ended.contains(&path[..]));
        }
        paths
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
