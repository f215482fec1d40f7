//! A link: one supervised connection, and what is known of it. Every link goes through the same states:
//!
//! ```text
//! stopped → connecting → authenticating → resyncing → ready → (lost) → waiting → connecting …     ready → draining → stopped
//! ```
//!
//! `Link` is the shared record that the owner of the connection writes and that `/health`, `/status`, the metrics and the events
//! about links read. It logs each change of state once, and repeated failures with a count. It opens no sockets; `backoff` says
//! when to try again, `health` what the record is worth, `links` what all of them are together.

mod backoff;
mod health;
mod links;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::clock;

pub use backoff::{Backoff, random};
pub use health::{Health, Level};
pub use links::{Links, LinksStatus, Overall};

/// Losses that are remembered for the health: older ones weigh nothing beside as many newer ones.
const LOSSES: usize = 32;

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
    /// Up; what was missed while it was not is being found out.
    Resyncing,
    /// Up.
    Ready,
    /// Up for what is left; the host stops.
    Draining,
    /// Lost or refused; waiting for the next try.
    Waiting,
}

impl State {
    /// Whether the connection does what it is for.
    pub fn is_up(self) -> bool {
        matches!(self, State::Resyncing | State::Ready | State::Draining)
    }

    /// As `/status` and events spell it.
    pub fn label(self) -> &'static str {
        match self {
            State::Stopped => "stopped",
            State::Connecting => "connecting",
            State::Authenticating => "authenticating",
            State::Resyncing => "resyncing",
            State::Ready => "ready",
            State::Draining => "draining",
            State::Waiting => "waiting",
        }
    }
}

/// Why a link is not up, in words that stay the same whatever the peer says: programs compare them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// It was never up.
    NotConnected,
    /// It was up.
    ConnectionLost,
    /// It was up, was lost, and could not be made again.
    ReconnectFailed,
    /// The peer refuses what a setting says: a password, an access list, a right.
    ConfigInvalid,
}

impl ErrorKind {
    /// As `/status` and events spell it.
    pub fn label(self) -> &'static str {
        match self {
            ErrorKind::NotConnected => "not_connected",
            ErrorKind::ConnectionLost => "connection_lost",
            ErrorKind::ReconnectFailed => "reconnect_failed",
            ErrorKind::ConfigInvalid => "config_invalid",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Whose fault it is that a connection ended or could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer's, or the network's: it may pass.
    Peer,
    /// A setting's: it passes when the setting changes, here or there.
    Setting,
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
    /// Whether the host is not ready without it.
    pub required: bool,
    /// What the rest is worth.
    pub health: Health,
    /// Why it was lost or refused last; cleared when it is up again.
    pub last_error: Option<String>,
    /// The same in words that stay.
    pub error_kind: Option<ErrorKind>,
    /// How often it was lost after having been up.
    pub losses: u64,
    /// When it was lost, in microseconds since the epoch, of the newest of them.
    pub losses_at_us: VecDeque<u64>,
    /// How often it came up.
    pub connects: u64,
    /// Failed tries since it was last up.
    pub attempts: u64,
    /// When the next try is due, in microseconds since the epoch, while it waits.
    pub next_try_us: Option<u64>,
    /// The last time that it was lost, also when it is up again.
    pub last_loss: Option<Loss>,
    /// How long it was not up after it had been up once, in microseconds, without an outage that goes on.
    pub down_us: u64,
    /// How long its owner was kept from running, and so from reading, in microseconds.
    pub stalled_us: u64,
    /// How long the peer took to answer last, in microseconds.
    pub round_trip_us: Option<u64>,
    /// How far behind it is, in microseconds: what it brought last was so old, or what it has to take is.
    pub lag_us: Option<u64>,
    /// The last sign of life, in microseconds since the epoch.
    pub heard_us: Option<u64>,
    /// How often one is due, in microseconds.
    pub heartbeat_us: Option<u64>,
    /// How often a connection, or a try, ended for each cause.
    pub ended: BTreeMap<&'static str, u64>,
}

/// An outage: what came meanwhile was not heard.
#[derive(Clone, Debug, Serialize)]
pub struct Loss {
    /// Why.
    pub error: String,
    /// When, in microseconds since the epoch.
    pub at_us: u64,
    /// How long, in microseconds, once it is over.
    pub down_us: Option<u64>,
    /// Failed tries until it was over.
    pub attempts: u64,
}

impl Snapshot {
    /// How long it was not up after it had been up once, in microseconds, until now.
    pub fn down_until(&self, now_us: u64) -> u64 {
        let open = self
            .last_loss
            .as_ref()
            .filter(|loss| loss.down_us.is_none());
        self.down_us + open.map_or(0, |loss| now_us.saturating_sub(loss.at_us))
    }
}

/// What happened to a link, for those who want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It was in this state and is in another one.
    StateChanged(State),
    /// It is up; after an outage, or for the first time.
    Up {
        /// It had been up before.
        again: bool,
    },
    /// Tries go on and on failing.
    Alarm,
}

