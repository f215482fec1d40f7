//! The JSON of golden cases, and the bounds of what a component may carry of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::outcome::Outcome;
use super::section;

/// The custom section that holds a component's cases.
const SECTION: &str = "jackfield:golden";
/// Cases of one component.
const MAX_CASES: usize = 64;
/// Bytes of all cases of one component, as JSON.
const MAX_BYTES: usize = 1 << 20;
/// Steps of all cases of one component.
const MAX_STEPS: usize = 1_000;
/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// What the filter's `configure` gets.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// What it is given, in order.
    pub steps: Vec<Given>,
}

impl Case {
    /// Reads a case.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(json: &str) -> Result<Case, String> {
        let case: Case = serde_json::from_str(json).map_err(|error| error.to_string())?;
        case.check()?;
        Ok(case)
    }

    /// What it expects of each step, as far as it says.
    pub fn expected(&self) -> impl Iterator<Item = Option<&Outcome>> {
        self.steps.iter().map(|given| given.expect.as_ref())
    }

    fn check(&self) -> Result<(), String> {
        let both_or_none = |given: &Given| given.event.is_some() == given.tick.is_some();
        match self.steps.iter().position(both_or_none) {
            None => Ok(()),
            Some(at) => Err(format!(
                "step {}: allowed is either `event` or `tick`",
                at + 1
            )),
        }
    }
}

/// The text of a case that expects these outcomes, one a step, and is otherwise as it was.
pub fn expecting(json: &str, outcomes: &[Outcome]) -> String {
    let mut case: Value = serde_json::from_str(json).unwrap_or_default();
    let steps = case.get_mut("steps").and_then(Value::as_array_mut);
    for (step, outcome) in steps.into_iter().flatten().zip(outcomes) {
        if let Value::Object(step) = step {
            step.insert("expect".to_owned(), outcome.clone().into());
        }
    }
    format!("{case:#}\n")
}

/// One step of a case: an event or a tick, and what is expected of the filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// An event's headers, as FreeSWITCH's JSON has them; the body under `_body`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<Map<String, Value>>,
    /// The event's time in µs, instead of its `Event-Date-Timestamp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) now: Option<u64>,
    /// A tick at this time in µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tick: Option<u64>,
    /// The expected outcome; a case in the making may lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expect: Option<Outcome>,
}

/// The cases of one component, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cases(BTreeMap<String, Case>);

impl Cases {
    /// These cases, if they are not too many or too large for a component.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn new(cases: impl IntoIterator<Item = (String, Case)>) -> Result<Cases, Unreadable> {
        let cases = Cases(cases.into_iter().collect());
        let size = cases.json()?.len();
        let steps: usize = cases.0.values().map(|case| case.steps.len()).sum();
        for (what, there, allowed) in [
            ("cases", cases.len(), MAX_CASES),
            ("bytes", size, MAX_BYTES),
            ("steps", steps, MAX_STEPS),
        ] {
            if there > allowed {
                let much = format!("{there} {what} in all; at most {allowed} are allowed");
                return Err(Unreadable(much));
            }
        }
        Ok(cases)
    }

    /// The cases that a component carries: none if it has no section for them.
    ///
    /// # Errors
    /// The section holds no cases, or too many.
    pub fn of_component(file: &[u8]) -> Result<Cases, Unreadable> {
        let section =
            section::read(file, SECTION).map_err(|error| Unreadable(error.to_string()))?;
        let Some(json) = section else {
            return Ok(Cases::default());
        };
        if json.len() > MAX_BYTES {
            return Err(Unreadable(format!(
                "{} bytes in all; at most {MAX_BYTES} are allowed",
                json.len()
            )));
        }
        let cases: Cases =
            serde_json::from_slice(json).map_err(|error| Unreadable(error.to_string()))?;
        for (name, case) in &cases.0 {
            case.check()
                .map_err(|error| Unreadable(format!("{name}: {error}")))?;
        }
        Cases::new(cases.0)
    }

    /// The component with these cases in place of those that it carries.
    ///
    /// # Errors
    /// The file is no Wasm.
    pub fn embed(&self, file: &[u8]) -> Result<Vec<u8>, Unreadable> {
        section::write(file, SECTION, &self.json()?).map_err(|error| Unreadable(error.to_string()))
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Case)> {
        self.0.iter().map(|(name, case)| (name.as_str(), case))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn json(&self) -> Result<Vec<u8>, Unreadable> {
        serde_json::to_vec(self).map_err(|error| Unreadable(error.to_string()))
    }
}

/// The cases cannot be read, or are too many.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("golden cases: {0}")]
pub struct Unreadable(String);

#[cfg(test)]
mod tests {
    use super::{Case, Cases, Outcome, expecting};
    use crate::filter::golden::section;

