//! `jackfield tail`: what becomes of events while it happens, as the running host tells it; with `--decisions`, from its journal,
//! without asking the host.

mod live;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::WRONG_CONFIG;
use super::http::Host;
use super::journal::{Failure, Output, Place};
use super::why::tell;
use crate::journal::{Disk, Lsn, Reader, RealDisk, SegmentFile};
use crate::pipeline::{Pairs, Told};

/// How often the journal is looked at for more.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct Tail {
    /// Read the journal itself: the host need not answer.
    #[arg(long)]
    decisions: bool,
    #[command(flatten)]
    place: Place,
    /// Only events of this name, or name and subclass; `*` stands for any text; may be repeated.
    #[arg(long, value_name = "NAME", conflicts_with = "decisions")]
    event: Vec<String>,
    /// Only events with such a header; `*` stands for any text; of several, all must match.
    #[arg(long, value_name = "NAME:PATTERN", conflicts_with = "decisions")]
    header: Vec<String>,
    /// Begin after this LSN, 0 for the oldest there is [default: with what is decided from now on].
    #[arg(long, value_name = "LSN")]
    since: Option<Lsn>,
    /// End after so many events [default: go on until interrupted].
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// End after so long, such as 30s.
    #[arg(long, value_name = "DURATION", conflicts_with = "decisions")]
    timeout: Option<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Tail {
    pub(super) fn main(self) -> ExitCode {
        let done = match self.decisions {
            true => self.journal(),
            false => self.live(),
        };
        done.unwrap_or_else(|code| code)
    }

    fn live(self) -> Result<ExitCode, ExitCode> {
        if let Some(dir) = &self.place.dir {
            eprintln!(
                "jackfield: {}: a journal is read with --decisions",
                dir.display()
            );
            return Err(ExitCode::from(WRONG_CONFIG));
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.event.iter().map(|event| ("event", event)));
        query.extend_pairs(self.header.iter().map(|header| ("header", header)));
        query.extend_pairs(self.since.map(|since| ("since", since.to_string())));
        query.extend_pairs(self.limit.map(|limit| ("limit", limit.to_string())));
        query.extend_pairs(self.timeout.map(|timeout| ("timeout", timeout)));
        let host = Host::of(&self.place.settings.load()?);
        live::follow(&host, &query.finish(), self.json)
    }

    fn journal(self) -> Result<ExitCode, ExitCode> {
        let found = self.place.find()?;
        let unreadable = Failure::unreadable(&found.dir);
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let after = match self.since {
            Some(since) => since,
            None => newest(&disk, &found.dir)
                .map_err(&unreadable)
                .map_err(Failure::code)?,
        };
        let mut pairs = Pairs::after(&disk, &found.dir, after);
        let mut output = Output::stdout();
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let next = pairs.next_decided().map_err(&unreadable);
            match next.map_err(Failure::code)? {
                Some((input, decision)) => {
                    left -= 1;
                    let told = Told::of(&input, Some(&decision));
                    tell(&told, self.json, &mut output).map_err(Failure::code)?;
                }
                None => {
                    output.flush().map_err(Failure::code)?;
                    std::thread::sleep(LOOK);
                }
            }
        }
        output.finish().map_err(Failure::code)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The newest decision. Those about the newest segment's inputs stand in it; where it has none yet, they stand before it.
fn newest(disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<Lsn> {
    let segments = SegmentFile::all(disk.as_ref(), dir)?;
    for segment in segments.iter().rev() {
        let before = segment.number.saturating_sub(1);
        let mut decisions = Reader::decisions_after(Arc::clone(disk), dir, before);
        let mut last = None;
        while let Some(head) = decisions.next_head()? {
            last = Some(head.lsn);
        }
        if let Some(last) = last {
            return Ok(last);
        }
    }
    Ok(0)
}
