//! Why a connection to the Event Socket ended, or could not be made.

use std::time::Duration;

use thiserror::Error;

use super::frame::FrameError;
use crate::link::Fault;

/// FreeSWITCH's words to a listener whose queue was full for more than 500 events in a row.
const KILLED: &str = "killed listener because of lost events";

/// Why a connection ended, or could not be made.
#[derive(Debug, Error)]
pub enum EslError {
    /// No TCP connection.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// The connection broke.
    #[error("connection broken: {0}")]
    Broken(std::io::Error),
    /// Not within the time allowed.
    #[error("no {what} within {} ms", after.as_millis())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// `apply-inbound-acl` keeps us out.
    #[error(
        "refused by the access list of FreeSWITCH (text/rude-rejection): allow this host in apply-inbound-acl"
    )]
    Acl,
    /// `esl.password` (or `esl.user`) is wrong.
    #[error("password rejected (-ERR invalid): check esl.password and esl.user")]
    Password,
    /// A command of ours was refused.
    #[error("{command:?} refused: {reply}")]
    Refused {
        /// The command, which carries no secret.
        command: String,
        /// FreeSWITCH's `Reply-Text`.
        reply: String,
    },
    /// The bytes make no sense.
    #[error("not an Event Socket stream: {0}")]
    Frame(#[from] FrameError),
    /// FreeSWITCH said goodbye.
    #[error("disconnected by FreeSWITCH: {0}")]
    Notice(String),
    /// The connection was closed without a word.
    #[error("connection closed by FreeSWITCH{0}")]
    Closed(&'static str),
    /// Nothing came for two and a half heartbeats.
    #[error("silent for {} ms", .0.as_millis())]
    Silent(Duration),
    /// Bytes came for two and a half heartbeats, and no frame was whole: a `Content-Length` that lies, or a link that is too slow.
    #[error("no whole frame for {} ms", .0.as_millis())]
    Stuck(Duration),
    /// A reply came that nothing waits for: the replies after it cannot be told apart.
    #[error("reply without a command")]
    Unasked,
    /// Somebody wants a new connection.
    #[error("a new connection was asked for")]
    AskedFor,
}

impl EslError {
    /// Whether waiting may help.
    pub fn fault(&self) -> Fault {
        match self {
            EslError::Acl | EslError::Password => Fault::Setting,
            _ => Fault::Peer,
        }
    }

    /// One word, for the metric.
    pub fn cause(&self) -> &'static str {
        match self {
            EslError::Connect(_) => "connect",
            EslError::Broken(_) => "broken",
            EslError::Late { .. } => "late",
            EslError::Acl => "acl",
            EslError::Password => "password",
            EslError::Refused { .. } => "refused",
            EslError::Frame(_) => "garbage",
            EslError::Notice(text) if text == KILLED => "killed",
            EslError::Notice(_) => "notice",
            EslError::Closed(_) => "closed",
            EslError::Silent(_) => "silent",
            EslError::Stuck(_) => "stuck",
            EslError::Unasked => "unasked",
            EslError::AskedFor => "asked_for",
        }
    }
}
