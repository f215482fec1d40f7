//! `docs/settings.md` says what the module does: every key, variable and default.

use super::drop_in::go_defaults;
use super::{Situation, defaults};
use crate::config::changes::{SETTINGS, Takes};
use crate::config::drop_in::{DROP_INS, Effect};
use crate::config::environment::variable_name;
use crate::config::{Sources, routes, stages};

/// The user's page.
const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md"));

/// The cells of the page's table rows that start with code, without the backquotes around a whole cell.
fn rows() -> Vec<Vec<&'static str>> {
    let bare = |cell: &'static str| {
        let cell = cell.trim();
        let code = cell
            .strip_prefix('`')
            .and_then(|cell| cell.strip_suffix('`'));
        code.unwrap_or(cell)
    };
    PAGE.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(bare).collect())
        .collect()
}

fn row(first: &str) -> Vec<&'static str> {
    let found: Vec<_> = rows().into_iter().filter(|row| row[0] == first).collect();
    assert_eq!(
        found.len(),
        1,
        "docs/settings.md has not one row for {first}"
    );
    found[0].clone()
}

/// What the default's cell says, as a user would write it.
fn default_text(cell: &'static str) -> &'static str {
    if cell == "empty" { "" } else { cell }
}

#[test]
fn the_page_has_every_key_with_its_variable_and_its_default() {
    let mut reader = stages::open(Sources::default());
    stages::read_config(&mut reader);
    let keys: Vec<_> = reader.asked().filter(|key| *key != "stream").collect();
    for key in &keys {
        let row = row(key);
        assert_eq!(row[1], variable_name(key), "the variable of {key}");
        let config = Situation::default()
            .and_flag(key, default_text(row[2]))
            .config();
        assert_eq!(config, defaults(), "{key} does not default to {}", row[2]);
    }
    let documented = rows()
        .into_iter()
        .filter(|row| row[1].starts_with("JACKFIELD_"));
    assert_eq!(
        documented.count(),
        keys.len(),
        "the page has keys that do not exist"
    );
}

#[test]
fn the_page_has_every_key_of_a_stream_with_its_default() {
    let table = "name = \"x\"".parse().unwrap();
    let reader = routes::keys_of_table(table);
    let keys: Vec<_> = reader.asked().collect();
    assert_eq!(keys.len(), 6);
    let plain = Situation::file("[[stream]]\nname = \"x\"").config();
    for key in keys {
        let row = row(&format!("stream.{key}"));
        let default = row[1];
        if !["none", "empty"].contains(&default) {
            let text = format!("[[stream]]\nname = \"x\"\n{key} = {default:?}");
            assert_eq!(
                Situation::file(&text).config(),
                plain,
                "{key} does not default to {default}"
            );
        }
    }
}

/// When a change of a key takes effect: what is said of the key, or else of its table.
fn takes(key: &str) -> Takes {
    let mut parts: Vec<&str> = key.split('.').collect();
    while !parts.is_empty() {
        let name = parts.join(".");
        if let Some((_, takes, _)) = SETTINGS.iter().find(|(known, _, _)| *known == name) {
            return *takes;
        }
        parts.pop();
    }
    panic!("nothing says when a change of {key} takes effect")
}

#[test]
fn the_page_says_of_every_key_when_a_change_takes_effect() {
    let rows = rows().into_iter().filter_map(|row| {
        let cell = match row[1].starts_with("JACKFIELD_") {
            true => 3,
            false if row[0].starts_with("stream.") => 2,
            false => return None,
        };
        Some((row[0], row[cell]))
    });
    for (key, said) in rows {
        let expected = match takes(key) {
            Takes::Now => "now",
            Takes::AtStart => "start",
        };
        assert_eq!(said, expected, "{key}");
    }
}

#[test]
fn the_page_has_every_variable_of_the_go_service_with_its_effect() {
    for drop_in in DROP_INS {
        let row = row(drop_in.name);
        let default = go_defaults()
            .find(|(name, _)| *name == drop_in.name)
            .unwrap()
            .1;
        if drop_in.name != "READER_WORKERS" {
            assert_eq!(
                default_text(row[1]),
                default,
                "the default of {}",
                drop_in.name
            );
        }
        match drop_in.effect {
            Effect::Nothing(why) => assert_eq!(row[2], format!("Accepted, no effect: {why}.")),
            Effect::Sets(key) => {
                assert!(row[2].contains(&format!("`{key}`")), "{row:?} names {key}");
            }
            Effect::Part | Effect::Stream => assert!(!row[2].starts_with("Accepted"), "{row:?}"),
        }
    }
}

#[test]
fn the_example_on_the_page_is_a_valid_file() {
    let (_, after) = PAGE.split_once("```toml\n").unwrap();
    let (example, _) = after.split_once("```").unwrap();
    Situation::file(example).config();
}
