//! The inputs in order. What arrives gets its number and goes to the journal; what the pipeline takes comes from memory or,
//! when the pipeline is behind by more than memory holds, from the journal.
//!
//! Memory is bounded whatever the backlog. While the disk takes nothing, inputs stay in memory until they are taken.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::arrivals::Arrival;
use super::decision::format;
use crate::journal::{Disk, Found, Journal, Kind, Lsn, Reader, Record};

/// Inputs kept in memory for a pipeline that is not far behind.
const FRESH: usize = 1_024;
/// Bytes of them.
const FRESH_BYTES: usize = 4 << 20;

/// One input, in the journal unless the disk is full.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) lsn: Lsn,
    pub(super) kind: Kind,
    pub(super) bytes: Bytes,
    /// In microseconds since the epoch.
    pub(super) received_us: u64,
}

impl From<Record> for Input {
    fn from(record: Record) -> Input {
        Input {
            lsn: record.head.lsn,
            kind: record.head.kind,
            bytes: record.payload,
            received_us: record.head.at_us,
        }
    }
}

/// The journal as the pipeline uses it.
pub struct Inputs {
    journal: Journal,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The newest inputs; nothing is missing between two of them that memory alone would have.
    fresh: VecDeque<Input>,
    fresh_bytes: usize,
    /// What was appended since the last write.
    unwritten: Vec<(Lsn, Option<oneshot::Sender<Lsn>>)>,
    behind: Option<Reader>,
    last: Lsn,
    taken: Lsn,
    /// Events that were not taken yet.
    waiting: u64,
    trouble: Option<String>,
    /// The first input that is not in the journal because the disk takes nothing.
    unjournaled: Option<Lsn>,
}

impl Inputs {
    /// Goes on where the journal's decisions end; `waiting` counts the events after that.
    pub fn open(
        journal: Journal,
        found: &Found,
        disk: Arc<dyn Disk>,
        dir: PathBuf,
    ) -> std::io::Result<Inputs> {
        let mut inputs = Inputs {
            last: found.last.max(found.decided),
            taken: found.decided,
            waiting: 0,
            journal,
            disk,
            dir,
            fresh: VecDeque::new(),
            fresh_bytes: 0,
            unwritten: Vec::new(),
            behind: None,
            trouble: None,
            unjournaled: None,
        };
        let mut undecided = inputs.after(found.decided);
        while let Some(input) = undecided.next()? {
            inputs.waiting += u64::from(is_event(input.head.kind));
        }
        Ok(inputs)
    }

    /// A reader of the inputs after this one.
    pub(super) fn after(&self, lsn: Lsn) -> Reader {
        Reader::inputs_after(Arc::clone(&self.disk), &self.dir, lsn)
    }

    pub(super) fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Events that were not taken yet.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    pub(super) fn last(&self) -> Lsn {
        self.last
    }

    /// Everything up to here was taken.
    pub(super) fn taken(&self) -> Lsn {
        self.taken
    }

    /// Why the disk takes nothing.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The first input that is not in the journal, while the disk takes nothing.
    pub(super) fn unjournaled(&self) -> Option<Lsn> {
        self.unjournaled
    }

    /// Events from `first` on that memory holds.
    pub(super) fn held_from(&self, first: Lsn) -> u64 {
        let held = self.fresh.iter().filter(|input| input.lsn >= first);
        held.filter(|input| is_event(input.kind)).count() as u64
    }

    /// When the oldest waiting input was received, as far as memory knows.
    pub(super) fn oldest_us(&self) -> Option<u64> {
        self.fresh.front().map(|input| input.received_us)
    }

    /// Gives an arrival its number. It is in the journal after the next [`Inputs::write`].
    pub(super) fn arrive(&mut self, arrival: Arrival) {
        let Arrival {
            kind,
            bytes,
            received_us,
            connection,
            offset,
            journaled,
        } = arrival;
        let lsn = self
            .journal
            .append(kind, received_us, connection, offset, &bytes);
        self.last = lsn;
        self.waiting += u64::from(is_event(kind));
        self.unwritten.push((lsn, journaled));
        self.fresh_bytes += bytes.len();
        self.fresh.push_back(Input {
            lsn,
            kind,
            bytes,
            received_us,
        });
    }

