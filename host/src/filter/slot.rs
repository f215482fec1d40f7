//! One filter of the chain: a component with its settings, its instance, and what happens when it fails.
//!
//! A failed instance is dropped and made anew with the last saved state. One that keeps failing rests for a second, so
//! that it cannot eat the pipeline. While it cannot run, its `on_error` decides; nothing is dropped in silence.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::decision::{self, Allowance, AllowedStreams};
use super::engine::{Component, Engine, Refusal};
use super::guest::bindings::jackfield::filter::types;
use super::instance::{Failure, Instance};
use crate::config::FilterLimits;
use crate::event::{Event, Name};
use crate::metrics::FilterMetrics;

/// Failures in a row after which it rests.
const TIRED: u32 = 10;
/// How long it rests before it is tried again.
const REST: Duration = Duration::from_secs(1);
/// How many names a manifest may list.
const MAX_DECLARED: usize = 1_024;

/// What `/status` shows of a filter.
#[derive(Clone, Debug, Serialize)]
pub struct FilterStatus {
    /// The file's name without `.wasm`.
    pub file: Arc<str>,
    /// The manifest's name; empty while it never ran.
    pub name: String,
    /// The manifest's version.
    pub version: String,
    /// SHA-256 of the component that runs, or of the refused one where none does.
    pub digest: Arc<str>,
    /// `running`, `failing` or `refused`.
    pub state: Running,
    /// The last failure or refusal.
    pub last_error: Option<String>,
}

/// Whether a filter runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Running {
    /// It handles events.
    Running,
    /// It failed too often in a row and rests.
    Failing,
    /// There is no version that could run.
    Refused,
}

/// What a filter is made of.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) component: Component,
    /// The settings for the guest, as JSON text.
    pub(super) settings: Arc<str>,
    pub(super) limits: FilterLimits,
}

/// One filter.
pub(super) struct Slot {
    pub(super) status: FilterStatus,
    /// The status is new since it was shown last.
    pub(super) changed: bool,
    made: Option<Made>,
    pub(super) metrics: FilterMetrics,
    limits: FilterLimits,
    allowed: AllowedStreams,
    instance: Option<Instance>,
    declared: Vec<Name>,
    read: Values,
    wants: Wants,
    saved: Option<Vec<u8>>,
    /// `save` failed: it is not called again but for the next version.
    cannot_save: bool,
    failures: u32,
    rests_until: Option<Instant>,
    tick_every: Option<Duration>,
    next_tick: Option<Instant>,
}

/// The declared headers' values of one event, copied out of it because the event itself moves into the store.
#[derive(Default)]
struct Values {
    text: String,
    spans: Vec<Option<Range<usize>>>,
}

impl Values {
    fn take(&mut self, declared: &[Name], event: &Event) {
        self.text.clear();
        self.spans.clear();
        for name in declared {
            let start = self.text.len();
            let value = event.get(name);
            self.text.push_str(value.as_deref().unwrap_or_default());
            self.spans.push(value.map(|_| start..self.text.len()));
        }
    }

    fn values(&self) -> Vec<Option<&str>> {
        self.spans
            .iter()
            .map(|span| self.text.get(span.clone()?))
            .collect()
    }
}

/// The events that a filter subscribed to.
#[derive(Clone, Debug, Default)]
pub(super) struct Wants {
    pub(super) all: bool,
    pub(super) names: HashSet<Box<str>>,
    pub(super) subclasses: HashSet<Box<str>>,
}

impl Wants {
    fn of(manifest: &types::Manifest) -> Wants {
        let mut wants = Wants {
            all: manifest.events.is_empty(),
            ..Wants::default()
        };
        for event in &manifest.events {
            match event.split_once(' ') {
                Some(("CUSTOM", subclass)) => wants.subclasses.insert(subclass.into()),
                _ => wants.names.insert(event.as_str().into()),
            };
        }
        wants
    }

