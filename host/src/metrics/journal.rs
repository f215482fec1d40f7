//! What is measured of the journal.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::window::Window;

const SYNC_BUCKETS: [f64; 11] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];
/// Ten minutes, in microseconds.
const MAX_US: u64 = 600_000_000;

/// The journal's sizes and ages.
#[derive(Debug)]
pub struct JournalMetrics {
    /// `jackfield_journal_bytes`: the size on disk, with what is preallocated.
    pub bytes: Gauge,
    /// `jackfield_journal_max_bytes`: `journal.max_size`.
    pub max_bytes: Gauge,
    /// `jackfield_journal_undelivered_bytes`: segments that hold what Redis does not have.
    pub undelivered_bytes: Gauge,
    /// `jackfield_journal_age_seconds`: how long the oldest input waits to be decided.
    pub age: Gauge,
    /// `jackfield_journal_broken`: 1 while the disk takes nothing.
    pub broken: Gauge,
    /// `jackfield_journal_quarantined`: places whose bytes were damaged and were skipped.
    pub quarantined: Gauge,
    /// `jackfield_journal_poisoned`: segments whose sync failed.
    pub poisoned: Gauge,
    syncs: Histogram,
    recent: Mutex<Window>,
}

impl Default for JournalMetrics {
    fn default() -> JournalMetrics {
        JournalMetrics {
            bytes: Gauge::default(),
            max_bytes: Gauge::default(),
            undelivered_bytes: Gauge::default(),
            age: Gauge::default(),
            broken: Gauge::default(),
            quarantined: Gauge::default(),
            poisoned: Gauge::default(),
            syncs: Histogram::new(SYNC_BUCKETS),
            recent: Mutex::new(Window::new(MAX_US)),
        }
    }
}

impl JournalMetrics {
    /// What was written is on stable storage; it took so long.
    pub fn synced(&self, took: Duration) {
        self.syncs.observe(took.as_secs_f64());
        let mut recent = self.recent();
        recent.turn(Instant::now());
        recent.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// One in a hundred syncs of the last seconds took longer, in microseconds; 0 where there was none.
    pub fn sync_p99_us(&self) -> u64 {
        let mut recent = self.recent();
        recent.turn(Instant::now());
        recent.p50_p99().1
    }

    fn recent(&self) -> MutexGuard<'_, Window> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn register(&self, r: &mut Registry) {
        let mut gauge = |name, help, gauge: &Gauge| r.register(name, help, gauge.clone());
        gauge(
            "jackfield_journal_bytes",
            "Size of the journal on disk",
            &self.bytes,
        );
        gauge(
            "jackfield_journal_max_bytes",
            "What the journal may take: journal.max_size",
            &self.max_bytes,
        );
        gauge(
            "jackfield_journal_undelivered_bytes",
            "Size of the journal's segments that hold what Redis does not have",
            &self.undelivered_bytes,
        );
        gauge(
            "jackfield_journal_age_seconds",
            "How long the oldest input waits to be decided",
            &self.age,
        );
        gauge(
            "jackfield_journal_broken",
            "1 while the disk takes nothing",
            &self.broken,
        );
        gauge(
            "jackfield_journal_quarantined",
            "Places of the journal whose bytes were damaged and were skipped",
            &self.quarantined,
        );
        gauge(
            "jackfield_journal_poisoned",
            "Segments of the journal whose sync failed",
            &self.poisoned,
        );
        r.register(
            "jackfield_journal_sync_seconds",
            "How long it took to force what was written to the disk",
            self.syncs.clone(),
        );
    }
}
