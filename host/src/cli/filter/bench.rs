//! `jackfield filter bench`: what a call costs, beside a filter that does nothing, in one interleaved run.
//!
//! Times are those of this machine at this moment: believe the ratio.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::traffic::{NoTraffic, Source};
use super::{Settings, engine, failed, settings_file};
use crate::cli::FAILED;
use crate::filter::{Candidate, EMPTY, FilterFile, Occasion, Prepared, Refusal};

/// Events that are held for it.
const MAX_EVENTS: usize = 10_000;
/// Calls of one filter before it is the other's turn.
const ROUND: u64 = 500;
/// A call never takes longer than its deadline, which is hardly ever a minute.
const LONGEST_NS: u64 = 60_000_000_000;

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// The component.
    file: PathBuf,
    #[command(flatten)]
    source: Source,
    /// The settings file [default: NAME.toml beside NAME.wasm, if it is there].
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Calls that are measured.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    calls: u64,
    #[command(flatten)]
    host: Settings,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// Nanoseconds a call.
#[derive(Clone, Copy, Serialize)]
struct Cost {
    p50_ns: u64,
    p99_ns: u64,
    calls: u64,
    failures: u64,
}

/// One side of the comparison.
struct Side {
    candidate: Candidate,
    histogram: Histogram<u64>,
    failures: u64,
}

impl Bench {
    pub(super) fn run(self) -> Result<ExitCode, ExitCode> {
        let limits = self.host.clone().load()?.filters.limits;
        let settings = settings_file(self.settings.as_deref(), &self.file)?;
        let file = FilterFile::read(&self.file, &settings);
        let empty = FilterFile {
            name: "empty".into(),
            component: Ok(EMPTY.to_vec()),
            settings: Ok(String::new()),
        };
        let engine = Arc::new(engine()?);
        let side = |file: &FilterFile| -> Result<Side, Refusal> {
            let prepared = Prepared::new(&engine, file, &limits)?;
            let candidate = prepared.candidate(&engine, &file.name)?;
            Ok(Side::new(candidate))
        };
        let refused = |refusal: Refusal| {
            eprintln!("jackfield: {}: {refusal}", self.file.display());
            ExitCode::from(FAILED)
        };
        let (mut it, mut nothing) = (
            side(&file).map_err(refused)?,
            side(&empty).map_err(refused)?,
        );
        let mut events = self.events(&file.name).map_err(|error| failed(&error))?;
        let all = events.len();
        // Once for the caches and the branch predictor, and to see which are for it.
        events.retain(|event| it.call(event));
        for event in &events {
            nothing.call(event);
        }
        if events.is_empty() {
            eprintln!("jackfield: it subscribed to none of the {all} events");
            return Err(ExitCode::from(FAILED));
        }
        it.measure_anew();
        nothing.measure_anew();
        let mut events = events.iter().cycle();
        let mut left = self.calls;
        while left > 0 {
            let round: Vec<&Occasion> =
                (0..left.min(ROUND)).filter_map(|_| events.next()).collect();
            for side in [&mut it, &mut nothing] {
                for event in &round {
                    side.call(event);
                }
            }
            left = left.saturating_sub(ROUND);
        }
        self.tell(all, it.cost(), nothing.cost());
        Ok(ExitCode::SUCCESS)
    }

    fn events(&self, name: &str) -> Result<Vec<Occasion>, NoTraffic> {
        let mut traffic = self.source.open(name)?;
        let mut events = Vec::new();
        while events.len() < MAX_EVENTS
            && let Some(occasion) = traffic.next()?
        {
            events.extend(Some(occasion).filter(|occasion| occasion.event.is_some()));
        }
        Ok(events)
    }

    fn tell(&self, events: usize, it: Cost, nothing: Cost) {
        let ratio = hundredths(it.p50_ns, nothing.p50_ns);
        if self.json {
            let answer = serde_json::json!({ "events": events, "filter": it, "empty": nothing, "ratio": ratio });
            println!("{answer:#}");
            return;
        }
        println!("{events} events, {} calls", it.calls);
        let line = |what: &str, cost: Cost| {
            println!(
                "  {what:<8} p50 {:>7} ns   p99 {:>7} ns",
                cost.p50_ns, cost.p99_ns
            );
        };
        line("filter", it);
        line("empty", nothing);
        println!("  ratio    {ratio:.2} (p50)");
        if it.failures > 0 {
            println!("  {} calls failed", it.failures);
        }
    }
}

impl Side {
    fn new(candidate: Candidate) -> Side {
        Side {
            candidate,
            histogram: histogram(),
            failures: 0,
        }
    }

    /// Whether it was called for this event, to which it may not have subscribed.
    fn call(&mut self, occasion: &Occasion) -> bool {
        let before = self.candidate.tally;
        let event = Occasion {
            lsn: occasion.lsn,
            now_us: occasion.now_us,
            event: occasion.event.clone(),
            answer: None,
        };
        self.failures += u64::from(self.candidate.handle(event).is_err());
        let is_called = self.candidate.tally.calls > before.calls;
        if is_called {
            let took_ns = self.candidate.tally.took_ns - before.took_ns;
            self.histogram.saturating_record(took_ns);
        }
        is_called
    }

    fn measure_anew(&mut self) {
        self.histogram.reset();
        self.failures = 0;
    }

    fn cost(&self) -> Cost {
        Cost {
            p50_ns: self.histogram.value_at_quantile(0.5),
            p99_ns: self.histogram.value_at_quantile(0.99),
            calls: self.histogram.len(),
            failures: self.failures,
        }
    }
}

/// Three digits, up to `LONGEST_NS`: what is recorded above counts as that.
fn histogram() -> Histogram<u64> {
    #[expect(
        clippy::expect_used,
        reason = "bounds and digits are what the constructor takes"
    )]
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds and digits")
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds of one call, for people"
)]
fn hundredths(it: u64, nothing: u64) -> f64 {
    (it as f64 / nothing.max(1) as f64 * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::histogram;

    #[test]
    fn calls_of_any_length_are_shown() {
        for took_ns in [600, 2_500, 10_000_000] {
            let mut histogram = histogram();
            histogram.saturating_record(took_ns);
            let shown = histogram.value_at_quantile(0.5);
            assert!(
                shown.abs_diff(took_ns) * 100 <= took_ns,
                "{took_ns} ns are shown as {shown} ns"
            );
        }
    }
}
