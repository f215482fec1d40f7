//! Reading the journal from wherever one likes, in order, beside its writer.
//!
//! A reader holds one open file and a chunk of it. It copes with what a writer does meanwhile: a segment is finished,
//! abandoned, or deleted, and a record is there a second time because its first write failed half way.
//! It changes nothing and needs no lock.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::journal::disk::Disk;
use crate::journal::format::{Head, Kind, Lsn, Record, file_name, number_of};
use crate::journal::scan::Scan;
use crate::journal::sync::Place;

/// A place in a journal.
#[derive(Clone, Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    wanted: Wanted,
    /// The last number that was given, so that none is given twice.
    after: Lsn,
    scan: Option<Scan>,
    /// The segment and the place in it that [`Reader::rest`] left.
    left: Option<(Lsn, u64)>,
    /// A later segment was seen, so nothing is written to this one any more.
    finished: bool,
    /// In the segments that were left behind.
    quarantined: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Inputs,
    Decisions,
    /// Those that were made once more, later in the files than decisions with higher numbers.
    DecidedAgain,
    All,
}

impl Reader {
    /// The inputs above `lsn`, each once.
    pub fn inputs_after(disk: Arc<dyn Disk>, dir: &Path, lsn: Lsn) -> Reader {
        Reader::new(disk, dir, Wanted::Inputs, lsn)
    }

    /// The decisions about inputs above `lsn`, one for each.
    pub fn decisions_after(disk: Arc<dyn Disk>, dir: &Path, lsn: Lsn) -> Reader {
        Reader::new(disk, dir, Wanted::Decisions, lsn)
    }

    /// The decisions about inputs above `lsn` that [`Reader::decisions_after`] passes over, because they were made once more after
    /// later ones: where a power cut or damage had taken the first ones.
    pub fn decided_again_after(disk: Arc<dyn Disk>, dir: &Path, lsn: Lsn) -> Reader {
        Reader::new(disk, dir, Wanted::DecidedAgain, lsn)
    }

    /// The same, without a look at what lies before this place, which has nothing that is wanted.
    pub fn from(self, place: Place) -> Reader {
        Reader {
            left: Some((place.segment, place.position)),
            ..self
        }
    }

    /// Every record as it lies in the files: marks are repeated at the start of a segment, and what was written again after
    /// a failure may be there twice.
    pub fn all(disk: Arc<dyn Disk>, dir: &Path) -> Reader {
        Reader::new(disk, dir, Wanted::All, 0)
    }

    fn new(disk: Arc<dyn Disk>, dir: &Path, wanted: Wanted, after: Lsn) -> Reader {
        Reader {
            disk,
            dir: dir.to_owned(),
            wanted,
            after,
            scan: None,
            left: None,
            finished: false,
            quarantined: 0,
        }
    }

    /// Gives back the file and the chunk and keeps the place, so that many readers may wait, and costs little to clone.
    pub fn rest(&mut self) {
        self.quarantined = self.quarantined();
        if let Some(scan) = self.scan.take() {
            self.left = Some((scan.number(), scan.position()));
        }
        self.finished = false;
    }

