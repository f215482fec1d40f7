//! `jackfield journal verify`: reads every byte that was written, and says what is wrong and where.
//!
//! Every record against its checksum; numbers that go up; every decision readable and about an input that is there; every
//! segment of the same journal. What an interrupted write left at the journal's end is no damage.

use std::io;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use thiserror::Error;

use super::output::Output;
use super::undecided::Undecided;
use super::{FAILED, Failure, Found, Place, Tally};
use crate::journal::{Head, Inspection, Item, Kind, Lsn, Opening, RealDisk, SegmentFile};
use crate::pipeline::{DecisionError, decode};

#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    place: Place,
    /// Answer in JSON, one object a line; the last one is the summary.
    #[arg(long)]
    json: bool,
}

/// What is wrong at some place.
#[derive(Debug, Error)]
enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("{0} damaged bytes")]
    Damaged(u64),
    #[error("{0} bytes at the end that are no record, though a segment follows")]
    CutShort(u64),
    #[error("it is of journal {found}, not of {wanted}")]
    OtherJournal { found: String, wanted: String },
    #[error("it is of router {found:?}, not of {wanted:?}")]
    OtherRouter { found: String, wanted: String },
    #[error("it begins with {first}, above the number in its name")]
    OutOfPlace { first: Lsn },
    #[error("input {lsn} stands behind {before}")]
    InputOutOfOrder { lsn: Lsn, before: Lsn },
    #[error("the decision about input {lsn} stands behind that about {before}")]
    DecisionOutOfOrder { lsn: Lsn, before: Lsn },
    #[error("the decision about input {lsn} is unreadable: {source}")]
    UnreadableDecision { lsn: Lsn, source: DecisionError },
    #[error("a decision about input {lsn}, which is not there")]
    NoInput { lsn: Lsn },
}

/// What was learnt so far.
#[derive(Default)]
struct Known {
    id: Option<String>,
    router: Option<String>,
    /// Inputs below it were deleted with their segments.
    oldest: Option<Lsn>,
    undecided: Undecided,
    tally: Tally,
    /// Written at the journal's end in vain.
    unfinished: u64,
}

/// How far the numbers are in one segment. They may begin again in the next one, with what was written or decided again after a
/// failure.
struct Reached {
    input: Lsn,
    decision: Lsn,
}

/// Says what is wrong as it is found.
struct Report {
    output: Output,
    json: bool,
    problems: u64,
}

/// The segment that is being read, where its problems are told.
struct Here<'a> {
    segment: String,
    report: &'a mut Report,
}

impl Verify {
    pub(super) fn run(self) -> Result<ExitCode, ExitCode> {
        let found = self.place.find()?;
        let mut report = Report {
            output: Output::stdout(),
            json: self.json,
            problems: 0,
        };
        let verified = verify(&found, &mut report);
        let problems = report.problems;
        let printed = verified.and_then(|known| report.sum_up(found.segments.len(), &known));
        match printed {
            Ok(()) if problems == 0 => Ok(ExitCode::SUCCESS),
            // It was not seen to be sound.
            Ok(()) | Err(Failure::Closed) => Ok(ExitCode::from(FAILED)),
            Err(failure) => Err(failure.code()),
        }
    }
}

fn verify(found: &Found, report: &mut Report) -> Result<Known, Failure> {
    let mut known = Known::default();
    let newest = found.segments.last().map(|segment| segment.number);
    for segment in &found.segments {
        let mut here = Here {
            segment: segment.name(),
            report,
        };
        match segment.open(&RealDisk) {
            Ok(Some(mut inspection)) => {
                let is_newest = Some(segment.number) == newest;
                known.read(segment, &mut inspection, is_newest, &mut here)?;
            }
            // Its host has deleted it meanwhile.
            Ok(None) => {}
            Err(error) => here.say(None, Problem::Unreadable(error))?,
        }
    }
    Ok(known)
}

impl Known {
    fn read(
        &mut self,
        segment: &SegmentFile,
        inspection: &mut Inspection,
        is_newest: bool,
        here: &mut Here,
    ) -> Result<(), Failure> {
        let opening = match inspection.opening() {
            Ok(opening) => opening,
            Err(error) => return here.say(None, Problem::Unreadable(error)),
        };
        let first = opening.as_ref().map_or(segment.number, |one| one.first);
        self.oldest.get_or_insert(first);
        if let Some(opening) = opening {
            self.header(segment, opening, here)?;
        }
        let mut reached = Reached {
            input: first.saturating_sub(1),
            decision: 0,
        };
        loop {
            self.records(inspection, &mut reached, here)?;
            let end = inspection.used();
            let unfinished = match inspection.unfinished() {
                Ok(unfinished) => unfinished,
                Err(error) => return here.say(Some(end), Problem::Unreadable(error)),
            };
            if unfinished == 0 {
                return Ok(());
            }
            // They may be records by now, if a host writes on.
            self.records(inspection, &mut reached, here)?;
            if inspection.used() > end {
                continue;
            }
            if is_newest {
                self.unfinished = unfinished;
                return Ok(());
            }
            return here.say(Some(end), Problem::CutShort(unfinished));
        }
    }

