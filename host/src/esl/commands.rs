//! Commands to FreeSWITCH, as a caller sees them.
//!
//! `Commands` is cheap to clone, and any number of callers may ask at once. A command that cannot go out now fails now: nothing is
//! kept for a FreeSWITCH that is away. A caller that gives up leaves its place among the answers, so that a late answer
//! is never taken for another's.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::frame::{Kind, MAX_ANSWER, MAX_FRAME, TooLarge};
use super::jobs::{Ended, Jobs};
use super::session::EventFrame;
use crate::event::{Event, Malformed};

/// So many commands may wait for their answers, so that a FreeSWITCH that is stuck fills no memory.
pub(super) const MOST: usize = 1_024;

/// Why a command has no answer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CommandError {
    /// It is no command.
    #[error(
        "command {0:?}: allowed is one line of text that begins with the command's name, without carriage return, newline and NUL"
    )]
    Bad(String),
    /// Nobody may run it over HTTP.
    #[error(
        "{0:?} is not allowed: name it in esl.allow, the list of API commands that may be run over HTTP"
    )]
    NotAllowed(String),
    /// It was not sent.
    #[error(
        "no connection to FreeSWITCH: the command was not sent; /status says why (links.commands)"
    )]
    NotConnected,
    /// It was sent.
    #[error("connection to FreeSWITCH lost before the answer: the command may have run")]
    ConnectionLost,
    /// The time is up.
    #[error("no answer within {} ms: the command may have run, or may still run", .0.as_millis())]
    Late(Duration),
    /// Too many at once.
    #[error("{MOST} commands wait for FreeSWITCH's answer already: the command was not sent")]
    Busy,
    /// It was answered, at too great a length.
    #[error("the answer has {bytes} bytes, over the limit of {most}: the command has run")]
    TooLarge {
        /// How long the answer is.
        bytes: u64,
        /// How long it may be.
        most: u64,
    },
    /// It was answered by an event that makes no sense.
    #[error("the answer cannot be read: the command has run")]
    Unreadable(#[from] Malformed),
}

impl CommandError {
    /// One word, for programs and for the metric.
    pub fn kind(&self) -> &'static str {
        match self {
            CommandError::Bad(_) => "bad_command",
            CommandError::NotAllowed(_) => "not_allowed",
            CommandError::NotConnected => "not_connected",
            CommandError::ConnectionLost => "connection_lost",
            CommandError::Late(_) => "deadline",
            CommandError::Busy => "busy",
            CommandError::TooLarge { .. } => "too_large",
            CommandError::Unreadable(_) => "unreadable",
        }
    }
}

/// The API commands that may be run, by their first word, which FreeSWITCH ends at a space.
#[derive(Clone, Debug)]
pub struct Allowed(pub Vec<String>);

impl Allowed {
    /// Whether this command may be run, and is one.
    pub fn check(&self, command: &str) -> Result<(), CommandError> {
        let verb = checked(command)?.split(' ').next().unwrap_or_default();
        match self.0.iter().any(|allowed| allowed == verb) {
            true => Ok(()),
            false => Err(CommandError::NotAllowed(excerpt(verb))),
        }
    }
}

/// Sends commands over the link for commands, whichever connection that is at the moment.
#[derive(Clone, Debug)]
pub struct Commands(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Where requests go while the link is ready.
    live: watch::Sender<Option<mpsc::Sender<Request>>>,
    room: Arc<Semaphore>,
    jobs: Jobs,
    hurry: Notify,
}

/// A command on its way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) line: String,
    answer: oneshot::Sender<Result<Bytes, CommandError>>,
    _place: OwnedSemaphorePermit,
}

impl Request {
    /// Who gave up meanwhile is told nothing.
    pub(super) fn answer(self, answer: Result<Bytes, CommandError>) {
        drop(self.answer.send(answer));
    }
}

impl Default for Commands {
    fn default() -> Commands {
        Commands(Arc::new(Shared {
            live: watch::Sender::new(None),
            room: Arc::new(Semaphore::new(MOST)),
            jobs: Jobs::default(),
            hurry: Notify::new(),
        }))
    }
}

impl Commands {
    /// Runs an API command while the caller waits, and gives FreeSWITCH's answer as it came. While it runs, FreeSWITCH runs no
    /// other one of ours: what takes long goes into the background.
    pub async fn api(&self, command: &str, within: Duration) -> Result<Bytes, CommandError> {
        let line = format!("api {}", checked(command)?);
        in_time(within, self.ask(line)).await
    }

    /// Has an API command run in the background, and gives its answer when it has ended, also where the link was lost and
    /// came back meanwhile. Where the job ends while no link is there to hear it, the time runs up.
    pub async fn background(&self, command: &str, within: Duration) -> Result<Bytes, CommandError> {
        let command = checked(command)?;
        let mut job = self.0.jobs.begin();
        let line = format!("bgapi {command}\nJob-UUID: {}", job.uuid);
        let accepted = self.ask(line);
        let answer = async {
            tokio::select! {
                // The job may have ended before we hear that it has begun.
                ended = &mut job.ended => return answer_of(ended),
                reply = accepted => {
                    let reply = reply?;
                    if !reply.starts_with(b"+OK") {
                        return Ok(reply);
                    }
                }
            }
            answer_of((&mut job.ended).await)
        };
        in_time(within, answer).await
    }

