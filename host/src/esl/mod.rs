//! The Event Socket: bytes from FreeSWITCH become frames, and those that are events are handed on.
//!
//! Two links: one carries events alone, the other one commands and their answers, because FreeSWITCH serves a connection with
//! one thread, and a command holds up the events of its own connection.
//!
//! In reading order: `frame` cuts the byte stream, `error` says why a connection ended, `pulse` how long a silence may last,
//! `wire` is what every connection does. Then the events: `subscription` says which to ask for and how, `session` is one
//! connection from `auth/request` to its end, `intake` keeps one up for ever. Then the commands: `commands` is what callers hold,
//! `jobs` knows who waits for the end of a background job, `command_link` keeps the connection up. Last what both links make possible: `resync` asks after
//! each connect which calls are alive, `roll_call` is the answer. Knows nothing of what becomes of an event, and never waits for it.

mod frame;

mod error;
mod pulse;
mod wire;

mod intake;
mod session;
mod subscription;

mod command_link;
mod commands;
mod jobs;

mod resync;
mod roll_call;

#[cfg(test)]
mod command_tests;

pub use command_link::CommandLink;
pub use commands::{Allowed, CommandError, Commands};
pub use error::EslError;
pub use frame::{Ending, Frame, FrameError, Framed, Framer, Kind, MAX_ANSWER, MAX_FRAME, TooLarge};
pub use intake::Intake;
pub use resync::Resync;
pub use roll_call::{LiveCall, Outage, RollCall, part_of};
pub use session::{EventFrame, Received};
pub use subscription::Subscription;
