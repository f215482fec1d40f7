//! Looking at a journal segment by segment: every record with its place, every damaged place, and where a segment ends.
//!
//! For commands that tell people what is on disk. A [`Reader`](crate::journal::Reader) gives what a journal holds; this gives how it
//! lies there. It changes nothing, needs no lock, and may look at what a running host writes. One chunk is in memory.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::journal::append::hex;
use crate::journal::disk::Disk;
use crate::journal::format::{Head, Lsn, file_name};
use crate::journal::reader::segments;
use crate::journal::scan::{Met, Scan};

/// A segment in a journal's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// The number in its name, by which segments are in order.
    pub number: Lsn,
    /// Bytes on disk, preallocated ones included.
    pub size: u64,
    path: PathBuf,
}

/// What a segment's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The journal's random name, 32 hexadecimal digits.
    pub id: String,
    /// No input of this segment is below it.
    pub first: Lsn,
    /// Empty: it was not known yet when the segment was made.
    pub router: String,
}

/// A segment that is being looked at, from its start on. Zeros that a valid record follows are damage.
#[derive(Debug)]
pub struct Inspection {
    scan: Scan,
    /// The record behind a damaged place that was told first, and where it begins.
    held: Option<(u64, Met)>,
}

/// What is met in a segment, in the order of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<'a> {
    /// A valid record.
    Record {
        /// Where in the file it begins.
        position: u64,
        /// Everything but the payload.
        head: Head,
        /// The bytes that were appended.
        payload: &'a [u8],
    },
    /// A valid record of a kind that only a newer program knows.
    Unknown,
    /// Bytes that are neither header nor record, though a valid record follows.
    Damaged(Range<u64>),
}

