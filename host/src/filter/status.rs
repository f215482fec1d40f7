//! What `/status` shows of a filter.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::probation::Tally;
use super::shadow::ShadowStatus;
use crate::clock;

/// Attempts that are remembered.
const ATTEMPTS: usize = 8;

/// What `/status` shows of a filter.
#[derive(Clone, Debug, Serialize)]
pub struct FilterStatus {
    /// The file's name without `.wasm`.
    pub file: Arc<str>,
    /// The manifest's name; empty while it never ran.
    pub name: String,
    /// The manifest's version.
    pub version: Arc<str>,
    /// SHA-256 of the component that runs, or of the refused one where none does.
    pub digest: Arc<str>,
    /// Whether it handles events.
    pub state: Running,
    /// Since when this version runs, in microseconds since the epoch; 0 where none does.
    pub since_us: u64,
    /// It is not known yet whether this version is good.
    pub probation: bool,
    /// What this version did.
    pub tally: Tally,
    /// Half of the calls of the last seconds took less, in nanoseconds; 0 where there were none.
    pub p50_ns: u64,
    /// One in a hundred of them took more.
    pub p99_ns: u64,
    /// The last failure, refusal or rollback.
    pub last_error: Option<String>,
    /// When that was, in microseconds since the epoch.
    pub last_error_us: Option<u64>,
    /// Digests of the versions that it can be rolled back to, the next one first.
    pub good: Vec<Arc<str>>,
    /// What became of the files that were tried, the newest last.
    pub attempts: VecDeque<Attempt>,
    /// The candidate that runs beside it.
    pub shadow: Option<ShadowStatus>,
}

impl FilterStatus {
    pub(super) fn new(file: Arc<str>) -> FilterStatus {
        FilterStatus {
            file,
            name: String::new(),
            version: "".into(),
            digest: "".into(),
            state: Running::Absent,
            since_us: 0,
            probation: false,
            tally: Tally::default(),
            p50_ns: 0,
            p99_ns: 0,
            last_error: None,
            last_error_us: None,
            good: Vec::new(),
            attempts: VecDeque::new(),
            shadow: None,
        }
    }

    pub(super) fn complain(&mut self, error: String) {
        self.last_error = Some(error);
        self.last_error_us = Some(clock::now_us());
    }

    pub(super) fn tried(&mut self, attempt: Attempt) {
        if self.attempts.len() == ATTEMPTS {
            self.attempts.pop_front();
        }
        self.attempts.push_back(attempt);
    }
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
    /// Its only version did badly and was taken out.
    Quarantined,
    /// It took over half of the pipeline's time while the backlog grew, and waits until the backlog is gone.
    Suspended,
    /// There is a shadow of this name, and no filter.
    Absent,
}

/// One try to bring a file live.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    /// When it began, in microseconds since the epoch.
    pub at_us: u64,
    /// SHA-256 of the component.
    pub digest: Arc<str>,
    /// The checks that it went through, in order; the last one is the one that refused it.
    pub gates: Vec<Gate>,
    /// Why it was refused; `None`: it is live.
    pub refusal: Option<String>,
}

/// One check of admission.
#[derive(Clone, Debug, Serialize)]
pub struct Gate {
    /// `read`, `settings`, `history`, `compile`, `contract`, `configure`, `golden`, `rehearsal` or `swap`.
    pub gate: &'static str,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// What it found.
    pub found: String,
}

impl Attempt {
    pub(super) fn new(at_us: u64, digest: Arc<str>) -> Attempt {
        Attempt {
            at_us,
            digest,
            gates: Vec::new(),
            refusal: None,
        }
    }

    pub(super) fn passed(&mut self, gate: &'static str, took: Duration, found: &str) {
        self.gates.push(Gate {
            gate,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            found: found.to_owned(),
        });
    }

    /// The gates on one line, for the log.
    pub(super) fn line(&self) -> String {
        let gates = self.gates.iter().map(|gate| {
            let Gate {
                gate,
                took_us,
                found,
            } = gate;
            let (whole, tenth) = (took_us / 1_000, took_us / 100 % 10);
            match found.is_empty() {
                true => format!("{gate} {whole}.{tenth} ms"),
                false => format!("{gate} {whole}.{tenth} ms ({found})"),
            }
        });
        gates.collect::<Vec<_>>().join(", ")
    }
}
