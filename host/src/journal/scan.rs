//! One segment, record by record: what is valid, what is damaged, where it ends.
//!
//! It reads forward in chunks and holds one chunk, or one record if that is larger. Its place moves only over valid bytes, or
//! over bad ones that valid ones follow; so a scan that stands at the end of a file that is being written can be asked again.
//! Where nobody writes any more, zeros that valid bytes follow are bad like any others. It writes nothing.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use memchr::memmem;
use rustix::io::Errno;

use crate::journal::disk::DiskFile;
use crate::journal::format::{
    ALIGN, AnyHeader, HEAD, Head, Header, Lsn, Measured, Parsed, RECORD_MAGIC, parse_header,
    parse_record,
};

/// The first read, and the one after the end was met: at the live end there is little.
const FIRST_CHUNK: usize = 64 << 10;

/// Reads grow up to this: large enough that the calls do not count, small enough to hold one for each reader and to stay in a core's
/// cache until it is parsed.
const CHUNK: usize = 256 << 10;

/// What a disk can fail to read by itself.
const SECTOR: u64 = 4096;

/// A place in a segment.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    file: Arc<dyn DiskFile>,
    number: Lsn,
    header: Option<Header>,
    /// Where the next record begins; 0: the header was not met yet.
    position: u64,
    /// The file's bytes from `start`, as they were when they were read.
    buffer: Vec<u8>,
    start: u64,
    /// The file's length when the buffer was read.
    end: u64,
    chunk: usize,
    /// Nobody writes to the file any more.
    settled: bool,
    quarantined: u64,
    /// The bytes that were skipped since somebody last asked.
    damage: Option<Range<u64>>,
}

/// A valid record; none as head: its kind is from the future.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) head: Option<Head>,
    /// Where [`Scan::bytes`] has its payload, until the scan moves on.
    pub(super) payload: Range<usize>,
}

/// What is at the scan's position.
enum Place {
    Header(usize),
    Record(Measured),
    Blank,
    Bad,
}

impl Scan {
    /// A scan of the segment with this number, from its start. It may be written meanwhile, so zeros are its end: to look behind
    /// them each time would be to read all of its preallocated room.
    pub(super) fn live(file: Arc<dyn DiskFile>, number: Lsn) -> Scan {
        Scan::live_from(file, number, 0)
    }

    /// [`Scan::live`] from a [`Scan::position`] on.
    pub(super) fn live_from(file: Arc<dyn DiskFile>, number: Lsn, position: u64) -> Scan {
        Scan {
            file,
            number,
            header: None,
            position,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            chunk: FIRST_CHUNK,
            settled: false,
            quarantined: 0,
            damage: None,
        }
    }

    /// A scan of a segment that nobody writes any more, from its start.
    pub(super) fn settled(file: Arc<dyn DiskFile>, number: Lsn) -> Scan {
        let mut scan = Scan::live(file, number);
        scan.settle();
        scan
    }

    /// Nobody writes to the segment any more.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// The header alone: none if it is damaged or not written.
    pub(super) fn header(&mut self) -> io::Result<Option<&Header>> {
        if self.position == 0
            && let Place::Header(length) = self.look()?
        {
            self.position = length as u64;
        }
        Ok(self.header.as_ref())
    }

    /// The next valid record. None: the end of what is there now; to be asked again when more was written.
    pub(super) fn advance(&mut self) -> io::Result<Option<Met>> {
        let mut looked_again = false;
        loop {
            match self.look()? {
                Place::Header(length) => self.position = length as u64,
                Place::Record(measured) => return Ok(Some(self.pass(&measured))),
                // What was blank when the chunk was read may have been written since.
                Place::Blank if !std::mem::replace(&mut looked_again, true) => self.buffer.clear(),
                Place::Blank if !self.settled => break,
                Place::Blank | Place::Bad => {
                    let Some(next) = self.next_valid()? else {
                        break;
                    };
                    // The bytes may have been half written when they were read; the ones after them came later.
                    self.buffer.clear();
                    let is_damaged = match self.look()? {
                        Place::Header(_) | Place::Record(_) => false,
                        Place::Blank => self.settled,
                        Place::Bad => true,
                    };
                    if is_damaged {
                        self.quarantine(next);
                    }
                }
            }
        }
        self.buffer.clear();
        self.chunk = FIRST_CHUNK;
        Ok(None)
    }

    /// The bytes of what [`Scan::advance`] met last.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// The segment's number.
    pub(super) fn number(&self) -> Lsn {
        self.number
    }

    /// Where the next record would begin.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Places that were skipped because their bytes were bad.
    pub(super) fn quarantined(&self) -> u64 {
        self.quarantined
    }

    /// The bytes that the last [`Scan::advance`] skipped because they were bad.
    pub(super) fn take_damage(&mut self) -> Option<Range<u64>> {
        self.damage.take()
    }

    /// How many bytes beyond the position were written in vain: up to the last one that is not zero.
    pub(super) fn torn(&mut self) -> io::Result<u64> {
        let mut torn = 0;
        let mut at = self.position;
        loop {
            let window = self.window(at, 1)?;
            if window.is_empty() {
                return Ok(torn);
            }
            let used = window.iter().rposition(|byte| *byte != 0);
            let length = window.len() as u64;
            if let Some(last) = used {
                torn = at + last as u64 + 1 - self.position;
            }
            at += length;
        }
    }

