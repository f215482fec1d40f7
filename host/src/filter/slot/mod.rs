//! One place of the chain: the version that handles events, the good ones before it, and what happens when it fails.
//!
//! A failed instance is dropped, and the spare takes its place with the last saved state. One that keeps failing rests for a
//! second, so that it cannot eat the pipeline. A version that does badly is [taken back](taken_back) for the last good one. While
//! none can run, the filter's policy decides; nothing is dropped in silence.

mod taken_back;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::decision::Allowance;
use super::guest::bindings::jackfield::filter::types;
use super::instance::Failure;
use super::kept::Kept;
use super::probation::{Tally, Watch};
use super::refusal::{Refusal, short};
use super::shadow::Shadow;
use super::status::{Attempt, FilterStatus, Running};
use super::step::{Edit, Step, Verdict};
use super::version::{Active, Made, Wants};
use super::workshop::Workshop;
use crate::clock;
use crate::config::{FilterLimits, OnError};
use crate::event::Event;
use crate::journal::Lsn;
use crate::metrics::{FilterMetrics, Window};

pub use taken_back::{Became, NoWayBack, Report, RolledBack};

/// Failures in a row after which it rests.
const TIRED: u32 = 10;
/// Failures of `save` in a row after which it is not called again but for the next version.
const FAILED_SAVES: u32 = 3;
/// How long it rests before it is tried again.
const REST: Duration = Duration::from_secs(1);
/// What a call takes is told up to this; only a host that is stopped takes longer.
const MAX_COST_NS: u64 = 1_000_000_000;

/// A file that may not run.
pub(super) struct Refused {
    pub(super) digest: Arc<str>,
    pub(super) limits: FilterLimits,
    pub(super) why: Refusal,
}

/// One filter.
pub(super) struct Slot {
    pub(super) status: FilterStatus,
    /// The status is new since it was shown last.
    pub(super) changed: bool,
    pub(super) metrics: FilterMetrics,
    pub(super) shadow: Option<Shadow>,
    active: Option<Active>,
    /// What the version before it subscribed to.
    wanted_before: Option<Wants>,
    limits: FilterLimits,
    /// The newest first; the version that runs is among them once it is good.
    good: Vec<Made>,
    watch: Watch,
    /// What its calls took, in nanoseconds.
    costs: Window,
    kept: Kept,
    /// The newest input that it was asked about.
    seen: Lsn,
    /// What the version before it saved for this one.
    handed_over: Option<Bytes>,
    /// In a row.
    failed_saves: u32,
    failures: u32,
    rests: Option<Rest>,
    suspended: Option<Instant>,
    next_tick: Option<Instant>,
    reports: Vec<Report>,
    /// What it does is not for real.
    is_warming: bool,
}

/// After too many failures.
struct Rest {
    until: Instant,
    after: Failure,
}

/// What came of an event in one filter.
pub(super) struct Handled {
    pub(super) step: Step,
    pub(super) emit: Vec<types::Derived>,
}

impl Slot {
    /// A place that no version runs in yet; what is kept the first one starts from.
    pub(super) fn vacant(kept: Kept, limits: FilterLimits, metrics: FilterMetrics) -> Slot {
        Slot {
            status: FilterStatus::new(Arc::clone(&kept.file)),
            changed: true,
            metrics,
            shadow: None,
            active: None,
            wanted_before: None,
            limits,
            good: Vec::new(),
            watch: Watch::new(Instant::now(), None, false, None),
            costs: Window::new(MAX_COST_NS),
            seen: kept.lsn,
            kept,
            handed_over: None,
            failed_saves: 0,
            failures: 0,
            rests: None,
            suspended: None,
            next_tick: None,
            reports: Vec::new(),
            is_warming: false,
        }
    }

    /// Versions that it may go back to, of an earlier run of the host.
    pub(super) fn knows_good(&mut self, good: Vec<Made>) {
        if self.good.is_empty() {
            self.good = good;
        }
    }

    pub(super) fn limits(&self) -> &FilterLimits {
        &self.limits
    }

    /// What it keeps if the host ends now without asking it; nothing where no version ever ran.
    pub(super) fn kept(&self) -> Option<&Kept> {
        let is_some = self.active.is_some() || self.kept.state.is_some();
        is_some.then_some(&self.kept)
    }

