//! In what two versions of a filter disagree about one event: the verdict, headers after the edits, the body, derived events.
//!
//! Pure. Two ways to make the same edits are no difference.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::guest::bindings::jackfield::filter::types;
use super::step::{Derived, Edit, Verdict};
use crate::event::Event;

/// Headers that are named; there may be hundreds.
const NAMED: usize = 8;

/// What a filter made of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its verdict.
    pub verdict: Verdict,
    /// Its changes, in order.
    pub edits: Vec<Edit>,
    /// The events that it made.
    pub derived: Vec<Derived>,
}

impl Answer {
    /// The event goes on as it came.
    pub fn pass() -> Answer {
        Answer {
            verdict: Verdict::Pass,
            edits: Vec::new(),
            derived: Vec::new(),
        }
    }
}

/// How the second answer differs from the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Both verdicts, if they differ.
    pub verdict: Option<(Verdict, Verdict)>,
    /// Names of headers whose values differ, the first few.
    pub headers: Vec<String>,
    /// The bodies differ.
    pub body: bool,
    /// The derived events differ.
    pub derived: bool,
}

impl Difference {
    /// `None`: they agree about `event`, which is as it was before either.
    pub fn between(event: &Event, first: &Answer, second: &Answer) -> Option<Difference> {
        let mut difference = Difference {
            verdict: (first.verdict != second.verdict)
                .then(|| (first.verdict.clone(), second.verdict.clone())),
            headers: Vec::new(),
            body: false,
            derived: !same_derived(&first.derived, &second.derived),
        };
        if first.edits != second.edits {
            let (first, second) = (edited(event, first), edited(event, second));
            difference.body = first.body() != second.body();
            difference.headers = differing(&first, &second);
        }
        let is_one = difference.verdict.is_some()
            || difference.body
            || difference.derived
            || !difference.headers.is_empty();
        is_one.then_some(difference)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some((first, second)) = &self.verdict {
            parts.push(format!("{first} became {second}"));
        }
        if !self.headers.is_empty() {
            parts.push(format!("headers differ: {}", self.headers.join(", ")));
        }
        if self.body {
            parts.push("the body differs".to_owned());
        }
        if self.derived {
            parts.push("derived events differ".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}

fn edited(event: &Event, answer: &Answer) -> Event {
    let mut event = event.clone();
    answer.edits.iter().for_each(|edit| edit.apply(&mut event));
    event
}

fn differing(first: &Event, second: &Event) -> Vec<String> {
    // It follows from the body, which is compared by itself.
    let of = |event: &Event| -> BTreeMap<String, String> {
        let headers = event.headers();
        headers
            .filter(|(name, _)| name != "Content-Length")
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect()
    };
    let (first, second) = (of(first), of(second));
    let changed = first
        .iter()
        .filter(|(name, value)| second.get(*name) != Some(value));
    let added = second.iter().filter(|(name, _)| !first.contains_key(*name));
    let names = changed.chain(added).map(|(name, _)| name.clone());
    names.take(NAMED).collect()
}

/// Whoever made them.
fn same_derived(first: &[Derived], second: &[Derived]) -> bool {
    let content = |one: &Derived| (one.name.clone(), one.headers.clone(), one.body.clone());
    first.len() == second.len()
        && first
            .iter()
            .zip(second)
            .all(|(first, second)| content(first) == content(second))
}

impl Answer {
    pub(super) fn of(decision: types::Decision, by: &std::sync::Arc<str>) -> Answer {
        Answer {
            verdict: decision.verdict.into(),
            edits: decision.edits.into_iter().map(Edit::from).collect(),
            derived: decision
                .emit
                .into_iter()
                .map(|made| Derived::made(made, by).0)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::event::Format;

    fn event() -> Event {
        let text = br#"{"Event-Name":"DTMF","A":"1","B":"2"}"#;
        Event::parse(Format::Json, Bytes::from_static(text)).unwrap()
    }

    fn set(name: &str, value: &str) -> Edit {
        Edit::Set {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    fn told(first: Vec<Edit>, second: Vec<Edit>) -> Option<String> {
        let answer = |edits| Answer {
            edits,
            ..Answer::pass()
        };
        Difference::between(&event(), &answer(first), &answer(second))
            .map(|difference| difference.to_string())
    }

    #[test]
    fn edits_that_come_to_the_same_are_no_difference() {
        assert_eq!(told(vec![], vec![set("A", "1")]), None);
        let keep = Edit::Keep(vec!["A".to_owned()]);
        assert_eq!(told(vec![Edit::Remove("B".to_owned())], vec![keep]), None);
    }

    #[test]
    fn what_differs_is_named() {
        let headers = told(vec![set("A", "x")], vec![set("C", "y")]);
        assert_eq!(headers.unwrap(), "headers differ: A, C");
        let body = told(vec![], vec![Edit::Body("b".to_owned())]);
        assert_eq!(body.unwrap(), "the body differs");
        let dropped = Answer {
            verdict: Verdict::Drop("noise".to_owned()),
            ..Answer::pass()
        };
        let difference = Difference::between(&event(), &Answer::pass(), &dropped).unwrap();
        assert_eq!(difference.to_string(), "pass became drop (noise)");
    }
}
