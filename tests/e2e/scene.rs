//! What the tests of filters share: a ready host, numbered events, and the check that each arrived once and in order.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use jackfield::simulator::{Event, Settings, Simulator};
use serde_json::Value;

use crate::harness::{Host, Redis, Setup, component};

pub const EVENTS: &str = "freeswitch:telephony:events";
pub const DEAD: &str = "freeswitch:telephony:dead";

/// How soon a change in the folder of filters must be live.
pub const LIVE: Duration = Duration::from_secs(2);

/// A simulated FreeSWITCH that sends nothing but what a test fires.
pub async fn quiet_switch() -> Simulator {
    Simulator::start(Settings {
        heartbeat: Duration::ZERO,
        // A command of the host's own would be an API event.
        has_commands: false,
        ..Settings::default()
    })
    .await
    .unwrap()
}

/// A host that is ready, between a quiet switch and a Redis of its own.
pub struct Scene {
    pub switch: Arc<Simulator>,
    pub redis: Redis,
    pub host: Host,
    next: u64,
}

impl Scene {
    /// `prepare` adds filters and settings. Filters have a second for a call, as these tests share two cores.
    pub async fn start(prepare: impl FnOnce(Setup) -> Setup) -> Scene {
        let (switch, redis) = (Arc::new(quiet_switch().await), Redis::start());
        let setup = Setup::new(switch.addr(), &redis)
            .env("EVENTS_MAX_LEN", "0")
            .env("JACKFIELD_FILTERS_DEADLINE", "1s");
        let host = prepare(setup).start();
        host.wait_ready();
        Scene {
            switch,
            redis,
            host,
            next: 0,
        }
    }

    /// Stops the host, and goes on with the one that `start` makes of its folder.
    pub fn restart(self, start: impl FnOnce(Setup) -> Host) -> Scene {
        self.restart_after(Host::stop, start)
    }

    /// The same with `kill -9`.
    pub fn restart_killed(self, start: impl FnOnce(Setup) -> Host) -> Scene {
        self.restart_after(Host::kill, start)
    }

    fn restart_after(self, end: fn(Host) -> Setup, start: impl FnOnce(Setup) -> Host) -> Scene {
        let host = start(end(self.host));
        host.wait_ready();
        Scene { host, ..self }
    }

    /// Fires so many CHANNEL_ANSWER, each with the next `Number`.
    pub fn fire(&mut self, count: u64) {
        for _ in 0..count {
            self.switch.fire(numbered(self.next));
            self.next += 1;
        }
    }

    /// Fires a numbered CHANNEL_ANSWER every millisecond until it is stopped.
    pub fn fire_steadily(&mut self) -> Firing {
        let stop = Arc::new(AtomicBool::new(false));
        let (switch, stopped, first) = (Arc::clone(&self.switch), Arc::clone(&stop), self.next);
        let thread = std::thread::spawn(move || {
            let mut next = first;
            while !stopped.load(Ordering::Relaxed) {
                switch.fire(numbered(next));
                next += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            next
        });
        Firing { stop, thread }
    }

    /// So many numbered events were fired.
    pub fn fired(&self) -> u64 {
        self.next
    }

    pub fn stop(&mut self, firing: Firing) {
        firing.stop.store(true, Ordering::Relaxed);
        self.next = firing.thread.join().unwrap();
    }

    /// Waits until all that the switch sent is settled; the accounts must balance. Gives `/status`.
    #[track_caller]
    pub fn settle(&self) -> Value {
        self.host.wait_settled(self.switch.sent().queued)
    }

    /// Settles, and checks that every numbered event is in the events stream, once, in order. Gives these events.
    #[track_caller]
    pub fn all_delivered(&self) -> Vec<Value> {
        let status = self.settle();
        let events = self.redis.events(EVENTS);
        let numbers: Vec<u64> = events.iter().filter_map(number).collect();
        let expected: Vec<u64> = (0..self.next).collect();
        assert!(
            numbers == expected,
            "each of {} once and in order, not {}\n{status:#}",
            self.next,
            differences(&numbers, &expected)
        );
        events
    }

    /// The hostile filter as a file of its own for each `build`: a section that nothing reads changes its digest.
    pub fn build(&self, build: u8) -> PathBuf {
        let mut bytes = fs::read(component("hostile")).unwrap();
        bytes.extend([0, 3, 1, b'b', build]);
        let path = self.host.dir().join(format!("build-{build}.wasm"));
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The newest event of the events stream.
    pub fn newest(&self) -> Option<Value> {
        let newest: Vec<(String, Vec<(String, String)>)> =
            self.redis
                .ask(&["XREVRANGE", EVENTS, "+", "-", "COUNT", "1"]);
        serde_json::from_str(&newest.first()?.1.first()?.1).ok()
    }

    /// The metric of one filter with one more label, 0 while it does not exist.
    pub fn metric(&self, name: &str, labels: &str) -> u64 {
        self.host
            .metric(&format!("{name}{{{labels}}}"))
            .unwrap_or_default() as u64
    }
}

/// A load that goes on.
pub struct Firing {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

/// Settings of a hostile filter that writes this into `X-Version`.
pub fn versioned(version: &str) -> String {
    format!("attack = \"version\"\nversion = \"{version}\"\n")
}

pub fn numbered(number: u64) -> Event {
    Event::new("CHANNEL_ANSWER").header("Number", number.to_string())
}

pub fn number(event: &Value) -> Option<u64> {
    event["Number"].as_str()?.parse().ok()
}

/// The values of a header that all these events have, each run of equal ones as one.
pub fn runs(events: &[Value], header: &str) -> Vec<String> {
    let mut runs: Vec<String> = events
        .iter()
        .map(|event| event[header].as_str().unwrap_or("none").to_owned())
        .collect();
    runs.dedup();
    runs
}

fn differences(numbers: &[u64], expected: &[u64]) -> String {
    let at = numbers
        .iter()
        .zip(expected)
        .position(|(one, other)| one != other);
    let at = at.unwrap_or(numbers.len().min(expected.len()));
    let near = &numbers[at.saturating_sub(3)..numbers.len().min(at + 5)];
    format!(
        "{} events that differ from place {at} on: … {near:?} …",
        numbers.len()
    )
}
