//! Jackfield: FreeSWITCH events through WebAssembly filters into Redis Streams.
//!
//! The modules in the order of the data:
//!
//! - [`esl`]: the socket becomes frames. `Intake` keeps the connection up; it never waits.
//! - [`journal`]: what comes gets a number and is on disk before anything else sees it.
//! - [`event`]: a frame's bytes and an index of its headers.
//! - [`filter`]: the chain of components that each event goes through, and the folder they come from. A component may carry
//!   golden cases: what it is given, and what it must decide.
//! - [`route`]: an event and its fate become entries for streams.
//! - [`pipeline`]: the one thread that takes every input in order through `journal`, `event`, `filter` and `route`; the queues
//!   before and after it.
//! - [`writer`]: entries become one transaction after another on one Redis connection.
//!
//! Around them: [`admin`] (HTTP), [`listeners`] (who hears what becomes of events, from the journal), [`simulator`] (a FreeSWITCH for the demo and the tests, which shares no code with `esl`),
//! [`cli`]. Underneath: [`link`] (the state of a supervised connection), [`ledger`] (what became of every event),
//! [`metrics`], [`config`] and [`settings`] (read once, and again in a running host), [`clock`], `stamp` (whether a file changed), [`worker`] (a thread whose death is noticed). [`app`] ties them together; start reading there.

pub mod esl;
pub mod event;
pub mod filter;
pub mod journal;
pub mod pipeline;
pub mod route;
pub mod writer;

pub mod admin;
pub mod cli;
pub mod listeners;
pub mod simulator;

pub mod clock;
pub mod config;
pub mod ledger;
pub mod link;
pub mod metrics;
pub mod settings;
mod stamp;
pub mod worker;

pub mod app;
