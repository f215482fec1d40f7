//! The writer: decisions become entries in Redis Streams, each exactly once and in order.
//!
//! The pure part, in reading order: `cursor` (the keys that say where we stand and whose they are), `acknowledged` (what is
//! remembered of Redis), `probe` (whether streams are behind that), `standing` (what a look at the cursor means), `batch` (one
//! transaction as `commands`, and what its `replies` mean), `settlement` (what an executed batch means for the accounts), `step`
//! (the words between lane and driver) and `lane` (the state machine that decides the next step). Around it: `connection`
//! (one connection that is logged in; `wire`: its socket, `tls`: what is wrong with its encryption), `letters` (the local dead-letter file), `upkeep` (trimming, and `reserve`: how far consumers are from it) and `run` (takes
//! the steps). `dead` reads dead letters back; `printer` writes to standard output instead.

mod acknowledged;
mod batch;
mod commands;
mod connection;
mod cursor;
pub mod dead;
mod lane;
pub mod letters;
mod printer;
mod probe;
mod replies;
mod reserve;
mod run;
mod settlement;
mod standing;
mod step;
mod tls;
mod upkeep;
mod wire;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod host;
#[cfg(test)]
mod lane_tests;
#[cfg(test)]
mod model;

pub use acknowledged::{Acknowledged, EntryId};
pub use letters::Letters;
pub use printer::Printer;
pub use run::{End, Source, Writer};
