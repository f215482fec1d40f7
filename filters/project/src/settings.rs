//! The settings file, checked; see `project.toml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Kept, Project};

/// The settings file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    keep: Vec<String>,
    drop: Vec<String>,
    rename: BTreeMap<String, String>,
    events: Vec<String>,
}

/// It always stays, under its own name: routes and filters need it.
const EVENT_NAME: &str = "Event-Name";

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

        let kept = if keep.is_empty() {
            Kept::AllBut(drop)
        } else {
            Kept::Only(keep)
        };
        Ok(Project {
            events,
            kept,
            rename: rename.into_iter().collect(),
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
