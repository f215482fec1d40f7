//! Sets headers by looking up one of them in a table: a number's prefix gives the country, a gateway's name the carrier.
//!
//! The lesson: a table in the settings, which teams change without building anything. The file may be replaced at any time, and
//! the new table is live within two seconds.

mod settings;

use std::collections::HashMap;

use jackfield_sdk::{Event, Filter, Manifest, Verdict, count};

use settings::Settings;

/// The filter.
pub struct Enrich {
    header: String,
    events: Vec<String>,
    table: HashMap<String, Entry>,
    default: Entry,
    /// The length in bytes of the longest key, where a key is the beginning of a value.
    prefix: Option<usize>,
}

/// Headers and values.
type Entry = Vec<(String, String)>;

impl Filter for Enrich {
    type Settings = Settings;

    fn new(settings: Settings, _saved: Option<Vec<u8>>) -> Result<Self, String> {
        settings.checked()
    }

    fn manifest(&self) -> Manifest {
        Manifest::new().events(&self.events).headers([&self.header])
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let Some(value) = event.declared(0) else {
            return Verdict::Pass;
        };
        let entry = self.entry(value).unwrap_or_else(|| {
            count("not_found", 1);
            &self.default
        });
        for (name, value) in entry {
            event.set(name, value);
        }
        Verdict::Pass
    }
}

impl Enrich {
    fn entry(&self, value: &str) -> Option<&Entry> {
        let Some(longest) = self.prefix else {
            return self.table.get(value);
        };
        // The longest key that the value begins with.
        let lengths = (1..=longest.min(value.len())).rev();
        let mut beginnings = lengths.filter_map(|length| value.get(..length));
        beginnings.find_map(|beginning| self.table.get(beginning))
    }
}

jackfield_sdk::export!(Enrich);

#[cfg(test)]
mod tests;
