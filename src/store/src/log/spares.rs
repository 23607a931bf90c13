//! The helper thread that keeps a segment ready, so that the writer never waits for one.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::segment::{self, Segment};
use crate::Fault;
use crate::disk::failed;

/// How many segments that are needed no more are kept for their next use; others are removed.
const RECYCLED_MAX: usize = 2;

struct State {
    /// Whether a segment will be needed soon.
    wanted: bool,
    /// The next segment, or why there is none.
    ready: Option<Result<Segment, Fault>>,
    /// Epochs of segments that are needed no more, oldest first.
    freed: VecDeque<u32>,
    /// One could not be put away. Those after it stay too, as the log must have no hole.
    stuck: bool,
    /// Files for the next uses, under the epochs of those.
    recycled: VecDeque<Segment>,
    next_epoch: u32,
    stop: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    dir: PathBuf,
    segment_bytes: u32,
}

pub(super) struct Spares {
    shared: Arc<Shared>,
    helper: Option<JoinHandle<()>>,
}

impl Spares {
    /// Starts the helper. `unused` are segments that never began, `next_epoch` is above any epoch
    /// in the directory.
    pub(super) fn start(
        dir: &Path,
        segment_bytes: u32,
        unused: Vec<u32>,
        next_epoch: u32,
    ) -> Result<Spares, Fault> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                wanted: false,
                ready: None,
                freed: unused.into(),
                stuck: false,
                recycled: VecDeque::new(),
                next_epoch,
                stop: false,
            }),
            changed: Condvar::new(),
            dir: dir.to_path_buf(),
            segment_bytes,
        });
        let helper = Builder::new()
            .name("log-segments".to_string())
            .spawn({
                let shared = shared.clone();
                move || shared.help()
            })
            .map_err(|error| failed("start the helper thread for", dir, &error))?;
        Ok(Spares {
            shared,
            helper: Some(helper),
        })
    }

    /// Says that a segment will be needed soon.
    pub(super) fn prepare(&self) {
        self.shared.want(&mut self.shared.state.lock());
    }

    /// The next segment. Waits for the helper if it is not ready.
    pub(super) fn take(&self) -> Result<Segment, Fault> {
        let mut state = self.shared.state.lock();
        // A failure may be old: there may be room by now. One attempt more tells.
        if state.ready.as_ref().is_some_and(Result::is_err) {
            state.ready = None;
            state.wanted = false;
        }
        loop {
            if let Some(ready) = state.ready.take() {
                state.wanted = false;
                return ready;
            }
            self.shared.want(&mut state);
            self.shared.changed.wait(&mut state);
        }
    }

    /// Gives back segments that are needed no more, oldest first.
    pub(super) fn free(&self, epochs: impl IntoIterator<Item = u32>) {
        self.shared.state.lock().freed.extend(epochs);
        self.shared.changed.notify_all();
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(helper) = self.helper.take()
            && helper.join().is_err()
        {
            tracing::error!("the log's helper thread panicked");
        }
    }
}

impl State {
    fn take_epoch(&mut self) -> u32 {
        self.next_epoch += 1;
        self.next_epoch - 1
    }
}

impl Shared {
    fn want(&self, state: &mut State) {
        if !state.wanted {
            state.wanted = true;
            self.changed.notify_all();
        }
    }

    fn help(&self) {
        let mut state = self.state.lock();
        loop {
            if !state.stuck
                && let Some(epoch) = state.freed.pop_front()
            {
                self.put_away(&mut state, epoch);
            } else if state.stop {
                return;
            } else if state.ready.is_some() || !state.wanted {
                self.changed.wait(&mut state);
            } else if let Some(segment) = state.recycled.pop_front() {
                state.ready = Some(Ok(segment));
                self.changed.notify_all();
            } else {
                let epoch = state.take_epoch();
                let made = MutexGuard::unlocked(&mut state, || {
                    Segment::create(&self.dir, epoch, self.segment_bytes)
                });
                if let Err(fault) = &made {
                    tracing::error!(%fault, "no log segment could be prepared");
                }
                state.ready = Some(made);
                self.changed.notify_all();
            }
        }
    }

    /// Keeps a freed segment for its next use, or removes it. The new name comes at once, so that
    /// what is in the file cannot pass for a part of the log.
    fn put_away(&self, state: &mut MutexGuard<'_, State>, freed: u32) {
        let epoch = (state.recycled.len() < RECYCLED_MAX).then(|| state.take_epoch());
        let kept = MutexGuard::unlocked(state, || {
            let fits = |segment: &Segment| segment.capacity == self.segment_bytes;
            match epoch {
                Some(epoch) if Segment::open(&self.dir, freed).is_ok_and(|s| fits(&s)) => {
                    Segment::recycle(&self.dir, freed, epoch).map(Some)
                }
                Some(_) | None => segment::discard(&self.dir, freed).map(|()| None),
            }
        });
        match kept {
            Ok(segment) => state.recycled.extend(segment),
            Err(fault) => {
                state.stuck = true;
                tracing::error!(%fault, "log segments that are needed no more stay");
            }
        }
    }
}
