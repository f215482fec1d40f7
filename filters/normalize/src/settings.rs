//! The settings file, checked; see `normalize.toml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Normalize;
use crate::vocabulary::{Named, vocabulary};

/// The settings file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    header: String,
    subject: String,
    names: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header: "X-Event".into(),
            subject: "X-Subject".into(),
            names: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// The filter, or what is wrong with the settings.
    pub(crate) fn checked(self) -> Result<Normalize, String> {
        let Self {
            header,
            subject,
            names,
        } = self;
        if header.is_empty() || header == "Event-Name" {
            return Err(format!(
                "`header` is `{header}`: any name is allowed but `Event-Name`, which stays as FreeSWITCH gave it"
            ));
        }
        if subject == header || subject == "Event-Name" {
            return Err(format!(
                "`subject` is `{subject}`: allowed is a name that is neither `header` nor `Event-Name`, or none"
            ));
        }
        let mut vocabulary = vocabulary();
        for (event, name) in names {
            if event.is_empty() || event.contains('*') {
                return Err(format!(
                    "names `{event}`: the whole name of an event is allowed, or `CUSTOM` and a subclass"
                ));
            }
            if name.is_empty() {
                return Err(format!("names `{event}`: the name is empty"));
            }
            match vocabulary.iter_mut().find(|named| named.wanted() == event) {
                Some(named) => named.name = name,
                None => vocabulary.push(Named::more(&event, &name)),
            }
        }
        Ok(Normalize {
            header,
            subject,
            vocabulary,
        })
    }
}
