//! Past traffic for a filter that is tried: a journal, a recording of an Event Socket, or the sample events that
//! `jackfield filter new` writes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use thiserror::Error;

use crate::esl::{FrameError, Framed, Framer, Kind};
use crate::event::{Event, Format};
use crate::filter::Occasion;
use crate::journal::{Disk, RealDisk, SegmentFile};
use crate::pipeline::Past;

/// What `jackfield filter new` writes, too.
const SAMPLES: [&str; 4] = [
    include_str!("template/events/channel-answer.json"),
    include_str!("template/events/channel-hangup-complete.json"),
    include_str!("template/events/dtmf.json"),
    include_str!("template/events/sofia-register.json"),
];
/// Bytes that are read of a recording at once.
const READ: usize = 1 << 16;

/// Where events come from.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// The folder of a journal, also that of a running host.
    #[arg(long, value_name = "DIR", conflicts_with = "capture")]
    pub(super) journal: Option<PathBuf>,
    /// What a FreeSWITCH sent over its Event Socket, byte for byte, or what `jackfield journal export --raw` wrote.
    #[arg(long, value_name = "FILE")]
    pub(super) capture: Option<PathBuf>,
}

/// Why there are no events.
#[derive(Debug, Error)]
pub(super) enum NoTraffic {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("no journal in {}", .0.display())]
    NoJournal(PathBuf),
    #[error("{} is no recording of an Event Socket", path.display())]
    NoCapture { path: PathBuf, source: FrameError },
    #[error("{} has no frame of an Event Socket", .0.display())]
    NoFrame(PathBuf),
}

/// Events in order.
pub(super) enum Traffic {
    Journal { past: Box<Past>, dir: PathBuf },
    Capture(Box<Capture>),
    Samples(VecDeque<Occasion>),
}

/// A recording, read as it is needed.
pub(super) struct Capture {
    path: PathBuf,
    file: File,
    framer: Framer,
    /// So far.
    frames: u64,
}

impl Source {
    /// The events as the filter `file` saw them.
    pub(super) fn open(&self, file: &str) -> Result<Traffic, NoTraffic> {
        if let Some(dir) = &self.journal {
            let disk: Arc<dyn Disk> = Arc::new(RealDisk);
            let segments = SegmentFile::all(disk.as_ref(), dir);
            if segments.map_err(unreadable(dir))?.is_empty() {
                return Err(NoTraffic::NoJournal(dir.clone()));
            }
            return Ok(Traffic::Journal {
                past: Box::new(Past::after(&disk, dir, 0, file)),
                dir: dir.clone(),
            });
        }
        if let Some(path) = &self.capture {
            return Ok(Traffic::Capture(Box::new(Capture {
                path: path.clone(),
                file: File::open(path).map_err(unreadable(path))?,
                framer: Framer::default(),
                frames: 0,
            })));
        }
        let samples = SAMPLES.iter();
        let samples =
            samples.filter_map(|text| occasion(Format::Json, Bytes::from_static(text.as_bytes())));
        Ok(Traffic::Samples(samples.collect()))
    }
}

impl Traffic {
    pub(super) fn next(&mut self) -> Result<Option<Occasion>, NoTraffic> {
        match self {
            Traffic::Journal { past, dir } => past.next_occasion().map_err(unreadable(dir)),
            Traffic::Capture(capture) => capture.next(),
            Traffic::Samples(samples) => Ok(samples.pop_front()),
        }
    }
}

impl Capture {
    fn next(&mut self) -> Result<Option<Occasion>, NoTraffic> {
        loop {
            let framed = self.framer.next_frame();
            let framed = framed.map_err(|source| NoTraffic::NoCapture {
                path: self.path.clone(),
                source,
            })?;
            self.frames += u64::from(framed.is_some());
            match framed {
                Some(Framed::Frame(frame)) => {
                    let format = match frame.kind {
                        Kind::EventJson => Format::Json,
                        Kind::EventPlain => Format::Plain,
                        _ => continue,
                    };
                    if let Some(occasion) = occasion(format, frame.body) {
                        return Ok(Some(occasion));
                    }
                }
                Some(Framed::TooLarge(_)) => {}
                None => {
                    let mut bytes = vec![0; READ];
                    let read = self.file.read(&mut bytes).map_err(unreadable(&self.path))?;
                    if read == 0 && self.frames == 0 {
                        return Err(NoTraffic::NoFrame(self.path.clone()));
                    }
                    if read == 0 {
                        return Ok(None);
                    }
                    bytes.truncate(read);
                    self.framer.buffer().extend_from_slice(&bytes);
                }
            }
        }
    }
}

/// An event that no filter is known to have seen; `None` for bytes that are none.
fn occasion(format: Format, bytes: Bytes) -> Option<Occasion> {
    let event = Event::parse(format, bytes).ok()?;
    Some(Occasion {
        lsn: 0,
        now_us: event.timestamp().unwrap_or(0),
        event: Some(event),
        answer: None,
    })
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> NoTraffic {
    move |source| NoTraffic::Unreadable {
        path: path.to_owned(),
        source,
    }
}
