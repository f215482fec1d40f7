//! What a step of a golden case comes to, as JSON, and where two outcomes differ.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::filter::guest::bindings::jackfield::filter::types;
use crate::filter::step::{Edit, Verdict};

/// Characters of a decision that an error shows.
const SHOWN: usize = 240;

/// How JSON says that the filter is not called.
const UNSEEN: &str = "unseen";

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum Outcome {
    /// The filter was not called: it did not ask for this event, or for ticks.
    Unseen,
    /// It decided.
    Decided(Decision),
}

/// A filter's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// What is to become of the event; of a tick, always `pass`.
    #[serde(default = "pass")]
    pub verdict: Verdict,
    /// Its changes, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<Edit>,
    /// The events that the filter made, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub derived: Vec<Emitted>,
}

fn pass() -> Verdict {
    Verdict::Pass
}

/// An event that the filter made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emitted {
    /// Its `Event-Name`.
    pub name: String,
    /// Its headers; of a repeated one the last.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub headers: Map<String, Value>,
    /// Its body, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Its streams; none where the routes decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
}

impl From<types::Derived> for Emitted {
    fn from(derived: types::Derived) -> Emitted {
        let headers = derived.headers.into_iter();
        Emitted {
            name: derived.name,
            headers: headers
                .map(|header| (header.name, Value::String(header.value)))
                .collect(),
            body: derived.body,
            streams: derived.streams,
        }
    }
}

impl From<types::Decision> for Outcome {
    fn from(decision: types::Decision) -> Outcome {
        Outcome::Decided(Decision {
            verdict: decision.verdict.into(),
            edits: decision.edits.into_iter().map(Edit::from).collect(),
            derived: decision.emit.into_iter().map(Emitted::from).collect(),
        })
    }
}

impl TryFrom<Value> for Outcome {
    type Error = serde_json::Error;

    fn try_from(value: Value) -> Result<Outcome, serde_json::Error> {
        if value == UNSEEN {
            return Ok(Outcome::Unseen);
        }
        Ok(Outcome::Decided(serde_json::from_value(value)?))
    }
}

impl From<Outcome> for Value {
    fn from(outcome: Outcome) -> Value {
        match outcome {
            Outcome::Unseen => UNSEEN.into(),
            Outcome::Decided(decision) => serde_json::to_value(decision).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Unseen => to.write_str(UNSEEN),
            Outcome::Decided(decision) => to.write_str(&shown(decision)),
        }
    }
}

/// An outcome that is not the expected one. Its text has only the places that differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// What the case says, if it says anything yet.
    pub expected: Option<Outcome>,
    /// What came of the step.
    pub got: Outcome,
}

impl fmt::Display for Difference {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let got = &self.got;
        match (&self.expected, got) {
            (Some(Outcome::Decided(expected)), Outcome::Decided(got)) => {
                to.write_str(&places(expected, got).join("; "))
            }
            (Some(expected), _) => write!(to, "expected {expected}, got {got}"),
            (None, _) => write!(to, "expects nothing yet, got {got}"),
        }
    }
}

fn places(expected: &Decision, got: &Decision) -> Vec<String> {
    let mut places = Vec::new();
    if expected.verdict != got.verdict {
        let (expected, got) = (shown(&expected.verdict), shown(&got.verdict));
        places.push(format!("verdict: expected {expected}, got {got}"));
    }
    places.extend(difference("edit", &expected.edits, &got.edits));
    places.extend(difference("derived event", &expected.derived, &got.derived));
    places
}

/// The first place in which two lists differ.
fn difference<T: PartialEq + Serialize>(what: &str, expected: &[T], got: &[T]) -> Option<String> {
    let longest = expected.len().max(got.len());
    let at = (0..longest).find(|at| expected.get(*at) != got.get(*at))?;
    let item = |list: &[T]| list.get(at).map_or_else(|| "none".to_owned(), shown);
    Some(format!(
        "{what} {}: expected {}, got {}",
        at + 1,
        item(expected),
        item(got)
    ))
}

/// As JSON on one line, cut where it is long.
fn shown(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    match json.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", json.get(..end).unwrap_or_default()),
        None => json,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Difference, Outcome};

    fn difference(expected: Option<Value>, got: Value) -> String {
        let outcome = |value| serde_json::from_value::<Outcome>(value).unwrap();
        let (expected, got) = (expected.map(outcome), outcome(got));
        Difference { expected, got }.to_string()
    }

    #[test]
    fn a_difference_shows_only_the_places_that_differ() {
        let set = |value: &str| json!({"set": {"name": "X", "value": value}});
        let expected = json!({"verdict": "pass", "edits": [set("1"), set("2")]});
        for (got, text) in [
            (
                json!("unseen"),
                r#"expected {"verdict":"pass","edits":[{"set":{"name":"X","value":"1"}},{"set":{"name":"X","value":"2"}}]}, got unseen"#,
            ),
            (
                json!({"verdict": {"drop": "test"}, "edits": [set("1"), set("2")]}),
                r#"verdict: expected "pass", got {"drop":"test"}"#,
            ),
            (
                json!({"edits": [set("1"), set("3")], "derived": [{"name": "MADE"}]}),
                r#"edit 2: expected {"set":{"name":"X","value":"2"}}, got {"set":{"name":"X","value":"3"}}; derived event 1: expected none, got {"name":"MADE"}"#,
            ),
            (
                json!({"edits": [set("1")]}),
                r#"edit 2: expected {"set":{"name":"X","value":"2"}}, got none"#,
            ),
        ] {
            assert_eq!(difference(Some(expected.clone()), got), text);
        }
        assert_eq!(
            difference(None, json!("unseen")),
            "expects nothing yet, got unseen"
        );
    }

    #[test]
    fn a_long_decision_is_cut() {
        let text = difference(None, json!({"verdict": {"drop": "ü".repeat(1_000)}}));
        assert!(text.ends_with("ü…") && text.chars().count() < 300, "{text}");
    }
}
