//! `jackfield why`: what became of an event, and which filter did it, from the journal.
//!
//! Reads the files alone and takes no lock, so it may ask about a running host and about one that is gone.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use super::FAILED;
use super::journal::{Failure, Output, Place};
use crate::clock::parse_rfc3339;
use crate::filter::{Edit, Step};
use crate::journal::{Disk, RealDisk};
use crate::pipeline::{Search, Searched, Told};
use crate::route::Outcome;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct Why {
    /// The event's LSN, its Event-UUID, or the Unique-ID of its channel.
    event: String,
    #[command(flatten)]
    place: Place,
    /// Only events received at this time or later, such as 2026-11-27T15:04:05Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<u64>,
    /// Only events received before this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<u64>,
    /// Answer in JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// Microseconds since the epoch.
fn time(text: &str) -> Result<u64, String> {
    parse_rfc3339(text)
        .ok_or_else(|| "allowed is a time in UTC such as 2026-11-27T15:04:05Z".to_owned())
}

impl Why {
    pub(super) fn main(self) -> ExitCode {
        self.run().unwrap_or_else(|code| code)
    }

    fn run(self) -> Result<ExitCode, ExitCode> {
        let found = self.place.find()?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let times = self.from.unwrap_or(0)..self.to.unwrap_or(u64::MAX);
        let mut search = Search::new(&disk, &found.dir, &self.event, times);
        let mut output = Output::stdout();
        let mut count = 0_u64;
        let mut advance = || search.advance().map_err(Failure::unreadable(&found.dir));
        loop {
            match advance().map_err(Failure::code)? {
                Searched::Found(told) => {
                    count += 1;
                    tell(&told, self.json, &mut output).map_err(Failure::code)?;
                }
                Searched::Passed => {}
                Searched::End => break,
            }
        }
        output.finish().map_err(Failure::code)?;
        if count == 0 {
            eprintln!(
                "jackfield: no event {:?} in the journal {}; an event is asked for by {}",
                self.event,
                found.dir.display(),
                Search::names()
            );
            return Ok(ExitCode::from(FAILED));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// One input on the terminal, or as a line of JSON.
pub(super) fn tell(told: &Told, json: bool, output: &mut Output) -> Result<(), Failure> {
    let text = match json {
        true => {
            let line = serde_json::to_string(told).map_err(io::Error::other);
            line.map(|line| line + "\n")
                .map_err(|source| Failure::Output {
                    to: "standard output".to_owned(),
                    source,
                })?
        }
        false => text(told),
    };
    output.bytes(text.as_bytes())
}

fn text(told: &Told) -> String {
    let name = told.event.as_deref().unwrap_or("(no event)");
    let id = told.unique_id.as_deref().unwrap_or("");
    let mut text = format!("{}  {}  {name}  {id}", told.lsn, told.received);
    text.truncate(text.trim_end().len());
    text.push('\n');
    let Some(became) = &told.became else {
        text.push_str("  not decided yet\n");
        return text;
    };
    for one in became {
        let indent = match &one.derived {
            None => "  ",
            Some(derived) => {
                let by = match &*derived.by {
                    "" => "the host",
                    file => file,
                };
                text.push_str(&format!("  {by} derived {}\n", derived.name));
                "    "
            }
        };
        for step in &one.steps {
            text.push_str(&format!("{indent}{}\n", line(step)));
        }
        text.push_str(&format!("{indent}→ {}\n", outcome(&one.outcome)));
    }
    text
}

fn line(step: &Step) -> String {
    let took = f64::from(step.took_ns) / 1_000.0;
    let mut parts = vec![step.verdict.to_string()];
    parts.extend(step.edits.iter().map(edit));
    if let Some(failure) = &step.failure {
        parts.push(format!("failed: {failure}"));
    }
    let what = parts.join("; ");
    match step.version.is_empty() {
        true => format!("{}: {what}", step.by),
        false => format!(
            "{} {} ({}) {took:.1} µs: {what}",
            step.by, step.version, step.digest
        ),
    }
}

fn edit(edit: &Edit) -> String {
    match edit {
        Edit::Set { name, value } => format!("set {name} = {value:?}"),
        Edit::Remove(name) => format!("remove {name}"),
        Edit::Keep(names) => format!("keep {}", names.join(", ")),
        Edit::Body(body) => format!("body of {} bytes", body.len()),
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Streams(targets) => {
            let names: Vec<&str> = targets.iter().map(|target| &*target.stream).collect();
            names.join(", ")
        }
        Outcome::Dead { by, reason, .. } => format!("dead-lettered by {by}: {reason}"),
        Outcome::Malformed(why) => format!("dead-lettered: no event ({why})"),
        Outcome::Dropped { by, reason } => format!("dropped by {by}: {reason}"),
        Outcome::Unrouted => "dropped: no route wants it".to_owned(),
    }
}
