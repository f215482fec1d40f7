//! The settings file, checked; see `enrich.toml`.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::{Enrich, Entry};

/// A longer one would be looked up in pieces for too long.
const PREFIX_MAX: usize = 128;

/// The settings file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    header: String,
    #[serde(rename = "match")]
    matching: Matching,
    events: Vec<String>,
    table: BTreeMap<String, BTreeMap<String, String>>,
    default: BTreeMap<String, String>,
}

/// What of a value has to equal a key.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Matching {
    #[default]
    Exact,
    Prefix,
}

impl Settings {
    /// The filter, or what is wrong with the settings.
    pub(crate) fn checked(self) -> Result<Enrich, String> {
        if self.header.is_empty() {
            return Err("`header` is missing or empty: name the header to look up".into());
        }
        if self.table.is_empty() {
            return Err("the table is empty: give at least one `[table.\"KEY\"]`".into());
        }
        let mut table = HashMap::new();
        for (key, headers) in self.table {
            let entry = entry(headers).map_err(|error| format!("table `{key}`: {error}"))?;
            if entry.is_empty() {
                return Err(format!("table `{key}`: it sets no header"));
            }
            table.insert(key, entry);
        }
        let prefix = match self.matching {
            Matching::Exact => None,
            Matching::Prefix => {
                let wrong = |key: &&String| key.is_empty() || key.len() > PREFIX_MAX;
                if let Some(key) = table.keys().find(wrong) {
                    return Err(format!(
                        "table `{key}`: a prefix has 1 to {PREFIX_MAX} bytes; `[default]` is for what has no other"
                    ));
                }
                table.keys().map(String::len).max()
            }
        };
        Ok(Enrich {
            header: self.header,
            events: self.events,
            table,
            default: entry(self.default).map_err(|error| format!("default: {error}"))?,
            prefix,
        })
    }
}

fn entry(headers: BTreeMap<String, String>) -> Result<Entry, String> {
    for name in headers.keys() {
        if name.is_empty() {
            return Err("a header's name is empty".into());
        }
        if name == "Event-Name" {
            return Err("`Event-Name` stays as it is: routes and filters need it".into());
        }
    }
    Ok(headers.into_iter().collect())
}
