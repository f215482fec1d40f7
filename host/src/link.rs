//! A link: one supervised connection, what is known of its state, and when to try again.
//!
//! `Backoff` is pure. `Link` is the shared record that the owner of the connection writes and that `/health`, `/status`
//! and the metrics read. It logs each change of state once, and repeated failures with a count. It opens no sockets.

use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;

use crate::clock;

/// A connection that held this long starts over with short delays when it is lost.
const STABLE: Duration = Duration::from_secs(10);

/// When to try again: at once, then `initial`, doubling up to `max`, each 20 % more or less.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    /// Both delays before jitter.
    pub fn new(initial: Duration, max: Duration) -> Backoff {
        Backoff {
            initial,
            max,
            attempt: 0,
        }
    }

    /// A connection was lost after it had been up for `up`; only a stable one makes the next try an early one.
    pub fn lost(&mut self, up: Duration) {
        if up >= STABLE {
            self.attempt = 0;
        }
    }

    /// A connection was lost that had done what it is for: the next try comes after the first delay again, though not at once.
    pub fn worked(&mut self) {
        self.attempt = self.attempt.min(1);
    }

    /// The delay before the next try where the peer works and only what we send is in doubt: always the first one.
    pub fn steady(&self, random: f64) -> Duration {
        self.initial.mul_f64(0.8 + 0.4 * random)
    }

    /// The delay before the next try; `random` is between 0 and 1.
    pub fn next(&mut self, random: f64) -> Duration {
        let attempt = self.attempt;
        self.attempt = attempt.saturating_add(1);
        let Some(doublings) = attempt.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = 2_u32.saturating_pow(doublings.min(31));
        self.initial
            .saturating_mul(factor)
            .min(self.max)
            .mul_f64(0.8 + 0.4 * random)
    }
}

/// A number between 0 and 1 for jitter; not for secrets.
pub fn random() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    let random = bits as f64 / (1_u64 << 53) as f64;
    random
}

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not wanted: before the start and after the end.
    Stopped,
    /// Opening the connection.
    Connecting,
    /// Connected; logging in and setting up.
    Authenticating,
    /// Up.
    Ready,
    /// Lost or refused; waiting for the next try.
    Waiting,
}

/// What is known of a link at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Where it stands.
    pub state: State,
    /// Since when, in microseconds since the epoch.
    pub since_us: u64,
    /// Where it connects to; never with a password.
    pub peer: String,
    /// Why it was lost or refused last; cleared when it is ready again.
    pub last_error: Option<String>,
    /// How often it was lost after having been ready.
    pub losses: u64,
    /// How often it became ready.
    pub connects: u64,
    /// Failed tries since it was last ready.
    pub attempts: u64,
    /// When the next try is due, in microseconds since the epoch, while it waits.
    pub next_try_us: Option<u64>,
}

/// The shared record of one link.
#[derive(Debug)]
pub struct Link {
    name: &'static str,
    alarm_after: u64,
    now: Mutex<Snapshot>,
}

impl Link {
    /// A stopped link; `alarm_after` failed tries in a row are an error in the log.
    pub fn new(name: &'static str, peer: String, alarm_after: u32) -> Link {
        let now = Snapshot {
            state: State::Stopped,
            since_us: clock::now_us(),
            peer,
            last_error: None,
            losses: 0,
            connects: 0,
            attempts: 0,
            next_try_us: None,
        };
        Link {
            name,
            alarm_after: u64::from(alarm_after),
            now: Mutex::new(now),
        }
    }

    /// What `/status` and the metrics show.
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// Whether it is up.
    pub fn is_ready(&self) -> bool {
        self.lock().state == State::Ready
    }

    /// The connection is being opened.
    pub fn connecting(&self) {
        drop(self.enter(State::Connecting));
    }

    /// The connection is open and being set up.
    pub fn authenticating(&self) {
        drop(self.enter(State::Authenticating));
    }

    /// The connection is up.
    pub fn ready(&self) {
        let mut now = self.enter(State::Ready);
        now.connects += 1;
        let attempts = std::mem::take(&mut now.attempts);
        let after = now.last_error.take();
        tracing::info!(
            link = self.name,
            peer = now.peer,
            attempts,
            after,
            "link ready"
        );
    }

    /// The connection was lost or could not be made; the next try is in `delay`.
    pub fn waiting(&self, error: &str, delay: Duration) {
        let lost = self.is_ready();
        let mut now = self.enter(State::Waiting);
        now.next_try_us = Some(
            now.since_us
                .saturating_add(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)),
        );
        let repeated = now.last_error.as_deref() == Some(error);
        now.last_error = Some(error.to_owned());
        let next_try_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        if lost {
            now.losses += 1;
            tracing::warn!(
                link = self.name,
                peer = now.peer,
                error,
                next_try_ms,
                "link lost"
            );
            return;
        }
        now.attempts += 1;
        if now.attempts == self.alarm_after {
            tracing::error!(
                link = self.name,
                peer = now.peer,
                error,
                attempts = now.attempts,
                "link still down"
            );
        } else if !repeated {
            tracing::warn!(
                link = self.name,
                peer = now.peer,
                error,
                next_try_ms,
                "link not connected"
            );
        }
    }

    /// The end: on purpose.
    pub fn stopped(&self) {
        drop(self.enter(State::Stopped));
    }

    fn enter(&self, state: State) -> std::sync::MutexGuard<'_, Snapshot> {
        let mut now = self.lock();
        now.state = state;
        now.since_us = clock::now_us();
        now.next_try_us = None;
        now
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Snapshot> {
        self.now
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, Link, State};

    #[test]
    fn tries_at_once_then_doubles_up_to_the_maximum() {
        let mut backoff = Backoff::new(Duration::from_secs(3), Duration::from_secs(10));
        let delays: Vec<u64> = (0..5).map(|_| backoff.next(0.5).as_secs()).collect();
        assert_eq!(delays, [0, 3, 6, 10, 10]);
        backoff.lost(Duration::from_secs(9));
        assert_eq!(
            backoff.next(0.5).as_secs(),
            10,
            "a short connection does not reset it"
        );
        backoff.worked();
        assert_eq!(
            backoff.next(0.5).as_secs(),
            3,
            "one that worked has the first delay"
        );
        backoff.lost(Duration::from_secs(10));
        assert_eq!(backoff.next(0.5).as_secs(), 0, "a stable one none");
        backoff.worked();
        assert_eq!(backoff.next(0.5).as_secs(), 3, "and then the first");
    }

    #[test]
    fn jitter_is_a_fifth_either_way_and_nothing_overflows() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(u64::MAX / 4));
        backoff.next(0.0);
        assert_eq!(backoff.next(0.0), Duration::from_millis(800));
        assert_eq!(backoff.next(1.0), Duration::from_millis(2_400));
        for _ in 0..100 {
            backoff.next(1.0);
        }
    }

    #[test]
    fn a_link_counts_losses_apart_from_failed_tries() {
        let link = Link::new("esl", "127.0.0.1:8021".to_owned(), 15);
        link.waiting("refused", Duration::from_secs(1));
        link.ready();
        link.waiting("reset", Duration::ZERO);
        link.waiting("refused", Duration::from_secs(1));
        let now = link.snapshot();
        assert_eq!(
            (now.state, now.losses, now.attempts, now.connects),
            (State::Waiting, 1, 1, 1)
        );
        assert_eq!(now.last_error.as_deref(), Some("refused"));
        link.ready();
        assert_eq!(link.snapshot().last_error, None);
    }
}
