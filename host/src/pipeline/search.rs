//! Finds what became of an event that somebody names, in the journal's order.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memchr::memmem::Finder;

use super::decision::event_of;
use super::past::Pairs;
use super::told::Told;
use crate::journal::{Disk, EPOCH, Lsn, Record};

/// The headers by which an event is asked for.
const IDS: [&str; 2] = ["Event-UUID", "Unique-ID"];

/// A search under way. It only reads, beside the journal's writer.
pub struct Search {
    event: String,
    lsn: Option<Lsn>,
    /// Most inputs are passed over without a look at their headers.
    finder: Option<Finder<'static>>,
    times: Range<u64>,
    pairs: Pairs,
}

/// What one input was.
pub enum Searched {
    /// One that was asked for.
    Found(Box<Told>),
    /// Another one.
    Passed,
    /// There are no more.
    End,
}

impl Search {
    /// For an LSN, an `Event-UUID` or a `Unique-ID`, received within these times in microseconds since the epoch.
    pub fn new(disk: &Arc<dyn Disk>, dir: &Path, event: &str, times: Range<u64>) -> Search {
        // Below the first number that there is, it is somebody's name for a call.
        let lsn: Option<Lsn> = event.parse().ok().filter(|lsn| *lsn >= EPOCH);
        let from = lsn.map_or(0, |lsn| lsn.saturating_sub(1));
        let finder = is_plain(event).then(|| Finder::new(event).into_owned());
        Search {
            event: event.to_owned(),
            lsn,
            finder,
            times,
            pairs: Pairs::after(disk, dir, from),
        }
    }

    /// Looks at one input more.
    ///
    /// # Errors
    /// The disk.
    pub fn advance(&mut self) -> io::Result<Searched> {
        let Some((input, decision)) = self.pairs.next_pair()? else {
            return Ok(Searched::End);
        };
        let is_meant = match self.lsn {
            Some(lsn) if input.head.lsn > lsn => return Ok(Searched::End),
            Some(lsn) => input.head.lsn == lsn,
            None => self.may_have(&input) && self.has_id(&input),
        };
        if !is_meant || !self.times.contains(&input.head.at_us) {
            return Ok(Searched::Passed);
        }
        let told = Told::of(&input, decision.as_ref());
        Ok(Searched::Found(Box::new(told)))
    }

    /// What an event is asked for by, in words.
    pub fn names() -> String {
        format!("its LSN, {}", IDS.join(" or "))
    }

    fn may_have(&self, input: &Record) -> bool {
        let finder = self.finder.as_ref();
        finder.is_none_or(|finder| finder.find(&input.payload).is_some())
    }

    fn has_id(&self, input: &Record) -> bool {
        event_of(input.head.kind, input.payload.clone()).is_some_and(|event| {
            let mut ids = IDS.iter();
            ids.any(|name| event.get_str(name).is_some_and(|id| id == self.event))
        })
    }
}

/// Whether a frame has it as it is, in either encoding.
fn is_plain(id: &str) -> bool {
    id.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