    /// It starts from this from now on.
    fn keep(&mut self, state: Option<Bytes>) {
        self.kept.state = state;
        self.kept.lsn = self.seen;
    }

    /// Brings a version live in place of the one that runs, whose state it gets. If it does not start, nothing changes.
    pub(super) fn start(
        &mut self,
        workshop: &Workshop,
        made: Made,
        now_us: u64,
    ) -> Result<(), Refusal> {
        let saved = self.save(workshop, now_us);
        let is_good = self.good.first().is_some_and(|good| good.is_same(&made));
        let file = Arc::clone(&self.status.file);
        let started = Active::start(workshop, &file, made.clone(), saved.as_ref(), now_us);
        let active = started.inspect_err(|_| self.report(&made, Became::NotStarted))?;
        let before = self.watch.baseline().filter(|_| self.active.is_some());
        let active_before = self.active.as_mut();
        self.wanted_before = active_before.map(|before| std::mem::take(&mut before.wants));
        self.handed_over.clone_from(&saved);
        self.keep(saved);
        self.put(workshop, active, is_good, before);
        Ok(())
    }

    fn put(&mut self, workshop: &Workshop, active: Active, is_good: bool, before: Option<Tally>) {
        let now = Instant::now();
        self.limits = active.made.limits.clone();
        let probation = (!is_good).then_some(self.limits.probation);
        self.watch = Watch::new(now, probation, self.limits.fuse, before);
        let digest = &active.made.component.digest;
        self.metrics.version(&active.version, digest);
        self.status.name.clone_from(&active.name);
        self.status.version = Arc::clone(&active.version);
        self.status.digest = Arc::clone(digest);
        self.status.state = Running::Running;
        self.status.since_us = clock::now_us();
        self.status.last_error = None;
        self.status.last_error_us = None;
        self.failed_saves = 0;
        self.failures = 0;
        self.rests = None;
        self.suspended = None;
        self.next_tick = active.tick_every.map(|every| now + every);
        if let Some(before) = self.active.replace(active) {
            workshop.discard(before);
        }
        self.changed = true;
    }

    /// A file that may not run. The version that runs stays; without one the last good version of an earlier run is started.
    pub(super) fn refuse(&mut self, workshop: &Workshop, refused: Refused, now_us: u64) {
        let Refused {
            digest,
            limits,
            why,
        } = refused;
        self.metrics.refused();
        let error = short(why.to_string());
        if self.active.is_none() {
            self.limits = limits;
            self.status.digest = Arc::clone(&digest);
            self.status.state = Running::Refused;
            let states = [self.kept.state.clone(), None];
            match self.start_good(workshop, &states, now_us) {
                Ok(active) => self.put(workshop, active, true, None),
                Err(NoWayBack::NoStart(_, error)) => {
                    let filter = &*self.status.file;
                    tracing::error!(filter, error, "the last good version does not start");
                }
                Err(_) => {}
            }
        }
        let filter = &*self.status.file;
        let admission = self.status.attempts.back().map(Attempt::line);
        match &self.active {
            Some(active) => tracing::error!(
                filter,
                digest = &*digest,
                error,
                admission,
                version = &*active.version,
                "filter refused; the running version stays"
            ),
            None => tracing::error!(
                filter, digest = &*digest, error, admission, on_load = ?self.limits.on_error.load,
                "filter refused; events are treated by its on_load"
            ),
        }
        self.status.complain(error);
        self.changed = true;
    }

    pub(super) fn tried(&mut self, attempt: Attempt) {
        self.status.tried(attempt);
        self.changed = true;
    }

    /// What `/status` shows.
    pub(super) fn status(&self) -> FilterStatus {
        let is_another = |good: &&Made| {
            let active = self.active.as_ref();
            !active.is_some_and(|active| active.made.is_same(good))
        };
        let good = self.good.iter().filter(is_another);
        let (p50_ns, p99_ns) = self.costs.p50_p99();
        FilterStatus {
            p50_ns,
            p99_ns,
            probation: self.active.is_some() && self.watch.is_on_probation(),
            tally: self.watch.tally,
            good: good
                .map(|made| Arc::clone(&made.component.digest))
                .collect(),
            shadow: self.shadow.as_ref().map(Shadow::status),
            ..self.status.clone()
        }
    }

