//! Constructors for what a filter says: its manifest, a verdict, a derived event. The types are the contract's own.

use std::time::Duration;

use crate::{Derived, Header, Manifest, Verdict};

impl Manifest {
    /// A filter that sees every event and no header. Its name and version are those of its crate.
    #[must_use]
    pub fn new() -> Self {
        Self {
            name: String::new(),
            version: String::new(),
            events: Vec::new(),
            headers: Vec::new(),
            tick_interval: 0,
        }
    }

    /// Handle these events alone: `Event-Name`s, or `CUSTOM sofia::register` for one subclass. An empty list: every event.
    #[must_use]
    pub fn events(mut self, events: impl IntoIterator<Item: Into<String>>) -> Self {
        self.events = strings(events);
        self
    }

    /// Receive these headers with each event. They are the cheap ones to read; others cost a call to the host.
    #[must_use]
    pub fn headers(mut self, headers: impl IntoIterator<Item: Into<String>>) -> Self {
        self.headers = strings(headers);
        self
    }

    /// Call [`Filter::tick`](crate::Filter::tick) this often, in whole milliseconds; zero: never.
    #[must_use]
    pub fn tick(mut self, every: Duration) -> Self {
        let millis = every.as_nanos().div_ceil(1_000_000);
        self.tick_interval = u32::try_from(millis).unwrap_or(u32::MAX);
        self
    }
}

impl Default for Manifest {
    fn default() -> Self {
        Self::new()
    }
}

impl Verdict {
    /// Write the event nowhere. The reason becomes a metric label: use a few fixed words.
    #[must_use]
    pub fn drop(reason: impl Into<String>) -> Self {
        Self::Drop(reason.into())
    }

    /// Keep the event in the dead-letter stream with this reason, and write it nowhere else.
    #[must_use]
    pub fn dead_letter(reason: impl Into<String>) -> Self {
        Self::DeadLetter(reason.into())
    }

    /// Write the event to these streams, at least one, instead of what the routes say.
    #[must_use]
    pub fn route(streams: impl IntoIterator<Item: Into<String>>) -> Self {
        Self::Route(strings(streams))
    }
}

impl Derived {
    /// An event with this `Event-Name`, no headers and no body, which goes where the routes say.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            headers: Vec::new(),
            body: None,
            streams: Vec::new(),
        }
    }

    /// Add a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push(Header {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Give it a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<String>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Write it to this stream instead of what the routes say; once for each stream.
    #[must_use]
    pub fn stream(mut self, stream: impl Into<String>) -> Self {
        self.streams.push(stream.into());
        self
    }

    /// The value of a header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|header| header.name == name)
            .map(|header| header.value.as_str())
    }
}

fn strings(items: impl IntoIterator<Item: Into<String>>) -> Vec<String> {
    items.into_iter().map(Into::into).collect()
}
