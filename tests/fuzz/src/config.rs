//! The configuration: any file, environment and flags are settings that keep their bounds, or mistakes that a person can act
//! on; and no secret is ever shown.
//!
//! The data is the text of the file. Behind it, each after a zero byte, may stand variables (`NAME=VALUE`; of a `_FILE`
//! variable, what is in the file) and flags (`--KEY=VALUE`). What stands in a password's place and contains
//! [`SECRET`] must not be seen anywhere afterwards.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use jackfield::config::{
    Config, FilterLimits, Mistake, Mistakes, OnError, Sources, Wasi, filter_settings, load,
};
use jackfield::route::Routes;
use toml::{Table, Value};

/// What must not be shown.
const SECRET: &str = "Xyzzy42";

/// The settings that hold a secret, and those of them that hold one before an `@`.
const SECRETS: [&str; 8] = [
    "esl.password",
    "http.token",
    "redis.url",
    "ESL_PASSWORD",
    "REDIS_REMOTE_PASSWORD",
    "JACKFIELD_ESL_PASSWORD",
    "JACKFIELD_HTTP_TOKEN",
    "JACKFIELD_REDIS_URL",
];
const ADDRESSES: [&str; 3] = ["redis.url", "JACKFIELD_REDIS_URL", "REDIS_REMOTE_ADDR"];

/// Checks one configuration, and its file's text as that of a filter.
pub fn run(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let text = parts.next().unwrap_or_default();
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("a file is written");
        path
    };
    let file = write("jackfield.toml", text);
    let (mut env, mut flags) = (Vec::new(), Vec::new());
    for (number, part) in parts.enumerate() {
        let Some((name, value)) = pair(part) else {
            continue;
        };
        match name.strip_prefix("--") {
            Some(key) => flags.push((key.to_owned(), String::from_utf8_lossy(value).into_owned())),
            // One that names a file gets one, so that nothing else on this machine is read.
            None if name.ends_with("_FILE") => {
                env.push((name.into(), write(&number.to_string(), value).into()));
            }
            None => env.push((name.into(), OsString::from_vec(value.to_vec()))),
        }
    }
    let kept = text_keeps_secret(text)
        && env.iter().all(keeps_secret)
        && flags.iter().all(flag_keeps_secret);
    let sources = Sources {
        file: Some(file),
        env,
        flags,
    };
    let loaded = load(sources.clone());
    match &loaded {
        Ok(config) => check_config(config),
        Err(mistakes) => check_mistakes(mistakes),
    }
    if kept {
        let shown = match &loaded {
            // Who logs in is no secret.
            Ok(config) if config.redis.user.contains(SECRET) => String::new(),
            Ok(config) => format!("{config:?}"),
            Err(mistakes) => format!("{mistakes}{mistakes:?}"),
        };
        assert!(!shown.contains(SECRET), "a secret is shown: {shown}");
    }
    check_one_more(sources, loaded.err());

    if let Ok(text) = std::str::from_utf8(text) {
        check_filter(text);
    }
}

fn pair(part: &[u8]) -> Option<(&str, &[u8])> {
    let end = part.iter().position(|byte| *byte == b'=')?;
    Some((std::str::from_utf8(&part[..end]).ok()?, &part[end + 1..]))
}

/// Whether the secret stands where one may stand, and nowhere else. What is not even TOML is never quoted.
fn text_keeps_secret(text: &[u8]) -> bool {
    let table = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<Table>().ok());
    table.is_none_or(|table| table_keeps_secret("", &table))
}

fn table_keeps_secret(path: &str, table: &Table) -> bool {
    table.iter().all(|(name, value)| {
        let key = format!("{path}{name}");
        match value {
            Value::Table(_) | Value::Array(_) if SECRETS.contains(&key.as_str()) => true,
            _ if name.contains(SECRET) => false,
            Value::String(text) => setting_keeps_secret(&key, text),
            Value::Table(table) => table_keeps_secret(&format!("{key}."), table),
            other => !other.to_string().contains(SECRET),
        }
    })
}

fn keeps_secret((name, value): &(OsString, OsString)) -> bool {
    let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
    match name.strip_suffix("_FILE") {
        Some(twin) => {
            let content = fs::read(Path::new(&*value)).unwrap_or_default();
            setting_keeps_secret(twin, &String::from_utf8_lossy(&content))
        }
        None => setting_keeps_secret(&name, &value),
    }
}

fn flag_keeps_secret((key, value): &(String, String)) -> bool {
    setting_keeps_secret(key, value)
}

fn setting_keeps_secret(name: &str, value: &str) -> bool {
    if !value.contains(SECRET) {
        return !name.contains(SECRET);
    }
    if ADDRESSES.contains(&name) {
        return in_credentials(value);
    }
    SECRETS.contains(&name)
}

