//! The configuration: everything that a user can set.
//!
//! [`load`] takes the file, the environment and the command line's settings, and answers with one small struct per
//! stage, or with every mistake at once. A stage keeps its own struct and never sees the whole.
//!
//! ```text
//! flags > JACKFIELD_… > Telephony Event Sync's variables > jackfield.toml > default
//! ```
//!
//! `types` says what there is, `stages` where each value comes from and what it defaults to, `routes` does the same for
//! streams and rules, `tls` for certificates, `drop_in` lists the Go service's variables, `reader` and `environment` look values up, `values`
//! parses them, `mistakes` words what is wrong. `changes` says which settings a running host
//! takes over. `docs/settings.md` is the user's page; a test holds it against this module.
//!
//! Reads files only in `load`, and the authorities of this machine for a TLS connection. Keeps no state, logs nothing, and connects to nothing.

mod changes;
mod drop_in;
mod environment;
mod filter;
mod mistakes;
mod reader;
mod routes;
mod stages;
mod tls;
mod types;
mod values;

#[cfg(test)]
mod tests;

pub use changes::{Changes, changes};
pub use filter::filter_settings;
pub use mistakes::{Mistake, Mistakes};
pub use stages::{Sources, http_listen, load, load_again};
pub use tls::tls_client;
pub use types::{
    Backoff, Buffer, Config, DeadLetter, Esl, EventPattern, EventsWanted, FilterLimits, Filters,
    Format, Http, Identity, Journal, Level, Limits, Log, LogFormat, Note, OnError, Policy, Redis,
    Route, Router, Secret, Stream, StreamFormat, Sync, Tls, Wasi,
};
pub use values::duration;
