//! From memory into the files: what [`Journal::write`] does.
//!
//! A piece of what was appended goes into one segment with one write. Where that fails it is tried once more in a new
//! segment; after that everything of this write is taken back, as far as the disk lets it, and the disk is left alone.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::clock::now_us;
use crate::journal::append::Journal;
use crate::journal::format::{Header, Lsn, Record, push_record};
use crate::journal::kept::Segment;
use crate::journal::pending::{Pending, Piece, Reach};
use crate::journal::sync::{Place, Target};

/// What was appended since the last successful write is not in the journal (a part of it may be, which harms nobody). It is the
/// caller's now.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the journal")]
pub struct WriteError {
    /// What the system said; while a failing disk is left alone, what it said last.
    pub source: io::Error,
    /// What was appended, in that order.
    pub forgotten: Vec<Record>,
}

/// What a write did besides writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrote {
    /// Events that nobody had taken and that are gone, because the journal was full; since the last successful write.
    pub lost: u64,
    /// The first number that is still kept.
    pub skip_to: Lsn,
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) target: Arc<Target>,
    /// Its first bytes: header and repeated mark.
    pub(super) opening: u64,
    pub(super) used: u64,
    pub(super) size: u64,
}

#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) until: Instant,
    pub(super) kind: io::ErrorKind,
    pub(super) code: Option<i32>,
}

impl Journal {
    /// Writes what was appended. `taken` is the last input that the pipeline has taken: what is lost from a full journal
    /// counts only above it. An error gives back what was appended since the last successful write.
    pub fn write(&mut self, taken: Lsn) -> Result<Wrote, WriteError> {
        let refused = std::mem::take(&mut self.refused) || self.is_refusing();
        if refused && let Some(refusal) = &self.refusal {
            let (source, forgotten) = (refusal.error(), self.pending.give_back());
            return Err(WriteError { source, forgotten });
        }
        let mut pending = std::mem::take(&mut self.pending);
        let before = self.written.clone();
        let number = self.kept.last_number();
        let used = self.current.as_ref().map(|current| current.used);
        let outcome = self.write_pieces(&pending, taken);
        if let Err(source) = outcome {
            let forgotten = pending.give_back();
            self.written = before;
            self.undo(number, used);
            self.refusal = Some(Refusal {
                until: Instant::now() + self.retry,
                kind: source.kind(),
                code: source.raw_os_error(),
            });
            return Err(WriteError { source, forgotten });
        }
        pending.clear();
        self.pending = pending;
        self.refusal = None;
        if let Some(position) = used {
            self.progress.note(Place {
                lsn: before.last,
                segment: number,
                position,
            });
        }
        Ok(Wrote {
            lost: self.kept.take_lost(),
            skip_to: self.oldest(),
        })
    }

    fn write_pieces(&mut self, pending: &Pending, taken: Lsn) -> io::Result<()> {
        if pending.is_empty() {
            // Nothing written proves nothing: a disk that refused is asked whether it takes a segment again.
            return match self.refusal {
                Some(_) => self.roll(0, taken),
                None => Ok(()),
            };
        }
        let bytes = pending.size();
        let capacity = match self.has_room(bytes) {
            true => bytes,
            false => {
                let opening = self.opening().len() as u64;
                self.segment_size.saturating_sub(opening)
            }
        };
        let mut next = pending.piece_after(None, capacity);
        while let Some(piece) = next {
            self.write_piece(pending, &piece, taken)?;
            pending.note(&piece, &mut self.written);
            if let (Some(syncer), Some(current)) = (&self.syncer, &self.current) {
                syncer.shared().written(&current.target, self.reach.decided);
            }
            next = pending.piece_after(Some(&piece), capacity);
        }
        Ok(())
    }

