//! Cuts the bytes of an Event Socket connection into frames.
//!
//! Pure: bytes go in at any split, frames come out; no IO, no time. A frame is a header block that ends in an empty
//! line, then exactly `Content-Length` bytes. What is inside an event frame is not looked at: its inner
//! `Content-Length`, and bodies that look like frames, are the event's own business.

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr_iter, memmem};
use thiserror::Error;

/// The largest body that is kept. Real events reach 50 kB; one that a script makes may be far larger.
pub const MAX_FRAME: u64 = 16 << 20;

/// The largest answer to an `api` command that is kept: that of `show channels as json` has over 1 kB a channel.
pub const MAX_ANSWER: u64 = 64 << 20;

/// A length over this is a lie: passing over so much would swallow every event behind it, for hours.
const MAX_LENGTH: u64 = 1 << 30;

/// The largest header block. FreeSWITCH's own have a few lines; without a limit garbage would be collected for ever.
const MAX_HEADER: usize = 64 << 10;

/// So much of a body that is too large is looked at, so that it can be told which event it was.
const HEAD: usize = 8 << 10;

/// A notice is at most so long. FreeSWITCH may write it in the middle of a frame, and then its beginning counts as the body's end.
const TAIL: usize = 256;

const NOTICE: &[u8] = b"Content-Type: text/disconnect-notice\n";

/// What a frame is, by its `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `auth/request`: the first frame of an accepted connection.
    AuthRequest,
    /// `command/reply`.
    CommandReply,
    /// `api/response`.
    ApiResponse,
    /// `text/event-plain`.
    EventPlain,
    /// `text/event-json`.
    EventJson,
    /// `text/disconnect-notice`; the end unless its `Content-Disposition` is `linger`.
    DisconnectNotice,
    /// `text/rude-rejection`: the ACL refused us.
    RudeRejection,
    /// Anything else (`log/data`, `text/event-xml`, …): never asked for, passed over.
    Other,
}

/// One message on the event socket: headers and body, uninterpreted.
#[derive(Clone, Debug)]
pub struct Frame {
    /// By `Content-Type`.
    pub kind: Kind,
    /// The header block with its final newline, without the empty line.
    pub header: Bytes,
    /// Where its header block begins, in bytes from the beginning of the connection.
    pub offset: u64,
    /// Exactly `Content-Length` bytes; empty where there is none.
    pub body: Bytes,
}

impl Frame {
    /// The value of an outer header.
    pub fn header(&self, name: &str) -> Option<&str> {
        values(&self.header, name).next()
    }
}

/// What the framer found next.
#[derive(Clone, Debug)]
pub enum Framed {
    /// A whole frame.
    Frame(Frame),
    /// A frame over [`MAX_FRAME`], or an answer over [`MAX_ANSWER`]: its body is being passed over.
    TooLarge(TooLarge),
}

/// A frame that is passed over.
#[derive(Clone, Debug)]
pub struct TooLarge {
    /// What kind of frame it is.
    pub kind: Kind,
    /// Its `Content-Length`.
    pub length: u64,
    /// The beginning of its body, which names it.
    pub head: Bytes,
}

/// The bytes are no Event Socket stream (any more): only a new connection helps.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// No empty line within the limit.
    #[error("header block without an end within {MAX_HEADER} bytes")]
    EndlessHeader,
    /// A header block without `Content-Type`.
    #[error("header block without a Content-Type: {0:?}")]
    NoContentType(String),
    /// A frame whose kind always has a `Content-Length`, without one.
    #[error("header block without a Content-Length: {0:?}")]
    NoLength(String),
    /// A `Content-Length` that is no number, or none that can be true, or one of two that differ.
    #[error("Content-Length {0:?} is not a number of bytes")]
    BadLength(String),
}

/// How the stream stood when the connection ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// Between two frames.
    Whole,
    /// Inside a frame.
    Cut,
    /// Inside a frame that FreeSWITCH interrupted with a notice: its text.
    Notice(String),
}

