//! `jackfield journal ls`: a line a segment, and the sums.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::output::Output;
use super::{Failure, Found, Place, Tally};
use crate::clock::rfc3339;
use crate::journal::{Item, Kind, Lsn, RealDisk, SegmentFile};

#[derive(Debug, Args)]
pub(super) struct Ls {
    #[command(flatten)]
    place: Place,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// The journal as it is listed.
#[derive(Default)]
struct Listing {
    id: Option<String>,
    router: Option<String>,
    segments: Vec<Row>,
    sum: Tally,
}

/// What is said of one segment.
struct Row {
    file: String,
    first: Lsn,
    tally: Tally,
    /// The earliest and the latest receive time of its inputs, in microseconds since the epoch.
    span: Option<(u64, u64)>,
    used: u64,
    size: u64,
    quarantined: u64,
}

impl Ls {
    pub(super) fn run(self) -> Result<ExitCode, ExitCode> {
        let found = self.place.find()?;
        let listing = Listing::of(&found).map_err(Failure::code)?;
        let mut output = Output::stdout();
        let printed = if self.json {
            output.line(format_args!("{:#}", listing.to_json()))
        } else {
            listing.print(&mut output)
        };
        let printed = printed.and_then(|()| output.finish());
        printed.map_err(Failure::code)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Listing {
    fn of(found: &Found) -> Result<Listing, Failure> {
        let mut listing = Listing::default();
        for segment in &found.segments {
            let path = found.dir.join(segment.name());
            let read = listing.read(segment);
            read.map_err(Failure::unreadable(&path))?;
        }
        Ok(listing)
    }

    fn read(&mut self, segment: &SegmentFile) -> std::io::Result<()> {
        let Some(mut inspection) = segment.open(&RealDisk)? else {
            return Ok(());
        };
        let mut row = Row::new(segment);
        if let Some(opening) = inspection.opening()? {
            row.first = opening.first;
            self.id = Some(opening.id);
            self.name_router(opening.router);
        }
        while let Some(item) = inspection.next()? {
            match item {
                Item::Record { head, payload, .. } => {
                    self.sum.count(&head);
                    row.tally.count(&head);
                    if head.kind.is_input() {
                        row.stretch(head.at_us);
                    } else if head.kind == Kind::Router {
                        self.name_router(String::from_utf8_lossy(payload).into_owned());
                    }
                }
                Item::Unknown => {}
                Item::Damaged(_) => row.quarantined += 1,
            }
        }
        row.used = inspection.used();
        self.segments.push(row);
        Ok(())
    }

    fn name_router(&mut self, name: String) {
        if !name.is_empty() {
            self.router = Some(name);
        }
    }

    /// Bytes used, bytes on disk, damaged places.
    fn sums(&self) -> (u64, u64, u64) {
        let rows = self.segments.iter();
        rows.fold((0, 0, 0), |(used, size, quarantined), row| {
            (
                used + row.used,
                size + row.size,
                quarantined + row.quarantined,
            )
        })
    }

    fn to_json(&self) -> Value {
        let (used, size, quarantined) = self.sums();
        json!({
            "id": self.id,
            "router": self.router,
            "segments": self.segments.iter().map(Row::to_json).collect::<Vec<_>>(),
            "inputs": self.sum.inputs,
            "decisions": self.sum.decisions,
            "marks": self.sum.marks,
            "used_bytes": used,
            "size_bytes": size,
            "quarantined": quarantined,
            "last_lsn": self.sum.last_input,
            "newest_decision": self.sum.newest_decision,
            "newest_mark": self.sum.newest_mark,
        })
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        let (used, size, quarantined) = self.sums();
        let name = |known: &Option<String>| known.clone().unwrap_or_else(|| "unknown".to_owned());
        output.line(format_args!("journal {}", name(&self.id)))?;
        output.line(format_args!("router {}", name(&self.router)))?;
        output.line(format_args!(
            "{:<20}  {:>16}  {:>9}  {:>9}  {:>6}  {:<24}  {:<24}  {:>10}  {:>11}",
            "SEGMENT",
            "FIRST LSN",
            "INPUTS",
            "DECISIONS",
            "MARKS",
            "FROM",
            "TO",
            "USED",
            "QUARANTINED"
        ))?;
        for row in &self.segments {
            row.print(output)?;
        }
        let Tally {
            inputs,
            decisions,
            marks,
            ..
        } = self.sum;
        output.line(format_args!(
            "{} segments, {inputs} inputs, {decisions} decisions, {marks} marks, {used} of {size} bytes used, {quarantined} damaged places quarantined",
            self.segments.len()
        ))?;
        let lsn = |known: Option<Lsn>| known.map_or_else(|| "none".to_owned(), |l| l.to_string());
        output.line(format_args!(
            "last LSN {}, newest decision {}, newest mark {}",
            lsn(self.sum.last_input),
            lsn(self.sum.newest_decision),
            lsn(self.sum.newest_mark)
        ))
    }
}

impl Row {
    fn new(segment: &SegmentFile) -> Row {
        Row {
            file: segment.name(),
            // A damaged header does not say, and its name is nearly always the same number.
            first: segment.number,
            tally: Tally::default(),
            span: None,
            used: 0,
            size: segment.size,
            quarantined: 0,
        }
    }

    fn stretch(&mut self, at_us: u64) {
        let (from, to) = self.span.unwrap_or((at_us, at_us));
        self.span = Some((from.min(at_us), to.max(at_us)));
    }

    /// The times of the first and the last input.
    fn times(&self) -> Option<(String, String)> {
        self.span.map(|(from, to)| (rfc3339(from), rfc3339(to)))
    }

    fn to_json(&self) -> Value {
        let (from, to) = self.times().unzip();
        json!({
            "file": self.file,
            "first_lsn": self.first,
            "inputs": self.tally.inputs,
            "decisions": self.tally.decisions,
            "marks": self.tally.marks,
            "from": from,
            "to": to,
            "used_bytes": self.used,
            "size_bytes": self.size,
            "quarantined": self.quarantined,
        })
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        let none = || ("-".to_owned(), "-".to_owned());
        let (from, to) = self.times().unwrap_or_else(none);
        output.line(format_args!(
            "{:<20}  {:>16}  {:>9}  {:>9}  {:>6}  {from:<24}  {to:<24}  {:>10}  {:>11}",
            self.file,
            self.first,
            self.tally.inputs,
            self.tally.decisions,
            self.tally.marks,
            self.used,
            self.quarantined
        ))
    }
}
