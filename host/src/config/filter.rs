//! The settings file of one filter: `NAME.toml` beside `NAME.wasm`. Its table `[jackfield]` is the host's and may
//! change what `[filters]` says; everything else is the filter's own and reaches its `configure` as JSON.

use serde_json::{Map, Number};
use toml::{Table, Value};

use super::mistakes::{Mistake, Mistakes};
use super::reader::{Reader, key_part};
use super::types::{FilterLimits, OnError, Policy};
use super::values;

/// The table that is the host's.
const OURS: &str = "jackfield";

/// Reads the text of a `NAME.toml`: the filter's limits, which are `defaults` where it says nothing, and the rest as the
/// text of a JSON object. Dates and times become strings. The keys in a mistake do not name the file.
///
/// # Errors
/// Every mistake that there is: text that is not TOML, what `[jackfield]` does not allow, numbers that JSON lacks.
pub fn filter_settings(
    toml_text: &str,
    defaults: &FilterLimits,
) -> Result<(FilterLimits, String), Mistakes> {
    let mut reader = Reader::of_text(String::new(), toml_text);
    let own = reader.take_rest(OURS);
    let limits = filter_limits(&mut reader, OURS, defaults.clone());
    let mut mistakes = reader.finish();
    let json = json_object("", own, &mut mistakes);
    Mistakes::of(mistakes)?;
    Ok((limits, json.to_string()))
}

/// The limits in the table `table`.
pub(super) fn filter_limits(
    reader: &mut Reader,
    table: &str,
    defaults: FilterLimits,
) -> FilterLimits {
    let key = |name: &str| format!("{table}.{name}");
    let on_error = policy(reader, table, defaults.on_error);
    FilterLimits {
        deadline: reader.get(
            &key("deadline"),
            defaults.deadline,
            &values::POSITIVE_DURATION,
        ),
        memory: reader.get(&key("memory"), defaults.memory, &values::MEMORY),
        on_error,
        wasi: reader.get(&key("wasi"), defaults.wasi, &values::WASI),
        streams: reader
            .given_list(&key("streams"), &values::STREAM_PATTERN)
            .map_or(defaults.streams, |given| given.value),
        probation: reader.get(&key("probation"), defaults.probation, &values::DURATION),
        fuse: reader.get(&key("fuse"), defaults.fuse, &values::SWITCH),
    }
}

/// `on_error` is for every cause that has no key of its own.
fn policy(reader: &mut Reader, table: &str, defaults: Policy) -> Policy {
    let defaults = reader
        .given(&format!("{table}.on_error"), &values::ON_ERROR)
        .map_or(defaults, |given| Policy::all(given.value));
    let mut on = |cause: &str, default: OnError| {
        reader.get(&format!("{table}.on_{cause}"), default, &values::ON_ERROR)
    };
    Policy {
        trap: on("trap", defaults.trap),
        deadline: on("deadline", defaults.deadline),
        memory: on("memory", defaults.memory),
        bad_output: on("bad_output", defaults.bad_output),
        load: on("load", defaults.load),
    }
}

fn json_object(path: &str, table: Table, mistakes: &mut Vec<Mistake>) -> serde_json::Value {
    let members = table.into_iter().map(|(name, value)| {
        let key = format!("{path}{}", key_part(&name));
        let value = json(&key, value, mistakes);
        (name, value)
    });
    serde_json::Value::Object(members.collect::<Map<_, _>>())
}

fn json(key: &str, value: Value, mistakes: &mut Vec<Mistake>) -> serde_json::Value {
    match value {
        Value::String(text) => serde_json::Value::String(text),
        Value::Integer(number) => serde_json::Value::Number(number.into()),
        Value::Boolean(yes) => serde_json::Value::Bool(yes),
        Value::Datetime(time) => serde_json::Value::String(time.to_string()),
        Value::Float(number) => Number::from_f64(number).map_or_else(
            || {
                mistakes.push(Mistake::Value {
                    place: key.to_owned(),
                    value: number.to_string(),
                    allowed: "a number that JSON has".to_owned(),
                });
                serde_json::Value::Null
            },
            serde_json::Value::Number,
        ),
        Value::Array(items) => {
            let items = items.into_iter().map(|item| json(key, item, mistakes));
            serde_json::Value::Array(items.collect())
        }
        Value::Table(table) => json_object(&format!("{key}."), table, mistakes),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::config::tests::defaults;
    use crate::config::types::Wasi;

    #[test]
    fn a_filters_file_has_its_limits_and_its_own_settings() {
        let text = r#"
            zebra = 1
            since = 2026-01-02T03:04:05Z
            [jackfield]
            deadline = "20ms"
            on_error = "dead-letter"
            on_trap = "last-good"
            streams = []
            fuse = false
            [rules.first]
            share = 0.5
            names = ["a", { b = true }]
        "#;
        let filters = defaults().filters.limits;
        let (limits, json) = filter_settings(text, &filters).unwrap();
        assert_eq!(
            limits,
            FilterLimits {
                deadline: Duration::from_millis(20),
                memory: filters.memory,
                on_error: Policy {
                    trap: OnError::LastGood,
                    ..Policy::all(OnError::DeadLetter)
                },
                wasi: Wasi::Locked,
                streams: Vec::new(),
                probation: filters.probation,
                fuse: false,
            }
        );
        assert_eq!(
            json,
            r#"{"zebra":1,"since":"2026-01-02T03:04:05Z","rules":{"first":{"share":0.5,"names":["a",{"b":true}]}}}"#
        );
    }

    #[test]
    fn a_filters_empty_file_changes_nothing() {
        let filters = defaults().filters.limits;
        let (limits, json) = filter_settings("", &filters).unwrap();
        assert_eq!(
            (limits.deadline, limits.streams),
            (filters.deadline, filters.streams)
        );
        assert_eq!(json, "{}");
    }

    #[test]
    fn a_filters_mistakes_come_in_one_go() {
        let text = "rate = [inf]\n[jackfield]\nmemory = 1\nwasy = \"deny\"";
        let mistakes = filter_settings(text, &defaults().filters.limits).unwrap_err();
        assert_eq!(
            mistakes.to_string(),
            "jackfield.memory = 1: allowed is a size from 64KiB to 4GiB such as 16MiB\n\
             jackfield.wasy: unknown key; did you mean jackfield.wasi?\n\
             rate = inf: allowed is a number that JSON has"
        );
        let mistakes = filter_settings("jackfield = 1", &defaults().filters.limits).unwrap_err();
        assert_eq!(mistakes.to_string(), "jackfield = ***: allowed is a table");
        let mistakes = filter_settings("a =", &defaults().filters.limits).unwrap_err();
        assert_eq!(
            mistakes.to_string(),
            "line 1, column 4: string values must be quoted, expected literal string"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in any::<String>()) {
            drop(filter_settings(&text, &defaults().filters.limits));
        }
    }
}
