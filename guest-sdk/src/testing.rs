//! Unit tests of a filter, natively: build an event, run the filter on it, look at what came of it.
//!
//! ```
//! use jackfield_sdk::testing::{event, filter};
//! # use jackfield_sdk::{Event, Filter, Manifest, NoSettings, Verdict};
//! # struct Greeter;
//! # impl Filter for Greeter {
//! #     type Settings = NoSettings;
//! #     fn new(_: NoSettings, _: Option<Vec<u8>>) -> Result<Self, String> { Ok(Self) }
//! #     fn manifest(&self) -> Manifest { Manifest::new() }
//! #     fn handle(&mut self, event: &mut Event) -> Verdict { event.set("X-Greeting", "hello"); Verdict::Pass }
//! # }
//!
//! let mut greeter: Greeter = filter("").unwrap();
//! let after = event("CHANNEL_ANSWER").header("Unique-ID", "1").run(&mut greeter);
//! assert_eq!(after.verdict, Verdict::Pass);
//! assert_eq!(after.get("X-Greeting"), Some("hello"));
//! ```

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::bindings::jackfield::filter::types::Edit;
use crate::event::{keeps, removes};
use crate::running::read;
use crate::stand_in::{self, Host};
use crate::{Derived, Event, Filter, Header, Level, Manifest, Verdict};

/// A filter with these settings: the text of a settings file, as beside the component. The error is what the host would log.
///
/// A table `[jackfield]` is the host's, and is left out as the host does.
///
/// # Errors
/// The text is no TOML, does not fit the filter's settings, or the filter refuses it.
pub fn filter<F: Filter>(settings: &str) -> Result<F, String> {
    F::new(settings_of::<F>(settings)?, None)
}

/// A filter that takes over from `old`, as on a reload: it gets what `old` saves.
///
/// # Errors
/// As for [`filter`], or the filter refuses the state.
pub fn reload<F: Filter>(old: &impl Filter, settings: &str) -> Result<F, String> {
    let saved = old.save();
    F::new(
        settings_of::<F>(settings)?,
        (!saved.is_empty()).then_some(saved),
    )
}

fn settings_of<F: Filter>(text: &str) -> Result<F::Settings, String> {
    let mut table: Map<String, Value> =
        toml::from_str(text).map_err(|error| format!("settings are no TOML: {error}"))?;
    table.remove("jackfield");
    read(Value::Object(table))
}

/// An event of this name. Give it headers and a body, then [`run`](Incoming::run) a filter on it.
#[must_use]
pub fn event(name: &str) -> Incoming {
    Incoming {
        now: 0,
        headers: Vec::new(),
        body: None,
    }
    .header("Event-Name", name)
}

/// An event that no filter has seen yet.
#[derive(Debug, Clone)]
pub struct Incoming {
    now: u64,
    headers: Vec<Header>,
    body: Option<String>,
}

impl Incoming {
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

    /// Give it a time, in microseconds since 1970; otherwise 0.
    #[must_use]
    pub fn at(mut self, now: u64) -> Self {
        self.now = now;
        self
    }

    /// Run the filter on it as the host would. An event that the filter's manifest does not ask for passes unseen.
    pub fn run<F: Filter>(self, filter: &mut F) -> Handled {
        let Self {
            now,
            mut headers,
            mut body,
        } = self;
        let manifest = filter.manifest();
        if !subscribed(&manifest, &headers) {
            let (edits, derived) = (Vec::new(), Vec::new());
            let (logs, counts) = (Vec::new(), BTreeMap::new());
            return Handled {
                verdict: Verdict::Pass,
                edits,
                derived,
                logs,
                counts,
                headers,
                body,
            };
        }

        let values = manifest
            .headers
            .iter()
            .map(|name| last(&headers, name).map(str::to_owned))
            .collect();
        stand_in::replace(Host {
            headers: headers.clone(),
            body: body.clone(),
            ..Host::default()
        });
        let mut event = Event::new(now, manifest.headers.into(), values);
        let verdict = filter.handle(&mut event);
        let decision = event.decide(verdict);
        let Host { logs, counts, .. } = stand_in::replace(Host::default());

        for edit in &decision.edits {
            apply(edit, &mut headers, &mut body);
        }
        Handled {
            verdict: decision.verdict,
            edits: decision.edits,
            derived: decision.emit,
            logs,
            counts,
            headers,
            body,
        }
    }
}

/// What came of an event.
#[derive(Debug, Clone)]
pub struct Handled {
    /// The filter's verdict.
    pub verdict: Verdict,
    /// Its edits, in order.
    pub edits: Vec<Edit>,
    /// The events that it made.
    pub derived: Vec<Derived>,
    /// What it logged in this call.
    pub logs: Vec<(Level, String)>,
    /// What it counted in this call.
    pub counts: BTreeMap<String, u64>,
    headers: Vec<Header>,
    body: Option<String>,
}

impl Handled {
    /// A header of the event after the edits.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        last(&self.headers, name)
    }

    /// Every header of the event after the edits.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers
            .iter()
            .map(|header| (header.name.as_str(), header.value.as_str()))
    }

    /// The body of the event after the edits.
    #[must_use]
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }
}

fn subscribed(manifest: &Manifest, headers: &[Header]) -> bool {
    let name = last(headers, "Event-Name").unwrap_or_default();
    let subclass = last(headers, "Event-Subclass").unwrap_or_default();
    let wanted = |event: &String| event == name || event.strip_prefix("CUSTOM ") == Some(subclass);
    manifest.events.is_empty() || manifest.events.iter().any(wanted)
}

fn last<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .rev()
        .find(|header| header.name == name)
        .map(|header| header.value.as_str())
}

/// As the host does it: `set` replaces the first occurrence and removes the others.
fn apply(edit: &Edit, headers: &mut Vec<Header>, body: &mut Option<String>) {
    match edit {
        Edit::Set(new) => {
            let place = headers
                .iter()
                .position(|header| header.name == new.name)
                .unwrap_or(headers.len());
            headers.retain(|header| header.name != new.name);
            headers.insert(place, new.clone());
        }
        Edit::Remove(pattern) => headers.retain(|header| !removes(pattern, &header.name)),
        Edit::Keep(patterns) => headers.retain(|header| keeps(patterns, &header.name)),
        Edit::Body(new) => *body = Some(new.clone()),
    }
}
