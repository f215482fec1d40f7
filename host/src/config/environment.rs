//! The environment: a key's own `JACKFIELD_…` variable or its `_FILE` twin, and the Go service's variables.
//!
//! An empty variable counts as not set. Reads the files that twins name; never reads or changes the process's own
//! environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use super::mistakes::{Mistake, in_one_line};

const PREFIX: &str = "JACKFIELD_";
const FROM_FILE: &str = "_FILE";

/// The variables that are not empty.
#[derive(Default)]
pub(super) struct Environment(BTreeMap<String, OsString>);

impl Environment {
    pub(super) fn new(variables: Vec<(OsString, OsString)>) -> Self {
        let set = variables.into_iter().filter(|(_, text)| !text.is_empty());
        let named = set.map(|(name, text)| (name.to_string_lossy().into_owned(), text));
        Self(named.collect())
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether the key's own variable or its twin is set.
    pub(super) fn sets(&self, key: &str) -> bool {
        let name = variable_name(key);
        self.is_set(&name) || self.is_set(&format!("{name}{FROM_FILE}"))
    }

    /// The text of a variable that is set.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Mistake> {
        let text = self.0.get(name).map(|text| text.to_str());
        match text {
            None => Ok(None),
            Some(Some(text)) => Ok(Some(text.to_owned())),
            Some(None) => Err(Mistake::Value {
                place: name.to_owned(),
                value: "***".to_owned(),
                allowed: "text in UTF-8".to_owned(),
            }),
        }
    }

    /// The variable that gives a key, and its text or that of the file which it names. `secret`: the path of such a
    /// file is not shown either, as it may be the secret itself, put into the wrong variable.
    pub(super) fn own_text(
        &self,
        key: &str,
        secret: bool,
    ) -> Result<Option<(String, String)>, Mistake> {
        let name = variable_name(key);
        let twin = format!("{name}{FROM_FILE}");
        let Some(path) = self.0.get(&twin) else {
            let text = self.text(&name)?;
            return Ok(text.map(|text| (name, text)));
        };
        if self.is_set(&name) {
            return Err(Mistake::Both { variable: name });
        }
        let text = fs::read_to_string(path).map_err(|error| {
            let shown = if secret {
                "***".to_owned()
            } else {
                format!("{path:?}")
            };
            Mistake::unreadable(format!("{twin} = {shown}"), &error)
        })?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        Ok(Some((twin, line.to_owned())))
    }

    /// The variables that claim to be ours and belong to none of `keys`.
    pub(super) fn unknown(&self, keys: &[String]) -> Vec<Mistake> {
        let known: Vec<String> = keys.iter().map(|key| variable_name(key)).collect();
        let ours = self.0.keys().filter(|name| name.starts_with(PREFIX));
        ours.filter_map(|name| {
            let stem = name.strip_suffix(FROM_FILE).unwrap_or(name);
            let is_known = known.iter().any(|known| known == stem);
            (!is_known).then(|| Mistake::unknown("variable", &in_one_line(name), stem, &known))
        })
        .collect()
    }
}

/// The variable of a key: `esl.backoff.max` is `JACKFIELD_ESL_BACKOFF_MAX`.
pub(super) fn variable_name(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}
