//! The chain: every event through the filters in order, and the events that they derive through the ones after them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::decision::{Allowance, covers};
use super::engine::Engine;
use super::guest::bindings::jackfield::filter::types;
use super::instance::Failure;
use super::loader::{Change, Planned, Step};
use super::slot::{FilterStatus, Made, Running, Slot};
use crate::config::{FilterLimits, OnError};
use crate::esl::Subscription;
use crate::event::Event;
use crate::metrics::Metrics;

/// What became of an event in the chain.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// The routes decide.
    Pass,
    /// To these streams, whatever the routes say.
    Route(Vec<Arc<str>>),
    /// Nowhere.
    Drop {
        /// The filter's file.
        by: Arc<str>,
        /// Its words.
        reason: String,
    },
    /// To the dead letters.
    DeadLetter {
        /// The filter's file.
        by: Arc<str>,
        /// Its words, or how it failed.
        reason: String,
    },
}

impl Fate {
    fn label(&self) -> &'static str {
        match self {
            Fate::Pass => "pass",
            Fate::Route(_) => "route",
            Fate::Drop { .. } => "drop",
            Fate::DeadLetter { .. } => "dead_letter",
        }
    }
}

/// An event after the chain.
#[derive(Debug)]
pub struct Decided {
    /// With all edits.
    pub event: Event,
    /// Its fate.
    pub fate: Fate,
    /// Made by a filter.
    pub derived: bool,
}

/// The filters in order.
pub struct Chain {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    slots: Vec<Slot>,
}

impl Chain {
    /// A chain without filters.
    pub fn new(engine: Arc<Engine>, metrics: Arc<Metrics>) -> Chain {
        Chain {
            engine,
            metrics,
            slots: Vec::new(),
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
        for Planned { file, step } in change.planned {
            let old = before.remove(&file);
            let slot = match step {
                Step::Keep => old,
                Step::Start(made) => Some(self.start(file, old, made, now_us)),
                Step::Refused {
                    digest,
                    limits,
                    why,
                } => Some(self.refuse(file, old, digest, limits, why.to_string())),
            };
            self.slots.extend(slot);
        }
        for (file, slot) in before {
            tracing::info!(
                filter = &*file,
                version = slot.status.version,
                "filter removed"
            );
            slot.metrics.forget();
        }
    }

    fn start(&self, file: Arc<str>, old: Option<Slot>, made: Made, now_us: u64) -> Slot {
        let (mut old, metrics) = (old, self.metrics.filter(&file));
        let saved = old.as_mut().and_then(|old| old.save(now_us));
        let (digest, limits) = (Arc::clone(&made.component.digest), made.limits.clone());
        match Slot::start(
            &self.engine,
            Arc::clone(&file),
            made,
            saved,
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
            Err(refusal) => self.refuse(file, old, digest, limits, refusal.to_string()),
        }
    }

    fn refuse(
        &self,
        file: Arc<str>,
        old: Option<Slot>,
        digest: Arc<str>,
        limits: FilterLimits,
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
                Slot::refused(file, digest, limits, metrics, why)
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

    /// One input through the chain; the event itself comes out first, what was derived of it after it.
    pub fn handle(&mut self, event: Event, now_us: u64, decided: &mut Vec<Decided>) {
        let mut brood = Brood::new();
        let first = Passing {
            event,
            from: 0,
            streams: Vec::new(),
            derived: false,
        };
        self.run(first, now_us, &mut brood, decided);
        self.run_derived(brood, now_us, decided);
    }

    /// Calls `tick` where it is due.
    pub fn tick(&mut self, now_us: u64, decided: &mut Vec<Decided>) {
        let mut brood = Brood::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let derived = slot.tick(&self.engine, now_us, &mut brood.allowance);
            brood.add(derived, at + 1);
        }
        self.run_derived(brood, now_us, decided);
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
            derived: is_derived,
        } = passing;
        let mut fate = if streams.is_empty() {
            Fate::Pass
        } else {
            route(streams)
        };
        for (at, slot) in self.slots.iter_mut().enumerate().skip(from) {
            if !slot.wants_event(&event) {
                continue;
            }
            let answer;
            (event, answer) = slot.handle(&self.engine, event, now_us, &mut brood.allowance);
            let by = &slot.status.file;
            let next = match answer {
                Ok(decision) => {
                    apply(&mut event, decision.edits);
                    brood.add(decision.emit, at + 1);
                    verdict(decision.verdict, by)
                }
                Err(failure) => on_error(slot.limits().on_error, &failure, by),
            };
            slot.metrics.verdict(next.label());
            match next {
                Fate::Pass => {}
                Fate::Route(_) => fate = next,
                Fate::Drop { .. } | Fate::DeadLetter { .. } => {
                    fate = next;
                    break;
                }
            }
        }
        decided.push(Decided {
            event,
            fate,
            derived: is_derived,
        });
    }
}

/// An event on its way, from the filter at `from` on.
struct Passing {
    event: Event,
    from: usize,
    streams: Vec<String>,
    derived: bool,
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

fn passing_from(derived: types::Derived, from: usize) -> Passing {
    let headers: Vec<(String, String)> = derived
        .headers
        .into_iter()
        .map(|header| (header.name, header.value))
        .collect();
    let event = Event::derived(&derived.name, &headers, derived.body.as_deref());
    Passing {
        event,
        from,
        streams: derived.streams,
        derived: true,
    }
}

fn verdict(verdict: types::Verdict, by: &Arc<str>) -> Fate {
    match verdict {
        types::Verdict::Pass => Fate::Pass,
        types::Verdict::Drop(reason) => Fate::Drop {
            by: Arc::clone(by),
            reason,
        },
        types::Verdict::DeadLetter(reason) => Fate::DeadLetter {
            by: Arc::clone(by),
            reason,
        },
        types::Verdict::Route(streams) => route(streams),
    }
}

/// Each stream once, in the filter's order: an event is not to be written twice to one stream.
fn route(streams: Vec<String>) -> Fate {
    let mut unique: Vec<Arc<str>> = Vec::with_capacity(streams.len());
    for stream in streams {
        if !unique.iter().any(|known| **known == *stream) {
            unique.push(stream.into());
        }
    }
    Fate::Route(unique)
}

fn on_error(on_error: OnError, failure: &Failure, by: &Arc<str>) -> Fate {
    let by = Arc::clone(by);
    match on_error {
        OnError::Pass => Fate::Pass,
        OnError::Drop => Fate::Drop {
            by,
            reason: failure.cause().to_owned(),
        },
        OnError::DeadLetter => Fate::DeadLetter {
            by,
            reason: failure.to_string(),
        },
    }
}

fn apply(event: &mut Event, edits: Vec<types::Edit>) {
    for edit in edits {
        match edit {
            types::Edit::Set(header) => event.set(&header.name, &header.value),
            types::Edit::Remove(pattern) => match pattern.strip_suffix('*') {
                None => event.remove(&pattern),
                Some(_) => event.retain(|name| name == EVENT_NAME || !covers(&pattern, name)),
            },
            types::Edit::Keep(patterns) => {
                event.retain(|name| {
                    name == EVENT_NAME || patterns.iter().any(|pattern| covers(pattern, name))
                });
            }
            types::Edit::Body(body) => event.set_body(&body),
        }
    }
}

/// No pattern takes it away: routes and filters need it.
const EVENT_NAME: &str = "Event-Name";