    /// What calls took is told of the last seconds before `now`.
    pub(super) fn forget_costs(&mut self, now: Instant) {
        self.costs.turn(now);
    }

    /// Time that the running version has taken, in nanoseconds.
    pub(super) fn took_ns(&self) -> u64 {
        self.watch.tally.took_ns
    }

    /// What it subscribed to; nothing for one that does not run, which must not make FreeSWITCH send more.
    pub(super) fn wants(&self) -> Option<&Wants> {
        self.active.as_ref().map(|active| &active.wants)
    }

    /// Whether the event is one for this filter. One that nothing is known of is asked about all: its policy decides.
    fn wants_event(&self, event: &Event) -> bool {
        match &self.active {
            Some(active) => active.wants.event(event),
            None => self.status.state != Running::Absent,
        }
    }

    /// A copy of the event for the shadow, if that is to compare it.
    pub(super) fn before_shadow(&self, event: &Event) -> Option<Event> {
        let shadow = self.shadow.as_ref()?;
        (shadow.wants_event(event) || self.wants_event(event)).then(|| event.clone())
    }

    /// The shadow's time passes with that of its namesake.
    pub(super) fn tick_shadow(&self, now_us: u64) {
        if let Some(shadow) = &self.shadow {
            shadow.tick(now_us);
        }
    }

    /// Whether it is to be called for an event that comes by. The event counts where the version before it was called, too.
    pub(super) fn is_called_for(&mut self, event: &Event, lsn: Lsn) -> bool {
        self.seen = lsn;
        let is_called = self.wants_event(event);
        let before = self.wanted_before.as_ref();
        if is_called || before.is_some_and(|before| before.event(event)) {
            self.watch.tally.events += 1;
        }
        is_called
    }

    /// From now on it runs again over what it has seen before, or not any more.
    pub(super) fn warm_up(&mut self, is_warming: bool) {
        self.is_warming = is_warming;
        self.watch.forget(Instant::now());
    }

    /// Asks the filter about one event. A failure is treated by its policy.
    pub(super) fn handle(
        &mut self,
        workshop: &Workshop,
        event: &mut Event,
        now_us: u64,
        allowance: &mut Allowance,
    ) -> Handled {
        let (answer, took_ns) = self.call(workshop, event, now_us, allowance);
        let failure = match answer {
            Ok(decision) => return self.decided(decision, took_ns),
            Err(failure) => failure,
        };
        let on_error = self.on_error(&failure);
        if on_error == OnError::LastGood && self.fails_over(workshop, &failure, now_us) {
            let (answer, took_ns) = self.call(workshop, event, now_us, allowance);
            return match answer {
                Ok(decision) => self.decided(decision, took_ns),
                Err(failure) => self.failed_event(OnError::Pass, &failure, took_ns),
            };
        }
        self.failed_event(on_error, &failure, took_ns)
    }

    /// The policy of the failure is the last good version; whether there is one.
    fn fails_over(&mut self, workshop: &Workshop, failure: &Failure, now_us: u64) -> bool {
        if self.is_warming {
            return false;
        }
        let started = Instant::now();
        let gone_back = self.go_back(workshop, failure.cause(), &failure.to_string(), now_us);
        self.spent(started);
        // The event that it failed on is still to come to the good one.
        self.kept.lsn = self.kept.lsn.min(self.seen.saturating_sub(1));
        gone_back.is_ok()
    }

    /// The pipeline waited for it since then.
    fn spent(&mut self, since: Instant) {
        let took_ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.watch.tally.took_ns += took_ns;
    }

    fn call(
        &mut self,
        workshop: &Workshop,
        event: &mut Event,
        now_us: u64,
        allowance: &mut Allowance,
    ) -> (Result<types::Decision, Failure>, u32) {
        if let Err(failure) = self.ready(workshop, now_us) {
            return (Err(failure), 0);
        }
        let Some(active) = &mut self.active else {
            return (Err(self.why_not()), 0);
        };
        let started = Instant::now();
        let answer = active.handle(event, now_us, allowance);
        let took = started.elapsed();
        self.metrics.called(took);
        let took_ns = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
        self.costs.record(u64::from(took_ns));
        let tally = &mut self.watch.tally;
        tally.calls += 1;
        tally.took_ns += u64::from(took_ns);
        (self.note(workshop, answer, now_us), took_ns)
    }

