//! How long a stage takes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::Serialize;

use super::window::Window;
use crate::config::Limits;

const BUCKETS_MS: [f64; 11] = [
    1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0,
];

/// Ten minutes, in microseconds.
const MAX_US: u64 = 600_000_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

/// Those of all stages.
pub(super) struct Latencies {
    pub(super) reader: Latency,
    pub(super) writer: Latency,
    pub(super) total: Latency,
}

impl Latencies {
    pub(super) fn register(r: &mut Registry, limits: &Limits) -> Latencies {
        let exceeded = Family::<StageLabel, Counter>::default();
        r.register(
            "jackfield_latency_exceeded",
            "Events over a latency limit, by stage",
            exceeded.clone(),
        );
        let mut latency = |stage: &'static str, limit: Duration| {
            let histogram = Histogram::new(BUCKETS_MS);
            let name = format!("telephony_{stage}_latency_milliseconds");
            r.register(
                name,
                format!("Latency of the {stage} in milliseconds"),
                histogram.clone(),
            );
            Latency::new(
                stage,
                limit,
                histogram,
                exceeded.get_or_create_owned(&StageLabel { stage }),
            )
        };
        Latencies {
            reader: latency("reader", limits.reader),
            writer: latency("writer", limits.writer),
            total: latency("total", limits.total),
        }
    }
}

/// One stage's latency: a histogram, and a limit over which it counts and, at most once a second, warns.
#[derive(Debug)]
pub struct Latency {
    stage: &'static str,
    limit_us: AtomicU64,
    histogram: Histogram,
    exceeded: Counter,
    recent: Mutex<Recent>,
}

/// What was observed in the last seconds, and when a warning was the last.
#[derive(Debug)]
struct Recent {
    window: Window,
    warned: Option<Instant>,
}

/// Percentiles of the last seconds, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    /// Half were faster.
    pub p50_us: u64,
    /// One in a hundred was slower.
    pub p99_us: u64,
}

impl Latency {
    fn new(
        stage: &'static str,
        limit: Duration,
        histogram: Histogram,
        exceeded: Counter,
    ) -> Latency {
        let recent = Recent {
            window: Window::new(MAX_US),
            warned: None,
        };
        Latency {
            stage,
            limit_us: AtomicU64::new(micros(limit)),
            histogram,
            exceeded,
            recent: Mutex::new(recent),
        }
    }

    /// Percentiles of the last five to ten seconds.
    pub fn percentiles(&self) -> Percentiles {
        let mut recent = self.recent();
        recent.window.turn(Instant::now());
        let (p50_us, p99_us) = recent.window.p50_p99();
        Percentiles { p50_us, p99_us }
    }

    pub(super) fn limit(&self, limit: Duration) {
        self.limit_us.store(micros(limit), Ordering::Relaxed);
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Events took this long, each; one look at the clock and at the lock is enough for a batch of them.
    pub fn observe(&self, all_us: impl IntoIterator<Item = u64>) {
        let limit_us = self.limit_us.load(Ordering::Relaxed);
        let mut recent = self.recent();
        recent.window.turn(Instant::now());
        for us in all_us {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a latency of 2^53 µs would be 285 years"
            )]
            let ms = us as f64 / 1_000.0;
            self.histogram.observe(ms);
            recent.window.record(us);
            if us > limit_us {
                self.exceeded.inc();
                recent.warn(self.stage, us, limit_us);
            }
        }
    }
}

fn micros(limit: Duration) -> u64 {
    u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)
}

impl Recent {
    fn warn(&mut self, stage: &str, us: u64, limit_us: u64) {
        let quiet = |last: Instant| last.elapsed() < Duration::from_secs(1);
        if !self.warned.is_some_and(quiet) {
            self.warned = Some(Instant::now());
            tracing::warn!(
                stage,
                latency_ms = us / 1_000,
                limit_ms = limit_us / 1_000,
                "latency over its limit"
            );
        }
    }
}
