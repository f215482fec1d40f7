//! The chain: every event through the filters in order, and the events that they derive through the ones after them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::decision::Allowance;
use super::engine::Engine;
use super::guest::bindings::jackfield::filter::types;
use super::instance::Failure;
use super::loader::{Change, Plan, Planned};
use super::slot::{FilterStatus, Made, Running, Slot};
use super::step::{Derived, Edit, Step, Verdict};
use crate::config::{FilterLimits, OnError};
use crate::esl::Subscription;
use crate::event::Event;
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
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    slots: Vec<Slot>,
    /// Of the run before this one, until the filter starts.
    restored: HashMap<Arc<str>, Vec<u8>>,
}

impl Chain {
    /// A chain without filters.
    pub fn new(engine: Arc<Engine>, metrics: Arc<Metrics>) -> Chain {
        Chain {
            engine,
            metrics,
            slots: Vec::new(),
            restored: HashMap::new(),
        }
    }

    /// Takes the chain to what the folder holds now. It is called between two events: what an old version saved here, the
    /// new one starts from. A version that cannot start leaves the one before it in place.
    pub fn apply(&mut self, change: Change, now_us: u64) {
        let mut before: HashMap<Arc<str>, Slot> = self
            .slots
            .drain(..)
            .map(|slot| (Arc::clone(&slot.status.file), slot))
            .collect();
        for Planned { file, plan } in change.planned {
            let old = before.remove(&file);
            let slot = match plan {
                Plan::Keep => old,
                Plan::Start(made) => Some(self.start(file, old, made, now_us)),
                Plan::Refused {
                    digest,
                    limits,
                    why,
                } => {
                    let saved = self.restored.remove(&file);
                    Some(self.refuse(file, old, saved, (digest, limits), why.to_string()))
                }
            };
            self.slots.extend(slot);
        }
        // What is not in the folder now is no filter's state any more.
        self.restored.clear();
        for (file, slot) in before {
            tracing::info!(
                filter = &*file,
                version = slot.status.version,
                "filter removed"
            );
            slot.metrics.forget();
        }
    }

    fn start(&mut self, file: Arc<str>, old: Option<Slot>, made: Made, now_us: u64) -> Slot {
        let (mut old, metrics) = (old, self.metrics.filter(&file));
        let saved = match &mut old {
            Some(old) => old.save(now_us),
            None => self.restored.remove(&file),
        };
        let (digest, limits) = (Arc::clone(&made.component.digest), made.limits.clone());
        match Slot::start(
            &self.engine,
            Arc::clone(&file),
            made,
            saved.clone(),
            metrics,
            now_us,
        ) {
            Ok(slot) => {
                let status = &slot.status;
                let before = old.as_ref().map(|old| old.status.version.clone());
                tracing::info!(
                    filter = &*file,
                    name = status.name,
                    version = status.version,
                    digest = &*status.digest,
                    before,
                    "filter live"
                );
                slot
            }
            Err(refusal) => self.refuse(file, old, saved, (digest, limits), refusal.to_string()),
        }
    }

    fn refuse(
        &self,
        file: Arc<str>,
        old: Option<Slot>,
        saved: Option<Vec<u8>>,
        (digest, limits): (Arc<str>, FilterLimits),
        why: String,
    ) -> Slot {
        let metrics = self.metrics.filter(&file);
        metrics.refused();
        match old.filter(|old| old.status.state != Running::Refused) {
            Some(mut old) => {
                tracing::error!(
                    filter = &*file,
                    digest = &*digest,
                    error = why,
                    version = old.status.version,
                    "filter refused; the running version stays"
                );
                old.status.last_error = Some(why);
                old
            }
            None => {
                tracing::error!(
                    filter = &*file, digest = &*digest, error = why, on_error = ?limits.on_error,
                    "filter refused; events are treated by its on_error"
                );
                Slot::refused(file, (digest, limits), metrics, saved, why)
            }
        }
    }

    /// What `/status` shows.
    pub fn status(&self) -> Vec<FilterStatus> {
        self.slots.iter().map(|slot| slot.status.clone()).collect()
    }

