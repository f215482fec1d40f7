//! Runs golden cases in the real engine, under the filter's limits and with the checks that live output goes through.
//!
//! Two things differ from live, so that a case decides alike on every machine: all streams are allowed, and a call has a second.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use thiserror::Error;

use super::case::{Case, Cases, Given, Unreadable};
use super::outcome::{Decision, Difference, Emitted, Outcome};
use crate::config::FilterLimits;
use crate::event::{Event, Format, Malformed};
use crate::filter::decision::{self, Allowance, AllowedStreams};
use crate::filter::engine::{Component, Engine};
use crate::filter::guest::bindings::jackfield::filter::types;
use crate::filter::instance::{Failure, Instance};
use crate::filter::step::Verdict;
use crate::filter::ticker::Ticking;
use crate::filter::version::{self, Made, Wants};

/// A busy machine must not make a case fail.
const DEADLINE: Duration = Duration::from_secs(1);
/// The time for all cases of a component together: other filters wait meanwhile.
pub const TIME: Duration = Duration::from_secs(10);

/// Why a component does not keep what its cases promise.
#[derive(Debug, Error)]
pub enum Broken {
    /// There are no cases that could be run.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A case fails.
    #[error("golden case {case}: {fault}")]
    Case {
        /// Its name.
        case: String,
        /// How it fails.
        fault: Fault,
    },
}

impl Broken {
    /// It took too long, which may have been this machine.
    pub fn is_late(&self) -> bool {
        matches!(
            self,
            Broken::Case {
                fault: Fault::TooSlow { .. },
                ..
            }
        )
    }
}

/// How a case fails. Steps are counted from 1.
#[derive(Debug, Error)]
pub enum Fault {
    /// The filter does not start with the case's settings.
    #[error("does not start: {0}")]
    Start(String),
    /// What a step gives is no event.
    #[error("step {step}: {why}")]
    NoEvent {
        /// The step.
        step: usize,
        /// What is wrong with it.
        why: Malformed,
    },
    /// The call failed.
    #[error("step {step}: {failure}")]
    Failed {
        /// The step.
        step: usize,
        /// How.
        failure: Failure,
    },
    /// The outcome is not the expected one.
    #[error("step {step}: {difference}")]
    Differs {
        /// The step.
        step: usize,
        /// Both outcomes.
        difference: Box<Difference>,
    },
    /// All cases together took too long.
    #[error("step {step}: the cases are not done within {time:?}")]
    TooSlow {
        /// The step that was not taken any more.
        step: usize,
        /// The time that there was.
        time: Duration,
    },
}

/// Runs the cases that a component carries, and says how many there are.
///
/// # Errors
/// The first case that fails.
pub fn run(
    engine: &Engine,
    component: &Component,
    limits: &FilterLimits,
    file: &[u8],
) -> Result<usize, Broken> {
    let cases = Cases::of_component(file)?;
    let rehearsal = Rehearsal::new(engine, component, limits, TIME);
    for (name, case) in cases.iter() {
        rehearsal.check(case).map_err(|fault| Broken::Case {
            case: name.to_owned(),
            fault,
        })?;
    }
    Ok(cases.len())
}

/// Runs cases on one component, for a limited time.
pub struct Rehearsal<'a> {
    engine: &'a Engine,
    component: &'a Component,
    limits: FilterLimits,
    time: Duration,
    started: Instant,
}

