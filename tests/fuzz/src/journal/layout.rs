//! A journal's bytes by the words of `docs/journal.md`: a reading of whole files that shares no code with the host, and records
//! that no journal would write.

use std::ops::Range;

use super::disk::{File, MemoryDisk};

/// Numbers from here on are nobody's.
pub(super) const NUMBERS: u64 = 1 << 62;

const RECORD: &[u8] = &[0xF5, b'J', b'R', 0];
const HEADER: &[u8] = b"JACKFJNL";
const RECORD_HEAD: usize = 48;
const LEAST_HEADER: usize = 64;
/// The header up to the router's name, which may have 65,535 bytes.
const HEADER_FIXED: usize = 58;

/// One segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) header: Option<Header>,
    /// Its header is whole and of another version.
    pub(super) is_unknown: bool,
    /// In the order of the file, those of unknown kinds included.
    pub(super) records: Vec<Placed>,
    pub(super) damage: Vec<Range<usize>>,
    /// Where the last record ends.
    pub(super) end: usize,
    /// Bytes behind that which were written.
    pub(super) torn: usize,
}

#[derive(Debug)]
pub(super) struct Header {
    pub(super) first: u64,
    pub(super) decided: u64,
    pub(super) router: String,
}

/// A record and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) position: usize,
    pub(super) kind: u8,
    pub(super) lsn: u64,
    pub(super) at_us: u64,
    pub(super) connection: u32,
    pub(super) offset: u64,
    pub(super) payload: Vec<u8>,
}

impl Placed {
    pub(super) fn is_input(&self) -> bool {
        (1..=5).contains(&self.kind)
    }

    pub(super) fn is_decision(&self) -> bool {
        self.kind == 16
    }

    pub(super) fn is_mark(&self) -> bool {
        self.kind == 17
    }

    pub(super) fn is_known(&self) -> bool {
        self.is_input() || (16..=18).contains(&self.kind)
    }
}

/// The segments of a folder, in order. `live`: the newest one may still be written, so that zeros are its end whatever
/// follows them.
pub(super) fn segments(disk: &MemoryDisk, live: bool) -> Vec<Segment> {
    let names = disk.names();
    let mut files: Vec<(u64, &String)> = names
        .iter()
        .filter_map(|name| Some((number(name)?, name)))
        .collect();
    files.sort_unstable();
    let last = files.last().map(|(number, _)| *number);
    let read = |(number, name): (u64, &String)| {
        let is_live = live && Some(number) == last;
        read(number, &disk.file(name), is_live)
    };
    files.into_iter().map(read).collect()
}

/// The number in a segment's name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name
        .strip_suffix(".jnl")
        .filter(|digits| digits.len() == 16)?;
    let is_plain = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let number = u64::from_str_radix(digits, 16).ok()?;
    (is_plain && number < NUMBERS).then_some(number)
}

fn read(number: u64, file: &File, is_live: bool) -> Segment {
    let mut bytes = file.bytes.clone();
    if !file.bad.is_empty() {
        let bad = bytes
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| file.is_bad(*at));
        bad.for_each(|(_, byte)| *byte = 0xFF);
    }
    let mut segment = Segment {
        number,
        header: None,
        is_unknown: false,
        records: Vec::new(),
        damage: Vec::new(),
        end: 0,
        torn: 0,
    };
    match header(&bytes) {
        Some((version, _, _)) if version != 1 => segment.is_unknown = true,
        Some((_, length, header)) => (segment.header, segment.end) = (Some(header), length),
        None => {}
    }
    let mut at = segment.end;
    while !segment.is_unknown {
        if let Some((record, total)) = record(&bytes, at).filter(|_| at > 0) {
            segment.records.push(record);
            at += total;
            segment.end = at;
            continue;
        }
        let blank = if at == 0 { 8 } else { 4 };
        let is_cut = at == 0 && bytes.len() < LEAST_HEADER;
        let is_blank = is_cut || bytes[at..].iter().take(blank).all(|byte| *byte == 0);
        let next = (at + 8..bytes.len())
            .step_by(8)
            .find(|at| record(&bytes, *at).is_some());
        match next.filter(|_| !(is_live && is_blank)) {
            Some(next) => {
                segment.damage.push(at..next);
                at = next;
            }
            None => break,
        }
    }
    let used = bytes[segment.end..].iter().rposition(|byte| *byte != 0);
    segment.torn = used.map_or(0, |last| last + 1);
    segment
}

