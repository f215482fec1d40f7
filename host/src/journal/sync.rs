//! Forcing what was written to the disk, on a thread of its own, so that a slow or hanging disk never holds the writer.
//!
//! A file whose sync failed is poisoned: the kernel may have dropped its pages, so a second sync would lie. It is
//! counted, never synced again, and the writer goes on in a new segment. With nothing to do the thread sleeps.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::journal::disk::{Disk, DiskFile};
use crate::journal::format::{EPOCH, Lsn};

/// Where the journal stands, for other threads to see.
#[derive(Debug, Default)]
pub struct Progress {
    oldest: AtomicU64,
    durable: AtomicU64,
    quarantined: AtomicU64,
    poisoned: AtomicU64,
    size: AtomicU64,
    places: Mutex<VecDeque<Place>>,
}

/// Where a reader of what was written lately may begin: every input above `lsn`, and every decision about one, lies behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The last input before it.
    pub lsn: Lsn,
    pub(super) segment: Lsn,
    pub(super) position: u64,
}

/// Places that are remembered.
const PLACES: usize = 64;
/// Bytes between two of them, at least.
const STRIDE: u64 = 1 << 20;

impl Progress {
    /// The newest place that so many inputs were written behind. It may be of a segment that is gone by now.
    pub fn place_before(&self, inputs: u64) -> Option<Place> {
        let places = self.places();
        let last = places.back()?.lsn;
        let is_before = |place: &&Place| place.lsn.saturating_add(inputs) <= last;
        places.iter().rev().find(is_before).copied()
    }

    /// Everything before this place is written.
    pub(super) fn note(&self, place: Place) {
        let mut places = self.places();
        let is_near = |newest: &Place| {
            newest.segment == place.segment && place.position < newest.position + STRIDE
        };
        if !places.back().is_some_and(is_near) {
            if places.len() == PLACES {
                places.pop_front();
            }
            places.push_back(place);
        }
    }

    fn places(&self) -> MutexGuard<'_, VecDeque<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first number that is still kept.
    pub fn oldest(&self) -> Lsn {
        self.oldest.load(Ordering::Acquire)
    }

    /// Whether nothing was ever deleted from this journal.
    pub fn is_complete(&self) -> bool {
        self.oldest() == EPOCH
    }

    /// The highest decision that is on stable storage. What lies in a poisoned segment counts too, because waiting for
    /// it would have no end. Stays 0 where nothing is synced.
    pub fn durable(&self) -> Lsn {
        self.durable.load(Ordering::Acquire)
    }

    /// Damaged places that were met at the open and while deleting.
    pub fn quarantined(&self) -> u64 {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// Syncs that failed.
    pub fn poisoned(&self) -> u64 {
        self.poisoned.load(Ordering::Relaxed)
    }

    /// Bytes on disk, preallocated ones included.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    pub(super) fn set_kept(&self, oldest: Lsn, size: u64) {
        self.oldest.store(oldest, Ordering::Release);
        self.size.store(size, Ordering::Relaxed);
    }

    pub(super) fn add_quarantined(&self, count: u64) {
        self.quarantined.fetch_add(count, Ordering::Relaxed);
    }
}

/// A segment that is written, and whether it may still be.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) file: Arc<dyn DiskFile>,
    poisoned: AtomicBool,
}

impl Target {
    pub(super) fn new(file: Arc<dyn DiskFile>) -> Arc<Target> {
        Arc::new(Target {
            file,
            poisoned: AtomicBool::new(false),
        })
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }
}

/// What is to be called after a sync, with how long it took.
pub type Synced = Box<dyn Fn(Duration) + Send>;

/// What the writer and the thread share.
pub(super) struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    progress: Arc<Progress>,
    work: Mutex<Work>,
    changed: Condvar,
    synced: Mutex<Option<Synced>>,
}

#[derive(Debug, Default)]
struct Work {
    dirty: Vec<Arc<Target>>,
    /// A segment was made, and its name may not be on disk.
    dir: bool,
    decided: Lsn,
    closed: bool,
}