    fn event(&self, event: &Event) -> bool {
        if self.all {
            return true;
        }
        let name = event.name();
        self.names.contains(name.as_ref())
            || (!self.subclasses.is_empty()
                && name == "CUSTOM"
                && event
                    .subclass()
                    .is_some_and(|subclass| self.subclasses.contains(subclass.as_ref())))
    }
}

impl Slot {
    /// A filter that handles events from now on.
    pub(super) fn start(
        engine: &Engine,
        file: Arc<str>,
        made: Made,
        saved: Option<Vec<u8>>,
        metrics: FilterMetrics,
        now_us: u64,
    ) -> Result<Slot, Refusal> {
        let refused = |failure: Failure| Refusal::Configure(failure.to_string());
        let (instance, manifest) =
            configured(engine, &file, &made, saved.as_deref(), now_us).map_err(refused)?;
        check_manifest(&manifest).map_err(Refusal::Configure)?;
        let tick_every = Some(Duration::from_millis(u64::from(manifest.tick_interval)))
            .filter(|every| !every.is_zero());
        metrics.version(&manifest.version, &made.component.digest);
        Ok(Slot {
            status: FilterStatus {
                file,
                name: manifest.name.clone(),
                version: manifest.version.clone(),
                digest: Arc::clone(&made.component.digest),
                state: Running::Running,
                last_error: None,
            },
            changed: true,
            limits: made.limits.clone(),
            allowed: AllowedStreams(made.limits.streams.clone()),
            made: Some(made),
            metrics,
            instance: Some(instance),
            declared: manifest
                .headers
                .iter()
                .map(|name| Name::new(name))
                .collect(),
            read: Values::default(),
            wants: Wants::of(&manifest),
            saved,
            cannot_save: false,
            failures: 0,
            rests_until: None,
            tick_every,
            next_tick: tick_every.map(|every| Instant::now() + every),
        })
    }

    /// A file that cannot run and has no version before it: it acts by its `on_error`.
    pub(super) fn refused(
        file: Arc<str>,
        (digest, limits): (Arc<str>, FilterLimits),
        metrics: FilterMetrics,
        saved: Option<Vec<u8>>,
        why: String,
    ) -> Slot {
        Slot {
            status: FilterStatus {
                file,
                name: String::new(),
                version: String::new(),
                digest,
                state: Running::Refused,
                last_error: Some(why),
            },
            changed: true,
            allowed: AllowedStreams(Vec::new()),
            limits,
            made: None,
            metrics,
            instance: None,
            declared: Vec::new(),
            read: Values::default(),
            wants: Wants {
                all: true,
                ..Wants::default()
            },
            saved,
            cannot_save: false,
            failures: 0,
            rests_until: None,
            tick_every: None,
            next_tick: None,
        }
    }

    pub(super) fn limits(&self) -> &FilterLimits {
        &self.limits
    }

    /// What it subscribed to; nothing for a refused one, which must not make FreeSWITCH send more.
    pub(super) fn wants(&self) -> Option<&Wants> {
        (self.status.state != Running::Refused).then_some(&self.wants)
    }

    pub(super) fn wants_event(&self, event: &Event) -> bool {
        self.wants.event(event)
    }

    /// Asks the filter about one event. The event comes back as it went in.
    pub(super) fn handle(
        &mut self,
        engine: &Engine,
        event: Event,
        now_us: u64,
        allowance: &mut Allowance,
    ) -> (Event, Result<types::Decision, Failure>) {
        if let Err(failure) = self.ready(engine, now_us) {
            return (event, Err(failure));
        }
        let Some(instance) = &mut self.instance else {
            return (event, Err(self.why_not()));
        };
        let started = Instant::now();
        self.read.take(&self.declared, &event);
        let (event, answer) = instance.handle(event, &self.read.values(), now_us);
        self.metrics.called(started.elapsed());
        let answer = answer
            .and_then(|decision| decision::check(&decision, &self.allowed).map(|()| decision))
            .and_then(|decision| allowance.take(&decision).map(|()| decision));
        (event, self.note(engine, answer, now_us))
    }