/// Version, length and content of the header.
fn header(bytes: &[u8]) -> Option<(u32, usize, Header)> {
    let head = bytes
        .get(..LEAST_HEADER)
        .filter(|head| head.starts_with(HEADER))?;
    let length = u32_at(head, 12) as usize;
    let longest = (HEADER_FIXED + 65_535 + 4).next_multiple_of(8);
    if !length.is_multiple_of(8) || !(LEAST_HEADER..=longest).contains(&length) {
        return None;
    }
    let (content, checksum) = bytes.get(..length)?.split_at(length - 4);
    if crc32c::crc32c(content) != u32_at(checksum, 0) {
        return None;
    }
    let name_length = usize::from(u16::from_le_bytes([content[56], content[57]]));
    let router = content.get(HEADER_FIXED..HEADER_FIXED + name_length);
    let router = router.and_then(|name| String::from_utf8(name.to_vec()).ok());
    let (first, decided) = (u64_at(content, 32), u64_at(content, 40));
    let version = u32_at(content, 8);
    if version == 1 && (router.is_none() || first >= NUMBERS || decided >= NUMBERS) {
        return None;
    }
    let router = router.unwrap_or_default();
    Some((
        version,
        length,
        Header {
            first,
            decided,
            router,
        },
    ))
}

/// The valid record at this place, and its size.
fn record(bytes: &[u8], at: usize) -> Option<(Placed, usize)> {
    let bytes = bytes.get(at..)?;
    let head = bytes
        .get(..RECORD_HEAD)
        .filter(|head| head.starts_with(RECORD))?;
    let length = u32_at(head, 4) as usize;
    let total = (RECORD_HEAD + length).next_multiple_of(8);
    let reserved = head[13..16]
        .iter()
        .chain(&head[36..40])
        .all(|byte| *byte == 0);
    let payload = bytes.get(..total)?.get(RECORD_HEAD..RECORD_HEAD + length)?;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[4..8]), &head[12..]);
    if !reserved || crc32c::crc32c_append(checksum, payload) != u32_at(head, 8) {
        return None;
    }
    let lsn = u64_at(head, 16);
    let record = Placed {
        position: at,
        kind: head[12],
        lsn,
        at_us: u64_at(head, 24),
        connection: u32_at(head, 32),
        offset: u64_at(head, 40),
        payload: payload.to_vec(),
    };
    (lsn < NUMBERS).then_some((record, total))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A record of any kind and number, with a good checksum. A kind above 255 reaches into bytes that must be zero.
pub(super) fn forged_record(kind: u16, lsn: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a small payload")
        .to_le_bytes();
    let mut rest = vec![0; RECORD_HEAD - 12];
    rest[..2].copy_from_slice(&kind.to_le_bytes());
    rest[4..12].copy_from_slice(&lsn.to_le_bytes());
    rest.extend(payload);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&length), &rest);
    let mut record = [RECORD, &length, &checksum.to_le_bytes(), &rest].concat();
    record.resize(record.len().next_multiple_of(8), 0);
    record
}

/// A header of any version and numbers, with a good checksum.
pub(super) fn forged_header(version: u32, first: u64, decided: u64, router: &[u8]) -> Vec<u8> {
    let length = (HEADER_FIXED + router.len() + 4).next_multiple_of(8);
    let mut header = vec![0; HEADER_FIXED];
    header[..8].copy_from_slice(HEADER);
    header[8..12].copy_from_slice(&version.to_le_bytes());
    header[12..16].copy_from_slice(&u32::try_from(length).expect("a short name").to_le_bytes());
    header[32..40].copy_from_slice(&first.to_le_bytes());
    header[40..48].copy_from_slice(&decided.to_le_bytes());
    header[56..58].copy_from_slice(
        &u16::try_from(router.len())
            .expect("a short name")
            .to_le_bytes(),
    );
    header.extend(router);
    header.resize(length - 4, 0);
    let checksum = crc32c::crc32c(&header);
    header.extend(checksum.to_le_bytes());
    header
}

/// What a reader gives that is asked for inputs above a number: it begins at the last segment that may hold the next one.
pub(super) fn inputs_after(segments: &[Segment], after: u64) -> Vec<&Placed> {
    let start = segments
        .iter()
        .rposition(|segment| segment.number <= after + 1);
    ascending(&segments[start.unwrap_or(0)..], after, Placed::is_input).0
}

/// The same for decisions, by what the headers say of those before; and then those that the reader passes over, because a
/// higher number came before them.
pub(super) fn decisions_after(segments: &[Segment], after: u64) -> (Vec<&Placed>, Vec<&Placed>) {
    let is_start = |segment: &Segment| {
        segment
            .header
            .as_ref()
            .is_some_and(|header| header.decided <= after)
    };
    let start = segments.iter().rposition(is_start);
    ascending(&segments[start.unwrap_or(0)..], after, Placed::is_decision)
}

fn ascending(
    segments: &[Segment],
    after: u64,
    is_wanted: fn(&Placed) -> bool,
) -> (Vec<&Placed>, Vec<&Placed>) {
    let mut last = after;
    let records = segments.iter().flat_map(|segment| &segment.records);
    records
        .filter(|record| is_wanted(record))
        .partition(|record| {
            let is_next = record.lsn > last;
            last = last.max(record.lsn);
            is_next
        })
}
