//! Makes decisions again from the journal: after a restart, and when Redis came back with less than it had acknowledged.
//!
//! Two readers go through the journal side by side, one over inputs, one over decisions. What one of them cannot find any more
//! is counted and passed over.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::decision::Decision;
use crate::journal::{Disk, EPOCH, Head, Kind, Lsn, Reader, Record};
use crate::metrics::Metrics;
use crate::route::Routes;

/// Decisions that are looked at in one go; those that were drops make nothing.
const MOST_READ: usize = 4_096;

/// Where the journal is, and what entries are made with.
#[derive(Clone)]
pub(super) struct Source {
    /// The disk of the journal.
    pub(super) disk: Arc<dyn Disk>,
    /// Its folder.
    pub(super) dir: PathBuf,
    /// Streams by name, as the settings describe them now.
    pub(super) routes: watch::Receiver<Arc<Routes>>,
    /// Counts what cannot be made again.
    pub(super) metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("dir", &self.dir).finish()
    }
}

/// What a read of the journal came to.
#[derive(Debug)]
pub(super) enum Refilled {
    /// These have entries; never empty.
    Decisions(Vec<Arc<Decision>>),
    /// None up to here has.
    Passed(Lsn),
}

/// A place in the journal, kept from one call to the next.
#[derive(Debug)]
pub(super) struct Refill {
    source: Source,
    readers: Option<Readers>,
    /// What was handed out last: a batch that was halved asks for the rest of it.
    given: Vec<Arc<Decision>>,
    /// A read that goes on although nobody waits for it any more; there is never more than one.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    after: Lsn,
    read: JoinHandle<(Readers, io::Result<Refilled>)>,
}

impl Refill {
    pub(super) fn new(source: Source) -> Refill {
        Refill {
            source,
            readers: None,
            given: Vec::new(),
            running: None,
        }
    }

    /// Reads on after `after`, for a while, and not beyond `to`. Safe to cancel: the next call finds what was read.
    pub(super) async fn next(
        &mut self,
        after: Lsn,
        to: Lsn,
        most: usize,
        max_bytes: usize,
    ) -> io::Result<Refilled> {
        if let Some(at) = self.given.iter().position(|one| one.lsn == after)
            && let Some(rest @ [_, ..]) = self.given.get(at + 1..)
        {
            let rest = rest.iter().take(most).cloned();
            return Ok(Refilled::Decisions(rest.collect()));
        }
        if let Some(other) = self.running.as_mut().filter(|other| other.after != after) {
            // What it found is of no use here.
            let _done = (&mut other.read).await;
            self.running = None;
        }
        let running = self.running.get_or_insert_with(|| {
            let source = self.source.clone();
            let readers = self.readers.take().filter(|readers| readers.at == after);
            // Reading may wait for the disk, which is no work for the runtime's threads.
            let read = tokio::task::spawn_blocking(move || {
                let mut readers = readers.unwrap_or_else(|| Readers::new(&source, after));
                let refilled = readers.read(&source, to, most, max_bytes);
                (readers, refilled)
            });
            Running { after, read }
        });
        let done = (&mut running.read).await;
        self.running = None;
        let (readers, refilled) = done.map_err(io::Error::other)?;
        self.readers = refilled.is_ok().then_some(readers);
        if let Ok(Refilled::Decisions(decisions)) = &refilled {
            self.given.clone_from(decisions);
        }
        refilled
    }
}

#[derive(Debug)]
struct Readers {
    /// How far they have come: only a call that goes on there may use them.
    at: Lsn,
    inputs: Reader,
    decisions: Reader,
    input: Option<Record>,
    /// Where they began.
    after: Lsn,
    /// The last input that was read; 0 for none.
    read: Lsn,
    /// Inputs that are missing and were counted.
    gap: Range<Lsn>,
    /// The last decision that met its input.
    matched: Lsn,
    /// What was decided once more, if something is missing in its place.
    decided_again: Option<HashMap<Lsn, Record>>,
    /// A decision that was read and is still to be made.
    waiting: Option<Record>,
}

impl Readers {
    fn new(source: &Source, after: Lsn) -> Readers {
        Readers {
            at: after,
            // From the one before on, if it is there: a gap behind it shows.
            inputs: Reader::inputs_after(
                Arc::clone(&source.disk),
                &source.dir,
                after.saturating_sub(1),
            ),
            decisions: Reader::decisions_after(Arc::clone(&source.disk), &source.dir, after),
            input: None,
            after,
            read: 0,
            gap: 0..0,
            matched: after,
            decided_again: None,
            waiting: None,
        }
    }

