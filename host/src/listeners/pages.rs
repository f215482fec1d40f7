//! Pages, read by one thread and shared: whoever wants one finds it among the newest, or asks and waits.
//!
//! Pages at the live end are read every [`LOOK`], so that many events make one page and nobody has to wake anybody; older ones at
//! once, in the order of the asking. Nothing is read while nobody asks. Memory is bounded whatever the number of listeners.
//!
//! Pages of the live end and older ones are kept apart: whoever goes through the past in haste displaces nothing that is new.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::page::{Page, Place, Source};
use crate::pipeline::Seen;

/// How often the journal is looked at for more.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of messages, and of the frames that events parsed for the listeners' conditions keep, in the newest pages and in the older
/// ones that were read last. What is parsed takes some twice as much beside it.
const NEWEST: usize = 12 << 20;
const OLDER: usize = 4 << 20;
/// Pages in each: at the live end they are small.
const MOST: usize = 256;
/// Of the lowest, so that whoever has something better to do does it first.
const NICE: i32 = 10;

/// The newest pages, and what is asked for.
#[derive(Debug)]
pub(super) struct Pages {
    source: Source,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    newest: Shelf,
    older: Shelf,
    /// The farthest place that was read.
    known: Option<Place>,
    asked: VecDeque<Asked>,
    /// When the live end is looked at again.
    next_look: Instant,
    stopped: bool,
}

/// Pages in the order in which they were read.
#[derive(Debug)]
struct Shelf {
    pages: VecDeque<Arc<Page>>,
    bytes: usize,
    max_bytes: usize,
}

/// The page behind a place, and who waits for it.
#[derive(Debug)]
struct Asked {
    place: Place,
    waiting: Vec<oneshot::Sender<Arc<Page>>>,
    not_before: Instant,
}

impl Pages {
    pub(super) fn new(source: Source) -> Pages {
        Pages {
            source,
            state: Mutex::new(State {
                newest: Shelf::new(NEWEST),
                older: Shelf::new(OLDER),
                known: None,
                asked: VecDeque::new(),
                next_look: Instant::now(),
                stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// The page behind a place, as soon as there is one; `None`: the host stops. Safe to cancel.
    pub(super) async fn after(&self, place: &Place) -> Option<Arc<Page>> {
        let receiver = {
            let mut state = self.lock();
            if let Some(page) = state.find(place) {
                return Some(page);
            }
            if state.stopped {
                return None;
            }
            let (sender, receiver) = oneshot::channel();
            state.ask(place, sender);
            receiver
        };
        self.changed.notify_one();
        receiver.await.ok()
    }

    /// Nobody listens: nothing need be kept.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        let newest = std::mem::replace(&mut state.newest, Shelf::new(NEWEST));
        let older = std::mem::replace(&mut state.older, Shelf::new(OLDER));
        // Megabytes are given back without the lock.
        drop(state);
        drop((newest, older));
    }

    /// Whoever waits is told that nothing more comes.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.asked.clear();
        drop(state);
        self.changed.notify_one();
    }

    /// The thread.
    pub(super) fn serve(&self, seen: &Seen) {
        // Of this thread alone, on Linux.
        if let Err(error) = rustix::process::nice(NICE) {
            tracing::debug!(%error, "listeners are served at the usual priority");
        }
        while let Some(mut asked) = self.take() {
            let known = self.lock().known.clone();
            let read = self.source.read(&asked.place, known.as_ref());
            let trouble = match read {
                Ok(page) if !page.is_empty() => {
                    self.put(Arc::new(page), asked);
                    continue;
                }
                Ok(_) => seen.journal().trouble,
                Err(error) => Some(format!("cannot be read: {error}")),
            };
            match trouble.filter(|_| !asked.place.troubled) {
                Some(trouble) => {
                    let page = Page::trouble(&asked.place, &format!("journal: {trouble}"));
                    asked.answer(&Arc::new(page));
                }
                None => {
                    asked.not_before = Instant::now() + LOOK;
                    self.lock().asked.push_back(asked);
                }
            }
        }
    }

    /// What is to be read next; `None`: nothing any more.
    fn take(&self) -> Option<Asked> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            // Who went away asks for nothing.
            state
                .asked
                .retain(|asked| asked.waiting.iter().any(|one| !one.is_closed()));
            let now = Instant::now();
            let due = state.asked.iter().position(|asked| asked.not_before <= now);
            if let Some(asked) = due.and_then(|due| state.asked.remove(due)) {
                return Some(asked);
            }
            let next = state.asked.iter().map(|asked| asked.not_before).min();
            state = match next {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(next) => {
                    let waited = self
                        .changed
                        .wait_timeout(state, next.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn put(&self, page: Arc<Page>, asked: Asked) {
        let mut state = self.lock();
        let known = state.known.as_ref();
        let is_newer = known.is_none_or(|known| known.at < page.end.at);
        if is_newer {
            state.known = Some(page.end.clone());
            let pause = if page.is_full() { Duration::ZERO } else { LOOK };
            state.next_look = Instant::now() + pause;
        }
        let displaced = match is_newer {
            true => state.newest.put(Arc::clone(&page)),
            false => state.older.put(Arc::clone(&page)),
        };
        // Megabytes are given back without the lock.
        drop(state);
        drop(displaced);
        asked.answer(&page);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, place: &Place) -> Option<Arc<Page>> {
        let newest_first = self.newest.pages.iter().rev();
        let mut pages = newest_first.chain(self.older.pages.iter().rev());
        let found = pages.find(|page| page.from <= place.at && place.at < page.end.at);
        found.cloned()
    }

    fn ask(&mut self, place: &Place, waiting: oneshot::Sender<Arc<Page>>) {
        let same = |asked: &&mut Asked| {
            asked.place.at == place.at && asked.place.troubled == place.troubled
        };
        if let Some(asked) = self.asked.iter_mut().find(same) {
            // Whoever went away leaves a closed one.
            asked.waiting.retain(|one| !one.is_closed());
            asked.waiting.push(waiting);
            return;
        }
        let is_behind = self.known.as_ref().is_some_and(|known| place.at < known.at);
        let not_before = if is_behind {
            Instant::now()
        } else {
            self.next_look
        };
        self.asked.push_back(Asked {
            place: place.clone(),
            waiting: vec![waiting],
            not_before,
        });
    }
}

impl Shelf {
    fn new(max_bytes: usize) -> Shelf {
        Shelf {
            pages: VecDeque::new(),
            bytes: 0,
            max_bytes,
        }
    }

    /// The oldest go, and come back; a page that is larger than all of this stays alone.
    fn put(&mut self, page: Arc<Page>) -> Vec<Arc<Page>> {
        let mut displaced = Vec::new();
        self.bytes += page.bytes;
        self.pages.push_back(page);
        while self.pages.len() > MOST || (self.bytes > self.max_bytes && self.pages.len() > 1) {
            let Some(oldest) = self.pages.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes;
            displaced.push(oldest);
        }
        displaced
    }
}

impl Asked {
    fn answer(self, page: &Arc<Page>) {
        for waiting in self.waiting {
            // It may have gone.
            let _answered = waiting.send(Arc::clone(page));
        }
    }
}
