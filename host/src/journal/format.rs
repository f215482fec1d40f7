//! The bytes of a segment: its header and its records, version 1, little-endian. `docs/journal.md` is the page for people.
//!
//! Pure: takes and gives bytes, does no I/O. Whatever bytes come in, parsing neither fails nor reads beyond them: it says
//! what they are. Frames of FreeSWITCH are C strings and a record's head always has zero bytes, so no payload of
//! a frame can pass for a record, even when the bytes before it are damaged.

use bytes::Bytes;

/// The number of an input. Numbers only ever go up; gaps are normal.
pub type Lsn = u64;

/// Every open starts at the next multiple of this above all numbers on disk, so that a tail lost to a power cut
/// cannot give its numbers to new records. 2⁴⁰ inputs take a year at 35,000 a second.
pub const EPOCH: Lsn = 1 << 40;

/// Numbers from here on are nobody's: a file that bears one is not a segment, a record or header that does is damaged.
pub(super) const LSN_END: Lsn = 1 << 62;

/// The only version of the format that there is.
pub(super) const VERSION: u32 = 1;

/// Bytes of a record before its payload.
pub(super) const HEAD: usize = 48;

/// Records and headers begin at multiples of this.
pub(super) const ALIGN: usize = 8;

const HEADER_MAGIC: &[u8; 8] = b"JACKFJNL";

/// The header up to the router's name.
const HEADER_FIXED: usize = 58;

/// No text has the byte F5, no C string the 0.
pub(super) const RECORD_MAGIC: [u8; 4] = [0xF5, b'J', b'R', 0];

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An input: a frame with an event in JSON.
    Json,
    /// An input: a frame with an event in FreeSWITCH's plain encoding.
    Plain,
    /// An input: time has passed. No event, so it is never counted as lost.
    Tick,
    /// An input: an event of the host's own.
    Internal,
    /// An input: a dead letter that somebody sent again.
    Replay,
    /// An input: the calls that FreeSWITCH says are alive. No event; what differs becomes events.
    RollCall,
    /// What became of the input whose number it bears.
    Decision,
    /// Redis has everything up to the number it bears.
    Mark,
    /// The router's name, learnt after the segment's header was written.
    Router,
}

impl Kind {
    /// Whether the record has a number of its own.
    pub fn is_input(self) -> bool {
        self.is_event() || matches!(self, Kind::Tick | Kind::RollCall)
    }

    /// Whether it is an input that holds an event: what the accounts count.
    pub fn is_event(self) -> bool {
        matches!(
            self,
            Kind::Json | Kind::Plain | Kind::Internal | Kind::Replay
        )
    }

    fn code(self) -> u8 {
        match self {
            Kind::Json => 1,
            Kind::Plain => 2,
            Kind::Tick => 3,
            Kind::Internal => 4,
            Kind::Replay => 5,
            Kind::RollCall => 6,
            Kind::Decision => 16,
            Kind::Mark => 17,
            Kind::Router => 18,
        }
    }

    fn of_code(code: u8) -> Option<Kind> {
        Some(match code {
            1 => Kind::Json,
            2 => Kind::Plain,
            3 => Kind::Tick,
            4 => Kind::Internal,
            5 => Kind::Replay,
            6 => Kind::RollCall,
            16 => Kind::Decision,
            17 => Kind::Mark,
            18 => Kind::Router,
            _ => return None,
        })
    }
}

/// A record without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The input's number; for a decision that of its input, for a mark the last one that Redis has.
    pub lsn: Lsn,
    /// What the record is.
    pub kind: Kind,
    /// When the input was received or the decision made, in microseconds since the epoch.
    pub at_us: u64,
    /// The ESL connection that a frame came on; 0 for what is no frame.
    pub connection: u32,
    /// The frame's first byte in that connection's stream; 0 for what is no frame.
    pub offset: u64,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Everything but the payload.
    pub head: Head,
    /// The bytes that were appended. The journal never looks into them.
    pub payload: Bytes,
}

/// What stands at the start of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: [u8; 16],
    /// No input of this or a later segment is below it, except as a copy of one that the writer disowned.
    pub(super) first: Lsn,
    /// The highest decision in earlier segments, 0 for none.
    pub(super) decided: Lsn,
    pub(super) created_us: u64,
    /// Empty: not known yet.
    pub(super) router: String,
}

