//! What is wrong with a configuration, worded for the person who wrote it.
//!
//! A mistake is one line: the setting as it was written, its value, and what is allowed. A value that is or may hold a
//! secret is masked before it comes here.

use std::fmt;
use std::io;

/// Every mistake of one configuration, in the order in which the settings are read. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// The mistakes of `found`, or none at all.
    pub(super) fn of(found: Vec<Mistake>) -> Result<(), Self> {
        if found.is_empty() {
            Ok(())
        } else {
            Err(Self(found))
        }
    }

    /// The mistakes one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.0.iter().enumerate() {
            let line_break = if i == 0 { "" } else { "\n" };
            write!(f, "{line_break}{mistake}")?;
        }
        Ok(())
    }
}

/// One mistake. `place` is the setting as the user wrote it: `jackfield.toml: esl.port`, `ESL_PORT`, `flag esl.port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// A value that is not allowed there.
    #[error("{place} = {value}: allowed is {allowed}")]
    Value {
        /// The setting.
        place: String,
        /// Its value, masked if it may hold a secret.
        value: String,
        /// What it should have been.
        allowed: String,
    },
    /// A setting that must be given and is not.
    #[error("{place}: missing; allowed is {allowed}")]
    Missing {
        /// The setting.
        place: String,
        /// What it should be.
        allowed: String,
    },
    /// A setting that does not exist.
    #[error("{place}: unknown {what}{}", did_you_mean(nearest.as_deref()))]
    Unknown {
        /// The setting.
        place: String,
        /// `key` or `variable`.
        what: &'static str,
        /// The one that was probably meant.
        nearest: Option<String>,
    },
    /// A variable and its `_FILE` twin that are both set.
    #[error("{variable} and {variable}_FILE are both set: allowed is one of them")]
    Both {
        /// The variable.
        variable: String,
    },
    /// A file that cannot be read or is not TOML.
    #[error("{place}: {cause}")]
    File {
        /// Its path, or the variable that names it.
        place: String,
        /// Why; with line and column where the file has them.
        cause: String,
    },
}

impl Mistake {
    /// `name` is not one of `known`.
    pub(super) fn unknown(what: &'static str, place: &str, name: &str, known: &[String]) -> Self {
        Self::Unknown {
            place: place.to_owned(),
            what,
            nearest: nearest(name, known.iter().map(String::as_str)),
        }
    }

    /// The file of `place` cannot be read.
    pub(super) fn unreadable(place: String, error: &io::Error) -> Self {
        Self::File {
            place,
            cause: format!("cannot be read: {error}"),
        }
    }

    /// The text of a file is not TOML. The error's own words would quote the line, which may hold a secret.
    pub(super) fn not_toml(prefix: &str, text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Self::File {
            place: format!("{prefix}line {line}, column {column}"),
            cause: error.message().replace('\n', ", "),
        }
    }
}

/// A name that somebody else chose, fit for one line.
pub(super) fn in_one_line(name: &str) -> String {
    if name.contains(char::is_control) {
        format!("{name:?}")
    } else {
        name.to_owned()
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// The name of `known` that a typing error most likely turned into `name`.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|candidate| {
            let in_wrong_table = last_part(candidate) == last_part(name);
            let distance = if in_wrong_table {
                1
            } else {
                edit_distance(name, candidate)
            };
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance <= 3 && distance * 3 <= candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

fn last_part(key: &str) -> Option<&str> {
    key.rsplit('.').next()
}

/// How many characters must be added, removed or replaced to turn `left` into `right`.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for ((b, above), above_left) in right.chars().zip(row.iter().skip(1)).zip(&row) {
            let replaced = above_left + usize::from(a != b);
            let before = next.last().map_or(replaced, |left| left + 1);
            next.push(replaced.min(above + 1).min(before));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_single_changes() {
        for (left, right, distance) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("host", "hots", 2),
            ("host", "hosts", 1),
            ("passwort", "password", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(edit_distance(left, right), distance, "{left} to {right}");
        }
    }

    #[test]
    fn nearest_finds_typing_errors_and_wrong_tables_and_nothing_else() {
        let known = ["esl.host", "esl.port", "redis.trim_interval", "log.level"];
        let near = |name| nearest(name, known.into_iter());
        assert_eq!(near("esl.hots").as_deref(), Some("esl.host"));
        assert_eq!(
            near("trim_interval").as_deref(),
            Some("redis.trim_interval")
        );
        assert_eq!(near("gateway"), None, "nothing is near");
    }
}