/// Whether the secret is a part of `user:password` in an address, whatever else is wrong with it.
fn in_credentials(address: &str) -> bool {
    let scheme = |scheme: &str| {
        scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let rest = match address.split_once("://") {
        Some((before, rest)) if scheme(before) && !before.contains(SECRET) => rest,
        _ => address,
    };
    let credentials = rest.rsplit_once('@').map_or(rest, |(before, _)| before);
    let password = credentials
        .split_once(':')
        .map_or("", |(_, password)| password);
    password.matches(SECRET).count() == address.matches(SECRET).count()
}

/// The bounds that `config::Config` promises to those who use it.
fn check_config(config: &Config) {
    let (esl, journal, redis) = (&config.esl, &config.journal, &config.redis);
    assert!(!esl.host.is_empty() && !redis.host.is_empty());
    assert!(esl.port > 0 && redis.port > 0);
    assert!(
        !esl.password.expose().contains(['\r', '\n', '\0']),
        "a login is one line"
    );
    assert!(!esl.user.contains([':', '\r', '\n', '\0']));
    assert!(esl.backoff.initial > Duration::ZERO && esl.backoff.initial <= esl.backoff.max);
    assert!(esl.timeout > Duration::ZERO && esl.alarm_after > 0);
    assert!(
        config
            .router
            .name
            .as_ref()
            .is_none_or(|name| !name.is_empty())
    );
    assert!(journal.max_size >= 16 << 20 && journal.retain > Duration::ZERO);
    assert!((1..=10_000_000).contains(&config.buffer.events));
    assert!(redis.timeout > Duration::ZERO && redis.connect_timeout > Duration::ZERO);
    assert!(config.trim_interval > Duration::ZERO);
    assert!(
        config
            .http
            .token
            .expose()
            .chars()
            .all(|c| c.is_ascii_graphic())
    );
    check_limits(&config.filters.limits);

    let names: HashSet<&str> = config
        .streams
        .iter()
        .map(|stream| stream.name.as_str())
        .collect();
    assert_eq!(names.len(), config.streams.len(), "each stream once");
    assert!(
        !names.contains(config.dead_letter.stream.as_str()),
        "dead letters are apart"
    );
    for stream in &config.streams {
        assert!(!stream.name.is_empty() && !stream.name.contains(char::is_control));
        assert!(stream.expire.is_none_or(|age| age > Duration::ZERO));
    }
    for route in &config.routes {
        assert!(route.stream < config.streams.len() && !route.events.is_empty());
    }
    let routes = Routes::new(&config.streams, &config.routes, &config.dead_letter);
    let expiring = config
        .streams
        .iter()
        .filter(|stream| stream.expire.is_some());
    assert_eq!(routes.expiring().len(), expiring.count());
}

fn check_limits(limits: &FilterLimits) {
    assert!(limits.deadline > Duration::ZERO);
    assert!((64 << 10..=4 << 30).contains(&limits.memory));
    for pattern in &limits.streams {
        let name = pattern.strip_suffix('*').unwrap_or(pattern);
        assert!(!pattern.is_empty() && !name.contains('*'));
    }
}

/// One mistake more is told, and all others still are, but for those about a value that it hides.
fn check_one_more(sources: Sources, mistakes: Option<Mistakes>) {
    let mut sources = sources;
    sources.flags.retain(|(key, _)| key != "limits.total");
    sources
        .flags
        .push(("limits.total".to_owned(), "soon".to_owned()));
    let lines = |mistakes: &Mistakes| {
        let lines = mistakes.iter().map(Mistake::to_string);
        lines.collect::<Vec<String>>()
    };
    let told = lines(&load(sources).expect_err("soon is no duration"));
    let own = told
        .iter()
        .find(|line| line.starts_with("flag limits.total = \"soon\""));
    assert!(own.is_some(), "the mistake is told among {told:#?}");
    let names = ["limits.total", "LIMITS_TOTAL", "TOTAL_MAX_LATENCY"];
    let is_other = |line: &&String| !names.iter().any(|name| line.contains(name));
    let before = mistakes.as_ref().map(lines).unwrap_or_default();
    let (before, told) = (before.iter().filter(is_other), told.iter().filter(is_other));
    assert!(before.eq(told), "all others still are");
}

/// Each mistake is one line that names the setting and says what is allowed.
fn check_mistakes(mistakes: &Mistakes) {
    assert!(mistakes.iter().next().is_some(), "a refusal says why");
    assert_eq!(
        mistakes.to_string().lines().count(),
        mistakes.iter().count(),
        "a mistake is one line: {mistakes}"
    );
    for mistake in mistakes.iter() {
        let line = mistake.to_string();
        assert!(
            !line.contains(|c: char| c.is_control()),
            "{line:?} is fit for a terminal"
        );
        let (named, explained) = match mistake {
            Mistake::Value { place, allowed, .. } | Mistake::Missing { place, allowed } => {
                (place, allowed.as_str())
            }
            Mistake::Unknown { place, what, .. } => (place, *what),
            Mistake::Both { variable } => (variable, "both"),
            Mistake::File { place, cause } => (place, cause.as_str()),
        };
        assert!(
            !named.trim().is_empty() && !explained.is_empty(),
            "{line:?} says where and what"
        );
    }
}

fn check_filter(text: &str) {
    let defaults = FilterLimits {
        deadline: Duration::from_millis(10),
        memory: 16 << 20,
        on_error: OnError::Pass,
        wasi: Wasi::Locked,
        streams: Vec::new(),
    };
    match filter_settings(text, &defaults) {
        Ok((limits, json)) => {
            check_limits(&limits);
            let settings: serde_json::Value =
                serde_json::from_str(&json).expect("a filter's settings are JSON");
            let own = text.parse::<Table>().expect("they were read");
            let own = own.keys().filter(|name| *name != "jackfield");
            let settings = settings.as_object().expect("an object");
            assert!(
                own.eq(settings.keys()),
                "every setting of the filter, in its order"
            );
        }
        Err(mistakes) => check_mistakes(&mistakes),
    }
}
