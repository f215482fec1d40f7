//! The pipeline: one thread that takes every input in order, runs the chain and the routes, and hands decisions on.
//!
//! In reading order: `arrivals` is the queue before it, `inputs` gives what arrived its number and its place in the journal,
//! `run` is the thread, `calls` knows which are alive, `decision` what became of an input, `outbox` the queue after it, `refill` makes old decisions again,
//! `past` reads what was decided, `search` finds an event in it, `told` words it,
//! `saved` is the filters' state over a restart, `seen` what others may see. One order: events of all calls pass here
//! one after the other, so filters keep state without locks.

mod arrivals;
mod calls;
mod decision;
mod inputs;
mod outbox;
mod past;
mod refill;
mod run;
mod saved;
mod search;
mod seen;
mod told;

pub use arrivals::Arrivals;
pub use calls::Calls;
pub use decision::{Became, Decision, DecisionError, decode, encode, format};
pub use inputs::Inputs;
pub use outbox::Outbox;
pub use past::{Pairs, Past};
pub use run::Pipeline;
pub use search::{Search, Searched};
pub use seen::{CallsStatus, JournalStatus, LastDead, Queue, ReserveStatus, Seen, StreamStatus};
pub use told::{Told, ToldEvent};
