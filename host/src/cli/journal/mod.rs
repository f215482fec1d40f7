//! `jackfield journal`: what is in the journal on disk, and whether it is sound.
//!
//! All three commands only read and take no lock, so they may look at the journal of a running host. Journals have gigabytes:
//! nothing here grows with them but a line a segment. A closed pipe on standard output (`| head`) ends a command quietly.

mod export;
mod ls;
mod output;
mod undecided;
mod verify;

pub(super) use output::Output;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use thiserror::Error;

use super::{FAILED, Settings, print_error};
use crate::journal::{Head, Kind, Lsn, RealDisk, SegmentFile};

#[derive(Debug, Args)]
pub(super) struct Journal {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the segments of the journal and what is in each.
    #[command(
        after_help = "Examples:\n  jackfield journal ls\n  jackfield journal ls /var/lib/jackfield/journal --json"
    )]
    Ls(ls::Ls),
    /// Print the inputs in order, each with its decision, or the events as they came over the wire.
    #[command(
        after_help = "Examples:\n  jackfield journal export | jq .event\n  jackfield journal export --after 1099511627775 --through 1099511628000\n  jackfield journal export data/journal --raw --output events.esl"
    )]
    Export(export::Export),
    /// Read everything and say what is damaged; exits 0 if nothing is, 1 if something is.
    #[command(
        after_help = "Examples:\n  jackfield journal verify\n  jackfield journal verify data/journal --json"
    )]
    Verify(verify::Verify),
}

/// Where the journal is.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The journal's folder [default: journal.dir of the settings].
    #[arg(conflicts_with_all = ["config", "set"])]
    pub(super) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) settings: Settings,
}

/// A journal that has segments.
pub(super) struct Found {
    pub(super) dir: PathBuf,
    /// The oldest first.
    segments: Vec<SegmentFile>,
}

/// Why a command could not do its work.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("no journal in {}", dir.display())]
    Nothing { dir: PathBuf },
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot write to {to}")]
    Output { to: String, source: io::Error },
    /// Whoever read the output wants no more of it.
    #[error("standard output was closed")]
    Closed,
}

/// What records there are.
#[derive(Debug, Default)]
struct Tally {
    inputs: u64,
    decisions: u64,
    marks: u64,
    last_input: Option<Lsn>,
    newest_decision: Option<Lsn>,
    newest_mark: Option<Lsn>,
}

impl Journal {
    pub(super) fn main(self) -> ExitCode {
        let done = match self.command {
            Command::Ls(ls) => ls.run(),
            Command::Export(export) => export.run(),
            Command::Verify(verify) => verify.run(),
        };
        done.unwrap_or_else(|code| code)
    }
}

impl Place {
    /// The journal, or the exit code after it was said what is wrong.
    pub(super) fn find(self) -> Result<Found, ExitCode> {
        let dir = match self.dir {
            Some(dir) => dir,
            None => self.settings.load()?.journal.dir,
        };
        match SegmentFile::all(&RealDisk, &dir) {
            Ok(segments) if segments.is_empty() => Err(Failure::Nothing { dir }.code()),
            Ok(segments) => Ok(Found { dir, segments }),
            Err(source) => Err(Failure::unreadable(&dir)(source).code()),
        }
    }
}

impl Failure {
    /// The exit code, after it was said what failed.
    pub(super) fn code(self) -> ExitCode {
        if let Failure::Closed = self {
            return ExitCode::SUCCESS;
        }
        print_error(&self);
        ExitCode::from(FAILED)
    }

    pub(super) fn unreadable(path: &Path) -> impl Fn(io::Error) -> Failure {
        move |source| Failure::Unreadable {
            path: path.to_owned(),
            source,
        }
    }
}

impl Tally {
    fn count(&mut self, head: &Head) {
        let lsn = Some(head.lsn);
        match head.kind {
            Kind::Decision => {
                self.decisions += 1;
                self.newest_decision = self.newest_decision.max(lsn);
            }
            // The last one counts: Redis may have come back with less.
            Kind::Mark => {
                self.marks += 1;
                self.newest_mark = lsn;
            }
            Kind::Router => {}
            Kind::Json
            | Kind::Plain
            | Kind::Tick
            | Kind::Internal
            | Kind::Replay
            | Kind::RollCall => {
                self.inputs += 1;
                self.last_input = self.last_input.max(lsn);
            }
        }
    }
}
