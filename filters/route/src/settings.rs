//! The settings file, and its rules once checked; see `route.toml`.

use serde::Deserialize;

/// The settings file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(default)]
    rule: Vec<Written>,
}

/// A rule as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    event: Option<String>,
    header: Option<String>,
    pattern: Option<String>,
    streams: Option<Vec<String>>,
    drop: Option<String>,
}

/// A rule that makes sense.
pub(crate) struct Checked {
    /// Every event if `None`.
    pub(crate) event: Option<String>,
    /// A header and its pattern.
    pub(crate) header: Option<(String, String)>,
    pub(crate) action: Action,
}

/// What a rule does.
pub(crate) enum Action {
    Streams(Vec<String>),
    Drop(String),
}

impl Settings {
    /// The rules, or what is wrong with the first bad one.
    pub(crate) fn checked(self) -> Result<Vec<Checked>, String> {
        if self.rule.is_empty() {
            return Err("no rule: give at least one `[[rule]]`, or remove the filter".into());
        }
        let numbered = self.rule.into_iter().zip(1..);
        numbered
            .map(|(rule, number)| {
                rule.checked()
                    .map_err(|error| format!("rule {number}: {error}"))
            })
            .collect()
    }
}

impl Written {
    fn checked(self) -> Result<Checked, String> {
        let header = match (self.header, self.pattern) {
            (Some(header), Some(pattern)) => Some((header, pattern)),
            (None, None) => None,
            (Some(_), None) => {
                return Err("`header` without `pattern`: `pattern = \"*\"` is any value".into());
            }
            (None, Some(_)) => {
                return Err("`pattern` without `header`: name the header to look at".into());
            }
        };
        let event = match self.event.as_deref() {
            None if header.is_none() => {
                return Err("it says neither which `event` nor which `header`: `event = \"*\"` is every event".into());
            }
            Some("") => return Err("`event` is empty: give a name, or `*` for every event".into()),
            Some("*") | None => None,
            Some(name) if name.contains('*') => {
                return Err(format!(
                    "`event` is `{name}`: a whole name is allowed, or `*` alone for every event"
                ));
            }
            Some(_) => self.event,
        };
        let action = match (self.streams, self.drop) {
            (Some(streams), None) if streams.is_empty() => {
                return Err(
                    "`streams` is empty: name at least one, or use `drop = \"reason\"`".into(),
                );
            }
            (Some(streams), None) if streams.iter().any(String::is_empty) => {
                return Err("`streams` has an empty name".into());
            }
            (Some(streams), None) => Action::Streams(streams),
            (None, Some(reason)) if reason.is_empty() => {
                return Err("`drop` is empty: give a reason, which the metric will show".into());
            }
            (None, Some(reason)) => Action::Drop(reason),
            (Some(_), Some(_)) => return Err("it has `streams` and `drop`: choose one".into()),
            (None, None) => {
                return Err(
                    "it does nothing: give `streams = [\"…\"]` or `drop = \"reason\"`".into(),
                );
            }
        };
        Ok(Checked {
            event,
            header,
            action,
        })
    }
}