    fn decided(&mut self, decision: types::Decision, took_ns: u32) -> Handled {
        let mut step = self.step(took_ns);
        step.edits = decision.edits.into_iter().map(Edit::from).collect();
        step.verdict = decision.verdict.into();
        self.metrics.verdict(step.verdict.label());
        let tally = &mut self.watch.tally;
        match step.verdict {
            Verdict::Pass => {}
            Verdict::Route(_) => tally.reroutes += 1,
            Verdict::Drop(_) | Verdict::DeadLetter(_) => tally.drops += 1,
        }
        Handled {
            step,
            emit: decision.emit,
        }
    }

    fn failed_event(&self, on_error: OnError, failure: &Failure, took_ns: u32) -> Handled {
        let mut step = self.step(took_ns);
        step.verdict = match on_error {
            OnError::Pass | OnError::LastGood => Verdict::Pass,
            OnError::Drop => Verdict::Drop(failure.cause().to_owned()),
            OnError::DeadLetter => Verdict::DeadLetter(failure.to_string()),
        };
        step.failure = Some(failure.to_string());
        self.metrics.verdict(step.verdict.label());
        Handled {
            step,
            emit: Vec::new(),
        }
    }

    fn step(&self, took_ns: u32) -> Step {
        let (version, digest) = match &self.active {
            Some(active) => (
                Arc::clone(&active.version),
                Arc::clone(&active.short_digest),
            ),
            None => ("".into(), "".into()),
        };
        Step {
            by: Arc::clone(&self.status.file),
            version,
            digest,
            took_ns,
            verdict: Verdict::Pass,
            edits: Vec::new(),
            failure: None,
        }
    }

    /// While it rests, the policy of what made it rest.
    fn on_error(&self, failure: &Failure) -> OnError {
        let policy = &self.limits.on_error;
        let failure = match (failure, &self.rests) {
            (Failure::NotRunning(_), Some(rest)) => &rest.after,
            _ => failure,
        };
        match failure {
            Failure::Trap(_) => policy.trap,
            Failure::Deadline(_) => policy.deadline,
            Failure::Memory(_) => policy.memory,
            Failure::BadOutput(_) => policy.bad_output,
            Failure::Refused(_) | Failure::NotRunning(_) => policy.load,
        }
    }

