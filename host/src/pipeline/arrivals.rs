//! The queue between what brings inputs and the pipeline's thread, which journals them. It is empty but for moments: a disk that hangs
//! or is full makes it grow, and a flood while it lasts.
//!
//! It never makes the intake wait. When it is full, the oldest arrivals are given up, counted as lost and said aloud.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::clock;
use crate::esl::Received;
use crate::event::{Format, Own};
use crate::journal::{Kind, Lsn};
use crate::ledger::Ledger;

/// Bytes of events that may wait, whatever their number.
const MAX_BYTES: usize = 256 << 20;
/// Bytes of events that are taken at once; one event more may go over it.
const MAX_TAKEN: usize = 4 << 20;

/// What came, before it has a number.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) kind: Kind,
    pub(super) bytes: Bytes,
    /// When it was read, in microseconds since the epoch.
    pub(super) received_us: u64,
    /// Which connection of this process, counted from 1; 0 for what came from none.
    pub(super) connection: u32,
    /// Where in its bytes.
    pub(super) offset: u64,
    /// Told the number once it is in the journal.
    pub(super) journaled: Option<oneshot::Sender<Lsn>>,
}

impl Arrival {
    /// Filters whose `tick` is due, one name a line.
    pub(super) fn tick(names: String) -> Arrival {
        Arrival::new(Kind::Tick, Bytes::from(names))
    }

    /// What comes from no connection.
    pub(super) fn new(kind: Kind, bytes: Bytes) -> Arrival {
        Arrival {
            kind,
            bytes,
            received_us: clock::now_us(),
            connection: 0,
            offset: 0,
            journaled: None,
        }
    }
}

/// The queue of arrivals.
#[derive(Debug)]
pub struct Arrivals {
    waiting: Mutex<Waiting>,
    max_events: usize,
    pipeline: OnceLock<Thread>,
    ledger: Arc<Ledger>,
}

#[derive(Debug, Default)]
struct Waiting {
    arrivals: VecDeque<Arrival>,
    bytes: usize,
    stop: Stop,
    lost: u64,
    warned: Option<Instant>,
}

/// How far the pipeline is to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stop {
    /// There may be more.
    #[default]
    No,
    /// Nothing more comes: it ends when all is decided.
    Drained,
    /// It ends when what came is in the journal.
    Now,
}

impl Arrivals {
    /// An empty queue for at most `max_events` events.
    pub fn new(max_events: usize, ledger: Arc<Ledger>) -> Arrivals {
        Arrivals {
            waiting: Mutex::default(),
            max_events,
            pipeline: OnceLock::new(),
            ledger,
        }
    }

    /// Takes in what one read of the socket brought. Events that were too large to keep are received, and lost.
    pub fn receive(&self, received: Received) {
        self.ledger
            .received(received.events.len() as u64 + received.too_large);
        self.ledger.lost("too_large", received.too_large);
        let arrival = |frame: crate::esl::EventFrame| Arrival {
            kind: match frame.format {
                Format::Json => Kind::Json,
                Format::Plain => Kind::Plain,
            },
            bytes: frame.bytes,
            received_us: received.at_us,
            connection: received.connection,
            offset: frame.offset,
            journaled: None,
        };
        self.push(received.events.into_iter().map(arrival));
    }

    /// Takes in a dead letter for another try; the receiver gets its number once it is in the journal.
    pub fn replay(&self, event: Bytes) -> oneshot::Receiver<Lsn> {
        let (journaled, number) = oneshot::channel();
        self.ledger.received(1);
        self.push(std::iter::once(Arrival {
            journaled: Some(journaled),
            ..Arrival::new(Kind::Replay, event)
        }));
        number
    }

    /// Takes in an event of the host's own.
    pub fn own(&self, event: &Own) {
        self.ledger.received(1);
        self.push(std::iter::once(Arrival::new(Kind::Internal, event.json())));
    }

    /// Takes in the parts of a roll call.
    pub fn roll_call(&self, parts: Vec<Bytes>) {
        let parts = parts.into_iter();
        self.push(parts.map(|part| Arrival::new(Kind::RollCall, part)));
    }

    fn push(&self, arrivals: impl Iterator<Item = Arrival>) {
        let mut waiting = self.lock();
        for arrival in arrivals {
            waiting.bytes += arrival.bytes.len();
            waiting.arrivals.push_back(arrival);
        }
        let lost = waiting.shrink(self.max_events);
        drop(waiting);
        self.ledger.lost("buffer_full", lost);
        self.wake();
    }

    /// Nothing more comes: the pipeline ends when it has decided what is there.
    pub fn close(&self) {
        self.stop(Stop::Drained);
    }

    /// The pipeline ends as soon as what came is in the journal.
    pub fn abort(&self) {
        self.stop(Stop::Now);
    }

    fn stop(&self, stop: Stop) {
        self.lock().stop = stop;
        self.wake();
    }

    /// Something changed that the pipeline should look at.
    pub fn wake(&self) {
        if let Some(pipeline) = self.pipeline.get() {
            pipeline.unpark();
        }
    }

    /// Whether a pipeline takes from it.
    pub fn is_served(&self) -> bool {
        self.pipeline.get().is_some()
    }

    /// The thread that [`Arrivals::wake`] wakes.
    pub(super) fn serve(&self, pipeline: Thread) {
        // A second pipeline on one queue does not exist; the first stays the one that is woken.
        self.pipeline.get_or_init(|| pipeline);
    }

    /// The oldest arrivals, whether there will be more, and how many wait still.
    pub(super) fn take(&self, most: usize) -> (Vec<Arrival>, Stop, usize) {
        let mut waiting = self.lock();
        let (mut arrivals, mut bytes) = (Vec::new(), 0);
        while arrivals.len() < most && bytes < MAX_TAKEN {
            let Some(arrival) = waiting.arrivals.pop_front() else {
                break;
            };
            bytes += arrival.bytes.len();
            arrivals.push(arrival);
        }
        waiting.bytes -= bytes;
        // What cannot be taken will not be waited for when the end is near.
        let stop = match waiting.arrivals.is_empty() || most == 0 {
            true => waiting.stop,
            false => Stop::No,
        };
        (arrivals, stop, waiting.arrivals.len())
    }

    /// Events that wait.
    pub(super) fn events(&self) -> u64 {
        let waiting = self.lock();
        let events = waiting.arrivals.iter().filter(|one| one.kind.is_event());
        events.count() as u64
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Waiting {
    /// Gives up the oldest arrivals where there is no room; how many.
    fn shrink(&mut self, max_events: usize) -> u64 {
        let mut lost = 0;
        while self.arrivals.len() > max_events || self.bytes > MAX_BYTES {
            let Some(oldest) = self.arrivals.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes.len();
            lost += u64::from(oldest.kind.is_event());
        }
        self.lost += lost;
        let quiet = |last: Instant| last.elapsed() < Duration::from_secs(1);
        if self.lost > 0 && !self.warned.is_some_and(quiet) {
            self.warned = Some(Instant::now());
            let lost = std::mem::take(&mut self.lost);
            let waiting = self.arrivals.len();
            tracing::error!(lost, waiting, "buffer full: the oldest events are lost");
        }
        lost
    }
}
