//! What a filter did to an event, in the form in which it is journaled: enough to make the same event of the same frame again,
//! without the filter.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::decision::covers;
use super::guest::bindings::jackfield::filter::types;
use crate::event::{Event, JACKFIELD, Own};

/// No pattern takes it away: routes and filters need it.
const EVENT_NAME: &str = "Event-Name";

/// One filter's part in what became of an event. Each filter that was called leaves one; a filter that did not subscribe to the
/// event leaves none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The filter's file.
    pub by: Arc<str>,
    /// The version that was called.
    pub version: Arc<str>,
    /// The first [`SHORT_DIGEST`] digits of its component's digest.
    pub digest: Arc<str>,
    /// How long the call took, in nanoseconds.
    pub took_ns: u32,
    /// Its verdict, or what its `on_error` made of a failed call.
    pub verdict: Verdict,
    /// Its changes, in order.
    pub edits: Vec<Edit>,
    /// How its call failed, if it did.
    pub failure: Option<String>,
}

/// As many digits of a digest as tell versions apart.
pub(super) const SHORT_DIGEST: usize = 12;

impl Step {
    /// Whether the event went on as it had come.
    pub fn is_silent(&self) -> bool {
        self.verdict == Verdict::Pass && self.edits.is_empty() && self.failure.is_none()
    }
}

/// What a filter wants to become of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The next filter decides, and after the last one the routes.
    Pass,
    /// To these streams, each once, whatever the routes say.
    Route(Vec<Arc<str>>),
    /// Nowhere, for this reason.
    Drop(String),
    /// To the dead letters, for this reason.
    DeadLetter(String),
}

impl Verdict {
    pub(super) fn label(&self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Route(_) => "route",
            Verdict::Drop(_) => "drop",
            Verdict::DeadLetter(_) => "dead_letter",
        }
    }

    /// Each stream once, in the filter's order: an event is not to be written twice to one stream.
    pub(super) fn route(streams: Vec<String>) -> Verdict {
        let mut unique: Vec<Arc<str>> = Vec::with_capacity(streams.len());
        for stream in streams {
            if !unique.iter().any(|known| **known == *stream) {
                unique.push(stream.into());
            }
        }
        Verdict::Route(unique)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Pass => f.write_str("pass"),
            Verdict::Route(streams) => write!(f, "route to {}", streams.join(", ")),
            Verdict::Drop(reason) => write!(f, "drop ({reason})"),
            Verdict::DeadLetter(reason) => write!(f, "dead-letter ({reason})"),
        }
    }
}

impl From<types::Verdict> for Verdict {
    fn from(verdict: types::Verdict) -> Verdict {
        match verdict {
            types::Verdict::Pass => Verdict::Pass,
            types::Verdict::Drop(reason) => Verdict::Drop(reason),
            types::Verdict::DeadLetter(reason) => Verdict::DeadLetter(reason),
            types::Verdict::Route(streams) => Verdict::route(streams),
        }
    }
}

/// One change to an event, as the contract has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// Adds a header, or replaces every occurrence of that name.
    Set {
        /// The header.
        name: String,
        /// Its new value.
        value: String,
    },
    /// Removes the header of that name, or all that a pattern with a trailing `*` covers.
    Remove(String),
    /// Removes every header that none of these covers.
    Keep(Vec<String>),
    /// Replaces the body.
    Body(String),
}

impl Edit {
    /// Makes the change.
    pub fn apply(&self, event: &mut Event) {
        match self {
            Edit::Set { name, value } => event.set(name, value),
            Edit::Remove(pattern) if pattern.ends_with('*') => {
                event.retain(|name| name == EVENT_NAME || !covers(pattern, name));
            }
            Edit::Remove(name) => event.remove(name),
            Edit::Keep(patterns) => {
                event.retain(|name| {
                    name == EVENT_NAME || patterns.iter().any(|pattern| covers(pattern, name))
                });
            }
            Edit::Body(body) => event.set_body(body),
        }
    }
}

impl From<types::Edit> for Edit {
    fn from(edit: types::Edit) -> Edit {
        match edit {
            types::Edit::Set(types::Header { name, value }) => Edit::Set { name, value },
            types::Edit::Remove(pattern) => Edit::Remove(pattern),
            types::Edit::Keep(patterns) => Edit::Keep(patterns),
            types::Edit::Body(body) => Edit::Body(body),
        }
    }
}

/// What a filter made an event of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derived {
    /// The file of the filter that made it; empty if the host itself did.
    pub by: Arc<str>,
    /// Its `Event-Name`.
    pub name: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// Its body, if it has one.
    pub body: Option<String>,
}

impl Derived {
    /// What the host makes.
    pub fn own(own: Own) -> Derived {
        Derived {
            by: Arc::from(""),
            name: JACKFIELD.to_owned(),
            headers: own.headers,
            body: None,
        }
    }

    /// What the filter `by` answered, and the streams that it named for it.
    pub(super) fn made(made: types::Derived, by: &Arc<str>) -> (Derived, Vec<Arc<str>>) {
        let headers = made.headers.into_iter();
        let derived = Derived {
            by: Arc::clone(by),
            name: made.name,
            headers: headers.map(|header| (header.name, header.value)).collect(),
            body: made.body,
        };
        let streams = match Verdict::route(made.streams) {
            Verdict::Route(streams) => streams,
            _ => Vec::new(),
        };
        (derived, streams)
    }

    /// The event, before any later filter.
    pub fn event(&self) -> Event {
        Event::derived(&self.name, &self.headers, self.body.as_deref())
    }
}
