//! Filters: components from a folder, and the chain that every event goes through.
//!
//! In reading order: `folder` sees files, `engine` compiles them to components, `guest` is what an instance finds around it
//! (the current event, log, counters, a locked WASI), `instance` makes calls that cannot hang or grow, `decision` checks what
//! came back, `slot` is one filter with its failures, `step` what it did to an event, `chain` runs them in order, `loader` turns a change in
//! the folder into a new chain. Knows nothing of sockets, streams' limits or Redis.

mod chain;
mod decision;
mod engine;
mod folder;
mod guest;
mod instance;
mod loader;
mod slot;
mod step;

pub use chain::{Chain, Decided};
pub use engine::{Component, Engine, Refusal};
pub use folder::{FilterFile, Folder};
pub use instance::Failure;
pub use loader::{Change, Loader, Planned};
pub use slot::{FilterStatus, Running};
pub use step::{Derived, Edit, Step, Verdict};