type Tell = Box<dyn Fn(Notice, &Snapshot) + Send + Sync>;

/// The shared record of one link.
pub struct Link {
    name: &'static str,
    alarm_after: u64,
    now: Mutex<Snapshot>,
    tell: OnceLock<Tell>,
    again: Notify,
    resync: Notify,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// A stopped link without which the host is not ready; `alarm_after` failed tries in a row are an error in the log.
    pub fn new(name: &'static str, peer: String, alarm_after: u32) -> Link {
        let now = Snapshot {
            state: State::Stopped,
            since_us: clock::now_us(),
            peer,
            required: true,
            health: Health::default(),
            last_error: None,
            error_kind: None,
            losses: 0,
            losses_at_us: VecDeque::new(),
            connects: 0,
            attempts: 0,
            next_try_us: None,
            last_loss: None,
            down_us: 0,
            stalled_us: 0,
            round_trip_us: None,
            lag_us: None,
            heard_us: None,
            heartbeat_us: None,
            ended: BTreeMap::new(),
        };
        Link {
            name,
            alarm_after: u64::from(alarm_after),
            now: Mutex::new(now),
            tell: OnceLock::new(),
            again: Notify::new(),
            resync: Notify::new(),
        }
    }

    /// One without which the host does what it is for.
    pub fn optional(name: &'static str, peer: String, alarm_after: u32) -> Link {
        let link = Link::new(name, peer, alarm_after);
        link.lock().required = false;
        link
    }

    /// As settings and events name it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// `tell` is called after each change with what is known then. It must not wait. Only the first one counts.
    pub fn on_change(&self, tell: impl Fn(Notice, &Snapshot) + Send + Sync + 'static) {
        self.tell.get_or_init(|| Box::new(tell));
    }

    /// What `/status` and the metrics show.
    pub fn snapshot(&self) -> Snapshot {
        let mut now = self.lock().clone();
        now.health = Health::of(&now, clock::now_us());
        now
    }

    /// Whether it does what it is for.
    pub fn is_ready(&self) -> bool {
        self.lock().state.is_up()
    }

    /// Somebody wants the connection made anew: a live one is given up, one that waits is tried at once.
    pub fn ask_again(&self) {
        self.again.notify_one();
    }

    /// Waits until somebody wants it anew.
    pub async fn asked_again(&self) {
        self.again.notified().await;
    }

    /// Waits for the next try, or until somebody wants it now.
    pub async fn pause(&self, delay: Duration) {
        tokio::select! {
            () = sleep(delay) => {}
            () = self.asked_again() => {}
        }
    }

    /// The connection is being opened.
    pub fn connecting(&self) {
        self.enter(State::Connecting, |_| ());
    }

    /// The connection is open and being set up.
    pub fn authenticating(&self) {
        self.enter(State::Authenticating, |_| ());
    }

    /// The connection is up.
    pub fn ready(&self) {
        self.up(State::Ready);
    }

    /// The connection is up, and what was missed is being found out, until [`Link::resynced`].
    pub fn resyncing(&self) {
        self.up(State::Resyncing);
        self.ask_resync();
    }

    /// Somebody wants to know what was missed.
    pub fn ask_resync(&self) {
        self.resync.notify_one();
    }

    /// Waits until somebody does.
    pub async fn asked_resync(&self) {
        self.resync.notified().await;
    }

    /// What was missed before it came up for the `connects`th time is known, or is known to be unknown.
    pub fn resynced(&self, connects: u64) {
        let is_meant = |now: &Snapshot| now.state == State::Resyncing && now.connects == connects;
        self.enter_if(is_meant, State::Ready, |_| ());
    }

