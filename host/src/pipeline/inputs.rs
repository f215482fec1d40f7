//! The inputs in order. What arrives gets its number and goes to the journal; what the pipeline takes comes from memory or,
//! when the pipeline is behind by more than memory holds, from the journal.
//!
//! Memory is bounded whatever the backlog. What the disk does not take stays in memory until Redis has it or the disk works again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::arrivals::Arrival;
use crate::config;
use crate::journal::{
    Disk, Found, Head, Journal, JournalError, Kind, Lsn, Progress, Reader, RealDisk, Record,
};

/// Inputs kept in memory for a pipeline that is not far behind.
const FRESH: usize = 1_024;
/// Bytes of them.
const FRESH_BYTES: usize = 4 << 20;
/// Bytes of what the disk did not take; what comes beyond them waits where it arrived, where there is a limit, too.
const FORGOTTEN_BYTES: usize = 16 << 20;

/// A reader that is behind by more inputs than this is made anew: finding the place costs reading half a segment.
const NEAR: Lsn = 8 * FRESH as Lsn;

/// The journal as the pipeline uses it.
pub struct Inputs {
    journal: Journal,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The newest inputs, in the journal unless the disk is full; nothing is missing between two of them that memory alone would have.
    fresh: VecDeque<Record>,
    fresh_bytes: usize,
    /// What was appended since the last write.
    unwritten: Vec<(Lsn, Option<oneshot::Sender<Lsn>>)>,
    behind: Option<Behind>,
    mark: Option<Record>,
    last: Lsn,
    taken: Lsn,
    /// When that was received.
    taken_us: u64,
    /// Events that were not taken yet.
    waiting: u64,
    trouble: Option<String>,
    /// Why it could not be read last, until it can be.
    unreadable: Option<String>,
    /// Inputs and decisions that the disk did not take, in their order, as far as Redis is not known to have them.
    forgotten: Vec<Record>,
    forgotten_bytes: usize,
    /// The newest mark that the disk did not take.
    forgotten_mark: Option<Record>,
}

/// A place in the journal that the pipeline reads from.
struct Behind {
    reader: Reader,
    /// What it gave last.
    at: Lsn,
}

impl Inputs {
    /// Opens the journal, and goes on where its decisions end.
    pub fn open(settings: &config::Journal, router: Option<&str>) -> Result<Inputs, JournalError> {
        let (disk, dir) = (Arc::new(RealDisk), settings.dir.clone());
        let (journal, found) = Journal::open(Arc::clone(&disk) as _, settings, router)?;
        let taken = decided(&found, &(Arc::clone(&disk) as _), &dir);
        let mut inputs = Inputs {
            last: found.last.max(taken),
            mark: found.mark,
            taken,
            taken_us: 0,
            waiting: 0,
            journal,
            disk,
            dir,
            fresh: VecDeque::new(),
            fresh_bytes: 0,
            unwritten: Vec::new(),
            behind: None,
            trouble: None,
            unreadable: None,
            forgotten: Vec::new(),
            forgotten_bytes: 0,
            forgotten_mark: None,
        };
        if let Some(mark) = &inputs.mark {
            inputs.journal.committed(mark.head.lsn);
        }
        inputs.count_undecided();
        Ok(inputs)
    }

