//! The journal's writer.
//!
//! Appending is encoding into memory; [`Journal::write`] puts what was appended into the page cache in one call, where it
//! survives a crash of the process. Syncing is another thread's. Nothing here waits for anything but that one write, and for
//! the making of a segment every so often. A disk that fails makes it forget, never stop: numbers go on being given.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::now_us;
use crate::config;
use crate::journal::disk::{Disk, Lock};
use crate::journal::format::{EPOCH, Head, Kind, Lsn, Record};
use crate::journal::kept::Kept;
use crate::journal::pending::{Pending, Reach, Written};
use crate::journal::recover::Survey;
use crate::journal::sync::{Progress, Synced, Syncer};
use crate::journal::write::{Current, Refusal};

/// Segments of one journal, so that room is given back in steps of an eighth.
const SEGMENTS: u64 = 8;

/// The size of a segment: small enough to be read at a start in a blink, large enough that making one is rare.
const SEGMENT_SIZES: (u64, u64) = (1 << 20, 64 << 20);

/// How long a failing disk is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// The open journal, its one writer.
#[derive(Debug)]
pub struct Journal {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    /// In hexadecimal.
    pub(super) id: String,
    pub(super) id_bytes: [u8; 16],
    pub(super) router: Option<String>,
    pub(super) first: Lsn,
    pub(super) next: Lsn,
    /// The last input of earlier opens.
    pub(super) last_before: Lsn,
    pub(super) segment_size: u64,
    pub(super) pending: Pending,
    pub(super) written: Written,
    pub(super) reach: Reach,
    pub(super) current: Option<Current>,
    pub(super) kept: Kept,
    pub(super) refusal: Option<Refusal>,
    /// Something was appended while writes were refused, so the next write is refused too.
    pub(super) refused: bool,
    pub(super) retry: Duration,
    pub(super) progress: Arc<Progress>,
    /// None: [`config::Sync::Never`].
    pub(super) syncer: Option<Syncer>,
    /// Let go of last.
    _lock: Lock,
}

/// What an open has made before the journal itself.
pub(super) struct Parts {
    pub(super) router: Option<String>,
    pub(super) progress: Arc<Progress>,
    /// None: [`config::Sync::Never`].
    pub(super) syncer: Option<Syncer>,
    pub(super) lock: Lock,
}

impl Journal {
    /// A journal that goes on after what was found, and has no segment of its own yet.
    pub(super) fn after(
        survey: Survey,
        disk: Arc<dyn Disk>,
        settings: &config::Journal,
        parts: Parts,
    ) -> Journal {
        let first = (survey.highest / EPOCH + 1) * EPOCH;
        let id_bytes = survey.id.unwrap_or_else(random_id);
        let (least, most) = SEGMENT_SIZES;
        let progress = parts.progress;
        progress.add_quarantined(survey.found.quarantined);
        let kept = Kept::new(
            Arc::clone(&disk),
            settings,
            (survey.segments, first),
            Arc::clone(&progress),
        );
        Journal {
            disk,
            dir: settings.dir.clone(),
            id: hex(&id_bytes),
            id_bytes,
            router: parts.router.or(survey.router),
            first,
            next: first,
            last_before: survey.found.last,
            segment_size: (settings.max_size / SEGMENTS).clamp(least, most),
            pending: Pending::default(),
            written: Written {
                last: first - 1,
                mark: survey.found.mark,
            },
            reach: Reach {
                last: first - 1,
                decided: survey.found.decided,
            },
            current: None,
            kept,
            refusal: None,
            refused: false,
            retry: RETRY,
            progress,
            syncer: parts.syncer,
            _lock: parts.lock,
        }
    }

