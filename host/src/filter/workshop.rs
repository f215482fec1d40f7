//! Makes instances: at once, or ahead of need on a thread of its own, so that a filter that failed goes on with a spare and
//! the pipeline does not wait for a new store. The thread also takes those apart that are not needed any more: giving back the memory of
//! one that holds much takes as long as a hundred events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use super::engine::Engine;
use super::guest::Guest;
use super::guest::bindings::jackfield::filter::types;
use super::instance::{Failure, Instance};
use super::version::Made;

/// Jobs that may wait: for each filter a spare, and what it replaces.
const JOBS: usize = 256;
/// A spare that is on its way is worth this wait: it is as long as making one may take.
const PATIENCE: Duration = Duration::from_millis(250);

/// A configured instance and its manifest.
type Configured = Result<(Instance, types::Manifest), Failure>;

/// Where instances are made.
pub(super) struct Workshop {
    engine: Arc<Engine>,
    jobs: Option<SyncSender<Job>>,
    /// What is on order is not wanted any more.
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Make(Box<Order>),
    Discard(Box<dyn Send>),
}

struct Order {
    file: Arc<str>,
    made: Made,
    saved: Option<Bytes>,
    now_us: u64,
    done: SyncSender<Configured>,
}

/// An instance that is on order, or ready.
pub(super) struct Spare(Receiver<Configured>);

impl Spare {
    /// The instance; `None` if it takes too long.
    pub(super) fn take(self) -> Option<Configured> {
        self.0.recv_timeout(PATIENCE).ok()
    }
}

impl Workshop {
    pub(super) fn new(engine: Arc<Engine>) -> std::io::Result<Workshop> {
        let (jobs, work) = sync_channel::<Job>(JOBS);
        let working = Arc::clone(&engine);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("workshop".to_owned())
            .spawn(move || {
                while let Ok(job) = work.recv() {
                    if stopped.load(Ordering::Acquire) {
                        return;
                    }
                    match job {
                        Job::Make(order) => order.make(&working),
                        Job::Discard(what) => drop(what),
                    }
                }
            })?;
        Ok(Workshop {
            engine,
            jobs: Some(jobs),
            stop,
            thread: Some(thread),
        })
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Orders an instance for later. `None`: too many are on order.
    pub(super) fn order(
        &self,
        file: &Arc<str>,
        made: &Made,
        saved: Option<&Bytes>,
        now_us: u64,
    ) -> Option<Spare> {
        let (done, spare) = sync_channel(1);
        let order = Order {
            file: Arc::clone(file),
            made: made.clone(),
            saved: saved.cloned(),
            now_us,
            done,
        };
        self.jobs
            .as_ref()?
            .try_send(Job::Make(Box::new(order)))
            .ok()?;
        Some(Spare(spare))
    }

    /// Takes an instance, or what holds one, apart; where too much waits, here and now.
    pub(super) fn discard(&self, what: impl Send + 'static) {
        if let Some(jobs) = &self.jobs {
            let _sent = jobs.try_send(Job::Discard(Box::new(what)));
        }
    }
}

impl Order {
    fn make(self, engine: &Engine) {
        let _ticking = engine.ticking();
        let saved = self.saved.as_deref();
        let made = make(engine, &self.file, &self.made, saved, self.now_us);
        // Whoever ordered it may want it no more.
        let _sent = self.done.try_send(made);
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.jobs = None;
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("the workshop's thread died");
        }
    }
}

/// An instance that has its settings and its state.
pub(super) fn make(
    engine: &Engine,
    file: &Arc<str>,
    made: &Made,
    saved: Option<&[u8]>,
    now_us: u64,
) -> Configured {
    let guest = Guest::new(Arc::clone(file), made.limits.memory, made.muted);
    let mut instance = Instance::new(engine, &made.component, guest, made.limits.deadline)?;
    let manifest = instance.configure(&made.settings, saved, now_us)?;
    Ok((instance, manifest))
}
