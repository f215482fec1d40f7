//! What an earlier process left in the folder: read at every open, before anything is written.
//!
//! Every header is read; of the records, the newest segments' alone, back to an input, a decision and the newest mark. A segment
//! begins with the mark of its time, so that is nearly always the last one or two.
//! Damage is counted and passed over. Only a segment of a newer version and a folder that cannot be read are errors.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::journal::disk::Disk;
use crate::journal::format::{Kind, Lsn, Record, file_name};
use crate::journal::kept::Segment;
use crate::journal::open::JournalError;
use crate::journal::reader::segments;
use crate::journal::scan::{Scan, UnknownVersion};

/// What was in the journal when it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The last input on disk, 0 for none.
    pub last: Lsn,
    /// The highest input that was decided, 0 for none.
    pub decided: Lsn,
    /// The newest mark.
    pub mark: Option<Record>,
    /// Damaged places in what had to be read.
    pub quarantined: u64,
    /// Bytes of unfinished writes that were cut off.
    pub torn_bytes: u64,
}

/// [`Found`], and what the writer alone needs.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) found: Found,
    pub(super) id: Option<[u8; 16]>,
    pub(super) router: Option<String>,
    /// No number above it was ever seen in this folder.
    pub(super) highest: Lsn,
    pub(super) segments: Vec<Segment>,
    /// What the newest header says of the decisions before it. Believed only where there is no decision to be seen: a power
    /// cut may have taken records and spared a later header.
    decided_before: Option<Lsn>,
    /// Segments without a record of their own.
    pub(super) empty: Vec<Lsn>,
    /// Segments that end before their file does, and where.
    pub(super) tails: Vec<(Lsn, u64)>,
}

/// Reads the folder.
pub(super) fn survey(disk: &dyn Disk, dir: &Path) -> Result<Survey, JournalError> {
    let unreadable = |source| JournalError::Unwritable {
        dir: dir.to_owned(),
        source,
    };
    let mut survey = Survey::default();
    let mut scans = Vec::new();
    for (number, size) in segments(disk, dir).map_err(unreadable)? {
        let path = dir.join(file_name(number));
        let file = disk.open(&path).map_err(unreadable)?;
        let mut scan = Scan::settled(Arc::clone(&file), number);
        let first = match first_of(&mut scan) {
            Ok(first) => first,
            Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(UnknownVersion(version)) => {
                    let version = *version;
                    return Err(JournalError::UnknownVersion { path, version });
                }
                None => return Err(unreadable(error)),
            },
        };
        survey.highest = survey.highest.max(number);
        survey.segments.push(Segment::new(number, first, size, 0));
        // Not the scan itself: each holds a buffer.
        scans.push((file, number));
    }
    for (file, number) in scans.into_iter().rev() {
        survey.read(Scan::settled(file, number));
        if survey.is_enough() {
            break;
        }
    }
    if survey.found.decided == 0 {
        survey.found.decided = survey.decided_before.unwrap_or_default();
    }
    Ok(survey)
}

/// The lowest number that a segment can hold. A damaged header does not say, so there the records do.
fn first_of(scan: &mut Scan) -> io::Result<Lsn> {
    if let Some(header) = scan.header()? {
        return Ok(header.first);
    }
    let mut first = scan.number();
    while let Some(met) = scan.advance()? {
        let input = met.head.filter(|head| head.kind.is_input());
        first = input.map_or(first, |head| first.min(head.lsn));
    }
    Ok(first)
}

impl Survey {
    fn is_enough(&self) -> bool {
        let decided = self.found.decided > 0 || self.decided_before == Some(0);
        self.id.is_some() && self.found.last > 0 && self.found.mark.is_some() && decided
    }

    fn read(&mut self, mut scan: Scan) {
        let mut here = Contents::default();
        let outcome = here.read(&mut scan);
        let number = scan.number();
        if let Err(error) = outcome {
            here.quarantined += 1;
            tracing::error!(
                segment = format_args!("{number:016x}"),
                error = &error as &dyn std::error::Error,
                "a segment of the journal cannot be read to its end"
            );
        } else if here.records == 0 {
            self.empty.push(number);
        } else {
            self.tails.push((number, scan.position()));
        }
        self.found.quarantined += here.quarantined + scan.quarantined();
        self.found.torn_bytes += here.torn;
        self.found.last = self.found.last.max(here.last);
        self.found.decided = self.found.decided.max(here.decided);
        self.found.mark = self.found.mark.take().or(here.mark);
        self.highest = self.highest.max(here.highest);
        self.decided_before = self.decided_before.or(here.decided_before);
        self.id = self.id.or(here.id);
        self.router = self.router.take().or(here.router);
    }
}

/// What one segment holds.
#[derive(Debug, Default)]
struct Contents {
    id: Option<[u8; 16]>,
    router: Option<String>,
    last: Lsn,
    decided: Lsn,
    decided_before: Option<Lsn>,
    mark: Option<Record>,
    highest: Lsn,
    /// Of its own: marks are repeated in the next segment.
    records: u64,
    torn: u64,
    quarantined: u64,
}

impl Contents {
    fn read(&mut self, scan: &mut Scan) -> io::Result<()> {
        if let Some(header) = scan.header()? {
            self.id = Some(header.id);
            self.decided_before = Some(header.decided);
            self.router = Some(header.router.clone()).filter(|name| !name.is_empty());
        }
        while let Some(met) = scan.advance()? {
            let Some(head) = met.head else {
                self.records += 1;
                continue;
            };
            self.highest = self.highest.max(head.lsn);
            match head.kind {
                Kind::Mark => {
                    let payload = bytes::Bytes::copy_from_slice(scan.bytes(met.payload));
                    self.mark = Some(Record { head, payload });
                    continue;
                }
                Kind::Router => {
                    let name = String::from_utf8_lossy(scan.bytes(met.payload)).into_owned();
                    // As in a header, an empty one is none.
                    self.router = Some(name).filter(|name| !name.is_empty());
                    // The next segment's header has it.
                    continue;
                }
                Kind::Decision => self.decided = self.decided.max(head.lsn),
                _ => self.last = self.last.max(head.lsn),
            }
            self.records += 1;
        }
        self.torn = scan.torn()?;
        Ok(())
    }
}
