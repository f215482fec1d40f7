//! The settings file, checked; see `redact.toml`.

use serde::Deserialize;

use crate::keyed_hash::KeyedHash;
use crate::{EVENT_NAME, Method, Redact};

/// A shorter salt could be found by trying, and with it every number.
const SALT_MIN_BYTES: usize = 16;

/// The settings file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    mask: Vec<String>,
    keep: usize,
    hash: Vec<String>,
    salt: String,
    events: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mask: Vec::new(),
            keep: 2,
            hash: Vec::new(),
            salt: String::new(),
            events: Vec::new(),
        }
    }
}

impl Settings {
    /// The filter, or what is wrong with the settings.
    pub(crate) fn checked(self) -> Result<Redact, String> {
        if self.mask.is_empty() && self.hash.is_empty() {
            return Err("nothing to redact: name headers in `mask`, in `hash`, or in both".into());
        }
        let length = self.salt.len();
        if !self.hash.is_empty() && length < SALT_MIN_BYTES {
            return Err(format!(
                "`salt` has {length} bytes: `hash` needs a secret of at least {SALT_MIN_BYTES}, or numbers could be guessed"
            ));
        }

        let mut redact = Redact {
            events: self.events,
            exact: Vec::new(),
            prefixes: Vec::new(),
            keep: self.keep,
            hash: KeyedHash::new(self.salt.as_bytes()),
        };
        for name in self.mask {
            redact.add(name, Method::Mask)?;
        }
        for name in self.hash {
            redact.add(name, Method::Hash)?;
        }
        Ok(redact)
    }
}

impl Redact {
    fn add(&mut self, name: String, method: Method) -> Result<(), String> {
        let wrong = match name.split_once('*') {
            Some((prefix, "")) => {
                self.prefixes.push((prefix.to_owned(), method));
                return Ok(());
            }
            Some(_) => "a `*` may only stand at the end of a name",
            None if name.is_empty() => {
                "a header's name is allowed, with a `*` at its end or without"
            }
            None if name == EVENT_NAME => "always stays, because routes and filters need it",
            None if self.exact.iter().any(|(known, _)| *known == name) => {
                "named twice; a header is masked or hashed, once"
            }
            None => {
                self.exact.push((name, method));
                return Ok(());
            }
        };
        Err(format!("`{name}`: {wrong}"))
    }
}