    /// The host stops; what is left is still brought to the peer.
    pub fn draining(&self) {
        self.enter_if(|now| now.state.is_up(), State::Draining, |_| ());
    }

    fn up(&self, state: State) {
        let mut again = false;
        self.enter(state, |now| {
            now.connects += 1;
            now.heard_us = Some(now.since_us);
            let attempts = std::mem::take(&mut now.attempts);
            let after = now.last_error.take();
            now.error_kind = None;
            let since_us = now.since_us;
            let loss = now.last_loss.as_mut();
            let down_us = loss.filter(|loss| loss.down_us.is_none()).map(|loss| {
                loss.attempts = attempts;
                let down_us = since_us.saturating_sub(loss.at_us);
                *loss.down_us.insert(down_us)
            });
            now.down_us += down_us.unwrap_or_default();
            again = down_us.is_some();
            tracing::info!(
                link = self.name,
                peer = now.peer,
                attempts,
                after,
                down_ms = down_us.map(|down_us| down_us / 1_000),
                "link ready"
            );
        });
        self.tell(Notice::Up { again });
    }

    /// The connection was lost or could not be made; the next try is in `delay`.
    pub fn waiting(&self, error: &str, fault: Fault, delay: Duration) {
        let mut alarm = false;
        let was_up = self.is_ready();
        self.enter(State::Waiting, |now| {
            let next_try_us = now.since_us.saturating_add(micros(delay));
            now.next_try_us = Some(next_try_us);
            let repeated = now.last_error.as_deref() == Some(error);
            now.last_error = Some(error.to_owned());
            now.error_kind = Some(match (fault, was_up, now.connects) {
                (Fault::Setting, ..) => ErrorKind::ConfigInvalid,
                (Fault::Peer, true, _) => ErrorKind::ConnectionLost,
                (Fault::Peer, false, 0) => ErrorKind::NotConnected,
                (Fault::Peer, false, _) => ErrorKind::ReconnectFailed,
            });
            if was_up {
                now.losses += 1;
                if now.losses_at_us.len() == LOSSES {
                    now.losses_at_us.pop_front();
                }
                now.losses_at_us.push_back(now.since_us);
                now.last_loss = Some(Loss {
                    error: error.to_owned(),
                    at_us: now.since_us,
                    down_us: None,
                    attempts: 0,
                });
            } else {
                now.attempts += 1;
                alarm = now.attempts == self.alarm_after;
            }
            self.log_waiting(now, delay, was_up, repeated);
        });
        if alarm {
            self.tell(Notice::Alarm);
        }
    }

    fn log_waiting(&self, now: &Snapshot, delay: Duration, was_up: bool, repeated: bool) {
        let error = now.last_error.as_deref();
        let next_try_ms = micros(delay) / 1_000;
        let (link, peer) = (self.name, &now.peer);
        if was_up {
            tracing::warn!(link, peer, error, next_try_ms, "link lost");
        } else if now.attempts == self.alarm_after {
            let attempts = now.attempts;
            tracing::error!(link, peer, error, attempts, "link still down");
        } else if !repeated {
            tracing::warn!(link, peer, error, next_try_ms, "link not connected");
        }
    }

    /// A connection, or a try, ended for this cause.
    pub fn ended(&self, cause: &'static str) {
        *self.lock().ended.entry(cause).or_default() += 1;
    }

    /// A sign of life that is due each `interval`.
    pub fn heartbeat(&self, interval: Duration) {
        let mut now = self.lock();
        now.heard_us = Some(clock::now_us());
        now.heartbeat_us = Some(micros(interval));
    }

    /// How far behind it is.
    pub fn lag(&self, lag_us: u64) {
        self.lock().lag_us = Some(lag_us);
    }

    /// How long the peer took to answer.
    pub fn round_trip(&self, time: Duration) {
        self.lock().round_trip_us = Some(micros(time));
    }

    /// The owner did not run for so long, and the peer may have given up what it could not hand over.
    pub fn stalled(&self, time: Duration) {
        let time_us = micros(time);
        self.lock().stalled_us += time_us;
        let stalled_ms = time_us / 1_000;
        tracing::warn!(
            link = self.name,
            stalled_ms,
            "nothing was read: the host was stopped or starved"
        );
    }

    /// The end: on purpose.
    pub fn stopped(&self) {
        self.enter(State::Stopped, |_| ());
    }

