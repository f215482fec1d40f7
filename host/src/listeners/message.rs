//! What listeners are given, as server-sent events: an `id` from which to go on, a kind, and a JSON object on one line.

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use crate::journal::Lsn;
use crate::pipeline::Told;

/// Why a listener is given no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It has as many events as it asked for.
    Limit,
    /// It listened for as long as it asked for.
    Timeout,
    /// The host stops.
    Stopping,
    /// Its connection took nothing for a while; nothing can be told it.
    Stalled,
    /// It went away.
    Gone,
}

impl End {
    pub(super) fn label(self) -> &'static str {
        match self {
            End::Limit => "limit",
            End::Timeout => "timeout",
            End::Stopping => "stopping",
            End::Stalled => "stalled",
            End::Gone => "gone",
        }
    }
}

/// An input and what became of it. `None`: it cannot be worded, which nothing in it can cause.
pub(super) fn event(told: &Told) -> Option<Bytes> {
    message(Some(told.lsn), "event", told).ok()
}

/// What was between these two numbers, both included, is not told. Without an end: what comes may not be.
pub(super) fn gap(from: Lsn, to: Option<Lsn>, why: &str) -> Option<Bytes> {
    message(to, "gap", &json!({ "from": from, "to": to, "why": why })).ok()
}

/// The last one.
pub(super) fn end(at: Lsn, why: End) -> Option<Bytes> {
    message(Some(at), "end", &json!({ "why": why.label() })).ok()
}

/// No event, but the place from which to go on, so that whoever waits for rare events need not go over all others again.
pub(super) fn place(at: Lsn) -> Bytes {
    Bytes::from(format!(": waiting\nid: {at}\n\n"))
}

fn message(id: Option<Lsn>, kind: &str, data: &impl Serialize) -> serde_json::Result<Bytes> {
    let mut text = id.map_or(String::new(), |id| format!("id: {id}\n"));
    text.push_str("event: ");
    text.push_str(kind);
    text.push_str("\ndata: ");
    let mut text = text.into_bytes();
    serde_json::to_writer(&mut text, data)?;
    text.extend_from_slice(b"\n\n");
    Ok(Bytes::from(text))
}
