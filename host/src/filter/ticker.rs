//! The clock that ends calls which take too long: it advances the engine's epoch every millisecond, but only while some call
//! runs or ran a moment ago, so that an idle host stays idle and a busy one does not wake this thread for every event.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The length of an epoch; deadlines are whole numbers of it.
pub(super) const EPOCH: Duration = Duration::from_millis(1);
/// Epochs without a call after which it rests.
const LINGER: u32 = 16;

/// Advances the epoch while calls run.
pub(super) struct Ticker {
    running: AtomicUsize,
    /// Somebody called since the last epoch.
    called: AtomicBool,
    /// It rests, and whoever calls must wake it. It says so before it looks for calls a last time, and who calls says so before looking
    /// here: one of the two sees the other.
    rests: AtomicBool,
    stop: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Ticker {
    pub(super) fn start(engine: wasmtime::Engine) -> io::Result<Arc<Ticker>> {
        let ticker = Arc::new(Ticker {
            running: AtomicUsize::new(0),
            called: AtomicBool::new(false),
            rests: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            thread: Mutex::new(None),
        });
        let ticking = Arc::clone(&ticker);
        let thread = std::thread::Builder::new()
            .name("epoch".to_owned())
            .spawn(move || ticking.run(&engine))?;
        *ticker.thread() = Some(thread);
        Ok(ticker)
    }

    fn run(&self, engine: &wasmtime::Engine) {
        let mut idle = 0;
        while !self.stop.load(Ordering::Acquire) {
            if idle >= LINGER {
                self.rests.store(true, Ordering::SeqCst);
                while self.running.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::Acquire)
                {
                    std::thread::park();
                }
                self.rests.store(false, Ordering::SeqCst);
                idle = 0;
            }
            std::thread::sleep(EPOCH);
            engine.increment_epoch();
            let called = self.called.swap(false, Ordering::Relaxed);
            idle = match called || self.running.load(Ordering::SeqCst) > 0 {
                true => 0,
                false => idle + 1,
            };
        }
    }

    /// Epochs advance until the guard is dropped.
    pub(super) fn tick(self: &Arc<Ticker>) -> Ticking {
        self.called.store(true, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.rests.load(Ordering::SeqCst) {
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
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
