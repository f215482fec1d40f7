//! The settings file, checked; see `call-record.toml`.

use std::time::Duration;

use serde::Deserialize;

use crate::CallRecord;
use crate::calls::Calls;

/// At up to 1 kB a leg.
const LEGS_MAX: usize = 100_000;
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The settings file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    streams: Vec<String>,
    max_legs: usize,
    #[serde(deserialize_with = "jackfield_sdk::duration")]
    max_age: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            streams: vec!["freeswitch:calls".into()],
            max_legs: 10_000,
            max_age: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Settings {
    /// The filter without calls, or what is wrong with the settings.
    pub(crate) fn checked(self) -> Result<CallRecord, String> {
        let Self {
            streams,
            max_legs,
            max_age,
        } = self;
        if streams.iter().any(String::is_empty) {
            return Err("`streams` has an empty name".into());
        }
        if max_legs == 0 || max_legs > LEGS_MAX {
            return Err(format!(
                "`max_legs` is {max_legs}: allowed are 1 to {LEGS_MAX}"
            ));
        }
        if max_age.is_zero() || max_age > AGE_MAX {
            return Err(format!(
                "`max_age` is {max_age:?}: allowed is more than zero, up to 720h"
            ));
        }
        let max_age_us = u64::try_from(max_age.as_micros()).unwrap_or(u64::MAX);
        Ok(CallRecord {
            streams,
            calls: Calls::new(max_legs, max_age_us),
        })
    }
}
