//! The clock that ends calls which take too long: it advances the engine's epoch every millisecond, but only while some call
//! runs, so that an idle host stays idle.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The length of an epoch; deadlines are whole numbers of it.
pub(super) const EPOCH: Duration = Duration::from_millis(1);

/// Advances the epoch while calls run.
pub(super) struct Ticker {
    running: AtomicUsize,
    stop: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Ticker {
    pub(super) fn start(engine: wasmtime::Engine) -> io::Result<Arc<Ticker>> {
        let ticker = Arc::new(Ticker {
            running: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            thread: Mutex::new(None),
        });
        let ticking = Arc::clone(&ticker);
        let thread = std::thread::Builder::new()
            .name("epoch".to_owned())
            .spawn(move || {
                while !ticking.stop.load(Ordering::Acquire) {
                    if ticking.running.load(Ordering::Acquire) == 0 {
                        std::thread::park();
                    } else {
                        std::thread::sleep(EPOCH);
                        engine.increment_epoch();
                    }
                }
            })?;
        *ticker.thread() = Some(thread);
        Ok(ticker)
    }

    /// Epochs advance until the guard is dropped.
    pub(super) fn tick(self: &Arc<Ticker>) -> Ticking {
        if self.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.wake();
        }
        Ticking(Arc::clone(self))
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
        let thread = self.thread().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the epoch thread died");
        }
    }

    fn wake(&self) {
        if let Some(thread) = self.thread().as_ref() {
            thread.thread().unpark();
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the epochs advancing.
pub struct Ticking(Arc<Ticker>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}