/// The thread that syncs, or nobody; dropping it ends and joins the thread.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread; after something was written it waits for `pause` before it syncs.
    pub(super) fn start(shared: Shared, pause: Duration) -> io::Result<Syncer> {
        let shared = Arc::new(shared);
        let thread = std::thread::Builder::new()
            .name("journal-sync".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run(pause)
            })?;
        Ok(Syncer {
            shared,
            thread: Some(thread),
        })
    }

    /// No thread: tests say when to sync.
    #[cfg(test)]
    pub(super) fn by_hand(shared: Shared) -> Syncer {
        Syncer {
            shared: Arc::new(shared),
            thread: None,
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Ends the thread and syncs what it left.
    pub(super) fn finish(mut self) {
        self.join();
        self.shared.round();
    }

    fn join(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's sync thread panicked");
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shared {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, progress: Arc<Progress>) -> Shared {
        Shared {
            disk,
            dir,
            progress,
            work: Mutex::default(),
            changed: Condvar::new(),
            synced: Mutex::default(),
        }
    }

    /// `target` was written, and holds decisions up to `decided`.
    pub(super) fn written(&self, target: &Arc<Target>, decided: Lsn) {
        let mut work = self.lock();
        let was_clean = work.dirty.is_empty();
        if !work
            .dirty
            .last()
            .is_some_and(|last| Arc::ptr_eq(last, target))
        {
            work.dirty.push(Arc::clone(target));
        }
        work.decided = work.decided.max(decided);
        drop(work);
        if was_clean {
            self.changed.notify_all();
        }
    }

    /// A segment was made in the folder; it is going to be written.
    pub(super) fn made(&self) {
        self.lock().dir = true;
    }

    pub(super) fn set_synced(&self, synced: Synced) {
        *self.synced.lock().unwrap_or_else(PoisonError::into_inner) = Some(synced);
    }

    /// Syncs the segments that an earlier process wrote, one after the other; their decisions count as durable from then on.
    pub(super) fn settle(&self, paths: &[PathBuf], decided: Lsn) {
        for path in paths {
            let synced = self.disk.open(path).and_then(|file| file.sync());
            if let Err(error) = synced {
                self.count(&error);
            }
        }
        self.progress.durable.fetch_max(decided, Ordering::AcqRel);
    }

    /// Syncs what is dirty now, without holding the lock.
    pub(super) fn round(&self) {
        let mut work = self.lock();
        if work.dirty.is_empty() {
            return;
        }
        let dirty = std::mem::take(&mut work.dirty);
        let dir = std::mem::take(&mut work.dir);
        let decided = work.decided;
        drop(work);
        let since = Instant::now();
        if dir && let Err(error) = self.disk.sync_dir(&self.dir) {
            self.lock().dir = true;
            self.count(&error);
        }
        for target in dirty.iter().filter(|target| !target.is_poisoned()) {
            if let Err(error) = target.file.sync() {
                target.poisoned.store(true, Ordering::Release);
                self.count(&error);
            }
        }
        self.progress.durable.fetch_max(decided, Ordering::AcqRel);
        if let Some(synced) = &*self.synced.lock().unwrap_or_else(PoisonError::into_inner) {
            synced(since.elapsed());
        }
    }

    fn count(&self, error: &io::Error) {
        self.progress.poisoned.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            error = error as &dyn std::error::Error,
            "the journal could not be synced: a power cut now may lose what was written"
        );
    }

    fn run(&self, pause: Duration) {
        loop {
            let idle = |work: &mut Work| work.dirty.is_empty() && !work.closed;
            let work = self.changed.wait_while(self.lock(), idle);
            let work = work.unwrap_or_else(PoisonError::into_inner);
            let open = |work: &mut Work| !work.closed;
            let waited = self.changed.wait_timeout_while(work, pause, open);
            let (work, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if work.closed {
                return;
            }
            drop(work);
            self.round();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("dir", &self.dir)
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}
