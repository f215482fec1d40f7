//! Gives FreeSWITCH's events the names of one vocabulary: `call.answered` in the header `X-Event`, and in `X-Subject` what it is
//! about: the call's leg, the job, the peer or the trunk. The event stays as it came otherwise.
//!
//! The lesson: add, and replace nothing. A derived event for each would double the traffic, and a consumer would have to put the
//! two together again; a header travels with all the rest, keeps the order, and routes can read it
//! (`when = { "X-Event" = "call.ended" }`).

mod settings;
mod vocabulary;

use jackfield_sdk::{Event, Filter, Manifest, Verdict};

use settings::Settings;
use vocabulary::{Named, Subject};

/// The first two are those that a name is found by.
const HEADERS: [&str; 9] = [
    "Event-Name",
    "Event-Subclass",
    "Unique-ID",
    "Job-UUID",
    "from-user",
    "from-host",
    "Gateway",
    "Caller-Channel-Progress-Time",
    "Caller-Channel-Progress-Media-Time",
];

/// The filter.
pub struct Normalize {
    header: String,
    /// Empty: not set.
    subject: String,
    vocabulary: Vec<Named>,
}

impl Filter for Normalize {
    type Settings = Settings;

    fn new(settings: Settings, _saved: Option<Vec<u8>>) -> Result<Self, String> {
        settings.checked()
    }

    fn manifest(&self) -> Manifest {
        let events = self.vocabulary.iter().map(Named::wanted);
        Manifest::new().events(events).headers(HEADERS)
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let event_name = event.declared(0).unwrap_or_default();
        let subclass = event.declared(1);
        let named = self.vocabulary.iter().find(|named| {
            named.event == event_name
                && (named.subclass.is_none() || named.subclass.as_deref() == subclass)
        });
        let Some(named) = named else {
            return Verdict::Pass;
        };
        if has_rung_before(event, event_name) {
            return Verdict::Pass;
        }
        let subject = subject(event, named.subject);
        event.set(&self.header, &named.name);
        if let Some(subject) = subject.filter(|_| !self.subject.is_empty()) {
            event.set(&self.subject, subject);
        }
        Verdict::Pass
    }
}

/// A leg that rings (180) and then has early media (183), or the other way round, has both events; it rings once.
fn has_rung_before(event: &Event, event_name: &str) -> bool {
    let other = match event_name {
        "CHANNEL_PROGRESS" => "Caller-Channel-Progress-Media-Time",
        "CHANNEL_PROGRESS_MEDIA" => "Caller-Channel-Progress-Time",
        _ => return false,
    };
    event.get(other).is_some_and(|time| time != "0")
}

fn subject(event: &Event, subject: Subject) -> Option<String> {
    match subject {
        Subject::Header(name) => event.get(name).map(str::to_owned),
        Subject::Peer => Some(format!(
            "{}@{}",
            event.get("from-user")?,
            event.get("from-host")?
        )),
    }
}

jackfield_sdk::export!(Normalize);

#[cfg(test)]
mod tests;