    /// The next record. None: the end of what is written now; ask again when more was. After an error the place is kept.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator ends, and this may go on after None"
    )]
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        self.find(|head, payload| Record {
            head,
            payload: Bytes::copy_from_slice(payload),
        })
    }

    /// [`Reader::next`] without a copy of the payload.
    pub fn next_head(&mut self) -> io::Result<Option<Head>> {
        self.find(|head, _| head)
    }

    fn find<T>(&mut self, take: impl Fn(Head, &[u8]) -> T) -> io::Result<Option<T>> {
        loop {
            if let Some(found) = self.find_here(&take)? {
                return Ok(Some(found));
            }
            if self.finished || self.scan.is_none() {
                if !self.enter_next()? {
                    return Ok(None);
                }
            } else if self.successor()?.is_some() {
                // What was written between our look at this segment and its end is still to be read, and so is what lies behind
                // zeros that do not belong there.
                self.finished = true;
                if let Some(scan) = &mut self.scan {
                    scan.settle();
                }
            } else {
                return Ok(None);
            }
        }
    }

    /// Places whose bytes were damaged and were skipped, so far.
    pub fn quarantined(&self) -> u64 {
        self.quarantined + self.scan.as_ref().map_or(0, Scan::quarantined)
    }

    fn find_here<T>(&mut self, take: impl Fn(Head, &[u8]) -> T) -> io::Result<Option<T>> {
        let Some(scan) = &mut self.scan else {
            return Ok(None);
        };
        while let Some(met) = scan.advance()? {
            let Some(head) = met.head else {
                continue;
            };
            let is_wanted = self.wanted.takes(&head, self.after);
            if self.wanted.counts(&head) {
                self.after = self.after.max(head.lsn);
            }
            if !is_wanted {
                continue;
            }
            return Ok(Some(take(head, scan.bytes(met.payload))));
        }
        Ok(None)
    }

    /// Goes to the next segment. False: there is none, and this one stays.
    fn enter_next(&mut self) -> io::Result<bool> {
        loop {
            let next = match (&self.scan, self.left) {
                (Some(_), _) => self.successor()?.map(|number| (number, 0)),
                (None, Some(left)) => Some(left),
                (None, None) => self.first()?.map(|number| (number, 0)),
            };
            let Some((number, position)) = next else {
                return Ok(false);
            };
            self.left = None;
            match self.disk.open(&self.dir.join(file_name(number))) {
                Ok(file) => {
                    self.quarantined = self.quarantined();
                    self.scan = Some(Scan::live_from(file, number, position));
                    self.finished = false;
                    return Ok(true);
                }
                // It was deleted since the folder was listed, or while this rested.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn successor(&self) -> io::Result<Option<Lsn>> {
        let here = self.scan.as_ref().map_or(0, Scan::number);
        let numbers = segments(self.disk.as_ref(), &self.dir)?;
        let later = numbers.into_iter().map(|(number, _)| number);
        Ok(later.filter(|number| *number > here).min())
    }

    /// The segment to start at: the last one before which there is nothing that is wanted.
    fn first(&self) -> io::Result<Option<Lsn>> {
        let numbers = segments(self.disk.as_ref(), &self.dir)?;
        for (number, _) in numbers.iter().rev() {
            let is_start = match self.wanted {
                Wanted::All => false,
                Wanted::Inputs => *number <= self.after.saturating_add(1),
                Wanted::Decisions | Wanted::DecidedAgain => self.starts_decided(*number)?,
            };
            if is_start {
                return Ok(Some(*number));
            }
        }
        Ok(numbers.first().map(|(number, _)| *number))
    }

    /// Whether all decisions before this segment are at or below `after`, as its header tells if it can.
    fn starts_decided(&self, number: Lsn) -> io::Result<bool> {
        let file = match self.disk.open(&self.dir.join(file_name(number))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut scan = Scan::live(file, number);
        let header = scan.header()?;
        Ok(header.is_some_and(|header| header.decided <= self.after))
    }
}

impl Wanted {
    fn takes(self, head: &Head, after: Lsn) -> bool {
        match self {
            Wanted::Inputs => head.kind.is_input() && head.lsn > after,
            Wanted::Decisions => head.kind == Kind::Decision && head.lsn > after,
            Wanted::DecidedAgain => head.kind == Kind::Decision && head.lsn <= after,
            Wanted::All => true,
        }
    }

    /// Whether such a record moves the number that others are compared with.
    fn counts(self, head: &Head) -> bool {
        match self {
            Wanted::Inputs => head.kind.is_input(),
            Wanted::Decisions | Wanted::DecidedAgain => head.kind == Kind::Decision,
            Wanted::All => false,
        }
    }
}

/// The segments in a folder with their lengths, in order. A folder that is not there has none.
pub(super) fn segments(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<(Lsn, u64)>> {
    let files = match disk.list(dir) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut segments: Vec<(Lsn, u64)> = files
        .into_iter()
        .filter_map(|(name, length)| Some((number_of(&name)?, length)))
        .collect();
    segments.sort_unstable();
    Ok(segments)
}
