//! Every metric, declared once. Stages count through typed handles that they were given at the start.
//!
//! The `telephony_*` names and types are those of Telephony Event Sync, so that its dashboards keep working; `jackfield_*` is
//! what it lacks. What the ledger and the links know is read from them at each scrape and kept nowhere else.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram as Hdr;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::clock;
use crate::config::Limits;
use crate::ledger::Ledger;
use crate::link::{Link, Snapshot};

const BUCKETS_MS: [f64; 11] = [
    1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0,
];
const CALL_BUCKETS: [f64; 10] = [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3, 1e-2, 1e-1];

/// Percentiles are of this window and the one before it.
const WINDOW: Duration = Duration::from_secs(5);

/// The verdicts that are counted for each filter.
pub const VERDICTS: [&str; 4] = ["pass", "route", "drop", "dead_letter"];

/// All metrics of a host.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `telephony_messages_processed_total`.
    pub processed: Counter,
    /// `telephony_errors_total`: failures of links, filters and entries.
    pub errors: Counter,
    /// `telephony_reader_channel_size`: inputs that wait for the pipeline.
    pub reader_size: Gauge,
    /// `telephony_writer_channel_size`: inputs that wait for Redis.
    pub writer_size: Gauge,
    /// Socket to decision.
    pub reader_latency: Latency,
    /// Decision to Redis' reply.
    pub writer_latency: Latency,
    /// Socket to Redis' reply.
    pub total_latency: Latency,
    /// `jackfield_events_repaired_total`: bytes that were no UTF-8.
    pub repaired: Counter,
    /// `jackfield_batches_total`: transactions that Redis executed.
    pub batches: Counter,
    /// `jackfield_healed_total`: events sent again because Redis came back without them.
    pub healed: Counter,
    /// `jackfield_unhealable_total`: decisions that Redis came back without and the journal does not have any more.
    pub unhealable: Counter,
    /// `jackfield_adopted_total`: cursors of another journal that this one took over.
    pub adopted: Counter,
    /// `jackfield_cursors_restored_total`: cursors that were gone while their streams were not.
    pub restored: Counter,
    /// `jackfield_journal_outdated_total`: starts with a journal of which Redis had more than was on the disk.
    pub outdated: Counter,
    /// `jackfield_journal_bytes`: the journal's size on disk, with what is preallocated.
    pub journal_bytes: Gauge,
    /// `jackfield_journal_age_seconds`: how long the oldest input waits to be decided.
    pub journal_age: Gauge,
    /// `jackfield_journal_broken`: 1 while the disk takes nothing.
    pub journal_broken: Gauge,
    /// `jackfield_journal_quarantined`: places whose bytes were damaged and were skipped.
    pub journal_quarantined: Gauge,
    /// `jackfield_journal_poisoned`: segments whose sync failed.
    pub journal_poisoned: Gauge,
    reserve: Family<StreamLabel, Gauge<f64, AtomicU64>>,
    filters: Families,
}