impl SegmentFile {
    /// The segments in a folder, the oldest first. A folder that is not there has none.
    pub fn all(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<SegmentFile>> {
        let files = segments(disk, dir)?.into_iter();
        let files = files.map(|(number, size)| SegmentFile {
            number,
            size,
            path: dir.join(file_name(number)),
        });
        Ok(files.collect())
    }

    /// Its name in the folder.
    pub fn name(&self) -> String {
        file_name(self.number)
    }

    /// Begins to look at it. None: its host has deleted it since the folder was listed.
    pub fn open(&self, disk: &dyn Disk) -> io::Result<Option<Inspection>> {
        match disk.open(&self.path) {
            Ok(file) => Ok(Some(Inspection {
                scan: Scan::settled(file, self.number),
                held: None,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Inspection {
    /// What its header says; none if that is damaged or not written yet.
    pub fn opening(&mut self) -> io::Result<Option<Opening>> {
        Ok(self.scan.header()?.map(|header| Opening {
            id: hex(&header.id),
            first: header.first,
            router: header.router.clone(),
        }))
    }

    /// What comes next. None: the end of what is written now.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator cannot lend its buffer"
    )]
    pub fn next(&mut self) -> io::Result<Option<Item<'_>>> {
        let (position, met) = match self.held.take() {
            Some(held) => held,
            None => {
                // The first record begins behind the header.
                self.scan.header()?;
                let position = self.scan.position();
                let met = self.scan.advance()?;
                if let Some(bytes) = self.scan.take_damage() {
                    self.held = met.map(|met| (bytes.end, met));
                    return Ok(Some(Item::Damaged(bytes)));
                }
                let Some(met) = met else {
                    return Ok(None);
                };
                (position, met)
            }
        };
        let Some(head) = met.head else {
            return Ok(Some(Item::Unknown));
        };
        Ok(Some(Item::Record {
            position,
            head,
            payload: self.scan.bytes(met.payload),
        }))
    }

    /// Bytes from the start of the file that were read so far.
    pub fn used(&self) -> u64 {
        self.scan.position()
    }

    /// At the end: how many bytes behind it were written and are no record. An interrupted write leaves some, and so does damage
    /// to the last record.
    pub fn unfinished(&mut self) -> io::Result<u64> {
        self.scan.torn()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Inspection, Item, SegmentFile};
    use crate::config;
    use crate::journal::{EPOCH, Journal, Kind, RealDisk};

    /// A journal with a segment of three inputs of 8 bytes.
    fn three_inputs(dir: &Path) -> SegmentFile {
        let settings = config::Journal {
            dir: dir.to_owned(),
            max_size: 8 << 20,
            retain: Duration::from_secs(60),
            sync: config::Sync::Never,
        };
        let (mut journal, _) = Journal::open(Arc::new(RealDisk), &settings, Some("fs1")).unwrap();
        for _ in 0..3 {
            journal.append(Kind::Json, 7, 1, 0, b"12345678");
        }
        journal.write(0).unwrap();
        journal.close();
        let mut files = SegmentFile::all(&RealDisk, dir).unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }

    fn open(file: &SegmentFile) -> Inspection {
        file.open(&RealDisk).unwrap().unwrap()
    }

    /// The numbers of the records with their places, the damaged places, and the unfinished bytes.
    fn look(file: &SegmentFile) -> (Vec<(u64, u64)>, Vec<std::ops::Range<u64>>, u64) {
        let (mut records, mut damage) = (Vec::new(), Vec::new());
        let mut inspection = open(file);
        while let Some(item) = inspection.next().unwrap() {
            match item {
                Item::Record { position, head, .. } => records.push((position, head.lsn)),
                Item::Damaged(bytes) => damage.push(bytes),
                Item::Unknown => panic!("every kind is known"),
            }
        }
        (records, damage, inspection.unfinished().unwrap())
    }

    /// Flips a bit in the byte at `position`.
    fn flip(dir: &Path, file: &SegmentFile, position: u64) {
        let mut options = std::fs::OpenOptions::new();
        let options = options.read(true).write(true);
        let opened = options.open(dir.join(file.name())).unwrap();
        let mut byte = [0];
        opened.read_exact_at(&mut byte, position).unwrap();
        opened.write_all_at(&[byte[0] ^ 1], position).unwrap();
    }

    #[test]
    fn a_sound_segment_tells_its_header_and_the_place_of_every_record() {
        let dir = tempfile::tempdir().unwrap();
        let file = three_inputs(dir.path());
        let opening = open(&file).opening().unwrap().unwrap();
        assert_eq!((opening.first, opening.router.as_str()), (EPOCH, "fs1"));
        let (records, damage, unfinished) = look(&file);
        let first = records[0].0;
        let expected = [0, 1, 2].map(|place| (first + 56 * place, EPOCH + place));
        assert_eq!(records, expected, "48 bytes and the payload each");
        assert_eq!((damage.len(), unfinished), (0, 0));
        assert_eq!(first + 3 * 56, file.size, "nothing else is in it");
    }

    #[test]
    fn a_damaged_record_is_told_with_its_bytes_before_the_one_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = three_inputs(dir.path());
        let sound = look(&file).0;
        flip(dir.path(), &file, sound[1].0 + 50);
        let (records, damage, _) = look(&file);
        assert_eq!(records, [sound[0], sound[2]]);
        assert_eq!((damage.len(), &damage[0]), (1, &(sound[1].0..sound[2].0)));
    }

    #[test]
    fn a_damaged_header_is_a_damaged_place_and_costs_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let file = three_inputs(dir.path());
        let sound = look(&file).0;
        flip(dir.path(), &file, 20);
        assert_eq!(open(&file).opening().unwrap(), None);
        let (records, damage, _) = look(&file);
        assert_eq!(records, sound);
        assert_eq!((damage.len(), &damage[0]), (1, &(0..sound[0].0)));
    }

    #[test]
    fn damage_to_the_last_record_is_told_as_unfinished_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let file = three_inputs(dir.path());
        let sound = look(&file).0;
        flip(dir.path(), &file, sound[2].0 + 50);
        let (records, damage, unfinished) = look(&file);
        assert_eq!(records, sound[..2]);
        assert_eq!((damage.len(), unfinished), (0, 56));
    }
}
