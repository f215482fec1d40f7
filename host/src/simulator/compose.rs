//! Events that are put together at run time: those of commands, heartbeats, and those that a test fires.
//!
//! Also the one view of an event that delivery needs, whether it is composed or comes from the script.

use std::borrow::Cow;

use super::calls::{Now, Scripted};
use super::encode::{self, Format, Frame};
use super::event::{Event, Value};
use super::names::Mask;
use super::switch::{HOSTNAME, IPV4, IPV6};

/// An event that is not from the script, with its headers around the core headers.
#[derive(Debug, Default)]
pub(super) struct Composed {
    pub(super) name: String,
    pub(super) before: Vec<(Vec<u8>, Value)>,
    pub(super) after: Vec<(Vec<u8>, Value)>,
    /// File, function and line of the code that fires it.
    pub(super) caller: [String; 3],
    pub(super) body: Vec<u8>,
}

/// An event that is ready for delivery.
pub(super) enum Source<'a> {
    Scripted(Scripted<'a>),
    Composed(&'a [(Vec<u8>, Value)], &'a [u8]),
}

impl Composed {
    /// All headers in order, and the body.
    pub(super) fn complete(self, mask: Mask, now: Now<'_>) -> (Vec<(Vec<u8>, Value)>, Vec<u8>) {
        let name = if mask == Mask::CUSTOM {
            "CUSTOM"
        } else {
            &self.name
        };
        let [file, function, line] = &self.caller;
        let core: [(&str, &str); 13] = [
            ("Event-Name", name),
            ("Core-UUID", now.core_uuid),
            ("FreeSWITCH-Hostname", HOSTNAME),
            ("FreeSWITCH-Switchname", now.switchname),
            ("FreeSWITCH-IPv4", IPV4),
            ("FreeSWITCH-IPv6", IPV6),
            ("Event-Date-Local", &now.stamp.local),
            ("Event-Date-GMT", &now.stamp.gmt),
            ("Event-Date-Timestamp", &now.stamp.micros.to_string()),
            ("Event-Calling-File", file),
            ("Event-Calling-Function", function),
            ("Event-Calling-Line-Number", line),
            ("Event-Sequence", &now.sequence.to_string()),
        ];
        let mut headers = self.before;
        headers.extend(core.map(|(name, value)| (name.as_bytes().to_vec(), Value::from(value))));
        headers.extend(self.after);
        (headers, self.body)
    }
}

impl Source<'_> {
    /// The first value of a header.
    pub(super) fn first(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Source::Scripted(event) => event.first(name),
            Source::Composed(headers, _) => {
                let header = headers
                    .iter()
                    .find(|(other, _)| other.eq_ignore_ascii_case(name));
                header.map(|(_, value)| Cow::Owned(value.held()))
            }
        }
    }

    /// The event as it goes out in one format.
    pub(super) fn frame(&self, format: Format) -> Frame {
        match self {
            Source::Scripted(event) => {
                let mut body = Vec::with_capacity(8 * 1024);
                event.render(format, &mut body);
                Frame::event(format, &body)
            }
            Source::Composed(headers, body) => {
                Frame::event(format, &encode::event(format, headers, body))
            }
        }
    }
}

impl From<Event> for Composed {
    fn from(event: Event) -> Composed {
        let job = event.name == "BACKGROUND_JOB";
        let mut composed = Composed {
            caller: if job {
                ["mod_event_socket.c", "api_exec", "1580"].map(str::to_owned)
            } else {
                ["switch_event.c", "simulated", "1"].map(str::to_owned)
            },
            body: event.body.unwrap_or_default(),
            ..Composed::default()
        };
        let [file, function, line] = &mut composed.caller;
        for (name, value) in event.headers {
            let place = match name.as_slice() {
                b"Event-Calling-File" => &mut *file,
                b"Event-Calling-Function" => &mut *function,
                b"Event-Calling-Line-Number" => &mut *line,
                b"Event-Subclass" if event.name == "CUSTOM" => {
                    composed.before.push((name, value));
                    continue;
                }
                _ => {
                    composed.after.push((name, value));
                    continue;
                }
            };
            *place = String::from_utf8_lossy(&value.held()).into_owned();
        }
        composed.name = event.name;
        composed
    }
}