    fn enter(&self, state: State, change: impl FnOnce(&mut Snapshot)) {
        self.enter_if(|_| true, state, change);
    }

    /// Looked at and changed under one lock.
    fn enter_if(
        &self,
        is_meant: impl FnOnce(&Snapshot) -> bool,
        state: State,
        change: impl FnOnce(&mut Snapshot),
    ) {
        let mut now = self.lock();
        if !is_meant(&now) {
            return;
        }
        let before = std::mem::replace(&mut now.state, state);
        now.since_us = clock::now_us();
        now.next_try_us = None;
        change(&mut now);
        drop(now);
        if before != state {
            self.tell(Notice::StateChanged(before));
        }
    }

    /// Without the lock: who is told may ask.
    fn tell(&self, notice: Notice) {
        if let Some(tell) = self.tell.get() {
            tell(notice, &self.snapshot());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::{ErrorKind, Fault, Link, Notice, State};

    fn link() -> Link {
        Link::new("esl", "127.0.0.1:8021".to_owned(), 2)
    }

    #[test]
    fn a_link_counts_losses_apart_from_failed_tries() {
        let link = link();
        link.waiting("refused", Fault::Peer, Duration::from_secs(1));
        link.ready();
        link.waiting("reset", Fault::Peer, Duration::ZERO);
        link.waiting("refused", Fault::Peer, Duration::from_secs(1));
        let now = link.snapshot();
        assert_eq!(
            (now.state, now.losses, now.attempts, now.connects),
            (State::Waiting, 1, 1, 1)
        );
        assert_eq!(now.last_error.as_deref(), Some("refused"));
        assert!(now.down_until(now.since_us + 1_000) >= 1_000, "it is down");
        link.ready();
        let now = link.snapshot();
        assert_eq!((&now.last_error, now.error_kind), (&None, None));
        let loss = now.last_loss.as_ref().unwrap();
        assert_eq!(
            (loss.error.as_str(), loss.down_us, loss.attempts),
            ("reset", Some(now.down_us), 1),
            "the last loss is told also when it is over"
        );
        assert_eq!(now.down_until(u64::MAX), now.down_us, "it is up");
    }

    #[test]
    fn the_kind_of_an_error_says_what_was_before_it() {
        let link = link();
        let kind_after = |fault| {
            link.waiting("whatever the peer says", fault, Duration::ZERO);
            link.snapshot().error_kind.unwrap()
        };
        assert_eq!(kind_after(Fault::Peer), ErrorKind::NotConnected);
        assert_eq!(kind_after(Fault::Setting), ErrorKind::ConfigInvalid);
        link.resyncing();
        assert_eq!(kind_after(Fault::Peer), ErrorKind::ConnectionLost);
        assert_eq!(kind_after(Fault::Peer), ErrorKind::ReconnectFailed);
        link.ready();
        assert_eq!(kind_after(Fault::Setting), ErrorKind::ConfigInvalid);
    }

    #[test]
    fn who_wants_to_know_is_told_after_each_change() {
        let link = Arc::new(link());
        let told: Arc<Mutex<Vec<(Notice, State)>>> = Arc::default();
        let (into, asked) = (Arc::clone(&told), Arc::clone(&link));
        link.on_change(move |notice, now| {
            assert_eq!(asked.is_ready(), now.state.is_up(), "it may ask");
            into.lock().unwrap().push((notice, now.state));
        });
        link.connecting();
        link.connecting();
        link.resyncing();
        link.resynced(0);
        link.resynced(1);
        link.resynced(1);
        for _ in 0..4 {
            link.waiting("reset", Fault::Peer, Duration::ZERO);
        }
        link.ready();
        let told = std::mem::take(&mut *told.lock().unwrap());
        let expected = [
            (Notice::StateChanged(State::Stopped), State::Connecting),
            (Notice::StateChanged(State::Connecting), State::Resyncing),
            (Notice::Up { again: false }, State::Resyncing),
            (Notice::StateChanged(State::Resyncing), State::Ready),
            (Notice::StateChanged(State::Ready), State::Waiting),
            (Notice::Alarm, State::Waiting),
            (Notice::StateChanged(State::Waiting), State::Ready),
            (Notice::Up { again: true }, State::Ready),
        ];
        assert_eq!(told, expected, "each once");
    }
}