    /// An empty component.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn named(count: usize, case: &Case) -> impl Iterator<Item = (String, Case)> {
        (0..count).map(|number| (number.to_string(), case.clone()))
    }

    fn problem(json: &str) -> String {
        Case::parse(json).unwrap_err()
    }

    fn case(steps: &str) -> Case {
        Case::parse(&format!("{{\"steps\": [{steps}]}}")).unwrap()
    }

    #[test]
    fn a_component_carries_the_cases_that_were_put_into_it() {
        let json = r#"{
            "about": "test calls go, others are tagged",
            "settings": {"site": "berlin"},
            "steps": [
                {"event": {"Event-Name": "CHANNEL_ANSWER", "_body": "x"}, "now": 5,
                 "expect": {"verdict": {"route": ["calls"]},
                            "edits": [{"set": {"name": "X", "value": "1"}}, {"remove": "Y"}, {"keep": ["Z*"]}, {"body": ""}],
                            "derived": [{"name": "MADE", "headers": {"A": "b"}, "body": "c", "streams": ["s"]}]}},
                {"event": {"Event-Name": "DTMF"}, "expect": "unseen"},
                {"tick": 7, "expect": {"verdict": "pass"}},
                {"tick": 8}
            ]
        }"#;
        let cases = Cases::new([("answered".to_owned(), Case::parse(json).unwrap())]).unwrap();
        let file = cases.embed(EMPTY).unwrap();
        assert_eq!(Cases::of_component(&file), Ok(cases));
        let none = Cases::default().embed(&file).unwrap();
        assert_eq!(
            Cases::of_component(&none).map(|cases| cases.len()),
            Ok(0),
            "others replace them"
        );
        assert_eq!(Cases::of_component(EMPTY), Ok(Cases::default()));
    }

    #[test]
    fn what_is_wrong_with_a_case_is_named() {
        for (json, part) in [
            (r#"{"steps": [], "setings": {}}"#, "unknown field `setings`"),
            (r#"{"steps": [{"tick": 1, "expekt": {}}]}"#, "`expekt`"),
            (
                r#"{"steps": [{"tick": 1, "expect": {"verdict": "go"}}]}"#,
                "unknown variant `go`, expected one of `pass`, `route`",
            ),
            (
                r#"{"steps": [{"tick": 1}, {"now": 1}]}"#,
                "step 2: allowed is either `event` or `tick`",
            ),
            (
                r#"{"steps": [{"tick": 1, "event": {}}]}"#,
                "step 1: allowed is either `event` or `tick`",
            ),
            ("{}", "missing field `steps`"),
            ("{", "EOF while parsing"),
        ] {
            let problem = problem(json);
            assert!(problem.contains(part), "{problem:?} should say {part:?}");
        }
    }

    #[test]
    fn a_case_takes_over_what_came_of_it_and_keeps_the_rest() {
        let json = r#"{ "steps": [{"tick": 1, "expect": "unseen"}, {"event": {"B": "2", "A": "1"}}], "about": "order" }"#;
        let pass = serde_json::from_str(r#"{"verdict": "pass"}"#).unwrap();
        let text = expecting(json, &[pass, Outcome::Unseen]);
        let expected = r#"{
  "steps": [
    {
      "tick": 1,
      "expect": {
        "verdict": "pass"
      }
    },
    {
      "event": {
        "B": "2",
        "A": "1"
      },
      "expect": "unseen"
    }
  ],
  "about": "order"
}
"#;
        assert_eq!(text, expected);
        let case = Case::parse(&text).unwrap();
        let again: Vec<Outcome> = case.expected().flatten().cloned().collect();
        assert_eq!(expecting(&text, &again), expected, "it is stable");
    }

    #[test]
    fn too_many_or_too_large_cases_are_refused() {
        let one = case(r#"{"tick": 1}"#);
        let long = case(&vec![r#"{"tick": 1}"#; 501].join(","));
        let large = case(&format!(
            r#"{{"event": {{"X": "{}"}}}}"#,
            "x".repeat(600_000)
        ));
        for (cases, part) in [
            (named(65, &one), "65 cases in all; at most 64 are allowed"),
            (
                named(2, &long),
                "1002 steps in all; at most 1000 are allowed",
            ),
            (
                named(2, &large),
                "bytes in all; at most 1048576 are allowed",
            ),
        ] {
            let problem = Cases::new(cases).unwrap_err().to_string();
            assert!(problem.contains(part), "{problem:?} should say {part:?}");
        }
        assert_eq!(Cases::new(named(64, &one)).map(|cases| cases.len()), Ok(64));
    }

    #[test]
    fn a_section_that_holds_something_else_is_refused() {
        for (data, part) in [
            (&b"not JSON"[..], "golden cases: expected ident"),
            (br#"{"a": {"steps": [{}]}}"#, "golden cases: a: step 1"),
            (&[b' '; 1 << 21], "at most 1048576 are allowed"),
        ] {
            let file = section::write(EMPTY, super::SECTION, data).unwrap();
            let problem = Cases::of_component(&file).unwrap_err().to_string();
            assert!(problem.contains(part), "{problem:?} should say {part:?}");
        }
    }
}
