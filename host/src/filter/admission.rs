//! The gates that a file goes through before it may run, each with its outcome. Off the hot path; nothing live is touched.

use std::sync::Arc;
use std::time::Instant;

use super::engine::{Component, Engine};
use super::golden;
use super::refusal::{Refusal, short};
use super::rehearsal::{Occasion, rehearse};
use super::status::Attempt;
use super::version::{Active, Made};
use crate::clock;
use crate::config::FilterLimits;
use crate::metrics::Metrics;

/// One file on its way.
pub(super) struct Admission<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) file: &'a Arc<str>,
    pub(super) attempt: Attempt,
    /// Where each gate is counted.
    pub(super) metrics: Option<&'a Metrics>,
}

impl Admission<'_> {
    /// Goes through one gate; `check` says in words what it found.
    pub(super) fn gate<T>(
        &mut self,
        gate: &'static str,
        check: impl FnOnce() -> Result<(T, String), Refusal>,
    ) -> Result<T, Refusal> {
        let started = Instant::now();
        let checked = check();
        if let Some(metrics) = self.metrics {
            metrics.filter(self.file).admission(gate, checked.is_ok());
        }
        let took = started.elapsed();
        match checked {
            Ok((passed, found)) => {
                self.attempt.passed(gate, took, &found);
                Ok(passed)
            }
            Err(refusal) => {
                self.attempt.passed(gate, took, "refused");
                self.attempt.refusal = Some(short(refusal.to_string()));
                Err(refusal)
            }
        }
    }

    /// Whether the settings and the manifest are such that it could start.
    pub(super) fn configure(&mut self, made: &Made) -> Result<(), Refusal> {
        let (engine, file) = (self.engine, self.file);
        self.gate("configure", || {
            let _ticking = engine.ticking();
            let active = Active::alone(engine, file, made.muted(), None, clock::now_us())?;
            Ok(((), format!("{} {}", active.name, active.version)))
        })
    }

    /// Whether it keeps what its file promises.
    pub(super) fn golden(
        &mut self,
        component: &Component,
        limits: &FilterLimits,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let engine = self.engine;
        self.gate("golden", || {
            let cases =
                golden::run(engine, component, limits, bytes).map_err(|broken| {
                    match broken.is_late() {
                        true => Refusal::Late(broken.to_string()),
                        false => Refusal::Golden(broken.to_string()),
                    }
                })?;
            Ok(((), format!("{cases} cases")))
        })
    }

    /// Whether it does well on past traffic.
    pub(super) fn rehearse(
        &mut self,
        made: &Made,
        past: impl Iterator<Item = Occasion>,
    ) -> Result<(), Refusal> {
        let (engine, file) = (self.engine, self.file);
        self.gate("rehearsal", || {
            let found = rehearse(engine, file, made, past)?;
            Ok(((), found))
        })
    }
}
