//! Makes decisions again from the journal: after a restart, and when Redis came back with less than it had acknowledged.
//!
//! Two readers go through the journal side by side, one over inputs, one over decisions. What one of them cannot find any more
//! is counted and passed over.

use std::path::PathBuf;
use std::sync::Arc;

use super::decision::Decision;
use crate::journal::{Disk, Lsn, Reader, Record};
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

/// A place in the journal, kept from one call to the next.
#[derive(Debug)]
pub(super) struct Refill {
    source: Source,
    readers: Option<Readers>,
}

impl Refill {
    pub(super) fn new(source: Source) -> Refill {
        Refill {
            source,
            readers: None,
        }
    }

    /// The next decisions after `after` and up to `to` that have entries; empty when there are none.
    pub(super) async fn next(
        &mut self,
        after: Lsn,
        to: Lsn,
        most: usize,
        max_bytes: usize,
    ) -> Vec<Arc<Decision>> {
        let source = self.source.clone();
        let readers = self.readers.take().filter(|readers| readers.at == after);
        let mut readers = readers.unwrap_or_else(|| Readers::new(&source, after));
        // Reading may wait for the disk, which is no work for the runtime's threads.
        let read = tokio::task::spawn_blocking(move || {
            let mut decisions = Vec::new();
            while decisions.is_empty() {
                match readers.read(&source, to, most, max_bytes, &mut decisions) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::error!(%error, after, "journal cannot be read: what it holds there is not sent again");
                        source.metrics.unhealable.inc();
                        break;
                    }
                }
            }
            (readers, decisions)
        });
        let Ok((mut readers, decisions)) = read.await else {
            return Vec::new();
        };
        readers.at = decisions
            .last()
            .map_or(after, |last: &Arc<Decision>| last.lsn);
        self.readers = Some(readers);
        decisions
    }
}

#[derive(Debug)]
struct Readers {
    /// What was handed out last: only a call that goes on there may use them.
    at: Lsn,
    inputs: Reader,
    decisions: Reader,
    input: Option<Record>,
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
            waiting: None,
        }
    }

    /// Reads on, for a while; false at the end.
    fn read(
        &mut self,
        source: &Source,
        to: Lsn,
        most: usize,
        max_bytes: usize,
        into: &mut Vec<Arc<Decision>>,
    ) -> std::io::Result<bool> {
        let mut bytes = 0;
        for _ in 0..MOST_READ {
            if into.len() >= most || bytes >= max_bytes {
                return Ok(true);
            }
            let decision = match self.waiting.take() {
                Some(decision) => decision,
                None => match self.decisions.next()? {
                    Some(decision) => decision,
                    None => return Ok(false),
                },
            };
            if decision.head.lsn > to {
                self.waiting = Some(decision);
                return Ok(false);
            }
            if let Some(made) = self.make(source, &decision)? {
                bytes += made.bytes();
                into.push(Arc::new(made));
            }
        }
        Ok(true)
    }

    fn make(&mut self, source: &Source, decision: &Record) -> std::io::Result<Option<Decision>> {
        let lsn = decision.head.lsn;
        while self.input.as_ref().is_none_or(|input| input.head.lsn < lsn) {
            match self.inputs.next()? {
                Some(input) => self.input = Some(input),
                None => break,
            }
        }
        let made = match self.input.as_ref().filter(|input| input.head.lsn == lsn) {
            Some(input) => {
                Decision::again(input, decision, &source.routes).map_err(|error| error.to_string())
            }
            // A decision of nothing: its input was damaged.
            None => Err("its input is gone".to_owned()),
        };
        made.map(Ok).unwrap_or_else(|error| {
            tracing::error!(lsn, error, "decision cannot be sent again");
            source.metrics.unhealable.inc();
            Ok(None)
        })
    }
}
