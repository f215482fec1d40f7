//! An event: one frame's bytes and an index of its headers into them.
//!
//! Values are decoded when they are read, never before; there is no allocation a header. `json` and `plain` index
//! the two wire formats, `text` decodes values, `entry` writes what goes to Redis.
//!
//! FreeSWITCH repeats names. The last occurrence is the event's own (for `Event-Name`, `Core-UUID`, `Event-Sequence`
//! and the dates this is a fact of `PRIVATE_COMMAND` and `sendevent`), and the only one that is read or written.
//! An edit replaces every occurrence.
//!
//! Knows nothing of sockets, filters or Redis.

mod entry;
mod index;
mod json;
mod plain;
mod text;

pub use index::{Event, Malformed, Name};

pub use crate::config::Format;
