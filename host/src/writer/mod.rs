//! The writer: decisions become entries in Redis Streams, each exactly once and in order.
//!
//! `batch` is the pure part: one transaction as commands, and what its replies mean. `lane` owns the connection:
//! one batch in flight, reconnect, resend. `printer` writes to standard output instead.

mod batch;
mod lane;
mod printer;

pub use lane::Lane;
pub use printer::Printer;
