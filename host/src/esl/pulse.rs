//! The pulse of a peer: how often its heartbeats come, and so how long a silence may last.

use std::time::Duration;

use memchr::memmem;

use crate::clock;
use crate::link::Link;

/// FreeSWITCH's `event-heartbeat-interval` unless its heartbeats show another one.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// What outlives a connection.
#[derive(Debug)]
pub(super) struct Pulse {
    /// How many connections there were.
    pub(super) connection: u32,
    interval: Duration,
    last_us: Option<u64>,
    /// The connection before was lost to silence: the next one counts as ready only when an event comes.
    pub(super) doubted: bool,
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse {
            connection: 0,
            interval: HEARTBEAT,
            last_us: None,
            doubted: false,
        }
    }
}

impl Pulse {
    pub(super) fn limit(&self) -> Duration {
        self.interval.mul_f64(2.5)
    }

    /// A new connection: the time since the heartbeat before it is no interval.
    pub(super) fn restart(&mut self) {
        self.connection += 1;
        self.last_us = None;
    }

    /// Looks at an event; the link hears of each heartbeat.
    pub(super) fn hear(&mut self, event: &[u8], link: &Link) {
        if let Some(us) = self.observe(event) {
            link.heartbeat(self.interval);
            link.lag(clock::now_us().saturating_sub(us));
        }
    }

    /// Learns the interval from the dates of two heartbeats in a row, not from their arrival: after a freeze many come at once.
    fn observe(&mut self, event: &[u8]) -> Option<u64> {
        let us = heartbeat_us(event)?;
        if let Some(gap) = self
            .last_us
            .replace(us)
            .and_then(|last| us.checked_sub(last))
        {
            self.interval = Duration::from_micros(gap)
                .clamp(Duration::from_millis(200), Duration::from_secs(300));
        }
        Some(us)
    }
}

/// The `Event-Date-Timestamp` of a HEARTBEAT, without parsing any other event.
fn heartbeat_us(event: &[u8]) -> Option<u64> {
    let is_one = event.starts_with(b"{\"Event-Name\":\"HEARTBEAT\"")
        || event.starts_with(b"Event-Name: HEARTBEAT\n");
    if !is_one {
        return None;
    }
    let start = memmem::find(event, b"Event-Date-Timestamp")?;
    let digits = event
        .get(start..)?
        .iter()
        .skip_while(|byte| !byte.is_ascii_digit());
    digits
        .take_while(|byte| byte.is_ascii_digit())
        .try_fold(0_u64, |value, digit| {
            value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Pulse;

    #[test]
    fn the_heartbeat_interval_is_learnt_from_the_dates() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.limit(), Duration::from_secs(50));
        pulse.observe(
            b"{\"Event-Name\":\"HEARTBEAT\",\"Event-Date-Timestamp\":\"1795221302195132\"}",
        );
        pulse.observe(b"{\"Event-Name\":\"DTMF\",\"Event-Date-Timestamp\":\"1795221302195139\"}");
        pulse.observe(
            b"Event-Name: HEARTBEAT\nEvent-Date-Timestamp: 1795221304195132\nEvent-Sequence: 1\n\n",
        );
        assert_eq!(pulse.limit(), Duration::from_secs(5));
        pulse.restart();
        pulse.observe(b"Event-Name: HEARTBEAT\nEvent-Date-Timestamp: 1795221904195132\n\n");
        let limit = pulse.limit();
        assert_eq!(limit, Duration::from_secs(5), "an outage is no interval");
    }
}
