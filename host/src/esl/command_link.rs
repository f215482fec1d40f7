//! Keeps the connection for commands up for ever: requests go out whole and in order, answers come back in that order.
//!
//! It connects while the link for events is ready, and stays connected whatever becomes of that one. It asks for two events:
//! HEARTBEAT, the sign of life, and BACKGROUND_JOB, the answer to what runs in the background. A command that takes so long
//! that FreeSWITCH's one thread for this connection sends no heartbeats is a silence like any other.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::commands::{CommandError, Commands, Request, too_large};
use super::error::EslError;
use super::frame::{Frame, Kind};
use super::pulse::Pulse;
use super::session::EventFrame;
use super::subscription::{Subscribed, Subscription};
use super::wire::{Heard, Wire};
use crate::config;
use crate::event::Format;
use crate::link::{Backoff, Link, random};

/// The link for commands: settings, the callers, and the record of its state.
#[derive(Debug)]
pub struct CommandLink {
    /// Where and how to connect.
    pub settings: config::Esl,
    /// What callers hold.
    pub commands: Commands,
    /// Written here, read by everyone.
    pub link: Arc<Link>,
    /// The link for events, which goes first.
    pub events: Arc<Link>,
}

impl CommandLink {
    /// Runs until it is dropped.
    pub async fn run(self) -> Infallible {
        let mut backoff = Backoff::new(self.settings.backoff.initial, self.settings.backoff.max);
        let mut pulse = Pulse::default();
        let mut delay = backoff.next(random());
        loop {
            tokio::select! {
                () = self.link.pause(delay) => {}
                () = self.commands.hurried() => {}
            }
            // One link finds out when FreeSWITCH is there again, and tries no wrong password twice.
            while !self.events.is_ready() {
                self.commands.hurried().await;
            }
            self.link.connecting();
            let error = match Wire::open(&self.settings).await {
                Err(error) => error,
                Ok(wire) => {
                    self.link.authenticating();
                    let since = Instant::now();
                    pulse.restart();
                    let mut session = Session {
                        link: &self.link,
                        commands: &self.commands,
                        wire,
                        is_subscribed: false,
                        requests: None,
                        callers: VecDeque::new(),
                    };
                    let error = session.run(&mut pulse).await;
                    backoff.lost(since.elapsed());
                    self.commands.close();
                    session.let_go();
                    error
                }
            };
            delay = match error {
                EslError::AskedFor => Duration::ZERO,
                _ => backoff.next(random()),
            };
            self.link.waiting(&error.to_string(), error.fault(), delay);
            self.link.ended(error.cause());
        }
    }
}

/// One connection.
struct Session<'a> {
    link: &'a Link,
    commands: &'a Commands,
    wire: Wire<'a>,
    is_subscribed: bool,
    /// Where callers' requests come from, once the connection is ready.
    requests: Option<mpsc::Receiver<Request>>,
    /// Whose answers are awaited, in the order in which they will come, also of those who gave up.
    callers: VecDeque<(Request, Instant)>,
}

impl Session<'_> {
    /// Runs until the connection ends, which is always an error.
    async fn run(&mut self, pulse: &mut Pulse) -> EslError {
        loop {
            let done = tokio::select! {
                turned = self.wire.turn(pulse.limit()) => match turned {
                    Ok(true) => self.read(pulse),
                    turned => turned.map(drop),
                },
                request = next(&mut self.requests) => {
                    self.send(request);
                    Ok(())
                }
                () = self.link.asked_again() => Err(EslError::AskedFor),
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    /// Whatever waits goes out together.
    fn send(&mut self, first: Request) {
        let mut next = Some(first);
        while let Some(request) = next {
            self.wire.write(&request.line);
            self.callers.push_back((request, Instant::now()));
            let requests = self.requests.as_mut();
            next = requests.and_then(|requests| requests.try_recv().ok());
        }
    }

    fn read(&mut self, pulse: &mut Pulse) -> Result<(), EslError> {
        while let Some(heard) = self.wire.next()? {
            match heard {
                Heard::Accepted => self.accepted(),
                Heard::Reply(frame) => self.answer(Ok(answer_of(frame)))?,
                Heard::Event(format, frame) => {
                    pulse.hear(&frame.body, self.link);
                    self.commands.offer(&EventFrame::of(format, frame));
                }
                Heard::TooLarge(frame) => match too_large(&frame) {
                    Some(error) => self.answer(Err(error))?,
                    None => self.commands.offer_too_large(&frame),
                },
            }
        }
        Ok(())
    }

    fn accepted(&mut self) {
        if !self.is_subscribed {
            self.is_subscribed = true;
            let mut wanted = Subscription::new();
            wanted.add("BACKGROUND_JOB", None);
            let (_, commands) = Subscribed::start(Format::Json, &wanted);
            self.wire.send_all(&commands);
        } else if self.wire.is_settled() {
            self.link.ready();
            self.requests = Some(self.commands.open());
        }
    }

    fn answer(&mut self, answer: Result<Bytes, CommandError>) -> Result<(), EslError> {
        // From here on nobody could tell whose the next one is.
        let (caller, since) = self.callers.pop_front().ok_or(EslError::Unasked)?;
        self.link.round_trip(since.elapsed());
        caller.answer(answer);
        Ok(())
    }

    /// The connection is gone: what was not sent has not run, the rest may have.
    fn let_go(self) {
        if let Some(mut requests) = self.requests {
            requests.close();
            while let Ok(request) = requests.try_recv() {
                request.answer(Err(CommandError::NotConnected));
            }
        }
        for (caller, _) in self.callers {
            caller.answer(Err(CommandError::ConnectionLost));
        }
    }
}

/// The next request; none ever where none may come.
async fn next(requests: &mut Option<mpsc::Receiver<Request>>) -> Request {
    let request = match requests {
        Some(requests) => requests.recv().await,
        None => None,
    };
    match request {
        Some(request) => request,
        None => std::future::pending().await,
    }
}

/// FreeSWITCH's text as it came: the body of an answer, or what it says in place of one.
fn answer_of(frame: Frame) -> Bytes {
    match frame.kind {
        Kind::ApiResponse => frame.body,
        _ => Bytes::from(frame.header("Reply-Text").unwrap_or_default().to_owned()),
    }
}
