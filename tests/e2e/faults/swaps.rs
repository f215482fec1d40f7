//! Hundreds of versions of a filter, one after the other, under a steady load: each goes live between two events, none costs an
//! event, and none stays in memory when the next one is there.
//!
//! `make soak` makes ten thousand of them, as far as its time allows.

use std::time::Instant;

use serde_json::Value;

use super::dice::{rounds, soak, tell};
use super::resident_kib;
use crate::harness::{Redis, place_filter, wait_for};
use crate::scene::{EVENTS, LIVE, Scene, number, versioned};

const FILTER: &str = "10-version";
/// Swaps after which the host has met all that it keeps: the versions to go back to, and past events for a rehearsal.
const WARM: u64 = 20;
/// Events of the steady load without swaps, for comparison.
const STEADY: u64 = 3_000;
/// So much more memory may be in use at the end than when it was warm: the allocator's own.
const GROWTH_KIB: u64 = 8 << 10;
/// Entries that are asked for at once.
const PIECE: u64 = 5_000;

/// What the stream has had so far: read while it is filled, as Redis does not keep ten thousand versions' events.
struct Delivered {
    redis: redis::Connection,
    last: String,
    events: u64,
    version: u64,
    /// From the socket to Redis, in milliseconds.
    latencies: Vec<u64>,
}

impl Delivered {
    fn new(redis: &Redis) -> Delivered {
        Delivered {
            redis: redis.connection(),
            last: "0-0".to_owned(),
            events: 0,
            version: 0,
            latencies: Vec::new(),
        }
    }

    /// What came since: each must be the next event, and of the version of the one before it, or of the version after that.
    #[track_caller]
    fn look(&mut self) {
        loop {
            let entries = self.newer();
            if entries.is_empty() {
                return;
            }
            for (id, fields) in entries {
                let event: Value = serde_json::from_str(&fields[0].1).unwrap();
                assert_eq!(
                    number(&event),
                    Some(self.events),
                    "each once and in order: {event}"
                );
                self.events += 1;
                let version = text(&event, "X-Version");
                assert!(
                    version == self.version || version == self.version + 1,
                    "a run of version {} is followed by version {version}",
                    self.version
                );
                self.version = version;
                let added: u64 = id.split_once('-').unwrap().0.parse().unwrap();
                let fired = text(&event, "Event-Date-Timestamp") / 1_000;
                self.latencies.push(added.saturating_sub(fired));
                self.last = id;
            }
        }
    }

    /// The next entries: the id and the fields of each.
    fn newer(&mut self) -> Vec<(String, Vec<(String, String)>)> {
        let mut command = redis::cmd("XRANGE");
        command.arg(EVENTS).arg(format!("({}", self.last)).arg("+");
        let entries = command.arg("COUNT").arg(PIECE).query(&mut self.redis);
        entries.unwrap()
    }

    /// The 99th percentile of the latency since this was asked last.
    fn take_p99(&mut self) -> u64 {
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort_unstable();
        latencies[latencies.len() * 99 / 100]
    }
}

#[track_caller]
fn text(event: &Value, header: &str) -> u64 {
    let value = event[header].as_str().and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no number in {header}: {event}"))
}

fn settings(version: u64) -> String {
    versioned(&version.to_string())
}

fn resident(scene: &Scene) -> u64 {
    resident_kib(scene.host.pid()).expect("the host runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_swaps_lose_repeat_and_reorder_nothing_and_leave_nothing_behind() {
    let mut scene = Scene::start(|setup| {
        setup
            .env("EVENTS_MAX_LEN", "100000")
            .filter(FILTER, "hostile", &settings(0))
    })
    .await;
    let builds = [scene.build(0), scene.build(1)];
    let firing = scene.fire_steadily();
    let mut delivered = Delivered::new(&scene.redis);
    wait_for("a steady load without swaps", || {
        delivered.look();
        (delivered.events >= STEADY).then_some(())
    });
    let steady = delivered.take_p99();

    let (started, mut warm_kib) = (Instant::now(), 0);
    let is_over = || soak().is_some_and(|time| started.elapsed() > time);
    let mut swaps = 0;
    while swaps < WARM || (swaps < rounds(200, 10_000) && !is_over()) {
        swaps += 1;
        let (placed, build) = (Instant::now(), usize::from(swaps % 2 == 1));
        place_filter(
            &scene.host.filters,
            FILTER,
            &builds[build],
            &settings(swaps),
        );
        wait_for(&format!("version {swaps} is live"), || {
            delivered.look();
            (delivered.version == swaps).then_some(())
        });
        let took = placed.elapsed();
        assert!(took < LIVE, "version {swaps} was live only after {took:?}");
        if swaps == WARM {
            warm_kib = resident(&scene);
        }
    }
    let (took, end_kib) = (started.elapsed(), resident(&scene));
    scene.stop(firing);
    scene.settle();
    delivered.look();
    tell(&format!(
        "swaps: {swaps} in {took:.1?}; socket to Redis p99 {} ms, without swaps {steady} ms; {} MiB resident, {} MiB after {WARM} swaps",
        delivered.take_p99(),
        end_kib >> 10,
        warm_kib >> 10,
    ));
    assert_eq!(delivered.events, scene.fired(), "all events arrived");
    assert!(
        end_kib < warm_kib + GROWTH_KIB,
        "{swaps} versions leave nothing behind: {warm_kib} KiB became {end_kib} KiB"
    );
    check_none_refused(&scene);
}

#[track_caller]
fn check_none_refused(scene: &Scene) {
    let labels = format!("filter=\"{FILTER}\"");
    let refused = scene.metric("jackfield_filter_refused_total", &labels);
    let (_, metrics) = scene.host.get("/metrics");
    let taken_back = metrics
        .lines()
        .find(|line| line.starts_with("jackfield_filter_taken_back_total{"));
    assert_eq!(
        (refused, taken_back),
        (0, None),
        "none was refused or taken back on the way"
    );
    let filter = scene.host.wait_filter(FILTER, |_| true);
    assert_eq!(filter["last_error"], Value::Null, "{filter:#}");
}
