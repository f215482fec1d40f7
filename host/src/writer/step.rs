//! The words between the lane and its driver: what to do, how a connection ended, what is worth telling.
//!
//! Plain values; the driver turns notes into log lines and counts.

use std::time::Instant;

use super::commands::Commands;
use super::standing::Claim;
use crate::journal::Lsn;
use crate::route::Entry;

/// What the driver is to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Write this at once and tell the replies.
    Send(Commands),
    /// Take decisions from the outbox; tell if there are none until then.
    Take {
        after: Lsn,
        most: usize,
        until: Instant,
    },
    /// Keep these dead letters in the local file.
    Keep(Vec<Entry>),
    /// Tell the outbox that everything up to here is in Redis.
    Acknowledge(Lsn),
    /// Ask for a sign of life.
    Ping,
    /// Not ready: this owner holds the cursor. Go on then.
    Pause { owner: String, until: Instant },
    /// Give up this connection: Redis refuses to write, with these words.
    Refused(String),
    /// Everything is written; the end.
    Drained,
    /// The router's name is another's; the end.
    Foreign { owner: String },
}

/// How a connection ended while a reply was awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// By the peer, or on the way.
    Closed,
    /// By us: the reply was late, or of no use.
    GivenUp,
}

/// What is worth a line in the log or a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A transaction was executed.
    Executed,
    /// The cursor was written, for this reason.
    Claimed(Claim),
    /// What comes after `after`, up to `through`, is sent again.
    Healing { after: Lsn, through: Lsn },
    /// At least so many LSNs before `before` can not be sent again.
    Unhealable {
        after: Lsn,
        before: Lsn,
        missing: u64,
    },
    /// The batch in flight turned out to be in Redis.
    ExecutedBefore { through: Lsn },
    /// The batch in flight was not executed, because the cursor had moved.
    Fenced { through: Lsn },
    /// Redis did not take these entries: dead-lettered.
    Refused { error: String, entries: usize },
    /// An entry was too large: a dead letter, or one cut short.
    TooLarge { reason: String, cut: bool },
    /// A batch that kills its connection is tried by halves.
    Halved,
    /// A decision that kills its connection went to the local file.
    Killer { lsn: Lsn },
}
