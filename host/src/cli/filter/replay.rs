//! `jackfield filter replay`: what a filter would have done with past traffic, beside what was done.
//!
//! Changes nothing. A journal tells what the filter of the same name did, nothing where there was none; a recording does not, so
//! there the filter is compared with one that does nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use serde::Serialize;

use super::traffic::{NoTraffic, Source};
use super::{Settings, engine, failed, settings_file};
use crate::cli::FAILED;
use crate::filter::{Answer, Candidate, FilterFile, Prepared, Refusal};

/// Kinds of differences that are printed, the most frequent ones.
const KINDS: usize = 20;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("past").args(["journal", "capture"]).required(true))]
pub(super) struct Replay {
    /// The component.
    file: PathBuf,
    #[command(flatten)]
    source: Source,
    /// The settings file [default: NAME.toml beside NAME.wasm, if it is there].
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// The filter in the chain that it is compared with, and whose place it takes [default: the file's name without .wasm].
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// Differences that are shown one by one.
    #[arg(long, value_name = "N", default_value_t = 5)]
    samples: usize,
    #[command(flatten)]
    host: Settings,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Serialize)]
struct Report {
    filter: String,
    /// Events that came by.
    events: u64,
    /// Those of which it is known what the filter of that name did: all that were decided, and for which no call failed.
    compared: u64,
    differ: u64,
    dropped: Change,
    rerouted: Change,
    failed: u64,
    mean_ns: u64,
    /// How often each difference was met.
    differences: BTreeMap<String, u64>,
    samples: Vec<Sample>,
    failures: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Change {
    before: u64,
    now: u64,
}

#[derive(Serialize)]
struct Sample {
    lsn: u64,
    event: String,
    difference: String,
}

impl Replay {
    pub(super) fn run(self) -> Result<ExitCode, ExitCode> {
        let limits = self.host.clone().load()?.filters.limits;
        let settings = settings_file(self.settings.as_deref(), &self.file)?;
        let file = FilterFile::read(&self.file, &settings);
        let name = self.name.clone().unwrap_or_else(|| file.name.to_string());
        let engine = Arc::new(engine()?);
        let refused = |refusal: Refusal| {
            eprintln!("jackfield: {}: {refusal}", self.file.display());
            ExitCode::from(FAILED)
        };
        let prepared = Prepared::new(&engine, &file, &limits).map_err(refused)?;
        let candidate = prepared.candidate(&engine, &name).map_err(refused)?;
        let report = self
            .compare(&name, candidate)
            .map_err(|error| failed(&error))?;
        match self.json {
            true => println!("{:#}", serde_json::json!(report)),
            false => self.print(&report),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn compare(&self, name: &str, mut candidate: Candidate) -> Result<Report, NoTraffic> {
        let mut traffic = self.source.open(name)?;
        let (mut differences, mut failures) = (BTreeMap::new(), BTreeMap::new());
        let (mut differ, mut samples) = (0, Vec::new());
        while let Some(mut occasion) = traffic.next()? {
            if self.source.capture.is_some() {
                occasion.answer = Some(Answer::pass());
            }
            let lsn = occasion.lsn;
            let event = occasion
                .event
                .as_ref()
                .map(|event| event.name().into_owned());
            match candidate.handle(occasion) {
                Ok(None) => {}
                Ok(Some(difference)) => {
                    differ += 1;
                    let difference = difference.to_string();
                    *differences.entry(difference.clone()).or_default() += 1;
                    if samples.len() < self.samples {
                        samples.push(Sample {
                            lsn,
                            event: event.unwrap_or_default(),
                            difference,
                        });
                    }
                }
                Err(failure) => *failures.entry(failure.to_string()).or_default() += 1,
            }
        }
        let (tally, before, beside) = (&candidate.tally, &candidate.before, &candidate.beside);
        Ok(Report {
            filter: name.to_owned(),
            events: tally.events + tally.failures,
            compared: candidate.compared,
            differ,
            dropped: Change {
                before: before.drops,
                now: beside.drops,
            },
            rerouted: Change {
                before: before.reroutes,
                now: beside.reroutes,
            },
            failed: tally.failures,
            mean_ns: tally.mean_ns(),
            differences,
            samples,
            failures,
        })
    }

    fn print(&self, report: &Report) {
        let Report {
            filter,
            events,
            compared,
            differ,
            ..
        } = report;
        let than = match self.source.journal {
            Some(_) => format!("what filter {filter} did"),
            None => "what no filter does".to_owned(),
        };
        println!("{events} events, {compared} compared, {differ} differ from {than}");
        let change = |what: &str, change: &Change| {
            println!("  {what:<9} {} (before: {})", change.now, change.before);
        };
        change("dropped", &report.dropped);
        change("routed", &report.rerouted);
        println!("  failed    {}", report.failed);
        println!("  a call takes {} ns on average", report.mean_ns);
        for (title, counts) in [
            ("differences", &report.differences),
            ("failures", &report.failures),
        ] {
            let mut counts: Vec<(&String, &u64)> = counts.iter().collect();
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            if !counts.is_empty() {
                println!("{title}:");
            }
            for (what, count) in counts.iter().take(KINDS) {
                println!("  {count:>7} {what}");
            }
            if counts.len() > KINDS {
                println!("  and {} more kinds", counts.len() - KINDS);
            }
        }
        if !report.samples.is_empty() {
            println!("samples:");
        }
        for Sample {
            lsn,
            event,
            difference,
        } in &report.samples
        {
            println!("  {lsn} {event}: {difference}");
        }
    }
}
