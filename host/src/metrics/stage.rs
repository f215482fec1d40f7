//! What a stage does with its time: it works, it has nothing to do, or it cannot go on because of what comes after it.
//!
//! One task or thread says what it does now; anyone may read the sums, in which what is going on now is included.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// What a stage does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It works.
    Busy,
    /// Nothing comes.
    Starved,
    /// What it has cannot go on: the next stage, or the peer, does not take it.
    Blocked,
}

/// One stage's time since the start.
#[derive(Debug)]
pub struct Stage(Mutex<Spent>);

/// The stages that take time of their own.
#[derive(Debug, Default)]
pub struct Stages {
    /// Cuts frames and hands them on. It waits for nothing but the socket, so it is never blocked.
    pub intake: Stage,
    /// Journals, filters and routes. It is blocked while the queue to the writer is full.
    pub pipeline: Stage,
    /// Busy while a transaction is on its way; blocked while there is no connection, or Redis refuses.
    pub writer: Stage,
}

#[derive(Debug)]
struct Spent {
    now: Activity,
    since: Instant,
    /// What was before `since`.
    before: Times,
    events: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    busy: Duration,
    starved: Duration,
    blocked: Duration,
}

/// A stage's sums at one moment; a rate or a share is the difference of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StageStatus {
    /// Events that it is through with.
    pub events: u64,
    /// Time in which it worked, in microseconds.
    pub busy_us: u64,
    /// Time in which it had nothing to do.
    pub starved_us: u64,
    /// Time in which it could not go on.
    pub blocked_us: u64,
}

impl Default for Stage {
    fn default() -> Stage {
        Stage(Mutex::new(Spent {
            now: Activity::Starved,
            since: Instant::now(),
            before: Times::default(),
            events: 0,
        }))
    }
}

impl Stages {
    /// All of them by name, in the order of the data.
    pub fn all(&self) -> [(&'static str, &Stage); 3] {
        [
            ("intake", &self.intake),
            ("pipeline", &self.pipeline),
            ("writer", &self.writer),
        ]
    }
}

impl Stage {
    /// From now on it does this.
    pub fn turn(&self, now: Activity) {
        let mut spent = self.lock();
        if spent.now != now {
            let at = Instant::now();
            spent.before = spent.until(at);
            (spent.now, spent.since) = (now, at);
        }
    }

    /// It worked for so long until now, and is through with so many events. For who knows it only afterwards.
    pub fn worked(&self, busy: Duration, events: u64) {
        let mut spent = self.lock();
        let at = Instant::now();
        let begun = at.checked_sub(busy).unwrap_or(at).max(spent.since);
        spent.before = spent.until(begun);
        spent.before.busy += at.saturating_duration_since(begun);
        spent.since = at;
        spent.events += events;
    }

    /// It is through with so many events.
    pub fn did(&self, events: u64) {
        self.lock().events += events;
    }

    /// The sums.
    pub fn status(&self) -> StageStatus {
        let spent = self.lock();
        let times = spent.until(Instant::now());
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        StageStatus {
            events: spent.events,
            busy_us: us(times.busy),
            starved_us: us(times.starved),
            blocked_us: us(times.blocked),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Spent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spent {
    fn until(&self, at: Instant) -> Times {
        let mut times = self.before;
        *match self.now {
            Activity::Busy => &mut times.busy,
            Activity::Starved => &mut times.starved,
            Activity::Blocked => &mut times.blocked,
        } += at.saturating_duration_since(self.since);
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_now_is_in_the_sums() {
        let stage = Stage::default();
        stage.0.lock().unwrap().since -= Duration::from_secs(5);
        let status = stage.status();
        assert!(status.starved_us >= 5_000_000, "{status:?}");
        assert_eq!((status.busy_us, status.blocked_us), (0, 0));
    }

    #[test]
    fn each_moment_is_in_one_sum() {
        let stage = Stage::default();
        for (activity, seconds) in [
            (Activity::Starved, 1),
            (Activity::Busy, 2),
            (Activity::Busy, 3),
            (Activity::Blocked, 4),
            (Activity::Starved, 6),
        ] {
            stage.turn(activity);
            stage.0.lock().unwrap().since -= Duration::from_secs(seconds);
        }
        stage.did(7);
        let StageStatus {
            events,
            busy_us,
            starved_us,
            blocked_us,
        } = stage.status();
        assert_eq!(events, 7);
        let seconds = [busy_us, starved_us, blocked_us].map(|us| us / 1_000_000);
        assert_eq!(seconds, [5, 7, 4]);
    }

    #[test]
    fn work_that_is_told_afterwards_is_taken_from_what_was_thought() {
        let stage = Stage::default();
        stage.0.lock().unwrap().since -= Duration::from_secs(10);
        stage.worked(Duration::from_secs(4), 3);
        stage.worked(Duration::from_secs(4), 1);
        let status = stage.status();
        assert_eq!(status.events, 4);
        assert_eq!(status.starved_us / 1_000_000, 6);
        assert_eq!(
            status.busy_us / 1_000_000,
            4,
            "no moment counts twice: {status:?}"
        );
    }
}
