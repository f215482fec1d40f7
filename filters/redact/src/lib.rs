//! Hides numbers: masks chosen headers (`********67`), or replaces them by a keyed hash, under which equal numbers stay equal.
//!
//! The lesson: exact names go into the manifest and are cheap; a name that ends in `*` makes the filter read every header of
//! every event, which takes some thirty times as long.
//!
//! It changes the headers that it is told to, and nothing else: FreeSWITCH repeats a caller's number in a dozen headers
//! (`Caller-ANI`, `Channel-Name`, `variable_sip_from_uri`, …), and the body is not looked at.

mod keyed_hash;
mod settings;

use jackfield_sdk::{Event, Filter, Manifest, Verdict};

use keyed_hash::KeyedHash;
use settings::Settings;

/// Routes and filters need it: it always stays as it is.
const EVENT_NAME: &str = "Event-Name";

/// The filter.
pub struct Redact {
    events: Vec<String>,
    /// The manifest's headers, and what happens to each.
    exact: Vec<(String, Method)>,
    prefixes: Vec<(String, Method)>,
    keep: usize,
    hash: KeyedHash,
}

#[derive(Clone, Copy)]
enum Method {
    Mask,
    Hash,
}

impl Filter for Redact {
    type Settings = Settings;

    fn new(settings: Settings, _saved: Option<Vec<u8>>) -> Result<Self, String> {
        settings.checked()
    }

    fn manifest(&self) -> Manifest {
        let headers = self.exact.iter().map(|(name, _)| name);
        Manifest::new().events(&self.events).headers(headers)
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        for (index, (name, method)) in self.exact.iter().enumerate() {
            if let Some(value) = event.declared(index) {
                let redacted = self.redacted(value, *method);
                event.set(name, redacted);
            }
        }
        if !self.prefixes.is_empty() {
            for (name, redacted) in self.matched(event) {
                event.set(name, redacted);
            }
        }
        Verdict::Pass
    }
}

impl Redact {
    /// The headers that a prefix names, redacted. An exact name goes before a prefix.
    fn matched(&self, event: &Event) -> Vec<(String, String)> {
        let method = |name: &str| {
            let taken = name == EVENT_NAME || self.exact.iter().any(|(exact, _)| exact == name);
            let prefix = self
                .prefixes
                .iter()
                .find(|(prefix, _)| !taken && name.starts_with(prefix));
            prefix.map(|(_, method)| *method)
        };
        let redacted = |(name, value): (&str, &str)| {
            Some((name.to_owned(), self.redacted(value, method(name)?)))
        };
        event.headers().filter_map(redacted).collect()
    }

    fn redacted(&self, value: &str, method: Method) -> String {
        match method {
            Method::Mask => mask(value, self.keep),
            Method::Hash => self.hash.hex(value),
        }
    }
}

/// All characters but the last `keep` become `*`. A value that is no longer than that becomes `*` alone: it would show whole.
fn mask(value: &str, keep: usize) -> String {
    let first_shown = keep
        .checked_sub(1)
        .and_then(|back| value.char_indices().nth_back(back));
    let at = first_shown.map_or(
        value.len(),
        |(at, _)| if at == 0 { value.len() } else { at },
    );
    let (hidden, shown) = value.split_at(at);
    let mut masked = String::with_capacity(value.len());
    masked.extend(hidden.chars().map(|_| '*'));
    masked.push_str(shown);
    masked
}

jackfield_sdk::export!(Redact);

#[cfg(test)]
mod tests;