    /// What waits from an earlier run. What cannot be read now, cannot be when its turn comes: it is no event that waits.
    fn count_undecided(&mut self) {
        let mut undecided = self.after(self.taken);
        loop {
            match undecided.next_head() {
                Ok(Some(head)) => {
                    self.waiting += u64::from(head.kind.is_event());
                    // The open has not looked at every segment.
                    self.last = self.last.max(head.lsn);
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "journal cannot be read to its end");
                    return;
                }
            }
        }
    }

    /// Where the journal is, for those who read it beside the pipeline.
    pub fn place(&self) -> (Arc<dyn Disk>, PathBuf) {
        (Arc::clone(&self.disk), self.dir.clone())
    }

    /// The journal's id.
    pub fn id(&self) -> &str {
        self.journal.id()
    }

    /// The first number that this process gives.
    pub fn first(&self) -> Lsn {
        self.journal.first()
    }

    /// The router's name, as far as the journal knows it.
    pub fn router(&self) -> Option<&str> {
        self.journal.router()
    }

    /// What the journal tells other threads.
    pub fn progress(&self) -> Arc<Progress> {
        self.journal.progress()
    }

    /// What was known to be in Redis when the journal was written last; the writer's own words.
    pub fn mark(&self) -> Option<&[u8]> {
        self.mark.as_ref().map(|mark| &*mark.payload)
    }

    /// When the oldest input was received that was decided, and that Redis did not have when that was noted last.
    pub(super) fn oldest_undelivered_us(&self) -> Option<u64> {
        let known = self.mark.as_ref().map_or(0, |mark| mark.head.lsn);
        let mut inputs = self.after(known);
        let oldest = inputs.next_head().ok().flatten();
        let oldest = oldest.filter(|oldest| oldest.lsn <= self.taken);
        oldest.map(|oldest| oldest.at_us)
    }

    /// `synced` is called when what was written is on stable storage, with how long that took.
    pub fn on_synced(&mut self, synced: impl Fn(Duration) + Send + 'static) {
        self.journal.on_synced(Box::new(synced));
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

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.last
    }

    /// Everything up to here was taken to be decided.
    pub fn taken(&self) -> Lsn {
        self.taken
    }

    /// Why the disk takes nothing.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Places of the journal that were damaged and were skipped, at the start and since.
    pub(super) fn quarantined(&self) -> u64 {
        let since = self
            .behind
            .as_ref()
            .map_or(0, |one| one.reader.quarantined());
        self.journal.progress().quarantined() + since
    }

    /// Events that only memory has, of those that were not taken.
    pub(super) fn unjournaled(&self) -> u64 {
        let Some(first) = self.first_forgotten() else {
            return 0;
        };
        let held = self.fresh.iter().filter(|input| input.head.lsn >= first);
        held.filter(|input| input.head.kind.is_event()).count() as u64
    }

    /// Whether memory has room for more that the disk does not take.
    pub(super) fn has_memory(&self) -> bool {
        self.unjournaled() < FRESH as u64 / 2
            && self.fresh_bytes < FRESH_BYTES
            && self.forgotten_bytes < FORGOTTEN_BYTES
    }

    /// From and up to these, inputs were decided that only memory has.
    pub(super) fn unkept(&self) -> Option<(Lsn, Lsn)> {
        let first = self.first_forgotten()?;
        (first <= self.taken).then_some((first, self.taken))
    }

    fn first_forgotten(&self) -> Option<Lsn> {
        let input = self
            .forgotten
            .iter()
            .find(|record| record.head.kind.is_input());
        input.map(|record| record.head.lsn)
    }

    /// Redis has everything up to here.
    pub(super) fn acknowledged(&mut self, through: Lsn) {
        self.forgotten.retain(|record| record.head.lsn > through);
        self.forgotten_bytes = bytes_of(&self.forgotten);
        self.journal.committed(through);
    }

    /// Where the disk may take something again, what it did not take is appended once more, before anything newer.
    pub(super) fn retry(&mut self) {
        if self.forgotten.is_empty() && self.forgotten_mark.is_none() {
            return;
        }
        if self.journal.is_refusing() {
            // Nothing newer may get there before it, even if the disk works a moment later.
            self.journal.refuse_next();
            return;
        }
        // What was decided since the last write is newer.
        let newer = self.journal.take_back();
        let older = std::mem::take(&mut self.forgotten);
        self.forgotten_bytes = 0;
        for record in older.iter().chain(&self.forgotten_mark).chain(&newer) {
            self.journal.append_again(record);
        }
        self.forgotten_mark = None;
    }

    /// When the oldest waiting input was received; of one that only the journal has, when the one before it was.
    pub(super) fn oldest_us(&self) -> Option<u64> {
        let next = self
            .fresh
            .front()
            .filter(|next| next.head.lsn == self.taken + 1);
        let oldest_us = next.map_or(self.taken_us, |next| next.head.at_us);
        (self.waiting > 0 && oldest_us > 0).then_some(oldest_us)
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
        self.waiting += u64::from(kind.is_event());
        self.unwritten.push((lsn, journaled));
        self.fresh_bytes += bytes.len();
        let head = Head {
            lsn,
            kind,
            at_us: received_us,
            connection,
            offset,
        };
        self.fresh.push_back(Record {
            head,
            payload: bytes,
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
                for record in error.forgotten {
                    match record.head.kind {
                        Kind::Mark => self.forgotten_mark = Some(record),
                        // The next segment's header has it.
                        Kind::Router => {}
                        _ => {
                            self.forgotten_bytes += record.payload.len();
                            self.forgotten.push(record);
                        }
                    }
                }
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
            self.fresh_bytes -= newest.payload.len();
        }
    }

    /// The oldest segment went, and with it inputs that nobody had taken.
    fn give_up(&mut self, lost: u64, skip_to: Lsn) {
        tracing::error!(lost, "journal full: the oldest events are lost");
        self.waiting = self.waiting.saturating_sub(lost);
        self.behind = None;
        self.taken = self.taken.max(skip_to.saturating_sub(1));
        while self
            .fresh
            .front()
            .is_some_and(|one| one.head.lsn <= self.taken)
        {
            self.pop_fresh();
        }
    }

    fn pop_fresh(&mut self) -> Option<Record> {
        let input = self.fresh.pop_front()?;
        self.fresh_bytes -= input.payload.len();
        Some(input)
    }

    /// The next inputs in order, at most `most`, and how many before them are gone because the journal is damaged.
    pub(super) fn take(&mut self, most: usize) -> (Vec<Record>, u64) {
        let (mut inputs, mut bytes) = (Vec::new(), 0);
        while inputs.len() < most && bytes < FRESH_BYTES && self.taken < self.last {
            let next_in_memory = self.fresh.front().map(|input| input.head.lsn);
            let input = match next_in_memory {
                Some(lsn) if lsn == self.taken + 1 => Ok(self.pop_fresh()),
                _ => self.read(next_in_memory.unwrap_or(Lsn::MAX)),
            };
            let input = match input {
                Ok(input) => input,
                Err(error) => {
                    let error = error.to_string();
                    if self.unreadable.as_ref() != Some(&error) {
                        tracing::error!(error, after = self.taken, "journal cannot be read now");
                    }
                    self.unreadable = Some(error);
                    break;
                }
            };
            self.unreadable = None;
            let Some(input) = input.or_else(|| self.pop_fresh()) else {
                // Nothing is left anywhere: what was between is gone.
                self.taken = self.last;
                break;
            };
            (self.taken, self.taken_us) = (input.head.lsn, input.head.at_us);
            self.waiting = self
                .waiting
                .saturating_sub(u64::from(input.head.kind.is_event()));
            bytes += input.payload.len();
            inputs.push(input);
        }
        let gone = match self.taken == self.last && self.fresh.is_empty() {
            true => std::mem::take(&mut self.waiting),
            false => 0,
        };
        (inputs, gone)
    }

    /// The next input of the journal before `end`.
    fn read(&mut self, end: Lsn) -> std::io::Result<Option<Record>> {
        // A reader that is a little behind what came from memory meanwhile passes over it; one that is far behind is too slow.
        let near = |behind: &Behind| self.taken.saturating_sub(behind.at) <= NEAR;
        let mut behind = match self.behind.take().filter(near) {
            Some(behind) => behind,
            None => Behind {
                reader: self.after(self.taken),
                at: self.taken,
            },
        };
        loop {
            match behind.reader.next()? {
                Some(record) if record.head.lsn <= self.taken => {}
                Some(record) if record.head.lsn < end => {
                    behind.at = record.head.lsn;
                    self.behind = Some(behind);
                    return Ok(Some(record));
                }
                _ => return Ok(None),
            }
        }
    }

    /// Closes the journal: everything is on stable storage, nothing is left preallocated.
    pub(super) fn close(self) {
        self.journal.close();
    }
}