/// What the bytes at a place turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<T> {
    /// Nothing was written here yet.
    Blank,
    /// Whether it is valid shows only with this many bytes.
    Short(usize),
    /// Written, and not (or no longer) valid.
    Bad,
    Valid(T),
}

/// A valid record's place and size; none as head: its kind is from the future.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) head: Option<Head>,
    pub(super) payload: usize,
    /// With padding.
    pub(super) total: usize,
}

/// A header of whatever version.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AnyHeader {
    Known { header: Header, length: usize },
    Unknown { version: u32 },
}

/// Appends a record to `out`. False: the payload is longer than the format can say, and nothing was appended.
pub(super) fn push_record(out: &mut Vec<u8>, head: &Head, payload: &[u8]) -> bool {
    let Ok(length) = u32::try_from(payload.len()) else {
        return false;
    };
    let mut rest = [0; HEAD - 12];
    put(&mut rest, 0, &[head.kind.code()]);
    put(&mut rest, 4, &head.lsn.to_le_bytes());
    put(&mut rest, 12, &head.at_us.to_le_bytes());
    put(&mut rest, 20, &head.connection.to_le_bytes());
    put(&mut rest, 28, &head.offset.to_le_bytes());
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&length.to_le_bytes());
    let crc = checksum(&[&length.to_le_bytes(), &rest, payload]);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&rest);
    out.extend_from_slice(payload);
    out.resize(padded(out.len()), 0);
    true
}

/// The bytes that a record with a payload of this length takes.
pub(super) fn record_size(payload: usize) -> usize {
    padded(HEAD.saturating_add(payload))
}

/// What is at the start of `bytes`, where the segment has `room` bytes left.
pub(super) fn parse_record(bytes: &[u8], room: u64) -> Parsed<Measured> {
    if room < HEAD as u64 {
        return end_of_segment(bytes);
    }
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else {
        return Parsed::Short(HEAD);
    };
    if !head.starts_with(&RECORD_MAGIC) {
        let blank = head.starts_with(&[0; 4]);
        return if blank { Parsed::Blank } else { Parsed::Bad };
    }
    let Ok(length) = usize::try_from(u32_at(head, 4)) else {
        return Parsed::Bad;
    };
    let total = record_size(length);
    // Zeros where zeros must be, so that hostile bytes cannot cost a checksum each.
    let reserved = u32_at(head, 12) >> 8 | u32_at(head, 36);
    if total as u64 > room || reserved != 0 {
        return Parsed::Bad;
    }
    let (Some(payload), true) = (rest.get(..length), bytes.len() >= total) else {
        return Parsed::Short(total);
    };
    let (Some(size), Some(tail)) = (head.get(4..8), head.get(12..)) else {
        return Parsed::Bad;
    };
    if checksum(&[size, tail, payload]) != u32_at(head, 8) {
        return Parsed::Bad;
    }
    let lsn = u64_at(head, 16);
    if lsn >= LSN_END {
        return Parsed::Bad;
    }
    let kind = tail.first().copied().and_then(Kind::of_code);
    Parsed::Valid(Measured {
        head: kind.map(|kind| Head {
            lsn,
            kind,
            at_us: u64_at(head, 24),
            connection: u32_at(head, 32),
            offset: u64_at(head, 40),
        }),
        payload: length,
        total,
    })
}

/// What remains where no record fits any more.
fn end_of_segment(bytes: &[u8]) -> Parsed<Measured> {
    if bytes.iter().all(|byte| *byte == 0) {
        Parsed::Blank
    } else {
        Parsed::Bad
    }
}

impl Header {
    /// The header's bytes, a multiple of 8. A name that is longer than the format can say is left out.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (name, name_length) = match u16::try_from(self.router.len()) {
            Ok(length) => (self.router.as_bytes(), length),
            Err(_) => (&b""[..], 0),
        };
        let length = padded(HEADER_FIXED + name.len() + 4);
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(HEADER_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        // At most 64 KiB and a little, so it fits.
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.decided.to_le_bytes());
        out.extend_from_slice(&self.created_us.to_le_bytes());
        out.extend_from_slice(&name_length.to_le_bytes());
        out.extend_from_slice(name);
        out.resize(length - 4, 0);
        let crc = checksum(&[&out]);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}

