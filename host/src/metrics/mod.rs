//! Every metric, declared once. Stages count through typed handles that they were given at the start.
//!
//! The `telephony_*` names and types are those of Telephony Event Sync, so that its dashboards keep working; `jackfield_*` is
//! what it lacks. What the ledger and the links know is read from them at each scrape and kept nowhere else.

mod books;
mod filters;
mod journal;
mod latency;
mod links;
mod listeners;
mod stage;
mod streams;
mod window;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
pub use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::config::Limits;
use crate::ledger::Ledger;
use crate::link::Links;
use crate::pipeline::CallsStatus;

use books::Books;
use filters::Families;
pub use filters::{FilterMetrics, VERDICTS};
pub use journal::JournalMetrics;
use latency::Latencies;
pub use latency::{Latency, Percentiles};
pub use listeners::ListenerMetrics;
pub use stage::{Activity, Stage, StageStatus, Stages};
pub use streams::StreamMetrics;
pub use window::Window;

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
    /// What the stages do with their time.
    pub stages: Arc<Stages>,
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
    commands: Family<CommandLabel, Counter>,
    /// The journal's sizes and ages.
    pub journal: JournalMetrics,
    /// The streams in Redis.
    pub streams: StreamMetrics,
    /// Who listens to what becomes of events.
    pub listeners: ListenerMetrics,
    oldest_pending: Gauge<f64, AtomicU64>,
    alarms: Family<AlarmLabel, Gauge>,
    settings_reloads: Family<ReloadLabel, Counter>,
    filters: Families,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlarmLabel {
    stage: &'static str,
    level: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabel {
    outcome: &'static str,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new(
        limits: &Limits,
        ledger: Arc<Ledger>,
        links: Arc<Links>,
        calls: watch::Receiver<CallsStatus>,
    ) -> Metrics {
        let mut registry = Registry::default();
        let r = &mut registry;
        let latencies = Latencies::register(r, limits);
        let stages = Arc::new(Stages::default());
        let filters = Families::new();
        let metrics = Metrics {
            processed: Counter::default(),
            errors: Counter::default(),
            reader_size: Gauge::default(),
            writer_size: Gauge::default(),
            stages: Arc::clone(&stages),
            reader_latency: latencies.reader,
            writer_latency: latencies.writer,
            total_latency: latencies.total,
            repaired: Counter::default(),
            batches: Counter::default(),
            healed: Counter::default(),
            unhealable: Counter::default(),
            adopted: Counter::default(),
            restored: Counter::default(),
            outdated: Counter::default(),
            commands: Family::default(),
            journal: JournalMetrics::default(),
            streams: StreamMetrics::default(),
            listeners: ListenerMetrics::default(),
            oldest_pending: Gauge::default(),
            alarms: Family::default(),
            settings_reloads: Family::default(),
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
        r.register(
            "jackfield_commands",
            "Commands to FreeSWITCH over HTTP, by what became of them",
            metrics.commands.clone(),
        );
        r.register(
            "jackfield_oldest_pending_seconds",
            "How long the oldest event waits that is neither in Redis, nor dropped, nor dead-lettered",
            metrics.oldest_pending.clone(),
        );
        r.register(
            "jackfield_alarms",
            "What is wrong now, by stage and level: error or warn",
            metrics.alarms.clone(),
        );
        metrics.register_settings(r);
        metrics.register_recovery(r);
        metrics.journal.register(r);
        metrics.streams.register(r);
        metrics.listeners.register(r);
        metrics.filters.register(r);
        r.register_collector(Box::new(Books {
            ledger,
            links,
            calls,
            stages,
        }));
        Metrics {
            registry,
            ..metrics
        }
    }

    /// A command to FreeSWITCH ended: `answered`, or the kind of its error.
    pub fn command(&self, outcome: &'static str) {
        let label = CommandLabel { outcome };
        self.commands.get_or_create(&label).inc();
    }

    fn register_settings(&self, r: &mut Registry) {
        r.register(
            "jackfield_settings_reloads",
            "Reads of the settings of a running host, by outcome: taken or refused",
            self.settings_reloads.clone(),
        );
    }

    fn register_recovery(&self, r: &mut Registry) {
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
    }

    /// Latencies are late from here on.
    pub fn limit(&self, limits: &Limits) {
        self.reader_latency.limit(limits.reader);
        self.writer_latency.limit(limits.writer);
        self.total_latency.limit(limits.total);
    }

    /// Settings were read again: `taken` or `refused`.
    pub fn settings_reloaded(&self, outcome: &'static str) {
        let label = ReloadLabel { outcome };
        self.settings_reloads.get_or_create(&label).inc();
    }

    /// What is wrong now, as stage and level of each, and for how long the oldest event waits. Asked for at each scrape.
    pub fn show(&self, alarms: &[(&'static str, &'static str)], oldest_pending: Duration) {
        self.oldest_pending.set(oldest_pending.as_secs_f64());
        self.alarms.clear();
        for (stage, level) in alarms {
            self.alarms
                .get_or_create(&AlarmLabel { stage, level })
                .inc();
        }
    }

    /// The handles of one filter.
    pub fn filter(&self, file: &str) -> FilterMetrics {
        self.filters.of(file, self.errors.clone())
    }

    /// What `/metrics` answers.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
