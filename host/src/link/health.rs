//! What a link is worth, from 0 to 100, with the terms that it is made of, so that it can be recomputed by hand:
//!
//! ```text
//! 100 − 60 if it is not up − 10 a missed heartbeat (30 at most)
//!     − 10 a loss, halving every 10 minutes (30 at most) − 20 if it is more than 5 s behind
//! ```

use std::time::Duration;

use serde::Serialize;

use super::Snapshot;

/// In this time a loss comes to weigh half.
const HALVING: Duration = Duration::from_secs(600);
/// What is older than this is late.
const MAX_LAG: Duration = Duration::from_secs(5);

/// A value and what was subtracted to get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// From 0, useless, to 100.
    pub value: u8,
    /// The same in a word.
    pub level: Level,
    /// What is missing from 100.
    pub minus: Minus,
}

/// The terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Minus {
    /// 60 if it is not up.
    pub not_ready: u8,
    /// 10 for each that is due and did not come.
    pub missed_heartbeats: u8,
    /// 10 for each, less the older it is.
    pub losses: u8,
    /// 20 if it is too far behind.
    pub lag: u8,
}

/// How good a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// 80 and more.
    Green,
    /// 50 and more.
    Orange,
    /// Less.
    Red,
}

impl Level {
    /// Of a value from 0 to 100.
    pub fn of(value: u8) -> Level {
        match value {
            80.. => Level::Green,
            50.. => Level::Orange,
            _ => Level::Red,
        }
    }
}

impl Default for Health {
    fn default() -> Health {
        Health::less(Minus::default())
    }
}

impl Health {
    pub(super) fn of(link: &Snapshot, now_us: u64) -> Health {
        let is_up = link.state.is_up();
        let missed = link.heard_us.zip(link.heartbeat_us).filter(|_| is_up);
        let missed = missed.map_or(0, |(heard, every)| {
            now_us.saturating_sub(heard) / every.max(1)
        });
        let losses = link.losses_at_us.iter().map(|at_us| {
            let age = Duration::from_micros(now_us.saturating_sub(*at_us));
            10.0 * 0.5_f64.powf(age.as_secs_f64() / HALVING.as_secs_f64())
        });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 30"
        )]
        let losses = losses.sum::<f64>().min(30.0).round() as u8;
        let is_late = link
            .lag_us
            .is_some_and(|lag_us| Duration::from_micros(lag_us) > MAX_LAG);
        Health::less(Minus {
            not_ready: if is_up { 0 } else { 60 },
            missed_heartbeats: u8::try_from(missed.min(3)).unwrap_or(3) * 10,
            losses,
            lag: if is_late { 20 } else { 0 },
        })
    }

    fn less(minus: Minus) -> Health {
        let Minus {
            not_ready,
            missed_heartbeats,
            losses,
            lag,
        } = minus;
        let all = [not_ready, missed_heartbeats, losses, lag];
        let value = 100_u8.saturating_sub(all.into_iter().sum());
        Health {
            value,
            level: Level::of(value),
            minus,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Health, Level, Minus};
    use crate::link::{Fault, Link, Snapshot, State};

    const MINUTE: u64 = 60_000_000;

    fn up() -> Snapshot {
        let link = Link::new("esl", String::new(), 15);
        link.ready();
        link.snapshot()
    }

    fn check(link: &Snapshot, after_us: u64, minus: Minus, value: u8) {
        let health = Health::of(link, link.since_us + after_us);
        assert_eq!((health.minus, health.value), (minus, value));
        assert_eq!(health.level, Level::of(value));
    }

    #[test]
    fn a_link_that_is_up_and_was_never_lost_is_worth_100() {
        check(&up(), MINUTE, Minus::default(), 100);
        let waiting = Link::new("esl", String::new(), 15);
        waiting.waiting("refused", Fault::Peer, Duration::ZERO);
        let not_ready = Minus {
            not_ready: 60,
            ..Minus::default()
        };
        check(&waiting.snapshot(), 0, not_ready, 40);
    }

    #[test]
    fn losses_weigh_less_the_older_they_are() {
        let mut link = up();
        let at = link.since_us;
        for (losses, minutes, term) in [
            (1, 0, 10),
            (1, 10, 5),
            (1, 20, 3),
            (2, 10, 10),
            (9, 0, 30),
            (9, 60, 1),
        ] {
            link.losses_at_us = std::iter::repeat_n(at, losses).collect();
            let minus = Minus {
                losses: term,
                ..Minus::default()
            };
            check(&link, minutes * MINUTE, minus, 100 - term);
        }
    }

    #[test]
    fn heartbeats_that_are_due_are_missed_while_it_is_up() {
        let mut link = up();
        link.heartbeat_us = Some(20_000_000);
        for (seconds, missed) in [(19, 0), (20, 10), (45, 20), (600, 30)] {
            let minus = Minus {
                missed_heartbeats: missed,
                ..Minus::default()
            };
            check(&link, seconds * 1_000_000, minus, 100 - missed);
        }
        link.state = State::Waiting;
        check(
            &link,
            600_000_000,
            Minus {
                not_ready: 60,
                ..Minus::default()
            },
            40,
        );
    }

    #[test]
    fn everything_at_once_is_not_below_0() {
        let mut link = up();
        link.lag_us = Some(5_000_000);
        check(&link, 0, Minus::default(), 100);
        link.lag_us = Some(5_000_001);
        check(
            &link,
            0,
            Minus {
                lag: 20,
                ..Minus::default()
            },
            80,
        );
        link.state = State::Connecting;
        link.losses_at_us = [link.since_us; 4].into();
        let minus = Minus {
            not_ready: 60,
            losses: 30,
            lag: 20,
            missed_heartbeats: 0,
        };
        check(&link, 0, minus, 0);
    }
}
