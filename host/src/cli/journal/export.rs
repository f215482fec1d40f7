//! `jackfield journal export`: the inputs in order, as JSON with what became of each, or as the frames that they came in.
//!
//! What is damaged is passed over and counted on standard error.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::output::Output;
use super::{Failure, Found, Place};
use crate::clock::rfc3339;
use crate::event::{Event, Format};
use crate::journal::{Disk, Kind, Lsn, Reader, RealDisk, Record};
use crate::pipeline::{DecisionError, Pairs, decode, format};

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    place: Place,
    /// Only inputs after this number.
    #[arg(long, value_name = "LSN", default_value_t = 0)]
    after: Lsn,
    /// Only inputs up to this number, which is among them.
    #[arg(long, value_name = "LSN", default_value_t = Lsn::MAX, hide_default_value = true)]
    through: Lsn,
    /// Events as frames of the Event Socket, as they came over the wire; no ticks, no decisions.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// One JSON object a line for each input, with its decision (the default).
    #[arg(long)]
    json: bool,
    /// Write to this file, in place of whatever is there.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What an export found that it could not use.
#[derive(Default)]
struct Skipped {
    /// Places of the journal.
    damaged: u64,
    decisions: u64,
}

impl Export {
    pub(super) fn run(self) -> Result<ExitCode, ExitCode> {
        let found = self.place.find()?;
        let output = match &self.output {
            Some(path) => Output::file(path),
            None => Ok(Output::stdout()),
        };
        let range = (self.after, self.through);
        let exported = output.and_then(|output| match self.raw {
            true => export_raw(&found, range, output),
            false => export_json(&found, range, output),
        });
        let skipped = exported.map_err(Failure::code)?;
        if skipped.damaged + skipped.decisions > 0 {
            eprintln!(
                "jackfield: {} damaged places and {} unreadable decisions were passed over; `jackfield journal verify` says where",
                skipped.damaged, skipped.decisions
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the events' frames.
fn export_raw(
    found: &Found,
    (after, through): (Lsn, Lsn),
    mut output: Output,
) -> Result<Skipped, Failure> {
    let unreadable = Failure::unreadable(&found.dir);
    let mut inputs = Reader::inputs_after(disk(), &found.dir, after);
    while let Some(input) = inputs.next().map_err(&unreadable)? {
        if input.head.lsn > through {
            break;
        }
        if let Some(format) = format(input.head.kind) {
            output.bytes(outer_header(format, input.payload.len()).as_bytes())?;
            output.bytes(&input.payload)?;
        }
    }
    output.finish()?;
    Ok(Skipped {
        damaged: inputs.quarantined(),
        decisions: 0,
    })
}

/// The header lines that FreeSWITCH sends before an event of so many bytes.
fn outer_header(format: Format, length: usize) -> String {
    let content_type = match format {
        Format::Json => "text/event-json",
        Format::Plain => "text/event-plain",
    };
    format!("Content-Length: {length}\nContent-Type: {content_type}\n\n")
}

/// Writes a line of JSON for each input.
fn export_json(
    found: &Found,
    (after, through): (Lsn, Lsn),
    mut output: Output,
) -> Result<Skipped, Failure> {
    let unreadable = Failure::unreadable(&found.dir);
    let mut pairs = Pairs::after(&disk(), &found.dir, after);
    let mut skipped = Skipped::default();
    let mut line = Vec::new();
    while let Some((input, decision)) = pairs.next_pair().map_err(&unreadable)? {
        if input.head.lsn > through {
            break;
        }
        line.clear();
        push_input(&input, &mut line);
        if push_decision(decision.as_ref(), &mut line).is_err() {
            skipped.decisions += 1;
            line.extend_from_slice(b"null");
        }
        line.extend_from_slice(b"}\n");
        output.bytes(&line)?;
    }
    output.finish()?;
    skipped.damaged = pairs.quarantined();
    Ok(skipped)
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

/// Everything of an input's line but the value of its decision.
fn push_input(input: &Record, line: &mut Vec<u8>) {
    let head = &input.head;
    let (received, received_us) = (rfc3339(head.at_us), head.at_us);
    let start = format!(
        "{{\"lsn\":{},\"kind\":\"{}\",\"received\":\"{received}\",\"received_us\":{received_us},\"connection\":{},\"offset\":{},",
        head.lsn,
        name_of(head.kind),
        head.connection,
        head.offset,
    );
    line.extend_from_slice(start.as_bytes());
    let event = format(head.kind).map(|format| Event::parse(format, input.payload.clone()));
    match event {
        Some(Ok(event)) => {
            line.extend_from_slice(b"\"event\":");
            event.write_json(line);
        }
        // No event, though it came as one.
        Some(Err(_)) => push_member("frame", &String::from_utf8_lossy(&input.payload), line),
        None => {
            let names = String::from_utf8_lossy(&input.payload);
            push_member("filters", &names.lines().collect::<Vec<_>>(), line);
        }
    }
    line.extend_from_slice(b",\"decision\":");
}

fn push_member(name: &str, value: &(impl serde::Serialize + ?Sized), line: &mut Vec<u8>) {
    let value = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    line.extend_from_slice(format!("\"{name}\":{value}").as_bytes());
}

/// The events that an input became; null while it has no decision. Nothing is appended after an error.
fn push_decision(decision: Option<&Record>, line: &mut Vec<u8>) -> Result<(), DecisionError> {
    let became = decision.map(|decision| decode(&decision.payload));
    let became = became.transpose()?;
    let value = serde_json::to_string(&became).unwrap_or_else(|_| "null".to_owned());
    line.extend_from_slice(value.as_bytes());
    Ok(())
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Json => "json",
        Kind::Plain => "plain",
        Kind::Tick => "tick",
        Kind::Internal => "internal",
        Kind::Replay => "replay",
        Kind::RollCall => "roll-call",
        Kind::Decision => "decision",
        Kind::Mark => "mark",
        Kind::Router => "router",
    }
}