    /// Whether `tick` is due; it is not again before it was called.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        self.next_tick.take_if(|due| *due <= now).is_some()
    }

    /// Calls `tick`.
    pub(super) fn tick(
        &mut self,
        engine: &Engine,
        now_us: u64,
        allowance: &mut Allowance,
    ) -> Vec<types::Derived> {
        let derived = self.call_tick(engine, now_us, allowance);
        // Counted from the end of the call, and also where it was not made: a tick that is always due would leave
        // no time for events.
        self.next_tick = self.tick_every.map(|every| Instant::now() + every);
        derived.unwrap_or_default()
    }

    fn call_tick(
        &mut self,
        engine: &Engine,
        now_us: u64,
        allowance: &mut Allowance,
    ) -> Result<Vec<types::Derived>, Failure> {
        self.ready(engine, now_us)?;
        let Some(instance) = &mut self.instance else {
            return Err(self.why_not());
        };
        let answer = instance.tick(now_us);
        let answer = answer
            .and_then(|derived| decision::check_derived(&derived, &self.allowed).map(|()| derived))
            .and_then(|derived| allowance.take_derived(&derived).map(|()| derived));
        self.note(engine, answer, now_us)
    }

    pub(super) fn next_tick(&self) -> Option<Instant> {
        self.next_tick
    }

    /// Its state now, for the version that takes its place and for the next run; without an instance the one that it saved last.
    pub(super) fn save(&mut self, now_us: u64) -> Option<Vec<u8>> {
        if let Some(instance) = &mut self.instance {
            match instance.save(now_us) {
                Ok(saved) => self.saved = Some(saved).filter(|saved| !saved.is_empty()),
                Err(failure) => {
                    self.metrics.failed(failure.cause());
                    tracing::error!(filter = &*self.status.file, error = %failure, "filter could not save its state");
                    self.instance = None;
                    self.cannot_save = true;
                }
            }
        }
        self.saved.clone()
    }

    /// [`Slot::save`] from time to time; a version that failed at it once would lose its state to it again and again.
    pub(super) fn save_again(&mut self, now_us: u64) -> Option<Vec<u8>> {
        if self.cannot_save {
            return self.saved.clone();
        }
        self.save(now_us)
    }

    /// If it waits for a `tick` that was asked for, it is given another chance.
    pub(super) fn rearm(&mut self, now: Instant) {
        if self.next_tick.is_none() {
            self.next_tick = self.tick_every.map(|every| now + every);
        }
    }

    /// Makes sure that there is an instance, unless it rests.
    fn ready(&mut self, engine: &Engine, now_us: u64) -> Result<(), Failure> {
        if self.instance.is_some() {
            return Ok(());
        }
        if self.made.is_none() || self.rests_until.is_some_and(|until| Instant::now() < until) {
            return Err(self.why_not());
        }
        self.rests_until = None;
        self.rebuild(engine, now_us)
    }

    fn rebuild(&mut self, engine: &Engine, now_us: u64) -> Result<(), Failure> {
        let Some(made) = &self.made else {
            return Err(self.why_not());
        };
        match configured(
            engine,
            &self.status.file,
            made,
            self.saved.as_deref(),
            now_us,
        ) {
            Ok((instance, _)) => {
                self.instance = Some(instance);
                Ok(())
            }
            Err(failure) => {
                self.rest(&failure);
                Err(failure)
            }
        }
    }

    /// Counts a call's outcome. After a failure the instance is made anew at once, so that the next event finds it.
    fn note<T>(
        &mut self,
        engine: &Engine,
        answer: Result<T, Failure>,
        now_us: u64,
    ) -> Result<T, Failure> {
        if let Some(instance) = &mut self.instance {
            let guest = instance.guest();
            self.metrics.custom(guest.take_counts());
            self.metrics.output_dropped(guest.take_dropped_output());
        }
        match answer {
            Ok(answer) => {
                if self.status.state != Running::Running {
                    self.status.state = Running::Running;
                    self.changed = true;
                    tracing::info!(filter = &*self.status.file, "filter works again");
                }
                self.failures = 0;
                Ok(answer)
            }
            Err(failure) => {
                self.failed(&failure);
                if self.instance.is_none() && self.rests_until.is_none() {
                    // A failure to come back is noted by the filter's own state.
                    let _rebuilt = self.rebuild(engine, now_us);
                }
                Err(failure)
            }
        }
    }

    fn failed(&mut self, failure: &Failure) {
        self.metrics.failed(failure.cause());
        self.instance = None;
        self.failures += 1;
        let error = failure.to_string();
        if self.status.last_error.as_deref() != Some(&error) {
            tracing::warn!(filter = &*self.status.file, error, on_error = ?self.limits.on_error, "filter failed");
        }
        self.status.last_error = Some(error);
        self.changed = true;
        if self.failures.is_multiple_of(TIRED) {
            self.rest(failure);
        }
    }

    fn rest(&mut self, failure: &Failure) {
        self.rests_until = Some(Instant::now() + REST);
        self.status.last_error = Some(failure.to_string());
        self.changed = true;
        if self.status.state == Running::Running {
            self.status.state = Running::Failing;
            tracing::error!(
                filter = &*self.status.file, error = %failure, failures = self.failures, on_error = ?self.limits.on_error,
                "filter keeps failing and rests between tries"
            );
        }
    }

    fn why_not(&self) -> Failure {
        Failure::NotRunning(self.status.last_error.clone().unwrap_or_default())
    }
}

