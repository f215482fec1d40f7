//! The settings file, checked; see `project.toml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{EVENT_NAME, Project};

/// The settings file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    keep: Vec<String>,
    drop: Vec<String>,
    rename: BTreeMap<String, String>,
    events: Vec<String>,
}

/// Which headers stay. A name may end in `*`: all that begin so.
pub(crate) enum Kept {
    Only(Vec<String>),
    AllBut(Vec<String>),
}

impl Kept {
    pub(crate) fn keeps(&self, name: &str) -> bool {
        let names = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => pattern == name,
        };
        match self {
            _ if name == EVENT_NAME => true,
            Self::Only(patterns) => patterns.iter().any(names),
            Self::AllBut(patterns) => !patterns.iter().any(names),
        }
    }
}

impl Settings {
    /// The filter, or what is wrong with the settings.
    pub(crate) fn checked(self) -> Result<Project, String> {
        let Self {
            keep,
            drop,
            rename,
            events,
        } = self;
        if keep.is_empty() && drop.is_empty() && rename.is_empty() {
            return Err("nothing to do: give `keep`, `drop` or `rename`".into());
        }
        if !keep.is_empty() && !drop.is_empty() {
            return Err("`keep` and `drop` are both given: `keep` alone drops everything else, so choose one".into());
        }
        for name in keep.iter().chain(&drop) {
            if name.is_empty() || name.find('*').is_some_and(|star| star + 1 < name.len()) {
                return Err(format!(
                    "`{name}`: a header's name is allowed, with a `*` at its end or without"
                ));
            }
        }
        if drop.iter().any(|name| name == EVENT_NAME) {
            return Err(format!(
                "`drop` has `{EVENT_NAME}`, which always stays: routes and filters need it"
            ));
        }
        check_renames(&rename, &keep, &drop)?;

        let wild = drop.iter().any(|name| name.ends_with('*'));
        let whole_names = keep.is_empty() && !wild;
        let affected = whole_names.then(|| drop.iter().chain(rename.keys()).cloned().collect());
        let kept = if keep.is_empty() {
            Kept::AllBut(drop)
        } else {
            Kept::Only(keep)
        };
        Ok(Project {
            events,
            kept,
            rename: rename.into_iter().collect(),
            affected,
        })
    }
}

fn check_renames(
    rename: &BTreeMap<String, String>,
    keep: &[String],
    drop: &[String],
) -> Result<(), String> {
    for (old, new) in rename {
        let wrong = if old.is_empty() || new.is_empty() {
            "a name is empty"
        } else if old.contains('*') || new.contains('*') {
            "whole names are allowed, without `*`"
        } else if old == EVENT_NAME || new == EVENT_NAME {
            "`Event-Name` always stays as it is"
        } else if old == new {
            "the names are the same"
        } else if keep.contains(old) || drop.contains(old) {
            "it is also in `keep` or `drop`: a renamed header stays, under its new name"
        } else if rename.values().filter(|other| *other == new).count() > 1 {
            "another header gets the same new name"
        } else {
            continue;
        };
        return Err(format!("rename `{old}` to `{new}`: {wrong}"));
    }
    Ok(())
}
