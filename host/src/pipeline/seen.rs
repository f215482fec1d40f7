//! What others may see of the pipeline, and hand to it: the loader a change of the chain, the writer what Redis has.

use std::sync::{Arc, Mutex, OnceLock};

use serde::Serialize;

use crate::filter::{Change, FilterStatus};
use crate::journal::Lsn;

/// Shared with the pipeline's thread.
#[derive(Default)]
pub struct Seen {
    filters: Mutex<Vec<FilterStatus>>,
    change: Mutex<Option<Change>>,
    /// The name in the cursor's key: `router.name`, or what the journal knows, or `FreeSWITCH-Switchname` of the first event.
    pub router: OnceLock<String>,
    /// Why the host must not go on, if so: its FreeSWITCH is another one than the journal's.
    pub other_switch: OnceLock<String>,
    journal: Mutex<JournalStatus>,
    acknowledged: Mutex<Option<Acknowledgment>>,
}

/// The journal at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JournalStatus {
    /// Its id, which the cursor in Redis bears.
    pub id: Arc<str>,
    /// Why events cannot be journaled now.
    pub trouble: Option<String>,
    /// Size on disk in bytes, with what is preallocated.
    pub bytes: u64,
    /// The newest input's number.
    pub last: Lsn,
    /// The newest decision's number.
    pub decided: Lsn,
    /// Up to here Redis has everything; 0 while that is not known.
    pub acknowledged: Lsn,
    /// Places whose bytes were damaged and were skipped.
    pub quarantined: u64,
    /// Segments whose `fdatasync` failed.
    pub poisoned: u64,
    /// Inputs that wait to be decided.
    pub waiting: u64,
    /// When the oldest of them was received, in microseconds since the epoch.
    pub oldest_us: Option<u64>,
}

/// What the writer knows to be in Redis.
#[derive(Clone, Debug)]
pub(super) struct Acknowledgment {
    pub(super) lsn: Lsn,
    /// For the journal's mark; the writer's own words.
    pub(super) mark: Vec<u8>,
}

impl Seen {
    /// Nothing seen yet but the journal's id.
    pub fn of(journal: &str) -> Seen {
        let status = JournalStatus {
            id: journal.into(),
            ..JournalStatus::default()
        };
        Seen {
            journal: Mutex::new(status),
            ..Seen::default()
        }
    }

    /// The filters as they are.
    pub fn filters(&self) -> Vec<FilterStatus> {
        lock(&self.filters).clone()
    }

    pub(super) fn show_filters(&self, filters: Vec<FilterStatus>) {
        *lock(&self.filters) = filters;
    }

    /// A change of the chain, to be made between two events. It holds the whole chain, but a step of the one that it
    /// replaces may say `keep` of a version that never started, so both must be made.
    pub fn change(&self, change: Change) {
        let mut waiting = lock(&self.change);
        *waiting = Some(match waiting.take() {
            Some(before) => before.then(change),
            None => change,
        });
    }

    pub(super) fn take_change(&self) -> Option<Change> {
        lock(&self.change).take()
    }

    /// The journal as it is.
    pub fn journal(&self) -> JournalStatus {
        lock(&self.journal).clone()
    }

    pub(super) fn show_journal(&self, show: impl FnOnce(&mut JournalStatus)) {
        show(&mut lock(&self.journal));
    }

    /// Redis has everything up to here. It may be less than before. The pipeline writes `mark` into the journal.
    pub fn acknowledge(&self, lsn: Lsn, mark: Vec<u8>) {
        *lock(&self.acknowledged) = Some(Acknowledgment { lsn, mark });
    }

    pub(super) fn take_acknowledged(&self) -> Option<Acknowledgment> {
        lock(&self.acknowledged).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
