//! The queue between the pipeline and the writer: decided, not yet in Redis.
//!
//! Bounded; a full one makes the pipeline wait, and the waiting shows in the backlog.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::backlog::Backlog;
use crate::metrics::Metrics;
use crate::route::Delivery;

/// Decisions that may wait.
const MAX_DECISIONS: usize = 1_024;
/// Bytes of entries that may wait; one decision more may go over it.
const MAX_BYTES: usize = 16 << 20;
/// Bytes of entries in one batch; one decision more may go over it.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// What became of an input, as far as it goes to Redis.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The input's number in this run of the host.
    pub sequence: u64,
    /// When the input was read, in microseconds since the epoch.
    pub received_us: u64,
    /// When it was decided.
    pub decided_us: u64,
    /// The event and those derived from it, in order; never empty.
    pub events: Vec<Delivery>,
}

impl Decision {
    fn bytes(&self) -> usize {
        let entries = self.events.iter().flat_map(|event| &event.entries);
        entries
            .flat_map(|entry| &entry.fields)
            .map(|(field, value)| field.len() + value.len())
            .sum()
    }
}

/// The queue of decisions.
#[derive(Debug)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    backlog: Arc<Backlog>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Waiting {
    decisions: VecDeque<Decision>,
    bytes: usize,
    closed: bool,
}

impl Outbox {
    /// An empty queue; room in it wakes the pipeline that takes from `backlog`.
    pub fn new(backlog: Arc<Backlog>, metrics: Arc<Metrics>) -> Outbox {
        Outbox {
            waiting: Mutex::default(),
            filled: Notify::new(),
            backlog,
            metrics,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        let waiting = self.lock();
        waiting.decisions.len() < MAX_DECISIONS && waiting.bytes < MAX_BYTES
    }

    pub(super) fn push(&self, decisions: Vec<Decision>) {
        if decisions.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        waiting.bytes += decisions.iter().map(Decision::bytes).sum::<usize>();
        waiting.decisions.extend(decisions);
        self.show(&waiting);
        drop(waiting);
        self.filled.notify_one();
    }

    /// Nothing more comes.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// The next decisions, at most `most` and whole ones; `None` when there will be no more. Safe to cancel.
    pub async fn take(&self, most: usize) -> Option<Vec<Decision>> {
        loop {
            {
                let mut waiting = self.lock();
                if !waiting.decisions.is_empty() {
                    return Some(self.take_some(&mut waiting, most));
                }
                if waiting.closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    fn take_some(&self, waiting: &mut Waiting, most: usize) -> Vec<Decision> {
        let had_room = waiting.decisions.len() < MAX_DECISIONS && waiting.bytes < MAX_BYTES;
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < most && bytes < MAX_BATCH_BYTES {
            let Some(decision) = waiting.decisions.pop_front() else {
                break;
            };
            bytes += decision.bytes();
            taken.push(decision);
        }
        waiting.bytes -= bytes;
        self.show(waiting);
        if !had_room {
            self.backlog.wake();
        }
        taken
    }

    fn show(&self, waiting: &Waiting) {
        self.metrics
            .writer_size
            .set(i64::try_from(waiting.decisions.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
