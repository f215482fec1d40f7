//! The queue between the socket and the pipeline: what waits while Redis is away.
//!
//! It never makes the intake wait. When it is full, the oldest inputs are given up, counted as lost and said aloud.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::esl::Received;
use crate::event::Format;
use crate::ledger::Ledger;
use crate::metrics::Metrics;

/// Bytes of events that may wait, whatever their number.
const MAX_BYTES: usize = 256 << 20;

/// One event frame, as it came.
#[derive(Clone, Debug)]
pub struct Input {
    /// How it is encoded.
    pub format: Format,
    /// The frame's body.
    pub bytes: Bytes,
    /// When it was read, in microseconds since the epoch.
    pub received_us: u64,
}

/// The queue of inputs.
#[derive(Debug)]
pub struct Backlog {
    waiting: Mutex<Waiting>,
    max_events: usize,
    pipeline: OnceLock<Thread>,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Waiting {
    inputs: VecDeque<Input>,
    bytes: usize,
    closed: bool,
    aborted: bool,
    lost: u64,
    warned: Option<Instant>,
}

/// What the queue has for the pipeline.
pub(super) enum Taken {
    Inputs(Vec<Input>),
    Nothing,
    /// Closed and drained, or given up.
    End,
}

impl Backlog {
    /// An empty queue for at most `max_events` events.
    pub fn new(max_events: usize, ledger: Arc<Ledger>, metrics: Arc<Metrics>) -> Backlog {
        Backlog {
            waiting: Mutex::default(),
            max_events,
            pipeline: OnceLock::new(),
            ledger,
            metrics,
        }
    }

    /// Takes in what one read of the socket brought; gives up the oldest inputs where there is no room. Events that were
    /// too large to keep are received, and lost.
    pub fn receive(&self, received: Received) {
        let Received {
            at_us: received_us,
            events,
            too_large,
        } = received;
        self.ledger.received(events.len() as u64 + too_large);
        self.ledger.lost("too_large", too_large);
        let mut waiting = self.lock();
        for (format, bytes) in events {
            waiting.bytes += bytes.len();
            waiting.inputs.push_back(Input {
                format,
                bytes,
                received_us,
            });
        }
        let mut lost = 0;
        while waiting.inputs.len() > self.max_events || waiting.bytes > MAX_BYTES {
            let Some(oldest) = waiting.inputs.pop_front() else {
                break;
            };
            waiting.bytes -= oldest.bytes.len();
            lost += 1;
        }
        self.metrics
            .reader_size
            .set(i64::try_from(waiting.inputs.len()).unwrap_or(i64::MAX));
        if lost > 0 {
            self.ledger.lost("buffer_full", lost);
            waiting.lost += lost;
            if waiting
                .warned
                .is_none_or(|last| last.elapsed() >= Duration::from_secs(1))
            {
                waiting.warned = Some(Instant::now());
                tracing::error!(
                    lost = waiting.lost,
                    waiting = waiting.inputs.len(),
                    "buffer full: the oldest events are lost"
                );
                waiting.lost = 0;
            }
        }
        drop(waiting);
        self.wake();
    }

    /// Nothing more comes: the pipeline ends when it has taken what is there.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake();
    }

    /// The pipeline ends now; what is still here is counted as lost.
    pub fn abort(&self) {
        let mut waiting = self.lock();
        waiting.aborted = true;
        let left = waiting.inputs.len() as u64;
        waiting.inputs.clear();
        waiting.bytes = 0;
        drop(waiting);
        self.ledger.lost("shutdown", left);
        self.wake();
    }

    /// Something changed that the pipeline should look at.
    pub fn wake(&self) {
        if let Some(pipeline) = self.pipeline.get() {
            pipeline.unpark();
        }
    }

    /// The thread that [`Backlog::wake`] wakes.
    pub(super) fn serve(&self, pipeline: Thread) {
        // A second pipeline on one backlog does not exist; the first stays the one that is woken.
        self.pipeline.get_or_init(|| pipeline);
    }

    pub(super) fn take(&self, most: usize) -> Taken {
        let mut waiting = self.lock();
        if waiting.aborted {
            return Taken::End;
        }
        if waiting.inputs.is_empty() {
            return if waiting.closed {
                Taken::End
            } else {
                Taken::Nothing
            };
        }
        let count = waiting.inputs.len().min(most);
        let inputs: Vec<Input> = waiting.inputs.drain(..count).collect();
        waiting.bytes -= inputs.iter().map(|input| input.bytes.len()).sum::<usize>();
        self.metrics
            .reader_size
            .set(i64::try_from(waiting.inputs.len()).unwrap_or(i64::MAX));
        Taken::Inputs(inputs)
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.lock().aborted
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
