//! A backlog far larger than memory: it waits in the journal, memory stays bounded, and Redis gets all of it in order. What arrives
//! is journaled whatever the filters take.

use std::sync::Arc;
use std::time::Duration;

use jackfield::journal::EPOCH;
use jackfield::simulator::Simulator;
use serde_json::Value;

use crate::harness::{DURABLE, Host, Redis, Setup};
use crate::numbered::{self, STREAM};
use crate::scene::quiet_switch;

/// Events before Redis goes away.
const FIRST: u64 = 100;
/// The last event of the backlog: sixty times as much as what may be held in memory, in events.
const BACKLOG: u64 = FIRST + 60_000;
/// Events that come while Redis gets the backlog.
const MEANWHILE: u64 = 3_000;
/// Of headers, so that an event has about a kilobyte.
const PADDING: usize = 400;
/// What a backlog of any size may cost in memory, in KiB.
const MEMORY_KIB: u64 = 32 << 10;

/// Segments of 32 MiB, so that the journal grows visibly.
fn setup(switch: &Simulator, redis: &Redis) -> Setup {
    Setup::new(switch.addr(), redis)
        .env("REDIS_REMOTE_WRITE_TIMEOUT", "1s")
        .env("EVENTS_MAX_LEN", "0")
        .env("ESL_RECONNECT_DELAY", "50ms")
        .config("[journal]\nmax_size = \"256MiB\"\n")
}

/// A host that has brought its first events to a Redis that is away now.
async fn host_without_redis() -> (Arc<Simulator>, Redis, Host) {
    let (switch, mut redis) = (Arc::new(quiet_switch().await), Redis::start_with(&DURABLE));
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    fire(&switch, 0..FIRST);
    host.wait_settled(FIRST);
    redis.kill();
    host.wait_redis_away();
    (switch, redis, host)
}

fn fire(switch: &Simulator, numbers: std::ops::Range<u64>) {
    let padding = "x".repeat(PADDING);
    for number in numbers {
        switch.fire(numbered::event(number).header("Padding", &*padding));
    }
}

/// Fires these events, and waits until so many inputs are in the journal since the host started: what was merely received
/// may still be on its way there.
#[track_caller]
fn pile_up(host: &Host, switch: &Simulator, numbers: std::ops::Range<u64>, inputs: u64) -> Value {
    fire(switch, numbers);
    let status = host.wait_status("all is in the journal", |status| {
        let last = status["journal"]["last"].as_u64().unwrap();
        last % EPOCH + 1 == inputs
    });
    assert_eq!(status["counts"]["balanced"], true, "{status:#}");
    status
}

/// The resident memory, in KiB.
fn memory(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let size = line.unwrap().trim().strip_suffix(" kB").unwrap();
    size.parse().unwrap()
}

/// Redis comes back while events go on: after that it has everything, in order, each once, and nothing waits. `inputs` is
/// what the host has by then.
async fn come_back(host: &Host, switch: &Simulator, redis: &mut Redis, inputs: u64) {
    redis.up();
    let end = BACKLOG + MEANWHILE;
    for first in (BACKLOG..end).step_by(50) {
        fire(switch, first..first + 50);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = host.wait_settled(inputs);
    numbered::check(redis, STREAM, 0..end);
    assert_eq!(status["counts"]["lost"], 0, "{status:#}");
    assert_eq!(status["journal"]["waiting"], 0, "{status:#}");
    host.wait_ready();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_costs_disk_and_no_memory_and_arrives_in_order() {
    let (switch, mut redis, host) = host_without_redis().await;
    let bytes = || host.metric("jackfield_journal_bytes").unwrap();
    let (memory_before, bytes_before) = (memory(&host), bytes());
    let status = pile_up(&host, &switch, FIRST..BACKLOG, BACKLOG);
    let grown = memory(&host).saturating_sub(memory_before);
    assert!(
        grown <= MEMORY_KIB,
        "{grown} KiB more than {memory_before} KiB"
    );
    let waiting = status["journal"]["waiting"].as_u64().unwrap();
    assert!(waiting > 50_000, "it waits in the journal: {status:#}");
    assert!(bytes() > bytes_before, "the journal grows: {status:#}");
    let (code, why) = host.get("/readyz");
    assert!(
        code == 503 && why.starts_with("redis: "),
        "what is missing: {code} {why}"
    );
    come_back(&host, &switch, &mut redis, BACKLOG + MEANWHILE).await;
    let grown = memory(&host).saturating_sub(memory_before);
    assert!(grown <= MEMORY_KIB, "{grown} KiB more after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_goes_on_over_a_restart_of_the_host() {
    let (switch, mut redis, host) = host_without_redis().await;
    let memory_before = memory(&host);
    let half = BACKLOG / 2;
    pile_up(&host, &switch, FIRST..half, half);
    let host = host.kill().start();
    host.wait_redis_away();
    let again = host.count("inputs");
    pile_up(&host, &switch, half..BACKLOG, BACKLOG - half);
    let grown = memory(&host).saturating_sub(memory_before);
    assert!(
        grown <= MEMORY_KIB,
        "{grown} KiB more than {memory_before} KiB"
    );
    assert_eq!(host.get("/readyz").0, 503);
    let inputs = again + BACKLOG - half + MEANWHILE;
    come_back(&host, &switch, &mut redis, inputs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_in_the_journal_long_before_a_slow_filter_has_seen_it() {
    const BURST: u64 = 8_000;
    let (switch, redis) = (Arc::new(quiet_switch().await), Redis::start());
    let host = setup(&switch, &redis)
        .env("JACKFIELD_FILTERS_DEADLINE", "1s")
        .filter(
            "10-slow",
            "hostile",
            "attack = \"slow\"\nwork = 20_000_000\n",
        )
        .start();
    host.wait_ready();
    fire(&switch, 0..BURST);
    // What is asked about calls is in the journal, too.
    let status = host.wait_status("all is in the journal", |status| {
        status["journal"]["last"].as_u64().unwrap() % EPOCH + 1 >= BURST
    });
    // It would be 64 for each 512 if they took turns.
    let decided = BURST.saturating_sub(status["journal"]["waiting"].as_u64().unwrap());
    assert!(decided < 250, "{decided} of {BURST}: {status:#}");
}