/// Collects bytes and hands out frames.
#[derive(Debug, Default)]
pub struct Framer {
    bytes: BytesMut,
    /// Bytes of the connection before those in `bytes`.
    passed: u64,
    /// How far the current header block was searched for its end.
    searched: usize,
    /// A header block that is complete and waits for its body.
    opened: Option<Opened>,
    /// Bytes of a too large body still to pass over.
    skip: u64,
    /// The end of the last body: a notice in the middle of its frame may have begun there.
    tail: Vec<u8>,
}

#[derive(Debug)]
struct Opened {
    kind: Kind,
    header: Bytes,
    offset: u64,
    length: u64,
}

impl Opened {
    /// How many bytes of the body must be there before it can be handed out.
    fn needed(&self) -> usize {
        let kept = usize::try_from(self.length).unwrap_or(usize::MAX);
        if self.is_too_large() { HEAD } else { kept }
    }

    fn is_too_large(&self) -> bool {
        let most = match self.kind {
            Kind::ApiResponse => MAX_ANSWER,
            _ => MAX_FRAME,
        };
        self.length > most
    }
}

impl Framer {
    /// Where the next bytes of the connection go.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// The next frame, or `None` until more bytes come.
    pub fn next_frame(&mut self) -> Result<Option<Framed>, FrameError> {
        if self.skip > 0 {
            let passed = self
                .bytes
                .len()
                .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            let passed = self.take(passed);
            self.skip -= passed.len() as u64;
            self.pass(&passed);
            if self.skip > 0 {
                return Ok(None);
            }
        }
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => match self.next_header()? {
                Some(opened) => opened,
                None => return Ok(None),
            },
        };
        if self.bytes.len() < opened.needed() {
            self.opened = Some(opened);
            return Ok(None);
        }
        let body = self.take(opened.needed());
        if opened.is_too_large() {
            self.skip = opened.length - body.len() as u64;
            return Ok(Some(Framed::TooLarge(TooLarge {
                kind: opened.kind,
                length: opened.length,
                head: body,
            })));
        }
        self.pass(&body);
        Ok(Some(Framed::Frame(Frame {
            kind: opened.kind,
            header: opened.header,
            offset: opened.offset,
            body,
        })))
    }

    fn next_header(&mut self) -> Result<Option<Opened>, FrameError> {
        // Nothing separates frames; stray newlines between them are tolerated.
        if self.searched == 0 && self.bytes.first() == Some(&b'\n') {
            let newlines = self.bytes.iter().take_while(|byte| **byte == b'\n').count();
            let newlines = self.take(newlines);
            self.pass(&newlines);
        }
        let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
        let mut newlines = memchr_iter(b'\n', unsearched);
        let found = newlines.find(|at| unsearched.get(at + 1) == Some(&b'\n'));
        let end = found.map(|found| self.searched + found + 1);
        // A block that came with its end is held to the limit too: what is taken must not depend on how it was cut.
        if end.unwrap_or(self.bytes.len()) > MAX_HEADER {
            return Err(FrameError::EndlessHeader);
        }
        let Some(end) = end else {
            self.searched = self.bytes.len().saturating_sub(1);
            return Ok(None);
        };
        self.searched = 0;
        let offset = self.passed;
        let header = self.take(end);
        self.bytes.advance(1);
        self.passed += 1;
        if let Some((kind, length)) = event_block(&header) {
            return Ok(Some(Opened {
                kind,
                header,
                offset,
                length,
            }));
        }
        let header = self.without_cut_frame(header);
        let Some(content_type) = values(&header, "Content-Type").next() else {
            return Err(FrameError::NoContentType(excerpt(&header)));
        };
        let kind = kind(content_type);
        let length = length(&header, kind)?;
        Ok(Some(Opened {
            kind,
            header,
            offset,
            length,
        }))
    }

    /// A notice in the middle of a frame: what is before it belongs to the frame, of which no more comes.
    fn without_cut_frame(&self, header: Bytes) -> Bytes {
        if let Some(at) = memmem::find(&header, NOTICE) {
            return header.slice(at..);
        }
        if values(&header, "Content-Type").next().is_some() {
            return header;
        }
        let joined = [&*self.tail, &*header].concat();
        match memmem::rfind(&joined, NOTICE) {
            Some(at) => Bytes::from(joined).slice(at..),
            None => header,
        }
    }

    /// Keeps the end of what belonged to bodies.
    fn pass(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(last(bytes, TAIL));
        let over = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..over);
    }

    fn take(&mut self, bytes: usize) -> Bytes {
        self.passed += bytes as u64;
        self.bytes.split_to(bytes).freeze()
    }

    /// How the stream stands now that the connection has ended.
    pub fn ending(&self) -> Ending {
        let joined = [&*self.tail, &*self.bytes].concat();
        if let Some(at) = memmem::rfind(&joined, NOTICE) {
            let notice = joined.get(at..).unwrap_or_default();
            let text = memmem::find(notice, b"\n\n")
                .and_then(|end| notice.get(end + 2..))
                .unwrap_or_default();
            // Its first line says it; more may have come behind it.
            let text = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
            return Ending::Notice(String::from_utf8_lossy(text).trim_end().to_owned());
        }
        if self.opened.is_none() && self.skip == 0 && self.bytes.iter().all(|byte| *byte == b'\n') {
            return Ending::Whole;
        }
        Ending::Cut
    }
}

