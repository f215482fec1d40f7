//! The Event Socket: bytes from FreeSWITCH become frames, and those that are events are handed on.
//!
//! In reading order: `frame` cuts the byte stream, `subscription` says which events to ask for and how, `session` is one
//! connection from `auth/request` to its end, `intake` keeps one up for ever. Knows nothing of what becomes of an event,
//! and never waits for it.

mod frame;
mod intake;
mod session;
mod subscription;

pub use frame::{Ending, Frame, FrameError, Framed, Framer, Kind, MAX_FRAME, TooLarge};
pub use intake::Intake;
pub use session::{EslError, EventFrame, Received};
pub use subscription::Subscription;
