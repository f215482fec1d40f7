//! The writer: decisions become entries in Redis Streams, each exactly once and in order.
//!
//! The pure part, in reading order: `cursor` (what Redis says of our place in it), `acknowledged` (what is remembered of
//! it), `batch` (one transaction as commands, and what its replies mean), `settlement` (what a batch means for the accounts),
//! `probe` (whether streams are behind what is remembered) and `lane` (the state machine that decides the next step). Around
//! it: `connection` (one socket), `run` (takes the steps).

mod acknowledged;
mod batch;
mod connection;
mod cursor;
pub mod dead;
mod lane;
pub mod letters;
mod printer;
mod probe;
mod reserve;
mod run;
mod settlement;
mod standing;

pub use acknowledged::{Acknowledged, EntryId};
pub use letters::Letters;
pub use printer::Printer;
pub use run::{End, Place, Writer};
