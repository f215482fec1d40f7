//! What was accepted keeps the bounds that `config::Config` promises to those who use it, and has no setting that the page
//! does not know.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use jackfield::config::{Config, FilterLimits, Sources};
use jackfield::route::Routes;
use toml::{Table, Value};

/// The user's page.
const PAGE: &str = include_str!("../../../../docs/settings.md");

/// Every key of the page, `stream.name` and its like included.
static KEYS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split('`').next());
    names.filter(|name| name.contains('.')).collect()
});

pub(super) fn check(config: &Config, sources: &Sources, text: &[u8]) {
    check_bounds(config);
    check_limits(&config.filters.limits);
    check_streams(config);
    let text = std::str::from_utf8(text).expect("it was read");
    let table: Table = text.parse().expect("it was read");
    check_keys("", &table);
    let tables = table.get("stream").and_then(Value::as_array);
    for table in tables.into_iter().flatten() {
        let name = table
            .get("name")
            .and_then(Value::as_str)
            .expect("a stream has a name");
        let is_there = config.streams.iter().any(|stream| stream.name == name);
        assert!(is_there, "{name:?} is a stream");
    }
    for (key, _) in &sources.flags {
        assert!(KEYS.contains(&key.as_str()), "flag {key:?} is accepted");
    }
    for (name, value) in &sources.env {
        let name = name.to_string_lossy();
        let is_ours = name.starts_with("JACKFIELD_") && !value.is_empty();
        assert!(!is_ours || is_variable(&name), "{name:?} is accepted");
    }
}

fn check_keys(path: &str, table: &Table) {
    for (name, value) in table {
        let key = format!("{path}{name}");
        match value {
            Value::Array(tables) if key == "stream" => {
                let tables = tables.iter().filter_map(Value::as_table);
                tables.for_each(|table| check_keys("stream.", table));
            }
            _ if KEYS.contains(&key.as_str()) => {}
            Value::Table(table) => check_keys(&format!("{key}."), table),
            other => panic!("{key} = {other} is accepted"),
        }
    }
}

fn is_variable(name: &str) -> bool {
    let stem = name.strip_suffix("_FILE").unwrap_or(name);
    let mut variables = KEYS.iter().map(|key| key.replace('.', "_").to_uppercase());
    variables.any(|variable| stem.strip_prefix("JACKFIELD_") == Some(&variable))
}

fn check_bounds(config: &Config) {
    let (esl, journal, redis) = (&config.esl, &config.journal, &config.redis);
    assert!(!esl.host.is_empty() && !redis.host.is_empty());
    assert!(esl.port > 0 && redis.port > 0);
    assert!(!esl.password.expose().contains(['\r', '\n', '\0']));
    assert!(!esl.user.contains([':', '\r', '\n', '\0']));
    assert!(esl.backoff.initial > Duration::ZERO && esl.backoff.initial <= esl.backoff.max);
    assert!(esl.timeout > Duration::ZERO && esl.alarm_after > 0);
    assert_ne!(config.router.name.as_deref(), Some(""));
    assert!(journal.max_size >= 16 << 20 && journal.retain > Duration::ZERO);
    assert!((1..=10_000_000).contains(&config.buffer.events));
    assert!(!redis.password.expose().contains(['\r', '\n', '\0']));
    assert!(redis.user.is_empty() || !redis.password.is_empty());
    assert!(redis.timeout > Duration::ZERO && redis.connect_timeout > Duration::ZERO);
    assert!(config.trim_interval > Duration::ZERO);
    let token = config.http.token.expose();
    assert!(token.chars().all(|c| c.is_ascii_graphic()));
}

pub(super) fn check_limits(limits: &FilterLimits) {
    assert!(limits.deadline > Duration::ZERO);
    assert!((64 << 10..=4 << 30).contains(&limits.memory));
    for pattern in &limits.streams {
        let name = pattern.strip_suffix('*').unwrap_or(pattern);
        assert!(!pattern.is_empty() && !name.contains('*'), "{pattern:?}");
    }
}

fn check_streams(config: &Config) {
    let streams = &config.streams;
    let names: HashSet<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
    assert_eq!(names.len(), streams.len(), "each stream once");
    let dead = config.dead_letter.stream.as_str();
    assert!(!names.contains(dead), "dead letters are apart");
    for stream in streams {
        assert!(!stream.name.is_empty() && !stream.name.contains(char::is_control));
        assert_ne!(stream.expire, Some(Duration::ZERO), "no age is no limit");
    }
    for route in &config.routes {
        assert!(route.stream < streams.len() && !route.events.is_empty());
    }
    let routes = Routes::new(streams, &config.routes, &config.dead_letter);
    let expiring = streams.iter().filter(|stream| stream.expire.is_some());
    assert_eq!(routes.expiring().len(), expiring.count());
}
