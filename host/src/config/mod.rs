//! The configuration: everything that a user can set, read once at start.
//!
//! [`load`] takes the file, the environment and the command line's settings, and answers with one small struct per
//! stage, or with every mistake at once. A stage keeps its own struct and never sees the whole.
//!
//! ```text
//! flags > JACKFIELD_… > Telephony Event Sync's variables > jackfield.toml > default
//! ```
//!
//! `types` says what there is, `stages` where each value comes from and what it defaults to, `routes` does the same for
//! streams and rules, `drop_in` lists the Go service's variables, `reader` and `environment` look values up, `values`
//! parses them, `mistakes` words what is wrong. `docs/settings.md` is the user's page; a test holds it against this module.
//!
//! Reads files only in `load`. Keeps no state, logs nothing, and connects to nothing.

mod drop_in;
mod environment;
mod filter;
mod mistakes;
mod reader;
mod routes;
mod stages;
mod types;
mod values;

#[cfg(test)]
mod tests;

pub use filter::filter_settings;
pub use mistakes::{Mistake, Mistakes};
pub use stages::{Sources, load};
pub use types::{
    Backoff, Buffer, Config, DeadLetter, Esl, EventPattern, EventsWanted, FilterLimits, Filters,
    Format, Http, Journal, Level, Limits, Log, LogFormat, Note, OnError, Redis, Route, Router,
    Secret, Stream, StreamFormat, Sync, Wasi,
};
