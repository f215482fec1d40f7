//! The segments that are there, and which of them may go.
//!
//! Segments go from the oldest on and whole. Committed ones go when they have been so for the time of retention, or earlier
//! when room is needed; then the oldest uncommitted one goes too, and what is lost with it is counted. The newest stays.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::journal::disk::Disk;
use crate::journal::format::{Lsn, file_name};
use crate::journal::scan::Scan;
use crate::journal::sync::Progress;

/// A segment that is there.
#[derive(Debug)]
pub(super) struct Segment {
    /// The number in its name: the order of segments.
    pub(super) number: Lsn,
    /// No input of this or a later segment is below it.
    pub(super) first: Lsn,
    /// Bytes on disk.
    pub(super) size: u64,
    /// Of them those that stay when it is emptied: header and repeated mark, 0 in segments of earlier opens.
    opening: u64,
    /// Since when all its inputs have been committed, as far as [`Kept::tidy`] saw.
    committed_since: Option<Instant>,
}

/// All segments, in order.
#[derive(Debug)]
pub(super) struct Kept {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    max_size: u64,
    retain: Duration,
    /// The first number of this open.
    opened: Lsn,
    segments: VecDeque<Segment>,
    /// Redis has everything up to here.
    committed: Lsn,
    progress: Arc<Progress>,
    /// Events that were deleted and not told yet.
    lost: u64,
    /// The last attempt to delete failed, which was said.
    stuck: bool,
}

impl Segment {
    pub(super) fn new(number: Lsn, first: Lsn, size: u64, opening: u64) -> Segment {
        Segment {
            number,
            first,
            size,
            opening,
            committed_since: None,
        }
    }
}