/// What nearly every block is: FreeSWITCH's own words before an event. Any other block is looked at line by line.
fn event_block(header: &[u8]) -> Option<(Kind, u64)> {
    let rest = header.strip_prefix(b"Content-Length: ")?;
    let (digits, line) = rest.split_at(memchr(b'\n', rest)?);
    let kind = match line {
        b"\nContent-Type: text/event-json\n" => Kind::EventJson,
        b"\nContent-Type: text/event-plain\n" => Kind::EventPlain,
        _ => return None,
    };
    // So short, it is below the limit.
    let is_number = (1..=9).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let length = is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok());
    Some((kind, length??))
}

/// How long the body is. Where FreeSWITCH always says it, a block that does not is the rest of some other frame.
fn length(header: &[u8], kind: Kind) -> Result<u64, FrameError> {
    let mut lengths = values(header, "Content-Length").map(str::trim_end);
    let Some(text) = lengths.next() else {
        return match kind {
            Kind::AuthRequest | Kind::CommandReply | Kind::Other => Ok(0),
            _ => Err(FrameError::NoLength(excerpt(header))),
        };
    };
    let bad = || FrameError::BadLength(excerpt(text.as_bytes()));
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || lengths.any(|other| other != text) {
        return Err(bad());
    }
    let length = text.parse().map_err(|_| bad())?;
    if length > MAX_LENGTH {
        return Err(bad());
    }
    Ok(length)
}

fn kind(content_type: &str) -> Kind {
    match content_type {
        "text/event-json" => Kind::EventJson,
        "text/event-plain" => Kind::EventPlain,
        "command/reply" => Kind::CommandReply,
        "api/response" => Kind::ApiResponse,
        "auth/request" => Kind::AuthRequest,
        "text/disconnect-notice" => Kind::DisconnectNotice,
        "text/rude-rejection" => Kind::RudeRejection,
        _ => Kind::Other,
    }
}

/// The values of a header, in order.
fn values<'a, 'n>(block: &'a [u8], name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
    block.split(|byte| *byte == b'\n').filter_map(move |line| {
        let rest = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
        std::str::from_utf8(rest).ok().map(str::trim_start)
    })
}

