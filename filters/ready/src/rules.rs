//! What an event means: of which ids it speaks, and whether it starts or ends a call, declares needs, or meets one.

use std::time::Duration;

use jackfield_sdk::{Event, count};

/// Longer ones are no ids.
const MAX_ID_BYTES: usize = 128;
/// A need's name is a part of a header's name.
const MAX_NAME_BYTES: usize = 64;

/// The settings, checked, with headers by their place in the manifest.
pub(crate) struct Rules {
    pub(crate) events: Vec<String>,
    /// `Event-Name`, `Event-Subclass`, the ids, then those that needs and declarations read.
    pub(crate) headers: Vec<String>,
    pub(crate) ids: Vec<usize>,
    pub(crate) start: Vec<Kind>,
    pub(crate) end: Vec<Kind>,
    pub(crate) declare: Option<(Kind, usize)>,
    pub(crate) needs: Vec<Need>,
    pub(crate) timeout: Duration,
    pub(crate) forget: Duration,
    pub(crate) max_calls: usize,
}

/// `CHANNEL_ANSWER`, or `CUSTOM` and a subclass.
pub(crate) struct Kind {
    pub(crate) name: String,
    pub(crate) subclass: Option<String>,
}

/// What meets a need.
pub(crate) struct Need {
    pub(crate) kind: Kind,
    pub(crate) condition: Option<(usize, String)>,
    pub(crate) name: Name,
}

pub(crate) enum Name {
    /// With whether every call has this need.
    Is(String, bool),
    /// The value of this header.
    In(usize),
}

/// What an event says.
pub(crate) struct Meaning<'a> {
    /// The first is that of the leg whose event it is.
    pub(crate) ids: Vec<&'a str>,
    pub(crate) starts: bool,
    pub(crate) ends: bool,
    pub(crate) declared: Option<Vec<&'a str>>,
    pub(crate) seen: Vec<&'a str>,
}

impl Rules {
    pub(crate) fn meaning<'a>(&'a self, event: &'a Event) -> Meaning<'a> {
        let name = event.declared(0).unwrap_or_default();
        let subclass = event.declared(1);
        let is = |kind: &Kind| {
            kind.name == name && (kind.subclass.is_none() || kind.subclass.as_deref() == subclass)
        };
        let mut ids = Vec::with_capacity(self.ids.len());
        for id in self.ids.iter().filter_map(|place| event.declared(*place)) {
            if id.len() > MAX_ID_BYTES {
                count("ids_over", 1);
            } else if !id.is_empty() && !ids.contains(&id) {
                ids.push(id);
            }
        }
        let declared = self.declare.as_ref().filter(|(kind, _)| is(kind));
        let declared = declared.and_then(|(_, place)| event.declared(*place));
        let met = self.needs.iter().filter(|need| {
            let condition = need.condition.as_ref();
            is(&need.kind)
                && condition.is_none_or(|(place, value)| event.declared(*place) == Some(value))
        });
        let names = met.filter_map(|need| match &need.name {
            Name::Is(name, _) => Some(name.as_str()),
            Name::In(place) => event.declared(*place).map(str::trim).filter(named),
        });
        Meaning {
            ids,
            starts: self.start.iter().any(is),
            ends: self.end.iter().any(is),
            declared: declared.map(|names| names.split(',').map(str::trim).filter(named).collect()),
            seen: names.collect(),
        }
    }

    /// The header in which a call's first id is told.
    pub(crate) fn id_header(&self) -> &str {
        let header = self.ids.first().and_then(|place| self.headers.get(*place));
        header.map_or("Unique-ID", String::as_str)
    }

    /// The needs of every call, each once.
    pub(crate) fn always(&self) -> impl Iterator<Item = &str> {
        let names = self.needs.iter().map(|need| match &need.name {
            Name::Is(name, true) => Some(name.as_str()),
            Name::Is(_, false) | Name::In(_) => None,
        });
        let mut told: Vec<&str> = Vec::new();
        names.flatten().filter(move |name| {
            let new = !told.contains(name);
            told.push(name);
            new
        })
    }

    /// Whether calls have needs without a declaration.
    pub(crate) fn has_needs(&self) -> bool {
        self.always().next().is_some()
    }
}

fn named(name: &&str) -> bool {
    let is = is_name(name);
    if !is && !name.is_empty() {
        count("names_refused", 1);
    }
    is
}

/// Whether this can be the name of a need.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}
