//! Makes decisions again from the journal: after a restart, and when Redis came back with less than it had acknowledged.
//!
//! Two readers go through the journal side by side, one over inputs, one over decisions. What one of them cannot find any more
//! is counted and passed over.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::decision::Decision;
use crate::journal::{Disk, Head, Kind, Lsn, Reader, Record};
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
    /// Streams by name.
    pub(super) routes: Arc<Routes>,
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
    /// The last decision that met its input.
    matched: Lsn,
    /// A decision that was read and is still to be made.
    waiting: Option<Record>,
}

impl Readers {
    fn new(source: &Source, after: Lsn) -> Readers {
        Readers {
            at: after,
            inputs: Reader::inputs_after(Arc::clone(&source.disk), &source.dir, after),
            decisions: Reader::decisions_after(Arc::clone(&source.disk), &source.dir, after),
            input: None,
            matched: after,
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
            if let Some(decision) = self.make(source, &decision)? {
                bytes += decision.bytes();
                made.push(Arc::new(decision));
            }
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

    fn make(&mut self, source: &Source, decision: &Record) -> io::Result<Option<Decision>> {
        let lsn = decision.head.lsn;
        while self.input.as_ref().is_none_or(|input| input.head.lsn < lsn) {
            let passed = self.input.take();
            if let Some(input) = passed.filter(|input| input.head.lsn > self.matched) {
                self.give_up(source, &input.head, "its decision is gone");
            }
            match self.inputs.next()? {
                Some(input) => self.input = Some(input),
                None => break,
            }
        }
        self.matched = lsn;
        let Some(input) = self.input.as_ref().filter(|input| input.head.lsn == lsn) else {
            self.give_up(source, &decision.head, "its input is gone");
            return Ok(None);
        };
        match Decision::again(input, decision, &source.routes) {
            Ok(made) => Ok(made),
            Err(error) => {
                self.give_up(source, &decision.head, &error.to_string());
                Ok(None)
            }
        }
    }

    fn give_up(&self, source: &Source, head: &Head, why: &str) {
        if head.kind.is_event() || head.kind == Kind::Decision {
            tracing::error!(lsn = head.lsn, why, "event cannot be sent again");
            source.metrics.unhealable.inc();
        }
    }
}