/// Whether a version can start, tried in an instance of its own.
pub(super) fn rehearse(
    engine: &Engine,
    file: &Arc<str>,
    made: &Made,
    now_us: u64,
) -> Result<(), Refusal> {
    let (_, manifest) = configured(engine, file, made, None, now_us)
        .map_err(|failure| Refusal::Configure(failure.to_string()))?;
    check_manifest(&manifest).map_err(Refusal::Configure)
}

fn configured(
    engine: &Engine,
    file: &Arc<str>,
    made: &Made,
    saved: Option<&[u8]>,
    now_us: u64,
) -> Result<(Instance, types::Manifest), Failure> {
    let limits = &made.limits;
    let mut instance = Instance::new(
        engine,
        &made.component,
        Arc::clone(file),
        limits.deadline,
        limits.memory,
    )?;
    let manifest = instance.configure(&made.settings, saved, now_us)?;
    Ok((instance, manifest))
}

fn check_manifest(manifest: &types::Manifest) -> Result<(), String> {
    let word =
        |text: &str| !text.is_empty() && text.len() <= 128 && !text.chars().any(char::is_control);
    if !word(&manifest.name) || !word(&manifest.version) {
        return Err(format!(
            "manifest: name {:?} or version {:?} is empty or too long",
            manifest.name, manifest.version
        ));
    }
    if manifest.events.len() > MAX_DECLARED || manifest.headers.len() > MAX_DECLARED {
        return Err(format!("manifest: over {MAX_DECLARED} events or headers"));
    }
    let name = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    for event in &manifest.events {
        let valid = match event.split_once(' ') {
            Some((custom, subclass)) => {
                custom == "CUSTOM" && word(subclass) && !subclass.contains(' ')
            }
            None => name(event) && event != "ALL",
        };
        if !valid {
            return Err(format!(
                "manifest: event {event:?}; allowed are an Event-Name in capitals and `CUSTOM <subclass>`"
            ));
        }
    }
    match manifest.headers.iter().find(|header| header.is_empty()) {
        Some(_) => Err("manifest: a header's name is empty".to_owned()),
        None => Ok(()),
    }
}