/// What is at the start of a segment. Every version has magic, version, length and, at the end, the checksum in the same
/// places, so that damage is told from a newer version.
pub(super) fn parse_header(bytes: &[u8], room: u64) -> Parsed<AnyHeader> {
    let least = padded(HEADER_FIXED + 4);
    if room < least as u64 {
        return Parsed::Blank;
    }
    if bytes.len() < least {
        return Parsed::Short(least);
    }
    if !bytes.starts_with(HEADER_MAGIC) {
        let blank = bytes.starts_with(&[0; 8]);
        return if blank { Parsed::Blank } else { Parsed::Bad };
    }
    let Ok(length) = usize::try_from(u32_at(bytes, 12)) else {
        return Parsed::Bad;
    };
    let longest = padded(HEADER_FIXED + usize::from(u16::MAX) + 4);
    if !(least..=longest).contains(&length) || !length.is_multiple_of(ALIGN) || length as u64 > room
    {
        return Parsed::Bad;
    }
    let Some(header) = bytes.get(..length) else {
        return Parsed::Short(length);
    };
    let Some((content, _)) = header.split_at_checked(length - 4) else {
        return Parsed::Bad;
    };
    if checksum(&[content]) != u32_at(header, length - 4) {
        return Parsed::Bad;
    }
    let version = u32_at(header, 8);
    if version != VERSION {
        return Parsed::Valid(AnyHeader::Unknown { version });
    }
    match decode_header(content) {
        Some(header) => Parsed::Valid(AnyHeader::Known { header, length }),
        None => Parsed::Bad,
    }
}

fn decode_header(content: &[u8]) -> Option<Header> {
    let mut id = [0; 16];
    id.copy_from_slice(content.get(16..32)?);
    let name_length = usize::from(u16::from_le_bytes(*content.get(56..)?.first_chunk()?));
    let name = content.get(HEADER_FIXED..)?.get(..name_length)?;
    let (first, decided) = (u64_at(content, 32), u64_at(content, 40));
    if first.max(decided) >= LSN_END {
        return None;
    }
    Some(Header {
        id,
        first,
        decided,
        created_us: u64_at(content, 48),
        router: String::from_utf8(name.to_vec()).ok()?,
    })
}

/// The file name of the segment with this number.
pub(super) fn file_name(number: Lsn) -> String {
    format!("{number:016x}.jnl")
}

/// The number in a segment's file name; none for other files.
pub(super) fn number_of(file_name: &str) -> Option<Lsn> {
    let digits = file_name.strip_suffix(".jnl")?;
    let plain = digits.len() == 16
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = Lsn::from_str_radix(digits, 16).ok()?;
    (plain && number < LSN_END).then_some(number)
}

/// `length` rounded up to the alignment of records.
fn padded(length: usize) -> usize {
    length
        .checked_next_multiple_of(ALIGN)
        .unwrap_or(usize::MAX - (ALIGN - 1))
}