    fn read(
        &mut self,
        source: &Source,
        to: Lsn,
        most: usize,
        max_bytes: usize,
    ) -> io::Result<Refilled> {
        let (mut made, mut bytes) = (Vec::new(), 0);
        for _ in 0..MOST_READ {
            if made.len() >= most || bytes >= max_bytes {
                break;
            }
            if self.waiting.is_none() {
                self.waiting = self.decisions.next()?;
            }
            let Some(decision) = self.waiting.take_if(|next| next.head.lsn <= to) else {
                self.at = to;
                break;
            };
            self.at = decision.head.lsn;
            let before = made.len();
            self.make(source, decision, &mut made)?;
            let new = made.iter().skip(before);
            bytes += new.map(|decision| decision.bytes()).sum::<usize>();
        }
        match made.last() {
            Some(last) => {
                // The caller goes on after what it was given.
                self.at = last.lsn;
                Ok(Refilled::Decisions(made))
            }
            None => Ok(Refilled::Passed(self.at)),
        }
    }

    /// Makes the decision, and before it those that were made once more for inputs that come before it.
    fn make(
        &mut self,
        source: &Source,
        decision: Record,
        made: &mut Vec<Arc<Decision>>,
    ) -> io::Result<()> {
        let lsn = decision.head.lsn;
        while self.input.as_ref().is_none_or(|input| input.head.lsn < lsn) {
            if let Some(input) = self.input.take_if(|input| input.head.lsn > self.matched) {
                match self.again(source, input.head.lsn)? {
                    Some(again) => made.extend(source.make(&input, &again)),
                    None => source.give_up(&input.head, "its decision is gone"),
                }
            }
            let Some(input) = self.inputs.next()? else {
                break;
            };
            self.note_gap(source, input.head.lsn);
            self.input = Some(input);
        }
        self.matched = lsn;
        match self.input.as_ref().filter(|input| input.head.lsn == lsn) {
            Some(input) => {
                let again = self.decided_again.as_ref();
                let decision = again.and_then(|again| again.get(&lsn)).unwrap_or(&decision);
                made.extend(source.make(input, decision));
            }
            None if self.gap.contains(&lsn) => {}
            None => source.give_up(&decision.head, "its input is gone"),
        }
        Ok(())
    }

    /// The decision about an input that has none in its place.
    fn again(&mut self, source: &Source, lsn: Lsn) -> io::Result<Option<Record>> {
        if self.decided_again.is_none() {
            let disk = Arc::clone(&source.disk);
            let mut reader = Reader::decided_again_after(disk, &source.dir, self.after);
            let mut again = HashMap::new();
            while let Some(record) = reader.next()? {
                if record.head.lsn > self.after {
                    again.insert(record.head.lsn, record);
                }
            }
            self.decided_again = Some(again);
        }
        let again = self.decided_again.as_ref();
        Ok(again.and_then(|again| again.get(&lsn)).cloned())
    }

    /// Numbers are given without gaps within one open of the journal: what is missing was never in it, or is damaged.
    fn note_gap(&mut self, source: &Source, lsn: Lsn) {
        let before = std::mem::replace(&mut self.read, lsn);
        if before + 1 < lsn && before / EPOCH == lsn / EPOCH && lsn > self.after {
            let missing = lsn - before - 1;
            tracing::error!(
                after = before,
                before = lsn,
                missing,
                "events are not in the journal and cannot be sent again"
            );
            source.metrics.unhealable.inc_by(missing);
            self.gap = before + 1..lsn;
        }
    }
}

impl Source {
    fn make(&self, input: &Record, decision: &Record) -> Option<Arc<Decision>> {
        match Decision::again(input, decision, &self.routes.borrow()) {
            Ok(made) => made.map(Arc::new),
            Err(error) => {
                self.give_up(&decision.head, &error.to_string());
                None
            }
        }
    }

    fn give_up(&self, head: &Head, why: &str) {
        if head.kind.is_event() || head.kind == Kind::Decision {
            tracing::error!(lsn = head.lsn, why, "event cannot be sent again");
            self.metrics.unhealable.inc();
        }
    }
}
