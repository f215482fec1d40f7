//! Durations in a settings file, written as in the host's own settings: `300ms`, `5s`, `1h30m`.

use std::fmt;
use std::time::Duration;

use serde::Deserializer;
use serde::de::{Error, Unexpected, Visitor};

/// Read a duration: whole numbers with `ms`, `s`, `m` or `h`, as in `300ms`, `5s` or `1h30m`.
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct Settings {
///     #[serde(deserialize_with = "jackfield_sdk::duration")]
///     window: std::time::Duration,
/// }
/// ```
///
/// # Errors
/// It is written otherwise, or too long to count.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Written)
}

struct Written;

impl Visitor<'_> for Written {
    type Value = Duration;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a duration such as `300ms`, `5s` or `1h30m`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis: u64 = 0;
    loop {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let unit_ends = after.find(|c: char| c.is_ascii_digit());
        let (unit, after) = after.split_at(unit_ends.unwrap_or(after.len()));
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        let part = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
        millis = millis.checked_add(part)?;
        if after.is_empty() {
            return Some(Duration::from_millis(millis));
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_duration_is_whole_numbers_with_units() {
        for (text, millis) in [
            ("300ms", 300),
            ("5s", 5_000),
            ("1h30m", 5_400_000),
            ("1m0s1ms", 60_001),
            ("0s", 0),
        ] {
            let parsed = parse(text).map(|duration| duration.as_millis());
            assert_eq!(parsed, Some(millis), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "1.5s",
            "5s3",
            "5d",
            "soon",
            "18446744073709551615h",
        ] {
            assert_eq!(parse(text), None, "`{text}`");
        }
    }
}
