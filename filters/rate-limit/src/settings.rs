//! The settings file, checked; see `rate-limit.toml`.

use std::time::Duration;

use serde::Deserialize;

use crate::RateLimit;
use crate::buckets::Buckets;

/// Ten times what a FreeSWITCH sends in a second.
const TOKENS_MAX: u32 = 100_000;
const PER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// At up to 150 bytes a key.
const KEYS_MAX: usize = 1_000_000;

/// The settings file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    by: Vec<String>,
    rate: u32,
    #[serde(deserialize_with = "jackfield_sdk::duration")]
    per: Duration,
    burst: Option<u32>,
    action: Written,
    mark: String,
    max_keys: usize,
    events: Vec<String>,
}

/// `action` as written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Written {
    Drop,
    Mark,
    DeadLetter,
}

/// What happens to an event above the limit.
pub(crate) enum Action {
    Drop,
    /// It gets this header, and passes.
    Mark(String),
    DeadLetter,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            by: Vec::new(),
            rate: 100,
            per: Duration::from_secs(1),
            burst: None,
            action: Written::Drop,
            mark: "X-Rate-Limited".into(),
            max_keys: 10_000,
            events: Vec::new(),
        }
    }
}

impl Settings {
    /// The filter with full buckets, or what is wrong with the settings.
    pub(crate) fn checked(self) -> Result<RateLimit, String> {
        let Self { rate, per, .. } = self;
        if rate == 0 || rate > TOKENS_MAX {
            return Err(format!("`rate` is {rate}: allowed are 1 to {TOKENS_MAX}"));
        }
        if per < Duration::from_secs(1) || per > PER_MAX {
            return Err(format!("`per` is {per:?}: allowed are 1s to 24h"));
        }
        let burst = self.burst.unwrap_or(rate);
        if burst == 0 || burst > TOKENS_MAX {
            return Err(format!("`burst` is {burst}: allowed are 1 to {TOKENS_MAX}"));
        }
        let max_keys = self.max_keys;
        if max_keys == 0 || max_keys > KEYS_MAX {
            return Err(format!(
                "`max_keys` is {max_keys}: allowed are 1 to {KEYS_MAX}"
            ));
        }
        if self.by.iter().any(String::is_empty) {
            return Err("`by` has an empty name".into());
        }
        let action = match self.action {
            Written::Drop => Action::Drop,
            Written::DeadLetter => Action::DeadLetter,
            Written::Mark if self.mark.is_empty() => {
                return Err("`mark` is empty: name the header to set".into());
            }
            Written::Mark => Action::Mark(self.mark),
        };
        Ok(RateLimit {
            by: self.by,
            events: self.events,
            action,
            buckets: Buckets::new(rate, per, burst, max_keys),
        })
    }
}
