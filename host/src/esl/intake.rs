//! Keeps one connection to the Event Socket up for ever, and hands on what it brings.
//!
//! `deliver` is called with every read's events and must not wait: a reader that stops reading harms FreeSWITCH itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::commands::Commands;
use super::error::EslError;
use super::pulse::Pulse;
use super::session::{Received, Session};
use super::subscription::Subscription;
use crate::config;
use crate::link::{Backoff, Link, random};

/// The events link: settings, what to subscribe to, and the record of its state.
#[derive(Debug)]
pub struct Intake {
    /// Where and how to connect.
    pub settings: config::Esl,
    /// What routes and filters want; a change is followed on the live connection.
    pub wanted: watch::Receiver<Subscription>,
    /// Written here, read by everyone.
    pub link: Arc<Link>,
    /// Told when the link is ready, and of background jobs that have ended.
    pub commands: Commands,
}

impl Intake {
    /// Runs until it is dropped.
    pub async fn run(mut self, mut deliver: impl FnMut(Received) + Send) -> Infallible {
        let mut backoff = Backoff::new(self.settings.backoff.initial, self.settings.backoff.max);
        let mut pulse = Pulse::default();
        let mut delay = backoff.next(random());
        loop {
            self.link.pause(delay).await;
            self.link.connecting();
            let error = match Session::open(&self.settings, &self.link, &self.commands).await {
                Err(error) => error,
                Ok(mut session) => {
                    self.link.authenticating();
                    let since = Instant::now();
                    pulse.restart();
                    let error = session
                        .run(&mut self.wanted, &mut pulse, &mut deliver)
                        .await;
                    backoff.lost(since.elapsed());
                    error
                }
            };
            pulse.doubted |= matches!(error, EslError::Silent(_));
            delay = match error {
                EslError::AskedFor => Duration::ZERO,
                _ => backoff.next(random()),
            };
            self.link.waiting(&error.to_string(), error.fault(), delay);
            // Whoever sees the count sees the state.
            self.link.ended(error.cause());
            if error.cause() == "killed" {
                tracing::error!(
                    link = "esl",
                    "FreeSWITCH gave this listener up: more than 500 events in a row, and those in its queue, are lost"
                );
            }
        }
    }
}
