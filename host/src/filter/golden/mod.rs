//! Golden cases: what a filter is given and what it must decide, kept in its own file and tried before it goes live.
//!
//! A case is a fresh instance with settings of its own, and a list of steps in order: an event or a tick, and the decision that
//! is expected. In reading order: `case` is the JSON that authors write, `outcome` what a step comes to and how two of them
//! differ, `section` where a component's file keeps its cases, `rehearsal` runs them in the real engine. Reads no files.

mod case;
mod outcome;
mod rehearsal;
mod section;

pub use case::{Case, Cases, Given, Unreadable, expecting};
pub use outcome::{Decision, Difference, Emitted, Outcome};
pub use rehearsal::{Broken, Fault, Rehearsal, TIME, run};
