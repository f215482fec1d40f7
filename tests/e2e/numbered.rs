//! Events with numbers, each fired once: what is in Redis says what was lost, repeated or taken out of order.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jackfield::simulator::{Event, Simulator};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::harness::{Redis, Setup, jackfield, wait_for};

/// Where they go without settings.
pub(crate) const STREAM: &str = "freeswitch:telephony:events";

/// What the host asks for on its connection for commands.
pub(crate) const FOR_COMMANDS: &str = "event json BACKGROUND_JOB HEARTBEAT";

/// An event of a custom subclass with its number.
pub(crate) fn event(number: u64) -> Event {
    let event = Event::new("CUSTOM").header("Event-Subclass", "test::numbered");
    event.header("Number", number.to_string())
}

pub(crate) fn fire(switch: &Simulator, numbers: std::ops::Range<u64>) {
    for number in numbers {
        switch.fire(event(number));
    }
}

/// What the host asked on its connections for events, one after the other.
pub(crate) fn asked(switch: &Simulator) -> Vec<Vec<String>> {
    let mut conversations = switch.conversations();
    // The first connection is one for events; of the others, those that have not asked for any yet may be of either kind.
    let mut is_first = true;
    conversations.retain(|commands| {
        let for_commands = commands.len() < 2 || commands.contains(&FOR_COMMANDS.to_owned());
        std::mem::take(&mut is_first) || !for_commands
    });
    conversations
}

/// The numbers in a stream, in its order.
pub(crate) fn in_stream(redis: &Redis, stream: &str) -> Vec<u64> {
    let number = |event: &serde_json::Value| event["Number"].as_str().unwrap().parse().unwrap();
    redis.events(stream).iter().map(number).collect()
}

/// The stream must have exactly these numbers in this order.
#[track_caller]
pub(crate) fn check(redis: &Redis, stream: &str, expected: impl IntoIterator<Item = u64>) {
    let found = in_stream(redis, stream);
    let expected: Vec<u64> = expected.into_iter().collect();
    let place = found
        .iter()
        .zip(&expected)
        .position(|(found, expected)| found != expected);
    let place = place.unwrap_or(found.len().min(expected.len()));
    let near = |numbers: &[u64]| {
        numbers
            .iter()
            .skip(place)
            .take(5)
            .copied()
            .collect::<Vec<_>>()
    };
    let (is, should) = (near(&found), near(&expected));
    assert!(
        found == expected,
        "{stream}: {} numbers instead of {}; at place {place} {is:?} instead of {should:?}",
        found.len(),
        expected.len()
    );
}

/// The numbers of the events in a journal, in its order, as `jackfield journal export` tells.
#[track_caller]
pub(crate) fn in_journal(setup: &Setup) -> Vec<u64> {
    let journal = setup.journal();
    let output = Command::new(jackfield())
        .args(["journal", "export", "--json"])
        .arg(&journal)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let records = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let number = |record: Value| record["event"]["Number"].as_str()?.parse().ok();
    records.filter_map(number).collect()
}

/// Waits until the stream has grown by more than so many events.
#[track_caller]
pub(crate) fn wait_growth(redis: &Redis, by: u64) {
    let before: u64 = redis.ask(&["XLEN", STREAM]);
    wait_for("the stream grows", || {
        (redis.ask::<u64>(&["XLEN", STREAM]) > before + by).then_some(())
    });
}

/// A load that goes on in the background until it is stopped: some thousand events a second.
pub(crate) struct Firing {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Firing {
    pub(crate) fn start(switch: &Arc<Simulator>) -> Firing {
        let stop = Arc::new(AtomicBool::new(false));
        let (switch, stopped) = (Arc::clone(switch), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut next = 0;
            while !stopped.load(Ordering::Relaxed) {
                fire(&switch, next..next + 5);
                next += 5;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            next
        });
        Firing { stop, task }
    }

    /// Ends it. How many events there were.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}
