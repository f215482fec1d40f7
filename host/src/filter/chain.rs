//! The chain: every event through the filters in order, and the events that they derive through the ones after them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use super::decision::Allowance;
use super::difference::Answer;
use super::engine::Engine;
use super::guest::bindings::jackfield::filter::types;
use super::kept::Kept;
use super::loader::{Change, Plan, Planned};
use super::probation::Load;
use super::refusal::short;
use super::rehearsal::Occasion;
use super::shadow::Shadow;
use super::slot::{Handled, NoWayBack, Refused, Report, RolledBack, Slot};
use super::status::{Attempt, FilterStatus};
use super::step::{Derived, Step, Verdict};
use super::version::Made;
use super::workshop::Workshop;
use crate::config::FilterLimits;
use crate::esl::Subscription;
use crate::event::Event;
use crate::journal::Lsn;
use crate::metrics::Metrics;

/// An event after the chain.
#[derive(Debug)]
pub struct Decided {
    /// With all edits.
    pub event: Event,
    /// What a filter made it of; `None` for the input's own event.
    pub derived: Option<Derived>,
    /// What the filters did, in order.
    pub steps: Vec<Step>,
    /// The streams that the filter that derived it named, if no filter after it said otherwise.
    pub streams: Vec<Arc<str>>,
}

impl Decided {
    /// The last verdict that is none of passing on, and whose it is; `None`: the routes decide.
    pub fn verdict(&self) -> Option<(&Arc<str>, &Verdict)> {
        let mut steps = self.steps.iter().rev();
        let step = steps.find(|step| step.verdict != Verdict::Pass)?;
        Some((&step.by, &step.verdict))
    }
}

/// The filters in order.
pub struct Chain {
    workshop: Arc<Workshop>,
    metrics: Arc<Metrics>,
    slots: Vec<Slot>,
    /// Of the run before this one, until the filter starts.
    restored: HashMap<Arc<str>, Kept>,
    /// The newest input that came to it.
    lsn: Lsn,
    load: Load,
    /// Filters in the folder beyond those that may run.
    ignored: usize,
    /// Threads of shadows that are gone.
    leaving: Vec<JoinHandle<()>>,
}

impl Chain {
    /// A chain without filters.
    ///
    /// # Errors
    /// Its thread does not start.
    pub fn new(engine: Arc<Engine>, metrics: Arc<Metrics>) -> std::io::Result<Chain> {
        Ok(Chain {
            workshop: Arc::new(Workshop::new(engine)?),
            metrics,
            slots: Vec::new(),
            restored: HashMap::new(),
            lsn: 0,
            load: Load::new(Instant::now()),
            ignored: 0,
            leaving: Vec::new(),
        })
    }

    /// Takes the chain to what the folder holds now. It is called between two events: what an old version saved here, the
    /// new one starts from. A version that cannot start leaves the one before it in place.
    pub fn apply(&mut self, change: Change, now_us: u64) {
        let mut before: HashMap<Arc<str>, Slot> = self
            .slots
            .drain(..)
            .map(|slot| (Arc::clone(&slot.status.file), slot))
            .collect();
        let mut shadows: HashMap<Arc<str>, Shadow> = HashMap::new();
        for slot in before.values_mut() {
            if let Some(shadow) = slot.shadow.take() {
                shadows.insert(Arc::clone(&slot.status.file), shadow);
            }
        }
        for planned in change.planned {
            let old = before.remove(&planned.file);
            let slot = self.planned(planned, old, now_us);
            self.slots.extend(slot);
        }
        // What is not in the folder now is no filter's state any more.
        self.restored.clear();
        for planned in change.shadows {
            let old = shadows.remove(&planned.file);
            let place = before.get(&planned.file);
            self.make_place(&planned, place.map(|slot| slot.limits().clone()));
            self.shadow(planned, old, now_us);
        }
        for (file, slot) in before {
            if slot.wants().is_some() {
                tracing::info!(
                    filter = &*file,
                    version = &*slot.status.version,
                    "filter removed"
                );
            }
            slot.metrics.forget();
            self.workshop.discard(slot);
        }
        for (file, shadow) in shadows {
            tracing::info!(filter = &*file, "shadow removed");
            self.leaving.extend(shadow.leave());
        }
        self.join_leaving();
        self.load = Load::new(Instant::now());
        self.ignored = change.ignored;
    }