/// At most so many of the last bytes.
fn last(bytes: &[u8], most: usize) -> &[u8] {
    let from = bytes.len().saturating_sub(most);
    bytes.get(from..).unwrap_or_default()
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..80).unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, proptest};

    use super::{Ending, FrameError, Framed, Framer, HEAD, Kind, MAX_FRAME, MAX_HEADER};

    fn frames(framer: &mut Framer) -> Result<Vec<(Kind, Vec<u8>)>, FrameError> {
        let mut found = Vec::new();
        while let Some(framed) = framer.next_frame()? {
            match framed {
                Framed::Frame(frame) => found.push((frame.kind, frame.body.to_vec())),
                Framed::TooLarge(large) => {
                    found.push((large.kind, large.length.to_string().into_bytes()));
                }
            }
        }
        Ok(found)
    }

    fn at_once(bytes: &[u8]) -> Result<Vec<(Kind, Vec<u8>)>, FrameError> {
        let mut framer = Framer::default();
        framer.buffer().put_slice(bytes);
        frames(&mut framer)
    }

    const SESSION: &[u8] = b"Content-Type: auth/request\n\nContent-Type: command/reply\nReply-Text: +OK accepted\n\n\
        Content-Length: 46\nContent-Type: text/event-json\n\n{\"_body\":\"Content-Type: auth/request\\n\\n....\"}\
        Content-Type: text/disconnect-notice\nContent-Length: 7\n\nDone.\n\nContent-Type: log/data\nContent-Length: 1\n\nx";

    #[test]
    fn a_frame_says_where_in_the_stream_it_begins() {
        let first = b"\nContent-Type: text/event-json\nContent-Length: 2\n\n{}";
        let mut framer = Framer::default();
        framer.buffer().put_slice(first);
        framer.buffer().put_slice(&first[1..]);
        let mut offset = || match framer.next_frame() {
            Ok(Some(Framed::Frame(frame))) => frame.offset,
            other => panic!("{other:?}"),
        };
        assert_eq!((offset(), offset()), (1, first.len() as u64));
    }

    #[test]
    fn a_session_is_cut_into_its_frames_at_every_split() {
        let whole = at_once(SESSION).unwrap();
        let kinds: Vec<Kind> = whole.iter().map(|(kind, _)| *kind).collect();
        let expected = [
            Kind::AuthRequest,
            Kind::CommandReply,
            Kind::EventJson,
            Kind::DisconnectNotice,
            Kind::Other,
        ];
        assert_eq!(
            kinds, expected,
            "one frame a message, whatever the bodies look like"
        );
        for split in 0..SESSION.len() {
            let mut framer = Framer::default();
            let mut found = Vec::new();
            for part in [&SESSION[..split], &SESSION[split..]] {
                framer.buffer().put_slice(part);
                found.extend(frames(&mut framer).unwrap());
            }
            assert_eq!(found, whole, "split at byte {split}");
            assert_eq!(framer.ending(), Ending::Whole);
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_passed_over_and_the_next_one_is_whole() {
        let mut framer = Framer::default();
        let length = MAX_FRAME + 1;
        framer.buffer().put_slice(
            format!("Content-Length: {length}\nContent-Type: text/event-plain\n\n").as_bytes(),
        );
        let name = b"Event-Name: CUSTOM\n";
        framer.buffer().put_slice(name);
        assert!(
            frames(&mut framer).unwrap().is_empty(),
            "its beginning is awaited, which names it"
        );
        framer.buffer().put_bytes(b'x', HEAD);
        let mut left = usize::try_from(length).unwrap() - name.len() - HEAD;
        let Ok(Some(Framed::TooLarge(large))) = framer.next_frame() else {
            panic!("no large frame");
        };
        assert_eq!((large.kind, large.length), (Kind::EventPlain, length));
        assert!(large.head.starts_with(b"Event-Name: CUSTOM\n"));
        while left > 0 {
            let part = left.min(1 << 20);
            framer.buffer().put_bytes(b'x', part);
            left -= part;
            assert!(frames(&mut framer).unwrap().is_empty());
            assert!(
                framer.buffer().is_empty(),
                "a body that is passed over takes no memory"
            );
        }
        framer
            .buffer()
            .put_slice(b"Content-Type: api/response\nContent-Length: 2\n\nok");
        assert_eq!(
            frames(&mut framer).unwrap(),
            [(Kind::ApiResponse, b"ok".to_vec())]
        );
    }

    #[test]
    fn what_is_no_event_socket_stream_is_an_error() {
        let no_type = at_once(b"HTTP/1.1 400 Bad Request\nServer: x\n\n").unwrap_err();
        assert!(matches!(no_type, FrameError::NoContentType(_)), "{no_type}");
        let length = at_once(b"Content-Type: api/response\nContent-Length: -5\n\n").unwrap_err();
        assert_eq!(length, FrameError::BadLength("-5".to_owned()));
        let endless = at_once(&vec![b'x'; 70_000]).unwrap_err();
        assert_eq!(endless, FrameError::EndlessHeader);
    }

    #[test]
    fn a_length_that_lies_is_an_error() {
        let of = |lines: &str| at_once(format!("{lines}\n\n{{}}").as_bytes());
        let event = "Content-Type: text/event-json";
        for text in [
            "",
            "x",
            "+2",
            "2 2",
            "0x2",
            "18446744073709551616",
            "1073741825",
        ] {
            let error = of(&format!("Content-Length: {text}\n{event}")).unwrap_err();
            assert_eq!(error, FrameError::BadLength(text.to_owned()));
        }
        let two = of(&format!("Content-Length: 2\n{event}\nContent-Length: 3")).unwrap_err();
        assert_eq!(two, FrameError::BadLength("2".to_owned()));
        let none = of(event).unwrap_err();
        assert!(
            matches!(none, FrameError::NoLength(_)),
            "an event without one is the rest of another: {none}"
        );
        let twice = of(&format!("Content-Length: 2\n{event}\nContent-Length: 2")).unwrap();
        assert_eq!(twice, [(Kind::EventJson, b"{}".to_vec())]);
    }

    #[test]
    fn a_notice_at_any_place_of_a_frame_is_read_as_the_ending() {
        const TEXT: &str = "killed listener because of lost events";
        let body = "x".repeat(300);
        let frame = format!("Content-Length: 300\nContent-Type: text/event-json\n\n{body}");
        let notice =
            format!("Content-Type: text/disconnect-notice\nContent-Length: 39\n\n{TEXT}\n");
        for cut in 0..=frame.len() {
            let mut framer = Framer::default();
            framer.buffer().put_slice(&frame.as_bytes()[..cut]);
            framer.buffer().put_slice(notice.as_bytes());
            let found = frames(&mut framer).unwrap();
            let by_frame = found.iter().any(|(kind, body)| {
                (*kind, &**body) == (Kind::DisconnectNotice, format!("{TEXT}\n").as_bytes())
            });
            let by_ending = framer.ending() == Ending::Notice(TEXT.to_owned());
            assert!(
                by_frame || by_ending,
                "at byte {cut}: {found:?} {:?}",
                framer.ending()
            );
        }
    }

    #[test]
    fn an_end_inside_a_frame_is_told_from_one_between_frames() {
        let mut framer = Framer::default();
        framer
            .buffer()
            .put_slice(b"Content-Length: 900\nContent-Type: text/event-plain\n\nEvent-Name: CU");
        assert!(frames(&mut framer).unwrap().is_empty());
        assert_eq!(framer.ending(), Ending::Cut);
    }

    #[test]
    fn a_header_block_over_the_limit_is_refused_however_it_is_cut() {
        let block = |length: usize| {
            let mut block = b"Content-Type: api/response\nContent-Length: 0\nX: ".to_vec();
            block.resize(length - 1, b'x');
            block.extend(b"\n\n");
            block
        };
        assert_eq!(at_once(&block(MAX_HEADER)).unwrap().len(), 1);
        let long = block(MAX_HEADER + 1);
        assert_eq!(at_once(&long), Err(FrameError::EndlessHeader));
        let mut framer = Framer::default();
        framer.buffer().put_slice(&long[..MAX_HEADER + 1]);
        assert_eq!(frames(&mut framer), Err(FrameError::EndlessHeader));
    }

    proptest! {
        #[test]
        fn any_bodies_at_any_splits_come_out_as_they_went_in(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8),
            splits in prop::collection::vec(1_usize..60, 1..20),
        ) {
            let mut stream = Vec::new();
            for body in &bodies {
                stream.extend(format!("Content-Length: {}\nContent-Type: text/event-plain\n\n", body.len()).bytes());
                stream.extend(body);
            }
            let mut framer = Framer::default();
            let mut found = Vec::new();
            let mut rest = stream.as_slice();
            for split in splits.iter().cycle() {
                let (part, later) = rest.split_at((*split).min(rest.len()));
                framer.buffer().put_slice(part);
                found.extend(frames(&mut framer).unwrap().into_iter().map(|(_, body)| body));
                rest = later;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(found, bodies);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>().prop_map(|mut bytes| { bytes.push(b'\n'); bytes })) {
            let mut framer = Framer::default();
            framer.buffer().put_slice(&bytes);
            while let Ok(Some(_)) = framer.next_frame() {}
            framer.ending();
        }
    }
}
