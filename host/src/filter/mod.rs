//! Filters: components from a folder, and the chain that every event goes through.
//!
//! In reading order: `folder` sees files and reads each as it was seen; `compiler` has them compiled in a process apart and
//! keeps the code in a `cache`, `engine` makes components of it, `contract` says whether they are filters, `refusal` why not.
//! `guest` is what an instance finds around it (the current event, log, counters, a locked WASI), `instance` makes calls that
//! cannot hang or grow, by the clock of `ticker`, `decision` checks what came back. `workshop` makes instances ahead of need,
//! `version` is a component with its settings that runs, `step` what it did to an event, `slot` its place in the chain with its
//! failures and the versions to go back to, `kept` what it keeps over a restart, `probation` says whether it stays, `chain` runs the slots in order.
//!
//! How a file gets there: `golden` tries a component on the cases that its file carries, `rehearsal` on past traffic,
//! `admission` takes it from gate to gate, `loader` turns a change in the folder into a new chain. `history` is what is known of
//! versions, and `archive` what of it outlives the host, in `own_folder`, where only the host writes. `shadow` runs a candidate beside the chain, `difference` says
//! where it would have done otherwise, `status` is what others see, `inspect` shows a file to those who wrote it, `empty` is the
//! filter that does nothing. Knows nothing of sockets, streams' limits or Redis.

mod admission;
mod archive;
mod cache;
mod chain;
mod compiler;
mod contract;
mod decision;
mod difference;
mod empty;
mod engine;
mod folder;
pub mod golden;
mod guest;
mod history;
mod inspect;
mod instance;
mod kept;
mod loader;
mod own_folder;
mod probation;
mod refusal;
mod rehearsal;
mod shadow;
mod slot;
mod status;
mod step;
mod ticker;
mod version;
mod workshop;

pub use archive::{Archive, Quarantine, Version};
pub use chain::{Chain, Decided};
pub use compiler::compile_confined;
pub use contract::CONTRACT;
pub use difference::{Answer, Difference};
pub use empty::EMPTY;
pub use engine::{Component, Engine};
pub use folder::{FilterFile, Folder};
pub use inspect::{Inspected, Prepared, inspect};
pub use instance::Failure;
pub use kept::Kept;
pub use loader::{Beside, Change, Loader, PastOf, Planned};
pub use refusal::Refusal;
pub use rehearsal::{Candidate, Occasion};
pub use slot::{Became, NoWayBack, Report, RolledBack};
pub use status::{Attempt, FilterStatus, Gate, Running};
pub use step::{Derived, Edit, Step, Verdict};