    fn planned(&mut self, planned: Planned, old: Option<Slot>, now_us: u64) -> Option<Slot> {
        let Planned {
            file,
            plan,
            good,
            attempt,
        } = planned;
        let place = |chain: &mut Chain, old: Option<Slot>, limits: &FilterLimits| {
            let mut slot = old.unwrap_or_else(|| {
                let kept = chain.restored.remove(&file);
                let kept = kept.unwrap_or_else(|| chain.nothing_kept(&file));
                Slot::vacant(kept, limits.clone(), chain.metrics.filter(&file))
            });
            slot.knows_good(good);
            slot
        };
        let (mut slot, refused) = match plan {
            Plan::Keep => return old,
            Plan::Start(made) => {
                let mut slot = place(self, old, &made.limits);
                let refused = self.start(&mut slot, made, attempt, now_us);
                (slot, refused.err())
            }
            Plan::Refused(refused) => {
                let mut slot = place(self, old, &refused.limits);
                attempt.into_iter().for_each(|attempt| slot.tried(attempt));
                (slot, Some(refused))
            }
        };
        if let Some(refused) = refused {
            slot.refuse(&self.workshop, refused, now_us);
        }
        Some(slot)
    }

    fn start(
        &self,
        slot: &mut Slot,
        made: Made,
        attempt: Option<Attempt>,
        now_us: u64,
    ) -> Result<(), Refused> {
        let (digest, limits) = (Arc::clone(&made.component.digest), made.limits.clone());
        let mut attempt = attempt.unwrap_or_else(|| Attempt::new(now_us, Arc::clone(&digest)));
        let before = slot.wants().map(|_| slot.status.version.to_string());
        let started = Instant::now();
        let done = slot.start(&self.workshop, made, now_us);
        attempt.passed("swap", started.elapsed(), "");
        slot.metrics.admission("swap", done.is_ok());
        attempt.refusal = done.as_ref().err().map(|why| short(why.to_string()));
        if done.is_ok() {
            let status = &slot.status;
            tracing::info!(
                filter = &*status.file,
                name = status.name,
                version = &*status.version,
                digest = &*status.digest,
                before,
                admission = attempt.line(),
                "filter live"
            );
        }
        slot.tried(attempt);
        done.map_err(|why| Refused {
            digest,
            limits,
            why,
        })
    }

    /// A candidate without a namesake has a place of its own in name order.
    fn make_place(&mut self, planned: &Planned, before: Option<FilterLimits>) {
        let file = &planned.file;
        let at = self
            .slots
            .binary_search_by(|slot| slot.status.file.cmp(file));
        let limits = match &planned.plan {
            Plan::Start(made) => Some(made.limits.clone()),
            Plan::Refused(refused) => Some(refused.limits.clone()),
            Plan::Keep => before,
        };
        if let (Err(at), Some(limits)) = (at, limits) {
            let metrics = self.metrics.filter(file);
            let slot = Slot::vacant(self.nothing_kept(file), limits, metrics);
            self.slots.insert(at, slot);
        }
    }

    fn shadow(&mut self, planned: Planned, old: Option<Shadow>, now_us: u64) {
        let Planned {
            file,
            plan,
            attempt,
            ..
        } = planned;
        let Some(slot) = slot_of(&mut self.slots, &file) else {
            self.leaving.extend(old.and_then(Shadow::leave));
            return;
        };
        slot.changed = true;
        let admission = attempt.as_ref().map(Attempt::line);
        let shadow = match plan {
            Plan::Keep => {
                slot.shadow = old;
                return;
            }
            Plan::Start(made) => {
                let digest = &*made.component.digest;
                tracing::info!(filter = &*file, digest, admission, "shadow runs");
                let metrics = self.metrics.filter(&file);
                Shadow::start(
                    self.workshop.engine(),
                    &file,
                    made,
                    slot.kept().and_then(|kept| kept.state.clone()),
                    now_us,
                    metrics,
                )
            }
            Plan::Refused(Refused { digest, why, .. }) => {
                let error = short(why.to_string());
                tracing::error!(
                    filter = &*file,
                    digest = &*digest,
                    error,
                    admission,
                    "shadow refused"
                );
                Shadow::refused(digest, error)
            }
        };
        slot.shadow = Some(shadow.after(attempt));
        self.leaving.extend(old.and_then(Shadow::leave));
    }

    /// Those that have ended.
    fn join_leaving(&mut self) {
        let (ended, leaving) = std::mem::take(&mut self.leaving)
            .into_iter()
            .partition(JoinHandle::is_finished);
        self.leaving = leaving;
        for thread in ended {
            if thread.join().is_err() {
                tracing::error!("the thread of a shadow died");
            }
        }
    }

    /// From now on filters are [shown again](Chain::show_again) what they saw before, or not any more: nothing is judged by it.
    pub fn warm_up(&mut self, is_warming: bool) {
        for slot in &mut self.slots {
            slot.warm_up(is_warming);
        }
    }

