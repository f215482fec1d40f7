//! How values of the last seconds are distributed.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram as Hdr;

/// What is told is of this window and the one before it.
const WINDOW: Duration = Duration::from_secs(5);

/// What was recorded in this window and the one before it, to two digits. Whoever records says when time has passed, so that a
/// record costs no look at the clock.
#[derive(Debug)]
pub struct Window {
    now: Hdr<u64>,
    before: Hdr<u64>,
    since: Instant,
}

impl Window {
    /// For values from 1 to `max`; what is above counts as `max`.
    pub fn new(max: u64) -> Window {
        #[expect(
            clippy::expect_used,
            reason = "the bounds are constants that the constructor takes"
        )]
        let hdr = || Hdr::new_with_bounds(1, max, 2).expect("from 1 to far more, in two digits");
        Window {
            now: hdr(),
            before: hdr(),
            since: Instant::now(),
        }
    }

    /// A value, now.
    pub fn record(&mut self, value: u64) {
        self.now.saturating_record(value);
    }

    /// It is so late; windows that are over go.
    pub fn turn(&mut self, at: Instant) {
        let age = at.saturating_duration_since(self.since);
        if age < WINDOW {
            return;
        }
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.reset();
        if age >= 2 * WINDOW {
            self.before.reset();
        }
        self.since = at;
    }

    /// Half were below the first, one in a hundred above the second; 0 where nothing was recorded.
    pub fn p50_p99(&self) -> (u64, u64) {
        let mut both = self.before.clone();
        // Both have the same bounds, so nothing can be out of range.
        let _added = both.add(&self.now);
        (both.value_at_quantile(0.5), both.value_at_quantile(0.99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_for_one_to_two_windows() {
        let mut window = Window::new(1_000_000);
        assert_eq!(window.p50_p99(), (0, 0));
        (1..=100).for_each(|value| window.record(value));
        assert_eq!(window.p50_p99(), (50, 99));
        let start = window.since;
        window.turn(start + WINDOW / 2);
        window.record(1_000);
        window.turn(start + WINDOW);
        assert_eq!(window.p50_p99().0, 51, "the window before counts");
        window.turn(start + 2 * WINDOW);
        assert_eq!(window.p50_p99(), (0, 0));
    }

    #[test]
    fn after_a_long_silence_nothing_is_told() {
        let mut window = Window::new(1_000_000);
        window.record(7);
        let start = window.since;
        window.turn(start + 3 * WINDOW);
        assert_eq!(window.p50_p99(), (0, 0));
    }
}
