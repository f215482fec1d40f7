//! What others may see of the pipeline, and hand to it: the loader a change of the chain, the writer what Redis has.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};

use serde::Serialize;
use tokio::sync::{oneshot, watch};

use crate::filter::{Change, FilterStatus, NoWayBack, Report, RolledBack};
use crate::journal::Lsn;

/// Changes that may wait for a pipeline that is busy.
const CHANGES: usize = 16;

/// Shared with the pipeline's thread.
#[derive(Default)]
pub struct Seen {
    filters: Mutex<(Vec<FilterStatus>, usize)>,
    changes: Mutex<VecDeque<Change>>,
    roll_backs: Mutex<Vec<RollBack>>,
    reports: Mutex<Vec<Report>>,
    /// The name in the cursor's key: `router.name`, or what the journal knows, or `FreeSWITCH-Switchname` of the first event.
    pub router: OnceLock<String>,
    /// Why the host must not go on, if so: its FreeSWITCH is another one than the journal's.
    pub other_switch: OnceLock<String>,
    journal: Mutex<JournalStatus>,
    queue: Mutex<Queue>,
    streams: Mutex<Vec<StreamStatus>>,
    dead: Mutex<Option<LastDead>>,
    calls: watch::Sender<CallsStatus>,
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
    /// Of them those of segments that hold what Redis does not have.
    pub undelivered_bytes: u64,
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

/// What is decided and not acknowledged by Redis, as far as this process decided it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Inputs with entries.
    pub waiting: usize,
    /// When the oldest of them was received, in microseconds since the epoch; also of those that an earlier process decided.
    pub oldest_us: Option<u64>,
}

/// A stream as Redis showed it last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamStatus {
    /// The key.
    pub name: Arc<str>,
    /// How many entries it has; `None`: it does not exist, or cannot be read.
    pub length: Option<u64>,
    /// `MAXLEN ~`; 0 for none.
    pub max_len: u64,
    /// The consumer group that is nearest to losing entries.
    pub reserve: Option<ReserveStatus>,
}

/// What is left to a consumer group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReserveStatus {
    /// The group.
    pub group: String,
    /// From 1, it has read all, to 0: what it has not read is being trimmed.
    pub ratio: f64,
    /// Entries that it was not given or has not acknowledged, where Redis can tell.
    pub unread: Option<u64>,
    /// The age of the oldest of them, in seconds.
    pub age_s: u64,
}

/// The newest dead letter of this process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastDead {
    /// When, in microseconds since the epoch.
    pub at_us: u64,
    /// A filter's file, `routes` for what was no event, or `redis`.
    pub by: String,
    /// In the filter's or Redis' words.
    pub reason: String,
}

/// The calls as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallsStatus {
    /// Whether their beginnings and ends are received.
    pub followed: bool,
    /// How many are believed alive.
    pub alive: u64,
    /// When FreeSWITCH was last asked which are, in microseconds since the epoch.
    pub asked_us: Option<u64>,
    /// Why that is not known, if it is not.
    pub unknown: Option<String>,
    /// How often FreeSWITCH answered.
    pub answers: u64,
    /// Calls that ended unheard.
    pub lost: u64,
    /// Calls that began unheard.
    pub found: u64,
    /// How often FreeSWITCH was found to be started anew.
    pub restarts: u64,
    /// The process of FreeSWITCH.
    pub core_uuid: Option<String>,
}

/// What the writer knows to be in Redis.
#[derive(Clone, Debug)]
pub(super) struct Acknowledgment {
    pub(super) lsn: Lsn,
    /// For the journal's mark; the writer's own words.
    pub(super) mark: Vec<u8>,
}

/// A filter that is to go back.
pub(super) struct RollBack {
    pub(super) file: String,
    pub(super) done: oneshot::Sender<Result<RolledBack, NoWayBack>>,
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

    /// The filters as they are, and how many files there are beyond those that may run.
    pub fn filters(&self) -> (Vec<FilterStatus>, usize) {
        lock(&self.filters).clone()
    }

    pub(super) fn show_filters(&self, filters: Vec<FilterStatus>, ignored: usize) {
        *lock(&self.filters) = (filters, ignored);
    }

    /// A change of the chain, to be made between two events, in order. It comes back while too many wait.
    ///
    /// # Errors
    /// The change.
    pub fn change(&self, change: Change) -> Result<(), Change> {
        let mut changes = lock(&self.changes);
        if changes.len() == CHANGES {
            return Err(change);
        }
        changes.push_back(change);
        Ok(())
    }

    pub(super) fn take_change(&self) -> Option<Change> {
        lock(&self.changes).pop_front()
    }

    /// Asks for a filter's last good version; the receiver gets what came of it. Whoever asks wakes the pipeline.
    pub fn roll_back(&self, file: &str) -> oneshot::Receiver<Result<RolledBack, NoWayBack>> {
        let (done, answer) = oneshot::channel();
        let mut roll_backs = lock(&self.roll_backs);
        roll_backs.retain(|one| !one.done.is_closed());
        roll_backs.push(RollBack {
            file: file.to_owned(),
            done,
        });
        answer
    }

    pub(super) fn take_roll_backs(&self) -> Vec<RollBack> {
        std::mem::take(&mut *lock(&self.roll_backs))
    }

    pub(super) fn report(&self, reports: Vec<Report>) {
        lock(&self.reports).extend(reports);
    }

    /// What became of versions that went live, since this was asked last.
    pub fn take_reports(&self) -> Vec<Report> {
        std::mem::take(&mut *lock(&self.reports))
    }

    /// The journal as it is.
    pub fn journal(&self) -> JournalStatus {
        lock(&self.journal).clone()
    }

    /// Every input up to here is decided, and told so by the journal unless its disk is in trouble.
    pub fn decided(&self) -> Lsn {
        lock(&self.journal).decided
    }

    pub(super) fn show_journal(&self, show: impl FnOnce(&mut JournalStatus)) {
        show(&mut lock(&self.journal));
    }

    /// What waits for Redis.
    pub fn queue(&self) -> Queue {
        *lock(&self.queue)
    }

    pub(super) fn show_queue(&self, queue: Queue) {
        *lock(&self.queue) = queue;
    }

    /// The streams as Redis showed them last; the dead-letter stream is among them.
    pub fn streams(&self) -> Vec<StreamStatus> {
        lock(&self.streams).clone()
    }

    /// For the writer.
    pub fn show_streams(&self, streams: Vec<StreamStatus>) {
        *lock(&self.streams) = streams;
    }

    /// The newest dead letter.
    pub fn last_dead(&self) -> Option<LastDead> {
        lock(&self.dead).clone()
    }

    /// An event became a dead letter.
    pub fn show_dead(&self, by: &str, reason: &str, at_us: u64) {
        *lock(&self.dead) = Some(LastDead {
            at_us,
            by: by.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// The calls as they are known, and a way to wait for more.
    pub fn calls(&self) -> watch::Receiver<CallsStatus> {
        self.calls.subscribe()
    }

    /// Asked at every turn of the pipeline, so it costs nothing where nothing changes.
    pub(super) fn show_alive(&self, alive: u64) {
        self.calls
            .send_if_modified(|shown| std::mem::replace(&mut shown.alive, alive) != alive);
    }

    pub(super) fn show_calls(&self, show: impl FnOnce(&mut CallsStatus)) {
        self.calls.send_if_modified(|shown| {
            let before = shown.clone();
            show(shown);
            *shown != before
        });
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
