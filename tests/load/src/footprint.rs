//! What a subject takes while it does nothing, while it holds a backlog, and in Redis.

use std::time::Duration;

use crate::prepared::{CHANNEL_ANSWER, SMALL};
use crate::stand::Stand;
use crate::store::{STREAM, ask};
use crate::subject::{Built, MAX_LEN, Running, Subject};

/// So many events a second make a backlog: what comes faster than two shared processors can journal would be lost, oldest first.
const BACKLOG_RATE: u64 = 100_000;

/// Entries whose size is taken.
const ENTRIES: u64 = 4_000;

/// The share of one processor that a subject takes while no event comes.
pub fn idle(built: &Built, subject: &Subject, seconds: u64) -> f64 {
    let stand = Stand::up(built, subject, CHANNEL_ANSWER, MAX_LEN);
    // What the warm-up left behind is done.
    std::thread::sleep(Duration::from_secs(2));
    let before = stand.running.cpu();
    let watched = Duration::from_secs(seconds);
    std::thread::sleep(watched);
    stand.running.cpu().since(&before).as_secs_f64() / watched.as_secs_f64()
}

/// Bytes in memory.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Events that waited.
    pub backlog: u64,
    /// All that is resident.
    pub resident: u64,
    /// The part that is no file's: what was allocated.
    pub anonymous: u64,
}

/// What is resident as a backlog grows: without one, and after each of so many steps. Redis is away; the events are small, so that
/// their number counts and not the disk.
pub fn memory(built: &Built, subject: &Subject, steps: u64, events: u64) -> Vec<Memory> {
    let mut stand = Stand::up(built, subject, SMALL, MAX_LEN);
    stand.store.kill();
    let mut found = vec![look(&stand.running, 0)];
    for step in 1..=steps {
        let sent = stand.switch.send_paced(events / steps, BACKLOG_RATE);
        sent.expect("the subject reads while Redis is away");
        // Until it has read and journaled what was sent.
        let expected = step * (events / steps);
        while pending(&stand.running) < expected {
            std::thread::sleep(Duration::from_millis(20));
        }
        found.push(look(&stand.running, expected));
    }
    found
}

fn look(running: &Running, backlog: u64) -> Memory {
    let (resident, anonymous) = running.resident();
    Memory {
        backlog,
        resident,
        anonymous,
    }
}

fn pending(running: &Running) -> u64 {
    let status = running.status();
    assert_eq!(status["counts"]["lost"], 0, "the journal holds all");
    status["counts"]["pending"].as_u64().unwrap_or_default()
}

/// The bytes that Redis holds for an entry of the event: what `MEMORY USAGE` of the whole stream says, divided. `node_bytes` is what
/// Redis puts into one node of a stream, where it is not its default.
pub fn entry_bytes(built: &Built, subject: &Subject, node_bytes: Option<u64>) -> f64 {
    let mut stand = Stand::up(built, subject, CHANNEL_ANSWER, 0);
    if let Some(bytes) = node_bytes {
        let set = ["CONFIG", "SET", "stream-node-max-bytes", &bytes.to_string()];
        let () = ask(&mut stand.store.connect(), &set);
    }
    let usage = ["MEMORY", "USAGE", STREAM, "SAMPLES", "0"];
    let mut connection = stand.store.connect();
    let empty: u64 = ask(&mut connection, &usage);
    let before = stand.added();
    let sent = stand.switch.send_at_once(ENTRIES);
    sent.expect("the subject reads");
    stand.wait_for(before + ENTRIES);
    let full: u64 = ask(&mut connection, &usage);
    (full - empty) as f64 / ENTRIES as f64
}

/// How often a host's filter was called while events went through.
pub fn calls(built: &Built, subject: &Subject, file: &str) -> f64 {
    let stand = Stand::up(built, subject, CHANNEL_ANSWER, MAX_LEN);
    let status = stand.running.status();
    let filters = status["filters"].as_array().expect("a host has filters");
    let filter = filters.iter().find(|filter| filter["file"] == file);
    let calls = filter.and_then(|filter| filter["tally"]["calls"].as_f64());
    calls.expect("the filter runs")
}