    /// What one of the filters saw in an earlier run, and does not know any more. What it does then, was done.
    pub fn show_again(&mut self, file: &str, occasion: Occasion) {
        let Occasion {
            lsn, now_us, event, ..
        } = occasion;
        let Some(slot) = slot_of(&mut self.slots, file) else {
            return;
        };
        let mut allowance = Allowance::of_one_input();
        let Some(mut event) = event else {
            slot.tick(&self.workshop, lsn, now_us, &mut allowance);
            return;
        };
        if slot.is_called_for(&event, lsn) {
            slot.handle(&self.workshop, &mut event, now_us, &mut allowance);
        }
    }

    fn nothing_kept(&self, file: &Arc<str>) -> Kept {
        Kept {
            file: Arc::clone(file),
            lsn: self.lsn,
            state: None,
        }
    }

    /// After a batch of events, and now and then: versions that proved good or bad, and a filter that takes too much time
    /// while `waiting` inputs become more.
    pub fn look_after(&mut self, waiting: u64, now: Instant, now_us: u64) {
        for slot in &mut self.slots {
            slot.judge(&self.workshop, now, now_us);
            slot.resume(now, waiting);
            slot.forget_costs(now);
        }
        let took_ns = self.slots.iter().map(Slot::took_ns);
        let hog = self.load.look(now, waiting, took_ns);
        if let Some(slot) = hog.and_then(|at| self.slots.get_mut(at)) {
            slot.suspend(&self.workshop, now, now_us);
        }
    }

    /// What the loader has to remember since this was asked last.
    pub fn take_reports(&mut self) -> Vec<Report> {
        self.slots.iter_mut().flat_map(Slot::take_reports).collect()
    }

    /// Puts the last good version of a filter in the place of the one that runs.
    ///
    /// # Errors
    /// There is no such filter, or no such version.
    pub fn roll_back(&mut self, file: &str, now_us: u64) -> Result<RolledBack, NoWayBack> {
        let slot = slot_of(&mut self.slots, file);
        let slot = slot.ok_or_else(|| NoWayBack::NoFilter(file.to_owned()))?;
        slot.go_back(&self.workshop, "request", "by request", now_us)
    }

    /// What `/status` shows.
    pub fn status(&self) -> Vec<FilterStatus> {
        self.slots.iter().map(Slot::status).collect()
    }

    /// Filters in the folder that do not run because there are too many.
    pub fn ignored(&self) -> usize {
        self.ignored
    }

