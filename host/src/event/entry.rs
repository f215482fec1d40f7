//! Writes an event as it goes to Redis: one JSON object of all headers, or a field for each header.
//!
//! Names are unique in both (the last occurrence stands), the body is under `_body`, arrays stay arrays in JSON.

use bytes::Bytes;

use super::Event;
use super::index::{BODY, Encoding, Header};
use super::text;

impl Event {
    /// Appends the event as one JSON object.
    pub fn write_json(&self, to: &mut Vec<u8>) {
        if !self.rewrite {
            to.extend_from_slice(&self.bytes);
            return;
        }
        to.reserve(self.bytes.len() + self.edited.len() + 64);
        to.push(b'{');
        let start = to.len();
        let mut headers = self.headers.iter().filter(|header| header.live).peekable();
        while let Some(header) = headers.next() {
            if to.len() > start {
                to.push(b',');
            }
            if !is_copied(header) {
                self.write_header(header, to);
                continue;
            }
            // What stands together in the frame is copied together: an edited event is a few pieces of it.
            let mut last = header;
            while let Some(next) = headers.next_if(|next| is_copied(next) && next.follows(last)) {
                last = next;
            }
            let piece = header.name.start.saturating_sub(1)..last.value.end + 1;
            to.extend_from_slice(self.raw(&piece));
        }
        to.push(b'}');
    }

    fn write_header(&self, header: &Header, to: &mut Vec<u8>) {
        match header.name_encoding {
            Encoding::Json => {
                to.push(b'"');
                to.extend_from_slice(self.raw(&header.name));
                to.push(b'"');
            }
            _ => text::write_string(&self.name_of(header), to),
        }
        to.push(b':');
        match header.encoding {
            Encoding::Json => {
                to.push(b'"');
                to.extend_from_slice(self.raw(&header.value));
                to.push(b'"');
            }
            Encoding::JsonArray => text::write_array(text::elements(self.raw(&header.value)), to),
            Encoding::JsonEscaped | Encoding::PlainBody => {
                text::write_string(&self.value(header), to);
            }
            // A body is no header: it may begin like an array and is none.
            _ if self.is_named(header, BODY) => text::write_string(&self.value(header), to),
            Encoding::Plain | Encoding::PlainEncoded | Encoding::Edited => {
                text::write_value(&self.value(header), to);
            }
        }
    }

    /// The event as one Redis field for each header, arrays in FreeSWITCH's notation, the body last as on the wire.
    pub fn fields(&self) -> Vec<(Bytes, Bytes)> {
        let owned = |text: std::borrow::Cow<'_, str>| Bytes::copy_from_slice(text.as_bytes());
        let live = self.headers.iter().filter(|header| header.live);
        live.map(|header| (owned(self.name_of(header)), owned(self.value(header))))
            .collect()
    }
}

/// Whether it stands in the frame as it is to be written, quotes included.
fn is_copied(header: &Header) -> bool {
    let is_plain = header.encoding == Encoding::Json && header.name_encoding == Encoding::Json;
    // With space about the colon it is longer.
    is_plain && header.name.end + 3 == header.value.start
}

impl Header {
    /// Whether only a comma stands between the two in the frame.
    fn follows(&self, other: &Header) -> bool {
        self.name.start == other.value.end + 3
    }
}