    /// Waits until the link is ready, and says whether it is.
    pub async fn connected(&self, within: Duration) -> bool {
        let mut live = self.0.live.subscribe();
        let ready = live.wait_for(Option::is_some);
        timeout(within, ready)
            .await
            .is_ok_and(|ready| ready.is_ok())
    }

    /// A link that waits for its next try makes it now.
    pub fn try_now(&self) {
        self.0.hurry.notify_one();
    }

    /// Looks whether an event answers a background job, on whichever link it came. Costs next to nothing while none is waited for.
    pub(super) fn offer(&self, event: &EventFrame) {
        self.0.jobs.offer(event);
    }

    /// The same for an event that is passed over.
    pub(super) fn offer_too_large(&self, frame: &TooLarge) {
        self.0.jobs.offer_too_large(frame);
    }

    /// Returns when `try_now` was called.
    pub(super) async fn hurried(&self) {
        self.0.hurry.notified().await;
    }

    /// The link is ready: requests come out here from now on.
    pub(super) fn open(&self) -> mpsc::Receiver<Request> {
        let (tx, rx) = mpsc::channel(MOST);
        self.0.live.send_replace(Some(tx));
        rx
    }

    /// The link is lost.
    pub(super) fn close(&self) {
        self.0.live.send_replace(None);
    }

    async fn ask(&self, line: String) -> Result<Bytes, CommandError> {
        let live = self.0.live.borrow().clone();
        let live = live.ok_or(CommandError::NotConnected)?;
        let place = Arc::clone(&self.0.room).try_acquire_owned();
        let (answer, answered) = oneshot::channel();
        let request = Request {
            line,
            answer,
            _place: place.map_err(|_| CommandError::Busy)?,
        };
        // There is room for as many as there are places.
        let sent = live.try_send(request);
        sent.map_err(|_| CommandError::NotConnected)?;
        answered.await.unwrap_or(Err(CommandError::ConnectionLost))
    }
}

/// A line break would begin another command, and FreeSWITCH closes the connection at a NUL.
fn checked(command: &str) -> Result<&str, CommandError> {
    let is_bad = command.contains(['\r', '\n', '\0'])
        || command.starts_with(char::is_whitespace)
        || command.is_empty();
    match is_bad {
        true => Err(CommandError::Bad(excerpt(command))),
        false => Ok(command),
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

async fn in_time(
    within: Duration,
    answer: impl Future<Output = Result<Bytes, CommandError>>,
) -> Result<Bytes, CommandError> {
    let late = |_| CommandError::Late(within);
    timeout(within, answer).await.map_err(late)?
}

fn answer_of(ended: Result<Ended, oneshot::error::RecvError>) -> Result<Bytes, CommandError> {
    match ended {
        Ok(Ended::Told(event)) => {
            let event = Event::parse(event.format, event.bytes)?;
            let body = event.body().unwrap_or_default();
            Ok(Bytes::from(body.into_owned()))
        }
        Ok(Ended::TooLarge(bytes)) => Err(CommandError::TooLarge {
            bytes,
            most: MAX_FRAME,
        }),
        // A second event of the same job would find nobody; the table itself is never dropped while somebody waits.
        Err(_) => Err(CommandError::ConnectionLost),
    }
}

/// The error for an answer that is passed over, if the frame is one.
pub(super) fn too_large(frame: &TooLarge) -> Option<CommandError> {
    (frame.kind == Kind::ApiResponse).then_some(CommandError::TooLarge {
        bytes: frame.length,
        most: MAX_ANSWER,
    })
}

#[cfg(test)]
mod tests {
    use super::{Allowed, CommandError, checked};

    #[test]
    fn a_command_is_one_line_that_begins_with_its_name() {
        assert_eq!(checked("status"), Ok("status"));
        assert_eq!(checked("echo grüße %0a"), Ok("echo grüße %0a"));
        for bad in [
            "",
            " status",
            "\tstatus",
            "status\n",
            "status\r\n\r\napi shutdown",
            "status\nconsole_execute: true",
            "echo \0",
        ] {
            let error = checked(bad).unwrap_err();
            assert_eq!(error, CommandError::Bad(bad.to_owned()), "{bad:?}");
        }
    }

    #[test]
    fn the_first_word_alone_is_compared_and_to_the_letter() {
        let allowed = Allowed(vec!["status".to_owned(), "show".to_owned()]);
        for command in ["status", "show channels as json", "status "] {
            assert_eq!(allowed.check(command), Ok(()), "{command:?}");
        }
        for (command, verb) in [
            ("uuid_kill x", "uuid_kill"),
            ("STATUS", "STATUS"),
            ("stat", "stat"),
            ("status\tx", "status\tx"),
            ("bgapi status", "bgapi"),
            ("expand status", "expand"),
        ] {
            let error = CommandError::NotAllowed(verb.to_owned());
            assert_eq!(allowed.check(command), Err(error), "{command:?}");
        }
        let nothing = Allowed(Vec::new());
        assert!(nothing.check("status").is_err(), "nothing is the default");
    }
}