fn bytes_of(records: &[Record]) -> usize {
    records.iter().map(|record| record.payload.len()).sum()
}

/// Up to where every input has its decision. A power cut or damage may have taken a decision and left a later one: what comes
/// from the hole on is decided again, as far as Redis does not have it.
fn decided(found: &Found, disk: &Arc<dyn Disk>, dir: &Path) -> Lsn {
    match hole(found, disk, dir) {
        Ok(None) => found.decided,
        Ok(Some(lsn)) => {
            let through = found.decided;
            tracing::warn!(
                lsn,
                through,
                "decisions are gone: their inputs are decided again"
            );
            lsn - 1
        }
        Err(error) => {
            tracing::error!(%error, "journal cannot be read for what is not decided");
            found.decided
        }
    }
}

/// The first input that lacks its decision although later ones have theirs.
fn hole(found: &Found, disk: &Arc<dyn Disk>, dir: &Path) -> std::io::Result<Option<Lsn>> {
    let known = found.mark.as_ref().map_or(0, |mark| mark.head.lsn);
    let mut inputs = Reader::inputs_after(Arc::clone(disk), dir, known);
    let mut decisions = Reader::decisions_after(Arc::clone(disk), dir, known);
    let mut decision = decisions.next_head()?;
    while let Some(Head { lsn, .. }) = inputs.next_head()? {
        if lsn > found.decided {
            break;
        }
        while decision.is_some_and(|one| one.lsn < lsn) {
            decision = decisions.next_head()?;
        }
        if decision.is_none_or(|one| one.lsn > lsn) {
            return Ok(Some(lsn));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

    use super::{Arrival, Inputs};
    use crate::config::{Journal, Sync};
    use crate::journal::Kind;

    fn settings(dir: &std::path::Path) -> Journal {
        Journal {
            dir: dir.join("journal"),
            max_size: 64 << 20,
            retain: Duration::from_secs(60),
            sync: Sync::Never,
        }
    }

    fn arrival(number: u64, bytes: usize) -> Arrival {
        let mut event = number.to_string();
        event.extend(std::iter::repeat_n(' ', bytes));
        Arrival {
            kind: Kind::Json,
            ..Arrival::new(Kind::Replay, Bytes::from(event))
        }
    }

    fn number(bytes: &[u8]) -> u64 {
        std::str::from_utf8(bytes).unwrap().trim().parse().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Far more than memory holds, taken slower and faster than it comes, over restarts.
        #[test]
        fn every_input_is_taken_once_and_in_order(
            turns in prop::collection::vec((0_u64..200, 0_usize..150, any::<prop::sample::Index>()), 1..40),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let settings = settings(dir.path());
            let mut inputs = Inputs::open(&settings, None).unwrap();
            let (mut arrived, mut taken) = (0, 0);
            for (arrivals, most, restart) in turns {
                for _ in 0..arrivals {
                    inputs.arrive(arrival(arrived, 20 << 10));
                    arrived += 1;
                }
                prop_assert_eq!(inputs.write(), 0);
                let (some, gone) = inputs.take(most);
                prop_assert_eq!(gone, 0, "nothing is damaged");
                for input in some {
                    prop_assert_eq!(number(&input.payload), taken, "in order");
                    taken += 1;
                    inputs.journal().decide(input.head.lsn, 0, b"");
                }
                prop_assert_eq!(inputs.waiting(), arrived - taken);
                prop_assert!(inputs.fresh_bytes <= super::FRESH_BYTES, "memory is bounded");
                if restart.index(8) == 0 {
                    prop_assert_eq!(inputs.write(), 0);
                    inputs.close();
                    inputs = Inputs::open(&settings, None).unwrap();
                    prop_assert_eq!(inputs.waiting(), arrived - taken, "counted again");
                }
            }
            while taken < arrived {
                let (some, gone) = inputs.take(64);
                prop_assert_eq!(gone, 0);
                prop_assert!(!some.is_empty(), "{} of {} are there", taken, arrived);
                for input in some {
                    prop_assert_eq!(number(&input.payload), taken);
                    taken += 1;
                }
            }
            inputs.close();
        }
    }
}