    /// Writes the piece into one segment; if that fails, once more into a new one.
    fn write_piece(&mut self, pending: &Pending, piece: &Piece, taken: Lsn) -> io::Result<()> {
        let bytes = pending.bytes(piece);
        if !self.has_room(bytes.len() as u64) {
            self.roll(bytes.len() as u64, taken)?;
        }
        let reach = pending.reach(piece);
        let Err(error) = self.write_here(bytes, reach) else {
            return Ok(());
        };
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a segment of the journal is abandoned: it cannot be written"
        );
        self.roll(bytes.len() as u64, taken)?;
        self.write_here(bytes, reach)
    }

    /// Takes back what a failed write has written all the same: the segments after `number`, and what is in that one beyond
    /// `used`. What is to be appended again must not lie behind copies of what comes after it.
    fn undo(&mut self, number: Lsn, used: Option<u64>) {
        self.current = None;
        self.kept.drop_after(number);
        if let Some(used) = used
            && self.kept.last_number() == number
        {
            self.kept.cut_last(used);
        }
    }

    fn has_room(&self, need: u64) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| {
            !current.target.is_poisoned() && current.used + need <= current.size
        })
    }

    /// Writes into the current segment, or leaves it for good.
    fn write_here(&mut self, bytes: &[u8], reach: Reach) -> io::Result<()> {
        self.reach = self.reach.max(reach);
        let Some(current) = &mut self.current else {
            return Err(io::ErrorKind::NotFound.into());
        };
        match current.target.file.write_at(bytes, current.used) {
            Ok(()) => current.used += bytes.len() as u64,
            Err(error) => {
                let (used, is_empty) = (current.used, current.used == current.opening);
                self.current = None;
                if is_empty {
                    self.kept.drop_all(&[self.kept.last_number()]);
                } else {
                    self.kept.cut_last(used);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn roll(&mut self, need: u64, taken: Lsn) -> io::Result<()> {
        if let Some(current) = self.current.take_if(|current| current.target.is_poisoned()) {
            self.kept.cut_last(current.used);
        }
        let size = self.opening().len() as u64 + need;
        self.kept.make_room(size.max(self.segment_size), taken)?;
        loop {
            match self.begin_segment(need) {
                // A disk smaller than the limit: what Redis has goes before anything else does.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    if !self.kept.drop_first_committed()? {
                        return Err(error);
                    }
                }
                // An empty file that could not be removed when the disk was full: the next number will do.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.reach.last += 1,
                begun => return begun,
            }
        }
    }

    /// Makes a segment with room for `need` bytes, and makes it the current one.
    pub(super) fn begin_segment(&mut self, need: u64) -> io::Result<()> {
        let opening = self.opening();
        let used = opening.len() as u64;
        // An open makes no room: what Redis has is not known yet.
        let size = self.segment_size.min(self.kept.room()).max(used + need);
        let first = self.written.last + 1;
        let number = self.reach.last.max(self.kept.last_number()) + 1;
        let file = self.disk.create(&self.kept.path(number), size)?;
        self.kept.push(Segment::new(number, first, size, used));
        if let Err(error) = file.write_at(&opening, 0) {
            self.kept.drop_all(&[self.kept.last_number()]);
            return Err(error);
        }
        let target = Target::new(file);
        if let Some(syncer) = &self.syncer {
            syncer.shared().made();
        }
        self.current = Some(Current {
            target,
            opening: used,
            used,
            size,
        });
        Ok(())
    }

    /// What a new segment starts with: its header and the newest mark.
    fn opening(&self) -> Vec<u8> {
        let header = Header {
            id: self.id_bytes,
            first: self.written.last + 1,
            decided: self.reach.decided,
            created_us: now_us(),
            router: self.router.clone().unwrap_or_default(),
        };
        let mut opening = header.encode();
        if let Some(mark) = &self.written.mark {
            // It was encoded before, so it is not too long.
            push_record(&mut opening, &mark.head, &mark.payload);
        }
        opening
    }
}

impl Refusal {
    fn error(&self) -> io::Error {
        self.code
            .map_or_else(|| self.kind.into(), io::Error::from_raw_os_error)
    }
}