    fn pass(&mut self, measured: &Measured) -> Met {
        let within = usize::try_from(self.position - self.start).unwrap_or(usize::MAX);
        let payload = within.saturating_add(HEAD);
        self.position += measured.total as u64;
        Met {
            head: measured.head,
            payload: payload..payload.saturating_add(measured.payload),
        }
    }

    fn quarantine(&mut self, next: u64) {
        self.quarantined += 1;
        tracing::error!(
            segment = format_args!("{:016x}", self.number),
            position = self.position,
            bytes = next - self.position,
            "damaged bytes in the journal are skipped"
        );
        let start = self
            .damage
            .take()
            .map_or(self.position, |bytes| bytes.start);
        self.damage = Some(start..next);
        self.position = next;
    }

    fn look(&mut self) -> io::Result<Place> {
        if self.position > 0 {
            return self.look_at(self.position);
        }
        Ok(match self.parse_at(0, parse_header)? {
            Parsed::Valid(AnyHeader::Known { header, length }) => {
                self.header = Some(header);
                Place::Header(length)
            }
            Parsed::Valid(AnyHeader::Unknown { version }) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    UnknownVersion(version),
                ));
            }
            Parsed::Bad => Place::Bad,
            Parsed::Blank | Parsed::Short(_) => Place::Blank,
        })
    }

    fn look_at(&mut self, at: u64) -> io::Result<Place> {
        Ok(match self.parse_at(at, parse_record)? {
            Parsed::Valid(measured) => Place::Record(measured),
            Parsed::Bad => Place::Bad,
            Parsed::Blank | Parsed::Short(_) => Place::Blank,
        })
    }

    /// The first place behind the position at which a whole valid record is.
    fn next_valid(&mut self) -> io::Result<Option<u64>> {
        let mut at = self.position + ALIGN as u64;
        loop {
            let window = self.window(at, HEAD)?;
            if window.len() < HEAD {
                return Ok(None);
            }
            let aligned = window.len() - window.len() % ALIGN;
            let magic = memmem::find_iter(window, &RECORD_MAGIC).find(|at| at % ALIGN == 0);
            match magic {
                None => at += aligned as u64,
                Some(offset) => {
                    at += offset as u64;
                    if matches!(self.look_at(at)?, Place::Record(_)) {
                        return Ok(Some(at));
                    }
                    at += ALIGN as u64;
                }
            }
        }
    }

    /// Parses with as many bytes as that takes. A record that the file is too short for is `Blank`: the file was cut
    /// since its length was asked.
    fn parse_at<T>(
        &mut self,
        at: u64,
        parse: fn(&[u8], u64) -> Parsed<T>,
    ) -> io::Result<Parsed<T>> {
        let mut need = HEAD;
        loop {
            self.window(at, need)?;
            let room = self.end.saturating_sub(at);
            match parse(self.window(at, 0)?, room) {
                Parsed::Short(more) if more > need => need = more,
                Parsed::Short(_) => return Ok(Parsed::Blank),
                other => return Ok(other),
            }
        }
    }

    /// What is buffered from `at` on: at least `need` bytes unless the file ends before.
    fn window(&mut self, at: u64, need: usize) -> io::Result<&[u8]> {
        let buffered = self.start..self.start + self.buffer.len() as u64;
        if at < buffered.start || at > buffered.end || at + need as u64 > buffered.end {
            self.fill(at, need)?;
        }
        let skip = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        Ok(self.buffer.get(skip..).unwrap_or_default())
    }

    fn fill(&mut self, at: u64, need: usize) -> io::Result<()> {
        // What it held stays until it is overwritten: clearing it would mean to zero it.
        self.buffer.truncate(2 * CHUNK);
        self.buffer.shrink_to(2 * CHUNK);
        self.end = self.file.size()?;
        self.start = at;
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        self.buffer.resize(left.min(need.max(self.chunk)), 0);
        self.chunk = (self.chunk * 2).min(CHUNK);
        let read = match self.file.read_at(&mut self.buffer, at) {
            Err(error) if is_unreadable(&error) => {
                read_around(self.file.as_ref(), &mut self.buffer, at)
            }
            other => other,
        };
        match read {
            Ok(length) => self.buffer.truncate(length),
            Err(error) => {
                self.buffer.clear();
                return Err(error);
            }
        }
        Ok(())
    }
}

/// The version of a segment that this program cannot read.
#[derive(Debug, thiserror::Error)]
#[error("the journal's version {0} is unknown")]
pub(super) struct UnknownVersion(pub(super) u32);

/// Whether the disk has a bad sector, which is damage like any other.
fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// Reads sector by sector, as they lie on the disk, and fills what cannot be read with bytes that are never valid.
fn read_around(file: &dyn DiskFile, into: &mut [u8], at: u64) -> io::Result<usize> {
    let (mut rest, mut done) = (into, 0);
    while !rest.is_empty() {
        let place = at + done as u64;
        let left = SECTOR - place % SECTOR;
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let (sector, later) = rest.split_at_mut(left.min(rest.len()));
        match file.read_at(sector, place) {
            Ok(length) if length < sector.len() => return Ok(done + length),
            Ok(_) => {}
            Err(error) if is_unreadable(&error) => sector.fill(0xFF),
            Err(error) => return Err(error),
        }
        done += sector.len();
        rest = later;
    }
    Ok(done)
}