impl Kept {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        settings: &crate::config::Journal,
        (segments, opened): (Vec<Segment>, Lsn),
        progress: Arc<Progress>,
    ) -> Kept {
        Kept {
            disk,
            dir: settings.dir.clone(),
            max_size: settings.max_size,
            retain: settings.retain,
            opened,
            segments: segments.into(),
            committed: 0,
            progress,
            lost: 0,
            stuck: false,
        }
    }

    pub(super) fn path(&self, number: Lsn) -> PathBuf {
        self.dir.join(file_name(number))
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let numbers = self.segments.iter().map(|segment| segment.number);
        numbers.map(|number| self.path(number)).collect()
    }

    pub(super) fn last_number(&self) -> Lsn {
        self.segments.back().map_or(0, |segment| segment.number)
    }

    pub(super) fn push(&mut self, segment: Segment) {
        self.segments.push_back(segment);
        self.publish();
    }

    /// Cuts the newest segment's file to what it holds, to give its room back. A failure costs only that room.
    pub(super) fn cut_last(&mut self, used: u64) {
        let Some(number) = self.segments.back().map(|segment| segment.number) else {
            return;
        };
        match self.disk.truncate(&self.path(number), used) {
            Ok(()) => {
                if let Some(segment) = self.segments.back_mut() {
                    segment.size = used;
                }
                self.publish();
            }
            Err(error) => tracing::warn!(
                segment = format_args!("{number:016x}"),
                error = &error as &dyn std::error::Error,
                "a segment of the journal could not be cut"
            ),
        }
    }

    /// Deletes these segments, whose records do not count; empties those that cannot be deleted, and the last one of this
    /// open, whose name keeps our numbers from being given again.
    pub(super) fn drop_all(&mut self, numbers: &[Lsn]) {
        let (disk, dir, opened) = (&self.disk, &self.dir, self.opened);
        let is_ours = |segment: &Segment| segment.number >= opened;
        let mut ours = self.segments.iter().filter(|kept| is_ours(kept)).count();
        self.segments.retain_mut(|segment| {
            if !numbers.contains(&segment.number) {
                return true;
            }
            let path = dir.join(file_name(segment.number));
            let is_last = is_ours(segment) && ours == 1;
            if !is_last && disk.remove(&path).is_ok() {
                ours -= usize::from(is_ours(segment));
                return false;
            }
            if disk.truncate(&path, segment.opening).is_ok() {
                segment.size = segment.opening;
            }
            true
        });
        self.publish();
    }

    /// The same for all segments after this one.
    pub(super) fn drop_after(&mut self, number: Lsn) {
        let numbers = self.segments.iter().map(|segment| segment.number);
        let later: Vec<Lsn> = numbers.filter(|later| *later > number).collect();
        self.drop_all(&later);
    }

    /// Redis has everything up to `lsn`; less than before if it came back with less.
    pub(super) fn commit(&mut self, lsn: Lsn) {
        let fell = lsn < self.committed;
        self.committed = lsn;
        if fell {
            self.watch(None);
        }
    }

    /// Deletes what has been committed for the time of retention.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.watch(Some(now));
        while self.is_expired(now) {
            if let Err(error) = self.drop_first() {
                if !std::mem::replace(&mut self.stuck, true) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "an old segment of the journal cannot be deleted"
                    );
                }
                return;
            }
            self.stuck = false;
        }
    }

    /// Deletes from the oldest on until `need` bytes more are within the limit. Events above `taken` are counted as lost.
    pub(super) fn make_room(&mut self, need: u64, taken: Lsn) -> io::Result<()> {
        while self.size() + need > self.max_size && self.segments.len() > 1 {
            let here = self.lost_with_first(taken)?;
            self.drop_first()?;
            self.lost += here;
        }
        Ok(())
    }

    /// Deletes the oldest segment if Redis has all of it; false if not.
    pub(super) fn drop_first_committed(&mut self) -> io::Result<bool> {
        let later = self.segments.iter().skip(1).map(|later| later.first).min();
        if later.is_none_or(|later| later > self.committed.saturating_add(1)) {
            return Ok(false);
        }
        self.drop_first().map(|()| true)
    }

    /// The events that were lost since this was last asked.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Bytes that are left of the limit.
    pub(super) fn room(&self) -> u64 {
        self.max_size.saturating_sub(self.size())
    }

    pub(super) fn size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// Bytes of the segments that may hold what Redis does not have, whole; the newest one is always among them.
    pub(super) fn uncommitted(&self) -> u64 {
        let mut after = Lsn::MAX;
        let mut bytes = 0;
        for segment in self.segments.iter().rev() {
            if after <= self.committed.saturating_add(1) {
                break;
            }
            bytes += segment.size;
            after = after.min(segment.first);
        }
        bytes
    }

    /// The first number that is still kept.
    pub(super) fn oldest(&self) -> Lsn {
        self.progress.oldest()
    }

    fn is_expired(&self, now: Instant) -> bool {
        let since = self
            .segments
            .front()
            .and_then(|first| first.committed_since);
        since.is_some_and(|since| now.saturating_duration_since(since) >= self.retain)
    }

    /// Notes which segments are committed, newly from `now` on; with none, only which are not any more.
    fn watch(&mut self, now: Option<Instant>) {
        // Of the segments after the one looked at: the lowest number that they can hold.
        let mut after = Lsn::MAX;
        for segment in self.segments.iter_mut().rev() {
            if after <= self.committed.saturating_add(1) {
                segment.committed_since = segment.committed_since.or(now);
            } else {
                segment.committed_since = None;
            }
            after = after.min(segment.first);
        }
    }

    fn drop_first(&mut self) -> io::Result<()> {
        let Some(first) = self.segments.front() else {
            return Ok(());
        };
        match self.disk.remove(&self.path(first.number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.segments.pop_front();
        self.publish();
        Ok(())
    }

    /// The events in the oldest segment that are above `taken`, not committed, and not in a later segment once more.
    fn lost_with_first(&mut self, taken: Lsn) -> io::Result<u64> {
        let kept = self.segments.iter().skip(1).map(|later| later.first).min();
        let (Some(first), Some(kept)) = (self.segments.front(), kept) else {
            return Ok(0);
        };
        let mut safe = taken.max(self.committed);
        if kept <= safe.saturating_add(1) {
            return Ok(0);
        }
        let number = first.number;
        let file = match self.disk.open(&self.path(number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut scan = Scan::settled(file, number);
        let mut lost = 0;
        while let Some(met) = scan.advance()? {
            let input = met.head.filter(|head| head.kind.is_input());
            if let Some(head) = input.filter(|head| (safe + 1..kept).contains(&head.lsn)) {
                safe = head.lsn;
                lost += u64::from(head.kind.is_event());
            }
        }
        self.progress.add_quarantined(scan.quarantined());
        Ok(lost)
    }

    fn publish(&self) {
        let oldest = self.segments.iter().map(|segment| segment.first).min();
        self.progress
            .set_kept(oldest.unwrap_or(self.oldest()), self.size());
    }
}