    /// Writes what was appended. Gives the number of events that were given up for want of space, the oldest ones.
    pub(super) fn write(&mut self) -> u64 {
        let written = self.journal.write(self.taken);
        let appended = std::mem::take(&mut self.unwritten);
        match written {
            Ok(wrote) => {
                if self.trouble.take().is_some() {
                    tracing::info!("events are journaled again");
                    self.unjournaled = None;
                }
                for (lsn, journaled) in appended {
                    // Whoever asked may have gone.
                    let _told = journaled.map(|journaled| journaled.send(lsn));
                }
                if wrote.lost > 0 {
                    self.give_up(wrote.lost, wrote.skip_to);
                }
                self.forget_fresh();
                wrote.lost
            }
            Err(error) => {
                let first = appended.first().map_or(self.last + 1, |(lsn, _)| *lsn);
                self.unjournaled.get_or_insert(first);
                let error = format!("cannot be written: {}", error.source);
                if self.trouble.is_none() {
                    tracing::error!(error, "journal broken: events are held in memory only");
                }
                self.trouble = Some(error);
                0
            }
        }
    }

    /// What the journal holds need not be in memory, but for the next ones.
    fn forget_fresh(&mut self) {
        while self.fresh.len() > FRESH || self.fresh_bytes > FRESH_BYTES {
            let Some(newest) = self.fresh.pop_back() else {
                break;
            };
            self.fresh_bytes -= newest.bytes.len();
        }
    }

    /// The oldest segment went, and with it inputs that nobody had taken.
    fn give_up(&mut self, lost: u64, skip_to: Lsn) {
        tracing::error!(lost, "journal full: the oldest events are lost");
        self.waiting = self.waiting.saturating_sub(lost);
        self.behind = None;
        self.taken = self.taken.max(skip_to.saturating_sub(1));
        while self.fresh.front().is_some_and(|one| one.lsn <= self.taken) {
            self.pop_fresh();
        }
    }

    fn pop_fresh(&mut self) -> Option<Input> {
        let input = self.fresh.pop_front()?;
        self.fresh_bytes -= input.bytes.len();
        Some(input)
    }

    /// The next inputs in order, at most `most`, and how many before them are gone because the journal is damaged.
    pub(super) fn take(&mut self, most: usize) -> (Vec<Input>, u64) {
        let mut inputs = Vec::new();
        while inputs.len() < most && self.taken < self.last {
            let next_in_memory = self.fresh.front().map(|input| input.lsn);
            let input = match next_in_memory {
                Some(lsn) if lsn == self.taken + 1 => self.pop_fresh(),
                _ => self.read(next_in_memory.unwrap_or(Lsn::MAX)),
            };
            let Some(input) = input.or_else(|| self.pop_fresh()) else {
                // Nothing is left anywhere: what was between is gone.
                self.taken = self.last;
                break;
            };
            self.taken = input.lsn;
            self.waiting = self.waiting.saturating_sub(u64::from(is_event(input.kind)));
            inputs.push(input);
        }
        let gone = match self.taken == self.last && self.fresh.is_empty() {
            true => std::mem::take(&mut self.waiting),
            false => 0,
        };
        (inputs, gone)
    }

    /// The next input of the journal before `end`.
    fn read(&mut self, end: Lsn) -> Option<Input> {
        let mut behind = match self.behind.take() {
            Some(behind) => behind,
            None => self.after(self.taken),
        };
        match behind.next() {
            Ok(Some(record)) if record.head.lsn < end => {
                self.behind = Some(behind);
                Some(record.into())
            }
            Ok(_) => None,
            Err(error) => {
                tracing::error!(%error, after = self.taken, "journal cannot be read: what it holds there is lost");
                None
            }
        }
    }

    /// Closes the journal: everything is on stable storage, nothing is left preallocated.
    pub(super) fn close(self) {
        self.journal.close();
    }
}

/// Whether an input is an event: a tick is none.
pub(super) fn is_event(kind: Kind) -> bool {
    format(kind).is_some()
}
