//! Golden cases in the engine that the host uses: those of the filters that ship, and what a case says of a filter that misbehaves.

use std::fs;
use std::time::Duration;

use jackfield::config::{FilterLimits, Sources, load};
use jackfield::filter::golden::{self, Case, Cases, Rehearsal};
use jackfield::filter::{Component, Engine};
use serde_json::json;

use crate::harness::{FILTERS, component, root};

fn limits() -> FilterLimits {
    load(Sources::default()).unwrap().filters.limits
}

struct Compiled {
    engine: Engine,
    bytes: Vec<u8>,
    component: Component,
}

impl Compiled {
    fn new(name: &str) -> Compiled {
        let engine = Engine::new().unwrap();
        let bytes = fs::read(component(name)).unwrap();
        let component = engine.compile(&bytes).unwrap();
        Compiled {
            engine,
            bytes,
            component,
        }
    }

    /// What comes of these cases as the component's own: how many there are, or the text of the failure.
    fn run(&self, cases: impl IntoIterator<Item = (String, Case)>) -> Result<usize, String> {
        let cases = Cases::new(cases).unwrap();
        let file = cases.embed(&self.bytes).unwrap();
        self.engine
            .compile(&file)
            .expect("a component with cases is a component");
        golden::run(&self.engine, &self.component, &limits(), &file)
            .map_err(|broken| broken.to_string())
    }

    /// The same of one case.
    fn run_one(
        &self,
        settings: &serde_json::Value,
        steps: &serde_json::Value,
    ) -> Result<usize, String> {
        let case = json!({"settings": settings, "steps": steps}).to_string();
        self.run([("one".to_owned(), Case::parse(&case).unwrap())])
    }
}

#[test]
fn the_filters_that_ship_keep_their_golden_cases() {
    for name in FILTERS {
        let files = fs::read_dir(root().join("filters").join(name).join("golden")).unwrap();
        let cases: Vec<(String, Case)> = files
            .map(|file| {
                let path = file.unwrap().path();
                let case = Case::parse(&fs::read_to_string(&path).unwrap());
                (path.display().to_string(), case.unwrap())
            })
            .collect();
        assert!(!cases.is_empty(), "{name} has golden cases");
        let count = cases.len();
        assert_eq!(Compiled::new(name).run(cases), Ok(count), "{name}");
    }
}

#[test]
fn a_component_without_cases_passes() {
    let redact = Compiled::new("redact");
    let ran = golden::run(&redact.engine, &redact.component, &limits(), &redact.bytes);
    assert_eq!(ran.unwrap(), 0);
}

#[test]
fn a_case_is_one_instance_that_takes_events_and_ticks_in_order() {
    let hostile = Compiled::new("hostile");
    let count =
        |number: u64| json!({"edits": [{"set": {"name": "X-Count", "value": number.to_string()}}]});
    let event = json!({"Event-Name": "CODEC"});
    let steps = json!([
        {"event": event, "expect": count(1)},
        {"event": {"Event-Name": "DTMF"}, "expect": "unseen"},
        {"tick": 1, "expect": "unseen"},
        {"event": event, "expect": count(2)},
    ]);
    let settings = json!({"attack": "counter", "wants": ["CODEC"]});
    assert_eq!(hostile.run_one(&settings, &steps), Ok(1));
    let steps = json!([
        {"tick": 5, "expect": {"derived": [{"name": "HOSTILE_TICK", "headers": {"X-Now": "5"}}]}},
        {"event": event, "expect": {}},
    ]);
    let settings = json!({"attack": "tick", "tick_ms": 50});
    assert_eq!(hostile.run_one(&settings, &steps), Ok(1));
    let case =
        json!({"settings": {"attack": "counter"}, "steps": [{"event": event, "expect": count(1)}]});
    let case = Case::parse(&case.to_string()).unwrap();
    let twice = ["a", "b"].map(|name| (name.to_owned(), case.clone()));
    assert_eq!(
        hostile.run(twice),
        Ok(2),
        "each case has an instance of its own"
    );
}

#[test]
fn a_case_that_fails_says_which_step_and_how() {
    let hostile = Compiled::new("hostile");
    let event = json!({"Event-Name": "CODEC"});
    let pass = json!([{"event": event, "expect": {}}, {"event": event, "expect": {}}]);
    for (settings, steps, text) in [
        (
            json!({"attack": "trap", "after": 2}),
            &pass,
            "golden case one: step 2: trap: ",
        ),
        (
            json!({"attack": "loop"}),
            &pass,
            "golden case one: step 1: deadline: no answer within 1000 ms",
        ),
        (
            json!({"attack": "route-nothing"}),
            &pass,
            "golden case one: step 1: bad output: route([]) names no stream",
        ),
        (
            json!({"attack": "big-strings"}),
            &pass,
            "golden case one: step 1: ",
        ),
        (
            json!({"attack": "refuse"}),
            &pass,
            "golden case one: does not start: settings refused: refused: `attack`",
        ),
        (
            json!({"attack": "counter"}),
            &pass,
            r#"golden case one: step 1: edit 1: expected none, got {"set":{"name":"X-Count","value":"1"}}"#,
        ),
        (
            json!({"attack": "version"}),
            &json!([{"event": {"A": 1}}]),
            "golden case one: step 1: malformed event: ",
        ),
        (
            json!({"attack": "tick"}),
            &json!([{"event": event}]),
            r#"golden case one: step 1: expects nothing yet, got {"verdict":"pass"}"#,
        ),
    ] {
        let broken = hostile.run_one(&settings, steps).unwrap_err();
        assert!(
            broken.starts_with(text),
            "{settings}: {broken:?} should say {text:?}"
        );
    }
}

#[test]
fn cases_that_take_too_long_are_given_up() {
    let hostile = Compiled::new("hostile");
    let case = json!({"settings": {"attack": "slow", "work": 1_000}, "steps": vec![json!({"tick": 1}); 1_000]});
    let case = Case::parse(&case.to_string()).unwrap();
    let (engine, component) = (&hostile.engine, &hostile.component);
    let outcomes = |time| Rehearsal::new(engine, component, &limits(), time).outcomes(&case);
    assert_eq!(outcomes(golden::TIME).unwrap().len(), 1_000);
    let given_up = outcomes(Duration::ZERO).unwrap_err().to_string();
    assert_eq!(given_up, "step 1: the cases are not done within 0ns");
}
