//! The threads that connections run on: one for each core, each with a runtime of its own. A
//! connection stays where it was put, so that what it does never crosses to another core, and no
//! thread steals from or wakes another. Measured against one runtime that spreads its tasks over
//! all threads: less CPU for each call.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// The runtimes. Cheap to clone; they end with the last clone.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    runtimes: Vec<Handle>,
    next: AtomicUsize,
    stop: CancellationToken,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Workers {
    /// Starts one for each core.
    pub fn start() -> io::Result<Workers> {
        let cores = thread::available_parallelism()?.get();
        let stop = CancellationToken::new();
        let mut runtimes = Vec::with_capacity(cores);
        for core in 0..cores {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtimes.push(runtime.handle().clone());
            let stop = stop.clone();
            thread::Builder::new()
                .name(format!("connections-{core}"))
                .spawn(move || runtime.block_on(stop.cancelled()))?;
        }
        let shared = Shared {
            runtimes,
            next: AtomicUsize::new(0),
            stop,
        };
        Ok(Workers {
            shared: Arc::new(shared),
        })
    }

    /// Runs a connection on the next runtime in turn, from its first poll to its end.
    pub fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let turn = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let runtimes = &self.shared.runtimes;
        runtimes[turn % runtimes.len()].spawn(connection);
    }
}
