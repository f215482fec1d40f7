//! What FreeSWITCH sent, in its order, read by a second listener that no fault touches and that shares no code with the router.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use crate::captures::stream_of;
use crate::reading;

/// What may belong into a stream.
const NAMES: [&str; 8] = [
    "BACKGROUND_JOB",
    "CHANNEL_ANSWER",
    "CHANNEL_EXECUTE",
    "CHANNEL_EXECUTE_COMPLETE",
    "CHANNEL_HANGUP",
    "CUSTOM",
    "DETECTED_SPEECH",
    "DTMF",
];

/// What tells events apart over all lives of a FreeSWITCH: `Core-UUID` and `Event-Sequence`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) core: Arc<str>,
    pub(crate) sequence: u64,
}

/// An event that belongs into a stream, as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) key: Key,
    pub(crate) name: Arc<str>,
    pub(crate) stream: &'static str,
}

/// The listener.
pub(crate) struct Tap {
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Tap {
    /// Listens from now on, until FreeSWITCH ends.
    pub(crate) fn new(switch: SocketAddr) -> Tap {
        let tap = Tap {
            sent: Arc::default(),
        };
        tap.listen(switch);
        tap
    }

    /// Listens again, to a FreeSWITCH that was started again.
    pub(crate) fn listen(&self, switch: SocketAddr) {
        let mut stream = TcpStream::connect(switch).unwrap();
        let filters = NAMES.map(|name| format!("filter Event-Name {name}\n\n"));
        let commands = format!("auth ClueCon\n\n{}event json ALL\n\n", filters.concat());
        stream.write_all(commands.as_bytes()).unwrap();
        let into = Arc::clone(&self.sent);
        std::thread::spawn(move || listen(stream, &into));
    }

    /// What was sent so far that belongs into a stream.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Option<Key> {
        let sent = self.sent.lock().unwrap();
        sent.last().map(|last| last.key.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.sent.lock().unwrap().len()
    }
}

fn listen(mut stream: TcpStream, sent: &Mutex<Vec<Sent>>) {
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 1 << 18]);
    let mut enough = 0;
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..read]);
        if bytes.len() < enough {
            continue;
        }
        let (frames, rest) = reading::frames(&bytes);
        let events = frames.iter().filter_map(reading::Frame::event);
        let known: Vec<Sent> = events
            .filter_map(|event| {
                let stream = stream_of(&event)?;
                Some(Sent {
                    key: key(&event),
                    name: event["Event-Name"].as_str().unwrap().into(),
                    stream,
                })
            })
            .collect();
        sent.lock().unwrap().extend(known);
        enough = whole(rest);
        bytes = rest.to_vec();
    }
}

/// How many bytes the first frame needs, as far as that is known: the largest are not looked at again for every piece.
fn whole(rest: &[u8]) -> usize {
    let head = String::from_utf8_lossy(&rest[..rest.len().min(200)]);
    let length = head.strip_prefix("Content-Length: ");
    let length = length.and_then(|rest| rest.split_once('\n')?.0.parse().ok());
    length.unwrap_or(0)
}

/// The key of an event; it must have one.
pub(crate) fn key(event: &Map<String, Value>) -> Key {
    let text = |name: &str| {
        event[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name} in {event:?}"))
    };
    Key {
        core: text("Core-UUID").into(),
        sequence: text("Event-Sequence").parse().unwrap(),
    }
}
