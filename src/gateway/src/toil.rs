//! Work that takes a core for long, done beside the connections' threads, a little at a time: a thread
//! carries many connections, and none may wait for another's work.

use replica::Unavailable;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Those who wait for a slot; beyond that nobody waits.
const QUEUED_MAX: usize = 1024;

/// Where work of one kind is done.
pub(crate) struct Toil {
    slots: Arc<Semaphore>,
    /// One for each piece of work, under way or queued.
    places: Arc<Semaphore>,
}

impl Toil {
    /// As many pieces of work at a time as there are slots.
    pub(crate) fn new(slots: usize) -> Toil {
        Toil {
            slots: Arc::new(Semaphore::new(slots)),
            places: Arc::new(Semaphore::new(slots + QUEUED_MAX)),
        }
    }

    /// Does a piece of work. Whoever waits for it may go: it keeps its slot to its own end.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Unavailable::TooMany)?;
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.expect("slots are never closed");
        let held = (place, slot);
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(held);
            done
        });
        done.await.map_err(|ended| match ended.try_into_panic() {
            // A defect ends whoever waits for the work, not only the work.
            Ok(panic) => resume_unwind(panic),
            // The runtime ends.
            Err(_) => Unavailable::Stopped,
        })
    }
}

/// The cores there are.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Work that says when it begins and goes on until it is told.
    fn piece() -> (impl FnOnce() + Send, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (begins, begun) = mpsc::channel();
        let (end, ends) = mpsc::channel();
        let work = move || {
            begins.send(()).expect("someone listens");
            ends.recv().expect("someone tells");
        };
        (work, begun, end)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slot_is_taken_until_its_work_ends() {
        let toil = Arc::new(Toil::new(1));
        let (work, begun, end) = piece();
        let waits = tokio::spawn({
            let toil = Arc::clone(&toil);
            async move { toil.run(work).await }
        });
        begun.recv().expect("it begins");
        waits.abort();
        assert!(waits.await.is_err(), "nobody waits for it now");
        assert_eq!(toil.slots.available_permits(), 0);
        assert_eq!(toil.places.available_permits(), QUEUED_MAX);
        end.send(()).expect("it goes on");
        assert_eq!(toil.run(|| 7).await, Ok(7));
        assert_eq!(toil.places.available_permits(), QUEUED_MAX + 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_may_wait_than_there_are_places() {
        let toil = Toil::new(1);
        let all = u32::try_from(1 + QUEUED_MAX).expect("few");
        let all = Arc::clone(&toil.places).acquire_many_owned(all).await;
        assert_eq!(toil.run(|| 7).await, Err(Unavailable::TooMany));
        drop(all);
        assert_eq!(toil.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    #[should_panic(expected = "a defect")]
    async fn a_panic_reaches_who_waits() {
        Toil::new(1).run(|| panic!("a defect")).await.ok();
    }
}