    /// Whether `tick` is due; it is not again before it was called.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        self.next_tick.take_if(|due| *due <= now).is_some()
    }

    /// Calls `tick`.
    pub(super) fn tick(
        &mut self,
        workshop: &Workshop,
        lsn: Lsn,
        now_us: u64,
        allowance: &mut Allowance,
    ) -> Vec<types::Derived> {
        self.seen = lsn;
        let derived = self.call_tick(workshop, now_us, allowance);
        // Counted from the end of the call, and also where it was not made: a tick that is always due would leave
        // no time for events.
        self.next_tick = self.tick_every().map(|every| Instant::now() + every);
        derived.unwrap_or_default()
    }

    fn call_tick(
        &mut self,
        workshop: &Workshop,
        now_us: u64,
        allowance: &mut Allowance,
    ) -> Result<Vec<types::Derived>, Failure> {
        self.ready(workshop, now_us)?;
        let Some(active) = &mut self.active else {
            return Err(self.why_not());
        };
        let started = Instant::now();
        let answer = active.tick(now_us, allowance);
        self.watch.tally.calls += 1;
        self.spent(started);
        self.note(workshop, answer, now_us)
    }

    pub(super) fn next_tick(&self) -> Option<Instant> {
        self.next_tick
    }

    fn tick_every(&self) -> Option<Duration> {
        self.active.as_ref()?.tick_every
    }

    /// If it waits for a `tick` that was asked for, it is given another chance.
    pub(super) fn rearm(&mut self, now: Instant) {
        if self.next_tick.is_none() {
            self.next_tick = self.tick_every().map(|every| now + every);
        }
    }

    /// Its state now, for the version that takes its place and for the next run; without an instance the one that it saved last.
    fn save(&mut self, workshop: &Workshop, now_us: u64) -> Option<Bytes> {
        let Some(active) = &mut self.active else {
            return self.kept.state.clone();
        };
        if let Some(instance) = active.instance() {
            match instance.save(now_us) {
                Ok(saved) => {
                    self.failed_saves = 0;
                    let saved = Some(Bytes::from(saved)).filter(|saved| !saved.is_empty());
                    if saved != self.kept.state {
                        active.renew_spare(workshop, saved.as_ref(), now_us);
                    }
                    self.keep(saved);
                }
                Err(failure) => {
                    self.metrics.failed(failure.cause());
                    let error = failure.to_string();
                    tracing::error!(
                        filter = &*self.status.file,
                        error,
                        "filter could not save its state"
                    );
                    self.status.complain(format!("state not saved: {error}"));
                    self.changed = true;
                    active.discard_instance();
                    // On a busy machine it may have been late by accident.
                    self.failed_saves += match failure {
                        Failure::Deadline(_) => 1,
                        _ => FAILED_SAVES,
                    };
                }
            }
        }
        self.kept.state.clone()
    }

    /// Its state from time to time, after this input. A version that failed at saving too often would lose its state to it again and
    /// again: it is not asked any more, and starts from what it saved last, without what came since.
    pub(super) fn save_again(&mut self, workshop: &Workshop, lsn: Lsn, now_us: u64) {
        if self.failed_saves < FAILED_SAVES {
            self.save(workshop, now_us);
        }
        self.seen = lsn;
        self.kept.lsn = lsn;
    }

    /// Makes sure that there is an instance, unless it rests or is suspended.
    fn ready(&mut self, workshop: &Workshop, now_us: u64) -> Result<(), Failure> {
        let is_resting = |rest: &Rest| Instant::now() < rest.until;
        if self.suspended.is_some() || self.rests.as_ref().is_some_and(is_resting) {
            return Err(self.why_not());
        }
        let Some(active) = &mut self.active else {
            return Err(self.why_not());
        };
        self.rests = None;
        if active.instance().is_some() {
            return Ok(());
        }
        let started = Instant::now();
        let ready = active.ready(workshop, self.kept.state.as_ref(), now_us);
        self.spent(started);
        ready.inspect_err(|failure| self.rest(failure))
    }

    /// Counts a call's outcome. After a failure the spare takes over at once, so that the next event finds it.
    fn note<T>(
        &mut self,
        workshop: &Workshop,
        answer: Result<T, Failure>,
        now_us: u64,
    ) -> Result<T, Failure> {
        if let Some(instance) = self.active.as_mut().and_then(Active::instance) {
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
                if self.rests.is_none() {
                    // A failure to come back is noted by the filter's own state.
                    let _rebuilt = self.ready(workshop, now_us);
                }
                Err(failure)
            }
        }
    }

    fn failed(&mut self, failure: &Failure) {
        self.metrics.failed(failure.cause());
        if let Some(active) = &mut self.active {
            active.discard_instance();
        }
        self.watch.tally.failures += 1;
        self.failures += 1;
        let error = failure.to_string();
        if self.status.last_error.as_deref() != Some(&error) {
            tracing::warn!(filter = &*self.status.file, error, on_error = ?self.on_error(failure), "filter failed");
        }
        self.status.complain(error);
        self.changed = true;
        if self.failures.is_multiple_of(TIRED) {
            self.rest(failure);
        }
    }

    fn rest(&mut self, failure: &Failure) {
        self.rests = Some(Rest {
            until: Instant::now() + REST,
            after: failure.clone(),
        });
        self.status.complain(failure.to_string());
        self.changed = true;
        if self.status.state == Running::Running {
            self.status.state = Running::Failing;
            tracing::error!(
                filter = &*self.status.file, error = failure.to_string(), failures = self.failures, on_error = ?self.on_error(failure),
                "filter keeps failing and rests between tries"
            );
        }
    }

    fn why_not(&self) -> Failure {
        Failure::NotRunning(self.status.last_error.clone().unwrap_or_default())
    }
}
