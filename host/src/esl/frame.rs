//! Cuts the bytes of an Event Socket connection into frames.
//!
//! Pure: bytes go in at any split, frames come out; no IO, no time. A frame is a header block that ends in an empty
//! line, then exactly `Content-Length` bytes. What is inside an event frame is not looked at: its inner
//! `Content-Length`, and bodies that look like frames, are the event's own business.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use thiserror::Error;

/// The largest body that is kept. Real events reach 50 kB; one that a script makes may be far larger.
pub const MAX_FRAME: u64 = 16 << 20;

/// The largest header block. FreeSWITCH's own have a few lines; without a limit garbage would be collected for ever.
const MAX_HEADER: usize = 64 << 10;

const NOTICE: &[u8] = b"Content-Type: text/disconnect-notice";

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
        header(&self.header, name)
    }
}

/// What the framer found next.
#[derive(Clone, Debug)]
pub enum Framed {
    /// A whole frame.
    Frame(Frame),
    /// A frame over [`MAX_FRAME`]: its body is being passed over.
    TooLarge {
        /// What kind of frame it was.
        kind: Kind,
        /// Its `Content-Length`.
        length: u64,
    },
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
    /// A `Content-Length` that is no number.
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
}

#[derive(Debug)]
struct Opened {
    kind: Kind,
    header: Bytes,
    offset: u64,
    length: usize,
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
            self.take(passed);
            self.skip -= passed as u64;
            if self.skip > 0 {
                return Ok(None);
            }
        }
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => match self.next_header()? {
                Some(Header::Opened(opened)) => opened,
                Some(Header::TooLarge { kind, length }) => {
                    self.skip = length;
                    return Ok(Some(Framed::TooLarge { kind, length }));
                }
                None => return Ok(None),
            },
        };
        if self.bytes.len() < opened.length {
            self.opened = Some(opened);
            return Ok(None);
        }
        let body = self.take(opened.length);
        Ok(Some(Framed::Frame(Frame {
            kind: opened.kind,
            header: opened.header,
            offset: opened.offset,
            body,
        })))
    }

    fn next_header(&mut self) -> Result<Option<Header>, FrameError> {
        // Nothing separates frames; stray newlines between them are tolerated.
        if self.searched == 0 {
            let newlines = self.bytes.iter().take_while(|byte| **byte == b'\n').count();
            self.take(newlines);
        }
        let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
        let found = memmem::find(unsearched, b"\n\n");
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
        let block = self.take(end);
        self.take(1);
        let Some(content_type) = header(&block, "Content-Type") else {
            return Err(FrameError::NoContentType(excerpt(&block)));
        };
        let kind = kind(content_type);
        let length = match header(&block, "Content-Length") {
            None => 0,
            Some(text) => text
                .trim()
                .parse()
                .map_err(|_| FrameError::BadLength(excerpt(text.as_bytes())))?,
        };
        if length > MAX_FRAME {
            return Ok(Some(Header::TooLarge { kind, length }));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok(Some(Header::Opened(Opened {
            kind,
            header: block,
            offset,
            length,
        })))
    }

    fn take(&mut self, bytes: usize) -> Bytes {
        self.passed += bytes as u64;
        self.bytes.split_to(bytes).freeze()
    }

    /// How the stream stands now that the connection has ended.
    pub fn ending(&self) -> Ending {
        if self.opened.is_none() && self.skip == 0 && self.bytes.iter().all(|byte| *byte == b'\n') {
            return Ending::Whole;
        }
        if let Some(at) = memmem::rfind(&self.bytes, NOTICE) {
            let notice = self.bytes.get(at..).unwrap_or_default();
            let text = memmem::find(notice, b"\n\n")
                .and_then(|end| notice.get(end + 2..))
                .unwrap_or_default();
            return Ending::Notice(String::from_utf8_lossy(text).trim_end().to_owned());
        }
        Ending::Cut
    }
}

enum Header {
    Opened(Opened),
    TooLarge { kind: Kind, length: u64 },
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

fn header<'a>(block: &'a [u8], name: &str) -> Option<&'a str> {
    block.split(|byte| *byte == b'\n').find_map(|line| {
        let rest = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
        std::str::from_utf8(rest).ok().map(str::trim_start)
    })
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..80).unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, proptest};

    use super::{Ending, FrameError, Framed, Framer, Kind, MAX_FRAME, MAX_HEADER};

    fn frames(framer: &mut Framer) -> Result<Vec<(Kind, Vec<u8>)>, FrameError> {
        let mut found = Vec::new();
        while let Some(framed) = framer.next_frame()? {
            match framed {
                Framed::Frame(frame) => found.push((frame.kind, frame.body.to_vec())),
                Framed::TooLarge { kind, length } => {
                    found.push((kind, length.to_string().into_bytes()));
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
        let found = frames(&mut framer).unwrap();
        assert_eq!(found, [(Kind::EventPlain, length.to_string().into_bytes())]);
        let mut left = usize::try_from(length).unwrap();
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
    fn a_notice_inside_a_cut_frame_is_read_as_the_ending() {
        let mut framer = Framer::default();
        framer.buffer().put_slice(
            b"Content-Length: 900\nContent-Type: text/event-plain\n\nEvent-Name: CUSTOM\nEContent-Type: \
              text/disconnect-notice\nContent-Length: 39\n\nkilled listener because of lost events\n",
        );
        assert!(frames(&mut framer).unwrap().is_empty());
        assert_eq!(
            framer.ending(),
            Ending::Notice("killed listener because of lost events".to_owned())
        );
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
            let mut block = b"Content-Type: api/response\nX: ".to_vec();
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
