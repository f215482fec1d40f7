//! When each event is to be sent: fixed beforehand, whatever happens to those before it. That is what makes a load open.
//!
//! Latency counts from these times and not from when the event was really sent; otherwise a receiver that holds the sender up
//! would make its own bad moments disappear ("coordinated omission").

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

/// No latency is longer; one that is counts as this.
const LONGEST_US: u64 = 600_000_000;

/// Times that never jump, in microseconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    started_us: u64,
}

impl Clock {
    /// Reads the wall clock, once.
    pub fn start() -> Clock {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Clock {
            started: Instant::now(),
            started_us: us(since.expect("a clock after 1970")),
        }
    }

    /// Now.
    pub fn now_us(&self) -> u64 {
        self.started_us + us(self.started.elapsed())
    }
}

/// So many events a second, from a moment on.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    begins_us: u64,
    per_second: u64,
}

impl Schedule {
    /// The first event is due at `begins_us`.
    pub fn new(begins_us: u64, per_second: u64) -> Schedule {
        Schedule {
            begins_us,
            per_second,
        }
    }

    /// When the event at this place, counted from 0, is due.
    pub fn due_us(&self, at: u64) -> u64 {
        self.begins_us + at * 1_000_000 / self.per_second
    }

    /// How many events are due by now.
    pub fn due_by(&self, now_us: u64) -> u64 {
        let Some(since) = now_us.checked_sub(self.begins_us) else {
            return 0;
        };
        // The inverse of `due_us`, which rounds down: all places n with n * 1,000,000 / per_second < since + 1.
        ((since + 1) * self.per_second).div_ceil(1_000_000)
    }
}

/// An empty histogram of microseconds. It does not grow by itself: of those that do, `saturating_record` makes everything the least.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("these bounds are valid")
}

/// Whole microseconds.
pub fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_US, Schedule, latencies};

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut histogram = latencies();
        for us in 1..=100_000 {
            histogram.saturating_record(us);
        }
        let close = |quantile, expected: u64| {
            let found = histogram.value_at_quantile(quantile);
            assert!(found.abs_diff(expected) * 1_000 <= expected, "{found}");
        };
        close(0.5, 50_000);
        close(0.99, 99_000);
        histogram.saturating_record(u64::MAX);
        assert!(histogram.max() >= LONGEST_US, "the longest is not lost");
    }

    #[test]
    fn an_event_is_due_from_its_own_time_on() {
        for per_second in [1, 3, 997, 1_000, 10_000, 64_000] {
            let schedule = Schedule::new(5_000, per_second);
            assert_eq!(schedule.due_by(4_999), 0, "nothing before the beginning");
            for at in 0..2_000 {
                let due = schedule.due_us(at);
                assert!(
                    schedule.due_by(due) > at,
                    "{per_second}/s: {at} is due at {due}"
                );
                assert!(
                    schedule.due_by(due - 1) <= at,
                    "{per_second}/s: {at} is not due before {due}"
                );
            }
        }
    }

    #[test]
    fn the_rate_is_kept_over_a_long_time() {
        let schedule = Schedule::new(0, 10_000);
        assert_eq!(schedule.due_us(36_000_000), 3_600_000_000);
    }
}
