//! A simulated FreeSWITCH: a TCP Event Socket server that behaves on the wire as the real one does (release 1.11.2).
//!
//! It serves `jackfield demo`, the end-to-end tests and the benchmarks. Its calls are those of a capture of a real switch, with fresh
//! UUIDs, times and numbers from a seeded generator; see `calls.txt`. It has its own serializers and never uses the router's parsers,
//! because a fake that shares the parser shares its bugs.
//!
//! Not simulated: the XML format (`event xml` is refused), outbound connections and sessions under control, log lines, the limits of
//! a `userauth` user, the up to 20 ms by which a real switch delays an event, and the freeze of the whole Event Socket that a listener
//! brings about which does not read (the listener itself is given up as in reality).

// From the outside to the inside: what a caller holds, the switch and its listeners, a client's conversation.
mod server;

mod channels;
mod connection;
mod subscription;
mod switch;

mod api;
mod command;
mod conversation;
mod job;
mod session;

// Where events come from, and how they are written.
mod calls;
mod compose;
mod event;
mod heartbeat;
mod load;
mod script;
mod slot;
mod template;

mod encode;
mod names;
mod random;
mod stamp;

#[cfg(test)]
mod wire_tests;

pub use event::{Event, Value};
pub use load::Load;
pub use server::{Sent, Settings, Simulator};
