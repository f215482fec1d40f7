//! An event: one frame's bytes and an index of its headers into them.
//!
//! Values are decoded when they are read, never before; there is no allocation a header. `json` and `plain` index
//! the two wire formats (`specials` finds the ends of JSON strings), `text` decodes values, `entry` writes what goes to Redis.
//!
//! FreeSWITCH repeats names. The last occurrence is the event's own (for `Event-Name`, `Core-UUID`, `Event-Sequence`
//! and the dates this is a fact of `PRIVATE_COMMAND` and `sendevent`), and the only one that is read or written.
//! An edit replaces every occurrence.
//!
//! Knows nothing of sockets, filters or Redis.

mod entry;
mod index;
mod json;
mod own;
mod plain;
mod selection;
mod specials;
mod text;

pub use index::{Event, Indexer, Malformed, Name};
pub use own::{Own, subclass};
pub use selection::{CUSTOM, JACKFIELD, Selection, has_subclass, is_name};

pub use crate::config::Format;
