//! The framer: the bytes of a connection, cut at any places, are the same frames, and the same end.
//!
//! The data is the stream as it comes from FreeSWITCH. A line of `~N` stands for one of N bytes, so that a small file reaches the
//! limits.

use std::borrow::Cow;

use bytes::BufMut;
use jackfield::esl::{Ending, FrameError, Framed, Framer, Kind, MAX_FRAME};

/// The longest header block, its final newline included.
const MAX_HEADER: usize = 64 << 10;
/// The longest body that is believed.
const MAX_LENGTH: u64 = 1 << 30;
/// So much of a body that is too large is handed out.
const HEAD: usize = 8 << 10;
/// In so many bytes of bodies a notice may have begun.
const TAIL: usize = 256;
/// What lines of `~N` add to a stream at most.
const MOST_BYTES: usize = 128 << 10;

const NOTICE: &[u8] = b"Content-Type: text/disconnect-notice\n";

/// What came of a stream.
#[derive(Debug, PartialEq)]
struct Reading {
    found: Vec<Found>,
    end: End,
}

#[derive(Debug, PartialEq)]
enum Found {
    Frame {
        kind: Kind,
        offset: u64,
        header: Vec<u8>,
        body: Vec<u8>,
    },
    TooLarge {
        kind: Kind,
        length: u64,
        head: Vec<u8>,
    },
}

#[derive(Debug, PartialEq)]
enum End {
    Closed(Ending),
    EndlessHeader,
    NoContentType,
    NoLength,
    BadLength,
}

/// Checks one stream.
pub fn run(data: &[u8]) {
    let stream = stream(data);
    let expected = read(&stream);
    assert_eq!(cut(&stream, [stream.len()]), expected, "all at once");
    let pieces = data.iter().map(|byte| usize::from(byte % 61) + 1);
    if stream.len() > data.len() {
        let large = pieces.map(|piece| piece * 1_000);
        assert_eq!(cut(&stream, large), expected, "in large pieces");
    } else {
        assert_eq!(cut(&stream, pieces), expected, "in pieces");
        assert_eq!(cut(&stream, [1]), expected, "byte by byte");
    }
}

fn stream(data: &[u8]) -> Vec<u8> {
    let mut room = MOST_BYTES;
    let lines = data.split(|byte| *byte == b'\n').map(|line| {
        let Some(length) = run_length(line) else {
            return Cow::Borrowed(line);
        };
        let length = length.min(room);
        room -= length;
        Cow::Owned(vec![b'x'; length])
    });
    lines.collect::<Vec<_>>().join(&b'\n')
}

