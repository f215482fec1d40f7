//! A piece of the journal in words: some inputs in order with what became of them, and what is missing between them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::message;
use crate::event::Event;
use crate::journal::{Disk, EPOCH, Lsn, Progress};
use crate::pipeline::{Pairs, Told};

/// Inputs in a page: few enough for a listener to go over them in some ten microseconds.
const INPUTS: usize = 256;
/// Bytes of messages in a page; one message more may go over it.
const BYTES: usize = 256 << 10;
/// Inputs that are rather read again than a segment from its start.
const NEAR: Lsn = 8 * INPUTS as Lsn;

/// Where a listener is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// It was given what it wants up to this number.
    pub(super) at: Lsn,
    /// There, with neither file nor memory; `None`: to be looked for.
    pairs: Option<Pairs>,
    /// It was told that the journal is in trouble, since it was given something.
    pub(super) troubled: bool,
}

/// Some inputs with what became of them, shared by all who are there.
#[derive(Debug)]
pub(super) struct Page {
    /// The place before it.
    pub(super) from: Lsn,
    pub(super) items: Vec<Item>,
    /// The place behind it.
    pub(super) end: Place,
    /// Bytes of its messages.
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Item {
    /// The place behind it.
    pub(super) lsn: Lsn,
    pub(super) what: What,
    pub(super) message: Bytes,
}

#[derive(Debug)]
pub(super) enum What {
    /// An input that became these events.
    Input(Vec<Event>),
    /// Something is missing.
    Gap,
}

/// Where the journal is, and how much of it there still is.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) progress: Arc<Progress>,
}

impl Place {
    /// Behind this number, wherever that is.
    pub(super) fn after(lsn: Lsn) -> Place {
        Place {
            // Nothing is below the first number.
            at: lsn.max(EPOCH - 1),
            pairs: None,
            troubled: false,
        }
    }

    /// Whether `to` is reached from here sooner than from the start of its segment.
    fn is_near(&self, to: Lsn) -> bool {
        self.pairs.is_some() && self.at <= to && to - self.at <= NEAR
    }
}

impl Page {
    /// No input, but that what comes now may be missing.
    pub(super) fn trouble(place: &Place, why: &str) -> Page {
        let mut page = Page::empty(place.at);
        page.end = Place {
            troubled: true,
            ..place.clone()
        };
        page.push(
            place.at,
            What::Gap,
            message::gap(place.at + 1, None, why),
            0,
        );
        page
    }

    fn empty(from: Lsn) -> Page {
        Page {
            from,
            items: Vec::new(),
            end: Place::after(from),
            bytes: 0,
        }
    }

    /// Nothing more could be read: neither an input, nor that one is gone.
    pub(super) fn is_empty(&self) -> bool {
        self.end.at == self.from
    }

    /// There may be more behind it already.
    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= INPUTS || self.bytes >= BYTES
    }

    /// `held` are the bytes that the events keep beside the message.
    fn push(&mut self, lsn: Lsn, what: What, message: Option<Bytes>, held: usize) {
        if let Some(message) = message {
            self.bytes += message.len() + held;
            self.items.push(Item { lsn, what, message });
        }
        self.end.at = lsn;
    }

    fn push_gap(&mut self, to: Lsn, why: &str) {
        let from = self.end.at + 1;
        self.push(to, What::Gap, message::gap(from, Some(to), why), 0);
    }
}

impl Source {
    /// The page behind a place. `known` may be a place before it that was found already.
    pub(super) fn read(&self, place: &Place, known: Option<&Place>) -> io::Result<Page> {
        let near = known.filter(|known| known.is_near(place.at));
        let pairs = place.pairs.clone().or_else(|| near?.pairs.clone());
        let mut pairs = pairs.unwrap_or_else(|| Pairs::after(&self.disk, &self.dir, place.at));
        let mut page = Page::empty(place.at);
        self.say_removed(&mut page, Lsn::MAX);
        let mut passed = 0;
        while passed < INPUTS && page.bytes < BYTES {
            let Some((input, decision)) = pairs.next_decided()? else {
                break;
            };
            let lsn = input.head.lsn;
            if lsn <= page.end.at {
                continue;
            }
            passed += 1;
            self.say_missing(&mut page, lsn);
            let (told, events) = Told::with_events(&input, Some(&decision));
            match told.became.as_ref().is_some_and(Vec::is_empty) {
                // A tick of which no filter made anything.
                true => page.end.at = lsn,
                false => {
                    let held = input.payload.len();
                    page.push(lsn, What::Input(events), message::event(&told), held);
                }
            }
        }
        pairs.rest();
        page.end.pairs = Some(pairs);
        Ok(page)
    }

    /// What the journal has no longer, between the page's end and `before`.
    fn say_removed(&self, page: &mut Page, before: Lsn) {
        let oldest = self.progress.oldest().min(before);
        if page.end.at + 1 < oldest {
            page.push_gap(oldest - 1, "the journal keeps them no longer");
        }
    }

    /// What is between the page's end and an input that was read behind it. Asked after the read: what it passed over because it
    /// was removed, is known to be removed by then.
    fn say_missing(&self, page: &mut Page, lsn: Lsn) {
        self.say_removed(page, lsn);
        // No number between two opens was given, or nothing is known of it.
        let is_same_open = page.end.at / EPOCH == lsn / EPOCH;
        if page.end.at + 1 < lsn && is_same_open {
            page.push_gap(
                lsn - 1,
                "they are not in the journal: its disk did not take them, or they are damaged",
            );
        }
    }
}
