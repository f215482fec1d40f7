//! The pipeline: one thread that takes every input in order, runs the chain and the routes, and hands decisions on.
//!
//! `backlog` is the queue before it, `outbox` the one after it, `run` the thread. One order: events of all calls pass here
//! one after the other, so filters keep state without locks.

mod backlog;
mod outbox;
mod run;

pub use backlog::{Backlog, Input};
pub use outbox::{Decision, Outbox};
pub use run::{Pipeline, Seen};