    /// Whether some filter's status is new; asks again for the next one.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        for slot in &mut self.slots {
            changed |= std::mem::take(&mut slot.changed);
        }
        changed
    }

    /// Adds what the filters want to receive.
    pub fn subscribe(&self, subscription: &mut Subscription) {
        for wants in self.slots.iter().filter_map(Slot::wants) {
            if wants.all {
                subscription.add_all();
            }
            subscription.add_selection(&wants.events);
        }
    }

    /// When the next filter wants its `tick`.
    pub fn next_tick(&self) -> Option<Instant> {
        self.slots.iter().filter_map(Slot::next_tick).min()
    }

    /// The filters whose `tick` is due, one name a line; nothing if none is. They are not due again before that tick was made.
    pub fn due_ticks(&mut self, now: Instant) -> Option<String> {
        let due = |slot: &mut Slot| slot.take_due(now).then(|| Arc::clone(&slot.status.file));
        let names: Vec<Arc<str>> = self.slots.iter_mut().filter_map(due).collect();
        (!names.is_empty()).then(|| names.join("\n"))
    }

    /// A tick may have been lost: filters that wait for theirs get another one.
    pub fn rearm(&mut self, now: Instant) {
        self.slots.iter_mut().for_each(|slot| slot.rearm(now));
    }

    /// One input through the chain; the event itself comes out first, what was derived of it after it.
    pub fn handle(&mut self, event: Event, lsn: Lsn, now_us: u64, decided: &mut Vec<Decided>) {
        let mut brood = self.brood(lsn);
        let first = Passing {
            event,
            from: 0,
            streams: Vec::new(),
            derived: None,
        };
        self.run(first, now_us, &mut brood, decided);
        self.run_derived(brood, now_us, decided);
    }

    /// Calls `tick` of the filters of these names, as [`Chain::due_ticks`] gave them.
    pub fn tick(&mut self, names: &str, lsn: Lsn, now_us: u64, decided: &mut Vec<Decided>) {
        let mut brood = self.brood(lsn);
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if names.lines().any(|name| *name == *slot.status.file) {
                let derived = slot.tick(&self.workshop, lsn, now_us, &mut brood.allowance);
                brood.add(derived, &slot.status.file, at + 1);
                slot.tick_shadow(now_us);
            }
        }
        self.run_derived(brood, now_us, decided);
    }

    /// Events that the host itself makes of an input that is none, through every filter.
    pub fn own(&mut self, made: Vec<Derived>, lsn: Lsn, now_us: u64, decided: &mut Vec<Decided>) {
        let mut brood = self.brood(lsn);
        brood
            .waiting
            .extend(made.into_iter().map(|derived| Passing {
                event: derived.event(),
                from: 0,
                streams: Vec::new(),
                derived: Some(derived),
            }));
        self.run_derived(brood, now_us, decided);
    }

    /// Asks each filter what it wants to keep.
    pub fn save(&mut self, now_us: u64) {
        for slot in &mut self.slots {
            slot.save_again(&self.workshop, self.lsn, now_us);
        }
    }

    /// What each filter keeps: what it saved last, or what the version before it handed over. A filter that was not asked since may
    /// be behind the others.
    pub fn kept(&self) -> Vec<Kept> {
        let kept = self.slots.iter().filter_map(Slot::kept);
        kept.cloned().collect()
    }

    /// What filters kept when the host ran last: each gets its own when it starts. What is new has seen nothing, and begins after `lsn`.
    pub fn restore(&mut self, kept: Vec<Kept>, lsn: Lsn) {
        let by_file = |kept: Kept| (Arc::clone(&kept.file), kept);
        self.restored = kept.into_iter().map(by_file).collect();
        self.lsn = lsn;
    }

    /// Whether there is no filter.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// For a new input.
    fn brood(&mut self, lsn: Lsn) -> Brood {
        self.lsn = lsn;
        Brood {
            lsn,
            waiting: VecDeque::new(),
            allowance: Allowance::of_one_input(),
        }
    }

    fn run_derived(&mut self, mut brood: Brood, now_us: u64, decided: &mut Vec<Decided>) {
        while let Some(passing) = brood.waiting.pop_front() {
            self.run(passing, now_us, &mut brood, decided);
        }
    }

    fn run(
        &mut self,
        passing: Passing,
        now_us: u64,
        brood: &mut Brood,
        decided: &mut Vec<Decided>,
    ) {
        let Passing {
            mut event,
            from,
            streams,
            derived,
        } = passing;
        let mut steps = Vec::with_capacity(self.slots.len());
        for (at, slot) in self.slots.iter_mut().enumerate().skip(from) {
            let seen = slot.before_shadow(&event);
            if !slot.is_called_for(&event, brood.lsn) {
                if let (Some(shadow), Some(seen)) = (&slot.shadow, seen) {
                    shadow.see(seen, brood.lsn, now_us, Answer::pass());
                }
                continue;
            }
            let Handled { step, emit } =
                slot.handle(&self.workshop, &mut event, now_us, &mut brood.allowance);
            let emitted = emit.len();
            brood.add(emit, &slot.status.file, at + 1);
            if let (Some(shadow), Some(seen)) = (&slot.shadow, seen) {
                let answer = Answer {
                    verdict: step.verdict.clone(),
                    edits: step.edits.clone(),
                    derived: brood.newest(emitted),
                };
                shadow.see(seen, brood.lsn, now_us, answer);
            }
            step.edits.iter().for_each(|edit| edit.apply(&mut event));
            let ends = matches!(step.verdict, Verdict::Drop(_) | Verdict::DeadLetter(_));
            steps.push(step);
            if ends {
                break;
            }
        }
        decided.push(Decided {
            event,
            derived,
            steps,
            streams,
        });
    }
}

/// The place of a filter's file, if it has one.
fn slot_of<'a>(slots: &'a mut [Slot], file: &str) -> Option<&'a mut Slot> {
    slots.iter_mut().find(|slot| *slot.status.file == *file)
}

/// An event on its way, from the filter at `from` on.
struct Passing {
    event: Event,
    from: usize,
    streams: Vec<Arc<str>>,
    derived: Option<Derived>,
}

/// The events derived of one input that still have to go on, and what may yet be made of it. A chain is finite and so is
/// the allowance: it ends.
struct Brood {
    lsn: Lsn,
    waiting: VecDeque<Passing>,
    allowance: Allowance,
}

impl Brood {
    fn add(&mut self, made: Vec<types::Derived>, by: &Arc<str>, from: usize) {
        let passing = made.into_iter().map(|made| {
            let (derived, streams) = Derived::made(made, by);
            Passing {
                event: derived.event(),
                from,
                streams,
                derived: Some(derived),
            }
        });
        self.waiting.extend(passing);
    }

    /// The events that were added last.
    fn newest(&self, count: usize) -> Vec<Derived> {
        let newest = self.waiting.iter().rev().take(count).rev();
        newest
            .filter_map(|passing| passing.derived.clone())
            .collect()
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let shadows = self.slots.iter_mut().filter_map(|slot| slot.shadow.take());
        self.leaving.extend(shadows.filter_map(Shadow::leave));
        for thread in self.leaving.drain(..) {
            if thread.join().is_err() {
                tracing::error!("the thread of a shadow died");
            }
        }
    }
}