    /// Puts what was found on stable storage, where anything is synced: the process that wrote it may have died before
    /// it did. Then the first segment, whatever `sync` says: its name alone keeps a later open from giving these
    /// numbers again. Only then may the segments go that hold nothing.
    pub(super) fn start(&mut self, empty: &[Lsn]) -> io::Result<()> {
        if let Some(syncer) = &self.syncer {
            syncer
                .shared()
                .settle(&self.kept.paths(), self.reach.decided);
        }
        self.begin_segment(0)?;
        if let Some(current) = &self.current {
            current.target.file.sync()?;
        }
        self.disk.sync_dir(&self.dir)?;
        if let Some(parent) = self.dir.parent().filter(|dir| !dir.as_os_str().is_empty())
            && let Err(error) = self.disk.sync_dir(parent)
        {
            // It may be somebody else's folder, which we may not even read.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the folder above the journal could not be synced"
            );
        }
        self.kept.drop_all(empty);
        Ok(())
    }

    /// The journal's random name, 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The router whose events these are, once it is known.
    pub fn router(&self) -> Option<&str> {
        self.router.as_deref()
    }

    /// The first number of this open.
    pub fn first(&self) -> Lsn {
        self.first
    }

    /// From now on it is the journal of the router of this name.
    pub fn name_router(&mut self, name: &str) {
        self.router = Some(name.to_owned());
        let head = Head {
            lsn: 0,
            kind: Kind::Router,
            at_us: now_us(),
            connection: 0,
            offset: 0,
        };
        self.push(head, name.as_bytes());
    }

    /// Appends an input and gives it the next number.
    pub fn append(
        &mut self,
        kind: Kind,
        at_us: u64,
        connection: u32,
        offset: u64,
        payload: &[u8],
    ) -> Lsn {
        let lsn = self.next;
        self.next += 1;
        let head = Head {
            lsn,
            kind,
            at_us,
            connection,
            offset,
        };
        self.push(head, payload);
        lsn
    }

    /// Takes back what was appended and not written yet, in that order.
    pub fn take_back(&mut self) -> Vec<Record> {
        self.pending.give_back()
    }

    /// Appends what a write that failed has given back. Such records come in order and before anything newer; there is no point in
    /// it while the journal [refuses](Journal::is_refusing).
    pub fn append_again(&mut self, record: &Record) {
        self.push(record.head, &record.payload);
    }

    /// Appends what was decided about input `lsn`.
    pub fn decide(&mut self, lsn: Lsn, at_us: u64, payload: &[u8]) {
        self.push(about(lsn, Kind::Decision, at_us), payload);
    }

    /// Appends that Redis has everything up to `lsn`.
    pub fn mark(&mut self, lsn: Lsn, at_us: u64, payload: &[u8]) {
        self.push(about(lsn, Kind::Mark, at_us), payload);
    }

    /// Whether a failing disk is left alone for now. What is appended meanwhile is given back by the next write, which fails.
    pub fn is_refusing(&self) -> bool {
        let refusal = self.refusal.as_ref();
        refusal.is_some_and(|refusal| Instant::now() < refusal.until)
    }

    /// While writes are refused: so is the next one, whatever the time is then.
    pub fn refuse_next(&mut self) {
        self.refused = true;
    }

    /// Redis has everything up to `lsn`. It may be less than it was.
    pub fn committed(&mut self, lsn: Lsn) {
        // Nothing lies between what earlier opens left and our first number.
        let through = if lsn >= self.last_before {
            lsn.max(self.first - 1)
        } else {
            lsn
        };
        self.kept.commit(through);
    }

    /// Deletes the segments that were committed for the time of retention; to be called now and then.
    pub fn tidy(&mut self, now: Instant) {
        self.kept.tidy(now);
    }

    /// Bytes on disk, preallocated ones included.
    pub fn size(&self) -> u64 {
        self.kept.size()
    }

    /// Bytes on disk that hold what Redis does not have, in whole segments but for what is preallocated and not written.
    pub fn uncommitted(&self) -> u64 {
        let current = self.current.as_ref();
        let unused = current.map_or(0, |current| current.size.saturating_sub(current.used));
        self.kept.uncommitted().saturating_sub(unused)
    }

    /// The first number that is still kept.
    pub fn oldest(&self) -> Lsn {
        self.kept.oldest()
    }

    /// Whether nothing was ever deleted.
    pub fn is_complete(&self) -> bool {
        self.progress.is_complete()
    }

    /// Where the journal stands, for other threads.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Has `synced` called on the sync thread, with how long it took, whenever what was written is on stable storage.
    pub fn on_synced(&mut self, synced: Synced) {
        if let Some(syncer) = &self.syncer {
            syncer.shared().set_synced(synced);
        }
    }

    /// Puts everything written on stable storage and gives the room of the last segment back. What was appended and not
    /// written is gone.
    pub fn close(mut self) {
        if let Some(current) = self.current.take() {
            self.kept.cut_last(current.used);
            if let Some(syncer) = &self.syncer {
                syncer.shared().written(&current.target, self.reach.decided);
            } else if let Err(error) = current.target.file.sync() {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the journal could not be synced at its end"
                );
            }
        }
        if let Some(syncer) = self.syncer.take() {
            syncer.finish();
        }
    }

    /// Small segments, and no mercy for a failing disk, so that a test reaches every corner soon.
    #[cfg(test)]
    pub(super) fn hurry(&mut self, segment_size: u64) {
        self.segment_size = segment_size;
        self.retry = Duration::ZERO;
        if let Some(current) = &mut self.current {
            current.size = segment_size.max(current.used);
            self.kept.cut_last(current.size);
        }
    }

    /// Syncs now, where no thread does.
    #[cfg(test)]
    pub(super) fn sync_now(&self) {
        if let Some(syncer) = &self.syncer {
            syncer.shared().round();
        }
    }

    fn push(&mut self, head: Head, payload: &[u8]) {
        self.refused |= self.is_refusing();
        self.pending.push(head, payload);
    }
}

fn about(lsn: Lsn, kind: Kind, at_us: u64) -> Head {
    Head {
        lsn,
        kind,
        at_us,
        connection: 0,
        offset: 0,
    }
}

/// Sixteen bytes that no other journal has: the hashers' keys come from the system's random source.
fn random_id() -> [u8; 16] {
    let halves = [0, 1].map(|half: u8| RandomState::new().hash_one((half, now_us())));
    let [high, low] = halves.map(u128::from);
    (high << 64 | low).to_be_bytes()
}

/// A journal's id as people see it.
pub(super) fn hex(id: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}