impl Rehearsal<'_> {
    /// A rehearsal that ends when this time is over.
    pub fn new<'a>(
        engine: &'a Engine,
        component: &'a Component,
        limits: &FilterLimits,
        time: Duration,
    ) -> Rehearsal<'a> {
        let limits = FilterLimits {
            deadline: limits.deadline.max(DEADLINE),
            ..limits.clone()
        };
        Rehearsal {
            engine,
            component,
            limits,
            time,
            started: Instant::now(),
        }
    }

    /// Runs a case, and compares.
    ///
    /// # Errors
    /// The first step that fails, or decides otherwise than expected.
    pub fn check(&self, case: &Case) -> Result<(), Fault> {
        let mut stage = self.stage(case)?;
        for (at, given) in case.steps.iter().enumerate() {
            let got = stage.take(given, at + 1)?;
            if given.expect.as_ref() != Some(&got) {
                let expected = given.expect.clone();
                return Err(Fault::Differs {
                    step: at + 1,
                    difference: Box::new(Difference { expected, got }),
                });
            }
        }
        Ok(())
    }

    /// Runs a case, and says what comes of each of its steps, whatever it expects.
    ///
    /// # Errors
    /// The filter does not start, or a call fails.
    pub fn outcomes(&self, case: &Case) -> Result<Vec<Outcome>, Fault> {
        let mut stage = self.stage(case)?;
        let steps = case.steps.iter().enumerate();
        steps.map(|(at, given)| stage.take(given, at + 1)).collect()
    }

    fn stage(&self, case: &Case) -> Result<Stage, Fault> {
        let made = Made {
            component: self.component.clone(),
            settings: Value::Object(case.settings.clone()).to_string().into(),
            limits: self.limits.clone(),
            text: "".into(),
            muted: true,
        };
        let name: Arc<str> = "golden".into();
        let ticking = self.engine.ticking();
        let (instance, manifest) = version::start(self.engine, &name, &made, None, 0)
            .map_err(|refusal| Fault::Start(refusal.to_string()))?;
        Ok(Stage {
            _ticking: ticking,
            instance,
            wants: Wants::of(&manifest),
            manifest,
            allowed: AllowedStreams(vec!["*".to_owned()]),
            time: self.time,
            started: self.started,
        })
    }
}

/// One case under way.
struct Stage {
    _ticking: Ticking,
    instance: Instance,
    wants: Wants,
    manifest: types::Manifest,
    allowed: AllowedStreams,
    time: Duration,
    started: Instant,
}

impl Stage {
    fn take(&mut self, given: &Given, step: usize) -> Result<Outcome, Fault> {
        let time = self.time;
        if self.started.elapsed() > time {
            return Err(Fault::TooSlow { step, time });
        }
        let outcome = match (&given.event, given.tick) {
            (_, Some(now_us)) => self.tick(now_us),
            (event, None) => {
                let json = serde_json::to_vec(event).unwrap_or_default();
                let mut event = Event::parse(Format::Json, Bytes::from(json))
                    .map_err(|why| Fault::NoEvent { step, why })?;
                self.handle(&mut event, given.now)
            }
        };
        outcome.map_err(|failure| Fault::Failed { step, failure })
    }

    fn tick(&mut self, now_us: u64) -> Result<Outcome, Failure> {
        if self.manifest.tick_interval == 0 {
            return Ok(Outcome::Unseen);
        }
        let derived = self.instance.tick(now_us)?;
        decision::check_derived(&derived, &self.allowed)?;
        Allowance::of_one_input().take_derived(&derived)?;
        Ok(Outcome::Decided(Decision {
            verdict: Verdict::Pass,
            edits: Vec::new(),
            derived: derived.into_iter().map(Emitted::from).collect(),
        }))
    }

    fn handle(&mut self, event: &mut Event, now_us: Option<u64>) -> Result<Outcome, Failure> {
        if !self.wants.event(event) {
            return Ok(Outcome::Unseen);
        }
        let now_us = now_us.or(event.timestamp()).unwrap_or_default();
        let headers = self.manifest.headers.iter();
        let values: Vec<Option<String>> = headers
            .map(|name| event.get_str(name).map(Cow::into_owned))
            .collect();
        let values: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
        let answer = self.instance.handle(event, &values, now_us)?;
        decision::check(&answer, &self.allowed)?;
        Allowance::of_one_input().take(&answer)?;
        Ok(answer.into())
    }
}
