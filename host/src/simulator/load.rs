//! Placing calls: how fast events come, and how many calls go on at once.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::switch::Switch;

/// How many events are fired before other tasks get their turn.
const BURST: u64 = 64;
/// The pause of a paced load; what was due meanwhile comes at once, as from a real switch.
const PAUSE: Duration = Duration::from_millis(2);

/// What `place_calls` is to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Events per second. 0: as fast as the listeners take them, waiting for them instead of dropping.
    pub rate: f64,
    /// How many events to fire; `None` for ever.
    pub events: Option<u64>,
    /// How many calls (and other happenings) go on at the same time, at least one.
    pub calls_at_once: usize,
}

impl Default for Load {
    /// A small switch on a quiet day: 100 events a second of ten calls, for ever.
    fn default() -> Load {
        Load {
            rate: 100.0,
            events: None,
            calls_at_once: 10,
        }
    }
}

/// Fires the load's events and returns how many they were.
pub(super) async fn place(switch: &Switch, load: Load) -> u64 {
    let total = load.events.unwrap_or(u64::MAX);
    let started = Instant::now();
    let mut fired = 0;
    while fired < total {
        let is_paced = load.rate > 0.0;
        let due = if is_paced {
            due_at(load.rate, started.elapsed()).min(total)
        } else {
            room(switch).await;
            total
        };
        let until = due.min(fired.saturating_add(BURST));
        while fired < until && (is_paced || switch.is_comfortable()) {
            switch.play(load.calls_at_once);
            fired += 1;
        }
        if is_paced && fired == due && fired < total {
            sleep(PAUSE).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    fired
}

/// How many events a load of that rate has fired after that time.
fn due_at(rate: f64, elapsed: Duration) -> u64 {
    // Whole nanoseconds between two events: no event rate that makes sense here is hurt by the rounding.
    let between = Duration::try_from_secs_f64(1.0 / rate)
        .unwrap_or(Duration::MAX)
        .as_nanos()
        .max(1);
    u64::try_from(elapsed.as_nanos() / between).unwrap_or(u64::MAX)
}

/// Waits until every listener has room.
async fn room(switch: &Switch) {
    loop {
        let room = switch.room.notified();
        tokio::pin!(room);
        room.as_mut().enable();
        if switch.is_comfortable() {
            return;
        }
        room.await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::due_at;

    #[test]
    fn a_rate_says_how_many_events_are_due() {
        assert_eq!(due_at(1_000.0, Duration::from_millis(500)), 500);
        assert_eq!(due_at(0.5, Duration::from_secs(4)), 2);
        assert_eq!(
            due_at(1e12, Duration::from_nanos(10)),
            10,
            "at most one a nanosecond"
        );
    }
}
