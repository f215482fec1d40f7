//! A JSON object as a program that reads a stream would see it, by `serde_json` alone: members in order, repeated names included.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// What stands before an array that FreeSWITCH writes as one text, and between its elements.
pub(crate) const ARRAY: &str = "ARRAY::";
pub(crate) const SEPARATOR: &str = "|:";

/// The value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Text(String),
    List(Vec<String>),
}

impl Held {
    /// The value of a text that may be FreeSWITCH's notation of an array.
    pub(crate) fn of_text(text: &str) -> Held {
        match text.strip_prefix(ARRAY) {
            Some(elements) => Held::List(elements.split(SEPARATOR).map(str::to_owned).collect()),
            None => Held::Text(text.to_owned()),
        }
    }

    /// The value as one text.
    pub(crate) fn text(&self) -> String {
        match self {
            Held::Text(text) => text.clone(),
            Held::List(elements) => format!("{ARRAY}{}", elements.join(SEPARATOR)),
        }
    }
}

/// The members of an object.
pub(crate) struct Object(Vec<(String, Value)>);

/// An object in which something is neither a string nor an array of strings.
#[derive(Debug)]
pub(crate) struct NoEvent;

impl Object {
    pub(crate) fn read(text: &str) -> serde_json::Result<Object> {
        serde_json::from_str(text)
    }

    /// Its members, of each name the last one, in the order of the text.
    pub(crate) fn last_wins(self) -> Result<Vec<(String, Held)>, NoEvent> {
        let mut members: Vec<(String, Held)> = Vec::new();
        for (name, value) in self.0 {
            let held = held(value)?;
            members.retain(|(other, _)| *other != name);
            members.push((name, held));
        }
        Ok(members)
    }

    /// Its members, of which no two may have the same name.
    pub(crate) fn distinct(self) -> Vec<(String, Held)> {
        let count = self.0.len();
        let members = self.last_wins().expect("strings and arrays of strings");
        assert_eq!(members.len(), count, "a name is there twice: {members:?}");
        members
    }
}

fn held(value: Value) -> Result<Held, NoEvent> {
    let text = |value| match value {
        Value::String(text) => Ok(text),
        _ => Err(NoEvent),
    };
    match value {
        Value::Array(items) => Ok(Held::List(
            items.into_iter().map(text).collect::<Result<_, _>>()?,
        )),
        other => text(other).map(Held::Text),
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Object(members))
    }
}
