//! The settings of a running host: read again on SIGHUP, when the file changes, and when someone asks; all of it or nothing.
//!
//! A reading with a mistake changes nothing. A good one goes to those whose matter it is: the pipeline takes the routes between
//! two events, the writer and the journal's reader follow it, the loader takes limits for the versions to come. What is built
//! into the running host keeps its value and is named. The environment and the flags are those of the start, and stand above
//! the file as they did there. `file` watches the file. Knows nothing of what a setting means.

mod file;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use crate::clock;
use crate::config::{
    self, Changes, Config, FilterLimits, Log, Mistakes, Sources, changes, load, load_again,
};
use crate::esl::Allowed;
use crate::metrics::Metrics;
use crate::pipeline::Arrivals;
use crate::route::Routes;
use crate::stamp::{SETTLE, Stamp};

pub use file::watch;

/// So often a file is read that changes meanwhile; it is looked at again later anyway.
const READS: u32 = 20;

/// Changes level and format of the log.
pub type SetLog = Arc<dyn Fn(Log) + Send + Sync>;

/// Settings as they were read once, and where.
#[derive(Clone)]
pub struct Reading {
    sources: Sources,
    /// The file as it was.
    stamp: Option<Stamp>,
    /// What they say.
    pub config: Config,
}

impl Reading {
    /// Reads all settings for a host that starts.
    ///
    /// # Errors
    /// Every mistake that there is.
    pub fn first(sources: Sources) -> Result<Reading, Mistakes> {
        let file = sources.path();
        let stamp = file.as_deref().and_then(stamp_of);
        let config = load(sources.clone())?;
        Ok(Reading {
            sources: Sources { file, ..sources },
            stamp,
            config,
        })
    }

    /// The same for the running host, whose file must stay as it is while it is read.
    fn again(before: &Sources) -> (Option<Stamp>, Result<Reading, Mistakes>) {
        // A file that was not there at the start may be there by now.
        let sources = Sources {
            file: before.path(),
            ..before.clone()
        };
        let stamp = || sources.file.as_deref().and_then(stamp_of);
        let mut reads = 0;
        loop {
            let before = stamp();
            let loaded = load_again(sources.clone());
            reads += 1;
            if stamp() == before || reads == READS {
                let reading = loaded.map(|config| Reading {
                    sources,
                    stamp: before.clone(),
                    config,
                });
                return (before, reading);
            }
            std::thread::sleep(SETTLE);
        }
    }
}

/// Unlike a filter's, a settings file may be a link to anywhere.
fn stamp_of(path: &Path) -> Option<Stamp> {
    Stamp::of(path, Path::new("/"))
}

/// The route table of these settings.
pub fn routes(config: &Config) -> Routes {
    Routes::new(&config.streams, &config.routes, &config.dead_letter).asking(&config.esl.events)
}

/// What became of a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These changes.
    Taken(Changes),
    /// The settings before stay.
    Refused(Mistakes),
}

/// What `/status` shows.
#[derive(Clone, Debug, Serialize)]
pub struct SettingsStatus {
    /// The file that is read; none: there is none.
    pub file: Option<String>,
    /// When the settings in force were read, in microseconds since the epoch.
    pub loaded_us: u64,
    /// How often settings were taken since the start.
    pub reloads: u64,
    /// The last reading that was refused; older than `loaded_us` if a good one came after it.
    pub last_refusal: Option<LastRefusal>,
    /// Settings that were changed and take effect at the next start.
    pub at_start: Vec<&'static str>,
}

/// A reading that changed nothing.
#[derive(Clone, Debug, Serialize)]
pub struct LastRefusal {
    /// When, in microseconds since the epoch.
    pub at_us: u64,
    /// Why, each as at a start.
    pub mistakes: Vec<String>,
}

/// Those who follow the settings.
pub struct Followers {
    /// The pipeline, which takes the table between two events, and those who make its decisions again or write them.
    pub routes: watch::Sender<Arc<Routes>>,
    /// Wakes the pipeline.
    pub arrivals: Arc<Arrivals>,
    /// The loader, for versions to come.
    pub filter_limits: watch::Sender<FilterLimits>,
    /// Those who run commands.
    pub allowed: watch::Sender<Allowed>,
    /// Latencies, and the count of readings.
    pub metrics: Arc<Metrics>,
    /// The log.
    pub log: SetLog,
}

