//! An event of the script, prepared so that firing it costs little more than copying bytes.
//!
//! For each format, the text between two slots is encoded here, ahead of time. Does not know what the slots hold; see `calls`.

use std::collections::HashSet;

use super::encode::{self, Format};
use super::event::Value;
use super::names::Mask;
use super::slot::{Needs, Piece, Slot, pieces, unescaped};
use super::switch::{HOSTNAME, IPV4, IPV6};

/// An event of the script.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) mask: Mask,
    pub(super) subclass: Option<Vec<u8>>,
    pub(super) headers: Vec<Header>,
    pub(super) body: Vec<Piece>,
    /// Moments that are named here for the first time: the time of this event is theirs.
    pub(super) moments: Vec<usize>,
    /// Which late number this event has, when its own number is a late one.
    pub(super) late: Option<usize>,
    json: Vec<Segment>,
    plain: Vec<Segment>,
}

/// A header with slots in its value; `ARRAY::` text stands for an array, as in FreeSWITCH.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<Piece>,
}

/// Encoded bytes, then a slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Segment {
    pub(super) literal: Box<[u8]>,
    pub(super) slot: Option<Slot>,
}

impl Template {
    /// Reads the lines of an event. `named` are the moments that earlier events of the same call have named.
    pub(super) fn read(
        lines: &[&str],
        needs: &mut Needs,
        named: &mut HashSet<usize>,
    ) -> Option<Template> {
        let mut headers = Vec::new();
        let mut body = Vec::new();
        let mut late = None;
        for line in lines {
            if let Some(text) = line.strip_prefix('|') {
                body = pieces(text)?;
            } else if let Some(core) = line.strip_prefix('*').filter(|_| !line.contains('\t')) {
                let is_late = core.starts_with('~');
                late = is_late.then(|| {
                    needs.late += 1;
                    needs.late - 1
                });
                headers.extend(core_headers(core.trim_start_matches('~'), late)?);
            } else {
                let (name, value) = line.split_once('\t')?;
                let value = match value.strip_prefix("[\t") {
                    Some(elements) => pieces(&format!("ARRAY::{}", elements.replace('\t', "|:")))?,
                    None => pieces(value)?,
                };
                headers.push(Header {
                    name: unescaped(name),
                    value,
                });
            }
        }
        let slots = headers.iter().flat_map(|header| &header.value).chain(&body);
        let mut moments = Vec::new();
        for piece in slots {
            if let Piece::Slot(slot) = piece {
                needs.note(*slot);
                moments.extend(
                    slot.moments()
                        .into_iter()
                        .flatten()
                        .filter(|moment| named.insert(*moment)),
                );
            }
        }
        let subclass = headers
            .iter()
            .find(|header| header.name == b"Event-Subclass");
        // Of several names the last one is the event's own.
        let name = headers
            .iter()
            .rev()
            .find(|header| header.name == b"Event-Name");
        Some(Template {
            mask: Mask::named(std::str::from_utf8(name.and_then(Header::literal)?).ok()?)?,
            subclass: subclass.and_then(Header::literal).map(<[u8]>::to_vec),
            json: segments(Format::Json, &headers),
            plain: segments(Format::Plain, &headers),
            headers,
            body,
            moments,
            late,
        })
    }

    /// The headers in one format, without what closes the event.
    pub(super) fn segments(&self, format: Format) -> &[Segment] {
        match format {
            Format::Plain => &self.plain,
            Format::Json => &self.json,
        }
    }

    /// The first header of that name; FreeSWITCH looks names up without regard to case.
    pub(super) fn first(&self, name: &[u8]) -> Option<&[Piece]> {
        let header = self
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        header.map(|header| header.value.as_slice())
    }
}

impl Header {
    fn literal(&self) -> Option<&[u8]> {
        match self.value.as_slice() {
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }
}

/// The thirteen headers that begin nearly every event; without the first one if its name is `-`.
fn core_headers(core: &str, late: Option<usize>) -> Option<Vec<Header>> {
    let mut words = core.split(' ');
    let (name, file, function, line) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let literal = |text: &str| Piece::Literal(text.as_bytes().to_vec());
    let when = |now, then| Piece::Slot(if late.is_some() { then } else { now });
    let header = |name: &str, piece: Piece| Header {
        name: name.as_bytes().to_vec(),
        value: vec![piece],
    };
    let mut headers = vec![
        header("Event-Name", literal(name)),
        header("Core-UUID", Piece::Slot(Slot::CoreUuid)),
        header("FreeSWITCH-Hostname", literal(HOSTNAME)),
        header("FreeSWITCH-Switchname", Piece::Slot(Slot::Switchname)),
        header("FreeSWITCH-IPv4", literal(IPV4)),
        header("FreeSWITCH-IPv6", literal(IPV6)),
        header("Event-Date-Local", when(Slot::Local, Slot::LateLocal)),
        header("Event-Date-GMT", when(Slot::Gmt, Slot::LateGmt)),
        header("Event-Date-Timestamp", when(Slot::Micros, Slot::LateMicros)),
        header("Event-Calling-File", literal(file)),
        header("Event-Calling-Function", literal(function)),
        header("Event-Calling-Line-Number", literal(line)),
        header(
            "Event-Sequence",
            Piece::Slot(late.map_or(Slot::Sequence, Slot::LateSequence)),
        ),
    ];
    if name == "-" {
        headers.remove(0);
    }
    Some(headers)
}

/// Encodes what is known now. A value with slots is encoded piece by piece, which is exact as no slot touches a `%`.
fn segments(format: Format, headers: &[Header]) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut literal = Vec::new();
    encode::open(format, &mut literal);
    for header in headers {
        if let [Piece::Literal(text)] = header.value.as_slice() {
            encode::header(
                format,
                &mut literal,
                &header.name,
                &Value::Text(text.clone()),
            );
            continue;
        }
        encode::start(format, &mut literal, &header.name);
        let is_json = format == Format::Json;
        let is_array = matches!(header.value.first(), Some(Piece::Literal(text)) if text.starts_with(b"ARRAY::"));
        let (opening, closing) = match (is_json, is_array) {
            (true, true) => ("[\"", "\"]"),
            (true, false) => ("\"", "\""),
            (false, _) => ("", ""),
        };
        literal.extend_from_slice(opening.as_bytes());
        for piece in &header.value {
            match piece {
                Piece::Literal(text) if is_json && is_array => {
                    encode::json_elements(&mut literal, text);
                }
                Piece::Literal(text) if is_json => encode::json_text(&mut literal, text),
                Piece::Literal(text) => encode::plain_text(&mut literal, text),
                Piece::Slot(slot) => segments.push(Segment {
                    literal: std::mem::take(&mut literal).into_boxed_slice(),
                    slot: Some(*slot),
                }),
            }
        }
        literal.extend_from_slice(closing.as_bytes());
        encode::end(format, &mut literal);
    }
    segments.push(Segment {
        literal: literal.into_boxed_slice(),
        slot: None,
    });
    segments
}
