//! The journal: an append-only log of inputs and of the decisions about them, in preallocated segment files.
//!
//! It is at once the retry queue, the memory after a crash, the buffer while Redis is away and the source of replays.
//! [`Journal`] is the one writer, owned by the pipeline's thread; a [`Reader`] reads the files beside it, also from another
//! process. Payloads are opaque bytes: the journal knows neither ESL nor Redis nor filters. `docs/journal.md` is the format.
//!
//! A record whose write returned is there after a crash of the process; after a power cut, if it was synced. No number is
//! ever given twice. Damage on disk costs the records that it hit, and is counted: it is never an error, never a crash loop.

mod format;

mod append;
mod kept;
mod open;
mod pending;
mod recover;
mod sync;
mod write;

mod inspect;
mod reader;
mod scan;

mod disk;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use append::Journal;
pub use disk::{Disk, DiskFile, Lock, RealDisk};
pub use format::{EPOCH, Head, Kind, Lsn, Record};
pub use inspect::{Inspection, Item, Opening, SegmentFile};
pub use open::JournalError;
pub use reader::Reader;
pub use recover::Found;
pub use sync::{Place, Progress, Synced};
pub use write::{WriteError, Wrote};
