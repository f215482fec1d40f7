//! As much as goes through: all at once, after an outage, and what Redis alone would take from its own benchmark.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::prepared::CHANNEL_ANSWER;
use crate::stand::{LIMIT, Stand};
use crate::store::{STREAM, Store};
use crate::subject::{Built, Cpu, MAX_LEN, Subject};

/// What came of sending as fast as it is taken.
#[derive(Debug, Clone, Copy)]
pub struct Through {
    /// Events a second, from the first byte sent to the last entry in Redis.
    pub per_second: f64,
    /// The processor time that the subject took for an event, in microseconds.
    pub cpu_us: f64,
    /// The processor time that redis-server took for one.
    pub redis_cpu_us: f64,
}

/// Sends so many events at once.
pub fn through(built: &Built, subject: &Subject, events: u64) -> Through {
    // What runs before left to be written would be written during this one: half a gigabyte each.
    let synced = Command::new("sync").status();
    assert!(synced.expect("sync runs").success(), "the disk is there");
    let mut stand = Stand::up(built, subject, CHANNEL_ANSWER, MAX_LEN);
    let before = stand.added();
    let used = (stand.running.cpu(), Cpu::of(stand.store.pid()));
    let started = Instant::now();
    let sent = stand.switch.send_at_once(events);
    sent.expect("the subject reads");
    stand.wait_for(before + events);
    let took = started.elapsed();
    let an_event = |time: Duration| time.as_secs_f64() * 1e6 / events as f64;
    Through {
        per_second: events as f64 / took.as_secs_f64(),
        cpu_us: an_event(stand.running.cpu().since(&used.0)),
        redis_cpu_us: an_event(Cpu::of(stand.store.pid()).since(&used.1)),
    }
}

/// What redis-benchmark gets through with the same entries: one connection, 64 at a time.
pub fn redis_alone(events: u64) -> f64 {
    let store = Store::start();
    let (port, events, max_len) = (
        store.port.to_string(),
        events.to_string(),
        MAX_LEN.to_string(),
    );
    let output = Command::new("redis-benchmark")
        .args(["-p", &port, "-c", "1", "-P", "64", "-n", &events, "-q"])
        .args([
            "XADD",
            STREAM,
            "MAXLEN",
            "~",
            &max_len,
            "*",
            "event",
            CHANNEL_ANSWER,
        ])
        .output()
        .expect("redis-benchmark comes with redis-server");
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = rate(&text);
    rate.unwrap_or_else(|| panic!("redis-benchmark says {text:?}"))
}

/// What redis-benchmark found, in its last line.
fn rate(text: &str) -> Option<f64> {
    let (before, _) = text.rsplit_once(" requests per second")?;
    before.rsplit(' ').next()?.parse().ok()
}

/// How fast a backlog goes while events go on coming, as a multiple of their rate. The time counts from Redis' first entry after the
/// outage to the moment at which no more is waiting than came in a tenth of a second.
pub fn drain(built: &Built, subject: &Subject, backlog: u64, live_a_second: u64) -> f64 {
    let mut stand = Stand::up(built, subject, CHANNEL_ANSWER, MAX_LEN);
    stand.store.kill();
    let held = stand.switch.send_at_once(backlog);
    held.expect("the subject reads while Redis is away");
    stand.store.start_again();
    stand.connect_again();
    // Live events come from now on, beside the drain, for as long as that may take.
    let live = Instant::now();
    let (mut first, mut sent) = (None, 0);
    loop {
        let due = (live.elapsed().as_secs_f64() * live_a_second as f64) as u64;
        if due > sent {
            let more = stand.switch.send_at_once(due - sent);
            more.expect("the subject reads");
            sent = due;
        }
        let added = stand.added();
        if added > 0 && first.is_none() {
            first = Some((Instant::now(), added));
        }
        if let Some((began, there)) = first
            && added + live_a_second / 10 >= backlog + sent
        {
            let entries = (added - there) as f64;
            return entries / began.elapsed().as_secs_f64() / live_a_second as f64;
        }
        assert!(
            live.elapsed() < LIMIT,
            "{added} of {backlog} after {LIMIT:?}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn the_last_rate_is_the_result() {
        let text = "XADD a: rps=0.0 (overall: 1.5)\rXADD a {\"b\": 1}: 98765.43 requests per second, p50=0.5 msec\n\n";
        assert_eq!(rate(text), Some(98_765.43));
        assert_eq!(rate("ERR unknown command"), None);
    }
}
