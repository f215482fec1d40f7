//! One listener: what it is given next, from its place on, until it has enough, the host stops, or it goes away.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use super::message::{self, End};
use super::page::{Page, Place, Source, What};
use super::pages::Pages;
use super::wish::Wish;
use crate::journal::Lsn;
use crate::metrics::Metrics;
use crate::pipeline::{Inputs, Seen};

/// After so much silence a sign of life is given.
const QUIET: Duration = Duration::from_secs(15);

/// All listeners.
pub struct Listeners {
    pages: Pages,
    seen: Arc<Seen>,
    metrics: Arc<Metrics>,
    /// What was decided before this process.
    before: Lsn,
    now: AtomicUsize,
}

/// Why somebody may not listen.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// There are too many.
    #[error("there are {0} listeners, which is the most")]
    TooMany(usize),
    /// No event has such a number.
    #[error("since: {since}: allowed is an event's LSN; the newest is {newest}")]
    Future {
        /// What was asked for.
        since: Lsn,
        /// What there is.
        newest: Lsn,
    },
}

/// Whoever listens.
pub struct Listener {
    all: Arc<Listeners>,
    wish: Wish,
    place: Place,
    /// Up to here it was given what it wants.
    at: Lsn,
    /// What it is given next, of the page before its place.
    ready: VecDeque<Ready>,
    /// Events that it may still be given.
    left: u64,
    until: Option<Instant>,
    /// When it was given something, while it has not come back for more.
    given: Option<Instant>,
    ended: Option<End>,
}

#[derive(Debug)]
struct Ready {
    lsn: Lsn,
    is_event: bool,
    message: Bytes,
}

impl Listeners {
    /// Nobody listens yet.
    pub fn new(inputs: &Inputs, seen: Arc<Seen>, metrics: Arc<Metrics>) -> Listeners {
        let (disk, dir) = inputs.place();
        let progress = inputs.progress();
        Listeners {
            pages: Pages::new(Source {
                disk,
                dir,
                progress,
            }),
            seen,
            metrics,
            before: inputs.taken(),
            now: AtomicUsize::new(0),
        }
    }

    /// Reads the journal for listeners until [`Listeners::stop`]; to be called on a thread of its own.
    pub fn serve(&self) {
        self.pages.serve(&self.seen);
    }

    /// Every listener is told that the host stops.
    pub fn stop(&self) {
        self.pages.stop();
    }

    /// Ready when none is left; one that reads nothing stays for a while.
    pub async fn gone(&self) {
        while self.now() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many there are.
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// Begins to listen.
    ///
    /// # Errors
    /// There are too many, or it asks for what is to come.
    pub fn listen(self: &Arc<Listeners>, wish: Wish) -> Result<Listener, Refused> {
        let journal = self.seen.journal();
        let decided = journal.decided.max(self.before);
        let newest = journal.last.max(decided);
        let after = match wish.since {
            None => decided,
            Some(since) if since <= newest => since,
            // Its journal is gone, and all of this one is new to it.
            Some(_) if wish.resumes => 0,
            Some(since) => return Err(Refused::Future { since, newest }),
        };
        let most = super::LISTENERS.min(files() / 2);
        let more = |now: usize| (now < most).then_some(now + 1);
        if self
            .now
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_err()
        {
            return Err(Refused::TooMany(most));
        }
        self.metrics.listeners.now.inc();
        let place = Place::after(after);
        Ok(Listener {
            all: Arc::clone(self),
            at: place.at,
            place,
            ready: VecDeque::new(),
            left: wish.limit.unwrap_or(u64::MAX),
            until: wish
                .timeout
                .and_then(|timeout| Instant::now().checked_add(timeout)),
            given: None,
            ended: None,
            wish,
        })
    }
}

impl Listener {
    /// Where it is, to be said before anything happens.
    pub fn place(&self) -> Bytes {
        message::place(self.at)
    }

    /// What it is given next, when there is something; `None`: nothing any more.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.given = None;
        let message = self.find().await;
        self.given = Some(Instant::now());
        message
    }

    async fn find(&mut self) -> Option<Bytes> {
        let quiet = Instant::now() + QUIET;
        loop {
            if self.ended.is_some() {
                return None;
            }
            if self.until.is_some_and(|until| until <= Instant::now()) {
                return self.end(End::Timeout);
            }
            if self.left == 0 {
                return self.end(End::Limit);
            }
            if let Some(ready) = self.ready.pop_front() {
                self.left -= u64::from(ready.is_event);
                self.at = ready.lsn;
                return Some(ready.message);
            }
            self.at = self.place.at;
            let until = self.until.map_or(quiet, |until| until.min(quiet));
            tokio::select! {
                page = self.all.pages.after(&self.place) => match page {
                    Some(page) => {
                        self.take(&page);
                        // There may be many that are read already and have nothing for it.
                        yield_now().await;
                    }
                    None => return self.end(End::Stopping),
                },
                () = sleep_until(until) => {
                    if until == quiet {
                        return Some(message::place(self.at));
                    }
                }
            }
        }
    }

    fn take(&mut self, page: &Page) {
        let behind = page
            .items
            .iter()
            .filter(|item| item.lsn > self.at || page.end.troubled);
        for item in behind {
            let is_event = match &item.what {
                What::Input(events) if self.wish.interest.wants(events) => true,
                What::Input(_) => continue,
                What::Gap => false,
            };
            self.ready.push_back(Ready {
                lsn: item.lsn,
                is_event,
                message: item.message.clone(),
            });
        }
        self.place = page.end.clone();
    }

    fn end(&mut self, end: End) -> Option<Bytes> {
        self.ended = Some(end);
        message::end(self.at, end)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let has_stalled = |given: Instant| given.elapsed() + QUIET / 10 >= super::STALL;
        let end = match self.ended {
            Some(end) => end,
            None if self.given.is_some_and(has_stalled) => End::Stalled,
            None => End::Gone,
        };
        self.all.metrics.listeners.ended(end.label());
        if self.all.now.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.all.pages.forget();
        }
        self.all.metrics.listeners.now.dec();
    }
}

/// How many files and sockets this process may have open.
/// How many this process may have open.
pub fn files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    })
}