fn run_length(line: &[u8]) -> Option<usize> {
    let digits = line.strip_prefix(b"~")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What the framer makes of the stream when it comes in pieces of these sizes, over and over.
fn cut<I>(stream: &[u8], pieces: I) -> Reading
where
    I: IntoIterator<Item = usize, IntoIter: Clone>,
{
    let mut framer = Framer::default();
    let mut found = Vec::new();
    let mut rest = stream;
    for piece in pieces.into_iter().cycle() {
        let (piece, later) = rest.split_at(piece.min(rest.len()));
        framer.buffer().put_slice(piece);
        rest = later;
        loop {
            match framer.next_frame() {
                Ok(Some(framed)) => found.push(Found::of(framed)),
                Ok(None) => break,
                Err(error) => {
                    let end = End::of(&error);
                    return Reading { found, end };
                }
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    let end = End::Closed(framer.ending());
    Reading { found, end }
}

impl Found {
    fn of(framed: Framed) -> Found {
        match framed {
            Framed::Frame(frame) => Found::Frame {
                kind: frame.kind,
                offset: frame.offset,
                header: frame.header.to_vec(),
                body: frame.body.to_vec(),
            },
            Framed::TooLarge(frame) => Found::TooLarge {
                kind: frame.kind,
                length: frame.length,
                head: frame.head.to_vec(),
            },
        }
    }
}

impl End {
    fn of(error: &FrameError) -> End {
        match error {
            FrameError::EndlessHeader => End::EndlessHeader,
            FrameError::NoContentType(_) => End::NoContentType,
            FrameError::NoLength(_) => End::NoLength,
            FrameError::BadLength(_) => End::BadLength,
        }
    }
}

/// The whole stream, read by the protocol's rules: header lines, an empty line, `Content-Length` bytes.
fn read(stream: &[u8]) -> Reading {
    let mut found = Vec::new();
    let mut at = 0;
    // What belonged to bodies, or stood between frames: FreeSWITCH may interrupt a frame with a notice, whose beginning
    // then counts as the end of a body.
    let mut bodies = Vec::new();
    let end = loop {
        let newlines = newlines(&stream[at..]);
        bodies.extend(&stream[at..at + newlines]);
        at += newlines;
        let rest = &stream[at..];
        let end = find(rest, b"\n\n").map_or(rest.len(), |end| end + 1);
        if end > MAX_HEADER {
            break End::EndlessHeader;
        }
        if end == rest.len() {
            break End::Closed(ending(&bodies, rest, rest.is_empty()));
        }
        let header = behind_cut_frame(&bodies, &rest[..end]);
        let rest = &rest[end + 1..];
        let Some(kind) = values(&header, "Content-Type")
            .first()
            .map(|text| kind(text))
        else {
            break End::NoContentType;
        };
        let length = match length(&header, kind) {
            Ok(length) => length,
            Err(end) => break end,
        };
        let size = usize::try_from(length).expect("64 bits");
        if length > MAX_FRAME {
            let Some((head, passed)) = rest.split_at_checked(HEAD) else {
                break End::Closed(ending(&bodies, rest, false));
            };
            let head = head.to_vec();
            found.push(Found::TooLarge { kind, length, head });
            bodies.extend(&passed[..passed.len().min(size - HEAD)]);
            if rest.len() < size {
                break End::Closed(ending(&bodies, &[], false));
            }
        } else {
            let Some(body) = rest.get(..size) else {
                break End::Closed(ending(&bodies, rest, false));
            };
            bodies.extend(body);
            found.push(Found::Frame {
                kind,
                offset: at as u64,
                header,
                body: body.to_vec(),
            });
        }
        at += end + 1 + size;
    };
    Reading { found, end }
}

/// A header block, without the frame that a notice interrupted.
fn behind_cut_frame(bodies: &[u8], block: &[u8]) -> Vec<u8> {
    if let Some(at) = find(block, NOTICE) {
        return block[at..].to_vec();
    }
    if !values(block, "Content-Type").is_empty() {
        return block.to_vec();
    }
    let joined = [tail(bodies), block].concat();
    match find_last(&joined, NOTICE) {
        Some(at) => joined[at..].to_vec(),
        None => block.to_vec(),
    }
}

fn length(header: &[u8], kind: Kind) -> Result<u64, End> {
    let lengths = values(header, "Content-Length");
    let mut lengths = lengths.iter().map(|text| text.trim_end());
    let Some(text) = lengths.next() else {
        let may_lack_it = matches!(kind, Kind::AuthRequest | Kind::CommandReply | Kind::Other);
        return if may_lack_it {
            Ok(0)
        } else {
            Err(End::NoLength)
        };
    };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let length = text
        .parse()
        .ok()
        .filter(|length| digits && *length <= MAX_LENGTH);
    length
        .filter(|_| lengths.all(|other| other == text))
        .ok_or(End::BadLength)
}

/// How the stream ends in these bytes of a frame, or `between` two.
fn ending(bodies: &[u8], rest: &[u8], between: bool) -> Ending {
    let joined = [tail(bodies), rest].concat();
    let Some(last) = find_last(&joined, NOTICE) else {
        return if between { Ending::Whole } else { Ending::Cut };
    };
    let notice = &joined[last..];
    let text = find(notice, b"\n\n").map_or(&[][..], |end| &notice[end + 2..]);
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ending::Notice(String::from_utf8_lossy(line).trim_end().to_owned())
}

fn tail(bodies: &[u8]) -> &[u8] {
    &bodies[bodies.len().saturating_sub(TAIL)..]
}

fn kind(content_type: &str) -> Kind {
    match content_type {
        "auth/request" => Kind::AuthRequest,
        "command/reply" => Kind::CommandReply,
        "api/response" => Kind::ApiResponse,
        "text/event-plain" => Kind::EventPlain,
        "text/event-json" => Kind::EventJson,
        "text/disconnect-notice" => Kind::DisconnectNotice,
        "text/rude-rejection" => Kind::RudeRejection,
        _ => Kind::Other,
    }
}

/// What the lines of that name say, where they are text.
fn values(header: &[u8], name: &str) -> Vec<String> {
    let lines = header.split(|byte| *byte == b'\n');
    let values = lines.filter_map(|line| {
        let line = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
        Some(std::str::from_utf8(line).ok()?.trim_start().to_owned())
    });
    values.collect()
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| **byte == b'\n').count()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn find_last(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).rposition(|window| window == what)
}
