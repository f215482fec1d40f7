//! What is counted of each filter.

use std::sync::Mutex;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

const CALL_BUCKETS: [f64; 10] = [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3, 1e-2, 1e-1];

/// The verdicts that are counted for each filter.
pub const VERDICTS: [&str; 4] = ["pass", "route", "drop", "dead_letter"];

/// The families that each filter has a part in.
#[derive(Clone, Debug)]
pub(super) struct Families {
    calls: Family<FilterLabel, Counter>,
    verdicts: Family<VerdictLabel, Counter>,
    errors: Family<CauseLabel, Counter>,
    duration: Family<FilterLabel, Histogram, fn() -> Histogram>,
    refused: Family<FilterLabel, Counter>,
    custom: Family<CustomLabel, Counter>,
    output_dropped: Family<FilterLabel, Counter>,
    version: Family<VersionLabel, Gauge>,
    admission: Family<GateLabel, Counter>,
    taken_back: Family<CauseLabel, Counter>,
    shadow: Family<OutcomeLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GateLabel {
    filter: String,
    gate: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    filter: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FilterLabel {
    filter: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    filter: String,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    filter: String,
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CustomLabel {
    filter: String,
    counter: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    filter: String,
    version: String,
    digest: String,
}

fn call_histogram() -> Histogram {
    Histogram::new(CALL_BUCKETS)
}

impl Families {
    pub(super) fn new() -> Families {
        Families {
            calls: Family::default(),
            verdicts: Family::default(),
            errors: Family::default(),
            duration: Family::new_with_constructor(call_histogram),
            refused: Family::default(),
            custom: Family::default(),
            output_dropped: Family::default(),
            version: Family::default(),
            admission: Family::default(),
            taken_back: Family::default(),
            shadow: Family::default(),
        }
    }

    pub(super) fn of(&self, file: &str, errors: Counter) -> FilterMetrics {
        let filter = file.to_owned();
        let label = FilterLabel {
            filter: filter.clone(),
        };
        FilterMetrics {
            calls: self.calls.get_or_create_owned(&label),
            duration: self.duration.get_or_create_owned(&label),
            verdicts: VERDICTS.map(|verdict| {
                let label = VerdictLabel {
                    filter: filter.clone(),
                    verdict,
                };
                (verdict, self.verdicts.get_or_create_owned(&label))
            }),
            families: self.clone(),
            errors,
            filter,
            shown: Mutex::default(),
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "jackfield_filter_calls",
            "Events that a filter handled",
            self.calls.clone(),
        );
        r.register(
            "jackfield_filter_verdicts",
            "What became of events in a filter",
            self.verdicts.clone(),
        );
        r.register(
            "jackfield_filter_errors",
            "Failed calls, by cause",
            self.errors.clone(),
        );
        r.register(
            "jackfield_filter_duration_seconds",
            "Time of a filter's call",
            self.duration.clone(),
        );
        r.register(
            "jackfield_filter_refused",
            "Versions that could not go live",
            self.refused.clone(),
        );
        r.register(
            "jackfield_filter_custom",
            "Counters that filters keep themselves",
            self.custom.clone(),
        );
        r.register(
            "jackfield_filter_output_dropped_bytes",
            "Log output over the cap",
            self.output_dropped.clone(),
        );
        r.register(
            "jackfield_filter_version",
            "1 for the version that runs",
            self.version.clone(),
        );
        r.register(
            "jackfield_filter_admission",
            "Gates that a file went through, by outcome: passed or refused",
            self.admission.clone(),
        );
        r.register(
            "jackfield_filter_taken_back",
            "Versions that were rolled back, quarantined or suspended, by cause",
            self.taken_back.clone(),
        );
        r.register(
            "jackfield_filter_shadow",
            "Events that a shadow saw, by outcome: same, differs, skipped or failed",
            self.shadow.clone(),
        );
    }
}

/// The handles of one filter.
#[derive(Debug)]
pub struct FilterMetrics {
    filter: String,
    calls: Counter,
    duration: Histogram,
    verdicts: [(&'static str, Counter); VERDICTS.len()],
    errors: Counter,
    families: Families,
    shown: Mutex<Option<VersionLabel>>,
}

impl FilterMetrics {
    /// A call of `handle` took this long.
    pub fn called(&self, took: Duration) {
        self.calls.inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// What became of the event: one of [`VERDICTS`].
    pub fn verdict(&self, verdict: &'static str) {
        if let Some((_, counter)) = self.verdicts.iter().find(|(known, _)| *known == verdict) {
            counter.inc();
        }
    }

    /// A call failed.
    pub fn failed(&self, cause: &'static str) {
        self.errors.inc();
        self.families
            .errors
            .get_or_create(&CauseLabel {
                filter: self.filter.clone(),
                cause,
            })
            .inc();
    }

    /// A version could not go live.
    pub fn refused(&self) {
        self.errors.inc();
        self.families
            .refused
            .get_or_create(&FilterLabel {
                filter: self.filter.clone(),
            })
            .inc();
    }

    /// A file went through a gate, or not.
    pub fn admission(&self, gate: &'static str, passed: bool) {
        let label = GateLabel {
            filter: self.filter.clone(),
            gate,
            outcome: if passed { "passed" } else { "refused" },
        };
        self.families.admission.get_or_create(&label).inc();
    }

    /// A version that ran does not any more.
    pub fn taken_back(&self, cause: &'static str) {
        let label = CauseLabel {
            filter: self.filter.clone(),
            cause,
        };
        self.families.taken_back.get_or_create(&label).inc();
    }

    /// Handles to count what a shadow does: `same`, `differs`, `skipped` or `failed`.
    pub fn shadow(&self, outcome: &'static str) -> Counter {
        let label = OutcomeLabel {
            filter: self.filter.clone(),
            outcome,
        };
        self.families.shadow.get_or_create_owned(&label)
    }

    /// What the filter counted itself.
    pub fn custom<'a>(&self, counts: impl Iterator<Item = (&'a str, u64)>) {
        for (counter, by) in counts {
            let label = CustomLabel {
                filter: self.filter.clone(),
                counter: counter.to_owned(),
            };
            self.families.custom.get_or_create(&label).inc_by(by);
        }
    }

    /// Bytes of output over the cap.
    pub fn output_dropped(&self, bytes: u64) {
        if bytes > 0 {
            self.families
                .output_dropped
                .get_or_create(&FilterLabel {
                    filter: self.filter.clone(),
                })
                .inc_by(bytes);
        }
    }

    /// This version runs now, and no other of this filter.
    pub fn version(&self, version: &str, digest: &str) {
        self.forget();
        let label = VersionLabel {
            filter: self.filter.clone(),
            version: version.to_owned(),
            digest: digest.to_owned(),
        };
        self.families.version.get_or_create(&label).set(1);
        *self.shown() = Some(label);
    }

    /// No version runs any more.
    pub fn forget(&self) {
        if let Some(label) = self.shown().take() {
            self.families.version.remove(&label);
        }
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Option<VersionLabel>> {
        self.shown
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
