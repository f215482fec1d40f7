//! When to try again. Pure: it is told what happened and gives a delay.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

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
}