    /// Whether some filter's status is new; asks again for the next one.
    pub fn changed(&mut self) -> bool {
        self.slots
            .iter_mut()
            .any(|slot| std::mem::take(&mut slot.changed))
    }

    /// Adds what the filters want to receive.
    pub fn subscribe(&self, subscription: &mut Subscription) {
        for wants in self.slots.iter().filter_map(Slot::wants) {
            if wants.all {
                subscription.add_all();
            }
            wants
                .names
                .iter()
                .for_each(|name| subscription.add(name, None));
            wants
                .subclasses
                .iter()
                .for_each(|subclass| subscription.add("CUSTOM", Some(subclass)));
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
    pub fn handle(&mut self, event: Event, now_us: u64, decided: &mut Vec<Decided>) {
        let mut brood = Brood::new();
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
    pub fn tick(&mut self, names: &str, now_us: u64, decided: &mut Vec<Decided>) {
        let mut brood = Brood::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if names.lines().any(|name| *name == *slot.status.file) {
                let derived = slot.tick(&self.engine, now_us, &mut brood.allowance);
                brood.add(derived, at + 1);
            }
        }
        self.run_derived(brood, now_us, decided);
    }

    /// What each filter wants to keep, by its file.
    pub fn save(&mut self, now_us: u64) -> Vec<(Arc<str>, Vec<u8>)> {
        let saved = self.slots.iter_mut().filter_map(|slot| {
            let saved = slot.save_again(now_us)?;
            Some((Arc::clone(&slot.status.file), saved))
        });
        saved.collect()
    }

    /// What filters kept when the host ran last: each gets its own when it starts.
    pub fn restore(&mut self, saved: Vec<(Arc<str>, Vec<u8>)>) {
        self.restored = saved.into_iter().collect();
    }

    /// Whether there is no filter.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
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
        let mut steps = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate().skip(from) {
            if !slot.wants_event(&event) {
                continue;
            }
            let answer;
            (event, answer) = slot.handle(&self.engine, event, now_us, &mut brood.allowance);
            let mut step = Step {
                by: Arc::clone(&slot.status.file),
                verdict: Verdict::Pass,
                edits: Vec::new(),
                failure: None,
            };
            match answer {
                Ok(decision) => {
                    step.edits = decision.edits.into_iter().map(Edit::from).collect();
                    step.verdict = decision.verdict.into();
                    brood.add(decision.emit, at + 1);
                }
                Err(failure) => {
                    step.verdict = on_error(slot.limits().on_error, &failure);
                    step.failure = Some(failure.to_string());
                }
            }
            step.edits.iter().for_each(|edit| edit.apply(&mut event));
            slot.metrics.verdict(step.verdict.label());
            let ends = matches!(step.verdict, Verdict::Drop(_) | Verdict::DeadLetter(_));
            if step.verdict != Verdict::Pass || !step.edits.is_empty() || step.failure.is_some() {
                steps.push(step);
            }
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
    waiting: VecDeque<Passing>,
    allowance: Allowance,
}

impl Brood {
    fn new() -> Brood {
        Brood {
            waiting: VecDeque::new(),
            allowance: Allowance::of_one_input(),
        }
    }

    fn add(&mut self, derived: Vec<types::Derived>, from: usize) {
        let passing = derived.into_iter().map(|event| passing_from(event, from));
        self.waiting.extend(passing);
    }
}

fn passing_from(made: types::Derived, from: usize) -> Passing {
    let headers = made.headers.into_iter();
    let derived = Derived {
        name: made.name,
        headers: headers.map(|header| (header.name, header.value)).collect(),
        body: made.body,
    };
    let streams = match Verdict::route(made.streams) {
        Verdict::Route(streams) => streams,
        _ => Vec::new(),
    };
    Passing {
        event: derived.event(),
        from,
        streams,
        derived: Some(derived),
    }
}

fn on_error(on_error: OnError, failure: &Failure) -> Verdict {
    match on_error {
        OnError::Pass => Verdict::Pass,
        OnError::Drop => Verdict::Drop(failure.cause().to_owned()),
        OnError::DeadLetter => Verdict::DeadLetter(failure.to_string()),
    }
}