    fn header(
        &mut self,
        segment: &SegmentFile,
        opening: Opening,
        here: &mut Here,
    ) -> Result<(), Failure> {
        let Opening { id, first, router } = opening;
        if first > segment.number {
            here.say(Some(0), Problem::OutOfPlace { first })?;
        }
        let wanted = self.id.get_or_insert_with(|| id.clone()).clone();
        if id != wanted {
            here.say(Some(0), Problem::OtherJournal { found: id, wanted })?;
        }
        self.router(0, router, here)
    }

    fn router(&mut self, position: u64, found: String, here: &mut Here) -> Result<(), Failure> {
        if found.is_empty() {
            return Ok(());
        }
        let wanted = self.router.get_or_insert_with(|| found.clone()).clone();
        if found == wanted {
            return Ok(());
        }
        here.say(Some(position), Problem::OtherRouter { found, wanted })
    }

    /// Reads on to the end of what is written now.
    fn records(
        &mut self,
        inspection: &mut Inspection,
        reached: &mut Reached,
        here: &mut Here,
    ) -> Result<(), Failure> {
        loop {
            let end = inspection.used();
            match inspection.next() {
                Ok(Some(Item::Record {
                    position,
                    head,
                    payload,
                })) => self.record(position, &head, payload, reached, here)?,
                Ok(Some(Item::Unknown)) => {}
                Ok(Some(Item::Damaged(bytes))) => {
                    let length = bytes.end - bytes.start;
                    here.say(Some(bytes.start), Problem::Damaged(length))?;
                }
                Ok(None) => return Ok(()),
                Err(error) => return here.say(Some(end), Problem::Unreadable(error)),
            }
        }
    }

    fn record(
        &mut self,
        position: u64,
        head: &Head,
        payload: &[u8],
        reached: &mut Reached,
        here: &mut Here,
    ) -> Result<(), Failure> {
        self.tally.count(head);
        let (at, lsn) = (Some(position), head.lsn);
        match head.kind {
            Kind::Decision => {
                let before = std::mem::replace(&mut reached.decision, lsn);
                if lsn <= before {
                    here.say(at, Problem::DecisionOutOfOrder { lsn, before })?;
                }
                if let Err(source) = decode(payload) {
                    here.say(at, Problem::UnreadableDecision { lsn, source })?;
                }
                if !self.undecided.decide(lsn) && Some(lsn) >= self.oldest {
                    here.say(at, Problem::NoInput { lsn })?;
                }
            }
            Kind::Mark => {}
            Kind::Router => {
                let name = String::from_utf8_lossy(payload).into_owned();
                self.router(position, name, here)?;
            }
            Kind::Json
            | Kind::Plain
            | Kind::Tick
            | Kind::Internal
            | Kind::Replay
            | Kind::RollCall => {
                let before = std::mem::replace(&mut reached.input, lsn);
                if lsn <= before {
                    here.say(at, Problem::InputOutOfOrder { lsn, before })?;
                }
                self.undecided.add(lsn);
            }
        }
        Ok(())
    }
}

impl Here<'_> {
    fn say(&mut self, position: Option<u64>, problem: Problem) -> Result<(), Failure> {
        self.report.problems += 1;
        let (output, segment) = (&mut self.report.output, &self.segment);
        if self.report.json {
            let problem = problem.to_string();
            output.line(json!({ "segment": segment, "position": position, "problem": problem }))
        } else if let Some(position) = position {
            output.line(format_args!("{segment}: at byte {position}: {problem}"))
        } else {
            output.line(format_args!("{segment}: {problem}"))
        }
    }
}

impl Report {
    fn sum_up(mut self, segments: usize, known: &Known) -> Result<(), Failure> {
        let Tally {
            inputs,
            decisions,
            marks,
            ..
        } = known.tally;
        let (undecided, unfinished) = (known.undecided.count(), known.unfinished);
        if self.json {
            self.output.line(json!({
                "sound": self.problems == 0,
                "problems": self.problems,
                "segments": segments,
                "inputs": inputs,
                "decisions": decisions,
                "marks": marks,
                "undecided": undecided,
                "unfinished_bytes": unfinished,
            }))?;
        } else {
            if unfinished > 0 {
                self.output.line(format_args!(
                    "{unfinished} bytes of an unfinished write at the end, which is no damage"
                ))?;
            }
            let verdict = match self.problems {
                0 => "sound".to_owned(),
                problems => format!("{problems} problems"),
            };
            self.output.line(format_args!(
                "{segments} segments, {inputs} inputs, {decisions} decisions, {marks} marks, {undecided} inputs undecided: {verdict}"
            ))?;
        }
        self.output.finish()
    }
}
