//! After every connect: which calls are alive. FreeSWITCH repeats no event, so knowing what was missed is the best that can be done.
//!
//! It only informs. FreeSWITCH is asked over the link for commands, and its answer goes where the events go, as an input among
//! them; what differs, the pipeline says. The answer is a moment behind the events, so it is asked for a second time soon after.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::commands::Commands;
use super::roll_call::{Outage, RollCall, SHOW_CHANNELS, read};
use super::subscription::Subscription;
use crate::clock;
use crate::event::subclass;
use crate::link::Link;

/// How long the link for commands may take to come back after that for events.
const CONNECT: Duration = Duration::from_secs(5);
/// How long FreeSWITCH may take to say which of some ten thousand calls are alive.
const ANSWER: Duration = Duration::from_secs(10);
/// Events that were made before the answer have come by then: FreeSWITCH holds each back for up to 20 ms.
const ARRIVED: Duration = Duration::from_millis(100);
/// FreeSWITCH's table of channels has settled by then.
const SETTLED: Duration = Duration::from_secs(1);
/// What the host itself lost on the way shows then.
const REGULAR: Duration = Duration::from_secs(600);
/// What failed is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Asks which calls are alive, whenever that may not be known.
#[derive(Debug)]
pub struct Resync {
    /// The link for events.
    pub link: Arc<Link>,
    /// Where FreeSWITCH is asked.
    pub commands: Commands,
    /// Whether anybody wants to know.
    pub wanted: watch::Receiver<Subscription>,
}

/// All that can make it look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// The link is up, or somebody wants to know.
    Asked,
    /// Other events are wanted.
    Wanted,
    /// It is time.
    Due,
}

impl Resync {
    /// Runs until it is dropped. `take` gets the parts of each roll call, `believed` says about how many calls are alive.
    pub async fn run(
        mut self,
        mut take: impl FnMut(Vec<Bytes>),
        believed: impl Fn() -> usize,
    ) -> Infallible {
        let (mut connects, mut knows_core) = (0, false);
        // When it is asked next without a reason.
        let mut next = None;
        // Whether the last answer is to be settled by another one, or the next one will be.
        let (mut unsettled, mut owed) = (false, false);
        let mut followed = false;
        loop {
            let wake = self.wait(next).await;
            let now = self.link.snapshot();
            let is_new = std::mem::replace(&mut connects, now.connects) != now.connects;
            knows_core &= !is_new;
            let follows = self.wanted.borrow_and_update().follows_calls();
            let begins_to_follow = follows && !followed;
            followed = follows;
            let is_fresh = is_new || begins_to_follow || owed;
            if !now.state.is_up() || !self.is_wanted() {
                self.link.resynced(now.connects);
                (next, unsettled, owed) = (None, false, false);
                continue;
            }
            if wake == Wake::Wanted && !is_fresh {
                // What else is wanted is no matter of calls.
                continue;
            }
            let loss = now.last_loss.filter(|_| is_new && now.connects > 1);
            let outage = loss.and_then(|loss| {
                Some(Outage {
                    peer: now.peer,
                    error: loss.error,
                    down_us: loss.down_us?,
                    attempts: loss.attempts,
                })
            });
            let roll = self.call(outage, !knows_core).await;
            knows_core |= roll.core_uuid.is_some();
            // A question in between does not stand for the one that settles.
            let settles = is_fresh || unsettled && wake != Wake::Due;
            (unsettled, owed) = match roll.calls.is_ok() {
                true => (settles, false),
                false => (false, settles),
            };
            let pause = match &roll.calls {
                Ok(_) if settles => SETTLED,
                Ok(_) => REGULAR,
                Err(_) if !follows => REGULAR,
                Err(error) => {
                    tracing::warn!(error, "calls alive are unknown");
                    AGAIN
                }
            };
            next = Some(Instant::now() + pause);
            take(encoded(roll, believed()));
            self.link.resynced(now.connects);
        }
    }

    /// Waits for a reason to look, or to ask.
    async fn wait(&mut self, next: Option<Instant>) -> Wake {
        let due = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.link.asked_resync() => Wake::Asked,
            Ok(()) = self.wanted.changed() => Wake::Wanted,
            () = due => Wake::Due,
        }
    }

    fn is_wanted(&self) -> bool {
        let wanted = self.wanted.borrow();
        let of_link = [subclass::LINK_RECONNECTED, subclass::FREESWITCH_RESTARTED];
        wanted.follows_calls() || of_link.iter().any(|one| wanted.wants_own(one))
    }

    /// On a new connection it is asked first which process this is.
    async fn call(&self, outage: Option<Outage>, asks_core: bool) -> RollCall {
        let core_uuid = match asks_core {
            true => self.core_uuid().await.map(Some),
            false => Ok(None),
        };
        let asked_us = clock::now_us();
        let (core_uuid, calls) = match core_uuid {
            Ok(core_uuid) => (core_uuid, self.calls().await),
            Err(error) => (None, Err(error)),
        };
        RollCall {
            asked_us,
            part: 0,
            parts: 1,
            core_uuid,
            outage,
            calls,
        }
    }

    async fn core_uuid(&self) -> Result<String, String> {
        if !self.commands.connected(CONNECT).await {
            let after = CONNECT.as_secs();
            return Err(format!("no link for commands within {after} s"));
        }
        let answer = self.ask("global_getvar core_uuid").await?;
        let uuid = String::from_utf8_lossy(&answer).trim().to_owned();
        match uuid.is_empty() || uuid.starts_with('-') {
            true => Err(format!(
                "\"global_getvar core_uuid\" is answered with {uuid:?}"
            )),
            false => Ok(uuid),
        }
    }

    async fn calls(&self) -> Result<Vec<super::LiveCall>, String> {
        if !self.wanted.borrow().follows_calls() {
            return Err(
                "calls are not followed: CHANNEL_CREATE and CHANNEL_DESTROY are not wanted"
                    .to_owned(),
            );
        }
        let answer = self.ask(SHOW_CHANNELS).await?;
        sleep(ARRIVED).await;
        // Megabytes, where there are many calls.
        let read = tokio::task::spawn_blocking(move || read(&answer)).await;
        read.unwrap_or_else(|_| Err("the answer could not be read".to_owned()))
    }

    async fn ask(&self, command: &str) -> Result<Bytes, String> {
        let answer = self.commands.api(command, ANSWER).await;
        answer.map_err(|error| format!("{command:?}: {error}"))
    }
}

fn encoded(roll: RollCall, believed: usize) -> Vec<Bytes> {
    let parts = roll.split(believed).into_iter();
    parts.filter_map(|part| part.encode().ok()).collect()
}