fn checksum(parts: &[&[u8]]) -> u32 {
    parts
        .iter()
        .fold(0, |crc, part| crc32c::crc32c_append(crc, part))
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// The number at `at`; the caller has made sure that it is there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::{
        AnyHeader, HEAD, Head, Header, Kind, LSN_END, Parsed, file_name, number_of, parse_header,
        parse_record, push_record,
    };

    fn head() -> Head {
        Head {
            lsn: 0x0102_0304_0506_0708,
            kind: Kind::Json,
            at_us: 0x1112_1314_1516_1718,
            connection: 0x2122_2324,
            offset: 0x3132_3334_3536_3738,
        }
    }

    fn header(router: &str) -> Header {
        Header {
            id: *b"0123456789abcdef",
            first: 1 << 40,
            decided: 7,
            created_us: 9,
            router: router.to_owned(),
        }
    }

    #[test]
    fn the_record_has_the_documented_bytes() {
        let mut bytes = Vec::new();
        assert!(
            push_record(&mut bytes, &head(), b"payload-9"),
            "a short payload fits"
        );
        assert_eq!(bytes.len(), 64, "48 + 9, padded to a multiple of 8");
        assert_eq!(bytes[..8], [0xF5, b'J', b'R', 0, 9, 0, 0, 0]);
        assert_eq!(bytes[12..16], [1, 0, 0, 0], "kind and reserved");
        assert_eq!(bytes[16..24], [8, 7, 6, 5, 4, 3, 2, 1], "lsn");
        assert_eq!(bytes[24], 0x18, "receive time");
        assert_eq!(
            bytes[32..40],
            [0x24, 0x23, 0x22, 0x21, 0, 0, 0, 0],
            "connection"
        );
        assert_eq!(bytes[40], 0x38, "offset");
        assert_eq!(&bytes[48..57], b"payload-9");
        assert_eq!(bytes[57..], [0; 7], "padding");
        let covered = [&bytes[4..8], &bytes[12..57]].concat();
        assert_eq!(
            bytes[8..12],
            crc32c::crc32c(&covered).to_le_bytes(),
            "checksum"
        );
    }

    #[test]
    fn a_record_comes_back_and_no_damage_passes() {
        let mut bytes = Vec::new();
        push_record(&mut bytes, &head(), b"payload-9");
        let room = bytes.len() as u64;
        let Parsed::Valid(found) = parse_record(&bytes, room) else {
            panic!("a record as written is valid");
        };
        assert_eq!(found.head, Some(head()));
        assert_eq!((found.payload, found.total), (9, 64));
        for bit in 0..57 * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                parse_record(&flipped, room),
                Parsed::Bad,
                "bit {bit} is covered"
            );
        }
        for length in 0..bytes.len() {
            let parsed = parse_record(&bytes[..length], room);
            assert!(
                matches!(parsed, Parsed::Short(_)),
                "{length} bytes are too few"
            );
        }
        assert_eq!(
            parse_record(&bytes, room - 8),
            Parsed::Bad,
            "longer than the segment"
        );
    }

    #[test]
    fn zeros_are_blank_and_unknown_kinds_are_measured() {
        assert_eq!(parse_record(&[0; HEAD], 4096), Parsed::Blank);
        assert_eq!(
            parse_record(&[0; 8], 8),
            Parsed::Blank,
            "no room for a record"
        );
        assert_eq!(parse_record(&[1; 8], 8), Parsed::Bad);
        let mut bytes = Vec::new();
        push_record(&mut bytes, &head(), b"");
        bytes[12] = 99;
        let covered = [&bytes[4..8], &bytes[12..48]].concat();
        bytes[8..12].copy_from_slice(&crc32c::crc32c(&covered).to_le_bytes());
        let Parsed::Valid(found) = parse_record(&bytes, 48) else {
            panic!("a valid record of an unknown kind is skipped, not damaged");
        };
        assert_eq!((found.head, found.total), (None, 48));
    }

    #[test]
    fn a_header_comes_back_and_no_damage_passes() {
        for name in ["", "fs1", "the switch with ümlauts"] {
            let bytes = header(name).encode();
            let room = bytes.len() as u64;
            let known = AnyHeader::Known {
                header: header(name),
                length: bytes.len(),
            };
            assert_eq!(parse_header(&bytes, room), Parsed::Valid(known));
            assert_eq!(bytes.len() % 8, 0, "records after it are aligned");
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let parsed = parse_header(&flipped, room);
                assert!(
                    matches!(parsed, Parsed::Bad | Parsed::Short(_)),
                    "bit {bit} is covered"
                );
            }
        }
        assert_eq!(parse_header(&[0; 64], 4096), Parsed::Blank);
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = header("fs1").encode();
        bytes[8] = 2;
        let end = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        let parsed = parse_header(&bytes, 4096);
        assert_eq!(parsed, Parsed::Valid(AnyHeader::Unknown { version: 2 }));
    }

    #[test]
    fn only_segments_have_a_number() {
        assert_eq!(file_name(1 << 40), "0000010000000000.jnl");
        assert_eq!(number_of("0000010000000000.jnl"), Some(1 << 40));
        for other in [
            "lock",
            "0000010000000000",
            "000001000000000A.jnl",
            "+000010000000000.jnl",
            "10000000000.jnl",
        ] {
            assert_eq!(number_of(other), None, "{other} is no segment");
        }
        assert_eq!(
            number_of(&file_name(LSN_END)),
            None,
            "beyond the numbers there are"
        );
    }
}
