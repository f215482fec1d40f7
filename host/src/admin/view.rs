//! What can be seen of a running host: `/health`, `/status` and `/metrics`, read from what the stages show.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use super::alarms::alarms;
use super::status::{Counts, DeadLetters as Dead, Journal, Lane, Latencies, Status, Written};
use crate::clock;
use crate::config::{self, Config, Secret};
use crate::esl::{Allowed, Commands};
use crate::journal::Disk;
use crate::ledger::Ledger;
use crate::link::{Link, Links};
use crate::listeners::Listeners;
use crate::metrics::Metrics;
use crate::pipeline::{Arrivals, Inputs, Seen};
use crate::route::Routes;
use crate::settings::Settings;
use crate::writer::dead::DeadLetters;
use crate::writer::letters::Count;

/// Everything that may be looked at.
pub struct View {
    /// The accounts.
    pub ledger: Arc<Ledger>,
    /// Where a replayed dead letter goes.
    pub arrivals: Arc<Arrivals>,
    /// The connections.
    pub links: Arc<Links>,
    /// Commands to FreeSWITCH.
    pub commands: Commands,
    /// Which ones may be run over HTTP.
    pub allowed: watch::Receiver<Allowed>,
    /// Latencies, and `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The filters and the router's name.
    pub seen: Arc<Seen>,
    /// Who hears what becomes of events.
    pub listeners: Arc<Listeners>,
    /// When the host started.
    pub started: Instant,
    /// `http.token`; empty for none.
    pub token: Secret,
    /// What is in force, and how to read it again.
    pub settings: Arc<Settings>,
    /// The streams' names.
    pub routes: watch::Receiver<Arc<Routes>>,
    /// Dead letters and the journal's limit.
    pub reach: Reach,
    /// Searches of the journal that may run at once.
    pub searches: Semaphore,
}

/// What is reached beside what is shown.
pub struct Reach {
    /// Where the dead letters lie.
    pub redis: config::Redis,
    /// The journal's disk.
    pub disk: Arc<dyn Disk>,
    /// The journal's folder, where the local ones lie.
    pub dir: PathBuf,
    /// `journal.max_size`.
    pub max_bytes: u64,
    /// Those in the local file.
    pub local_letters: Count,
}

impl Reach {
    /// As these settings have it.
    pub fn of(config: &Config, inputs: &Inputs) -> Reach {
        let (disk, dir) = inputs.place();
        Reach {
            redis: config.redis.clone(),
            max_bytes: config.journal.max_size,
            local_letters: Count::of(&dir),
            disk,
            dir,
        }
    }
}

impl View {
    /// What keeps the host from doing its job, if anything does.
    pub fn trouble(&self) -> Option<String> {
        let of = |link: &Arc<Link>| {
            let error = link.snapshot().last_error;
            let why = error.unwrap_or_else(|| "not connected yet".to_owned());
            (!link.is_ready()).then(|| format!("{}: {why}", link.name()))
        };
        let journal = self.seen.journal().trouble;
        let journal = journal.map(|trouble| format!("journal: {trouble}"));
        let links = self.links.required().into_iter().filter_map(of);
        let troubles: Vec<String> = links.chain(journal).collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    pub(super) fn health(&self) -> (StatusCode, Value) {
        let trouble = self.trouble();
        let healthy = trouble.is_none();
        let (code, status) = match healthy {
            true => (StatusCode::OK, "healthy"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
        };
        let data = json!({
            "is_healthy": healthy,
            "last_check": clock::rfc3339(clock::now_us()),
            "last_error": trouble,
            "redis_recovery_attempts": self.links.redis.snapshot().attempts,
            "esl_recovery_attempts": self.links.esl.snapshot().attempts,
        });
        (code, json!({ "status": status, "data": data }))
    }

    /// Everything, with what is wrong.
    pub(super) fn status(&self) -> Status {
        // The accounts before all else: what they call settled is in everything that is read after them.
        let counts = Counts::of(self.ledger.accounts());
        let (filters, filters_ignored) = self.seen.filters();
        let now = Status {
            version: env!("CARGO_PKG_VERSION"),
            router: self.seen.router.get().cloned(),
            uptime_s: self.started.elapsed().as_secs(),
            ready: self.trouble().is_none(),
            health: self.links.health(),
            alarms: Vec::new(),
            links: self.links.status(),
            calls: self.seen.calls().borrow().clone(),
            settings: self.settings.status(),
            stages: self
                .metrics
                .stages
                .all()
                .map(|(name, stage)| (name, stage.status()))
                .into(),
            journal: self.journal(),
            lane: self.lane(),
            streams: self.streams(),
            dead_letters: self.dead(),
            listeners: self.listeners.now(),
            filters,
            filters_ignored,
            counts,
            latency: Latencies {
                reader: self.metrics.reader_latency.percentiles(),
                writer: self.metrics.writer_latency.percentiles(),
                total: self.metrics.total_latency.percentiles(),
            },
        };
        Status {
            alarms: alarms(&now, clock::now_us()),
            ..now
        }
    }

    /// What `/metrics` answers.
    pub(super) fn scrape(&self) -> Result<String, std::fmt::Error> {
        let status = self.status();
        let alarms = status.alarms.iter();
        let alarms: Vec<_> = alarms
            .map(|alarm| (alarm.stage, alarm.level.label()))
            .collect();
        let oldest = status.oldest_pending(clock::now_us());
        self.metrics.show(&alarms, oldest);
        self.metrics.encode()
    }

    /// The dead letters, over a connection of their own.
    pub(super) fn dead_letters(&self) -> DeadLetters {
        let stream = self.routes.borrow().dead_letter().name.to_string();
        let Reach { redis, dir, .. } = &self.reach;
        DeadLetters::new(redis.clone(), stream, dir.clone())
    }

    fn journal(&self) -> Journal {
        Journal {
            now: self.seen.journal(),
            max_bytes: self.reach.max_bytes,
            sync_p99_us: self.metrics.journal.sync_p99_us(),
        }
    }

    fn lane(&self) -> Lane {
        let queue = self.seen.queue();
        Lane {
            cursor: self.seen.journal().acknowledged,
            waiting: queue.waiting,
            oldest_us: queue.oldest_us,
            batches: self.metrics.batches.get(),
            unhealable: self.metrics.unhealable.get(),
        }
    }

    fn streams(&self) -> Vec<Written> {
        let dead = self.routes.borrow().dead_letter();
        let streams = self.seen.streams().into_iter();
        streams
            .filter(|stream| stream.name != dead.name)
            .map(|stream| Written {
                entries: self.metrics.streams.written(&stream.name),
                stream,
            })
            .collect()
    }

    fn dead(&self) -> Dead {
        let stream = self.routes.borrow().dead_letter();
        let streams = self.seen.streams();
        let shown = streams.iter().find(|one| one.name == stream.name);
        Dead {
            stream: stream.name.to_string(),
            length: shown.and_then(|shown| shown.length),
            local: self.reach.local_letters.now(),
            last: self.seen.last_dead(),
        }
    }
}
