//! Listeners: whoever wants to hear, while it happens, what becomes of events. `GET /events` and `jackfield tail`.
//!
//! The journal is the source, so there is no hook in the pipeline, no queue a listener could fill, and no difference between
//! following and catching up: a listener has a place in the journal and asks for the page behind it. One thread reads pages, at
//! the lowest priority, and only those that somebody asks for. A page is read and worded once and shared; listeners that are
//! near each other find it among the newest pages. A slow one asks for older pages, as long as the journal has them; what it
//! has no longer is told as a gap. One whose connection takes nothing is cut off by TCP.
//!
//! In reading order: `wish` is what a listener asks for, `pattern` compares, `page` is a piece of the journal in words, `pages` reads
//! and shares them, `listener` is one listener. Knows nothing of HTTP but the form of server-sent events.

mod listener;
mod message;
mod page;
mod pages;
mod pattern;
mod wish;

use std::time::Duration;

pub use listener::{Listener, Listeners, Refused, files};
pub use wish::Wish;

/// Listeners at once. HTTP has as many connections, and some more for everyone else.
pub const LISTENERS: usize = 384;
/// A listener whose connection takes nothing for so long is cut off.
pub const STALL: Duration = Duration::from_secs(30);
