//! The settings file, checked; see `dedup.toml`.

use std::time::Duration;

use serde::Deserialize;

use crate::Dedup;
use crate::memory::Memory;

/// A longer memory than a day belongs into a database.
const WINDOW_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// At up to 110 bytes a key.
const KEYS_MAX: usize = 1_000_000;

/// The settings file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    #[serde(deserialize_with = "jackfield_sdk::duration")]
    window: Duration,
    by: Vec<String>,
    max_keys: usize,
    events: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(5),
            by: ["Core-UUID", "Event-Sequence"].map(str::to_owned).into(),
            // More than a FreeSWITCH sends in five seconds.
            max_keys: 65_536,
            events: Vec::new(),
        }
    }
}

impl Settings {
    /// The filter with an empty memory, or what is wrong with the settings.
    pub(crate) fn checked(self) -> Result<Dedup, String> {
        let Self {
            window,
            by,
            max_keys,
            events,
        } = self;
        if window.is_zero() || window > WINDOW_MAX {
            return Err(format!(
                "`window` is {window:?}: allowed is more than zero, up to 24h"
            ));
        }
        if max_keys == 0 || max_keys > KEYS_MAX {
            return Err(format!(
                "`max_keys` is {max_keys}: allowed are 1 to {KEYS_MAX}"
            ));
        }
        if by.is_empty() {
            return Err("`by` is empty: name the headers that make an event the same".into());
        }
        if by.iter().any(String::is_empty) {
            return Err("`by` has an empty name".into());
        }
        let window_us = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        Ok(Dedup {
            by,
            events,
            memory: Memory::new(window_us, max_keys),
        })
    }
}