/// The settings of this host.
pub struct Settings {
    started: Config,
    followers: Followers,
    /// Held while the file is read.
    in_force: Mutex<Reading>,
    status: Mutex<SettingsStatus>,
}

impl Settings {
    /// Settings that the host has started with.
    pub fn new(reading: Reading, followers: Followers) -> Settings {
        let status = SettingsStatus {
            file: shown(&reading.sources),
            loaded_us: clock::now_us(),
            reloads: 0,
            last_refusal: None,
            at_start: Vec::new(),
        };
        Settings {
            started: reading.config.clone(),
            followers,
            in_force: Mutex::new(reading),
            status: Mutex::new(status),
        }
    }

    /// The commands that may be run, as they change.
    pub fn allowed(&self) -> watch::Receiver<Allowed> {
        self.followers.allowed.subscribe()
    }

    /// As they are.
    pub fn status(&self) -> SettingsStatus {
        lock(&self.status).clone()
    }

    /// Reads all settings again and takes them, or says what is wrong with them. What is received after it returns is routed by
    /// them. Reads files, so it is no work for the runtime's threads; [`Settings::reload`] is.
    pub fn reload_now(&self) -> Outcome {
        let mut in_force = lock(&self.in_force);
        let (stamp, reading) = Reading::again(&in_force.sources);
        match reading {
            Ok(reading) => {
                let changes = changes(&self.started, &in_force.config, &reading.config);
                self.take(&in_force.config, &reading, &changes);
                *in_force = reading;
                Outcome::Taken(changes)
            }
            Err(mistakes) => {
                // It is not tried again before it changes.
                in_force.stamp = stamp;
                self.refuse(&mistakes);
                Outcome::Refused(mistakes)
            }
        }
    }

    /// The same from a task; none: the host ends.
    pub async fn reload(self: Arc<Self>) -> Option<Outcome> {
        let reload = tokio::task::spawn_blocking(move || self.reload_now());
        reload.await.ok()
    }

    fn take(&self, before: &Config, reading: &Reading, changes: &Changes) {
        let (config, followers) = (&reading.config, &self.followers);
        if before.log != config.log {
            (followers.log)(config.log);
        }
        let is_routed_alike = before.streams == config.streams
            && before.routes == config.routes
            && before.dead_letter == config.dead_letter
            && before.esl.events == config.esl.events;
        if !is_routed_alike {
            let routes = routes(config).after(&followers.routes.borrow());
            followers.routes.send_replace(Arc::new(routes));
            followers.arrivals.wake();
        }
        let limits = config.filters.limits.clone();
        followers.filter_limits.send_replace(limits);
        let allowed = Allowed(config.esl.allow.clone());
        followers.allowed.send_replace(allowed);
        followers.metrics.limit(&config.limits);
        followers.metrics.settings_reloaded("taken");
        {
            let mut status = lock(&self.status);
            status.file = shown(&reading.sources);
            status.loaded_us = clock::now_us();
            status.reloads += 1;
            status.at_start.clone_from(&changes.at_start);
        }
        let changed = match changes.now.as_slice() {
            [] => "nothing".to_owned(),
            now => now.join(", "),
        };
        tracing::info!(changed, "settings reloaded");
        for setting in &changes.at_start {
            tracing::warn!(setting, "setting takes effect at the next start");
        }
        let known = &before.notes;
        let notes = config.notes.iter().filter(|note| !known.contains(note));
        notes.for_each(note);
    }

    fn refuse(&self, mistakes: &Mistakes) {
        for mistake in mistakes.iter() {
            tracing::error!(%mistake, "mistake in the settings");
        }
        tracing::error!("settings refused: those before stay in force");
        self.followers.metrics.settings_reloaded("refused");
        lock(&self.status).last_refusal = Some(LastRefusal {
            at_us: clock::now_us(),
            mistakes: mistakes.iter().map(ToString::to_string).collect(),
        });
    }
}

/// Says that a variable has no effect.
pub fn note(note: &config::Note) {
    tracing::info!(
        variable = note.variable,
        why = note.why,
        "variable accepted without effect"
    );
}

fn shown(sources: &Sources) -> Option<String> {
    let file = sources.file.as_deref();
    file.map(|file| file.to_string_lossy().into_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