#[derive(Clone, Debug)]
struct Families {
    calls: Family<FilterLabel, Counter>,
    verdicts: Family<VerdictLabel, Counter>,
    errors: Family<CauseLabel, Counter>,
    duration: Family<FilterLabel, Histogram, fn() -> Histogram>,
    refused: Family<FilterLabel, Counter>,
    custom: Family<CustomLabel, Counter>,
    output_dropped: Family<FilterLabel, Counter>,
    version: Family<VersionLabel, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FilterLabel {
    filter: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    filter: String,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    filter: String,
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CustomLabel {
    filter: String,
    counter: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    filter: String,
    version: String,
    digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabel {
    stream: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new(limits: &Limits, ledger: Arc<Ledger>, esl: Arc<Link>, redis: Arc<Link>) -> Metrics {
        let mut registry = Registry::default();
        let r = &mut registry;
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
        let reader_latency = latency("reader", limits.reader);
        let writer_latency = latency("writer", limits.writer);
        let total_latency = latency("total", limits.total);
        let filters = Families::new();
        let metrics = Metrics {
            processed: Counter::default(),
            errors: Counter::default(),
            reader_size: Gauge::default(),
            writer_size: Gauge::default(),
            reader_latency,
            writer_latency,
            total_latency,
            repaired: Counter::default(),
            batches: Counter::default(),
            healed: Counter::default(),
            unhealable: Counter::default(),
            adopted: Counter::default(),
            restored: Counter::default(),
            outdated: Counter::default(),
            journal_bytes: Gauge::default(),
            journal_age: Gauge::default(),
            journal_broken: Gauge::default(),
            journal_quarantined: Gauge::default(),
            journal_poisoned: Gauge::default(),
            reserve: Family::default(),
            filters,
            registry: Registry::default(),
        };
        r.register(
            "telephony_messages_processed",
            "Events written to Redis",
            metrics.processed.clone(),
        );
        r.register(
            "telephony_errors",
            "Failures of links, filters and entries",
            metrics.errors.clone(),
        );
        r.register(
            "telephony_reader_channel_size",
            "Events that wait for the pipeline",
            metrics.reader_size.clone(),
        );
        r.register(
            "telephony_writer_channel_size",
            "Events that wait for Redis",
            metrics.writer_size.clone(),
        );
        r.register(
            "jackfield_events_repaired",
            "Events with bytes that were no UTF-8",
            metrics.repaired.clone(),
        );
        r.register(
            "jackfield_batches",
            "Transactions that Redis executed",
            metrics.batches.clone(),
        );
        metrics.register_journal(r);
        metrics.filters.register(r);
        r.register_collector(Box::new(Books { ledger, esl, redis }));
        Metrics {
            registry,
            ..metrics
        }
    }

    fn register_journal(&self, r: &mut Registry) {
        r.register(
            "jackfield_healed",
            "Events sent again because Redis came back without them",
            self.healed.clone(),
        );
        r.register(
            "jackfield_unhealable",
            "Decisions that Redis came back without and the journal does not have any more",
            self.unhealable.clone(),
        );
        r.register(
            "jackfield_adopted",
            "Cursors of another journal that this one took over",
            self.adopted.clone(),
        );
        r.register(
            "jackfield_cursors_restored",
            "Cursors that were gone while their streams were not",
            self.restored.clone(),
        );
        r.register(
            "jackfield_journal_outdated",
            "Starts with a journal of which Redis had more than was on the disk",
            self.outdated.clone(),
        );
        r.register(
            "jackfield_journal_bytes",
            "Size of the journal on disk",
            self.journal_bytes.clone(),
        );
        r.register(
            "jackfield_journal_age_seconds",
            "How long the oldest input waits to be decided",
            self.journal_age.clone(),
        );
        r.register(
            "jackfield_journal_broken",
            "1 while the disk takes nothing",
            self.journal_broken.clone(),
        );
        r.register(
            "jackfield_journal_quarantined",
            "Places of the journal whose bytes were damaged and were skipped",
            self.journal_quarantined.clone(),
        );
        r.register(
            "jackfield_journal_poisoned",
            "Segments of the journal whose sync failed",
            self.journal_poisoned.clone(),
        );
        r.register(
            "jackfield_consumer_reserve_ratio",
            "How far the slowest consumer group of a stream is from losing entries: 1 has read all, 0 loses them",
            self.reserve.clone(),
        );
    }

    /// The distance of a stream's slowest consumer group to trimming; `None`: it has no group.
    pub fn reserve(&self, stream: &str, reserve: Option<f64>) {
        let label = StreamLabel {
            stream: stream.to_owned(),
        };
        match reserve {
            Some(reserve) => {
                self.reserve.get_or_create(&label).set(reserve);
            }
            None => {
                self.reserve.remove(&label);
            }
        }
    }

    /// The handles of one filter.
    pub fn filter(&self, file: &str) -> FilterMetrics {
        let filter = file.to_owned();
        let label = FilterLabel {
            filter: filter.clone(),
        };
        FilterMetrics {
            calls: self.filters.calls.get_or_create_owned(&label),
            duration: self.filters.duration.get_or_create_owned(&label),
            verdicts: VERDICTS.map(|verdict| {
                let label = VerdictLabel {
                    filter: filter.clone(),
                    verdict,
                };
                (verdict, self.filters.verdicts.get_or_create_owned(&label))
            }),
            families: self.filters.clone(),
            errors: self.errors.clone(),
            filter,
            shown: Mutex::default(),
        }
    }

    /// What `/metrics` answers.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn call_histogram() -> Histogram {
    Histogram::new(CALL_BUCKETS)
}

impl Families {
    fn new() -> Families {
        Families {
            calls: Family::default(),
            verdicts: Family::default(),
            errors: Family::default(),
            duration: Family::new_with_constructor(call_histogram),
            refused: Family::default(),
            custom: Family::default(),
            output_dropped: Family::default(),
            version: Family::default(),
        }
    }

    fn register(&self, r: &mut Registry) {
        r.register(
            "jackfield_filter_calls",
            "Events that a filter handled",
            self.calls.clone(),
        );
        r.register(
            "jackfield_filter_verdicts",
            "What became of events in a filter",
            self.verdicts.clone(),
        );
        r.register(
            "jackfield_filter_errors",
            "Failed calls, by cause",
            self.errors.clone(),
        );
        r.register(
            "jackfield_filter_duration_seconds",
            "Time of a filter's call",
            self.duration.clone(),
        );
        r.register(
            "jackfield_filter_refused",
            "Versions that could not go live",
            self.refused.clone(),
        );
        r.register(
            "jackfield_filter_custom",
            "Counters that filters keep themselves",
            self.custom.clone(),
        );
        r.register(
            "jackfield_filter_output_dropped_bytes",
            "Log output over the cap",
            self.output_dropped.clone(),
        );
        r.register(
            "jackfield_filter_version",
            "1 for the version that runs",
            self.version.clone(),
        );
    }
}

/// The handles of one filter.
#[derive(Debug)]
pub struct FilterMetrics {
    filter: String,
    calls: Counter,
    duration: Histogram,
    verdicts: [(&'static str, Counter); VERDICTS.len()],
    errors: Counter,
    families: Families,
    shown: Mutex<Option<VersionLabel>>,
}

impl FilterMetrics {
    /// A call of `handle` took this long.
    pub fn called(&self, took: Duration) {
        self.calls.inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// What became of the event: one of [`VERDICTS`].
    pub fn verdict(&self, verdict: &'static str) {
        if let Some((_, counter)) = self.verdicts.iter().find(|(known, _)| *known == verdict) {
            counter.inc();
        }
    }

    /// A call failed.
    pub fn failed(&self, cause: &'static str) {
        self.errors.inc();
        self.families
            .errors
            .get_or_create(&CauseLabel {
                filter: self.filter.clone(),
                cause,
            })
            .inc();
    }

    /// A version could not go live.
    pub fn refused(&self) {
        self.errors.inc();
        self.families
            .refused
            .get_or_create(&FilterLabel {
                filter: self.filter.clone(),
            })
            .inc();
    }

    /// What the filter counted itself.
    pub fn custom<'a>(&self, counts: impl Iterator<Item = (&'a str, u64)>) {
        for (counter, by) in counts {
            let label = CustomLabel {
                filter: self.filter.clone(),
                counter: counter.to_owned(),
            };
            self.families.custom.get_or_create(&label).inc_by(by);
        }
    }

    /// Bytes of output over the cap.
    pub fn output_dropped(&self, bytes: u64) {
        if bytes > 0 {
            self.families
                .output_dropped
                .get_or_create(&FilterLabel {
                    filter: self.filter.clone(),
                })
                .inc_by(bytes);
        }
    }

    /// This version runs now, and no other of this filter.
    pub fn version(&self, version: &str, digest: &str) {
        self.forget();
        let label = VersionLabel {
            filter: self.filter.clone(),
            version: version.to_owned(),
            digest: digest.to_owned(),
        };
        self.families.version.get_or_create(&label).set(1);
        *self.shown() = Some(label);
    }

    /// No version runs any more.
    pub fn forget(&self) {
        if let Some(label) = self.shown().take() {
            self.families.version.remove(&label);
        }
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Option<VersionLabel>> {
        self.shown
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// One stage's latency: a histogram, and a limit over which it counts and, at most once a second, warns.
#[derive(Debug)]
pub struct Latency {
    stage: &'static str,
    limit_us: u64,
    histogram: Histogram,
    exceeded: Counter,
    recent: Mutex<Recent>,
}

/// What was observed in this window and the one before it.
#[derive(Debug)]
struct Recent {
    now: Hdr<u64>,
    before: Hdr<u64>,
    since: Instant,
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
        let limit_us = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        #[expect(
            clippy::expect_used,
            reason = "the bounds are constants that the constructor takes"
        )]
        let hdr = || Hdr::new_with_bounds(1, 600_000_000, 2).expect("1 µs to 10 min in two digits");
        let recent = Recent {
            now: hdr(),
            before: hdr(),
            since: Instant::now(),
            warned: None,
        };
        Latency {
            stage,
            limit_us,
            histogram,
            exceeded,
            recent: Mutex::new(recent),
        }
    }

    /// Percentiles of the last five to ten seconds.
    pub fn percentiles(&self) -> Percentiles {
        let mut recent = self.recent();
        recent.turn();
        let mut both = recent.before.clone();
        // Both have the same bounds, so nothing can be out of range.
        let _added = both.add(&recent.now);
        Percentiles {
            p50_us: both.value_at_quantile(0.5),
            p99_us: both.value_at_quantile(0.99),
        }
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// An event took this long.
    pub fn observe(&self, us: u64) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a latency of 2^53 µs would be 285 years"
        )]
        let ms = us as f64 / 1_000.0;
        self.histogram.observe(ms);
        let mut recent = self.recent();
        recent.turn();
        recent.now.saturating_record(us);
        if us > self.limit_us {
            self.exceeded.inc();
            if recent
                .warned
                .is_none_or(|last| last.elapsed() >= Duration::from_secs(1))
            {
                recent.warned = Some(Instant::now());
                let limit_ms = self.limit_us / 1_000;
                tracing::warn!(
                    stage = self.stage,
                    latency_ms = us / 1_000,
                    limit_ms,
                    "latency over its limit"
                );
            }
        }
    }
}

impl Recent {
    fn turn(&mut self) {
        if self.since.elapsed() >= WINDOW {
            std::mem::swap(&mut self.now, &mut self.before);
            self.now.reset();
            self.since = Instant::now();
        }
    }
}

/// Reads the ledger and the links at each scrape.
#[derive(Debug)]
struct Books {
    ledger: Arc<Ledger>,
    esl: Arc<Link>,
    redis: Arc<Link>,
}

impl Collector for Books {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let accounts = self.ledger.accounts();
        let mut counter = |name: &str, help: &str, value: u64| {
            let value = ConstCounter::new(value);
            value.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
        };
        let (esl, redis) = (self.esl.snapshot(), self.redis.snapshot());
        counter(
            "telephony_esl_reconnections",
            "Times the Event Socket came back",
            esl.connects.saturating_sub(1),
        )?;
        counter(
            "telephony_redis_reconnections",
            "Times Redis came back",
            redis.connects.saturating_sub(1),
        )?;
        counter(
            "jackfield_inputs",
            "Events from FreeSWITCH, replayed dead letters, and what an earlier run left undecided",
            accounts.inputs,
        )?;
        counter(
            "jackfield_replayed",
            "Events that an earlier run of the host had decided and this one delivered",
            accounts.replayed,
        )?;
        counter(
            "jackfield_derived",
            "Events that filters made",
            accounts.derived,
        )?;
        counter(
            "jackfield_received",
            "Inputs, derived and replayed events",
            accounts.balance().received,
        )?;
        counter(
            "jackfield_delivered",
            "Events with all entries in Redis",
            accounts.delivered,
        )?;
        counter(
            "jackfield_dead_lettered",
            "Events kept with a reason",
            accounts.dead_lettered,
        )?;
        let mut gauge = |name: &str, help: &str, value: u64| {
            let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            value.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        gauge(
            "jackfield_pending",
            "Events held by some stage",
            accounts.pending,
        )?;
        gauge(
            "telephony_esl_connections_total",
            "Event Socket connections that are up",
            u64::from(self.esl.is_ready()),
        )?;
        gauge(
            "telephony_redis_connections_total",
            "Redis connections that are up",
            u64::from(self.redis.is_ready()),
        )?;
        encode_outages(&mut encoder, &esl, &redis)?;
        let mut dropped = encoder.encode_descriptor(
            "jackfield_dropped",
            "Events dropped on purpose",
            None,
            MetricType::Counter,
        )?;
        for (key, events) in &accounts.dropped {
            let label = [("by", key.by.as_str()), ("reason", key.reason.as_str())];
            ConstCounter::new(*events).encode(dropped.encode_family(&label)?)?;
        }
        let mut lost = encoder.encode_descriptor(
            "jackfield_lost",
            "Events lost, by cause",
            None,
            MetricType::Counter,
        )?;
        for (cause, events) in &accounts.lost {
            ConstCounter::new(*events).encode(lost.encode_family(&[("cause", *cause)])?)?;
        }
        Ok(())
    }
}

/// How connections ended, and for how long there was none.
fn encode_outages(
    encoder: &mut DescriptorEncoder<'_>,
    esl: &Snapshot,
    redis: &Snapshot,
) -> Result<(), std::fmt::Error> {
    let mut ended = encoder.encode_descriptor(
        "jackfield_esl_ended",
        "Connections to the Event Socket, and tries, that ended, by cause",
        None,
        MetricType::Counter,
    )?;
    for (cause, times) in &esl.ended {
        ConstCounter::new(*times).encode(ended.encode_family(&[("cause", *cause)])?)?;
    }
    let stalled = encoder.encode_descriptor(
        "jackfield_esl_stalled_seconds",
        "Time in which the host did not run, and so did not read the Event Socket",
        None,
        MetricType::Counter,
    )?;
    ConstCounter::new(Duration::from_micros(esl.stalled_us).as_secs_f64()).encode(stalled)?;
    let mut down = encoder.encode_descriptor(
        "jackfield_link_down_seconds",
        "Time in which a link was not ready after it had been ready once",
        None,
        MetricType::Counter,
    )?;
    for (link, snapshot) in [("esl", esl), ("redis", redis)] {
        let time = Duration::from_micros(snapshot.down_until(clock::now_us()));
        ConstCounter::new(time.as_secs_f64()).encode(down.encode_family(&[("link", link)])?)?;
    }
    Ok(())
}
